/*
 * buf.h - owned bytes with a bound.
 *
 * A memfs_buf is always NUL-terminated (the NUL is not counted), may hold NUL bytes, and its ptr is
 * always readable.  It is made with the most bytes it may ever hold, so hostile input ends in
 * MEMFS_ELIMIT and not in memory.  Failure sticks: append freely, ask buf_check() once at the end.
 *
 *     _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(64 * 1024);
 *
 * Fields are for reading; only the functions below change them.
 */
#ifndef MEMFS_BASE_BUF_H
#define MEMFS_BASE_BUF_H

#include "base/error.h"
#include "base/str.h"

typedef struct memfs_buf {
    char *ptr;
    size_t len;
    size_t cap;
    size_t max_bytes;
    bool too_big; /* an append was refused; what is there is only a prefix */
} memfs_buf;

extern char memfs_buf_empty[1];

#define MEMFS_BUF_INIT(max) { memfs_buf_empty, 0, 0, (max), false }
#define MEMFS_BUF_UNLIMITED (SIZE_MAX / 4)

/* life cycle */
void buf_dispose(memfs_buf *b);
/* Empties, keeps the memory and the bound, forgets the failure. */
void buf_clear(memfs_buf *b);
/* Ownership leaves the source: returns the text (caller frees), b becomes empty. */
char *buf_take(memfs_buf *b, size_t *ret_len);

/* changing */
void buf_add(memfs_buf *b, const void *bytes, size_t n);
void buf_add_str(memfs_buf *b, memfs_str s);
void buf_puts(memfs_buf *b, const char *s);
void buf_putc(memfs_buf *b, char c);
void buf_printf(memfs_buf *b, const char *fmt, ...) MEMFS_PRINTF(2, 3);
/* Room for n more bytes at ptr + len; NULL when the bound forbids.  Follow with buf_grew(). */
char *buf_reserve(memfs_buf *b, size_t n);
void buf_grew(memfs_buf *b, size_t n);
/* Cuts to len bytes, or drops n bytes at the front. */
void buf_truncate(memfs_buf *b, size_t len);
void buf_drop_front(memfs_buf *b, size_t n);

/* reading */
static inline memfs_str buf_str(const memfs_buf *b)
{
    return str_make(b->ptr, b->len);
}
/* MEMFS_ELIMIT "<what> is larger than N bytes" when an append was refused. */
MEMFS_CHECK memfs_code buf_check(const memfs_buf *b, const char *what, memfs_error *err);

#endif
