/*
 * Pushes as the store sees them: real packs made by git, hostile ones made by hand.
 */
#include "pack_support.h"

#include "base/clock.h"
#include "base/escape.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Files in incoming folders; the empty folders themselves may be kept for the next push. */
static size_t count_incoming(fixture *f)
{
    char script[256];
    const char *argv[] = { "/bin/sh", "-c", script, NULL }, *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);

    snprintf(script, sizeof(script), "find '%s/tmp' -path '*/incoming-*' -type f", f->home);
    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &f->err));
    return out.len;
}

/* D3: what a refused push must leave untouched. */
typedef struct before {
    memfs_oid tip;
    bool existed;
    size_t n_packs;
} before;

static before look(fixture *f)
{
    return (before){ tip_of(f, AGENT), store_has(f->s, AGENT), store_pack_count(f->s, AGENT) };
}

static void assert_untouched(fixture *f, const before *b)
{
    before now = look(f);

    assert_true(oid_equal(&b->tip, &now.tip));
    assert_int_equal(b->existed, now.existed);
    assert_int_equal(b->n_packs, now.n_packs);
    assert_int_equal(count_incoming(f), 0);
    if (now.existed)
        assert_whole(f, AGENT);
}

static memfs_code push_pack(fixture *f, pack *p, const memfs_oid *tip, const policy *policy_or_null)
{
    push_spec spec = { .name = AGENT, .base = tip_of(f, AGENT), .tip = *tip,
                       .policy = POLICY_INIT, .pack = pack_end(p) };

    if (policy_or_null != NULL)
        spec.policy = *policy_or_null;
    return push_try(f, &spec);
}

/* A commit on `parent` with one entry at the root. */
static memfs_code push_entry(fixture *f, const char *mode, memfs_str name, const policy *p)
{
    _cleanup_(pack_dispose) pack made = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(64 * 1024);
    memfs_oid parent = tip_of(f, AGENT), id, commit;

    if (strcmp(mode, "40000") == 0) {
        id = pack_add(&made, OBJ_BLOB, MEMFS_STR("text\n"));
        tree_add(&tree, "100644", MEMFS_STR("file.md"), &id);
        id = pack_add(&made, OBJ_TREE, buf_str(&tree));
        buf_clear(&tree);
    } else if (strcmp(mode, "160000") == 0) {
        id = STORE_GENESIS;
    } else {
        id = pack_add(&made, OBJ_BLOB, MEMFS_STR("../../etc/passwd"));
    }
    tree_add(&tree, mode, name, &id);
    id = pack_add(&made, OBJ_TREE, buf_str(&tree));
    commit = pack_commit(&made, &id, &parent);
    return push_pack(f, &made, &commit, p);
}

/* what is fine */

static void test_a_first_push_makes_the_repository(void **state)
{
    fixture *f = *state;
    memfs_oid tip, head;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    tip = tip_of(f, AGENT);
    head = git_id(f, f->work, "HEAD");
    assert_true(oid_equal(&tip, &head));
    assert_int_equal(count_incoming(f), 0);
    assert_whole(f, AGENT);
}

static void test_many_pushes_follow_each_other(void **state)
{
    fixture *f = *state;
    char name[32];

    work_clone(f, NULL, f->work);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "folder/%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
    }
    assert_int_equal(store_pack_count(f->s, AGENT), 5);
    assert_whole(f, AGENT);
}

static void test_a_push_without_objects_moves_to_what_is_there(void **state)
{
    fixture *f = *state;
    push_spec spec = { .name = AGENT, .policy = POLICY_INIT };
    _cleanup_(pack_dispose) pack none = PACK_INIT;
    memfs_oid first, second;
    repo *r;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    first = git_id(f, f->work, "HEAD");
    work_commit(f, f->work, "a", "2");
    second = git_id(f, f->work, "HEAD");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_ref_rewrite(r, &second, &first, &WHO, "test", &f->err));
    repo_close(r);
    spec.base = first;
    spec.tip = second;
    assert_ok(f, push_try(f, &spec));
    /* git sends a pack of no objects for this; it is not kept */
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_ok(f, repo_ref_rewrite(r, &second, &first, &WHO, "test", &f->err));
    repo_close(r);
    spec.pack = pack_end(&none);
    assert_int_equal(spec.pack.len, 32);
    assert_ok(f, push_try(f, &spec));
    assert_int_equal(store_pack_count(f->s, AGENT), 1);
    assert_whole(f, AGENT);
}

static void test_D4_the_same_push_again_is_harmless(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1 << 20);
    push_spec spec = { .name = AGENT, .base = STORE_GENESIS, .policy = POLICY_INIT };

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    spec.tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &spec.base, &spec.tip, &bytes);
    spec.pack = buf_str(&bytes);
    assert_ok(f, push_try(f, &spec));
    /* the ref has moved; the pack is the same */
    assert_code(f, MEMFS_ECONFLICT, push_try(f, &spec));
    assert_int_equal(store_pack_count(f->s, AGENT), 1);
    assert_whole(f, AGENT);
}

static void test_the_quarantine_is_readable_before_and_after_it_is_taken_in(void **state)
{
    fixture *f = *state;
    _cleanup_(incoming_abortp) incoming *in = NULL;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1 << 20), out = MEMFS_BUF_INIT(100);
    incoming_options options = INCOMING_OPTIONS_INIT;
    memfs_oid tip, blob;
    repo *r;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    work_commit(f, f->work, "b", "2");
    tip = git_id(f, f->work, "HEAD");
    blob = git_id(f, f->work, "HEAD:b");
    before b = look(f);
    work_pack(f, f->work, &b.tip, &tip, &bytes);
    assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
    assert_ok(f, incoming_feed(in, bytes.ptr, bytes.len, &f->err));
    assert_ok(f, incoming_finish(in, &f->err));
    assert_ok(f, incoming_finish(in, &f->err)); /* harmless twice */
    assert_ok(f, repo_open(f->s, AGENT, &r, &f->err));
    assert_code(f, MEMFS_ECORRUPT, repo_blob(r, &blob, 100, &out, &f->err)); /* not yet there */
    repo_close(r);
    assert_ok(f, repo_blob(incoming_repo(in), &blob, 100, &out, &f->err));
    assert_ok(f, incoming_accept(in, &f->err));
    assert_ok(f, repo_blob(incoming_repo(in), &blob, 100, &out, &f->err));
    assert_string_equal(out.ptr, "22");
    assert_int_equal(store_pack_count(f->s, AGENT), 2);
}

static void test_an_abort_at_any_point_leaves_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1 << 20);
    incoming_options options = INCOMING_OPTIONS_INIT;
    memfs_oid tip;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &STORE_GENESIS, &tip, &bytes);
    for (int step = 0; step < 4; step++) {
        incoming *in;
        before b = look(f);

        assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
        if (step > 0)
            assert_ok(f, incoming_feed(in, bytes.ptr, bytes.len / (step > 1 ? 1 : 2), &f->err));
        if (step > 2)
            assert_ok(f, incoming_finish(in, &f->err));
        incoming_abort(in);
        assert_untouched(f, &b);
    }
    incoming_abort(NULL);
}

/* A folder that one push left empty is used by the next; nothing of the first shows in it. */
static void test_incoming_folders_are_used_again_and_clean(void **state)
{
    fixture *f = *state;
    incoming_options options = INCOMING_OPTIONS_INIT;
    _cleanup_(buf_dispose) memfs_buf first = MEMFS_BUF_INIT(1 << 20), out = MEMFS_BUF_INIT(100);
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(incoming_abortp) incoming *in = NULL;
    memfs_oid blob, elsewhere;
    memfs_str bytes;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    blob = git_id(f, f->work, "HEAD:a");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    elsewhere = pack_add(&p, OBJ_BLOB, MEMFS_STR("x"));
    bytes = pack_end(&p);
    assert_ok(f, incoming_begin(f->s, OTHER, &options, &in, &f->err)); /* another agent's push */
    assert_ok(f, incoming_feed(in, bytes.ptr, bytes.len, &f->err));
    assert_ok(f, incoming_finish(in, &f->err));
    assert_ok(f, repo_blob(incoming_repo(in), &elsewhere, 100, &out, &f->err));
    assert_code(f, MEMFS_ECORRUPT, repo_blob(incoming_repo(in), &blob, 100, &out, &f->err));
}

/* history */

static void test_H1_only_descendants_are_taken(void **state)
{
    fixture *f = *state;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    before b = look(f);
    git(f, f->work, "commit", "-q", "--amend", "-m", "another");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_says(f, "non-fast-forward");
    git(f, f->work, "reset", "-q", "--hard", "HEAD~1");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL)); /* a rewind */
    assert_says(f, "non-fast-forward");
    git(f, f->work, "checkout", "-q", "--orphan", "root");
    work_commit(f, f->work, "b", "2");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL)); /* another root */
    assert_says(f, "non-fast-forward");
    assert_untouched(f, &b);
}

/* The measured attack: a replace ref makes git believe that the rewritten tip descends from main.
 *  */
static void test_T10_replace_refs_do_not_make_a_descendant(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = NULL;
    char hex[MEMFS_OID_HEX + 1], line[64];
    memfs_oid tip;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    before b = look(f);
    git(f, f->work, "checkout", "-q", "--orphan", "root");
    work_commit(f, f->work, "b", "2");
    tip = git_id(f, f->work, "HEAD");
    oid_hex(&b.tip, hex);
    snprintf(line, sizeof(line), "%s\n", hex);
    oid_hex(&tip, hex);
    path = mem_printf("%s/" AGENT "/refs/replace", f->home);
    assert_ok(f, fs_mkdirs(path, &f->err));
    free(path);
    path = mem_printf("%s/" AGENT "/refs/replace/%s", f->home, hex);
    assert_ok(f, fs_write_atomic(path, str_of(line), 0600, &f->err));
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_says(f, "non-fast-forward");
    assert_int_equal(unlink(path), 0);
    assert_untouched(f, &b);
}

static void test_H5_a_merge_of_an_unrelated_history_is_a_descendant(void **state)
{
    fixture *f = *state;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    git(f, f->work, "checkout", "-q", "--orphan", "root");
    git(f, f->work, "rm", "-rqf", ".");
    work_commit(f, f->work, "b", "2");
    git(f, f->work, "checkout", "-q", "main");
    git(f, f->work, "merge", "-q", "--allow-unrelated-histories", "-m", "both", "root");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_whole(f, AGENT);
}

/* n commits in a line on `*tip`, all with one folder of their own, dated first, first + step, ... */
static void push_line(fixture *f, memfs_oid *tip, int n, int64_t first, int step)
{
    _cleanup_(pack_dispose) pack made = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(1024), text = MEMFS_BUF_INIT(1024);
    char date[64];
    memfs_oid id;

    buf_printf(&text, "%d of %lld\n", n, (long long)first);
    id = pack_add(&made, OBJ_BLOB, buf_str(&text));
    tree_add(&tree, "100644", MEMFS_STR("file.md"), &id);
    id = pack_add(&made, OBJ_TREE, buf_str(&tree));
    for (int i = 0; i < n; i++) {
        snprintf(date, sizeof(date), "%lld +0000", (long long)(first + (int64_t)i * step));
        *tip = pack_commit_dated(&made, &id, tip, date);
    }
    assert_ok(f, push_pack(f, &made, tip, NULL));
}

static void in_objects(fixture *f, const char *script)
{
    _cleanup_(mem_freep) char *objects = mem_printf("%s/" AGENT "/objects", f->home);
    const char *argv[] = { "/bin/sh", "-ec", script, NULL }, *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env, .cwd = objects };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1024);

    assert_ok(f, process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &f->err));
}

/*
 * Order comes from the graph.  The older half of the history is taken away for a while, so a walk
 * that goes there because of dates fails: equal ones, and clients whose clocks are behind.
 */
static void test_H7_a_push_reads_no_old_history_whatever_the_dates(void **state)
{
    static const struct {
        int64_t old, new;
        int step;
    } dates[] = { { 1700000000, 1700000000, 0 },   /* one date for all */
                  { 1700000000, 1100000000, 1 },   /* the pusher's clock is years behind */
                  { 1700000000, 1690000000, -1 } }; /* ever backward */
    fixture *f = *state;
    memfs_oid tip = STORE_GENESIS, now;

    for (size_t i = 0; i < ARRAY_LEN(dates); i++) {
        push_line(f, &tip, 1000, dates[i].old, dates[i].step);
        in_objects(f, "mkdir held; ln pack/* held/");
        push_line(f, &tip, 1000, dates[i].old + 1000 * dates[i].step, dates[i].step);
        in_objects(f, "cd held; for i in *; do rm -f ../pack/$i; done");
        push_line(f, &tip, 3, dates[i].new, dates[i].step);
        in_objects(f, "mv held/* pack/; rmdir held");
        now = tip_of(f, AGENT);
        assert_true(oid_equal(&now, &tip));
    }
    assert_whole(f, AGENT);
}

/* The list is bounded, and what base has is not in it, on the line as on the graph. */
static void test_H7_a_line_of_too_many_commits_is_refused(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack made = PACK_INIT;
    memfs_oid tip = STORE_GENESIS, tree;
    before b;

    push_line(f, &tip, 10000, 1700000000, 0);
    b = look(f);
    tree = pack_add(&made, OBJ_TREE, MEMFS_STR(""));
    for (int i = 0; i < 10001; i++)
        tip = pack_commit(&made, &tree, &tip);
    assert_code(f, MEMFS_EDENIED, push_pack(f, &made, &tip, NULL));
    assert_says(f, "more than 10000 new commits");
    assert_untouched(f, &b);
}

static void test_the_tip_must_be_a_commit_that_was_sent(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack tagged = PACK_INIT, missing = PACK_INIT;
    memfs_oid tag, absent = { { 7 } };
    before b;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    b = look(f);
    tag = pack_add(&tagged, OBJ_TAG,
                   MEMFS_STR("object 56776245ff7b896622904bfc4d1c355a35e6cd81\ntype commit\ntag t\n"
                             "tagger a <a@b> 1700000000 +0000\n\nmessage\n"));
    assert_code(f, MEMFS_EDENIED, push_pack(f, &tagged, &tag, NULL));
    assert_says(f, "no commit");
    pack_add(&missing, OBJ_BLOB, MEMFS_STR("x"));
    assert_code(f, MEMFS_EDENIED, push_pack(f, &missing, &absent, NULL));
    assert_says(f, "not sent");
    assert_untouched(f, &b);
}

static void test_T11_a_year_beyond_all_calendars_is_refused(void **state)
{
    static const char *const dates[] = { "4102444800 +0000", "4102300000000 +0000" };
    fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(dates); i++) {
        _cleanup_(pack_dispose) pack p = PACK_INIT;
        memfs_oid tree = pack_add(&p, OBJ_TREE, MEMFS_STR(""));
        memfs_oid commit = pack_commit_dated(&p, &tree, &STORE_GENESIS, dates[i]);
        before b = look(f);

        assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
        assert_says(f, "outside of 1970 to 2100");
        assert_untouched(f, &b);
    }
}

/* trees */

typedef struct hostile_entry {
    const char *mode;
    const char *name;
    const char *rule; /* what the refusal says, whoever refuses */
} hostile_entry;

static const hostile_entry HOSTILE[] = {
    { "120000", "link", "'link': symbolic links" },
    { "160000", "module", "'module': submodules" },
    { "120000", ".gitattributes", "gitattributes" },
    { "100777", "open.md", "100777" },
    { "100664", "group.md", "100664" },
    { "100644", "bad\xff.md", "UTF-8" },
    { "100644", "new\nline.md", "control" },
    { "100644", "esc\033[2J.md", "control" },
    { "100644", "cr\r.md", "control" },
    { "100644", "bidi\u202e.md", "control" },
    { "100644", "back\\slash.md", "backslash" },
    { "100644", "-rf", "begins with '-'" },
    { "100644", "cafe\u0301.md", "NFC" },
    { "40000", "-folder", "begins with '-'" },
    { "40000", ".git", "" },
    { "40000", "GIT~1", "" },
    { "40000", ".g\u200cit", "" },
    { "40000", "..", "" },
    { "100644", ".", "" },
    { "100644", "a/b", "" },
    { "100644", "", "" },
};

static void assert_fit_for_side_band(const char *text)
{
    memfs_str s = str_of(text);
    size_t pos = 0;
    uint32_t cp;

    while (pos < s.len) {
        assert_true(str_utf8_next(s, &pos, &cp));
        assert_false(escape_is_control(cp));
    }
}

static void test_T11_every_hostile_entry_is_refused_with_path_and_rule(void **state)
{
    fixture *f = *state;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    for (size_t i = 0; i < ARRAY_LEN(HOSTILE); i++) {
        before b = look(f);
        memfs_code rc = push_entry(f, HOSTILE[i].mode, str_of(HOSTILE[i].name), NULL);

        if ((rc != MEMFS_EDENIED && rc != MEMFS_EINVALID) ||
            strstr(f->err.msg, HOSTILE[i].rule) == NULL)
            fail_msg("row %zu: %s '%s'", i, memfs_code_name(rc), rc ? f->err.msg : "");
        assert_fit_for_side_band(f->err.msg);
        assert_null(strstr(f->err.msg, f->home));
        assert_untouched(f, &b);
    }
}

static void test_T11_names_of_5000_bytes_are_refused(void **state)
{
    static char name[5000];
    fixture *f = *state;
    policy soft = POLICY_INIT;

    memset(name, 'n', sizeof(name));
    soft.lenient = true;
    assert_code(f, MEMFS_EDENIED, push_entry(f, "100644", str_make(name, 5000), NULL));
    assert_says(f, "255 bytes");
    assert_code(f, MEMFS_EDENIED, push_entry(f, "100644", str_make(name, 5000), &soft));
}

static void test_T11_case_twins_are_refused_in_any_folder(void **state)
{
    fixture *f = *state;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "deep/er/Human.md", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    before b = look(f);
    work_commit(f, f->work, "deep/er/human.md", "2");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_says(f, "'deep/er/human.md': 'Human.md' beside it");
    work_commit(f, f->work, "Deep/other.md", "3");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_untouched(f, &b);
    /* a new folder with twins inside */
    git(f, f->work, "reset", "-q", "--hard", "HEAD~2");
    work_write(f, f->work, "fresh/x.md", MEMFS_STR("1"));
    work_commit(f, f->work, "fresh/X.md", "2");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_untouched(f, &b);
}

static void add_link(fixture *f, const char *name)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", f->work, name);
    assert_int_equal(symlink("target", path), 0);
}

static void test_T11_what_was_there_already_stops_no_later_push(void **state)
{
    fixture *f = *state;
    policy soft = POLICY_INIT;

    soft.lenient = true;
    work_clone(f, NULL, f->work);
    work_write(f, f->work, "old/readme", MEMFS_STR("1"));
    work_write(f, f->work, "old/README", MEMFS_STR("2"));
    add_link(f, "old/link");
    work_commit(f, f->work, "old/-dash\\name", "odd");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_ok(f, push_head(f, f->work, AGENT, &soft)); /* an import */

    work_commit(f, f->work, "old/beside.md", "new"); /* a new name beside old twins and a link */
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    work_commit(f, f->work, "elsewhere.md", "new");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));

    before b = look(f);
    add_link(f, "another");
    work_commit(f, f->work, "x.md", "x");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL)); /* not a second one */
    assert_says(f, "'another': symbolic links");
    git(f, f->work, "reset", "-q", "--hard", "HEAD~1");
    git(f, f->work, "mv", "old", "moved");
    git(f, f->work, "commit", "-q", "-m", "move");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL)); /* nor at another path */
    git(f, f->work, "reset", "-q", "--hard", "HEAD~1");
    work_commit(f, f->work, "old/ReadMe", "3");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL)); /* nor a third twin */
    assert_untouched(f, &b);
    /* it can be removed at last */
    git(f, f->work, "reset", "-q", "--hard", "HEAD~1");
    git(f, f->work, "rm", "-rq", "old");
    git(f, f->work, "commit", "-q", "-m", "clean");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_whole(f, AGENT);
}

/* The link is gone again in the tip, but every commit can be checked out. */
static void test_T11_every_commit_is_judged_and_not_only_the_tip(void **state)
{
    fixture *f = *state;

    work_clone(f, NULL, f->work);
    add_link(f, "link");
    work_commit(f, f->work, "a", "1");
    git(f, f->work, "rm", "-q", "link");
    git(f, f->work, "commit", "-q", "-m", "gone");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_says(f, "'link': symbolic links");
    /* the same on a side branch that was merged */
    git(f, f->work, "reset", "-q", "--hard", "origin/main");
    work_commit(f, f->work, "a", "1");
    git(f, f->work, "checkout", "-q", "-b", "side");
    add_link(f, "link");
    work_commit(f, f->work, "b", "1");
    git(f, f->work, "rm", "-q", "link");
    git(f, f->work, "commit", "-q", "-m", "gone");
    git(f, f->work, "checkout", "-q", "main");
    work_commit(f, f->work, "c", "1");
    git(f, f->work, "merge", "-q", "-m", "merge", "side");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, NULL));
    assert_says(f, "'link': symbolic links");
}

/* A file whose content is a folder or a commit, and a folder that is a file. */
static void test_T11_entries_of_the_wrong_kind_are_refused_and_no_damage(void **state)
{
    static const char *const modes[] = { "100644", "40000" };
    fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        _cleanup_(pack_dispose) pack p = PACK_INIT;
        _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(1024);
        before b = look(f);
        memfs_oid id = i == 0 ? pack_add(&p, OBJ_TREE, MEMFS_STR(""))
                              : pack_add(&p, OBJ_BLOB, MEMFS_STR("100644 a"));
        memfs_oid commit;

        tree_add(&tree, modes[i], MEMFS_STR("name"), &id);
        id = pack_add(&p, OBJ_TREE, buf_str(&tree));
        commit = pack_commit(&p, &id, &STORE_GENESIS);
        assert_code(f, MEMFS_EINVALID, push_pack(f, &p, &commit, NULL));
        assert_untouched(f, &b);
    }
}

static void test_T28_banned_objects_are_refused_wherever_they_are(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(pack_dispose) pack loose = PACK_INIT;
    push_spec spec = { .name = AGENT, .base = STORE_GENESIS, .policy = POLICY_INIT, .n_banned = 2 };
    memfs_oid banned[2] = { { { 0 } } }, tree;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/secret.md", "the secret\n");
    work_commit(f, f->work, "system/secret.md", "nothing\n");
    spec.tip = git_id(f, f->work, "HEAD");
    banned[1] = git_id(f, f->work, "HEAD~1:system/secret.md");
    spec.banned = banned;
    work_pack(f, f->work, &spec.base, &spec.tip, &bytes);
    spec.pack = buf_str(&bytes);
    assert_code(f, MEMFS_EDENIED, push_try(f, &spec));
    assert_says(f, "was purged");
    /* reached by no commit, but protocol v2 would serve it by its id */
    tree = pack_add(&loose, OBJ_TREE, MEMFS_STR(""));
    banned[1] = pack_add(&loose, OBJ_BLOB, MEMFS_STR("hidden"));
    spec.tip = pack_commit(&loose, &tree, &STORE_GENESIS);
    spec.pack = pack_end(&loose);
    assert_code(f, MEMFS_EDENIED, push_try(f, &spec));
    spec.n_banned = 1;
    assert_ok(f, push_try(f, &spec));
}

/* bombs */

/* base of 64 KiB -> 64 MiB -> 2 GiB by copying it again and again. */
static void add_copies(memfs_buf *delta, size_t base_size, size_t n_copies, size_t copy_size)
{
    size_t sizes[] = { base_size, n_copies * copy_size };

    for (size_t i = 0; i < 2; i++) {
        size_t left = sizes[i];

        for (; left > 127; left >>= 7)
            buf_putc(delta, (char)(left | 128));
        buf_putc(delta, (char)left);
    }
    for (size_t i = 0; i < n_copies; i++) { /* offset 0, size in three bytes */
        buf_putc(delta, (char)(0x80 | 0x70));
        buf_putc(delta, (char)copy_size);
        buf_putc(delta, (char)(copy_size >> 8));
        buf_putc(delta, (char)(copy_size >> 16));
    }
}

static void test_T13_a_delta_bomb_is_stopped_by_its_memory_limit(void **state)
{
    static char zeros[65535];
    fixture *f = *state;
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf first = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(buf_dispose) memfs_buf second = MEMFS_BUF_INIT(1 << 20);
    memfs_oid tree = pack_add(&p, OBJ_TREE, MEMFS_STR(""));
    memfs_oid commit = pack_commit(&p, &tree, &STORE_GENESIS);
    struct rusage usage;
    size_t base = p.bytes.len;
    before b = look(f);

    pack_add(&p, OBJ_BLOB, str_make(zeros, sizeof(zeros)));
    add_copies(&first, sizeof(zeros), 1000, sizeof(zeros));
    base = pack_add_delta(&p, base, buf_str(&first));
    add_copies(&second, 1000 * sizeof(zeros), 150, 15000000);
    pack_add_delta(&p, base, buf_str(&second));
    assert_true(p.bytes.len < 4096);
    assert_code(f, MEMFS_EINVALID, push_pack(f, &p, &commit, NULL));
    assert_says(f, "memory");
    assert_untouched(f, &b);
    getrusage(RUSAGE_CHILDREN, &usage);
    assert_true(usage.ru_maxrss < 1300 * 1024);
}

static void test_T14_a_file_that_inflates_is_judged_by_its_header(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(1024);
    char *zeros = mem_alloc(64u << 20);
    struct rusage before_push, after;
    memfs_oid id, commit;
    before b = look(f);

    id = pack_add(&p, OBJ_BLOB, str_make(zeros, 64u << 20));
    free(zeros);
    tree_add(&tree, "100644", MEMFS_STR("zeros.md"), &id);
    id = pack_add(&p, OBJ_TREE, buf_str(&tree));
    commit = pack_commit(&p, &id, &STORE_GENESIS);
    assert_true(p.bytes.len < 100000);
    getrusage(RUSAGE_SELF, &before_push);
    assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
    getrusage(RUSAGE_SELF, &after);
    assert_says(f, "'zeros.md': a file may have 10485760 bytes and this one has 67108864");
    assert_true(after.ru_maxrss - before_push.ru_maxrss < 16 * 1024);
    assert_untouched(f, &b);
}

static void test_T14_a_commit_or_folder_that_inflates_is_not_loaded(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(8u << 20);
    memfs_oid tree = pack_add(&p, OBJ_TREE, MEMFS_STR("")), commit;
    before b = look(f);

    buf_puts(&text, "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
                    "parent 56776245ff7b896622904bfc4d1c355a35e6cd81\n"
                    "author a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\n");
    for (int i = 0; i < 2 << 20; i++)
        buf_putc(&text, 'x');
    commit = pack_add(&p, OBJ_COMMIT, buf_str(&text));
    (void)tree;
    assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
    assert_says(f, "too large");
    assert_untouched(f, &b);
}

static memfs_oid pack_tree_bomb(pack *p, int levels, int width)
{
    memfs_oid id = pack_add(p, OBJ_BLOB, MEMFS_STR("x"));

    for (int level = 0; level < levels; level++) {
        _cleanup_(buf_dispose) memfs_buf tree = MEMFS_BUF_INIT(1 << 20);

        for (int i = 0; i < width; i++) {
            char name[8];

            snprintf(name, sizeof(name), "n%03d", i);
            tree_add(&tree, level == 0 ? "100644" : "40000", str_of(name), &id);
        }
        id = pack_add(p, OBJ_TREE, buf_str(&tree));
    }
    return id;
}

static void test_T15_a_tree_bomb_is_counted_with_repeats_at_once(void **state)
{
    static const int levels[] = { 10, 60 }; /* 10^10 and 10^60 paths */
    fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
        _cleanup_(pack_dispose) pack p = PACK_INIT;
        memfs_oid tree = pack_tree_bomb(&p, levels[i], 10), commit;
        int64_t start;
        before b = look(f);

        commit = pack_commit(&p, &tree, &STORE_GENESIS);
        start = clock_mono_ms();
        assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
        assert_true(clock_mono_ms() - start < 30000); /* 10^10 paths would take days */
        assert_says(f, "100000 files");
        assert_untouched(f, &b);
    }
}

/* The bomb is built up by pushes that are small each: totals come from differences. */
static void test_T15_growing_to_a_bomb_step_by_step_is_noticed(void **state)
{
    fixture *f = *state;
    policy p = POLICY_INIT;
    int accepted = 0;

    p.max_entries = 500;
    for (int i = 0; i < 10; i++) {
        _cleanup_(pack_dispose) pack made = PACK_INIT;
        _cleanup_(buf_dispose) memfs_buf root = MEMFS_BUF_INIT(4096);
        memfs_oid folder = pack_tree_bomb(&made, 2, 10), id, commit, parent = tip_of(f, AGENT);

        for (int k = 0; k <= i; k++) {
            char name[8];

            snprintf(name, sizeof(name), "f%d", k);
            tree_add(&root, "40000", str_of(name), &folder);
        }
        id = pack_add(&made, OBJ_TREE, buf_str(&root));
        commit = pack_commit(&made, &id, &parent);
        if (push_pack(f, &made, &commit, &p) < 0)
            break;
        accepted++;
        if (i == 1)
            fixture_reopen(f); /* what was remembered is gone, the answer is not */
    }
    assert_int_equal(accepted, 4); /* 111 entries a folder */
    assert_says(f, "500 files");
}

static void test_T14_bytes_are_added_up_with_repeats(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack made = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf root = MEMFS_BUF_INIT(4096);
    policy p = POLICY_INIT;
    memfs_oid id, commit;

    p.max_tree_bytes = 1000;
    id = pack_add(&made, OBJ_BLOB, MEMFS_STR("0123456789012345678901234567890123456789"));
    for (int i = 0; i < 26; i++) {
        char name[4] = { (char)('a' + i), 0 };

        tree_add(&root, "100644", str_of(name), &id);
    }
    id = pack_add(&made, OBJ_TREE, buf_str(&root));
    commit = pack_commit(&made, &id, &STORE_GENESIS);
    assert_code(f, MEMFS_EDENIED, push_pack(f, &made, &commit, &p)); /* 26 * 40 */
    assert_says(f, "1000 bytes");
}

static void test_T14_a_memory_over_a_limit_may_still_shrink(void **state)
{
    fixture *f = *state;
    policy p = POLICY_INIT;
    char name[32];

    work_clone(f, NULL, f->work);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "%d.md", i);
        work_write(f, f->work, name, MEMFS_STR("x"));
    }
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    p.max_entries = 10;
    git(f, f->work, "rm", "-q", "1.md");
    git(f, f->work, "commit", "-q", "-m", "smaller");
    assert_ok(f, push_head(f, f->work, AGENT, &p));
    work_commit(f, f->work, "b", "2");
    assert_code(f, MEMFS_EDENIED, push_head(f, f->work, AGENT, &p));
}

static void test_T16_a_depth_bomb_is_refused_without_recursion(void **state)
{
    static const int depths[] = { 66, 20000 };
    fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
        _cleanup_(pack_dispose) pack p = PACK_INIT;
        memfs_oid id = pack_tree_bomb(&p, depths[i], 1), commit;
        before b = look(f);

        commit = pack_commit(&p, &id, &STORE_GENESIS);
        assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
        assert_says(f, "deeper than 64");
        assert_untouched(f, &b);
    }
    _cleanup_(pack_dispose) pack fits = PACK_INIT;
    memfs_oid tree = pack_tree_bomb(&fits, 65, 1), commit; /* 64 folders and a file */

    commit = pack_commit(&fits, &tree, &STORE_GENESIS);
    assert_ok(f, push_pack(f, &fits, &commit, NULL));
}

/* A folder that is fine at the root, met again where it is too deep or its paths are too long. */
static void test_T16_a_folder_seen_before_is_judged_again_where_it_lies(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf root = MEMFS_BUF_INIT(4096), wrap = MEMFS_BUF_INIT(4096);
    memfs_oid deep = pack_tree_bomb(&p, 60, 1), id = deep, commit;

    for (int i = 0; i < 10; i++) {
        buf_clear(&wrap);
        tree_add(&wrap, "40000", MEMFS_STR("w"), &id);
        id = pack_add(&p, OBJ_TREE, buf_str(&wrap));
    }
    tree_add(&root, "40000", MEMFS_STR("a"), &deep);
    tree_add(&root, "40000", MEMFS_STR("b"), &id);
    id = pack_add(&p, OBJ_TREE, buf_str(&root));
    commit = pack_commit(&p, &id, &STORE_GENESIS);
    assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
    assert_says(f, "deeper than 64");
}

static void test_T11_long_paths_are_refused_also_through_a_folder_seen_before(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(buf_dispose) memfs_buf root = MEMFS_BUF_INIT(4096), one = MEMFS_BUF_INIT(4096);
    static char name[250];
    memfs_oid id = pack_add(&p, OBJ_BLOB, MEMFS_STR("x")), commit, folders[4];

    memset(name, 'n', sizeof(name));
    for (int i = 0; i < 4; i++) {
        buf_clear(&one);
        tree_add(&one, i == 0 ? "100644" : "40000", str_make(name, 250), &id);
        folders[i] = id = pack_add(&p, OBJ_TREE, buf_str(&one));
    }
    tree_add(&root, "40000", MEMFS_STR("a"), &folders[3]); /* 1 + 4 * 251 = 1005 bytes */
    tree_add(&root, "40000", MEMFS_STR("bbbbbbbbbbbbbbbbbbbbbbbbbbb"), &folders[3]);
    id = pack_add(&p, OBJ_TREE, buf_str(&root));
    commit = pack_commit(&p, &id, &STORE_GENESIS);
    assert_code(f, MEMFS_EDENIED, push_pack(f, &p, &commit, NULL));
    assert_says(f, "longer than 1024");
}

static void test_T14_a_pack_past_the_limit_is_cut_off(void **state)
{
    fixture *f = *state;
    _cleanup_(incoming_abortp) incoming *in = NULL;
    incoming_options options = INCOMING_OPTIONS_INIT;
    static char noise[60000];

    options.max_pack_bytes = 100000;
    memset(noise, 7, sizeof(noise));
    memcpy(noise, "PACK\0\0\0\2\0\0\0\1\x3f", 13);
    assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
    if (incoming_feed(in, noise, sizeof(noise), &f->err) == MEMFS_OK)
        assert_code(f, MEMFS_ELIMIT, incoming_feed(in, noise, sizeof(noise), &f->err));
    assert_true(incoming_finish(in, &f->err) < 0); /* the failure sticks */
}

/* damage */

static void test_F11_a_flipped_or_cut_pack_changes_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1 << 20);
    push_spec spec = { .name = AGENT, .policy = POLICY_INIT };
    before b;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", "one\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    b = look(f);
    work_commit(f, f->work, "b.md", "two\n");
    spec.base = b.tip;
    spec.tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &spec.base, &spec.tip, &bytes);
    spec.pack = buf_str(&bytes);
    for (size_t at = 0; at < bytes.len; at += 11) {
        bytes.ptr[at] ^= 0x10;
        assert_code(f, MEMFS_EINVALID, push_try(f, &spec));
        assert_fit_for_side_band(f->err.msg);
        bytes.ptr[at] ^= 0x10;
    }
    for (size_t len = 1; len < bytes.len; len += 13) {
        spec.pack.len = len;
        assert_code(f, MEMFS_EINVALID, push_try(f, &spec));
    }
    assert_untouched(f, &b);
    spec.pack.len = bytes.len;
    assert_ok(f, push_try(f, &spec)); /* it was a good pack */
    assert_whole(f, AGENT);
}

static void test_F11_bytes_after_the_pack_are_no_deadlock(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(4 << 20);
    push_spec spec = { .name = AGENT, .base = STORE_GENESIS, .policy = POLICY_INIT };
    before b = look(f);

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", "one\n");
    spec.tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &spec.base, &spec.tip, &bytes);
    for (int i = 0; i < 1 << 20; i++)
        buf_putc(&bytes, 'x');
    spec.pack = buf_str(&bytes);
    assert_code(f, MEMFS_EINVALID, push_try(f, &spec));
    assert_untouched(f, &b);
}

static void test_F11_a_pack_of_another_repository_is_refused(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(1 << 20);
    push_spec spec = { .name = AGENT, .policy = POLICY_INIT };
    char elsewhere[96];

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", "one\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    before b = look(f);
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", f->root);
    work_clone(f, NULL, elsewhere);
    work_commit(f, elsewhere, "x.md", "other\n");
    memfs_oid parent = git_id(f, elsewhere, "HEAD");
    work_commit(f, elsewhere, "y.md", "other\n");
    spec.base = b.tip;
    spec.tip = git_id(f, elsewhere, "HEAD");
    work_pack(f, elsewhere, &parent, &spec.tip, &bytes); /* its parent's objects are nowhere here */
    spec.pack = buf_str(&bytes);
    assert_code(f, MEMFS_EINVALID, push_try(f, &spec));
    assert_untouched(f, &b);
}

/* The one child that this process has. 0: the kernel does not tell. */
static pid_t only_child(void)
{
    _cleanup_(mem_freep) char *path =
        mem_printf("/proc/%d/task/%d/children", (int)getpid(), (int)getpid());
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1024);
    memfs_error ignored;

    if (fs_read(path, &text, &ignored) < 0)
        return 0;
    return (pid_t)strtol(text.ptr, NULL, 10);
}

static void test_F02_git_killed_in_the_middle_is_a_failed_push(void **state)
{
    fixture *f = *state;
    _cleanup_(incoming_abortp) incoming *in = NULL;
    incoming_options options = INCOMING_OPTIONS_INIT;
    memfs_code rc = MEMFS_OK;
    pid_t child;

    assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
    assert_ok(f, incoming_feed(in, "PACK", 4, &f->err));
    child = only_child();
    if (child <= 0)
        skip();
    assert_int_equal(kill(child, SIGKILL), 0);
    for (int i = 0; rc == MEMFS_OK && i < 100; i++) {
        rc = incoming_feed(in, "\0\0\0\2", 4, &f->err);
        clock_sleep_ms(10);
    }
    assert_int_equal(rc, MEMFS_EINVALID);
    assert_int_equal(incoming_finish(in, &f->err), MEMFS_EINVALID);
}

static void test_F03_a_push_that_stalls_ends_at_its_deadline(void **state)
{
    fixture *f = *state;
    _cleanup_(incoming_abortp) incoming *in = NULL;
    incoming_options options = INCOMING_OPTIONS_INIT;
    int64_t start = clock_mono_ms();

    options.timeout_ms = 300;
    assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
    assert_ok(f, incoming_feed(in, "PACK", 4, &f->err));
    clock_sleep_ms(400);
    assert_code(f, MEMFS_EUNAVAIL, incoming_finish(in, &f->err));
    assert_true(clock_mono_ms() - start < 60000);
}

/* F06: a limit on file size, set for this process and so for its children, stands for a full disk.
 *  */
static void test_F06_a_full_disk_is_told_and_changes_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(8 << 20);
    push_spec spec = { .name = AGENT, .base = STORE_GENESIS, .policy = POLICY_INIT };
    struct rlimit saved, tiny;
    char *text = mem_alloc((1 << 20) + 1);
    memfs_code rc;
    before b = look(f);

    for (int i = 0; i < 1 << 20; i++)
        text[i] = (char)('!' + rand() % 90); /* does not compress well */
    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", text);
    free(text);
    spec.tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &spec.base, &spec.tip, &bytes);
    spec.pack = buf_str(&bytes);
    getrlimit(RLIMIT_FSIZE, &saved);
    tiny = saved;
    tiny.rlim_cur = tiny.rlim_max = 200000;
    signal(SIGXFSZ, SIG_IGN);
    pid_t child = fork(); /* hard limits do not come back */
    if (child == 0) {
        setrlimit(RLIMIT_FSIZE, &tiny);
        rc = push_try(f, &spec);
        _exit(rc < 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_untouched(f, &b);
    assert_ok(f, push_try(f, &spec)); /* recovers when there is room */
    assert_whole(f, AGENT);
}

/* talk */

static void hear(memfs_str text, void *ctx)
{
    memfs_buf *heard = ctx;

    assert_fit_for_side_band(text.ptr);
    buf_add_str(heard, text);
    buf_putc(heard, '|');
}

static void test_progress_is_passed_on_only_when_it_is_wanted(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(8 << 20);
    memfs_oid tip;
    char text[20000];

    work_clone(f, NULL, f->work);
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < 4; i++) { /* deltas, so that there is something to resolve */
        for (size_t k = 0; k < sizeof(text) - 1; k += 7)
            text[k] = (char)('a' + (k * 31 + k / 97) % 26);
        text[i * 1000] = '!';
        work_commit(f, f->work, "a.md", text);
    }
    tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &STORE_GENESIS, &tip, &bytes);
    for (int wanted = 0; wanted < 2; wanted++) {
        _cleanup_(incoming_abortp) incoming *in = NULL;
        _cleanup_(buf_dispose) memfs_buf heard = MEMFS_BUF_INIT(1 << 20);
        incoming_options options = INCOMING_OPTIONS_INIT;

        options.wants_progress = wanted;
        options.talk = hear;
        options.talk_ctx = &heard;
        assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
        assert_ok(f, incoming_feed(in, bytes.ptr, bytes.len, &f->err));
        assert_ok(f, incoming_finish(in, &f->err));
        if (wanted)
            assert_non_null(strstr(heard.ptr, "Resolving deltas: 100%"));
        else
            assert_int_equal(heard.len, 0);
    }
}

static void test_T20_what_git_says_of_a_hostile_pack_is_escaped(void **state)
{
    fixture *f = *state;
    _cleanup_(pack_dispose) pack p = PACK_INIT;
    _cleanup_(incoming_abortp) incoming *in = NULL;
    _cleanup_(buf_dispose) memfs_buf heard = MEMFS_BUF_INIT(1 << 20), tree = MEMFS_BUF_INIT(1024);
    incoming_options options = INCOMING_OPTIONS_INIT;
    memfs_oid blob = pack_add(&p, OBJ_BLOB, MEMFS_STR("x"));
    memfs_str bytes;

    tree_add(&tree, "40000", MEMFS_STR(".git"), &blob);
    pack_add(&p, OBJ_TREE, buf_str(&tree));
    bytes = pack_end(&p);
    options.talk = hear;
    options.talk_ctx = &heard;
    assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
    if (incoming_feed(in, bytes.ptr, bytes.len, &f->err) == MEMFS_OK)
        assert_code(f, MEMFS_EINVALID, incoming_finish(in, &f->err));
    assert_says(f, "hasDotgit");
    assert_non_null(strstr(heard.ptr, "hasDotgit"));
    assert_null(strstr(heard.ptr, f->home));
}

/* cost */

static void test_a_change_in_2000_files_costs_what_it_changes(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(8 << 20);
    incoming_options options = INCOMING_OPTIONS_INIT;
    policy p = POLICY_INIT;
    int64_t best_us = INT64_MAX;
    memfs_oid base, tip;
    char name[64];

    work_clone(f, NULL, f->work);
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "folder-%d/file-%04d.md", i % 40, i);
        work_write(f, f->work, name, str_of(name));
    }
    work_commit(f, f->work, "a", "1");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    base = tip_of(f, AGENT);
    work_commit(f, f->work, "folder-3/file-0003.md", "changed\n");
    tip = git_id(f, f->work, "HEAD");
    work_pack(f, f->work, &base, &tip, &bytes);
    for (int i = 0; i < 20; i++) {
        _cleanup_(incoming_abortp) incoming *in = NULL;
        incoming_vetting v = { &base, &tip, &p, NULL, 0 };
        int64_t start;

        assert_ok(f, incoming_begin(f->s, AGENT, &options, &in, &f->err));
        assert_ok(f, incoming_feed(in, bytes.ptr, bytes.len, &f->err));
        assert_ok(f, incoming_finish(in, &f->err));
        start = clock_mono_us();
        assert_ok(f, incoming_vet(in, &v, &f->err));
        if (clock_mono_us() - start < best_us)
            best_us = clock_mono_us() - start;
    }
    print_message("vet of one file in 2,000: %lld us\n", (long long)best_us);
    assert_true(best_us < 5000); /* sanitizers on; see the figures in docs/benchmarks.md */
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_first_push_makes_the_repository),
        TEST(test_many_pushes_follow_each_other),
        TEST(test_a_push_without_objects_moves_to_what_is_there),
        TEST(test_D4_the_same_push_again_is_harmless),
        TEST(test_the_quarantine_is_readable_before_and_after_it_is_taken_in),
        TEST(test_an_abort_at_any_point_leaves_nothing),
        TEST(test_incoming_folders_are_used_again_and_clean),
        TEST(test_H1_only_descendants_are_taken),
        TEST(test_T10_replace_refs_do_not_make_a_descendant),
        TEST(test_H5_a_merge_of_an_unrelated_history_is_a_descendant),
        TEST(test_H7_a_push_reads_no_old_history_whatever_the_dates),
        TEST(test_H7_a_line_of_too_many_commits_is_refused),
        TEST(test_the_tip_must_be_a_commit_that_was_sent),
        TEST(test_T11_a_year_beyond_all_calendars_is_refused),
        TEST(test_T11_every_hostile_entry_is_refused_with_path_and_rule),
        TEST(test_T11_names_of_5000_bytes_are_refused),
        TEST(test_T11_case_twins_are_refused_in_any_folder),
        TEST(test_T11_what_was_there_already_stops_no_later_push),
        TEST(test_T11_every_commit_is_judged_and_not_only_the_tip),
        TEST(test_T11_entries_of_the_wrong_kind_are_refused_and_no_damage),
        TEST(test_T28_banned_objects_are_refused_wherever_they_are),
        TEST(test_T13_a_delta_bomb_is_stopped_by_its_memory_limit),
        TEST(test_T14_a_file_that_inflates_is_judged_by_its_header),
        TEST(test_T14_a_commit_or_folder_that_inflates_is_not_loaded),
        TEST(test_T15_a_tree_bomb_is_counted_with_repeats_at_once),
        TEST(test_T15_growing_to_a_bomb_step_by_step_is_noticed),
        TEST(test_T14_bytes_are_added_up_with_repeats),
        TEST(test_T14_a_memory_over_a_limit_may_still_shrink),
        TEST(test_T16_a_depth_bomb_is_refused_without_recursion),
        TEST(test_T16_a_folder_seen_before_is_judged_again_where_it_lies),
        TEST(test_T11_long_paths_are_refused_also_through_a_folder_seen_before),
        TEST(test_T14_a_pack_past_the_limit_is_cut_off),
        TEST(test_F11_a_flipped_or_cut_pack_changes_nothing),
        TEST(test_F11_bytes_after_the_pack_are_no_deadlock),
        TEST(test_F11_a_pack_of_another_repository_is_refused),
        TEST(test_F02_git_killed_in_the_middle_is_a_failed_push),
        TEST(test_F03_a_push_that_stalls_ends_at_its_deadline),
        TEST(test_F06_a_full_disk_is_told_and_changes_nothing),
        TEST(test_progress_is_passed_on_only_when_it_is_wanted),
        TEST(test_T20_what_git_says_of_a_hostile_pack_is_escaped),
        TEST(test_a_change_in_2000_files_costs_what_it_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
