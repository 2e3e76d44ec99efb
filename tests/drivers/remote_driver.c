/*
 * remote-driver - the remote room by itself, for tests/integration/test_remote.py: one call, one
 * JSON object.
 *
 *     remote-driver probe  URL BUDGET_MS
 *     remote-driver ls     URL BUDGET_MS
 *     remote-driver fetch  URL BUDGET_MS GIT_DIR REF
 *     remote-driver push   URL BUDGET_MS GIT_DIR COMMIT
 *     remote-driver parse  URL
 *     remote-driver host-find|host-create|host-check|host-list|host-report  URL BUDGET_MS KIND
 *     remote-driver host-hook  URL BUDGET_MS KIND HOOK_URL SECRET    (KIND: gitea, ..., unknown)
 *
 * From the environment: DRIVER_HOOK (memfs-hook), DRIVER_CA, DRIVER_USER, DRIVER_SECRET_FILE,
 * DRIVER_SSH_KEY, DRIVER_KNOWN_HOSTS, DRIVER_ASK=1 (the user's git helpers), DRIVER_HTTP=0 (http
 * is not allowed).
 */
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "remote/host_report.h"

#include <stdio.h>
#include <stdlib.h>

static memfs_code read_secret(remote_target *t, memfs_error *err)
{
    memfs_buf text = MEMFS_BUF_INIT(16384);
    const char *path = getenv("DRIVER_SECRET_FILE"), *user = getenv("DRIVER_USER");
    memfs_code rc;

    if (path == NULL)
        return MEMFS_OK;
    rc = fs_read(path, &text, err);
    t->cred.source = CREDENTIAL_FILE;
    t->cred.username = mem_strdup(user != NULL ? user : "memfs");
    t->cred.secret = buf_take(&text, NULL);
    return rc;
}

static memfs_code make_target(const char *url, remote_target *t, memfs_error *err)
{
    memfs_code rc = url_parse(url, &t->url, err);

    t->hook_program = getenv("DRIVER_HOOK");
    t->ca_file = getenv("DRIVER_CA");
    t->ssh_key = getenv("DRIVER_SSH_KEY");
    t->ssh_known_hosts = getenv("DRIVER_KNOWN_HOSTS");
    t->ask_git_helpers = getenv("DRIVER_ASK") != NULL;
    t->may_http = getenv("DRIVER_HTTP") == NULL;
    return rc == MEMFS_OK ? read_secret(t, err) : rc;
}

static void put_oid(json_writer *w, const char *key, const memfs_oid *id)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    jw_key_text(w, key, hex);
}

static void put_answer(json_writer *w, remote_answer answer)
{
    const remote_class *row = remote_class_of(answer);

    jw_key_text(w, "answer", row->name);
    jw_key_text(w, "words", row->words);
    jw_key_bool(w, "is_credentials", row->is_credentials);
}

static void run_probe(const remote_target *t, int64_t budget_ms, json_writer *w)
{
    probe_result got;

    probe(t, budget_ms, &got);
    put_answer(w, got.answer);
    jw_key_int(w, "status", got.http_status);
    jw_key_int(w, "retry_after", got.retry_after_s);
    jw_key_text(w, "detail", got.detail);
    if (got.has_main)
        put_oid(w, "main", &got.main);
}

static memfs_code run_git(const remote_target *t, char **argv, int64_t deadline_ms, json_writer *w,
                          memfs_error *err)
{
    transport_report report = { .said = "" };
    transport_target to;
    memfs_oid id = { { 0 } };
    memfs_code rc = MEMFS_EINVALID;

    remote_transport_target(t, &to);
    if (strcmp(argv[1], "ls") == 0)
        rc = transport_ls(&to, deadline_ms, &id, &report, err);
    else if (strcmp(argv[1], "fetch") == 0)
        rc = transport_fetch(argv[4], &to, argv[5], deadline_ms, &report, err);
    else if (strcmp(argv[1], "push") == 0 && oid_parse(str_of(argv[5]), &id))
        rc = transport_push(argv[4], &to, &id, deadline_ms, &report, err);
    if (rc == MEMFS_OK && strcmp(argv[1], "ls") == 0)
        put_oid(w, "main", &id);
    if (rc < 0)
        put_answer(w, probe_classify_git(t, &report));
    jw_key_text(w, "said", report.said);
    jw_key_bool(w, "rejected", report.is_rejected);
    jw_key_bool(w, "moved", report.was_moved);
    jw_key_bool(w, "empty", report.is_empty);
    jw_key_bool(w, "timed_out", report.timed_out);
    return rc;
}

/* ---- hosts ---- */

static bool put_name(memfs_str name, void *ctx)
{
    jw_str(ctx, name);
    return true;
}

static void put_rights(const host_rights *r, json_writer *w)
{
    jw_key_text(w, "login", r->login);
    jw_key_text(w, "scopes", r->scopes);
    jw_key_bool(w, "is_known", r->is_known);
    jw_key_bool(w, "can_read", r->can_read);
    jw_key_bool(w, "can_push", r->can_push);
    jw_key_int(w, "may_create", r->may_create);
    jw_key_text(w, "create_words", r->create_words);
    jw_key_int(w, "expires_at", r->expires_at_s);
    jw_key_bool(w, "is_private", r->is_private);
}

static memfs_code run_job(const host *h, char **argv, int64_t deadline_ms, host_answer *answer,
                          json_writer *w, memfs_error *err)
{
    const char *job = argv[1] + strlen("host-");
    host_rights rights;
    bool made = false;
    memfs_code rc = MEMFS_OK;

    if (strcmp(job, "create") == 0) {
        rc = host_create(h, deadline_ms, answer, err);
    } else if (strcmp(job, "check") == 0) {
        rc = host_check(h, deadline_ms, &rights, answer, err);
        put_rights(&rights, w);
    } else if (strcmp(job, "list") == 0) {
        jw_key(w, "names");
        jw_array(w);
        rc = host_list(h, deadline_ms, put_name, w, answer, err);
        jw_array_end(w);
    } else if (strcmp(job, "hook") == 0) {
        rc = host_hook(h, argv[5], argv[6], deadline_ms, &made, answer, err);
        jw_key_bool(w, "made", made);
    }
    return rc;
}

static void put_row(bool is_bad, const char *kind, const char *text, void *ctx)
{
    json_writer *w = ctx;

    jw_object(w);
    jw_key_bool(w, "bad", is_bad);
    jw_key_text(w, "kind", kind);
    jw_key_text(w, "text", text);
    jw_object_end(w);
}

static void run_report(const remote_target *t, host_kind kind, int64_t budget_ms, json_writer *w)
{
    const host_wants wants = { true, true, false, clock_wall_us() / 1000000 };
    host_report report;

    host_report_make(t, kind, budget_ms, &report);
    jw_key(w, "rows");
    jw_array(w);
    host_report_tell(&report, &wants, put_row, w);
    jw_array_end(w);
}

static memfs_code run_host(const remote_target *t, int argc, char **argv, int64_t deadline_ms,
                           json_writer *w, memfs_error *err)
{
    _cleanup_(host_dispose) host h = HOST_INIT;
    host_kind kind = HOST_UNKNOWN;
    host_answer answer = { .http_status = 0 };
    memfs_code rc;

    if (argc < 5 || (strcmp(argv[1], "host-hook") == 0 && argc < 7) ||
        (strcmp(argv[4], "unknown") != 0 && !host_kind_parse(str_of(argv[4]), &kind)))
        return memfs_fail(err, MEMFS_EINVALID, "which host, which hook?");
    if (strcmp(argv[1], "host-report") == 0) {
        run_report(t, kind, deadline_ms - clock_mono_ms(), w);
        return MEMFS_OK;
    }
    rc = host_find(t, kind, deadline_ms, &h, &answer, err);
    if (rc == MEMFS_OK) {
        jw_key_text(w, "kind", host_kind_name(h.kind));
        jw_key_text(w, "api", h.api);
        jw_key_text(w, "version", h.version);
        jw_key_text(w, "owner", h.owner);
        jw_key_text(w, "name", h.name);
        rc = run_job(&h, argv, deadline_ms, &answer, w, err);
    }
    jw_key_int(w, "status", answer.http_status);
    jw_key_int(w, "retry_after", answer.retry_after_s);
    jw_key_bool(w, "is_credentials", answer.is_credentials);
    jw_key_bool(w, "is_missing", answer.is_missing);
    jw_key_text(w, "words", answer.words);
    return rc;
}

static void put_url(const remote_url *u, json_writer *w)
{
    jw_key_text(w, "text", u->text);
    jw_key_text(w, "origin", u->origin);
    jw_key_text(w, "host", u->host);
    jw_key_bool(w, "has_secret", u->secret != NULL);
}

int main(int argc, char **argv)
{
    _cleanup_(remote_target_dispose) remote_target t = REMOTE_TARGET_INIT;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4 << 20);
    json_writer w = JSON_WRITER_INIT(&out);
    memfs_error err = MEMFS_ERROR_INIT;
    int64_t start_ms = clock_mono_ms();
    uint64_t budget_ms = 0;
    memfs_code rc;

    if (argc < 3 || (argc > 3 && !str_to_u64(str_of(argv[3]), 3600000, &budget_ms)) ||
        (argc < 6 && (strcmp(argv[1], "fetch") == 0 || strcmp(argv[1], "push") == 0)))
        return 2;
    jw_object(&w);
    rc = make_target(argv[2], &t, &err);
    if (rc == MEMFS_OK && strcmp(argv[1], "parse") == 0)
        put_url(&t.url, &w);
    else if (rc == MEMFS_OK && strcmp(argv[1], "probe") == 0)
        run_probe(&t, (int64_t)budget_ms, &w);
    else if (rc == MEMFS_OK && strncmp(argv[1], "host-", 5) == 0)
        rc = run_host(&t, argc, argv, start_ms + (int64_t)budget_ms, &w, &err);
    else if (rc == MEMFS_OK)
        rc = run_git(&t, argv, start_ms + (int64_t)budget_ms, &w, &err);
    jw_key_text(&w, "code", memfs_code_name(rc));
    jw_key_text(&w, "error", rc < 0 ? err.msg : "");
    jw_key_int(&w, "ms", clock_mono_ms() - start_ms);
    jw_object_end(&w);
    puts(out.ptr);
    return 0;
}
