/* This process's part in the container: its limits, its slot in the usage file, its table of
 * allocations. */
#ifndef HAMI_PROCESS_H
#define HAMI_PROCESS_H

#include "cuda_abi.h"
#include "hami_region.h"
#include "lock.h"
#include "table.h"

#include <stdbool.h>

#define MAX_ORDINALS 64 /* devices that a process can see, granted or not */

enum limits_source {
    LIMITS_NONE,    /* neither control file nor variables: the container is not limited */
    LIMITS_CONTROL, /* the host's control file */
    LIMITS_ENV,     /* HAMi's variables */
    LIMITS_BROKEN,  /* a control file that cannot be read: nothing may be allocated */
};

/* All of it lies in pages that the kernel zeroes in a forked child, which so starts afresh and with
 * every lock free. */
struct process {
    _Atomic uint32_t limits_ready;
    _Atomic uint32_t slot_ready;
    hami_lock setup_lock;
    hami_lock ledger_lock; /* one change at a time for our slot */
    hami_lock pool_lock;
    hami_lock graph_lock; /* before the ledger's; never together with the pools' */
    enum limits_source source;
    const struct hami_control *control;
    struct hami_control_body body; /* under setup_lock once limits_ready */
    _Atomic uint32_t generation;
    _Atomic uint64_t limit_units[HAMI_MAX_DEVICES];
    _Atomic uint64_t real_units[HAMI_MAX_DEVICES]; /* LEDGER_NO_LIMIT: the limit is all real */
    _Atomic uint32_t strict_overhead;
    _Atomic uint32_t core_percent[HAMI_MAX_DEVICES]; /* in force now; 0: no limit */
    _Atomic uint64_t held_until_ns; /* suspended or blocked: no launch until then; 0: not held */
    struct hami_usage *usage;       /* the shared file, or our own memory if that cannot be used */
    bool usage_shared;
    int usage_fd;
    unsigned slot;
    struct table *table;
    _Atomic uint64_t reaped_at_s;
    _Atomic uint32_t has_pools; /* some memory pool may hold memory for us */
    /* Grows when the driver was told to trim; 0: no graph of ours allocates memory. */
    _Atomic uint32_t graph_epoch;
    uint64_t graph_units[MAX_ORDINALS]; /* charged for graphs, by CUDA ordinal; under graph_lock */
    hami_lock overhead_lock;
    _Atomic uint32_t overhead_stale; /* modules have come or gone since it was noted */
    _Atomic uint64_t overhead_noted_ns;
    _Atomic uint64_t host_seen;             /* our slot's `host` when it was looked at last */
    nvmlDevice_t nvml_device[MAX_ORDINALS]; /* under overhead_lock */
    struct {
        _Atomic uint64_t epoch; /* of the usage region, and one; 0: never looked */
        _Atomic uint64_t units;
    } overhead[HAMI_MAX_DEVICES]; /* of the whole container, as last summed up */
    _Atomic(CUcontext)
        primary[MAX_ORDINALS]; /* primary contexts that were retained, by CUDA ordinal */
    _Atomic int8_t index_of[MAX_ORDINALS]; /* device index + 2 by CUDA ordinal; 0: not yet known */
};

enum { DEVICE_UNGRANTED = -1 };

/* The limits in force, read again when the host has changed them. NULL: this container is not
 * limited. */
struct process *process_limits(void);

/* The same, with a slot and a table to account in. NULL: not limited, or no memory (then *refuse is
 * set). */
struct process *process_account(bool *refuse);

/* The index of a device in control and usage file; DEVICE_UNGRANTED for one that is not in the
 * grant. */
int process_device(struct process *process, CUdevice ordinal);
int process_device_by_uuid(struct process *process, const char *uuid);

/* The limit in units now in force on a device. */
uint64_t process_limit(struct process *process, int device);

/* The same for memory of one kind: what cannot spill to the host must fit into the real share. */
uint64_t process_limit_of(struct process *process, int device, enum hami_kind kind);

/* Whether memory of a device may spill to the host. */
bool process_is_virtual(struct process *process, int device);

/* What contexts and modules of the whole container take on a device, in units. */
uint64_t process_overhead(struct process *process, int device);

/* Says to the monitor that the GPU has just been used. */
void process_note_activity(struct process *process);

/* The control file's epoch, to be read before the limits are: a wait from it misses no change. */
uint32_t process_epoch(const struct process *process);

/* Sleeps until the control file changes from `epoch`, or CLOCK_MONOTONIC reaches `until_ns`. */
void process_wait_control(const struct process *process, uint32_t epoch, uint64_t until_ns);

/* Clears up after processes that are dead. True if there was one. */
bool process_reap(struct process *process);

/* The same, at most once a second: for who only looks. */
void process_reap_now_and_then(struct process *process);

void process_count_unknown_symbol(void);

#endif
