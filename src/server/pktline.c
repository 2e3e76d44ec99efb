#include "server/pktline.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* -1: not a length */
static int parse_length(const char *digits)
{
    int length = 0;

    for (int i = 0; i < 4; i++) {
        int digit = str_hex_digit(digits[i]);

        if (digit < 0)
            return -1;
        length = length << 4 | digit;
    }
    return length;
}

pkt_kind pkt_next(memfs_str *in, memfs_str *ret)
{
    static const pkt_kind marks[] = { PKT_FLUSH, PKT_DELIM, PKT_END };
    int length;

    if (in->len < 4)
        return PKT_SHORT;
    length = parse_length(in->ptr);
    if (length < 0 || length == 3 || length > PKT_MAX_BYTES)
        return PKT_BAD;
    if (length < 3) {
        *in = str_from(*in, 4);
        return marks[length];
    }
    if (in->len < (size_t)length)
        return PKT_SHORT;
    *ret = str_make(in->ptr + 4, (size_t)length - 4);
    *in = str_from(*in, (size_t)length);
    return PKT_DATA;
}

memfs_str pkt_chomp(memfs_str payload)
{
    if (payload.len > 0 && payload.ptr[payload.len - 1] == '\n')
        payload.len--;
    return payload;
}

void pkt_write(memfs_buf *out, memfs_str payload)
{
    assert(payload.len <= PKT_MAX_PAYLOAD);
    buf_printf(out, "%04zx", payload.len + 4);
    buf_add_str(out, payload);
}

void pkt_printf(memfs_buf *out, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    assert(n >= 0);
    if ((size_t)n >= sizeof(text))
        n = sizeof(text) - 1;
    pkt_write(out, str_make(text, (size_t)n));
}

void pkt_flush(memfs_buf *out)
{
    buf_puts(out, "0000");
}

void pkt_band(memfs_buf *out, int band, memfs_str bytes)
{
    while (bytes.len > 0) {
        size_t n = bytes.len < PKT_MAX_PAYLOAD - 1 ? bytes.len : PKT_MAX_PAYLOAD - 1;

        buf_printf(out, "%04zx%c", n + 5, band);
        buf_add(out, bytes.ptr, n);
        bytes = str_from(bytes, n);
    }
}
