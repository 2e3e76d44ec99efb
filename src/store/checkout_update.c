#include "store/checkout_update_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Working tree, index and branch from one commit to a later one:
 *
 *   1. flock <git dir>/memfs/update.lock: one memfs at a time; finish what another left
 *   2. index.lock (gitlock.h): no git changes the index or the branch that is checked out
 *   3. look: on main, at `from`, calm, nothing changed; every file that will change is as committed
 *   4. the new versions into <git dir>/memfs/stage-<token>/, synced
 *   5. the journal <git dir>/memfs/updating, synced:   from <id> / to <id> / stage <name>
 *   6. file by file into place (checkout_update_files.c)
 *   7. the new index into index.lock, synced
 *   8. main moves, by compare-and-swap      <- from here on the update has happened
 *   9. index.lock becomes the index
 *  10. the journal goes, then the staging folder
 *
 * What fails up to 8 is taken back file by file.  After a crash the journal is there: if main is
 * at `to`,
 * 9 and 10 are done again; if it is at `from`, 6 is taken back; if it is elsewhere, somebody went
 * on with what he found, and only what is in no commit is kept.  Whatever happens, bytes that are
 * neither in `from` nor in `to` end up at their path or under refs/memfs/rescue/working-tree/
 * (F31).
 *
 * A journal without a staging folder, or the reverse, is the beginning or the end of a crash: both
 * orders above make sure that it has nothing to tell.
 */

static void release(fs_lock *lock)
{
    fs_unlock(lock);
}

static memfs_code take_turn(const checkout *c, fs_lock *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_own_note_path(c, "update.lock");
    memfs_code rc = fs_lock_wait(path, clock_mono_ms() + CHECKOUT_LOCK_WAIT_MS, ret, err);

    if (rc == MEMFS_EUNAVAIL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "another memfs is changing these files");
    return rc;
}

/* the journal */

static memfs_code journal_write(const update_plan *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_own_note_path(p->c, "updating");
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16384);
    char from[MEMFS_OID_HEX + 1], to[MEMFS_OID_HEX + 1];

    assert(p->stage_path != NULL);
    oid_hex(&p->from, from);
    oid_hex(&p->to, to);
    buf_printf(&text, "from %s\nto %s\nstage %s\n", from, to, strrchr(p->stage_path, '/') + 1);
    return fs_write_atomic(path, buf_str(&text), 0600, err);
}

static bool take_field(memfs_str *text, const char *name, memfs_str *ret)
{
    size_t len = strlen(name);

    if (!str_starts_with(*text, str_of(name)) || text->len <= len || text->ptr[len] != ' ')
        return false;
    return str_split(str_from(*text, len + 1), '\n', ret, text);
}

#define STAGE_IN_TREE ".memfs-stage-"

static char *stage_path_of(const checkout *c, memfs_str name)
{
    _cleanup_(mem_freep) char *copy = mem_strndup(name.ptr, name.len);

    if (strchr(copy, '/') != NULL || !str_starts_with(name, MEMFS_STR(STAGE_IN_TREE)))
        return checkout_own_note_path(c, copy);
    return mem_printf("%s/%s", c->work_tree, copy);
}

/* ENOTFOUND: there is none. */
static memfs_code journal_read(update_plan *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_own_note_path(p->c, "updating");
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(16384);
    memfs_code rc = fs_read(path, &text, err);
    memfs_str rest = buf_str(&text), from, to, stage;

    if (rc < 0)
        return rc;
    if (!take_field(&rest, "from", &from) || !oid_parse(from, &p->from) ||
        !take_field(&rest, "to", &to) || !oid_parse(to, &p->to) ||
        !take_field(&rest, "stage", &stage))
        return memfs_fail(err, MEMFS_ECORRUPT, "the journal 'memfs/updating' cannot be read");
    p->stage_path = stage_path_of(p->c, stage);
    return MEMFS_OK;
}

static memfs_code journal_remove(const checkout *c, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = checkout_own_note_path(c, "updating");
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

    if (unlink(path) < 0 && errno != ENOENT)
        return memfs_fail_errno(err, "could not remove the journal");
    return fs_sync_dir(folder, err);
}

/* the staging folder */

/* Beside the journal; in the working tree only if that is on another file system. */
static memfs_code make_stage(update_plan *p, memfs_error *err)
{
    _cleanup_(mem_freep) char *notes = checkout_own_note_path(p->c, "stage");
    uint8_t random[6];
    struct stat git, tree;
    char hex[13];

    hash_random(random, sizeof(random));
    hash_hex(random, sizeof(random), hex);
    if (stat(p->c->git_dir, &git) < 0 || fstat(p->root, &tree) < 0)
        return memfs_fail_errno(err, "could not look at the repository");
    p->stage_path = git.st_dev == tree.st_dev
                        ? mem_printf("%s-%s", notes, hex)
                        : mem_printf("%s/" STAGE_IN_TREE "%s", p->c->work_tree, hex);
    if (mkdir(p->stage_path, 0700) < 0)
        return memfs_fail_errno(err, "could not make a staging folder");
    p->stage = open(p->stage_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return p->stage >= 0 ? MEMFS_OK : memfs_fail_errno(err, "could not open the staging folder");
}

static void sweep_stages_in(const char *folder, const char *prefix)
{
    DIR *dir = opendir(folder);
    struct dirent *at;
    memfs_error ignored;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, at->d_name);

        if (strncmp(at->d_name, prefix, strlen(prefix)) == 0 && fs_remove_tree(path, &ignored) < 0)
            break; /* it is tried again */
    }
    if (dir != NULL)
        closedir(dir);
}

/* Those that a crash left before their journal was written: nothing was touched from them. */
static void sweep_stages(const checkout *c)
{
    _cleanup_(mem_freep) char *notes = mem_printf("%s/memfs", c->git_dir);

    sweep_stages_in(notes, "stage-");
    sweep_stages_in(notes, "updating.tmp-"); /* a journal that never came to be */
    sweep_stages_in(c->work_tree, STAGE_IN_TREE);
}

/* after a crash */

static memfs_code read_main(const checkout *c, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = checkout_ref(c, STORE_MAIN, ret, err);

    if (rc == MEMFS_ENOTFOUND)
        memset(ret, 0, sizeof(*ret));
    return rc == MEMFS_ENOTFOUND ? MEMFS_OK : rc;
}

static memfs_code finish_index(update_plan *p, checkout_index *x, gitlock *lock, memfs_error *err)
{
    memfs_code rc = update_plan_index(p, x->index, err);

    if (rc == MEMFS_OK)
        rc = checkout_index_write(p->c, x->index, lock, err);
    return rc;
}

/*
 * main is at `to`: the files are in place.  If the index is still the old one it gets the new
 * entries; if a git has written it since, putting the same entries again does no harm unless they
 * were changed there.
 */
static memfs_code go_on(update_plan *p, checkout_index *x, gitlock *lock, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    bool is_old = false;

    for (size_t i = 0; i < p->n && !is_old; i++) {
        const file_change *change = &p->at[i];
        const git_index_entry *e = git_index_get_bypath(x->index, change->path, 0);
        memfs_oid id = { { 0 } };

        if (e != NULL)
            repo_memfs_oid(&e->id, &id);
        is_old = change->has_old ? oid_equal(&id, &change->old_id) && e->mode == change->old_mode
                                 : e == NULL;
    }
    if (is_old)
        rc = finish_index(p, x, lock, err);
    if (rc == MEMFS_OK && is_old)
        rc = gitlock_commit(lock, err);
    return rc;
}

static memfs_code settle(update_plan *p, checkout_index *x, gitlock *lock, memfs_error *err)
{
    memfs_oid now;
    memfs_code rc = read_main(p->c, &now, err);

    if (rc == MEMFS_OK && oid_equal(&now, &p->to))
        rc = go_on(p, x, lock, err);
    else if (rc == MEMFS_OK && oid_equal(&now, &p->from))
        rc = update_take_back(p, err);
    if (rc == MEMFS_OK)
        rc = update_clear_stage(p, err);
    return rc == MEMFS_OK ? journal_remove(p->c, err) : rc;
}

static memfs_code recover_locked(checkout *c, gitlock *lock, bool *ret_did, memfs_error *err)
{
    _cleanup_(update_plan_dispose) update_plan p = UPDATE_PLAN_INIT;
    _cleanup_(checkout_index_dispose) checkout_index x = CHECKOUT_INDEX_INIT;
    memfs_code rc;

    p.c = c;
    rc = journal_read(&p, err);
    if (rc == MEMFS_ENOTFOUND) {
        sweep_stages(c);
        return MEMFS_OK;
    }
    if (rc < 0)
        return rc;
    *ret_did = true;
    p.stage = open(p.stage_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (p.stage < 0 && errno != ENOENT)
        return memfs_fail_errno(err, "could not open the staging folder");
    rc = checkout_index_read(c, &x, err);
    if (rc == MEMFS_OK)
        rc = update_plan_make(&p, x.index, err);
    return rc == MEMFS_OK ? settle(&p, &x, lock, err) : rc;
}

/* Locks of the dead are cleared away even where there is no journal. */
static void heal_common(const checkout *c)
{
    _cleanup_(mem_freep) char *config = mem_printf("%s/config", c->common_dir);
    _cleanup_(mem_freep) char *twins = mem_printf("%s.memfs-", config);
    _cleanup_(mem_freep) char *registrations = mem_printf("%s/memfs/worktree", c->common_dir);

    checkout_heal_refs(c);
    gitlock_heal(config, twins);
    gitlock_sweep(twins);
    checkout_sweep_stages(registrations);
}

/* "<twin>.new" and its lock (checkout_index_write), when the twin is gone. */
static void sweep_index_copy(const char *folder, const char *name)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
    _cleanup_(mem_freep) char *twin = mem_strndup(path, (size_t)(strstr(path, ".new") - path));

    if (!fs_exists(twin))
        unlink(path);
}

/* What the dead left of their work on the index; says if an update left something too. */
static bool sweep_notes(const checkout *c)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/memfs", c->git_dir);
    DIR *dir = opendir(folder);
    struct dirent *at;
    bool has_update = false;

    while (dir != NULL && (at = readdir(dir)) != NULL) {
        if (strncmp(at->d_name, "index-", 6) == 0 && strstr(at->d_name, ".new") != NULL)
            sweep_index_copy(folder, at->d_name);
        has_update = has_update || strncmp(at->d_name, "updating", 8) == 0 ||
                     strncmp(at->d_name, "stage-", 6) == 0;
    }
    if (dir != NULL)
        closedir(dir);
    return has_update;
}

memfs_code checkout_recover(checkout *c, bool *ret_did, memfs_error *err)
{
    _cleanup_(release) fs_lock turn = FS_LOCK_INIT;
    _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
    _cleanup_(mem_freep) char *index = mem_printf("%s/index", c->git_dir);
    _cleanup_(mem_freep) char *twins = mem_printf("%s/memfs/index-", c->git_dir);
    memfs_code rc;

    *ret_did = false;
    heal_common(c);
    if (c->work_tree == NULL)
        return MEMFS_OK;
    gitlock_heal(index, twins);
    gitlock_sweep(twins);
    if (!sweep_notes(c))
        return MEMFS_OK; /* nearly always */
    rc = take_turn(c, &turn, err);
    if (rc == MEMFS_OK)
        rc = checkout_index_lock(c, &lock, err);
    return rc == MEMFS_OK ? recover_locked(c, &lock, ret_did, err) : rc;
}

/* the update */

static memfs_code check_state(update_plan *p, const checkout_state *s, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    if (s->is_detached)
        return memfs_fail(err, MEMFS_ECONFLICT, "HEAD is detached");
    if (strcmp(s->branch, "main") != 0)
        return memfs_fail(err, MEMFS_ECONFLICT, "the branch '%.100s' is checked out, not main",
                          s->branch);
    if (s->operation != CHECKOUT_CALM)
        return memfs_fail(err, MEMFS_ECONFLICT, "a %s is in progress",
                          s->operation == CHECKOUT_MERGING     ? "merge"
                          : s->operation == CHECKOUT_REBASING  ? "rebase"
                          : s->operation == CHECKOUT_BISECTING ? "bisect"
                                                               : "cherry-pick or revert");
    oid_hex(&s->head, hex);
    if (!s->has_head || !oid_equal(&s->head, &p->from))
        return memfs_fail(err, MEMFS_ECONFLICT, "main has moved to %.12s", s->has_head ? hex : "");
    if (s->n_changed > 0)
        return update_in_the_way(p, s->first_changed, "has changes that are not committed", err);
    return MEMFS_OK;
}

static memfs_code check_descends(const update_plan *p, memfs_error *err)
{
    bool is_later;
    memfs_code rc = repo_is_ancestor(p->c->r, &p->from, &p->to, &is_later, err);

    if (rc == MEMFS_OK && !is_later)
        return memfs_fail(err, MEMFS_EINVALID,
                          "a memory only goes forward, to commits that contain "
                          "what is there");
    return rc;
}

static void count(const update_plan *p, checkout_update_report *ret)
{
    for (size_t i = 0; i < p->n; i++) {
        const file_change *change = &p->at[i];

        ret->n_written += change->on_disk_new && !change->is_taken;
        ret->n_removed += change->on_disk_old && !change->on_disk_new;
        if (!change->has_new || change->on_disk_new ||
            (change->new_mode != TREE_MODE_LINK && change->new_mode != TREE_MODE_GITLINK))
            continue;
        if (ret->n_left++ == 0)
            snprintf(ret->first_left, sizeof(ret->first_left), "%s", change->path);
    }
}

/* 7 and 8.  The lock holds the new index when main moves. */
static memfs_code move_main(update_plan *p, checkout_index *x, gitlock *lock, const char *why,
                            memfs_error *err)
{
    memfs_code rc = finish_index(p, x, lock, err);

    return rc == MEMFS_OK ? checkout_ref_move(p->c, STORE_MAIN, &p->from, &p->to, why, err) : rc;
}

/* From 5 on, whatever happens ends in a state that the journal does not have to tell of any more.
 * */
static memfs_code apply(update_plan *p, checkout_index *x, gitlock *lock, const char *why,
                        memfs_error *err)
{
    memfs_error second;
    memfs_oid now;
    memfs_code rc = journal_write(p, err);

    if (rc == MEMFS_OK)
        rc = update_apply(p, err);
    if (rc == MEMFS_OK)
        rc = move_main(p, x, lock, why, err);
    if (rc == MEMFS_OK || (read_main(p->c, &now, &second) == MEMFS_OK && oid_equal(&now, &p->to))) {
        rc = gitlock_commit(lock, err);
        if (rc < 0)
            return rc; /* checkout_recover goes on from here */
    } else if (update_take_back(p, &second) < 0) {
        return rc; /* the same */
    }
    if (update_clear_stage(p, &second) < 0 || journal_remove(p->c, &second) < 0)
        return rc; /* the same */
    return rc;
}

static memfs_code prepare(update_plan *p, checkout_index *x, memfs_error *err)
{
    memfs_code rc = checkout_index_read(p->c, x, err);

    if (rc == MEMFS_OK)
        rc = update_plan_make(p, x->index, err);
    if (rc == MEMFS_OK)
        rc = update_plan_check(p, err);
    if (rc == MEMFS_OK)
        rc = make_stage(p, err);
    if (rc == MEMFS_OK)
        rc = update_stage(p, err);
    return rc;
}

static memfs_code update_locked(update_plan *p, gitlock *lock, const char *why,
                                checkout_update_report *ret, memfs_error *err)
{
    _cleanup_(checkout_index_dispose) checkout_index x = CHECKOUT_INDEX_INIT;
    checkout_state state;
    memfs_error ignored;
    memfs_code rc = checkout_inspect(p->c, &state, err);

    if (rc == MEMFS_OK)
        rc = check_state(p, &state, err);
    if (rc == MEMFS_OK)
        rc = check_descends(p, err);
    if (rc < 0 || oid_equal(&p->from, &p->to))
        return rc;
    rc = prepare(p, &x, err);
    if (rc < 0) {
        if (p->stage_path != NULL && fs_remove_tree(p->stage_path, &ignored) < 0)
            return rc; /* swept by the next one */
        return rc;
    }
    rc = apply(p, &x, lock, why, err);
    if (rc == MEMFS_OK)
        count(p, ret);
    return rc;
}

static memfs_code update_tree(update_plan *p, const char *why, checkout_update_report *ret,
                              memfs_error *err)
{
    _cleanup_(release) fs_lock turn = FS_LOCK_INIT;
    _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
    bool ignored;
    memfs_code rc = take_turn(p->c, &turn, err);

    if (rc == MEMFS_OK)
        rc = checkout_index_lock(p->c, &lock, err);
    if (rc == MEMFS_OK)
        rc = recover_locked(p->c, &lock, &ignored, err);
    if (rc == MEMFS_OK && lock.fd < 0) /* the recovery used it up */
        rc = checkout_index_lock(p->c, &lock, err);
    return rc == MEMFS_OK ? update_locked(p, &lock, why, ret, err) : rc;
}

memfs_code checkout_update(checkout *c, const memfs_oid *from, const memfs_oid *to, const char *why,
                           checkout_update_report *ret, memfs_error *err)
{
    _cleanup_(update_plan_dispose) update_plan p = UPDATE_PLAN_INIT;
    memfs_code rc;

    memset(ret, 0, sizeof(*ret));
    p.c = c;
    p.from = *from;
    p.to = *to;
    p.in_the_way = ret->in_the_way;
    if (c->work_tree != NULL)
        return update_tree(&p, why, ret, err);
    rc = check_descends(&p, err);
    return rc == MEMFS_OK ? checkout_ref_move(c, STORE_MAIN, from, to, why, err) : rc;
}
