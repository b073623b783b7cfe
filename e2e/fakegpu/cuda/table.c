/* The table of entry points, and the symbols that share another's code. */
#include "api_table.h"

/* Each twin is a jump of its own: a caller that maps addresses back to symbols (interposers of
 * cuGetProcAddress do) must find one address for one symbol, so aliases will not do. */
#if defined(__x86_64__)
#define JUMP "jmp "
#else
#define JUMP "b "
#endif
#define EMIT(symbol, of)                                                                           \
    __asm__(".pushsection .text\n.globl " #symbol "\n.type " #symbol ", %function\n" #symbol       \
            ":\n\t" JUMP #of "\n.size " #symbol ", . - " #symbol "\n.popsection");

#define API(base, since, symbol) void symbol(void);
#define TWIN(base, since, symbol, of)                                                              \
    void symbol(void);                                                                             \
    EMIT(symbol, of)
#define PT(base, since, symbol, of) TWIN(base, since, symbol, of)
#include "api.def"
#undef API
#undef TWIN
#undef PT

#define API(base, since, symbol) {#base, since, false, symbol},
#define TWIN(base, since, symbol, of) {#base, since, false, symbol},
#define PT(base, since, symbol, of) {#base, since, true, symbol},

const struct api_entry cu_api[] = {
#include "api.def"
};

const int cu_api_count = sizeof cu_api / sizeof cu_api[0];
