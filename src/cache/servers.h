/*
 * servers.h - the servers that share one PostgreSQL database, and the tip that they share.
 *
 * Each has a folder of repositories of its own.  Where main of an agent is, of all of them, is its
 * tip in the cache: cache_apply moves it by compare-and-swap, and writes the rows with it.  So of two
 * servers that both received a push one wins.
 *
 * SQLite is one server's own; none of this is to be called there.
 *
 * Thread: as cache.h and state.h.
 */
#ifndef MEMFS_CACHE_SERVERS_H
#define MEMFS_CACHE_SERVERS_H

#include "cache/cache.h"
#include "cache/state.h"

#define SERVER_TOKEN_HASH 32

typedef struct state_server {
    int64_t no;
    memfs_str name;                        /* its home's, for ever: printable ASCII */
    memfs_str url;                         /* where the others reach it */
    uint8_t token_hash[SERVER_TOKEN_HASH]; /* SHA-256 of what it shows them */
    int64_t age_ms;                        /* since it was last seen, by the database's clock */
} state_server;
typedef memfs_code (*state_server_fn)(const state_server *s, void *ctx, memfs_error *err);

/* Here I am: makes its row, or brings it up to date.  Called every few seconds. */
MEMFS_CHECK memfs_code state_server_join(state *s, const state_server *me, int64_t *ret_no,
                                         memfs_error *err);
/* All that ever were here, by number. */
MEMFS_CHECK memfs_code state_servers(state *s, state_server_fn fn, void *ctx, memfs_error *err);

/*
 * Work that one server does for all of them (mirroring): is it this one?  Whoever asks first when
 * nobody has it gets it, and has it until the process or its connection ends.  On a failure nobody
 * can say, and *ret_has_it is false.  Of one thread.
 */
MEMFS_CHECK memfs_code state_lease(state *s, bool *ret_has_it, memfs_error *err);
/*
 * A turn at something that is changed by one server after the other: is it this one's?  Waits for it
 * until until_ms (clock_mono_ms), ended by process_end_of(); on top of that comes what the database
 * takes to answer.  It has it until state_turn_end(), or until the process or its
 * connection ends.  Of one thread of a process at a time for the same `what`; different ones do not
 * wait for each other.  EUNAVAIL: nobody can say.
 */
MEMFS_CHECK memfs_code state_turn_take(state *s, memfs_str what, int64_t until_ms, bool *ret_has_it,
                                       memfs_error *err);
void state_turn_end(state *s, memfs_str what);
/*
 * Waits until another server than own_no moved main of some agent, at most timeout_ms: true when it
 * was told so.  Every move is told by its server after its COMMIT, but a word may be lost, and while
 * the database is away there is none: who must know asks cache_moves as well.  The first call begins to
 * listen.  Ended by process_end_of().  Of one thread.
 */
bool state_moves_wait(state *s, int64_t own_no, int64_t timeout_ms);
/*
 * Another number when a token was made or revoked, by whichever server.  Two that change at once
 * may be told as one, so all are read now and then besides.
 */
MEMFS_CHECK memfs_code state_tokens_mark(state *s, int64_t *ret, memfs_error *err);

/*
 * Another number when an agent was deleted or brought back, by whichever server: then those that are
 * deleted are read anew.
 */
MEMFS_CHECK memfs_code state_deleted_mark(state *s, int64_t *ret, memfs_error *err);

typedef struct cache_head {
    memfs_oid tip;
    int64_t holder; /* who moved main there, and has it; 0: not known */
    bool is_empty;  /* its rows were dropped: they are to be made anew */
    bool is_followed; /* as cache_tip's */
    bool has_turn;    /* somebody, this one or another server: state_turn_take() of the agent's id */
} cache_head;
/* ENOTFOUND: no server has a commit of this agent. */
MEMFS_CHECK memfs_code cache_head_get(cache *c, memfs_str agent_id, cache_head *ret,
                                      memfs_error *err);

/* A move of some agent's main by some server. */
typedef struct cache_move {
    memfs_str agent_id;
    int64_t generation;
    int64_t holder;
} cache_move;
typedef memfs_code (*cache_move_fn)(const cache_move *m, void *ctx, memfs_error *err);
/*
 * The last move of each agent since `after`, in their order, at most max; after negative: only the
 * last one of all.  A move may come into view after a later one, so this finds nearly all: for what
 * is only quicker with it.
 */
MEMFS_CHECK memfs_code cache_moves(cache *c, int64_t after, size_t max, cache_move_fn fn, void *ctx,
                                   memfs_error *err);

#endif
