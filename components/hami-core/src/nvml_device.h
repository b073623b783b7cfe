/* NVML's devices as this container's. */
#ifndef HAMI_NVML_DEVICE_H
#define HAMI_NVML_DEVICE_H

#include "process.h"

/* The index in the grant of an NVML device, DEVICE_UNGRANTED for another. False: NVML does not name
 * it. */
bool nvml_device_index(struct process *process, nvmlDevice_t device, int *index);

#endif
