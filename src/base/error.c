#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

memfs_code (memfs_fail)(memfs_error *err, memfs_code code, const char *fmt, ...)
{
    va_list ap;

    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return code;
}

memfs_code (memfs_context)(memfs_error *err, const char *fmt, ...)
{
    char tail[sizeof(err->msg)];
    va_list ap;
    int n;

    memcpy(tail, err->msg, sizeof(tail));
    va_start(ap, fmt);
    n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(err->msg))
        snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", tail);
    return err->code;
}

static memfs_code code_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return MEMFS_ENOTFOUND;
    case EEXIST:
    case ENOTEMPTY:
        return MEMFS_EEXISTS;
    case ENOSPC:
    case EDQUOT:
        return MEMFS_ENOSPACE;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case EBUSY:
    case ETIMEDOUT:
    case ECONNREFUSED:
        return MEMFS_EUNAVAIL;
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
    case EXDEV:
        return MEMFS_EDENIED;
    default:
        return MEMFS_EINTERNAL;
    }
}

memfs_code (memfs_fail_errno)(memfs_error *err, const char *fmt, ...)
{
    int number = errno;
    char what[sizeof(err->msg)];
    char reason[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return memfs_fail(err, code_of_errno(number), "%s: %s", what,
                      strerror_r(number, reason, sizeof(reason)));
}

const char *memfs_code_name(memfs_code code)
{
    switch (code) {
    case MEMFS_OK: return "OK";
    case MEMFS_EINVALID: return "EINVALID";
    case MEMFS_ENOTFOUND: return "ENOTFOUND";
    case MEMFS_EEXISTS: return "EEXISTS";
    case MEMFS_ECONFLICT: return "ECONFLICT";
    case MEMFS_EDENIED: return "EDENIED";
    case MEMFS_ELIMIT: return "ELIMIT";
    case MEMFS_ECORRUPT: return "ECORRUPT";
    case MEMFS_EUNAVAIL: return "EUNAVAIL";
    case MEMFS_ENOSPACE: return "ENOSPACE";
    case MEMFS_EINTERNAL: return "EINTERNAL";
    }
    return "EINTERNAL";
}
