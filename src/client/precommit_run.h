/*
 * precommit_run.h - the pre-commit hook over a real index: memory/precommit and memory/layout
 * decide.
 */
#ifndef MEMFS_CLIENT_PRECOMMIT_RUN_H
#define MEMFS_CLIENT_PRECOMMIT_RUN_H

#include "store/checkout.h"

/* Says on `said` what to change, a few lines an offence.  EDENIED: the commit is refused. */
MEMFS_CHECK memfs_code precommit_run(checkout *c, const char *index_file, memfs_buf *said,
                                     memfs_error *err);

#endif
