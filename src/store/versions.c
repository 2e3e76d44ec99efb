#include "store/versions.h"

#include "base/mem.h"
#include "store/span.h"

#include <stdlib.h>

/*
 * What lies between two commits is span.c's business, and what one of them changed is found here:
 * its difference to the first parent, of which each further parent's difference leaves what is in
 * both.
 */

/* ---- what one commit changed ---- */

typedef struct changed {
    versions_path *at;
    size_t n, cap;
    size_t *n_seen; /* by place: of how many parents it differs, but the first */
} changed;

static void changed_clear(changed *c)
{
    for (size_t i = 0; i < c->n; i++)
        free((char *)c->at[i].path);
    c->n = 0;
}

static void changed_dispose(changed *c)
{
    changed_clear(c);
    free(c->at);
    free(c->n_seen);
}

static bool is_file(bool has, uint32_t mode)
{
    return has && (mode == TREE_MODE_FILE || mode == TREE_MODE_EXEC);
}

static bool is_of_file(const tree_change *t)
{
    return is_file(t->has_old, t->old_mode) || is_file(t->has_new, t->new_mode);
}

static memfs_code note_first(const tree_change *t, void *ctx, memfs_error *err)
{
    changed *c = ctx;

    (void)err;
    if (!is_of_file(t))
        return MEMFS_OK;
    if (c->n == c->cap) {
        c->cap = c->cap == 0 ? 16 : c->cap * 2;
        c->at = mem_realloc(c->at, c->cap, sizeof(*c->at));
    }
    c->at[c->n] = (versions_path){ .path = mem_strndup(t->path.ptr, t->path.len) };
    if (is_file(t->has_new, t->new_mode))
        c->at[c->n].blob = t->new_id;
    c->n++;
    return MEMFS_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(((const versions_path *)a)->path, ((const versions_path *)b)->path);
}

static memfs_code note_further(const tree_change *t, void *ctx, memfs_error *err)
{
    changed *c = ctx;
    char *path = mem_strndup(t->path.ptr, t->path.len);
    versions_path key = { .path = path }, *found;

    (void)err;
    found = bsearch(&key, c->at, c->n, sizeof(*c->at), compare_paths);
    if (found != NULL && is_of_file(t))
        c->n_seen[found - c->at]++;
    free(path);
    return MEMFS_OK;
}

static void keep_seen(changed *c, size_t by_so_many)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->n; i++) {
        if (c->n_seen[i] == by_so_many)
            c->at[kept++] = c->at[i];
        else
            free((char *)c->at[i].path);
    }
    c->n = kept;
}

static memfs_code compare_further(repo *r, const memfs_oid *id, const commit_info *info,
                                  const policy *p, changed *c, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    free(c->n_seen);
    c->n_seen = mem_alloc((c->n + 1) * sizeof(*c->n_seen));
    for (size_t i = 1; rc == MEMFS_OK && c->n > 0 && i < info->n_parents; i++)
        rc = repo_diff(r, &info->parents[i], id, p, note_further, c, err);
    keep_seen(c, info->n_parents - 1);
    return rc;
}

static memfs_code find_changed(repo *r, const memfs_oid *id, const commit_info *info,
                               const policy *p, changed *c, memfs_error *err)
{
    memfs_code rc;

    changed_clear(c);
    rc = repo_diff(r, info->n_parents > 0 ? &info->parents[0] : NULL, id, p, note_first, c, err);
    if (rc < 0)
        return rc;
    if (c->n > 1)
        qsort(c->at, c->n, sizeof(*c->at), compare_paths);
    return info->n_parents > 1 ? compare_further(r, id, info, p, c, err) : MEMFS_OK;
}

memfs_code versions_one(repo *r, const memfs_oid *id, const policy *p, versions_fn fn, void *ctx,
                        memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    _cleanup_(changed_dispose) changed c = { NULL, 0, 0, NULL };
    const policy wide = store_policy_of_history(p);
    memfs_code rc = repo_commit_info(r, id, &info, err);

    if (rc == MEMFS_OK)
        rc = find_changed(r, id, &info, &wide, &c, err);
    if (rc < 0)
        return rc;
    return fn(&(versions_commit){ *id, &info, c.at, c.n }, ctx, err);
}

/* ---- all of them, oldest first ---- */

memfs_code versions_walk(repo *r, const memfs_oid *from, const memfs_oid *to, size_t max_looked,
                         const policy *p, versions_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(span_dispose) span s = SPAN_INIT(r);
    _cleanup_(mem_freep) size_t *order = NULL;
    memfs_code rc;
    size_t n;

    span_start(&s, to, false);
    if (from != NULL)
        span_start(&s, from, true);
    rc = span_explore(&s, max_looked, err);
    if (rc < 0)
        return rc;
    n = span_order(&s, &order);
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = versions_one(r, &s.nodes[order[i]].id, p, fn, ctx, err);
    return rc;
}

/* ---- newest first, a stretch at a time ---- */

/*
 * A stretch begins at a commit that all that is left leads through, and ends before the next such
 * one: nearly always it is one commit, else a merge and what lies on its sides.
 */
static memfs_code explore_stretch(span *s, memfs_error *err)
{
    memfs_code rc;

    do {
        rc = span_look(s, err);
    } while (rc == MEMFS_OK && span_n_left(s) > 0 && (s->has_root || span_n_left(s) > 1));
    return rc;
}

typedef struct lister {
    repo *r;
    const versions_page *page;
    const policy *p;
    versions_fn fn;
    void *ctx;
    bool is_past_before;
    size_t n_listed;
    memfs_oid known; /* a commit whose entry at page->path is this; zero: none yet */
    tree_entry entry;
} lister;

static bool is_done(const lister *l)
{
    return l->page->limit > 0 && l->n_listed == l->page->limit;
}

/* What is at the path; mode 0: no file. */
static memfs_code look_at_path(lister *l, const memfs_oid *commit, tree_entry *ret,
                               memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (!oid_equal(&l->known, commit)) {
        rc = repo_find_entry(l->r, commit, l->page->path, &l->entry, err);
        if (rc == MEMFS_ENOTFOUND || (rc == MEMFS_OK && !is_file(true, l->entry.mode))) {
            l->entry = (tree_entry){ .mode = 0 };
            rc = MEMFS_OK;
        }
        l->known = *commit;
    }
    *ret = l->entry;
    return rc;
}

static memfs_code changed_path(lister *l, const span *s, size_t place, bool *ret, memfs_error *err)
{
    const span_node *node = &s->nodes[place];
    tree_entry here, there;
    memfs_code rc = look_at_path(l, &node->id, &here, err);

    *ret = rc == MEMFS_OK && (node->n_parents > 0 || here.mode != 0);
    for (size_t i = 0; rc == MEMFS_OK && *ret && i < node->n_parents; i++) {
        rc = look_at_path(l, &s->nodes[s->links[node->first_parent + i]].id, &there, err);
        *ret = here.mode != there.mode || !oid_equal(&here.id, &there.id);
    }
    return rc;
}

static memfs_code list_one(lister *l, const span *s, size_t place, memfs_error *err)
{
    const memfs_oid *id = &s->nodes[place].id;
    bool is_wanted = true;
    memfs_code rc = MEMFS_OK;

    if (!l->is_past_before) {
        l->is_past_before = oid_equal(id, l->page->before);
        return MEMFS_OK;
    }
    if (l->page->path.len > 0)
        rc = changed_path(l, s, place, &is_wanted, err);
    if (rc < 0 || !is_wanted)
        return rc;
    l->n_listed++;
    return versions_one(l->r, id, l->p, l->fn, l->ctx, err);
}

/* What s holds, newest first. */
static memfs_code list_held(lister *l, const span *s, memfs_error *err)
{
    _cleanup_(mem_freep) size_t *order = NULL;
    memfs_code rc = MEMFS_OK;
    size_t n;

    if (s->next == 1) /* nearly always */
        return list_one(l, s, 0, err);
    n = span_order(s, &order);
    while (rc == MEMFS_OK && n > 0 && !is_done(l))
        rc = list_one(l, s, order[--n], err);
    return rc;
}

/* *at becomes where the next stretch begins; *ret_is_end: nowhere. */
static memfs_code list_stretch(lister *l, span *s, memfs_oid *at, bool *ret_is_end,
                               memfs_error *err)
{
    memfs_code rc;

    span_clear(s);
    span_start(s, at, false);
    rc = explore_stretch(s, err);
    if (rc == MEMFS_OK)
        rc = list_held(l, s, err);
    *ret_is_end = span_n_left(s) == 0;
    if (!*ret_is_end)
        *at = s->nodes[s->next].id;
    return rc;
}

memfs_code versions_list(repo *r, const memfs_oid *tip, const versions_page *page, const policy *p,
                         versions_fn fn, void *ctx, memfs_error *err)
{
    lister l = {
        .r = r, .page = page, .p = p, .fn = fn, .ctx = ctx, .is_past_before = page->before == NULL
    };
    _cleanup_(span_dispose) span s = SPAN_INIT(r);
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid at = *tip;
    bool is_end = false;
    memfs_code rc = MEMFS_OK;

    while (rc == MEMFS_OK && !is_end && !is_done(&l))
        rc = list_stretch(&l, &s, &at, &is_end, err);
    if (rc < 0 || l.is_past_before)
        return rc;
    oid_hex(page->before, hex);
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no commit '%s' in main's history", hex);
}

/* ---- one file, one commit ---- */

memfs_code versions_file(repo *r, const memfs_oid *commit, memfs_str path, memfs_oid *ret,
                         memfs_error *err)
{
    tree_entry e;
    memfs_code rc = repo_find_entry(r, commit, path, &e, err);

    if (rc == MEMFS_OK && !is_file(true, e.mode))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such file");
    if (rc == MEMFS_OK)
        *ret = e.id;
    return rc;
}

memfs_code versions_has(repo *r, const memfs_oid *tip, const memfs_oid *id, bool *ret,
                        memfs_error *err)
{
    _cleanup_(span_dispose) span s = SPAN_INIT(r);
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = repo_header(r, id, &type, &bytes, err);

    *ret = rc == MEMFS_OK && oid_equal(tip, id);
    if (rc < 0 || type != GIT_OBJECT_COMMIT || *ret)
        return rc == MEMFS_ECORRUPT ? MEMFS_OK : rc; /* it is not here at all */
    span_start(&s, tip, false);
    while (rc == MEMFS_OK && !*ret && span_n_left(&s) > 0) {
        rc = span_look(&s, err);
        *ret = oidmap_has(&s.by_id, id);
    }
    return rc;
}
