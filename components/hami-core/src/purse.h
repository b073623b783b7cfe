/*
 * How a launch is paid for: by the thread's lease, else by the container's credit, for which its
 * processes queue.
 */
#ifndef HAMI_PURSE_H
#define HAMI_PURSE_H

#include "learn.h"

/* Counts the launches that the thread has made since it was here last, and this one. */
void purse_count(struct process *process, struct compute *compute, unsigned device);

/* Pays a launch's price; may wait. */
void purse_pay(struct process *process, struct compute *compute, struct launch *launch,
               uint64_t price);

#endif
