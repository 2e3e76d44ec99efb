/*
 * home.c - the data folder as a whole: its lock, its three parts, and the table of agents.
 *
 * The table holds only agents that somebody asked for since the start (or that the recovery in the
 * background came by), so a home with 100,000 agents opens as fast as an empty one: opening takes
 * the lock, opens state, store and cache, and reads no agent at all.  An entry is some 450 bytes
 * and lives until the home closes, so that pointers to it need no counting.  An id that nobody
 * knows gets no entry, except by a push: a client cannot fill the memory by asking.
 *
 * What happens to one entry, and when, is in agent.c; who is here at all, in home_list.c.
 */
#include "sync/home_int.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "sync/cluster.h"
#include "sync/deleted.h"
#include "sync/edit.h"
#include "sync/edit_left.h"
#include "sync/home_database.h"
#include "sync/home_list.h"
#include "sync/loose.h"
#include "sync/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- life cycle ---- */

#define GONE_OWNER_MS 3000

/* The pid that stands in the lock file; false when there is none. */
static bool read_owner(const char *path, pid_t *ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64);
    memfs_error ignored;
    memfs_str line, rest;
    uint64_t pid;

    if (fs_read(path, &text, &ignored) < 0 || !str_split(buf_str(&text), '\n', &line, &rest) ||
        !str_to_u64(line, INT32_MAX, &pid))
        return false;
    *ret = (pid_t)pid;
    return true;
}

static memfs_code fail_owned(const char *path, memfs_error *err)
{
    pid_t pid;

    if (read_owner(path, &pid))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "the data folder is in use by another memfs (pid %d)", (int)pid);
    return memfs_fail(err, MEMFS_EUNAVAIL, "the data folder is in use by another memfs");
}

/*
 * A child that an owner was just starting when it was killed holds a copy of its descriptors until
 * it executes git, so a lock may outlive its owner for a moment.  That is waited for (L2).
 */
static memfs_code take_free_lock(const char *path, fs_lock *ret, memfs_error *err)
{
    int64_t until_ms = clock_mono_ms() + GONE_OWNER_MS;
    memfs_code rc;
    pid_t pid;

    while ((rc = fs_lock_take(path, ret, err)) == MEMFS_EUNAVAIL && clock_mono_ms() < until_ms &&
           read_owner(path, &pid) && kill(pid, 0) < 0 && errno == ESRCH)
        clock_sleep_ms(10);
    return rc;
}

/*
 * The pid is for people and for the error above; who owns the home is decided by the flock alone.
 */
static memfs_code take_lock(home *h, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/lock", h->path);
    char pid[32];
    int n;
    memfs_code rc;

    rc = take_free_lock(path, &h->lock, err);
    if (rc == MEMFS_EUNAVAIL)
        return fail_owned(path, err);
    if (rc < 0)
        return rc;
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(h->lock.fd, 0) < 0 || pwrite(h->lock.fd, pid, (size_t)n, 0) != n)
        return memfs_fail_errno(err, "could not write the lock of the data folder");
    return MEMFS_OK;
}

/* The folder, ours alone (T30), as an absolute path: children run in "/". */
static memfs_code make_folder(home *h, const char *path, memfs_error *err)
{
    struct stat st;
    memfs_code rc;

    rc = fs_mkdirs(path, err);
    if (rc < 0)
        return memfs_context(err, "could not make the data folder");
    h->path = realpath(path, NULL);
    if (h->path == NULL || stat(h->path, &st) < 0)
        return memfs_fail_errno(err, "could not open the data folder");
    if ((st.st_mode & 077) != 0 && chmod(h->path, 0700) < 0)
        return memfs_fail_errno(err, "could not close the data folder to other users");
    return MEMFS_OK;
}

/*
 * All that rows depend on beside tree and state.  The number counts the versions of f itself: a
 * release whose f gives other rows, or words to find them by, for the same file raises it.
 */
static void rule_text(const home_options *o, memfs_buf *out)
{
    buf_printf(out, "f=2;max_block_bytes=%llu;max_depth=%u;max_name=%u;max_path=%u;prefixes=",
               (unsigned long long)o->policy.max_block_bytes, o->policy.max_depth,
               o->policy.max_name_bytes, o->policy.max_path_bytes);
    buf_add_str(out, o->block_prefixes);
}

static memfs_code set_rule(home *h, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf rule = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    bool has_changed = false;
    memfs_code rc;

    rule_text(&h->options, &rule);
    rc = cache_rule(h->cache, buf_str(&rule), &has_changed, err);
    if (rc == MEMFS_OK)
        atomic_store(&h->has_other_rule, false);
    if (rc == MEMFS_OK && has_changed)
        home_alarm(h, NULL, "cache_rule_changed",
                   "what becomes a block was configured anew: all "
                   "blocks are made anew from git");
    return rc;
}

/*
 * A command, or a server that will not start after all, may be told something else than the servers
 * that run; setting its rule would empty their blocks, and keep them from writing any (L3).
 */
static memfs_code own_rule(home *h, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf rule = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    bool is_other = false;
    memfs_code rc;

    rule_text(&h->options, &rule);
    rc = cache_own_rule(h->cache, buf_str(&rule), &is_other, err);
    if (rc == MEMFS_OK)
        atomic_store(&h->has_other_rule, is_other);
    return rc;
}

memfs_code home_look_at_rule(home *h, memfs_error *err)
{
    return home_is_shared(h) ? own_rule(h, err) : MEMFS_OK;
}

memfs_code home_serves(home *h, memfs_error *err)
{
    return home_is_shared(h) ? set_rule(h, err) : MEMFS_OK;
}

/* State and cache; one of our own that was made under other rules begins anew. */
static memfs_code open_database(home *h, memfs_error *err)
{
    bool was_reset = false, has_moved = false;
    memfs_code rc;

    rc = cluster_url(h->path, h->options.cluster_url, &h->cluster_url, err);
    if (rc == MEMFS_OK && h->cluster_url != NULL && h->options.database == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "several servers share a PostgreSQL database: give --database, too, or "
                          "remove the file `server` of the data folder");
    if (rc == MEMFS_OK)
        rc = home_database_open(h->path, h->options.database, h->cluster_url != NULL, &h->state,
                                &h->cache, &was_reset, &has_moved, err);
    if (rc == MEMFS_OK && h->cluster_url != NULL)
        rc = cluster_open(h->path, h->cluster_url, h->state, &h->cluster, err);
    if (rc < 0)
        return rc;
    if (has_moved)
        home_alarm(h, NULL, "state_moved",
                   "the state moved into the database; its file is kept as state.db.moved");
    if (was_reset)
        home_alarm(h, NULL, "cache_reset",
                   "the block cache was set aside and is made anew from git");
    return home_is_shared(h) ? own_rule(h, err) : set_rule(h, err);
}

static memfs_code open_parts(home *h, memfs_error *err)
{
    memfs_code rc;

    rc = take_lock(h, err);
    if (rc == MEMFS_OK)
        rc = store_open(h->path, &h->store, err);
    if (rc == MEMFS_OK)
        rc = open_database(h, err);
    if (rc == MEMFS_OK)
        rc = deleted_load(h, err);
    return rc < 0 ? rc : tables_open(h, err);
}

static void copy_options(home *h, const home_options *options)
{
    h->options = *options;
    h->prefixes = mem_strndup(options->block_prefixes.len > 0 ? options->block_prefixes.ptr : "",
                              options->block_prefixes.len);
    h->options.block_prefixes = str_make(h->prefixes, options->block_prefixes.len);
    h->database = options->database != NULL ? mem_strdup(options->database) : NULL;
    h->options.database = h->database;
    h->letta_database =
        options->letta_database != NULL ? mem_strdup(options->letta_database) : NULL;
    h->options.letta_database = h->letta_database;
}

/*
 * What was cut short is ended before anybody is served: until then ids, tags and blocks that no
 * file backs are between two states (K4).  There are no more than requests were under way.
 */
static void end_edits(home *h)
{
    memfs_error err;

    if (edit_recover(h, &err) < 0)
        home_alarm(h, NULL, "edit_late", "changes that were cut short could not be read: %s",
                   err.msg);
}

memfs_code home_open(const home_options *options, home **ret, memfs_error *err)
{
    home *h = mem_alloc(sizeof(*h));
    memfs_code rc;

    h->lock = (fs_lock)FS_LOCK_INIT;
    pthread_rwlock_init(&h->table_lock, NULL);
    pthread_mutex_init(&h->upkeep_mutex, NULL);
    block_turns_init(h);
    h->n_buckets = HOME_N_BUCKETS_FIRST;
    h->buckets = mem_alloc(h->n_buckets * sizeof(*h->buckets));
    h->deleted = mem_alloc(sizeof(*h->deleted));
    hash_random((uint8_t *)&h->hash_seed, sizeof(h->hash_seed));
    atomic_store(&h->epoch, 1);
    ids_new("run", h->run);
    copy_options(h, options);
    rc = make_folder(h, options->path, err);
    if (rc == MEMFS_OK) {
        h->options.path = h->path;
        rc = open_parts(h, err);
        h->options.cluster_url = NULL; /* the caller's; h->cluster_url is what counts */
    }
    if (rc == MEMFS_OK) {
        end_edits(h);
        loose_follow(h);
    }
    if (rc < 0) {
        home_close(h);
        return rc;
    }
    *ret = h;
    return MEMFS_OK;
}

static void free_table(home *h)
{
    agent *a, *next;

    for (size_t i = 0; i < h->n_buckets; i++) {
        for (a = h->buckets[i]; a != NULL; a = next) {
            next = a->next;
            agent_free(a);
        }
    }
    free(h->buckets);
}

void home_close(home *h)
{
    if (h == NULL)
        return;
    letta_db_close(h->letta);
    cache_close(h->cache);
    store_close(h->store);
    state_close(h->state);
    cluster_close(h->cluster);
    free_table(h);
    id_list_dispose(h->deleted);
    free(h->deleted);
    free(h->upkeep);
    free(h->behind);
    free(h->late);
    edit_left_close(h);
    block_turns_dispose(h);
    pthread_mutex_destroy(&h->upkeep_mutex);
    pthread_rwlock_destroy(&h->table_lock);
    fs_unlock(&h->lock);
    free(h->prefixes);
    free(h->database);
    free(h->cluster_url);
    free(h->letta_database);
    free(h->letta_after);
    free(h->path);
    free(h);
}

const home_options *home_settings(const home *h)
{
    return &h->options;
}

store *home_store(home *h)
{
    return h->store;
}

cache *home_cache(home *h)
{
    return h->cache;
}

state *home_state(home *h)
{
    return h->state;
}

void home_alarm(home *h, const agent *a, const char *event, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (h->options.alarm == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    h->options.alarm(event, a != NULL ? a->id : NULL, text, h->options.alarm_ctx);
}

void home_moved(home *h, const agent *a)
{
    if (h->options.moved != NULL)
        h->options.moved(a->id, h->options.moved_ctx);
}

/* ---- the table ---- */

/* Seeded, so that nobody can choose ids that all fall into one bucket. */
static size_t bucket_of(const home *h, memfs_str id, size_t n_buckets)
{
    uint64_t x = h->hash_seed;

    for (size_t i = 0; i < id.len; i++) {
        x = (x ^ (uint8_t)id.ptr[i]) * 0x9e3779b97f4a7c15u;
        x ^= x >> 29;
    }
    return (size_t)(x & (n_buckets - 1));
}

static agent *find_locked(const home *h, memfs_str id)
{
    for (agent *a = h->buckets[bucket_of(h, id, h->n_buckets)]; a != NULL; a = a->next)
        if (str_equal(str_of(a->id), id))
            return a;
    return NULL;
}

agent *home_find(home *h, memfs_str id)
{
    agent *a;

    pthread_rwlock_rdlock(&h->table_lock);
    a = find_locked(h, id);
    pthread_rwlock_unlock(&h->table_lock);
    return a;
}

static void table_grow(home *h)
{
    size_t n = h->n_buckets * 2;
    agent **buckets = mem_alloc(n * sizeof(*buckets));
    agent *a, *next;
    size_t at;

    for (size_t i = 0; i < h->n_buckets; i++) {
        for (a = h->buckets[i]; a != NULL; a = next) {
            next = a->next;
            at = bucket_of(h, str_of(a->id), n);
            a->next = buckets[at];
            buckets[at] = a;
        }
    }
    free(h->buckets);
    h->buckets = buckets;
    h->n_buckets = n;
}

/* The entry, made when it is not there: of two threads that come at once, both get the same. */
static agent *table_add(home *h, memfs_str id, memfs_str org, bool is_known)
{
    agent *a;
    size_t at;

    pthread_rwlock_wrlock(&h->table_lock);
    a = find_locked(h, id);
    if (a == NULL) {
        if (h->n_agents >= h->n_buckets)
            table_grow(h);
        a = agent_new(id, org, is_known);
        at = bucket_of(h, id, h->n_buckets);
        a->next = h->buckets[at];
        h->buckets[at] = a;
        h->n_agents++;
    }
    pthread_rwlock_unlock(&h->table_lock);
    return a;
}

/* ---- who is known ---- */

typedef struct org_found {
    bool found;
    char org[IDS_MAX_LEN + 1];
} org_found;

static memfs_code take_org(const state_agent *row, void *ctx, memfs_error *err)
{
    org_found *f = ctx;

    if (row->org_id.len >= sizeof(f->org))
        return memfs_fail(err, MEMFS_ECORRUPT, "agent '%.*s' has an impossible organisation",
                          (int)row->id.len, row->id.ptr);
    memcpy(f->org, row->org_id.ptr, row->org_id.len);
    f->org[row->org_id.len] = '\0';
    f->found = true;
    return MEMFS_OK;
}

char *home_repo_name(memfs_str org, memfs_str id)
{
    return mem_printf("%s/%.*s/%.*s/repo.git", ids_is_shared(id) ? "shared" : "repository",
                      (int)org.len, org.ptr, (int)id.len, id.ptr);
}

bool home_has_folder(home *h, memfs_str id)
{
    _cleanup_(mem_freep) char *name = home_repo_name(MEMFS_STR(IDS_DEFAULT_ORG), id);

    return store_has(h->store, name);
}

static memfs_code find_entry(home *h, memfs_str id, bool may_be_new, agent **ret,
                             bool *ret_is_known, memfs_error *err)
{
    org_found found = { .found = false, .org = IDS_DEFAULT_ORG };
    agent_query q = { .id = id, .which = AGENTS_ALL, .with_shared = true };
    memfs_code rc;
    agent *a;

    if (!ids_is_memory(id))
        return memfs_fail(err, MEMFS_EINVALID, "this is not the id of an agent");
    a = home_find(h, id);
    if (a == NULL || (home_is_shared(h) && !agent_is_known(a))) {
        rc = state_agents(h->state, &q, take_org, &found, err);
        if (rc == MEMFS_EUNAVAIL && home_has_folder(h, id))
            rc =
                MEMFS_OK; /* a folder is as good a witness: git goes on without the database (F22) */
        if (rc < 0)
            return rc;
        if (!found.found && !may_be_new && !home_has_folder(h, id))
            return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%.*s' is not known", (int)id.len,
                              id.ptr);
        if (a == NULL)
            a = table_add(h, id, str_of(found.org), found.found);
        else if (found.found)
            agent_set_known(a); /* another server made it */
    }
    *ret_is_known = agent_is_known(a) || store_has(h->store, a->repo);
    if (!*ret_is_known && !may_be_new)
        return memfs_fail(err, MEMFS_ENOTFOUND, "agent '%s' is not known", a->id);
    *ret = a;
    return MEMFS_OK;
}

memfs_code home_entry(home *h, memfs_str id, bool may_be_new, agent **ret, bool *ret_is_known,
                      memfs_error *err)
{
    memfs_code rc = deleted_check(h, id, err);

    return rc < 0 ? rc : find_entry(h, id, may_be_new, ret, ret_is_known, err);
}

memfs_code home_entry_kept(home *h, memfs_str id, agent **ret, bool *ret_is_known, memfs_error *err)
{
    return find_entry(h, id, false, ret, ret_is_known, err);
}

static memfs_code known_agent(home *h, memfs_str id, bool with_rows, agent **ret, memfs_error *err)
{
    bool is_known;
    memfs_code rc = home_entry(h, id, false, ret, &is_known, err);

    return rc < 0 ? rc : agent_ready(h, *ret, with_rows, err);
}

memfs_code home_agent(home *h, memfs_str id, agent **ret, memfs_error *err)
{
    return known_agent(h, id, true, ret, err);
}

memfs_code home_agent_repo(home *h, memfs_str id, agent **ret, memfs_error *err)
{
    return known_agent(h, id, false, ret, err);
}

bool home_agent_at_hand(home *h, memfs_str id, agent **ret)
{
    agent *a = home_find(h, id);

    if (a == NULL || !agent_was_ready(h, a))
        return false;
    *ret = a;
    return true;
}

memfs_code home_agent_peek(home *h, memfs_str id, agent **ret, memfs_error *err)
{
    cache_tip older;
    memfs_error ignored;
    memfs_code rc;

    if (home_agent_at_hand(h, id, ret))
        return MEMFS_OK;
    rc = home_agent(h, id, ret, err);
    if (rc == MEMFS_ENOSPACE && cache_tip_get(h->cache, id, &older, &ignored) == MEMFS_OK)
        return MEMFS_OK; /* whole, though of an older commit, as its tag says: reads go on (F06) */
    return rc;
}

memfs_code home_agent_for_push(home *h, memfs_str id, agent **ret, bool *ret_is_known,
                               memfs_error *err)
{
    memfs_code rc;

    rc = home_entry(h, id, true, ret, ret_is_known, err);
    if (rc < 0 || !*ret_is_known)
        return rc;
    return agent_ready(h, *ret, false, err);
}

memfs_code home_agent_own_repo(home *h, memfs_str id, const char **ret, memfs_error *err)
{
    bool is_known;
    agent *a = NULL;
    memfs_code rc = home_entry_kept(h, id, &a, &is_known, err); /* another server may know better */

    if (rc < 0)
        return rc;
    if (!store_has(h->store, a->repo))
        return memfs_fail(err, MEMFS_ENOTFOUND, "the repository of agent '%s' is not here", a->id);
    *ret = a->repo;
    return MEMFS_OK;
}

memfs_code home_agent_lost(home *h, memfs_str id, agent **ret, memfs_error *err)
{
    bool is_known;
    memfs_code rc = home_entry(h, id, false, ret, &is_known, err);

    if (rc == MEMFS_OK && store_has(h->store, (*ret)->repo))
        return memfs_fail(err, MEMFS_ENOTFOUND, "the repository of agent '%s' is there",
                          (*ret)->id);
    return rc;
}

const char *agent_id(const agent *a)
{
    return a->id;
}

const char *agent_repo(const agent *a)
{
    return a->repo;
}

/* ---- the cache as a file that may break under us (F23) ---- */

void home_cache_suspect(home *h)
{
    memfs_error err;

    if (cache_reset(h->cache, &err) < 0) {
        home_alarm(h, NULL, "cache_broken",
                   "the block cache is damaged and could not be made anew: %s", err.msg);
        return;
    }
    atomic_fetch_add(&h->epoch, 1);
    home_alarm(h, NULL, "cache_reset", "the block cache was set aside and is made anew from git");
    loose_follow(h);
}

void home_rows_lost(home *h, memfs_str id)
{
    agent *a = home_find(h, id);

    if (a == NULL)
        return;
    pthread_mutex_lock(&a->mutex);
    a->is_synced = false;
    a->rows_ms = 0;
    pthread_mutex_unlock(&a->mutex);
}

/* ---- upkeep that a push asks for ---- */

void home_wants_upkeep(home *h, agent *a)
{
    pthread_mutex_lock(&h->upkeep_mutex);
    if (!a->is_queued) {
        if (h->n_upkeep == h->cap_upkeep) {
            h->cap_upkeep = h->cap_upkeep == 0 ? 16 : h->cap_upkeep * 2;
            h->upkeep = mem_realloc(h->upkeep, h->cap_upkeep, sizeof(*h->upkeep));
        }
        a->is_queued = true;
        h->upkeep[h->n_upkeep++] = a;
    }
    pthread_mutex_unlock(&h->upkeep_mutex);
}

agent *home_next_upkeep(home *h)
{
    agent *a = NULL;

    pthread_mutex_lock(&h->upkeep_mutex);
    if (h->n_upkeep > 0) {
        a = h->upkeep[0];
        memmove(h->upkeep, h->upkeep + 1, --h->n_upkeep * sizeof(*h->upkeep));
        a->is_queued = false;
    }
    pthread_mutex_unlock(&h->upkeep_mutex);
    return a;
}
