/*
 * Taking a secret out of a history, at the level of the store (T28).  What the home makes of it is
 * in test_upkeep.c.
 */
#include "store_support.h"

#include "store/git_child.h"
#include "store/history.h"
#include "store/rewrite.h"

#include <dirent.h>

#define SECRET "hunter2-is-the-word"

typedef struct found {
    memfs_buf files, names;
} found;

static void note_file(memfs_str path, const memfs_oid *blob, void *ctx)
{
    (void)blob;
    buf_add_str(&((found *)ctx)->files, path);
    buf_putc(&((found *)ctx)->files, ' ');
}

static void note_name(memfs_str path, void *ctx)
{
    buf_add_str(&((found *)ctx)->names, path);
    buf_putc(&((found *)ctx)->names, ' ');
}

/* A history with the secret in an old version, in a folder, on a merged side branch, and in a
 * message; the tip does not have it in any file. */
static void push_secrets(fixture *f)
{
    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "clean.md", "nothing to see\n");
    work_commit(f, f->work, "deep/er/a.md", "x " SECRET " y " SECRET "\n");
    work_commit(f, f->work, "deep/er/b.md", "beside\n");
    git(f, f->work, "checkout", "-q", "-b", "side");
    work_commit(f, f->work, "side.md", "side " SECRET "\n");
    git(f, f->work, "checkout", "-q", "main");
    work_commit(f, f->work, "main.md", "main\n");
    git(f, f->work, "merge", "-q", "-m", "merge\n\nwith " SECRET " in it", "side");
    git(f, f->work, "rm", "-q", "deep/er/a.md", "side.md");
    git(f, f->work, "commit", "-q", "-m", "gone from the tip");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
}

static rewrite_result rewrite(fixture *f, rewrite_request *q)
{
    _cleanup_(repo_closep) repo *r = NULL;
    policy p = POLICY_INIT;
    rewrite_result ret;

    q->tip = tip_of(f, AGENT);
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, rewrite_history(r, q, &p, &ret, &f->err));
    return ret;
}

static void move_and_drop(fixture *f, const rewrite_result *w)
{
    repo *r;
    memfs_oid tip = tip_of(f, AGENT);

    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_ref_rewrite(r, &tip, &w->new_tip, &WHO, "purge", &f->err));
    repo_close(r);
    assert_ok(f, store_drop_old(f->s, AGENT, &f->err));
}

static bool has(fixture *f, const memfs_oid *id)
{
    _cleanup_(repo_closep) repo *r = NULL;

    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    return repo_has(r, id);
}

/* All text that git still finds, in any object, reachable or not. */
static void all_text(fixture *f, memfs_buf *out)
{
    _cleanup_(mem_freep) char *path = store_path(f->s, AGENT);
    const char *args[] = { "cat-file", "--batch-all-objects", "--batch", NULL };

    assert_ok(f, git_try(f, path, out, MEMFS_STR(""), args));
}

static void assert_secret_is_nowhere(fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64u << 20);

    all_text(f, &text);
    assert_non_null(memmem(text.ptr, text.len, "nothing to see", 14));
    assert_null(memmem(text.ptr, text.len, SECRET, sizeof(SECRET) - 1));
}

static void test_T28_a_text_is_gone_from_every_object(void **state)
{
    fixture *f = *state;
    rewrite_request q = { .needle = MEMFS_STR(SECRET) };
    memfs_oid blob, side, old_tip, merge;
    rewrite_result w;

    push_secrets(f);
    blob = git_id(f, f->work, "HEAD~1:deep/er/a.md");
    side = git_id(f, f->work, "side:side.md");
    merge = git_id(f, f->work, "HEAD~1");
    old_tip = tip_of(f, AGENT);
    w = rewrite(f, &q);
    assert_int_equal(w.n_blobs, 2);
    assert_int_equal(w.n_gone, 3); /* two blobs and the merge commit */
    assert_int_equal(w.n_commits, 6);
    assert_true(has(f, &blob)); /* nothing is lost before main moved */
    move_and_drop(f, &w);
    assert_false(has(f, &blob));
    assert_false(has(f, &side));
    assert_false(has(f, &merge));
    assert_false(has(f, &old_tip));
    assert_true(has(f, &STORE_GENESIS));
    assert_secret_is_nowhere(f);
    assert_whole(f, AGENT);
    rewrite_result_dispose(&w);
}

static void test_T28_all_else_stays_as_it_was(void **state)
{
    fixture *f = *state;
    rewrite_request q = { .needle = MEMFS_STR(SECRET) };
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(mem_freep) char *path = NULL;
    const char *shape[] = { "log", "--topo-order", "--format=%an %ae %at %cn %ct %s",
                            "--name-status", "main", NULL };
    memfs_oid unchanged, tree_before, tree_after;
    rewrite_result w;
    bool is;
    repo *r;

    push_secrets(f);
    path = store_path(f->s, AGENT);
    unchanged = git_id(f, f->work, "HEAD~1^1~3"); /* the commit of clean.md */
    tree_before = git_id(f, path, "main^{tree}");
    assert_ok(f, git_try(f, path, &before, MEMFS_STR(""), shape));
    w = rewrite(f, &q);
    move_and_drop(f, &w);
    assert_ok(f, git_try(f, path, &after, MEMFS_STR(""), shape));
    assert_string_equal(before.ptr, after.ptr);
    tree_after = git_id(f, path, "main^{tree}");
    assert_true(oid_equal(&tree_before, &tree_after)); /* the tip had no secret in its files */
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_is_ancestor(r, &unchanged, &w.new_tip, &is, &f->err));
    assert_true(is); /* what came before the secret are the same commits */
    assert_ok(f, repo_is_ancestor(r, &STORE_GENESIS, &w.new_tip, &is, &f->err));
    assert_true(is);
    repo_close(r);
    rewrite_result_dispose(&w);
}

static void test_T28_a_dry_run_tells_and_writes_nothing(void **state)
{
    fixture *f = *state;
    found seen = { MEMFS_BUF_INIT(4096), MEMFS_BUF_INIT(4096) };
    rewrite_request q = { .needle = MEMFS_STR(SECRET), .dry_run = true, .found = note_file,
                          .named = note_name, .ctx = &seen };
    memfs_oid before;
    rewrite_result w;

    push_secrets(f);
    before = tip_of(f, AGENT);
    w = rewrite(f, &q);
    assert_int_equal(w.n_blobs, 2);
    assert_non_null(strstr(seen.files.ptr, "deep/er/a.md "));
    assert_non_null(strstr(seen.files.ptr, "side.md "));
    assert_string_equal(seen.names.ptr, "");
    assert_false(has(f, &w.new_tip));
    memfs_oid after = tip_of(f, AGENT);
    assert_true(oid_equal(&before, &after));
    rewrite_result_dispose(&w);
    buf_dispose(&seen.files);
    buf_dispose(&seen.names);
}

static void test_T28_a_file_named_by_its_id_is_replaced_whole(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64u << 20);
    rewrite_request q = { .n_blobs = 1 };
    rewrite_result w;
    memfs_oid blob;

    push_secrets(f);
    blob = git_id(f, f->work, "HEAD~1:deep/er/a.md");
    q.blobs = &blob;
    w = rewrite(f, &q);
    assert_int_equal(w.n_blobs, 1);
    move_and_drop(f, &w);
    assert_false(has(f, &blob));
    all_text(f, &text);
    assert_non_null(memmem(text.ptr, text.len, "blob 9\n[purged]\n", 16));
    assert_whole(f, AGENT);
    rewrite_result_dispose(&w);
}

static void test_T28_what_puts_itself_together_again_is_replaced_too(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64u << 20);
    rewrite_request q = { .needle = MEMFS_STR("ed]ed]") };
    rewrite_result w;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", "ed]ed]ed] nothing to see\n"); /* "[purged]ed]" has it again */
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    w = rewrite(f, &q);
    move_and_drop(f, &w);
    all_text(f, &text);
    assert_null(memmem(text.ptr, text.len, "ed]ed]", 6));
    rewrite_result_dispose(&w);
}

static void test_T28_the_genesis_is_never_touched(void **state)
{
    fixture *f = *state;
    rewrite_request q = { .needle = MEMFS_STR("memfs: genesis") };
    rewrite_result w;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", "about memfs: genesis\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    w = rewrite(f, &q);
    assert_int_equal(w.n_commits, 1);
    move_and_drop(f, &w);
    assert_true(has(f, &STORE_GENESIS));
    assert_whole(f, AGENT);
    rewrite_result_dispose(&w);
}

static void test_T28_nothing_to_purge_changes_nothing(void **state)
{
    fixture *f = *state;
    rewrite_request q = { .needle = MEMFS_STR("nowhere to be found") };
    memfs_oid before;
    rewrite_result w;

    push_secrets(f);
    before = tip_of(f, AGENT);
    w = rewrite(f, &q);
    assert_true(oid_equal(&w.new_tip, &before));
    assert_int_equal(w.n_gone, 0);
    rewrite_result_dispose(&w);
}

/* Packs that a fold retired are invisible to git, and full of the secret. */
static void test_T28_retired_packs_go_as_well(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *folder = mem_printf("%s/" AGENT "/objects/pack", f->home);
    rewrite_request q = { .needle = MEMFS_STR(SECRET) };
    rewrite_result w;
    struct dirent *e;
    size_t n = 0;
    repo *reader;
    DIR *dir;

    push_secrets(f);
    for (int i = 0; i < 4; i++) {
        char name[8];

        snprintf(name, sizeof(name), "%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
    }
    assert_ok(f, repo_open(f->s, AGENT, &reader, &f->err)); /* for it the old packs stay */
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    repo_close(reader);
    w = rewrite(f, &q);
    move_and_drop(f, &w);
    dir = opendir(folder);
    while ((e = readdir(dir)) != NULL)
        n += strstr(e->d_name, ".pack") != NULL;
    closedir(dir);
    assert_int_equal(n, 1);
    assert_secret_is_nowhere(f);
    rewrite_result_dispose(&w);
}

/* After the purge, asked for by id over protocol v2, as a client who remembers it would. */
static void test_T28_upload_pack_does_not_have_it_any_more(void **state)
{
    fixture *f = *state;
    rewrite_request q = { .needle = MEMFS_STR(SECRET) };
    char hex[MEMFS_OID_HEX + 1], request[256];
    memfs_oid blob;
    rewrite_result w;

    push_secrets(f);
    blob = git_id(f, f->work, "HEAD~1:deep/er/a.md");
    oid_hex(&blob, hex);
    snprintf(request, sizeof(request), "0012command=fetch\n" "0001" "0032want %s\n" "0009done\n"
                                       "0000", hex);
    for (int purged = 0; purged < 2; purged++) {
        _cleanup_(buf_dispose) memfs_buf answer = MEMFS_BUF_INIT(1 << 20);
        process p = PROCESS_INIT;
        ssize_t n;

        if (purged) {
            w = rewrite(f, &q);
            move_and_drop(f, &w);
            rewrite_result_dispose(&w);
        }
        assert_ok(f, git_upload_pack_start(f->s, AGENT, "version=2", &p, &f->err));
        assert_true(process_write(&p, request, strlen(request)) > 0);
        process_close_in(&p);
        for (;;) {
            char chunk[4096];

            n = read(p.out, chunk, sizeof(chunk));
            if (n == 0)
                break;
            if (n > 0)
                buf_add(&answer, chunk, (size_t)n);
        }
        process_dispose(&p);
        assert_int_equal(memmem(answer.ptr, answer.len, "PACK", 4) != NULL, !purged);
    }
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_T28_a_text_is_gone_from_every_object),
        TEST(test_T28_all_else_stays_as_it_was),
        TEST(test_T28_a_dry_run_tells_and_writes_nothing),
        TEST(test_T28_a_file_named_by_its_id_is_replaced_whole),
        TEST(test_T28_what_puts_itself_together_again_is_replaced_too),
        TEST(test_T28_the_genesis_is_never_touched),
        TEST(test_T28_nothing_to_purge_changes_nothing),
        TEST(test_T28_retired_packs_go_as_well),
        TEST(test_T28_upload_pack_does_not_have_it_any_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
