/*
 * vectors.h - the checker's side of the compatibility vectors (tests/vectors): one JSON line in,
 * one JSON line out.
 */
#ifndef MEMFS_CLI_VECTORS_H
#define MEMFS_CLI_VECTORS_H

#include "base/buf.h"
#include "memory/yaml.h"

#include <jansson.h>

/*
 * A JSON value of the vectors, with its tagged forms ({"$date": …} and so on), as a value; NULL
 * when a tagged form is unknown or broken.
 */
yaml_value *vectors_value_of(json_t *json, yaml_doc *doc);
/* The way back.  Aliases are written out in full, cycles as {"$cycle": n}. */
void vectors_put_value(const yaml_value *v, memfs_buf *out);
/* A JSON string, or {"$wtf8": …} for text that holds lone surrogates or other bytes. */
void vectors_put_text(memfs_str text, memfs_buf *out);

/* Is there such a set? */
bool vectors_has_set(const char *set);
/* Answers one line; false when it is not a JSON object with a name. */
bool vectors_answer(const char *set, memfs_str line, memfs_buf *out);

#endif
