/*
 * PyTorch's expandable segments: one reservation larger than the card, grown by physical segments
 * of 20 MiB until there is no more; then half of it is unmapped and grown again. And vLLM's sleep
 * mode: all physical memory goes, the addresses stay, and are backed again at waking.
 */
#include "driver.h"

#define SEGMENT (20 * MIB)
#define MOST 256

static const int on_device[64] = {1, 0, 1, 0};
static const int access[4] = {1, 0, 3, 0}; /* device 0, read and write */
static pointer handles[MOST];
static pointer base;

static int grow(int at) {
    int answer = cu.cuMemCreate(&handles[at], SEGMENT, on_device, 0);
    if (answer == 0) {
        EXPECT(0, cu.cuMemMap(base + (pointer)at * SEGMENT, SEGMENT, 0, handles[at], 0));
        EXPECT(0, cu.cuMemSetAccess(base + (pointer)at * SEGMENT, SEGMENT, access, 1));
    }
    return answer;
}

static void shrink(int at) {
    EXPECT(0, cu.cuMemUnmap(base + (pointer)at * SEGMENT, SEGMENT));
    EXPECT(0, cu.cuMemRelease(handles[at]));
}

static int grow_all(int from) {
    int count = from;
    int answer = 0;
    while (count < MOST && (answer = grow(count)) == 0) {
        count++;
    }
    EXPECT(OUT_OF_MEMORY, answer);
    return count;
}

int main(void) {
    size_t granularity = 0;
    size_t total = 0;
    begin();
    EXPECT(0, cu.cuDeviceTotalMem(&total, 0));
    EXPECT(0, cu.cuMemGetAllocationGranularity(&granularity, on_device, 0));
    EXPECT(0, SEGMENT % granularity != 0);
    EXPECT(0, cu.cuMemAddressReserve(&base, MOST * SEGMENT, 0, 0, 0));
    int most = grow_all(0);
    for (int i = most / 2; i < most; i++) {
        shrink(i);
    }
    EXPECT(most, grow_all(most / 2));
    printf("%zu %zu\n", (size_t)most * SEGMENT / MIB, free_mib());
    for (int i = 0; i < most; i++) {
        shrink(i);
    }
    printf("asleep %zu\n", free_mib());
    for (int i = 0; i < most; i++) {
        EXPECT(0, grow(i));
    }
    printf("awake %zu\n", free_mib());
    for (int i = 0; i < most; i++) {
        shrink(i);
    }
    EXPECT(0, cu.cuMemAddressFree(base, MOST * SEGMENT));
    return 0;
}
