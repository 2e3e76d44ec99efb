#include "base/hash.h"

#include <openssl/evp.h>
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
