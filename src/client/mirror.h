/*
 * mirror.h - the post-commit mirror (letta.memoryRepository.url), queued durably.
 *
 * The hook writes one line into <git dir>/memfs/mirror-queue, synced, and starts a detached `memfs
 * sync --queued`; what fails stays queued with its next time and is tried by every sync and by the
 * watcher.  Only main travels; never forced.
 */
#ifndef MEMFS_CLIENT_MIRROR_H
#define MEMFS_CLIENT_MIRROR_H

#include "client/settings.h"
#include "store/checkout.h"

MEMFS_CHECK memfs_code mirror_enqueue(checkout *c, memfs_error *err);
/* 0 when nothing waits, without opening more than one file. */
size_t mirror_queued(const checkout *c);
/*
 * What waits: not before then, after so many tries, and why the last failed.  All zero: none
 * failed.
 */
typedef struct mirror_next {
    int64_t at_s;
    unsigned n_tries;
    char cause[200];
} mirror_next;
mirror_next mirror_next_try(const checkout *c);
/* Pushes what is due; EUNAVAIL: something stays queued. */
MEMFS_CHECK memfs_code mirror_run(const settings *s, checkout *c, bool is_forced_now, int64_t budget_ms,
                                  memfs_error *err);

#endif
