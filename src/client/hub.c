#include "client/hub.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "store/checkout.h"
#include "store/merge.h"
#include "store/vet.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * A hub is made beside its place and renamed into it when it is whole, under a lock that is taken
 * once an agent: of 32 clones of a new agent at once, one makes the hub and the others wait for it.
 * A hub that is there is never made again, whatever is in it.
 *
 *   $MEMFS_HOME/hub/<agent>.git                       the memory
 *   $MEMFS_HOME/hub/<agent>/repositories/<name>.git   a shared repository, by its mount
 *   <hub>.making, <hub>.lock                          while it is made
 *
 * An agent that is new here may have a memory elsewhere.  So one fetch is tried, for at most the
 * caller's budget; what it brings is judged as everything that comes from outside (store/vet.h) and
 * becomes main. Whatever goes wrong with that is no error: the hub begins with the genesis, which
 * all memories share, and the next sync merges.
 */

#define LOCK_PATIENCE_MS 20000
#define INCOMING "refs/memfs/incoming/hub"

char *hub_path(const settings *s, const char *agent_id, const char *name)
{
    const char *home = setting_text(s, SETTING_HOME);

    return name == NULL ? mem_printf("%s/hub/%s.git", home, agent_id)
                        : mem_printf("%s/hub/%s/repositories/%s.git", home, agent_id, name);
}

static bool is_made(const char *path)
{
    _cleanup_(mem_freep) char *head = mem_printf("%s/HEAD", path);

    return fs_exists(head);
}

bool hub_is_there(const settings *s, const char *agent_id)
{
    _cleanup_(mem_freep) char *path = hub_path(s, agent_id, NULL);

    return is_made(path);
}

/* making one */

static memfs_code wait_for_lock(const char *path, fs_lock *ret, memfs_error *err)
{
    return fs_lock_wait(path, clock_mono_ms() + LOCK_PATIENCE_MS, ret, err);
}

bool hub_mount_url(const char *memory_url, const char *name, char **ret)
{
    static const char state[] = "/state.git";
    size_t len = strlen(memory_url);

    if (len < sizeof(state) || strcmp(memory_url + len - strlen(state), state) != 0)
        return false;
    *ret = mem_printf("%.*s/repositories/%s.git", (int)(len - strlen(state)), memory_url, name);
    return true;
}

/* What the remote has becomes main of the staged hub. */
static memfs_code take_main(const char *staged, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    policy p = POLICY_INIT;
    memfs_oid main_tip, fetched;
    memfs_code rc = checkout_open(staged, &c, err);

    if (rc == MEMFS_OK)
        rc = checkout_ref(c, STORE_MAIN, &main_tip, err);
    if (rc == MEMFS_OK)
        rc = checkout_ref(c, INCOMING, &fetched, err);
    if (rc == MEMFS_OK)
        rc = vet_tip(checkout_repo(c), &fetched, NULL, 0, &p, err);
    if (rc == MEMFS_OK && !oid_equal(&main_tip, &fetched))
        rc = checkout_ref_move(c, STORE_MAIN, &main_tip, &fetched, "memfs: first fetch", err);
    if (rc == MEMFS_OK)
        rc = checkout_ref_move(c, INCOMING, &fetched, NULL, "memfs: first fetch", err);
    return rc;
}

/* Where the hub's other side is, with what it needs; the fields of target borrow from the rest. */
typedef struct other_side {
    backend_choice choice;
    place at;
    char *url;
    transport_target target;
} other_side;

static void other_side_dispose(other_side *o)
{
    free(o->url);
    backend_choice_dispose(&o->choice);
    place_dispose(&o->at);
}

static bool find_other_side(const settings *s, const char *agent_id, const char *name,
                            other_side *ret)
{
    memfs_error ignored;

    if (place_of(s, agent_id, &ret->at, &ignored) < 0 ||
        backend_choose(s, &ret->at, &ret->choice, &ignored) < 0 || !ret->choice.has_remote)
        return false;
    remote_transport_target(&ret->choice.target, &ret->target);
    if (name == NULL)
        return true;
    if (!ret->choice.is_letta || !hub_mount_url(ret->target.url, name, &ret->url))
        return false;
    ret->target.url = ret->url;
    return true;
}

static void try_fetch(const settings *s, const char *agent_id, const char *name, const char *staged,
                      int64_t budget_ms)
{
    _cleanup_(other_side_dispose) other_side o = { BACKEND_CHOICE_INIT, PLACE_INIT, NULL, { 0 } };
    transport_report report = { .said = "" };
    memfs_error e = MEMFS_ERROR_INIT;

    if (!find_other_side(s, agent_id, name, &o))
        return;
    if (transport_fetch(staged, &o.target, INCOMING, clock_mono_ms() + budget_ms, &report, &e) ==
            MEMFS_OK &&
        !report.is_empty)
        (void)!take_main(staged, &e);
}

static memfs_code make(const settings *s, const char *agent_id, const char *name, const char *path,
                       int64_t budget_ms, memfs_error *err)
{
    _cleanup_(mem_freep) char *staged = mem_printf("%s.making", path);
    memfs_code rc = fs_remove_tree(staged, err); /* of a process that was killed */

    if (rc == MEMFS_OK)
        rc = checkout_create(staged, true, err);
    if (rc < 0)
        return rc;
    if (budget_ms > 0)
        try_fetch(s, agent_id, name, staged, budget_ms);
    return fs_rename(staged, path, err);
}

/* bringing a mount's hub together with its other side */

/* main and what was fetched become one. */
static memfs_code merge_fetched(checkout *c, const memfs_oid *theirs, memfs_oid *ret_main,
                                memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    policy p = POLICY_INIT;
    memfs_oid ours;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &ours, err);

    if (rc == MEMFS_OK)
        rc = vet_tip(checkout_repo(c), theirs, &ours, 1, &p, err);
    if (rc == MEMFS_OK)
        rc = merge_commits(checkout_repo(c), &ours, theirs, &m, err);
    if (rc == MEMFS_OK && !oid_equal(&m.commit, &ours))
        rc = checkout_ref_move(c, STORE_MAIN, &ours, &m.commit, "memfs: merged", err);
    *ret_main = m.commit;
    return rc;
}

static memfs_code exchange(checkout *c, const char *path, const transport_target *target,
                           int64_t deadline_ms, memfs_error *err)
{
    transport_report report = { .said = "" };
    memfs_oid theirs = { { 0 } }, main_tip;
    memfs_code rc = transport_fetch(path, target, INCOMING, deadline_ms, &report, err);

    if (rc < 0)
        return rc;
    rc = checkout_ref(c, STORE_MAIN, &main_tip, err);
    if (rc == MEMFS_OK && !report.is_empty)
        rc = checkout_ref(c, INCOMING, &theirs, err);
    if (rc == MEMFS_OK && !report.is_empty)
        rc = merge_fetched(c, &theirs, &main_tip, err);
    if (rc == MEMFS_OK && !oid_equal(&main_tip, &theirs))
        rc = transport_push(path, target, &main_tip, deadline_ms, &report, err);
    return rc;
}

/* Best effort: whatever fails, the hub answers with what it has. */
static void refresh(const settings *s, const char *agent_id, const char *name, const char *path,
                    int64_t budget_ms)
{
    _cleanup_(other_side_dispose) other_side o = { BACKEND_CHOICE_INIT, PLACE_INIT, NULL, { 0 } };
    _cleanup_(mem_freep) char *lock_path = mem_printf("%s.lock", path);
    _cleanup_(fs_unlock) fs_lock lock = FS_LOCK_INIT;
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_error e = MEMFS_ERROR_INIT;

    if (find_other_side(s, agent_id, name, &o) &&
        fs_lock_take(lock_path, &lock, &e) == MEMFS_OK && /* else somebody is at it */
        checkout_open(path, &c, &e) == MEMFS_OK)
        (void)!exchange(c, path, &o.target, clock_mono_ms() + budget_ms, &e);
}

memfs_code hub_prepare(const settings *s, const char *agent_id, const char *name, int64_t budget_ms,
                       memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL, *folder = NULL, *lock_path = NULL;
    _cleanup_(fs_unlock) fs_lock lock = FS_LOCK_INIT;
    memfs_code rc;

    if (!ids_is_agent(str_of(agent_id)))
        return memfs_fail(err, MEMFS_EINVALID, "'%.80s' is no id of an agent", agent_id);
    path = hub_path(s, agent_id, name);
    if (is_made(path)) {
        if (name != NULL && budget_ms > 0)
            refresh(s, agent_id, name, path, budget_ms);
        return MEMFS_OK;
    }
    folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    lock_path = mem_printf("%s.lock", path);
    rc = fs_mkdirs(folder, err);
    if (rc == MEMFS_OK)
        rc = wait_for_lock(lock_path, &lock, err);
    if (rc == MEMFS_OK && !is_made(path))
        rc = make(s, agent_id, name, path, budget_ms, err);
    return rc < 0 ? memfs_context(err, "the local memory of '%s'", agent_id) : MEMFS_OK;
}

/* all of them */

static int is_hub(const struct dirent *at)
{
    memfs_str name = str_of(at->d_name);

    if (!str_ends_with(name, MEMFS_STR(".git")))
        return 0;
    name.len -= 4;
    return ids_is_agent(name);
}

static memfs_code visit(const char *folder, const char *file, hub_fn fn, void *ctx,
                        memfs_error *err)
{
    _cleanup_(mem_freep) char *agent_id = mem_strndup(file, strlen(file) - 4);
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, file);

    return is_made(path) ? fn(agent_id, path, ctx, err) : MEMFS_OK;
}

memfs_code hub_each(const settings *s, hub_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/hub", setting_text(s, SETTING_HOME));
    struct dirent **at = NULL;
    memfs_code rc = MEMFS_OK;
    int n = scandir(folder, &at, is_hub, alphasort);

    if (n < 0 && !fs_is_dir(folder))
        return MEMFS_OK;
    if (n < 0)
        return memfs_fail_errno(err, "could not list the hubs in '%s'", folder);
    for (int i = 0; i < n; i++) {
        if (rc == MEMFS_OK)
            rc = visit(folder, at[i]->d_name, fn, ctx, err);
        free(at[i]);
    }
    free(at);
    return rc;
}
