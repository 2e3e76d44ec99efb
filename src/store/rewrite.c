/*
 * The second history is made bottom up and oldest first: a blob depends on its bytes, a tree on its
 * entries, a commit on its tree and parents.  Each old object is looked at once, and its new id
 * kept in a map, so the cost is one read of every object that main reaches, whatever the number of
 * commits.
 *
 * A tree's new bytes are the old ones with ids overwritten in place: names and modes stay, so the
 * order stays.  A commit's are built line by line.  What comes out unchanged keeps its id, and with
 * it its signature; so the history below the first touched commit stays the same commits.
 *
 * Replacing can put the needle together anew out of its neighbourhood ("[pur" in "a[pur[pur...").
 * It is repeated until there is none; a file that resists is replaced whole.
 */
#include "store/rewrite.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/git_child.h"
#include "store/oidmap.h"
#include "store/sidecar.h"
#include "store/store_int.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_ROUNDS 8

typedef struct rewriter {
    repo *r;
    const rewrite_request *q;
    const policy *p;
    rewrite_result *ret;
    oidmap blobs, trees, commits; /* old id -> place in made */
    memfs_oid *made;
    size_t n_made, cap_made;
    size_t cap_gone;
    memfs_buf path;
} rewriter;

static void rewriter_dispose(rewriter *w)
{
    oidmap_dispose(&w->blobs);
    oidmap_dispose(&w->trees);
    oidmap_dispose(&w->commits);
    free(w->made);
    buf_dispose(&w->path);
}

static bool recall(const rewriter *w, const oidmap *map, const memfs_oid *old, memfs_oid *ret)
{
    size_t at;

    if (!oidmap_get(map, old, &at))
        return false;
    *ret = w->made[at];
    return true;
}

static void remember(rewriter *w, oidmap *map, const memfs_oid *old, const memfs_oid *new)
{
    if (w->n_made == w->cap_made) {
        w->cap_made = w->cap_made == 0 ? 256 : w->cap_made * 2;
        w->made = mem_realloc(w->made, w->cap_made, sizeof(*w->made));
    }
    w->made[w->n_made] = *new;
    oidmap_put(map, old, w->n_made++);
}

static void add_gone(rewriter *w, const memfs_oid *id)
{
    if (w->ret->n_gone == w->cap_gone) {
        w->cap_gone = w->cap_gone == 0 ? 16 : w->cap_gone * 2;
        w->ret->gone = mem_realloc(w->ret->gone, w->cap_gone, sizeof(*w->ret->gone));
    }
    w->ret->gone[w->ret->n_gone++] = *id;
}

static memfs_code put(rewriter *w, git_object_t type, memfs_str bytes, memfs_oid *ret,
                      memfs_error *err)
{
    git_oid id;
    int rc;

    rc = w->q->dry_run ? git_odb_hash(&id, bytes.ptr, bytes.len, type)
                       : git_odb_write(&id, w->r->odb, bytes.ptr, bytes.len, type);
    if (rc < 0)
        return store_fail_git(err, rc, "could not write an object");
    repo_memfs_oid(&id, ret);
    return MEMFS_OK;
}

/* ---- text ---- */

static bool has_needle(memfs_str needle, memfs_str text)
{
    return needle.len > 0 && memmem(text.ptr, text.len, needle.ptr, needle.len) != NULL;
}

static void replace_once(memfs_str text, memfs_str needle, memfs_buf *out)
{
    const char *at;

    while ((at = memmem(text.ptr, text.len, needle.ptr, needle.len)) != NULL) {
        buf_add(out, text.ptr, (size_t)(at - text.ptr));
        buf_puts(out, REWRITE_MARK);
        text = str_from(text, (size_t)(at - text.ptr) + needle.len);
    }
    buf_add_str(out, text);
}

void rewrite_text(memfs_str text, memfs_str needle, memfs_buf *out)
{
    memfs_buf next = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED), swap;

    replace_once(text, needle, out);
    for (int i = 0; i < MAX_ROUNDS && has_needle(needle, buf_str(out)); i++) {
        buf_clear(&next);
        replace_once(buf_str(out), needle, &next);
        swap = *out;
        *out = next;
        next = swap;
    }
    if (has_needle(needle, buf_str(out))) {
        buf_clear(out);
        buf_puts(out, REWRITE_MARK "\n");
    }
    buf_dispose(&next);
}

/* ---- files ---- */

static bool is_named(const rewriter *w, const memfs_oid *blob)
{
    for (size_t i = 0; i < w->q->n_blobs; i++)
        if (oid_equal(&w->q->blobs[i], blob))
            return true;
    return false;
}

static memfs_code new_bytes(rewriter *w, const memfs_oid *old, memfs_buf *out, bool *ret_differs,
                            memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_code rc;

    *ret_differs = true;
    if (is_named(w, old)) {
        buf_puts(out, REWRITE_MARK "\n");
        return MEMFS_OK;
    }
    *ret_differs = false;
    if (w->q->needle.len == 0)
        return MEMFS_OK;
    rc = repo_blob(w->r, old, w->p->max_file_bytes, &text, err);
    if (rc < 0)
        return memfs_context(err, "could not search '%.*s'", (int)w->path.len, w->path.ptr);
    *ret_differs = has_needle(w->q->needle, buf_str(&text));
    if (*ret_differs)
        rewrite_text(buf_str(&text), w->q->needle, out);
    return MEMFS_OK;
}

static memfs_code rewrite_blob(rewriter *w, const memfs_oid *old, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    bool differs;
    memfs_code rc;

    if (recall(w, &w->blobs, old, ret))
        return MEMFS_OK;
    *ret = *old;
    rc = new_bytes(w, old, &bytes, &differs, err);
    if (rc == MEMFS_OK && differs) {
        rc = put(w, GIT_OBJECT_BLOB, buf_str(&bytes), ret, err);
        add_gone(w, old);
        w->ret->n_blobs++;
        if (w->q->found != NULL)
            w->q->found(buf_str(&w->path), old, w->q->ctx);
    }
    if (rc == MEMFS_OK)
        remember(w, &w->blobs, old, ret);
    return rc;
}

/* ---- folders ---- */

static memfs_code rewrite_tree(rewriter *w, const memfs_oid *old, uint32_t depth, memfs_oid *ret,
                               memfs_error *err);

static memfs_code rewrite_entry(rewriter *w, const tree_entry *e, uint32_t depth, memfs_oid *ret,
                                memfs_error *err)
{
    size_t path_len = w->path.len;
    memfs_code rc;

    *ret = e->id;
    if (repo_entry_is_gitlink(e))
        return MEMFS_OK;
    buf_add_str(&w->path, e->name);
    if (has_needle(w->q->needle, e->name) && w->q->named != NULL)
        w->q->named(buf_str(&w->path), w->q->ctx);
    if (repo_entry_is_folder(e)) {
        buf_putc(&w->path, '/');
        rc = rewrite_tree(w, &e->id, depth + 1, ret, err);
    } else {
        rc = rewrite_blob(w, &e->id, ret, err);
    }
    buf_truncate(&w->path, path_len);
    return rc;
}

static memfs_code rewrite_entries(rewriter *w, memfs_str raw, uint32_t depth, memfs_buf *out,
                                  bool *ret_differs, memfs_error *err)
{
    tree_entry entry;
    size_t pos = 0;
    memfs_oid new;
    memfs_code rc;
    bool is_bad;

    *ret_differs = false;
    buf_add_str(out, raw);
    while (tree_next(raw, &pos, &entry, &is_bad)) {
        rc = rewrite_entry(w, &entry, depth, &new, err);
        if (rc < 0)
            return rc;
        if (oid_equal(&new, &entry.id))
            continue;
        memcpy(out->ptr + pos - sizeof(new.id), new.id, sizeof(new.id));
        *ret_differs = true;
    }
    return is_bad ? memfs_fail(err, MEMFS_ECORRUPT, "a tree object cannot be read") : MEMFS_OK;
}

/* Recursion is bounded by the policy's depth (T16). */
static memfs_code rewrite_tree(rewriter *w, const memfs_oid *old, uint32_t depth, memfs_oid *ret,
                               memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf raw = MEMFS_BUF_INIT(OBJECT_MAX_TREE_BYTES);
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    bool differs = false;
    memfs_code rc;

    if (recall(w, &w->trees, old, ret))
        return MEMFS_OK;
    if (depth > w->p->max_depth)
        return memfs_fail(err, MEMFS_ELIMIT, "folders are nested deeper than %u", w->p->max_depth);
    rc = repo_read_tree(w->r, old, &object, err);
    if (rc == MEMFS_OK)
        rc = rewrite_entries(w, repo_raw(object), depth, &raw, &differs, err);
    if (rc < 0)
        return rc;
    *ret = *old;
    if (differs)
        rc = put(w, GIT_OBJECT_TREE, buf_str(&raw), ret, err);
    if (rc == MEMFS_OK)
        remember(w, &w->trees, old, ret);
    return rc;
}

/* ---- commits ---- */

typedef struct commit_copy {
    memfs_buf out;
    bool differs; /* from what was there */
    bool has_new_message;
} commit_copy;

static void commit_copy_dispose(commit_copy *c)
{
    buf_dispose(&c->out);
}

/* "tree <id>" or "parent <id>", with the id's successor. */
static memfs_code copy_link(rewriter *w, memfs_str line, commit_copy *c, memfs_error *err)
{
    bool is_tree = str_starts_with(line, MEMFS_STR("tree "));
    size_t at = is_tree ? 5 : 7;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid old, new;
    memfs_code rc = MEMFS_OK;

    if (!oid_parse(str_from(line, at), &old))
        return memfs_fail(err, MEMFS_ECORRUPT, "a commit cannot be read");
    if (is_tree)
        rc = rewrite_tree(w, &old, 0, &new, err);
    else if (!recall(w, &w->commits, &old, &new))
        rc = memfs_fail(err, MEMFS_ECORRUPT, "a commit comes before its parent");
    if (rc < 0)
        return rc;
    c->differs = c->differs || !oid_equal(&old, &new);
    oid_hex(&new, hex);
    buf_add(&c->out, line.ptr, at);
    buf_puts(&c->out, hex);
    buf_putc(&c->out, '\n');
    return MEMFS_OK;
}

static bool is_signature(memfs_str line)
{
    return str_starts_with(line, MEMFS_STR("gpgsig ")) ||
           str_starts_with(line, MEMFS_STR("gpgsig-sha256 ")) ||
           str_starts_with(line, MEMFS_STR("mergetag "));
}

/* Header lines up to the empty one; *rest is then the message. */
static memfs_code copy_header(rewriter *w, memfs_str *rest, commit_copy *c, memfs_error *err)
{
    bool is_dropping = false;
    memfs_str line;
    memfs_code rc;

    while (str_split(*rest, '\n', &line, rest) && line.len > 0) {
        if (str_starts_with(line, MEMFS_STR("tree ")) ||
            str_starts_with(line, MEMFS_STR("parent "))) {
            rc = copy_link(w, line, c, err);
            if (rc < 0)
                return rc;
            continue;
        }
        if (line.ptr[0] != ' ')
            is_dropping = is_signature(line);
        if (is_dropping)
            continue;
        buf_add_str(&c->out, line);
        buf_putc(&c->out, '\n');
    }
    buf_putc(&c->out, '\n');
    return MEMFS_OK;
}

static void copy_message(rewriter *w, memfs_str message, commit_copy *c)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    c->has_new_message = has_needle(w->q->needle, message);
    if (!c->has_new_message) {
        buf_add_str(&c->out, message);
        return;
    }
    c->differs = true;
    rewrite_text(message, w->q->needle, &text);
    buf_add_str(&c->out, buf_str(&text));
}

static memfs_code read_commit(rewriter *w, const memfs_oid *id, git_odb_object **ret,
                              memfs_error *err)
{
    git_oid oid;
    int rc;

    repo_git_oid(id, &oid);
    rc = git_odb_read(ret, w->r->odb, &oid);
    if (rc < 0)
        return store_fail_git(err, rc, "could not read a commit");
    if (git_odb_object_type(*ret) != GIT_OBJECT_COMMIT)
        return memfs_fail(err, MEMFS_ECORRUPT, "a parent is no commit");
    return MEMFS_OK;
}

static memfs_code rewrite_commit(rewriter *w, const memfs_oid *old, memfs_error *err)
{
    _cleanup_(commit_copy_dispose) commit_copy c = { .out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED) };
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_oid new = *old;
    memfs_str rest;
    memfs_code rc;

    if (oid_equal(old, &STORE_GENESIS)) {
        remember(w, &w->commits, old, old);
        return MEMFS_OK;
    }
    rc = read_commit(w, old, &object, err);
    if (rc < 0)
        return rc;
    rest = repo_raw(object);
    rc = copy_header(w, &rest, &c, err);
    if (rc < 0)
        return rc;
    copy_message(w, rest, &c);
    if (c.differs) {
        rc = put(w, GIT_OBJECT_COMMIT, buf_str(&c.out), &new, err);
        w->ret->n_commits++;
    }
    if (c.has_new_message)
        add_gone(w, old);
    remember(w, &w->commits, old, &new);
    return rc;
}

static memfs_code rewrite_commits(rewriter *w, git_revwalk *walk, memfs_error *err)
{
    git_oid tip, next;
    memfs_code rc = MEMFS_OK;
    memfs_oid id;
    int number;

    repo_git_oid(&w->q->tip, &tip);
    git_revwalk_sorting(walk, GIT_SORT_TOPOLOGICAL | GIT_SORT_REVERSE);
    number = git_revwalk_push(walk, &tip);
    while (number == 0 && rc == MEMFS_OK && (number = git_revwalk_next(&next, walk)) == 0) {
        repo_memfs_oid(&next, &id);
        rc = rewrite_commit(w, &id, err);
    }
    if (rc < 0)
        return rc;
    return number == GIT_ITEROVER ? MEMFS_OK
                                  : store_fail_git(err, number, "could not walk the history");
}

static int compare_oids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(memfs_oid));
}

static memfs_code sync_objects(repo *r, memfs_error *err)
{
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", r->path);

    return fs_sync_tree(objects, err);
}

memfs_code rewrite_history(repo *r, const rewrite_request *request, const policy *p,
                           rewrite_result *ret, memfs_error *err)
{
    _cleanup_(rewriter_dispose) rewriter w = {
        .r = r, .q = request, .p = p, .ret = ret, .path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED)
    };
    git_revwalk *walk = NULL;
    memfs_code rc;

    *ret = (rewrite_result){ .gone = NULL };
    if (git_revwalk_new(&walk, r->view) < 0)
        return store_fail_git(err, -1, "could not walk the history");
    rc = rewrite_commits(&w, walk, err);
    git_revwalk_free(walk);
    if (rc == MEMFS_OK && !request->dry_run)
        rc = sync_objects(r, err);
    if (rc < 0) {
        rewrite_result_dispose(ret);
        return rc;
    }
    recall(&w, &w.commits, &request->tip, &ret->new_tip);
    if (ret->n_gone > 0)
        qsort(ret->gone, ret->n_gone, sizeof(*ret->gone), compare_oids);
    return MEMFS_OK;
}

void rewrite_result_dispose(rewrite_result *r)
{
    free(r->gone);
    r->gone = NULL;
    r->n_gone = 0;
}

/* ---- what is left over ---- */

static void close_dir(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

/* The next name but "." and ".."; NULL at the end.  A folder that is half read is not empty. */
static memfs_code next_name(DIR *dir, const char **ret, memfs_error *err)
{
    struct dirent *e;

    do {
        errno = 0;
        e = readdir(dir);
    } while (e != NULL && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0));
    *ret = e != NULL ? e->d_name : NULL;
    return errno == 0 ? MEMFS_OK : memfs_fail_errno(err, "could not list what is to be dropped");
}

/* also may be NULL. */
static memfs_code remove_all_but(const char *folder, const char *keep, const char *also,
                                 memfs_error *err)
{
    _cleanup_(close_dir) DIR *dir = opendir(folder);
    const char *name;
    memfs_code rc;

    if (dir == NULL)
        return memfs_fail_errno(err, "could not list what is to be dropped");
    while ((rc = next_name(dir, &name, err)) == MEMFS_OK && name != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);

        if (strcmp(name, keep) != 0 && (also == NULL || strcmp(name, also) != 0))
            rc = fs_remove_tree(path, err);
        if (rc < 0)
            break;
    }
    return rc;
}

static memfs_code remove_named(const char *repo_path, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", repo_path, name);

    return fs_remove_tree(path, err);
}

static memfs_code write_named(const char *repo_path, const char *name, const char *text,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", repo_path, name);

    return fs_write_atomic(path, str_of(text), 0600, err);
}

/* refs/memfs/meta as a file of its own; what else there is below refs/memfs goes. */
static memfs_code keep_sidecar(const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *memfs = mem_printf("%s/refs/memfs", path);
    char text[MEMFS_OID_HEX + 2];
    memfs_oid at;
    memfs_code rc = refs_read(path, STORE_META, &at, err);

    if (rc == MEMFS_ENOTFOUND)
        return fs_remove_tree(memfs, err);
    oid_hex(&at, text);
    text[MEMFS_OID_HEX] = '\n';
    text[MEMFS_OID_HEX + 1] = '\0';
    if (rc == MEMFS_OK)
        rc = fs_mkdirs(memfs, err);
    if (rc == MEMFS_OK)
        rc = write_named(path, STORE_META, text, err);
    return rc == MEMFS_OK ? remove_all_but(memfs, "meta", NULL, err) : rc;
}

/* Main first as a file of its own, then away with all that may name other commits. */
static memfs_code drop_refs(const char *path, const memfs_oid *tip, memfs_error *err)
{
    static const char *const others[] = { "packed-refs", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD",
                                          "logs" };
    _cleanup_(mem_freep) char *refs = mem_printf("%s/refs", path);
    _cleanup_(mem_freep) char *heads = mem_printf("%s/refs/heads", path);
    _cleanup_(mem_freep) char *logs = mem_printf("%s/logs/refs/heads", path);
    char hex[MEMFS_OID_HEX + 1], line[64 + 2 * MEMFS_OID_HEX + 64];
    memfs_code rc;

    oid_hex(tip, hex);
    snprintf(line, sizeof(line), "%s\n", hex);
    rc = write_named(path, STORE_MAIN, line, err);
    if (rc == MEMFS_OK)
        rc = keep_sidecar(path, err);
    if (rc == MEMFS_OK)
        rc = remove_all_but(refs, "heads", "memfs", err);
    if (rc == MEMFS_OK)
        rc = remove_all_but(heads, "main", NULL, err);
    for (size_t i = 0; i < ARRAY_LEN(others) && rc == MEMFS_OK; i++)
        rc = remove_named(path, others[i], err);
    if (rc == MEMFS_OK)
        rc = fs_mkdirs(logs, err);
    snprintf(line, sizeof(line), "%040d %s memfs <memfs@localhost> %lld +0000\tpurge\n", 0, hex,
             (long long)(clock_wall_us() / 1000000));
    if (rc == MEMFS_OK)
        rc = write_named(path, "logs/" STORE_MAIN, line, err);
    return rc < 0 ? rc : fs_sync_tree(refs, err);
}

static memfs_code run_git(store *s, const char *path, const char *const *args, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(64 * 1024);
    _cleanup_(buf_dispose) memfs_buf tail = MEMFS_BUF_INIT(16 * 1024);
    git_child_options o = { .git_dir = path, .args = args };

    return git_child_run(s, GIT_JOB_REPACK, &o, &out, &tail, 600000, err);
}

/*
 * What git does not see: packs that a fold left without an index for readers (care.c), and packs
 * that were cut short.  Readers of those have to fail now.
 */
static memfs_code drop_hidden_packs(const char *objects, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/pack", objects);
    _cleanup_(close_dir) DIR *dir = opendir(folder);
    const char *name;
    memfs_code rc;

    if (dir == NULL)
        return memfs_fail_errno(err, "could not list what is to be dropped");
    while ((rc = next_name(dir, &name, err)) == MEMFS_OK && name != NULL) {
        const char *dot = strrchr(name, '.');
        int stem = dot != NULL ? (int)(dot - name) : (int)strlen(name);
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, name);
        _cleanup_(mem_freep) char *index = mem_printf("%s/%.*s.idx", folder, stem, name);

        if (!fs_exists(index))
            rc = fs_remove_tree(path, err);
        if (rc < 0)
            break;
    }
    return rc;
}

memfs_code store_drop_old(store *s, const char *name, memfs_error *err)
{
    static const char *const repack[] = { "repack", "-a", "-d", "-q", NULL };
    static const char *const prune[] = { "prune", "--expire=now", NULL };
    _cleanup_(mem_freep) char *path = store_path(s, name);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", path);
    memfs_oid tip;
    memfs_code rc;

    rc = store_tip(s, name, &tip, err);
    if (rc == MEMFS_OK)
        rc = drop_refs(path, &tip, err);
    if (rc == MEMFS_OK)
        rc = run_git(s, path, repack, err);
    if (rc == MEMFS_OK)
        rc = run_git(s, path, prune, err);
    if (rc == MEMFS_OK)
        rc = drop_hidden_packs(objects, err);
    return rc < 0 ? rc : fs_sync_tree(objects, err);
}

bool repo_has(repo *r, const memfs_oid *id)
{
    git_oid oid;

    repo_git_oid(id, &oid);
    return git_odb_exists(r->odb, &oid) == 1;
}
