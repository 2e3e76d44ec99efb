#include "sync/home_list.h"

#include "base/mem.h"
#include "sync/cluster.h"
#include "sync/deleted.h"
#include "sync/follow.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ids ---- */

void id_list_dispose(id_list *l)
{
    free(l->ids);
    *l = (id_list){ NULL, 0, 0 };
}

void id_list_add(id_list *l, memfs_str id)
{
    if (id.len > IDS_MAX_LEN)
        return;
    if (l->ids == NULL || l->n == l->cap) {
        l->cap = l->cap == 0 ? 64 : l->cap * 2;
        l->ids = mem_realloc(l->ids, l->cap, sizeof(*l->ids));
    }
    memcpy(l->ids[l->n], id.ptr, id.len);
    l->ids[l->n++][id.len] = '\0';
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

void id_list_sort(id_list *l)
{
    if (l->n > 0)
        qsort(l->ids, l->n, sizeof(*l->ids), compare_ids);
}

bool id_list_has(const id_list *l, const char *id)
{
    return l->n > 0 && bsearch(id, l->ids, l->n, sizeof(*l->ids), compare_ids) != NULL;
}

/* Where it is, or would be. */
static size_t place_of(const id_list *l, const char *id)
{
    size_t low = 0, high = l->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(l->ids[middle], id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void id_list_insert(id_list *l, const char *id)
{
    size_t at = place_of(l, id), n = l->n;

    if (at < n && strcmp(l->ids[at], id) == 0)
        return;
    id_list_add(l, str_of(id));
    if (l->n == n)
        return;
    memmove(l->ids[at + 1], l->ids[at], (n - at) * sizeof(*l->ids));
    snprintf(l->ids[at], sizeof(*l->ids), "%s", id);
}

void id_list_drop(id_list *l, const char *id)
{
    size_t at = place_of(l, id);

    if (at == l->n || strcmp(l->ids[at], id) != 0)
        return;
    l->n--;
    memmove(l->ids[at], l->ids[at + 1], (l->n - at) * sizeof(*l->ids));
}

/* ---- who is here ---- */

static memfs_code list_agent(const state_agent *row, void *ctx, memfs_error *err)
{
    (void)err;
    id_list_add(ctx, row->id);
    return MEMFS_OK;
}

/* Brought back by another server a moment ago: here it is deleted until this one learns of it. */
static void drop_deleted(home *h, id_list *l)
{
    size_t n = 0;

    for (size_t i = 0; l->ids != NULL && i < l->n; i++)
        if (!home_is_deleted(h, str_of(l->ids[i])))
            memmove(l->ids[n++], l->ids[i], sizeof(*l->ids));
    l->n = n;
}

static bool is_name(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static void folders_of(home *h, const char *kind, home_folder_fn fn, void *ctx)
{
    _cleanup_(mem_freep) char *root = mem_printf("%s/%s", h->path, kind);
    DIR *orgs = opendir(root), *names;
    struct dirent *org, *name;
    char *path, *git;

    while (orgs != NULL && (org = readdir(orgs)) != NULL) {
        if (!is_name(org))
            continue;
        path = mem_printf("%s/%s", root, org->d_name);
        names = opendir(path);
        while (names != NULL && (name = readdir(names)) != NULL) {
            git = mem_printf("%s/%s/%s/repo.git", kind, org->d_name, name->d_name);
            if (is_name(name) && store_has(h->store, git))
                fn(org->d_name, name->d_name, ctx);
            free(git);
        }
        if (names != NULL)
            closedir(names);
        free(path);
    }
    if (orgs != NULL)
        closedir(orgs);
}

void home_folders(home *h, home_folder_fn fn, void *ctx)
{
    folders_of(h, "repository", fn, ctx);
    folders_of(h, "shared", fn, ctx);
}

struct folder_list {
    home *h;
    const id_list *known;
    id_list *unknown;
};

static void list_folder(const char *org, const char *name, void *ctx)
{
    struct folder_list *l = ctx;

    if (strcmp(org, IDS_DEFAULT_ORG) == 0 && ids_is_memory(str_of(name)) &&
        !id_list_has(l->known, name) && !home_is_deleted(l->h, str_of(name)))
        id_list_add(l->unknown, str_of(name));
}

memfs_code home_list(home *h, bool with_folders, id_list *ret, memfs_error *err)
{
    _cleanup_(id_list_dispose) id_list unknown = { NULL, 0, 0 };
    struct folder_list folders = { h, ret, &unknown };
    agent_query q = { .with_shared = true };
    memfs_code rc;

    rc = state_agents(h->state, &q, list_agent, ret, err);
    if (rc < 0)
        return rc;
    drop_deleted(h, ret);
    id_list_sort(ret);
    if (!with_folders)
        return MEMFS_OK;
    home_folders(h, list_folder, &folders);
    for (size_t i = 0; i < unknown.n; i++)
        id_list_add(ret, str_of(unknown.ids[i]));
    id_list_sort(ret);
    return MEMFS_OK;
}

/* ---- each of them, once after a start ---- */

/*
 * Of a home that shares: what is kept here; the rows are everybody's.  What another server has is
 * fetched by who follows: one that hangs would keep all that come after from being recovered (L3).
 */
static memfs_code recover_one(home *h, memfs_str id, agent **ret, memfs_error *err)
{
    int64_t holder;
    bool is_known;
    memfs_code rc;

    if (!home_is_shared(h))
        return home_agent(h, id, ret, err);
    if (!home_has_folder(h, id) && !cluster_keeps(h->cluster, id))
        return memfs_fail(err, MEMFS_ENOTFOUND, "kept by other servers");
    rc = home_entry(h, id, false, ret, &is_known, err);
    if (rc < 0 || !agent_is_behind_others(h, *ret, &holder))
        return rc < 0 ? rc : agent_ready(h, *ret, false, err);
    home_is_late(h, *ret, holder);
    return memfs_fail(err, MEMFS_EUNAVAIL, "another server has its newest commit");
}

/*
 * Nothing here is news to anyone: a folder that is missing or damaged has raised its alarm, a cache
 * that fails has too, and the next request for the agent tries again.
 */
memfs_code home_recover_all(home *h, bool (*should_stop)(void *ctx), void *ctx, size_t *ret_n,
                            memfs_error *err)
{
    _cleanup_(id_list_dispose) id_list list = { NULL, 0, 0 };
    memfs_error trouble;
    memfs_code rc;
    agent *a;

    *ret_n = 0;
    deleted_sweep(h, should_stop, ctx);
    rc = home_list(h, true, &list, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < list.n; i++) {
        if (should_stop != NULL && should_stop(ctx))
            break;
        a = home_find(h, str_of(list.ids[i]));
        if (a != NULL && agent_was_ready(h, a))
            continue;
        if (recover_one(h, str_of(list.ids[i]), &a, &trouble) == MEMFS_OK)
            (*ret_n)++;
    }
    return MEMFS_OK;
}
