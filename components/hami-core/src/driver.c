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

int driver_device_count(void) {
    typedef CUresult fn(int *);
    int count = -1;
    FIND("cuDeviceGetCount")
    return found != NULL && ((fn *)found)(&count) == CUDA_SUCCESS ? count : -1;
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

bool driver_is_capturing(CUstream stream, bool per_thread) {
    typedef CUresult fn(CUstream, int *);
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    fn *ask = NULL;
    if (per_thread) {
        FIND("cuStreamIsCapturing_ptsz")
        ask = (fn *)found;
    } else {
        FIND("cuStreamIsCapturing")
        ask = (fn *)found;
    }
    return ask != NULL && ask(stream, &status) == CUDA_SUCCESS &&
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

CUresult driver_graph_memory(CUdevice device, int attribute, uint64_t *value) {
    typedef CUresult fn(CUdevice, int, void *);
    FIND("cuDeviceGetGraphMemAttribute")
    return found != NULL ? ((fn *)found)(device, attribute, value) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_graph_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
    typedef CUresult fn(CUgraph, CUgraphNode *, size_t *);
    FIND("cuGraphGetNodes")
    return found != NULL ? ((fn *)found)(graph, nodes, count) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_node_type(CUgraphNode node, int *type) {
    typedef CUresult fn(CUgraphNode, int *);
    FIND("cuGraphNodeGetType")
    return found != NULL ? ((fn *)found)(node, type) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_alloc_node(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *params) {
    typedef CUresult fn(CUgraphNode, CUDA_MEM_ALLOC_NODE_PARAMS *);
    FIND("cuGraphMemAllocNodeGetParams")
    return found != NULL ? ((fn *)found)(node, params) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_child_graph(CUgraphNode node, CUgraph *graph) {
    typedef CUresult fn(CUgraphNode, CUgraph *);
    FIND("cuGraphChildGraphNodeGetGraph")
    return found != NULL ? ((fn *)found)(node, graph) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_event_create(CUevent *event) {
    typedef CUresult fn(CUevent *, unsigned int);
    FIND("cuEventCreate")
    return found != NULL ? ((fn *)found)(event, 0) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_event_destroy(CUevent event) {
    typedef CUresult fn(CUevent);
    FIND("cuEventDestroy_v2")
    return found != NULL ? ((fn *)found)(event) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_event_record(CUevent event, CUstream stream) {
    typedef CUresult fn(CUevent, CUstream);
    FIND("cuEventRecord")
    return found != NULL ? ((fn *)found)(event, stream) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_event_query(CUevent event) {
    typedef CUresult fn(CUevent);
    FIND("cuEventQuery")
    return found != NULL ? ((fn *)found)(event) : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult driver_event_elapsed(float *milliseconds, CUevent start, CUevent end) {
    typedef CUresult fn(float *, CUevent, CUevent);
    FIND("cuEventElapsedTime")
    return found != NULL ? ((fn *)found)(milliseconds, start, end) : CUDA_ERROR_NOT_INITIALIZED;
}

static CUresult stream_context(CUstream stream, CUcontext *context) {
    typedef CUresult fn(CUstream, CUcontext *);
    FIND("cuStreamGetCtx")
    return found != NULL ? ((fn *)found)(stream, context) : CUDA_ERROR_NOT_INITIALIZED;
}

bool driver_enter_stream(CUstream stream) {
    typedef CUresult fn(CUcontext);
    CUcontext context = NULL;
    FIND("cuCtxPushCurrent_v2")
    return found != NULL && stream_context(stream, &context) == CUDA_SUCCESS &&
           ((fn *)found)(context) == CUDA_SUCCESS;
}

void driver_leave_stream(void) {
    typedef CUresult fn(CUcontext *);
    CUcontext context = NULL;
    FIND("cuCtxPopCurrent_v2")
    if (found != NULL) {
        ((fn *)found)(&context);
    }
}

void driver_exchange_capture_mode(int *mode) {
    typedef CUresult fn(int *);
    FIND("cuThreadExchangeStreamCaptureMode")
    if (found != NULL) {
        ((fn *)found)(mode);
    }
}
