/*
 * The container's memory account on a usage region: charge and release so that the limit holds
 * across threads, processes and kills. Pure: no system call, no clock; who may use a slot is the
 * caller's business.
 */
#ifndef HAMI_LEDGER_H
#define HAMI_LEDGER_H

#include "hami_region.h"

#include <stdbool.h>

#define LEDGER_NO_LIMIT UINT64_MAX

struct ledger_change {
    unsigned device;
    enum hami_kind kind;
    int64_t units;        /* of HAMI_UNIT bytes; negative to release */
    uint64_t limit_units; /* what the container may hold on the device after a charge */
};

/*
 * What the driver takes from the card for a request, in units: blocks of 2 MiB from 2 MiB on,
 * smaller requests share such blocks at HAMI_UNIT. Far above any limit for the largest sizes, never
 * wrapped.
 */
uint64_t ledger_units(uint64_t bytes);

/* What the whole container has charged on a device. */
uint64_t ledger_used(const struct hami_usage *usage, unsigned device);

/*
 * One change on behalf of a slot; one at a time for a slot (the caller holds the process lock).
 * False, and nothing changed, if a charge would pass the limit.
 */
bool ledger_apply(struct hami_usage *usage, unsigned slot, const struct ledger_change *change);

/* Sets a slot's share of overhead: memory that nobody asked for, so it is in the shares and never
 * in `used`. */
void ledger_note_overhead(struct hami_usage *usage, unsigned slot, unsigned device,
                          enum hami_kind kind, uint64_t units);

/* What a live slot holds on a device, in units: asked for, and overhead. False: the slot is free.
 */
bool ledger_shares(const struct hami_usage *usage, unsigned slot, unsigned device, uint64_t *data,
                   uint64_t *overhead);

/* What all live slots hold of one kind on a device. */
uint64_t ledger_kind(const struct hami_usage *usage, unsigned device, enum hami_kind kind);

/* The overhead of all live slots on a device: what a strict policy takes off the limit. */
uint64_t ledger_overhead(const struct hami_usage *usage, unsigned device);

/* Finishes or forgets the change that a killed process was in, then releases all its shares. May
   itself be killed at any instruction and run again by another. The caller owns the slot. */
void ledger_clear_slot(struct hami_usage *usage, unsigned slot);

#endif
