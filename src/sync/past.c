#include "sync/past.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "cache/search.h"
#include "store/oidmap.h"
#include "store/versions.h"
#include "sync/home_list.h"
#include "sync/loose.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_ROUNDS 5
#define LOCK_WAIT_MS 30000
#define AGENTS_AT_ONCE 64

/* ---- lines ---- */

/* The next line with its end. False: there is none. */
static bool next_line(memfs_str text, size_t *at, memfs_str *ret)
{
    const char *end;

    if (*at >= text.len)
        return false;
    end = memchr(text.ptr + *at, '\n', text.len - *at);
    *ret =
        str_make(text.ptr + *at, end != NULL ? (size_t)(end + 1 - text.ptr) - *at : text.len - *at);
    *at += ret->len;
    return true;
}

/*
 * A line as an id, of this comparison only: no text can be made to collide with a seed that it does
 * not know, and a digest would cost more than all else here.  A last line without an end is the
 * same line as one that got it.
 */
static void line_id(const uint64_t seeds[2], memfs_str line, memfs_oid *ret)
{
    uint64_t h[2] = { seeds[0], seeds[1] };

    if (line.len > 0 && line.ptr[line.len - 1] == '\n')
        line.len--;
    for (size_t i = 0; i < line.len; i++) {
        h[0] = (h[0] ^ (unsigned char)line.ptr[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h[1] = (h[1] ^ (unsigned char)line.ptr[i]) * UINT64_C(0xff51afd7ed558ccd);
        h[0] ^= h[0] >> 29;
        h[1] ^= h[1] >> 31;
    }
    *ret = (memfs_oid){ { 0 } };
    memcpy(ret->id, h, sizeof(h));
}

static void add_span(find_span **list, size_t *n, size_t start, size_t end)
{
    if (*n > 0 && (*list)[*n - 1].end == start) {
        (*list)[*n - 1].end = end;
        return;
    }
    if ((*n & (*n - 1)) == 0)
        *list = mem_realloc(*list, *n == 0 ? 1 : *n * 2, sizeof(**list));
    (*list)[(*n)++] = (find_span){ start, end };
}

void past_gone(memfs_str old, memfs_str now, find_span **ret, size_t *ret_n)
{
    _cleanup_(oidmap_dispose) oidmap has = OIDMAP_INIT;
    uint64_t seeds[2];
    size_t at = 0;
    memfs_str line;
    memfs_oid id;

    *ret = NULL;
    *ret_n = 0;
    hash_random((uint8_t *)seeds, sizeof(seeds));
    while (next_line(now, &at, &line)) {
        line_id(seeds, line, &id);
        oidmap_put(&has, &id, 0);
    }
    for (at = 0; next_line(old, &at, &line);) {
        line_id(seeds, line, &id);
        if (!oidmap_has(&has, &id))
            add_span(ret, ret_n, at - line.len, at);
    }
}

/* ---- the versions of a stretch of history ---- */

typedef struct listing {
    home *h;
    const char *agent_id;
    repo *r;
    bool is_new;       /* from the beginning: the cache's versions do not count */
    version_row *rows; /* path.ptr and words.ptr are offsets into text until list_finish() */
    size_t n, cap;
    memfs_buf text;
    oidmap last; /* of a path, by its hash: which row is its newest */
    memfs_buf old_bytes, new_bytes;
    word_set words;
    const versions_commit *commit;
} listing;

static void listing_dispose(listing *l)
{
    free(l->rows);
    buf_dispose(&l->text);
    oidmap_dispose(&l->last);
    buf_dispose(&l->old_bytes);
    buf_dispose(&l->new_bytes);
    word_set_dispose(&l->words);
    repo_close(l->r);
}

static memfs_code take_blob(const version_row *v, void *ctx, memfs_error *err)
{
    (void)err;
    *(memfs_oid *)ctx = v->blob;
    return MEMFS_OK;
}

/* What the path was before; zero: nothing. */
static memfs_code blob_before(listing *l, memfs_str path, const memfs_oid *key, memfs_oid *ret,
                              memfs_error *err)
{
    size_t row;

    *ret = (memfs_oid){ { 0 } };
    if (oidmap_get(&l->last, key, &row)) {
        *ret = l->rows[row].blob;
        return MEMFS_OK;
    }
    if (l->is_new)
        return MEMFS_OK;
    return cache_versions(l->h->cache, str_of(l->agent_id), path, 0, 1, take_blob, ret, err);
}

/* A file that is too large to be a block has no text here. */
static memfs_code read_text(listing *l, const memfs_oid *blob, memfs_buf *out, memfs_error *err)
{
    memfs_code rc;

    buf_clear(out);
    if (oid_is_zero(blob))
        return MEMFS_OK;
    rc = repo_blob(l->r, blob, l->h->options.policy.max_block_bytes, out, err);
    return rc == MEMFS_ELIMIT ? MEMFS_OK : rc;
}

static memfs_code words_gone(listing *l, const memfs_oid *before, const memfs_oid *now,
                             memfs_error *err)
{
    find_span *gone;
    size_t n;
    memfs_code rc;

    word_set_clear(&l->words);
    if (oid_is_zero(before) || oid_equal(before, now))
        return MEMFS_OK;
    rc = read_text(l, before, &l->old_bytes, err);
    if (rc == MEMFS_OK)
        rc = read_text(l, now, &l->new_bytes, err);
    if (rc < 0)
        return rc;
    past_gone(buf_str(&l->old_bytes), buf_str(&l->new_bytes), &gone, &n);
    for (size_t i = 0; i < n; i++)
        word_set_add(&l->words,
                     str_make(l->old_bytes.ptr + gone[i].start, gone[i].end - gone[i].start));
    free(gone);
    return MEMFS_OK;
}

static memfs_str keep_text(listing *l, memfs_str s)
{
    memfs_str at = str_make((const char *)(uintptr_t)l->text.len, s.len);

    buf_add_str(&l->text, s);
    return at;
}

static memfs_code list_path(listing *l, const versions_path *p, memfs_error *err)
{
    memfs_oid before, key;
    memfs_code rc;

    hash_git_blob(str_of(p->path), &key);
    rc = blob_before(l, str_of(p->path), &key, &before, err);
    if (rc == MEMFS_OK)
        rc = words_gone(l, &before, &p->blob, err);
    if (rc < 0)
        return rc;
    if (l->n == l->cap) {
        l->cap = l->cap == 0 ? 64 : l->cap * 2;
        l->rows = mem_realloc(l->rows, l->cap, sizeof(*l->rows));
    }
    oidmap_put(&l->last, &key, l->n);
    l->rows[l->n++] = (version_row){ .path = keep_text(l, str_of(p->path)),
                                     .commit = l->commit->id,
                                     .blob = p->blob,
                                     .words = keep_text(l, buf_str(&l->words.joined)) };
    return buf_check(&l->text, "what this memory's files once were", err);
}

static memfs_code list_commit(const versions_commit *c, void *ctx, memfs_error *err)
{
    listing *l = ctx;
    memfs_code rc = MEMFS_OK;

    l->commit = c;
    for (size_t i = 0; rc == MEMFS_OK && i < c->n_paths; i++)
        rc = list_path(l, &c->paths[i], err);
    return rc;
}

static void list_finish(listing *l)
{
    for (size_t i = 0; i < l->n; i++) {
        l->rows[i].path.ptr = l->text.ptr + (uintptr_t)l->rows[i].path.ptr;
        l->rows[i].words.ptr = l->text.ptr + (uintptr_t)l->rows[i].words.ptr;
    }
}

/* ---- an agent ---- */

/* Where the versions go on from; false: from the beginning, as there are none, or of a history that
 * a purge has replaced. */
static memfs_code find_start(listing *l, const memfs_oid *to, memfs_oid *ret, bool *ret_has,
                             memfs_error *err)
{
    memfs_error ignored;
    memfs_code rc = cache_past_tip(l->h->cache, str_of(l->agent_id), ret, err);

    *ret_has = false;
    if (rc == MEMFS_ENOTFOUND)
        return MEMFS_OK;
    if (rc == MEMFS_OK && repo_is_ancestor(l->r, ret, to, ret_has, &ignored) < 0)
        *ret_has = false;
    return rc;
}

/*
 * Under the agent's lock no purge comes between the look and the writing; where servers share the
 * database, the tip that the writing names tells of one.
 */
static memfs_code write_versions(listing *l, agent *a, past_update *u, memfs_error *err)
{
    bool leads = false;
    cache_tip now;
    memfs_code rc;

    if (!agent_lock_for(a, LOCK_WAIT_MS))
        return memfs_fail(err, MEMFS_EUNAVAIL, "the memory of this agent is busy: try again");
    rc = cache_tip_get(l->h->cache, u->agent_id, &now, err);
    if (rc == MEMFS_OK)
        rc = repo_is_ancestor(l->r, &u->to, &now.commit, &leads, err);
    u->tip = now.commit;
    if (rc == MEMFS_OK && !leads)
        rc = memfs_fail(err, MEMFS_ECONFLICT, "the history of this agent was replaced");
    if (rc == MEMFS_OK)
        rc = cache_past_add(l->h->cache, u, err);
    agent_unlock(a);
    return rc;
}

static memfs_code follow_to(home *h, agent *a, const memfs_oid *to, memfs_error *err)
{
    _cleanup_(listing_dispose) listing l = { .h = h,
                                             .agent_id = a->id,
                                             .text = MEMFS_BUF_INIT(PAST_MAX_BYTES),
                                             .last = OIDMAP_INIT,
                                             .old_bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                             .new_bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                             .words = WORD_SET_INIT };
    past_update u = { .agent_id = str_of(a->id), .to = *to };
    bool has_start = false;
    memfs_oid start;
    memfs_code rc;

    rc = repo_open(h->store, a->repo, &l.r, err);
    if (rc == MEMFS_OK)
        rc = find_start(&l, to, &start, &has_start, err);
    if (rc < 0)
        return rc;
    l.is_new = !has_start;
    rc =
        versions_walk(l.r, has_start ? &start : NULL, to, 0, &h->options.policy, list_commit, &l, err);
    if (rc < 0)
        return rc;
    list_finish(&l);
    u.from = has_start ? &start : NULL;
    u.versions = l.rows;
    u.n_versions = l.n;
    return write_versions(&l, a, &u, err);
}

/* *ret_is_there: the versions go up to *ret, the synced tip. */
static memfs_code look(home *h, memfs_str agent_id, memfs_oid *ret, bool *ret_is_there,
                       memfs_error *err)
{
    memfs_oid past;
    cache_tip tip;
    memfs_code rc = cache_tip_get(h->cache, agent_id, &tip, err);

    *ret_is_there = false;
    if (rc < 0)
        return rc;
    *ret = tip.commit;
    rc = cache_past_tip(h->cache, agent_id, &past, err);
    *ret_is_there = rc == MEMFS_OK && oid_equal(&past, ret);
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

/* Beside the rows, which may be there without it, the repository; with what other servers took. */
static memfs_code find_agent(home *h, memfs_str agent_id, agent **ret, memfs_error *err)
{
    memfs_code rc = home_agent(h, agent_id, ret, err);

    return rc == MEMFS_OK && home_is_shared(h) ? home_agent_repo(h, agent_id, ret, err) : rc;
}

memfs_code past_follow(home *h, memfs_str agent_id, memfs_error *err)
{
    bool is_there = false;
    memfs_oid tip;
    memfs_code rc = MEMFS_OK;
    agent *a;

    for (int i = 0; rc == MEMFS_OK && i < MAX_ROUNDS; i++) {
        rc = find_agent(h, agent_id, &a, err);
        if (rc == MEMFS_OK)
            rc = look(h, agent_id, &tip, &is_there, err);
        if (rc < 0 || is_there)
            return rc;
        rc = follow_to(h, a, &tip, err);
        if (rc == MEMFS_ECONFLICT)
            rc = MEMFS_OK;
        if (rc == MEMFS_ECORRUPT && home_is_shared(h)) /* a commit that another server took now */
            rc = MEMFS_OK;
    }
    return rc < 0 ? rc
                  : memfs_fail(err, MEMFS_EUNAVAIL,
                               "the memory of agent '%.*s' changes faster than its past can be "
                               "listed: try again",
                               (int)agent_id.len, agent_id.ptr);
}

/* ---- all agents ---- */

/* A look at all of them, by id: each is tried once, so one that cannot be done keeps no other. */
typedef struct looking {
    id_list ids; /* of one page, which those that have no past are not in */
    char last[IDS_MAX_LEN + 1];
    size_t n_seen;
} looking;

/* Blocks that no file backs have no past. */
static memfs_code keep_id(memfs_str id, void *ctx, memfs_error *err)
{
    looking *l = ctx;

    (void)err;
    l->n_seen++;
    snprintf(l->last, sizeof(l->last), "%.*s", (int)id.len, id.ptr);
    if (!str_equal(id, LOOSE_AGENT))
        id_list_add(&l->ids, id);
    return MEMFS_OK;
}

/* The next page behind `after`, which follows what was tried.  *ret_n_left: past the deadline. */
static memfs_code follow_page(home *h, char after[IDS_MAX_LEN + 1], int64_t deadline_ms, looking *l,
                              size_t *ret_n_left, size_t *ret_n_failed, memfs_error *err)
{
    memfs_code rc = cache_past_behind(h->cache, str_of(after), AGENTS_AT_ONCE, keep_id, l, err);
    memfs_error trouble;
    size_t i = 0;

    for (; rc == MEMFS_OK && i < l->ids.n && clock_mono_ms() < deadline_ms; i++) {
        *ret_n_failed += past_follow(h, str_of(l->ids.ids[i]), &trouble) < 0;
        snprintf(after, IDS_MAX_LEN + 1, "%s", l->ids.ids[i]);
    }
    *ret_n_left = l->ids.n - i;
    if (rc == MEMFS_OK && *ret_n_left == 0 && l->n_seen > 0)
        snprintf(after, IDS_MAX_LEN + 1, "%s", l->last);
    return rc;
}

/* *ret_is_end: there are no more.  *ret_n_failed: which could not be brought up. */
static memfs_code follow_from(home *h, char after[IDS_MAX_LEN + 1], int64_t deadline_ms,
                              bool *ret_is_end, size_t *ret_n_failed, memfs_error *err)
{
    size_t n_left = 0, n_seen = AGENTS_AT_ONCE;
    memfs_code rc = MEMFS_OK;

    *ret_n_failed = 0;
    while (rc == MEMFS_OK && n_left == 0 && n_seen == AGENTS_AT_ONCE) {
        looking l = { .n_seen = 0 };

        rc = follow_page(h, after, deadline_ms, &l, &n_left, ret_n_failed, err);
        n_seen = l.n_seen;
        id_list_dispose(&l.ids);
    }
    *ret_is_end = n_left == 0;
    return rc;
}

memfs_code past_follow_all(home *h, int64_t deadline_ms, bool *ret_is_whole, memfs_error *err)
{
    char after[IDS_MAX_LEN + 1] = "";
    size_t n_failed;
    bool is_end;
    memfs_code rc = follow_from(h, after, deadline_ms, &is_end, &n_failed, err);

    *ret_is_whole = rc == MEMFS_OK && is_end && n_failed == 0;
    if (rc == MEMFS_OK && !is_end)
        atomic_store(&h->wants_past, true);
    return rc;
}

bool home_past_step(home *h)
{
    size_t n_failed;
    memfs_error err;
    bool is_end;

    if (!atomic_load(&h->wants_past))
        return false;
    if (follow_from(h, h->past_after, clock_mono_ms() + 1000, &is_end, &n_failed, &err) ==
            MEMFS_OK &&
        !is_end)
        return true;
    h->past_after[0] = '\0';
    atomic_store(&h->wants_past, false); /* until somebody asks again */
    return false;
}
