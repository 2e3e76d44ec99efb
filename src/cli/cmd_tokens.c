#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "client/places.h"
#include "client/token_count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* This command answers as `letta memory tokens` does, with its exit codes. */
enum { TOKENS_USAGE = 64, TOKENS_UNREADABLE = 65 };

#define DEFAULT_TOP 20

typedef struct request {
    const char *agent, *agent_id, *memory_dir, *format, *top_text;
    bool is_quiet, as_json;
    uint64_t top;
    char *memory;
    bool is_local_backend;
} request;

static void request_dispose(request *r)
{
    free(r->memory);
}

static const char *env(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool read_words(const cli_usage *usage, request *r)
{
    if (strcmp(r->format, "json") == 0)
        r->as_json = true;
    else if (strcmp(r->format, "text") != 0)
        return cli_usage_error(usage, "--format is text or json, not '%s'", r->format), false;
    if (r->top_text != NULL && !str_to_u64(str_of(r->top_text), UINT32_MAX, &r->top))
        return cli_usage_error(usage, "--top needs a number, not '%s'", r->top_text), false;
    return true;
}

/* --memory-dir, $MEMORY_DIR, then the agent's own. */
static bool find_memory(const cli_usage *usage, request *r)
{
    _cleanup_(settings_freep) settings *s = NULL;
    _cleanup_(place_dispose) place p = PLACE_INIT;
    const char *local = env("LETTA_LOCAL_BACKEND_EXPERIMENTAL");
    const char *dir = r->memory_dir != NULL ? r->memory_dir : env("MEMORY_DIR");
    const char *id = r->agent != NULL ? r->agent : r->agent_id;
    memfs_error err = MEMFS_ERROR_INIT;

    r->is_local_backend = local != NULL && (strcmp(local, "1") == 0 || strcmp(local, "true") == 0);
    if (dir != NULL) {
        r->memory = mem_strdup(dir);
        return true;
    }
    id = id != NULL ? id : env("LETTA_AGENT_ID");
    if (id == NULL)
        return cli_usage_error(usage, "which memory? (--memory-dir DIR, --agent ID)"), false;
    if (settings_load(NULL, NULL, 0, &s, &err) < 0 || place_of(s, id, &p, &err) < 0)
        return cli_fail(&err, NULL), false;
    r->memory = TAKE_PTR(p.memory);
    r->is_local_backend |= p.is_local_backend;
    return true;
}

/* As JSON.stringify(…, null, 2) has it. */
static void print_json(const token_files *t)
{
    printf("{\n  \"total_tokens\": %llu,\n  \"files\": [", (unsigned long long)t->total);
    for (size_t i = 0; i < t->n; i++) {
        _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
        json_writer w = JSON_WRITER_INIT(&path);

        jw_text(&w, t->at[i].path);
        printf("%s\n    {\n      \"path\": %s,\n      \"tokens\": %llu\n    }", i > 0 ? "," : "",
               path.ptr, (unsigned long long)t->at[i].tokens);
    }
    puts(t->n > 0 ? "\n  ]\n}" : "]\n}");
}

/* 12,345 */
static void print_number(uint64_t n)
{
    char digits[STR_U64_LEN];
    size_t len = str_put_u64(n, digits);

    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            putchar(',');
        putchar(digits[i]);
    }
}

static int by_size(const void *a, const void *b)
{
    const token_file *x = *(const token_file *const *)a, *y = *(const token_file *const *)b;

    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? 1 : -1;
    return (x > y) - (x < y); /* as they were: by path */
}

static void print_text(const token_files *t, uint64_t top)
{
    const token_file **order = mem_alloc((t->n + 1) * sizeof(*order));

    for (size_t i = 0; i < t->n; i++)
        order[i] = &t->at[i];
    if (t->n > 1)
        qsort(order, t->n, sizeof(*order), by_size);
    puts("Estimated system prompt tokens of this memory");
    fputs("Total: ", stdout);
    print_number(t->total);
    putchar('\n');
    for (size_t i = 0; i < t->n && i < top; i++) {
        fputs(i == 0 ? "\n  " : "  ", stdout);
        print_number(order[i]->tokens);
        fputs("  ", stdout);
        cli_print_safe(str_of(order[i]->path));
        putchar('\n');
    }
    free(order);
}

int cmd_tokens(int argc, char **argv)
{
    _cleanup_(request_dispose) request r = { .format = "text", .top = DEFAULT_TOP };
    _cleanup_(token_files_dispose) token_files files = TOKEN_FILES_INIT;
    const cli_option options[] = {
        { "memory-dir", CLI_TEXT, &r.memory_dir, "DIR", "the memory ($MEMORY_DIR)" },
        { "agent", CLI_TEXT, &r.agent, "ID", "whose memory, where no folder is named" },
        { "agent-id", CLI_TEXT, &r.agent_id, "ID", "the same" },
        { "format", CLI_TEXT, &r.format, "FORMAT", "text or json" },
        { "json", CLI_FLAG, &r.as_json, NULL, "as --format json" },
        { "top", CLI_TEXT, &r.top_text, "N", "text: at most N files, the largest (20)" },
        { "quiet", CLI_FLAG, &r.is_quiet, NULL, "text: the total only" },
    };
    const cli_usage usage = {
        "tokens [--memory-dir DIR | --agent ID] [--format text|json] [--top N] [--quiet]",
        "Estimates how many tokens a memory costs in the system prompt: a quarter of the bytes of the\n"
        "files below system/, each rounded up.  The same numbers, options and exit codes as\n"
        "'letta memory tokens': 64 for wrong usage, 65 when a file cannot be read.",
        options, ARRAY_LEN(options), "  memfs tokens --agent $LETTA_AGENT_ID --format json\n"
    };
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_rest;
    cli_exit status;

    if (!cli_parse(&usage, argc, argv, NULL, 0, &n_rest, &status))
        return status == EXIT_USAGE ? TOKENS_USAGE : (int)status;
    if (!read_words(&usage, &r) || !find_memory(&usage, &r))
        return TOKENS_USAGE;
    if (token_count(r.memory, !r.is_local_backend, &files, &err) < 0) {
        cli_fail(&err, NULL);
        return TOKENS_UNREADABLE;
    }
    if (r.as_json)
        print_json(&files);
    else
        print_text(&files, r.is_quiet ? 0 : r.top);
    return cli_finish(EXIT_GOOD);
}
