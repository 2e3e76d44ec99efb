#include "cli/cli.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/remote_check.h"
#include "client/assign.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_MAX 8192
#define CHECK_WAIT_S 10

typedef struct arguments {
    const char *verb, *url;
    const char *agent, *home;
    const char *username, *token_file;
    const char *ca_file, *ssh_key, *ssh_known_hosts;
    bool from_stdin, as_json;
    uint64_t wait_s;
} arguments;

/* showing */

static void put_choice(const place *p, const backend_choice *c, json_writer *w)
{
    jw_object(w);
    jw_key_text(w, "agent_id", p->agent_id);
    jw_key_text(w, "backend", backend_name(c->backend));
    jw_key_text(w, "remote", c->has_remote ? c->target.url.text : NULL);
    jw_key_text(w, "why", c->why);
    jw_key_bool(w, "is_letta", c->is_letta);
    jw_key_bool(w, "is_misconfigured", c->is_misconfigured);
    jw_key_text(w, "credential", credential_source_name(c->target.cred.source));
    jw_key_text(w, "username", c->target.cred.username);
    jw_key_text(w, "warning", c->warning[0] != '\0' ? c->warning : NULL);
    jw_object_end(w);
}

static void print_choice(const place *p, const backend_choice *c)
{
    printf("%s  ", p->agent_id);
    cli_print_safe(str_of(c->has_remote ? c->target.url.text : "-"));
    printf("  (%s: ", backend_name(c->backend));
    cli_print_safe(str_of(c->why));
    if (c->has_remote)
        printf("; credentials: %s", credential_source_name(c->target.cred.source));
    puts(")");
    if (c->warning[0] != '\0')
        cli_talk("%s: %s", p->agent_id, c->warning);
}

typedef struct show_ctx {
    const settings *s;
    json_writer *json; /* NULL: lines */
} show_ctx;

static memfs_code show_one(const place *p, void *arg, memfs_error *err)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;
    show_ctx *ctx = arg;
    memfs_code rc = backend_choose(ctx->s, p, &c, err);

    if (rc < 0)
        return rc;
    if (ctx->json != NULL)
        put_choice(p, &c, ctx->json);
    else
        print_choice(p, &c);
    return MEMFS_OK;
}

static cli_exit show(const settings *s, const place *p, const arguments *a)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    json_writer w = JSON_WRITER_INIT(&out);
    show_ctx ctx = { s, a->as_json ? &w : NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    if (a->as_json && p == NULL)
        jw_array(&w);
    rc = p != NULL ? show_one(p, &ctx, &err) : places_each(s, show_one, &ctx, &err);
    if (rc < 0)
        return cli_fail(&err, NULL);
    if (a->as_json && p == NULL)
        jw_array_end(&w);
    if (a->as_json)
        puts(out.ptr);
    return cli_finish(EXIT_GOOD);
}

/* setting */

/* To the end; bytes past TOKEN_MAX are an error, a newline at the end is not part of it. */
static memfs_code read_token_fd(int fd, memfs_buf *out, memfs_error *err)
{
    for (;;) {
        char *room = buf_reserve(out, 512);
        ssize_t n;

        if (room == NULL)
            return buf_check(out, "the token", err);
        n = read(fd, room, 512);
        if (n < 0)
            return memfs_fail_errno(err, "could not read the token");
        if (n == 0)
            break;
        buf_grew(out, (size_t)n);
    }
    while (out->len > 0 && (out->ptr[out->len - 1] == '\n' || out->ptr[out->len - 1] == '\r'))
        buf_truncate(out, out->len - 1);
    if (out->len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "the token is empty");
    if (strlen(out->ptr) != out->len || strpbrk(out->ptr, "\r\n") != NULL)
        return memfs_fail(err, MEMFS_EINVALID, "the token is more than one line");
    return MEMFS_OK;
}

static memfs_code read_token_file(const char *path, memfs_buf *out, memfs_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    memfs_code rc;

    if (fd < 0)
        return memfs_fail_errno(err, "could not open the token file '%s'", path);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) != 0)
        rc = memfs_fail(err, MEMFS_EDENIED,
                        "the token file '%s' may be read by others: "
                        "chmod 600, and change the token if they could",
                        path);
    else
        rc = read_token_fd(fd, out, err);
    close(fd);
    return rc;
}

static memfs_code read_token(const arguments *a, memfs_buf *out, memfs_error *err)
{
    if (a->from_stdin)
        return read_token_fd(STDIN_FILENO, out, err);
    return a->token_file != NULL ? read_token_file(a->token_file, out, err) : MEMFS_OK;
}

static void say_notes(const memfs_buf *notes)
{
    memfs_str rest = buf_str(notes), line;

    while (str_split(rest, '\n', &line, &rest))
        cli_talk("%.*s", (int)line.len, line.ptr);
}

/* What holds now; says why when it is not what was just set. */
static cli_exit show_result(const settings *s, const place *p, const arguments *a)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    if (p == NULL) {
        cli_talk(a->url != NULL
                     ? "the address holds for every agent without one of its own; the next 'memfs "
                       "apply' or 'memfs sync' of each uses it"
                     : "there is no address for all agents any more");
        return a->as_json ? show(s, NULL, a) : EXIT_GOOD;
    }
    if (backend_choose(s, p, &c, &err) < 0)
        return cli_fail(&err, NULL);
    if (a->url != NULL && (!c.has_remote || strcmp(c.why, "memfs.remote of the checkout") != 0))
        cli_talk("it is set but not used: %s", c.why);
    return show(s, p, a);
}

/* Reads the settings again, which were just changed. */
static cli_exit done(const place *p, const arguments *a, const memfs_buf *notes)
{
    _cleanup_(settings_freep) settings *s = NULL;
    const setting_override home = { SETTING_HOME, a->home };
    memfs_error err = MEMFS_ERROR_INIT;

    say_notes(notes);
    if (settings_load(NULL, &home, a->home != NULL, &s, &err) < 0)
        return cli_fail(&err, NULL);
    return show_result(s, p, a);
}

static cli_exit set(const settings *s, const place *p, const arguments *a)
{
    _cleanup_(buf_dispose) memfs_buf token = MEMFS_BUF_INIT(TOKEN_MAX);
    _cleanup_(buf_dispose) memfs_buf notes = MEMFS_BUF_INIT(64 * 1024);
    _cleanup_(mem_freep) char *ca_file = a->ca_file ? cli_absolute(a->ca_file) : NULL;
    _cleanup_(mem_freep) char *ssh_key = a->ssh_key ? cli_absolute(a->ssh_key) : NULL;
    _cleanup_(mem_freep) char *hosts = a->ssh_known_hosts ? cli_absolute(a->ssh_known_hosts) : NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = read_token(a, &token, &err);

    if (rc == MEMFS_OK) {
        const assignment assigned = {
            .url = a->url,
            .username = a->username,
            .secret = token.len > 0 ? token.ptr : NULL,
            .ca_file = ca_file,
            .ssh_key = ssh_key,
            .ssh_known_hosts = hosts,
        };

        rc = assign_remote(s, p, &assigned, &notes, &err);
    }
    explicit_bzero(token.ptr, token.len);
    if (rc < 0)
        return cli_fail(&err, NULL);
    return done(p, a, &notes);
}

static cli_exit unset(const settings *s, const place *p, const arguments *a)
{
    _cleanup_(buf_dispose) memfs_buf notes = MEMFS_BUF_INIT(64 * 1024);
    memfs_error err = MEMFS_ERROR_INIT;

    if (assign_forget(s, p, &notes, &err) < 0)
        return cli_fail(&err, NULL);
    return done(p, a, &notes);
}

/* checking */

static cli_exit check(const settings *s, const place *p, const arguments *a)
{
    _cleanup_(backend_choice_dispose) backend_choice c = BACKEND_CHOICE_INIT;
    memfs_error err = MEMFS_ERROR_INIT;

    if (backend_choose(s, p, &c, &err) < 0)
        return cli_fail(&err, NULL);
    if (!c.has_remote) {
        cli_exit status = show(s, p, a);

        return status == EXIT_GOOD && c.is_misconfigured ? EXIT_USAGE : status;
    }
    return remote_check(p, &c, (int64_t)a->wait_s * 1000, a->as_json);
}

/* the command */

/* "--token x" never gets as far as an error message that repeats it. */
static bool has_token_in_argv(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--token") == 0 ||
            str_starts_with(str_of(argv[i]), MEMFS_STR("--token=")))
            return true;
    return false;
}

static bool is_verb(const char *word)
{
    return strcmp(word, "show") == 0 || strcmp(word, "set") == 0 || strcmp(word, "unset") == 0 ||
           strcmp(word, "check") == 0;
}

static const char *usage_fault(const arguments *a)
{
    bool is_set = strcmp(a->verb, "set") == 0;
    bool has_set_option = a->username || a->token_file || a->from_stdin || a->ca_file ||
                          a->ssh_key || a->ssh_known_hosts;

    if (!is_verb(a->verb))
        return "say one of show, set, unset and check";
    if (is_set != (a->url != NULL))
        return is_set ? "which address?" : "only set takes an address";
    if (!is_set && has_set_option)
        return "credentials and keys are for set";
    if (a->from_stdin && a->token_file != NULL)
        return "the token comes from stdin or from a file, not from both";
    return NULL;
}

static cli_exit run(const cli_usage *usage, arguments *a)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    const setting_override home = { SETTING_HOME, a->home };
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_template = a->url != NULL && strstr(a->url, "{agentId}") != NULL;
    const place *at = NULL;

    if (settings_load(NULL, &home, a->home != NULL, &s, &err) < 0)
        return cli_fail(&err, "'memfs config' shows and changes settings");
    if (a->agent == NULL && !is_template)
        a->agent = cli_agent(NULL); /* a template is for all, whoever asks */
    if (a->agent != NULL) {
        if (place_of(s, a->agent, &p, &err) < 0)
            return cli_fail(&err, NULL);
        at = &p;
    }
    if (strcmp(a->verb, "show") == 0)
        return show(s, at, a);
    if (strcmp(a->verb, "set") == 0)
        return set(s, at, a);
    if (strcmp(a->verb, "unset") == 0)
        return unset(s, at, a);
    if (at == NULL)
        return cli_usage_error(usage, "whose remote? (--agent ID)");
    return check(s, at, a);
}

int cmd_remote(int argc, char **argv)
{
    arguments a = { .verb = "show", .wait_s = CHECK_WAIT_S };
    const char *rest[2] = { NULL, NULL };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &a.agent, "ID", "whose remote ($LETTA_AGENT_ID, $AGENT_ID)" },
        { "username", CLI_TEXT, &a.username, "NAME", "set: the user name beside the token" },
        { "token-stdin", CLI_FLAG, &a.from_stdin, NULL, "set: read the token from stdin" },
        { "token-file", CLI_TEXT, &a.token_file, "FILE", "set: read the token from a file" },
        { "ca-file", CLI_TEXT, &a.ca_file, "FILE", "set: certificates (PEM) to check the host by" },
        { "ssh-key", CLI_TEXT, &a.ssh_key, "FILE", "set: private key for ssh" },
        { "ssh-known-hosts", CLI_TEXT, &a.ssh_known_hosts, "FILE", "set: host keys for ssh" },
        { "wait", CLI_NUMBER, &a.wait_s, "SECONDS", "check: how long the remote has (10)" },
        { "home", CLI_TEXT, &a.home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &a.as_json, NULL, "as JSON" },
    };
    const cli_usage usage = {
        "remote [show | check | unset] [--agent ID] [--json]\n"
        "       memfs remote set [--agent ID] URL [--token-stdin | --token-file FILE]",
        "The git remote of an agent's memory. set keeps the address in the checkout (without\n"
        "--agent: an address with {agentId} for all agents) and the token in secrets/; the\n"
        "checkout is brought up to date, so that the Letta key never reaches that host. check\n"
        "asks the remote and its host's API (Gitea, Forgejo, GitHub, GitLab) what it and its\n"
        "token can and cannot do, and changes nothing: exit status 0 it may be read and pushed\n"
        "to, 3 unavailable, 4 credentials refused. unset goes back to Letta's endpoint.",
        options,
        ARRAY_LEN(options),
        "  memfs remote set --agent agent-… https://git.example/me/memory.git --token-stdin < t\n"
        "  memfs remote set 'ssh://git@git.example/memory/{agentId}.git'\n"
        "  memfs remote check --agent agent-…\n",
        "show set unset check"
    };
    const char *fault;
    size_t n_rest;
    cli_exit status;

    if (has_token_in_argv(argc, argv))
        return cli_usage_error(&usage, "a token in the command line can be read by every process: "
                                       "use --token-stdin or --token-file (and change that token)");
    if (!cli_parse(&usage, argc, argv, rest, 2, &n_rest, &status))
        return status;
    if (n_rest > 0)
        a.verb = rest[0];
    a.url = rest[1];
    fault = usage_fault(&a);
    if (fault != NULL)
        return cli_usage_error(&usage, "%s", fault);
    if (a.wait_s < 1 || a.wait_s > 600)
        return cli_usage_error(&usage, "--wait is from 1 to 600 seconds");
    return run(&usage, &a);
}
