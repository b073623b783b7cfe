/*
 * NVML's lists of processes: those of this container, each with what it is charged, so that the
 * rows add up to what the card shows as used. PIDs are the container's own, whatever the driver
 * knows.
 */
#include "dispatch.h"
#include "ledger.h"
#include "nvml_device.h"
#include "pids.h"
#include "process.h"

#include <string.h>

struct row {
    unsigned int pid;
    uint64_t bytes;
};

/* The processes that hold something of a device; at most HAMI_MAX_SLOTS. */
static unsigned int rows_of(struct process *process, int device, struct row *rows) {
    const struct hami_usage *usage = process->usage;
    bool strict = atomic_load(&process->strict_overhead) != 0;
    unsigned int count = 0;
    if (usage == NULL || device < 0) {
        return 0;
    }
    for (unsigned slot = 0; slot < HAMI_MAX_SLOTS; slot++) {
        uint64_t data = 0;
        uint64_t overhead = 0;
        if (ledger_shares(usage, slot, (unsigned)device, &data, &overhead) && data + overhead > 0) {
            uint64_t units = strict ? data + overhead : data;
            rows[count++] = (struct row){(unsigned int)usage->slots[slot].pid, units * HAMI_UNIT};
        }
    }
    return count;
}

/* All forms of a row begin alike, the oldest is the shortest. */
static nvmlReturn_t fill(struct process *process, int device, unsigned int *count, void *out,
                         size_t size) {
    struct row rows[HAMI_MAX_SLOTS];
    unsigned int room = out != NULL ? *count : 0;
    unsigned int found = 0;
    process_reap(process);
    found = rows_of(process, device, rows);
    for (unsigned int i = 0; i < found && i < room; i++) {
        nvmlProcessDetail_t row = {.pid = rows[i].pid,
                                   .used = rows[i].bytes,
                                   .gpu_instance = NVML_NO_INSTANCE,
                                   .compute_instance = NVML_NO_INSTANCE};
        memcpy((char *)out + i * size, &row, size);
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* The limits of this container and the device's index, if the driver knows the device (it is asked
 * first, with no room) and the container is limited. */
static struct process *limited(nvmlReturn_t asked, nvmlDevice_t device, int *index) {
    bool known = asked == NVML_SUCCESS || asked == NVML_ERROR_INSUFFICIENT_SIZE;
    struct process *process = known ? process_limits() : NULL;
    return process != NULL && nvml_device_index(process, device, index) ? process : NULL;
}

typedef nvmlReturn_t list_fn(nvmlDevice_t device, unsigned int *count, void *rows);

static nvmlReturn_t compute_list(list_fn *driver, nvmlDevice_t device, unsigned int *count,
                                 void *rows, size_t size) {
    unsigned int none = 0;
    int index = DEVICE_UNGRANTED;
    struct process *process =
        count != NULL ? limited(driver(device, &none, NULL), device, &index) : NULL;
    return process != NULL ? fill(process, index, count, rows, size) : driver(device, count, rows);
}

/* Every process that computes is in the other list; those that draw are not this container's
 * business to see. */
static nvmlReturn_t empty_list(list_fn *driver, nvmlDevice_t device, unsigned int *count,
                               void *rows) {
    unsigned int none = 0;
    int index = DEVICE_UNGRANTED;
    if (count == NULL || limited(driver(device, &none, NULL), device, &index) == NULL) {
        return driver(device, count, rows);
    }
    *count = 0;
    return NVML_SUCCESS;
}

#define COMPUTE_LIST(name, type)                                                                   \
    nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, type *rows) {                      \
        return compute_list((list_fn *)REAL(name), device, count, rows, sizeof(type));             \
    }
COMPUTE_LIST(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
COMPUTE_LIST(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
COMPUTE_LIST(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_v2_t)

#define EMPTY_LIST(name, type)                                                                     \
    nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, type *rows) {                      \
        return empty_list((list_fn *)REAL(name), device, count, rows);                             \
    }
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_v2_t)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_v2_t)

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device,
                                                   nvmlProcessDetailList_t *list) {
    if (list == NULL) {
        return REAL(nvmlDeviceGetRunningProcessDetailList)(device, list);
    }
    nvmlProcessDetail_t *rows = list->rows;
    unsigned int room = list->count;
    int index = DEVICE_UNGRANTED;
    nvmlReturn_t answer = REAL(nvmlDeviceGetRunningProcessDetailList)(device, list);
    struct process *process = limited(answer, device, &index);
    if (process == NULL) {
        return answer;
    }
    list->count = list->mode == NVML_PROCESS_MODE_COMPUTE ? room : 0;
    return list->mode == NVML_PROCESS_MODE_COMPUTE
               ? fill(process, index, &list->count, rows, sizeof(*rows))
               : NVML_SUCCESS;
}

/* Keeps this container's samples, in place, by the container's PIDs. */
static unsigned int keep_ours(const struct process *process, void *samples, unsigned int count,
                              const size_t layout[2]) {
    const struct pid_list list = {samples, count, layout[0], layout[1]};
    const struct hami_usage *usage = process->usage;
    unsigned int kept = 0;
    unsigned slot = 0;
    if (usage != NULL) {
        pids_learn(usage, &list);
    }
    for (unsigned int i = 0; i < count && usage != NULL; i++) {
        char *at = (char *)samples + i * layout[0];
        unsigned int pid = 0;
        memcpy(&pid, at + layout[1], sizeof(pid));
        if (pids_find(usage, pid, &slot)) {
            memcpy(at + layout[1], &usage->slots[slot].pid, sizeof(pid));
            memmove((char *)samples + kept++ * layout[0], at, layout[0]);
        }
    }
    return kept;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                             nvmlProcessUtilizationSample_t *samples,
                                             unsigned int *count, unsigned long long since) {
    static const size_t layout[2] = {sizeof(*samples),
                                     offsetof(nvmlProcessUtilizationSample_t, pid)};
    nvmlReturn_t answer = REAL(nvmlDeviceGetProcessUtilization)(device, samples, count, since);
    struct process *process = answer == NVML_SUCCESS ? process_limits() : NULL;
    if (process == NULL || samples == NULL) {
        return answer;
    }
    *count = keep_ours(process, samples, *count, layout);
    return *count > 0 ? answer : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                   nvmlProcessesUtilizationInfo_t *info) {
    static const size_t layout[2] = {sizeof(nvmlProcessUtilizationInfo_t),
                                     offsetof(nvmlProcessUtilizationInfo_t, pid)};
    nvmlReturn_t answer = REAL(nvmlDeviceGetProcessesUtilizationInfo)(device, info);
    struct process *process = answer == NVML_SUCCESS ? process_limits() : NULL;
    if (process == NULL || info->samples == NULL) {
        return answer;
    }
    info->count = keep_ours(process, info->samples, info->count, layout);
    return info->count > 0 ? answer : NVML_ERROR_NOT_FOUND;
}
