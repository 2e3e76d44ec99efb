/*
 * sidecar.h - refs/memfs/meta: what git does not carry of a memory, as a commit beside it.
 *
 * A small tree of texts with no history worth keeping apart from main's.  It travels to the remote
 * under the same name, where the host takes it, so that an empty machine gets names and times back.
 * Never on main, never advertised to clients (design 14: hidden refs).  Repacking keeps what it
 * reaches; so does a purge, which looks through main's history only.
 *
 * Thread: as a repo handle; writing under the repository's lock.
 */
#ifndef MEMFS_STORE_SIDECAR_H
#define MEMFS_STORE_SIDECAR_H

#include "store/store.h"

#define STORE_META "refs/memfs/meta"

/* The text of `file` at a commit (of a fetch, or of the ref).  ENOTFOUND. */
MEMFS_CHECK memfs_code sidecar_read(repo *r, const memfs_oid *commit, const char *file,
                                    uint64_t max_bytes, memfs_buf *out, memfs_error *err);
/* Where refs/memfs/meta is; zero: there is none. */
MEMFS_CHECK memfs_code sidecar_tip(repo *r, memfs_oid *ret, memfs_error *err);
/*
 * A commit with just this file on top of the ref's (or of `theirs` too, when it is not zero: a
 * merge commit, so no push has to force), and the ref moved to it, synced, and read back (ECORRUPT as
 * repo_ref_move).  theirs was taken in (fetched_accept) before.  Writes no commit when the text is
 * what the ref or theirs has and that contains the other: the ref moves there, if it moves at all.
 * The commit is a pure function of its parents and the text (dates as store/merge.h's; the first of
 * all is dated 0).  r is the repository's own handle.
 */
MEMFS_CHECK memfs_code sidecar_write(repo *r, const memfs_oid *theirs, const char *file,
                                     memfs_str text, memfs_oid *ret, memfs_error *err);

#endif
