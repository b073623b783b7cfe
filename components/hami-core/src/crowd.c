#include "crowd.h"

#include "dispatch.h"

#include <string.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define EVERY_NS UINT64_C(1000000000)
#define LASTS_NS UINT64_C(2500000000)
#define NOTICED_PERCENT 8 /* what NVML and we may differ by on a card of our own */

typedef nvmlReturn_t init_fn(void);
typedef nvmlReturn_t by_uuid_fn(const char *uuid, nvmlDevice_t *device);
typedef nvmlReturn_t rates_fn(nvmlDevice_t device, nvmlUtilization_t *rates);

/* How busy the card is, in percent; -1 where NVML does not say (MIG). NVML stays initialised: that
 * takes a while. */
static int busy_percent(const char *uuid) {
    static rates_fn *_Atomic cached;
    nvmlDevice_t device = NULL;
    nvmlUtilization_t rates = {0, 0};
    rates_fn *get_rates = atomic_load(&cached);
    if (get_rates == NULL) {
        init_fn *init = (init_fn *)dispatch_driver(LIBRARY_NVML, "nvmlInit_v2");
        if (init == NULL || init() != NVML_SUCCESS) {
            return -1;
        }
        get_rates = (rates_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetUtilizationRates");
        atomic_store(&cached, get_rates);
    }
    by_uuid_fn *by_uuid = (by_uuid_fn *)dispatch_driver(LIBRARY_NVML, "nvmlDeviceGetHandleByUUID");
    if (get_rates == NULL || by_uuid == NULL || by_uuid(uuid, &device) != NVML_SUCCESS ||
        get_rates(device, &rates) != NVML_SUCCESS) {
        return -1;
    }
    return (int)rates.gpu;
}

void crowd_look(struct process *process, unsigned index, uint64_t now_ns) {
    char uuid[HAMI_UUID_SIZE];
    struct hami_usage_device *device = &process->usage->devices[index];
    uint64_t before = atomic_load(SHARED(device->looked_ns));
    if ((before <= now_ns && now_ns - before < EVERY_NS) ||
        !atomic_compare_exchange_strong(SHARED(device->looked_ns), &before, now_ns)) {
        return;
    }
    uint64_t charged = atomic_load(SHARED(device->charged_ns));
    uint64_t charged_before = atomic_exchange(SHARED(device->looked_charged_ns), charged);
    lock_take(&process->setup_lock);
    memcpy(uuid, process->body.devices[index].uuid, sizeof(uuid));
    lock_drop(&process->setup_lock);
    int busy = uuid[0] != '\0' ? busy_percent(uuid) : -1;
    if (busy < 0 || before == 0 || before > now_ns) {
        return;
    }
    double ours = (double)(int64_t)(charged - charged_before) / (double)(now_ns - before) * 100;
    if (busy > ours + NOTICED_PERCENT) {
        atomic_store(SHARED(device->crowded_until_ns), now_ns + LASTS_NS);
    }
}
