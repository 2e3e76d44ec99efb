#include "client/turn.h"

#include "base/clock.h"
#include "base/mem.h"

#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STALE_S 2
#define SWEEP_MS 4000

static void read_found(turn *t)
{
    ssize_t n = pread(t->lock.fd, t->found, sizeof(t->found) - 1, 0);

    t->found[n > 0 ? n : 0] = '\0';
}

memfs_code turn_take(const char *path, int64_t deadline_ms, turn *ret, memfs_error *err)
{
    memfs_code rc = fs_lock_wait(path, deadline_ms, &ret->lock, err);

    if (rc == MEMFS_OK)
        read_found(ret);
    return rc;
}

memfs_code turn_begin(turn *t, const char *state, memfs_error *err)
{
    size_t n;

    if (state == NULL && t->has_begun)
        return MEMFS_OK;
    state = state != NULL ? state : "working";
    n = strlen(state);
    t->has_begun = true;
    if (ftruncate(t->lock.fd, 0) < 0 || pwrite(t->lock.fd, state, n, 0) != (ssize_t)n)
        return memfs_fail_errno(err, "could not write the journal of this memory");
    return MEMFS_OK;
}

memfs_code turn_sync(const turn *t, memfs_error *err)
{
    if (fsync(t->lock.fd) < 0)
        return memfs_fail_errno(err, "could not sync the journal of this memory");
    return MEMFS_OK;
}

memfs_code turn_end(turn *t, memfs_error *err)
{
    if (!t->has_begun && !turn_was_killed(t))
        return MEMFS_OK;
    if (ftruncate(t->lock.fd, 0) < 0)
        return memfs_fail_errno(err, "could not write the journal of this memory");
    t->has_begun = false;
    t->found[0] = '\0';
    return MEMFS_OK;
}

void turn_leave(turn *t)
{
    fs_unlock(&t->lock);
}

/* One look at everything below a folder; true when a lock is too young to be judged. */
static bool sweep_below(const char *folder, bool is_deep)
{
    char *roots[] = { (char *)folder, NULL };
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    bool is_waiting = false;
    FTSENT *at;

    while (tree != NULL && (at = fts_read(tree)) != NULL) {
        time_t age = time(NULL) - (at->fts_info == FTS_F ? at->fts_statp->st_mtime : 0);

        if (at->fts_info == FTS_D && at->fts_level > 0 && !is_deep)
            fts_set(tree, at, FTS_SKIP);
        if (at->fts_info != FTS_F || !str_ends_with(str_of(at->fts_name), MEMFS_STR(".lock")) ||
            strcmp(at->fts_name, "index.lock") == 0)
            continue;
        if (age >= STALE_S || age < -60)
            unlink(at->fts_path);
        else
            is_waiting = true;
    }
    if (tree != NULL)
        fts_close(tree);
    return is_waiting;
}

void turn_sweep(const char *git_dir)
{
    _cleanup_(mem_freep) char *refs = mem_printf("%s/refs", git_dir);
    int64_t until_ms = clock_mono_ms() + SWEEP_MS;
    bool is_waiting;

    for (;;) {
        is_waiting = sweep_below(git_dir, false);
        is_waiting = sweep_below(refs, true) || is_waiting;
        if (!is_waiting || clock_mono_ms() >= until_ms)
            return;
        clock_sleep_ms(50);
    }
}
