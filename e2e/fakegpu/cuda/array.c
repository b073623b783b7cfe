/* Arrays and mipmapped arrays: memory with a computed size. */
#include "cuda_int.h"

#include <stdlib.h>

struct array {
    enum magic magic;
    uint64_t va; /* of its memory: never shown, arrays are opaque */
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
};

/* CU_AD_FORMAT_*: 1, 2 or 4 bytes a channel; 0 for one that is not modelled. */
static unsigned format_bytes(int format) {
    switch (format) {
    case 0x01:
    case 0x08:
        return 1;
    case 0x02:
    case 0x09:
    case 0x10:
        return 2;
    case 0x03:
    case 0x0a:
    case 0x20:
        return 4;
    default:
        return 0;
    }
}

static bool level_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d, uint64_t *bytes) {
    uint64_t texel = (uint64_t)format_bytes(d->format) * d->channels;
    uint64_t height = d->height > 0 ? d->height : 1, depth = d->depth > 0 ? d->depth : 1;
    return !__builtin_mul_overflow(texel, d->width, bytes) &&
           !__builtin_mul_overflow(*bytes, height, bytes) &&
           !__builtin_mul_overflow(*bytes, depth, bytes);
}

static CUresult create(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL && d->width > 0 && format_bytes(d->format) > 0 && levels > 0 &&
            (d->channels == 1 || d->channels == 2 || d->channels == 4));
    CUDA_ARRAY3D_DESCRIPTOR level = *d;
    uint64_t total = 0, bytes;
    for (unsigned i = 0; i < levels && level.width > 0; i++) {
        if (!level_bytes(&level, &bytes) || __builtin_add_overflow(total, bytes, &total))
            return CUDA_ERROR_OUT_OF_MEMORY;
        level.width = level.width > 1 ? level.width / 2 : 0;
        level.height = level.height > 1 ? level.height / 2 : level.height;
        level.depth = level.depth > 1 ? level.depth / 2 : level.depth;
    }
    struct array *a = calloc(1, sizeof *a);
    if (a == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *a = (struct array){.magic = MAGIC_ARRAY, .descriptor = *d};
    CUresult rc = cu_alloc(ctx, total, SPAN_ARRAY, false, &a->va);
    if (rc != CUDA_SUCCESS)
        free(a);
    else
        *out = a;
    return rc;
}

CUresult cuArray3DCreate_v2(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    REQUIRE(descriptor != NULL);
    return create(out, descriptor, 1);
}

CUresult cuArrayCreate_v2(CUarray *out, const CUDA_ARRAY_DESCRIPTOR *d) {
    REQUIRE(d != NULL);
    return create(out,
                  &(CUDA_ARRAY3D_DESCRIPTOR){d->width, d->height, 0, d->format, d->channels, 0}, 1);
}

CUresult cuArrayCreate(CUarray *out, const CUDA_ARRAY_DESCRIPTOR_v1 *d) {
    REQUIRE(d != NULL);
    return create(out,
                  &(CUDA_ARRAY3D_DESCRIPTOR){d->width, d->height, 0, d->format, d->channels, 0}, 1);
}

CUresult cuArray3DCreate(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR_v1 *d) {
    REQUIRE(d != NULL);
    return create(
        out,
        &(CUDA_ARRAY3D_DESCRIPTOR){d->width, d->height, d->depth, d->format, d->channels, d->flags},
        1);
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
                                unsigned levels) {
    REQUIRE(descriptor != NULL);
    return create(out, descriptor, levels);
}

CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *out, CUarray array) {
    ENTER();
    REQUIRE(out != NULL);
    REQUIRE_HANDLE(array, MAGIC_ARRAY);
    *out = (CUDA_ARRAY_DESCRIPTOR){array->descriptor.width, array->descriptor.height,
                                   array->descriptor.format, array->descriptor.channels};
    return CUDA_SUCCESS;
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *out, CUarray array) {
    ENTER();
    REQUIRE(out != NULL);
    REQUIRE_HANDLE(array, MAGIC_ARRAY);
    *out = array->descriptor;
    return CUDA_SUCCESS;
}

CUresult cuArrayDestroy(CUarray array) {
    struct span span;
    ENTER();
    REQUIRE_HANDLE(array, MAGIC_ARRAY);
    array->magic = MAGIC_DEAD; /* kept: a stale handle must stay readable */
    pthread_mutex_lock(&cu_process.mutex);
    if (cu_span_take(&cu_process.allocations, array->va, &span)) /* else its context took it */
        fg_uncharge(&cu_process.fg, span.card, span.charged, FG_DATA);
    pthread_mutex_unlock(&cu_process.mutex);
    return CUDA_SUCCESS;
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array) { return cuArrayDestroy(array); }
