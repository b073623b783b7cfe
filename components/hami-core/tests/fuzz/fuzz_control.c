/* The control file as anybody may have written it. What is taken for a grant is whole: its checksum
 * is right, and every name in it ends. */
#include "../check.h"
#include "fuzz.h"

#include "limit.h"

#include <string.h>

const char *const fuzz_words[] = {HAMI_CONTROL_MAGIC, "GPU-", "MIG-", NULL};

/* Independent of the library's: table-driven, where that goes bit by bit. */
static uint32_t crc32_of(const uint8_t *bytes, size_t count) {
    static uint32_t table[256];
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; table[1] == 0 || (i > 0 && i < 256); i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) {
            value = (value >> 1) ^ ((value & 1) != 0 ? UINT32_C(0xedb88320) : 0);
        }
        table[i] = value;
    }
    for (size_t i = 0; i < count; i++) {
        crc = (crc >> 8) ^ table[(crc ^ bytes[i]) & 0xff];
    }
    return ~crc;
}

static void seal(struct hami_control *image) {
    struct hami_control_body *body = &image->body[image->epoch & 1];
    body->generation = image->epoch;
    body->crc32 = crc32_of((uint8_t *)body + 4, sizeof(*body) - 4);
}

size_t fuzz_example(unsigned i, uint8_t *into) {
    static struct hami_control image;
    if (i > 2) {
        return 0;
    }
    memcpy(image.magic, HAMI_CONTROL_MAGIC, sizeof(image.magic));
    image.layout_version = HAMI_CONTROL_VERSION;
    image.size = HAMI_CONTROL_SIZE;
    image.epoch = i;
    image.body[i & 1].device_count = 2;
    strcpy(image.body[i & 1].devices[0].uuid, "GPU-1");
    if (i == 2) { /* a name without an end */
        memset(image.body[0].devices[1].uuid, 'G', HAMI_UUID_SIZE);
    }
    into[0] = 1;
    memcpy(into + 1, &image, sizeof(image));
    return 1 + sizeof(image);
}

/* The first byte says whether the checksum is put right, so that inputs get past it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct hami_control image;
    struct hami_control_body body;
    memset(&image, 0, sizeof(image));
    if (size > 1) {
        memcpy(&image, data + 1, size - 1 < sizeof(image) ? size - 1 : sizeof(image));
    }
    bool sealed = size > 0 && (data[0] & 1) != 0;
    if (sealed) {
        seal(&image);
    }
    const struct hami_control_body *in_force = &image.body[image.epoch & 1];
    bool header = memcmp(image.magic, HAMI_CONTROL_MAGIC, 8) == 0 && image.layout_version == 1 &&
                  image.size == 4096;
    bool whole = in_force->generation == image.epoch &&
                 in_force->device_count <= HAMI_MAX_DEVICES &&
                 in_force->crc32 == crc32_of((const uint8_t *)in_force + 4, sizeof(*in_force) - 4);
    CHECK(limits_read_control(&image, &body) == (header && whole));
    if (!header || !whole) {
        return 0;
    }
    CHECK(body.generation == image.epoch && body.device_count == in_force->device_count);
    for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
        CHECK(memchr(body.devices[i].uuid, '\0', HAMI_UUID_SIZE) != NULL);
        CHECK(body.devices[i].memory_limit_bytes == in_force->devices[i].memory_limit_bytes);
    }
    return 0;
}
