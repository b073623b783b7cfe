/* Memory of a card: exact, and repaired after a death at any instruction.
 *
 * The slots' shares are the truth, `used` is their sum kept for speed. Both change under the card's
 * lock; whoever finds the lock held by a dead process takes it over and counts again. */
#define _GNU_SOURCE
#include "fg_mig.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

#define SPINS_BEFORE_CHECK 2000u
#define CONSISTENT_TRIES 200

static uint64_t owner_word(const struct fg *fg) {
    return (uint64_t)fg->generation << 16 | (uint64_t)(fg->slot + 1);
}

static bool owner_dead(const struct fg *fg, uint64_t word) {
    int slot = (int)(word & 0xffff) - 1;
    uint32_t generation = (uint32_t)(word >> 16);
    if (slot < 0 || slot >= FG_SLOTS || atomic_load(&fg->st->slots[slot].generation) != generation)
        return true;
    return slot != fg->slot && !fg_slot_alive(fg, slot, NULL);
}

/* The owner word names slot and generation, unique across PID namespaces (a TID is not). */
void fg_card_lock(struct fg *fg, int card) {
    struct fg_card *c = &fg->st->cards[card];
    uint64_t mine = owner_word(fg);
    for (unsigned spin = 1;; spin++) {
        uint64_t held = 0;
        if (atomic_compare_exchange_strong(&c->lock, &held, mine))
            return;
        if (spin % SPINS_BEFORE_CHECK != 0) {
            if (spin % 64 == 0)
                sched_yield();
            continue;
        }
        if (owner_dead(fg, held) && atomic_compare_exchange_strong(&c->lock, &held, mine)) {
            fg_recount(fg, card);
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

void fg_card_unlock(struct fg *fg, int card) { atomic_store(&fg->st->cards[card].lock, 0); }

/* PID, as it is seen from here, of the process that is changing the card; 0: none. Stopped there it
 * holds everybody up, which inside a real driver, in the kernel, cannot happen. */
pid_t fg_card_holder(const struct fg *fg, int card) {
    int slot = (int)(atomic_load(&fg->st->cards[card].lock) & 0xffff) - 1;
    pid_t pid = 0;
    return slot >= 0 && slot < FG_SLOTS && fg_slot_alive(fg, slot, &pid) ? pid : 0;
}

uint64_t fg_share_bytes(const struct fg_share *share) {
    return atomic_load(&share->data_bytes) + atomic_load(&share->context_bytes) +
           atomic_load(&share->managed_resident);
}

/* Sums the shares again; the caller holds the card's lock. */
void fg_recount(struct fg *fg, int card) {
    uint64_t used = 0;
    for (int i = 0; i < (int)atomic_load(&fg->st->slots_high); i++)
        used += fg_share_bytes(&fg->st->slots[i].share[card]);
    atomic_store(&fg->st->cards[card].used, used);
}

static _Atomic uint64_t *bytes_of(struct fg_share *share, enum fg_kind kind) {
    if (kind == FG_MANAGED)
        return &share->managed_bytes;
    return kind == FG_DATA ? &share->data_bytes : &share->context_bytes;
}

/* Managed memory leaves the card for the host where somebody needs the room; under the card's
 * lock. Returns how much room there is then. */
static uint64_t make_room(struct fg *fg, int card, uint64_t bytes) {
    struct fg_card *c = &fg->st->cards[card];
    uint64_t used = atomic_load(&c->used);
    for (int i = 0; i < (int)atomic_load(&fg->st->slots_high) && c->total - used < bytes; i++) {
        struct fg_share *share = &fg->st->slots[i].share[card];
        uint64_t there = atomic_load(&share->managed_resident), missing = bytes - (c->total - used);
        uint64_t moved = there < missing ? there : missing;
        atomic_store(&share->managed_resident, there - moved);
        used -= moved;
    }
    atomic_store(&c->used, used);
    return c->total - used;
}

/* Managed memory always fits: what finds no room on the card is on the host. */
static bool try_charge(struct fg *fg, int card, uint64_t bytes, enum fg_kind kind) {
    struct fg_card *c = &fg->st->cards[card];
    struct fg_share *share = &fg->st->slots[fg->slot].share[card];
    fg_card_lock(fg, card);
    if (card >= FG_CARDS && !atomic_load(&c->instance.live)) {
        fg_card_unlock(fg, card);
        return false;
    }
    uint64_t used = atomic_load(&c->used), resident = bytes;
    uint64_t room = used <= c->total ? c->total - used : 0;
    if (kind == FG_MANAGED)
        resident = bytes < room ? bytes : room;
    else if (room < bytes && bytes <= c->total)
        room = make_room(fg, card, bytes);
    bool fits = resident <= room;
    if (fits) {
        atomic_fetch_add(bytes_of(share, kind), bytes);
        if (kind == FG_MANAGED)
            atomic_fetch_add(&share->managed_resident, resident);
        if (kind == FG_CONTEXT)
            atomic_fetch_add(&share->contexts, 1);
        atomic_fetch_add(&c->used, resident);
    }
    fg_card_unlock(fg, card);
    return fits;
}

/* Charges exactly `bytes` or nothing: 0, -ENOMEM at the physical size, -EIO on a lost card. */
int fg_charge(struct fg *fg, int card, uint64_t bytes, enum fg_kind kind) {
    int rc = fg_claim(fg);
    if (rc != 0)
        return rc;
    if (atomic_load(&fg->st->cards[card].lost))
        return -EIO;
    if (try_charge(fg, card, bytes, kind))
        return 0;
    if (fg_reap(fg) > 0 && try_charge(fg, card, bytes, kind))
        return 0;
    return -ENOMEM;
}

void fg_uncharge(struct fg *fg, int card, uint64_t bytes, enum fg_kind kind) {
    struct fg_card *c = &fg->st->cards[card];
    struct fg_share *share = &fg->st->slots[fg->slot].share[card];
    fg_card_lock(fg, card);
    uint64_t left = atomic_fetch_sub(bytes_of(share, kind), bytes) - bytes;
    if (kind == FG_MANAGED) { /* what was on the host goes first */
        uint64_t there = atomic_load(&share->managed_resident);
        bytes = there > left ? there - left : 0;
        atomic_store(&share->managed_resident, there - bytes);
    }
    if (kind == FG_CONTEXT)
        atomic_fetch_sub(&share->contexts, 1);
    atomic_fetch_sub(&c->used, bytes);
    fg_card_unlock(fg, card);
}

/* Sums the shares of all slots, and apart those of the living. */
static uint64_t sum_shares(const struct fg *fg, int card, uint64_t *living) {
    uint64_t all = 0;
    *living = 0;
    for (int i = 0; i < (int)atomic_load(&fg->st->slots_high); i++) {
        uint64_t bytes = fg_share_bytes(&fg->st->slots[i].share[card]);
        all += bytes;
        if (bytes > 0 && fg_slot_alive(fg, i, NULL))
            *living += bytes;
    }
    return all;
}

/* What living processes hold, for a reader that may not write and so cannot lock: a sum that was
 * torn by a change meanwhile differs from the cached one and is taken again. A cached sum that
 * stays wrong belongs to a process that died in the middle of a change; the shares are right. */
static uint64_t used_of(const struct fg *fg, int card) {
    const struct fg_card *c = &fg->st->cards[card];
    uint64_t living = 0;
    for (int tries = 0; tries < CONSISTENT_TRIES; tries++) {
        uint64_t before = atomic_load(&c->used);
        uint64_t all = sum_shares(fg, card, &living);
        if (all == before && all == atomic_load(&c->used))
            return living;
    }
    return living < c->total ? living : c->total;
}

/* The same of a card with all its instances, or of one instance. */
uint64_t fg_used(const struct fg *fg, int card) {
    uint64_t used = used_of(fg, card);
    for (int i = 0; card < FG_MIG_CARDS && i < FG_MIG_MOST; i++)
        if (atomic_load(&fg->st->cards[fg_unit(card, i)].instance.live))
            used += used_of(fg, fg_unit(card, i));
    return used;
}

/* The driver's granularity: 512 bytes when suballocated, 2 MiB from 2 MiB on. */
uint64_t fg_round(uint64_t bytes) {
    uint64_t unit = bytes >= 2 * FG_MIB ? 2 * FG_MIB : 512;
    if (bytes > UINT64_MAX - unit)
        return UINT64_MAX - UINT64_MAX % (2 * FG_MIB);
    return (bytes + unit - 1) / unit * unit;
}
