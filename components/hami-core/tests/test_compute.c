/* Credit, turns and prices: on made-up clocks, and credit under threads that all take at once. */
#include "../src/credit.h"
#include "../src/price.h"
#include "../src/turn.h"
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

static struct hami_usage usage;
static struct price_list prices;

static struct hami_usage_device *fresh(void) {
    memset(&usage, 0, sizeof(usage));
    return &usage.devices[0];
}

/* A tenant that always wants more gets its percentage of the time, to within a burst. */
static void long_run(unsigned percent, int64_t price) {
    struct hami_usage_device *device = fresh();
    int64_t taken = 0;
    uint64_t now = SECOND;
    credit_refill(device, percent, now);
    for (uint64_t end = now + 20 * SECOND; now < end;) {
        credit_refill(device, percent, now);
        if (credit_take(device, price)) {
            taken += price;
        } else {
            uint64_t wait = credit_wait_ns(device, percent);
            CHECK(wait > 0 && wait < 1000 * (uint64_t)SECOND);
            now += wait;
        }
    }
    int64_t fair = 20 * SECOND * percent / 100;
    CHECK(taken >= fair - 20 * MS && taken <= fair + CREDIT_BURST_NS + price);
    CHECK(device->charged_ns == (uint64_t)taken);
}

static void credit(void) {
    static const int64_t priced[] = {5000, 100000, MS, 125 * MS, 500 * MS};
    for (unsigned percent = 5; percent < 100; percent += 10) {
        for (unsigned i = 0; i < sizeof(priced) / sizeof(*priced); i++) {
            long_run(percent, priced[i]);
        }
    }
    struct hami_usage_device *device = fresh();
    CHECK(!credit_take(device, 1));
    credit_refill(device, 50, SECOND);
    credit_refill(device, 50, 1000 * SECOND); /* idle for long: a burst and no more */
    CHECK(device->credit_ns == CREDIT_BURST_NS / 2);
    CHECK(credit_take(device, SECOND));
    CHECK(!credit_take(device, 1));
    credit_settle(device, -SECOND); /* it took no time at all */
    CHECK(device->credit_ns == CREDIT_BURST_NS / 2 && device->charged_ns == 0);
    credit_settle(device, 2 * SECOND);
    credit_refill(device, 50, 5 * SECOND); /* the node was restarted: its clock began anew */
    CHECK(device->credit_ns == 0 && device->refill_ns == 5 * SECOND);
}

static void *take_all(void *argument) {
    struct hami_usage_device *device = argument;
    uint64_t now = 2 * SECOND;
    intptr_t taken = 0;
    for (int i = 0; i < 200000; i++) {
        credit_refill(device, 50, now);
        taken += credit_take(device, 1000);
        now += 1000;
    }
    return (void *)taken;
}

/* Nobody's credit is lost or taken twice. */
static void credit_threads(void) {
    struct hami_usage_device *device = fresh();
    pthread_t threads[4];
    int64_t taken = 0;
    credit_refill(device, 50, 2 * SECOND);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, take_all, device) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        void *count = NULL;
        pthread_join(threads[i], &count);
        taken += 1000 * (int64_t)(intptr_t)count;
    }
    CHECK(taken <= CREDIT_BURST_NS / 2 + 100 * MS + 1000);
    CHECK(device->charged_ns == (uint64_t)taken);
}

/* Slots that always want more share evenly, whoever comes and goes. */
static void turns(void) {
    fresh();
    turn_wait(&usage, 0, 3, 100);
    turn_wait(&usage, 1, 3, 100);
    turn_serve(&usage, 0, MS);
    CHECK(!turn_is_ours(&usage, 0, 3, 50));
    CHECK(turn_is_ours(&usage, 1, 3, 50));
    CHECK(turn_is_ours(&usage, 0, 3, 101)); /* it said until when it waits, and is gone */
    CHECK(turn_is_ours(&usage, 0, 2, 50));  /* it waits for another device */
    turn_leave(&usage, 1);
    CHECK(turn_is_ours(&usage, 0, 3, 50));

    turn_wait(&usage, 1, 0, (UINT64_C(1) << 28) + 5); /* the clock's bits wrap */
    CHECK(!turn_is_ours(&usage, 0, 0, (UINT64_C(1) << 28) - 5));
    CHECK(turn_is_ours(&usage, 0, 0, (UINT64_C(1) << 28) + 6));

    turn_serve(&usage, 0, 100 * SECOND);
    usage.devices[0].holder = 1;
    turn_join(&usage, 1, 0, 50 * MS); /* a late comer does not get 100 s ahead of the others */
    turn_wait(&usage, 1, 0, 100);
    CHECK(!turn_is_ours(&usage, 0, 0, 50));
    turn_serve(&usage, 1, 60 * MS);
    CHECK(turn_is_ours(&usage, 0, 0, 50));
    turn_join(&usage, 1, 0, 0);
    CHECK(usage.turns[1].served > usage.turns[0].served); /* who is ahead stays so */
}

static double note(struct price *price, double duration, double busy, bool crowded) {
    struct measured measured = {duration, busy, crowded, 1};
    return price_note(price, &measured);
}

static void price(unsigned *random) {
    int functions[3] = {0};
    struct price *one = price_find(&prices, price_key(&functions[0], 0, 132));
    CHECK(one == price_find(&prices, price_key(&functions[0], 0, 140))); /* the same power of two */
    CHECK(one != price_find(&prices, price_key(&functions[0], 0, 300)));
    CHECK(one != price_find(&prices, price_key(&functions[0], 1, 132)));
    CHECK(one != price_find(&prices, price_key(&functions[1], 0, 132)));
    CHECK(price_key(&functions[0], 0, UINT64_MAX) != 0);

    CHECK(note(one, 1e6, 1e6, false) == 1e6 && one->estimate_ns == 1000000);
    CHECK(note(one, 3e6, 3e6, false) == 3e6);   /* its own time, alone on the device */
    CHECK(note(one, 1e6, 0.5e6, false) == 5e5); /* another launch of ours ran beside it */

    struct price *crowded = price_find(&prices, price_key(&functions[1], 0, 1));
    double paid = 0;
    for (unsigned i = 0; i < 1000; i++) { /* 1 ms with 10 % noise, three times that in a crowd */
        double duration = 1e6 * (0.9 + 0.2 * (next_random(random) % 1000) / 1000.0);
        duration *= next_random(random) % 2 == 0 ? 3 : 1;
        paid += note(crowded, duration, duration, true);
    }
    CHECK(paid > 0.96e9 && paid < 1.04e9);
    paid = 0;
    for (unsigned i = 0; i < 64; i++) { /* always behind somebody else's work */
        paid += note(crowded, 50e6, 50e6, true);
    }
    CHECK(paid > 64e6 && paid < 80e6);
    for (unsigned i = 0; i < 16; i++) { /* it seems to have become longer, and nobody is there */
        paid = note(crowded, 50e6, 50e6, false);
    }
    CHECK(paid == 50e6);
    for (unsigned i = 0; i < 16; i++) {
        note(crowded, 1e6, 1e6, true);
    }
    struct measured corrected = {1e6, 1e6, true, 0.5};
    CHECK(price_note(crowded, &corrected) == 0.5e6);
    corrected.gain = 8; /* never more than it can have taken */
    CHECK(price_note(crowded, &corrected) == 1e6);
    corrected.crowded = false; /* alone it is known for certain */
    CHECK(price_note(crowded, &corrected) == 1e6);
}

/* A device is busy but once, whatever launches seem to have taken. */
static void possible(void) {
    uint64_t occupied = 0;
    double sum = 0;
    for (unsigned i = 1; i <= 1000; i++) { /* each of 1 ms seems to take 50 ms */
        sum += price_possible(&occupied, SECOND + (i - 1) * MS, SECOND + i * MS, 50e6);
    }
    CHECK(sum >= 1000e6 && sum <= 1100e6);
    occupied = 0;
    for (unsigned i = 1; i <= 1000; i++) { /* true ones are left alone */
        CHECK(price_possible(&occupied, SECOND, SECOND + i * MS, 1e6) == 1e6);
    }
}

/* Nobody gets back more than was paid. */
static void difference(void) {
    CHECK(price_difference(3000, 1000, 10, 10000) == 20000);
    CHECK(price_difference(1000, 3000, 10, 30000) == -20000);
    CHECK(price_difference(100, 400000, 1000, 500000) == -500000); /* the others had paid 100 */
}

static struct seen seen(int percent) { return (struct seen){percent, 1}; }

/* What is charged comes to what NVML sees, from any start, and stays there. */
static void gain(unsigned *random) {
    for (double bias = 0.6; bias < 1.9; bias += 0.1) {
        double gain = 1;
        for (unsigned second = 0; second < 30; second++) {
            double charged = 40 * gain * (0.98 + 0.04 * (next_random(random) % 100) / 100.0);
            gain = price_gain(gain, charged, seen((int)(40 / bias + 0.5)));
        }
        CHECK(gain > 0.95 / bias && gain < 1.05 / bias);
    }
    CHECK(price_gain(0.7, 40, seen(-1)) == 0.7); /* NVML does not say */
    CHECK(price_gain(0.7, 2, seen(8)) == 0.7);   /* a second of hardly any work */
    CHECK(price_gain(0.7, 0, seen(40)) ==
          1.4); /* a second of much that hardly anything was charged for */
    CHECK(price_gain(1, 40.9, seen(40)) == 1);
    CHECK(price_gain(1, 47.5, (struct seen){40, 8}) ==
          1); /* eight have lost a part of a percent each */
    CHECK(price_gain(1, 50, (struct seen){40, 8}) < 1);
    CHECK(price_gain(1, 38, (struct seen){40, 8}) > 1);
    double least = 1;
    double most = 1;
    for (unsigned i = 0; i < 100; i++) {
        least = price_gain(least, 40, seen(0));
        most = price_gain(most, 10, seen(100));
    }
    CHECK(least == 0.5 && most == 1024);
}

/* More functions than the list holds still have prices. */
static void full_list(void) {
    for (uintptr_t i = 0; i < 3 * (uintptr_t)PRICE_ENTRIES; i++) {
        struct price *one = price_find(&prices, price_key((void *)(i << 4), 0, 1));
        CHECK(one >= prices.entries && one < prices.entries + PRICE_ENTRIES);
    }
}

int main(int argc, char **argv) {
    unsigned random = seed_from(argc, argv);
    credit();
    credit_threads();
    turns();
    price(&random);
    gain(&random);
    difference();
    possible();
    full_list();
    return 0;
}
