/*
 * mirror_int.h - what the files of the mirror share.  Nobody else includes it.
 *
 *     mirror.c      life cycle, what is told from outside, one pair that is asked for
 *     agent_sync.c  all remotes of one agent that is asked for
 *     pairs.c       the table of pairs (agent x remote), where each waits, who holds it
 *     schedule.c    the scheduler thread and the workers: when which pair is exchanged
 *     compare.c     after a start: which pairs are not in step
 *     strangers.c   ids that nobody here knows, however many are asked for
 *     gate.c        a host that is away, a token that is refused: one pair asks for all
 *     pairs.h       the inside of struct mirror, for these and status.c
 *     exchange.c    one exchange, from the look to the last push
 *     take.c        what the remote has becomes part of ours
 *     folder.c      the two steps that are others in a Letta server's folder
 *     make.c        a repository that is missing there
 *     bring.c       a commit that another server had, from a remote
 *     record.c      state_mirror rows, as values
 *     notes.c       words: names and advice of notes, failures, states
 *     status.c      mirror_status, mirror_retry, mirror_resolve
 *     meta.c, rebuild.c, proof.c, check.c   refs/memfs/meta, a home from a remote, proofs, rights
 *
 * Whoever works on a pair holds it (pair_hold, or a worker); nobody else reads or writes its record
 * meanwhile.  m->mutex guards the table, the queues and the gates, and is held for some instructions
 * only: never over a child, a file, the state or the network.
 */
#ifndef MEMFS_MIRROR_MIRROR_INT_H
#define MEMFS_MIRROR_MIRROR_INT_H

#include "memory/ids.h"
#include "mirror/mirror.h"
#include "sync/intake.h"

#include <pthread.h>

/* ---- what is known of one pair: a state_mirror row that owns its texts (record.c) ---- */

typedef struct mirror_record {
    char mark[17]; /* remote_target_mark: first half of the address, second of the credential */
    memfs_oid remote_tip, meta_tip, proof_tree;
    int64_t seen_at_us, pushed_at_us, proof_at_us;
    char answer[32]; /* remote_class's name of the failure that stands, or RECORD_HERE; "" */
    char detail[400];
    int64_t n_failures, failed_at_us, next_try_us;
    mirror_note note;
    char note_text[400];
    int64_t note_at_us;
} mirror_record;
#define RECORD_HERE "here" /* record.answer: what failed is on this side */
/* All zeros when nothing is known. */
MEMFS_CHECK memfs_code record_load(mirror *m, const char *agent_id, const char *remote,
                                   mirror_record *ret, memfs_error *err);
/* before: what record_load gave; nothing is written when nothing changed.  NULL: written. */
MEMFS_CHECK memfs_code record_save(mirror *m, const char *agent_id, const char *remote,
                                   const mirror_record *before, const mirror_record *now,
                                   memfs_error *err);
/* A newer note takes the place of what stands, but a merge by rule that of nothing but its like. */
void record_note(mirror_record *r, mirror_note note, const char *fmt, ...) MEMFS_PRINTF(3, 4);

/* ---- which remotes: shared by whoever works while a reload brings others ---- */

typedef struct remote_set {
    remotes *r;
    size_t n_refs; /* guarded by m->mutex */
} remote_set;
remote_set *mirror_remotes(mirror *m); /* a reference: */
void mirror_remotes_unref(mirror *m, remote_set *set);
/* NULL: no such remote. */
const remote_config *remote_set_find(const remote_set *set, const char *remote);

/* Was it learned at the address that is configured now? */
bool record_is_of(const remote_config *c, const char *agent_id, const mirror_record *r);

/* ---- one exchange (exchange.c) ---- */

typedef enum want {
    WANT_PUSH = 1 << 0,  /* main moved here */
    WANT_LOOK = 1 << 1,  /* the remote may have moved */
    WANT_NOW = 1 << 2,   /* somebody asks: backoff and refused credentials do not count */
    WANT_WHOLE = 1 << 4, /* most likely it is all there, and nothing here: no look before a fetch */
    WANT_SOON = 1 << 3,  /* somebody waits: backoff does not count */
} want;

typedef struct exchange {
    /* set by the caller */
    mirror *m;
    const remote_set *set;
    const remote_config *config;
    const char *agent_id;
    unsigned wants;      /* want */
    int keep;            /* intake_keep: anything but INTAKE_MERGE is mirror_resolve */
    int64_t deadline_ms; /* clock_mono_ms */
    /* while it runs, for the hooks of meta.c; E's own: record.meta_tip */
    remote_target target;
    transport_target to;
    char mark[17];
    mirror_record record;
    agent *agent;        /* NULL: not known here (yet), or not to be had (is_unknown tells) */
    bool is_unknown;
    const agent *lost;   /* known, but its folder is gone; only with INTAKE_REVIVE */
    memfs_oid ours;      /* main; zero: unknown here */
    mirror_record *before_hope; /* as it was, while only the push can tell whether there is one */
    bool knows_meta;     /* the look told where refs/memfs/meta is: */
    memfs_oid meta_there; /* zero: there is none */
    void *meta;          /* meta.c's own, until mirror_meta_dispose */
    unsigned n_unreadable; /* folder.c's own */
    const char *left;      /* the folder of what is taken in, where no ref names it; NULL */
    unsigned n_lefts_held; /* refused in this look: the note stays */
    /* how it ended */
    remote_answer answer;  /* of the remote; REMOTE_UNASKED: it was not asked */
    int64_t retry_after_s; /* its word */
    int64_t wait_ms;       /* 0: as usual; else not again before, for the scheduler */
    bool is_stopped;       /* a refused credential */
    bool is_new_note;      /* record.note and its text were not there before */
    bool was_asked, was_fetched, was_pushed, was_moved /* main, here */;
    memfs_error error;     /* why it did not come to its end: words without the remote's name */
} exchange;
/* The pair is held.  Everything that happens is in x; the record was saved. */
void exchange_run(exchange *x);

/*
 * Runs one now, on this thread or a worker's, and shares one that begins after this call with
 * whoever else asks.  wants: WANT_NOW is understood.  OK: it ran; *ret says how (its pointers are
 * NULL).  EUNAVAIL: not ended by deadline_ms (it goes on, if workers run), or the mirror stops.
 * ENOTFOUND: no such remote, or it is not for that agent.
 */
typedef struct exchange_result {
    memfs_code code; /* of the failure; MEMFS_OK */
    bool was_moved, was_pushed;
    bool is_copy; /* a git remote that we push to has main as it was here when this was done */
    remote_answer answer;
    int64_t retry_after_s;
    char failure[400]; /* in words with the remote's name; "" */
} exchange_result;
MEMFS_CHECK memfs_code mirror_exchange(mirror *m, memfs_str agent_id, const char *remote,
                                       unsigned wants, int64_t deadline_ms, exchange_result *ret,
                                       memfs_error *err);

/*
 * The same on this thread, with another way to join both sides (intake_keep): an operator decided.
 */
MEMFS_CHECK memfs_code mirror_exchange_keeping(mirror *m, memfs_str agent_id, const char *remote,
                                               int keep, int64_t deadline_ms,
                                               exchange_result *ret, memfs_error *err);

/* ---- a pair for oneself, without an exchange: a proof, a check (pairs.c) ---- */

typedef struct pair pair;
typedef struct pair_hold {
    pair *pair;
    remote_set *set;
    const remote_config *config;
} pair_hold;
/* Waits for its turn.  Errors as mirror_exchange. */
MEMFS_CHECK memfs_code pair_hold_take(mirror *m, memfs_str agent_id, const char *remote,
                                      int64_t deadline_ms, pair_hold *ret, memfs_error *err);
void pair_hold_release(mirror *m, pair_hold *h);

/* ---- a repository that is missing (make.c) ---- */

typedef struct mirror_made {
    enum { MIRROR_NOT_MADE, MIRROR_MADE, MIRROR_MADE_BY_PUSH /* perhaps */ } how;
    remote_answer answer; /* MIRROR_NOT_MADE: why */
    char detail[400];
} mirror_made;
/* heard: REMOTE_NOT_FOUND. */
void mirror_make(exchange *x, const probe_result *heard, mirror_made *ret);

/* ---- refs/memfs/meta (meta.c): around an exchange; what fails here fails no exchange ---- */

/* Is theirs news that should come with main, by the same question? */
bool mirror_meta_comes(exchange *x);
/* It came: f has it. */
void mirror_meta_came(exchange *x, fetched *f, const memfs_oid *tip);
/* f has just fetched their main and is taken in next: theirs is here too, or is fetched now. */
void mirror_meta_before(exchange *x, fetched *f, const memfs_oid *theirs);
/* f is taken in, and still there: its sidecar becomes part of ours. */
void mirror_meta_taken(exchange *x, fetched *f);
/*
 * main is in step on both sides: what `before` brought becomes attributes, ours is pushed where the
 * remote has another (record.meta_tip).  Called after every exchange that ended well.
 */
void mirror_meta_after(exchange *x);
/* In every case at the end: what `before` kept in x->meta goes. */
void mirror_meta_dispose(exchange *x);

/* ---- for all files ---- */

home *mirror_home(mirror *m);
const mirror_options *mirror_settings(const mirror *m);
bool mirror_is_stopping(mirror *m);
/* For the log.  remote may be NULL. */
void mirror_event(mirror *m, const char *event, const char *agent_id, const char *remote,
                  const char *text);
/* Is it an agent of this home?  false when that could not be found out. */
bool mirror_knows(mirror *m, memfs_str agent_id);
/* Waits, but not longer than until the mirror stops (then false). */
bool mirror_pause(mirror *m, int64_t ms);
/* Random, 0 to n - 1. */
int64_t mirror_chance(int64_t n);

/* ---- words (notes.c) ---- */

mirror_note mirror_note_parse(memfs_str name);
/* "unreachable (connection refused)", escaped; answer as in a record */
void failure_words(const char *answer, const char *detail, char *out, size_t size);
/* What a person can do about it; "" */
const char *failure_advice(const char *answer);
/* REMOTE_UNASKED: none of the remote's. */
remote_answer failure_answer(const char *answer);

#endif
