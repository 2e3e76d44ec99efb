/*
 * watch_int.h - between watch.c (the loop: what is due, who works, when to ask again) and
 * watch_memories.c (which memories there are, and which of them moved).  Nobody else includes it.
 *
 * Only the loop's thread touches any of this; the workers get an errand and give it back.
 */
#ifndef MEMFS_CLIENT_WATCH_INT_H
#define MEMFS_CLIENT_WATCH_INT_H

#include "client/watch.h"

#include <sys/types.h>

#define NEVER_MS INT64_MAX

/* One remote host (or path): what failed there holds for all memories that it has. */
typedef struct watched_host {
    char *key;
    unsigned n_failures;
    int64_t not_before_ms;
} watched_host;

typedef struct watched {
    char *agent_id;
    char *memory, *git_dir;
    dev_t device; /* of git_dir: another folder of that name is another memory */
    ino_t inode;
    int wd_git, wd_heads; /* inotify; -1: none */
    memfs_oid tip;        /* main as of the last sync; zero: unknown */
    int64_t due_ms;       /* the next sync; NEVER_MS while one runs */
    int64_t moved_ms;     /* first change that waits for the debounce; 0: none */
    bool is_running, is_gone, is_seen;
    bool is_refused;      /* credentials: asked again only when they change */
    watched_host *host;   /* NULL: not known yet */
    char state[24];       /* what was told last */
    remote_answer answer;
} watched;

typedef struct memories {
    const settings *s;
    const char *only; /* one agent, or NULL */
    int inotify;      /* -1: polling has to do */
    int wd_parents[2];
    watched **at;
    size_t n;
} memories;

/* Finds new ones (due at once), drops those that went, notices moves that no event told. */
void memories_scan(memories *m, int64_t now_ms);
/* Reads what inotify has; true: look at all the folders again. */
bool memories_events(memories *m, int64_t now_ms);
/* Main was moved by somebody: due after the debounce. */
void watched_moved(watched *w, int64_t now_ms);
/* refs/heads/main as it is now; zero when it cannot be told without opening the repository. */
void watched_tip(const watched *w, memfs_oid *ret);
void memories_all_due(memories *m, int64_t now_ms);
void memories_dispose(memories *m);

#endif
