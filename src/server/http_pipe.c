/*
 * http_pipe.c - bytes between an event thread and a worker.
 *
 * A ring that starts empty-handed and doubles up to its bound, so that the small requests, which
 * are nearly all of them, never pay for the large ones.  Whoever shares a pipe between threads
 * holds a mutex around these calls.
 */
#include "server/http_int.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_BYTES 4096

void http_pipe_init(http_pipe *p, size_t max_bytes)
{
    *p = (http_pipe){ .max_bytes = max_bytes };
}

void http_pipe_dispose(http_pipe *p)
{
    free(p->ptr);
    p->ptr = NULL;
    p->cap = p->start = p->len = 0;
}

/* Copies the oldest n bytes out without taking them. */
static void copy_out(const http_pipe *p, char *to, size_t n)
{
    size_t first = p->cap - p->start;

    if (n == 0)
        return;
    if (first > n)
        first = n;
    memcpy(to, p->ptr + p->start, first);
    memcpy(to + first, p->ptr, n - first);
}

static void grow(http_pipe *p, size_t need)
{
    size_t cap = p->cap > 0 ? p->cap : FIRST_BYTES;
    char *ptr;

    while (cap < need)
        cap *= 2;
    if (cap > p->max_bytes)
        cap = p->max_bytes;
    if (cap <= p->cap)
        return;
    ptr = mem_realloc(NULL, cap, 1);
    copy_out(p, ptr, p->len);
    free(p->ptr);
    p->ptr = ptr;
    p->cap = cap;
    p->start = 0;
}

size_t http_pipe_put(http_pipe *p, const void *bytes, size_t n)
{
    size_t end, first;

    if (n > p->max_bytes - p->len)
        n = p->max_bytes - p->len;
    if (n == 0)
        return 0;
    grow(p, p->len + n);
    end = (p->start + p->len) % p->cap;
    first = p->cap - end;
    if (first > n)
        first = n;
    memcpy(p->ptr + end, bytes, first);
    memcpy(p->ptr, (const char *)bytes + first, n - first);
    p->len += n;
    return n;
}

size_t http_pipe_take(http_pipe *p, void *bytes, size_t n)
{
    if (n > p->len)
        n = p->len;
    if (n == 0)
        return 0;
    copy_out(p, bytes, n);
    p->start = (p->start + n) % p->cap;
    p->len -= n;
    return n;
}

memfs_str http_pipe_whole(const http_pipe *p)
{
    assert(p->start == 0);
    return str_make(p->ptr != NULL ? p->ptr : "", p->len);
}
