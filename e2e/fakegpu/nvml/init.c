/* Start, stop, the system's own facts, error texts. */
#include "nvml_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct nvml nvml_global = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                           .changing = PTHREAD_MUTEX_INITIALIZER};

/* The mapping outlives nvmlShutdown: closing its descriptor would drop locks that libcuda.so.1 in
 * the same process holds on the same file. */
static nvmlReturn_t start(struct nvml *n) {
    int cards[FG_CARDS];
    if (!n->open && fg_attach(&n->fg, &nvml_global, false) != 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    n->open = true;
    n->count = fg_visible(&n->fg, cards);
    if (n->count < 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    for (int i = 0; i < n->count; i++)
        n->devices[i] =
            (struct nvmlDevice_st){.card = cards[i], .index = i, .unit = cards[i], .compute = -1};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    nvmlReturn_t rc = NVML_SUCCESS;
    (void)flags;
    pthread_mutex_lock(&nvml_global.mutex);
    if (nvml_global.users == 0)
        rc = start(&nvml_global);
    int asked = rc == NVML_SUCCESS ? nvml_fault("nvmlInit_v2") : 0;
    if (asked != 0) {
        nvml_call_ends(&asked);
        rc = asked;
    }
    if (rc == NVML_SUCCESS && nvml_global.users++ == 0)
        for (int i = 0; i < nvml_global.count; i++)
            fg_client_enter(&nvml_global.fg, nvml_global.devices[i].card);
    pthread_mutex_unlock(&nvml_global.mutex);
    return rc;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&nvml_global.mutex);
    bool running = nvml_global.users > 0;
    if (running && --nvml_global.users == 0)
        for (int i = 0; i < nvml_global.count; i++)
            fg_client_leave(&nvml_global.fg, nvml_global.devices[i].card);
    pthread_mutex_unlock(&nvml_global.mutex);
    return running ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvml_ready(void) {
    return nvml_global.users > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

static bool is_mig_handle(nvmlDevice_t device) {
    const void *first = nvml_global.migs, *end = nvml_global.migs + MIG_UNITS;
    return (const void *)device >= first && (const void *)device < end;
}

/* Checks a handle and finds its card. */
nvmlReturn_t nvml_device(nvmlDevice_t device, const struct fg_card **card) {
    if (nvml_ready() != NVML_SUCCESS)
        return NVML_ERROR_UNINITIALIZED;
    if (is_mig_handle(device))
        return NVML_ERROR_NOT_SUPPORTED;
    if (device < nvml_global.devices || device >= nvml_global.devices + nvml_global.count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *card = &nvml_global.fg.st->cards[device->card];
    return atomic_load(&(*card)->lost) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

/* The same for a call that knows MIG devices: their unit, while the instance exists. */
nvmlReturn_t nvml_any_device(nvmlDevice_t device, const struct fg_card **unit) {
    if (!is_mig_handle(device))
        return nvml_device(device, unit);
    if (nvml_ready() != NVML_SUCCESS)
        return NVML_ERROR_UNINITIALIZED;
    const struct fg_state *st = nvml_global.fg.st;
    *unit = &st->cards[device->unit];
    if (device->unit < FG_CARDS || !atomic_load(&(*unit)->instance.live) ||
        !atomic_load(&(*unit)->instance.computes[device->compute].live))
        return NVML_ERROR_INVALID_ARGUMENT;
    return atomic_load(&st->cards[device->card].lost) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result) {
    static const struct {
        nvmlReturn_t code;
        const char *text;
    } texts[] = {
        {NVML_SUCCESS, "Success"},
        {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
        {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
        {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
        {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
        {5, "Already Initialized"},
        {NVML_ERROR_NOT_FOUND, "Not Found"},
        {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
        {8, "Insufficient External Power"},
        {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
        {NVML_ERROR_TIMEOUT, "Timeout"},
        {11, "Interrupt Request Issue"},
        {12, "NVML Shared Library Not Found"},
        {13, "Function Not Found"},
        {14, "Corrupted infoROM"},
        {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
        {16, "GPU requires reset"},
        {17, "GPU access blocked by the operating system"},
        {18, "Driver/library version mismatch"},
        {19, "In use by another client"},
        {NVML_ERROR_MEMORY, "Insufficient Memory"},
        {NVML_ERROR_NO_DATA, "No data"},
        {23, "Insufficient Resources"},
        {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Version mismatch"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].code == result)
            return texts[i].text;
    return "Unknown Error";
}

nvmlReturn_t nvml_put_text(char *out, unsigned len, const char *text) {
    NULL_RETURNS_INVALID(out);
    if (strlen(text) >= len)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    READY_OR_RETURN();
    return nvml_put_text(version, length, nvml_global.fg.st->driver_version);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    char text[48];
    READY_OR_RETURN();
    snprintf(text, sizeof text, "%u.%s", nvml_global.fg.st->cuda_version / 1000,
             nvml_global.fg.st->driver_version);
    return nvml_put_text(version, length, text);
}

/* Needs no nvmlInit, as in the real library. */
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    NULL_RETURNS_INVALID(version);
    pthread_mutex_lock(&nvml_global.mutex);
    nvmlReturn_t rc = nvml_global.users > 0 ? NVML_SUCCESS : start(&nvml_global);
    pthread_mutex_unlock(&nvml_global.mutex);
    if (rc == NVML_SUCCESS)
        *version = (int)nvml_global.fg.st->cuda_version;
    return rc;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

/* The process's command, read in the caller's own /proc. */
nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    char path[64];
    NULL_RETURNS_INVALID(name);
    if (length == 0)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return errno == ENOENT ? NVML_ERROR_NOT_FOUND : NVML_ERROR_NO_PERMISSION;
    size_t n = fread(name, 1, length - 1, file);
    name[n] = '\0';
    fclose(file);
    return NVML_SUCCESS;
}
