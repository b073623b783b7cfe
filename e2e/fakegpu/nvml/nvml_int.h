/* What the files of the fake libnvidia-ml share. */
#ifndef NVML_INT_H
#define NVML_INT_H

#include "fg_mig.h"
#include "fg_nvml.h"

#define MIG_UNITS (FG_UNITS - FG_CARDS)

struct nvmlDevice_st {
    int card;    /* in the state file: also the minor number */
    int index;   /* among the visible cards */
    int unit;    /* the card, or the GPU instance of a MIG device */
    int compute; /* the compute instance of a MIG device; -1: a card */
};

struct nvmlGpuInstance_st {
    int unit;
    uint32_t generation;
};

struct nvmlComputeInstance_st {
    int unit, compute;
    uint32_t generation;
};

struct nvml {
    pthread_mutex_t mutex;
    int users; /* nvmlInit calls not yet undone */
    bool open;
    struct fg fg;
    int count;
    struct nvmlDevice_st devices[FG_CARDS];
    struct nvmlDevice_st migs[MIG_UNITS][FG_COMPUTES];
    struct nvmlGpuInstance_st instances[MIG_UNITS];
    struct nvmlComputeInstance_st computes[MIG_UNITS][FG_COMPUTES];
    pthread_mutex_t changing; /* what writes takes turns */
    bool writable;
    struct fg writer; /* a second mapping: a reader needs no writable file */
};

extern struct nvml nvml_global;

nvmlReturn_t nvml_device(nvmlDevice_t device, const struct fg_card **card);
nvmlReturn_t nvml_any_device(nvmlDevice_t device, const struct fg_card **unit);
nvmlReturn_t nvml_ready(void);
nvmlReturn_t nvml_put_text(char *out, unsigned len, const char *text);

/* mig.c */
nvmlDevice_t nvml_mig_handle(int unit, int compute);
nvmlDevice_t nvml_card_handle(int card);

/* gpu_instance.c */
nvmlReturn_t nvml_gpu_instance(nvmlGpuInstance_t gi, const struct fg_card **unit);

/* change.c */
int nvml_fault(const char *symbol);
void nvml_call_ends(const int *code);
struct fg *nvml_writer(void);
nvmlReturn_t nvml_begin_change(void);
nvmlReturn_t nvml_end_change(int rc);

/* A test may ask for calls to fail or to end the process (`fakegpu fail`). */
#define FAIL_IF_ASKED(symbol)                                                                      \
    int call_code __attribute__((cleanup(nvml_call_ends))) = nvml_fault(symbol);                   \
    if (call_code > 0)                                                                             \
    return call_code

/* Leaves the calling function unless NVML is initialised and the handle names a card that is on
 * the bus; declares `card`. */
#define NAMED_CARD_OR_RETURN(symbol, device)                                                       \
    FAIL_IF_ASKED(symbol);                                                                         \
    const struct fg_card *card;                                                                    \
    nvmlReturn_t card_rc = nvml_device(device, &card);                                             \
    if (card_rc != NVML_SUCCESS)                                                                   \
    return card_rc

#define CARD_OR_RETURN(device) NAMED_CARD_OR_RETURN(__func__, device)

/* The same for calls that know MIG devices too; `card` is then the instance's unit. */
#define NAMED_ANY_OR_RETURN(symbol, device)                                                        \
    FAIL_IF_ASKED(symbol);                                                                         \
    const struct fg_card *card;                                                                    \
    nvmlReturn_t card_rc = nvml_any_device(device, &card);                                         \
    if (card_rc != NVML_SUCCESS)                                                                   \
    return card_rc

#define ANY_OR_RETURN(device) NAMED_ANY_OR_RETURN(__func__, device)

#define READY_OR_RETURN()                                                                          \
    FAIL_IF_ASKED(__func__);                                                                       \
    if (nvml_ready() != NVML_SUCCESS)                                                              \
    return NVML_ERROR_UNINITIALIZED

#define NULL_RETURNS_INVALID(pointer)                                                              \
    if ((pointer) == NULL)                                                                         \
    return NVML_ERROR_INVALID_ARGUMENT

#endif
