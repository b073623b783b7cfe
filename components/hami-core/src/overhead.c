#include "overhead.h"

#include "device.h"
#include "dispatch.h"
#include "ledger.h"
#include "log.h"

#include <stdlib.h>
#include <unistd.h>

#define MOST_PROCESSES 1024

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

/* Older drivers list host PIDs, where ours is not to be found or is somebody else's: a process with
   none of our PID is an unknown, not a zero. */
static bool own_bytes_of(nvmlDevice_t device, uint64_t *bytes) {
    unsigned int count = MOST_PROCESSES;
    processes_fn *call = find_processes_call();
    struct process_info *processes = malloc(sizeof(*processes) * MOST_PROCESSES);
    bool found = false;
    if (call != NULL && processes != NULL && call(device, &count, processes) == NVML_SUCCESS) {
        for (unsigned int i = 0; i < count && i < MOST_PROCESSES; i++) {
            if (processes[i].pid == (unsigned int)getpid() && processes[i].used != not_available) {
                *bytes = processes[i].used;
                found = true;
            }
        }
    }
    free(processes);
    return found;
}

static bool own_bytes(CUdevice ordinal, uint64_t *bytes) {
    char uuid[2][HAMI_UUID_SIZE];
    nvmlDevice_t device = NULL;
    simple_fn *init = (simple_fn *)dispatch_driver(LIBRARY_NVML, "nvmlInit_v2");
    simple_fn *shut = (simple_fn *)dispatch_driver(LIBRARY_NVML, "nvmlShutdown");
    by_uuid_fn *by_uuid = (by_uuid_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetHandleByUUID");
    if (init == NULL || shut == NULL || by_uuid == NULL || device_uuids(ordinal, uuid) == 0 ||
        init() != NVML_SUCCESS) {
        return false;
    }
    bool found = by_uuid(uuid[0], &device) == NVML_SUCCESS && own_bytes_of(device, bytes);
    shut();
    return found;
}

/* What this process has charged on a device itself. */
static uint64_t tracked_units(const struct process *process, unsigned device) {
    const uint64_t *shares = process->usage->slots[process->slot].share_units[device];
    uint64_t sum = 0;
    for (unsigned kind = 0; kind < HAMI_KIND_CONTEXT; kind++) {
        sum += shares[kind];
    }
    return sum;
}

void overhead_note(struct process *process, CUdevice ordinal) {
    uint64_t bytes = 0;
    int device = process_device(process, ordinal);
    if (device < 0 || !own_bytes(ordinal, &bytes)) {
        return;
    }
    uint64_t tracked = tracked_units(process, (unsigned)device);
    uint64_t held = bytes / HAMI_UNIT;
    uint64_t overhead = held > tracked ? held - tracked : 0;
    ledger_note_overhead(process->usage, process->slot, (unsigned)device, HAMI_KIND_CONTEXT,
                         overhead);
    log_line(LOG_INFO, "device %d: contexts take %llu bytes", device,
             (unsigned long long)overhead * HAMI_UNIT);
}
