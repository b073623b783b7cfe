/* Stream-ordered allocation. The driver works at the pool's level, so the pool is what is charged.
 */
#include "account.h"
#include "dispatch.h"
#include "driver.h"
#include "location.h"
#include "overhead.h"
#include "pool.h"
#include "spill.h"

/* One allocation in flight, in either of the two default-stream flavours. */
struct async {
    CUdeviceptr *pointer;
    size_t bytes;
    CUmemoryPool pool; /* NULL: the device's current one, without naming it to the driver */
    CUstream stream;
    cuMemAllocAsync_fn *allocate;
    cuMemAllocFromPoolAsync_fn *allocate_from;
    cuMemFreeAsync_fn *release;
    bool per_thread; /* the default stream's flavour */
};

static CUresult call_driver(void *argument) {
    const struct async *async = argument;
    if (async->pool != NULL) {
        return async->allocate_from(async->pointer, async->bytes, async->pool, async->stream);
    }
    return async->allocate(async->pointer, async->bytes, async->stream);
}

static void undo(void *argument) {
    const struct async *async = argument;
    async->release(*async->pointer, async->stream);
}

/* For a driver that does not tell what its pools hold: charged by allocation. */
static CUresult allocate_alone(struct process *process, int device, struct async *async) {
    struct charge charge;
    if (!account_reserve(process, device, HAMI_KIND_POOL, async->bytes, &charge)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult answer = call_driver(async);
    return account_keep(&charge, answer, TABLE_POINTER,
                        answer == CUDA_SUCCESS ? *async->pointer : 0);
}

static CUresult allocate(struct async *async) {
    bool refuse = false;
    bool accounted = false;
    CUdevice ordinal = 0;
    CUmemoryPool pool = async->pool;
    struct process *process = process_account(&refuse);
    if (refuse) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    /* While a stream is captured nothing is allocated: it becomes a node of the graph. */
    if (process == NULL || driver_current_device(&ordinal) != CUDA_SUCCESS ||
        driver_is_capturing(async->stream, async->per_thread)) {
        return call_driver(async);
    }
    int device = process_device(process, ordinal);
    if (pool == NULL && driver_device_pool(ordinal, &pool) != CUDA_SUCCESS) {
        return allocate_alone(process, device, async);
    }
    if (async->pool != NULL && !pool_device(process, pool, &device)) {
        device = location_of_pool(process, pool);
    }
    if (device == LOCATION_HOST) {
        return call_driver(async);
    }
    struct pool_request request = {pool, device, async->bytes, call_driver, undo, async};
    CUresult answer =
        device < 0 ? CUDA_ERROR_OUT_OF_MEMORY : pool_allocate(process, &request, &accounted);
    answer = accounted || device < 0 ? answer : allocate_alone(process, device, async);
    return spill_if_full(answer, async->pointer, async->bytes);
}

CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream stream) {
    struct async async = {
        pointer, bytes, NULL, stream, REAL(cuMemAllocAsync), NULL, REAL(cuMemFreeAsync), false};
    return allocate(&async);
}

CUresult cuMemAllocAsync_ptsz(CUdeviceptr *pointer, size_t bytes, CUstream stream) {
    struct async async = {
        pointer, bytes, NULL, stream, REAL(cuMemAllocAsync_ptsz), NULL, REAL(cuMemFreeAsync_ptsz),
        true};
    return allocate(&async);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t bytes, CUmemoryPool pool,
                                 CUstream stream) {
    struct async async = {
        pointer, bytes, pool, stream, NULL, REAL(cuMemAllocFromPoolAsync), REAL(cuMemFreeAsync),
        false};
    return pool != NULL ? allocate(&async)
                        : REAL(cuMemAllocFromPoolAsync)(pointer, bytes, pool, stream);
}

CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *pointer, size_t bytes, CUmemoryPool pool,
                                      CUstream stream) {
    struct async async = {pointer,
                          bytes,
                          pool,
                          stream,
                          NULL,
                          REAL(cuMemAllocFromPoolAsync_ptsz),
                          REAL(cuMemFreeAsync_ptsz),
                          true};
    return pool != NULL ? allocate(&async)
                        : REAL(cuMemAllocFromPoolAsync_ptsz)(pointer, bytes, pool, stream);
}

struct async_free {
    CUdeviceptr pointer;
    CUstream stream;
    cuMemFreeAsync_fn *release;
};

static CUresult call_free(void *argument) {
    const struct async_free *async = argument;
    return async->release(async->pointer, async->stream);
}

/* Memory of a pool is not in the table: it goes back to its pool, which is settled when it gives it
 * back. */
CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
    CUresult answer = CUDA_SUCCESS;
    struct async_free async = {pointer, stream, REAL(cuMemFreeAsync)};
    return spill_free(pointer, &answer, REAL(cuStreamSynchronize), stream)
               ? answer
               : account_free(TABLE_POINTER, pointer, call_free, &async);
}

CUresult cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream) {
    CUresult answer = CUDA_SUCCESS;
    struct async_free async = {pointer, stream, REAL(cuMemFreeAsync_ptsz)};
    return spill_free(pointer, &answer, REAL(cuStreamSynchronize_ptsz), stream)
               ? answer
               : account_free(TABLE_POINTER, pointer, call_free, &async);
}

CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemAllocationProp *properties) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemPoolCreate)(pool, properties);
    if (answer == CUDA_SUCCESS && process != NULL) {
        pool_remember(process, *pool, location_device(process, &properties->location));
    }
    return answer;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemPoolTrimTo)(pool, keep);
    if (process != NULL) {
        pool_settle(process, pool);
    }
    return answer;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    CUresult answer = REAL(cuMemPoolDestroy)(pool);
    if (answer == CUDA_SUCCESS && process != NULL) {
        pool_forget(process, pool);
    }
    return answer;
}

/* At these points the driver gives a pool's idle memory back to the card. */
static CUresult settled(CUresult answer) {
    bool refuse = false;
    struct process *process = process_limits();
    if (process != NULL) {
        overhead_catch_up(process);
    }
    if (process != NULL && atomic_load_explicit(&process->has_pools, memory_order_relaxed) != 0) {
        process = process_account(&refuse);
        if (process != NULL) {
            pool_settle_all(process);
        }
    }
    return answer;
}

CUresult cuStreamSynchronize(CUstream stream) { return settled(REAL(cuStreamSynchronize)(stream)); }

CUresult cuStreamSynchronize_ptsz(CUstream stream) {
    return settled(REAL(cuStreamSynchronize_ptsz)(stream));
}

CUresult cuCtxSynchronize(void) { return settled(REAL(cuCtxSynchronize)()); }

CUresult cuCtxSynchronize_v2(CUcontext context) {
    return settled(REAL(cuCtxSynchronize_v2)(context));
}
