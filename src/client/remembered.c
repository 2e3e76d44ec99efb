#include "client/remembered.h"

#include "base/fs.h"
#include "base/hash.h"

#include <stdio.h>
#include <string.h>

#define MAX_BACKOFF_S 900
#define MAX_UNSEEN_S 900
#define MAX_BELIEF_S 86400
#define MAX_RETRY_AFTER_S 3600

/* Four bytes of a digest over address and secret: enough to notice a change, too few to go back. */
static void mark_of(const remote_target *t, char out[17])
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64 * 1024);
    uint8_t digest[16];

    buf_printf(&text, "%s\n%s\n%s\n", t->url.text, t->cred.username ? t->cred.username : "",
               t->cred.secret ? t->cred.secret : "");
    hash_md5(buf_str(&text), digest);
    hash_hex(digest, 4, out);
    explicit_bzero(text.ptr, text.len);
}

static remote_answer answer_by_name(memfs_str name)
{
    for (int a = REMOTE_UNASKED; a < REMOTE_N_ANSWERS; a++)
        if (str_equal(name, str_of(remote_class_of((remote_answer)a)->name)))
            return (remote_answer)a;
    return REMOTE_UNASKED;
}

static int64_t number(memfs_str text)
{
    uint64_t n = 0;

    return str_to_u64(text, INT64_MAX, &n) ? (int64_t)n : 0;
}

static void copy(char *to, size_t size, memfs_str text)
{
    snprintf(to, size, "%.*s", (int)text.len, text.ptr);
}

static void read_line(remembered *r, memfs_str key, memfs_str value)
{
    if (str_equal(key, MEMFS_STR("answer")))
        r->answer = answer_by_name(value);
    else if (str_equal(key, MEMFS_STR("asked")))
        r->asked_at_s = number(value);
    else if (str_equal(key, MEMFS_STR("until")))
        r->until_s = number(value);
    else if (str_equal(key, MEMFS_STR("failures")))
        r->n_failures = (unsigned)number(value);
    else if (str_equal(key, MEMFS_STR("main")))
        r->has_main = oid_parse(value, &r->main);
    else if (str_equal(key, MEMFS_STR("detail")))
        copy(r->detail, sizeof(r->detail), value);
    else if (str_equal(key, MEMFS_STR("url")))
        copy(r->url, sizeof(r->url), value);
    else if (str_equal(key, MEMFS_STR("mark")))
        copy(r->mark, sizeof(r->mark), value);
}

bool remembered_read(const char *path, const remote_target *t, remembered *ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16384);
    memfs_str rest, line, key, value;
    memfs_error ignored;
    char mark[17];

    *ret = (remembered){ .answer = REMOTE_UNASKED };
    if (fs_read(path, &text, &ignored) < 0)
        return false;
    for (rest = buf_str(&text); str_split(rest, '\n', &line, &rest);)
        if (str_split(line, ' ', &key, &value))
            read_line(ret, key, value);
    if (t != NULL) {
        mark_of(t, mark);
        if (strcmp(ret->url, t->url.text) != 0 || strcmp(ret->mark, mark) != 0)
            *ret = (remembered){ .answer = REMOTE_UNASKED };
    }
    return ret->answer != REMOTE_UNASKED;
}

bool remembered_holds(const remembered *r, int64_t now_s)
{
    return r->answer != REMOTE_UNASKED && r->asked_at_s <= now_s && now_s < r->until_s &&
           r->until_s - r->asked_at_s <= MAX_BELIEF_S;
}

/* Doubled each time, up to the cap; then a random part of the upper half of it. */
static int64_t backoff_s(int64_t first_s, unsigned n_failures)
{
    int64_t s = first_s > 0 ? first_s : 1;
    uint8_t chance;

    for (unsigned i = 0; i < n_failures && s < MAX_BACKOFF_S; i++)
        s *= 2;
    if (s > MAX_BACKOFF_S)
        s = MAX_BACKOFF_S;
    hash_random(&chance, 1);
    return s - s * chance / 512;
}

void remembered_next(const remembered *before, const remote_target *t, const probe_result *heard,
                     int64_t now_s, remembered *ret)
{
    const remote_class *class = remote_class_of(heard->answer);
    unsigned n_before = before != NULL && before->answer == heard->answer ? before->n_failures : 0;
    int64_t wait_s = class->remember_s;

    *ret = (remembered){ .answer = heard->answer, .asked_at_s = now_s };
    /* of ssh's keys and git's helpers we see no change: the mark stays when they would be let in */
    if (class->is_credentials && t->cred.secret == NULL && wait_s > MAX_UNSEEN_S)
        wait_s = MAX_UNSEEN_S;
    if (class->retry == RETRY_BACKOFF) {
        wait_s = backoff_s(wait_s, n_before);
        ret->n_failures = n_before < 20 ? n_before + 1 : n_before;
    }
    if (heard->retry_after_s > wait_s)
        wait_s = heard->retry_after_s < MAX_RETRY_AFTER_S ? heard->retry_after_s
                                                          : MAX_RETRY_AFTER_S;
    ret->until_s = now_s + wait_s;
    ret->has_main = heard->has_main;
    ret->main = heard->main;
    snprintf(ret->detail, sizeof(ret->detail), "%s", heard->detail);
    snprintf(ret->url, sizeof(ret->url), "%s", t->url.text);
    mark_of(t, ret->mark);
}

memfs_code remembered_write(const char *path, const remembered *r, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16384);
    char hex[MEMFS_OID_HEX + 1];

    buf_printf(&text, "url %s\nmark %s\nanswer %s\nasked %lld\nuntil %lld\nfailures %u\n", r->url,
               r->mark, remote_class_of(r->answer)->name, (long long)r->asked_at_s,
               (long long)r->until_s, r->n_failures);
    if (r->has_main) {
        oid_hex(&r->main, hex);
        buf_printf(&text, "main %s\n", hex);
    }
    if (r->detail[0] != '\0')
        buf_printf(&text, "detail %s\n", r->detail);
    return fs_write_atomic(path, buf_str(&text), 0600, err);
}
