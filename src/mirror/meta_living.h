/*
 * meta_living.h - which births of an agent.json count: those of blocks that there are.
 *
 * A birth that a remote tells becomes a row of the state, and rows stay (K4).  So that a remote
 * which tells other labels each time cannot make the state grow (T23), it may date what is in a
 * tree, and nothing else.
 *
 * Any thread.
 */
#ifndef MEMFS_MIRROR_META_LIVING_H
#define MEMFS_MIRROR_META_LIVING_H

#include "mirror/meta_text.h"
#include "store/store.h"

/*
 * The births of labels that a file has at one of the tips stay in t, the others go.  What is a block
 * is judged without the prefixes of this server's settings, so that servers with different ones
 * write the same.  Tips that are zero have nothing.  A tree beyond p's bounds: ELIMIT.
 */
MEMFS_CHECK memfs_code meta_keep_living(repo *r, const policy *p, const memfs_oid *tips, size_t n,
                                        meta_text *t, memfs_error *err);
/*
 * The births of labels that the state does not have go, as far as the agent would have more than
 * `max` with them: for trees that nobody has judged yet.
 */
MEMFS_CHECK memfs_code meta_keep_few(state *s, uint64_t max, meta_text *t, memfs_error *err);

#endif
