/*
 * hash.h - a digest, by OpenSSL's libcrypto, and randomness.
 *
 * MD5 only names blocks (block-format 6), SHA-1 only git's objects; nothing here guards a secret
 * with either.
 */
#ifndef MEMFS_BASE_HASH_H
#define MEMFS_BASE_HASH_H

#include "base/oid.h"
#include "base/str.h"

void hash_md5(memfs_str bytes, uint8_t out[16]);
/* The name that git would give a blob of these bytes. */
void hash_git_blob(memfs_str bytes, memfs_oid *ret);
#define HASH_SHA256 32
void hash_sha256(memfs_str bytes, uint8_t out[HASH_SHA256]);
/* The same bytes?  Takes as long whatever they are: for secrets and what is made of them (S5). */
bool hash_equal(const uint8_t *a, const uint8_t *b, size_t n);
/* Zeroes that no compiler leaves out. */
void hash_wipe(void *bytes, size_t n);
/* n bytes as 2n lower-case hex digits and a NUL. */
void hash_hex(const uint8_t *bytes, size_t n, char *out);
/* n random bytes from the operating system. */
void hash_random(uint8_t *out, size_t n);

#endif
