#include "sync/home_database.h"

#include "base/fs.h"
#include "base/mem.h"
#include "cache/database.h"

#include <stdlib.h>

/* ---- which ---- */

memfs_code home_database_check(const char *url, memfs_error *err)
{
    if (url == NULL || database_is_url(str_of(url)))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID,
                      "the database is no address of a PostgreSQL database; "
                      "that looks like postgresql://user@host/name");
}

bool home_database_has_password(const char *url)
{
    const char *user = strstr(url, "://"), *at, *parameters = strchr(url, '?');

    if (parameters != NULL && strstr(parameters, "password=") != NULL)
        return true; /* sslpassword, too */
    if (user == NULL)
        return false;
    user += strlen("://");
    at = memchr(user, '@', strcspn(user, "/"));
    return at != NULL && memchr(user, ':', (size_t)(at - user)) != NULL;
}

/* ---- that it stays that one ---- */

static memfs_code read_name(const char *path, memfs_buf *out, memfs_error *err)
{
    memfs_code rc = fs_exists(path) ? fs_read(path, out, err) : MEMFS_OK;

    while (rc == MEMFS_OK && out->len > 0 && out->ptr[out->len - 1] == '\n')
        buf_truncate(out, out->len - 1);
    return rc;
}

/* What is remembered against what is asked for; both "" for SQLite. */
static memfs_code check_name(memfs_str was, memfs_str is, memfs_error *err)
{
    if (str_equal(was, is) || was.len == 0)
        return MEMFS_OK;
    if (is.len == 0)
        return memfs_fail(err, MEMFS_EINVALID,
                          "this data folder keeps its state in %.*s: say so with --database, "
                          "$MEMFS_DATABASE or memfs.database in its config",
                          (int)was.len, was.ptr);
    return memfs_fail(err, MEMFS_EINVALID,
                      "this data folder keeps its state in %.*s and not in %.*s; if the database "
                      "itself was moved, remove the file `database` of the data folder",
                      (int)was.len, was.ptr, (int)is.len, is.ptr);
}

static memfs_code remember(const char *path, memfs_str name, memfs_error *err)
{
    _cleanup_(mem_freep) char *line = mem_printf("%.*s\n", (int)name.len, name.ptr);

    return fs_write_atomic(path, str_of(line), 0600, err);
}

/* ---- moving in ---- */

static memfs_code copy_file(const char *home_path, state *to, memfs_error *err)
{
    state *from = NULL;
    memfs_code rc = state_open_sqlite(home_path, &from, err);

    if (rc == MEMFS_OK)
        rc = state_copy_into(from, to, err);
    state_close(from); /* its log is in the file now */
    return rc < 0 ? memfs_context(err, "could not move the state into the database") : rc;
}

/*
 * The file goes last: a crash before that does it all again, which comes to the same, and one after
 * it finds that the home remembers where its state is.  Blocks of agents that other servers have,
 * too, may be older than the database knew (K4), so all rows are made anew.
 */
static memfs_code settle(const char *home_path, state *to, cache *rows, const char *path,
                         memfs_str name, bool *ret_moved, memfs_error *err)
{
    _cleanup_(mem_freep) char *file = mem_printf("%s/state.db", home_path);
    _cleanup_(mem_freep) char *aside = mem_printf("%s/state.db.moved", home_path);
    bool is_moving = fs_exists(file);
    memfs_code rc = is_moving ? copy_file(home_path, to, err) : MEMFS_OK;

    if (rc == MEMFS_OK && is_moving)
        rc = cache_reset(rows, err);
    if (rc == MEMFS_OK && !fs_exists(path))
        rc = remember(path, name, err);
    if (rc == MEMFS_OK && is_moving)
        rc = fs_rename(file, aside, err);
    *ret_moved = rc == MEMFS_OK && is_moving;
    return rc;
}

memfs_code home_database_open(const char *home_path, const char *url, bool is_shared,
                              state **ret_state, cache **ret_cache, bool *ret_was_reset,
                              bool *ret_moved, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/database", home_path);
    _cleanup_(mem_freep) char *name = url != NULL ? database_name(url) : mem_strdup("");
    _cleanup_(buf_dispose) memfs_buf was = MEMFS_BUF_INIT(4096);
    memfs_code rc;

    *ret_moved = false;
    rc = read_name(path, &was, err);
    if (rc == MEMFS_OK)
        rc = check_name(buf_str(&was), str_of(name), err);
    if (rc == MEMFS_OK)
        rc = database_open(url, is_shared, home_path, ret_state, ret_cache, ret_was_reset, err);
    if (rc < 0 || url == NULL)
        return rc;
    /* what is open is closed with the home */
    return settle(home_path, *ret_state, *ret_cache, path, str_of(name), ret_moved, err);
}
