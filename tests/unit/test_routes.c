/* The route table: complete, reachable, and nothing served by accident (S2, T02). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/app.h"
#include "server/http_int.h"

#include <stdlib.h>

#define AGENT "agent-11111111-1111-4111-8111-111111111111"
#define BLOCK "block-11111111-1111-4111-8111-111111111111"

/* A path that a client would send for a pattern. */
static void sample_path(const char *pattern, memfs_buf *out)
{
    static const struct {
        const char *variable, *value;
    } values[] = {
        { "{agent}", AGENT },         { "{id}", BLOCK },         { "{label...}", "system/human" },
        { "{repository}", "repo-1" }, { "{name}", "notes.git" },
    };

    while (*pattern != '\0') {
        size_t i = 0;

        while (i < ARRAY_LEN(values) &&
               strncmp(pattern, values[i].variable, strlen(values[i].variable)) != 0)
            i++;
        if (i < ARRAY_LEN(values)) {
            buf_puts(out, values[i].value);
            pattern += strlen(values[i].variable);
        } else {
            buf_putc(out, *pattern++);
        }
    }
}

static http_match find(memfs_str path, unsigned method, bool is_owner)
{
    char storage[512];
    http_target target;

    assert_true(path.len < sizeof(storage));
    assert_null(http_target_parse(path, storage, &target));
    return http_route_find(APP_ROUTES, APP_N_ROUTES, is_owner, method, &target);
}

static void S2_every_row_is_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const http_route *r = &APP_ROUTES[i];

        assert_true(r->methods != 0 && (r->methods & (r->methods - 1)) == 0);
        assert_true(r->access >= HTTP_ACCESS_OPEN && r->access <= HTTP_ACCESS_OWNER);
        assert_non_null(r->handler);
        assert_true(r->summary != NULL && r->summary[0] != '\0');
        assert_int_equal(r->pattern[0], '/');
        /* a body is bounded where there is one, and nowhere else */
        assert_int_equal(r->max_body_bytes > 0, r->methods != HTTP_GET);
    }
}

static void S2_every_row_is_found_by_its_own_path_and_by_no_row_before_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const http_route *r = &APP_ROUTES[i];
        _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(512);

        sample_path(r->pattern, &path);
        assert_ptr_equal(find(buf_str(&path), r->methods, true).route, r);
        if (strstr(r->pattern, "...}") != NULL)
            continue;
        buf_putc(&path, '/');
        assert_ptr_equal(find(buf_str(&path), r->methods, true).route, r);
    }
}

static void S2_the_agent_of_the_path_is_the_one_that_access_is_decided_by(void **state)
{
    (void)state;
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const http_route *r = &APP_ROUTES[i];

        /* an agent's or a repository's own token decides by them; an admin's by nothing */
        if (r->access != HTTP_ACCESS_ADMIN) {
            assert_int_equal(strstr(r->pattern, "{agent}") != NULL,
                             r->access == HTTP_ACCESS_AGENT || r->access == HTTP_ACCESS_PEER);
            assert_int_equal(strstr(r->pattern, "{repository}") != NULL,
                             r->access == HTTP_ACCESS_SHARED);
        }
        assert_int_equal(strncmp(r->pattern, "/peer/", 6) == 0, r->access == HTTP_ACCESS_PEER);
        assert_int_equal(strncmp(r->pattern, "/owner/", 7) == 0, r->access == HTTP_ACCESS_OWNER);
    }
}

static void S2_owner_routes_are_unknown_to_everyone_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < APP_N_ROUTES; i++) {
        const http_route *r = &APP_ROUTES[i];
        http_match match;

        if (r->access != HTTP_ACCESS_OWNER)
            continue;
        match = find(str_of(r->pattern), r->methods, false);
        assert_null(match.route);
        assert_int_equal(match.allowed, 0);
        /* a wrong method must not show that they exist either */
        assert_int_equal(find(str_of(r->pattern), HTTP_GET, false).allowed, 0);
    }
}

static void writes_are_known_paths_with_other_methods(void **state)
{
    static const struct {
        unsigned method;
        const char *path;
    } table[] = {
        { HTTP_PATCH, "/v1/blocks/" BLOCK "/agents" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        http_match match = find(str_of(table[i].path), table[i].method, false);

        assert_null(match.route);
        assert_int_equal(match.allowed, HTTP_GET);
    }
}

static void the_label_is_the_rest_of_the_path_with_slashes_of_both_kinds(void **state)
{
    static const char *const paths[] = {
        "/v1/agents/" AGENT "/core-memory/blocks/system/human",
        "/v1/agents/" AGENT "/core-memory/blocks/system%2Fhuman",
        "/latest/agents/" AGENT "/core-memory/blocks/system%2fhuman",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char storage[512];
        http_target target;
        http_match match;
        memfs_str label;

        assert_null(http_target_parse(str_of(paths[i]), storage, &target));
        match = http_route_find(APP_ROUTES, APP_N_ROUTES, false, HTTP_GET, &target);
        assert_non_null(match.route);
        assert_ptr_equal(match.route->handler, block_of_agent);
        assert_true(http_route_param(match.route, &target, "label", &label));
        assert_true(str_equal(label, MEMFS_STR("system/human")));
    }
}

static void print_gives_one_line_a_row(void **state)
{
    char *text = NULL;
    size_t len = 0, n_lines = 0;
    FILE *to = open_memstream(&text, &len);

    (void)state;
    assert_non_null(to);
    app_print_routes(to);
    fclose(to);
    for (size_t i = 0; i < len; i++)
        n_lines += text[i] == '\n';
    assert_int_equal(n_lines, APP_N_ROUTES);
    assert_non_null(strstr(text, "GET\t/v1/blocks/{id}\tall\tone block by id\n"));
    assert_null(strchr(text, '?'));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(S2_every_row_is_complete),
        cmocka_unit_test(S2_every_row_is_found_by_its_own_path_and_by_no_row_before_it),
        cmocka_unit_test(S2_the_agent_of_the_path_is_the_one_that_access_is_decided_by),
        cmocka_unit_test(S2_owner_routes_are_unknown_to_everyone_else),
        cmocka_unit_test(writes_are_known_paths_with_other_methods),
        cmocka_unit_test(the_label_is_the_rest_of_the_path_with_slashes_of_both_kinds),
        cmocka_unit_test(print_gives_one_line_a_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
