/*
 * pairs.h - the inside of the mirror: pairs, queues, lanes, rooms.
 *
 * A pair is an agent and a remote.  It is always in exactly one place:
 *
 *     IN_HEAP    waits for due_ms: its next poll, or another try
 *     IN_QUEUE   its lane's prompt queue (pushes, hints, somebody waits) or that of polls, of what
 *                a comparison or an opened gate finds undone, and of a retry of all
 *     IS_PARKED  the lane's gate is closed, and another pair asks for all
 *     IS_HELD    a worker, or somebody with pair_hold_take, is at it
 *
 * What is to be done is in `wants`; what comes while it is held stays there for once more.  A lane is
 * a remote; a room is a host, for what all its lanes share: how many run and how often it is asked.
 *
 * An idle pair of an agent with a usual id takes some 180 bytes.
 *
 * Everything here is guarded by m->mutex, and every function wants it held.
 */
#ifndef MEMFS_MIRROR_PAIRS_H
#define MEMFS_MIRROR_PAIRS_H

#include "mirror/mirror_int.h"

#define RATE_PER_S 5          /* questions to one host that nobody waits for */
#define MAX_RETRY_AFTER_S 3600
#define SLOW_RETRY_MS (15 * 60 * 1000)
#define PUSH_ONLY_POLL_S 900
#define EXCHANGE_MS (300 * 1000)

typedef enum pair_place { IN_HEAP, IN_QUEUE, IS_PARKED, IS_HELD } pair_place;

struct pair {
    pair *next;          /* in its bucket */
    pair *before, *after; /* in a queue, or parked */
    exchange_result *last; /* while somebody waits for it; NULL */
    int64_t due_ms;      /* clock_mono_ms */
    uint32_t heap_at;
    uint32_t n_begun, n_ended; /* exchanges */
    uint32_t changed_s;  /* clock_mono_ms / 1000: when main last moved on either side */
    uint32_t told_s;     /* when a trouble of it was last told; 0: never */
    uint32_t told;       /* which ones since they were told less than a minute apart: 1 << answer */
    int64_t answered_at_us; /* when the remote last told its refs; 0: not since the start */
    memfs_oid known;     /* main of the remote, as recorded */
    memfs_oid hinted;    /* by a webhook since it is held; zero: not said */
    uint16_t n_waiting;  /* threads */
    uint8_t lane;
    uint8_t place;       /* pair_place */
    uint8_t wants;
    bool is_prompt : 1;  /* in the first of the two queues */
    bool has_slot : 1;   /* it may ask at due_ms: the rate has room for it */
    bool is_waiting : 1; /* for another try: what comes in does not make it due */
    bool is_failing : 1;
    bool is_told : 1;
    bool is_fleeting : 1; /* of an agent that may be unknown: goes when nobody needs it */
    bool is_new : 1;     /* nothing changed since it was made, nor was its record looked at */
    bool is_gone : 1;    /* out of the table; freed by the last who uses it */
    char id[];
};

typedef struct pair_list {
    pair *first, *last;
} pair_list;

typedef struct lane {
    const remote_config *config;
    size_t room;
    size_t n_pairs;
    pair_list prompt, polls, parked;
    /* the gate (gate.c) */
    int64_t closed_until_ms; /* 0: open */
    unsigned n_failures;     /* since it is closed */
    unsigned n_unsure;       /* in a row that may be the host's, each of another pair */
    unsigned n_refused;      /* of these the last ones that were 401 */
    const pair *unsure;      /* whose was the last; compared with, never looked into */
    remote_answer why;
    char detail[200];
    char refused[9];         /* second half of a mark: the credential; "" */
    pair *scout;
    bool is_told;
    uint32_t strange_told_s, strange_told; /* as a pair's, for all that nobody here knows */
} lane;

typedef struct room {
    char *name; /* "host:port"; of a path: the remote's name */
    size_t n_running, n_pairs;
    bool is_silent;       /* the last that was asked was a timeout */
    int64_t next_slot_ms; /* of polls */
    int64_t next_meet_ms; /* of ids that nobody here knows */
} room;

/* An agent that nobody here knows, and that a remote did not have a moment ago. */
typedef struct stranger {
    uint64_t key; /* of agent and lane; 0: none */
    int64_t until_ms;
} stranger;
#define N_STRANGERS 1024

struct mirror {
    mirror_options options;
    pthread_mutex_t mutex;
    pthread_cond_t work;  /* for workers: something is queued */
    pthread_cond_t time;  /* for the scheduler: an earlier due time, a comparison */
    pthread_cond_t ended; /* for who waits: an exchange ended, the mirror stops */
    remote_set *set;
    lane lanes[REMOTES_MAX];
    room rooms[REMOTES_MAX];
    size_t n_lanes, n_rooms, next_lane;
    unsigned generation; /* of lanes and rooms: counts reloads */
    pair **buckets;
    size_t n_buckets, n_pairs;
    uint64_t seed;
    stranger strangers[N_STRANGERS];
    pair **heap;
    size_t n_heap, cap_heap;
    pthread_t scheduler, *workers;
    size_t n_threads;    /* workers that run; 0: is_manual */
    bool has_scheduler, is_stopping, wants_compare, is_compared;
    bool is_standing_by; /* another server does it: nothing begins by itself */
    size_t n_running;    /* exchanges */
    size_t n_busy;       /* workers that are at one */
    size_t n_callers;    /* threads inside mirror_exchange, pair_hold_take, ... */
    int64_t compare_at_ms, check_at_ms;
};

/* ---- pairs.c ---- */

void pairs_init(mirror *m);
void pairs_dispose(mirror *m);
/* Lanes and rooms of m->set; every pair finds its new lane, or goes.  All gates are open. */
void pairs_use_set(mirror *m);
int lane_find(const mirror *m, const char *remote); /* -1: none */
uint64_t pair_hash(const mirror *m, memfs_str id);
pair *pair_find(mirror *m, memfs_str id, size_t lane);
/* A new one waits in the heap for its first poll. */
pair *pair_need(mirror *m, memfs_str id, size_t lane);
/* From wherever it waits (not held) to another place. */
void pair_to_heap(mirror *m, pair *p, int64_t due_ms);
void pair_to_queue(mirror *m, pair *p, bool is_prompt);
void pair_park(mirror *m, pair *p);
pair *pairs_first_due(mirror *m); /* NULL: the heap is empty */
/* Out of its place: the caller holds it. */
void pair_pick(mirror *m, pair *p);
/* Gone pairs, and those of agents that nobody knows, are freed; true: it was. */
bool pair_drop_if_useless(mirror *m, pair *p);

/* ---- strangers.c: ids that nobody here knows, however many are asked for ---- */

typedef enum stranger_verdict {
    STRANGER_ASK,    /* it may be looked for; that was counted */
    STRANGER_ABSENT, /* it was not there a moment ago */
    STRANGER_LATER,  /* too many are looked for at that host */
} stranger_verdict;
stranger_verdict stranger_ask(mirror *m, size_t lane, memfs_str id);
/* The same by name, with the mutex not held. */
stranger_verdict stranger_ask_at(mirror *m, const char *remote, const char *agent_id);
/* A look has found that it is not there. */
void stranger_absent(mirror *m, size_t lane, memfs_str id);
/* There is news of it. */
void stranger_forget(mirror *m, size_t lane, memfs_str id);
void strangers_forget_all(mirror *m);

/* ---- gate.c ---- */

/* After an exchange that asked. */
void gate_heard(mirror *m, pair *p, const exchange *x);
void gate_open(mirror *m, lane *l);
/* Somebody says that it is worth another try.  remote: NULL or "" for all. */
void gate_open_all(mirror *m, const char *remote);
static inline bool gate_is_closed(const lane *l)
{
    return l->closed_until_ms != 0;
}
/*
 * 1 s to 15 min, full jitter, twice as long each time; where nobody listens a host is asked every
 * few seconds, as that costs nobody anything.  In ms; a Retry-After counts where it is longer.
 */
int64_t backoff_ms(remote_answer answer, int64_t n_failures, int64_t retry_after_s);

/* ---- mirror.c ---- */

/*
 * mirror_exchange in two halves, for who wants many at once: begun (by a worker, where there are
 * workers), then waited for.  What was begun is ended or given up.
 */
typedef struct ticket {
    pair *pair; /* NULL: not begun */
    uint32_t serial;
    unsigned wants;
    bool is_in_turn;
} ticket;
MEMFS_CHECK memfs_code mirror_begin(mirror *m, memfs_str agent_id, const char *remote,
                                    unsigned wants, ticket *ret, memfs_error *err);
/*
 * The same for one of many: behind pushes and hints, and not at all while the gate is closed
 * (mirror_end then fails).
 */
MEMFS_CHECK memfs_code mirror_begin_in_turn(mirror *m, memfs_str agent_id, const char *remote,
                                            unsigned wants, ticket *ret, memfs_error *err);
MEMFS_CHECK memfs_code mirror_end(mirror *m, ticket *t, const char *remote, int64_t deadline_ms,
                                  exchange_result *ret, memfs_error *err);
void mirror_give_up(mirror *m, ticket *t);

/* ---- compare.c ---- */

/*
 * Wants a push of every pair that is not known to have main; what is recorded of it holds again.  By the
 * scheduler's thread, and, as an exception, with the mutex not held: it reads the state and refs.
 */
void compare_all(mirror *m);

/* ---- schedule.c ---- */

void *schedule_thread(void *mirror);
void *schedule_work(void *mirror);
/* What is due by now leaves the heap. */
void schedule_due(mirror *m);
/* When it is asked next, as a poll. */
int64_t schedule_interval_ms(const mirror *m, const pair *p);
/* Something is wanted of a pair: where it goes now. */
void schedule_want(mirror *m, pair *p, unsigned wants);
/* The same for one of many: behind pushes and hints, and nothing is said to have changed. */
void schedule_want_in_turn(mirror *m, pair *p, unsigned wants);
/* A pair that is held: run, conclude, released.  The mutex is not held. */
void schedule_run(mirror *m, pair *p, int64_t deadline_ms, int keep, exchange_result *ret);
/* Held no longer (the mutex is held). */
void schedule_release(mirror *m, pair *p);

#endif
