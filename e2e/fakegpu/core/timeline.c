/* Virtual GPU time: every card runs one queue of work, measured on the monotonic clock. */
#include "fg_state.h"

#define SECOND_NS 1000000000ull
#define SAMPLE_EVERY_NS 20000000ull /* FG_SAMPLES of them span more than the second we report */

static uint64_t max64(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* With slices nothing is pending after `busy_until`: what runs is added as it is played. */
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

/* Work takes longer and shorter again, as clocks go down and up. */
static uint64_t drifted(const struct fg *fg, uint64_t duration_ns, uint64_t now) {
    uint64_t period = fg->st->modes.drift_ms * 1000000ull;
    if (period == 0)
        return duration_ns;
    uint64_t phase = now % period * 2; /* up in the first half, down in the second */
    uint64_t more = phase < period ? phase : 2 * period - phase;
    return duration_ns + (uint64_t)((double)duration_ns * ((double)more / (double)period));
}

/* One queue in order, or with `overlap` one a stream; returns when the work ends. */
static uint64_t queue(struct fg *fg, int card, const struct fg_work *work, uint64_t now) {
    struct fg_card *c = &fg->st->cards[card];
    struct fg_share *share = &fg->st->slots[fg->slot].share[card];
    bool overlap = fg->st->modes.overlap != 0;
    uint64_t until = atomic_load(&c->busy_until_ns), last = atomic_load(&share->last_end_ns);
    uint64_t start = max64(max64(now, work->not_before_ns), overlap ? work->after : until);
    uint64_t end = start + work->duration_ns;
    if (until != last || until <= now)
        atomic_store(&share->batch_start_ns, start);
    if (end > max64(start, until))
        atomic_fetch_add(&c->busy_total_ns, end - max64(start, until));
    if (end > max64(start, last))
        atomic_fetch_add(&share->busy_ns, end - max64(start, last));
    atomic_store(&share->last_end_ns, max64(end, last));
    atomic_store(&c->busy_until_ns, max64(end, until));
    return end;
}

/* Turns: the mark is how much of this process's work is to be done. */
static uint64_t queue_turns(struct fg *fg, int card, const struct fg_work *work, uint64_t now) {
    fg_play_turns(fg, card, now);
    return atomic_fetch_add(&fg->st->slots[fg->slot].share[card].busy_ns, work->duration_ns) +
           work->duration_ns;
}

/* Queues work and returns the mark of its end. */
uint64_t fg_run(struct fg *fg, int card, const struct fg_work *work) {
    struct fg_card *c = &fg->st->cards[card];
    struct fg_share *share = &fg->st->slots[fg->slot].share[card];
    fg_card_lock(fg, card);
    uint64_t now = fg_now();
    struct fg_work real = *work;
    real.duration_ns = drifted(fg, work->duration_ns, now);
    sample(c, now);
    uint64_t mark = fg->st->modes.slice_us != 0 ? queue_turns(fg, card, &real, now)
                                                : queue(fg, card, &real, now);
    atomic_fetch_add(&share->launches, 1);
    count_window(share, now, real.duration_ns);
    fg_card_unlock(fg, card);
    return mark;
}

/* When this process's work reached a mark; FG_NEVER while it has not. */
uint64_t fg_when(struct fg *fg, int card, uint64_t mark) {
    if (fg->st->modes.slice_us == 0 || mark == 0)
        return mark;
    fg_card_lock(fg, card);
    fg_play_turns(fg, card, fg_now());
    uint64_t when = fg_turn_time(&fg->st->cards[card], fg->slot, mark);
    if (when == 0)
        when = fg->st->slots[fg->slot].share[card].done_ns >= mark ? 1 : FG_NEVER;
    fg_card_unlock(fg, card);
    return when;
}

bool fg_reached(struct fg *fg, int card, uint64_t mark) {
    return fg_when(fg, card, mark) <= fg_now();
}

void fg_wait_mark(struct fg *fg, int card, uint64_t mark) {
    uint64_t when;
    while ((when = fg_when(fg, card, mark)) > fg_now()) {
        uint64_t left =
            mark - min64(mark, fg->st->slots[fg->slot].share[card].done_ns); /* at the least */
        fg_sleep_until(when == FG_NEVER ? fg_now() + max64(left, 20000) : when);
    }
}

/* How long the card has been busy with a process's work until now. */
uint64_t fg_busy(struct fg *fg, int slot, int card) {
    const struct fg_share *share = &fg->st->slots[slot].share[card];
    uint64_t now = fg_now(), busy = atomic_load(&share->busy_ns);
    if (fg->st->modes.slice_us != 0)
        return share->done_ns;
    uint64_t end = atomic_load(&share->last_end_ns);
    return busy - min64(busy, end > now ? end - now : 0);
}

/* The same of all its work, dead processes' too. */
uint64_t fg_card_busy(const struct fg *fg, int card) {
    const struct fg_card *c = &fg->st->cards[card];
    return atomic_load(&c->busy_total_ns) - pending(c, fg_now());
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
        before = atomic_load(&share->window_before_ns) / 1000 * ((SECOND_NS - age) / 1000) / 1000;
    else
        current = current / 1000 * ((2 * SECOND_NS - age) / 1000) / 1000;
    return (unsigned)(min64(current + before, SECOND_NS) * 100 / SECOND_NS);
}
