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
#define DOC_TAGS "tags"
#define DOC_REPOSITORIES "repositories"
#define DOC_MEMORY "memory"
#define DOC_SEARCH "search"

/* "before" and "after"; If-None-Match; X-Memfs-Reason; the same and If-Match. */
extern const doc_field DOC_CURSORS[], DOC_KNOWN[], DOC_REASON[], DOC_CHANGE[];

/* ---- the four requests of git, below one address ---- */

extern const doc_field DOC_SERVICE[], DOC_PROTOCOL[];

#define DOC_GIT "git"
#define FETCH_TYPE(what) "application/x-git-upload-pack-" what
#define PUSH_TYPE(what) "application/x-git-receive-pack-" what

#define GIT_DOCS(base)                                                                             \
    { HTTP_GET,                                                                                    \
      base "/info/refs",                                                                           \
      DOC_GIT,                                                                                     \
      FETCH_TYPE("advertisement"),                                                                 \
      .query = { DOC_SERVICE },                                                                    \
      .headers = DOC_PROTOCOL },                                                                   \
        { HTTP_POST,                                                                               \
          base "/git-upload-pack",                                                                 \
          DOC_GIT,                                                                                 \
          FETCH_TYPE("result"),                                                                    \
          .headers = DOC_PROTOCOL,                                                                 \
          .body_type = FETCH_TYPE("request"),                                                      \
          .errors = "413 415" },                                                                   \
    {                                                                                              \
        HTTP_POST, base "/git-receive-pack", DOC_GIT, PUSH_TYPE("result"),                         \
            .body_type = PUSH_TYPE("request"), .errors = "413 415 507"                             \
    }

/* Each ends with a NULL pattern. */
extern const route_doc SHARED_DOCS[], LETTA_DOCS[], MEMORY_DOCS[];

#endif
