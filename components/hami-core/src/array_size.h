/* How much device memory an array takes, from its descriptor: the driver tells it only for deferred
 * ones. Pure. */
#ifndef HAMI_ARRAY_SIZE_H
#define HAMI_ARRAY_SIZE_H

#include "cuda_abi.h"

/* Bytes, saturating at UINT64_MAX. A NULL descriptor, and one whose memory is mapped later, takes
 * none. */
uint64_t array_bytes_2d(const CUDA_ARRAY_DESCRIPTOR *descriptor);
uint64_t array_bytes_2d_v1(const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor);
uint64_t array_bytes_3d(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned int levels);
uint64_t array_bytes_3d_v1(const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor);

#endif
