#include "server/recompile.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pool.h"
#include "letta/roster.h"
#include "server/gateway.h"
#include "server/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_MS 10000 /* for the server's blocks to be ours */
#define FIRST_PAUSE_MS 50
#define MAX_PAUSE_MS 1000
#define MAX_TOKEN 4096

static const memfs_str SYSTEM = { "system/", 7 };

recompile_when recompile_read(params *p)
{
    memfs_str text;

    if (p->lookup(p->source, "recompile", 0, &text) && str_equal(text, MEMFS_STR("auto")))
        return RECOMPILE_AUTO;
    return params_bool(p, "recompile", false) ? RECOMPILE_ALWAYS : RECOMPILE_NEVER;
}

/* ---- which server ---- */

static memfs_code open_at_url(const app *self, roster **ret, memfs_error *err)
{
    memfs_buf token = MEMFS_BUF_INIT(MAX_TOKEN);
    memfs_code rc = MEMFS_OK;

    if (self->letta_token_file != NULL)
        rc = fs_read(self->letta_token_file, &token, err);
    while (token.len > 0 && (unsigned char)token.ptr[token.len - 1] <= ' ')
        buf_truncate(&token, token.len - 1);
    if (rc == MEMFS_OK)
        rc = roster_open(str_of(self->letta_url), buf_str(&token), ret, err);
    hash_wipe(token.ptr, token.cap);
    buf_dispose(&token);
    return rc;
}

/* *ret NULL: there is none. */
static memfs_code open_server(const app *self, const http_request *rq, roster **ret,
                              memfs_error *err)
{
    bool is_theirs = !http_is_owner(rq) && !auth_is_own(http_header(rq, "Authorization"));

    *ret = NULL;
    if (self->gateway != NULL && (is_theirs || self->letta_url == NULL))
        return gateway_roster(self->gateway, is_theirs ? rq : NULL, ret, err);
    return self->letta_url != NULL ? open_at_url(self, ret, err) : MEMFS_OK;
}

/* ---- blocks under system/ ---- */

typedef struct system_blocks {
    json_t *ours;                   /* label: value, lines ended by LF */
    char seal[2 * HASH_SHA256 + 1]; /* of labels and blobs */
    memfs_buf sealed;
    /* of theirs */
    size_t n_same, n_other;
} system_blocks;

/* A Letta server that reads files takes CR and CRLF for line ends (contract 2.6). */
static json_t *text_of(memfs_str s)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '\r')
            buf_putc(&out, s.ptr[i]);
        else if (i + 1 == s.len || s.ptr[i + 1] != '\n')
            buf_putc(&out, '\n');
    }
    return json_stringn_nocheck(out.len > 0 ? out.ptr : "", out.len);
}

static memfs_code add_ours(const block_row *row, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *label = mem_strndup(row->label.ptr, row->label.len);
    char hex[MEMFS_OID_HEX + 1];
    system_blocks *b = ctx;

    (void)err;
    if (!str_starts_with(row->label, SYSTEM))
        return MEMFS_OK;
    oid_hex(&row->blob, hex);
    buf_printf(&b->sealed, "%s %s\n", hex, label);
    json_object_set_new_nocheck(b->ours, label, text_of(row->value));
    return MEMFS_OK;
}

static memfs_code look_here(app *self, http_request *rq, memfs_str agent_id, system_blocks *b,
                            memfs_error *err)
{
    const block_query q = { .agent_id = agent_id, .show_hidden = true, .order = BLOCK_ORDER_PATH };
    uint8_t digest[HASH_SHA256];
    cache_tip tip;
    memfs_code rc;

    json_object_clear(b->ours);
    buf_clear(&b->sealed);
    rc = reply_agent_blocks(rq, self, &q, &tip, add_ours, b, err);
    hash_sha256(buf_str(&b->sealed), digest);
    hash_hex(digest, sizeof(digest), b->seal);
    return rc;
}

static memfs_code compare_theirs(const json_t *object, void *ctx, memfs_error *err)
{
    const char *label = json_string_value(json_object_get(object, "label"));
    const json_t *value = json_object_get(object, "value"), *ours;
    system_blocks *b = ctx;
    json_t *text;

    (void)err;
    if (label == NULL || !str_starts_with(str_of(label), SYSTEM))
        return MEMFS_OK;
    ours = json_object_get(b->ours, label);
    if (ours == NULL) {
        b->n_other++;
        return MEMFS_OK;
    }
    text = text_of(str_make(json_string_value(value), json_string_length(value)));
    if (json_equal(text, ours))
        b->n_same++;
    json_decref(text);
    return MEMFS_OK;
}

/*
 * Ours and theirs anew until they agree, or it takes too long.  A server that reads the folder has
 * no others of these then; one whose tables are written may, where no file can be made of them.
 */
static memfs_code await_theirs(app *self, http_request *rq, memfs_str agent_id, roster *r,
                               system_blocks *b, bool *ret_agree, memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + BLOCKS_MS, pause_ms = FIRST_PAUSE_MS;
    memfs_code rc;

    for (;;) {
        rc = look_here(self, rq, agent_id, b, err);
        b->n_same = b->n_other = 0;
        if (rc == MEMFS_OK)
            rc = roster_blocks(r, agent_id, compare_theirs, b, err);
        *ret_agree = rc == MEMFS_OK && b->n_same == json_object_size(b->ours) &&
                     (b->n_other == 0 || self->service == NULL);
        if (rc < 0 || *ret_agree || clock_mono_ms() + pause_ms > until_ms)
            return rc;
        clock_sleep_ms(pause_ms);
        pause_ms = 2 * pause_ms < MAX_PAUSE_MS ? 2 * pause_ms : MAX_PAUSE_MS;
    }
}

/* ---- the last time ---- */

static char *note_of(const app *self, memfs_str agent_id)
{
    return mem_printf("%s/letta/%.*s.system", home_settings(self->home)->path, (int)agent_id.len,
                      agent_id.ptr);
}

/* No blocks, and none before: nothing is changed either. */
static bool is_unchanged(const app *self, memfs_str agent_id, const system_blocks *b)
{
    _cleanup_(mem_freep) char *path = note_of(self, agent_id);
    _cleanup_(buf_dispose) memfs_buf last = MEMFS_BUF_INIT(sizeof(b->seal));
    memfs_error ignored;

    if (fs_read(path, &last, &ignored) < 0)
        return json_object_size(b->ours) == 0;
    return str_equal(buf_str(&last), str_of(b->seal));
}

static void write_down(const app *self, memfs_str agent_id, const system_blocks *b)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/letta", home_settings(self->home)->path);
    _cleanup_(mem_freep) char *path = note_of(self, agent_id);
    memfs_error err = MEMFS_ERROR_INIT;

    if (fs_mkdirs(folder, &err) < 0 || fs_write_atomic(path, str_of(b->seal), 0600, &err) < 0)
        log_event(LOG_WARN, "recompile_not_noted", "text", err.msg, NULL);
}

/* ---- doing it ---- */

static const char *words_of(memfs_code rc)
{
    switch (rc) {
    case MEMFS_EDENIED: return "failed; the Letta server refuses the credential";
    case MEMFS_ENOTFOUND: return "failed; the Letta server has no such agent";
    case MEMFS_EUNAVAIL: return "failed; the Letta server does not answer";
    default: return "failed; see the log";
    }
}

static memfs_code compile(app *self, http_request *rq, memfs_str agent_id, roster *r,
                          recompile_when when, const char **ret_said, memfs_error *err)
{
    bool is_fed = self->service != NULL || home_settings(self->home)->letta_database != NULL;
    system_blocks b = { .ours = json_object(), .sealed = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED) };
    memfs_code rc = look_here(self, rq, agent_id, &b, err);
    bool is_needed = when == RECOMPILE_ALWAYS || !is_unchanged(self, agent_id, &b), agree = true;

    *ret_said = "unchanged";
    if (rc == MEMFS_OK && is_needed && is_fed)
        rc = await_theirs(self, rq, agent_id, r, &b, &agree, err);
    if (rc == MEMFS_OK && is_needed)
        rc = roster_recompile(r, agent_id, err);
    if (rc == MEMFS_OK && is_needed)
        *ret_said = agree ? "done" : "done; blocks=behind";
    if (rc == MEMFS_OK && is_needed && agree)
        write_down(self, agent_id, &b);
    json_decref(b.ours);
    buf_dispose(&b.sealed);
    return rc;
}

void recompile_prompt(app *self, http_request *rq, memfs_str agent_id, recompile_when when)
{
    memfs_error err = MEMFS_ERROR_INIT;
    const char *said = "none";
    char id[IDS_MAX_LEN + 1];
    roster *r = NULL;
    memfs_code rc;

    if (when == RECOMPILE_NEVER)
        return;
    snprintf(id, sizeof(id), "%.*s", (int)agent_id.len, agent_id.ptr);
    rc = open_server(self, rq, &r, &err);
    if (rc == MEMFS_OK && r != NULL) {
        pool_wait_begin(); /* a server that hangs keeps no place from other agents (L3) */
        rc = compile(self, rq, agent_id, r, when, &said, &err);
        pool_wait_end();
    }
    roster_close(r);
    if (rc < 0) {
        said = words_of(rc);
        log_event(LOG_WARN, "recompile_failed", "agent", id, "text", err.msg, NULL);
    }
    http_set_header(rq, "X-Memfs-Recompile", said);
}
