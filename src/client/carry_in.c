#include "client/carry.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/bundle.h"
#include "store/merge.h"
#include "store/vet.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/*
 * A folder becomes a tree of its own first (a commit that nothing points to: HEAD's files out, the
 * folder's in), is judged as a push is, and is then merged with HEAD's tree on the empty base: what
 * only one side has is kept, what both have is merged.  The result is one commit on top of HEAD.
 * So an import never makes another root, and never takes anything away.
 */

#define MAX_DEPTH 64
#define MAX_TOTAL (256u << 20)

typedef struct intake {
    const char *folder;
    const carry_options *o;
    const policy *rules;
    checkout_edit *edits; /* paths and contents are owned */
    size_t n, cap;
    size_t n_sorted; /* the first of them: the folder's files, by path */
    uint64_t bytes;
    carried_in *ret;
} intake;

static void intake_dispose(intake *in)
{
    for (size_t i = 0; i < in->n; i++) {
        free((char *)in->edits[i].path.ptr);
        free((char *)in->edits[i].content.ptr);
    }
    free(in->edits);
}

static void add_edit(intake *in, memfs_str path, char *content_given, size_t len)
{
    if (in->n == in->cap) {
        in->cap = in->cap ? in->cap * 2 : 64;
        in->edits = mem_realloc(in->edits, in->cap, sizeof(*in->edits));
    }
    in->edits[in->n++] = (checkout_edit){ { mem_strndup(path.ptr, path.len), path.len },
                                          { content_given, len } };
}

static void refuse(intake *in, const char *path, const char *why)
{
    in->ret->n_refused++;
    if (in->o->refused != NULL)
        in->o->refused(str_of(path), why, in->o->ctx);
}

/* ---- reading the folder ---- */

static void close_dir(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

static memfs_code take_file(intake *in, const char *relative, const struct stat *st,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", in->folder, relative);
    memfs_buf text = MEMFS_BUF_INIT(in->rules->max_file_bytes);
    memfs_error why = MEMFS_ERROR_INIT;
    memfs_code rc;
    size_t len;

    if (policy_file_size(in->rules, str_of(relative), (uint64_t)st->st_size, &why) < 0) {
        refuse(in, relative, why.msg);
        return MEMFS_OK;
    }
    in->bytes += (uint64_t)st->st_size;
    if (in->bytes > MAX_TOTAL)
        return memfs_fail(err, MEMFS_ELIMIT, "the folder has more than %u MiB; import parts of it",
                          MAX_TOTAL >> 20);
    rc = fs_read(full, &text, err);
    if (rc < 0) {
        buf_dispose(&text);
        return rc;
    }
    len = text.len;
    add_edit(in, str_of(relative), buf_take(&text, NULL), len);
    return MEMFS_OK;
}

static memfs_code take_folder(intake *in, const char *relative, unsigned depth, memfs_error *err);

static memfs_code take_entry(intake *in, const char *folder, const char *name, unsigned depth,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *relative = mem_printf("%s%s", folder, name);
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", in->folder, relative);
    memfs_error why = MEMFS_ERROR_INIT;
    tree_entry entry = { .name = str_of(name) };
    struct stat st;

    if (lstat(full, &st) < 0)
        return errno == ENOENT ? MEMFS_OK : memfs_fail_errno(err, "could not look at '%s'", full);
    entry.mode = S_ISDIR(st.st_mode)   ? TREE_MODE_FOLDER
                 : S_ISREG(st.st_mode) ? TREE_MODE_FILE
                                       : TREE_MODE_LINK;
    if (policy_entry(in->rules, str_of(folder), &entry, &why) < 0) {
        refuse(in, relative, why.msg);
        return MEMFS_OK;
    }
    if (S_ISREG(st.st_mode))
        return take_file(in, relative, &st, err);
    if (depth < MAX_DEPTH)
        return take_folder(in, relative, depth + 1, err);
    refuse(in, relative, "folders are nested too deep");
    return MEMFS_OK;
}

static memfs_code take_folder(intake *in, const char *relative, unsigned depth, memfs_error *err)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", in->folder, relative);
    _cleanup_(mem_freep) char *prefix = mem_printf("%s%s", relative, relative[0] ? "/" : "");
    _cleanup_(close_dir) DIR *dir = opendir(full);
    memfs_code rc = MEMFS_OK;
    struct dirent *entry;

    if (dir == NULL)
        return memfs_fail_errno(err, "could not read '%s'", full);
    while (rc == MEMFS_OK && (errno = 0, entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;

        /* the folder may be somebody's checkout: its history is not what is imported */
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            (depth == 0 && strcmp(name, ".git") == 0))
            continue;
        rc = take_entry(in, prefix, name, depth, err);
    }
    if (rc == MEMFS_OK && errno != 0)
        return memfs_fail_errno(err, "could not read '%s'", full);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return str_compare(((const checkout_edit *)a)->path, ((const checkout_edit *)b)->path);
}

/* ---- what changes ---- */

static memfs_code on_change(const browse_change *change, void *ctx, memfs_error *err)
{
    intake *in = ctx;

    (void)err;
    in->ret->n_files++;
    if (in->o->changed != NULL)
        in->o->changed(change->path, change->status == 'A' ? "added" : "changed", in->o->ctx);
    return MEMFS_OK;
}

/* What only HEAD has is out of the import's own tree. */
static memfs_code take_out(memfs_str path, uint32_t mode, const memfs_oid *blob, void *ctx,
                           memfs_error *err)
{
    const checkout_edit key = { .path = path };
    intake *in = ctx;

    (void)mode;
    (void)blob;
    (void)err;
    if (in->n_sorted == 0 ||
        bsearch(&key, in->edits, in->n_sorted, sizeof(*in->edits), by_path) == NULL)
        add_edit(in, path, NULL, 0);
    return MEMFS_OK;
}

static memfs_code tree_of(checkout *c, const memfs_oid *commit, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    memfs_code rc = repo_commit_info(checkout_repo(c), commit, &info, err);

    if (rc == MEMFS_OK)
        *ret = info.tree;
    return rc;
}

/* The folder's files alone, as a commit that nothing points to. */
static memfs_code own_tree(checkout *c, browse *b, intake *in, const memfs_oid *head,
                           const store_identity *who, memfs_oid *ret, memfs_error *err)
{
    memfs_code rc = browse_files(b, head, NULL, take_out, in, err);

    if (rc == MEMFS_OK)
        rc = checkout_commit_edits(c, head, in->edits, in->n, who, "memfs: import\n", ret, err);
    return rc < 0 ? rc : vet_tip(checkout_repo(c), ret, head, 1, in->rules, err);
}

static char *message_of(const char *source, const merge_result *m)
{
    const char *slash = strrchr(source, '/');
    memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_printf(&text, "memfs: import %s\n", slash != NULL && slash[1] != '\0' ? slash + 1 : source);
    if (m->n_notes > 0)
        buf_puts(&text, "\nFiles that were there already, merged:\n");
    for (size_t i = 0; i < m->n_notes; i++)
        buf_printf(&text, "  %s: %s\n", m->notes[i].path, merge_rule_name(m->notes[i].rule));
    return buf_take(&text, NULL);
}

static memfs_code merge_in(checkout *c, intake *in, const memfs_oid *head, const memfs_oid *import,
                           const store_identity *who, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    _cleanup_(mem_freep) char *message = NULL;
    memfs_oid ours, theirs, tree;
    memfs_code rc = tree_of(c, head, &ours, err);

    if (rc == MEMFS_OK)
        rc = tree_of(c, import, &theirs, err);
    if (rc == MEMFS_OK)
        rc = merge_trees(checkout_repo(c), NULL, &ours, &theirs, &tree, &m, err);
    if (rc < 0)
        return rc;
    in->ret->n_by_rule = m.n_notes;
    *ret = *head;
    if (oid_equal(&tree, &ours))
        return MEMFS_OK;
    message = message_of(in->folder, &m);
    return checkout_commit_tree(c, &tree, head, 1, who, message, ret, err);
}

/* The imported files stand for those that were there. */
static memfs_code put_over(checkout *c, intake *in, const memfs_oid *head,
                           const store_identity *who, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(merge_result_dispose) merge_result none = MERGE_RESULT_INIT;
    _cleanup_(mem_freep) char *message = message_of(in->folder, &none);
    memfs_oid before, after;
    memfs_code rc;

    rc = checkout_commit_edits(c, head, in->edits, in->n, who, message, ret, err);
    if (rc == MEMFS_OK)
        rc = vet_tip(checkout_repo(c), ret, head, 1, in->rules, err);
    if (rc == MEMFS_OK)
        rc = tree_of(c, head, &before, err);
    if (rc == MEMFS_OK)
        rc = tree_of(c, ret, &after, err);
    if (rc == MEMFS_OK && oid_equal(&before, &after))
        *ret = *head; /* all of it was there */
    return rc;
}

/* ---- main follows ---- */

static memfs_code advance(checkout *c, browse *b, intake *in, const memfs_oid *head,
                          const memfs_oid *commit, memfs_error *err)
{
    checkout_update_report report = { 0 };
    browse_span span = { .old = head, .new = commit };
    memfs_code rc;

    in->ret->commit = *head;
    in->ret->is_changed = !oid_equal(head, commit);
    if (!in->ret->is_changed)
        return MEMFS_OK;
    rc = browse_diff(b, &span, on_change, in, err);
    if (rc < 0 || in->o->is_dry_run)
        return rc;
    rc = checkout_update(c, head, commit, "memfs import", &report, err);
    if (rc == MEMFS_ECONFLICT && report.in_the_way[0] != '\0')
        return memfs_fail(err, rc, "'%.200s' is not committed; commit it or put it aside, nothing was "
                          "imported", report.in_the_way);
    if (rc == MEMFS_ECONFLICT)
        return memfs_context(err, "nothing was imported");
    if (rc == MEMFS_OK)
        in->ret->commit = *commit;
    return rc;
}

/* A client's .git/config holds the Letta key, and what is imported is pushed. */
static memfs_code refuse_git_folder(const char *folder, memfs_error *err)
{
    static const char *const parts[] = { "HEAD", "objects", "refs" };

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        _cleanup_(mem_freep) char *part = mem_printf("%s/%s", folder, parts[i]);

        if (!fs_exists(part) || (i > 0 && !fs_is_dir(part)))
            return MEMFS_OK;
    }
    return memfs_fail(err, MEMFS_EDENIED,
                      "'%s' is the inside of a git repository, not a folder of files; for its "
                      "history name a bundle ('git bundle create FILE main')", folder);
}

memfs_code carry_in_folder(checkout *c, browse *b, const char *folder, const carry_options *o,
                           carried_in *ret, memfs_error *err)
{
    const policy rules = POLICY_INIT;
    _cleanup_(intake_dispose) intake in = { .folder = folder, .o = o, .rules = &rules, .ret = ret };
    store_identity who;
    memfs_oid head, import, commit;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &head, err);

    *ret = (carried_in){ .n_files = 0 };
    if (rc == MEMFS_OK)
        rc = refuse_git_folder(folder, err);
    if (rc == MEMFS_OK)
        rc = take_folder(&in, "", 0, err);
    if (rc < 0)
        return rc;
    if (ret->n_refused > 0 && !o->skips_refused)
        return memfs_fail(err, MEMFS_EDENIED, "%zu %s not taken; nothing was imported",
                          ret->n_refused, ret->n_refused == 1 ? "file is" : "files are");
    if (in.n > 1)
        qsort(in.edits, in.n, sizeof(*in.edits), by_path);
    in.n_sorted = in.n;
    browse_identity(b, &who);
    if (o->is_replacing) {
        rc = put_over(c, &in, &head, &who, &commit, err);
    } else {
        rc = own_tree(c, b, &in, &head, &who, &import, err);
        if (rc == MEMFS_OK)
            rc = merge_in(c, &in, &head, &import, &who, &commit, err);
    }
    return rc < 0 ? rc : advance(c, b, &in, &head, &commit, err);
}

/* ---- bundles ---- */

memfs_code carry_in_bundle(checkout *c, browse *b, const char *file, const carry_options *o,
                           carried_in *ret, memfs_error *err)
{
    const policy rules = POLICY_INIT;
    _cleanup_(merge_result_dispose) merge_result m = MERGE_RESULT_INIT;
    intake in = { .folder = file, .o = o, .rules = &rules, .ret = ret };
    merge_relation relation;
    memfs_oid head, tip;
    memfs_code rc = checkout_ref(c, STORE_MAIN, &head, err);

    *ret = (carried_in){ .n_files = 0 };
    if (rc == MEMFS_OK)
        rc = bundle_read(c, file, &tip, err);
    if (rc == MEMFS_OK)
        rc = vet_tip(checkout_repo(c), &tip, &head, 1, &rules, err);
    if (rc == MEMFS_OK)
        rc = merge_relate(checkout_repo(c), &tip, &head, &relation, &ret->n_commits, NULL, err);
    if (rc == MEMFS_OK)
        rc = merge_commits(checkout_repo(c), &head, &tip, &m, err);
    if (rc < 0)
        return rc;
    ret->n_by_rule = m.n_notes;
    return advance(c, b, &in, &head, &m.commit, err);
}
