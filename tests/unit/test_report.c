/*
 * Reports: the one word, the one line, the object and the exit status of every state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cli/exit.h"
#include "client/report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const memfs_oid A = { { 0xaa } };

/* A memory that is there, with a remote whose main is A. */
static client_report base_report(void)
{
    client_report r = CLIENT_REPORT_INIT;

    snprintf(r.agent_id, sizeof(r.agent_id), "agent-11111111-1111-4111-8111-111111111111");
    r.memory = mem_strdup("/m");
    r.is_there = true;
    r.backend = BACKEND_AUTO;
    r.has_remote = true;
    r.remote = mem_strdup("https://git.example/x.git");
    r.answer = REMOTE_REFS;
    r.has_remote_main = true;
    r.remote_main = A;
    return r;
}

typedef void (*change_fn)(client_report *r);

static void nothing(client_report *r)
{
    (void)r;
}

static void ahead(client_report *r)
{
    r->n_ahead = 3;
}

static void behind(client_report *r)
{
    r->n_behind = 1;
}

static void diverged(client_report *r)
{
    r->n_ahead = 1;
    r->n_behind = 2;
}

static void empty_remote(client_report *r)
{
    r->answer = REMOTE_EMPTY;
    r->has_remote_main = false;
}

static void unasked_but_known(client_report *r)
{
    r->answer = REMOTE_UNASKED; /* the client itself has fetched */
}

static void unheard(client_report *r)
{
    r->answer = REMOTE_UNASKED;
    r->remote_main = STORE_GENESIS; /* as prepare leaves it */
}

static void not_implemented(client_report *r)
{
    r->answer = REMOTE_NOT_IMPLEMENTED;
    r->n_ahead = 2;
}

static void refused(client_report *r)
{
    r->answer = REMOTE_UNAUTHORIZED;
}

static void forbidden(client_report *r)
{
    r->answer = REMOTE_FORBIDDEN;
}

static void timed_out(client_report *r)
{
    r->answer = REMOTE_TIMEOUT;
    snprintf(r->detail, sizeof(r->detail), "no answer within 2 s");
}

static void no_remote(client_report *r)
{
    r->has_remote = false;
    r->answer = REMOTE_UNASKED;
    snprintf(r->detail, sizeof(r->detail), "the backend is none");
}

static void misconfigured(client_report *r)
{
    no_remote(r);
    r->is_misconfigured = true;
}

static void off(client_report *r)
{
    no_remote(r);
    r->is_off = true;
}

static void missing(client_report *r)
{
    r->is_there = false;
}

static void held_back(client_report *r)
{
    snprintf(r->held_back, sizeof(r->held_back), "'system/a.md' is not committed");
    r->n_behind = 1;
}

static void held_back_and_away(client_report *r)
{
    held_back(r);
    r->answer = REMOTE_REFUSED;
}

static void failed(client_report *r)
{
    r->error = (memfs_error){ MEMFS_ENOSPACE, "the disk is full" };
}

static void busy(client_report *r)
{
    r->error = (memfs_error){ MEMFS_EUNAVAIL, "another memfs is at it" };
}

static const struct {
    const char *name;
    change_fn change;
    const char *state, *words; /* words: part of the line */
    int exit;
} STATES[] = {
    { "nothing", nothing, "synced", "synced with https://git.example/x.git", EXIT_GOOD },
    { "ahead", ahead, "ahead", "3 commits are not on the remote yet", EXIT_GOOD },
    { "behind", behind, "behind", "1 commit of it is not here yet", EXIT_GOOD },
    { "diverged", diverged, "diverged", "1 commit is not on the remote yet, 2 commits", EXIT_GOOD },
    { "empty", empty_remote, "ahead", "nothing was pushed yet", EXIT_GOOD },
    { "unasked", unasked_but_known, "synced", "synced with", EXIT_GOOD },
    { "unheard", unheard, "local-only", "not asked yet; 'memfs sync' does", EXIT_GOOD },
    { "501", not_implemented, "local-only", "local-only: ", EXIT_REMOTE_UNAVAILABLE },
    { "401", refused, "local-only", "local-only: ", EXIT_CREDENTIALS_REFUSED },
    { "403", forbidden, "local-only", "local-only: ", EXIT_CREDENTIALS_REFUSED },
    { "timeout", timed_out, "local-only", "(no answer within 2 s)", EXIT_REMOTE_UNAVAILABLE },
    { "none", no_remote, "no-remote", "no-remote: the backend is none", EXIT_GOOD },
    { "misconfigured", misconfigured, "no-remote", "no-remote: ", EXIT_USAGE },
    { "off", off, "off", "off: ", EXIT_GOOD },
    { "missing", missing, "missing", "'memfs apply' makes it", EXIT_GOOD },
    { "held", held_back, "held-back", "'system/a.md' is not committed", EXIT_GOOD },
    { "held, away", held_back_and_away, "held-back", "; local-only: ", EXIT_REMOTE_UNAVAILABLE },
    { "failed", failed, "failed", "failed: the disk is full", EXIT_FAILED },
    { "busy", busy, "failed", "another memfs is at it", EXIT_BUSY },
};

static void every_state_has_its_word_line_and_exit_status(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(STATES); i++) {
        _cleanup_(client_report_dispose) client_report r = base_report();
        _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);

        STATES[i].change(&r);
        client_report_line(&r, &line);
        if (strcmp(client_report_state(&r), STATES[i].state) != 0)
            fail_msg("%s: '%s'", STATES[i].name, client_report_state(&r));
        if (strstr(line.ptr, STATES[i].words) == NULL)
            fail_msg("%s: '%s' lacks '%s'", STATES[i].name, line.ptr, STATES[i].words);
        if (client_report_exit(&r) != STATES[i].exit)
            fail_msg("%s: exit %d", STATES[i].name, client_report_exit(&r));
        assert_null(strchr(line.ptr, '\n'));
    }
}

/* The room cannot include cli/exit.h: its numbers are kept equal here. */
static void local_failures_exit_as_the_table_of_the_command_line(void **state)
{
    (void)state;
    for (int code = MEMFS_EINTERNAL; code < MEMFS_OK; code++) {
        static const struct {
            memfs_code code;
            int exit;
        } table[] = {
            { MEMFS_EINVALID, EXIT_USAGE },
            { MEMFS_ECONFLICT, EXIT_CONFLICT_RECORDED },
            { MEMFS_EDENIED, EXIT_REFUSED_BY_POLICY },
            { MEMFS_EUNAVAIL, EXIT_BUSY },
        };
        _cleanup_(client_report_dispose) client_report r = base_report();
        int expected = EXIT_FAILED;

        for (size_t i = 0; i < ARRAY_LEN(table); i++)
            if ((int)table[i].code == code)
                expected = table[i].exit;
        r.error = (memfs_error){ (memfs_code)code, "x" };
        assert_int_equal(client_report_exit(&r), expected);
    }
}

static void every_answer_has_a_line_of_one_piece(void **state)
{
    (void)state;
    for (int answer = 0; answer < REMOTE_N_ANSWERS; answer++) {
        _cleanup_(client_report_dispose) client_report r = base_report();
        _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);
        const char *twice;

        r.answer = (remote_answer)answer;
        client_report_line(&r, &line);
        assert_true(line.len > 0);
        twice = strstr(line.ptr, "local-only");
        assert_true(twice == NULL || strstr(twice + 1, "local-only") == NULL);
        assert_true(
            (client_report_exit(&r) == 0) ==
            (answer == REMOTE_UNASKED || remote_class_of((remote_answer)answer)->code == MEMFS_OK));
    }
}

/* T20: names and a remote's words come from strangers. */
static void T20_strangers_texts_stay_one_line(void **state)
{
    _cleanup_(client_report_dispose) client_report r = base_report();
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);

    (void)state;
    r.answer = REMOTE_FAILING;
    snprintf(r.detail, sizeof(r.detail), "x\n\033[31mred\xe2\x80\xae");
    client_report_line(&r, &line);
    assert_null(strchr(line.ptr, '\n'));
    assert_null(strchr(line.ptr, '\033'));
    assert_null(strstr(line.ptr, "\xe2\x80\xae"));
}

static void what_was_done_and_what_waits_is_told(void **state)
{
    _cleanup_(client_report_dispose) client_report r = base_report();
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);

    (void)state;
    r.was_created = r.was_merged = r.was_pushed = true;
    r.n_by_rule = 1;
    r.n_rescued = 2;
    r.n_queued = 1;
    client_report_line(&r, &line);
    assert_string_equal(line.ptr,
                        "created, merged, pushed, synced with https://git.example/x.git; "
                        "1 merge decision by rule ('memfs undo' takes one back); 2 rescued "
                        "tips ('memfs undo' brings one back); 1 mirror push waits");
}

static const char *const KEYS[] = {
    "agent_id",
    "memory",
    "state",
    "line",
    "exit",
    "was_created",
    "was_adopted",
    "was_updated",
    "was_merged",
    "was_pushed",
    "checkout",
    "backend",
    "remote",
    "answer",
    "detail",
    "advice",
    "is_misconfigured",
    "asked_at",
    "ask_again_at",
    "remote_main",
    "n_ahead",
    "n_behind",
    "oldest_unpushed_at",
    "held_back",
    "n_by_rule",
    "n_rescued",
    "n_queued",
    "notes",
    "error",
};

static void the_object_has_the_same_keys_in_every_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(STATES); i++) {
        _cleanup_(client_report_dispose) client_report r = base_report();
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
        json_writer w = JSON_WRITER_INIT(&out);
        json_t *root;

        STATES[i].change(&r);
        client_report_json(&r, &w);
        root = json_loadb(out.ptr, out.len, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(root);
        for (size_t k = 0; k < ARRAY_LEN(KEYS); k++)
            if (json_object_get(root, KEYS[k]) == NULL)
                fail_msg("%s: no '%s'", STATES[i].name, KEYS[k]);
        assert_int_equal(json_object_size(root), ARRAY_LEN(KEYS));
        assert_string_equal(json_string_value(json_object_get(root, "state")), STATES[i].state);
        assert_int_equal(json_is_null(json_object_get(root, "error")), r.error.code == MEMFS_OK);
        json_decref(root);
    }
}

static void times_and_ids_are_text_or_null(void **state)
{
    _cleanup_(client_report_dispose) client_report r = base_report();
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
    json_writer w = JSON_WRITER_INIT(&out);
    json_t *root, *checkout;

    (void)state;
    r.asked_at_s = 86400;
    r.checkout.has_head = true;
    r.checkout.head = A;
    snprintf(r.checkout.branch, sizeof(r.checkout.branch), "main");
    r.checkout.operation = CHECKOUT_REBASING;
    client_report_json(&r, &w);
    root = json_loadb(out.ptr, out.len, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "asked_at")),
                        "1970-01-02T00:00:00Z");
    assert_true(json_is_null(json_object_get(root, "ask_again_at")));
    assert_string_equal(json_string_value(json_object_get(root, "remote_main")),
                        "aa00000000000000000000000000000000000000");
    checkout = json_object_get(root, "checkout");
    assert_string_equal(json_string_value(json_object_get(checkout, "branch")), "main");
    assert_string_equal(json_string_value(json_object_get(checkout, "operation")), "rebase");
    assert_true(json_is_null(json_object_get(checkout, "first_changed")));
    json_decref(root);
}

static void a_choice_fills_what_a_report_says_of_the_remote(void **state)
{
    _cleanup_(client_report_dispose) client_report r = CLIENT_REPORT_INIT;
    backend_choice c = BACKEND_CHOICE_INIT;

    (void)state;
    c.backend = BACKEND_LOCAL;
    c.is_misconfigured = true;
    snprintf(c.why, sizeof(c.why), "environment X: bad");
    client_report_choice(&r, &c);
    assert_false(r.has_remote);
    assert_null(r.remote);
    assert_string_equal(r.detail, "environment X: bad");
    assert_true(r.is_misconfigured);
    c.has_remote = true;
    c.is_misconfigured = false;
    c.target.url.text = mem_strdup("/srv/x.git");
    snprintf(c.warning, sizeof(c.warning), "mind the gap");
    client_report_choice(&r, &c);
    assert_string_equal(r.remote, "/srv/x.git");
    assert_string_equal(r.detail, "mind the gap");
    backend_choice_dispose(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_has_its_word_line_and_exit_status),
        cmocka_unit_test(local_failures_exit_as_the_table_of_the_command_line),
        cmocka_unit_test(every_answer_has_a_line_of_one_piece),
        cmocka_unit_test(T20_strangers_texts_stay_one_line),
        cmocka_unit_test(what_was_done_and_what_waits_is_told),
        cmocka_unit_test(the_object_has_the_same_keys_in_every_state),
        cmocka_unit_test(times_and_ids_are_text_or_null),
        cmocka_unit_test(a_choice_fills_what_a_report_says_of_the_remote),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
