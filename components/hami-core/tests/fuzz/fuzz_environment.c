/* HAMi's variables with any value: what is no size, number or switch never loosens a limit. */
#include "../check.h"
#include "fuzz.h"

#include "limit.h"

#include <stdlib.h>
#include <string.h>

#define MOST_ENTRIES 64

const char *const fuzz_words[] = {"CUDA_DEVICE_MEMORY_LIMIT",
                                  "CUDA_DEVICE_SM_LIMIT",
                                  "_0=",
                                  "_15=",
                                  "_16=",
                                  "=",
                                  "\n",
                                  "0x",
                                  "1g",
                                  "512MiB",
                                  "9223372036854775807",
                                  "8388608T",
                                  "100",
                                  "101",
                                  "true",
                                  "Ki",
                                  "-1",
                                  "010",
                                  NULL};

size_t fuzz_example(unsigned i, uint8_t *into) {
    static const char *const examples[] = {
        "CUDA_DEVICE_MEMORY_LIMIT=1g\nCUDA_DEVICE_MEMORY_LIMIT_1=100m\nCUDA_DEVICE_SM_LIMIT=30",
        "CUDA_DEVICE_MEMORY_LIMIT_3=0x1000k\nPATH=/bin",
        "CUDA_DEVICE_SM_LIMIT_2=101",
        "CUDA_DEVICE_MEMORY_LIMIT_0=lots",
    };
    if (i >= sizeof(examples) / sizeof(*examples)) {
        return 0;
    }
    memcpy(into, examples[i], strlen(examples[i]));
    return strlen(examples[i]);
}

static void values(const char *text) {
    uint64_t bytes = 7;
    uint32_t number = 7;
    bool digits = text[0] >= '0' && text[0] <= '9';
    if (limits_parse_size(text, &bytes)) {
        CHECK(digits && bytes <= INT64_MAX);
    } else {
        CHECK(bytes == 7);
    }
    if (limits_parse_number(text, &number)) {
        CHECK(digits &&
              (text[1] == 'x' || text[1] == 'X' || strspn(text, "0123456789") == strlen(text)));
    } else {
        CHECK(number == 7);
    }
    CHECK(!limits_parse_switch(text) || strlen(text) <= 4);
}

/* The last variable that says something about device 0, the particular ones after the general. */
static const char *value_for_first(const char *const *entries, const char *general,
                                   const char *particular) {
    const char *found = NULL;
    for (int pass = 0; pass < 2; pass++) {
        const char *name = pass == 0 ? general : particular;
        for (unsigned i = 0; entries[i] != NULL; i++) {
            size_t length = strlen(name);
            if (strncmp(entries[i], name, length) == 0 && entries[i][length] != '\0') {
                found = entries[i] + length;
            }
        }
    }
    return found;
}

static void environment(const char *const *entries) {
    struct hami_control_body body;
    const char *malformed = NULL;
    bool named = limits_from_environment(entries, &body, &malformed);
    const char *memory =
        value_for_first(entries, "CUDA_DEVICE_MEMORY_LIMIT=", "CUDA_DEVICE_MEMORY_LIMIT_0=");
    uint64_t bytes = 0;
    CHECK(body.device_count == HAMI_MAX_DEVICES && (malformed == NULL || named));
    CHECK(memory == NULL || named);
    if (memory != NULL && !limits_parse_size(memory, &bytes)) {
        CHECK(malformed != NULL && body.devices[0].memory_limit_bytes == 1);
    }
    if (memory != NULL && limits_parse_size(memory, &bytes)) {
        CHECK(body.devices[0].memory_limit_bytes == bytes);
    }
    for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
        CHECK(body.devices[i].core_limit_percent <= 100 &&
              body.devices[i].memory_limit_bytes <= INT64_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *entries[MOST_ENTRIES + 1] = {NULL};
    unsigned count = 0;
    char *text = calloc(size + 1, 1); /* of its own size, so that a read past its end is seen */
    CHECK(text != NULL);
    memcpy(text, data, size);
    char *rest = text;
    for (char *entry; count < MOST_ENTRIES && (entry = strsep(&rest, "\n")) != NULL;) {
        char *value = strchr(entry, '=');
        values(value != NULL ? value + 1 : entry);
        entries[count++] = entry;
    }
    environment(entries);
    free(text);
    return 0;
}
