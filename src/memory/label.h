/*
 * label.h - which file is which block (block-format 6).
 *
 * Paths are relative to the repository, '/'-separated and case-sensitive, as git stores them.  Any
 * bytes may come in; non-ASCII names are blocks like any other.
 */
#ifndef MEMFS_MEMORY_LABEL_H
#define MEMFS_MEMORY_LABEL_H

#include "base/buf.h"

/*
 * prefixes is the text of LETTA_MEMFS_BLOCK_PATH_PREFIXES, empty for no filter.  False: this path
 * is no block.  *ret_label borrows from path.
 */
bool label_of_path(memfs_str path, memfs_str prefixes, memfs_str *ret_label);
/* The file that holds a label: skills/<name> -> skills/<name>/SKILL.md, all else <label>.md. */
void label_to_path(memfs_str label, memfs_buf *out);

#endif
