/*
 * layout.h - the second layout's pre-commit rules (client 5.1, from 0.31: MEMORY.md at the root).
 *
 * All tracked *.md but skills/ are judged at each commit, not only what is staged.  Pure: the
 * caller brings the files.  The rules of the first layout are precommit.h; layout_check() adds to
 * them what a .memfs.config.json asks for.
 *
 * The policies:
 *   - root marker: front matter of every file whose parent folders all have a MEMORY.md; those
 *     indexes themselves; depth, sizes and regular files by `limits`
 *   - shared memory: front matter of every file; limits only where .memfs.config.json sets them
 *   - legacy: limits for system/ and reference/, only where .memfs.config.json sets them
 *
 * .memfs.config.json among the files must be one that the client takes, and its fileCharacterLimits
 * (globs, the first that fits) come before limits.max_file_chars.
 */
#ifndef MEMFS_MEMORY_LAYOUT_H
#define MEMFS_MEMORY_LAYOUT_H

#include "base/buf.h"

typedef enum layout_policy {
    LAYOUT_LEGACY, /* precommit.h decides */
    LAYOUT_ROOT_MARKER,
    LAYOUT_SHARED_MEMORY,
} layout_policy;

typedef struct layout_limits {
    uint32_t max_depth;      /* 2 */
    uint64_t max_file_chars; /* 20,000 */
    uint64_t max_root_chars; /* 65,536, root *.md together */
} layout_limits;
#define LAYOUT_LIMITS_INIT                                                                         \
    {                                                                                              \
        2, 20000, 65536                                                                            \
    }

/* The text of .git/letta-memory-layout-policy, and whether MEMORY.md is in index or HEAD. */
layout_policy layout_policy_of(memfs_str policy_file, bool has_root_marker);
/* From .memfs.config.json; what is absent or of a wrong type keeps its default. */
void layout_limits_of(memfs_str config_json, layout_limits *ret);

typedef struct layout_file {
    memfs_str path;
    uint32_t mode; /* as git has it */
    memfs_str text;
    bool is_unchanged; /* as HEAD has it: a flat skills/x.md that was there before is let be */
} layout_file;

/* path, and one line that tells an agent what to change. */
typedef void (*layout_fn)(memfs_str path, const char *what, void *ctx);
/* Returns the number of violations: 0 accepts.  files are all tracked files of the index, sorted by
 * path; only *.md and .memfs.config.json need their text, the others may have it empty. */
size_t layout_check(layout_policy policy, const layout_limits *limits, const layout_file *files,
                    size_t n_files, layout_fn fn, void *ctx);

#endif
