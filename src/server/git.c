/*
 * git.c - smart HTTP: what git asks of a repository that an agent's id names (http-api 2).
 *
 * Refs are two lines that we read ourselves, so info/refs and ls-refs are answered in process;
 * packs are git's: `git upload-pack` makes them, and a pushed one goes through sync/push.h.
 *
 *     agent            refs          fetch              push
 *     on a remote      is brought here first, within MEET_MS, then as known
 *     unknown          the genesis   the genesis        makes the repository
 *     known, there     main          from it            onto it
 *     known, missing   503           503                503 (H4: nothing is ever made up)
 *
 * A push is answered in this order: progress and warnings on side band 2 as they come, and the
 * report on band 1 only when push_finish() has returned, with the ref durable and read back (D2).
 * A verdict that may not be told (F05) ends the connection instead.
 */
#include "server/git_wire.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "memory/ids.h"
#include "server/app.h"
#include "store/git_child.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define MEET_MS 2000 /* a look at the remotes for an id that nobody here knows (design 5) */
#define UPLOAD_TIMEOUT_MS 300000
#define QUIET_MS 60000 /* a child that neither reads nor writes for so long hangs (F03) */
#define EXIT_MS 10000  /* from the end of its output to its exit */
#define UPLOAD_BODY_BYTES (10u << 20)
#define CHUNK_BYTES (64u << 10)
#define HELD_BYTES (4u << 10)      /* of a child's first words, until we know it does not die */
#define STDERR_BYTES (64u << 10)   /* F03 */
#define PUSHER_BYTES (IDS_MAX_LEN + 16)
#define MAX_EARLY_TALK (64u << 10) /* band 2 before the client has begun to read */

/* ---- which repository ---- */

typedef struct git_target {
    const char *name; /* of the repository in the store; NULL: the genesis stands in */
    memfs_oid tip;
} git_target;

static void send_no_cache(http_request *rq)
{
    http_set_header(rq, "Cache-Control", "no-cache");
}

/* False: the answer is given. */
static bool check_id(http_request *rq, memfs_str *ret)
{
    *ret = http_param(rq, "agent");
    if (ids_is_agent(*ret))
        return true;
    http_send_detail(rq, 400,
                     "INVALID_ARGUMENT: Invalid agent ID format: %.*s. Expected format: "
                     "'agent-<uuid4>'",
                     (int)(ret->len < 200 ? ret->len : 200), ret->ptr);
    return false;
}

static memfs_code read_tip(app *a, agent *known, git_target *ret, memfs_error *err)
{
    memfs_code rc;

    ret->name = agent_repo(known);
    rc = store_tip(home_store(a->home), ret->name, &ret->tip, err);
    if (rc == MEMFS_ENOTFOUND) /* it vanished since home_agent_repo() looked */
        return memfs_fail(err, MEMFS_EUNAVAIL, "the repository of this agent is not there");
    return rc;
}

/*
 * ENOTFOUND: neither here nor, as far as that could be found out in time, on a remote.  On a worker:
 * it may wait for the network.
 */
static memfs_code look_for(app *a, memfs_str id, agent **ret, memfs_error *err)
{
    memfs_code rc = home_agent_repo(a->home, id, ret, err);
    char text[IDS_MAX_LEN + 1];

    if (rc != MEMFS_ENOTFOUND || !mirror_has_remotes(a->mirror))
        return rc;
    snprintf(text, sizeof(text), "%.*s", (int)id.len, id.ptr);
    return mirror_meet(a->mirror, text, MEET_MS) ? home_agent_repo(a->home, id, ret, err) : rc;
}

static bool find_target(http_request *rq, app *a, git_target *ret)
{
    memfs_error err = MEMFS_ERROR_INIT;
    agent *known;
    memfs_str id;
    memfs_code rc;

    if (!check_id(rq, &id))
        return false;
    rc = look_for(a, id, &known, &err);
    if (rc == MEMFS_OK)
        rc = read_tip(a, known, ret, &err);
    if (rc == MEMFS_ENOTFOUND) {
        *ret = (git_target){ NULL, STORE_GENESIS };
        rc = MEMFS_OK;
    }
    if (rc < 0)
        http_send_error(rq, &err);
    return rc == MEMFS_OK;
}

/* ---- info/refs ---- */

/* False: the answer is given. */
static bool find_service(http_request *rq, git_service *ret)
{
    memfs_str name, again;

    if (!http_query(rq, "service", &name)) {
        http_send_detail(rq, 403, "The dumb HTTP protocol is not served: please upgrade git");
        return false;
    }
    if (http_query_at(rq, "service", 1, &again)) {
        http_send_detail(rq, 400, "service is given twice");
        return false;
    }
    if (!git_service_parse(name, ret)) {
        http_send_detail(rq, 403, "This service is not served");
        return false;
    }
    return true;
}

bool git_asks_to_push(const http_request *rq)
{
    git_service service;
    memfs_str name;

    return http_query(rq, "service", &name) && git_service_parse(name, &service) &&
           service == GIT_RECEIVE_PACK;
}

static void answer_refs(http_request *rq, git_service service, const memfs_oid *tip)
{
    char type[64];

    if (service == GIT_UPLOAD_PACK && git_protocol_version(http_header(rq, "Git-Protocol")) == 2)
        git_advertise_v2(http_out(rq));
    else
        git_advertise_refs(http_out(rq), service, tip);
    send_no_cache(rq);
    snprintf(type, sizeof(type), "application/x-%s-advertisement", git_service_name(service));
    http_send(rq, 200, type);
}

/* On an event thread: one small file is read, nothing is waited for, nothing is decided anew. */
static bool find_at_hand(http_request *rq, app *a, git_target *ret)
{
    memfs_error err;
    agent *known;

    return home_agent_at_hand(a->home, http_param(rq, "agent"), &known) &&
           read_tip(a, known, ret, &err) == MEMFS_OK;
}

bool git_info_refs_quick(http_request *rq, void *arg)
{
    git_target target;
    git_service service;

    if (!find_at_hand(rq, arg, &target))
        return false;
    if (find_service(rq, &service))
        answer_refs(rq, service, &target.tip);
    return true;
}

void git_info_refs(http_request *rq, void *arg)
{
    git_target target;
    git_service service;

    if (find_service(rq, &service) && find_target(rq, arg, &target))
        answer_refs(rq, service, &target.tip);
}

/* ---- requests in general ---- */

/* git always says what it sends; somebody who says nothing is not refused for it. */
static bool check_type(http_request *rq, git_service service)
{
    const char *given = http_header(rq, "Content-Type");
    char wanted[64];

    snprintf(wanted, sizeof(wanted), "application/x-%s-request", git_service_name(service));
    if (given == NULL || strcmp(given, wanted) == 0)
        return true;
    http_send_detail(rq, 415, "The body must be %s", wanted);
    return false;
}

static void send_fault(http_request *rq)
{
    memfs_error err;

    http_stream_fault(rq, &err);
    http_send_error(rq, &err);
}

/* ---- upload-pack ---- */

static bool gather(http_request *rq, memfs_buf *body)
{
    size_t n = 1;

    while (n > 0) {
        char *room = buf_reserve(body, 16 << 10);

        if (room == NULL) {
            http_send_detail(rq, 413, "The request is too large");
            return false;
        }
        if (!http_stream_read(rq, room, 16 << 10, &n)) {
            send_fault(rq);
            return false;
        }
        buf_grew(body, n);
    }
    return true;
}

static void answer_ls_refs(http_request *rq, const git_ls_refs *ls, const memfs_oid *tip)
{
    git_ls_refs_answer(http_out(rq), ls, tip);
    send_no_cache(rq);
    http_send(rq, 200, "application/x-git-upload-pack-result");
}

/* A child at work: the request goes in, the answer comes out, its stderr is kept. */
typedef struct pump {
    http_request *rq;
    process child;
    memfs_str input;
    memfs_buf held, errors;
    bool has_begun, is_client_gone;
    uint64_t n_out;
} pump;

static void pump_dispose(pump *p)
{
    process_dispose(&p->child);
    buf_dispose(&p->held);
    buf_dispose(&p->errors);
}

static void pump_begin(pump *p)
{
    send_no_cache(p->rq);
    http_stream_begin(p->rq, 200, "application/x-git-upload-pack-result");
    p->has_begun = true;
    p->is_client_gone = !http_stream_write(p->rq, p->held.ptr, p->held.len);
}

static void pump_out(pump *p, const char *bytes, size_t n)
{
    p->n_out += n;
    if (!p->has_begun && p->held.len + n <= HELD_BYTES) {
        buf_add(&p->held, bytes, n);
        return;
    }
    if (!p->has_begun)
        pump_begin(p);
    if (!p->is_client_gone)
        p->is_client_gone = !http_stream_write(p->rq, bytes, n);
}

static void feed_child(pump *p)
{
    ssize_t n = process_write(&p->child, p->input.ptr, p->input.len);

    if (n > 0)
        p->input = str_from(p->input, (size_t)n);
    else if (n < 0 && errno != EAGAIN && errno != EINTR)
        p->input.len = 0; /* it reads no more; its exit says why */
    if (p->input.len == 0)
        process_close_in(&p->child);
}

/* True: that stream goes on. */
static bool drain_child(pump *p, int *fd, bool is_answer)
{
    static _Thread_local char chunk[CHUNK_BYTES];
    ssize_t n = read(*fd, chunk, sizeof(chunk));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        close(*fd);
        *fd = -1;
        return false;
    }
    if (is_answer)
        pump_out(p, chunk, (size_t)n);
    else if (p->errors.len + (size_t)n <= STDERR_BYTES)
        buf_add(&p->errors, chunk, (size_t)n);
    return true;
}

static bool has_bytes(int fd)
{
    struct pollfd ready = { .fd = fd, .events = POLLIN };

    return poll(&ready, 1, 0) == 1;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Until the answer is whole.  False: a deadline has passed, or the client is gone. */
static bool pump_run(pump *p, int64_t deadline_ms)
{
    int64_t quiet_ms = clock_mono_ms() + QUIET_MS;

    while (p->child.out >= 0) {
        struct pollfd fds[3] = {
            { .fd = p->child.in, .events = POLLOUT }, /* a negative descriptor is passed over */
            { .fd = p->child.out, .events = POLLIN },
            { .fd = p->child.err, .events = POLLIN },
        };
        int64_t left = earlier(deadline_ms, quiet_ms) - clock_mono_ms();

        if (left <= 0 || p->is_client_gone)
            return false;
        if (poll(fds, 3, (int)earlier(left, 1000)) <= 0)
            continue;
        quiet_ms = clock_mono_ms() + QUIET_MS; /* waiting for the client is not the child's fault */
        if (fds[0].revents != 0)
            feed_child(p);
        if (fds[1].revents != 0)
            drain_child(p, &p->child.out, true);
        if (fds[2].revents != 0)
            drain_child(p, &p->child.err, false);
    }
    while (p->child.err >= 0 && has_bytes(p->child.err) && drain_child(p, &p->child.err, false))
        ; /* its last words, if they are there already */
    return true;
}

/* git's own words to a client that asks for the wrong thing: the last packet begins with "ERR ". */
static bool is_refusal(memfs_str answer)
{
    memfs_str packet = { "", 0 }, next;

    for (;;) {
        switch (pkt_next(&answer, &next)) {
        case PKT_DATA: packet = next; break;
        case PKT_FLUSH:
        case PKT_DELIM:
        case PKT_END: break;
        default: return answer.len == 0 && str_starts_with(packet, MEMFS_STR("ERR "));
        }
    }
}

static void log_child(const pump *p, const char *what, int status)
{
    memfs_str line = process_last_line(buf_str(&p->errors));
    char text[400], code[16];

    snprintf(text, sizeof(text), "%.*s", (int)(line.len < 399 ? line.len : 399), line.ptr);
    snprintf(code, sizeof(code), "%d", status);
    log_event(LOG_WARN, what, "id", http_request_id(p->rq), "exit", code, "stderr", text, NULL);
}

/* git died without a word to the client: 128 is die(), which a malformed request brings about. */
static void answer_failure(pump *p, bool is_done, int status)
{
    if (!p->is_client_gone)
        log_child(p, "upload_pack_failed", status);
    if (p->has_begun)
        http_stream_cut(p->rq);
    else if (!is_done || status < 0)
        http_send_detail(p->rq, 504, "git took too long");
    else if (status == 128 && p->held.len == 0)
        http_send_detail(p->rq, 400, "git does not understand the request");
    else
        http_send_detail(p->rq, 503, "git could not read the repository");
}

static void pump_finish(pump *p, bool is_done)
{
    memfs_error err = MEMFS_ERROR_INIT;
    int64_t deadline_ms = clock_mono_ms() + EXIT_MS;
    int status = -1;
    bool is_good = is_done && process_wait(&p->child, deadline_ms, &status, &err) == MEMFS_OK &&
                   (status == 0 || (!p->has_begun && is_refusal(buf_str(&p->held))));

    if (!is_good) {
        answer_failure(p, is_done, status);
        return;
    }
    if (!p->has_begun)
        pump_begin(p);
    http_stream_end(p->rq);
}

static void run_upload_pack(http_request *rq, app *a, const git_target *target, memfs_str body,
                            bool is_v2)
{
    _cleanup_(pump_dispose) pump p = { .rq = rq,
                                       .child = PROCESS_INIT,
                                       .input = body,
                                       .held = MEMFS_BUF_INIT(HELD_BYTES),
                                       .errors = MEMFS_BUF_INIT(STDERR_BYTES) };
    int64_t deadline_ms = clock_mono_ms() + UPLOAD_TIMEOUT_MS;
    memfs_error err = MEMFS_ERROR_INIT;
    bool is_done;

    if (git_upload_pack_start(home_store(a->home), target->name, is_v2 ? "version=2" : NULL,
                              &p.child, &err) < 0) {
        http_send_error(rq, &err);
        return;
    }
    if (body.len == 0)
        process_close_in(&p.child);
    is_done = pump_run(&p, deadline_ms);
    pump_finish(&p, is_done);
    http_note(rq, "fetch %s%s", is_v2 ? "v2" : "v0", target->name == NULL ? " genesis" : "");
}

/* True: it was a command that we answer ourselves, or one that is refused. */
static bool answer_v2(http_request *rq, memfs_str body, const memfs_oid *tip)
{
    memfs_error err = MEMFS_ERROR_INIT;
    git_v2_command command;
    git_ls_refs ls;

    if (git_v2_parse(body, &command, &ls, &err) < 0) {
        http_send_error(rq, &err);
        return true;
    }
    if (command == GIT_V2_LS_REFS) {
        answer_ls_refs(rq, &ls, tip);
        return true;
    }
    if (command == GIT_V2_FETCH)
        return false;
    if (command == GIT_V2_OTHER)
        pkt_printf(http_out(rq), "ERR this command is not served");
    send_no_cache(rq);
    http_send(rq, 200, "application/x-git-upload-pack-result");
    return true;
}

void git_upload_pack(http_request *rq, void *arg)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(UPLOAD_BODY_BYTES + (16u << 10));
    bool is_v2 = git_protocol_version(http_header(rq, "Git-Protocol")) == 2;
    git_target target;

    if (!check_type(rq, GIT_UPLOAD_PACK) || !find_target(rq, arg, &target) || !gather(rq, &body))
        return;
    if (is_v2 && answer_v2(rq, buf_str(&body), &target.tip))
        return;
    run_upload_pack(rq, arg, &target, buf_str(&body), is_v2);
}

bool git_upload_pack_quick(http_request *rq, void *arg)
{
    memfs_error err;
    git_v2_command command;
    git_target target;
    git_ls_refs ls;

    if (git_protocol_version(http_header(rq, "Git-Protocol")) != 2 ||
        git_v2_parse(http_body(rq), &command, &ls, &err) < 0 || command != GIT_V2_LS_REFS ||
        !find_at_hand(rq, arg, &target))
        return false;
    if (check_type(rq, GIT_UPLOAD_PACK))
        answer_ls_refs(rq, &ls, &target.tip);
    return true;
}

/* ---- receive-pack ---- */

typedef struct receiving {
    http_request *rq;
    app *app;
    memfs_str agent;
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
    send_no_cache(r->rq);
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
            send_fault(r->rq);
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

static void send_report(receiving *r, const char *unpack_error, const char *const *refusals)
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
    http_stream_write(r->rq, packets.ptr, packets.len);
    http_stream_end(r->rq);
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
        send_fault(r->rq);
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

/* For the reflog: the token that pushed, by its public id; without tokens the agent. */
static void name_pusher(const receiving *r, char name[IDS_MAX_LEN + 1], char email[PUSHER_BYTES])
{
    const auth_principal *p = app_principal(r->rq);

    if (p->token_id[0] != '\0')
        snprintf(name, IDS_MAX_LEN + 1, "token %s", p->token_id);
    else
        snprintf(name, IDS_MAX_LEN + 1, "%.*s", (int)r->agent.len, r->agent.ptr);
    snprintf(email, PUSHER_BYTES, "%.*s@letta.com", (int)r->agent.len, r->agent.ptr);
}

static void push_main(receiving *r, const char **refusals)
{
    _cleanup_(push_freep) push *p = NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    char name[IDS_MAX_LEN + 1], email[PUSHER_BYTES];
    store_identity who = { name, email, clock_wall_us() / 1000000 };
    push_verdict *verdict = &r->verdict; /* the refusals borrow from it */

    name_pusher(r, name, email);
    if (push_begin(r->app->home, r->agent, &r->wire.commands[r->main_at], !r->wire.quiet, talk, r,
                   &p, &err) < 0) {
        http_send_error(r->rq, &err);
        return;
    }
    if (!feed_pack(r, p)) {
        end_badly(r);
        return;
    }
    push_finish(p, &who, verdict);
    if (!verdict->moved)
        refusals[r->main_at] = verdict->refusal;
    note_push(r, refusals[r->main_at], verdict->unpacked ? "" : verdict->unpack_error);
    if (verdict->must_not_report) {
        http_note(r->rq, "push main not reported");
        http_stream_cut(r->rq);
        return;
    }
    send_report(r, verdict->unpacked ? "" : verdict->unpack_error, refusals);
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
    send_no_cache(r->rq);
    http_send(r->rq, 200, "application/x-git-receive-pack-result");
}

void git_receive_pack(http_request *rq, void *arg)
{
    _cleanup_(receiving_dispose)
        receiving r = { .rq = rq, .app = arg, .head = MEMFS_BUF_INIT(GIT_WIRE_MAX_COMMAND_BYTES) };
    const char *refusals[GIT_WIRE_MAX_COMMANDS] = { NULL };

    if (!check_type(rq, GIT_RECEIVE_PACK) || !check_id(rq, &r.agent) || !read_commands(&r) ||
        !find_main(&r))
        return;
    refuse_others(&r, refusals);
    if (r.wire.n_commands == 0)
        answer_probe(&r);
    else if (r.main_at == r.wire.n_commands || refusals[r.main_at] != NULL)
        refuse_all(&r, refusals);
    else
        push_main(&r, refusals);
}
