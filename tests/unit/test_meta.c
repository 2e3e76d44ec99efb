/*
 * refs/memfs/meta of a remote that is hostile or broken (T23): what it may write here, and who
 * hears of it.  One home and one bare repository; each exchange is run by hand.
 */
#include "sync_fixture.h"

#include "mirror/mirror_int.h"
#include "store/sidecar.h"

#define DEADLINE (clock_mono_ms() + 60000)
#define OLD "2020-01-01T00:00:00Z"
#define OLD_US (INT64_C(1577836800) * 1000000)

typedef struct bed {
    fixture *f;
    mirror *m;
    char *remote; /* the bare repository of AGENT_A */
    char *far;    /* somebody else's clone of it */
    memfs_buf events;
} bed;

static void on_event(const char *event, const char *id, const char *remote, const char *text,
                     void *ctx)
{
    bed *b = ctx;

    (void)id;
    (void)remote;
    buf_printf(&b->events, "%s %s\n", event, text); /* by hand: on this thread */
}

static int bed_begin(void **state)
{
    bed *b = mem_alloc(sizeof(*b));
    _cleanup_(mem_freep) char *folder = NULL, *config = NULL, *text = NULL;
    remotes_options ro;
    mirror_options o = { .is_manual = true, .event = on_event, .event_ctx = b };

    fixture_begin((void **)&b->f);
    b->events = (memfs_buf)MEMFS_BUF_INIT(1u << 20);
    folder = mem_printf("%s/remote", b->f->root);
    OK(fs_mkdirs(folder, &err));
    b->remote = mem_printf("%s/" AGENT_A ".git", folder);
    b->far = mem_printf("%s/far", b->f->root);
    git(b->f->root, "init", "-q", "--bare", "-b", "main", b->remote);
    config = mem_printf("%s/config", b->f->path);
    text = mem_printf("[mirror \"origin\"]\n\turl = %s/{agentId}.git\n", folder);
    OK(fs_write_atomic(config, str_of(text), 0600, &err));
    ro = (remotes_options){ .home = b->f->path };
    OK(remotes_load(&ro, &o.remotes, &err));
    o.home = b->f->h;
    OK(mirror_start(&o, &b->m, &err));
    *state = b;
    return 0;
}

static int bed_end(void **state)
{
    bed *b = *state;

    mirror_stop(b->m, 0);
    fixture_end((void **)&b->f);
    buf_dispose(&b->events);
    free(b->remote);
    free(b->far);
    free(b);
    return 0;
}

#define BED_TEST(name) cmocka_unit_test_setup_teardown(name, bed_begin, bed_end)

/* ---- doing ---- */

/* A client's commit here; text NULL: the file goes. */
static void edit(bed *b, const char *path, const char *text)
{
    _cleanup_(mem_freep) char *repo = mem_printf("%s/" REPO_A, b->f->path);

    if (fs_exists(repo)) {
        git(b->f->work, "fetch", "-q", repo, "main");
        git(b->f->work, "reset", "-q", "--hard", "FETCH_HEAD");
    }
    if (text != NULL)
        put_file(b->f->work, path, str_of(text));
    else
        drop_file(b->f->work, path);
    push_work(b->f, ID_A);
}

static exchange_result exchange_now(bed *b, unsigned wants)
{
    exchange_result r;

    OK(mirror_exchange(b->m, ID_A, "origin", wants, DEADLINE, &r, &err));
    return r;
}

static void must_sync(bed *b)
{
    exchange_result r = exchange_now(b, WANT_NOW);

    if (r.code != MEMFS_OK)
        fail_msg("%s", r.failure);
}

/* Somebody else's commit on the remote's main. */
static void far_commit(bed *b, const char *path, const char *text)
{
    if (!fs_exists(b->far))
        git(b->f->root, "clone", "-q", b->remote, b->far);
    git(b->far, "fetch", "-q", "origin");
    git(b->far, "checkout", "-q", "-B", "main", "origin/main");
    put_file(b->far, path, str_of(text));
    commit_all(b->far, "far");
    git(b->far, "push", "-q", "origin", "HEAD:refs/heads/main");
}

/* The remote's sidecar gets another agent.json, on top of what it has. */
static void far_meta(bed *b, const char *text)
{
    if (!fs_exists(b->far))
        git(b->f->root, "clone", "-q", b->remote, b->far);
    git(b->far, "fetch", "-q", "origin", STORE_META);
    git(b->far, "checkout", "-q", "--detach", "FETCH_HEAD");
    put_file(b->far, "agent.json", str_of(text));
    commit_all(b->far, "meta");
    git(b->far, "push", "-q", "origin", "HEAD:" STORE_META);
}

/* A ref of the remote's that names a file; git's own commands would not set a branch so. */
static void point_at_blob(bed *b, const char *ref)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", b->remote, ref);
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    char text[MEMFS_OID_HEX + 2];
    memfs_oid blob;

    git(b->f->work, "push", "-q", b->remote, "HEAD:refs/heads/side");
    blob = git_id(b->remote, "refs/heads/side:system/human.md");
    oid_hex(&blob, text);
    strcat(text, "\n");
    OK(fs_mkdirs(folder, &err));
    OK(fs_write_atomic(path, str_of(text), 0600, &err));
}

#define META_START "{\"agent_id\":\"" AGENT_A "\",\"version\":1,\"created_at\":\"" OLD "\""

/* ---- looking ---- */

static memfs_code count_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)birth;
    (void)err;
    ++*(size_t *)ctx;
    return MEMFS_OK;
}

static size_t n_births(bed *b)
{
    size_t n = 0;

    OK(state_births(home_state(b->f->h), ID_A, MEMFS_STR(""), count_birth, &n, &err));
    return n;
}

static memfs_code take_date(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = birth->created_at_us;
    return MEMFS_OK;
}

/* 0: never seen */
static int64_t birth_of(bed *b, const char *label)
{
    int64_t at_us = 0;

    OK(state_births(home_state(b->f->h), ID_A, str_of(label), take_date, &at_us, &err));
    return at_us;
}

static bool is_in_meta(const char *git_dir, const char *text)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    const char *const args[] = { "cat-file", "blob", STORE_META ":agent.json", NULL };

    OK(git_in(git_dir, MEMFS_STR(""), &out, args));
    return strstr(out.ptr, text) != NULL;
}

/* ---- births ---- */

static void test_T23_births_of_other_labels_each_time_are_no_rows(void **state)
{
    bed *b = *state;
    size_t n;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    n = n_births(b);
    for (int i = 0; i < 3; i++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
        _cleanup_(mem_freep) char *path = mem_printf("notes/%d.md", i);

        buf_puts(&text, META_START ",\"births\":{\"system/human\":\"" OLD "\"");
        for (int k = 0; k < 100; k++)
            buf_printf(&text, ",\"junk/%d-%d\":\"" OLD "\"", i, k);
        buf_printf(&text, ",\"notes/%d\":\"" OLD "\"}}", i);
        far_meta(b, text.ptr);
        far_commit(b, path, "x\n");
        must_sync(b);
        assert_int_equal(n_births(b), n + (size_t)i + 1); /* the block that came with it */
    }
    assert_true(birth_of(b, "system/human") == OLD_US);
    assert_true(birth_of(b, "notes/2") == OLD_US);
    edit(b, "system/human.md", "two\n");
    must_sync(b);
    assert_false(is_in_meta(b->remote, "junk"));
    assert_true(is_in_meta(b->remote, "notes/2"));
}

/* Of a tree that is refused: what it may bring is bounded, and does not come again. */
static void test_T23_births_of_a_refused_tree_are_few(void **state)
{
    bed *b = *state;
    size_t n;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    n = n_births(b);
    for (int i = 0; i < 3; i++) {
        _cleanup_(mem_freep) char *path = mem_printf("notes/%d.md", i);
        _cleanup_(mem_freep) char *text =
            mem_printf(META_START ",\"births\":{\"notes/%d\":\"" OLD "\"}}", i);

        far_meta(b, text);
        far_commit(b, "bad\\name.md", path);
        far_commit(b, path, "x\n");
        assert_int_equal(exchange_now(b, WANT_NOW).code, MEMFS_EDENIED);
        assert_true(n_births(b) <= n + 1);
    }
}

static void test_K4_a_deleted_block_that_is_restored_keeps_its_date(void **state)
{
    bed *b = *state;
    int64_t born_us;

    edit(b, "system/human.md", "one\n");
    edit(b, "notes/a.md", "one\n");
    must_sync(b);
    assert_true(is_in_meta(b->remote, "notes/a"));
    born_us = birth_of(b, "notes/a");
    edit(b, "notes/a.md", NULL);
    must_sync(b);
    assert_false(is_in_meta(b->remote, "notes/a"));
    assert_true(birth_of(b, "notes/a") == born_us);
    edit(b, "notes/a.md", "again\n");
    must_sync(b);
    assert_true(birth_of(b, "notes/a") == born_us);
    assert_true(is_in_meta(b->remote, "notes/a"));
}

/* ---- a sidecar that is none ---- */

typedef struct row {
    mirror_note note;
    char state[20], text[400], advice[300], failure[400];
} row;

static bool keep_row(const mirror_row *r, void *ctx)
{
    row *to = ctx;

    to->note = r->note;
    snprintf(to->state, sizeof(to->state), "%s", r->state);
    snprintf(to->text, sizeof(to->text), "%s", r->note_text);
    snprintf(to->advice, sizeof(to->advice), "%s", mirror_note_advice(r->note));
    snprintf(to->failure, sizeof(to->failure), "%s", r->failure);
    return true;
}

static row status(bed *b)
{
    row r = { .note = MIRROR_NOTE_NONE };

    OK(mirror_status(b->m, ID_A, false, keep_row, &r, &err));
    return r;
}

static size_t n_events(bed *b, const char *part)
{
    size_t n = 0;

    for (const char *at = b->events.ptr; at != NULL && (at = strstr(at, part)) != NULL; at++)
        n++;
    return n;
}

/* Shown while it stands, told once, main travels, and what takes its place ends it. */
static void assert_spoilt(bed *b, const char *why)
{
    row r;

    for (int i = 0; i < 3; i++) {
        _cleanup_(mem_freep) char *text = mem_printf("%s %d\n", why, i);

        edit(b, "system/human.md", text);
        must_sync(b);
        assert_int_equal(exchange_now(b, WANT_LOOK).code, MEMFS_OK);
    }
    r = status(b);
    if (r.note != MIRROR_NOTE_META || strstr(r.text, why) == NULL || r.advice[0] == '\0')
        fail_msg("note '%s': %s", mirror_note_name(r.note), r.text);
    assert_string_equal(r.state, "mirrored");
    assert_int_equal(n_events(b, "mirror_note meta"), 1);
    assert_int_equal(n_events(b, "mirror_meta_failed"), 0);
}

static void test_L5_a_sidecar_of_others_is_shown_and_told_once(void **state)
{
    bed *b = *state;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    far_meta(b, "{\"name\": 7}");
    far_commit(b, "notes/far.md", "x\n");
    assert_spoilt(b, "agent.json");
    far_meta(b, META_START ",\"name\":\"Ada\"}");
    assert_int_equal(exchange_now(b, WANT_LOOK).code, MEMFS_OK); /* a poll finds out */
    assert_int_equal(status(b).note, MIRROR_NOTE_NONE);
    edit(b, "system/human.md", "last\n");
    must_sync(b);
    assert_true(is_in_meta(b->remote, "Ada"));
    assert_true(is_in_meta(b->remote, "system/human"));
}

static void test_L5_a_sidecar_that_is_deleted_is_pushed_again(void **state)
{
    bed *b = *state;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    far_meta(b, META_START ",\"name\":\"a\\u202eb\"}");
    far_commit(b, "notes/far.md", "x\n");
    assert_spoilt(b, "agent.json");
    git(b->remote, "update-ref", "-d", STORE_META);
    assert_int_equal(exchange_now(b, WANT_LOOK).code, MEMFS_OK);
    assert_int_equal(status(b).note, MIRROR_NOTE_NONE);
    assert_true(is_in_meta(b->remote, "system/human"));
}

/* From the first look on, where nothing was ever known of it: a blob, not even a commit. */
static void test_L5_a_sidecar_that_is_no_commit(void **state)
{
    bed *b = *state;

    edit(b, "system/human.md", "one\n");
    point_at_blob(b, STORE_META);
    assert_spoilt(b, "commit");
}

/* It comes by one question with main, and fsck takes none of both: main comes alone. */
static void test_T23_a_sidecar_that_is_damaged_keeps_no_main_away(void **state)
{
    static const char *const args[] = { "hash-object", "-t", "commit", "-w", "--stdin",
                                        "--literally", NULL };
    bed *b = *state;
    _cleanup_(buf_dispose) memfs_buf id = MEMFS_BUF_INIT(100);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1000);
    _cleanup_(mem_freep) char *path = mem_printf("%s/" STORE_META, b->remote);
    char tree[MEMFS_OID_HEX + 1];
    memfs_oid tree_id;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    tree_id = git_id(b->remote, "main^{tree}");
    oid_hex(&tree_id, tree);
    buf_printf(&text, "tree %s\nauthor nobody\ncommitter nobody\n\nx\n", tree);
    OK(git_in(b->remote, buf_str(&text), &id, args));
    OK(fs_write_atomic(path, buf_str(&id), 0600, &err));
    far_commit(b, "notes/far.md", "x\n");
    must_sync(b);
    assert_true(birth_of(b, "notes/far") > 0);
    assert_int_equal(status(b).note, MIRROR_NOTE_META);
    assert_null(strstr(status(b).text, "has no")); /* it did not come at all */
    assert_string_equal(status(b).state, "mirrored");
}

/* The policy refuses it: a file that no memory may have. */
static void test_T23_a_sidecar_that_the_policy_refuses(void **state)
{
    bed *b = *state;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    if (!fs_exists(b->far))
        git(b->f->root, "clone", "-q", b->remote, b->far);
    git(b->far, "fetch", "-q", "origin", STORE_META);
    git(b->far, "checkout", "-q", "--detach", "FETCH_HEAD");
    put_file(b->far, "bad\\name", MEMFS_STR("x\n"));
    commit_all(b->far, "meta");
    git(b->far, "push", "-q", "origin", "HEAD:" STORE_META);
    far_commit(b, "notes/far.md", "x\n");
    assert_spoilt(b, "name");
}

/* ---- refs of the remote that are not what their names say ---- */

static void set_ref(bed *b, const char *ref, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", b->remote, ref);
    _cleanup_(mem_freep) char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

    OK(fs_mkdirs(folder, &err));
    OK(fs_write_atomic(path, str_of(text), 0600, &err));
}

static void assert_no_commit(bed *b, const char *what)
{
    row r;

    assert_int_equal(exchange_now(b, WANT_LOOK).code, MEMFS_EDENIED);
    r = status(b);
    if (r.note != MIRROR_NOTE_REFUSED || strstr(r.failure, "no commit") == NULL ||
        strstr(r.failure, what) == NULL)
        fail_msg("%s, note '%s': %s", r.state, mirror_note_name(r.note), r.failure);
    assert_string_equal(r.state, "held");
}

static void test_T23_a_main_that_is_no_commit_is_told_as_such(void **state)
{
    bed *b = *state;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    point_at_blob(b, "refs/heads/main");
    assert_no_commit(b, "branch 'main'");
    edit(b, "system/human.md", "two\n"); /* local work goes on */
    assert_no_commit(b, "branch 'main'");
    git(b->remote, "update-ref", "-d", "refs/heads/main");
    must_sync(b);
    assert_string_equal(status(b).state, "mirrored");
    assert_int_equal(status(b).note, MIRROR_NOTE_DELETED);
}

static void test_T23_a_main_that_is_a_tag_is_told_as_such(void **state)
{
    bed *b = *state;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid tag;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    git(b->f->work, "tag", "-a", "-m", "x", "v1");
    git(b->f->work, "push", "-q", b->remote, "v1");
    tag = git_id(b->remote, "refs/tags/v1");
    oid_hex(&tag, hex);
    set_ref(b, "refs/heads/main", hex);
    assert_no_commit(b, "branch 'main'");
}

/* What HEAD says is only asked where there is no main; then main is pushed beside it. */
static void test_T23_an_odd_HEAD_stops_nothing(void **state)
{
    char detached[MEMFS_OID_HEX + 1];
    const char *const heads[] = {
        "ref: refs/heads/nothing\n", "ref: refs/heads/loop\n", "ref: refs/tags/v1\n",
        "ref: refs/memfs/meta\n", "ref: refs/odd/x\n", "ref: refs/tags/blob\n", detached,
    };
    bed *b = *state;
    memfs_oid ours;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    ours = git_id(b->remote, "refs/heads/main");
    oid_hex(&ours, detached);
    point_at_blob(b, "refs/tags/blob");
    git(b->f->work, "tag", "v1");
    git(b->f->work, "push", "-q", b->remote, "v1", "HEAD:refs/odd/x");
    set_ref(b, "refs/heads/loop", "ref: refs/heads/loop\n");
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        set_ref(b, "HEAD", heads[i]);
        git(b->remote, "update-ref", "-d", "refs/heads/main");
        must_sync(b);
        ours = git_id(b->remote, "refs/heads/main");
        assert_string_equal(status(b).state, "mirrored");
        assert_int_equal(n_blocks(b->f, ID_A), 1);
        assert_null(strstr(status(b).text, "''"));
        assert_false(oid_is_zero(&ours));
    }
}

static void test_T23_a_default_branch_that_is_no_commit_is_told_as_such(void **state)
{
    bed *b = *state;

    edit(b, "system/human.md", "one\n");
    must_sync(b);
    point_at_blob(b, "refs/heads/odd");
    set_ref(b, "HEAD", "ref: refs/heads/odd\n");
    git(b->remote, "update-ref", "-d", "refs/heads/main");
    assert_no_commit(b, "branch 'odd'");
    point_at_blob(b, "refs/tags/odd");
    set_ref(b, "HEAD", "ref: refs/tags/odd\n"); /* no branch: as if it were none */
    must_sync(b);
    assert_string_equal(status(b).state, "mirrored");
    assert_int_equal(status(b).note, MIRROR_NOTE_DELETED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BED_TEST(test_T23_births_of_other_labels_each_time_are_no_rows),
        BED_TEST(test_T23_births_of_a_refused_tree_are_few),
        BED_TEST(test_K4_a_deleted_block_that_is_restored_keeps_its_date),
        BED_TEST(test_L5_a_sidecar_of_others_is_shown_and_told_once),
        BED_TEST(test_L5_a_sidecar_that_is_deleted_is_pushed_again),
        BED_TEST(test_L5_a_sidecar_that_is_no_commit),
        BED_TEST(test_T23_a_sidecar_that_is_damaged_keeps_no_main_away),
        BED_TEST(test_T23_a_sidecar_that_the_policy_refuses),
        BED_TEST(test_T23_a_main_that_is_no_commit_is_told_as_such),
        BED_TEST(test_T23_a_main_that_is_a_tag_is_told_as_such),
        BED_TEST(test_T23_an_odd_HEAD_stops_nothing),
        BED_TEST(test_T23_a_default_branch_that_is_no_commit_is_told_as_such),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
