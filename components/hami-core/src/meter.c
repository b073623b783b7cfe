#include "meter.h"

#include "credit.h"
#include "crowd.h"
#include "driver.h"
#include "gate.h"
#include "turn.h"

#include <string.h>
#include <time.h>

#define NS_PER_MS 1e6
#define TOUCHING 0.02  /* of a launch: closer than that it follows, and does not overlap */
#define MOST_UNREADY 8 /* streams that may be behind before we stop asking */

static bool try_lock(hami_lock *lock) {
    uint32_t seen = 0;
    return atomic_compare_exchange_strong(&lock->word, &seen, 1);
}

static bool take_idle(struct meter *meter, struct sample *sample) {
    bool found = false;
    lock_take(&meter->lock);
    for (unsigned i = meter->paused == 0 ? meter->idle_count : 0; i > 0 && !found; i--) {
        if (meter->idle[i - 1].context == sample->context) {
            sample->start = meter->idle[i - 1].start;
            sample->end = meter->idle[i - 1].end;
            meter->idle[i - 1] = meter->idle[--meter->idle_count];
            found = true;
        }
    }
    lock_drop(&meter->lock);
    return found;
}

/* With the lock. */
static void give_back(struct meter *meter, const struct sample *sample) {
    if (sample->end == NULL) {
        return;
    }
    if (meter->idle_count < METER_SAMPLES) {
        meter->idle[meter->idle_count++] = *sample;
        return;
    }
    driver_event_destroy(sample->start);
    driver_event_destroy(sample->end);
}

static bool new_events(struct sample *sample) {
    if (driver_event_create(&sample->start) != CUDA_SUCCESS) {
        return false;
    }
    if (driver_event_create(&sample->end) != CUDA_SUCCESS) {
        driver_event_destroy(sample->start);
        return false;
    }
    return true;
}

bool meter_begin(struct meter *meter, struct sample *sample, CUstream stream) {
    sample->end = NULL;
    if (!take_idle(meter, sample) && !new_events(sample)) {
        sample->end = NULL;
        return false;
    }
    atomic_fetch_add(&sample->price->in_flight, 1);
    if (driver_event_record(sample->start, stream) == CUDA_SUCCESS) {
        return true;
    }
    meter_end(meter, sample, stream, false);
    return false;
}

void meter_end(struct meter *meter, struct sample *sample, CUstream stream, bool launched) {
    bool recorded = launched && driver_event_record(sample->end, stream) == CUDA_SUCCESS;
    lock_take(&meter->lock);
    if (recorded && meter->waiting < METER_SAMPLES) {
        meter->samples[meter->waiting++] = *sample;
    } else {
        atomic_fetch_sub(&sample->price->in_flight, 1);
        give_back(meter, sample);
    }
    lock_drop(&meter->lock);
}

static bool elapsed(CUevent start, CUevent end, double *ns) {
    float milliseconds = 0;
    if (driver_event_elapsed(&milliseconds, start, end) != CUDA_SUCCESS) {
        return false;
    }
    *ns = (double)milliseconds * NS_PER_MS;
    return true;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static double clamp(double value, double most) {
    return value < 0 ? 0 : value > most ? most : value;
}

/* What of a launch lies outside the one that ended last on the device: together they were busy only
 * once. Keeps whichever of the two ended later. */
static double not_overlapped(struct meter *meter, const struct sample *sample, double duration) {
    struct sample *latest = &meter->latest[sample->device];
    double gap = 0;
    double before = 0;
    double after = duration;
    bool overlaps = latest->end != NULL && latest->context == sample->context &&
                    elapsed(latest->end, sample->start, &gap) && gap < -TOUCHING * duration &&
                    elapsed(sample->start, latest->start, &before) &&
                    elapsed(latest->end, sample->end, &after);
    if (!overlaps || after >= 0) {
        give_back(meter, latest);
        *latest = *sample;
    } else {
        give_back(meter, sample);
    }
    return overlaps ? clamp(clamp(before, duration) + clamp(after, duration), duration) : duration;
}

static void settle(struct process *process, const struct sample *sample, double cost) {
    int64_t difference =
        price_difference(cost, sample->charged_ns, sample->weight, sample->paid_ns);
    credit_settle(&process->usage->devices[sample->device], difference);
    turn_serve(process->usage, process->slot, difference);
}

void meter_charge_unmeasured(struct process *process, const struct sample *sample) {
    if (atomic_load(&sample->price->estimate_ns) == 0) {
        settle(process, sample, METER_UNMEASURED_NS);
    }
}

/* With the lock. */
static void finish(struct meter *meter, struct process *process, const struct sample *sample) {
    struct measured measured = {0, 0, gate_is_crowded(process, sample->device),
                                crowd_gain(&process->usage->devices[sample->device])};
    if (!elapsed(sample->start, sample->end, &measured.duration_ns)) {
        meter_charge_unmeasured(process, sample);
        give_back(meter, sample);
        return;
    }
    uint64_t now = now_ns();
    crowd_note(&process->usage->devices[sample->device], measured.duration_ns, now);
    measured.busy_ns = not_overlapped(meter, sample, measured.duration_ns);
    if (sample->weight > 0) {
        double cost = price_note(sample->price, &measured);
        double used = price_possible(&meter->occupied_ns[sample->device], sample->since_ns, now,
                                     cost * sample->weight) /
                      sample->weight;
        double charged = (double)sample->charged_ns; /* what is too much is cut, not refunded */
        settle(process, sample,
               used >= cost || cost <= charged ? cost
               : used > charged                ? used
                                               : charged);
    }
}

void meter_harvest(struct meter *meter, struct process *process) {
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    unsigned kept = 0;
    unsigned unready = 0;
    if (meter->waiting == 0 || !try_lock(&meter->lock)) {
        return;
    }
    if (meter->paused != 0) {
        lock_drop(&meter->lock);
        return;
    }
    driver_exchange_capture_mode(&mode);
    for (unsigned i = 0; i < meter->waiting; i++) {
        struct sample *sample = &meter->samples[i];
        CUresult answer =
            unready < MOST_UNREADY ? driver_event_query(sample->end) : CUDA_ERROR_NOT_READY;
        if (answer == CUDA_ERROR_NOT_READY) {
            unready++;
            meter->samples[kept++] = *sample;
            continue;
        }
        atomic_fetch_sub(&sample->price->in_flight, 1);
        if (answer == CUDA_SUCCESS) {
            finish(meter, process, sample);
        } else {
            meter_charge_unmeasured(process, sample); /* the events of a broken context are left */
        }
    }
    meter->waiting = kept;
    driver_exchange_capture_mode(&mode);
    lock_drop(&meter->lock);
}

static unsigned without(struct sample *samples, unsigned count, CUcontext context, bool in_flight) {
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++) {
        if (samples[i].context != context) {
            samples[kept++] = samples[i];
        } else if (in_flight) {
            atomic_fetch_sub(&samples[i].price->in_flight, 1);
        }
    }
    return kept;
}

void meter_pause(struct meter *meter) {
    lock_take(&meter->lock);
    meter->paused++;
    lock_drop(&meter->lock);
}

/* With the lock. */
static void forget(struct meter *meter, CUcontext context) {
    meter->waiting = without(meter->samples, meter->waiting, context, true);
    meter->idle_count = without(meter->idle, meter->idle_count, context, false);
    for (unsigned device = 0; device < HAMI_MAX_DEVICES; device++) {
        if (meter->latest[device].context == context) {
            memset(&meter->latest[device], 0, sizeof(meter->latest[device]));
        }
    }
}

void meter_resume(struct meter *meter, CUcontext destroyed) {
    lock_take(&meter->lock);
    meter->paused--;
    if (destroyed != NULL) {
        forget(meter, destroyed);
    }
    lock_drop(&meter->lock);
}
