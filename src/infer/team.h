/* Several devices with memory of their own that share the tiles of one volume.
 *
 * The first device, "home", keeps the rows. Passes over tiles are numbered in the frontier's order;
 * device m of n computes numbers m, m + n, m + 2n, ... on a thread of its own and hands the logits
 * over to place m of home's sweep, where they wait until it is their turn to be added. So a voxel
 * gets its tiles in the order of one device, and the mask has its bits, while no device waits for
 * another one's network.
 */
#ifndef VX_INFER_TEAM_H
#define VX_INFER_TEAM_H

#include "infer/accumulator.h"

typedef struct vx_team vx_team;

/* How many devices share the tiles, with so many others besides home: no more than there are
 * passes; 1: it takes no team. */
size_t vx_team_count(const vx_tiles *tiles, size_t pass_count, size_t other_count);

/* home: setup->plan's sweep, with vx_team_count places, more than one. The others' sweeps are made
 * here, of home's shape without rows and places. All is borrowed until vx_team_free.
 * VX_ERR_RESOURCE when a device has too little memory, or no thread can be had. */
vx_status vx_team_create(const vx_accumulator_setup *setup, const vx_sweep_shape *shape,
                         vx_sweep *home, vx_team **out, vx_error *err);
/* Waits for their ends; that of the networks that run now. NULL is fine. */
void vx_team_free(vx_team *team);

/* Waits for the next pass's logits; *place: where they are. The status is that of their network;
 * after a failure there are no more. */
vx_status vx_team_next(vx_team *team, size_t *place, vx_error *err);
/* They have been added: the place is free. */
void vx_team_added(vx_team *team, size_t place);

#endif
