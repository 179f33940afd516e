/* Devices that pretend to be GPUs: a "cuda" backend of several devices whose network reads class
 * indices from the image (FAKE_LABELS of ../infer/fake_model.h), and what happens to it. */
#ifndef VX_TESTS_PRETEND_DEVICES_H
#define VX_TESTS_PRETEND_DEVICES_H

#include <stdatomic.h>

#include "api/devices.h"

enum { PRETEND_MOST = 4 };

typedef struct pretend_settings {
    int count;
    bool count_fails;           /* as without the module, or without what it needs */
    int closed;                 /* ordinal that cannot be opened; -1: none */
    int odd;                    /* ordinal of another kind; -1: none */
    int breaks;                 /* ordinal whose third run fails; -1: none */
    unsigned open_microseconds; /* that opening a device takes at the least */
    const char *remove_at_open; /* a file that is gone when a device has been opened, or not */
    bool overflows;        /* fp16 gives an infinite logit where the image is largest (class 3) */
    unsigned microseconds; /* that every run takes at the least */
    bool wait_for_two;     /* a run waits, for 2 s at most, until another is running too */
} pretend_settings;

typedef struct pretend_seen {
    atomic_int counted;            /* calls of count */
    atomic_int runs[PRETEND_MOST]; /* of each device */
    atomic_int running, most_running;
} pretend_seen;

/* Set and read between runs. */
extern pretend_settings pretend;
extern pretend_seen pretend_seen_so_far;
/* pretend: two devices, nothing fails; nothing seen. */
void pretend_reset(void);

/* Its cpu is the same network on one device, with fp32 alone. */
extern const vx_device_source pretend_source;     /* a driver is there */
extern const vx_device_source pretend_no_driver;  /* none */
extern const vx_device_source pretend_own_memory; /* as the first, and devices take whole volumes */

#endif
