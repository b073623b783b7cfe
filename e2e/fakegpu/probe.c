/* A program that knows only the driver API: it stands in for a user's in the cluster tests. */
#define _GNU_SOURCE
#include "fg_cuda.h"
#include "fg_nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024 * 1024ull)
#define ASKED_VERSION 12000
#define MOST_PROCESSES 256

static struct {
    CUresult (*init)(unsigned);
    CUresult (*count)(int *);
    CUresult (*uuid)(CUuuid *, CUdevice);
    CUresult (*name)(char *, int, CUdevice);
    CUresult (*total)(size_t *, CUdevice);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*release)(CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*mem_info)(size_t *, size_t *);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*free)(CUdeviceptr);
    CUresult (*error_name)(CUresult, const char **);
    CUresult (*load)(CUmodule *, const void *);
    CUresult (*function)(CUfunction *, CUmodule, const char *);
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                       unsigned, CUstream, void **, void **);
    CUresult (*synchronize)(void);
} cu;

/* Base name for cuGetProcAddress, exact symbol for dlsym. */
static const struct {
    const char *base, *symbol;
    void *slot;
} wanted[] = {
    {"cuInit", "cuInit", &cu.init},
    {"cuDeviceGetCount", "cuDeviceGetCount", &cu.count},
    {"cuDeviceGetUuid", "cuDeviceGetUuid_v2", &cu.uuid},
    {"cuDeviceGetName", "cuDeviceGetName", &cu.name},
    {"cuDeviceTotalMem", "cuDeviceTotalMem_v2", &cu.total},
    {"cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRetain", &cu.retain},
    {"cuDevicePrimaryCtxRelease", "cuDevicePrimaryCtxRelease_v2", &cu.release},
    {"cuCtxSetCurrent", "cuCtxSetCurrent", &cu.set_current},
    {"cuMemGetInfo", "cuMemGetInfo_v2", &cu.mem_info},
    {"cuMemAlloc", "cuMemAlloc_v2", &cu.alloc},
    {"cuMemFree", "cuMemFree_v2", &cu.free},
    {"cuGetErrorName", "cuGetErrorName", &cu.error_name},
    {"cuModuleLoadData", "cuModuleLoadData", &cu.load},
    {"cuModuleGetFunction", "cuModuleGetFunction", &cu.function},
    {"cuLaunchKernel", "cuLaunchKernel", &cu.launch},
    {"cuCtxSynchronize", "cuCtxSynchronize", &cu.synchronize},
};

static bool by_dlsym; /* --dlsym: the other of the two ways in which programs find the driver */

static const char *name_of(CUresult rc) {
    const char *name = NULL;
    if (cu.error_name == NULL || cu.error_name(rc, &name) != CUDA_SUCCESS || name == NULL)
        return "CUDA_ERROR_?";
    return name;
}

static int fail(const char *what, CUresult rc) {
    printf("{\"error\":\"%s\",\"result\":\"%s\",\"code\":%d}\n", what, name_of(rc), rc);
    return 1;
}

typedef CUresult (*finder)(const char *, void **, int, uint64_t, int *);

#ifdef STATIC /* the driver is linked in: there is nothing to preload into, and no NVML */
CUresult cuGetProcAddress_v2(const char *, void **, int, uint64_t, int *);
#define dlopen(name, flags) NULL
#define dlsym(library, name) NULL

static void *open_driver(finder *ask) {
    *ask = cuGetProcAddress_v2;
    return ask;
}
#else
static void *open_driver(finder *ask) {
    const char *path = getenv("CUPROBE_DRIVER"); /* for a program that knows where it lies */
    void *library = dlopen(path != NULL ? path : "libcuda.so.1", RTLD_NOW);
    void *entry = library == NULL || by_dlsym ? NULL : dlsym(library, "cuGetProcAddress_v2");
    memcpy(ask, &entry, sizeof entry);
    return library;
}
#endif

static int load_driver(void) {
    finder ask;
    void *library = open_driver(&ask);
    if (library == NULL) {
        printf("{\"error\":\"no libcuda.so.1\"}\n");
        return 1;
    }
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *symbol = NULL;
        int status;
        if (ask == NULL)
            symbol = dlsym(library, wanted[i].symbol);
        else
            ask(wanted[i].base, &symbol, ASKED_VERSION, 0, &status);
        if (symbol == NULL) {
            printf("{\"error\":\"no %s\"}\n", wanted[i].symbol);
            return 1;
        }
        memcpy(wanted[i].slot, &symbol, sizeof symbol);
    }
    CUresult rc = cu.init(0);
    return rc == CUDA_SUCCESS ? 0 : fail("cuInit", rc);
}

static CUresult use_device(CUdevice device) {
    CUcontext ctx;
    CUresult rc = cu.retain(&ctx, device);
    return rc == CUDA_SUCCESS ? cu.set_current(ctx) : rc;
}

static void format_uuid(const CUuuid *uuid, char out[48]) {
    int n = snprintf(out, 48, "GPU-");
    for (int i = 0; i < 16; i++)
        n += snprintf(out + n, 48 - (size_t)n, "%s%02x",
                      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid->bytes[i]);
}

/* What NVML says of the card; -1 where it says nothing. */
static void nvml_memory(const char *uuid, long long *total, long long *used) {
    nvmlReturn_t (*init)(void), (*find)(const char *, nvmlDevice_t *);
    nvmlReturn_t (*memory)(nvmlDevice_t, nvmlMemory_t *);
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW), *symbols[3] = {NULL};
    nvmlMemory_t info;
    nvmlDevice_t device;
    *total = *used = -1;
    if (library == NULL)
        return;
    symbols[0] = dlsym(library, "nvmlInit_v2");
    symbols[1] = dlsym(library, "nvmlDeviceGetHandleByUUID");
    symbols[2] = dlsym(library, "nvmlDeviceGetMemoryInfo");
    if (symbols[0] == NULL || symbols[1] == NULL || symbols[2] == NULL)
        return;
    memcpy(&init, &symbols[0], sizeof init);
    memcpy(&find, &symbols[1], sizeof find);
    memcpy(&memory, &symbols[2], sizeof memory);
    if (init() != NVML_SUCCESS || find(uuid, &device) != NVML_SUCCESS ||
        memory(device, &info) != NVML_SUCCESS)
        return;
    *total = (long long)info.total;
    *used = (long long)info.used;
}

static int run_info(int argc, char **argv) {
    int count = 0;
    (void)argc, (void)argv;
    CUresult rc = cu.count(&count);
    if (rc != CUDA_SUCCESS)
        return fail("cuDeviceGetCount", rc);
    printf("{\"cards\":[");
    for (int i = 0; i < count; i++) {
        CUuuid id = {{0}};
        char uuid[48], name[96] = "";
        size_t total = 0, free_bytes = 0, total_now = 0;
        long long nvml_total, nvml_used;
        rc = use_device(i);
        cu.uuid(&id, i);
        cu.name(name, sizeof name, i);
        cu.total(&total, i);
        if (rc == CUDA_SUCCESS)
            rc = cu.mem_info(&free_bytes, &total_now);
        format_uuid(&id, uuid);
        nvml_memory(uuid, &nvml_total, &nvml_used);
        printf("%s{\"uuid\":\"%s\",\"name\":\"%s\",\"result\":\"%s\",\"device_total\":%zu,"
               "\"free\":%zu,\"total\":%zu,\"nvml_total\":%lld,\"nvml_used\":%lld}",
               i == 0 ? "" : ",", uuid, name, name_of(rc), total, free_bytes, total_now, nvml_total,
               nvml_used);
    }
    printf("]}\n");
    return 0;
}

/* Allocates each size in turn on device 0 and says what came of it. */
static int run_alloc(int argc, char **argv) {
    CUresult rc = use_device(0);
    if (rc != CUDA_SUCCESS)
        return fail("context", rc);
    printf("{\"allocations\":[");
    for (int i = 0; i < argc; i++) {
        CUdeviceptr va;
        unsigned long long mib = strtoull(argv[i], NULL, 10);
        rc = cu.alloc(&va, mib * MIB);
        printf("%s{\"mib\":%llu,\"result\":\"%s\"}", i == 0 ? "" : ",", mib, name_of(rc));
    }
    printf("]}\n");
    return 0;
}

static sigset_t stop_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

static bool wait_for_term(const char *how_long) {
    sigset_t set = stop_signals();
    bool forever = strcmp(how_long, "forever") == 0;
    struct timespec timeout = {.tv_sec = (time_t)strtoll(how_long, NULL, 10)};
    int got;
    do
        got = sigtimedwait(&set, NULL, forever ? &(struct timespec){.tv_sec = 3600} : &timeout);
    while (got < 0 && (errno == EINTR || (forever && errno == EAGAIN)));
    return got > 0;
}

static int run_hold(int argc, char **argv) {
    CUdeviceptr va = 0;
    if (argc != 2)
        return fail("hold needs MIB SECONDS|forever", CUDA_ERROR_INVALID_VALUE);
    CUresult rc = use_device(0);
    if (rc == CUDA_SUCCESS)
        rc = cu.alloc(&va, strtoull(argv[0], NULL, 10) * MIB);
    if (rc != CUDA_SUCCESS)
        return fail("hold", rc);
    printf("{\"held_mib\":%s,\"result\":\"CUDA_SUCCESS\",\"pid\":%d}\n", argv[0], (int)getpid());
    fflush(stdout);
    bool stopped = wait_for_term(argv[1]);
    rc = cu.free(va);
    printf("{\"freed\":\"%s\",\"signalled\":%s}\n", name_of(rc), stopped ? "true" : "false");
    return rc != CUDA_SUCCESS;
}

static unsigned long long fill(unsigned long long step_mib, CUresult *last) {
    unsigned long long granted = 0;
    CUdeviceptr va;
    while (step_mib > 0 && (*last = cu.alloc(&va, step_mib * MIB)) == CUDA_SUCCESS)
        granted += step_mib;
    return granted;
}

static int run_until_oom(int argc, char **argv) {
    CUresult last = CUDA_ERROR_INVALID_VALUE, rc = use_device(0);
    if (argc != 1 || rc != CUDA_SUCCESS)
        return fail("alloc-until-oom STEP_MIB", rc);
    unsigned long long granted = fill(strtoull(argv[0], NULL, 10), &last);
    printf("{\"granted_mib\":%llu,\"granted_bytes\":%llu,\"result\":\"%s\"}\n", granted,
           granted * MIB, name_of(last));
    return 0;
}

static double seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Launches 1 ms kernels back to back, and waits for each, or for every so many. */
static int run_spin(int argc, char **argv) {
    CUmodule module;
    CUfunction f;
    unsigned long long launches = 0, at_once = argc == 2 ? strtoull(argv[1], NULL, 10) : 1;
    if (argc < 1 || argc > 2 || at_once == 0)
        return fail("spin needs SECONDS [AT_ONCE]", CUDA_ERROR_INVALID_VALUE);
    CUresult rc = use_device(0);
    if (rc == CUDA_SUCCESS)
        rc = cu.load(&module, "opaque image");
    if (rc == CUDA_SUCCESS)
        rc = cu.function(&f, module, "k_1000us");
    double start = seconds(), end = start + strtod(argv[0], NULL);
    while (rc == CUDA_SUCCESS && seconds() < end) {
        rc = cu.launch(f, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL);
        launches++;
        if (rc == CUDA_SUCCESS && launches % at_once == 0)
            rc = cu.synchronize();
    }
    if (rc != CUDA_SUCCESS)
        return fail("spin", rc);
    printf("{\"launches\":%llu,\"kernel_ms\":1,\"seconds\":%.3f,\"result\":\"CUDA_SUCCESS\"}\n",
           launches, seconds() - start);
    return 0;
}

static bool read_all(int fd, void *out, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)out + done, size - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* One child of `race`: opens its context and says so, waits for the start, allocates once,
 * reports, holds until told. */
static void race_child(int start, int report, int end, unsigned long long mib) {
    CUdeviceptr va;
    char byte;
    int rc = load_driver() == 0 ? (int)use_device(0) : CUDA_ERROR_UNKNOWN;
    bool told = write(report, &rc, sizeof rc) == (ssize_t)sizeof rc;
    if (read(start, &byte, 1) < 0)
        _exit(1);
    if (rc == CUDA_SUCCESS)
        rc = (int)cu.alloc(&va, mib * MIB);
    told = told && write(report, &rc, sizeof rc) == (ssize_t)sizeof rc;
    _exit(read(end, &byte, 1) < 0 || !told);
}

/* N processes allocate at once and all hold what they got until every one has reported. */
static int run_race(int argc, char **argv) {
    int start[2], report[2], end[2], granted = 0, refused = 0, other = 0;
    int n = argc == 2 ? atoi(argv[0]) : 0;
    unsigned long long mib = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
    if (n < 1 || n > MOST_PROCESSES || pipe(start) || pipe(report) || pipe(end))
        return fail("race needs N (at most 256) MIB", CUDA_ERROR_INVALID_VALUE);
    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            close(start[1]);
            close(end[1]);
            close(report[0]);
            race_child(start[0], report[1], end[0], mib);
        }
        n = pid < 0 ? i : n;
    }
    close(report[1]);
    for (int i = 0, rc; i < n && read_all(report[0], &rc, sizeof rc); i++)
        ;            /* every context is open */
    close(start[1]); /* end of file is the starting gun */
    for (int i = 0, rc; i < n && read_all(report[0], &rc, sizeof rc); i++) {
        granted += rc == CUDA_SUCCESS;
        refused += rc == CUDA_ERROR_OUT_OF_MEMORY;
        other += rc != CUDA_SUCCESS && rc != CUDA_ERROR_OUT_OF_MEMORY;
    }
    close(end[1]);
    while (wait(NULL) > 0)
        ;
    printf("{\"processes\":%d,\"mib\":%llu,\"granted\":%d,\"granted_mib\":%llu,\"refused\":%d,"
           "\"other\":%d}\n",
           n, mib, granted, (unsigned long long)granted * mib, refused, other);
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int, char **);
    } verbs[] = {
        {"info", run_info}, {"alloc", run_alloc},
        {"hold", run_hold}, {"alloc-until-oom", run_until_oom},
        {"spin", run_spin}, {"race", run_race},
    };
    if (argc > 1 && strcmp(argv[1], "--dlsym") == 0) {
        by_dlsym = true;
        argc--, argv++;
    }
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(argv[1], verbs[i].name) != 0)
            continue;
        /* The parent of a race stays out of the driver: its children are the processes. */
        bool parent = verbs[i].run == run_race;
        sigset_t set = stop_signals();
        if (verbs[i].run == run_hold) /* before anyone can start a thread that would take them */
            sigprocmask(SIG_BLOCK, &set, NULL);
        int rc = parent ? 0 : load_driver();
        return rc != 0 ? rc : verbs[i].run(argc - 2, argv + 2);
    }
    fputs("usage: cuprobe [--dlsym] info | alloc MIB... | hold MIB SECONDS|forever |\n"
          "               alloc-until-oom STEP_MIB | spin SECONDS | race N MIB\n",
          stderr);
    return 2;
}
