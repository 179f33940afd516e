/* Typed, strict access to the recipe's JSON tree. After the first failure every call does nothing
 * and returns zero, so that reading is straight-line code; the caller looks at status once at the
 * end. */
#ifndef VX_MODEL_RECIPE_READER_H
#define VX_MODEL_RECIPE_READER_H

#include <cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct vx_reader {
    char path[128]; /* of the object that is being read: "network.mamba" or "" */
    vx_status status;
    vx_error *err;
} vx_reader;

/* "recipe: PATH.KEY: ..."; keeps the first failure. */
void vx_read_fail(vx_reader *r, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends to the path and returns the mark that vx_read_leave takes it back to. */
size_t vx_read_enter(vx_reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void vx_read_leave(vx_reader *r, size_t mark);

/* object must be an object with no other keys than these (NULL-terminated) and none twice. */
void vx_read_keys(vx_reader *r, const cJSON *object, const char *const *keys);
bool vx_read_has(const cJSON *object, const char *key);
/* The members of that type; a missing one is a failure. NULL after a failure. */
const cJSON *vx_read_object(vx_reader *r, const cJSON *object, const char *key);
/* A list of min..max items. */
const cJSON *vx_read_list(vx_reader *r, const cJSON *object, const char *key, size_t min,
                          size_t max);
/* 1..room-1 bytes without control characters. */
void vx_read_string(vx_reader *r, const cJSON *object, const char *key, char *out, size_t room);
bool vx_read_bool(vx_reader *r, const cJSON *object, const char *key);
double vx_read_number(vx_reader *r, const cJSON *object, const char *key, double min, double max);
size_t vx_read_count(vx_reader *r, const cJSON *object, const char *key, size_t min, size_t max);
/* Index of the word in words (NULL-terminated). */
int vx_read_choice(vx_reader *r, const cJSON *object, const char *key, const char *const *words);

/* Lists of numbers. counts: min..max items of low..high each; returns how many. */
size_t vx_read_counts(vx_reader *r, const cJSON *object, const char *key, size_t min, size_t max,
                      size_t low, size_t high, size_t *out);
void vx_read_triple(vx_reader *r, const cJSON *object, const char *key, double low, double high,
                    double out[3]);
/* A list of `count` triples of whole numbers. */
void vx_read_count_triples(vx_reader *r, const cJSON *object, const char *key, size_t count,
                           size_t low, size_t high, size_t (*out)[3]);

#endif
