#include "store/browse.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/store_int.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * libgit2 on the real repository, beside the checkout's own handle: it reads the repository's
 * configuration and ignore files and nothing of the user's or the machine's (checkout_library
 * empties those search paths), and it has no notion of pagers, aliases or external programs.
 */

#define MAX_FILE (64u << 20)
#define MAX_DIFF_BYTES (1u << 20) /* larger files differ as binaries do */
#define MAX_PARENTS 16

struct browse {
    checkout *c;
    git_repository *git;
    char *name, *email;
};

/* ---- life cycle ---- */

memfs_code browse_open(checkout *c, browse **ret, memfs_error *err)
{
    const char *path = checkout_work_tree(c) != NULL ? checkout_work_tree(c) : checkout_git_dir(c);
    git_repository *git = NULL;
    browse *b;
    int rc = git_repository_open_ext(&git, path, GIT_REPOSITORY_OPEN_NO_SEARCH, NULL);

    if (rc < 0)
        return store_fail_git(err, rc, "could not open the repository");
    b = mem_alloc(sizeof(*b));
    b->c = c;
    b->git = git;
    *ret = b;
    return MEMFS_OK;
}

void browse_close(browse *b)
{
    if (b == NULL)
        return;
    git_repository_free(b->git);
    free(b->name);
    free(b->email);
    free(b);
}

void browse_closep(browse **b)
{
    browse_close(*b);
    *b = NULL;
}

void browse_identity(browse *b, store_identity *ret)
{
    git_signature *who = NULL;

    *ret = (store_identity){ "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    if (git_signature_default(&who, b->git) < 0)
        return;
    free(b->name);
    free(b->email);
    b->name = mem_strdup(who->name);
    b->email = mem_strdup(who->email);
    git_signature_free(who);
    ret->name = b->name;
    ret->email = b->email;
}

/* ---- finding commits ---- */

memfs_code browse_commit(browse *b, const char *rev, memfs_oid *ret, memfs_error *err)
{
    git_object *any = NULL, *commit = NULL;
    int rc = git_revparse_single(&any, b->git, rev);

    if (rc == 0)
        rc = git_object_peel(&commit, any, GIT_OBJECT_COMMIT);
    if (rc == 0)
        repo_memfs_oid(git_object_id(commit), ret);
    git_object_free(commit);
    git_object_free(any);
    if (rc == 0)
        return MEMFS_OK;
    if (rc == GIT_EAMBIGUOUS)
        return memfs_fail(err, MEMFS_EINVALID, "several commits begin with '%.100s'; write more of "
                          "the id", rev);
    return memfs_fail(err, MEMFS_ENOTFOUND, "there is no commit '%.100s' in this memory", rev);
}

static void walk_freep(git_revwalk **walk)
{
    git_revwalk_free(*walk);
}

static memfs_code start_walk(browse *b, const memfs_oid *from, const memfs_oid *without,
                             git_revwalk **ret, memfs_error *err)
{
    git_oid start, hidden;
    int rc = git_revwalk_new(ret, b->git);

    if (rc == 0)
        rc = git_revwalk_sorting(*ret, GIT_SORT_TOPOLOGICAL | GIT_SORT_TIME);
    repo_git_oid(from, &start);
    if (rc == 0)
        rc = git_revwalk_push(*ret, &start);
    if (rc == 0 && without != NULL) {
        repo_git_oid(without, &hidden);
        rc = git_revwalk_hide(*ret, &hidden);
    }
    return rc == 0 ? MEMFS_OK : store_fail_git(err, rc, "could not walk the history");
}

/* False at the end; a broken history is an error. */
static memfs_code walk_next(git_revwalk *walk, memfs_oid *ret, bool *ret_has, memfs_error *err)
{
    git_oid id;
    int rc = git_revwalk_next(&id, walk);

    *ret_has = rc == 0;
    if (rc == 0)
        repo_memfs_oid(&id, ret);
    return rc == 0 || rc == GIT_ITEROVER ? MEMFS_OK
                                         : store_fail_git(err, rc, "could not walk the history");
}

memfs_code browse_commit_at(browse *b, int64_t time_s, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(walk_freep) git_revwalk *walk = NULL;
    memfs_oid head, id;
    bool has = true;
    memfs_code rc = browse_commit(b, "HEAD", &head, err);

    if (rc == MEMFS_OK)
        rc = start_walk(b, &head, NULL, &walk, err);
    while (rc == MEMFS_OK && has) {
        _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;

        rc = walk_next(walk, &id, &has, err);
        if (rc == MEMFS_OK && has)
            rc = repo_commit_info(checkout_repo(b->c), &id, &info, err);
        if (rc == MEMFS_OK && has && info.committer_time_s <= time_s) {
            *ret = id;
            return MEMFS_OK;
        }
    }
    return rc < 0 ? rc : memfs_fail(err, MEMFS_ENOTFOUND, "this memory has no commit that is as old");
}

/* ---- what a commit changed ---- */

typedef struct paths {
    char **at;
    size_t n, cap;
} paths;

static void paths_dispose(paths *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->at[i]);
    free(p->at);
    *p = (paths){ NULL, 0, 0 };
}

static memfs_code add_path(const tree_change *change, void *ctx, memfs_error *err)
{
    paths *p = ctx;

    (void)err;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 16;
        p->at = mem_realloc(p->at, p->cap, sizeof(*p->at));
    }
    p->at[p->n++] = mem_strndup(change->path.ptr, change->path.len);
    return MEMFS_OK;
}

/*
 * Keeps of `all` what is in `other` too; both are sorted by git's order, which is the same for
 * both.
 */
static void intersect(paths *all, const paths *other)
{
    size_t kept = 0;

    for (size_t i = 0; i < all->n; i++) {
        bool is_in = false;

        for (size_t j = 0; j < other->n && !is_in; j++)
            is_in = strcmp(all->at[i], other->at[j]) == 0;
        if (is_in)
            all->at[kept++] = all->at[i];
        else
            free(all->at[i]);
    }
    all->n = kept;
}

static memfs_code changed_paths(browse *b, const memfs_oid *id, const commit_info *info, paths *ret,
                                memfs_error *err)
{
    const policy p = POLICY_INIT;
    memfs_code rc;

    rc = repo_diff(checkout_repo(b->c), info->n_parents > 0 ? &info->parents[0] : NULL, id, &p,
                   add_path, ret, err);
    for (size_t i = 1; rc == MEMFS_OK && i < info->n_parents && i < MAX_PARENTS; i++) {
        _cleanup_(paths_dispose) paths other = { NULL, 0, 0 };

        rc = repo_diff(checkout_repo(b->c), &info->parents[i], id, &p, add_path, &other, err);
        intersect(ret, &other);
    }
    return rc;
}

static bool is_at_or_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    while (len > 0 && folder[len - 1] == '/')
        len--;
    return len == 0 ||
           (strncmp(path, folder, len) == 0 && (path[len] == '\0' || path[len] == '/'));
}

static bool touches(const paths *changed, const char *path)
{
    for (size_t i = 0; i < changed->n; i++)
        if (is_at_or_below(changed->at[i], path))
            return true;
    return path == NULL;
}

memfs_code browse_log_between(browse *b, const memfs_oid *from, const memfs_oid *without,
                              const char *path, size_t limit, browse_log_fn fn, void *ctx,
                              memfs_error *err)
{
    _cleanup_(walk_freep) git_revwalk *walk = NULL;
    memfs_code rc = start_walk(b, from, without, &walk, err);
    bool has = true;
    size_t n = 0;

    while (rc == MEMFS_OK && (limit == 0 || n < limit)) {
        _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
        _cleanup_(paths_dispose) paths changed = { NULL, 0, 0 };
        browse_entry entry;

        rc = walk_next(walk, &entry.id, &has, err);
        if (rc < 0 || !has)
            break;
        rc = repo_commit_info(checkout_repo(b->c), &entry.id, &info, err);
        if (rc == MEMFS_OK)
            rc = changed_paths(b, &entry.id, &info, &changed, err);
        if (rc < 0 || (path != NULL && !touches(&changed, path)))
            continue;
        entry.info = &info;
        entry.paths = (const char *const *)changed.at;
        entry.n_paths = changed.n;
        rc = fn(&entry, ctx, err);
        n++;
    }
    return rc;
}

memfs_code browse_log(browse *b, const memfs_oid *from, const char *path, size_t limit,
                      browse_log_fn fn, void *ctx, memfs_error *err)
{
    return browse_log_between(b, from, NULL, path, limit, fn, ctx, err);
}

/* ---- differences ---- */

typedef struct differ {
    browse *b;
    const browse_span *span;
    const paths *only; /* NULL: all */
    browse_diff_fn fn;
    void *ctx;
} differ;

static void tree_freep(git_tree **tree)
{
    git_tree_free(*tree);
}

static void diff_freep(git_diff **diff)
{
    git_diff_free(*diff);
}

static memfs_code tree_of(browse *b, const memfs_oid *commit, git_tree **ret, memfs_error *err)
{
    memfs_oid tree;
    git_oid id;
    memfs_code rc;
    int number;

    if (commit == NULL)
        return MEMFS_OK; /* libgit2: no tree is the empty one */
    rc = repo_tree_of_commit(checkout_repo(b->c), commit, &tree, err);
    if (rc < 0)
        return rc;
    repo_git_oid(&tree, &id);
    number = git_tree_lookup(ret, b->git, &id);
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not read a commit's files");
}

static char status_of(const git_diff_delta *delta)
{
    switch (delta->status) {
    case GIT_DELTA_ADDED: return 'A';
    case GIT_DELTA_DELETED: return 'D';
    case GIT_DELTA_RENAMED: return 'R';
    case GIT_DELTA_UNTRACKED: return '?';
    case GIT_DELTA_CONFLICTED: return 'U';
    default: return 'M';
    }
}

static bool is_wanted(const differ *d, const git_diff_delta *delta)
{
    if (d->only == NULL)
        return true;
    for (size_t i = 0; i < d->only->n; i++)
        if (strcmp(d->only->at[i], delta->new_file.path) == 0 ||
            strcmp(d->only->at[i], delta->old_file.path) == 0)
            return true;
    return false;
}

static memfs_code tell_patch(differ *d, git_diff *diff, size_t i, const git_diff_delta *delta,
                             memfs_error *err)
{
    browse_change change = { .status = status_of(delta),
                             .path = str_of(delta->new_file.path),
                             .old_path = str_of(delta->old_file.path) };
    git_patch *patch = NULL;
    git_buf text = { NULL, 0, 0 };
    memfs_code rc;
    int number = git_patch_from_diff(&patch, diff, i);

    if (number == 0 && patch != NULL) {
        number = git_patch_line_stats(NULL, &change.n_added, &change.n_removed, patch);
        change.is_binary = (git_patch_get_delta(patch)->flags & GIT_DIFF_FLAG_BINARY) != 0;
        if (number == 0 && d->span->wants_patch)
            number = git_patch_to_buf(&text, patch);
    }
    if (number == 0) {
        change.patch = str_make(text.ptr != NULL ? text.ptr : "", text.size);
        rc = d->fn(&change, d->ctx, err);
    } else {
        rc = store_fail_git(err, number, "could not compare a file");
    }
    git_buf_dispose(&text);
    git_patch_free(patch);
    return rc;
}

static memfs_code compare(differ *d, git_diff **ret, memfs_error *err)
{
    _cleanup_(tree_freep) git_tree *old = NULL, *new = NULL;
    git_diff_options options = GIT_DIFF_OPTIONS_INIT;
    git_diff_find_options find = GIT_DIFF_FIND_OPTIONS_INIT;
    char *spec[1] = { (char *)d->span->path };
    memfs_code rc;
    int number;

    options.flags = GIT_DIFF_INCLUDE_UNTRACKED | GIT_DIFF_RECURSE_UNTRACKED_DIRS |
                    GIT_DIFF_SHOW_UNTRACKED_CONTENT | GIT_DIFF_DISABLE_PATHSPEC_MATCH |
                    GIT_DIFF_IGNORE_SUBMODULES;
    options.max_size = MAX_DIFF_BYTES;
    if (d->span->path != NULL && d->span->path[0] != '\0')
        options.pathspec = (git_strarray){ spec, 1 };
    rc = tree_of(d->b, d->span->old, &old, err);
    if (rc == MEMFS_OK)
        rc = tree_of(d->b, d->span->new, &new, err);
    if (rc < 0)
        return rc;
    number = d->span->new != NULL
                 ? git_diff_tree_to_tree(ret, d->b->git, old, new, &options)
                 : git_diff_tree_to_workdir_with_index(ret, d->b->git, old, &options);
    find.flags = GIT_DIFF_FIND_RENAMES;
    if (number == 0)
        number = git_diff_find_similar(*ret, &find);
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not compare the files");
}

static memfs_code run_diff(differ *d, memfs_error *err)
{
    _cleanup_(diff_freep) git_diff *diff = NULL;
    memfs_code rc = compare(d, &diff, err);

    for (size_t i = 0; rc == MEMFS_OK && i < git_diff_num_deltas(diff); i++) {
        const git_diff_delta *delta = git_diff_get_delta(diff, i);

        if (delta->status != GIT_DELTA_UNMODIFIED && is_wanted(d, delta))
            rc = tell_patch(d, diff, i, delta, err);
    }
    return rc;
}

memfs_code browse_diff(browse *b, const browse_span *span, browse_diff_fn fn, void *ctx,
                       memfs_error *err)
{
    differ d = { b, span, NULL, fn, ctx };

    return run_diff(&d, err);
}

memfs_code browse_diff_commit(browse *b, const memfs_oid *id, const char *path, bool wants_patch,
                              browse_diff_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    _cleanup_(paths_dispose) paths changed = { NULL, 0, 0 };
    browse_span span = { NULL, id, path, wants_patch };
    differ d = { b, &span, NULL, fn, ctx };
    memfs_code rc = repo_commit_info(checkout_repo(b->c), id, &info, err);

    if (rc < 0)
        return rc;
    if (info.n_parents > 0)
        span.old = &info.parents[0];
    if (info.n_parents > 1) {
        rc = changed_paths(b, id, &info, &changed, err);
        d.only = &changed;
    }
    return rc < 0 ? rc : run_diff(&d, err);
}

/* ---- files of a commit ---- */

static memfs_code find_entry(browse *b, const memfs_oid *commit, const char *path,
                             git_tree_entry **ret, memfs_error *err)
{
    _cleanup_(tree_freep) git_tree *tree = NULL;
    memfs_code rc = tree_of(b, commit, &tree, err);
    int number;

    if (rc < 0)
        return rc;
    number = git_tree_entry_bypath(ret, tree, path);
    if (number == GIT_ENOTFOUND)
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no '%.200s' in that commit", path);
    return number == 0 ? MEMFS_OK : store_fail_git(err, number, "could not read a commit's files");
}

bool browse_has(browse *b, const memfs_oid *commit, const char *path)
{
    memfs_error err = MEMFS_ERROR_INIT;
    git_tree_entry *entry = NULL;
    bool has = find_entry(b, commit, path, &entry, &err) == MEMFS_OK;

    git_tree_entry_free(entry);
    return has;
}

memfs_code browse_file(browse *b, const memfs_oid *commit, const char *path, memfs_buf *out,
                       memfs_error *err)
{
    git_tree_entry *entry = NULL;
    memfs_oid id;
    memfs_code rc = find_entry(b, commit, path, &entry, err);

    if (rc < 0)
        return rc;
    repo_memfs_oid(git_tree_entry_id(entry), &id);
    if (git_tree_entry_type(entry) != GIT_OBJECT_BLOB)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "'%.200s' is no file in that commit", path);
    git_tree_entry_free(entry);
    return rc < 0 ? rc : repo_blob(checkout_repo(b->c), &id, MAX_FILE, out, err);
}

typedef struct listing {
    const char *path;
    browse_file_fn fn;
    void *ctx;
    size_t n;
} listing;

static memfs_code list_file(const tree_change *change, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_strndup(change->path.ptr, change->path.len);
    listing *l = ctx;

    if (l->path != NULL && !is_at_or_below(path, l->path))
        return MEMFS_OK;
    l->n++;
    return l->fn(change->path, change->new_mode, &change->new_id, l->ctx, err);
}

memfs_code browse_files(browse *b, const memfs_oid *commit, const char *path, browse_file_fn fn,
                        void *ctx, memfs_error *err)
{
    const policy p = POLICY_INIT;
    listing l = { path, fn, ctx, 0 };
    memfs_code rc = repo_diff(checkout_repo(b->c), NULL, commit, &p, list_file, &l, err);

    if (rc == MEMFS_OK && l.n == 0 && path != NULL && path[0] != '\0')
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no '%.200s' in that commit", path);
    return rc;
}
