/*
 * Pushes from the first byte to the verdict, with packs as real git makes them.
 */
#include "sync_fixture.h"

#include <sqlite3.h>

/* Refs, objects that they reach, and rows: what a push that failed must not change (D3). */
static void snapshot(fixture *f, memfs_buf *out)
{
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(buf_dispose) memfs_buf rows = MEMFS_BUF_INIT(1u << 20);
    const char *const refs[] = { "for-each-ref", NULL };

    buf_clear(out);
    if (store_has(home_store(f->h), REPO_A))
        assert_int_equal(git_in(path, MEMFS_STR(""), out, refs), MEMFS_OK);
    dump(f, ID_A, &rows);
    buf_add_str(out, buf_str(&rows));
}

#define assert_unchanged(f, before)                                                                \
    do {                                                                                           \
        _cleanup_(buf_dispose) memfs_buf after_ = MEMFS_BUF_INIT(1u << 20);                        \
        snapshot((f), &after_);                                                                    \
        assert_string_equal((before)->ptr, after_.ptr);                                            \
    } while (0)

static size_t n_quarantines(fixture *f)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(mem_freep) char *tmp = mem_printf("%s/tmp", f->path);
    const char *argv[] = { "/bin/ls", tmp, NULL };
    const char *env[] = { NULL };
    process_spec spec = { .argv = argv, .env = env };
    memfs_str rest, line;
    size_t n = 0;

    OK(process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &err));
    rest = buf_str(&out);
    while (str_split(rest, '\n', &line, &rest))
        n += str_starts_with(line, MEMFS_STR("incoming-"));
    return n;
}

static void test_a_first_push_makes_the_agent_and_its_blocks(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    bool is_known = true;
    memfs_oid new, tip;
    agent *a;

    FAILS(MEMFS_ENOTFOUND, home_agent(f->h, ID_A, &a, &err));
    assert_false(store_has(home_store(f->h), REPO_A));
    put_file(f->work, "system/human.md", MEMFS_STR("---\ndescription: d\n---\nLikes tea.\n"));
    new = push_work(f, ID_A);
    OK(state_agent_known(home_state(f->h), ID_A, &is_known, &err));
    assert_true(is_known);
    OK(store_tip(home_store(f->h), REPO_A, &tip, &err));
    assert_true(oid_equal(&tip, &new));
    assert_string_equal(value_of(f, ID_A, "system/human", &text), "Likes tea.\n");
    OK(home_agent_peek(f->h, ID_A, &a, &err));
    assert_int_equal(n_quarantines(f), 0);
    assert_int_equal(f->alarms.len, 0);
}

static void test_a_forced_first_push_still_begins_with_the_genesis(void **state)
{
    fixture *f = *state;
    memfs_oid zero = { { 0 } };
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
    push_verdict v;
    memfs_oid root;

    put_file(f->work, "a.md", MEMFS_STR("x"));
    git(f->work, "checkout", "-q", "--orphan", "other");
    root = commit_all(f->work, "another root");
    make_pack(f->work, &STORE_GENESIS, &root, &pack);
    OK(push_pack(f->h, ID_A, (push_command){ zero, root, MEMFS_STR(STORE_MAIN) }, buf_str(&pack),
                 &f->talk, &v, &err));
    assert_true(v.unpacked);
    assert_false(v.moved);
    assert_string_equal(v.refusal, "non-fast-forward");
    assert_false(store_has(home_store(f->h), REPO_A));

    git(f->work, "checkout", "-q", "-f", "main");
    put_file(f->work, "a.md", MEMFS_STR("x"));
    root = commit_all(f->work, "on the genesis");
    buf_clear(&pack);
    make_pack(f->work, &STORE_GENESIS, &root, &pack);
    OK(push_pack(f->h, ID_A, (push_command){ zero, root, MEMFS_STR(STORE_MAIN) }, buf_str(&pack),
                 &f->talk, &v, &err));
    assert_true(v.moved);
}

static void test_H1_a_stale_or_rewritten_push_is_refused_and_changes_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1u << 20);
    memfs_oid one, two, other;
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    two = push_work(f, ID_A);
    snapshot(f, &before);

    git(f->work, "reset", "-q", "--hard", "HEAD~1");
    put_file(f->work, "a.md", MEMFS_STR("3"));
    other = commit_all(f->work, "elsewhere");
    v = try_push(f, ID_A, one, other);
    assert_false(v.moved);
    assert_string_equal(v.refusal, "fetch first");
    assert_int_equal(v.code, MEMFS_ECONFLICT);
    assert_unchanged(f, &before);

    v = try_push(f, ID_A, two, other); /* forced: the right old id, no descendant */
    assert_false(v.moved);
    assert_string_equal(v.refusal, "non-fast-forward");
    assert_unchanged(f, &before);
    assert_int_equal(n_quarantines(f), 0);
}

static void test_T10_only_main_moves_and_never_away(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1u << 20);
    static const char *const REFS[] = { "refs/heads/other", "refs/replace/1", "HEAD",
                                        "refs/memfs/backup/1" };
    memfs_oid one, two, zero = { { 0 } };
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    two = commit_all(f->work, "two");
    make_pack(f->work, &one, &two, &pack);
    snapshot(f, &before);
    for (size_t i = 0; i < ARRAY_LEN(REFS); i++) {
        OK(push_pack(f->h, ID_A, (push_command){ zero, two, str_of(REFS[i]) }, buf_str(&pack),
                     &f->talk, &v, &err));
        assert_true(v.unpacked);
        assert_false(v.moved);
        assert_int_equal(v.code, MEMFS_EDENIED);
    }
    OK(push_pack(f->h, ID_A, (push_command){ one, zero, MEMFS_STR(STORE_MAIN) }, MEMFS_STR(""),
                 &f->talk, &v, &err));
    assert_false(v.moved);
    assert_string_equal(v.refusal, "the branch main cannot be deleted");
    assert_unchanged(f, &before);
}

static void test_D4_the_same_push_again_is_told_that_it_is_there(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1u << 20);
    memfs_oid new;
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    new = push_work(f, ID_A);
    snapshot(f, &before);
    v = try_push(f, ID_A, STORE_GENESIS, new);
    assert_true(v.moved);
    assert_unchanged(f, &before);
}

static void test_F11_a_damaged_pack_changes_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1u << 20);
    memfs_oid one, two;
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("some more text\n"));
    two = commit_all(f->work, "two");
    make_pack(f->work, &one, &two, &pack);
    snapshot(f, &before);
    for (size_t cut = 1; cut < pack.len; cut += 37) {
        OK(push_pack(f->h, ID_A, (push_command){ one, two, MEMFS_STR(STORE_MAIN) },
                     str_make(pack.ptr, cut), &f->talk, &v, &err));
        assert_false(v.moved);
        assert_false(v.unpacked);
        assert_true(v.unpack_error[0] != '\0');
    }
    for (size_t at = 12; at < pack.len; at += 41) {
        pack.ptr[at] ^= 0x20;
        OK(push_pack(f->h, ID_A, (push_command){ one, two, MEMFS_STR(STORE_MAIN) }, buf_str(&pack),
                     &f->talk, &v, &err));
        pack.ptr[at] ^= 0x20;
        assert_false(v.moved);
    }
    assert_unchanged(f, &before);
    assert_int_equal(n_quarantines(f), 0);
    assert_true(try_push(f, ID_A, one, two).moved);
}

static void test_an_empty_first_push_of_unknown_objects_leaves_no_folder(void **state)
{
    fixture *f = *state;
    memfs_oid nowhere = { { 1, 2, 3 } };
    push_verdict v;
    agent *a;

    OK(push_pack(f->h, ID_A, (push_command){ STORE_GENESIS, nowhere, MEMFS_STR(STORE_MAIN) },
                 MEMFS_STR(""), &f->talk, &v, &err));
    assert_false(v.moved);
    assert_false(store_has(home_store(f->h), REPO_A));
    FAILS(MEMFS_ENOTFOUND, home_agent(f->h, ID_A, &a, &err));
}

static void test_front_matter_faults_are_warned_of(void **state)
{
    fixture *f = *state;

    put_file(f->work, "system/a.md", MEMFS_STR("---\na: b: c\n---\nv\n"));
    put_file(f->work, "b.md", MEMFS_STR("---\nlimit: many\n---\nv\n"));
    put_file(f->work, "c.md", MEMFS_STR("---\ndescription: fine\n---\nv\n"));
    put_file(f->work, "d.md", MEMFS_STR("\xff"));
    push_work(f, ID_A);
    assert_non_null(strstr(f->talk.ptr, "warning: system/a.md: front matter does not parse ("));
    assert_non_null(strstr(f->talk.ptr, "; the whole file became the block's value\n"));
    assert_non_null(strstr(f->talk.ptr, "warning: b.md: "));
    assert_non_null(strstr(f->talk.ptr, "warning: d.md: the file is not UTF-8"));
    assert_null(strstr(f->talk.ptr, "c.md"));
    put_file(f->work, "c.md", MEMFS_STR("other\n"));
    push_work(f, ID_A);
    assert_null(strstr(f->talk.ptr, "a.md")); /* of changed files only */
}

static void test_strict_front_matter_refuses_with_the_path(void **state)
{
    fixture *f = *state;
    memfs_oid new;
    push_verdict v;

    close_home(f);
    f->options.policy.strict_frontmatter = true;
    open_home(f);
    put_file(f->work, "system/a.md", MEMFS_STR("---\na: b: c\n---\nv\n"));
    new = commit_all(f->work, "bad");
    v = try_push(f, ID_A, STORE_GENESIS, new);
    assert_false(v.moved);
    assert_int_equal(v.code, MEMFS_EDENIED);
    assert_non_null(strstr(v.refusal, "'system/a.md': front matter"));
    assert_false(store_has(home_store(f->h), REPO_A));
}

static void test_T11_policy_refuses_with_path_and_rule(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *link = mem_printf("%s/link.md", f->work);
    memfs_oid new;
    push_verdict v;

    assert_int_equal(symlink("/etc/passwd", link), 0);
    new = commit_all(f->work, "link");
    v = try_push(f, ID_A, STORE_GENESIS, new);
    assert_false(v.moved);
    assert_int_equal(v.code, MEMFS_EDENIED);
    assert_non_null(strstr(v.refusal, "link.md"));
}

static void test_T28_a_purged_object_does_not_come_back(void **state)
{
    fixture *f = *state;
    memfs_oid one, two, secret;
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    put_file(f->work, "s.md", MEMFS_STR("secret"));
    two = commit_all(f->work, "two");
    secret = git_id(f->work, "HEAD:s.md");
    OK(state_banned_add(home_state(f->h), ID_A, &secret, 1, &err));
    v = try_push(f, ID_A, one, two);
    assert_false(v.moved);
    assert_int_equal(v.code, MEMFS_EDENIED);
}

static void test_H4_a_push_to_a_known_agent_without_a_folder_invents_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = NULL;
    _cleanup_(mem_freep) char *aside = mem_printf("%s/aside", f->root);
    push_command c = { .ref = MEMFS_STR(STORE_MAIN), .old_id = STORE_GENESIS };
    push_verdict v;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    c.new_id = push_work(f, ID_A);
    path = store_path(home_store(f->h), REPO_A);
    for (int restarted = 0; restarted < 2; restarted++) {
        OK(fs_rename(path, aside, &err));
        FAILS(MEMFS_EUNAVAIL, push_pack(f->h, ID_A, c, MEMFS_STR(""), &f->talk, &v, &err));
        if (restarted == 0) {
            reopen_home(f);
            FAILS(MEMFS_EUNAVAIL, push_pack(f->h, ID_A, c, MEMFS_STR(""), &f->talk, &v, &err));
        }
        assert_false(fs_exists(path));
        assert_true(n_alarms(f, "folder_missing") > 0);
        OK(fs_rename(aside, path, &err));
        OK(push_pack(f->h, ID_A, c, MEMFS_STR(""), &f->talk, &v, &err));
        assert_true(v.moved);
    }
}

static void test_F12_a_damaged_repository_refuses_and_is_fenced(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *main_ref = mem_printf("%s/refs/heads/main", path);
    push_command c = { .ref = MEMFS_STR(STORE_MAIN), .old_id = STORE_GENESIS };
    push_verdict v;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    c.new_id = push_work(f, ID_A);
    /* as after a power cut without fsync */
    OK(fs_write_atomic(main_ref, MEMFS_STR(""), 0600, &err));
    FAILS(MEMFS_ECORRUPT, push_pack(f->h, ID_A, c, MEMFS_STR(""), &f->talk, &v, &err));
    FAILS(MEMFS_ECORRUPT, home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_alarms(f, "agent_fenced"), 1);
    f->is_broken = true;
}

static void test_F22_a_cache_that_is_busy_does_not_fail_a_push(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *db = mem_printf("%s/cache.db", f->path);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    sqlite3 *blocker = NULL;
    memfs_oid one, two;
    push_verdict v;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("1"));
    one = push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("2"));
    two = commit_all(f->work, "two");
    assert_int_equal(sqlite3_open(db, &blocker), SQLITE_OK);
    assert_int_equal(sqlite3_exec(blocker, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    v = try_push(f, ID_A, one, two);
    assert_true(v.moved);
    assert_non_null(strstr(f->talk.ptr, "the commit is safe; its blocks will follow"));
    assert_int_equal(n_alarms(f, "cache_behind"), 1);
    OK(home_agent_repo(f->h, ID_A, &a, &err)); /* git goes on */
    sqlite3_exec(blocker, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(blocker);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_string_equal(value_of(f, ID_A, "a", &text), "2");
    assert_int_equal(n_alarms(f, "ref_moved_by_hand"), 0);
}

static void test_packs_that_pile_up_are_folded(void **state)
{
    fixture *f = *state;
    char text[32];

    for (int i = 0; i <= STORE_REPACK_AT; i++) {
        assert_false(home_upkeep_step(f->h));
        snprintf(text, sizeof(text), "text %d", i);
        put_file(f->work, "a.md", str_of(text));
        push_work(f, ID_A);
    }
    assert_true(store_pack_count(home_store(f->h), REPO_A) > STORE_REPACK_AT);
    assert_true(home_upkeep_step(f->h));
    assert_true(store_pack_count(home_store(f->h), REPO_A) < 10);
    assert_false(home_upkeep_step(f->h));
    put_file(f->work, "a.md", MEMFS_STR("after"));
    push_work(f, ID_A);
}

/* ---- many at once ---- */

#define N_WRITERS 16
#define N_ROUNDS 3

typedef struct writer {
    fixture *f;
    int number;
    memfs_oid acked[N_ROUNDS];
    size_t n_acked;
} writer;

/* One commit on top of `base`, made by plumbing in a clone that all writers share. */
static memfs_oid make_commit(fixture *f, const memfs_oid *base, int number, int round)
{
    _cleanup_(mem_freep) char *index = mem_printf("%s/index-%d", f->root, number);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(65536);
    char hex[MEMFS_OID_HEX + 1], script[1024];
    const char *argv[] = { "/bin/sh", "-e", "-c", script, NULL };
    _cleanup_(mem_freep) char *index_env = mem_printf("GIT_INDEX_FILE=%s", index);
    const char *env[] = { "PATH=/usr/bin:/bin",
                          "GIT_CONFIG_NOSYSTEM=1",
                          "HOME=/nonexistent",
                          "GIT_AUTHOR_NAME=t",
                          "GIT_AUTHOR_EMAIL=t@t",
                          "GIT_COMMITTER_NAME=t",
                          "GIT_COMMITTER_EMAIL=t@t",
                          index_env,
                          NULL };
    process_spec spec = { .argv = argv, .env = env, .cwd = f->work };
    memfs_oid id;

    oid_hex(base, hex);
    snprintf(script, sizeof(script),
             "git read-tree %s; b=$(echo 'writer %d round %d' | git hash-object -w --stdin);"
             "git update-index --add --cacheinfo 100644,$b,w%d.md; t=$(git write-tree);"
             "echo 'w%d r%d' | git commit-tree $t -p %s",
             hex, number, round, number, number, round, hex);
    OK(process_run(&spec, MEMFS_STR(""), &out, NULL, 60000, &err));
    assert_true(oid_parse(str_make(out.ptr, MEMFS_OID_HEX), &id));
    return id;
}

static void fetch_objects(fixture *f)
{
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *alternates = mem_printf("%s/.git/objects/info/alternates", f->work);
    _cleanup_(mem_freep) char *line = mem_printf("%s/objects\n", path);

    OK(fs_write_atomic(alternates, str_of(line), 0644, &err));
}

static void *write_rounds(void *arg)
{
    writer *w = arg;
    _cleanup_(buf_dispose) memfs_buf talk = MEMFS_BUF_INIT(1u << 20);

    for (int round = 0; round < N_ROUNDS; round++) {
        for (int tries = 0; tries < 200; tries++) {
            _cleanup_(buf_dispose) memfs_buf pack = MEMFS_BUF_INIT(1u << 20);
            memfs_oid old = tip_of(w->f, ID_A);
            memfs_oid new = make_commit(w->f, &old, w->number, round);
            push_verdict v;

            make_pack(w->f->work, &old, &new, &pack);
            buf_clear(&talk);
            OK(push_pack(w->f->h, ID_A, (push_command){ old, new, MEMFS_STR(STORE_MAIN) },
                         buf_str(&pack), &talk, &v, &err));
            if (v.moved) {
                w->acked[w->n_acked++] = new;
                break;
            }
            assert_string_equal(v.refusal, "fetch first");
        }
    }
    return NULL;
}

typedef struct reading {
    fixture *f;
    _Atomic bool stop;
    size_t n;
} reading;

struct one_commit {
    size_t n_rows;
};

static memfs_code count_row(const block_row *r, void *ctx, memfs_error *err)
{
    (void)r;
    (void)err;
    ((struct one_commit *)ctx)->n_rows++;
    return MEMFS_OK;
}

/* Each snapshot has at least as many writers' files as the one before: rows never go back (K1). */
static void *read_rows(void *arg)
{
    block_query q = { .agent_id = ID_A };
    reading *r = arg;
    size_t most = 0;
    memfs_error err;
    cache_tip tip;
    agent *a;

    while (!r->stop) {
        struct one_commit seen = { 0 };

        if (home_agent_peek(r->f->h, ID_A, &a, &err) < 0 ||
            cache_agent_blocks(home_cache(r->f->h), &q, &tip, count_row, &seen, &err) < 0)
            fail_msg("%s", err.msg);
        assert_true(seen.n_rows >= most);
        most = seen.n_rows;
        r->n++;
    }
    return NULL;
}

static void test_H2_sixteen_writers_lose_no_acked_commit(void **state)
{
    fixture *f = *state;
    writer writers[N_WRITERS];
    pthread_t threads[N_WRITERS], reader;
    reading r = { .f = f };
    repo *git = NULL;
    upkeep_result result;
    memfs_oid tip;

    put_file(f->work, "first.md", MEMFS_STR("first"));
    push_work(f, ID_A);
    fetch_objects(f);
    pthread_create(&reader, NULL, read_rows, &r);
    for (int i = 0; i < N_WRITERS; i++) {
        writers[i] = (writer){ .f = f, .number = i };
        pthread_create(&threads[i], NULL, write_rounds, &writers[i]);
    }
    for (int i = 0; i < N_WRITERS; i++)
        pthread_join(threads[i], NULL);
    r.stop = true;
    pthread_join(reader, NULL);
    OK(store_tip(home_store(f->h), REPO_A, &tip, &err));
    OK(repo_open(home_store(f->h), REPO_A, &git, &err));
    for (int i = 0; i < N_WRITERS; i++) {
        assert_int_equal(writers[i].n_acked, N_ROUNDS);
        for (size_t k = 0; k < writers[i].n_acked; k++) {
            bool is_there = false;

            OK(repo_is_ancestor(git, &writers[i].acked[k], &tip, &is_there, &err));
            assert_true(is_there);
        }
    }
    repo_close(git);
    assert_int_equal(n_blocks(f, ID_A), N_WRITERS + 1);
    assert_true(r.n > 0);
    assert_int_equal(f->alarms.len, 0);
    OK(upkeep_verify(f->h, ID_A, NULL, &result, &err));
    assert_int_equal(result.n_findings, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_a_first_push_makes_the_agent_and_its_blocks),
        SYNC_TEST(test_a_forced_first_push_still_begins_with_the_genesis),
        SYNC_TEST(test_H1_a_stale_or_rewritten_push_is_refused_and_changes_nothing),
        SYNC_TEST(test_T10_only_main_moves_and_never_away),
        SYNC_TEST(test_D4_the_same_push_again_is_told_that_it_is_there),
        SYNC_TEST(test_F11_a_damaged_pack_changes_nothing),
        SYNC_TEST(test_an_empty_first_push_of_unknown_objects_leaves_no_folder),
        SYNC_TEST(test_front_matter_faults_are_warned_of),
        SYNC_TEST(test_strict_front_matter_refuses_with_the_path),
        SYNC_TEST(test_T11_policy_refuses_with_path_and_rule),
        SYNC_TEST(test_T28_a_purged_object_does_not_come_back),
        SYNC_TEST(test_H4_a_push_to_a_known_agent_without_a_folder_invents_nothing),
        SYNC_TEST(test_F12_a_damaged_repository_refuses_and_is_fenced),
        SYNC_TEST(test_F22_a_cache_that_is_busy_does_not_fail_a_push),
        SYNC_TEST(test_packs_that_pile_up_are_folded),
        SYNC_TEST(test_H2_sixteen_writers_lose_no_acked_commit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
