/* Linear, pitched and managed memory, and arrays. */
#include "account.h"
#include "array_size.h"
#include "dispatch.h"
#include "ledger.h"
#include "spill.h"

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_BUFFER, bytes, &charge)) {
        return spill_if_full(CUDA_ERROR_OUT_OF_MEMORY, pointer, bytes);
    }
    CUresult answer = REAL(cuMemAlloc_v2)(pointer, bytes);
    answer = account_keep(&charge, answer, TABLE_POINTER, answer == CUDA_SUCCESS ? *pointer : 0);
    return spill_if_full(answer, pointer, bytes);
}

CUresult cuMemAlloc(CUdeviceptr_v1 *pointer, unsigned int bytes) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_BUFFER, bytes, &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuMemAlloc)(pointer, bytes);
    return account_keep(&charge, answer, TABLE_POINTER, answer == CUDA_SUCCESS ? *pointer : 0);
}

CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t bytes, unsigned int flags) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_MANAGED, bytes, &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuMemAllocManaged)(pointer, bytes, flags);
    return account_keep(&charge, answer, TABLE_POINTER, answer == CUDA_SUCCESS ? *pointer : 0);
}

/* SIZE_MAX where the product does not fit: no limit allows it. */
static size_t product(size_t a, size_t b) {
    size_t result = 0;
    return __builtin_mul_overflow(a, b, &result) ? SIZE_MAX : result;
}

/* The driver chooses the pitch: a request that leaves no room even without padding is refused, then
   what it chose is charged; if that passes the limit the memory is given back. */
static CUresult keep_pitched(struct charge *charge, CUresult answer, CUdeviceptr pointer,
                             size_t bytes) {
    if (answer == CUDA_SUCCESS && charge->process != NULL) {
        account_adjust(charge, bytes);
        if (ledger_used(charge->process->usage, charge->device) >
            process_limit_of(charge->process, (int)charge->device, charge->kind)) {
            REAL(cuMemFree_v2)(pointer);
            answer = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    return account_keep(charge, answer, TABLE_POINTER, pointer);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height,
                            unsigned int element) {
    struct charge charge;
    const size_t extent[2] = {width, height};
    if (!account_reserve_here(HAMI_KIND_BUFFER, product(width, height), &charge)) {
        return spill_pitched(CUDA_ERROR_OUT_OF_MEMORY, pointer, pitch, extent);
    }
    CUresult answer = REAL(cuMemAllocPitch_v2)(pointer, pitch, width, height, element);
    bool done = answer == CUDA_SUCCESS;
    answer = keep_pitched(&charge, answer, done ? *pointer : 0, done ? product(*pitch, height) : 0);
    return spill_pitched(answer, pointer, pitch, extent);
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *pointer, unsigned int *pitch, unsigned int width,
                         unsigned int height, unsigned int element) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_BUFFER, product(width, height), &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuMemAllocPitch)(pointer, pitch, width, height, element);
    bool done = answer == CUDA_SUCCESS;
    return keep_pitched(&charge, answer, done ? *pointer : 0, done ? product(*pitch, height) : 0);
}

static CUresult free_v2(void *argument) { return REAL(cuMemFree_v2)(*(CUdeviceptr *)argument); }

CUresult cuMemFree_v2(CUdeviceptr pointer) {
    return account_free(TABLE_POINTER, pointer, free_v2, &pointer);
}

static CUresult free_v1(void *argument) { return REAL(cuMemFree)(*(CUdeviceptr_v1 *)argument); }

CUresult cuMemFree(CUdeviceptr_v1 pointer) {
    return account_free(TABLE_POINTER, pointer, free_v1, &pointer);
}

static uint64_t handle_key(const void *handle) { return (uint64_t)(uintptr_t)handle; }

CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_ARRAY, array_bytes_2d(descriptor), &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuArrayCreate_v2)(array, descriptor);
    return account_keep(&charge, answer, TABLE_ARRAY,
                        answer == CUDA_SUCCESS ? handle_key(*array) : 0);
}

CUresult cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_ARRAY, array_bytes_2d_v1(descriptor), &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuArrayCreate)(array, descriptor);
    return account_keep(&charge, answer, TABLE_ARRAY,
                        answer == CUDA_SUCCESS ? handle_key(*array) : 0);
}

CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_ARRAY, array_bytes_3d(descriptor, 1), &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuArray3DCreate_v2)(array, descriptor);
    return account_keep(&charge, answer, TABLE_ARRAY,
                        answer == CUDA_SUCCESS ? handle_key(*array) : 0);
}

CUresult cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_ARRAY, array_bytes_3d_v1(descriptor), &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuArray3DCreate)(array, descriptor);
    return account_keep(&charge, answer, TABLE_ARRAY,
                        answer == CUDA_SUCCESS ? handle_key(*array) : 0);
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
                                unsigned int levels) {
    struct charge charge;
    if (!account_reserve_here(HAMI_KIND_ARRAY, array_bytes_3d(descriptor, levels), &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = REAL(cuMipmappedArrayCreate)(array, descriptor, levels);
    return account_keep(&charge, answer, TABLE_ARRAY,
                        answer == CUDA_SUCCESS ? handle_key(*array) : 0);
}

static CUresult destroy_array(void *argument) { return REAL(cuArrayDestroy)(*(CUarray *)argument); }

CUresult cuArrayDestroy(CUarray array) {
    return account_free(TABLE_ARRAY, handle_key(array), destroy_array, &array);
}

static CUresult destroy_mipmapped(void *argument) {
    return REAL(cuMipmappedArrayDestroy)(*(CUmipmappedArray *)argument);
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array) {
    return account_free(TABLE_ARRAY, handle_key(array), destroy_mipmapped, &array);
}
