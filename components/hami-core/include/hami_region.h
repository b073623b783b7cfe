/*
 * The two files that a limited container shares with its host: control (host writes) and usage
 * (tenant writes).
 *
 * This header is the source of both layouts; hamikit/region.py is its twin and a test compares
 * every offset. Little endian, 64-bit, fixed width. A field is never moved or reused within one
 * layout version; reserved bytes are zero and may become fields, so a reader meets an older file
 * without harm.
 */
#ifndef HAMI_REGION_H
#define HAMI_REGION_H

#include <stddef.h>
#include <stdint.h>

#define HAMI_MAX_DEVICES 16u
#define HAMI_MAX_SLOTS 256u
#define HAMI_UUID_SIZE 64u

/* -------------------------------------------------------------------------------------------------
 * control ---- */

#define HAMI_CONTROL_MAGIC "HAMICTRL"
#define HAMI_CONTROL_VERSION 1u
#define HAMI_CONTROL_SIZE 4096u

/* hami_control_body.flags */
#define HAMI_CONTROL_ENV_MAY_LOOSEN                                                                \
    1u /* the operator lets HAMi's environment variables loosen limits on this node */

/* hami_control_body.core_policy */
#define HAMI_CORE_DEFAULT 0u /* the library's choice: hold the core limit always */
#define HAMI_CORE_FORCE 1u
#define HAMI_CORE_DISABLE 2u
#define HAMI_CORE_SHARE 3u /* hold it only while hami_control_body.contended is set */

/* hami_control_body.overhead_policy */
#define HAMI_OVERHEAD_REPORT                                                                       \
    0u /* contexts and modules are reported, and do not count against the limit */
#define HAMI_OVERHEAD_STRICT 1u

#define HAMI_LOG_FROM_ENV (-1) /* hami_control_body.log_level: LIBCUDA_LOG_LEVEL decides */

struct hami_control_device {
    char uuid[HAMI_UUID_SIZE];   /* "GPU-..." or "MIG-...", NUL padded */
    uint64_t memory_limit_bytes; /* 0: no limit on this device */
    uint32_t core_limit_percent; /* 0 or 100: no limit */
    uint32_t flags;
    uint64_t real_memory_bytes; /* the share of the card's real memory: what is above it spills to
                                   the host; 0: the whole limit is real */
    uint8_t reserved[24];
};

struct hami_control_body {
    uint32_t crc32;      /* IEEE CRC-32 of the bytes after this field, to the end of the body */
    uint32_t generation; /* the epoch that publishes this body */
    uint32_t flags;
    uint32_t device_count;
    int32_t priority; /* CUDA_TASK_PRIORITY: 0 is the highest */
    uint32_t suspended;
    uint32_t blocked;   /* a task of higher priority is active */
    uint32_t contended; /* somebody else computes on one of the devices */
    uint32_t core_policy;
    uint32_t overhead_policy;
    int32_t log_level;
    uint8_t reserved2[4];
    uint64_t blocked_until_ns; /* CLOCK_MONOTONIC; whoever set `blocked` renews it, and if that ends
                                  the container goes on; 0: for as long as it is set */
    uint8_t reserved[72];
    struct hami_control_device devices[HAMI_MAX_DEVICES];
};

/*
 * Update without a torn read: body[epoch & 1] is the one in force. The writer fills the other body,
 * then stores epoch + 1 and wakes waiters. A reader copies the body in force and keeps the copy if
 * the epoch has not moved, and generation and crc32 agree. A writer that is killed half way leaves
 * the old body in force; nobody waits for it.
 */
struct hami_control {
    char magic[8];
    uint32_t layout_version;
    uint32_t size;
    uint32_t epoch; /* futex word: readers wait for it to change */
    uint8_t reserved[108];
    struct hami_control_body body[2];
    uint8_t tail[128];
};

/* ---------------------------------------------------------------------------------------------------
 * usage ---- */

#define HAMI_USAGE_MAGIC "HAMIUSGE"
#define HAMI_USAGE_VERSION 1u
#define HAMI_USAGE_SIZE 303104u

#define HAMI_UNIT 512u /* memory is charged in units of this many bytes, rounded up */

enum hami_kind {
    HAMI_KIND_BUFFER = 0, /* linear and pitched */
    HAMI_KIND_MANAGED = 1,
    HAMI_KIND_POOL = 2,
    HAMI_KIND_VMM = 3,
    HAMI_KIND_ARRAY = 4,
    HAMI_KIND_GRAPH = 5,
    HAMI_KIND_CONTEXT = 6, /* overhead: counts against the limit only under HAMI_OVERHEAD_STRICT */
    HAMI_KIND_MODULE = 7,  /* overhead */
    HAMI_KINDS = 8,
};

#define HAMI_SLOT_FREE 0u
#define HAMI_SLOT_LIVE 1u

#define HAMI_INTENT_NONE 0u
#define HAMI_INTENT_PENDING 1u

/*
 * `used` packs {units : 40, slot : 8, sequence : 16} from the high bits down: the units charged by
 * the whole container and who changed them last. So whether a killed process's last change took
 * place can be told exactly: either its slot and sequence still stand here, or whoever replaced
 * them confirmed the sequence in that process's slot first. A slot numbers its changes of one
 * device one after the other; a change that was refused uses up no number.
 */
#define HAMI_USED_UNITS_SHIFT 24u
#define HAMI_USED_SLOT_SHIFT 16u

struct hami_usage_device {
    uint64_t used;    /* own cache line pair */
    uint64_t peak;    /* highest `used` seen, in units */
    uint64_t refused; /* allocations that would have passed the limit */
    uint8_t reserved[104];
    /* Compute limiter, on a line pair of its own; zero while it is not running. Times are
     * CLOCK_MONOTONIC. */
    int64_t credit_ns;   /* GPU time that the container may spend now; below zero: a debt */
    uint64_t refill_ns;  /* when credit was last added */
    uint64_t charged_ns; /* GPU time charged so far */
    uint64_t launches;
    uint64_t crowded_until_ns; /* till then others are taken to compute here too */
    uint32_t holder;           /* slot + 1 of the process that took credit last */
    uint32_t gain;      /* what is charged of a measured time in a crowd, in 1/1024; 0: all */
    uint64_t looked_ns; /* when somebody last compared with NVML */
    uint64_t looked_charged_ns; /* charged_ns at that time */
    uint64_t long_until_ns; /* till then NVML's last second says little: launches are too long */
    uint32_t seen_lower;    /* NVML's last second held less than was charged */
    uint8_t reserved3[52];
};

/* One process in the queue for credit; by the index of its slot. */
struct hami_usage_turn {
    uint32_t waiting; /* device << 28 | the millisecond (28 bits) until which it waits; 0: it does
                         not */
    uint32_t served;  /* GPU time it has had, in 1024 ns, as far as it matters for its turn */
};

/* One change in flight: what is needed to finish or forget it after the process was killed at any
 * instruction. */
struct hami_usage_intent {
    uint32_t state;
    uint32_t device;
    uint32_t kind;
    uint32_t sequence; /* of this change, 16 bits used */
    int64_t delta_units;
    uint64_t share_after; /* the slot's share in units once the change took place */
};

/*
 * One process. Alive while it holds a write lock (open file description lock) on byte
 * HAMI_LOCK_BASE + index of the usage file, which the kernel drops with the process; start_time
 * (field 22 of /proc/<pid>/stat) is a second witness. Whoever holds that lock owns the slot: the
 * process itself, or the one that clears up after it.
 */
struct hami_usage_slot {
    uint32_t state;
    int32_t pid; /* in the container's PID namespace */
    uint64_t start_time;
    uint64_t last_activity_ns; /* CLOCK_REALTIME of the last kernel launch or allocation seen */
    uint64_t host; /* PID on the host << 32 | low 32 bits of the start_time it belongs to; 0: not
                      known. The monitor's one field in this file. */
    char command[16];
    uint8_t reserved2[16];
    struct hami_usage_intent intent;
    uint16_t confirmed[HAMI_MAX_DEVICES]; /* sequence of this slot's last change known to have taken
                                             place */
    uint64_t share_units[HAMI_MAX_DEVICES][HAMI_KINDS];
};

struct hami_usage {
    char magic[8];
    uint32_t layout_version;
    uint32_t size;
    char library_version[32];
    uint64_t
        unknown_symbols; /* look-ups of a name in our table that could not be mapped for certain */
    uint64_t unlimited_starts; /* processes that began to use a device with no limit attached */
    uint64_t private_starts;   /* processes that found every slot taken and count for themselves */
    uint64_t overhead_epoch;   /* moves whenever the overhead of some slot has changed */
    uint8_t reserved[944];
    struct hami_usage_turn turns[HAMI_MAX_SLOTS];
    uint8_t reserved2[1024];
    struct hami_usage_device devices[HAMI_MAX_DEVICES]; /* in the order of the control file */
    struct hami_usage_slot slots[HAMI_MAX_SLOTS];
};

/* Locks lie past the end of the file, where no data is. */
#define HAMI_LOCK_BASE 0x40000000

#define HAMI_AT(type, field, offset)                                                               \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field " has moved")

HAMI_AT(hami_control_device, uuid, 0);
HAMI_AT(hami_control_device, memory_limit_bytes, 64);
HAMI_AT(hami_control_device, core_limit_percent, 72);
HAMI_AT(hami_control_device, flags, 76);
HAMI_AT(hami_control_device, real_memory_bytes, 80);
_Static_assert(sizeof(struct hami_control_device) == 112, "hami_control_device has changed size");
HAMI_AT(hami_control_body, crc32, 0);
HAMI_AT(hami_control_body, generation, 4);
HAMI_AT(hami_control_body, flags, 8);
HAMI_AT(hami_control_body, device_count, 12);
HAMI_AT(hami_control_body, priority, 16);
HAMI_AT(hami_control_body, suspended, 20);
HAMI_AT(hami_control_body, blocked, 24);
HAMI_AT(hami_control_body, contended, 28);
HAMI_AT(hami_control_body, core_policy, 32);
HAMI_AT(hami_control_body, overhead_policy, 36);
HAMI_AT(hami_control_body, log_level, 40);
HAMI_AT(hami_control_body, blocked_until_ns, 48);
HAMI_AT(hami_control_body, devices, 128);
_Static_assert(sizeof(struct hami_control_body) == 1920, "hami_control_body has changed size");
HAMI_AT(hami_control, layout_version, 8);
HAMI_AT(hami_control, size, 12);
HAMI_AT(hami_control, epoch, 16);
HAMI_AT(hami_control, body, 128);
_Static_assert(sizeof(struct hami_control) == HAMI_CONTROL_SIZE, "hami_control has changed size");

HAMI_AT(hami_usage_device, used, 0);
HAMI_AT(hami_usage_device, peak, 8);
HAMI_AT(hami_usage_device, refused, 16);
HAMI_AT(hami_usage_device, credit_ns, 128);
HAMI_AT(hami_usage_device, refill_ns, 136);
HAMI_AT(hami_usage_device, charged_ns, 144);
HAMI_AT(hami_usage_device, launches, 152);
HAMI_AT(hami_usage_device, crowded_until_ns, 160);
HAMI_AT(hami_usage_device, holder, 168);
HAMI_AT(hami_usage_device, gain, 172);
HAMI_AT(hami_usage_device, looked_ns, 176);
HAMI_AT(hami_usage_device, looked_charged_ns, 184);
HAMI_AT(hami_usage_device, long_until_ns, 192);
HAMI_AT(hami_usage_device, seen_lower, 200);
_Static_assert(sizeof(struct hami_usage_device) == 256, "hami_usage_device has changed size");
HAMI_AT(hami_usage_intent, delta_units, 16);
HAMI_AT(hami_usage_intent, share_after, 24);
_Static_assert(sizeof(struct hami_usage_intent) == 32, "hami_usage_intent has changed size");
HAMI_AT(hami_usage_slot, state, 0);
HAMI_AT(hami_usage_slot, pid, 4);
HAMI_AT(hami_usage_slot, start_time, 8);
HAMI_AT(hami_usage_slot, last_activity_ns, 16);
HAMI_AT(hami_usage_slot, host, 24);
HAMI_AT(hami_usage_slot, command, 32);
HAMI_AT(hami_usage_slot, intent, 64);
HAMI_AT(hami_usage_slot, confirmed, 96);
HAMI_AT(hami_usage_slot, share_units, 128);
_Static_assert(sizeof(struct hami_usage_slot) == 1152, "hami_usage_slot has changed size");
HAMI_AT(hami_usage, layout_version, 8);
HAMI_AT(hami_usage, size, 12);
HAMI_AT(hami_usage, library_version, 16);
HAMI_AT(hami_usage, unknown_symbols, 48);
HAMI_AT(hami_usage, unlimited_starts, 56);
HAMI_AT(hami_usage, private_starts, 64);
HAMI_AT(hami_usage, overhead_epoch, 72);
HAMI_AT(hami_usage, turns, 1024);
HAMI_AT(hami_usage, devices, 4096);
HAMI_AT(hami_usage, slots, 8192);
_Static_assert(sizeof(struct hami_usage) == HAMI_USAGE_SIZE, "hami_usage has changed size");

#undef HAMI_AT

#endif
