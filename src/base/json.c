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
    size_t pos = 0;

    buf_putc(out, '"');
    while (pos < s.len) {
        size_t start = pos;
        uint32_t cp;

        while (pos < s.len && is_plain((unsigned char)s.ptr[pos]))
            pos++;
        buf_add(out, s.ptr + start, pos - start);
        if (pos == s.len)
            break;
        start = pos;
        if ((unsigned char)s.ptr[pos] < 0x80)
            put_escaped(out, (unsigned char)s.ptr[pos++]);
        else if (str_utf8_next(s, &pos, &cp))
            buf_add(out, s.ptr + start, pos - start);
        else
            buf_puts(out, "\xEF\xBF\xBD");
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
    before_value(w);
    buf_printf(w->out, "%lld", (long long)n);
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
