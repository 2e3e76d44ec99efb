/*
 * From a mapping to YAML text, byte for byte as PyYAML's dump writes it (block-format 4): block
 * style, insertion order, width 80, non-ASCII text left as it is where the style allows.
 *
 * Where white space goes is decided by two flags about the current line, as in PyYAML's emitter:
 *
 *   is_white       the last thing written ends in white space, so an indicator needs none before it
 *   is_indention   nothing but indentation and "- " or "? " stands on the line, so a nested
 *                  collection may begin on it
 *
 * A collection or a date that is met twice (one value, two places) gets an anchor; a first walk
 * over the values finds them, and numbers them in the order in which the second meeting happens.
 *
 * Cost: linear in the output, but for the depth: indentation makes it depth times lines.
 */
#include "memory/yaml_int.h"

#include "base/mem.h"
#include "memory/base64.h"

#include <stdio.h>
#include <stdlib.h>

#define WIDTH 80
#define INDENT 2
#define MAX_SIMPLE_KEY 128

typedef struct seen {
    const yaml_value *value;
    uint32_t anchor; /* 0: none */
    bool is_written;
} seen;

typedef struct emitter {
    memfs_buf *out;
    int64_t column;
    int64_t indent; /* -1: none yet */
    bool is_white;
    bool is_indention;
    bool is_too_deep;
    int depth;

    seen *seen;
    size_t n_seen, cap_seen;
    yaml_index index;
    uint32_t n_anchors;

    uint32_t *cps; /* the scalar in hand */
    size_t n_cps, cap_cps;
} emitter;

/* ---- anchors ---- */

static uint64_t hash_pointer(const void *p)
{
    return yaml_hash_mix((uint64_t)(uintptr_t)p);
}

typedef struct pointer_search {
    const emitter *e;
    const yaml_value *value;
} pointer_search;

static bool is_same_pointer(const void *ctx, uint32_t number)
{
    const pointer_search *search = ctx;

    return search->e->seen[number].value == search->value;
}

static seen *find_seen(emitter *e, const yaml_value *v)
{
    pointer_search search = { e, v };
    uint32_t at = yaml_index_find(&e->index, hash_pointer(v), is_same_pointer, &search);

    return at == UINT32_MAX ? NULL : &e->seen[at];
}

/* Text, bytes and numbers are written out wherever they are; so is an empty tuple. */
static bool can_have_anchor(const yaml_value *v)
{
    if (v->type == YAML_TUPLE)
        return v->list.n > 0;
    return v->type == YAML_DATE || v->type == YAML_DATETIME || yaml_is_container(v);
}

static bool note_meeting(emitter *e, const yaml_value *v)
{
    seen *known = find_seen(e, v);

    if (known != NULL) {
        if (known->anchor == 0)
            known->anchor = ++e->n_anchors;
        return false;
    }
    if (e->n_seen == e->cap_seen) {
        e->cap_seen = e->cap_seen ? e->cap_seen * 2 : 16;
        e->seen = mem_realloc(e->seen, e->cap_seen, sizeof(*e->seen));
    }
    e->seen[e->n_seen++] = (seen){ .value = v };
    yaml_index_add(&e->index, hash_pointer(v));
    return true;
}

static void find_anchors(emitter *e, const yaml_value *v, int depth)
{
    if (!can_have_anchor(v) || !note_meeting(e, v) || !yaml_is_container(v))
        return;
    if (depth >= YAML_MAX_WALK_DEPTH) {
        e->is_too_deep = true;
        return;
    }
    if (v->type == YAML_MAP) {
        for (size_t i = 0; i < v->map.n; i++) {
            find_anchors(e, v->map.pairs[i].key, depth + 1);
            find_anchors(e, v->map.pairs[i].value, depth + 1);
        }
        return;
    }
    for (size_t i = 0; i < v->list.n; i++)
        find_anchors(e, v->list.items[i], depth + 1);
}

/* ---- the line ---- */

static void put_break(emitter *e, uint32_t cp)
{
    char bytes[4];

    buf_add(e->out, bytes, str_utf8_put(cp, bytes));
    e->is_white = true;
    e->is_indention = true;
    e->column = 0;
}

static void put_indent(emitter *e)
{
    int64_t indent = e->indent < 0 ? 0 : e->indent;

    if (!e->is_indention || e->column > indent || (e->column == indent && !e->is_white))
        put_break(e, '\n');
    if (e->column >= indent)
        return;
    e->is_white = true;
    for (; e->column < indent; e->column++)
        buf_putc(e->out, ' ');
}

typedef enum indicator_flags { NEEDS_WHITE = 1, KEEPS_INDENTION = 2 } indicator_flags;

static void put_indicator(emitter *e, const char *text, unsigned flags)
{
    if ((flags & NEEDS_WHITE) != 0 && !e->is_white) {
        buf_putc(e->out, ' ');
        e->column++;
    }
    buf_puts(e->out, text);
    e->column += (int64_t)strlen(text);
    e->is_white = false;
    e->is_indention = e->is_indention && (flags & KEEPS_INDENTION) != 0;
}

static void put_cps(emitter *e, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        char bytes[4];

        buf_add(e->out, bytes, str_utf8_put(e->cps[i], bytes));
    }
    e->column += (int64_t)(to - from);
}

/* ---- which style ---- */

/* What ends a line in the sense of the writer: CR is an ordinary special character here. */
static bool is_line_break(uint32_t c)
{
    return c == '\n' || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static bool is_special(uint32_t c)
{
    return !(c == '\n' || (c >= 0x20 && c <= 0x7E) || c == 0x85 || (c >= 0xA0 && c <= 0xD7FF) ||
             (c >= 0xE000 && c <= 0xFFFD) || (c >= 0x10000 && c < 0x10FFFF)) ||
           c == 0xFEFF;
}

typedef enum style { PLAIN, SINGLE_QUOTED, DOUBLE_QUOTED } style;

static void load_cps(emitter *e, memfs_str text)
{
    size_t pos = 0;

    e->n_cps = 0;
    if (e->cap_cps < text.len + 1) {
        e->cap_cps = text.len + 1;
        e->cps = mem_realloc(e->cps, e->cap_cps, sizeof(*e->cps));
    }
    while (pos < text.len)
        e->cps[e->n_cps++] = yaml_next_cp(text, &pos);
}

static bool is_blank_after(const emitter *e, size_t i)
{
    return i + 1 >= e->n_cps || yaml_is_blankz(e->cps[i + 1]);
}

static bool is_mark(const emitter *e, char c)
{
    return e->n_cps >= 3 && e->cps[0] == (uint32_t)c && e->cps[1] == (uint32_t)c &&
           e->cps[2] == (uint32_t)c;
}

/* Would a reader in block context take a part of the text for something else? */
static bool has_indicator(const emitter *e)
{
    uint32_t first = e->n_cps > 0 ? e->cps[0] : 0;

    if (is_mark(e, '-') || is_mark(e, '.'))
        return true;
    if (first > 0 && first < 0x80 && strchr("#,[]{}&*!|>'\"%@`", (int)first) != NULL)
        return true;
    if ((first == '?' || first == ':' || first == '-') && is_blank_after(e, 0))
        return true;
    for (size_t i = 1; i < e->n_cps; i++) {
        if (e->cps[i] == ':' && is_blank_after(e, i))
            return true;
        if (e->cps[i] == '#' && yaml_is_blankz(e->cps[i - 1]))
            return true;
    }
    return false;
}

static bool needs_double_quotes(const emitter *e)
{
    for (size_t i = 0; i < e->n_cps; i++) {
        uint32_t next = i + 1 < e->n_cps ? e->cps[i + 1] : 'x';

        if (is_special(e->cps[i]) || (e->cps[i] == ' ' && is_line_break(next)) ||
            (is_line_break(e->cps[i]) && next == ' '))
            return true;
    }
    return false;
}

static bool has_line_break(const emitter *e)
{
    for (size_t i = 0; i < e->n_cps; i++)
        if (is_line_break(e->cps[i]))
            return true;
    return false;
}

static style style_of_text(const emitter *e, memfs_str text)
{
    if (needs_double_quotes(e))
        return DOUBLE_QUOTED;
    if (e->n_cps == 0 || yaml_resolve(text) != TAG_STR || has_indicator(e) || has_line_break(e) ||
        e->cps[0] == ' ' || e->cps[e->n_cps - 1] == ' ')
        return SINGLE_QUOTED;
    return PLAIN;
}

/* ---- writing a scalar; folds are made only where `may_fold` ---- */

static size_t run_of(const emitter *e, size_t from, bool (*is_in)(uint32_t))
{
    size_t to = from;

    while (to < e->n_cps && is_in(e->cps[to]))
        to++;
    return to;
}

static bool is_space(uint32_t c)
{
    return c == ' ';
}

static bool is_word(uint32_t c)
{
    return c != ' ' && c != '\'' && !is_line_break(c);
}

static void put_plain(emitter *e, bool may_fold)
{
    size_t at = 0;

    if (!e->is_white) {
        buf_putc(e->out, ' ');
        e->column++;
    }
    while (at < e->n_cps) {
        size_t to = at;

        while (to < e->n_cps && e->cps[to] != ' ')
            to++;
        put_cps(e, at, to);
        e->is_white = e->is_indention = false;
        at = to;
        to = run_of(e, at, is_space);
        if (to == at + 1 && e->column > WIDTH && may_fold)
            put_indent(e);
        else
            put_cps(e, at, to);
        at = to;
    }
    e->is_white = e->is_indention = false;
}

static void put_breaks(emitter *e, size_t from, size_t to)
{
    if (e->cps[from] == '\n')
        put_break(e, '\n');
    for (size_t i = from; i < to; i++)
        put_break(e, e->cps[i]);
    put_indent(e);
}

static void put_single_quoted(emitter *e, bool may_fold)
{
    size_t at = 0;

    put_indicator(e, "'", NEEDS_WHITE);
    while (at < e->n_cps) {
        size_t from = at;

        if (is_line_break(e->cps[at])) {
            at = run_of(e, at, is_line_break);
            put_breaks(e, from, at);
        } else if (e->cps[at] == ' ') {
            at = run_of(e, at, is_space);
            if (at == from + 1 && e->column > WIDTH && may_fold && from > 0 && at < e->n_cps)
                put_indent(e);
            else
                put_cps(e, from, at);
        } else if (e->cps[at] == '\'') {
            buf_puts(e->out, "''");
            e->column += 2;
            at++;
        } else {
            at = run_of(e, at, is_word);
            put_cps(e, from, at);
        }
    }
    put_indicator(e, "'", 0);
}

static char short_escape(uint32_t c)
{
    switch (c) {
    case 0x00: return '0';
    case 0x07: return 'a';
    case 0x08: return 'b';
    case 0x09: return 't';
    case 0x0A: return 'n';
    case 0x0B: return 'v';
    case 0x0C: return 'f';
    case 0x0D: return 'r';
    case 0x1B: return 'e';
    case '"': return '"';
    case '\\': return '\\';
    case 0x85: return 'N';
    case 0xA0: return '_';
    case 0x2028: return 'L';
    case 0x2029: return 'P';
    default: return 0;
    }
}

static bool needs_escape(uint32_t c)
{
    return c == '"' || c == '\\' || c == 0x85 || c == 0x2028 || c == 0x2029 || c == 0xFEFF ||
           !((c >= 0x20 && c <= 0x7E) || (c >= 0xA0 && c <= 0xD7FF) ||
             (c >= 0xE000 && c <= 0xFFFD));
}

static void put_escape(emitter *e, uint32_t c)
{
    size_t before = e->out->len;

    if (short_escape(c) != 0)
        buf_printf(e->out, "\\%c", short_escape(c));
    else if (c <= 0xFF)
        buf_printf(e->out, "\\x%02X", c);
    else if (c <= 0xFFFF)
        buf_printf(e->out, "\\u%04X", c);
    else
        buf_printf(e->out, "\\U%08X", c);
    e->column += (int64_t)(e->out->len - before);
}

static void fold_double_quoted(emitter *e, size_t *pending, size_t at)
{
    put_cps(e, *pending, at);
    if (*pending < at)
        *pending = at;
    buf_putc(e->out, '\\');
    e->column++;
    put_indent(e);
    e->is_white = e->is_indention = false;
    if (e->cps[*pending] == ' ') {
        buf_putc(e->out, '\\');
        e->column++;
    }
}

/* [pending, at) is literal text that is not written yet; after an escape, pending is at + 1. */
static void put_double_quoted(emitter *e, bool may_fold)
{
    size_t pending = 0, n = e->n_cps;

    put_indicator(e, "\"", NEEDS_WHITE);
    for (size_t at = 0; at < n; at++) {
        uint32_t c = e->cps[at];
        int64_t width;

        if (needs_escape(c)) {
            put_cps(e, pending, at);
            put_escape(e, c);
            pending = at + 1;
        }
        width = e->column + (int64_t)at - (int64_t)pending;
        if (at > 0 && at + 1 < n && (c == ' ' || pending >= at) && width > WIDTH && may_fold)
            fold_double_quoted(e, &pending, at);
    }
    put_cps(e, pending, n);
    put_indicator(e, "\"", 0);
}

/* ---- nodes ---- */

static void put_text(emitter *e, memfs_str text, bool is_key)
{
    load_cps(e, text);
    switch (style_of_text(e, text)) {
    case PLAIN: put_plain(e, !is_key); break;
    case SINGLE_QUOTED: put_single_quoted(e, !is_key); break;
    case DOUBLE_QUOTED: put_double_quoted(e, !is_key); break;
    }
}

/* base64 as a literal block, or as quotes when there is nothing. */
static void put_bytes(emitter *e, memfs_str bytes)
{
    _cleanup_(buf_dispose) memfs_buf base64 = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str rest, line;

    put_indicator(e, "!!binary", NEEDS_WHITE);
    if (bytes.len == 0) {
        put_indicator(e, "\"\"", NEEDS_WHITE);
        return;
    }
    base64_write_lines(bytes, &base64);
    put_indicator(e, "|", NEEDS_WHITE);
    put_break(e, '\n');
    for (rest = buf_str(&base64); str_split(rest, '\n', &line, &rest);) {
        put_indent(e);
        buf_add_str(e->out, line);
        put_break(e, '\n');
    }
}

#define TYPED_LEN (YAML_REAL_LEN + YAML_TIME_LEN)

/* "1.0e+16", ".inf": a real that YAML's own form for reals matches. */
static void real_text(double d, char out[TYPED_LEN])
{
    char repr[YAML_REAL_LEN];
    const char *exponent;

    yaml_real_text(d, repr);
    exponent = strchr(repr, 'e');
    if (strcmp(repr, "nan") == 0 || strcmp(repr, "inf") == 0)
        snprintf(out, TYPED_LEN, ".%s", repr);
    else if (strcmp(repr, "-inf") == 0)
        snprintf(out, TYPED_LEN, "-.inf");
    else if (exponent != NULL && strchr(repr, '.') == NULL)
        snprintf(out, TYPED_LEN, "%.*s.0%s", (int)(exponent - repr), repr, exponent);
    else
        snprintf(out, TYPED_LEN, "%s", repr);
}

/* null, booleans, numbers and dates: always plain */
static void put_typed(emitter *e, const yaml_value *v, bool is_key)
{
    char text[TYPED_LEN] = "";
    memfs_str shown = str_make(NULL, 0);

    switch (v->type) {
    case YAML_NULL: shown = MEMFS_STR("null"); break;
    case YAML_BOOL: shown = v->boolean ? MEMFS_STR("true") : MEMFS_STR("false"); break;
    case YAML_INT: snprintf(text, sizeof(text), "%lld", (long long)v->integer); break;
    case YAML_BIGINT: shown = v->text; break;
    case YAML_FLOAT: real_text(v->real, text); break;
    default: yaml_time_text(v, ' ', text); break;
    }
    load_cps(e, shown.len > 0 ? shown : str_of(text));
    put_plain(e, !is_key);
}

static size_t members(const yaml_value *v)
{
    return v->type == YAML_MAP ? v->map.n : v->list.n;
}

static size_t count_cps(memfs_str text)
{
    size_t n = 0, pos = 0;

    for (; pos < text.len; n++)
        yaml_next_cp(text, &pos);
    return n;
}

/* "!!str" and the like, which counts towards the length of a key though it is not written. */
static size_t tag_length(const yaml_value *v)
{
    switch (v->type) {
    case YAML_TEXT:
    case YAML_INT:
    case YAML_BIGINT:
    case YAML_SEQ:
    case YAML_MAP:
    case YAML_SET: return strlen("!!str");
    case YAML_NULL:
    case YAML_BOOL: return strlen("!!null");
    case YAML_FLOAT: return strlen("!!float");
    case YAML_BYTES: return strlen("!!binary");
    case YAML_DATE:
    case YAML_DATETIME: return strlen("!!timestamp");
    case YAML_TUPLE: return strlen("!!python/tuple");
    }
    return 0;
}

/* Can the key stand before a ':' on its line, or does it need "? "? */
static bool is_simple_key(emitter *e, const yaml_value *key)
{
    const seen *known = can_have_anchor(key) ? find_seen(e, key) : NULL;
    size_t length = known != NULL && known->anchor > 0 ? strlen("id001") : 0;

    if (length > 0 && known->is_written)
        return true;
    length += tag_length(key);
    switch (key->type) {
    case YAML_TEXT:
        load_cps(e, key->text);
        return e->n_cps > 0 && !has_line_break(e) && length + e->n_cps < MAX_SIMPLE_KEY;
    case YAML_BIGINT: return length + count_cps(key->text) < MAX_SIMPLE_KEY;
    case YAML_BYTES: return false;
    case YAML_SEQ:
    case YAML_TUPLE:
    case YAML_SET:
    case YAML_MAP: return members(key) == 0;
    default: return true;
    }
}

typedef enum place { IN_LIST, AS_KEY, AS_SIMPLE_KEY, AS_VALUE } place;

static void put_node(emitter *e, const yaml_value *v, place where);

static void put_list(emitter *e, const yaml_value *v)
{
    for (size_t i = 0; i < v->list.n; i++) {
        put_indent(e);
        put_indicator(e, "-", NEEDS_WHITE | KEEPS_INDENTION);
        put_node(e, v->list.items[i], IN_LIST);
    }
}

static void put_pair(emitter *e, const yaml_value *key, const yaml_value *value)
{
    put_indent(e);
    if (is_simple_key(e, key)) {
        put_node(e, key, AS_SIMPLE_KEY);
        put_indicator(e, ":", 0);
    } else {
        put_indicator(e, "?", NEEDS_WHITE | KEEPS_INDENTION);
        put_node(e, key, AS_KEY);
        put_indent(e);
        put_indicator(e, ":", NEEDS_WHITE | KEEPS_INDENTION);
    }
    put_node(e, value, AS_VALUE);
}

static void put_map(emitter *e, const yaml_value *v)
{
    static const yaml_value null = { .type = YAML_NULL };

    if (v->type == YAML_SET) {
        for (size_t i = 0; i < v->list.n; i++)
            put_pair(e, v->list.items[i], &null);
        return;
    }
    for (size_t i = 0; i < v->map.n; i++)
        put_pair(e, v->map.pairs[i].key, v->map.pairs[i].value);
}

static void put_container(emitter *e, const yaml_value *v, place where)
{
    bool is_list = v->type == YAML_SEQ || v->type == YAML_TUPLE;
    int64_t indent = e->indent;

    if (v->type == YAML_TUPLE)
        put_indicator(e, "!!python/tuple", NEEDS_WHITE);
    if (v->type == YAML_SET)
        put_indicator(e, "!!set", NEEDS_WHITE);
    if (members(v) == 0) {
        put_indicator(e, is_list ? "[]" : "{}", NEEDS_WHITE);
        return;
    }
    if (++e->depth > YAML_MAX_WALK_DEPTH)
        e->is_too_deep = true;
    if (e->indent < 0)
        e->indent = 0;
    else if (!is_list || where == IN_LIST || e->is_indention)
        e->indent += INDENT; /* a list in a mapping stands at the column of its key */
    if (!e->is_too_deep && !e->out->too_big) {
        if (is_list)
            put_list(e, v);
        else
            put_map(e, v);
    }
    e->indent = indent;
    e->depth--;
}

/* Writes the anchor, or the alias that stands for all of v; says whether that was all. */
static bool put_anchor(emitter *e, const yaml_value *v)
{
    seen *known = can_have_anchor(v) ? find_seen(e, v) : NULL;
    char name[24];

    if (known == NULL || known->anchor == 0)
        return false;
    snprintf(name, sizeof(name), "%cid%03u", known->is_written ? '*' : '&', known->anchor);
    put_indicator(e, name, NEEDS_WHITE);
    if (known->is_written)
        return true;
    known->is_written = true;
    return false;
}

static void put_node(emitter *e, const yaml_value *v, place where)
{
    int64_t indent = e->indent;

    if (put_anchor(e, v))
        return;
    if (yaml_is_container(v)) {
        put_container(e, v, where);
        return;
    }
    e->indent = indent < 0 ? INDENT : indent + INDENT;
    if (v->type == YAML_TEXT)
        put_text(e, v->text, where == AS_SIMPLE_KEY);
    else if (v->type == YAML_BYTES)
        put_bytes(e, v->text);
    else
        put_typed(e, v, where == AS_SIMPLE_KEY);
    e->indent = indent;
}

memfs_code yaml_emit(const yaml_value *map, memfs_buf *out, memfs_error *err)
{
    emitter e = { .out = out, .indent = -1, .is_white = true, .is_indention = true };

    find_anchors(&e, map, 0);
    if (!e.is_too_deep)
        put_node(&e, map, AS_VALUE);
    e.indent = 0;
    put_indent(&e);
    yaml_index_dispose(&e.index);
    free(e.seen);
    free(e.cps);
    if (e.is_too_deep)
        return memfs_fail(err, MEMFS_ELIMIT, "values nest too deep to write");
    return MEMFS_OK;
}
