#include "client/bringback.h"

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/vet.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/*
 * Two sorted lists of files, as they are (HEAD) and as they are wanted, give the edits; the edits
 * become a commit on top of HEAD, and the checkout follows by checkout_update, which refuses when
 * anything there is not committed.
 *
 * What is wanted may come from another repository (a backup), so contents travel as bytes.
 */

#define MAX_CONTENT (64u << 20)

typedef struct file {
    char *path;
    memfs_oid blob;
    char *content; /* given already (uncommitted in a backup); NULL: the blob */
    size_t len;
    bool is_gone; /* uncommitted in a backup: it had been deleted */
} file;

typedef struct files {
    file *at;
    size_t n, cap;
} files;

typedef struct edits {
    checkout_edit *at; /* paths and contents are owned */
    size_t n, cap;
} edits;

static void files_dispose(files *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->at[i].path);
        free(f->at[i].content);
    }
    free(f->at);
}

static void edits_dispose(edits *e)
{
    for (size_t i = 0; i < e->n; i++) {
        free((char *)e->at[i].path.ptr);
        free((char *)e->at[i].content.ptr);
    }
    free(e->at);
}

static file *files_add(files *f, memfs_str path)
{
    if (f->n == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 64;
        f->at = mem_realloc(f->at, f->cap, sizeof(*f->at));
    }
    f->at[f->n] = (file){ .path = mem_strndup(path.ptr, path.len) };
    return &f->at[f->n++];
}

static void edits_add(edits *e, const char *path, char *content_given, size_t len)
{
    if (e->n == e->cap) {
        e->cap = e->cap ? e->cap * 2 : 64;
        e->at = mem_realloc(e->at, e->cap, sizeof(*e->at));
    }
    e->at[e->n++] = (checkout_edit){ str_of(mem_strdup(path)), { content_given, len } };
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const file *)a)->path, ((const file *)b)->path);
}

static void files_sort(files *f)
{
    if (f->n > 1)
        qsort(f->at, f->n, sizeof(*f->at), by_path);
}

/* ---- reading ---- */

static bool is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return len == 0 ||
           (strncmp(path, folder, len) == 0 && (path[len] == '\0' || path[len] == '/'));
}

static bool is_wanted(const bringback_options *o, const char *path)
{
    for (size_t i = 0; i < o->n_paths; i++)
        if (is_below(path, o->paths[i]))
            return true;
    return o->n_paths == 0;
}

typedef struct reading {
    files *into;
    const bringback_options *o;
} reading;

static memfs_code on_file(memfs_str path, uint32_t mode, const memfs_oid *blob, void *ctx,
                          memfs_error *err)
{
    _cleanup_(mem_freep) char *name = mem_strndup(path.ptr, path.len);
    reading *r = ctx;

    (void)mode;
    (void)err;
    if (is_wanted(r->o, name))
        files_add(r->into, path)->blob = *blob;
    return MEMFS_OK;
}

static memfs_code read_commit(browse *b, const memfs_oid *commit, const bringback_options *o,
                              files *ret, memfs_error *err)
{
    reading r = { ret, o };
    memfs_code rc = browse_files(b, commit, NULL, on_file, &r, err);

    files_sort(ret); /* git's order of folders is another one for odd names */
    return rc;
}

static memfs_code check_paths(const files *now, const files *then, const bringback_options *o,
                              memfs_error *err)
{
    for (size_t i = 0; i < o->n_paths; i++) {
        bool is_there = false;

        for (size_t j = 0; j < now->n && !is_there; j++)
            is_there = is_below(now->at[j].path, o->paths[i]);
        for (size_t j = 0; j < then->n && !is_there; j++)
            is_there = is_below(then->at[j].path, o->paths[i]);
        if (!is_there)
            return memfs_fail(err, MEMFS_ENOTFOUND, "there is no '%.200s', neither then nor now",
                              o->paths[i]);
    }
    return MEMFS_OK;
}

/* ---- what differs ---- */

typedef struct plan {
    checkout *source; /* where wanted blobs are */
    const bringback_options *o;
    edits edits;
    bringback *ret;
} plan;

static void plan_dispose(plan *p)
{
    edits_dispose(&p->edits);
}

static void tell(plan *p, char status, const char *path)
{
    if (p->o->fn != NULL)
        p->o->fn(status, str_of(path), p->o->ctx);
}

static memfs_code want(plan *p, file *f, char status, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_CONTENT);
    memfs_code rc;

    p->ret->n_written++;
    tell(p, status, f->path);
    if (p->o->is_dry_run)
        return MEMFS_OK;
    if (f->content != NULL) {
        edits_add(&p->edits, f->path, TAKE_PTR(f->content), f->len);
        return MEMFS_OK;
    }
    rc = repo_blob(checkout_repo(p->source), &f->blob, MAX_CONTENT, &text, err);
    if (rc < 0)
        return memfs_context(err, "'%.200s'", f->path);
    edits_add(&p->edits, f->path, mem_strndup(text.ptr, text.len), text.len);
    return MEMFS_OK;
}

static void unwant(plan *p, const file *f)
{
    p->ret->n_removed++;
    tell(p, 'D', f->path);
    if (!p->o->is_dry_run)
        edits_add(&p->edits, f->path, NULL, 0);
}

static memfs_code compare(plan *p, const files *now, files *then, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    size_t i = 0, j = 0;

    while (rc == MEMFS_OK && (i < now->n || j < then->n)) {
        int order = i == now->n    ? 1
                    : j == then->n ? -1
                                   : strcmp(now->at[i].path, then->at[j].path);

        if (order < 0 || (order == 0 && then->at[j].is_gone))
            unwant(p, &now->at[i]);
        else if (!then->at[j].is_gone &&
                 (order > 0 || !oid_equal(&now->at[i].blob, &then->at[j].blob)))
            rc = want(p, &then->at[j], order > 0 ? 'A' : 'M', err);
        i += order <= 0;
        j += order >= 0;
    }
    return rc;
}

/* ---- the commit ---- */

static memfs_code record(checkout *c, browse *b, const plan *p, const memfs_oid *head,
                         const char *message, memfs_error *err)
{
    const policy rules = POLICY_INIT;
    checkout_update_report report = { 0 };
    store_identity who;
    memfs_oid commit;
    memfs_code rc;

    browse_identity(b, &who);
    rc = checkout_commit_edits(c, head, p->edits.at, p->edits.n, &who, message, &commit, err);
    if (rc == MEMFS_OK)
        rc = vet_tip(checkout_repo(c), &commit, head, 1, &rules, err);
    if (rc == MEMFS_OK)
        rc = checkout_update(c, head, &commit, "memfs restore", &report, err);
    if (rc == MEMFS_ECONFLICT && report.in_the_way[0] != '\0')
        return memfs_fail(err, rc, "'%.200s' is not committed; commit it or put it aside, nothing was "
                          "restored", report.in_the_way);
    if (rc == MEMFS_ECONFLICT)
        return memfs_context(err, "nothing was restored");
    if (rc == MEMFS_OK)
        p->ret->commit = commit;
    return rc;
}

static memfs_code bring(checkout *c, browse *b, plan *p, const files *now, files *then,
                        const memfs_oid *head, const char *message, memfs_error *err)
{
    memfs_code rc = check_paths(now, then, p->o, err);

    p->ret->commit = *head;
    if (rc == MEMFS_OK)
        rc = compare(p, now, then, err);
    if (rc < 0 || p->edits.n == 0)
        return rc;
    return record(c, b, p, head, message, err);
}

static memfs_code read_head(checkout *c, browse *b, const bringback_options *o, memfs_oid *ret_head,
                            files *ret, memfs_error *err)
{
    memfs_code rc = checkout_ref(c, STORE_MAIN, ret_head, err);

    return rc < 0 ? rc : read_commit(b, ret_head, o, ret, err);
}

static char *message_of(const char *source, const bringback_options *o)
{
    memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_puts(&text, "memfs: restore ");
    if (o->n_paths == 0)
        buf_puts(&text, "all files");
    else if (o->n_paths == 1)
        buf_puts(&text, o->paths[0]);
    else
        buf_printf(&text, "%zu paths", o->n_paths);
    buf_printf(&text, " from %s\n", source);
    return buf_take(&text, NULL);
}

memfs_code bringback_commit(checkout *c, browse *b, const memfs_oid *at, const bringback_options *o,
                            bringback *ret, memfs_error *err)
{
    _cleanup_(files_dispose) files now = { NULL, 0, 0 }, then = { NULL, 0, 0 };
    _cleanup_(plan_dispose) plan p = { .source = c, .o = o, .ret = ret };
    _cleanup_(mem_freep) char *message = NULL;
    char hex[MEMFS_OID_HEX + 1];
    memfs_oid head;
    memfs_code rc;

    *ret = (bringback){ .n_written = 0 };
    oid_hex(at, hex);
    message = message_of(hex, o);
    rc = read_head(c, b, o, &head, &now, err);
    if (rc == MEMFS_OK)
        rc = read_commit(b, at, o, &then, err);
    return rc < 0 ? rc : bring(c, b, &p, &now, &then, &head, message, err);
}

/* ---- backups ---- */

typedef struct overlay {
    files *then; /* sorted: the backup's HEAD */
    files added;
    const char *root;
    const bringback_options *o;
    size_t n;
} overlay;

static void overlay_dispose(overlay *v)
{
    files_dispose(&v->added);
}

static file *find(files *f, const char *path)
{
    file key = { .path = (char *)path };

    return f->n == 0 ? NULL : bsearch(&key, f->at, f->n, sizeof(*f->at), by_path);
}

static memfs_code put_over(overlay *v, const char *path, memfs_error *err)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", v->root, path);
    memfs_buf text = MEMFS_BUF_INIT(MAX_CONTENT);
    file *f = find(v->then, path);
    memfs_code rc = fs_read(full, &text, err);

    if (rc < 0) {
        buf_dispose(&text);
        return rc;
    }
    if (f == NULL)
        f = files_add(&v->added, str_of(path));
    hash_git_blob(buf_str(&text), &f->blob);
    f->content = buf_take(&text, &f->len);
    return MEMFS_OK;
}

/* A link would be read through, and no memory holds one. */
static bool is_regular(const char *root, const char *path)
{
    _cleanup_(mem_freep) char *full = mem_printf("%s/%s", root, path);
    struct stat st;

    return lstat(full, &st) == 0 && S_ISREG(st.st_mode);
}

static memfs_code on_uncommitted(const browse_change *change, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_strndup(change->path.ptr, change->path.len);
    _cleanup_(mem_freep) char *old = mem_strndup(change->old_path.ptr, change->old_path.len);
    overlay *v = ctx;
    file *gone = change->status == 'D' ? find(v->then, path)
                 : change->status == 'R' ? find(v->then, old)
                                         : NULL;

    if (!is_wanted(v->o, path) || (change->status != 'D' && !is_regular(v->root, path)))
        return MEMFS_OK;
    v->n++;
    if (gone != NULL)
        gone->is_gone = true;
    return change->status == 'D' ? MEMFS_OK : put_over(v, path, err);
}

/* What was not committed in the backup lies over what was. */
static memfs_code overlay_uncommitted(browse *b, const memfs_oid *head, overlay *v, memfs_error *err)
{
    browse_span span = { .old = head };
    memfs_code rc = browse_diff(b, &span, on_uncommitted, v, err);

    for (size_t i = 0; rc == MEMFS_OK && i < v->added.n; i++) {
        file *f = &v->added.at[i], *copy = files_add(v->then, str_of(f->path));

        copy->blob = f->blob;
        copy->content = TAKE_PTR(f->content);
        copy->len = f->len;
    }
    files_sort(v->then);
    return rc;
}

memfs_code bringback_backup(checkout *c, browse *b, const char *backup_path,
                            const bringback_options *o, bringback *ret, memfs_error *err)
{
    _cleanup_(checkout_closep) checkout *from = NULL;
    _cleanup_(browse_closep) browse *from_b = NULL;
    _cleanup_(files_dispose) files now = { NULL, 0, 0 }, then = { NULL, 0, 0 };
    _cleanup_(overlay_dispose) overlay over = { .then = &then, .root = backup_path, .o = o };
    _cleanup_(mem_freep) char *message = NULL;
    const char *name = strrchr(backup_path, '/');
    memfs_oid head, backup_head;
    memfs_code rc = checkout_open(backup_path, &from, err);

    *ret = (bringback){ .n_written = 0 };
    if (rc == MEMFS_OK)
        rc = browse_open(from, &from_b, err);
    if (rc == MEMFS_OK)
        rc = browse_commit(from_b, "HEAD", &backup_head, err);
    if (rc == MEMFS_OK)
        rc = read_commit(from_b, &backup_head, o, &then, err);
    if (rc == MEMFS_OK && !o->only_committed)
        rc = overlay_uncommitted(from_b, &backup_head, &over, err);
    if (rc < 0)
        return memfs_context(err, "backup '%.200s'", backup_path);
    _cleanup_(plan_dispose) plan p = { .source = from, .o = o, .ret = ret };
    ret->n_uncommitted = over.n;
    message = message_of(name != NULL ? name + 1 : backup_path, o);
    rc = read_head(c, b, o, &head, &now, err);
    return rc < 0 ? rc : bring(c, b, &p, &now, &then, &head, message, err);
}
