/*
 * The cache after every push is compared with a model that knows only the files: no diff, no tree, no
 * earlier state.
 */
#include "sync_fixture.h"

#include "memory/ids.h"
#include "memory/label.h"
#include "sync/materialise.h"

#include <openssl/sha.h>

/* ---- the model ---- */

#define N_PATHS 18
static const char *const PATHS[N_PATHS] = {
    "a.md",
    "b.md",
    "system/human.md",
    "system/persona.md",
    "system/deep/er/x.md",
    "skills/one/SKILL.md",
    "skills/one/notes.md",
    "skills/two/SKILL.md",
    "readme.txt",
    "data.json",
    "system.md",
    "a/b.md",
    "a/c/d.md",
    "z.md",
    ".md",
    "a/.md",
    ".letta/x.md",
    "reference/caf\xc3\xa9.md",
};

typedef struct model {
    bool has[N_PATHS];
    memfs_buf text[N_PATHS];
    int64_t birth[N_PATHS]; /* learnt from the cache at first sight */
} model;

static void blob_id(memfs_str bytes, memfs_oid *ret)
{
    _cleanup_(buf_dispose) memfs_buf all = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_printf(&all, "blob %zu", bytes.len);
    buf_putc(&all, '\0');
    buf_add_str(&all, bytes);
    SHA1((const unsigned char *)all.ptr, all.len, ret->id);
}

static int compare_index(const void *a, const void *b)
{
    return strcmp(PATHS[*(const int *)a], PATHS[*(const int *)b]);
}

static int64_t birth_of(fixture *f, memfs_str label);

static void expect(fixture *f, model *m, const memfs_oid *tip, memfs_buf *out)
{
    int order[N_PATHS];
    char hex[MEMFS_OID_HEX + 1];
    memfs_error ignored;

    buf_clear(out);
    for (int i = 0; i < N_PATHS; i++)
        order[i] = i;
    qsort(order, N_PATHS, sizeof(order[0]), compare_index);
    for (int k = 0; k < N_PATHS; k++) {
        _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
        int i = order[k];
        memfs_str path = str_of(PATHS[i]), label;
        block_row row;
        memfs_oid blob;

        if (!m->has[i] || !label_of_path(path, MEMFS_STR(""), &label) || label.len == 0 ||
            label.ptr[label.len - 1] == '/')
            continue;
        blob_id(buf_str(&m->text[i]), &blob);
        OK(materialise_row(ID_A, path, label, &blob, buf_str(&m->text[i]), &scratch, &row, &err));
        if (m->birth[i] == 0)
            m->birth[i] = birth_of(f, label);
        assert_true(m->birth[i] > 0);
        row.created_at_us = row.updated_at_us = m->birth[i];
        assert_int_equal(dump_row(&row, out, &ignored), MEMFS_OK);
    }
    oid_hex(tip, hex);
    buf_printf(out, "tip %s\n", hex);
}

static memfs_code take_birth(const state_birth *b, void *ctx, memfs_error *err)
{
    (void)err;
    *(int64_t *)ctx = b->created_at_us;
    return MEMFS_OK;
}

static int64_t birth_of(fixture *f, memfs_str label)
{
    int64_t at = 0;

    OK(state_births(home_state(f->h), ID_A, label, take_birth, &at, &err));
    return at;
}

static void assert_same(fixture *f, model *m, const memfs_oid *tip, const char *when, int step)
{
    _cleanup_(buf_dispose) memfs_buf want = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf got = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    expect(f, m, tip, &want);
    dump(f, ID_A, &got);
    if (!str_equal(buf_str(&want), buf_str(&got)))
        fail_msg("step %d, %s:\nwant\n%s\ngot\n%s", step, when, want.ptr, got.ptr);
}

/* ---- random operations ---- */

static uint32_t seed;
static uint32_t roll(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void random_text(memfs_buf *out)
{
    static const char *const HEADS[] = {
        "",
        "---\ndescription: about\n---\n",
        "---\nread_only: true\nlimit: 7\n---\n",
        "---\n: : bad\n  - x: [\n---\n",
        "---\r\ndescription: crlf\r\n---\r\n",
        "---\nmetadata:\n  k: [1, 2]\n---\n",
        "---\nlimit: many\n---\n",
    };

    buf_clear(out);
    buf_puts(out, HEADS[roll(ARRAY_LEN(HEADS))]);
    buf_printf(out, "text %u\n", roll(5));
    if (roll(12) == 0)
        buf_add(out, "\xff\xfe\x00z", 4);
    if (roll(12) == 0)
        buf_clear(out);
}

static void set(fixture *f, model *m, int i)
{
    random_text(&m->text[i]);
    m->has[i] = true;
    put_file(f->work, PATHS[i], buf_str(&m->text[i]));
}

static void unset(fixture *f, model *m, int i)
{
    if (m->has[i])
        drop_file(f->work, PATHS[i]);
    m->has[i] = false;
}

static void random_step(fixture *f, model *m)
{
    int i = (int)roll(N_PATHS), j;

    switch (roll(8)) {
    case 0:
    case 1: unset(f, m, i); break;
    case 2: /* rename */
        j = (int)roll(N_PATHS);
        if (m->has[i] && i != j) {
            buf_clear(&m->text[j]);
            buf_add_str(&m->text[j], buf_str(&m->text[i]));
            m->has[j] = true;
            put_file(f->work, PATHS[j], buf_str(&m->text[j]));
            unset(f, m, i);
        }
        break;
    case 3:
        if (roll(6) == 0)
            for (int k = 0; k < N_PATHS; k++)
                unset(f, m, k);
        break;
    default: set(f, m, i); break;
    }
}

static void test_K1_rows_are_what_a_model_that_reads_everything_says(void **state)
{
    fixture *f = *state;
    model *m = mem_alloc(sizeof(*m));
    materialise_result r;
    memfs_oid tip;
    agent *a;

    seed = 20261121;
    for (int i = 0; i < N_PATHS; i++)
        m->text[i] = (memfs_buf)MEMFS_BUF_INIT(65536);
    for (int step = 0; step < 60; step++) {
        for (uint32_t n = roll(4) + 1; n > 0; n--)
            random_step(f, m);
        tip = push_work(f, ID_A);
        assert_same(f, m, &tip, "after the push", step);
        if (step % 10 == 9) {
            OK(home_agent(f->h, ID_A, &a, &err));
            agent_lock(a);
            OK(materialise_rebuild(f->h, a, &r, &err));
            agent_unlock(a);
            assert_same(f, m, &tip, "after a rebuild", step);
        }
        if (step % 20 == 19)
            reopen_home(f);
    }
    for (int i = 0; i < N_PATHS; i++)
        buf_dispose(&m->text[i]);
    free(m);
}

static void test_K2_the_last_file_goes_too(void **state)
{
    fixture *f = *state;

    put_file(f->work, "system/a.md", MEMFS_STR("a\n"));
    put_file(f->work, "b.md", MEMFS_STR("b\n"));
    push_work(f, ID_A);
    assert_int_equal(n_blocks(f, ID_A), 2);
    drop_file(f->work, "system");
    drop_file(f->work, "b.md");
    push_work(f, ID_A);
    assert_int_equal(n_blocks(f, ID_A), 0);
}

static void test_K4_a_label_that_comes_back_keeps_its_birth_and_id(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf first = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf second = MEMFS_BUF_INIT(1u << 20);

    put_file(f->work, "a.md", MEMFS_STR("same\n"));
    push_work(f, ID_A);
    dump(f, ID_A, &first);
    drop_file(f->work, "a.md");
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("same\n"));
    push_work(f, ID_A);
    dump(f, ID_A, &second);
    buf_truncate(&first, (size_t)(strstr(first.ptr, "tip ") - first.ptr));
    buf_truncate(&second, (size_t)(strstr(second.ptr, "tip ") - second.ptr));
    assert_string_equal(first.ptr, second.ptr);
}

static memfs_code see_row(const block_row *r, void *ctx, memfs_error *err)
{
    memfs_buf *out = ctx;

    (void)err;
    buf_printf(out, "%.*s [%.*s] %.*s {%.*s} <%.*s> %lld\n", (int)r->label.len, r->label.ptr,
               (int)r->value.len, r->value.ptr, (int)r->description.len, r->description.ptr,
               (int)r->metadata_json.len, r->metadata_json.ptr, (int)r->problem.len, r->problem.ptr,
               (long long)r->bytes);
    return MEMFS_OK;
}

static const char *see(fixture *f, const char *label, memfs_buf *out)
{
    block_query q = { .agent_id = ID_A, .label = str_of(label) };

    buf_clear(out);
    OK(cache_blocks(home_cache(f->h), &q, see_row, out, &err));
    return out->ptr;
}

static void test_K6_a_bad_file_spoils_its_own_row_only(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);

    put_file(f->work, "good.md", MEMFS_STR("---\ndescription: d\n---\nv\n"));
    put_file(f->work, "bad.md", MEMFS_STR("---\na: b: c\n---\nv\n"));
    put_file(f->work, "bytes.md",
             MEMFS_STR("ab\xff"
                       "c"));
    push_work(f, ID_A);
    assert_string_equal(see(f, "good", &out), "good [v\n] d {{}} <> 25\n");
    see(f, "bad", &out);
    assert_non_null(strstr(out.ptr, "bad [---\na: b: c\n---\nv\n] bad block {{}} <"));
    assert_null(strstr(out.ptr, "<>"));
    assert_string_equal(see(f, "bytes", &out),
                        "bytes [ab\xef\xbf\xbd"
                        "c] bytes block "
                        "{{\"memfs_problem\":\"the file is not UTF-8 (first at byte 2)\"}} "
                        "<the file is not UTF-8 (first at byte 2)> 4\n");
}

static void test_T14_a_file_too_large_for_a_block_is_marked(void **state)
{
    fixture *f = *state;
    _cleanup_(buf_dispose) memfs_buf big = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);

    close_home(f);
    f->options.policy.max_block_bytes = 1000;
    open_home(f);
    while (big.len < 2000)
        buf_puts(&big, "text ");
    put_file(f->work, "big.md", buf_str(&big));
    put_file(f->work, "small.md", MEMFS_STR("s"));
    push_work(f, ID_A);
    assert_string_equal(see(f, "big", &out),
                        "big [] big block {{\"memfs_problem\":\"the file has 2000 bytes; a block "
                        "has at most 1000\"}} <the file has 2000 bytes; a block has at most 1000> "
                        "2000\n");
    assert_string_equal(see(f, "small", &out), "small [s] small block {{}} <> 1\n");
}

static void test_degenerate_labels_stay_out(void **state)
{
    fixture *f = *state;

    put_file(f->work, ".md", MEMFS_STR("x"));
    put_file(f->work, "a/.md", MEMFS_STR("x"));
    put_file(f->work, "skills/x.md", MEMFS_STR("x"));
    put_file(f->work, "b.txt", MEMFS_STR("x"));
    push_work(f, ID_A);
    assert_int_equal(n_blocks(f, ID_A), 0);
}

static void test_K7_nothing_is_written_when_nothing_moved(void **state)
{
    fixture *f = *state;
    cache_tip before, after;
    materialise_result r;
    memfs_oid tip;
    agent *a;

    put_file(f->work, "a.md", MEMFS_STR("x"));
    tip = push_work(f, ID_A);
    OK(cache_tip_get(home_cache(f->h), ID_A, &before, &err));
    OK(home_agent(f->h, ID_A, &a, &err));
    agent_lock(a);
    OK(materialise_agent(f->h, a, &r, &err));
    agent_unlock(a);
    assert_int_equal(r.n_changed + r.n_removed, 0);
    assert_true(try_push(f, ID_A, tip, tip).moved);
    reopen_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    OK(cache_tip_get(home_cache(f->h), ID_A, &after, &err));
    assert_int_equal(before.generation, after.generation);
}

static void test_another_prefix_filter_makes_other_rows(void **state)
{
    fixture *f = *state;
    agent *a;

    put_file(f->work, "system/a.md", MEMFS_STR("x"));
    put_file(f->work, "notes/b.md", MEMFS_STR("x"));
    put_file(f->work, "skills/s/SKILL.md", MEMFS_STR("x"));
    push_work(f, ID_A);
    assert_int_equal(n_blocks(f, ID_A), 3);
    close_home(f);
    f->options.block_prefixes = MEMFS_STR("system/");
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_blocks(f, ID_A), 2);
    close_home(f);
    f->options.block_prefixes = MEMFS_STR("");
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_blocks(f, ID_A), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_K1_rows_are_what_a_model_that_reads_everything_says),
        SYNC_TEST(test_K2_the_last_file_goes_too),
        SYNC_TEST(test_K4_a_label_that_comes_back_keeps_its_birth_and_id),
        SYNC_TEST(test_K6_a_bad_file_spoils_its_own_row_only),
        SYNC_TEST(test_T14_a_file_too_large_for_a_block_is_marked),
        SYNC_TEST(test_degenerate_labels_stay_out),
        SYNC_TEST(test_K7_nothing_is_written_when_nothing_moved),
        SYNC_TEST(test_another_prefix_filter_makes_other_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
