#include "server/shape.h"

#include "base/clock.h"
#include "server/agent_fields.h"

/* Fields that have one value for every block or agent stand here as text, in one piece. */
#define RAW(text) MEMFS_STR(text)

static const char BLOCK_TEMPLATE_FIELDS[] =
    "\"project_id\":null,\"template_name\":null,\"is_template\":false,\"template_id\":null,"
    "\"base_template_id\":null,\"deployment_id\":null,\"entity_id\":null,"
    "\"preserve_on_migration\":false";

static memfs_str or_empty(memfs_str json, const char *empty)
{
    return json.len > 0 ? json : str_of(empty);
}

void shape_block(json_writer *w, const block_row *row, bool with_tags)
{
    jw_object(w);
    jw_key_str(w, "value", row->value);
    jw_key_int(w, "limit", row->limit);
    jw_raw(w, MEMFS_STR(BLOCK_TEMPLATE_FIELDS));
    jw_key_str(w, "label", row->label);
    jw_raw(w, row->read_only ? RAW("\"read_only\":true") : RAW("\"read_only\":false"));
    if (row->has_description)
        jw_key_str(w, "description", row->description);
    else
        jw_raw(w, RAW("\"description\":null"));
    jw_key(w, "metadata");
    jw_raw(w, or_empty(row->metadata_json, "{}"));
    jw_raw(w, row->hidden ? RAW("\"hidden\":true") : RAW("\"hidden\":null"));
    jw_key_str(w, "id", row->id);
    jw_raw(w, RAW("\"created_by_id\":null,\"last_updated_by_id\":null"));
    jw_key(w, "tags");
    jw_raw(w, with_tags ? or_empty(row->tags_json, "[]") : RAW("[]"));
    jw_object_end(w);
}

void shape_memory(json_writer *w, memfs_str blocks_json)
{
    jw_object(w);
    jw_raw(w, RAW("\"agent_type\":\"" SHAPE_AGENT_TYPE "\",\"git_enabled\":true"));
    jw_key(w, "blocks");
    jw_raw(w, blocks_json);
    jw_raw(w, RAW("\"file_blocks\":[],\"prompt_template\":\"\""));
    jw_object_end(w);
}

/* A quote inside an element is escaped. */
bool shape_has_git_tag(memfs_str tags)
{
    static const char quoted[] = "\"" SHAPE_GIT_TAG "\"";
    const char *end = tags.ptr + tags.len, *at = tags.ptr;

    while (tags.len > 0 && (at = memmem(at, (size_t)(end - at), quoted, sizeof(quoted) - 1))) {
        if (at == tags.ptr || at[-1] != '\\')
            return true;
        at++;
    }
    return false;
}

/* Every agent here has its memory in git; the stored tags may or may not say so too. */
static void put_tags(json_writer *w, memfs_str tags)
{
    jw_key(w, "tags");
    if (shape_has_git_tag(tags)) {
        jw_raw(w, tags);
        return;
    }
    jw_array(w);
    jw_text(w, SHAPE_GIT_TAG);
    if (tags.len > 2) /* more than "[]": its elements follow ours */
        jw_raw(w, str_make(tags.ptr + 1, tags.len - 2));
    jw_array_end(w);
}

static void put_time(json_writer *w, const char *key, int64_t wall_us)
{
    char text[CLOCK_ISO_LEN];

    clock_iso(wall_us, text);
    jw_key_text(w, key, text);
}

static void put_agent_head(json_writer *w, const state_agent *agent)
{
    jw_raw(w, RAW("\"created_by_id\":null,\"last_updated_by_id\":null"));
    put_time(w, "created_at", agent->created_at_us);
    put_time(w, "updated_at", agent->updated_at_us);
    jw_key_str(w, "id", agent->id);
    jw_key_str(w, "name", agent->name.len > 0 ? agent->name : agent->id);
}

void shape_agent(json_writer *w, const state_agent *agent, unsigned relations,
                 memfs_str blocks_json)
{
    memfs_str blocks = relations & SHAPE_BLOCKS ? blocks_json : RAW("[]");
    json_t *fields = agent_fields_parse(agent->fields_json);

    jw_object(w);
    put_agent_head(w, agent);
    agent_fields_put_head(w, fields);
    jw_key(w, "memory");
    shape_memory(w, blocks);
    jw_key(w, "blocks");
    jw_raw(w, blocks);
    jw_raw(w, RAW("\"tools\":[],\"sources\":[]"));
    if (relations & SHAPE_TAGS)
        put_tags(w, agent->tags_json);
    else
        jw_raw(w, RAW("\"tags\":[]"));
    agent_fields_put_tail(w, fields);
    jw_object_end(w);
    json_decref(fields);
}

/* Opaque to clients: the agent's own id under another prefix, so that it never changes. */
void shape_own_repository(json_writer *w, memfs_str agent_id)
{
    static const char prefix[] = "agent-";
    memfs_str rest = str_from(agent_id, sizeof(prefix) - 1);
    _cleanup_(buf_dispose) memfs_buf id = MEMFS_BUF_INIT(256);

    buf_puts(&id, "repo-");
    buf_add_str(&id, rest);
    jw_object(w);
    jw_key_str(w, "id", buf_str(&id));
    jw_raw(w, RAW("\"name\":\"memory\",\"is_primary\":true,\"permissions\":\"read_write\""));
    jw_object_end(w);
}

void shape_repository(json_writer *w, const shared_repo *row)
{
    jw_object(w);
    jw_key_str(w, "id", row->id);
    jw_key_str(w, "name", row->name);
    put_time(w, "created_at", row->created_at_us);
    put_time(w, "updated_at", row->updated_at_us);
    jw_object_end(w);
}

void shape_link(json_writer *w, const shared_link *row)
{
    jw_object(w);
    jw_key_str(w, "id", row->repo_id);
    jw_key_str(w, "name", row->name);
    jw_raw(w, row->may_write ? RAW("\"is_primary\":false,\"permissions\":\"read_write\"")
                             : RAW("\"is_primary\":false,\"permissions\":\"read\""));
    jw_object_end(w);
}
