/* Operations on the MIG instances of a card; see struct fg_instance. */
#ifndef FG_MIG_H
#define FG_MIG_H

#include "fg_state.h"

/* Device nodes that give access: 1 to change the partition, then one an instance. */
#define FG_CAP_CONFIG 1
#define FG_CAP_MONITOR 2
#define FG_CAP_IDS 15 /* GPU instances that a card's numbering has room for */

int fg_unit(int card, int nth);
int fg_parent(int unit);
int fg_cap(int card, int gi, int ci);
bool fg_cap_visible(const struct fg *fg, int cap);
bool fg_mig_visible(const struct fg *fg, int unit, int ci);

const struct fg_profile *fg_mig_profile(const struct fg *fg, int unit);
uint32_t fg_mig_sms(const struct fg *fg, int unit, int ci);
bool fg_mig_used(const struct fg *fg, int unit, int ci);
int fg_mig_nth(const struct fg *fg, int card, int index, int *unit, int *ci);
int fg_mig_free(const struct fg *fg, int card, int profile);

int fg_ci_slices(const struct fg_profile *profile, uint32_t number);
int fg_ci_starts(const struct fg_profile *profile, uint32_t number, uint32_t starts[8]);
int fg_ci_free(const struct fg *fg, int unit, uint32_t number);

/* Changes: 0, or -ENOTSUP, -EINVAL, -ENOSPC, -EBUSY, -ENODEV (gone meanwhile). */
#define FG_ANYWHERE (-1)
int fg_mig_create(struct fg *fg, int card, int profile, int start, int *unit);
int fg_mig_destroy(struct fg *fg, int unit, uint32_t generation);
int fg_ci_create(struct fg *fg, int unit, uint32_t number, int start, int *ci);
int fg_ci_destroy(struct fg *fg, int unit, int ci, uint32_t generation);

/* -EBUSY: somebody uses the card; -EAGAIN: the mode waits for a reset. */
int fg_mig_set_mode(struct fg *fg, int card, bool on);
int fg_card_reset(struct fg *fg, int card);

#endif
