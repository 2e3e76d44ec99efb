#include "store/transport_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"
#include "base/program.h"
#include "memory/base64.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

/*
 * One run of git against a remote (transport_run): what it needs is made in steps, each of which
 * can fail, then the child runs to its end or to the deadline, then what it wrote is read.
 *
 * The address is not an argument: the argument is "memfs-<random>:", and url.<address>.insteadOf
 * says what that is.  So no insteadOf in the repository's own configuration can match it (they
 * would have to know the random part), the address needs no quoting, and it is in no process
 * list.
 *
 * http.* is set as http.<address>.*: the most specific form there is, read last, so the
 * repository's own configuration cannot switch off verification or add a header for this address.
 */

#define HELPER_FD_VARIABLE "MEMFS_CREDENTIAL_FD" /* hook/credential.h */
#define HEX_BYTES 8

static const char *const PROTOCOLS[] = {
    [TO_HTTPS] = "https", [TO_HTTP] = "http", [TO_SSH] = "ssh", [TO_PATH] = "file",
};

void transport_wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

void transport_run_dispose(transport_run *r)
{
    if (r->secret_fd >= 0)
        close(r->secret_fd);
    transport_wipe(r->username);
    transport_wipe(r->secret);
    transport_wipe(r->basic);
    transport_wipe(r->escaped);
    free(r->git);
    free(r->name);
    git_strings_dispose(&r->argv);
    git_env_dispose(&r->env);
    buf_dispose(&r->out);
    buf_dispose(&r->tail);
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

transport_kind transport_kind_of(const char *url)
{
    if (starts(url, "https://"))
        return TO_HTTPS;
    if (starts(url, "http://"))
        return TO_HTTP;
    return url[0] == '/' ? TO_PATH : TO_SSH;
}

/* url.h has checked the address long before; this is the last door. */
static memfs_code check_target(transport_run *r, memfs_error *err)
{
    r->kind = transport_kind_of(r->t->url);
    if (r->t->url[0] == '-' || strstr(r->t->url, "::") == r->t->url ||
        strpbrk(r->t->url, "\r\n") != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the address of the remote is none");
    if (r->kind == TO_HTTP && !r->t->may_http)
        return memfs_fail(err, MEMFS_EDENIED,
                          "http:// is not encrypted: use https://, or allow this host "
                          "(allow-http)");
    if (r->kind == TO_PATH && !r->t->may_path)
        return memfs_fail(err, MEMFS_EDENIED, "a path is not allowed as a remote here");
    return MEMFS_OK;
}

static memfs_code make_name(transport_run *r, memfs_error *err)
{
    unsigned char bytes[HEX_BYTES];
    memfs_buf name = MEMFS_BUF_INIT(64);

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return memfs_fail_errno(err, "could not get random bytes");
    buf_puts(&name, "memfs-");
    for (size_t i = 0; i < sizeof(bytes); i++)
        buf_printf(&name, "%02x", bytes[i]);
    buf_putc(&name, ':');
    r->name = buf_take(&name, NULL);
    return MEMFS_OK;
}

/* ---- the credential ---- */

const char *transport_protocol(transport_kind kind)
{
    return PROTOCOLS[kind];
}

memfs_str transport_host_of(const char *url)
{
    const char *start = strstr(url, "://") + 3;

    return str_make(start, strcspn(start, "/"));
}

static void add_field(memfs_buf *out, memfs_str s)
{
    buf_printf(out, "%04zx", s.len);
    buf_add_str(out, s);
}

static bool has_control(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F)
            return true;
    return false;
}

/* The shapes in which a program that fails may echo a secret: as it is, as a header, in an
 * address. */
static void make_shapes(transport_run *r)
{
    memfs_buf pair = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_buf basic = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_buf escaped = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    buf_printf(&pair, "%s:%s", r->username, r->secret);
    base64_write(buf_str(&pair), &basic);
    for (const char *c = r->secret; *c != '\0'; c++)
        if (strchr("%@:/?#[]!$&'()*+,;=", *c) != NULL || (unsigned char)*c <= ' ')
            buf_printf(&escaped, "%%%02X", (unsigned char)*c);
        else
            buf_putc(&escaped, *c);
    r->basic = buf_take(&basic, NULL);
    r->escaped = buf_take(&escaped, NULL);
    explicit_bzero(pair.ptr, pair.cap);
    buf_dispose(&pair);
}

static memfs_code find_secret(transport_run *r, int64_t deadline_ms, memfs_error *err)
{
    memfs_error ignored;

    if (r->kind != TO_HTTPS && r->kind != TO_HTTP)
        return MEMFS_OK;
    if (r->t->secret != NULL) {
        r->username = mem_strdup(r->t->username != NULL ? r->t->username : "memfs");
        r->secret = mem_strdup(r->t->secret);
    } else if (!r->t->ask_git_helpers ||
               transport_ask_helpers(r->t->url, deadline_ms, &r->username, &r->secret, &ignored) <
                   0) {
        return MEMFS_OK; /* the remote may be open to all */
    }
    if (has_control(r->username) || has_control(r->secret) || strlen(r->secret) > 0x4000)
        return memfs_fail(err, MEMFS_EINVALID, "the credential holds a control character");
    make_shapes(r);
    return MEMFS_OK;
}

static memfs_code hand_down_secret(transport_run *r, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf fields = MEMFS_BUF_INIT(64 * 1024);
    memfs_code rc;

    add_field(&fields, str_of(PROTOCOLS[r->kind]));
    add_field(&fields, transport_host_of(r->t->url));
    add_field(&fields, str_of(r->username));
    add_field(&fields, str_of(r->secret));
    rc = buf_check(&fields, "a credential", err);
    if (rc == MEMFS_OK)
        rc = process_secret_fd(buf_str(&fields), &r->secret_fd, err);
    explicit_bzero(fields.ptr, fields.cap);
    return rc;
}

/* One word for the shell that git starts helpers and ssh with. */
static void quote(memfs_buf *out, const char *s)
{
    buf_putc(out, '\'');
    for (; *s != '\0'; s++)
        if (*s == '\'')
            buf_puts(out, "'\\''");
        else
            buf_putc(out, *s);
    buf_putc(out, '\'');
}

static memfs_code add_helper(transport_run *r, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(16384);
    _cleanup_(mem_freep) char *found = NULL;
    memfs_code rc = MEMFS_OK;

    if (r->secret == NULL)
        return MEMFS_OK;
    if (r->t->hook_program != NULL)
        found = mem_strdup(r->t->hook_program);
    else
        rc = program_path(PROGRAM_HOOK, &found, err);
    if (rc == MEMFS_OK)
        rc = hand_down_secret(r, err);
    if (rc < 0)
        return rc;
    buf_putc(&line, '!');
    quote(&line, found);
    buf_puts(&line, " credential");
    git_env_config(&r->env, "credential.helper", line.ptr);
    git_env_add(&r->env, HELPER_FD_VARIABLE "=%d", PROCESS_HANDED_FD);
    return MEMFS_OK;
}

/* ---- ssh ---- */

/* HOME of the child: only a person's ssh has one. */
static const char *home_of(const transport_run *r)
{
    const char *home = getenv("HOME");

    return r->kind == TO_SSH && !r->t->is_server && home != NULL ? home : TRANSPORT_NOWHERE;
}

/* As a value of ssh's -o: '%' and quotes have a meaning of their own there. */
static memfs_code add_ssh_file(memfs_buf *out, const char *option, const char *path,
                               memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(8192);

    if (path[0] != '/' || strpbrk(path, "\"\\$\r\n") != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "ssh cannot take the file name '%s': an absolute path without quotes, "
                          "backslashes and '$' is needed", path);
    buf_printf(&value, "%s=\"", option);
    for (; *path != '\0'; path++) {
        buf_puts(&value, *path == '%' ? "%" : "");
        buf_putc(&value, *path);
    }
    buf_putc(&value, '"');
    buf_puts(out, " -o ");
    quote(out, value.ptr);
    return MEMFS_OK;
}

/* ssh looks in the home folder of the password file; ours is $HOME, as for everything else. */
static memfs_code add_ssh_keys(memfs_buf *out, const transport_target *t, const char *home,
                               memfs_error *err)
{
    static const char *const usual[] = { "id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk",
                                         "id_ecdsa_sk" };
    memfs_code rc = MEMFS_OK;

    if (t->ssh_key != NULL) {
        buf_puts(out, " -o IdentitiesOnly=yes");
        return add_ssh_file(out, "IdentityFile", t->ssh_key, err);
    }
    for (size_t i = 0; rc == MEMFS_OK && !t->is_server && i < ARRAY_LEN(usual); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/.ssh/%s", home, usual[i]);

        if (access(path, R_OK) == 0)
            rc = add_ssh_file(out, "IdentityFile", path, err);
    }
    return rc;
}

/* Whoever runs the server: neither their agent and keys nor hosts that they once trusted. */
static memfs_code add_ssh_server(memfs_buf *out, const transport_target *t, memfs_error *err)
{
    buf_puts(out, " -o IdentityAgent=none -o IdentitiesOnly=yes -o GlobalKnownHostsFile=/dev/null");
    if (t->ssh_key == NULL)
        buf_puts(out, " -o IdentityFile=none"); /* or it would look for the usual names */
    return add_ssh_file(out, "UserKnownHostsFile",
                        t->ssh_known_hosts != NULL ? t->ssh_known_hosts : "/dev/null", err);
}

static memfs_code add_ssh_user(transport_run *r, memfs_buf *out, const char *home,
                               memfs_error *err)
{
    _cleanup_(mem_freep) char *usual = mem_printf("%s/.ssh/known_hosts", home);

    git_env_pass(&r->env, "SSH_AUTH_SOCK");
    git_env_pass(&r->env, "USER");
    git_env_pass(&r->env, "LOGNAME");
    return add_ssh_file(out, "UserKnownHostsFile",
                        r->t->ssh_known_hosts != NULL ? r->t->ssh_known_hosts : usual, err);
}

static memfs_code add_ssh(transport_run *r, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(32768);
    const char *home = home_of(r);
    memfs_code rc;

    buf_puts(&line, "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes "
                    "-o UpdateHostKeys=no -o ClearAllForwardings=yes -o PermitLocalCommand=no "
                    "-o ControlMaster=no -o ControlPath=none -o ConnectTimeout=10 "
                    "-o ServerAliveInterval=15 -o ServerAliveCountMax=2");
    rc = r->t->is_server ? add_ssh_server(&line, r->t, err) : add_ssh_user(r, &line, home, err);
    if (rc == MEMFS_OK)
        rc = add_ssh_keys(&line, r->t, home, err);
    if (rc < 0)
        return rc;
    git_env_add(&r->env, "GIT_SSH_COMMAND=%s", line.ptr);
    return MEMFS_OK;
}

/* ---- environment ---- */

static const char *first_there(const char *const *paths)
{
    for (; *paths != NULL; paths++)
        if (access(*paths, R_OK) == 0)
            return *paths;
    return NULL;
}

static void add_http_path(transport_run *r, const char *name, const char *path)
{
    _cleanup_(mem_freep) char *key = mem_printf("http.%s.%s", r->t->url, name);

    if (path != NULL)
        git_env_config(&r->env, key, path);
}

/*
 * Who may vouch for the remote.  The system's authorities are named too: otherwise the repository's
 * own configuration could name its author's, and with curloptResolve an address to go with it.
 */
static void add_authorities(transport_run *r)
{
    static const char *const files[] = { "/etc/ssl/certs/ca-certificates.crt", /* Debian */
                                         "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora */
                                         "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", NULL };
    static const char *const folders[] = { "/etc/ssl/certs", "/etc/pki/tls/certs", NULL };

    add_http_path(r, "sslCAInfo", r->t->ca_file != NULL ? r->t->ca_file : first_there(files));
    add_http_path(r, "sslCAPath", first_there(folders));
}

static void add_http(transport_run *r)
{
    static const struct {
        const char *name, *value;
    } rows[] = {
        { "followRedirects", "false" }, { "proxy", "" },          { "sslVerify", "true" },
        { "sslVersion", "tlsv1.2" },    { "saveCookies", "false" }, { "lowSpeedLimit", "1000" },
        { "lowSpeedTime", "30" },       { "emptyAuth", "false" }, { "extraHeader", "" },
        { "sslTry", "false" },          { "curloptResolve", "" }, { "cookieFile", "" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        _cleanup_(mem_freep) char *key = mem_printf("http.%s.%s", r->t->url, rows[i].name);

        git_env_config(&r->env, key, rows[i].value);
    }
    add_authorities(r);
}

static memfs_code make_environment(transport_run *r, const char *git_dir, memfs_error *err)
{
    _cleanup_(mem_freep) char *instead = mem_printf("url.%s.insteadOf", r->t->url);
    memfs_code rc = MEMFS_OK;

    git_env_begin(&r->env, r->job, home_of(r));
    git_env_add(&r->env, "GIT_ALLOW_PROTOCOL=%s", PROTOCOLS[r->kind]);
    git_env_add(&r->env, "GIT_DIR=%s", git_dir != NULL ? git_dir : TRANSPORT_NOWHERE);
    git_env_config(&r->env, instead, r->name);
    if (r->is_throw_away)
        git_env_config(&r->env, "core.fsync", "none");
    if (git_dir != NULL)
        git_env_config(&r->env, "safe.directory", git_dir);
    if (r->kind == TO_HTTPS || r->kind == TO_HTTP)
        add_http(r);
    if (r->kind == TO_SSH)
        rc = add_ssh(r, err);
    if (rc == MEMFS_OK)
        rc = add_helper(r, err);
    if (rc == MEMFS_OK)
        git_env_end(&r->env);
    return rc;
}

memfs_code transport_find_git(char **ret, memfs_error *err)
{
    *ret = git_env_find();
    if (*ret == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, "git is not installed: version 2.36 or newer is "
                                               "needed in /usr/bin or in PATH");
    return MEMFS_OK;
}

/* What stopped us before anybody was asked is told where the remote's words would be. */
static memfs_code tell_own(memfs_code rc, transport_report *ret, const memfs_error *err)
{
    if (rc < 0) {
        ret->cause = TRANSPORT_CAUSE_OTHER;
        escape_text(str_of(err->msg), ret->said, sizeof(ret->said));
    }
    return rc;
}

static memfs_code make(transport_run *r, const char *git_dir, int64_t deadline_ms,
                       memfs_error *err)
{
    memfs_code rc = check_target(r, err);

    if (rc == MEMFS_OK)
        rc = transport_find_git(&r->git, err);
    if (rc == MEMFS_OK)
        rc = make_name(r, err);
    if (rc == MEMFS_OK)
        rc = find_secret(r, deadline_ms, err);
    if (rc == MEMFS_OK)
        rc = make_environment(r, git_dir, err);
    return rc;
}

memfs_code transport_prepare(transport_run *r, const char *git_dir, const char *const *args,
                             const char *const *refs, int64_t deadline_ms, transport_report *ret,
                             memfs_error *err)
{
    memfs_code rc;

    *ret = (transport_report){ .said = "" };
    rc = tell_own(make(r, git_dir, deadline_ms, err), ret, err);
    if (rc < 0)
        return rc;
    git_strings_add(&r->argv, mem_strdup(r->git));
    for (; *args != NULL; args++)
        git_strings_add(&r->argv, mem_strdup(*args));
    git_strings_add(&r->argv, mem_strdup("--end-of-options"));
    git_strings_add(&r->argv, mem_strdup(r->name));
    for (; *refs != NULL; refs++)
        git_strings_add(&r->argv, mem_strdup(*refs));
    return MEMFS_OK;
}

/* ---- running ---- */

static void tell_timeout(transport_report *ret)
{
    ret->timed_out = true;
    ret->cause = TRANSPORT_CAUSE_TIMEOUT;
    snprintf(ret->said, sizeof(ret->said), "no answer in time");
}

void transport_secrets(const transport_run *r, const char *ret[TRANSPORT_N_SECRETS])
{
    ret[0] = r->secret;
    ret[1] = r->basic;
    ret[2] = r->escaped;
}

/*
 * git asked for what it was to be given: our helper was killed, or could not be started.  Of a token
 * that is refused it says "Authentication failed".
 */
static void tell_helper(const transport_run *r, transport_report *ret)
{
    if (r->secret == NULL || ret->cause != TRANSPORT_CAUSE_UNAUTHORIZED ||
        strstr(ret->said, "could not read ") == NULL)
        return;
    *ret = (transport_report){ .cause = TRANSPORT_CAUSE_OTHER };
    snprintf(ret->said, sizeof(ret->said), "the credential could not be handed to git here");
}

/* The error that process_run made is never passed on: it quotes the child. */
memfs_code transport_execute(transport_run *r, uint64_t max_bytes, int64_t deadline_ms,
                             transport_report *ret, memfs_error *err)
{
    process_spec spec = git_env_spec(r->job, &r->argv, &r->env, max_bytes);
    const char *secrets[TRANSPORT_N_SECRETS];
    memfs_code rc = MEMFS_EUNAVAIL;
    memfs_error quoted = MEMFS_ERROR_INIT;
    int64_t left_ms;

    spec.handed_fd = r->secret_fd > 0 ? r->secret_fd : 0;
    if (!transport_reach(r, deadline_ms)) {
        tell_timeout(ret);
        return memfs_fail(err, MEMFS_EUNAVAIL, "%s", ret->said);
    }
    left_ms = deadline_ms - clock_mono_ms();
    if (left_ms > 0)
        rc = process_run(&spec, MEMFS_STR(""), &r->out, &r->tail, left_ms, &quoted);
    if (rc == MEMFS_OK)
        return MEMFS_OK;
    transport_secrets(r, secrets);
    if (rc == MEMFS_EUNAVAIL && clock_mono_ms() >= deadline_ms)
        tell_timeout(ret);
    else
        transport_said(buf_str(&r->tail), secrets, ARRAY_LEN(secrets), ret);
    tell_helper(r, ret);
    if (ret->said[0] == '\0' && r->tail.len == 0)
        snprintf(ret->said, sizeof(ret->said), "%.*s", (int)sizeof(ret->said) - 1, quoted.msg);
    return memfs_fail(err, MEMFS_EUNAVAIL, "%s",
                      ret->said[0] != '\0' ? ret->said : "git failed without a word");
}
