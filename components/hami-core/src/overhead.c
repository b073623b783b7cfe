#include "overhead.h"

#include "device.h"
#include "dispatch.h"
#include "ledger.h"
#include "log.h"
#include "pids.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#define MOST_PROCESSES 1024
#define PAUSE_NS UINT64_C(250000000) /* NVML is asked about modules this often at most */

/* nvmlProcessInfo_t of the second and third version of the call. */
struct process_info {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
};

static const unsigned long long not_available = ~0ull;

typedef nvmlReturn_t simple_fn(void);
typedef nvmlReturn_t by_uuid_fn(const char *uuid, nvmlDevice_t *device);
typedef nvmlReturn_t processes_fn(nvmlDevice_t device, unsigned int *count,
                                  struct process_info *processes);

static processes_fn *find_processes_call(void) {
    processes_fn *call =
        (processes_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetComputeRunningProcesses_v3");
    return call != NULL ? call
                        : (processes_fn *)dispatch_driver(
                              LIBRARY_NVML, "nvmlDeviceGetComputeRunningProcesses_v2");
}

/* A process that NVML does not list, or not by a PID that we know, is an unknown, not a zero; one
   that was there before has nothing left. */
static bool own_bytes_of(const struct process *process, nvmlDevice_t device, bool was_found,
                         uint64_t *bytes) {
    unsigned int count = MOST_PROCESSES;
    processes_fn *call = find_processes_call();
    struct process_info *processes = malloc(sizeof(*processes) * MOST_PROCESSES);
    bool found = false;
    unsigned slot = 0;
    *bytes = 0;
    if (call != NULL && processes != NULL && call(device, &count, processes) == NVML_SUCCESS) {
        const struct pid_list list = {processes, count < MOST_PROCESSES ? count : MOST_PROCESSES,
                                      sizeof(*processes), offsetof(struct process_info, pid)};
        pids_learn(process->usage, &list);
        for (unsigned int i = 0; i < list.count; i++) {
            bool ours = pids_find(process->usage, processes[i].pid, &slot) && slot == process->slot;
            if (ours && processes[i].used != not_available) {
                *bytes = processes[i].used;
                found = true;
            }
        }
        found = found || was_found;
    }
    free(processes);
    return found;
}

/* NVML stays open: to open it takes milliseconds. */
static nvmlDevice_t find_device(struct process *process, CUdevice ordinal) {
    char uuid[2][HAMI_UUID_SIZE];
    simple_fn *init = (simple_fn *)dispatch_driver(LIBRARY_NVML, "nvmlInit_v2");
    by_uuid_fn *by_uuid = (by_uuid_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetHandleByUUID");
    nvmlDevice_t *device = &process->nvml_device[ordinal];
    if (*device == NULL && init != NULL && by_uuid != NULL && device_uuids(ordinal, uuid) != 0 &&
        init() == NVML_SUCCESS && by_uuid(uuid[0], device) != NVML_SUCCESS) {
        *device = NULL;
    }
    return *device;
}

/* What is held beyond what was asked for. Nobody knows how much of the managed memory is on the
 * device just now, so as long as it can be true the last figure stays. */
static uint64_t overhead_of(const struct process *process, unsigned device, uint64_t held) {
    uint64_t data = 0;
    uint64_t before = 0;
    ledger_shares(process->usage, process->slot, device, &data, &before);
    uint64_t managed = process->usage->slots[process->slot].share_units[device][HAMI_KIND_MANAGED];
    uint64_t least = held > data ? held - data : 0;
    uint64_t most = held > data - managed ? held - (data - managed) : 0;
    return before < least ? least : before > most ? most : before;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Under overhead_lock. What a context took when it came is its own; what came later are modules and
 * whatever else the driver needed. */
static void note(struct process *process, CUdevice ordinal, enum overhead_cause cause) {
    uint64_t bytes = 0;
    int device = process_device(process, ordinal);
    nvmlDevice_t handle = device >= 0 ? find_device(process, ordinal) : NULL;
    if (handle == NULL) {
        return;
    }
    const uint64_t *shares = process->usage->slots[process->slot].share_units[device];
    bool was_found = shares[HAMI_KIND_CONTEXT] + shares[HAMI_KIND_MODULE] > 0;
    if (!own_bytes_of(process, handle, was_found, &bytes)) {
        return;
    }
    uint64_t context = shares[HAMI_KIND_CONTEXT];
    uint64_t overhead = overhead_of(process, (unsigned)device, bytes / HAMI_UNIT);
    if (cause == OVERHEAD_CONTEXTS || !was_found) {
        uint64_t modules = shares[HAMI_KIND_MODULE];
        context = overhead > modules ? overhead - modules : 0;
    }
    context = context < overhead ? context : overhead;
    ledger_note_overhead(process->usage, process->slot, (unsigned)device, HAMI_KIND_CONTEXT,
                         context);
    ledger_note_overhead(process->usage, process->slot, (unsigned)device, HAMI_KIND_MODULE,
                         overhead - context);
    log_line(LOG_INFO, "device %d: contexts take %llu bytes, modules %llu", device,
             (unsigned long long)context * HAMI_UNIT,
             (unsigned long long)(overhead - context) * HAMI_UNIT);
}

void overhead_note(struct process *process, CUdevice ordinal, enum overhead_cause cause) {
    if (ordinal < 0 || ordinal >= MAX_ORDINALS) {
        return;
    }
    lock_take(&process->overhead_lock);
    note(process, ordinal, cause);
    lock_drop(&process->overhead_lock);
}

void overhead_modules_changed(void) {
    bool refuse = false;
    struct process *process = process_account(&refuse);
    if (process != NULL) {
        atomic_store(&process->overhead_stale, 1);
        overhead_catch_up(process);
    }
}

/* Who the monitor has told its PID on the host may find itself in NVML's list now. */
static void look_at_host_pid(struct process *process) {
    struct hami_usage_slot *slot = &process->usage->slots[process->slot];
    uint64_t host = atomic_load_explicit((_Atomic uint64_t *)&slot->host, memory_order_relaxed);
    if (host != atomic_load_explicit(&process->host_seen, memory_order_relaxed)) {
        atomic_store(&process->host_seen, host);
        atomic_store(&process->overhead_stale, 1);
    }
}

void overhead_catch_up(struct process *process) {
    look_at_host_pid(process);
    if (atomic_load_explicit(&process->overhead_stale, memory_order_relaxed) == 0) {
        return;
    }
    uint64_t last = atomic_load(&process->overhead_noted_ns);
    uint64_t now = now_ns();
    if (now - last < PAUSE_NS ||
        !atomic_compare_exchange_strong(&process->overhead_noted_ns, &last, now)) {
        return;
    }
    atomic_store(&process->overhead_stale, 0);
    for (CUdevice ordinal = 0; ordinal < MAX_ORDINALS; ordinal++) {
        if (process->nvml_device[ordinal] != NULL) {
            overhead_note(process, ordinal, OVERHEAD_MODULES);
        }
    }
}
