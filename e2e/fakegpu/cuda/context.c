/* Contexts: what they cost, and which one is current. */
#include "cuda_int.h"

#include <stdlib.h>
#include <string.h>

#define STACK_DEPTH 64

/* The thread's context stack; a fork's child starts with an empty one (another epoch). */
static _Thread_local struct {
    unsigned epoch;
    int depth;
    struct ctx *stack[STACK_DEPTH];
} tls;

static void fresh(void) {
    if (tls.epoch != cu_process.epoch) {
        tls.epoch = cu_process.epoch;
        tls.depth = 0;
    }
}

struct ctx *cu_current(void) {
    fresh();
    return tls.depth > 0 ? tls.stack[tls.depth - 1] : NULL;
}

CUresult cu_need_context(struct ctx **ctx) {
    ENTER();
    *ctx = cu_current();
    if (*ctx == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    return (*ctx)->alive ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

/* The device of a location; -1: the host. */
CUdevice cu_location_device(const CUmemLocation *location) {
    if (location->type == CU_MEM_LOCATION_TYPE_DEVICE)
        return location->id;
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN ? location->id & 0xff : -1;
}

static bool valid(const struct ctx *ctx) {
    return ctx != NULL && ctx->magic == MAGIC_CTX && ctx->epoch == cu_process.epoch && ctx->alive;
}

/* An instance that was taken away, or cut anew, is another one than cuInit found. */
static bool still_there(CUdevice device) {
    const struct fg_instance *gi = &cu_process.fg.st->cards[cu_process.cards[device]].instance;
    int ci = cu_process.computes[device];
    return ci < 0 || (atomic_load(&gi->live) && atomic_load(&gi->computes[ci].live) &&
                      atomic_load(&gi->generation) == cu_process.generations[device]);
}

/* Pays for a context and brings it to life. */
static CUresult open_context(struct ctx *ctx, CUdevice device, unsigned flags) {
    int card = cu_process.cards[device];
    if (!still_there(device))
        return CUDA_ERROR_UNKNOWN;
    atomic_store(&cu_process.fg.st->slots[cu_process.fg.slot].share[card].compute,
                 (uint64_t)(cu_process.computes[device] + 1));
    int rc =
        fg_charge(&cu_process.fg, card, cu_process.fg.st->cards[card].context_bytes, FG_CONTEXT);
    if (rc != 0)
        return cu_error(rc);
    ctx->magic = MAGIC_CTX;
    ctx->ordinal = device;
    ctx->card = card;
    ctx->flags = flags;
    ctx->epoch = cu_process.epoch;
    ctx->legacy = (struct stream){.magic = MAGIC_STREAM, .ctx = ctx};
    ctx->alive = true;
    return CUDA_SUCCESS;
}

static void close_context(struct ctx *ctx) {
    ctx->alive = false;
    cu_free_context(ctx);
    fg_uncharge(&cu_process.fg, ctx->card, cu_process.fg.st->cards[ctx->card].context_bytes,
                FG_CONTEXT);
    fg_uncharge(&cu_process.fg, ctx->card, atomic_exchange(&ctx->module_bytes, 0), FG_MODULE);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device) {
    int card;
    ENTER();
    REQUIRE(out != NULL);
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    struct ctx *ctx = &cu_process.primary[device];
    pthread_mutex_lock(&cu_process.mutex);
    ctx->primary = true;
    if (!ctx->alive)
        rc = open_context(ctx, device, ctx->flags);
    if (rc == CUDA_SUCCESS) {
        ctx->refs++;
        *out = ctx;
    }
    pthread_mutex_unlock(&cu_process.mutex);
    return rc;
}

static CUresult end_primary(CUdevice device, bool reset) {
    int card;
    ENTER();
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    struct ctx *ctx = &cu_process.primary[device];
    pthread_mutex_lock(&cu_process.mutex);
    if (ctx->refs == 0 && !reset)
        rc = CUDA_ERROR_INVALID_CONTEXT;
    else if (reset)
        ctx->refs = 0;
    else
        ctx->refs--;
    if (rc == CUDA_SUCCESS && ctx->refs == 0 && ctx->alive)
        close_context(ctx);
    pthread_mutex_unlock(&cu_process.mutex);
    return rc;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return end_primary(device, false); }
CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) { return end_primary(device, true); }

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
    int card;
    ENTER();
    CUresult rc = cu_device_card(device, &card);
    if (rc == CUDA_SUCCESS)
        cu_process.primary[device].flags = flags;
    return rc;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    int card;
    ENTER();
    REQUIRE(flags != NULL && active != NULL);
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    *flags = cu_process.primary[device].flags;
    *active = cu_process.primary[device].alive;
    return CUDA_SUCCESS;
}

static CUresult push(struct ctx *ctx) {
    fresh();
    if (tls.depth == STACK_DEPTH)
        return CUDA_ERROR_INVALID_VALUE;
    tls.stack[tls.depth++] = ctx;
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice device) {
    int card;
    ENTER();
    REQUIRE(out != NULL);
    CUresult rc = cu_device_card(device, &card);
    if (rc != CUDA_SUCCESS)
        return rc;
    struct ctx *ctx = calloc(1, sizeof *ctx); /* never freed: a stale handle must stay readable */
    if (ctx == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&cu_process.mutex);
    rc = open_context(ctx, device, flags);
    pthread_mutex_unlock(&cu_process.mutex);
    if (rc != CUDA_SUCCESS) {
        free(ctx);
        return rc;
    }
    *out = ctx;
    return push(ctx);
}

CUresult cuCtxCreate_v3(CUcontext *out, void *affinity, int n, unsigned flags, CUdevice device) {
    (void)affinity, (void)n;
    return cuCtxCreate_v2(out, flags, device);
}

CUresult cuCtxCreate_v4(CUcontext *out, void *params, unsigned flags, CUdevice device) {
    (void)params;
    return cuCtxCreate_v2(out, flags, device);
}

CUresult cuCtxDestroy_v2(CUcontext ctx) {
    ENTER();
    if (!valid(ctx) || ctx->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    cu_wait_context(ctx);
    pthread_mutex_lock(&cu_process.mutex);
    close_context(ctx);
    pthread_mutex_unlock(&cu_process.mutex);
    if (cu_current() == ctx)
        tls.depth--;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx) {
    ENTER();
    return valid(ctx) ? push(ctx) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxPopCurrent_v2(CUcontext *out) {
    ENTER();
    struct ctx *ctx = cu_current();
    if (ctx == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    tls.depth--;
    if (out != NULL)
        *out = ctx;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext ctx) {
    ENTER();
    if (ctx != NULL && !valid(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (cu_current() != NULL)
        tls.depth--;
    return ctx == NULL ? CUDA_SUCCESS : push(ctx);
}

CUresult cuCtxGetCurrent(CUcontext *out) {
    ENTER();
    REQUIRE(out != NULL);
    *out = cu_current();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(device != NULL);
    *device = ctx->ordinal;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetFlags(unsigned *flags) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(flags != NULL);
    *flags = ctx->flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned *version) {
    ENTER();
    REQUIRE(version != NULL);
    if (ctx != NULL && !valid(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    *version = 3020;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext ctx, unsigned long long *id) {
    ENTER();
    REQUIRE(id != NULL);
    *id = (unsigned long long)(uintptr_t)(ctx != NULL ? ctx : cu_current());
    return CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    CONTEXT_OR_RETURN(ctx);
    if (least != NULL)
        *least = 0;
    if (greatest != NULL)
        *greatest = -5;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetLimit(size_t *value, int limit) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(value != NULL);
    *value = limit == 0 ? 1024 : 8 * FG_MIB;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetLimit(int limit, size_t value) {
    CONTEXT_OR_RETURN(ctx);
    (void)limit, (void)value;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCacheConfig(int *config) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(config != NULL);
    *config = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCacheConfig(int config) {
    CONTEXT_OR_RETURN(ctx);
    (void)config;
    return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    (void)flags;
    return valid(peer) && peer != ctx ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxDisablePeerAccess(CUcontext peer) {
    CONTEXT_OR_RETURN(ctx);
    return valid(peer) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSynchronize(void) {
    CONTEXT_OR_RETURN(ctx);
    cu_wait_context(ctx);
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize_v2(CUcontext context) {
    ENTER();
    if (!valid(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    cu_wait_context(context);
    return CUDA_SUCCESS;
}
