/*
 * tag_page.h - the page of a list of tags, out of tags in any order and any number (GET /v1/tags).
 *
 *     _cleanup_(tag_page_dispose) tag_page page = { .limit = 50 };
 *     rc = tag_page_add_list(&page, MEMFS_STR("[\"b\",\"a\",\"b\"]"), &err);   often
 *     tag_page_end(&page);
 *     for (size_t i = 0; i < page.n; i++) ... page.tags[i] ...
 *
 * Tags are in the order of their bytes, which is that of code points, each once.  `after` and
 * `before` are tags, relative to the order, and need not exist.  What is beyond the page is
 * forgotten on the way, so it is never held for long.
 *
 * Pure.  Thread: one at a time.
 */
#ifndef MEMFS_SERVER_TAG_PAGE_H
#define MEMFS_SERVER_TAG_PAGE_H

#include "cache/like.h"

typedef struct tag_page {
    memfs_str after, before;     /* "": no bound */
    const like_pattern *pattern; /* only tags that have it; NULL: all */
    bool descending;
    size_t limit;     /* 0: all */
    size_t max_bytes; /* of the page; twice as much may be held; 0: any */
    /* the caller reads these after tag_page_end() */
    memfs_str *tags;
    size_t n;
    /* internal */
    size_t n_room, n_bytes;
} tag_page;
void tag_page_dispose(tag_page *page);

/* ELIMIT: the page has more than max_bytes. */
MEMFS_CHECK memfs_code tag_page_add(tag_page *page, memfs_str tag, memfs_error *err);
/* Each text of a JSON array; what is none is passed over. */
MEMFS_CHECK memfs_code tag_page_add_list(tag_page *page, memfs_str tags_json, memfs_error *err);
/* Brings it in order. */
void tag_page_end(tag_page *page);

#endif
