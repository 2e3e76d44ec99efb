/*
 * bare.c - what a read over HTTP cannot cost less than: a libmicrohttpd handler that runs memfs's
 * query over a copy of memfs's cache and writes the same JSON, and does nothing else.
 *
 *     bench_bare CACHE_DB AGENT
 *
 * Prints its port, then serves until it is ended.  GET with "limit" in the query answers the list of
 * the agent's first 50 blocks, any other path the one block of LABEL.  No routing, no log, no ETag.
 * The daemon has the flags and threads that memfs's has; each thread keeps one read-only connection
 * and its prepared statements.
 */
#include <microhttpd.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LABEL "system/note-0000"
#define SELECT_SQL                                                                                 \
    "SELECT b.label, b.path, b.id, b.description, b.char_limit, b.read_only, b.metadata, b.tags, "  \
    "b.hidden, b.problem, b.blob, b.bytes, b.created_at, b.updated_at, b.value FROM blocks b "      \
    "WHERE b.agent_no = (SELECT agent_no FROM agents WHERE agent_id = ?1) "
#define ONE_SQL SELECT_SQL "AND b.label = ?2"
#define LIST_SQL SELECT_SQL "ORDER BY b.id DESC LIMIT 50"
enum { C_LABEL, C_PATH, C_ID, C_DESCRIPTION, C_LIMIT, C_READ_ONLY, C_METADATA, C_TAGS, C_HIDDEN,
       C_VALUE = 14 };

static const char *database, *agent;
static __thread sqlite3_stmt *statements[2];

typedef struct text {
    char *ptr;
    size_t len, cap;
} text;

static void put(text *t, const char *bytes, size_t n)
{
    if (t->len + n > t->cap) {
        t->cap = (t->len + n) * 2 + 4096;
        t->ptr = realloc(t->ptr, t->cap);
    }
    memcpy(t->ptr + t->len, bytes, n);
    t->len += n;
}

static void puts_(text *t, const char *s)
{
    put(t, s, strlen(s));
}

static void put_char(text *t, unsigned char c)
{
    char hex[8];

    switch (c) {
    case '"': puts_(t, "\\\""); break;
    case '\\': puts_(t, "\\\\"); break;
    case '\n': puts_(t, "\\n"); break;
    case '\r': puts_(t, "\\r"); break;
    case '\t': puts_(t, "\\t"); break;
    default:
        snprintf(hex, sizeof(hex), "\\u%04x", c);
        puts_(t, hex);
    }
}

static void put_column(text *t, sqlite3_stmt *s, int at)
{
    const unsigned char *p = sqlite3_column_blob(s, at);
    size_t n = (size_t)sqlite3_column_bytes(s, at), i = 0;

    puts_(t, "\"");
    while (i < n) {
        size_t start = i;

        while (i < n && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')
            i++;
        put(t, (const char *)p + start, i - start);
        if (i < n)
            put_char(t, p[i++]);
    }
    puts_(t, "\"");
}

static void put_raw_column(text *t, sqlite3_stmt *s, int at)
{
    put(t, sqlite3_column_blob(s, at), (size_t)sqlite3_column_bytes(s, at));
}

static void put_row(text *t, sqlite3_stmt *s, bool with_tags)
{
    char number[32];

    puts_(t, "{\"value\":");
    put_column(t, s, C_VALUE);
    snprintf(number, sizeof(number), ",\"limit\":%lld", (long long)sqlite3_column_int64(s, C_LIMIT));
    puts_(t, number);
    puts_(t, ",\"project_id\":null,\"template_name\":null,\"is_template\":false,"
             "\"template_id\":null,\"base_template_id\":null,\"deployment_id\":null,"
             "\"entity_id\":null,\"preserve_on_migration\":false,\"label\":");
    put_column(t, s, C_LABEL);
    puts_(t, sqlite3_column_int(s, C_READ_ONLY) ? ",\"read_only\":true" : ",\"read_only\":false");
    puts_(t, ",\"description\":");
    put_column(t, s, C_DESCRIPTION);
    puts_(t, ",\"metadata\":");
    put_raw_column(t, s, C_METADATA);
    puts_(t, sqlite3_column_int(s, C_HIDDEN) ? ",\"hidden\":true" : ",\"hidden\":null");
    puts_(t, ",\"id\":");
    put_column(t, s, C_ID);
    puts_(t, ",\"created_by_id\":null,\"last_updated_by_id\":null,\"tags\":");
    if (with_tags)
        put_raw_column(t, s, C_TAGS);
    else
        puts_(t, "[]");
    puts_(t, "}");
}

static sqlite3_stmt *statement(bool is_list)
{
    sqlite3 *db = NULL;

    if (statements[is_list])
        return statements[is_list];
    if (sqlite3_open_v2(database, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) ||
        sqlite3_prepare_v2(db, LIST_SQL, -1, &statements[1], NULL) ||
        sqlite3_prepare_v2(db, ONE_SQL, -1, &statements[0], NULL)) {
        fprintf(stderr, "bench_bare: %s\n", sqlite3_errmsg(db));
        exit(1);
    }
    for (int i = 0; i < 2; i++)
        sqlite3_bind_text(statements[i], 1, agent, -1, SQLITE_STATIC);
    sqlite3_bind_text(statements[0], 2, LABEL, -1, SQLITE_STATIC);
    return statements[is_list];
}

static text answer(bool is_list)
{
    sqlite3_stmt *s = statement(is_list);
    text t = { NULL, 0, 0 };
    bool is_first = true;

    if (is_list)
        puts_(&t, "[");
    while (sqlite3_step(s) == SQLITE_ROW) {
        if (!is_first)
            puts_(&t, ",");
        put_row(&t, s, true);
        is_first = false;
    }
    sqlite3_reset(s);
    if (is_list)
        puts_(&t, "]");
    return t;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **request)
{
    static int seen;
    struct MHD_Response *r;
    enum MHD_Result rc;
    text body;

    (void)cls, (void)url, (void)method, (void)version, (void)upload, (void)upload_size;
    if (*request == NULL) { /* an answer to this first call would end the connection */
        *request = &seen;
        return MHD_YES;
    }
    body = answer(MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "limit") != NULL);
    r = MHD_create_response_from_buffer(body.len, body.ptr, MHD_RESPMEM_MUST_FREE);
    MHD_add_response_header(r, "Content-Type", "application/json");
    rc = MHD_queue_response(c, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return rc;
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    struct MHD_Daemon *d;

    if (argc != 3) {
        fprintf(stderr, "usage: bench_bare CACHE_DB AGENT\n");
        return 2;
    }
    database = argv[1];
    agent = argv[2];
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    d = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, handle, NULL,
                         MHD_OPTION_SOCK_ADDR, &at, MHD_OPTION_THREAD_POOL_SIZE, 2u,
                         MHD_OPTION_CONNECTION_LIMIT, 1000u, MHD_OPTION_END);
    if (!d) {
        fprintf(stderr, "bench_bare: could not start\n");
        return 1;
    }
    printf("%u\n", MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    pause();
    MHD_stop_daemon(d);
    return 0;
}
