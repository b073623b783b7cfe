/* What the files of the fake libnvidia-ml share. */
#ifndef NVML_INT_H
#define NVML_INT_H

#include "fg_nvml.h"
#include "fg_state.h"

struct nvmlDevice_st {
    int card;  /* in the state file: also the minor number */
    int index; /* among the visible cards */
};

struct nvml {
    pthread_mutex_t mutex;
    int users; /* nvmlInit calls not yet undone */
    bool open;
    struct fg fg;
    int count;
    struct nvmlDevice_st devices[FG_CARDS];
};

extern struct nvml nvml_global;

nvmlReturn_t nvml_device(nvmlDevice_t device, const struct fg_card **card);
nvmlReturn_t nvml_ready(void);

/* Leaves the calling function unless NVML is initialised and the handle names a card that is on
 * the bus; declares `card`. */
#define CARD_OR_RETURN(device)                                                                     \
    const struct fg_card *card;                                                                    \
    nvmlReturn_t card_rc = nvml_device(device, &card);                                             \
    if (card_rc != NVML_SUCCESS)                                                                   \
    return card_rc

#define NULL_RETURNS_INVALID(pointer)                                                              \
    if ((pointer) == NULL)                                                                         \
    return NVML_ERROR_INVALID_ARGUMENT

#endif
