#include "array_size.h"

/* CUarray_format, as in cuda.h. */
enum {
    FORMAT_UINT8 = 0x01,
    FORMAT_UINT16 = 0x02,
    FORMAT_SINT8 = 0x08,
    FORMAT_SINT16 = 0x09,
    FORMAT_HALF = 0x10,
};

/* Bytes of one channel; for formats that are packed or compressed, the most that any of them takes.
 */
static unsigned channel_bytes(int format) {
    switch (format) {
    case FORMAT_UINT8:
    case FORMAT_SINT8:
        return 1;
    case FORMAT_UINT16:
    case FORMAT_SINT16:
    case FORMAT_HALF:
        return 2;
    default:
        return 4;
    }
}

static uint64_t times(uint64_t a, uint64_t b) {
    uint64_t result = 0;
    return __builtin_mul_overflow(a, b, &result) ? UINT64_MAX : result;
}

static uint64_t at_least_one(uint64_t extent) { return extent != 0 ? extent : 1; }

static uint64_t half(uint64_t extent) { return extent > 1 ? extent / 2 : extent; }

uint64_t array_bytes_3d(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned int levels) {
    if (descriptor == NULL ||
        (descriptor->flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0) {
        return 0;
    }
    uint64_t width = at_least_one(descriptor->width);
    uint64_t height = at_least_one(descriptor->height);
    uint64_t depth = at_least_one(descriptor->depth);
    uint64_t texel =
        (uint64_t)channel_bytes(descriptor->format) * at_least_one(descriptor->channels);
    uint64_t sum = 0;
    for (unsigned int level = 0; level < levels && level < 64; level++) {
        uint64_t bytes = times(times(times(width, height), depth), texel);
        sum = __builtin_add_overflow(sum, bytes, &sum) ? UINT64_MAX : sum;
        width = half(width);
        height = half(height);
        /* Layers stay as many at every level; counting a volume's depth so too can only charge too
         * much. */
    }
    return sum;
}

uint64_t array_bytes_3d_v1(const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor) {
    if (descriptor == NULL) {
        return 0;
    }
    CUDA_ARRAY3D_DESCRIPTOR wide = {descriptor->width,  descriptor->height,   descriptor->depth,
                                    descriptor->format, descriptor->channels, descriptor->flags};
    return array_bytes_3d(&wide, 1);
}

uint64_t array_bytes_2d(const CUDA_ARRAY_DESCRIPTOR *descriptor) {
    if (descriptor == NULL) {
        return 0;
    }
    CUDA_ARRAY3D_DESCRIPTOR flat = {descriptor->width,  descriptor->height,   1,
                                    descriptor->format, descriptor->channels, 0};
    return array_bytes_3d(&flat, 1);
}

uint64_t array_bytes_2d_v1(const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor) {
    if (descriptor == NULL) {
        return 0;
    }
    CUDA_ARRAY3D_DESCRIPTOR flat = {descriptor->width,  descriptor->height,   1,
                                    descriptor->format, descriptor->channels, 0};
    return array_bytes_3d(&flat, 1);
}
