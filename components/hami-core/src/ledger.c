#include "ledger.h"

#include <stdatomic.h>

/* A test build defines this to stop at any step, as a kill would. */
#ifndef LEDGER_STEP
#define LEDGER_STEP(name) ((void)0)
#endif

#define SEQUENCE_MASK 0xffffu
#define SLOT_MASK 0xffu
#define MAX_UNITS ((UINT64_C(1) << 40) - 1)

/* The region is plain fixed-width words so that Python and C agree on it; here they are shared
 * between processes. */
#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_SHORT_LOCK_FREE == 2,
               "shared words need lock-free atomics");

/* In the order of the program: only the death of this process makes its intent anybody else's
 * business, and what a dead process had stored is seen whole. A full barrier for each word would
 * cost twice the rest. */
#define STORE(field, value) atomic_store_explicit(SHARED(field), value, memory_order_release)

#define BLOCK_BYTES (UINT64_C(2) << 20)

uint64_t ledger_units(uint64_t bytes) {
    uint64_t step = bytes >= BLOCK_BYTES ? BLOCK_BYTES : HAMI_UNIT;
    uint64_t steps = bytes / step + (bytes % step != 0);
    return steps * (step / HAMI_UNIT);
}

uint64_t ledger_used(const struct hami_usage *usage, unsigned device) {
    struct hami_usage *shared = (struct hami_usage *)usage;
    return atomic_load(SHARED(shared->devices[device].used)) >> HAMI_USED_UNITS_SHIFT;
}

static bool is_overhead(unsigned kind) {
    return kind == HAMI_KIND_CONTEXT || kind == HAMI_KIND_MODULE;
}

static unsigned holder_slot(uint64_t word) {
    return (unsigned)(word >> HAMI_USED_SLOT_SHIFT) & SLOT_MASK;
}

static uint16_t holder_sequence(uint64_t word) { return (uint16_t)(word & SEQUENCE_MASK); }

/* Before a word is replaced, its author's change is recorded as done: afterwards nothing else could
 * tell. */
static void confirm_holder(struct hami_usage *usage, unsigned device, uint64_t word) {
    struct hami_usage_slot *author = &usage->slots[holder_slot(word)];
    uint16_t before = atomic_load(SHARED(author->confirmed[device]));
    if (before == (uint16_t)(holder_sequence(word) - 1)) {
        atomic_compare_exchange_strong(SHARED(author->confirmed[device]), &before,
                                       holder_sequence(word));
    }
}

static void raise_peak(struct hami_usage_device *device, uint64_t units) {
    uint64_t peak = atomic_load_explicit(SHARED(device->peak), memory_order_relaxed);
    while (peak < units && !atomic_compare_exchange_weak(SHARED(device->peak), &peak, units)) {
    }
}

/* Moves the counter; false if the limit forbids it. Exactly one compare-and-swap makes the change
 * visible. */
static bool move_counter(struct hami_usage *usage, unsigned slot,
                         const struct ledger_change *change, uint16_t sequence) {
    struct hami_usage_device *device = &usage->devices[change->device];
    uint64_t word = atomic_load(SHARED(device->used));
    uint64_t after;
    uint64_t next;
    do {
        uint64_t units = word >> HAMI_USED_UNITS_SHIFT;
        if (change->units >= 0) {
            uint64_t room = change->limit_units > MAX_UNITS ? MAX_UNITS : change->limit_units;
            if (units > room || (uint64_t)change->units > room - units) {
                return false;
            }
            after = units + (uint64_t)change->units;
        } else {
            uint64_t less = (uint64_t)-change->units;
            after = units > less ? units - less
                                 : 0; /* below zero only if somebody scribbled over the file */
        }
        confirm_holder(usage, change->device, word);
        next = after << HAMI_USED_UNITS_SHIFT | (uint64_t)slot << HAMI_USED_SLOT_SHIFT | sequence;
    } while (!atomic_compare_exchange_weak(SHARED(device->used), &word, next));
    raise_peak(device, after);
    return true;
}

static void close_intent(struct hami_usage_slot *own, const struct hami_usage_intent *intent) {
    STORE(own->share_units[intent->device][intent->kind], intent->share_after);
    LEDGER_STEP(share_stored);
    STORE(own->confirmed[intent->device], (uint16_t)intent->sequence);
    LEDGER_STEP(confirmed);
    STORE(own->intent.state, HAMI_INTENT_NONE);
}

bool ledger_apply(struct hami_usage *usage, unsigned slot, const struct ledger_change *change) {
    struct hami_usage_slot *own = &usage->slots[slot];
    uint64_t share = atomic_load(SHARED(own->share_units[change->device][change->kind]));
    uint16_t sequence = (uint16_t)(atomic_load(SHARED(own->confirmed[change->device])) + 1);
    struct hami_usage_intent *intent = &own->intent;

    LEDGER_STEP(begin);
    STORE(intent->device, change->device);
    STORE(intent->kind, (uint32_t)change->kind);
    STORE(intent->sequence, sequence);
    STORE(intent->delta_units, change->units);
    STORE(intent->share_after, share + (uint64_t)change->units);
    LEDGER_STEP(filled);
    STORE(intent->state, HAMI_INTENT_PENDING);
    LEDGER_STEP(pending);
    if (!move_counter(usage, slot, change, sequence)) {
        STORE(intent->state, HAMI_INTENT_NONE);
        return false;
    }
    LEDGER_STEP(moved);
    close_intent(own, intent);
    LEDGER_STEP(done);
    return true;
}

void ledger_note_overhead(struct hami_usage *usage, unsigned slot, unsigned device,
                          enum hami_kind kind, uint64_t units) {
    if (atomic_exchange(SHARED(usage->slots[slot].share_units[device][kind]), units) != units) {
        atomic_fetch_add(SHARED(usage->overhead_epoch), 1);
    }
}

bool ledger_shares(const struct hami_usage *usage, unsigned slot, unsigned device, uint64_t *data,
                   uint64_t *overhead) {
    struct hami_usage_slot *one = &((struct hami_usage *)usage)->slots[slot];
    if (atomic_load(SHARED(one->state)) != HAMI_SLOT_LIVE) {
        return false;
    }
    *data = 0;
    *overhead = 0;
    for (unsigned kind = 0; kind < HAMI_KINDS; kind++) {
        *(is_overhead(kind) ? overhead : data) +=
            atomic_load(SHARED(one->share_units[device][kind]));
    }
    return true;
}

uint64_t ledger_kind(const struct hami_usage *usage, unsigned device, enum hami_kind kind) {
    struct hami_usage *shared = (struct hami_usage *)usage;
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < HAMI_MAX_SLOTS; slot++) {
        if (atomic_load(SHARED(shared->slots[slot].state)) == HAMI_SLOT_LIVE) {
            sum += atomic_load(SHARED(shared->slots[slot].share_units[device][kind]));
        }
    }
    return sum;
}

uint64_t ledger_overhead(const struct hami_usage *usage, unsigned device) {
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < HAMI_MAX_SLOTS; slot++) {
        uint64_t data = 0;
        uint64_t overhead = 0;
        if (ledger_shares(usage, slot, device, &data, &overhead)) {
            sum += overhead;
        }
    }
    return sum;
}

/* Did the pending change of a dead process move the counter? Read the counter first: see
 * confirm_holder. */
static bool took_place(struct hami_usage *usage, unsigned slot,
                       const struct hami_usage_intent *intent) {
    uint64_t word = atomic_load(SHARED(usage->devices[intent->device].used));
    uint16_t sequence = (uint16_t)intent->sequence;
    if (holder_slot(word) == slot && holder_sequence(word) == sequence) {
        return true;
    }
    return atomic_load(SHARED(usage->slots[slot].confirmed[intent->device])) == sequence;
}

static void finish_intent(struct hami_usage *usage, unsigned slot) {
    struct hami_usage_slot *own = &usage->slots[slot];
    struct hami_usage_intent intent = own->intent;
    if (atomic_load(SHARED(own->intent.state)) != HAMI_INTENT_PENDING) {
        return;
    }
    if (intent.device < HAMI_MAX_DEVICES && intent.kind < HAMI_KINDS &&
        took_place(usage, slot, &intent)) {
        close_intent(own, &intent);
        return;
    }
    atomic_store(SHARED(own->intent.state), HAMI_INTENT_NONE);
}

static void release_share(struct hami_usage *usage, unsigned slot, unsigned device, unsigned kind) {
    uint64_t *share = &usage->slots[slot].share_units[device][kind];
    uint64_t units = atomic_load(SHARED(*share));
    if (is_overhead(kind)) {
        ledger_note_overhead(usage, slot, device, (enum hami_kind)kind, 0);
    } else if (units != 0) {
        if (units > MAX_UNITS) { /* only if somebody scribbled over the file */
            units = MAX_UNITS;
            atomic_store(SHARED(*share), units);
        }
        struct ledger_change release = {device, (enum hami_kind)kind, -(int64_t)units,
                                        LEDGER_NO_LIMIT};
        ledger_apply(usage, slot, &release);
    }
}

void ledger_clear_slot(struct hami_usage *usage, unsigned slot) {
    finish_intent(usage, slot);
    for (unsigned device = 0; device < HAMI_MAX_DEVICES; device++) {
        for (unsigned kind = 0; kind < HAMI_KINDS; kind++) {
            release_share(usage, slot, device, kind);
        }
    }
}
