#include "letta/folder_int.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/outgoing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * Each push leaves a pack, and the server copies every file whenever it reads, so too many become
 * one.  Those that it replaces are written down beside the repository and stay: a reader that has
 * listed them reads them still.  They go LETTA_OLD_S later, by the next push after that; what the
 * server wrote itself, loose, stays for ever.
 *
 *     .../{agent}/.memfs-old      a line for each pack that was replaced when it was written
 *     .../{agent}/.memfs-own      a line for each pack that we brought: no other is ever replaced,
 *                                 as what the server packed (its gc) may be newer than what we know
 */

static bool is_pack(memfs_str name)
{
    return str_starts_with(name, MEMFS_STR("pack-")) && str_ends_with(name, MEMFS_STR(".pack"));
}

static bool has_line(memfs_str text, memfs_str wanted)
{
    memfs_str line;

    while (str_split(text, '\n', &line, &text))
        if (str_equal(line, wanted))
            return true;
    return false;
}

/* The names of all packs that are in `own`, a line each, but for `but`; *ret_n: how many. */
static void list_packs(const letta_folder *f, const char *folder, memfs_str own, const char *but,
                       memfs_buf *out, size_t *ret_n)
{
    int fd = letta_open(f, folder, O_RDONLY | O_DIRECTORY);
    _cleanup_(closedirp) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;

    *ret_n = 0;
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        memfs_str name = str_of(e->d_name);

        if (!is_pack(name) || strncmp(e->d_name + 5, but, strlen(but)) == 0 ||
            !has_line(own, str_make(name.ptr, name.len - strlen(".pack"))))
            continue;
        buf_printf(out, "%.*s\n", (int)(name.len - strlen(".pack")), name.ptr);
        *ret_n += 1;
    }
}

static bool is_older(const char *path, int64_t age_s)
{
    struct stat st;

    return stat(path, &st) == 0 && time(NULL) - st.st_mtime >= age_s;
}

static bool is_name(memfs_str name)
{
    return str_starts_with(name, MEMFS_STR("pack-")) && memchr(name.ptr, '/', name.len) == NULL;
}

static void remove_pack(int folder, memfs_str name)
{
    _cleanup_(mem_freep) char *index = mem_printf("%.*s.idx", (int)name.len, name.ptr);
    _cleanup_(mem_freep) char *pack = mem_printf("%.*s.pack", (int)name.len, name.ptr);

    /* first: without its pack it is an error, the reverse is nothing */
    if (unlinkat(folder, index, 0) == 0 || errno == ENOENT)
        unlinkat(folder, pack, 0);
}

static void remove_old(const letta_folder *f, const char *list, const char *folder)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(letta_close) int fd = letta_open(f, folder, O_RDONLY | O_DIRECTORY);
    memfs_error ignored;
    memfs_str rest, line;

    if (fd < 0 || !is_older(list, LETTA_OLD_S) || fs_read(list, &text, &ignored) < 0)
        return;
    rest = buf_str(&text);
    while (str_split(rest, '\n', &line, &rest))
        if (is_name(line))
            remove_pack(fd, line);
    unlink(list);
}

static char *own_path(const char *agent)
{
    return mem_printf("%s/.memfs-own", agent);
}

memfs_code letta_note_pack(const char *agent, const char *pack, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = own_path(agent), *line = mem_printf("pack-%s\n", pack);
    /* a pipe in the place of a file would hold us up until somebody reads */
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    ssize_t n;

    if (fd < 0)
        return memfs_fail_errno(err, "could not write '.memfs-own' beside the repository");
    n = write(fd, line, strlen(line));
    close(fd);
    return n == (ssize_t)strlen(line)
               ? MEMFS_OK
               : memfs_fail_errno(err, "could not write '.memfs-own' beside the repository");
}

static void read_own(const char *agent, memfs_buf *ret)
{
    _cleanup_(mem_freep) char *path = own_path(agent);
    memfs_error ignored;
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && fs_read(path, ret, &ignored) < 0)
        buf_truncate(ret, 0); /* then nothing is ours, and all stays */
}

static void fold(store *s, const char *name, const memfs_oid *tip, const letta_places *at,
                 const char *list, const char *folder, memfs_str own)
{
    _cleanup_(mem_freep) char *packs = mem_printf("%s/all", at->stage);
    _cleanup_(buf_dispose) memfs_buf names = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(mem_freep) char *now = own_path(at->agent);
    static const memfs_oid none;
    char pack[MEMFS_OID_HEX + 1];
    memfs_error ignored;
    size_t n;

    if (outgoing_pack(s, name, tip, &none, packs, pack, &ignored) < 0 || pack[0] == '\0' ||
        letta_move_pack(at, packs, pack, &ignored) < 0)
        return;
    list_packs(at->owner->folder, folder, own, pack, &names, &n);
    if (fs_write_atomic(list, buf_str(&names), 0600, &ignored) < 0)
        return; /* they are found again when they are too many again */
    buf_printf(&names, "pack-%s\n", pack);
    (void)!fs_write_atomic(now, buf_str(&names), 0600, &ignored); /* it only grows otherwise */
}

void letta_folder_tidy(store *s, const char *name, const memfs_oid *tip, const letta_places *at)
{
    _cleanup_(mem_freep) char *list = mem_printf("%s/.memfs-old", at->agent);
    _cleanup_(mem_freep) char *folder = mem_printf("%s/objects/pack", at->repo);
    _cleanup_(buf_dispose) memfs_buf names = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf own = MEMFS_BUF_INIT(1u << 20);
    const letta_folder *f = at->owner->folder;
    size_t n;

    remove_old(f, list, folder);
    if (fs_exists(list))
        return;                /* one at a time */
    read_own(at->agent, &own); /* before the fold is made: what comes later is not in it */
    list_packs(f, folder, buf_str(&own), "none", &names, &n);
    if (n > LETTA_FOLD_AT)
        fold(s, name, tip, at, list, folder, buf_str(&own));
}
