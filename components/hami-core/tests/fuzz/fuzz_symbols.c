/*
 * Look-ups of any name, version and flags, on a driver that has any part of the table and answers
 * anything. Linked with the whole library but its dlsym: a function of the driver that is hooked
 * never gets out, what is not hooked passes untouched, and nothing is invented.
 */
#define _GNU_SOURCE
#include "../check.h"
#include "fuzz.h"

#include "dispatch.h"
#include "loader.h"

#include <dlfcn.h>
#include <string.h>

#define PLAIN 8 /* functions of the driver that are not hooked */

const char *const fuzz_words[] = {"cuMemAlloc",
                                  "cuMemAlloc_v2",
                                  "cuMemAllocAsync",
                                  "cuGraphInstantiate",
                                  "cuGetProcAddress",
                                  "_v2",
                                  "_v3",
                                  "_ptsz",
                                  "_ptds",
                                  "cuda",
                                  "cublasCreate",
                                  "curl_easy_init",
                                  "nvmlInit",
                                  "nvml",
                                  "cu",
                                  "cuM",
                                  "dlsym",
                                  "dlvsym",
                                  "cuCtxSynchronize",
                                  "cuMemGetInfo",
                                  "cuLaunchKernel",
                                  "GLIBC_2.2.5",
                                  NULL};

static const char *const plain_names[PLAIN] = {
    "cuMemcpyHtoD_v2", "cuEventCreate",       "cuMemAllo", "cuMemAlloc_v22",
    "nvmlShutdown",    "nvmlDeviceGetMemory", "malloc",    "cublasCreate_v2"};
static char driver_code[HOOK_COUNT + PLAIN + 1]; /* its addresses are the driver's functions */
#define UNKNOWN (&driver_code[HOOK_COUNT + PLAIN])

static struct {
    uint8_t lacks[HOOK_COUNT];
    void *answer; /* of cuGetProcAddress */
    int result;
} driver;

/* FUZZ_LACKS=n: an older driver, which lacks every n-th symbol of the table. */
__attribute__((constructor)) static void age_driver(void) {
    const char *text = getenv("FUZZ_LACKS");
    unsigned step = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 0;
    for (unsigned i = 0; step != 0 && i < HOOK_COUNT; i += step) {
        driver.lacks[i] =
            hooks[i].symbol[2] != 'G' || hooks[i].symbol[5] != 'P'; /* not cuGetProcAddress */
    }
}

static int ask(const char *symbol, void **function, int version, uint64_t flags) {
    (void)symbol;
    (void)version;
    (void)flags;
    *function = driver.answer;
    return driver.result;
}

static int ask_v2(const char *symbol, void **function, int version, uint64_t flags, void *status) {
    (void)status;
    return ask(symbol, function, version, flags);
}

static int index_of(const char *name) {
    for (int i = 0; i < (int)HOOK_COUNT; i++) {
        if (strcmp(hooks[i].symbol, name) == 0) {
            return i;
        }
    }
    for (int i = 0; i < PLAIN; i++) {
        if (strcmp(plain_names[i], name) == 0) {
            return (int)HOOK_COUNT + i;
        }
    }
    return -1;
}

static void *driver_symbol(const char *name) {
    int i = index_of(name);
    return i < 0 || (i < (int)HOOK_COUNT && driver.lacks[i]) ? NULL
           : i == HOOK_cuGetProcAddress                      ? (void *)ask
           : i == HOOK_cuGetProcAddress_v2                   ? (void *)ask_v2
                                                             : (void *)&driver_code[i];
}

/* The loader: the driver is everywhere, and before it, for who asks anywhere, our own wrapper. */
static void *loader_dlsym(void *handle, const char *name) {
    int i = index_of(name);
    return handle == RTLD_DEFAULT && i >= 0 && i < (int)HOOK_COUNT ? (void *)hooks[i].wrapper
                                                                   : driver_symbol(name);
}

static void *loader_dlvsym(void *handle, const char *name, const char *version) {
    return version[0] == 'x' ? NULL : loader_dlsym(handle, name);
}

static void *loader_dlopen(const char *name, int flags) {
    (void)name;
    (void)flags;
    return &driver;
}

static char *loader_dlerror(void) { return NULL; }

const struct loader *loader_get(void) {
    static const struct loader loader = {loader_dlsym, loader_dlvsym, loader_dlopen,
                                         loader_dlerror};
    return &loader;
}

bool loader_beside(const char *name, char *path, size_t size) {
    (void)name;
    (void)path;
    (void)size;
    return false;
}

static bool is_wrapper(const void *answer) {
    for (unsigned i = 0; i < HOOK_COUNT; i++) {
        if ((const void *)hooks[i].wrapper == answer) {
            return true;
        }
    }
    return false;
}

/* The hook whose real function this is; -1: none. */
static int hook_behind(const void *answer) {
    for (int i = 0; i < (int)HOOK_COUNT; i++) {
        if (answer != NULL && driver_symbol(hooks[i].symbol) == answer) {
            return i;
        }
    }
    return -1;
}

static void by_name(const char *name, void *handle, const char *version) {
    struct route route =
        version != NULL ? hami_route_dlvsym(handle, name, version) : hami_route_dlsym(handle, name);
    int i = index_of(name);
    bool own = strcmp(name, "dlsym") == 0 || strcmp(name, "dlvsym") == 0;
    bool hooked = i >= 0 && i < (int)HOOK_COUNT;
    CHECK((route.jump == NULL) == (hooked || own));
    if (!hooked) {
        void *plain = version != NULL ? (void *)loader_dlvsym : (void *)loader_dlsym;
        CHECK(own ? route.answer != NULL : route.jump == plain);
        return;
    }
    bool found = driver_symbol(name) != NULL && (version == NULL || version[0] != 'x');
    CHECK(route.answer == (found ? (void *)hooks[i].wrapper : NULL));
}

static bool is_base(const char *name) {
    for (unsigned i = 0; i < HOOK_COUNT; i++) {
        if (strcmp(hooks[i].base, name) == 0) {
            return true;
        }
    }
    return false;
}

static void by_version(const char *name, int version, uint64_t flags) {
    void *found = &driver;
    CUresult result = cuGetProcAddress_v2(name, &found, version, flags, NULL);
    CHECK(result == driver.result);
    if (result != CUDA_SUCCESS || driver.answer == NULL) {
        CHECK(found == driver.answer);
        return;
    }
    int behind = hook_behind(driver.answer);
    CHECK(hook_behind(found) < 0);
    if (behind >= 0) {
        CHECK(found == (void *)hooks[behind].wrapper);
    } else if (!is_base(name) && index_of(name) < 0) {
        CHECK(found == driver.answer); /* no name of ours: the driver knows what it means */
    } else {
        CHECK(found == driver.answer || is_wrapper(found));
    }
}

struct question {
    uint8_t kind, answer, result, flags;
    uint16_t version;
};

size_t fuzz_example(unsigned i, uint8_t *into) {
    if (i >= HOOK_COUNT * 3) {
        return 0;
    }
    const struct hook *hook = &hooks[i / 3];
    struct question question = {(uint8_t)(i % 3), (uint8_t)(i / 3), 0, 0,
                                (uint16_t)(hook->version / 10)};
    const char *name = i % 3 == 2 ? hook->base : hook->symbol;
    memcpy(into, &question, sizeof(question));
    memcpy(into + sizeof(question), name, strlen(name));
    return sizeof(question) + strlen(name);
}

static void set_driver(const struct question *question) {
    static void *const odd[] = {NULL, UNKNOWN, &driver_code[HOOK_COUNT],
                                &driver_code[HOOK_COUNT + 1]};
    unsigned answer = question->answer;
    driver.answer = answer < HOOK_COUNT && !driver.lacks[answer]
                        ? driver_symbol(hooks[answer].symbol)
                        : odd[answer % 4];
    driver.result = question->result < 250 ? CUDA_SUCCESS : question->result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint64_t flags[] = {0, 1, 2, 3, UINT64_MAX, 1ull << 32};
    struct question question;
    char name[64] = "";
    memset(&question, 0, sizeof(question));
    memcpy(&question, data, size < sizeof(question) ? size : sizeof(question));
    if (size > sizeof(question)) {
        size_t length = size - sizeof(question);
        memcpy(name, data + sizeof(question),
               length < sizeof(name) - 1 ? length : sizeof(name) - 1);
    }
    set_driver(&question);
    void *handle = (question.flags & 1) != 0 ? RTLD_DEFAULT : (void *)&driver;
    if (question.kind % 3 == 0) {
        by_name(name, handle, NULL);
    } else if (question.kind % 3 == 1) {
        by_name(name, &driver, (question.flags & 2) != 0 ? "x" : "GLIBC_2.17");
    } else {
        by_version(name, question.version * 10, flags[question.flags % 6]);
    }
    return 0;
}
