#include "client/doctor_int.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* <git dir>/memfs/doctor/<time>-<name>, with a number when that is taken; the folder is made. */
static memfs_code free_name(const patient *w, const char *name, char **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/memfs/doctor", w->git_dir);
    char stamp[CLOCK_ISO_LEN];
    memfs_code rc = fs_mkdirs(folder, err);

    if (rc < 0)
        return rc;
    clock_iso(clock_wall_us() / 1000000 * 1000000, stamp);
    for (char *at = strchr(stamp, ':'); at != NULL; at = strchr(at, ':'))
        *at = '-';
    for (unsigned i = 0; i < 1000; i++) {
        char *path = i == 0 ? mem_printf("%s/%s-%s", folder, stamp, name)
                            : mem_printf("%s/%s-%u-%s", folder, stamp, i, name);

        if (!fs_exists(path)) {
            *ret = path;
            return MEMFS_OK;
        }
        free(path);
    }
    return memfs_fail(err, MEMFS_ELIMIT, "too much is kept in '%s'; clear it out", folder);
}

memfs_code doctor_keep_file(const patient *w, const char *path, memfs_error *err)
{
    const char *slash = strrchr(path, '/');
    _cleanup_(mem_freep) char *to = NULL;
    memfs_code rc = free_name(w, slash != NULL ? slash + 1 : path, &to, err);

    return rc == MEMFS_OK ? fs_rename(path, to, err) : rc;
}

memfs_code doctor_keep_text(const patient *w, const char *name, memfs_str text, memfs_error *err)
{
    _cleanup_(mem_freep) char *to = NULL;
    memfs_code rc = free_name(w, name, &to, err);

    return rc == MEMFS_OK ? fs_write_atomic(to, text, 0600, err) : rc;
}

int64_t doctor_idle_s(const char *path)
{
    struct stat st;
    int64_t idle_s;

    if (lstat(path, &st) < 0)
        return 0;
    idle_s = clock_wall_us() / 1000000 - (int64_t)st.st_mtim.tv_sec;
    return idle_s > 0 ? idle_s : 0;
}
