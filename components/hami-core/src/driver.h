/* Driver functions that we call ourselves and do not wrap. Each answers with an error where the
 * driver lacks it. */
#ifndef HAMI_DRIVER_H
#define HAMI_DRIVER_H

#include "cuda_abi.h"

#include <stdbool.h>

CUresult driver_current_device(CUdevice *device);
CUcontext driver_current_context(void); /* NULL: none */
CUresult driver_device_pool(CUdevice device, CUmemoryPool *pool);
CUresult driver_pool_attribute(CUmemoryPool pool, int attribute, uint64_t *value);
bool driver_primary_active(CUdevice device);

#endif
