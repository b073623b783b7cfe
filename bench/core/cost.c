/*
 * What one driver call costs: cost OPERATION [COUNT] prints one JSON object. Run with and without
 * the library preloaded; it knows only the driver's API.
 */
#define _GNU_SOURCE
#include "driver_symbols.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 40

typedef int CUresult;
typedef void *handle;
typedef uint64_t pointer;

static struct {
    CUresult (*init)(unsigned);
    CUresult (*retain)(handle *, int);
    CUresult (*set_current)(handle);
    CUresult (*load)(handle *, const void *);
    CUresult (*function)(handle *, handle, const char *);
    CUresult (*launch)(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                       handle, void **, void **);
    CUresult (*alloc)(pointer *, size_t);
    CUresult (*free)(pointer);
    CUresult (*info)(size_t *, size_t *);
} cu;

static const struct wanted wanted[] = {
    {"cuInit", &cu.init},
    {"cuDevicePrimaryCtxRetain", &cu.retain},
    {"cuCtxSetCurrent", &cu.set_current},
    {"cuModuleLoadData", &cu.load},
    {"cuModuleGetFunction", &cu.function},
    {"cuLaunchKernel", &cu.launch},
    {"cuMemAlloc_v2", &cu.alloc},
    {"cuMemFree_v2", &cu.free},
    {"cuMemGetInfo_v2", &cu.info},
};

static handle kernel;

static void check(CUresult answer, const char *what) {
    if (answer != 0) {
        fprintf(stderr, "cost: %s answers %d\n", what, answer);
        exit(1);
    }
}

static double now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void start(void) {
    handle context = NULL;
    check(cu.init(0), "cuInit");
    check(cu.retain(&context, 0), "cuDevicePrimaryCtxRetain");
    check(cu.set_current(context), "cuCtxSetCurrent");
}

static void use_kernel(const char *name) {
    handle module = NULL;
    check(cu.load(&module, "an opaque image"), "cuModuleLoadData");
    check(cu.function(&kernel, module, name), "cuModuleGetFunction");
}

static void launch_once(void) {
    check(cu.launch(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL), "cuLaunchKernel");
}

static void pair_once(void) {
    pointer one = 0;
    check(cu.alloc(&one, 4096), "cuMemAlloc");
    check(cu.free(one), "cuMemFree");
}

static void info_once(void) {
    size_t available = 0;
    size_t total = 0;
    check(cu.info(&available, &total), "cuMemGetInfo");
}

static const struct operation {
    const char *name;
    void (*once)(void);
    const char *kernel; /* its name tells the fake driver how long it takes */
    unsigned calls;     /* in one block */
} operations[] = {
    {"launch", launch_once, "k_0us", 20000},
    {"pair", pair_once, NULL, 5000},
    {"info", info_once, NULL, 20000},
};

static int compare(const void *a, const void *b) {
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* CPU time of this thread per call: the median of some blocks of calls. */
static void measure(const struct operation *operation) {
    double blocks[BLOCKS];
    double whole = 0;
    for (unsigned i = 0; i < operation->calls; i++) {
        operation->once();
    }
    for (unsigned block = 0; block < BLOCKS; block++) {
        double began = now_ns(CLOCK_THREAD_CPUTIME_ID);
        for (unsigned i = 0; i < operation->calls; i++) {
            operation->once();
        }
        blocks[block] = (now_ns(CLOCK_THREAD_CPUTIME_ID) - began) / operation->calls;
        whole += blocks[block] / BLOCKS;
    }
    qsort(blocks, BLOCKS, sizeof *blocks, compare);
    printf("{\"median_ns\":%.2f,\"mean_ns\":%.2f}\n", blocks[BLOCKS / 2], whole);
}

/* Stops before and after the calls, for the parent to count what lies between. */
static void traced(const struct operation *operation) {
    for (unsigned i = 0; i < operation->calls; i++) {
        operation->once();
    }
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    for (unsigned i = 0; i < operation->calls; i++) {
        operation->once();
    }
    raise(SIGSTOP);
    _exit(0);
}

/* Lets the child run to its next system call or stop signal. */
static int resume(pid_t child) {
    int status = 0;
    ptrace(PTRACE_SYSCALL, child, NULL, NULL);
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
        fprintf(stderr, "cost: the traced process has ended\n");
        exit(1);
    }
    return WSTOPSIG(status);
}

/* System calls of one block of calls; leaving raise() and entering the next one make three stops.
 */
static void count_syscalls(const struct operation *operation) {
    int status = 0;
    unsigned stops = 0;
    pid_t child = fork();
    if (child == 0) {
        start();
        use_kernel(operation->kernel != NULL ? operation->kernel : "k_0us");
        traced(operation);
    }
    waitpid(child, &status, 0);
    while (resume(child) != SIGSTOP) {
        stops++;
    }
    ptrace(PTRACE_KILL, child, NULL, NULL);
    waitpid(child, &status, 0);
    printf("{\"stops\":%u,\"calls\":%u}\n", stops, operation->calls);
}

static void run(const char *name, bool traces) {
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, name) != 0) {
            continue;
        }
        if (traces) {
            count_syscalls(&operations[i]);
            return;
        }
        start();
        use_kernel(operations[i].kernel != NULL ? operations[i].kernel : "k_0us");
        measure(&operations[i]);
    }
}

/* An allocation and its release while many others live. */
static void crowd(unsigned count) {
    static const struct operation pair = {"pair", pair_once, NULL, 5000};
    start();
    for (unsigned i = 0; i < count; i++) {
        pointer one = 0;
        check(cu.alloc(&one, 4096), "cuMemAlloc");
    }
    measure(&pair);
}

/* The start of a process: cuInit, then all that comes before its first allocation. */
static void begin(void) {
    double began = now_ns(CLOCK_MONOTONIC);
    check(cu.init(0), "cuInit");
    double ready = now_ns(CLOCK_MONOTONIC);
    start();
    pair_once();
    printf("{\"init_ns\":%.0f,\"first_ns\":%.0f}\n", ready - began,
           now_ns(CLOCK_MONOTONIC) - began);
}

/* A process that has launched once and then does nothing: what runs in it is not its own. */
static void idle(unsigned seconds) {
    start();
    use_kernel("k_0us");
    launch_once();
    struct timespec nap = {(time_t)seconds, 0};
    double before = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    nanosleep(&nap, NULL);
    printf("{\"cpu_ns\":%.0f}\n", now_ns(CLOCK_PROCESS_CPUTIME_ID) - before);
}

/* Launches without end and tells of every pause of over 2 ms: when it began and ended. */
static void pauses(double seconds) {
    start();
    use_kernel("k_0us");
    double last = now_ns(CLOCK_MONOTONIC);
    for (double end = last + seconds * 1e9; last < end;) {
        launch_once();
        double now = now_ns(CLOCK_MONOTONIC);
        if (now - last > 2e6) {
            printf("[%.0f,%.0f]\n", last, now);
            fflush(stdout);
        }
        last = now;
    }
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    double number = argc > 2 ? strtod(argv[2], NULL) : 0;
    find_symbols("cost", wanted, sizeof wanted / sizeof *wanted);
    if (strcmp(name, "begin") == 0) {
        begin();
    } else if (strcmp(name, "idle") == 0) {
        idle((unsigned)number);
    } else if (strcmp(name, "pauses") == 0) {
        pauses(number);
    } else if (strcmp(name, "crowd") == 0) {
        crowd((unsigned)number);
    } else {
        run(name, number != 0);
    }
    return 0;
}
