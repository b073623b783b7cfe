/*
 * By which PIDs NVML knows this container's processes: by the container's own, or by those of the
 * host, which the monitor writes into the slots.
 */
#ifndef HAMI_PIDS_H
#define HAMI_PIDS_H

#include "hami_region.h"

#include <stdbool.h>
#include <stddef.h>

/* An answer of NVML's: entries of `size` bytes with a PID at `at`. */
struct pid_list {
    const void *entries;
    unsigned int count;
    size_t size, at;
};

/* One that names a process of ours by its host PID tells that NVML names all of them so. */
void pids_learn(const struct hami_usage *usage, const struct pid_list *list);

/* The slot of the process that NVML calls so. False: none of this container's, as far as one knows.
 */
bool pids_find(const struct hami_usage *usage, unsigned int pid, unsigned *slot);

#endif
