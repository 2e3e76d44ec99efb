/*
 * error.h - the one error type of memfs.
 *
 * A memfs_error is a plain value on the caller's stack: failing allocates nothing, leaks nothing
 * and crosses threads with the data it belongs to.  A function that can fail returns a memfs_code
 * (0 is success, everything else is negative) and takes `memfs_error *err` last; err is written
 * only on failure and must not be NULL.
 *
 * The code says what the caller can do about it; the message says what a person needs to know: one
 * line, lower case, names quoted, no final dot.  Messages may reach clients, so they carry no paths
 * of the server, no SQL and no secrets; such detail goes to the log where the error is met.
 *
 * Thread: values are not shared; any thread may call.
 */
#ifndef MEMFS_BASE_ERROR_H
#define MEMFS_BASE_ERROR_H

#include "base/macros.h"

typedef enum memfs_code {
    MEMFS_OK = 0,
    MEMFS_EINVALID = -1,   /* the request is wrong: fix it, do not repeat it */
    MEMFS_ENOTFOUND = -2,  /* there is no such thing */
    MEMFS_EEXISTS = -3,    /* it is there already */
    MEMFS_ECONFLICT = -4,  /* somebody else was first: read again, then retry */
    MEMFS_EDENIED = -5,    /* refused by policy or permission */
    MEMFS_ELIMIT = -6,     /* larger than a bound allows */
    MEMFS_ECORRUPT = -7,   /* stored data is damaged: a person has to look */
    MEMFS_EUNAVAIL = -8,   /* cannot be done now (busy, timeout, away): retry later */
    MEMFS_ENOSPACE = -9,   /* the disk or quota is full */
    MEMFS_EINTERNAL = -10, /* a defect of ours or a failing machine */
} memfs_code;

typedef struct memfs_error {
    memfs_code code;
    char msg[512];
} memfs_error;

#define MEMFS_ERROR_INIT { MEMFS_OK, "" }

/* Sets *err and returns code, so that `return memfs_fail(err, ...)` reads as one step. */
memfs_code memfs_fail(memfs_error *err, memfs_code code, const char *fmt, ...) MEMFS_PRINTF(3, 4);

/* Puts "<context>: " before the message in *err and returns its code. */
memfs_code memfs_context(memfs_error *err, const char *fmt, ...) MEMFS_PRINTF(2, 3);

/*
 * Translates errno at the door: ENOENT/ENOTDIR -> ENOTFOUND, EEXIST/ENOTEMPTY -> EEXISTS,
 * ENOSPC/EDQUOT -> ENOSPACE, EAGAIN/EMFILE/ENFILE/EBUSY/ETIMEDOUT/ECONNREFUSED -> EUNAVAIL,
 * EACCES/EPERM/EROFS/ELOOP/EXDEV -> EDENIED, all else -> EINTERNAL.  The message is
 * "<what>: <strerror>".  errno is read first, so nothing may run in between.
 */
memfs_code memfs_fail_errno(memfs_error *err, const char *fmt, ...) MEMFS_PRINTF(2, 3);

/*
 * Static analysers look at one file at a time and cannot see that the three above never return
 * MEMFS_OK; this tells them.  No compiler defines it.
 */
#ifdef __clang_analyzer__
#define memfs_fail(err, code, ...) ((void)(memfs_fail)(err, code, __VA_ARGS__), (code))
#define memfs_context(...) ((void)(memfs_context)(__VA_ARGS__), MEMFS_EINTERNAL)
#define memfs_fail_errno(...) ((void)(memfs_fail_errno)(__VA_ARGS__), MEMFS_EINTERNAL)
#endif

/* "EINVALID", for logs and --json. */
const char *memfs_code_name(memfs_code code);

#endif
