/*
 * From text to tokens.
 *
 * Why not libyaml: the reference reads with PyYAML's pure Python scanner, and the two differ in
 * what they take for a document at all: tabs (libyaml skips them as blanks in many places), U+0085,
 * U+2028 and U+2029 as breaks, "?" and ":" inside flow collections, the characters that may follow
 * an anchor, and escapes of surrogates, which libyaml refuses.  Each difference flips a file
 * between "front matter" and "all value", and none can be seen from libyaml's events.  So this is a
 * scanner of our own for the same language, with the same decisions at the same places.
 *
 * The language has one difficulty: "a: b" shows only at the ':' that "a" was a key, when its token
 * is out already.  So wherever a key may begin, its place is noted as a "simple key"; a ':' within
 * the same line and 1024 characters turns the note into a KEY token (and, in block context, a
 * BLOCK_MAP_START) put into the queue before it.  Hence tokens leave the queue only when no note
 * points at them.
 *
 * Invariants
 *   1. There is at most one note a flow level, and notes rise in both level and index.  So the
 * notes that have become stale are always the first ones, and ageing them costs O(1) a token.
 *   2. In block context, collections open and close by column: `indents` is the stack of columns.
 *   3. text[] ends in zeros, so looking a few characters ahead is always allowed; no zero comes
 *      earlier, since U+0000 is not printable.
 *
 * Cost: linear in the text.
 */
#include "memory/yaml_int.h"

#include "base/mem.h"

#include <stdlib.h>

#define SIMPLE_KEY_REACH 1024
#define PADDING 16
/* The parser stops long before; this only bounds how far the scanner can run ahead of it. */
#define MAX_FLOW_LEVEL 4096

/* ---- characters ---- */

static bool is_printable(uint32_t c)
{
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c <= 0x7E) || c == 0x85 ||
           (c >= 0xA0 && c <= 0xD7FF) || (c >= 0xE000 && c <= 0xFFFD) ||
           (c >= 0x10000 && c <= 0x10FFFF);
}

bool yaml_scan_fail(yaml_scanner *s, const char *what)
{
    return yaml_fault_set(s->fault, MEMFS_EINVALID, false, s->line + 1, what);
}

void yaml_forward(yaml_scanner *s, size_t n)
{
    for (; n > 0; n--) {
        uint32_t c = s->text[s->at++];

        if (yaml_is_break(c) && !(c == '\r' && s->text[s->at] == '\n')) {
            s->line++;
            s->column = 0;
        } else if (c != 0xFEFF) {
            s->column++;
        }
    }
}

uint32_t yaml_scan_break(yaml_scanner *s)
{
    uint32_t c = yaml_at(s, 0);

    if (!yaml_is_break(c))
        return 0;
    yaml_forward(s, c == '\r' && yaml_at(s, 1) == '\n' ? 2 : 1);
    return c == 0x2028 || c == 0x2029 ? c : '\n';
}

bool yaml_at_separator(const yaml_scanner *s)
{
    uint32_t c = yaml_at(s, 0);

    return (c == '-' || c == '.') && yaml_at(s, 1) == c && yaml_at(s, 2) == c &&
           yaml_is_blankz(yaml_at(s, 3));
}

void yaml_put(yaml_scanner *s, uint32_t cp)
{
    char bytes[4];

    buf_add(&s->scratch, bytes, str_utf8_put(cp, bytes));
}

void yaml_skip_spaces(yaml_scanner *s)
{
    while (yaml_at(s, 0) == ' ')
        yaml_forward(s, 1);
}

void yaml_skip_to_break(yaml_scanner *s)
{
    while (!yaml_is_breakz(yaml_at(s, 0)))
        yaml_forward(s, 1);
}

bool yaml_scan_rest_of_line(yaml_scanner *s, const char *what)
{
    yaml_skip_spaces(s);
    if (yaml_at(s, 0) == '#')
        yaml_skip_to_break(s);
    if (!yaml_is_breakz(yaml_at(s, 0)))
        return yaml_scan_fail(s, what);
    yaml_scan_break(s);
    return true;
}

void yaml_put_next(yaml_scanner *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        yaml_put(s, yaml_at(s, i));
    yaml_forward(s, n);
}

memfs_str yaml_take_scratch(yaml_scanner *s)
{
    memfs_str copy = yaml_copy(s->doc, buf_str(&s->scratch));

    buf_clear(&s->scratch);
    return copy;
}

/* ---- life cycle ---- */

static bool decode(yaml_scanner *s, memfs_str text)
{
    size_t pos = 0, n = 0;

    s->text = mem_realloc(NULL, text.len + PADDING, sizeof(*s->text));
    while (pos < text.len) {
        uint32_t cp;

        if (!str_utf8_next(text, &pos, &cp) || !is_printable(cp)) {
            s->text[n] = 0;
            return yaml_scan_fail(s, "a character that is not printable");
        }
        s->line += cp == '\n';
        s->text[n++] = cp;
    }
    memset(s->text + n, 0, PADDING * sizeof(*s->text));
    s->line = 0;
    return true;
}

bool yaml_scanner_init(yaml_scanner *s, memfs_str text, yaml_doc *doc, yaml_fault *fault)
{
    *s = (yaml_scanner){
        .doc = doc,
        .fault = fault,
        .indent = -1,
        .allow_simple_key = true,
        .scratch = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
    };
    return decode(s, text);
}

void yaml_scanner_dispose(yaml_scanner *s)
{
    free(s->text);
    free(s->indents);
    free(s->tokens);
    free(s->keys);
    buf_dispose(&s->scratch);
}

/* ---- the queue ---- */

static void *grown(void *array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return array;
    *cap = *cap ? *cap * 2 : 16;
    return mem_realloc(array, *cap, size);
}

/* Puts a token before the queue's place `at` (an index into tokens). */
static void insert_token(yaml_scanner *s, size_t at, yaml_token_type type, size_t line)
{
    s->tokens = grown(s->tokens, s->end, &s->cap_tokens, sizeof(*s->tokens));
    memmove(s->tokens + at + 1, s->tokens + at, (s->end - at) * sizeof(*s->tokens));
    s->tokens[at] = (yaml_token){ .type = type, .line = (uint32_t)line + 1 };
    s->end++;
}

static yaml_token *add_token(yaml_scanner *s, yaml_token_type type)
{
    insert_token(s, s->end, type, s->line);
    return &s->tokens[s->end - 1];
}

/* ---- simple keys ---- */

static yaml_simple_key *last_key(yaml_scanner *s)
{
    yaml_simple_key *key;

    if (s->key_end == s->key_first)
        return NULL;
    key = &s->keys[s->key_end - 1];
    return key->flow_level == s->flow_level ? key : NULL;
}

static bool remove_simple_key(yaml_scanner *s)
{
    yaml_simple_key *key = last_key(s);

    if (key == NULL)
        return true;
    if (key->is_required)
        return yaml_scan_fail(s, "could not find the expected ':'");
    s->key_end--;
    return true;
}

static bool drop_stale_keys(yaml_scanner *s)
{
    while (s->key_first < s->key_end) {
        const yaml_simple_key *key = &s->keys[s->key_first];

        if (key->line == s->line && s->at - key->index <= SIMPLE_KEY_REACH)
            break;
        if (key->is_required)
            return yaml_scan_fail(s, "could not find the expected ':'");
        s->key_first++;
    }
    if (s->key_first == s->key_end)
        s->key_first = s->key_end = 0;
    return true;
}

static bool save_simple_key(yaml_scanner *s)
{
    if (!s->allow_simple_key)
        return true;
    if (!remove_simple_key(s))
        return false;
    s->keys = grown(s->keys, s->key_end, &s->cap_keys, sizeof(*s->keys));
    s->keys[s->key_end++] = (yaml_simple_key){
        .flow_level = s->flow_level,
        .token_number = s->n_taken + (s->end - s->first),
        .index = s->at,
        .line = s->line,
        .column = s->column,
        .is_required = s->flow_level == 0 && s->indent == s->column,
    };
    return true;
}

/* ---- indentation ---- */

static void unwind_indent(yaml_scanner *s, int64_t column)
{
    if (s->flow_level > 0)
        return;
    while (s->indent > column) {
        s->indent = s->indents[--s->n_indents];
        add_token(s, TOKEN_BLOCK_END);
    }
}

static bool add_indent(yaml_scanner *s, int64_t column)
{
    if (s->indent >= column)
        return false;
    s->indents = grown(s->indents, s->n_indents, &s->cap_indents, sizeof(*s->indents));
    s->indents[s->n_indents++] = s->indent;
    s->indent = column;
    return true;
}

/* ---- one fetch a kind of token ---- */

static bool fetch_stream_end(yaml_scanner *s)
{
    unwind_indent(s, -1);
    if (!remove_simple_key(s))
        return false;
    s->allow_simple_key = false;
    s->key_first = s->key_end = 0;
    add_token(s, TOKEN_STREAM_END);
    s->is_done = true;
    return true;
}

static bool fetch_directive(yaml_scanner *s)
{
    unwind_indent(s, -1);
    if (!remove_simple_key(s))
        return false;
    s->allow_simple_key = false;
    return yaml_scan_directive(s, add_token(s, TOKEN_DIRECTIVE_OTHER));
}

static bool fetch_document_mark(yaml_scanner *s)
{
    unwind_indent(s, -1);
    if (!remove_simple_key(s))
        return false;
    s->allow_simple_key = false;
    add_token(s, yaml_at(s, 0) == '-' ? TOKEN_DOCUMENT_START : TOKEN_DOCUMENT_END);
    yaml_forward(s, 3);
    return true;
}

static bool fetch_flow_start(yaml_scanner *s)
{
    if (!save_simple_key(s))
        return false;
    if (s->flow_level == MAX_FLOW_LEVEL)
        return yaml_fault_set(s->fault, MEMFS_ELIMIT, true, s->line + 1, "nested too deep");
    s->flow_level++;
    s->allow_simple_key = true;
    add_token(s, yaml_at(s, 0) == '[' ? TOKEN_FLOW_SEQ_START : TOKEN_FLOW_MAP_START);
    yaml_forward(s, 1);
    return true;
}

static bool fetch_flow_end(yaml_scanner *s)
{
    if (!remove_simple_key(s))
        return false;
    if (s->flow_level == 0)
        return yaml_scan_fail(s, "a closing bracket that nothing opened");
    s->flow_level--;
    s->allow_simple_key = false;
    add_token(s, yaml_at(s, 0) == ']' ? TOKEN_FLOW_SEQ_END : TOKEN_FLOW_MAP_END);
    yaml_forward(s, 1);
    return true;
}

static bool fetch_flow_entry(yaml_scanner *s)
{
    s->allow_simple_key = true;
    if (!remove_simple_key(s))
        return false;
    add_token(s, TOKEN_FLOW_ENTRY);
    yaml_forward(s, 1);
    return true;
}

/* "- " and "? ": in block context they open a collection when they stand further right. */
static bool fetch_block_mark(yaml_scanner *s, yaml_token_type mark, yaml_token_type start)
{
    if (s->flow_level == 0) {
        if (!s->allow_simple_key)
            return yaml_scan_fail(s, mark == TOKEN_KEY ? "a key is not allowed here"
                                                       : "a list item is not allowed here");
        if (add_indent(s, s->column))
            add_token(s, start);
    }
    s->allow_simple_key = mark == TOKEN_BLOCK_ENTRY || s->flow_level == 0;
    if (!remove_simple_key(s))
        return false;
    add_token(s, mark);
    yaml_forward(s, 1);
    return true;
}

/* The noted key before a ':' gets its tokens now. */
static void insert_key(yaml_scanner *s, const yaml_simple_key *key)
{
    size_t at = s->first + (key->token_number - s->n_taken);

    insert_token(s, at, TOKEN_KEY, key->line);
    if (s->flow_level == 0 && add_indent(s, key->column))
        insert_token(s, at, TOKEN_BLOCK_MAP_START, key->line);
    s->allow_simple_key = false;
}

static bool fetch_value(yaml_scanner *s)
{
    yaml_simple_key *key = last_key(s);

    if (key != NULL) {
        s->key_end--;
        insert_key(s, key);
    } else {
        if (s->flow_level == 0) {
            if (!s->allow_simple_key)
                return yaml_scan_fail(s, "a ':' that no key can stand before (quote the text?)");
            if (add_indent(s, s->column))
                add_token(s, TOKEN_BLOCK_MAP_START);
        }
        s->allow_simple_key = s->flow_level == 0;
        if (!remove_simple_key(s))
            return false;
    }
    add_token(s, TOKEN_VALUE);
    yaml_forward(s, 1);
    return true;
}

static bool fetch_property(yaml_scanner *s, uint32_t c)
{
    if (!save_simple_key(s))
        return false;
    s->allow_simple_key = false;
    if (c == '!')
        return yaml_scan_tag(s, add_token(s, TOKEN_TAG));
    return yaml_scan_anchor(s, add_token(s, c == '*' ? TOKEN_ALIAS : TOKEN_ANCHOR));
}

static bool fetch_block_scalar(yaml_scanner *s, bool is_folded)
{
    s->allow_simple_key = true;
    if (!remove_simple_key(s))
        return false;
    return yaml_scan_block(s, is_folded, &add_token(s, TOKEN_SCALAR)->text);
}

static bool fetch_quoted(yaml_scanner *s, bool is_double)
{
    if (!save_simple_key(s))
        return false;
    s->allow_simple_key = false;
    return yaml_scan_quoted(s, is_double, &add_token(s, TOKEN_SCALAR)->text);
}

static bool fetch_plain(yaml_scanner *s)
{
    yaml_token *token;

    if (!save_simple_key(s))
        return false;
    s->allow_simple_key = false;
    token = add_token(s, TOKEN_SCALAR);
    token->is_plain = true;
    return yaml_scan_plain(s, &token->text);
}

/* ---- which one it is ---- */

static void skip_to_token(yaml_scanner *s)
{
    if (s->at == 0 && yaml_at(s, 0) == 0xFEFF)
        yaml_forward(s, 1);
    do {
        yaml_skip_spaces(s);
        if (yaml_at(s, 0) == '#')
            yaml_skip_to_break(s);
        if (!yaml_is_break(yaml_at(s, 0)))
            return;
        yaml_scan_break(s);
        if (s->flow_level == 0)
            s->allow_simple_key = true;
    } while (true);
}

static bool starts_plain(const yaml_scanner *s, uint32_t c)
{
    if (!yaml_is_blankz(c) && !yaml_is_one_of(c, "-?:,[]{}#&*!|>'\"%@`"))
        return true;
    return !yaml_is_blankz(yaml_at(s, 1)) &&
           (c == '-' || (s->flow_level == 0 && (c == '?' || c == ':')));
}

static bool fetch_marked(yaml_scanner *s, uint32_t c, bool *ret_is_fetched)
{
    bool is_flow = s->flow_level > 0;
    bool has_blank = yaml_is_blankz(yaml_at(s, 1));

    *ret_is_fetched = true;
    if (c == '-' && has_blank)
        return fetch_block_mark(s, TOKEN_BLOCK_ENTRY, TOKEN_BLOCK_SEQ_START);
    if (c == '?' && (is_flow || has_blank))
        return fetch_block_mark(s, TOKEN_KEY, TOKEN_BLOCK_MAP_START);
    if (c == ':' && (is_flow || has_blank))
        return fetch_value(s);
    if ((c == '|' || c == '>') && !is_flow)
        return fetch_block_scalar(s, c == '>');
    *ret_is_fetched = false;
    return true;
}

static bool fetch_more(yaml_scanner *s)
{
    bool is_fetched;
    uint32_t c;

    skip_to_token(s);
    if (!drop_stale_keys(s))
        return false;
    unwind_indent(s, s->column);
    c = yaml_at(s, 0);
    if (c == 0)
        return fetch_stream_end(s);
    if (s->column == 0 && c == '%')
        return fetch_directive(s);
    if (s->column == 0 && yaml_at_separator(s))
        return fetch_document_mark(s);
    if (!fetch_marked(s, c, &is_fetched) || is_fetched)
        return is_fetched && s->fault->code == MEMFS_OK;
    switch (c) {
    case '[':
    case '{': return fetch_flow_start(s);
    case ']':
    case '}': return fetch_flow_end(s);
    case ',': return fetch_flow_entry(s);
    case '*':
    case '&':
    case '!': return fetch_property(s, c);
    case '\'':
    case '"': return fetch_quoted(s, c == '"');
    default: break;
    }
    if (starts_plain(s, c))
        return fetch_plain(s);
    return yaml_scan_fail(s, c == '\t' ? "a tab where a token should begin"
                                       : "a character that cannot start a token");
}

static bool needs_more(yaml_scanner *s, bool *ret)
{
    *ret = false;
    if (s->is_done)
        return true;
    if (s->first == s->end) {
        *ret = true;
        return true;
    }
    if (!drop_stale_keys(s))
        return false;
    *ret = s->key_first < s->key_end && s->keys[s->key_first].token_number == s->n_taken;
    return true;
}

const yaml_token *yaml_peek(yaml_scanner *s)
{
    bool wants_more;

    if (s->fault->code != MEMFS_OK)
        return NULL;
    while (needs_more(s, &wants_more) && wants_more)
        if (!fetch_more(s))
            return NULL;
    return s->fault->code == MEMFS_OK ? &s->tokens[s->first] : NULL;
}

void yaml_skip(yaml_scanner *s)
{
    s->first++;
    s->n_taken++;
    if (s->first == s->end)
        s->first = s->end = 0;
}
