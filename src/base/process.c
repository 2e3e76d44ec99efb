#include "base/process.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/escape.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * A child gets: its argv, its environment, a folder, a process group of its own, three pipes,
 * default signals, an empty signal mask, and no other descriptor.  Everything it may start itself
 * stays in the group, so ending the group ends all of it.
 *
 * Limits cannot be given to posix_spawn; they are set by prlimit from outside at once after the
 * start.  The child could run unbounded for some microseconds, in which it has not read a byte from
 * us yet: what we bound is the work that input makes.
 *
 * Reaping: the end is first seen without reaping (WNOWAIT).  As long as the leader is a zombie its
 * group id cannot be given to anyone else, so the rest of the group can be ended safely; only then
 * is the leader reaped.
 */

#define GRACE_MS 2000

typedef struct pipes {
    int child[3], ours[3];
} pipes;

static void close_all(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static void pipes_dispose(pipes *p)
{
    close_all(p->child, 3);
    close_all(p->ours, 3);
}

/* A pipe end numbered 0 to 2 would be overwritten while the child's own are put in place. */
static int above_stdio(int fd)
{
    int moved;

    if (fd > STDERR_FILENO)
        return fd;
    moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return moved;
}

static memfs_code pipes_open(pipes *p, memfs_error *err)
{
    for (int i = 0; i < 3; i++) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
            return memfs_fail_errno(err, "could not create a pipe for a child process");
        p->child[i] = above_stdio(ends[i == 0 ? 0 : 1]);
        p->ours[i] = above_stdio(ends[i == 0 ? 1 : 0]);
        if (p->child[i] < 0 || p->ours[i] < 0 || fcntl(p->ours[i], F_SETFL, O_NONBLOCK) < 0)
            return memfs_fail_errno(err, "could not prepare a pipe for a child process");
    }
    return MEMFS_OK;
}

/* The handed descriptor comes last: its number may be that of one of the pipes. */
static int prepare_actions(posix_spawn_file_actions_t *actions, const pipes *p,
                           const process_spec *spec)
{
    int rc = posix_spawn_file_actions_addchdir_np(actions, spec->cwd != NULL ? spec->cwd : "/");
    int first_closed = STDERR_FILENO + 1;

    for (int i = 0; rc == 0 && i < 3; i++)
        rc = posix_spawn_file_actions_adddup2(actions, p->child[i], i);
    if (rc == 0 && spec->handed_fd > 0) {
        rc = posix_spawn_file_actions_adddup2(actions, spec->handed_fd, PROCESS_HANDED_FD);
        first_closed = PROCESS_HANDED_FD + 1;
    }
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(actions, first_closed);
    return rc;
}

static int prepare_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                            POSIX_SPAWN_SETSIGDEF);
    if (rc == 0)
        rc = posix_spawnattr_setpgroup(attr, 0);
    if (rc == 0)
        rc = posix_spawnattr_setsigmask(attr, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attr, &all);
    return rc;
}

static int spawn(const process_spec *spec, const pipes *p, pid_t *ret)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int rc;

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    rc = prepare_actions(&actions, p, spec);
    if (rc == 0)
        rc = prepare_attributes(&attr);
    if (rc == 0)
        rc = posix_spawn(ret, spec->argv[0], &actions, &attr, (char *const *)spec->argv,
                         (char *const *)spec->env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* 0 leaves what is there; a limit that is tighter already stays. */
static bool limit(pid_t pid, int what, uint64_t value)
{
    struct rlimit both = { value, value }, now;

    if (value == 0)
        return true;
    if (prlimit(pid, (__rlimit_resource_t)what, NULL, &now) < 0)
        return false;
    if (now.rlim_max < value)
        both.rlim_cur = both.rlim_max = now.rlim_max;
    return prlimit(pid, (__rlimit_resource_t)what, &both, NULL) == 0;
}

static bool set_limits(pid_t pid, const process_spec *spec)
{
    static const struct rlimit no_core = { 0, 0 };

    return prlimit(pid, RLIMIT_CORE, &no_core, NULL) == 0 &&
           limit(pid, RLIMIT_CPU, spec->cpu_s) &&
           limit(pid, RLIMIT_AS, spec->address_space_bytes) &&
           limit(pid, RLIMIT_FSIZE, spec->file_size_bytes) &&
           limit(pid, RLIMIT_NOFILE, spec->n_files);
}

/* When memory runs out the kernel takes a child rather than its parent (F09); best effort. */
static void offer_to_oom_killer(pid_t pid)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "500", 3) < 0)
        errno = 0; /* not allowed here; the default is no worse than before */
    close(fd);
}

static const char *program_name(const process_spec *spec)
{
    const char *slash = strrchr(spec->argv[0], '/');

    return slash != NULL ? slash + 1 : spec->argv[0];
}

void process_settle(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
        if (fd < 0)
            fd = open("/", O_PATH); /* a root without /dev: nothing can be read or written there */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
    signal(SIGCHLD, SIG_DFL);
}

memfs_code process_secret_fd(memfs_str bytes, int *ret, memfs_error *err)
{
    int fd = memfd_create("memfs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ssize_t n;

    if (fd < 0)
        return memfs_fail_errno(err, "could not make a descriptor for a secret");
    fd = above_stdio(fd);
    n = fd < 0 ? -1 : write(fd, bytes.ptr, bytes.len);
    if (n != (ssize_t)bytes.len || lseek(fd, 0, SEEK_SET) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
        memfs_fail_errno(err, "could not make a descriptor for a secret");
        close_all(&fd, 1);
        return err->code;
    }
    *ret = fd;
    return MEMFS_OK;
}

/*
 * Which children run.  One is taken off the list before it is reaped, and the list is locked while
 * process_end_all() walks it, so no signal goes to a group that got an old number anew.  Beside
 * them the waits that can be ended.
 */
static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    pid_t pid;
    const void *owner;
} *listed;
static size_t n_listed, cap_listed;
static size_t n_unlisted; /* children of ours that are just being started or reaped */
static process_waiting *waits;
static _Thread_local const void *current_owner;

static void list_expect(void)
{
    pthread_mutex_lock(&list_mutex);
    n_unlisted++;
    pthread_mutex_unlock(&list_mutex);
}

/* What was expected is listed, could not be started, or was reaped. */
static void list_settle(void)
{
    pthread_mutex_lock(&list_mutex);
    n_unlisted--;
    pthread_mutex_unlock(&list_mutex);
}

static void list_add(pid_t pid)
{
    pthread_mutex_lock(&list_mutex);
    if (n_listed == cap_listed) {
        cap_listed = cap_listed > 0 ? 2 * cap_listed : 16;
        listed = mem_realloc(listed, cap_listed, sizeof(*listed));
    }
    listed[n_listed].pid = pid;
    listed[n_listed++].owner = current_owner;
    pthread_mutex_unlock(&list_mutex);
}

static bool is_listed(pid_t pid)
{
    for (size_t i = 0; i < n_listed; i++)
        if (listed[i].pid == pid)
            return true;
    return false;
}

static void list_remove(pid_t pid)
{
    pthread_mutex_lock(&list_mutex);
    for (size_t i = 0; i < n_listed; i++) {
        if (listed[i].pid != pid)
            continue;
        listed[i] = listed[--n_listed];
        break;
    }
    n_unlisted++;
    pthread_mutex_unlock(&list_mutex);
}

/* One that has ended and belongs to nobody else here; 0: none that can be told at this moment. */
static pid_t ended_orphan(void)
{
    siginfo_t info = { 0 };

    if (n_unlisted > 0 || waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
        is_listed(info.si_pid))
        return 0;
    return info.si_pid;
}

void process_reap_orphans(void)
{
    pid_t pid;

    if (getpid() != 1)
        return;
    pthread_mutex_lock(&list_mutex);
    while ((pid = ended_orphan()) > 0)
        waitpid(pid, NULL, WNOHANG);
    pthread_mutex_unlock(&list_mutex);
}

static void end_listed(bool is_all, const void *owner)
{
    pthread_mutex_lock(&list_mutex);
    for (size_t i = 0; i < n_listed; i++)
        if (is_all || listed[i].owner == owner)
            kill(-listed[i].pid, SIGKILL);
    for (process_waiting *w = waits; w != NULL; w = w->next)
        if (is_all || w->owner == owner)
            w->is_ended = true;
    pthread_mutex_unlock(&list_mutex);
}

void process_waiting_begin(process_waiting *w)
{
    w->owner = current_owner;
    atomic_init(&w->is_ended, false);
    pthread_mutex_lock(&list_mutex);
    w->next = waits;
    waits = w;
    pthread_mutex_unlock(&list_mutex);
}

bool process_waiting_is_ended(const process_waiting *w)
{
    return w->is_ended;
}

void process_waiting_end(process_waiting *w)
{
    process_waiting **at = &waits;

    pthread_mutex_lock(&list_mutex);
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    pthread_mutex_unlock(&list_mutex);
}

void process_end_all(void)
{
    end_listed(true, NULL);
}

void process_mark(const void *owner)
{
    current_owner = owner;
}

void process_end_of(const void *owner)
{
    end_listed(false, owner);
}

memfs_code process_start(const process_spec *spec, process *ret, memfs_error *err)
{
    _cleanup_(pipes_dispose) pipes p = { { -1, -1, -1 }, { -1, -1, -1 } };
    memfs_code rc;
    int number;
    pid_t pid;

    if (spec->argv[0] == NULL || spec->argv[0][0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "a child process is started by absolute path only");
    rc = pipes_open(&p, err);
    if (rc < 0)
        return rc;
    list_expect();
    number = spawn(spec, &p, &pid);
    if (number == 0)
        list_add(pid);
    list_settle();
    errno = number;
    if (number != 0)
        return memfs_fail_errno(err, "could not start '%s'", program_name(spec));
    ret->pid = pid;
    ret->in = p.ours[0];
    ret->out = p.ours[1];
    ret->err = p.ours[2];
    p.ours[0] = p.ours[1] = p.ours[2] = -1;
    if (!set_limits(pid, spec)) {
        memfs_fail_errno(err, "could not limit '%s'", program_name(spec));
        process_dispose(ret);
        return err->code;
    }
    offer_to_oom_killer(pid);
    return MEMFS_OK;
}

/* waiting */

/* True once the child has ended (it is not reaped by this), or when there is no such child. */
static bool has_ended(pid_t pid)
{
    siginfo_t info = { 0 };

    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return errno != EINTR;
    return info.si_pid == pid;
}

static int clamp_ms(int64_t ms)
{
    return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : (int)ms;
}

static bool wait_ended(pid_t pid, int64_t deadline_ms)
{
    struct pollfd watch = { .fd = pidfd_open(pid, 0), .events = POLLIN };
    bool ended;

    while (!(ended = has_ended(pid)) && clock_mono_ms() < deadline_ms) {
        int64_t left = deadline_ms - clock_mono_ms();

        if (watch.fd >= 0)
            poll(&watch, 1, clamp_ms(left));
        else
            clock_sleep_ms(left < 2 ? left : 2); /* no descriptor left for a pidfd: look often */
    }
    if (watch.fd >= 0)
        close(watch.fd);
    return ended;
}

/* Ends what is left of the group, then reaps the leader. Its exit status, or 128 + the signal. */
static int reap(process *p)
{
    int status = 0;
    pid_t got;

    list_remove(p->pid);
    kill(-p->pid, SIGKILL);
    do {
        got = waitpid(p->pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    list_settle();
    p->pid = 0;
    if (got < 0)
        return 128;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Asks first: git removes its temporary files on SIGTERM. */
static int end_group(process *p)
{
    kill(-p->pid, SIGTERM);
    wait_ended(p->pid, clock_mono_ms() + GRACE_MS);
    return reap(p);
}

memfs_code process_wait(process *p, int64_t deadline_ms, int *ret_exit, memfs_error *err)
{
    if (p->pid == 0)
        return memfs_fail(err, MEMFS_EINTERNAL, "there is no child process to wait for");
    if (!wait_ended(p->pid, deadline_ms)) {
        end_group(p);
        return memfs_fail(err, MEMFS_EUNAVAIL, "a child process did not end in time");
    }
    *ret_exit = reap(p);
    return MEMFS_OK;
}

void process_close_in(process *p)
{
    close_all(&p->in, 1);
}

void process_dispose(process *p)
{
    close_all(&p->in, 1);
    close_all(&p->out, 1);
    close_all(&p->err, 1);
    if (p->pid > 0)
        end_group(p);
}

/*
 * A child that closed its stdin makes write() raise SIGPIPE.  Whether the program ignores that
 * signal is not this library's to decide, so it is held back around the call, and taken away if
 * this call raised it.
 */
ssize_t process_write(process *p, const void *bytes, size_t n)
{
    static const struct timespec at_once = { 0, 0 };
    sigset_t broken_pipe, before, pending;
    ssize_t written;
    int number;

    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
    written = write(p->in, bytes, n);
    number = errno;
    if (written < 0 && number == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&broken_pipe, NULL, &at_once) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = number;
    return written;
}

/* running to the end */

typedef struct running {
    process *p;
    memfs_str input;
    memfs_buf *out;
    memfs_buf *tail;
} running;

static void keep_tail(memfs_buf *tail, memfs_str bytes)
{
    if (bytes.len > tail->max_bytes)
        bytes = str_from(bytes, bytes.len - tail->max_bytes);
    if (tail->len + bytes.len > tail->max_bytes)
        buf_drop_front(tail, tail->len + bytes.len - tail->max_bytes);
    buf_add_str(tail, bytes);
}

static void feed(running *r)
{
    ssize_t n = r->input.len > 0 ? process_write(r->p, r->input.ptr, r->input.len) : 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n >= 0)
        r->input = str_from(r->input, (size_t)n);
    if (n < 0 || r->input.len == 0)
        process_close_in(r->p); /* the child decides by its exit what unread input means */
}

/* Reads once; closes the pipe at its end.  ELIMIT: stdout is larger than the caller wants. */
static memfs_code drain(running *r, int *fd, memfs_error *err)
{
    char chunk[16384];
    ssize_t n = read(*fd, chunk, sizeof(chunk));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return MEMFS_OK;
    if (n <= 0) {
        close_all(fd, 1);
        return MEMFS_OK;
    }
    if (fd == &r->p->err) {
        keep_tail(r->tail, str_make(chunk, (size_t)n));
        return MEMFS_OK;
    }
    buf_add(r->out, chunk, (size_t)n);
    return buf_check(r->out, "the output of a child process", err);
}

static memfs_code exchange(running *r, int64_t deadline_ms, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (r->input.len == 0)
        process_close_in(r->p);
    while (rc == MEMFS_OK && (r->p->out >= 0 || r->p->err >= 0)) {
        struct pollfd fds[] = { { r->p->in, POLLOUT, 0 },
                                { r->p->out, POLLIN, 0 },
                                { r->p->err, POLLIN, 0 } };
        int64_t left = deadline_ms - clock_mono_ms();

        if (left <= 0)
            return memfs_fail(err, MEMFS_EUNAVAIL, "a child process did not end in time");
        if (poll(fds, 3, clamp_ms(left)) <= 0)
            continue;
        if (fds[0].revents != 0)
            feed(r);
        if (fds[1].revents != 0)
            rc = drain(r, &r->p->out, err);
        if (rc == MEMFS_OK && fds[2].revents != 0)
            rc = drain(r, &r->p->err, err);
    }
    return rc;
}

memfs_str process_last_line(memfs_str text)
{
    size_t end = text.len, start;

    while (end > 0 && (text.ptr[end - 1] == '\n' || text.ptr[end - 1] == '\r'))
        end--;
    for (start = end; start > 0 && text.ptr[start - 1] != '\n' && text.ptr[start - 1] != '\r';)
        start--;
    return str_make(text.ptr + start, end - start);
}

static memfs_code fail_exit(const process_spec *spec, int status, memfs_str tail,
                            memfs_error *err)
{
    char line[300];

    escape_text(process_last_line(tail), line, sizeof(line));
    if (line[0] == '\0')
        return memfs_fail(err, MEMFS_EINTERNAL, "'%s' ended with status %d", program_name(spec),
                          status);
    return memfs_fail(err, MEMFS_EINTERNAL, "'%s' ended with status %d: %s", program_name(spec),
                      status, line);
}

memfs_code process_run(const process_spec *spec, memfs_str input, memfs_buf *out,
                       memfs_buf *err_tail, int64_t timeout_ms, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf own_tail = MEMFS_BUF_INIT(4096);
    _cleanup_(process_dispose) process p = PROCESS_INIT;
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    running r = { &p, input, out, err_tail != NULL ? err_tail : &own_tail };
    memfs_code rc;
    int status = 0;

    rc = process_start(spec, &p, err);
    if (rc == MEMFS_OK)
        rc = exchange(&r, deadline_ms, err);
    if (rc == MEMFS_OK)
        rc = process_wait(&p, deadline_ms, &status, err);
    if (rc < 0)
        return memfs_context(err, "'%s'", program_name(spec));
    return status == 0 ? MEMFS_OK : fail_exit(spec, status, buf_str(r.tail), err);
}
