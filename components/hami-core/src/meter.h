/*
 * Measures launches: a pair of events around a sample of them, asked about later and never waited
 * for. What was measured is settled with the price that the launch was charged.
 */
#ifndef HAMI_METER_H
#define HAMI_METER_H

#include "lock.h"
#include "price.h"
#include "process.h"

#define METER_SAMPLES 64u
#define METER_UNMEASURED_NS 1000000 /* what a launch costs of which nothing can be learned */

/* One measured launch. */
struct sample {
    CUevent start, end;
    CUcontext context;
    struct price *price;
    uint64_t charged_ns;
    uint64_t paid_ns; /* for it and for those that it stands for: no more can be given back */
    uint32_t weight;  /* how many launches it stands for; 0: it only shows what overlaps the next */
    unsigned device;
    uint64_t since_ns; /* when the first launch that it stands for was made */
};

/* Zero is an empty one, which is what a forked child finds. */
struct meter {
    hami_lock lock;
    unsigned waiting;
    unsigned paused; /* a context is being destroyed: its events are not to be touched */
    struct sample samples[METER_SAMPLES];   /* in the order of their launches */
    struct sample latest[HAMI_MAX_DEVICES]; /* the one that ended last, for what overlaps it */
    struct sample idle[METER_SAMPLES];      /* events to be used again */
    unsigned idle_count;
    uint64_t occupied_ns[HAMI_MAX_DEVICES]; /* up to when the devices' time is accounted for */
};

/* Takes a pair of events and records the first on the stream. False: this launch goes unmeasured.
 */
bool meter_begin(struct meter *meter, struct sample *sample, CUstream stream);

/* After the launch: records the second and waits for nothing. */
void meter_end(struct meter *meter, struct sample *sample, CUstream stream, bool launched);

/* A launch that could not be measured, and has no price yet. */
void meter_charge_unmeasured(struct process *process, const struct sample *sample);

/* Settles what has ended meanwhile. */
void meter_harvest(struct meter *meter, struct process *process);

/* Around a call that may destroy a context: its events go with it. NULL: it lives on. */
void meter_pause(struct meter *meter);
void meter_resume(struct meter *meter, CUcontext destroyed);

#endif
