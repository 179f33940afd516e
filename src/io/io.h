/* Reading volumes and writing masks: a table of formats, one file a format. */
#ifndef VX_IO_IO_H
#define VX_IO_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/out_file.h"
#include "base/threads.h"
#include "volume/labels.h"
#include "volume/volume.h"

typedef enum vx_format {
    VX_FORMAT_UNKNOWN = 0,
    VX_FORMAT_NIFTI,    /* .nii, .hdr + .img */
    VX_FORMAT_NIFTI_GZ, /* .nii.gz */
    VX_FORMAT_NRRD,
    VX_FORMAT_SEG_NRRD, /* 3D Slicer segmentation */
    VX_FORMAT_META,     /* .mha, .mhd */
    VX_FORMAT_DICOM,    /* a folder, or one file */
    VX_FORMAT_DICOM_SEG
} vx_format;

/* "nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "dcmseg", "dicom"; "?" for unknown. */
const char *vx_format_name(vx_format format);
vx_format vx_format_by_name(const char *name);
/* By the ending of path, without looking at the file. */
vx_format vx_format_by_path(const char *path);
/* Whether a file that begins with these bytes may be DICOM (132 of them, fewer where the file
 * ends): "DICM" behind the preamble, or a data set without one, which begins with group 0002 or
 * 0008. */
bool vx_dicom_begins(const unsigned char *bytes, size_t size);
/* ".nii.gz", ... : what to append to a case's name. */
const char *vx_format_extension(vx_format format);
/* Whether a mask of the format holds its labels' names and colours itself. */
bool vx_format_names_labels(vx_format format);
/* Whether this build reads / writes the format. */
bool vx_format_readable(vx_format format);
bool vx_format_writable(vx_format format);

typedef struct vx_read_options {
    const char *series;     /* DICOM: UID or number, with /PART; NULL: the only one */
    bool tolerate_geometry; /* resample uneven or sheared stacks (with a warning) instead of
                               refusing */
    const vx_log *log;      /* warnings */
    vx_pool *pool;          /* helps with NIfTI images; borrowed, NULL: the calling thread alone */
    /* vx_io_read and vx_io_read_mask ask this when they know the grid, before a voxel is read or
     * memory of the volume's size taken; unless VX_OK, reading ends with that. beside: bytes that
     * reading takes at the most beside the volume, of a mask beside one byte a voxel, in this
     * process and a helper's. NULL: all may be read. */
    vx_status (*admit)(void *user_data, const vx_geometry *geo, uint64_t beside, vx_error *err);
    void *admit_data;
} vx_read_options;

/* What `info` prints of a volume, from the header alone where the format allows. */
typedef struct vx_image_info {
    vx_format format;
    vx_geometry geo;
    size_t channels;
    char dtype[16];  /* numpy's name: "int16", "float32" */
    uint64_t beside; /* bytes that reading takes at the most beside the volume, as for admit */
} vx_image_info;

/* One DICOM series of a folder. */
typedef struct vx_series_problem {
    char code[32];
    char message[224];
} vx_series_problem;
typedef struct vx_series {
    char uid[80];
    char description[80];
    char modality[20];
    int number;
    int part;          /* of several volumes in the series, from 1; 0: the only one */
    char contents[80]; /* what sets the part apart: "EchoTime 4.6" */
    size_t files;
    vx_image_info info;
    size_t problem_count;
    vx_series_problem problems[8];
} vx_series;

/* All paths are UTF-8 bytes as the system gives them. Messages do not repeat the path: the caller
 * puts it first. Voxels come as float32 with slope and intercept applied; one channel a file unless
 * the file has more. 2D, 4D and longer, RGB, complex: VX_ERR_INPUT. NaN or infinite voxels:
 * VX_ERR_INPUT. */
vx_status vx_io_info(const char *path, const vx_read_options *options, vx_image_info *out,
                     vx_error *err);
vx_status vx_io_read(const char *path, const vx_read_options *options, vx_volume **out,
                     vx_error *err);
/* A label map: values must be whole numbers 0..65535. */
vx_status vx_io_read_mask(const char *path, const vx_read_options *options, vx_mask **out,
                          vx_error *err);
/* Paths of files; {0} is an empty list. */
typedef struct vx_file_list {
    char **paths; /* count of them, owned by the list */
    size_t count, room;
} vx_file_list;
/* A copy of path goes to the list's end. VX_ERR_RESOURCE without memory; the list stays. */
vx_status vx_file_list_add(vx_file_list *list, const char *path, vx_error *err);
void vx_file_list_clear(vx_file_list *list); /* frees all paths; the list is empty then */

/* The files whose bytes decide what vx_io_read(path, options) gives, as the reader itself finds
 * them: one file; a pair's header, then its data; the slices of the DICOM series in their order
 * along the volume. The same files in the same state give the same order. Paths are the caller's,
 * or beside it. *out needs no initialisation; the caller clears it with vx_file_list_clear. Errors
 * are those of vx_io_read as far as headers and sizes tell (VX_ERR_INPUT, VX_ERR_USAGE for a format
 * that is not in this build, VX_ERR_CANCELLED, VX_ERR_RESOURCE); *out is empty then. No warnings:
 * vx_io_read gives them. options->log is asked for cancelling only. */
vx_status vx_io_files(const char *path, const vx_read_options *options, vx_file_list *out,
                      vx_error *err);
/* The series of a folder that options->series names (NULL: all); caller frees *out with vx_free.
 * VX_ERR_INPUT when there is none. */
vx_status vx_io_series(const char *folder, const vx_read_options *options, vx_series **out,
                       size_t *count, vx_error *err);

/* The StudyInstanceUID of each DICOM file into uids, which has files->count texts; "" where it has
 * none or cannot be read: reading the file as a volume says why. */
void vx_io_studies(const vx_file_list *files, char (*uids)[80]);

/* Compression of labels and of probabilities where nothing else is asked for (bench/results/gzip-*:
 * higher levels cost several times the time for masks a little smaller). */
enum { VX_GZIP_LABELS = 4, VX_GZIP_FLOATS = 1 };

typedef struct vx_write_options {
    vx_format format;
    bool replace;       /* false: an existing file is VX_ERR_OUTPUT */
    vx_out_file **keep; /* not NULL: the file goes there instead of getting its name (vx_out_finish
                           of base/out_file.h) */
    const vx_label_table
        *labels; /* names and colours where the format can hold them; may be NULL */
    const char *algorithm, *algorithm_version; /* DICOM SEG: the model; NULL: the program */
    bool anonymous;    /* DICOM SEG: nothing that names the source's patient, study or files; no
                          other format has any */
    const vx_log *log; /* asked for cancelling by DICOM SEG, whose files are large; may be NULL */
    int gzip_level;    /* 1 to 9; 0: the default */
    vx_pool *pool;     /* compresses NIfTI masks, to the same bytes; borrowed, NULL: one thread */
} vx_write_options;

/* Atomic (base/out_file.h). mask->source decides the header where it fits the format. */
vx_status vx_io_write_mask(const char *path, const vx_mask *mask, const vx_write_options *options,
                           vx_error *err);

/* The most that writing a mask of labels on geo takes beside the mask. All 0: little, and not known
 * beforehand. */
typedef struct vx_write_bound {
    uint64_t file_bytes;
    uint64_t memory_bytes; /* a helper process's among it */
    const char *caution;   /* one line: what may be refused once the mask is known; NULL: nothing */
} vx_write_bound;
vx_write_bound vx_io_write_bound(vx_format format, const vx_geometry *geo, size_t labels);

/* A float32 volume written slice by slice (probabilities): z slices in ascending order, [y][x]
 * each. */
typedef struct vx_slice_writer vx_slice_writer;
vx_status vx_slice_writer_open(const char *path, const vx_geometry *geo, vx_source *source,
                               const vx_write_options *options, vx_slice_writer **out,
                               vx_error *err);
vx_status vx_slice_writer_put(vx_slice_writer *writer, const float *slice, vx_error *err);
vx_status vx_slice_writer_commit(vx_slice_writer *writer, vx_error *err); /* frees */
void vx_slice_writer_discard(vx_slice_writer *writer);                    /* frees; NULL is fine */

#endif
