#include "base/json.h"
#include "cli/cli.h"
#include "client/hub.h"

#include <stdio.h>
#include <string.h>

static void print_json(const hub_setup *h)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(64 * 1024);
    json_writer w = JSON_WRITER_INIT(&text);

    jw_object(&w);
    jw_key_bool(&w, "is_on", h->is_on);
    jw_key_text(&w, "rewrites", h->base);
    jw_key_text(&w, "git_config", h->git_config);
    jw_key_text(&w, "problem", h->problem[0] != '\0' ? h->problem : NULL);
    jw_object_end(&w);
    buf_putc(&text, '\n');
    fwrite(text.ptr, 1, text.len, stdout);
}

static void print_text(const hub_setup *h)
{
    printf("git %s %s\n", h->is_on ? "answers from this machine for" : "goes as it is to", h->base);
    printf("config %s\n", h->git_config);
    if (h->problem[0] != '\0')
        cli_talk("%s", h->problem);
}

int cmd_setup(int argc, char **argv)
{
    bool is_undo = false, as_json = false;
    const cli_option options[] = {
        { "undo", CLI_FLAG, &is_undo, NULL, "take it away again" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON object" },
    };
    const cli_usage usage = {
        "setup [git] [--undo] [--json]",
        "setup git: from now on git answers for every agent's memory from this machine, also for\n"
        "agents that nobody knows yet; 'memfs sync' carries it to the remote.  One line in the\n"
        "global git config, url.\"memfs::\".insteadOf, and git-remote-memfs in PATH: both or\n"
        "neither.  Checkouts keep their addresses.  Without a word: how it stands.",
        options,
        ARRAY_LEN(options),
        "  memfs setup git\n  memfs setup git --undo\n",
        "git"
    };
    _cleanup_(settings_freep) settings *s = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    hub_setup h = { .base = NULL };
    const char *rest[1];
    size_t n_rest;
    cli_exit status;
    memfs_code rc;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    if (n_rest == 1 && strcmp(rest[0], "git") != 0)
        return cli_usage_error(&usage, "only git can be set up, not '%s'", rest[0]);
    if (n_rest == 0 && is_undo)
        return cli_usage_error(&usage, "what should be undone?  'memfs setup git --undo'");
    rc = settings_load(NULL, NULL, 0, &s, &e);
    if (rc == MEMFS_OK)
        rc = n_rest == 1 ? hub_setup_git(s, is_undo, &h, &e) : hub_setup_look(s, &h, &e);
    if (rc < 0) {
        status = cli_fail(&e, n_rest == 0 ? "nothing was changed"
                              : is_undo   ? "the line may still be there: see 'git config --global "
                                            "--get-all url.memfs::.insteadOf'"
                                          : "nothing was changed");
    } else {
        as_json ? print_json(&h) : print_text(&h);
        status = h.problem[0] != '\0' ? EXIT_FAILED : EXIT_GOOD;
    }
    hub_setup_dispose(&h);
    return cli_finish(status);
}
