/* The ledger under many threads, each with a slot of its own, one region and one limit: for the
 * race detector, which does not see other processes. What is granted never passes the limit, and at
 * the end nothing is charged. */
#include "../src/ledger.h"
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

#define THREADS 8
#define ROUNDS 20000
#define LIMIT 1000

static struct hami_usage usage;
static _Atomic int64_t granted;
static _Atomic int over;

static void *work(void *argument) {
    unsigned slot = (unsigned)(uintptr_t)argument;
    unsigned random = slot * 7919 + 1;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t units = 1 + (int64_t)(next_random(&random) % 300);
        struct ledger_change take = {0, HAMI_KIND_BUFFER, units, LIMIT};
        struct ledger_change give = {0, HAMI_KIND_BUFFER, -units, LIMIT};
        if (ledger_apply(&usage, slot, &take)) {
            over |= atomic_fetch_add(&granted, units) + units > LIMIT;
            atomic_fetch_sub(&granted, units);
            CHECK(ledger_apply(&usage, slot, &give));
        }
        ledger_note_overhead(&usage, slot, 0, HAMI_KIND_MODULE, next_random(&random) % 10);
        ledger_overhead(&usage, 0);
    }
    ledger_clear_slot(&usage, slot);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        usage.slots[i].state = HAMI_SLOT_LIVE;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(over == 0 && ledger_used(&usage, 0) == 0 && ledger_overhead(&usage, 0) == 0);
    CHECK(usage.devices[0].peak > 0 && usage.devices[0].peak <= LIMIT);
    return 0;
}
