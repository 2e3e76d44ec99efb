#include "client/carry.h"

#include "base/fs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE (256u << 20)
#define TAR_BLOCK 512

typedef struct out {
    checkout *c;
    const char *folder; /* NULL: tar */
    FILE *tar;
    int64_t time_s;
    carry_fn left_out;
    void *ctx;
    carried *ret;
} out;

static bool is_file(uint32_t mode)
{
    return mode == TREE_MODE_FILE || mode == TREE_MODE_EXEC || mode == 0100664;
}

/* No part that leads out: a tree that somebody else wrote may hold any name. */
static bool is_sane(memfs_str path)
{
    memfs_str part, rest = path;

    while (rest.len > 0) {
        if (!str_split(rest, '/', &part, &rest)) {
            part = rest;
            rest = MEMFS_STR("");
        }
        if (part.len == 0 || str_equal(part, MEMFS_STR(".")) || str_equal(part, MEMFS_STR("..")))
            return false;
    }
    return path.len > 0 && memchr(path.ptr, '\0', path.len) == NULL;
}

static memfs_code read_blob(out *o, memfs_str path, uint32_t mode, const memfs_oid *blob,
                            memfs_buf *text, bool *ret_is_taken, memfs_error *err)
{
    memfs_code rc;

    *ret_is_taken = false;
    if (!is_file(mode) || !is_sane(path)) {
        o->ret->n_left_out++;
        if (o->left_out != NULL)
            o->left_out(path, is_file(mode) ? "its name leads out of the folder" : "it is a link",
                        o->ctx);
        return MEMFS_OK;
    }
    rc = repo_blob(checkout_repo(o->c), blob, MAX_FILE, text, err);
    if (rc < 0)
        return rc;
    o->ret->n_files++;
    o->ret->bytes += text->len;
    *ret_is_taken = true;
    return MEMFS_OK;
}

/* ---- a folder ---- */

static memfs_code write_file(const char *path, memfs_str bytes, uint32_t mode, memfs_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                  mode == TREE_MODE_EXEC ? 0755 : 0644);
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    bool is_bad;

    if (file == NULL) {
        memfs_fail_errno(err, "could not create '%s'", path);
        if (fd >= 0)
            close(fd);
        return err->code;
    }
    is_bad = fwrite(bytes.ptr, 1, bytes.len, file) != bytes.len;
    is_bad |= fclose(file) != 0;
    return is_bad ? memfs_fail_errno(err, "could not write '%s'", path) : MEMFS_OK;
}

static memfs_code make_folders(const char *root, memfs_str path, memfs_error *err)
{
    for (size_t i = 0; i < path.len; i++) {
        _cleanup_(mem_freep) char *folder = NULL;

        if (path.ptr[i] != '/')
            continue;
        folder = mem_printf("%s/%.*s", root, (int)i, path.ptr);
        if (mkdir(folder, 0755) < 0 && errno != EEXIST)
            return memfs_fail_errno(err, "could not create '%s'", folder);
    }
    return MEMFS_OK;
}

static memfs_code to_folder(memfs_str path, uint32_t mode, const memfs_oid *blob, void *ctx,
                            memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_FILE);
    _cleanup_(mem_freep) char *full = NULL;
    out *o = ctx;
    bool is_taken;
    memfs_code rc = read_blob(o, path, mode, blob, &text, &is_taken, err);

    if (rc < 0 || !is_taken)
        return rc;
    full = mem_printf("%s/%.*s", o->folder, (int)path.len, path.ptr);
    rc = make_folders(o->folder, path, err);
    return rc < 0 ? rc : write_file(full, buf_str(&text), mode, err);
}

static memfs_code check_empty(const char *folder, memfs_error *err)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    bool is_empty = true;

    if (dir == NULL && errno == ENOENT)
        return fs_mkdirs(folder, err);
    if (dir == NULL)
        return memfs_fail_errno(err, "could not read '%s'", folder);
    while ((entry = readdir(dir)) != NULL)
        is_empty = is_empty &&
                   (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    closedir(dir);
    return is_empty ? MEMFS_OK
                    : memfs_fail(err, MEMFS_EEXISTS, "'%s' is not empty; name a new folder", folder);
}

memfs_code carry_out_folder(browse *b, checkout *c, const memfs_oid *commit, const char *folder,
                            carry_fn left_out, void *ctx, carried *ret, memfs_error *err)
{
    out o = { .c = c, .folder = folder, .left_out = left_out, .ctx = ctx, .ret = ret };
    memfs_code rc = check_empty(folder, err);

    *ret = (carried){ 0, 0, 0 };
    if (rc == MEMFS_OK)
        rc = browse_files(b, commit, NULL, to_folder, &o, err);
    return rc < 0 ? rc : fs_sync_tree(folder, err);
}

/* ---- tar ---- */

/*
 * ustar, with a pax header before each file whose name does not fit: "<length> path=<name>\n",
 * where the length counts itself.
 */
typedef struct tar_head {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6],
        version[2], uname[32], gname[32], major[8], minor[8], prefix[155], rest[12];
} tar_head;
_Static_assert(sizeof(tar_head) == TAR_BLOCK, "a tar header is one block");

static memfs_code put(FILE *file, const void *bytes, size_t n, memfs_error *err)
{
    return fwrite(bytes, 1, n, file) == n ? MEMFS_OK
                                          : memfs_fail_errno(err, "could not write the archive");
}

static memfs_code put_head(const out *o, const char *name, char type, size_t size, unsigned mode,
                           memfs_error *err)
{
    tar_head h;
    unsigned sum = 0;

    memset(&h, 0, sizeof(h));
    memcpy(h.name, name, strlen(name));
    snprintf(h.mode, sizeof(h.mode), "%07o", mode);
    snprintf(h.uid, sizeof(h.uid), "%07o", 0u);
    snprintf(h.gid, sizeof(h.gid), "%07o", 0u);
    snprintf(h.size, sizeof(h.size), "%011zo", size);
    snprintf(h.mtime, sizeof(h.mtime), "%011llo",
             (unsigned long long)(o->time_s > 0 ? o->time_s : 0) & 077777777777ull);
    memset(h.sum, ' ', sizeof(h.sum));
    h.type = type;
    memcpy(h.magic, "ustar", 6);
    memcpy(h.version, "00", 2);
    for (size_t i = 0; i < sizeof(h); i++)
        sum += ((const unsigned char *)&h)[i];
    snprintf(h.sum, sizeof(h.sum), "%06o", sum);
    return put(o->tar, &h, sizeof(h), err);
}

static memfs_code put_body(const out *o, memfs_str bytes, memfs_error *err)
{
    static const char zeros[TAR_BLOCK];
    size_t over = bytes.len % TAR_BLOCK;
    memfs_code rc = put(o->tar, bytes.ptr, bytes.len, err);

    return rc < 0 || over == 0 ? rc : put(o->tar, zeros, TAR_BLOCK - over, err);
}

static memfs_code put_long_name(const out *o, memfs_str path, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf record = MEMFS_BUF_INIT(64 * 1024);
    size_t rest = sizeof(" path=\n") - 1 + path.len, len = rest + 1;
    char digits[STR_U64_LEN];
    memfs_code rc;

    while (len != rest + str_put_u64(len, digits))
        len = rest + str_put_u64(len, digits);
    buf_printf(&record, "%zu path=", len);
    buf_add_str(&record, path);
    buf_putc(&record, '\n');
    rc = put_head(o, "pax", 'x', record.len, 0644, err);
    return rc < 0 ? rc : put_body(o, buf_str(&record), err);
}

static memfs_code to_tar(memfs_str path, uint32_t mode, const memfs_oid *blob, void *ctx,
                         memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_FILE);
    _cleanup_(mem_freep) char *name = NULL;
    out *o = ctx;
    bool is_taken;
    memfs_code rc = read_blob(o, path, mode, blob, &text, &is_taken, err);

    if (rc < 0 || !is_taken)
        return rc;
    name = mem_strndup(path.ptr, path.len < 100 ? path.len : 100);
    if (path.len > 100)
        rc = put_long_name(o, path, err);
    if (rc == MEMFS_OK)
        rc = put_head(o, name, '0', text.len, mode == TREE_MODE_EXEC ? 0755 : 0644, err);
    return rc < 0 ? rc : put_body(o, buf_str(&text), err);
}

memfs_code carry_out_tar(browse *b, checkout *c, const memfs_oid *commit, FILE *file,
                         carry_fn left_out, void *ctx, carried *ret, memfs_error *err)
{
    static const char end[2 * TAR_BLOCK];
    _cleanup_(commit_info_dispose) commit_info info = COMMIT_INFO_INIT;
    out o = { .c = c, .tar = file, .left_out = left_out, .ctx = ctx, .ret = ret };
    memfs_code rc = repo_commit_info(checkout_repo(c), commit, &info, err);

    *ret = (carried){ 0, 0, 0 };
    if (rc < 0)
        return rc;
    o.time_s = info.committer_time_s;
    rc = browse_files(b, commit, NULL, to_tar, &o, err);
    if (rc == MEMFS_OK)
        rc = put(file, end, sizeof(end), err);
    if (rc == MEMFS_OK && fflush(file) != 0)
        return memfs_fail_errno(err, "could not write the archive");
    return rc;
}
