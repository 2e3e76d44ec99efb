#include "cli/upkeep.h"

#include "base/oid.h"

#include <string.h>
#include <unistd.h>

#define SECRET_MAX (64u * 1024)

static void summary(const json_t *result, size_t n_findings)
{
    const char *tip = json_string_value(json_object_get(result, "new_tip"));

    (void)n_findings;
    cli_talk("%lld texts replaced in %lld commits; the branch is now at %s",
             (long long)json_integer_value(json_object_get(result, "blobs")),
             (long long)json_integer_value(json_object_get(result, "commits")),
             tip != NULL ? tip : "?");
    cli_talk("the secret itself has leaked: revoke it.  Checkouts still hold it: delete and clone "
             "them again.  Remotes hold it until main or the repository is deleted there; then 'memfs "
             "mirror retry' pushes anew.  Backups made before this hold it too");
}

/* The secret comes on stdin, so that no process list ever shows it. */
static memfs_code read_secret(memfs_buf *out, memfs_error *err)
{
    for (;;) {
        char *room = buf_reserve(out, 4096);
        ssize_t n;

        if (room == NULL)
            return buf_check(out, "the secret", err);
        n = read(STDIN_FILENO, room, 4096);
        if (n < 0)
            return memfs_fail_errno(err, "could not read stdin");
        if (n == 0)
            break;
        buf_grew(out, (size_t)n);
    }
    if (out->len > 0 && out->ptr[out->len - 1] == '\n')
        buf_truncate(out, out->len - 1);
    if (out->len < 4)
        return memfs_fail(err, MEMFS_EINVALID, "the secret on stdin has fewer than 4 bytes");
    return MEMFS_OK;
}

int cmd_purge(int argc, char **argv)
{
    _cleanup_(buf_dispose) memfs_buf secret = MEMFS_BUF_INIT(SECRET_MAX);
    const char *home = NULL, *agent = NULL, *blob = NULL;
    bool from_stdin = false, dry_run = false, as_json = false;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &agent, "ID", "whose memory" },
        { "secret-stdin", CLI_FLAG, &from_stdin, NULL, "read the leaked text from stdin" },
        { "blob", CLI_TEXT, &blob, "ID", "the object to replace whole (40 hex digits)" },
        { "dry-run", CLI_FLAG, &dry_run, NULL, "only say what would be replaced" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object at the end" },
    };
    const cli_usage usage = {
        "purge --agent ID (--secret-stdin | --blob ID) [--dry-run] [--json]",
        "Takes a leaked secret out of a memory: out of every commit, its message, the blocks, the\n"
        "reflog and the packs.  The text becomes \"[purged]\".  This rewrites history, so checkouts\n"
        "must be cloned again, and the removed objects may never be pushed again.",
        options, ARRAY_LEN(options),
        "  memfs purge --agent agent-… --secret-stdin < leaked.txt\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_oid id;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    agent = cli_agent(agent);
    if (agent == NULL)
        return cli_usage_error(&usage, "whose memory? (--agent ID)");
    if (from_stdin == (blob != NULL))
        return cli_usage_error(&usage, "what is to go: --secret-stdin or --blob ID?");
    if (blob != NULL && !oid_parse(str_of(blob), &id))
        return cli_usage_error(&usage, "--blob needs 40 hex digits, not '%s'", blob);
    if (from_stdin && read_secret(&secret, &err) < 0)
        return cli_fail(&err, NULL);
    if (str_utf8_valid_prefix(buf_str(&secret)) != secret.len)
        return cli_usage_error(&usage, "the secret is not UTF-8 text; name its blob instead");
    return upkeep_run(&(upkeep_job){ .home = home, .what = "purge", .route = "/owner/purge",
                                     .body = json_pack("{s:s, s:s%, s:s, s:b}", "agent", agent,
                                                       "secret", secret.ptr, secret.len, "blob",
                                                       blob ? blob : "", "dry_run", dry_run),
                                     .as_json = as_json, .summary = summary,
                                     .on_failure = "what was done so far is safe to repeat" },
                      NULL);
}
