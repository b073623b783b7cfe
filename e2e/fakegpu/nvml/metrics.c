/* What a card measures: memory, load, temperature, power, clocks. */
#include "nvml_int.h"

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(memory);
    uint64_t used = fg_used(&nvml_global.fg, device->unit);
    *memory = (nvmlMemory_t){.total = card->total, .free = card->total - used, .used = used};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(memory);
    if (memory->version != NVML_VERSIONED(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    uint64_t used = fg_used(&nvml_global.fg, device->unit);
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
    if (atomic_load(&card->mig_current))
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned busy = fg_busy_percent(&nvml_global.fg, device->card);
    *rates = (nvmlUtilization_t){.gpu = busy, .memory = busy / 2};
    return NVML_SUCCESS;
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

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatt) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(milliwatt);
    *milliwatt = card->power_limit_mw;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *milliwatt) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(milliwatt);
    *milliwatt = card->power_limit_mw;
    return NVML_SUCCESS;
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

#define RECOVERY_ACTION 230
#define TYPE_UNSIGNED_INT 1

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(values);
    for (int i = 0; i < count; i++) {
        values[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
        if (values[i].fieldId != RECOVERY_ACTION)
            continue;
        values[i].nvmlReturn = NVML_SUCCESS;
        values[i].valueType = TYPE_UNSIGNED_INT;
        values[i].value = atomic_load(&card->repair);
    }
    return NVML_SUCCESS;
}
