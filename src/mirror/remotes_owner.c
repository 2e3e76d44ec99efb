#include "mirror/remotes_int.h"

#include "base/mem.h"
#include "memory/ids.h"

#include <stdlib.h>
#include <strings.h>

/*
 * Whose repository an address is.  Both the address and each remote's template are taken apart
 * into host, port and path, where the template's path has an id that nobody has in place of
 * {agentId}: so what stands before and behind it has to match, and what is between must be an id.
 */

typedef struct place {
    memfs_str host, path;
    uint16_t port; /* 0: any */
} place;

static memfs_str trimmed_path(memfs_str path)
{
    while (path.len > 0 && path.ptr[0] == '/')
        path = str_from(path, 1);
    while (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    if (str_ends_with(path, MEMFS_STR(".git")))
        path.len -= 4;
    return path;
}

/* "host[:port]/path" without a scheme, as some payloads have it. */
static bool place_of_bare(memfs_str address, place *ret)
{
    memfs_str authority, path, port;
    uint64_t number;

    if (!str_split(address, '/', &authority, &path) || authority.len == 0)
        return false;
    *ret = (place){ .host = authority, .path = trimmed_path(path) };
    if (authority.ptr[authority.len - 1] == ']' || !str_split(authority, ':', &ret->host, &port))
        return true;
    if (!str_to_u64(port, UINT16_MAX, &number))
        return false;
    ret->port = (uint16_t)number;
    return true;
}

static void place_of_url(const remote_url *url, place *ret)
{
    *ret = (place){ .host = str_of(url->host), .port = url->port,
                    .path = trimmed_path(str_of(url->path)) };
}

static bool is_whole_address(memfs_str address)
{
    memfs_str head, rest;

    if (address.len > 0 && address.ptr[0] == '/')
        return true;
    return str_split(address, ':', &head, &rest) && memchr(head.ptr, '/', head.len) == NULL &&
           !(rest.len > 0 && rest.ptr[0] >= '0' && rest.ptr[0] <= '9');
}

static bool same_host(const place *a, const place *b)
{
    return a->host.len == b->host.len && strncasecmp(a->host.ptr, b->host.ptr, a->host.len) == 0 &&
           (a->port == b->port || a->port == 0 || b->port == 0);
}

/* Which agent's is `path`, as the template has it?  Empty: nobody's. */
static memfs_str match_path(memfs_str template, memfs_str path)
{
    const char *at = memmem(template.ptr, template.len, REMOTES_STAND_IN, strlen(REMOTES_STAND_IN));
    memfs_str before, after, id;

    if (at == NULL)
        return MEMFS_STR("");
    before = str_make(template.ptr, (size_t)(at - template.ptr));
    after = str_from(template, before.len + strlen(REMOTES_STAND_IN));
    if (path.len <= before.len + after.len || !str_starts_with(path, before) ||
        !str_ends_with(path, after))
        return MEMFS_STR("");
    id = str_make(path.ptr + before.len, path.len - before.len - after.len);
    return ids_is_agent(id) ? id : MEMFS_STR("");
}

static memfs_str owner_at(const remote_config *c, const place *where)
{
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    _cleanup_(mem_freep) char *clean = NULL;
    _cleanup_(mem_freep) char *id = NULL;
    memfs_error ignored;
    memfs_str found;
    place ours;

    if (remotes_parse(c->url, &url, &clean, &ignored) < 0)
        return MEMFS_STR("");
    place_of_url(&url, &ours);
    if (!same_host(&ours, where))
        return MEMFS_STR("");
    if (strstr(c->url, REMOTES_MARK) == NULL)
        return str_equal(ours.path, where->path) ? str_of(c->agents[0]) : MEMFS_STR("");
    found = match_path(ours.path, where->path);
    id = mem_strndup(found.len > 0 ? found.ptr : "", found.len);
    return found.len > 0 && remote_is_for(c, id) ? found : MEMFS_STR("");
}

void remotes_owner(const remotes *r, memfs_str address, remotes_owner_fn fn, void *ctx)
{
    _cleanup_(mem_freep) char *text = mem_strndup(address.ptr, address.len);
    _cleanup_(url_dispose) remote_url url = REMOTE_URL_INIT;
    memfs_error ignored;
    memfs_str id;
    place where;

    if (is_whole_address(address)) {
        if (url_parse(text, &url, &ignored) < 0)
            return;
        place_of_url(&url, &where);
    } else if (!place_of_bare(str_of(text), &where)) {
        return;
    }
    for (size_t i = 0; i < r->n; i++) {
        id = owner_at(&r->at[i], &where);
        if (id.len > 0 && !fn(&r->at[i], id, ctx))
            return;
    }
}
