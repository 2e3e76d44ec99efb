#include "mirror/mirror_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void copy(char *to, size_t size, memfs_str text)
{
    snprintf(to, size, "%.*s", (int)text.len, text.ptr);
}

#define COPY(to, text) copy((to), sizeof(to), (text))

static memfs_code take_row(const state_mirror *row, void *ctx, memfs_error *err)
{
    mirror_record *r = ctx;

    (void)err;
    COPY(r->mark, row->mark);
    r->remote_tip = row->remote_tip;
    r->meta_tip = row->meta_tip;
    r->proof_tree = row->proof_tree;
    r->seen_at_us = row->seen_at_us;
    r->pushed_at_us = row->pushed_at_us;
    r->proof_at_us = row->proof_at_us;
    COPY(r->answer, row->answer);
    COPY(r->detail, row->detail);
    r->n_failures = row->n_failures;
    r->failed_at_us = row->failed_at_us;
    r->next_try_us = row->next_try_us;
    r->note = mirror_note_parse(row->note);
    COPY(r->note_text, row->note_text);
    r->note_at_us = row->note_at_us;
    return MEMFS_OK;
}

memfs_code record_load(mirror *m, const char *agent_id, const char *remote, mirror_record *ret,
                       memfs_error *err)
{
    memset(ret, 0, sizeof(*ret));
    return state_mirrors(home_state(mirror_home(m)), str_of(agent_id), str_of(remote), take_row,
                         ret, err);
}

/* What was learned. */
static bool is_same_standing(const mirror_record *a, const mirror_record *b)
{
    return strcmp(a->mark, b->mark) == 0 && oid_equal(&a->remote_tip, &b->remote_tip) &&
           oid_equal(&a->meta_tip, &b->meta_tip) && oid_equal(&a->proof_tree, &b->proof_tree) &&
           a->seen_at_us == b->seen_at_us && a->pushed_at_us == b->pushed_at_us &&
           a->proof_at_us == b->proof_at_us;
}

/* What fails, and what is noted. */
static bool is_same_trouble(const mirror_record *a, const mirror_record *b)
{
    return strcmp(a->answer, b->answer) == 0 && strcmp(a->detail, b->detail) == 0 &&
           a->n_failures == b->n_failures && a->failed_at_us == b->failed_at_us &&
           a->next_try_us == b->next_try_us && a->note == b->note &&
           strcmp(a->note_text, b->note_text) == 0 && a->note_at_us == b->note_at_us;
}

memfs_code record_save(mirror *m, const char *agent_id, const char *remote,
                       const mirror_record *before, const mirror_record *now, memfs_error *err)
{
    state_mirror row = {
        .agent_id = str_of(agent_id),
        .remote = str_of(remote),
        .mark = str_of(now->mark),
        .remote_tip = now->remote_tip,
        .meta_tip = now->meta_tip,
        .seen_at_us = now->seen_at_us,
        .pushed_at_us = now->pushed_at_us,
        .proof_at_us = now->proof_at_us,
        .proof_tree = now->proof_tree,
        .answer = str_of(now->answer),
        .detail = str_of(now->detail),
        .n_failures = now->n_failures,
        .failed_at_us = now->failed_at_us,
        .next_try_us = now->next_try_us,
        .note = str_of(now->note == MIRROR_NOTE_NONE ? "" : mirror_note_name(now->note)),
        .note_text = str_of(now->note_text),
        .note_at_us = now->note_at_us,
    };

    if (before != NULL && is_same_standing(before, now) && is_same_trouble(before, now))
        return MEMFS_OK;
    return state_mirror_put(home_state(mirror_home(m)), &row, err);
}

void record_note(mirror_record *r, mirror_note note, const char *fmt, ...)
{
    char text[sizeof(r->note_text)], clean[sizeof(r->note_text)];
    va_list ap;

    if (note == MIRROR_NOTE_BY_RULE && r->note != MIRROR_NOTE_NONE && r->note != note)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    escape_text(str_of(text), clean, sizeof(clean));
    if (r->note == note && strcmp(r->note_text, clean) == 0)
        return;
    r->note = note;
    memset(r->note_text, 0, sizeof(r->note_text));
    snprintf(r->note_text, sizeof(r->note_text), "%s", clean);
    r->note_at_us = clock_wall_us();
}

/* The first half of a mark is the address alone, so no credential is read for it. */
bool record_is_of(const remote_config *c, const char *agent_id, const mirror_record *r)
{
    _cleanup_(mem_freep) char *text = NULL;
    remote_target t = REMOTE_TARGET_INIT;
    memfs_error ignored;
    char mark[17];
    bool is_it = true;

    if (r->mark[0] == '\0')
        return true;
    if (url_expand(c->url, agent_id, &text, &ignored) == MEMFS_OK &&
        url_parse(text, &t.url, &ignored) == MEMFS_OK) {
        remote_target_mark(&t, mark);
        is_it = memcmp(mark, r->mark, 8) == 0;
    }
    remote_target_dispose(&t);
    return is_it;
}

memfs_code mirror_forget(mirror *m, const char *remote, memfs_error *err)
{
    remote_set *set = mirror_remotes(m);
    bool is_there = remote_set_find(set, remote) != NULL;

    mirror_remotes_unref(m, set);
    if (is_there)
        return memfs_fail(err, MEMFS_ECONFLICT, "remote '%.40s' is configured", remote);
    return state_mirror_forget(home_state(mirror_home(m)), str_of(remote), err);
}
