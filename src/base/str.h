/*
 * str.h - borrowed slices of text, and the checked routines that read them.
 *
 * A memfs_str is a pointer and a length, passed by value; it owns nothing and need not end in NUL.
 */
#ifndef MEMFS_BASE_STR_H
#define MEMFS_BASE_STR_H

#include "base/macros.h"

#include <string.h>

typedef struct memfs_str {
    const char *ptr;
    size_t len;
} memfs_str;

#define MEMFS_STR(literal) ((memfs_str){ (literal), sizeof(literal) - 1 })

static inline memfs_str str_make(const char *ptr, size_t len)
{
    return (memfs_str){ ptr, len };
}

static inline memfs_str str_of(const char *s)
{
    return (memfs_str){ s, s ? strlen(s) : 0 };
}

bool str_equal(memfs_str a, memfs_str b);
int str_compare(memfs_str a, memfs_str b); /* by bytes, as git sorts */
bool str_starts_with(memfs_str s, memfs_str prefix);
bool str_ends_with(memfs_str s, memfs_str suffix);
/* The slice from `from` to the end (empty when from is past it). */
memfs_str str_without_last_newlines(memfs_str s);
memfs_str str_from(memfs_str s, size_t from);
/* Splits at the first c: *head is what is before it, *rest what is after.  False: c is absent. */
bool str_split(memfs_str s, char c, memfs_str *head, memfs_str *rest);

/* Whole slice as a decimal number without sign or blanks, at most max.  False: it is not one. */
bool str_to_u64(memfs_str s, uint64_t max, uint64_t *ret);
/* Writes n in decimal, with a NUL behind it, and returns how many digits it has. */
#define STR_U64_LEN 21
size_t str_put_u64(uint64_t n, char out[STR_U64_LEN]);

/* n bytes as 2n lower-case hex digits and a NUL. */
void str_put_hex(const uint8_t *bytes, size_t n, char *out);
/* The value of one hex digit of either case; -1: it is none. */
int str_hex_digit(char c);

/*
 * UTF-8 as RFC 3629 has it: shortest form, no surrogates, at most U+10FFFF.  str_utf8_valid_prefix
 * returns how many leading bytes are valid; it equals len when all are.
 */
size_t str_utf8_valid_prefix(memfs_str s);
/*
 * Decodes the code point at *pos (must be < s.len) and moves *pos past it.  Returns false, and
 * moves one byte, when the bytes there are not valid.
 */
bool str_utf8_next(memfs_str s, size_t *pos, uint32_t *ret);
/* Writes cp as UTF-8 into out (room for 4) and returns its length; surrogates take 3 bytes. */
size_t str_utf8_put(uint32_t cp, char out[4]);

#endif
