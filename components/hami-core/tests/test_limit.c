/* Reading limits: HAMi's variables with their documented policy for nonsense, and the control file.
 */
#include "../src/array_size.h"
#include "../src/limit.h"
#include "check.h"

#include <string.h>

static void sizes(void) {
    static const struct {
        const char *text;
        bool good;
        uint64_t bytes;
    } cases[] = {
        {"3000m", true, UINT64_C(3000) << 20},
        {"3000M", true, UINT64_C(3000) << 20},
        {"1g", true, UINT64_C(1) << 30},
        {"1GB", true, UINT64_C(1) << 30},
        {"1Gi", true, UINT64_C(1) << 30},
        {"512MiB", true, UINT64_C(512) << 20},
        {"1024", true, 1024},
        {"0", true, 0},
        {"010", true, 10},
        {"0x10", true, 16},
        {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0},
        {"18446744073709551616", false, 0},
        {"9999999999g", false, 0},
        {"", false, 0},
        {"-1", false, 0},
        {"m", false, 0},
        {"1x", false, 0},
        {"1mm", false, 0},
        {"1 m", false, 0},
        {"0x", false, 0},
        {"1.5g", false, 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t bytes = 0;
        if (limits_parse_size(cases[i].text, &bytes) != cases[i].good ||
            (cases[i].good && bytes != cases[i].bytes)) {
            fprintf(stderr, "%s reads as %llu\n", cases[i].text, (unsigned long long)bytes);
            exit(1);
        }
    }
}

static void switches(void) {
    CHECK(limits_parse_switch("true") && limits_parse_switch("TRUE") && limits_parse_switch("1"));
    CHECK(!limits_parse_switch("false") && !limits_parse_switch("0") && !limits_parse_switch(""));
    CHECK(!limits_parse_switch("trueish"));
}

static void environment(void) {
    struct hami_control_body body;
    const char *malformed = NULL;
    const char *none[] = {"PATH=/bin", "CUDA_DEVICE_MEMORY_LIMITS=1g",
                          "CUDA_DEVICE_MEMORY_LIMIT_16=1g", NULL};
    const char *some[] = {"CUDA_DEVICE_MEMORY_LIMIT_1=100m", "CUDA_DEVICE_MEMORY_LIMIT=1g",
                          "CUDA_DEVICE_SM_LIMIT=30", NULL};
    const char *bad[] = {"CUDA_DEVICE_MEMORY_LIMIT_0=lots", "CUDA_DEVICE_SM_LIMIT=101", NULL};
    CHECK(!limits_from_environment(none, &body, &malformed));
    CHECK(!limits_from_environment(NULL, &body, &malformed));
    CHECK(limits_from_environment(some, &body, &malformed) && malformed == NULL);
    CHECK(body.devices[0].memory_limit_bytes == UINT64_C(1) << 30);
    CHECK(body.devices[1].memory_limit_bytes == UINT64_C(100) << 20);
    CHECK(body.devices[15].core_limit_percent == 30);
    CHECK(limits_from_environment(bad, &body, &malformed) && malformed != NULL);
    CHECK(body.devices[0].memory_limit_bytes == 1); /* too little for anything: fails closed */
    CHECK(body.devices[1].memory_limit_bytes == 0);
    CHECK(body.devices[0].core_limit_percent == 0);
}

/* The file that hamikit wrote, if the harness gives one; garbage of every kind otherwise. */
static void control(const char *path) {
    static struct hami_control image;
    struct hami_control_body body;
    CHECK(!limits_read_control(&image, &body));
    memset(&image, 0xff, sizeof(image));
    CHECK(!limits_read_control(&image, &body));
    if (path == NULL) {
        return;
    }
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fread(&image, sizeof(image), 1, file) == 1);
    fclose(file);
    CHECK(limits_read_control(&image, &body));
    printf("%u %s %llu %u %d\n", body.device_count, body.devices[0].uuid,
           (unsigned long long)body.devices[0].memory_limit_bytes,
           body.devices[0].core_limit_percent, body.priority);
    ((uint8_t *)&image.body[image.epoch & 1])[1000] ^= 1;
    CHECK(!limits_read_control(&image, &body));
}

static void arrays(void) {
    CUDA_ARRAY3D_DESCRIPTOR one = {
        .width = 100, .height = 50, .depth = 0, .format = 0x20, .channels = 4};
    CUDA_ARRAY3D_DESCRIPTOR huge = {SIZE_MAX, SIZE_MAX, SIZE_MAX, 0x20, 4, 0};
    CUDA_ARRAY_DESCRIPTOR flat = {64, 0, 0x01, 1};
    CHECK(array_bytes_3d(&one, 1) == 100 * 50 * 16);
    CHECK(array_bytes_3d(&one, 2) == (100 * 50 + 50 * 25) * 16);
    CHECK(array_bytes_3d(&huge, 1) == UINT64_MAX);
    CHECK(array_bytes_3d(NULL, 1) == 0);
    CHECK(array_bytes_2d(&flat) == 64);
    one.flags = CUDA_ARRAY3D_SPARSE;
    CHECK(array_bytes_3d(&one, 1) == 0);
}

int main(int argc, char **argv) {
    sizes();
    switches();
    environment();
    control(argc > 1 ? argv[1] : NULL);
    arrays();
    return 0;
}
