/* The allocation table against a plain array, over growth, removal and references; and from several
 * threads. */
#include "../src/table.h"
#include "check.h"

#include <pthread.h>
#include <string.h>

#define KEYS 5000

static uint64_t key_of(unsigned i) {
    return UINT64_C(0x7f0000000000) + (uint64_t)i * 512; /* as device pointers come */
}

static void against_a_model(unsigned seed) {
    static uint64_t model[KEYS]; /* units, 0: absent */
    struct table *table = table_new();
    unsigned random = seed;
    memset(model, 0, sizeof(model));
    CHECK(table != NULL);
    for (unsigned i = 0; i < 400000; i++) {
        unsigned key = next_random(&random) % KEYS;
        struct table_entry entry = {
            .key = key_of(key), .units = i + 1, .refs = 1, .tag = TABLE_POINTER};
        struct table_entry found;
        switch (next_random(&random) % 3) {
        case 0:
            CHECK(table_put(table, &entry));
            model[key] = entry.units;
            break;
        case 1:
            CHECK(table_take(table, TABLE_POINTER, entry.key, &found) == (model[key] != 0));
            CHECK(model[key] == 0 || found.units == model[key]);
            model[key] = 0;
            break;
        default:
            CHECK(table_get(table, TABLE_POINTER, entry.key, &found) == (model[key] != 0));
            CHECK(model[key] == 0 || found.units == model[key]);
            CHECK(!table_get(table, TABLE_ARRAY, entry.key, &found));
        }
    }
    table_free(table);
}

static void references(void) {
    struct table *table = table_new();
    struct table_entry entry = {.key = 7, .units = 1, .refs = 1, .tag = TABLE_VMM};
    struct table_entry now;
    CHECK(!table_refer(table, TABLE_VMM, 7, 1, &now));
    CHECK(table_put(table, &entry));
    CHECK(table_refer(table, TABLE_VMM, 7, 1, &now) && now.refs == 2);
    CHECK(table_refer(table, TABLE_VMM, 7, -1, &now) && now.refs == 1);
    CHECK(table_refer(table, TABLE_VMM, 7, -1, &now) && now.refs == 0);
    CHECK(!table_get(table, TABLE_VMM, 7, &now));
    table_free(table);
}

static bool is_odd(const struct table_entry *entry, void *argument) {
    unsigned *seen = argument;
    *seen += 1;
    return (entry->units & 1) != 0;
}

static void sweep_takes_what_it_is_told(void) {
    struct table *table = table_new();
    struct table_entry found;
    unsigned seen = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        struct table_entry entry = {.key = key_of(i), .units = i, .refs = 1, .tag = TABLE_POINTER};
        CHECK(table_put(table, &entry));
    }
    table_sweep(table, is_odd, &seen);
    CHECK(seen >= KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        CHECK(table_get(table, TABLE_POINTER, key_of(i), &found) == (i % 2 == 0));
    }
    table_free(table);
}

struct worker {
    struct table *table;
    unsigned first;
};

static void *churn(void *argument) {
    struct worker *worker = argument;
    struct table_entry found;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 1000; i++) {
            struct table_entry entry = {
                .key = key_of(worker->first + i), .units = i, .refs = 1, .tag = TABLE_POINTER};
            CHECK(table_put(worker->table, &entry));
        }
        for (unsigned i = 0; i < 1000; i++) {
            CHECK(table_take(worker->table, TABLE_POINTER, key_of(worker->first + i), &found) &&
                  found.units == i);
        }
    }
    return NULL;
}

static void threads_do_not_lose_entries(void) {
    struct table *table = table_new();
    struct worker workers[8];
    pthread_t threads[8];
    for (unsigned i = 0; i < 8; i++) {
        workers[i] = (struct worker){table, i * 1000};
        CHECK(pthread_create(&threads[i], NULL, churn, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    table_free(table);
}

int main(int argc, char **argv) {
    against_a_model(seed_from(argc, argv));
    references();
    sweep_takes_what_it_is_told();
    threads_do_not_lose_entries();
    return 0;
}
