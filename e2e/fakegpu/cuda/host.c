/* Pinned host memory, pointer questions, sharing between processes. */
#define _GNU_SOURCE
#include "cuda_int.h"

#include <stdlib.h>
#include <string.h>

static CUresult note_host(void *pointer, size_t bytes, struct ctx *ctx, void *allocated) {
    pthread_mutex_lock(&cu_process.mutex);
    bool taken = cu_span_find(&cu_process.allocations, (uintptr_t)pointer) != NULL;
    struct span *s =
        taken ? NULL
              : cu_span_add(&cu_process.allocations, (struct span){.va = (uintptr_t)pointer,
                                                                   .size = bytes,
                                                                   .ctx = ctx,
                                                                   .owner = allocated,
                                                                   .card = ctx->card,
                                                                   .kind = SPAN_HOST});
    pthread_mutex_unlock(&cu_process.mutex);
    if (taken)
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    return s != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static bool forget_host(void *pointer, bool allocated) {
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, (uintptr_t)pointer);
    bool ours = s != NULL && s->va == (uintptr_t)pointer && s->kind == SPAN_HOST &&
                (s->owner != NULL) == allocated;
    if (ours)
        cu_span_drop(&cu_process.allocations, s);
    pthread_mutex_unlock(&cu_process.mutex);
    return ours;
}

CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    (void)flags;
    REQUIRE(out != NULL && bytes > 0);
    if (posix_memalign(out, 4096, bytes) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = note_host(*out, bytes, ctx, *out);
    if (rc != CUDA_SUCCESS)
        free(*out);
    return rc;
}

CUresult cuMemAllocHost_v2(void **out, size_t bytes) { return cuMemHostAlloc(out, bytes, 0); }
CUresult cuMemAllocHost(void **out, unsigned bytes) { return cuMemHostAlloc(out, bytes, 0); }

CUresult cuMemFreeHost(void *pointer) {
    ENTER();
    if (!forget_host(pointer, true))
        return CUDA_ERROR_INVALID_VALUE;
    free(pointer);
    return CUDA_SUCCESS;
}

CUresult cuMemHostRegister_v2(void *pointer, size_t bytes, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    (void)flags;
    REQUIRE(pointer != NULL && bytes > 0);
    return note_host(pointer, bytes, ctx, NULL);
}

CUresult cuMemHostUnregister(void *pointer) {
    ENTER();
    return forget_host(pointer, false) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *pointer, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    (void)flags;
    REQUIRE(out != NULL && pointer != NULL);
    *out = (uintptr_t)pointer;
    return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned *flags, void *pointer) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(flags != NULL && pointer != NULL);
    *flags = 0;
    return CUDA_SUCCESS;
}

/* CU_POINTER_ATTRIBUTE_* of a known range; false for one that is not modelled. */
static bool attribute_of(const struct span *s, int attribute, uint64_t va, void *out) {
    bool host = s->kind == SPAN_HOST, managed = s->kind == SPAN_MANAGED;
    switch (attribute) {
    case 1:
        memcpy(out, &s->ctx, sizeof s->ctx);
        return true;
    case 2:
        *(unsigned *)out = host ? 1 : 2;
        return true;
    case 3:
        *(CUdeviceptr *)out = va;
        return true;
    case 4:
        *(void **)out = host || managed ? (void *)(uintptr_t)va : NULL;
        return true;
    case 7:
        *(uint64_t *)out = s->va;
        return true; /* buffer id: addresses are unique */
    case 8:
        *(unsigned *)out = managed;
        return true;
    case 9:
        *(int *)out = s->ctx != NULL ? s->ctx->ordinal : 0;
        return true;
    case 11:
        *(CUdeviceptr *)out = s->va;
        return true;
    case 12:
        *(size_t *)out = s->size;
        return true;
    case 13:
        *(unsigned *)out = 1;
        return true;
    case 15:
        *(unsigned *)out = 1;
        return true; /* allowed handle types: posix fd */
    default:
        return false;
    }
}

CUresult cuPointerGetAttribute(void *out, int attribute, CUdeviceptr va) {
    ENTER();
    REQUIRE(out != NULL);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    bool known = s != NULL && attribute_of(s, attribute, va, out);
    pthread_mutex_unlock(&cu_process.mutex);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Succeeds for an unknown pointer too, leaving zeros, as the driver does. */
CUresult cuPointerGetAttributes(unsigned n, const int *attributes, void **out, CUdeviceptr va) {
    ENTER();
    REQUIRE(attributes != NULL && out != NULL);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    for (unsigned i = 0; i < n; i++)
        if (s == NULL || !attribute_of(s, attributes[i], va, out[i]))
            memset(out[i], 0, sizeof(unsigned));
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}

CUresult cuPointerSetAttribute(const void *value, int attribute, CUdeviceptr va) {
    ENTER();
    (void)attribute, (void)va;
    REQUIRE(value != NULL);
    return CUDA_SUCCESS;
}

/* What an IPC handle carries: whose memory, and how much. */
struct shared {
    uint32_t magic, slot, generation, card;
    uint64_t va, size;
};

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr va) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(handle != NULL);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    struct shared shared = {.magic = FG_MAGIC,
                            .slot = (uint32_t)cu_process.fg.slot,
                            .generation = cu_process.fg.generation};
    bool ok = s != NULL && s->kind == SPAN_LINEAR;
    if (ok) {
        shared.card = (uint32_t)s->card;
        shared.va = s->va;
        shared.size = s->size;
    }
    pthread_mutex_unlock(&cu_process.mutex);
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &shared, sizeof shared);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Costs the opener nothing: the memory is the exporter's. */
CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned flags) {
    struct shared shared;
    CONTEXT_OR_RETURN(ctx);
    (void)flags;
    REQUIRE(out != NULL);
    memcpy(&shared, &handle, sizeof shared);
    REQUIRE(shared.magic == FG_MAGIC && shared.slot < FG_SLOTS);
    const struct fg_slot *slot = &cu_process.fg.st->slots[shared.slot];
    if (atomic_load(&slot->generation) != shared.generation ||
        !fg_slot_alive(&cu_process.fg, (int)shared.slot, NULL) ||
        (int)shared.slot == cu_process.fg.slot)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&cu_process.mutex);
    *out = cu_take_va(shared.size, false);
    struct span *s = cu_span_add(&cu_process.allocations, (struct span){.va = *out,
                                                                        .size = shared.size,
                                                                        .ctx = ctx,
                                                                        .card = (int)shared.card,
                                                                        .kind = SPAN_IPC});
    pthread_mutex_unlock(&cu_process.mutex);
    return s != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr va) {
    ENTER();
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    bool ours = s != NULL && s->va == va && s->kind == SPAN_IPC;
    if (ours)
        cu_span_drop(&cu_process.allocations, s);
    pthread_mutex_unlock(&cu_process.mutex);
    return ours ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
