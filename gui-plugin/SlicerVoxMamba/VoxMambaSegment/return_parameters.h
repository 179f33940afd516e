/* What a run tells Slicer beside its files: the output parameters of VoxMambaSegment.xml. */
#ifndef VX_SLICER_RETURN_PARAMETERS_H
#define VX_SLICER_RETURN_PARAMETERS_H

#include "api/voxmamba.h"

/* "name = value" lines, each value one line. model: its name; report: the run's JSON, as
 * vxm_batch_report_json gives it. The caller frees; NULL without memory. */
char *return_parameters_text(const char *model, const char *report, const vxm_result *result);

#endif
