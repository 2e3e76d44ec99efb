/*
 * server_run.c - the process around a server: what it may open and who may look into it, signals,
 * and what the service manager is told.
 */
#include "server/server.h"

#include "base/log.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define WANTED_DESCRIPTORS 4096

/*
 * Files that we make are ours alone, and so is our memory (T30).  LeakSanitizer reads its own
 * process like a debugger would, so a build with it stays readable.
 */
static void close_to_others(void)
{
    umask(077);
#ifndef __SANITIZE_ADDRESS__
    prctl(PR_SET_DUMPABLE, 0);
#endif
}

/* A thousand connections, and what git and the databases need beside them (F07). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= WANTED_DESCRIPTORS)
        return;
    limit.rlim_cur = limit.rlim_max < WANTED_DESCRIPTORS ? limit.rlim_max : WANTED_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &limit); /* with fewer, accept() fails a little earlier, that is all */
}

static void stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

/* What the service manager did not get it may punish (TimeoutStartSec=): the log says why. */
static void tell_unheard(memfs_code rc, const memfs_error *err)
{
    if (rc < 0)
        log_event(LOG_WARN, "notify_failed", "reason", err->msg, NULL);
}

static void tell_ready(const server *s, const manager *m)
{
    memfs_error err = MEMFS_ERROR_INIT;
    char status[48];

    snprintf(status, sizeof(status), "serving on port %u", (unsigned)server_port(s));
    tell_unheard(manager_ready(m, status, &err), &err);
}

static void reload(server *s, const manager *m)
{
    memfs_error err = MEMFS_ERROR_INIT;

    tell_unheard(manager_reloading(m, &err), &err);
    server_reload(s);
    tell_ready(s, m);
}

static int wait_for_signal(server *s, const manager *m)
{
    sigset_t set;
    int number = 0;

    stop_signals(&set);
    sigaddset(&set, SIGHUP);
    do {
        if (sigwait(&set, &number) != 0)
            continue;
        if (number == SIGHUP)
            reload(s, m);
    } while (number != SIGTERM && number != SIGINT);
    return number;
}

memfs_code server_run(const server_options *options, void (*ready)(const server *s, void *ctx),
                      void *ctx, memfs_error *err)
{
    static const manager nobody = MANAGER_INIT;
    const manager *m = options->manager != NULL ? options->manager : &nobody;
    memfs_error unheard = MEMFS_ERROR_INIT;
    sigset_t set;
    server *s;
    memfs_code rc;

    close_to_others();
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    stop_signals(&set);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    rc = server_start(options, &s, err);
    if (rc < 0)
        return rc;
    ready(s, ctx);
    tell_ready(s, m);
    log_event(LOG_INFO, "stopping", "signal", wait_for_signal(s, m) == SIGTERM ? "TERM" : "INT",
              NULL);
    tell_unheard(manager_stopping(m, &unheard), &unheard);
    server_stop(s);
    return MEMFS_OK;
}
