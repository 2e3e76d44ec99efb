/*
 * like.h - "contains", as PostgreSQL's ILIKE '%x%' means it: without regard to case, with %
 * standing for any text and _ for one character, and no way to escape them (http-api 6.1).
 *
 * Case is folded one code point at a time over all of Unicode, as ILIKE does with a UTF-8 database:
 * "STRASSE" does not find "straße", "ÄRGER" finds "ärger".  A byte that is not UTF-8 is a character
 * of its own.
 *
 * Thread: a compiled pattern may be used by many at once.
 */
#ifndef MEMFS_CACHE_LIKE_H
#define MEMFS_CACHE_LIKE_H

#include "base/error.h"
#include "base/str.h"

#define LIKE_MAX 1024 /* characters of a pattern */

typedef struct like_pattern {
    size_t n;
    int32_t parts[LIKE_MAX]; /* a folded code point, or one of the two below */
} like_pattern;
#define LIKE_ANY_TEXT (-1)
#define LIKE_ANY_CHARACTER (-2)

/* ELIMIT: longer than LIKE_MAX. */
MEMFS_CHECK memfs_code like_compile(memfs_str pattern, like_pattern *ret, memfs_error *err);
/* Time is at most (length of text) x (length of pattern), whatever they are. */
bool like_matches(const like_pattern *pattern, memfs_str text);

#endif
