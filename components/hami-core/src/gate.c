#define _GNU_SOURCE
#include "gate.h"

#include "account.h"
#include "clock.h"
#include "credit.h"
#include "crowd.h"
#include "driver.h"
#include "learn.h"
#include "purse.h"

#include <errno.h>
#include <limits.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define LOOK_EVERY_NS (50 * NS_PER_MS)
#define MOST_LOOKS 4096
#define LOOK_LASTS_NS (5 * NS_PER_S / 2)

static const _Atomic uint32_t no_epoch;
struct gate gate = {&no_epoch, GATE_SHUT, 0};
_Thread_local struct thread_gate thread_gate;

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
        (!thread->one_device && known->context != driver_current_context())) {
        return false;
    }
    uint64_t price = atomic_load_explicit(&known->price->estimate_ns, memory_order_relaxed);
    if (price - 1 >= LONG_LAUNCH_NS - 1 || (int64_t)price > thread->lease_ns ||
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

uint32_t gate_wait_while_held(struct process *process) {
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

static void enter_limited(struct process *process, struct launch *launch, uint32_t epoch) {
    struct thread_gate *thread = &thread_gate;
    struct compute *compute = learn_state();
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
    purse_count(process, compute, sample->device);
    uint64_t price = learn_price(process, compute, sample->price);
    purse_pay(process, compute, launch, price);
    thread->epoch = epoch;
    thread->round = atomic_load(&gate.round) & ~1u; /* an odd one is a run: no launch goes past */
    thread->one_device = driver_device_count() == 1;
    *known_slot(thread, launch->function, launch->blocks) =
        (struct known_launch){launch->function, launch->blocks, sample->context, sample->price};
    launch->measured =
        learn_measures(compute, launch, price) && /* after the wait, before the launch */
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
    uint32_t epoch = gate_wait_while_held(process);
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
        meter_end(&learn_state()->meter, &launch->sample, launch->stream, answer == CUDA_SUCCESS);
        if (answer != CUDA_SUCCESS) {
            credit_settle(&launch->process->usage->devices[launch->sample.device],
                          -(int64_t)launch->sample.charged_ns);
        }
        errno = saved;
    }
    return answer;
}

void gate_capture(int begun) {
    struct compute *compute = learn_state();
    if (compute != NULL) {
        atomic_fetch_add(&compute->capturing, (uint32_t)begun);
        atomic_fetch_add(&gate.round, 2); /* launches of every thread look again */
    }
}

void gate_context_ends(void) {
    struct compute *compute = learn_state();
    struct process *process = process_limits();
    if (compute != NULL) {
        if (process != NULL && atomic_load(&process->slot_ready) != 0) {
            meter_harvest(&compute->meter, process);
        }
        meter_pause(&compute->meter);
    }
}

void gate_context_ended(CUcontext destroyed) {
    struct compute *compute = learn_state();
    if (compute != NULL) {
        meter_resume(&compute->meter, destroyed);
    }
}
