#define _GNU_SOURCE
#include "log.h"

#include "limit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNKNOWN (-1)

static _Atomic int current_level = UNKNOWN;

static int level_from_environment(void) {
    const char *text = getenv("LIBCUDA_LOG_LEVEL");
    uint32_t level = 0;
    return text != NULL && limits_parse_number(text, &level) ? (int)level : 0;
}

void log_set_level(int level) {
    atomic_store(&current_level, level >= 0 ? level : level_from_environment());
}

void log_line(int level, const char *format, ...) {
    char line[512];
    int saved = errno;
    int current = atomic_load(&current_level);
    if (current == UNKNOWN) {
        current = level_from_environment();
    }
    if (level > current) {
        return;
    }
    int used = snprintf(line, sizeof(line) - 1, "[hami-core %d] ", (int)getpid());
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + used, sizeof(line) - 1 - (size_t)used, format, arguments);
    va_end(arguments);
    size_t length = strlen(line);
    line[length++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written; /* nobody to tell */
    errno = saved;
}
