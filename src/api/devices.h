/* Which devices the option --device names, and what "auto" finds. */
#ifndef VX_API_DEVICES_H
#define VX_API_DEVICES_H

#include "api/internal.h"

/* Where devices come from: the machine, or what a test gives in its place. */
typedef struct vx_device_source {
    const vx_backend *cpu, *cuda;
    /* Files, NULL at the end: without any of them there is no NVIDIA driver, and auto does not even
     * load the CUDA module. */
    const char *const *driver_files;
} vx_device_source;
extern const vx_device_source vx_machine_devices;

/* One or more devices of one backend. */
typedef struct vx_device_list {
    const vx_backend *backend;
    int first;      /* ordinals first .. first + count - 1 */
    unsigned count; /* 1 unless "cuda:all" */
    /* What is taken, with a line that says why, when the first device cannot be opened: the CPU
     * with "auto", else NULL. */
    const vx_backend *instead;
    /* Why auto is the CPU although a driver seems to be there; "" otherwise. */
    char left_aside[sizeof((vx_error *)0)->text];
    /* The host's memory that was free before anything else was begun that takes some: what a
     * network may take. 0: what is free when it is compiled. */
    uint64_t host_free;
} vx_device_list;

/* option NULL: "auto". VXM_ERR_USAGE for an unknown one, VXM_ERR_RESOURCE when "cuda:all" finds
 * none. That "cuda" and "cuda:N" are there is found when they are opened. */
vxm_status vx_devices_find(const vx_device_source *source, const char *option, vx_device_list *out,
                           vxm_error *error);

/* vxm_session_create on the list's k-th device (counted round), with options of this library's
 * size. The first call settles the list: when the device cannot be opened and list->instead is
 * there, the list becomes that, and further sessions are on the same device. */
vxm_status vx_open_session(const vxm_model *model, const vxm_session_options *options,
                           vx_device_list *list, unsigned k, vxm_session **out, vxm_error *error);

/* For session k of `workers`, each on a device of its own: devices k + workers, k + 2 workers, ...
 * of the list, which then share the tiles of its cases. Only where devices have memory of their
 * own, and not for cases that are computed again in fp32. session->left_out says why one is not
 * used: it cannot be opened, or is of another kind. */
void vx_open_others(vxm_session *session, const vx_device_list *list, unsigned k, unsigned workers);

/* vxm_build_json with devices from elsewhere than the machine. */
vxm_status vx_build_json_on(const vx_device_source *source, char **json, vxm_error *error);

#endif
