#include "driver.h"

#include "dispatch.h"

#include <stdatomic.h>

/* The pointer is looked up once; threads that come together find the same. */
#define FIND(symbol)                                                                               \
    static void *_Atomic cached;                                                                   \
    void *found = atomic_load_explicit(&cached, memory_order_relaxed);                             \
    if (found == NULL) {                                                                           \
        found = dispatch_driver(LIBRARY_CUDA, symbol);                                             \
        atomic_store_explicit(&cached, found, memory_order_relaxed);                               \
    }

CUresult driver_current_device(CUdevice *device) {
    typedef CUresult fn(CUdevice *);
    FIND("cuCtxGetDevice")
    return found != NULL ? ((fn *)found)(device) : CUDA_ERROR_NOT_INITIALIZED;
}

CUcontext driver_current_context(void) {
    typedef CUresult fn(CUcontext *);
    CUcontext context = NULL;
    FIND("cuCtxGetCurrent")
    return found != NULL && ((fn *)found)(&context) == CUDA_SUCCESS ? context : NULL;
}

CUresult driver_device_pool(CUdevice device, CUmemoryPool *pool) {
    typedef CUresult fn(CUmemoryPool *, CUdevice);
    FIND("cuDeviceGetMemPool")
    return found != NULL ? ((fn *)found)(pool, device) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_pool_attribute(CUmemoryPool pool, int attribute, uint64_t *value) {
    typedef CUresult fn(CUmemoryPool, int, void *);
    FIND("cuMemPoolGetAttribute")
    return found != NULL ? ((fn *)found)(pool, attribute, value) : CUDA_ERROR_NOT_INITIALIZED;
}

bool driver_primary_active(CUdevice device) {
    typedef CUresult fn(CUdevice, unsigned int *, int *);
    unsigned int flags = 0;
    int active = 1;
    FIND("cuDevicePrimaryCtxGetState")
    return found == NULL || ((fn *)found)(device, &flags, &active) != CUDA_SUCCESS || active != 0;
}
