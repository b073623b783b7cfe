/* Virtual memory management: physical handles, reserved addresses, mappings between them. */
#include "vmm_int.h"

#include <stdlib.h>

#define GRANULARITY (2 * FG_MIB)

#define PHYSICAL_MAGIC 0x5068797331ull

struct physical *cu_physical(CUmemHandle handle) {
    struct physical *p = (struct physical *)(uintptr_t)handle;
    return p != NULL && p->magic == PHYSICAL_MAGIC && p->handles > 0 ? p : NULL;
}

struct physical *cu_new_physical(uint64_t size, int card) {
    struct physical *p = calloc(1, sizeof *p);
    if (p != NULL)
        *p = (struct physical){
            .magic = PHYSICAL_MAGIC, .size = size, .card = card, .refs = 1, .handles = 1};
    return p;
}

static void unref(struct physical *p) {
    if (--p->refs > 0)
        return;
    if (p->card >= 0)
        fg_uncharge(&cu_process.fg, p->card, p->size, FG_DATA);
    p->magic = 0; /* kept: a stale handle must stay readable */
}

CUresult cuMemGetAllocationGranularity(size_t *out, const CUmemAllocationProp *prop, int option) {
    ENTER();
    (void)option;
    REQUIRE(out != NULL && prop != NULL);
    *out = GRANULARITY;
    return CUDA_SUCCESS;
}

CUresult cuMemCreate(CUmemHandle *out, size_t size, const CUmemAllocationProp *prop,
                     unsigned long long flags) {
    int card = -1;
    ENTER();
    REQUIRE(out != NULL && prop != NULL && flags == 0 && size > 0 && size % GRANULARITY == 0);
    CUresult rc = CUDA_SUCCESS;
    if (cu_location_device(&prop->location) >= 0)
        rc = cu_device_card(cu_location_device(&prop->location), &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    struct physical *p = cu_new_physical(size, card);
    if (p == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    p->prop = *prop;
    if (card >= 0)
        rc = cu_error(fg_charge(&cu_process.fg, card, size, FG_DATA));
    if (rc != CUDA_SUCCESS)
        free(p);
    else
        *out = (uintptr_t)p;
    return rc;
}

CUresult cuMemRelease(CUmemHandle handle) {
    ENTER();
    pthread_mutex_lock(&cu_process.mutex);
    struct physical *p = cu_physical(handle);
    if (p != NULL) {
        p->handles--;
        unref(p);
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return p != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemRetainAllocationHandle(CUmemHandle *out, void *address) {
    ENTER();
    REQUIRE(out != NULL);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, (uintptr_t)address);
    bool mapped = s != NULL && s->kind == SPAN_MAPPED;
    if (mapped) {
        struct physical *p = s->owner;
        p->refs++;
        p->handles++;
        *out = (uintptr_t)p;
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return mapped ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *out, CUmemHandle handle) {
    ENTER();
    REQUIRE(out != NULL && cu_physical(handle) != NULL);
    *out = cu_physical(handle)->prop;
    return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *out, size_t size, size_t alignment, CUdeviceptr hint,
                             unsigned long long flags) {
    ENTER();
    (void)alignment, (void)hint;
    REQUIRE(out != NULL && flags == 0 && size > 0 && size % GRANULARITY == 0 && size < 1ull << 46);
    pthread_mutex_lock(&cu_process.mutex);
    *out = cu_take_va(size, false);
    struct span *s = cu_span_add(&cu_process.reservations,
                                 (struct span){.va = *out, .size = size, .kind = SPAN_VA});
    pthread_mutex_unlock(&cu_process.mutex);
    return s != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAddressFree(CUdeviceptr va, size_t size) {
    struct span span;
    ENTER();
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.reservations, va);
    bool ours = s != NULL && s->va == va && s->size == size &&
                cu_span_take(&cu_process.reservations, va, &span);
    pthread_mutex_unlock(&cu_process.mutex);
    return ours ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool can_map(const struct physical *p, uint64_t va, size_t size) {
    struct span *reserved = cu_span_find(&cu_process.reservations, va);
    return p != NULL && size == p->size && reserved != NULL &&
           va + size <= reserved->va + reserved->size &&
           cu_span_find(&cu_process.allocations, va) == NULL &&
           cu_span_find(&cu_process.allocations, va + size - 1) == NULL;
}

CUresult cuMemMap(CUdeviceptr va, size_t size, size_t offset, CUmemHandle handle,
                  unsigned long long flags) {
    ENTER();
    REQUIRE(offset == 0 && flags == 0 && size > 0);
    pthread_mutex_lock(&cu_process.mutex);
    struct physical *p = cu_physical(handle);
    bool ok = can_map(p, va, size) &&
              cu_span_add(&cu_process.allocations, (struct span){.va = va,
                                                                 .size = size,
                                                                 .owner = p,
                                                                 .card = p->card,
                                                                 .kind = SPAN_MAPPED}) != NULL;
    if (ok)
        p->refs++;
    pthread_mutex_unlock(&cu_process.mutex);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Unmaps every mapping that begins in the range; the range must start at one. */
CUresult cuMemUnmap(CUdeviceptr va, size_t size) {
    struct span span;
    int unmapped = 0;
    ENTER();
    pthread_mutex_lock(&cu_process.mutex);
    for (uint64_t at = va; at < va + size; at = span.va + span.size, unmapped++) {
        struct span *s = cu_span_find(&cu_process.allocations, at);
        if (s == NULL || s->kind != SPAN_MAPPED || s->va != at)
            break;
        span = *s;
        cu_span_drop(&cu_process.allocations, s);
        unref(span.owner);
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return unmapped > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemSetAccess(CUdeviceptr va, size_t size, const void *access, size_t count) {
    ENTER();
    (void)size, (void)count;
    REQUIRE(access != NULL);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    pthread_mutex_unlock(&cu_process.mutex);
    return s != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr va) {
    ENTER();
    (void)location, (void)va;
    REQUIRE(flags != NULL);
    *flags = 3;
    return CUDA_SUCCESS;
}
