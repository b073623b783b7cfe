/*
 * Virtual device memory: what does not fit into a container's share of the real memory becomes
 * managed memory, whose pages the driver keeps on the host and brings to the device when they are
 * used. Only where the control file says so.
 */
#ifndef HAMI_SPILL_H
#define HAMI_SPILL_H

#include "account.h"

/* After an attempt to allocate on the current device: CUDA_ERROR_OUT_OF_MEMORY, from the limit or
 * from the card, becomes managed memory where that is allowed. Every other answer stays. */
CUresult spill_if_full(CUresult answer, CUdeviceptr *pointer, size_t bytes);

/* The same for pitched memory. */
CUresult spill_pitched(CUresult answer, CUdeviceptr *pointer, size_t *pitch,
                       const size_t extent[2]);

/* Frees memory that has spilled, if it is such: the driver cannot free it in the order of a stream.
 * False: it is not. */
bool spill_free(CUdeviceptr pointer, CUresult *answer, CUresult synchronized(CUstream),
                CUstream stream);

#endif
