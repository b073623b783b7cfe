/*
 * What this process has allocated: pointer or handle -> charge. Open addressing in 64 locked
 * shards, O(1) at any size.
 */
#ifndef HAMI_TABLE_H
#define HAMI_TABLE_H

#include <stdbool.h>
#include <stdint.h>

enum table_tag {
    TABLE_POINTER = 1, /* key: device pointer */
    TABLE_ARRAY = 2,   /* key: array or mipmapped array handle */
    TABLE_VMM = 3,     /* key: generic allocation handle; refs counts handles and mappings */
    TABLE_MAPPING = 4, /* key: mapped address; owner: its generic allocation handle; units: bytes */
    TABLE_POOL = 5,    /* key: memory pool; units: reserved memory charged for it */
    TABLE_HOST_POOL = 7, /* key: memory pool that costs no device anything */
    TABLE_GRAPH =
        6, /* key: executable graph; owner: a bit for each CUDA device; see graph_memory.c */
};

struct table_entry {
    uint64_t key;
    uint64_t units;
    uint64_t owner; /* the context that frees it when destroyed; 0: none */
    uint32_t refs;
    uint8_t tag; /* 0: the place is empty */
    uint8_t device;
    uint8_t kind;
    uint8_t spilled; /* managed memory in place of what was asked for */
};

struct table;

/* NULL when there is no memory. */
struct table *table_new(void);
void table_free(struct table *table);

/* False when there is no memory; an entry of the same tag and key is replaced. */
bool table_put(struct table *table, const struct table_entry *entry);
bool table_get(struct table *table, enum table_tag tag, uint64_t key, struct table_entry *found);
bool table_take(struct table *table, enum table_tag tag, uint64_t key, struct table_entry *taken);

/* Adds to an entry's references; the entry leaves the table when they reach zero. False if it is
   not there. `now` is the entry as it is afterwards. */
bool table_refer(struct table *table, enum table_tag tag, uint64_t key, int change,
                 struct table_entry *now);

/* Calls `take_it` on every entry; those it answers true for leave the table. It must not call the
 * table. */
void table_sweep(struct table *table, bool (*take_it)(const struct table_entry *, void *),
                 void *argument);

#endif
