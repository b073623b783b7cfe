/* XID and ECC events: a ring per card that every reader follows with its own cursor. */
#define _GNU_SOURCE
#include "fg_state.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_WAIT_NS 100000000ull /* a lost wake-up (read-only mapping) costs this at most */

int fg_send_event(struct fg *fg, int card, uint64_t type, uint64_t data) {
    if (card < 0 || card >= (int)fg->st->ncards)
        return -EINVAL;
    struct fg_card *c = &fg->st->cards[card];
    fg_card_lock(fg, card);
    uint32_t seq = atomic_load(&c->event_seq);
    c->events[seq % FG_EVENTS] = (struct fg_event){.type = type, .data = data};
    atomic_store(&c->event_seq, seq + 1);
    fg_card_unlock(fg, card);
    atomic_fetch_add(&fg->st->event_word, 1);
    syscall(SYS_futex, &fg->st->event_word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    return 0;
}

/* Sleeps until the event word differs from `seen`, the deadline, or a short while at most. */
void fg_wait_event(const struct fg *fg, uint32_t seen, uint64_t deadline_ns) {
    uint64_t now = fg_now();
    uint64_t wait = deadline_ns > now ? deadline_ns - now : 0;
    if (wait > LONGEST_WAIT_NS)
        wait = LONGEST_WAIT_NS;
    struct timespec timeout = {.tv_nsec = (long)wait};
    if (syscall(SYS_futex, &fg->st->event_word, FUTEX_WAIT, seen, &timeout, NULL, 0) != 0 &&
        errno != EAGAIN && errno != ETIMEDOUT && errno != EINTR)
        nanosleep(&timeout, NULL);
}
