/*
 * The ledger under real kills: processes charge and release in one shared region as fast as they
 * can, all are killed at a random instant, their slots are cleared, and every device must be at
 * zero again. No charge ever passes the limit.
 */
#include "../src/ledger.h"
#include "check.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES 4
#define ROUNDS 150
#define LIMIT 1000

struct shared {
    struct hami_usage usage;
    _Atomic int running;
    _Atomic int over; /* times that more than the limit was seen */
};

static void live(struct shared *shared, unsigned slot, unsigned seed) {
    unsigned random = seed | 1;
    atomic_fetch_add(&shared->running, 1);
    for (;;) {
        struct ledger_change one = {next_random(&random) % 2, HAMI_KIND_BUFFER,
                                    (int64_t)(next_random(&random) % 400), LIMIT};
        uint64_t share = shared->usage.slots[slot].share_units[one.device][one.kind];
        if (share != 0) {
            one.units = -(int64_t)share;
        }
        ledger_apply(&shared->usage, slot, &one);
        if (ledger_used(&shared->usage, one.device) > LIMIT) {
            atomic_fetch_add(&shared->over, 1);
        }
    }
}

static void one_round(struct shared *shared, unsigned *random) {
    pid_t children[PROCESSES];
    atomic_store(&shared->running, 0);
    for (unsigned i = 0; i < PROCESSES; i++) {
        unsigned seed = next_random(random);
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            live(shared, i, seed);
        }
    }
    while (atomic_load(&shared->running) < PROCESSES) {
        usleep(50);
    }
    struct timespec pause = {0, (long)(next_random(random) % 3000) * 1000};
    nanosleep(&pause, NULL);
    for (unsigned i = 0; i < PROCESSES; i++) {
        kill(children[i], SIGKILL);
        /* Every second time the dead is cleared while the others still run. */
        if (next_random(random) % 2 == 0) {
            CHECK(waitpid(children[i], NULL, 0) == children[i]);
            ledger_clear_slot(&shared->usage, i);
            children[i] = 0;
        }
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        if (children[i] != 0) {
            CHECK(waitpid(children[i], NULL, 0) == children[i]);
            ledger_clear_slot(&shared->usage, i);
        }
    }
    CHECK(atomic_load(&shared->over) == 0);
    CHECK(ledger_used(&shared->usage, 0) == 0 && ledger_used(&shared->usage, 1) == 0);
}

int main(int argc, char **argv) {
    unsigned random = seed_from(argc, argv);
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    for (unsigned i = 0; i < ROUNDS; i++) {
        one_round(shared, &random);
    }
    return 0;
}
