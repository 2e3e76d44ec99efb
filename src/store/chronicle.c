#include "store/chronicle.h"

#include "base/mem.h"
#include "store/rewrite.h"
#include "store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 *     <old id> <new id> <name> <<address>> <seconds> <zone>\t<why>\n
 *
 * Three things can be wrong with a log that is written before its move and not synced (refs.c):
 *
 *   - it holds a move that did not happen.  The next one then began where that one did, so of two
 *     entries in a row with the same old id the first never was; and the last never was if main is
 *     where it began.
 *   - it lacks the last moves, after a power cut, or all, if somebody removed it.  Then main is
 *     where no entry says, and an entry is added for it, dated as the file of the ref.
 *   - a line is torn or strange: it is passed over.
 *
 * Most questions are about the last few moves, so the file is read from its end, in growing pieces.
 */

#define FIRST_PIECE (16u << 10)
#define GROWTH 8
#define MAX_PIECE (64u << 20) /* of a log of half a million moves, the rest is not looked at */

typedef struct entry {
    memfs_oid old, new;
    int64_t time_s;
} entry;

typedef struct chronicle {
    int fd; /* -1: there is no log */
    uint64_t log_bytes, piece_bytes;
    memfs_oid main;
    int64_t main_time_s; /* of the ref's file */
    memfs_buf text;
    entry *at; /* oldest first */
    size_t n, cap;
} chronicle;

static void chronicle_dispose(chronicle *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->at);
    buf_dispose(&c->text);
}

/* ---- reading ---- */

static memfs_code chronicle_open(const store *s, const char *name, chronicle *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *log = mem_printf("%s/%s/logs/" STORE_MAIN, s->home, name);
    _cleanup_(mem_freep) char *ref = mem_printf("%s/%s/" STORE_MAIN, s->home, name);
    struct stat st;
    memfs_code rc = store_tip(s, name, &c->main, err);

    if (rc < 0)
        return rc;
    if (stat(ref, &st) == 0)
        c->main_time_s = st.st_mtime;
    c->fd = open(log, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (c->fd >= 0 && fstat(c->fd, &st) == 0 && S_ISREG(st.st_mode))
        c->log_bytes = (uint64_t)st.st_size;
    else if (c->fd < 0 && errno != ENOENT)
        return memfs_fail_errno(err, "could not open the log of main");
    return MEMFS_OK;
}

static bool is_whole(const chronicle *c)
{
    return c->piece_bytes >= c->log_bytes || c->piece_bytes >= MAX_PIECE;
}

static bool parse_line(memfs_str line, entry *ret)
{
    memfs_str head, rest, seconds;
    uint64_t time_s;
    size_t n;

    if (!str_split(line, '\t', &head, &rest))
        head = line;
    n = head.len;
    while (n > 0 && head.ptr[n - 1] != '>')
        n--;
    if (n < 2 * MEMFS_OID_HEX + 2 || n + 1 >= head.len)
        return false;
    if (!str_split(str_from(head, n + 1), ' ', &seconds, &rest))
        seconds = str_from(head, n + 1);
    if (!str_to_u64(seconds, INT64_MAX, &time_s) ||
        !oid_parse(str_make(line.ptr, MEMFS_OID_HEX), &ret->old) ||
        !oid_parse(str_make(line.ptr + MEMFS_OID_HEX + 1, MEMFS_OID_HEX), &ret->new))
        return false;
    ret->time_s = (int64_t)time_s;
    return true;
}

static void add_entry(chronicle *c, const entry *e)
{
    if (c->n > 0 && oid_equal(&c->at[c->n - 1].old, &e->old))
        c->n--; /* it never was */
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 64;
        c->at = mem_realloc(c->at, c->cap, sizeof(*c->at));
    }
    c->at[c->n++] = *e;
}

/* The last entry is where main is. */
static void add_end(chronicle *c)
{
    entry end = { .new = c->main, .time_s = c->main_time_s };

    if (c->n > 0 && oid_equal(&c->at[c->n - 1].old, &c->main))
        c->n--;
    if (c->n > 0 && oid_equal(&c->at[c->n - 1].new, &c->main))
        return;
    if (c->n > 0)
        end.old = c->at[c->n - 1].new;
    add_entry(c, &end);
}

static void parse_piece(chronicle *c)
{
    memfs_str rest = buf_str(&c->text), line;
    entry e;

    c->n = 0;
    if (c->piece_bytes < c->log_bytes) /* it begins in the middle of a line */
        (void)str_split(rest, '\n', &line, &rest);
    while (str_split(rest, '\n', &line, &rest))
        if (parse_line(line, &e))
            add_entry(c, &e);
    add_end(c);
}

/* The next larger piece; the first call reads the first. */
static memfs_code read_more(chronicle *c, memfs_error *err)
{
    uint64_t n = c->piece_bytes == 0 ? FIRST_PIECE : c->piece_bytes * GROWTH;
    ssize_t got = 0;
    char *room;

    n = n < c->log_bytes ? n : c->log_bytes;
    c->piece_bytes = n;
    buf_clear(&c->text);
    room = buf_reserve(&c->text, n);
    if (room == NULL)
        return buf_check(&c->text, "the log of main", err);
    if (n > 0)
        got = pread(c->fd, room, n, (off_t)(c->log_bytes - n));
    if (got < 0)
        return memfs_fail_errno(err, "could not read the log of main");
    buf_grew(&c->text, (size_t)got);
    parse_piece(c);
    return MEMFS_OK;
}

/* ---- since when ---- */

/* The entry that moved on from tip, the last if there are several. */
static bool find_exact(const chronicle *c, const memfs_oid *tip, int64_t *ret_time_s)
{
    for (size_t i = c->n; i > 0; i--)
        if (oid_equal(&c->at[i - 1].old, tip)) {
            *ret_time_s = c->at[i - 1].time_s;
            return true;
        }
    return false;
}

/* What is not here any more (a purge) is nothing that a copy could lack. */
static memfs_code is_contained(repo *r, const chronicle *c, size_t i, const memfs_oid *tip,
                               bool *ret, memfs_error *err)
{
    *ret = true;
    return repo_has(r, &c->at[i].new) ? repo_is_ancestor(r, &c->at[i].new, tip, ret, err)
                                      : MEMFS_OK;
}

/*
 * The oldest entry that tip does not contain, for each contains those before it.  In steps that
 * double, from the newest back, then by halves.  *ret == n: it contains them all; 0: none in this
 * piece, perhaps older ones neither.
 */
static memfs_code find_oldest(repo *r, const chronicle *c, const memfs_oid *tip, size_t *ret,
                              memfs_error *err)
{
    size_t high = c->n, low = c->n, step = 1; /* from high on: not contained */
    bool contained = false;
    memfs_code rc = MEMFS_OK;

    while (rc == MEMFS_OK && !contained && low > 0) {
        high = low;
        low = low > step ? low - step : 0;
        step *= 2;
        rc = is_contained(r, c, low, tip, &contained, err);
    }
    if (rc == MEMFS_OK && !contained)
        high = low = 0;
    else
        low++;
    while (rc == MEMFS_OK && low < high) {
        size_t middle = low + (high - low) / 2;

        rc = is_contained(r, c, middle, tip, &contained, err);
        if (contained)
            low = middle + 1;
        else
            high = middle;
    }
    *ret = high;
    return rc;
}

static memfs_code left_in_piece(repo *r, chronicle *c, const memfs_oid *tip, bool *ret_found,
                                int64_t *ret_time_s, memfs_error *err)
{
    size_t at = 0;
    memfs_code rc = MEMFS_OK;

    *ret_found = find_exact(c, tip, ret_time_s);
    if (*ret_found)
        return rc;
    rc = find_oldest(r, c, tip, &at, err);
    if (rc == MEMFS_OK && (at > 0 || is_whole(c))) {
        while (at < c->n && oid_equal(&c->at[at].new, &STORE_GENESIS))
            at++; /* nobody's loss: every memory begins with it */
        *ret_found = true;
        *ret_time_s = at < c->n ? c->at[at].time_s : 0;
    }
    return rc;
}

/* The remote has nothing: all of it, from the first entry after the genesis. */
static memfs_code left_nothing(chronicle *c, int64_t *ret_time_s, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    do
        rc = read_more(c, err);
    while (rc == MEMFS_OK && !is_whole(c));
    *ret_time_s = 0;
    for (size_t i = 0; rc == MEMFS_OK && i < c->n && *ret_time_s == 0; i++)
        if (!oid_equal(&c->at[i].new, &STORE_GENESIS))
            *ret_time_s = c->at[i].time_s;
    return rc;
}

static memfs_code left(store *s, const char *name, chronicle *c, const memfs_oid *tip,
                       int64_t *ret_time_s, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    bool found = false;
    memfs_code rc = repo_open(s, name, &r, err);

    if (rc == MEMFS_OK && !repo_has(r, tip))
        return memfs_fail(err, MEMFS_ENOTFOUND, "the remote's commit is not here yet");
    while (rc == MEMFS_OK && !found) {
        rc = read_more(c, err);
        if (rc == MEMFS_OK)
            rc = left_in_piece(r, c, tip, &found, ret_time_s, err);
    }
    return rc;
}

memfs_code chronicle_left(store *s, const char *name, const memfs_oid *tip, int64_t *ret_time_s,
                          memfs_error *err)
{
    _cleanup_(chronicle_dispose) chronicle c = { .fd = -1, .text = MEMFS_BUF_INIT(MAX_PIECE + 1) };
    memfs_code rc = chronicle_open(s, name, &c, err);

    if (rc < 0)
        return rc;
    *ret_time_s = 0;
    if (oid_equal(tip, &c.main))
        return MEMFS_OK;
    return oid_is_zero(tip) ? left_nothing(&c, ret_time_s, err)
                            : left(s, name, &c, tip, ret_time_s, err);
}

/* ---- what it was ---- */

memfs_code chronicle_at(store *s, const char *name, int64_t time_s, memfs_oid *ret,
                        memfs_error *err)
{
    _cleanup_(chronicle_dispose) chronicle c = { .fd = -1, .text = MEMFS_BUF_INIT(MAX_PIECE + 1) };
    memfs_code rc = chronicle_open(s, name, &c, err);

    if (rc < 0)
        return rc;
    do {
        rc = read_more(&c, err);
        for (size_t i = c.n; rc == MEMFS_OK && i > 0; i--)
            if (c.at[i - 1].time_s <= time_s) {
                *ret = c.at[i - 1].new;
                return MEMFS_OK;
            }
    } while (rc == MEMFS_OK && !is_whole(&c));
    return rc < 0 ? rc : memfs_fail(err, MEMFS_ENOTFOUND, "main is younger than that");
}
