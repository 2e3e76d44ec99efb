/*
 * home.h - one data folder and everything in it: the lock, the store, the state, the cache, and
 * what is known of each agent.
 *
 * A repository that agents share is one more memory, under its own id (repo-<uuid4>), below shared/
 * in place of repository/: an "agent" here, with the same lock, fence, recovery and tip, and
 * without blocks.  Who may do what with it is not known here (cache/shared.h).
 *
 * One process owns a home (flock on `lock`, L6).  Every way to an agent's memory goes through
 * home_agent(), which answers three questions before anything else may happen:
 *   - is the agent known, and is its folder there?  Known but gone is an alarm and EUNAVAIL, and
 *     never a new repository (H4).  A folder that the state does not know yet (a crash came
 * between) is taken up.
 *   - was it recovered since the start?  If not: stale locks swept, cache caught up (L2).
 *   - has somebody moved the ref by hand?  Then the cache is caught up (F14).
 *
 * Locks, in the order they are taken: agent lock (agent_lock) -> cache or state mutex (inside their
 * calls).  The agent lock is a lock of ours with a queue, held over children and fsyncs by the one
 * who changes the repository; readers never take it.
 *
 * Thread: any.
 */
#ifndef MEMFS_SYNC_HOME_H
#define MEMFS_SYNC_HOME_H

#include "cache/cache.h"
#include "cache/state.h"
#include "memory/policy.h"
#include "store/store.h"

struct fetched; /* store/fetched.h */
typedef struct home home;
typedef struct agent agent; /* what is known of one agent; lives until home_close */

/* Something a person should know, from below the edge: event name and text, no secrets. */
typedef void (*home_alarm_fn)(const char *event, const char *agent_id, const char *text, void *ctx);

typedef struct home_options {
    const char *path;
    const char *database;       /* url of PostgreSQL; NULL: SQLite in the folder */
    const char *cluster_url;    /* where other servers of that database reach this one; NULL: as the
                              * home remembers it, or there are none (sync/cluster.h) */
    const char *letta_database; /* url of a Letta server's, for tables mode; NULL: none */
    bool letta_may_fail; /* for a command: if it cannot be used, what needs it fails, and no more */
    memfs_str block_prefixes; /* LETTA_MEMFS_BLOCK_PATH_PREFIXES */
    policy policy;
    uint64_t max_pack_bytes;
    home_alarm_fn alarm; /* may be NULL; called from any thread */
    void *alarm_ctx;
    /* main of an agent moved, by whatever door, and its rows are written (or will follow).  May be
     * NULL; called under the agent's lock, from any thread: it must not wait. */
    void (*moved)(const char *agent_id, void *ctx);
    void *moved_ctx;
    /*
     * A push is acknowledged when so many servers have it, this one too, or a remote (D1); else its
     * connection ends without a report, within HOME_COPY_MS; a write over REST is 503 (edit.h).
     * copied asks the remotes, and may be NULL.
     */
    unsigned n_replicas;
    bool (*copied)(const char *agent_id, int64_t deadline_ms, void *ctx);
    void *copied_ctx;
    /* With several servers: a commit that none of them can give, from a remote into a throw-away repository.
     * May be NULL; called under the agent's lock. */
    bool (*bring)(const char *agent_id, struct fetched *f, const memfs_oid *want,
                  int64_t deadline_ms, void *ctx);
    void *bring_ctx;
} home_options;
#define HOME_COPY_MS 10000
#define HOME_OPTIONS_INIT                                                                          \
    {                                                                                              \
        .policy = POLICY_INIT, .max_pack_bytes = 64u << 20                                         \
    }

/*
 * life cycle.  Makes the folder (0700).  EUNAVAIL: another process owns it.  EINVALID: cluster_url
 * without a database.
 */
MEMFS_CHECK memfs_code home_open(const home_options *options, home **ret, memfs_error *err);
/*
 * A home that shares its database goes by the rule of the servers that run, until here its own
 * becomes that of all: for `serve`, when all else has started, and never for a command.
 */
MEMFS_CHECK memfs_code home_serves(home *h, memfs_error *err);
void home_close(home *h);

/* reading */
const home_options *home_settings(const home *h);
store *home_store(home *h);
cache *home_cache(home *h);
state *home_state(home *h);
/*
 * Do several servers share the database?  Then main of an agent is where they all agreed (sync/follow.h), and
 * every look at a repository may wait for the database and for another server.
 */
bool home_is_shared(const home *h);
/* Is that how the others call this server?  Two rows may name one address, where a disk was lost. */
bool home_is_named(const home *h, memfs_str name);
/*
 * Another server (by its number `from`; 0: it did not say) asks whether a commit is on the disk
 * here, before it acknowledges it: fetched if it is not, from that one before all others. EUNAVAIL:
 * it could not be.
 */
MEMFS_CHECK memfs_code home_agent_keeps(home *h, memfs_str id, const memfs_oid *commit,
                                        int64_t from, memfs_error *err);
/* Of another server, or this one: the SHA-256 (32 bytes) of what it shows. */
bool home_knows_peer(home *h, const uint8_t *token_hash);

/*
 * The agent, recovered and with a cache that holds its tip.  ENOTFOUND: unknown (its first clone is
 * the genesis).  EUNAVAIL: known, but its folder is missing (H4).  ECORRUPT: fenced until repaired.
 * id must be ids_is_memory().
 */
MEMFS_CHECK memfs_code home_agent(home *h, memfs_str id, agent **ret, memfs_error *err);
/*
 * The same for what reads the repository only (clone, fetch): a cache that fails or lags does not
 * matter here (L3).
 */
MEMFS_CHECK memfs_code home_agent_repo(home *h, memfs_str id, agent **ret, memfs_error *err);
/*
 * The same as home_agent at a fraction of the price (fast routes): a good answer holds for a
 * second, so that a repository that was moved or removed by hand shows after that.  While the disk
 * is too full for the rows of the tip, those of an older commit do (F06).
 */
MEMFS_CHECK memfs_code home_agent_peek(home *h, memfs_str id, agent **ret, memfs_error *err);
/*
 * The same again for threads that must not wait: false when home_agent_peek() would have to look.
 */
bool home_agent_at_hand(home *h, memfs_str id, agent **ret);
/*
 * Name of the agent's repository in the store, as it is here: nothing is looked at, recovered or
 * waited for but the state, for an agent that was not asked for yet.  ENOTFOUND: it is not here.
 */
MEMFS_CHECK memfs_code home_agent_own_repo(home *h, memfs_str id, const char **ret,
                                           memfs_error *err);
/*
 * Where main of an agent is, of its repository in the store or, where servers share a database, of
 * all of them.  Nothing is recovered or fetched.
 */
MEMFS_CHECK memfs_code home_agent_main(home *h, memfs_str id, const char *repo, memfs_oid *ret,
                                       memfs_error *err);
/* For the first push: the entry of an agent that need not be known yet. */
MEMFS_CHECK memfs_code home_agent_for_push(home *h, memfs_str id, agent **ret, bool *ret_is_known,
                                           memfs_error *err);
/*
 * One that is known and whose repository is gone, for an operator who wants it to begin again with
 * what a remote has (INTAKE_REVIVE).  ENOTFOUND: it is there, or nobody knows it.
 */
MEMFS_CHECK memfs_code home_agent_lost(home *h, memfs_str id, agent **ret, memfs_error *err);
/* It was deleted, and may be brought back: no memory of its id is begun anew meanwhile. */
bool home_is_deleted(home *h, memfs_str id);
const char *agent_id(const agent *a);
const char *agent_repo(const agent *a); /* name of its repository in the store */

/* changing */
/*
 * The agent is gone for everybody, with its repository kept as it is (sync/deleted.h).  ENOTFOUND.
 * EUNAVAIL: its lock is held for long.
 */
MEMFS_CHECK memfs_code home_agent_delete(home *h, memfs_str id, memfs_error *err);
/* Brings a deleted one back; one that is there stays as it is.  ENOTFOUND: there was never one. */
MEMFS_CHECK memfs_code home_agent_restore(home *h, memfs_str id, memfs_error *err);
/*
 * Touches every agent that was not touched since the start, for a thread of the server's: recovers
 * it, adopts folders that the state does not know, catches the cache up.  *ret_n: how many were
 * done. Troubles of single agents are alarms, not failures.
 */
MEMFS_CHECK memfs_code home_recover_all(home *h, bool (*should_stop)(void *ctx), void *ctx,
                                        size_t *ret_n, memfs_error *err);
/*
 * The next piece of upkeep that a push left behind (folding packs), under that agent's lock.
 * False: there is none.  For a thread of the server's, every second or so.
 */
bool home_upkeep_step(home *h);
/*
 * Brings the rows of one agent to its tip that the database was away for.  False: there is none, or
 * the database is still away.  For a thread of the server's, every second or so.
 */
bool home_catch_up_step(home *h);
/*
 * Of a home that shares its database: tells the others that it is there, and learns who is.  For a
 * thread of the server's, every two seconds or so; elsewhere it does nothing.
 */
void home_cluster_step(home *h);
/* Is this the one server that mirrors?  Of a home that shares; one thread at a time. */
bool home_has_lease(home *h);
/* Of a home that shares: until another server says that it moved something, or the time is over. */
bool home_wait_for_moves(home *h, int64_t timeout_ms);
/*
 * Of a home that shares: what other servers moved since the last call is fetched, if its repository
 * is kept here; moved is told of each.  For a thread of the server's, every second or so, and when
 * home_wait_for_moves() ends.
 */
/* What could not be fetched is kept in the follower, and tried again every few seconds. */
typedef struct home_follower home_follower;
home_follower *home_follower_new(void);
void home_follower_free(home_follower *f); /* NULL is fine */
void home_follow_step(home *h, home_follower *f, bool (*should_stop)(void *ctx),
                      void (*moved)(const char *agent_id, void *ctx), void *ctx);
/*
 * Tables mode: looks for rows in Letta that somebody changed behind git, or that are behind main,
 * and settles each with main (sync/tables.h).  Does nothing until it is time again.  For a thread
 * of the server's, every second or so.
 */
void home_letta_step(home *h);
/* The same for one agent, now; under its lock.  What fails is an alarm. */
void home_letta_settle(home *h, agent *a);
/*
 * Of an agent that nobody here knows: if Letta has it, and it has git memory (its tag), it comes in
 * with its blocks.  OK: it is here.  ENOTFOUND: Letta has no such memory, or there is no tables
 * mode.  EUNAVAIL: nobody knows, or it is there and could not be taken in; why is an alarm, once a
 * minute at most.  Waits for databases and locks.
 */
MEMFS_CHECK memfs_code home_letta_meet(home *h, memfs_str id, memfs_error *err);
/*
 * A read of the cache answered ECORRUPT: sets it aside and begins it anew (F23).  Agents are caught
 * up at their next touch, so the caller asks home_agent again and repeats its read once.
 */
void home_cache_suspect(home *h);
/*
 * The cache has nothing of an agent whose rows home_agent() said are there: somebody emptied the
 * database.  The next home_agent() makes them anew.
 */
void home_rows_lost(home *h, memfs_str id);

void agent_lock(agent *a);
/* False when it was not free within timeout_ms. */
MEMFS_CHECK bool agent_lock_for(agent *a, int64_t timeout_ms);
void agent_unlock(agent *a);
/*
 * Fences an agent: reads and pushes answer ECORRUPT until verify finds it whole, or the next start
 * does (F05, F12).
 */
void agent_fence(home *h, agent *a, const char *why);

#endif
