/*
 * log.c - events as lines.
 *
 * A line is put together on the stack, at most LINE_BYTES of it, and leaves in one write.  A pipe
 * that poll() calls writable has room for PIPE_BUF bytes, and a line is never longer, so the write
 * neither blocks nor mixes with another writer's.  When there is no room for PATIENCE_MS the line
 * is dropped; the next line that gets through is preceded by one that says how many were lost.
 */
#include "base/log.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/str.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_BYTES 4096
#define PATIENCE_MS 20
static_assert(LINE_BYTES <= PIPE_BUF, "a line must fit into one atomic write to a pipe");

typedef struct line {
    char bytes[LINE_BYTES];
    size_t len;
} line;

static atomic_int least_level = LOG_INFO;
static pthread_mutex_t write_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long n_dropped; /* guarded by write_mutex */

void log_set_level(log_level least)
{
    atomic_store(&least_level, least);
}

/* The last byte is kept for the newline. */
static bool put(line *l, const char *bytes, size_t n)
{
    if (n > sizeof(l->bytes) - 1 - l->len)
        return false;
    memcpy(l->bytes + l->len, bytes, n);
    l->len += n;
    return true;
}

static bool put_text(line *l, const char *text)
{
    return put(l, text, strlen(text));
}

static bool is_bare(memfs_str s)
{
    static const char allowed[] = "._:/@+-";

    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            (c == '\0' || strchr(allowed, c) == NULL))
            return false;
    }
    return s.len > 0;
}

/* What would end the line or the quotes, or make a terminal act. */
static bool is_hostile(uint32_t cp)
{
    return cp == '"' || cp == '\\' || escape_is_control(cp);
}

static bool put_hex(line *l, memfs_str s)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        char escape[4] = { '\\', 'x', digits[c >> 4], digits[c & 15] };

        if (!put(l, escape, sizeof(escape)))
            return false;
    }
    return true;
}

static bool put_quoted(line *l, memfs_str s)
{
    size_t pos = 0;

    if (!put_text(l, "\""))
        return false;
    while (pos < s.len) {
        size_t start = pos;
        uint32_t cp;
        bool is_valid = str_utf8_next(s, &pos, &cp);
        memfs_str one = str_make(s.ptr + start, pos - start);
        bool fits = is_valid && !is_hostile(cp) ? put(l, one.ptr, one.len) : put_hex(l, one);

        if (!fits)
            return false;
    }
    return put_text(l, "\"");
}

static bool put_pair(line *l, const char *key, const char *value)
{
    memfs_str s = str_of(value);

    if (!put_text(l, " ") || !put_text(l, key) || !put_text(l, "="))
        return false;
    return is_bare(s) ? put(l, s.ptr, s.len) : put_quoted(l, s);
}

static void begin(line *l, log_level level, const char *event)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };
    char now[CLOCK_ISO_LEN];

    l->len = 0;
    clock_iso(clock_wall_us(), now);
    put_text(l, now);
    put_pair(l, "level", names[level]);
    put_pair(l, "event", event);
}

static bool write_line(line *l)
{
    struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };
    ssize_t n;

    l->bytes[l->len++] = '\n';
    if (poll(&ready, 1, PATIENCE_MS) != 1 || !(ready.revents & POLLOUT))
        return false;
    do {
        n = write(STDERR_FILENO, l->bytes, l->len);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)l->len;
}

static void emit(line *l)
{
    pthread_mutex_lock(&write_mutex);
    if (n_dropped > 0) {
        char count[24];
        line lost;

        snprintf(count, sizeof(count), "%lu", n_dropped);
        begin(&lost, LOG_WARN, "log_lines_dropped");
        put_pair(&lost, "count", count);
        if (write_line(&lost))
            n_dropped = 0;
    }
    if (n_dropped > 0 || !write_line(l))
        n_dropped++;
    pthread_mutex_unlock(&write_mutex);
}

void log_event(log_level level, const char *event, ...)
{
    const char *key;
    va_list ap;
    line l;

    if ((int)level < atomic_load(&least_level))
        return;
    begin(&l, level, event);
    va_start(ap, event);
    while ((key = va_arg(ap, const char *)) != NULL) {
        const char *value = va_arg(ap, const char *);
        size_t before = l.len;

        if (value != NULL && !put_pair(&l, key, value)) {
            l.len = before; /* a pair that does not fit is left out whole, and the line says so */
            put_text(&l, " cut=1");
            break;
        }
    }
    va_end(ap);
    emit(&l);
}
