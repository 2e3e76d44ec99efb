#include "cache/cache_int.h"

#include <assert.h>

/* ---- what the backends share ---- */

/* '_' is in no word of a text, so no text can claim to be another agent's. */
void search_add_scope(word_set *words, int64_t agent_no)
{
    assert(words->n == 0 && words->joined.len == 0);
    buf_printf(&words->joined, "_%lld", (long long)agent_no);
}

void search_words_of(const block_row *row, word_set *words)
{
    word_set_add(words, row->label);
    if (row->has_description)
        word_set_add(words, row->description);
    word_set_add(words, row->value);
}

/* ---- thin wrappers, as in cache.c ---- */

memfs_code cache_search(cache *c, const search_query *q, block_row_fn fn, void *ctx,
                        memfs_error *err)
{
    assert(q->limit > 0 && q->find->n_words > 0);
    return c->backend->search(c, q, fn, ctx, err);
}

memfs_code cache_past_tip(cache *c, memfs_str agent_id, memfs_oid *ret, memfs_error *err)
{
    return c->backend->past_tip(c, agent_id, ret, err);
}

memfs_code cache_past_behind(cache *c, memfs_str after, int64_t max, agent_id_fn fn, void *ctx,
                             memfs_error *err)
{
    return c->backend->past_behind(c, after, max, fn, ctx, err);
}

memfs_code cache_versions(cache *c, memfs_str agent_id, memfs_str path, int64_t before,
                          int64_t limit, version_row_fn fn, void *ctx, memfs_error *err)
{
    assert(agent_id.len > 0 && path.len > 0);
    return c->backend->versions(c, agent_id, path, before, limit, fn, ctx, err);
}

memfs_code cache_search_past(cache *c, const search_query *q, version_row_fn fn, void *ctx,
                             memfs_error *err)
{
    assert(q->limit > 0 && q->find->n_words > 0);
    return c->backend->search_past(c, q, fn, ctx, err);
}

memfs_code cache_past_add(cache *c, const past_update *u, memfs_error *err)
{
    assert(u->agent_id.len > 0);
    return c->backend->past_add(c, u, err);
}
