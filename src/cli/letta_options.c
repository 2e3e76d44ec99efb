#include "cli/letta_options.h"

#include "letta/reread.h"

/* What its folder needs, and what does not go with that. */
static memfs_code check_root(const server_options *o, memfs_error *err)
{
    if (o->letta.root[0] != '/')
        return memfs_fail(err, MEMFS_EINVALID, "--letta-root needs an absolute path, not '%s'",
                          o->letta.root);
    if (o->letta.proxies == NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root needs --letta-proxy: the address that the Letta server's "
                          "requests come from, such as 127.0.0.1 or 172.16.0.0/12");
    if (o->is_behind_proxy)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root does not go with --behind-proxy: what a proxy hands on from "
                          "outside would come from an address that is believed; let memfs do TLS "
                          "itself (--tls-cert, --tls-key)");
    if (o->home.cluster_url != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-root does not go with --cluster-url: only one server may write to "
                          "a Letta server's folder");
    return MEMFS_OK;
}

memfs_code letta_options_check(const server_options *o, memfs_error *err)
{
    const service_options *letta = &o->letta;
    bool has_letta = letta->root != NULL || o->upstream != NULL || o->home.letta_database != NULL;
    memfs_code rc = MEMFS_OK;

    if (letta->root == NULL && letta->proxies != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-proxy says who may speak for the Letta server whose folder "
                          "--letta-root names; it is missing");
    if (!has_letta && (letta->url != NULL || letta->token_file != NULL))
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-url and --letta-token-file say more of the Letta server of "
                          "--letta-root, --letta-database or --upstream; none of them is given");
    if (o->home.letta_database != NULL && o->home.cluster_url != NULL)
        return memfs_fail(err, MEMFS_EINVALID,
                          "--letta-database needs a memfs that is alone, and --cluster-url makes it "
                          "one of several; take one of the two away");
    if (letta->root != NULL)
        rc = check_root(o, err);
    if (rc == MEMFS_OK && letta->token_file != NULL && letta->url == NULL)
        rc = memfs_fail(err, MEMFS_EINVALID,
                        "--letta-token-file is the password of --letta-url, which is missing");
    return rc == MEMFS_OK && letta->url != NULL ? reread_check_url(letta->url, err) : rc;
}
