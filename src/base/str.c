#include "base/str.h"

bool str_equal(memfs_str a, memfs_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

int str_compare(memfs_str a, memfs_str b)
{
    size_t shorter = a.len < b.len ? a.len : b.len;
    int order = shorter ? memcmp(a.ptr, b.ptr, shorter) : 0;

    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

bool str_starts_with(memfs_str s, memfs_str prefix)
{
    return s.len >= prefix.len && str_equal(str_make(s.ptr, prefix.len), prefix);
}

bool str_ends_with(memfs_str s, memfs_str suffix)
{
    return s.len >= suffix.len &&
           str_equal(str_make(s.ptr + (s.len - suffix.len), suffix.len), suffix);
}

memfs_str str_without_last_newlines(memfs_str s)
{
    while (s.len > 0 && s.ptr[s.len - 1] == '\n')
        s.len--;
    return s;
}

memfs_str str_from(memfs_str s, size_t from)
{
    if (from > s.len)
        from = s.len;
    return str_make(s.ptr + from, s.len - from);
}

bool str_split(memfs_str s, char c, memfs_str *head, memfs_str *rest)
{
    const char *at = s.len ? memchr(s.ptr, c, s.len) : NULL;

    if (at == NULL)
        return false;
    *head = str_make(s.ptr, (size_t)(at - s.ptr));
    *rest = str_from(s, head->len + 1);
    return true;
}

bool str_to_u64(memfs_str s, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        uint64_t digit = (uint64_t)(unsigned char)s.ptr[i] - '0';

        if (digit > 9 || digit > max || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return true;
}

size_t str_put_u64(uint64_t n, char out[STR_U64_LEN])
{
    char digits[STR_U64_LEN], *at = digits + sizeof(digits) - 1;
    size_t len;

    *at = '\0';
    do {
        *--at = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    len = (size_t)(digits + sizeof(digits) - 1 - at);
    memcpy(out, at, len + 1);
    return len;
}

void str_put_hex(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

int str_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* How many bytes the sequence that starts with `lead` has; 0 for a byte that starts none. */
static size_t utf8_length(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF)
        return 3;
    if (lead >= 0xF0 && lead <= 0xF4)
        return 4;
    return 0;
}

bool str_utf8_next(memfs_str s, size_t *pos, uint32_t *ret)
{
    static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *at = (const unsigned char *)s.ptr + *pos;
    size_t n = utf8_length(at[0]);
    uint32_t cp;

    *pos += 1;
    if (n == 0 || n > s.len - (*pos - 1))
        return false;
    cp = n == 1 ? at[0] : at[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xC0) != 0x80)
            return false;
        cp = cp << 6 | (at[i] & 0x3Fu);
    }
    if (cp < smallest[n] || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
        return false;
    *pos += n - 1;
    *ret = cp;
    return true;
}

size_t str_utf8_valid_prefix(memfs_str s)
{
    size_t pos = 0;
    uint32_t cp;

    while (pos < s.len) {
        size_t start = pos;

        if ((unsigned char)s.ptr[pos] < 0x80)
            pos++; /* the common case, kept out of the decoder */
        else if (!str_utf8_next(s, &pos, &cp))
            return start;
    }
    return pos;
}

size_t str_utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}
