#include "mirror/mirror_int.h"

#include "base/pool.h"
#include "store/rewrite.h"

/*
 * A commit that this server lacks, and that the one that had it cannot give any more, may be on a
 * remote: it was mirrored.  It is judged already, by the server that took it; what else the remote
 * has stays in the throw-away repository.
 */

static bool bring_from(mirror *m, const remote_set *set, const remote_config *c, const char *agent_id,
                       fetched *f, const memfs_oid *want, int64_t deadline_ms)
{
    _cleanup_(remote_target_dispose) remote_target target = REMOTE_TARGET_INIT;
    transport_report report = { .said = "" };
    transport_target to;
    memfs_error ignored;
    memfs_oid main;
    repo *r;

    if (remote_config_target(set->r, c, agent_id, &target, &ignored) < 0)
        return false;
    remote_transport_target(&target, &to);
    if (fetched_fetch(f, &to, STORE_MAIN, home_settings(mirror_home(m))->max_pack_bytes * 4,
                      deadline_ms, &main, &report, &ignored) < 0)
        return false;
    r = fetched_repo(f);
    return r != NULL && repo_has(r, want);
}

bool mirror_bring(mirror *m, const char *agent_id, fetched *f, const memfs_oid *want,
                  int64_t deadline_ms)
{
    remote_set *set = mirror_remotes(m);
    bool is_here = false;

    pool_wait_begin();
    for (size_t i = 0; !is_here && i < set->r->n && !mirror_is_stopping(m); i++)
        is_here = remote_is_for(&set->r->at[i], agent_id) &&
                  bring_from(m, set, &set->r->at[i], agent_id, f, want, deadline_ms);
    pool_wait_end();
    mirror_remotes_unref(m, set);
    return is_here;
}
