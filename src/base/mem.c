#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *or_die(void *ptr)
{
    if (ptr == NULL) {
        fputs("memfs: out of memory\n", stderr);
        abort();
    }
    return ptr;
}

void *mem_alloc(size_t size)
{
    return or_die(calloc(1, size ? size : 1));
}

void *mem_realloc(void *ptr, size_t n, size_t size)
{
    return or_die(reallocarray(ptr, n ? n : 1, size ? size : 1));
}

char *mem_strdup(const char *s)
{
    return or_die(strdup(s));
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);

    if (n > 0)
        memcpy(copy, s, n);
    return copy;
}

char *mem_printf(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    return or_die(text);
}

void mem_freep(void *variable)
{
    void **ptr = variable;

    free(*ptr);
    *ptr = NULL;
}
