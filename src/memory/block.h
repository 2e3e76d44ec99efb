/*
 * block.h - a memory file as a block: parse, serialise, merge (block-format 2 to 5).
 *
 * A file is YAML front matter between "---" lines, then the value, byte for byte.  The front matter
 * is read as PyYAML's safe_load reads it and written as its dump writes it, because that is what
 * stock Letta servers do with the same files.
 *
 * Everything here is pure: bytes in, values out.  Any bytes are legal input (K5, K6): what cannot
 * be read as front matter is all value, with the reason in `problem`.
 *
 * Bounds (T27): front matter of more than BLOCK_MAX_FRONT_MATTER bytes, nesting deeper than the
 * YAML reader allows, or aliases that expand past its budget make a value-only block.
 *
 * Thread: any; values are not shared.
 */
#ifndef MEMFS_MEMORY_BLOCK_H
#define MEMFS_MEMORY_BLOCK_H

#include "base/buf.h"
#include "memory/yaml.h"

#define BLOCK_DEFAULT_LIMIT 100000
#define BLOCK_MAX_FRONT_MATTER (64 * 1024)
#define BLOCK_MAX_METADATA_JSON (256 * 1024)

/* A front matter field as loaded: NULL when the key is absent, else any YAML value, null too. */
typedef struct block {
    memfs_str value; /* borrows from the text that was parsed */
    const yaml_value *description;
    const yaml_value *limit;
    const yaml_value *read_only;
    const yaml_value *metadata;
    yaml_doc *doc; /* owns the four above; NULL when there is no front matter */
    /* Why the whole text became the value though it opens like front matter; "" otherwise. */
    char problem[160];
    bool aborts_reference; /* the reference would not fall back but stop (vectors: "error") */
} block;
#define BLOCK_INIT                                                                                 \
    {                                                                                              \
        .doc = NULL                                                                                \
    }

/* life cycle: *ret must be BLOCK_INIT or disposed; text must outlive it.  Cannot fail. */
void block_parse(memfs_str text, block *ret);
void block_dispose(block *b);

/*
 * Decodes a blob as the reference's git read path does: strict UTF-8, then CRLF and lone CR become
 * LF.  Returns false when it is not UTF-8; out then holds the text with U+FFFD for each bad byte,
 * and *ret_bad_at the offset of the first.  A NUL byte is valid and kept.
 */
bool block_decode(memfs_str blob, memfs_buf *out, size_t *ret_bad_at);

/* What a block's file says; metadata NULL or an empty mapping is left out. */
typedef struct block_fields {
    memfs_str value;
    bool has_description; /* false writes null */
    memfs_str description;
    bool read_only;
    const yaml_value *metadata;
} block_fields;

/* metadata nested deeper than YAML_MAX_WALK_DEPTH fails out as a bound that was passed does. */
void block_serialize(const block_fields *fields, memfs_buf *out);
/*
 * Puts fields into an existing file: front matter kept to the byte where nothing changes in
 * meaning, else written anew with unknown keys kept.  EINVALID: the reference would raise. ELIMIT:
 * the front matter that is there is too large to read.
 */
MEMFS_CHECK memfs_code block_merge(memfs_str existing, const block_fields *fields, memfs_buf *out,
                                   memfs_error *err);

/*
 * What is to change in a file; what is not given stays, byte for byte: also unknown keys, comments
 * and line ends, as long as no key of the front matter changes in meaning.
 */
typedef struct block_changes {
    bool has_value, has_description, has_read_only;
    memfs_str value;
    memfs_str description;
    bool read_only;
    const yaml_value *metadata; /* NULL: not given; an empty mapping takes it out */
    bool drops_limit;           /* the front matter's `limit` goes */
} block_changes;
/*
 * existing: the bytes of the file, which block_decode() and block_parse() read; what they call the
 * value is what stays or goes.  A value that would be read as front matter gets some before it, so
 * it comes back as it was given.  EINVALID: it is not UTF-8, so its value cannot stay; or what is
 * to stand in front matter would not be read from there as it is.  ELIMIT: it is more than front
 * matter may be; out is full.
 */
MEMFS_CHECK memfs_code block_amend(memfs_str existing, const block_changes *changes, memfs_buf *out,
                                   memfs_error *err);

/*
 * What a push makes of the parsed fields for a row (block-format 2.1, "new row"): description or
 * "<label> block", limit or the default, read_only or false, metadata or {}.  A field of a wrong
 * type takes its default and is named in `problem`.
 */
typedef struct block_row_fields {
    memfs_str value;
    memfs_str description; /* UTF-8; borrows from scratch */
    int64_t limit;
    bool read_only;
    memfs_str metadata_json; /* an object; borrows from scratch */
    char problem[160];       /* that of the block too; "" when all is well */
} block_row_fields;
/* scratch must not change as long as ret is used; what it holds already is kept. */
void block_row_of(const block *b, memfs_str label, memfs_buf *scratch, block_row_fields *ret);

#endif
