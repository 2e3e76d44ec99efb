#include "remote/credential.h"

#include "base/fs.h"
#include "base/mem.h"
#include "memory/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES (16 * 1024)

static const char *const SOURCES[CREDENTIAL_N_SOURCES] = {
    [CREDENTIAL_NONE] = "none",
    [CREDENTIAL_LETTA_KEY] = "letta-key",
    [CREDENTIAL_ENVIRONMENT] = "environment",
    [CREDENTIAL_FILE] = "file",
    [CREDENTIAL_SYSTEMD] = "systemd",
    [CREDENTIAL_SECRETS] = "secrets",
    [CREDENTIAL_GIT_HELPERS] = "git-helpers",
    [CREDENTIAL_URL] = "url",
};

const char *credential_source_name(credential_source s)
{
    return s < CREDENTIAL_N_SOURCES ? SOURCES[s] : "none";
}

static void wipe(char **text)
{
    if (*text != NULL)
        explicit_bzero(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void credential_dispose(credential *c)
{
    wipe(&c->username);
    wipe(&c->secret);
    c->source = CREDENTIAL_NONE;
}

/* ---- what a secret looks like ---- */

static bool is_printable_line(memfs_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7F)
            return false;
    return true;
}

static bool is_host(const char *host, const char *domain)
{
    memfs_str end = str_of(domain);
    memfs_str s = str_of(host);

    return str_equal(s, end) ||
           (str_ends_with(s, end) && s.ptr[s.len - end.len - 1] == '.');
}

/* Tokens that tell by their first letters whose they are: a GitHub Enterprise Server or a GitLab
 * of one's own has any name, and an app's token (ghs_) or a job's is refused under another user. */
static const char *name_by_token(memfs_str secret)
{
    static const struct {
        const char *prefix, *username;
    } rows[] = {
        { "ghp_", "x-access-token" }, { "github_pat_", "x-access-token" },
        { "gho_", "x-access-token" }, { "ghu_", "x-access-token" },
        { "ghs_", "x-access-token" }, { "glcbt-", "gitlab-ci-token" },
        { "glpat-", "oauth2" },       { "gloas-", "oauth2" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (str_starts_with(secret, str_of(rows[i].prefix)))
            return rows[i].username;
    return NULL;
}

static const char *usual_name(const remote_url *url, memfs_str secret)
{
    const char *by_token = name_by_token(secret);

    if (by_token != NULL)
        return by_token;
    if (is_host(url->host, "github.com"))
        return "x-access-token";
    if (is_host(url->host, "bitbucket.org"))
        return "x-token-auth";
    if (is_host(url->host, "gitlab.com") ||
        str_starts_with(str_of(url->host), MEMFS_STR("gitlab.")))
        return "oauth2";
    return "memfs";
}

static memfs_code give(credential_source source, memfs_str username, memfs_str secret,
                       const remote_url *url, credential *ret, memfs_error *err)
{
    if (!is_printable_line(username) || !is_printable_line(secret))
        return memfs_fail(err, MEMFS_EINVALID,
                          "the credential from %s holds a control character or line end",
                          credential_source_name(source));
    ret->source = source;
    ret->username = username.len > 0 ? mem_strndup(username.ptr, username.len)
                                     : mem_strdup(usual_name(url, secret));
    ret->secret = mem_strndup(secret.ptr, secret.len);
    return MEMFS_OK;
}

/* ---- files ---- */

/* The mode is looked at on the open file: no other can take its place in between. */
memfs_code credential_read_private(const char *path, memfs_buf *out, memfs_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    memfs_code rc = MEMFS_OK;
    struct stat st;
    ssize_t n = 1;

    if (fd < 0)
        return memfs_fail_errno(err, "could not read the secret in '%s'", path);
    if (fstat(fd, &st) < 0)
        rc = memfs_fail_errno(err, "could not read the secret in '%s'", path);
    else if (!S_ISREG(st.st_mode))
        rc = memfs_fail(err, MEMFS_EINVALID, "'%s' is no file", path);
    else if ((st.st_mode & 077) != 0)
        rc = memfs_fail(err, MEMFS_EDENIED,
                        "others may read the secret in '%s' (mode %04o): chmod 600 it, and "
                        "consider the secret known", path, (unsigned)(st.st_mode & 07777));
    while (rc == MEMFS_OK && n > 0) {
        char *room = buf_reserve(out, 4096);

        n = room != NULL ? read(fd, room, 4096) : 0;
        if (n > 0)
            buf_grew(out, (size_t)n);
    }
    if (rc == MEMFS_OK && n < 0)
        rc = memfs_fail_errno(err, "could not read the secret in '%s'", path);
    close(fd);
    return rc == MEMFS_OK ? buf_check(out, "a file with a secret", err) : rc;
}

/* *secret keeps length 0 when there is none. */
static void parse_file(memfs_str text, memfs_str *username, memfs_str *secret)
{
    memfs_str name = MEMFS_STR("username="), password = MEMFS_STR("password="), line, rest = text;
    bool is_first = true, has_more;

    do {
        has_more = str_split(rest, '\n', &line, &rest);
        if (!has_more)
            line = rest;
        if (str_ends_with(line, MEMFS_STR("\r")))
            line.len--;
        if (str_starts_with(line, name))
            *username = str_from(line, name.len);
        else if (str_starts_with(line, password))
            *secret = str_from(line, password.len);
        else if (is_first)
            *secret = line;
        is_first = false;
    } while (has_more);
}

/* ENOTFOUND: no such file. */
static memfs_code from_file(credential_source source, const char *path, const remote_url *url,
                            credential *ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_BYTES);
    memfs_str username = MEMFS_STR(""), secret = MEMFS_STR("");
    memfs_code rc = credential_read_private(path, &text, err);

    if (rc == MEMFS_OK)
        parse_file(buf_str(&text), &username, &secret);
    if (rc == MEMFS_OK && secret.len == 0)
        rc = memfs_fail(err, MEMFS_EINVALID, "there is no secret in '%s'", path);
    if (rc == MEMFS_OK)
        rc = give(source, username, secret, url, ret, err);
    explicit_bzero(text.ptr, text.cap);
    return rc;
}

/* A host as part of a file's name: brackets and colons of IPv6 become '_'. */
static char *host_name(const remote_url *url)
{
    uint16_t usual = url->kind == URL_HTTP ? 80 : 443;
    char *name = url->port == usual ? mem_strdup(url->host)
                                    : mem_printf("%s_%u", url->host, url->port);

    for (char *c = name; *c != '\0'; c++)
        if (strchr("[]:", *c) != NULL)
            *c = '_';
    return name;
}

char *credential_path(const char *memfs_home, const remote_url *url, const char *agent_id)
{
    _cleanup_(mem_freep) char *host = host_name(url);

    return agent_id != NULL ? mem_printf("%s/secrets/%s.%s", memfs_home, host, agent_id)
                            : mem_printf("%s/secrets/%s", memfs_home, host);
}

/* ---- sources, in their order; ENOTFOUND: the next one ---- */

static bool is_letta(const credential_query *q)
{
    _cleanup_(url_dispose) remote_url base = REMOTE_URL_INIT;
    memfs_error ignored;

    return q->letta_base != NULL && url_parse(q->letta_base, &base, &ignored) == MEMFS_OK &&
           url_same_origin(&base, q->url);
}

static memfs_code none(memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "no credential");
}

static memfs_code from_letta_key(const credential_query *q, credential *ret, memfs_error *err)
{
    if (q->letta_key == NULL || q->letta_key[0] == '\0' || !is_letta(q))
        return none(err);
    return give(CREDENTIAL_LETTA_KEY, MEMFS_STR("letta"), str_of(q->letta_key), q->url, ret, err);
}

static memfs_code from_url(const credential_query *q, credential *ret, memfs_error *err)
{
    if (q->url->secret == NULL)
        return none(err);
    return give(CREDENTIAL_URL, str_of(q->url->username), str_of(q->url->secret), q->url, ret, err);
}

static memfs_code from_token(const credential_query *q, credential *ret, memfs_error *err)
{
    memfs_code rc;

    if (is_letta(q))
        return none(err);
    if (q->token != NULL && q->token[0] != '\0')
        return give(CREDENTIAL_ENVIRONMENT, str_of(q->url->username), str_of(q->token), q->url, ret,
                    err);
    if (q->token_file == NULL || q->token_file[0] == '\0')
        return none(err);
    rc = from_file(CREDENTIAL_FILE, q->token_file, q->url, ret, err);
    if (rc == MEMFS_ENOTFOUND)
        return memfs_fail(err, MEMFS_EINVALID, "the token file '%s' is not there", q->token_file);
    return rc;
}

static memfs_code from_systemd(const credential_query *q, credential *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *host = host_name(q->url);
    _cleanup_(mem_freep) char *own = NULL, *general = NULL;
    memfs_code rc;

    if (q->systemd_dir == NULL || q->systemd_dir[0] != '/')
        return none(err);
    own = mem_printf("%s/memfs-%s", q->systemd_dir, host);
    rc = from_file(CREDENTIAL_SYSTEMD, own, q->url, ret, err);
    if (rc != MEMFS_ENOTFOUND || is_letta(q) || q->is_not_the_remote)
        return rc;
    general = mem_printf("%s/memfs-remote-token", q->systemd_dir);
    return from_file(CREDENTIAL_SYSTEMD, general, q->url, ret, err);
}

static memfs_code from_secrets(const credential_query *q, credential *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *own = NULL, *general = NULL;
    memfs_code rc = MEMFS_ENOTFOUND;

    if (q->memfs_home == NULL)
        return none(err);
    if (q->agent_id != NULL) {
        own = credential_path(q->memfs_home, q->url, q->agent_id);
        rc = from_file(CREDENTIAL_SECRETS, own, q->url, ret, err);
    }
    if (rc != MEMFS_ENOTFOUND)
        return rc;
    general = credential_path(q->memfs_home, q->url, NULL);
    return from_file(CREDENTIAL_SECRETS, general, q->url, ret, err);
}

memfs_code credential_find(const credential_query *q, credential *ret, memfs_error *err)
{
    static memfs_code (*const sources[])(const credential_query *, credential *, memfs_error *) = {
        from_letta_key, from_url, from_token, from_systemd, from_secrets,
    };
    memfs_code rc = MEMFS_ENOTFOUND;

    credential_dispose(ret);
    if (q->url->kind != URL_HTTPS && q->url->kind != URL_HTTP)
        return MEMFS_OK;
    for (size_t i = 0; rc == MEMFS_ENOTFOUND && i < ARRAY_LEN(sources); i++)
        rc = sources[i](q, ret, err);
    if (rc != MEMFS_ENOTFOUND)
        return rc;
    if (q->may_ask_git)
        ret->source = CREDENTIAL_GIT_HELPERS;
    return MEMFS_OK;
}

/* ---- keeping one ---- */

static memfs_code secrets_folder(const char *memfs_home, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/secrets", memfs_home);
    memfs_code rc = fs_mkdirs(folder, err);

    if (rc == MEMFS_OK && chmod(folder, 0700) < 0)
        rc = memfs_fail_errno(err, "could not make '%s' private", folder);
    return rc;
}

memfs_code credential_store(const char *memfs_home, const remote_url *url, const char *agent_id,
                            const char *username, const char *secret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = credential_path(memfs_home, url, agent_id);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_BYTES);
    memfs_code rc;

    if (secret == NULL) {
        if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
            return memfs_fail_errno(err, "could not remove a secret");
        return MEMFS_OK;
    }
    if (secret[0] == '\0' || !is_printable_line(str_of(secret)) ||
        (username != NULL && !is_printable_line(str_of(username))))
        return memfs_fail(err, MEMFS_EINVALID,
                          "a secret is one line of printable characters, and not empty");
    if (username != NULL && username[0] != '\0')
        buf_printf(&text, "username=%s\n", username);
    buf_printf(&text, "password=%s\n", secret);
    rc = buf_check(&text, "a secret", err);
    if (rc == MEMFS_OK)
        rc = secrets_folder(memfs_home, err);
    if (rc == MEMFS_OK)
        rc = fs_write_atomic(path, buf_str(&text), 0600, err);
    explicit_bzero(text.ptr, text.cap);
    return rc;
}

memfs_code credential_kept(const char *memfs_home, const remote_url *url, const char *agent_id,
                           credential *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = credential_path(memfs_home, url, agent_id);

    credential_dispose(ret);
    return from_file(CREDENTIAL_SECRETS, path, url, ret, err);
}

char *credential_extra_header(const credential *c)
{
    memfs_buf pair = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_buf line = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (c->secret == NULL)
        return mem_strdup("");
    buf_printf(&pair, "%s:%s", c->username != NULL ? c->username : "", c->secret);
    buf_puts(&line, "Authorization: Basic ");
    base64_write(buf_str(&pair), &line);
    explicit_bzero(pair.ptr, pair.cap);
    buf_dispose(&pair);
    return buf_take(&line, NULL);
}
