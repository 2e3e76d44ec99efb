/*
 * row.c - f, the function from a file to its row.
 *
 * Files that are no good blocks are rows still, so that a person sees them (K5, K6):
 *   front matter that does not parse   the whole text is the value, as in the reference
 *   not UTF-8                          the text with U+FFFD, and metadata {"memfs_problem": ...}
 *   larger than max_block_bytes        an empty value, the same mark
 */
#include "sync/row.h"

#include "base/json.h"

#include <stdio.h>

void row_maker_dispose(row_maker *m)
{
    block_dispose(&m->parsed);
    buf_dispose(&m->text);
    buf_dispose(&m->scratch);
}

static void fill_row(row_maker *m, const block_row_fields *fields, block_row *ret)
{
    ret->value = fields->value;
    ret->has_description = true;
    ret->description = fields->description;
    ret->limit = fields->limit;
    ret->read_only = fields->read_only;
    ret->metadata_json = fields->metadata_json;
    ret->problem = str_of(m->problem);
}

/* The row of a file that is no block: defaults, this value, and the reason where clients see it. */
static void mark_row(row_maker *m, memfs_str label, memfs_str value, block_row *ret)
{
    block_row_fields fields = { .value = value, .limit = BLOCK_DEFAULT_LIMIT };
    json_writer w = JSON_WRITER_INIT(&m->scratch);
    size_t at;

    buf_add_str(&m->scratch, label);
    buf_puts(&m->scratch, " block");
    at = m->scratch.len;
    jw_object(&w);
    jw_key_text(&w, "memfs_problem", m->problem);
    jw_object_end(&w);
    fields.description = str_make(m->scratch.ptr, at);
    fields.metadata_json = str_from(buf_str(&m->scratch), at);
    fill_row(m, &fields, ret);
}

static void parse_row(row_maker *m, memfs_str label, block_row *ret)
{
    block_row_fields fields;

    block_parse(buf_str(&m->text), &m->parsed);
    m->says_limit = m->parsed.limit != NULL;
    block_row_of(&m->parsed, label, &m->scratch, &fields);
    if (m->parsed.problem[0] != '\0') {
        m->fault = ROW_NO_FRONT_MATTER;
        snprintf(m->problem, sizeof(m->problem), "%s", m->parsed.problem);
    } else if (fields.problem[0] != '\0') {
        m->fault = ROW_BAD_FIELD;
        snprintf(m->problem, sizeof(m->problem), "%s", fields.problem);
    }
    fill_row(m, &fields, ret);
}

void row_start(row_maker *m, memfs_str owner, memfs_str path, memfs_str label,
               const memfs_oid *blob, block_row *ret)
{
    block_dispose(&m->parsed);
    m->parsed = (block)BLOCK_INIT;
    buf_clear(&m->text);
    buf_clear(&m->scratch);
    m->problem[0] = '\0';
    m->says_limit = false;
    m->fault = ROW_WHOLE;
    ids_block(owner, label, m->id);
    *ret = (block_row){ .agent_id = owner,
                        .label = label,
                        .path = path,
                        .id = str_make(m->id, IDS_BLOCK_LEN),
                        .tags_json = MEMFS_STR("[]"),
                        .blob = *blob };
}

void row_make(row_maker *m, memfs_str label, memfs_str bytes, block_row *ret)
{
    size_t bad_at;

    ret->bytes = (int64_t)bytes.len;
    if (block_decode(bytes, &m->text, &bad_at)) {
        parse_row(m, label, ret);
        return;
    }
    m->fault = ROW_NOT_UTF8;
    snprintf(m->problem, sizeof(m->problem), "the file is not UTF-8 (first at byte %zu)", bad_at);
    mark_row(m, label, buf_str(&m->text), ret);
}

void row_make_large(row_maker *m, memfs_str label, uint64_t bytes, uint64_t max_bytes,
                    block_row *ret)
{
    ret->bytes = (int64_t)bytes;
    m->fault = ROW_TOO_LARGE;
    snprintf(m->problem, sizeof(m->problem), "the file has %llu bytes; a block has at most %llu",
             (unsigned long long)bytes, (unsigned long long)max_bytes);
    mark_row(m, label, MEMFS_STR(""), ret);
}

void row_slices(block_row *row, memfs_str *ret[ROW_N_SLICES])
{
    ret[0] = &row->label;
    ret[1] = &row->path;
    ret[2] = &row->id;
    ret[3] = &row->value;
    ret[4] = &row->description;
    ret[5] = &row->metadata_json;
    ret[6] = &row->problem;
}
