/*
 * agent_prompt.c - POST /v1/agents/{agent}/recompile (http-api 7): the system prompt with the
 * memory in it, as memory/prompt.h makes it of the blocks as they are.
 *
 * A Letta server whose address is known makes its own anew as well (recompile.h), unless it is a
 * dry run. The date in the text is that of the newest block, so that the same memory gives the same
 * bytes; update_timestamp asks for the time of now.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "memory/prompt.h"
#include "server/agent_fields.h"
#include "server/recompile.h"
#include "server/reply.h"

#include <stdlib.h>

/* Rows in one buffer, by where their texts begin. */
typedef struct compiling {
    memfs_buf text;
    struct span {
        size_t at, label_len, value_len, description_len;
    } * rows;
    size_t n, cap;
    int64_t newest_us;
    json_t *fields;
} compiling;

static void compiling_dispose(compiling *c)
{
    buf_dispose(&c->text);
    free(c->rows);
    json_decref(c->fields);
}

static memfs_code add_row(const block_row *row, void *ctx, memfs_error *err)
{
    compiling *c = ctx;

    if (c->n == c->cap) {
        c->cap = c->cap == 0 ? 64 : c->cap * 2;
        c->rows = mem_realloc(c->rows, c->cap, sizeof(*c->rows));
    }
    c->rows[c->n++] =
        (struct span){ c->text.len, row->label.len, row->value.len, row->description.len };
    buf_add_str(&c->text, row->label);
    buf_add_str(&c->text, row->value);
    buf_add_str(&c->text, row->description);
    c->newest_us = row->updated_at_us > c->newest_us ? row->updated_at_us : c->newest_us;
    return buf_check(&c->text, "the memory of the agent", err);
}

static memfs_code add_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    compiling *c = ctx;

    (void)err;
    json_decref(c->fields);
    c->fields = agent_fields_parse(row->fields_json);
    if (c->newest_us == 0)
        c->newest_us = row->created_at_us;
    return MEMFS_OK;
}

static memfs_code load(compiling *c, http_request *rq, app *self, memfs_str id, memfs_error *err)
{
    const block_query blocks = { .agent_id = id, .show_hidden = true, .order = BLOCK_ORDER_PATH };
    const agent_query agent = { .id = id, .with_fields = true };
    cache_tip tip;
    memfs_code rc = reply_agent_blocks(rq, self, &blocks, &tip, add_row, c, err);

    return rc < 0 ? rc : state_agents(home_state(self->home), &agent, add_agent, c, err);
}

static void compile(const compiling *c, memfs_str id, bool is_now, memfs_buf *out)
{
    prompt_block *blocks = mem_alloc((c->n + 1) * sizeof(*blocks));
    const json_t *system = json_object_get(c->fields, "system");

    for (size_t i = 0; i < c->n; i++) {
        memfs_str at = str_from(buf_str(&c->text), c->rows[i].at);

        blocks[i].label = str_make(at.ptr, c->rows[i].label_len);
        at = str_from(at, c->rows[i].label_len);
        blocks[i].value = str_make(at.ptr, c->rows[i].value_len);
        at = str_from(at, c->rows[i].value_len);
        blocks[i].description = str_make(at.ptr, c->rows[i].description_len);
    }
    prompt_compile(
        &(prompt_agent){ .id = id,
                         .system = str_make(json_string_value(system), json_string_length(system)),
                         .compiled_at_us = is_now ? clock_wall_us() : c->newest_us },
        blocks, c->n, out);
    free(blocks);
}

void agent_recompile(http_request *rq, void *ctx)
{
    _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
    memfs_str id = reply_agent_id(rq, &p);
    bool is_now = params_bool(&p, "update_timestamp", false);
    bool is_dry = params_bool(&p, "dry_run", false);
    size_t max_bytes = http_out(rq)->max_bytes;
    _cleanup_(compiling_dispose) compiling c = { .text = MEMFS_BUF_INIT(max_bytes) };
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(max_bytes);
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    memfs_error err = MEMFS_ERROR_INIT;
    app *self = ctx;

    if (!reply_params_good(rq, &p) || !reply_agent(rq, self, id))
        return;
    if (load(&c, rq, self, id, &err) < 0) {
        reply_agent_failed(rq, id, &err);
        return;
    }
    compile(&c, id, is_now, &text);
    if (buf_check(&text, "the prompt", &err) < 0) {
        http_send_error(rq, &err);
        return;
    }
    if (!is_dry && self->letta_url != NULL)
        recompile_prompt(self, rq, id, RECOMPILE_ALWAYS);
    jw_str(&w, buf_str(&text));
    reply_json(rq);
}
