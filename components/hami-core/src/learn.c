#define _GNU_SOURCE
#include "learn.h"

#include "clock.h"

#include <sys/mman.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18 /* Linux 4.14 */
#endif

#define RUN_LAUNCHES 8 /* short ones are measured in runs, so that overlaps are seen */
#define RUN_EVERY_NS (10 * NS_PER_MS)
#define MOST_UNKNOWN 1           /* launches of a function before it has been measured */
#define UNKNOWN_WAIT_NS NS_PER_S /* for that; such a kernel may wait for another launch of ours */

static struct compute *_Atomic compute_pages;

struct compute *learn_state(void) {
    struct compute *compute = atomic_load_explicit(&compute_pages, memory_order_acquire);
    if (LIKELY(compute != NULL)) {
        return compute;
    }
    void *pages = mmap(NULL, sizeof(struct compute), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        return NULL;
    }
    madvise(pages, sizeof(struct compute), MADV_WIPEONFORK);
    if (atomic_compare_exchange_strong(&compute_pages, &compute, pages)) {
        return pages;
    }
    munmap(pages, sizeof(struct compute));
    return compute;
}

/* A function that has never been measured may run a few times at once, not a thousand. */
uint64_t learn_price(struct process *process, struct compute *compute, struct price *price) {
    uint64_t began = now_ns(CLOCK_MONOTONIC);
    uint64_t nap = NS_PER_MS / 20;
    for (;;) {
        meter_harvest(&compute->meter, process);
        uint64_t known = atomic_load(&price->estimate_ns);
        bool room =
            atomic_load(&price->in_flight) < MOST_UNKNOWN && compute->meter.waiting < METER_SAMPLES;
        uint64_t now = now_ns(CLOCK_MONOTONIC);
        if (known != 0 || room) {
            return known;
        }
        if (now - began >= UNKNOWN_WAIT_NS) {
            return UNKNOWN_WAIT_NS;
        }
        process_wait_control(process, process_epoch(process), now + nap);
        nap = nap < 2 * NS_PER_MS ? nap * 2 : nap;
    }
}

/* Short launches are measured in runs of consecutive ones, each standing for those since the last.
 */
static bool joins_run(struct compute *compute, uint32_t *weight) {
    if (atomic_load(&gate.round) % 2 == 0) {
        uint64_t now = now_ns(CLOCK_MONOTONIC_COARSE);
        uint32_t since = atomic_load(&compute->short_launches);
        if (since < 2 * RUN_LAUNCHES || now - atomic_load(&compute->run_ended_ns) < RUN_EVERY_NS) {
            return false;
        }
        atomic_store(&compute->run_weight, 1 + since / RUN_LAUNCHES);
        atomic_store(&compute->short_launches, 0);
        atomic_store(&compute->run_paid_ns,
                     atomic_exchange(&compute->short_paid_ns, 0) / RUN_LAUNCHES);
        atomic_store(&compute->run_left, RUN_LAUNCHES + 1);
        atomic_fetch_or(&gate.round, 1);
    }
    uint32_t left = atomic_load(&compute->run_left);
    while (left > 0 && !atomic_compare_exchange_weak(&compute->run_left, &left, left - 1)) {
    }
    if (left <= 1) {
        atomic_store(&compute->run_ended_ns, now_ns(CLOCK_MONOTONIC_COARSE));
        atomic_store(&gate.round, (atomic_load(&gate.round) | 1) + 1);
    }
    *weight = left <= RUN_LAUNCHES ? atomic_load(&compute->run_weight) : 0;
    return left > 0;
}

void learn_count(struct compute *compute, uint32_t launches, int64_t paid_ns) {
    atomic_fetch_add(&compute->short_launches, launches);
    atomic_fetch_add(&compute->short_paid_ns, (uint64_t)paid_ns);
}

bool learn_measures(struct compute *compute, struct launch *launch, uint64_t price) {
    launch->sample.weight = 1;
    launch->sample.paid_ns = price;
    launch->sample.since_ns = now_ns(CLOCK_MONOTONIC_COARSE);
    if (price == 0 || price >= LONG_LAUNCH_NS) {
        return true;
    }
    if (launch->sample.price->seen < PRICE_RECENT / 2) {
        return true;
    }
    launch->sample.since_ns = atomic_load(&compute->run_ended_ns);
    bool joined = joins_run(compute, &launch->sample.weight);
    if (!joined || launch->sample.weight == 0) {
        learn_count(compute, 1, (int64_t)price);
    } else {
        launch->sample.paid_ns += atomic_load(&compute->run_paid_ns);
    }
    return joined;
}
