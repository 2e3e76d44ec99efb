#include "cli/cli.h"

#include "base/fs.h"
#include "base/httpc.h"
#include "base/json.h"
#include "base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_TIMEOUT_MS 5000
#define MAX_ANSWER (64u << 10)
#define READY_PATH "/v1/ready/" /* 200, or 503 while "starting"; the version in both */

/* What is known of a server after it was asked. */
typedef struct health {
    const char *status; /* "ok", "starting", or "down" */
    char *version;      /* NULL: not known */
    memfs_error why;    /* of "down" */
} health;

static void health_dispose(health *h)
{
    free(h->version);
}

static bool gather(memfs_str piece, void *ctx)
{
    memfs_buf *out = ctx;

    buf_add_str(out, piece);
    return !out->too_big;
}

static void judge(int http_status, const memfs_buf *body, health *ret)
{
    json_t *answer = json_loadb(body->ptr, body->len, 0, NULL);
    const char *status = json_string_value(json_object_get(answer, "status"));
    const char *version = json_string_value(json_object_get(answer, "version"));

    if (version != NULL)
        ret->version = mem_strdup(version);
    if (http_status == 200 && status != NULL && version != NULL)
        ret->status = "ok";
    else if (http_status == 503 && status != NULL && strcmp(status, "starting") == 0)
        ret->status = "starting";
    else
        memfs_fail(&ret->why, MEMFS_EUNAVAIL,
                   "it answers %s with HTTP %d, which is no memfs' answer; check the address",
                   READY_PATH, http_status);
    json_decref(answer);
}

static health ask(const httpc_request *rq)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(MAX_ANSWER);
    health h = { .status = "down" };
    int http_status;

    if (httpc_ask(rq, gather, &body, &http_status, &h.why) == MEMFS_OK)
        judge(http_status, &body, &h);
    return h;
}

/* Without a server there is nothing to be healthy: nobody takes the data folder just to say so. */
static health ask_home(const char *home)
{
    _cleanup_(mem_freep) char *socket_path = mem_printf("%s/socket", home);
    const httpc_request rq = { .socket_path = socket_path, .method = "GET", .path = READY_PATH,
                               .timeout_ms = ASK_TIMEOUT_MS };
    health h = { .status = "down" };

    if (!fs_exists(socket_path)) {
        memfs_fail(&h.why, MEMFS_EUNAVAIL,
                   "no server runs on the data folder '%s'; start one: memfs serve", home);
        return h;
    }
    return ask(&rq);
}

static health ask_url(const char *base)
{
    size_t len = strlen(base);
    _cleanup_(mem_freep) char *url =
        mem_printf("%.*s%s", (int)(len > 0 && base[len - 1] == '/' ? len - 1 : len), base,
                   READY_PATH);
    const httpc_request rq = { .url = url, .method = "GET", .timeout_ms = ASK_TIMEOUT_MS };

    return ask(&rq);
}

static void show_json(const health *h, bool is_good)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MAX_ANSWER);
    json_writer w = JSON_WRITER_INIT(&out);

    jw_object(&w);
    jw_key_text(&w, "status", h->status);
    jw_key(&w, "is_healthy");
    jw_bool(&w, is_good);
    jw_key(&w, "version");
    if (h->version != NULL)
        jw_text(&w, h->version);
    else
        jw_null(&w);
    jw_key(&w, "reason");
    if (h->why.code != MEMFS_OK)
        jw_text(&w, h->why.msg);
    else
        jw_null(&w);
    jw_object_end(&w);
    printf("%s\n", out.ptr);
}

static void show(const health *h)
{
    if (h->why.code != MEMFS_OK) {
        cli_talk("%s", h->why.msg);
        return;
    }
    printf("%s", h->status);
    if (h->version != NULL) {
        fputs("  memfs ", stdout);
        cli_print_safe(str_of(h->version));
    }
    putchar('\n');
}

int cmd_health(int argc, char **argv)
{
    _cleanup_(mem_freep) char *home_path = NULL;
    _cleanup_(health_dispose) health h = { .status = "down" };
    const char *home = NULL, *url = NULL;
    bool as_json = false, needs_ready = false, is_good;
    const cli_option options[] = {
        { "url", CLI_TEXT, &url, "URL", "the server at this address, by HTTP" },
        { "home", CLI_TEXT, &home, "DIR", "the data folder whose server is asked, by its socket" },
        { "ready", CLI_FLAG, &needs_ready, NULL, "and it has looked at every repository" },
        { "json", CLI_FLAG, &as_json, NULL, "one JSON value on stdout" },
    };
    const cli_usage usage = {
        "health [--url URL | --home DIR] [--ready] [--json]",
        "Asks a server how it is, within 5 seconds: 'ok', or 'starting' while it serves and has\n"
        "not looked at every repository since its start.  Exit status 0 when it answers, with\n"
        "--ready only at 'ok', else 1.  For checks of containers and load balancers; needs no token.",
        options, ARRAY_LEN(options),
        "  memfs health\n"
        "  memfs health --url http://127.0.0.1:8285 --ready\n"
    };
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status;
    if (url != NULL && home != NULL)
        return cli_usage_error(&usage, "--url and --home name two servers; give one");
    if (url != NULL && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return cli_usage_error(&usage, "--url needs http://HOST:PORT or https://, not '%s'", url);
    home_path = cli_home(home);
    h = url != NULL ? ask_url(url) : ask_home(home_path);
    is_good = strcmp(h.status, "ok") == 0 || (!needs_ready && strcmp(h.status, "starting") == 0);
    if (as_json)
        show_json(&h, is_good);
    else
        show(&h);
    return cli_finish(is_good ? EXIT_GOOD : EXIT_FAILED);
}
