/* Which devices a process has: cards, or one MIG device, by device nodes and CUDA_VISIBLE_DEVICES.
 */
#define _GNU_SOURCE
#include "cuda_int.h"
#include "fg_mig.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct device {
    int unit, compute;
};

static const struct device nothing = {.unit = -1};

static bool mig_mode(const struct process *p, int card) {
    return atomic_load(&p->fg.st->cards[card].mig_current) != 0;
}

/* A card, or in MIG mode its first instance: the driver shows a process no other of an index. */
static struct device whole(const struct process *p, int card) {
    struct device found = {.unit = card, .compute = -1};
    if (mig_mode(p, card) && fg_mig_nth(&p->fg, card, 0, &found.unit, &found.compute) != 0)
        return nothing;
    return found;
}

static struct device by_mig_uuid(const struct process *p, const char *entry, size_t len,
                                 const int *cards, int count) {
    struct device found;
    for (int i = 0; i < count; i++)
        for (int n = 0; fg_mig_nth(&p->fg, cards[i], n, &found.unit, &found.compute) == 0; n++) {
            const struct fg_instance *gi = &p->fg.st->cards[found.unit].instance;
            if (strncasecmp(gi->computes[found.compute].uuid, entry, len) == 0)
                return found;
        }
    return nothing;
}

/* What one entry names: an index, or the beginning of a card's or an instance's UUID. */
static struct device named(const struct process *p, const char *entry, size_t len, const int *cards,
                           int count) {
    if (len > 4 && strncasecmp(entry, "MIG-", 4) == 0)
        return by_mig_uuid(p, entry, len, cards, count);
    if (len > 4 && strncasecmp(entry, "GPU-", 4) == 0) {
        for (int i = 0; i < count; i++)
            if (strncasecmp(p->fg.st->cards[cards[i]].uuid, entry, len) == 0)
                return mig_mode(p, cards[i]) ? nothing
                                             : (struct device){.unit = cards[i], .compute = -1};
        return nothing;
    }
    char *end;
    long index = strtol(entry, &end, 10);
    return end == entry + len && index >= 0 && index < count ? whole(p, cards[index]) : nothing;
}

/* Applies CUDA_VISIBLE_DEVICES: what follows the first bad entry is invisible. */
static int filter(const struct process *p, const char *list, const int *cards, int count,
                  struct device *chosen) {
    int n = 0;
    while (*list != '\0' && n < FG_CARDS) {
        size_t len = strcspn(list, ",");
        struct device one = len > 0 ? named(p, list, len, cards, count) : nothing;
        for (int i = 0; i < n; i++)
            if (chosen[i].unit == one.unit && chosen[i].compute == one.compute)
                return 0; /* named twice: the driver shows nothing */
        if (one.unit < 0)
            break;
        chosen[n++] = one;
        list += len + (list[len] == ',');
    }
    return n;
}

/* A process that sees a MIG device sees this one and no card beside it. */
static int at_most_one_instance(struct device *chosen, int n) {
    for (int i = 0; i < n; i++)
        if (chosen[i].compute >= 0) {
            chosen[0] = chosen[i];
            return 1;
        }
    return n;
}

/* Fills in the process's devices and returns their number. */
int cu_visible(struct process *p) {
    int cards[FG_CARDS], n = 0, count = fg_visible(&p->fg, cards);
    struct device chosen[FG_CARDS];
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (list != NULL)
        n = filter(p, list, cards, count, chosen);
    for (int i = 0; list == NULL && i < count; i++) {
        chosen[n] = whole(p, cards[i]);
        n += chosen[n].unit >= 0;
    }
    n = at_most_one_instance(chosen, n);
    for (int i = 0; i < n; i++) {
        p->cards[i] = chosen[i].unit;
        p->computes[i] = chosen[i].compute;
        p->generations[i] = atomic_load(&p->fg.st->cards[chosen[i].unit].instance.generation);
    }
    return n;
}
