/* Batches over pretended devices in a folder of their own, for the tests of test_device_*.c. The
 * network reads class indices from the image, so that the mask of a volume of 0 .. 3 is ten times
 * the volume. Everything fails the running cmocka test on errors. */
#ifndef VX_TESTS_BATCH_BENCH_H
#define VX_TESTS_BATCH_BENCH_H

#include "api/batch.h"
#include "pretend_devices.h"

/* A test's set-up and tear-down: a new folder with the folder "in", pretended devices as they are
 * at first; all is removed again. */
int batch_set_up(void **state);
int batch_tear_down(void **state);
extern char batch_folder[64];
extern vxm_model batch_model;

/* Makes the model, of patch^3. */
void batch_make_model(size_t patch);
/* A file in "in": head, then data. */
void batch_put_bytes(const char *name, const void *head, size_t head_bytes, const void *data,
                     size_t bytes);
/* A cube of n^3 float32 voxels, 1 mm, with indices 0 .. most - 1 in blocks. */
void batch_put_volume(const char *name, size_t n, unsigned most);
/* A header that claims as many voxels of one byte as half the memory that is free, so that they are
 * twice as much as floats, in a compressed file that is just long enough to be believed. */
void batch_put_bomb(const char *name);

typedef struct batch_outcome {
    vxm_status status;
    vxm_error error;
    char lines[4096];  /* what the callbacks heard */
    char device[256];  /* of the report */
    size_t cancelled;  /* cases */
    double seconds[2]; /* of the first case: reading, all of it */
    bool stop;         /* what progress answers */
    int stop_after;    /* how often it answers no before it stops; 0: always, if not at once */
} batch_outcome;

typedef struct batch_wish {
    const char *device, *out;
    unsigned jobs;
    vxm_precision precision;
    uint64_t memory_limit;
    bool probabilities, resume;
    unsigned threads;               /* 0: 1 */
    const vx_device_source *source; /* NULL: pretend_source */
    bool stop, tta;
    int stop_after;
} batch_wish;

/* Segments all of "in" to the folder wanted->out. */
void batch_run(const batch_wish *wanted, batch_outcome *o);

/* A file of two output folders is the same; a file of one has the text in it. */
void batch_assert_same_file(const char *a_folder, const char *b_folder, const char *name);
void batch_assert_says(const char *out, const char *name, const char *text);

#endif
