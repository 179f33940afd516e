#include "progress.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/output.h"

#define NAME   "VoxMambaSegment"
#define PAUSE  0.1   /* seconds between lines of progress */
#define NEARLY 0.999 /* 1 is said when everything is written */

/* The library's words for its stages, for people. */
static const char *words(const char *stage) {
    static const char *const table[][2] = {
        {"hash", "Checking the volume"},     {"read", "Reading the volume"},
        {"prepare", "Preparing the volume"}, {"network", "Segmenting"},
        {"postprocess", "Cleaning up"},      {"write", "Writing the result"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(stage, table[i][0]) == 0) return table[i][1];
    return stage;
}

static void put_fraction(double fraction) {
    printf("<filter-progress>%.4f</filter-progress>\n", fraction);
}

void progress_start(module_progress *progress) {
    *progress = (module_progress){.started = vx_seconds()};
    fputs("<filter-start>\n<filter-name>" NAME "</filter-name>\n"
          "<filter-comment>Starting</filter-comment>\n</filter-start>\n",
          stdout);
    put_fraction(0);
    fflush(stdout);
}

int progress_say(void *user_data, const vxm_progress *p) {
    module_progress *progress = user_data;
    if (cli_signal() || ferror(stdout)) return 1;
    const double time = vx_seconds();
    /* Hashes of what was written are a part of writing. */
    const bool same = progress->fraction > 0 && strcmp(p->stage, "hash") == 0;
    const bool enters = !same && strcmp(progress->stage, p->stage) != 0;
    const double fraction = p->fraction < NEARLY ? p->fraction : NEARLY;
    const bool news = fraction > progress->fraction && time - progress->last >= PAUSE;
    if (enters) {
        snprintf(progress->stage, sizeof progress->stage, "%s", p->stage);
        printf("<filter-comment>%s</filter-comment>\n", words(p->stage));
    }
    if (news) {
        progress->last = time;
        progress->fraction = fraction;
        put_fraction(fraction);
    }
    return (enters || news) && fflush(stdout) != 0;
}

void progress_end(module_progress *progress, bool success) {
    if (success) put_fraction(1);
    printf("<filter-end>\n<filter-name>" NAME "</filter-name>\n<filter-time>%.3f</filter-time>\n"
           "</filter-end>\n",
           vx_seconds() - progress->started);
    fflush(stdout);
}
