/* Models and a backend for the session's tests: a valid model file with zero weights, and a
 * "network" that computes logits from the input by a rule, so that the way there and back must be
 * exact. */
#ifndef VX_TESTS_FAKE_MODEL_H
#define VX_TESTS_FAKE_MODEL_H

#include "backend/backend.h"
#include "model/model.h"

typedef struct fake_settings {
    const char *orientation; /* NULL: as stored */
    const char *crop;        /* NULL: nonzero */
    const char *normalise;   /* NULL: none */
    double spacing[3];       /* z, y, x; zeros: 1 mm */
    size_t patch[3];         /* z, y, x; multiples of 2; zeros: 4 x 6 x 4 */
    int image_order, logits_order;
    size_t channels; /* 0: 1 */
    size_t labels;   /* 0: 3; label k (1 ..) has value 10 * k */
    bool regions, mirror;
    const char *field_of_view; /* JSON, or NULL */
} fake_settings;

/* Writes a temporary model file, opens it and removes it. Fails the running test on errors. */
vx_model *fake_model(const fake_settings *settings);

typedef enum fake_rule {
    FAKE_LABELS,  /* the first channel holds class indices: -(v - k)^2 */
    FAKE_REGIONS, /* the same for regions: positive where the input is k + 1 */
    FAKE_NAN,     /* one NaN */
    FAKE_FAIL     /* run returns an error */
} fake_rule;

/* The rule is set for the next runs; runs counts them. */
extern fake_rule fake_backend_rule;
extern size_t fake_backend_runs;
extern const vx_backend fake_backend;
/* The same with a memory of its own, of which so many bytes are free (fake_sweep.c). */
extern const vx_backend fake_device_backend;
extern size_t fake_device_free;

#endif
