#include <stdio.h>
#include <string.h>

#include "report/report.h"

/* A tab or a line's end would be taken for the table's own. */
static void cell(const char *text, char out[sizeof((vx_label *)0)->name]) {
    size_t n = 0;
    for (const char *p = text; *p && n + 1 < sizeof((vx_label *)0)->name; p++, n++) {
        const unsigned char c = (unsigned char)*p;
        out[n] = c < 32 || c == 127 ? ' ' : *p;
    }
    out[n] = '\0';
}

static vx_status put_line(vx_out_file *file, const vx_label *label, vx_error *err) {
    char name[sizeof label->name], line[sizeof name + 32];
    cell(label->name, name);
    const int n = snprintf(line, sizeof line, "%u\t%s\t#%02x%02x%02x\n", label->value, name,
                           label->rgb[0], label->rgb[1], label->rgb[2]);
    return vx_out_write(file, line, (size_t)n, err);
}

vx_status vx_label_table_write(const char *path, const vx_label_table *labels, bool replace,
                               vx_out_file **keep, vx_error *err) {
    static const char head[] = "index\tname\tcolor\n";
    vx_out_file *file;
    vx_status s = vx_out_open(path, &file, err);
    if (s != VX_OK) return s;
    s = vx_out_write(file, head, sizeof head - 1, err);
    for (size_t i = 0; i < labels->count && s == VX_OK; i++)
        s = put_line(file, &labels->labels[i], err);
    if (s != VX_OK) {
        vx_out_discard(file);
        return s;
    }
    return vx_out_finish(file, replace, keep, err);
}
