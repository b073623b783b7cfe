/* UUIDs that are the same at every start. */
#include "fg_state.h"

#include <stdio.h>
#include <string.h>

static uint64_t mix(uint64_t x) { /* splitmix64's finaliser */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* A version-4 shaped UUID from seed and index, and its text behind `prefix`. */
void fg_make_uuid(uint8_t bytes[16], char text[48], const char *prefix, const char *seed,
                  int index) {
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
    for (const char *s = seed; *s != '\0'; s++)
        hash = (hash ^ (uint8_t)*s) * 0x100000001b3ull;
    uint64_t half[2] = {mix(hash + (uint64_t)index + 1), mix(~hash + (uint64_t)index * 2 + 1)};
    memcpy(bytes, half, 16);
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    int n = snprintf(text, 48, "%s", prefix);
    for (int i = 0; i < 16; i++)
        n += snprintf(text + n, 48 - (size_t)n, "%s%02x",
                      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
}
