#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

char memfs_buf_empty[1];

void buf_dispose(memfs_buf *b)
{
    if (b->cap > 0)
        free(b->ptr);
    b->ptr = memfs_buf_empty;
    b->len = b->cap = 0;
}

void buf_clear(memfs_buf *b)
{
    buf_truncate(b, 0);
    b->too_big = false;
}

char *buf_take(memfs_buf *b, size_t *ret_len)
{
    char *text = b->cap > 0 ? b->ptr : mem_alloc(1);

    if (ret_len != NULL)
        *ret_len = b->len;
    b->ptr = memfs_buf_empty;
    b->len = b->cap = 0;
    return text;
}

char *buf_reserve(memfs_buf *b, size_t n)
{
    size_t need, cap;

    if (b->too_big || n > b->max_bytes || b->len > b->max_bytes - n) {
        b->too_big = true;
        return NULL;
    }
    need = b->len + n + 1;
    if (need > b->cap) {
        cap = b->cap < 32 ? 64 : b->cap * 2;
        if (cap < need)
            cap = need;
        b->ptr = mem_realloc(b->cap > 0 ? b->ptr : NULL, cap, 1);
        b->cap = cap;
        b->ptr[b->len] = '\0';
    }
    return b->ptr + b->len;
}

void buf_grew(memfs_buf *b, size_t n)
{
    b->len += n;
    b->ptr[b->len] = '\0';
}

void buf_add(memfs_buf *b, const void *bytes, size_t n)
{
    char *room;

    if (n == 0)
        return;
    room = buf_reserve(b, n);
    if (room == NULL)
        return;
    memcpy(room, bytes, n);
    buf_grew(b, n);
}

void buf_add_str(memfs_buf *b, memfs_str s)
{
    buf_add(b, s.ptr, s.len);
}

void buf_puts(memfs_buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_putc(memfs_buf *b, char c)
{
    char *room = buf_reserve(b, 1);

    if (room == NULL)
        return;
    *room = c;
    buf_grew(b, 1);
}

void buf_printf(memfs_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    char *room;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    room = n < 0 ? NULL : buf_reserve(b, (size_t)n);
    if (room != NULL) {
        vsnprintf(room, (size_t)n + 1, fmt, again);
        buf_grew(b, (size_t)n);
    }
    va_end(again);
}

void buf_truncate(memfs_buf *b, size_t len)
{
    if (len >= b->len)
        return;
    b->len = len;
    b->ptr[len] = '\0';
}

void buf_drop_front(memfs_buf *b, size_t n)
{
    if (n == 0)
        return;
    if (n > b->len)
        n = b->len;
    memmove(b->ptr, b->ptr + n, b->len - n);
    buf_truncate(b, b->len - n);
}

memfs_code buf_check(const memfs_buf *b, const char *what, memfs_error *err)
{
    if (!b->too_big)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ELIMIT, "%s is larger than %zu bytes", what, b->max_bytes);
}
