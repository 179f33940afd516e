#include "volume/labels.h"

#include <string.h>

const vx_label *vx_label_find(const vx_label_table *table, unsigned value) {
    for (size_t i = 0; table && i < table->count; i++)
        if (table->labels[i].value == value) return &table->labels[i];
    return NULL;
}

const vx_label *vx_label_find_name(const vx_label_table *table, const char *name) {
    for (size_t i = 0; table && i < table->count; i++)
        if (strcmp(table->labels[i].name, name) == 0) return &table->labels[i];
    return NULL;
}
