#include "store/checkout_int.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Commits without git.  Blobs, trees and the commit are written and synced before anything points
 * to them.  A commit of the working tree then replaces the index, and only after that moves the
 * branch: a crash in between leaves files that are staged, which is what a person would find
 * natural and what the next commit takes.  In the other order the old index would look like a
 * staged removal of the new files.
 */

/* objects */

/* A name must not end its field or its line. */
static void add_name(memfs_buf *out, const char *text)
{
    for (const char *at = text; *at != '\0'; at++)
        if (*at != '<' && *at != '>' && (unsigned char)*at >= ' ')
            buf_putc(out, *at);
}

static void add_person(memfs_buf *out, const char *role, const store_identity *who)
{
    buf_printf(out, "%s ", role);
    add_name(out, who->name);
    buf_puts(out, " <");
    add_name(out, who->email);
    buf_printf(out, "> %lld +0000\n", (long long)(who->time_s < 0 ? 0 : who->time_s));
}

static memfs_code write_object(repo *r, git_object_t type, memfs_str bytes, memfs_oid *ret,
                               memfs_error *err)
{
    git_oid id;
    int rc = git_odb_write(&id, r->odb, bytes.ptr, bytes.len, type);

    if (rc < 0)
        return store_fail_git(err, rc, "could not write an object");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

/* git knows the empty tree without being told, but fsck wants to see it. */
static memfs_code write_if_empty(checkout *c, const memfs_oid *tree, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid ignored;

    oid_hex(tree, hex);
    if (strcmp(hex, "4b825dc642cb6eb9a060e54bf8d69288fbee4904") != 0)
        return MEMFS_OK;
    return write_object(c->r, GIT_OBJECT_TREE, MEMFS_STR(""), &ignored, err);
}

memfs_code checkout_commit_tree(checkout *c, const memfs_oid *tree, const memfs_oid *parents,
                                size_t n_parents, const store_identity *who, const char *message,
                                memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(OBJECT_MAX_COMMIT_BYTES);
    char hex[MEMFS_OID_HEX + 1];
    memfs_code rc;

    oid_hex(tree, hex);
    buf_printf(&text, "tree %s\n", hex);
    for (size_t i = 0; i < n_parents; i++) {
        oid_hex(&parents[i], hex);
        buf_printf(&text, "parent %s\n", hex);
    }
    add_person(&text, "author", who);
    add_person(&text, "committer", who);
    buf_putc(&text, '\n');
    buf_puts(&text, message);
    if (text.len > 0 && text.ptr[text.len - 1] != '\n')
        buf_putc(&text, '\n');
    rc = buf_check(&text, "the commit", err);
    if (rc == MEMFS_OK)
        rc = write_if_empty(c, tree, err);
    return rc == MEMFS_OK ? write_object(c->r, GIT_OBJECT_COMMIT, buf_str(&text), ret, err) : rc;
}

static void index_freep(git_index **index)
{
    git_index_free(*index);
    *index = NULL;
}

static memfs_code fill_index(git_index *index, const tree_files *files, memfs_error *err)
{
    for (size_t i = 0; i < files->n; i++) {
        git_index_entry e = { .mode = files->at[i].mode, .path = files->at[i].path };

        repo_git_oid(&files->at[i].id, &e.id);
        if (git_index_add(index, &e) < 0)
            return store_fail_git(err, -1, "could not gather the files");
    }
    return MEMFS_OK;
}

static memfs_code edit_index(checkout *c, git_index *index, const checkout_edit *edit,
                             memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_strndup(edit->path.ptr, edit->path.len);
    const git_index_entry *old = git_index_get_bypath(index, path, 0);
    git_index_entry e = { .mode = old != NULL && old->mode == TREE_MODE_EXEC ? TREE_MODE_EXEC
                                                                             : TREE_MODE_FILE,
                          .path = path };
    memfs_oid id;
    memfs_code rc;

    if (memchr(edit->path.ptr, '\0', edit->path.len) != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "a path has a NUL in it");
    if (edit->content.ptr == NULL) {
        if (old != NULL && git_index_remove(index, path, 0) < 0)
            return store_fail_git(err, -1, "could not remove '%.200s'", path);
        return MEMFS_OK;
    }
    rc = write_object(c->r, GIT_OBJECT_BLOB, edit->content, &id, err);
    if (rc < 0)
        return rc;
    repo_git_oid(&id, &e.id);
    if (git_index_add(index, &e) < 0)
        return memfs_fail(err, MEMFS_EINVALID, "'%.200s' is no path for a file", path);
    return MEMFS_OK;
}

static memfs_code write_tree(checkout *c, git_index *index, memfs_oid *ret, memfs_error *err)
{
    git_oid id;
    int rc = git_index_write_tree_to(&id, index, c->r->view);

    if (rc < 0)
        return store_fail_git(err, rc, "could not write the tree");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

memfs_code checkout_commit_edits(checkout *c, const memfs_oid *parent, const checkout_edit *edits,
                                 size_t n, const store_identity *who, const char *message,
                                 memfs_oid *ret, memfs_error *err)
{
    _cleanup_(tree_files_dispose) tree_files files = { NULL, 0 };
    _cleanup_(index_freep) git_index *index = NULL;
    memfs_oid tree;
    memfs_code rc = repo_tree_of_commit(c->r, parent, &tree, err);

    if (rc == MEMFS_OK)
        rc = tree_files_read(c->r, &tree, &files, err);
    if (rc == MEMFS_OK && git_index_new(&index) < 0)
        return store_fail_git(err, -1, "could not gather the files");
    if (rc == MEMFS_OK)
        rc = fill_index(index, &files, err);
    for (size_t i = 0; rc == MEMFS_OK && i < n; i++)
        rc = edit_index(c, index, &edits[i], err);
    if (rc == MEMFS_OK)
        rc = write_tree(c, index, &tree, err);
    if (rc == MEMFS_OK)
        rc = checkout_commit_tree(c, &tree, parent, 1, who, message, ret, err);
    return rc;
}

/* names that differ only in case */

typedef struct twins {
    char **keys, **names; /* an open table: what twins have in common -> the first of them */
    size_t n, mask;
} twins;

static void twins_dispose(twins *t)
{
    for (size_t i = 0; t->keys != NULL && i <= t->mask; i++) {
        free(t->keys[i]);
        free(t->names[i]);
    }
    free(t->keys);
    free(t->names);
}

static size_t twins_slot(const twins *t, memfs_str key)
{
    uint64_t hash = 14695981039346656037u;
    size_t at;

    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ (unsigned char)key.ptr[i]) * 1099511628211u;
    at = (hash ^ hash >> 32) & t->mask;
    while (t->keys[at] != NULL && !str_equal(str_of(t->keys[at]), key))
        at = (at + 1) & t->mask;
    return at;
}

static void twins_grow(twins *t)
{
    twins old = *t;

    t->mask = old.keys == NULL ? 255 : old.mask * 2 + 1;
    t->keys = mem_alloc((t->mask + 1) * sizeof(*t->keys));
    t->names = mem_alloc((t->mask + 1) * sizeof(*t->names));
    for (size_t i = 0; old.keys != NULL && i <= old.mask; i++) {
        size_t at;

        if (old.keys[i] == NULL)
            continue;
        at = twins_slot(t, str_of(old.keys[i]));
        t->keys[at] = old.keys[i];
        t->names[at] = old.names[i];
    }
    free(old.keys);
    free(old.names);
}

/* One name, of a file or a folder above one.  False: another that is its twin is there. */
static bool twins_add(twins *t, memfs_str name, memfs_buf *scratch)
{
    size_t at;

    if (t->keys == NULL || t->n * 2 > t->mask)
        twins_grow(t);
    policy_name_key(name, scratch);
    at = twins_slot(t, buf_str(scratch));
    if (t->keys[at] != NULL)
        return str_equal(str_of(t->names[at]), name);
    t->keys[at] = mem_strndup(scratch->ptr, scratch->len);
    t->names[at] = mem_strndup(name.ptr, name.len);
    t->n++;
    return true;
}

/* The path and all folders above it. */
static bool twins_add_path(twins *t, const char *path)
{
    _cleanup_(buf_dispose) memfs_buf scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    for (const char *at = strchr(path, '/'); at != NULL; at = strchr(at + 1, '/'))
        if (!twins_add(t, str_make(path, (size_t)(at - path)), &scratch))
            return false;
    return twins_add(t, str_of(path), &scratch);
}

/* the working tree */

typedef struct gathering {
    checkout *c;
    const policy *p;
    checkout_skipped_fn skipped;
    void *ctx;
    checkout_index x;
    twins names;
    tree_cursor cursor;
    uint64_t n_entries, bytes;
} gathering;

static void gathering_dispose(gathering *g)
{
    checkout_index_dispose(&g->x);
    twins_dispose(&g->names);
    tree_cursor_dispose(&g->cursor);
}

/* Rules begin with the path, which the caller's listener is told anyway. */
static void skip(const gathering *g, const char *path, const char *why)
{
    const char *rule = strstr(why, "': ");

    if (g->skipped != NULL)
        g->skipped(str_of(path), why[0] == '\'' && rule != NULL ? rule + 3 : why, g->ctx);
}

static memfs_code check_parts(const policy *p, const char *path, uint32_t mode, memfs_error *err)
{
    const char *part = path;
    uint32_t depth = 0;
    memfs_code rc = MEMFS_OK;

    for (;;) {
        const char *slash = strchr(part, '/');
        tree_entry e = { slash != NULL ? TREE_MODE_FOLDER : mode,
                         slash != NULL ? str_make(part, (size_t)(slash - part)) : str_of(part),
                         { { 0 } } };

        rc = policy_entry(p, str_make(path, (size_t)(part - path)), &e, err);
        if (rc < 0 || slash == NULL)
            return rc;
        if (++depth > p->max_depth)
            return policy_refuse(err, MEMFS_STR(""), str_of(path),
                                 "folders are nested deeper than %u; move it up", p->max_depth);
        part = slash + 1;
    }
}

static uint32_t mode_of(const checkout *c, const struct stat *st, const git_index_entry *old)
{
    if (S_ISLNK(st->st_mode))
        return TREE_MODE_LINK;
    if (!c->has_modes && old != NULL && old->mode == TREE_MODE_EXEC)
        return TREE_MODE_EXEC;
    return c->has_modes && (st->st_mode & S_IXUSR) ? TREE_MODE_EXEC : TREE_MODE_FILE;
}

/* The stat data are those from before the reading: an edit in between will be seen as one. */
static memfs_code read_file(int folder, const char *name, memfs_buf *out, struct stat *st,
                            memfs_error *err)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char chunk[16384];
    ssize_t n = -1;

    if (fd >= 0 && fstat(fd, st) == 0 && S_ISREG(st->st_mode))
        while ((n = read(fd, chunk, sizeof(chunk))) > 0 && !out->too_big)
            buf_add(out, chunk, (size_t)n);
    if (n < 0)
        memfs_fail_errno(err, "it could not be read");
    if (fd >= 0)
        close(fd);
    return n < 0 ? err->code : buf_check(out, "the file", err);
}

static memfs_code judge(gathering *g, const char *path, uint32_t mode, const struct stat *st,
                        memfs_error *err)
{
    memfs_code rc = check_parts(g->p, path, mode, err);

    if (rc == MEMFS_OK)
        rc = policy_file_size(g->p, str_of(path), (uint64_t)st->st_size, err);
    if (rc == MEMFS_OK)
        rc = policy_totals(g->p, g->n_entries + 1, g->bytes + (uint64_t)st->st_size, err);
    return rc;
}

/* Takes one file into the index, or tells why not. */
static memfs_code take(gathering *g, const char *path, int folder, const char *name,
                       const struct stat *seen, const git_index_entry *old, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(g->p->max_file_bytes + 1);
    git_index_entry e = { .mode = mode_of(g->c, seen, old), .path = path };
    struct stat st;
    memfs_oid id;

    if (judge(g, path, e.mode, seen, err) < 0 || read_file(folder, name, &bytes, &st, err) < 0) {
        skip(g, path, err->msg);
        return MEMFS_OK;
    }
    if (old == NULL && !twins_add_path(&g->names, path)) {
        skip(g, path, "another name differs from it only in case or form; rename one of them");
        return MEMFS_OK;
    }
    if (write_object(g->c->r, GIT_OBJECT_BLOB, buf_str(&bytes), &id, err) < 0)
        return err->code;
    checkout_entry_stat(&e, &st);
    repo_git_oid(&id, &e.id);
    if (git_index_add(g->x.index, &e) < 0) {
        skip(g, path, "git does not take this name; rename it");
        return MEMFS_OK;
    }
    g->n_entries++;
    g->bytes += (uint64_t)st.st_size;
    return MEMFS_OK;
}

static memfs_code take_untracked(const untracked_entry *e, void *ctx, memfs_error *err)
{
    gathering *g = ctx;

    if (e->is_repository) {
        skip(g, e->path, "it is a repository of its own");
        return MEMFS_OK;
    }
    return take(g, e->path, e->folder, e->name, &e->st, NULL, err);
}

/* A tracked file that changed or went.  The index changes under the caller, so entries are copies.
 * */
static memfs_code take_tracked(gathering *g, const git_index_entry *e, bool *ret_removed,
                               memfs_error *err)
{
    const char *name;
    bool is_fresh;
    struct stat st;
    int folder;
    memfs_code rc = checkout_entry_is_fresh(g->c, &g->x, e, &g->cursor, &is_fresh, err);

    *ret_removed = false;
    if (rc < 0 || is_fresh || e->mode == TREE_MODE_GITLINK)
        return rc;
    folder = tree_cursor_at(&g->cursor, e->path, &name);
    if (folder < 0 || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(st.st_mode)) {
        if (git_index_remove(g->x.index, e->path, 0) < 0)
            return store_fail_git(err, -1, "could not remove '%.200s'", e->path);
        *ret_removed = true;
        return MEMFS_OK;
    }
    return take(g, e->path, folder, name, &st, e, err);
}

static memfs_code take_all_tracked(gathering *g, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    size_t i = 0;

    while (rc == MEMFS_OK && i < git_index_entrycount(g->x.index)) {
        git_index_entry e = *git_index_get_byindex(g->x.index, i);
        _cleanup_(mem_freep) char *path = mem_strdup(e.path);
        bool is_removed;

        e.path = path;
        rc = take_tracked(g, &e, &is_removed, err);
        i += !is_removed;
    }
    for (i = 0; rc == MEMFS_OK && i < git_index_entrycount(g->x.index); i++)
        if (!twins_add_path(&g->names, git_index_get_byindex(g->x.index, i)->path))
            continue; /* such twins are there already: let be */
    return rc;
}

static memfs_code gather(gathering *g, memfs_error *err)
{
    memfs_code rc = checkout_index_read(g->c, &g->x, err);

    if (rc == MEMFS_OK && git_index_has_conflicts(g->x.index))
        return memfs_fail(err, MEMFS_ECONFLICT, "a merge is not finished; resolve it first");
    if (rc == MEMFS_OK)
        rc = tree_cursor_open(g->c, &g->cursor, err);
    if (rc == MEMFS_OK)
        rc = take_all_tracked(g, err);
    if (rc == MEMFS_OK)
        rc = checkout_each_untracked(g->c, g->x.index, take_untracked, g, err);
    return rc;
}

/* HEAD's branch and commit; without a commit the genesis stands in, so that there is one root
 * (design 4). */
static memfs_code find_parent(checkout *c, char **ret_ref, memfs_oid *ret_expected,
                              memfs_oid *ret_parent, memfs_error *err)
{
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", c->common_dir);
    memfs_code rc = checkout_head(c, ret_ref, ret_parent, err);

    if (rc < 0)
        return rc;
    if (*ret_ref == NULL)
        return memfs_fail(err, MEMFS_ECONFLICT, "HEAD is detached; check out a branch first");
    rc = checkout_ref(c, *ret_ref, ret_parent, err);
    *ret_expected = *ret_parent;
    if (rc != MEMFS_ENOTFOUND)
        return rc;
    memset(ret_expected, 0, sizeof(*ret_expected));
    *ret_parent = STORE_GENESIS;
    return store_write_genesis(objects, err);
}

static char *log_message(const char *message)
{
    return mem_printf("commit: %.*s", (int)strcspn(message, "\n"), message);
}

static memfs_code publish(gathering *g, gitlock *lock, const char *ref, const memfs_oid *expected,
                          const memfs_oid *commit, const store_identity *who, const char *message,
                          memfs_error *err)
{
    _cleanup_(ref_step_dispose) ref_step step = REF_STEP_INIT;
    _cleanup_(mem_freep) char *why = log_message(message);
    memfs_code rc = checkout_index_write(g->c, g->x.index, lock, err);

    if (rc == MEMFS_OK)
        rc = ref_step_begin(g->c, ref, expected, commit, &step, err);
    if (rc == MEMFS_OK)
        rc = gitlock_commit(lock, err);
    if (rc == MEMFS_OK)
        rc = ref_step_finish(g->c, &step, who, why, err);
    return rc;
}

static memfs_code check_calm(checkout *c, memfs_error *err)
{
    checkout_operation operation = checkout_operation_of(c);

    if (c->work_tree == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "a bare repository has no files to commit");
    if (operation != CHECKOUT_CALM)
        return memfs_fail(err, MEMFS_ECONFLICT, "a %s is in progress; finish or abort it first",
                          operation == CHECKOUT_REBASING ? "rebase" : "merge");
    return MEMFS_OK;
}

memfs_code checkout_commit_all(checkout *c, const policy *p, const store_identity *who,
                               const char *message, checkout_skipped_fn skipped, void *ctx,
                               memfs_oid *ret, memfs_error *err)
{
    _cleanup_(gathering_dispose) gathering g = {
        .c = c, .p = p, .skipped = skipped, .ctx = ctx, .cursor = TREE_CURSOR_INIT
    };
    _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
    _cleanup_(mem_freep) char *ref = NULL;
    memfs_oid expected, parent, old_tree, tree;
    memfs_code rc = check_calm(c, err);

    if (rc == MEMFS_OK)
        rc = checkout_index_lock(c, &lock, err);
    if (rc == MEMFS_OK)
        rc = find_parent(c, &ref, &expected, &parent, err);
    if (rc == MEMFS_OK)
        rc = repo_tree_of_commit(c->r, &parent, &old_tree, err);
    if (rc == MEMFS_OK)
        rc = gather(&g, err);
    if (rc == MEMFS_OK)
        rc = write_tree(c, g.x.index, &tree, err);
    if (rc < 0)
        return rc;
    *ret = parent;
    if (oid_equal(&tree, &old_tree))
        return MEMFS_OK;
    rc = checkout_commit_tree(c, &tree, &parent, 1, who, message, ret, err);
    return rc == MEMFS_OK ? publish(&g, &lock, ref, &expected, ret, who, message, err) : rc;
}
