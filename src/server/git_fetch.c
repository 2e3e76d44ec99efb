/*
 * git_fetch.c - POST git-upload-pack: refs by protocol v2, and packs, which `git upload-pack` makes.
 *
 * ls-refs is answered in process.  For a pack the request is gathered (it is small), fed to the
 * child, and what the child says goes to the client as it comes.  Its first words are held back
 * until it has said more than HELD_BYTES or is over, so that a child that dies at once is an HTTP
 * status and not half an answer.
 */
#include "server/git_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "store/git_child.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define UPLOAD_TIMEOUT_MS 300000
#define QUIET_MS 60000 /* a child that neither reads nor writes for so long hangs (F03) */
#define EXIT_MS 10000  /* from the end of its output to its exit */
#define UPLOAD_BODY_BYTES (10u << 20)
#define CHUNK_BYTES (64u << 10)
#define HELD_BYTES (4u << 10)    /* of a child's first words, until we know it does not die */
#define STDERR_BYTES (64u << 10) /* F03 */

/* ---- the request ---- */

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
            git_send_fault(rq);
            return false;
        }
        buf_grew(body, n);
    }
    return true;
}

static void answer_ls_refs(http_request *rq, const git_ls_refs *ls, const memfs_oid *tip)
{
    git_ls_refs_answer(http_out(rq), ls, tip);
    git_send_no_cache(rq);
    http_send(rq, 200, "application/x-git-upload-pack-result");
}

/* ---- the child ---- */

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
    git_send_no_cache(p->rq);
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

/* ---- the commands of v2 ---- */

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
    git_send_no_cache(rq);
    http_send(rq, 200, "application/x-git-upload-pack-result");
    return true;
}

static void upload_pack(http_request *rq, void *arg,
                        bool (*find)(http_request *rq, app *a, git_target *ret))
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(UPLOAD_BODY_BYTES + (16u << 10));
    bool is_v2 = git_protocol_version(http_header(rq, "Git-Protocol")) == 2;
    git_target target;

    if (!git_check_type(rq, GIT_UPLOAD_PACK) || !find(rq, arg, &target) || !gather(rq, &body))
        return;
    if (is_v2 && answer_v2(rq, buf_str(&body), &target.tip))
        return;
    run_upload_pack(rq, arg, &target, buf_str(&body), is_v2);
}

void git_upload_pack(http_request *rq, void *arg)
{
    upload_pack(rq, arg, git_find_target);
}

void peer_upload_pack(http_request *rq, void *arg)
{
    upload_pack(rq, arg, git_find_own);
}

bool git_upload_pack_quick(http_request *rq, void *arg)
{
    memfs_error err;
    git_v2_command command;
    git_target target;
    git_ls_refs ls;

    if (git_protocol_version(http_header(rq, "Git-Protocol")) != 2 ||
        git_v2_parse(http_body(rq), &command, &ls, &err) < 0 || command != GIT_V2_LS_REFS ||
        !git_find_at_hand(rq, arg, &target))
        return false;
    if (git_check_type(rq, GIT_UPLOAD_PACK))
        answer_ls_refs(rq, &ls, &target.tip);
    return true;
}
