/* The driver as a program meets it: linked (-DLINKED), by dlsym (-DBY_NAME) or by cuGetProcAddress
 * alone (-DBY_PROC_ADDRESS), and as nvcc --default-stream per-thread makes it (-DPER_THREAD). */
#ifndef PROGRAMS_DRIVER_H
#define PROGRAMS_DRIVER_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned long long pointer;
struct ipc_handle {
    char bytes[64];
};

#ifdef PER_THREAD
#define OF_STREAM(symbol) symbol##_ptsz
#define LOOK_UP_FLAGS 2
#else
#define OF_STREAM(symbol) symbol
#define LOOK_UP_FLAGS 0
#endif

/* name for cuGetProcAddress, symbol, parameters */
#define FUNCTIONS(X)                                                                               \
    X(cuInit, cuInit, (unsigned))                                                                  \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (void **, int))                          \
    X(cuCtxSetCurrent, cuCtxSetCurrent, (void *))                                                  \
    X(cuCtxSynchronize, cuCtxSynchronize, (void))                                                  \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, (size_t *, int))                                      \
    X(cuMemGetInfo, cuMemGetInfo_v2, (size_t *, size_t *))                                         \
    X(cuMemAlloc, cuMemAlloc_v2, (pointer *, size_t))                                              \
    X(cuMemFree, cuMemFree_v2, (pointer))                                                          \
    X(cuMemAllocAsync, OF_STREAM(cuMemAllocAsync), (pointer *, size_t, void *))                    \
    X(cuMemFreeAsync, OF_STREAM(cuMemFreeAsync), (pointer, void *))                                \
    X(cuStreamSynchronize, OF_STREAM(cuStreamSynchronize), (void *))                               \
    X(cuStreamCreate, cuStreamCreate, (void **, unsigned))                                         \
    X(cuStreamBeginCapture, OF_STREAM(cuStreamBeginCapture_v2), (void *, int))                     \
    X(cuStreamEndCapture, OF_STREAM(cuStreamEndCapture), (void *, void **))                        \
    X(cuModuleLoadData, cuModuleLoadData, (void **, const void *))                                 \
    X(cuModuleGetFunction, cuModuleGetFunction, (void **, void *, const char *))                   \
    X(cuLaunchKernel, OF_STREAM(cuLaunchKernel),                                                   \
      (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,       \
       void **, void **))                                                                          \
    X(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags,                                    \
      (void **, void *, unsigned long long))                                                       \
    X(cuGraphLaunch, OF_STREAM(cuGraphLaunch), (void *, void *))                                   \
    X(cuGraphExecDestroy, cuGraphExecDestroy, (void *))                                            \
    X(cuGraphDestroy, cuGraphDestroy, (void *))                                                    \
    X(cuDeviceGraphMemTrim, cuDeviceGraphMemTrim, (int))                                           \
    X(cuDeviceGetDefaultMemPool, cuDeviceGetDefaultMemPool, (void **, int))                        \
    X(cuMemPoolGetAttribute, cuMemPoolGetAttribute, (void *, int, void *))                         \
    X(cuMemPoolSetAttribute, cuMemPoolSetAttribute, (void *, int, void *))                         \
    X(cuMemPoolTrimTo, cuMemPoolTrimTo, (void *, size_t))                                          \
    X(cuMemGetAllocationGranularity, cuMemGetAllocationGranularity, (size_t *, const void *, int)) \
    X(cuMemAddressReserve, cuMemAddressReserve,                                                    \
      (pointer *, size_t, size_t, pointer, unsigned long long))                                    \
    X(cuMemAddressFree, cuMemAddressFree, (pointer, size_t))                                       \
    X(cuMemCreate, cuMemCreate, (pointer *, size_t, const void *, unsigned long long))             \
    X(cuMemMap, cuMemMap, (pointer, size_t, size_t, pointer, unsigned long long))                  \
    X(cuMemSetAccess, cuMemSetAccess, (pointer, size_t, const void *, size_t))                     \
    X(cuMemUnmap, cuMemUnmap, (pointer, size_t))                                                   \
    X(cuMemRelease, cuMemRelease, (pointer))                                                       \
    X(cuIpcGetMemHandle, cuIpcGetMemHandle, (struct ipc_handle *, pointer))                        \
    X(cuIpcOpenMemHandle, cuIpcOpenMemHandle_v2, (pointer *, struct ipc_handle, unsigned))         \
    X(cuIpcCloseMemHandle, cuIpcCloseMemHandle, (pointer))

#define TEXT_OF(symbol) #symbol
#define TEXT(symbol) TEXT_OF(symbol)
#define MEMBER(name, symbol, parameters) int(*name) parameters;

static struct {
    FUNCTIONS(MEMBER)
} cu;

#ifdef LINKED
#define DECLARE(name, symbol, parameters) extern int symbol parameters;
#define FIND(name, symbol, parameters) cu.name = symbol;
FUNCTIONS(DECLARE)
static void find_driver(void) { FUNCTIONS(FIND) }
#else
static int (*ask)(const char *, void **, int, uint64_t, int *);

static void *find(void *library, const char *name, const char *symbol) {
    void *found = NULL;
    int status = 0;
    if (ask == NULL) {
        found = dlsym(library, symbol);
    } else if (ask(name, &found, 12000, LOOK_UP_FLAGS, &status) != 0) {
        found = NULL;
    }
    if (found == NULL) {
        printf("no %s\n", symbol);
        exit(1);
    }
    return found;
}

#define FIND(name, symbol, parameters) *(void **)&cu.name = find(library, #name, TEXT(symbol));
static void find_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
#ifdef BY_PROC_ADDRESS
    *(void **)&ask = dlsym(library, "cuGetProcAddress_v2");
#endif
    FUNCTIONS(FIND)
}
#endif

/* A module whose kernels do nothing, which any driver compiles; on the fake one the first takes 100
 * us. */
#define MODULE                                                                                     \
    ".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry k_100us() { ret; }\n.visible " \
    ".entry k_0us() { ret; }\n"

#define MIB ((size_t)1 << 20)
#define OUT_OF_MEMORY 2

/* Ends the program where a call does not answer as it must. */
#define EXPECT(result, call)                                                                       \
    do {                                                                                           \
        int answer_ = (call);                                                                      \
        if (answer_ != (result)) {                                                                 \
            printf("%s:%d: %s answers %d\n", __FILE__, __LINE__, #call, answer_);                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline void *begin(void) {
    void *context = NULL;
    find_driver();
    EXPECT(0, cu.cuInit(0));
    EXPECT(0, cu.cuDevicePrimaryCtxRetain(&context, 0));
    EXPECT(0, cu.cuCtxSetCurrent(context));
    return context;
}

static inline size_t free_mib(void) {
    size_t free_bytes = 0;
    size_t total = 0;
    EXPECT(0, cu.cuMemGetInfo(&free_bytes, &total));
    return free_bytes / MIB;
}

#endif
