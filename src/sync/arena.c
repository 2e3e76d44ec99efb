#include "sync/arena.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (256u * 1024)

typedef struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    char bytes[];
} chunk;

static char *take_bytes(arena *a, size_t n)
{
    size_t size = n > CHUNK_BYTES / 4 ? n : CHUNK_BYTES;
    chunk *c = a->first;

    if (c == NULL || c->size - c->used < n) {
        c = mem_realloc(NULL, sizeof(*c) + size, 1);
        *c = (chunk){ .size = size };
        if (size == n && a->first != NULL) { /* a large one does not end the chunk in use */
            c->next = a->first->next;
            a->first->next = c;
        } else {
            c->next = a->first;
            a->first = c;
        }
    }
    c->used += n;
    a->n_bytes += n;
    return c->bytes + c->used - n;
}

memfs_str arena_copy(arena *a, memfs_str s)
{
    char *to = take_bytes(a, s.len);

    if (s.len > 0)
        memcpy(to, s.ptr, s.len);
    return str_make(to, s.len);
}

void arena_dispose(arena *a)
{
    chunk *next;

    for (chunk *c = a->first; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    *a = (arena){ 0 };
}
