#include "cli/memories.h"

#include "base/mem.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * apply, the command, sync.  The command has our terminal, our standard streams and our process group;
 * only what it must know about its memory is added to the environment, where it is not set (or is about
 * another agent: memfs exec in an agent's own shell).
 *
 * Signals that somebody sends to us are sent on.  What a terminal sends (^C) reached the command at the same
 * time, being in the same group, and is not sent twice.  Whatever ends the command, its work is synced; after
 * a SIGTERM with less patience, because whoever sent it will not wait for long.
 */

#define MAX_WORDS 4096
#define SYNC_MS 30000
#define SYNC_HASTE_MS 5000
#define EXIT_CANNOT_RUN 126
#define EXIT_NO_SUCH_COMMAND 127

extern char **environ;

static const int PASSED_ON[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH };

static void signals_of(sigset_t *ret)
{
    sigemptyset(ret);
    for (size_t i = 0; i < ARRAY_LEN(PASSED_ON); i++)
        sigaddset(ret, PASSED_ON[i]);
    sigaddset(ret, SIGCHLD);
}

static bool is_said(const char *value)
{
    return value != NULL && value[0] != '\0';
}

/* Does the environment speak of another agent?  Then its folders are that one's. */
static bool is_of_another(const char *agent_id)
{
    const char *ids[] = { getenv("AGENT_ID"), getenv("LETTA_AGENT_ID") };

    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        if (is_said(ids[i]) && strcmp(ids[i], agent_id) != 0)
            return true;
    return false;
}

/* A folder that was named for this agent stays: it may be a worktree of the memory. */
static void tell_environment(const settings *s, const place *p)
{
    const bool is_anew = is_of_another(p->agent_id);
    const struct {
        const char *name, *value;
    } rows[] = {
        { "AGENT_ID", p->agent_id },
        { "LETTA_AGENT_ID", p->agent_id },
        { "MEMORY_DIR", p->memory },
        { "LETTA_MEMORY_DIR", p->memory },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (is_anew || !is_said(getenv(rows[i].name)))
            setenv(rows[i].name, rows[i].value, 1);
    setenv("MEMFS_HOME", setting_text(s, SETTING_HOME), 1);
}

/* The command starts with the signals as we were started. */
static int start(const char *const *words, const sigset_t *before, pid_t *ret)
{
    posix_spawnattr_t how;
    int rc;

    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&how, before);
    rc = posix_spawnp(ret, words[0], NULL, &how, (char *const *)words, environ);
    posix_spawnattr_destroy(&how);
    return rc;
}

/* Until it has ended; *ret_haste: we were told to end as well. */
static int attend(pid_t pid, const sigset_t *signals, bool *ret_haste)
{
    int status = 0;

    for (;;) {
        siginfo_t info;
        int number;

        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        number = sigwaitinfo(signals, &info);
        if (number < 0 || number == SIGCHLD)
            continue;
        *ret_haste = *ret_haste || number == SIGTERM || number == SIGHUP;
        if (info.si_code <= 0) /* sent by a process, not by the kernel for a terminal */
            kill(pid, number);
    }
}

static int run_command(const char *const *words, bool *ret_haste)
{
    sigset_t signals, before;
    int rc, status;
    pid_t pid;

    signals_of(&signals);
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    rc = start(words, &before, &pid);
    if (rc != 0) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        cli_talk("could not run '%s': %s", words[0], strerror(rc));
        return rc == ENOENT ? EXIT_NO_SUCH_COMMAND : EXIT_CANNOT_RUN;
    }
    status = attend(pid, &signals, ret_haste);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

static void bring_together(const settings *s, const place *p, bool is_before, int64_t budget_ms)
{
    _cleanup_(client_report_dispose) client_report report = CLIENT_REPORT_INIT;
    const converge_options how = { .budget_ms = budget_ms, .believe_memory = is_before };

    if (is_before)
        client_apply(s, p, &how, &report);
    else
        client_sync(s, p, &how, &report);
    memory_talk(&report);
}

int cmd_exec(int argc, char **argv)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    _cleanup_(mem_freep) const char **words = mem_alloc((MAX_WORDS + 1) * sizeof(*words));
    memory_options o = MEMORY_OPTIONS_INIT;
    const cli_option options[] = {
        { "agent", CLI_TEXT, &o.agent, "ID", "whose memory ($LETTA_AGENT_ID, $AGENT_ID)" },
        { "home", CLI_TEXT, &o.home, "DIR", "memfs' own folder ($MEMFS_HOME, ~/.memfs)" },
        MEMORY_WAIT_ROW(o, "how long the remote may take before the command (2)"),
    };
    const cli_usage usage = {
        "exec --agent ID -- COMMAND [ARG...]",
        "Makes the memory ready, runs the command, and syncs what it committed.  Signals are passed on,\n"
        "the exit status is the command's (128 + n after a signal n); what memfs has to say goes to\n"
        "stderr.  MEMORY_DIR, LETTA_MEMORY_DIR, AGENT_ID and LETTA_AGENT_ID are set where they are not,\n"
        "and all of them where the environment speaks of another agent.",
        options, ARRAY_LEN(options), "  memfs exec --agent agent-… -- letta -p 'hi' --agent agent-…\n"
    };
    cli_exit status;
    bool is_hasty = false;
    size_t n_words;
    int code;

    if (!cli_parse(&usage, argc, argv, words, MAX_WORDS, &n_words, &status))
        return status;
    if (n_words == 0)
        return cli_usage_error(&usage, "which command? (-- COMMAND)");
    if (!memory_settings(&o, &s, &status) || !memory_place(&usage, &o, s, &p, &status))
        return status;
    bring_together(s, &p, true, (int64_t)setting_number(s, SETTING_WAIT_MS));
    tell_environment(s, &p);
    code = run_command(words, &is_hasty);
    if (!settings_is_off(s))
        bring_together(s, &p, false, is_hasty ? SYNC_HASTE_MS : SYNC_MS);
    return code;
}
