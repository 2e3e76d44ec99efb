/*
 * tables_take.c - what somebody changed through Letta's API, as a commit.
 *
 * The file that the row's side has is the one of the commit that the rows were of, with the row's
 * fields put into it: front matter stays to the byte where it can.  Merged with main's file, that
 * is the file of the commit.
 */
#include "sync/tables_int.h"

#include "base/hash.h"
#include "base/mem.h"
#include "memory/block.h"
#include "memory/label.h"
#include "memory/merge.h"
#include "store/amend.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct taking {
    tables_work *w;
    amend_file *files;
    size_t n;
    memfs_buf labels; /* for the message */
} taking;

/* ---- the file that the row's side has ---- */

/* Only the value: what stands before it stays as it is, if it then still reads as a block. */
static bool put_value(memfs_str was, memfs_str value, memfs_buf *out)
{
    _cleanup_(block_dispose) block before = BLOCK_INIT, after = BLOCK_INIT;

    block_parse(was, &before);
    buf_add(out, was.ptr, was.len - before.value.len);
    buf_add_str(out, value);
    block_parse(buf_str(out), &after);
    if (before.problem[0] == '\0' && str_equal(after.value, value))
        return true;
    buf_clear(out);
    return false;
}

static memfs_code put_fields(memfs_str was, const letta_block *row, memfs_buf *out,
                             memfs_error *err)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    block_fields fields = { .value = row->value,
                            .has_description = row->has_description,
                            .description = row->description,
                            .read_only = row->read_only };
    memfs_code rc = yaml_of_json(row->metadata_json, doc, &fields.metadata, err);

    if (rc == MEMFS_OK && was.len > 0)
        return block_merge(was, &fields, out, err);
    if (rc == MEMFS_OK)
        block_serialize(&fields, out);
    return rc < 0 ? rc : buf_check(out, "a block of Letta", err);
}

static memfs_code their_file(const tables_edit *e, memfs_str was, memfs_buf *out, memfs_error *err)
{
    memfs_code rc;

    if (e->was != NULL && e->differs == LETTA_VALUE && put_value(was, e->row->value, out))
        return MEMFS_OK;
    rc = put_fields(was, e->row, out, err);
    if (rc == MEMFS_OK || was.len == 0)
        return rc;
    buf_clear(out); /* front matter that cannot be merged with gives way to one that is whole */
    return put_fields(MEMFS_STR(""), e->row, out, err);
}

/* ---- the commit ---- */

static void note_taken(tables_work *w, const letta_block *row)
{
    if (w->n_taken == w->cap_taken) {
        w->cap_taken = w->cap_taken == 0 ? 16 : w->cap_taken * 2;
        w->taken = mem_realloc(w->taken, w->cap_taken, sizeof(*w->taken));
    }
    w->taken[w->n_taken].id = mem_strndup(row->id.ptr, row->id.len);
    w->taken[w->n_taken++].version = row->version;
}

static void add_file(taking *t, memfs_str path, memfs_str label, const memfs_str *content)
{
    t->files[t->n++] = (amend_file){ .path = tables_keep(t->w, path).ptr,
                                     .is_gone = content == NULL,
                                     .content = content != NULL ? *content : MEMFS_STR("") };
    buf_printf(&t->labels, "%s %.*s\n", content == NULL ? "-" : "+", (int)label.len, label.ptr);
}

/* Who cannot be told apart by rule is kept beside it. */
static void add_beside(taking *t, memfs_str path, memfs_str label, memfs_str theirs)
{
    _cleanup_(mem_freep) char *second = NULL;
    memfs_oid id;

    hash_git_blob(theirs, &id);
    second = merge_second_name(path, &id);
    add_file(t, str_of(second), label, &theirs);
}

static memfs_code add_merged(taking *t, const tables_edit *e, memfs_str was, memfs_str theirs,
                             memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf ours = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf both = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str merged;
    bool is_text;
    memfs_code rc = tables_text(t->w, e->main, &ours, &is_text, err);

    if (rc < 0)
        return rc;
    if (!is_text || merge_file(e->was != NULL ? &was : NULL, buf_str(&ours), theirs, &both, NULL,
                               NULL) == MERGE_TWO_FILES) {
        add_beside(t, e->main->path, e->row->label, theirs);
        return MEMFS_OK;
    }
    rc = buf_check(&both, "a merged block", err);
    if (rc < 0)
        return rc;
    merged = tables_keep(t->w, buf_str(&both));
    add_file(t, e->main->path, e->row->label, &merged);
    return MEMFS_OK;
}

/* Where the file of a block that only Letta has goes; false: it can be none. */
static memfs_code find_path(taking *t, const tables_edit *e, memfs_buf *out, bool *ret,
                            memfs_error *err)
{
    memfs_str label;

    if (e->was != NULL)
        buf_add_str(out, e->was->path);
    else
        label_to_path(e->row->label, out);
    *ret = plan_label(t->w->h, buf_str(out), &label) && str_equal(label, e->row->label);
    return *ret ? amend_fits(t->w->r, &t->w->main, out->ptr, ret, err) : MEMFS_OK;
}

static void leave(const taking *t, const tables_edit *e, const char *why)
{
    home_alarm(t->w->h, t->w->a, "letta_block_left",
               "block '%.*s' of Letta %s: it stays as it is there", (int)e->row->label.len,
               e->row->label.ptr, why);
}

static memfs_code take_edit(taking *t, const tables_edit *e, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf was = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_error why;
    memfs_str theirs;
    bool is_good = true;
    memfs_code rc = MEMFS_OK;

    if (e->row == NULL) {
        add_file(t, e->was->path, e->was->label, NULL);
        return MEMFS_OK;
    }
    if (e->was != NULL)
        rc = tables_text(t->w, e->was, &was, &is_good, err);
    if (rc == MEMFS_OK && !is_good)
        buf_clear(&was);
    if (rc < 0 || their_file(e, buf_str(&was), &text, err) < 0)
        return err->code;
    theirs = tables_keep(t->w, buf_str(&text));
    if (policy_file_size(&t->w->h->options.policy, e->row->label, theirs.len, &why) < 0) {
        leave(t, e, "is too large for a file");
        return MEMFS_OK;
    }
    if (e->main != NULL && !tables_same_file(e->was, e->main))
        return add_merged(t, e, buf_str(&was), theirs, err);
    rc = find_path(t, e, &path, &is_good, err);
    if (rc == MEMFS_OK && is_good)
        add_file(t, buf_str(&path), e->row->label, &theirs);
    else if (rc == MEMFS_OK)
        leave(t, e, "has no name that a file can have");
    return rc;
}

memfs_code tables_take(tables_work *w, const store_identity *who, memfs_oid *ret, size_t *ret_n,
                       memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf message = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    taking t = { .w = w, .labels = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED) };
    memfs_code rc = MEMFS_OK;

    t.files = mem_alloc((w->n_edits + 1) * sizeof(*t.files));
    for (size_t i = 0; rc == MEMFS_OK && i < w->n_edits; i++) {
        size_t n = t.n;

        rc = take_edit(&t, &w->edits[i], err);
        if (t.n > n && w->edits[i].row != NULL)
            note_taken(w, w->edits[i].row);
    }
    *ret_n = t.n;
    *ret = w->main;
    if (rc == MEMFS_OK && t.n > 0) {
        buf_printf(&message, "Take in %zu block%s from Letta\n\n", t.n, t.n == 1 ? "" : "s");
        buf_add_str(&message, buf_str(&t.labels));
        rc = amend_commit(w->r, &w->main, t.files, t.n, who, buf_str(&message), ret, err);
    }
    buf_dispose(&t.labels);
    free(t.files);
    return rc;
}
