/* What one format's file provides to the table in io.c. A NULL member: the format cannot do it. */
#ifndef VX_IO_FORMAT_H
#define VX_IO_FORMAT_H

#include "io/io.h"

typedef struct vx_format_ops {
    vx_status (*info)(const char *path, const vx_read_options *, vx_image_info *out, vx_error *err);
    vx_status (*read)(const char *path, const vx_read_options *, vx_volume **out, vx_error *err);
    vx_status (*read_mask)(const char *path, const vx_read_options *, vx_mask **out, vx_error *err);
    vx_status (*write_mask)(const char *path, const vx_mask *, const vx_write_options *,
                            vx_error *err);
    /* Adds to the empty list *out; io.c clears it after an error. */
    vx_status (*files)(const char *path, const vx_read_options *, vx_file_list *out, vx_error *err);
    /* vx_io_write_bound; NULL: {0}. */
    vx_write_bound (*write_bound)(const vx_geometry *geo, size_t labels);
} vx_format_ops;

/* io.c: warns of a grid whose axes are not perpendicular; shear as vx_shear() gives it. */
void vx_warn_sheared(double shear, const vx_log *log);

/* io.c: the most bytes that so many deflated ones can stand for; UINT64_MAX where that overflows.
 */
uint64_t vx_most_inflated(uint64_t packed);
/* io.c: what options->admit says; VX_OK where nobody is to be asked. */
vx_status vx_io_admit(const vx_read_options *options, const vx_geometry *geo, uint64_t beside,
                      vx_error *err);

extern const vx_format_ops vx_nifti_ops; /* nifti.c */
#ifdef VX_HAVE_ITK
extern const vx_format_ops vx_itk_ops;       /* itk_reader.cpp: NRRD and MetaImage */
extern const vx_format_ops vx_dicom_ops;     /* DICOM folder or file */
extern const vx_format_ops vx_dicom_seg_ops; /* dicom_seg_writer.cpp: written only */
vx_status vx_dicom_series(const char *folder, const vx_read_options *, vx_series **out,
                          size_t *count, vx_error *err);
/* As vx_io_studies; the texts are "" before. */
void vx_dicom_studies(const vx_file_list *files, char (*uids)[80]);
#endif

#endif
