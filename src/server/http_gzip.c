/*
 * http_gzip.c - request bodies that come compressed (git does that to fetch requests above 1 KiB).
 *
 * One gzip member, nothing behind it.  A megabyte of zeros fits into a kilobyte, so the bounds are
 * counted while it inflates (T14): what comes out in all, and how much of it for each byte that
 * went in.  The first SLACK_BYTES are free of the second bound, since a short text may compress
 * well.
 */
#include "server/http_int.h"

#include <stdlib.h>

#define MAX_RATIO 100
#define SLACK_BYTES (64u << 10)

void http_gunzip_init(http_gunzip *g, uint64_t max_out)
{
    *g = (http_gunzip){ .max_out = max_out };
    if (inflateInit2(&g->z, 15 + 16) != Z_OK) /* 16: gzip only, no zlib wrapper */
        abort();                              /* out of memory, as in base/mem.c */
}

void http_gunzip_dispose(http_gunzip *g)
{
    inflateEnd(&g->z);
}

static memfs_code judge(http_gunzip *g, int status, memfs_error *err)
{
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        return memfs_fail(err, MEMFS_EINVALID, "the body is not gzip");
    if (g->n_out > g->max_out)
        return memfs_fail(err, MEMFS_ELIMIT, "the body inflates to more than %llu bytes",
                          (unsigned long long)g->max_out);
    if (g->n_out > SLACK_BYTES && g->n_out / MAX_RATIO > g->n_in)
        return memfs_fail(err, MEMFS_ELIMIT, "the body inflates by more than %d to 1", MAX_RATIO);
    return MEMFS_OK;
}

memfs_code http_gunzip_step(http_gunzip *g, memfs_str *in, void *out, size_t n, size_t *ret_n,
                            memfs_error *err)
{
    int status;

    *ret_n = 0;
    if (g->ended && in->len > 0)
        return memfs_fail(err, MEMFS_EINVALID, "the body goes on after the end of its gzip");
    if (g->ended)
        return MEMFS_OK;
    g->z.next_in = (Bytef *)(uintptr_t)in->ptr;
    g->z.avail_in = (uInt)in->len;
    g->z.next_out = out;
    g->z.avail_out = (uInt)n;
    status = inflate(&g->z, Z_NO_FLUSH);
    *ret_n = n - g->z.avail_out;
    g->n_in += in->len - g->z.avail_in;
    g->n_out += *ret_n;
    *in = str_from(*in, in->len - g->z.avail_in);
    g->ended = status == Z_STREAM_END;
    return judge(g, status, err);
}
