/* Time for measuring. */
#ifndef VX_BASE_CLOCK_H
#define VX_BASE_CLOCK_H

/* Seconds since some fixed moment. */
double vx_seconds(void);

#endif
