/* A small nvidia-smi: it knows NVML only, and that by dlopen, as the real one. */
#define _GNU_SOURCE
#include "fg_nvml.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1024 * 1024ull)
#define MOST_PROCESSES 512

static struct {
    nvmlReturn_t (*init)(void);
    nvmlReturn_t (*count)(unsigned *);
    nvmlReturn_t (*by_index)(unsigned, nvmlDevice_t *);
    nvmlReturn_t (*name)(nvmlDevice_t, char *, unsigned);
    nvmlReturn_t (*uuid)(nvmlDevice_t, char *, unsigned);
    nvmlReturn_t (*memory)(nvmlDevice_t, nvmlMemory_t *);
    nvmlReturn_t (*load)(nvmlDevice_t, nvmlUtilization_t *);
    nvmlReturn_t (*processes)(nvmlDevice_t, unsigned *, nvmlProcessInfo_v2_t *);
    nvmlReturn_t (*process_name)(unsigned, char *, unsigned);
    nvmlReturn_t (*temperature)(nvmlDevice_t, int, unsigned *);
    nvmlReturn_t (*pci)(nvmlDevice_t, nvmlPciInfo_t *);
    nvmlReturn_t (*driver)(char *, unsigned);
    nvmlReturn_t (*cuda)(int *);
    nvmlReturn_t (*mig)(nvmlDevice_t, unsigned, nvmlDevice_t *);
    const char *(*error)(nvmlReturn_t);
} nvml;

struct card {
    unsigned index;
    nvmlDevice_t handle;
    nvmlReturn_t rc;
    char name[96], uuid[96];
    nvmlMemory_t memory;
    nvmlUtilization_t load;
    unsigned celsius;
    nvmlPciInfo_t pci;
};

static bool load_nvml(void) {
    static const struct {
        const char *name;
        void *slot;
    } symbols[] = {
        {"nvmlInit_v2", &nvml.init},
        {"nvmlDeviceGetCount_v2", &nvml.count},
        {"nvmlDeviceGetHandleByIndex_v2", &nvml.by_index},
        {"nvmlDeviceGetName", &nvml.name},
        {"nvmlDeviceGetUUID", &nvml.uuid},
        {"nvmlDeviceGetMemoryInfo", &nvml.memory},
        {"nvmlDeviceGetUtilizationRates", &nvml.load},
        {"nvmlDeviceGetComputeRunningProcesses_v3", &nvml.processes},
        {"nvmlSystemGetProcessName", &nvml.process_name},
        {"nvmlDeviceGetTemperature", &nvml.temperature},
        {"nvmlDeviceGetPciInfo_v3", &nvml.pci},
        {"nvmlSystemGetDriverVersion", &nvml.driver},
        {"nvmlSystemGetCudaDriverVersion_v2", &nvml.cuda},
        {"nvmlDeviceGetMigDeviceHandleByIndex", &nvml.mig},
        {"nvmlErrorString", &nvml.error},
    };
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    for (size_t i = 0; library != NULL && i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL)
            return false;
        memcpy(symbols[i].slot, &symbol, sizeof symbol);
    }
    return library != NULL;
}

static struct card read_card(unsigned index) {
    struct card c = {.index = index, .name = "?", .uuid = "?"};
    c.rc = nvml.by_index(index, &c.handle);
    if (c.rc == NVML_SUCCESS)
        c.rc = nvml.name(c.handle, c.name, sizeof c.name);
    if (c.rc == NVML_SUCCESS)
        c.rc = nvml.uuid(c.handle, c.uuid, sizeof c.uuid);
    if (c.rc == NVML_SUCCESS)
        c.rc = nvml.memory(c.handle, &c.memory);
    if (c.rc == NVML_SUCCESS)
        c.rc = nvml.pci(c.handle, &c.pci);
    if (c.rc == NVML_SUCCESS) {
        nvml.load(c.handle, &c.load);
        nvml.temperature(c.handle, 0, &c.celsius);
    }
    return c;
}

static void list_instances(const struct card *c) {
    char name[96], uuid[96];
    nvmlDevice_t mig;
    for (unsigned i = 0; nvml.mig(c->handle, i, &mig) == NVML_SUCCESS; i++)
        if (nvml.name(mig, name, sizeof name) == NVML_SUCCESS &&
            nvml.uuid(mig, uuid, sizeof uuid) == NVML_SUCCESS)
            printf("  %-15s Device %2u: (UUID: %s)\n", strstr(name, "MIG "), i, uuid);
}

static void list(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct card c = read_card(i);
        if (c.rc == NVML_SUCCESS) {
            printf("GPU %u: %s (UUID: %s)\n", i, c.name, c.uuid);
            list_instances(&c);
        } else
            printf("Unable to determine the device handle for GPU %u: %s\n", i, nvml.error(c.rc));
    }
}

static bool field(const struct card *c, const char *name, bool units) {
    const char *mib = units ? " MiB" : "", *percent = units ? " %" : "";
    if (strcmp(name, "index") == 0)
        printf("%u", c->index);
    else if (strcmp(name, "uuid") == 0 || strcmp(name, "gpu_uuid") == 0)
        printf("%s", c->uuid);
    else if (strcmp(name, "name") == 0 || strcmp(name, "gpu_name") == 0)
        printf("%s", c->name);
    else if (strcmp(name, "memory.total") == 0)
        printf("%llu%s", (unsigned long long)(c->memory.total / MIB), mib);
    else if (strcmp(name, "memory.used") == 0)
        printf("%llu%s", (unsigned long long)(c->memory.used / MIB), mib);
    else if (strcmp(name, "memory.free") == 0)
        printf("%llu%s", (unsigned long long)(c->memory.free / MIB), mib);
    else if (strcmp(name, "utilization.gpu") == 0)
        printf("%u%s", c->load.gpu, percent);
    else if (strcmp(name, "temperature.gpu") == 0)
        printf("%u", c->celsius);
    else if (strcmp(name, "pci.bus_id") == 0)
        printf("%s", c->pci.busId);
    else
        return false;
    return true;
}

static int query(unsigned count, const char *fields, const char *format) {
    bool units = strstr(format, "nounits") == NULL;
    if (strstr(format, "noheader") == NULL)
        printf("%s\n", fields);
    for (unsigned i = 0; i < count; i++) {
        struct card c = read_card(i);
        char copy[1024], *save = NULL;
        const char *separator = "";
        snprintf(copy, sizeof copy, "%s", fields);
        for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
            while (*name == ' ')
                name++;
            fputs(separator, stdout);
            separator = ", ";
            if (c.rc != NVML_SUCCESS)
                printf("[%s]", nvml.error(c.rc));
            else if (!field(&c, name, units)) {
                fprintf(stderr, "Field \"%s\" is not a valid field to query.\n", name);
                return 2;
            }
        }
        putchar('\n');
    }
    return 0;
}

static const char bar[] =
    "+-----------------------------------------------------------------------------------------+";

/* One framed line, cut or filled to the frame's width. */
__attribute__((format(printf, 1, 2))) static void line(const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("| %-87.87s |\n", text);
}

static void print_card(const struct card *c) {
    if (c->rc != NVML_SUCCESS) {
        line("%3u  ERR! %s", c->index, nvml.error(c->rc));
    } else {
        line("%3u  %-40s %s", c->index, c->name, c->pci.busId);
        line("     %-42s %10lluMiB / %7lluMiB %8u%%", c->uuid,
             (unsigned long long)(c->memory.used / MIB),
             (unsigned long long)(c->memory.total / MIB), c->load.gpu);
    }
    puts(bar);
}

static bool print_processes(const struct card *c) {
    static nvmlProcessInfo_v2_t infos[MOST_PROCESSES];
    unsigned n = MOST_PROCESSES;
    if (c->rc != NVML_SUCCESS || nvml.processes(c->handle, &n, infos) != NVML_SUCCESS)
        return false;
    for (unsigned i = 0; i < n; i++) {
        char name[64] = "[Not Found]";
        nvml.process_name(infos[i].pid, name, sizeof name);
        line("%3u %10u    C   %-50.50s %8lluMiB", c->index, infos[i].pid, name,
             (unsigned long long)(infos[i].usedGpuMemory / MIB));
    }
    return n > 0;
}

static void overview(unsigned count) {
    char driver[80] = "?";
    int cuda = 0;
    bool any = false;
    nvml.driver(driver, sizeof driver);
    nvml.cuda(&cuda);
    puts(bar);
    line("NVIDIA-SMI %-20s Driver Version: %-20s CUDA Version: %d.%d", driver, driver, cuda / 1000,
         cuda % 1000 / 10);
    puts(bar);
    line("GPU  %-40s Bus-Id", "Name");
    line("     %-42s %24s %9s", "UUID", "Memory-Usage", "GPU-Util");
    puts(bar);
    for (unsigned i = 0; i < count; i++) {
        struct card c = read_card(i);
        print_card(&c);
    }
    line("Processes:");
    line("GPU        PID  Type  %-50s  GPU Memory", "Process name");
    puts(bar);
    for (unsigned i = 0; i < count; i++) {
        struct card c = read_card(i);
        any = print_processes(&c) || any;
    }
    if (!any)
        line("No running processes found");
    puts(bar);
}

int main(int argc, char **argv) {
    const char *fields = NULL, *format = "csv";
    bool want_list = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-L") == 0 || strcmp(argv[i], "--list-gpus") == 0)
            want_list = true;
        else if (strncmp(argv[i], "--query-gpu=", 12) == 0)
            fields = argv[i] + 12;
        else if (strncmp(argv[i], "--format=", 9) == 0)
            format = argv[i] + 9;
        else {
            fprintf(stderr, "Invalid option \"%s\"; known: -L, --query-gpu=, --format=\n", argv[i]);
            return 2;
        }
    }
    if (!load_nvml()) {
        fputs("NVIDIA-SMI couldn't find libnvidia-ml.so.1 in your system.\n", stderr);
        return 12;
    }
    unsigned count = 0;
    nvmlReturn_t rc = nvml.init();
    if (rc == NVML_SUCCESS)
        rc = nvml.count(&count);
    if (rc != NVML_SUCCESS) {
        printf("NVIDIA-SMI has failed: %s\n", nvml.error(rc));
        return rc;
    }
    if (fields != NULL)
        return query(count, fields, format);
    if (want_list)
        list(count);
    else
        overview(count);
    return 0;
}
