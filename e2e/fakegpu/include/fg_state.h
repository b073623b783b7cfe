/* The fake driver's kernel state: one mmap'd file, and the operations on it. */
#ifndef FG_STATE_H
#define FG_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FG_MAGIC 0x55504746u /* "FGPU" */
#define FG_VERSION 5u
#define FG_CARDS 16
#define FG_MIG_CARDS 8 /* the first of a node's cards; others know no MIG */
#define FG_MIG_MOST 7  /* instances of one card */
#define FG_UNITS (FG_CARDS + FG_MIG_CARDS * FG_MIG_MOST) /* cards, then their MIG instances */
#define FG_COMPUTES 8
#define FG_PROFILES 12
#define FG_SLOTS 512
#define FG_SAMPLES 64
#define FG_EVENTS 64
#define FG_TURNS 4096
#define FG_FAULTS 16
#define FG_MIB (1ull << 20)
#define FG_NEVER UINT64_MAX

/* XID and the two ECC bits, as NVML numbers them. */
#define FG_EVENT_SBE 0x1ull
#define FG_EVENT_DBE 0x2ull
#define FG_EVENT_XID 0x8ull

struct fg_event {
    uint64_t type;
    uint64_t data;
};

/* How much work a card had done, and still had queued, at one moment. */
struct fg_sample {
    _Atomic uint64_t at_ns;
    _Atomic uint64_t done_ns;
    _Atomic uint64_t pending_ns;
};

/* A stretch of time in which a sliced card ran one process's work. */
struct fg_turn {
    int32_t slot;
    uint32_t pad;
    uint64_t from_ns, to_ns;
    uint64_t done_ns; /* of that process's work when it began */
};

/* How a card behaves beyond one queue in order; zeros are the plain card. */
struct fg_modes {
    uint32_t event_noise_percent; /* elapsed times are off by up to this much */
    uint32_t slice_us;            /* processes take turns of this length */
    uint32_t overlap;             /* streams run side by side */
    uint32_t drift_ms;   /* work takes once to twice its time, up and down in this period */
    uint32_t init_ms;    /* cuInit takes as long */
    uint32_t pid_offset; /* NVML names processes by PIDs that are so much higher: a host's */
    uint32_t mig_ms;     /* making or taking away an instance takes as long */
};

/* After `skip` more calls of a symbol the next `left` answer with `code`, or end the process. */
struct fg_fault {
    char symbol[64];
    _Atomic int32_t skip;
    _Atomic int32_t left;
    int32_t code;
    uint32_t pad;
};

/* Codes that end the calling process: before the call, between its two writes, after it. */
enum { FG_KILL_BEFORE = -1, FG_KILL_INSIDE = -2, FG_KILL_AFTER = -3 };

/* A kind of GPU instance that a card can be cut into. */
struct fg_profile {
    char name[24];
    uint32_t number; /* NVML_GPU_INSTANCE_PROFILE_* */
    uint32_t id;
    uint32_t slices; /* of compute */
    uint32_t sm_count;
    uint32_t most;
    uint32_t size; /* memory slices */
    uint32_t nstarts;
    uint32_t starts[8];
    uint64_t memory_mib;
};

/* A compute instance; `live` is written last when it is made, first when it goes. */
struct fg_compute {
    _Atomic uint32_t live;
    _Atomic uint32_t generation;
    uint32_t number; /* NVML_COMPUTE_INSTANCE_PROFILE_* */
    uint32_t start, slices;
    uint8_t uuid_bytes[16];
    char uuid[48];
};

/* What makes a unit a GPU instance. */
struct fg_instance {
    _Atomic uint32_t live;
    _Atomic uint32_t generation;
    uint32_t id;
    uint32_t profile; /* index into its card's */
    uint32_t start;
    struct fg_compute computes[FG_COMPUTES];
};

/* When a change of the MIG mode takes effect: at once, on a card that nobody has open, or only by a
 * reset. */
enum fg_mig_change { FG_MIG_AT_ONCE, FG_MIG_WHEN_IDLE, FG_MIG_BY_RESET };

struct fg_card {
    /* Fixed at `fakegpu init`. */
    char name[96];
    char uuid[48];
    uint8_t uuid_bytes[16];
    uint64_t total;
    uint64_t context_bytes;
    int32_t numa;
    uint32_t sm_count;
    uint32_t major;
    uint32_t minor;
    uint32_t pci_bus;
    uint32_t pci_device_id;
    uint32_t mig_capable;
    uint32_t nvlinks; /* to every other card of the node */
    uint32_t power_limit_mw;
    uint32_t module_mib; /* what each loaded module takes */
    uint32_t mig_slices; /* of memory */
    uint32_t mig_change;
    uint32_t nprofiles;
    struct fg_profile profiles[FG_PROFILES];
    _Atomic uint32_t mig_current, mig_pending;
    struct fg_instance instance; /* in the units after the cards */

    /* Changed under `lock` (an owner word, see fg_card_lock). */
    _Atomic uint64_t lock;
    _Atomic uint64_t used; /* a cache of the sum of the slots' shares */
    _Atomic uint64_t busy_until_ns;
    _Atomic uint64_t busy_total_ns;
    _Atomic uint32_t sample_head;
    _Atomic uint32_t lost;
    struct fg_sample samples[FG_SAMPLES];
    _Atomic uint32_t event_seq; /* events ever sent */
    _Atomic uint32_t repair;    /* NVML's recovery action: 0 none, 1 reset */
    struct fg_event events[FG_EVENTS];

    /* Under `lock`, with slices: how far the turns have been played, and the last of them. */
    uint64_t played_ns;
    uint64_t turns_taken;
    struct fg_turn turns[FG_TURNS];
};

/* What one process holds of one card: the only truth about memory. */
struct fg_share {
    _Atomic uint64_t data_bytes;
    _Atomic uint64_t context_bytes;
    _Atomic uint64_t managed_bytes;    /* wherever they are now */
    _Atomic uint64_t managed_resident; /* of them, those on the card */
    _Atomic uint64_t contexts;
    _Atomic uint64_t launches;
    _Atomic uint64_t batch_start_ns; /* start of its work that nobody else queued behind */
    _Atomic uint64_t last_end_ns;
    _Atomic uint64_t window_at_ns; /* launched work per one-second window */
    _Atomic uint64_t window_ns;
    _Atomic uint64_t window_before_ns;
    _Atomic uint64_t busy_ns; /* the card was busy with its work, queued work included */
    uint64_t done_ns;         /* with slices: of busy_ns; under the card's lock */
    _Atomic uint64_t compute; /* the compute instance it runs on, from 1 on; 0: a whole card */
};

enum { FG_SLOT_FREE = 0, FG_SLOT_LIVE = 1 };

struct fg_slot {
    _Atomic uint32_t state;
    _Atomic uint32_t generation;
    _Atomic int32_t pid; /* in the namespace of the process itself */
    uint32_t pad;
    _Atomic uint64_t nonce; /* AT_RANDOM: differs after exec, same for both libraries */
    struct fg_share share[FG_UNITS];
};

struct fg_state {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t ncards;
    uint32_t cuda_version;
    _Atomic uint32_t event_word; /* futex: bumped at every event on any card */
    char driver_version[32];
    _Atomic uint32_t slots_high; /* no slot from here on was ever used */
    uint32_t pad;
    struct fg_modes modes;
    _Atomic uint32_t faults_set; /* some fault was ever asked for */
    uint32_t pad2;
    struct fg_fault faults[FG_FAULTS];
    struct fg_card cards[FG_UNITS];
    struct fg_slot slots[FG_SLOTS];
};

_Static_assert(sizeof(struct fg_share) == 112, "state layout");
_Static_assert(offsetof(struct fg_state, modes) == 64, "state layout");

/* One process's view of the state file. */
struct fg {
    struct fg_state *st;
    int fd;
    bool writable;
    int slot; /* -1: not registered */
    uint32_t generation;
    bool dies_inside;         /* a fault ends this process in the middle of its next change */
    pthread_mutex_t registry; /* slot locks are per process: threads take turns */
    char dev[4096];           /* folder of the device nodes; empty: every card is visible */
    char path[4096];
};

/* state.c */
int fg_create(const char *path, const struct fg_state *image);
int fg_open(struct fg *fg, const char *path, bool want_write);
int fg_attach(struct fg *fg, const void *self, bool want_write);
int fg_visible(const struct fg *fg, int cards[FG_CARDS]);
uint64_t fg_now(void);
void fg_sleep_until(uint64_t ns);

/* slots.c */
int fg_claim(struct fg *fg);
void fg_release(struct fg *fg);
void fg_forked(struct fg *fg);
bool fg_slot_alive(const struct fg *fg, int slot, pid_t *pid);
int fg_reap(struct fg *fg);

/* memory.c */
enum fg_kind { FG_DATA, FG_CONTEXT, FG_MODULE, FG_MANAGED }; /* modules count with their contexts */
void fg_card_lock(struct fg *fg, int card);
void fg_card_unlock(struct fg *fg, int card);
pid_t fg_card_holder(const struct fg *fg, int card);
void fg_recount(struct fg *fg, int card);
int fg_charge(struct fg *fg, int card, uint64_t bytes, enum fg_kind kind);
void fg_uncharge(struct fg *fg, int card, uint64_t bytes, enum fg_kind kind);
uint64_t fg_share_bytes(const struct fg_share *share);
uint64_t fg_used(const struct fg *fg, int card);
uint64_t fg_round(uint64_t bytes);

/* timeline.c: the end of a piece of work is a mark, to be asked about with the functions below */
struct fg_work {
    uint64_t duration_ns;
    uint64_t not_before_ns;
    uint64_t after; /* the mark of what its stream did last */
};
uint64_t fg_run(struct fg *fg, int card, const struct fg_work *work);
bool fg_reached(struct fg *fg, int card, uint64_t mark);
void fg_wait_mark(struct fg *fg, int card, uint64_t mark);
uint64_t fg_when(struct fg *fg, int card, uint64_t mark);
uint64_t fg_busy(struct fg *fg, int slot, int card);
uint64_t fg_card_busy(const struct fg *fg, int card);
void fg_cancel(struct fg *fg, int slot, int card);
unsigned fg_busy_percent(const struct fg *fg, int card);
unsigned fg_share_percent(const struct fg_share *share);

/* turns.c: under the card's lock */
void fg_play_turns(struct fg *fg, int card, uint64_t now);
uint64_t fg_turn_time(const struct fg_card *card, int slot, uint64_t done_ns);

/* faults.c */
int fg_fault(struct fg *fg, const char *symbol);
int fg_set_fault(struct fg *fg, const char *symbol, int count, int code, int skip);
void fg_die(void);

/* events.c */
int fg_send_event(struct fg *fg, int card, uint64_t type, uint64_t data);
void fg_wait_event(const struct fg *fg, uint32_t seen, uint64_t deadline_ns);

/* clients.c: who has a card open through NVML */
void fg_client_enter(const struct fg *fg, int card);
void fg_client_leave(const struct fg *fg, int card);
bool fg_client_other(const struct fg *fg, int card);

/* uuid.c */
void fg_make_uuid(uint8_t bytes[16], char text[48], const char *prefix, const char *seed,
                  int index);

/* cards.c */
int fg_parse_cards(const char *path, const char *seed, struct fg_state *image, char *error,
                   size_t error_len);

#endif
