/* Modules, functions, launches: a kernel's name says how long it takes. */
#include "cuda_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_NS 10000ull
#define MOST_NS 3600000000000ull

struct module {
    enum magic magic;
    struct ctx *ctx;
    uint64_t bytes;
    char *text; /* PTX only: other images are opaque and have every function */
    struct function *functions;
};

struct function {
    enum magic magic;
    struct module *module;
    struct function *next;
    uint64_t duration_ns;
    char name[];
};

/* k_<N>us anywhere in the name (mangled names too): every wave of blocks takes N microseconds. */
static uint64_t duration_of(const char *name) {
    for (const char *s = strstr(name, "k_"); s != NULL; s = strstr(s + 1, "k_")) {
        char *end;
        unsigned long long us = strtoull(s + 2, &end, 10);
        if (end != s + 2 && strncmp(end, "us", 2) == 0)
            return us > MOST_NS / 1000 ? MOST_NS : us * 1000;
    }
    return DEFAULT_NS;
}

static bool is_ptx(const char *image) {
    return strncmp(image, "//", 2) == 0 || strncmp(image, ".version", 8) == 0;
}

static CUresult load(CUmodule *out, const void *image, struct ctx *ctx) {
    REQUIRE(out != NULL && image != NULL);
    struct module *m = calloc(1, sizeof *m);
    if (m == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->magic = MAGIC_MODULE;
    m->ctx = ctx;
    uint64_t bytes =
        ctx != NULL ? (uint64_t)cu_process.fg.st->cards[ctx->card].module_mib * FG_MIB : 0;
    CUresult rc =
        cu_error(fg_charge(&cu_process.fg, ctx != NULL ? ctx->card : 0, bytes, FG_MODULE));
    if (rc != CUDA_SUCCESS) {
        free(m);
        return rc;
    }
    if (ctx != NULL)
        atomic_fetch_add(&ctx->module_bytes, bytes);
    m->bytes = bytes;
    m->text = is_ptx(image) ? strdup(image) : NULL;
    *out = m;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *out, const void *image) {
    CONTEXT_OR_RETURN(ctx);
    return load(out, image, ctx);
}

CUresult cuModuleLoadDataEx(CUmodule *out, const void *image, unsigned n, int *options,
                            void **values) {
    (void)n, (void)options, (void)values;
    return cuModuleLoadData(out, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *out, const void *image) {
    return cuModuleLoadData(out, image);
}

static CUresult load_file(CUmodule *out, const char *path, struct ctx *ctx) {
    char text[65536];
    REQUIRE(out != NULL && path != NULL);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return CUDA_ERROR_FILE_NOT_FOUND;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return load(out, text, ctx);
}

CUresult cuModuleLoad(CUmodule *out, const char *path) {
    CONTEXT_OR_RETURN(ctx);
    return load_file(out, path, ctx);
}

CUresult cuModuleUnload(CUmodule module) {
    ENTER();
    REQUIRE_HANDLE(module, MAGIC_MODULE);
    if (module->ctx != NULL && module->ctx->alive) {
        fg_uncharge(&cu_process.fg, module->ctx->card, module->bytes, FG_MODULE);
        atomic_fetch_sub(&module->ctx->module_bytes, module->bytes);
    }
    module->magic = MAGIC_DEAD; /* it and its functions are kept: stale handles stay readable */
    free(module->text);
    module->text = NULL;
    return CUDA_SUCCESS;
}

static struct function *add_function(struct module *module, const char *name) {
    for (struct function *f = module->functions; f != NULL; f = f->next)
        if (strcmp(f->name, name) == 0)
            return f;
    struct function *f = calloc(1, sizeof *f + strlen(name) + 1);
    if (f == NULL)
        return NULL;
    f->magic = MAGIC_FUNCTION;
    f->module = module;
    f->duration_ns = duration_of(name);
    memcpy(f->name, name, strlen(name) + 1);
    f->next = module->functions;
    return module->functions = f;
}

CUresult cuModuleGetFunction(CUfunction *out, CUmodule module, const char *name) {
    ENTER();
    REQUIRE(out != NULL && name != NULL);
    REQUIRE_HANDLE(module, MAGIC_MODULE);
    if (module->text != NULL && strstr(module->text, name) == NULL)
        return CUDA_ERROR_NOT_FOUND;
    pthread_mutex_lock(&cu_process.mutex);
    *out = add_function(module, name);
    pthread_mutex_unlock(&cu_process.mutex);
    return *out != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* A library is a module of no context, a kernel its function: cuLaunchKernel takes both. */
CUresult cuLibraryLoadData(CUmodule *out, const void *image, void *jit, void **jit_values,
                           unsigned jit_count, void *options, void **values, unsigned count) {
    ENTER();
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    return load(out, image, NULL);
}

CUresult cuLibraryLoadFromFile(CUmodule *out, const char *path, void *jit, void **jit_values,
                               unsigned jit_count, void *options, void **values, unsigned count) {
    ENTER();
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    return load_file(out, path, NULL);
}

CUresult cuLibraryUnload(CUmodule library) { return cuModuleUnload(library); }

CUresult cuLibraryGetKernel(CUfunction *out, CUmodule library, const char *name) {
    return cuModuleGetFunction(out, library, name);
}

CUresult cuLibraryGetModule(CUmodule *out, CUmodule library) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL);
    REQUIRE_HANDLE(library, MAGIC_MODULE);
    *out = library;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetFunction(CUfunction *out, CUfunction kernel) {
    CONTEXT_OR_RETURN(ctx);
    REQUIRE(out != NULL);
    REQUIRE_HANDLE(kernel, MAGIC_FUNCTION);
    *out = kernel;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetLoadingMode(int *mode) {
    REQUIRE(mode != NULL);
    *mode = 2; /* lazy */
    return CUDA_SUCCESS;
}

CUresult cuFuncGetModule(CUmodule *out, CUfunction f) {
    ENTER();
    REQUIRE(out != NULL);
    REQUIRE_HANDLE(f, MAGIC_FUNCTION);
    *out = f->module;
    return CUDA_SUCCESS;
}

/* CU_FUNC_ATTRIBUTE_*: most threads 0, registers 4, PTX and binary version 5 and 6. */
CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction f) {
    ENTER();
    REQUIRE(value != NULL && attribute >= 0 && attribute <= 15);
    REQUIRE_HANDLE(f, MAGIC_FUNCTION);
    static const int values[16] = {[0] = 1024, [4] = 32, [5] = 80, [6] = 80};
    *value = values[attribute];
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction f, int attribute, int value) {
    ENTER();
    (void)attribute, (void)value;
    REQUIRE_HANDLE(f, MAGIC_FUNCTION);
    return CUDA_SUCCESS;
}

CUresult cuFuncSetCacheConfig(CUfunction f, int config) { return cuFuncSetAttribute(f, config, 0); }

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction f, int threads,
                                                     size_t shared) {
    ENTER();
    (void)shared;
    REQUIRE(blocks != NULL && threads > 0);
    REQUIRE_HANDLE(f, MAGIC_FUNCTION);
    *blocks = 1; /* the cost model runs one block on each SM at a time */
    return CUDA_SUCCESS;
}

/* Waves of one block per SM, saturating. */
uint64_t cu_launch_ns(const struct function *f, uint64_t gx, uint64_t gy, uint64_t gz, int card) {
    uint64_t blocks, sms = cu_process.fg.st->cards[card].sm_count;
    if (__builtin_mul_overflow(gx, gy, &blocks) || __builtin_mul_overflow(blocks, gz, &blocks))
        blocks = UINT64_MAX / 2;
    uint64_t waves = sms == 0 ? blocks : blocks / sms + (blocks % sms != 0), ns;
    if (__builtin_mul_overflow(waves, f->duration_ns, &ns) || ns > MOST_NS)
        return MOST_NS;
    return ns;
}

/* Queues work on the stream's card; a full queue makes the caller wait, as the driver's does. */
CUresult cu_run(struct stream *stream, uint64_t duration_ns) {
    struct ctx *ctx = stream->ctx;
    if (!ctx->alive)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (atomic_load(&cu_process.fg.st->cards[ctx->card].lost))
        return CUDA_ERROR_UNKNOWN;
    _Atomic uint64_t *place = &ctx->queue[atomic_fetch_add(&ctx->queued, 1) % QUEUE_DEPTH];
    fg_wait_mark(&cu_process.fg, ctx->card, atomic_load(place));
    struct fg_work work = {duration_ns, atomic_load(&stream->wait_ns),
                           atomic_load(&stream->last_end)};
    uint64_t end = fg_run(&cu_process.fg, ctx->card, &work);
    atomic_store(place, end);
    cu_note_end(stream, end);
    return CUDA_SUCCESS;
}

static CUresult launch(CUfunction f, uint64_t gx, uint64_t gy, uint64_t gz, uint64_t threads,
                       CUstream handle) {
    CONTEXT_OR_RETURN(ctx);
    FAIL_IF_ASKED("cuLaunchKernel");
    REQUIRE_HANDLE(f, MAGIC_FUNCTION);
    REQUIRE(gx > 0 && gy > 0 && gz > 0 && gx < 1ull << 31 && gy < 65536 && gz < 65536 &&
            threads > 0 && threads <= 1024);
    struct stream *stream = cu_stream(handle, ctx);
    if (stream == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t ns = cu_launch_ns(f, gx, gy, gz, stream->ctx->card);
    return stream->capture != NULL ? cu_capture(stream->capture, ns) : cu_run(stream, ns);
}

CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared, CUstream stream, void **params,
                        void **extra) {
    (void)shared, (void)params, (void)extra;
    return launch(f, gx, gy, gz, (uint64_t)bx * by * bz, stream);
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                   unsigned by, unsigned bz, unsigned shared, CUstream stream,
                                   void **params) {
    (void)shared, (void)params;
    return launch(f, gx, gy, gz, (uint64_t)bx * by * bz, stream);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra) {
    (void)params, (void)extra;
    REQUIRE(c != NULL);
    return launch(f, c->gridDimX, c->gridDimY, c->gridDimZ,
                  (uint64_t)c->blockDimX * c->blockDimY * c->blockDimZ, c->hStream);
}

/* The way to launch of before CUDA 4: one thread a block unless cuFuncSetBlockShape said more. */
CUresult cuFuncSetBlockShape(CUfunction f, int x, int y, int z) {
    ENTER();
    REQUIRE_HANDLE(f, MAGIC_FUNCTION);
    REQUIRE(x > 0 && y > 0 && z > 0);
    return CUDA_SUCCESS;
}

CUresult cuLaunchGridAsync(CUfunction f, int width, int height, CUstream stream) {
    REQUIRE(width > 0 && height > 0);
    return launch(f, (uint64_t)width, (uint64_t)height, 1, 1, stream);
}

CUresult cuLaunchGrid(CUfunction f, int width, int height) {
    return cuLaunchGridAsync(f, width, height, NULL);
}

CUresult cuLaunch(CUfunction f) { return cuLaunchGridAsync(f, 1, 1, NULL); }

CUresult cuLaunchCooperativeKernelMultiDevice(const CUDA_LAUNCH_PARAMS *list, unsigned count,
                                              unsigned flags) {
    (void)flags;
    REQUIRE(list != NULL && count > 0);
    CUresult rc = CUDA_SUCCESS;
    for (unsigned i = 0; i < count && rc == CUDA_SUCCESS; i++)
        rc = launch(list[i].function, list[i].gridDimX, list[i].gridDimY, list[i].gridDimZ,
                    (uint64_t)list[i].blockDimX * list[i].blockDimY * list[i].blockDimZ,
                    list[i].hStream);
    return rc;
}
