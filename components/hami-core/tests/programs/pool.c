/* PyTorch's cudaMallocAsync backend: the default pool keeps what it has, is asked for its
 * attributes, and is trimmed when memory runs out. */
#include "driver.h"

#define RELEASE_THRESHOLD 4
#define RESERVED_CURRENT 5
#define USED_CURRENT 7
#define BLOCK (48 * MIB)
#define MOST 64

static unsigned long long attribute(void *pool, int which) {
    unsigned long long value = 0;
    EXPECT(0, cu.cuMemPoolGetAttribute(pool, which, &value));
    return value / MIB;
}

int main(void) {
    static pointer blocks[MOST];
    unsigned long long keep = UINT64_MAX;
    void *pool = NULL;
    int count = 0;
    int answer = 0;
    begin();
    EXPECT(0, cu.cuDeviceGetDefaultMemPool(&pool, 0));
    EXPECT(0, cu.cuMemPoolSetAttribute(pool, RELEASE_THRESHOLD, &keep));
    while (count < MOST && (answer = cu.cuMemAllocAsync(&blocks[count], BLOCK, NULL)) == 0) {
        count++;
    }
    EXPECT(OUT_OF_MEMORY, answer);
    EXPECT(0, cu.cuStreamSynchronize(NULL));
    printf("%zu %llu %zu\n", (size_t)count * BLOCK / MIB, attribute(pool, USED_CURRENT),
           free_mib());
    for (int i = 0; i < count; i++) {
        EXPECT(0, cu.cuMemFreeAsync(blocks[i], NULL));
    }
    EXPECT(0, cu.cuStreamSynchronize(NULL));
    printf("cached %llu %zu\n", attribute(pool, USED_CURRENT), free_mib());
    EXPECT(0, cu.cuMemAllocAsync(&blocks[0], BLOCK, NULL)); /* from what the pool holds */
    EXPECT(0, cu.cuMemFreeAsync(blocks[0], NULL));
    EXPECT(0, cu.cuStreamSynchronize(NULL));
    EXPECT(0, cu.cuMemPoolTrimTo(pool, 0));
    printf("trimmed %llu %zu\n", attribute(pool, RESERVED_CURRENT), free_mib());
    return 0;
}
