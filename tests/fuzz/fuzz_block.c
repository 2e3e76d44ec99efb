/*
 * Memory files of any bytes.  The input is the blob.
 *
 * Beyond not crashing:
 *   - the value is the end of the decoded text; all of it when there is no front matter (K5)
 *   - a row's texts are UTF-8 and its metadata a JSON object
 *   - what a file says, written anew, is read back the same
 *   - after a merge the file says what was merged, and merging that again changes no byte
 *
 * Two kinds of values are written as the reference writes them though they do not come back the
 * same: text with U+0085, which is read as a newline, and pairs, whose tag safe_load refuses.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "memory/block.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define MAX_TEXT (4u << 20)

static bool is_utf8(memfs_str s)
{
    return str_utf8_valid_prefix(s) == s.len;
}

/* Will it come back the same?  Says no when it takes too long to tell. */
static bool comes_back(const yaml_value *v, size_t *budget, int depth)
{
    if (depth > 200 || *budget == 0)
        return false;
    --*budget;
    switch (v->type) {
    case YAML_TUPLE: return false;
    case YAML_FLOAT: return !isnan(v->real);
    case YAML_TEXT: return memmem(v->text.ptr, v->text.len, "\xC2\x85", 2) == NULL;
    case YAML_MAP:
        for (size_t i = 0; i < v->map.n; i++)
            if (!comes_back(v->map.pairs[i].key, budget, depth + 1) ||
                !comes_back(v->map.pairs[i].value, budget, depth + 1))
                return false;
        return true;
    case YAML_SEQ:
    case YAML_SET:
        for (size_t i = 0; i < v->list.n; i++)
            if (!comes_back(v->list.items[i], budget, depth + 1))
                return false;
        return true;
    default: return true;
    }
}

static void check_row(const block *b)
{
    memfs_buf scratch = MEMFS_BUF_INIT(MAX_TEXT);
    json_error_t fault;
    block_row_fields row;
    json_t *metadata;

    block_row_of(b, MEMFS_STR("label"), &scratch, &row);
    FUZZ_CHECK(is_utf8(row.description) && row.description.len > 0);
    FUZZ_CHECK(is_utf8(str_of(row.problem)));
    FUZZ_CHECK(str_equal(row.value, b->value));
    metadata = json_loadb(row.metadata_json.ptr, row.metadata_json.len, JSON_ALLOW_NUL, &fault);
    /* jansson has no integers beyond 64 bits, no doubles beyond range and no NUL in keys. */
    FUZZ_CHECK(json_is_object(metadata) || strstr(fault.text, "too big") != NULL ||
               strstr(fault.text, "real number overflow") != NULL ||
               strstr(fault.text, "NUL byte in object key") != NULL);
    json_decref(metadata);
    buf_dispose(&scratch);
}

static block_fields fields_of(const block *b)
{
    block_fields fields = { .value = b->value };
    size_t budget = 20000;

    if (b->description != NULL && b->description->type == YAML_TEXT &&
        comes_back(b->description, &budget, 0)) {
        fields.has_description = true;
        fields.description = b->description->text;
    }
    if (b->metadata != NULL && b->metadata->type == YAML_MAP && b->metadata->map.n > 0 &&
        comes_back(b->metadata, &budget, 0))
        fields.metadata = b->metadata;
    fields.read_only = b->read_only != NULL && b->read_only->type == YAML_BOOL;
    return fields;
}

static void check_fields(const block *b, const block_fields *fields)
{
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_equal = false;

    FUZZ_CHECK(b->doc != NULL);
    FUZZ_CHECK(str_equal(b->value, fields->value));
    FUZZ_CHECK(b->description->type == (fields->has_description ? YAML_TEXT : YAML_NULL));
    if (fields->has_description)
        FUZZ_CHECK(str_equal(b->description->text, fields->description));
    FUZZ_CHECK((b->metadata != NULL) == (fields->metadata != NULL));
    if (fields->metadata != NULL) {
        FUZZ_CHECK(yaml_equal(b->metadata, fields->metadata, &is_equal, &err) == MEMFS_OK);
        FUZZ_CHECK(is_equal);
    }
}

static void check_written_again(const block *b)
{
    memfs_buf text = MEMFS_BUF_INIT(MAX_TEXT);
    block_fields fields = fields_of(b);
    block again = BLOCK_INIT;

    block_serialize(&fields, &text);
    if (!text.too_big && text.len - fields.value.len < BLOCK_MAX_FRONT_MATTER) {
        block_parse(buf_str(&text), &again);
        check_fields(&again, &fields);
    }
    block_dispose(&again);
    buf_dispose(&text);
}

static void check_merge(memfs_str text, bool read_only, bool has_metadata)
{
    memfs_buf merged = MEMFS_BUF_INIT(MAX_TEXT), twice = MEMFS_BUF_INIT(MAX_TEXT);
    block_fields fields = { .value = MEMFS_STR("new\n"),
                            .has_description = true,
                            .description = MEMFS_STR("a: new description"),
                            .read_only = read_only };
    yaml_doc *doc = yaml_doc_new();
    memfs_error err = MEMFS_ERROR_INIT;
    block b = BLOCK_INIT;

    if (has_metadata)
        FUZZ_CHECK(yaml_of_json(MEMFS_STR("{\"k\":[1,\"x\"]}"), doc, &fields.metadata, &err) == 0);
    if (block_merge(text, &fields, &merged, &err) == MEMFS_OK && !merged.too_big) {
        block_parse(buf_str(&merged), &b);
        if (b.doc != NULL) {
            check_fields(&b, &fields);
            FUZZ_CHECK(block_merge(buf_str(&merged), &fields, &twice, &err) == MEMFS_OK);
            FUZZ_CHECK(str_equal(buf_str(&merged), buf_str(&twice)));
        }
    }
    block_dispose(&b);
    yaml_doc_free(doc);
    buf_dispose(&merged);
    buf_dispose(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    memfs_str blob = str_make((const char *)bytes, n);
    memfs_buf decoded = MEMFS_BUF_INIT(MAX_TEXT);
    char *exact;
    block b = BLOCK_INIT;
    size_t bad_at, len;

    if (n > 200000)
        return 0;
    FUZZ_CHECK(block_decode(blob, &decoded, &bad_at) == is_utf8(blob));
    len = decoded.len;
    exact = mem_alloc(len + (len == 0));
    if (len > 0)
        memcpy(exact, decoded.ptr, len);
    block_parse(str_make(exact, len), &b);
    FUZZ_CHECK(str_ends_with(str_make(exact, len), b.value));
    FUZZ_CHECK(b.doc != NULL || b.value.len == len);
    check_row(&b);
    check_written_again(&b);
    check_merge(str_make(exact, len), n & 1, n & 2);
    block_dispose(&b);
    free(exact);
    buf_dispose(&decoded);
    return 0;
}
