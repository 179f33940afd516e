/* Model files for tests, built byte by byte in memory. */
#ifndef VX_TESTS_MODEL_WRITER_H
#define VX_TESTS_MODEL_WRITER_H

#include <stddef.h>

#include "model/model.h"

typedef struct bytes {
    unsigned char *data; /* free() */
    size_t size;
} bytes;

/* A small valid recipe: residual encoder, 2 stages of 2 and 4 channels, SegMambaSkip, 2 labels. */
extern const char small_recipe[];

/* text with the first occurrence of from replaced; fails the test when there is none. free(). */
char *replaced(const char *text, const char *from, const char *to);

/* u64 length + header + zeros. */
bytes safetensors(const char *header, size_t data_bytes);
/* A whole model of this recipe with all tensors (the heads that training used only if
 * with_heads). Values are small and the same in every run. */
bytes model_bytes(const char *recipe, vx_dtype dtype, bool with_heads);

/* Writes the bytes to a new temporary file; unlink path afterwards. */
void write_temporary(const void *data, size_t size, char path[64]);
/* The bytes of a file. */
bytes read_bytes(const char *path);

#endif
