/* The labels' statistics as a table that Slicer and spreadsheets read. */
#ifndef VX_SLICER_STATISTICS_TABLE_H
#define VX_SLICER_STATISTICS_TABLE_H

#include "api/voxmamba.h"

/* By the ending of path: tab for .tsv, comma for .csv, else 0. */
char statistics_table_separator(const char *path);
/* The columns label, value, voxels, ml, mean, sd, and a line a label in the recipe's order; mean
 * and sd are of the intensities inside, "nan" without voxels. The caller frees; NULL without
 * memory. */
char *statistics_table_text(const vxm_result *result, char separator);

#endif
