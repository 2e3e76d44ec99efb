/*
 * process.h - children: started without a shell, bounded, always reaped.
 *
 * posix_spawn of an absolute path with an explicit argv and environment, in its own process
 * group, with pipes for stdin, stdout and stderr and nothing else open but one descriptor if the
 * caller hands one down (a secret: S3).  Limits are set by prlimit right after the start.  On the
 * deadline the group gets SIGTERM, 2 s later SIGKILL (F03).  Whoever stops can end all that runs, or
 * all that some owner's threads began, waits for the network among it.
 *
 *     process p = PROCESS_INIT;
 *     process_start(&spec, &p, err);          p.in, p.out, p.err are non-blocking pipe ends
 *     … read and write them with poll …
 *     process_wait(&p, deadline_ms, &status, err);
 *     process_dispose(&p);                     closes, ends (as at the deadline) and reaps
 *
 * Thread: one thread uses one process value; any thread may start children.
 */
#ifndef MEMFS_BASE_PROCESS_H
#define MEMFS_BASE_PROCESS_H

#include "base/buf.h"

#include <stdatomic.h>
#include <sys/types.h>

/* Under which number a child finds handed_fd; what it starts itself finds it there too. */
#define PROCESS_HANDED_FD 3

typedef struct process_spec {
    const char *const *argv; /* argv[0] is an absolute path; NULL-terminated */
    const char *const *env;  /* "NAME=value", NULL-terminated; nothing is inherited */
    const char *cwd;         /* NULL: "/" */
    int handed_fd;           /* borrowed; the child has it as PROCESS_HANDED_FD; 0: none */
    /* limits; 0 leaves the inherited one */
    uint64_t cpu_s;
    uint64_t address_space_bytes;
    uint64_t file_size_bytes;
    uint64_t n_files;
} process_spec;

typedef struct process {
    pid_t pid; /* 0: none */
    int in, out, err;
} process;
#define PROCESS_INIT { 0, -1, -1, -1 }

/*
 * First thing in main(): what a parent may have taken away is put right.  Without a descriptor 0, 1
 * or 2 the next file that is opened (a lock, an index) would get that number, and what we print
 * would go into it; where SIGCHLD is ignored children cannot be waited for.
 */
void process_settle(void);

/* A descriptor to hand down that holds `bytes`, in memory alone: it can be read again and again
 * (pread) and not be changed.  The caller closes it. */
MEMFS_CHECK memfs_code process_secret_fd(memfs_str bytes, int *ret, memfs_error *err);

/* life cycle */
MEMFS_CHECK memfs_code process_start(const process_spec *spec, process *ret, memfs_error *err);
/*
 * Waits until the child has ended, at most until deadline (clock_mono_ms); past it the group is
 * ended and EUNAVAIL returned.  *ret_exit is the exit status, or 128 + the signal.
 */
MEMFS_CHECK memfs_code process_wait(process *p, int64_t deadline_ms, int *ret_exit,
                                    memfs_error *err);
void process_dispose(process *p);
/*
 * Ends the groups of all children that run now, at once; whoever started one sees it end and reaps
 * it. For a process that is about to end itself, whose children must not outlive it (F03, F30).
 */
void process_end_all(void);
/*
 * The same for some of them: children that this thread starts from now on are `owner`'s (any
 * address; NULL: nobody's), until it says otherwise.
 */
void process_mark(const void *owner);
void process_end_of(const void *owner);
/*
 * As process 1 of a container we inherit what children of ours left behind: reaps those of them that
 * have ended, and no child that process_start() began.  Does not wait; for every other process it
 * does nothing.  Once a second is often enough.
 */
void process_reap_orphans(void);
/*
 * A wait of this thread's own, for the network say, that the two above are to end as they end
 * children: it looks at process_waiting_is_ended() every now and then.  The value is
 * the caller's and lives from begin to end.
 */
typedef struct process_waiting {
    /* not for the caller */
    const void *owner;
    struct process_waiting *next;
    atomic_bool is_ended;
} process_waiting;
void process_waiting_begin(process_waiting *w);
bool process_waiting_is_ended(const process_waiting *w);
void process_waiting_end(process_waiting *w);
void process_close_in(process *p);
/* write() to the child's stdin, without the SIGPIPE that a child gone early would raise. */
ssize_t process_write(process *p, const void *bytes, size_t n);
/* The last line of text (a child's stderr), without its end; empty when there is none. */
memfs_str process_last_line(memfs_str text);

/*
 * Start, feed `input`, gather stdout (to out's bound) and the tail of stderr (to err_tail's bound;
 * may be NULL), wait.  A non-zero exit is EINTERNAL with the last line of stderr as message.
 */
MEMFS_CHECK memfs_code process_run(const process_spec *spec, memfs_str input, memfs_buf *out,
                                   memfs_buf *err_tail, int64_t timeout_ms, memfs_error *err);

#endif
