#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

/* How the verb is called: "voxmamba segment". */
typedef struct command {
    char text[64];
} command;

static command command_of(const cli_verb *verb) {
    command out;
    snprintf(out.text, sizeof out.text, "%s%s%s", cli_program(), verb->name ? " " : "",
             verb->name ? verb->name : "");
    return out;
}

/* ---- Slips ---- */

/* Damerau's distance (neighbours swapped count once) of short texts; a large number for long ones.
 */
static size_t edit_distance(const char *a, const char *b) {
    enum { MAX = 31 };
    size_t n = strlen(a), m = strlen(b), d[MAX + 1][MAX + 1];
    if (n > MAX || m > MAX) return 1000;
    for (size_t i = 0; i <= n; i++) d[i][0] = i;
    for (size_t j = 0; j <= m; j++) d[0][j] = j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

const char *cli_suggest(const char *text, const char *const *candidates, size_t count) {
    const char *best = NULL;
    size_t least = strlen(text) / 3 + 2; /* a third of the letters may be wrong */
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(text, candidates[i]);
        if (distance < least) {
            least = distance;
            best = candidates[i];
        }
    }
    return best;
}

static void unknown_option(const cli_verb *verb, const char *typed, const char *name) {
    const char *names[96];
    size_t count = 0;
    for (size_t i = 0; i < verb->option_count && count < 96; i++)
        names[count++] = verb->options[i].name;
    const char *near = name ? cli_suggest(name, names, count) : NULL;
    if (near)
        cli_usage_error("unknown option '%s' (did you mean --%s? see %s --help)", typed, near,
                        command_of(verb).text);
    else
        cli_usage_error("unknown option '%s' (see %s --help)", typed, command_of(verb).text);
}

/* ---- Parsing ---- */

static bool set_number(const cli_option *option, const char *text, double *out) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(value)) {
        cli_usage_error("--%s: '%s' is not a number", option->name, text);
        return false;
    }
    *out = value;
    return true;
}

/* Decimal units, as everywhere in what the program prints; with i binary ones. */
static bool set_bytes(const cli_option *option, const char *text, double *out) {
    static const char units[] = "kmgt";
    char *end;
    errno = 0;
    double value = strtod(text, &end), base = 1000;
    bool digits = end != text && text[0] != '-' && isfinite(value) && !errno;
    const char *unit = *end ? strchr(units, *end | 0x20) : NULL;
    if (unit) {
        end++;
        if (*end == 'i') {
            base = 1024;
            end++;
        }
        value *= pow(base, (double)(unit - units + 1));
    }
    if (*end == 'B' || *end == 'b') end++;
    if (!digits || *end || !(value >= 1 && value <= 1e18)) {
        cli_usage_error("--%s: '%s' is not a size (512M, 4G, 1.5GiB)", option->name, text);
        return false;
    }
    *out = value;
    return true;
}

static bool set_count(const cli_option *option, const char *text, unsigned *out) {
    char *end;
    const long least = option->kind == CLI_COUNT ? 1 : 0;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < least || value > 1000000) {
        cli_usage_error("--%s: '%s' is not a whole number from %ld on", option->name, text, least);
        return false;
    }
    *out = (unsigned)value;
    return true;
}

static bool append(cli_list *list, const char *item) {
    const char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) {
        cli_usage_error("out of memory");
        return false;
    }
    list->items = items;
    items[list->count++] = item;
    return true;
}

static bool takes_value(const cli_option *option) {
    return option->kind != CLI_FLAG && option->kind != CLI_UNFLAG &&
           option->kind != CLI_OPTIONAL_TEXT;
}

static bool set_option(const cli_verb *verb, const cli_option *option, const char *text,
                       void *args) {
    void *field = (char *)args + option->offset;
    if (verb->empty_is_default && takes_value(option) && !*text) return true;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        return true;
    case CLI_UNFLAG:
        *(bool *)field = false;
        return true;
    case CLI_TEXT:
    case CLI_OPTIONAL_TEXT:
        *(const char **)field = text;
        return true;
    case CLI_NUMBER:
        return set_number(option, text, field);
    case CLI_BYTES:
        return set_bytes(option, text, field);
    case CLI_COUNT:
    case CLI_COUNT_OR_NONE:
        return set_count(option, text, field);
    case CLI_LIST:
        return append(field, text);
    }
    return false;
}

/* Exact name, or the only one that begins so. NULL after a message. */
static const cli_option *find_long(const cli_verb *verb, const char *typed, const char *name) {
    const cli_option *found = NULL;
    size_t n = strlen(name);
    for (size_t i = 0; i < verb->option_count; i++) {
        const cli_option *option = &verb->options[i];
        if (strcmp(option->name, name) == 0) return option;
        if (n == 0 || strncmp(option->name, name, n) != 0) continue;
        if (found) {
            cli_usage_error("option '%s' is ambiguous (--%s or --%s?)", typed, found->name,
                            option->name);
            return NULL;
        }
        found = option;
    }
    if (!found) unknown_option(verb, typed, name);
    return found;
}

/* argv[*i] is "--...". */
static bool parse_long(const cli_verb *verb, int argc, char **argv, int *i, void *args) {
    char name[64];
    const char *typed = argv[*i] + 2, *equals = strchr(typed, '=');
    size_t n = equals ? (size_t)(equals - typed) : strlen(typed);
    if (n >= sizeof name) {
        unknown_option(verb, argv[*i], NULL);
        return false;
    }
    memcpy(name, typed, n);
    name[n] = '\0';
    char shown[80];
    snprintf(shown, sizeof shown, "--%s", name);
    const cli_option *option = find_long(verb, shown, name);
    if (!option) return false;
    if (!takes_value(option)) {
        if (equals && option->kind != CLI_OPTIONAL_TEXT) {
            cli_usage_error("--%s takes no value", option->name);
            return false;
        }
        return set_option(verb, option, equals ? equals + 1 : "", args);
    }
    if (equals) return set_option(verb, option, equals + 1, args);
    if (*i + 1 >= argc) {
        cli_usage_error("--%s needs a value (%s)", option->name, option->value);
        return false;
    }
    return set_option(verb, option, argv[++*i], args);
}

/* argv[*i] is "-x...". */
static bool parse_short(const cli_verb *verb, int argc, char **argv, int *i, void *args) {
    for (const char *letter = argv[*i] + 1; *letter; letter++) {
        const cli_option *option = NULL;
        for (size_t k = 0; k < verb->option_count && !option; k++)
            if (verb->options[k].letter == *letter) option = &verb->options[k];
        if (!option) {
            char shown[3] = {'-', *letter, '\0'};
            unknown_option(verb, shown, NULL);
            return false;
        }
        if (!takes_value(option)) {
            if (!set_option(verb, option, "", args)) return false;
            continue;
        }
        if (letter[1]) return set_option(verb, option, letter + 1, args);
        if (*i + 1 >= argc) {
            cli_usage_error("-%c needs a value (%s)", *letter, option->value);
            return false;
        }
        return set_option(verb, option, argv[++*i], args);
    }
    return true;
}

bool cli_parse(const cli_verb *verb, int argc, char **argv, void *args) {
    cli_list *operands = args;
    bool ok = true, options = true;
    for (int i = 0; i < argc && ok; i++) {
        if (!options || argv[i][0] != '-' || !argv[i][1])
            ok = append(operands, argv[i]);
        else if (strcmp(argv[i], "--") == 0)
            options = false;
        else if (argv[i][1] == '-')
            ok = parse_long(verb, argc, argv, &i, args);
        else
            ok = parse_short(verb, argc, argv, &i, args);
    }
    return ok;
}

void cli_free_args(const cli_verb *verb, void *args) {
    free(((cli_list *)args)->items);
    for (size_t i = 0; i < verb->option_count; i++)
        if (verb->options[i].kind == CLI_LIST)
            free(((cli_list *)(void *)((char *)args + verb->options[i].offset))->items);
}

/* ---- Help ---- */

static void print_option(const cli_option *option) {
    char left[64];
    snprintf(left, sizeof left, "%s%.1s%s--%s%s%s%s", option->letter ? "-" : "  ",
             option->letter ? &option->letter : "", option->letter ? ", " : "  ", option->name,
             option->value ? (option->kind == CLI_OPTIONAL_TEXT ? "[=" : " ") : "",
             option->value ? option->value : "", option->kind == CLI_OPTIONAL_TEXT ? "]" : "");
    if (strlen(left) > 30)
        printf("  %s\n  %-30s  %s\n", left, "", option->help);
    else
        printf("  %-30s  %s\n", left, option->help);
}

void cli_print_help(const cli_verb *verb) {
    printf("Usage: %s %s\n%s\n\n", command_of(verb).text, verb->operands, verb->summary);
    for (size_t i = 0; i < verb->option_count; i++) print_option(&verb->options[i]);
    if (verb->details) printf("\n%s\n", verb->details);
}
