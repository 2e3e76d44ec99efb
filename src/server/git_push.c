/*
 * git_push.c - POST git-receive-pack: the commands are read here, the pack goes through
 * sync/push.h.
 *
 * The answer comes in this order: progress and warnings on side band 2 as they come, and the report
 * on band 1 only when push_finish() has returned, with the ref durable and read back (D2).  A
 * verdict that may not be told (F05) ends the connection instead.
 *
 *     who pushes                        a file that says read_only: true (sync/read_only.h)
 *     an agent's token                  is refused, with path and what to do
 *     an admin's token, the socket      is pushed like any other
 *     anybody, while there is no token  is pushed, with a warning
 */
#include "server/git_int.h"

#include "base/clock.h"
#include "server/author.h"
#include "server/service.h"

#include <stdio.h>

#define CHUNK_BYTES (64u << 10)
#define MAX_EARLY_TALK (64u << 10) /* band 2 before the client has begun to read */

typedef struct receiving {
    http_request *rq;
    app *app;
    memfs_str agent; /* of the path: who pushes, its own memory or one that it has a link to */
    git_memory memory;
    git_push_request wire;
    size_t main_at; /* which command is for main; n_commands: none */
    memfs_buf head; /* what was read to find the commands; the pack may begin in it */
    size_t head_used;
    size_t n_talked;
    bool has_begun, is_body_read, is_gone;
    push_verdict verdict;
} receiving;

static void receiving_dispose(receiving *r)
{
    buf_dispose(&r->head);
}

static void begin_answer(receiving *r)
{
    if (r->has_begun)
        return;
    git_send_no_cache(r->rq);
    http_stream_begin(r->rq, 200, "application/x-git-receive-pack-result");
    r->has_begun = true;
}

/* False: the answer is given. */
static bool read_commands(receiving *r)
{
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n = 1;

    while (n > 0) {
        char *room = buf_reserve(&r->head, 4 << 10);

        if (room == NULL) {
            http_send_detail(r->rq, 400, "The push names too many refs");
            return false;
        }
        if (!http_stream_read(r->rq, room, 4 << 10, &n)) {
            git_send_fault(r->rq);
            return false;
        }
        buf_grew(&r->head, n);
        if (git_push_parse(buf_str(&r->head), &r->wire, &r->head_used, &err) < 0) {
            http_send_error(r->rq, &err);
            return false;
        }
        if (r->head_used > 0)
            return true;
    }
    http_send_detail(r->rq, 400, "The push ends before its commands do");
    return false;
}

/* False: the answer is given. */
static bool find_main(receiving *r)
{
    size_t n = 0;

    r->main_at = r->wire.n_commands;
    for (size_t i = 0; i < r->wire.n_commands; i++) {
        if (!str_equal(r->wire.commands[i].ref, MEMFS_STR(STORE_MAIN)))
            continue;
        r->main_at = i;
        n++;
    }
    if (n <= 1)
        return true;
    http_send_detail(r->rq, 400, "The push names one ref twice");
    return false;
}

/*
 * Lines for the person who pushes; the client puts "remote: " before each.  It does not read before
 * it has sent all, so of what comes earlier only so much is kept as the pipe holds with ease.
 */
static void talk(memfs_str text, void *ctx)
{
    receiving *r = ctx;
    memfs_buf line = MEMFS_BUF_INIT(PKT_MAX_BYTES), packets = MEMFS_BUF_INIT(2 * PKT_MAX_BYTES);

    r->n_talked += text.len + 6;
    if (!r->wire.side_band_64k || r->is_gone || (!r->is_body_read && r->n_talked > MAX_EARLY_TALK))
        return;
    buf_add_str(&line, text);
    buf_putc(&line, '\n');
    pkt_band(&packets, 2, buf_str(&line));
    begin_answer(r);
    r->is_gone = !http_stream_write(r->rq, packets.ptr, packets.len) || !http_stream_flush(r->rq);
    buf_dispose(&line);
    buf_dispose(&packets);
}

/* The pack, to its end; p NULL throws it away.  False: the client is gone, or the body no good. */
static bool feed_pack(receiving *r, push *p)
{
    static _Thread_local char chunk[CHUNK_BYTES];
    memfs_str first = str_from(buf_str(&r->head), r->head_used);
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_wanted = p != NULL;
    size_t n;

    if (is_wanted && first.len > 0)
        is_wanted = push_feed(p, first.ptr, first.len, &err) == MEMFS_OK;
    for (;;) {
        if (!http_stream_read(r->rq, chunk, sizeof(chunk), &n))
            return false;
        if (n == 0)
            break;
        if (is_wanted) /* a refused pack is still read: the client sends it before it listens */
            is_wanted = push_feed(p, chunk, n, &err) == MEMFS_OK;
    }
    r->is_body_read = true;
    return true;
}

/* False: the client is gone. */
static bool send_report(receiving *r, const char *unpack_error, const char *const *refusals)
{
    _cleanup_(buf_dispose) memfs_buf report = MEMFS_BUF_INIT(128u << 10);
    _cleanup_(buf_dispose) memfs_buf packets = MEMFS_BUF_INIT(256u << 10);

    git_push_report(&report, &r->wire, unpack_error, refusals);
    if (r->wire.side_band_64k) {
        pkt_band(&packets, 1, buf_str(&report));
        pkt_flush(&packets);
    } else {
        buf_add_str(&packets, buf_str(&report));
    }
    begin_answer(r);
    r->is_gone = !http_stream_write(r->rq, packets.ptr, packets.len) || r->is_gone;
    http_stream_end(r->rq);
    return !r->is_gone;
}

/* One refusal for each command that is not for main; with atomic, one for each command. */
static void refuse_others(const receiving *r, const char **refusals)
{
    bool is_mixed = r->wire.n_commands > (r->main_at < r->wire.n_commands ? 1 : 0);

    for (size_t i = 0; i < r->wire.n_commands; i++) {
        if (i != r->main_at)
            refusals[i] = "only the branch main is kept here";
        else if (is_mixed && r->wire.atomic)
            refusals[i] = "atomic push: another ref was refused";
    }
}

static void end_badly(receiving *r)
{
    if (r->has_begun)
        http_stream_cut(r->rq);
    else
        git_send_fault(r->rq);
}

static void note_push(receiving *r, const char *refusal, const char *unpack_error)
{
    const push_command *c = &r->wire.commands[r->main_at];
    char old_hex[MEMFS_OID_HEX + 1], new_hex[MEMFS_OID_HEX + 1];

    oid_hex(&c->old_id, old_hex);
    oid_hex(&c->new_id, new_hex);
    http_note(r->rq, "push main %.8s..%.8s %s%s%s%.100s", old_hex, new_hex,
              refusal != NULL ? "ng " : "ok", refusal != NULL ? refusal : "",
              unpack_error[0] != '\0' ? ": " : "", unpack_error);
}

/* The Letta server that relays this push reads its folder when it has relayed the report. */
static void publish(receiving *r)
{
    memfs_error err;
    char line[700];

    if (service_publish(r->app, r->rq, r->agent, &err) == MEMFS_OK)
        return;
    snprintf(line, sizeof(line), "the commit is safe; the Letta server's blocks will follow (%s)",
             err.msg);
    talk(str_of(line), r);
}

static void push_main(receiving *r, const char **refusals)
{
    _cleanup_(push_freep) push *p = NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    char id[IDS_MAX_LEN + 1]; /* the request's own goes with its answer */
    author pusher;
    store_identity who = { pusher.name, pusher.email, clock_wall_us() / 1000000 };
    push_verdict *verdict = &r->verdict; /* the refusals borrow from it */
    bool is_relayed, is_told = false;

    author_of_push(r->rq, r->agent, &pusher);
    snprintf(id, sizeof(id), "%.*s", (int)r->agent.len, r->agent.ptr);
    if (push_begin(r->app->home, str_of(r->memory.id), &r->wire.commands[r->main_at],
                   !r->wire.quiet, talk, r, &p, &err) < 0) {
        http_send_error(r->rq, &err);
        return;
    }
    push_set_read_only(p, author_read_only(r->rq));
    if (!feed_pack(r, p)) {
        end_badly(r);
        return;
    }
    is_relayed = !r->memory.is_shared && service_push_begin(r->app, r->rq, r->agent);
    push_finish(p, &who, verdict);
    if (verdict->moved && !r->memory.is_shared)
        publish(r);
    if (is_relayed)
        service_push_end(r->app, r->agent);
    if (!verdict->moved)
        refusals[r->main_at] = verdict->refusal;
    note_push(r, refusals[r->main_at], verdict->unpacked ? "" : verdict->unpack_error);
    if (verdict->must_not_report) {
        http_note(r->rq, "push main not reported");
        http_stream_cut(r->rq);
    } else {
        is_told = send_report(r, verdict->unpacked ? "" : verdict->unpack_error, refusals);
    }
    if (is_relayed)
        service_push_told(r->app, str_of(id), is_told);
}

static void refuse_all(receiving *r, const char **refusals)
{
    http_note(r->rq, "push refused: no command for main");
    if (feed_pack(r, NULL))
        send_report(r, "", refusals);
    else
        end_badly(r);
}

/* A lone flush: git asks whether its credentials will do before it sends much (K7). */
static void answer_probe(receiving *r)
{
    http_note(r->rq, "probe");
    git_send_no_cache(r->rq);
    http_send(r->rq, 200, "application/x-git-receive-pack-result");
}

void git_receive_pack(http_request *rq, void *arg)
{
    _cleanup_(receiving_dispose)
        receiving r = { .rq = rq, .app = arg, .head = MEMFS_BUF_INIT(GIT_WIRE_MAX_COMMAND_BYTES) };
    const char *refusals[GIT_WIRE_MAX_COMMANDS] = { NULL };

    r.agent = http_param(rq, "agent");
    if (!git_check_type(rq, GIT_RECEIVE_PACK) || !git_find_memory(rq, arg, true, &r.memory) ||
        !read_commands(&r) || !find_main(&r))
        return;
    refuse_others(&r, refusals);
    if (r.wire.n_commands == 0)
        answer_probe(&r);
    else if (!git_may_push(rq, arg, &r.memory))
        return;
    else if (r.main_at == r.wire.n_commands || refusals[r.main_at] != NULL)
        refuse_all(&r, refusals);
    else
        push_main(&r, refusals);
}
