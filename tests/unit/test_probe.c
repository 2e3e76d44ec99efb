/* The words that git, ssh and curl have for what a remote did, and the row that each becomes
 * (design 5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "remote/probe.h"
#include "store/transport_int.h"

static void test_every_answer_has_a_row(void **state)
{
    (void)state;
    for (int i = 0; i < REMOTE_N_ANSWERS; i++) {
        const remote_class *row = remote_class_of((remote_answer)i);

        assert_non_null(row->name);
        assert_true(row->name[0] != '\0' && row->words[0] != '\0');
        assert_non_null(row->advice);
        assert_true(row->remember_s >= 0 && row->remember_s <= 86400);
        assert_int_equal(row->is_credentials, row->code == MEMFS_EDENIED);
        assert_true(!row->is_credentials || (row->retry == RETRY_NEVER && row->advice[0] != '\0'));
        for (int other = 0; other < i; other++)
            assert_string_not_equal(row->name, remote_class_of((remote_answer)other)->name);
    }
    assert_string_equal(remote_class_of((remote_answer)999)->name, "other");
}

typedef struct row {
    const char *written;
    remote_answer answer;
    const char *said; /* part of it */
} row;

/* As met with Debian 12's git, curl (GnuTLS and OpenSSL) and ssh, and as hosts are known to say
 * it. */
static const row ROWS[] = {
    { "fatal: unable to access 'https://h/a/': The requested URL returned error: 501\n",
      REMOTE_NOT_IMPLEMENTED, "501" },
    { "fatal: unable to access 'https://h/a/': The requested URL returned error: 405",
      REMOTE_NOT_ALLOWED, "405" },
    { "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502\n"
      "fatal: the remote end hung up unexpectedly\n", REMOTE_FAILING, "502" },
    { "error: RPC failed; HTTP 413 result=22\n", REMOTE_OTHER, "413" },
    { "remote: Write access to repository not granted.\nfatal: unable to access 'https://h/a/': "
      "The requested URL returned error: 403\n", REMOTE_FORBIDDEN, "Write access" },
    { "fatal: repository 'https://h/a/' not found\n", REMOTE_NOT_FOUND, "not found" },
    { "remote: Not Found\nfatal: repository 'https://h/a/' not found\n", REMOTE_NOT_FOUND,
      "Not Found" },
    { "ERROR: Repository not found.\nfatal: Could not read from remote repository.\n\n"
      "Please make sure you have the correct access rights\nand the repository exists.\n",
      REMOTE_NOT_FOUND, "ERROR: Repository not found" },
    { "fatal: '/srv/a' does not appear to be a git repository\n", REMOTE_NOT_FOUND, "/srv/a" },
    { "remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://h/a/'\n",
      REMOTE_UNAUTHORIZED, "Authentication failed" },
    { "fatal: could not read Username for 'https://h': terminal prompts disabled\n",
      REMOTE_UNAUTHORIZED, "could not read Username" },
    { "error: unable to read askpass response from '/bin/false'\nfatal: could not read Password "
      "for 'https://u@h': terminal prompts disabled\n", REMOTE_UNAUTHORIZED, "Password" },
    { "git@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n",
      REMOTE_UNAUTHORIZED, "publickey" },
    { "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@\n"
      "Host key verification failed.\nfatal: Could not read from remote repository.\n",
      REMOTE_HOST_KEY, "IDENTIFICATION HAS CHANGED" },
    { "No ED25519 host key is known for [h]:22 and you have requested strict checking.\n"
      "Host key verification failed.\n", REMOTE_HOST_KEY, "verification failed" },
    { "fatal: unable to access 'https://h/a/': server certificate verification failed. CAfile: none",
      REMOTE_TLS, "certificate" },
    { "fatal: unable to access 'https://h/a/': SSL certificate problem: certificate has expired",
      REMOTE_TLS, "expired" },
    { "fatal: unable to access 'https://h/a/': SSL: no alternative certificate subject name matches "
      "target host name 'h'", REMOTE_TLS, "subject name" },
    { "fatal: unable to access 'https://h/a/': gnutls_handshake() failed: Error in the pull function.",
      REMOTE_TLS, "handshake" },
    { "fatal: unable to access 'https://h/a/': OpenSSL SSL_connect: Connection reset by peer in "
      "connection to h:443", REMOTE_TLS, "SSL_connect" },
    { "fatal: unable to access 'https://h/a/': Could not resolve host: h", REMOTE_NO_NAME, "resolve" },
    { "ssh: Could not resolve hostname h: Name or service not known\r\nfatal: Could not read from "
      "remote repository.\n", REMOTE_NO_NAME, "hostname h" },
    { "fatal: unable to access 'http://h/a/': Failed to connect to h port 1 after 0 ms: Couldn't "
      "connect to server", REMOTE_REFUSED, "connect" },
    { "ssh: connect to host h port 22: Connection refused\r\n", REMOTE_REFUSED, "refused" },
    { "ssh: connect to host h port 22: No route to host\r\n", REMOTE_REFUSED, "route" },
    { "ssh: connect to host h port 22: Connection timed out\r\n", REMOTE_TIMEOUT, "timed out" },
    { "fatal: unable to access 'https://h/a/': Operation too slow. Less than 1000 bytes/sec "
      "transferred the last 30 seconds", REMOTE_TIMEOUT, "slow" },
    { "fatal: http://h/a/info/refs not valid: is this a git repository?\n", REMOTE_NOT_GIT,
      "not valid" },
    { "fatal: protocol error: bad line length character: <htm\n", REMOTE_CUT, "bad line length" },
    { "error: RPC failed; curl 56 GnuTLS recv error (-110): The TLS connection was non-properly "
      "terminated.\nfatal: early EOF\nfatal: fetch-pack: invalid index-pack output\n", REMOTE_CUT,
      "non-properly" },
    { "fatal: unable to access 'http://h/a/': Recv failure: Connection reset by peer", REMOTE_CUT,
      "reset" },
    { "error: object 12: hasDotgit: contains '.git'\nfatal: fsck error in packed object\nfatal: "
      "fetch-pack: invalid index-pack output\n", REMOTE_OTHER, "hasDotgit" },
    { "remote: Connection refused, Permission denied (publickey), error: 403\nfatal: something new\n",
      REMOTE_OTHER, "something new" },
    { "", REMOTE_OTHER, "" },
};

static void test_what_programs_say_becomes_an_answer(void **state)
{
    remote_target t = REMOTE_TARGET_INIT;

    (void)state;
    t.url.kind = URL_HTTPS;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        transport_report report = { .said = "" };

        transport_said(str_of(ROWS[i].written), NULL, 0, &report);
        if (probe_classify_git(&t, &report) != ROWS[i].answer)
            fail_msg("'%s' became %s", ROWS[i].written,
                     remote_class_of(probe_classify_git(&t, &report))->name);
        if (strstr(report.said, ROWS[i].said) == NULL)
            fail_msg("'%s': \"%s\" is not in \"%s\"", ROWS[i].written, ROWS[i].said, report.said);
    }
}

static void test_a_timeout_an_empty_and_a_rejection_come_first(void **state)
{
    remote_target t = REMOTE_TARGET_INIT;
    transport_report report = { .cause = TRANSPORT_CAUSE_TLS, .timed_out = true };

    (void)state;
    t.url.kind = URL_SSH;
    assert_int_equal(probe_classify_git(&t, &report), REMOTE_TIMEOUT);
    report.is_empty = true;
    assert_int_equal(probe_classify_git(&t, &report), REMOTE_EMPTY);
    report.is_rejected = true;
    assert_int_equal(probe_classify_git(&t, &report), REMOTE_REJECTED);
}

typedef struct push_row {
    const char *report;
    bool is_said, is_rejected, was_moved;
} push_row;

#define MAIN "1111111111111111111111111111111111111111:refs/heads/main\t"

static const push_row PUSHES[] = {
    { "To https://h/a\n*\t" MAIN "[new branch]\nDone\n", true, false, false },
    { "To https://h/a\n \t" MAIN "abc..def\nDone\n", true, false, false },
    { "To https://h/a\n=\t" MAIN "[up to date]\nDone\n", true, false, false },
    { "To https://h/a\n!\t" MAIN "[rejected] (fetch first)\nDone\n", true, true, true },
    { "!\t" MAIN "[rejected] (non-fast-forward)\nDone\n", true, true, true },
    { "!\t" MAIN "[remote rejected] (fetch first)\nDone\n", true, true, true },
    { "!\t" MAIN "[remote rejected] (cannot lock ref 'refs/heads/main': is at 1 but expected 2)\n",
      true, true, true },
    { "!\t" MAIN "[remote rejected] (failed to update ref)", true, true, true },
    { "!\t" MAIN "[remote rejected] (pre-receive hook declined)\nDone\n", true, true, false },
    { "!\t" MAIN "[remote rejected] (protected branch hook declined)\nDone\n", true, true, false },
    { "!\t" MAIN "[remote rejected] (a/b: no links are allowed)\nDone\n", true, true, false },
    { "!\tx:refs/heads/other\t[rejected] (fetch first)\nDone\n", false, false, false },
    { "To https://h/a\nDone\n", false, false, false },
    { "", false, false, false },
};

static void test_F04_a_push_is_what_its_report_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PUSHES); i++) {
        transport_report report = { .said = "" };
        bool is_said = transport_read_push(
            "refs/heads/main", str_of(PUSHES[i].report),
            MEMFS_STR("remote: because\nerror: failed to push some refs to 'h'\n"), NULL, 0,
            &report);

        if (is_said != PUSHES[i].is_said || report.is_rejected != PUSHES[i].is_rejected ||
            report.was_moved != PUSHES[i].was_moved)
            fail_msg("'%s'", PUSHES[i].report);
        assert_int_equal(strstr(report.said, "the remote says: because") != NULL,
                         report.is_rejected);
    }
}

static void test_a_probe_without_time_asks_nobody(void **state)
{
    remote_target t = REMOTE_TARGET_INIT;
    probe_result got;
    memfs_error err;

    (void)state;
    assert_int_equal(url_parse("https://host.invalid/a", &t.url, &err), MEMFS_OK);
    probe(&t, 0, &got);
    assert_int_equal(got.answer, REMOTE_TIMEOUT);
    remote_target_dispose(&t);
    assert_int_equal(url_parse("/nonexistent/a.git", &t.url, &err), MEMFS_OK);
    probe(&t, 5000, &got);
    assert_int_equal(got.answer, REMOTE_NOT_FOUND);
    remote_target_dispose(&t);
}

static void test_T06_the_last_door_refuses_what_the_first_should_have(void **state)
{
    static const transport_target targets[] = {
        { .url = "-oProxyCommand=x" }, { .url = "::x" }, { .url = "https://h/\nx" },
        { .url = "http://h/a" }, { .url = "/srv/a" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        transport_report report;
        memfs_error err;
        memfs_oid id;

        assert_in_range(-transport_ls(&targets[i], clock_mono_ms() + 5000, &id, &report, &err),
                        -MEMFS_EINVALID, -MEMFS_EDENIED);
        assert_true(report.said[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_answer_has_a_row),
        cmocka_unit_test(test_what_programs_say_becomes_an_answer),
        cmocka_unit_test(test_a_timeout_an_empty_and_a_rejection_come_first),
        cmocka_unit_test(test_F04_a_push_is_what_its_report_says),
        cmocka_unit_test(test_a_probe_without_time_asks_nobody),
        cmocka_unit_test(test_T06_the_last_door_refuses_what_the_first_should_have),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
