#include "server/agent_fields.h"

#include <stdlib.h>

#define MAX_LIST 1000

typedef enum field_kind {
    FIELD_FIXED, /* never told */
    FIELD_TEXT,
    FIELD_MAP,
    FIELD_BOOL,
    FIELD_INT,
    FIELD_LIST,
} field_kind;

typedef struct field {
    const char *key;
    field_kind kind;
    const char *absent; /* as JSON */
} field;

/* In the order of an AgentState. */
static const field HEAD[] = {
    { "tool_rules", FIELD_LIST, "[]" },       { "message_ids", FIELD_FIXED, "[]" },
    { "system", FIELD_TEXT, "\"\"" },         { "agent_type", FIELD_TEXT, "\"letta_v1_agent\"" },
    { "llm_config", FIELD_MAP, "null" },      { "embedding_config", FIELD_MAP, "null" },
    { "model", FIELD_TEXT, "null" },          { "embedding", FIELD_TEXT, "null" },
    { "model_settings", FIELD_MAP, "null" },  { "compaction_settings", FIELD_MAP, "null" },
    { "response_format", FIELD_MAP, "null" }, { "description", FIELD_TEXT, "null" },
    { "metadata", FIELD_MAP, "{}" },
};
static const field TAIL[] = {
    { "tool_exec_environment_variables", FIELD_FIXED, "[]" },
    { "secrets", FIELD_FIXED, "[]" },
    { "project_id", FIELD_TEXT, "null" },
    { "template_id", FIELD_TEXT, "null" },
    { "base_template_id", FIELD_TEXT, "null" },
    { "deployment_id", FIELD_FIXED, "null" },
    { "entity_id", FIELD_FIXED, "null" },
    { "identity_ids", FIELD_FIXED, "[]" },
    { "identities", FIELD_FIXED, "[]" },
    { "pending_approval", FIELD_FIXED, "null" },
    { "message_buffer_autoclear", FIELD_BOOL, "false" },
    { "enable_sleeptime", FIELD_BOOL, "false" },
    { "multi_agent_group", FIELD_FIXED, "null" },
    { "managed_group", FIELD_FIXED, "null" },
    { "last_run_completion", FIELD_FIXED, "null" },
    { "last_run_duration_ms", FIELD_FIXED, "null" },
    { "last_stop_reason", FIELD_FIXED, "null" },
    { "timezone", FIELD_TEXT, "\"UTC\"" },
    { "max_files_open", FIELD_INT, "null" },
    { "per_file_view_window_char_limit", FIELD_INT, "null" },
    { "hidden", FIELD_BOOL, "null" },
};

/* ---- reading ---- */

/* The value as it is to be kept, NULL: none was told, or it is wrong. */
static json_t *read_field(body *b, const field *f)
{
    _cleanup_(buf_dispose) memfs_buf map = MEMFS_BUF_INIT(BODY_MAX_BYTES);
    memfs_str text;
    int64_t number;
    bool truth;
    size_t n;

    switch (f->kind) {
    case FIELD_TEXT:
        return body_text(b, f->key, BODY_NULLABLE, &text) ? json_stringn_nocheck(text.ptr, text.len)
                                                          : NULL;
    case FIELD_MAP:
        return body_map(b, f->key, BODY_NULLABLE, &map)
                   ? json_incref(json_object_get(b->object, f->key))
                   : NULL;
    case FIELD_BOOL:
        return body_bool(b, f->key, BODY_NULLABLE, &truth) ? json_boolean(truth) : NULL;
    case FIELD_INT:
        return body_int(b, f->key, BODY_NULLABLE, &number) ? json_integer(number) : NULL;
    case FIELD_LIST:
        return body_list(b, f->key, BODY_NULLABLE, MAX_LIST, &n)
                   ? json_incref(json_object_get(b->object, f->key))
                   : NULL;
    case FIELD_FIXED: break;
    }
    return NULL;
}

static void read_fields(body *b, const field *list, size_t n, json_t *fields)
{
    for (size_t i = 0; i < n; i++) {
        json_t *value = read_field(b, &list[i]);

        if (value != NULL)
            json_object_set_new(fields, list[i].key, value);
    }
}

void agent_fields_read(body *b, json_t *fields)
{
    read_fields(b, HEAD, ARRAY_LEN(HEAD), fields);
    read_fields(b, TAIL, ARRAY_LEN(TAIL), fields);
}

bool agent_fields_are_hidden(const json_t *fields)
{
    return json_is_true(json_object_get(fields, "hidden"));
}

/* ---- as it is kept ---- */

json_t *agent_fields_parse(memfs_str fields_json)
{
    json_t *fields = fields_json.len > 0
                         ? json_loadb(fields_json.ptr, fields_json.len, JSON_ALLOW_NUL, NULL)
                         : NULL;

    if (json_is_object(fields))
        return fields;
    json_decref(fields);
    return json_object();
}

static void put_json(memfs_buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    buf_puts(out, text != NULL ? text : "null");
    free(text);
}

void agent_fields_text(const json_t *fields, memfs_buf *out)
{
    if (json_object_size(fields) > 0)
        put_json(out, fields);
}

/* ---- answering ---- */

static void put_fields(json_writer *w, const field *list, size_t n, const json_t *fields)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(fields, list[i].key);

        jw_key(w, list[i].key);
        if (value == NULL) {
            jw_raw(w, str_of(list[i].absent));
            continue;
        }
        jw_raw(w, MEMFS_STR(""));
        put_json(w->out, value);
    }
}

void agent_fields_put_head(json_writer *w, const json_t *fields)
{
    put_fields(w, HEAD, ARRAY_LEN(HEAD), fields);
}

void agent_fields_put_tail(json_writer *w, const json_t *fields)
{
    put_fields(w, TAIL, ARRAY_LEN(TAIL), fields);
}
