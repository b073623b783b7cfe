/* GPU instances: which a card can be cut into, which there are, and cutting. */
#include "nvml_int.h"

#include <stdio.h>

static const struct fg_profile *by_number(const struct fg_card *card, unsigned number) {
    for (uint32_t i = 0; i < card->nprofiles; i++)
        if (card->profiles[i].number == number)
            return &card->profiles[i];
    return NULL;
}

/* The index of a profile id among the card's, or -1. */
static int by_id(const struct fg_card *card, unsigned id) {
    for (uint32_t i = 0; i < card->nprofiles; i++)
        if (card->profiles[i].id == id)
            return (int)i;
    return -1;
}

static nvmlReturn_t tell_profile(const struct fg_profile *p,
                                 nvmlGpuInstanceProfileInfo_v2_t *info) {
    if (info->version != NVML_VERSIONED(nvmlGpuInstanceProfileInfo_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    *info = (nvmlGpuInstanceProfileInfo_v2_t){.version = info->version,
                                              .id = p->id,
                                              .sliceCount = p->slices,
                                              .instanceCount = p->most,
                                              .multiprocessorCount = p->sm_count,
                                              .copyEngineCount = p->slices,
                                              .memorySizeMB = p->memory_mib};
    snprintf(info->name, sizeof info->name, "MIG %s", p->name);
    return NVML_SUCCESS;
}

#define MIG_CARD_OR_RETURN(device)                                                                 \
    CARD_OR_RETURN(device);                                                                        \
    if (!atomic_load(&card->mig_current))                                                          \
    return NVML_ERROR_NOT_SUPPORTED

#define PROFILE_NUMBERS 18

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned number,
                                                  nvmlGpuInstanceProfileInfo_v2_t *info) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(info);
    const struct fg_profile *profile = by_number(card, number);
    if (number >= PROFILE_NUMBERS)
        return NVML_ERROR_INVALID_ARGUMENT;
    return profile != NULL ? tell_profile(profile, info) : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned id,
                                                      nvmlGpuInstanceProfileInfo_v2_t *info) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(info);
    int profile = by_id(card, id);
    return profile >= 0 ? tell_profile(&card->profiles[profile], info)
                        : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned number,
                                                 nvmlGpuInstanceProfileInfo_t *info) {
    FAIL_IF_ASKED(__func__);
    NULL_RETURNS_INVALID(info);
    nvmlGpuInstanceProfileInfo_v2_t v2 = {.version =
                                              NVML_VERSIONED(nvmlGpuInstanceProfileInfo_v2_t, 2)};
    nvmlReturn_t rc = nvmlDeviceGetGpuInstanceProfileInfoV(device, number, &v2);
    if (rc == NVML_SUCCESS)
        *info = (nvmlGpuInstanceProfileInfo_t){.id = v2.id,
                                               .sliceCount = v2.sliceCount,
                                               .instanceCount = v2.instanceCount,
                                               .multiprocessorCount = v2.multiprocessorCount,
                                               .copyEngineCount = v2.copyEngineCount,
                                               .memorySizeMB = v2.memorySizeMB};
    return rc;
}

/* Answers also while MIG is off. */
nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned id,
                                                           nvmlPlacement_t *placements,
                                                           unsigned *count) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    if (!card->mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    int index = by_id(card, id);
    if (index < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct fg_profile *profile = &card->profiles[index];
    if (placements != NULL && *count < profile->nstarts)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (uint32_t i = 0; placements != NULL && i < profile->nstarts; i++)
        placements[i] = (nvmlPlacement_t){.start = profile->starts[i], .size = profile->size};
    *count = profile->nstarts;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements(nvmlDevice_t device, unsigned id,
                                                        nvmlPlacement_t *placements,
                                                        unsigned *count) {
    return nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id, placements, count);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned id,
                                                       unsigned *count) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    int profile = by_id(card, id);
    if (profile < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = (unsigned)fg_mig_free(&nvml_global.fg, device->card, profile);
    return NVML_SUCCESS;
}

static nvmlGpuInstance_t handle(int unit) {
    struct nvmlGpuInstance_st *gi = &nvml_global.instances[unit - FG_CARDS];
    gi->unit = unit;
    gi->generation = atomic_load(&nvml_global.fg.st->cards[unit].instance.generation);
    return gi;
}

static nvmlReturn_t create(nvmlDevice_t device, unsigned id, int start, nvmlGpuInstance_t *out) {
    int profile = by_id(&nvml_global.fg.st->cards[device->card], id), unit;
    if (profile < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t rc = nvml_begin_change();
    if (rc == NVML_SUCCESS)
        rc = nvml_end_change(fg_mig_create(nvml_writer(), device->card, profile, start, &unit));
    if (rc == NVML_SUCCESS)
        *out = handle(unit);
    return rc;
}

nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *out) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(out);
    return create(device, id, FG_ANYWHERE, out);
}

nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned id,
                                                      const nvmlPlacement_t *placement,
                                                      nvmlGpuInstance_t *out) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(placement);
    NULL_RETURNS_INVALID(out);
    int profile = by_id(card, id);
    if (profile < 0 || placement->start > 7 || card->profiles[profile].size != placement->size)
        return NVML_ERROR_INVALID_ARGUMENT;
    return create(device, id, (int)placement->start, out);
}

/* A handle whose instance is gone names nothing, also where another one took its place. */
nvmlReturn_t nvml_gpu_instance(nvmlGpuInstance_t gi, const struct fg_card **unit) {
    if (nvml_ready() != NVML_SUCCESS)
        return NVML_ERROR_UNINITIALIZED;
    if (gi < nvml_global.instances || gi >= nvml_global.instances + MIG_UNITS)
        return NVML_ERROR_INVALID_ARGUMENT;
    *unit = &nvml_global.fg.st->cards[gi->unit];
    const struct fg_instance *is = &(*unit)->instance;
    if (gi->unit < FG_CARDS || !atomic_load(&is->live) ||
        atomic_load(&is->generation) != gi->generation)
        return NVML_ERROR_INVALID_ARGUMENT;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t gi) {
    const struct fg_card *unit;
    FAIL_IF_ASKED(__func__);
    nvmlReturn_t rc = nvml_gpu_instance(gi, &unit);
    if (rc == NVML_SUCCESS)
        rc = nvml_begin_change();
    return rc == NVML_SUCCESS
               ? nvml_end_change(fg_mig_destroy(nvml_writer(), gi->unit, gi->generation))
               : rc;
}

nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *out,
                                       unsigned *count) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(out);
    NULL_RETURNS_INVALID(count);
    int profile = by_id(card, id);
    if (profile < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = 0;
    for (int i = 0; i < FG_MIG_MOST; i++) {
        int unit = fg_unit(device->card, i);
        const struct fg_instance *gi = &nvml_global.fg.st->cards[unit].instance;
        if (atomic_load(&gi->live) && gi->profile == (uint32_t)profile)
            out[(*count)++] = handle(unit);
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned id,
                                          nvmlGpuInstance_t *out) {
    MIG_CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(out);
    for (int i = 0; i < FG_MIG_MOST; i++) {
        const struct fg_instance *gi = &nvml_global.fg.st->cards[fg_unit(device->card, i)].instance;
        if (atomic_load(&gi->live) && gi->id == id) {
            *out = handle(fg_unit(device->card, i));
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t gi, nvmlGpuInstanceInfo_t *info) {
    const struct fg_card *unit;
    FAIL_IF_ASKED(__func__);
    NULL_RETURNS_INVALID(info);
    nvmlReturn_t rc = nvml_gpu_instance(gi, &unit);
    if (rc != NVML_SUCCESS)
        return rc;
    const struct fg_profile *profile = fg_mig_profile(&nvml_global.fg, gi->unit);
    *info = (nvmlGpuInstanceInfo_t){
        .device = nvml_card_handle(fg_parent(gi->unit)),
        .id = unit->instance.id,
        .profileId = profile->id,
        .placement = {.start = unit->instance.start, .size = profile->size}};
    return NVML_SUCCESS;
}
