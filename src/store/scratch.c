#include "store/scratch.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static memfs_code make_folder(const char *dir, const char *name, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s%s", dir, name);

    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return MEMFS_OK;
    return memfs_fail_errno(err, "could not make room for what a remote sends");
}

static memfs_code put_file(const char *dir, const char *name, memfs_str text, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t n;

    if (fd < 0)
        return memfs_fail_errno(err, "could not make room for what a remote sends");
    n = write(fd, text.ptr, text.len);
    if (n >= 0 && (size_t)n < text.len) {
        n = -1;
        errno = ENOSPC;
    }
    if (n < 0)
        memfs_fail_errno(err, "could not make room for what a remote sends");
    close(fd);
    return n < 0 ? err->code : MEMFS_OK;
}

memfs_code scratch_make(const char *dir, memfs_error *err)
{
    static const char *const folders[] = { "", "/objects", "/objects/info", "/objects/pack",
                                           "/refs", "/refs/heads" };
    memfs_code rc = MEMFS_OK;

    for (size_t i = 0; rc == MEMFS_OK && i < ARRAY_LEN(folders); i++)
        rc = make_folder(dir, folders[i], err);
    if (rc == MEMFS_OK)
        rc = put_file(dir, "HEAD", MEMFS_STR("ref: " STORE_MAIN "\n"), err);
    if (rc == MEMFS_OK)
        rc = put_file(dir, "config",
                      MEMFS_STR("[core]\n\trepositoryformatversion = 0\n\tbare = true\n"), err);
    return rc;
}

/* In quotes, as C has them: a folder may have any name. */
memfs_code scratch_look_into(const char *dir, const char *objects, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf line = MEMFS_BUF_INIT(3 * 4096);
    memfs_code rc;

    buf_putc(&line, '"');
    for (; *objects != '\0'; objects++) {
        if (*objects == '"' || *objects == '\\')
            buf_putc(&line, '\\');
        if (*objects == '\n')
            buf_puts(&line, "\\n");
        else
            buf_putc(&line, *objects);
    }
    buf_puts(&line, "\"\n");
    rc = buf_check(&line, "the path of the data folder", err);
    return rc == MEMFS_OK ? put_file(dir, "objects/info/alternates", buf_str(&line), err) : rc;
}

memfs_code scratch_set_ref(const char *dir, const char *ref, const memfs_oid *id,
                           memfs_error *err)
{
    char text[MEMFS_OID_HEX + 2];
    memfs_code rc = MEMFS_OK;

    for (const char *c = strchr(ref, '/'); rc == MEMFS_OK && c != NULL; c = strchr(c + 1, '/')) {
        _cleanup_(mem_freep) char *folder = mem_printf("/%.*s", (int)(c - ref), ref);

        rc = make_folder(dir, folder, err);
    }
    oid_hex(id, text);
    text[MEMFS_OID_HEX] = '\n';
    return rc == MEMFS_OK ? put_file(dir, ref, str_make(text, MEMFS_OID_HEX + 1), err) : rc;
}
