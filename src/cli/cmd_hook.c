#include "base/detach.h"
#include "base/mem.h"
#include "base/program.h"
#include "cli/cli.h"
#include "client/hub.h"
#include "client/mirror.h"
#include "client/precommit_run.h"
#include "client/prepare.h"
#include "memory/ids.h"
#include "store/gitconfig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * What memfs-hook (src/hook) cannot do alone, because it needs libgit2 or the settings.  git's view
 * of the world comes in by the environment (GIT_DIR, GIT_INDEX_FILE) and by the working directory,
 * which is the top of the working tree.
 *
 * --then PATH: the user's own hook, which this process becomes when ours is content.
 */

#define FETCH_BUDGET_MS 2000
#define PUSH_BUDGET_MS 30000 /* nobody waits for it */
#define MAX_SAID (256 * 1024)
#define REFSPEC "remote.origin.fetch"

extern char **environ;

typedef struct hook_options {
    const char *then, *agent, *repository, *git_dir;
} hook_options;

static cli_exit go_on(const char *path)
{
    char *args[] = { (char *)path, NULL };

    if (path == NULL)
        return EXIT_GOOD;
    execve(path, args, environ);
    if (errno == ENOEXEC) { /* a script without "#!", which git gives to sh */
        char *by_shell[] = { (char *)"sh", (char *)path, NULL };

        execve("/bin/sh", by_shell, environ);
    }
    cli_talk("could not run '%s': %s", path, strerror(errno));
    return EXIT_FAILED;
}

/* The checkout that git is working on. */
static memfs_code open_here(checkout **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *here = getcwd(NULL, 0), *git_dir = NULL;
    const char *said = getenv("GIT_DIR");
    memfs_code rc;

    if (here == NULL)
        return memfs_fail_errno(err, "could not find out the working directory");
    rc = checkout_open(here, ret, err);
    if (rc == MEMFS_ENOTFOUND && said != NULL) { /* git --git-dir=... --work-tree=... */
        git_dir = realpath(said, NULL);
        if (git_dir != NULL)
            rc = checkout_open(git_dir, ret, err);
    }
    return rc;
}

static int pre_commit(const hook_options *o)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(MAX_SAID);
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_code rc = open_here(&c, &e);

    if (rc == MEMFS_OK)
        rc = precommit_run(c, getenv("GIT_INDEX_FILE"), &said, &e);
    if (said.len > 0 && write(STDERR_FILENO, said.ptr, said.len) < 0)
        rc = rc < 0 ? rc : MEMFS_OK; /* nobody listens; the verdict stands */
    if (rc == MEMFS_EDENIED)
        return EXIT_FAILED;
    if (rc < 0)
        return cli_fail(
            &e, "the commit was not checked; 'git commit --no-verify' commits without checks");
    return go_on(o->then);
}

/* Whose memory the commit is in; NULL: it does not say.  Caller frees. */
static char *agent_of(const checkout *c)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", checkout_common_dir(c));
    _cleanup_(gitconfig_closep) gitconfig *g = NULL;
    memfs_error ignored = MEMFS_ERROR_INIT;
    const char *id = gitconfig_open(path, &g, &ignored) == MEMFS_OK
                         ? gitconfig_get(g, "letta.agentId")
                         : NULL;

    return id != NULL && ids_is_agent(str_of(id)) ? mem_strdup(id) : NULL;
}

/*
 * The work itself is done by a process that no commit waits for.  It is told whose memory this is,
 * or to look at all: $LETTA_AGENT_ID names who committed, and that may be another agent.
 */
static memfs_code start_sync(const checkout *c, memfs_error *err)
{
    static const char *const GITS_OWN[] = {
        "GIT_DIR",    "GIT_WORK_TREE",         "GIT_INDEX_FILE",
        "GIT_PREFIX", "GIT_OBJECT_DIRECTORY",  "GIT_COMMON_DIR",
        "GIT_EDITOR", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"
    };
    _cleanup_(mem_freep) char *memfs = NULL, *agent = agent_of(c);
    memfs_code rc = program_path(PROGRAM_MEMFS, &memfs, err);
    const char *args[] = { memfs, "sync", "--queued", agent != NULL ? "--agent" : "--all", agent,
                           NULL };

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(GITS_OWN); i++)
        unsetenv(GITS_OWN[i]);
    return detach(args, (const char *const *)environ, err);
}

/* git does not look at the status: the commit is made.  What fails is told, and stays queued. */
static int post_commit(const hook_options *o)
{
    _cleanup_(checkout_closep) checkout *c = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_code rc = open_here(&c, &e);

    if (rc == MEMFS_OK)
        rc = mirror_enqueue(c, &e);
    if (rc == MEMFS_OK && mirror_queued(c) > 0)
        rc = start_sync(c, &e);
    if (rc < 0)
        cli_talk("the commit is made, but could not be queued for its mirror: %s", e.msg);
    return go_on(o->then);
}

static int prepare_hub(const hook_options *o)
{
    _cleanup_(settings_freep) settings *s = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_code rc = settings_load(NULL, NULL, 0, &s, &e);

    if (rc == MEMFS_OK)
        rc = hub_prepare(s, o->agent, o->repository, FETCH_BUDGET_MS, &e);
    return rc < 0 ? (int)cli_fail(&e, "git cannot be answered without it") : EXIT_GOOD;
}

/* Quiet about the remote: what it answered is remembered, `memfs status` and the next sync say it. */
static int push_hub(const hook_options *o)
{
    _cleanup_(client_report_dispose) client_report report = CLIENT_REPORT_INIT;
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_code rc = settings_load(NULL, NULL, 0, &s, &e);

    if (rc == MEMFS_OK)
        rc = place_of(s, o->agent, &p, &e);
    if (rc < 0)
        return cli_fail(&e, "the next 'memfs sync' carries the commit on");
    hub_push(s, &p, o->repository, PUSH_BUDGET_MS, &report);
    if (report.error.code != MEMFS_OK)
        return cli_fail(&report.error, "the next 'memfs sync' carries the commit on");
    return client_report_exit(&report);
}

/* Is this a checkout of that very memory, by the address that git cloned it from? */
static bool is_checkout_of(const char *git_dir, const hook_options *o)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", git_dir);
    _cleanup_(mem_freep) char *tail =
        o->repository == NULL
            ? mem_printf("/v1/git/%s/state.git", o->agent)
            : mem_printf("/v1/git/%s/repositories/%s.git", o->agent, o->repository);
    _cleanup_(gitconfig_closep) gitconfig *g = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    const char *url, *bare;

    if (gitconfig_open(path, &g, &e) < 0)
        return false;
    url = gitconfig_get(g, "remote.origin.url");
    bare = gitconfig_get(g, "core.bare");
    return url != NULL && str_ends_with(str_of(url), str_of(tail)) &&
           (bare == NULL || strcmp(bare, "true") != 0);
}

/* A mount is somebody's shared repository: our hooks, and nothing that names an agent. */
static memfs_code adopt_mount(const settings *s, const char *git_dir, memfs_error *err)
{
    _cleanup_(mem_freep) char *config = mem_printf("%s/config", git_dir), *hooks = NULL;
    _cleanup_(mem_freep) char *users = prepare_users_hooks();
    memfs_code rc = prepare_hooks(s, &hooks, err);
    gitconfig_change changes[] = { { "core.hooksPath", hooks }, { PREPARE_USERS_HOOKS_KEY, users } };

    return rc == MEMFS_OK ? gitconfig_apply(config, changes, ARRAY_LEN(changes), err) : rc;
}

static memfs_code has_key(const char *config, const char *key, bool *ret, memfs_error *err)
{
    _cleanup_(gitconfig_closep) gitconfig *g = NULL;
    memfs_code rc = gitconfig_open(config, &g, err);

    if (rc == MEMFS_OK)
        *ret = gitconfig_get(g, key) != NULL;
    return rc;
}

/* `git clone` adds its refspec at the end, also to one that is there: then it would be there twice.
 * */
static memfs_code leave_refspec_to_clone(const char *config, bool has_refspec, memfs_error *err)
{
    gitconfig_change none = { REFSPEC, NULL };

    return has_refspec ? MEMFS_OK : gitconfig_apply(config, &none, 1, err);
}

static memfs_code adopt_memory(const settings *s, const hook_options *o, memfs_error *err)
{
    _cleanup_(mem_freep) char *config = mem_printf("%s/config", o->git_dir);
    _cleanup_(backend_choice_dispose) backend_choice choice = BACKEND_CHOICE_INIT;
    prepared done = PREPARED_INIT;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    bool has_refspec = false;
    memfs_code rc = has_key(config, REFSPEC, &has_refspec, err);

    if (rc == MEMFS_OK)
        rc = place_of(s, o->agent, &p, err);

    if (rc == MEMFS_OK)
        rc = backend_choose(s, &p, &choice, err);
    if (rc == MEMFS_OK)
        rc = prepare_config(s, o->git_dir, o->agent, &choice, &done, err);
    if (rc == MEMFS_OK)
        rc = leave_refspec_to_clone(config, has_refspec, err);
    prepared_dispose(&done);
    return rc;
}

static int adopt_checkout(const hook_options *o)
{
    _cleanup_(settings_freep) settings *s = NULL;
    memfs_error e = MEMFS_ERROR_INIT;
    memfs_code rc = MEMFS_OK;

    if (!is_checkout_of(o->git_dir, o))
        return EXIT_GOOD; /* another repository that only talks to this memory */
    rc = settings_load(NULL, NULL, 0, &s, &e);
    if (rc == MEMFS_OK)
        rc = o->repository != NULL ? adopt_mount(s, o->git_dir, &e) : adopt_memory(s, o, &e);
    return rc < 0 ? (int)cli_fail(&e, "the checkout works, but without the hooks of memfs")
                  : EXIT_GOOD;
}

typedef struct hook_row {
    const char *name;
    int (*run)(const hook_options *o);
    bool needs_agent, needs_git_dir;
} hook_row;

static const hook_row ROWS[] = {
    { "pre-commit", pre_commit, false, false },
    { "post-commit", post_commit, false, false },
    { "prepare-hub", prepare_hub, true, false },
    { "push-hub", push_hub, true, false },
    { "adopt-checkout", adopt_checkout, true, true },
};

int cmd_hook(int argc, char **argv)
{
    hook_options o = { NULL, NULL, NULL, NULL };
    const cli_option options[] = {
        { "then", CLI_TEXT, &o.then, "FILE", "the hook that runs when this one is content" },
        { "agent", CLI_TEXT, &o.agent, "ID", "whose memory (prepare-hub, push-hub, adopt-checkout)" },
        { "repository", CLI_TEXT, &o.repository, "NAME", "a shared repository of the agent's" },
        { "git-dir", CLI_TEXT, &o.git_dir, "DIR", "the checkout's .git (adopt-checkout)" },
    };
    const cli_usage usage = {
        "hook pre-commit|post-commit|prepare-hub|push-hub|adopt-checkout [options]",
        "What the git hooks of a memory and git-remote-memfs call; not for people.\n\n"
        "  pre-commit      checks what is staged, by the Letta client's rules\n"
        "  post-commit     queues the commit for its mirror (letta.memoryRepository.url)\n"
        "  prepare-hub     makes the local repository that answers for an agent (setup git)\n"
        "  push-hub        brings that repository together with its remote; the checkout is let be\n"
        "  adopt-checkout  gives a checkout that git made the hooks and settings of memfs",
        options,
        ARRAY_LEN(options),
        NULL,
        "pre-commit post-commit prepare-hub push-hub adopt-checkout"
    };
    const char *rest[1];
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, 1, &n_rest, &status))
        return status;
    for (size_t i = 0; n_rest == 1 && i < ARRAY_LEN(ROWS); i++) {
        if (strcmp(rest[0], ROWS[i].name) != 0)
            continue;
        if (ROWS[i].needs_agent && (o.agent == NULL || !ids_is_agent(str_of(o.agent))))
            return cli_usage_error(&usage, "'%s' needs --agent", rest[0]);
        if (ROWS[i].needs_git_dir && o.git_dir == NULL)
            return cli_usage_error(&usage, "'%s' needs --git-dir", rest[0]);
        return ROWS[i].run(&o);
    }
    return cli_usage_error(&usage, "which hook?");
}
