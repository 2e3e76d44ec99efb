/*
 * manager.h - the service manager that started us: systemd, or whoever speaks its two protocols.
 *
 *   - Sockets handed down (sd_listen_fds(3)): LISTEN_PID is our process id, LISTEN_FDS how many
 *     listening sockets there are, the first as descriptor 3.
 *   - Notification (sd_notify(3)): NOTIFY_SOCKET is a datagram socket, by path or ("@") by abstract
 *     name; a message is lines of NAME=value.
 *
 * Both are a few dozen lines that the manual pages promise to keep as they are; libsystemd would
 * bring four libraries along for them (docs/architecture.md).
 *
 * manager_take() takes the variables out of the environment, so nothing that is started from here
 * takes the sockets for its own or speaks in our name.  It comes before the first thread; the value
 * is constant from then on, and any thread may tell.
 */
#ifndef MEMFS_BASE_MANAGER_H
#define MEMFS_BASE_MANAGER_H

#include "base/error.h"

#include <stddef.h>

#define MANAGER_FIRST_FD 3
#define MANAGER_MAX_FDS 8

typedef struct manager {
    char *notify; /* where messages go; NULL: nobody listens */
    int fds[MANAGER_MAX_FDS]; /* close-on-exec by now; whoever serves on them closes them */
    size_t n_fds;
} manager;
#define MANAGER_INIT { .notify = NULL }

/* ELIMIT: more sockets than there is room for.  *ret is good in any case; dispose it. */
MEMFS_CHECK memfs_code manager_take(manager *ret, memfs_error *err);
void manager_dispose(manager *m);

/*
 * The three moments of a service, each with what to show as its status (`systemctl status`; one
 * line).  Without a manager they do nothing.  EUNAVAIL: it did not get the message.
 */
MEMFS_CHECK memfs_code manager_ready(const manager *m, const char *status, memfs_error *err);
/* Ended by manager_ready(). */
MEMFS_CHECK memfs_code manager_reloading(const manager *m, memfs_error *err);
MEMFS_CHECK memfs_code manager_stopping(const manager *m, memfs_error *err);

#endif
