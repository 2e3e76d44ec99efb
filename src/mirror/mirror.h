/*
 * mirror.h - every agent's memory on the operator's own git hosts, both ways (design 6, 7).
 *
 * There is no queue of pushes that could be lost: what is to be done follows from where main is and
 * what the remote is known to have (state_mirror), so a kill at any instant loses nothing and a push
 * pays nothing for its mirror (L3).  After a start all agents are compared once.
 *
 * An exchange is one agent and one remote, and nothing else runs for that pair meanwhile; what
 * happens during it makes it run once more (coalescing):
 *
 *     main moved          push; a lost race: fetch, merge, push again, up to 5 times with jitter (F17)
 *     webhook, poll       one look; news: fetch into a throw-away repository, vet, merge, push back
 *     remote empty        push.   missing: made, unless create = false; else state `missing` (F16)
 *     remote has no main, but its HEAD names another branch: that one is merged, main is pushed, noted
 *     remote lost commits, rewritten, main deleted there: what we have is merged and pushed again, noted
 *     unrelated           merged, both roots kept, noted (H5)
 *     refused by policy   nothing changes here; noted with path and rule; local work goes on
 *     401, 403            stop until the credential changes, or `memfs mirror retry` (F15)
 *     refused by the host (protected branch, hook): noted with its words, tried again slowly
 *     anything passing    backoff 1 s to 15 min, full jitter, Retry-After up to an hour (F18, F19)
 * Nothing is ever forced or deleted, in either direction (H5).  A note stays in the status until it
 * is accepted (mirror_resolve) or overtaken.
 *
 * Polling asks each agent's remote every poll_s, spread evenly; where a host would have to answer
 * more than RATE questions a second for that, agents whose memory has not changed for long are asked
 * more rarely.  Webhooks make it prompt.
 *
 * Threads: one scheduler, n_workers that exchange; at most half of them for one host, the last free
 * one for a host that answers.  Calls are from any thread.  Lock order: the mirror's mutex is
 * innermost; never held over a child, a file or the network.
 */
#ifndef MEMFS_MIRROR_MIRROR_H
#define MEMFS_MIRROR_MIRROR_H

#include "mirror/remotes.h"
#include "store/fetched.h"
#include "sync/upkeep.h"

typedef struct mirror mirror;

typedef enum mirror_letta_step {
    MIRROR_LETTA_MOVES,
    MIRROR_LETTA_MOVED,
    MIRROR_LETTA_STAYED,
} mirror_letta_step;

typedef struct mirror_options {
    home *home;
    remotes *remotes;   /* given; may be empty */
    size_t n_workers;   /* 4 */
    bool is_standing_by; /* mirror_stand_by, from the start */
    bool is_manual;     /* a command's own short life: no polling, nothing in the background */
    void (*event)(const char *event, const char *agent_id, const char *remote, const char *text,
                  void *ctx); /* for the log; once a minute at most for the same trouble (L5) */
    void *event_ctx;
    /*
     * A Letta server's folder: main of an agent is about to move there; then, that it has, or that
     * it has not.  May be NULL; called while the pair is held, from any thread: it must not wait.
     */
    void (*letta_moves)(const char *agent_id, mirror_letta_step step, void *ctx);
    void *letta_ctx;
} mirror_options;
MEMFS_CHECK memfs_code mirror_start(const mirror_options *options, mirror **ret, memfs_error *err);
/*
 * Ends what runs (its children too) within grace_ms, then is gone.  False: some exchange is at a
 * read of a folder that hangs, and seconds later still was; all of it stays, as it may go on.
 */
bool mirror_stop(mirror *m, int64_t grace_ms);
/* Other remotes from now on (SIGHUP); what runs ends as it began. */
void mirror_reload(mirror *m, remotes *given);
bool mirror_has_remotes(const mirror *m);
/* The remotes of this moment; they live during the call, whatever a reload does meanwhile. */
void mirror_with_remotes(mirror *m, void (*fn)(const remotes *r, void *ctx), void *ctx);

/*
 * Compares all agents with what is known of their remotes, in the scheduler's thread: once at the
 * start, every ten minutes, and when this is called (after home_recover_all, which may have found
 * repositories that the state did not know).
 */
void mirror_compare_all(mirror *m);

/*
 * One of the servers that share a database mirrors for all.  One that stands by does what it is
 * asked for (syncs, webhooks), and begins nothing by itself; when it no longer does it compares all.
 */
void mirror_stand_by(mirror *m, bool should);

/* told; none of these waits */
void mirror_moved(mirror *m, const char *agent_id);
/* A webhook says so.  after: zero if it did not say; equal to what is known: nothing is done. */
void mirror_hint(mirror *m, const char *remote, memfs_str agent_id, const memfs_oid *after);
/* The same of one of many, behind all that came alone or that somebody waits for. */
void mirror_hint_in_turn(mirror *m, const char *remote, memfs_str agent_id,
                         const memfs_oid *after);

/* asked; these wait */
/*
 * A Letta server's folder and an agent, known or not, are brought in step now; concurrent calls
 * share one exchange.  EUNAVAIL, ...: why they are not, in words.
 */
MEMFS_CHECK memfs_code mirror_letta(mirror *m, memfs_str agent_id, int64_t deadline_ms,
                                    memfs_error *err);
/* Is that where main of that folder was when it was last looked at?  Some instructions. */
bool mirror_letta_is_known(mirror *m, memfs_str agent_id, const memfs_oid *tip);
typedef struct mirror_outcome {
    size_t n_remotes, n_failed;
    size_t n_copies;      /* git remotes that we push to and that have main now */
    size_t n_missing;     /* of the failed: they answer, and have no such repository (or show none) */
    bool moved;           /* main */
    remote_answer answer; /* of the first that failed, one that is not missing before others */
    char failure[300];    /* of the same, in words with its remote; "" */
    int64_t retry_after_s;
} mirror_outcome;
/*
 * Fetch, converge, push with all remotes of the agent, now; concurrent calls share one exchange.
 * The agent need not be known.  deadline_ms: clock_mono_ms.
 */
void mirror_sync(mirror *m, const char *agent_id, int64_t deadline_ms, mirror_outcome *ret);
/*
 * The same for an agent, which may ask as often as it likes: a credential that was refused is not
 * shown again for it (F15), and a host that wants to be left alone is (F18).  Those count as failed.
 * An id that nobody here knows is looked for only now and then (strangers.c), as by mirror_meet and
 * mirror_hint: that one was not there a moment ago is an answer, one too many counts as failed.
 */
void mirror_sync_modestly(mirror *m, const char *agent_id, int64_t deadline_ms,
                          mirror_outcome *ret);
/*
 * An id that nobody here knows is asked for: is it on a remote?  Within budget_ms, and at once when
 * the remotes are known to be away.  True: it is known now.
 */
bool mirror_meet(mirror *m, const char *agent_id, int64_t budget_ms);

/*
 * A commit that this server lacks, into f, from a remote that has it.  Called under the agent's
 * lock; deadline_ms: clock_mono_ms.
 */
bool mirror_bring(mirror *m, const char *agent_id, fetched *f, const memfs_oid *want,
                  int64_t deadline_ms);

/* What was learned of a remote that is configured no more.  ECONFLICT: it is. */
MEMFS_CHECK memfs_code mirror_forget(mirror *m, const char *remote, memfs_error *err);

/* ---- status ---- */

typedef enum mirror_note {
    MIRROR_NOTE_NONE,
    MIRROR_NOTE_UNRELATED, /* merged with another root */
    MIRROR_NOTE_REWRITTEN, /* it went from what we knew to something that lacks it */
    MIRROR_NOTE_LOST,      /* it went back; pushed again */
    MIRROR_NOTE_DELETED,   /* main was there and is gone; pushed again */
    MIRROR_NOTE_BRANCH,    /* its HEAD is another branch than main */
    MIRROR_NOTE_REFUSED,   /* theirs, by our policy */
    MIRROR_NOTE_REJECTED,  /* ours, by the host (protected branch, hook, secret scanning) */
    MIRROR_NOTE_BY_RULE,   /* a merge decided by rule, see the commit */
    MIRROR_NOTE_DIVERGED,  /* a push-only remote has commits of its own: nothing is pushed */
    MIRROR_NOTE_META,      /* refs/memfs/meta there is none that can be used; main travels */
    MIRROR_N_NOTES,
} mirror_note;
const char *mirror_note_name(mirror_note n);   /* "unrelated": stable */
const char *mirror_note_advice(mirror_note n); /* what a person can do */

typedef struct mirror_row {
    const char *agent_id, *remote, *address; /* address without secrets */
    remote_direction direction;
    const char *state; /* "mirrored", "behind", "waiting", "failing", "auth-failed", "missing", "held", "new" */
    memfs_oid local_tip, remote_tip; /* zero: none, or never seen */
    bool is_counted;
    size_t n_ahead, n_behind;        /* when is_counted */
    int64_t seen_at_us;              /* when it last told its refs; 0: never */
    int64_t pushed_at_us, proof_at_us; /* 0 */
    int64_t oldest_unmirrored_us;    /* when the oldest commit arrived that it lacks; 0: none */
    int64_t next_try_us;             /* 0: not planned */
    unsigned n_failures;
    const char *failure, *advice;    /* "" */
    mirror_note note;
    const char *note_text;           /* "" */
    int64_t note_at_us;
} mirror_row;
typedef bool (*mirror_row_fn)(const mirror_row *row, void *ctx); /* false ends it */
/* agent_id "": all, by id.  Counting ahead and behind reads history: only for one agent, or asked for. */
MEMFS_CHECK memfs_code mirror_status(mirror *m, memfs_str agent_id, bool count, mirror_row_fn fn,
                                     void *ctx, memfs_error *err);

/* ---- an operator's work: told line by line, as sync/upkeep.h ---- */

/*
 * Tries now, whatever the backoff or a refused credential says.  All agents at once stay behind
 * pushes, and are not asked for when the first few find the host away or refusing still.
 */
MEMFS_CHECK memfs_code mirror_retry(mirror *m, memfs_str agent_id, const char *remote,
                                    const upkeep_watcher *w, upkeep_result *ret, memfs_error *err);
/*
 * Ends a note: accept (INTAKE_MERGE: it stands as it is), or fetches once more and joins both
 * histories with our tree or theirs, past the policy's refusal of theirs (our tree) only.
 */
MEMFS_CHECK memfs_code mirror_resolve(mirror *m, memfs_str agent_id, const char *remote,
                                      int keep /* intake_keep */, const upkeep_watcher *w,
                                      upkeep_result *ret, memfs_error *err);
/*
 * Proves that each remote has what we have: its main fetched to a depth of one into an empty
 * repository, checked by fsck, its tree id compared with ours; the proof is dated.  Findings:
 * proof-differs, proof-behind, proof-failed; told: proven.
 */
MEMFS_CHECK memfs_code mirror_verify(mirror *m, memfs_str agent_id, const char *remote,
                                     const upkeep_watcher *w, upkeep_result *ret, memfs_error *err);
/*
 * Every agent that a remote has, brought here: repositories, blocks, attributes.  Whose they are
 * says the host's API, a plain path's folders, or ids (NULL: ask).  Agents that are here and equal
 * cost one question, so it can be stopped and begun again.
 */
MEMFS_CHECK memfs_code mirror_rebuild(mirror *m, const char *remote, const char *const *ids,
                                      size_t n_ids, const upkeep_watcher *w, upkeep_result *ret,
                                      memfs_error *err);
/*
 * What a remote and its token can and cannot do, for one agent's address (NULL: any), as findings
 * (bad news: no-read, no-push, no-create, expires, ...) and notes (good ones: can-read, ...).
 */
typedef struct mirror_checked {
    upkeep_result all;       /* n_agents: remotes */
    size_t n_refused, n_away; /* remotes: that refuse the credentials; that do not answer */
} mirror_checked;
MEMFS_CHECK memfs_code mirror_check(mirror *m, const char *agent_id, const char *remote,
                                    const upkeep_watcher *w, mirror_checked *ret, memfs_error *err);

#endif
