/*
 * push.h - one push, from the parsed command to the answer (design 15).
 *
 *     push_begin    the agent, the quarantine
 *     push_feed     pack bytes, as they come
 *     push_finish   git exits; under the agent's lock: vet, take in, move the ref, read it back,
 *                   catch the cache up; only then the verdict exists (D2)
 *     push_free
 *
 * Before the ref moved every failure leaves everything as it was (D3).  After it, a cache that
 * fails is a warning: the commit is acknowledged, the blocks follow (F22). Thread: one worker
 * thread.
 */
#ifndef MEMFS_SYNC_PUSH_H
#define MEMFS_SYNC_PUSH_H

#include "store/incoming.h"
#include "sync/home.h"

typedef struct push push;

typedef struct push_command {
    memfs_oid old_id, new_id;
    memfs_str ref;
} push_command;

/* What becomes of a push that changes or deletes a file that is read-only (sync/read_only.h). */
typedef enum push_read_only {
    PUSH_READ_ONLY_MAY,  /* a person with all rights: nothing is said */
    PUSH_READ_ONLY_WARN, /* who pushes is not known, as nobody is asked for a token */
    PUSH_READ_ONLY_MUST_NOT,
} push_read_only;

typedef struct push_verdict {
    bool unpacked;
    char unpack_error[256]; /* when not */
    bool moved;             /* the ref is at new_id, durable and read back */
    char refusal[400];      /* when not: the text after "ng <ref> " */
    bool
        must_not_report; /* fsync or read-back failed, or there are too few copies: close without an
                             * answer (F05) */
    memfs_code code;     /* of the refusal, for log and tests */
} push_verdict;

/*
 * talk gets progress and warnings (band 2), also during push_finish.  who is the principal for the
 * reflog.  A failure here is an HTTP status: EUNAVAIL 503, ECORRUPT 503.
 */
MEMFS_CHECK memfs_code push_begin(home *h, memfs_str agent_id, const push_command *command,
                                  bool wants_progress, incoming_talk_fn talk, void *talk_ctx,
                                  push **ret, memfs_error *err);
/* Before push_finish; a push begins with PUSH_READ_ONLY_MAY. */
void push_set_read_only(push *p, push_read_only rule);
/* EINVALID, ELIMIT: the pack is refused; go on to push_finish, which says so in the verdict. */
MEMFS_CHECK memfs_code push_feed(push *p, const void *bytes, size_t n, memfs_error *err);
void push_finish(push *p, const store_identity *who, push_verdict *ret);
void push_free(push *p);
void push_freep(push **p);

#endif
