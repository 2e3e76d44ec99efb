#include "store/vet_int.h"

#include "base/mem.h"

#include <stdlib.h>

/*
 * One tree of a push (vet.c says what for).
 *
 * Trees are graphs: 800 bytes of them can hold 10^10 paths.  A folder that is new as a whole is
 * therefore summed up once for its id (facts: how many entries, bytes, how deep, how long its
 * paths) and only looked up when it comes again.  A folder with a counterpart in a known tree is
 * walked beside it, which is bounded by the counterpart's own entries.  No walk recurses (T16):
 * folders that are open lie on two stacks of at most the policy's depth, first those with a
 * counterpart, then below them those without.
 */

#define MAX_WORK 20000000 /* entries looked at in one push */

typedef struct known_side {
    git_odb_object *object;
    memfs_str raw;
    size_t pos;
    bool has;
    tree_entry entry;
} known_side;

/* A folder that has a counterpart in at least one known tree. */
typedef struct beside {
    git_odb_object *object;
    memfs_str raw;
    size_t pos, path_len, n_known;
    known_side known[VET_MAX_KNOWN];
    bool has_new_name;
} beside;

/* A folder without one. */
typedef struct whole {
    memfs_oid id;
    git_odb_object *object;
    memfs_str raw;
    size_t pos, path_len;
    facts sum;
} whole;

static void beside_dispose(beside *b)
{
    git_odb_object_free(b->object);
    for (size_t i = 0; i < b->n_known; i++)
        git_odb_object_free(b->known[i].object);
}

void vet_unwind(vet *t)
{
    while (t->n_besides > 0)
        beside_dispose(&t->besides[--t->n_besides]);
    while (t->n_wholes > 0)
        git_odb_object_free(t->wholes[--t->n_wholes].object);
}

void vet_init(vet *t, repo *r, const incoming_vetting *v)
{
    size_t n_folders = v->policy->max_depth + 1;

    *t = (vet){ .r = r,
                .v = v,
                .p = v->policy,
                .path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                .by_id = OIDMAP_INIT,
                .max_work = MAX_WORK,
                .judges = true };
    t->besides = mem_alloc(n_folders * sizeof(*t->besides));
    t->wholes = mem_alloc(n_folders * sizeof(*t->wholes));
}

void vet_dispose(vet *t)
{
    vet_unwind(t);
    free(t->besides);
    free(t->wholes);
    free(t->memo);
    oidmap_dispose(&t->by_id);
    buf_dispose(&t->path);
}

static memfs_code fail_deep(const vet *t, memfs_error *err)
{
    return policy_refuse(err, buf_str(&t->path), MEMFS_STR(""),
                         "folders are nested deeper than %u; flatten them", t->p->max_depth);
}

static memfs_code count_work(vet *t, memfs_error *err)
{
    if (++t->work <= t->max_work)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EDENIED,
                      "the push changes too much at once; push in smaller steps");
}

/* whole folders */

static facts *memo_find(vet *t, const memfs_oid *id)
{
    size_t at;

    return oidmap_get(&t->by_id, id, &at) ? &t->memo[at] : NULL;
}

static void memo_put(vet *t, const memfs_oid *id, const facts *sum)
{
    facts *old = memo_find(t, id);

    if (old != NULL) {
        *old = *sum;
        return;
    }
    if (t->n_memo == t->cap_memo) {
        t->cap_memo = t->cap_memo ? t->cap_memo * 2 : 64;
        t->memo = mem_realloc(t->memo, t->cap_memo, sizeof(*t->memo));
    }
    oidmap_put(&t->by_id, id, t->n_memo);
    t->memo[t->n_memo++] = *sum;
}

/* What one entry, with all that is below it, adds to its folder. */
static void sum_up(facts *sum, memfs_str name, const facts *below, uint64_t bytes)
{
    uint32_t path_len = (uint32_t)name.len;

    sum->n_entries = vet_add(sum->n_entries, 1);
    sum->bytes = vet_add(sum->bytes, bytes);
    if (below != NULL) {
        sum->n_entries = vet_add(sum->n_entries, below->n_entries);
        sum->bytes = vet_add(sum->bytes, below->bytes);
        if (below->depth + 1 > sum->depth)
            sum->depth = below->depth + 1;
        path_len += 1 + below->path_len;
    }
    if (path_len > sum->path_len)
        sum->path_len = path_len;
}

static memfs_code fail_not_tree(memfs_error *err)
{
    return memfs_fail(err, MEMFS_EDENIED, "a folder of the push cannot be read");
}

static memfs_code push_whole(vet *t, const memfs_oid *id, memfs_error *err)
{
    whole *w;
    memfs_code rc;

    if (t->n_besides + t->n_wholes > t->p->max_depth)
        return fail_deep(t, err);
    w = &t->wholes[t->n_wholes];
    *w = (whole){ .id = *id, .path_len = t->path.len, .sum.is_judged = t->judges };
    rc = repo_read_tree(t->r, id, &w->object, err);
    if (rc < 0)
        return rc;
    w->raw = repo_raw(w->object);
    t->n_wholes++;
    /* twins are the folder's own business: nothing known stands beside it */
    if (t->judges)
        rc = policy_siblings(t->p, buf_str(&t->path), w->raw, MEMFS_STR(""), err);
    return rc;
}

memfs_code vet_file_bytes(vet *t, memfs_str folder, const tree_entry *e, uint64_t *ret,
                             memfs_error *err)
{
    git_object_t type;
    memfs_code rc;

    *ret = 0;
    if (repo_entry_is_gitlink(e))
        return MEMFS_OK;
    rc = repo_header(t->r, &e->id, &type, ret, err);
    if (rc < 0)
        return rc;
    if (type != GIT_OBJECT_BLOB)
        return policy_refuse(err, folder, e->name, "its content is no file");
    return MEMFS_OK;
}

/* Leaves t->path at folder + name. */
static memfs_code judge_entry(vet *t, const tree_entry *e, size_t folder_len, uint64_t *ret_bytes,
                              memfs_error *err)
{
    memfs_str folder;
    memfs_code rc = count_work(t, err);

    buf_truncate(&t->path, folder_len);
    buf_add_str(&t->path, e->name);
    folder = str_make(t->path.ptr, folder_len);
    *ret_bytes = 0;
    if (rc == MEMFS_OK && t->judges)
        rc = policy_entry(t->p, folder, e, err);
    if (rc == MEMFS_OK && t->judges)
        rc = vet_banned(t->v, &e->id, err);
    if (rc < 0 || repo_entry_is_folder(e) || t->skips_files)
        return rc;
    rc = vet_file_bytes(t, folder, e, ret_bytes, err);
    if (rc == MEMFS_OK && t->judges)
        rc = policy_file_size(t->p, buf_str(&t->path), *ret_bytes, err);
    return rc;
}

/* A folder whose sum is known already, at this place: is it not too deep, are its paths short? */
static memfs_code check_place(vet *t, const facts *sum, memfs_error *err)
{
    if (!t->judges)
        return MEMFS_OK;
    if (t->n_besides + t->n_wholes + sum->depth > t->p->max_depth)
        return fail_deep(t, err);
    if (t->path.len + 1 + sum->path_len > t->p->max_path_bytes)
        return policy_refuse(err, buf_str(&t->path), MEMFS_STR(""),
                             "a path below it is longer than %u bytes; shorten it",
                             t->p->max_path_bytes);
    return policy_totals(t->p, sum->n_entries, 0, err);
}

static memfs_code step_whole(vet *t, memfs_error *err)
{
    whole *w = &t->wholes[t->n_wholes - 1];
    size_t start = w->pos;
    const facts *below = NULL;
    tree_entry e;
    uint64_t bytes;
    memfs_code rc;
    bool bad;

    if (!tree_next(w->raw, &w->pos, &e, &bad))
        return fail_not_tree(err); /* the caller has looked: there are bytes left */
    rc = judge_entry(t, &e, w->path_len, &bytes, err);
    if (rc == MEMFS_OK && repo_entry_is_folder(&e)) {
        below = memo_find(t, &e.id);
        if (below == NULL || (t->judges && !below->is_judged)) {
            w->pos = start; /* met again when its sum is there */
            buf_putc(&t->path, '/');
            return push_whole(t, &e.id, err);
        }
        rc = check_place(t, below, err);
    }
    if (rc < 0)
        return rc;
    sum_up(&w->sum, e.name, below, bytes);
    return t->judges ? policy_totals(t->p, w->sum.n_entries, 0, err) : MEMFS_OK;
}

static void pop_whole(vet *t)
{
    whole *w = &t->wholes[--t->n_wholes];

    memo_put(t, &w->id, &w->sum);
    git_odb_object_free(w->object);
}

memfs_code vet_sum(vet *t, const memfs_oid *id, facts *ret, memfs_error *err)
{
    const facts *there = memo_find(t, id);
    memfs_code rc = MEMFS_OK;

    if (there == NULL || (t->judges && !there->is_judged)) {
        rc = push_whole(t, id, err);
        while (rc == MEMFS_OK && t->n_wholes > 0) {
            whole *w = &t->wholes[t->n_wholes - 1];

            if (w->pos < w->raw.len)
                rc = step_whole(t, err);
            else
                pop_whole(t);
        }
        there = memo_find(t, id);
    }
    if (rc == MEMFS_OK)
        *ret = *there;
    return rc;
}

/* folders with a counterpart */

static memfs_code known_next(known_side *k, memfs_error *err)
{
    bool bad;

    k->has = tree_next(k->raw, &k->pos, &k->entry, &bad);
    return bad ? memfs_fail(err, MEMFS_ECORRUPT, "a tree object cannot be read") : MEMFS_OK;
}

static memfs_code push_beside(vet *t, const memfs_oid *id, const memfs_oid *known, size_t n_known,
                              memfs_error *err)
{
    beside *b;
    memfs_code rc;

    if (t->n_besides > t->p->max_depth)
        return fail_deep(t, err);
    b = &t->besides[t->n_besides];
    *b = (beside){ .path_len = t->path.len };
    rc = repo_read_tree(t->r, id, &b->object, err);
    if (rc < 0)
        return rc;
    t->n_besides++;
    b->raw = repo_raw(b->object);
    while (rc == MEMFS_OK && b->n_known < n_known) {
        known_side *k = &b->known[b->n_known];

        rc = repo_read_tree(t->r, &known[b->n_known], &k->object, err);
        if (rc < 0)
            return rc;
        b->n_known++;
        k->raw = repo_raw(k->object);
        rc = known_next(k, err);
    }
    return rc;
}

/* What the known trees have under e's name. */
typedef struct counterparts {
    bool has_same;  /* the very entry */
    bool has_name;  /* or at least the name, as the same kind */
    memfs_oid folders[VET_MAX_KNOWN];
    size_t n_folders;
} counterparts;

static memfs_code look_beside(beside *b, const tree_entry *e, counterparts *ret, memfs_error *err)
{
    *ret = (counterparts){ false };
    for (size_t i = 0; i < b->n_known; i++) {
        known_side *k = &b->known[i];

        while (k->has && repo_entry_compare(&k->entry, e) < 0) {
            memfs_code rc = known_next(k, err);

            if (rc < 0)
                return rc;
        }
        if (!k->has || repo_entry_compare(&k->entry, e) != 0)
            continue;
        ret->has_name = true;
        if (k->entry.mode == e->mode && oid_equal(&k->entry.id, &e->id))
            ret->has_same = true;
        if (repo_entry_is_folder(&k->entry))
            ret->folders[ret->n_folders++] = k->entry.id;
    }
    return MEMFS_OK;
}

static memfs_code judge_folder(vet *t, const tree_entry *e, const counterparts *c,
                               memfs_error *err)
{
    size_t path_len = t->path.len;
    facts sum;
    memfs_code rc;

    buf_putc(&t->path, '/');
    if (c->n_folders > 0)
        return push_beside(t, &e->id, c->folders, c->n_folders, err);
    rc = vet_sum(t, &e->id, &sum, err);
    buf_truncate(&t->path, path_len);
    return rc == MEMFS_OK ? check_place(t, &sum, err) : rc;
}

static memfs_code step_beside(vet *t, memfs_error *err)
{
    beside *b = &t->besides[t->n_besides - 1];
    counterparts c;
    tree_entry e;
    uint64_t bytes;
    memfs_code rc;
    bool bad;

    if (!tree_next(b->raw, &b->pos, &e, &bad))
        return fail_not_tree(err);
    rc = look_beside(b, &e, &c, err);
    if (rc < 0 || c.has_same)
        return rc;
    b->has_new_name = b->has_new_name || !c.has_name;
    rc = judge_entry(t, &e, b->path_len, &bytes, err);
    if (rc == MEMFS_OK && repo_entry_is_folder(&e))
        rc = judge_folder(t, &e, &c, err);
    return rc;
}

/* Twins need a new name to come about, so most pushes never look for them. */
static memfs_code pop_beside(vet *t, memfs_error *err)
{
    beside *b = &t->besides[t->n_besides - 1];
    memfs_code rc = MEMFS_OK;

    if (b->has_new_name)
        rc = policy_siblings(t->p, str_make(t->path.ptr, b->path_len), b->raw,
                             b->n_known > 0 ? b->known[0].raw : MEMFS_STR(""), err);
    beside_dispose(b);
    t->n_besides--;
    return rc;
}

memfs_code vet_tree(vet *t, const memfs_oid *tree, const memfs_oid *known, size_t n_known,
                             memfs_error *err)
{
    memfs_code rc;

    for (size_t i = 0; i < n_known; i++)
        if (oid_equal(tree, &known[i]))
            return MEMFS_OK;
    buf_clear(&t->path);
    rc = push_beside(t, tree, known, n_known, err);
    while (rc == MEMFS_OK && t->n_besides > 0) {
        beside *b = &t->besides[t->n_besides - 1];

        t->work += b->pos == 0 ? b->raw.len / 64 : 0; /* passing equal entries over costs too */
        rc = b->pos < b->raw.len ? step_beside(t, err) : pop_beside(t, err);
    }
    return rc;
}
