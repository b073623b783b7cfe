/* Memory that belongs to somebody else: exported handles and external memory cost who opens them
 * nothing. */
#define _GNU_SOURCE
#include "cuda_int.h"
#include "vmm_int.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define POSIX_FD 1 /* of exported handles and of external memory (OPAQUE_FD) */

/* What is behind an exported descriptor. */
struct exported {
    uint32_t magic;
    uint32_t card;
    uint64_t size;
};

struct external {
    enum magic magic;
    uint64_t size;
};

/* CUDA_EXTERNAL_MEMORY_HANDLE_DESC and CUDA_EXTERNAL_MEMORY_BUFFER_DESC, up to what matters. */
typedef struct {
    int type;
    union {
        int fd;
        void *names[2];
    } handle;
    uint64_t size;
} external_desc;

typedef struct {
    uint64_t offset, size;
} buffer_desc;

CUresult cuMemExportToShareableHandle(void *out, CUmemHandle handle, int type,
                                      unsigned long long flags) {
    struct exported exported = {.magic = FG_MAGIC};
    ENTER();
    REQUIRE(out != NULL && type == POSIX_FD && flags == 0);
    pthread_mutex_lock(&cu_process.mutex);
    const struct physical *p = cu_physical(handle);
    bool ok = p != NULL && p->card >= 0;
    if (ok) {
        exported.card = (uint32_t)p->card;
        exported.size = p->size;
    }
    pthread_mutex_unlock(&cu_process.mutex);
    REQUIRE(ok);
    int fd = memfd_create("nvidia-memory", MFD_CLOEXEC);
    if (fd < 0 || write(fd, &exported, sizeof exported) != (ssize_t)sizeof exported)
        return CUDA_ERROR_UNKNOWN;
    *(int *)out = fd;
    return CUDA_SUCCESS;
}

static bool read_exported(int fd, struct exported *exported) {
    return pread(fd, exported, sizeof *exported, 0) == (ssize_t)sizeof *exported &&
           exported->magic == FG_MAGIC && exported->card < FG_UNITS;
}

CUresult cuMemImportFromShareableHandle(CUmemHandle *out, void *handle, int type) {
    struct exported exported;
    ENTER();
    REQUIRE(out != NULL && type == POSIX_FD && read_exported((int)(intptr_t)handle, &exported));
    struct physical *p = cu_new_physical(exported.size, -1);
    if (p == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (uintptr_t)p;
    return CUDA_SUCCESS;
}

/* The descriptor becomes the driver's, as with a real one. */
CUresult cuImportExternalMemory(struct external **out, const external_desc *desc) {
    ENTER();
    REQUIRE(out != NULL && desc != NULL && desc->type == POSIX_FD && desc->size > 0);
    if (close(desc->handle.fd) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    struct external *e = calloc(1, sizeof *e);
    if (e == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *e = (struct external){.magic = MAGIC_EXTERNAL, .size = desc->size};
    *out = e;
    return CUDA_SUCCESS;
}

CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *out, struct external *external,
                                         const buffer_desc *desc) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE_HANDLE(external, MAGIC_EXTERNAL);
    REQUIRE(out != NULL && desc != NULL && desc->size > 0 &&
            desc->offset + desc->size <= external->size);
    pthread_mutex_lock(&cu_process.mutex);
    *out = cu_take_va(desc->size, false);
    struct span *s = cu_span_add(
        &cu_process.allocations,
        (struct span){
            .va = *out, .size = desc->size, .ctx = ctx, .card = ctx->card, .kind = SPAN_LINEAR});
    pthread_mutex_unlock(&cu_process.mutex);
    return s != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuDestroyExternalMemory(struct external *external) {
    ENTER();
    REQUIRE_HANDLE(external, MAGIC_EXTERNAL);
    external->magic = MAGIC_DEAD; /* kept: a stale handle must stay readable */
    return CUDA_SUCCESS;
}
