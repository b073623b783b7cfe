#include "credit.h"

#include <stdatomic.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define TICK_NS UINT64_C(100000)
#define LONGEST_NS UINT64_C(60000000000) /* of a pause that is made up for */

void credit_refill(struct hami_usage_device *device, unsigned percent, uint64_t now_ns) {
    uint64_t last = atomic_load_explicit(SHARED(device->refill_ns), memory_order_relaxed);
    uint64_t passed = now_ns - last;
    int64_t most = CREDIT_BURST_NS * (int64_t)percent / 100;
    if (last <= now_ns ? passed < TICK_NS : last - now_ns < LONGEST_NS) {
        return; /* too early, or somebody has read the clock after us */
    }
    if (!atomic_compare_exchange_strong(SHARED(device->refill_ns), &last, now_ns)) {
        return; /* another process has just done it */
    }
    if (last > now_ns) { /* the clock began anew: the node was restarted */
        atomic_store(SHARED(device->credit_ns), 0);
        return;
    }
    passed = passed < LONGEST_NS ? passed : LONGEST_NS;
    int64_t more = (int64_t)(passed * percent / 100);
    int64_t credit = atomic_load(SHARED(device->credit_ns));
    int64_t next;
    do {
        next = credit < most - more ? credit + more : most;
    } while (!atomic_compare_exchange_weak(SHARED(device->credit_ns), &credit, next));
}

bool credit_take(struct hami_usage_device *device, int64_t amount_ns) {
    int64_t credit = atomic_load(SHARED(device->credit_ns));
    do {
        if (credit <= 0) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(SHARED(device->credit_ns), &credit, credit - amount_ns));
    atomic_fetch_add_explicit(SHARED(device->charged_ns), (uint64_t)amount_ns,
                              memory_order_relaxed);
    return true;
}

void credit_settle(struct hami_usage_device *device, int64_t amount_ns) {
    atomic_fetch_sub(SHARED(device->credit_ns), amount_ns);
    atomic_fetch_add_explicit(SHARED(device->charged_ns), (uint64_t)amount_ns,
                              memory_order_relaxed);
}

uint64_t credit_wait_ns(const struct hami_usage_device *device, unsigned percent) {
    struct hami_usage_device *shared = (struct hami_usage_device *)device;
    int64_t credit = atomic_load(SHARED(shared->credit_ns));
    return credit > 0 ? 0 : ((uint64_t)-credit + 1) / percent * 100 + TICK_NS;
}
