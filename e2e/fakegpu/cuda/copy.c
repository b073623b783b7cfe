/* Copies and fills: they move nothing, a fake card has no memory behind its addresses. */
#include "cuda_int.h"

/* A blocking copy waits for the context's work. */
static CUresult copied(void) {
    CONTEXT_OR_RETURN(ctx);
    cu_wait_context(ctx);
    return CUDA_SUCCESS;
}

static CUresult queued(CUstream stream) {
    CONTEXT_OR_RETURN(ctx);
    return cu_stream(stream, ctx) != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

#define BLOCKING(name, ...)                                                                        \
    CUresult name(__VA_ARGS__);                                                                    \
    CUresult name(__VA_ARGS__) { return copied(); }
#define QUEUED(name, ...)                                                                          \
    CUresult name(__VA_ARGS__, CUstream stream);                                                   \
    CUresult name(__VA_ARGS__, CUstream stream) { return queued(stream); }

#pragma GCC diagnostic ignored "-Wunused-parameter"

BLOCKING(cuMemcpy, CUdeviceptr dst, CUdeviceptr src, size_t n)
BLOCKING(cuMemcpyPeer, CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t n)
BLOCKING(cuMemcpyHtoD_v2, CUdeviceptr dst, const void *src, size_t n)
BLOCKING(cuMemcpyDtoH_v2, void *dst, CUdeviceptr src, size_t n)
BLOCKING(cuMemcpyDtoD_v2, CUdeviceptr dst, CUdeviceptr src, size_t n)
BLOCKING(cuMemcpyDtoA_v2, CUarray dst, size_t offset, CUdeviceptr src, size_t n)
BLOCKING(cuMemcpyAtoD_v2, CUdeviceptr dst, CUarray src, size_t offset, size_t n)
BLOCKING(cuMemcpyHtoA_v2, CUarray dst, size_t offset, const void *src, size_t n)
BLOCKING(cuMemcpyAtoH_v2, void *dst, CUarray src, size_t offset, size_t n)
BLOCKING(cuMemcpyAtoA_v2, CUarray dst, size_t to, CUarray src, size_t from, size_t n)
BLOCKING(cuMemcpy2D_v2, const void *what)
BLOCKING(cuMemcpy2DUnaligned_v2, const void *what)
BLOCKING(cuMemcpy3D_v2, const void *what)
BLOCKING(cuMemcpy3DPeer, const void *what)
QUEUED(cuMemcpyAsync, CUdeviceptr dst, CUdeviceptr src, size_t n)
QUEUED(cuMemcpyPeerAsync, CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t n)
QUEUED(cuMemcpyHtoDAsync_v2, CUdeviceptr dst, const void *src, size_t n)
QUEUED(cuMemcpyDtoHAsync_v2, void *dst, CUdeviceptr src, size_t n)
QUEUED(cuMemcpyDtoDAsync_v2, CUdeviceptr dst, CUdeviceptr src, size_t n)
QUEUED(cuMemcpy2DAsync_v2, const void *what)
QUEUED(cuMemcpy3DAsync_v2, const void *what)
QUEUED(cuMemcpy3DPeerAsync, const void *what)
BLOCKING(cuMemsetD8_v2, CUdeviceptr dst, unsigned char value, size_t n)
BLOCKING(cuMemsetD16_v2, CUdeviceptr dst, unsigned short value, size_t n)
BLOCKING(cuMemsetD32_v2, CUdeviceptr dst, unsigned value, size_t n)
BLOCKING(cuMemsetD2D8_v2, CUdeviceptr dst, size_t pitch, unsigned char value, size_t w, size_t h)
BLOCKING(cuMemsetD2D16_v2, CUdeviceptr dst, size_t pitch, unsigned short value, size_t w, size_t h)
BLOCKING(cuMemsetD2D32_v2, CUdeviceptr dst, size_t pitch, unsigned value, size_t w, size_t h)
QUEUED(cuMemsetD8Async, CUdeviceptr dst, unsigned char value, size_t n)
QUEUED(cuMemsetD16Async, CUdeviceptr dst, unsigned short value, size_t n)
QUEUED(cuMemsetD32Async, CUdeviceptr dst, unsigned value, size_t n)
QUEUED(cuMemsetD2D8Async, CUdeviceptr dst, size_t pitch, unsigned char value, size_t w, size_t h)
QUEUED(cuMemsetD2D16Async, CUdeviceptr dst, size_t pitch, unsigned short value, size_t w, size_t h)
QUEUED(cuMemsetD2D32Async, CUdeviceptr dst, size_t pitch, unsigned value, size_t w, size_t h)
QUEUED(cuMemPrefetchAsync, CUdeviceptr va, size_t n, CUdevice device)
QUEUED(cuMemPrefetchAsync_v2, CUdeviceptr va, size_t n, CUmemLocation where, unsigned flags)
BLOCKING(cuMemAdvise, CUdeviceptr va, size_t n, int advice, CUdevice device)
BLOCKING(cuMemAdvise_v2, CUdeviceptr va, size_t n, int advice, CUmemLocation where)
