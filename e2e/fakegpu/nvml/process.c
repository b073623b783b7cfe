/* Which processes use a card, and how much of it. */
#include "nvml_int.h"

#include <string.h>
#include <time.h>

/* Takes the next slot with a context or memory on the unit whose process this reader can see; of a
 * MIG device those on its compute instance. */
static int next_process(int unit, int compute, int slot, pid_t *pid) {
    for (; slot < (int)atomic_load(&nvml_global.fg.st->slots_high); slot++) {
        const struct fg_share *share = &nvml_global.fg.st->slots[slot].share[unit];
        bool uses = atomic_load(&share->contexts) > 0 || fg_share_bytes(share) > 0;
        if (compute >= 0)
            uses = uses && atomic_load(&share->compute) == (uint64_t)compute + 1;
        if (uses && fg_slot_alive(&nvml_global.fg, slot, pid) && *pid > 0) {
            *pid += (pid_t)nvml_global.fg.st->modes.pid_offset;
            return slot;
        }
    }
    return -1;
}

struct listing {
    char *out;
    size_t size; /* of an entry: all forms begin alike (16 bytes, 24 from v2 on, 32 details) */
    unsigned room, n;
};

static void list_unit(struct listing *list, int unit, int compute) {
    const struct fg_state *st = nvml_global.fg.st;
    pid_t pid;
    for (int slot = 0; (slot = next_process(unit, compute, slot, &pid)) >= 0; slot++) {
        const struct fg_share *share = &st->slots[slot].share[unit];
        bool mig = unit >= FG_CARDS;
        nvmlProcessDetail_t info = {
            .pid = (uint32_t)pid,
            .usedGpuMemory = fg_share_bytes(share),
            .gpuInstanceId = mig ? st->cards[unit].instance.id : NVML_NO_INSTANCE,
            .computeInstanceId =
                mig ? (uint32_t)atomic_load(&share->compute) - 1 : NVML_NO_INSTANCE};
        if (list->n < list->room)
            memcpy(list->out + list->n * list->size, &info, list->size);
        list->n++;
    }
}

/* A card in MIG mode lists the processes of all its instances. */
static nvmlReturn_t list_processes(nvmlDevice_t device, unsigned *count, void *out, size_t size) {
    NULL_RETURNS_INVALID(count);
    struct listing list = {.out = out, .size = size, .room = out == NULL ? 0 : *count};
    list_unit(&list, device->unit, device->compute);
    for (int i = 0; device->compute < 0 && device->card < FG_MIG_CARDS && i < FG_MIG_MOST; i++)
        if (atomic_load(&nvml_global.fg.st->cards[fg_unit(device->card, i)].instance.live))
            list_unit(&list, fg_unit(device->card, i), -1);
    *count = list.n;
    return list.n > list.room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *count,
                                                  nvmlProcessInfo_v1_t *infos) {
    ANY_OR_RETURN(device);
    (void)card;
    return list_processes(device, count, infos, sizeof *infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_v2_t *infos) {
    ANY_OR_RETURN(device);
    (void)card;
    return list_processes(device, count, infos, sizeof *infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_v2_t *infos) {
    ANY_OR_RETURN(device);
    (void)card;
    return list_processes(device, count, infos, sizeof *infos);
}

/* Nobody draws and nobody uses MPS on a fake card. */
#define EMPTY_LIST(name)                                                                           \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *count, void *infos);                          \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *count, void *infos) {                         \
        ANY_OR_RETURN(device);                                                                     \
        NULL_RETURNS_INVALID(count);                                                               \
        (void)infos, (void)card;                                                                   \
        *count = 0;                                                                                \
        return NVML_SUCCESS;                                                                       \
    }

EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses)
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses_v2)
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3)

/* The newer form of the same list: version, mode 0 (compute), room, entries. */
nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device,
                                                   nvmlProcessDetailList_t *list) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(list);
    (void)card;
    if (list->version != NVML_VERSIONED(nvmlProcessDetailList_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (list->mode != 0) {
        list->numProcArrayEntries = 0;
        return NVML_SUCCESS;
    }
    return list_processes(device, &list->numProcArrayEntries, list->procArray,
                          sizeof *list->procArray);
}

static uint64_t now_us(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* One sample per living process that launched in the last two seconds, newer than `since_us`. */
static unsigned sample_processes(int card, uint64_t since_us, unsigned room,
                                 nvmlProcessUtilizationSample_t *samples) {
    uint64_t now = now_us();
    unsigned n = 0;
    pid_t pid;
    for (int slot = 0; (slot = next_process(card, -1, slot, &pid)) >= 0; slot++) {
        unsigned percent = fg_share_percent(&nvml_global.fg.st->slots[slot].share[card]);
        if (percent == 0 || now <= since_us)
            continue;
        if (n < room)
            samples[n] = (nvmlProcessUtilizationSample_t){
                .pid = (uint32_t)pid, .timeStamp = now, .smUtil = percent, .memUtil = percent / 2};
        n++;
    }
    return n;
}

static nvmlReturn_t count_result(unsigned n, unsigned room) {
    if (n == 0)
        return NVML_ERROR_NOT_FOUND;
    return n > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                             nvmlProcessUtilizationSample_t *samples,
                                             unsigned *count, uint64_t last_seen_us) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    if (atomic_load(&card->mig_current))
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned room = samples == NULL ? 0 : *count;
    *count = sample_processes(device->card, last_seen_us, room, samples);
    return count_result(*count, room);
}

nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                   nvmlProcessesUtilizationInfo_t *info) {
    nvmlProcessUtilizationSample_t samples[FG_SLOTS];
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(info);
    (void)card;
    if (info->version != NVML_VERSIONED(nvmlProcessesUtilizationInfo_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    unsigned room = info->procUtilArray == NULL ? 0 : info->processSamplesCount;
    unsigned n = sample_processes(device->card, info->lastSeenTimeStamp, FG_SLOTS, samples);
    for (unsigned i = 0; i < n && i < room; i++)
        info->procUtilArray[i] = (nvmlProcessUtilizationInfo_t){.timeStamp = samples[i].timeStamp,
                                                                .pid = samples[i].pid,
                                                                .smUtil = samples[i].smUtil,
                                                                .memUtil = samples[i].memUtil};
    info->processSamplesCount = n;
    return count_result(n, room);
}
