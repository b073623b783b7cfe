/*
 * A fuzzer for compilers without libFuzzer: inputs that reach new code are kept and changed
 * further. A run is told by its seed and number. Targets have libFuzzer's form, so clang
 * -fsanitize=fuzzer takes them without this file.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include "../check.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_KEPT 4096
#define EDGES (1u << 16)
#define BLIND __attribute__((no_sanitize_coverage))

struct input {
    uint8_t *bytes;
    size_t size;
};

static uint8_t seen[EDGES];
static unsigned edges, fresh;
static uintptr_t previous;
static bool tracing;

static struct input kept[MOST_KEPT];
static unsigned kept_count;
static uint8_t current[FUZZ_MOST];
static size_t current_size;
static unsigned long run;
static unsigned seed, state;

void __sanitizer_cov_trace_pc(void);
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

/* So that a finding comes through on_abort. */
BLIND const char *__asan_default_options(void) { return "abort_on_error=1:handle_abort=0"; }
BLIND const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }

/* Called by the compiler at every branch of what is under test. */
BLIND void __sanitizer_cov_trace_pc(void) {
    if (!tracing) {
        return;
    }
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    unsigned edge = (unsigned)((here ^ previous >> 1) * 0x9e3779b1u >> 7) % EDGES;
    previous = here;
    if (!seen[edge]) {
        seen[edge] = 1;
        edges++;
        fresh++;
    }
}

BLIND static void say_input(void) {
    if (!tracing) {
        return;
    }
    tracing = false;
    fprintf(stderr, "seed %u, run %lu, input of %zu bytes:\n", seed, run, current_size);
    for (size_t i = 0; i < current_size && i < 512; i++) {
        fprintf(stderr, "%02x%s", current[i], i % 32 == 31 ? "\n" : "");
    }
    fprintf(stderr, "\n");
}

BLIND static void on_abort(int signal) {
    (void)signal;
    say_input();
    _exit(1);
}

BLIND static unsigned below(unsigned limit) { return limit == 0 ? 0 : next_random(&state) % limit; }

BLIND static void keep(void) {
    unsigned place = kept_count < MOST_KEPT ? kept_count++ : below(MOST_KEPT);
    free(kept[place].bytes);
    kept[place].bytes = malloc(current_size + 1);
    CHECK(kept[place].bytes != NULL);
    memcpy(kept[place].bytes, current, current_size);
    kept[place].size = current_size;
}

BLIND static void try_current(void) {
    fresh = 0;
    previous = 0;
    tracing = true;
    LLVMFuzzerTestOneInput(current, current_size);
    tracing = false;
    if (fresh != 0) {
        keep();
    }
}

BLIND static void insert(size_t at, const uint8_t *bytes, size_t size) {
    if (current_size + size <= FUZZ_MOST) {
        memmove(current + at + size, current + at, current_size - at);
        memcpy(current + at, bytes, size);
        current_size += size;
    }
}

BLIND static void overwrite(size_t at, const void *bytes, size_t size) {
    if (at + size <= current_size) {
        memcpy(current + at, bytes, size);
    }
}

BLIND static void change_number(void) {
    static const uint64_t odd[] = {
        0,         1,          2,          16,     17,         255,        256,        INT32_MAX,
        INT64_MAX, UINT32_MAX, UINT64_MAX, 0x8000, UINT16_MAX, 1ull << 63, 1ull << 40, 4096};
    uint64_t number = odd[below(sizeof(odd) / sizeof(*odd))] + below(2);
    size_t size = (size_t)1 << below(4);
    overwrite(below((unsigned)current_size) & ~(size - 1), &number, size);
}

BLIND static void mix_with_another(void) {
    const struct input *other = &kept[below(kept_count)];
    size_t from = below((unsigned)other->size);
    size_t size = below((unsigned)(other->size - from) + 1);
    size_t at = below((unsigned)current_size + 1);
    if (below(2) == 0) {
        insert(at, other->bytes + from, size);
    } else {
        overwrite(at, other->bytes + from, size);
    }
}

BLIND static void add_word(void) {
    unsigned count = 0;
    while (fuzz_words[count] != NULL) {
        count++;
    }
    const char *word = count == 0 ? "" : fuzz_words[below(count)];
    insert(below((unsigned)current_size + 1), (const uint8_t *)word, strlen(word));
}

BLIND static void change(void) {
    size_t at = below((unsigned)current_size);
    uint8_t any = (uint8_t)next_random(&state);
    switch (current_size == 0 ? 4 : below(8)) {
    case 0:
        current[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        current[at] = any;
        break;
    case 2:
    case 3:
        change_number();
        break;
    case 4:
        insert(below((unsigned)current_size + 1), &any, 1);
        break;
    case 5: {
        size_t size = 1 + below((unsigned)(current_size - at));
        memmove(current + at, current + at + size, current_size - at - size);
        current_size -= size;
        break;
    }
    case 6:
        mix_with_another();
        break;
    default:
        add_word();
    }
}

/* engine [RUNS [SEED]] */
BLIND int main(int argc, char **argv) {
    unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    seed = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20260101u;
    state = seed | 1;
    signal(SIGABRT, on_abort);
    atexit(say_input); /* CHECK leaves by exit */
    try_current();
    for (unsigned i = 0; (current_size = fuzz_example(i, current)) != 0; i++) {
        try_current();
    }
    CHECK(kept_count != 0);
    for (run = 1; run <= runs; run++) {
        const struct input *parent = &kept[below(kept_count)];
        memcpy(current, parent->bytes, parent->size);
        current_size = parent->size;
        for (unsigned i = 0; i <= below(6); i++) {
            change();
        }
        try_current();
    }
    printf("seed %u, %lu runs, %u edges, %u inputs kept\n", seed, runs, edges, kept_count);
    while (kept_count > 0) {
        free(kept[--kept_count].bytes);
    }
    return 0;
}
