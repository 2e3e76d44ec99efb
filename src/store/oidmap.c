#include "store/oidmap.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>

#define SMALL_TABLE 64

void oidmap_dispose(oidmap *m)
{
    free(m->slots);
    *m = (oidmap)OIDMAP_INIT;
}

void oidmap_clear(oidmap *m)
{
    if (m->size > SMALL_TABLE) {
        oidmap_dispose(m);
        return;
    }
    if (m->n > 0)
        memset(m->slots, 0, m->size * sizeof(*m->slots));
    m->n = 0;
}

static size_t start_of(const oidmap *m, const memfs_oid *id)
{
    uint64_t word;

    memcpy(&word, id->id, sizeof(word));
    word = (word ^ m->seed) * 0x9e3779b97f4a7c15u;
    return (size_t)(word >> 20) & (m->size - 1);
}

/* The slot that holds id, or the empty one where it belongs. */
static oidmap_slot *slot_of(const oidmap *m, const memfs_oid *id)
{
    size_t at = start_of(m, id);

    while (m->slots[at].is_used && !oid_equal(&m->slots[at].id, id))
        at = (at + 1) & (m->size - 1);
    return &m->slots[at];
}

bool oidmap_get(const oidmap *m, const memfs_oid *id, size_t *ret)
{
    const oidmap_slot *slot = m->size > 0 ? slot_of(m, id) : NULL;

    if (slot == NULL || !slot->is_used)
        return false;
    *ret = slot->value;
    return true;
}

static void grow(oidmap *m)
{
    oidmap bigger = { NULL, m->n, m->size > 0 ? m->size * 2 : SMALL_TABLE, m->seed };

    if (m->size == 0)
        hash_random((uint8_t *)&bigger.seed, sizeof(bigger.seed));
    bigger.slots = mem_alloc(bigger.size * sizeof(*bigger.slots));
    for (size_t i = 0; i < m->size; i++)
        if (m->slots[i].is_used)
            *slot_of(&bigger, &m->slots[i].id) = m->slots[i];
    free(m->slots);
    *m = bigger;
}

void oidmap_put(oidmap *m, const memfs_oid *id, size_t value)
{
    oidmap_slot *slot;

    if (m->n + 1 > m->size / 2)
        grow(m);
    slot = slot_of(m, id);
    if (!slot->is_used)
        m->n++;
    *slot = (oidmap_slot){ *id, true, value };
}
