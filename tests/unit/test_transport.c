/*
 * git fetch, push and ls-remote against real repositories, and what hosts say when they refuse
 * (F15 to F21).
 */
#include "remote_support.h"

#include "store/sidecar.h"
#include "base/clock.h"
#include "store/transport_int.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#define MAIN "refs/heads/main"

static void begin(fixture *f, char **ret_remote)
{
    *ret_remote = remote_make(f, "remote");
    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
}

/* ---- looking ---- */

static void test_a_look_tells_main_the_sidecar_and_where_HEAD_is(void **state)
{
    fixture *f = *state;
    transport_report report;
    transport_target t;
    transport_refs refs;
    memfs_oid head, id;
    char *remote;

    begin(f, &remote);
    t = remote_target_of(remote);
    assert_ok(f, transport_ls_refs(&t, SOON, &refs, &report, &f->err));
    assert_true(report.is_empty && oid_is_zero(&refs.main) && oid_is_zero(&refs.meta));
    assert_string_equal(refs.head_ref, "");
    assert_code(f, MEMFS_ENOTFOUND, transport_ls(&t, SOON, &id, &report, &f->err));
    head = git_id(f, f->work, "HEAD");
    git(f, f->work, "push", "-q", remote, "HEAD:refs/heads/master", "HEAD:refs/heads/x/" MAIN);
    git(f, remote, "symbolic-ref", "HEAD", "refs/heads/master");
    assert_ok(f, transport_ls_refs(&t, SOON, &refs, &report, &f->err));
    assert_true(report.is_empty && oid_is_zero(&refs.main)); /* a longer name is another ref */
    assert_string_equal(refs.head_ref, "refs/heads/master");
    assert_true(oid_equal(&refs.head, &head));
    git(f, f->work, "push", "-q", remote, "HEAD:" MAIN, "HEAD:" STORE_META);
    assert_ok(f, transport_ls_refs(&t, SOON, &refs, &report, &f->err));
    assert_false(report.is_empty);
    assert_true(oid_equal(&refs.main, &head) && oid_equal(&refs.meta, &head));
    assert_ok(f, transport_ls(&t, SOON, &id, &report, &f->err));
    assert_true(oid_equal(&id, &head));
    free(remote);
}

static void test_a_remote_with_very_many_refs_is_looked_at_all_the_same(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf lines = MEMFS_BUF_INIT(16u << 20);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    const char *args[] = { "update-ref", "--stdin", NULL };
    transport_report report;
    transport_target t;
    transport_refs refs;
    char *remote, hex[MEMFS_OID_HEX + 1];
    memfs_oid head;

    begin(f, &remote);
    t = remote_target_of(remote);
    head = git_id(f, f->work, "HEAD");
    oid_hex(&head, hex);
    git(f, f->work, "push", "-q", remote, "HEAD:" MAIN);
    for (int i = 0; i < 5000; i++)
        buf_printf(&lines, "create refs/heads/branch/of/somebody/with/a/long/name/%d %s\n", i, hex);
    assert_ok(f, git_try(f, remote, &out, buf_str(&lines), args));
    git(f, remote, "pack-refs", "--all");
    assert_ok(f, transport_ls_refs(&t, SOON, &refs, &report, &f->err));
    assert_true(oid_equal(&refs.main, &head));
    assert_string_equal(refs.head_ref, MAIN);
    free(remote);
}

/* ---- pushing ---- */

static void test_H5_pushes_only_go_forward_and_only_where_they_may(void **state)
{
    fixture *f = *state;
    char *path = store_path(f->s, AGENT), *remote;
    transport_report report;
    transport_target t;
    memfs_oid tip, now;

    begin(f, &remote);
    t = remote_target_of(remote);
    tip = tip_of(f, AGENT);
    assert_ok(f, transport_push(path, &t, &tip, SOON, &report, &f->err));
    assert_ok(f, transport_push_ref(path, &t, STORE_META, &tip, SOON, &report, &f->err));
    now = git_id(f, remote, STORE_META);
    assert_true(oid_equal(&now, &tip));
    assert_code(f, MEMFS_EINVALID, transport_push_ref(path, &t, "refs/heads/other", &tip, SOON,
                                                      &report, &f->err));
    work_commit(f, f->work, "notes/b.md", "new\n");
    git(f, f->work, "push", "-q", remote, "HEAD:" MAIN);
    git(f, f->work, "commit", "-q", "--amend", "-m", "another");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    tip = tip_of(f, AGENT);
    now = remote_tip(f, remote);
    assert_code(f, MEMFS_ECONFLICT, transport_push(path, &t, &tip, SOON, &report, &f->err));
    assert_true(report.is_rejected && report.was_moved);
    assert_int_equal(report.cause, TRANSPORT_CAUSE_NONE);
    tip = remote_tip(f, remote);
    assert_true(oid_equal(&now, &tip));
    free(path);
    free(remote);
}

/* A host that takes nothing but branches: main must not suffer for it. */
static void test_F17_a_refused_sidecar_does_not_hinder_main(void **state)
{
    fixture *f = *state;
    char *path = store_path(f->s, AGENT), *remote;
    transport_report report;
    transport_target t;
    memfs_oid tip, now;

    begin(f, &remote);
    remote_hook(f, remote, "pre-receive",
                "#!/bin/sh\nwhile read old new ref; do case $ref in refs/heads/*) ;; *)\n"
                "printf 'only branches, \\033[31mplease\\n' >&2; exit 1;; esac; done\n");
    t = remote_target_of(remote);
    tip = tip_of(f, AGENT);
    assert_code(f, MEMFS_ECONFLICT,
                transport_push_ref(path, &t, STORE_META, &tip, SOON, &report, &f->err));
    assert_true(report.is_rejected && !report.was_moved);
    assert_int_equal(report.cause, TRANSPORT_CAUSE_HOOK);
    assert_non_null(strstr(report.said, "only branches"));
    assert_null(strchr(report.said, '\033')); /* T20 */
    assert_ok(f, transport_push(path, &t, &tip, SOON, &report, &f->err));
    now = remote_tip(f, remote);
    assert_true(oid_equal(&now, &tip));
    free(path);
    free(remote);
}

typedef struct refusal_row {
    const char *summary, *written;
    transport_cause cause;
    const char *said;
} refusal_row;

/* As the hosts print it. */
static const refusal_row REFUSALS[] = {
    { "[remote rejected] (protected branch hook declined)",
      "remote: error: GH006: Protected branch update failed for refs/heads/main.\n"
      "remote: error: Changes must be made through a pull request.\n",
      TRANSPORT_CAUSE_PROTECTED, "GH006" },
    { "[remote rejected] (push declined due to repository rule violations)",
      "remote: error: GH013: Repository rule violations found for refs/heads/main.\n"
      "remote: Review all repository rules at https://github.com/o/r/rules?ref=refs%2Fheads\n"
      "remote: - GITHUB PUSH PROTECTION\nremote:     - Push cannot contain secrets\n",
      TRANSPORT_CAUSE_SECRET, "Push cannot contain secrets" },
    { "[remote rejected] (push declined due to repository rule violations)",
      "remote: error: GH013: Repository rule violations found for refs/heads/main.\n"
      "remote: - Commits must have verified signatures.\n", TRANSPORT_CAUSE_PROTECTED, "GH013" },
    { "[remote rejected] (push declined due to a detected secret)", "", TRANSPORT_CAUSE_SECRET,
      "detected secret" },
    { "[remote rejected] (pre-receive hook declined)",
      "remote: error: GH001: Large files detected. You may want to try Git Large File Storage.\n"
      "remote: error: File b.bin is 120.00 MB; this exceeds GitHub's file size limit of 100.00 MB\n",
      TRANSPORT_CAUSE_TOO_LARGE, "GH001" },
    { "[remote rejected] (pre-receive hook declined)",
      "remote: GitLab: You are not allowed to push code to protected branches on this project.\n",
      TRANSPORT_CAUSE_PROTECTED, "not allowed to push code" },
    { "[remote rejected] (pre-receive hook declined)",
      "remote: \nremote: PUSH BLOCKED: Secrets detected in code changes\nremote: \n",
      TRANSPORT_CAUSE_SECRET, "PUSH BLOCKED" },
    { "[remote rejected] (pre-receive hook declined)",
      "remote: Gitea: Not allowed to push to protected branch main\n", TRANSPORT_CAUSE_PROTECTED,
      "Gitea: Not allowed" },
    { "[remote rejected] (pre-receive hook declined)",
      "remote: Forgejo: Not allowed to push to protected branch main\n",
      TRANSPORT_CAUSE_PROTECTED, "Forgejo" },
    { "[remote rejected] (pre-receive hook declined)", "remote: no Friday pushes\n",
      TRANSPORT_CAUSE_HOOK, "no Friday pushes" },
    { "[remote rejected] (hook declined)", "", TRANSPORT_CAUSE_HOOK, "hook declined" },
    { "[remote rejected] (deny updating a hidden ref)", "", TRANSPORT_CAUSE_PROTECTED, "hidden" },
    { "[remote rejected] (shallow update not allowed)", "", TRANSPORT_CAUSE_SHALLOW, "shallow" },
    { "[remote rejected] (unpacker error)",
      "remote: fatal: write error: No space left on device\n"
      "error: remote unpack failed: index-pack abnormal exit\n", TRANSPORT_CAUSE_DISK_FULL,
      "No space left" },
    { "[remote rejected] (unpacker error)",
      "remote: fatal: pack exceeds maximum allowed size (1.00 KiB)\n", TRANSPORT_CAUSE_TOO_LARGE,
      "maximum allowed size" },
    { "[remote rejected] (pre-receive hook declined)",
      "remote: GitLab: You can't push code to a read-only GitLab instance.\n",
      TRANSPORT_CAUSE_READ_ONLY, "read-only" },
    { "[remote rejected] (something new)", "remote: words\n", TRANSPORT_CAUSE_OTHER, "words" },
};

static void test_F17_each_refusal_has_its_cause_and_its_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(REFUSALS); i++) {
        _cleanup_(mem_freep) char *report =
            mem_printf("To h\n!\t1234:" MAIN "\t%s\nDone\n", REFUSALS[i].summary);
        transport_report got = { .said = "" };

        assert_true(transport_read_push(MAIN, str_of(report), str_of(REFUSALS[i].written), NULL, 0,
                                        &got));
        assert_true(got.is_rejected && !got.was_moved);
        if (got.cause != REFUSALS[i].cause || strstr(got.said, REFUSALS[i].said) == NULL)
            fail_msg("row %zu became %s: %s", i, transport_cause_name(got.cause), got.said);
    }
}

typedef struct cause_row {
    const char *written;
    transport_cause cause;
    int http_status;
} cause_row;

static const cause_row CAUSES[] = {
    { "fatal: unable to access 'https://h/a/': The requested URL returned error: 301",
      TRANSPORT_CAUSE_HTTP, 301 }, /* F16: renamed */
    { "remote: This repository was archived so it is read-only.\n"
      "fatal: unable to access 'https://h/a/': The requested URL returned error: 403\n",
      TRANSPORT_CAUSE_READ_ONLY, 403 },
    { "fatal: unable to access 'https://h/a/': The requested URL returned error: 403\n",
      TRANSPORT_CAUSE_HTTP, 403 },
    { "error: RPC failed; HTTP 429 curl 22\n", TRANSPORT_CAUSE_HTTP, 429 },
    { "error: inflate: data stream error (invalid distance too far back)\nfatal: pack has bad "
      "object at offset 12: inflate returned -3\nfatal: fetch-pack: invalid index-pack output\n",
      TRANSPORT_CAUSE_DAMAGED, 0 },
    { "fatal: pack is corrupted (SHA1 mismatch)\nfatal: fetch-pack: invalid index-pack output\n",
      TRANSPORT_CAUSE_DAMAGED, 0 },
    { "error: h did not send all necessary objects\n", TRANSPORT_CAUSE_DAMAGED, 0 },
    { "error: object 12: zeroPaddedFilemode: contains zero-padded file modes\nfatal: fsck error in "
      "packed object\n", TRANSPORT_CAUSE_DAMAGED, 0 },
    { "fatal: the remote end hung up unexpectedly\n", TRANSPORT_CAUSE_CUT, 0 },
};

static void test_each_failure_has_its_cause(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CAUSES); i++) {
        transport_report got = { .said = "" };

        transport_said(str_of(CAUSES[i].written), NULL, 0, &got);
        if (got.cause != CAUSES[i].cause || got.http_status != CAUSES[i].http_status)
            fail_msg("row %zu became %s %d", i, transport_cause_name(got.cause), got.http_status);
    }
    for (int i = 0; i < TRANSPORT_N_CAUSES; i++)
        assert_true(transport_cause_name((transport_cause)i)[0] != '\0');
}

static void test_F17_a_remote_that_takes_no_more_bytes_says_so(void **state)
{
    fixture *f = *state;
    char *path = store_path(f->s, AGENT), *remote;
    transport_report report;
    transport_target t;
    memfs_oid tip;

    begin(f, &remote);
    git(f, remote, "config", "receive.maxInputSize", "64");
    t = remote_target_of(remote);
    tip = tip_of(f, AGENT);
    assert_code(f, MEMFS_ECONFLICT, transport_push(path, &t, &tip, SOON, &report, &f->err));
    assert_int_equal(report.cause, TRANSPORT_CAUSE_TOO_LARGE);
    free(path);
    free(remote);
}

/* ---- ssh ---- */

static void test_F21_a_servers_ssh_has_nothing_of_its_users(void **state)
{
    fixture *f = *state;
    transport_target t = { .url = "git@host.invalid:a.git", .is_server = true,
                           .ssh_key = "/srv/key", .ssh_known_hosts = "/srv/known hosts" };
    const char *args[] = { "ls-remote", NULL }, *refs[] = { MAIN, NULL };
    bool has_command = false;

    (void)f;
    assert_int_equal(setenv("SSH_AUTH_SOCK", "/tmp/agent-of-somebody", 1), 0);
    assert_int_equal(setenv("HOME", "/home/somebody", 1), 0);
    for (int is_server = 1; is_server >= 0; is_server--) {
        _cleanup_(transport_run_dispose) transport_run r = TRANSPORT_RUN_INIT;
        transport_report report;

        t.is_server = is_server;
        r.t = &t;
        r.job = GIT_JOB_LS;
        assert_ok(f, transport_prepare(&r, NULL, args, refs, SOON, &report, &f->err));
        for (size_t i = 0; i < r.env.vars.n; i++) {
            const char *var = r.env.vars.at[i];

            if (strncmp(var, "GIT_SSH_COMMAND=", 16) == 0) {
                has_command = true;
                assert_non_null(strstr(var, "-F /dev/null"));
                assert_non_null(strstr(var, "StrictHostKeyChecking=yes"));
                assert_non_null(strstr(var, "/srv/known hosts"));
                assert_int_equal(strstr(var, "IdentityAgent=none") != NULL, is_server);
                assert_int_equal(strstr(var, "GlobalKnownHostsFile=/dev/null") != NULL, is_server);
            } else if (is_server) {
                assert_null(strstr(var, "somebody"));
            }
        }
    }
    assert_true(has_command);
    unsetenv("SSH_AUTH_SOCK");
}

/* ---- is there a way ---- */

typedef enum way { LISTENS, REFUSES, IS_AWAY /* no route: it fails at once */, SAYS_NOTHING } way;

typedef struct place {
    int fd, others[4];
    struct sockaddr_in at;
} place;

static int dial(const struct sockaddr_in *at, int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)at, sizeof(*at)) < 0)
        assert_int_equal(flags, SOCK_NONBLOCK);
    return fd;
}

/* Whose queue is full answers nobody. */
static void place_make(place *p, way how)
{
    socklen_t n = sizeof(p->at);

    *p = (place){ .others = { -1, -1, -1, -1 }, .at = { .sin_family = AF_INET } };
    p->at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->fd, (struct sockaddr *)&p->at, sizeof(p->at)), 0);
    assert_int_equal(getsockname(p->fd, (struct sockaddr *)&p->at, &n), 0);
    if (how == IS_AWAY)
        p->at.sin_addr.s_addr = inet_addr("224.0.0.1");
    if (how == LISTENS || how == SAYS_NOTHING)
        assert_int_equal(listen(p->fd, how == LISTENS ? 8 : 0), 0);
    for (size_t i = 0; how == SAYS_NOTHING && i < ARRAY_LEN(p->others); i++)
        p->others[i] = dial(&p->at, i == 0 ? 0 : SOCK_NONBLOCK);
}

static void place_close(place *p)
{
    for (size_t i = 0; i < ARRAY_LEN(p->others); i++)
        if (p->others[i] >= 0)
            close(p->others[i]);
    close(p->fd);
}

static bool answers(way first, way second)
{
    place a, b;
    bool does;
    struct addrinfo y = { .ai_family = AF_INET, .ai_addrlen = sizeof(b.at) };
    struct addrinfo x = { .ai_family = AF_INET, .ai_addrlen = sizeof(a.at), .ai_next = &y };

    place_make(&a, first);
    place_make(&b, second);
    x.ai_addr = (struct sockaddr *)&a.at;
    y.ai_addr = (struct sockaddr *)&b.at;
    does = transport_any_answers(&x, clock_mono_ms() + 300);
    place_close(&a);
    place_close(&b);
    return does;
}

static void test_F19_an_address_that_fails_does_not_speak_for_one_that_is_silent(void **state)
{
    (void)state;
    assert_false(answers(IS_AWAY, SAYS_NOTHING)); /* no way to IPv6, say: git would wait for ever */
    assert_false(answers(SAYS_NOTHING, IS_AWAY));
    assert_false(answers(REFUSES, SAYS_NOTHING));
    assert_false(answers(SAYS_NOTHING, SAYS_NOTHING));
    assert_true(answers(IS_AWAY, LISTENS));
    assert_true(answers(SAYS_NOTHING, LISTENS));
    assert_true(answers(IS_AWAY, REFUSES)); /* git says it at once, in known words */
    assert_true(answers(IS_AWAY, IS_AWAY));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_look_tells_main_the_sidecar_and_where_HEAD_is),
        TEST(test_a_remote_with_very_many_refs_is_looked_at_all_the_same),
        TEST(test_H5_pushes_only_go_forward_and_only_where_they_may),
        TEST(test_F17_a_refused_sidecar_does_not_hinder_main),
        TEST(test_F17_each_refusal_has_its_cause_and_its_words),
        TEST(test_each_failure_has_its_cause),
        TEST(test_F17_a_remote_that_takes_no_more_bytes_says_so),
        TEST(test_F21_a_servers_ssh_has_nothing_of_its_users),
        TEST(test_F19_an_address_that_fails_does_not_speak_for_one_that_is_silent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
