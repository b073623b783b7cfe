#include "crowd.h"

#include "dispatch.h"
#include "gate.h"
#include "pids.h"

#include <stddef.h>
#include <string.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define EVERY_NS UINT64_C(1000000000)
#define LASTS_NS UINT64_C(2500000000)
#define LONGEST_NS UINT64_C(2000000000) /* NVML speaks of the last second only */
#define LONG_NS 100e6
#define LONG_LASTS_NS UINT64_C(5000000000)
#define NOTICED_PERCENT 8 /* what NVML and we may differ by on a card of our own */
#define GAIN_ONE 1024u
#define MOST_SAMPLES 64u /* processes that compute on one card */

typedef nvmlReturn_t init_fn(void);
typedef nvmlReturn_t by_uuid_fn(const char *uuid, nvmlDevice_t *device);
typedef nvmlReturn_t rates_fn(nvmlDevice_t device, nvmlUtilization_t *rates);
typedef nvmlReturn_t samples_fn(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                unsigned int *count, unsigned long long since);

/* NVML stays initialised: that takes a while. */
static void *nvml_call(const char *name) {
    static _Atomic int ready;
    if (atomic_load(&ready) == 0) {
        init_fn *init = (init_fn *)dispatch_driver(LIBRARY_NVML, "nvmlInit_v2");
        if (init == NULL || init() != NVML_SUCCESS) {
            return NULL;
        }
        atomic_store(&ready, 1);
    }
    return dispatch_driver(LIBRARY_NVML, name);
}

static nvmlDevice_t find_device(const char *uuid) {
    nvmlDevice_t device = NULL;
    by_uuid_fn *by_uuid = (by_uuid_fn *)nvml_call("nvmlDeviceGetHandleByUUID");
    return by_uuid != NULL && by_uuid(uuid, &device) == NVML_SUCCESS ? device : NULL;
}

/* How busy the card is, in percent; -1 where NVML does not say (MIG). */
static int busy_percent(nvmlDevice_t device) {
    nvmlUtilization_t rates = {0, 0};
    rates_fn *call = (rates_fn *)nvml_call("nvmlDeviceGetUtilizationRates");
    return call != NULL && call(device, &rates) == NVML_SUCCESS ? (int)rates.gpu : -1;
}

static bool is_newest(const nvmlProcessUtilizationSample_t *samples, unsigned int count,
                      unsigned int one) {
    for (unsigned int i = 0; i < count; i++) {
        bool later = samples[i].timestamp > samples[one].timestamp ||
                     (samples[i].timestamp == samples[one].timestamp && i > one);
        if (samples[i].pid == samples[one].pid && later) {
            return false;
        }
    }
    return true;
}

/* How busy this container's processes keep the card by NVML's account; -1 where it does not say, or
 * knows us by other PIDs. */
static struct seen own_percent(const struct process *process, nvmlDevice_t device) {
    nvmlProcessUtilizationSample_t samples[MOST_SAMPLES];
    unsigned int count = MOST_SAMPLES;
    struct seen seen = {-1, 0};
    unsigned slot = 0;
    samples_fn *call = (samples_fn *)nvml_call("nvmlDeviceGetProcessUtilization");
    if (call == NULL || call(device, samples, &count, 0) != NVML_SUCCESS) {
        return seen;
    }
    const struct pid_list list = {samples, count < MOST_SAMPLES ? count : MOST_SAMPLES,
                                  sizeof(*samples), offsetof(nvmlProcessUtilizationSample_t, pid)};
    pids_learn(process->usage, &list);
    for (unsigned int i = 0; i < count && count <= MOST_SAMPLES; i++) {
        if (pids_find(process->usage, samples[i].pid, &slot) && is_newest(samples, count, i)) {
            seen.percent = (seen.percent < 0 ? 0 : seen.percent) + (int)samples[i].sm;
            seen.processes++;
        }
    }
    return seen;
}

double crowd_gain(const struct hami_usage_device *device) {
    struct hami_usage_device *shared = (struct hami_usage_device *)device;
    uint32_t gain = atomic_load_explicit(SHARED(shared->gain), memory_order_relaxed);
    return gain == 0 ? 1 : (double)gain / GAIN_ONE;
}

void crowd_note(struct hami_usage_device *device, double duration_ns, uint64_t now_ns) {
    if (duration_ns > LONG_NS) {
        atomic_store(SHARED(device->long_until_ns), now_ns + LONG_LASTS_NS);
    }
}

/* A second in which less was used than charged may be one of learning: two in a row are not. */
static void correct(struct hami_usage_device *device, double charged, struct seen seen) {
    double before = crowd_gain(device);
    double gain = price_gain(before, charged, seen);
    uint32_t lower = gain < before ? 1 : 0;
    if (atomic_exchange(SHARED(device->seen_lower), lower) == lower || lower == 0) {
        atomic_store(SHARED(device->gain), (uint32_t)(gain * GAIN_ONE));
    }
}

/* Compares what was charged over the last look's time with what NVML saw. */
static void compare(struct process *process, unsigned index, double charged, uint64_t now_ns) {
    char uuid[HAMI_UUID_SIZE];
    struct hami_usage_device *device = &process->usage->devices[index];
    if (atomic_load(SHARED(device->long_until_ns)) > now_ns) {
        return;
    }
    lock_take(&process->setup_lock);
    memcpy(uuid, process->body.devices[index].uuid, sizeof(uuid));
    lock_drop(&process->setup_lock);
    nvmlDevice_t handle = uuid[0] != '\0' ? find_device(uuid) : NULL;
    if (handle == NULL) {
        return;
    }
    if (gate_is_crowded(process, index)) {
        correct(device, charged, own_percent(process, handle));
    }
    if (busy_percent(handle) > charged + NOTICED_PERCENT) {
        atomic_store(SHARED(device->crowded_until_ns), now_ns + LASTS_NS);
    }
}

void crowd_look(struct process *process, unsigned index, uint64_t now_ns) {
    struct hami_usage_device *device = &process->usage->devices[index];
    uint64_t before = atomic_load(SHARED(device->looked_ns));
    if ((before <= now_ns && now_ns - before < EVERY_NS) ||
        !atomic_compare_exchange_strong(SHARED(device->looked_ns), &before, now_ns)) {
        return;
    }
    uint64_t charged = atomic_load(SHARED(device->charged_ns));
    uint64_t charged_before = atomic_exchange(SHARED(device->looked_charged_ns), charged);
    if (before == 0) { /* until we know we do not pay for what others may be doing */
        atomic_store(SHARED(device->crowded_until_ns), now_ns + EVERY_NS + EVERY_NS / 4);
    } else if (before <= now_ns && now_ns - before < LONGEST_NS) {
        double ours = (double)(int64_t)(charged - charged_before) / (double)(now_ns - before);
        compare(process, index, ours * 100, now_ns);
    }
}
