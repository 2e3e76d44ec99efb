#include "sync/movein.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"
#include "memory/block.h"
#include "memory/ids.h"
#include "memory/label.h"
#include "store/gather.h"
#include "sync/home_int.h"
#include "sync/intake.h"
#include "sync/materialise_int.h"

#include <stdio.h>
#include <stdlib.h>

#define SAFE_FOLDER "letta/"
#define SAFE_MAX 80 /* bytes of a label in the name of its file */
#define ID_DIGITS 8

/* A block on its way; all is owned. */
typedef struct moving {
    char *id, *label, *tags_json;
    size_t label_len; /* it may hold any bytes */
    memfs_buf text;   /* the file */
    char *path;       /* NULL: left out */
    memfs_buf key;    /* movein_fold() of it */
    int64_t limit, created_at_us;
    bool hidden, is_shared;
    bool is_renamed, has_lost_metadata, has_lost_description;
} moving;

struct movein {
    home *h;
    char *id, *name, *tags_json;
    int64_t created_at_us, updated_at_us;
    moving *blocks;
    size_t n, cap;

    /* movein_finish */
    bool is_dry;
    movein_note_fn fn;
    void *ctx;
    movein_result *ret;
    gather_file *files; /* sorted by path */
    size_t n_files;
};

/* ---- life cycle ---- */

static char *copy_of(memfs_str s)
{
    return mem_strndup(s.ptr, s.len);
}

movein *movein_new(home *h, const letta_agent *agent)
{
    movein *m = mem_alloc(sizeof(*m));

    m->h = h;
    m->id = copy_of(agent->id);
    m->name = copy_of(agent->name);
    m->tags_json = copy_of(agent->tags_json);
    m->created_at_us = agent->created_at_us;
    m->updated_at_us = agent->updated_at_us;
    return m;
}

void movein_free(movein *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++) {
        moving *b = &m->blocks[i];

        free(b->id);
        free(b->label);
        free(b->tags_json);
        free(b->path);
        buf_dispose(&b->text);
        buf_dispose(&b->key);
    }
    free(m->blocks);
    free(m->files);
    free(m->id);
    free(m->name);
    free(m->tags_json);
    free(m);
}

void movein_freep(movein **m)
{
    movein_free(*m);
    *m = NULL;
}

/* ---- the file of a block ---- */

/* The block as it will be read: what front matter cannot hold would become part of the value. */
bool movein_reads_back(memfs_str file, memfs_str value)
{
    _cleanup_(block_dispose) block parsed = BLOCK_INIT;

    block_parse(file, &parsed);
    return parsed.problem[0] == '\0' && str_equal(parsed.value, value);
}

const yaml_value *movein_metadata(memfs_str json, yaml_doc *doc, bool *ret_is_lost)
{
    const yaml_value *value = NULL;
    memfs_error ignored;

    *ret_is_lost = json.len > 0 && (yaml_of_json(json, doc, &value, &ignored) < 0 ||
                                    (value->type != YAML_MAP && value->type != YAML_NULL));
    if (*ret_is_lost || value == NULL || value->type == YAML_NULL || value->map.n == 0)
        return NULL;
    return value;
}

/* What front matter cannot hold is left out of it, as little as may be. */
bool movein_file(const letta_block *block, memfs_buf *out, movein_lost *ret_lost)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    const yaml_value *metadata = movein_metadata(block->metadata_json, doc, &ret_lost->metadata);
    bool is_good = false;

    for (int i = 0; i < 4 && !is_good; i++) {
        bool has_metadata = (i & 1) == 0, has_description = (i & 2) == 0;
        block_fields fields = { .value = block->value,
                                .has_description = block->has_description && has_description,
                                .description = block->description,
                                .read_only = block->read_only,
                                .metadata = has_metadata ? metadata : NULL };

        buf_clear(out);
        block_serialize(&fields, out);
        is_good = !out->too_big && movein_reads_back(buf_str(out), block->value);
        if (is_good || i == 3) {
            ret_lost->metadata |= metadata != NULL && !has_metadata;
            ret_lost->description = block->has_description && !has_description;
        }
    }
    return is_good;
}

static void make_file(moving *b, const letta_block *block)
{
    movein_lost lost = { false, false };

    (void)movein_file(block, &b->text, &lost); /* of what is too large the size is told */
    b->has_lost_metadata = lost.metadata;
    b->has_lost_description = lost.description;
}

void movein_block(movein *m, const letta_block *block)
{
    moving *b;

    if (m->n == m->cap) {
        m->cap = m->cap == 0 ? 16 : m->cap * 2;
        m->blocks = mem_realloc(m->blocks, m->cap, sizeof(*m->blocks));
    }
    b = &m->blocks[m->n++];
    *b = (moving){ .id = copy_of(block->id),
                   .label = copy_of(block->label),
                   .label_len = block->label.len,
                   .tags_json =
                       block->tags_json.len > 0 ? copy_of(block->tags_json) : mem_strdup("[]"),
                   .text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                   .key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                   .limit = block->limit,
                   .created_at_us = block->created_at_us,
                   .hidden = block->hidden,
                   .is_shared = block->n_agents > 1 };
    make_file(b, block);
}

static memfs_str label_of(const moving *b)
{
    return str_make(b->label, b->label_len);
}

/* ---- its name ---- */

/* Is it a name that the policy takes, and does it lead back to the label? */
static bool is_fit(const movein *m, memfs_str path, memfs_str label)
{
    policy strict = m->h->options.policy;
    memfs_str back;
    size_t n_folders = 0;

    strict.lenient = false;
    for (size_t i = 0; i < path.len; i++)
        n_folders += path.ptr[i] == '/';
    return memchr(path.ptr, '\0', path.len) == NULL && n_folders < strict.max_depth &&
           label_of_path(path, MEMFS_STR(""), &back) && str_equal(back, label) && back.len > 0 &&
           back.ptr[back.len - 1] != '/' && path_has_good_names(&strict, path);
}

#define KEY_SEPARATOR '\x01' /* no name has it, and no folded one */

/* The path as some file systems see it: names that differ in case or form are one. */
void movein_fold(memfs_str path, memfs_buf *out)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str name, rest = path;

    while (str_split(rest, '/', &name, &rest)) {
        policy_name_key(name, &key);
        buf_add_str(out, buf_str(&key));
        buf_putc(out, KEY_SEPARATOR);
    }
    policy_name_key(rest, &key);
    buf_add_str(out, buf_str(&key));
}

bool movein_can_stand_together(movein_name one, movein_name two)
{
    memfs_str one_key, two_key, one_name, two_name;

    for (;;) {
        bool is_one_folder = str_split(one.key, KEY_SEPARATOR, &one_key, &one.key);
        bool is_two_folder = str_split(two.key, KEY_SEPARATOR, &two_key, &two.key);

        if (!str_equal(is_one_folder ? one_key : one.key, is_two_folder ? two_key : two.key))
            return true;
        if (!is_one_folder || !is_two_folder)
            return false;
        (void)str_split(one.path, '/', &one_name, &one.path);
        (void)str_split(two.path, '/', &two_name, &two.path);
        if (!str_equal(one_name, two_name))
            return false;
    }
}

/* Takes the path when no block before this one is in its way. */
static bool take_path(movein *m, size_t at, memfs_str path)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    movein_name mine;

    movein_fold(path, &key);
    mine = (movein_name){ path, buf_str(&key) };
    for (size_t i = 0; i < at; i++) {
        const moving *b = &m->blocks[i];

        if (b->path != NULL &&
            !movein_can_stand_together((movein_name){ str_of(b->path), buf_str(&b->key) }, mine))
            return false;
    }
    m->blocks[at].path = mem_strndup(path.ptr, path.len);
    buf_add_str(&m->blocks[at].key, buf_str(&key));
    return true;
}

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Letters and digits of the label, and as much of the id as it needs. */
static char *safe_path(const moving *b, size_t n_digits)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str id = str_of(b->id), label = label_of(b);

    if (str_starts_with(id, MEMFS_STR("block-")))
        id = str_from(id, 6);
    while (label.len > 0 && !is_plain(label.ptr[0])) /* no name begins with '-' */
        label = str_from(label, 1);
    buf_puts(&out, label.len > 0 ? SAFE_FOLDER : SAFE_FOLDER "block");
    for (size_t i = 0; i < label.len && i < SAFE_MAX; i++)
        buf_putc(&out, is_plain(label.ptr[i]) ? label.ptr[i] : '-');
    buf_putc(&out, '-');
    for (size_t i = 0; i < id.len && i < n_digits; i++)
        buf_putc(&out, is_plain(id.ptr[i]) ? id.ptr[i] : '-');
    buf_puts(&out, ".md");
    return buf_take(&out, NULL);
}

static void find_path(movein *m, size_t at)
{
    static const size_t digits[] = { ID_DIGITS, SIZE_MAX };
    moving *b = &m->blocks[at];
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    label_to_path(label_of(b), &path);
    if (is_fit(m, buf_str(&path), label_of(b)) && take_path(m, at, buf_str(&path)))
        return;
    b->is_renamed = true;
    if (m->h->options.letta_database != NULL)
        return; /* a file of another name would become a second block there */
    for (size_t i = 0; b->path == NULL && i < ARRAY_LEN(digits); i++) {
        _cleanup_(mem_freep) char *safe = safe_path(b, digits[i]);

        (void)take_path(m, at, str_of(safe));
    }
}

/* ---- what is worth telling ---- */

static void note(const movein *m, const char *kind, memfs_str what, const char *text)
{
    m->fn(kind, what, text, m->ctx);
}

static void note_block(const movein *m, const moving *b)
{
    if (b->is_renamed) {
        _cleanup_(mem_freep) char *text = mem_printf("its file is '%s'", b->path);

        note(m, "renamed", label_of(b), text);
    }
    if (b->is_shared) {
        _cleanup_(mem_freep) char *text =
            mem_printf("other agents have '%s' too; each gets a file of its own", b->id);

        note(m, "shared", label_of(b), text);
    }
    if (b->has_lost_metadata)
        note(m, "metadata-dropped", label_of(b), "its metadata is nothing that front matter holds");
    if (b->has_lost_description)
        note(m, "description-dropped", label_of(b),
             "its description is nothing that front matter holds");
    if (b->text.len > m->h->options.policy.max_block_bytes)
        note(m, "too-large-to-read", label_of(b),
             "it is kept as a file, and its block is empty, as of any file of that size");
}

/* ---- the files ---- */

static int compare_blocks(const void *a, const void *b)
{
    int order = str_compare(label_of(a), label_of(b));

    return order != 0 ? order : strcmp(((const moving *)a)->id, ((const moving *)b)->id);
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const gather_file *)a)->path, ((const gather_file *)b)->path);
}

static void leave_out(movein *m, const moving *b)
{
    if (b->is_renamed && m->h->options.letta_database != NULL) {
        note(m, "left-alone", label_of(b),
             "it can be no file of that name, so it stays a block of Letta's only");
        return;
    }
    m->ret->n_left_out++;
    note(m, "left-out", label_of(b),
         b->is_renamed ? "no name for its file is free" : "no file of a memory may be so large");
}

/* Names depend on what is there, not on the order in which it came. */
static memfs_code name_files(movein *m, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (m->n > 0)
        qsort(m->blocks, m->n, sizeof(*m->blocks), compare_blocks);
    m->files = mem_realloc(NULL, m->n + 1, sizeof(*m->files));
    for (size_t i = 0; rc == MEMFS_OK && i < m->n; i++) {
        moving *b = &m->blocks[i];

        if (b->text.len <= m->h->options.policy.max_file_bytes)
            find_path(m, i);
        if (b->path == NULL) {
            leave_out(m, b);
            continue;
        }
        note_block(m, b);
        m->files[m->n_files] = (gather_file){ .path = b->path, .content = buf_str(&b->text) };
        rc = gather_name(&m->files[m->n_files++], err);
    }
    if (m->n_files > 0)
        qsort(m->files, m->n_files, sizeof(*m->files), compare_files);
    m->ret->n_blocks = m->n_files;
    return rc;
}

/* ---- what git does not carry ---- */

typedef struct adopted {
    const moving *blocks;
    size_t n;
    bool *is_taken; /* its id is another label's already: the block was renamed */
} adopted;

static memfs_code note_adopted(const state_birth *birth, void *ctx, memfs_error *err)
{
    adopted *a = ctx;
    memfs_str label;

    (void)err;
    for (size_t i = 0; birth->block_id.len > 0 && i < a->n; i++) {
        const moving *b = &a->blocks[i];

        if (b->path == NULL || !str_equal(birth->block_id, str_of(b->id)))
            continue;
        if (!label_of_path(str_of(b->path), MEMFS_STR(""), &label) ||
            !str_equal(label, birth->label))
            a->is_taken[i] = true;
    }
    return MEMFS_OK;
}

/*
 * What a block that cannot have its id gets instead is its own for good, too: it would otherwise
 * change when the others give the block up.
 */
static memfs_code put_attributes(const movein *m, memfs_error *err)
{
    _cleanup_(mem_freep) state_birth *births = mem_realloc(NULL, m->n + 1, sizeof(*births));
    _cleanup_(mem_freep) char(*ids)[IDS_BLOCK_LEN + 1] = mem_realloc(NULL, m->n + 1, sizeof(*ids));
    _cleanup_(mem_freep) bool *is_taken = mem_alloc(m->n + 1);
    adopted a = { m->blocks, m->n, is_taken };
    state_agent agent = { .id = str_of(m->id),
                          .name = str_of(m->name),
                          .tags_json = str_of(m->tags_json),
                          .created_at_us = m->created_at_us,
                          .updated_at_us = m->updated_at_us };
    int64_t now_us = clock_wall_us();
    memfs_code rc;
    size_t n = 0;

    rc = state_births(m->h->state, agent.id, MEMFS_STR(""), note_adopted, &a, err);
    for (size_t i = 0; rc == MEMFS_OK && i < m->n; i++) {
        const moving *b = &m->blocks[i];
        memfs_str label;

        if (b->path == NULL || !label_of_path(str_of(b->path), MEMFS_STR(""), &label))
            continue;
        ids_block(agent.id, label, ids[n]);
        births[n] =
            (state_birth){ .label = label,
                           .created_at_us = b->created_at_us > 0 ? b->created_at_us : now_us,
                           .tags_json = str_of(b->tags_json),
                           .block_id = str_of(b->is_shared || is_taken[i] ? ids[n] : b->id),
                           .limit = b->limit,
                           .hidden = b->hidden };
        n++;
    }
    return rc < 0 ? rc : intake_attributes(m->h, &agent, births, n, err);
}

/* ---- what was moved in before ---- */

/* Zero: nothing was. */
static memfs_code find_last(repo *r, const memfs_oid *tip, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = gather_last(r, tip, MOVEIN_EMAIL, ret, err);

    if (rc != MEMFS_ENOTFOUND)
        return rc;
    *ret = (memfs_oid){ { 0 } };
    return MEMFS_OK;
}

static void note_change(memfs_str path, char what, void *ctx)
{
    const movein *m = ctx;

    if (m->is_dry)
        note(m, what == 'D' ? "would-remove" : "would-write", path,
             what == 'D' ? "Letta has it no more" : "nothing was written");
}

/* Whether Letta has anything that was not moved in; *ret_last the commit to build on. */
static memfs_code compare_with_last(movein *m, const agent *a, memfs_oid *ret_last,
                                    bool *ret_differs, memfs_error *err)
{
    _cleanup_(repo_closep) repo *r = NULL;
    memfs_oid tip, empty = STORE_GENESIS;
    size_t n_differ = 0;
    memfs_code rc;

    rc = store_tip(m->h->store, a->repo, &tip, err);
    if (rc == MEMFS_OK)
        rc = repo_open(m->h->store, a->repo, &r, err);
    if (rc == MEMFS_OK)
        rc = find_last(r, &tip, ret_last, err);
    if (rc == MEMFS_OK)
        rc = gather_diff(r, oid_is_zero(ret_last) ? &empty : ret_last, m->files, m->n_files,
                         &m->h->options.policy, note_change, m, &n_differ, err);
    *ret_differs = n_differ > 0;
    return rc;
}

/* ---- into main ---- */

static void write_message(const movein *m, memfs_buf *out)
{
    char shown[200];

    buf_printf(out, "Import from Letta: %zu block%s\n", m->n_files, m->n_files == 1 ? "" : "s");
    for (size_t i = 0; i < m->n; i++) {
        const moving *b = &m->blocks[i];

        if (b->path != NULL && b->is_renamed && out->len < 64 * 1024)
            buf_printf(out, "\n%s is the block '%s'.\n", b->path,
                       escape_text(label_of(b), shown, sizeof(shown)));
    }
}

static memfs_code write_commit(const movein *m, fetched *f, const memfs_oid *last, memfs_oid *ret,
                               memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf message = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    store_identity who = { "Letta", MOVEIN_EMAIL, clock_wall_us() / 1000000 };
    repo *r = fetched_repo(f);
    memfs_oid tree;
    memfs_code rc;

    if (r == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "could not open a repository to build in");
    write_message(m, &message);
    rc = gather_tree(r, m->files, m->n_files, &tree, err);
    return rc < 0 ? rc : repo_commit_tree(r, &tree, last, 1, &who, buf_str(&message), ret, err);
}

static void note_merge(const movein *m, const merge_result *merge)
{
    for (size_t i = 0; i < merge->n_notes; i++) {
        const merge_note *n = &merge->notes[i];
        _cleanup_(mem_freep) char *text = mem_printf("%s%s%s", merge_rule_name(n->rule),
                                                     n->detail[0] != '\0' ? ": " : "", n->detail);

        note(m, "merged", str_of(n->path), text);
    }
}

/* has_news false: Letta has nothing, and the agent is made with the genesis. */
static memfs_code take_in(movein *m, const agent *a, const memfs_oid *last, bool has_news,
                          memfs_error *err)
{
    _cleanup_(fetched_freep) fetched *f = NULL;
    _cleanup_(intake_result_dispose) intake_result r = INTAKE_RESULT_INIT;
    memfs_oid theirs = STORE_GENESIS, none = { { 0 } };
    memfs_code rc;

    rc = fetched_begin(m->h->store, a->repo, &f, err);
    if (rc == MEMFS_OK && has_news)
        rc = write_commit(m, f, oid_is_zero(last) ? &STORE_GENESIS : last, &theirs, err);
    if (rc == MEMFS_OK)
        rc = intake_fetched(m->h, str_of(m->id), f, &theirs, &none, INTAKE_MERGE, "letta", &r, err);
    if (rc < 0)
        return rc;
    note_merge(m, &r.merge);
    m->ret->outcome = oid_is_zero(&r.before) ? MOVEIN_MADE
                      : r.merge.is_merge     ? MOVEIN_MERGED
                      : r.moved              ? MOVEIN_CHANGED
                                             : MOVEIN_UNCHANGED;
    return MEMFS_OK;
}

static memfs_code bring_over(movein *m, memfs_error *err)
{
    memfs_oid last = { { 0 } };
    bool is_known, exists, differs = m->n_files > 0;
    agent *a;
    memfs_code rc;

    rc = home_agent_for_push(m->h, str_of(m->id), &a, &is_known, err);
    if (rc < 0)
        return rc;
    exists = store_has(m->h->store, a->repo);
    if (exists)
        rc = compare_with_last(m, a, &last, &differs, err);
    else
        for (size_t i = 0; i < m->n_files; i++)
            note_change(str_of(m->files[i].path), 'A', m);
    if (rc < 0)
        return rc;
    if (m->is_dry) {
        m->ret->outcome = !exists ? MOVEIN_MADE : differs ? MOVEIN_CHANGED : MOVEIN_UNCHANGED;
        return MEMFS_OK;
    }
    rc = put_attributes(m, err); /* first, so that first rows have them */
    if (rc == MEMFS_OK && (differs || !exists))
        rc = take_in(m, a, &last, differs, err);
    if (rc == MEMFS_OK && !exists)
        rc = put_attributes(m, err); /* name and tags, of an agent that is known only now */
    return rc;
}

memfs_code movein_finish(movein *m, bool is_dry, movein_note_fn fn, void *ctx, movein_result *ret,
                         memfs_error *err)
{
    memfs_code rc;

    m->is_dry = is_dry;
    m->fn = fn;
    m->ctx = ctx;
    m->ret = ret;
    *ret = (movein_result){ .outcome = MOVEIN_UNCHANGED };
    rc = name_files(m, err);
    return rc < 0 ? rc : bring_over(m, err);
}
