/* Finding cards, and who they are. */
#include "nvml_int.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    READY_OR_RETURN();
    NULL_RETURNS_INVALID(count);
    *count = (unsigned)nvml_global.count;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

static nvmlReturn_t give(int index, nvmlDevice_t *out) {
    const struct fg_card *card;
    *out = &nvml_global.devices[index];
    return nvml_device(*out, &card);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    READY_OR_RETURN();
    NULL_RETURNS_INVALID(device);
    if (index >= (unsigned)nvml_global.count)
        return NVML_ERROR_INVALID_ARGUMENT;
    return give((int)index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static nvmlReturn_t by_mig_uuid(const char *uuid, nvmlDevice_t *device) {
    int unit, compute;
    for (int i = 0; i < nvml_global.count; i++)
        for (int n = 0;
             fg_mig_nth(&nvml_global.fg, nvml_global.devices[i].card, n, &unit, &compute) == 0; n++)
            if (strcmp(nvml_global.fg.st->cards[unit].instance.computes[compute].uuid, uuid) == 0) {
                *device = nvml_mig_handle(unit, compute);
                return NVML_SUCCESS;
            }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    READY_OR_RETURN();
    NULL_RETURNS_INVALID(uuid);
    NULL_RETURNS_INVALID(device);
    for (int i = 0; i < nvml_global.count; i++)
        if (strcmp(nvml_global.fg.st->cards[nvml_global.devices[i].card].uuid, uuid) == 0)
            return give(i, device);
    return by_mig_uuid(uuid, device);
}

/* Accepts the forms 00000000:10:00.0, 0000:10:00.0 and 10:00.0. */
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    READY_OR_RETURN();
    unsigned domain = 0, bus, slot, function;
    NULL_RETURNS_INVALID(bus_id);
    NULL_RETURNS_INVALID(device);
    if (sscanf(bus_id, "%x:%x:%x.%u", &domain, &bus, &slot, &function) != 4) {
        domain = 0;
        if (sscanf(bus_id, "%x:%x.%u", &bus, &slot, &function) != 3)
            return NVML_ERROR_INVALID_ARGUMENT;
    }
    for (int i = 0; i < nvml_global.count; i++)
        if (domain == 0 && slot == 0 &&
            nvml_global.fg.st->cards[nvml_global.devices[i].card].pci_bus == bus)
            return give(i, device);
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    ANY_OR_RETURN(device);
    return nvml_put_text(name, length, card->name);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) {
    ANY_OR_RETURN(device);
    const char *text =
        device->compute < 0 ? card->uuid : card->instance.computes[device->compute].uuid;
    return nvml_put_text(uuid, length, text);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned length) {
    char text[16];
    CARD_OR_RETURN(device);
    snprintf(
        text, sizeof text, "16%02u0%08u", card->major,
        (unsigned)(card->uuid_bytes[0] << 16 | card->uuid_bytes[1] << 8 | card->uuid_bytes[2]));
    return nvml_put_text(serial, length, text);
}

nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned length) {
    CARD_OR_RETURN(device);
    return nvml_put_text(version, length, "92.00.45.00.03");
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(index);
    (void)card;
    if (device->compute < 0) {
        *index = (unsigned)device->index;
        return NVML_SUCCESS;
    }
    int unit, compute;
    for (int n = 0; fg_mig_nth(&nvml_global.fg, device->card, n, &unit, &compute) == 0; n++)
        if (unit == device->unit && compute == device->compute)
            *index = (unsigned)n;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(minor);
    *minor = (unsigned)device->card;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(pci);
    *pci = (nvmlPciInfo_t){
        .bus = card->pci_bus, .pciDeviceId = card->pci_device_id, .pciSubSystemId = 0x134f10de};
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", card->pci_bus & 0xff);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", card->pci_bus & 0xff);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    return nvmlDeviceGetPciInfo_v3(device, pci);
}

nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    return nvmlDeviceGetPciInfo_v3(device, pci);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    ANY_OR_RETURN(device);
    NULL_RETURNS_INVALID(major);
    NULL_RETURNS_INVALID(minor);
    *major = (int)card->major;
    *minor = (int)card->minor;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, unsigned *node) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(node);
    if (card->numa < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    *node = (unsigned)card->numa;
    return NVML_SUCCESS;
}

/* NVML_DEVICE_ARCH_*: Turing 6, Ampere 7, Ada 8, Hopper 9, Blackwell 10. */
nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned *architecture) {
    CARD_OR_RETURN(device);
    NULL_RETURNS_INVALID(architecture);
    unsigned ampere = card->minor == 9 ? 8 : 7;
    *architecture = card->major == 7 ? 6 : card->major == 8 ? ampere : card->major == 9 ? 9 : 10;
    return NVML_SUCCESS;
}
