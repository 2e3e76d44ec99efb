/*
 * T14: any bytes as a gzip body, in pieces whose size the first byte chooses.  However little goes
 * in, no more than the bound comes out, and it ends.
 */
#include "fuzz.h"

#include "server/http_int.h"

#define MAX_OUT (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    size_t piece = n > 0 ? bytes[0] + 1u : 1, total = 0, n_out;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = MEMFS_OK;
    char out[512];
    http_gunzip g;

    http_gunzip_init(&g, MAX_OUT);
    for (size_t at = 1; at < n && rc == MEMFS_OK; at += piece) {
        memfs_str in = str_make((const char *)bytes + at, n - at < piece ? n - at : piece);

        do {
            size_t left = in.len;

            rc = http_gunzip_step(&g, &in, out, sizeof(out), &n_out, &err);
            total += n_out;
            FUZZ_CHECK(n_out <= sizeof(out) && in.len <= left);
            FUZZ_CHECK(total <= MAX_OUT + sizeof(out));
            if (n_out == 0 && in.len == left)
                break; /* nothing moves any more: it has ended, or it needs more */
        } while (rc == MEMFS_OK && (in.len > 0 || n_out > 0));
    }
    http_gunzip_dispose(&g);
    return 0;
}
