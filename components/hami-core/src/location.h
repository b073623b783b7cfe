/* Who pays for memory at a place that a program names. */
#ifndef HAMI_LOCATION_H
#define HAMI_LOCATION_H

#include "process.h"

enum { LOCATION_HOST = -2 }; /* no device pays */

/* The device index in the grant, DEVICE_UNGRANTED, or LOCATION_HOST. A kind of place that is newer
 * than we are costs the current device. */
int location_device(struct process *process, const CUmemLocation *location);

/* The same for a pool that was made elsewhere: by the driver for a place, or imported. */
int location_of_pool(struct process *process, CUmemoryPool pool);

#endif
