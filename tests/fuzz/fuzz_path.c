/*
 * T01, T02: any target, against routes of every shape.  Whatever is accepted holds no name that
 * could become a path of its own.
 */
#include "fuzz.h"

#include "server/http_int.h"

static void nothing(http_request *rq, void *app)
{
    (void)rq, (void)app;
}

static const http_route routes[] = {
    { HTTP_GET, "/v1/git/{agent}/state.git/info/refs", HTTP_FAST, HTTP_ACCESS_AGENT, nothing },
    { HTTP_GET, "/v1/agents/{agent}/blocks/{label...}", HTTP_FAST, HTTP_ACCESS_AGENT, nothing },
    { HTTP_POST, "/v1/agents/{agent}", HTTP_FAST, HTTP_ACCESS_AGENT, nothing },
    { HTTP_GET, "/v1/agents", HTTP_FAST, HTTP_ACCESS_ALL, nothing },
    { HTTP_GET, "/{a}/{b}/{c...}", HTTP_FAST, HTTP_ACCESS_OPEN, nothing },
    { HTTP_GET, "/{a}", HTTP_FAST, HTTP_ACCESS_OPEN, nothing },
    { HTTP_POST, "/owner/{a}", HTTP_FAST, HTTP_ACCESS_OWNER, nothing },
};

static void check_name(memfs_str s, bool may_have_slash)
{
    memfs_str part, rest = s;

    FUZZ_CHECK(s.len > 0);
    for (size_t i = 0; i < s.len; i++) {
        FUZZ_CHECK((unsigned char)s.ptr[i] >= 0x20 && s.ptr[i] != 0x7F && s.ptr[i] != '\\');
        FUZZ_CHECK(may_have_slash || s.ptr[i] != '/');
    }
    FUZZ_CHECK(str_utf8_valid_prefix(s) == s.len);
    while (str_split(rest, '/', &part, &rest))
        FUZZ_CHECK(!str_equal(part, MEMFS_STR("..")) && !str_equal(part, MEMFS_STR(".")));
    FUZZ_CHECK(!str_equal(rest, MEMFS_STR("..")) && !str_equal(rest, MEMFS_STR(".")));
}

static void check_match(const http_target *t, bool is_owner, unsigned method)
{
    static const char *const names[] = { "agent", "a", "b" };
    http_match found = http_route_find(routes, ARRAY_LEN(routes), is_owner, method, t);
    memfs_str value;

    if (found.route == NULL)
        return;
    FUZZ_CHECK(found.fault == NULL && (found.route->methods & method) != 0);
    FUZZ_CHECK(is_owner || found.route->access != HTTP_ACCESS_OWNER);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (http_route_param(found.route, t, names[i], &value))
            check_name(value, false);
    if (http_route_param(found.route, t, "label", &value) ||
        http_route_param(found.route, t, "c", &value))
        check_name(value, true);
}

static void check_inside(memfs_str s, const char *storage, size_t n)
{
    FUZZ_CHECK(s.ptr >= storage && s.len <= n && s.ptr + s.len <= storage + n);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char *raw = malloc(n > 0 ? n : 1), *storage = malloc(n + 1);
    http_target t;

    if (n > 0)
        memcpy(raw, bytes, n);
    if (http_target_parse(str_make(raw, n), storage, &t) == NULL) {
        for (size_t i = 0; i < t.n_segments; i++)
            check_inside(t.segments[i], storage, n);
        for (size_t i = 0; i < t.n_pairs; i++) {
            check_inside(t.pairs[i].key, storage, n);
            check_inside(t.pairs[i].value, storage, n);
        }
        for (unsigned i = 0; i < 4; i++)
            check_match(&t, i & 1, i & 2 ? HTTP_GET : HTTP_POST);
    }
    free(raw);
    free(storage);
    return 0;
}
