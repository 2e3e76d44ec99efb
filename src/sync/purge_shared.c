#include "sync/purge_shared.h"

#include "base/clock.h"
#include "base/mem.h"
#include "store/rewrite.h"
#include "sync/follow.h"
#include "sync/materialise.h"

static char *file_of(const home *h, const agent *a)
{
    _cleanup_(mem_freep) char *folder = agent_folder(h, a);

    return mem_printf("%s/purge", folder);
}

static memfs_code note_begun(home *h, agent *a, const memfs_oid *from, const memfs_oid *to,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *path = file_of(h, a), *text = NULL;
    char a_hex[MEMFS_OID_HEX + 1], b_hex[MEMFS_OID_HEX + 1];

    oid_hex(from, a_hex);
    oid_hex(to, b_hex);
    text = mem_printf("%s\n%s\n", a_hex, b_hex);
    return fs_write_atomic(path, str_of(text), 0600, err);
}

/* False: none was cut short. */
static bool was_begun(home *h, agent *a, memfs_oid *ret_from, memfs_oid *ret_to)
{
    _cleanup_(mem_freep) char *path = file_of(h, a);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_error ignored;
    memfs_str from, to, rest;

    return fs_exists(path) && fs_read(path, &text, &ignored) == MEMFS_OK &&
           str_split(buf_str(&text), '\n', &from, &rest) && str_split(rest, '\n', &to, &rest) &&
           oid_parse(from, ret_from) && oid_parse(to, ret_to);
}

void purge_finished(home *h, agent *a)
{
    _cleanup_(mem_freep) char *path = file_of(h, a);
    memfs_error ignored;

    if (home_is_shared(h) && fs_exists(path) && fs_remove_tree(path, &ignored) < 0)
        home_alarm(h, a, "leftover", "'%s' could not be removed: remove it", path);
}

memfs_code purge_follow(home *h, agent *a, memfs_oid *ret, memfs_error *err)
{
    follow_result now = { .is_away = false };
    memfs_code rc = agent_follow(h, a, false, &now, err);

    if (rc == MEMFS_OK && (now.is_away || !now.has_head))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "the database that the servers share must be there "
                          "for a purge: try again when it is");
    if (rc == MEMFS_OK)
        rc = agent_look(h, a, ret, err);
    if (rc == MEMFS_OK && !oid_equal(ret, &now.head.tip))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "main of agent '%s' is not known for sure: try again", a->id);
    return rc;
}

memfs_code purge_move_shared(home *h, agent *a, const memfs_oid *from, const memfs_oid *to,
                             memfs_error *err)
{
    materialise_result rows;
    memfs_code rc = note_begun(h, a, from, to, err);

    if (rc == MEMFS_OK)
        rc = materialise_replace(h, a, from, to, &rows, err);
    if (rc == MEMFS_ECONFLICT)
        purge_finished(h, a);
    return rc; /* else the file stays: whether it was done may not be known */
}

memfs_code purge_move_own(home *h, agent *a, const memfs_oid *from, const memfs_oid *to,
                          memfs_error *err)
{
    store_identity who = { "memfs", "memfs@localhost", clock_wall_us() / 1000000 };
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_code rc = repo_open(h->store, a->repo, &r, err);

    if (rc < 0)
        return rc;
    agent_moving(a, to);
    rc = repo_ref_rewrite(r, from, to, &who, "purge", err);
    if (rc == MEMFS_OK)
        agent_moved(a, to);
    else
        agent_not_moving(a);
    if (rc == MEMFS_ECORRUPT)
        agent_fence(h, a, err->msg);
    return rc;
}

static bool leads_to(repo *r, const memfs_oid *from, const memfs_oid *to)
{
    memfs_error ignored;
    bool does = oid_equal(from, to);

    return does || (repo_has(r, from) &&
                    repo_is_ancestor(r, from, to, &does, &ignored) == MEMFS_OK && does);
}

memfs_code purge_resume(home *h, agent *a, repo *r, const memfs_oid *tip, const memfs_oid *head,
                        bool *ret_done, memfs_error *err)
{
    memfs_oid from, to;
    memfs_code rc = MEMFS_OK;

    *ret_done = false;
    if (!was_begun(h, a, &from, &to))
        return MEMFS_OK;
    if (oid_equal(tip, &from) && leads_to(r, &to, head))
        rc = purge_move_own(h, a, &from, &to, err);
    else if (!leads_to(r, &to, tip))
        return MEMFS_OK; /* what came to `from` since then is in no other history: fenced */
    if (rc == MEMFS_OK)
        rc = store_drop_old(h->store, a->repo, err);
    if (rc < 0)
        return rc;
    purge_finished(h, a);
    *ret_done = true;
    home_alarm(h, a, "purge_finished",
               "a purge that was cut short is done now; run it once more to "
               "free the pages of its rows");
    home_moved(h, a);
    return MEMFS_OK;
}
