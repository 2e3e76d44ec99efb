#include "server/tag_page.h"

#include "base/mem.h"

#include <jansson.h>
#include <stdlib.h>

/*
 * Tags are added at the end.  When there is no room left they are sorted, those that are there twice
 * or beyond the limit go, and only if that frees less than half is there more room: so a tag costs a
 * few comparisons, however many there are.
 */

#define FIRST_ROOM 128

void tag_page_dispose(tag_page *page)
{
    for (size_t i = 0; i < page->n; i++)
        free((char *)(uintptr_t)page->tags[i].ptr);
    free(page->tags);
    page->tags = NULL;
    page->n = page->n_room = page->n_bytes = 0;
}

/* ---- order ---- */

static int compare_up(const void *a, const void *b)
{
    return str_compare(*(const memfs_str *)a, *(const memfs_str *)b);
}

static int compare_down(const void *a, const void *b)
{
    return compare_up(b, a);
}

static bool is_within(const tag_page *page, memfs_str tag)
{
    memfs_str above = page->descending ? page->before : page->after;
    memfs_str below = page->descending ? page->after : page->before;

    return (above.len == 0 || str_compare(tag, above) > 0) &&
           (below.len == 0 || str_compare(tag, below) < 0) &&
           (page->pattern == NULL || like_matches(page->pattern, tag));
}

void tag_page_end(tag_page *page)
{
    size_t kept = 0;

    if (page->n > 1)
        qsort(page->tags, page->n, sizeof(*page->tags),
              page->descending ? compare_down : compare_up);
    for (size_t i = 0; i < page->n; i++) {
        memfs_str tag = page->tags[i];
        bool is_full = page->limit > 0 && kept == page->limit;

        if (!is_full && (kept == 0 || !str_equal(page->tags[kept - 1], tag))) {
            page->tags[kept++] = tag;
        } else {
            page->n_bytes -= tag.len;
            free((char *)(uintptr_t)tag.ptr);
        }
    }
    page->n = kept;
}

/* ---- adding ---- */

static void make_room(tag_page *page)
{
    tag_page_end(page);
    if (page->n < page->n_room / 2)
        return;
    page->n_room = page->n_room > 0 ? 2 * page->n_room : FIRST_ROOM;
    page->tags = mem_realloc(page->tags, page->n_room, sizeof(*page->tags));
}

memfs_code tag_page_add(tag_page *page, memfs_str tag, memfs_error *err)
{
    if (!is_within(page, tag))
        return MEMFS_OK;
    if (page->n == page->n_room)
        make_room(page);
    page->tags[page->n++] = str_make(mem_strndup(tag.ptr, tag.len), tag.len);
    page->n_bytes += tag.len;
    if (page->max_bytes == 0 || page->n_bytes / 2 <= page->max_bytes)
        return MEMFS_OK;
    tag_page_end(page); /* half of them may be there twice, or beyond the page */
    return page->n_bytes <= page->max_bytes
               ? MEMFS_OK
               : memfs_fail(err, MEMFS_ELIMIT, "the tags have more than %zu bytes",
                            page->max_bytes);
}

memfs_code tag_page_add_list(tag_page *page, memfs_str tags_json, memfs_error *err)
{
    json_t *list = json_loadb(tags_json.ptr, tags_json.len, JSON_ALLOW_NUL, NULL);
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);

        if (json_is_string(item))
            rc = tag_page_add(page, str_make(json_string_value(item), json_string_length(item)),
                              err);
    }
    json_decref(list);
    return rc;
}
