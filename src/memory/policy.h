/*
 * policy.h - what a pushed tree may hold (reliability T10, T11, T14 to T16; design 14).
 *
 * Verdicts on values: the store walks, this decides.  A refusal names the path and the rule in
 * words that an agent can act on; the text is escaped and fit for a side-band line (T20).
 */
#ifndef MEMFS_MEMORY_POLICY_H
#define MEMFS_MEMORY_POLICY_H

#include "base/buf.h"
#include "base/error.h"
#include "base/oid.h"

typedef struct policy {
    uint64_t max_file_bytes;  /* 10 MiB */
    uint64_t max_block_bytes; /* 1 MiB: larger .md files are stored but marked, not blocks */
    uint64_t max_tree_bytes;  /* 256 MiB, with repeats */
    uint64_t max_entries;     /* 100,000, with repeats */
    uint32_t max_depth;       /* 64 */
    uint32_t max_name_bytes;  /* 255 */
    uint32_t max_path_bytes;  /* 1,024 */
    bool lenient;             /* store symlinks and odd names, leave them out of the cache */
    bool strict_frontmatter;  /* refuse files whose front matter does not parse */
} policy;
#define POLICY_INIT                                                                                \
    {                                                                                              \
        10u << 20, 1u << 20, 256u << 20, 100000, 64, 255, 1024, false, false                       \
    }

/* One entry of a raw git tree object; name borrows from it. */
typedef struct tree_entry {
    uint32_t mode;
    memfs_str name;
    memfs_oid id;
} tree_entry;
#define TREE_MODE_FOLDER 0040000u
#define TREE_MODE_FILE 0100644u
#define TREE_MODE_EXEC 0100755u
#define TREE_MODE_LINK 0120000u    /* only under a lenient policy */
#define TREE_MODE_GITLINK 0160000u /* the same */

/*
 * The entry at *pos of a raw tree, moving *pos past it.  False at the end, and when the bytes are
 * no tree: then *ret_bad is set.
 */
bool tree_next(memfs_str raw, size_t *pos, tree_entry *ret, bool *ret_bad);

/* Name and mode of one entry below `folder` (path with a final '/', or empty). EDENIED refuses. */
MEMFS_CHECK memfs_code policy_entry(const policy *p, memfs_str folder, const tree_entry *entry,
                                    memfs_error *err);
/*
 * Names in one folder that differ only in case or form.  raw is the whole tree object; twins that
 * are both in known_raw (the folder as it was, or empty) are let be.
 */
MEMFS_CHECK memfs_code policy_siblings(const policy *p, memfs_str folder, memfs_str raw,
                                       memfs_str known_raw, memfs_error *err);
/*
 * What twins have in common: equal keys are one name for some file system.  Replaces what is in
 * out.
 */
void policy_name_key(memfs_str name, memfs_buf *out);
/*
 * Does git read this file, under any of its names, and call one with bad content damage?  A push's
 * is judged by git itself.
 */
bool policy_is_git_file(memfs_str name);
MEMFS_CHECK memfs_code policy_file_size(const policy *p, memfs_str path, uint64_t bytes,
                                        memfs_error *err);
MEMFS_CHECK memfs_code policy_totals(const policy *p, uint64_t n_entries, uint64_t bytes,
                                     memfs_error *err);
/* EDENIED "'<folder><name>': <rule>", escaped: for rules that only the walker can see. */
memfs_code policy_refuse(memfs_error *err, memfs_str folder, memfs_str name, const char *fmt, ...)
    MEMFS_PRINTF(4, 5);
/* Author and committer dates between 1970 and 2100. */
MEMFS_CHECK memfs_code policy_commit_dates(const policy *p, int64_t author_s, int64_t committer_s,
                                           memfs_error *err);

#endif
