#include "client/watch_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "client/hub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * What inotify says is a hint that makes things quick; what makes them certain is the scan, every
 * few seconds: it lists the folders and reads one small file a memory.  So a full table of watches,
 * a lost queue or a folder that was exchanged only costs seconds.
 *
 * Watched in each memory are .git (HEAD, packed-refs) and .git/refs/heads: git moves a ref by
 * renaming main.lock to main.  Files of the working tree are nobody's business: only commits
 * travel.
 */

#define DEBOUNCE_MS 300
#define DEBOUNCE_MAX_MS 2000
#define WATCH_MASK (IN_MOVED_TO | IN_CREATE | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF)
#define PARENT_MASK (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)

static void unwatch(memories *m, watched *w)
{
    if (w->wd_git >= 0)
        inotify_rm_watch(m->inotify, w->wd_git);
    if (w->wd_heads >= 0)
        inotify_rm_watch(m->inotify, w->wd_heads);
    w->wd_git = w->wd_heads = -1;
}

static void watched_free(memories *m, watched *w)
{
    unwatch(m, w);
    free(w->agent_id);
    free(w->memory);
    free(w->git_dir);
    free(w);
}

void memories_dispose(memories *m)
{
    for (size_t i = 0; i < m->n; i++)
        watched_free(m, m->at[i]);
    free(m->at);
    if (m->inotify >= 0)
        close(m->inotify);
}

void watched_tip(const watched *w, memfs_oid *ret)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/refs/heads/main", w->git_dir);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(256);
    memfs_error ignored;

    memset(ret, 0, sizeof(*ret));
    if (fs_read(path, &text, &ignored) == MEMFS_OK && text.len >= MEMFS_OID_HEX)
        oid_parse(str_make(text.ptr, MEMFS_OID_HEX), ret);
}

void watched_moved(watched *w, int64_t now_ms)
{
    int64_t due_ms;

    if (w->is_running)
        return; /* whoever takes the result back looks where main is then */
    if (w->moved_ms == 0)
        w->moved_ms = now_ms;
    due_ms = now_ms + DEBOUNCE_MS;
    if (due_ms > w->moved_ms + DEBOUNCE_MAX_MS)
        due_ms = w->moved_ms + DEBOUNCE_MAX_MS;
    if (w->host != NULL && due_ms < w->host->not_before_ms)
        due_ms = w->host->not_before_ms;
    if (due_ms < w->due_ms || w->due_ms < w->moved_ms)
        w->due_ms = due_ms;
}

void memories_all_due(memories *m, int64_t now_ms)
{
    for (size_t i = 0; i < m->n; i++) {
        watched *w = m->at[i];

        if (w->host != NULL)
            w->host->not_before_ms = 0;
        if (!w->is_running)
            w->due_ms = now_ms;
    }
}

/* which there are */

static void watch(memories *m, watched *w)
{
    _cleanup_(mem_freep) char *heads = mem_printf("%s/refs/heads", w->git_dir);

    if (m->inotify < 0)
        return;
    if (w->wd_git < 0)
        w->wd_git = inotify_add_watch(m->inotify, w->git_dir, WATCH_MASK);
    if (w->wd_heads < 0)
        w->wd_heads = inotify_add_watch(m->inotify, heads, WATCH_MASK);
}

static watched *find(const memories *m, const char *agent_id)
{
    for (size_t i = 0; i < m->n; i++)
        if (!m->at[i]->is_gone && strcmp(m->at[i]->agent_id, agent_id) == 0)
            return m->at[i];
    return NULL;
}

static watched *add(memories *m, const char *agent_id, const char *memory, const char *git_dir,
                    int64_t now_ms)
{
    watched *w = mem_alloc(sizeof(*w));

    *w = (watched){ .agent_id = mem_strdup(agent_id), .memory = mem_strdup(memory),
                    .git_dir = mem_strdup(git_dir), .wd_git = -1, .wd_heads = -1, .due_ms = now_ms };
    m->at = mem_realloc(m->at, m->n + 1, sizeof(*m->at));
    m->at[m->n++] = w;
    return w;
}

typedef struct scan {
    memories *m;
    int64_t now_ms;
} scan;

/* Another folder has the memory from now on: a checkout was made beside its hub. */
static void move_to(memories *m, watched *w, const char *memory, const char *git_dir)
{
    unwatch(m, w);
    free(w->memory);
    free(w->git_dir);
    w->memory = mem_strdup(memory);
    w->git_dir = mem_strdup(git_dir);
}

/* A repository, found by its git dir: new, exchanged, moved, or as it was. */
static void see(const scan *sc, const char *agent_id, const char *memory, const char *git_dir)
{
    watched *w = find(sc->m, agent_id);
    struct stat st;
    memfs_oid tip;

    if (stat(git_dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return;
    if (w == NULL)
        w = add(sc->m, agent_id, memory, git_dir, sc->now_ms);
    else if (w->device != st.st_dev || w->inode != st.st_ino)
        watched_moved(w, sc->now_ms);
    if (strcmp(w->git_dir, git_dir) != 0)
        move_to(sc->m, w, memory, git_dir);
    else if (w->device != st.st_dev || w->inode != st.st_ino)
        unwatch(sc->m, w);
    w->device = st.st_dev;
    w->inode = st.st_ino;
    w->is_seen = true;
    watch(sc->m, w);
    watched_tip(w, &tip);
    if (!w->is_running && !oid_is_zero(&w->tip) && !oid_is_zero(&tip) && !oid_equal(&tip, &w->tip))
        watched_moved(w, sc->now_ms);
}

static memfs_code see_place(const place *p, void *ctx, memfs_error *err)
{
    const scan *sc = ctx;
    _cleanup_(mem_freep) char *git_dir = mem_printf("%s/.git", p->memory);

    (void)err;
    if (sc->m->only == NULL || strcmp(sc->m->only, p->agent_id) == 0)
        see(sc, p->agent_id, p->memory, git_dir);
    return MEMFS_OK;
}

/* Hubs of agents that have no checkout here. */
static memfs_code see_hub(const char *agent_id, const char *path, void *ctx, memfs_error *err)
{
    const scan *sc = ctx;
    const watched *w = find(sc->m, agent_id);

    (void)err;
    if ((sc->m->only == NULL || strcmp(sc->m->only, agent_id) == 0) &&
        (w == NULL || strcmp(w->git_dir, path) == 0))
        see(sc, agent_id, path, path);
    return MEMFS_OK;
}

/* Those that went, unless a worker is still at it: it goes when the errand is back. */
static void drop_unseen(memories *m)
{
    size_t kept = 0;

    for (size_t i = 0; i < m->n; i++) {
        watched *w = m->at[i];

        w->is_gone = w->is_gone || !w->is_seen;
        if (w->is_gone && !w->is_running)
            watched_free(m, w);
        else
            m->at[kept++] = w;
    }
    m->n = kept;
}

static void watch_parents(memories *m)
{
    char *parents[2] = { mem_printf("%s/agents", setting_text(m->s, SETTING_LETTA_DIR)),
                         mem_printf("%s/memfs", setting_text(m->s, SETTING_LOCAL_BACKEND_DIR)) };

    for (size_t i = 0; i < ARRAY_LEN(parents); i++) {
        if (m->inotify >= 0) /* again is free, and finds a folder that was exchanged */
            m->wd_parents[i] = inotify_add_watch(m->inotify, parents[i], PARENT_MASK);
        free(parents[i]);
    }
}

void memories_scan(memories *m, int64_t now_ms)
{
    scan sc = { m, now_ms };
    memfs_error ignored;
    memfs_code rc;

    watch_parents(m);
    for (size_t i = 0; i < m->n; i++)
        m->at[i]->is_seen = false;
    rc = places_each(m->s, see_place, &sc, &ignored);
    if (rc == MEMFS_OK)
        rc = hub_each(m->s, see_hub, &sc, &ignored);
    if (rc == MEMFS_OK) /* a list that could not be read to its end drops nobody */
        drop_unseen(m);
}

/* events */

static bool is_ref_name(const watched *w, const struct inotify_event *e)
{
    if (e->len == 0)
        return false;
    if (e->wd == w->wd_heads)
        return strcmp(e->name, "main") == 0;
    return strcmp(e->name, "HEAD") == 0 || strcmp(e->name, "packed-refs") == 0;
}

static void take_event(memories *m, const struct inotify_event *e, int64_t now_ms, bool *ret_scan)
{
    memfs_oid tip;

    if (e->mask & IN_Q_OVERFLOW) {
        memories_all_due(m, now_ms);
        *ret_scan = true;
    }
    if (e->wd == m->wd_parents[0] || e->wd == m->wd_parents[1])
        *ret_scan = true;
    for (size_t i = 0; i < m->n; i++) {
        watched *w = m->at[i];

        if (e->wd < 0 || (e->wd != w->wd_git && e->wd != w->wd_heads))
            continue;
        if (e->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) {
            *(e->wd == w->wd_git ? &w->wd_git : &w->wd_heads) = -1;
            *ret_scan = true;
        }
        if (!is_ref_name(w, e))
            continue;
        watched_tip(w, &tip);
        if (oid_is_zero(&tip) || !oid_equal(&tip, &w->tip)) /* our own moves come back as events */
            watched_moved(w, now_ms);
    }
}

bool memories_events(memories *m, int64_t now_ms)
{
    char bytes[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool wants_scan = false;
    ssize_t n;

    while (m->inotify >= 0 && (n = read(m->inotify, bytes, sizeof(bytes))) > 0) {
        for (char *at = bytes; at < bytes + n;) {
            const struct inotify_event *e = (const struct inotify_event *)at;

            take_event(m, e, now_ms, &wants_scan);
            at += sizeof(*e) + e->len;
        }
    }
    return wants_scan;
}
