#include "sync/search.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cache/search.h"
#include "sync/home_int.h"
#include "sync/loose.h"
#include "sync/past.h"

#include <stdlib.h>

/* Of an equal number of matches, the one in the label tells more of what a block is about. */
#define WEIGHT_LABEL 3
#define WEIGHT_DESCRIPTION 2
#define WEIGHT_VALUE 1

/* ---- what was found ---- */

typedef struct found {
    search_hit hit; /* slices point into text */
    char *text;
    int64_t no; /* of the past: which version */
} found;

typedef struct searching {
    home *h;
    const search_request *q;
    find_query find;
    finder *finder;
    found *list;
    size_t n, cap;
    size_t n_looked;
    uint64_t n_bytes;
    bool is_partial;
} searching;

static void searching_dispose(searching *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->list[i].text);
    free(s->list);
    finder_free(s->finder);
}

/* A copy, as what a hit is of ends with the call that found it. */
static void keep(searching *s, const search_hit *hit, int64_t no)
{
    memfs_str *const from[] = { (memfs_str *)&hit->agent_id, (memfs_str *)&hit->path,
                                (memfs_str *)&hit->label, (memfs_str *)&hit->block_id,
                                (memfs_str *)&hit->snippet };
    found *f;
    char *at;

    if (s->n == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->list = mem_realloc(s->list, s->cap, sizeof(*s->list));
    }
    f = &s->list[s->n++];
    *f = (found){ .hit = *hit, .no = no };
    memfs_str *const to[] = { &f->hit.agent_id, &f->hit.path, &f->hit.label, &f->hit.block_id,
                              &f->hit.snippet };
    size_t n = 1;

    for (size_t i = 0; i < ARRAY_LEN(from); i++)
        n += from[i]->len;
    at = f->text = mem_alloc(n);
    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        if (from[i]->len > 0)
            memcpy(at, from[i]->ptr, from[i]->len);
        *to[i] = str_make(at, from[i]->len);
        at += from[i]->len;
    }
}

static int by_text(memfs_str a, memfs_str b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_rank(const void *a, const void *b)
{
    const found *x = a, *y = b;
    int order =
        (x->hit.where.score < y->hit.where.score) - (x->hit.where.score > y->hit.where.score);

    if (order == 0)
        order = by_text(x->hit.agent_id, y->hit.agent_id);
    if (order == 0)
        order = by_text(x->hit.path, y->hit.path);
    return order != 0 ? order : (x->no < y->no) - (x->no > y->no);
}

/* One more text: is there still room to look at it? */
static bool may_look(searching *s, uint64_t n_bytes)
{
    if (s->n_looked >= SEARCH_MAX_LOOKED || s->n_bytes > SEARCH_MAX_BYTES)
        s->is_partial = true;
    s->n_looked++;
    s->n_bytes += n_bytes;
    return !s->is_partial;
}

/* ---- what is there ---- */

static memfs_code look_at_block(const block_row *row, void *ctx, memfs_error *err)
{
    const find_text texts[] = {
        [SEARCH_LABEL] = { .text = row->label, .weight = WEIGHT_LABEL },
        [SEARCH_DESCRIPTION] = { .text = row->has_description ? row->description : MEMFS_STR(""),
                                 .weight = WEIGHT_DESCRIPTION },
        [SEARCH_VALUE] = { .text = row->value, .weight = WEIGHT_VALUE },
    };
    bool is_loose = str_equal(row->agent_id, LOOSE_AGENT);
    search_hit hit = { .agent_id = is_loose ? MEMFS_STR("") : row->agent_id,
                       .path = row->path,
                       .label = row->label,
                       .block_id = row->id,
                       .blob = row->blob,
                       .created_at_us = row->created_at_us };
    searching *s = ctx;

    (void)err;
    if (!may_look(s, row->value.len) ||
        !finder_look(s->finder, texts, ARRAY_LEN(texts), &hit.where))
        return MEMFS_OK;
    hit.field = (search_field)hit.where.text;
    hit.snippet = str_make(texts[hit.field].text.ptr + hit.where.shown.start,
                           hit.where.shown.end - hit.where.shown.start);
    keep(s, &hit, 0);
    return MEMFS_OK;
}

static search_query query_of(const searching *s)
{
    return (search_query){ .agent_id = s->q->agent_id,
                           .path = s->q->path,
                           .show_hidden = s->q->show_hidden,
                           .find = &s->find,
                           .limit = SEARCH_MAX_LOOKED + 1 };
}

static memfs_code search_present(searching *s, memfs_error *err)
{
    const search_query q = query_of(s);
    memfs_code rc = MEMFS_OK;
    agent *a;

    if (q.agent_id.len > 0)
        rc = home_agent(s->h, q.agent_id, &a, err); /* its rows are there, and of its tip */
    if (rc == MEMFS_OK)
        rc = cache_search(s->h->cache, &q, look_at_block, s, err);
    return rc;
}

/* ---- what was ---- */

typedef struct candidate {
    char *agent_id, *path;
    version_row v; /* agent_id and path are the above */
} candidate;

typedef struct candidates {
    candidate *list;
    size_t n, cap;
} candidates;

static void candidates_dispose(candidates *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->list[i].agent_id);
        free(c->list[i].path);
    }
    free(c->list);
}

static memfs_code take_candidate(const version_row *row, void *ctx, memfs_error *err)
{
    candidates *c = ctx;
    candidate *to;

    (void)err;
    if (ids_is_shared(row->agent_id)) /* a file list that somebody asked for; no agent's memory */
        return MEMFS_OK;
    if (c->n == c->cap) {
        c->cap = c->cap == 0 ? 16 : c->cap * 2;
        c->list = mem_realloc(c->list, c->cap, sizeof(*c->list));
    }
    to = &c->list[c->n++];
    *to = (candidate){ .agent_id = mem_strndup(row->agent_id.ptr, row->agent_id.len),
                       .path = mem_strndup(row->path.ptr, row->path.len),
                       .v = *row };
    to->v.agent_id = str_make(to->agent_id, row->agent_id.len);
    to->v.path = str_make(to->path, row->path.len);
    return MEMFS_OK;
}

/* One agent's after the other, so that its repository is opened once; of a path the newest first.
 */
static int by_place(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    int order = by_text(x->v.agent_id, y->v.agent_id);

    if (order == 0)
        order = by_text(x->v.path, y->v.path);
    return order != 0 ? order : (x->v.no < y->v.no) - (x->v.no > y->v.no);
}

typedef struct looking {
    searching *s;
    repo *r; /* of the agent at hand */
    memfs_str agent_id;
    memfs_buf before, after;
} looking;

static void looking_dispose(looking *l)
{
    repo_close(l->r);
    buf_dispose(&l->before);
    buf_dispose(&l->after);
}

static memfs_code open_agent(looking *l, memfs_str agent_id, memfs_error *err)
{
    memfs_code rc;
    agent *a;

    if (l->r != NULL && str_equal(l->agent_id, agent_id))
        return MEMFS_OK;
    repo_close(l->r);
    l->r = NULL;
    l->agent_id = agent_id;
    rc = home_agent_repo(l->s->h, agent_id, &a, err);
    return rc < 0 ? rc : repo_open(l->s->h->store, agent_repo(a), &l->r, err);
}

static memfs_code read_text(looking *l, const memfs_oid *blob, memfs_buf *out, memfs_error *err)
{
    memfs_code rc;

    buf_clear(out);
    if (oid_is_zero(blob))
        return MEMFS_OK;
    rc = repo_blob(l->r, blob, l->s->h->options.policy.max_block_bytes, out, err);
    return rc == MEMFS_ELIMIT ? MEMFS_OK : rc;
}

static memfs_code take_version(const version_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    *(version_row *)ctx = *row;
    return MEMFS_OK;
}

/* The version of the candidate's path before `no` (0: the newest); no 0: there is none. */
static memfs_code version_before(looking *l, const candidate *c, int64_t no, version_row *ret,
                                 memfs_error *err)
{
    *ret = (version_row){ .no = 0 };
    return cache_versions(l->s->h->cache, c->v.agent_id, c->v.path, no, 1, take_version, ret, err);
}

/* Does the file, as main has it, have what is searched for? */
static memfs_code is_in_main(looking *l, const candidate *c, bool *ret, memfs_error *err)
{
    find_text now = { .weight = 1 };
    version_row newest;
    find_hit ignored;
    memfs_code rc = version_before(l, c, 0, &newest, err);

    if (rc == MEMFS_OK)
        rc = read_text(l, &newest.blob, &l->after, err);
    now.text = buf_str(&l->after);
    *ret = rc == MEMFS_OK && finder_look(l->s->finder, &now, 1, &ignored);
    return rc;
}

/* The lines that went with it: are phrases and all there? */
static memfs_code look_at_lines(looking *l, const candidate *c, const version_row *had,
                                memfs_error *err)
{
    find_text lines = { .weight = WEIGHT_VALUE };
    search_hit hit = { .agent_id = c->v.agent_id,
                       .path = c->v.path,
                       .field = SEARCH_FILE,
                       .blob = had->blob,
                       .commit = had->commit,
                       .gone_by = c->v.commit };
    find_span *spans = NULL;
    bool is_there = false;
    memfs_code rc;

    rc = read_text(l, &had->blob, &l->before, err);
    if (rc == MEMFS_OK)
        rc = read_text(l, &c->v.blob, &l->after, err);
    if (rc < 0)
        return rc;
    past_gone(buf_str(&l->before), buf_str(&l->after), &spans, &lines.n_spans);
    lines.text = buf_str(&l->before);
    lines.spans = spans;
    if (spans != NULL && finder_look(l->s->finder, &lines, 1, &hit.where)) {
        rc = is_in_main(l, c, &is_there, err);
        hit.snippet = str_make(l->before.ptr + hit.where.shown.start,
                               hit.where.shown.end - hit.where.shown.start);
        if (rc == MEMFS_OK && !is_there)
            keep(l->s, &hit, c->v.no);
    }
    free(spans);
    return rc;
}

static memfs_code look_at_change(looking *l, const candidate *c, memfs_error *err)
{
    version_row had = { .no = 0 };
    memfs_code rc;

    rc = open_agent(l, c->v.agent_id, err);
    if (rc == MEMFS_OK)
        rc = version_before(l, c, c->v.no, &had, err);
    if (rc < 0 || had.no == 0)
        return rc;
    rc = look_at_lines(l, c, &had, err);
    (void)may_look(l->s, l->before.len + l->after.len);
    return rc;
}

static memfs_code look_at_changes(searching *s, const candidates *c, memfs_error *err)
{
    _cleanup_(looking_dispose) looking l = { .s = s,
                                             .before = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                             .after = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED) };
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; i < c->n && !s->is_partial; i++) {
        rc = look_at_change(&l, &c->list[i], err);
        if (rc < 0 && s->q->agent_id.len > 0)
            return rc;
        s->is_partial = s->is_partial || rc < 0; /* one agent's trouble keeps no other's hits */
    }
    return MEMFS_OK;
}

static memfs_code search_past(searching *s, memfs_error *err)
{
    _cleanup_(candidates_dispose) candidates c = { NULL, 0, 0 };
    const search_query q = query_of(s);
    bool is_whole = true;
    memfs_code rc;

    if (q.agent_id.len > 0)
        rc = past_follow(s->h, q.agent_id, err);
    else
        rc = past_follow_all(s->h, clock_mono_ms() + SEARCH_PAST_MS, &is_whole, err);
    if (rc == MEMFS_OK)
        rc = cache_search_past(s->h->cache, &q, take_candidate, &c, err);
    if (rc < 0)
        return rc;
    if (c.n > 0)
        qsort(c.list, c.n, sizeof(*c.list), by_place);
    rc = look_at_changes(s, &c, err);
    s->is_partial = s->is_partial || !is_whole;
    return rc;
}

/* ---- the whole ---- */

static memfs_code tell(const searching *s, search_hit_fn fn, void *ctx, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < s->n && i < s->q->limit; i++)
        rc = fn(&s->list[i].hit, ctx, err);
    return rc;
}

memfs_code search_memory(home *h, const search_request *q, search_hit_fn fn, void *ctx,
                         bool *ret_is_partial, memfs_error *err)
{
    _cleanup_(searching_dispose) searching s = { .h = h, .q = q };
    memfs_code rc;

    rc = find_parse(q->text, &s.find, err);
    if (rc < 0)
        return rc;
    s.finder = finder_new(&s.find);
    rc = q->in_past ? search_past(&s, err) : search_present(&s, err);
    if (rc == MEMFS_ECORRUPT)
        home_cache_suspect(h);
    if (rc < 0)
        return rc;
    if (s.n > 0)
        qsort(s.list, s.n, sizeof(*s.list), by_rank);
    *ret_is_partial = s.is_partial;
    return tell(&s, fn, ctx, err);
}
