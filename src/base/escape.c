#include "base/escape.h"

#include <stdio.h>

bool escape_is_control(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7F && cp <= 0x9F) || cp == 0x061C || /* Arabic letter mark */
           cp == 0x200E || cp == 0x200F ||                            /* LRM, RLM */
           cp == 0x2028 || cp == 0x2029 ||                            /* separators */
           (cp >= 0x202A && cp <= 0x202E) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xFEFF;
}

static void add_hex(memfs_buf *out, memfs_str bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        buf_printf(out, "\\x%02X", (unsigned char)bytes.ptr[i]);
}

/* Moves *pos over the next character and adds it, as it is or escaped. */
static void add_next(memfs_buf *out, memfs_str text, size_t *pos)
{
    size_t start = *pos;
    uint32_t cp = 0;
    bool is_valid = str_utf8_next(text, pos, &cp);
    memfs_str bytes = str_make(text.ptr + start, *pos - start);

    if (!is_valid || escape_is_control(cp))
        add_hex(out, bytes);
    else if (cp == '\\')
        buf_puts(out, "\\\\");
    else
        buf_add_str(out, bytes);
}

void escape_add(memfs_buf *out, memfs_str text)
{
    size_t pos = 0;

    while (pos < text.len)
        add_next(out, text, &pos);
}

char *escape_text(memfs_str text, char *out, size_t size)
{
    memfs_buf whole = MEMFS_BUF_INIT(size - 1);
    size_t pos = 0, keep = 0;

    while (pos < text.len && !whole.too_big) {
        if (whole.len + 3 < size)
            keep = whole.len; /* the longest cut that leaves room for the dots */
        add_next(&whole, text, &pos);
    }
    if (whole.too_big)
        snprintf(out, size, "%.*s...", (int)keep, whole.ptr);
    else
        snprintf(out, size, "%s", whole.ptr);
    buf_dispose(&whole);
    return out;
}
