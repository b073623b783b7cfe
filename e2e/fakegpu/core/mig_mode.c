/* MIG mode of a card: what is wanted (pending), what is (current), and the reset between them. */
#define _GNU_SOURCE
#include "fg_mig.h"

#include <errno.h>

static bool instances_exist(const struct fg *fg, int card) {
    for (int i = 0; card < FG_MIG_CARDS && i < FG_MIG_MOST; i++)
        if (atomic_load(&fg->st->cards[fg_unit(card, i)].instance.live))
            return true;
    return false;
}

static bool instances_used(const struct fg *fg, int card) {
    for (int i = 0; card < FG_MIG_CARDS && i < FG_MIG_MOST; i++)
        if (fg_mig_used(fg, fg_unit(card, i), -1))
            return true;
    return false;
}

/* Asks for a mode; returns whether it is in force: 0, -EBUSY or -EAGAIN. */
int fg_mig_set_mode(struct fg *fg, int card, bool on) {
    struct fg_card *c = &fg->st->cards[card];
    int rc = 0;
    fg_card_lock(fg, card);
    atomic_store(&c->mig_pending, on);
    if (atomic_load(&c->mig_current) != on) {
        if (fg_mig_used(fg, card, -1) || instances_exist(fg, card))
            rc = -EBUSY;
        else if (c->mig_change == FG_MIG_BY_RESET)
            rc = -EAGAIN;
        else if (c->mig_change == FG_MIG_WHEN_IDLE && fg_client_other(fg, card))
            rc = -EBUSY;
        else
            atomic_store(&c->mig_current, on);
    }
    fg_card_unlock(fg, card);
    return rc;
}

/* What nvidia-smi --gpu-reset does: the pending mode is in force, all instances are gone. */
int fg_card_reset(struct fg *fg, int card) {
    struct fg_card *c = &fg->st->cards[card];
    int rc = 0;
    fg_card_lock(fg, card);
    if (fg_mig_used(fg, card, -1) || instances_used(fg, card) || fg_client_other(fg, card))
        rc = -EBUSY;
    for (int i = 0; rc == 0 && card < FG_MIG_CARDS && i < FG_MIG_MOST; i++)
        atomic_store(&fg->st->cards[fg_unit(card, i)].instance.live, 0);
    if (rc == 0) {
        atomic_store(&c->mig_current, atomic_load(&c->mig_pending));
        atomic_store(&c->repair, 0);
    }
    fg_card_unlock(fg, card);
    return rc;
}
