/* The CUDA driver types and numbers that the fake answers with (layouts as in CUDA 12). */
#ifndef FG_CUDA_H
#define FG_CUDA_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct ctx *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;
typedef struct module *CUmodule;
typedef struct function *CUfunction;
typedef struct pool *CUmemoryPool;
typedef struct array *CUarray;
typedef struct array *CUmipmappedArray;
typedef struct graph *CUgraph;
typedef struct graph_node *CUgraphNode;
typedef struct graph_exec *CUgraphExec;
typedef uint64_t CUmemHandle;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_FILE_NOT_FOUND = 301,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712,
    CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_UNKNOWN = 999,
};

typedef struct {
    unsigned char bytes[16];
} CUuuid;

typedef struct {
    uint32_t width, height;
    int format;
    uint32_t channels;
} CUDA_ARRAY_DESCRIPTOR_v1;

typedef struct {
    size_t width, height;
    int format;
    uint32_t channels;
} CUDA_ARRAY_DESCRIPTOR;

typedef struct {
    size_t width, height, depth;
    int format;
    uint32_t channels, flags;
} CUDA_ARRAY3D_DESCRIPTOR;

typedef struct {
    uint32_t width, height, depth;
    int format;
    uint32_t channels, flags;
} CUDA_ARRAY3D_DESCRIPTOR_v1;

typedef struct {
    int type; /* 1 device, 2 host, 3 host NUMA, 4 current host NUMA, 6 a part of a device */
    int id;
} CUmemLocation;

#define CU_MEM_LOCATION_TYPE_DEVICE 1
#define CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN 6 /* 13.5; id: device, domain */

typedef struct {
    int type;
    int requestedHandleTypes;
    CUmemLocation location;
    void *win32HandleMetaData;
    unsigned char allocFlags[8];
} CUmemAllocationProp;

typedef struct {
    int allocType;
    int handleTypes;
    CUmemLocation location;
    void *win32SecurityAttributes;
    size_t maxSize;
    uint16_t usage;
    unsigned char reserved[54];
} CUmemPoolProps;

typedef struct {
    uint32_t gridDimX, gridDimY, gridDimZ;
    uint32_t blockDimX, blockDimY, blockDimZ;
    uint32_t sharedMemBytes;
    CUstream hStream;
    void *attrs;
    uint32_t numAttrs;
} CUlaunchConfig;

typedef struct {
    CUfunction function;
    uint32_t gridDimX, gridDimY, gridDimZ;
    uint32_t blockDimX, blockDimY, blockDimZ;
    uint32_t sharedMemBytes;
    CUstream hStream;
    void **kernelParams;
} CUDA_LAUNCH_PARAMS;

/* CUDA_KERNEL_NODE_PARAMS up to the fields that matter; _v2 appends to it. */
typedef struct {
    CUfunction func;
    uint32_t gridDimX, gridDimY, gridDimZ;
    uint32_t blockDimX, blockDimY, blockDimZ;
    uint32_t sharedMemBytes;
    void **kernelParams;
    void **extra;
} CUDA_KERNEL_NODE_PARAMS;

typedef struct {
    unsigned char reserved[64];
} CUipcMemHandle;

_Static_assert(sizeof(CUDA_ARRAY3D_DESCRIPTOR) == 40, "CUDA layout");
_Static_assert(sizeof(CUmemAllocationProp) == 32, "CUDA layout");
_Static_assert(sizeof(CUmemPoolProps) == 88, "CUDA layout");
_Static_assert(sizeof(CUlaunchConfig) == 56, "CUDA layout");
_Static_assert(sizeof(CUDA_LAUNCH_PARAMS) == 56, "CUDA layout");

#endif
