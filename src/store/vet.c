#include "store/incoming_int.h"

#include "base/mem.h"
#include "store/oidmap.h"

#include <stdlib.h>

/*
 * What a push must fulfil beyond what git has checked, judged in the quarantine:
 *
 *   1. objects   none is banned; no commit, tree or tag is too large to be loaded (T13).  Every object
 *                of the pack is looked at, also what no commit reaches: protocol v2 would serve it.
 *   2. history   the tip is a commit; base is reachable from it; dates are sane.  base is reachable
 *                exactly if it is the tip or the parent of a new commit, so this costs nothing more
 *                than listing the new commits.
 *   3. trees     every new commit against its parents and against base: only what is in none of them
 *                at the same path is judged, by policy.c.  So what an import brought along once does
 *                not stop later pushes, and the cost follows the change (T11).
 *   4. totals    of the tip, from those of base and the difference (T14, T15).
 *
 * Trees are graphs: 800 bytes of them can hold 10^10 paths.  A folder that is new as a whole is
 * therefore summed up once for its id (facts: how many entries, bytes, how deep, how long its paths)
 * and only looked up when it comes again.  Folders with a counterpart are walked beside it, which is
 * bounded by the counterpart's own entries.  No walk recurses (T16).
 */

#define MAX_NEW_COMMITS 10000
#define MAX_WORK 20000000 /* entries looked at in one push */
#define MAX_KNOWN 4       /* base and up to three parents */

/* A whole folder, everything below it included; counts stop growing far above any limit. */
typedef struct facts {
    uint64_t n_entries, bytes;
    uint32_t depth;     /* of folders below it */
    uint32_t path_len;  /* longest path below it */
    bool is_judged;     /* by policy; false: only summed up */
} facts;

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
    known_side known[MAX_KNOWN];
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

typedef struct vet {
    repo *r;
    const incoming_vetting *v;
    const policy *p;
    memfs_oid base_tree;
    memfs_buf path;
    beside *besides;
    size_t n_besides;
    whole *wholes;
    size_t n_wholes;
    oidmap by_id; /* tree -> place in memo */
    facts *memo;
    size_t n_memo, cap_memo;
    uint64_t work;
    bool judges; /* false while only totals are wanted */
} vet;

static void beside_dispose(beside *b)
{
    git_odb_object_free(b->object);
    for (size_t i = 0; i < b->n_known; i++)
        git_odb_object_free(b->known[i].object);
}

static void unwind(vet *t)
{
    while (t->n_besides > 0)
        beside_dispose(&t->besides[--t->n_besides]);
    while (t->n_wholes > 0)
        git_odb_object_free(t->wholes[--t->n_wholes].object);
}

static void vet_dispose(vet *t)
{
    unwind(t);
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
    if (++t->work <= MAX_WORK)
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EDENIED,
                      "the push changes too much at once; push in smaller steps");
}

/* 1. objects */

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(memfs_oid));
}

static memfs_code check_banned(const incoming_vetting *v, const memfs_oid *id, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    if (v->n_banned == 0 ||
        bsearch(id, v->banned, v->n_banned, sizeof(*v->banned), compare_ids) == NULL)
        return MEMFS_OK;
    oid_hex(id, hex);
    return memfs_fail(err, MEMFS_EDENIED,
                      "object %s was purged from this memory; rebase your commits on its new "
                      "history, without it",
                      hex);
}

typedef struct object_check {
    repo *r;
    const incoming_vetting *v;
    memfs_error *err;
} object_check;

static memfs_code check_object(repo *r, const incoming_vetting *v, const memfs_oid *id,
                               memfs_error *err)
{
    memfs_code rc = check_banned(v, id, err);
    git_object_t type;
    uint64_t bytes;

    if (rc == MEMFS_OK)
        rc = repo_header(r, id, &type, &bytes, err);
    if (rc < 0 || type == GIT_OBJECT_BLOB)
        return rc;
    if (bytes > (type == GIT_OBJECT_TREE ? OBJECT_MAX_TREE_BYTES : OBJECT_MAX_COMMIT_BYTES))
        return memfs_fail(err, MEMFS_EDENIED, "a %s of %llu bytes is too large",
                          type == GIT_OBJECT_TREE ? "folder" : "commit",
                          (unsigned long long)bytes);
    return MEMFS_OK;
}

static int check_packed(const git_oid *oid, void *ctx)
{
    object_check *c = ctx;
    memfs_oid id;

    repo_memfs_oid(oid, &id);
    return check_object(c->r, c->v, &id, c->err) < 0 ? GIT_EUSER : 0;
}

static memfs_code check_objects(repo *r, const char *pack_index, const incoming_vetting *v,
                                memfs_error *err)
{
    object_check c = { r, v, err };
    git_odb_backend *pack;
    git_odb *odb = NULL;
    int rc;

    err->code = MEMFS_OK;
    rc = git_odb_new(&odb);
    if (rc == 0)
        rc = git_odb_backend_one_pack(&pack, pack_index);
    if (rc == 0)
        rc = git_odb_add_backend(odb, pack, 1);
    if (rc == 0)
        rc = git_odb_foreach(odb, check_packed, &c);
    git_odb_free(odb);
    if (rc == 0 || err->code != MEMFS_OK)
        return err->code;
    return store_fail_git(err, rc, "could not list the objects of the push");
}

/* 3a. whole folders */

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

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    const uint64_t cap = UINT64_MAX / 4;

    return a + b > cap ? cap : a + b;
}

/* What one entry, with all that is below it, adds to its folder. */
static void sum_up(facts *sum, memfs_str name, const facts *below, uint64_t bytes)
{
    uint32_t path_len = (uint32_t)name.len;

    sum->n_entries = add_capped(sum->n_entries, 1);
    sum->bytes = add_capped(sum->bytes, bytes);
    if (below != NULL) {
        sum->n_entries = add_capped(sum->n_entries, below->n_entries);
        sum->bytes = add_capped(sum->bytes, below->bytes);
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

/* Size of a file, by its header.  Links and (lenient) submodules have none that counts. */
static memfs_code file_bytes(vet *t, memfs_str folder, const tree_entry *e, uint64_t *ret,
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
        rc = check_banned(t->v, &e->id, err);
    if (rc < 0 || repo_entry_is_folder(e))
        return rc;
    rc = file_bytes(t, folder, e, ret_bytes, err);
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

/* The facts of a folder whose path (with its final '/', or empty) is in t->path. */
static memfs_code sum_whole(vet *t, const memfs_oid *id, facts *ret, memfs_error *err)
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

/* 3b. folders with a counterpart */

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
    memfs_oid folders[MAX_KNOWN];
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
    rc = sum_whole(t, &e->id, &sum, err);
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

static memfs_code judge_tree(vet *t, const memfs_oid *tree, const memfs_oid *known, size_t n_known,
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

/* 2. history */

typedef struct commit_list {
    git_oid *at;
    size_t n, cap;
} commit_list;

static void commit_list_dispose(commit_list *list)
{
    free(list->at);
}

static memfs_code collect(git_revwalk *walk, commit_list *list, memfs_error *err)
{
    git_oid id;
    int rc;

    while ((rc = git_revwalk_next(&id, walk)) == 0) {
        if (list->n == MAX_NEW_COMMITS)
            return memfs_fail(err, MEMFS_EDENIED,
                              "more than %d new commits; push in smaller steps", MAX_NEW_COMMITS);
        if (list->n == list->cap) {
            list->cap = list->cap ? list->cap * 2 : 16;
            list->at = mem_realloc(list->at, list->cap, sizeof(*list->at));
        }
        list->at[list->n++] = id;
    }
    return rc == GIT_ITEROVER ? MEMFS_OK : store_fail_git(err, rc, "could not list the commits");
}

static memfs_code list_new(const vet *t, commit_list *list, memfs_error *err)
{
    git_revwalk *walk = NULL;
    git_oid base, tip;
    memfs_code code;
    int rc;

    repo_git_oid(t->v->base, &base);
    repo_git_oid(t->v->tip, &tip);
    rc = git_revwalk_new(&walk, t->r->view);
    if (rc == 0)
        rc = git_revwalk_push(walk, &tip);
    if (rc == 0)
        rc = git_revwalk_hide(walk, &base);
    code = rc == 0 ? collect(walk, list, err)
                   : store_fail_git(err, rc, "could not list the commits");
    git_revwalk_free(walk);
    return code;
}

static memfs_code check_tip(const vet *t, memfs_error *err)
{
    git_object_t type;
    uint64_t bytes;
    memfs_code rc = repo_header(t->r, t->v->tip, &type, &bytes, err);

    if (rc == MEMFS_ECORRUPT)
        return memfs_fail(err, MEMFS_EDENIED, "the new tip of the branch was not sent");
    if (rc == MEMFS_OK && type != GIT_OBJECT_COMMIT)
        return memfs_fail(err, MEMFS_EDENIED, "the new tip of the branch is no commit");
    return rc;
}

static void git_commit_freep(git_commit **commit)
{
    git_commit_free(*commit);
}

static memfs_code look_up(const vet *t, const git_oid *id, git_commit **ret, memfs_error *err)
{
    int rc = git_commit_lookup(ret, t->r->view, id);

    return rc == 0 ? MEMFS_OK : store_fail_git(err, rc, "could not read a new commit");
}

static memfs_code check_history(vet *t, const commit_list *list, memfs_error *err)
{
    bool meets_base = false;
    git_oid base;

    repo_git_oid(t->v->base, &base);
    for (size_t i = 0; i < list->n; i++) {
        _cleanup_(git_commit_freep) git_commit *commit = NULL;
        memfs_code rc = look_up(t, &list->at[i], &commit, err);

        if (rc == MEMFS_OK)
            rc = policy_commit_dates(t->p, git_commit_author(commit)->when.time,
                                     git_commit_committer(commit)->when.time, err);
        if (rc < 0)
            return rc;
        for (unsigned k = 0; k < git_commit_parentcount(commit); k++)
            meets_base = meets_base || git_oid_equal(git_commit_parent_id(commit, k), &base);
    }
    if (!meets_base)
        return memfs_fail(err, MEMFS_EDENIED, "non-fast-forward");
    return MEMFS_OK;
}

static memfs_code judge_commit(vet *t, const git_oid *id, memfs_error *err)
{
    _cleanup_(git_commit_freep) git_commit *commit = NULL;
    memfs_oid known[MAX_KNOWN] = { t->base_tree }, parent, tree;
    size_t n_known = 1;
    memfs_code rc = look_up(t, id, &commit, err);

    for (unsigned k = 0; rc == MEMFS_OK && n_known < MAX_KNOWN && k < git_commit_parentcount(commit);
         k++) {
        repo_memfs_oid(git_commit_parent_id(commit, k), &parent);
        if (oid_equal(&parent, t->v->base))
            continue;
        rc = repo_tree_of_commit(t->r, &parent, &known[n_known++], err);
    }
    if (rc < 0)
        return rc;
    repo_memfs_oid(git_commit_tree_id(commit), &tree);
    return judge_tree(t, &tree, known, n_known, err);
}

/* 4. totals */

static size_t totals_slot_of(const memfs_oid *tree)
{
    return (size_t)(tree->id[0] << 8 | tree->id[1]) % TOTALS_SLOTS;
}

static bool totals_recall(store *s, const memfs_oid *tree, tree_totals *ret)
{
    const totals_slot *slot = &s->totals[totals_slot_of(tree)];
    bool found;

    pthread_mutex_lock(&s->mutex);
    found = oid_equal(&slot->tree, tree);
    if (found)
        *ret = slot->totals;
    pthread_mutex_unlock(&s->mutex);
    return found;
}

static void totals_remember(store *s, const memfs_oid *tree, const tree_totals *totals)
{
    pthread_mutex_lock(&s->mutex);
    s->totals[totals_slot_of(tree)] = (totals_slot){ *tree, *totals };
    pthread_mutex_unlock(&s->mutex);
}

/* From nothing: every folder below once. */
static memfs_code totals_in_full(vet *t, const memfs_oid *tree, tree_totals *ret, memfs_error *err)
{
    facts sum;
    memfs_code rc;

    unwind(t);
    buf_clear(&t->path);
    t->judges = false;
    rc = sum_whole(t, tree, &sum, err);
    if (rc == MEMFS_OK)
        *ret = (tree_totals){ sum.n_entries, sum.bytes };
    return rc;
}

typedef struct delta {
    vet *t;
    uint64_t entries_in, entries_out, bytes_in, bytes_out;
} delta;

static memfs_code weigh(vet *t, const memfs_oid *id, uint32_t mode, uint64_t *entries,
                        uint64_t *bytes, memfs_error *err)
{
    tree_entry e = { .mode = mode, .name = MEMFS_STR("?"), .id = *id };
    uint64_t size = 0;
    facts sum = { 0 };
    memfs_code rc;

    rc = repo_entry_is_folder(&e) ? sum_whole(t, id, &sum, err)
                                  : file_bytes(t, MEMFS_STR(""), &e, &size, err);
    *entries = add_capped(*entries, 1 + sum.n_entries);
    *bytes = add_capped(*bytes, size + sum.bytes);
    return rc;
}

static memfs_code add_change(const tree_change *c, void *ctx, memfs_error *err)
{
    delta *d = ctx;
    memfs_code rc = MEMFS_OK;

    if (c->has_old)
        rc = weigh(d->t, &c->old_id, c->old_mode, &d->entries_out, &d->bytes_out, err);
    if (rc == MEMFS_OK && c->has_new)
        rc = weigh(d->t, &c->new_id, c->new_mode, &d->entries_in, &d->bytes_in, err);
    return rc;
}

static memfs_code totals_by_delta(vet *t, const memfs_oid *tree, const tree_totals *base,
                                  tree_totals *ret, memfs_error *err)
{
    delta d = { .t = t };
    memfs_code rc;

    buf_clear(&t->path);
    t->judges = false;
    rc = repo_diff_trees(t->r, &t->base_tree, tree, t->p, add_change, &d, err);
    if (rc < 0)
        return rc;
    ret->n_entries = add_capped(base->n_entries, d.entries_in) - d.entries_out;
    ret->bytes = add_capped(base->bytes, d.bytes_in) - d.bytes_out;
    return MEMFS_OK;
}

/* A memory that was over a limit before (an import) may be pushed to as long as it does not grow. */
static memfs_code check_totals(vet *t, memfs_error *err)
{
    tree_totals base = { 0, 0 }, now;
    memfs_error ignored;
    memfs_oid tree;
    memfs_code rc;
    bool has_base;

    rc = repo_tree_of_commit(t->r, t->v->tip, &tree, err);
    if (rc < 0)
        return rc;
    has_base = totals_recall(t->r->s, &t->base_tree, &base);
    if (!has_base && totals_in_full(t, &t->base_tree, &base, &ignored) == MEMFS_OK) {
        has_base = true;
        totals_remember(t->r->s, &t->base_tree, &base);
    }
    if (!has_base || totals_by_delta(t, &tree, &base, &now, &ignored) < 0)
        rc = totals_in_full(t, &tree, &now, err);
    if (rc == MEMFS_OK && (now.n_entries > base.n_entries || now.bytes > base.bytes))
        rc = policy_totals(t->p, now.n_entries, now.bytes, err);
    if (rc == MEMFS_OK)
        totals_remember(t->r->s, &tree, &now);
    return rc;
}

/* all of it */

static memfs_code judge_push(vet *t, memfs_error *err)
{
    _cleanup_(commit_list_dispose) commit_list list = { NULL, 0, 0 };
    memfs_code rc = check_tip(t, err);

    if (rc == MEMFS_OK)
        rc = list_new(t, &list, err);
    if (rc == MEMFS_OK)
        rc = check_history(t, &list, err);
    if (rc == MEMFS_OK)
        rc = repo_tree_of_commit(t->r, t->v->base, &t->base_tree, err);
    for (size_t i = 0; rc == MEMFS_OK && i < list.n; i++)
        rc = judge_commit(t, &list.at[i], err);
    return rc == MEMFS_OK ? check_totals(t, err) : rc;
}

memfs_code vet_push(repo *view, const char *pack_index, const incoming_vetting *v,
                    memfs_error *err)
{
    _cleanup_(vet_dispose) vet t = { .r = view,
                                     .v = v,
                                     .p = v->policy,
                                     .path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                                     .by_id = OIDMAP_INIT,
                                     .judges = true };
    memfs_code rc = MEMFS_OK;

    if (pack_index != NULL)
        rc = check_objects(view, pack_index, v, err);
    if (rc < 0 || oid_equal(v->tip, v->base))
        return rc;
    t.besides = mem_alloc((v->policy->max_depth + 1) * sizeof(*t.besides));
    t.wholes = mem_alloc((v->policy->max_depth + 1) * sizeof(*t.wholes));
    return judge_push(&t, err);
}
