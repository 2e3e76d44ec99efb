#include "store/store_int.h"

#include "base/fs.h"
#include "base/mem.h"

#include <git2/sys/repository.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

/*
 * A handle is an object database put together by hand: packs and loose objects of one folder, no
 * alternates (T28), no configuration.  libgit2 gets a view that wraps it, for the few calls that
 * want a repository (walking revisions); refs are read and moved in refs.c.
 */

/* errors and ids */

static memfs_code code_of_git(int number)
{
    const git_error *last = git_error_last();

    switch (number) {
    case GIT_ENOTFOUND: return MEMFS_ENOTFOUND;
    case GIT_EEXISTS: return MEMFS_EEXISTS;
    case GIT_ELOCKED: return MEMFS_EUNAVAIL;
    case GIT_EMISMATCH: return MEMFS_ECORRUPT; /* an object whose bytes are not its name's */
    default: break;
    }
    if (last != NULL && (last->klass == GIT_ERROR_ODB || last->klass == GIT_ERROR_ZLIB ||
                         last->klass == GIT_ERROR_OBJECT || last->klass == GIT_ERROR_INDEXER))
        return MEMFS_ECORRUPT;
    if (last != NULL && strstr(last->message, "No space left") != NULL)
        return MEMFS_ENOSPACE;
    return MEMFS_EINTERNAL;
}

memfs_code store_fail_git(memfs_error *err, int number, const char *fmt, ...)
{
    const git_error *last = git_error_last();
    memfs_code code = code_of_git(number);
    char what[sizeof(err->msg)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    if (last == NULL || strchr(last->message, '/') != NULL)
        return memfs_fail(err, code, "%s", what);
    return memfs_fail(err, code, "%s: %s", what, last->message);
}

void repo_git_oid(const memfs_oid *from, git_oid *to)
{
    git_oid_fromraw(to, from->id);
}

void repo_memfs_oid(const git_oid *from, memfs_oid *to)
{
    memcpy(to->id, from->id, sizeof(to->id));
}

/* life cycle */

memfs_code repo_add_objects(git_odb *odb, const char *objects_dir, bool is_home, memfs_error *err)
{
    git_odb_backend *packs = NULL, *loose = NULL;
    int rc;

    /* the higher priority is asked first: nearly all objects are in packs */
    rc = git_odb_backend_pack(&packs, objects_dir);
    if (rc == 0)
        rc = is_home ? git_odb_add_backend(odb, packs, 2) : git_odb_add_alternate(odb, packs, 2);
    if (rc == 0)
        rc = git_odb_backend_loose(&loose, objects_dir, -1, 1, 0700, 0400);
    if (rc == 0)
        rc = is_home ? git_odb_add_backend(odb, loose, 1) : git_odb_add_alternate(odb, loose, 1);
    return rc == 0 ? MEMFS_OK : store_fail_git(err, rc, "could not open the objects");
}

memfs_code repo_of_odb(store *s, char *path, git_odb *odb, uint64_t reader, repo **ret,
                       memfs_error *err)
{
    repo *r = mem_alloc(sizeof(*r));
    int rc;

    r->s = s;
    r->path = path;
    r->odb = odb;
    r->reader = reader;
    rc = git_repository_wrap_odb(&r->view, odb);
    if (rc < 0) {
        repo_close(r);
        return store_fail_git(err, rc, "could not open the repository");
    }
    *ret = r;
    return MEMFS_OK;
}

memfs_code repo_open(store *s, const char *name, repo **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(s, name);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", path);
    git_odb *odb = NULL;
    uint64_t reader;
    memfs_code rc;

    if (!store_name_is_sane(name))
        return memfs_fail(err, MEMFS_EINVALID, "that is no name of a repository");
    if (!store_has(s, name))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no such repository");
    if (!fs_is_dir(objects))
        return memfs_fail(err, MEMFS_ECORRUPT, "the repository has no objects");
    if (git_odb_new(&odb) < 0)
        return store_fail_git(err, -1, "could not open the repository");
    reader = readers_begin(s->readers, path);
    rc = repo_add_objects(odb, objects, true, err);
    if (rc < 0) {
        git_odb_free(odb);
        readers_end(s->readers, reader);
        return rc;
    }
    return repo_of_odb(s, TAKE_PTR(path), odb, reader, ret, err);
}

void repo_close(repo *r)
{
    if (r == NULL)
        return;
    git_repository_free(r->view);
    git_odb_free(r->odb);
    if (r->s != NULL)
        readers_end(r->s->readers, r->reader);
    free(r->path);
    free(r);
}

void repo_closep(repo **r)
{
    repo_close(*r);
    *r = NULL;
}

/* objects */

void repo_odb_object_freep(git_odb_object **object)
{
    git_odb_object_free(*object);
    *object = NULL;
}

static memfs_code fail_object(const memfs_oid *id, int number, const char *kind, memfs_error *err)
{
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(id, hex);
    store_fail_git(err, number, "could not read %s %s", kind, hex);
    if (err->code == MEMFS_ENOTFOUND)
        return memfs_fail(err, MEMFS_ECORRUPT, "%s %s is missing", kind, hex);
    return err->code;
}

static memfs_code read_object(repo *r, const memfs_oid *id, git_object_t type, const char *kind,
                              size_t max_bytes, git_odb_object **ret, memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    char hex[MEMFS_OID_HEX + 1];
    git_oid oid;
    int rc;

    repo_git_oid(id, &oid);
    rc = git_odb_read(&object, r->odb, &oid);
    if (rc < 0)
        return fail_object(id, rc, kind, err);
    oid_hex(id, hex);
    if (git_odb_object_type(object) != type)
        return memfs_fail(err, MEMFS_ECORRUPT, "%s is no %s", hex, kind);
    if (git_odb_object_size(object) > max_bytes)
        return memfs_fail(err, MEMFS_ELIMIT, "%s %s is larger than %zu bytes", kind, hex,
                          max_bytes);
    *ret = TAKE_PTR(object);
    return MEMFS_OK;
}

memfs_code repo_read_tree(repo *r, const memfs_oid *id, git_odb_object **ret, memfs_error *err)
{
    return read_object(r, id, GIT_OBJECT_TREE, "tree", OBJECT_MAX_TREE_BYTES, ret, err);
}

memfs_code repo_read_commit(repo *r, const memfs_oid *id, git_odb_object **ret, memfs_error *err)
{
    return read_object(r, id, GIT_OBJECT_COMMIT, "commit", OBJECT_MAX_COMMIT_BYTES, ret, err);
}

memfs_code repo_tree_of_commit(repo *r, const memfs_oid *commit, memfs_oid *ret, memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    memfs_code rc;
    memfs_str raw;

    rc = repo_read_commit(r, commit, &object, err);
    if (rc < 0)
        return rc;
    raw = repo_raw(object);
    if (raw.len < 46 || memcmp(raw.ptr, "tree ", 5) != 0 || raw.ptr[45] != '\n' ||
        !oid_parse(str_make(raw.ptr + 5, MEMFS_OID_HEX), ret))
        return memfs_fail(err, MEMFS_ECORRUPT, "a commit does not begin with its tree");
    return MEMFS_OK;
}

memfs_code repo_header(repo *r, const memfs_oid *id, git_object_t *ret_type, uint64_t *ret_bytes,
                       memfs_error *err)
{
    git_object_t type;
    size_t bytes;
    git_oid oid;
    int rc;

    repo_git_oid(id, &oid);
    rc = git_odb_read_header(&bytes, &type, r->odb, &oid);
    if (rc < 0)
        return fail_object(id, rc, "object", err);
    *ret_type = type;
    *ret_bytes = bytes;
    return MEMFS_OK;
}

memfs_code repo_blob_size(repo *r, const memfs_oid *id, uint64_t *ret, memfs_error *err)
{
    git_object_t type;
    memfs_code rc = repo_header(r, id, &type, ret, err);

    if (rc == MEMFS_OK && type != GIT_OBJECT_BLOB)
        return memfs_fail(err, MEMFS_ECORRUPT, "the object is no file");
    return rc;
}

memfs_code repo_blob(repo *r, const memfs_oid *id, uint64_t max_bytes, memfs_buf *out,
                     memfs_error *err)
{
    _cleanup_(repo_odb_object_freep) git_odb_object *object = NULL;
    uint64_t bytes;
    memfs_code rc;

    rc = repo_blob_size(r, id, &bytes, err);
    if (rc < 0)
        return rc;
    if (bytes > max_bytes)
        return memfs_fail(err, MEMFS_ELIMIT, "the file has %llu bytes, more than %llu",
                          (unsigned long long)bytes, (unsigned long long)max_bytes);
    rc = read_object(r, id, GIT_OBJECT_BLOB, "file", bytes, &object, err);
    if (rc < 0)
        return rc;
    buf_add_str(out, repo_raw(object));
    return buf_check(out, "the file", err);
}

/*
 * libgit2 1.5 loses 64 bytes of its own when a commit on the way is missing, as behind a refused
 * fetch from a shallow clone.  The leak checker of the test builds is told so here, where it happens.
 */
static int is_descendant(git_repository *view, const git_oid *new, const git_oid *old)
{
    int rc;

#ifdef __SANITIZE_ADDRESS__
    __lsan_disable();
#endif
    rc = git_graph_descendant_of(view, new, old);
#ifdef __SANITIZE_ADDRESS__
    __lsan_enable();
#endif
    return rc;
}

memfs_code repo_is_ancestor(repo *r, const memfs_oid *ancestor, const memfs_oid *commit, bool *ret,
                            memfs_error *err)
{
    git_oid old, new;
    int rc;

    if (oid_equal(ancestor, commit)) {
        *ret = true;
        return MEMFS_OK;
    }
    repo_git_oid(ancestor, &old);
    repo_git_oid(commit, &new);
    rc = is_descendant(r->view, &new, &old);
    if (rc < 0)
        return store_fail_git(err, rc, "could not compare two commits");
    *ret = rc == 1;
    return MEMFS_OK;
}
