#include "memory/base64.h"

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_read(memfs_str s, memfs_buf *out)
{
    unsigned held = 0, n_digits = 0, n_pads = 0;

    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return false;
    for (size_t i = 0; i < s.len; i++) {
        int digit = digit_of(s.ptr[i]);

        if (s.ptr[i] == '=' && n_digits >= 2 && n_digits + ++n_pads >= 4)
            return true;
        if (digit < 0)
            continue;
        n_pads = 0;
        held = held << 6 | (unsigned)digit;
        if (n_digits > 0)
            buf_putc(out, (char)(held >> (6 - 2 * n_digits)));
        n_digits = (n_digits + 1) % 4;
    }
    return n_digits == 0;
}

static void put_group(memfs_str s, size_t at, memfs_buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = (const unsigned char *)s.ptr + at;
    size_t n = s.len - at < 3 ? s.len - at : 3;
    unsigned bits = (unsigned)b[0] << 16;

    if (n > 1)
        bits |= (unsigned)b[1] << 8;
    if (n > 2)
        bits |= b[2];
    for (size_t i = 0; i < 4; i++)
        buf_putc(out, i <= n ? digits[bits >> (18 - 6 * i) & 63] : '=');
}

void base64_write(memfs_str bytes, memfs_buf *out)
{
    for (size_t at = 0; at < bytes.len; at += 3)
        put_group(bytes, at, out);
}

void base64_write_lines(memfs_str bytes, memfs_buf *out)
{
    const size_t bytes_a_line = 57;

    for (size_t at = 0; at < bytes.len; at += bytes_a_line) {
        size_t n = bytes.len - at < bytes_a_line ? bytes.len - at : bytes_a_line;

        base64_write(str_make(bytes.ptr + at, n), out);
        buf_putc(out, '\n');
    }
}
