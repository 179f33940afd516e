/* Label table: what the values of a mask mean. */
#ifndef VX_VOLUME_LABELS_H
#define VX_VOLUME_LABELS_H

#include <stddef.h>
#include <stdint.h>

/* A DICOM code triplet; scheme[0] == 0 means "not given". */
typedef struct vx_code {
    char scheme[17];
    char value[65];
    char meaning[65];
} vx_code;

typedef struct vx_label {
    uint16_t value; /* never 0 */
    char name[64];  /* UTF-8 */
    uint8_t rgb[3];
    vx_code category, type, modifier;
} vx_label;

typedef struct vx_label_table {
    size_t count;
    vx_label *labels; /* ascending class order */
} vx_label_table;

/* NULL when absent. */
const vx_label *vx_label_find(const vx_label_table *table, unsigned value);
const vx_label *vx_label_find_name(const vx_label_table *table, const char *name);

#endif
