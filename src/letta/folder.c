#include "letta/folder_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "memory/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TOLD 4096
#define MAX_SEEN 256

typedef struct told {
    char agent[IDS_MAX_LEN + 1], org[IDS_MAX_LEN + 1];
} told;

typedef struct seen {
    uint64_t key;
    int64_t first_ms, last_ms; /* 0: free */
} seen;

struct letta_folder {
    char *root, *orgs;              /* orgs: root/repository */
    pthread_mutex_t mutex;          /* guards what follows; a leaf */
    told *told;                     /* NULL until something is */
    size_t n_told, next;            /* next: whose place is taken when all are */
    char seen_org[IDS_MAX_LEN + 1]; /* the organization of all that were found so far; "" */
    bool has_several;               /* they are of more than one */
    seen seen[MAX_SEEN];
};

/* ---- life cycle ---- */

letta_folder *letta_folder_new(const char *root)
{
    letta_folder *f = mem_alloc(sizeof(*f));
    size_t n = strlen(root);

    while (n > 1 && root[n - 1] == '/')
        n--;
    f->root = mem_strndup(root, n);
    f->orgs = mem_printf("%s/repository", f->root);
    pthread_mutex_init(&f->mutex, NULL);
    return f;
}

void letta_folder_free(letta_folder *f)
{
    if (f == NULL)
        return;
    pthread_mutex_destroy(&f->mutex);
    free(f->told);
    free(f->root);
    free(f->orgs);
    free(f);
}

const char *letta_folder_root(const letta_folder *f)
{
    return f->root;
}

/* ---- what the server said ---- */

static told *find_told(letta_folder *f, memfs_str agent_id)
{
    for (size_t i = 0; i < f->n_told; i++)
        if (str_equal(str_of(f->told[i].agent), agent_id))
            return &f->told[i];
    return NULL;
}

static told *new_told(letta_folder *f)
{
    if (f->told == NULL)
        f->told = mem_alloc(MAX_TOLD * sizeof(*f->told));
    if (f->n_told < MAX_TOLD)
        return &f->told[f->n_told++];
    f->next = (f->next + 1) % MAX_TOLD;
    return &f->told[f->next];
}

bool letta_folder_told(letta_folder *f, memfs_str agent_id, memfs_str org)
{
    told *t;

    if (!ids_is_agent(agent_id) || !ids_is_prefixed_uuid4(org, "org"))
        return false;
    pthread_mutex_lock(&f->mutex);
    t = find_told(f, agent_id);
    if (t == NULL)
        t = new_told(f);
    snprintf(t->agent, sizeof(t->agent), "%.*s", (int)agent_id.len, agent_id.ptr);
    snprintf(t->org, sizeof(t->org), "%.*s", (int)org.len, org.ptr);
    pthread_mutex_unlock(&f->mutex);
    return true;
}

static bool was_told(letta_folder *f, const char *agent_id, char org[IDS_MAX_LEN + 1])
{
    const told *t;

    pthread_mutex_lock(&f->mutex);
    t = find_told(f, str_of(agent_id));
    if (t != NULL)
        memcpy(org, t->org, IDS_MAX_LEN + 1);
    pthread_mutex_unlock(&f->mutex);
    return t != NULL;
}

/* ---- what was left there ---- */

int64_t letta_seen_for_s(letta_folder *f, uint64_t key)
{
    int64_t now_ms = clock_mono_ms(), first_ms;
    seen *at;

    pthread_mutex_lock(&f->mutex);
    at = &f->seen[0];
    for (size_t i = 0; i < MAX_SEEN && (at->key != key || at->last_ms == 0); i++)
        if (f->seen[i].key == key || f->seen[i].last_ms < at->last_ms)
            at = &f->seen[i];
    if (at->key != key || at->last_ms == 0)
        *at = (seen){ .key = key, .first_ms = now_ms };
    at->last_ms = now_ms;
    first_ms = at->first_ms;
    pthread_mutex_unlock(&f->mutex);
    return (now_ms - first_ms) / 1000;
}

/* ---- where it is ---- */

/* A link may lead anywhere, to our own repositories, too (T01): none is followed below root. */
bool letta_is_folder(const letta_folder *f, const char *path)
{
    return fs_is_dir_beneath(f->root, path + strlen(f->root) + 1);
}

int letta_open(const letta_folder *f, const char *path, int flags)
{
    return fs_open_beneath(f->root, path + strlen(f->root) + 1, flags);
}

static char *repo_of(const letta_folder *f, const char *org, const char *agent_id)
{
    return mem_printf("%s/%s/%s/repo.git", f->orgs, org, agent_id);
}

static void note_seen(letta_folder *f, const char *org)
{
    pthread_mutex_lock(&f->mutex);
    f->has_several |= f->seen_org[0] != '\0' && strcmp(f->seen_org, org) != 0;
    snprintf(f->seen_org, sizeof(f->seen_org), "%.*s", IDS_MAX_LEN, org);
    pthread_mutex_unlock(&f->mutex);
}

char *letta_folder_guess(letta_folder *f, const char *agent_id)
{
    char org[IDS_MAX_LEN + 1] = "";

    if (!was_told(f, agent_id, org)) {
        pthread_mutex_lock(&f->mutex);
        if (!f->has_several)
            memcpy(org, f->seen_org, sizeof(org));
        pthread_mutex_unlock(&f->mutex);
    }
    return org[0] != '\0' ? repo_of(f, org, agent_id) : NULL;
}

/* The next entry; NULL: the end, or *ret_error. */
static struct dirent *next_of(DIR *dir, int *ret_error)
{
    struct dirent *e;

    errno = 0;
    e = readdir(dir);
    if (e == NULL)
        *ret_error = errno;
    return e;
}

/*
 * The organization whose folder has the agent's; *ret_only: the one there is, if it is one.
 * *ret_error: errno of what could not be looked at, so NULL says nothing; 0.
 */
static char *find_there(const letta_folder *f, const char *agent_id, char only[IDS_MAX_LEN + 1],
                        int *ret_error)
{
    _cleanup_(closedirp) DIR *dir = opendir(f->orgs);
    struct dirent *e;
    size_t n = 0;

    *ret_error = dir == NULL && errno != ENOENT ? errno : 0;
    while (dir != NULL && (e = next_of(dir, ret_error)) != NULL) {
        _cleanup_(mem_freep) char *path = NULL;

        if (!ids_is_prefixed_uuid4(str_of(e->d_name), "org"))
            continue;
        snprintf(only, IDS_MAX_LEN + 1, "%.*s", IDS_MAX_LEN, e->d_name);
        n++;
        path = repo_of(f, e->d_name, agent_id);
        if (letta_is_folder(f, path))
            return TAKE_PTR(path);
    }
    if (n != 1)
        snprintf(only, IDS_MAX_LEN + 1, "%s", IDS_DEFAULT_ORG);
    return NULL;
}

static char *find_path(letta_folder *f, const char *agent_id, letta_place *ret_place,
                       int *ret_error)
{
    char only[IDS_MAX_LEN + 1], org[IDS_MAX_LEN + 1];
    char *path = find_there(f, agent_id, only, ret_error);

    *ret_place = LETTA_THERE;
    if (path != NULL) {
        note_seen(f, only);
        return path;
    }
    *ret_place = was_told(f, agent_id, org) ? LETTA_TOLD : LETTA_UNKNOWN;
    return repo_of(f, *ret_place == LETTA_TOLD ? org : only, agent_id);
}

char *letta_folder_path(letta_folder *f, const char *agent_id, letta_place *ret_place)
{
    int ignored;

    return find_path(f, agent_id, ret_place, &ignored);
}

static memfs_code fail_unseen(const letta_folder *f, int error, memfs_error *err)
{
    errno = error;
    (void)memfs_fail_errno(err, "'%s' cannot be looked at, is the Letta server's volume well?",
                           f->orgs);
    return err->code = MEMFS_EUNAVAIL;
}

/* The words of an agent that does not exist: whose it is is nobody else's business. */
static memfs_code fail_foreign(memfs_str agent_id, memfs_error *err)
{
    return memfs_fail(err, MEMFS_ENOTFOUND, "Agent with ID %.*s not found", (int)agent_id.len,
                      agent_id.ptr);
}

memfs_code letta_folder_admits(letta_folder *f, memfs_str agent_id, memfs_str org, bool is_here,
                               memfs_error *err)
{
    char id[IDS_MAX_LEN + 1], found[IDS_MAX_LEN + 1], before[IDS_MAX_LEN + 1];
    _cleanup_(mem_freep) char *path = NULL;
    int error;

    if (!ids_is_agent(agent_id) || !ids_is_prefixed_uuid4(org, "org"))
        return fail_foreign(agent_id, err);
    snprintf(id, sizeof(id), "%.*s", (int)agent_id.len, agent_id.ptr);
    path = find_there(f, id, found, &error);
    if (path != NULL ? !str_equal(str_of(found), org)
                     : was_told(f, id, before) && !str_equal(str_of(before), org))
        return fail_foreign(agent_id, err);
    if (path != NULL)
        (void)letta_folder_told(f, agent_id, org); /* it counts when the volume is away */
    else if (error != 0 && is_here && !was_told(f, id, before))
        return fail_unseen(f, error, err);
    else if (is_here && !was_told(f, id, before))
        return letta_is_folder(f, f->orgs)
                   ? fail_foreign(agent_id, err)
                   : memfs_fail(err, MEMFS_EUNAVAIL,
                                "whose agent this is cannot be seen in '%s': is the Letta server's "
                                "volume mounted?",
                                f->root);
    return MEMFS_OK;
}

memfs_code letta_folder_admits_unseen(letta_folder *f, memfs_str agent_id, memfs_str org,
                                      memfs_error *err)
{
    char id[IDS_MAX_LEN + 1], before[IDS_MAX_LEN + 1];

    snprintf(id, sizeof(id), "%.*s", (int)agent_id.len, agent_id.ptr);
    if (!was_told(f, id, before))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "whose agent this is cannot be seen in '%s': its volume does not answer",
                          f->root);
    return str_equal(str_of(before), org) ? MEMFS_OK : fail_foreign(agent_id, err);
}

/* What is there and cannot be read may have some. */
static bool has_entries(const char *path)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    struct dirent *e;

    if (dir == NULL)
        return errno != ENOENT && errno != ENOTDIR;
    while ((e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return true;
    return false;
}

/* A link there is a way to what the folder's writer may not read: our own repositories. */
static memfs_code check_entry(const FTSENT *at, memfs_error *err)
{
    bool is_file = at->fts_info == FTS_F, is_alternates;

    is_alternates = is_file && (strcmp(at->fts_name, "alternates") == 0 ||
                                strcmp(at->fts_name, "http-alternates") == 0);
    if ((is_file && !is_alternates) || at->fts_info == FTS_D || at->fts_info == FTS_DP ||
        at->fts_info == FTS_NS) /* gone since it was listed */
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_ECORRUPT,
                      "'%s' in the Letta server's folder leads out of it: remove it", at->fts_path);
}

memfs_code letta_folder_check(letta_folder *f, const char *agent_id, memfs_error *err)
{
    letta_place place;
    _cleanup_(mem_freep) char *repo = letta_folder_path(f, agent_id, &place);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", repo);
    char *paths[] = { objects, NULL };
    memfs_code rc = MEMFS_OK;
    FTSENT *at;
    FTS *walk;

    if (place != LETTA_THERE || !fs_exists(objects))
        return MEMFS_OK; /* the fetch says so */
    walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (walk == NULL)
        return memfs_fail_errno(err, "could not read '%s'", objects);
    while (rc == MEMFS_OK && (at = fts_read(walk)) != NULL)
        rc = check_entry(at, err);
    fts_close(walk);
    return rc;
}

static memfs_code read_tip(const letta_folder *f, const char *path, memfs_oid *ret,
                           memfs_error *err)
{
    _cleanup_(mem_freep) char *heads = mem_printf("%s/refs/heads", path);

    if (fs_exists(heads) && !letta_is_folder(f, heads))
        return memfs_fail(err, MEMFS_ECORRUPT, "'%s' is a link or no folder", heads);
    return store_tip_at(path, ret, err);
}

memfs_code letta_folder_tip(letta_folder *f, const char *agent_id, letta_place *ret_place,
                            memfs_oid *ret, memfs_error *err)
{
    int error;
    _cleanup_(mem_freep) char *path = find_path(f, agent_id, ret_place, &error);
    memfs_code rc = MEMFS_ENOTFOUND;

    if (*ret_place == LETTA_THERE)
        rc = read_tip(f, path, ret, err);
    if (rc == MEMFS_OK && !oid_is_zero(ret))
        return rc;
    if (!fs_is_dir(f->root))
        return memfs_fail(err, MEMFS_EUNAVAIL,
                          "there is no folder '%s': is the Letta server's volume mounted?",
                          f->root);
    if (error != 0 && *ret_place != LETTA_THERE)
        return fail_unseen(f, error, err);
    if (rc == MEMFS_ENOTFOUND && !has_entries(path))
        return memfs_fail(err, MEMFS_ENOTFOUND, "the Letta server has no memory of this agent");
    return memfs_fail(err, MEMFS_ECORRUPT,
                      "main in the Letta server's folder cannot be read: it is half-written");
}

/* ---- all of them ---- */

static bool each_agent(const letta_folder *f, const char *org_path, letta_folder_fn fn, void *ctx)
{
    _cleanup_(closedirp) DIR *dir = opendir(org_path);
    struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = NULL;

        if (!ids_is_agent(str_of(e->d_name)))
            continue;
        path = mem_printf("%s/%s/repo.git/refs/heads", org_path, e->d_name);
        if (!letta_is_folder(f, path))
            continue;
        free(path);
        path = mem_printf("%s/%s/repo.git/" STORE_MAIN, org_path, e->d_name);
        if (!fn(e->d_name, path, ctx))
            return false;
    }
    return true;
}

void letta_folder_each(letta_folder *f, letta_folder_fn fn, void *ctx)
{
    _cleanup_(closedirp) DIR *dir = opendir(f->orgs);
    struct dirent *e;
    bool goes_on = true;

    while (goes_on && dir != NULL && (e = readdir(dir)) != NULL) {
        _cleanup_(mem_freep) char *path = mem_printf("%s/%s", f->orgs, e->d_name);

        if (ids_is_prefixed_uuid4(str_of(e->d_name), "org") && letta_is_folder(f, path))
            goes_on = each_agent(f, path, fn, ctx);
    }
}

/* ---- whose it is ---- */

memfs_code letta_owner_of(const letta_folder *f, letta_owner *ret, memfs_error *err)
{
    struct stat st;

    if (stat(f->root, &st) < 0)
        return memfs_fail_errno(err, "could not look at '%s'", f->root);
    ret->folder = f;
    ret->uid = st.st_uid;
    ret->gid = st.st_gid;
    ret->file_mode = 0644 | (st.st_mode & 0020);
    ret->folder_mode = 0755 | (st.st_mode & 0020);
    return MEMFS_OK;
}

/* It is not ours to give away, or the filesystem knows no owners; the rights have to do then. */
static bool may_not_give(int error)
{
    return error == EPERM || error == EINVAL || error == ENOTSUP || error == ENOSYS;
}

static memfs_code give(const letta_owner *o, int fd, bool is_dir, const char *path,
                       memfs_error *err)
{
    int rc = fchown(fd, o->uid, o->gid);

    if (rc < 0)
        rc = fchown(fd, (uid_t)-1, o->gid); /* it may be one of our groups */
    if (rc < 0 && !may_not_give(errno))
        return memfs_fail_errno(err, "could not give '%s' to its owner", path);
    if (fchmod(fd, is_dir ? o->folder_mode : o->file_mode) < 0)
        return memfs_fail_errno(err, "could not set the rights of '%s'", path);
    return MEMFS_OK;
}

#define GIVE_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)

static memfs_code give_fd(const letta_owner *o, int fd, const char *path, memfs_error *err);

static memfs_code give_below(const letta_owner *o, int fd, const char *path, memfs_error *err)
{
    int again = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    _cleanup_(closedirp) DIR *dir = again >= 0 ? fdopendir(again) : NULL;
    memfs_code rc = MEMFS_OK;
    struct dirent *e;

    if (dir == NULL) {
        letta_close(&again);
        return memfs_fail(err, MEMFS_EUNAVAIL, "could not read '%s'", path);
    }
    while (rc == MEMFS_OK && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = give_fd(o, openat(fd, e->d_name, GIVE_FLAGS), path, err);
    return rc;
}

/*
 * Children first, and each by its descriptor: whom a folder was given to may put a link into it,
 * and what that leads to is not given away.  fd: taken.
 */
static memfs_code give_fd(const letta_owner *o, int fd, const char *path, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    struct stat st;
    bool is_dir;

    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = memfs_fail_errno(err, "could not open what was made in '%s'", path);
    } else {
        is_dir = S_ISDIR(st.st_mode);
        if (is_dir)
            rc = give_below(o, fd, path, err);
        if (rc == MEMFS_OK && (is_dir || S_ISREG(st.st_mode)))
            rc = give(o, fd, is_dir, path, err);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

memfs_code letta_own(const letta_owner *o, const char *path, memfs_error *err)
{
    return give_fd(o, letta_open(o->folder, path, GIVE_FLAGS), path, err);
}

memfs_code letta_own_made(const letta_owner *o, const char *path, memfs_error *err)
{
    return give_fd(o, open(path, GIVE_FLAGS), strrchr(path, '/') + 1, err);
}

/* ---- held ---- */

memfs_code letta_hold(int fd, letta_held *ret, memfs_error *err)
{
    struct stat st;

    ret->fd = fd;
    if (fd < 0)
        return memfs_fail_errno(err, "could not open a folder of the Letta server's");
    snprintf(ret->path, sizeof(ret->path), "/proc/self/fd/%d", fd);
    return stat(ret->path, &st) == 0
               ? MEMFS_OK
               : memfs_fail_errno(err, "could not work in the Letta server's folder: mount /proc");
}

void letta_held_dispose(letta_held *h)
{
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
}
