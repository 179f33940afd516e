/* Area of the surface piece inside one 2x2x2 neighbourhood of voxels.
 *
 * Marching cubes with vertices halfway between voxel centres, with the triangulation that
 * DeepMind's surface-distance 0.1 uses (Nikolov et al. 2018, arXiv:1809.04430), so that distances
 * compare.
 */
#ifndef VX_METRICS_SURFEL_AREA_H
#define VX_METRICS_SURFEL_AREA_H

/* Bit (4 dx + 2 dy + dz) counted from the top of the code is the voxel at offset (dx, dy, dz): 128
 * is (0,0,0), 1 is (1,1,1). area: mm^2 for each of the 256 codes; spacing: mm along x, y, z. */
void vx_surfel_areas(const double spacing[3], double area[256]);

#endif
