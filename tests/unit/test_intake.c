#include "sync_fixture.h"

#include "store/history.h"
#include "store/rewrite.h"
#include "sync/home_int.h"
#include "sync/intake.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/*
 * What a remote has becomes main: the remote is a bare repository beside the home, which the clone
 * of the fixture pushes to, and which real git fetches from by its path.
 */

/* ---- what reaches the disk, to be counted and to be killed at ---- */

static atomic_int n_syncs;
static atomic_int n_calls_left = -1; /* until this process kills itself; < 0: never */

static void count_down(void)
{
    if (atomic_load(&n_calls_left) >= 0 && atomic_fetch_sub(&n_calls_left, 1) == 0)
        kill(getpid(), SIGKILL);
}

int fsync(int fd)
{
    count_down();
    atomic_fetch_add(&n_syncs, 1);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    count_down();
    atomic_fetch_add(&n_syncs, 1);
    return (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    count_down();
    return (int)syscall(SYS_rename, from, to);
}

/* ---- who listens ---- */

static _Atomic unsigned n_moved;
static char moved_id[64];
static _Atomic bool was_locked;

/* Called under the agent's lock, and under no mutex that a listener could need. */
static void on_moved(const char *agent_id, void *ctx)
{
    fixture *f = ctx;
    memfs_error ignored;
    bool is_known;
    agent *a;

    snprintf(moved_id, sizeof(moved_id), "%s", agent_id);
    if (home_entry(f->h, str_of(agent_id), false, &a, &is_known, &ignored) == MEMFS_OK) {
        was_locked = !agent_lock_for(a, 0);
        if (!was_locked)
            agent_unlock(a);
    }
    n_moved++;
}

static unsigned moves(void)
{
    return atomic_exchange(&n_moved, 0);
}

static int intake_begin(void **state)
{
    fixture *f;

    fixture_begin(state);
    f = *state;
    close_home(f);
    f->options.moved = on_moved;
    f->options.moved_ctx = f;
    open_home(f);
    moves();
    git(f->root, "clone", "-q", "--bare", store_genesis_path(home_store(f->h)), "remote.git");
    return 0;
}

#define INTAKE_TEST(name) cmocka_unit_test_setup_teardown(name, intake_begin, fixture_end)

/* ---- the remote ---- */

static const memfs_oid ZERO;

static char *remote_path(fixture *f)
{
    return mem_printf("%s/remote.git", f->root);
}

/* Where the clone is becomes main over there, whatever was there. */
static void mirror_work(fixture *f)
{
    _cleanup_(mem_freep) char *remote = remote_path(f);

    git(f->work, "push", "-q", "-f", remote, "HEAD:refs/heads/main");
}

static memfs_oid give_remote(fixture *f, const char *message)
{
    memfs_oid id = commit_all(f->work, message);

    mirror_work(f);
    return id;
}

static void go_to(fixture *f, const memfs_oid *commit)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(commit, hex);
    git(f->work, "checkout", "-q", "-f", "--detach", hex);
    git(f->work, "clean", "-q", "-f", "-d");
}

static memfs_code fetch_remote(fixture *f, const char *repo_name, fetched **ret, memfs_oid *tip,
                               memfs_error *err)
{
    _cleanup_(mem_freep) char *remote = remote_path(f);
    transport_target t = { .url = remote, .may_path = true };
    transport_report report = { .is_empty = false };
    memfs_code rc;

    rc = fetched_begin(home_store(f->h), repo_name, ret, err);
    if (rc == MEMFS_OK)
        rc = fetched_fetch(*ret, &t, STORE_MAIN, 0, clock_mono_ms() + 60000, tip, &report, err);
    return rc;
}

static memfs_code take(fixture *f, intake_keep keep, const memfs_oid *last_seen,
                       intake_result *ret, memfs_error *err)
{
    _cleanup_(fetched_freep) fetched *in = NULL;
    memfs_oid theirs;
    memfs_code rc = fetch_remote(f, REPO_A, &in, &theirs, err);

    if (rc < 0)
        return rc;
    return intake_fetched(f->h, ID_A, in, &theirs, last_seen, keep, "fetch: origin", ret, err);
}

#define TAKE(f, keep, ret) OK(take(f, keep, &ZERO, ret, &err))

static void read_commit(fixture *f, const memfs_oid *id, commit_info *ret)
{
    _cleanup_(repo_closep) repo *r = NULL;

    OK(repo_open(home_store(f->h), REPO_A, &r, &err));
    OK(repo_commit_info(r, id, ret, &err));
}

static bool contains(fixture *f, const memfs_oid *ancestor, const memfs_oid *commit)
{
    _cleanup_(repo_closep) repo *r = NULL;
    bool is_there = false;

    OK(repo_open(home_store(f->h), REPO_A, &r, &err));
    if (repo_has(r, ancestor))
        OK(repo_is_ancestor(r, ancestor, commit, &is_there, &err));
    return is_there;
}

static void assert_tip(fixture *f, const memfs_oid *want)
{
    memfs_oid tip = tip_of(f, ID_A);

    assert_true(oid_equal(&tip, want));
}

/* Rows, ref, log and objects agree, and no fetch left anything. */
static void assert_healthy(fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(65536);
    const char *argv[] = { "/usr/bin/find", f->path, "-path", "*/tmp/*", "-name", "fetched-*",
                           NULL };
    const char *env[] = { NULL };
    process_spec spec = { .argv = argv, .env = env };
    upkeep_result result;

    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_int_equal(result.n_findings, 0);
    OK(process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &err));
    assert_string_equal(out.ptr, "");
}

static void last_reflog(fixture *f, char *ret, size_t n)
{
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *log = mem_printf("%s/logs/refs/heads/main", path);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    char *line;

    OK(fs_read(log, &text, &err));
    text.ptr[text.len - 1] = '\0';
    line = strrchr(text.ptr, '\t');
    snprintf(ret, n, "%s", line != NULL ? line + 1 : "");
}

/* ---- what they have becomes main ---- */

static void test_what_is_ahead_is_taken_as_it_is(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid one, two;
    intake_result r;
    char why[64];

    put_file(f->work, "system/human.md", MEMFS_STR("one"));
    one = push_work(f, ID_A);
    assert_int_equal(moves(), 1);
    put_file(f->work, "system/human.md", MEMFS_STR("two"));
    two = give_remote(f, "in the web editor");
    TAKE(f, INTAKE_MERGE, &r);
    assert_true(r.moved && r.is_theirs && !r.merge.is_merge);
    assert_true(oid_equal(&r.before, &one) && oid_equal(&r.tip, &two));
    assert_tip(f, &two);
    assert_string_equal(value_of(f, ID_A, "system/human", &text), "two");
    assert_int_equal(moves(), 1);
    assert_string_equal(moved_id, AGENT_A);
    assert_true(was_locked);
    last_reflog(f, why, sizeof(why));
    assert_string_equal(why, "fetch: origin");
    assert_healthy(f);
    assert_int_equal(f->alarms.len, 0);
}

static void test_F28_our_own_push_that_comes_back_changes_nothing(void **state)
{
    fixture *f = *state;
    memfs_oid one, two;
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    two = one;
    mirror_work(f);
    for (int behind = 0; behind < 2; behind++) {
        moves();
        atomic_store(&n_syncs, 0);
        TAKE(f, INTAKE_MERGE, &r);
        assert_false(r.moved);
        assert_true(oid_equal(&r.tip, &r.before));
        assert_int_equal(r.is_theirs, !behind);
        assert_int_equal(moves(), 0);
        assert_int_equal(atomic_load(&n_syncs), 0);
        if (!behind) {
            put_file(f->work, "a.md", MEMFS_STR("2"));
            two = push_work(f, ID_A); /* now main is ahead of the remote */
        }
    }
    assert_tip(f, &two);
    assert_true(contains(f, &one, &two));
    assert_healthy(f);
}

/* One commit, then ours and theirs on top of it; returns theirs. */
static memfs_oid diverge(fixture *f, memfs_oid *ret_ours)
{
    memfs_oid base, theirs;

    put_file(f->work, "a.md", MEMFS_STR("base\n"));
    base = push_work(f, ID_A);
    put_file(f->work, "ours.md", MEMFS_STR("ours\n"));
    *ret_ours = push_work(f, ID_A);
    go_to(f, &base);
    put_file(f->work, "theirs.md", MEMFS_STR("theirs\n"));
    theirs = give_remote(f, "theirs");
    moves();
    return theirs;
}

static void test_what_went_apart_is_merged_and_both_sides_are_there(void **state)
{
    fixture *f = *state;
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid ours, theirs = diverge(f, &ours), again;
    intake_result r;

    TAKE(f, INTAKE_MERGE, &r);
    assert_true(r.moved && !r.is_theirs && r.merge.is_merge && !r.merge.is_unrelated);
    assert_true(oid_equal(&r.before, &ours) && oid_equal(&r.merge.commit, &r.tip));
    assert_true(contains(f, &ours, &r.tip) && contains(f, &theirs, &r.tip));
    read_commit(f, &r.tip, &info);
    assert_int_equal(info.n_parents, 2);
    assert_true(str_equal(info.author_name, MEMFS_STR("memfs")));
    assert_string_equal(value_of(f, ID_A, "ours", &text), "ours\n");
    assert_string_equal(value_of(f, ID_A, "theirs", &text), "theirs\n");
    assert_int_equal(moves(), 1);
    again = r.tip;
    intake_result_dispose(&r);
    TAKE(f, INTAKE_MERGE, &r); /* they have not heard of it yet */
    assert_false(r.moved);
    assert_tip(f, &again);
    assert_healthy(f);
}

/* As on another server that got the same commits the other way round (F28). */
static void test_F28_the_merge_is_the_same_whoever_makes_it(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *remote = remote_path(f);
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(fetched_freep) fetched *in = NULL;
    memfs_oid ours, theirs = diverge(f, &ours), tip;
    intake_result r, other;

    go_to(f, &theirs);
    assert_true(try_push(f, ID_B, STORE_GENESIS, theirs).moved);
    TAKE(f, INTAKE_MERGE, &r);
    git(path, "push", "-q", "-f", remote, "main~1:refs/heads/main"); /* first parent: one of both */
    tip = git_id(remote, "main");
    if (oid_equal(&tip, &theirs))
        git(path, "push", "-q", "-f", remote, "main^2:refs/heads/main");
    OK(fetch_remote(f,
                    "repository/org-00000000-0000-4000-8000-000000000000/" AGENT_B "/repo.git",
                    &in, &tip, &err));
    assert_true(oid_equal(&tip, &ours));
    OK(intake_fetched(f->h, ID_B, in, &tip, &ZERO, INTAKE_MERGE, "fetch", &other, &err));
    assert_true(oid_equal(&r.tip, &other.tip));
}

static void test_both_sides_lines_are_kept_and_noted(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid base;
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("base\n"));
    base = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("ours\n"));
    push_work(f, ID_A);
    go_to(f, &base);
    put_file(f->work, "a.md", MEMFS_STR("theirs\n"));
    give_remote(f, "theirs");
    TAKE(f, INTAKE_MERGE, &r);
    value_of(f, ID_A, "a", &text);
    assert_non_null(strstr(text.ptr, "ours\n"));
    assert_non_null(strstr(text.ptr, "theirs\n"));
    assert_int_equal(r.merge.n_notes, 1);
    assert_string_equal(r.merge.notes[0].path, "a.md");
    intake_result_dispose(&r);
    assert_int_equal(r.merge.n_notes, 0);
}

static memfs_oid give_orphan(fixture *f)
{
    git(f->work, "checkout", "-q", "--orphan", "foreign");
    git(f->work, "rm", "-q", "-r", "-f", "--ignore-unmatch", ".");
    put_file(f->work, "foreign.md", MEMFS_STR("foreign\n"));
    return give_remote(f, "another root");
}

static void test_H5_another_root_is_merged_and_nothing_is_lost(void **state)
{
    fixture *f = *state;
    memfs_oid ours, theirs;
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("ours\n"));
    ours = push_work(f, ID_A);
    theirs = give_orphan(f);
    TAKE(f, INTAKE_MERGE, &r);
    assert_true(r.moved && r.merge.is_merge && r.merge.is_unrelated);
    assert_true(contains(f, &ours, &r.tip) && contains(f, &theirs, &r.tip));
    assert_int_equal(n_blocks(f, ID_A), 2);
    assert_healthy(f);
}

/* ---- an agent that is not known ---- */

static void test_an_unknown_agent_begins_with_what_the_remote_has(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid theirs;
    intake_result r;
    bool is_known;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    give_remote(f, "one");
    put_file(f->work, "a.md", MEMFS_STR("2"));
    theirs = give_remote(f, "two");
    TAKE(f, INTAKE_MERGE, &r);
    assert_true(r.moved && r.is_theirs && oid_is_zero(&r.before));
    assert_tip(f, &theirs);
    OK(state_agent_known(home_state(f->h), ID_A, &is_known, &err));
    assert_true(is_known);
    assert_string_equal(value_of(f, ID_A, "a", &text), "2");
    assert_int_equal(moves(), 1);
    reopen_home(f);
    assert_tip(f, &theirs);
    assert_healthy(f);
}

static void test_an_unknown_agent_whose_remote_has_only_the_genesis_is_made(void **state)
{
    fixture *f = *state;
    intake_result r;

    TAKE(f, INTAKE_MERGE, &r);
    assert_true(r.moved && r.is_theirs && oid_is_zero(&r.before));
    assert_tip(f, &STORE_GENESIS);
    assert_true(store_has(home_store(f->h), REPO_A));
    assert_int_equal(moves(), 1);
    assert_healthy(f);
}

static void test_H5_an_unknown_agent_with_a_foreign_root_gets_the_genesis_beside_it(void **state)
{
    fixture *f = *state;
    memfs_oid theirs = give_orphan(f);
    intake_result r;

    TAKE(f, INTAKE_MERGE, &r);
    assert_true(r.moved && !r.is_theirs && r.merge.is_unrelated);
    assert_true(contains(f, &STORE_GENESIS, &r.tip) && contains(f, &theirs, &r.tip));
    assert_int_equal(n_blocks(f, ID_A), 1);
    assert_healthy(f);
}

/* ---- refused ---- */

static memfs_oid give_link(fixture *f)
{
    _cleanup_(mem_freep) char *link = mem_printf("%s/link.md", f->work);

    assert_int_equal(symlink("/etc/passwd", link), 0);
    return give_remote(f, "a link");
}

static void test_T11_what_no_push_may_bring_no_fetch_may(void **state)
{
    fixture *f = *state;
    memfs_error why = MEMFS_ERROR_INIT;
    memfs_oid one, theirs;
    intake_result r;

    theirs = give_link(f);
    assert_int_equal(take(f, INTAKE_MERGE, &ZERO, &r, &why), MEMFS_EDENIED);
    assert_non_null(strstr(why.msg, "link.md"));
    assert_false(store_has(home_store(f->h), REPO_A)); /* of a refused one nothing begins */
    drop_file(f->work, "link.md");
    git(f->work, "reset", "-q", "--hard", "HEAD~1");
    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    moves();
    atomic_store(&n_syncs, 0);
    assert_int_equal(take(f, INTAKE_MERGE, &ZERO, &r, &why), MEMFS_EDENIED);
    assert_int_equal(take(f, INTAKE_THEIRS, &ZERO, &r, &why), MEMFS_EDENIED);
    assert_tip(f, &one);
    assert_false(contains(f, &theirs, &one));
    assert_int_equal(moves(), 0);
    assert_healthy(f);

    go_to(f, &theirs); /* whoever takes it out again has mended it for everybody */
    drop_file(f->work, "link.md");
    put_file(f->work, "b.md", MEMFS_STR("2"));
    give_remote(f, "without it");
    TAKE(f, INTAKE_MERGE, &r);
    assert_int_equal(n_blocks(f, ID_A), 2);
    assert_healthy(f);
}

/* A remote that is behind has nothing to be judged: what it has was ours before the rules were. */
static void test_what_main_contains_is_not_judged_again(void **state)
{
    static const intake_keep KEEPS[] = { INTAKE_MERGE, INTAKE_OURS };
    fixture *f = *state;
    memfs_oid with, without;
    intake_result r;

    close_home(f);
    f->options.policy.lenient = true;
    open_home(f);
    with = give_link(f);
    assert_true(try_push(f, ID_A, STORE_GENESIS, with).moved);
    drop_file(f->work, "link.md");
    without = push_work(f, ID_A);
    close_home(f);
    f->options.policy.lenient = false;
    open_home(f);
    for (size_t i = 0; i < ARRAY_LEN(KEEPS); i++) {
        TAKE(f, KEEPS[i], &r);
        assert_false(r.moved);
        assert_tip(f, &without);
    }
}

static void test_strict_front_matter_refuses_what_is_fetched_too(void **state)
{
    fixture *f = *state;
    memfs_error why = MEMFS_ERROR_INIT;
    intake_result r;

    close_home(f);
    f->options.policy.strict_frontmatter = true;
    open_home(f);
    put_file(f->work, "system/a.md", MEMFS_STR("---\na: b: c\n---\nv\n"));
    give_remote(f, "bad");
    assert_int_equal(take(f, INTAKE_MERGE, &ZERO, &r, &why), MEMFS_EDENIED);
    assert_non_null(strstr(why.msg, "'system/a.md': front matter"));
    assert_false(store_has(home_store(f->h), REPO_A));
}

/* The remote still has what was purged here: it stays there, and does not come back (T28). */
static void test_T28_a_remote_that_still_has_a_purged_secret_is_refused(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A, .needle = MEMFS_STR("hunter2-hunter2") };
    static const intake_keep KEEPS[] = { INTAKE_MERGE, INTAKE_OURS, INTAKE_THEIRS, INTAKE_REVIVE };
    memfs_error why = MEMFS_ERROR_INIT;
    memfs_oid secret, purged, remote_tip;
    purge_result gone;
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    put_file(f->work, "s.md", MEMFS_STR("key: hunter2-hunter2\n"));
    remote_tip = push_work(f, ID_A);
    secret = git_id(f->work, "HEAD:s.md");
    mirror_work(f);
    moves();
    OK(upkeep_purge(f->h, &q, NULL, &gone, &err));
    assert_int_equal(moves(), 1);
    purged = tip_of(f, ID_A);
    for (size_t i = 0; i < ARRAY_LEN(KEEPS); i++) {
        assert_int_equal(take(f, KEEPS[i], &remote_tip, &r, &why), MEMFS_EDENIED);
        assert_non_null(strstr(why.msg, "purged"));
        assert_tip(f, &purged);
        assert_false(contains(f, &secret, &purged));
    }
    put_file(f->work, "b.md", MEMFS_STR("2")); /* also beneath commits of others */
    give_remote(f, "on top of it");
    drop_file(f->work, "s.md");
    give_remote(f, "taken out too late");
    assert_int_equal(take(f, INTAKE_MERGE, &remote_tip, &r, &why), MEMFS_EDENIED);
    assert_tip(f, &purged);
    assert_int_equal(moves(), 0);
    assert_healthy(f);
}

/* ---- an operator's decision ---- */

static void test_ours_keeps_our_files_and_both_histories(void **state)
{
    fixture *f = *state;
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_oid ours, theirs = diverge(f, &ours), first;
    intake_result r;

    TAKE(f, INTAKE_OURS, &r);
    assert_true(r.moved && r.merge.is_merge && !r.merge.is_unrelated && !r.is_theirs);
    assert_true(contains(f, &ours, &r.tip) && contains(f, &theirs, &r.tip));
    assert_int_equal(n_blocks(f, ID_A), 2); /* a and ours */
    read_commit(f, &r.tip, &info);
    assert_int_equal(info.n_parents, 2);
    assert_true(memcmp(info.parents[0].id, info.parents[1].id, sizeof(ours.id)) < 0);
    assert_non_null(memmem(info.message.ptr, info.message.len, "as an operator decided", 22));
    first = r.tip;
    TAKE(f, INTAKE_OURS, &r); /* done already */
    assert_false(r.moved);
    assert_tip(f, &first);
    assert_healthy(f);
}

/* Their files are refused, but none of them comes in. */
static void test_ours_goes_past_the_policy_as_nothing_of_theirs_comes_in(void **state)
{
    fixture *f = *state;
    memfs_oid one, theirs;
    intake_result r;

    theirs = give_link(f);
    git(f->work, "reset", "-q", "--hard", "HEAD~1");
    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    TAKE(f, INTAKE_OURS, &r);
    assert_true(r.moved);
    assert_true(contains(f, &one, &r.tip) && contains(f, &theirs, &r.tip));
    assert_int_equal(n_blocks(f, ID_A), 1);
    assert_healthy(f);
}

static void test_theirs_takes_their_files_and_both_histories(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid ours, theirs = diverge(f, &ours), joined, rewound;
    intake_result r;

    TAKE(f, INTAKE_THEIRS, &r);
    assert_true(r.moved && r.merge.is_merge);
    assert_true(contains(f, &ours, &r.tip) && contains(f, &theirs, &r.tip));
    assert_string_equal(value_of(f, ID_A, "ours", &text), "<none>");
    assert_string_equal(value_of(f, ID_A, "theirs", &text), "theirs\n");
    joined = r.tip;
    TAKE(f, INTAKE_THEIRS, &r);
    assert_false(r.moved);
    assert_tip(f, &joined);

    git(f->work, "reset", "-q", "--hard", "HEAD~1"); /* they went back, and that is to stand */
    mirror_work(f);
    rewound = git_id(f->work, "HEAD");
    TAKE(f, INTAKE_THEIRS, &r);
    assert_true(r.moved);
    assert_true(contains(f, &joined, &r.tip) && contains(f, &rewound, &r.tip));
    assert_string_equal(value_of(f, ID_A, "theirs", &text), "<none>");
    assert_string_equal(value_of(f, ID_A, "a", &text), "base\n");

    git(f->work, "fetch", "-q", path, "main");
    go_to(f, &r.tip); /* and what is simply ahead is taken as it is */
    put_file(f->work, "a.md", MEMFS_STR("ahead\n"));
    theirs = give_remote(f, "ahead");
    TAKE(f, INTAKE_THEIRS, &r);
    assert_true(r.moved && r.is_theirs && !r.merge.is_merge);
    assert_healthy(f);
}

static void test_H4_a_lost_repository_is_made_again_only_when_asked(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid one;
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    mirror_work(f);
    put_file(f->work, "a.md", MEMFS_STR("not mirrored yet"));
    push_work(f, ID_A);
    OK(fs_remove_tree(path, &err));
    for (int restarted = 0; restarted < 2; restarted++) {
        FAILS(MEMFS_EUNAVAIL, take(f, INTAKE_MERGE, &ZERO, &r, &err));
        assert_false(fs_exists(path));
        if (!restarted)
            reopen_home(f);
    }
    moves();
    TAKE(f, INTAKE_REVIVE, &r);
    assert_true(r.moved && r.is_theirs && oid_is_zero(&r.before));
    assert_tip(f, &one);
    assert_string_equal(value_of(f, ID_A, "a", &text), "1");
    assert_int_equal(moves(), 1);
    assert_healthy(f);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    give_remote(f, "two");
    TAKE(f, INTAKE_REVIVE, &r); /* of one that is there it is a merge */
    assert_true(r.moved && r.is_theirs);
}

/* ---- restore ---- */

static const store_identity WHO = { "operator", "o@o", 1800000000 };

static memfs_code restore(fixture *f, const char *at, intake_result *ret, memfs_error *err)
{
    return intake_restore(f->h, ID_A, at, &WHO, ret, err);
}

static void test_a_restore_is_a_commit_on_top_and_undone_by_another(void **state)
{
    fixture *f = *state;
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    _cleanup_(buf_dispose) memfs_buf message = MEMFS_BUF_INIT(4096);
    char hex[MEMFS_OID_HEX + 1], first[MEMFS_OID_HEX + 1];
    memfs_oid one, two;
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    put_file(f->work, "gone.md", MEMFS_STR("gone"));
    one = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    drop_file(f->work, "gone.md");
    two = push_work(f, ID_A);
    moves();
    oid_hex(&one, hex);
    oid_hex(&one, first);
    first[7] = '\0';
    OK(restore(f, first, &r, &err));
    assert_true(r.moved && oid_equal(&r.before, &two));
    assert_tip(f, &r.tip);
    assert_int_equal(moves(), 1);
    assert_string_equal(value_of(f, ID_A, "a", &text), "1");
    assert_string_equal(value_of(f, ID_A, "gone", &text), "gone");
    read_commit(f, &r.tip, &info);
    assert_int_equal(info.n_parents, 1);
    assert_true(oid_equal(&info.parents[0], &two));
    assert_true(str_equal(info.author_name, MEMFS_STR("operator")));
    buf_printf(&message, "Restore %s (2023-11-14T22:13:20Z)\n", first);
    assert_true(str_equal(info.message, buf_str(&message)));

    OK(restore(f, hex, &r, &err)); /* it is that already */
    assert_false(r.moved);
    assert_true(oid_equal(&r.tip, &r.before));
    oid_hex(&two, hex);
    OK(restore(f, hex, &r, &err)); /* the undo */
    assert_true(r.moved);
    assert_string_equal(value_of(f, ID_A, "a", &text), "2");
    assert_string_equal(value_of(f, ID_A, "gone", &text), "<none>");
    assert_healthy(f);
}

static void test_a_restore_to_a_time_takes_what_main_was_then(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    static const char at[] = "@1700000000"; /* what the pusher of the fixture says that it is */
    intake_result r;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    push_work(f, ID_A);
    OK(restore(f, at, &r, &err)); /* the last of them */
    assert_false(r.moved);
    FAILS(MEMFS_ENOTFOUND, restore(f, "@1000000", &r, &err));
    OK(restore(f, "56776245ff7b896622904bfc4d1c355a35e6cd81", &r, &err)); /* the genesis */
    assert_true(r.moved);
    assert_int_equal(n_blocks(f, ID_A), 0);
    OK(restore(f, at, &r, &err)); /* the restore is dated later: before it, main was at two */
    assert_true(r.moved);
    assert_string_equal(value_of(f, ID_A, "a", &text), "2");
    assert_healthy(f);
}

static void test_a_restore_says_what_it_cannot_find(void **state)
{
    static const struct {
        const char *at;
        memfs_code code;
    } cases[] = {
        { "", MEMFS_EINVALID },          { "567762", MEMFS_EINVALID },
        { "main", MEMFS_EINVALID },      { "HEAD~1234", MEMFS_EINVALID },
        { "ABCDEF12", MEMFS_EINVALID },  { "@", MEMFS_EINVALID },
        { "@-5", MEMFS_EINVALID },       { "@yesterday", MEMFS_EINVALID },
        { "0123456789", MEMFS_ENOTFOUND }, { "@1", MEMFS_ENOTFOUND },
        { "56776245ff7b896622904bfc4d1c355a35e6cd81f", MEMFS_EINVALID },
    };
    fixture *f = *state;
    memfs_oid before, aside;
    char hex[MEMFS_OID_HEX + 1];
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    intake_result r;

    FAILS(MEMFS_ENOTFOUND, restore(f, "1234567", &r, &err)); /* nobody knows the agent */
    put_file(f->work, "a.md", MEMFS_STR("1"));
    before = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("aside"));
    aside = commit_all(f->work, "beside main");
    git(path, "fetch", "-q", f->work, "HEAD:refs/memfs/aside"); /* there, but not main's */
    oid_hex(&aside, hex);
    FAILS(MEMFS_ENOTFOUND, restore(f, hex, &r, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        FAILS(cases[i].code, restore(f, cases[i].at, &r, &err));
    assert_tip(f, &before);
}

static void test_a_restore_does_not_bring_back_what_was_purged(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A, .needle = MEMFS_STR("hunter2-hunter2") };
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid with;
    purge_result gone;
    intake_result r;

    put_file(f->work, "s.md", MEMFS_STR("key: hunter2-hunter2\n"));
    with = push_work(f, ID_A);
    OK(upkeep_purge(f->h, &q, NULL, &gone, &err));
    oid_hex(&with, hex);
    FAILS(MEMFS_ENOTFOUND, restore(f, hex, &r, &err));
    FAILS(MEMFS_ENOTFOUND, restore(f, "@1700000000", &r, &err));
}

/* ---- attributes ---- */

static memfs_code take_created(const block_row *row, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = row->created_at_us;
    return MEMFS_OK;
}

static int64_t created_at(fixture *f, const char *label)
{
    block_query q = { .agent_id = ID_A, .label = str_of(label), .show_hidden = true };
    int64_t at_us = -1;

    OK(cache_blocks(home_cache(f->h), &q, take_created, &at_us, &err));
    return at_us;
}

static void test_K4_births_from_elsewhere_date_the_rows_before_and_after(void **state)
{
    fixture *f = *state;
    state_birth births[] = { { MEMFS_STR("a"), 1000 }, { MEMFS_STR("b"), 2000 } };
    state_agent who = { .id = ID_A, .name = MEMFS_STR("Ada") };
    intake_result r;

    OK(intake_attributes(f->h, &who, births, 1, &err)); /* not known yet */
    put_file(f->work, "a.md", MEMFS_STR("1"));
    put_file(f->work, "b.md", MEMFS_STR("1"));
    give_remote(f, "one");
    TAKE(f, INTAKE_MERGE, &r);
    assert_int_equal(created_at(f, "a"), 1000);
    assert_true(created_at(f, "b") > 2000);
    OK(intake_attributes(f->h, &who, births, 2, &err)); /* rows are there */
    assert_int_equal(created_at(f, "b"), 2000);
    assert_healthy(f);
    atomic_store(&n_syncs, 0);
    OK(intake_attributes(f->h, &who, births, 2, &err));
    assert_int_equal(atomic_load(&n_syncs), 0);
}

/* ---- who listens, by the other doors ---- */

static void test_every_move_of_main_is_told(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    char *at_b = NULL, *folder = NULL;
    memfs_oid one;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    assert_int_equal(moves(), 1);
    assert_true(try_push(f, ID_A, STORE_GENESIS, one).moved); /* told before: nothing moved */
    assert_int_equal(moves(), 0);

    put_file(f->work, "a.md", MEMFS_STR("by hand"));
    commit_all(f->work, "by hand");
    git(f->work, "push", "-q", path, "HEAD:main");
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(moves(), 1);
    assert_true(was_locked);
    close_home(f);
    git(path, "update-ref", "refs/heads/main", "main~1"); /* while nobody ran */
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(moves(), 1);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(moves(), 0);

    at_b = mem_printf("%s/repository/org-00000000-0000-4000-8000-000000000000/" AGENT_B, f->path);
    folder = mem_printf("%s/repo.git", at_b);
    OK(fs_mkdirs(at_b, &err)); /* a folder that the state does not know */
    OK(fs_copy_tree(path, folder, &err));
    OK(home_agent(f->h, ID_B, &a, &err));
    assert_int_equal(moves(), 1);
    assert_string_equal(moved_id, AGENT_B);
    free(at_b);
    free(folder);
}

static int count_push(fixture *f, const char *path, const char *text, const memfs_oid *old,
                      memfs_oid *ret_new)
{
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
    push_verdict v;

    put_file(f->work, path, str_of(text));
    *ret_new = commit_all(f->work, "change");
    make_pack(f->work, old, ret_new, &pack);
    atomic_store(&n_syncs, 0);
    OK(push_pack(f->h, ID_A, (push_command){ *old, *ret_new, MEMFS_STR(STORE_MAIN) },
                 buf_str(&pack), &f->talk, &v, &err));
    assert_true(v.moved);
    return atomic_load(&n_syncs);
}

/*
 * What a push costs, to the fsync of this process (git's are its own), as it was before there were
 * mirrors: whoever adds one makes every push slower.
 */
static void test_L3_a_push_syncs_what_it_synced_before_there_were_mirrors(void **state)
{
    fixture *f = *state;
    memfs_oid one, two, three, four;

    assert_int_equal(count_push(f, "a.md", "1", &STORE_GENESIS, &one), 29); /* makes all */
    assert_int_equal(count_push(f, "a.md", "2", &one, &two), 3); /* packs, ref, its folder */
    assert_int_equal(count_push(f, "b.md", "1", &two, &three), 4); /* and the birth of a block */
    reopen_home(f);
    assert_int_equal(count_push(f, "b.md", "2", &three, &four), 12); /* settled once a start */
}

/* ---- many at once ---- */

enum { N_PUSHERS = 3, N_PUSHES = 5, N_INTAKES = 8 };

typedef struct worker {
    fixture *f;
    int number;
    memfs_oid made[N_PUSHES > N_INTAKES ? (int)N_PUSHES : (int)N_INTAKES];
    size_t n;
} worker;

/* A commit on base with one file more, made in the clone that all share. */
static memfs_oid make_commit(fixture *f, const memfs_oid *base, int number, int round)
{
    _cleanup_(mem_freep) char *index_env =
        mem_printf("GIT_INDEX_FILE=%s/index-%d", f->root, number);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(65536);
    char hex[MEMFS_OID_HEX + 1], script[1024];
    const char *argv[] = { "/bin/sh", "-e", "-c", script, NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent",
                          "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t", "GIT_COMMITTER_NAME=t",
                          "GIT_COMMITTER_EMAIL=t@t", index_env, NULL };
    process_spec spec = { .argv = argv, .env = env, .cwd = f->work };
    memfs_oid id;

    oid_hex(base, hex);
    snprintf(script, sizeof(script),
             "git read-tree %s; b=$(echo 'w%d r%d' | git hash-object -w --stdin);"
             "git update-index --add --cacheinfo 100644,$b,w%d.md; t=$(git write-tree);"
             "echo 'w%d r%d' | git commit-tree $t -p %s",
             hex, number, round, number, number, round, hex);
    OK(process_run(&spec, MEMFS_STR(""), &out, NULL, 60000, &err));
    assert_true(oid_parse(str_make(out.ptr, MEMFS_OID_HEX), &id));
    return id;
}

static void *push_rounds(void *arg)
{
    _cleanup_(buf_dispose) memfs_buf talk = MEMFS_BUF_INIT(1u << 20);
    worker *w = arg;

    for (int round = 0; round < N_PUSHES; round++) {
        for (int tries = 0; tries < 300; tries++) {
            _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
            memfs_oid old = tip_of(w->f, ID_A);
            memfs_oid new = make_commit(w->f, &old, w->number, round);
            push_verdict v;

            make_pack(w->f->work, &old, &new, &pack);
            buf_clear(&talk);
            OK(push_pack(w->f->h, ID_A, (push_command){ old, new, MEMFS_STR(STORE_MAIN) },
                         buf_str(&pack), &talk, &v, &err));
            if (v.moved) {
                w->made[w->n++] = new;
                break;
            }
            assert_string_equal(v.refusal, "fetch first");
        }
    }
    return NULL;
}

/* The remote goes its own way from the first commit on, and is taken in after each step. */
static void *intake_rounds(void *arg)
{
    worker *w = arg;
    _cleanup_(mem_freep) char *remote = remote_path(w->f);
    memfs_oid tip = w->made[0];

    for (int round = 0; round < N_INTAKES; round++) {
        char refspec[MEMFS_OID_HEX + 32], hex[MEMFS_OID_HEX + 1];
        intake_result r;

        tip = make_commit(w->f, &tip, w->number, round);
        oid_hex(&tip, hex);
        snprintf(refspec, sizeof(refspec), "%s:refs/heads/main", hex);
        git(w->f->work, "push", "-q", remote, refspec);
        TAKE(w->f, INTAKE_MERGE, &r);
        assert_true(r.moved);
        intake_result_dispose(&r);
        w->made[w->n++] = tip;
    }
    return NULL;
}

/* Until told to stop: restores go on top of whatever is there. */
static void *restore_rounds(void *arg)
{
    worker *w = arg;
    intake_result r;

    for (int round = 0; round < N_PUSHES; round++) {
        OK(restore(w->f, "@1700000000", &r, &err));
        if (r.moved)
            w->made[w->n++] = r.tip;
    }
    return NULL;
}

static void share_objects(fixture *f)
{
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *alternates = mem_printf("%s/.git/objects/info/alternates", f->work);
    _cleanup_(mem_freep) char *line = mem_printf("%s/objects\n", path);

    OK(fs_write_atomic(alternates, str_of(line), 0644, &err));
}

static void test_H2_F27_pushes_fetches_and_restores_at_once_lose_nothing(void **state)
{
    fixture *f = *state;
    worker workers[N_PUSHERS + 2];
    pthread_t threads[N_PUSHERS + 2];
    memfs_oid first, tip;
    unsigned n_made = 0;

    put_file(f->work, "first.md", MEMFS_STR("first"));
    first = push_work(f, ID_A);
    share_objects(f);
    moves();
    for (int i = 0; i < N_PUSHERS + 2; i++) {
        workers[i] = (worker){ .f = f, .number = i, .made = { first } };
        pthread_create(&threads[i], NULL,
                       i < N_PUSHERS    ? push_rounds
                       : i == N_PUSHERS ? intake_rounds
                                        : restore_rounds,
                       &workers[i]);
    }
    for (int i = 0; i < N_PUSHERS + 2; i++)
        pthread_join(threads[i], NULL);
    tip = tip_of(f, ID_A);
    for (int i = 0; i < N_PUSHERS + 2; i++) {
        n_made += (unsigned)workers[i].n;
        for (size_t k = 0; k < workers[i].n; k++)
            assert_true(contains(f, &workers[i].made[k], &tip));
    }
    assert_true(n_made >= N_PUSHERS * N_PUSHES + N_INTAKES);
    assert_int_equal(moves(), n_made); /* told once each, and none twice */
    assert_int_equal(f->alarms.len, 0);
    assert_healthy(f);
}

/* ---- kills ---- */

typedef memfs_code (*step_fn)(fixture *f, fetched *in, const memfs_oid *theirs, memfs_error *err);

static memfs_code take_step(fixture *f, fetched *in, const memfs_oid *theirs, memfs_error *err)
{
    intake_result r;

    return intake_fetched(f->h, ID_A, in, theirs, &ZERO, INTAKE_MERGE, "fetch", &r, err);
}

static memfs_code restore_step(fixture *f, fetched *in, const memfs_oid *theirs, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];
    intake_result r;

    (void)in;
    (void)theirs;
    oid_hex(&STORE_GENESIS, hex);
    return restore(f, hex, &r, err);
}

/* In a process of its own, killed before its n-th fsync or rename.  False: it came to its end. */
static bool killed_at(fixture *f, step_fn step, int n)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        fetched *in = NULL;
        memfs_oid theirs;
        memfs_error err;

        if (home_open(&f->options, &f->h, &err) < 0 ||
            fetch_remote(f, REPO_A, &in, &theirs, &err) < 0)
            _exit(2);
        atomic_store(&n_calls_left, n);
        _exit(step(f, in, &theirs, &err) < 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    return false;
}

/* All or nothing, and the next try does it (D3, D4). */
static int kill_everywhere(fixture *f, step_fn step, const memfs_oid *before)
{
    _cleanup_(mem_freep) char *saved = mem_printf("%s/saved", f->root);
    memfs_oid now, done;
    bool was_killed = true, had_moved = false;
    int n = 0;

    close_home(f);
    OK(fs_copy_tree(f->path, saved, &err));
    while (was_killed) {
        OK(fs_remove_tree(f->path, &err));
        OK(fs_copy_tree(saved, f->path, &err));
        was_killed = killed_at(f, step, n++);
        open_home(f);
        now = tip_of(f, ID_A);
        if (oid_equal(&now, before)) {
            assert_false(had_moved); /* once the ref is moved, no later kill takes it back */
        } else if (had_moved) {
            assert_true(oid_equal(&now, &done));
        } else {
            had_moved = true;
            done = now;
        }
        OK(home_recover_all(f->h, NULL, NULL, &(size_t){ 0 }, &err));
        if (store_has(home_store(f->h), REPO_A))
            assert_healthy(f);
        close_home(f);
    }
    assert_true(had_moved);
    open_home(f);
    return n;
}

static void test_F01_an_intake_killed_anywhere_is_whole_or_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    memfs_oid ours, theirs = diverge(f, &ours), tip;

    assert_true(kill_everywhere(f, take_step, &ours) > 5);
    tip = tip_of(f, ID_A);
    assert_true(contains(f, &ours, &tip) && contains(f, &theirs, &tip));
    assert_string_equal(value_of(f, ID_A, "theirs", &text), "theirs\n");
}

static void test_F01_a_first_intake_killed_anywhere_is_whole_or_nothing(void **state)
{
    fixture *f = *state;
    memfs_oid theirs;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    theirs = give_remote(f, "one");
    assert_true(kill_everywhere(f, take_step, &STORE_GENESIS) > 8);
    assert_tip(f, &theirs);
}

static void test_F01_a_restore_killed_anywhere_is_whole_or_nothing(void **state)
{
    fixture *f = *state;
    memfs_oid one;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    assert_true(kill_everywhere(f, restore_step, &one) > 4);
    assert_int_equal(n_blocks(f, ID_A), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        INTAKE_TEST(test_what_is_ahead_is_taken_as_it_is),
        INTAKE_TEST(test_F28_our_own_push_that_comes_back_changes_nothing),
        INTAKE_TEST(test_what_went_apart_is_merged_and_both_sides_are_there),
        INTAKE_TEST(test_F28_the_merge_is_the_same_whoever_makes_it),
        INTAKE_TEST(test_both_sides_lines_are_kept_and_noted),
        INTAKE_TEST(test_H5_another_root_is_merged_and_nothing_is_lost),
        INTAKE_TEST(test_an_unknown_agent_begins_with_what_the_remote_has),
        INTAKE_TEST(test_an_unknown_agent_whose_remote_has_only_the_genesis_is_made),
        INTAKE_TEST(test_H5_an_unknown_agent_with_a_foreign_root_gets_the_genesis_beside_it),
        INTAKE_TEST(test_T11_what_no_push_may_bring_no_fetch_may),
        INTAKE_TEST(test_what_main_contains_is_not_judged_again),
        INTAKE_TEST(test_strict_front_matter_refuses_what_is_fetched_too),
        INTAKE_TEST(test_T28_a_remote_that_still_has_a_purged_secret_is_refused),
        INTAKE_TEST(test_ours_keeps_our_files_and_both_histories),
        INTAKE_TEST(test_ours_goes_past_the_policy_as_nothing_of_theirs_comes_in),
        INTAKE_TEST(test_theirs_takes_their_files_and_both_histories),
        INTAKE_TEST(test_H4_a_lost_repository_is_made_again_only_when_asked),
        INTAKE_TEST(test_a_restore_is_a_commit_on_top_and_undone_by_another),
        INTAKE_TEST(test_a_restore_to_a_time_takes_what_main_was_then),
        INTAKE_TEST(test_a_restore_says_what_it_cannot_find),
        INTAKE_TEST(test_a_restore_does_not_bring_back_what_was_purged),
        INTAKE_TEST(test_K4_births_from_elsewhere_date_the_rows_before_and_after),
        INTAKE_TEST(test_every_move_of_main_is_told),
        INTAKE_TEST(test_L3_a_push_syncs_what_it_synced_before_there_were_mirrors),
        INTAKE_TEST(test_H2_F27_pushes_fetches_and_restores_at_once_lose_nothing),
        INTAKE_TEST(test_F01_an_intake_killed_anywhere_is_whole_or_nothing),
        INTAKE_TEST(test_F01_a_first_intake_killed_anywhere_is_whole_or_nothing),
        INTAKE_TEST(test_F01_a_restore_killed_anywhere_is_whole_or_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
