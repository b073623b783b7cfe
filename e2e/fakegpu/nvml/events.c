/* Event sets: each follows the rings of the cards registered with it. */
#include "nvml_int.h"

#include <stdlib.h>

#define SUPPORTED (FG_EVENT_SBE | FG_EVENT_DBE | FG_EVENT_XID)

struct nvmlEventSet_st {
    pthread_mutex_t mutex;
    uint64_t types[FG_CARDS]; /* by visible index */
    uint32_t seen[FG_CARDS];
};

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    READY_OR_RETURN();
    NULL_RETURNS_INVALID(set);
    *set = calloc(1, sizeof **set);
    if (*set == NULL)
        return NVML_ERROR_MEMORY;
    pthread_mutex_init(&(*set)->mutex, NULL);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    READY_OR_RETURN();
    free(set);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, uint64_t *types) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(types);
    (void)card;
    *types = SUPPORTED;
    return NVML_SUCCESS;
}

/* Only events sent from now on are delivered. */
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, uint64_t types, nvmlEventSet_t set) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(set);
    if ((types & ~SUPPORTED) != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&set->mutex);
    if (set->types[device->index] == 0)
        set->seen[device->index] = atomic_load(&card->event_seq);
    set->types[device->index] |= types;
    pthread_mutex_unlock(&set->mutex);
    return NVML_SUCCESS;
}

/* Takes the next event that the set asked for from one card's ring. */
static bool take(nvmlEventSet_t set, int index, nvmlEventData_t *data) {
    const struct fg_card *card = &nvml_global.fg.st->cards[nvml_global.devices[index].card];
    uint32_t sent = atomic_load(&card->event_seq);
    if (sent - set->seen[index] > FG_EVENTS) /* overrun: the oldest are gone */
        set->seen[index] = sent - FG_EVENTS;
    while (set->seen[index] != sent) {
        struct fg_event event = card->events[set->seen[index]++ % FG_EVENTS];
        if ((event.type & set->types[index]) == 0)
            continue;
        *data = (nvmlEventData_t){.device = &nvml_global.devices[index],
                                  .eventType = event.type,
                                  .eventData = event.data,
                                  .gpuInstanceId = NVML_NO_INSTANCE,
                                  .computeInstanceId = NVML_NO_INSTANCE};
        return true;
    }
    return false;
}

static bool take_any(nvmlEventSet_t set, nvmlEventData_t *data) {
    bool taken = false;
    pthread_mutex_lock(&set->mutex);
    for (int i = 0; i < nvml_global.count && !taken; i++)
        taken = set->types[i] != 0 && take(set, i, data);
    pthread_mutex_unlock(&set->mutex);
    return taken;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    READY_OR_RETURN();
    NULL_RETURNS_INVALID(set);
    NULL_RETURNS_INVALID(data);
    uint64_t deadline = fg_now() + timeout_ms * 1000000ull;
    for (;;) {
        uint32_t word = atomic_load(&nvml_global.fg.st->event_word);
        if (take_any(set, data))
            return NVML_SUCCESS;
        if (fg_now() >= deadline)
            return NVML_ERROR_TIMEOUT;
        fg_wait_event(&nvml_global.fg, word, deadline);
    }
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
