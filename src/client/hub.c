#include "client/hub.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "memory/ids.h"
#include "store/checkout.h"
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
    int64_t deadline_ms = clock_mono_ms() + LOCK_PATIENCE_MS;
    memfs_code rc;

    while ((rc = fs_lock_take(path, ret, err)) == MEMFS_EUNAVAIL && clock_mono_ms() < deadline_ms)
        clock_sleep_ms(5);
    return rc;
}

/* The address of a mount lies beside the memory's. False: this remote has no shared repositories.
 * */
static bool mount_url(const char *memory_url, const char *name, char **ret)
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

static void try_fetch(const settings *s, const char *agent_id, const char *name, const char *staged,
                      int64_t budget_ms)
{
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    _cleanup_(place_dispose) place at = PLACE_INIT;
    _cleanup_(mem_freep) char *url = NULL;
    transport_report report = { .said = "" };
    memfs_error e = MEMFS_ERROR_INIT;
    transport_target target;

    if (place_of(s, agent_id, &at, &e) < 0 || backend_choose(s, &at, &choice, &e) < 0 ||
        !choice.has_remote)
        return;
    remote_transport_target(&choice.target, &target);
    if (name != NULL && !(choice.is_letta && mount_url(target.url, name, &url)))
        return;
    if (url != NULL)
        target.url = url;
    if (transport_fetch(staged, &target, INCOMING, clock_mono_ms() + budget_ms, &report, &e) ==
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

memfs_code hub_prepare(const settings *s, const char *agent_id, const char *name, int64_t budget_ms,
                       memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL, *folder = NULL, *lock_path = NULL;
    _cleanup_(fs_unlock) fs_lock lock = FS_LOCK_INIT;
    memfs_code rc;

    if (!ids_is_agent(str_of(agent_id)))
        return memfs_fail(err, MEMFS_EINVALID, "'%.80s' is no id of an agent", agent_id);
    path = hub_path(s, agent_id, name);
    if (is_made(path))
        return MEMFS_OK;
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
