/*
 * What we need of the dynamic loader, found without asking it: we interpose dlsym, so its own
 * answer would be ours or another interposer's. Reading ELF tables also needs no libdl on a glibc
 * before 2.34.
 */
#ifndef HAMI_LOADER_H
#define HAMI_LOADER_H

#include <stdbool.h>
#include <stddef.h>

struct loader {
    void *(*dlsym)(void *handle, const char *name);
    void *(*dlvsym)(void *handle, const char *name, const char *version);
    void *(*dlopen)(const char *name, int flags);
    char *(*dlerror)(void);
};

/* glibc's own functions; NULL while libdl is not in the process (then nobody can have called us
 * either). */
const struct loader *loader_get(void);

/* The path of a file that lies beside this library; false if it does not fit. */
bool loader_beside(const char *name, char *path, size_t size);

#endif
