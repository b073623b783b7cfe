/* The names of devices: UUIDs as the driver says them. */
#ifndef HAMI_DEVICE_H
#define HAMI_DEVICE_H

#include "cuda_abi.h"
#include "hami_region.h"

/* The UUIDs of a CUDA device, as text: that of the MIG instance first where it is one, then that of
   the card. How many there are, 0 to 2 (they may be the same). */
int device_uuids(CUdevice ordinal, char uuid[2][HAMI_UUID_SIZE]);

/* The NVML index of a device, which is what the numbers in HAMi's variables count; -1 if NVML
 * cannot say. */
int device_nvml_index(const char *uuid);

#endif
