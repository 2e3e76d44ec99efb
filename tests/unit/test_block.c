/* Memory files: parse, decode, serialise, merge, and the row they make (block-format 2 to 5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "memory/block.h"

#include <stdlib.h>

static void front_matter_is_found_or_all_is_value(void **state)
{
    static const struct {
        const char *text, *value; /* NULL: the whole text */
    } rows[] = {
        { "---\ndescription: d\n---\n", "" },
        { "---\ndescription: d\n---\nB", "B" },
        { "---\ndescription: d\n---\nx\n---\ny\n", "x\n---\ny\n" },
        { "---\n{}\n---\nB", "B" },
        { "---\nname: s\n---\n\nB", "\nB" },
        { "---\ndescription: d\n---", NULL },
        { "---\n---\nB", NULL },
        { "---\n\n---\nB", NULL },
        { "---\n# only a comment\n---\nB", NULL },
        { "---\n- a\n---\nB", NULL },
        { "---\ndescription: d\n--- \nB", NULL },
        { "--- \ndescription: d\n---\nB", NULL },
        { " ---\ndescription: d\n---\nB", NULL },
        { "\xEF\xBB\xBF---\ndescription: d\n---\nB", NULL },
        { "---\ndescription: a: b\n---\nB", NULL },
        { "---\ndescription: \xFF\n---\nB", NULL },
        { "plain", NULL },
        { "", NULL },
        { "---\n", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(block_dispose) block b = BLOCK_INIT;
        const char *value = rows[i].value != NULL ? rows[i].value : rows[i].text;

        block_parse(str_of(rows[i].text), &b);
        if (!str_equal(b.value, str_of(value)))
            fail_msg("row %zu: value '%.*s'", i, (int)b.value.len, b.value.ptr);
        assert_int_equal(b.doc != NULL, rows[i].value != NULL);
        assert_false(b.aborts_reference);
    }
}

static void fields_keep_their_type(void **state)
{
    _cleanup_(block_dispose) block b = BLOCK_INIT;

    (void)state;
    block_parse(MEMFS_STR("---\nname: s\ndescription: 12\nlimit: ~\nmetadata: {a: 1}\n---\nB"), &b);
    assert_int_equal(b.description->type, YAML_INT);
    assert_int_equal(b.limit->type, YAML_NULL);
    assert_null(b.read_only);
    assert_int_equal(b.metadata->type, YAML_MAP);
    assert_string_equal(b.problem, "");
}

/* K6: the reason stays with the file. */
static void test_K6_a_value_only_file_says_why(void **state)
{
    static const struct {
        const char *text, *problem;
        bool aborts;
    } rows[] = {
        { "---\na: b: c\n---\n", "front matter is not YAML: line 1: ", false },
        { "---\na: b\nc: \td\n---\n", "front matter is not YAML: line 2: ", false },
        { "---\n- a\n---\n", "front matter is not a mapping (list)", false },
        { "---\n~\n---\n", "front matter is not a mapping (empty)", false },
        { "---\na: b\n", "front matter is not closed", false },
        { "---\na: 2024-02-30\n---\n", "front matter is not YAML: line 1: a date", true },
        { "text", "", false },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(block_dispose) block b = BLOCK_INIT;

        block_parse(str_of(rows[i].text), &b);
        assert_true(str_equal(b.value, str_of(rows[i].text)));
        if (!str_starts_with(str_of(b.problem), str_of(rows[i].problem)))
            fail_msg("'%s', not '%s'", b.problem, rows[i].problem);
        assert_int_equal(b.aborts_reference, rows[i].aborts);
    }
}

/* T27: front matter is bounded; the text is then a value like any other. */
static void test_T27_front_matter_of_more_than_64_KiB_is_value(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);

    (void)state;
    for (int more = 0; more < 2; more++) {
        _cleanup_(block_dispose) block b = BLOCK_INIT;

        buf_clear(&text);
        buf_puts(&text, "---\na: ");
        while (text.len < (size_t)(4 + BLOCK_MAX_FRONT_MATTER + more))
            buf_putc(&text, 'x');
        buf_puts(&text, "\n---\nB");
        block_parse(buf_str(&text), &b);
        assert_int_equal(b.value.len, more ? text.len : 1);
        assert_int_equal(b.problem[0] != '\0', more);
    }
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* K5: any bytes are legal, and every byte of them is in the value or in the front matter. */
static void test_K5_any_bytes_parse_decode_and_make_a_row(void **state)
{
    static const char alphabet[] =
        "---\n\n: -[]{}#&*!|>'\"%@`,?=<ab01\r\t\0\xC3\xA9\xFF\xED\xA0\x80";
    uint32_t seed = 7;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
        _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(16384);
        _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(16384);
        _cleanup_(block_dispose) block b = BLOCK_INIT;
        block_row_fields row;
        size_t n = next_random(&seed) % 60, bad_at;

        buf_puts(&text, round % 2 ? "---\n" : "");
        for (size_t i = 0; i < n; i++)
            buf_putc(&text, alphabet[next_random(&seed) % (sizeof(alphabet) - 1)]);
        buf_puts(&text, round % 3 ? "\n---\nB" : "");
        block_decode(buf_str(&text), &decoded, &bad_at);
        assert_int_equal(str_utf8_valid_prefix(buf_str(&decoded)), decoded.len);
        assert_null(memchr(decoded.ptr, '\r', decoded.len));
        block_parse(buf_str(&decoded), &b);
        assert_true(str_ends_with(buf_str(&decoded), b.value));
        block_row_of(&b, MEMFS_STR("l"), &scratch, &row);
        assert_int_equal(str_utf8_valid_prefix(row.description), row.description.len);
        assert_true(row.metadata_json.len >= 2 && row.metadata_json.ptr[0] == '{');
    }
}

static void blobs_are_decoded_as_text_files(void **state)
{
    static const struct {
        const char *blob, *text;
        size_t bad_at; /* SIZE_MAX: it is UTF-8 */
    } rows[] = {
        { "a\r\nb\rc\n\r\r\n", "a\nb\nc\n\n\n", SIZE_MAX },
        { "\xEF\xBB\xBFx", "\xEF\xBB\xBFx", SIZE_MAX },
        { "a\xFF\r\n\xC3", "a\xEF\xBF\xBD\n\xEF\xBF\xBD", 1 },
        { "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 0 },
        { "", "", SIZE_MAX },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
        size_t bad_at;
        bool is_good = block_decode(str_of(rows[i].blob), &text, &bad_at);

        assert_string_equal(text.ptr, rows[i].text);
        assert_int_equal(is_good, rows[i].bad_at == SIZE_MAX);
        if (!is_good)
            assert_int_equal(bad_at, rows[i].bad_at);
    }
}

/* ---- writing ---- */

static block_fields fields_of(const char *description, const char *value)
{
    return (block_fields){
        .value = str_of(value),
        .has_description = description != NULL,
        .description = str_of(description),
    };
}

#define X10 "xxxxxxxxxx"
#define A60 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

/* The golden examples of block-format 4.4. */
static void descriptions_are_written_as_the_stock_server_does(void **state)
{
    static const struct {
        const char *description, *written; /* after "description:" */
    } rows[] = {
        { "hello", " hello" },
        { NULL, " null" },
        { "", " ''" },
        { "a: b", " 'a: b'" },
        { "- x", " '- x'" },
        { "ends:", " 'ends:'" },
        { "it's", " it's" },
        { "a'b: c", " 'a''b: c'" },
        { "yes", " 'yes'" },
        { "1:30", " '1:30'" },
        { "=", " '='" },
        { "...", " '...'" },
        { "1e3", " 1e3" },
        { "08", " 08" },
        { "trailing ", " 'trailing '" },
        { "emoji \xF0\x9F\x98\x80", " emoji \xF0\x9F\x98\x80" },
        { "tab\there", " \"tab\\there\"" },
        { "\xC3\xA9\t\xF0\x9F\x98\x80", " \"\xC3\xA9\\t\\U0001F600\"" },
        { "\xEF\xBB\xBF"
          "bom",
          " \"\\uFEFFbom\"" },
        { "line1\nline2", " 'line1\n\n  line2'" },
        { "a\n", " 'a\n\n  '" },
        { "x \ny", " \"x \\ny\"" },
        { "\xE2\x80\xA8x", " '\xE2\x80\xA8  x'" },
        { A60 "aaaaaaa b c d e", " " A60 "aaaaaaa b\n  c d e" },
        { A60 "aaaaaaaa b c d e", " " A60 "aaaaaaaa\n  b c d e" },
        { ": " A60 "aaaa b c d e", " ': " A60 "aaaa b\n  c d e'" },
        { ": " A60 "aaaaa b c d e", " ': " A60 "aaaaa\n  b c d e'" },
        { A60 X10 "xxxxxxxxx\tbb ccc", " \"" A60 X10 "xxxxxxxxx\\t\\\n  bb ccc\"" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
        _cleanup_(buf_dispose) memfs_buf expected = MEMFS_BUF_INIT(4096);
        block_fields fields = fields_of(rows[i].description, "hi");

        block_serialize(&fields, &out);
        buf_printf(&expected, "---\ndescription:%s\n---\nhi", rows[i].written);
        assert_string_equal(out.ptr, expected.ptr);
    }
}

static void read_only_and_metadata_are_written_when_they_say_something(void **state)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    block_fields fields = fields_of("d", "");
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    fields.metadata = yaml_map(doc);
    block_serialize(&fields, &out);
    assert_string_equal(out.ptr, "---\ndescription: d\n---\n");
    buf_clear(&out);
    fields.read_only = true;
    assert_int_equal(yaml_of_json(MEMFS_STR("{\"b\":{\"c\":[]}}"), doc, &fields.metadata, &err), 0);
    block_serialize(&fields, &out);
    assert_string_equal(out.ptr,
                        "---\ndescription: d\nread_only: true\nmetadata:\n  b:\n    c: []\n---\n");
}

static void a_bound_that_is_passed_shows_in_the_buffer(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(20);
    block_fields fields = fields_of("a long description", "and a value");

    (void)state;
    block_serialize(&fields, &out);
    assert_true(out.too_big);
}

/* ---- merging ---- */

static void merges_keep_what_does_not_change(void **state)
{
    static const struct {
        const char *yaml, *description;
        bool read_only;
        const char *merged;
    } rows[] = {
        { "description: 'd'", "d", false, "description: 'd'" },
        { "description: x  # c", "d", false, "description: d" },
        { "name: s\ndescription: x\nextra: [1]", "d", false,
          "name: s\ndescription: d\nextra:\n- 1" },
        { "description: d\nlimit: 5", "d", false, "description: d" },
        { "read_only: yes", "d", true, "read_only: true\ndescription: d" },
        { "read_only: 1\ndescription: d # c", "d", true, "read_only: 1\ndescription: d # c" },
        { "read_only: true\ndescription: d", "d", false, "description: d" },
        { "x: [", "d", false, "description: d" },
        { "- a", "d", false, "description: d" },
        { "name: s", NULL, false, "name: s\ndescription: null" },
        { "description:\n", NULL, false, "description:\n" },
        { "description: d\nmetadata: {a: 1}", "d", false, "description: d" },
        { "&r\nself: *r\ndescription: x", "d", false, "&id001\nself: *id001\ndescription: d" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf existing = MEMFS_BUF_INIT(4096);
        _cleanup_(buf_dispose) memfs_buf expected = MEMFS_BUF_INIT(4096);
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
        block_fields fields = fields_of(rows[i].description, "new");
        memfs_error err = MEMFS_ERROR_INIT;

        fields.read_only = rows[i].read_only;
        buf_printf(&existing, "---\n%s\n---\nold", rows[i].yaml);
        buf_printf(&expected, "---\n%s\n---\nnew", rows[i].merged);
        assert_int_equal(block_merge(buf_str(&existing), &fields, &out, &err), MEMFS_OK);
        assert_string_equal(out.ptr, expected.ptr);
    }
}

static void equal_metadata_is_no_change(void **state)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    block_fields fields = fields_of("d", "new");
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    assert_int_equal(yaml_of_json(MEMFS_STR("{\"b\":2,\"a\":1.0}"), doc, &fields.metadata, &err),
                     0);
    assert_int_equal(block_merge(MEMFS_STR("---\nmetadata: {a: 1, b: 2}\ndescription: d\n---\n"),
                                 &fields, &out, &err),
                     MEMFS_OK);
    assert_string_equal(out.ptr, "---\nmetadata: {a: 1, b: 2}\ndescription: d\n---\nnew");
}

static void a_merge_fails_where_the_reference_raises(void **state)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    block_fields fields = fields_of("d", "new");
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    assert_int_equal(block_merge(MEMFS_STR("---\ncreated: 2024-02-30\n---\n"), &fields, &out, &err),
                     MEMFS_EINVALID);
    assert_int_equal(out.len, 0);
}

/* ---- rows ---- */

typedef struct row_case {
    const char *yaml;
    const char *description;
    int64_t limit;
    bool read_only;
    const char *metadata;
    const char *problem; /* part of it; NULL: none */
} row_case;

static void check_row(const row_case *c)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(block_dispose) block b = BLOCK_INIT;
    block_row_fields row;

    buf_printf(&text, "---\n%s\n---\nV", c->yaml);
    block_parse(buf_str(&text), &b);
    buf_puts(&scratch, "kept");
    block_row_of(&b, MEMFS_STR("system/human"), &scratch, &row);
    if (!str_equal(row.description, str_of(c->description)) || row.limit != c->limit ||
        row.read_only != c->read_only || !str_equal(row.metadata_json, str_of(c->metadata)))
        fail_msg("%s: '%.*s' %lld %d %.*s", c->yaml, (int)row.description.len, row.description.ptr,
                 (long long)row.limit, row.read_only, (int)row.metadata_json.len,
                 row.metadata_json.ptr);
    if (c->problem == NULL ? row.problem[0] != '\0' : strstr(row.problem, c->problem) == NULL)
        fail_msg("%s: problem '%s'", c->yaml, row.problem);
    assert_true(str_starts_with(buf_str(&scratch), MEMFS_STR("kept")));
}

/* K1, K6: the row is a function of the file; a field of a wrong type takes its default. */
static void test_11_an_amendment_changes_what_is_given_and_nothing_else(void **state)
{
    static const struct {
        const char *old;
        block_changes changes;
        const char *expected;
    } rows[] = {
        { "a", { .has_value = true, .value = { "", 0 } }, "" },
        { "---\nx: 1 # c\n---\na",
          { .has_value = true, .value = { "b", 1 } },
          "---\nx: 1 # c\n---\nb" },
        { "---\r\nx: 1\r\n---\r\na\rb",
          { .has_value = true, .value = { "b", 1 } },
          "---\r\nx: 1\r\n---\r\nb" },
        { "---\nlimit: 5\nx: [1]\n---\na", { .drops_limit = true }, "---\nx:\n- 1\n---\na" },
        { "---\nlimit: 5\n---\na", { .drops_limit = true }, "a" },
        { "a", { .drops_limit = true }, "a" },
        { "a",
          { .has_description = true, .description = { "d", 1 } },
          "---\ndescription: d\n---\na" },
        { "---\nread_only: yes\n---\na",
          { .has_read_only = true, .read_only = true },
          "---\nread_only: yes\n---\na" },
        { "---\nread_only: yes\n---\na", { .has_read_only = true }, "a" },
        { "---\nx: [\n---\na", { .has_value = true, .value = { "b", 1 } }, "b" },
        { "x",
          { .has_value = true, .value = { "---\na: b\n---\nc", 14 } },
          "---\ndescription: null\n---\n---\na: b\n---\nc" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
        memfs_error err = MEMFS_ERROR_INIT;

        assert_int_equal(block_amend(str_of(rows[i].old), &rows[i].changes, &out, &err), MEMFS_OK);
        assert_string_equal(out.ptr, rows[i].expected);
    }
}

static void test_K5_a_file_that_is_not_utf8_needs_a_new_value(void **state)
{
    const block_changes value = { .has_value = true, .value = MEMFS_STR("v") };
    const block_changes other = { .has_read_only = true, .read_only = true };
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(4096);
    memfs_error err = MEMFS_ERROR_INIT;

    (void)state;
    assert_int_equal(block_amend(MEMFS_STR("a\xFF"), &other, &out, &err), MEMFS_EINVALID);
    assert_int_equal(block_amend(MEMFS_STR("a\xFF"), &value, &out, &err), MEMFS_OK);
    assert_string_equal(out.ptr, "v");
}

static void test_K4_front_matter_that_would_not_be_read_again_is_refused(void **state)
{
    _cleanup_(mem_freep) char *large = mem_alloc(BLOCK_MAX_FRONT_MATTER);
    const block_changes changes[] = {
        { .has_description = true, .description = str_make(large, BLOCK_MAX_FRONT_MATTER) },
        { .has_description = true, .description = MEMFS_STR("a\xC2\x85z") }, /* a NEL */
        { .has_description = true, .description = MEMFS_STR("x\n---\ny\n---\n") },
    };
    const memfs_code expected[] = { MEMFS_ELIMIT, MEMFS_EINVALID, MEMFS_OK };

    (void)state;
    memset(large, 'a', BLOCK_MAX_FRONT_MATTER);
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 20);
        memfs_error err = MEMFS_ERROR_INIT;

        assert_int_equal(block_amend(MEMFS_STR("value"), &changes[i], &out, &err), expected[i]);
    }
}

static void test_K6_rows_follow_the_new_row_table(void **state)
{
    static const row_case rows[] = {
        { "description: d\nlimit: 7\nread_only: true\nmetadata: {a: [1]}", "d", 7, true,
          "{\"a\":[1]}", NULL },
        { "name: x", "system/human block", 100000, false, "{}", NULL },
        { "description:\nlimit:\nread_only:\nmetadata:", "system/human block", 100000, false, "{}",
          NULL },
        { "description: ''\nlimit: 0", "system/human block", 100000, false, "{}", NULL },
        { "description: 12", "system/human block", 100000, false, "{}", "'description'" },
        { "description: yes", "system/human block", 100000, false, "{}", "boolean" },
        { "description: \"x\\uD83D\"", "x\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 100000, false, "{}",
          "surrogate" },
        { "limit: '5'", "system/human block", 100000, false, "{}", "'limit'" },
        { "limit: 5.0", "system/human block", 100000, false, "{}", "'limit'" },
        { "limit: true", "system/human block", 100000, false, "{}", "'limit'" },
        { "limit: 2147483647", "system/human block", 2147483647, false, "{}", NULL },
        { "limit: 2147483648", "system/human block", 100000, false, "{}", "32 bits" },
        { "limit: 99999999999999999999", "system/human block", 100000, false, "{}", "32 bits" },
        { "read_only: 1", "system/human block", 100000, true, "{}", NULL },
        { "read_only: 0.0", "system/human block", 100000, false, "{}", NULL },
        { "read_only: 'true'", "system/human block", 100000, false, "{}", "'read_only'" },
        { "read_only: 2", "system/human block", 100000, false, "{}", "'read_only'" },
        { "metadata: [a]", "system/human block", 100000, false, "{}", "'metadata'" },
        { "metadata: {d: 2001-01-01}", "system/human block", 100000, false, "{}", "a date" },
        { "metadata: &m {d: *m}", "system/human block", 100000, false, "{}", "'metadata'" },
        { "metadata: {1: a}", "system/human block", 100000, false, "{\"1\":\"a\"}", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_row(&rows[i]);
}

static void test_T27_metadata_that_expands_without_end_is_left_out(void **state)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 16);
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(1 << 20);
    _cleanup_(block_dispose) block b = BLOCK_INIT;
    block_row_fields row;

    (void)state;
    buf_puts(&text, "---\nx:\n- &a0 [lol]\n");
    for (int i = 1; i < 60; i++)
        buf_printf(&text, "- &a%d [*a%d, *a%d]\n", i, i - 1, i - 1);
    buf_puts(&text, "metadata: {a: *a59}\n---\nV");
    block_parse(buf_str(&text), &b);
    assert_string_equal(b.problem, "");
    block_row_of(&b, MEMFS_STR("l"), &scratch, &row);
    assert_true(str_equal(row.metadata_json, MEMFS_STR("{}")));
    assert_non_null(strstr(row.problem, "larger than"));
    assert_true(str_equal(row.value, MEMFS_STR("V")));
}

static void a_file_without_front_matter_makes_a_row_with_its_problem(void **state)
{
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(4096);
    _cleanup_(block_dispose) block b = BLOCK_INIT;
    block_row_fields row;

    (void)state;
    block_parse(MEMFS_STR("---\na: b: c\n---\nV"), &b);
    block_row_of(&b, MEMFS_STR("l"), &scratch, &row);
    assert_true(str_equal(row.value, MEMFS_STR("---\na: b: c\n---\nV")));
    assert_true(str_equal(row.description, MEMFS_STR("l block")));
    assert_non_null(strstr(row.problem, "not YAML"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(front_matter_is_found_or_all_is_value),
        cmocka_unit_test(fields_keep_their_type),
        cmocka_unit_test(test_K6_a_value_only_file_says_why),
        cmocka_unit_test(test_T27_front_matter_of_more_than_64_KiB_is_value),
        cmocka_unit_test(test_K5_any_bytes_parse_decode_and_make_a_row),
        cmocka_unit_test(blobs_are_decoded_as_text_files),
        cmocka_unit_test(descriptions_are_written_as_the_stock_server_does),
        cmocka_unit_test(read_only_and_metadata_are_written_when_they_say_something),
        cmocka_unit_test(a_bound_that_is_passed_shows_in_the_buffer),
        cmocka_unit_test(merges_keep_what_does_not_change),
        cmocka_unit_test(equal_metadata_is_no_change),
        cmocka_unit_test(a_merge_fails_where_the_reference_raises),
        cmocka_unit_test(test_11_an_amendment_changes_what_is_given_and_nothing_else),
        cmocka_unit_test(test_K4_front_matter_that_would_not_be_read_again_is_refused),
        cmocka_unit_test(test_K5_a_file_that_is_not_utf8_needs_a_new_value),
        cmocka_unit_test(test_K6_rows_follow_the_new_row_table),
        cmocka_unit_test(test_T27_metadata_that_expands_without_end_is_left_out),
        cmocka_unit_test(a_file_without_front_matter_makes_a_row_with_its_problem),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
