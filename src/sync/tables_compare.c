#include "sync/tables_int.h"

#include "base/mem.h"
#include "memory/block.h"
#include "memory/yaml.h"
#include "store/rewrite.h"

#include <limits.h>
#include <stdlib.h>

/* ---- what is kept ---- */

memfs_str tables_keep(tables_work *w, memfs_str s)
{
    memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    const char *nul;
    size_t len;

    while (s.len > 0 && (nul = memchr(s.ptr, '\0', s.len)) != NULL) {
        buf_add(&out, s.ptr, (size_t)(nul - s.ptr));
        buf_puts(&out, "\xef\xbf\xbd");
        s = str_from(s, (size_t)(nul - s.ptr) + 1);
    }
    buf_add_str(&out, s);
    if (w->n_kept == w->cap_kept) {
        w->cap_kept = w->cap_kept == 0 ? 64 : w->cap_kept * 2;
        w->kept = mem_realloc(w->kept, w->cap_kept, sizeof(*w->kept));
    }
    w->kept[w->n_kept] = buf_take(&out, &len);
    return str_make(w->kept[w->n_kept++], len);
}

static memfs_str without_nul(tables_work *w, memfs_str s)
{
    return s.len > 0 && memchr(s.ptr, '\0', s.len) != NULL ? tables_keep(w, s) : s;
}

static void side_dispose(tables_side *s)
{
    plan_free(s->plan);
    free(s->rows);
    *s = (tables_side){ NULL, NULL, 0 };
}

static void forget(tables_work *w)
{
    if (w->is.plan == w->was.plan)
        w->is.plan = NULL; /* one plan for both */
    side_dispose(&w->was);
    side_dispose(&w->is);
    for (size_t i = 0; i < w->n_kept; i++)
        free(w->kept[i]);
    w->n_kept = w->n_rows = w->n_changes = w->n_edits = w->n_left = 0;
    w->have_come_back = false;
}

void tables_untake(tables_work *w, size_t n)
{
    while (w->n_taken > n) {
        w->n_taken--;
        free(w->taken[w->n_taken].id);
        free(w->taken[w->n_taken].to);
    }
}

void tables_work_dispose(tables_work *w)
{
    forget(w);
    free(w->kept);
    free(w->rows);
    free(w->changes);
    free(w->edits);
    tables_untake(w, 0);
    free(w->taken);
    free(w->left);
}

/* ---- reading ---- */

static int compare_files(const void *a, const void *b)
{
    return str_compare((*(const block_row *const *)a)->label,
                       (*(const block_row *const *)b)->label);
}

static void index_side(tables_side *s)
{
    s->n = plan_n_rows(s->plan);
    s->rows = mem_alloc((s->n + 1) * sizeof(*s->rows));
    for (size_t i = 0; i < s->n; i++)
        s->rows[i] = plan_row(s->plan, i, NULL);
    qsort(s->rows, s->n, sizeof(*s->rows), compare_files);
}

/* What `to` has that `from` has not so; from NULL: all. */
static memfs_code read_side(tables_work *w, const memfs_oid *from, const memfs_oid *to,
                            tables_side *ret, memfs_error *err)
{
    memfs_code rc = plan_make(w->h, w->a, w->r, from, to, &ret->plan, err);

    if (rc == MEMFS_OK)
        index_side(ret);
    return rc;
}

/* A value as files are read: line ends that git clients write are no difference. */
static memfs_str keep_value(tables_work *w, memfs_str value)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    size_t ignored;

    if (value.len == 0 || memchr(value.ptr, '\r', value.len) == NULL)
        return tables_keep(w, value);
    (void)block_decode(value, &text, &ignored);
    return tables_keep(w, buf_str(&text));
}

static memfs_code keep_row(const letta_block *b, void *ctx, memfs_error *err)
{
    tables_work *w = ctx;
    letta_block *to;

    (void)err;
    if (w->n_rows == w->cap_rows) {
        w->cap_rows = w->cap_rows == 0 ? 64 : w->cap_rows * 2;
        w->rows = mem_realloc(w->rows, w->cap_rows, sizeof(*w->rows));
    }
    to = &w->rows[w->n_rows++];
    *to = *b;
    to->id = tables_keep(w, b->id);
    to->label = tables_keep(w, b->label);
    to->value = keep_value(w, b->value);
    to->description = tables_keep(w, b->description);
    to->metadata_json = tables_keep(w, b->metadata_json);
    return MEMFS_OK;
}

static int compare_rows(const void *a, const void *b)
{
    return str_compare(((const letta_block *)a)->label, ((const letta_block *)b)->label);
}

static memfs_code look(tables_work *w, const memfs_str *labels, size_t n, memfs_error *err)
{
    memfs_code rc =
        letta_look(w->h->letta, str_of(w->a->id), labels, n, &w->seen, keep_row, w, err);

    if (rc == MEMFS_OK && w->n_rows > 0)
        qsort(w->rows, w->n_rows, sizeof(*w->rows), compare_rows);
    return rc;
}

/* From the one commit to the other and back: both sides of each file that differs. */
static memfs_code read_narrow(tables_work *w, const memfs_oid *guess, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_str *labels = NULL;
    memfs_code rc = read_side(w, guess, &w->main, &w->is, err);

    if (rc == MEMFS_OK)
        rc = read_side(w, &w->main, guess, &w->was, err);
    if (rc < 0)
        return rc;
    labels = mem_alloc((w->is.n + w->was.n + 1) * sizeof(*labels));
    for (size_t i = 0; i < w->is.n; i++)
        labels[i] = w->is.rows[i]->label;
    for (size_t i = 0; i < w->was.n; i++)
        labels[w->is.n + i] = w->was.rows[i]->label;
    return look(w, labels, w->is.n + w->was.n, err);
}

/*
 * A commit that main does not contain says nothing of what main dropped.  Where it is what a purge
 * rewrote, by a memfs that could not tell Letta, that is why.
 */
static memfs_code judge_base(tables_work *w, memfs_error *err)
{
    _cleanup_(mem_freep) memfs_oid *banned = NULL;
    bool is_ours = false;
    size_t n_banned = 0;
    memfs_code rc = MEMFS_OK;

    w->base = NULL;
    if (!w->seen.has_tip || w->seen.is_torn)
        return MEMFS_OK;
    if (repo_has(w->r, &w->seen.tip))
        rc = repo_is_ancestor(w->r, &w->seen.tip, &w->main, &is_ours, err);
    if (rc == MEMFS_OK && is_ours) {
        w->base = &w->seen.tip;
        return rc;
    }
    if (rc == MEMFS_OK)
        rc = state_banned(w->h->state, str_of(w->a->id), &banned, &n_banned, err);
    for (size_t i = 0; rc == MEMFS_OK && i < n_banned; i++)
        w->was_purged = w->was_purged || oid_equal(&banned[i], &w->seen.tip);
    return rc;
}

/* What main was before a purge, while that is not over: later its objects are gone. */
static void read_purged(tables_work *w)
{
    memfs_error ignored;

    w->has_was = w->was_purged && w->seen.has_tip && !w->seen.is_torn &&
                 repo_has(w->r, &w->seen.tip) &&
                 read_side(w, NULL, &w->seen.tip, &w->was, &ignored) == MEMFS_OK;
}

static memfs_code read_whole(tables_work *w, memfs_error *err)
{
    memfs_code rc = look(w, NULL, 0, err);

    if (rc == MEMFS_OK)
        rc = judge_base(w, err);
    if (rc == MEMFS_OK)
        rc = read_side(w, NULL, &w->main, &w->is, err);
    w->has_was = w->base != NULL;
    if (rc == MEMFS_OK && !w->has_was)
        read_purged(w);
    if (rc < 0 || !w->has_was || w->base == NULL)
        return rc;
    if (!oid_equal(w->base, &w->main))
        return read_side(w, NULL, w->base, &w->was, err);
    w->was.plan = w->is.plan;
    index_side(&w->was);
    return rc;
}

memfs_code tables_read(tables_work *w, const memfs_oid *guess, memfs_error *err)
{
    memfs_code rc;

    forget(w);
    w->is_whole = guess == NULL;
    if (guess == NULL)
        return read_whole(w, err);
    rc = read_narrow(w, guess, err);
    if (rc < 0 || (w->seen.has_tip && !w->seen.is_torn && oid_equal(&w->seen.tip, guess))) {
        w->base = &w->seen.tip;
        w->has_was = true;
        return rc;
    }
    return tables_read(w, NULL, err);
}

memfs_code tables_text(tables_work *w, const block_row *file, memfs_buf *out, bool *ret_is_text,
                       memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf blob = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    size_t bad_at;
    memfs_code rc;

    *ret_is_text = false;
    rc = repo_blob(w->r, &file->blob, w->h->options.policy.max_block_bytes, &blob, err);
    if (rc == MEMFS_ELIMIT)
        return MEMFS_OK;
    if (rc == MEMFS_OK)
        *ret_is_text = block_decode(buf_str(&blob), out, &bad_at);
    return rc;
}

/* ---- comparing ---- */

static bool is_said(const yaml_value *field)
{
    return field != NULL && field->type != YAML_NULL;
}

bool tables_is_beyond(const tables_work *w, const block_row *file)
{
    return file != NULL && (uint64_t)file->bytes > w->h->options.policy.max_block_bytes;
}

void tables_leave(tables_work *w, memfs_str label, const char *why)
{
    if (w->n_left == w->cap_left) {
        w->cap_left = w->cap_left == 0 ? 16 : w->cap_left * 2;
        w->left = mem_realloc(w->left, w->cap_left, sizeof(*w->left));
    }
    w->left[w->n_left].label = label;
    w->left[w->n_left++].why = why;
}

/* The same ones, for the same reasons, are told once. */
static void tell_left(tables_work *w)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < w->n_left; i++)
        sum += letta_mark_of(w->left[i].label, (int64_t)strlen(w->left[i].why));
    if (w->is_whole && sum == w->a->letta.left)
        return;
    if (w->is_whole)
        w->a->letta.left = sum;
    for (size_t i = 0; i < w->n_left; i++)
        home_alarm(w->h, w->a, "letta_block_left",
                   "block '%.*s' of Letta %s: it stays as it is there", (int)w->left[i].label.len,
                   w->left[i].label.ptr, w->left[i].why);
}

void tables_tell(tables_work *w)
{
    tell_left(w);
    if (w->seen.is_torn)
        home_alarm(w->h, w->a, "letta_restored",
                   "Letta's tables were made anew, and schema memfs_letta was not: where they "
                   "differ from main, both texts were kept");
    if (w->have_come_back)
        home_alarm(w->h, w->a, "letta_rows_back",
                   "all its blocks were gone from Letta at once and were written anew; to remove "
                   "them all, remove their files");
}

static unsigned fields_said(const block *b)
{
    static const yaml_value yes = { .type = YAML_BOOL, { .boolean = true } };
    static const yaml_value no = { .type = YAML_BOOL, { .boolean = false } };
    unsigned named = 0;

    if (is_said(b->description) && b->description->type == YAML_TEXT &&
        b->description->text.len > 0)
        named |= LETTA_DESCRIPTION;
    if (is_said(b->limit) && b->limit->type == YAML_INT && b->limit->integer >= INT_MIN &&
        b->limit->integer <= INT_MAX)
        named |= LETTA_LIMIT;
    if (is_said(b->read_only) &&
        (yaml_scalar_equal(b->read_only, &yes) || yaml_scalar_equal(b->read_only, &no)))
        named |= LETTA_READ_ONLY;
    if (is_said(b->metadata) && b->metadata->type == YAML_MAP)
        named |= LETTA_METADATA;
    return named;
}

static bool problem_names(const block_row *file, memfs_str field)
{
    return file->problem.len > 0 &&
           memmem(file->problem.ptr, file->problem.len, field.ptr, field.len) != NULL;
}

/* The fields that a file names; one that it names wrongly, or as "", counts for none. */
static memfs_code says(tables_work *w, const block_row *file, unsigned *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(block_dispose) block parsed = BLOCK_INIT;
    bool is_text;
    memfs_code rc;

    *ret = LETTA_VALUE;
    rc = tables_text(w, file, &text, &is_text, err);
    if (rc < 0 || !is_text)
        return rc;
    block_parse(buf_str(&text), &parsed);
    if (parsed.problem[0] == '\0')
        *ret |= fields_said(&parsed);
    if ((*ret & LETTA_METADATA) != 0 && problem_names(file, MEMFS_STR("'metadata'")))
        *ret &= ~(unsigned)LETTA_METADATA; /* nothing that JSON can say */
    return rc;
}

/* As values: Letta writes its JSON with other spaces. */
static bool is_same_json(memfs_str a, memfs_str b)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = NULL;
    const yaml_value *left, *right;
    memfs_error ignored;
    bool is_same = false;

    if (str_equal(a, b))
        return true;
    doc = yaml_doc_new();
    return yaml_of_json(a, doc, &left, &ignored) == MEMFS_OK &&
           yaml_of_json(b, doc, &right, &ignored) == MEMFS_OK &&
           yaml_equal(left, right, &is_same, &ignored) == MEMFS_OK && is_same;
}

static memfs_code differ(tables_work *w, const letta_block *row, const block_row *file,
                         unsigned *ret, memfs_error *err)
{
    unsigned named;
    memfs_code rc;

    *ret = str_equal(row->value, without_nul(w, file->value)) ? 0 : LETTA_VALUE;
    if (!row->has_description || !str_equal(row->description, without_nul(w, file->description)))
        *ret |= LETTA_DESCRIPTION;
    if (row->read_only != file->read_only)
        *ret |= LETTA_READ_ONLY;
    if (!is_same_json(row->metadata_json, file->metadata_json))
        *ret |= LETTA_METADATA;
    if ((*ret & ~(unsigned)LETTA_VALUE) == 0)
        return MEMFS_OK;
    rc = says(w, file, &named, err);
    *ret &= named;
    return rc;
}

static const block_row *find_file(const tables_side *s, memfs_str label)
{
    block_row key = { .label = label };
    const block_row *at = &key;
    const block_row **found =
        s->n > 0 ? bsearch(&at, s->rows, s->n, sizeof(*s->rows), compare_files) : NULL;

    return found != NULL ? *found : NULL;
}

static const letta_block *find_row(const tables_work *w, memfs_str label)
{
    letta_block key = { .label = label };

    return w->n_rows > 0 ? bsearch(&key, w->rows, w->n_rows, sizeof(key), compare_rows) : NULL;
}

/* ---- deciding ---- */

static letta_change *add_change(tables_work *w, letta_change change)
{
    if (w->n_changes == w->cap_changes) {
        w->cap_changes = w->cap_changes == 0 ? 16 : w->cap_changes * 2;
        w->changes = mem_realloc(w->changes, w->cap_changes, sizeof(*w->changes));
    }
    w->changes[w->n_changes] = change;
    return &w->changes[w->n_changes++];
}

static void add_edit(tables_work *w, tables_edit edit)
{
    if (w->n_edits == w->cap_edits) {
        w->cap_edits = w->cap_edits == 0 ? 16 : w->cap_edits * 2;
        w->edits = mem_realloc(w->edits, w->cap_edits, sizeof(*w->edits));
    }
    w->edits[w->n_edits++] = edit;
}

static void set_fields(tables_work *w, letta_change *c, const block_row *file, unsigned sets)
{
    c->sets = sets;
    c->value = without_nul(w, file->value);
    c->description = without_nul(w, file->description);
    c->limit = file->limit > INT_MAX ? INT_MAX : file->limit < 0 ? 0 : file->limit;
    c->read_only = file->read_only;
    c->metadata_json = file->metadata_json;
}

static memfs_code write_row(tables_work *w, const letta_block *row, const block_row *file,
                            memfs_error *err)
{
    unsigned sets, named = 0;
    letta_change *c;
    memfs_code rc = differ(w, row, file, &sets, err);

    if (rc == MEMFS_OK && row->limit != file->limit)
        rc = says(w, file, &named, err);
    if (rc < 0)
        return rc;
    sets |= named & LETTA_LIMIT;
    if (sets == 0)
        return MEMFS_OK;
    c = add_change(w, (letta_change){ .id = row->id, .version = row->version });
    set_fields(w, c, file, sets);
    return MEMFS_OK;
}

bool tables_same_file(const block_row *a, const block_row *b)
{
    return a != NULL && b != NULL && oid_equal(&a->blob, &b->blob);
}

/* Is what this row says in main already, by a commit of this work? */
static bool was_taken(const tables_work *w, const letta_block *row)
{
    for (size_t i = 0; i < w->n_taken; i++)
        if (w->taken[i].version == row->version && strcmp(w->taken[i].id, row->id.ptr) == 0)
            return true;
    return false;
}

static memfs_code note_birth(const state_birth *birth, void *ctx, memfs_error *err)
{
    (void)birth;
    (void)err;
    *(bool *)ctx = true;
    return MEMFS_OK;
}

static void remove_row(tables_work *w, const letta_block *row)
{
    add_change(w, (letta_change){ .id = row->id, .version = row->version, .is_gone = true });
}

/* What was purged may not come back from a row: it follows main, or goes if it was a file once. */
static memfs_code decide_purged(tables_work *w, const letta_block *row, const block_row *is,
                                memfs_error *err)
{
    bool was_file = false;
    memfs_code rc;

    if (is != NULL)
        return write_row(w, row, is, err);
    if (w->has_was) {
        was_file = find_file(&w->was, row->label) != NULL;
        rc = MEMFS_OK;
    } else {
        rc = state_births(w->h->state, str_of(w->a->id), row->label, note_birth, &was_file, err);
    }
    if (rc == MEMFS_OK && was_file)
        remove_row(w, row);
    return rc;
}

/*
 * A file of the one side that the other has under another label, with no row of that label.  Empty
 * ones are all alike, and tell nothing.
 */
static const block_row *find_moved(const tables_work *w, const tables_side *in,
                                   const tables_side *other, const block_row *file)
{
    for (size_t i = 0; i < in->n; i++) {
        const block_row *at = in->rows[i];

        if (file->bytes > 0 && tables_same_file(at, file) && find_file(other, at->label) == NULL &&
            find_row(w, at->label) == NULL)
            return at;
    }
    return NULL;
}

/* The file of a block that was renamed in Letta: its row kept the id, and main the file. */
static const block_row *renamed_in_letta(const tables_work *w, const letta_block *row)
{
    for (size_t i = 0; i < w->was.n; i++) {
        const block_row *was = w->was.rows[i];

        if (str_equal(was->id, row->id) && find_row(w, was->label) == NULL &&
            tables_same_file(was, find_file(&w->is, was->label)))
            return was;
    }
    return NULL;
}

/* A row without a file: one of an agent whose memory is in git, or one that was a file. */
static memfs_code decide_new(tables_work *w, const letta_block *row, memfs_error *err)
{
    tables_edit e = { .row = row, .differs = LETTA_VALUE };
    memfs_code rc = MEMFS_OK;

    if (!w->is_whole || was_taken(w, row))
        return MEMFS_OK;
    e.was = renamed_in_letta(w, row);
    if (e.was != NULL)
        rc = differ(w, row, e.was, &e.differs, err);
    if (rc == MEMFS_OK && (e.was != NULL || w->seen.has_git_memory))
        add_edit(w, e);
    return rc;
}

/* Nobody touched it in Letta. */
static memfs_code follow_main(tables_work *w, const letta_block *row, const block_row *was,
                              const block_row *is, memfs_error *err)
{
    if (is == NULL)
        remove_row(w, row);
    return is == NULL || tables_same_file(was, is) ? MEMFS_OK : write_row(w, row, is, err);
}

/* What it says now is neither of that commit nor, as far as there is one, of main. */
static memfs_code decide_edit(tables_work *w, const letta_block *row, const block_row *was,
                              const block_row *is, memfs_error *err)
{
    unsigned from_was = LETTA_VALUE, from_is = LETTA_VALUE;
    memfs_code rc = MEMFS_OK;

    if (was != NULL)
        rc = differ(w, row, was, &from_was, err);
    if (rc == MEMFS_OK && is != NULL)
        rc = differ(w, row, is, &from_is, err);
    if (rc < 0)
        return rc;
    if (was != NULL && from_was == 0)
        return follow_main(w, row, was, is, err);
    if (is == NULL) /* it goes where its file went */
        add_edit(w, (tables_edit){ row, was, find_moved(w, &w->is, &w->was, was), from_was });
    else if (from_is != 0)
        add_edit(w, (tables_edit){ row, was, is, from_was });
    return MEMFS_OK;
}

/* A row whose label that commit has as a file, or main. */
static memfs_code decide_row(tables_work *w, const letta_block *row, memfs_error *err)
{
    const block_row *was = find_file(&w->was, row->label), *is = find_file(&w->is, row->label);

    if (row->is_foreign && (was != NULL || is != NULL)) /* its text is no news, nor is it gone */
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "block '%.*s' belongs to another organization of Letta than the agent: "
                          "give them the same, or detach it",
                          (int)row->label.len, row->label.ptr);
    if (row->is_foreign)
        return MEMFS_OK;
    if (tables_is_beyond(w, is)) {
        tables_leave(w, row->label,
                     w->was_purged ? "may have what was purged, and its file is larger than a block"
                                   : "has a file that is larger than a block");
        return MEMFS_OK;
    }
    if (w->was_purged)
        return decide_purged(w, row, is, err);
    if (tables_is_beyond(w, was))
        was = NULL; /* the row was not written from it */
    if (was == NULL && is == NULL)
        return decide_new(w, row, err);
    if (!was_taken(w, row))
        return decide_edit(w, row, was, is, err);
    if (is != NULL)
        return write_row(w, row, is, err);
    remove_row(w, row); /* what it says is in a file of another name */
    return MEMFS_OK;
}

/* The row of a file that was renamed and nothing else in git: its attributes go along. */
static memfs_str renamed_from(const tables_work *w, const block_row *file)
{
    for (size_t i = 0; i < w->n_taken; i++)
        if (w->taken[i].to != NULL && str_equal(file->label, str_of(w->taken[i].to)))
            return str_of(w->taken[i].id);
    for (size_t i = 0; i < w->was.n; i++) {
        const block_row *was = w->was.rows[i];
        const letta_block *row = tables_same_file(was, file) ? find_row(w, was->label) : NULL;

        if (row != NULL && find_file(&w->is, was->label) == NULL)
            return row->id;
    }
    return MEMFS_STR("");
}

static memfs_code make_row(tables_work *w, const block_row *file, memfs_error *err)
{
    unsigned named;
    letta_change *c;
    memfs_code rc = says(w, file, &named, err);

    if (rc < 0)
        return rc;
    c = add_change(w, (letta_change){ .id = file->id, .label = file->label });
    set_fields(w, c, file, named);
    c->like_id = renamed_from(w, file);
    return MEMFS_OK;
}

/* Files without a row. */
static memfs_code decide_file(tables_work *w, const block_row *file, memfs_error *err)
{
    const block_row *was = find_file(&w->was, file->label);

    if (find_row(w, file->label) != NULL || tables_is_beyond(w, file))
        return MEMFS_OK;
    if (w->was_purged || !w->is_whole || !tables_same_file(was, file))
        return make_row(w, file, err);
    if (w->n_rows == 0 && w->was.n > 1) { /* rather lost than removed; one can be (K2) */
        w->have_come_back = true;
        return make_row(w, file, err);
    }
    add_edit(w, (tables_edit){ .was = was, .main = file });
    return MEMFS_OK;
}

memfs_code tables_decide(tables_work *w, memfs_error *err)
{
    memfs_code rc = plan_births(w->h, w->a, w->is.plan, true, err);

    for (size_t i = 0; rc == MEMFS_OK && i < w->n_rows; i++)
        rc = decide_row(w, &w->rows[i], err);
    for (size_t i = 0; rc == MEMFS_OK && i < w->is.n; i++)
        rc = decide_file(w, w->is.rows[i], err);
    return rc;
}
