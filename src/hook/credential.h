/*
 * credential.h - git's credential protocol, answered from a descriptor (reliability 6, T24, T25).
 *
 * `memfs-hook credential get` is the only helper of the git that memfs starts.  What it may say
 * stands in a descriptor that it inherits (PROCESS_HANDED_FD; its number in MEMFS_CREDENTIAL_FD),
 * made by store/transport.c: four fields, each as four hex digits (the field's length) and its
 * bytes:
 *
 *     protocol   "https"
 *     host       "git.example.org[:port]", as git says it
 *     user name
 *     secret
 *
 * git asks on stdin with lines "key=value", ended by an empty one.  The answer comes only for
 * exactly that protocol and host; to everything else, to `store` and to `erase`, nothing is said
 * and nothing is done.
 */
#ifndef MEMFS_HOOK_CREDENTIAL_H
#define MEMFS_HOOK_CREDENTIAL_H

#include "base/buf.h"

#define CREDENTIAL_FD_VARIABLE "MEMFS_CREDENTIAL_FD"
#define CREDENTIAL_MAX_BYTES (64 * 1024)

/* argv[0] is "credential"; the exit status. */
int hook_credential(int argc, char **argv);

/* The answer to a question, or nothing.  False: what was handed down is damaged. Pure. */
bool credential_answer(memfs_str handed, memfs_str question, memfs_buf *out);

#endif
