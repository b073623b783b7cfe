/*
 * The gate before every launch: open while nothing limits the container, else it takes credit for
 * the launch's price and waits while there is none, or while the container is suspended.
 */
#ifndef HAMI_GATE_H
#define HAMI_GATE_H

#include "meter.h"

#include <stdatomic.h>

#define LIKELY(condition) __builtin_expect((condition) != 0, 1)

#define LONG_LAUNCH_NS                                                                             \
    500000 /* launches of this length are all measured, and none of them goes past */
#define GATE_SHUT UINT64_MAX /* no epoch: they have 32 bits */

/* Read by every launch, written when the control file changes. */
struct gate {
    const _Atomic uint32_t *_Atomic epoch; /* of the control file */
    _Atomic uint64_t open_at;              /* the epoch for which every launch may pass */
    _Atomic uint32_t round; /* moves when launches are to be measured, or no longer */
};

/* A launch that a thread has made before. */
struct known_launch {
    const void *function;
    uint64_t blocks;
    CUcontext context;
    struct price *price;
};

enum { KNOWN_LAUNCHES = 16 };

/* What a thread has paid for and not yet used. */
struct thread_gate {
    int32_t until_look; /* launches until the clock is read */
    uint32_t epoch;
    uint32_t round;
    uint32_t launches; /* not yet counted */
    int64_t lease_ns;
    int64_t counted_ns; /* the lease when they were counted last */
    uint64_t looked_ns;
    int32_t look_every;
    unsigned device;
    bool one_device; /* all contexts are of one device: which is current need not be asked */
    bool watched;    /* what it leaves at its end will be given back */
    struct known_launch known[KNOWN_LAUNCHES];
};

extern struct gate gate;
extern _Thread_local struct thread_gate thread_gate;

struct launch {
    const void *function; /* CUfunction, CUkernel or CUgraphExec */
    uint64_t blocks;
    CUstream stream;
    bool measured;
    struct process *process;
    struct sample sample;
};

/* The grid's blocks, saturating. */
static inline uint64_t gate_blocks(uint64_t x, uint64_t y, uint64_t z) {
    uint64_t blocks = 0;
    if (__builtin_mul_overflow(x * y, z, &blocks)) { /* x and y have 32 bits */
        return UINT64_MAX;
    }
    return blocks;
}

bool gate_spends_lease(const void *function, uint64_t blocks, uint32_t epoch);

/* True: go on to the driver. False: gate_enter and gate_leave around it. */
static inline bool gate_passes(const void *function, uint64_t blocks) {
    const _Atomic uint32_t *word = atomic_load_explicit(&gate.epoch, memory_order_relaxed);
    uint32_t epoch = atomic_load_explicit(word, memory_order_relaxed);
    if (LIKELY(epoch == atomic_load_explicit(&gate.open_at, memory_order_relaxed))) {
        return LIKELY(--thread_gate.until_look > 0);
    }
    return gate_spends_lease(function, blocks, epoch);
}

void gate_enter(struct launch *launch, const void *function, uint64_t blocks, CUstream stream);
CUresult gate_leave(struct launch *launch, CUresult answer);

/* The body of a wrapper: `call` is the driver's function with the caller's arguments. */
#define GATED(function, blocks, stream, call)                                                      \
    struct launch launch;                                                                          \
    if (gate_passes(function, blocks)) {                                                           \
        return call;                                                                               \
    }                                                                                              \
    gate_enter(&launch, function, blocks, stream);                                                 \
    return gate_leave(&launch, call)

/* What the per-thread twins mean by a stream: another one by 0. */
static inline CUstream of_thread(CUstream stream) {
    return stream != NULL ? stream : CU_STREAM_PER_THREAD;
}

/* Waits while the container is suspended or blocked; the epoch that the launch belongs to. */
uint32_t gate_wait_while_held(struct process *process);

/* Others may be having the device for part of the time. */
bool gate_is_crowded(const struct process *process, unsigned device);

/* Streams that begin or end to capture: their launches take no time yet. */
void gate_capture(int begun);

/* Around a call that may destroy a context; NULL: it did not. */
void gate_context_ends(void);
void gate_context_ended(CUcontext destroyed);
void gate_after_fork(void);

#endif
