/*
 * Working tree, index and branch, moved together; commits without git; linked working trees.
 */
#include "checkout_support.h"

#include "base/clock.h"
#include "store/checkout.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

static const store_identity WHO = { "tester", "tester@localhost", 1700000000 };

typedef struct pair {
    work *w;
    char *other; /* where the commits come from */
    checkout *c; /* of w->tree */
} pair;

static pair *pair_new(work *w)
{
    pair *p = mem_alloc(sizeof(*p));

    p->w = w;
    p->other = mem_printf("%s/other", w->root);
    assert_ok(w, checkout_create(w->tree, false, &w->err));
    git(w, w->root, "clone", "-q", w->tree, p->other);
    assert_ok(w, checkout_open(w->tree, &p->c, &w->err));
    return p;
}

static void pair_free(pair *p)
{
    checkout_close(p->c);
    free(p->other);
    free(p);
}

static void pair_freep(pair **p)
{
    pair_free(*p);
}

/* The other's main, fetched; our main stays. */
static memfs_oid fetched(pair *p)
{
    commit_all_by_git(p->w, p->other, "there");
    git(p->w, p->w->tree, "fetch", "-q", p->other, "main");
    return git_id(p->w, p->w->tree, "FETCH_HEAD");
}

static memfs_code update(pair *p, const memfs_oid *to, checkout_update_report *ret)
{
    memfs_oid from = git_id(p->w, p->w->tree, "HEAD");

    return checkout_update(p->c, &from, to, "memfs: sync", ret, &p->w->err);
}

static void assert_is_at(pair *p, const memfs_oid *commit)
{
    memfs_oid head = git_id(p->w, p->w->tree, "HEAD");
    _cleanup_(mem_freep) char *said = git_says(p->w, p->w->tree, "status", "--porcelain", "-uall");
    _cleanup_(mem_freep) char *branch = git_says(p->w, p->w->tree, "symbolic-ref", "HEAD");
    checkout_state s;

    assert_true(oid_equal(&head, commit));
    assert_string_equal(said, "");
    assert_string_equal(branch, "refs/heads/main\n");
    git(p->w, p->w->tree, "fsck", "--full", "--strict", "--no-dangling");
    assert_ok(p->w, checkout_inspect(p->c, &s, &p->w->err));
    assert_int_equal(s.n_changed + s.n_untracked, 0);
    assert_false(s.has_index_lock);
    assert_false(has(p->w, p->w->tree, ".git/memfs/updating"));
    {
        _cleanup_(mem_freep) char *notes = mem_printf("%s/.git/memfs", p->w->tree);

        assert_false(has_prefix(notes, "stage-"));
        assert_false(has_prefix(notes, "index-"));
        assert_false(has_prefix(notes, "lock-"));
    }
}

static void follow(pair *p)
{
    checkout_update_report report;
    memfs_oid to = fetched(p);

    assert_ok(p->w, update(p, &to, &report));
    assert_is_at(p, &to);
}

static void chmod_in(pair *p, const char *name, unsigned mode)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", p->other, name);

    assert_int_equal(chmod(path, mode), 0);
}

/* following */

static void test_every_kind_of_change_is_followed(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *exec = mem_printf("%s/run.sh", w->tree);
    _cleanup_(mem_freep) char *log = NULL;

    put(w, p->other, "a.md", "one\n");
    put(w, p->other, "system/human.md", "human\n");
    put(w, p->other, "deep/er/and/deeper/x.md", "x\n");
    put(w, p->other, "empty", "");
    put_bytes(w, p->other, "binary", str_make("\0\1\2\377", 4));
    put(w, p->other, "run.sh", "#!/bin/sh\n");
    chmod_in(p, "run.sh", 0755);
    put(w, p->other, "with blank and \"ü\".md", "x\n");
    follow(p);
    assert_text(w, w->tree, "deep/er/and/deeper/x.md", "x\n");
    assert_true(mode_of(exec) & S_IXUSR);

    put(w, p->other, "a.md", "two\n"); /* changed, renamed, removed, chmod */
    git(w, p->other, "mv", "system/human.md", "system/person.md");
    git(w, p->other, "rm", "-q", "deep/er/and/deeper/x.md");
    chmod_in(p, "run.sh", 0644);
    follow(p);
    assert_text(w, w->tree, "a.md", "two\n");
    assert_false(has(w, w->tree, "deep"));
    assert_false(mode_of(exec) & S_IXUSR);

    git(w, p->other, "rm", "-q", "a.md"); /* a file becomes a folder, and the reverse */
    put(w, p->other, "a.md/inside", "x\n");
    git(w, p->other, "rm", "-q", "-r", "system");
    put(w, p->other, "system", "a file\n");
    follow(p);
    assert_text(w, w->tree, "a.md/inside", "x\n");
    assert_text(w, w->tree, "system", "a file\n");

    git(w, p->other, "rm", "-q", "-r", ".");
    follow(p);
    log = git_says(w, w->tree, "reflog", "--format=%gs", "main");
    assert_string_equal(log, "memfs: sync\nmemfs: sync\nmemfs: sync\nmemfs: sync\n"
                             "commit (initial): memfs: genesis\n");
}

static void random_commit(pair *p, unsigned *seed)
{
    for (int i = 0; i < 6; i++) {
        char name[64], text[64];
        int k = rand_r(seed) % 30;

        snprintf(name, sizeof(name), "%c/%c%s/f%d", 'a' + k % 3, 'x' + k % 2, k % 5 ? "" : "/y",
                 rand_r(seed) % 6);
        snprintf(text, sizeof(text), "%d\n", rand_r(seed));
        if (rand_r(seed) % 3 == 0) {
            const char *args[] = { "rm", "-rqf", "--ignore-unmatch", name, NULL };

            run_git(p->w, p->other, &(memfs_buf)MEMFS_BUF_INIT(1 << 16), args);
        } else {
            _cleanup_(mem_freep) char *path = mem_printf("%s/%s", p->other, name);

            if (!fs_is_dir(path))
                put(p->w, p->other, name, text);
            if (!fs_is_dir(path) && rand_r(seed) % 4 == 0)
                chmod_in(p, name, 0755);
        }
    }
}

static void test_random_histories_are_followed(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    unsigned seed = 11;

    for (int i = 0; i < 25; i++) {
        for (int n = rand_r(&seed) % 3; n >= 0; n--) {
            random_commit(p, &seed);
            commit_all_by_git(w, p->other, "random");
        }
        follow(p);
    }
}

static void test_many_files_at_once(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    checkout_update_report report;
    memfs_oid to;

    for (int i = 0; i < 300; i++) {
        char name[64];

        snprintf(name, sizeof(name), "d%d/f%d.md", i % 7, i);
        put(w, p->other, name, name);
    }
    to = fetched(p);
    assert_ok(w, update(p, &to, &report));
    assert_is_at(p, &to);
    assert_int_equal(report.n_written, 300);
    git(w, p->other, "rm", "-q", "-r", ".");
    to = fetched(p);
    assert_ok(w, update(p, &to, &report));
    assert_is_at(p, &to);
    assert_int_equal(report.n_removed, 300);
}

static void test_a_bare_repository_has_only_its_branch_to_move(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *bare = mem_printf("%s/bare.git", w->root);
    _cleanup_(checkout_closep) checkout *c = NULL;
    checkout_update_report report;
    memfs_oid to, now;

    assert_ok(w, checkout_create(bare, true, &w->err));
    put(w, p->other, "a.md", "x\n");
    to = fetched(p);
    git(w, bare, "fetch", "-q", p->other, "main");
    assert_ok(w, checkout_open(bare, &c, &w->err));
    assert_null(checkout_work_tree(c));
    assert_ok(w, checkout_update(c, &STORE_GENESIS, &to, "memfs: sync", &report, &w->err));
    now = git_id(w, bare, "main");
    assert_true(oid_equal(&now, &to));
}

/* refusing */

static void assert_refused(pair *p, const memfs_oid *to, memfs_code code, const char *says)
{
    memfs_oid before = git_id(p->w, p->w->tree, "main"), after;
    _cleanup_(mem_freep) char *status =
        git_says(p->w, p->w->tree, "status", "--porcelain", "-uall");
    _cleanup_(mem_freep) char *now = NULL;
    checkout_update_report report;

    assert_code(p->w, code, checkout_update(p->c, &before, to, "x", &report, &p->w->err));
    assert_says(p->w, says);
    after = git_id(p->w, p->w->tree, "main");
    now = git_says(p->w, p->w->tree, "status", "--porcelain", "-uall");
    assert_true(oid_equal(&before, &after));
    assert_string_equal(now, status);
    assert_false(has(p->w, p->w->tree, ".git/memfs/updating"));
}

static void test_F31_uncommitted_work_is_never_touched(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    checkout_update_report report;
    memfs_oid to;

    put(w, p->other, "a.md", "one\n");
    put(w, p->other, "b.md", "one\n");
    follow(p);
    put(w, p->other, "a.md", "two\n");
    put(w, p->other, "new/c.md", "two\n");
    to = fetched(p);

    put(w, w->tree, "b.md",
        "mine\n"); /* even another file: git status must stay clean or as it was */
    assert_refused(p, &to, MEMFS_ECONFLICT, "'b.md' has changes that are not committed");
    assert_text(w, w->tree, "b.md", "mine\n");
    git(w, w->tree, "add", "b.md");
    assert_refused(p, &to, MEMFS_ECONFLICT, "'b.md'");
    git(w, w->tree, "reset", "-q", "--hard");
    put(w, w->tree, "new/c.md", "mine\n");
    assert_refused(p, &to, MEMFS_ECONFLICT, "'new/c.md' is in the way");
    assert_text(w, w->tree, "new/c.md", "mine\n");
    unlink("new/c.md");
    {
        _cleanup_(mem_freep) char *folder = mem_printf("%s/new", w->tree);

        assert_ok(w, fs_remove_tree(folder, &w->err));
        put(w, w->tree, "new", "a file\n");
        assert_refused(p, &to, MEMFS_ECONFLICT, "'new' is in the way");
        assert_int_equal(unlink(folder), 0);
    }
    put(w, w->tree, "unrelated.md", "mine\n"); /* not in the way */
    assert_ok(w, update(p, &to, &report));
    assert_text(w, w->tree, "unrelated.md", "mine\n");
    assert_text(w, w->tree, "new/c.md", "two\n");
}

static void test_an_equal_file_in_the_way_is_taken_as_it_is(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *path = mem_printf("%s/a.md", w->tree);
    checkout_update_report report;
    struct stat before, after;
    memfs_oid to;

    put(w, p->other, "a.md", "same\n");
    to = fetched(p);
    put(w, w->tree, "a.md", "same\n");
    assert_int_equal(stat(path, &before), 0);
    assert_ok(w, update(p, &to, &report));
    assert_is_at(p, &to);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino);
    assert_int_equal(report.n_written, 0);
}

static void test_folders_with_files_of_their_own_are_not_replaced(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    memfs_oid to;

    put(w, p->other, "folder/a.md", "one\n");
    put(w, p->other, "z.md", "one\n");
    follow(p);
    git(w, p->other, "rm", "-q", "-r", "folder");
    put(w, p->other, "folder", "a file now\n");
    put(w, p->other, "z.md", "two\n");
    to = fetched(p);
    put(w, w->tree, "folder/mine.md", "mine\n");
    assert_refused(p, &to, MEMFS_ECONFLICT, "'folder'");
    assert_text(w, w->tree, "folder/mine.md", "mine\n");
    assert_text(w, w->tree, "folder/a.md", "one\n");
    assert_text(w, w->tree, "z.md", "one\n");
}

static void test_only_a_calm_main_follows(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    const char *merge[] = { "merge", "-q", "other", NULL };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);
    checkout_update_report report;
    memfs_oid to, unrelated;

    put(w, p->other, "a.md", "one\n");
    follow(p);
    put(w, p->other, "b.md", "x\n");
    to = fetched(p);
    git(w, w->tree, "checkout", "-q", "-b", "other");
    assert_refused(p, &to, MEMFS_ECONFLICT, "'other' is checked out");
    put(w, w->tree, "a.md", "other\n");
    commit_all_by_git(w, w->tree, "other");
    unrelated = git_id(w, w->tree, "HEAD");
    git(w, w->tree, "checkout", "-q", "--detach", "main");
    assert_refused(p, &to, MEMFS_ECONFLICT, "HEAD is detached");
    git(w, w->tree, "checkout", "-q", "main");
    assert_code(w, MEMFS_ECONFLICT,
                checkout_update(p->c, &STORE_GENESIS, &to, "x", &report, &w->err));
    assert_says(w, "main has moved");
    put(w, w->tree, "a.md", "main\n");
    commit_all_by_git(w, w->tree, "main");
    assert_refused(p, &unrelated, MEMFS_EINVALID, "only goes forward");
    assert_true(try_git(w, w->tree, &out, merge) < 0);
    assert_refused(p, &to, MEMFS_ECONFLICT, "a merge is in progress");
}

static void test_git_at_work_is_waited_for(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    memfs_oid to;

    put(w, p->other, "a.md", "x\n");
    to = fetched(p);
    put(w, w->tree, ".git/index.lock", "");
    assert_refused(p, &to, MEMFS_EUNAVAIL, "index.lock");
    assert_true(has(w, w->tree, ".git/index.lock"));
}

/* hostile trees (T12) */

/* A commit on top of the genesis whose tree has this entry, whatever git thinks of it. */
static memfs_oid hostile(pair *p, const char *mode, const char *name, const char *text)
{
    work *w = p->w;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
    _cleanup_(mem_freep) char *blob = NULL, *made = NULL, *commit = NULL;
    memfs_oid id;

    put(w, w->root, "blob", text);
    blob = git_says(w, w->tree, "hash-object", "-w", "../blob");
    if (strcmp(mode, "40000") == 0) { /* a folder with a file "config" */
        buf_puts(&tree, "100644 config");
        buf_putc(&tree, '\0');
        assert_true(oid_parse(str_make(blob, 40), &id));
        buf_add(&tree, id.id, 20);
        put_bytes(w, w->root, "tree-raw", buf_str(&tree));
        free(blob);
        blob =
            git_says(w, w->tree, "hash-object", "-w", "--literally", "-t", "tree", "../tree-raw");
        buf_clear(&tree);
    }
    assert_true(oid_parse(str_make(blob, 40), &id));
    buf_printf(&tree, "%s %s", mode, name);
    buf_putc(&tree, '\0');
    buf_add(&tree, id.id, 20);
    put_bytes(w, w->root, "tree-raw", buf_str(&tree));
    made = git_says(w, w->tree, "hash-object", "-w", "--literally", "-t", "tree", "../tree-raw");
    made[40] = '\0';
    commit = git_says(w, w->tree, "commit-tree", "-p", "HEAD", "-m", "hostile", made);
    assert_true(oid_parse(str_make(commit, 40), &id));
    return id;
}

static void test_T12_names_that_could_do_harm_stop_the_update(void **state)
{
    static const char *const names[] = {
        ".git", ".GIT", ".Git", "git~1", ".git ", ".git.", "..", ".", ".g\xe2\x80\x8cit", "/etc"
    };
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *config = mem_printf("%s/.git/config", w->tree);
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1 << 16),
                                     after = MEMFS_BUF_INIT(1 << 16);

    assert_ok(w, fs_read(config, &before, &w->err));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        memfs_oid to = hostile(p, i % 2 ? "100644" : "40000", names[i], "[core]\n\thooksPath=/x\n");

        assert_refused(p, &to, MEMFS_EDENIED, "reserved");
    }
    assert_ok(w, fs_read(config, &after, &w->err));
    assert_true(str_equal(buf_str(&before), buf_str(&after)));
}

static void test_T12_links_are_never_made(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *path = mem_printf("%s/link", w->tree);
    checkout_update_report report;
    struct stat st;
    memfs_oid to;

    put(w, p->other, "a.md", "a\n");
    {
        _cleanup_(mem_freep) char *link = mem_printf("%s/link", p->other);

        assert_int_equal(symlink("../../outside", link), 0);
        git(w, p->other, "config", "core.symlinks", "true");
        to = fetched(p);
        assert_ok(w, update(p, &to, &report)); /* core.symlinks=false: a file, as in git */
        assert_is_at(p, &to);
        assert_text(w, w->tree, "link", "../../outside");
        assert_int_equal(lstat(path, &st), 0);
        assert_true(S_ISREG(st.st_mode));

        git(w, w->tree, "config", "core.symlinks", "true");
        checkout_close(p->c);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("../../outside", path), 0); /* as git would have it */
        assert_ok(w, checkout_open(w->tree, &p->c, &w->err));
        assert_int_equal(unlink(link), 0);
        assert_int_equal(symlink("../../elsewhere", link), 0);
        put(w, p->other, "a.md", "b\n");
        to = fetched(p);
        assert_ok(w, update(p, &to, &report));
        assert_is_at(p, &to);
        assert_int_equal(report.n_left, 1);
        assert_string_equal(report.first_left, "link");
        assert_true(lstat(path, &st) < 0);

        assert_int_equal(unlink(link), 0);
        put(w, p->other, "link", "a file\n"); /* a file takes its place */
        follow(p);
        assert_text(w, w->tree, "link", "a file\n");
    }
}

static void test_T12_submodules_are_left_out(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    checkout_update_report report;
    memfs_oid to;

    git(w, p->other, "update-index", "--add", "--cacheinfo",
        "160000,56776245ff7b896622904bfc4d1c355a35e6cd81,sub");
    git(w, p->other, "commit", "-q", "-m", "sub");
    git(w, w->tree, "fetch", "-q", p->other, "main");
    to = git_id(w, w->tree, "FETCH_HEAD");
    assert_ok(w, update(p, &to, &report));
    assert_is_at(p, &to);
    assert_int_equal(report.n_left, 1);
}

static void test_T12_nothing_is_written_through_a_link(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *outside = mem_printf("%s/outside", w->root);
    _cleanup_(mem_freep) char *link = mem_printf("%s/folder", w->tree);
    memfs_oid to;

    put(w, w->root, "outside/keep", "x");
    put(w, p->other, "folder/deep/a.md", "a\n");
    to = fetched(p);
    assert_int_equal(symlink(outside, link), 0);
    assert_refused(p, &to, MEMFS_ECONFLICT, "'folder' is in the way");
    assert_false(has(w, outside, "deep"));
    assert_int_equal(unlink(link), 0);
    assert_ok(w, fs_mkdirs(link, &w->err));
    {
        _cleanup_(mem_freep) char *inner = mem_printf("%s/deep", link);

        assert_int_equal(symlink(outside, inner), 0);
        assert_refused(p, &to, MEMFS_ECONFLICT, "'folder/deep' is in the way");
        assert_false(has(w, outside, "a.md"));
    }
}

static void test_what_the_user_keeps_out_of_the_tree_stays_out(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *path = mem_printf("%s/big.md", w->tree);
    _cleanup_(mem_freep) char *said = NULL;

    put(w, p->other, "big.md", "one\n");
    put(w, p->other, "a.md", "one\n");
    follow(p);
    git(w, w->tree, "update-index", "--skip-worktree", "big.md");
    assert_int_equal(unlink(path), 0);
    put(w, p->other, "big.md", "two\n");
    put(w, p->other, "a.md", "two\n");
    follow(p);
    assert_false(fs_exists(path));
    said = git_says(w, w->tree, "ls-files", "-t");
    assert_string_equal(said, "H a.md\nS big.md\n");
}

/* editors (F31) */

static void test_F31_a_file_that_is_open_for_writing_is_not_taken_away(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *path = mem_printf("%s/a.md", w->tree);
    memfs_oid to;
    int fd;

    put(w, p->other, "a.md", "one\n");
    put(w, p->other, "gone.md", "one\n");
    follow(p);
    put(w, p->other, "a.md", "two\n");
    git(w, p->other, "rm", "-q", "gone.md");
    to = fetched(p);
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_refused(p, &to, MEMFS_ECONFLICT, "'a.md' is being edited");
    assert_int_equal(write(fd, "mine\n", 5), 5);
    close(fd);
    assert_text(w, w->tree, "a.md", "one\nmine\n");
    assert_text(w, w->tree, "gone.md", "one\n");
}

typedef struct editor {
    const char *path, *line;
    int64_t delay_us;
    bool by_rename;
} editor;

static void *edit_once(void *ctx)
{
    const editor *e = ctx;
    int64_t begin = clock_mono_us();

    while (clock_mono_us() - begin < e->delay_us)
        ;
    if (e->by_rename) {
        _cleanup_(mem_freep) char *temp = mem_printf("%s~", e->path);
        FILE *f = fopen(temp, "we");

        fputs(e->line, f);
        fclose(f);
        rename(temp, e->path);
    } else {
        FILE *f = fopen(e->path, "ae");

        if (f == NULL)
            return NULL;
        fputs(e->line, f);
        fclose(f);
    }
    return NULL;
}

/* In the working tree, or in a commit under refs/memfs/rescue. */
static bool is_kept(pair *p, const char *line)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/a.md", p->w->tree);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20), out = MEMFS_BUF_INIT(1 << 20);
    const char *grep[] = { "log", "-p", "--glob=refs/memfs/rescue", NULL };

    if (fs_read(path, &text, &p->w->err) == MEMFS_OK && strstr(text.ptr, line) != NULL)
        return true;
    run_git(p->w, p->w->tree, &out, grep);
    return strstr(out.ptr, line) != NULL;
}

static void test_F31_an_edit_at_any_instant_of_an_update_is_kept(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *path = mem_printf("%s/a.md", w->tree);
    unsigned seed = 5;
    int64_t whole_us = 4000;
    int n_refused = 0;

    put(w, p->other, "a.md", "0\n");
    follow(p);
    for (int i = 1; i <= 120; i++) {
        _cleanup_(mem_freep) char *line = mem_printf("edit number %d\n", i);
        _cleanup_(mem_freep) char *text = mem_printf("version %d\n", i);
        editor e = { path, line, rand_r(&seed) % whole_us, i % 2 };
        checkout_update_report report;
        memfs_oid from, to;
        pthread_t thread;
        int64_t begin;
        memfs_code rc;

        put(w, p->other, "a.md", text);
        to = fetched(p);
        from = git_id(w, w->tree, "HEAD");
        assert_int_equal(pthread_create(&thread, NULL, edit_once, &e), 0);
        begin = clock_mono_us();
        rc = checkout_update(p->c, &from, &to, "memfs: sync", &report, &w->err);
        whole_us = (whole_us * 3 + (clock_mono_us() - begin)) / 4 + 1;
        pthread_join(thread, NULL);
        if (rc != MEMFS_OK && rc != MEMFS_ECONFLICT)
            fail_msg("%s", w->err.msg);
        n_refused += rc == MEMFS_ECONFLICT;
        if (!is_kept(p, line))
            fail_msg("edit %d was lost", i);
        git(w, w->tree, "reset", "-q", "--hard", "HEAD");
        git(w, w->tree, "clean", "-qfd");
        if (rc == MEMFS_ECONFLICT)
            follow(p);
    }
    assert_true(n_refused > 0 && n_refused < 120); /* both sides of the race were seen */
}

/* commits */

typedef struct skips {
    memfs_buf text;
} skips;

static void note_skip(memfs_str path, const char *why, void *ctx)
{
    skips *s = ctx;

    buf_add_str(&s->text, path);
    buf_printf(&s->text, ": %s\n", why);
}

static memfs_oid commit_all(work *w, checkout *c, skips *s)
{
    const policy p = POLICY_INIT;
    memfs_oid id;

    assert_ok(w,
              checkout_commit_all(c, &p, &WHO, "memfs: all\n\nbody\n", note_skip, s, &id, &w->err));
    return id;
}

static void test_everything_that_may_be_is_committed(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    _cleanup_(mem_freep) char *link = mem_printf("%s/link", w->tree);
    _cleanup_(mem_freep) char *nested = mem_printf("%s/nested", w->tree);
    _cleanup_(mem_freep) char *gone = mem_printf("%s/gone.md", w->tree);
    _cleanup_(mem_freep) char *run = mem_printf("%s/run.sh", w->tree);
    _cleanup_(mem_freep) char *said = NULL, *files = NULL, *log = NULL, *who = NULL;
    skips s = { MEMFS_BUF_INIT(1 << 16) };
    memfs_oid id, head;

    put(w, w->tree, "gone.md", "x\n");
    put(w, w->tree, "changed.md", "x\n");
    commit_all_by_git(w, w->tree, "before");
    assert_int_equal(unlink(gone), 0);
    put(w, w->tree, "changed.md", "y\n");
    put(w, w->tree, "system/new.md", "new\n");
    put(w, w->tree, "run.sh", "#!/bin/sh\n");
    assert_int_equal(chmod(run, 0755), 0);
    put(w, w->tree, ".gitignore", "*.log\n");
    put(w, w->tree, "a.log", "x\n");
    put(w, w->tree, "Twin.md", "x\n");
    put(w, w->tree, "twin.md", "x\n");
    put(w, w->tree, "-dash", "x\n");
    put(w, w->tree, "back\\slash", "x\n");
    assert_int_equal(symlink("changed.md", link), 0);
    git(w, w->root, "init", "-q", nested);
    {
        _cleanup_(mem_freep) char *big = mem_printf("%s/big", w->tree);

        put(w, w->tree, "big", "");
        assert_int_equal(truncate(big, 11 << 20), 0);
    }
    id = commit_all(w, p->c, &s);
    head = git_id(w, w->tree, "main");
    assert_true(oid_equal(&id, &head));
    files = git_says(w, w->tree, "ls-tree", "-r", "--format=%(objectmode) %(path)", "HEAD");
    assert_string_equal(files, "100644 .gitignore\n100644 Twin.md\n100644 changed.md\n"
                               "100755 run.sh\n100644 system/new.md\n");
    said = git_says(w, w->tree, "status", "--porcelain");
    assert_string_equal(
        said, "?? -dash\n?? \"back\\\\slash\"\n?? big\n?? link\n?? nested/\n?? twin.md\n");
    assert_string_equal(s.text.ptr,
                        "-dash: the name begins with '-'; rename the file\n"
                        "back\\slash: the name has a backslash; rename the file\n"
                        "big: a file may have 10485760 bytes and this one has 11534336; split it\n"
                        "link: symbolic links are not allowed; commit the file itself\n"
                        "nested: it is a repository of its own\n"
                        "twin.md: another name differs from it only in case or form; rename one of "
                        "them\n");
    log = git_says(w, w->tree, "reflog", "-1", "--format=%gs");
    assert_string_equal(log, "commit: memfs: all\n");
    who = git_says(w, w->tree, "log", "-1", "--format=%an %ae %at %cn %B");
    assert_string_equal(who, "tester tester@localhost 1700000000 tester memfs: all\n\nbody\n\n");
    git(w, w->tree, "fsck", "--full", "--strict");
    buf_clear(&s.text);
    head = commit_all(w, p->c, &s);
    assert_true(oid_equal(&id, &head)); /* nothing new */
    buf_dispose(&s.text);
}

static void test_a_branch_without_a_commit_begins_with_the_genesis(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(mem_freep) char *said = NULL;
    skips s = { MEMFS_BUF_INIT(1 << 16) };
    memfs_oid parent;

    git(w, w->root, "init", "-q", "-b", "main", w->tree);
    put(w, w->tree, "a.md", "x\n");
    assert_ok(w, checkout_open(w->tree, &c, &w->err));
    commit_all(w, c, &s);
    parent = git_id(w, w->tree, "HEAD~1");
    assert_true(oid_equal(&parent, &STORE_GENESIS));
    said = git_says(w, w->tree, "status", "--porcelain");
    assert_string_equal(said, "");
    git(w, w->tree, "fsck", "--full", "--strict");
    buf_dispose(&s.text);
}

static void test_a_merge_in_progress_is_not_committed(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    const policy rules = POLICY_INIT;
    memfs_oid id;

    put(w, w->tree, ".git/MERGE_HEAD", "56776245ff7b896622904bfc4d1c355a35e6cd81\n");
    put(w, w->tree, "a.md", "x\n");
    assert_code(w, MEMFS_ECONFLICT,
                checkout_commit_all(p->c, &rules, &WHO, "x", NULL, NULL, &id, &w->err));
}

static void test_edits_become_a_commit_that_moves_nothing(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    checkout_edit edits[] = {
        { MEMFS_STR("a/b.md"), MEMFS_STR("new\n") },     { MEMFS_STR("gone.md"), { NULL, 0 } },
        { MEMFS_STR("run.sh"), MEMFS_STR("changed\n") }, { MEMFS_STR("not there"), { NULL, 0 } },
        { MEMFS_STR("empty"), MEMFS_STR("") },
    };
    checkout_edit bad = { MEMFS_STR(".git/config"), MEMFS_STR("x") };
    _cleanup_(mem_freep) char *run = mem_printf("%s/run.sh", w->tree);
    _cleanup_(mem_freep) char *said = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid head, now, id;

    put(w, w->tree, "a.md", "a\n");
    put(w, w->tree, "gone.md", "x\n");
    put(w, w->tree, "run.sh", "x\n");
    assert_int_equal(chmod(run, 0755), 0);
    commit_all_by_git(w, w->tree, "before");
    head = git_id(w, w->tree, "HEAD");
    assert_ok(w,
              checkout_commit_edits(p->c, &head, edits, ARRAY_LEN(edits), &WHO, "m", &id, &w->err));
    oid_hex(&id, hex);
    said = git_says(w, w->tree, "ls-tree", "-r", "--format=%(objectmode) %(path)", hex);
    assert_string_equal(said, "100644 a.md\n100644 a/b.md\n100644 empty\n100755 run.sh\n");
    now = git_id(w, w->tree, "HEAD");
    assert_true(oid_equal(&now, &head));
    assert_code(w, MEMFS_EINVALID,
                checkout_commit_edits(p->c, &head, &bad, 1, &WHO, "m", &id, &w->err));
    git(w, w->tree, "fsck", "--full", "--strict");
}

static void test_a_name_cannot_leave_its_line_in_a_commit(void **state)
{
    work *w = *state;
    _cleanup_(pair_freep) pair *p = pair_new(w);
    const store_identity evil = { "a\nparent <b>", "x>\ncommitter", 5 };
    _cleanup_(mem_freep) char *said = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid tree, id;

    assert_true(oid_parse(MEMFS_STR("4b825dc642cb6eb9a060e54bf8d69288fbee4904"), &tree));
    assert_ok(w, checkout_commit_tree(p->c, &tree, &STORE_GENESIS, 1, &evil, "m", &id, &w->err));
    oid_hex(&id, hex);
    said = git_says(w, w->tree, "log", "-1", "--format=%an|%ae|%P", hex);
    assert_string_equal(said, "aparent b|xcommitter|56776245ff7b896622904bfc4d1c355a35e6cd81\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, work_setup, work_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_kind_of_change_is_followed),
        TEST(test_random_histories_are_followed),
        TEST(test_many_files_at_once),
        TEST(test_a_bare_repository_has_only_its_branch_to_move),
        TEST(test_F31_uncommitted_work_is_never_touched),
        TEST(test_an_equal_file_in_the_way_is_taken_as_it_is),
        TEST(test_folders_with_files_of_their_own_are_not_replaced),
        TEST(test_only_a_calm_main_follows),
        TEST(test_git_at_work_is_waited_for),
        TEST(test_T12_names_that_could_do_harm_stop_the_update),
        TEST(test_T12_links_are_never_made),
        TEST(test_T12_submodules_are_left_out),
        TEST(test_T12_nothing_is_written_through_a_link),
        TEST(test_what_the_user_keeps_out_of_the_tree_stays_out),
        TEST(test_F31_a_file_that_is_open_for_writing_is_not_taken_away),
        TEST(test_F31_an_edit_at_any_instant_of_an_update_is_kept),
        TEST(test_everything_that_may_be_is_committed),
        TEST(test_a_branch_without_a_commit_begins_with_the_genesis),
        TEST(test_a_merge_in_progress_is_not_committed),
        TEST(test_edits_become_a_commit_that_moves_nothing),
        TEST(test_a_name_cannot_leave_its_line_in_a_commit),
    };

    return cmocka_run_group_tests_name("checkout_update", tests, NULL, NULL);
}
