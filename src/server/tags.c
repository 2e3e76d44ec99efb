/*
 * tags.c - all tags that agents and blocks have, by name (GET /v1/tags).
 *
 * Everybody who sees all agents sees the tags of all, hidden ones too; an agent's token those of its
 * agent and of its blocks, of which there are few: so they are read as they stand.
 */
#include "cache/tags.h"
#include "server/reply.h"
#include "server/shape.h"
#include "server/tag_page.h"

static memfs_code take_list(memfs_str tags_json, void *ctx, memfs_error *err)
{
    return tag_page_add_list(ctx, tags_json, err);
}

/* Every agent has the git tag, stored or not. */
static memfs_code take_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    memfs_code rc = tag_page_add(ctx, MEMFS_STR(SHAPE_GIT_TAG), err);

    return rc < 0 ? rc : take_list(row->tags_json, ctx, err);
}

static memfs_code take_block(const block_row *row, void *ctx, memfs_error *err)
{
    return take_list(row->tags_json, ctx, err);
}

/* ---- whose tags ---- */

static memfs_code read_own(http_request *rq, app *self, tag_page *page, memfs_error *err)
{
    agent_query agent = { .limit = 0 };
    block_query blocks = { .show_hidden = true, .order = BLOCK_ORDER_ID };
    memfs_code rc = reply_narrow_blocks(rq, self, &blocks, err);

    reply_narrow_agents(rq, &agent);
    if (rc == MEMFS_OK)
        rc = state_agents(home_state(self->home), &agent, take_agent, page, err);
    return rc < 0 ? rc : reply_all_blocks(self, &blocks, take_block, page, err);
}

static memfs_code read_all(app *self, tag_page *page, memfs_error *err)
{
    int64_t n_agents = 0;
    memfs_code rc = state_agent_count(home_state(self->home), &n_agents, err);

    if (rc == MEMFS_OK && n_agents > 0)
        rc = tag_page_add(page, MEMFS_STR(SHAPE_GIT_TAG), err);
    if (rc == MEMFS_OK)
        rc = state_tag_lists(home_state(self->home), take_list, page, err);
    if (rc < 0)
        return rc;
    rc = cache_tag_lists(home_cache(self->home), take_list, page, err);
    if (rc == MEMFS_ECORRUPT)
        home_cache_suspect(self->home);
    return rc;
}

/* ---- GET /v1/tags ---- */

/* name and the older query_text are the same search; name counts where both are given. */
static memfs_str read_query(params *p, tag_page *page)
{
    static const char *const orders[] = { "name", NULL };
    memfs_str name = MEMFS_STR(""), text = MEMFS_STR("");

    (void)params_text(p, "before", &page->before);
    (void)params_text(p, "after", &page->after);
    (void)params_text(p, "name", &name);
    (void)params_text(p, "query_text", &text);
    page->limit = (size_t)params_limit(p, 50);
    page->descending = params_is_descending(p, false);
    (void)params_choice(p, "order_by", orders, 0);
    return name.len > 0 ? name : text;
}

static memfs_code read_page(http_request *rq, app *self, memfs_str text, tag_page *page,
                            memfs_error *err)
{
    like_pattern pattern;
    memfs_code rc = like_compile(text, &pattern, err);

    if (rc < 0)
        return rc;
    page->pattern = text.len > 0 ? &pattern : NULL;
    page->max_bytes = http_out(rq)->max_bytes;
    rc = app_own_agent(rq).len > 0 ? read_own(rq, self, page, err) : read_all(self, page, err);
    page->pattern = NULL;
    tag_page_end(page);
    return rc;
}

void tags_list(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    _cleanup_(tag_page_dispose) tag_page page = { .n = 0 };
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    memfs_str text = read_query(&p, &page);
    memfs_error err = MEMFS_ERROR_INIT;
    reply_tag tag = { .is_sent = false };
    memfs_code rc;

    if (!reply_params_good(rq, &p))
        return;
    rc = reply_tag_all(rq, ctx, &tag, &err);
    if (rc == MEMFS_OK)
        rc = read_page(rq, ctx, text, &page, &err);
    jw_array(&w);
    for (size_t i = 0; rc == MEMFS_OK && i < page.n; i++)
        jw_str(&w, page.tags[i]);
    jw_array_end(&w);
    reply_rows(rq, &tag, rc, &err);
}
