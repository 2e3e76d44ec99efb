/*
 * gate.c - what auth.c decides, as HTTP: which part of a request decides, and how a refusal looks.
 *
 * A request writes unless its route is a GET or git's fetch; info/refs counts as what it announces,
 * so that `git push` with a token that may only read ends before it has packed anything.
 *
 *     401   WWW-Authenticate: Basic on git's routes, so that plain git asks its credential helper,
 *           Bearer on others.  No token, a token that never was, one that is revoked or expired:
 *           the same bytes
 *     429   too many different ones that are no good came from there (auth.h).  It is late, and git
 *           is answered 401 instead, as late, since it gives up on all else
 *     403   the token is good, and not for this
 *     404   another agent's: what an agent that does not exist is answered, there or not
 *
 * Where there are no tokens whoever reaches the port is served, but for web pages (403).
 *
 * In front of a Letta server (gateway.h) the routes of an agent are opened by that server's yes;
 * then whoever asks is nobody we have a name for, as where there are no tokens.
 *
 * Runs on an event thread, before any of the body is read; it looks at the head and at what was
 * matched, never at an agent.
 */
#include "server/app.h"
#include "server/backoff.h"
#include "server/gateway.h"
#include "server/service.h"
#include "server/shared.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <strings.h>

/* What a request is told whose refusal was kept back for so many ms: nothing that upstreams tell.
 */
#define GATE_LATE 0x100000

static bool is_git(const http_route *route)
{
    return route->handler == git_info_refs || route->handler == git_upload_pack ||
           route->handler == git_receive_pack || route->handler == peer_info_refs ||
           route->handler == peer_upload_pack;
}

static bool is_writing(const http_request *rq, const http_route *route)
{
    if (route->handler == git_info_refs)
        return git_asks_to_push(rq);
    return route->methods != HTTP_GET && route->handler != git_upload_pack &&
           route->handler != peer_upload_pack;
}

static void refuse(http_request *rq, auth_verdict verdict, memfs_str agent_id)
{
    switch (verdict) {
    case AUTH_401:
        http_set_header(rq, "WWW-Authenticate",
                        is_git(http_matched(rq)) ? "Basic realm=\"memfs\", charset=\"UTF-8\""
                                                 : "Bearer realm=\"memfs\"");
        http_send_detail(rq, 401, "A token is needed: as Bearer, or as the password of Basic");
        break;
    case AUTH_404:
        if (http_matched(rq)->access == HTTP_ACCESS_SHARED)
            shared_send_missing(rq);
        else
            http_send_detail(rq, 404, "Agent with ID %.*s not found", (int)agent_id.len,
                             agent_id.ptr);
        break;
    case AUTH_403:
    case AUTH_ASK:
    case AUTH_SERVE: /* the caller's error; rather closed than open */
        http_send_detail(rq, 403, "This token may not do that");
        break;
    }
}

/* Of git's routes alone: it is those that a Letta server hands on. */
static bool is_vouched(app *self, const http_request *rq, const http_route *route)
{
    return is_git(route) && service_vouches(self->service, rq, http_param(rq, "agent"));
}

static http_entry refuse_late(http_request *rq, int64_t wait_ms)
{
    char seconds[24];

    if (is_git(http_matched(rq))) {
        refuse(rq, AUTH_401, http_param(rq, "agent"));
        return HTTP_ENTRY_REFUSED;
    }
    snprintf(seconds, sizeof(seconds), "%lld", (long long)(wait_ms + 999) / 1000);
    http_set_header(rq, "Retry-After", seconds);
    http_send_detail(rq, 429, "Too many tokens that are no good came from this address");
    return HTTP_ENTRY_REFUSED;
}

/* Whoever guesses waits for the answer; where nobody can hold it any more, it comes at once. */
static http_entry refuse_guess(http_request *rq, app *self, int64_t wait_ms)
{
    if (self->backoff != NULL && backoff_hold(self->backoff, rq, wait_ms, GATE_LATE | (int)wait_ms))
        return HTTP_ENTRY_LATER;
    return refuse_late(rq, wait_ms);
}

/* ---- web pages, where there are no tokens (T32) ---- */

/* Of "host:port" and "[::1]:port". */
static memfs_str host_of(memfs_str authority)
{
    memfs_str host, rest;

    if (str_starts_with(authority, MEMFS_STR("[")))
        return str_split(str_from(authority, 1), ']', &host, &rest) ? host : authority;
    return str_split(authority, ':', &host, &rest) ? host : authority;
}

static bool is_loopback(memfs_str host)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr six;
    struct in_addr four;

    if ((host.len == 9 && strncasecmp(host.ptr, "localhost", 9) == 0) ||
        str_ends_with(host, MEMFS_STR(".localhost")))
        return true;
    if (host.len >= sizeof(text))
        return false;
    snprintf(text, sizeof(text), "%.*s", (int)host.len, host.ptr);
    if (inet_pton(AF_INET, text, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, text, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

/* A name that a stranger may let point to 127.0.0.1: with a dot, and not one of a machine's own. */
static bool is_public_name(memfs_str host)
{
    bool has_dot = false, is_address = true;

    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];

        has_dot |= c == '.';
        is_address &= c == '.' || (c >= '0' && c <= '9');
    }
    is_address |= memchr(host.ptr, ':', host.len) != NULL;
    return has_dot && !is_address && !is_loopback(host) &&
           !str_ends_with(host, MEMFS_STR(".local")) &&
           !str_ends_with(host, MEMFS_STR(".internal"));
}

static bool is_own_page(memfs_str origin)
{
    memfs_str scheme, rest;

    return str_split(origin, ':', &scheme, &rest) && str_starts_with(rest, MEMFS_STR("//")) &&
           is_loopback(host_of(str_from(rest, 2)));
}

/*
 * A page of the internet, open in a browser on this machine, reaches loopback as any program does.
 * It says so in Origin, or it came by a name of its own that was made to point here (rebinding),
 * which is in Host.
 */
static bool is_strange_page(const http_request *rq)
{
    const char *origin = http_header(rq, "Origin"), *host = http_header(rq, "Host");

    return (origin != NULL && !is_own_page(str_of(origin))) ||
           (host != NULL && is_public_name(host_of(str_of(host))));
}

static http_entry refuse_page(http_request *rq)
{
    http_send_detail(rq, 403,
                     "As long as there is no token, only programs on this machine are served: no "
                     "web pages (Origin), no public names (Host)");
    return HTTP_ENTRY_REFUSED;
}

/* Served for no other reason than that there are no tokens. */
static bool is_unguarded(const app *self, const auth_question *q, const auth_principal *p)
{
    return p->level == AUTH_ADMIN && !q->is_socket && !q->is_vouched && !q->has_upstream &&
           !auth_is_on(self->auth);
}

static http_entry enter(http_request *rq, auth_verdict verdict)
{
    if (verdict == AUTH_SERVE)
        return HTTP_ENTRY_GRANTED;
    refuse(rq, verdict, http_param(rq, "agent"));
    return HTTP_ENTRY_REFUSED;
}

/* A credential that the Letta server does not know. */
static http_entry refuse_unknown(http_request *rq, app *self, const char *source)
{
    const char *header = http_header(rq, "Authorization");
    int64_t wait_ms = 0;

    if (header != NULL && source[0] != '\0')
        wait_ms = auth_count_failure(self->auth, source, header, clock_mono_ms());
    return wait_ms > 0 ? refuse_guess(rq, self, wait_ms) : enter(rq, AUTH_401);
}

/* What the Letta server says of the caller; a failure to ask it is never a yes.  A search is of
 * every memory, also of those that it does not know: it is for our own tokens. */
static http_entry ask_upstream(http_request *rq, app *self, const char *source, auth_principal *p)
{
    if (http_matched(rq)->handler == search_get)
        return refuse_unknown(rq, self, source);
    switch (gateway_judge(self->gateway, rq)) {
    case UPSTREAM_NOT_ASKED: return HTTP_ENTRY_LATER;
    case UPSTREAM_YES: p->level = AUTH_ADMIN; return HTTP_ENTRY_GRANTED;
    case UPSTREAM_UNKNOWN: return refuse_unknown(rq, self, source);
    case UPSTREAM_FORBIDDEN: return enter(rq, AUTH_403);
    case UPSTREAM_NO_AGENT: return enter(rq, AUTH_404);
    case UPSTREAM_AWAY: break;
    }
    http_send_detail(rq, 503, "The Letta server cannot be asked now whether this credential is good");
    return HTTP_ENTRY_REFUSED;
}

http_entry app_gate(http_request *rq, void *ctx, void *principal)
{
    const http_route *route = http_matched(rq);
    char source[HTTP_PEER_LEN];
    app *self = ctx;
    auth_question q = { .access = route->access,
                        .agent_id = http_param(rq, "agent"),
                        .repo_id = http_param(rq, "repository"),
                        .is_writing = is_writing(rq, route),
                        .is_socket = http_is_owner(rq),
                        .is_vouched = is_vouched(self, rq, route),
                        .header = http_header(rq, "Authorization"),
                        .has_upstream = self->gateway != NULL,
                        .source = source };
    auth_principal *p = principal;
    auth_verdict verdict;

    if (http_gate_told(rq) & GATE_LATE)
        return refuse_late(rq, http_gate_told(rq) & ~GATE_LATE);
    http_peer(rq, source);
    if (route->handler == health_get && !gateway_knows_health(self->gateway, rq))
        return HTTP_ENTRY_LATER;
    verdict = auth_judge(self->auth, &q, p);
    if (p->token_id[0] != '\0')
        http_note_token(rq, p->token_id);
    if (verdict == AUTH_401 && p->wait_ms > 0)
        return refuse_guess(rq, self, p->wait_ms);
    if (verdict == AUTH_SERVE && is_unguarded(self, &q, p) && is_strange_page(rq))
        return refuse_page(rq);
    return verdict == AUTH_ASK ? ask_upstream(rq, self, source, p) : enter(rq, verdict);
}

const auth_principal *app_principal(const http_request *rq)
{
    return http_principal(rq);
}

memfs_str app_own_agent(const http_request *rq)
{
    return str_of(app_principal(rq)->agent_id);
}
