#include "cli/letta_options.h"

#include "letta/reread.h"

/* By themselves. */
static memfs_code check(const service_options *o, memfs_error *err)
{
    if (o->root == NULL && (o->proxies != NULL || o->url != NULL || o->token_file != NULL))
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-proxy, --letta-url and --letta-token-file say more of the Letta "
                          "server whose folder --letta-root names; it is missing");
    if (o->root == NULL)
        return MEMFS_OK;
    if (o->root[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "--letta-root needs an absolute path, not '%s'",
                          o->root);
    if (o->proxies == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root needs --letta-proxy: the address that the Letta server's "
                          "requests come from, such as 127.0.0.1 or 172.16.0.0/12");
    if (o->token_file != NULL && o->url == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-token-file is the password of --letta-url, which is missing");
    return o->url != NULL ? reread_check_url(o->url, err) : MEMFS_OK;
}

memfs_code letta_options_check(const server_options *o, memfs_error *err)
{
    if (o->letta.root != NULL && o->is_behind_proxy)
        return memfs_fail(
            err, MEMFS_EINVALID,
            "--letta-root does not go with --behind-proxy: what a proxy hands on from "
            "outside would come from an address that is believed; let memfs do TLS "
            "itself (--tls-cert, --tls-key)");
    if (o->letta.root != NULL && o->home.cluster_url != NULL)
        return memfs_fail(
            err, MEMFS_EINVALID,
            "--letta-root does not go with --cluster-url: only one server may write to "
            "a Letta server's folder");
    return check(&o->letta, err);
}
