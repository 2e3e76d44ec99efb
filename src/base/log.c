/*
 * log.c - events as lines.
 *
 * A line is put together on the stack, at most LINE_BYTES of it, and leaves in one write.  A server
 * writes one for each request, from all its threads, so the usual case is that one system call and
 * no lock: a file (or /dev/null) takes it at once, and of a pipe or socket the kernel is asked to
 * say so when it would have to wait (RWF_NOWAIT).  A line is never longer than PIPE_BUF, so it does
 * not mix with another writer's.
 *
 * When there is no room, or the kernel cannot be asked, poll() waits for PATIENCE_MS, behind a
 * lock; then the line is dropped, and the next one that gets through is preceded by one that says
 * how many were lost.
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
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define LINE_BYTES 4096
#define PATIENCE_MS 20
static_assert(LINE_BYTES <= PIPE_BUF, "a line must fit into one atomic write to a pipe");

typedef struct line {
    char bytes[LINE_BYTES];
    size_t len;
} line;

/* What stderr is, and so how a line is written to it. */
typedef enum log_way {
    WAY_UNKNOWN,
    WAY_WRITE, /* always ready */
    WAY_ASK,   /* write if it need not wait */
    WAY_POLL,  /* no such question; poll first */
} log_way;

static atomic_int least_level = LOG_INFO;
static atomic_int way = WAY_UNKNOWN;
static pthread_mutex_t write_mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_ulong n_dropped; /* changed under write_mutex */

void log_set_level(log_level least)
{
    atomic_store(&least_level, least);
    atomic_store(&way, WAY_UNKNOWN);
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
    static const bool allowed[256] = {
        ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['.'] = true,
        ['_'] = true,         [':'] = true,         ['/'] = true,         ['@'] = true,
        ['+'] = true,         ['-'] = true,
    };

    for (size_t i = 0; i < s.len; i++)
        if (!allowed[(unsigned char)s.ptr[i]])
            return false;
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

static void end(line *l)
{
    l->bytes[l->len++] = '\n';
}

static log_way way_of_stderr(void)
{
    struct stat st;

    if (fstat(STDERR_FILENO, &st) < 0)
        return WAY_POLL;
    if (S_ISREG(st.st_mode) || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
        return WAY_WRITE; /* 1, 3: /dev/null */
    return WAY_ASK;
}

static ssize_t write_once(const line *l, int flags)
{
    struct iovec all = { (void *)(uintptr_t)l->bytes, l->len };
    ssize_t n;

    do {
        n = flags != 0 ? pwritev2(STDERR_FILENO, &all, 1, -1, flags)
                       : write(STDERR_FILENO, l->bytes, l->len);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* False: it was not written, and whether that is for good is still to be found out. */
static bool write_at_once(const line *l)
{
    int now = atomic_load(&way);
    ssize_t n;

    if (now == WAY_UNKNOWN) {
        now = (int)way_of_stderr();
        atomic_store(&way, now);
    }
    if (now == WAY_POLL || atomic_load(&n_dropped) > 0)
        return false;
    n = write_once(l, now == WAY_ASK ? RWF_NOWAIT : 0);
    if (n < 0 && now == WAY_ASK && errno != EAGAIN)
        atomic_store(&way, WAY_POLL);
    return n >= 0;
}

static bool write_patiently(const line *l)
{
    struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };

    if (poll(&ready, 1, PATIENCE_MS) != 1 || !(ready.revents & POLLOUT))
        return false;
    return write_once(l, 0) == (ssize_t)l->len;
}

static void write_in_turn(const line *l)
{
    unsigned long n_lost;

    pthread_mutex_lock(&write_mutex);
    n_lost = atomic_load(&n_dropped);
    if (n_lost > 0) {
        char count[24];
        line lost;

        snprintf(count, sizeof(count), "%lu", n_lost);
        begin(&lost, LOG_WARN, "log_lines_dropped");
        put_pair(&lost, "count", count);
        end(&lost);
        if (write_patiently(&lost))
            n_lost = 0;
    }
    if (n_lost > 0 || !write_patiently(l))
        n_lost++;
    atomic_store(&n_dropped, n_lost);
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
    end(&l);
    if (!write_at_once(&l))
        write_in_turn(&l);
}
