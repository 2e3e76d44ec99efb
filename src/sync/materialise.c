/*
 * materialise.c - f, the function from a tree to rows (row.h: of one file), and the way its values
 * get into the cache.
 *
 * A row depends on agent id, path, blob, and on what the state knows of its label, as git does not:
 * when it was first seen, and what came with it from a Letta server (state_birth).  It depends on
 * no clock, no other file and no history; so a cache that is deleted comes back to the byte (D5),
 * and `verify` can compute what must be there.  For the same reason updated_at is the birth as
 * well: git has no time of change that is a function of the tree.
 *
 * Which files are rows: regular files whose path gives a label (memory/label.h, with the configured
 * prefixes), is UTF-8, and passes the strict naming policy, whatever policy the server runs under.
 * The degenerate labels of ".md" and "a/.md" are left out.  No two such paths have one label.
 *
 * Cost: one tree diff by id, one blob read, one decode and one parse a changed file; the rows lie
 * in one arena and go to the cache in one transaction.  Where somebody asked for the agent's past,
 * the versions of the same commits go with them (past.h).
 */
#include "sync/home_int.h"
#include "sync/materialise_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "memory/label.h"
#include "store/amend.h"
#include "sync/arena.h"
#include "sync/cluster.h"
#include "sync/follow.h"
#include "sync/past.h"

#include <stdlib.h>

/* ---- one row by itself ---- */

memfs_code materialise_row(memfs_str owner, memfs_str path, memfs_str label, const memfs_oid *blob,
                           memfs_str blob_bytes, memfs_buf *scratch, block_row *ret,
                           memfs_error *err)
{
    _cleanup_(row_maker_dispose) row_maker m = ROW_MAKER_INIT;
    memfs_str *slices[ROW_N_SLICES];
    size_t n = 0, at;

    row_start(&m, owner, path, label, blob, ret);
    row_make(&m, label, blob_bytes, ret);
    row_slices(ret, slices);
    for (size_t i = 0; i < ROW_N_SLICES; i++)
        n += slices[i]->len;
    if (buf_reserve(scratch, n) == NULL) /* all at once, so that nothing moves below */
        return buf_check(scratch, "a block", err);
    for (size_t i = 0; i < ROW_N_SLICES; i++) {
        at = scratch->len;
        buf_add_str(scratch, *slices[i]);
        *slices[i] = str_make(scratch->ptr + at, slices[i]->len);
    }
    return MEMFS_OK;
}

/* ---- a plan ---- */

struct plan {
    arena arena;
    block_row *rows;
    row_fault *faults;
    size_t n_rows, cap_rows;
    memfs_str *gone;
    size_t n_gone, cap_gone;
    memfs_oid from, to;
    bool has_from;
    bool is_expecting, has_expected; /* plan_expect */
    memfs_oid expected;
    past_list *versions; /* plan_follow; NULL: none */
};

typedef struct planner {
    home *h;
    agent *a;
    repo *r;
    plan *p;
    bool is_shared;     /* a repository of nobody's blocks: its tip is kept like any, and no rows */
    uint64_t max_bytes; /* in the plan's arena */
    policy strict;
    memfs_buf blob;
    row_maker maker;
} planner;

size_t plan_n_rows(const plan *p)
{
    return p->n_rows;
}

void plan_expect(plan *p, const memfs_oid *tip)
{
    p->is_expecting = true;
    p->has_expected = tip != NULL;
    if (tip != NULL)
        p->expected = *tip;
}

void plan_follow(home *h, const agent *a, repo *r, plan *p)
{
    if (p->has_from && p->versions == NULL)
        p->versions = past_step(h, a, r, &p->from, &p->to);
}

const block_row *plan_row(const plan *p, size_t i, row_fault *ret_fault)
{
    if (ret_fault != NULL)
        *ret_fault = p->faults[i];
    return &p->rows[i];
}

void plan_free(plan *p)
{
    if (p == NULL)
        return;
    arena_dispose(&p->arena);
    past_list_free(p->versions);
    free(p->rows);
    free(p->faults);
    free(p->gone);
    free(p);
}

void plan_freep(plan **p)
{
    plan_free(*p);
    *p = NULL;
}

static bool is_file(uint32_t mode)
{
    return mode == TREE_MODE_FILE || mode == TREE_MODE_EXEC;
}

memfs_code path_names(const policy *strict, memfs_str path, memfs_error *err)
{
    tree_entry entry = { .mode = TREE_MODE_FOLDER };
    memfs_str rest = path;
    bool is_last;
    memfs_code rc;

    if (str_utf8_valid_prefix(path) != path.len)
        return memfs_fail(err, MEMFS_EDENIED, "the path of a file is not UTF-8");
    do {
        is_last = !str_split(rest, '/', &entry.name, &rest);
        if (is_last) {
            entry.name = rest;
            entry.mode = TREE_MODE_FILE;
        }
        rc = policy_entry(strict, str_make(path.ptr, (size_t)(entry.name.ptr - path.ptr)), &entry,
                          err);
    } while (rc == MEMFS_OK && !is_last);
    return rc;
}

bool path_has_good_names(const policy *strict, memfs_str path)
{
    memfs_error ignored;

    return path_names(strict, path, &ignored) == MEMFS_OK;
}

static bool has_label(planner *pl, memfs_str path, memfs_str *ret)
{
    return label_of_path(path, pl->h->options.block_prefixes, ret) && ret->len > 0 &&
           ret->ptr[ret->len - 1] != '/' && path_has_good_names(&pl->strict, path);
}

bool plan_label(home *h, memfs_str path, memfs_str *ret_label)
{
    planner pl = { .h = h, .strict = h->options.policy };

    pl.strict.lenient = false;
    return has_label(&pl, path, ret_label);
}

static void keep_row(plan *p, const block_row *row, row_fault fault)
{
    memfs_str *slices[ROW_N_SLICES];
    block_row *to;

    if (p->n_rows == p->cap_rows) {
        p->cap_rows = p->cap_rows == 0 ? 16 : p->cap_rows * 2;
        p->rows = mem_realloc(p->rows, p->cap_rows, sizeof(*p->rows));
        p->faults = mem_realloc(p->faults, p->cap_rows, sizeof(*p->faults));
    }
    to = &p->rows[p->n_rows];
    *to = *row;
    row_slices(to, slices);
    for (size_t i = 0; i < ROW_N_SLICES; i++)
        *slices[i] = arena_copy(&p->arena, *slices[i]);
    p->faults[p->n_rows++] = fault;
}

static void keep_gone(plan *p, memfs_str path)
{
    if (p->n_gone == p->cap_gone) {
        p->cap_gone = p->cap_gone == 0 ? 16 : p->cap_gone * 2;
        p->gone = mem_realloc(p->gone, p->cap_gone, sizeof(*p->gone));
    }
    p->gone[p->n_gone++] = arena_copy(&p->arena, path);
}

static memfs_code plan_file(planner *pl, const tree_change *c, memfs_str label, memfs_error *err)
{
    const policy *limits = &pl->h->options.policy;
    row_maker *m = &pl->maker;
    uint64_t bytes = 0;
    block_row row;
    memfs_code rc;

    buf_clear(&pl->blob);
    row_start(m, str_of(pl->a->id), c->path, label, &c->new_id, &row);
    rc = repo_blob(pl->r, &c->new_id, limits->max_block_bytes, &pl->blob, err);
    if (rc == MEMFS_OK) {
        row_make(m, label, buf_str(&pl->blob), &row);
    } else if (rc == MEMFS_ELIMIT) {
        rc = repo_blob_size(pl->r, &c->new_id, &bytes, err);
        row_make_large(m, label, bytes, limits->max_block_bytes, &row);
    }
    if (rc < 0)
        return rc;
    if (pl->p->arena.n_bytes > pl->max_bytes)
        return memfs_fail(err, MEMFS_ELIMIT, "the blocks of this memory are more than %llu bytes",
                          (unsigned long long)pl->max_bytes);
    if (!m->says_limit)
        row.limit = ROW_LIMIT_UNSAID;
    keep_row(pl->p, &row, m->fault);
    return MEMFS_OK;
}

static memfs_code plan_change(const tree_change *c, void *ctx, memfs_error *err)
{
    planner *pl = ctx;
    bool was = c->has_old && is_file(c->old_mode);
    bool is = c->has_new && is_file(c->new_mode);
    memfs_str label;

    if (pl->is_shared)
        return MEMFS_OK;
    if ((!was && !is) || (was && is && oid_equal(&c->old_id, &c->new_id)))
        return MEMFS_OK; /* the second: only the mode differs */
    if (!has_label(pl, c->path, &label))
        return MEMFS_OK;
    if (is)
        return plan_file(pl, c, label, err);
    keep_gone(pl->p, c->path);
    return MEMFS_OK;
}

static void planner_dispose(planner *pl)
{
    buf_dispose(&pl->blob);
    row_maker_dispose(&pl->maker);
    plan_free(pl->p);
}

static memfs_code make_plan(home *h, agent *a, repo *r, const memfs_oid *from, const memfs_oid *to,
                            uint64_t max_bytes, plan **ret, memfs_error *err)
{
    _cleanup_(planner_dispose) planner pl = { .h = h,
                                              .a = a,
                                              .r = r,
                                              .p = mem_alloc(sizeof(plan)),
                                              .is_shared = ids_is_shared(str_of(a->id)),
                                              .max_bytes = max_bytes,
                                              .strict = h->options.policy,
                                              .blob = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                              .maker = ROW_MAKER_INIT };
    memfs_code rc;

    pl.strict.lenient = false;
    pl.p->to = *to;
    pl.p->has_from = from != NULL;
    if (from != NULL)
        pl.p->from = *from;
    rc = repo_diff(r, from, to, &h->options.policy, plan_change, &pl, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(pl.p);
    return MEMFS_OK;
}

memfs_code plan_make(home *h, agent *a, repo *r, const memfs_oid *from, const memfs_oid *to,
                     plan **ret, memfs_error *err)
{
    return make_plan(h, a, r, from, to, 2 * h->options.policy.max_tree_bytes, ret, err);
}

memfs_code plan_make_small(home *h, agent *a, repo *r, const memfs_oid *to, uint64_t max_bytes,
                           plan **ret, memfs_error *err)
{
    return make_plan(h, a, r, NULL, to, max_bytes, ret, err);
}

/* ---- births ---- */

#define BIRTHS_ONE_BY_ONE 16

/* What the state knows of labels; slices lie in the arena. */
typedef struct known {
    arena *arena; /* the plan's: rows take slices over */
    state_birth *list;
    size_t n, cap;
} known;

static void known_dispose(known *k)
{
    free(k->list);
}

static memfs_code take_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    known *k = ctx;
    state_birth *to;

    (void)err;
    if (k->n == k->cap) {
        k->cap = k->cap == 0 ? 16 : k->cap * 2;
        k->list = mem_realloc(k->list, k->cap, sizeof(*k->list));
    }
    to = &k->list[k->n++];
    *to = *birth;
    to->label = arena_copy(k->arena, birth->label);
    to->tags_json = arena_copy(k->arena, birth->tags_json);
    to->block_id = arena_copy(k->arena, birth->block_id);
    return MEMFS_OK;
}

static int compare_births(const void *a, const void *b)
{
    return str_compare(((const state_birth *)a)->label, ((const state_birth *)b)->label);
}

/* All of the agent's where many rows are written, else one by one: the cost follows the change. */
static memfs_code load_births(home *h, agent *a, const plan *p, known *k, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (p->n_rows > BIRTHS_ONE_BY_ONE)
        rc = state_births(h->state, str_of(a->id), MEMFS_STR(""), take_birth, k, err);
    else
        for (size_t i = 0; i < p->n_rows && rc == MEMFS_OK; i++)
            rc = state_births(h->state, str_of(a->id), p->rows[i].label, take_birth, k, err);
    if (k->n > 0)
        qsort(k->list, k->n, sizeof(*k->list), compare_births);
    return rc;
}

static const state_birth *birth_of(const known *k, memfs_str label)
{
    state_birth key = { .label = label };

    return k->n > 0 ? bsearch(&key, k->list, k->n, sizeof(key), compare_births) : NULL;
}

/* What the file says of the limit comes first (block-format 2). */
static void date_row(block_row *row, const state_birth *birth)
{
    if (birth != NULL) {
        row->created_at_us = birth->created_at_us;
        row->hidden = birth->hidden;
        row->limit = row->limit == ROW_LIMIT_UNSAID ? birth->limit : row->limit;
        row->id = birth->block_id.len > 0 ? birth->block_id : row->id;
        row->tags_json = birth->tags_json.len > 0 ? birth->tags_json : row->tags_json;
    }
    if (row->limit == ROW_LIMIT_UNSAID)
        row->limit = BLOCK_DEFAULT_LIMIT;
}

/* Another server may have seen a label a moment before us: what the state holds now stays. */
static memfs_code date_rows(home *h, agent *a, plan *p, memfs_error *err)
{
    _cleanup_(known_dispose) known k = { .arena = &p->arena };
    memfs_code rc = load_births(h, a, p, &k, err);

    for (size_t i = 0; rc == MEMFS_OK && i < p->n_rows; i++) {
        const state_birth *birth = birth_of(&k, p->rows[i].label);

        if (birth != NULL)
            p->rows[i].created_at_us = p->rows[i].updated_at_us = birth->created_at_us;
    }
    return rc;
}

memfs_code plan_births(home *h, agent *a, plan *p, bool as_it_is, memfs_error *err)
{
    _cleanup_(known_dispose) known k = { .arena = &p->arena };
    _cleanup_(mem_freep) memfs_str *unborn = NULL;
    int64_t now = clock_wall_us();
    size_t n_unborn = 0;
    memfs_code rc;

    rc = load_births(h, a, p, &k, err);
    if (rc < 0)
        return rc;
    unborn = mem_alloc((p->n_rows + 1) * sizeof(*unborn));
    for (size_t i = 0; i < p->n_rows; i++) {
        date_row(&p->rows[i], birth_of(&k, p->rows[i].label));
        if (p->rows[i].created_at_us == 0 && !as_it_is) {
            unborn[n_unborn++] = p->rows[i].label;
            p->rows[i].created_at_us = now;
        }
        p->rows[i].updated_at_us = p->rows[i].created_at_us;
    }
    if (n_unborn == 0)
        return MEMFS_OK; /* a state write is an fsync */
    rc = state_births_add(h->state, str_of(a->id), unborn, n_unborn, now, err);
    return rc == MEMFS_OK && home_is_shared(h) ? date_rows(h, a, p, err) : rc;
}

/* ---- into the cache ---- */

static memfs_code apply_changes(home *h, agent *a, const plan *p, memfs_error *err)
{
    size_t n = p->n_rows + p->n_gone;
    _cleanup_(mem_freep) cache_change *changes = mem_alloc((n + 1) * sizeof(*changes));
    cache_update update = { .agent_id = str_of(a->id),
                            .from = p->has_from ? &p->from : NULL,
                            .to = p->to,
                            .replace_all = !p->has_from,
                            .changes = changes,
                            .n_changes = n,
                            .versions =
                                p->versions != NULL ? past_list_versions(p->versions) : NULL };

    if (p->is_expecting) {
        update.from = p->has_expected ? &p->expected : NULL;
        update.replace_all = !p->has_from && p->has_expected;
        update.holder = cluster_no(h->cluster);
        update.org = str_of(a->org);
        update.now_us = clock_wall_us();
    }
    for (size_t i = 0; i < p->n_gone; i++)
        changes[i] = (cache_change){ p->gone[i], NULL };
    for (size_t i = 0; i < p->n_rows; i++)
        changes[p->n_gone + i] = (cache_change){ p->rows[i].path, &p->rows[i] };
    return cache_apply(h->cache, &update, err);
}

static size_t count_problems(const plan *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_rows; i++)
        n += p->faults[i] != ROW_WHOLE;
    return n;
}

/*
 * In a step ECORRUPT means the cache; what else is damaged is told by an alarm or a fence already.
 */
static memfs_code not_the_cache(memfs_error *err)
{
    if (err->code == MEMFS_ECORRUPT)
        err->code = MEMFS_EINTERNAL;
    return err->code;
}

memfs_code plan_apply(home *h, agent *a, plan *p, materialise_result *ret, memfs_error *err)
{
    uint64_t epoch = atomic_load(&h->epoch);
    memfs_code rc;

    rc = plan_births(h, a, p, false, err);
    if (rc < 0)
        return not_the_cache(err);
    rc = apply_changes(h, a, p, err);
    if (rc < 0)
        return rc;
    agent_synced(h, a, &p->to, epoch);
    *ret = (materialise_result){ .tip = p->to,
                                 .n_changed = p->n_rows,
                                 .n_removed = p->n_gone,
                                 .n_problems = count_problems(p) };
    return MEMFS_OK;
}

/* ---- a whole agent ---- */

/*
 * is_followed: the agent's versions go up to `from`.  Damage met while reading git is the
 * repository's, and fences it if fsck agrees (F12).
 */
static memfs_code plan_from(home *h, agent *a, const memfs_oid *from, bool is_followed,
                            const memfs_oid *to, plan **ret, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_code rc;

    rc = repo_open(h->store, a->repo, &r, err);
    if (rc == MEMFS_OK) {
        rc = plan_make(h, a, r, from, to, ret, err);
        if (rc < 0 && from != NULL) /* perhaps only the old commit is gone */
            rc = plan_make(h, a, r, NULL, to, ret, err);
        if (rc == MEMFS_OK && is_followed)
            plan_follow(h, a, r, *ret);
    }
    if (rc == MEMFS_ECORRUPT)
        agent_suspect(h, a, err);
    return rc;
}

typedef enum anew_kind { ANEW_NOT, ANEW, ANEW_OVERRULING } anew_kind;

static memfs_code step(home *h, agent *a, const memfs_oid *tip, anew_kind anew,
                       materialise_result *ret, memfs_error *err)
{
    _cleanup_(plan_freep) plan *p = NULL;
    uint64_t epoch = atomic_load(&h->epoch);
    cache_tip cached;
    memfs_code rc;

    rc = cache_tip_get(h->cache, str_of(a->id), &cached, err);
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    if (rc == MEMFS_OK && anew == ANEW_NOT && oid_equal(&cached.commit, tip)) {
        agent_synced(h, a, tip, epoch);
        *ret = (materialise_result){ .tip = *tip };
        return MEMFS_OK;
    }
    rc = plan_from(h, a, rc == MEMFS_OK && anew == ANEW_NOT ? &cached.commit : NULL,
                   rc == MEMFS_OK && cached.is_followed, tip, &p, err);
    if (rc < 0)
        return not_the_cache(err);
    return plan_apply(h, a, p, ret, err);
}

/* The same where servers share the tip: the rows' tip and everybody's are one. */
static memfs_code shared_step(home *h, agent *a, const memfs_oid *tip, anew_kind anew,
                              materialise_result *ret, memfs_error *err)
{
    _cleanup_(plan_freep) plan *p = NULL;
    bool has_head;
    cache_head head;
    memfs_code rc;

    rc = cache_head_get(h->cache, str_of(a->id), &head, err);
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    has_head = rc == MEMFS_OK;
    *ret = (materialise_result){ .tip = *tip };
    if (has_head && anew == ANEW_NOT && !head.is_empty && oid_equal(&head.tip, tip))
        return MEMFS_OK;
    if (has_head && anew != ANEW_OVERRULING && follow_check_forward(h, a, &head.tip, tip, err) < 0)
        return err->code;
    rc = plan_from(h, a, has_head && anew == ANEW_NOT && !head.is_empty ? &head.tip : NULL,
                   has_head && head.is_followed, tip, &p, err);
    if (rc < 0)
        return not_the_cache(err);
    plan_expect(p, has_head ? &head.tip : NULL);
    return plan_apply(h, a, p, ret, err);
}

/* A damaged cache is set aside and begun anew, and the step tried once more (F23). */
static memfs_code steps(home *h, agent *a, anew_kind anew, materialise_result *ret,
                        memfs_error *err)
{
    memfs_oid tip;
    memfs_code rc;

    rc = store_tip(h->store, a->repo, &tip, err);
    if (rc < 0)
        return rc;
    if (home_is_shared(h))
        return shared_step(h, a, &tip, anew, ret, err);
    rc = step(h, a, &tip, anew, ret, err);
    if (rc != MEMFS_ECORRUPT)
        return rc;
    home_cache_suspect(h);
    return step(h, a, &tip, anew, ret, err);
}

memfs_code materialise_agent(home *h, agent *a, materialise_result *ret, memfs_error *err)
{
    if (home_is_deleted(h, str_of(a->id))) {
        *ret = (materialise_result){ 0 }; /* whoever looks after its repository gets it no rows */
        return MEMFS_OK;
    }
    return steps(h, a, ANEW_NOT, ret, err);
}

memfs_code materialise_rebuild(home *h, agent *a, materialise_result *ret, memfs_error *err)
{
    return steps(h, a, ANEW, ret, err);
}

memfs_code materialise_replace(home *h, agent *a, const memfs_oid *from, const memfs_oid *to,
                               materialise_result *ret, memfs_error *err)
{
    _cleanup_(plan_freep) plan *p = NULL;
    memfs_code rc = plan_from(h, a, NULL, false, to, &p, err);

    if (rc < 0)
        return not_the_cache(err);
    plan_expect(p, from);
    return plan_apply(h, a, p, ret, err);
}

memfs_code materialise_overrule(home *h, agent *a, materialise_result *ret, memfs_error *err)
{
    return steps(h, a, ANEW_OVERRULING, ret, err);
}

/* ---- some rows ---- */

static memfs_code plan_label_at(planner *pl, const memfs_oid *tip, memfs_str wanted,
                                memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    tree_change c = { .has_new = true };
    memfs_str label;
    memfs_code rc;

    label_to_path(wanted, &path);
    c.path = buf_str(&path);
    if (!has_label(pl, c.path, &label) || !str_equal(label, wanted))
        return MEMFS_OK;
    rc = amend_find(pl->r, tip, c.path, &c.new_id, err);
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc < 0 ? rc : plan_file(pl, &c, label, err);
}

static memfs_code plan_labels(home *h, agent *a, const memfs_oid *tip, const memfs_str *labels,
                              size_t n, plan **ret, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    _cleanup_(planner_dispose) planner pl = { .h = h,
                                              .a = a,
                                              .p = mem_alloc(sizeof(plan)),
                                              .strict = h->options.policy,
                                              .blob = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                              .maker = ROW_MAKER_INIT };
    memfs_code rc = repo_open(h->store, a->repo, &r, err);

    pl.r = r;
    pl.strict.lenient = false;
    pl.p->from = pl.p->to = *tip;
    pl.p->has_from = true;
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = plan_label_at(&pl, tip, labels[i], err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(pl.p);
    return rc;
}

memfs_code materialise_labels(home *h, agent *a, const memfs_str *labels, size_t n,
                              materialise_result *ret, memfs_error *err)
{
    _cleanup_(plan_freep) plan *p = NULL;
    memfs_oid tip;
    memfs_code rc = store_tip(h->store, a->repo, &tip, err);

    if (rc == MEMFS_OK)
        rc = plan_labels(h, a, &tip, labels, n, &p, err);
    if (rc < 0)
        return not_the_cache(err);
    if (home_is_shared(h))
        plan_expect(p, &tip);
    rc = plan_apply(h, a, p, ret, err);
    return rc == MEMFS_ECONFLICT ? materialise_rebuild(h, a, ret, err) : rc;
}
