#include "client/places.h"

#include "base/fs.h"
#include "base/mem.h"
#include "memory/ids.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOCAL_PREFIX "agent-local-"

void place_dispose(place *p)
{
    free(p->agent_id);
    free(p->root);
    free(p->memory);
    free(p->worktrees);
    *p = (place)PLACE_INIT;
}

/* The folder that holds the agents of one kind; caller frees. */
static char *parent_of(const settings *s, bool is_local_backend)
{
    return is_local_backend ? mem_printf("%s/memfs", setting_text(s, SETTING_LOCAL_BACKEND_DIR))
                            : mem_printf("%s/agents", setting_text(s, SETTING_LETTA_DIR));
}

static bool has_memory(const char *parent, const char *agent_id)
{
    _cleanup_(mem_freep) char *memory = mem_printf("%s/%s/memory", parent, agent_id);

    return fs_is_dir(memory);
}

static void fill(place *p, const char *parent, const char *agent_id, bool is_local_backend)
{
    p->agent_id = mem_strdup(agent_id);
    p->root = mem_printf("%s/%s", parent, agent_id);
    p->memory = mem_printf("%s/memory", p->root);
    p->worktrees = mem_printf("%s/memory-worktrees", p->root);
    p->is_local_backend = is_local_backend;
}

memfs_code place_of(const settings *s, const char *agent_id, place *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *api = parent_of(s, false), *local = parent_of(s, true);
    bool is_local = str_starts_with(str_of(agent_id), MEMFS_STR(LOCAL_PREFIX));

    if (!ids_is_agent(str_of(agent_id)))
        return memfs_fail(err, MEMFS_EINVALID,
                          "'%.100s' is no id of an agent "
                          "('agent-' or 'agent-local-' and a UUID of version 4)",
                          agent_id);
    if (!has_memory(is_local ? local : api, agent_id) &&
        has_memory(is_local ? api : local, agent_id))
        is_local = !is_local;
    fill(ret, is_local ? local : api, agent_id, is_local);
    return MEMFS_OK;
}

/* ids found so far; what the folders hold bounds it */
typedef struct id_list {
    char **at;
    size_t n, cap;
} id_list;

static void id_list_dispose(id_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->at[i]);
    free(l->at);
}

static void close_dirp(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

static memfs_code gather(const char *parent, id_list *ids, memfs_error *err)
{
    _cleanup_(close_dirp) DIR *dir = opendir(parent);
    const struct dirent *entry;

    if (dir == NULL && (errno == ENOENT || errno == ENOTDIR))
        return MEMFS_OK;
    if (dir == NULL)
        return memfs_fail_errno(err, "could not list '%s'", parent);
    while ((errno = 0, entry = readdir(dir)) != NULL) {
        if (!ids_is_agent(str_of(entry->d_name)) || !has_memory(parent, entry->d_name))
            continue;
        if (ids->n == ids->cap) {
            ids->cap = ids->cap ? ids->cap * 2 : 64;
            ids->at = mem_realloc(ids->at, ids->cap, sizeof(*ids->at));
        }
        ids->at[ids->n++] = mem_strdup(entry->d_name);
    }
    if (errno != 0)
        return memfs_fail_errno(err, "could not list '%s'", parent);
    return MEMFS_OK;
}

static int by_id(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

memfs_code places_each(const settings *s, place_fn fn, void *ctx, memfs_error *err)
{
    _cleanup_(mem_freep) char *api = parent_of(s, false), *local = parent_of(s, true);
    _cleanup_(id_list_dispose) id_list ids = { NULL, 0, 0 };
    memfs_code rc;

    rc = gather(api, &ids, err);
    if (rc == MEMFS_OK)
        rc = gather(local, &ids, err);
    if (rc < 0)
        return rc;
    if (ids.n > 0)
        qsort(ids.at, ids.n, sizeof(*ids.at), by_id);
    for (size_t i = 0; i < ids.n; i++) {
        _cleanup_(place_dispose) place p = PLACE_INIT;

        if (i > 0 && strcmp(ids.at[i], ids.at[i - 1]) == 0)
            continue; /* in both folders: place_of says which one counts */
        rc = place_of(s, ids.at[i], &p, err);
        if (rc == MEMFS_OK)
            rc = fn(&p, ctx, err);
        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

bool places_has_other(const settings *s, const char *agent_id)
{
    for (int kind = 0; kind < 2; kind++) {
        _cleanup_(mem_freep) char *parent = parent_of(s, kind == 1);
        _cleanup_(close_dirp) DIR *dir = opendir(parent);
        const struct dirent *entry;

        while (dir != NULL && (entry = readdir(dir)) != NULL)
            if (strcmp(entry->d_name, agent_id) != 0 && ids_is_agent(str_of(entry->d_name)) &&
                has_memory(parent, entry->d_name))
                return true;
    }
    return false;
}
