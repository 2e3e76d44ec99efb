#include "cache/cache_int.h"

#include <assert.h>

/* Thin wrappers: callers never see the vtable. */

void cache_close(cache *c)
{
    if (c != NULL)
        c->backend->close(c);
}

bool cache_is_remote(const cache *c)
{
    return c->backend->is_remote;
}

memfs_code cache_rule(cache *c, memfs_str rule, bool *ret_has_changed, memfs_error *err)
{
    return c->backend->rule(c, rule, ret_has_changed, err);
}

memfs_code cache_own_rule(cache *c, memfs_str rule, bool *ret_is_other, memfs_error *err)
{
    assert(c->backend->own_rule != NULL);
    return c->backend->own_rule(c, rule, ret_is_other, err);
}

bool cache_is_there(cache *c)
{
    return c->backend->is_there(c);
}

memfs_code cache_check(cache *c, memfs_error *err)
{
    return c->backend->check(c, err);
}

memfs_code cache_reset(cache *c, memfs_error *err)
{
    return c->backend->reset(c, err);
}

memfs_code cache_blocks(cache *c, const block_query *q, block_row_fn fn, void *ctx,
                        memfs_error *err)
{
    return c->backend->blocks(c, q, NULL, fn, ctx, err);
}

memfs_code cache_count(cache *c, const block_query *q, int64_t *ret, memfs_error *err)
{
    return c->backend->count(c, q, ret, err);
}

memfs_code cache_tip_get(cache *c, memfs_str agent_id, cache_tip *ret, memfs_error *err)
{
    return c->backend->tip(c, agent_id, ret, err);
}

memfs_code cache_agent_blocks(cache *c, const block_query *q, cache_tip *ret, block_row_fn fn,
                              void *ctx, memfs_error *err)
{
    assert(q->agent_id.len > 0);
    return c->backend->blocks(c, q, ret, fn, ctx, err);
}

memfs_code cache_generation(cache *c, int64_t *ret, memfs_error *err)
{
    return c->backend->generation(c, ret, err);
}

memfs_code cache_tag_lists(cache *c, tag_list_fn fn, void *ctx, memfs_error *err)
{
    return c->backend->tag_lists(c, fn, ctx, err);
}

memfs_code cache_head_get(cache *c, memfs_str agent_id, cache_head *ret, memfs_error *err)
{
    assert(c->backend->head != NULL);
    return c->backend->head(c, agent_id, ret, err);
}

memfs_code cache_moves(cache *c, int64_t after, size_t max, cache_move_fn fn, void *ctx,
                       memfs_error *err)
{
    assert(c->backend->moves != NULL);
    return c->backend->moves(c, after, max, fn, ctx, err);
}

memfs_code cache_apply(cache *c, const cache_update *u, memfs_error *err)
{
    assert(u->versions == NULL || (u->from != NULL && !u->replace_all));
    assert(u->agent_id.len > 0);
    return c->backend->apply(c, u, err);
}

memfs_code cache_forget(cache *c, memfs_str agent_id, memfs_error *err)
{
    return c->backend->forget(c, agent_id, err);
}

memfs_code cache_empty(cache *c, memfs_str agent_id, memfs_error *err)
{
    return c->backend->empty(c, agent_id, err);
}

memfs_code cache_scrub(cache *c, memfs_error *err)
{
    return c->backend->scrub(c, err);
}
