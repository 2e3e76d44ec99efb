/*
 * detach.h - a child that outlives us: work that a hook starts and nobody waits for.
 *
 * It has a session of its own, /dev/null as stdin, stdout and stderr, and no other descriptor: a
 * terminal that closes does not end it, and git, which reads a hook's pipes to their end, does not
 * wait for it. Nobody reaps it but init.
 *
 * Thread: any.
 */
#ifndef MEMFS_BASE_DETACH_H
#define MEMFS_BASE_DETACH_H

#include "base/error.h"

/*
 * argv[0] is an absolute path; both vectors end with NULL.  The child's folder is "/".
 */
MEMFS_CHECK memfs_code detach(const char *const *argv, const char *const *env, memfs_error *err);

#endif
