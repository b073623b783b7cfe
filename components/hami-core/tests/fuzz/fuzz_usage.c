/* The usage file as a tenant may have scribbled over it: whatever it holds, the account stays
 * inside it, charges keep to the limit, and a slot that was cleared holds nothing. */
#include "../check.h"
#include "fuzz.h"

#include "ledger.h"

#include <string.h>

#define SLOTS 3u /* that inputs reach: the first two, and any other as the third */

const char *const fuzz_words[] = {NULL};

struct picture {
    uint8_t slot;
    uint8_t device;
    uint8_t kind;
    uint8_t third;
    uint64_t limit;
    int64_t units;
    uint64_t used[HAMI_MAX_DEVICES];
    struct hami_usage_slot slots[SLOTS];
};

size_t fuzz_example(unsigned i, uint8_t *into) {
    struct picture picture;
    if (i > 1) {
        return 0;
    }
    memset(&picture, 0, sizeof(picture));
    picture.limit = 1000;
    picture.units = 10;
    picture.used[0] = UINT64_C(20) << HAMI_USED_UNITS_SHIFT | i;
    picture.slots[0].state = HAMI_SLOT_LIVE;
    picture.slots[0].share_units[0][HAMI_KIND_BUFFER] = 20;
    picture.slots[0].intent = (struct hami_usage_intent){i, 0, 0, 1, 10, 20};
    memcpy(into, &picture, sizeof(picture));
    return sizeof(picture);
}

static void paint(struct hami_usage *usage, const struct picture *picture) {
    memset(usage, 0, sizeof(*usage));
    for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
        usage->devices[i].used = picture->used[i];
    }
    usage->slots[0] = picture->slots[0];
    usage->slots[1] = picture->slots[1];
    usage->slots[picture->third] = picture->slots[2];
}

static void charge(struct hami_usage *usage, const struct picture *picture) {
    unsigned device = picture->device % HAMI_MAX_DEVICES;
    int64_t units = picture->units & INT64_MAX;
    uint64_t before = ledger_used(usage, device);
    struct ledger_change change = {device, (enum hami_kind)(picture->kind % HAMI_KINDS), units,
                                   picture->limit};
    bool granted = ledger_apply(usage, picture->slot, &change);
    CHECK(ledger_used(usage, device) == before + (granted ? (uint64_t)units : 0));
    CHECK(!granted || ledger_used(usage, device) <= picture->limit);
    CHECK(granted || (uint64_t)units > picture->limit - before || before > picture->limit ||
          picture->limit >> 40 != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct hami_usage usage;
    struct picture picture;
    memset(&picture, 0, sizeof(picture));
    memcpy(&picture, data, size < sizeof(picture) ? size : sizeof(picture));
    paint(&usage, &picture);
    charge(&usage, &picture);
    const unsigned slots[] = {0, 1, picture.third, picture.slot};
    for (unsigned i = 0; i < sizeof(slots) / sizeof(*slots); i++) {
        uint64_t units = 0;
        uint64_t overhead = 0;
        ledger_clear_slot(&usage, slots[i]);
        ledger_shares(&usage, slots[i], picture.device % HAMI_MAX_DEVICES, &units, &overhead);
        CHECK(units == 0 && overhead == 0 &&
              usage.slots[slots[i]].intent.state != HAMI_INTENT_PENDING);
    }
    ledger_overhead(&usage, 0);
    ledger_kind(&usage, 0, HAMI_KIND_MANAGED);
    return 0;
}
