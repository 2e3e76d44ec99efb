/*
 * body.h - the JSON body of a REST request: read, checked, and what is wrong with it.
 *
 * What is wrong goes to the same list as bad parameters do (params.h), in pydantic's words and with
 * `loc` ('body', 'name'), so that one 422 names all; a handler reads everything and then asks
 * reply_params_good().  Fields that nobody reads are ignored.
 *
 *     _cleanup_(params_dispose) params p = REPLY_PARAMS(rq);
 *     _cleanup_(body_dispose) body b = BODY_INIT;
 *     if (body_read(&b, &p, http_body(rq)))
 *         has_value = body_text(&b, "value", BODY_NULLABLE, &value);
 *     if (!reply_params_good(rq, &p)) ...
 *
 * As in pydantic's lax mode a number may come as text ("5", 5.0), and a truth as one of its words;
 * text must be text.  Slices live as long as the body.
 *
 * Pure.  Thread: one at a time.
 */
#ifndef MEMFS_SERVER_BODY_H
#define MEMFS_SERVER_BODY_H

#include "server/params.h"

#include <jansson.h>

#define BODY_MAX_BYTES (2u << 20) /* of most routes; those that carry files have their own */

typedef struct body {
    params *errors;
    json_t *root;         /* owned; NULL in an item of a list */
    const json_t *object; /* what is read from; NULL: nothing, every field is absent */
    char loc[256];        /* 'body' and what led here, as Python text */
} body;
#define BODY_INIT                                                                                  \
    {                                                                                              \
        .root = NULL                                                                               \
    }

/* Which values are wrong beside those of a wrong type. */
typedef enum body_need {
    BODY_NULLABLE, /* absent and null are the same, and fine */
    BODY_OPTIONAL, /* may be absent; null is a wrong type */
    BODY_NEEDED,   /* must be there */
} body_need;

/* life cycle */
/*
 * False: it is no JSON object, and the errors say so.  An empty body is missing.  errors must
 * outlive the body.
 */
bool body_read(body *b, params *errors, memfs_str text);
/* The same where the whole body may be left out, or be null: then every field is absent. */
bool body_read_if_any(body *b, params *errors, memfs_str text);
void body_dispose(body *b);

/* reading: true when the field has a good value.  *ret is as it was otherwise. */
bool body_text(body *b, const char *key, body_need need, memfs_str *ret);
/* Without NUL bytes, as a stock server takes them out of values (http-api 4): *ret is in the JSON, or
 * in *room. */
bool body_clean_text(body *b, const char *key, body_need need, memfs_buf *room, memfs_str *ret);
bool body_int(body *b, const char *key, body_need need, int64_t *ret);
/* The same from 1 to INT32_MAX, as a block's "limit" is. */
bool body_count(body *b, const char *key, body_need need, int64_t *ret);
bool body_bool(body *b, const char *key, body_need need, bool *ret);
/* A mapping, as JSON text that is added to `out` from where it ends. */
bool body_map(body *b, const char *key, body_need need, memfs_buf *out);
/* One of `choices` (NULL-terminated), by its index. */
bool body_choice(body *b, const char *key, body_need need, const char *const *choices, size_t *ret);
/* The version that the caller knows: a text that is not empty, as an empty one would ask nothing.
 */
bool body_version(body *b, const char *key, memfs_str *ret);
/* How many items it has; what they are is not looked at.  More than max are refused. */
bool body_list(body *b, const char *key, body_need need, size_t max, size_t *ret_n);
/* The i-th item of such a list: a text; or an object, whose errors name where it is. */
bool body_list_text(body *b, const char *key, size_t i, memfs_str *ret);
bool body_list_object(body *b, const char *key, size_t i, body *ret);
/* A list of texts as JSON text, added to `out`; each once where is_set. */
bool body_texts(body *b, const char *key, body_need need, size_t max, bool is_set, memfs_buf *out);
/* Is the field there and not null, whatever it is? */
bool body_has(const body *b, const char *key);
/* One more error of a field: a rule that no type says.  type as pydantic's, e.g. "value_error". */
void body_refuse(body *b, const char *key, const char *type, const char *msg);

#endif
