/* Linear, pitched, managed memory, and what there is left. */
#define _GNU_SOURCE
#include "cuda_int.h"

#include <sys/mman.h>

#define PITCH 512

/* Managed memory is real host memory too: a program may touch it. */
static bool back_by_host(uint64_t va, uint64_t size) {
    void *map = mmap((void *)(uintptr_t)va, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    return map == (void *)(uintptr_t)va;
}

static CUresult place(struct ctx *ctx, uint64_t charged, enum span_kind kind, bool low,
                      uint64_t *va) {
    bool placed;
    pthread_mutex_lock(&cu_process.mutex);
    if (kind == SPAN_MANAGED) /* whole pages */
        cu_process.next_va = (cu_process.next_va + 4095) / 4096 * 4096;
    *va = cu_take_va(kind == SPAN_MANAGED ? (charged + 4095) / 4096 * 4096 : charged, low);
    placed = (kind != SPAN_MANAGED || back_by_host(*va, charged)) &&
             cu_span_add(&cu_process.allocations, (struct span){.va = *va,
                                                                .size = charged,
                                                                .charged = charged,
                                                                .ctx = ctx,
                                                                .card = ctx->card,
                                                                .kind = kind}) != NULL;
    pthread_mutex_unlock(&cu_process.mutex);
    return placed ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Charges the card, then finds an address. */
CUresult cu_alloc(struct ctx *ctx, uint64_t bytes, enum span_kind kind, bool low, uint64_t *va) {
    REQUIRE(bytes > 0);
    uint64_t charged = fg_round(bytes);
    enum fg_kind pays = kind == SPAN_MANAGED ? FG_MANAGED : FG_DATA;
    CUresult rc = cu_error(fg_charge(&cu_process.fg, ctx->card, charged, pays));
    if (rc != CUDA_SUCCESS)
        return rc;
    rc = place(ctx, charged, kind, low, va);
    if (rc != CUDA_SUCCESS)
        fg_uncharge(&cu_process.fg, ctx->card, charged, pays);
    return rc;
}

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL);
    return cu_alloc(ctx, bytes, SPAN_LINEAR, false, out);
}

/* The entry points of before CUDA 3.2, with 32-bit addresses and sizes. */
CUresult cuMemAlloc(unsigned *out, unsigned bytes) {
    uint64_t va;
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL);
    CUresult rc = cu_alloc(ctx, bytes, SPAN_LINEAR, true, &va);
    if (rc == CUDA_SUCCESS)
        *out = (unsigned)va;
    return rc;
}

static CUresult alloc_pitch(size_t width, size_t height, bool low, uint64_t *va, size_t *pitch) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(width > 0 && height > 0 && width <= SIZE_MAX - PITCH);
    *pitch = (width + PITCH - 1) / PITCH * PITCH;
    size_t bytes;
    if (__builtin_mul_overflow(*pitch, height, &bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return cu_alloc(ctx, bytes, SPAN_LINEAR, low, va);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height,
                            unsigned element) {
    (void)element;
    REQUIRE(out != NULL && pitch != NULL);
    return alloc_pitch(width, height, false, out, pitch);
}

CUresult cuMemAllocPitch(unsigned *out, unsigned *pitch, unsigned width, unsigned height,
                         unsigned element) {
    uint64_t va;
    size_t wide;
    (void)element;
    REQUIRE(out != NULL && pitch != NULL);
    CUresult rc = alloc_pitch(width, height, true, &va, &wide);
    if (rc == CUDA_SUCCESS) {
        *out = (unsigned)va;
        *pitch = (unsigned)wide;
    }
    return rc;
}

/* On the card as far as there is room, as if every page had been touched there; else on the host.
 */
CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL && (flags == 1 || flags == 2 || flags == 4));
    return cu_alloc(ctx, bytes, SPAN_MANAGED, false, out);
}

static void give_back(struct span *span) {
    if (span->kind == SPAN_MANAGED)
        munmap((void *)(uintptr_t)span->va, span->size);
    if (span->kind == SPAN_POOL)
        cu_pool_give_back(span);
    else if (span->kind == SPAN_GRAPH)
        cu_graph_memory_freed(span);
    else if (span->charged > 0)
        fg_uncharge(&cu_process.fg, span->card, span->charged,
                    span->kind == SPAN_MANAGED ? FG_MANAGED : FG_DATA);
}

/* Waits for the context's work first, as cuMemFree does. */
CUresult cuMemFree_v2(CUdeviceptr va) {
    struct span span = {.kind = SPAN_LINEAR};
    ENTER();
    if (va == 0)
        return CUDA_SUCCESS;
    struct ctx *ctx = cu_current();
    if (ctx != NULL)
        cu_wait_context(ctx);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *found = cu_span_find(&cu_process.allocations, va);
    bool ours = found != NULL && found->va == va &&
                (found->kind == SPAN_LINEAR || found->kind == SPAN_MANAGED ||
                 found->kind == SPAN_POOL || found->kind == SPAN_GRAPH);
    if (ours) {
        span = *found;
        cu_span_drop(&cu_process.allocations, found);
        give_back(&span);
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return ours ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemFree(unsigned va) { return cuMemFree_v2(va); }

/* A context that ends takes its memory with it; the caller holds the process's mutex. */
void cu_free_context(struct ctx *ctx) {
    size_t cursor = 0;
    for (struct span *s; (s = cu_span_next(&cu_process.allocations, &cursor)) != NULL;) {
        if (s->ctx != ctx || s->kind == SPAN_HOST)
            continue;
        struct span span = *s;
        cu_span_drop(&cu_process.allocations, s);
        give_back(&span);
    }
    cu_pools_settle(ctx->card);
    if (ctx->primary)
        cu_graph_memory_trim(ctx->card, true);
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    CONTEXT_OR_RETURN(ctx);
    uint64_t total = cu_process.fg.st->cards[ctx->card].total;
    fg_reap(&cu_process.fg);
    if (free_bytes != NULL)
        *free_bytes = total - atomic_load(&cu_process.fg.st->cards[ctx->card].used);
    if (total_bytes != NULL)
        *total_bytes = total;
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(unsigned *free_bytes, unsigned *total_bytes) {
    size_t f, t;
    CUresult rc = cuMemGetInfo_v2(&f, &t);
    if (rc != CUDA_SUCCESS)
        return rc;
    if (free_bytes != NULL)
        *free_bytes = f > UINT32_MAX ? UINT32_MAX : (unsigned)f;
    if (total_bytes != NULL)
        *total_bytes = t > UINT32_MAX ? UINT32_MAX : (unsigned)t;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr va) {
    CONTEXT_OR_RETURN(ctx);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    if (s != NULL && base != NULL)
        *base = s->va;
    if (s != NULL && size != NULL)
        *size = s->size;
    pthread_mutex_unlock(&cu_process.mutex);
    return s != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
