/* CUDA graphs as vLLM and torch.compile use them: warm up, capture kernels and an allocation,
 * replay, drop. */
#include "driver.h"

static void *kernel(void) {
    void *module = NULL;
    void *function = NULL;
    EXPECT(0, cu.cuModuleLoadData(&module, MODULE));
    EXPECT(0, cu.cuModuleGetFunction(&function, module, "k_100us"));
    return function;
}

static void *captured(void *stream, void *function, size_t bytes) {
    void *graph = NULL;
    void *executable = NULL;
    pointer scratch = 0;
    EXPECT(0, cu.cuStreamBeginCapture(stream, 2)); /* relaxed, as PyTorch does */
    EXPECT(0, cu.cuMemAllocAsync(&scratch, bytes, stream));
    for (int i = 0; i < 5; i++) {
        EXPECT(0, cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL));
    }
    EXPECT(0, cu.cuMemFreeAsync(scratch, stream));
    EXPECT(0, cu.cuStreamEndCapture(stream, &graph));
    EXPECT(0, cu.cuGraphInstantiateWithFlags(&executable, graph, 0));
    EXPECT(0, cu.cuGraphDestroy(graph));
    return executable;
}

int main(void) {
    void *stream = NULL;
    begin();
    void *function = kernel();
    EXPECT(0, cu.cuStreamCreate(&stream, 1));
    EXPECT(0, cu.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL));
    void *small = captured(stream, function, 300 * MIB);
    void *large = captured(stream, function, 1100 * MIB);
    size_t before = free_mib();
    for (int i = 0; i < 3; i++) {
        EXPECT(0, cu.cuGraphLaunch(small, stream));
    }
    EXPECT(OUT_OF_MEMORY, cu.cuGraphLaunch(large, stream));
    EXPECT(0, cu.cuStreamSynchronize(stream));
    printf("%zu %zu\n", before, free_mib());
    EXPECT(0, cu.cuGraphExecDestroy(small));
    EXPECT(0, cu.cuGraphExecDestroy(large));
    EXPECT(0, cu.cuDeviceGraphMemTrim(0));
    printf("dropped %zu\n", free_mib());
    return 0;
}
