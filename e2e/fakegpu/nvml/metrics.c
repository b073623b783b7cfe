/* What a card measures: memory, load, processes, temperature, power, clocks. */
#include "nvml_int.h"

#include <string.h>
#include <time.h>

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(memory);
    uint64_t used = fg_used(&nvml_global.fg, device->card);
    *memory = (nvmlMemory_t){.total = card->total, .free = card->total - used, .used = used};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(memory);
    if (memory->version != NVML_VERSIONED(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    uint64_t used = fg_used(&nvml_global.fg, device->card);
    memory->total = card->total;
    memory->reserved = 0;
    memory->used = used;
    memory->free = card->total - used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(memory);
    *memory = (nvmlMemory_t){.total = card->total, .free = card->total};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(rates);
    unsigned busy = fg_busy_percent(&nvml_global.fg, device->card);
    *rates = (nvmlUtilization_t){.gpu = busy, .memory = busy / 2};
    return NVML_SUCCESS;
}

/* Takes the next slot with a context or memory on the card whose process this reader can see. */
static int next_process(int card, int slot, pid_t *pid) {
    for (; slot < (int)atomic_load(&nvml_global.fg.st->slots_high); slot++) {
        const struct fg_share *share = &nvml_global.fg.st->slots[slot].share[card];
        bool uses = atomic_load(&share->contexts) > 0 || fg_share_bytes(share) > 0;
        if (uses && fg_slot_alive(&nvml_global.fg, slot, pid) && *pid > 0)
            return slot;
    }
    return -1;
}

/* Fills entries of `size` bytes that begin with PID and used memory (v1: 16, v2 and v3: 24). */
static nvmlReturn_t list_processes(nvmlDevice_t device, unsigned *count, void *out, size_t size) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    unsigned room = out == NULL ? 0 : *count, n = 0;
    pid_t pid;
    for (int slot = 0; (slot = next_process(device->card, slot, &pid)) >= 0; slot++, n++) {
        const struct fg_share *share = &nvml_global.fg.st->slots[slot].share[device->card];
        nvmlProcessInfo_v2_t info = {.pid = (uint32_t)pid,
                                     .usedGpuMemory = fg_share_bytes(share),
                                     .gpuInstanceId = NVML_NO_INSTANCE,
                                     .computeInstanceId = NVML_NO_INSTANCE};
        if (n < room)
            memcpy((char *)out + n * size, &info, size);
    }
    (void)card;
    *count = n;
    return n > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *count,
                                                  nvmlProcessInfo_v1_t *infos) {
    return list_processes(device, count, infos, sizeof *infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_v2_t *infos) {
    return list_processes(device, count, infos, sizeof *infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_v2_t *infos) {
    return list_processes(device, count, infos, sizeof *infos);
}

/* Nobody draws and nobody uses MPS on a fake card. */
static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned *count) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    (void)card;
    *count = 0;
    return NVML_SUCCESS;
}

#define EMPTY_LIST(name)                                                                           \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *count, void *infos);                          \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *count, void *infos) {                         \
        (void)infos;                                                                               \
        return no_processes(device, count);                                                        \
    }

EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses)
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses_v2)
EMPTY_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2)
EMPTY_LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3)

/* One sample per living process that launched in the last two seconds, newer than `last_seen_us`.
 */
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                             nvmlProcessUtilizationSample_t *samples,
                                             unsigned *count, uint64_t last_seen_us) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t now_us = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
    unsigned room = samples == NULL ? 0 : *count, n = 0;
    pid_t pid;
    for (int slot = 0; (slot = next_process(device->card, slot, &pid)) >= 0; slot++) {
        const struct fg_share *share = &nvml_global.fg.st->slots[slot].share[device->card];
        unsigned percent = fg_share_percent(share);
        if (percent == 0 || now_us <= last_seen_us)
            continue;
        if (n < room)
            samples[n] = (nvmlProcessUtilizationSample_t){.pid = (uint32_t)pid,
                                                          .timeStamp = now_us,
                                                          .smUtil = percent,
                                                          .memUtil = percent / 2};
        n++;
    }
    (void)card;
    *count = n;
    if (n == 0)
        return NVML_ERROR_NOT_FOUND;
    return n > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(celsius);
    (void)card;
    if (sensor != 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    *celsius = 30 + fg_busy_percent(&nvml_global.fg, device->card) / 3;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatt) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(milliwatt);
    unsigned busy = fg_busy_percent(&nvml_global.fg, device->card);
    *milliwatt = card->power_limit_mw / 8 + card->power_limit_mw / 8 * 7 / 100 * busy;
    return NVML_SUCCESS;
}

static nvmlReturn_t power_limit(nvmlDevice_t device, unsigned *milliwatt) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(milliwatt);
    *milliwatt = card->power_limit_mw;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatt) {
    return power_limit(device, milliwatt);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *milliwatt) {
    return power_limit(device, milliwatt);
}

/* Clock types: graphics 0, SM 1, memory 2, video 3. */
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, int type, unsigned *mhz) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(mhz);
    (void)card;
    if (type < 0 || type > 3)
        return NVML_ERROR_INVALID_ARGUMENT;
    *mhz = type == 2 ? 1215 : 1410;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, int type, unsigned *mhz) {
    return nvmlDeviceGetClockInfo(device, type, mhz);
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, int *state) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(state);
    (void)card;
    *state = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned *percent) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(percent);
    (void)card;
    return NVML_ERROR_NOT_SUPPORTED; /* passively cooled, as data-centre cards are */
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(values);
    (void)card;
    for (int i = 0; i < count; i++)
        values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}
