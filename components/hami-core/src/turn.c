#include "turn.h"

#include <stdatomic.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define MS_BITS 28
#define MS_MASK ((UINT32_C(1) << MS_BITS) - 1)
#define UNIT_SHIFT 10

static struct hami_usage_turn *turn_of(const struct hami_usage *usage, unsigned slot) {
    return (struct hami_usage_turn *)&usage->turns[slot];
}

void turn_wait(struct hami_usage *usage, unsigned slot, unsigned device, uint64_t until_ms) {
    uint32_t word = (uint32_t)device << MS_BITS | (uint32_t)(until_ms & MS_MASK);
    atomic_store(SHARED(turn_of(usage, slot)->waiting), word != 0 ? word : 1);
}

void turn_leave(struct hami_usage *usage, unsigned slot) {
    atomic_store(SHARED(turn_of(usage, slot)->waiting), 0);
}

static bool waits(uint32_t word, unsigned device, uint64_t now_ms) {
    uint32_t left = (word - (uint32_t)now_ms) & MS_MASK; /* the clock wraps within its bits */
    return word != 0 && word >> MS_BITS == device && left <= MS_MASK / 2;
}

bool turn_is_ours(const struct hami_usage *usage, unsigned slot, unsigned device, uint64_t now_ms) {
    uint32_t ours = atomic_load(SHARED(turn_of(usage, slot)->served));
    for (unsigned other = 0; other < HAMI_MAX_SLOTS; other++) {
        struct hami_usage_turn *turn = turn_of(usage, other);
        if (other != slot && waits(atomic_load(SHARED(turn->waiting)), device, now_ms) &&
            (int32_t)(atomic_load(SHARED(turn->served)) - ours) < 0) {
            return false;
        }
    }
    return true;
}

void turn_serve(struct hami_usage *usage, unsigned slot, int64_t amount_ns) {
    atomic_fetch_add(SHARED(turn_of(usage, slot)->served),
                     (uint32_t)(amount_ns >> UNIT_SHIFT)); /* modulo 2^32, as it is compared */
}

void turn_join(struct hami_usage *usage, unsigned slot, unsigned device, int64_t slack_ns) {
    unsigned holder = atomic_load(SHARED(usage->devices[device].holder));
    if (holder == 0 || holder > HAMI_MAX_SLOTS || holder == slot + 1) {
        return;
    }
    struct hami_usage_turn *own = turn_of(usage, slot);
    uint32_t theirs = atomic_load(SHARED(turn_of(usage, holder - 1)->served));
    uint32_t behind = theirs - (uint32_t)(slack_ns >> UNIT_SHIFT);
    if ((int32_t)(behind - atomic_load(SHARED(own->served))) > 0) {
        atomic_store(SHARED(own->served), behind);
    }
}
