/* Which cases the caller means: files, DICOM folders, folders of cases, channels by name. */
#ifndef VX_API_CASES_H
#define VX_API_CASES_H

#include "api/internal.h"

/* One case as found. All texts are owned. */
typedef struct vx_case_files {
    char *name;           /* of its outputs: without folder, channel number and ending */
    char *shown;          /* the file or folder as typed, for messages */
    size_t channel_count; /* files */
    char **files;         /* in channel order; with channel_names, in the order typed */
    char **channel_names; /* --channel NAME=FILE, else NULL */
} vx_case_files;

typedef struct vx_case_list {
    size_t count, room;
    vx_case_files *cases; /* ascending names */
} vx_case_list;

/* folders: every subfolder of an input that holds DICOM is one case (dicom_folders.h).
 * VXM_ERR_INPUT without any case, VXM_ERR_USAGE for two cases of one name. */
vxm_status vx_find_cases(const char *const *inputs, size_t input_count, bool folders,
                         vx_case_list *out, vxm_error *error);
/* The one case of NAME=FILE arguments, named after its first file. */
vxm_status vx_named_channels(const char *const *channels, size_t count, vx_case_list *out,
                             vxm_error *error);
void vx_case_list_free(vx_case_list *list);

/* Length of the base name of path without its format's ending ("a.seg.nrrd" -> 1). */
size_t vx_stem_length(const char *base);
/* Whether path ends like a file that some build can read or write. */
bool vx_known_ending(const char *path);

#endif
