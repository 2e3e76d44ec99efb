/*
 * tables_take.c - what somebody changed through Letta's API, as a commit.
 *
 * The file that the row's side has is the one of the commit that the rows were of, with the row's
 * fields put into it: front matter stays to the byte where it can.  Merged with main's file, that
 * is the file of the commit.
 */
#include "sync/movein.h"
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
    /* is_free: of main and of this commit */
    bool has_names;
    movein_name *names;
    size_t n_names, cap_names;
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

/* Into the front matter that is there; false: what it would hold then does not read back. */
static bool put_fields(memfs_str was, const letta_block *row, memfs_buf *out)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    block_fields fields = { .value = row->value,
                            .has_description = row->has_description,
                            .description = row->description,
                            .read_only = row->read_only };
    memfs_error ignored;
    bool is_lost;

    fields.metadata = movein_metadata(row->metadata_json, doc, &is_lost);
    return block_merge(was, &fields, out, &ignored) == MEMFS_OK && !out->too_big &&
           movein_reads_back(buf_str(out), row->value);
}

/* Front matter that cannot be merged with gives way to one that is whole.  False: too large. */
static bool their_file(const tables_edit *e, memfs_str was, memfs_buf *out)
{
    movein_lost ignored = { false, false };

    if (e->was != NULL && e->differs == LETTA_VALUE && put_value(was, e->row->value, out))
        return true;
    if (was.len > 0 && put_fields(was, e->row, out))
        return true;
    return movein_file(e->row, out, &ignored);
}

/* ---- the commit ---- */

static void note_taken(tables_work *w, const tables_edit *e)
{
    const letta_block *row = e->row;
    bool is_moved = e->main != NULL && !str_equal(e->main->label, row->label);

    if (w->n_taken == w->cap_taken) {
        w->cap_taken = w->cap_taken == 0 ? 16 : w->cap_taken * 2;
        w->taken = mem_realloc(w->taken, w->cap_taken, sizeof(*w->taken));
    }
    w->taken[w->n_taken].to = is_moved ? mem_strndup(e->main->label.ptr, e->main->label.len) : NULL;
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

static bool fits_block(const taking *t, const letta_block *row, size_t len)
{
    const policy *p = &t->w->h->options.policy;

    if (len <= p->max_block_bytes && len <= p->max_file_bytes)
        return true;
    tables_leave(t->w, row->label, "is larger than a block of memory may be");
    return false;
}

/* ---- names ---- */

static void add_name(const char *path, void *ctx)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    taking *t = ctx;

    if (t->n_names == t->cap_names) {
        t->cap_names = t->cap_names == 0 ? 64 : t->cap_names * 2;
        t->names = mem_realloc(t->names, t->cap_names, sizeof(*t->names));
    }
    movein_fold(str_of(path), &key);
    t->names[t->n_names].path = tables_keep(t->w, str_of(path));
    t->names[t->n_names++].key = tables_keep(t->w, buf_str(&key));
}

/* A name that a push could have brought, beside main's and those of this commit (T11). */
static memfs_code is_free(taking *t, memfs_str path, bool *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    policy strict = t->w->h->options.policy;
    size_t n_folders = 0;

    strict.lenient = false;
    for (size_t i = 0; i < path.len; i++)
        n_folders += path.ptr[i] == '/';
    *ret = n_folders < strict.max_depth && path_has_good_names(&strict, path);
    if (!*ret)
        return MEMFS_OK;
    if (!t->has_names) {
        memfs_code rc = amend_paths(t->w->r, &t->w->main, add_name, t, err);

        if (rc < 0)
            return rc;
        t->has_names = true;
    }
    movein_fold(path, &key);
    for (size_t i = 0; *ret && i < t->n_names; i++)
        *ret = movein_can_stand_together(t->names[i], (movein_name){ path, buf_str(&key) });
    if (*ret)
        add_name(path.ptr, t);
    return MEMFS_OK;
}

/* Where the file of an edited block goes; false: it can be none. */
static memfs_code find_path(taking *t, const tables_edit *e, memfs_buf *out, bool *ret,
                            memfs_error *err)
{
    memfs_str label;

    *ret = true;
    if (e->main != NULL) {
        buf_add_str(out, e->main->path);
        return MEMFS_OK;
    }
    if (e->was != NULL && str_equal(e->was->label, e->row->label))
        buf_add_str(out, e->was->path);
    else
        label_to_path(e->row->label, out);
    *ret = memchr(out->ptr, '\0', out->len) == NULL && plan_label(t->w->h, buf_str(out), &label) &&
           str_equal(label, e->row->label);
    return *ret ? is_free(t, buf_str(out), ret, err) : MEMFS_OK;
}

/* ---- one edit ---- */

/* Who cannot be told apart by rule is kept beside it. */
static memfs_code add_beside(taking *t, const tables_edit *e, memfs_str theirs, memfs_error *err)
{
    _cleanup_(mem_freep) char *second = NULL;
    memfs_oid id;
    bool is_good;
    memfs_code rc;

    hash_git_blob(theirs, &id);
    second = merge_second_name(e->main->path, &id);
    rc = is_free(t, str_of(second), &is_good, err);
    if (rc == MEMFS_OK && is_good)
        add_file(t, str_of(second), e->row->label, &theirs);
    else if (rc == MEMFS_OK)
        tables_leave(t->w, e->row->label, "cannot be merged, and no second name is free");
    return rc;
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
                               NULL) == MERGE_TWO_FILES)
        return add_beside(t, e, theirs, err);
    rc = buf_check(&both, "a merged block", err);
    if (rc < 0 || !fits_block(t, e->row, both.len))
        return rc;
    merged = tables_keep(t->w, buf_str(&both));
    add_file(t, e->main->path, e->row->label, &merged);
    return MEMFS_OK;
}

/* What is wrong with the block itself leaves it in Letta, and is no error: others go on. */
static memfs_code take_edit(taking *t, const tables_edit *e, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf was = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str theirs;
    bool is_good = true;
    memfs_code rc = MEMFS_OK;

    if (e->row == NULL) {
        add_file(t, e->was->path, e->was->label, NULL);
        return MEMFS_OK;
    }
    if (e->was != NULL)
        rc = tables_text(t->w, e->was, &was, &is_good, err);
    if (rc < 0)
        return rc;
    if (!is_good)
        buf_clear(&was);
    if (!their_file(e, buf_str(&was), &text)) {
        tables_leave(t->w, e->row->label, "is nothing that a file can hold");
        return MEMFS_OK;
    }
    theirs = tables_keep(t->w, buf_str(&text));
    if (!fits_block(t, e->row, theirs.len))
        return MEMFS_OK;
    if (e->main != NULL && !tables_same_file(e->was, e->main))
        return add_merged(t, e, buf_str(&was), theirs, err);
    rc = find_path(t, e, &path, &is_good, err);
    if (rc == MEMFS_OK && is_good)
        add_file(t, buf_str(&path), e->row->label, &theirs);
    else if (rc == MEMFS_OK)
        tables_leave(t->w, e->row->label, "has no name that a file can have here");
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
            note_taken(w, &w->edits[i]);
    }
    *ret_n = t.n;
    *ret = w->main;
    if (rc == MEMFS_OK && t.n > 0) {
        buf_printf(&message, "Take in %zu block%s from Letta\n\n", t.n, t.n == 1 ? "" : "s");
        buf_add_str(&message, buf_str(&t.labels));
        rc = amend_commit(w->r, &w->main, t.files, t.n, who, buf_str(&message), ret, err);
    }
    buf_dispose(&t.labels);
    free(t.names);
    free(t.files);
    return rc;
}
