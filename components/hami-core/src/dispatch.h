/* From a driver symbol to our wrapper, and from a wrapper to the driver's real function. */
#ifndef HAMI_DISPATCH_H
#define HAMI_DISPATCH_H

#include "hooks_gen.h"

#include <stdbool.h>

enum hook_stream { STREAM_ANY, STREAM_LEGACY, STREAM_THREAD };
enum hook_library { LIBRARY_CUDA, LIBRARY_NVML, LIBRARY_COUNT };

typedef void hook_function(void);

struct hook {
    const char *symbol;
    const char *base; /* the name that cuGetProcAddress is asked for */
    int version;      /* the CUDA version that brought this ABI */
    enum hook_stream stream;
    enum hook_library library;
    hook_function *wrapper;
};

extern const struct hook hooks[HOOK_COUNT];

/* From `version` on `base` means a symbol whose own base is another. */
struct hook_alias {
    const char *base;
    int version;
    enum hook_id id;
};

extern const struct hook_alias hook_aliases[HOOK_ALIAS_COUNT];

/* The driver's own function behind a wrapper; never NULL: a driver that lacks it is answered for
 * with an error. */
#define REAL(symbol) ((symbol##_fn *)dispatch_real(HOOK_##symbol))
hook_function *dispatch_real(enum hook_id id);

/* A driver function that we call and do not wrap; NULL if the driver is absent or lacks it. */
void *dispatch_driver(enum hook_library library, const char *symbol);

/* The wrapper with the ABI of what the driver answered; the driver's pointer where we have no part
 * in it. */
void *dispatch_map(const char *name, void *driver_answer, int version, uint64_t flags);

/* What a look-up by name gets: with `jump` set the caller goes on there with its own arguments,
 * else `answer` it is. */
struct route {
    void *jump;
    void *answer;
};
struct route hami_route_dlsym(void *handle, const char *name);
struct route hami_route_dlvsym(void *handle, const char *name, const char *version);

#endif
