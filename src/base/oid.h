/*
 * oid.h - the name of a git object (SHA-1), as a value.
 */
#ifndef MEMFS_BASE_OID_H
#define MEMFS_BASE_OID_H

#include "base/str.h"

#define MEMFS_OID_HEX 40

typedef struct memfs_oid {
    uint8_t id[20];
} memfs_oid;

/* The all-zero id: "there is none", as in a push command that creates a ref. */
bool oid_is_zero(const memfs_oid *oid);
bool oid_equal(const memfs_oid *a, const memfs_oid *b);
/* Exactly 40 lower-case hex digits. */
bool oid_parse(memfs_str hex, memfs_oid *ret);
void oid_hex(const memfs_oid *oid, char out[MEMFS_OID_HEX + 1]);

#endif
