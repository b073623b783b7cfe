/*
 * race PROCESSES FITTING ROUNDS BYTES: in every round all processes allocate at once, and who was
 * refused tries again. Prints how many rounds granted more than fit, and fewer.
 */
#include "driver_symbols.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int CUresult;

static struct {
    CUresult (*init)(unsigned);
    CUresult (*retain)(void **, int);
    CUresult (*set_current)(void *);
    CUresult (*alloc)(uint64_t *, size_t);
    CUresult (*free)(uint64_t);
} cu;

struct shared {
    pthread_barrier_t barrier;
    _Atomic unsigned granted;
    unsigned over, under, failed;
};

static const struct wanted wanted[] = {
    {"cuInit", &cu.init},
    {"cuDevicePrimaryCtxRetain", &cu.retain},
    {"cuCtxSetCurrent", &cu.set_current},
    {"cuMemAlloc_v2", &cu.alloc},
    {"cuMemFree_v2", &cu.free},
};

static void start(void) {
    void *context = NULL;
    find_symbols("race", wanted, sizeof wanted / sizeof *wanted);
    if (cu.init(0) != 0 || cu.retain(&context, 0) != 0 || cu.set_current(context) != 0) {
        fprintf(stderr, "race: no context\n");
        _exit(1);
    }
}

static bool attempt(struct shared *shared, uint64_t *memory, size_t bytes) {
    bool granted = cu.alloc(memory, bytes) == 0;
    atomic_fetch_add(&shared->granted, granted);
    return granted;
}

static void run(struct shared *shared, unsigned fitting, unsigned rounds, size_t bytes) {
    start();
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t memory = 0;
        pthread_barrier_wait(&shared->barrier);
        bool granted = attempt(shared, &memory, bytes);
        pthread_barrier_wait(&shared->barrier);
        granted = granted || attempt(shared, &memory, bytes);
        if (pthread_barrier_wait(&shared->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
            unsigned count = atomic_exchange(&shared->granted, 0);
            shared->over += count > fitting;
            shared->under += count < fitting;
        }
        if (granted && cu.free(memory) != 0) {
            shared->failed = 1;
        }
        pthread_barrier_wait(&shared->barrier);
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: race PROCESSES FITTING ROUNDS BYTES\n");
        return 2;
    }
    unsigned processes = (unsigned)atoi(argv[1]);
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &attributes, processes);
    for (unsigned i = 0; i < processes; i++) {
        if (fork() == 0) {
            run(shared, (unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]),
                strtoull(argv[4], NULL, 10));
            _exit(0);
        }
    }
    int failed = 0;
    for (int status = 0; wait(&status) > 0;) {
        failed |= status != 0;
    }
    printf("{\"over\":%u,\"under\":%u}\n", shared->over, shared->under);
    return failed || shared->failed;
}
