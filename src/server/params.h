/*
 * params.h - the parameters of one REST request: read, checked, and what is wrong with them.
 *
 * Letta's server answers a bad parameter with 422 and a `detail` that is the Python repr of its
 * error list (http-api 1.5), so that is what is written here, byte for byte, with the types, texts
 * and order of pydantic.  Reading goes on after a bad value: one answer names them all.
 *
 *     _cleanup_(params_dispose) params p = PARAMS_INIT(lookup, source);
 *     params_path_id(&p, "agent_id", "agent", id);
 *     limit = params_limit(&p, 100);
 *     if (!params_are_good(&p)) { params_write_422(&p, out); ... }
 *
 * A bad value reads as its default.  Keys of one value that are given twice are refused apart
 * (T02): `repeated` names the first, and the answer is 400.
 *
 * Pure: values come from `lookup`; slices that are returned live as long as what it returns.
 * Thread: one at a time.
 */
#ifndef MEMFS_SERVER_PARAMS_H
#define MEMFS_SERVER_PARAMS_H

#include "base/buf.h"

/* The i-th value of a query key, decoded; false when there are not so many. */
typedef bool (*params_lookup_fn)(const void *source, const char *key, size_t i, memfs_str *ret);

typedef struct params {
    params_lookup_fn lookup;
    const void *source;
    const char *repeated;    /* NULL, or the key that was given twice */
    const char *example;     /* NULL, or an id of the form that a path id should have had */
    size_t n_errors;
    memfs_buf errors;        /* Python's list so far, without the closing bracket */
} params;
#define PARAMS_MAX_DETAIL (256 * 1024)
#define PARAMS_INIT(lookup, source)                                                                \
    { (lookup), (source), NULL, NULL, 0, MEMFS_BUF_INIT(PARAMS_MAX_DETAIL) }

/* life cycle */
void params_dispose(params *p);

/* reading: path.  prefix is "agent" or "block"; agent-local-<uuid4> is an agent too (design 14). */
void params_path_id(params *p, const char *name, const char *prefix, memfs_str value);

/*
 * reading: query.  A key that is missing, or whose value is bad, reads as `absent`, or as false
 * where there is no default.
 */
bool params_int(params *p, const char *key, int64_t *ret);
/* Not negative. */
int64_t params_count(params *p, const char *key, int64_t absent);
/* "limit"; 0 is no limit. */
int64_t params_limit(params *p, int64_t absent);
bool params_bool(params *p, const char *key, bool absent);
/* Any text; an empty one counts as missing. */
bool params_text(params *p, const char *key, memfs_str *ret);
/* An id with a prefix, e.g. "identity". */
bool params_id(params *p, const char *key, const char *prefix, memfs_str *ret);

/* Text of min_chars to max_chars; with `extra`, only ASCII letters, digits and what is in it. */
typedef struct params_rule {
    const char *extra;
    size_t min_chars, max_chars;
} params_rule;
extern const params_rule PARAMS_LABEL, PARAMS_NAME, PARAMS_SEARCH;
bool params_ruled(params *p, const char *key, const params_rule *rule, memfs_str *ret);

/* One of `choices` (NULL-terminated): its index. */
size_t params_choice(params *p, const char *key, const char *const *choices, size_t absent);
/* "order": true for desc. */
bool params_is_descending(params *p, bool absent);
/* "order_by", where only one order is known. */
void params_order_by_created(params *p);
/* A repeated key of choices: bit i is set when choices[i] was given.  *ret_given: was any. */
unsigned params_choices(params *p, const char *key, const char *const *choices, bool *ret_given);
/* A repeated key of numbers: how many.  More than max are refused. */
size_t params_ints(params *p, const char *key, int64_t *ret, size_t max);
/* Is the key there at all? */
bool params_given(const params *p, const char *key);
/* A repeated key of texts: how many.  More than max are refused. */
size_t params_texts(params *p, const char *key, memfs_str *ret, size_t max);

/*
 * For readers of bodies (body.h).  loc is what stands in Python's parentheses: 'body', 'limit';
 * input and ctx (may be NULL) are Python text already.
 */
void params_add(params *p, const char *type, const char *loc, const char *msg, memfs_str input,
                const char *ctx);
void params_add_choice(params *p, const char *loc, const char *const *choices, memfs_str input);
/* Text as pydantic reads it.  False: it is none, and *ret is as it was. */
bool params_read_int(memfs_str text, int64_t *ret);
bool params_read_bool(memfs_str text, bool *ret);

/* answering */
bool params_are_good(const params *p);
/* {"trace_id":"","detail":"[...]"} and "examples" for a bad path id. */
void params_write_422(const params *p, memfs_buf *out);

/* repr() of a str; bytes that are no UTF-8 count as U+FFFD. */
void params_py_str(memfs_buf *out, memfs_str s);

#endif
