/*
 * The container's credit of GPU time on one device, on a usage region. Pure: the clock is an
 * argument. Every word is changed by one atomic step, so a process that is killed in between loses
 * the container at most what one refill brings.
 */
#ifndef HAMI_CREDIT_H
#define HAMI_CREDIT_H

#include "hami_region.h"

#include <stdbool.h>

#define CREDIT_BURST_NS INT64_C(50000000) /* at 100 percent: what may be saved up */

/* Adds what `percent` of the time since the last refill brings, up to the burst. */
void credit_refill(struct hami_usage_device *device, unsigned percent, uint64_t now_ns);

/* Takes the amount if there is any credit at all; what is taken too much is a debt that time
 * repays. */
bool credit_take(struct hami_usage_device *device, int64_t amount_ns);

/* Charges what turned out later, or gives it back. */
void credit_settle(struct hami_usage_device *device, int64_t amount_ns);

/* How long until there is credit again. */
uint64_t credit_wait_ns(const struct hami_usage_device *device, unsigned percent);

#endif
