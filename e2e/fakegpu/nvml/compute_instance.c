/* Compute instances: parts of a GPU instance that share its memory. */
#include "nvml_int.h"

#include <stdio.h>

#define SHARED_ENGINES 0
#define PROFILE_NUMBERS 9

#define GI_OR_RETURN(gi)                                                                           \
    const struct fg_card *unit;                                                                    \
    FAIL_IF_ASKED(__func__);                                                                       \
    nvmlReturn_t gi_rc = nvml_gpu_instance(gi, &unit);                                             \
    if (gi_rc != NVML_SUCCESS)                                                                     \
    return gi_rc

nvmlReturn_t
nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t gi, unsigned number,
                                              unsigned engines,
                                              nvmlComputeInstanceProfileInfo_v2_t *info) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(info);
    (void)unit;
    if (number >= PROFILE_NUMBERS || engines != SHARED_ENGINES)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (info->version != NVML_VERSIONED(nvmlComputeInstanceProfileInfo_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const struct fg_profile *profile = fg_mig_profile(&nvml_global.fg, gi->unit);
    int slices = fg_ci_slices(profile, number);
    uint32_t starts[8];
    if (slices < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *info = (nvmlComputeInstanceProfileInfo_v2_t){
        .version = info->version,
        .id = number,
        .sliceCount = (uint32_t)slices,
        .instanceCount = (uint32_t)fg_ci_starts(profile, number, starts),
        .multiprocessorCount = profile->sm_count * (uint32_t)slices / profile->slices,
        .sharedCopyEngineCount = profile->slices};
    if ((uint32_t)slices == profile->slices)
        snprintf(info->name, sizeof info->name, "MIG %s", profile->name);
    else
        snprintf(info->name, sizeof info->name, "MIG %dc.%s", slices, profile->name);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t gi, unsigned number,
                                                          unsigned engines,
                                                          nvmlComputeInstanceProfileInfo_t *info) {
    FAIL_IF_ASKED(__func__);
    NULL_RETURNS_INVALID(info);
    nvmlComputeInstanceProfileInfo_v2_t v2 = {
        .version = NVML_VERSIONED(nvmlComputeInstanceProfileInfo_v2_t, 2)};
    nvmlReturn_t rc = nvmlGpuInstanceGetComputeInstanceProfileInfoV(gi, number, engines, &v2);
    if (rc == NVML_SUCCESS)
        *info =
            (nvmlComputeInstanceProfileInfo_t){.id = v2.id,
                                               .sliceCount = v2.sliceCount,
                                               .instanceCount = v2.instanceCount,
                                               .multiprocessorCount = v2.multiprocessorCount,
                                               .sharedCopyEngineCount = v2.sharedCopyEngineCount};
    return rc;
}

/* Ids of compute profiles are their numbers. */
static nvmlReturn_t check_id(nvmlGpuInstance_t gi, unsigned id) {
    return fg_ci_slices(fg_mig_profile(&nvml_global.fg, gi->unit), id) > 0
               ? NVML_SUCCESS
               : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t gi, unsigned id,
                                                                unsigned *count) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(count);
    (void)unit;
    nvmlReturn_t rc = check_id(gi, id);
    if (rc == NVML_SUCCESS)
        *count = (unsigned)fg_ci_free(&nvml_global.fg, gi->unit, id);
    return rc;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstancePossiblePlacements(nvmlGpuInstance_t gi, unsigned id,
                                                                 nvmlPlacement_t *placements,
                                                                 unsigned *count) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(count);
    (void)unit;
    uint32_t starts[8];
    nvmlReturn_t rc = check_id(gi, id);
    if (rc != NVML_SUCCESS)
        return rc;
    const struct fg_profile *profile = fg_mig_profile(&nvml_global.fg, gi->unit);
    unsigned n = (unsigned)fg_ci_starts(profile, id, starts);
    if (placements != NULL && *count < n)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; placements != NULL && i < n; i++)
        placements[i] =
            (nvmlPlacement_t){.start = starts[i], .size = (uint32_t)fg_ci_slices(profile, id)};
    *count = n;
    return NVML_SUCCESS;
}

static nvmlComputeInstance_t handle(int unit, int compute) {
    struct nvmlComputeInstance_st *ci = &nvml_global.computes[unit - FG_CARDS][compute];
    ci->unit = unit;
    ci->compute = compute;
    ci->generation =
        atomic_load(&nvml_global.fg.st->cards[unit].instance.computes[compute].generation);
    return ci;
}

static nvmlReturn_t create(nvmlGpuInstance_t gi, unsigned id, int start,
                           nvmlComputeInstance_t *out) {
    int compute;
    nvmlReturn_t rc = check_id(gi, id);
    if (rc == NVML_SUCCESS)
        rc = nvml_begin_change();
    if (rc == NVML_SUCCESS)
        rc = nvml_end_change(fg_ci_create(nvml_writer(), gi->unit, id, start, &compute));
    if (rc == NVML_SUCCESS)
        *out = handle(gi->unit, compute);
    return rc;
}

nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t gi, unsigned id,
                                                  nvmlComputeInstance_t *out) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(out);
    (void)unit;
    return create(gi, id, FG_ANYWHERE, out);
}

nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(nvmlGpuInstance_t gi, unsigned id,
                                                               const nvmlPlacement_t *placement,
                                                               nvmlComputeInstance_t *out) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(placement);
    NULL_RETURNS_INVALID(out);
    (void)unit;
    if (fg_ci_slices(fg_mig_profile(&nvml_global.fg, gi->unit), id) != (int)placement->size ||
        placement->start > 7)
        return NVML_ERROR_INVALID_ARGUMENT;
    return create(gi, id, (int)placement->start, out);
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t gi, unsigned id,
                                                nvmlComputeInstance_t *out, unsigned *count) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(out);
    NULL_RETURNS_INVALID(count);
    nvmlReturn_t rc = check_id(gi, id);
    if (rc != NVML_SUCCESS)
        return rc;
    *count = 0;
    for (int i = 0; i < FG_COMPUTES; i++)
        if (atomic_load(&unit->instance.computes[i].live) &&
            unit->instance.computes[i].number == id)
            out[(*count)++] = handle(gi->unit, i);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t gi, unsigned id,
                                                   nvmlComputeInstance_t *out) {
    GI_OR_RETURN(gi);
    NULL_RETURNS_INVALID(out);
    if (id >= FG_COMPUTES || !atomic_load(&unit->instance.computes[id].live))
        return NVML_ERROR_NOT_FOUND;
    *out = handle(gi->unit, (int)id);
    return NVML_SUCCESS;
}

static nvmlReturn_t living(nvmlComputeInstance_t ci) {
    const void *first = nvml_global.computes, *end = nvml_global.computes + MIG_UNITS;
    if (nvml_ready() != NVML_SUCCESS)
        return NVML_ERROR_UNINITIALIZED;
    if ((const void *)ci < first || (const void *)ci >= end || ci->unit < FG_CARDS)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct fg_instance *gi = &nvml_global.fg.st->cards[ci->unit].instance;
    const struct fg_compute *is = &gi->computes[ci->compute];
    bool there = atomic_load(&gi->live) && atomic_load(&is->live) &&
                 atomic_load(&is->generation) == ci->generation;
    return there ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t ci) {
    FAIL_IF_ASKED(__func__);
    nvmlReturn_t rc = living(ci);
    if (rc == NVML_SUCCESS)
        rc = nvml_begin_change();
    return rc == NVML_SUCCESS ? nvml_end_change(fg_ci_destroy(nvml_writer(), ci->unit, ci->compute,
                                                              ci->generation))
                              : rc;
}

nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t ci,
                                           nvmlComputeInstanceInfo_t *info) {
    FAIL_IF_ASKED(__func__);
    NULL_RETURNS_INVALID(info);
    nvmlReturn_t rc = living(ci);
    if (rc != NVML_SUCCESS)
        return rc;
    const struct fg_compute *is =
        &nvml_global.fg.st->cards[ci->unit].instance.computes[ci->compute];
    struct nvmlGpuInstance_st *gi = &nvml_global.instances[ci->unit - FG_CARDS];
    gi->unit = ci->unit;
    gi->generation = atomic_load(&nvml_global.fg.st->cards[ci->unit].instance.generation);
    *info = (nvmlComputeInstanceInfo_t){.device = nvml_card_handle(fg_parent(ci->unit)),
                                        .gpuInstance = gi,
                                        .id = (uint32_t)ci->compute,
                                        .profileId = is->number,
                                        .placement = {.start = is->start, .size = is->slices}};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlComputeInstanceGetInfo(nvmlComputeInstance_t ci, nvmlComputeInstanceInfo_t *info) {
    return nvmlComputeInstanceGetInfo_v2(ci, info);
}
