/*
 * T25: what was handed down and what git asks, cut at the first NUL byte.  An answer comes only
 * to a question that has both of the secret's own protocol and host, and is exactly two lines.
 */
#include "fuzz.h"

#include "hook/credential.h"

#include <string.h>

static char *copy(const uint8_t *bytes, size_t n)
{
    char *text = malloc(n > 0 ? n : 1);

    if (n > 0)
        memcpy(text, bytes, n);
    return text;
}

static size_t count(memfs_str s, char c)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == c;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char good[] = "0005https0001h0001u0001s";
    const uint8_t *nul = n > 0 ? memchr(bytes, '\0', n) : NULL;
    size_t n_handed = nul != NULL ? (size_t)(nul - bytes) : n / 2;
    size_t from = nul != NULL ? n_handed + 1 : n_handed;
    char *handed = copy(bytes, n_handed), *question = copy(bytes + from, n - from);
    memfs_str asked = str_make(question, n - from);
    memfs_buf out = MEMFS_BUF_INIT(1 << 20);

    if (credential_answer(str_make(handed, n_handed), asked, &out) && out.len > 0) {
        FUZZ_CHECK(str_starts_with(buf_str(&out), MEMFS_STR("username=")));
        FUZZ_CHECK(count(buf_str(&out), '\n') == 2 && count(buf_str(&out), '\0') == 0);
    }
    buf_clear(&out);
    if (credential_answer(MEMFS_STR(good), asked, &out) && out.len > 0) {
        FUZZ_CHECK(strcmp(out.ptr, "username=u\npassword=s\n") == 0);
        FUZZ_CHECK(memmem(question, asked.len, "protocol=https\n", 15) != NULL);
        FUZZ_CHECK(memmem(question, asked.len, "host=h\n", 7) != NULL);
    }
    buf_dispose(&out);
    free(handed);
    free(question);
    return 0;
}
