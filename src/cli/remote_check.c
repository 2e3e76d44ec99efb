#include "cli/remote_check.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/json.h"
#include "cli/cli.h"
#include "remote/host_report.h"

#include <stdio.h>

/* The client pushes to a repository that is there; it makes none. */
static const host_wants WANTS = { .push = true };

static cli_exit exit_of_answer(remote_answer answer)
{
    const remote_class *class = remote_class_of(answer);

    if (class->code == MEMFS_OK)
        return EXIT_GOOD;
    return class->is_credentials ? EXIT_CREDENTIALS_REFUSED : EXIT_REMOTE_UNAVAILABLE;
}

static cli_exit exit_of_report(const host_report *r)
{
    cli_exit status = exit_of_answer(r->read.answer);

    return status == EXIT_GOOD && r->can_push == 0 ? EXIT_CREDENTIALS_REFUSED : status;
}

/* ---- for people ---- */

static void print_row(bool is_bad, const char *kind, const char *text, void *ctx)
{
    (void)ctx;
    printf("  %s %-14s  ", is_bad ? "!" : "-", kind);
    cli_print_safe(str_of(text));
    putchar('\n');
}

static void print(const place *p, const backend_choice *c, const host_report *r,
                  const host_wants *wants)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(8192);
    const remote_class *class = remote_class_of(r->read.answer);
    char main_id[MEMFS_OID_HEX + 1];

    printf("%s  ", p->agent_id);
    cli_print_safe(str_of(c->target.url.text));
    remote_answer_say(&said, r->read.answer, str_of(r->read.detail));
    printf("  %s", said.ptr);
    oid_hex(&r->read.main, main_id);
    if (r->read.has_main)
        printf(", main is %.12s", main_id);
    putchar('\n');
    if (!c->is_letta)
        host_report_tell(r, wants, print_row, NULL);
    if (class->advice[0] != '\0')
        cli_talk("%s", class->advice);
    if (c->warning[0] != '\0')
        cli_talk("%s", c->warning);
}

/* ---- for programs ---- */

static void put_verdict(json_writer *w, const char *key, int verdict)
{
    if (verdict < 0)
        jw_key_null(w, key);
    else
        jw_key_bool(w, key, verdict == 1);
}

static void put_text(json_writer *w, const char *key, const char *text)
{
    jw_key_text(w, key, text[0] != '\0' ? text : NULL);
}

typedef struct row_writer {
    json_writer *w;
    bool is_bad; /* which are written */
} row_writer;

static void put_row(bool is_bad, const char *kind, const char *text, void *ctx)
{
    const row_writer *rows = ctx;

    if (is_bad != rows->is_bad)
        return;
    jw_object(rows->w);
    jw_key_text(rows->w, "kind", kind);
    jw_key_text(rows->w, "text", text);
    jw_object_end(rows->w);
}

static void put_rows(json_writer *w, const char *key, bool is_bad, const host_report *r,
                     const host_wants *wants)
{
    row_writer rows = { w, is_bad };

    jw_key(w, key);
    jw_array(w);
    if (wants != NULL)
        host_report_tell(r, wants, put_row, &rows);
    jw_array_end(w);
}

static void put_host(json_writer *w, const host_report *r, const host_wants *wants)
{
    char expires[CLOCK_ISO_LEN] = "";

    if (r->rights.expires_at_s != 0)
        clock_iso(r->rights.expires_at_s * 1000000, expires);
    put_text(w, "host", r->kind != HOST_UNKNOWN ? host_kind_name(r->kind) : "");
    put_text(w, "host_version", r->version);
    put_text(w, "token_of", r->rights.login);
    put_text(w, "scopes", r->rights.scopes);
    put_text(w, "token_expires_at", expires);
    put_verdict(w, "can_read", r->can_read);
    put_verdict(w, "can_push", r->can_push);
    put_verdict(w, "can_create", r->can_create);
    put_verdict(w, "is_private", r->rights.is_known ? r->rights.is_private : -1);
    put_rows(w, "findings", true, r, wants);
    put_rows(w, "notes", false, r, wants);
}

static void print_json(const place *p, const backend_choice *c, const host_report *r,
                       const host_wants *wants)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
    const remote_class *class = remote_class_of(r->read.answer);
    json_writer w = JSON_WRITER_INIT(&out);
    char main_id[MEMFS_OID_HEX + 1];

    oid_hex(&r->read.main, main_id);
    jw_object(&w);
    jw_key_text(&w, "agent_id", p->agent_id);
    jw_key_text(&w, "remote", c->target.url.text);
    jw_key_text(&w, "why", c->why);
    jw_key_text(&w, "credential", credential_source_name(c->target.cred.source));
    jw_key_text(&w, "answer", class->name);
    jw_key_text(&w, "words", class->words);
    jw_key_text(&w, "detail", r->read.detail);
    jw_key_text(&w, "advice", class->advice);
    jw_key_int(&w, "http_status", r->read.http_status);
    jw_key_text(&w, "remote_main", r->read.has_main ? main_id : NULL);
    jw_key_int(&w, "retry_after_s", r->read.retry_after_s);
    put_host(&w, r, c->is_letta ? NULL : wants);
    jw_key_text(&w, "warning", c->warning[0] != '\0' ? c->warning : NULL);
    jw_key_int(&w, "exit", exit_of_report(r));
    jw_object_end(&w);
    puts(out.ptr);
}

cli_exit remote_check(const place *p, const backend_choice *c, int64_t wait_ms, bool as_json)
{
    host_report r = { .can_read = -1, .can_push = -1, .can_create = -1 };
    host_wants wants = WANTS;

    wants.now_s = clock_wall_us() / 1000000;
    if (c->is_letta)
        probe(&c->target, wait_ms, &r.read);
    else
        host_report_make(&c->target, HOST_UNKNOWN, wait_ms, &r);
    if (as_json)
        print_json(p, c, &r, &wants);
    else
        print(p, c, &r, &wants);
    return cli_finish(exit_of_report(&r));
}
