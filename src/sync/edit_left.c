#include "sync/edit_left.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define LEFT_MS 300000 /* longer than a request waits for locks and fsyncs */

/* One that this process has seen; of the thread that looks. */
struct edit_seen {
    char *id;
    int64_t first_ms; /* clock_mono_ms */
};

typedef struct journal {
    char *id;
    json_t *body;
} journal;

typedef struct journals {
    journal *list;
    size_t n;
} journals;

static void journals_dispose(journals *js)
{
    for (size_t i = 0; i < js->n; i++) {
        free(js->list[i].id);
        json_decref(js->list[i].body);
    }
    free(js->list);
}

void edit_left_begin(json_writer *w, home *h, const char *agent_id)
{
    jw_object(w);
    jw_key_text(w, "run", h->run);
    jw_key_text(w, "agent", agent_id);
}

memfs_str edit_left_text(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return json_is_string(v) ? str_make(json_string_value(v), json_string_length(v))
                             : MEMFS_STR("");
}

static memfs_code note(const state_doc *doc, void *ctx, memfs_error *err)
{
    journals *js = ctx;

    (void)err;
    js->list = mem_realloc(js->list, js->n + 1, sizeof(*js->list));
    js->list[js->n++] = (journal){ mem_strndup(doc->id.ptr, doc->id.len),
                                   json_loadb(doc->body.ptr, doc->body.len, JSON_ALLOW_NUL, NULL) };
    return MEMFS_OK;
}

static int64_t first_seen(const home *h, const char *id, int64_t now_ms)
{
    for (size_t i = 0; i < h->n_edits_seen; i++)
        if (strcmp(h->edits_seen[i].id, id) == 0)
            return h->edits_seen[i].first_ms;
    return now_ms;
}

void edit_left_close(home *h)
{
    for (size_t i = 0; i < h->n_edits_seen; i++)
        free(h->edits_seen[i].id);
    free(h->edits_seen);
    h->edits_seen = NULL;
    h->n_edits_seen = 0;
}

/* Those that are there, each with when it was first. */
static void see(home *h, const journals *js)
{
    struct edit_seen *now = mem_alloc((js->n + 1) * sizeof(*now));
    int64_t now_ms = clock_mono_ms();

    for (size_t i = 0; i < js->n; i++)
        now[i] =
            (struct edit_seen){ mem_strdup(js->list[i].id), first_seen(h, js->list[i].id, now_ms) };
    edit_left_close(h);
    h->edits_seen = now;
    h->n_edits_seen = js->n;
}

static bool is_left(home *h, const journal *j)
{
    bool is_own = str_equal(edit_left_text(j->body, "run"), str_of(h->run));

    if (!home_is_shared(h) && !is_own)
        return true;
    return clock_mono_ms() - first_seen(h, j->id, clock_mono_ms()) > LEFT_MS;
}

memfs_code edit_left_each(home *h, const char *key, edit_left_fn fn, size_t *ret_n,
                          memfs_error *err)
{
    _cleanup_(journals_dispose) journals js = { NULL, 0 };
    memfs_code rc = state_docs(h->state, EDIT_KIND, MEMFS_STR(""), 0, note, &js, err);

    if (rc < 0)
        return rc;
    see(h, &js);
    for (size_t i = 0; i < js.n; i++) {
        const journal *j = &js.list[i];
        memfs_error why = MEMFS_ERROR_INIT;
        bool has_key = json_object_get(j->body, key) != NULL;

        if (ret_n != NULL)
            *ret_n += has_key;
        if (j->body == NULL)
            (void)memfs_fail(&why, MEMFS_EINTERNAL, "journal %s is damaged", j->id);
        else if (has_key && is_left(h, j))
            (void)!fn(h, j->id, j->body, &why);
        if (why.code < 0)
            home_alarm(h, NULL, "edit_late", "a change that was cut short could not be ended: %s",
                       why.msg);
    }
    return MEMFS_OK;
}

memfs_code edit_left_of_block(home *h, const char *key, memfs_str block_id, edit_left_fn fn,
                              memfs_error *err)
{
    _cleanup_(journals_dispose) journals js = { NULL, 0 };
    memfs_code rc = state_docs(h->state, EDIT_KIND, MEMFS_STR(""), 0, note, &js, err);

    for (size_t i = 0; rc == MEMFS_OK && i < js.n; i++)
        if (json_object_get(js.list[i].body, key) != NULL &&
            str_equal(edit_left_text(js.list[i].body, "block"), block_id))
            rc = fn(h, js.list[i].id, js.list[i].body, err);
    return rc;
}

static memfs_code say_yes(const state_doc *doc, void *ctx, memfs_error *err)
{
    (void)doc;
    (void)err;
    *(bool *)ctx = true;
    return MEMFS_OK;
}

memfs_code edit_left_is_there(home *h, const char *id, bool *ret, memfs_error *err)
{
    *ret = false;
    return state_docs(h->state, EDIT_KIND, str_of(id), 0, say_yes, ret, err);
}
