/*
 * cluster_file.c - what a home remembers of itself as one of several servers: `server` and
 * `secrets/server` (cluster.h).
 */
#include "sync/cluster_int.h"

#include "base/hash.h"
#include "base/mem.h"
#include "sync/cluster.h"

#include <string.h>

#define NAME_BYTES 16

static char *file_of(const char *home_path)
{
    return mem_printf("%s/server", home_path);
}

/* "NAME\nURL\n"; both NULL when there is no such file. */
static memfs_code read_file(const char *home_path, char **ret_name, char **ret_url,
                            memfs_error *err)
{
    _cleanup_(mem_freep) char *path = file_of(home_path);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_str name, url, rest;
    memfs_code rc;

    *ret_name = *ret_url = NULL;
    if (!fs_exists(path))
        return MEMFS_OK;
    rc = fs_read(path, &text, err);
    if (rc < 0)
        return rc;
    if (!str_split(buf_str(&text), '\n', &name, &rest) || !str_split(rest, '\n', &url, &rest) ||
        name.len != 2 * NAME_BYTES || url.len == 0)
        return memfs_fail(err, MEMFS_ECORRUPT,
                          "'%s' is damaged: remove it, and start this server "
                          "with --cluster-url again",
                          path);
    *ret_name = mem_strndup(name.ptr, name.len);
    *ret_url = mem_strndup(url.ptr, url.len);
    return MEMFS_OK;
}

static bool is_url(const char *url)
{
    memfs_str s = str_of(url);
    size_t scheme = str_starts_with(s, MEMFS_STR("https://"))  ? 8
                    : str_starts_with(s, MEMFS_STR("http://")) ? 7
                                                               : 0;

    if (scheme == 0 || s.len == scheme || s.len > 1000)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)url[i] <= ' ' || strchr("@?#\"\\\x7F", url[i]) != NULL)
            return false;
    return url[s.len - 1] != '/';
}

memfs_code cluster_url(const char *home_path, const char *given, char **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *name = NULL, *url = NULL;
    memfs_code rc = read_file(home_path, &name, &url, err);

    *ret = NULL;
    if (rc < 0)
        return rc;
    if (given != NULL && !is_url(given))
        return memfs_fail(err, MEMFS_EINVALID,
                          "--cluster-url is where the other servers reach this "
                          "one, like http://10.0.0.5:8285");
    *ret = given != NULL ? mem_strdup(given) : TAKE_PTR(url);
    return MEMFS_OK;
}

memfs_code cluster_keep_name(const char *home_path, const char *url, char **ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = file_of(home_path), *was = NULL, *text = NULL;
    uint8_t bytes[NAME_BYTES];
    memfs_code rc = read_file(home_path, ret, &was, err);

    if (rc < 0 || (was != NULL && strcmp(was, url) == 0))
        return rc;
    if (*ret == NULL) {
        hash_random(bytes, sizeof(bytes));
        *ret = mem_alloc(2 * NAME_BYTES + 1);
        hash_hex(bytes, sizeof(bytes), *ret);
    }
    text = mem_printf("%s\n%s\n", *ret, url);
    return fs_write_atomic(path, str_of(text), 0600, err);
}

static memfs_code make_secret(char *ret, const char *folder, const char *path, memfs_error *err)
{
    uint8_t bytes[CLUSTER_SECRET_BYTES];
    memfs_code rc = fs_mkdirs(folder, err);

    hash_random(bytes, sizeof(bytes));
    hash_hex(bytes, sizeof(bytes), ret);
    hash_wipe(bytes, sizeof(bytes));
    return rc < 0 ? rc : fs_write_atomic(path, str_of(ret), 0600, err);
}

memfs_code cluster_keep_secret(const char *home_path, char *ret, memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/secrets", home_path);
    _cleanup_(mem_freep) char *path = mem_printf("%s/server", folder);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(256);
    memfs_code rc;

    if (!fs_exists(path))
        return make_secret(ret, folder, path, err);
    rc = fs_read(path, &text, err);
    if (rc < 0)
        return rc;
    if (text.len != CLUSTER_SECRET_LEN)
        return make_secret(ret, folder, path, err);
    memcpy(ret, text.ptr, text.len + 1);
    hash_wipe(text.ptr, text.len);
    return MEMFS_OK;
}
