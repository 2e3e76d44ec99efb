/*
 * ignore.h - what .gitignore files say, as git reads them (gitignore(5)).
 *
 * Rules are a stack: the weakest source is pushed first, a folder's own .gitignore when the folder
 * is entered, and taken off when it is left.  The last rule that matches decides.  A folder that
 * is ignored is not entered, so nothing below it can be taken in again.
 *
 * Pure: bytes in, verdict out.  Patterns cost at most what git's own matcher costs.
 */
#ifndef MEMFS_STORE_IGNORE_H
#define MEMFS_STORE_IGNORE_H

#include "base/str.h"

typedef struct ignore ignore;

/* life cycle */
ignore *ignore_new(void);
void ignore_free(ignore *g);

/* folder: of the file, with a final '/', or "".  Returns what ignore_pop takes to undo it. */
size_t ignore_push(ignore *g, memfs_str text, const char *folder);
void ignore_pop(ignore *g, size_t mark);
/* path: from the root of the working tree. */
bool ignore_matches(const ignore *g, const char *path, bool is_folder);

/* Git's wildmatch; in_path: '*' and '?' stop at '/', and a part that is ** does not. */
bool ignore_wildmatch(const char *pattern, const char *text, bool in_path);

#endif
