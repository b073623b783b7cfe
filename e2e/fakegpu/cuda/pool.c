/* Stream-ordered pools: they reserve in chunks and keep what was freed until a synchronisation. */
#include "cuda_int.h"

#include <stdlib.h>

#define CHUNK (32 * FG_MIB)
#define MOST_POOLS 256

struct pool {
    enum magic magic;
    int card; /* -1: of the host */
    unsigned epoch;
    bool is_default;
    CUmemLocation location;
    uint64_t reserved, used, reserved_high, used_high, threshold;
};

static struct {
    unsigned epoch;
    struct pool *all[MOST_POOLS];
    struct pool *standard[FG_UNITS];
    struct pool *chosen[FG_UNITS]; /* by cuDeviceSetMemPool */
} pools;

/* All static functions here run under the process's mutex. */
static void fresh(void) {
    if (pools.epoch == cu_process.epoch)
        return;
    for (int i = 0; i < MOST_POOLS; i++)
        pools.all[i] = NULL;
    for (int i = 0; i < FG_UNITS; i++)
        pools.standard[i] = pools.chosen[i] = NULL;
    pools.epoch = cu_process.epoch;
}

static struct pool *make(int card, bool is_default) {
    fresh();
    for (int i = 0; i < MOST_POOLS; i++) {
        if (pools.all[i] != NULL)
            continue;
        struct pool *p = calloc(1, sizeof *p);
        if (p == NULL)
            return NULL;
        *p = (struct pool){.magic = MAGIC_POOL,
                           .card = card,
                           .is_default = is_default,
                           .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
        for (int device = 0; device < cu_process.count; device++)
            if (cu_process.cards[device] == card)
                p->location.id = device;
        return pools.all[i] = p;
    }
    return NULL;
}

static struct pool *standard(int card) {
    fresh();
    if (pools.standard[card] == NULL)
        pools.standard[card] = make(card, true);
    return pools.standard[card];
}

static struct pool *chosen(int card) {
    fresh();
    return pools.chosen[card] != NULL ? pools.chosen[card] : standard(card);
}

static void shrink(struct pool *p, uint64_t keep) {
    uint64_t least = (p->used + 2 * FG_MIB - 1) / (2 * FG_MIB) * (2 * FG_MIB);
    if (keep < least)
        keep = least;
    if (keep >= p->reserved)
        return;
    if (p->card >= 0)
        fg_uncharge(&cu_process.fg, p->card, p->reserved - keep, FG_DATA);
    p->reserved = keep;
}

/* What a synchronisation does: memory above the release threshold goes back to the card. */
void cu_pools_settle(int card) {
    fresh();
    for (int i = 0; i < MOST_POOLS; i++)
        if (pools.all[i] != NULL && pools.all[i]->card == card)
            shrink(pools.all[i], pools.all[i]->threshold);
}

void cu_pool_give_back(struct span *span) {
    struct pool *p = span->owner;
    p->used -= span->size;
}

/* Grows by whole chunks, or by just enough where a chunk no longer fits. */
static CUresult grow(struct pool *p, uint64_t bytes) {
    if (bytes > UINT64_MAX / 2)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t needed = p->used + bytes;
    if (needed <= p->reserved)
        return CUDA_SUCCESS;
    uint64_t steps[] = {(needed + CHUNK - 1) / CHUNK * CHUNK - p->reserved,
                        (needed + 2 * FG_MIB - 1) / (2 * FG_MIB) * (2 * FG_MIB) - p->reserved};
    int rc = 0;
    for (int i = 0; i < 2; i++) {
        rc = p->card < 0 ? 0 : fg_charge(&cu_process.fg, p->card, steps[i], FG_DATA);
        if (rc != 0)
            continue;
        p->reserved += steps[i];
        if (p->reserved > p->reserved_high)
            p->reserved_high = p->reserved;
        return CUDA_SUCCESS;
    }
    return cu_error(rc);
}

static CUresult allocate(struct pool *p, struct ctx *ctx, uint64_t bytes, CUdeviceptr *out) {
    uint64_t size = fg_round(bytes);
    if (p == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = grow(p, size);
    if (rc != CUDA_SUCCESS)
        return rc;
    *out = cu_take_va(size, false);
    struct span span = {
        .va = *out, .size = size, .ctx = ctx, .owner = p, .card = p->card, .kind = SPAN_POOL};
    if (cu_span_add(&cu_process.allocations, span) == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    p->used += size;
    if (p->used > p->used_high)
        p->used_high = p->used;
    return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr *out, size_t bytes, CUstream stream) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL && bytes > 0);
    struct stream *queue = cu_stream(stream, ctx);
    if (queue == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (queue->capture != NULL)
        return cu_capture_alloc(queue->capture, ctx->card, bytes, out);
    pthread_mutex_lock(&cu_process.mutex);
    CUresult rc = allocate(chosen(ctx->card), ctx, bytes, out);
    pthread_mutex_unlock(&cu_process.mutex);
    return rc;
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t bytes, CUmemoryPool pool,
                                 CUstream stream) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL && bytes > 0);
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    struct stream *queue = cu_stream(stream, ctx);
    if (queue == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (queue->capture != NULL)
        return cu_capture_alloc(queue->capture, pool->card, bytes, out);
    pthread_mutex_lock(&cu_process.mutex);
    CUresult rc = allocate(pool, ctx, bytes, out);
    pthread_mutex_unlock(&cu_process.mutex);
    return rc;
}

CUresult cuMemFreeAsync(CUdeviceptr va, CUstream stream) {
    struct span span;
    CONTEXT_OR_RETURN(ctx);
    struct stream *queue = cu_stream(stream, ctx);
    if (queue == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (queue->capture != NULL)
        return cu_capture_free(queue->capture, va);
    pthread_mutex_lock(&cu_process.mutex);
    struct span *s = cu_span_find(&cu_process.allocations, va);
    bool ours = s != NULL && s->va == va &&
                (s->kind == SPAN_POOL || s->kind == SPAN_LINEAR || s->kind == SPAN_GRAPH);
    if (ours) {
        span = *s;
        cu_span_drop(&cu_process.allocations, s);
        if (span.kind == SPAN_POOL)
            cu_pool_give_back(&span);
        else if (span.kind == SPAN_GRAPH)
            cu_graph_memory_freed(&span);
        else if (span.charged > 0)
            fg_uncharge(&cu_process.fg, span.card, span.charged, FG_DATA);
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return ours ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props) {
    int card = -1;
    ENTER();
    REQUIRE(out != NULL && props != NULL && props->location.type != 0);
    CUdevice device = cu_location_device(&props->location);
    CUresult rc = device < 0 ? CUDA_SUCCESS : cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&cu_process.mutex);
    *out = make(card, false);
    if (*out != NULL)
        (*out)->location = props->location;
    pthread_mutex_unlock(&cu_process.mutex);
    return *out != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Outstanding allocations die with the pool here; the driver keeps it until they are freed. */
CUresult cuMemPoolDestroy(CUmemoryPool pool) {
    size_t cursor = 0;
    ENTER();
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    REQUIRE(!pool->is_default);
    pthread_mutex_lock(&cu_process.mutex);
    for (struct span *s; (s = cu_span_next(&cu_process.allocations, &cursor)) != NULL;)
        if (s->kind == SPAN_POOL && s->owner == pool)
            cu_span_drop(&cu_process.allocations, s);
    pool->used = 0;
    shrink(pool, 0);
    for (int i = 0; i < MOST_POOLS; i++)
        if (pools.all[i] == pool)
            pools.all[i] = NULL;
    if (pool->card >= 0 && pools.chosen[pool->card] == pool)
        pools.chosen[pool->card] = NULL;
    pool->magic = MAGIC_DEAD; /* kept: a stale handle must stay readable */
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep) {
    ENTER();
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    pthread_mutex_lock(&cu_process.mutex);
    shrink(pool, keep);
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}

/* CU_MEMPOOL_ATTR_*: reuse policies 1-3, threshold 4, reserved 5 and 6, used 7 and 8; from 13.0 on
 * 11 and 12, id and type of the location. */
CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value) {
    ENTER();
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    bool located = cu_process.fg.st->cuda_version >= 13000 && (attribute == 11 || attribute == 12);
    REQUIRE(value != NULL && attribute >= 1 && (attribute <= 8 || located));
    if (located) {
        *(int *)value = attribute == 11 ? pool->location.id : pool->location.type;
        return CUDA_SUCCESS;
    }
    pthread_mutex_lock(&cu_process.mutex);
    const uint64_t figures[] = {pool->threshold, pool->reserved, pool->reserved_high, pool->used,
                                pool->used_high};
    pthread_mutex_unlock(&cu_process.mutex);
    if (attribute <= 3)
        *(int *)value = 1;
    else
        *(uint64_t *)value = figures[attribute - 4];
    return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void *value) {
    ENTER();
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    REQUIRE(value != NULL && attribute >= 1 && attribute <= 8);
    pthread_mutex_lock(&cu_process.mutex);
    if (attribute == 4)
        pool->threshold = *(uint64_t *)value;
    else if (attribute == 6)
        pool->reserved_high = pool->reserved;
    else if (attribute == 8)
        pool->used_high = pool->used;
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const void *access, size_t count) {
    ENTER();
    (void)access, (void)count;
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    return CUDA_SUCCESS;
}

static CUresult device_pool(CUmemoryPool *out, CUdevice device, struct pool *(*which)(int)) {
    int card;
    ENTER();
    REQUIRE(out != NULL);
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    pthread_mutex_lock(&cu_process.mutex);
    *out = which(card);
    pthread_mutex_unlock(&cu_process.mutex);
    return *out != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *out, CUdevice device) {
    return device_pool(out, device, standard);
}

CUresult cuDeviceGetMemPool(CUmemoryPool *out, CUdevice device) {
    return device_pool(out, device, chosen);
}

CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool) {
    int card;
    ENTER();
    REQUIRE_HANDLE(pool, MAGIC_POOL);
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    REQUIRE(pool->card == card);
    pthread_mutex_lock(&cu_process.mutex);
    fresh();
    pools.chosen[card] = pool;
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}
