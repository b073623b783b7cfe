/* Streams and events on the card's one timeline. */
#include "cuda_int.h"

#include <stdlib.h>

struct event {
    enum magic magic;
    struct ctx *ctx;
    _Atomic uint64_t at_ns; /* 0: never recorded */
    bool timing;
};

#define EVENT_DISABLE_TIMING 2u

static void raise_to(_Atomic uint64_t *word, uint64_t value) {
    uint64_t old = atomic_load(word);
    while (old < value && !atomic_compare_exchange_weak(word, &old, value))
        ;
}

/* Resolves a handle; 0, 1 (legacy) and 2 (per thread) mean the context's own stream. */
struct stream *cu_stream(CUstream handle, struct ctx *ctx) {
    if ((uintptr_t)handle <= 2)
        return &ctx->legacy;
    return handle->magic == MAGIC_STREAM ? handle : NULL;
}

void cu_note_end(struct stream *stream, uint64_t end_ns) {
    raise_to(&stream->last_end_ns, end_ns);
    raise_to(&stream->ctx->last_end_ns, end_ns);
}

/* Blocks until the card's timeline has passed all work of the context. */
void cu_wait_context(struct ctx *ctx) { fg_sleep_until(atomic_load(&ctx->last_end_ns)); }

static void settle(int card) {
    pthread_mutex_lock(&cu_process.mutex);
    cu_pools_settle(card);
    pthread_mutex_unlock(&cu_process.mutex);
}

CUresult cuStreamCreateWithPriority(CUstream *out, unsigned flags, int priority) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL && flags <= 1);
    struct stream *s = calloc(1, sizeof *s);
    if (s == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->magic = MAGIC_STREAM;
    s->ctx = ctx;
    s->flags = flags;
    s->priority = priority;
    *out = s;
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *out, unsigned flags) {
    return cuStreamCreateWithPriority(out, flags, 0);
}

#define STREAM_OR_RETURN(name, handle)                                                             \
    CONTEXT_OR_RETURN(ctx);                                                                        \
    struct stream *name = cu_stream(handle, ctx);                                                  \
    if ((name) == NULL)                                                                            \
    return CUDA_ERROR_INVALID_HANDLE

CUresult cuStreamDestroy_v2(CUstream handle) {
    ENTER();
    REQUIRE_HANDLE(handle, MAGIC_STREAM);
    handle->magic = MAGIC_DEAD; /* kept: a stale handle must stay readable */
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle) {
    STREAM_OR_RETURN(s, handle);
    fg_sleep_until(atomic_load(&s->last_end_ns));
    settle(s->ctx->card);
    return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream handle) {
    STREAM_OR_RETURN(s, handle);
    return atomic_load(&s->last_end_ns) > fg_now() ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    STREAM_OR_RETURN(s, handle);
    (void)flags;
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    raise_to(&s->wait_ns, atomic_load(&event->at_ns));
    return CUDA_SUCCESS;
}

CUresult cuStreamGetFlags(CUstream handle, unsigned *flags) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE(flags != NULL);
    *flags = s->flags;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetPriority(CUstream handle, int *priority) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE(priority != NULL);
    *priority = s->priority;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *out) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE(out != NULL);
    *out = s->ctx;
    return CUDA_SUCCESS;
}

CUresult cuStreamAddCallback(CUstream handle, void (*callback)(CUstream, CUresult, void *),
                             void *data, unsigned flags) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE(callback != NULL && flags == 0);
    fg_sleep_until(atomic_load(&s->last_end_ns)); /* no driver thread: the caller waits */
    callback(handle, CUDA_SUCCESS, data);
    return CUDA_SUCCESS;
}

CUresult cuLaunchHostFunc(CUstream handle, void (*function)(void *), void *data) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE(function != NULL);
    fg_sleep_until(atomic_load(&s->last_end_ns));
    function(data);
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *out, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL);
    struct event *e = calloc(1, sizeof *e);
    if (e == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->magic = MAGIC_EVENT;
    e->ctx = ctx;
    e->timing = (flags & EVENT_DISABLE_TIMING) == 0;
    *out = e;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event) {
    ENTER();
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    event->magic = MAGIC_DEAD;
    free(event); /* programs make millions of events; the driver checks none of them either */
    return CUDA_SUCCESS;
}

/* The event happens when everything queued on the stream so far has ended. */
CUresult cuEventRecord(CUevent event, CUstream handle) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    uint64_t now = fg_now(), end = atomic_load(&s->last_end_ns);
    atomic_store(&event->at_ns, end > now ? end : now);
    return CUDA_SUCCESS;
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream handle, unsigned flags) {
    (void)flags;
    return cuEventRecord(event, handle);
}

CUresult cuEventQuery(CUevent event) {
    ENTER();
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    return atomic_load(&event->at_ns) > fg_now() ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event) {
    ENTER();
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    fg_sleep_until(atomic_load(&event->at_ns));
    settle(event->ctx->card);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    ENTER();
    REQUIRE(milliseconds != NULL);
    REQUIRE_HANDLE(start, MAGIC_EVENT);
    REQUIRE_HANDLE(end, MAGIC_EVENT);
    uint64_t a = atomic_load(&start->at_ns), b = atomic_load(&end->at_ns), now = fg_now();
    if (a == 0 || b == 0 || !start->timing || !end->timing)
        return CUDA_ERROR_INVALID_HANDLE;
    if (a > now || b > now)
        return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)((double)((int64_t)(b - a)) / 1e6);
    return CUDA_SUCCESS;
}
