/*
 * Bytes are counted as node's UTF-8 decoder leaves them: a byte that is not valid becomes U+FFFD, and so
 * does, once, a sequence that begins well and breaks off.
 */
#include "memory/tokens.h"

#define REPLACEMENT_BYTES 3

static bool is_between(const memfs_str *s, size_t at, unsigned low, unsigned high)
{
    return at < s->len && (unsigned char)s->ptr[at] >= low && (unsigned char)s->ptr[at] <= high;
}

/* How many bytes from `at` on, where no valid sequence begins, become one U+FFFD. */
static size_t broken_length(memfs_str s, size_t at)
{
    unsigned char lead = (unsigned char)s.ptr[at];
    unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;

    if (lead < 0xE0 || lead > 0xF4 || !is_between(&s, at + 1, low, high))
        return 1;
    return lead >= 0xF0 && is_between(&s, at + 2, 0x80, 0xBF) ? 3 : 2;
}

uint64_t tokens_of(memfs_str text)
{
    uint64_t bytes = 0;

    while (text.len > 0) {
        size_t valid = str_utf8_valid_prefix(text);

        bytes += valid;
        text = str_from(text, valid);
        if (text.len == 0)
            break;
        bytes += REPLACEMENT_BYTES;
        text = str_from(text, broken_length(text, 0));
    }
    return (bytes + 3) / 4;
}
