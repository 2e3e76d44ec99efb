/*
 * fetched.h - what a remote has, in a throw-away repository, until it was judged (T23).
 *
 * A fetch has no quarantine of git's own, so memfs gives it one: a bare repository of its own below
 * tmp/, which looks into the real one for what is there already (objects/info/alternates), and is
 * removed whatever happens.  Merges of what came with what is here are written into it too, so the
 * real repository sees nothing of a fetch that is refused, cut short or killed (D3).
 *
 *     fetched_begin      the throw-away repository; its main is ours, so that only news travels
 *     fetched_fetch      git fetch; may be called again (another branch, a lost race)
 *     fetched_vet        the rules of a push over what came
 *     fetched_repo       read it, merge in it
 *     fetched_accept     all that is new and reachable from `tip`: one pack, renamed in, synced
 *     fetched_free       gone
 *
 * The caller holds the repository's lock from fetched_vet to the ref move; not over the network.
 * Whatever became of the repository meanwhile (moved, folded, made) is seen at fetched_vet.
 * Thread: one thread at a time.
 */
#ifndef MEMFS_STORE_FETCHED_H
#define MEMFS_STORE_FETCHED_H

#include "store/store.h"
#include "store/transport.h"

typedef struct fetched fetched;

/* name need not exist yet: the genesis template then stands in for it. */
MEMFS_CHECK memfs_code fetched_begin(store *s, const char *name, fetched **ret, memfs_error *err);
void fetched_free(fetched *f);
void fetched_freep(fetched **f);
/* Its git dir, for transport_push of what was merged in it. */
const char *fetched_dir(const fetched *f);

/*
 * The remote's `ref` ("refs/heads/main", what its HEAD names, "refs/memfs/meta"; of another memfs
 * also an id) into *ret_tip.
 * Errors as transport_fetch_ref.  max_bytes bounds what may come (ELIMIT; 0: 256 MiB).  As a
 * server, whatever t says (transport_target.is_server).
 */
MEMFS_CHECK memfs_code fetched_fetch(fetched *f, const transport_target *t, const char *ref,
                                     uint64_t max_bytes, int64_t deadline_ms, memfs_oid *ret_tip,
                                     transport_report *report, memfs_error *err);

/* The same of two refs by one question: with_ref was seen there just now.  ENOTFOUND: one is gone. */
MEMFS_CHECK memfs_code fetched_fetch_with(fetched *f, const transport_target *t, const char *ref,
                                          const char *with_ref, uint64_t max_bytes,
                                          int64_t deadline_ms, memfs_oid *ret_tip,
                                          memfs_oid *ret_with, transport_report *report,
                                          memfs_error *err);

/*
 * May `tip` come in beside `ours`?  Judged by the push policy is the tip's tree, of it only what
 * `known` do not have at the same path (vet_tip), so what an import brought along once stops
 * nothing, and whoever takes an offending file out again has mended it for everybody.  Every new
 * commit (of tip's, not of the known ones') is bounded: dates, number, depth, entries, sizes (T13
 * to T16), so far beyond what the policy takes that only an attack meets it.  Banned objects
 * (purged secrets) are refused wherever they are met.  EDENIED names path and rule.  Known ids that
 * are nowhere here are left out.
 */
typedef struct fetched_vetting {
    const memfs_oid *tip;
    const memfs_oid *known; /* ours, what the remote had before; zero ids are left out */
    size_t n_known;
    const policy *policy;
    const memfs_oid *banned; /* sorted */
    size_t n_banned;
} fetched_vetting;
MEMFS_CHECK memfs_code fetched_vet(fetched *f, const fetched_vetting *v, memfs_error *err);

/*
 * Another tip that came, to go in together with the next one: judged by fetched_vet beside it, and
 * taken in by fetched_accept in the same pack.  What does not pass stays behind and stops nothing:
 * a fetched_vet of its own says why.  Once it is in, its own fetched_accept costs a look.
 */
void fetched_bring_along(fetched *f, const memfs_oid *tip);

/* Handle on the throw-away repository: what is new, and what was there.  Lives as long as f. */
repo *fetched_repo(fetched *f);

/* Is it here, and a commit?  A remote's branch may name anything. */
bool fetched_is_commit(fetched *f, const memfs_oid *tip);

/*
 * As incoming_accept; the real repository must exist by now.  ECORRUPT: not durable (F05).  What is
 * there already is not brought again; may be called for several tips, and again after a crash.
 */
MEMFS_CHECK memfs_code fetched_accept(fetched *f, const memfs_oid *tip, memfs_error *err);

#endif
