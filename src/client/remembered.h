/*
 * remembered.h - what a remote said last, kept in <common git dir>/memfs/remote.
 *
 * So the next start need not ask again: an answer is believed until it expires, and only for the
 * same address and the same credential (a new key or token is worth a new question at once).  Times
 * are the wall clock's, and an answer from the future, or one that would be believed for more than
 * a day, is as good as none (a clock that jumped, F25).
 *
 * Format: lines "<key> <value>"; unknown keys are skipped, a file that cannot be read is no answer.
 * Thread: any.
 */
#ifndef MEMFS_CLIENT_REMEMBERED_H
#define MEMFS_CLIENT_REMEMBERED_H

#include "remote/probe.h"

typedef struct remembered {
    remote_answer answer;
    int64_t asked_at_s, until_s;
    bool has_main;
    memfs_oid main;
    unsigned n_failures; /* in a row, that are worth another try */
    char detail[200];
    char url[1200];
    char mark[17]; /* of the credential: changes with it, says nothing about it */
} remembered;

/* False: nothing is known of this target (NULL: of whatever it was about). */
bool remembered_read(const char *path, const remote_target *t, remembered *ret);
/* Still believed at now_s? */
bool remembered_holds(const remembered *r, int64_t now_s);
/*
 * What was heard now, on top of what was known.  Failures that call for it are believed twice as
 * long each time, up to 15 minutes, less up to a half by chance; a Retry-After is kept.  A refusal
 * holds for a day when the secret is ours to see (another one is asked with at once), else (ssh,
 * git's helpers, none) for 15 minutes.
 */
void remembered_next(const remembered *before, const remote_target *t, const probe_result *heard,
                     int64_t now_s, remembered *ret);
MEMFS_CHECK memfs_code remembered_write(const char *path, const remembered *r, memfs_error *err);

#endif
