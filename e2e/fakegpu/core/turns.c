/* Processes that take turns on a card, as a time-slicing GPU runs them: played lazily, whenever
 * somebody asks. */
#include "fg_state.h"

static uint64_t min64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t left_of(const struct fg_share *share) {
    return atomic_load(&share->busy_ns) - share->done_ns;
}

/* The next process after `slot`, round robin, that has work; -1: none. */
static int next_in_turn(const struct fg *fg, int card, int slot) {
    int high = (int)atomic_load(&fg->st->slots_high);
    for (int i = 1; i <= high; i++) {
        int other = (slot + i) % high;
        const struct fg_slot *s = &fg->st->slots[other];
        if (atomic_load(&s->state) == FG_SLOT_LIVE && left_of(&s->share[card]) > 0)
            return other;
    }
    return -1;
}

/* Whoever has the card keeps it until its slice is used or it has nothing to do: a look at the
 * clock ends no turn. */
static int next_slot(const struct fg *fg, int card, uint64_t slice) {
    const struct fg_card *c = &fg->st->cards[card];
    const struct fg_turn *last = &c->turns[c->turns_taken % FG_TURNS];
    int next = next_in_turn(fg, card, last->slot);
    bool goes_on = last->to_ns == c->played_ns && last->to_ns - last->from_ns < slice;
    return next >= 0 && goes_on && left_of(&fg->st->slots[last->slot].share[card]) > 0 ? last->slot
                                                                                       : next;
}

/* Who runs alone keeps its turn, so that the log is not filled with turns that follow each other.
 */
static struct fg_turn *begin_turn(struct fg_card *c, int slot, uint64_t done_ns) {
    struct fg_turn *last = &c->turns[c->turns_taken % FG_TURNS];
    if (c->turns_taken > 0 && last->slot == slot && last->to_ns == c->played_ns)
        return last;
    struct fg_turn *turn = &c->turns[++c->turns_taken % FG_TURNS];
    *turn = (struct fg_turn){
        .slot = slot, .from_ns = c->played_ns, .to_ns = c->played_ns, .done_ns = done_ns};
    return turn;
}

/* What is left of a turn; who runs alone begins another in it. */
static uint64_t left_of_turn(const struct fg_turn *turn, uint64_t slice) {
    uint64_t used = turn->to_ns - turn->from_ns;
    return used < slice ? slice - used : slice;
}

/* Lets the card run until `now`. */
void fg_play_turns(struct fg *fg, int card, uint64_t now) {
    struct fg_card *c = &fg->st->cards[card];
    uint64_t slice = fg->st->modes.slice_us * 1000ull;
    while (c->played_ns < now) {
        int slot = next_slot(fg, card, slice);
        if (slot < 0) {
            c->played_ns = now;
            break;
        }
        struct fg_share *share = &fg->st->slots[slot].share[card];
        struct fg_turn *turn = begin_turn(c, slot, share->done_ns);
        uint64_t most = min64(left_of_turn(turn, slice), left_of(share));
        uint64_t ran = min64(most, now - c->played_ns);
        share->done_ns += ran;
        c->played_ns += ran;
        turn->to_ns = c->played_ns;
        atomic_fetch_add(&c->busy_total_ns, ran);
    }
}

/* When a process's work had been done up to `done_ns`; 0 if the log does not say. */
uint64_t fg_turn_time(const struct fg_card *c, int slot, uint64_t done_ns) {
    for (uint64_t i = 0; i < FG_TURNS && i < c->turns_taken; i++) {
        const struct fg_turn *turn = &c->turns[(c->turns_taken - i) % FG_TURNS];
        uint64_t length = turn->to_ns - turn->from_ns;
        if (turn->slot == slot && done_ns > turn->done_ns && done_ns <= turn->done_ns + length)
            return turn->from_ns + (done_ns - turn->done_ns);
    }
    return 0;
}
