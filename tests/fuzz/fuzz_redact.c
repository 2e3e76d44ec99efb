/*
 * T24, T20: anything that git or a remote may write.  The first line is a secret; it is in no
 * result.  What comes out of url_redact is one line of valid UTF-8; the reader of git's words
 * finds a cause in anything.
 */
#include "fuzz.h"

#include "base/redact.h"
#include "remote/url.h"
#include "store/transport_int.h"

#include <string.h>

static bool is_part_of(const char *secret, const char *of)
{
    return strstr(of, secret) != NULL;
}

/* "<redacted>" itself, or what stands around it, may happen to spell the secret. */
static bool is_tellable(const char *secret)
{
    return strlen(secret) >= 4 && strpbrk(secret, "<>") == NULL && !is_part_of(secret, REDACTED);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const uint8_t *end = n > 0 ? memchr(bytes, '\n', n) : NULL;
    size_t n_secret = end != NULL ? (size_t)(end - bytes) : 0;
    char *secret = strndup((const char *)bytes, n_secret);
    size_t from = end != NULL ? n_secret + 1 : 0;
    char *text = malloc(n - from > 0 ? n - from : 1);
    const char *secrets[] = { secret };
    memfs_buf out = MEMFS_BUF_INIT(1 << 22);
    transport_report report = { .said = "" };
    memfs_str s;

    memcpy(text, bytes + from, n - from);
    s = str_make(text, n - from);
    redact_add(&out, s, secrets, 1);
    if (is_tellable(secret))
        FUZZ_CHECK(memmem(out.ptr, out.len, secret, strlen(secret)) == NULL);
    buf_clear(&out);
    url_redact(&out, s);
    FUZZ_CHECK(str_utf8_valid_prefix(buf_str(&out)) == out.len);
    FUZZ_CHECK(memchr(out.ptr, '\n', out.len) == NULL && memchr(out.ptr, 0x1B, out.len) == NULL);
    transport_said(s, secrets, 1, &report);
    FUZZ_CHECK(report.cause != TRANSPORT_CAUSE_NONE && strchr(report.said, '\n') == NULL);
    report = (transport_report){ .said = "" };
    if (transport_read_push("refs/heads/main", s, s, secrets, 1, &report))
        FUZZ_CHECK(report.is_rejected || !report.was_moved);
    buf_dispose(&out);
    free(secret);
    free(text);
    return 0;
}
