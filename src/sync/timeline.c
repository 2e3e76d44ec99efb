#include "sync/timeline.h"

#include "base/escape.h"
#include "base/mem.h"
#include "cache/search.h"
#include "sync/home_int.h"
#include "sync/materialise_int.h"
#include "sync/past.h"

#include <stdlib.h>

#define MAX_FILE_BYTES (64u << 20) /* what edit_put() takes is for it to say */

struct timeline {
    home *h;
    agent *a;
    repo *r;
    memfs_oid main;
};

/* ---- life cycle ---- */

memfs_code timeline_open(home *h, memfs_str agent_id, timeline **ret, memfs_error *err)
{
    timeline *p = mem_alloc(sizeof(*p));
    memfs_code rc;

    p->h = h;
    rc = home_agent_repo(h, agent_id, &p->a, err);
    if (rc == MEMFS_OK)
        rc = store_tip(h->store, p->a->repo, &p->main, err);
    if (rc == MEMFS_OK)
        rc = repo_open(h->store, p->a->repo, &p->r, err);
    if (rc < 0) {
        timeline_close(p);
        return rc;
    }
    *ret = p;
    return MEMFS_OK;
}

void timeline_close(timeline *p)
{
    if (p == NULL)
        return;
    repo_close(p->r);
    free(p);
}

void timeline_closep(timeline **p)
{
    timeline_close(*p);
    *p = NULL;
}

repo *timeline_repo(timeline *p)
{
    return p->r;
}

const memfs_oid *timeline_main(const timeline *p)
{
    return &p->main;
}

void timeline_failed(timeline *p, const memfs_error *err)
{
    agent_suspect(p->h, p->a, err);
}

/* ---- a commit by its id ---- */

static memfs_code fail_no_commit(memfs_str digits, memfs_error *err)
{
    char shown[60];

    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no commit '%s' in main's history",
                      escape_text(digits, shown, sizeof(shown)));
}

static memfs_code find_commit(repo *r, const memfs_oid *main, memfs_str digits, memfs_oid *ret,
                              memfs_error *err)
{
    bool has = false;
    memfs_code rc;

    if (digits.len < TIMELINE_MIN_DIGITS || digits.len > MEMFS_OID_HEX)
        return memfs_fail(err, MEMFS_EINVALID,
                          "a commit is named by its id, or by at least %d digits of it",
                          TIMELINE_MIN_DIGITS);
    if (digits.len < MEMFS_OID_HEX)
        return repo_commit_find(r, main, digits, ret, err);
    if (!oid_parse(digits, ret))
        return memfs_fail(err, MEMFS_EINVALID, "a commit is named by hexadecimal digits");
    rc = versions_has(r, main, ret, &has, err);
    return rc == MEMFS_OK && !has ? fail_no_commit(digits, err) : rc;
}

memfs_code timeline_commit(timeline *p, memfs_str digits, memfs_oid *ret, memfs_error *err)
{
    return find_commit(p->r, &p->main, digits, ret, err);
}

/* ---- its blocks ---- */

memfs_code timeline_blocks(timeline *p, const memfs_oid *commit, memfs_str label, block_row_fn fn,
                           void *ctx, memfs_error *err)
{
    _cleanup_(plan_freep) plan *rows = NULL;
    memfs_code rc = plan_make_small(p->h, p->a, p->r, commit, TIMELINE_MAX_BYTES, &rows, err);

    if (rc == MEMFS_OK)
        rc = plan_births(p->h, p->a, rows, true, err);
    for (size_t i = 0; rc == MEMFS_OK && i < plan_n_rows(rows); i++) {
        const block_row *row = plan_row(rows, i, NULL);

        if (label.len == 0 || str_equal(row->label, label))
            rc = fn(row, ctx, err);
    }
    return rc;
}

/* ---- one file ---- */

typedef struct picking {
    const memfs_oid *before;
    memfs_oid *at;
    size_t n, limit;
    bool is_past_before;
} picking;

static memfs_code pick(const version_row *v, void *ctx, memfs_error *err)
{
    picking *p = ctx;

    if (!p->is_past_before) {
        p->is_past_before = oid_equal(&v->commit, p->before);
        return MEMFS_OK;
    }
    if (p->n == p->limit)
        return memfs_fail(err, MEMFS_EEXISTS, "that is enough");
    p->at[p->n++] = v->commit;
    return MEMFS_OK;
}

bool timeline_of_file(timeline *t, memfs_str path, const memfs_oid *before, size_t limit,
                      memfs_oid **ret, size_t *ret_n)
{
    memfs_str id = str_of(t->a->id);
    picking p = { .before = before, .limit = limit, .is_past_before = before == NULL };
    memfs_error ignored;
    memfs_oid reached;

    if (past_follow(t->h, id, &ignored) < 0 ||
        cache_past_tip(t->h->cache, id, &reached, &ignored) < 0 || !oid_equal(&reached, &t->main))
        return false;
    p.at = mem_alloc(limit * sizeof(*p.at));
    if ((cache_versions(t->h->cache, id, path, 0, before == NULL ? (int64_t)limit : 0, pick, &p,
                        &ignored) < 0 &&
         p.n < limit) ||
        !p.is_past_before) {
        free(p.at);
        return false;
    }
    *ret = p.at;
    *ret_n = p.n;
    return true;
}

/* ---- bringing it back ---- */

typedef struct bringing {
    const timeline_revert *what;
    memfs_oid commit;
} bringing;

/* The file at a commit; a zero id: there is none. */
static memfs_code find_file(edit *e, const memfs_oid *commit, memfs_str path, memfs_oid *ret,
                            memfs_error *err)
{
    memfs_code rc = versions_file(edit_repo(e), commit, path, ret, err);

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    *ret = (memfs_oid){ { 0 } };
    return MEMFS_OK;
}

static memfs_code check_expected(edit *e, const timeline_revert *what, memfs_error *err)
{
    char main_hex[MEMFS_OID_HEX + 1], file_hex[MEMFS_OID_HEX + 1], shown[60];
    memfs_oid file = { { 0 } };
    memfs_code rc = MEMFS_OK;

    oid_hex(edit_main(e), main_hex);
    if (what->expected.len == 0 || str_equal(what->expected, str_of(main_hex)))
        return MEMFS_OK;
    if (what->path.len > 0)
        rc = find_file(e, edit_main(e), what->path, &file, err);
    oid_hex(&file, file_hex);
    if (rc < 0 || (!oid_is_zero(&file) && str_equal(what->expected, str_of(file_hex))))
        return rc;
    escape_text(what->expected, shown, sizeof(shown));
    if (oid_is_zero(&file))
        return memfs_fail(err, MEMFS_ECONFLICT, "expected version '%s', but main is at '%s'", shown,
                          main_hex);
    return memfs_fail(err, MEMFS_ECONFLICT,
                      "expected version '%s', but the file is '%s', and main is at '%s'", shown,
                      file_hex, main_hex);
}

static memfs_code plan_file_back(edit *e, const bringing *b, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str path = b->what->path;
    char shown[240];
    memfs_oid then, now;
    memfs_code rc = find_file(e, &b->commit, path, &then, err);

    if (rc == MEMFS_OK)
        rc = find_file(e, edit_main(e), path, &now, err);
    if (rc < 0 || oid_equal(&then, &now)) {
        if (rc == MEMFS_OK && oid_is_zero(&now))
            return memfs_fail(err, MEMFS_ENOTFOUND, "there is no file '%s', neither now nor then",
                              escape_text(path, shown, sizeof(shown)));
        return rc;
    }
    if (oid_is_zero(&then))
        return edit_remove(e, path, err);
    rc = repo_blob(edit_repo(e), &then, MAX_FILE_BYTES, &text, err);
    return rc == MEMFS_OK ? edit_put(e, path, buf_str(&text), err) : rc;
}

static memfs_code plan_back(edit *e, void *ctx, memfs_error *err)
{
    bringing *b = ctx;
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc = find_commit(edit_repo(e), edit_main(e), b->what->commit, &b->commit, err);

    if (rc == MEMFS_OK)
        rc = check_expected(e, b->what, err);
    if (rc < 0)
        return rc;
    oid_hex(&b->commit, hex);
    edit_say(e, "Revert %s to %.12s\n", b->what->what, hex);
    if (b->what->reason[0] != '\0')
        edit_say(e, "\n%s\n", b->what->reason);
    if (b->what->path.len > 0)
        return plan_file_back(e, b, err);
    edit_take_tree(e, &b->commit);
    return MEMFS_OK;
}

memfs_code timeline_bring_back(home *h, memfs_str agent_id, const timeline_revert *what,
                               const edit_options *o, edit_result *ret, bool *ret_is_unclear,
                               memfs_error *err)
{
    bringing b = { .what = what };

    return edit_memory(h, agent_id, o, plan_back, &b, ret, ret_is_unclear, err);
}
