#include "remote/host_int.h"

#include "base/mem.h"

#include <stdlib.h>
#include <strings.h>

static const char *const NAMES[HOST_N_KINDS] = {
    [HOST_UNKNOWN] = "unknown", [HOST_GITEA] = "gitea",   [HOST_FORGEJO] = "forgejo",
    [HOST_GITHUB] = "github",   [HOST_GITLAB] = "gitlab", [HOST_PLAIN] = "plain",
};

/* NULL: git is all that it speaks. */
static const host_ops *const OPS[HOST_N_KINDS] = {
    [HOST_GITEA] = &HOST_GITEA_OPS,
    [HOST_FORGEJO] = &HOST_GITEA_OPS,
    [HOST_GITHUB] = &HOST_GITHUB_OPS,
    [HOST_GITLAB] = &HOST_GITLAB_OPS,
};

const char *host_kind_name(host_kind k)
{
    return NAMES[k < HOST_N_KINDS ? k : HOST_UNKNOWN];
}

bool host_kind_parse(memfs_str text, host_kind *ret)
{
    for (size_t i = HOST_UNKNOWN + 1; i < HOST_N_KINDS; i++)
        if (str_equal(text, str_of(NAMES[i]))) {
            *ret = (host_kind)i;
            return true;
        }
    return false;
}

void host_dispose(host *h)
{
    free(h->api);
    free(h->owner);
    free(h->name);
    *h = (host)HOST_INIT;
}

/* A job of a host that has no API is refused in words, too. */
static const host_ops *begin(const host *h, int64_t deadline_ms, host_answer *answer,
                             host_talk *ret, memfs_error *err)
{
    const host_ops *ops = OPS[h->kind < HOST_N_KINDS ? h->kind : HOST_UNKNOWN];

    *answer = (host_answer){ .http_status = 0 };
    *ret = (host_talk){ .h = h, .deadline_ms = deadline_ms, .answer = answer };
    if (ops == NULL)
        (void)host_refuse(ret, MEMFS_EINVALID, err,
                          "the host has no API that memfs knows (gitea, forgejo, github, gitlab): "
                          "do it there by hand, or say which kind it is");
    else if (h->owner == NULL || h->owner[0] == '\0' || h->name[0] == '\0')
        (void)host_refuse(ret, MEMFS_EINVALID, err,
                          "the address names no owner and repository ('/owner/name.git')");
    else
        return ops;
    return NULL;
}

memfs_code host_create(const host *h, int64_t deadline_ms, host_answer *answer, memfs_error *err)
{
    _cleanup_(host_talk_dispose) host_talk k;
    const host_ops *ops = begin(h, deadline_ms, answer, &k, err);

    return ops != NULL ? ops->create(&k, err) : MEMFS_EINVALID;
}

memfs_code host_check(const host *h, int64_t deadline_ms, host_rights *ret, host_answer *answer,
                      memfs_error *err)
{
    _cleanup_(host_talk_dispose) host_talk k;
    const host_ops *ops = begin(h, deadline_ms, answer, &k, err);

    *ret = (host_rights){ .may_create = -1 };
    return ops != NULL ? ops->check(&k, ret, err) : MEMFS_EINVALID;
}

memfs_code host_list(const host *h, int64_t deadline_ms, host_repo_fn fn, void *ctx,
                     host_answer *answer, memfs_error *err)
{
    _cleanup_(host_talk_dispose) host_talk k;
    const host_ops *ops = begin(h, deadline_ms, answer, &k, err);

    return ops != NULL ? ops->list(&k, fn, ctx, err) : MEMFS_EINVALID;
}

memfs_code host_hook(const host *h, const char *url, const char *secret, int64_t deadline_ms,
                     bool *ret_made, host_answer *answer, memfs_error *err)
{
    _cleanup_(host_talk_dispose) host_talk k;
    const host_ops *ops = begin(h, deadline_ms, answer, &k, err);

    *ret_made = false;
    return ops != NULL ? ops->hook(&k, url, secret, ret_made, err) : MEMFS_EINVALID;
}
