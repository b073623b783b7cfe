/* Virtual GPU time: every card runs one queue of work, measured on the monotonic clock. */
#include "fg_state.h"

#define SECOND_NS 1000000000ull
#define SAMPLE_EVERY_NS 20000000ull /* FG_SAMPLES of them span more than the second we report */

static uint64_t max64(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t pending(const struct fg_card *c, uint64_t now) {
    uint64_t until = atomic_load(&c->busy_until_ns);
    return until > now ? until - now : 0;
}

/* The queue has no gaps after `now`, so what is done is what was queued less what is pending. */
static void sample(struct fg_card *c, uint64_t now) {
    uint32_t head = atomic_load(&c->sample_head);
    if (now - atomic_load(&c->samples[head % FG_SAMPLES].at_ns) < SAMPLE_EVERY_NS)
        return;
    struct fg_sample *s = &c->samples[(head + 1) % FG_SAMPLES];
    uint64_t left = pending(c, now);
    atomic_store(&s->done_ns, atomic_load(&c->busy_total_ns) - left);
    atomic_store(&s->pending_ns, left);
    atomic_store(&s->at_ns, now);
    atomic_store(&c->sample_head, head + 1);
}

static void count_window(struct fg_share *share, uint64_t now, uint64_t duration_ns) {
    uint64_t age = now - atomic_load(&share->window_at_ns);
    if (age >= SECOND_NS) {
        uint64_t last = age < 2 * SECOND_NS ? atomic_load(&share->window_ns) : 0;
        atomic_store(&share->window_before_ns, last);
        atomic_store(&share->window_ns, 0);
        atomic_store(&share->window_at_ns, now);
    }
    atomic_fetch_add(&share->window_ns, duration_ns);
}

/* Queues work behind everything the card has and returns when it ends. */
uint64_t fg_run(struct fg *fg, int card, uint64_t duration_ns, uint64_t not_before_ns) {
    struct fg_card *c = &fg->st->cards[card];
    struct fg_share *share = &fg->st->slots[fg->slot].share[card];
    fg_card_lock(fg, card);
    uint64_t now = fg_now();
    sample(c, now);
    uint64_t until = atomic_load(&c->busy_until_ns);
    uint64_t start = max64(max64(now, not_before_ns), until);
    if (until != atomic_load(&share->last_end_ns) || until <= now)
        atomic_store(&share->batch_start_ns, start);
    atomic_store(&share->last_end_ns, start + duration_ns);
    atomic_store(&c->busy_until_ns, start + duration_ns);
    atomic_fetch_add(&c->busy_total_ns, duration_ns);
    atomic_fetch_add(&share->launches, 1);
    count_window(share, now, duration_ns);
    fg_card_unlock(fg, card);
    return start + duration_ns;
}

/* Takes a dead process's tail of the queue away, as a driver kills the work of a closed channel.
 * Work that others have queued behind keeps its time. The caller holds the card's lock. */
void fg_cancel(struct fg *fg, int slot, int card) {
    struct fg_card *c = &fg->st->cards[card];
    struct fg_share *share = &fg->st->slots[slot].share[card];
    uint64_t now = fg_now(), until = atomic_load(&c->busy_until_ns);
    if (until <= now || until != atomic_load(&share->last_end_ns))
        return;
    uint64_t keep = max64(now, atomic_load(&share->batch_start_ns));
    if (keep >= until)
        return;
    atomic_fetch_sub(&c->busy_total_ns, until - keep);
    atomic_store(&c->busy_until_ns, keep);
}

/* Work done by time `at`, from the last sample before it. */
static uint64_t done_at(const struct fg_card *c, uint64_t at) {
    uint32_t head = atomic_load(&c->sample_head);
    for (uint32_t i = 0; i < FG_SAMPLES && i <= head; i++) {
        const struct fg_sample *s = &c->samples[(head - i) % FG_SAMPLES];
        uint64_t taken = atomic_load(&s->at_ns);
        if (taken <= at)
            return atomic_load(&s->done_ns) + min64(at - taken, atomic_load(&s->pending_ns));
    }
    return atomic_load(&c->samples[(head + 1) % FG_SAMPLES].done_ns);
}

/* Share of the last second in which the card was busy. */
unsigned fg_busy_percent(const struct fg *fg, int card) {
    const struct fg_card *c = &fg->st->cards[card];
    uint64_t now = fg_now();
    uint64_t done = atomic_load(&c->busy_total_ns) - pending(c, now);
    uint64_t before = now > SECOND_NS ? done_at(c, now - SECOND_NS) : 0;
    uint64_t busy = done > before ? min64(done - before, SECOND_NS) : 0;
    return (unsigned)(busy * 100 / SECOND_NS);
}

/* Share of the last second that one process asked for, capped at all of it. */
unsigned fg_share_percent(const struct fg_share *share) {
    uint64_t now = fg_now(), age = now - atomic_load(&share->window_at_ns);
    uint64_t current = atomic_load(&share->window_ns), before = 0;
    if (age >= 2 * SECOND_NS)
        return 0;
    if (age < SECOND_NS)
        before =
            atomic_load(&share->window_before_ns) / 1000 * ((SECOND_NS - age) / 1000) / 1000000;
    else
        current = current / 1000 * ((2 * SECOND_NS - age) / 1000) / 1000000;
    return (unsigned)(min64(current + before, SECOND_NS) * 100 / SECOND_NS);
}
