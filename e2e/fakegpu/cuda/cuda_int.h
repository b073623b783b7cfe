/* What the files of the fake libcuda share: this process's contexts, addresses and objects. */
#ifndef CUDA_INT_H
#define CUDA_INT_H

#include "fg_cuda.h"
#include "fg_state.h"

#define QUEUE_DEPTH 1024

enum magic {
    MAGIC_CTX = 0x43747831,
    MAGIC_STREAM = 0x53747231,
    MAGIC_EVENT = 0x45767431,
    MAGIC_MODULE = 0x4d6f6431,
    MAGIC_FUNCTION = 0x46756e31,
    MAGIC_POOL = 0x506f6f31,
    MAGIC_ARRAY = 0x41727231,
    MAGIC_GRAPH = 0x47726131,
    MAGIC_EXEC = 0x45786531,
    MAGIC_EXTERNAL = 0x45787431,
    MAGIC_DEAD = 0x64656164,
};

struct stream {
    enum magic magic;
    struct ctx *ctx;
    unsigned flags;
    int priority;
    _Atomic uint64_t last_end; /* a mark of the card's timeline */
    _Atomic uint64_t wait_ns;  /* of cuStreamWaitEvent */
    struct graph *capture;
};

struct ctx {
    enum magic magic;
    int ordinal; /* the CUdevice */
    int card;    /* in the state file */
    bool primary;
    bool alive;
    int refs;
    unsigned flags;
    unsigned epoch; /* of the process: a fork's child does not own its parent's contexts */
    _Atomic uint64_t module_bytes;
    _Atomic uint64_t last_end;
    _Atomic uint64_t queue[QUEUE_DEPTH]; /* ends of the last launches */
    _Atomic uint32_t queued;
    struct stream legacy; /* what stream handles 0, 1 and 2 mean */
};

enum span_kind {
    SPAN_LINEAR,
    SPAN_MANAGED,
    SPAN_POOL,
    SPAN_ARRAY,
    SPAN_MAPPED,
    SPAN_HOST,
    SPAN_IPC,
    SPAN_GRAPH,
    SPAN_VA
};

/* A range of addresses. */
struct span {
    uint64_t va, size, charged;
    struct ctx *ctx;
    void *owner; /* SPAN_POOL: the pool; SPAN_MAPPED: the physical handle; SPAN_GRAPH: its memory */
    int card;
    enum span_kind kind;
    bool live;
};

struct table {
    struct span *spans; /* sorted by address; freed ones stay until compaction */
    size_t len, room, dead;
};

struct process {
    struct fg fg;
    bool attached;
    unsigned epoch;
    int count;
    int cards[FG_CARDS];            /* units: a card, or an instance */
    int computes[FG_CARDS];         /* compute instance within it; -1: a whole card */
    uint32_t generations[FG_CARDS]; /* of the instance, to notice that it was cut anew */
    pthread_mutex_t mutex;          /* everything below */
    struct ctx primary[FG_CARDS];
    struct table allocations;
    struct table reservations;
    uint64_t next_va;
    uint64_t next_low_va; /* for the 32-bit addresses of the oldest entry points */
};

extern struct process cu_process;

/* visible.c */
int cu_visible(struct process *process);

/* init.c */
bool cu_ready(void);
CUresult cu_error(int rc);

/* context.c */
struct ctx *cu_current(void);
CUresult cu_need_context(struct ctx **ctx);
CUresult cu_device_card(CUdevice device, int *card);
CUdevice cu_location_device(const CUmemLocation *location);

/* spans.c: callers hold the process's mutex */
uint64_t cu_take_va(uint64_t size, bool low);
struct span *cu_span_add(struct table *table, struct span span);
struct span *cu_span_find(struct table *table, uint64_t va);
bool cu_span_take(struct table *table, uint64_t va, struct span *out);
struct span *cu_span_next(struct table *table, size_t *cursor);
void cu_span_drop(struct table *table, struct span *span);

/* memory.c */
CUresult cu_alloc(struct ctx *ctx, uint64_t bytes, enum span_kind kind, bool low, uint64_t *va);
void cu_free_context(struct ctx *ctx);

/* pool.c */
void cu_pool_give_back(struct span *span);
void cu_pools_settle(int card);

/* stream.c */
struct stream *cu_stream(CUstream handle, struct ctx *ctx);
void cu_wait_context(struct ctx *ctx);
void cu_note_end(struct stream *stream, uint64_t end);

/* launch.c */
CUresult cu_run(struct stream *stream, uint64_t duration_ns);
uint64_t cu_launch_ns(const struct function *f, uint64_t gx, uint64_t gy, uint64_t gz, int card);

/* graph.c */
CUresult cu_capture(struct graph *graph, uint64_t duration_ns);

/* graph_memory.c; the last two under the process's mutex */
CUresult cu_capture_alloc(struct graph *graph, int card, uint64_t bytes, CUdeviceptr *va);
CUresult cu_capture_free(struct graph *graph, CUdeviceptr va);
void cu_graph_memory_freed(const struct span *span);
void cu_graph_memory_trim(int card, bool all);

#define ENTER()                                                                                    \
    do {                                                                                           \
        if (!cu_ready())                                                                           \
            return CUDA_ERROR_NOT_INITIALIZED;                                                     \
    } while (0)

/* Leaves the calling function unless a living context is current; declares it. */
#define CONTEXT_OR_RETURN(name)                                                                    \
    struct ctx *name;                                                                              \
    CUresult name##_rc = cu_need_context(&(name));                                                 \
    if (name##_rc != CUDA_SUCCESS)                                                                 \
    return name##_rc

/* A test may ask for the next calls of a symbol to fail (`fakegpu fail`). */
#define FAIL_IF_ASKED(symbol)                                                                      \
    do {                                                                                           \
        int fault_code = fg_fault(&cu_process.fg, symbol);                                         \
        if (fault_code < 0)                                                                        \
            fg_die();                                                                              \
        if (fault_code != 0)                                                                       \
            return fault_code;                                                                     \
    } while (0)

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return CUDA_ERROR_INVALID_VALUE;                                                       \
    } while (0)

#define REQUIRE_HANDLE(handle, expected)                                                           \
    do {                                                                                           \
        if ((handle) == NULL || (handle)->magic != (expected))                                     \
            return CUDA_ERROR_INVALID_HANDLE;                                                      \
    } while (0)

#endif
