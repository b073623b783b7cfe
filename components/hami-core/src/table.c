#define _GNU_SOURCE
#include "table.h"

#include "lock.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define SHARDS 64u
#define FIRST_CAPACITY 128u /* places of a new shard: one page */

struct shard {
    hami_lock lock;
    uint32_t count;
    uint64_t capacity; /* a power of two, or 0 */
    struct table_entry *places;
} __attribute__((aligned(64)));

struct table {
    struct shard shards[SHARDS];
};

/* Memory comes from mmap: we may run inside an allocator that is being interposed. */
static void *pages_new(size_t bytes) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static void pages_free(struct table_entry *places, uint64_t capacity) {
    if (places != NULL) {
        munmap(places, capacity * sizeof(*places));
    }
}

/* Finaliser of splitmix64: device pointers differ in few middle bits. */
static uint64_t hash_of(uint8_t tag, uint64_t key) {
    uint64_t hash = key ^ (uint64_t)tag << 56;
    hash = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ hash >> 27) * UINT64_C(0x94d049bb133111eb);
    return hash ^ hash >> 31;
}

static struct shard *shard_of(struct table *table, uint64_t hash) {
    return &table->shards[hash >> 58];
}

struct table *table_new(void) { return pages_new(sizeof(struct table)); }

void table_free(struct table *table) {
    if (table == NULL) {
        return;
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        pages_free(table->shards[i].places, table->shards[i].capacity);
    }
    munmap(table, sizeof(*table));
}

/* The place of an entry, or the empty place where it would go. There is always one empty place. */
static uint64_t find_place(const struct shard *shard, uint8_t tag, uint64_t key) {
    uint64_t mask = shard->capacity - 1;
    uint64_t at = hash_of(tag, key) & mask;
    while (shard->places[at].tag != 0 &&
           (shard->places[at].tag != tag || shard->places[at].key != key)) {
        at = (at + 1) & mask;
    }
    return at;
}

/* Closes the gap so that no look-up stops early. */
static void remove_at(struct shard *shard, uint64_t gap) {
    uint64_t mask = shard->capacity - 1;
    uint64_t at = gap;
    shard->count--;
    for (;;) {
        at = (at + 1) & mask;
        if (shard->places[at].tag == 0) {
            break;
        }
        uint64_t home = hash_of(shard->places[at].tag, shard->places[at].key) & mask;
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            shard->places[gap] = shard->places[at];
            gap = at;
        }
    }
    shard->places[gap].tag = 0;
}

static bool make_room(struct shard *shard) {
    if (shard->capacity != 0 && (shard->count + 1) * UINT64_C(4) <= shard->capacity * 3) {
        return true;
    }
    struct shard grown = {.capacity = shard->capacity != 0 ? shard->capacity * 2 : FIRST_CAPACITY};
    grown.places = pages_new(grown.capacity * sizeof(*grown.places));
    if (grown.places == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < shard->capacity; i++) {
        const struct table_entry *entry = &shard->places[i];
        if (entry->tag != 0) {
            grown.places[find_place(&grown, entry->tag, entry->key)] = *entry;
        }
    }
    pages_free(shard->places, shard->capacity);
    shard->places = grown.places;
    shard->capacity = grown.capacity;
    return true;
}

bool table_put(struct table *table, const struct table_entry *entry) {
    struct shard *shard = shard_of(table, hash_of(entry->tag, entry->key));
    lock_take(&shard->lock);
    bool room = make_room(shard);
    if (room) {
        struct table_entry *place = &shard->places[find_place(shard, entry->tag, entry->key)];
        shard->count += place->tag == 0;
        *place = *entry;
    }
    lock_drop(&shard->lock);
    return room;
}

/* The entry under the shard's lock, which stays taken; NULL, and the lock dropped, if it is not
 * there. */
static struct table_entry *lock_entry(struct shard *shard, enum table_tag tag, uint64_t key) {
    lock_take(&shard->lock);
    if (shard->capacity != 0) {
        struct table_entry *place = &shard->places[find_place(shard, (uint8_t)tag, key)];
        if (place->tag != 0) {
            return place;
        }
    }
    lock_drop(&shard->lock);
    return NULL;
}

bool table_get(struct table *table, enum table_tag tag, uint64_t key, struct table_entry *found) {
    struct shard *shard = shard_of(table, hash_of((uint8_t)tag, key));
    struct table_entry *place = lock_entry(shard, tag, key);
    if (place == NULL) {
        return false;
    }
    *found = *place;
    lock_drop(&shard->lock);
    return true;
}

bool table_take(struct table *table, enum table_tag tag, uint64_t key, struct table_entry *taken) {
    struct shard *shard = shard_of(table, hash_of((uint8_t)tag, key));
    struct table_entry *place = lock_entry(shard, tag, key);
    if (place == NULL) {
        return false;
    }
    *taken = *place;
    remove_at(shard, (uint64_t)(place - shard->places));
    lock_drop(&shard->lock);
    return true;
}

bool table_refer(struct table *table, enum table_tag tag, uint64_t key, int change,
                 struct table_entry *now) {
    struct shard *shard = shard_of(table, hash_of((uint8_t)tag, key));
    struct table_entry *place = lock_entry(shard, tag, key);
    if (place == NULL) {
        return false;
    }
    place->refs += (uint32_t)change;
    *now = *place;
    if (place->refs == 0) {
        remove_at(shard, (uint64_t)(place - shard->places));
    }
    lock_drop(&shard->lock);
    return true;
}

static void sweep_shard(struct shard *shard, bool (*take_it)(const struct table_entry *, void *),
                        void *argument) {
    uint64_t at = 0;
    while (at < shard->capacity) {
        if (shard->places[at].tag != 0 && take_it(&shard->places[at], argument)) {
            remove_at(shard, at); /* may move another entry here: look at this place again */
        } else {
            at++;
        }
    }
}

void table_sweep(struct table *table, bool (*take_it)(const struct table_entry *, void *),
                 void *argument) {
    for (unsigned i = 0; i < SHARDS; i++) {
        lock_take(&table->shards[i].lock);
        sweep_shard(&table->shards[i], take_it, argument);
        lock_drop(&table->shards[i].lock);
    }
}
