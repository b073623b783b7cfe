/* Modes of a card, and how the cards of a node hang together. */
#include "nvml_int.h"

#include <stdio.h>

#define TOPOLOGY_HOSTBRIDGE 30
#define TOPOLOGY_SYSTEM 50
#define REMOTE_GPU 0
#define PCIE_GENERATION 4
#define PCIE_WIDTH 16

/* A getter of one unsigned value that is the same on every card. */
#define CONSTANT(name, constant)                                                                   \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *value);                                       \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *value) {                                      \
        CARD_OR_RETURN(device);                                                                    \
        NULL_RETURNS_INVALID(value);                                                               \
        (void)card;                                                                                \
        *value = (constant);                                                                       \
        return NVML_SUCCESS;                                                                       \
    }

CONSTANT(nvmlDeviceGetPersistenceMode, 1)
CONSTANT(nvmlDeviceGetComputeMode, 0)
CONSTANT(nvmlDeviceGetDisplayMode, 0)
CONSTANT(nvmlDeviceGetDisplayActive, 0)
CONSTANT(nvmlDeviceGetBrand, 2)
CONSTANT(nvmlDeviceGetBoardId, 0x100)
CONSTANT(nvmlDeviceGetMultiGpuBoard, 0)
CONSTANT(nvmlDeviceGetCurrPcieLinkGeneration, PCIE_GENERATION)
CONSTANT(nvmlDeviceGetMaxPcieLinkGeneration, PCIE_GENERATION)
CONSTANT(nvmlDeviceGetCurrPcieLinkWidth, PCIE_WIDTH)
CONSTANT(nvmlDeviceGetMaxPcieLinkWidth, PCIE_WIDTH)

nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned *cores) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(cores);
    *cores = card->sm_count * 64;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(current);
    NULL_RETURNS_INVALID(pending);
    (void)card;
    *current = *pending = 1;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int type, int counter,
                                         uint64_t *count) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(count);
    (void)card, (void)type, (void)counter;
    *count = 0;
    return NVML_SUCCESS;
}

/* Cards of one NUMA node meet at its host bridge, others across the sockets. */
nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device, nvmlDevice_t other,
                                                 int *level) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(level);
    const struct fg_card *second;
    nvmlReturn_t rc = nvml_device(other, &second);
    if (rc != NVML_SUCCESS)
        return rc;
    if (card == second)
        *level = 0;
    else
        *level = card->numa == second->numa ? TOPOLOGY_HOSTBRIDGE : TOPOLOGY_SYSTEM;
    return NVML_SUCCESS;
}

/* The card at the far end of a link: links are dealt out to the other cards in order. */
static nvmlReturn_t peer(nvmlDevice_t device, const struct fg_card *card, unsigned link,
                         const struct fg_card **out) {
    unsigned others = nvml_global.fg.st->ncards - 1;
    if (card->nvlinks == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    if (link >= card->nvlinks * others)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned index = link / card->nvlinks;
    *out = &nvml_global.fg.st->cards[index < (unsigned)device->card ? index : index + 1];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *active) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(active);
    const struct fg_card *far;
    nvmlReturn_t rc = peer(device, card, link, &far);
    if (rc == NVML_SUCCESS)
        *active = !atomic_load(&far->lost);
    return rc;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned link,
                                                 nvmlPciInfo_t *pci) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(pci);
    const struct fg_card *far;
    nvmlReturn_t rc = peer(device, card, link, &far);
    if (rc != NVML_SUCCESS)
        return rc;
    *pci = (nvmlPciInfo_t){.bus = far->pci_bus, .pciDeviceId = far->pci_device_id};
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", far->pci_bus & 0xff);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", far->pci_bus & 0xff);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned link, int *type) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(type);
    const struct fg_card *far;
    nvmlReturn_t rc = peer(device, card, link, &far);
    if (rc == NVML_SUCCESS)
        *type = REMOTE_GPU;
    return rc;
}
