#include "remote/host_report.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- finding out ---- */

static bool is_web(const remote_target *t)
{
    return t->url.kind == URL_HTTPS || t->url.kind == URL_HTTP;
}

static bool has_answered(const probe_result *r)
{
    return r->answer == REMOTE_REFS || r->answer == REMOTE_EMPTY;
}

static bool is_refusal(remote_answer answer)
{
    return remote_class_of(answer)->is_credentials || answer == REMOTE_NOT_FOUND ||
           answer == REMOTE_NOT_ALLOWED || answer == REMOTE_NOT_IMPLEMENTED;
}

static int verdict(const probe_result *r)
{
    if (has_answered(r))
        return 1;
    return is_refusal(r->answer) ? 0 : -1;
}

/* Nobody is there at all: an API is not there either. */
static bool is_away(remote_answer answer)
{
    switch (answer) {
    case REMOTE_REFUSED:
    case REMOTE_NO_NAME:
    case REMOTE_TLS:
    case REMOTE_TIMEOUT:
        return true;
    default:
        return false;
    }
}

static void ask_api(const remote_target *t, host_kind kind, int64_t deadline_ms, host_report *ret)
{
    _cleanup_(host_dispose) host h = HOST_INIT;
    memfs_error ignored;

    ret->api_code = host_find(t, kind, deadline_ms, &h, &ret->api, &ignored);
    ret->kind = ret->api_code == MEMFS_OK ? h.kind : HOST_UNKNOWN;
    snprintf(ret->version, sizeof(ret->version), "%s", h.version);
    if (ret->kind == HOST_UNKNOWN || ret->kind == HOST_PLAIN)
        return;
    ret->api_code = host_check(&h, deadline_ms, &ret->rights, &ret->api, &ignored);
    ret->can_create = ret->rights.may_create;
}

static void ask_push(const remote_target *t, int64_t deadline_ms, host_report *ret)
{
    ret->is_there = has_answered(&ret->read) || ret->rights.is_known;
    if (!ret->is_there || !is_web(t))
        return;
    probe_push(t, deadline_ms - clock_mono_ms(), &ret->push);
    ret->can_push = verdict(&ret->push);
    if (ret->rights.is_known && !ret->rights.can_push)
        ret->can_push = 0;
}

/* The user's own git helpers, where they may be asked; the caller wipes what they gave. */
static void lend_helpers(const remote_target *t, int64_t deadline_ms, credential *ret)
{
    memfs_error ignored;

    if (t->cred.secret == NULL && t->ask_git_helpers && is_web(t))
        (void)!transport_ask_helpers(t->url.text, deadline_ms, &ret->username, &ret->secret,
                                     &ignored);
}

void host_report_make(const remote_target *t, host_kind kind, int64_t budget_ms, host_report *ret)
{
    _cleanup_(credential_dispose) credential helpers = CREDENTIAL_INIT;
    int64_t deadline_ms = clock_mono_ms() + budget_ms;
    remote_target with = *t;

    *ret = (host_report){ .can_read = -1, .can_push = -1, .can_create = -1,
                          .rights = { .may_create = -1 } };
    lend_helpers(t, deadline_ms, &helpers);
    if (helpers.secret != NULL)
        with.cred = helpers;
    ret->has_token = with.cred.secret != NULL;
    probe(&with, budget_ms, &ret->read);
    ret->can_read = verdict(&ret->read);
    if (is_away(ret->read.answer))
        return;
    ask_api(&with, is_web(t) ? kind : HOST_PLAIN, deadline_ms, ret);
    ask_push(&with, deadline_ms, ret);
}

/* ---- telling ---- */

typedef struct teller {
    const host_report *r;
    const host_wants *wants;
    host_row_tell fn;
    void *ctx;
} teller;

MEMFS_PRINTF(4, 5)
static void row(const teller *t, bool is_bad, const char *kind, const char *fmt, ...)
{
    char text[500];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    t->fn(is_bad, kind, text, t->ctx);
}

/* The class's words are a client's; what is told here is the remote's. */
static void answer_words(const teller *t, const probe_result *r, char *out, size_t size)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(8192);
    memfs_str start = MEMFS_STR("local-only: "), text;
    const char *advice = t->wants->advice != NULL ? t->wants->advice(r->answer)
                                                  : remote_class_of(r->answer)->advice;

    remote_answer_say(&said, r->answer, str_of(r->detail));
    text = buf_str(&said);
    if (str_starts_with(text, start))
        text = str_from(text, start.len);
    snprintf(out, size, "%.*s%s%s", (int)text.len, text.ptr, advice[0] != '\0' ? ": " : "", advice);
}

static void tell_host(const teller *t)
{
    const host_report *r = t->r;

    if (r->kind == HOST_PLAIN)
        row(t, false, "host", "plain git, without an API: webhooks are made there by hand");
    else if (r->kind != HOST_UNKNOWN)
        row(t, false, "host", "%s%s%s", host_kind_name(r->kind), r->version[0] != '\0' ? " " : "",
            r->version);
    if (r->rights.login[0] != '\0' || r->rights.scopes[0] != '\0')
        row(t, false, "token", "of '%s'%s%s",
            r->rights.login[0] != '\0' ? r->rights.login : "somebody who is not told",
            r->rights.scopes[0] != '\0' ? ", may: " : "", r->rights.scopes);
}

static bool is_renamed(const host_report *r)
{
    return r->api.http_status >= 300 && r->api.http_status < 400;
}

static bool will_be_made(const teller *t)
{
    return t->wants->create && t->r->can_create == 1;
}

static void tell_read(const teller *t)
{
    const host_report *r = t->r;
    char words[400];

    if (is_renamed(r))
        row(t, true, "renamed", "%s", r->api.words);
    answer_words(t, &r->read, words, sizeof(words));
    if (r->can_read == 1)
        row(t, false, "can-read", "%s",
            r->read.answer == REMOTE_EMPTY ? "the repository is there and empty" : "git answers");
    else if (is_renamed(r))
        return;
    else if (r->read.answer == REMOTE_NOT_FOUND)
        row(t, !t->wants->any && !will_be_made(t), "missing", "%s",
            will_be_made(t) ? "the repository is not there yet; it will be created" : words);
    else
        row(t, true, "no-read", "%s", words);
}

static void tell_push(const teller *t)
{
    const host_report *r = t->r;
    char words[400];

    answer_words(t, &r->push, words, sizeof(words));
    if (r->can_push == 1)
        row(t, false, "can-push", "git lets a push in; branch rules are met by the push itself");
    else if (r->can_push == 0 && verdict(&r->push) == 1)
        row(t, t->wants->push, "no-push", "the account has no right to push there");
    else if (r->can_push == 0)
        row(t, t->wants->push, "no-push", "%s",
            r->has_token ? words : "no token is set, and without one nothing can be pushed");
    else if (r->is_there)
        row(t, false, "push-unknown", "only a push tells whether it may");
}

static void tell_create(const teller *t)
{
    const host_report *r = t->r;
    bool is_wanted = !r->is_there || (t->wants->create && !t->wants->is_one);

    if (r->can_create == 1)
        row(t, false, "can-create", "missing repositories can be created");
    else if (r->can_create == 0)
        row(t, is_wanted, "no-create", "%s",
            r->rights.create_words[0] != '\0' ? r->rights.create_words
                                              : "the token may not create repositories there");
    else if (is_wanted && r->kind != HOST_PLAIN && r->kind != HOST_UNKNOWN)
        row(t, false, "create-unknown", "only trying tells whether a repository can be created");
    else if (t->wants->create && !r->is_there && r->kind == HOST_PLAIN)
        row(t, false, "create-unknown", "only a push tells whether the host makes what is missing");
}

int64_t host_report_days_left(const host_report *r, int64_t now_s)
{
    int64_t left_s = r->rights.expires_at_s - now_s;

    if (r->rights.expires_at_s == 0)
        return INT64_MAX;
    return left_s < 0 ? (left_s - 86399) / 86400 : left_s / 86400;
}

static void tell_expiry(const teller *t)
{
    int64_t days = host_report_days_left(t->r, t->wants->now_s);
    char date[CLOCK_ISO_LEN];

    if (days == INT64_MAX)
        return;
    clock_iso(t->r->rights.expires_at_s * 1000000, date);
    date[10] = '\0'; /* the day alone */
    if (days < 0)
        row(t, true, "expires", "the token expired on %s: make a new one", date);
    else if (days < HOST_EXPIRES_SOON_DAYS)
        row(t, true, "expires", "the token expires on %s, in %lld days: make a new one before",
            date, (long long)days);
    else
        row(t, false, "expires", "the token expires on %s", date);
}

static void tell_api(const teller *t)
{
    const host_report *r = t->r;

    if (r->rights.is_known && !r->rights.is_private)
        row(t, true, "public", "the repository is not private: others can read this memory");
    if (r->api.words[0] == '\0' || is_renamed(r))
        return;
    if (r->api_code == MEMFS_EUNAVAIL)
        row(t, true, "api-away", "%s", r->api.words);
    else if (r->api_code != MEMFS_ENOTFOUND || r->can_read == 1)
        row(t, r->api.http_status == 401, "api-refused", "%s", r->api.words);
}

void host_report_tell(const host_report *r, const host_wants *wants, host_row_tell fn, void *ctx)
{
    const teller t = { r, wants, fn, ctx };

    tell_host(&t);
    tell_read(&t);
    tell_push(&t);
    tell_create(&t);
    tell_expiry(&t);
    tell_api(&t);
}

static void count_bad(bool is_bad, const char *kind, const char *text, void *ctx)
{
    (void)kind;
    (void)text;
    *(size_t *)ctx += is_bad;
}

host_verdict host_report_verdict(const host_report *r, const host_wants *wants)
{
    size_t n_bad = 0;

    host_report_tell(r, wants, count_bad, &n_bad);
    if (n_bad == 0)
        return HOST_FINE;
    if (remote_class_of(r->read.answer)->is_credentials || r->api.http_status == 401 ||
        (wants->push && remote_class_of(r->push.answer)->is_credentials))
        return HOST_REFUSES;
    if (r->can_read == -1 || (r->api_code == MEMFS_EUNAVAIL && r->api.words[0] != '\0'))
        return HOST_AWAY;
    return HOST_FAULT;
}
