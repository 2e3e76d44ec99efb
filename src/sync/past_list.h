/*
 * past_list.h - the versions (cache/search.h) of a stretch of a memory's history, as git has it.
 *
 * What was there and is gone is told by lines: a line of the version before that the version has
 * nowhere any more went with it.  The version before is the one that the list has before it, as
 * histories with branches have no other order; so a line of one branch may be called gone by a
 * commit of another, and whoever shows it looks whether main has it (search.h).
 *
 * Cost: of each commit the folders that it changed; of each version its text and that of the one
 * before, and a look into the cache where that is of an earlier stretch.
 *
 * Thread: any one.  Nothing is changed.
 */
#ifndef MEMFS_SYNC_PAST_LIST_H
#define MEMFS_SYNC_PAST_LIST_H

#include "cache/find.h"
#include "cache/search.h"
#include "sync/home.h"

typedef struct past_stretch {
    const memfs_oid *from; /* the cache has the versions up to it; NULL: from the beginning */
    memfs_oid to;
    /* bounds; 0: any number */
    size_t max_looked; /* commits (versions_walk) */
    size_t max_versions;
    uint64_t max_text_bytes; /* that are read and compared */
} past_stretch;

typedef struct past_list past_list;

/*
 * r: where the commits can be read, a quarantine too.  ELIMIT: it is longer than the bounds say, or
 * more than PAST_MAX_BYTES as rows.
 */
#define PAST_MAX_BYTES (UINT64_C(512) << 20)
MEMFS_CHECK memfs_code past_list_make(home *h, const agent *a, repo *r, const past_stretch *s,
                                      past_list **ret, memfs_error *err);
void past_list_free(past_list *l);
void past_list_freep(past_list **l);
/* Lives as long as the list. */
const version_list *past_list_versions(const past_list *l);

/* ---- pure ---- */

/* Lines of `old` that `now` has nowhere; neighbours are one span.  Caller frees *ret. */
void past_gone(memfs_str old, memfs_str now, find_span **ret, size_t *ret_n);

#endif
