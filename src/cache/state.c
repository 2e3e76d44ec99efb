#include "cache/cache_int.h"

#include "base/clock.h"
#include "base/pool.h"
#include "base/process.h"

#include <assert.h>

/* Thin wrappers, but for who waits: callers never see the vtable. */

void state_close(state *s)
{
    if (s != NULL)
        s->backend->close(s);
}

memfs_code state_check(state *s, memfs_error *err)
{
    return s->backend->check(s, err);
}

memfs_code state_agents(state *s, const agent_query *q, state_agent_fn fn, void *ctx,
                        memfs_error *err)
{
    return s->backend->agents(s, q, fn, ctx, err);
}

memfs_code state_agent_count(state *s, int64_t *ret, memfs_error *err)
{
    return s->backend->agent_count(s, ret, err);
}

memfs_code state_tag_lists(state *s, tag_list_fn fn, void *ctx, memfs_error *err)
{
    return s->backend->tag_lists(s, fn, ctx, err);
}

memfs_code state_agent_known(state *s, memfs_str id, bool *ret, memfs_error *err)
{
    return s->backend->agent_known(s, id, ret, err);
}

memfs_code state_agent_add(state *s, memfs_str id, memfs_str org_id, int64_t now_us,
                           memfs_error *err)
{
    assert(id.len > 0);
    return s->backend->agent_add(s, id, org_id, now_us, err);
}

memfs_code state_agents_version(state *s, int64_t *ret, memfs_error *err)
{
    return s->backend->agents_version(s, ret, err);
}

memfs_code state_agent_announce(state *s, const state_agent *agent, memfs_error *err)
{
    assert(agent->id.len > 0);
    if (agent->fields_json.len > STATE_MAX_FIELDS)
        return memfs_fail(err, MEMFS_ELIMIT, "the fields of an agent have more than %u bytes",
                          STATE_MAX_FIELDS);
    return s->backend->agent_announce(s, agent, err);
}

memfs_code state_agent_put(state *s, const state_agent *agent, memfs_error *err)
{
    if (agent->fields_json.len > STATE_MAX_FIELDS)
        return memfs_fail(err, MEMFS_ELIMIT, "the fields of an agent have more than %u bytes",
                          STATE_MAX_FIELDS);
    return s->backend->agent_put(s, agent, err);
}

memfs_code state_agent_set_deleted(state *s, memfs_str id, int64_t deleted_at_us, int64_t now_us,
                                   bool *ret_changed, memfs_error *err)
{
    *ret_changed = false;
    return s->backend->agent_set_deleted(s, id, deleted_at_us, now_us, ret_changed, err);
}

memfs_code state_births_add(state *s, memfs_str agent_id, const memfs_str *labels, size_t n,
                            int64_t now_us, memfs_error *err)
{
    return n == 0 ? MEMFS_OK : s->backend->births_add(s, agent_id, labels, n, now_us, err);
}

memfs_code state_births(state *s, memfs_str agent_id, memfs_str label, state_birth_fn fn, void *ctx,
                        memfs_error *err)
{
    return s->backend->births(s, agent_id, label, fn, ctx, err);
}

memfs_code state_banned_add(state *s, memfs_str agent_id, const memfs_oid *ids, size_t n,
                            memfs_error *err)
{
    return n == 0 ? MEMFS_OK : s->backend->banned_add(s, agent_id, ids, n, err);
}

memfs_code state_banned(state *s, memfs_str agent_id, memfs_oid **ret, size_t *ret_n,
                        memfs_error *err)
{
    return s->backend->banned(s, agent_id, ret, ret_n, err);
}

memfs_code state_agent_merge(state *s, const state_agent *agent, const state_birth *births,
                             size_t n, memfs_error *err)
{
    assert(agent->id.len > 0);
    return s->backend->agent_merge(s, agent, births, n, err);
}

memfs_code state_token_add(state *s, const state_token *token, memfs_error *err)
{
    assert(token->id.len > 0 && token->scope.len > 0);
    return s->backend->token_add(s, token, err);
}

memfs_code state_tokens(state *s, state_token_fn fn, void *ctx, memfs_error *err)
{
    return s->backend->tokens(s, fn, ctx, err);
}

memfs_code state_token_revoke(state *s, memfs_str id, int64_t now_us, memfs_error *err)
{
    assert(now_us > 0);
    return s->backend->token_revoke(s, id, now_us, err);
}

memfs_code state_mirrors(state *s, memfs_str agent_id, memfs_str remote, state_mirror_fn fn,
                         void *ctx, memfs_error *err)
{
    return s->backend->mirrors(s, agent_id, remote, fn, ctx, err);
}

memfs_code state_mirror_put(state *s, const state_mirror *row, memfs_error *err)
{
    assert(row->agent_id.len > 0 && row->remote.len > 0);
    return s->backend->mirror_put(s, row, err);
}

memfs_code state_mirror_forget(state *s, memfs_str remote, memfs_error *err)
{
    assert(remote.len > 0);
    return s->backend->mirror_forget(s, remote, err);
}

memfs_code state_change_apply(state *s, const state_change *change, memfs_error *err)
{
    assert(change->n_births == 0 || change->agent_id.len > 0);
    return change->n_births + change->n_docs == 0 ? MEMFS_OK : s->backend->change(s, change, err);
}

memfs_code state_docs(state *s, memfs_str kind, memfs_str id, int64_t after, state_doc_fn fn,
                      void *ctx, memfs_error *err)
{
    return s->backend->docs(s, kind, id, after, fn, ctx, err);
}

memfs_code state_docs_mark(state *s, memfs_str kind, int64_t *ret, memfs_error *err)
{
    return s->backend->docs_mark(s, kind, ret, err);
}

memfs_code state_copy(state *s, const char *to, memfs_error *err)
{
    return s->backend->copy(s, to, err);
}

memfs_code state_server_join(state *s, const state_server *me, int64_t *ret_no, memfs_error *err)
{
    assert(s->backend->server_join != NULL);
    return s->backend->server_join(s, me, ret_no, err);
}

memfs_code state_servers(state *s, state_server_fn fn, void *ctx, memfs_error *err)
{
    assert(s->backend->servers != NULL);
    return s->backend->servers(s, fn, ctx, err);
}

memfs_code state_lease(state *s, bool *ret_has_it, memfs_error *err)
{
    assert(s->backend->lease != NULL);
    return s->backend->lease(s, ret_has_it, err);
}

memfs_code state_turn_take(state *s, memfs_str what, int64_t until_ms, bool *ret_has_it,
                           memfs_error *err)
{
    int64_t pause_ms = 1;
    process_waiting w;
    memfs_code rc;

    assert(s->backend->turn_try != NULL);
    process_waiting_begin(&w);
    while ((rc = s->backend->turn_try(s, what, ret_has_it, err)) == MEMFS_OK && !*ret_has_it &&
           clock_mono_ms() < until_ms && !process_waiting_is_ended(&w))
        pool_pause(&pause_ms);
    process_waiting_end(&w);
    return rc;
}

void state_turn_end(state *s, memfs_str what)
{
    assert(s->backend->turn_end != NULL);
    s->backend->turn_end(s, what);
}

bool state_moves_wait(state *s, int64_t own_no, int64_t timeout_ms)
{
    assert(s->backend->moves_wait != NULL);
    return s->backend->moves_wait(s, own_no, timeout_ms);
}

memfs_code state_tokens_mark(state *s, int64_t *ret, memfs_error *err)
{
    assert(s->backend->tokens_mark != NULL);
    return s->backend->tokens_mark(s, ret, err);
}

memfs_code state_deleted_mark(state *s, int64_t *ret, memfs_error *err)
{
    assert(s->backend->deleted_mark != NULL);
    return s->backend->deleted_mark(s, ret, err);
}
