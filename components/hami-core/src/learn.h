/*
 * What launches of this process cost: which of them are measured, how much each of those stands
 * for, and the wait for a price that nobody knows yet.
 */
#ifndef HAMI_LEARN_H
#define HAMI_LEARN_H

#include "gate.h"
#include "meter.h"

/* What a process with a core limit has; zeroed by the kernel in a forked child. */
struct compute {
    struct meter meter;
    _Atomic uint32_t capturing;
    _Atomic uint32_t run_left;
    _Atomic uint32_t short_launches; /* since the last run, unmeasured */
    _Atomic uint64_t short_paid_ns;  /* for them */
    _Atomic uint32_t run_weight;
    _Atomic uint64_t run_paid_ns;
    _Atomic uint64_t run_ended_ns;
    struct price_list prices;
};

/* NULL: no memory. */
struct compute *learn_state(void);

/* The price of a launch, 0 while nobody knows it and this one may be the first. What has not ended
 * after a second counts as a second. */
uint64_t learn_price(struct process *process, struct compute *compute, struct price *price);

/* Whether a launch that was paid for is measured, and how much it stands for. */
bool learn_measures(struct compute *compute, struct launch *launch, uint64_t price);

/* Launches that nobody measured, and what was paid for them. */
void learn_count(struct compute *compute, uint32_t launches, int64_t paid_ns);

#endif
