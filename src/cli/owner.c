#include "cli/owner.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/httpc.h"
#include "base/mem.h"
#include "cli/letta_options.h"
#include "server/server.h"
#include "store/server_settings.h"
#include "sync/home_database.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A list of all blocks of a large fleet; beyond this a page at a time is the way. */
#define OWNER_ANSWER_MAX (1024u * 1024 * 1024)
#define OWNER_LINE_MAX (16u * 1024 * 1024)
/* How long a server that is just starting or stopping is waited for. */
#define OWNER_PATIENCE_MS 3000

struct owner {
    char *socket_path;
    server *own; /* NULL: somebody else serves */
};

static bool answers(const char *socket_path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd;
    bool is_up;

    if (strlen(socket_path) >= sizeof(at.sun_path))
        return false;
    memcpy(at.sun_path, socket_path, strlen(socket_path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    is_up = connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
    close(fd);
    return is_up;
}

memfs_code owner_connect(const char *home_path, owner **ret, memfs_error *err)
{
    _cleanup_(owner_closep) owner *o = mem_alloc(sizeof(*o));
    _cleanup_(server_said_dispose) server_said said = SERVER_SAID_INIT;
    memfs_error ignored;
    server_options options = SERVER_OPTIONS_INIT;
    int64_t until_ms = clock_mono_ms() + OWNER_PATIENCE_MS;
    memfs_code rc;

    if (!fs_is_dir(home_path))
        return memfs_fail(err, MEMFS_ENOTFOUND, "there is no data folder at '%s'", home_path);
    o->socket_path = mem_printf("%s/socket", home_path);
    options.home.path = home_path;
    rc = server_said_read(home_path, NULL, &said, err);
    if (rc == MEMFS_OK)
        rc = home_database_check(said.text[SERVER_DATABASE], err);
    if (rc == MEMFS_OK)
        rc = home_database_check(said.text[SERVER_LETTA_DATABASE], err);
    if (rc < 0)
        return rc;
    options.home.database = said.text[SERVER_DATABASE];
    /* a purge clears Letta's rows, too, and an import leaves what is kept the same */
    options.home.letta_database = said.text[SERVER_LETTA_DATABASE];
    options.home.letta_may_fail = true;
    /* another rule than the server's would make every block anew, twice */
    options.home.block_prefixes = str_of(getenv("LETTA_MEMFS_BLOCK_PATH_PREFIXES"));
    options.is_transient = true;
    /* the folder is one of the remotes; what is wrong with its options is told by serve */
    options.letta =
        (service_options){ said.text[SERVER_LETTA_ROOT], said.text[SERVER_LETTA_PROXY],
                           said.text[SERVER_LETTA_URL], said.text[SERVER_LETTA_TOKEN_FILE], true };
    if (letta_options_check(&options, &ignored) < 0)
        options.letta = (service_options){ .root = NULL };
    for (;;) {
        if (answers(o->socket_path))
            break;
        rc = server_start(&options, &o->own, err);
        if (rc == MEMFS_OK)
            break;
        if (rc != MEMFS_EUNAVAIL || clock_mono_ms() > until_ms)
            return rc;
        clock_sleep_ms(50);
    }
    *ret = TAKE_PTR(o);
    return MEMFS_OK;
}

void owner_close(owner *o)
{
    if (o == NULL)
        return;
    if (o->own != NULL)
        server_stop(o->own);
    free(o->socket_path);
    free(o);
}

void owner_closep(owner **o)
{
    owner_close(*o);
    *o = NULL;
}

static bool gather(memfs_str piece, void *ctx)
{
    memfs_buf *out = ctx;

    buf_add_str(out, piece);
    return !out->too_big;
}

/* What an HTTP status of the server means to a command. */
static memfs_code code_of_status(int status)
{
    switch (status) {
    case 400:
    case 422: return MEMFS_EINVALID;
    case 403: return MEMFS_EDENIED;
    case 404: return MEMFS_ENOTFOUND;
    case 409: return MEMFS_ECONFLICT;
    case 413: return MEMFS_ELIMIT;
    case 503: return MEMFS_EUNAVAIL;
    case 507: return MEMFS_ENOSPACE;
    default: return MEMFS_EINTERNAL;
    }
}

/* What stands in quotes behind key; empty: nothing does. */
static memfs_str quoted_behind(const char *text, const char *key)
{
    const char *at = strstr(text, key), *end = NULL;

    if (at != NULL)
        at += strlen(key);
    if (at != NULL && (*at == '\'' || *at == '"'))
        end = strchr(at + 1, *at);
    return end != NULL ? str_make(at + 1, (size_t)(end - at - 1)) : MEMFS_STR("");
}

/* The words of a 422, which is a list as Python prints it: those of the first error in it. */
static memfs_code fail_invalid(const char *detail, memfs_error *err)
{
    static const char VALUE[] = "Value error, ";
    memfs_str msg = quoted_behind(detail, "'msg': ");
    memfs_str where = quoted_behind(detail, "'loc': ('body', ");

    if (str_starts_with(msg, str_of(VALUE)))
        msg = str_from(msg, sizeof(VALUE) - 1);
    if (msg.len == 0)
        return memfs_fail(err, MEMFS_EINVALID, "%s", detail);
    return memfs_fail(err, MEMFS_EINVALID, "%.*s%s%.*s", (int)where.len, where.ptr,
                      where.len > 0 ? ": " : "", (int)msg.len, msg.ptr);
}

static memfs_code fail_status(int status, const memfs_buf *body, memfs_error *err)
{
    json_t *answer = json_loadb(body->ptr, body->len, 0, NULL);
    const char *detail = json_string_value(json_object_get(answer, "detail"));
    memfs_code rc =
        status == 422 && detail != NULL
            ? fail_invalid(detail, err)
            : memfs_fail(err, code_of_status(status), "%s",
                         detail != NULL ? detail : "the server refused without a reason");

    json_decref(answer);
    return rc;
}

memfs_code owner_get_text(owner *o, const char *path, memfs_buf *out, memfs_error *err)
{
    return owner_ask(o, "GET", path, NULL, out, err);
}

memfs_code owner_ask(owner *o, const char *method, const char *path, const json_t *body,
                     memfs_buf *out, memfs_error *err)
{
    _cleanup_(mem_freep) char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    httpc_request rq = { .socket_path = o->socket_path, .method = method, .path = path };
    int status;
    memfs_code rc;

    if (body != NULL && text == NULL)
        return memfs_fail(err, MEMFS_EINVALID, "what was given is not UTF-8 text");
    if (text != NULL)
        rq.body = str_of(text);
    rc = httpc_ask(&rq, gather, out, &status, err);
    if (rc == MEMFS_OK)
        rc = buf_check(out, "the answer", err);
    if (rc == MEMFS_OK && status >= 400)
        rc = fail_status(status, out, err);
    return rc;
}

memfs_code owner_get(owner *o, const char *path, json_t **ret, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf body = MEMFS_BUF_INIT(OWNER_ANSWER_MAX);
    memfs_code rc = owner_get_text(o, path, &body, err);

    if (rc < 0)
        return rc;
    *ret = json_loadb(body.ptr, body.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    if (*ret == NULL)
        return memfs_fail(err, MEMFS_EINTERNAL, "the server's answer is not JSON");
    return MEMFS_OK;
}

/* The lines of a running answer: gathered, cut at newlines, handed on. */
typedef struct line_reader {
    memfs_buf pending;
    owner_line_fn fn;
    void *ctx;
    bool has_result;
    memfs_error *err; /* of an {"error": …} line */
} line_reader;

static memfs_code code_of_name(const char *name)
{
    for (int code = MEMFS_OK; name != NULL && code >= MEMFS_EINTERNAL; code--)
        if (strcmp(memfs_code_name((memfs_code)code), name) == 0)
            return (memfs_code)code;
    return MEMFS_EINTERNAL;
}

static void take_line(line_reader *r, memfs_str line)
{
    json_t *value = json_loadb(line.ptr, line.len, JSON_ALLOW_NUL, NULL);
    const json_t *error = json_object_get(value, "error");

    if (error != NULL) {
        const char *message = json_string_value(json_object_get(error, "message"));

        memfs_fail(r->err, code_of_name(json_string_value(json_object_get(error, "code"))), "%s",
                   message != NULL ? message : "the work failed");
    } else if (value != NULL) {
        r->has_result |= json_object_get(value, "result") != NULL;
        r->fn(value, r->ctx);
    }
    json_decref(value);
}

static bool on_piece(memfs_str piece, void *ctx)
{
    line_reader *r = ctx;
    memfs_str rest, line;

    buf_add_str(&r->pending, piece);
    if (r->pending.too_big)
        return false;
    rest = buf_str(&r->pending);
    while (str_split(rest, '\n', &line, &rest))
        take_line(r, line);
    buf_drop_front(&r->pending, r->pending.len - rest.len);
    return true;
}

memfs_code owner_run(owner *o, const char *path, const json_t *body, owner_line_fn fn, void *ctx,
                     memfs_error *err)
{
    memfs_error line_error = MEMFS_ERROR_INIT;
    line_reader reader = { MEMFS_BUF_INIT(OWNER_LINE_MAX), fn, ctx, false, &line_error };
    _cleanup_(mem_freep) char *text = json_dumps(body, JSON_COMPACT);
    httpc_request rq = { .socket_path = o->socket_path, .method = "POST", .path = path,
                         .body = str_of(text) };
    int status = 0;
    memfs_code rc;

    if (text == NULL) /* jansson makes none of it, and an empty body would mean all agents */
        return memfs_fail(err, MEMFS_EINVALID, "what was given is not UTF-8 text");
    rc = httpc_ask(&rq, on_piece, &reader, &status, err);
    if (rc == MEMFS_OK && status >= 400)
        rc = fail_status(status, &reader.pending, err);
    else if (rc == MEMFS_OK && line_error.code != MEMFS_OK)
        rc = memfs_fail(err, line_error.code, "%s", line_error.msg);
    else if (rc == MEMFS_OK && !reader.has_result)
        rc = memfs_fail(err, MEMFS_EUNAVAIL, "the server ended before the work was done");
    buf_dispose(&reader.pending);
    return rc;
}
