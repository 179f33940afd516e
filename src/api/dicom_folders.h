/* Which folders below an input are DICOM cases. */
#ifndef VX_API_DICOM_FOLDERS_H
#define VX_API_DICOM_FOLDERS_H

#include "api/internal.h"

/* Whether the file carries DICOM's mark. */
bool vx_is_dicom_file(const char *path);

/* The folders that are one case each: folder itself, or ones below it, in the order of their names;
 * paths begin with folder as given. An empty list where no DICOM file is.
 *
 * A folder is a case if DICOM files lie right in it, or if all that lie below it are of one study:
 * its series are not torn apart. Else each of its subfolders is looked at in the same way. With
 * each, the subfolders of folder that hold DICOM files at any depth are the cases, whatever their
 * studies. Segmentation objects are results, often of an earlier run beside its input, and count
 * for nothing here unless there is nothing else. Hidden files and folders are passed over; more
 * than five levels below folder nothing is looked for. Links are followed, but not to folders in
 * which folder itself lies; one that can be reached in several ways is there once, without links
 * if that is a way, else by the first link.
 *
 * The caller clears *out with vx_file_list_clear, after errors too. */
vxm_status vx_dicom_case_folders(const char *folder, bool each, vx_file_list *out,
                                 vxm_error *error);

#endif
