#include "cli/cli.h"
#include "cli/vectors.h"
#include "server/app.h"
#include "server/route_doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The longest answer; only aliases that expand without end reach it. */
#define MAX_ANSWER (256u << 20)

/* Lines are answered one by one, so a vector file of any size can be piped through. */
static cli_exit answer_lines(const char *set)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MAX_ANSWER);
    size_t cap = 0, n_lines = 0;
    char *line = NULL;
    ssize_t len;
    cli_exit status = EXIT_GOOD;

    while (status == EXIT_GOOD && (len = getline(&line, &cap, stdin)) >= 0) {
        n_lines++;
        if (strspn(line, " \t\r\n") == (size_t)len)
            continue;
        buf_clear(&out);
        if (!vectors_answer(set, str_make(line, (size_t)len), &out)) {
            cli_talk("line %zu is not a JSON object with \"name\" and \"in\"", n_lines);
            status = EXIT_USAGE;
        } else if (out.too_big) {
            cli_talk("the answer to line %zu is too long", n_lines);
            status = EXIT_FAILED;
        } else {
            fwrite(out.ptr, 1, out.len, stdout);
            fflush(stdout); /* whoever asks line by line gets an answer to each */
        }
    }
    free(line);
    return cli_finish(status);
}

static void write_openapi(memfs_buf *out)
{
    openapi_write(out, MEMFS_VERSION, true);
    buf_putc(out, '\n');
}

static cli_exit print_text(void (*write)(memfs_buf *out))
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(MAX_ANSWER);

    write(&out);
    fwrite(out.ptr, 1, out.len, stdout);
    return cli_finish(EXIT_GOOD);
}

int cmd_debug(int argc, char **argv)
{
    const cli_usage usage = {
        "debug (routes | openapi | http-api | vectors SET)",
        "routes prints the route table: methods, pattern, access and summary, between tabs.\n"
        "openapi prints it as OpenAPI 3.1, with the routes that only the home's socket has; "
        "http-api as "
        "the\n"
        "generated parts of docs/http-api.md.\n"
        "vectors answers compatibility vectors: JSON lines {\"name\", \"in\"} on stdin, {\"name\", "
        "\"out\"} on\n"
        "stdout.  SET is parse, serialize, merge, path_to_label, block_id or precommit.",
        NULL, 0, "  memfs debug vectors parse < tests/vectors/parse.jsonl"
    };
    const char *rest[2];
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, rest, ARRAY_LEN(rest), &n_rest, &status))
        return status;
    if (n_rest == 1 && strcmp(rest[0], "routes") == 0) {
        app_print_routes(stdout);
        return cli_finish(EXIT_GOOD);
    }
    if (n_rest == 1 && strcmp(rest[0], "openapi") == 0)
        return print_text(write_openapi);
    if (n_rest == 1 && strcmp(rest[0], "http-api") == 0)
        return print_text(route_docs_markdown);
    if (n_rest != 2 || strcmp(rest[0], "vectors") != 0)
        return cli_usage_error(&usage, "expected 'routes', 'openapi', 'http-api', or 'vectors' "
                                       "and the name of a set");
    if (!vectors_has_set(rest[1]))
        return cli_usage_error(&usage, "there is no set '%s'", rest[1]);
    return answer_lines(rest[1]);
}
