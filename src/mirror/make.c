#include "mirror/mirror_int.h"

#include "base/clock.h"
#include "remote/host.h"
#include "store/bare.h"

#include <stdio.h>

/*
 * A repository that is missing on a remote (F16), and main is here to be pushed: whose work is it?
 *
 *     Gitea, Forgejo, GitHub, GitLab   its API makes it
 *     a plain path                     we do
 *     any other, ssh                   the push makes it, or says that it is missing
 *
 * A token that may not make repositories will not tomorrow: an API that refused is asked again when
 * the credential changes, when somebody wants it now, and every MAX_REFUSED-th time.  In between
 * the host is only asked whether somebody else made it.
 *
 * A folder that was there and is gone is most often a disk that is not mounted, and what would be
 * made then lies under it, seen by nobody.  So that one is made anew on a person's word only.
 */

#define MAX_REFUSED 8

static void not_made(mirror_made *ret, remote_answer answer, const char *detail)
{
    ret->how = MIRROR_NOT_MADE;
    ret->answer = answer;
    snprintf(ret->detail, sizeof(ret->detail), "%.399s", detail);
}

static bool was_refused(const exchange *x)
{
    return failure_answer(x->record.answer) == REMOTE_NOT_CREATED && (x->wants & WANT_NOW) == 0 &&
           x->record.n_failures % MAX_REFUSED != 0;
}

static void refused(exchange *x, const host_answer *answer, memfs_code rc, const memfs_error *err,
                    mirror_made *ret)
{
    const char *words = answer->words[0] != '\0' ? answer->words : err->msg;

    x->retry_after_s = answer->retry_after_s;
    if (rc == MEMFS_EUNAVAIL)
        not_made(ret, REMOTE_FAILING, words);
    else if (answer->is_credentials && answer->http_status == 401)
        not_made(ret, REMOTE_UNAUTHORIZED, words);
    else
        not_made(ret, REMOTE_NOT_CREATED, words);
}

static void make_on_host(exchange *x, mirror_made *ret)
{
    _cleanup_(host_dispose) host h = HOST_INIT;
    host_answer answer = { .http_status = 0 };
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    if (was_refused(x)) {
        not_made(ret, REMOTE_NOT_CREATED, x->record.detail);
        return;
    }
    rc = host_find(&x->target, x->config->kind, x->deadline_ms, &h, &answer, &err);
    if (rc == MEMFS_OK && h.kind == HOST_PLAIN) {
        ret->how = MIRROR_MADE_BY_PUSH;
        return;
    }
    if (rc == MEMFS_OK)
        rc = host_create(&h, x->deadline_ms, &answer, &err);
    if (rc == MEMFS_OK)
        ret->how = MIRROR_MADE;
    else if (h.kind == HOST_GITLAB && rc == MEMFS_EDENIED && answer.http_status == 403)
        ret->how = MIRROR_MADE_BY_PUSH; /* by a token for git alone */
    else
        refused(x, &answer, rc, &err, ret);
}

static void make_folder(exchange *x, mirror_made *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;
    memfs_code rc;

    if (!oid_is_zero(&x->record.remote_tip) && (x->wants & WANT_NOW) == 0) {
        not_made(ret, REMOTE_NOT_FOUND, "the folder is gone, is its disk mounted? 'memfs mirror "
                                        "retry' makes it anew");
        return;
    }
    rc = bare_make(x->target.url.text, x->set->r->home, x->deadline_ms, &err);
    if (rc == MEMFS_OK)
        ret->how = MIRROR_MADE;
    else
        not_made(ret, rc == MEMFS_ENOTFOUND ? REMOTE_NOT_FOUND : REMOTE_NOT_CREATED, err.msg);
}

void mirror_make(exchange *x, const probe_result *heard, mirror_made *ret)
{
    *ret = (mirror_made){ .how = MIRROR_NOT_MADE };
    if (!x->config->create || x->config->direction == REMOTE_PULL || oid_is_zero(&x->ours))
        not_made(ret, heard->answer, heard->detail);
    else if (x->target.url.kind == URL_PATH)
        make_folder(x, ret);
    else
        make_on_host(x, ret);
}
