/*
 * yaml_int.h - what the yaml_*.c files share, and nobody else.
 *
 *     text -> yaml_scan (tokens) -> yaml_parse (nodes) -> yaml_construct (values)
 */
#ifndef MEMFS_MEMORY_YAML_INT_H
#define MEMFS_MEMORY_YAML_INT_H

#include "base/error.h"
#include "memory/yaml.h"

/* ---- arena: memory that goes with the document ---- */

void *yaml_alloc(yaml_doc *doc, size_t size); /* zeroed, aligned for any value */
memfs_str yaml_copy(yaml_doc *doc, memfs_str s);
/* Room for one more of n elements in an array of *cap; the old array is left to the arena. */
void *yaml_grow(yaml_doc *doc, void *array, size_t n, size_t *cap, size_t size);

/* ---- faults ---- */

typedef struct yaml_fault {
    memfs_code code; /* MEMFS_OK: none yet; the first stays */
    bool aborts;     /* the reference does not catch it */
    size_t line;     /* 1 is the first line of the text; 0: unknown */
    char what[96];
} yaml_fault;

/* All return false. */
bool yaml_fault_set(yaml_fault *f, memfs_code code, bool aborts, size_t line, const char *what);

/* ---- an index over numbered things by hash ---- */

typedef struct yaml_index {
    uint64_t *hashes; /* by number */
    uint32_t *slots;  /* number + 1; 0 is free */
    size_t n, cap, n_slots;
} yaml_index;
typedef bool (*yaml_index_eq)(const void *ctx, uint32_t number);

void yaml_index_dispose(yaml_index *ix);
/* The number of the first entry with that hash for which eq holds, or UINT32_MAX. */
uint32_t yaml_index_find(const yaml_index *ix, uint64_t hash, yaml_index_eq eq, const void *ctx);
/* Adds the next number (n before the call). */
void yaml_index_add(yaml_index *ix, uint64_t hash);
uint64_t yaml_hash_bytes(memfs_str s);
uint64_t yaml_hash_scalar(const yaml_value *v);
uint64_t yaml_hash_mix(uint64_t x);

/* ---- characters ---- */

static inline bool yaml_is_break(uint32_t c)
{
    return c == '\n' || c == '\r' || c == 0x85 || c == 0x2028 || c == 0x2029;
}
/* A break or the end. */
static inline bool yaml_is_breakz(uint32_t c)
{
    return c == 0 || yaml_is_break(c);
}
/* A break, the end, space or tab. */
static inline bool yaml_is_blankz(uint32_t c)
{
    return c == ' ' || c == '\t' || yaml_is_breakz(c);
}
static inline bool yaml_is_one_of(uint32_t c, const char *set)
{
    return c > 0 && c < 0x80 && strchr(set, (int)c) != NULL;
}
/* Decodes a code point of WTF-8 at *pos and moves on; bytes that are none give U+FFFD. */
uint32_t yaml_next_cp(memfs_str s, size_t *pos);

/* ---- scanner ---- */

typedef enum yaml_token_type {
    TOKEN_STREAM_END,
    TOKEN_DIRECTIVE_YAML,
    TOKEN_DIRECTIVE_TAG,
    TOKEN_DIRECTIVE_OTHER,
    TOKEN_DOCUMENT_START,
    TOKEN_DOCUMENT_END,
    TOKEN_BLOCK_SEQ_START,
    TOKEN_BLOCK_MAP_START,
    TOKEN_BLOCK_END,
    TOKEN_FLOW_SEQ_START,
    TOKEN_FLOW_SEQ_END,
    TOKEN_FLOW_MAP_START,
    TOKEN_FLOW_MAP_END,
    TOKEN_BLOCK_ENTRY,
    TOKEN_FLOW_ENTRY,
    TOKEN_KEY,
    TOKEN_VALUE,
    TOKEN_ALIAS,
    TOKEN_ANCHOR,
    TOKEN_TAG,
    TOKEN_SCALAR,
} yaml_token_type;

typedef struct yaml_token {
    yaml_token_type type;
    bool is_plain;     /* SCALAR */
    bool has_handle;   /* TAG */
    uint32_t line;
    memfs_str text;   /* SCALAR: its value; ALIAS, ANCHOR: name; TAG: suffix; DIRECTIVE_TAG: prefix;
                         DIRECTIVE_YAML: major version */
    memfs_str handle; /* TAG, DIRECTIVE_TAG */
} yaml_token;

/* A place where a key may have begun, should a ':' follow. */
typedef struct yaml_simple_key {
    size_t flow_level;
    size_t token_number;
    size_t index;
    size_t line;
    int64_t column;
    bool is_required;
} yaml_simple_key;

typedef struct yaml_scanner {
    yaml_doc *doc;
    yaml_fault *fault;
    uint32_t *text; /* code points, then zeros */
    size_t at;      /* index of the next one */
    size_t line;
    int64_t column;

    bool is_done; /* the last token is in the queue */
    size_t flow_level;
    int64_t indent;
    int64_t *indents;
    size_t n_indents, cap_indents;
    bool allow_simple_key;

    yaml_token *tokens; /* the queue: first .. end */
    size_t first, end, cap_tokens;
    size_t n_taken;

    yaml_simple_key *keys; /* by rising flow level, hence by rising index: key_first .. key_end */
    size_t key_first, key_end, cap_keys;

    memfs_buf scratch;
} yaml_scanner;

bool yaml_scanner_init(yaml_scanner *s, memfs_str text, yaml_doc *doc, yaml_fault *fault);
void yaml_scanner_dispose(yaml_scanner *s);
/* The next token, which stays next; NULL after a fault. */
const yaml_token *yaml_peek(yaml_scanner *s);
/* Drops the token that yaml_peek() gave. */
void yaml_skip(yaml_scanner *s);

/* For the yaml_scan*.c files only. */
static inline uint32_t yaml_at(const yaml_scanner *s, size_t ahead)
{
    return s->text[s->at + ahead];
}
void yaml_forward(yaml_scanner *s, size_t n);
/* Passes a break and returns it, '\n' for all but U+2028 and U+2029; 0 when there is none. */
uint32_t yaml_scan_break(yaml_scanner *s);
bool yaml_scan_fail(yaml_scanner *s, const char *what);
/* At "---" or "..." followed by a blank? */
bool yaml_at_separator(const yaml_scanner *s);
void yaml_skip_spaces(yaml_scanner *s);
void yaml_skip_to_break(yaml_scanner *s);
/* Passes blanks and a comment, then a break or the end. */
bool yaml_scan_rest_of_line(yaml_scanner *s, const char *what);
/* scratch: one code point, or the next n of the text; then all of it as a copy, and empty again */
void yaml_put(yaml_scanner *s, uint32_t cp);
void yaml_put_next(yaml_scanner *s, size_t n);
memfs_str yaml_take_scratch(yaml_scanner *s);
/* Each reads what begins at the next character. */
bool yaml_scan_directive(yaml_scanner *s, yaml_token *token);
bool yaml_scan_anchor(yaml_scanner *s, yaml_token *token);
bool yaml_scan_tag(yaml_scanner *s, yaml_token *token);
bool yaml_scan_plain(yaml_scanner *s, memfs_str *ret);
bool yaml_scan_quoted(yaml_scanner *s, bool is_double, memfs_str *ret);
bool yaml_scan_block(yaml_scanner *s, bool is_folded, memfs_str *ret);

/* ---- tags and nodes ---- */

typedef enum yaml_tag {
    TAG_STR,
    TAG_NULL,
    TAG_BOOL,
    TAG_INT,
    TAG_FLOAT,
    TAG_BINARY,
    TAG_TIMESTAMP,
    TAG_OMAP,
    TAG_PAIRS,
    TAG_SET,
    TAG_SEQ,
    TAG_MAP,
    TAG_MERGE, /* "<<" */
    TAG_VALUE, /* "=" */
    TAG_UNKNOWN,
} yaml_tag;

/* The type of a plain scalar by its form. */
yaml_tag yaml_resolve(memfs_str plain);
/* Does it have the form of a date or a moment?  Fills *ret, unchecked, when it does. */
typedef struct yaml_time_parts {
    memfs_str year, month, day, hour, minute, second, fraction;
    char zone; /* 0 none, 'Z', '+', '-' */
    memfs_str zone_hour, zone_minute;
} yaml_time_parts;
bool yaml_match_time(memfs_str s, bool is_strict, yaml_time_parts *ret);

typedef enum yaml_kind { NODE_SCALAR, NODE_SEQ, NODE_MAP } yaml_kind;

typedef struct yaml_node yaml_node;
typedef struct yaml_node_pair {
    yaml_node *key, *value;
} yaml_node_pair;
struct yaml_node {
    yaml_kind kind;
    yaml_tag tag;
    uint32_t line;
    memfs_str text;
    yaml_node **items; /* SEQ */
    yaml_node_pair *pairs;
    size_t n, cap;
    yaml_value *value; /* once constructed */
};

/* The node of the only document, NULL for an empty stream.  False after a fault. */
bool yaml_parse(yaml_scanner *s, yaml_node **ret);
bool yaml_construct(yaml_node *root, yaml_doc *doc, yaml_fault *fault, yaml_value **ret);

/* ---- scalars ---- */

/* Python's int(), float() and date rules on the text of a scalar; false when Python would raise. */
bool yaml_read_int(memfs_str s, yaml_doc *doc, yaml_value **ret);
bool yaml_read_float(memfs_str s, double *ret);
bool yaml_read_time(memfs_str s, yaml_doc *doc, yaml_value **ret);

#endif
