#include "client/token_count.h"

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "memory/tokens.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MAX_DEPTH 64
#define MAX_FILE (256u << 20)

typedef struct walk {
    const char *memory;
    token_files *ret;
    bool is_deep; /* folders too */
} walk;

void token_files_dispose(token_files *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->at[i].path);
    free(t->at);
    *t = (token_files)TOKEN_FILES_INIT;
}

static void close_dir(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

static memfs_code count_file(walk *w, const char *relative, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", w->memory, relative);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_FILE);
    token_files *t = w->ret;
    memfs_code rc = fs_read(path, &text, err);

    if (rc < 0)
        return rc;
    t->at = mem_realloc(t->at, t->n + 1, sizeof(*t->at));
    t->at[t->n] = (token_file){ mem_strdup(relative), tokens_of(buf_str(&text)) };
    t->total += t->at[t->n++].tokens;
    return MEMFS_OK;
}

static memfs_code count_folder(walk *w, const char *relative, unsigned depth, memfs_error *err);

static memfs_code count_entry(walk *w, int fd, const char *folder, const char *name, unsigned depth,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *relative = mem_printf("%s%s%s", folder, folder[0] ? "/" : "", name);
    struct stat st;

    if (name[0] == '.' || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return MEMFS_OK; /* what vanishes while we look is not there */
    if (S_ISDIR(st.st_mode) && w->is_deep)
        return count_folder(w, relative, depth + 1, err);
    if (S_ISREG(st.st_mode) && str_ends_with(str_of(name), MEMFS_STR(".md")))
        return count_file(w, relative, err);
    return MEMFS_OK;
}

static memfs_code count_folder(walk *w, const char *relative, unsigned depth, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", w->memory, relative);
    _cleanup_(close_dir) DIR *dir = opendir(path);
    memfs_code rc = MEMFS_OK;
    struct dirent *entry;

    if (dir == NULL && (errno == ENOENT || errno == ENOTDIR))
        return MEMFS_OK;
    if (dir == NULL)
        return memfs_fail_errno(err, "could not read '%s'", path);
    if (depth > MAX_DEPTH)
        return memfs_fail(err, MEMFS_ELIMIT, "'%s': folders are nested deeper than %d", path,
                          MAX_DEPTH);
    while (rc == MEMFS_OK && (errno = 0, entry = readdir(dir)) != NULL)
        rc = count_entry(w, dirfd(dir), relative, entry->d_name, depth, err);
    if (rc == MEMFS_OK && errno != 0)
        return memfs_fail_errno(err, "could not read '%s'", path);
    return rc;
}

/* Beyond the first plane, UTF-16 sorts before U+E000: two halves of D800 to DFFF. */
static uint32_t utf16_order(uint32_t cp)
{
    return cp >= 0x10000 ? 0xd800 : cp >= 0xe000 ? cp + 0x800 : cp;
}

static int by_path(const void *a, const void *b)
{
    memfs_str x = str_of(((const token_file *)a)->path), y = str_of(((const token_file *)b)->path);
    size_t i = 0, j = 0;

    while (i < x.len && j < y.len) {
        uint32_t cx = 0, cy = 0;

        str_utf8_next(x, &i, &cx);
        str_utf8_next(y, &j, &cy);
        if (cx != cy) {
            uint32_t ox = utf16_order(cx), oy = utf16_order(cy);

            return ox != oy ? (ox > oy) - (ox < oy) : (cx > cy) - (cx < cy);
        }
    }
    return (x.len - i > y.len - j) - (x.len - i < y.len - j);
}

memfs_code token_count(const char *memory, bool may_be_second_layout, token_files *ret,
                       memfs_error *err)
{
    _cleanup_(token_files_dispose) token_files found = TOKEN_FILES_INIT;
    _cleanup_(mem_freep) char *marker = mem_printf("%s/MEMORY.md", memory);
    walk w = { memory, &found, true };
    memfs_code rc;

    w.is_deep = !(may_be_second_layout && fs_exists(marker));
    rc = count_folder(&w, w.is_deep ? "system" : "", 0, err);
    if (rc < 0)
        return rc;
    if (found.n > 1)
        qsort(found.at, found.n, sizeof(*found.at), by_path);
    *ret = found;
    found = (token_files)TOKEN_FILES_INIT;
    return MEMFS_OK;
}
