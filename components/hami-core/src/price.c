#include "price.h"

#include <stdatomic.h>

#define PROBES 64u
#define CLUSTER 1.25  /* times the low mark: what lies within is the kernel's own time and noise */
#define LEARNING 0.25 /* weight of the newest in the estimate */
#define FORGETTING 1.002   /* a crowd may hide the kernel's own time for some hundred samples */
#define SLACK_NS 100000000 /* what a sample that stands for others may be off by */
#define GAIN_LEAST 0.5
#define GAIN_MOST 1024.0 /* the shortest of late may be another thing than the rest */
#define BELIEVED 1.0     /* NVML counts in whole percents, and its second is not quite ours */
#define TELLING 5.0      /* percent: with less in it a second tells nothing */
#define FAR 0.1          /* what is off by more is put right at once, less by halves */
#define STEP_DOWN -0.3
#define STEP_UP 1.0

static uint64_t mix(uint64_t x) { /* splitmix64's finaliser */
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t price_key(const void *function, unsigned device, uint64_t blocks) {
    unsigned size = blocks == 0 ? 0 : 64 - (unsigned)__builtin_clzll(blocks);
    uint64_t key = mix((uint64_t)(uintptr_t)function) ^ mix((uint64_t)device << 8 | (size + 1));
    return key != 0 ? key : 1;
}

struct price *price_find(struct price_list *list, uint64_t key) {
    for (unsigned i = 0; i < PROBES; i++) {
        struct price *price = &list->entries[(key + i) % PRICE_ENTRIES];
        uint64_t found = atomic_load_explicit(&price->key, memory_order_acquire);
        if (found == 0 && atomic_compare_exchange_strong(&price->key, &found, key)) {
            return price;
        }
        if (found == key) {
            return price;
        }
    }
    return &list->entries[key % PRICE_ENTRIES];
}

/* The second shortest of late: one that was measured too short does not decide. */
static double low_mark(const struct price *price, unsigned count) {
    double first = price->recent[0];
    double second = first;
    for (unsigned i = 1; i < count; i++) {
        double one = price->recent[i];
        if (one < first) {
            second = first;
            first = one;
        } else if (one < second || i == 1) {
            second = one;
        }
    }
    return count < PRICE_RECENT / 2 ? first : second;
}

/* In a crowd the shortest of late may have had to wait too, so what was seen before counts on for a
 * while. */
static void lower(struct price *price, unsigned count, bool crowded) {
    double mark = low_mark(price, count);
    double kept = price->low * FORGETTING;
    price->low = (float)(crowded && kept > 0 && kept < mark ? kept : mark);
}

/* The kernel's time alone on the device: the mean of the lowest cluster, for the mean of noise is
 * none. */
static double solo_ns(struct price *price, bool crowded, double *end) {
    unsigned count = price->seen < PRICE_RECENT ? price->seen : PRICE_RECENT;
    double sum = 0;
    unsigned used = 0;
    lower(price, count, crowded);
    *end = price->low * CLUSTER;
    for (unsigned i = 0; i < count; i++) {
        if (price->recent[i] <= *end) {
            sum += price->recent[i];
            used++;
        }
    }
    return used > 0 ? sum / used : price->low;
}

double price_note(struct price *price, const struct measured *measured) {
    double end = 0;
    double cost = measured->busy_ns;
    price->recent[price->seen++ % PRICE_RECENT] = (float)measured->duration_ns;
    double solo = solo_ns(price, measured->crowded, &end);
    if (measured->crowded && measured->duration_ns > end) {
        cost *= solo / measured->duration_ns;
    }
    if (measured->crowded) {
        cost *= measured->gain;
        cost = cost < measured->busy_ns ? cost : measured->busy_ns;
    }
    double estimate = (double)atomic_load_explicit(&price->estimate_ns, memory_order_relaxed);
    estimate = estimate == 0 ? cost : estimate + (cost - estimate) * LEARNING;
    atomic_store_explicit(&price->estimate_ns, estimate < 1 ? 1 : (uint64_t)estimate,
                          memory_order_relaxed);
    return cost;
}

static double within(double value, double least, double most) {
    return value < least ? least : value > most ? most : value;
}

double price_gain(double gain, double charged_percent, struct seen seen) {
    double off = seen.percent - charged_percent;
    bool telling = charged_percent >= TELLING || seen.percent >= 2 * TELLING;
    if (off < 0 && seen.processes > 1) { /* one process's cut lies within what is believed */
        off = within(off + seen.processes - 1, off, 0);
    }
    if (seen.percent < 0 || !telling || (off < BELIEVED && off > -BELIEVED)) {
        return gain;
    }
    double part = off / charged_percent;
    double step = part > FAR || part < -FAR ? part : part / 2;
    return within(gain * (1 + within(step, STEP_DOWN, STEP_UP)), GAIN_LEAST, GAIN_MOST);
}

int64_t price_difference(double cost_ns, uint64_t charged_ns, uint32_t weight, uint64_t paid_ns) {
    double difference = (cost_ns - (double)charged_ns) * weight;
    double least = -(double)paid_ns;
    return (int64_t)(difference < least ? least : difference);
}

double price_possible(uint64_t *occupied_ns, uint64_t since_ns, uint64_t now_ns, double used_ns) {
    uint64_t from = *occupied_ns > since_ns ? *occupied_ns : since_ns;
    uint64_t end = now_ns + SLACK_NS;
    double used = within(used_ns, 0, end > from ? (double)(end - from) : 0);
    *occupied_ns = from + (uint64_t)used;
    return used;
}
