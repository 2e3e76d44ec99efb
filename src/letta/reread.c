#include "letta/reread.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "base/process.h"
#include "letta/folder_int.h"
#include "memory/ids.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POST_MS 60000
#define CONNECT_MS 5000
#define FIRST_WAIT_MS 1000
#define MAX_WAIT_MS (5 * 60 * 1000)
#define MAX_TOKEN 4096
#define STOP_STEP_MS 50
#define TOLD_MS 5000 /* of a report that may still be on its way; and more may come */

/* An agent that is to be re-read, or whose push is being relayed. */
typedef struct entry {
    struct entry *next;
    unsigned n_marks;    /* counts marks */
    unsigned n_moving;   /* marked, and neither due nor stayed yet */
    unsigned n_relaying; /* pushes through the server */
    unsigned n_untold;   /* the same, until the server has their report */
    bool is_marked, is_due;
    bool has_moved;                 /* since the last post */
    int64_t not_before_ms, wait_ms; /* it alone was refused for now; 0 */
    int64_t due_ms;                 /* a relayed push ended: what is marked then is due; 0 */
    char id[IDS_MAX_LEN + 1];
} entry;

struct reread {
    char *folder, *url, *token_file;
    reread_options options;
    pthread_mutex_t mutex; /* guards what follows; a leaf, but for the files of the marks */
    pthread_cond_t changed;
    entry *first;
    int64_t away_until_ms; /* the server was away; 0 */
    bool is_stopping, has_ended, was_told;
    pthread_t thread;
};

/* ---- entries: a handful at a time ---- */

static entry *find(reread *r, memfs_str id)
{
    for (entry *e = r->first; e != NULL; e = e->next)
        if (str_equal(str_of(e->id), id))
            return e;
    return NULL;
}

static entry *need(reread *r, memfs_str id)
{
    entry *e = find(r, id), **at = &r->first;

    if (e != NULL)
        return e;
    while (*at != NULL)
        at = &(*at)->next;
    e = *at = mem_alloc(sizeof(*e));
    snprintf(e->id, sizeof(e->id), "%.*s", (int)id.len, id.ptr);
    return e;
}

static void drop_if_idle(reread *r, entry *e)
{
    entry **at = &r->first;

    if (e->is_marked || e->n_moving > 0 || e->n_relaying > 0 || e->n_untold > 0 || e->due_ms != 0)
        return;
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    free(e);
}

static char *file_of(const reread *r, const char *id)
{
    return mem_printf("%s/%s", r->folder, id);
}

static void tell(const reread *r, const char *event, const char *id, const char *text)
{
    if (r->options.event != NULL)
        r->options.event(event, id, text, r->options.event_ctx);
}

/* ---- told ---- */

/* Written down.  The mutex is held. */
static entry *mark(reread *r, const char *agent_id, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = file_of(r, agent_id);
    entry *e = need(r, str_of(agent_id));

    e->n_marks++;
    if (e->is_marked)
        return e;
    e->is_marked = true;
    (void)!fs_write_atomic(path, MEMFS_STR(""), 0600, err);
    return e;
}

/*
 * The file goes, when nobody needs it.  One that cannot be removed is one post too many after the
 * next start, and none before it.  The mutex is held; e may be freed.
 */
static void unmark(reread *r, entry *e, memfs_error *err)
{
    _cleanup_(mem_freep) char *path = file_of(r, e->id);

    if (e->is_due || e->n_moving > 0 || e->n_relaying > 0 || e->n_untold > 0 || e->due_ms != 0)
        return;
    if (e->is_marked && fs_remove_tree(path, err) < 0)
        return;
    e->is_marked = false;
    drop_if_idle(r, e);
}

static void tell_failed(const reread *r, const char *id, const memfs_error *err)
{
    if (err->code != MEMFS_OK)
        tell(r, "letta_mark_failed", id, err->msg);
}

void reread_mark(reread *r, const char *agent_id)
{
    memfs_error err = MEMFS_ERROR_INIT;

    if (r == NULL || !ids_is_agent(str_of(agent_id)))
        return;
    pthread_mutex_lock(&r->mutex);
    mark(r, agent_id, &err)->n_moving++;
    pthread_mutex_unlock(&r->mutex);
    tell_failed(r, agent_id, &err);
}

/* What was marked is settled, one way or the other. */
static void end_move(reread *r, const char *agent_id, bool is_moved)
{
    memfs_error err = MEMFS_ERROR_INIT;
    entry *e;

    if (r == NULL || !ids_is_agent(str_of(agent_id)))
        return;
    pthread_mutex_lock(&r->mutex);
    e = is_moved ? mark(r, agent_id, &err) : need(r, str_of(agent_id));
    if (e->n_moving > 0)
        e->n_moving--;
    e->has_moved = e->has_moved || is_moved;
    if (is_moved && e->n_relaying == 0)
        e->is_due = true;
    if (!is_moved)
        unmark(r, e, &err);
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    tell_failed(r, agent_id, &err);
}

void reread_due(reread *r, const char *agent_id)
{
    end_move(r, agent_id, true);
}

void reread_stays(reread *r, const char *agent_id)
{
    end_move(r, agent_id, false);
}

void reread_relay_begin(reread *r, memfs_str agent_id)
{
    entry *e;

    if (r == NULL)
        return;
    pthread_mutex_lock(&r->mutex);
    e = need(r, agent_id);
    e->n_relaying++;
    e->n_untold++;
    pthread_mutex_unlock(&r->mutex);
}

void reread_relay_end(reread *r, memfs_str agent_id)
{
    entry *e;

    if (r == NULL)
        return;
    pthread_mutex_lock(&r->mutex);
    e = find(r, agent_id);
    if (e != NULL && e->n_relaying > 0)
        e->n_relaying--;
    pthread_mutex_unlock(&r->mutex);
}

void reread_relay_told(reread *r, memfs_str agent_id, bool is_told)
{
    entry *e;

    if (r == NULL)
        return;
    pthread_mutex_lock(&r->mutex);
    e = find(r, agent_id);
    if (e != NULL && e->n_untold > 0) {
        e->n_untold--;
        if (!is_told && e->is_marked)
            e->is_due = true;
        e->due_ms = clock_mono_ms() + TOLD_MS;
    }
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

/* ---- one post ---- */

typedef enum verdict {
    POSTED,
    AGAIN, /* the server is away, or takes nothing from us: all wait */
    LATER, /* this agent alone */
    REFUSED,
} verdict;

/* The server's own words say why an agent cannot be re-read; its body may hold anything. */
static verdict judge(const httpc_answer *a, char *words, size_t size)
{
    if (a->failure != HTTPC_FINE && a->status == 0) {
        snprintf(words, size, "%.199s", a->detail);
        return AGAIN;
    }
    snprintf(words, size, "it answers %d", a->status);
    if (a->status >= 200 && a->status < 300)
        return a->failure == HTTPC_FINE ? POSTED : AGAIN;
    if (a->status == 401)
        snprintf(words, size,
                 "it answers 401: --letta-token-file must hold its password, and "
                 "--letta-proxy its address");
    if (a->status == 501)
        snprintf(words, size, "it answers 501: LETTA_MEMFS_SERVICE_URL is not set there");
    if (a->status == 404 || a->status == 400 || a->status == 422)
        return REFUSED;
    return a->status == 401 || a->status == 501 || a->status == 503 ? AGAIN : LATER;
}

static bool pass_over(memfs_str piece, void *ctx)
{
    (void)piece, (void)ctx;
    return true;
}

/* Caller wipes and frees; NULL: there is none. */
static char *authorization(const reread *r)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_TOKEN);
    memfs_error ignored;
    char *header = NULL;

    if (r->token_file != NULL && fs_read(r->token_file, &text, &ignored) == MEMFS_OK) {
        while (text.len > 0 && (unsigned char)text.ptr[text.len - 1] <= ' ')
            buf_truncate(&text, text.len - 1);
        header = mem_printf("Authorization: Bearer %.*s", (int)text.len, text.ptr);
        explicit_bzero(text.ptr, text.len);
    }
    return header;
}

static verdict post(const reread *r, const char *id, char *words, size_t size)
{
    _cleanup_(mem_freep) char *url =
        mem_printf("%s/v1/git/%s/state.git/git-receive-pack", r->url, id);
    char *secret = authorization(r);
    const char *headers[] = { "Content-Type: application/x-git-receive-pack-request",
                              "User-Agent: memfs/" MEMFS_VERSION, secret, NULL };
    httpc_request rq = { .url = url,
                         .method = "POST",
                         .body = MEMFS_STR("0000"),
                         .timeout_ms = POST_MS,
                         .connect_timeout_ms = CONNECT_MS,
                         .headers = headers };
    httpc_answer answer = { .status = 0 };

    process_mark(r);
    httpc_fetch(&rq, pass_over, NULL, &answer);
    process_mark(NULL);
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
    return judge(&answer, words, size);
}

/* ---- the thread ---- */

/* until_ms: 0, no end. */
static void wait_changed(reread *r, int64_t until_ms)
{
    struct timespec at = { .tv_sec = (time_t)(until_ms / 1000),
                           .tv_nsec = (long)(until_ms % 1000) * 1000000 };

    if (until_ms > 0)
        pthread_cond_timedwait(&r->changed, &r->mutex, &at);
    else
        pthread_cond_wait(&r->changed, &r->mutex);
}

static int64_t earlier(int64_t a_ms, int64_t b_ms)
{
    return a_ms == 0 || (b_ms != 0 && b_ms < a_ms) ? b_ms : a_ms;
}

/* NULL: none now; *ret_until_ms: when there may be one, 0: when somebody says so. */
static entry *next_due(reread *r, int64_t *ret_until_ms)
{
    int64_t now_ms = clock_mono_ms();
    bool is_away = r->away_until_ms > now_ms;

    *ret_until_ms = is_away ? r->away_until_ms : 0;
    for (entry *e = r->first; e != NULL; e = e->next) {
        if (e->is_due && !is_away && e->not_before_ms <= now_ms)
            return e;
        if (e->is_due && !is_away)
            *ret_until_ms = earlier(*ret_until_ms, e->not_before_ms);
        *ret_until_ms = earlier(*ret_until_ms, e->due_ms);
    }
    return NULL;
}

/*
 * What was relayed and moved is due, unless another push is under way.  The mutex is held, but not
 * while an error is told.
 */
static void ripen(reread *r)
{
    int64_t now_ms = clock_mono_ms();
    entry *e = r->first;

    while (e != NULL) {
        memfs_error err = MEMFS_ERROR_INIT;
        char id[IDS_MAX_LEN + 1];

        if (e->due_ms == 0 || e->due_ms > now_ms) {
            e = e->next;
            continue;
        }
        e->due_ms = 0;
        e->is_due = e->is_due || (e->has_moved && e->n_untold == 0);
        memcpy(id, e->id, sizeof(id));
        unmark(r, e, &err);
        if (err.code != MEMFS_OK) {
            pthread_mutex_unlock(&r->mutex);
            tell_failed(r, id, &err);
            pthread_mutex_lock(&r->mutex);
        }
        e = r->first; /* it may be gone, and others */
    }
}

/* The mutex is held.  n_marks: of before the post; more since then wants another one. */
static void settle(reread *r, const char *id, unsigned n_marks, memfs_error *err)
{
    entry *e = find(r, str_of(id));

    if (e == NULL)
        return;
    e->not_before_ms = e->wait_ms = 0;
    if (e->n_marks != n_marks)
        return;
    e->is_due = e->has_moved = false;
    unmark(r, e, err);
}

/* The mutex is held.  It comes again by itself, and those behind it meanwhile. */
static void put_off(reread *r, const char *id)
{
    entry *e = find(r, str_of(id));

    if (e == NULL)
        return;
    e->wait_ms = e->wait_ms == 0 ? FIRST_WAIT_MS : 2 * e->wait_ms;
    if (e->wait_ms > MAX_WAIT_MS)
        e->wait_ms = MAX_WAIT_MS;
    e->not_before_ms = clock_mono_ms() + e->wait_ms;
}

/* The mutex is held when it is called and when it returns. */
static void work_at(reread *r, entry *e, int64_t *wait_ms)
{
    bool is_first = e->wait_ms == 0;
    memfs_error err = MEMFS_ERROR_INIT;
    unsigned n_marks = e->n_marks;
    char id[IDS_MAX_LEN + 1], words[300];
    verdict v;

    memcpy(id, e->id, sizeof(id));
    pthread_mutex_unlock(&r->mutex);
    v = post(r, id, words, sizeof(words));
    if (v == REFUSED || (v == LATER && is_first))
        tell(r, "letta_reread_refused", id, words);
    if (v == AGAIN && !r->was_told)
        tell(r, "letta_server_away", id, words);
    if (v != AGAIN && r->was_told)
        tell(r, "letta_server_back", id, "");
    pthread_mutex_lock(&r->mutex);
    r->was_told = v == AGAIN;
    if (v == LATER)
        put_off(r, id);
    else if (v != AGAIN)
        settle(r, id, n_marks, &err);
    if (v != AGAIN) {
        *wait_ms = FIRST_WAIT_MS;
        if (err.code != MEMFS_OK) {
            pthread_mutex_unlock(&r->mutex);
            tell(r, "letta_mark_failed", id, err.msg);
            pthread_mutex_lock(&r->mutex);
        }
        return;
    }
    r->away_until_ms = clock_mono_ms() + *wait_ms;
    *wait_ms = *wait_ms * 2 < MAX_WAIT_MS ? *wait_ms * 2 : MAX_WAIT_MS;
}

static void *run(void *arg)
{
    int64_t wait_ms = FIRST_WAIT_MS, until_ms;
    reread *r = arg;
    entry *e;

    pthread_mutex_lock(&r->mutex);
    while (!r->is_stopping) {
        ripen(r);
        e = next_due(r, &until_ms);
        if (e != NULL)
            work_at(r, e, &wait_ms);
        else
            wait_changed(r, until_ms);
    }
    r->has_ended = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

/* ---- life cycle ---- */

memfs_code reread_check_url(const char *url, memfs_error *err)
{
    memfs_str s = str_of(url);

    if ((str_starts_with(s, MEMFS_STR("http://")) || str_starts_with(s, MEMFS_STR("https://"))) &&
        strpbrk(url, "@?#\\ \r\n\t\"") == NULL && strstr(url, "://")[3] != '\0')
        return MEMFS_OK;
    return memfs_fail(err, MEMFS_EINVALID,
                      "the address of a Letta server looks like "
                      "http://letta:8283; a password goes into a file");
}

static void take_up(reread *r)
{
    _cleanup_(closedirp) DIR *dir = opendir(r->folder);
    struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        entry *left;

        if (!ids_is_agent(str_of(e->d_name)))
            continue;
        left = need(r, str_of(e->d_name));
        left->is_marked = left->is_due = true;
    }
}

static void reread_free(reread *r)
{
    while (r->first != NULL) {
        entry *e = r->first;

        r->first = e->next;
        free(e);
    }
    pthread_mutex_destroy(&r->mutex);
    pthread_cond_destroy(&r->changed);
    free(r->folder);
    free(r->url);
    free(r->token_file);
    free(r);
}

memfs_code reread_start(const reread_options *options, reread **ret, memfs_error *err)
{
    reread *r = mem_alloc(sizeof(*r));
    size_t n = strlen(options->url);
    memfs_code rc;

    while (n > 0 && options->url[n - 1] == '/')
        n--;
    r->options = *options;
    r->folder = mem_printf("%s/letta", options->home);
    r->url = mem_strndup(options->url, n);
    r->token_file = options->token_file != NULL ? mem_strdup(options->token_file) : NULL;
    pthread_mutex_init(&r->mutex, NULL);
    clock_cond_init(&r->changed);
    rc = fs_mkdirs(r->folder, err);
    if (rc == MEMFS_OK)
        take_up(r);
    if (rc == MEMFS_OK && pthread_create(&r->thread, NULL, run, r) != 0)
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "could not start a thread for the Letta server");
    if (rc < 0) {
        reread_free(r);
        return rc;
    }
    *ret = r;
    return MEMFS_OK;
}

void reread_stop(reread *r)
{
    if (r == NULL)
        return;
    pthread_mutex_lock(&r->mutex);
    r->is_stopping = true;
    pthread_cond_signal(&r->changed);
    while (!r->has_ended) { /* a post may just be beginning */
        pthread_mutex_unlock(&r->mutex);
        process_end_of(r);
        pthread_mutex_lock(&r->mutex);
        wait_changed(r, clock_mono_ms() + STOP_STEP_MS);
    }
    pthread_mutex_unlock(&r->mutex);
    pthread_join(r->thread, NULL);
    reread_free(r);
}
