#include "base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void hash_md5(memfs_str bytes, uint8_t out[16])
{
    if (EVP_Digest(bytes.ptr, bytes.len, out, NULL, EVP_md5(), NULL) != 1)
        abort(); /* only when libcrypto itself is broken */
}

void hash_git_blob(memfs_str bytes, memfs_oid *ret)
{
    EVP_MD_CTX *sha1 = EVP_MD_CTX_new();
    char head[32];
    int n = snprintf(head, sizeof(head), "blob %zu", bytes.len);

    if (sha1 == NULL || EVP_DigestInit_ex(sha1, EVP_sha1(), NULL) != 1 ||
        EVP_DigestUpdate(sha1, head, (size_t)n + 1) != 1 ||
        EVP_DigestUpdate(sha1, bytes.ptr, bytes.len) != 1 ||
        EVP_DigestFinal_ex(sha1, ret->id, NULL) != 1)
        abort(); /* as above */
    EVP_MD_CTX_free(sha1);
}

/* Fetched once: looking it up by name costs more than hashing a token. */
static const EVP_MD *sha256(void)
{
    static _Atomic(EVP_MD *) known;
    EVP_MD *md = atomic_load(&known), *nobody = NULL;

    if (md != NULL)
        return md;
    md = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (md == NULL)
        abort(); /* as above */
    if (atomic_compare_exchange_strong(&known, &nobody, md))
        return md;
    EVP_MD_free(md); /* another thread was first */
    return nobody;
}

void hash_sha256(memfs_str bytes, uint8_t out[HASH_SHA256])
{
    if (EVP_Digest(bytes.ptr, bytes.len, out, NULL, sha256(), NULL) != 1)
        abort(); /* as above */
}

bool hash_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

void hash_wipe(void *bytes, size_t n)
{
    OPENSSL_cleanse(bytes, n);
}

void hash_hex(const uint8_t *bytes, size_t n, char *out)
{
    str_put_hex(bytes, n, out);
}

void hash_random(uint8_t *out, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t some = getrandom(out + got, n - got, 0);

        if (some > 0)
            got += (size_t)some;
    }
}
