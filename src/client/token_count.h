/*
 * token_count.h - what a memory folder costs in the prompt, file by file, as the Letta client
 * counts (client 10).
 *
 * Counted are the regular *.md files below system/; names that begin with '.' and links are passed
 * over.  A memory in the client's second layout (MEMORY.md at the top) counts the top's own *.md
 * instead.
 *
 * Thread: any.
 */
#ifndef MEMFS_CLIENT_TOKEN_COUNT_H
#define MEMFS_CLIENT_TOKEN_COUNT_H

#include "base/error.h"

typedef struct token_file {
    char *path; /* from the memory's top */
    uint64_t tokens;
} token_file;

typedef struct token_files {
    token_file *at; /* by path, in the order of UTF-16 code units */
    size_t n;
    uint64_t total;
} token_files;
#define TOKEN_FILES_INIT { NULL, 0, 0 }
void token_files_dispose(token_files *t);

/* A folder that is not there counts nothing; one that cannot be read is an error. */
MEMFS_CHECK memfs_code token_count(const char *memory, bool may_be_second_layout, token_files *ret,
                                   memfs_error *err);

#endif
