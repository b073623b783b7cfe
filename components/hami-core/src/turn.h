/*
 * Whose turn it is among the processes of a container that wait for credit: who has had least goes
 * first. Pure, on a usage region. A process that is killed while it waits is forgotten when its
 * time is over.
 */
#ifndef HAMI_TURN_H
#define HAMI_TURN_H

#include "hami_region.h"

#include <stdbool.h>

/* Says that a slot waits for a device until a millisecond, or no longer. */
void turn_wait(struct hami_usage *usage, unsigned slot, unsigned device, uint64_t until_ms);
void turn_leave(struct hami_usage *usage, unsigned slot);

/* False while another slot waits for the device that has had less. */
bool turn_is_ours(const struct hami_usage *usage, unsigned slot, unsigned device, uint64_t now_ms);

void turn_serve(struct hami_usage *usage, unsigned slot, int64_t amount_ns);

/* Before a slot asks: who comes, or comes back after a while, may be behind the device's last
 * holder by `slack_ns` at the most. */
void turn_join(struct hami_usage *usage, unsigned slot, unsigned device, int64_t slack_ns);

#endif
