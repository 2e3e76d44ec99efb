#include "cli/catalogue.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/program.h"

#include <string.h>

#define MAX_USAGE (256u << 10)
#define SERVER_TIMEOUT_MS 5000

static void keep_usage(const cli_usage *usage, void *ctx)
{
    memfs_buf *out = ctx;

    buf_clear(out); /* a command that parses twice: the last one is the inner one */
    cli_usage_json(usage, out);
}

/* A command of this program runs until it parses its options, and no further. */
static void ask_here(const cli_command *command, memfs_buf *out)
{
    char *argv[] = { (char *)command->name, (char[]){ "--help-json" }, NULL };

    cli_gather_usage(keep_usage, out);
    command->fn(2, argv);
    cli_gather_usage(NULL, NULL);
}

static void ask_server(const cli_command *command, memfs_buf *out)
{
    _cleanup_(mem_freep) char *program = NULL;
    memfs_error err = MEMFS_ERROR_INIT;
    const char *const env[] = { "PATH=/usr/bin:/bin", "LC_ALL=C", NULL };

    if (program_path(PROGRAM_SERVER, &program, &err) < 0)
        return;
    if (process_run(&(process_spec){ .argv = (const char *const[]){ program, command->name,
                                                                     "--help-json", NULL },
                                     .env = env },
                    MEMFS_STR(""), out, NULL, SERVER_TIMEOUT_MS, &err) < 0)
        buf_clear(out);
}

static void command_json(const cli_command *command, json_writer *w)
{
    static const char *const groups[] = {
        [CLI_MEMORY] = "memory", [CLI_SERVER] = "server", [CLI_TOOL] = "tool"
    };
    _cleanup_(buf_dispose) memfs_buf usage = MEMFS_BUF_INIT(MAX_USAGE);

    if (command->fn == cli_to_server)
        ask_server(command, &usage);
    else
        ask_here(command, &usage);
    while (usage.len > 0 && usage.ptr[usage.len - 1] == '\n')
        buf_truncate(&usage, usage.len - 1);
    jw_object(w);
    jw_key_text(w, "name", command->name);
    jw_key_text(w, "summary", command->summary);
    jw_key_text(w, "group", groups[command->group]);
    jw_key(w, "usage");
    if (usage.len > 0)
        jw_raw(w, buf_str(&usage));
    else
        jw_null(w);
    jw_object_end(w);
}

void catalogue_json(memfs_buf *out)
{
    json_writer w = JSON_WRITER_INIT(out);

    jw_array(&w);
    for (size_t i = 0; i < CLI_N_COMMANDS; i++)
        command_json(&CLI_COMMANDS[i], &w);
    jw_array_end(&w);
}
