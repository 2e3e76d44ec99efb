#include "cache/cache_int.h"

#include <assert.h>

/* Thin wrappers, as in state.c. */

memfs_code state_shared_repos(state *s, const shared_query *q, shared_repo_fn fn, void *ctx,
                              memfs_error *err)
{
    return s->backend->shared->repos(s, q, fn, ctx, err);
}

memfs_code state_shared_add(state *s, const shared_repo *row, memfs_error *err)
{
    assert(row->id.len > 0 && row->name.len > 0);
    return s->backend->shared->add(s, row, err);
}

memfs_code state_shared_mark(state *s, memfs_str id, bool is_deleted, int64_t now_us,
                             memfs_error *err)
{
    assert(now_us > 0);
    return s->backend->shared->mark(s, id, is_deleted, now_us, err);
}

memfs_code state_shared_links(state *s, memfs_str agent_id, shared_link_fn fn, void *ctx,
                              memfs_error *err)
{
    return s->backend->shared->links(s, agent_id, fn, ctx, err);
}

memfs_code state_shared_link(state *s, const shared_link *row, memfs_error *err)
{
    assert(row->agent_id.len > 0 && row->repo_id.len > 0);
    return s->backend->shared->link(s, row, err);
}

memfs_code state_shared_unlink(state *s, memfs_str agent_id, memfs_str repo_id, memfs_error *err)
{
    return s->backend->shared->unlink(s, agent_id, repo_id, err);
}
