/*
 * httpc_multi.c - libcurl's multi handle on a thread of its own.
 *
 * Other threads reach it through one list: transfers that are new or were poked.  The thread takes
 * the list, starts or wakes each, lets libcurl work, tells the ends, and sleeps in
 * curl_multi_poll() until a socket or curl_multi_wakeup() calls.  All else belongs to that thread.
 *
 * A transfer lives as long as somebody has a reference: its owner, the list while it is on it, the
 * thread while it runs.
 *
 * What libcurl would add or undo is taken away here, each with the option that does it:
 *     header case       the lines are given as they are to be sent; HTTP/1.1 keeps them
 *     framing           CURLOPT_UPLOAD with a size or "Transfer-Encoding: chunked"; the answer's is
 *                       taken off by libcurl (CURLOPT_HTTP_TRANSFER_DECODING stays on), because
 *                       whoever passes it on frames it anew
 *     Accept-Encoding   is only sent when the option is set: it is not, so bodies stay compressed
 *     Expect, Accept    an empty line in the list takes them away
 *
 * Locks: mutex guards list, is_stopping; innermost, held over no call out.
 */
#include "base/httpc_multi.h"

#include "base/httpc_int.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define CONNECT_TIMEOUT_MS 5000L
#define KEEPALIVE_IDLE_S 30L
#define KEEPALIVE_INTERVAL_S 10L
#define KEPT_CONNECTIONS 64L
#define KEPT_FOR_S 3L /* less than servers keep an idle one: uvicorn 5 s */
#define STACK_BYTES (1u << 20)

static_assert(HTTPC_MAX_PIECE == CURL_MAX_WRITE_SIZE, "what libcurl hands over at most");

struct httpc_transfer {
    atomic_int n_refs;
    bool is_listed, is_started;  /* guarded by multi->mutex */
    httpc_transfer *next_listed; /* the same */
    httpc_multi *multi;
    /* the plan, copied */
    char *method, *url, *target;
    struct curl_slist *headers;
    int64_t body_bytes, timeout_ms;
    const httpc_transfer_ops *ops;
    void *ctx;
    /* the thread's */
    httpc_transfer *prev, *next; /* of those that run */
    CURL *curl;
    char said[CURL_ERROR_SIZE];
    memfs_buf head;
    struct {
        size_t name, n_name, value, n_value;
    } marks[HTTPC_MAX_FIELDS];
    size_t n_marks;
    int status;
    bool is_begun, is_over, was_stopped, is_headed, is_bad_head;
    bool is_own; /* the plan's */
};

struct httpc_multi {
    const curl_library *lib;
    CURLM *multi;
    pthread_t thread;
    pthread_mutex_t mutex;
    httpc_transfer *first_listed, **end_of_list;
    bool is_stopping;
    httpc_transfer *running; /* the thread's */
};

/* ---- transfers ---- */

static bool add_line(httpc_transfer *t, const char *line)
{
    struct curl_slist *longer = t->multi->lib->slist_append(t->headers, line);

    if (longer != NULL)
        t->headers = longer;
    return longer != NULL;
}

httpc_transfer *httpc_transfer_new(httpc_multi *m, const httpc_plan *plan)
{
    httpc_transfer *t = mem_alloc(sizeof(*t));
    bool is_whole;

    atomic_init(&t->n_refs, 1);
    t->multi = m;
    t->method = mem_strdup(plan->method);
    t->url = mem_printf("%s/", plan->origin);
    t->target = mem_strdup(plan->target);
    t->body_bytes = plan->body_bytes;
    t->timeout_ms = plan->timeout_ms;
    t->is_own = plan->is_own;
    t->ops = plan->ops;
    t->ctx = plan->ctx;
    t->head = (memfs_buf)MEMFS_BUF_INIT(HTTPC_MAX_HEAD_BYTES);
    is_whole = add_line(t, "Expect:");
    if (plan->ops->read != NULL && plan->body_bytes < 0)
        is_whole = is_whole && add_line(t, "Transfer-Encoding: chunked");
    for (size_t i = 0; is_whole && plan->headers != NULL && plan->headers[i] != NULL; i++)
        is_whole = add_line(t, plan->headers[i]);
    if (!is_whole)
        abort(); /* out of memory, as in mem.c */
    return t;
}

static void transfer_ref(httpc_transfer *t)
{
    atomic_fetch_add(&t->n_refs, 1);
}

void httpc_transfer_unref(httpc_transfer *t)
{
    if (t == NULL || atomic_fetch_sub(&t->n_refs, 1) > 1)
        return;
    t->multi->lib->slist_free_all(t->headers);
    buf_dispose(&t->head);
    free(t->method);
    free(t->url);
    free(t->target);
    free(t);
}

/* False: the multi is stopped.  A poke of what was not started yet is nothing. */
static bool enlist(httpc_transfer *t, bool is_start)
{
    httpc_multi *m = t->multi;
    bool is_fresh, is_stopping;

    pthread_mutex_lock(&m->mutex);
    is_stopping = m->is_stopping;
    t->is_started = t->is_started || is_start;
    is_fresh = !is_stopping && t->is_started && !t->is_listed;
    if (is_fresh) {
        transfer_ref(t);
        t->is_listed = true;
        t->next_listed = NULL;
        *m->end_of_list = t;
        m->end_of_list = &t->next_listed;
    }
    pthread_mutex_unlock(&m->mutex);
    if (is_fresh)
        m->lib->multi_wakeup(m->multi);
    return !is_stopping;
}

memfs_code httpc_transfer_start(httpc_transfer *t, memfs_error *err)
{
    if (enlist(t, true))
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EUNAVAIL, "memfs is stopping");
}

void httpc_transfer_poke(httpc_transfer *t)
{
    (void)enlist(t, false);
}

/* ---- what libcurl calls ---- */

static size_t on_read(char *bytes, size_t size, size_t n, void *ctx)
{
    httpc_transfer *t = ctx;
    ssize_t got = t->ops->read(bytes, size * n, t->ctx);

    if (got == HTTPC_LATER)
        return CURL_READFUNC_PAUSE;
    t->was_stopped = t->was_stopped || got < 0;
    return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static size_t on_data(char *bytes, size_t size, size_t n, void *ctx)
{
    httpc_transfer *t = ctx;
    int rc = t->ops->data(str_make(bytes, size * n), t->ctx);

    if (rc == HTTPC_LATER)
        return CURL_WRITEFUNC_PAUSE;
    t->was_stopped = t->was_stopped || rc < 0;
    return rc < 0 ? 0 : size * n;
}

/* A head begins; the one before was a 1xx. */
static void begin_head(httpc_transfer *t)
{
    buf_clear(&t->head);
    t->n_marks = 0;
}

static void add_field(httpc_transfer *t, memfs_str line)
{
    memfs_str name, value;

    if (!str_split(line, ':', &name, &value) || t->n_marks == HTTPC_MAX_FIELDS) {
        t->is_bad_head = true;
        return;
    }
    value = httpc_trim(value);
    t->marks[t->n_marks].name = t->head.len;
    t->marks[t->n_marks].n_name = name.len;
    buf_add_str(&t->head, name);
    t->marks[t->n_marks].value = t->head.len;
    t->marks[t->n_marks].n_value = value.len;
    buf_add_str(&t->head, value);
    t->n_marks++;
    t->is_bad_head = t->is_bad_head || t->head.too_big;
}

/* False: somebody has had enough. */
static bool end_head(httpc_transfer *t)
{
    httpc_field fields[HTTPC_MAX_FIELDS];
    long status = 0;

    t->multi->lib->easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        return status >= 100;
    t->is_headed = true;
    t->status = (int)status;
    for (size_t i = 0; i < t->n_marks; i++) {
        fields[i].name = str_make(t->head.ptr + t->marks[i].name, t->marks[i].n_name);
        fields[i].value = str_make(t->head.ptr + t->marks[i].value, t->marks[i].n_value);
    }
    t->was_stopped = !t->ops->head(t->status, fields, t->n_marks, t->ctx);
    return !t->was_stopped;
}

/* One line of a head, or of the trailers, which are left out. */
static size_t on_header(char *bytes, size_t size, size_t n, void *ctx)
{
    httpc_transfer *t = ctx;
    memfs_str line = str_make(bytes, size * n);
    bool goes_on = true;

    if (t->is_headed)
        return line.len;
    if (str_starts_with(line, MEMFS_STR("HTTP/")))
        begin_head(t);
    else if (httpc_trim(line).len == 0)
        goes_on = end_head(t);
    else
        add_field(t, line);
    return goes_on && !t->is_bad_head ? line.len : 0;
}

/* ---- the thread ---- */

static void set_options(httpc_multi *m, httpc_transfer *t)
{
    const curl_library *lib = m->lib;
    CURL *curl = t->curl;
    bool is_head = strcmp(t->method, "HEAD") == 0;

    httpc_set_safety(lib, curl, NULL);
    lib->easy_setopt(curl, CURLOPT_URL, t->url);
    lib->easy_setopt(curl, CURLOPT_REQUEST_TARGET, t->target);
    lib->easy_setopt(curl, CURLOPT_HTTPHEADER, t->headers);
    lib->easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    lib->easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)t->timeout_ms);
    lib->easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    lib->easy_setopt(curl, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    lib->easy_setopt(curl, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    lib->easy_setopt(curl, CURLOPT_MAXAGE_CONN, KEPT_FOR_S);
    lib->easy_setopt(curl, CURLOPT_FRESH_CONNECT, t->is_own ? 0L : 1L);
    lib->easy_setopt(curl, CURLOPT_FORBID_REUSE, t->is_own ? 0L : 1L);
    lib->easy_setopt(curl, CURLOPT_PRIVATE, t);
    lib->easy_setopt(curl, CURLOPT_ERRORBUFFER, t->said);
    lib->easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    lib->easy_setopt(curl, CURLOPT_WRITEDATA, t);
    lib->easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    lib->easy_setopt(curl, CURLOPT_HEADERDATA, t);
    if (t->ops->read != NULL) {
        lib->easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        lib->easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->body_bytes);
        lib->easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
        lib->easy_setopt(curl, CURLOPT_READDATA, t);
    }
    if (is_head)
        lib->easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else
        lib->easy_setopt(curl, CURLOPT_CUSTOMREQUEST, t->method);
}

/* The last call about t; the thread's reference goes. */
static void finish(httpc_multi *m, httpc_transfer *t, CURLcode rc)
{
    httpc_answer how = { .failure = httpc_failure_of(rc, t->was_stopped), .status = t->status };

    if (rc != CURLE_OK)
        httpc_tell_failure(m->lib, t->curl, rc, t->said, &how);
    if (t->is_bad_head)
        how.failure = HTTPC_NOT_HTTP;
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        m->running = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    m->lib->multi_remove_handle(m->multi, t->curl);
    m->lib->easy_cleanup(t->curl);
    t->curl = NULL;
    t->is_over = true;
    t->ops->end(&how, t->ctx);
    httpc_transfer_unref(t);
}

static void stop_transfer(httpc_multi *m, httpc_transfer *t)
{
    t->was_stopped = true;
    finish(m, t, CURLE_ABORTED_BY_CALLBACK);
}

static void begin(httpc_multi *m, httpc_transfer *t)
{
    t->is_begun = true;
    t->curl = m->lib->easy_init();
    if (t->curl == NULL)
        abort(); /* out of memory, as in mem.c */
    set_options(m, t);
    transfer_ref(t);
    t->next = m->running;
    if (m->running != NULL)
        m->running->prev = t;
    m->running = t;
    if (m->lib->multi_add_handle(m->multi, t->curl) != CURLM_OK)
        finish(m, t, CURLE_FAILED_INIT);
}

/* What libcurl held back meanwhile is told within easy_pause(), and so is what came of that. */
static void go_on(httpc_multi *m, httpc_transfer *t)
{
    CURLcode rc = m->lib->easy_pause(t->curl, CURLPAUSE_CONT);

    if (rc != CURLE_OK)
        finish(m, t, rc);
}

static void attend(httpc_multi *m, httpc_transfer *t)
{
    bool is_new = !t->is_begun, is_wanted;

    if (t->is_over)
        return;
    is_wanted = t->ops->goes_on == NULL || t->ops->goes_on(t->ctx);
    if (is_new)
        begin(m, t); /* nothing is sent yet */
    if (t->is_over)
        return;
    if (!is_wanted)
        stop_transfer(m, t);
    else if (!is_new)
        go_on(m, t);
}

/* False: it is time to end. */
static bool attend_listed(httpc_multi *m)
{
    httpc_transfer *at;
    bool goes_on;

    for (;;) {
        pthread_mutex_lock(&m->mutex);
        goes_on = !m->is_stopping;
        at = m->first_listed;
        if (at != NULL) {
            m->first_listed = at->next_listed;
            if (m->first_listed == NULL)
                m->end_of_list = &m->first_listed;
            at->is_listed = false;
        }
        pthread_mutex_unlock(&m->mutex);
        if (at == NULL)
            return goes_on;
        attend(m, at);
        httpc_transfer_unref(at); /* counted, NOLINT(clang-analyzer-unix.Malloc) */
    }
}

static void tell_ends(httpc_multi *m)
{
    CURLMsg *message;
    int n_left;

    while ((message = m->lib->multi_info_read(m->multi, &n_left)) != NULL) {
        CURLcode rc = message->data.result;
        char *found = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        m->lib->easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &found);
        finish(m, (httpc_transfer *)(void *)found, rc);
    }
}

static void *run(void *arg)
{
    httpc_multi *m = arg;
    int n_running;

    while (attend_listed(m)) {
        m->lib->multi_perform(m->multi, &n_running);
        tell_ends(m);
        m->lib->multi_poll(m->multi, NULL, 0, 60000, NULL);
    }
    while (m->running != NULL)
        stop_transfer(m, m->running); /* off the list, NOLINT(clang-analyzer-unix.Malloc) */
    return NULL;
}

/* ---- life ---- */

/* Signals are for the thread that waits for them. */
static int start_thread(httpc_multi *m)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int rc;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&m->thread, &attr, run, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

memfs_code httpc_multi_start(httpc_multi **ret, memfs_error *err)
{
    const curl_library *lib = httpc_library();
    httpc_multi *m;

    if (lib == NULL)
        return memfs_fail(err, MEMFS_EUNAVAIL, HTTPC_NO_LIBRARY_TEXT);
    m = mem_alloc(sizeof(*m));
    m->lib = lib;
    m->end_of_list = &m->first_listed;
    pthread_mutex_init(&m->mutex, NULL);
    m->multi = lib->multi_init();
    if (m->multi == NULL)
        abort(); /* out of memory, as in mem.c */
    lib->multi_setopt(m->multi, CURLMOPT_MAXCONNECTS, KEPT_CONNECTIONS);
    errno = start_thread(m);
    if (errno != 0) {
        memfs_fail_errno(err, "could not start a thread");
        m->is_stopping = true;
        httpc_multi_free(m);
        return err->code;
    }
    *ret = m;
    return MEMFS_OK;
}

void httpc_multi_stop(httpc_multi *m)
{
    bool was_stopping;

    pthread_mutex_lock(&m->mutex);
    was_stopping = m->is_stopping;
    m->is_stopping = true;
    pthread_mutex_unlock(&m->mutex);
    if (was_stopping)
        return;
    m->lib->multi_wakeup(m->multi);
    pthread_join(m->thread, NULL);
}

void httpc_multi_free(httpc_multi *m)
{
    if (m == NULL)
        return;
    httpc_multi_stop(m);
    m->lib->multi_cleanup(m->multi);
    pthread_mutex_destroy(&m->mutex);
    free(m);
}
