/*
 * A memory file, both ways.
 *
 *     ---⏎<yaml>⏎---⏎<value>
 *
 * The closing line is looked for from offset 4 as "\n---\n", so empty front matter ("---⏎---⏎") is
 * none, and a closing line without a newline does not close.  Whatever cannot be read as a mapping
 * makes the whole text the value, front matter included, as the reference does it; where the
 * reference would stop altogether, we go on in the same way and say so (`aborts_reference`).
 */
#include "memory/block.h"

#include <stdio.h>

#define OPENER MEMFS_STR("---\n")
#define CLOSER MEMFS_STR("\n---\n")

/* ---- reading ---- */

/* Cuts a text that opens and closes front matter; false: it has none. */
static bool split_text(memfs_str text, memfs_str *ret_yaml, memfs_str *ret_value)
{
    memfs_str rest = str_from(text, OPENER.len);
    const char *at;

    if (!str_starts_with(text, OPENER) || rest.len == 0)
        return false;
    at = memmem(rest.ptr, rest.len, CLOSER.ptr, CLOSER.len);
    if (at == NULL)
        return false;
    *ret_yaml = str_make(rest.ptr, (size_t)(at - rest.ptr));
    *ret_value = str_from(rest, ret_yaml->len + CLOSER.len);
    return true;
}

/* Loads front matter that may be a mapping or not; `problem` says why it is not. */
static bool load_mapping(memfs_str yaml, yaml_doc *doc, yaml_value **ret, bool *ret_aborts,
                         char *problem, size_t problem_size)
{
    memfs_error err = MEMFS_ERROR_INIT;
    yaml_value *loaded;

    *ret_aborts = false;
    if (yaml.len > BLOCK_MAX_FRONT_MATTER) {
        snprintf(problem, problem_size, "front matter is larger than %d bytes",
                 BLOCK_MAX_FRONT_MATTER);
        return false;
    }
    if (yaml_load(yaml, doc, &loaded, ret_aborts, &err) != MEMFS_OK) {
        snprintf(problem, problem_size, "front matter is not YAML: %s", err.msg);
        return false;
    }
    if (loaded->type != YAML_MAP) {
        snprintf(problem, problem_size, "front matter is not a mapping (%s)",
                 loaded->type == YAML_NULL ? "empty" : yaml_type_name(loaded->type));
        return false;
    }
    *ret = loaded;
    return true;
}

void block_parse(memfs_str text, block *ret)
{
    yaml_value *fields;
    memfs_str yaml, value;

    *ret = (block)BLOCK_INIT;
    ret->value = text;
    if (!split_text(text, &yaml, &value)) {
        if (str_starts_with(text, OPENER))
            snprintf(ret->problem, sizeof(ret->problem), "front matter is not closed by '---'");
        return;
    }
    ret->doc = yaml_doc_new();
    if (!load_mapping(yaml, ret->doc, &fields, &ret->aborts_reference, ret->problem,
                      sizeof(ret->problem))) {
        yaml_doc_freep(&ret->doc);
        return;
    }
    ret->value = value;
    ret->description = yaml_map_get(fields, "description");
    ret->limit = yaml_map_get(fields, "limit");
    ret->read_only = yaml_map_get(fields, "read_only");
    ret->metadata = yaml_map_get(fields, "metadata");
}

void block_dispose(block *b)
{
    yaml_doc_free(b->doc);
    *b = (block)BLOCK_INIT;
}

bool block_decode(memfs_str blob, memfs_buf *out, size_t *ret_bad_at)
{
    size_t pos = 0, bad_at = SIZE_MAX;

    while (pos < blob.len) {
        memfs_str rest = str_from(blob, pos);
        size_t valid = str_utf8_valid_prefix(rest);
        memfs_str part = str_make(rest.ptr, valid), line;

        pos += valid;
        while (str_split(part, '\r', &line, &part)) {
            buf_add_str(out, line);
            buf_putc(out, '\n');
            if (part.len > 0 && part.ptr[0] == '\n')
                part = str_from(part, 1);
        }
        buf_add_str(out, part);
        if (pos == blob.len)
            break;
        if (bad_at == SIZE_MAX)
            bad_at = pos;
        buf_puts(out, "\xEF\xBF\xBD");
        pos++;
    }
    *ret_bad_at = bad_at;
    return bad_at == SIZE_MAX;
}

/* ---- writing ---- */

static void put_file(memfs_str yaml, memfs_str value, memfs_buf *out)
{
    while (yaml.len > 0 && yaml.ptr[yaml.len - 1] == '\n')
        yaml.len--;
    buf_add_str(out, OPENER);
    buf_add_str(out, yaml);
    buf_add_str(out, CLOSER);
    buf_add_str(out, value);
}

static bool has_metadata(const block_fields *fields)
{
    const yaml_value *metadata = fields->metadata;

    return metadata != NULL && metadata->type == YAML_MAP && metadata->map.n > 0;
}

static yaml_value *description_of(const block_fields *fields, yaml_doc *doc)
{
    return fields->has_description ? yaml_text(doc, fields->description) : yaml_null(doc);
}

static memfs_code put_mapping(const yaml_value *map, memfs_str value, memfs_buf *out,
                              memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf yaml = MEMFS_BUF_INIT(out->max_bytes);
    memfs_code rc = yaml_emit(map, &yaml, err);

    if (rc != MEMFS_OK)
        return rc;
    if (yaml.too_big)
        out->too_big = true;
    put_file(buf_str(&yaml), value, out);
    return MEMFS_OK;
}

static memfs_code serialize(const block_fields *fields, memfs_buf *out, memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    yaml_value *map = yaml_map(doc);

    yaml_map_set(doc, map, "description", description_of(fields, doc));
    if (fields->read_only)
        yaml_map_set(doc, map, "read_only", yaml_bool(doc, true));
    if (has_metadata(fields))
        yaml_map_set(doc, map, "metadata", (yaml_value *)fields->metadata);
    return put_mapping(map, fields->value, out, err);
}

void block_serialize(const block_fields *fields, memfs_buf *out)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (serialize(fields, out, &err) != MEMFS_OK)
        out->too_big = true;
}

/* ---- merging ---- */

/* Sets key to value, or removes it (value NULL), where that changes the meaning. */
static memfs_code settle(yaml_doc *doc, yaml_value *map, const char *key, yaml_value *value,
                         bool *is_changed, memfs_error *err)
{
    const yaml_value *now = yaml_map_get(map, key);
    bool is_equal = false;

    if (value == NULL) {
        *is_changed |= now != NULL;
        yaml_map_remove(map, key);
        return MEMFS_OK;
    }
    if (now != NULL && yaml_equal(now, value, &is_equal, err) != MEMFS_OK)
        return memfs_context(err, "front matter '%s'", key);
    if (!is_equal) {
        *is_changed = true;
        yaml_map_set(doc, map, key, value);
    }
    return MEMFS_OK;
}

static memfs_code settle_all(yaml_doc *doc, yaml_value *map, const block_fields *fields,
                             bool *is_changed, memfs_error *err)
{
    yaml_value *read_only = fields->read_only ? yaml_bool(doc, true) : NULL;
    yaml_value *metadata = has_metadata(fields) ? (yaml_value *)fields->metadata : NULL;
    memfs_code rc;

    rc = settle(doc, map, "description", description_of(fields, doc), is_changed, err);
    if (rc == MEMFS_OK)
        rc = settle(doc, map, "limit", NULL, is_changed, err);
    if (rc == MEMFS_OK)
        rc = settle(doc, map, "read_only", read_only, is_changed, err);
    if (rc == MEMFS_OK)
        rc = settle(doc, map, "metadata", metadata, is_changed, err);
    return rc;
}

memfs_code block_merge(memfs_str existing, const block_fields *fields, memfs_buf *out,
                       memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    bool is_changed = false, aborts;
    memfs_str yaml, old_value;
    char problem[160];
    yaml_value *map;
    memfs_code rc;

    if (!split_text(existing, &yaml, &old_value))
        return serialize(fields, out, err);
    if (yaml.len > BLOCK_MAX_FRONT_MATTER)
        return memfs_fail(err, MEMFS_ELIMIT, "front matter is larger than %d bytes",
                          BLOCK_MAX_FRONT_MATTER);
    if (!load_mapping(yaml, doc, &map, &aborts, problem, sizeof(problem))) {
        if (aborts)
            return memfs_fail(err, MEMFS_EINVALID, "%s", problem);
        map = yaml_map(doc);
    }
    rc = settle_all(doc, map, fields, &is_changed, err);
    if (rc != MEMFS_OK)
        return rc;
    if (is_changed)
        return put_mapping(map, fields->value, out, err);
    buf_add_str(out, OPENER);
    buf_add_str(out, yaml);
    buf_add_str(out, CLOSER);
    buf_add_str(out, fields->value);
    return MEMFS_OK;
}

/* ---- amending ---- */

/* Where in the file as it is the decoded text is at `at`: a CRLF is one byte there. */
static size_t raw_offset(memfs_str raw, size_t at)
{
    size_t pos = 0;

    for (; at > 0 && pos < raw.len; at--)
        pos += raw.ptr[pos] == '\r' && pos + 1 < raw.len && raw.ptr[pos + 1] == '\n' ? 2 : 1;
    return pos;
}

/* A file cut in two: front is what is before the value, as bytes; map is NULL if that is nothing.
 */
typedef struct amending {
    memfs_str front, value;
    yaml_value *map;
    bool is_changed;
} amending;

static memfs_code cut_file(memfs_str existing, bool keeps_value, yaml_doc *doc, memfs_buf *decoded,
                           amending *ret, memfs_error *err)
{
    memfs_str yaml, value;
    size_t at = 0, bad_at;
    char problem[160];
    bool aborts;

    *ret = (amending){ .value = existing };
    if (!block_decode(existing, decoded, &bad_at)) {
        if (keeps_value)
            return memfs_fail(err, MEMFS_EINVALID,
                              "the file is not UTF-8 (first at byte %zu): give a value too",
                              bad_at);
        return MEMFS_OK;
    }
    if (split_text(buf_str(decoded), &yaml, &value) &&
        load_mapping(yaml, doc, &ret->map, &aborts, problem, sizeof(problem)))
        at = raw_offset(existing, (size_t)(value.ptr - decoded->ptr));
    ret->front = str_make(existing.ptr, at);
    ret->value = str_from(existing, at);
    return MEMFS_OK;
}

/* Before a value that alone would be read otherwise. */
static bool needs_front(memfs_str value)
{
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    block parsed;
    bool is_parsed;
    size_t bad_at;

    if (!str_starts_with(value, str_make(OPENER.ptr, 3)) || !block_decode(value, &decoded, &bad_at))
        return false;
    block_parse(buf_str(&decoded), &parsed);
    is_parsed = parsed.doc != NULL;
    block_dispose(&parsed);
    return is_parsed;
}

static memfs_code amend_fields(const block_changes *c, yaml_doc *doc, amending *a, memfs_error *err)
{
    bool has_map = c->metadata != NULL && c->metadata->type == YAML_MAP && c->metadata->map.n > 0;
    bool *is_changed = &a->is_changed;
    memfs_code rc = MEMFS_OK;

    if (a->map == NULL)
        a->map = yaml_map(doc);
    if (c->has_description)
        rc = settle(doc, a->map, "description", yaml_text(doc, c->description), is_changed, err);
    if (rc == MEMFS_OK && c->drops_limit)
        rc = settle(doc, a->map, "limit", NULL, is_changed, err);
    if (rc == MEMFS_OK && c->has_read_only)
        rc = settle(doc, a->map, "read_only", c->read_only ? yaml_bool(doc, true) : NULL,
                    is_changed, err);
    if (rc == MEMFS_OK && c->metadata != NULL)
        rc = settle(doc, a->map, "metadata", has_map ? (yaml_value *)c->metadata : NULL, is_changed,
                    err);
    return rc;
}

/*
 * What was written must be read again as it was meant: front matter may be too large or nested too
 * deep to be read, and PyYAML's style, which is ours, loses a NEL.  Written once more, it says so.
 */
static memfs_code check_file(memfs_str file, memfs_str value, memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    _cleanup_(buf_dispose) memfs_buf again = MEMFS_BUF_INIT(BLOCK_MAX_FRONT_MATTER + 1);
    memfs_str yaml, rest;
    yaml_value *map;
    char problem[160];
    bool aborts;

    if (!split_text(file, &yaml, &rest) || !str_equal(rest, value))
        return memfs_fail(err, MEMFS_EINVALID, "this text cannot stand in front matter");
    if (!load_mapping(yaml, doc, &map, &aborts, problem, sizeof(problem)))
        return memfs_fail(err, MEMFS_ELIMIT, "description and metadata cannot be kept: %s",
                          problem);
    if (yaml_emit(map, &again, err) < 0)
        return err->code;
    if (again.len > 0 && again.ptr[again.len - 1] == '\n')
        again.len--;
    if (again.too_big || !str_equal(buf_str(&again), yaml))
        return memfs_fail(err, MEMFS_EINVALID,
                          "description and metadata cannot be kept as they are: YAML loses the "
                          "line break U+0085 of a text");
    return MEMFS_OK;
}

/* Metadata that no row would show. */
static memfs_code check_metadata(const block_changes *c, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf json = MEMFS_BUF_INIT(BLOCK_MAX_METADATA_JSON);

    return c->metadata == NULL ? MEMFS_OK : yaml_to_json(c->metadata, &json, err);
}

memfs_code block_amend(memfs_str existing, const block_changes *c, memfs_buf *out, memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str value;
    amending a;
    memfs_code rc;

    rc = cut_file(existing, !c->has_value, doc, &decoded, &a, err);
    if (rc == MEMFS_OK)
        rc = check_metadata(c, err);
    if (rc == MEMFS_OK)
        rc = amend_fields(c, doc, &a, err);
    if (rc < 0)
        return rc;
    value = c->has_value ? c->value : a.value;
    if (!a.is_changed && a.front.len == 0 && c->has_value)
        a.is_changed = needs_front(value);
    if (a.is_changed && a.map->map.n == 0 && !needs_front(value)) {
        a.front = MEMFS_STR(""); /* the last of its keys went */
        a.is_changed = false;
    }
    if (a.is_changed) {
        if (a.map->map.n == 0)
            yaml_map_set(doc, a.map, "description", yaml_null(doc));
        rc = put_mapping(a.map, value, out, err);
        if (rc == MEMFS_OK)
            rc = buf_check(out, "the block's file", err);
        return rc < 0 ? rc : check_file(buf_str(out), value, err);
    }
    buf_add_str(out, a.front);
    buf_add_str(out, value);
    return buf_check(out, "the block's file", err);
}

/* ---- a row ---- */

static void add_problem(block_row_fields *row, const char *what)
{
    size_t n = strlen(row->problem);

    snprintf(row->problem + n, sizeof(row->problem) - n, "%s%s", n > 0 ? "; " : "", what);
}

static void add_type_problem(block_row_fields *row, const char *key, const yaml_value *v)
{
    char what[80];

    snprintf(what, sizeof(what), "'%s' is ignored: a %s cannot stand there", key,
             yaml_type_name(v->type));
    add_problem(row, what);
}

static bool is_absent(const yaml_value *v)
{
    return v == NULL || v->type == YAML_NULL;
}

static bool is_usable_description(const yaml_value *v, block_row_fields *row)
{
    if (is_absent(v))
        return false;
    if (v->type == YAML_TEXT)
        return v->text.len > 0;
    add_type_problem(row, "description", v);
    return false;
}

static void put_description(const yaml_value *v, memfs_str label, memfs_buf *out,
                            block_row_fields *row)
{
    size_t ignored;

    if (!is_usable_description(v, row)) {
        buf_add_str(out, label);
        buf_puts(out, " block");
    } else if (str_utf8_valid_prefix(v->text) == v->text.len) {
        buf_add_str(out, v->text);
    } else {
        add_problem(row, "'description' holds half a surrogate pair");
        block_decode(v->text, out, &ignored);
    }
}

static int64_t limit_of(const yaml_value *v, block_row_fields *row)
{
    if (is_absent(v) || (v->type == YAML_INT && v->integer == 0))
        return BLOCK_DEFAULT_LIMIT;
    if (v->type == YAML_INT && v->integer >= INT32_MIN && v->integer <= INT32_MAX)
        return v->integer;
    if (v->type == YAML_INT || v->type == YAML_BIGINT)
        add_problem(row, "'limit' is ignored: it does not fit 32 bits");
    else
        add_type_problem(row, "limit", v);
    return BLOCK_DEFAULT_LIMIT;
}

/* true, false, and the numbers that equal them */
static bool read_only_of(const yaml_value *v, block_row_fields *row)
{
    static const yaml_value yes = { .type = YAML_BOOL, { .boolean = true } };
    static const yaml_value no = { .type = YAML_BOOL, { .boolean = false } };

    if (is_absent(v) || yaml_scalar_equal(v, &no))
        return false;
    if (yaml_scalar_equal(v, &yes))
        return true;
    add_type_problem(row, "read_only", v);
    return false;
}

static void put_metadata(const yaml_value *v, memfs_buf *out, block_row_fields *row)
{
    _cleanup_(buf_dispose) memfs_buf json = MEMFS_BUF_INIT(BLOCK_MAX_METADATA_JSON);
    memfs_error err = MEMFS_ERROR_INIT;
    char what[120];

    if (!is_absent(v) && v->type != YAML_MAP) {
        add_type_problem(row, "metadata", v);
    } else if (!is_absent(v)) {
        if (yaml_to_json(v, &json, &err) == MEMFS_OK) {
            buf_add_str(out, buf_str(&json));
            return;
        }
        snprintf(what, sizeof(what), "'metadata' is ignored: %.80s", err.msg);
        add_problem(row, what);
    }
    buf_puts(out, "{}");
}

void block_row_of(const block *b, memfs_str label, memfs_buf *scratch, block_row_fields *ret)
{
    size_t description = scratch->len, metadata;

    *ret = (block_row_fields){ .value = b->value };
    memcpy(ret->problem, b->problem, sizeof(ret->problem));
    ret->limit = limit_of(b->limit, ret);
    ret->read_only = read_only_of(b->read_only, ret);
    put_description(b->description, label, scratch, ret);
    metadata = scratch->len;
    put_metadata(b->metadata, scratch, ret);
    ret->description = str_make(scratch->ptr + description, metadata - description);
    ret->metadata_json = str_from(buf_str(scratch), metadata);
    if (scratch->too_big) {
        add_problem(ret, "front matter does not fit its buffer");
        ret->metadata_json = MEMFS_STR("{}");
    }
}
