#include "server/author.h"

#include "base/clock.h"
#include "base/escape.h"
#include "memory/ids.h"

#include <stdio.h>

store_identity author_of(const http_request *rq, author *room)
{
    const auth_principal *p = app_principal(rq);

    if (p->token_id[0] == '\0') {
        snprintf(room->name, sizeof(room->name), "User %s", IDS_DEFAULT_USER);
        snprintf(room->email, sizeof(room->email), "%s@letta.ai", IDS_DEFAULT_USER);
    } else {
        snprintf(room->name, sizeof(room->name), "token %s", p->token_id);
        if (p->agent_id[0] != '\0')
            snprintf(room->email, sizeof(room->email), "%s@letta.com", p->agent_id);
        else
            snprintf(room->email, sizeof(room->email), "token-%s@memfs.localhost", p->token_id);
    }
    return (store_identity){ room->name, room->email, clock_wall_us() / 1000000 };
}

void author_of_push(const http_request *rq, memfs_str agent_id, author *ret)
{
    const auth_principal *p = app_principal(rq);

    if (p->token_id[0] != '\0')
        snprintf(ret->name, sizeof(ret->name), "token %s", p->token_id);
    else
        snprintf(ret->name, sizeof(ret->name), "%.*s", (int)agent_id.len, agent_id.ptr);
    snprintf(ret->email, sizeof(ret->email), "%.*s@letta.com", (int)agent_id.len, agent_id.ptr);
}

push_read_only author_read_only(const http_request *rq)
{
    const auth_principal *p = app_principal(rq);

    if (p->level != AUTH_ADMIN)
        return PUSH_READ_ONLY_MUST_NOT;
    return p->token_id[0] == '\0' && !http_is_owner(rq) ? PUSH_READ_ONLY_WARN : PUSH_READ_ONLY_MAY;
}

void author_reason_of(const http_request *rq, author_reason *ret)
{
    const char *reason = http_header(rq, "X-Memfs-Reason");

    ret->text[0] = '\0';
    if (reason != NULL && reason[0] != '\0')
        escape_text(str_of(reason), ret->text, sizeof(ret->text));
}
