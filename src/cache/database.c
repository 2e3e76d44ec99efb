#include "cache/database.h"

#include "base/mem.h"
#include "base/program.h"
#include "cache/pg_module.h"

#include <dlfcn.h>

bool database_is_url(memfs_str text)
{
    return str_starts_with(text, MEMFS_STR("postgresql://")) ||
           str_starts_with(text, MEMFS_STR("postgres://"));
}

/*
 * Between "://" and "@" stand user and password, and a query may hold a password, too.  Here it is
 * the last "@" before the query: in a url that is wrong, as its password has an "@" or a "/" as it
 * is, nothing of that password may be told either.
 */
char *database_name(const char *url)
{
    const char *user = strstr(url, "://"), *border, *query, *colon, *at = NULL;

    if (user == NULL)
        return mem_strdup("a PostgreSQL database");
    user += 3;
    border = user + strcspn(user, "@/"); /* a password may have a "?" */
    query = *border != '\0' ? border + strcspn(border, "?") : user + strcspn(user, "?");
    for (const char *c = user; c < query; c++)
        at = *c == '@' ? c : at;
    colon = at != NULL ? memchr(user, ':', (size_t)(at - user)) : NULL;
    if (colon == NULL)
        return mem_printf("%.*s", (int)(query - url), url);
    return mem_printf("%.*s%.*s", (int)(colon - url), url, (int)(query - at), at);
}

static memfs_code open_sqlite(const char *folder, state **ret_state, cache **ret_cache,
                              bool *ret_was_reset, memfs_error *err)
{
    memfs_code rc = state_open_sqlite(folder, ret_state, err);

    if (rc < 0)
        return rc;
    rc = cache_open_sqlite(folder, ret_cache, ret_was_reset, err);
    if (rc < 0) {
        state_close(*ret_state);
        *ret_state = NULL;
    }
    return rc;
}

/* Never closed again: its library keeps things that belong to the process. */
memfs_code database_symbol(const char *name, void **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = NULL;
    memfs_error why;
    void *module = NULL;

    if (program_path(PG_MODULE, &path, &why) == MEMFS_OK)
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (path == NULL || module == NULL)
        return memfs_fail(err, MEMFS_ENOTFOUND,
                          "PostgreSQL cannot be used: %s; install libpq5, or memfs anew",
                          path == NULL ? why.msg : dlerror());
    *ret = dlsym(module, name);
    if (*ret == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "'%s' is of another memfs", path);
    return MEMFS_OK;
}

memfs_code database_open(const char *url, bool is_shared, const char *folder, state **ret_state,
                         cache **ret_cache, bool *ret_was_reset, memfs_error *err)
{
    pg_module_open_fn open_pg;
    memfs_code rc;

    *ret_was_reset = false;
    if (url == NULL || url[0] == '\0')
        return open_sqlite(folder, ret_state, ret_cache, ret_was_reset, err);
    /* the only way from an object to a function that POSIX gives */
    rc = database_symbol(PG_MODULE_OPEN, (void **)&open_pg, err);
    return rc < 0 ? rc : open_pg(url, is_shared, ret_state, ret_cache, err);
}
