/*
 * route_doc_int.h - for the files of rows (route_doc*.c) alone.
 *
 * What many routes take stands once, as a list of its own.  Statuses that every route of its kind
 * can answer are added where it is written (openapi.c): a row has the others.
 */
#ifndef MEMFS_SERVER_ROUTE_DOC_INT_H
#define MEMFS_SERVER_ROUTE_DOC_INT_H

#include "server/route_doc.h"

/* Ends a list of fields. */
#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, NULL, NULL                                                                     \
    }

/* Sections with rows in a file of their own. */
#define DOC_AGENTS "agents"
#define DOC_BLOCKS "blocks"

/* "before" and "after"; If-None-Match. */
extern const doc_field DOC_CURSORS[], DOC_KNOWN[];

/* Each ends with a NULL pattern. */
extern const route_doc LETTA_DOCS[];

#endif
