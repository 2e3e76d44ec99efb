#include "client/hub.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/converge.h"

/*
 * Many pushes into one hub at once, and one exchange with the remote at a time:
 *
 *   <hub>/memfs/push.lock        held by the one that is at work
 *   <hub>/memfs/push-next.lock   held by the one that waits for it
 *
 * Whoever finds both held may go: the one that waits has not looked at main yet, and the push that
 * started us is in it.  That holds because the second lock is let go only when the first is had,
 * and main is read after that.
 */

static char *lock_path(const settings *s, const place *p, const char *name, const char *file)
{
    _cleanup_(mem_freep) char *hub = hub_path(s, p->agent_id, name);

    return mem_printf("%s/memfs/%s", hub, file);
}

static memfs_code make_notes(const settings *s, const place *p, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *hub = hub_path(s, p->agent_id, name);
    _cleanup_(mem_freep) char *notes = mem_printf("%s/memfs", hub);

    if (!fs_is_dir(hub))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no hub at '%s'", hub);
    return fs_mkdirs(notes, err);
}

/* EUNAVAIL: others see to it. */
static memfs_code take_work(const settings *s, const place *p, const char *name, int64_t patience_ms,
                            fs_lock *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *work = lock_path(s, p, name, "push.lock");
    _cleanup_(mem_freep) char *next = lock_path(s, p, name, "push-next.lock");
    _cleanup_(fs_unlock) fs_lock waiting = FS_LOCK_INIT;
    memfs_code rc = fs_lock_take(next, &waiting, err);

    return rc < 0 ? rc : fs_lock_wait(work, clock_mono_ms() + patience_ms, ret, err);
}

void hub_push(const settings *s, const place *p, const char *name, int64_t budget_ms,
              client_report *ret)
{
    const converge_options how = { .budget_ms = budget_ms, .believe_memory = true };
    _cleanup_(fs_unlock) fs_lock work = FS_LOCK_INIT;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = make_notes(s, p, name, &err);

    if (rc == MEMFS_OK)
        rc = take_work(s, p, name, budget_ms, &work, &err);
    if (rc == MEMFS_OK)
        client_sync_hub(s, p, name, &how, ret);
    else if (rc != MEMFS_EUNAVAIL)
        ret->error = err;
}
