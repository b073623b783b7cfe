/* Cutting a card into GPU instances and these into compute instances, all under the card's lock.
 *
 * An instance is a unit of the state: memory, timeline and lock of its own. A record counts from
 * the moment when `live` is set, which is the last write, so a death in between leaves nothing. */
#define _GNU_SOURCE
#include "fg_mig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CAPS_PER_GI (1 + FG_COMPUTES)

int fg_unit(int card, int nth) { return FG_CARDS + card * FG_MIG_MOST + nth; }

int fg_parent(int unit) { return unit < FG_CARDS ? unit : (unit - FG_CARDS) / FG_MIG_MOST; }

/* Minor number of /dev/nvidia-caps/nvidia-cap<n>, as the driver lists them in mig-minors; `ci` < 0:
 * the GPU instance's own. */
int fg_cap(int card, int gi, int ci) {
    return FG_CAP_MONITOR + 1 + (card * FG_CAP_IDS + gi) * CAPS_PER_GI + 1 + ci;
}

bool fg_cap_visible(const struct fg *fg, int cap) {
    char node[sizeof fg->dev + 48];
    snprintf(node, sizeof node, "%s/nvidia-caps/nvidia-cap%d", fg->dev, cap);
    return fg->dev[0] == '\0' || access(node, F_OK) == 0;
}

bool fg_mig_visible(const struct fg *fg, int unit, int ci) {
    int card = fg_parent(unit), gi = (int)fg->st->cards[unit].instance.id;
    return fg_cap_visible(fg, fg_cap(card, gi, -1)) && fg_cap_visible(fg, fg_cap(card, gi, ci));
}

const struct fg_profile *fg_mig_profile(const struct fg *fg, int unit) {
    return &fg->st->cards[fg_parent(unit)].profiles[fg->st->cards[unit].instance.profile];
}

/* Multiprocessors of a compute instance: its share of those of its GPU instance. */
uint32_t fg_mig_sms(const struct fg *fg, int unit, int ci) {
    const struct fg_profile *profile = fg_mig_profile(fg, unit);
    return profile->sm_count * fg->st->cards[unit].instance.computes[ci].slices / profile->slices;
}

/* Whether a living process has a context or memory there; `ci` < 0: on any compute instance. */
bool fg_mig_used(const struct fg *fg, int unit, int ci) {
    for (int slot = 0; slot < (int)atomic_load(&fg->st->slots_high); slot++) {
        const struct fg_share *share = &fg->st->slots[slot].share[unit];
        bool holds = atomic_load(&share->contexts) > 0 || fg_share_bytes(share) > 0;
        bool there = ci < 0 || atomic_load(&share->compute) == (uint64_t)ci + 1;
        if (holds && there && fg_slot_alive(fg, slot, NULL))
            return true;
    }
    return false;
}

/* Finds the index-th visible MIG device of a card, in the order of instance ids. */
int fg_mig_nth(const struct fg *fg, int card, int index, int *unit, int *ci) {
    for (uint32_t id = 0; card < FG_MIG_CARDS && id < FG_CAP_IDS; id++)
        for (int i = 0; i < FG_MIG_MOST; i++) {
            const struct fg_instance *gi = &fg->st->cards[fg_unit(card, i)].instance;
            if (!atomic_load(&gi->live) || gi->id != id)
                continue;
            for (int c = 0; c < FG_COMPUTES; c++) {
                if (!atomic_load(&gi->computes[c].live) ||
                    !fg_mig_visible(fg, fg_unit(card, i), c) || index-- > 0)
                    continue;
                *unit = fg_unit(card, i);
                *ci = c;
                return 0;
            }
        }
    return -ENODEV;
}

/* The memory slices of a card that are taken, as bits. */
static uint32_t taken_slices(const struct fg *fg, int card) {
    uint32_t taken = 0;
    for (int i = 0; i < FG_MIG_MOST; i++) {
        const struct fg_instance *gi = &fg->st->cards[fg_unit(card, i)].instance;
        if (atomic_load(&gi->live))
            taken |= ((1u << fg->st->cards[card].profiles[gi->profile].size) - 1) << gi->start;
    }
    return taken;
}

static uint32_t living_of(const struct fg *fg, int card, int profile) {
    uint32_t n = 0;
    for (int i = 0; i < FG_MIG_MOST; i++) {
        const struct fg_instance *gi = &fg->st->cards[fg_unit(card, i)].instance;
        n += atomic_load(&gi->live) && gi->profile == (uint32_t)profile;
    }
    return n;
}

/* How many more instances of a profile can be made now. */
int fg_mig_free(const struct fg *fg, int card, int profile) {
    const struct fg_profile *p = &fg->st->cards[card].profiles[profile];
    uint32_t taken = taken_slices(fg, card), bits = (1u << p->size) - 1;
    uint32_t living = living_of(fg, card, profile), room = 0;
    for (uint32_t i = 0; i < p->nstarts; i++)
        if ((taken & bits << p->starts[i]) == 0) {
            taken |= bits << p->starts[i];
            room++;
        }
    return (int)(living + room > p->most ? p->most - living : room);
}

/* The place for an instance; a driver that may choose begins at the end of the card. */
static int place(const struct fg *fg, int card, int profile, int start) {
    const struct fg_profile *p = &fg->st->cards[card].profiles[profile];
    uint32_t taken = taken_slices(fg, card), bits = (1u << p->size) - 1;
    bool possible = start == FG_ANYWHERE;
    int found = -ENOSPC;
    for (uint32_t i = 0; i < p->nstarts; i++) {
        bool wanted = start == FG_ANYWHERE || p->starts[i] == (uint32_t)start;
        possible = possible || wanted;
        if (wanted && (taken & bits << p->starts[i]) == 0)
            found = (int)p->starts[i];
    }
    if (!possible)
        return -EINVAL;
    return living_of(fg, card, profile) < p->most ? found : -ENOSPC;
}

static int free_unit(const struct fg *fg, int card) {
    for (int i = 0; i < FG_MIG_MOST; i++)
        if (!atomic_load(&fg->st->cards[fg_unit(card, i)].instance.live))
            return fg_unit(card, i);
    return -ENOSPC;
}

/* Halves, quarters and eighths are numbered one after the other, as the driver does. */
static uint32_t instance_id(const struct fg_card *card, uint32_t size, uint32_t start) {
    return card->mig_slices / size - 1 + start / size;
}

static void fill(struct fg *fg, int unit, int card, int profile, uint32_t start) {
    const struct fg_card *from = &fg->st->cards[card];
    const struct fg_profile *p = &from->profiles[profile];
    struct fg_card *to = &fg->st->cards[unit];
    char name[sizeof to->name];
    snprintf(name, sizeof name, "%.60s MIG %s", from->name, p->name);
    memcpy(to->name, name, sizeof name);
    to->total = p->memory_mib * FG_MIB;
    to->context_bytes = from->context_bytes;
    to->module_mib = from->module_mib;
    to->numa = from->numa;
    to->sm_count = p->sm_count;
    to->major = from->major;
    to->minor = from->minor;
    to->pci_bus = from->pci_bus;
    to->pci_device_id = from->pci_device_id;
    atomic_store(&to->lost, atomic_load(&from->lost));
    atomic_store(&to->busy_until_ns, 0);
    to->instance.id = instance_id(from, p->size, start);
    to->instance.profile = (uint32_t)profile;
    to->instance.start = start;
    for (int ci = 0; ci < FG_COMPUTES; ci++)
        atomic_store(&to->instance.computes[ci].live, 0);
    atomic_fetch_add(&to->instance.generation, 1);
    fg_card_lock(fg, unit);
    fg_recount(fg, unit);
    fg_card_unlock(fg, unit);
}

static void take_time(const struct fg *fg) {
    if (fg->st->modes.mig_ms > 0)
        fg_sleep_until(fg_now() + fg->st->modes.mig_ms * 1000000ull);
}

/* Between the record and the write that makes it count. */
static void middle(const struct fg *fg) {
    if (fg->dies_inside)
        fg_die();
}

int fg_mig_create(struct fg *fg, int card, int profile, int start, int *unit) {
    take_time(fg);
    fg_reap(fg); /* what the dead held of a former instance is not in use any more */
    fg_card_lock(fg, card);
    bool on = atomic_load(&fg->st->cards[card].mig_current);
    int rc = on ? place(fg, card, profile, start) : -ENOTSUP;
    if (rc >= 0)
        *unit = free_unit(fg, card);
    if (rc >= 0 && *unit >= 0) {
        fill(fg, *unit, card, profile, (uint32_t)rc);
        middle(fg);
        atomic_store(&fg->st->cards[*unit].instance.live, 1);
    }
    fg_card_unlock(fg, card);
    return rc < 0 ? rc : *unit < 0 ? *unit : 0;
}

static bool has_computes(const struct fg_instance *gi) {
    for (int ci = 0; ci < FG_COMPUTES; ci++)
        if (atomic_load(&gi->computes[ci].live))
            return true;
    return false;
}

int fg_mig_destroy(struct fg *fg, int unit, uint32_t generation) {
    struct fg_instance *gi = &fg->st->cards[unit].instance;
    int rc = 0;
    take_time(fg);
    fg_card_lock(fg, fg_parent(unit));
    fg_card_lock(fg, unit); /* nobody begins to use it meanwhile */
    if (!atomic_load(&gi->live) || atomic_load(&gi->generation) != generation)
        rc = -ENODEV;
    else if (has_computes(gi) || fg_mig_used(fg, unit, -1))
        rc = -EBUSY;
    else {
        middle(fg);
        atomic_store(&gi->live, 0);
    }
    fg_card_unlock(fg, unit);
    fg_card_unlock(fg, fg_parent(unit));
    return rc;
}

/* Compute slices of a NVML_COMPUTE_INSTANCE_PROFILE_*, where the GPU instance can have it. */
int fg_ci_slices(const struct fg_profile *profile, uint32_t number) {
    static const uint32_t slices[] = {1, 2, 3, 4, 7};
    if (number >= sizeof slices / sizeof slices[0])
        return -EINVAL;
    uint32_t n = slices[number];
    bool possible =
        n == profile->slices || (n < profile->slices && !(n == 3 && profile->slices == 4));
    return possible ? (int)n : -ENOTSUP;
}

/* Fills in where such a compute instance can be; returns at how many places. */
int fg_ci_starts(const struct fg_profile *profile, uint32_t number, uint32_t starts[8]) {
    uint32_t slices = (uint32_t)fg_ci_slices(profile, number), step = slices == 3 ? 4 : slices;
    int n = 0;
    for (uint32_t start = 0; start + slices <= profile->slices; start += step)
        starts[n++] = start;
    return n;
}

/* The first free place of a compute instance: its start, or -ENOSPC; counts them all in `room`. */
static int ci_place(const struct fg *fg, int unit, uint32_t number, int wanted, int *room) {
    const struct fg_profile *profile = fg_mig_profile(fg, unit);
    const struct fg_instance *gi = &fg->st->cards[unit].instance;
    uint32_t starts[8], taken = 0, bits = (1u << fg_ci_slices(profile, number)) - 1;
    int n = fg_ci_starts(profile, number, starts), found = -ENOSPC;
    bool possible = wanted == FG_ANYWHERE;
    for (int ci = 0; ci < FG_COMPUTES; ci++)
        if (atomic_load(&gi->computes[ci].live))
            taken |= ((1u << gi->computes[ci].slices) - 1) << gi->computes[ci].start;
    *room = 0;
    for (int i = n - 1; i >= 0; i--) {
        possible = possible || starts[i] == (uint32_t)wanted;
        if ((taken & bits << starts[i]) != 0)
            continue;
        ++*room;
        if (wanted == FG_ANYWHERE || starts[i] == (uint32_t)wanted)
            found = (int)starts[i];
    }
    return possible ? found : -EINVAL;
}

int fg_ci_free(const struct fg *fg, int unit, uint32_t number) {
    int room;
    ci_place(fg, unit, number, FG_ANYWHERE, &room);
    return room;
}

/* MIG UUIDs follow from card and instance ids: cut anew in the same place, they come again. */
static void put_compute(struct fg *fg, int unit, int ci, uint32_t number, uint32_t start) {
    struct fg_instance *gi = &fg->st->cards[unit].instance;
    struct fg_compute *c = &gi->computes[ci];
    c->number = number;
    c->slices = (uint32_t)fg_ci_slices(fg_mig_profile(fg, unit), number);
    c->start = start;
    fg_make_uuid(c->uuid_bytes, c->uuid, "MIG-", fg->st->cards[fg_parent(unit)].uuid,
                 (int)gi->id * FG_COMPUTES + ci);
    atomic_fetch_add(&c->generation, 1);
    middle(fg);
    atomic_store(&c->live, 1);
}

int fg_ci_create(struct fg *fg, int unit, uint32_t number, int start, int *ci) {
    struct fg_instance *gi = &fg->st->cards[unit].instance;
    int room, rc = fg_ci_slices(fg_mig_profile(fg, unit), number);
    if (rc < 0)
        return rc;
    take_time(fg);
    fg_card_lock(fg, fg_parent(unit));
    rc = atomic_load(&gi->live) ? ci_place(fg, unit, number, start, &room) : -ENODEV;
    for (*ci = 0; *ci < FG_COMPUTES - 1 && atomic_load(&gi->computes[*ci].live);)
        ++*ci;
    if (rc >= 0)
        put_compute(fg, unit, *ci, number, (uint32_t)rc);
    fg_card_unlock(fg, fg_parent(unit));
    return rc < 0 ? rc : 0;
}

int fg_ci_destroy(struct fg *fg, int unit, int ci, uint32_t generation) {
    struct fg_compute *c = &fg->st->cards[unit].instance.computes[ci];
    int rc = 0;
    take_time(fg);
    fg_card_lock(fg, fg_parent(unit));
    fg_card_lock(fg, unit);
    if (!atomic_load(&c->live) || atomic_load(&c->generation) != generation)
        rc = -ENODEV;
    else if (fg_mig_used(fg, unit, ci))
        rc = -EBUSY;
    else {
        middle(fg);
        atomic_store(&c->live, 0);
    }
    fg_card_unlock(fg, unit);
    fg_card_unlock(fg, fg_parent(unit));
    return rc;
}
