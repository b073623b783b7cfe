/* The usage file: mapped, and its slots claimed and cleared under record locks that the kernel
 * drops with a process. */
#ifndef HAMI_USAGE_FILE_H
#define HAMI_USAGE_FILE_H

#include "hami_region.h"

#include <stdbool.h>

struct usage_file {
    struct hami_usage *usage; /* NULL: cannot be used, `why` says the reason */
    const char *why;
    int fd;
};

struct usage_file usage_file_open(const char *path);

/* A region of our own, for a process that cannot share, which has its first slot; NULL without
 * memory. */
struct hami_usage *usage_file_private(void);

/* A slot that is ours until we die, cleared of whoever had it before; -1 if all are taken. */
int usage_file_claim(struct usage_file *file);

/* Clears the slots of the dead, except `own`. The caller lets no other thread in. */
bool usage_file_reap(const struct usage_file *file, unsigned own);

/* In a forked child: give up the parent's descriptor, with which we would keep the parent's slot
 * alive. */
void usage_file_after_fork(void);

#endif
