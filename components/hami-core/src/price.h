/*
 * What a launch costs: GPU time learned from measured launches of the same function, device and
 * size of grid. Pure. Estimates are read by any thread; what is measured is noted by one at a time.
 */
#ifndef HAMI_PRICE_H
#define HAMI_PRICE_H

#include <stdbool.h>
#include <stdint.h>

#define PRICE_ENTRIES 4096u
#define PRICE_RECENT 16u

struct price {
    _Atomic uint64_t key;         /* 0: free */
    _Atomic uint64_t estimate_ns; /* 0: not known yet */
    _Atomic uint32_t in_flight;   /* measurements that have not ended */
    uint32_t seen;
    float recent[PRICE_RECENT]; /* durations in ns */
    float low;                  /* what it takes alone, as far as that was ever seen */
};

struct price_list {
    struct price entries[PRICE_ENTRIES];
};

/* The key of a launch; blocks are counted by their power of two. Never 0. */
uint64_t price_key(const void *function, unsigned device, uint64_t blocks);

/* The entry of a key, made if need be. When the list is full keys share one. */
struct price *price_find(struct price_list *list, uint64_t key);

struct measured {
    double duration_ns; /* from the launch's start to its end */
    double busy_ns;     /* of it, what no other launch of this process was running too */
    bool crowded;       /* others may have had the device for part of it */
    double gain;        /* in a crowd: what is charged of the time that seems to be ours */
};

/* Learns from a measured launch and says what it ought to have cost. In a crowd what is far above
 * the shortest of late is taken for time that others had, and the gain says how far that was wrong
 * so far. */
double price_note(struct price *price, const struct measured *measured);

/* How much of a device's time that launches seem to have taken since one moment can be true, when
 * *occupied_ns says up to when the time is accounted for already: a device is busy but once. */
double price_possible(uint64_t *occupied_ns, uint64_t since_ns, uint64_t now_ns, double used_ns);

/* What a launch that was charged too little or too much makes good, for itself and for those that
 * it stands for: at other times they may have been charged otherwise, so no more comes back than
 * was paid for them together. */
int64_t price_difference(double cost_ns, uint64_t charged_ns, uint32_t weight, uint64_t paid_ns);

/* What NVML saw of a second: it cuts each process's percents to whole ones. */
struct seen {
    int percent; /* of the device's time, all of our processes together; below zero: not said */
    unsigned processes;
};

/* The gain after a second in which so many percent of the device's time were charged with the old
 * one. */
double price_gain(double gain, double charged_percent, struct seen seen);

#endif
