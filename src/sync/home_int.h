/*
 * home_int.h - the inside of home.h, shared by the files of this room only.
 */
#ifndef MEMFS_SYNC_HOME_INT_H
#define MEMFS_SYNC_HOME_INT_H

#include "base/fs.h"
#include "cache/letta_db.h"
#include "memory/ids.h"
#include "sync/home.h"

#include <pthread.h>
#include <stdatomic.h>

#define HOME_N_BUCKETS_FIRST 256

typedef enum agent_phase {
    AGENT_UNTOUCHED, /* not recovered since the start; nothing below is known yet */
    AGENT_READY,
    AGENT_FENCED,
} agent_phase;

struct agent_waiter;
struct id_list;

/* One whose main another server moved, until its commit is here too. */
typedef struct late_agent {
    agent *a;
    int64_t holder; /* who moved it; 0: not known */
    int64_t move;   /* as the agent's told_move; a newer one is tried at once */
    int64_t due_ms; /* not tried before; clock_mono_ms */
    bool is_late;   /* false: it is here by now; of the thread that follows */
} late_agent;

struct agent {
    /* set once, before others see the entry */
    char id[IDS_MAX_LEN + 1];
    char *repo;
    const char *org; /* the default's literal, or its own */
    bool has_own_org;
    agent *next;          /* in its bucket; guarded by the home's table lock */
    size_t n_loose_kept;  /* as estimated after the last folding; the agent lock */
    size_t n_banned_kept; /* in its file `banned`, by this process; the agent lock */
    /* the last move by another server that was told: generation, and whose; its thread */
    int64_t told_move, told_holder;
    /* away.c: its rows are not tried before; the last pause; guarded by the home's upkeep_mutex */
    int64_t behind_until_ms, behind_pause_ms;
    bool is_queued;  /* for upkeep; the same */
    bool is_waiting; /* for its rows (away.c); the same */
    bool is_late;    /* a commit of another server's is not here yet (together.c); the same */
    bool is_settled; /* what the folders say is on the disk, as of this process; the agent lock */

    pthread_mutex_t mutex; /* guards all below; held for a few instructions only */
    bool is_held;          /* the agent lock */
    struct agent_waiter *first, *last;

    agent_phase phase;
    bool is_known; /* the state has it */
    bool is_deleted;
    bool is_moving; /* a push of ours is taking main to moving_to */
    bool is_synced; /* the cache holds synced, as of epoch */
    memfs_oid tip;  /* of main, as we know it */
    memfs_oid moving_to;
    memfs_oid synced;
    uint64_t epoch;             /* of the cache, when synced was true */
    int64_t checked_ms;         /* when tip was last compared with the folder */
    int64_t unreached_until_ms; /* shared: `unreached`, a tip, is not asked for before this */
    memfs_oid unreached;
    int64_t vain_until_ms; /* shared, under its lock: a turn was waited for in vain; not again before */
    int64_t rows_ms;       /* shared: when the database last said that it has its rows; 0 */
    int64_t alarmed_ms;    /* when a standing trouble was last told */
    int64_t retry_ms;      /* catching up failed: not again before this */
    memfs_error *sync_err; /* why it failed; NULL: it did not */
    char *why_fenced;

    /* tables.c: its rows in a Letta server; the agent lock, and down to retry_ms the mutex */
    struct {
        memfs_oid tip; /* that the rows were last known to be of; zero: not known */
        bool has_mark; /* they were settled as of `mark`, and by what we wrote since */
        uint64_t mark;
        int64_t retry_ms;  /* a look failed: not again before this */
        unsigned n_failed; /* looks in a row */
        int64_t told_ms;   /* when that was last told; 0: never */
        bool is_unknown;   /* Letta has no such agent, and that was told */
        uint64_t left;     /* which blocks stay as they are there, as it was told; 0: none */
    } letta;
};

struct home {
    home_options options; /* strings are owned below */
    char *path;
    char *prefixes;
    char *database;
    char *cluster_url;
    char *letta_database;
    fs_lock lock;
    store *store;
    cache *cache;
    state *state;
    struct cluster *cluster; /* cluster.h; NULL: this home shares its database with nobody */
    int64_t twin_told_ms;    /* when server_twin was last told; 0; of home_cluster_step's thread */
    atomic_bool wants_past;  /* past.h: somebody asked for all agents', and not all was there */
    char past_after[IDS_MAX_LEN + 1]; /* home_past_step: where it goes on; that thread only */
    atomic_bool has_other_rule;       /* than its database: it writes no rows, and judges none */
    _Atomic(letta_db *) letta; /* NULL: no tables mode, or its database is away since the start */
    char *letta_after;    /* where the look at all rows goes on; that thread only; NULL: first */
    int64_t letta_due_ms; /* the next look at its rows; the thread of home_letta_step only */
    bool letta_told;      /* that it is away; the same */
    atomic_bool letta_is_doubted;           /* is what we made there there still? */
    atomic_int_fast64_t letta_meet_told_ms; /* when a meeting that failed was last told; 0: never */
    atomic_uint_fast64_t epoch;             /* counts the caches that this home has had */
    atomic_int_fast64_t cache_seen_ms; /* when somebody last looked whether the cache is there */

    pthread_rwlock_t table_lock;
    agent **buckets;
    size_t n_buckets, n_agents;
    struct id_list *deleted; /* deleted.h; sorted; guarded by table_lock */
    int64_t deleted_mark;    /* of the state, when it was read; the thread of deleted_step() */
    uint64_t hash_seed;
    char run[IDS_MAX_LEN + 1];    /* of this home_open(): no other has it */
    int64_t edits_due_ms;         /* block_edit_step; that thread only */
    struct edit_seen *edits_seen; /* edit_left.c; the same */
    size_t n_edits_seen;
    pthread_mutex_t turns_mutex; /* block_turn.c; guards the four */
    pthread_cond_t turns_changed;
    struct block_turn *turns;
    bool has_left;      /* changes may be there that were not made of all agents */
    uint64_t left_mark; /* rises with each */

    pthread_mutex_t upkeep_mutex;
    agent **upkeep; /* a ring would be no shorter: this rarely holds more than a few */
    size_t n_upkeep, cap_upkeep;
    agent **behind; /* away.c; the same mutex */
    size_t n_behind, cap_behind;
    late_agent *late; /* together.c; the same mutex */
    size_t n_late, cap_late;
};

/* Tells whoever listens; text is made as by printf.  a may be NULL. */
void home_alarm(home *h, const agent *a, const char *event, const char *fmt, ...)
    MEMFS_PRINTF(4, 5);

/* Tells whoever listens that main of the agent is elsewhere, under its lock and nothing else. */
void home_moved(home *h, const agent *a);

/*
 * The entry of an agent without a look at its repository, made when there is none yet.  ENOTFOUND:
 * neither state nor disk know it, and may_be_new is false.  *ret_is_known as of now.
 */
MEMFS_CHECK memfs_code home_entry(home *h, memfs_str id, bool may_be_new, agent **ret,
                                  bool *ret_is_known, memfs_error *err);
/*
 * Of a home that shares its database: is the rule by which the rows there are made its own still?
 * Another server may have brought one since the start.  Answers has_other_rule.
 */
MEMFS_CHECK memfs_code home_look_at_rule(home *h, memfs_error *err);
/* The same of one that may be deleted. */
MEMFS_CHECK memfs_code home_entry_kept(home *h, memfs_str id, agent **ret, bool *ret_is_known,
                                       memfs_error *err);
/* The entry if there is one; NULL. */
agent *home_find(home *h, memfs_str id);
/*
 * Name in the store of the repository of an agent, or of one that agents share; caller frees.
 */
char *home_repo_name(memfs_str org, memfs_str id);
/* Is there a repository of that id, whoever knows it? */
bool home_has_folder(home *h, memfs_str id);

/* block_turn.c */
void block_turns_init(home *h);
void block_turns_dispose(home *h);

/* cluster.c: do as many have the commit as n_replicas asks for?  Not under the agent's lock. */
bool home_has_copies(home *h, agent *a, const memfs_oid *commit);

/* together.c: its commit is fetched from `holder` when home_follow_step() comes to it. */
void home_is_late(home *h, agent *a, int64_t holder);

/* Are there so many packs, or objects by themselves, that they should be folded? */
bool agent_wants_folding(home *h, const agent *a);
/* It does. */
void home_wants_upkeep(home *h, agent *a);
/* The next agent that wants upkeep, or NULL. */
agent *home_next_upkeep(home *h);

/* agent.c: what happens to one entry */
agent *agent_new(memfs_str id, memfs_str org, bool is_known);
/* Absolute: what holds repo.git; caller frees. */
char *agent_folder(const home *h, const agent *a);
void agent_free(agent *a);
/* Recovered and not fenced; with_rows also brings the cache to the tip. */
MEMFS_CHECK memfs_code agent_ready(home *h, agent *a, bool with_rows, memfs_error *err);
/* Fast: was agent_ready's answer good a moment ago? */
bool agent_was_ready(home *h, agent *a);
/* True once in a while, so that a standing trouble is told and does not flood. */
bool agent_alarm_is_due(agent *a);
bool agent_is_touched(agent *a);                    /* recovered since the start */
bool agent_has_tip(agent *a, const memfs_oid *tip); /* as this process knows it */
/* A missing folder: EUNAVAIL and, once a minute, the alarm (H4). */
memfs_code agent_missing(home *h, agent *a, memfs_error *err);

/* The following are called under the agent's lock. */
MEMFS_CHECK memfs_code agent_recover(home *h, agent *a, memfs_error *err);
/* Compares the tip on disk with the one we know; tells when somebody else moved it (F14, H1). */
MEMFS_CHECK memfs_code agent_look(home *h, agent *a, memfs_oid *ret_tip, memfs_error *err);
void agent_moving(agent *a, const memfs_oid *to);
void agent_not_moving(agent *a);
void agent_moved(agent *a, const memfs_oid *tip); /* ends agent_moving too */
void agent_set_known(agent *a);
bool agent_is_known(agent *a);
void agent_synced(home *h, agent *a, const memfs_oid *tip, uint64_t epoch);
bool agent_is_synced_at(home *h, agent *a, const memfs_oid *tip);
void agent_unfence(home *h, agent *a);
bool agent_is_fenced(agent *a, memfs_error *err); /* true writes *err */
/*
 * A store call met damage: fences the agent if fsck agrees (F12).  Keeps *err as it is.
 */
void agent_suspect(home *h, agent *a, const memfs_error *err);

#endif
