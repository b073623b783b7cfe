/*
 * A tenant for the benchmark: one kind of work again and again for some seconds, each step waited
 * for, so that what is counted has been done. work rate KIND SECONDS N | fill KIND | init |
 * calibrate | uuid; one line of JSON.
 */
#define _GNU_SOURCE
#include "driver.h"
#include "kernels.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

extern int cuDeviceGetUuid_v2(void *uuid, int device);
extern int cuDeviceGetName(char *name, int length, int device);
extern int cuDriverGetVersion(int *version);
extern int cuDeviceGetAttribute(int *value, int attribute, int device);
extern int cuLaunchCooperativeKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned,
                                     unsigned, unsigned, void *, void **);
extern int cuMemAllocManaged(pointer *, size_t, unsigned);
extern int cuArrayCreate_v2(void **, const void *);
extern int cuMemcpyHtoD_v2(pointer, const void *, size_t);

#define SMS 16 /* CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT */
#define MOST_LIVE 65536
#define TRIAD_FLOATS (4u << 20)

static struct {
    void *empty, *busy, *triad, *graph, *streams[2];
    pointer buffer;
    unsigned sms, n;
} state;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void launch(void *function, unsigned blocks, unsigned n, void *stream) {
    void *parameters[] = {&n, &state.buffer};
    EXPECT(0, cu.cuLaunchKernel(function, blocks, 1, 1, 256, 1, 1, 0, stream,
                                function == state.empty ? NULL : parameters, NULL));
}

static unsigned part(unsigned divisor) { return state.n / divisor > 0 ? state.n / divisor : 1; }

static void w1_launches(void) {
    for (int i = 0; i < 1000; i++) {
        launch(state.empty, 1, 0, NULL);
    }
}

static void w2_allocations(void) {
    pointer made = 0;
    for (int i = 0; i < 100; i++) {
        EXPECT(0, cu.cuMemAlloc(&made, 100000));
        EXPECT(0, cu.cuMemFree(made));
    }
}

static void w3_stream_ordered(void) {
    pointer made = 0;
    for (int i = 0; i < 100; i++) {
        EXPECT(0, cu.cuMemAllocAsync(&made, 100000, NULL));
        EXPECT(0, cu.cuMemFreeAsync(made, NULL));
    }
}

static void w4_segments(void) {
    static const int on_device[64] = {1, 0, 1, 0};
    static const int access[4] = {1, 0, 3, 0};
    pointer base = 0;
    pointer handle = 0;
    EXPECT(0, cu.cuMemAddressReserve(&base, 64 * MIB, 0, 0, 0));
    for (pointer at = base; at < base + 64 * MIB; at += 2 * MIB) {
        EXPECT(0, cu.cuMemCreate(&handle, 2 * MIB, on_device, 0));
        EXPECT(0, cu.cuMemMap(at, 2 * MIB, 0, handle, 0));
        EXPECT(0, cu.cuMemSetAccess(at, 2 * MIB, access, 1));
        EXPECT(0, cu.cuMemRelease(handle));
    }
    EXPECT(0, cu.cuMemUnmap(base, 64 * MIB));
    EXPECT(0, cu.cuMemAddressFree(base, 64 * MIB));
}

static void w5_persistent(void) { launch(state.busy, state.sms, state.n, NULL); }

static void w6_triad(void) { launch(state.triad, TRIAD_FLOATS / 256, TRIAD_FLOATS, NULL); }

static void w7_graph(void) { EXPECT(0, cu.cuGraphLaunch(state.graph, NULL)); }

static void w8_decode(void) {
    for (unsigned i = 0; i < 200; i++) {
        launch(state.busy, state.sms, part(200 - i % 150), NULL);
        if (i % 20 == 0) {
            EXPECT(0, cuMemcpyHtoD_v2(state.buffer, &state, 64));
        }
    }
}

static void w10_two_streams(void) {
    for (int i = 0; i < 8; i++) {
        launch(state.busy, state.sms / 2 + 1, part(8), state.streams[i % 2]);
    }
}

static void w11_cooperative(void) {
    void *parameters[] = {&state.n, &state.buffer};
    EXPECT(0,
           cuLaunchCooperativeKernel(state.busy, state.sms, 1, 1, 256, 1, 1, 0, NULL, parameters));
}

static void w12_long(void) { launch(state.busy, state.sms, state.n, NULL); }

static const struct {
    const char *name;
    void (*step)(void);
} kinds[] = {
    {"W1", w1_launches},      {"W2", w2_allocations}, {"W3", w3_stream_ordered},
    {"W4", w4_segments},      {"W5", w5_persistent},  {"W6", w6_triad},
    {"W7", w7_graph},         {"W8", w8_decode},      {"W10", w10_two_streams},
    {"W11", w11_cooperative}, {"W12", w12_long},
};

static void make_graph(void) {
    void *graph = NULL;
    EXPECT(0, cu.cuStreamBeginCapture(state.streams[0], 2));
    for (int i = 0; i < 50; i++) {
        launch(state.busy, state.sms, part(50), state.streams[0]);
    }
    EXPECT(0, cu.cuStreamEndCapture(state.streams[0], &graph));
    EXPECT(0, cu.cuGraphInstantiateWithFlags(&state.graph, graph, 0));
}

static void prepare(unsigned n) {
    void *module = NULL;
    int sms = 0;
    begin();
    EXPECT(0, cu.cuModuleLoadData(&module, kernels));
    EXPECT(0, cu.cuModuleGetFunction(&state.empty, module, "empty_k_5us"));
    EXPECT(0, cu.cuModuleGetFunction(&state.busy, module, "busy_k_1000us"));
    EXPECT(0, cu.cuModuleGetFunction(&state.triad, module, "triad_k_200us"));
    EXPECT(0, cu.cuMemAlloc(&state.buffer, 3 * 4 * (size_t)TRIAD_FLOATS));
    EXPECT(0, cu.cuStreamCreate(&state.streams[0], 1));
    EXPECT(0, cu.cuStreamCreate(&state.streams[1], 1));
    EXPECT(0, cuDeviceGetAttribute(&sms, SMS, 0));
    state.sms = (unsigned)sms;
    state.n = n;
}

static int rate(const char *kind, double seconds, unsigned n) {
    static pointer live[MOST_LIVE];
    void (*step)(void) = NULL;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        step = strcmp(kinds[i].name, kind) == 0 ? kinds[i].step : step;
    }
    if (step == NULL) {
        return 2;
    }
    prepare(n);
    if (step == w7_graph) {
        make_graph();
    }
    for (unsigned i = 0; step == w2_allocations && i < n && i < MOST_LIVE; i++) {
        EXPECT(0, cu.cuMemAlloc(&live[i], 512));
    }
    for (int i = 0; i < 2; i++) { /* to warm up */
        step();
        EXPECT(0, cu.cuCtxSynchronize());
    }
    unsigned long steps = 0;
    double start = now();
    double end = start;
    while (end < start + seconds) {
        step();
        EXPECT(0, cu.cuCtxSynchronize());
        steps++;
        end = now();
    }
    printf("{\"steps\": %lu, \"seconds\": %.6f}\n", steps, end - start);
    return 0;
}

static int take(const char *kind, size_t bytes) {
    static const int on_device[64] = {1, 0, 1, 0};
    struct {
        size_t width, height;
        int format;
        unsigned channels;
    } array = {bytes / 4 / 1024, 1024, 0x20, 1};
    pointer made = 0;
    void *handle = NULL;
    return strcmp(kind, "linear") == 0    ? cu.cuMemAlloc(&made, bytes)
           : strcmp(kind, "managed") == 0 ? cuMemAllocManaged(&made, bytes, 1)
           : strcmp(kind, "pool") == 0    ? cu.cuMemAllocAsync(&made, bytes, NULL)
           : strcmp(kind, "vmm") == 0     ? cu.cuMemCreate(&made, bytes, on_device, 0)
                                          : cuArrayCreate_v2(&handle, &array);
}

/* Until it is refused, in pieces of 32 MiB and then of 2; then it stays until its stdin ends. */
static int fill(const char *kind) {
    size_t granted = 0;
    char byte = 0;
    begin();
    for (size_t piece = 32 * MIB; piece >= 2 * MIB; piece /= 16) {
        while (take(kind, piece) == 0) {
            granted += piece;
        }
    }
    printf("{\"granted\": %zu, \"free\": %zu}\n", granted, free_mib() * MIB);
    fflush(stdout);
    return (int)read(STDIN_FILENO, &byte, 1);
}

static int calibrate(void) {
    const unsigned n = 1u << 20;
    prepare(n);
    double start = 0;
    for (int i = 0; i < 5; i++) {
        start = now();
        w5_persistent();
        EXPECT(0, cu.cuCtxSynchronize());
    }
    printf("{\"loops_per_ms\": %.0f}\n", n / ((now() - start) * 1000));
    return 0;
}

static int card(void) {
    unsigned char uuid[16];
    char name[256] = "";
    int version = 0;
    find_driver();
    EXPECT(0, cu.cuInit(0));
    EXPECT(0, cuDeviceGetUuid_v2(uuid, 0));
    EXPECT(0, cuDeviceGetName(name, sizeof(name), 0));
    EXPECT(0, cuDriverGetVersion(&version));
    printf("{\"name\": \"%s\", \"cuda\": %d, \"uuid\": \"GPU-", name, version);
    for (int i = 0; i < 16; i++) {
        printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    }
    printf("\"}\n");
    return 0;
}

static int init(void) {
    double start = now();
    begin();
    printf("{\"ms\": %.3f}\n", (now() - start) * 1000);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    return strcmp(what, "rate") == 0 && argc > 4
               ? rate(argv[2], strtod(argv[3], NULL), (unsigned)strtoul(argv[4], NULL, 10))
           : strcmp(what, "fill") == 0 && argc > 2 ? fill(argv[2])
           : strcmp(what, "calibrate") == 0        ? calibrate()
           : strcmp(what, "card") == 0             ? card()
           : strcmp(what, "init") == 0             ? init()
                                                   : 2;
}
