#include "server/app.h"
#include "server/gateway.h"

static void send_status(http_request *rq, int http_status, const char *version, const char *status)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));

    jw_object(&w);
    if (version != NULL)
        jw_key_text(&w, "version", version);
    jw_key_text(&w, "status", status);
    jw_object_end(&w);
    http_send(rq, http_status, "application/json");
}

/*
 * GET /v1/health/: what Letta's clients ask first; says that the process answers.  In front of a
 * Letta server it also says how that one is, and stays 200: what memfs answers itself goes on.
 */
void health_get(http_request *rq, void *ctx)
{
    json_writer w = JSON_WRITER_INIT(http_out(rq));
    const app *self = ctx;

    jw_object(&w);
    jw_key_text(&w, "version", self->version);
    jw_key_text(&w, "status", "ok");
    if (self->gateway != NULL)
        gateway_write_health(self->gateway, &w);
    jw_object_end(&w);
    http_send(rq, 200, "application/json");
}

void healthz_get(http_request *rq, void *ctx)
{
    (void)ctx;
    send_status(rq, 200, NULL, "ok");
}

/* Ready once every repository was looked at since the start.  Requests are served before too. */
void readyz_get(http_request *rq, void *ctx)
{
    app *self = ctx;

    if (atomic_load(&self->is_ready)) {
        send_status(rq, 200, NULL, "ok");
        return;
    }
    http_set_header(rq, "Retry-After", "1");
    send_status(rq, 503, NULL, "starting");
}

/* GET /v1/ready/: the same in the shape of Letta's. */
void ready_get(http_request *rq, void *ctx)
{
    app *self = ctx;
    bool is_ready = atomic_load(&self->is_ready);

    if (!is_ready)
        http_set_header(rq, "Retry-After", "1");
    send_status(rq, is_ready ? 200 : 503, self->version, is_ready ? "ok" : "starting");
}
