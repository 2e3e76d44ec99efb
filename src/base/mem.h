/*
 * mem.h - small allocations that cannot fail.
 *
 * As in git and Redis, an allocation of a size that we chose ends the process when memory is gone:
 * a crash must lose nothing anyway (reliability D1).  Whatever is sized by input goes through
 * memfs_buf, which is bounded and fails with MEMFS_ELIMIT instead.
 *
 * Every pointer returned is the caller's, to be released with free().
 */
#ifndef MEMFS_BASE_MEM_H
#define MEMFS_BASE_MEM_H

#include "base/macros.h"

void *mem_alloc(size_t size);                        /* zeroed */
void *mem_realloc(void *ptr, size_t n, size_t size); /* n * size, checked; aborts on overflow */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n); /* copies n bytes, NUL bytes too, and terminates */
char *mem_printf(const char *fmt, ...) MEMFS_PRINTF(1, 2);

/* For _cleanup_: frees what the variable points to. */
void mem_freep(void *variable);

#endif
