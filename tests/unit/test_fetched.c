/*
 * What comes from a remote: taken in whole, or without a trace (T23).
 */
#include "remote_support.h"

#include "store/fetched.h"
#include "store/merge.h"
#include "store/proof.h"
#include "store/rewrite.h"
#include "store/sidecar.h"

#include <sys/stat.h>
#include <sys/wait.h>

#define MAIN "refs/heads/main"

/* ---- one exchange, step by step ---- */

typedef struct taking {
    const char *remote;
    const memfs_oid *known, *banned;
    size_t n_known, n_banned;
    policy policy;
    memfs_oid theirs; /* what came */
    transport_report report;
} taking;
#define TAKING_INIT(path) { .remote = (path), .policy = POLICY_INIT }

static memfs_code taking_fetch(fixture *f, taking *t, fetched **ret)
{
    transport_target target = remote_target_of(t->remote);
    memfs_code rc = fetched_begin(f->s, AGENT, ret, &f->err);

    if (rc == MEMFS_OK)
        rc = fetched_fetch(*ret, &target, MAIN, 0, SOON, &t->theirs, &t->report, &f->err);
    return rc;
}

static memfs_code taking_vet(fixture *f, taking *t, fetched *in)
{
    memfs_oid known[3] = { tip_of(f, AGENT) };
    fetched_vetting v = { &t->theirs, known, 1, &t->policy, t->banned, t->n_banned };

    for (size_t i = 0; i < t->n_known; i++)
        known[v.n_known++] = t->known[i];
    return fetched_vet(in, &v, &f->err);
}

/* Merged with ours, taken in, main moved. */
static memfs_code taking_finish(fixture *f, taking *t, fetched *in)
{
    _cleanup_(merge_result_dispose) merge_result merged = MERGE_RESULT_INIT;
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_oid ours = tip_of(f, AGENT);
    memfs_code rc = merge_commits(fetched_repo(in), &ours, &t->theirs, &merged, &f->err);

    if (rc == MEMFS_OK && !store_has(f->s, AGENT))
        rc = store_create(f->s, AGENT, &f->err);
    if (rc == MEMFS_OK)
        rc = fetched_accept(in, &merged.commit, &f->err);
    if (rc == MEMFS_OK)
        rc = repo_open(f->s, AGENT, &r, &f->err);
    if (rc == MEMFS_OK)
        rc = repo_ref_move(r, &ours, &merged.commit, &WHO, "sync", &f->err);
    return rc;
}

static memfs_code take(fixture *f, taking *t)
{
    _cleanup_(fetched_freep) fetched *in = NULL;
    memfs_code rc = taking_fetch(f, t, &in);

    if (rc == MEMFS_OK)
        rc = taking_vet(f, t, in);
    return rc == MEMFS_OK ? taking_finish(f, t, in) : rc;
}

/* An agent with two files, and a remote that has them too. */
static char *begin_equal(fixture *f)
{
    char *remote = remote_make(f, "remote");

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    work_commit(f, f->work, "notes/a.md", "one\ntwo\nthree\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    git(f, f->work, "push", "-q", remote, "HEAD:" MAIN);
    return remote;
}

static void push_to(fixture *f, const char *folder, const char *remote)
{
    git(f, folder, "push", "-q", "-f", remote, "HEAD:" MAIN);
}

static bool has(fixture *f, const memfs_oid *id)
{
    _cleanup_(repo_closep) repo *r = NULL;

    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    return repo_has(r, id);
}

/* ---- what is fine ---- */

static void test_news_come_in_as_one_pack(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    taking t = TAKING_INIT(remote);
    size_t n_packs = store_pack_count(f->s, AGENT);
    memfs_oid head, tip;

    work_commit(f, f->work, "system/human.md", "hello again\n");
    work_commit(f, f->work, "notes/b.md", "new\n");
    push_to(f, f->work, remote);
    assert_ok(f, take(f, &t));
    head = git_id(f, f->work, "HEAD");
    tip = tip_of(f, AGENT);
    assert_true(oid_equal(&head, &tip));
    assert_int_equal(store_pack_count(f->s, AGENT), n_packs + 1);
    assert_int_equal(count_scratch(f), 0);
    assert_whole(f, AGENT);
    free(remote);
}

static void test_an_agent_that_nobody_knew_begins_with_what_came(void **state)
{
    fixture *f = *state;
    char *remote = remote_make(f, "remote");
    taking t = TAKING_INIT(remote);
    memfs_oid head, tip;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    push_to(f, f->work, remote);
    assert_ok(f, take(f, &t));
    head = git_id(f, f->work, "HEAD");
    tip = tip_of(f, AGENT);
    assert_true(oid_equal(&head, &tip));
    assert_whole(f, AGENT);
    free(remote);
}

/* The first push of another client comes between the fetch and the lock. */
static void test_a_repository_made_meanwhile_is_seen(void **state)
{
    fixture *f = *state;
    char *remote = remote_make(f, "remote"), *other = mem_printf("%s/other", f->root);
    _cleanup_(fetched_freep) fetched *in = NULL;
    taking t = TAKING_INIT(remote);
    bool both = false;
    memfs_oid mine, tip;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    push_to(f, f->work, remote);
    assert_ok(f, taking_fetch(f, &t, &in));
    assert_non_null(fetched_repo(in));
    work_clone(f, NULL, other);
    work_commit(f, other, "system/persona.md", "somebody\n");
    assert_ok(f, push_head(f, other, AGENT, NULL));
    mine = tip_of(f, AGENT);
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, taking_finish(f, &t, in));
    tip = tip_of(f, AGENT);
    {
        _cleanup_(repo_closep) repo *r = NULL;

        assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
        assert_ok(f, repo_is_ancestor(r, &mine, &tip, &both, &f->err));
        assert_true(both);
        assert_ok(f, repo_is_ancestor(r, &t.theirs, &tip, &both, &f->err));
        assert_true(both);
    }
    assert_whole(f, AGENT);
    free(other);
    free(remote);
}

/* Merged in the throw-away repository, pushed from there, and only then taken in. */
static void test_what_has_parted_is_merged_and_goes_back(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f), *other = mem_printf("%s/other", f->root);
    _cleanup_(merge_result_dispose) merge_result merged = MERGE_RESULT_INIT;
    _cleanup_(fetched_freep) fetched *in = NULL;
    transport_target target = remote_target_of(remote);
    taking t = TAKING_INIT(remote);
    transport_report report;
    memfs_oid ours, now;

    work_clone(f, AGENT, other);
    work_commit(f, other, "notes/a.md", "ONE\ntwo\nthree\n");
    assert_ok(f, push_head(f, other, AGENT, NULL));
    work_commit(f, f->work, "notes/a.md", "one\ntwo\nTHREE\n");
    push_to(f, f->work, remote);
    ours = tip_of(f, AGENT);
    assert_ok(f, taking_fetch(f, &t, &in));
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, merge_commits(fetched_repo(in), &ours, &t.theirs, &merged, &f->err));
    assert_true(merged.is_merge);
    assert_false(has(f, &merged.commit));
    assert_ok(f, transport_push(fetched_dir(in), &target, &merged.commit, SOON, &report, &f->err));
    now = remote_tip(f, remote);
    assert_true(oid_equal(&now, &merged.commit));
    assert_ok(f, taking_finish(f, &t, in));
    now = tip_of(f, AGENT);
    assert_true(oid_equal(&now, &merged.commit));
    assert_whole(f, AGENT);
    git(f, remote, "fsck", "--full", "--strict");
    free(other);
    free(remote);
}

static void test_H5_rewritten_and_unrelated_histories_are_joined(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f), *other = mem_printf("%s/other", f->root);
    taking t = TAKING_INIT(remote);
    memfs_oid ours = tip_of(f, AGENT), tip;
    bool has_ours = false;

    git(f, f->work, "commit", "-q", "--amend", "-m", "another past");
    push_to(f, f->work, remote);
    assert_ok(f, take(f, &t));
    git(f, "/", "init", "-q", "-b", "main", other);
    work_commit(f, other, "foreign.md", "from elsewhere\n");
    push_to(f, other, remote);
    assert_ok(f, take(f, &t));
    tip = tip_of(f, AGENT);
    {
        _cleanup_(repo_closep) repo *r = NULL;

        assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
        assert_ok(f, repo_is_ancestor(r, &ours, &tip, &has_ours, &f->err));
    }
    assert_true(has_ours);
    assert_whole(f, AGENT);
    free(other);
    free(remote);
}

static void test_D4_taking_in_again_brings_nothing_twice(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(fetched_freep) fetched *in = NULL;
    taking t = TAKING_INIT(remote);
    size_t n_packs;

    work_commit(f, f->work, "notes/b.md", "new\n");
    push_to(f, f->work, remote);
    assert_ok(f, taking_fetch(f, &t, &in));
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, fetched_accept(in, &t.theirs, &f->err));
    n_packs = store_pack_count(f->s, AGENT);
    assert_ok(f, fetched_accept(in, &t.theirs, &f->err));
    assert_int_equal(store_pack_count(f->s, AGENT), n_packs);
    fetched_freep(&in);
    assert_ok(f, take(f, &t)); /* a crash before the move: main was not there yet */
    assert_int_equal(store_pack_count(f->s, AGENT), n_packs);
    assert_whole(f, AGENT);
    free(remote);
}

/* Protocol v2 would serve it by its id (T28). */
static void test_T28_what_the_tip_does_not_reach_stays_outside(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(fetched_freep) fetched *in = NULL;
    transport_target target = remote_target_of(remote);
    taking t = TAKING_INIT(remote);
    transport_report report;
    memfs_oid secret, junk;

    git(f, f->work, "checkout", "-q", "-b", "other");
    work_commit(f, f->work, "secret.md", "hunter2\n");
    secret = git_id(f, f->work, "HEAD:secret.md");
    git(f, f->work, "push", "-q", remote, "other");
    git(f, f->work, "checkout", "-q", "main");
    work_commit(f, f->work, "notes/b.md", "new\n");
    push_to(f, f->work, remote);
    assert_ok(f, taking_fetch(f, &t, &in));
    assert_ok(f, fetched_fetch(in, &target, "refs/heads/other", 0, SOON, &junk, &report, &f->err));
    assert_true(repo_has(fetched_repo(in), &secret));
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, taking_finish(f, &t, in));
    assert_false(has(f, &secret));
    assert_true(has(f, &t.theirs));
    assert_whole(f, AGENT);
    free(remote);
}

/* A remote with a history, a sidecar, and a branch on top; nobody here knows the agent. */
static char *begin_elsewhere(fixture *f)
{
    char *remote = remote_make(f, "remote");

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    work_commit(f, f->work, "notes/deep/a.md", "one\n");
    push_to(f, f->work, remote);
    git(f, f->work, "checkout", "-q", "-b", "other");
    work_commit(f, f->work, "secret.md", "hunter2\n");
    git(f, f->work, "push", "-q", remote, "other");
    git(f, f->work, "checkout", "-q", "--orphan", "meta");
    git(f, f->work, "rm", "-q", "-r", "-f", ".");
    work_commit(f, f->work, "agent.json", "{}\n");
    git(f, f->work, "push", "-q", remote, "HEAD:" STORE_META);
    return remote;
}

/* Both tips of an empty machine's first fetch are in, by the pack that came, and by no child. */
static void test_what_came_is_moved_in_where_it_is_exactly_what_is_wanted(void **state)
{
    fixture *f = *state;
    char *remote = begin_elsewhere(f), *packs;
    _cleanup_(fetched_freep) fetched *in = NULL;
    transport_target target = remote_target_of(remote);
    taking t = TAKING_INIT(remote);
    memfs_oid meta;

    assert_ok(f, fetched_begin(f->s, AGENT, &in, &f->err));
    assert_ok(f, fetched_fetch_with(in, &target, MAIN, STORE_META, 0, SOON, &t.theirs, &meta,
                                    &t.report, &f->err));
    fetched_bring_along(in, &meta);
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, taking_finish(f, &t, in));
    assert_true(has(f, &meta));
    assert_int_equal(store_pack_count(f->s, AGENT), 1);
    packs = mem_printf("%s/accept", fetched_dir(in));
    assert_false(fs_exists(packs)); /* git pack-objects would have needed it */
    assert_ok(f, taking_vet(f, &(taking){ .theirs = meta, .policy = t.policy }, in));
    assert_ok(f, fetched_accept(in, &meta, &f->err));
    assert_false(fs_exists(packs));
    assert_int_equal(store_pack_count(f->s, AGENT), 1);
    fetched_freep(&in);
    assert_whole(f, AGENT);
    free(packs);
    free(remote);
}

/* More in the pack than is wanted, whichever way: it is written anew (T28). */
static void test_T28_a_first_fetch_brings_nothing_beside_the_tip(void **state)
{
    static const char *const MORE[] = { "refs/heads/other", STORE_META };

    for (size_t i = 0; i < ARRAY_LEN(MORE); i++) {
        fixture *f = *state;
        char *remote = begin_elsewhere(f);
        _cleanup_(fetched_freep) fetched *in = NULL;
        transport_target target = remote_target_of(remote);
        taking t = TAKING_INIT(remote);
        memfs_oid more;

        assert_ok(f, fetched_begin(f->s, AGENT, &in, &f->err));
        assert_ok(f, fetched_fetch_with(in, &target, MAIN, MORE[i], 0, SOON, &t.theirs, &more,
                                        &t.report, &f->err)); /* one pack with both */
        assert_ok(f, taking_vet(f, &t, in));
        assert_ok(f, taking_finish(f, &t, in));
        assert_false(has(f, &more));
        assert_true(has(f, &t.theirs));
        fetched_freep(&in);
        assert_whole(f, AGENT);
        free(remote);
        fixture_teardown(state);
        fixture_setup(state);
    }
}

/* A sidecar that no vetting takes stays behind, and main comes in without it. */
static void test_T23_what_comes_along_is_judged_too(void **state)
{
    fixture *f = *state;
    char *remote = begin_elsewhere(f);
    _cleanup_(fetched_freep) fetched *in = NULL;
    transport_target target = remote_target_of(remote);
    taking t = TAKING_INIT(remote);
    memfs_oid meta;

    work_commit(f, f->work, ".memfs.md/con", "x\n");
    work_commit(f, f->work, "nul.md\\", "x\n");
    git(f, f->work, "push", "-q", remote, "HEAD:" STORE_META);
    assert_ok(f, fetched_begin(f->s, AGENT, &in, &f->err));
    assert_ok(f, fetched_fetch_with(in, &target, MAIN, STORE_META, 0, SOON, &t.theirs, &meta,
                                    &t.report, &f->err));
    fetched_bring_along(in, &meta);
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, taking_finish(f, &t, in));
    assert_false(has(f, &meta));
    assert_true(has(f, &t.theirs));
    assert_code(f, MEMFS_EDENIED,
                taking_vet(f, &(taking){ .theirs = meta, .policy = t.policy }, in));
    fetched_freep(&in);
    assert_whole(f, AGENT);
    free(remote);
}

static void test_a_fold_during_the_fetch_takes_nothing_away(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(fetched_freep) fetched *in = NULL;
    taking t = TAKING_INIT(remote);

    for (int i = 0; i < 6; i++) {
        char name[32];

        snprintf(name, sizeof(name), "notes/%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
    }
    work_commit(f, f->work, "notes/b.md", "new\n");
    push_to(f, f->work, remote);
    assert_ok(f, taking_fetch(f, &t, &in));
    assert_non_null(fetched_repo(in));
    assert_ok(f, store_repack(f->s, AGENT, &f->err));
    assert_ok(f, taking_vet(f, &t, in));
    assert_ok(f, taking_finish(f, &t, in));
    assert_whole(f, AGENT);
    free(remote);
}

static void test_a_home_of_any_name_is_looked_into(void **state)
{
    fixture *f = *state;
    char *remote;
    taking t;

    snprintf(f->home, sizeof(f->home), "%s/a \"b\"\\\nc:d", f->root);
    fixture_reopen(f);
    remote = begin_equal(f);
    work_commit(f, f->work, "notes/b.md", "new\n");
    push_to(f, f->work, remote);
    t = (taking)TAKING_INIT(remote);
    assert_ok(f, take(f, &t));
    assert_whole(f, AGENT);
    free(remote);
}

/* ---- T23: what a hostile remote sends ---- */

typedef struct before {
    memfs_oid tip;
    size_t n_packs;
} before;

static before look(fixture *f)
{
    return (before){ tip_of(f, AGENT), store_pack_count(f->s, AGENT) };
}

/* D3 */
static void assert_untouched(fixture *f, const before *b)
{
    before now = look(f);

    assert_true(oid_equal(&b->tip, &now.tip));
    assert_int_equal(b->n_packs, now.n_packs);
    assert_int_equal(count_scratch(f), 0);
    assert_whole(f, AGENT);
}

/* The remote's main becomes a commit on its old tip, of this tree. */
static memfs_oid set_tree(fixture *f, const char *remote, pack *p, const memfs_oid *tree,
                          const char *date)
{
    memfs_oid parent = remote_tip(f, remote);
    memfs_oid commit = pack_commit_dated(p, tree, &parent, date);

    remote_take(f, remote, p);
    remote_set(f, remote, MAIN, &commit);
    return commit;
}

#define NOW "1700000000 +0000"

typedef struct entry_row {
    const char *mode, *name, *said;
} entry_row;

static const entry_row ENTRIES[] = {
    { "120000", "link.md", "link.md" },      { "160000", "module", "module" },
    { "100644", "a\x1b[31m.md", "\\x1B" },   { "100644", "a\nb.md", "control" },
    { "100644", "caf\xe9.md", "caf" },       { "100644", "a\xe2\x80\xae" "b.md", "a" },
};

static void test_T23_T11_hostile_entries_are_refused_with_path_and_rule(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    memfs_oid start = remote_tip(f, remote);
    before b = look(f);

    for (size_t i = 0; i < ARRAY_LEN(ENTRIES); i++) {
        _cleanup_(pack_dispose) pack p = PACK_INIT;
        _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
        taking t = TAKING_INIT(remote);
        memfs_oid id = pack_add(&p, OBJ_BLOB, MEMFS_STR("../../etc/passwd"));

        tree_add(&tree, ENTRIES[i].mode, str_of(ENTRIES[i].name),
                 ENTRIES[i].mode[1] == '6' ? &STORE_GENESIS : &id);
        id = pack_add(&p, OBJ_TREE, buf_str(&tree));
        remote_set(f, remote, MAIN, &start);
        set_tree(f, remote, &p, &id, NOW);
        assert_code(f, MEMFS_EDENIED, take(f, &t));
        assert_says(f, ENTRIES[i].said);
        assert_untouched(f, &b);
    }
    free(remote);
}

/* What fsck refuses never gets as far as us. */
static void test_T23_what_fsck_refuses_is_named(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
    taking t = TAKING_INIT(remote);
    before b = look(f);
    memfs_oid id = pack_add(&p, OBJ_BLOB, MEMFS_STR("#!/bin/sh\n"));

    tree_add(&tree, "100644", MEMFS_STR(".git"), &id);
    id = pack_add(&p, OBJ_TREE, buf_str(&tree));
    set_tree(f, remote, &p, &id, NOW);
    assert_code(f, MEMFS_EUNAVAIL, take(f, &t));
    assert_int_equal(t.report.cause, TRANSPORT_CAUSE_DAMAGED);
    assert_non_null(strstr(t.report.said, "hasDotgit"));
    assert_untouched(f, &b);
    free(remote);
}

/* n folders, one in the other; *ret_top is the outermost. */
static memfs_oid add_deep(pack *p, size_t n)
{
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
    memfs_oid id = pack_add(p, OBJ_BLOB, MEMFS_STR("deep\n"));

    tree_add(&tree, "100644", MEMFS_STR("f.md"), &id);
    id = pack_add(p, OBJ_TREE, buf_str(&tree));
    for (size_t i = 0; i < n; i++) {
        buf_clear(&tree);
        tree_add(&tree, "40000", MEMFS_STR("d"), &id);
        id = pack_add(p, OBJ_TREE, buf_str(&tree));
    }
    return id;
}

/* Ten entries of ten entries of ...: 10^levels paths. */
static memfs_oid add_bomb(pack *p, size_t levels)
{
    memfs_oid id = pack_add(p, OBJ_BLOB, MEMFS_STR("boom\n"));

    for (size_t level = 0; level < levels; level++) {
        _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);

        for (int i = 0; i < 10; i++) {
            char name[8];

            snprintf(name, sizeof(name), "%d", i);
            tree_add(&tree, level == 0 ? "100644" : "40000", str_of(name), &id);
        }
        id = pack_add(p, OBJ_TREE, buf_str(&tree));
    }
    return id;
}

typedef struct bomb_row {
    bool is_deep;
    size_t n;
    bool at_tip_ok, in_past_ok;
} bomb_row;

static const bomb_row BOMBS[] = {
    { true, 60, true, true },    { true, 100, false, true }, /* once too deep, mended since */
    { true, 300, false, false }, { true, 3000, false, false },
    { false, 4, true, true },    { false, 10, false, false },
};

static void test_T15_T16_bombs_are_refused_at_the_tip_and_in_the_past(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    memfs_oid start = remote_tip(f, remote);

    for (size_t i = 0; i < ARRAY_LEN(BOMBS) * 2; i++) {
        const bomb_row *row = &BOMBS[i / 2];
        bool in_past = i % 2 == 1, fine = in_past ? row->in_past_ok : row->at_tip_ok;
        _cleanup_(pack_dispose) pack p = PACK_INIT;
        _cleanup_(fetched_freep) fetched *in = NULL;
        taking t = TAKING_INIT(remote);
        memfs_oid tree = row->is_deep ? add_deep(&p, row->n) : add_bomb(&p, row->n);
        memfs_oid harmless = git_id(f, remote, "refs/heads/main^{tree}"), parent = start;
        before b = look(f);

        if (in_past)
            parent = pack_commit(&p, &tree, &parent);
        parent = pack_commit(&p, in_past ? &harmless : &tree, &parent);
        remote_take(f, remote, &p);
        remote_set(f, remote, MAIN, &parent);
        assert_ok(f, taking_fetch(f, &t, &in));
        if (fine)
            assert_ok(f, taking_vet(f, &t, in));
        else
            assert_code(f, MEMFS_EDENIED, taking_vet(f, &t, in));
        fetched_freep(&in);
        assert_untouched(f, &b);
        remote_set(f, remote, MAIN, &start);
    }
    free(remote);
}

/* Chains of folders that are only deep when they are put on top of each other. */
static void test_T16_depth_adds_up_over_what_was_seen_before(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
    taking t = TAKING_INIT(remote);
    memfs_oid harmless = git_id(f, remote, "refs/heads/main^{tree}");
    memfs_oid at = remote_tip(f, remote), id = add_deep(&p, 200);

    at = pack_commit(&p, &id, &at);
    for (size_t i = 0; i < 200; i++) {
        buf_clear(&tree);
        tree_add(&tree, "40000", MEMFS_STR("d"), &id);
        id = pack_add(&p, OBJ_TREE, buf_str(&tree));
    }
    at = pack_commit(&p, &id, &at);
    at = pack_commit(&p, &harmless, &at);
    remote_take(f, remote, &p);
    remote_set(f, remote, MAIN, &at);
    assert_code(f, MEMFS_EDENIED, take(f, &t));
    assert_says(f, "too deep");
    free(remote);
}

static void test_T11_what_an_import_brought_along_once_stops_nothing(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(pack_dispose) pack p = PACK_INIT, q = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(4096);
    taking t = TAKING_INIT(remote);
    memfs_oid harmless = git_id(f, remote, "refs/heads/main^{tree}"), blob, id, offending;

    blob = pack_add(&p, OBJ_BLOB, MEMFS_STR("target"));
    tree_add(&tree, "120000", MEMFS_STR("link.md"), &blob);
    id = pack_add(&p, OBJ_TREE, buf_str(&tree));
    offending = set_tree(f, remote, &p, &id, NOW);
    assert_code(f, MEMFS_EDENIED, take(f, &t));
    t.known = &offending; /* the remote had it when it was last taken in */
    t.n_known = 1;
    assert_ok(f, take(f, &t));
    t.n_known = 0;
    blob = pack_add(&q, OBJ_BLOB, MEMFS_STR("another target"));
    buf_clear(&tree);
    tree_add(&tree, "120000", MEMFS_STR("link.md"), &blob);
    id = pack_add(&q, OBJ_TREE, buf_str(&tree));
    set_tree(f, remote, &q, &id, NOW);
    assert_code(f, MEMFS_EDENIED, take(f, &t)); /* changed: judged again */
    remote_take(f, remote, &q);
    {
        _cleanup_(pack_dispose) pack mended = PACK_INIT;

        set_tree(f, remote, &mended, &harmless, NOW);
    }
    assert_ok(f, take(f, &t)); /* taken out again: mended for everybody */
    assert_whole(f, AGENT);
    free(remote);
}

static void test_T11_dates_beyond_all_calendars_are_refused(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    taking t = TAKING_INIT(remote);
    memfs_oid tree = git_id(f, remote, "refs/heads/main^{tree}");
    before b = look(f);

    set_tree(f, remote, &p, &tree, "99999999999 +0000");
    assert_code(f, MEMFS_EDENIED, take(f, &t));
    assert_says(f, "commit ");
    assert_untouched(f, &b);
    free(remote);
}

static void test_T28_banned_objects_are_refused_wherever_they_are_met(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    taking t = TAKING_INIT(remote);
    before b = look(f);
    memfs_oid secret;

    work_commit(f, f->work, "secret.md", "hunter2\n");
    secret = git_id(f, f->work, "HEAD:secret.md");
    git(f, f->work, "rm", "-q", "secret.md");
    git(f, f->work, "commit", "-q", "-m", "taken out");
    push_to(f, f->work, remote);
    t.banned = &secret;
    t.n_banned = 1;
    assert_code(f, MEMFS_EDENIED, take(f, &t));
    assert_says(f, "purged");
    assert_untouched(f, &b);
    free(remote);
}

static void test_T23_a_branch_that_is_no_commit_is_refused(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f), *path = mem_printf("%s/" MAIN, remote);
    memfs_oid blob = git_id(f, remote, "refs/heads/main:notes/a.md");
    char line[MEMFS_OID_HEX + 2];
    taking t = TAKING_INIT(remote);
    before b = look(f);

    oid_hex(&blob, line);
    line[MEMFS_OID_HEX] = '\n';
    assert_ok(f, fs_write_atomic(path, str_make(line, sizeof(line) - 1), 0644, &f->err));
    assert_true(take(f, &t) < 0);
    assert_untouched(f, &b);
    free(path);
    free(remote);
}

static void test_T14_more_bytes_than_allowed_are_cut_off(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(fetched_freep) fetched *in = NULL;
    _cleanup_(buf_dispose) memfs_buf noise = MEMFS_BUF_INIT(8u << 20);
    transport_target target = remote_target_of(remote);
    transport_report report;
    uint32_t seed = 7;
    before b = look(f);
    memfs_oid tip;

    for (size_t i = 0; i < 3u << 20; i++)
        buf_putc(&noise, (char)((seed = seed * 1103515245 + 12345) >> 16));
    work_write(f, f->work, "noise.bin", buf_str(&noise));
    work_commit(f, f->work, "notes/b.md", "new\n");
    push_to(f, f->work, remote);
    assert_ok(f, fetched_begin(f->s, AGENT, &in, &f->err));
    assert_code(f, MEMFS_ELIMIT, fetched_fetch(in, &target, MAIN, 1u << 20, SOON, &tip, &report,
                                               &f->err));
    assert_int_equal(report.cause, TRANSPORT_CAUSE_TOO_LARGE);
    assert_ok(f, fetched_fetch(in, &target, MAIN, 8u << 20, SOON, &tip, &report, &f->err));
    fetched_freep(&in);
    assert_untouched(f, &b);
    free(remote);
}

static char *only_pack_of(fixture *f, const char *remote)
{
    char script[256];
    const char *argv[] = { "/bin/sh", "-c", script, NULL }, *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };
    memfs_buf out = MEMFS_BUF_INIT(4096);

    snprintf(script, sizeof(script),
             "cd %s/objects/pack && chmod u+w * && printf %%s \"$PWD\"/*.pack", remote);
    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &f->err));
    return buf_take(&out, NULL);
}

/* Whatever the damage, it is found there, on the way or here; and what comes in all the same is
 * whole. */
static void test_F11_a_damaged_pack_over_there_changes_nothing_here(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f), *path;
    _cleanup_(buf_dispose) memfs_buf good = MEMFS_BUF_INIT(1u << 20);
    size_t n_refused = 0, n_tried = 0;
    before b = look(f);

    for (int i = 0; i < 20; i++) {
        char name[32];

        snprintf(name, sizeof(name), "notes/%d.md", i);
        work_commit(f, f->work, name, name);
    }
    push_to(f, f->work, remote);
    git(f, remote, "repack", "-q", "-a", "-d");
    path = only_pack_of(f, remote);
    assert_ok(f, fs_read(path, &good, &f->err));
    for (size_t at = 13; at < good.len; at += 257) {
        _cleanup_(fetched_freep) fetched *in = NULL;
        taking t = TAKING_INIT(remote);
        memfs_str bytes = at % 2 ? buf_str(&good) : str_make(good.ptr, at);

        good.ptr[at] ^= 0x20;
        assert_ok(f, fs_write_atomic(path, bytes, 0644, &f->err));
        good.ptr[at] ^= 0x20;
        n_tried++;
        if (taking_fetch(f, &t, &in) == MEMFS_OK)
            assert_ok(f, taking_vet(f, &t, in));
        else
            n_refused++;
        fetched_freep(&in);
        assert_untouched(f, &b);
    }
    assert_true(n_tried > 8);
    assert_true(n_refused > n_tried / 2);
    free(path);
    free(remote);
}

static void test_T23_a_shallow_remote_is_told_apart(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f), *shallow = mem_printf("%s/shallow.git", f->root);
    char *url = mem_printf("file://%s", remote);
    taking t = TAKING_INIT(shallow);
    before b;

    for (int i = 0; i < 3; i++) {
        char text[16];

        snprintf(text, sizeof(text), "%d\n", i);
        work_commit(f, f->work, "notes/b.md", text);
    }
    push_to(f, f->work, remote);
    git(f, "/", "clone", "-q", "--bare", "--depth=1", url, shallow);
    b = look(f);
    assert_code(f, MEMFS_EUNAVAIL, take(f, &t));
    assert_int_equal(t.report.cause, TRANSPORT_CAUSE_SHALLOW);
    assert_untouched(f, &b);
    free(url);
    free(shallow);
    free(remote);
}

/* ---- the sidecar's way, other branches ---- */

static void test_any_branch_and_the_sidecar_can_be_fetched(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    _cleanup_(fetched_freep) fetched *in = NULL;
    transport_target target = remote_target_of(remote);
    static const char *const bad[] = { "HEAD", "refs/heads/a:refs/heads/main", "refs/heads/*",
                                       "--upload-pack=x", "refs/heads/a..b", "refs/heads/a b" };
    transport_report report;
    memfs_oid tip, want;

    git(f, f->work, "push", "-q", remote, "HEAD:refs/heads/trunk", "HEAD~1:" STORE_META);
    assert_ok(f, fetched_begin(f->s, AGENT, &in, &f->err));
    assert_ok(f, fetched_fetch(in, &target, "refs/heads/trunk", 0, SOON, &tip, &report, &f->err));
    want = git_id(f, f->work, "HEAD");
    assert_true(oid_equal(&tip, &want));
    assert_ok(f, fetched_fetch(in, &target, STORE_META, 0, SOON, &tip, &report, &f->err));
    want = git_id(f, f->work, "HEAD~1");
    assert_true(oid_equal(&tip, &want));
    assert_code(f, MEMFS_ENOTFOUND, fetched_fetch(in, &target, "refs/heads/none", 0, SOON, &tip,
                                                  &report, &f->err));
    assert_true(report.is_empty);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_code(f, MEMFS_EINVALID,
                    fetched_fetch(in, &target, bad[i], 0, SOON, &tip, &report, &f->err));
    free(remote);
}

/* ---- the proof ---- */

static void test_a_proof_is_the_tree_that_the_remote_has(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f);
    transport_target target = remote_target_of(remote);
    transport_report report;
    proof got;
    memfs_oid want;

    assert_ok(f, proof_take(f->s, &target, MAIN, 0, SOON, &got, &report, &f->err));
    want = git_id(f, f->work, "HEAD");
    assert_true(oid_equal(&got.commit, &want));
    want = git_id(f, f->work, "HEAD^{tree}");
    assert_true(oid_equal(&got.tree, &want));
    assert_code(f, MEMFS_ENOTFOUND,
                proof_take(f->s, &target, STORE_META, 0, SOON, &got, &report, &f->err));
    assert_int_equal(count_scratch(f), 0);
    free(remote);
}

/* What we have ourselves must not stand in for what the remote has lost. */
static void test_F12_a_proof_finds_an_object_that_the_remote_lost(void **state)
{
    fixture *f = *state;
    char *remote = begin_equal(f), hex[MEMFS_OID_HEX + 1];
    memfs_oid blob = git_id(f, f->work, "HEAD:notes/a.md");
    transport_target target = remote_target_of(remote);
    transport_report report;
    char *object;
    proof got;

    oid_hex(&blob, hex);
    object = mem_printf("%s/objects/%.2s/%s", remote, hex, &hex[2]);
    assert_int_equal(unlink(object), 0);
    assert_true(proof_take(f->s, &target, MAIN, 0, SOON, &got, &report, &f->err) < 0);
    assert_int_equal(count_scratch(f), 0);
    free(object);
    free(remote);
}

/* ---- crashes ---- */

static void test_F01_what_a_crash_left_is_swept_at_the_next_start(void **state)
{
    fixture *f = *state;
    char *left[] = { mem_printf("%s/tmp/fetched-0123456789abcdef-1/objects/pack", f->home),
                     mem_printf("%s/tmp/proof-0123456789abcdef-2/refs", f->home) };

    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        assert_ok(f, fs_mkdirs(left[i], &f->err));
    assert_true(count_scratch(f) > 0);
    fixture_reopen(f);
    assert_int_equal(count_scratch(f), 0);
    for (size_t i = 0; i < ARRAY_LEN(left); i++)
        free(left[i]);
}

static char program[4096]; /* this one, absolute: under strace /proc/self/exe is another */

/* In a process of its own, which strace may end: `test_fetched exchange HOME REMOTE`. */
static int exchange_once(const char *home, const char *remote)
{
    fixture f = { .s = NULL };
    taking t = TAKING_INIT(remote);
    memfs_code rc = store_open(home, &f.s, &f.err);

    if (rc == MEMFS_OK)
        rc = take(&f, &t);
    if (rc < 0)
        fprintf(stderr, "%s\n", f.err.msg);
    store_close(f.s);
    return rc == MEMFS_OK ? 0 : 3;
}

/* Is ended at its n-th such call.  *ret_was_hit: there was one. */
static void run_hit(fixture *f, const char *remote, const char *call, int n, bool *ret_was_hit)
{
    char trace[80], inject[80], log[100];
    const char *argv[] = { "/usr/bin/strace", "-f", "-qq", "-o", log, "-e", trace, "-e", inject,
                           program, "exchange", f->home, remote, NULL };
    /* a leak checker cannot look at a process that strace looks at */
    const char *env[] = { "PATH=/usr/bin:/bin", "ASAN_OPTIONS=detect_leaks=0", NULL };
    process_spec spec = { .argv = argv, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(16u << 20);
    memfs_error ignored;

    snprintf(log, sizeof(log), "%s/strace.log", f->root);
    snprintf(trace, sizeof(trace), "trace=%s", call);
    snprintf(inject, sizeof(inject), "inject=%s:signal=KILL:when=%d", call, n);
    if (process_run(&spec, MEMFS_STR(""), &out, NULL, 120000, &ignored) < 0)
        ignored.code = MEMFS_OK;
    assert_ok(f, fs_read(log, &said, &f->err));
    *ret_was_hit = said.len > 0 && strstr(said.ptr, "killed by SIGKILL") != NULL;
}

static void hit_every(fixture *f, const char *remote, const char *call, size_t *ret_n)
{
    bool was_hit = true;

    for (int n = 1; was_hit && n < 60; n++) {
        memfs_oid ours = tip_of(f, AGENT), theirs, now;
        char text[32];

        snprintf(text, sizeof(text), "%s %d\n", call, n);
        work_commit(f, f->work, "notes/crash.md", text);
        push_to(f, f->work, remote);
        theirs = git_id(f, f->work, "HEAD");
        run_hit(f, remote, call, n, &was_hit);
        fixture_reopen(f);
        assert_int_equal(count_scratch(f), 0);
        now = tip_of(f, AGENT);
        assert_true(oid_equal(&now, &ours) || oid_equal(&now, &theirs));
        {
            size_t ignored;

            assert_ok(f, store_sweep(f->s, AGENT, &ignored, &f->err));
        }
        assert_whole(f, AGENT);
        if (!was_hit)
            assert_true(oid_equal(&now, &theirs));
        assert_int_equal(exchange_once(f->home, remote), 0); /* the same again, to its end */
        now = tip_of(f, AGENT);
        assert_true(oid_equal(&now, &theirs));
        assert_whole(f, AGENT);
        *ret_n += was_hit;
    }
    assert_false(was_hit);
}

/*
 * SIGKILL at every rename and fsync of an exchange, be it ours or git's: main is where it was or
 * where it was to be, everything it reaches is there, and the same exchange again ends well.
 */
static void test_F01_D3_killed_at_every_step_it_is_all_or_nothing(void **state)
{
    fixture *f = *state;
    char *remote;
    size_t n = 0;

    if (!fs_exists("/usr/bin/strace")) {
        print_message("strace is not installed\n");
        skip();
    }
    remote = begin_equal(f);
    hit_every(f, remote, "rename", &n);
    hit_every(f, remote, "fsync", &n);
    print_message("%zu kills\n", n);
    assert_true(n >= 5);
    free(remote);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_news_come_in_as_one_pack),
        TEST(test_an_agent_that_nobody_knew_begins_with_what_came),
        TEST(test_a_repository_made_meanwhile_is_seen),
        TEST(test_what_has_parted_is_merged_and_goes_back),
        TEST(test_H5_rewritten_and_unrelated_histories_are_joined),
        TEST(test_D4_taking_in_again_brings_nothing_twice),
        TEST(test_T28_what_the_tip_does_not_reach_stays_outside),
        TEST(test_what_came_is_moved_in_where_it_is_exactly_what_is_wanted),
        TEST(test_T28_a_first_fetch_brings_nothing_beside_the_tip),
        TEST(test_T23_what_comes_along_is_judged_too),
        TEST(test_a_fold_during_the_fetch_takes_nothing_away),
        TEST(test_a_home_of_any_name_is_looked_into),
        TEST(test_T23_T11_hostile_entries_are_refused_with_path_and_rule),
        TEST(test_T23_what_fsck_refuses_is_named),
        TEST(test_T15_T16_bombs_are_refused_at_the_tip_and_in_the_past),
        TEST(test_T16_depth_adds_up_over_what_was_seen_before),
        TEST(test_T11_what_an_import_brought_along_once_stops_nothing),
        TEST(test_T11_dates_beyond_all_calendars_are_refused),
        TEST(test_T28_banned_objects_are_refused_wherever_they_are_met),
        TEST(test_T23_a_branch_that_is_no_commit_is_refused),
        TEST(test_T14_more_bytes_than_allowed_are_cut_off),
        TEST(test_F11_a_damaged_pack_over_there_changes_nothing_here),
        TEST(test_T23_a_shallow_remote_is_told_apart),
        TEST(test_any_branch_and_the_sidecar_can_be_fetched),
        TEST(test_a_proof_is_the_tree_that_the_remote_has),
        TEST(test_F12_a_proof_finds_an_object_that_the_remote_lost),
        TEST(test_F01_what_a_crash_left_is_swept_at_the_next_start),
        TEST(test_F01_D3_killed_at_every_step_it_is_all_or_nothing),
    };

    if (argc == 4 && strcmp(argv[1], "exchange") == 0)
        return exchange_once(argv[2], argv[3]);
    if (realpath("/proc/self/exe", program) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
