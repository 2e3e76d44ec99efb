#include "cache/pg_conn.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define OLDEST_SERVER 130000
#define CONNECT_TIMEOUT_S "3" /* a host */
#define PATIENCE_MS 20          /* before a worker's place is given away for the wait */
#define SILENCE_MS 5000        /* before a server that says nothing is asked whether it is there */

/*
 * Of every session.  The time of a statement is bounded here as well as by the waits below: what
 * nobody waits for any more does not go on.  Names are always of our schema (T26).
 */
#define SESSION                                                                                    \
    "SET search_path = memfs, pg_catalog; SET statement_timeout = '60s'; SET lock_timeout = '10s';" \
    "SET idle_in_transaction_session_timeout = '60s'; SET synchronous_commit = on"

/* ---- failures ---- */

/* libpq's words end with a line feed and may have several lines; a message of ours has one. */
static memfs_code fail_with(memfs_error *err, memfs_code code, const char *what, const char *text)
{
    char line[400];
    size_t n = 0;

    for (; *text != '\0' && n < sizeof(line) - 1; text++) {
        if (*text == '\n' || *text == '\t')
            line[n++] = ' ';
        else if ((unsigned char)*text >= ' ')
            line[n++] = *text;
    }
    while (n > 0 && line[n - 1] == ' ')
        n--;
    line[n] = '\0';
    return memfs_fail(err, code, "%s: %s", what, n > 0 ? line : "the connection was lost");
}

/*
 * The rows are tried from the first to the last; a state is five characters.
 *
 * 0A000 and 26000: a statement that was prepared is of a table whose columns have other types since
 * (Letta's own migrations do that under us), or somebody dropped it (DISCARD, a pooler).  Each
 * connection of the pool has its own, so all of them are as good as broken.
 */
static const struct {
    const char *begins;
    memfs_code code;
    pg_trouble trouble;
} STATES[] = {
    { "40001", MEMFS_EUNAVAIL, PG_COLLIDED },
    { "40P01", MEMFS_EUNAVAIL, PG_COLLIDED },
    { "08", MEMFS_EUNAVAIL, PG_BROKEN },
    { "57P0", MEMFS_EUNAVAIL, PG_BROKEN },
    { "0A000", MEMFS_EUNAVAIL, PG_BROKEN },
    { "26000", MEMFS_EUNAVAIL, PG_BROKEN },
    { "25006", MEMFS_EUNAVAIL, PG_STANDBY },
    { "53100", MEMFS_ENOSPACE, PG_FINE },
    { "53", MEMFS_EUNAVAIL, PG_FINE },
    { "55P03", MEMFS_EUNAVAIL, PG_FINE },
    { "57014", MEMFS_EUNAVAIL, PG_FINE },
    { "23505", MEMFS_EEXISTS, PG_FINE },
    { "28", MEMFS_EDENIED, PG_FINE },
    { "42501", MEMFS_EDENIED, PG_FINE },
    { "", MEMFS_EINTERNAL, PG_FINE },
};

static memfs_code fail_broken(pg_conn *c, memfs_error *err)
{
    c->trouble = PG_BROKEN;
    return fail_with(err, MEMFS_EUNAVAIL, "the database is away", PQerrorMessage(c->pg));
}

/* The primary message only: details and contexts quote values. */
static memfs_code fail_result(pg_conn *c, const PGresult *r, memfs_error *err)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    size_t i = 0;

    if (state == NULL || PQstatus(c->pg) == CONNECTION_BAD)
        return fail_broken(c, err);
    while (strncmp(state, STATES[i].begins, strlen(STATES[i].begins)) != 0)
        i++;
    if (STATES[i].trouble != PG_FINE)
        c->trouble = STATES[i].trouble;
    return fail_with(err, STATES[i].code, "the database", text != NULL ? text : state);
}

/* ---- waiting ---- */

static memfs_code fail_late(pg_conn *c, memfs_error *err)
{
    c->trouble = PG_BROKEN;
    c->has_passed = true; /* who waited that long does not wait again */
    return memfs_fail(err, MEMFS_EUNAVAIL, "the database did not answer in time");
}

/* A statement may take its time, but not from a server that greets nobody any more (L3). */
static bool is_there(const pg_conn *c)
{
    static const char *const keys[] = { "connect_timeout", "host", "port", NULL };
    const char *values[] = { CONNECT_TIMEOUT_S, PQhost(c->pg), PQport(c->pg), NULL };
    PGPing said;

    pool_wait_begin();
    said = PQpingParams(keys, values, 0);
    pool_wait_end();
    return said != PQPING_NO_RESPONSE && said != PQPING_REJECT;
}

/* Most answers come at once; who waits longer keeps no place from work that asks no database (L3). */
static int poll_modestly(struct pollfd *fd, int64_t wait_ms)
{
    int n = poll(fd, 1, wait_ms > PATIENCE_MS ? PATIENCE_MS : (int)wait_ms);

    if (n != 0 || wait_ms <= PATIENCE_MS)
        return n;
    pool_wait_begin();
    n = poll(fd, 1, (int)(wait_ms - PATIENCE_MS));
    pool_wait_end();
    return n;
}

static memfs_code wait_for(pg_conn *c, short events, memfs_error *err)
{
    struct pollfd fd = { .fd = PQsocket(c->pg), .events = events };
    int64_t left_ms;
    int n;

    for (;;) {
        left_ms = c->until_ms - clock_mono_ms();
        if (left_ms <= 0)
            return fail_late(c, err);
        n = poll_modestly(&fd, left_ms > SILENCE_MS ? SILENCE_MS : left_ms);
        if (n > 0)
            return MEMFS_OK;
        if (n < 0 && errno != EINTR)
            return fail_broken(c, err);
        if (n == 0 && !is_there(c))
            return fail_late(c, err);
    }
}

/* The rest of the query leaves, however large. */
static memfs_code flush(pg_conn *c, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;
    int more;

    while (rc == MEMFS_OK && (more = PQflush(c->pg)) != 0) {
        if (more < 0)
            return fail_broken(c, err);
        rc = wait_for(c, POLLIN | POLLOUT, err);
        if (rc == MEMFS_OK && PQconsumeInput(c->pg) == 0)
            return fail_broken(c, err);
    }
    return rc;
}

/* The next result; *ret NULL: there are no more. */
static memfs_code next_result(pg_conn *c, PGresult **ret, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    while (PQisBusy(c->pg)) {
        rc = wait_for(c, POLLIN, err);
        if (rc < 0)
            return rc;
        if (PQconsumeInput(c->pg) == 0)
            return fail_broken(c, err);
    }
    *ret = PQgetResult(c->pg);
    return rc;
}

/* What is left of the answers is read and dropped, so that the connection can be asked again. */
static void drain(pg_conn *c)
{
    memfs_error ignored;
    PGresult *r = NULL;

    while (c->trouble != PG_BROKEN && next_result(c, &r, &ignored) == MEMFS_OK && r != NULL)
        PQclear(r);
}

static bool is_good(const PGresult *r)
{
    ExecStatusType status = PQresultStatus(r);

    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_SINGLE_TUPLE;
}

/* The result of the last statement; the first that fails ends it. */
static memfs_code collect(pg_conn *c, pg_result *ret, memfs_error *err)
{
    PGresult *r = NULL;
    memfs_code rc;

    for (;;) {
        rc = next_result(c, &r, err);
        if (rc < 0 || r == NULL)
            return rc;
        if (!is_good(r)) {
            rc = fail_result(c, r, err);
            PQclear(r);
            drain(c);
            return rc;
        }
        pg_result_dispose(ret);
        ret->handle = r;
        ret->n_rows = PQntuples(r);
        ret->n_changed = strtoll(PQcmdTuples(r), NULL, 10);
    }
}

/* ---- made ---- */

/*
 * A password with an "@" or a "/" as it is moves the borders of what follows, and parts of it would
 * be told as the name of a host, a port or a database (S3).
 */
static bool is_ambiguous(const char *url)
{
    const char *rest = strstr(url, "://");

    rest = rest != NULL ? strpbrk(rest + 3, "@/") : NULL;
    return rest != NULL && memchr(rest + 1, '@', strcspn(rest + 1, "?")) != NULL;
}

static bool has_bad_port(const PQconninfoOption *options)
{
    for (; options->keyword != NULL; options++)
        if (strcmp(options->keyword, "port") == 0 && options->val != NULL)
            return options->val[strspn(options->val, "0123456789,")] != '\0';
    return false;
}

memfs_code pg_url_check(const char *url, memfs_error *err)
{
    char *text = NULL;
    PQconninfoOption *options = PQconninfoParse(url, &text);
    memfs_code rc = MEMFS_OK;

    /* libpq's words may quote the url, password and all */
    if (options == NULL || is_ambiguous(url) || has_bad_port(options))
        rc = memfs_fail(err, MEMFS_EINVALID,
                        "the address of the database does not parse; it looks like "
                        "postgresql://user@host/name, with %%40 for an @ in a password and %%2F "
                        "for a /");
    PQconninfoFree(options);
    PQfreemem(text);
    return rc;
}

/*
 * What stands before dbname may be said otherwise by the url, what stands behind it may not.  The
 * server that takes writes is looked for among all hosts of the url, so that a failover needs
 * nobody.
 */
static PGconn *connect_to(const char *url)
{
    static const char *const keys[] = { "connect_timeout", "target_session_attrs",
                                        "tcp_user_timeout", "fallback_application_name", "dbname",
                                        "client_encoding", NULL };
    const char *values[] = { CONNECT_TIMEOUT_S, "read-write", "10000", "memfs",
                             url, "UTF8", NULL };
    PGconn *pg;

    pool_wait_begin();
    pg = PQconnectdbParams(keys, values, 1);
    pool_wait_end();
    return pg;
}

/*
 * Before a connection stands there is no SQLSTATE, only words; in another language than these a
 * refusal is taken for a database that is away.
 */
static memfs_code fail_to_connect(PGconn *pg, memfs_error *err)
{
    static const char *const refusals[] = { "authentication failed", "no pg_hba.conf entry",
                                            "pg_hba.conf rejects",
                                            "FATAL:  role \"", "permission denied for database",
                                            "is not permitted to log in" };
    bool is_refused = PQconnectionNeedsPassword(pg) != 0;
    const char *words = PQerrorMessage(pg);

    for (size_t i = 0; i < ARRAY_LEN(refusals); i++)
        is_refused = is_refused || strstr(words, refusals[i]) != NULL;
    return fail_with(err, is_refused ? MEMFS_EDENIED : MEMFS_EUNAVAIL,
                     "no connection to the database", words);
}

static memfs_code check_server(pg_conn *c, memfs_error *err)
{
    int version = PQserverVersion(c->pg);
    const char *encoding = PQparameterStatus(c->pg, "server_encoding");

    if (version < OLDEST_SERVER)
        return memfs_fail(err, MEMFS_EINVALID, "the database server is PostgreSQL %d.%d: memfs "
                                               "needs 13 or newer", version / 10000, version % 100);
    if (encoding == NULL || strcmp(encoding, "UTF8") != 0)
        return memfs_fail(err, MEMFS_EINVALID, "the database's encoding is %s: memfs needs UTF8",
                          encoding != NULL ? encoding : "not known");
    return MEMFS_OK;
}

static void ignore_notice(void *ctx, const PGresult *r)
{
    (void)ctx;
    (void)r;
}

memfs_code pg_conn_open(const char *url, pg_conn **ret, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    pg_conn *c = mem_alloc(sizeof(*c));
    memfs_code rc = MEMFS_OK;

    c->pg = connect_to(url);
    pg_conn_begin(c, clock_mono_ms() + PG_WAIT_MS);
    PQsetNoticeReceiver(c->pg, ignore_notice, NULL);
    if (PQstatus(c->pg) != CONNECTION_OK)
        rc = fail_to_connect(c->pg, err);
    else if (PQsetnonblocking(c->pg, 1) < 0)
        rc = fail_broken(c, err);
    if (rc == MEMFS_OK)
        rc = check_server(c, err);
    if (rc == MEMFS_OK)
        rc = pg_exec(c, SESSION, &r, err);
    if (rc < 0) {
        pg_conn_close(c);
        return rc;
    }
    *ret = c;
    return MEMFS_OK;
}

void pg_conn_close(pg_conn *c)
{
    if (c == NULL)
        return;
    PQfinish(c->pg);
    free(c->prepared);
    free(c);
}

/* ---- asked ---- */

void pg_conn_begin(pg_conn *c, int64_t until_ms)
{
    c->trouble = PG_FINE;
    c->has_passed = false;
    c->until_ms = until_ms;
}

memfs_code pg_exec(pg_conn *c, const char *sql, pg_result *ret, memfs_error *err)
{
    memfs_code rc;

    if (PQsendQuery(c->pg, sql) == 0)
        return fail_broken(c, err);
    rc = flush(c, err);
    return rc < 0 ? rc : collect(c, ret, err);
}

/* Where key stands, or would, among those that are prepared. */
static size_t place_of(const pg_conn *c, uint64_t key)
{
    size_t low = 0, high = c->n_prepared, middle;

    while (low < high) {
        middle = (low + high) / 2;
        if (c->prepared[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void name_of(uint64_t key, char out[24])
{
    snprintf(out, 24, "q%llx", (unsigned long long)key);
}

static memfs_code prepare(pg_conn *c, uint64_t key, const char *sql, const pg_args *args,
                          memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;
    size_t at = place_of(c, key);
    char name[24];
    memfs_code rc;

    if (at < c->n_prepared && c->prepared[at] == key)
        return MEMFS_OK;
    name_of(key, name);
    if (PQsendPrepare(c->pg, name, sql, args->n, args->types) == 0)
        return fail_broken(c, err);
    rc = flush(c, err);
    if (rc == MEMFS_OK)
        rc = collect(c, &r, err);
    if (rc < 0)
        return rc;
    if (c->n_prepared == c->cap_prepared) {
        c->cap_prepared = c->cap_prepared == 0 ? 64 : c->cap_prepared * 2;
        c->prepared = mem_realloc(c->prepared, c->cap_prepared, sizeof(*c->prepared));
    }
    memmove(c->prepared + at + 1, c->prepared + at, (c->n_prepared - at) * sizeof(*c->prepared));
    c->prepared[at] = key;
    c->n_prepared++;
    return MEMFS_OK;
}

static memfs_code send(pg_conn *c, uint64_t key, const char *sql, const pg_args *args,
                       memfs_error *err)
{
    static const pg_args none = PG_ARGS_INIT;
    int formats[PG_MAX_ARGS];
    char name[24];
    memfs_code rc;

    args = args != NULL ? args : &none;
    for (int i = 0; i < args->n; i++)
        formats[i] = 1;
    rc = prepare(c, key, sql, args, err);
    if (rc < 0)
        return rc;
    name_of(key, name);
    if (PQsendQueryPrepared(c->pg, name, args->n, args->values, args->lengths, formats, 1) == 0)
        return fail_broken(c, err);
    return MEMFS_OK;
}

memfs_code pg_query(pg_conn *c, uint64_t key, const char *sql, const pg_args *args, pg_result *ret,
                    memfs_error *err)
{
    memfs_code rc = send(c, key, sql, args, err);

    if (rc == MEMFS_OK)
        rc = flush(c, err);
    return rc < 0 ? rc : collect(c, ret, err);
}

/* ---- row by row ---- */

/* Nobody wants the rest: the server is told, so that it does not send all of it. */
static void give_up(pg_conn *c)
{
    PGcancel *cancel = PQgetCancel(c->pg);
    char ignored[256];

    if (cancel != NULL)
        PQcancel(cancel, ignored, sizeof(ignored));
    PQfreeCancel(cancel);
    drain(c);
}

static memfs_code pass(pg_conn *c, const PGresult *r, pg_row_fn fn, void *ctx, bool *ret_is_done,
                       memfs_error *err)
{
    pg_result row = { (void *)r, PQntuples(r), 0 };

    if (!is_good(r))
        return fail_result(c, r, err);
    if (row.n_rows == 0)
        return MEMFS_OK; /* the end of the rows is a result without any */
    c->has_passed = true;
    return fn(&row, ctx, ret_is_done, err);
}

memfs_code pg_query_rows(pg_conn *c, uint64_t key, const char *sql, const pg_args *args,
                         pg_row_fn fn, void *ctx, memfs_error *err)
{
    memfs_code rc = send(c, key, sql, args, err);
    PGresult *r = NULL;
    bool is_done = false;

    if (rc == MEMFS_OK && PQsetSingleRowMode(c->pg) == 0)
        rc = fail_broken(c, err);
    if (rc == MEMFS_OK)
        rc = flush(c, err);
    while (rc == MEMFS_OK && !is_done) {
        rc = next_result(c, &r, err);
        if (rc < 0 || r == NULL)
            return rc;
        rc = pass(c, r, fn, ctx, &is_done, err);
        PQclear(r);
    }
    if (c->trouble != PG_BROKEN)
        give_up(c);
    return rc;
}
