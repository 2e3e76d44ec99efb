/*
 * escape.h - foreign text made fit for a line of our own (reliability T20).
 *
 * Control bytes, DEL, C1 controls, bidi controls, line and paragraph separators and bytes that are
 * no UTF-8 become \xNN, byte by byte; a backslash becomes \\.  What comes out is one line of valid
 * UTF-8 that no terminal acts on.
 */
#ifndef MEMFS_BASE_ESCAPE_H
#define MEMFS_BASE_ESCAPE_H

#include "base/buf.h"

/* True for code points that move the cursor, the line or the direction of text. */
bool escape_is_control(uint32_t cp);
void escape_add(memfs_buf *out, memfs_str text);
/* The same into a fixed array (size >= 4), ending in "..." when it does not fit.  Returns out. */
char *escape_text(memfs_str text, char *out, size_t size);

#endif
