/* Streams and events on the card's one timeline. */
#include "cuda_int.h"

#include <stdlib.h>

struct event {
    enum magic magic;
    struct ctx *ctx;
    _Atomic uint64_t recorded_ns; /* 0: never recorded */
    _Atomic uint64_t mark;        /* of the work it comes after */
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

void cu_note_end(struct stream *stream, uint64_t end) {
    raise_to(&stream->last_end, end);
    raise_to(&stream->ctx->last_end, end);
}

static void wait_stream(const struct stream *s) {
    fg_wait_mark(&cu_process.fg, s->ctx->card, atomic_load(&s->last_end));
}

/* When the event happened; FG_NEVER, or a time to come, if it has not yet. */
static uint64_t time_of(const struct event *e) {
    uint64_t recorded = atomic_load(&e->recorded_ns);
    uint64_t when = fg_when(&cu_process.fg, e->ctx->card, atomic_load(&e->mark));
    return when > recorded ? when : recorded;
}

/* Blocks until the card's timeline has passed all work of the context. */
void cu_wait_context(struct ctx *ctx) {
    fg_wait_mark(&cu_process.fg, ctx->card, atomic_load(&ctx->last_end));
}

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
    wait_stream(s);
    settle(s->ctx->card);
    return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream handle) {
    STREAM_OR_RETURN(s, handle);
    return fg_reached(&cu_process.fg, s->ctx->card, atomic_load(&s->last_end))
               ? CUDA_SUCCESS
               : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    STREAM_OR_RETURN(s, handle);
    (void)flags;
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    if (cu_process.fg.st->modes.slice_us == 0) /* with slices a process's work is in order anyway */
        raise_to(&s->wait_ns, time_of(event));
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
    wait_stream(s); /* no driver thread: the caller waits */
    callback(handle, CUDA_SUCCESS, data);
    return CUDA_SUCCESS;
}

CUresult cuLaunchHostFunc(CUstream handle, void (*function)(void *), void *data) {
    STREAM_OR_RETURN(s, handle);
    REQUIRE(function != NULL);
    wait_stream(s);
    function(data);
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *out, unsigned flags) {
    CONTEXT_OR_RETURN(ctx);
    FAIL_IF_ASKED("cuEventCreate");
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
    FAIL_IF_ASKED("cuEventRecord");
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    atomic_store(&event->mark, atomic_load(&s->last_end));
    atomic_store(&event->recorded_ns, fg_now());
    return CUDA_SUCCESS;
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream handle, unsigned flags) {
    (void)flags;
    return cuEventRecord(event, handle);
}

CUresult cuEventQuery(CUevent event) {
    ENTER();
    FAIL_IF_ASKED("cuEventQuery");
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    return time_of(event) > fg_now() ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event) {
    ENTER();
    REQUIRE_HANDLE(event, MAGIC_EVENT);
    fg_wait_mark(&cu_process.fg, event->ctx->card, atomic_load(&event->mark));
    settle(event->ctx->card);
    return CUDA_SUCCESS;
}

/* Up to the asked percentage off, another way each time. */
static double noise(void) {
    static _Atomic uint64_t calls;
    uint64_t x = (atomic_fetch_add(&calls, 1) + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    double unit = (double)((x ^ (x >> 27)) >> 11) / (double)(1ull << 53); /* [0, 1) */
    return 1.0 + (unit * 2.0 - 1.0) * cu_process.fg.st->modes.event_noise_percent / 100.0;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    ENTER();
    FAIL_IF_ASKED("cuEventElapsedTime");
    REQUIRE(milliseconds != NULL);
    REQUIRE_HANDLE(start, MAGIC_EVENT);
    REQUIRE_HANDLE(end, MAGIC_EVENT);
    if (atomic_load(&start->recorded_ns) == 0 || atomic_load(&end->recorded_ns) == 0 ||
        !start->timing || !end->timing || start->ctx != end->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t a = time_of(start), b = time_of(end), now = fg_now();
    if (a > now || b > now)
        return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)((double)((int64_t)(b - a)) / 1e6 * noise());
    return CUDA_SUCCESS;
}
