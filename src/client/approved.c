#include "client/approved.h"

#include "base/fs.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static bool takes_token(const remote_url *url)
{
    return url->kind == URL_HTTPS || url->kind == URL_HTTP;
}

memfs_code approved_note(const char *memfs_home, const char *agent_id, const remote_url *url,
                         memfs_error *err)
{
    _cleanup_(mem_freep) char *folder = mem_printf("%s/remotes", memfs_home);
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", folder, agent_id);
    _cleanup_(mem_freep) char *line = NULL;
    memfs_code rc;

    if (url == NULL || !takes_token(url)) {
        if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
            return memfs_fail_errno(err, "could not remove '%s'", path);
        return MEMFS_OK;
    }
    line = mem_printf("%s\n", url->origin);
    rc = fs_mkdirs(folder, err);
    return rc == MEMFS_OK ? fs_write_atomic(path, str_of(line), 0600, err) : rc;
}

bool approved_is(const char *memfs_home, const char *agent_id, const remote_url *url)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/remotes/%s", memfs_home, agent_id);
    _cleanup_(mem_freep) char *line = mem_printf("%s\n", url->origin);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(4096);
    memfs_error ignored;

    return takes_token(url) && fs_read(path, &text, &ignored) == MEMFS_OK &&
           str_equal(buf_str(&text), str_of(line));
}
