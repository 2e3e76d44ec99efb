#include "sync/past_list.h"

#include "base/hash.h"
#include "base/mem.h"
#include "store/oidmap.h"
#include "store/versions.h"
#include "sync/home_int.h"

#include <stdlib.h>

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

/* ---- the rows ---- */

struct past_list {
    version_row *rows; /* path.ptr and words.ptr are offsets into text until point_at_text() */
    size_t cap;
    memfs_buf text;
    version_list list;
};

void past_list_free(past_list *l)
{
    if (l == NULL)
        return;
    free(l->rows);
    buf_dispose(&l->text);
    free(l);
}

void past_list_freep(past_list **l)
{
    past_list_free(*l);
    *l = NULL;
}

const version_list *past_list_versions(const past_list *l)
{
    return &l->list;
}

static memfs_str keep_text(past_list *l, memfs_str s)
{
    memfs_str at = str_make((const char *)(uintptr_t)l->text.len, s.len);

    buf_add_str(&l->text, s);
    return at;
}

static version_row *next_row(past_list *l)
{
    if (l->list.n == l->cap) {
        l->cap = l->cap == 0 ? 64 : l->cap * 2;
        l->list.rows = l->rows = mem_realloc(l->rows, l->cap, sizeof(*l->rows));
    }
    return &l->rows[l->list.n++];
}

static void point_at_text(past_list *l)
{
    for (size_t i = 0; i < l->list.n; i++) {
        l->rows[i].path.ptr = l->text.ptr + (uintptr_t)l->rows[i].path.ptr;
        l->rows[i].words.ptr = l->text.ptr + (uintptr_t)l->rows[i].words.ptr;
    }
}

/* ---- the versions of a stretch of history ---- */

typedef struct listing {
    home *h;
    const agent *a;
    repo *r;
    const past_stretch *stretch;
    past_list *out;
    oidmap last; /* of a path, by its hash: which row is its newest */
    memfs_buf old_bytes, new_bytes;
    uint64_t n_text_bytes;
    word_set words;
    const versions_commit *commit;
} listing;

static void listing_dispose(listing *l)
{
    past_list_free(l->out);
    oidmap_dispose(&l->last);
    buf_dispose(&l->old_bytes);
    buf_dispose(&l->new_bytes);
    word_set_dispose(&l->words);
}

static memfs_code fail_long(memfs_error *err)
{
    return memfs_fail(err, MEMFS_ELIMIT, "the stretch of history is long");
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
        *ret = l->out->rows[row].blob;
        return MEMFS_OK;
    }
    if (l->stretch->from == NULL)
        return MEMFS_OK;
    return cache_versions(l->h->cache, str_of(l->a->id), path, 0, 1, take_blob, ret, err);
}

/* A file that is too large to be a block has no text here. */
static memfs_code read_text(listing *l, const memfs_oid *blob, memfs_buf *out, memfs_error *err)
{
    memfs_code rc;

    buf_clear(out);
    if (oid_is_zero(blob))
        return MEMFS_OK;
    rc = repo_blob(l->r, blob, l->h->options.policy.max_block_bytes, out, err);
    l->n_text_bytes += out->len;
    if (l->stretch->max_text_bytes > 0 && l->n_text_bytes > l->stretch->max_text_bytes)
        return fail_long(err);
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

static memfs_code list_path(listing *l, const versions_path *p, memfs_error *err)
{
    past_list *out = l->out;
    memfs_oid before, key;
    memfs_code rc;

    hash_git_blob(str_of(p->path), &key);
    rc = blob_before(l, str_of(p->path), &key, &before, err);
    if (rc == MEMFS_OK)
        rc = words_gone(l, &before, &p->blob, err);
    if (rc < 0)
        return rc;
    oidmap_put(&l->last, &key, out->list.n);
    *next_row(out) = (version_row){ .path = keep_text(out, str_of(p->path)),
                                    .commit = l->commit->id,
                                    .blob = p->blob,
                                    .words = keep_text(out, buf_str(&l->words.joined)) };
    return buf_check(&out->text, "what this memory's files once were", err);
}

static memfs_code list_commit(const versions_commit *c, void *ctx, memfs_error *err)
{
    listing *l = ctx;
    memfs_code rc = MEMFS_OK;

    l->commit = c;
    if (l->stretch->max_versions > 0 && c->n_paths > l->stretch->max_versions - l->out->list.n)
        return fail_long(err);
    for (size_t i = 0; rc == MEMFS_OK && i < c->n_paths; i++)
        rc = list_path(l, &c->paths[i], err);
    return rc;
}

memfs_code past_list_make(home *h, const agent *a, repo *r, const past_stretch *s, past_list **ret,
                          memfs_error *err)
{
    _cleanup_(listing_dispose) listing l = { .h = h,
                                             .a = a,
                                             .r = r,
                                             .stretch = s,
                                             .out = mem_alloc(sizeof(past_list)),
                                             .last = OIDMAP_INIT,
                                             .old_bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                             .new_bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                             .words = WORD_SET_INIT };
    memfs_code rc;

    l.out->text = (memfs_buf)MEMFS_BUF_INIT(PAST_MAX_BYTES);
    rc = versions_walk(r, s->from, &s->to, s->max_looked, &h->options.policy, list_commit, &l, err);
    if (rc < 0)
        return rc;
    point_at_text(l.out);
    *ret = TAKE_PTR(l.out);
    return MEMFS_OK;
}
