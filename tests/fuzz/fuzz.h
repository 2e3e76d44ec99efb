/*
 * fuzz.h - what a fuzz target is: one function that takes any bytes and must not crash.
 *
 * A target copies what it parses into memory of exactly its size, so that the sanitizer sees a read
 * past the end, and checks with FUZZ_CHECK what must hold of any result.
 */
#ifndef MEMFS_FUZZ_H
#define MEMFS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#endif
