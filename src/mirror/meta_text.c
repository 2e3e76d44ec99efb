#include "mirror/meta_text.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/json.h"
#include "base/mem.h"
#include "memory/ids.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1
#define MAX_BIRTHS 200000
#define MAX_LABEL 1024

void meta_text_dispose(meta_text *t)
{
    for (size_t i = 0; i < t->n_tags; i++)
        free(t->tags[i]);
    for (size_t i = 0; i < t->n_births; i++)
        free(t->births[i].label);
    free(t->agent_id);
    free(t->name);
    free(t->tags);
    free(t->births);
    *t = (meta_text)META_TEXT_INIT;
}

/* ---- building ---- */

static void add_tag(meta_text *t, const char *tag)
{
    t->tags = mem_realloc(t->tags, t->n_tags + 1, sizeof(*t->tags));
    t->tags[t->n_tags++] = mem_strdup(tag);
}

static void add_birth(meta_text *t, const char *label, size_t n, int64_t at_us)
{
    if ((t->n_births & (t->n_births + 1)) == 0 || t->births == NULL) /* powers of two, and one */
        t->births = mem_realloc(t->births, 2 * (t->n_births + 1), sizeof(*t->births));
    t->births[t->n_births++] = (meta_birth){ mem_strndup(label, n), at_us };
}

static int compare_tags(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The earlier of two births of one label comes first. */
static int compare_births(const void *a, const void *b)
{
    const meta_birth *x = a, *y = b;
    int order = strcmp(x->label, y->label);

    if (order != 0)
        return order;
    return x->at_us < y->at_us ? -1 : x->at_us > y->at_us;
}

/* Sorted, and each tag and label once. */
static void settle(meta_text *t)
{
    size_t n = 0;

    if (t->n_tags > 0)
        qsort(t->tags, t->n_tags, sizeof(*t->tags), compare_tags);
    for (size_t i = 0; i < t->n_tags; i++)
        if (n > 0 && strcmp(t->tags[n - 1], t->tags[i]) == 0)
            free(t->tags[i]);
        else
            t->tags[n++] = t->tags[i];
    t->n_tags = n;
    n = 0;
    if (t->n_births > 0)
        qsort(t->births, t->n_births, sizeof(*t->births), compare_births);
    for (size_t i = 0; i < t->n_births; i++)
        if (n > 0 && strcmp(t->births[n - 1].label, t->births[i].label) == 0)
            free(t->births[i].label);
        else
            t->births[n++] = t->births[i];
    t->n_births = n;
}

/* ---- reading ---- */

static bool read_time(const char *text, int64_t *ret_us)
{
    return clock_of_iso(text, ret_us) && *ret_us > 0;
}

/* One line that no terminal acts on: the rule for names of files (policy.h), labels among them. */
static bool is_word(const char *s, size_t max)
{
    memfs_str text = str_of(s);
    size_t pos = 0;
    uint32_t cp;

    while (pos < text.len)
        if (!str_utf8_next(text, &pos, &cp) || escape_is_control(cp))
            return false;
    return text.len > 0 && text.len <= max;
}

static bool read_word(const json_t *value, size_t max, const char **ret)
{
    *ret = json_string_value(value);
    return *ret != NULL && strlen(*ret) == json_string_length(value) && is_word(*ret, max);
}

static bool read_tags(const json_t *tags, meta_text *t)
{
    const char *tag;
    const json_t *value;
    size_t i;

    if (tags == NULL)
        return true;
    if (!json_is_array(tags) || json_array_size(tags) > META_MAX_TAGS)
        return false;
    json_array_foreach(tags, i, value)
    {
        if (!read_word(value, META_MAX_NAME, &tag))
            return false;
        add_tag(t, tag);
    }
    return true;
}

static bool read_births(json_t *births, meta_text *t)
{
    const char *label, *text;
    const json_t *value;
    int64_t at_us;

    if (births == NULL)
        return true;
    if (!json_is_object(births) || json_object_size(births) > MAX_BIRTHS)
        return false;
    json_object_foreach(births, label, value)
    {
        if (!is_word(label, MAX_LABEL) || !read_word(value, CLOCK_ISO_LEN, &text) ||
            !read_time(text, &at_us))
            return false;
        add_birth(t, label, strlen(label), at_us);
    }
    return true;
}

static bool read_all(json_t *root, const char *agent_id, meta_text *t)
{
    const json_t *name = json_object_get(root, "name");
    const char *id, *text = "";

    if (json_integer_value(json_object_get(root, "version")) < VERSION ||
        !read_word(json_object_get(root, "agent_id"), IDS_MAX_LEN, &id) || strcmp(id, agent_id) != 0)
        return false;
    if (name != NULL && !read_word(name, META_MAX_NAME, &text))
        return false;
    t->agent_id = mem_strdup(id);
    t->name = mem_strdup(strcmp(text, id) == 0 ? "" : text);
    if (!read_word(json_object_get(root, "created_at"), CLOCK_ISO_LEN, &text) ||
        !read_time(text, &t->created_at_us))
        return false;
    return read_tags(json_object_get(root, "tags"), t) &&
           read_births(json_object_get(root, "births"), t);
}

memfs_code meta_text_parse(memfs_str text, const char *agent_id, meta_text *ret, memfs_error *err)
{
    json_t *root = text.len <= META_MAX_BYTES
                       ? json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL)
                       : NULL;
    meta_text t = META_TEXT_INIT;
    bool is_good = json_is_object(root) && read_all(root, agent_id, &t);

    json_decref(root);
    if (!is_good) {
        meta_text_dispose(&t);
        return memfs_fail(err, MEMFS_EINVALID, "the remote's " META_FILE " is not one of this "
                                               "agent that memfs wrote");
    }
    settle(&t);
    *ret = t;
    return MEMFS_OK;
}

/* ---- writing ---- */

static void write_time(json_writer *w, const char *key, int64_t at_us)
{
    char text[CLOCK_ISO_LEN];

    clock_iso(at_us, text);
    jw_key_text(w, key, text);
}

static void write_tags(json_writer *w, const meta_text *t)
{
    jw_array(w);
    for (size_t i = 0; i < t->n_tags; i++)
        jw_text(w, t->tags[i]);
    jw_array_end(w);
}

void meta_text_write(meta_text *t, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    settle(t);
    jw_object(&w);
    jw_key_text(&w, "agent_id", t->agent_id);
    jw_key(&w, "births");
    jw_object(&w);
    for (size_t i = 0; i < t->n_births; i++)
        write_time(&w, t->births[i].label, t->births[i].at_us);
    jw_object_end(&w);
    write_time(&w, "created_at", t->created_at_us);
    if (t->name[0] != '\0')
        jw_key_text(&w, "name", t->name);
    if (t->n_tags > 0) {
        jw_key(&w, "tags");
        write_tags(&w, t);
    }
    jw_key_int(&w, "version", VERSION);
    jw_object_end(&w);
    buf_putc(out, '\n');
}

/* ---- two of them ---- */

static void copy_births(meta_text *to, const meta_text *from)
{
    for (size_t i = 0; i < from->n_births; i++)
        add_birth(to, from->births[i].label, strlen(from->births[i].label), from->births[i].at_us);
}

static void copy_tags(meta_text *to, const meta_text *from)
{
    for (size_t i = 0; i < from->n_tags; i++)
        add_tag(to, from->tags[i]);
}

static int64_t earlier(int64_t a, int64_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

static const char *first_name(const char *a, const char *b)
{
    if (a[0] == '\0' || b[0] == '\0')
        return a[0] == '\0' ? b : a;
    return strcmp(a, b) < 0 ? a : b;
}

void meta_text_follow(const meta_text *of, const meta_text *births, meta_text *ret)
{
    *ret = (meta_text){ .agent_id = mem_strdup(of->agent_id), .name = mem_strdup(of->name),
                        .created_at_us = earlier(of->created_at_us, births->created_at_us) };
    copy_tags(ret, of);
    copy_births(ret, of);
    copy_births(ret, births);
    settle(ret);
}

void meta_text_join(const meta_text *a, const meta_text *b, meta_text *ret)
{
    meta_text_follow(a, b, ret);
    free(ret->name);
    ret->name = mem_strdup(first_name(a->name, b->name));
    copy_tags(ret, b);
    settle(ret);
}

bool meta_text_is_alike(const meta_text *a, const meta_text *b)
{
    if (strcmp(a->name, b->name) != 0 || a->n_tags != b->n_tags)
        return false;
    for (size_t i = 0; i < a->n_tags; i++)
        if (strcmp(a->tags[i], b->tags[i]) != 0)
            return false;
    return true;
}

/* ---- the state ---- */

static memfs_code take_agent(const state_agent *agent, void *ctx, memfs_error *err)
{
    meta_text *t = ctx;
    json_t *tags = json_loadb(agent->tags_json.ptr, agent->tags_json.len, 0, NULL);
    bool is_default = str_equal(agent->name, agent->id);

    (void)err;
    t->agent_id = mem_strndup(agent->id.ptr, agent->id.len);
    t->name = is_default ? mem_strdup("") : mem_strndup(agent->name.ptr, agent->name.len);
    if (t->name[0] != '\0' && !is_word(t->name, META_MAX_NAME)) /* nobody would take it */
        t->name[0] = '\0';
    t->created_at_us = agent->created_at_us;
    if (!read_tags(tags, t)) { /* more than travels: none of them */
        for (size_t i = 0; i < t->n_tags; i++)
            free(t->tags[i]);
        t->n_tags = 0;
    }
    json_decref(tags);
    return MEMFS_OK;
}

static memfs_code take_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    add_birth(ctx, birth->label.ptr, birth->label.len, birth->created_at_us);
    return MEMFS_OK;
}

memfs_code meta_text_load(state *s, const char *agent_id, meta_text *ret, memfs_error *err)
{
    const agent_query q = { .id = str_of(agent_id), .limit = 1 };
    meta_text t = META_TEXT_INIT;
    memfs_code rc = state_agents(s, &q, take_agent, &t, err);

    if (rc == MEMFS_OK && t.agent_id == NULL)
        rc = memfs_fail(err, MEMFS_ENOTFOUND, "there is no such agent");
    if (rc == MEMFS_OK)
        rc = state_births(s, str_of(agent_id), MEMFS_STR(""), take_birth, &t, err);
    if (rc < 0) {
        meta_text_dispose(&t);
        return rc;
    }
    settle(&t);
    *ret = t;
    return MEMFS_OK;
}

void meta_text_as_state(const meta_text *t, memfs_buf *tags_json, state_agent *ret,
                        state_birth **ret_births)
{
    json_writer w = JSON_WRITER_INIT(tags_json);
    state_birth *births = mem_realloc(NULL, t->n_births + 1, sizeof(*births));

    write_tags(&w, t);
    *ret = (state_agent){ .id = str_of(t->agent_id), .name = str_of(t->name),
                          .tags_json = buf_str(tags_json), .created_at_us = t->created_at_us };
    if (t->name[0] == '\0')
        ret->name = str_of(t->agent_id);
    for (size_t i = 0; i < t->n_births; i++)
        births[i] = (state_birth){ str_of(t->births[i].label), t->births[i].at_us };
    *ret_births = births;
}
