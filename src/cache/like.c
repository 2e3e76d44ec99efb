#include "cache/like.h"

#include <utf8proc.h>

/*
 * The matcher keeps one place to go back to, the last %: whatever an earlier % has swallowed, a
 * match that exists is also found with the shortest choice for it.  So there is no recursion, and
 * no pattern that takes exponential time, unlike in sqlite's own LIKE.
 */

/* Bytes outside UTF-8 fold to values that no code point has. */
#define NOT_UTF8 0x200000

static int32_t fold(memfs_str s, size_t *pos)
{
    unsigned char c = (unsigned char)s.ptr[*pos];
    uint32_t cp;

    if (c < 0x80) {
        *pos += 1;
        return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    }
    if (!str_utf8_next(s, pos, &cp))
        return NOT_UTF8 + c;
    return utf8proc_tolower((utf8proc_int32_t)cp);
}

memfs_code like_compile(memfs_str pattern, like_pattern *ret, memfs_error *err)
{
    size_t pos = 0;

    ret->n = 0;
    while (pos < pattern.len) {
        int32_t part = fold(pattern, &pos);

        if (ret->n == LIKE_MAX)
            return memfs_fail(err, MEMFS_ELIMIT,
                              "the text to search for is longer than %d characters", LIKE_MAX);
        if (part == '%')
            part = LIKE_ANY_TEXT;
        else if (part == '_')
            part = LIKE_ANY_CHARACTER;
        ret->parts[ret->n++] = part;
    }
    return MEMFS_OK;
}

/* The pattern begins and ends with a % that is not written. */
bool like_matches(const like_pattern *pattern, memfs_str text)
{
    size_t part = 0, pos = 0;
    size_t retry_part = 0, retry_pos = 0; /* after the last %, and where its text ends for now */

    for (;;) {
        while (part < pattern->n && pattern->parts[part] == LIKE_ANY_TEXT) {
            retry_part = ++part;
            retry_pos = pos;
        }
        if (part == pattern->n)
            return true;
        if (pos == text.len)
            return false;
        int32_t c = fold(text, &pos);
        if (pattern->parts[part] == LIKE_ANY_CHARACTER || pattern->parts[part] == c) {
            part++;
            continue;
        }
        part = retry_part;
        fold(text, &retry_pos);
        pos = retry_pos;
    }
}
