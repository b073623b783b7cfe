/* The ledger: what a person or a test wants to know of a card. */
#define _GNU_SOURCE
#include "fg_mig.h"
#include "tool.h"

#include <stdio.h>

/* What each process holds of a unit. */
static void print_processes(struct fg *fg, int card) {
    const char *comma = "";
    printf(",\"processes\":[");
    for (int i = 0; i < (int)atomic_load(&fg->st->slots_high); i++) {
        const struct fg_share *share = &fg->st->slots[i].share[card];
        pid_t pid = 0;
        if (fg_share_bytes(share) + atomic_load(&share->contexts) == 0 ||
            !fg_slot_alive(fg, i, &pid))
            continue;
        uint64_t managed = atomic_load(&share->managed_bytes);
        printf("%s{\"pid\":%d,\"ns_pid\":%d,\"bytes\":%llu,\"context_bytes\":%llu,"
               "\"managed_bytes\":%llu,\"host_bytes\":%llu,"
               "\"contexts\":%llu,\"launches\":%llu,\"busy_ns\":%llu}",
               comma, (int)pid, (int)atomic_load(&fg->st->slots[i].pid),
               (unsigned long long)fg_share_bytes(share),
               (unsigned long long)atomic_load(&share->context_bytes), (unsigned long long)managed,
               (unsigned long long)(managed - atomic_load(&share->managed_resident)),
               (unsigned long long)atomic_load(&share->contexts),
               (unsigned long long)atomic_load(&share->launches),
               (unsigned long long)fg_busy(fg, i, card));
        comma = ",";
    }
    printf("]");
}

static void print_instance(struct fg *fg, int unit) {
    const struct fg_card *c = &fg->st->cards[unit];
    const struct fg_profile *profile = fg_mig_profile(fg, unit);
    const char *comma = "";
    printf("{\"id\":%u,\"profile\":\"%s\",\"start\":%u,\"size\":%u,\"total\":%llu,\"used\":%llu,"
           "\"devices\":[",
           c->instance.id, profile->name, c->instance.start, profile->size,
           (unsigned long long)c->total, (unsigned long long)fg_used(fg, unit));
    for (int ci = 0; ci < FG_COMPUTES; ci++) {
        if (!atomic_load(&c->instance.computes[ci].live))
            continue;
        printf("%s{\"id\":%d,\"uuid\":\"%s\"}", comma, ci, c->instance.computes[ci].uuid);
        comma = ",";
    }
    printf("]");
    print_processes(fg, unit);
    printf("}");
}

static void print_mig(struct fg *fg, int card) {
    const struct fg_card *c = &fg->st->cards[card];
    const char *comma = "";
    printf(",\"mig\":{\"current\":%u,\"pending\":%u,\"instances\":[", atomic_load(&c->mig_current),
           atomic_load(&c->mig_pending));
    for (int i = 0; card < FG_MIG_CARDS && i < FG_MIG_MOST; i++) {
        if (!atomic_load(&fg->st->cards[fg_unit(card, i)].instance.live))
            continue;
        printf("%s", comma);
        print_instance(fg, fg_unit(card, i));
        comma = ",";
    }
    printf("]}");
}

void print_card(struct fg *fg, int card) {
    const struct fg_card *c = &fg->st->cards[card];
    printf("{\"index\":%d,\"uuid\":\"%s\",\"name\":\"%s\",\"total\":%llu,\"used\":%llu,"
           "\"lost\":%s,\"utilization\":%u,\"busy_ns\":%llu,\"busy_with\":%d",
           card, c->uuid, c->name, (unsigned long long)c->total,
           (unsigned long long)fg_used(fg, card), atomic_load(&c->lost) ? "true" : "false",
           fg_busy_percent(fg, card), (unsigned long long)fg_card_busy(fg, card),
           (int)fg_card_holder(fg, card));
    print_processes(fg, card);
    print_mig(fg, card);
    printf("}");
}

void print_busy(struct fg *fg, int card) {
    const char *comma = "";
    fg_card_lock(fg, card);
    uint64_t now = fg_now();
    if (fg->st->modes.slice_us != 0)
        fg_play_turns(fg, card, now);
    printf("{\"at_ns\":%llu,\"card\":%llu,\"processes\":{", (unsigned long long)now,
           (unsigned long long)fg_card_busy(fg, card));
    for (int i = 0; i < (int)atomic_load(&fg->st->slots_high); i++) {
        uint64_t busy = fg_busy(fg, i, card);
        pid_t pid = 0;
        if (busy == 0 || !fg_slot_alive(fg, i, &pid))
            continue;
        printf("%s\"%d\":%llu", comma, (int)pid, (unsigned long long)busy);
        comma = ",";
    }
    fg_card_unlock(fg, card);
    printf("}}\n");
    fflush(stdout);
}
