#include "cli/letta_options.h"

#include "base/mem.h"
#include "letta/reread.h"
#include "store/gitconfig.h"

#include <stdlib.h>
#include <string.h>

void letta_options_dispose(letta_options *o)
{
    free(o->root);
    free(o->proxies);
    free(o->url);
    free(o->token_file);
}

static char *find(gitconfig *file, const char *given, const char *variable, const char *key)
{
    const char *value = given;

    if (value == NULL)
        value = getenv(variable);
    if (value == NULL || value[0] == '\0')
        value = gitconfig_get(file, key);
    return value != NULL && value[0] != '\0' ? mem_strdup(value) : NULL;
}

static memfs_code check_root(const letta_options *o, bool is_behind_proxy, bool is_many,
                             memfs_error *err)
{
    if (o->root[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "--letta-root needs an absolute path, not '%s'",
                          o->root);
    if (o->proxies == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root needs --letta-proxy: the address that the Letta server's "
                          "requests come from, such as 127.0.0.1 or 172.16.0.0/12");
    if (is_behind_proxy)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root does not go with --behind-proxy: what a proxy hands on from "
                          "outside would come from an address that is believed; let memfs do TLS "
                          "itself (--tls-cert, --tls-key)");
    if (is_many)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root does not go with --cluster-url: only one server may write to "
                          "a Letta server's folder");
    return MEMFS_OK;
}

memfs_code letta_options_check(const letta_options *o, bool is_behind_proxy, bool is_many,
                               bool has_letta, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    if (o->root == NULL && o->proxies != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-proxy says who may speak for the Letta server whose folder "
                          "--letta-root names; it is missing");
    if (o->root == NULL && !has_letta && (o->url != NULL || o->token_file != NULL))
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-url and --letta-token-file say more of the Letta server of "
                          "--letta-root, --letta-database or --upstream; none of them is given");
    if (o->root != NULL)
        rc = check_root(o, is_behind_proxy, is_many, err);
    if (rc == MEMFS_OK && o->token_file != NULL && o->url == NULL)
        rc = memfs_fail(err, MEMFS_EINVALID,
                        "--letta-token-file is the password of --letta-url, which is missing");
    return rc == MEMFS_OK && o->url != NULL ? reread_check_url(o->url, err) : rc;
}

memfs_code letta_options_find(const char *home, const service_options *given, letta_options *ret,
                              memfs_error *err)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", home);
    _cleanup_(gitconfig_closep) gitconfig *file = NULL;
    memfs_code rc = gitconfig_open(path, &file, err);

    if (rc < 0)
        return rc;
    ret->root = find(file, given->root, "MEMFS_LETTA_ROOT", "memfs.lettaroot");
    ret->proxies = find(file, given->proxies, "MEMFS_LETTA_PROXY", "memfs.lettaproxy");
    ret->url = find(file, given->url, "MEMFS_LETTA_URL", "memfs.lettaurl");
    ret->token_file =
        find(file, given->token_file, "MEMFS_LETTA_TOKEN_FILE", "memfs.lettatokenfile");
    return MEMFS_OK;
}
