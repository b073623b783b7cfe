/* The verbs that make calls fail, reset a card and cut one by hand. */
#define _GNU_SOURCE
#include "fg_mig.h"
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fault_code(const char *text) {
    static const struct {
        const char *word;
        int code;
    } words[] = {{"kill-before", FG_KILL_BEFORE},
                 {"kill-inside", FG_KILL_INSIDE},
                 {"kill-after", FG_KILL_AFTER}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i].word) == 0)
            return words[i].code;
    return atoi(text);
}

int run_fail(const struct options *o) {
    struct fg fg;
    if (o->nrest != 3 && o->nrest != 4)
        return complain("fail needs SYMBOL COUNT CODE [SKIP]\n%s", usage);
    if (strlen(o->rest[0]) >= sizeof fg.st->faults[0].symbol)
        return complain("'%s' is longer than any symbol", o->rest[0]);
    if (open_state(o, &fg, true) != 0)
        return 1;
    int skip = o->nrest == 4 ? atoi(o->rest[3]) : 0;
    int rc = fg_set_fault(&fg, o->rest[0], atoi(o->rest[1]), fault_code(o->rest[2]), skip);
    fg_release(&fg);
    return rc == 0 ? 0 : complain("%d faults are waiting already", FG_FAULTS);
}

int run_reset(const struct options *o) {
    struct fg fg;
    int card;
    if (open_card(o, &fg, 1, &card) != 0)
        return 1;
    int rc = fg_card_reset(&fg, card);
    fg_release(&fg);
    return rc == 0 ? 0 : complain("card %d is in use by another client; close it first", card);
}

int run_mig(const struct options *o) {
    struct fg fg;
    int card;
    if (open_card(o, &fg, 2, &card) != 0)
        return 1;
    bool on = strcmp(o->rest[1], "on") == 0;
    if (!on && strcmp(o->rest[1], "off") != 0)
        return complain("'%s' is neither on nor off", o->rest[1]);
    if (!fg.st->cards[card].mig_capable)
        return complain("card %d knows no MIG", card);
    int rc = fg_mig_set_mode(&fg, card, on);
    fg_release(&fg);
    return rc == 0 ? 0
                   : complain("MIG of card %d is pending: %s", card,
                              rc == -EBUSY ? "in use by another client" : "reset required");
}

static int profile_named(const struct fg_card *card, const char *name) {
    for (uint32_t i = 0; i < card->nprofiles; i++)
        if (strcmp(card->profiles[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* The compute profile that takes a whole GPU instance. */
static uint32_t whole(const struct fg_profile *profile) {
    uint32_t number = 0;
    while (fg_ci_slices(profile, number) != (int)profile->slices)
        number++;
    return number;
}

int run_cut(const struct options *o) {
    struct fg fg;
    int card, unit, ci;
    if (open_card(o, &fg, 3, &card) != 0)
        return 1;
    int profile = profile_named(&fg.st->cards[card], o->rest[1]);
    if (profile < 0)
        return complain("card %d has no profile '%s'", card, o->rest[1]);
    int rc = fg_mig_create(&fg, card, profile, atoi(o->rest[2]), &unit);
    if (rc == 0)
        rc = fg_ci_create(&fg, unit, whole(&fg.st->cards[card].profiles[profile]), 0, &ci);
    if (rc == 0)
        printf("%s\n", fg.st->cards[unit].instance.computes[ci].uuid);
    fg_release(&fg);
    return rc == 0 ? 0
                   : complain("cannot make %s at %s on card %d: %s; see fakegpu ledger", o->rest[1],
                              o->rest[2], card, strerror(-rc));
}
