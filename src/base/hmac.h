/*
 * hmac.h - HMAC-SHA256, piece by piece, by OpenSSL's libcrypto.
 *
 *     hmac m;  hmac_begin(&m, key);  hmac_add(&m, piece);  …  hmac_end(&m, digest);
 *
 * Compare digests with hash_equal().  hmac_end() wipes and frees what hmac_begin() made; nothing
 * else has to be done.
 *
 * Thread: a value belongs to one thread at a time.
 */
#ifndef MEMFS_BASE_HMAC_H
#define MEMFS_BASE_HMAC_H

#include "base/hash.h"

typedef struct hmac {
    void *ctx; /* hmac.c's own */
} hmac;

void hmac_begin(hmac *m, memfs_str key);
void hmac_add(hmac *m, memfs_str piece);
void hmac_end(hmac *m, uint8_t out[HASH_SHA256]);

#endif
