/*
 * The three ways to write a scalar.  All fold line breaks alike: one '\n' becomes a space, k + 1 of
 * them become k, and U+2028 and U+2029 stay as they are.
 */
#include "memory/yaml_int.h"

static void put_cp(memfs_buf *b, uint32_t cp)
{
    char bytes[4];

    buf_add(b, bytes, str_utf8_put(cp, bytes));
}

static bool is_blank(uint32_t c)
{
    return c == ' ' || c == '\t';
}

/* What a break and the empty lines after it (`breaks`) come to. */
static void put_folded(memfs_buf *out, uint32_t first, const memfs_buf *breaks)
{
    if (first != '\n')
        put_cp(out, first);
    else if (breaks->len == 0)
        buf_putc(out, ' ');
    buf_add_str(out, buf_str(breaks));
}

/* ---- plain ---- */

/* How many characters from here on belong to a plain scalar, up to a blank. */
static size_t plain_length(const yaml_scanner *s)
{
    bool is_flow = s->flow_level > 0;
    size_t n = 0;

    for (;; n++) {
        uint32_t c = yaml_at(s, n), next;

        if (yaml_is_blankz(c))
            return n;
        if (is_flow && (c == ',' || c == '?' || c == '[' || c == ']' || c == '{' || c == '}'))
            return n;
        if (c != ':')
            continue;
        next = yaml_at(s, n + 1);
        if (yaml_is_blankz(next) ||
            (is_flow && (next == ',' || next == '[' || next == ']' || next == '{' || next == '}')))
            return n;
    }
}

/* Blank lines after the first break of a plain scalar.  False: a document separator ends it. */
static bool plain_breaks(yaml_scanner *s, memfs_buf *breaks)
{
    if (yaml_at_separator(s))
        return false;
    while (yaml_at(s, 0) == ' ' || yaml_is_break(yaml_at(s, 0))) {
        if (yaml_at(s, 0) == ' ') {
            yaml_forward(s, 1);
            continue;
        }
        put_cp(breaks, yaml_scan_break(s));
        if (yaml_at_separator(s))
            return false;
    }
    return true;
}

/* Passes blanks and breaks; `spaces` gets what they come to should the scalar go on, else nothing.
 */
static void plain_spaces(yaml_scanner *s, memfs_buf *spaces, memfs_buf *breaks)
{
    size_t n = 0;

    buf_clear(spaces);
    buf_clear(breaks);
    while (yaml_at(s, n) == ' ')
        n++;
    yaml_forward(s, n);
    if (yaml_is_break(yaml_at(s, 0))) {
        uint32_t first = yaml_scan_break(s);

        s->allow_simple_key = true;
        if (plain_breaks(s, breaks))
            put_folded(spaces, first, breaks);
        return;
    }
    for (; n > 0; n--)
        buf_putc(spaces, ' ');
}

bool yaml_scan_plain(yaml_scanner *s, memfs_str *ret)
{
    _cleanup_(buf_dispose) memfs_buf spaces = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf breaks = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    int64_t indent = s->indent + 1;

    while (yaml_at(s, 0) != '#') {
        size_t n = plain_length(s);

        if (n == 0)
            break;
        s->allow_simple_key = false;
        buf_add_str(&s->scratch, buf_str(&spaces));
        yaml_put_next(s, n);
        plain_spaces(s, &spaces, &breaks);
        if (spaces.len == 0 || (s->flow_level == 0 && s->column < indent))
            break;
    }
    *ret = yaml_take_scratch(s);
    return true;
}

/* ---- quoted ---- */

/* The character that `\c` stands for; UINT32_MAX when it is none of the short ones. */
static uint32_t short_escape(uint32_t c)
{
    switch (c) {
    case '0': return 0;
    case 'a': return 0x07;
    case 'b': return 0x08;
    case 't':
    case '\t': return 0x09;
    case 'n': return 0x0A;
    case 'v': return 0x0B;
    case 'f': return 0x0C;
    case 'r': return 0x0D;
    case 'e': return 0x1B;
    case ' ':
    case '"':
    case '\\':
    case '/': return c;
    case 'N': return 0x85;
    case '_': return 0xA0;
    case 'L': return 0x2028;
    case 'P': return 0x2029;
    default: return UINT32_MAX;
    }
}

static int hex_digit(uint32_t c)
{
    if (c >= '0' && c <= '9')
        return (int)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (int)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (int)(c - 'A') + 10;
    return -1;
}

/* Surrogates are kept as they are written; two halves are not joined. */
static bool put_hex_escape(yaml_scanner *s, size_t n_digits)
{
    uint32_t cp = 0;

    yaml_forward(s, 1);
    for (size_t i = 0; i < n_digits; i++) {
        int digit = hex_digit(yaml_at(s, i));

        if (digit < 0)
            return yaml_scan_fail(s, "a broken escape of a character");
        cp = cp << 4 | (uint32_t)digit;
    }
    if (cp > 0x10FFFF)
        return yaml_fault_set(s->fault, MEMFS_EINVALID, true, s->line + 1,
                              "an escape beyond U+10FFFF");
    yaml_put(s, cp);
    yaml_forward(s, n_digits);
    return true;
}

static bool quoted_breaks(yaml_scanner *s, memfs_buf *breaks)
{
    for (;;) {
        if (yaml_at_separator(s))
            return yaml_scan_fail(s, "a document separator inside quotes");
        while (is_blank(yaml_at(s, 0)))
            yaml_forward(s, 1);
        if (!yaml_is_break(yaml_at(s, 0)))
            return true;
        put_cp(breaks, yaml_scan_break(s));
    }
}

static bool put_escape(yaml_scanner *s)
{
    uint32_t c, plain;

    yaml_forward(s, 1);
    c = yaml_at(s, 0);
    if (yaml_is_break(c)) {
        yaml_scan_break(s);
        return quoted_breaks(s, &s->scratch);
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return put_hex_escape(s, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    plain = short_escape(c);
    if (plain == UINT32_MAX)
        return yaml_scan_fail(s, "an unknown escape");
    yaml_put(s, plain);
    yaml_forward(s, 1);
    return true;
}

/* Up to a blank, a break, the end or the closing quote. */
static bool quoted_text(yaml_scanner *s, bool is_double)
{
    for (;;) {
        uint32_t c = yaml_at(s, 0);

        if (yaml_is_blankz(c))
            return true;
        if (!is_double && c == '\'' && yaml_at(s, 1) == '\'') {
            buf_putc(&s->scratch, '\'');
            yaml_forward(s, 2);
        } else if (c == (is_double ? '"' : '\'')) {
            return true;
        } else if (is_double && c == '\\') {
            if (!put_escape(s))
                return false;
        } else {
            yaml_put_next(s, 1);
        }
    }
}

static bool quoted_spaces(yaml_scanner *s, memfs_buf *breaks)
{
    size_t n = 0;
    uint32_t first;

    while (is_blank(yaml_at(s, n)))
        n++;
    if (yaml_at(s, n) == 0)
        return yaml_scan_fail(s, "a quote that is not closed");
    if (!yaml_is_break(yaml_at(s, n))) {
        yaml_put_next(s, n);
        return true;
    }
    yaml_forward(s, n);
    first = yaml_scan_break(s);
    buf_clear(breaks);
    if (!quoted_breaks(s, breaks))
        return false;
    put_folded(&s->scratch, first, breaks);
    return true;
}

bool yaml_scan_quoted(yaml_scanner *s, bool is_double, memfs_str *ret)
{
    _cleanup_(buf_dispose) memfs_buf breaks = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    uint32_t quote = is_double ? '"' : '\'';

    yaml_forward(s, 1);
    if (!quoted_text(s, is_double))
        return false;
    while (yaml_at(s, 0) != quote)
        if (!quoted_spaces(s, &breaks) || !quoted_text(s, is_double))
            return false;
    yaml_forward(s, 1);
    *ret = yaml_take_scratch(s);
    return true;
}

/* ---- block ---- */

typedef struct block_header {
    char chomping; /* '+', '-', 0 */
    int increment; /* 0: find it */
} block_header;

static bool block_increment(yaml_scanner *s, block_header *h)
{
    uint32_t c = yaml_at(s, 0);

    if (c < '0' || c > '9')
        return true;
    if (c == '0')
        return yaml_scan_fail(s, "an indentation indicator of 0");
    h->increment = (int)(c - '0');
    yaml_forward(s, 1);
    return true;
}

static bool block_chomping(yaml_scanner *s, block_header *h)
{
    uint32_t c = yaml_at(s, 0);

    if (c != '+' && c != '-')
        return false;
    h->chomping = (char)c;
    yaml_forward(s, 1);
    return true;
}

static bool block_indicators(yaml_scanner *s, block_header *h)
{
    bool is_good;

    yaml_forward(s, 1);
    is_good = block_chomping(s, h);
    if (!block_increment(s, h))
        return false;
    if (!is_good && h->increment > 0)
        block_chomping(s, h);
    if (yaml_at(s, 0) != ' ' && !yaml_is_breakz(yaml_at(s, 0)))
        return yaml_scan_fail(s, "expected the end of the line after '|' or '>'");
    return yaml_scan_rest_of_line(s, "expected the end of the line after '|' or '>'");
}

/* Passes the empty lines before the text; returns the widest run of spaces met. */
static int64_t block_first_indent(yaml_scanner *s, memfs_buf *breaks)
{
    int64_t widest = 0;

    while (yaml_at(s, 0) == ' ' || yaml_is_break(yaml_at(s, 0))) {
        if (yaml_at(s, 0) != ' ') {
            put_cp(breaks, yaml_scan_break(s));
            continue;
        }
        yaml_forward(s, 1);
        if (s->column > widest)
            widest = s->column;
    }
    return widest;
}

static void block_breaks(yaml_scanner *s, int64_t indent, memfs_buf *breaks)
{
    for (;;) {
        while (s->column < indent && yaml_at(s, 0) == ' ')
            yaml_forward(s, 1);
        if (!yaml_is_break(yaml_at(s, 0)))
            return;
        put_cp(breaks, yaml_scan_break(s));
    }
}

static void block_line(yaml_scanner *s)
{
    size_t n = 0;

    while (!yaml_is_breakz(yaml_at(s, n)))
        n++;
    yaml_put_next(s, n);
}

/* The lines; returns the break after the last one, 0 when the text ends there. */
static uint32_t block_lines(yaml_scanner *s, bool is_folded, int64_t indent, memfs_buf *breaks)
{
    uint32_t line_break = 0;

    while (s->column == indent && yaml_at(s, 0) != 0) {
        bool starts_blank = is_blank(yaml_at(s, 0));

        buf_add_str(&s->scratch, buf_str(breaks));
        buf_clear(breaks);
        block_line(s);
        line_break = yaml_scan_break(s);
        block_breaks(s, indent, breaks);
        if (s->column != indent || yaml_at(s, 0) == 0)
            break;
        if (!is_folded || line_break != '\n' || starts_blank || is_blank(yaml_at(s, 0)))
            yaml_put(s, line_break);
        else if (breaks->len == 0)
            buf_putc(&s->scratch, ' ');
    }
    return line_break;
}

bool yaml_scan_block(yaml_scanner *s, bool is_folded, memfs_str *ret)
{
    _cleanup_(buf_dispose) memfs_buf breaks = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    int64_t indent = s->indent + 1 < 1 ? 1 : s->indent + 1;
    block_header h = { 0, 0 };
    uint32_t line_break;

    if (!block_indicators(s, &h))
        return false;
    if (h.increment == 0) {
        int64_t found = block_first_indent(s, &breaks);

        indent = found > indent ? found : indent;
    } else {
        indent += h.increment - 1;
        block_breaks(s, indent, &breaks);
    }
    line_break = block_lines(s, is_folded, indent, &breaks);
    if (h.chomping != '-' && line_break != 0)
        yaml_put(s, line_break);
    if (h.chomping == '+')
        buf_add_str(&s->scratch, buf_str(&breaks));
    *ret = yaml_take_scratch(s);
    return true;
}
