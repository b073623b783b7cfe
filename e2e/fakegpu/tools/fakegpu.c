/* The fakegpu command: make, look at and disturb the fake driver's state. */
#define _GNU_SOURCE
#include "fg_mig.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char usage[] =
    "usage: fakegpu init    --cards FILE --state FILE [--seed TEXT] [--force]\n"
    "       fakegpu install --root DIR --cdi FILE --cards FILE [--seed TEXT] [--force]\n"
    "                       [--node-root DIR] [--dev DIR] [--libs DIR]\n"
    "       fakegpu nodes   --state FILE --dev DIR     make DIR/nvidiactl, nvidia-uvm, nvidia<i>\n"
    "       fakegpu ledger  --state FILE               JSON: what each process holds\n"
    "       fakegpu busy    --state FILE CARD MS COUNT   a JSON line each MS: busy time so far\n"
    "       fakegpu gc      --state FILE               take back what the dead held\n"
    "       fakegpu xid     --state FILE CARD NUMBER   send an XID event\n"
    "       fakegpu ecc     --state FILE CARD          send a double-bit ECC event\n"
    "       fakegpu lose    --state FILE CARD          the card falls off the bus (XID 79)\n"
    "       fakegpu restore --state FILE CARD          the card is back, reset\n"
    "       fakegpu reset   --state FILE CARD          as nvidia-smi --gpu-reset: a pending MIG "
    "mode is on\n"
    "       fakegpu mig     --state FILE CARD on|off   MIG mode, as nvidia-smi -mig\n"
    "       fakegpu cut     --state FILE CARD PROFILE START   a MIG instance, made by hand\n"
    "       fakegpu fail    --state FILE SYMBOL COUNT CODE [SKIP]   its next calls answer with "
    "CODE,\n"
    "                       or end the process: kill-before, kill-inside, kill-after\n"
    "CARD is an index or a UUID; FAKEGPU_STATE stands in for --state.\n";

void say_wrong(const char *format, ...) {
    va_list args;
    fputs("fakegpu: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* Whether a file that cannot be opened as a state is one of another version of this program. */
static bool is_old_state(const char *path) {
    uint32_t magic = 0;
    FILE *file = fopen(path, "re");
    bool old = file != NULL && fread(&magic, sizeof magic, 1, file) == 1 && magic == FG_MAGIC;
    if (file != NULL)
        fclose(file);
    return old;
}

/* Makes the state file unless it exists; one of another version is of no use and is replaced.
 * --force replaces any, under the processes that use it. */
int create_state(const struct options *o, const char *path) {
    static struct fg_state image;
    char error[512];
    if (fg_parse_cards(o->cards, o->seed, &image, error, sizeof error) != 0)
        return complain("%s", error);
    struct fg old;
    int rc = o->force ? -ENOENT : fg_open(&old, path, false);
    if (rc == 0) {
        bool same = old.st->ncards == image.ncards;
        for (uint32_t i = 0; i < image.ncards && same; i++)
            same = strcmp(old.st->cards[i].uuid, image.cards[i].uuid) == 0 &&
                   old.st->cards[i].total == image.cards[i].total;
        return same ? 0
                    : complain("%s holds other cards than %s; --force replaces it", path, o->cards);
    }
    if (rc != -ENOENT && !is_old_state(path))
        return complain("%s exists and is no state file; --force replaces it", path);
    rc = fg_create(path, &image);
    return rc == 0 ? 0 : complain("cannot write %s: %s", path, strerror(-rc));
}

int open_state(const struct options *o, struct fg *fg, bool want_write) {
    if (o->state == NULL)
        return complain("no state file; give --state FILE or set FAKEGPU_STATE");
    int rc = fg_open(fg, o->state, want_write);
    if (rc == -EPROTO)
        return complain("%s is no state file of this version; make one with init", o->state);
    if (rc != 0)
        return complain("cannot open %s: %s", o->state, strerror(-rc));
    if (!want_write)
        return 0;
    rc = fg_claim(fg);
    return rc == 0 ? 0 : complain("no free process slot in %s: %s", o->state, strerror(-rc));
}

static int run_init(const struct options *o) {
    if (o->cards == NULL || o->state == NULL)
        return complain("init needs --cards FILE and --state FILE");
    return create_state(o, o->state);
}

static int run_ledger(const struct options *o) {
    struct fg fg;
    if (open_state(o, &fg, false) != 0)
        return 1;
    printf("{\"cards\":[");
    for (int card = 0; card < (int)fg.st->ncards; card++) {
        printf("%s", card == 0 ? "" : ",");
        print_card(&fg, card);
    }
    printf("]}\n");
    return 0;
}

static int run_gc(const struct options *o) {
    struct fg fg;
    if (open_state(o, &fg, true) != 0)
        return 1;
    printf("{\"reaped\":%d}\n", fg_reap(&fg));
    fg_release(&fg);
    return 0;
}

static int run_nodes(const struct options *o) {
    struct fg fg;
    if (o->dev == NULL)
        return complain("nodes needs --dev DIR");
    if (open_state(o, &fg, false) != 0)
        return 1;
    return make_nodes(o->dev, fg.st);
}

/* The card that an index or a UUID names, or -1. */
static int find_card(const struct fg *fg, const char *name) {
    char *end;
    long index = strtol(name, &end, 10);
    if (end != name && *end == '\0' && index >= 0 && index < (long)fg->st->ncards)
        return (int)index;
    for (int i = 0; i < (int)fg->st->ncards; i++)
        if (strcmp(fg->st->cards[i].uuid, name) == 0)
            return i;
    return -1;
}

int open_card(const struct options *o, struct fg *fg, int want, int *card) {
    if (o->nrest != want)
        return complain("wrong number of arguments\n%s", usage);
    if (open_state(o, fg, true) != 0)
        return 1;
    *card = find_card(fg, o->rest[0]);
    if (*card < 0)
        return complain("no card '%s'; %s has %u, see fakegpu ledger", o->rest[0], o->state,
                        fg->st->ncards);
    return 0;
}

/* XIDs that a program causes leave the card usable; after the others NVML asks for a reset. */
static bool needs_reset(unsigned long xid) {
    static const unsigned long harmless[] = {13, 31, 43, 45, 68, 94, 109};
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        if (harmless[i] == xid)
            return false;
    return true;
}

static int run_xid(const struct options *o) {
    struct fg fg;
    int card;
    char *end;
    if (open_card(o, &fg, 2, &card) != 0)
        return 1;
    unsigned long xid = strtoul(o->rest[1], &end, 10);
    if (*o->rest[1] == '\0' || *end != '\0')
        return complain("'%s' is not an XID number", o->rest[1]);
    if (needs_reset(xid))
        atomic_store(&fg.st->cards[card].repair, 1);
    fg_send_event(&fg, card, FG_EVENT_XID, xid);
    fg_release(&fg);
    return 0;
}

static int run_ecc(const struct options *o) {
    struct fg fg;
    int card;
    if (open_card(o, &fg, 1, &card) != 0)
        return 1;
    atomic_store(&fg.st->cards[card].repair, 1);
    fg_send_event(&fg, card, FG_EVENT_DBE, 0);
    fg_release(&fg);
    return 0;
}

static int set_lost(const struct options *o, uint32_t lost) {
    struct fg fg;
    int card;
    if (open_card(o, &fg, 1, &card) != 0)
        return 1;
    atomic_store(&fg.st->cards[card].repair, 0);
    atomic_store(&fg.st->cards[card].lost, lost);
    for (int i = 0; card < FG_MIG_CARDS && i < FG_MIG_MOST; i++)
        atomic_store(&fg.st->cards[fg_unit(card, i)].lost, lost);
    if (lost)
        fg_send_event(&fg, card, FG_EVENT_XID, 79);
    fg_release(&fg);
    return 0;
}

static int run_lose(const struct options *o) { return set_lost(o, 1); }
static int run_restore(const struct options *o) { return set_lost(o, 0); }

/* For who measures: how busy each process keeps the card as time goes by. */
static int run_busy(const struct options *o) {
    struct fg fg;
    int card;
    if (open_card(o, &fg, 3, &card) != 0)
        return 1;
    uint64_t next = fg_now();
    for (long i = 0, count = strtol(o->rest[2], NULL, 10); i < count; i++) {
        fg_sleep_until(next);
        print_busy(&fg, card);
        next += strtoull(o->rest[1], NULL, 10) * 1000000ull;
    }
    fg_release(&fg);
    return 0;
}

static int run_install(const struct options *o) {
    if (o->root == NULL || o->cards == NULL)
        return complain("install needs --root DIR and --cards FILE");
    return install_root(o);
}

static int parse(struct options *o, int argc, char **argv) {
    static const struct option known[] = {
        {"state", required_argument, NULL, 's'},     {"cards", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 'e'},      {"root", required_argument, NULL, 'r'},
        {"cdi", required_argument, NULL, 'd'},       {"dev", required_argument, NULL, 'v'},
        {"node-root", required_argument, NULL, 'n'}, {"libs", required_argument, NULL, 'l'},
        {"force", no_argument, NULL, 'f'},           {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 's':
            o->state = optarg;
            break;
        case 'c':
            o->cards = optarg;
            break;
        case 'e':
            o->seed = optarg;
            break;
        case 'r':
            o->root = optarg;
            break;
        case 'd':
            o->cdi = optarg;
            break;
        case 'n':
            o->node_root = optarg;
            break;
        case 'v':
            o->dev = optarg;
            break;
        case 'l':
            o->libs = optarg;
            break;
        case 'f':
            o->force = true;
            break;
        default:
            return complain("see fakegpu --help");
        }
    }
    for (; optind < argc && o->nrest < 4; optind++)
        o->rest[o->nrest++] = argv[optind];
    return 0;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(const struct options *);
    } verbs[] = {
        {"init", run_init},       {"install", run_install}, {"ledger", run_ledger},
        {"gc", run_gc},           {"xid", run_xid},         {"lose", run_lose},
        {"restore", run_restore}, {"nodes", run_nodes},     {"ecc", run_ecc},
        {"fail", run_fail},       {"busy", run_busy},       {"reset", run_reset},
        {"cut", run_cut},         {"mig", run_mig},
    };
    struct options o = {
        .state = getenv("FAKEGPU_STATE"), .seed = "", .node_root = "/run/nvidia/driver"};
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2;
    }
    if (parse(&o, argc - 1, argv + 1) != 0)
        return 1;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(&o);
    return complain("unknown verb '%s'\n%s", argv[1], usage);
}
