/* Who is alive: a process owns slot i exactly as long as it holds the record lock on byte i.
 *
 * POSIX record locks are released by the kernel at any death, and F_GETLK translates the holder's
 * PID into the reader's namespace (0 where it cannot be seen), as a driver does for NVML. */
#define _GNU_SOURCE
#include "fg_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define LOCK_BASE (1ll << 40) /* far beyond the data: only the byte's number matters */

static struct flock slot_range(int slot, short type) {
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = LOCK_BASE + slot, .l_len = 1};
}

static bool try_lock(const struct fg *fg, int slot) {
    struct flock range = slot_range(slot, F_WRLCK);
    return fcntl(fg->fd, F_SETLK, &range) == 0;
}

static void drop_lock(const struct fg *fg, int slot) {
    struct flock range = slot_range(slot, F_UNLCK);
    fcntl(fg->fd, F_SETLK, &range);
}

static uint64_t own_nonce(void) {
    uint64_t nonce = 1;
    const void *random = (const void *)getauxval(AT_RANDOM);
    if (random != NULL)
        memcpy(&nonce, random, sizeof nonce);
    return nonce;
}

/* F_GETLK is blind to the caller's own locks, and libcuda and libnvidia-ml share one process. */
static bool is_own(const struct fg_slot *slot) {
    return atomic_load(&slot->pid) == getpid() && atomic_load(&slot->nonce) == own_nonce();
}

/* Says whether the slot's owner lives, and which PID it has as seen from here. */
bool fg_slot_alive(const struct fg *fg, int slot, pid_t *pid) {
    const struct fg_slot *s = &fg->st->slots[slot];
    if (atomic_load(&s->state) != FG_SLOT_LIVE)
        return false;
    if (is_own(s)) {
        if (pid != NULL)
            *pid = getpid();
        return true;
    }
    struct flock range = slot_range(slot, F_WRLCK);
    if (fcntl(fg->fd, F_GETLK, &range) != 0 || range.l_type == F_UNLCK)
        return false;
    if (pid != NULL)
        *pid = range.l_pid > 0 ? range.l_pid : 0;
    return true;
}

/* Gives back what a dead owner held. The caller holds the slot's record lock. */
static void clear(struct fg *fg, int slot) {
    struct fg_slot *s = &fg->st->slots[slot];
    for (int card = 0; card < FG_UNITS; card++) {
        struct fg_share *share = &s->share[card];
        if (fg->st->cards[card].name[0] == '\0') /* no card, and never an instance */
            continue;
        fg_card_lock(fg, card);
        fg_cancel(fg, slot, card);
        atomic_store(&share->data_bytes, 0);
        atomic_store(&share->context_bytes, 0);
        atomic_store(&share->managed_bytes, 0);
        atomic_store(&share->managed_resident, 0);
        atomic_store(&share->contexts, 0);
        atomic_store(&share->launches, 0);
        atomic_store(&share->last_end_ns, 0);
        atomic_store(&share->window_ns, 0);
        atomic_store(&share->window_before_ns, 0);
        atomic_store(&share->busy_ns, 0);
        share->done_ns = 0;
        atomic_store(&share->compute, 0);
        fg_recount(fg, card);
        fg_card_unlock(fg, card);
    }
    atomic_store(&s->state, FG_SLOT_FREE);
}

/* Reclaims every dead process's slot; returns how many. Needs a writable file. */
int fg_reap(struct fg *fg) {
    int reaped = 0;
    if (!fg->writable || fg->slot < 0) /* a card's lock needs a slot to name */
        return 0;
    pthread_mutex_lock(&fg->registry);
    for (int i = 0; i < (int)atomic_load(&fg->st->slots_high); i++) {
        struct fg_slot *s = &fg->st->slots[i];
        if (i == fg->slot || atomic_load(&s->state) != FG_SLOT_LIVE || is_own(s))
            continue;
        if (!try_lock(fg, i))
            continue;
        if (atomic_load(&s->state) == FG_SLOT_LIVE) {
            clear(fg, i);
            reaped++;
        }
        drop_lock(fg, i);
    }
    pthread_mutex_unlock(&fg->registry);
    return reaped;
}

static bool take(struct fg *fg, int slot) {
    struct fg_slot *s = &fg->st->slots[slot];
    if (!try_lock(fg, slot))
        return false;
    uint32_t high = atomic_load(&fg->st->slots_high);
    while (high < (uint32_t)slot + 1 &&
           !atomic_compare_exchange_weak(&fg->st->slots_high, &high, (uint32_t)slot + 1))
        ;
    fg->slot = slot;
    fg->generation = atomic_fetch_add(&s->generation, 1) + 1;
    if (atomic_load(&s->state) == FG_SLOT_LIVE) /* its owner died before anyone looked */
        clear(fg, slot);
    atomic_store(&s->pid, getpid());
    atomic_store(&s->nonce, own_nonce());
    atomic_store(&s->state, FG_SLOT_LIVE);
    return true;
}

/* Registers this process; free slots first, then those of the dead. */
int fg_claim(struct fg *fg) {
    int rc = fg->writable ? -ENOSPC : -EROFS;
    pthread_mutex_lock(&fg->registry);
    if (fg->slot >= 0)
        rc = 0;
    for (int pass = 0; pass < 2 && rc == -ENOSPC; pass++)
        for (int i = 0; i < FG_SLOTS && rc == -ENOSPC; i++)
            if (pass == 1 || atomic_load(&fg->st->slots[i].state) == FG_SLOT_FREE)
                rc = take(fg, i) ? 0 : -ENOSPC;
    pthread_mutex_unlock(&fg->registry);
    return rc;
}

void fg_release(struct fg *fg) {
    pthread_mutex_lock(&fg->registry);
    if (fg->slot >= 0) {
        clear(fg, fg->slot);
        drop_lock(fg, fg->slot);
        fg->slot = -1;
    }
    pthread_mutex_unlock(&fg->registry);
}

/* In a fork's child: the parent keeps its slot (locks are not inherited), the child has none. */
void fg_forked(struct fg *fg) {
    pthread_mutex_init(&fg->registry, NULL);
    fg->slot = -1;
}
