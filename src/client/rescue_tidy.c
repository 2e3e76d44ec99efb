#include "client/rescue_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * Dropping what was kept in vain.  Judging takes a walk through histories and is done without any
 * lock; dropping is short and is done under rescue.lock, which the hook holds (shared) while it
 * keeps something.
 *
 * What could go wrong: a branch that contains the tip is being moved away just now.  git calls the
 * hook while it holds <ref>.lock, and keeps that until the ref has moved.  So under rescue.lock:
 *
 *   1. no branch is locked and packed-refs is not   else nothing is dropped this time
 *   2. the branches are where they were when we judged   else nothing is dropped
 *   3. drop
 *
 * A transaction that locks a branch after 1 has its hook wait for rescue.lock until we are through,
 * and the hook then keeps the tip again; one that locked it before 1 is seen by 1 or has moved the
 * branch, which 2 sees.
 *
 * What the hook leaves behind when it is killed is a file "rescue-<pid>-<time>" in our notes; after
 * an hour it is removed.
 */

#define LOCK_PATIENCE_MS 200
#define FOLD_AT 16 /* refs */
#define MAX_FOLDED 2000
#define LEFTOVER_S 3600

static const memfs_oid EMPTY_TREE = {
    { 0x4b, 0x82, 0x5d, 0xc6, 0x42, 0xcb, 0x6e, 0xb9, 0xa0, 0x60,
      0xe5, 0x4b, 0xf8, 0xd6, 0x92, 0x88, 0xfb, 0xee, 0x49, 0x04 }
};

static memfs_code wait_for_lock(checkout *c, fs_lock *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_note_path(c, "rescue.lock");

    return fs_lock_wait(path, clock_mono_ms() + LOCK_PATIENCE_MS, ret, err);
}

/* Is a branch locked, or packed-refs?  An answer that cannot be found out is yes. */
static bool is_moving(checkout *c)
{
    _cleanup_(mem_freep) char *packed = mem_printf("%s/packed-refs.lock", checkout_common_dir(c));
    _cleanup_(mem_freep) char *heads = mem_printf("%s/refs/heads", checkout_common_dir(c));
    char *roots[] = { heads, NULL };
    bool found = fs_exists(packed);
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
    FTSENT *at;

    if (tree == NULL)
        return true;
    while (!found && (errno = 0, at = fts_read(tree)) != NULL)
        found = str_ends_with(str_of(at->fts_name), MEMFS_STR(".lock")) ||
                at->fts_info == FTS_DNR || at->fts_info == FTS_ERR;
    found = found || errno != 0;
    fts_close(tree);
    return found;
}

static bool are_equal(const rescue_tips *a, const rescue_tips *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->at, b->at, a->n * sizeof(*a->at)) == 0);
}

static memfs_code may_drop(checkout *c, const rescue_tips *judged_by, bool *ret, memfs_error *err)
{
    _cleanup_(rescue_tips_dispose) rescue_tips now = { NULL, 0 };
    memfs_code rc;

    *ret = false;
    if (is_moving(c))
        return MEMFS_OK;
    rc = rescue_branches(c, &now, err);
    if (rc == MEMFS_OK)
        *ret = are_equal(&now, judged_by);
    return rc;
}

/* folding */

static memfs_code fold_commit(checkout *c, const rescues *all, const bool *is_in, memfs_oid *ret,
                              memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf message = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_oid *parents = mem_alloc((all->n + 1) * sizeof(*parents));
    store_identity who = { "memfs", "memfs@localhost", 0 };
    memfs_code rc;
    size_t n = 0;

    buf_puts(&message, "memfs: rescued tips\n\n");
    for (size_t i = 0; i < all->n; i++) {
        const rescue *at = &all->at[i];
        char hex[MEMFS_OID_HEX + 1];

        if (!is_in[i])
            continue;
        oid_hex(&at->id, hex);
        buf_printf(&message, "%s %lld %s\n", hex, (long long)at->time_ms, at->branch);
        who.time_s = at->time_ms / 1000 > who.time_s ? at->time_ms / 1000 : who.time_s;
        parents[n++] = at->id;
    }
    rc = checkout_commit_tree(c, &EMPTY_TREE, parents, n, &who, message.ptr, ret, err);
    free(parents);
    return rc;
}

/* The folded ref then lists exactly those that are `in`; with none of them it goes. */
static memfs_code fold(checkout *c, const rescues *all, const bool *is_in, memfs_error *err)
{
    memfs_oid old = { { 0 } }, folded;
    bool has_any = false;
    memfs_code rc = checkout_ref(c, RESCUE_FOLDED, &old, err);

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    for (size_t i = 0; i < all->n; i++)
        has_any = has_any || is_in[i];
    if (!has_any)
        return oid_is_zero(&old)
                   ? MEMFS_OK
                   : checkout_ref_move(c, RESCUE_FOLDED, &old, NULL, "memfs: none", err);
    rc = fold_commit(c, all, is_in, &folded, err);
    if (rc == MEMFS_OK && !oid_equal(&folded, &old))
        rc = checkout_ref_move(c, RESCUE_FOLDED, &old, &folded, "memfs: folded", err);
    return rc;
}

static bool is_folded(const rescue *r)
{
    return strcmp(r->ref, RESCUE_FOLDED) == 0;
}

static memfs_code drop_refs(checkout *c, const rescues *all, const bool *is_gone, memfs_error *err)
{
    for (size_t i = 0; i < all->n; i++) {
        const rescue *at = &all->at[i];
        memfs_code rc;

        if (!is_gone[i] || is_folded(at))
            continue;
        rc = checkout_ref_move(c, at->ref, &at->id, NULL, "memfs: kept elsewhere", err);
        if (rc < 0 && rc != MEMFS_ENOTFOUND && rc != MEMFS_ECONFLICT) /* somebody else dropped it */
            return rc;
    }
    return MEMFS_OK;
}

/*
 * is_lost says for each what must stay.  First the folded ref gets what it is to hold, then refs
 * go: in between everything is held twice.
 */
static memfs_code apply(checkout *c, const rescues *all, const bool *is_lost, size_t n_left,
                        memfs_error *err)
{
    bool folds = n_left > FOLD_AT && n_left <= MAX_FOLDED;
    bool *is_in = mem_alloc((all->n + 1) * sizeof(*is_in));
    bool *is_gone = mem_alloc((all->n + 1) * sizeof(*is_gone));
    memfs_code rc;

    for (size_t i = 0; i < all->n; i++) {
        is_in[i] = is_lost[i] && (folds || is_folded(&all->at[i]));
        is_gone[i] = !is_lost[i] || folds;
    }
    rc = fold(c, all, is_in, err);
    if (rc == MEMFS_OK)
        rc = drop_refs(c, all, is_gone, err);
    free(is_in);
    free(is_gone);
    return rc;
}

/* what a killed hook left */
static void sweep(checkout *c)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/memfs", checkout_common_dir(c));
    DIR *dir = opendir(folder);
    struct dirent *at;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        struct stat st;

        if (strncmp(at->d_name, "rescue-", 7) == 0 &&
            fstatat(dirfd(dir), at->d_name, &st, 0) == 0 && st.st_mtime + LEFTOVER_S < time(NULL))
            unlinkat(dirfd(dir), at->d_name, 0);
    }
    if (dir != NULL)
        closedir(dir);
}

static memfs_code drop_in_turn(checkout *c, const rescues *all, const rescue_tips *judged_by,
                               const bool *is_lost, size_t n_left, memfs_error *err)
{
    _cleanup_(fs_unlock) fs_lock lock = FS_LOCK_INIT;
    bool may = false;
    memfs_code rc = wait_for_lock(c, &lock, err);

    if (rc == MEMFS_EUNAVAIL)
        return MEMFS_OK; /* the next time will do */
    if (rc == MEMFS_OK)
        rc = may_drop(c, judged_by, &may, err);
    return rc == MEMFS_OK && may ? apply(c, all, is_lost, n_left, err) : rc;
}

memfs_code rescue_tidy(checkout *c, size_t *ret_n_left, memfs_error *err)
{
    _cleanup_(rescue_tips_dispose) rescue_tips branches = { NULL, 0 };
    _cleanup_(rescues_dispose) rescues all = RESCUES_INIT;
    memfs_code rc = rescue_gather(c, false, &all, err);
    size_t n_left = 0, n_refs = 0;
    bool *is_lost;

    *ret_n_left = all.n;
    if (rc == MEMFS_OK)
        rc = rescue_mark_kept(c, err);
    if (rc < 0 || all.n == 0)
        return rc;
    rc = rescue_branches(c, &branches, err);
    if (rc < 0)
        return rc;
    is_lost = mem_alloc(all.n * sizeof(*is_lost));
    rescue_judge(c, &all, &branches);
    for (size_t i = 0; i < all.n; i++) {
        is_lost[i] = all.at[i].n_lost > 0;
        n_left += is_lost[i];
        n_refs += is_lost[i] && !is_folded(&all.at[i]);
    }
    sweep(c);
    if (n_left < all.n || (n_refs > FOLD_AT && n_left <= MAX_FOLDED))
        rc = drop_in_turn(c, &all, &branches, is_lost, n_left, err);
    *ret_n_left = n_left;
    free(is_lost);
    return rc;
}
