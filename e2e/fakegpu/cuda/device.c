/* Devices: which there are and what they can do. */
#include "cuda_int.h"
#include "fg_mig.h"

#include <stdio.h>
#include <string.h>

#define LAST_ATTRIBUTE 150

static const struct fg_card *card_of(CUdevice device) {
    return &cu_process.fg.st->cards[cu_process.cards[device]];
}

CUresult cu_device_card(CUdevice device, int *card) {
    if (device < 0 || device >= cu_process.count)
        return CUDA_ERROR_INVALID_DEVICE;
    *card = cu_process.cards[device];
    return CUDA_SUCCESS;
}

#define DEVICE_OR_RETURN(device)                                                                   \
    ENTER();                                                                                       \
    do {                                                                                           \
        int ignored;                                                                               \
        CUresult device_rc = cu_device_card(device, &ignored);                                     \
        if (device_rc != CUDA_SUCCESS)                                                             \
            return device_rc;                                                                      \
    } while (0)

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    DEVICE_OR_RETURN(ordinal);
    REQUIRE(device != NULL);
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    ENTER();
    REQUIRE(count != NULL);
    *count = cu_process.count;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int len, CUdevice device) {
    DEVICE_OR_RETURN(device);
    REQUIRE(name != NULL && len > 0);
    snprintf(name, (size_t)len, "%s", card_of(device)->name);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    DEVICE_OR_RETURN(device);
    REQUIRE(uuid != NULL);
    int ci = cu_process.computes[device];
    const struct fg_card *card = card_of(device);
    memcpy(uuid->bytes, ci < 0 ? card->uuid_bytes : card->instance.computes[ci].uuid_bytes,
           sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    DEVICE_OR_RETURN(device);
    REQUIRE(bytes != NULL);
    *bytes = card_of(device)->total;
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(unsigned *bytes, CUdevice device) {
    size_t total;
    REQUIRE(bytes != NULL);
    CUresult rc = cuDeviceTotalMem_v2(&total, device);
    if (rc == CUDA_SUCCESS)
        *bytes = total > UINT32_MAX ? UINT32_MAX : (unsigned)total;
    return rc;
}

CUresult cuDeviceGetPCIBusId(char *id, int len, CUdevice device) {
    DEVICE_OR_RETURN(device);
    REQUIRE(id != NULL && len >= 13);
    snprintf(id, (size_t)len, "0000:%02X:00.0", card_of(device)->pci_bus);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *id) {
    unsigned domain, bus;
    ENTER();
    REQUIRE(device != NULL && id != NULL);
    if (sscanf(id, "%x:%x:", &domain, &bus) != 2 && sscanf(id, "%x:", &bus) != 1)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < cu_process.count; i++)
        if (card_of(i)->pci_bus == bus) {
            *device = i;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_DEVICE;
}

/* CU_DEVICE_ATTRIBUTE_* that differ from 0 and are the same on every card. */
static int constant_attribute(int attribute) {
    static const int values[LAST_ATTRIBUTE + 1] = {
        [1] = 1024,        [2] = 1024,   [3] = 1024,     [4] = 64,       [5] = 2147483647,
        [6] = 65535,       [7] = 65535,  [8] = 49152,    [9] = 65536,    [10] = 32,
        [11] = 2147483647, [12] = 65536, [13] = 1410000, [14] = 512,     [15] = 1,
        [19] = 1,          [31] = 1,     [32] = 1,       [36] = 1215000, [37] = 5120,
        [38] = 41943040,   [39] = 2048,  [40] = 3,       [41] = 1,       [78] = 1,
        [79] = 1,          [80] = 1,     [81] = 167936,  [82] = 65536,   [83] = 1,
        [89] = 1,          [90] = 1,     [95] = 1,       [96] = 1,       [97] = 166912,
        [102] = 1,         [103] = 1,    [106] = 32,     [115] = 1,
    };
    return values[attribute];
}

static int multiprocessors(CUdevice device) {
    int ci = cu_process.computes[device];
    return (int)(ci < 0 ? card_of(device)->sm_count
                        : fg_mig_sms(&cu_process.fg, cu_process.cards[device], ci));
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    DEVICE_OR_RETURN(device);
    REQUIRE(value != NULL && attribute > 0 && attribute <= LAST_ATTRIBUTE);
    const struct fg_card *card = card_of(device);
    switch (attribute) {
    case 16:
        *value = multiprocessors(device);
        break;
    case 33:
        *value = (int)card->pci_bus;
        break;
    case 75:
        *value = (int)card->major;
        break;
    case 76:
        *value = (int)card->minor;
        break;
    default:
        *value = constant_attribute(attribute);
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    DEVICE_OR_RETURN(device);
    REQUIRE(major != NULL && minor != NULL);
    *major = (int)card_of(device)->major;
    *minor = (int)card_of(device)->minor;
    return CUDA_SUCCESS;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
    DEVICE_OR_RETURN(device);
    DEVICE_OR_RETURN(peer);
    REQUIRE(can != NULL);
    *can = device != peer;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAttribute(int *value, int attribute, CUdevice device, CUdevice peer) {
    DEVICE_OR_RETURN(device);
    DEVICE_OR_RETURN(peer);
    REQUIRE(value != NULL && device != peer);
    (void)attribute;
    *value = 1;
    return CUDA_SUCCESS;
}
