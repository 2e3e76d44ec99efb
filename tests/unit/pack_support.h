/*
 * pack_support.h - packs and objects by hand, because git refuses to make the ones that attack it.
 *
 * The format: "PACK", version 2, count; each object a varint of type and size and then a zlib
 * stream (an OFS_DELTA has the distance to its base before that); SHA-1 of it all.
 */
#ifndef MEMFS_TESTS_PACK_SUPPORT_H
#define MEMFS_TESTS_PACK_SUPPORT_H

#include "store_support.h"

#include <openssl/evp.h>
#include <zlib.h>

enum { OBJ_COMMIT = 1, OBJ_TREE = 2, OBJ_BLOB = 3, OBJ_TAG = 4, OBJ_OFS_DELTA = 6 };

typedef struct pack {
    memfs_buf bytes;
    uint32_t n;
} pack;
#define PACK_INIT { MEMFS_BUF_INIT(256u << 20), 0 }

static inline void pack_dispose(pack *p)
{
    buf_dispose(&p->bytes);
}

static inline void sha1(memfs_str bytes, uint8_t out[20])
{
    assert_int_equal(EVP_Digest(bytes.ptr, bytes.len, out, NULL, EVP_sha1(), NULL), 1);
}

static inline memfs_oid object_id(int type, memfs_str bytes)
{
    static const char *const names[] = { "", "commit", "tree", "blob", "tag" };
    _cleanup_(buf_dispose) memfs_buf whole = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_oid id;

    buf_printf(&whole, "%s %zu", names[type], bytes.len);
    buf_add(&whole, "", 1);
    buf_add_str(&whole, bytes);
    sha1(buf_str(&whole), id.id);
    return id;
}

static inline void pack_begin(pack *p)
{
    if (p->n == 0 && p->bytes.len == 0)
        buf_add(&p->bytes, "PACK\0\0\0\2\0\0\0\0", 12);
}

static inline void add_size(memfs_buf *out, int type, size_t size)
{
    unsigned char c = (unsigned char)(type << 4 | (size & 15));

    for (size >>= 4; size > 0; size >>= 7) {
        buf_putc(out, (char)(c | 0x80));
        c = size & 0x7f;
    }
    buf_putc(out, (char)c);
}

static inline void add_zlib(memfs_buf *out, memfs_str bytes)
{
    uLongf n = compressBound(bytes.len);
    char *room = buf_reserve(out, n);

    assert_non_null(room);
    assert_int_equal(compress((Bytef *)room, &n, (const Bytef *)bytes.ptr, bytes.len), Z_OK);
    buf_grew(out, n);
}

static inline memfs_oid pack_add(pack *p, int type, memfs_str bytes)
{
    pack_begin(p);
    p->n++;
    add_size(&p->bytes, type, bytes.len);
    add_zlib(&p->bytes, bytes);
    return object_id(type, bytes);
}

/* Returns where the new object begins; base is such a place. */
static inline size_t pack_add_delta(pack *p, size_t base, memfs_str delta)
{
    size_t here = p->bytes.len, distance = here - base;
    unsigned char digits[10];
    int i = 9;

    p->n++;
    add_size(&p->bytes, OBJ_OFS_DELTA, delta.len);
    digits[i] = distance & 127;
    while (distance >>= 7)
        digits[--i] = 128 | (--distance & 127);
    buf_add(&p->bytes, &digits[i], (size_t)(10 - i));
    add_zlib(&p->bytes, delta);
    return here;
}

static inline memfs_str pack_end(pack *p)
{
    uint8_t sum[20];

    pack_begin(p);
    for (int i = 0; i < 4; i++)
        p->bytes.ptr[8 + i] = (char)(p->n >> (24 - 8 * i));
    sha1(buf_str(&p->bytes), sum);
    buf_add(&p->bytes, sum, sizeof(sum));
    return buf_str(&p->bytes);
}

/* objects */

static inline void tree_add(memfs_buf *tree, const char *mode, memfs_str name, const memfs_oid *id)
{
    buf_puts(tree, mode);
    buf_putc(tree, ' ');
    buf_add_str(tree, name);
    buf_add(tree, "", 1);
    buf_add(tree, id->id, sizeof(id->id));
}

static inline memfs_oid pack_commit_dated(pack *p, const memfs_oid *tree, const memfs_oid *parent,
                                          const char *date)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    char hex[MEMFS_OID_HEX + 1];

    oid_hex(tree, hex);
    buf_printf(&text, "tree %s\n", hex);
    if (parent != NULL) {
        oid_hex(parent, hex);
        buf_printf(&text, "parent %s\n", hex);
    }
    buf_printf(&text, "author a <a@b> %s\ncommitter a <a@b> %s\n\nmessage\n", date, date);
    return pack_add(p, OBJ_COMMIT, buf_str(&text));
}

static inline memfs_oid pack_commit(pack *p, const memfs_oid *tree, const memfs_oid *parent)
{
    return pack_commit_dated(p, tree, parent, "1700000000 +0000");
}

#endif
