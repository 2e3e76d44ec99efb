/*
 * program.h - the programs that memfs consists of, and where they lie.
 *
 *     memfs             what people call: the client, and the door to the others
 *     memfs-server      serve and all that works on a data folder (HTTP, SQLite)
 *     memfs-hook        git hooks and the credential door: small, static, starts in half a millisecond
 *     git-remote-memfs  the same file under the name that git looks for
 *
 * They lie beside each other (a build folder), or in <prefix>/bin and <prefix>/libexec/memfs.
 *
 * Thread: any.
 */
#ifndef MEMFS_BASE_PROGRAM_H
#define MEMFS_BASE_PROGRAM_H

#include "base/error.h"

#define PROGRAM_MEMFS "memfs"
#define PROGRAM_SERVER "memfs-server"
#define PROGRAM_HOOK "memfs-hook"
#define PROGRAM_REMOTE_HELPER "git-remote-memfs"

/*
 * Absolute path of a program that is there; caller frees.  ENOTFOUND names where it was looked for.
 */
MEMFS_CHECK memfs_code program_path(const char *name, char **ret, memfs_error *err);

#endif
