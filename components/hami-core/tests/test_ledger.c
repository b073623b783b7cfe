/*
 * The ledger against a model: slots charge and release at random, are killed at every step of the
 * algorithm (a jump out of it stands in for the kill) while others go on, are cleared by others
 * that may be killed in turn.
 */
#include "check.h"

#include <setjmp.h>
#include <string.h>

static jmp_buf killed;
static long steps_left = -1; /* -1: nobody is killed */

static void step(void) {
    if (steps_left >= 0 && steps_left-- == 0) {
        longjmp(killed, 1);
    }
}

#define LEDGER_STEP(name) step()
#include "../src/ledger.c"

#define LIMIT 1000
#define SLOTS 6
#define DEVICES 2

static struct hami_usage usage;

static uint64_t sum_of_shares(unsigned device) {
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned kind = 0; kind < HAMI_KINDS; kind++) {
            sum += usage.slots[slot].share_units[device][kind];
        }
    }
    return sum;
}

/* True if the slot was killed in the middle. */
static bool change(unsigned slot, unsigned *random) {
    struct ledger_change one = {next_random(random) % DEVICES,
                                (enum hami_kind)(next_random(random) % 6),
                                (int64_t)(next_random(random) % 300), LIMIT};
    uint64_t share = usage.slots[slot].share_units[one.device][one.kind];
    if (next_random(random) % 2 != 0 && share != 0) {
        one.units = -(int64_t)(next_random(random) % share + 1);
    }
    uint64_t before = ledger_used(&usage, one.device);
    if (setjmp(killed) != 0) {
        return true;
    }
    bool done = ledger_apply(&usage, slot, &one);
    bool fits = one.units < 0 || before + (uint64_t)one.units <= LIMIT;
    CHECK(done == fits);
    return false;
}

/* Cleared by a neighbour that may die doing it, until one lives. */
static void clear(unsigned slot, unsigned *random) {
    for (;;) {
        steps_left = next_random(random) % 3 == 0 ? (long)(next_random(random) % 40) : -1;
        if (setjmp(killed) == 0) {
            ledger_clear_slot(&usage, slot);
            break;
        }
    }
    steps_left = -1;
    for (unsigned device = 0; device < DEVICES; device++) {
        for (unsigned kind = 0; kind < HAMI_KINDS; kind++) {
            CHECK(usage.slots[slot].share_units[device][kind] == 0);
        }
    }
}

static void check_quiet(const bool *dead) {
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if (dead[slot]) {
            return;
        }
    }
    for (unsigned device = 0; device < DEVICES; device++) {
        CHECK(ledger_used(&usage, device) == sum_of_shares(device));
        CHECK(ledger_used(&usage, device) <= LIMIT);
    }
}

static void random_lives(unsigned seed, unsigned rounds) {
    static bool dead[SLOTS];
    unsigned random = seed;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned slot = next_random(&random) % SLOTS;
        if (dead[slot]) {
            if (next_random(&random) % 4 == 0) {
                clear(slot, &random);
                dead[slot] = false;
            }
            continue;
        }
        steps_left = next_random(&random) % 4 == 0 ? (long)(next_random(&random) % 10) : -1;
        dead[slot] = change(slot, &random);
        steps_left = -1;
        check_quiet(dead);
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        clear(slot, &random);
        dead[slot] = false;
    }
    check_quiet(dead);
    CHECK(ledger_used(&usage, 0) == 0 && ledger_used(&usage, 1) == 0);
}

static void exact_at_the_limit(void) {
    struct ledger_change one = {0, HAMI_KIND_BUFFER, LIMIT, LIMIT};
    memset(&usage, 0, sizeof(usage));
    CHECK(ledger_apply(&usage, 0, &one));
    one.units = 1;
    CHECK(!ledger_apply(&usage, 1, &one));
    one.units = 0;
    CHECK(ledger_apply(&usage, 1, &one));
    one.limit_units =
        LIMIT -
        1; /* a limit lowered below what is used refuses even nothing, and takes nothing away */
    CHECK(!ledger_apply(&usage, 1, &one));
    CHECK(ledger_used(&usage, 0) == LIMIT);
    CHECK(usage.devices[0].peak == LIMIT);
}

static void huge_requests_never_wrap(void) {
    struct ledger_change one = {0, HAMI_KIND_BUFFER, INT64_MAX, LEDGER_NO_LIMIT};
    memset(&usage, 0, sizeof(usage));
    CHECK(!ledger_apply(&usage, 0, &one));
    one.units = (int64_t)ledger_units(UINT64_MAX);
    CHECK(one.units > 0 && !ledger_apply(&usage, 0, &one)); /* more than the counter can hold */
    CHECK(ledger_used(&usage, 0) == 0);
}

static void driver_granularity(void) {
    CHECK(ledger_units(0) == 0);
    CHECK(ledger_units(1) == 1);
    CHECK(ledger_units(512) == 1);
    CHECK(ledger_units(513) == 2);
    CHECK(ledger_units((2 << 20) - 1) == 4096);
    CHECK(ledger_units(2 << 20) == 4096);
    CHECK(ledger_units((2 << 20) + 1) == 8192);
}

static void overhead_is_apart(void) {
    memset(&usage, 0, sizeof(usage));
    usage.slots[3].state = HAMI_SLOT_LIVE;
    ledger_note_overhead(&usage, 3, 1, HAMI_KIND_CONTEXT, 600);
    CHECK(ledger_used(&usage, 1) == 0);
    CHECK(ledger_overhead(&usage, 1) == 600);
    ledger_clear_slot(&usage, 3);
    CHECK(ledger_overhead(&usage, 1) == 0 && ledger_used(&usage, 1) == 0);
}

int main(int argc, char **argv) {
    unsigned seed = seed_from(argc, argv);
    exact_at_the_limit();
    huge_requests_never_wrap();
    driver_granularity();
    overhead_is_apart();
    for (unsigned i = 0; i < 40; i++) {
        memset(&usage, 0, sizeof(usage));
        random_lives(seed + i, 20000);
    }
    return 0;
}
