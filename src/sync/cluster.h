/*
 * cluster.h - a home that shares its database with others: who they are, and how it gets a commit
 * from them (design 13).
 *
 * `server` in the home has its name, made once, and the address by which the others reach it
 * (--cluster-url); a home that has it shares, until the file is removed.  secrets/server (0600) is
 * what it shows the others when it asks; they know its SHA-256 from the database, so no secret is
 * kept anywhere but here.
 *
 * Who is there is read anew every few seconds (home_cluster_step) and held in memory, so neither a
 * push nor a fetch asks for it.
 *
 * One that was not seen for ten minutes is not asked for anything, as it would be shown this
 * server's secret: its address may be another machine's by now.  It may still have what nobody else
 * has.
 *
 * Which of many servers keep an agent: those two that come first when all are ordered by the hash
 * of agent and server (rendezvous), and who was ever asked for it.
 *
 * Thread: any, but open and close.
 */
#ifndef MEMFS_SYNC_CLUSTER_H
#define MEMFS_SYNC_CLUSTER_H

#include "cache/servers.h"
#include "store/fetched.h"
#include "sync/home_int.h"

typedef struct cluster cluster;

/*
 * url NULL: as `server` says, and *ret NULL where there is none.  EINVALID: url is no address of
 * http or https.  The state must be PostgreSQL's, shared.
 */
MEMFS_CHECK memfs_code cluster_url(const char *home_path, const char *given, char **ret,
                                   memfs_error *err);
MEMFS_CHECK memfs_code cluster_open(const char *home_path, const char *url, state *s, cluster **ret,
                                    memfs_error *err);
void cluster_close(cluster *c); /* NULL is fine */

int64_t cluster_no(const cluster *c);
/* As of the last refresh: is there another server that goes by this one's name or address? */
typedef enum cluster_twin {
    CLUSTER_ALONE,
    CLUSTER_TWIN_NAME, /* its home was copied, the file `server` with it */
    CLUSTER_TWIN_URL,  /* both were given the same --cluster-url */
} cluster_twin;
cluster_twin cluster_has_twin(const cluster *c);
bool cluster_is_named(const cluster *c, memfs_str name);
/* As of the last refresh.  A row that is gone: an operator says that this one does not come back. */
bool cluster_knows(cluster *c, int64_t no);
/* Whose SHA-256 is this, one of the servers'? */
bool cluster_has_secret(cluster *c, const uint8_t *token_hash);
/* Is this server one of the two that should have the agent? */
bool cluster_keeps(cluster *c, memfs_str agent_id);
/*
 * What the others moved since the last call: fn is told of each.  A move may come into view after a
 * later one, so once a second those that were new a few seconds ago are told again.  When the
 * database went back in time all are told, those of this server, too.  Of one thread.
 */
typedef void (*cluster_move_fn)(const cache_move *move, void *ctx);
MEMFS_CHECK memfs_code cluster_moves(cluster *c, cache *from, cluster_move_fn fn, void *ctx,
                                     memfs_error *err);
/* Here I am, and who else is. */
MEMFS_CHECK memfs_code cluster_refresh(cluster *c, state *s, memfs_error *err);

/*
 * Asks others to have a commit on their disks, by placement, until n do or it is deadline_ms
 * (clock_mono_ms).  How many said so.
 */
size_t cluster_copy(cluster *c, memfs_str agent_id, const memfs_oid *commit, size_t n,
                    int64_t deadline_ms);
/*
 * Brings commit `want` (NULL: main) of the agent into f from a server that has it: the holder
 * first, then others.  ENOTFOUND: those that answered have it not, and all answered.  EUNAVAIL:
 * some did not answer.  On a worker or a thread of the server's, under the agent's lock.  A server
 * that does not answer costs 10 s, and for 20 s then 1 s each; 30 s go by at most before the last
 * one is asked; what comes may take as long as it flows, up to ten minutes.  Ended by
 * process_end_of().
 */
MEMFS_CHECK memfs_code cluster_fetch(cluster *c, memfs_str agent_id, int64_t holder, fetched *f,
                                     const memfs_oid *want, memfs_oid *ret, memfs_error *err);

#endif
