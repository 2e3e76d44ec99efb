/*
 * base64.h - base64 as Python's binascii and base64 modules read and write it.
 */
#ifndef MEMFS_MEMORY_BASE64_H
#define MEMFS_MEMORY_BASE64_H

#include "base/buf.h"

/*
 * Characters that are no digits are passed over, '=' ends the text where it completes a group of
 * four, and an unfinished group is an error, as is a byte that is not ASCII: false.
 */
bool base64_read(memfs_str s, memfs_buf *out);
void base64_write(memfs_str bytes, memfs_buf *out);
/* In lines of 76 characters, each ended by a newline. */
void base64_write_lines(memfs_str bytes, memfs_buf *out);

#endif
