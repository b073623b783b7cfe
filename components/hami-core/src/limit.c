#include "limit.h"

#include <stdatomic.h>
#include <string.h>
#include <strings.h>

#define READ_TRIES 64
#define SMALLEST_LIMIT                                                                             \
    1 /* bytes; nothing can be allocated in units of HAMI_UNIT, and 0 would mean no limit */

static int digit_of(char c, unsigned base) {
    int value = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : 99;
    return (unsigned)value < base ? value : -1;
}

/* Reads digits; NULL if there is none or the value passes 2^63 - 1, else where they end. */
static const char *read_digits(const char *text, uint64_t *value) {
    unsigned base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
    const char *at = base == 16 ? text + 2 : text;
    const char *first = at;
    uint64_t sum = 0;
    for (int digit; (digit = digit_of(*at, base)) >= 0; at++) {
        if (sum > (INT64_MAX - (uint64_t)digit) / base) {
            return NULL;
        }
        sum = sum * base + (uint64_t)digit;
    }
    *value = sum;
    return at == first ? NULL : at;
}

static int shift_of(char unit) {
    switch (unit) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    case 't':
    case 'T':
        return 40;
    default:
        return -1;
    }
}

static bool is_unit_end(const char *text) {
    static const char *const ends[] = {"", "B", "b", "i", "iB", "ib"};
    for (unsigned i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        if (strcmp(text, ends[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool limits_parse_size(const char *text, uint64_t *bytes) {
    uint64_t value = 0;
    const char *end = read_digits(text, &value);
    if (end == NULL) {
        return false;
    }
    int shift = shift_of(*end);
    if (*end != '\0' && (shift < 0 || !is_unit_end(end + 1))) {
        return false;
    }
    shift = shift < 0 ? 0 : shift;
    if (value > (uint64_t)INT64_MAX >> shift) {
        return false;
    }
    *bytes = value << shift;
    return true;
}

bool limits_parse_number(const char *text, uint32_t *number) {
    uint64_t value = 0;
    const char *end = read_digits(text, &value);
    if (end == NULL || *end != '\0' || value > UINT32_MAX) {
        return false;
    }
    *number = (uint32_t)value;
    return true;
}

bool limits_parse_switch(const char *text) {
    static const char *const words[] = {"true", "1", "yes", "on"};
    char lower[8] = "";
    for (unsigned i = 0; i + 1 < sizeof(lower) && text[i] != '\0'; i++) {
        lower[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    }
    for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (strcmp(lower, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* IEEE 802.3, as in zlib. Bit by bit: it runs once per change of limits. */
static uint32_t crc32_of(const uint8_t *bytes, size_t count) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (UINT32_C(0xedb88320) & -(crc & 1));
        }
    }
    return ~crc;
}

uint32_t limits_core_policy(const char *text, uint32_t otherwise) {
    return text == NULL                       ? otherwise
           : strcasecmp(text, "disable") == 0 ? HAMI_CORE_DISABLE
           : strcasecmp(text, "force") == 0   ? HAMI_CORE_FORCE
                                              : otherwise;
}

uint32_t limits_core_percent(const struct hami_control_body *body, unsigned device) {
    uint32_t percent = body->devices[device].core_limit_percent;
    bool off = body->core_policy == HAMI_CORE_DISABLE ||
               (body->core_policy == HAMI_CORE_SHARE && body->contended == 0);
    return off || percent >= 100 ? 0 : percent;
}

uint64_t limits_held_until(const struct hami_control_body *body) {
    bool forever = body->suspended != 0 || body->blocked_until_ns == 0;
    bool held = body->suspended != 0 || body->blocked != 0;
    return !held ? 0 : forever ? UINT64_MAX : body->blocked_until_ns;
}

static bool body_is_whole(const struct hami_control_body *body, uint32_t epoch) {
    const size_t skipped = sizeof(body->crc32);
    return body->generation == epoch && body->device_count <= HAMI_MAX_DEVICES &&
           body->crc32 == crc32_of((const uint8_t *)body + skipped, sizeof(*body) - skipped);
}

bool limits_read_control(const struct hami_control *control, struct hami_control_body *body) {
    const _Atomic uint32_t *epoch_word = (const _Atomic uint32_t *)&control->epoch;
    if (memcmp(control->magic, HAMI_CONTROL_MAGIC, sizeof(control->magic)) != 0 ||
        control->layout_version != HAMI_CONTROL_VERSION || control->size != HAMI_CONTROL_SIZE) {
        return false;
    }
    for (int i = 0; i < READ_TRIES; i++) {
        uint32_t epoch = atomic_load_explicit(epoch_word, memory_order_acquire);
        memcpy(body, &control->body[epoch & 1], sizeof(*body));
        atomic_thread_fence(memory_order_acquire);
        if (epoch == atomic_load_explicit(epoch_word, memory_order_relaxed) &&
            body_is_whole(body, epoch)) {
            for (unsigned device = 0; device < HAMI_MAX_DEVICES; device++) {
                body->devices[device].uuid[HAMI_UUID_SIZE - 1] = '\0';
            }
            return true;
        }
    }
    return false;
}

/* If `entry` is NAME=value or NAME_<index>=value: its value, and the index or -1. */
static const char *match_variable(const char *entry, const char *name, int *index) {
    size_t length = strlen(name);
    uint64_t number = 0;
    if (strncmp(entry, name, length) != 0) {
        return NULL;
    }
    *index = -1;
    if (entry[length] == '=') {
        return entry + length + 1;
    }
    if (entry[length] != '_') {
        return NULL;
    }
    const char *end = read_digits(entry + length + 1, &number);
    if (end == NULL || *end != '=' || number >= HAMI_MAX_DEVICES) {
        return NULL;
    }
    *index = (int)number;
    return end + 1;
}

static void set_memory(struct hami_control_device *device, const char *value, const char *name,
                       const char **bad) {
    if (!limits_parse_size(value, &device->memory_limit_bytes)) {
        device->memory_limit_bytes = SMALLEST_LIMIT;
        *bad = name;
    }
}

static void set_cores(struct hami_control_device *device, const char *value, const char *name,
                      const char **bad) {
    if (!limits_parse_number(value, &device->core_limit_percent) ||
        device->core_limit_percent > 100) {
        device->core_limit_percent =
            0; /* a malformed share of time is reported, not turned into none */
        *bad = name;
    }
}

typedef void setter(struct hami_control_device *, const char *, const char *, const char **);

/* The general variable first, then the indexed ones, which are the more specific. */
static bool apply_variable(const char *const *environment, const char *name, setter *set,
                           struct hami_control_body *body, const char **malformed) {
    bool found = false;
    for (int indexed = 0; indexed < 2; indexed++) {
        for (const char *const *entry = environment; *entry != NULL; entry++) {
            int index = -1;
            const char *value = match_variable(*entry, name, &index);
            if (value == NULL || *value == '\0' || (index >= 0) != indexed) {
                continue;
            }
            found = true;
            for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
                if (index < 0 || (unsigned)index == i) {
                    set(&body->devices[i], value, name, malformed);
                }
            }
        }
    }
    return found;
}

bool limits_from_environment(const char *const *environment, struct hami_control_body *body,
                             const char **malformed) {
    memset(body, 0, sizeof(*body));
    body->device_count = HAMI_MAX_DEVICES;
    body->priority = 1;
    body->log_level = HAMI_LOG_FROM_ENV;
    *malformed = NULL;
    if (environment == NULL) {
        return false;
    }
    bool memory =
        apply_variable(environment, "CUDA_DEVICE_MEMORY_LIMIT", set_memory, body, malformed);
    bool cores = apply_variable(environment, "CUDA_DEVICE_SM_LIMIT", set_cores, body, malformed);
    return memory || cores;
}
