#include "store/incoming.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/git_child.h"
#include "store/incoming_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A pack is judged by git and kept apart until it is judged by us as well:
 *
 *     tmp/incoming-<token>-<n>/objects/pack/     where `git index-pack` writes; its alternate is
 *                                                the repository, so that a thin pack finds its
 *                                                bases
 *
 * git refuses what is no pack, what is cut short or altered, what links to objects that nobody has,
 * delta bombs past its memory limit, and trees that would overwrite .git (--strict).  It writes and
 * syncs pack and index (core.fsync=all).  It never knows the repository as anything but a place to
 * read, so nothing that fails here leaves a trace there (D3).
 *
 * Taking in: pack first, index last, as git itself does, because a pack counts from the moment its
 * index has a name; then the folder is synced.
 *
 * The child starts with the first byte: many pushes bring no objects at all.  A folder that was
 * emptied by taking its pack in is kept for the next push, because making and removing three
 * folders costs as much as the judgement (0.4 to 1.6 ms).  Its stdin is written
 * without blocking while stdout and stderr are drained, so that neither side waits for the other
 * (F03).  A failure sticks: feed and finish keep answering it.
 */

#define STDERR_MAX (64 * 1024)

struct incoming {
    store *s;
    char *name;
    incoming_options options;
    char *folder;  /* NULL until the first byte */
    char *objects; /* below folder */
    process child;
    bool is_started, is_finished, is_accepted;
    char pack[MEMFS_OID_HEX + 1]; /* "" when no object came */
    int64_t deadline_ms;
    uint64_t n_fed;
    memfs_buf out, talk_line, err_text;
    uint64_t n_err; /* bytes of stderr that came; past STDERR_MAX they are dropped */
    memfs_error failure;
    repo *view;
};

/* life cycle */

memfs_code incoming_begin(store *s, const char *name, const incoming_options *options,
                          incoming **ret, memfs_error *err)
{
    incoming *in;

    if (!store_name_is_sane(name))
        return memfs_fail(err, MEMFS_EINVALID, "that is no name of a repository");
    in = mem_alloc(sizeof(*in));
    in->s = s;
    in->name = mem_strdup(name);
    in->options = *options;
    in->child = (process)PROCESS_INIT;
    in->out = (memfs_buf)MEMFS_BUF_INIT(1024);
    in->talk_line = (memfs_buf)MEMFS_BUF_INIT(1024);
    in->err_text = (memfs_buf)MEMFS_BUF_INIT(STDERR_MAX);
    *ret = in;
    return MEMFS_OK;
}

/*
 * An incoming folder whose pack was taken in is empty, and waits under another name.  The slot is
 * claimed before the rename, so that no lock is held over it.
 */
static bool claim_slot(store *s, bool is_ready, size_t *ret)
{
    bool found = false;

    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; !found && i < IDLE_FOLDERS; i++) {
        found = s->is_ready[i] == is_ready;
        *ret = i;
    }
    if (found && is_ready)
        s->is_ready[*ret] = false;
    pthread_mutex_unlock(&s->mutex);
    return found;
}

static bool take_ready(store *s, const char *folder)
{
    _cleanup_(mem_freep) char *ready = NULL;
    size_t slot;

    if (!claim_slot(s, true, &slot))
        return false;
    ready = mem_printf("%s/%zu", s->ready, slot);
    return rename(ready, folder) == 0;
}

/* False: there are enough of them. */
static bool give_ready(store *s, const char *folder)
{
    _cleanup_(mem_freep) char *ready = NULL;
    bool given;
    size_t slot;

    if (!claim_slot(s, false, &slot))
        return false;
    ready = mem_printf("%s/%zu", s->ready, slot);
    given = renameat2(AT_FDCWD, folder, AT_FDCWD, ready, RENAME_NOREPLACE) == 0;
    if (given) {
        pthread_mutex_lock(&s->mutex);
        s->is_ready[slot] = true;
        pthread_mutex_unlock(&s->mutex);
    }
    return given;
}

void incoming_abort(incoming *in)
{
    memfs_error ignored;

    if (in == NULL)
        return;
    repo_close(in->view);
    process_dispose(&in->child);
    if (in->is_accepted && give_ready(in->s, in->folder))
        mem_freep(&in->folder);
    /* What cannot be removed now is swept later: it is no part of any repository. */
    if (in->folder != NULL && fs_remove_tree(in->folder, &ignored) < 0)
        ignored.code = MEMFS_OK;
    free(in->name);
    free(in->folder);
    free(in->objects);
    buf_dispose(&in->out);
    buf_dispose(&in->talk_line);
    buf_dispose(&in->err_text);
    free(in);
}

/* The repository, or the genesis as long as there is none.  Caller frees. */
static char *base_path(const incoming *in)
{
    if (store_has(in->s, in->name))
        return store_path(in->s, in->name);
    return mem_strdup(store_genesis_path(in->s));
}

static memfs_code fail_sticky(incoming *in, memfs_error *err)
{
    if (in->failure.code == MEMFS_OK)
        in->failure = *err;
    process_dispose(&in->child);
    return err->code;
}

/* the child */

static memfs_code make_folders(incoming *in, memfs_error *err)
{
    _cleanup_(mem_freep) char *pack = NULL;

    in->folder = store_temp_path(in->s, "incoming");
    in->objects = mem_printf("%s/objects", in->folder);
    if (take_ready(in->s, in->folder))
        return MEMFS_OK;
    pack = mem_printf("%s/pack", in->objects);
    if (mkdir(in->folder, 0700) < 0 || mkdir(in->objects, 0700) < 0 || mkdir(pack, 0700) < 0)
        return memfs_fail_errno(err, "could not make room for a push");
    return MEMFS_OK;
}

static memfs_code start(incoming *in, memfs_error *err)
{
    _cleanup_(mem_freep) char *base = base_path(in);
    _cleanup_(mem_freep) char *alternate = mem_printf("%s/objects", base);
    const char *args[] = { "index-pack", "--stdin", "--fix-thin", "--strict",
                           in->options.wants_progress ? "--show-resolving-progress" : NULL, NULL };
    git_child_options o = { .git_dir = base,
                            .args = args,
                            .alternate_dir = alternate,
                            .file_size_bytes = in->options.max_pack_bytes + (16u << 20) };
    memfs_code rc = make_folders(in, err);

    if (rc < 0)
        return rc;
    o.object_dir = in->objects;
    in->deadline_ms = clock_mono_ms() + in->options.timeout_ms;
    rc = git_child_start(in->s, GIT_JOB_INDEX_PACK, &o, &in->child, err);
    in->is_started = rc == MEMFS_OK;
    return rc;
}

/* A whole line of git's for the person who pushes. */
static void tell(incoming *in)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);

    if (in->options.talk != NULL && in->talk_line.len > 0 &&
        strstr(in->talk_line.ptr, in->s->home) == NULL) {
        escape_add(&text, buf_str(&in->talk_line));
        in->options.talk(buf_str(&text), in->options.talk_ctx);
    }
    buf_clear(&in->talk_line);
}

static void take_stderr(incoming *in, memfs_str bytes)
{
    if (in->n_err + bytes.len > STDERR_MAX)
        bytes.len = in->n_err < STDERR_MAX ? STDERR_MAX - in->n_err : 0;
    in->n_err += bytes.len;
    buf_add_str(&in->err_text, bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.ptr[i] == '\n' || bytes.ptr[i] == '\r')
            tell(in);
        else
            buf_putc(&in->talk_line, bytes.ptr[i]);
    }
}

/* Reads once.  The pipe is closed at its end. */
static void drain(incoming *in, int *fd)
{
    char chunk[8192];
    ssize_t n = read(*fd, chunk, sizeof(chunk));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close(*fd);
        *fd = -1;
        return;
    }
    if (fd == &in->child.err)
        take_stderr(in, str_make(chunk, (size_t)n));
    else
        buf_add(&in->out, chunk, (size_t)n);
}

/* Waits for room in stdin (when wants_room) or for something to read, and reads it. */
static memfs_code exchange(incoming *in, bool wants_room, bool *ret_has_room, memfs_error *err)
{
    struct pollfd fds[] = { { wants_room ? in->child.in : -1, POLLOUT, 0 },
                            { in->child.out, POLLIN, 0 },
                            { in->child.err, POLLIN, 0 } };
    int64_t left = in->deadline_ms + (int64_t)(in->n_fed >> 20) * 1000 - clock_mono_ms();

    if (left <= 0)
        return memfs_fail(err, MEMFS_EUNAVAIL, "the push took too long");
    if (poll(fds, 3, left > INT_MAX ? INT_MAX : (int)left) < 0 && errno != EINTR)
        return memfs_fail_errno(err, "could not wait for git");
    if (fds[1].revents != 0)
        drain(in, &in->child.out);
    if (fds[2].revents != 0)
        drain(in, &in->child.err);
    *ret_has_room = fds[0].revents != 0;
    return MEMFS_OK;
}

/* why git refused */

static bool has_text(memfs_str s, const char *part)
{
    return memmem(s.ptr, s.len, part, strlen(part)) != NULL;
}

/* "error: object 1234: hasDotgit: ..." says more than the "fatal: fsck error" that ends it. */
static memfs_str telling_line(memfs_str text)
{
    memfs_str rest = text, line;

    while (str_split(rest, '\n', &line, &rest))
        if (str_starts_with(line, MEMFS_STR("error: ")))
            return str_from(line, 7);
    line = process_last_line(text);
    return str_starts_with(line, MEMFS_STR("fatal: ")) ? str_from(line, 7) : line;
}

static memfs_code fail_refused(incoming *in, int status, memfs_error *err)
{
    memfs_str all = buf_str(&in->err_text), line = telling_line(all);
    char shown[240];

    if (git_env_is_disk_full(all))
        return memfs_fail(err, MEMFS_ENOSPACE, "the disk of the server is full");
    if (has_text(all, "Too many open files") || has_text(all, "Resource temporarily unavailable"))
        return memfs_fail(err, MEMFS_EUNAVAIL, "the server is short of resources");
    if (has_text(all, "Input/output error"))
        return memfs_fail(err, MEMFS_EINTERNAL, "the disk of the server fails");
    if (has_text(all, "Out of memory") || has_text(all, "mmap failed") || status > 128 + 1)
        return memfs_fail(err, MEMFS_EINVALID,
                          "the pack needs more memory or time than a push may take");
    if (line.len == 0 || has_text(line, in->s->home))
        return memfs_fail(err, MEMFS_EINVALID, "git refused the pack (status %d)", status);
    return memfs_fail(err, MEMFS_EINVALID, "%s", escape_text(line, shown, sizeof(shown)));
}

/* Until git has closed both its ends and is gone. */
static memfs_code wait_end(incoming *in, int *ret_status, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    bool ignored;

    process_close_in(&in->child);
    while (rc == MEMFS_OK && (in->child.out >= 0 || in->child.err >= 0))
        rc = exchange(in, false, &ignored, err);
    tell(in);
    if (rc == MEMFS_OK)
        rc = process_wait(&in->child, in->deadline_ms + (int64_t)(in->n_fed >> 20) * 1000,
                          ret_status, err);
    return rc;
}

/* git has closed its stdin before it had everything. */
static memfs_code fail_early(incoming *in, memfs_error *err)
{
    int status;
    memfs_code rc = wait_end(in, &status, err);

    if (rc < 0)
        return rc;
    if (status == 0)
        return memfs_fail(err, MEMFS_EINVALID, "there are bytes after the end of the pack");
    return fail_refused(in, status, err);
}

/* feeding */

static memfs_code feed(incoming *in, memfs_str bytes, memfs_error *err)
{
    bool has_room = true;
    memfs_code rc;

    while (bytes.len > 0) {
        ssize_t n = has_room ? process_write(&in->child, bytes.ptr, bytes.len) : 0;

        if (n < 0 && errno == EPIPE)
            return fail_early(in, err);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return memfs_fail_errno(err, "could not hand the pack to git");
        if (n > 0) {
            bytes = str_from(bytes, (size_t)n);
            in->n_fed += (uint64_t)n;
            continue;
        }
        rc = exchange(in, true, &has_room, err);
        if (rc < 0)
            return rc;
    }
    return MEMFS_OK;
}

memfs_code incoming_feed(incoming *in, const void *bytes, size_t n, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (in->failure.code != MEMFS_OK) {
        *err = in->failure;
        return err->code;
    }
    if (in->is_finished)
        return memfs_fail(err, MEMFS_EINTERNAL, "the pack has ended already");
    if (in->n_fed + n > in->options.max_pack_bytes) {
        memfs_fail(err, MEMFS_ELIMIT, "the pack is larger than %llu bytes; push in smaller steps",
                   (unsigned long long)in->options.max_pack_bytes);
        return fail_sticky(in, err);
    }
    if (!in->is_started)
        rc = start(in, err);
    if (rc == MEMFS_OK)
        rc = feed(in, str_make(bytes, n), err);
    return rc < 0 ? fail_sticky(in, err) : MEMFS_OK;
}

/* "pack\t<id>\n": the name of what was written.  A pack of no objects is left where it is. */
static memfs_code read_result(incoming *in, memfs_error *err)
{
    memfs_str text = buf_str(&in->out);
    struct stat st;
    memfs_oid id;

    if (text.len < 5 + MEMFS_OID_HEX || memcmp(text.ptr, "pack\t", 5) != 0 ||
        !oid_parse(str_make(text.ptr + 5, MEMFS_OID_HEX), &id))
        return memfs_fail(err, MEMFS_EINTERNAL, "git does not say what it made of the pack");
    oid_hex(&id, in->pack);
    _cleanup_(mem_freep) char *path = mem_printf("%s/pack/pack-%s.pack", in->objects, in->pack);
    if (stat(path, &st) < 0)
        return memfs_fail_errno(err, "the pack that git wrote is not there");
    if (st.st_size <= 32) /* head and checksum, no object */
        in->pack[0] = '\0';
    return MEMFS_OK;
}

static memfs_code finish(incoming *in, memfs_error *err)
{
    int status;
    memfs_code rc = wait_end(in, &status, err);

    if (rc < 0)
        return rc;
    return status == 0 ? read_result(in, err) : fail_refused(in, status, err);
}

memfs_code incoming_finish(incoming *in, memfs_error *err)
{
    if (in->failure.code != MEMFS_OK) {
        *err = in->failure;
        return err->code;
    }
    if (!in->is_started || in->is_finished)
        return MEMFS_OK;
    in->is_finished = true;
    return finish(in, err) < 0 ? fail_sticky(in, err) : MEMFS_OK;
}

/* looking inside */

static memfs_code open_view(incoming *in, memfs_error *err)
{
    _cleanup_(mem_freep) char *base = base_path(in);
    _cleanup_(mem_freep) char *objects = mem_printf("%s/objects", base);
    git_odb *odb = NULL;
    memfs_code rc = MEMFS_OK;
    uint64_t reader;

    if (git_odb_new(&odb) < 0)
        return store_fail_git(err, -1, "could not open the push");
    reader = readers_begin(in->s->readers, base);
    if (in->pack[0] != '\0')
        rc = repo_add_objects(odb, in->objects, true, err);
    if (rc == MEMFS_OK)
        rc = repo_add_objects(odb, objects, false, err);
    if (rc < 0) {
        git_odb_free(odb);
        readers_end(in->s->readers, reader);
        return rc;
    }
    return repo_of_odb(in->s, NULL, odb, reader, &in->view, err);
}

repo *incoming_repo(incoming *in)
{
    memfs_error ignored;

    if (in->view == NULL && open_view(in, &ignored) < 0)
        return NULL;
    return in->view;
}

memfs_code incoming_vet(incoming *in, const incoming_vetting *v, memfs_error *err)
{
    _cleanup_(mem_freep) char *index = NULL;
    memfs_code rc = MEMFS_OK;

    if (in->failure.code != MEMFS_OK) {
        *err = in->failure;
        return err->code;
    }
    if (in->is_started && !in->is_finished)
        return memfs_fail(err, MEMFS_EINTERNAL, "the pack has not ended yet");
    if (in->view == NULL)
        rc = open_view(in, err);
    if (rc < 0)
        return rc;
    if (in->pack[0] != '\0')
        index = mem_printf("%s/pack/pack-%s.idx", in->objects, in->pack);
    return vet_push(in->view, index, v, err);
}

/* taking in */

static memfs_code move_in(const incoming *in, const char *target, const char *suffix,
                          bool is_needed, memfs_error *err)
{
    _cleanup_(mem_freep) char *from =
        mem_printf("%s/pack/pack-%s.%s", in->objects, in->pack, suffix);
    _cleanup_(mem_freep) char *to = mem_printf("%s/pack-%s.%s", target, in->pack, suffix);

    if (rename(from, to) == 0 || (errno == ENOENT && !is_needed))
        return MEMFS_OK;
    return memfs_fail_errno(err, "could not put the pack in place");
}

memfs_code incoming_accept(incoming *in, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = store_path(in->s, in->name);
    _cleanup_(mem_freep) char *target = mem_printf("%s/objects/pack", path);
    memfs_code rc;

    if (in->failure.code != MEMFS_OK || (in->is_started && !in->is_finished))
        return memfs_fail(err, MEMFS_EINTERNAL, "there is no complete pack to take in");
    if (in->pack[0] == '\0' || in->is_accepted)
        return MEMFS_OK;
    rc = fs_mkdirs(target, err);
    if (rc == MEMFS_OK)
        rc = move_in(in, target, "pack", true, err);
    if (rc == MEMFS_OK)
        rc = move_in(in, target, "rev", false, err);
    if (rc == MEMFS_OK)
        rc = move_in(in, target, "idx", true, err);
    if (rc == MEMFS_OK && fs_sync_dir(target, err) < 0)
        rc = err->code == MEMFS_ENOSPACE ? err->code : (err->code = MEMFS_ECORRUPT);
    in->is_accepted = rc == MEMFS_OK; /* then the folder is empty, and abort keeps it */
    return rc;
}
