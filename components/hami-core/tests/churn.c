/* A program that takes and gives back every kind of device memory as fast as it can, until it is
 * killed; it writes a byte whenever it has made a few calls. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define HELD 12
#define CALLS_A_BYTE 8

typedef unsigned long long pointer;

extern int cuInit(unsigned flags);
extern int cuDevicePrimaryCtxRetain(void **context, int device);
extern int cuCtxSetCurrent(void *context);
extern int cuMemAlloc_v2(pointer *made, size_t bytes);
extern int cuMemAllocManaged(pointer *made, size_t bytes, unsigned flags);
extern int cuMemAllocAsync(pointer *made, size_t bytes, void *stream);
extern int cuMemFreeAsync(pointer made, void *stream);
extern int cuMemFree_v2(pointer made);
extern int cuStreamSynchronize(void *stream);
extern int cuMemCreate(pointer *made, size_t bytes, const void *properties,
                       unsigned long long flags);
extern int cuMemRelease(pointer made);
extern int cuArrayCreate_v2(void **made, const void *descriptor);
extern int cuArrayDestroy(void *made);

static struct {
    int kind; /* 0: nothing */
    pointer made;
} held[HELD];

static int take(int kind, pointer *made, size_t bytes) {
    static const int properties[64] = {1, 0, 1, 0}; /* pinned, on device 0 */
    struct {
        size_t width, height;
        int format;
        unsigned channels;
    } array = {bytes / 4 / 64, 64, 0x20, 1};
    switch (kind) {
    case 1:
        return cuMemAlloc_v2(made, bytes);
    case 2:
        return cuMemAllocManaged(made, bytes, 1);
    case 3:
        return cuMemAllocAsync(made, bytes, NULL);
    case 4:
        return cuMemCreate(made, (bytes + 2 * MIB - 1) / (2 * MIB) * 2 * MIB, properties, 0);
    default:
        return cuArrayCreate_v2((void **)made, &array);
    }
}

static int give(int kind, pointer made) {
    switch (kind) {
    case 3:
        return cuMemFreeAsync(made, NULL) != 0 || cuStreamSynchronize(NULL) != 0;
    case 4:
        return cuMemRelease(made);
    case 5:
        return cuArrayDestroy((void *)(uintptr_t)made);
    default:
        return cuMemFree_v2(made);
    }
}

int main(int argc, char **argv) {
    void *context = NULL;
    unsigned random = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) | 1 : 1;
    if (cuInit(0) != 0 || cuDevicePrimaryCtxRetain(&context, 0) != 0 ||
        cuCtxSetCurrent(context) != 0) {
        return 1;
    }
    for (unsigned calls = 0;; calls++) {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        unsigned i = random % HELD;
        if (held[i].kind != 0) {
            if (give(held[i].kind, held[i].made) != 0) {
                return 2;
            }
            held[i].kind = 0;
        } else if (take((int)(random >> 8) % 5 + 1, &held[i].made,
                        1 + (random >> 12) % (40 * MIB)) == 0) {
            held[i].kind = (int)(random >> 8) % 5 + 1;
        }
        if (calls % CALLS_A_BYTE == 0 && write(STDOUT_FILENO, "", 1) != 1) {
            return 3;
        }
    }
}
