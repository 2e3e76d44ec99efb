#include "cli/cmd_mirror.h"

#include "base/mem.h"
#include "cli/owner.h"
#include "cli/upkeep.h"
#include "memory/ids.h"

#include <stdio.h>
#include <string.h>

const char *mirror_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

/* ---- work that the owner tells of line by line ---- */

static long long number(const json_t *result, const char *key)
{
    return (long long)json_integer_value(json_object_get(result, key));
}

static void sum_check(const json_t *result, size_t n_findings)
{
    (void)result;
    if (n_findings == 0)
        cli_talk("nothing is in the way");
}

static void sum_retry(const json_t *result, size_t n_findings)
{
    cli_talk("tried: %lld, failed: %zu", number(result, "agents"), n_findings);
}

static void sum_resolve(const json_t *result, size_t n_findings)
{
    (void)result;
    if (n_findings > 0)
        cli_talk("not all of it could be resolved; 'memfs mirror status' says what stands");
}

static void sum_verify(const json_t *result, size_t n_findings)
{
    cli_talk("agents: %lld, proofs that are missing: %zu", number(result, "agents"), n_findings);
    if (n_findings > 0)
        cli_talk("what is behind is pushed by itself; 'memfs mirror retry' does it now");
}

static json_t *target_of(const mirror_args *a)
{
    return json_pack("{s:s, s:s}", "agent", a->agent ? a->agent : "", "remote",
                     a->remote ? a->remote : "");
}

/* found: the exit status when something is amiss. */
static cli_exit work(const mirror_args *a, const char *what, json_t *body,
                     void (*summary)(const json_t *result, size_t n_findings), cli_exit found)
{
    _cleanup_(mem_freep) char *route = mem_printf("/owner/mirror/%s", what);
    size_t n_findings = 0;
    cli_exit status = upkeep_run(&(upkeep_job){ .home = a->home, .what = what, .route = route,
                                                .body = body, .as_json = a->as_json,
                                                .summary = summary },
                                 &n_findings);

    return status == EXIT_GOOD && n_findings > 0 ? found : status;
}

static cli_exit exit_of_check(const json_t *result, size_t n_findings)
{
    if (number(result, "refused") > 0)
        return EXIT_CREDENTIALS_REFUSED;
    if (number(result, "away") > 0)
        return EXIT_REMOTE_UNAVAILABLE;
    return n_findings > 0 ? EXIT_FAILED : EXIT_GOOD;
}

static cli_exit check(const mirror_args *a)
{
    return upkeep_run(&(upkeep_job){ .home = a->home, .what = "check",
                                     .route = "/owner/mirror/check", .body = target_of(a),
                                     .as_json = a->as_json, .summary = sum_check,
                                     .exit_of = exit_of_check },
                      NULL);
}

static cli_exit resolve(const mirror_args *a)
{
    json_t *body = target_of(a);
    const char *keep = a->keep_ours ? "ours" : a->keep_theirs ? "theirs" : "accept";

    json_object_set_new(body, "keep", json_string(keep));
    return work(a, "resolve", body, sum_resolve, EXIT_CONFLICT_RECORDED);
}

/* ---- sync ---- */

typedef struct synced {
    json_t *result;
} synced;

static void keep_result(const json_t *line, void *ctx)
{
    synced *s = ctx;
    json_t *result = json_object_get(line, "result");

    if (result != NULL && s->result == NULL)
        s->result = json_incref(result);
}

static cli_exit exit_of_sync(const json_t *result)
{
    if (number(result, "failed") == 0)
        return EXIT_GOOD;
    return json_is_true(json_object_get(result, "is_credentials")) ? EXIT_CREDENTIALS_REFUSED
                                                                   : EXIT_REMOTE_UNAVAILABLE;
}

static cli_exit tell_sync(const json_t *result, bool as_json)
{
    if (as_json) {
        json_dumpf(result, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (number(result, "remotes") == 0) {
        cli_talk("this agent has no remote; 'memfs mirror list' shows what is configured");
    } else if (number(result, "failed") > 0) {
        cli_talk("%s", mirror_text(result, "failure"));
    } else {
        cli_talk("in step with %lld remote(s)%s", number(result, "remotes"),
                 json_is_true(json_object_get(result, "moved")) ? "; news came in" : "");
    }
    return cli_finish(exit_of_sync(result));
}

static cli_exit sync_one(const mirror_args *a)
{
    _cleanup_(mem_freep) char *home = cli_home(a->home);
    _cleanup_(owner_closep) owner *o = NULL;
    json_t *body = json_pack("{s:s}", "agent", a->agent);
    synced s = { NULL };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc = owner_connect(home, &o, &err);
    cli_exit status;

    if (rc == MEMFS_OK)
        rc = owner_run(o, "/owner/mirror/sync", body, keep_result, &s, &err);
    status = rc == MEMFS_OK ? tell_sync(s.result, a->as_json) : cli_fail(&err, NULL);
    json_decref(body);
    json_decref(s.result);
    return status;
}

/* ---- the command ---- */

/* Which words stand after it, and what they need. */
typedef struct word_row {
    const char *word;
    size_t least, most; /* arguments after it */
    bool needs_agent;
} word_row;

static const word_row WORDS[] = {
    { "status", 0, 0, false },  { "list", 0, 0, false },   { "add", 2, 2, false },
    { "remove", 1, 1, false },  { "check", 0, 1, false },  { "retry", 0, 0, false },
    { "resolve", 0, 0, true },  { "verify", 0, 0, false }, { "sync", 0, 0, true },
};

static const word_row *find_word(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(WORDS); i++)
        if (strcmp(WORDS[i].word, word) == 0)
            return &WORDS[i];
    return NULL;
}

static bool has_add_option(const mirror_args *a)
{
    return a->direction || a->kind || a->username || a->token_file || a->from_stdin ||
           a->ca_file || a->ssh_key || a->ssh_known_hosts || a->webhook_secret_file || a->create ||
           a->no_create || a->allow_http || a->poll_s > 0;
}

static const char *usage_fault(const mirror_args *a, const word_row *row, size_t n_rest)
{
    int n_keeps = a->accept + a->keep_ours + a->keep_theirs;

    if (row == NULL)
        return "say one of status, list, add, remove, check, retry, resolve, verify and sync";
    if (n_rest < row->least)
        return strcmp(row->word, "add") == 0 ? "which name and address? (add NAME URL)"
                                             : "which remote? (remove NAME)";
    if (n_rest > row->most)
        return "too many words";
    if (a->agent != NULL && !ids_is_agent(str_of(a->agent)))
        return "--agent needs the id of an agent"; /* nothing else may come to mean all */
    if (row->needs_agent && a->agent == NULL)
        return "whose memory? (--agent ID)";
    if (strcmp(row->word, "add") != 0 && has_add_option(a))
        return "how a remote is reached is said to add";
    if (a->create && a->no_create)
        return "--create or --no-create?";
    if (a->from_stdin && a->token_file != NULL)
        return "the token comes from stdin or from a file, not from both";
    if (strcmp(row->word, "resolve") == 0 && n_keeps != 1)
        return "how? --accept, --keep-ours or --keep-theirs";
    if (strcmp(row->word, "resolve") != 0 && n_keeps != 0)
        return "--accept, --keep-ours and --keep-theirs are for resolve";
    return NULL;
}

static cli_exit run(const cli_usage *usage, mirror_args *a)
{
    if (strcmp(a->word, "status") == 0)
        return mirror_cmd_status(a);
    if (strcmp(a->word, "list") == 0)
        return mirror_cmd_list(a);
    if (strcmp(a->word, "add") == 0)
        return mirror_cmd_add(usage, a);
    if (strcmp(a->word, "remove") == 0)
        return mirror_cmd_remove(a);
    if (strcmp(a->word, "check") == 0)
        return check(a);
    if (strcmp(a->word, "retry") == 0)
        return work(a, "retry", target_of(a), sum_retry, EXIT_REMOTE_UNAVAILABLE);
    if (strcmp(a->word, "resolve") == 0)
        return resolve(a);
    if (strcmp(a->word, "verify") == 0)
        return work(a, "verify", target_of(a), sum_verify, EXIT_FAILED);
    return sync_one(a);
}

/* "--token x" never gets as far as an error message that repeats it. */
static bool has_token_in_argv(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--token") == 0 ||
            str_starts_with(str_of(argv[i]), MEMFS_STR("--token=")))
            return true;
    return false;
}

static const char SYNOPSIS[] =
    "mirror [status] [--agent ID] [--remote NAME] [--failing] [--json]\n"
    "       memfs mirror add NAME URL [--agent ID] [--no-create] [--token-stdin | --token-file FILE]\n"
    "       memfs mirror list | remove NAME | check [NAME] [--agent ID]\n"
    "       memfs mirror sync --agent ID | retry [--agent ID] [--remote NAME]\n"
    "       memfs mirror resolve --agent ID [--remote NAME] (--accept | --keep-ours | --keep-theirs)\n"
    "       memfs mirror verify [--agent ID] [--remote NAME]";

static const char TEXT[] =
    "The server's own git hosts: where every memory is pushed to, and where edits come from.\n"
    "status shows for each agent and remote how far it is, what fails, and what to do. add keeps\n"
    "the remote in $MEMFS_HOME/config and a token in secrets/; a running server uses it at once.\n"
    "Repositories that are missing there are made (private), unless --no-create says otherwise.\n"
    "An address has {agentId} in it, or is for one agent (--agent). check says what the remote and\n"
    "its token can do. sync brings one agent and its remotes in step, now; retry does that\n"
    "whatever was refused before. resolve ends what status notes. verify proves that each remote\n"
    "has the files that are here, and dates the proof. remove takes a remote out of the file, its\n"
    "token and what was known of it away, and leaves what lies there.\n"
    "\n"
    "Exit status: 4 a remote refused the credentials, else 3 one is away, else 1 something was\n"
    "found.";

static const char EXAMPLES[] =
    "  memfs mirror add origin 'https://gitea.example.com/agents/{agentId}.git' \\\n"
    "      --token-file /run/secrets/gitea\n"
    "  memfs mirror check\n"
    "  memfs mirror status --failing\n"
    "  memfs mirror resolve --agent agent-… --accept\n";

int cmd_mirror(int argc, char **argv)
{
    mirror_args a = { .word = "status" };
    const char *rest[3] = { NULL, NULL, NULL };
    const cli_option options[] = {
        { "agent", CLI_TEXT, &a.agent, "ID", "only this agent; add: the remote is for this one" },
        { "remote", CLI_TEXT, &a.remote, "NAME", "only this remote" },
        { "failing", CLI_FLAG, &a.only_trouble, NULL,
          "status: only what needs somebody; exit status 1 when there is any" },
        { "count", CLI_FLAG, &a.should_count, NULL,
          "status: count ahead and behind for all agents, not for one only" },
        { "accept", CLI_FLAG, &a.accept, NULL, "resolve: it stands as it was merged" },
        { "keep-ours", CLI_FLAG, &a.keep_ours, NULL,
          "resolve: both histories, with the files that are here" },
        { "keep-theirs", CLI_FLAG, &a.keep_theirs, NULL,
          "resolve: both histories, with the files of the remote" },
        { "direction", CLI_TEXT, &a.direction, "both|push|pull",
          "add: push is a backup that is never read, pull is never written (both)" },
        { "no-create", CLI_FLAG, &a.no_create, NULL, "add: never make a missing repository" },
        { "create", CLI_FLAG, &a.create, NULL,
          "add: make missing repositories, private (as it does without it)" },
        { "kind", CLI_TEXT, &a.kind, "KIND",
          "add: gitea, forgejo, github, gitlab or plain (asked when it is not said)" },
        { "username", CLI_TEXT, &a.username, "NAME", "add: the user name beside the token" },
        { "token-stdin", CLI_FLAG, &a.from_stdin, NULL, "add: read the token from stdin, keep it" },
        { "token-file", CLI_TEXT, &a.token_file, "FILE",
          "add: the file that holds the token, read for each use (mode 0600)" },
        { "ca-file", CLI_TEXT, &a.ca_file, "FILE", "add: certificates (PEM) to check the host by" },
        { "ssh-key", CLI_TEXT, &a.ssh_key, "FILE", "add: private key for ssh" },
        { "ssh-known-hosts", CLI_TEXT, &a.ssh_known_hosts, "FILE", "add: host keys for ssh" },
        { "webhook-secret-file", CLI_TEXT, &a.webhook_secret_file, "FILE",
          "add: what webhooks are signed with" },
        { "allow-http", CLI_FLAG, &a.allow_http, NULL,
          "add: http:// to a host that is not this machine" },
        { "poll", CLI_NUMBER, &a.poll_s, "SECONDS", "add: how often it is asked for news (60)" },
        { "home", CLI_TEXT, &a.home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &a.as_json, NULL, "as JSON" },
    };
    const cli_usage usage = {
        SYNOPSIS, TEXT, options, ARRAY_LEN(options), EXAMPLES,
        "status list add remove check retry resolve verify sync"
    };
    const word_row *row;
    const char *fault;
    size_t n_rest;
    cli_exit status;

    if (has_token_in_argv(argc, argv))
        return cli_usage_error(&usage, "a token in the command line can be read by every process: "
                                       "use --token-stdin or --token-file (and change that token)");
    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    if (n_rest > 0)
        a.word = rest[0];
    row = find_word(a.word);
    fault = usage_fault(&a, row, n_rest > 0 ? n_rest - 1 : 0);
    if (fault != NULL)
        return cli_usage_error(&usage, "%s", fault);
    a.name = rest[1];
    a.url = rest[2];
    if (strcmp(a.word, "check") == 0 && a.name != NULL)
        a.remote = a.name;
    return run(&usage, &a);
}
