/* Whether others compute on a device too, and what NVML thinks of our share of it. */
#ifndef HAMI_CROWD_H
#define HAMI_CROWD_H

#include "process.h"

/* Looks at most once a second for the whole container, and costs NVML calls: for who waits anyway.
 */
void crowd_look(struct process *process, unsigned device, uint64_t now_ns);

/* To be told what a launch took: with long ones NVML's last second says nothing of our share. */
void crowd_note(struct hami_usage_device *device, double duration_ns, uint64_t now_ns);

/* What is charged of a time that was measured in a crowd. */
double crowd_gain(const struct hami_usage_device *device);

#endif
