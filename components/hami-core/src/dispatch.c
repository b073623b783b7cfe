#define _GNU_SOURCE
#include "dispatch.h"

#include "loader.h"
#include "log.h"
#include "process.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

static const char *const sonames[LIBRARY_COUNT] = {"libcuda.so.1", "libnvidia-ml.so.1"};

static hook_function *_Atomic real_functions[HOOK_COUNT];
static void *_Atomic driver_handles[LIBRARY_COUNT];
static _Thread_local int resolving; /* initial-exec: we are there from the start of the process */

extern void *dlsym(void *handle, const char *name);
extern void *dlvsym(void *handle, const char *name, const char *version);

static CUresult cuda_absent(void) { return CUDA_ERROR_NOT_INITIALIZED; }

static nvmlReturn_t nvml_absent(void) { return NVML_ERROR_LIBRARY_NOT_FOUND; }

/*
 * Fills the real pointers of a library. No lock: a thread in a library's constructor holds the
 * loader's own lock, and one that waited for it in here would wait for ever. Threads that come
 * together all store the same pointers.
 */
static void *resolve(enum hook_library library, bool only_if_loaded) {
    const struct loader *loader = loader_get();
    void *handle = atomic_load_explicit(&driver_handles[library], memory_order_acquire);
    if (handle != NULL || loader == NULL || resolving) {
        return handle;
    }
    resolving++; /* the driver's constructors may look symbols up: they get the plain answers */
    handle = loader->dlopen(sonames[library],
                            RTLD_LAZY | RTLD_LOCAL | (only_if_loaded ? RTLD_NOLOAD : 0));
    if (handle != NULL) {
        for (unsigned id = 0; id < HOOK_COUNT; id++) {
            if (hooks[id].library == library) {
                atomic_store(&real_functions[id],
                             (hook_function *)loader->dlsym(handle, hooks[id].symbol));
            }
        }
        atomic_store_explicit(&driver_handles[library], handle, memory_order_release);
    }
    loader->dlerror(); /* what an older driver lacks is not the application's error */
    resolving--;
    return handle;
}

hook_function *dispatch_real(enum hook_id id) {
    hook_function *real = atomic_load_explicit(&real_functions[id], memory_order_relaxed);
    if (__builtin_expect(real == NULL, 0)) {
        resolve(hooks[id].library, false);
        real = atomic_load_explicit(&real_functions[id], memory_order_relaxed);
    }
    if (real != NULL) {
        return real;
    }
    return hooks[id].library == LIBRARY_CUDA ? (hook_function *)cuda_absent
                                             : (hook_function *)nvml_absent;
}

void *dispatch_driver(enum hook_library library, const char *symbol) {
    void *handle = resolve(library, false);
    return handle != NULL ? loader_get()->dlsym(handle, symbol) : NULL;
}

static const struct hook *find_hook(const char *name) {
    bool cuda = name[0] == 'c' && name[1] == 'u' && name[2] >= 'A' && name[2] <= 'Z';
    bool nvml = !cuda && strncmp(name, "nvml", 4) == 0;
    unsigned low = 0;
    unsigned high =
        cuda || nvml ? HOOK_COUNT : 0; /* cublas, curl and the rest of the world leave here */
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = strcmp(name, hooks[middle].symbol);
        if (order == 0) {
            return &hooks[middle];
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

static bool driver_has(const struct hook *hook) {
    resolve(hook->library, true);
    return atomic_load(&real_functions[hook - hooks]) != NULL;
}

/*
 * RTLD_DEFAULT and RTLD_NEXT find our own wrapper, driver or not, so the driver is asked. Where it
 * has no such symbol the loader looks behind us: the answer, and dlerror, are what they would be
 * without us.
 */
static void *answer_anywhere(const struct hook *hook) {
    return driver_has(hook) ? (void *)hook->wrapper : loader_get()->dlsym(RTLD_NEXT, hook->symbol);
}

static void *answer_handle(const struct hook *hook, void *found) {
    if (found == NULL || driver_has(hook)) {
        return found != NULL ? (void *)hook->wrapper : NULL;
    }
    return found == (void *)hook->wrapper ? NULL : found;
}

static void *nothing(void) { return NULL; }

static void *own_loader_function(const char *name) {
    if (name[0] != 'd' || name[1] != 'l') {
        return NULL;
    }
    return strcmp(name, "dlsym") == 0    ? (void *)dlsym
           : strcmp(name, "dlvsym") == 0 ? (void *)dlvsym
                                         : NULL;
}

struct route hami_route_dlsym(void *handle, const char *name) {
    const struct loader *loader = loader_get();
    if (loader == NULL) {
        return (struct route){(void *)nothing, NULL};
    }
    const struct hook *hook = resolving ? NULL : find_hook(name);
    if (hook == NULL) {
        /* The caller's own frame calls dlsym, so RTLD_NEXT and RTLD_DEFAULT keep the caller's
         * scope. */
        void *own = own_loader_function(name);
        return (struct route){own == NULL ? (void *)loader->dlsym : NULL, own};
    }
    bool anywhere = handle == RTLD_DEFAULT || handle == RTLD_NEXT;
    return (struct route){NULL, anywhere ? answer_anywhere(hook)
                                         : answer_handle(hook, loader->dlsym(handle, name))};
}

struct route hami_route_dlvsym(void *handle, const char *name, const char *version) {
    const struct loader *loader = loader_get();
    if (loader == NULL) {
        return (struct route){(void *)nothing, NULL};
    }
    const struct hook *hook = resolving ? NULL : find_hook(name);
    if (hook == NULL) {
        void *own = own_loader_function(name);
        return (struct route){own == NULL ? (void *)loader->dlvsym : NULL, own};
    }
    /* The driver's symbols carry no version, so whatever is found is judged as for dlsym. */
    return (struct route){NULL, answer_handle(hook, loader->dlvsym(handle, name, version))};
}

static bool stream_fits(const struct hook *hook, uint64_t flags) {
    bool per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
    return hook->stream == STREAM_ANY || (hook->stream == STREAM_THREAD) == per_thread;
}

/* The newest ABI of the name that the asked version knows and this driver has. */
static const struct hook *choose_by_version(const char *name, int version, uint64_t flags) {
    const struct hook *best = NULL;
    for (const struct hook *hook = hooks; hook < hooks + HOOK_COUNT; hook++) {
        if (strcmp(hook->base, name) == 0 && hook->version <= version && stream_fits(hook, flags) &&
            atomic_load(&real_functions[hook - hooks]) != NULL &&
            (best == NULL || hook->version > best->version)) {
            best = hook;
        }
    }
    for (unsigned i = 0; i < HOOK_ALIAS_COUNT; i++) {
        const struct hook_alias *alias = &hook_aliases[i];
        if (strcmp(alias->base, name) == 0 && alias->version <= version &&
            atomic_load(&real_functions[alias->id]) != NULL) {
            best = &hooks[alias->id];
        }
    }
    return best;
}

/* By pointer: a driver exports several names for one function, so the asked name is preferred. */
static const struct hook *choose_by_pointer(const char *name, const void *pointer, bool *known) {
    const struct hook *same = NULL;
    *known = false;
    for (const struct hook *hook = hooks; hook < hooks + HOOK_COUNT; hook++) {
        bool named = strcmp(hook->base, name) == 0 || strcmp(hook->symbol, name) == 0;
        *known = *known || named;
        if ((void *)atomic_load(&real_functions[hook - hooks]) == pointer &&
            (same == NULL || named)) {
            same = hook;
        }
    }
    return same;
}

void *dispatch_map(const char *name, void *driver_answer, int version, uint64_t flags) {
    bool known = false;
    const struct hook *hook = choose_by_pointer(name, driver_answer, &known);
    if (hook == NULL && known) {
        hook = choose_by_version(name, version, flags);
        process_count_unknown_symbol();
        log_line(LOG_WARNING,
                 "%s for CUDA %d: the driver answered with an unknown address, using %s", name,
                 version, hook != NULL ? hook->symbol : "the driver's own");
    }
    return hook != NULL ? (void *)hook->wrapper : driver_answer;
}
