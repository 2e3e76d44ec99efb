#include "hook/credential.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct handed_secret {
    memfs_str protocol, host, username, secret;
} handed_secret;

/* A value with a line end would be another attribute to git (T25). */
static bool is_one_line(memfs_str s)
{
    return memchr(s.ptr, '\n', s.len) == NULL && memchr(s.ptr, '\r', s.len) == NULL &&
           memchr(s.ptr, '\0', s.len) == NULL;
}

static bool take_field(memfs_str *rest, memfs_str *ret)
{
    size_t n = 0;

    if (rest->len < 4)
        return false;
    for (size_t i = 0; i < 4; i++) {
        int digit = str_hex_digit(rest->ptr[i]);

        if (digit < 0)
            return false;
        n = n * 16 + (size_t)digit;
    }
    *rest = str_from(*rest, 4);
    if (n > rest->len)
        return false;
    *ret = str_make(rest->ptr, n);
    *rest = str_from(*rest, n);
    return is_one_line(*ret);
}

static bool take_secret(memfs_str handed, handed_secret *ret)
{
    return take_field(&handed, &ret->protocol) && take_field(&handed, &ret->host) &&
           take_field(&handed, &ret->username) && take_field(&handed, &ret->secret) &&
           handed.len == 0;
}

/* The value of key in git's question; the last one counts, as it does for git. */
static bool find_value(memfs_str question, const char *key, memfs_str *ret)
{
    memfs_str line, name, value;
    bool was_found = false;

    while (str_split(question, '\n', &line, &question) && line.len > 0) {
        if (!str_split(line, '=', &name, &value) || !str_equal(name, str_of(key)))
            continue;
        *ret = value;
        was_found = true;
    }
    return was_found;
}

bool credential_answer(memfs_str handed, memfs_str question, memfs_buf *out)
{
    memfs_str protocol, host;
    handed_secret secret;

    if (!take_secret(handed, &secret))
        return false;
    if (!find_value(question, "protocol", &protocol) || !find_value(question, "host", &host) ||
        !str_equal(protocol, secret.protocol) || !str_equal(host, secret.host))
        return true;
    buf_puts(out, "username=");
    buf_add_str(out, secret.username);
    buf_puts(out, "\npassword=");
    buf_add_str(out, secret.secret);
    buf_putc(out, '\n');
    return true;
}

static bool read_stdin(memfs_buf *out)
{
    char chunk[4096];
    ssize_t n;

    while ((n = read(STDIN_FILENO, chunk, sizeof(chunk))) != 0) {
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            buf_add(out, chunk, (size_t)n);
    }
    return !out->too_big;
}

/* From its start, whoever read it before: git may ask more than once. */
static bool read_handed(memfs_buf *out)
{
    const char *text = getenv(CREDENTIAL_FD_VARIABLE);
    char chunk[4096];
    uint64_t fd;
    ssize_t n;

    if (text == NULL || !str_to_u64(str_of(text), 1023, &fd))
        return false;
    while ((n = pread((int)fd, chunk, sizeof(chunk), (off_t)out->len)) > 0)
        buf_add(out, chunk, (size_t)n);
    explicit_bzero(chunk, sizeof(chunk));
    return n == 0 && !out->too_big;
}

static bool write_all(memfs_str s)
{
    while (s.len > 0) {
        ssize_t n = write(STDOUT_FILENO, s.ptr, s.len);

        if (n < 0 && errno != EINTR)
            return false;
        s = str_from(s, n > 0 ? (size_t)n : 0);
    }
    return true;
}

int hook_credential(int argc, char **argv)
{
    _cleanup_(buf_dispose) memfs_buf handed = MEMFS_BUF_INIT(CREDENTIAL_MAX_BYTES);
    _cleanup_(buf_dispose) memfs_buf question = MEMFS_BUF_INIT(CREDENTIAL_MAX_BYTES);
    _cleanup_(buf_dispose) memfs_buf answer = MEMFS_BUF_INIT(2 * CREDENTIAL_MAX_BYTES);
    bool ok;

    if (argc < 2 || strcmp(argv[1], "get") != 0)
        return 0; /* store, erase, and what git may think of later */
    ok = read_stdin(&question) && read_handed(&handed) &&
         credential_answer(buf_str(&handed), buf_str(&question), &answer) &&
         write_all(buf_str(&answer));
    explicit_bzero(handed.ptr, handed.cap);
    explicit_bzero(answer.ptr, answer.cap);
    return ok ? 0 : 1;
}
