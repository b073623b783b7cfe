#include "account.h"

#include "driver.h"
#include "graph_memory.h"
#include "ledger.h"
#include "log.h"
#include "overhead.h"
#include "pool.h"

#include <string.h>

bool account_current_device(struct process *process, int *device) {
    CUdevice ordinal = 0;
    if (driver_current_device(&ordinal) != CUDA_SUCCESS) {
        return false;
    }
    *device = process_device(process, ordinal);
    return true;
}

bool account_apply(struct process *process, unsigned device, enum hami_kind kind, int64_t units,
                   uint64_t limit) {
    struct ledger_change change = {device, kind, units, limit};
    lock_take(&process->ledger_lock);
    bool done = ledger_apply(process->usage, process->slot, &change);
    process_note_activity(process);
    lock_drop(&process->ledger_lock);
    return done;
}

void account_release(struct process *process, unsigned device, enum hami_kind kind,
                     uint64_t units) {
    account_apply(process, device, kind, -(int64_t)units, LEDGER_NO_LIMIT);
}

void account_count_refusal(struct process *process, int device, uint64_t bytes) {
    if (device < 0) {
        return;
    }
    __atomic_fetch_add(&process->usage->devices[device].refused, 1, __ATOMIC_RELAXED);
    log_line(LOG_WARNING, "device %d: %llu bytes refused, %llu of %llu bytes are in use", device,
             (unsigned long long)bytes,
             (unsigned long long)ledger_used(process->usage, (unsigned)device) * HAMI_UNIT,
             (unsigned long long)process_limit(process, device) * HAMI_UNIT);
}

bool account_try(struct process *process, int device, enum hami_kind kind, uint64_t bytes,
                 struct charge *charge) {
    if (device < 0) {
        return false;
    }
    *charge = (struct charge){process, (unsigned)device, kind, ledger_units(bytes), false};
    int64_t units = (int64_t)charge->units;
    if (account_apply(process, charge->device, kind, units,
                      process_limit_of(process, device, kind))) {
        return true;
    }
    if (charge->units > atomic_load(&process->limit_units[device])) {
        return false; /* nothing can help */
    }
    if (kind != HAMI_KIND_POOL) {
        pool_settle_all(process); /* who allocates from a pool has done both already */
        graph_memory_settle(process);
    }
    overhead_catch_up(process);
    process_reap(process);
    return account_apply(process, charge->device, kind, units,
                         process_limit_of(process, device, kind));
}

bool account_reserve(struct process *process, int device, enum hami_kind kind, uint64_t bytes,
                     struct charge *charge) {
    bool done = account_try(process, device, kind, bytes, charge);
    if (!done) {
        account_count_refusal(process, device, bytes);
    }
    return done;
}

bool account_reserve_here(enum hami_kind kind, uint64_t bytes, struct charge *charge) {
    bool refuse = false;
    int device = 0;
    struct process *process = process_account(&refuse);
    *charge = (struct charge){NULL, 0, kind, 0, false};
    if (process == NULL) {
        return !refuse;
    }
    if (!account_current_device(process, &device)) {
        return true;
    }
    /* What can spill is asked for again by who can do it. */
    return kind == HAMI_KIND_BUFFER && process_is_virtual(process, device)
               ? account_try(process, device, kind, bytes, charge)
               : account_reserve(process, device, kind, bytes, charge);
}

CUresult account_keep(const struct charge *charge, CUresult answer, enum table_tag tag,
                      uint64_t key) {
    if (charge->process == NULL) {
        return answer;
    }
    if (answer != CUDA_SUCCESS) {
        account_release(charge->process, charge->device, charge->kind, charge->units);
        return answer;
    }
    struct table_entry entry = {.key = key,
                                .units = charge->units,
                                .refs = 1,
                                .tag = (uint8_t)tag,
                                .device = (uint8_t)charge->device,
                                .kind = (uint8_t)charge->kind,
                                .spilled = charge->spilled};
    if (tag == TABLE_POINTER || tag == TABLE_ARRAY) {
        entry.owner = (uint64_t)(uintptr_t)driver_current_context();
    }
    if (!table_put(charge->process->table, &entry)) {
        log_line(LOG_ERROR,
                 "no memory to remember an allocation: it stays charged until this process ends");
    }
    return answer;
}

void account_adjust(struct charge *charge, uint64_t bytes) {
    uint64_t units = ledger_units(bytes);
    if (charge->process != NULL && units != charge->units) {
        account_apply(charge->process, charge->device, charge->kind,
                      (int64_t)units - (int64_t)charge->units, LEDGER_NO_LIMIT);
        charge->units = units;
    }
}

CUresult account_free(enum table_tag tag, uint64_t key, CUresult (*call)(void *), void *argument) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    struct table_entry entry;
    /* Out of the table first: once the driver has freed it, another thread may be given the same
     * address. */
    bool ours = process != NULL && table_take(process->table, tag, key, &entry);
    CUresult answer = call(argument);
    if (!ours) {
        return answer;
    }
    if (answer == CUDA_SUCCESS) {
        account_release(process, entry.device, (enum hami_kind)entry.kind, entry.units);
    } else {
        table_put(process->table, &entry);
    }
    return answer;
}

struct forgotten {
    uint64_t context;
    uint64_t units[HAMI_MAX_DEVICES][HAMI_KINDS];
};

static bool owned_by(const struct table_entry *entry, void *argument) {
    struct forgotten *sum = argument;
    bool owned =
        (entry->tag == TABLE_POINTER || entry->tag == TABLE_ARRAY) && entry->owner == sum->context;
    if (owned) {
        sum->units[entry->device][entry->kind] += entry->units;
    }
    return owned;
}

void account_forget_context(CUcontext context) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    struct forgotten sum;
    if (process == NULL || context == NULL) {
        return;
    }
    memset(&sum, 0, sizeof(sum));
    sum.context = (uint64_t)(uintptr_t)context;
    table_sweep(process->table, owned_by, &sum);
    for (unsigned device = 0; device < HAMI_MAX_DEVICES; device++) {
        for (unsigned kind = 0; kind < HAMI_KINDS; kind++) {
            if (sum.units[device][kind] != 0) {
                account_release(process, device, (enum hami_kind)kind, sum.units[device][kind]);
            }
        }
    }
}
