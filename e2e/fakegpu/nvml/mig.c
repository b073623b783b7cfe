/* MIG mode of cards, and the MIG devices on them. */
#include "nvml_int.h"

#include <string.h>

nvmlDevice_t nvml_card_handle(int card) {
    for (int i = 0; i < nvml_global.count; i++)
        if (nvml_global.devices[i].card == card)
            return &nvml_global.devices[i];
    return NULL;
}

/* Handles are places in a table: after a change the same handle may name another instance. */
nvmlDevice_t nvml_mig_handle(int unit, int compute) {
    struct nvmlDevice_st *device = &nvml_global.migs[unit - FG_CARDS][compute];
    nvmlDevice_t parent = nvml_card_handle(fg_parent(unit));
    *device = (struct nvmlDevice_st){
        .card = fg_parent(unit), .index = parent->index, .unit = unit, .compute = compute};
    return device;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(current);
    NULL_RETURNS_INVALID(pending);
    if (!card->mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    *current = atomic_load(&card->mig_current);
    *pending = atomic_load(&card->mig_pending);
    return NVML_SUCCESS;
}

/* The call succeeds where the wish was taken down; whether it is in force is another code. */
nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned mode, nvmlReturn_t *activation) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(activation);
    if (mode > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!card->mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    nvmlReturn_t rc = nvml_begin_change();
    if (rc == NVML_SUCCESS)
        *activation = nvml_end_change(fg_mig_set_mode(nvml_writer(), device->card, mode == 1));
    return rc;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    unsigned most = card->mig_slices < FG_MIG_MOST ? card->mig_slices : FG_MIG_MOST;
    *count = atomic_load(&card->mig_current) ? most : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_mig) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(is_mig);
    (void)card;
    *is_mig = device->compute >= 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                 nvmlDevice_t *mig) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(mig);
    int unit, compute;
    if (!card->mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    if (index >= FG_MIG_MOST)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (fg_mig_nth(&nvml_global.fg, device->card, (int)index, &unit, &compute) != 0)
        return NVML_ERROR_NOT_FOUND;
    *mig = nvml_mig_handle(unit, compute);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    ANY_OR_RETURN(mig);
    NULL_RETURNS_INVALID(device);
    (void)card;
    if (mig->compute < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = nvml_card_handle(mig->card);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(id);
    if (device->compute < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *id = card->instance.id;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(id);
    (void)card;
    if (device->compute < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *id = (unsigned)device->compute;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(attributes);
    *attributes = (nvmlDeviceAttributes_t){.multiprocessorCount = card->sm_count,
                                           .memorySizeMB = card->total / FG_MIB};
    if (device->compute >= 0) {
        uint32_t slices = fg_mig_profile(&nvml_global.fg, device->unit)->slices;
        attributes->multiprocessorCount =
            fg_mig_sms(&nvml_global.fg, device->unit, device->compute);
        attributes->sharedCopyEngineCount = slices;
        attributes->gpuInstanceSliceCount = slices;
        attributes->computeInstanceSliceCount = card->instance.computes[device->compute].slices;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes) {
    return nvmlDeviceGetAttributes_v2(device, attributes);
}
