/*
 * Files in git-config syntax: read as git reads them, changed so that git reads what was meant.
 */
#include "checkout_support.h"

#include "base/clock.h"
#include "store/gitconfig.h"
#include "store/gitlock.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>

static char *config_path(work *w)
{
    return mem_printf("%s/config", w->root);
}

static void put_config(work *w, const char *text)
{
    put(w, w->root, "config", text);
}

/* What git says: "key\nvalue\0..." */
static void git_list(work *w, memfs_buf *out)
{
    _cleanup_(mem_freep) char *path = config_path(w);
    const char *args[] = { "config", "--file", path, "--no-includes", "--list", "-z", NULL };

    run_git(w, w->root, out, args);
}

static bool append(const char *key, const char *value, void *ctx)
{
    memfs_buf *out = ctx;

    buf_puts(out, key);
    buf_putc(out, '\n');
    buf_puts(out, value);
    buf_putc(out, '\0');
    return true;
}

static void assert_read_as_git_does(work *w, const char *text)
{
    _cleanup_(buf_dispose) memfs_buf ours = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(buf_dispose) memfs_buf gits = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(gitconfig_closep) gitconfig *c = NULL;

    put_config(w, text);
    assert_ok(w, gitconfig_open(path, &c, &w->err));
    gitconfig_each(c, append, &ours);
    git_list(w, &gits);
    if (!str_equal(buf_str(&ours), buf_str(&gits)))
        fail_msg("of \"%s\" git reads \"%s\" and we \"%s\"", text, gits.ptr, ours.ptr);
}

static void test_values_are_read_as_git_reads_them(void **state)
{
    static const char *const texts[] = {
        "",
        "[core]\n",
        "[core]\n\tbare = false\n\tfileMode=true\n",
        "\xef\xbb\xbf[core]\n\tbare = false\n",
        "[Core]\nFileMode = TRUE\n[core]\nBARE =\n",
        "[remote \"origin\"]\n\turl = https://example.org/a.git\n",
        "[remote \"Ori.gin \\\"x\\\\\"]\n\turl = x\n",
        "[branch.Main]\n\tremote = origin\n",
        "[a]b=c\n[a] d = e\n",
        "[a]\n\tk = v ; comment\n\tl = \"v ; no comment\"  # yes\n\tm = a b  c \t\n",
        "# comment\n; comment\n\n   [a]\n  \t k = \" leading and trailing \"\n",
        "[a]\n\tk = one \\\ntwo\n\tl = \"x\\ty\\nz\\\\ \\\"q\\\"\"\n",
        "[a]\n\tk = \"part\"ial\" quo\"ted\n",
        "[a]\r\n\tk = v\r\n\tl = w\r\n",
        "[a]\n\tk = no end",
        "[a]\n\tk = 1\n\tk = 2\n\tk =\n[b]\n\tk = 3\n[a]\n\tk = 4\n",
        "[a]\n\tkey-with-dashes = 1\n\tk2 = 2\n",
        "[a \"\"]\n\tk = v\n",
        "[include]\n\tpath = other\n[a]\n\tk = v\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        assert_read_as_git_does(*state, texts[i]);
}

static void test_a_key_alone_is_true_and_the_last_value_counts(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(gitconfig_closep) gitconfig *c = NULL;

    put_config(w, "[a \"Sub\"]\n\tk\n\tl = 1\n\tL = 2\n");
    assert_ok(w, gitconfig_open(path, &c, &w->err));
    assert_string_equal(gitconfig_get(c, "a.Sub.k"), "true");
    assert_string_equal(gitconfig_get(c, "A.Sub.l"), "2");
    assert_null(gitconfig_get(c, "a.sub.k"));
    assert_null(gitconfig_get(c, "a.Sub.m"));
}

static void test_what_git_cannot_read_is_named_by_its_line(void **state)
{
    static const char *const texts[] = {
        "[a\n", "k = v\n",   "[a]\n\t1k = v\n", "[a]\n\tk = \"open\n", "[a]\n\tk = \\q\n",
        "[]\n", "[a \"b]\n", "[a]\n\tk : v\n",
    };
    static const int lines[] = { 1, 1, 2, 2, 2, 1, 1, 2 };
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        _cleanup_(gitconfig_closep) gitconfig *c = NULL;
        char line[16];

        put_config(w, texts[i]);
        assert_code(w, MEMFS_EINVALID, gitconfig_open(path, &c, &w->err));
        snprintf(line, sizeof(line), "line %d ", lines[i]);
        assert_says(w, line);
    }
}

/* A value would end there, and a remote would have half of its address. */
static void test_a_nul_byte_is_refused_with_its_line(void **state)
{
    static const char text[] = "[a]\n\tk = v\n[b]\n\turl = https://h/x\0y\n\tk = v\n";
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    const gitconfig_change change = { "a.k", "other" };
    _cleanup_(gitconfig_closep) gitconfig *c = NULL;
    _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(1000);

    assert_code(w, MEMFS_OK,
                fs_write_atomic(path, str_make(text, sizeof(text) - 1), 0600, &w->err));
    assert_code(w, MEMFS_EINVALID, gitconfig_open(path, &c, &w->err));
    assert_says(w, "line 4 ");
    assert_says(w, "NUL");
    assert_code(w, MEMFS_EINVALID, gitconfig_apply(path, &change, 1, &w->err));
    assert_code(w, MEMFS_OK, fs_read(path, &after, &w->err));
    assert_true(str_equal(buf_str(&after), str_make(text, sizeof(text) - 1)));
}

static void test_no_file_reads_as_empty(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(gitconfig_closep) gitconfig *c = NULL;

    assert_ok(w, gitconfig_open(path, &c, &w->err));
    assert_null(gitconfig_get(c, "a.b"));
}

/* changing */

static const char *const BEFORE[] = {
    "",
    "# mine\n",
    "[core]\n\tbare = false\n",
    "[core]\n\tbare = true\n\tbare = false ; both\n[x]\n\ty = 1\n[core]\n\tbare = true\n",
    "[core] bare = true\n[x]y=1\n",
    "[core] # comment\n[x]\n\ty = 1",
    "[x]\n\ty = 1\n\n[core]",
    "[http \"https://h/\"]\n\textraHeader = old\n\textraHeader = older\n",
    "[core]\r\n\tbare = true\r\n",
    "[CORE]\n\tBare = true\n[remote \"origin\"]\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
};

static const gitconfig_change CHANGES[] = {
    { "core.bare", "false" },
    { "core.hooksPath", "/a path/with \"quotes\" and \\ # ;" },
    { "http.https://h/.extraHeader", "" },
    { "http.https://h/.extraHeader", "Authorization: Basic eDp5" },
    { "x.y", NULL },
    { "remote.origin.url", "https://example.org/v1/git/agent-1/state.git" },
    { "merge.memfs.driver", "'/usr/bin/memfs' merge-file %O %A %B\t%P\n" },
    { "user.name", " blanks " },
};

static void assert_values(work *w, const char *key, const char *const *wanted)
{
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20),
                                     expected = MEMFS_BUF_INIT(1 << 20);
    const char *args[] = { "config", "--file", path, "-z", "--get-all", key, NULL };
    memfs_code rc = try_git(w, w->root, &out, args);

    for (; *wanted != NULL; wanted++) {
        buf_puts(&expected, *wanted);
        buf_putc(&expected, '\0');
    }
    assert_true((rc == MEMFS_OK) == (expected.len > 0));
    if (!str_equal(buf_str(&out), buf_str(&expected)))
        fail_msg("%s is \"%s\", wanted \"%s\"", key, out.ptr, expected.ptr);
}

static void assert_all_changed(work *w)
{
#define VALUES(...) (const char *const[]){ __VA_ARGS__, NULL }
    assert_values(w, "core.bare", VALUES("false"));
    assert_values(w, "core.hooksPath", VALUES("/a path/with \"quotes\" and \\ # ;"));
    assert_values(w, "http.https://h/.extraHeader", VALUES("", "Authorization: Basic eDp5"));
    assert_values(w, "x.y", (const char *const[]){ NULL });
    assert_values(w, "remote.origin.url", VALUES("https://example.org/v1/git/agent-1/state.git"));
    assert_values(w, "merge.memfs.driver", VALUES("'/usr/bin/memfs' merge-file %O %A %B\t%P\n"));
    assert_values(w, "user.name", VALUES(" blanks "));
}

static void test_git_reads_what_was_changed(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    struct stat first, second;

    for (size_t i = 0; i < ARRAY_LEN(BEFORE); i++) {
        put_config(w, BEFORE[i]);
        assert_ok(w, gitconfig_apply(path, CHANGES, ARRAY_LEN(CHANGES), &w->err));
        assert_all_changed(w);
        assert_int_equal(stat(path, &first), 0);
        assert_ok(w, gitconfig_apply(path, CHANGES, ARRAY_LEN(CHANGES), &w->err));
        assert_int_equal(stat(path, &second), 0);
        assert_true(first.st_ino == second.st_ino); /* nothing would change: nothing is written */
    }
}

static void test_everything_else_stays_as_it_was(void **state)
{
    static const gitconfig_change one = { "core.bare", "false" };
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    put_config(w, "# mine\n[core]\n\t; why\n\tbare = true\n\tx = 1 # note\n\n[y \"Z\"]\n\tk\n");
    assert_int_equal(chmod(path, 0640), 0);
    assert_ok(w, gitconfig_apply(path, &one, 1, &w->err));
    assert_ok(w, fs_read(path, &text, &w->err));
    assert_string_equal(text.ptr, "# mine\n[core]\n\t; why\n\tx = 1 # note\n\tbare = false\n\n"
                                  "[y \"Z\"]\n\tk\n");
    assert_int_equal(mode_of(path), 0640);
}

static void test_a_linked_configuration_stays_a_link(void **state)
{
    static const gitconfig_change one = { "core.bare", "false" };
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(mem_freep) char *link = mem_printf("%s/linked", w->root);
    struct stat st;

    put_config(w, "[core]\n\tbare = true\n");
    assert_int_equal(symlink("config", link), 0);
    assert_ok(w, gitconfig_apply(link, &one, 1, &w->err));
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_values(w, "core.bare", (const char *const[]){ "false", NULL });
}

static void test_names_of_settings_are_checked(void **state)
{
    static const char *const bad[] = { "core",     "core.",    ".x",      "core.a b", "co re.x",
                                       "core.a=b", "a.b\nc.d", "core.1x", "core.x\n" };
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        gitconfig_change change = { bad[i], "v" };

        assert_code(w, MEMFS_EINVALID, gitconfig_apply(path, &change, 1, &w->err));
    }
    assert_false(fs_exists(path));
}

/* locks */

static void test_the_lock_of_a_git_is_never_broken(void **state)
{
    static const gitconfig_change one = { "core.bare", "false" };
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);

    put_config(w, "[core]\n\tbare = true\n");
    put(w, w->root, "config.lock", "");
    assert_code(w, MEMFS_EUNAVAIL, gitconfig_apply(path, &one, 1, &w->err));
    assert_values(w, "core.bare", (const char *const[]){ "true", NULL });
    assert_true(has(w, w->root, "config.lock"));
    assert_false(has_prefix(w->root, "config.memfs-"));
}

static void test_the_lock_of_a_dead_memfs_is_cleared_away(void **state)
{
    static const gitconfig_change one = { "core.bare", "false" };
    work *w = *state;
    _cleanup_(mem_freep) char *path = config_path(w);
    _cleanup_(mem_freep) char *twin = mem_printf("%s/config.memfs-a1b2c3", w->root);
    _cleanup_(mem_freep) char *lock = mem_printf("%s/config.lock", w->root);
    int fd;

    put_config(w, "[core]\n\tbare = true\n");
    put(w, w->root, "config.memfs-a1b2c3", "half");
    assert_int_equal(link(twin, lock), 0);
    fd = open(twin, O_RDWR | O_CLOEXEC); /* it lives */
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_code(w, MEMFS_EUNAVAIL, gitconfig_apply(path, &one, 1, &w->err));
    assert_true(fs_exists(lock));
    close(fd); /* it died */
    assert_ok(w, gitconfig_apply(path, &one, 1, &w->err));
    assert_false(fs_exists(lock));
    assert_false(has_prefix(w->root, "config.memfs-"));
    assert_values(w, "core.bare", (const char *const[]){ "false", NULL });
}

typedef struct changer {
    work *w;
    int number;
    memfs_error err;
    memfs_code rc;
} changer;

static void *change_one(void *ctx)
{
    changer *c = ctx;
    _cleanup_(mem_freep) char *path = config_path(c->w);
    _cleanup_(mem_freep) char *key = mem_printf("a.k%d", c->number);
    gitconfig_change change = { key, "here" };

    do
        c->rc = gitconfig_apply(path, &change, 1, &c->err);
    while (c->rc == MEMFS_EUNAVAIL);
    return NULL;
}

static void test_many_at_once_lose_no_change(void **state)
{
    enum { N = 32 };
    work *w = *state;
    changer all[N];
    pthread_t threads[N];

    for (int i = 0; i < N; i++) {
        all[i] = (changer){ .w = w, .number = i };
        assert_int_equal(pthread_create(&threads[i], NULL, change_one, &all[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        if (all[i].rc != MEMFS_OK)
            fail_msg("%s", all[i].err.msg);
    }
    for (int i = 0; i < N; i++) {
        _cleanup_(mem_freep) char *key = mem_printf("a.k%d", i);

        assert_values(w, key, (const char *const[]){ "here", NULL });
    }
    assert_false(has(w, w->root, "config.lock"));
    assert_false(has_prefix(w->root, "config.memfs-"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, work_setup, work_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_values_are_read_as_git_reads_them),
        TEST(test_a_key_alone_is_true_and_the_last_value_counts),
        TEST(test_what_git_cannot_read_is_named_by_its_line),
        TEST(test_a_nul_byte_is_refused_with_its_line),
        TEST(test_no_file_reads_as_empty),
        TEST(test_git_reads_what_was_changed),
        TEST(test_everything_else_stays_as_it_was),
        TEST(test_a_linked_configuration_stays_a_link),
        TEST(test_names_of_settings_are_checked),
        TEST(test_the_lock_of_a_git_is_never_broken),
        TEST(test_the_lock_of_a_dead_memfs_is_cleared_away),
        TEST(test_many_at_once_lose_no_change),
    };

    return cmocka_run_group_tests_name("gitconfig", tests, NULL, NULL);
}
