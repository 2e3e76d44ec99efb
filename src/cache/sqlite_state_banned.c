#include "cache/sqlite_state_int.h"

#include "base/mem.h"

/*
 * Objects that were purged from an agent's history.
 */

static memfs_code banned_add_within(sqlite_conn *c, memfs_str agent_id, const memfs_oid *ids,
                                    size_t n, memfs_error *err)
{
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    memfs_code rc = sqlite_query_get(c, KEY_BANNED_ADD, &s, err);

    for (size_t i = 0; rc == MEMFS_OK && i < n; i++) {
        sqlite_bind_str(&s, 1, agent_id);
        sqlite_bind_oid(&s, 2, &ids[i]);
        rc = sqlite_run(&s, err);
        sqlite_query_again(&s);
    }
    return rc;
}

memfs_code sqlite_banned_add(state *base, memfs_str agent_id, const memfs_oid *ids, size_t n,
                             memfs_error *err)
{
    sqlite_conn *c;
    memfs_code rc;

    rc = sqlite_write_begin(sqlite_state_db(base), &c, err);
    if (rc < 0)
        return rc;
    return sqlite_write_end(c, banned_add_within(c, agent_id, ids, n, err), err);
}

static memfs_code collect_banned(sqlite_query *s, memfs_oid **list, size_t *n, memfs_error *err)
{
    size_t cap = 0;
    bool is_row = false;
    memfs_code rc;

    for (;;) {
        rc = sqlite_step(s, &is_row, err);
        if (rc < 0 || !is_row)
            return rc;
        if (*n == cap) {
            cap = cap == 0 ? 16 : cap * 2;
            *list = mem_realloc(*list, cap, sizeof(**list));
        }
        rc = sqlite_col_oid(s, 0, &(*list)[*n], err);
        if (rc < 0)
            return rc;
        *n += 1;
    }
}

memfs_code sqlite_banned(state *base, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                         memfs_error *err)
{
    _cleanup_(sqlite_read_endp) sqlite_conn *c = NULL;
    _cleanup_(sqlite_query_done) sqlite_query s = SQLITE_QUERY_INIT;
    _cleanup_(mem_freep) memfs_oid *list = NULL;
    size_t n = 0;
    memfs_code rc;

    rc = sqlite_read_begin(sqlite_state_db(base), &c, err);
    if (rc == MEMFS_OK)
        rc = sqlite_query_get(c, KEY_BANNED, &s, err);
    if (rc < 0)
        return rc;
    sqlite_bind_str(&s, 1, agent_id);
    rc = collect_banned(&s, &list, &n, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(list);
    *ret_n = n;
    return MEMFS_OK;
}
