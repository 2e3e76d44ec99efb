/*
 * edit_state.c - births and documents that change with a commit, and the journal between the two.
 *
 *     journal and births   one transaction of the state; `undo` in it is what the births were
 *     main and its rows    the commit's message names the journal (EDIT_TRAILER)
 *     what follows         one transaction, and the journal goes with it
 *
 * A crash before main moved: the births are taken back.  After it: what follows is done.  Which of
 * the two, the history says, from where main was when the edit began.  So a label is nobody's
 * twice: a block that is renamed or handed on keeps its id at the new place, and the old one gets
 * another as soon as nothing of the old commit is main's (K4).
 */
#include "sync/edit_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "memory/label.h"
#include "store/amend.h"
#include "store/history.h"
#include "sync/away.h"
#include "sync/edit_left.h"
#include "sync/loose.h"
#include "sync/materialise.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_WALK 20000

/* ---- sets ---- */

static memfs_str copy_of(memfs_str s)
{
    return str_make(mem_strndup(s.ptr == NULL ? "" : s.ptr, s.len), s.len);
}

static void drop(memfs_str s)
{
    free((char *)s.ptr);
}

static void set_add_birth(edit_set *set, const state_birth *birth)
{
    state_birth *to;

    set->births = mem_realloc(set->births, set->n_births + 1, sizeof(*set->births));
    to = &set->births[set->n_births++];
    *to = *birth;
    to->label = copy_of(birth->label);
    to->tags_json = copy_of(birth->tags_json);
    to->block_id = copy_of(birth->block_id);
}

static void set_add_doc(edit_set *set, const state_doc *doc)
{
    state_doc *to;

    set->docs = mem_realloc(set->docs, set->n_docs + 1, sizeof(*set->docs));
    to = &set->docs[set->n_docs++];
    *to = (state_doc){ copy_of(doc->kind), copy_of(doc->id), copy_of(doc->body), doc->changed };
}

static void set_dispose(edit_set *set)
{
    for (size_t i = 0; i < set->n_births; i++) {
        drop(set->births[i].label);
        drop(set->births[i].tags_json);
        drop(set->births[i].block_id);
    }
    for (size_t i = 0; i < set->n_docs; i++) {
        drop(set->docs[i].kind);
        drop(set->docs[i].id);
        drop(set->docs[i].body);
    }
    free(set->births);
    free(set->docs);
    *set = (edit_set){ NULL, 0, NULL, 0 };
}

void edit_set_birth(edit *e, const state_birth *birth)
{
    set_add_birth(&e->now, birth);
}

void edit_set_doc(edit *e, const state_doc *doc)
{
    set_add_doc(&e->now, doc);
}

void edit_then_birth(edit *e, const state_birth *birth)
{
    set_add_birth(&e->then, birth);
}

void edit_then_doc(edit *e, const state_doc *doc)
{
    set_add_doc(&e->then, doc);
}

bool edit_has_state(const edit *e)
{
    return e->now.n_births + e->now.n_docs + e->then.n_births + e->then.n_docs > 0;
}

void edit_state_clear(edit *e)
{
    set_dispose(&e->now);
    set_dispose(&e->then);
    e->id[0] = '\0';
}

/* ---- was it done? ---- */

typedef struct walk {
    memfs_oid *list; /* seen; what is before `at` was looked at */
    size_t n, cap, at;
} walk;

static void walk_dispose(walk *w)
{
    free(w->list);
}

/* Histories of a few commits: a list will do. */
static void walk_add(walk *w, const memfs_oid *id, const memfs_oid *since)
{
    if (oid_equal(id, since) || w->n >= MAX_WALK)
        return;
    for (size_t i = 0; i < w->n; i++)
        if (oid_equal(&w->list[i], id))
            return;
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 64 : w->cap * 2;
        w->list = mem_realloc(w->list, w->cap, sizeof(*w->list));
    }
    w->list[w->n++] = *id;
}

static bool names_edit(memfs_str message, const char *id)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(256);

    buf_printf(&line, "\n" EDIT_TRAILER "%s\n", id);
    return memmem(message.ptr, message.len, line.ptr, line.len) != NULL;
}

static memfs_code find_trailer(repo *r, const memfs_oid *tip, const memfs_oid *since,
                               const char *id, bool *ret, memfs_error *err)
{
    _cleanup_(walk_dispose) walk w = { NULL, 0, 0, 0 };

    *ret = false;
    walk_add(&w, tip, since);
    for (; !*ret && w.at < w.n; w.at++) {
        _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
        memfs_code rc = repo_commit_info(r, &w.list[w.at], &info, err);

        if (rc < 0)
            return rc;
        *ret = names_edit(info.message, id);
        for (size_t i = 0; i < info.n_parents; i++)
            walk_add(&w, &info.parents[i], since);
    }
    return MEMFS_OK;
}

memfs_code edit_was_done(edit *e, const char *id, const memfs_oid *since, bool *ret,
                         memfs_error *err)
{
    return find_trailer(e->r, &e->v.tip, since, id, ret, err);
}

/* ---- the journal ---- */

static void put_births(json_writer *w, const char *key, const edit_set *set)
{
    jw_key(w, key);
    jw_array(w);
    for (size_t i = 0; i < set->n_births; i++) {
        const state_birth *b = &set->births[i];

        jw_object(w);
        jw_key_str(w, "label", b->label);
        jw_key_int(w, "created_at", b->created_at_us);
        jw_key_str(w, "tags", b->tags_json);
        jw_key_str(w, "id", b->block_id);
        jw_key_int(w, "limit", b->limit);
        jw_key_bool(w, "hidden", b->hidden);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void put_docs(json_writer *w, const char *key, const edit_set *set)
{
    jw_key(w, key);
    jw_array(w);
    for (size_t i = 0; i < set->n_docs; i++) {
        jw_object(w);
        jw_key_str(w, "kind", set->docs[i].kind);
        jw_key_str(w, "id", set->docs[i].id);
        jw_key_str(w, "body", set->docs[i].body);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void put_journal(const edit *e, const edit_set *undo, bool has_commit, memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(&e->v.tip, hex);
    edit_left_begin(&w, e->h, e->v.a->id);
    jw_key_text(&w, "before", hex);
    jw_key_bool(&w, "has_commit", has_commit);
    put_births(&w, "now", &e->now);
    put_births(&w, "undo", undo);
    put_births(&w, "then", &e->then);
    put_docs(&w, "undo_docs", undo);
    put_docs(&w, "docs", &e->then);
    jw_object_end(&w);
}

static void read_births(const json_t *list, edit_set *to)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        const state_birth birth = {
            .label = edit_left_text(v, "label"),
            .created_at_us = json_integer_value(json_object_get(v, "created_at")),
            .tags_json = edit_left_text(v, "tags"),
            .block_id = edit_left_text(v, "id"),
            .limit = json_integer_value(json_object_get(v, "limit")),
            .hidden = json_is_true(json_object_get(v, "hidden")),
        };

        set_add_birth(to, &birth);
    }
}

static void read_docs(const json_t *list, edit_set *to)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        const state_doc doc = { edit_left_text(v, "kind"), edit_left_text(v, "id"),
                                edit_left_text(v, "body"), 0 };

        set_add_doc(to, &doc);
    }
}

void edit_journal_begin(edit *e)
{
    ids_new("edit", e->id);
    if (e->message.len == 0)
        edit_say(e, "Change the memory");
    if (e->message.len > 0 && e->message.ptr[e->message.len - 1] != '\n')
        buf_putc(&e->message, '\n');
    edit_say(e, "\n" EDIT_TRAILER "%s\n", e->id);
}

/* ---- doing it ---- */

static memfs_code take_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)err;
    set_add_birth(ctx, birth);
    return MEMFS_OK;
}

static memfs_code take_doc(const state_doc *doc, void *ctx, memfs_error *err)
{
    state_doc own = *doc;

    (void)err;
    own.changed = 0;
    set_add_doc(ctx, &own);
    return MEMFS_OK;
}

/* What the state says of the labels that are about to change; one it does not know is to go. */
static memfs_code note_undo(edit *e, edit_set *undo, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < e->now.n_births; i++) {
        const state_birth none = { .label = e->now.births[i].label };
        size_t n = undo->n_births;

        rc = state_births(e->h->state, str_of(e->v.a->id), none.label, take_birth, undo, err);
        if (rc == MEMFS_OK && undo->n_births == n)
            set_add_birth(undo, &none);
    }
    for (size_t i = 0; rc == MEMFS_OK && i < e->now.n_docs; i++) {
        const state_doc none = { e->now.docs[i].kind, e->now.docs[i].id, MEMFS_STR(""), 0 };
        size_t n = undo->n_docs;

        rc = state_docs(e->h->state, none.kind, none.id, 0, take_doc, undo, err);
        if (rc == MEMFS_OK && undo->n_docs == n)
            set_add_doc(undo, &none);
    }
    return rc;
}

static memfs_code apply_set(home *h, const agent *a, const edit_set *set, const state_doc *more,
                            memfs_error *err)
{
    _cleanup_(mem_freep) state_doc *docs = mem_alloc((set->n_docs + 1) * sizeof(*docs));
    state_change change = { .agent_id = str_of(a->id),
                            .births = set->births,
                            .n_births = set->n_births,
                            .docs = docs,
                            .n_docs = set->n_docs + 1 };

    if (set->n_docs > 0)
        memcpy(docs, set->docs, set->n_docs * sizeof(*docs));
    docs[set->n_docs] = *more;
    return state_change_apply(h->state, &change, err);
}

static memfs_code journal(edit *e, const edit_set *undo, bool has_commit, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    state_doc doc;

    put_journal(e, undo, has_commit, &body);
    doc = (state_doc){ EDIT_KIND, str_of(e->id), buf_str(&body), 0 };
    return apply_set(e->h, e->v.a, &e->now, &doc, err);
}

static void drop_birth(edit_set *set, size_t i)
{
    drop(set->births[i].label);
    drop(set->births[i].tags_json);
    drop(set->births[i].block_id);
    set->births[i] = set->births[--set->n_births];
}

static bool is_same_birth(const state_birth *a, const state_birth *b)
{
    return a->limit == b->limit && a->hidden == b->hidden &&
           str_equal(a->tags_json, b->tags_json) && str_equal(a->block_id, b->block_id);
}

static const state_birth *birth_of(const edit_set *set, memfs_str label)
{
    for (size_t i = 0; i < set->n_births; i++)
        if (str_equal(set->births[i].label, label))
            return &set->births[i];
    return NULL;
}

/* What somebody else has set since then is not taken back: only what is still as `now` set it. */
static memfs_code keep_own(home *h, const agent *a, const edit_set *now, edit_set *undo,
                           memfs_error *err)
{
    for (size_t i = undo->n_births; i-- > 0;) {
        _cleanup_(set_dispose) edit_set is = { NULL, 0, NULL, 0 };
        memfs_str label = undo->births[i].label;
        const state_birth *set = birth_of(now, label);
        memfs_code rc = state_births(h->state, str_of(a->id), label, take_birth, &is, err);

        if (rc < 0)
            return rc;
        if (set != NULL && (is.n_births == 0 || !is_same_birth(&is.births[0], set)))
            drop_birth(undo, i);
    }
    return MEMFS_OK;
}

/* Rows of labels whose births changed, and whose files did not; a cache that fails follows later.
 */
static void follow_births(home *h, agent *a, const edit_set *set)
{
    _cleanup_(mem_freep) memfs_str *labels = mem_alloc((set->n_births + 1) * sizeof(*labels));
    materialise_result rows;
    memfs_error err;

    for (size_t i = 0; i < set->n_births; i++)
        labels[i] = set->births[i].label;
    if (set->n_births > 0 && materialise_labels(h, a, labels, set->n_births, &rows, &err) < 0) {
        home_alarm(h, a, "rows_late",
                   "what blocks are called changed, and rows could not follow: %s", err.msg);
        home_is_behind(h, a);
    }
}

/* What follows, and the journal goes; a failure is made up for by edit_recover(). */
static void finish(home *h, const agent *a, const char *id, const edit_set *set)
{
    const state_doc gone = { EDIT_KIND, str_of(id), MEMFS_STR(""), 0 };
    memfs_error err;

    if (apply_set(h, a, set, &gone, &err) < 0)
        home_alarm(h, a, "edit_late", "the end of a change could not be noted yet: %s", err.msg);
    loose_follow(h); /* costs a look at two numbers */
}

memfs_code edit_advance(edit *e, const advance_step *step, memfs_error *err)
{
    _cleanup_(set_dispose) edit_set undo = { NULL, 0, NULL, 0 };
    bool has_commit = !oid_equal(&step->to, &e->v.tip);
    memfs_error ignored;
    memfs_code rc = note_undo(e, &undo, err);

    if (rc == MEMFS_OK)
        rc = journal(e, &undo, has_commit, err);
    if (rc < 0)
        return rc;
    if (has_commit)
        rc = advance_to(&e->v, step, err);
    if (rc < 0 && e->v.unclear)
        return rc; /* the journal is for edit_recover(): it will see */
    if (rc < 0 && home_is_shared(e->h) && keep_own(e->h, e->v.a, &e->now, &undo, &ignored) < 0)
        return rc; /* the same */
    if (rc == MEMFS_OK) {
        follow_births(e->h, e->v.a, &e->now);
        if (!has_commit) /* what a mirror carries of them is elsewhere now, too */
            home_moved(e->h, e->v.a);
    }
    finish(e->h, e->v.a, e->id, rc == MEMFS_OK ? &e->then : &undo);
    return rc;
}

/* ---- after a crash ---- */

/* Is the label's file as it was then?  What cannot be told is no. */
static bool is_file_as_then(repo *r, const memfs_oid *then, const memfs_oid *now, memfs_str label)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_oid old, new;
    memfs_error ignored;
    memfs_code rc;

    label_to_path(label, &path);
    rc = amend_find(r, then, buf_str(&path), &old, &ignored);
    if (rc != MEMFS_OK && rc != MEMFS_ENOTFOUND)
        return false;
    return amend_find(r, now, buf_str(&path), &new, &ignored) == rc &&
           (rc == MEMFS_ENOTFOUND || oid_equal(&old, &new));
}

/* Whoever made the change again, after the crash, has set its births himself (D4, K4). */
static memfs_code settle_undo(home *h, const agent *a, repo *r, const memfs_oid *before,
                              const memfs_oid *tip, const json_t *body, edit_set *undo,
                              memfs_error *err)
{
    _cleanup_(set_dispose) edit_set now = { NULL, 0, NULL, 0 };

    for (size_t i = undo->n_births; i-- > 0;)
        if (!is_file_as_then(r, before, tip, undo->births[i].label))
            drop_birth(undo, i);
    read_births(json_object_get(body, "now"), &now);
    return keep_own(h, a, &now, undo, err);
}

/* Under the agent's lock: nobody in this process is at it. */
static memfs_code end_one(home *h, agent *a, const char *id, const json_t *body, memfs_error *err)
{
    _cleanup_(set_dispose) edit_set then = { NULL, 0, NULL, 0 }, undo = { NULL, 0, NULL, 0 };
    _cleanup_(repo_closep) repo *r = NULL;
    bool is_done = !json_is_true(json_object_get(body, "has_commit"));
    memfs_oid before, tip;
    memfs_code rc;

    if (!oid_parse(edit_left_text(body, "before"), &before))
        return memfs_fail(err, MEMFS_ECORRUPT, "the journal of a change is damaged");
    rc = home_agent_main(h, str_of(a->id), a->repo, &tip, err);
    if (rc == MEMFS_OK)
        rc = repo_open(h->store, a->repo, &r, err);
    if (rc == MEMFS_OK && !is_done)
        rc = find_trailer(r, &tip, &before, id, &is_done, err);
    read_births(json_object_get(body, "undo"), &undo);
    read_docs(json_object_get(body, "undo_docs"), &undo);
    read_births(json_object_get(body, "then"), &then);
    read_docs(json_object_get(body, "docs"), &then);
    if (rc == MEMFS_OK && !is_done)
        rc = settle_undo(h, a, r, &before, &tip, body, &undo, err);
    if (rc < 0)
        return rc;
    finish(h, a, id, is_done ? &then : &undo);
    follow_births(h, a, &undo);
    return MEMFS_OK;
}

/* The journal may have gone, and its labels been changed again, while this one waited for the lock.
 */
static memfs_code recover_one(home *h, const char *id, const json_t *body, memfs_error *err)
{
    bool is_there;
    agent *a;
    memfs_code rc = home_agent(h, edit_left_text(body, "agent"), &a, err);

    if (rc < 0)
        return rc;
    if (!agent_lock_for(a, 1000)) /* busy: next time */
        return MEMFS_OK;
    rc = edit_left_is_there(h, id, &is_there, err);
    if (rc == MEMFS_OK && is_there)
        rc = end_one(h, a, id, body, err);
    agent_unlock(a);
    return rc;
}

memfs_code edit_recover(home *h, memfs_error *err)
{
    return edit_left_each(h, "before", recover_one, NULL, err);
}
