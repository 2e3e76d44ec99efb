/*
 * precommit.h - the verdict of the Letta client's pre-commit hook on one file (client 5.1, the
 * layout with system/ and reference/).  Pure: the caller brings the bytes of HEAD and of the index.
 */
#ifndef MEMFS_MEMORY_PRECOMMIT_H
#define MEMFS_MEMORY_PRECOMMIT_H

#include "base/buf.h"

typedef enum precommit_rule {
    PRECOMMIT_SKILL_PATH,
    PRECOMMIT_MISSING_FRONTMATTER,
    PRECOMMIT_UNCLOSED_FRONTMATTER,
    PRECOMMIT_READ_ONLY_FILE,
    PRECOMMIT_UNKNOWN_KEY,
    PRECOMMIT_PROTECTED_SET,
    PRECOMMIT_PROTECTED_CHANGED,
    PRECOMMIT_DESCRIPTION_EMPTY,
    PRECOMMIT_MISSING_DESCRIPTION,
    PRECOMMIT_PROTECTED_REMOVED,
} precommit_rule;

typedef struct precommit_file {
    memfs_str path;
    bool has_head; /* the path, or the one it was renamed from, is in HEAD */
    memfs_str head;
    bool has_staged; /* false: deleted */
    memfs_str staged;
    uint32_t head_mode, staged_mode; /* as git has them, e.g. 0100644 */
    bool is_rename;                  /* head is from another path, unchanged by this commit */
} precommit_file;

/* Called once a violation, in the order of the hook; detail is the key of an unknown-key. */
typedef void (*precommit_fn)(precommit_rule rule, memfs_str detail, void *ctx);

/* Returns the number of violations: 0 accepts. */
size_t precommit_check(const precommit_file *file, precommit_fn fn, void *ctx);
/* Would the hook keep a file that HEAD has with this text from being modified? */
bool precommit_is_read_only(memfs_str head);
/* "missing-frontmatter", as the vectors name it. */
const char *precommit_rule_name(precommit_rule rule);

#endif
