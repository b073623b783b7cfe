#define _GNU_SOURCE
#include "purse.h"

#include "clock.h"
#include "credit.h"
#include "crowd.h"
#include "loader.h"
#include "turn.h"

#include <dlfcn.h>

#define SHARED(field) ((_Atomic __typeof__(field) *)&(field))
#define LEASE_NS 500000 /* of GPU time, taken at once by a thread */
#define LONGEST_SLEEP_NS (50 * NS_PER_MS)
#define TURN_POLL_NS (NS_PER_MS / 2)
#define TURN_GRACE_MS 10
#define JOIN_SLACK_NS 50000000
#define CROWD_NS NS_PER_S

extern void *__dso_handle;

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
        uint32_t epoch = gate_wait_while_held(process);
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

/* The launches that the thread has made since it was here last. */
static void count_past(struct process *process, struct compute *compute) {
    struct thread_gate *thread = &thread_gate;
    struct hami_usage_device *device = &process->usage->devices[thread->device];
    if (thread->launches != 0) {
        __atomic_fetch_add(&device->launches, thread->launches, __ATOMIC_RELAXED);
        learn_count(compute, thread->launches, thread->counted_ns - thread->lease_ns);
        thread->launches = 0;
    }
    thread->counted_ns = thread->lease_ns;
}

void purse_count(struct process *process, struct compute *compute, unsigned device) {
    count_past(process, compute);
    __atomic_fetch_add(&process->usage->devices[device].launches, 1, __ATOMIC_RELAXED);
}

static void give_back(struct process *process) {
    struct thread_gate *thread = &thread_gate;
    if (thread->lease_ns > 0) {
        credit_settle(&process->usage->devices[thread->device], -thread->lease_ns);
        turn_serve(process->usage, process->slot, -thread->lease_ns);
    }
    thread->lease_ns = 0;
    thread->counted_ns = 0;
}

static void thread_ends(void *nothing) {
    (void)nothing;
    if (!thread_gate.watched) {
        return; /* a forked child */
    }
    struct process *process = process_limits();
    struct compute *compute = learn_state();
    thread_gate.watched = false;
    if (process != NULL && compute != NULL && atomic_load(&process->slot_ready) != 0) {
        count_past(process, compute);
        give_back(process);
    }
}

/* Of a thread that ends, or a process that it ends with; glibc 2.18 and later can tell. */
static void watch_end(struct thread_gate *thread) {
    typedef int at_exit_fn(void (*call)(void *), void *argument, void *dso);
    at_exit_fn *at_exit =
        (at_exit_fn *)loader_get()->dlsym(RTLD_DEFAULT, "__cxa_thread_atexit_impl");
    thread->watched = true;
    if (at_exit != NULL) {
        at_exit(thread_ends, NULL, &__dso_handle);
    }
}

void purse_pay(struct process *process, struct compute *compute, struct launch *launch,
               uint64_t price) {
    struct thread_gate *thread = &thread_gate;
    unsigned device = launch->sample.device;
    int64_t amount = (int64_t)price;
    if (thread->device != device) {
        give_back(process);
        thread->device = device;
        /* Launches on the other device must not be paid by this one's lease. */
        __builtin_memset(thread->known, 0, sizeof(thread->known));
    }
    if (amount == 0 || amount > thread->lease_ns) { /* who costs nothing yet waits all the same */
        int64_t take = amount == 0 ? 1 : amount > LEASE_NS ? amount : LEASE_NS;
        take_credit(process, compute, device, take);
        thread->lease_ns += take;
    }
    if (!thread->watched) {
        watch_end(thread);
    }
    thread->lease_ns -= amount;
    thread->counted_ns = thread->lease_ns;
    launch->sample.charged_ns = price;
}
