#include "base/hmac.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

/* libcrypto fails here only when it is broken itself, or without memory for a few bytes. */
static void must(bool is_fine)
{
    if (!is_fine)
        abort();
}

void hmac_begin(hmac *m, memfs_str key)
{
    static const unsigned char nothing[1];
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    /* a key of no bytes is a key, but NULL would mean the one that was set before */
    const unsigned char *bytes = key.len > 0 ? (const unsigned char *)key.ptr : nothing;
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx;

    must(mac != NULL);
    ctx = EVP_MAC_CTX_new(mac);
    EVP_MAC_free(mac); /* the context has its own reference */
    must(ctx != NULL && EVP_MAC_init(ctx, bytes, key.len, params) == 1);
    m->ctx = ctx;
}

void hmac_add(hmac *m, memfs_str piece)
{
    must(EVP_MAC_update(m->ctx, (const unsigned char *)piece.ptr, piece.len) == 1);
}

void hmac_end(hmac *m, uint8_t out[HASH_SHA256])
{
    size_t n = 0;

    must(EVP_MAC_final(m->ctx, out, &n, HASH_SHA256) == 1 && n == HASH_SHA256);
    EVP_MAC_CTX_free(m->ctx);
    m->ctx = NULL;
}
