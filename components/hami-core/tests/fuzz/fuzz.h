/* What a fuzz target gives the engine. */
#ifndef HAMI_FUZZ_H
#define HAMI_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#define FUZZ_MOST 8192

/* One input; a property that does not hold ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The i-th input to begin with, at most FUZZ_MOST bytes; its size, 0 after the last. */
size_t fuzz_example(unsigned i, uint8_t *into);

/* Words that inputs are made of; NULL at the end. */
extern const char *const fuzz_words[];

#endif
