/*
 * Bytes are counted as node's UTF-8 decoder leaves them: a byte that is not valid becomes U+FFFD,
 * and so does, once, a sequence that begins well and breaks off.
 */
#include "memory/tokens.h"

#define REPLACEMENT_BYTES 3

static bool is_between(memfs_str s, size_t at, unsigned low, unsigned high)
{
    return at < s.len && (unsigned char)s.ptr[at] >= low && (unsigned char)s.ptr[at] <= high;
}

/* How many bytes at the start of s, where no valid sequence is, become one U+FFFD. */
static size_t broken_length(memfs_str s)
{
    unsigned char lead = (unsigned char)s.ptr[0];
    unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;

    if (lead < 0xE0 || lead > 0xF4 || !is_between(s, 1, low, high))
        return 1;
    return lead >= 0xF0 && is_between(s, 2, 0x80, 0xBF) ? 3 : 2;
}

/* Takes valid bytes off the text, and what becomes one U+FFFD behind them; false at the end. */
static bool next_stretch(memfs_str *text, memfs_str *ret_valid, bool *ret_is_replaced)
{
    if (text->len == 0)
        return false;
    *ret_valid = str_make(text->ptr, str_utf8_valid_prefix(*text));
    *text = str_from(*text, ret_valid->len);
    *ret_is_replaced = text->len > 0;
    if (*ret_is_replaced)
        *text = str_from(*text, broken_length(*text));
    return true;
}

uint64_t tokens_of(memfs_str text)
{
    uint64_t bytes = 0;
    bool is_replaced;
    memfs_str valid;

    while (next_stretch(&text, &valid, &is_replaced))
        bytes += valid.len + (is_replaced ? REPLACEMENT_BYTES : 0);
    return (bytes + 3) / 4;
}

uint64_t chars_of(memfs_str text)
{
    uint64_t n = 0;
    bool is_replaced;
    memfs_str valid;

    while (next_stretch(&text, &valid, &is_replaced)) {
        for (size_t i = 0; i < valid.len; i++)
            n += ((unsigned char)valid.ptr[i] & 0xC0) != 0x80;
        n += is_replaced;
    }
    return n;
}
