#include "store/transport_int.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"
#include "base/program.h"
#include "memory/base64.h"
#include "store/git_env.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

/*
 * One run of git against a remote (struct run): what it needs is made in steps, each of which can
 * fail, then the child runs to its end or to the deadline, then what it wrote is read.
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
#define NOWHERE "/nonexistent"
#define HEX_BYTES 8
#define INCOMING "refs/memfs/incoming/"

typedef enum target_kind { TO_HTTPS, TO_HTTP, TO_SSH, TO_PATH } target_kind;

static const char *const PROTOCOLS[] = {
    [TO_HTTPS] = "https", [TO_HTTP] = "http", [TO_SSH] = "ssh", [TO_PATH] = "file",
};

typedef struct run {
    const transport_target *t;
    target_kind kind;
    git_job job;
    char *git, *name; /* "memfs-<random>:" */
    char *username, *secret, *basic, *escaped; /* what must not be seen, in its three shapes */
    git_strings argv;
    git_env env;
    int secret_fd;
    memfs_buf out, tail;
} run;
#define RUN_INIT                                                                                   \
    { .secret_fd = -1, .out = MEMFS_BUF_INIT(256 * 1024), .tail = MEMFS_BUF_INIT(64 * 1024) }

static void wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void run_dispose(run *r)
{
    if (r->secret_fd >= 0)
        close(r->secret_fd);
    wipe(r->username);
    wipe(r->secret);
    wipe(r->basic);
    wipe(r->escaped);
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

static target_kind kind_of(const char *url)
{
    if (starts(url, "https://"))
        return TO_HTTPS;
    if (starts(url, "http://"))
        return TO_HTTP;
    return url[0] == '/' ? TO_PATH : TO_SSH;
}

/* url.h has checked the address long before; this is the last door. */
static memfs_code check_target(run *r, memfs_error *err)
{
    r->kind = kind_of(r->t->url);
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

static memfs_code make_name(run *r, memfs_error *err)
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

/* "host[:port]" of an http(s) address, as git's credential protocol has it. */
static memfs_str host_of(const char *url)
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
static void make_shapes(run *r)
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

static memfs_code find_secret(run *r, int64_t deadline_ms, memfs_error *err)
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

static memfs_code hand_down_secret(run *r, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf fields = MEMFS_BUF_INIT(64 * 1024);
    memfs_code rc;

    add_field(&fields, str_of(PROTOCOLS[r->kind]));
    add_field(&fields, host_of(r->t->url));
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

static memfs_code add_helper(run *r, memfs_error *err)
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
    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(usual); i++) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/.ssh/%s", home, usual[i]);

        if (access(path, R_OK) == 0)
            rc = add_ssh_file(out, "IdentityFile", path, err);
    }
    return rc;
}

static memfs_code add_ssh(run *r, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(32768);
    const char *home = getenv("HOME") != NULL ? getenv("HOME") : NOWHERE;
    _cleanup_(mem_freep) char *usual = mem_printf("%s/.ssh/known_hosts", home);
    memfs_code rc;

    buf_puts(&line, "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes "
                    "-o UpdateHostKeys=no -o ClearAllForwardings=yes -o PermitLocalCommand=no "
                    "-o ControlMaster=no -o ControlPath=none -o ConnectTimeout=10 "
                    "-o ServerAliveInterval=15 -o ServerAliveCountMax=2");
    rc = add_ssh_file(&line, "UserKnownHostsFile",
                      r->t->ssh_known_hosts != NULL ? r->t->ssh_known_hosts : usual, err);
    if (rc == MEMFS_OK)
        rc = add_ssh_keys(&line, r->t, home, err);
    if (rc < 0)
        return rc;
    git_env_add(&r->env, "GIT_SSH_COMMAND=%s", line.ptr);
    git_env_pass(&r->env, "SSH_AUTH_SOCK");
    git_env_pass(&r->env, "USER");
    git_env_pass(&r->env, "LOGNAME");
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

static void add_http_path(run *r, const char *name, const char *path)
{
    _cleanup_(mem_freep) char *key = mem_printf("http.%s.%s", r->t->url, name);

    if (path != NULL)
        git_env_config(&r->env, key, path);
}

/*
 * Who may vouch for the remote.  The system's authorities are named too: otherwise the repository's
 * own configuration could name its author's, and with curloptResolve an address to go with it.
 */
static void add_authorities(run *r)
{
    static const char *const files[] = { "/etc/ssl/certs/ca-certificates.crt", /* Debian */
                                         "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora */
                                         "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", NULL };
    static const char *const folders[] = { "/etc/ssl/certs", "/etc/pki/tls/certs", NULL };

    add_http_path(r, "sslCAInfo", r->t->ca_file != NULL ? r->t->ca_file : first_there(files));
    add_http_path(r, "sslCAPath", first_there(folders));
}

static void add_http(run *r)
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

static memfs_code make_environment(run *r, const char *git_dir, memfs_error *err)
{
    const char *home = r->kind == TO_SSH && getenv("HOME") != NULL ? getenv("HOME") : NOWHERE;
    _cleanup_(mem_freep) char *instead = mem_printf("url.%s.insteadOf", r->t->url);
    memfs_code rc = MEMFS_OK;

    git_env_begin(&r->env, r->job, home);
    git_env_add(&r->env, "GIT_ALLOW_PROTOCOL=%s", PROTOCOLS[r->kind]);
    git_env_add(&r->env, "GIT_DIR=%s", git_dir != NULL ? git_dir : NOWHERE);
    git_env_config(&r->env, instead, r->name);
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

static memfs_code find_git(char **ret, memfs_error *err)
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

/* args: NULL-terminated; the remote's name comes behind them, then `last`. */
static memfs_code prepare(run *r, const char *git_dir, const char *const *args, const char *last,
                          int64_t deadline_ms, memfs_error *err)
{
    memfs_code rc = check_target(r, err);

    if (rc == MEMFS_OK)
        rc = find_git(&r->git, err);
    if (rc == MEMFS_OK)
        rc = make_name(r, err);
    if (rc == MEMFS_OK)
        rc = find_secret(r, deadline_ms, err);
    if (rc == MEMFS_OK)
        rc = make_environment(r, git_dir, err);
    if (rc < 0)
        return rc;
    git_strings_add(&r->argv, mem_strdup(r->git));
    for (size_t i = 0; args[i] != NULL; i++)
        git_strings_add(&r->argv, mem_strdup(args[i]));
    git_strings_add(&r->argv, mem_strdup("--end-of-options"));
    git_strings_add(&r->argv, mem_strdup(r->name));
    git_strings_add(&r->argv, mem_strdup(last));
    return MEMFS_OK;
}

/* ---- running ---- */

static void tell_timeout(transport_report *ret)
{
    ret->timed_out = true;
    ret->cause = TRANSPORT_CAUSE_TIMEOUT;
    snprintf(ret->said, sizeof(ret->said), "no answer in time");
}

static void list_secrets(const run *r, const char *ret[3])
{
    ret[0] = r->secret;
    ret[1] = r->basic;
    ret[2] = r->escaped;
}

/* EUNAVAIL: it failed, *ret says how.  The error that process_run made is never passed on: it
 * quotes the child. */
static memfs_code execute(run *r, int64_t deadline_ms, transport_report *ret, memfs_error *err)
{
    process_spec spec = git_env_spec(r->job, &r->argv, &r->env, 0);
    int64_t left_ms = deadline_ms - clock_mono_ms();
    const char *secrets[3];
    memfs_code rc = MEMFS_EUNAVAIL;
    memfs_error quoted = MEMFS_ERROR_INIT;

    spec.handed_fd = r->secret_fd > 0 ? r->secret_fd : 0;
    if (left_ms > 0)
        rc = process_run(&spec, MEMFS_STR(""), &r->out, &r->tail, left_ms, &quoted);
    if (rc == MEMFS_OK)
        return MEMFS_OK;
    list_secrets(r, secrets);
    if (rc == MEMFS_EUNAVAIL && clock_mono_ms() >= deadline_ms)
        tell_timeout(ret);
    else
        transport_said(buf_str(&r->tail), secrets, ARRAY_LEN(secrets), ret);
    if (ret->said[0] == '\0' && r->tail.len == 0)
        snprintf(ret->said, sizeof(ret->said), "%.*s", (int)sizeof(ret->said) - 1, quoted.msg);
    return memfs_fail(err, MEMFS_EUNAVAIL, "%s",
                      ret->said[0] != '\0' ? ret->said : "git failed without a word");
}

/* git leaves out what comes from a clone without its history, warns, and calls that a success. */
static memfs_code check_taken(const run *r, transport_report *ret, memfs_error *err)
{
    if (r->tail.len == 0 || strstr(r->tail.ptr, "shallow roots are not allowed") == NULL)
        return MEMFS_OK;
    ret->cause = TRANSPORT_CAUSE_OTHER;
    snprintf(ret->said, sizeof(ret->said), "it is a shallow clone; 'git fetch --unshallow' there "
             "completes it");
    return memfs_fail(err, MEMFS_EUNAVAIL, "could not fetch from the remote: %s", ret->said);
}

/* A clone that somebody made with --depth: a merge needs the commits that it lacks. */
static bool is_shallow(const char *git_dir)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/shallow", git_dir);

    return access(path, F_OK) == 0;
}

memfs_code transport_fetch(const char *git_dir, const transport_target *t, const char *incoming_ref,
                           int64_t deadline_ms, transport_report *ret, memfs_error *err)
{
    const char *args[] = {
        "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-progress",
        "--no-recurse-submodules", "--no-show-forced-updates", "--refmap=",
        is_shallow(git_dir) ? "--unshallow" : NULL, NULL,
    };
    _cleanup_(run_dispose) run r = RUN_INIT;
    _cleanup_(mem_freep) char *refspec = mem_printf("+" STORE_MAIN ":%s", incoming_ref);
    memfs_code rc;

    *ret = (transport_report){ .said = "" };
    r.t = t;
    r.job = GIT_JOB_FETCH;
    if (!starts(incoming_ref, INCOMING))
        return memfs_fail(err, MEMFS_EINVALID, "a fetch goes to " INCOMING " only");
    rc = tell_own(prepare(&r, git_dir, args, refspec, deadline_ms, err), ret, err);
    if (rc == MEMFS_OK)
        rc = execute(&r, deadline_ms, ret, err);
    if (rc == MEMFS_OK)
        rc = check_taken(&r, ret, err);
    ret->is_empty = rc < 0 && strstr(ret->said, "couldn't find remote ref " STORE_MAIN) != NULL;
    if (ret->is_empty)
        return memfs_fail(err, MEMFS_ENOTFOUND, "the remote has no main");
    return rc < 0 ? memfs_context(err, "could not fetch from the remote") : rc;
}

memfs_code transport_push(const char *git_dir, const transport_target *t, const memfs_oid *id,
                          int64_t deadline_ms, transport_report *ret, memfs_error *err)
{
    static const char *const args[] = {
        "push", "--porcelain", "--no-verify", "--no-progress", "--no-follow-tags", "--no-signed",
        "--no-force-with-lease", "--recurse-submodules=no", NULL,
    };
    _cleanup_(run_dispose) run r = RUN_INIT;
    _cleanup_(mem_freep) char *refspec = NULL;
    char hex[MEMFS_OID_HEX + 1];
    const char *secrets[3];
    memfs_code rc;

    *ret = (transport_report){ .said = "" };
    r.t = t;
    r.job = GIT_JOB_PUSH;
    oid_hex(id, hex);
    refspec = mem_printf("%s:" STORE_MAIN, hex);
    rc = tell_own(prepare(&r, git_dir, args, refspec, deadline_ms, err), ret, err);
    if (rc < 0)
        return rc;
    rc = execute(&r, deadline_ms, ret, err);
    list_secrets(&r, secrets);
    /* what is said of main decides, whatever the exit status (F04) */
    if (!transport_read_push(buf_str(&r.out), buf_str(&r.tail), secrets, ARRAY_LEN(secrets), ret))
        return rc < 0 ? memfs_context(err, "could not push to the remote")
                      : memfs_fail(err, MEMFS_EUNAVAIL, "the remote did not say what became of the "
                                                        "push");
    if (ret->is_rejected) {
        ret->cause = TRANSPORT_CAUSE_NONE;
        return memfs_fail(err, MEMFS_ECONFLICT, "the remote refused the push: %s", ret->said);
    }
    return rc < 0 ? memfs_context(err, "could not push to the remote") : MEMFS_OK;
}

/* Patterns of ls-remote match the ends of names: only the exact one counts. */
static bool find_main(memfs_str listed, memfs_oid *ret)
{
    memfs_str line, hex, name;

    while (str_split(listed, '\n', &line, &listed))
        if (str_split(line, '\t', &hex, &name) && str_equal(name, MEMFS_STR(STORE_MAIN)))
            return oid_parse(hex, ret);
    return false;
}

memfs_code transport_ls(const transport_target *t, int64_t deadline_ms, memfs_oid *ret,
                        transport_report *report, memfs_error *err)
{
    static const char *const args[] = { "ls-remote", "--quiet", NULL };
    _cleanup_(run_dispose) run r = RUN_INIT;
    memfs_code rc;

    *report = (transport_report){ .said = "" };
    r.t = t;
    r.job = GIT_JOB_LS;
    rc = tell_own(prepare(&r, NULL, args, STORE_MAIN, deadline_ms, err), report, err);
    if (rc == MEMFS_OK)
        rc = execute(&r, deadline_ms, report, err);
    if (rc < 0)
        return memfs_context(err, "could not ask the remote");
    report->is_empty = !find_main(buf_str(&r.out), ret);
    return report->is_empty ? memfs_fail(err, MEMFS_ENOTFOUND, "the remote has no main") : MEMFS_OK;
}

/* ---- the user's own helpers ---- */

/* What helpers need to find their stores, their programs and their desktop. */
static const char *const HELPER_VARIABLES[] = {
    "PATH", "USER", "LOGNAME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "GNUPGHOME",
    "PASSWORD_STORE_DIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM",
    "GH_CONFIG_DIR", "GH_TOKEN", "GITHUB_TOKEN", "GCM_CREDENTIAL_STORE",
};

static char *take_value(memfs_str answer, const char *key)
{
    memfs_str line, name, value;

    while (str_split(answer, '\n', &line, &answer))
        if (str_split(line, '=', &name, &value) && str_equal(name, str_of(key)) && value.len > 0)
            return mem_strndup(value.ptr, value.len);
    return NULL;
}

static void write_question(memfs_buf *out, const char *url)
{
    memfs_str host = host_of(url);
    const char *path = host.ptr + host.len;

    buf_printf(out, "protocol=%s\nhost=", PROTOCOLS[kind_of(url)]);
    buf_add_str(out, host);
    if (path[0] == '/' && path[1] != '\0')
        buf_printf(out, "\npath=%s", path + 1);
    buf_puts(out, "\n\n");
}

memfs_code transport_ask_helpers(const char *url, int64_t deadline_ms, char **ret_username,
                                 char **ret_secret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf question = MEMFS_BUF_INIT(16384);
    _cleanup_(run_dispose) run r = RUN_INIT;
    int64_t left_ms = deadline_ms - clock_mono_ms();
    memfs_error quoted;
    process_spec spec;
    memfs_code rc = find_git(&r.git, err);

    *ret_username = *ret_secret = NULL;
    if (rc < 0)
        return rc;
    git_env_begin(&r.env, GIT_JOB_CREDENTIAL, getenv("HOME") != NULL ? getenv("HOME") : NOWHERE);
    for (size_t i = 0; i < ARRAY_LEN(HELPER_VARIABLES); i++)
        git_env_pass(&r.env, HELPER_VARIABLES[i]);
    git_env_end(&r.env);
    git_strings_add(&r.argv, mem_strdup(r.git));
    git_strings_add(&r.argv, mem_strdup("credential"));
    git_strings_add(&r.argv, mem_strdup("fill"));
    write_question(&question, url);
    spec = git_env_spec(GIT_JOB_CREDENTIAL, &r.argv, &r.env, 0);
    if (left_ms > 0 && process_run(&spec, buf_str(&question), &r.out, &r.tail, left_ms, &quoted) ==
                           MEMFS_OK) {
        *ret_username = take_value(buf_str(&r.out), "username");
        *ret_secret = take_value(buf_str(&r.out), "password");
    }
    explicit_bzero(r.out.ptr, r.out.cap);
    if (*ret_username != NULL && *ret_secret != NULL)
        return MEMFS_OK;
    wipe(TAKE_PTR(*ret_username));
    wipe(TAKE_PTR(*ret_secret));
    return memfs_fail(err, MEMFS_ENOTFOUND, "git's credential helpers have nothing for this host");
}
