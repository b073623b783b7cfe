#include "pool.h"

#include "account.h"
#include "dispatch.h"
#include "driver.h"
#include "graph_memory.h"
#include "ledger.h"
#include "location.h"

#define SETTLE_AT_ONCE 64

static uint64_t key_of(CUmemoryPool pool) { return (uint64_t)(uintptr_t)pool; }

static uint64_t bytes_to_units(uint64_t bytes) { return bytes / HAMI_UNIT; }

void pool_remember(struct process *process, CUmemoryPool pool, int device) {
    struct table_entry entry = {.key = key_of(pool),
                                .refs = 1,
                                .tag = TABLE_POOL,
                                .device = (uint8_t)device,
                                .kind = HAMI_KIND_POOL};
    if (device == LOCATION_HOST) {
        entry.tag = TABLE_HOST_POOL;
        table_put(process->table, &entry);
    } else if (device >= 0 && table_put(process->table, &entry)) {
        atomic_store(&process->has_pools, 1);
    }
}

bool pool_device(struct process *process, CUmemoryPool pool, int *device) {
    struct table_entry entry;
    if (table_get(process->table, TABLE_POOL, key_of(pool), &entry)) {
        *device = entry.device;
        return true;
    }
    *device = LOCATION_HOST;
    return table_get(process->table, TABLE_HOST_POOL, key_of(pool), &entry);
}

/* Under pool_lock: brings the charge to what the pool holds. False if it does not say, or passes
 * the limit. */
static bool settle(struct process *process, struct table_entry *entry, uint64_t limit) {
    uint64_t reserved = 0;
    CUmemoryPool pool = (CUmemoryPool)(uintptr_t)entry->key; /* NOLINT(performance-no-int-to-ptr) */
    if (driver_pool_attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) !=
        CUDA_SUCCESS) {
        return false;
    }
    int64_t change = (int64_t)bytes_to_units(reserved) - (int64_t)entry->units;
    if (change != 0 && !account_apply(process, entry->device, HAMI_KIND_POOL, change, limit)) {
        return false;
    }
    entry->units += (uint64_t)change;
    table_put(process->table, entry);
    return true;
}

static void settle_key(struct process *process, uint64_t key) {
    struct table_entry entry;
    lock_take(&process->pool_lock);
    if (table_get(process->table, TABLE_POOL, key, &entry)) {
        settle(process, &entry, LEDGER_NO_LIMIT);
    }
    lock_drop(&process->pool_lock);
}

struct collected {
    unsigned count;
    uint64_t keys[SETTLE_AT_ONCE];
};

static bool collect(const struct table_entry *entry, void *argument) {
    struct collected *pools = argument;
    if (entry->tag == TABLE_POOL && pools->count < SETTLE_AT_ONCE) {
        pools->keys[pools->count++] = entry->key;
    }
    return false;
}

void pool_settle(struct process *process, CUmemoryPool pool) { settle_key(process, key_of(pool)); }

void pool_settle_all(struct process *process) {
    struct collected pools = {.count = 0};
    if (atomic_load_explicit(&process->has_pools, memory_order_relaxed) == 0) {
        return;
    }
    table_sweep(process->table, collect, &pools);
    for (unsigned i = 0; i < pools.count; i++) {
        settle_key(process, pools.keys[i]);
    }
}

void pool_forget(struct process *process, CUmemoryPool pool) {
    struct table_entry entry;
    lock_take(&process->pool_lock);
    if (table_take(process->table, TABLE_POOL, key_of(pool), &entry)) {
        account_release(process, entry.device, HAMI_KIND_POOL, entry.units);
    }
    table_take(process->table, TABLE_HOST_POOL, key_of(pool), &entry);
    lock_drop(&process->pool_lock);
}

/* What the pool must take from the card for a request: it first hands out what it holds and nobody
 * uses. */
static bool missing_bytes(const struct pool_request *request, uint64_t *missing) {
    uint64_t reserved = 0;
    uint64_t used = 0;
    if (driver_pool_attribute(request->pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) !=
            CUDA_SUCCESS ||
        driver_pool_attribute(request->pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) !=
            CUDA_SUCCESS) {
        return false;
    }
    uint64_t idle = reserved > used ? reserved - used : 0;
    *missing = request->bytes > idle ? request->bytes - idle : 0;
    return true;
}

/* Under pool_lock, with `missing` bytes reserved in the entry. A pool that grew past the limit
   gives the memory back: what it still holds afterwards is charged in full. */
static CUresult allocate_and_settle(struct process *process, const struct pool_request *request,
                                    struct table_entry *entry) {
    CUresult answer = request->allocate(request->argument);
    if (!settle(process, entry, process_limit_of(process, request->device, HAMI_KIND_POOL))) {
        if (answer == CUDA_SUCCESS) {
            request->undo(request->argument);
            REAL(cuMemPoolTrimTo)(request->pool, 0);
            answer = CUDA_ERROR_OUT_OF_MEMORY;
        }
        settle(process, entry, LEDGER_NO_LIMIT);
    }
    return answer;
}

/* What does not fit into the real share is asked for again as managed memory. */
static bool reserve(struct process *process, int device, uint64_t bytes, struct charge *charge) {
    return process_is_virtual(process, device)
               ? account_try(process, device, HAMI_KIND_POOL, bytes, charge)
               : account_reserve(process, device, HAMI_KIND_POOL, bytes, charge);
}

CUresult pool_allocate(struct process *process, const struct pool_request *request,
                       bool *accounted) {
    struct table_entry entry;
    struct charge charge;
    uint64_t missing = 0;
    CUresult answer = CUDA_ERROR_OUT_OF_MEMORY;
    pool_settle_all(process); /* other pools may have shrunk since */
    graph_memory_settle(process);
    lock_take(&process->pool_lock); /* held over the call: two threads must not count on the same
                                       idle memory */
    *accounted = missing_bytes(request, &missing);
    if (*accounted && !table_get(process->table, TABLE_POOL, key_of(request->pool), &entry)) {
        pool_remember(process, request->pool, request->device);
        *accounted = table_get(process->table, TABLE_POOL, key_of(request->pool), &entry);
        settle(process, &entry, LEDGER_NO_LIMIT);
    }
    if (*accounted && reserve(process, request->device, missing, &charge)) {
        entry.units += charge.units;
        table_put(process->table, &entry);
        answer = allocate_and_settle(process, request, &entry);
    }
    lock_drop(&process->pool_lock);
    return answer;
}
