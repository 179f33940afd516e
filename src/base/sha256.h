/* SHA-256 (FIPS 180-4), by the processor's own instructions where it has them.
 *
 * Our own because nothing that the C core links offers it (libcrypto comes with DCMTK, into the
 * helper of DICOM alone), and hashing input and model is all that it is for: no secrets. */
#ifndef VX_BASE_SHA256_H
#define VX_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct vx_sha256 {
    uint32_t state[8];
    uint64_t bytes; /* so far */
    unsigned char block[64];
    /* count blocks of 64 bytes into state. */
    void (*compress)(uint32_t state[8], const unsigned char *blocks, size_t count);
} vx_sha256;

void vx_sha256_start(vx_sha256 *sha);
void vx_sha256_start_portable(vx_sha256 *sha); /* tests: without those instructions */
void vx_sha256_add(vx_sha256 *sha, const void *data, size_t bytes);
/* 64 hex digits and a 0. */
void vx_sha256_end(vx_sha256 *sha, char hex[65]);

#endif
