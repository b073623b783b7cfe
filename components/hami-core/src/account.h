/* What every allocating wrapper does: reserve, call the driver, then keep the charge or give it
 * back. */
#ifndef HAMI_ACCOUNT_H
#define HAMI_ACCOUNT_H

#include "process.h"

struct charge {
    struct process *process; /* NULL: nothing is accounted, the driver alone decides */
    unsigned device;
    enum hami_kind kind;
    uint64_t units;
    bool spilled; /* managed memory in place of what was asked for */
};

/* The device index of the current context; false if there is none (the driver will say so itself).
 */
bool account_current_device(struct process *process, int *device);

/*
 * Reserves `bytes` on a device of the grant. False: the limit forbids it, the answer is
 * CUDA_ERROR_OUT_OF_MEMORY. A reservation that fails is tried once more after idle pools and dead
 * processes have been settled.
 */
bool account_reserve(struct process *process, int device, enum hami_kind kind, uint64_t bytes,
                     struct charge *charge);

/* The same, and a refusal is not counted: there may be another way. */
bool account_try(struct process *process, int device, enum hami_kind kind, uint64_t bytes,
                 struct charge *charge);

/* The same on the device of the current context; nothing is charged where the container has no
 * limits. */
bool account_reserve_here(enum hami_kind kind, uint64_t bytes, struct charge *charge);

/* After the driver's answer: the charge goes into the table under `key`, or back. Returns the
 * driver's answer. */
CUresult account_keep(const struct charge *charge, CUresult answer, enum table_tag tag,
                      uint64_t key);

/* Moves a reservation to what the driver really took; a rise may pass the limit, for the memory is
 * taken already. */
void account_adjust(struct charge *charge, uint64_t bytes);

/* For the counters and the log: so many bytes were refused on a device of the grant. */
void account_count_refusal(struct process *process, int device, uint64_t bytes);

void account_release(struct process *process, unsigned device, enum hami_kind kind, uint64_t units);

/* One charge or release in units, without a second try. */
bool account_apply(struct process *process, unsigned device, enum hami_kind kind, int64_t units,
                   uint64_t limit);

/* Memory that is freed under `key`: `call` is the driver's free, done while nobody else can find
 * the entry. */
CUresult account_free(enum table_tag tag, uint64_t key, CUresult (*call)(void *), void *argument);

/* Everything that a context owned is gone with it. */
void account_forget_context(CUcontext context);

#endif
