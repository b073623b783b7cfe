/* What any program asks of a card: how large it is, memory of two kinds, a kernel. It prints the
 * card that it sees. */
#include "driver.h"

static void run_kernels(void) {
    void *module = NULL;
    void *function = NULL;
    EXPECT(0, cu.cuModuleLoadData(&module, MODULE));
    EXPECT(0, cu.cuModuleGetFunction(&function, module, "k_100us"));
    for (int i = 0; i < 20; i++) {
        EXPECT(0, cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    }
    EXPECT(0, cu.cuStreamSynchronize(NULL));
}

int main(void) {
    pointer one = 0;
    pointer two = 0;
    size_t free_bytes = 0;
    size_t total = 0;
    size_t whole = 0;
    begin();
    EXPECT(0, cu.cuMemGetInfo(&free_bytes, &total));
    EXPECT(0, cu.cuDeviceTotalMem(&whole, 0));
    EXPECT(OUT_OF_MEMORY, cu.cuMemAlloc(&one, whole + 1));
    EXPECT(0, cu.cuMemAlloc(&one, whole - 64 * MIB));
    EXPECT(OUT_OF_MEMORY, cu.cuMemAllocAsync(&two, 65 * MIB, NULL));
    EXPECT(0, cu.cuMemAllocAsync(&two, 64 * MIB, NULL));
    EXPECT(0, cu.cuStreamSynchronize(NULL));
    printf("%zu %zu %zu %zu\n", total / MIB, free_bytes / MIB, whole / MIB, free_mib());
    run_kernels();
    EXPECT(0, cu.cuMemFreeAsync(two, NULL));
    EXPECT(0, cu.cuMemFree(one));
    EXPECT(0, cu.cuStreamSynchronize(NULL));
    printf("%zu\n", free_mib());
    return 0;
}
