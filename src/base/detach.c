#include "base/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

static int prepare_actions(posix_spawn_file_actions_t *actions)
{
    int rc = posix_spawn_file_actions_addchdir_np(actions, "/");

    for (int fd = 0; rc == 0 && fd < 3; fd++)
        rc = posix_spawn_file_actions_addopen(actions, fd, "/dev/null", O_RDWR, 0);
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
    return rc;
}

static int prepare_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                            POSIX_SPAWN_SETSIGDEF);
    if (rc == 0)
        rc = posix_spawnattr_setsigmask(attr, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attr, &all);
    return rc;
}

memfs_code detach(const char *const *argv, const char *const *env, memfs_error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    pid_t pid;

    if (argv[0] == NULL || argv[0][0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "a child process is started by absolute path only");
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    errno = prepare_actions(&actions);
    if (errno == 0)
        errno = prepare_attributes(&attr);
    if (errno == 0)
        errno =
            posix_spawn(&pid, argv[0], &actions, &attr, (char *const *)argv, (char *const *)env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return errno == 0 ? MEMFS_OK : memfs_fail_errno(err, "could not start '%s'", argv[0]);
}
