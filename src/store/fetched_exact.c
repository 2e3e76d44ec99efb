#include "store/fetched_int.h"

#include "base/mem.h"
#include "memory/policy.h"
#include "store/history.h"
#include "store/oidmap.h"

#include <git2/sys/odb_backend.h>
#include <stdlib.h>

/*
 * A walk over all that the tips reach, each object once, that ends at the first one that is neither
 * in the pack nor among the few of base.  Nothing stops it at what base has: whether that is
 * complete is not known here.  Where as many were met in the pack as there are in it, they are the
 * same ones, as both are sets.
 *
 * Files are not opened: whoever indexed the pack has read them all, and fsck'ed them.
 */

#define MAX_OBJECTS 20000 /* of the pack; more are better counted by git pack-objects */
#define MAX_BASE 256      /* a young memory, or all that a sidecar ever said */

typedef enum kind { COMMIT, TREE, FILE_OF_ANY_MODE } kind;

typedef struct counting {
    repo *view, *base;
    git_odb *pack;
    size_t n_packed;      /* in the pack */
    size_t n_met, n_base; /* of those, and of base's, so far */
    oidmap seen;          /* as which kind */
    struct {
        memfs_oid id;
        kind kind;
    } *open;              /* what they hold is not met yet */
    size_t n_open, cap_open;
} counting;

static void dispose(counting *c)
{
    git_odb_free(c->pack);
    oidmap_dispose(&c->seen);
    free(c->open);
}

static int count_one(const git_oid *id, void *ctx)
{
    counting *c = ctx;

    (void)id;
    return ++c->n_packed > MAX_OBJECTS ? GIT_EUSER : 0;
}

static bool open_pack(counting *c, const char *pack_index)
{
    git_odb_backend *backend;

    if (git_odb_new(&c->pack) < 0 || git_odb_backend_one_pack(&backend, pack_index) < 0)
        return false;
    if (git_odb_add_backend(c->pack, backend, 1) < 0) {
        backend->free(backend);
        return false;
    }
    return git_odb_foreach(c->pack, count_one, c) == 0;
}

static bool is_in(git_odb *odb, const memfs_oid *id)
{
    git_oid oid;

    repo_git_oid(id, &oid);
    return git_odb_exists(odb, &oid) == 1;
}

static void put_open(counting *c, const memfs_oid *id, kind kind)
{
    if (c->n_open == c->cap_open) {
        c->cap_open = c->cap_open > 0 ? 2 * c->cap_open : 64;
        c->open = mem_realloc(c->open, c->cap_open, sizeof(*c->open));
    }
    c->open[c->n_open].id = *id;
    c->open[c->n_open++].kind = kind;
}

/* False: it is nowhere, or is met as two things, or more is reached than came. */
static bool meet(counting *c, const memfs_oid *id, kind kind)
{
    size_t before;

    if (oidmap_get(&c->seen, id, &before))
        return before == kind;
    oidmap_put(&c->seen, id, kind);
    if (c->pack != NULL && is_in(c->pack, id))
        c->n_met++;
    else if (++c->n_base > MAX_BASE || !is_in(c->base->odb, id))
        return false;
    if (kind != FILE_OF_ANY_MODE)
        put_open(c, id, kind);
    return true;
}

static bool go_into_commit(counting *c, const memfs_oid *id)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_error ignored;

    if (repo_commit_info(c->view, id, &info, &ignored) < 0 || !meet(c, &info.tree, TREE))
        return false;
    for (size_t i = 0; i < info.n_parents; i++)
        if (!meet(c, &info.parents[i], COMMIT))
            return false;
    return true;
}

static bool go_into_tree(counting *c, const memfs_oid *id)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_error ignored;
    bool is_bad = false;
    size_t pos = 0;
    tree_entry e;

    if (repo_read_tree(c->view, id, &object, &ignored) < 0)
        return false;
    while (tree_next(repo_raw(object), &pos, &e, &is_bad)) {
        if (!repo_entry_is_gitlink(&e) &&
            !meet(c, &e.id, repo_entry_is_folder(&e) ? TREE : FILE_OF_ANY_MODE))
            return false;
    }
    return !is_bad;
}

static bool go_through(counting *c, const memfs_oid *tips, size_t n_tips)
{
    for (size_t i = 0; i < n_tips; i++)
        if (!meet(c, &tips[i], COMMIT))
            return false;
    while (c->n_open > 0) {
        memfs_oid id = c->open[--c->n_open].id;
        bool is_tree = c->open[c->n_open].kind == TREE;

        if (!(is_tree ? go_into_tree(c, &id) : go_into_commit(c, &id)))
            return false;
    }
    return c->n_met == c->n_packed;
}

bool fetched_is_exact(repo *view, const char *pack_index, repo *base, const memfs_oid *tips,
                      size_t n_tips)
{
    counting c = { .view = view, .base = base, .seen = OIDMAP_INIT };
    bool is_exact = (pack_index == NULL || open_pack(&c, pack_index)) &&
                    go_through(&c, tips, n_tips);

    dispose(&c);
    return is_exact;
}
