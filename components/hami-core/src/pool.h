/* Memory pools are charged for what they hold, not for what is allocated from them: cached memory
 * is taken too. */
#ifndef HAMI_POOL_H
#define HAMI_POOL_H

#include "process.h"

struct pool_request {
    CUmemoryPool pool;
    int device; /* index in the grant */
    size_t bytes;
    CUresult (*allocate)(void *argument); /* the driver's allocation */
    void (*undo)(void *argument);         /* frees it again */
    void *argument;
};

/* Reserve, allocate, settle. False in *accounted: this driver does not tell what the pool holds;
 * nothing was done. */
CUresult pool_allocate(struct process *process, const struct pool_request *request,
                       bool *accounted);

/* A pool and the device it takes its memory from, or LOCATION_HOST. */
void pool_remember(struct process *process, CUmemoryPool pool, int device);
bool pool_device(struct process *process, CUmemoryPool pool, int *device);

/* Charges what pools hold now. */
void pool_settle(struct process *process, CUmemoryPool pool);
void pool_settle_all(struct process *process);

/* A pool that was destroyed. */
void pool_forget(struct process *process, CUmemoryPool pool);

#endif
