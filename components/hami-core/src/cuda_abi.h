/* The CUDA driver API and NVML as far as we touch them: names, numbers and layouts only, so that no
 * SDK is needed. */
#ifndef HAMI_CUDA_ABI_H
#define HAMI_CUDA_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef unsigned int CUdeviceptr_v1;
typedef unsigned long long CUmemGenericAllocationHandle;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUfunc_st *CUfunction;
typedef struct CUmemPoolHandle_st *CUmemoryPool;
typedef struct CUarray_st *CUarray;
typedef struct CUmipmappedArray_st *CUmipmappedArray;
typedef struct CUgraph_st *CUgraph;
typedef struct CUmod_st *CUmodule;
typedef struct CUlib_st *CUlibrary;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct {
    unsigned char bytes[16];
} CUuuid;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NOT_READY = 600,
};

/* The default stream of the thread, for calls of the per-thread twins. */
#define CU_STREAM_PER_THREAD ((CUstream)2) /* NOLINT(performance-no-int-to-ptr) */
enum { CU_STREAM_CAPTURE_MODE_RELAXED = 2 };

enum { CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM = 1 << 1 };
enum {
    CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT = 5,
    CU_MEMPOOL_ATTR_USED_MEM_CURRENT = 7,
    CU_MEMPOOL_ATTR_LOCATION_ID = 11, /* 13.0 */
    CU_MEMPOOL_ATTR_LOCATION_TYPE = 12,
};
enum {
    CU_MEM_LOCATION_TYPE_NONE = 0,
    CU_MEM_LOCATION_TYPE_DEVICE = 1,
    CU_MEM_LOCATION_TYPE_HOST = 2,
    CU_MEM_LOCATION_TYPE_HOST_NUMA = 3,
    CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT = 4,
    CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN = 6, /* 13.5 */
};
enum { CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT = 2 };
enum { CU_STREAM_CAPTURE_STATUS_NONE = 0 };
enum { CUDA_ARRAY3D_SPARSE = 0x40, CUDA_ARRAY3D_DEFERRED_MAPPING = 0x80 };

typedef struct {
    int type;
    int id;
} CUmemLocation;

/* The first members of CUmemAllocationProp, and of CUmemPoolProps; the rest is the driver's
 * business. */
typedef struct {
    int type;
    int handle_types;
    CUmemLocation location;
} CUmemAllocationProp;

typedef struct {
    CUmemAllocationProp pool; /* the first members of CUmemPoolProps */
    unsigned char rest_of_pool[72];
    const void *access;
    size_t access_count;
    size_t bytes;
    CUdeviceptr pointer;
} CUDA_MEM_ALLOC_NODE_PARAMS;

_Static_assert(sizeof(CUDA_MEM_ALLOC_NODE_PARAMS) == 120, "as in cuda.h");

typedef struct {
    unsigned int width, height;
    int format;
    unsigned int channels;
} CUDA_ARRAY_DESCRIPTOR_v1;

typedef struct {
    size_t width, height;
    int format;
    unsigned int channels;
} CUDA_ARRAY_DESCRIPTOR;

typedef struct {
    unsigned int width, height, depth;
    int format;
    unsigned int channels;
    unsigned int flags;
} CUDA_ARRAY3D_DESCRIPTOR_v1;

typedef struct {
    size_t width, height, depth;
    int format;
    unsigned int channels;
    unsigned int flags;
} CUDA_ARRAY3D_DESCRIPTOR;

typedef struct {
    unsigned int grid_x, grid_y, grid_z;
    unsigned int block_x, block_y, block_z;
    unsigned int shared_bytes;
    CUstream stream;
    void *attributes;
    unsigned int attribute_count;
} CUlaunchConfig;

typedef struct {
    CUfunction function;
    unsigned int grid_x, grid_y, grid_z;
    unsigned int block_x, block_y, block_z;
    unsigned int shared_bytes;
    CUstream stream;
    void **parameters;
} CUDA_LAUNCH_PARAMS;

_Static_assert(sizeof(CUlaunchConfig) == 56 && sizeof(CUDA_LAUNCH_PARAMS) == 56, "CUDA layout");

typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
};
enum { NVML_PROCESS_MODE_COMPUTE = 0 };
#define NVML_NO_INSTANCE 0xffffffffu
enum { NVML_UUID_SIZE = 96 };

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int pid;
    unsigned long long used;
} nvmlProcessInfo_v1_t;

typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
} nvmlProcessInfo_v2_t; /* and of the third version */

typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
    unsigned long long used_protected;
} nvmlProcessDetail_t;

typedef struct {
    unsigned int version, mode, count;
    nvmlProcessDetail_t *rows;
} nvmlProcessDetailList_t;

typedef struct {
    unsigned int pid;
    unsigned long long timestamp;
    unsigned int sm, memory, encoder, decoder;
} nvmlProcessUtilizationSample_t;

typedef struct {
    unsigned long long timestamp;
    unsigned int pid, sm, memory, encoder, decoder, jpeg, optical_flow;
} nvmlProcessUtilizationInfo_t;

typedef struct {
    unsigned int version, count;
    unsigned long long last_seen;
    nvmlProcessUtilizationInfo_t *samples;
} nvmlProcessesUtilizationInfo_t;

#endif
