#include "server/author.h"

#include "base/clock.h"
#include "base/escape.h"

#include <stdio.h>

void author_of(const http_request *rq, memfs_str agent_id, author *ret)
{
    const auth_principal *p = app_principal(rq);
    const char *token = p->token_id;

    if (token[0] != '\0')
        snprintf(ret->name, sizeof(ret->name), "token %s", token);
    else
        snprintf(ret->name, sizeof(ret->name), "%.*s", agent_id.len > 0 ? (int)agent_id.len : 5,
                 agent_id.len > 0 ? agent_id.ptr : "memfs");
    if (agent_id.len > 0)
        snprintf(ret->email, sizeof(ret->email), "%.*s@letta.com", (int)agent_id.len, agent_id.ptr);
    else if (token[0] != '\0')
        snprintf(ret->email, sizeof(ret->email), "token-%s@memfs.localhost", token);
    else
        snprintf(ret->email, sizeof(ret->email), "memfs@localhost");
    ret->who = (store_identity){ ret->name, ret->email, clock_wall_us() / 1000000 };
}

push_read_only author_read_only(const http_request *rq)
{
    const auth_principal *p = app_principal(rq);

    if (p->level != AUTH_ADMIN)
        return PUSH_READ_ONLY_MUST_NOT;
    return p->token_id[0] == '\0' && !http_is_owner(rq) ? PUSH_READ_ONLY_WARN : PUSH_READ_ONLY_MAY;
}

void author_reason(const http_request *rq, char out[AUTHOR_MAX_REASON + 8])
{
    const char *reason = http_header(rq, "X-Memfs-Reason");

    out[0] = '\0';
    if (reason == NULL || reason[0] == '\0')
        return;
    memcpy(out, "\n\n", 3);
    (void)escape_text(str_of(reason), out + 2, AUTHOR_MAX_REASON + 1);
}
