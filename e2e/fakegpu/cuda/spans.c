/* The process's address ranges: unique addresses, found by any address inside. */
#include "cuda_int.h"

#include <stdlib.h>
#include <string.h>

#define LARGE (2 * FG_MIB)

/* Addresses are never given twice, so a use after free is always seen. */
uint64_t cu_take_va(uint64_t size, bool low) {
    uint64_t *next = low ? &cu_process.next_low_va : &cu_process.next_va;
    uint64_t align = size >= LARGE ? LARGE : 512;
    uint64_t va = (*next + align - 1) / align * align;
    *next = va + size;
    return va;
}

/* The number of spans that begin at or before `va`. */
static size_t upper(const struct table *t, uint64_t va) {
    size_t low = 0, high = t->len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->spans[middle].va <= va)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void compact(struct table *t) {
    size_t kept = 0;
    for (size_t i = 0; i < t->len; i++)
        if (t->spans[i].live)
            t->spans[kept++] = t->spans[i];
    t->len = kept;
    t->dead = 0;
}

/* Adds a span; NULL when this process has no memory left for it. */
struct span *cu_span_add(struct table *t, struct span span) {
    if (t->dead > 64 && t->dead > t->len / 2)
        compact(t);
    if (t->len == t->room) {
        size_t room = t->room == 0 ? 64 : t->room * 2;
        struct span *grown = realloc(t->spans, room * sizeof *grown);
        if (grown == NULL)
            return NULL;
        t->spans = grown;
        t->room = room;
    }
    size_t at = upper(t, span.va); /* nearly always the end */
    memmove(&t->spans[at + 1], &t->spans[at], (t->len - at) * sizeof *t->spans);
    span.live = true;
    t->spans[at] = span;
    t->len++;
    return &t->spans[at];
}

/* The living span that holds `va`. */
struct span *cu_span_find(struct table *t, uint64_t va) {
    for (size_t i = upper(t, va); i > 0; i--) {
        struct span *s = &t->spans[i - 1];
        if (s->live)
            return va - s->va < s->size ? s : NULL;
    }
    return NULL;
}

void cu_span_drop(struct table *t, struct span *span) {
    span->live = false;
    t->dead++;
}

/* Removes the span that begins exactly at `va`. */
bool cu_span_take(struct table *t, uint64_t va, struct span *out) {
    struct span *s = cu_span_find(t, va);
    if (s == NULL || s->va != va)
        return false;
    *out = *s;
    cu_span_drop(t, s);
    return true;
}

/* Walks the living spans; start with *cursor = 0. Dropping the returned one is allowed. */
struct span *cu_span_next(struct table *t, size_t *cursor) {
    while (*cursor < t->len) {
        struct span *s = &t->spans[(*cursor)++];
        if (s->live)
            return s;
    }
    return NULL;
}
