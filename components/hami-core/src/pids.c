#include "pids.h"

#include <stdatomic.h>
#include <string.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))

static _Atomic uint32_t by_host; /* NVML speaks of host PIDs; a driver never changes its mind */

/* 0: not known, or of a process that had the slot before. */
static uint32_t host_pid(const struct hami_usage_slot *slot) {
    struct hami_usage_slot *shared = (struct hami_usage_slot *)slot;
    uint64_t word = atomic_load_explicit(SHARED(shared->host), memory_order_relaxed);
    return (uint32_t)word == (uint32_t)slot->start_time ? (uint32_t)(word >> 32) : 0;
}

static bool find(const struct hami_usage *usage, unsigned int pid, bool of_host, unsigned *slot) {
    for (unsigned index = 0; index < HAMI_MAX_SLOTS && pid != 0; index++) {
        const struct hami_usage_slot *one = &usage->slots[index];
        if (one->state == HAMI_SLOT_LIVE &&
            (of_host ? host_pid(one) : (unsigned int)one->pid) == pid) {
            *slot = index;
            return true;
        }
    }
    return false;
}

void pids_learn(const struct hami_usage *usage, const struct pid_list *list) {
    unsigned slot = 0;
    for (unsigned int i = 0; i < list->count && atomic_load(&by_host) == 0; i++) {
        unsigned int pid = 0;
        memcpy(&pid, (const char *)list->entries + i * list->size + list->at, sizeof(pid));
        if (find(usage, pid, true, &slot) && (unsigned int)usage->slots[slot].pid != pid) {
            atomic_store(&by_host, 1);
        }
    }
}

bool pids_find(const struct hami_usage *usage, unsigned int pid, unsigned *slot) {
    return find(usage, pid, atomic_load(&by_host) != 0, slot);
}
