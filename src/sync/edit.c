/*
 * edit.c - see edit.h.
 *
 *     begin      where main is
 *     plan       the caller's wishes, of that main
 *     judge      sizes and purged objects before anything is written, the commit by the rules of a
 *                push
 *     advance    the ref, the rows
 *
 * Objects of a commit that is refused stay, reached by nobody, until the repository is folded.
 */
#include "sync/edit_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/amend.h"
#include "store/history.h"
#include "store/rewrite.h"
#include "store/vet.h"
#include "sync/away.h"
#include "sync/materialise_int.h"
#include "sync/read_only.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LOCK_MS 30000
#define MAX_FILES 10000
#define MAX_MESSAGE (64u << 10)

/* ---- the plan function's side ---- */

const memfs_oid *edit_main(const edit *e)
{
    return &e->v.tip;
}

repo *edit_repo(edit *e)
{
    return e->r;
}

static wish *find_wish(edit *e, memfs_str path)
{
    for (size_t i = 0; i < e->n; i++)
        if (str_equal(str_of(e->wishes[i].path), path))
            return &e->wishes[i];
    return NULL;
}

static memfs_code check_path(memfs_str path, memfs_error *err)
{
    bool is_good = path.len > 0 && memchr(path.ptr, '\0', path.len) == NULL && path.ptr[0] != '/' &&
                   path.ptr[path.len - 1] != '/';
    char shown[240];

    for (size_t i = 1; is_good && i < path.len; i++)
        is_good = path.ptr[i] != '/' || path.ptr[i - 1] != '/';
    if (is_good)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID, "'%s' is no path of a file: names with '/' between them",
                      escape_text(path, shown, sizeof(shown)));
}

/* Before an object is written that git would call damaged, and under a lenient policy, too. */
static memfs_code check_names(const edit *e, memfs_str path, memfs_error *err)
{
    policy strict = e->h->options.policy;
    memfs_str rest = path, name;
    bool is_last;

    do {
        is_last = !str_split(rest, '/', &name, &rest);
        if (policy_is_git_file(is_last ? rest : name))
            return policy_refuse(err, MEMFS_STR(""), path, "git itself reads it; push it with git");
    } while (!is_last);
    strict.lenient = false;
    return path_names(&strict, path, err);
}

static memfs_code add_wish(edit *e, memfs_str path, char *content, size_t len, memfs_error *err)
{
    wish *w = find_wish(e, path);

    if (w == NULL && e->n == MAX_FILES)
        return memfs_fail(err, MEMFS_ELIMIT, "one commit may change %d files", MAX_FILES);
    if (w == NULL) {
        if (e->n == e->cap) {
            e->cap = e->cap == 0 ? 8 : e->cap * 2;
            e->wishes = mem_realloc(e->wishes, e->cap, sizeof(*e->wishes));
        }
        w = &e->wishes[e->n++];
        *w = (wish){ .path = mem_strndup(path.ptr, path.len) };
    }
    free(w->content);
    w->content = content;
    w->len = len;
    return MEMFS_OK;
}

memfs_code edit_read(edit *e, memfs_str path, memfs_buf *out, memfs_oid *ret_blob, memfs_error *err)
{
    const wish *w = find_wish(e, path);
    memfs_oid id;
    memfs_code rc = MEMFS_OK;

    if (w != NULL && w->content == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such file");
    if (w != NULL) {
        hash_git_blob(str_make(w->content, w->len), &id);
        buf_add(out, w->content, w->len);
    } else {
        rc = amend_find(e->r, &e->v.tip, path, &id, err);
        if (rc == MEMFS_OK)
            rc = repo_blob(e->r, &id, e->h->options.policy.max_file_bytes, out, err);
    }
    if (rc == MEMFS_OK && ret_blob != NULL)
        *ret_blob = id;
    return rc;
}

memfs_code edit_find_at(edit *e, const memfs_oid *commit, memfs_str path, memfs_oid *ret,
                        memfs_error *err)
{
    bool is_ours = false;
    memfs_code rc = MEMFS_OK;

    if (repo_has(e->r, commit))
        rc = repo_is_ancestor(e->r, commit, &e->v.tip, &is_ours, err);
    if (rc == MEMFS_OK && !is_ours)
        return memfs_fail(err, MEMFS_ENOTFOUND, "that is no commit of this memory's history");
    return rc < 0 ? rc : amend_find(e->r, commit, path, ret, err);
}

memfs_code edit_put(edit *e, memfs_str path, memfs_str content, memfs_error *err)
{
    _cleanup_(mem_freep) char *copy = NULL;
    memfs_code rc = check_path(path, err);

    if (rc == MEMFS_OK)
        rc = check_names(e, path, err);
    if (rc < 0)
        return rc;
    if (policy_file_size(&e->h->options.policy, path, content.len, err) < 0)
        return err->code = MEMFS_ELIMIT;
    copy = mem_strndup(content.ptr, content.len);
    rc = add_wish(e, path, copy, content.len, err);
    if (rc == MEMFS_OK)
        copy = NULL;
    return rc;
}

memfs_code edit_remove(edit *e, memfs_str path, memfs_error *err)
{
    memfs_code rc = check_path(path, err);

    return rc == MEMFS_OK ? add_wish(e, path, NULL, 0, err) : rc;
}

void edit_take_tree(edit *e, const memfs_oid *commit)
{
    e->has_tree = true;
    e->tree_of = *commit;
}

void edit_say(edit *e, const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_puts(&e->message, text);
}

/* ---- judging ---- */

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(memfs_oid));
}

/* What was purged comes back by no door. */
static memfs_code check_banned(edit *e, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *banned = NULL;
    size_t n_banned;
    char shown[240];
    memfs_code rc = agent_banned(e->h, e->v.a, &banned, &n_banned, err);

    for (size_t i = 0; rc == MEMFS_OK && n_banned > 0 && i < e->n; i++) {
        const wish *w = &e->wishes[i];
        memfs_oid id;

        if (w->content == NULL)
            continue;
        hash_git_blob(str_make(w->content, w->len), &id);
        if (bsearch(&id, banned, n_banned, sizeof(id), compare_ids) != NULL)
            return memfs_fail(err, MEMFS_EDENIED, "'%s' holds what was purged from this memory",
                              escape_text(str_of(w->path), shown, sizeof(shown)));
    }
    return rc;
}

static memfs_code refuse_locked(memfs_str path, bool is_deleted, void *ctx, memfs_error *err)
{
    char shown[240];

    (void)ctx;
    return memfs_fail(err, MEMFS_EDENIED,
                      "'%s' is read_only and may not be %s with this token; an admin token may",
                      escape_text(path, shown, sizeof(shown)), is_deleted ? "deleted" : "changed");
}

static memfs_code judge(edit *e, const memfs_oid *to, memfs_error *err)
{
    const policy *p = &e->h->options.policy;
    memfs_code rc = vet_tip(e->r, to, &e->v.tip, 1, p, err);

    if (rc == MEMFS_OK && e->o->read_only == PUSH_READ_ONLY_MUST_NOT)
        rc = read_only_walk(e->r, &e->v.tip, to, p, refuse_locked, NULL, err);
    return rc;
}

/* ---- the commit ---- */

static memfs_code commit_tree_of(edit *e, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info old = COMMIT_INFO_INIT, now = COMMIT_INFO_INIT;
    memfs_code rc = repo_commit_info(e->r, &e->tree_of, &old, err);

    if (rc == MEMFS_OK)
        rc = repo_commit_info(e->r, &e->v.tip, &now, err);
    if (rc < 0)
        return rc;
    *ret = e->v.tip;
    if (oid_equal(&old.tree, &now.tree))
        return MEMFS_OK;
    return repo_commit_tree(e->r, &old.tree, &e->v.tip, 1, e->o->who, buf_str(&e->message), ret,
                            err);
}

static memfs_code commit_wishes(edit *e, memfs_oid *ret, memfs_error *err)
{
    amend_file *files = mem_alloc((e->n + 1) * sizeof(*files));
    memfs_code rc = check_banned(e, err);

    for (size_t i = 0; i < e->n; i++)
        files[i] = (amend_file){ .path = e->wishes[i].path,
                                 .is_gone = e->wishes[i].content == NULL,
                                 .content = str_make(e->wishes[i].content, e->wishes[i].len) };
    if (rc == MEMFS_OK)
        rc = amend_commit(e->r, &e->v.tip, files, e->n, e->o->who, buf_str(&e->message), ret, err);
    free(files);
    return rc;
}

static memfs_code make_commit(edit *e, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc;

    if (e->message.len == 0)
        edit_say(e, "Change the memory");
    if (e->message.ptr[e->message.len - 1] != '\n')
        buf_putc(&e->message, '\n');
    rc = buf_check(&e->message, "the commit's message", err);
    if (rc == MEMFS_OK)
        rc = e->has_tree ? commit_tree_of(e, ret, err) : commit_wishes(e, ret, err);
    if (rc == MEMFS_OK && !oid_equal(ret, &e->v.tip))
        rc = judge(e, ret, err);
    return rc;
}

/* ---- one attempt ---- */

static void forget_wishes(edit *e)
{
    for (size_t i = 0; i < e->n; i++) {
        free(e->wishes[i].path);
        free(e->wishes[i].content);
    }
    e->n = 0;
    e->has_tree = false;
    buf_clear(&e->message);
    edit_state_clear(e);
}

/* What the plan refuses of a memory that is not there yet leaves no folder, so no agent (D3). */
static memfs_code rehearse(edit *e, edit_plan_fn plan, void *ctx, repo *genesis, memfs_error *err)
{
    memfs_code rc;

    e->r = genesis;
    rc = plan(e, ctx, err);
    e->r = NULL;
    e->is_refused = rc < 0;
    forget_wishes(e);
    return rc;
}

/* A repository to be changed: of a new agent one with nothing but the genesis. */
static memfs_code begin(edit *e, edit_plan_fn plan, void *ctx, memfs_error *err)
{
    _cleanup_(repo_closep) repo *genesis = NULL;
    advance_step first = { .to = STORE_GENESIS, .is_ours = true, .who = e->o->who, .why = "begin" };
    memfs_code rc = advance_begin(&e->v, err);

    if (rc < 0 || e->v.exists)
        return rc < 0 ? rc : advance_settle(&e->v, false, err);
    if (!e->o->may_be_new)
        return memfs_fail(err, MEMFS_ENOTFOUND, "nobody knows agent '%s'", e->v.a->id);
    rc = repo_open(e->h->store, STORE_GENESIS_REPO, &genesis, err);
    first.objects = genesis;
    if (rc == MEMFS_OK)
        rc = rehearse(e, plan, ctx, genesis, err);
    if (rc == MEMFS_OK)
        rc = advance_to(&e->v, &first, err);
    e->v.moved = false;
    return rc == MEMFS_OK ? advance_begin(&e->v, err) : rc;
}

static memfs_code attempt(edit *e, edit_plan_fn plan, void *ctx, edit_result *ret, memfs_error *err)
{
    advance_step step = { .who = e->o->who, .why = e->o->why };
    memfs_code rc = begin(e, plan, ctx, err);

    if (rc == MEMFS_OK)
        rc = repo_open(e->h->store, e->v.a->repo, &e->r, err);
    if (rc < 0)
        return rc;
    rc = plan(e, ctx, err);
    e->is_refused = rc < 0;
    if (rc < 0)
        return rc;
    ret->before = ret->tip = step.to = e->v.tip;
    if (edit_has_state(e))
        edit_journal_begin(e);
    if (e->n > 0 || e->has_tree)
        rc = make_commit(e, &step.to, err);
    if (rc < 0)
        return advance_written(&e->v, e->r, rc, err);
    step.objects = e->r;
    if (edit_has_state(e))
        rc = edit_advance(e, &step, err);
    else if (!oid_equal(&step.to, &e->v.tip))
        rc = advance_to(&e->v, &step, err);
    ret->tip = step.to;
    ret->moved = e->v.moved;
    ret->changed = rc == MEMFS_OK && edit_has_state(e);
    return rc;
}

static memfs_code attempts(edit *e, edit_plan_fn plan, void *ctx, edit_result *ret,
                           memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + LOCK_MS;
    memfs_code rc;

    for (;;) {
        e->v.moved = false;
        rc = attempt(e, plan, ctx, ret, err);
        repo_closep(&e->r);
        e->r = NULL;
        forget_wishes(e);
        if (rc != MEMFS_ECONFLICT || !home_is_shared(e->h) || e->is_refused || e->v.unclear)
            return rc;
        if (clock_mono_ms() >= until_ms)
            return memfs_fail(err, MEMFS_EUNAVAIL, "other servers were first each time: try again");
        advance_take_turn(&e->v);
    }
}

/*
 * Who reports an edit has it on as many disks as a push that is reported (D1).  Also where nothing
 * was to be changed: it may be the same request again, after one that had too few.
 */
static memfs_code check_copies(edit *e, const memfs_oid *tip, memfs_error *err)
{
    if (oid_equal(tip, &STORE_GENESIS) || home_has_copies(e->h, e->v.a, tip))
        return MEMFS_OK;
    e->v.unclear = true;
    return memfs_fail(err, MEMFS_EUNAVAIL, "too few servers have this change");
}

memfs_code edit_memory(home *h, memfs_str agent_id, const edit_options *o, edit_plan_fn plan,
                       void *ctx, edit_result *ret, bool *ret_is_unclear, memfs_error *err)
{
    edit e = { .h = h,
               .o = o,
               .v = { .h = h, .talk = o->talk, .talk_ctx = o->talk_ctx },
               .message = MEMFS_BUF_INIT(MAX_MESSAGE) };
    bool is_known = true;
    memfs_code rc;

    *ret = (edit_result){ .moved = false };
    rc = o->may_be_new ? home_agent_for_push(h, agent_id, &e.v.a, &is_known, err)
                       : home_agent_repo(h, agent_id, &e.v.a, err);
    if (rc == MEMFS_OK && !agent_lock_for(e.v.a, LOCK_MS))
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "other work on this memory takes too long: try again");
    if (rc == MEMFS_OK) {
        rc = attempts(&e, plan, ctx, ret, err);
        advance_end_turn(&e.v);
        agent_unlock(e.v.a);
    }
    if (rc == MEMFS_OK && ret_is_unclear != NULL)
        rc = check_copies(&e, &ret->tip, err);
    if (ret_is_unclear != NULL)
        *ret_is_unclear = e.v.unclear;
    free(e.wishes);
    buf_dispose(&e.message);
    edit_state_clear(&e);
    return rc;
}
