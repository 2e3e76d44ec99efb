/*
 * json.h - writing JSON, straight into a buffer.
 *
 * Answers are written in a fixed field order (http-api 4), compact, with UTF-8 left as it is, and
 * without building a tree first: a list of blocks costs one pass over its rows.  Reading JSON is
 * jansson's, where it is needed.
 *
 * The writer puts the commas; the caller keeps objects and arrays balanced:
 *
 *     json_writer w = JSON_WRITER_INIT(&buf);
 *     jw_object(&w);  jw_key(&w, "id");  jw_text(&w, id);  jw_object_end(&w);
 *
 * The names begin with jw_ because json_ is jansson's.
 *
 * A bound that was passed shows in buf_check() of the buffer.
 */
#ifndef MEMFS_BASE_JSON_H
#define MEMFS_BASE_JSON_H

#include "base/buf.h"

typedef struct json_writer {
    memfs_buf *out;
    bool needs_comma;
} json_writer;

#define JSON_WRITER_INIT(buf) { (buf), false }

void jw_object(json_writer *w);
void jw_object_end(json_writer *w);
void jw_array(json_writer *w);
void jw_array_end(json_writer *w);
void jw_key(json_writer *w, const char *key);
/* Text that must be valid UTF-8; bytes that are not become U+FFFD.  NUL is written as an escape. */
void jw_str(json_writer *w, memfs_str s);
/* NULL is written as null. */
void jw_text(json_writer *w, const char *s);
void jw_int(json_writer *w, int64_t n);
void jw_bool(json_writer *w, bool b);
void jw_null(json_writer *w);
/* JSON that is already written, spliced in as it is. */
void jw_raw(json_writer *w, memfs_str json);

/* key and value in one step */
void jw_key_str(json_writer *w, const char *key, memfs_str s);
void jw_key_text(json_writer *w, const char *key, const char *s);
void jw_key_int(json_writer *w, const char *key, int64_t n);
void jw_key_bool(json_writer *w, const char *key, bool b);
void jw_key_null(json_writer *w, const char *key);

#endif
