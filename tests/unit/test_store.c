/*
 * Repositories: how they begin, how main moves, what a diff costs, upkeep.
 */
#include "store_support.h"

#include "base/clock.h"
#include "store/care.h"
#include "store/git_child.h"
#include "store/history.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

static char *in_repo(fixture *f, const char *file)
{
    return mem_printf("%s/" AGENT "/%s", f->home, file);
}

static bool repo_file_exists(fixture *f, const char *file)
{
    _cleanup_(mem_freep) char *path = in_repo(f, file);

    return fs_exists(path);
}

static void put_in_repo(fixture *f, const char *file, const char *text)
{
    _cleanup_(mem_freep) char *path = in_repo(f, file);
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

    assert_ok(f, fs_mkdirs(folder, &f->err));
    assert_ok(f, fs_write_atomic(path, str_of(text), 0600, &f->err));
}

/* A clone with `n` files in ten folders, pushed. */
static void push_files(fixture *f, int n)
{
    char name[64], text[64];

    work_clone(f, NULL, f->work);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "folder-%d/file-%04d.md", i % 10, i);
        snprintf(text, sizeof(text), "text of %d\n", i);
        work_write(f, f->work, name, str_of(text));
    }
    work_commit(f, f->work, "system/human.md", "human\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
}

/* the beginning */

static void test_the_genesis_is_the_same_commit_everywhere(void **state)
{
    fixture *f = *state;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid tip;

    oid_hex(&STORE_GENESIS, hex);
    assert_string_equal(hex, "56776245ff7b896622904bfc4d1c355a35e6cd81");
    assert_ok(f, store_create(f->s, AGENT, &f->err));
    assert_ok(f, store_tip(f->s, AGENT, &tip, &f->err));
    assert_true(oid_equal(&tip, &STORE_GENESIS));
    tip = git_id(f, store_genesis_path(f->s), "HEAD");
    assert_true(oid_equal(&tip, &STORE_GENESIS));
    assert_whole(f, AGENT);
}

static void test_H4_a_repository_is_never_made_over_another(void **state)
{
    fixture *f = *state;
    memfs_oid before, after;

    push_files(f, 1);
    before = tip_of(f, AGENT);
    assert_code(f, MEMFS_EEXISTS, store_create(f->s, AGENT, &f->err));
    after = tip_of(f, AGENT);
    assert_true(oid_equal(&before, &after));
    assert_code(f, MEMFS_ENOTFOUND, store_tip(f->s, OTHER, &after, &f->err));
    assert_false(store_has(f->s, OTHER));
}

static void test_T01_names_cannot_leave_the_folder(void **state)
{
    static const char *const names[] = { "", "/etc", "../x", "a/../../x", "-x", "a//b", "a/" };
    fixture *f = *state;
    repo *r;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_code(f, MEMFS_EINVALID, store_create(f->s, names[i], &f->err));
        assert_code(f, MEMFS_EINVALID, repo_open(f->s, names[i], &r, &f->err));
    }
}

/* Somebody with our uid planted a link where a repository should be: what it leads to is not ours. */
static void test_T01_a_link_in_place_of_a_repository_is_not_followed(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *link = mem_printf("%s/linked", f->home);
    repo *r;

    assert_code(f, MEMFS_OK, store_create(f->s, "real/repo.git", &f->err));
    assert_int_equal(symlink("real", link), 0);
    assert_true(store_has(f->s, "real/repo.git"));
    assert_false(store_has(f->s, "linked/repo.git"));
    assert_code(f, MEMFS_ENOTFOUND, repo_open(f->s, "linked/repo.git", &r, &f->err));
}

static void test_T30_a_folder_that_others_may_write_is_not_opened(void **state)
{
    fixture *f = *state;
    store *s;

    assert_int_equal(chmod(f->home, 0770), 0);
    assert_code(f, MEMFS_EDENIED, store_open(f->home, &s, &f->err));
    assert_int_equal(chmod(f->home, 0700), 0);
    assert_code(f, MEMFS_EINVALID, store_open("relative", &s, &f->err));
}

static void test_L2_a_damaged_template_is_made_anew(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *ref = mem_printf("%s/refs/heads/main", store_genesis_path(f->s));

    assert_ok(f, fs_write_atomic(ref, MEMFS_STR(""), 0600, &f->err));
    fixture_reopen(f);
    assert_ok(f, store_create(f->s, AGENT, &f->err));
    assert_whole(f, AGENT);
}

/* reading the tip */

static void test_the_tip_is_found_loose_or_packed(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(f->s, AGENT);
    memfs_oid loose, packed;

    push_files(f, 1);
    loose = tip_of(f, AGENT);
    git(f, path, "-c", "safe.directory=*", "pack-refs", "--all");
    assert_false(repo_file_exists(f, "refs/heads/main"));
    packed = tip_of(f, AGENT);
    assert_true(oid_equal(&loose, &packed));
    /* and the next push makes it loose again */
    work_commit(f, f->work, "more.md", "more\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_true(repo_file_exists(f, "refs/heads/main"));
    assert_whole(f, AGENT);
}

static void test_F12_an_unreadable_tip_is_damage_and_not_absence(void **state)
{
    static const char *const broken[] = { "", "garbage\n", "ref: refs/heads/other\n",
                                          "56776245ff7b896622904bfc4d1c355a35e6cd8\n",
                                          "56776245ff7b896622904bfc4d1c355a35e6cd811\n",
                                          "56776245FF7B896622904BFC4D1C355A35E6CD81\n" };
    fixture *f = *state;
    memfs_oid tip;

    push_files(f, 1);
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        put_in_repo(f, "refs/heads/main", broken[i]);
        assert_code(f, MEMFS_ECORRUPT, store_tip(f->s, AGENT, &tip, &f->err));
    }
    _cleanup_(mem_freep) char *ref = in_repo(f, "refs/heads/main");
    assert_int_equal(unlink(ref), 0);
    assert_code(f, MEMFS_ECORRUPT, store_tip(f->s, AGENT, &tip, &f->err));
}

/* moving the ref */

static memfs_code move(fixture *f, const memfs_oid *from, const memfs_oid *to)
{
    _cleanup_(repo_closep) repo *r = NULL;

    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    return repo_ref_move(r, from, to, &WHO, "test", &f->err);
}

static void test_H3_a_move_from_a_stale_tip_is_a_conflict(void **state)
{
    fixture *f = *state;
    memfs_oid tip, after;

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    assert_code(f, MEMFS_ECONFLICT, move(f, &STORE_GENESIS, &tip));
    assert_says(f, "fetch first");
    after = tip_of(f, AGENT);
    assert_true(oid_equal(&tip, &after));
}

static void test_a_branch_holds_commits_that_are_there(void **state)
{
    fixture *f = *state;
    memfs_oid tip, tree, none = { { 1 } };

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    tree = git_id(f, f->work, "HEAD^{tree}");
    assert_code(f, MEMFS_EINVALID, move(f, &tip, &tree));
    assert_code(f, MEMFS_ECORRUPT, move(f, &tip, &none));
}

static void test_every_move_is_a_line_that_git_reads(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(f->s, AGENT);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    const char *args[] = { "-c", "safe.directory=*", "reflog", "show", "--format=%H|%gn|%ge|%gs",
                           "main", NULL };
    store_identity odd = { "a <b>\n c", "x>\n@y", -5 };
    char expected[256], hex[MEMFS_OID_HEX + 1];
    repo *r;
    memfs_oid tip;

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_ref_move(r, &tip, &STORE_GENESIS, &odd, "why\nnot", &f->err));
    repo_close(r);
    assert_ok(f, git_try(f, path, &out, MEMFS_STR(""), args));
    oid_hex(&tip, hex);
    snprintf(expected, sizeof(expected),
             "56776245ff7b896622904bfc4d1c355a35e6cd81|a b\\x0A c|x\\x0A@y|why\\x0Anot\n"
             "%s|tester|tester@localhost|push\n"
             "56776245ff7b896622904bfc4d1c355a35e6cd81|memfs|memfs@localhost|genesis\n",
             hex);
    assert_string_equal(out.ptr, expected);
}

static void test_F02_a_stale_lock_is_waited_for_and_then_taken(void **state)
{
    fixture *f = *state;
    int64_t start;
    memfs_oid tip;

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    put_in_repo(f, "refs/heads/main.lock", "");
    start = clock_mono_ms();
    assert_ok(f, move(f, &tip, &STORE_GENESIS));
    assert_in_range(clock_mono_ms() - start, 400, 5000);
    assert_false(repo_file_exists(f, "refs/heads/main.lock"));
}

static void test_H1_a_rewrite_keeps_the_old_tip(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(f->s, AGENT);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    const char *args[] = { "for-each-ref", "--format=%(objectname)", "refs/memfs/backup", NULL };
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid tip, now;
    repo *r;

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_ref_rewrite(r, &tip, &STORE_GENESIS, &WHO, "purge", &f->err));
    repo_close(r);
    now = tip_of(f, AGENT);
    assert_true(oid_equal(&now, &STORE_GENESIS));
    assert_ok(f, git_try(f, path, &out, MEMFS_STR(""), args));
    oid_hex(&tip, hex);
    assert_memory_equal(out.ptr, hex, MEMFS_OID_HEX);
}

/* F06: a folder that cannot take a file stands for a full disk; root would write anyway. */
static void test_F06_a_move_that_cannot_be_written_changes_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *heads = in_repo(f, "refs/heads/main.lock");
    memfs_oid tip, after;

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    /* a folder in the place of the lock file can neither be created over nor unlinked */
    assert_int_equal(mkdir(heads, 0700), 0);
    assert_true(move(f, &tip, &STORE_GENESIS) < 0);
    after = tip_of(f, AGENT);
    assert_true(oid_equal(&tip, &after));
    assert_int_equal(rmdir(heads), 0);
}

/* differences */

typedef struct diff_log {
    memfs_buf text;
    size_t n, stop_at;
} diff_log;

static memfs_code log_change(const tree_change *c, void *ctx, memfs_error *err)
{
    diff_log *log = ctx;

    buf_printf(&log->text, "%c%.*s ", c->has_old ? c->has_new ? 'M' : 'D' : 'A', (int)c->path.len,
               c->path.ptr);
    if (++log->n == log->stop_at)
        return memfs_fail(err, MEMFS_EINTERNAL, "stopped");
    return MEMFS_OK;
}

static memfs_code diff(fixture *f, const char *name, const memfs_oid *old, const memfs_oid *new,
                       const policy *p, diff_log *log)
{
    _cleanup_(repo_closep) repo *r = NULL;

    assert_ok(f, repo_open(f->s, name, &r, &f->err));
    return repo_diff(r, old, new, p, log_change, log, &f->err);
}

static void test_a_difference_lists_files_in_gits_order(void **state)
{
    fixture *f = *state;
    policy p = POLICY_INIT;
    diff_log log = { MEMFS_BUF_INIT(1 << 20), 0, 0 };
    memfs_oid first, second;

    work_clone(f, NULL, f->work);
    work_write(f, f->work, "a/b/deep.md", MEMFS_STR("1"));
    work_write(f, f->work, "a.md", MEMFS_STR("1"));
    work_write(f, f->work, "kept/x.md", MEMFS_STR("1"));
    work_commit(f, f->work, "turns", "a file");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    first = tip_of(f, AGENT);
    git(f, f->work, "rm", "-q", "turns", "a.md");
    work_write(f, f->work, "turns/into.md", MEMFS_STR("a folder"));
    work_write(f, f->work, "a/b/deep.md", MEMFS_STR("2"));
    work_commit(f, f->work, "z.md", "new");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    second = tip_of(f, AGENT);

    assert_ok(f, diff(f, AGENT, NULL, &first, &p, &log));
    assert_string_equal(log.text.ptr, "Aa.md Aa/b/deep.md Akept/x.md Aturns ");
    buf_clear(&log.text);
    assert_ok(f, diff(f, AGENT, &first, &second, &p, &log));
    assert_string_equal(log.text.ptr, "Da.md Ma/b/deep.md Dturns Aturns/into.md Az.md ");
    buf_clear(&log.text);
    assert_ok(f, diff(f, AGENT, &second, &second, &p, &log));
    assert_string_equal(log.text.ptr, "");
    /* K2: the last file too */
    assert_ok(f, diff(f, AGENT, &first, &STORE_GENESIS, &p, &log));
    assert_string_equal(log.text.ptr, "Da.md Da/b/deep.md Dkept/x.md Dturns ");
    log.n = 0;
    log.stop_at = 2;
    assert_code(f, MEMFS_EINTERNAL, diff(f, AGENT, NULL, &first, &p, &log));
    assert_string_equal(f->err.msg, "stopped");
    assert_int_equal(log.n, 2);
    buf_dispose(&log.text);
}

static void test_a_difference_has_bounds(void **state)
{
    fixture *f = *state;
    policy p = POLICY_INIT;
    diff_log log = { MEMFS_BUF_INIT(1 << 20), 0, 0 };
    memfs_oid tip;

    push_files(f, 20);
    tip = tip_of(f, AGENT);
    p.max_entries = 15;
    assert_code(f, MEMFS_ELIMIT, diff(f, AGENT, NULL, &tip, &p, &log));
    p = (policy)POLICY_INIT;
    p.max_depth = 0;
    assert_code(f, MEMFS_ELIMIT, diff(f, AGENT, NULL, &tip, &p, &log));
    buf_dispose(&log.text);
}

static void test_a_difference_agrees_with_git(void **state)
{
    fixture *f = *state;
    policy p = POLICY_INIT;
    diff_log log = { MEMFS_BUF_INIT(1 << 20), 0, 0 };
    _cleanup_(buf_dispose) memfs_buf theirs = MEMFS_BUF_INIT(1 << 20);
    const char *args[] = { "diff-tree", "-r", "--name-status", "--no-renames", "HEAD~30", "HEAD",
                           NULL };
    unsigned seed = 1;
    memfs_oid first, last;

    push_files(f, 200);
    first = tip_of(f, AGENT);
    for (int i = 0; i < 30; i++) {
        char name[64], text[64];

        seed = seed * 1103515245 + 12345;
        snprintf(name, sizeof(name), "folder-%u/file-%04u.md", seed / 7 % 10, seed / 65536 % 220);
        if (seed / 65536 % 3 != 0)
            git(f, f->work, "rm", "-q", "--ignore-unmatch", name);
        snprintf(name, sizeof(name), "folder-%u/n%u%s", seed / 65536 % 10, seed / 1024 % 5,
                 i < 15 ? "" : "/x.md"); /* files become folders on the way */
        git(f, f->work, "rm", "-rq", "--ignore-unmatch", i < 15 ? name : "folder-3");
        for (unsigned k = 0; i == 15 && k < 50; k++) {
            char file[64];

            snprintf(file, sizeof(file), "folder-%u/n%u", k / 5, k % 5);
            git(f, f->work, "rm", "-rq", "--ignore-unmatch", file);
        }
        snprintf(text, sizeof(text), "%u", seed);
        work_commit(f, f->work, name, text);
    }
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    last = tip_of(f, AGENT);
    assert_ok(f, diff(f, AGENT, &first, &last, &p, &log));
    assert_ok(f, git_try(f, f->work, &theirs, MEMFS_STR(""), args));
    for (size_t i = 0; i < theirs.len; i++) /* "M\tname\n" -> "Mname " */
        theirs.ptr[i] = theirs.ptr[i] == '\n' ? ' ' : theirs.ptr[i];
    for (size_t i = 0, k = 0; i <= theirs.len; i++)
        if (theirs.ptr[i] != '\t')
            theirs.ptr[k++] = theirs.ptr[i];
    assert_string_equal(log.text.ptr, theirs.ptr);
    assert_true(log.n > 10);
    buf_dispose(&log.text);
}

static void test_blobs_come_back_to_the_byte_and_no_larger_than_asked(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_str bytes = MEMFS_STR("\0\r\n\xff binary");
    memfs_oid id, tree;
    uint64_t size;

    work_clone(f, NULL, f->work);
    work_write(f, f->work, "k5.bin", bytes);
    work_commit(f, f->work, "a", "a");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    id = git_id(f, f->work, "HEAD:k5.bin");
    tree = git_id(f, f->work, "HEAD^{tree}");
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_blob(r, &id, 100, &out, &f->err));
    assert_int_equal(out.len, bytes.len);
    assert_memory_equal(out.ptr, bytes.ptr, bytes.len);
    assert_ok(f, repo_blob_size(r, &id, &size, &f->err));
    assert_int_equal(size, bytes.len);
    assert_code(f, MEMFS_ELIMIT, repo_blob(r, &id, bytes.len - 1, &out, &f->err));
    assert_code(f, MEMFS_ECORRUPT, repo_blob(r, &tree, 100, &out, &f->err));
    assert_code(f, MEMFS_ECORRUPT, repo_blob(r, &(memfs_oid){ { 9 } }, 100, &out, &f->err));
}

static void test_ancestry_and_single_commits(void **state)
{
    fixture *f = *state;
    _cleanup_(repo_closep) repo *r = NULL;
    commit_info c = COMMIT_INFO_INIT;
    memfs_oid first, second, tree;
    bool is;

    push_files(f, 1);
    first = tip_of(f, AGENT);
    work_commit(f, f->work, "b", "b");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    second = tip_of(f, AGENT);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_is_ancestor(r, &STORE_GENESIS, &second, &is, &f->err));
    assert_true(is);
    assert_ok(f, repo_is_ancestor(r, &second, &first, &is, &f->err));
    assert_false(is);
    assert_ok(f, repo_is_ancestor(r, &first, &first, &is, &f->err));
    assert_true(is);

    assert_ok(f, repo_commit_info(r, &second, &c, &f->err));
    tree = git_id(f, f->work, "HEAD^{tree}");
    assert_true(oid_equal(&c.tree, &tree));
    assert_int_equal(c.n_parents, 1);
    assert_true(oid_equal(&c.parents[0], &first));
    assert_true(str_equal(c.message, MEMFS_STR("change\n")));
    assert_true(str_equal(c.author_name, MEMFS_STR("a")));
    assert_true(str_equal(c.author_email, MEMFS_STR("a@b")));
    assert_true(c.author_time_s > 1700000000);
    commit_info_dispose(&c);
    commit_info_dispose(&c);
    assert_code(f, MEMFS_ECORRUPT, repo_commit_info(r, &tree, &c, &f->err));
}

/* upkeep */

static void push_many(fixture *f, int n)
{
    char name[32];

    push_files(f, 3);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "many/%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
    }
}

static void test_F13_a_fold_makes_few_packs_and_loses_nothing(void **state)
{
    fixture *f = *state;
    policy p = POLICY_INIT;
    diff_log log = { MEMFS_BUF_INIT(1 << 20), 0, 0 };
    memfs_oid tip;

    push_many(f, 12);
    assert_int_equal(store_pack_count(f->s, AGENT), 13);
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_in_range(store_pack_count(f->s, AGENT), 1, 3);
    tip = tip_of(f, AGENT);
    assert_ok(f, diff(f, AGENT, NULL, &tip, &p, &log));
    assert_int_equal(log.n, 3 + 1 + 12);
    assert_whole(f, AGENT);
    /* nothing to do the second time */
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_whole(f, AGENT);
    buf_dispose(&log.text);
}

/* Readers of both kinds that knew the old packs: a handle that has not opened one of them yet, a
 * handle that has, and a clone that has already been told the tips. */
static void test_F13_a_fold_does_not_disturb_readers(void **state)
{
    fixture *f = *state;
    _cleanup_(repo_closep) repo *fresh = NULL, *used = NULL;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    policy p = POLICY_INIT;
    diff_log log = { MEMFS_BUF_INIT(1 << 20), 0, 0 };
    memfs_oid tip, blob;

    push_many(f, 12);
    tip = tip_of(f, AGENT);
    blob = git_id(f, f->work, "HEAD:many/3.md");
    assert_ok(f, repo_open(f->s, AGENT, &fresh, &f->err));
    assert_ok(f, repo_open(f->s, AGENT, &used, &f->err));
    assert_ok(f, repo_blob(used, &blob, 1000, &out, &f->err));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_ok(f, repo_diff(fresh, NULL, &tip, &p, log_change, &log, &f->err));
    assert_ok(f, repo_diff(used, NULL, &tip, &p, log_change, &log, &f->err));
    assert_int_equal(log.n, 2 * (3 + 1 + 12));
    assert_ok(f, repo_blob(fresh, &blob, 1000, &out, &f->err));
    buf_dispose(&log.text);
}

static size_t count_files(fixture *f, const char *folder, const char *suffix)
{
    _cleanup_(mem_freep) char *path = in_repo(f, folder);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    const char *argv[] = { "/bin/ls", path, NULL }, *env[] = { NULL };
    process_spec spec = { .argv = argv, .env = env };
    memfs_str rest, line;
    size_t n = 0;

    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 5000, &f->err));
    rest = buf_str(&out);
    while (str_split(rest, '\n', &line, &rest))
        n += str_ends_with(line, str_of(suffix));
    return n;
}

static size_t sweep(fixture *f)
{
    size_t removed;

    assert_ok(f, store_sweep(f->s, AGENT, &removed, &f->err));
    return removed;
}

static void age_packs(fixture *f)
{
    _cleanup_(mem_freep) char *folder = in_repo(f, "objects/pack");
    const char *argv[] = { "/bin/sh", "-c", "touch -d '1 hour ago' \"$0\"/*.pack", folder, NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);

    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 5000, &f->err));
}

static void test_F13_old_packs_go_at_once_when_nobody_reads(void **state)
{
    fixture *f = *state;
    _cleanup_(process_dispose) process elsewhere = PROCESS_INIT;

    assert_ok(f, store_create(f->s, OTHER, &f->err));
    assert_ok(f, git_upload_pack_start(f->s, OTHER, NULL, &elsewhere, &f->err));
    push_many(f, 6);
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 1);
    assert_int_equal(count_files(f, "objects/pack", ".rev"), 0);
    assert_int_equal(sweep(f), 0);
    assert_whole(f, AGENT);
}

static void test_F13_old_packs_stay_until_the_last_upload_pack_of_before_ends(void **state)
{
    fixture *f = *state;
    process first = PROCESS_INIT, second = PROCESS_INIT;
    _cleanup_(process_dispose) process later = PROCESS_INIT;
    size_t folded;

    push_many(f, 6);
    assert_ok(f, git_upload_pack_start(f->s, AGENT, NULL, &first, &f->err));
    assert_ok(f, git_upload_pack_start(f->s, AGENT, "version=2", &second, &f->err));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 7 + 1);
    assert_ok(f, git_upload_pack_start(f->s, AGENT, NULL, &later, &f->err));
    assert_int_equal(sweep(f), 0);
    process_dispose(&second);
    assert_int_equal(sweep(f), 0);
    work_commit(f, f->work, "more.md", "more\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_ok(f, store_repack(f->s, AGENT, &f->err)); /* neither does another fold */
    folded = store_pack_count(f->s, AGENT);
    assert_true(count_files(f, "objects/pack", ".pack") >= 7 + folded);
    process_dispose(&first);
    /* the one that began later waits for nothing of the first fold */
    assert_true(sweep(f) >= 7);
    process_dispose(&later);
    sweep(f);
    assert_int_equal(count_files(f, "objects/pack", ".pack"), folded);
    assert_whole(f, AGENT);
}

/* A handle is a reader as well; and a reader that hangs does not keep them for ever. */
static void test_F13_old_packs_stay_until_no_reader_can_hold_them(void **state)
{
    fixture *f = *state;
    repo *r;

    push_many(f, 6);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 7 + 1);
    assert_int_equal(sweep(f), 0);
    age_packs(f);
    assert_true(sweep(f) >= 7);
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 1);
    repo_close(r);
    assert_whole(f, AGENT);
}

/* What another process retired: its children may have outlived it, and we know nothing of them. */
static void test_F13_old_packs_of_an_earlier_process_stay_for_their_time(void **state)
{
    fixture *f = *state;
    repo *r;

    push_many(f, 6);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    repo_close(r);
    fixture_reopen(f);
    assert_int_equal(sweep(f), 0);
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 7 + 1);
    age_packs(f);
    assert_true(sweep(f) >= 7);
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 1);
}

/* Should a pack go under a handle of ours, it looks again. */
static void test_F13_a_handle_survives_that_old_packs_go(void **state)
{
    fixture *f = *state;
    _cleanup_(repo_closep) repo *fresh = NULL, *used = NULL;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
    policy p = POLICY_INIT;
    diff_log log = { MEMFS_BUF_INIT(1 << 20), 0, 0 };
    memfs_oid tip, blob;

    push_many(f, 12);
    tip = tip_of(f, AGENT);
    blob = git_id(f, f->work, "HEAD:many/3.md");
    assert_ok(f, repo_open(f->s, AGENT, &fresh, &f->err));
    assert_ok(f, repo_open(f->s, AGENT, &used, &f->err));
    assert_ok(f, repo_blob(used, &blob, 1000, &out, &f->err));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    age_packs(f);
    assert_true(sweep(f) >= 13);
    assert_ok(f, repo_diff(fresh, NULL, &tip, &p, log_change, &log, &f->err));
    assert_ok(f, repo_diff(used, NULL, &tip, &p, log_change, &log, &f->err));
    assert_int_equal(log.n, 2 * (3 + 1 + 12));
    assert_ok(f, repo_blob(fresh, &blob, 1000, &out, &f->err));
    buf_dispose(&log.text);
}

/* A pack that a push brings again after it was retired is no retired one. */
static void test_F13_a_pack_that_came_back_stays(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *folder = in_repo(f, "objects/pack");
    const char *keep[] = { "/bin/sh", "-ec", "mkdir \"$0.kept\"; ln \"$0\"/pack-* \"$0.kept\"/",
                           folder, NULL };
    const char *back[] = { "/bin/sh", "-ec", "ln -f \"$0.kept\"/* \"$0\"/; rm -r \"$0.kept\"",
                           folder, NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = keep, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);
    repo *r;

    push_many(f, 6);
    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 5000, &f->err));
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    spec.argv = back;
    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 5000, &f->err));
    repo_close(r);
    assert_int_equal(sweep(f), 0);
    assert_int_equal(count_files(f, "objects/pack", ".pack"), 7 + 1);
    assert_whole(f, AGENT);
}

static void test_F02_a_sweep_removes_what_a_crash_left_and_nothing_else(void **state)
{
    static const char *const left[] = { "refs/heads/main.lock", "HEAD.lock", "packed-refs.lock",
                                        "objects/pack/tmp_pack_abc123", "objects/pack/tmp_idx_xyz",
                                        "objects/56/tmp_obj_abc", "config.lock",
                                        "HEAD.tmp-123-4", "objects/pack/.tmp-99-pack-ab.pack" };
    fixture *f = *state;
    _cleanup_(mem_freep) char *stale = mem_printf("%s/tmp/incoming-0000000000000000-1", f->home);
    _cleanup_(mem_freep) char *foreign = mem_printf("%s/tmp/backup-of-somebody", f->home);
    incoming_options options = INCOMING_OPTIONS_INIT;
    incoming *in;
    size_t removed;

    push_files(f, 3);
    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        put_in_repo(f, left[i], "left over");
    assert_ok(f, fs_mkdirs(stale, &f->err));
    assert_ok(f, fs_mkdirs(foreign, &f->err));
    assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
    assert_ok(f, incoming_feed(in, "PACK", 4, &f->err)); /* a push that is under way stays */
    assert_ok(f, store_sweep(f->s, AGENT, &removed, &f->err));
    assert_int_equal(removed, ARRAY_LEN(left) + 1);
    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        assert_false(repo_file_exists(f, left[i]));
    assert_false(fs_exists(stale));
    assert_true(fs_exists(foreign));
    /* cut short, but not swept away */
    assert_code(f, MEMFS_EINVALID, incoming_finish(in, &f->err));
    assert_says(f, "early EOF");
    incoming_abort(in);
    assert_whole(f, AGENT);
}

static void test_F12_fsck_finds_what_is_damaged(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *object = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid id;

    push_files(f, 3);
    assert_whole(f, AGENT);
    assert_code(f, MEMFS_ENOTFOUND, store_fsck(f->s, OTHER, &f->err));
    oid_hex(&STORE_GENESIS, hex);
    object = mem_printf("%s/" AGENT "/objects/%.2s/%s", f->home, hex, hex + 2);
    assert_int_equal(unlink(object), 0);
    assert_code(f, MEMFS_ECORRUPT, store_fsck(f->s, AGENT, &f->err));
    assert_null(strstr(f->err.msg, f->home));
    id = git_id(f, f->work, "HEAD");
    (void)id;
}

static void test_F12_a_flipped_byte_is_found_at_reading(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *object = NULL;
    _cleanup_(repo_closep) repo *r = NULL;
    commit_info c = COMMIT_INFO_INIT;
    char hex[MEMFS_OID_HEX + 1];
    int fd;

    assert_ok(f, store_create(f->s, AGENT, &f->err));
    oid_hex(&STORE_GENESIS, hex);
    object = mem_printf("%s/" AGENT "/objects/%.2s/%s", f->home, hex, hex + 2);
    assert_int_equal(chmod(object, 0600), 0);
    fd = open(object, O_WRONLY);
    assert_int_equal(pwrite(fd, "\xA5", 1, 40), 1);
    close(fd);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_code(f, MEMFS_ECORRUPT, repo_commit_info(r, &STORE_GENESIS, &c, &f->err));
}

static void test_D7_a_copy_is_whole_and_without_leftovers(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *to = mem_printf("%s/home/copied.git", f->root);
    _cleanup_(mem_freep) char *lock = mem_printf("%s/refs/heads/main.lock", to);
    memfs_oid here, there;

    push_files(f, 5);
    put_in_repo(f, "refs/heads/main.lock", "");
    assert_ok(f, store_copy(f->s, AGENT, to, &f->err));
    assert_false(fs_exists(lock));
    here = tip_of(f, AGENT);
    there = tip_of(f, "copied.git");
    assert_true(oid_equal(&here, &there));
    assert_whole(f, "copied.git");
    assert_code(f, MEMFS_EEXISTS, store_copy(f->s, AGENT, to, &f->err));
    assert_code(f, MEMFS_ENOTFOUND, store_copy(f->s, OTHER, "/tmp/never", &f->err));
}

/* children */

static void talk_to_upload_pack(fixture *f, const char *name, const char *protocol, memfs_str input,
                                memfs_buf *out)
{
    process p = PROCESS_INIT;
    int64_t deadline = clock_mono_ms() + 20000;
    int status;

    assert_ok(f, git_upload_pack_start(f->s, name, protocol, &p, &f->err));
    assert_int_equal(process_write(&p, input.ptr, input.len), (ssize_t)input.len);
    process_close_in(&p);
    for (;;) {
        char chunk[4096];
        ssize_t n = read(p.out, chunk, sizeof(chunk));

        if (n == 0 || clock_mono_ms() > deadline)
            break;
        if (n > 0)
            buf_add(out, chunk, (size_t)n);
        else
            clock_sleep_ms(1);
    }
    assert_ok(f, process_wait(&p, deadline, &status, &f->err));
    assert_int_equal(status, 0);
    process_dispose(&p);
}

static void test_upload_pack_serves_a_repository_and_the_genesis(void **state)
{
    static const char *const names[] = { AGENT, NULL };
    fixture *f = *state;
    char request[512];

    push_files(f, 1);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
        char hex[MEMFS_OID_HEX + 1];
        memfs_oid tip = names[i] ? tip_of(f, names[i]) : STORE_GENESIS;

        oid_hex(&tip, hex);
        snprintf(request, sizeof(request), "0012command=fetch\n" "0001" "0032want %s\n" "0009done\n"
                                           "0000", hex);
        talk_to_upload_pack(f, names[i], "version=2", str_of(request), &out);
        assert_non_null(memmem(out.ptr, out.len, "packfile\n", 9));
        assert_non_null(memmem(out.ptr, out.len, "PACK", 4));
    }
}

static void test_T21_only_a_known_protocol_reaches_git(void **state)
{
    static const char *const odd[] = { "version=2:x", "version=3", "version=2\nGIT_DIR=/", "",
                                       NULL };
    fixture *f = *state;

    push_files(f, 1);
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);

        /* without version 2, git takes the request for version 0: an empty one is a flush */
        talk_to_upload_pack(f, AGENT, odd[i], MEMFS_STR("0000"), &out);
        assert_null(memmem(out.ptr, out.len, "version 2", 9));
    }
}

static void test_T31_hooks_and_configuration_of_a_repository_do_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *hook = in_repo(f, "hooks/reference-transaction");
    _cleanup_(mem_freep) char *mark = mem_printf("%s/ran", f->root);
    _cleanup_(mem_freep) char *script = mem_printf("#!/bin/sh\ntouch %s\n", mark);
    _cleanup_(mem_freep) char *config =
        mem_printf("[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = touch %s\n"
                   "\thooksPath = hooks\n[uploadpack]\n\tpackObjectsHook = touch %s; false\n",
                   mark, mark);

    push_files(f, 3);
    put_in_repo(f, "hooks/reference-transaction", script);
    put_in_repo(f, "hooks/post-index-change", script);
    assert_int_equal(chmod(hook, 0755), 0);
    put_in_repo(f, "config", config);
    work_commit(f, f->work, "after", "after");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_whole(f, AGENT);
    assert_false(fs_exists(mark));
}

static void test_T10_replace_refs_are_not_looked_at(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *replace = NULL;
    _cleanup_(repo_closep) repo *r = NULL;
    char hex[MEMFS_OID_HEX + 1], genesis[MEMFS_OID_HEX + 1], line[64];
    memfs_oid tip;
    bool is;

    push_files(f, 1);
    tip = tip_of(f, AGENT);
    oid_hex(&tip, hex);
    oid_hex(&STORE_GENESIS, genesis);
    /* "the genesis is really the tip": then everything would descend from the tip */
    replace = mem_printf("refs/replace/%s", genesis);
    snprintf(line, sizeof(line), "%s\n", hex);
    put_in_repo(f, replace, line);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_is_ancestor(r, &tip, &STORE_GENESIS, &is, &f->err));
    assert_false(is);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_genesis_is_the_same_commit_everywhere),
        TEST(test_H4_a_repository_is_never_made_over_another),
        TEST(test_T01_names_cannot_leave_the_folder),
        TEST(test_T01_a_link_in_place_of_a_repository_is_not_followed),
        TEST(test_T30_a_folder_that_others_may_write_is_not_opened),
        TEST(test_L2_a_damaged_template_is_made_anew),
        TEST(test_the_tip_is_found_loose_or_packed),
        TEST(test_F12_an_unreadable_tip_is_damage_and_not_absence),
        TEST(test_H3_a_move_from_a_stale_tip_is_a_conflict),
        TEST(test_a_branch_holds_commits_that_are_there),
        TEST(test_every_move_is_a_line_that_git_reads),
        TEST(test_F02_a_stale_lock_is_waited_for_and_then_taken),
        TEST(test_H1_a_rewrite_keeps_the_old_tip),
        TEST(test_F06_a_move_that_cannot_be_written_changes_nothing),
        TEST(test_a_difference_lists_files_in_gits_order),
        TEST(test_a_difference_has_bounds),
        TEST(test_a_difference_agrees_with_git),
        TEST(test_blobs_come_back_to_the_byte_and_no_larger_than_asked),
        TEST(test_ancestry_and_single_commits),
        TEST(test_F13_a_fold_makes_few_packs_and_loses_nothing),
        TEST(test_F13_a_fold_does_not_disturb_readers),
        TEST(test_F13_old_packs_go_at_once_when_nobody_reads),
        TEST(test_F13_old_packs_stay_until_the_last_upload_pack_of_before_ends),
        TEST(test_F13_old_packs_stay_until_no_reader_can_hold_them),
        TEST(test_F13_old_packs_of_an_earlier_process_stay_for_their_time),
        TEST(test_F13_a_handle_survives_that_old_packs_go),
        TEST(test_F13_a_pack_that_came_back_stays),
        TEST(test_F02_a_sweep_removes_what_a_crash_left_and_nothing_else),
        TEST(test_F12_fsck_finds_what_is_damaged),
        TEST(test_F12_a_flipped_byte_is_found_at_reading),
        TEST(test_D7_a_copy_is_whole_and_without_leftovers),
        TEST(test_upload_pack_serves_a_repository_and_the_genesis),
        TEST(test_T21_only_a_known_protocol_reaches_git),
        TEST(test_T31_hooks_and_configuration_of_a_repository_do_nothing),
        TEST(test_T10_replace_refs_are_not_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
