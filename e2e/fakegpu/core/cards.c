/* The cards file: an INI of one [driver] and any number of [card] sections. */
#define _GNU_SOURCE
#include "fg_state.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COUNT 64
#define KNOWN_KEYS                                                                                 \
    "model, memory_mib, count, numa, compute, sm, context_mib, module_mib, nvlinks, mig, "         \
    "mig_slices, mig_change, mig_profile, power_w, pci_id, uuid_seed"

struct section {
    int line;
    char model[96];
    char numa[64]; /* one node, or a list that the cards take in turn */
    char seed[96];
    unsigned long memory_mib, count, sm, context_mib, module_mib, nvlinks, power_w, pci_id;
    unsigned major, minor;
    bool mig;
    unsigned long mig_slices;
    uint32_t mig_change, nprofiles;
    struct fg_profile profiles[FG_PROFILES];
};

struct parser {
    const char *path;
    const char *seed;
    int line;
    enum { NOWHERE, IN_DRIVER, IN_CARD } where;
    struct section card;
    struct fg_state *image;
    char *error;
    size_t error_len;
};

__attribute__((format(printf, 2, 3))) static int fail(struct parser *p, const char *format, ...) {
    int n = snprintf(p->error, p->error_len, "%s:%d: ", p->path, p->line);
    va_list args;
    va_start(args, format);
    if (n >= 0 && (size_t)n < p->error_len)
        vsnprintf(p->error + n, p->error_len - (size_t)n, format, args);
    va_end(args);
    return -EINVAL;
}

static char *trim(char *text) {
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

static int nth_numa(const char *list, unsigned n) {
    unsigned fields = 1;
    for (const char *s = list; *s != '\0'; s++)
        fields += *s == ',';
    for (n %= fields; n > 0; n--)
        list = strchr(list, ',') + 1;
    return (int)strtol(list, NULL, 10);
}

static int add_cards(struct parser *p) {
    const struct section *s = &p->card;
    if (s->model[0] == '\0')
        return fail(p, "the [card] section of line %d has no model; add 'model = NAME'", s->line);
    if (s->memory_mib == 0)
        return fail(p, "card '%s' has no memory_mib; add 'memory_mib = MIB'", s->model);
    if (s->context_mib >= s->memory_mib)
        return fail(p, "card '%s': a context of %lu MiB does not fit into %lu MiB", s->model,
                    s->context_mib, s->memory_mib);
    if (s->mig && (s->mig_slices == 0 || s->nprofiles == 0))
        return fail(p, "card '%s': mig = yes needs mig_slices and mig_profile", s->model);
    for (unsigned i = 0; i < s->count; i++) {
        int index = (int)p->image->ncards;
        if (index >= FG_CARDS)
            return fail(p, "more than %d cards; lower a count", FG_CARDS);
        if (s->mig && index >= FG_MIG_CARDS)
            return fail(p, "more than %d cards with mig = yes; lower a count", FG_MIG_CARDS);
        struct fg_card *card = &p->image->cards[p->image->ncards++];
        snprintf(card->name, sizeof card->name, "%s", s->model);
        card->total = (uint64_t)s->memory_mib * FG_MIB;
        card->context_bytes = (uint64_t)s->context_mib * FG_MIB;
        card->module_mib = (uint32_t)s->module_mib;
        card->numa = nth_numa(s->numa, i);
        card->sm_count = (uint32_t)s->sm;
        card->major = s->major;
        card->minor = s->minor;
        card->pci_bus = 0x10u + (uint32_t)index * 8;
        card->pci_device_id = (uint32_t)s->pci_id << 16 | 0x10de;
        card->mig_capable = s->mig;
        card->mig_slices = (uint32_t)s->mig_slices;
        card->mig_change = s->mig_change;
        card->nprofiles = s->nprofiles;
        memcpy(card->profiles, s->profiles, sizeof card->profiles);
        card->nvlinks = (uint32_t)s->nvlinks;
        card->power_limit_mw = (uint32_t)s->power_w * 1000;
        char seed[256];
        snprintf(seed, sizeof seed, "%s|%s", p->seed, s->seed);
        fg_make_uuid(card->uuid_bytes, card->uuid, "GPU-", seed, index);
    }
    return 0;
}

static int number(struct parser *p, const char *key, const char *value, unsigned long *out,
                  unsigned long most) {
    char *end;
    errno = 0;
    unsigned long n = strtoul(value, &end, 0);
    if (errno != 0 || end == value || *end != '\0' || value[0] == '-' || n > most)
        return fail(p, "%s = '%s' is not a whole number of at most %lu", key, value, most);
    *out = n;
    return 0;
}

static int compute(struct parser *p, const char *value) {
    char rest;
    if (sscanf(value, "%u.%u%c", &p->card.major, &p->card.minor, &rest) == 2)
        return 0;
    return fail(p, "compute = '%s' is not MAJOR.MINOR, such as 8.0", value);
}

static int numa(struct parser *p, const char *value) {
    if (strspn(value, "0123456789,- ") != strlen(value) || !isdigit((unsigned char)value[0]))
        return fail(p, "numa = '%s' is not a node or a list of nodes, such as 0,0,1,1", value);
    snprintf(p->card.numa, sizeof p->card.numa, "%s", value);
    return 0;
}

static int yes_no(struct parser *p, const char *value) {
    p->card.mig = strcmp(value, "yes") == 0;
    if (p->card.mig || strcmp(value, "no") == 0)
        return 0;
    return fail(p, "mig = '%s' is neither yes nor no", value);
}

static int mig_change(struct parser *p, const char *value) {
    static const char *const words[] = {[FG_MIG_AT_ONCE] = "at-once",
                                        [FG_MIG_WHEN_IDLE] = "when-idle",
                                        [FG_MIG_BY_RESET] = "reset"};
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(value, words[i]) == 0) {
            p->card.mig_change = i;
            return 0;
        }
    return fail(p, "mig_change = '%s' is none of at-once, when-idle, reset", value);
}

/* START,START...:SIZE, in memory slices. */
static int mig_places(struct parser *p, const char *text, struct fg_profile *out) {
    char *end = NULL;
    do {
        unsigned long start = strtoul(end == NULL ? text : end + 1, &end, 10);
        if (out->nstarts == 8 || start > 7)
            return fail(p, "mig_profile '%s': '%s' has too many places", out->name, text);
        out->starts[out->nstarts++] = (uint32_t)start;
    } while (*end == ',');
    char rest;
    if (sscanf(end, ":%u%c", &out->size, &rest) == 1 && out->size > 0)
        return 0;
    return fail(p, "mig_profile '%s': '%s' is not START,START:SIZE", out->name, text);
}

static int mig_profile(struct parser *p, const char *value) {
    struct section *s = &p->card;
    struct fg_profile *out = &s->profiles[s->nprofiles];
    unsigned long long memory;
    char places[64], rest;
    if (s->nprofiles == FG_PROFILES)
        return fail(p, "more than %d mig_profile lines of one card", FG_PROFILES);
    *out = (struct fg_profile){0};
    if (sscanf(value, "%23s %u %u %u %u %llu %u %63s %c", out->name, &out->number, &out->id,
               &out->slices, &out->sm_count, &memory, &out->most, places, &rest) != 8)
        return fail(p, "mig_profile = '%s' is not NAME NUMBER ID SLICES SM MIB MOST PLACES", value);
    out->memory_mib = memory;
    s->nprofiles++;
    return mig_places(p, places, out);
}

static int card_key(struct parser *p, const char *key, const char *value) {
    struct section *s = &p->card;
    const struct {
        const char *key;
        unsigned long *field;
        unsigned long most;
    } numbers[] = {
        {"memory_mib", &s->memory_mib, 1ul << 24},
        {"count", &s->count, MAX_COUNT},
        {"sm", &s->sm, 1024},
        {"context_mib", &s->context_mib, 1ul << 20},
        {"module_mib", &s->module_mib, 1ul << 20},
        {"nvlinks", &s->nvlinks, 18},
        {"power_w", &s->power_w, 10000},
        {"pci_id", &s->pci_id, 0xffff},
        {"mig_slices", &s->mig_slices, 8},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(key, numbers[i].key) == 0)
            return number(p, key, value, numbers[i].field, numbers[i].most);
    if (strcmp(key, "compute") == 0)
        return compute(p, value);
    if (strcmp(key, "numa") == 0)
        return numa(p, value);
    if (strcmp(key, "mig") == 0)
        return yes_no(p, value);
    if (strcmp(key, "mig_change") == 0)
        return mig_change(p, value);
    if (strcmp(key, "mig_profile") == 0)
        return mig_profile(p, value);
    if (strcmp(key, "model") == 0)
        snprintf(s->model, sizeof s->model, "%s", value);
    else if (strcmp(key, "uuid_seed") == 0)
        snprintf(s->seed, sizeof s->seed, "%s", value);
    else
        return fail(p, "unknown key '%s' in [card]; known: " KNOWN_KEYS, key);
    return 0;
}

static int driver_key(struct parser *p, const char *key, const char *value) {
    unsigned major, minor;
    char rest;
    if (strcmp(key, "version") == 0) {
        snprintf(p->image->driver_version, sizeof p->image->driver_version, "%s", value);
        return 0;
    }
    struct fg_modes *modes = &p->image->modes;
    const struct {
        const char *key;
        uint32_t *field;
        unsigned long most;
    } numbers[] = {
        {"event_noise_percent", &modes->event_noise_percent, 100},
        {"slice_us", &modes->slice_us, 1000000},
        {"overlap", &modes->overlap, 1},
        {"drift_ms", &modes->drift_ms, 1000000},
        {"init_ms", &modes->init_ms, 100000},
        {"pid_offset", &modes->pid_offset, 1000000},
        {"mig_ms", &modes->mig_ms, 100000},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        unsigned long n = 0;
        if (strcmp(key, numbers[i].key) != 0)
            continue;
        int rc = number(p, key, value, &n, numbers[i].most);
        *numbers[i].field = (uint32_t)n;
        return rc;
    }
    if (strcmp(key, "cuda") != 0)
        return fail(p,
                    "unknown key '%s' in [driver]; known: version, cuda, event_noise_percent, "
                    "slice_us, overlap, drift_ms, init_ms, pid_offset, mig_ms",
                    key);
    if (sscanf(value, "%u.%u%c", &major, &minor, &rest) != 2 || major < 11 || minor > 99)
        return fail(p, "cuda = '%s' is not a version from 11.0 on, such as 12.4", value);
    p->image->cuda_version = major * 1000 + minor * 10;
    return 0;
}

static int open_section(struct parser *p, const char *text) {
    int rc = p->where == IN_CARD ? add_cards(p) : 0;
    if (rc != 0)
        return rc;
    if (strcmp(text, "[driver]") == 0) {
        p->where = IN_DRIVER;
        return 0;
    }
    if (strcmp(text, "[card]") != 0)
        return fail(p, "unknown section '%s'; known: [driver], [card]", text);
    p->where = IN_CARD;
    p->card = (struct section){.line = p->line,
                               .numa = "0",
                               .count = 1,
                               .sm = 108,
                               .context_mib = 300,
                               .power_w = 400,
                               .pci_id = 0x20b0,
                               .major = 8};
    return 0;
}

static int parse_line(struct parser *p, char *line) {
    char *text = trim(line);
    if (*text == '\0' || *text == '#' || *text == ';')
        return 0;
    if (*text == '[')
        return open_section(p, text);
    char *equals = strchr(text, '=');
    if (equals == NULL)
        return fail(p, "'%s' is not KEY = VALUE", text);
    *equals = '\0';
    const char *key = trim(text), *value = trim(equals + 1);
    if (*value == '\0')
        return fail(p, "'%s' has no value", key);
    if (p->where == NOWHERE)
        return fail(p, "'%s' stands before the first section; start with [driver] or [card]", key);
    return p->where == IN_CARD ? card_key(p, key, value) : driver_key(p, key, value);
}

/* Reads a cards file into a fresh image; `seed` tells nodes with the same file apart.
 * On failure returns a negative errno and writes one line: file, line, what and what to do. */
int fg_parse_cards(const char *path, const char *seed, struct fg_state *image, char *error,
                   size_t error_len) {
    struct parser p = {
        .path = path, .seed = seed, .image = image, .error = error, .error_len = error_len};
    char line[512];
    int rc = 0;
    memset(image, 0, sizeof *image);
    image->magic = FG_MAGIC;
    image->version = FG_VERSION;
    image->size = sizeof *image;
    image->cuda_version = 12040;
    snprintf(image->driver_version, sizeof image->driver_version, "550.90.07");
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(error, error_len, "%s: %s; give the path of a cards file", path, strerror(errno));
        return -errno;
    }
    while (rc == 0 && fgets(line, sizeof line, file) != NULL) {
        p.line++;
        rc = parse_line(&p, line);
    }
    fclose(file);
    if (rc == 0 && p.where == IN_CARD)
        rc = add_cards(&p);
    if (rc == 0 && image->ncards == 0)
        rc = fail(&p, "no cards; add a [card] section with model and memory_mib");
    return rc;
}
