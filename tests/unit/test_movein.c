/*
 * test_movein.c - blocks of a Letta server become a repository, once and again (design 9).
 */
#include "sync_fixture.h"

#include "memory/ids.h"
#include "sync/movein.h"

#include <stdarg.h>

typedef struct told {
    memfs_buf notes; /* "kind what", one a line */
    movein_result result;
} told;
#define TOLD_INIT                                                                                  \
    {                                                                                              \
        .notes = MEMFS_BUF_INIT(1u << 20)                                                          \
    }

static void told_dispose(told *t)
{
    buf_dispose(&t->notes);
}

static void take_note(const char *kind, memfs_str what, const char *text, void *ctx)
{
    told *t = ctx;

    assert_true(text != NULL && text[0] != '\0');
    buf_printf(&t->notes, "%s %.*s\n", kind, (int)what.len, what.ptr);
}

static letta_block block_of(const char *id, const char *label, const char *value)
{
    return (letta_block){ .id = str_of(id),
                          .label = str_of(label),
                          .value = str_of(value),
                          .limit = 100000,
                          .metadata_json = MEMFS_STR("{}"),
                          .tags_json = MEMFS_STR("[]"),
                          .created_at_us = 1700000000000000,
                          .n_agents = 1 };
}

#define BLOCK_1 "block-aaaaaaa1-1111-4111-8111-111111111111"
#define BLOCK_2 "block-bbbbbbb2-2222-4222-8222-222222222222"
#define BLOCK_3 "block-ccccccc3-3333-4333-8333-333333333333"

static memfs_code try_move(fixture *f, memfs_str id, const letta_block *blocks, size_t n,
                           bool is_dry, told *t, memfs_error *err)
{
    letta_agent agent = { .id = id,
                          .name = MEMFS_STR("Ada"),
                          .tags_json = MEMFS_STR("[\"team\"]"),
                          .created_at_us = 1600000000000000,
                          .updated_at_us = 1600000000000000 };
    _cleanup_(movein_freep) movein *m = movein_new(f->h, &agent);

    buf_clear(&t->notes);
    for (size_t i = 0; i < n; i++)
        movein_block(m, &blocks[i]);
    return movein_finish(m, is_dry, take_note, t, &t->result, err);
}

#define MOVE(f, blocks, n, t) OK(try_move(f, ID_A, blocks, n, false, t, &err))

/* The file at main; "<none>" when there is none. */
static const char *file_of(fixture *f, const char *path, memfs_buf *out)
{
    _cleanup_(mem_freep) char *git_dir = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *what = mem_printf("main:%s", path);
    const char *const args[] = { "cat-file", "blob", what, NULL };

    buf_clear(out);
    if (git_in(git_dir, MEMFS_STR(""), out, args) < 0)
        buf_puts(out, "<none>");
    return out->ptr;
}

static size_t n_commits(fixture *f)
{
    _cleanup_(mem_freep) char *git_dir = store_path(home_store(f->h), REPO_A);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64);
    const char *const args[] = { "rev-list", "--count", "main", NULL };

    assert_int_equal(git_in(git_dir, MEMFS_STR(""), &out, args), MEMFS_OK);
    return (size_t)atoi(out.ptr);
}

/* The client's clone at what main is. */
static void pull(fixture *f)
{
    _cleanup_(mem_freep) char *git_dir = store_path(home_store(f->h), REPO_A);

    git(f->work, "fetch", "-q", git_dir, "main");
    git(f->work, "reset", "-q", "--hard", "FETCH_HEAD");
}

/* verify finds nothing: rows are what files and state say. */
static void on_finding(const char *id, const char *kind, const char *what, const char *text,
                       void *ctx)
{
    (void)ctx;
    fail_msg("verify: %s %s %s: %s", id, kind, what, text);
}

static bool on_progress(size_t done, size_t total, const char *id, void *ctx)
{
    (void)done;
    (void)total;
    (void)id;
    (void)ctx;
    return true;
}

static void assert_verified(fixture *f)
{
    upkeep_watcher w = { on_progress, on_finding, NULL };
    upkeep_result r;

    OK(upkeep_verify(f->h, ID_A, &w, &r, &err));
    assert_int_equal(r.n_findings, 0);
}

/* ---- once, and again ---- */

static void test_K4_blocks_become_files_and_keep_their_attributes(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = { block_of(BLOCK_1, "human", "Likes tea.\n"),
                             block_of(BLOCK_2, "skills/tea", "") };

    blocks[0].has_description = true;
    blocks[0].description = MEMFS_STR("about: you");
    blocks[0].limit = 5000;
    blocks[0].read_only = true;
    blocks[0].hidden = true;
    blocks[0].metadata_json = MEMFS_STR("{\"k\":[1,null]}");
    blocks[0].tags_json = MEMFS_STR("[\"x\",\"y\"]");
    MOVE(f, blocks, 2, &t);
    assert_int_equal(t.result.outcome, MOVEIN_MADE);
    assert_int_equal(t.result.n_blocks, 2);
    assert_string_equal(t.notes.ptr, "");
    assert_string_equal(file_of(f, "human.md", &out),
                        "---\ndescription: 'about: you'\nread_only: true\nmetadata:\n  k:\n  - 1\n"
                        "  - null\n---\nLikes tea.\n");
    assert_string_equal(file_of(f, "skills/tea/SKILL.md", &out), "---\ndescription: null\n---\n");
    dump(f, ID_A, &before);
    assert_non_null(strstr(before.ptr,
                           "human.md|human|" BLOCK_1 "|Likes tea.\n|1|about: you|5000|1|"
                           "{\"k\":[1,null]}|[\"x\",\"y\"]|1||"));
    assert_non_null(strstr(before.ptr, "|1700000000000000|"));
    assert_verified(f);
    for (int i = 0; i < 2; i++) { /* idempotent, also in the next process */
        MOVE(f, blocks, 2, &t);
        assert_int_equal(t.result.outcome, MOVEIN_UNCHANGED);
        assert_int_equal(n_commits(f), 2); /* the genesis, and Letta's */
        dump(f, ID_A, &out);
        assert_string_equal(out.ptr, before.ptr);
        reopen_home(f);
    }
}

static memfs_code take_agent(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s %lld", (int)agent->name.len, agent->name.ptr,
               (int)agent->tags_json.len, agent->tags_json.ptr, (long long)agent->created_at_us);
    return MEMFS_OK;
}

static void test_an_agent_without_blocks_is_made_too_with_name_and_tags(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    agent_query q = { .id = ID_A };

    for (int i = 0; i < 2; i++) {
        MOVE(f, NULL, 0, &t);
        assert_int_equal(t.result.outcome, i == 0 ? MOVEIN_MADE : MOVEIN_UNCHANGED);
        assert_int_equal(n_commits(f), 1);
    }
    OK(state_agents(home_state(f->h), &q, take_agent, &out, &err));
    assert_string_equal(out.ptr, "Ada [\"team\"] 1600000000000000");
}

static void test_attributes_that_changed_in_letta_make_no_commit(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "human", "tea");

    MOVE(f, &block, 1, &t);
    block.tags_json = MEMFS_STR("[\"new\"]");
    block.limit = 7;
    MOVE(f, &block, 1, &t);
    assert_int_equal(n_commits(f), 2);
    dump(f, ID_A, &out);
    assert_non_null(strstr(out.ptr, "|7|0|{}|[\"new\"]|0|"));
    assert_verified(f);
}

static void test_a_limit_in_the_file_counts_before_the_one_that_was_brought_along(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "human", "tea");

    block.limit = 5000;
    MOVE(f, &block, 1, &t);
    pull(f);
    put_file(f->work, "human.md", MEMFS_STR("---\ndescription: null\nlimit: 100000\n---\ntea"));
    push_work(f, ID_A);
    dump(f, ID_A, &out);
    assert_non_null(strstr(out.ptr, "|100000|0|"));
    put_file(f->work, "human.md", MEMFS_STR("tea"));
    push_work(f, ID_A);
    dump(f, ID_A, &out);
    assert_non_null(strstr(out.ptr, "|5000|0|"));
    assert_verified(f);
}

/* ---- both sides live on ---- */

static void test_what_letta_changed_follows_and_what_was_changed_here_stays(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = { block_of(BLOCK_1, "a", "one\n"), block_of(BLOCK_2, "b", "one\n"),
                             block_of(BLOCK_3, "gone", "one\n") };

    MOVE(f, blocks, 3, &t);
    blocks[0].value = MEMFS_STR("two\n"); /* nobody touched it here */
    MOVE(f, blocks, 3, &t);
    assert_int_equal(t.result.outcome, MOVEIN_CHANGED);
    assert_int_equal(n_commits(f), 3);
    pull(f);
    put_file(f->work, "b.md", MEMFS_STR("---\ndescription: null\n---\nhere\n"));
    put_file(f->work, "ours.md", MEMFS_STR("ours\n"));
    push_work(f, ID_A);
    MOVE(f, blocks, 3, &t); /* Letta has no news */
    assert_int_equal(t.result.outcome, MOVEIN_UNCHANGED);
    assert_int_equal(n_commits(f), 4);
    blocks[0].value = MEMFS_STR("three\n");
    MOVE(f, blocks, 2, &t); /* one changed, one gone */
    assert_int_equal(t.result.outcome, MOVEIN_MERGED);
    assert_string_equal(value_of(f, ID_A, "a", &out), "three\n");
    assert_string_equal(value_of(f, ID_A, "b", &out), "here\n");
    assert_string_equal(value_of(f, ID_A, "gone", &out), "<none>");
    assert_string_equal(value_of(f, ID_A, "ours", &out), "ours\n");
    assert_verified(f);
}

static void test_H5_a_block_that_both_changed_is_merged_and_keeps_both(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "a", "1\n2\n3\n4\n5\n");

    MOVE(f, &block, 1, &t);
    pull(f);
    put_file(f->work, "a.md", MEMFS_STR("---\ndescription: null\n---\n1 here\n2\n3\n4\n5\n"));
    push_work(f, ID_A);
    block.value = MEMFS_STR("1\n2\n3\n4\n5 there\n");
    MOVE(f, &block, 1, &t);
    assert_int_equal(t.result.outcome, MOVEIN_MERGED);
    assert_string_equal(value_of(f, ID_A, "a", &out), "1 here\n2\n3\n4\n5 there\n");
    block.value = MEMFS_STR("1 there\n2\n3\n4\n5 there\n"); /* the same line as here */
    MOVE(f, &block, 1, &t);
    assert_string_equal(t.notes.ptr, "merged a.md\n");
    value_of(f, ID_A, "a", &out);
    assert_non_null(strstr(out.ptr, "1 here\n"));
    assert_non_null(strstr(out.ptr, "1 there\n"));
    assert_int_equal(n_commits(f), 7);
    MOVE(f, &block, 1, &t);
    assert_int_equal(n_commits(f), 7);
}

static void test_H5_a_memory_that_was_here_first_is_merged_not_replaced(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "a", "theirs\n");

    put_file(f->work, "a.md", MEMFS_STR("ours\n"));
    put_file(f->work, "b.md", MEMFS_STR("only here\n"));
    push_work(f, ID_A);
    MOVE(f, &block, 1, &t);
    assert_int_equal(t.result.outcome, MOVEIN_MERGED);
    value_of(f, ID_A, "a", &out);
    assert_non_null(strstr(out.ptr, "ours\n"));
    assert_non_null(strstr(out.ptr, "theirs\n"));
    assert_string_equal(value_of(f, ID_A, "b", &out), "only here\n");
    assert_verified(f);
}

static void test_a_purged_secret_does_not_come_back(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A, .needle = MEMFS_STR("hunter2-hunter2") };
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = { block_of(BLOCK_1, "a", "hunter2-hunter2\n"),
                             block_of(BLOCK_2, "b", "fine\n") };
    purge_result gone;

    MOVE(f, blocks, 2, &t);
    OK(upkeep_purge(f->h, &q, NULL, &gone, &err));
    FAILS(MEMFS_EDENIED, try_move(f, ID_A, blocks, 2, false, &t, &err));
}

/* ---- names ---- */

static void test_T11_labels_that_make_no_file_name_get_a_safe_one(void **state)
{
    static const char *const labels[] = {
        "../../etc/passwd", "a\\b",           "line\nbreak",  "/rooted", "skills/x/y", "end/",
        ".git/config",      "skills/x/SKILL", "\xe2\x80\xae",
    };
    fixture *f = *state;
    letta_block blocks[ARRAY_LEN(labels)];
    char ids[ARRAY_LEN(labels)][IDS_BLOCK_LEN + 1];
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;

    for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
        snprintf(ids[i], sizeof(ids[i]), "block-%08zu-1111-4111-8111-111111111111", i);
        blocks[i] = block_of(ids[i], labels[i], labels[i]);
    }
    MOVE(f, blocks, ARRAY_LEN(labels), &t);
    assert_int_equal(t.result.n_blocks, ARRAY_LEN(labels));
    assert_int_equal(n_blocks(f, ID_A), ARRAY_LEN(labels));
    assert_string_equal(value_of(f, ID_A, "letta/etc-passwd-00000000", &out), "../../etc/passwd");
    assert_string_equal(value_of(f, ID_A, "letta/line-break-00000002", &out), "line\nbreak");
    for (size_t i = 0; i < ARRAY_LEN(labels); i++)
        assert_non_null(strstr(t.notes.ptr, labels[i]));
    MOVE(f, blocks, ARRAY_LEN(labels), &t);
    assert_int_equal(n_commits(f), 2);
}

static void test_T11_labels_that_cannot_stand_beside_each_other_are_parted(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = {
        block_of(BLOCK_1, "human", "lower"),
        block_of(BLOCK_2, "Human", "upper"),
        block_of("block-d0000001-1111-4111-8111-111111111111", "x", "file"),
        block_of("block-d0000002-1111-4111-8111-111111111111", "x.md/y", "in a folder of its name"),
        block_of("block-d0000003-1111-4111-8111-111111111111", "Dir/one", "1"),
        block_of("block-d0000004-1111-4111-8111-111111111111", "dir/two", "2"),
    };
    letta_block turned[ARRAY_LEN(blocks)];

    MOVE(f, blocks, ARRAY_LEN(blocks), &t);
    assert_string_equal(value_of(f, ID_A, "Human", &out), "upper"); /* the first by bytes */
    assert_string_equal(value_of(f, ID_A, "letta/human-aaaaaaa1", &out), "lower");
    assert_string_equal(value_of(f, ID_A, "x", &out), "file");
    assert_string_equal(value_of(f, ID_A, "letta/x-md-y-d0000002", &out),
                        "in a folder of its name");
    assert_string_equal(value_of(f, ID_A, "Dir/one", &out), "1");
    assert_string_equal(value_of(f, ID_A, "letta/dir-two-d0000004", &out), "2");
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
        turned[i] = blocks[ARRAY_LEN(blocks) - 1 - i];
    MOVE(f, turned, ARRAY_LEN(blocks), &t); /* whatever order they come in */
    assert_int_equal(n_commits(f), 2);
}

/* ---- values ---- */

static void test_K5_values_of_any_bytes_come_over_as_they_are(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4u << 20);
    _cleanup_(mem_freep) char *large = mem_alloc((1u << 20) + 1);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = {
        block_of(BLOCK_1, "crlf", "a\r\nb\r"),
        block_of(BLOCK_2, "nul", ""),
        block_of(BLOCK_3, "bad", "\xff\xfe"),
        block_of("block-d0000001-1111-4111-8111-111111111111", "front", "---\nx: y\n---\nz"),
        block_of("block-d0000002-1111-4111-8111-111111111111", "large", ""),
        block_of("block-d0000003-1111-4111-8111-111111111111", "empty", ""),
    };

    blocks[1].value = str_make("a\0b", 3);
    memset(large, 'x', 1u << 20);
    blocks[4].value = str_make(large, 1u << 20);
    MOVE(f, blocks, ARRAY_LEN(blocks), &t);
    assert_string_equal(t.notes.ptr, "too-large-to-read large\n");
    assert_string_equal(file_of(f, "crlf.md", &out), "---\ndescription: null\n---\na\r\nb\r");
    assert_string_equal(file_of(f, "front.md", &out),
                        "---\ndescription: null\n---\n---\nx: y\n---\nz");
    assert_string_equal(value_of(f, ID_A, "front", &out), "---\nx: y\n---\nz");
    assert_string_equal(value_of(f, ID_A, "empty", &out), "");
    file_of(f, "large.md", &out);
    assert_int_equal(out.len, (1u << 20) + strlen("---\ndescription: null\n---\n"));
    file_of(f, "nul.md", &out);
    assert_true(str_ends_with(buf_str(&out), str_make("a\0b", 3)));
    file_of(f, "bad.md", &out);
    assert_true(str_ends_with(buf_str(&out), MEMFS_STR("\xff\xfe")));
    MOVE(f, blocks, ARRAY_LEN(blocks), &t);
    assert_int_equal(n_commits(f), 2);
}

static void test_what_front_matter_cannot_hold_is_told_and_the_value_kept(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4u << 20);
    _cleanup_(mem_freep) char *large = mem_alloc(80001);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = { block_of(BLOCK_1, "a", "va"), block_of(BLOCK_2, "b", "vb") };

    memset(large, 'x', 80000);
    blocks[0].metadata_json = MEMFS_STR("[1]");
    blocks[1].has_description = true;
    blocks[1].description = str_of(large);
    MOVE(f, blocks, 2, &t);
    assert_string_equal(t.notes.ptr, "metadata-dropped a\ndescription-dropped b\n");
    assert_string_equal(value_of(f, ID_A, "a", &out), "va");
    assert_string_equal(value_of(f, ID_A, "b", &out), "vb");
}

static void test_a_value_beyond_any_file_is_left_out_and_told(void **state)
{
    fixture *f = *state;
    size_t n = (10u << 20) + 1;
    _cleanup_(mem_freep) char *huge = mem_alloc(n);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = { block_of(BLOCK_1, "huge", ""), block_of(BLOCK_2, "b", "fine") };

    memset(huge, 'x', n);
    blocks[0].value = str_make(huge, n);
    MOVE(f, blocks, 2, &t);
    assert_string_equal(t.notes.ptr, "left-out huge\n");
    assert_int_equal(t.result.n_left_out, 1);
    assert_int_equal(t.result.n_blocks, 1);
}

/* ---- ids ---- */

static void test_K3_a_shared_block_gets_an_id_of_its_own_for_each_agent_and_keeps_it(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "team", "tea");
    char own[IDS_BLOCK_LEN + 1];

    block.n_agents = 2;
    ids_block(ID_A, MEMFS_STR("team"), own);
    MOVE(f, &block, 1, &t);
    assert_string_equal(t.notes.ptr, "shared team\n");
    block.n_agents = 1; /* the other agent let it go: clients know this one by now */
    MOVE(f, &block, 1, &t);
    dump(f, ID_A, &out);
    assert_non_null(strstr(out.ptr, own));
    assert_null(strstr(out.ptr, BLOCK_1));
}

static void test_K4_a_renamed_block_leaves_its_id_with_the_old_label(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "old", "tea");
    char own[IDS_BLOCK_LEN + 1];

    MOVE(f, &block, 1, &t);
    block.label = MEMFS_STR("new");
    MOVE(f, &block, 1, &t);
    assert_string_equal(value_of(f, ID_A, "old", &out), "<none>");
    ids_block(ID_A, MEMFS_STR("new"), own);
    dump(f, ID_A, &out);
    assert_non_null(strstr(out.ptr, own));
    assert_verified(f);
}

/* ---- a dry run, and troubles ---- */

static void test_a_dry_run_tells_and_writes_nothing(void **state)
{
    fixture *f = *state;
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block blocks[] = { block_of(BLOCK_1, "a", "one"), block_of(BLOCK_2, "b", "one") };
    bool is_known;
    int64_t n;

    OK(try_move(f, ID_A, blocks, 2, true, &t, &err));
    assert_int_equal(t.result.outcome, MOVEIN_MADE);
    assert_string_equal(t.notes.ptr, "would-write a.md\nwould-write b.md\n");
    OK(state_agent_known(home_state(f->h), ID_A, &is_known, &err));
    assert_false(is_known);
    assert_false(store_has(home_store(f->h), REPO_A));
    OK(state_agent_count(home_state(f->h), &n, &err));
    assert_int_equal(n, 0);
    MOVE(f, blocks, 2, &t);
    blocks[0].value = MEMFS_STR("two");
    OK(try_move(f, ID_A, blocks, 1, true, &t, &err));
    assert_int_equal(t.result.outcome, MOVEIN_CHANGED);
    assert_string_equal(t.notes.ptr, "would-write a.md\nwould-remove b.md\n");
    assert_int_equal(n_commits(f), 2);
    OK(try_move(f, ID_A, blocks, 0, true, &t, &err));
    assert_string_equal(t.notes.ptr, "would-remove a.md\nwould-remove b.md\n");
}

static void test_H4_a_known_agent_whose_repository_is_gone_is_not_begun_anew(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    letta_block block = block_of(BLOCK_1, "a", "one");

    MOVE(f, &block, 1, &t);
    OK(fs_remove_tree(path, &err));
    reopen_home(f);
    FAILS(MEMFS_EUNAVAIL, try_move(f, ID_A, &block, 1, false, &t, &err));
    assert_false(store_has(home_store(f->h), REPO_A));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_K4_blocks_become_files_and_keep_their_attributes),
        SYNC_TEST(test_an_agent_without_blocks_is_made_too_with_name_and_tags),
        SYNC_TEST(test_attributes_that_changed_in_letta_make_no_commit),
        SYNC_TEST(test_a_limit_in_the_file_counts_before_the_one_that_was_brought_along),
        SYNC_TEST(test_what_letta_changed_follows_and_what_was_changed_here_stays),
        SYNC_TEST(test_H5_a_block_that_both_changed_is_merged_and_keeps_both),
        SYNC_TEST(test_H5_a_memory_that_was_here_first_is_merged_not_replaced),
        SYNC_TEST(test_a_purged_secret_does_not_come_back),
        SYNC_TEST(test_T11_labels_that_make_no_file_name_get_a_safe_one),
        SYNC_TEST(test_T11_labels_that_cannot_stand_beside_each_other_are_parted),
        SYNC_TEST(test_K5_values_of_any_bytes_come_over_as_they_are),
        SYNC_TEST(test_what_front_matter_cannot_hold_is_told_and_the_value_kept),
        SYNC_TEST(test_a_value_beyond_any_file_is_left_out_and_told),
        SYNC_TEST(test_K3_a_shared_block_gets_an_id_of_its_own_for_each_agent_and_keeps_it),
        SYNC_TEST(test_K4_a_renamed_block_leaves_its_id_with_the_old_label),
        SYNC_TEST(test_a_dry_run_tells_and_writes_nothing),
        SYNC_TEST(test_H4_a_known_agent_whose_repository_is_gone_is_not_begun_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
