#include "base/json.h"

static void before_value(json_writer *w)
{
    if (w->needs_comma)
        buf_putc(w->out, ',');
    w->needs_comma = true;
}

void jw_object(json_writer *w)
{
    before_value(w);
    buf_putc(w->out, '{');
    w->needs_comma = false;
}

void jw_object_end(json_writer *w)
{
    buf_putc(w->out, '}');
    w->needs_comma = true;
}

void jw_array(json_writer *w)
{
    before_value(w);
    buf_putc(w->out, '[');
    w->needs_comma = false;
}

void jw_array_end(json_writer *w)
{
    buf_putc(w->out, ']');
    w->needs_comma = true;
}

/* Bytes that stand for themselves inside quotes.  Above 0x7F they need a look at the sequence. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/*
 * Words of eight bytes: the high bit of each byte says whether that byte is a hit.  A borrow from
 * one byte to the next comes only out of a hit, so it may add a false hit above a true one and
 * never hides one; bytes past 0x7F are hits by their own high bit.
 */
#define EACH_BYTE UINT64_C(0x0101010101010101)
#define IS_BELOW(word, n) ((word) - EACH_BYTE * (uint64_t)(n))
#define IS_EQUAL(word, c) (((word) ^ EACH_BYTE * (uint64_t)(c)) - EACH_BYTE)

static bool has_special(uint64_t word)
{
    uint64_t hits = word | IS_BELOW(word, 0x20) | IS_EQUAL(word, '"') | IS_EQUAL(word, '\\');

    return (hits & EACH_BYTE * 0x80) != 0;
}

/* Where the plain bytes from pos on end.  Texts are long and nearly all plain. */
static size_t plain_end(memfs_str s, size_t pos)
{
    uint64_t word;

    for (; s.len - pos >= sizeof(word); pos += sizeof(word)) {
        memcpy(&word, s.ptr + pos, sizeof(word));
        if (has_special(word))
            break;
    }
    while (pos < s.len && is_plain((unsigned char)s.ptr[pos]))
        pos++;
    return pos;
}

/* The same over whole sequences of UTF-8, so that a text in any script is copied in few pieces. */
static size_t literal_end(memfs_str s, size_t pos)
{
    for (;;) {
        size_t next;
        uint32_t cp;

        pos = plain_end(s, pos);
        next = pos;
        if (pos == s.len || (unsigned char)s.ptr[pos] < 0x80 || !str_utf8_next(s, &next, &cp))
            return pos;
        pos = next;
    }
}

static void put_escaped(memfs_buf *out, unsigned char c)
{
    switch (c) {
    case '"': buf_puts(out, "\\\""); break;
    case '\\': buf_puts(out, "\\\\"); break;
    case '\n': buf_puts(out, "\\n"); break;
    case '\r': buf_puts(out, "\\r"); break;
    case '\t': buf_puts(out, "\\t"); break;
    case '\b': buf_puts(out, "\\b"); break;
    case '\f': buf_puts(out, "\\f"); break;
    default: buf_printf(out, "\\u%04x", c); break;
    }
}

static void put_quoted(memfs_buf *out, memfs_str s)
{
    char *room = buf_reserve(out, s.len + 2); /* at least that much comes: it grows once */
    size_t pos = literal_end(s, 0);

    if (room == NULL)
        return;
    *room = '"';
    if (pos > 0)
        memcpy(room + 1, s.ptr, pos);
    buf_grew(out, 1 + pos);
    while (pos < s.len) {
        size_t start = pos + 1;

        if ((unsigned char)s.ptr[pos] < 0x80)
            put_escaped(out, (unsigned char)s.ptr[pos]);
        else
            buf_puts(out, "\xEF\xBF\xBD");
        pos = literal_end(s, start);
        buf_add(out, s.ptr + start, pos - start);
    }
    buf_putc(out, '"');
}

void jw_key(json_writer *w, const char *key)
{
    before_value(w);
    put_quoted(w->out, str_of(key));
    buf_putc(w->out, ':');
    w->needs_comma = false;
}

void jw_str(json_writer *w, memfs_str s)
{
    before_value(w);
    put_quoted(w->out, s);
}

void jw_text(json_writer *w, const char *s)
{
    if (s == NULL)
        jw_null(w);
    else
        jw_str(w, str_of(s));
}

void jw_int(json_writer *w, int64_t n)
{
    char digits[STR_U64_LEN];
    size_t len = str_put_u64(n < 0 ? 0 - (uint64_t)n : (uint64_t)n, digits);

    before_value(w);
    if (n < 0)
        buf_putc(w->out, '-');
    buf_add(w->out, digits, len);
}

void jw_bool(json_writer *w, bool b)
{
    jw_raw(w, b ? MEMFS_STR("true") : MEMFS_STR("false"));
}

void jw_null(json_writer *w)
{
    jw_raw(w, MEMFS_STR("null"));
}

void jw_raw(json_writer *w, memfs_str json)
{
    before_value(w);
    buf_add_str(w->out, json);
}

void jw_key_str(json_writer *w, const char *key, memfs_str s)
{
    jw_key(w, key);
    jw_str(w, s);
}

void jw_key_text(json_writer *w, const char *key, const char *s)
{
    jw_key(w, key);
    jw_text(w, s);
}

void jw_key_int(json_writer *w, const char *key, int64_t n)
{
    jw_key(w, key);
    jw_int(w, n);
}

void jw_key_bool(json_writer *w, const char *key, bool b)
{
    jw_key(w, key);
    jw_bool(w, b);
}

void jw_key_null(json_writer *w, const char *key)
{
    jw_key(w, key);
    jw_null(w);
}
