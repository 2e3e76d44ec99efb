/*
 * One commit by whoever asks over the API (sync/edit.h), and the tree that such a commit has.
 */
#include "sync_fixture.h"

#include "base/pool.h"
#include "store/amend.h"
#include "store/history.h"
#include "sync/edit.h"

#include <stdatomic.h>
#include <sys/syscall.h>

#define LOCKED "---\nread_only: true\n---\nKind.\n"

typedef struct asked {
    const char *puts[8][2]; /* path, content */
    const char *removes[8];
    const char *message;
    memfs_code refusal;
    int n_asked;
} asked;

static memfs_code plan_asked(edit *e, void *ctx, memfs_error *err)
{
    asked *a = ctx;

    a->n_asked++;
    for (size_t i = 0; i < ARRAY_LEN(a->puts) && a->puts[i][0] != NULL; i++) {
        memfs_code rc = edit_put(e, str_of(a->puts[i][0]), str_of(a->puts[i][1]), err);

        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < ARRAY_LEN(a->removes) && a->removes[i] != NULL; i++) {
        memfs_code rc = edit_remove(e, str_of(a->removes[i]), err);

        if (rc < 0)
            return rc;
    }
    if (a->message != NULL)
        edit_say(e, "%s", a->message);
    return a->refusal == MEMFS_OK ? MEMFS_OK : memfs_fail(err, a->refusal, "no");
}

static const store_identity WHO = { "token 1a2b3c4d", "agent@letta.com", 1750000000 };

static memfs_code try_edit_as(fixture *f, memfs_str id, push_read_only rule, asked *a,
                              edit_result *ret, memfs_error *err)
{
    const edit_options o = { .who = &WHO, .read_only = rule, .why = "test" };

    return edit_memory(f->h, id, &o, plan_asked, a, ret, NULL, err);
}

static memfs_code try_edit(fixture *f, asked *a, edit_result *ret, memfs_error *err)
{
    return try_edit_as(f, ID_A, PUSH_READ_ONLY_MAY, a, ret, err);
}

/* What real git has of main: paths, one a line. */
static void files_of(fixture *f, memfs_buf *out)
{
    _cleanup_(mem_freep) char *repo = mem_printf("%s/" REPO_A, f->path);
    const char *const args[] = { "ls-tree", "-r", "--name-only", "main", NULL };

    buf_clear(out);
    assert_int_equal(git_in(repo, MEMFS_STR(""), out, args), MEMFS_OK);
}

static void begin_memory(fixture *f)
{
    put_file(f->work, "system/human.md", MEMFS_STR("Ada\n"));
    put_file(f->work, "system/persona.md", MEMFS_STR("I count.\n"));
    put_file(f->work, "notes/a/deep.md", MEMFS_STR("deep\n"));
    put_file(f->work, "top.txt", MEMFS_STR("no block\n"));
    push_work(f, ID_A);
}

/* ---- what a commit is ---- */

static void test_a_commit_on_top_and_rows_with_it(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    asked a = { .puts = { { "system/human.md", "Bob\n" }, { "new/one.md", "1\n" } },
                .removes = { "notes/a/deep.md" },
                .message = "Change human\n\nand more\n" };
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    _cleanup_(repo_closep) repo *r = NULL;
    fixture *f = *state;
    edit_result done;
    memfs_oid tip;

    begin_memory(f);
    tip = tip_of(f, ID_A);
    OK(try_edit(f, &a, &done, &err));
    assert_true(done.moved && oid_equal(&done.before, &tip));
    tip = tip_of(f, ID_A);
    assert_true(oid_equal(&done.tip, &tip));
    assert_string_equal(value_of(f, ID_A, "system/human", &text), "Bob\n");
    assert_string_equal(value_of(f, ID_A, "new/one", &text), "1\n");
    assert_string_equal(value_of(f, ID_A, "notes/a/deep", &text), "<none>");
    files_of(f, &text);
    assert_string_equal(text.ptr, "new/one.md\nsystem/human.md\nsystem/persona.md\ntop.txt\n");
    OK(repo_open(home_store(f->h), REPO_A, &r, &err));
    OK(repo_commit_info(r, &done.tip, &info, &err));
    assert_true(str_equal(info.author_name, str_of(WHO.name)));
    assert_true(str_equal(info.message, MEMFS_STR("Change human\n\nand more\n")));
    assert_int_equal(info.n_parents, 1);
    assert_true(oid_equal(&info.parents[0], &done.before));
}

static void test_D4_what_changes_nothing_makes_no_commit(void **state)
{
    asked a = { .puts = { { "system/human.md", "Ada\n" } },
                .removes = { "nobody.md", "no/where.md" } };
    asked none = { .message = "nothing" };
    fixture *f = *state;
    edit_result done;

    begin_memory(f);
    OK(try_edit(f, &a, &done, &err));
    assert_true(!done.moved && oid_equal(&done.before, &done.tip));
    OK(try_edit(f, &none, &done, &err));
    assert_false(done.moved);
}

static void test_the_last_word_about_a_path_counts(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    asked a = { .puts = { { "x.md", "1" }, { "x.md", "2" }, { "y.md", "1" } },
                .removes = { "y.md" } };
    fixture *f = *state;
    edit_result done;

    begin_memory(f);
    OK(try_edit(f, &a, &done, &err));
    assert_string_equal(value_of(f, ID_A, "x", &text), "2");
    assert_string_equal(value_of(f, ID_A, "y", &text), "<none>");
}

static void test_files_and_folders_change_places(void **state)
{
    asked to_file = { .puts = { { "system", "now a file\n" } },
                      .removes = { "system/human.md", "system/persona.md" } };
    asked to_folder = { .puts = { { "system/again/x.md", "x\n" } }, .removes = { "system" } };
    asked below = { .puts = { { "top.txt/x.md", "x\n" } } };
    asked over = { .puts = { { "notes", "a file\n" } } };
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    fixture *f = *state;
    edit_result done;
    memfs_oid tip;

    begin_memory(f);
    OK(try_edit(f, &to_file, &done, &err));
    files_of(f, &text);
    assert_string_equal(text.ptr, "notes/a/deep.md\nsystem\ntop.txt\n");
    OK(try_edit(f, &to_folder, &done, &err));
    files_of(f, &text);
    assert_string_equal(text.ptr, "notes/a/deep.md\nsystem/again/x.md\ntop.txt\n");
    tip = tip_of(f, ID_A);
    FAILS(MEMFS_EINVALID, try_edit(f, &below, &done, &err));
    FAILS(MEMFS_EINVALID, try_edit(f, &over, &done, &err));
    assert_true(oid_equal(&tip, &(memfs_oid){ { 0 } }) == false);
    assert_memory_equal(&tip, &(memfs_oid[]){ tip_of(f, ID_A) }[0], sizeof(tip));
}

/* Names that git orders in its own way, beside each other. */
static void test_D6_trees_are_as_git_makes_them(void **state)
{
    asked a = { .puts = { { "a.md", "1" },
                          { "a/x.md", "2" },
                          { "a-b/x.md", "3" },
                          { "a0.md", "4" },
                          { "a/b/c.md", "5" },
                          { "A2.md", "6" },
                          { "z", "7" } } };
    fixture *f = *state;
    edit_result done;

    begin_memory(f);
    OK(try_edit(f, &a, &done, &err));
    OK(store_fsck(home_store(f->h), REPO_A, &err));
}

/* ---- what is refused, and leaves nothing ---- */

static void assert_refused(fixture *f, memfs_code code, asked *a, push_read_only rule)
{
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    edit_result done;

    dump(f, ID_A, &before);
    FAILS(code, try_edit_as(f, ID_A, rule, a, &done, &err));
    assert_false(done.moved);
    dump(f, ID_A, &after);
    assert_string_equal(before.ptr, after.ptr);
}

static void test_D3_a_refusal_has_changed_nothing(void **state)
{
    asked by_plan = { .puts = { { "x.md", "x" } }, .refusal = MEMFS_ECONFLICT };
    asked dots = { .puts = { { "good.md", "x" }, { "a/../b.md", "x" } } };
    asked git_folder = { .puts = { { ".git/config", "x" } } };
    asked twin = { .puts = { { "system/Human.md", "x" } } };
    asked absolute = { .puts = { { "/etc/passwd", "x" } } };
    asked empty_name = { .puts = { { "a//b.md", "x" } } };
    asked nothing = { .removes = { "" } };
    asked modules = { .puts = {
                          { ".gitmodules", "[submodule \"x\"]\n\tpath = -x\n\turl = -u\n" } } };
    asked attributes = { .puts = { { "a/.GitAttributes", "* text\n" } } };
    fixture *f = *state;

    begin_memory(f);
    assert_refused(f, MEMFS_ECONFLICT, &by_plan, PUSH_READ_ONLY_MAY);
    assert_int_equal(by_plan.n_asked, 1);
    assert_refused(f, MEMFS_EDENIED, &dots, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EDENIED, &git_folder, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EDENIED, &modules, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EDENIED, &attributes, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EDENIED, &twin, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EINVALID, &absolute, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EINVALID, &empty_name, PUSH_READ_ONLY_MAY);
    assert_refused(f, MEMFS_EINVALID, &nothing, PUSH_READ_ONLY_MAY);
}

static void test_read_only_is_for_agents(void **state)
{
    asked change = { .puts = { { "system/locked.md", "---\nread_only: true\n---\nMean.\n" } } };
    asked remove = { .removes = { "system/locked.md" } };
    fixture *f = *state;
    edit_result done;

    put_file(f->work, "system/locked.md", MEMFS_STR(LOCKED));
    begin_memory(f);
    assert_refused(f, MEMFS_EDENIED, &change, PUSH_READ_ONLY_MUST_NOT);
    assert_refused(f, MEMFS_EDENIED, &remove, PUSH_READ_ONLY_MUST_NOT);
    OK(try_edit(f, &change, &done, &err));
    assert_true(done.moved);
}

static void test_T28_what_was_purged_stays_away(void **state)
{
    asked a = { .puts = { { "system/human.md", "the secret\n" } } };
    fixture *f = *state;
    memfs_oid blob;

    begin_memory(f);
    put_file(f->work, "tmp", MEMFS_STR("the secret\n"));
    blob = git_id(f->work, "HEAD:system/human.md");
    OK(state_banned_add(home_state(f->h), ID_A, &blob, 1, &err)); /* another one is no matter */
    git(f->work, "hash-object", "-w", "tmp");
    {
        edit_result done;

        OK(try_edit(f, &a, &done, &err));
    }
    a.puts[0][1] = "Ada\n";
    assert_refused(f, MEMFS_EDENIED, &a, PUSH_READ_ONLY_MAY);
    drop_file(f->work, "tmp");
}

/* ---- of whom ---- */

static void test_an_agent_that_nobody_knows_is_made_only_when_asked(void **state)
{
    edit_options o = { .who = &WHO, .why = "create" };
    asked a = { .puts = { { "system/persona.md", "new\n" } } };
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    fixture *f = *state;
    edit_result done;

    FAILS(MEMFS_ENOTFOUND, edit_memory(f->h, ID_B, &o, plan_asked, &a, &done, NULL, &err));
    o.may_be_new = true;
    OK(edit_memory(f->h, ID_B, &o, plan_asked, &a, &done, NULL, &err));
    assert_true(done.moved && oid_equal(&done.before, &STORE_GENESIS));
    assert_string_equal(value_of(f, ID_B, "system/persona", &text), "new\n");
    reopen_home(f);
    assert_string_equal(value_of(f, ID_B, "system/persona", &text), "new\n");
}

/* ---- sixteen at once ---- */

typedef struct appender {
    fixture *f;
    int me;
    pthread_t thread;
} appender;

static memfs_code plan_append(edit *e, void *ctx, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc = edit_read(e, MEMFS_STR("log.md"), &text, NULL, err);

    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    buf_printf(&text, "%d\n", *(int *)ctx);
    return edit_put(e, MEMFS_STR("log.md"), buf_str(&text), err);
}

static void *append(void *ctx)
{
    const edit_options o = { .who = &WHO, .why = "append" };
    appender *a = ctx;
    edit_result done;

    for (int i = 0; i < 4; i++) {
        memfs_error err;

        if (edit_memory(a->f->h, ID_A, &o, plan_append, &a->me, &done, NULL, &err) < 0)
            return a;
    }
    return NULL;
}

static void test_H2_H3_each_writer_adds_to_the_newest_text(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    fixture *f = *state;
    appender all[8];
    memfs_str line, rest;
    int counts[8] = { 0 };
    uint64_t n;

    begin_memory(f);
    for (int i = 0; i < 8; i++) {
        all[i] = (appender){ .f = f, .me = i };
        pthread_create(&all[i].thread, NULL, append, &all[i]);
    }
    for (int i = 0; i < 8; i++) {
        void *fault;

        pthread_join(all[i].thread, &fault);
        assert_null(fault);
    }
    rest = str_of(value_of(f, ID_A, "log", &text));
    while (str_split(rest, '\n', &line, &rest)) {
        assert_true(str_to_u64(line, 7, &n));
        counts[n]++;
    }
    for (int i = 0; i < 8; i++)
        assert_int_equal(counts[i], 4);
}

/* ---- of several agents at once ---- */

static _Atomic(const char *) meet_at; /* part of a path; NULL: nowhere */
static atomic_int n_there;
static atomic_bool have_met;

static bool is_meeting_place(int fd)
{
    const char *where = atomic_load(&meet_at);
    char link[32], path[4096];
    ssize_t n;

    if (where == NULL)
        return false;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    path[n < 0 ? 0 : n] = '\0';
    return strstr(path, where) != NULL;
}

/* Stays until another one is there too. */
static void meet(void)
{
    int64_t until = clock_mono_ms() + 5000;

    atomic_fetch_add(&n_there, 1);
    while (!atomic_load(&have_met) && clock_mono_ms() < until) {
        if (atomic_load(&n_there) > 1)
            atomic_store(&have_met, true);
        clock_sleep_ms(1);
    }
    atomic_store(&meet_at, NULL);
    atomic_fetch_sub(&n_there, 1);
}

int fsync(int fd)
{
    if (is_meeting_place(fd))
        meet();
    return (int)syscall(SYS_fsync, fd);
}

typedef struct job {
    fixture *f;
    memfs_str id;
    memfs_code rc;
    atomic_bool is_done;
} job;

static void edit_once(void *arg)
{
    job *j = arg;
    asked a = { .puts = { { "new.md", "new\n" } } };
    edit_result done;
    memfs_error err;

    j->rc = try_edit_as(j->f, j->id, PUSH_READ_ONLY_MAY, &a, &done, &err);
    atomic_store(&j->is_done, true);
}

static void begin_two_memories(fixture *f)
{
    begin_memory(f);
    push_work(f, ID_B);
}

static void submit(pool *p, const char *key, pool_fn fn, void *arg)
{
    OK(pool_submit(p, key, fn, arg, &err));
}

static bool wait_until_done(job *j)
{
    int64_t until = clock_mono_ms() + 10000;

    while (!atomic_load(&j->is_done) && clock_mono_ms() < until)
        clock_sleep_ms(1);
    return atomic_load(&j->is_done);
}

static void wait_until_there(void)
{
    int64_t until = clock_mono_ms() + 5000;

    while (atomic_load(&n_there) == 0 && clock_mono_ms() < until)
        clock_sleep_ms(1);
}

/* A pool with one place: the second begins while the first is in the fsync of such a file. */
static void two_wait_at(fixture *f, const char *where)
{
    job a = { .f = f, .id = ID_A }, b = { .f = f, .id = ID_B };
    pool *p = pool_new(1, 10);

    begin_two_memories(f);
    atomic_store(&have_met, false);
    atomic_store(&meet_at, where);
    submit(p, AGENT_A, edit_once, &a);
    wait_until_there();
    submit(p, AGENT_B, edit_once, &b);
    pool_free(p);
    assert_int_equal(a.rc, MEMFS_OK);
    assert_int_equal(b.rc, MEMFS_OK);
    assert_true(atomic_load(&have_met));
}

static void test_objects_of_several_agents_wait_for_the_disk_together(void **state)
{
    two_wait_at(*state, "/repo.git/objects/");
}

static void test_refs_of_several_agents_wait_for_the_disk_together(void **state)
{
    two_wait_at(*state, "/refs/heads/main.lock");
}

/* Two agents whose packs were folded held up all: requests for them had all places. */
static void test_T17_who_waits_for_an_agent_keeps_no_place_from_others(void **state)
{
    fixture *f = *state;
    job a = { .f = f, .id = ID_A }, b = { .f = f, .id = ID_B };
    pool *p = pool_new(1, 10);
    agent *held;

    begin_two_memories(f);
    OK(home_agent_repo(f->h, ID_A, &held, &err));
    agent_lock(held);
    submit(p, AGENT_A, edit_once, &a);
    submit(p, AGENT_B, edit_once, &b);
    assert_true(wait_until_done(&b));
    assert_false(atomic_load(&a.is_done));
    agent_unlock(held);
    pool_free(p);
    assert_int_equal(a.rc, MEMFS_OK);
    assert_int_equal(b.rc, MEMFS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_a_commit_on_top_and_rows_with_it),
        SYNC_TEST(test_D4_what_changes_nothing_makes_no_commit),
        SYNC_TEST(test_the_last_word_about_a_path_counts),
        SYNC_TEST(test_files_and_folders_change_places),
        SYNC_TEST(test_D6_trees_are_as_git_makes_them),
        SYNC_TEST(test_D3_a_refusal_has_changed_nothing),
        SYNC_TEST(test_read_only_is_for_agents),
        SYNC_TEST(test_T28_what_was_purged_stays_away),
        SYNC_TEST(test_an_agent_that_nobody_knows_is_made_only_when_asked),
        SYNC_TEST(test_H2_H3_each_writer_adds_to_the_newest_text),
        SYNC_TEST(test_objects_of_several_agents_wait_for_the_disk_together),
        SYNC_TEST(test_refs_of_several_agents_wait_for_the_disk_together),
        SYNC_TEST(test_T17_who_waits_for_an_agent_keeps_no_place_from_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
