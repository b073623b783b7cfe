/* What a container may use, from the control file or, where there is none, from HAMi's variables.
 * Pure. */
#ifndef HAMI_LIMIT_H
#define HAMI_LIMIT_H

#include "hami_region.h"

#include <stdbool.h>

/*
 * A size as HAMi's variables give it: digits (decimal, or hexadecimal after 0x), then optionally K,
 * M, G or T for binary multiples, itself followed by nothing, "B", "i" or "iB". False for anything
 * else and for what passes 2^63 - 1.
 */
bool limits_parse_size(const char *text, uint64_t *bytes);

/* A whole number in a variable; false if it is something else. */
bool limits_parse_number(const char *text, uint32_t *number);

/* A switch in a variable: "true", "1", "yes", "on", in any case. */
bool limits_parse_switch(const char *text);

/* GPU_CORE_UTILIZATION_POLICY: "force" and "disable" in any case; NULL and others leave what is. */
uint32_t limits_core_policy(const char *text, uint32_t otherwise);

/* Until when (CLOCK_MONOTONIC) the container may launch nothing; 0: it may. */
uint64_t limits_held_until(const struct hami_control_body *body);

/* The percentage of a device's time that the container may have now; 0: all of it. */
uint32_t limits_core_percent(const struct hami_control_body *body, unsigned device);

/* Copies the body in force. False if the file is of another layout, damaged, or changed at each of
 * a few tries. */
bool limits_read_control(const struct hami_control *control, struct hami_control_body *body);

/*
 * A body made of CUDA_DEVICE_MEMORY_LIMIT[_i] and CUDA_DEVICE_SM_LIMIT[_i], devices by NVML index
 * and without UUIDs. False if none is set. A value that cannot be read limits its device to nothing
 * and sets *malformed to its name.
 */
bool limits_from_environment(const char *const *environment, struct hami_control_body *body,
                             const char **malformed);

#endif
