/* Whether others compute on a device too, by what NVML says of the whole card. */
#ifndef HAMI_CROWD_H
#define HAMI_CROWD_H

#include "process.h"

/* Looks at most once a second for the whole container, and costs an NVML call: for who waits
 * anyway. */
void crowd_look(struct process *process, unsigned device, uint64_t now_ns);

#endif
