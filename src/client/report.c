#include "client/report.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void client_report_dispose(client_report *r)
{
    free(r->memory);
    free(r->remote);
    free(r->notes);
    *r = (client_report)CLIENT_REPORT_INIT;
}

void client_report_choice(client_report *r, const backend_choice *choice)
{
    free(r->remote);
    r->backend = choice->backend;
    r->has_remote = choice->has_remote;
    r->is_off = choice->is_off;
    r->is_misconfigured = choice->is_misconfigured;
    r->is_withheld = choice->is_withheld;
    r->remote = choice->has_remote ? mem_strdup(choice->target.url.text) : NULL;
    snprintf(r->detail, sizeof(r->detail), "%.199s",
             choice->has_remote ? choice->warning : choice->why);
}

/* What to do about the answer: where a token was kept back, setting one more is no help. */
static const char *advice_of(const client_report *r)
{
    const remote_class *class = remote_class_of(r->answer);

    return r->is_withheld && class->is_credentials
               ? "only the checkout names this host, so the remote token is not sent there: if it is "
                 "right, 'memfs remote set --agent ID URL'"
               : class->advice;
}

/* state */

/* Did anybody, memfs or the Letta client, ever hear of the remote?  prepare begins with the
 * genesis. */
static bool is_unheard(const client_report *r)
{
    return r->answer == REMOTE_UNASKED &&
           (!r->has_remote_main || oid_equal(&r->remote_main, &STORE_GENESIS));
}

static bool has_failed_answer(const client_report *r)
{
    return r->answer != REMOTE_UNASKED && remote_class_of(r->answer)->code != MEMFS_OK;
}

const char *client_report_state(const client_report *r)
{
    if (r->error.code != MEMFS_OK)
        return "failed";
    if (r->is_off)
        return "off";
    if (!r->is_there)
        return "missing";
    if (!r->has_remote)
        return "no-remote";
    if (r->held_back[0] != '\0')
        return "held-back";
    if (has_failed_answer(r) || is_unheard(r))
        return "local-only";
    if (r->n_ahead > 0 && r->n_behind > 0)
        return "diverged";
    if (r->n_behind > 0)
        return "behind";
    return r->n_ahead > 0 || !r->has_remote_main ? "ahead" : "synced";
}

/* the line */

static void add_count(memfs_buf *out, size_t n, const char *one, const char *many)
{
    buf_printf(out, "%zu %s", n, n == 1 ? one : many);
}

static void add_text(memfs_buf *out, const char *before, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    buf_puts(out, before);
    escape_add(out, str_of(text));
}

void client_report_again(int64_t at_s, memfs_buf *out)
{
    int64_t s = at_s - clock_wall_us() / 1000000;

    if (at_s == 0 || s <= 0)
        return;
    if (s < 120)
        buf_printf(out, ", tried again in %lld s", (long long)s);
    else if (s < 7200)
        buf_printf(out, ", tried again in %lld min", (long long)(s + 59) / 60);
    else
        buf_printf(out, ", tried again in %lld h", (long long)(s + 3599) / 3600);
}

/* "local-only: endpoint not implemented (HTTP 501); nothing is lost, ..." */
static void add_answer(const client_report *r, memfs_buf *out)
{
    const remote_class *class = remote_class_of(r->answer);

    if (r->answer == REMOTE_UNASKED) {
        buf_puts(out, "local-only: the remote was not asked yet; 'memfs sync' does");
        return;
    }
    if (!str_starts_with(str_of(class->words), MEMFS_STR("local-only")))
        buf_puts(out, "local-only: ");
    remote_answer_say(out, r->answer, str_of(r->detail));
    client_report_again(r->ask_again_at_s, out);
    add_text(out, "; ", advice_of(r));
}

static void add_ahead(const client_report *r, memfs_buf *out)
{
    add_count(out, r->n_ahead, "commit is", "commits are");
    buf_puts(out, " not on the remote yet");
}

static void add_commits(const client_report *r, const char *state, memfs_buf *out)
{
    buf_puts(out, state);
    add_text(out, strcmp(state, "synced") == 0 ? " with " : ": ", r->remote);
    if (!r->has_remote_main) {
        buf_puts(out, " is empty, nothing was pushed yet");
    } else if (r->n_ahead > 0) {
        buf_puts(out, ", ");
        add_ahead(r, out);
    }
    if (r->n_behind > 0) {
        buf_puts(out, ", ");
        add_count(out, r->n_behind, "commit of it is", "commits of it are");
        buf_puts(out, " not here yet");
    }
    if (strcmp(state, "synced") != 0)
        buf_puts(out, "; 'memfs sync' brings both together");
    add_text(out, "; ", r->detail);
}

/* What stands beside the state: kept, queued and decided things that somebody may want to look at.
 */
static void add_also(const client_report *r, memfs_buf *out)
{
    if (r->n_by_rule > 0) {
        buf_puts(out, "; ");
        add_count(out, r->n_by_rule, "merge decision", "merge decisions");
        buf_puts(out, " by rule ('memfs undo' takes one back)");
    }
    if (r->n_rescued > 0) {
        buf_puts(out, "; ");
        add_count(out, r->n_rescued, "rescued tip", "rescued tips");
        buf_puts(out, " ('memfs undo' brings one back)");
    }
    if (r->n_queued > 0) {
        buf_puts(out, "; ");
        add_count(out, r->n_queued, "mirror push waits", "mirror pushes wait");
        add_text(out, ": ", r->mirror_detail);
        client_report_again(r->mirror_again_at_s, out);
    }
    if (r->n_pending > 0) {
        buf_puts(out, "; ");
        add_count(out, r->n_pending, "worktree's merge waits", "worktrees' merges wait");
        buf_puts(out, " for a clean checkout");
    }
}

/* What this call did, before what there is now. */
static void add_done(const client_report *r, memfs_buf *out)
{
    if (r->was_created)
        buf_puts(out, r->was_adopted ? "adopted the folder, " : "created, ");
    if (r->was_merged)
        buf_puts(out, "merged, ");
    if (r->was_updated)
        buf_puts(out, "updated, ");
    if (r->was_pushed)
        buf_puts(out, "pushed, ");
}

void client_report_line(const client_report *r, memfs_buf *out)
{
    const char *state = client_report_state(r);

    if (strcmp(state, "failed") == 0) {
        add_text(out, "failed: ", r->error.msg);
        return;
    }
    add_done(r, out);
    if (strcmp(state, "missing") == 0) {
        buf_puts(out, "missing: there is no memory; 'memfs apply' makes it");
    } else if (strcmp(state, "off") == 0 || strcmp(state, "no-remote") == 0) {
        buf_puts(out, state);
        add_text(out, ": ", r->detail);
    } else if (strcmp(state, "held-back") == 0) {
        add_text(out, "held-back: the checkout stays as it is: ", r->held_back);
        if (has_failed_answer(r)) {
            buf_puts(out, "; ");
            add_answer(r, out);
        }
    } else if (strcmp(state, "local-only") == 0) {
        add_answer(r, out);
        if (r->n_ahead > 0) {
            buf_puts(out, "; ");
            add_ahead(r, out);
        }
    } else {
        add_commits(r, state, out);
    }
    add_also(r, out);
}

/* the object */

static void key_time(json_writer *w, const char *key, int64_t s)
{
    char iso[CLOCK_ISO_LEN];

    clock_iso(s * 1000000, iso);
    jw_key_text(w, key, s != 0 ? iso : NULL);
}

static void key_oid(json_writer *w, const char *key, bool is_there, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    jw_key_text(w, key, is_there ? hex : NULL);
}

static const char *operation_name(checkout_operation o)
{
    switch (o) {
    case CHECKOUT_CALM: return "none";
    case CHECKOUT_MERGING: return "merge";
    case CHECKOUT_REBASING: return "rebase";
    case CHECKOUT_PICKING: return "cherry-pick";
    case CHECKOUT_BISECTING: return "bisect";
    }
    return "none";
}

static void put_checkout(const client_report *r, json_writer *w)
{
    const checkout_state *c = &r->checkout;

    jw_key(w, "checkout");
    if (!r->is_there) {
        jw_null(w);
        return;
    }
    jw_object(w);
    key_oid(w, "head", c->has_head, &c->head);
    jw_key_text(w, "branch", c->branch[0] != '\0' ? c->branch : NULL);
    jw_key_bool(w, "is_detached", c->is_detached);
    jw_key_text(w, "operation", operation_name(c->operation));
    jw_key_bool(w, "is_locked", c->has_index_lock);
    jw_key_int(w, "n_changed", (int64_t)c->n_changed);
    jw_key_int(w, "n_untracked", (int64_t)c->n_untracked);
    jw_key_text(w, "first_changed", c->first_changed[0] != '\0' ? c->first_changed : NULL);
    jw_object_end(w);
}

static void put_remote(const client_report *r, json_writer *w)
{
    const remote_class *class = remote_class_of(r->answer);

    jw_key_text(w, "backend", backend_name(r->backend));
    jw_key_text(w, "remote", r->remote);
    jw_key_text(w, "answer", class->name);
    jw_key_text(w, "detail", r->detail);
    jw_key_text(w, "advice", advice_of(r));
    jw_key_bool(w, "is_misconfigured", r->is_misconfigured);
    key_time(w, "asked_at", r->asked_at_s);
    key_time(w, "ask_again_at", r->ask_again_at_s);
    key_oid(w, "remote_main", r->has_remote_main, &r->remote_main);
    jw_key_int(w, "n_ahead", (int64_t)r->n_ahead);
    jw_key_int(w, "n_behind", (int64_t)r->n_behind);
    key_time(w, "oldest_unpushed_at", r->oldest_unpushed_s);
}

static void put_notes(const client_report *r, json_writer *w)
{
    memfs_str rest = str_of(r->notes), line;

    jw_key(w, "notes");
    jw_array(w);
    while (str_split(rest, '\n', &line, &rest))
        jw_str(w, line);
    jw_array_end(w);
}

static void put_error(const client_report *r, json_writer *w)
{
    jw_key(w, "error");
    if (r->error.code == MEMFS_OK) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key_text(w, "code", memfs_code_name(r->error.code));
    jw_key_text(w, "message", r->error.msg);
    jw_object_end(w);
}

void client_report_json(const client_report *r, json_writer *w)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);

    client_report_line(r, &line);
    jw_object(w);
    jw_key_text(w, "agent_id", r->agent_id);
    jw_key_text(w, "memory", r->memory);
    jw_key_text(w, "state", client_report_state(r));
    jw_key_str(w, "line", buf_str(&line));
    jw_key_int(w, "exit", client_report_exit(r));
    jw_key_bool(w, "was_created", r->was_created);
    jw_key_bool(w, "was_adopted", r->was_adopted);
    jw_key_bool(w, "was_updated", r->was_updated);
    jw_key_bool(w, "was_merged", r->was_merged);
    jw_key_bool(w, "was_pushed", r->was_pushed);
    put_checkout(r, w);
    put_remote(r, w);
    jw_key_text(w, "held_back", r->held_back[0] != '\0' ? r->held_back : NULL);
    jw_key_int(w, "n_by_rule", (int64_t)r->n_by_rule);
    jw_key_int(w, "n_rescued", (int64_t)r->n_rescued);
    jw_key_int(w, "n_queued", (int64_t)r->n_queued);
    key_time(w, "mirror_again_at", r->mirror_again_at_s);
    jw_key_text(w, "mirror_detail", r->mirror_detail[0] != '\0' ? r->mirror_detail : NULL);
    jw_key_int(w, "n_pending", (int64_t)r->n_pending);
    put_notes(r, w);
    put_error(r, w);
    jw_object_end(w);
}

/* exit: the numbers of cli/exit.h, which this room cannot see; tests/unit/test_report.c keeps them
 * equal */

static int exit_of_local(memfs_code code)
{
    switch (code) {
    case MEMFS_OK: return 0;
    case MEMFS_EINVALID: return 2;
    case MEMFS_ECONFLICT: return 5;
    case MEMFS_EDENIED: return 6;
    case MEMFS_EUNAVAIL: return 7;
    case MEMFS_ENOTFOUND:
    case MEMFS_EEXISTS:
    case MEMFS_ELIMIT:
    case MEMFS_ECORRUPT:
    case MEMFS_ENOSPACE:
    case MEMFS_EINTERNAL: return 1;
    }
    return 1;
}

int client_report_exit(const client_report *r)
{
    const remote_class *class = remote_class_of(r->answer);

    if (r->error.code != MEMFS_OK)
        return exit_of_local(r->error.code);
    if (r->is_off)
        return 0;
    if (r->is_misconfigured)
        return 2;
    if (!r->has_remote || !has_failed_answer(r))
        return 0;
    if (class->is_credentials)
        return 4;
    if (class->code == MEMFS_ECONFLICT)
        return 5;
    return class->code == MEMFS_EDENIED ? 6 : 3;
}
