#define _GNU_SOURCE
#include "gate.h"

#include "account.h"
#include "credit.h"
#include "crowd.h"
#include "driver.h"
#include "turn.h"

#include <errno.h>
#include <limits.h>
#include <sys/mman.h>
#include <time.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18 /* Linux 4.14 */
#endif

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

#define LEASE_NS 200000 /* of GPU time, taken at once by a thread */
#define LONG_NS 500000  /* launches of this length are all measured */
#define RUN_LAUNCHES 8  /* shorter ones are measured in runs, so that overlaps are seen */
#define RUN_EVERY_NS (10 * NS_PER_MS)
#define MOST_UNKNOWN 1           /* launches of a function before it has been measured */
#define UNKNOWN_WAIT_NS NS_PER_S /* for that; such a kernel may wait for another launch of ours */
#define LONGEST_SLEEP_NS (50 * NS_PER_MS)
#define TURN_POLL_NS (NS_PER_MS / 2)
#define TURN_GRACE_MS 10
#define JOIN_SLACK_NS 50000000
#define LOOK_EVERY_NS (50 * NS_PER_MS)
#define MOST_LOOKS 4096
#define CROWD_NS NS_PER_S
#define LOOK_LASTS_NS (5 * NS_PER_S / 2)

static const _Atomic uint32_t no_epoch;
struct gate gate = {&no_epoch, GATE_SHUT, 0};
_Thread_local struct thread_gate thread_gate;

/* What a process with a core limit has; zeroed by the kernel in a forked child. */
struct compute {
    struct meter meter;
    _Atomic uint32_t capturing;
    _Atomic uint32_t run_left;
    _Atomic uint32_t short_launches; /* since the last run */
    _Atomic uint32_t run_weight;
    _Atomic uint64_t run_ended_ns;
    struct price_list prices;
};

static struct compute *_Atomic compute_pages;

static uint64_t now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static struct compute *compute_get(void) {
    struct compute *compute = atomic_load_explicit(&compute_pages, memory_order_acquire);
    if (LIKELY(compute != NULL)) {
        return compute;
    }
    void *pages = mmap(NULL, sizeof(struct compute), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        return NULL;
    }
    madvise(pages, sizeof(struct compute), MADV_WIPEONFORK);
    if (atomic_compare_exchange_strong(&compute_pages, &compute, pages)) {
        return pages;
    }
    munmap(pages, sizeof(struct compute));
    return compute;
}

void gate_after_fork(void) {
    atomic_store(&gate.epoch, &no_epoch);
    atomic_store(&gate.open_at, GATE_SHUT);
    __builtin_memset(&thread_gate, 0, sizeof(thread_gate));
}

bool gate_is_crowded(const struct process *process, unsigned device) {
    struct hami_usage_device *shared = &process->usage->devices[device];
    uint64_t until = atomic_load_explicit(SHARED(shared->crowded_until_ns), memory_order_relaxed);
    uint64_t looked = atomic_load_explicit(SHARED(shared->looked_ns), memory_order_relaxed);
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    /* Who has not had to wait of late has not looked. */
    bool unknown = now < looked || now - looked > LOOK_LASTS_NS;
    return process->body.contended != 0 || unknown || (until > now && until - now < 10 * NS_PER_S);
}

static struct known_launch *known_slot(struct thread_gate *thread, const void *function,
                                       uint64_t blocks) {
    uint64_t mixed = ((uint64_t)(uintptr_t)function >> 4) ^ ((uint64_t)(uintptr_t)function >> 9);
    return &thread->known[(mixed ^ blocks) % KNOWN_LAUNCHES];
}

bool gate_spends_lease(const void *function, uint64_t blocks, uint32_t epoch) {
    struct thread_gate *thread = &thread_gate;
    const struct known_launch *known = known_slot(thread, function, blocks);
    if (thread->epoch != epoch || known->function != function || known->blocks != blocks ||
        thread->round != atomic_load_explicit(&gate.round, memory_order_relaxed) ||
        known->context != driver_current_context()) {
        return false;
    }
    uint64_t price = atomic_load_explicit(&known->price->estimate_ns, memory_order_relaxed);
    if (price - 1 >= LONG_NS - 1 || (int64_t)price > thread->lease_ns ||
        --thread->until_look <= 0) {
        return false;
    }
    thread->lease_ns -= (int64_t)price;
    thread->launches++;
    return true;
}

/* Publishes at about 20 Hz that we launch, without reading the clock at every launch. */
static void look_at_clock(struct thread_gate *thread, struct process *process) {
    uint64_t now = now_ns(CLOCK_MONOTONIC_COARSE);
    uint64_t passed = now - thread->looked_ns;
    if (thread->until_look > 0) {
        return;
    }
    if (passed >= LOOK_EVERY_NS) {
        thread->looked_ns = now;
        thread->look_every = passed > 2 * LOOK_EVERY_NS ? 1 : thread->look_every;
        process_note_activity(process);
    } else if (thread->look_every < MOST_LOOKS) {
        thread->look_every = thread->look_every * 2 + 1;
    }
    thread->until_look = thread->look_every;
}

/* Nothing limits launches in this epoch, nor will the gate be asked again before it changes. */
static void open_gate(struct process *process, uint32_t epoch) {
    if (process == NULL) {
        thread_gate.until_look = INT_MAX;
    }
    atomic_store_explicit(&gate.open_at, epoch, memory_order_relaxed);
}

static bool has_core_limit(const struct process *process) {
    for (unsigned i = 0; i < HAMI_MAX_DEVICES; i++) {
        if (atomic_load_explicit(&process->core_percent[i], memory_order_relaxed) != 0) {
            return true;
        }
    }
    return false;
}

/* Waits while the container is suspended or blocked; the epoch that the launch belongs to. */
static uint32_t wait_while_held(struct process *process) {
    for (;;) {
        uint32_t epoch = process_epoch(process);
        process_limits();
        uint64_t until = atomic_load(&process->held_until_ns);
        uint64_t now = until != 0 ? now_ns(CLOCK_MONOTONIC) : 0;
        if (until <= now) {
            return epoch;
        }
        process_wait_control(process, epoch, until - now < NS_PER_S ? until : now + NS_PER_S);
    }
}

/* This process holds the device; whoever held it within the last second shares it with us. */
static void note_holder(struct process *process, struct hami_usage_device *device, uint64_t now) {
    uint32_t ours = process->slot + 1;
    uint32_t before = atomic_load_explicit(SHARED(device->holder), memory_order_relaxed);
    if (before != ours) {
        atomic_store_explicit(SHARED(device->holder), ours, memory_order_relaxed);
        if (before != 0) {
            atomic_store(SHARED(device->crowded_until_ns), now + CROWD_NS);
        }
    }
}

static void wait_for_credit(struct process *process, unsigned index, uint32_t epoch,
                            uint64_t wait_ns) {
    uint64_t sleep = wait_ns == 0                 ? TURN_POLL_NS
                     : wait_ns < LONGEST_SLEEP_NS ? wait_ns
                                                  : LONGEST_SLEEP_NS;
    crowd_look(process, index, now_ns(CLOCK_MONOTONIC));
    process_note_activity(process); /* who waits for credit is not idle */
    uint64_t until = now_ns(CLOCK_MONOTONIC) + sleep;
    turn_wait(process->usage, process->slot, index, until / NS_PER_MS + TURN_GRACE_MS);
    process_wait_control(process, epoch, until);
}

/* Takes credit, when it is our turn and there is some. */
static void take_credit(struct process *process, struct compute *compute, unsigned index,
                        int64_t amount_ns) {
    struct hami_usage_device *device = &process->usage->devices[index];
    turn_join(process->usage, process->slot, index, JOIN_SLACK_NS + 2 * amount_ns);
    for (bool waited = false;; waited = true) {
        uint32_t epoch = wait_while_held(process);
        uint32_t percent = atomic_load(&process->core_percent[index]);
        uint64_t now = now_ns(CLOCK_MONOTONIC);
        bool done = percent == 0; /* the limit may have been lifted meanwhile */
        if (!done) {
            meter_harvest(&compute->meter, process);
            credit_refill(device, percent, now);
            done = turn_is_ours(process->usage, process->slot, index, now / NS_PER_MS) &&
                   credit_take(device, amount_ns);
        }
        if (done) {
            if (waited) {
                turn_leave(process->usage, process->slot);
            }
            note_holder(process, device, now);
            turn_serve(process->usage, process->slot, amount_ns);
            return;
        }
        wait_for_credit(process, index, epoch, credit_wait_ns(device, percent));
    }
}

/* A function that has never been measured may run a few times at once, not a thousand. Its price
 * afterwards; what has not ended after a second counts as a second. */
static uint64_t learn_price(struct process *process, struct compute *compute, struct price *price) {
    uint64_t began = now_ns(CLOCK_MONOTONIC);
    uint64_t nap = NS_PER_MS / 20;
    for (;;) {
        meter_harvest(&compute->meter, process);
        uint64_t known = atomic_load(&price->estimate_ns);
        bool room =
            atomic_load(&price->in_flight) < MOST_UNKNOWN && compute->meter.waiting < METER_SAMPLES;
        uint64_t now = now_ns(CLOCK_MONOTONIC);
        if (known != 0 || room) {
            return known;
        }
        if (now - began >= UNKNOWN_WAIT_NS) {
            return UNKNOWN_WAIT_NS;
        }
        process_wait_control(process, process_epoch(process), now + nap);
        nap = nap < 2 * NS_PER_MS ? nap * 2 : nap;
    }
}

/* Short launches are measured in runs of consecutive ones, each standing for those since the last.
 */
static bool joins_run(struct compute *compute, uint32_t *weight) {
    if (atomic_load(&gate.round) % 2 == 0) {
        uint64_t now = now_ns(CLOCK_MONOTONIC_COARSE);
        uint32_t since = atomic_load(&compute->short_launches);
        if (since < 2 * RUN_LAUNCHES || now - atomic_load(&compute->run_ended_ns) < RUN_EVERY_NS) {
            return false;
        }
        atomic_store(&compute->run_weight, 1 + since / RUN_LAUNCHES);
        atomic_store(&compute->short_launches, 0);
        atomic_store(&compute->run_left, RUN_LAUNCHES + 1);
        atomic_fetch_or(&gate.round, 1);
    }
    uint32_t left = atomic_load(&compute->run_left);
    while (left > 0 && !atomic_compare_exchange_weak(&compute->run_left, &left, left - 1)) {
    }
    if (left <= 1) {
        atomic_store(&compute->run_ended_ns, now_ns(CLOCK_MONOTONIC_COARSE));
        atomic_store(&gate.round, (atomic_load(&gate.round) | 1) + 1);
    }
    *weight = left <= RUN_LAUNCHES ? atomic_load(&compute->run_weight) : 0;
    return left > 0;
}

/* This launch, and those that the thread has made since it was here last. */
static void count_launches(struct process *process, struct compute *compute, unsigned device) {
    struct thread_gate *thread = &thread_gate;
    struct hami_usage_device *devices = process->usage->devices;
    __atomic_fetch_add(&devices[thread->device].launches, thread->launches, __ATOMIC_RELAXED);
    __atomic_fetch_add(&devices[device].launches, 1, __ATOMIC_RELAXED);
    atomic_fetch_add(&compute->short_launches, thread->launches);
    thread->launches = 0;
}

/* Whether this launch is measured, and how much it stands for. */
static bool is_measured(struct compute *compute, struct launch *launch, uint64_t price) {
    launch->sample.weight = 1;
    launch->sample.since_ns = now_ns(CLOCK_MONOTONIC_COARSE);
    if (price == 0 || price >= LONG_NS) {
        return true;
    }
    if (launch->sample.price->seen < PRICE_RECENT / 2) {
        return true;
    }
    launch->sample.since_ns = atomic_load(&compute->run_ended_ns);
    bool joined = joins_run(compute, &launch->sample.weight);
    if (!joined || launch->sample.weight == 0) {
        atomic_fetch_add(&compute->short_launches, 1);
    }
    return joined;
}

/* Pays for the launch: from the thread's lease if it is for this device, else from the container's
 * credit. */
static void pay(struct process *process, struct compute *compute, struct launch *launch,
                uint64_t price) {
    struct thread_gate *thread = &thread_gate;
    unsigned device = launch->sample.device;
    int64_t amount = (int64_t)price;
    if (thread->device != device) {
        thread->lease_ns = 0;
        thread->device = device;
    }
    if (amount == 0 || amount > thread->lease_ns) { /* who costs nothing yet waits all the same */
        int64_t take = amount == 0 ? 1 : amount > LEASE_NS ? amount : LEASE_NS;
        take_credit(process, compute, device, take);
        thread->lease_ns += take;
    }
    thread->lease_ns -= amount;
    launch->sample.charged_ns = price;
}

static void enter_limited(struct process *process, struct launch *launch, uint32_t epoch) {
    struct thread_gate *thread = &thread_gate;
    struct compute *compute = compute_get();
    int index = 0;
    if (compute == NULL || !account_current_device(process, &index) || index < 0 ||
        (atomic_load(&compute->capturing) != 0 && driver_is_capturing(launch->stream, false))) {
        return;
    }
    if (atomic_load(&process->core_percent[index]) == 0) {
        return; /* another device has the limit */
    }
    crowd_look(process, (unsigned)index, now_ns(CLOCK_MONOTONIC)); /* also who never has to wait */
    struct sample *sample = &launch->sample;
    sample->device = (unsigned)index;
    sample->context = driver_current_context();
    sample->price =
        price_find(&compute->prices, price_key(launch->function, sample->device, launch->blocks));
    count_launches(process, compute, sample->device);
    uint64_t price = learn_price(process, compute, sample->price);
    pay(process, compute, launch, price);
    thread->epoch = epoch;
    thread->round = atomic_load(&gate.round) & ~1u; /* an odd one is a run: no launch goes past */
    *known_slot(thread, launch->function, launch->blocks) =
        (struct known_launch){launch->function, launch->blocks, sample->context, sample->price};
    launch->measured =
        is_measured(compute, launch, price) && /* after the wait, before the launch */
        meter_begin(&compute->meter, sample, launch->stream);
    if (!launch->measured && price == 0) {
        meter_charge_unmeasured(process, sample);
    }
}

void gate_enter(struct launch *launch, const void *function, uint64_t blocks, CUstream stream) {
    int saved = errno;
    bool refuse = false;
    launch->function = function;
    launch->blocks = blocks;
    launch->stream = stream;
    launch->measured = false;
    struct process *process = process_account(&refuse);
    launch->process = process;
    if (process == NULL) {
        if (!refuse) {
            open_gate(NULL, *atomic_load(&gate.epoch));
        }
        errno = saved;
        return;
    }
    atomic_store(&gate.epoch, process->source == LIMITS_CONTROL
                                  ? (const _Atomic uint32_t *)&process->control->epoch
                                  : &no_epoch);
    look_at_clock(&thread_gate, process);
    uint32_t epoch = wait_while_held(process);
    if (has_core_limit(process)) {
        enter_limited(process, launch, epoch);
    } else {
        open_gate(process, epoch);
    }
    errno = saved;
}

CUresult gate_leave(struct launch *launch, CUresult answer) {
    if (launch->measured) {
        int saved = errno;
        meter_end(&compute_get()->meter, &launch->sample, launch->stream, answer == CUDA_SUCCESS);
        if (answer != CUDA_SUCCESS) {
            credit_settle(&launch->process->usage->devices[launch->sample.device],
                          -(int64_t)launch->sample.charged_ns);
        }
        errno = saved;
    }
    return answer;
}

void gate_capture(int begun) {
    struct compute *compute = compute_get();
    if (compute != NULL) {
        atomic_fetch_add(&compute->capturing, (uint32_t)begun);
        atomic_fetch_add(&gate.round, 2); /* launches of every thread look again */
    }
}

void gate_context_ends(void) {
    struct compute *compute = compute_get();
    struct process *process = process_limits();
    if (compute != NULL) {
        if (process != NULL && atomic_load(&process->slot_ready) != 0) {
            meter_harvest(&compute->meter, process);
        }
        meter_pause(&compute->meter);
    }
}

void gate_context_ended(CUcontext destroyed) {
    struct compute *compute = compute_get();
    if (compute != NULL) {
        meter_resume(&compute->meter, destroyed);
    }
}
