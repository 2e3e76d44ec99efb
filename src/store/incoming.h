/*
 * incoming.h - a pack on its way in, from the first byte to a pack in the repository (design 15).
 *
 *     incoming_begin      a folder of its own below tmp/, whose alternate is the repository
 *     incoming_feed ...   the bytes go to `git index-pack --stdin --fix-thin --strict`
 *     incoming_finish     git has exited well; the objects are in quarantine, complete and checked
 *     incoming_vet        policy and ancestry of every new commit, in process, in the quarantine
 *     incoming_accept     pack, then index, renamed into the repository; folder synced
 *     incoming_abort      at any point: the child is ended, the folder removed, nothing has changed
 *
 * A push without objects (nothing new to send) skips feed and finish.
 * The caller holds the repository's lock from incoming_vet to the ref move.
 * Thread: one thread at a time.
 */
#ifndef MEMFS_STORE_INCOMING_H
#define MEMFS_STORE_INCOMING_H

#include "store/store.h"

typedef struct incoming incoming;

/* Lines that git or the policy has for the person who pushes; text ends without a newline. */
typedef void (*incoming_talk_fn)(memfs_str text, void *ctx);

typedef struct incoming_options {
    uint64_t max_pack_bytes; /* 64 MiB; past it ELIMIT */
    int64_t timeout_ms;      /* 120 s, and 1 s per MiB fed */
    bool wants_progress;     /* pass git's own progress on to talk */
    incoming_talk_fn talk;   /* may be NULL */
    void *talk_ctx;
} incoming_options;
#define INCOMING_OPTIONS_INIT { 64u << 20, 120000, false, NULL, NULL }

/* name need not exist yet: the genesis template then stands in for it. */
MEMFS_CHECK memfs_code incoming_begin(store *s, const char *name, const incoming_options *options,
                                      incoming **ret, memfs_error *err);
/* Blocks while git is busy; EINVALID when git has refused the pack. */
MEMFS_CHECK memfs_code incoming_feed(incoming *in, const void *bytes, size_t n, memfs_error *err);
MEMFS_CHECK memfs_code incoming_finish(incoming *in, memfs_error *err);

/*
 * Every commit that `tip` has and `base` has not: dates, tree policy against its first parent,
 * totals of the tip; `tip` must be a commit that descends from `base`.  base is never zero: it is
 * the genesis for a new repository.  EDENIED with path and rule, or "non-fast-forward".
 * Objects named in `banned` (sorted; purged secrets) are refused wherever they are met.
 */
typedef struct incoming_vetting {
    const memfs_oid *base;
    const memfs_oid *tip;
    const policy *policy;
    const memfs_oid *banned;
    size_t n_banned;
} incoming_vetting;
MEMFS_CHECK memfs_code incoming_vet(incoming *in, const incoming_vetting *v, memfs_error *err);

/*
 * The quarantine as a repository: what is new and what was there.  Lives as long as `in`, also
 * after incoming_accept; NULL when it cannot be opened.
 */
repo *incoming_repo(incoming *in);

/* ECORRUPT: the folder could not be synced, so nobody knows what a power cut would leave (F05). */
MEMFS_CHECK memfs_code incoming_accept(incoming *in, memfs_error *err);
void incoming_abort(incoming *in); /* NULL is fine; also the end after incoming_accept */

#endif
