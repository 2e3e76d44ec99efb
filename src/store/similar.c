#include "store/similar.h"

#include "base/mem.h"
#include "memory/merge.h"

#include <stdlib.h>

#define MAX_BYTES (1u << 20)

static int compare_lines(const void *a, const void *b)
{
    const similar_line *x = a, *y = b;

    return (x->hash > y->hash) - (x->hash < y->hash);
}

static uint64_t hash_line(memfs_str text)
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (unsigned char)text.ptr[i]) * 1099511628211u;
    return hash;
}

static size_t count_lines(memfs_str text)
{
    size_t n = 1;

    for (size_t i = 0; i < text.len; i++)
        n += text.ptr[i] == '\n';
    return n;
}

static void shape_of(memfs_str text, similar_shape *ret)
{
    ret->lines = mem_alloc(count_lines(text) * sizeof(*ret->lines));
    ret->bytes = text.len;
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t n = end != NULL ? (size_t)(end - text.ptr) + 1 : text.len;
        memfs_str bare = str_make(text.ptr, end != NULL ? n - 1 : n);

        ret->lines[ret->n++] = (similar_line){ hash_line(bare), n };
        text = str_from(text, n);
    }
    qsort(ret->lines, ret->n, sizeof(*ret->lines), compare_lines);
}

memfs_code similar_read(repo *r, const memfs_oid *id, similar_shape *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_BYTES);
    uint64_t bytes;
    memfs_code rc = repo_blob_size(r, id, &bytes, err);

    if (rc < 0 || bytes > MAX_BYTES)
        return rc;
    rc = repo_blob(r, id, MAX_BYTES, &text, err);
    if (rc == MEMFS_OK && merge_is_text(buf_str(&text)))
        shape_of(buf_str(&text), ret);
    return rc;
}

void similar_dispose(similar_shape *s)
{
    free(s->lines);
    s->lines = NULL;
}

unsigned similar_percent(const similar_shape *a, const similar_shape *b)
{
    uint64_t larger = a->bytes > b->bytes ? a->bytes : b->bytes;
    uint64_t smaller = a->bytes > b->bytes ? b->bytes : a->bytes;
    uint64_t common = 0;

    if (a->lines == NULL || b->lines == NULL || larger == 0 ||
        smaller * 100 < larger * SIMILAR_AT_LEAST)
        return 0;
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        if (a->lines[i].hash != b->lines[j].hash) {
            if (a->lines[i].hash < b->lines[j].hash)
                i++;
            else
                j++;
            continue;
        }
        common += a->lines[i].bytes < b->lines[j].bytes ? a->lines[i].bytes : b->lines[j].bytes;
        i++;
        j++;
    }
    return (unsigned)(common * 100 / larger);
}
