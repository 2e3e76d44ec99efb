/*
 * Reports: the one word, the one line, the object and the exit status of every state.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
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

/* What curl, git, ssh and servers really said, by the answer it came with. */
static const struct {
    remote_answer answer;
    const char *detail, *line; /* line: how it begins */
} SAID[] = {
    { REMOTE_NOT_IMPLEMENTED, "HTTP 501", "local-only: endpoint not implemented (HTTP 501); " },
    { REMOTE_NOT_IMPLEMENTED, "", "local-only: endpoint not implemented; " },
    { REMOTE_NOT_FOUND, "HTTP 404", "local-only: repository not found (HTTP 404); " },
    { REMOTE_NOT_FOUND, "there is no such folder",
      "local-only: repository not found (there is no such folder); " },
    { REMOTE_NOT_FOUND, "repository 'http://127.0.0.1:1/a.git/' not found",
      "local-only: repository not found; " },
    { REMOTE_NOT_FOUND, "Repository not found.", "local-only: repository not found; " },
    { REMOTE_NOT_ALLOWED, "HTTP 405", "local-only: endpoint does not take git requests (HTTP 405)" },
    { REMOTE_NOT_GIT, "HTTP 302 redirects to 'portal.invalid'",
      "local-only: not a git server (HTTP 302 redirects to 'portal.invalid'); " },
    { REMOTE_NOT_GIT, "a web page came instead of git",
      "local-only: not a git server (a web page came instead of git); " },
    { REMOTE_NOT_GIT, "http://127.0.0.1:1/a/info/refs not valid: is this a git repository?", "" },
    { REMOTE_UNAUTHORIZED, "HTTP 401", "local-only: credentials refused (HTTP 401); " },
    { REMOTE_UNAUTHORIZED, "Authentication failed for 'https://git.example/x.git/'", "" },
    { REMOTE_UNAUTHORIZED, "git@127.0.0.1: Permission denied (publickey).", "" },
    { REMOTE_FORBIDDEN, "HTTP 403", "local-only: credentials refused (HTTP 403); " },
    { REMOTE_TOO_MANY, "HTTP 429", "local-only: unreachable (too many requests: HTTP 429)" },
    { REMOTE_FAILING, "HTTP 503", "local-only: unreachable (the server fails: HTTP 503)" },
    { REMOTE_FAILING, "", "local-only: unreachable (the server fails)" },
    { REMOTE_REFUSED, "connection refused", "local-only: unreachable (connection refused); " },
    { REMOTE_REFUSED, "", "local-only: unreachable (connection refused); " },
    { REMOTE_REFUSED, "ssh: connect to host 127.0.0.1 port 1: Connection refused",
      "local-only: unreachable (ssh: connect to host 127.0.0.1 port 1: Connection refused); " },
    { REMOTE_REFUSED, "No route to host",
      "local-only: unreachable (connection refused: No route to host); " },
    { REMOTE_TIMEOUT, "no whole answer in time",
      "local-only: unreachable (no whole answer in time); " },
    { REMOTE_TIMEOUT, "no time is left", "local-only: unreachable (no time is left); " },
    { REMOTE_TIMEOUT, "ssh: connect to host 192.0.2.1 port 22: Connection timed out", "" },
    { REMOTE_NO_NAME, "Could not resolve host: nowhere.invalid",
      "local-only: unreachable (Could not resolve host: nowhere.invalid); " },
    { REMOTE_NO_NAME, "ssh: Could not resolve hostname x.invalid: Name or service not known", "" },
    { REMOTE_TLS, "certificate has expired",
      "local-only: unreachable (TLS: certificate has expired); " },
    { REMOTE_TLS, "unable to get local issuer certificate", "" },
    { REMOTE_HOST_KEY, "Host key verification failed.",
      "local-only: the ssh host key is unknown or has changed; " },
    { REMOTE_CUT, "the list of refs ended in the middle",
      "local-only: unreachable (the connection was cut: the list of refs ended in the middle)" },
    { REMOTE_CUT, "Empty reply from server", "" },
    { REMOTE_REJECTED, "[remote rejected] (pre-receive hook declined) (the remote says: not here)",
      "local-only: the remote refused the push ([remote rejected] (pre-receive hook declined) (the "
      "remote says: not here)); " },
    { REMOTE_REJECTED, "it moved before each of our pushes", "" },
    { REMOTE_NOT_CREATED, "the token lacks write:organization",
      "local-only: the repository is missing and was not created (the token lacks write:organization); " },
    { REMOTE_OTHER, "libcurl is not installed (libcurl.so.4; Debian: libcurl4)",
      "local-only: the remote failed (libcurl is not installed (libcurl.so.4; Debian: libcurl4))" },
    { REMOTE_OTHER, "HTTP 418", "local-only: the remote failed (HTTP 418)" },
};

/* The words of a line; each begins at *at, and *at is moved behind it. */
static bool word_at(const char **at, char *out, size_t size)
{
    size_t n = 0;

    *at += strcspn(*at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    for (; **at != '\0' && strchr(" ,;:()'[]/.=", **at) == NULL; (*at)++)
        if (n + 1 < size)
            out[n++] = (char)(**at >= 'A' && **at <= 'Z' ? **at + 32 : **at);
    out[n] = '\0';
    return n > 0;
}

/* The same two neighbouring words of three letters and more, but articles: "" when none come twice. */
static void find_repeated(const char *line, char *out, size_t size)
{
    char words[200][40];
    size_t n = 0;

    while (n < ARRAY_LEN(words) && word_at(&line, words[n], sizeof(words[n])))
        n++;
    out[0] = '\0';
    for (size_t i = 0; i + 1 < n; i++)
        for (size_t k = i + 1; k + 1 < n; k++)
            if (strlen(words[i]) > 2 && strlen(words[i + 1]) > 2 && strcmp(words[i], "the") != 0 &&
                strcmp(words[i], words[k]) == 0 && strcmp(words[i + 1], words[k + 1]) == 0)
                snprintf(out, size, "%s %s", words[i], words[i + 1]);
}

static void say_line(remote_answer answer, const char *detail, memfs_buf *line)
{
    _cleanup_(client_report_dispose) client_report r = base_report();

    r.answer = answer;
    snprintf(r.detail, sizeof(r.detail), "%s", detail);
    client_report_line(&r, line);
}

static void the_search_for_repetitions_finds_them(void **state)
{
    char found[100];

    (void)state;
    find_repeated("unreachable (connection refused) (Connection refused)", found, sizeof(found));
    assert_string_equal(found, "connection refused");
    find_repeated("the remote refused the push of the remote", found, sizeof(found));
    assert_string_equal(found, "");
}

static void no_line_says_a_thing_twice(void **state)
{
    bool was_seen[REMOTE_N_ANSWERS] = { [REMOTE_UNASKED] = true, true, true };
    char twice[100];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(SAID); i++) {
        _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);

        was_seen[SAID[i].answer] = true;
        say_line(SAID[i].answer, SAID[i].detail, &line);
        if (!str_starts_with(buf_str(&line), str_of(SAID[i].line)))
            fail_msg("'%s' does not begin with '%s'", line.ptr, SAID[i].line);
        find_repeated(line.ptr, twice, sizeof(twice));
        if (twice[0] != '\0')
            fail_msg("'%s' says '%s' twice", line.ptr, twice);
    }
    for (int answer = 0; answer < REMOTE_N_ANSWERS; answer++)
        if (!was_seen[answer])
            fail_msg("no line of '%s' is looked at", remote_class_of((remote_answer)answer)->name);
}

/* What a class says by itself: the cause in its brackets, or all that is behind the state. */
static void own_words(remote_answer answer, char *out, size_t size)
{
    const char *words = remote_class_of(answer)->words, *start = strstr(words, ": ");
    const char *bracket = strchr(words, '(');

    start = bracket != NULL ? bracket + 1 : start != NULL ? start + 2 : words;
    snprintf(out, size, "%.*s", (int)strcspn(start, ")"), start);
}

/* Also when the class's own words come back as the detail, whatever the answer. */
static void words_that_come_back_as_detail_are_said_once(void **state)
{
    (void)state;
    for (int answer = REMOTE_NOT_IMPLEMENTED; answer < REMOTE_N_ANSWERS; answer++) {
        _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(8192);
        char own[100], twice[100];

        own_words((remote_answer)answer, own, sizeof(own));
        say_line((remote_answer)answer, own, &line);
        find_repeated(line.ptr, twice, sizeof(twice));
        if (twice[0] != '\0')
            fail_msg("'%s' says '%s' twice", line.ptr, twice);
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
    r.n_pending = 3;
    snprintf(r.mirror_detail, sizeof(r.mirror_detail), "refused");
    client_report_line(&r, &line);
    assert_string_equal(line.ptr,
                        "created, merged, pushed, synced with https://git.example/x.git; "
                        "1 merge decision by rule ('memfs undo' takes one back); 2 rescued "
                        "tips ('memfs undo' brings one back); 1 mirror push waits: refused; 3 worktrees' "
                        "merges wait for a clean checkout");
}

static void assert_again(int64_t in_s, const char *wanted)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(100);

    client_report_again(clock_wall_us() / 1000000 + in_s, &text);
    if (strncmp(buf_str(&text).ptr, wanted, strlen(wanted)) != 0)
        fail_msg("%lld: '%s', not '%s'", (long long)in_s, text.ptr, wanted);
}

static void L5_the_next_try_is_told(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(100);

    (void)state;
    client_report_again(0, &text);
    client_report_again(clock_wall_us() / 1000000 - 5, &text);
    assert_int_equal(text.len, 0);
    assert_again(95, ", tried again in 9"); /* the clock may turn in between */
    assert_again(59 * 60 + 30, ", tried again in 60 min");
    assert_again(5 * 3600 - 60, ", tried again in 5 h");
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
    "mirror_again_at",
    "mirror_detail",
    "n_pending",
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
        cmocka_unit_test(the_search_for_repetitions_finds_them),
        cmocka_unit_test(no_line_says_a_thing_twice),
        cmocka_unit_test(words_that_come_back_as_detail_are_said_once),
        cmocka_unit_test(T20_strangers_texts_stay_one_line),
        cmocka_unit_test(what_was_done_and_what_waits_is_told),
        cmocka_unit_test(L5_the_next_try_is_told),
        cmocka_unit_test(the_object_has_the_same_keys_in_every_state),
        cmocka_unit_test(times_and_ids_are_text_or_null),
        cmocka_unit_test(a_choice_fills_what_a_report_says_of_the_remote),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
