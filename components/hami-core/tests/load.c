/*
 * A tenant that computes: load SHAPE SECONDS STREAMS runs kernels of one shape as fast as it may.
 * Kernels' names tell the fake driver how long a wave of blocks takes.
 */
#include "driver_symbols.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int CUresult;
typedef void *handle;

static struct {
    CUresult (*init)(unsigned);
    CUresult (*retain)(handle *, int);
    CUresult (*set_current)(handle);
    CUresult (*load)(handle *, const void *);
    CUresult (*function)(handle *, handle, const char *);
    CUresult (*launch)(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                       handle, void **, void **);
    CUresult (*cooperative)(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                            unsigned, handle, void **);
    CUresult (*stream)(handle *, unsigned);
    CUresult (*synchronize)(void);
    CUresult (*begin)(handle, int);
    CUresult (*end)(handle, handle *);
    CUresult (*instantiate)(handle *, handle, unsigned long long);
    CUresult (*graph)(handle, handle);
} cu;

static const struct wanted wanted[] = {
    {"cuInit", &cu.init},
    {"cuDevicePrimaryCtxRetain", &cu.retain},
    {"cuCtxSetCurrent", &cu.set_current},
    {"cuModuleLoadData", &cu.load},
    {"cuModuleGetFunction", &cu.function},
    {"cuLaunchKernel", &cu.launch},
    {"cuLaunchCooperativeKernel", &cu.cooperative},
    {"cuStreamCreate", &cu.stream},
    {"cuCtxSynchronize", &cu.synchronize},
    {"cuStreamBeginCapture_v2", &cu.begin},
    {"cuStreamEndCapture", &cu.end},
    {"cuGraphInstantiateWithFlags", &cu.instantiate},
    {"cuGraphLaunch", &cu.graph},
};

static unsigned long long launches;
static handle module;
static handle streams[8];
static unsigned stream_count = 1;

static void check(CUresult answer, const char *what) {
    if (answer != 0) {
        fprintf(stderr, "load: %s answers %d\n", what, answer);
        exit(1);
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void nap_until(double end) {
    struct timespec until = {(time_t)end, (long)((end - (double)(time_t)end) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {
    }
}

static handle function_of(const char *name) {
    handle function = NULL;
    check(cu.function(&function, module, name), "cuModuleGetFunction");
    return function;
}

static handle next_stream(void) { return streams[launches++ % stream_count]; }

static void run(const char *name, unsigned blocks) {
    static const char *last;
    static handle function;
    if (name != last) {
        function = function_of(name);
        last = name;
    }
    check(cu.launch(function, blocks, 1, 1, 32, 1, 1, 0, next_stream(), NULL, NULL),
          "cuLaunchKernel");
}

static void wave(void) { run("k_1000us", 132); }
static void small_waves(void) { run("k_100us", 2048); }
static void many_waves(void) { run("k_1000us", 16384); }
static void tiny(void) { run("k_5us", 1); }
static void single(void) {
    run("k_500000us", 1);
    check(cu.synchronize(), "cuCtxSynchronize");
}

static void mixed(void) {
    static const char *const names[] = {"k_7us", "k_90us", "k_800us", "k_6000us"};
    static handle functions[4];
    static unsigned x = 12345;
    x = x * 1103515245 + 12345;
    unsigned i = x >> 16 & 3;
    if (functions[i] == NULL) {
        functions[i] = function_of(names[i]);
    }
    check(cu.launch(functions[i], 132, 1, 1, 32, 1, 1, 0, next_stream(), NULL, NULL),
          "cuLaunchKernel");
}

/* One function that takes another time at each launch, as its arguments say. */
static void varying(void) {
    static unsigned x = 54321;
    x = x * 1103515245 + 12345;
    run("k_50us", (x >> 16) % 31 * 132 + 132 * 33);
}

static void graph(void) {
    static handle exec;
    if (exec == NULL) {
        handle captured = NULL;
        handle stream = NULL;
        check(cu.stream(&stream, 1), "cuStreamCreate");
        check(cu.begin(stream, 0), "cuStreamBeginCapture");
        handle function = function_of("k_20us");
        for (int i = 0; i < 100; i++) {
            check(cu.launch(function, 132, 1, 1, 32, 1, 1, 0, stream, NULL, NULL),
                  "cuLaunchKernel");
        }
        check(cu.end(stream, &captured), "cuStreamEndCapture");
        check(cu.instantiate(&exec, captured, 0), "cuGraphInstantiate");
    }
    check(cu.graph(exec, next_stream()), "cuGraphLaunch");
}

static void cooperative(void) {
    static handle function;
    if (function == NULL) {
        function = function_of("k_1000us");
    }
    check(cu.cooperative(function, 132, 1, 1, 32, 1, 1, 0, next_stream(), NULL),
          "cuLaunchCooperativeKernel");
}

static void synced(void) {
    wave();
    check(cu.synchronize(), "cuCtxSynchronize");
}

/* 50 ms of work, then 200 ms of nothing. */
static void bursty(void) {
    for (int i = 0; i < 50; i++) {
        wave();
    }
    check(cu.synchronize(), "cuCtxSynchronize");
    nap_until(seconds() + 0.2);
}

static const struct {
    const char *name;
    void (*step)(void);
} shapes[] = {
    {"wave", wave},     {"small-waves", small_waves}, {"many-waves", many_waves},
    {"tiny", tiny},     {"single", single},           {"mixed", mixed},
    {"graph", graph},   {"cooperative", cooperative}, {"synced", synced},
    {"bursty", bursty}, {"varying", varying},
};

static void start(void) {
    handle context = NULL;
    find_symbols("load", wanted, sizeof wanted / sizeof *wanted);
    check(cu.init(0), "cuInit");
    check(cu.retain(&context, 0), "cuDevicePrimaryCtxRetain");
    check(cu.set_current(context), "cuCtxSetCurrent");
    check(cu.load(&module, "an opaque image"), "cuModuleLoadData");
    for (unsigned i = 1; i < stream_count; i++) {
        check(cu.stream(&streams[i], 1), "cuStreamCreate");
    }
}

int main(int argc, char **argv) {
    void (*step)(void) = NULL;
    for (size_t i = 0; argc == 4 && i < sizeof shapes / sizeof *shapes; i++) {
        step = strcmp(shapes[i].name, argv[1]) == 0 ? shapes[i].step : step;
    }
    if (step == NULL) {
        fprintf(stderr, "usage: load SHAPE SECONDS STREAMS\n");
        return 2;
    }
    stream_count = (unsigned)atoi(argv[3]);
    start();
    printf("ready\n");
    fflush(stdout);
    double end = seconds() + strtod(argv[2], NULL);
    while (seconds() < end) {
        step();
    }
    printf("%llu\n", launches);
    return 0;
}
