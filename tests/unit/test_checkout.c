/*
 * Repositories that others change too: made, opened, looked at, moved.  Real git is the judge.
 */
#include "checkout_support.h"

#include "base/clock.h"
#include "store/checkout.h"
#include "store/gitconfig.h"
#include "store/ignore.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>

static const memfs_oid NONE;

static checkout *opened(work *w, const char *path)
{
    checkout *c = NULL;

    assert_ok(w, checkout_open(path, &c, &w->err));
    return c;
}

static void make(work *w)
{
    assert_ok(w, checkout_create(w->tree, false, &w->err));
}

static void assert_fsck(work *w, const char *folder)
{
    git(w, folder, "fsck", "--full", "--strict", "--no-dangling");
}

static void assert_clean(work *w, const char *folder)
{
    _cleanup_(mem_freep) char *said =
        git_says(w, folder, "status", "--porcelain", "--untracked-files=all");

    assert_string_equal(said, "");
    assert_fsck(w, folder);
}

/* making */

static void test_a_new_checkout_is_one_in_which_git_works(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *log = NULL, *branch = NULL;
    memfs_oid id;

    make(w);
    assert_clean(w, w->tree);
    id = git_id(w, w->tree, "HEAD");
    assert_true(oid_equal(&id, &STORE_GENESIS));
    branch = git_says(w, w->tree, "symbolic-ref", "HEAD");
    assert_string_equal(branch, "refs/heads/main\n");
    put(w, w->tree, "system/human.md", "text\n");
    commit_all_by_git(w, w->tree, "a commit");
    assert_clean(w, w->tree);
    log = git_says(w, w->tree, "reflog", "--format=%gs");
    assert_string_equal(log, "commit: a commit\ncommit (initial): memfs: genesis\n");
    git(w, w->tree, "gc", "-q");
    assert_fsck(w, w->tree);
}

static void test_the_folder_dot_git_is_a_folder_and_nothing_else_is_made(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *dot_git = mem_printf("%s/.git", w->tree);

    make(w);
    assert_true(fs_is_dir(dot_git));
    assert_false(has_prefix(w->root, "tree.memfs-"));
    assert_true(rmdir(w->tree) < 0);
    assert_ok(w, fs_remove_tree(dot_git, &w->err));
    assert_int_equal(rmdir(w->tree), 0); /* .git was all there was */
}

static void test_files_that_are_there_stay_untracked(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *said = NULL;

    put(w, w->tree, "notes/a.md", "mine\n");
    make(w);
    assert_text(w, w->tree, "notes/a.md", "mine\n");
    said = git_says(w, w->tree, "status", "--porcelain", "-uall");
    assert_string_equal(said, "?? notes/a.md\n");
}

static void test_what_is_there_is_never_made_again(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *bare = mem_printf("%s/bare.git", w->root);
    memfs_oid before, after;

    make(w);
    put(w, w->tree, "a.md", "a\n");
    commit_all_by_git(w, w->tree, "a commit");
    before = git_id(w, w->tree, "HEAD");
    assert_code(w, MEMFS_EEXISTS, checkout_create(w->tree, false, &w->err));
    after = git_id(w, w->tree, "HEAD");
    assert_true(oid_equal(&before, &after));
    assert_ok(w, checkout_create(bare, true, &w->err));
    assert_code(w, MEMFS_EEXISTS, checkout_create(bare, true, &w->err));
    assert_code(w, MEMFS_EINVALID, checkout_create("relative", false, &w->err));
}

static void test_an_empty_dot_git_of_an_interrupted_git_is_filled(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *dot_git = mem_printf("%s/.git", w->tree);

    assert_ok(w, fs_mkdirs(dot_git, &w->err));
    make(w);
    assert_clean(w, w->tree);
}

static void test_a_bare_one_can_be_pushed_to_and_cloned(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *bare = mem_printf("%s/hub/a.git", w->root);
    memfs_oid here, there;

    assert_ok(w, checkout_create(bare, true, &w->err));
    git(w, w->root, "clone", "-q", bare, w->tree);
    put(w, w->tree, "a.md", "a\n");
    commit_all_by_git(w, w->tree, "a commit");
    git(w, w->tree, "push", "-q", "origin", "main");
    here = git_id(w, w->tree, "HEAD");
    there = git_id(w, bare, "main");
    assert_true(oid_equal(&here, &there));
    assert_fsck(w, bare);
}

typedef struct maker {
    work *w;
    memfs_error err;
    memfs_code rc;
} maker;

static void *make_one(void *ctx)
{
    maker *m = ctx;

    m->rc = checkout_create(m->w->tree, false, &m->err);
    return NULL;
}

static void test_of_32_at_once_one_makes_it(void **state)
{
    enum { N = 32 };
    work *w = *state;
    maker all[N];
    pthread_t threads[N];
    int n_made = 0;

    for (int i = 0; i < N; i++) {
        all[i] = (maker){ .w = w };
        assert_int_equal(pthread_create(&threads[i], NULL, make_one, &all[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        if (all[i].rc != MEMFS_OK && all[i].rc != MEMFS_EEXISTS)
            fail_msg("%s", all[i].err.msg);
        n_made += all[i].rc == MEMFS_OK;
    }
    assert_int_equal(n_made, 1);
    assert_false(has_prefix(w->root, "tree.memfs-"));
    assert_clean(w, w->tree);
}

static void test_only_staging_folders_of_the_dead_are_removed(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *living = mem_printf("%s/tree.memfs-aaaaaa", w->root);
    _cleanup_(mem_freep) char *stranger = mem_printf("%s/tree.memfs-longer-name", w->root);
    int fd;

    put(w, w->root, "tree.memfs-aaaaaa/.git/HEAD", "half");
    put(w, w->root, "tree.memfs-bbbbbb/.git/HEAD", "half");
    put(w, w->root, "tree.memfs-longer-name/file", "whose?");
    fd = open(living, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    make(w);
    assert_true(has(w, living, ".git/HEAD"));
    assert_true(has(w, stranger, "file"));
    assert_false(has(w, w->root, "tree.memfs-bbbbbb"));
    close(fd);
}

/* opening */

static void test_where_there_is_no_repository_it_says_so(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *below = mem_printf("%s/below", w->tree);
    checkout *c = NULL;

    assert_code(w, MEMFS_ENOTFOUND, checkout_open(w->tree, &c, &w->err));
    make(w);
    assert_ok(w, fs_mkdirs(below, &w->err));
    assert_code(w, MEMFS_ENOTFOUND, checkout_open(below, &c, &w->err)); /* parents do not count */
    put(w, w->root, "broken/.git/config", "");
    {
        _cleanup_(mem_freep) char *broken = mem_printf("%s/broken", w->root);

        assert_code(w, MEMFS_ECORRUPT, checkout_open(broken, &c, &w->err));
        assert_says(w, "move it away");
    }
}

static void test_what_memfs_does_not_know_is_refused_by_name(void **state)
{
    static const struct {
        const char *key, *value, *says;
    } rows[] = {
        { "extensions.objectFormat", "sha256", "'sha256'; memories are sha1" },
        { "extensions.refStorage", "reftable", "'refstorage'" },
        { "extensions.partialClone", "origin", "'partialclone'" },
        { "core.repositoryFormatVersion", "2", "version '2'" },
        { "core.worktree", "/elsewhere", "core.worktree" },
    };
    work *w = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/.git/config", w->tree);

    make(w);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        gitconfig_change set = { rows[i].key, rows[i].value }, unset = { rows[i].key, NULL };
        checkout *c = NULL;

        assert_ok(w, gitconfig_apply(path, &set, 1, &w->err));
        assert_code(w, MEMFS_EINVALID, checkout_open(w->tree, &c, &w->err));
        assert_says(w, rows[i].says);
        unset.key = rows[i].key;
        unset.value = strcmp(rows[i].value, "2") == 0 ? "0" : NULL;
        assert_ok(w, gitconfig_apply(path, &unset, 1, &w->err));
    }
    checkout_close(opened(w, w->tree));
}

static void test_anothers_repository_is_refused(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/.git", w->tree);
    checkout *c = NULL;

    if (geteuid() != 0)
        skip();
    make(w);
    assert_int_equal(chown(path, 4711, (gid_t)-1), 0);
    assert_code(w, MEMFS_EDENIED, checkout_open(w->tree, &c, &w->err));
    assert_says(w, "uid 4711");
}

static void test_linked_working_trees_share_objects_and_refs(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *path = mem_printf("%s/linked", w->root);
    _cleanup_(mem_freep) char *common = mem_printf("%s/.git", w->tree);
    _cleanup_(checkout_closep) checkout *c = NULL;
    checkout_state s;
    memfs_oid id;

    make(w);
    git(w, w->tree, "config", "extensions.worktreeConfig", "true");
    git(w, w->tree, "worktree", "add", "-q", path, "-b", "letta/x/1");
    c = opened(w, path);
    assert_string_equal(checkout_work_tree(c), path);
    assert_string_equal(checkout_common_dir(c), common);
    assert_string_not_equal(checkout_git_dir(c), common);
    assert_ok(w, checkout_ref(c, "refs/heads/main", &id, &w->err));
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_string_equal(s.branch, "letta/x/1");
    assert_int_equal(s.n_changed + s.n_untracked, 0);
}

static void test_objects_of_alternates_are_found(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *copy = mem_printf("%s/copy", w->root);
    _cleanup_(checkout_closep) checkout *c = NULL;
    checkout_state s;

    make(w);
    put(w, w->tree, "a/b.md", "text\n");
    commit_all_by_git(w, w->tree, "a commit");
    git(w, w->root, "clone", "-q", "--shared", w->tree, copy);
    c = opened(w, copy);
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_true(s.has_head);
    assert_int_equal(s.n_changed + s.n_untracked, 0);
}

/* refs */

static memfs_code gather(const char *name, const memfs_oid *id, void *ctx, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    (void)err;
    oid_hex(id, hex);
    buf_printf(ctx, "%s %s\n", hex, name);
    return MEMFS_OK;
}

static void assert_refs_as_git_says(work *w, checkout *c, const char *prefix)
{
    _cleanup_(buf_dispose) memfs_buf ours = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(mem_freep) char *gits =
        git_says(w, w->tree, "for-each-ref", "--format=%(objectname) %(refname)", prefix);

    assert_ok(w, checkout_each_ref(c, prefix, gather, &ours, &w->err));
    assert_string_equal(ours.ptr, gits);
}

static void test_refs_are_listed_as_git_lists_them(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_oid id;

    make(w);
    for (int i = 0; i < 12; i++) {
        _cleanup_(mem_freep) char *name = mem_printf("refs/memfs/rescue/main/%d", i * 7 % 12);

        commit_all_by_git(w, w->tree, name);
        git(w, w->tree, "update-ref", name, "HEAD");
        if (i == 6)
            git(w, w->tree, "pack-refs", "--all");
        if (i == 8) /* packed and loose, with different values */
            git(w, w->tree, "update-ref", "refs/memfs/rescue/main/7", "HEAD");
    }
    git(w, w->tree, "tag", "-a", "-m", "t", "tag");
    git(w, w->tree, "pack-refs", "--all");
    git(w, w->tree, "update-ref", "refs/heads/letta/a-b", "HEAD");
    git(w, w->tree, "update-ref", "refs/heads/letta/a/c", "HEAD");
    c = opened(w, w->tree);
    assert_refs_as_git_says(w, c, "refs/");
    assert_refs_as_git_says(w, c, "refs/memfs/rescue/");
    assert_refs_as_git_says(w, c, "refs/heads/");
    assert_refs_as_git_says(w, c, "refs/nothing/");
    assert_code(w, MEMFS_ENOTFOUND, checkout_ref(c, "refs/heads/letta", &id, &w->err));
    assert_code(w, MEMFS_ENOTFOUND, checkout_ref(c, "refs/heads/none", &id, &w->err));
    assert_code(w, MEMFS_EINVALID, checkout_ref(c, "../HEAD", &id, &w->err));
    assert_ok(w, checkout_ref(c, "HEAD", &id, &w->err));
}

static void test_a_ref_moves_only_from_where_it_was_seen(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(mem_freep) char *log = NULL, *head_log = NULL;
    memfs_oid first = STORE_GENESIS, second, missing = { { 1 } }, now;

    make(w);
    commit_all_by_git(w, w->tree, "second");
    second = git_id(w, w->tree, "HEAD");
    c = opened(w, w->tree);
    assert_code(w, MEMFS_ECONFLICT,
                checkout_ref_move(c, STORE_MAIN, &first, &second, "no", &w->err));
    assert_code(w, MEMFS_ECONFLICT,
                checkout_ref_move(c, STORE_MAIN, &NONE, &second, "no", &w->err));
    assert_code(w, MEMFS_ECORRUPT,
                checkout_ref_move(c, STORE_MAIN, &second, &missing, "", &w->err));
    assert_ok(w, checkout_ref_move(c, STORE_MAIN, &second, &first, "back\nnow", &w->err));
    now = git_id(w, w->tree, "main");
    assert_true(oid_equal(&now, &first));
    log = git_says(w, w->tree, "reflog", "show", "--format=%gs", "main");
    assert_string_equal(log, "back\\x0Anow\ncommit: second\ncommit (initial): memfs: genesis\n");
    head_log = git_says(w, w->tree, "reflog", "--format=%gs");
    assert_string_equal(head_log, log);
    assert_false(has(w, w->tree, ".git/refs/heads/main.lock"));
    assert_false(has_prefix(w->tree, ".git/memfs/lock-"));
    assert_fsck(w, w->tree);
}

static void test_refs_are_made_and_deleted_loose_or_packed(void **state)
{
    static const char NAME[] = "refs/memfs/rescue/letta/a/b";
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_oid id = STORE_GENESIS, now;

    make(w);
    c = opened(w, w->tree);
    assert_ok(w, checkout_ref_move(c, NAME, &NONE, &id, "made", &w->err));
    assert_refs_as_git_says(w, c, "refs/");
    assert_code(w, MEMFS_ECONFLICT, checkout_ref_move(c, NAME, &NONE, &id, "again", &w->err));
    assert_ok(w, checkout_ref_move(c, NAME, &id, NULL, "gone", &w->err));
    assert_code(w, MEMFS_ENOTFOUND, checkout_ref(c, NAME, &now, &w->err));
    assert_false(has(w, w->tree, ".git/refs/memfs/rescue"));
    assert_ok(w, checkout_ref_move(c, NAME, &NONE, &id, "made", &w->err));
    git(w, w->tree, "tag", "-a", "-m", "t", "tag");
    git(w, w->tree, "pack-refs", "--all");
    assert_code(w, MEMFS_EEXISTS,
                checkout_ref_move(c, "refs/memfs/rescue/letta", &NONE, &id, "", &w->err));
    assert_code(w, MEMFS_EEXISTS,
                checkout_ref_move(c, "refs/memfs/rescue/letta/a/b/c", &NONE, &id, "", &w->err));
    assert_ok(w, checkout_ref_move(c, NAME, &id, NULL, "gone", &w->err));
    assert_refs_as_git_says(w, c, "refs/");
    assert_ok(w, checkout_ref_move(c, "refs/memfs/rescue/letta", &NONE, &id, "", &w->err));
    assert_refs_as_git_says(w, c, "refs/");
    assert_fsck(w, w->tree);
}

static void test_names_that_are_no_refs_are_refused(void **state)
{
    static const char *const names[] = { "HEAD",
                                         "main",
                                         "refs/heads/a..b",
                                         "refs/heads/a.lock",
                                         "refs/heads/",
                                         "refs/../HEAD",
                                         "refs/heads/a b",
                                         "refs/heads/.a",
                                         "refs/remotes/origin/HEAD" };
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;

    make(w);
    put(w, w->tree, ".git/refs/remotes/origin/HEAD", "ref: refs/heads/main\n");
    c = opened(w, w->tree);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_code(w, MEMFS_EINVALID,
                    checkout_ref_move(c, names[i], &NONE, &STORE_GENESIS, "x", &w->err));
}

static void test_the_lock_of_a_git_is_waited_for(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    int64_t begin_ms = clock_mono_ms();

    make(w);
    c = opened(w, w->tree);
    put(w, w->tree, ".git/refs/heads/main.lock", "");
    assert_code(w, MEMFS_EUNAVAIL,
                checkout_ref_move(c, STORE_MAIN, &STORE_GENESIS, &STORE_GENESIS, "x", &w->err));
    assert_true(clock_mono_ms() - begin_ms >= 2000);
    assert_says(w, "main.lock");
    assert_true(has(w, w->tree, ".git/refs/heads/main.lock"));
}

static void test_a_checkout_without_links_or_folders_above_refs(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    _cleanup_(mem_freep) char *empty = mem_printf("%s/.git/refs/memfs/synced/a/b", w->tree);

    make(w);
    assert_ok(w, fs_mkdirs(empty, &w->err)); /* what other refs left */
    c = opened(w, w->tree);
    assert_ok(w, checkout_ref_move(c, "refs/memfs/synced", &NONE, &STORE_GENESIS, "x", &w->err));
    assert_refs_as_git_says(w, c, "refs/");
}

/* looking */

static void assert_inspected_as_git_does(work *w, const char *tree)
{
    _cleanup_(mem_freep) char *said = git_says(w, tree, "-c", "core.quotePath=false", "status",
                                               "--porcelain", "--no-renames", "-uall");
    _cleanup_(checkout_closep) checkout *c = opened(w, tree);
    size_t n_changed = 0, n_untracked = 0;
    checkout_state s;

    for (const char *at = said; *at != '\0'; at = strchr(at, '\n') + 1) {
        if (strncmp(at, "??", 2) == 0)
            n_untracked++;
        else
            n_changed++;
    }
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    if (s.n_changed != n_changed || s.n_untracked != n_untracked)
        fail_msg("git says\n%sand we count %zu changed ('%s'), %zu untracked", said, s.n_changed,
                 s.first_changed, s.n_untracked);
}

static void test_states_of_a_repository_are_told_apart(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    checkout_state s;
    const char *failing[] = { "merge", "other", NULL };
    const char *failing_rebase[] = { "rebase", "other", NULL };
    const char *failing_pick[] = { "cherry-pick", "other", NULL };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);

    make(w);
    c = opened(w, w->tree);
    put(w, w->tree, "a.md", "one\n");
    commit_all_by_git(w, w->tree, "one");
    git(w, w->tree, "branch", "other");
    put(w, w->tree, "a.md", "two\n");
    commit_all_by_git(w, w->tree, "two");
    git(w, w->tree, "checkout", "-q", "other");
    put(w, w->tree, "a.md", "three\n");
    commit_all_by_git(w, w->tree, "three");
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_string_equal(s.branch, "other");
    git(w, w->tree, "checkout", "-q", "main");
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_string_equal(s.branch, "main");
    assert_int_equal(s.operation, CHECKOUT_CALM);
    assert_true(s.has_head && !s.is_detached && s.n_changed == 0 && !s.has_index_lock);

    assert_true(try_git(w, w->tree, &out, failing) < 0);
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_int_equal(s.operation, CHECKOUT_MERGING);
    assert_int_equal(s.n_changed, 1);
    assert_inspected_as_git_does(w, w->tree);
    git(w, w->tree, "merge", "--abort");
    assert_true(try_git(w, w->tree, &out, failing_rebase) < 0);
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_int_equal(s.operation, CHECKOUT_REBASING);
    assert_true(s.is_detached);
    git(w, w->tree, "rebase", "--abort");
    assert_true(try_git(w, w->tree, &out, failing_pick) < 0);
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_int_equal(s.operation, CHECKOUT_PICKING);
    git(w, w->tree, "cherry-pick", "--abort");
    git(w, w->tree, "bisect", "start");
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_int_equal(s.operation, CHECKOUT_BISECTING);
    git(w, w->tree, "bisect", "reset");
    git(w, w->tree, "checkout", "-q", "--detach");
    put(w, w->tree, ".git/index.lock", "");
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_true(s.is_detached && s.has_index_lock);
    assert_string_equal(s.branch, "");
}

static void test_a_branch_without_a_commit_has_no_head(void **state)
{
    work *w = *state;
    _cleanup_(checkout_closep) checkout *c = NULL;
    checkout_state s;

    git(w, w->root, "init", "-q", "-b", "main", w->tree);
    put(w, w->tree, "staged.md", "x\n");
    git(w, w->tree, "add", "-A");
    put(w, w->tree, "loose.md", "x\n");
    c = opened(w, w->tree);
    assert_ok(w, checkout_inspect(c, &s, &w->err));
    assert_false(s.has_head);
    assert_string_equal(s.branch, "main");
    assert_int_equal(s.n_changed, 1);
    assert_int_equal(s.n_untracked, 1);
}

/* A random walk of everything an agent, an editor or git may do; after each step both are asked. */
static void do_something(work *w, unsigned *seed)
{
    static const char *const names[] = {
        "a.md",      "b.md",      "system/human.md", "system/deep/x.md",
        "system.md", "ign/a.log", "with blank.md",   "ü.md",
        "x-y",       "x/y"
    };
    const char *name = names[(unsigned)rand_r(seed) % ARRAY_LEN(names)];
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", w->tree, name);
    const char *add[] = { "add", "-A", name, NULL };
    const char *add_intent[] = { "add", "-N", name, NULL };
    const char *commit[] = { "commit", "-q", "-m", "c", NULL };
    const char *remove[] = { "rm", "-q", "--cached", "-r", name, NULL };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    char text[8] = "text0\n";
    memfs_code rc = MEMFS_OK;

    text[4] = (char)('0' + rand_r(seed) % 3); /* same length: only bytes tell them apart */
    switch (rand_r(seed) % 12) {
    case 0:
    case 1:
    case 2:
        if (!fs_is_dir(path) && strcmp(name, "x/y") != 0)
            put(w, w->tree, name, text);
        break;
    case 3: rc = try_git(w, w->tree, &out, add); break;
    case 4:
    case 5: rc = try_git(w, w->tree, &out, commit); break;
    case 6: unlink(path); break;
    case 7: rc = try_git(w, w->tree, &out, remove); break;
    case 8:
        if (fs_exists(path) && !fs_is_dir(path))
            chmod(path, rand_r(seed) % 2 ? 0755 : 0644);
        break;
    case 9:
        if (unlink(path) == 0 && symlink("a.md", path) < 0)
            fail();
        break;
    case 10:
        put(w, w->tree, ".gitignore", rand_r(seed) % 2 ? "*.log\n/x-?\n" : "ign/\n!b.md\n");
        break;
    default: rc = try_git(w, w->tree, &out, add_intent); break;
    }
    if (rc < 0)
        w->err.code = MEMFS_OK; /* git had nothing to do */
}

static void test_inspect_agrees_with_git_status(void **state)
{
    work *w = *state;

    for (unsigned seed = 1; seed <= 6; seed++) {
        unsigned at = seed;

        make(w);
        if (seed % 2 == 0)
            git(w, w->tree, "config", "core.symlinks", "true");
        if (seed % 3 == 0)
            git(w, w->tree, "config", "core.fileMode", "false");
        for (int i = 0; i < 60; i++) {
            do_something(w, &at);
            assert_inspected_as_git_does(w, w->tree);
        }
        assert_ok(w, fs_remove_tree(w->tree, &w->err));
    }
}

static void test_an_edit_in_the_same_instant_is_seen(void **state)
{
    work *w = *state;

    make(w);
    for (int i = 0; i < 30; i++) {
        _cleanup_(mem_freep) char *text = mem_printf("%04d\n", i), *other = mem_printf("%04d!", i);

        put(w, w->tree, "a.md", text);
        git(w, w->tree, "add", "a.md");
        put(w, w->tree, "a.md", other);
        assert_inspected_as_git_does(w, w->tree);
        git(w, w->tree, "commit", "-q", "-m", "x");
    }
}

static void test_what_the_user_told_git_not_to_look_at_is_not_looked_at(void **state)
{
    work *w = *state;

    make(w);
    put(w, w->tree, "a.md", "a\n");
    put(w, w->tree, "b.md", "b\n");
    commit_all_by_git(w, w->tree, "both");
    git(w, w->tree, "update-index", "--assume-unchanged", "a.md");
    git(w, w->tree, "update-index", "--skip-worktree", "b.md");
    put(w, w->tree, "a.md", "changed\n");
    unlink("b.md");
    assert_inspected_as_git_does(w, w->tree);
}

static void test_nested_repositories_and_links_out_are_not_entered(void **state)
{
    work *w = *state;
    _cleanup_(mem_freep) char *nested = mem_printf("%s/nested", w->tree);
    _cleanup_(mem_freep) char *link = mem_printf("%s/link", w->tree);
    _cleanup_(mem_freep) char *tracked = mem_printf("%s/folder", w->tree);
    _cleanup_(mem_freep) char *outside = mem_printf("%s/outside", w->root);

    make(w);
    put(w, w->tree, "folder/a.md", "a\n");
    commit_all_by_git(w, w->tree, "a");
    git(w, w->root, "init", "-q", nested);
    put(w, nested, "file", "x");
    put(w, w->root, "outside/a.md", "a\n");
    assert_int_equal(symlink(outside, link), 0);
    assert_inspected_as_git_does(w, w->tree);
    assert_ok(w, fs_remove_tree(tracked, &w->err)); /* a link in place of a folder of the tree */
    assert_int_equal(symlink(outside, tracked), 0);
    assert_inspected_as_git_does(w, w->tree);
}

/* ignoring */

static void ignore_freep(ignore **g)
{
    ignore_free(*g);
}

static void test_ignore_rules_agree_with_git(void **state)
{
    static const char *const rules[] = {
        "*.log",     "/root.md",  "dir/",     "a/**/z",     "**/deep",      "deep/**",
        "!keep.log", "x?z",       "[a-c].md", "[!a-c].txt", "[[:digit:]]*", "\\!bang",
        "\\#hash",   "# comment", "trail  ",  "keep\\ ",    "a/b",          "/a/*/c",
        "**",        "*",         "!*/",      "a**b",       "foo/*",        "!foo/bar",
        "[]]",       "[a",        "x\\",      "**/",        "/**",          "*/x",
    };
    static const char *const paths[] = {
        "a.log", "keep.log", "d/a.log", "root.md", "d/root.md", "dir/f", "d/dir/f", "a/z",
        "a/b/z", "a/b/c/z",  "deep",    "q/deep",  "deep/f",    "xyz",   "x/z",     "a.md",
        "d.md",  "a.txt",    "d.txt",   "7up",     "!bang",     "#hash", "trail",   "keep ",
        "a/b",   "q/a/b",    "a/q/c",   "a/c",     "aXb",       "aX/b",  "foo/bar", "foo/baz",
        "]",     "[a",       "p/x",     "x",
    };
    work *w = *state;
    unsigned seed = 7;

    make(w);
    for (int round = 0; round < 60; round++) {
        _cleanup_(ignore_freep) ignore *g = ignore_new();
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 16),
                                         out = MEMFS_BUF_INIT(1 << 16);
        const char *args[ARRAY_LEN(paths) + 8] = { "-c", "core.quotePath=false", "check-ignore",
                                                   "--no-index" };
        const char *said;
        size_t n_said = 0, n_ours = 0;

        for (int i = 0; i < 3; i++) {
            buf_puts(&text, round < (int)ARRAY_LEN(rules) && i == 0
                                ? rules[round]
                                : rules[(unsigned)rand_r(&seed) % ARRAY_LEN(rules)]);
            buf_puts(&text, round % 5 == 4 ? "\r\n" : "\n");
        }
        put(w, w->tree, ".gitignore", text.ptr);
        ignore_push(g, buf_str(&text), "");
        for (size_t i = 0; i < ARRAY_LEN(paths); i += 12) {
            size_t n = 4;

            for (size_t k = i; k < i + 12 && k < ARRAY_LEN(paths); k++)
                args[n++] = paths[k];
            args[n] = NULL;
            if (try_git(w, w->tree, &out, args) < 0)
                w->err.code = MEMFS_OK; /* none of them */
        }
        for (size_t i = 0; i < out.len; i++) {
            n_said += out.ptr[i] == '\n';
            out.ptr[i] = out.ptr[i] == '\n' ? '\0' : out.ptr[i];
        }
        said = out.ptr;
        for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
            _cleanup_(mem_freep) char *path = mem_strdup(paths[i]);
            bool is_ignored = false;

            for (char *at = strchr(path, '/'); at != NULL && !is_ignored;
                 at = strchr(at + 1, '/')) {
                *at = '\0';
                is_ignored = ignore_matches(g, path, true);
                *at = '/';
            }
            if (!is_ignored && !ignore_matches(g, path, false))
                continue;
            n_ours++;
            if (said >= out.ptr + out.len || strcmp(said, path) != 0)
                fail_msg("'%s' is ignored by us under:\n%sand git says '%s'", path, text.ptr, said);
            said += strlen(said) + 1;
        }
        if (n_ours != n_said)
            fail_msg("git ignores '%s' under:\n%sand we do not", said, text.ptr);
    }
}

static void test_a_hostile_pattern_ends_soon(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 16);

    (void)state;
    for (int i = 0; i < 200; i++)
        buf_putc(&text, 'a');
    assert_false(ignore_wildmatch("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", text.ptr, false));
}

static void test_rules_of_the_user_count_too(void **state)
{
    work *w = *state;

    make(w);
    put(w, w->root, ".config/git/ignore", "*.swp\n");
    put(w, w->tree, ".git/info/exclude", "private\n");
    put(w, w->tree, "a.swp", "x");
    put(w, w->tree, "private", "x");
    put(w, w->tree, "seen", "x");
    assert_inspected_as_git_does(w, w->tree);
    put(w, w->root, ".gitconfig", "[core]\n\texcludesFile = ~/mine\n");
    put(w, w->root, "mine", "seen\n");
    assert_inspected_as_git_does(w, w->tree);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, work_setup, work_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_checkout_is_one_in_which_git_works),
        TEST(test_the_folder_dot_git_is_a_folder_and_nothing_else_is_made),
        TEST(test_files_that_are_there_stay_untracked),
        TEST(test_what_is_there_is_never_made_again),
        TEST(test_an_empty_dot_git_of_an_interrupted_git_is_filled),
        TEST(test_a_bare_one_can_be_pushed_to_and_cloned),
        TEST(test_of_32_at_once_one_makes_it),
        TEST(test_only_staging_folders_of_the_dead_are_removed),
        TEST(test_where_there_is_no_repository_it_says_so),
        TEST(test_what_memfs_does_not_know_is_refused_by_name),
        TEST(test_anothers_repository_is_refused),
        TEST(test_linked_working_trees_share_objects_and_refs),
        TEST(test_objects_of_alternates_are_found),
        TEST(test_refs_are_listed_as_git_lists_them),
        TEST(test_a_ref_moves_only_from_where_it_was_seen),
        TEST(test_refs_are_made_and_deleted_loose_or_packed),
        TEST(test_names_that_are_no_refs_are_refused),
        TEST(test_the_lock_of_a_git_is_waited_for),
        TEST(test_a_checkout_without_links_or_folders_above_refs),
        TEST(test_states_of_a_repository_are_told_apart),
        TEST(test_a_branch_without_a_commit_has_no_head),
        TEST(test_inspect_agrees_with_git_status),
        TEST(test_an_edit_in_the_same_instant_is_seen),
        TEST(test_what_the_user_told_git_not_to_look_at_is_not_looked_at),
        TEST(test_nested_repositories_and_links_out_are_not_entered),
        TEST(test_ignore_rules_agree_with_git),
        TEST(test_a_hostile_pattern_ends_soon),
        TEST(test_rules_of_the_user_count_too),
    };

    return cmocka_run_group_tests_name("checkout", tests, NULL, NULL);
}
