#include "store/checkout_update_int.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * The plan is a function of the two commits, of core.symlinks and of the marks "skip-worktree" in
 * the index, which nobody changes while we hold its lock.  So it need not be written down: after a
 * crash it is made again, and the n-th change is the n-th file of the staging folder.
 */

#define MAX_DEPTH 128
#define MAX_FILES 500000

void update_plan_dispose(update_plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->at[i].path);
    free(p->at);
    free(p->stage_path);
    if (p->root >= 0)
        close(p->root);
    if (p->stage >= 0)
        close(p->stage);
    *p = (update_plan)UPDATE_PLAN_INIT;
}

memfs_code update_in_the_way(update_plan *p, const char *path, const char *why, memfs_error *err)
{
    if (p->in_the_way != NULL && p->in_the_way[0] == '\0')
        snprintf(p->in_the_way, 256, "%s", path);
    return memfs_fail(err, MEMFS_ECONFLICT, "'%.200s' %s", path, why);
}

/* making */

static bool is_file(const checkout *c, uint32_t mode)
{
    return (mode & 0170000) == 0100000 || (mode == TREE_MODE_LINK && !c->has_links);
}

/* What was written as a link by git may be taken away; it is never written. */
static bool is_file_or_link(uint32_t mode)
{
    return (mode & 0170000) == 0100000 || mode == TREE_MODE_LINK;
}

/* Names that a file system, or a later git, could take for something else (T12). */
static memfs_code check_names(const policy *p, memfs_str path, uint32_t mode, memfs_error *err)
{
    size_t begin = 0;
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i <= path.len; i++) {
        tree_entry e = { i < path.len ? TREE_MODE_FOLDER : mode,
                         str_make(path.ptr + begin, i - begin),
                         { { 0 } } };

        if (i < path.len && path.ptr[i] != '/')
            continue;
        if (i == begin) /* "/etc" as the name of one entry */
            return policy_refuse(err, MEMFS_STR(""), path, "this name is reserved; choose another");
        rc = policy_entry(p, str_make(path.ptr, begin), &e, err);
        begin = i + 1;
    }
    return rc;
}

static policy lenient(void)
{
    policy p = POLICY_INIT;

    p.lenient = true; /* what git accepted is in the history; only harm is refused */
    p.max_depth = MAX_DEPTH;
    p.max_entries = MAX_FILES;
    p.max_path_bytes = 4000;
    return p;
}

static memfs_code add_change(const tree_change *t, void *ctx, memfs_error *err)
{
    update_plan *p = ctx;
    policy rules = lenient();
    file_change *change;

    if (t->has_new && check_names(&rules, t->path, t->new_mode, err) < 0)
        return err->code;
    if ((p->n & (p->n - 1)) == 0)
        p->at = mem_realloc(p->at, p->n == 0 ? 1 : p->n * 2, sizeof(*p->at));
    change = &p->at[p->n++];
    *change = (file_change){ .path = mem_strndup(t->path.ptr, t->path.len),
                             .has_old = t->has_old,
                             .has_new = t->has_new,
                             .old_id = t->old_id,
                             .new_id = t->new_id,
                             .old_mode = t->old_mode,
                             .new_mode = t->new_mode };
    change->on_disk_old = t->has_old && is_file_or_link(t->old_mode);
    change->on_disk_new = t->has_new && is_file(p->c, t->new_mode);
    return MEMFS_OK;
}

/*
 * What the user told git not to have in the working tree is not put there.  A link that bears the
 * mark is ours: it has no file, and a file that takes its place is written.
 */
static void leave_skipped(update_plan *p, git_index *index)
{
    for (size_t i = 0; i < p->n; i++) {
        const git_index_entry *e = git_index_get_bypath(index, p->at[i].path, 0);

        if (e == NULL || !(e->flags_extended & GIT_INDEX_ENTRY_SKIP_WORKTREE))
            continue;
        p->at[i].on_disk_old = false;
        if ((p->at[i].old_mode & 0170000) == 0100000)
            p->at[i].on_disk_new = false;
    }
}

memfs_code update_plan_make(update_plan *p, git_index *index, memfs_error *err)
{
    policy rules = lenient();
    const memfs_oid *from = oid_is_zero(&p->from) ? NULL : &p->from;
    memfs_code rc = repo_diff(p->c->r, from, &p->to, &rules, add_change, p, err);

    if (rc == MEMFS_OK)
        leave_skipped(p, index);
    if (p->root < 0)
        p->root = open(p->c->work_tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == MEMFS_OK && p->root < 0)
        return memfs_fail_errno(err, "could not open the working tree");
    return rc;
}

/* checking */

/* Is there a change that takes this away?  Changes are sorted by path. */
static bool is_going(const update_plan *p, const char *path)
{
    size_t low = 0, high = p->n;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(p->at[middle].path, path);

        if (order == 0)
            return p->at[middle].on_disk_old && !p->at[middle].on_disk_new;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* A part of the way that is neither a folder nor about to go. */
static memfs_code check_way(update_plan *p, const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *part = mem_strdup(path);

    for (char *at = strchr(part, '/'); at != NULL; at = strchr(at + 1, '/')) {
        const char *name;
        struct stat st;
        int folder;

        *at = '\0';
        folder = update_folder(p, part, false, &name);
        if (folder < 0)
            return MEMFS_OK; /* not there at all: it will be made */
        if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode) &&
            !is_going(p, part)) {
            close(folder);
            return update_in_the_way(p, part, "is in the way of a folder", err);
        }
        close(folder);
        *at = '/';
    }
    return MEMFS_OK;
}

static memfs_code check_change(update_plan *p, file_change *change, memfs_error *err)
{
    const char *name;
    bool is_there, is_equal = false;
    struct stat st;
    int folder;
    memfs_code rc = check_way(p, change->path, err);

    if (rc < 0 || (!change->on_disk_new && !change->on_disk_old))
        return rc;
    folder = update_folder(p, change->path, false, &name);
    is_there = folder >= 0 && fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (change->on_disk_old && is_there)
        rc =
            checkout_file_is(p->c, folder, name, change->old_mode, &change->old_id, &is_equal, err);
    else if (is_there && S_ISREG(st.st_mode))
        rc =
            checkout_file_is(p->c, folder, name, change->new_mode, &change->new_id, &is_equal, err);
    if (folder >= 0)
        close(folder);
    if (rc < 0)
        return rc;
    if (change->on_disk_old && !is_equal)
        return update_in_the_way(p, change->path, "has changes that are not committed", err);
    if (change->on_disk_old || !is_there || S_ISDIR(st.st_mode))
        return MEMFS_OK; /* a folder whose files all go is removed with them */
    if (!is_equal)
        return update_in_the_way(p, change->path, "is in the way and is not committed", err);
    change->is_taken = true;
    return MEMFS_OK;
}

memfs_code update_plan_check(update_plan *p, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < p->n; i++)
        rc = check_change(p, &p->at[i], err);
    return rc;
}

/* the index */

/*
 * Stat data only of a file that is the one we put there: git takes it for unchanged without a
 * look.  All zero makes git (and us) compare the bytes.
 */
static void stat_of_ours(const update_plan *p, const file_change *change, git_index_entry *e)
{
    const char *name;
    struct stat st;
    int folder = update_folder(p, change->path, false, &name);

    if (folder < 0)
        return;
    if (change->ino != 0 && fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(st.st_mode) && st.st_ino == change->ino)
        checkout_entry_stat(e, &st);
    close(folder);
}

static memfs_code put_entry(update_plan *p, const file_change *change, git_index *index,
                            memfs_error *err)
{
    git_index_entry e = { .mode = change->new_mode, .path = change->path };

    if (e.mode != TREE_MODE_LINK && e.mode != TREE_MODE_GITLINK)
        e.mode = (e.mode & S_IXUSR) ? TREE_MODE_EXEC : TREE_MODE_FILE; /* as git reads 100664 */
    repo_git_oid(&change->new_id, &e.id);
    if (change->on_disk_new)
        stat_of_ours(p, change, &e);
    else
        e.flags_extended = GIT_INDEX_ENTRY_SKIP_WORKTREE;
    if (e.flags_extended != 0)
        e.flags |= GIT_INDEX_ENTRY_EXTENDED;
    if (git_index_add(index, &e) < 0)
        return memfs_fail(err, MEMFS_EDENIED, "git does not take the name '%.200s'", change->path);
    return MEMFS_OK;
}

memfs_code update_plan_index(update_plan *p, git_index *index, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; i < p->n; i++) /* first: a file may stand where a folder was */
        if (p->at[i].has_old && !p->at[i].has_new &&
            git_index_get_bypath(index, p->at[i].path, 0) != NULL &&
            git_index_remove(index, p->at[i].path, 0) < 0)
            return store_fail_git(err, -1, "could not remove '%.200s'", p->at[i].path);
    for (size_t i = 0; rc == MEMFS_OK && i < p->n; i++)
        if (p->at[i].has_new)
            rc = put_entry(p, &p->at[i], index, err);
    return rc;
}
