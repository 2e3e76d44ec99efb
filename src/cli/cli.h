/*
 * cli.h - the frame around the subcommands: the table of commands, options as rows, help from the
 * same rows, and the two ways of talking.
 *
 * stdout is data, stderr is talk.  A command is one row in main.c and one file cmd_<verb>.c, which
 * holds its options, its help and its work.  Nothing here asks questions.
 */
#ifndef MEMFS_CLI_CLI_H
#define MEMFS_CLI_CLI_H

#include "base/buf.h"
#include "cli/exit.h"

/* One option.  `into` is a bool, const char *, uint64_t or cli_texts of the command's, by kind. */
typedef enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_NUMBER, CLI_TEXTS } cli_kind;

/* The values of an option that may be said more than once. */
typedef struct cli_texts {
    const char **at;
    size_t n;
} cli_texts;
#define CLI_TEXTS_INIT { .at = NULL }
void cli_texts_dispose(cli_texts *t);

typedef struct cli_option {
    const char *name; /* without "--" */
    cli_kind kind;
    void *into;
    const char *arg; /* what the value is called in the help; NULL for a flag */
    const char *help;
} cli_option;

typedef struct cli_usage {
    const char *synopsis; /* after "memfs " */
    const char *text;     /* what it does, in a few lines */
    const cli_option *options;
    size_t n_options;
    const char *examples; /* may be NULL */
    const char *words;    /* "add list merge": what may stand first, for completion; may be NULL */
} cli_usage;

/*
 * Reads options and gathers the rest.  argv[0] is the command's name.  Returns false when the
 * command must end at once with *ret_exit: after --help, after --help-json (the same rows for
 * programs), or after a usage error that was explained on stderr.
 */
bool cli_parse(const cli_usage *usage, int argc, char **argv, const char **rest, size_t max_rest,
               size_t *ret_n_rest, cli_exit *ret_exit);

/* The rows as one JSON object: synopsis, text, options [{name, kind, arg, help}], words. */
void cli_usage_json(const cli_usage *usage, memfs_buf *out);
/*
 * While a gatherer is set, cli_parse gives it the usage and ends the command: how `memfs
 * completion` learns the options of every command of this program without starting it.  NULL ends
 * that.
 */
typedef void (*cli_usage_fn)(const cli_usage *usage, void *ctx);
void cli_gather_usage(cli_usage_fn fn, void *ctx);

/*
 * User info and query of addresses in argv, for every `ps` to see, are overwritten (S3); to be called
 * when they were copied.
 */
void cli_hide_secrets(int argc, char **argv);

/* talk: "memfs: <message>" on stderr, control bytes made visible */
void cli_talk(const char *fmt, ...) MEMFS_PRINTF(1, 2);
/* Says what failed, and with what next step; returns the exit status for it. */
cli_exit cli_fail(const memfs_error *e, const char *next_step);
cli_exit cli_usage_error(const cli_usage *usage, const char *fmt, ...) MEMFS_PRINTF(2, 3);

/* data: text from memory files or names, made safe where stdout is a terminal (T20) */
void cli_print_safe(memfs_str s);
/* Flushes stdout; a failed flush is a failure. */
cli_exit cli_finish(cli_exit so_far);

/*
 * A progress line on stderr, only on a terminal and only when the work takes over a second:
 * "verify: 120 of 1000, agent-…".  cli_progress_end clears it.
 */
void cli_progress(const char *what, size_t done, size_t total, const char *at);
void cli_progress_end(void);

/* The data folder: --home, else $MEMFS_HOME, else ~/.memfs.  Caller frees. */
char *cli_home(const char *option);
/* The path from the root, of one that may start here; caller frees. */
char *cli_absolute(const char *path);
/* The agent: --agent, else $LETTA_AGENT_ID, else $AGENT_ID; NULL when none. */
const char *cli_agent(const char *option);

/* one function a subcommand; argv[0] is its name */
typedef int (*cli_fn)(int argc, char **argv);
typedef enum cli_group { CLI_MEMORY, CLI_SERVER, CLI_TOOL } cli_group; /* how the help is parted */
typedef struct cli_command {
    const char *name;
    cli_fn fn;
    const char *summary;
    cli_group group;
} cli_command;
extern const cli_command CLI_COMMANDS[];
extern const size_t CLI_N_COMMANDS;

/* memfs: the client */
int cmd_apply(int argc, char **argv);
int cmd_clone(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_diff(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_hook(int argc, char **argv);
int cmd_import(int argc, char **argv);
int cmd_init(int argc, char **argv);
int cmd_log(int argc, char **argv);
int cmd_memory_backup(int argc, char **argv);
int cmd_memory_restore(int argc, char **argv);
int cmd_merge_file(int argc, char **argv);
int cmd_remote(int argc, char **argv);
int cmd_setup(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_tokens(int argc, char **argv);
int cmd_undo(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_worktree(int argc, char **argv);
/* hands over to memfs-server for good */
int cli_to_server(int argc, char **argv);

/* memfs-server */
int cmd_agents(int argc, char **argv);
int cmd_backup(int argc, char **argv);
int cmd_blocks(int argc, char **argv);
int cmd_search(int argc, char **argv);
int cmd_debug(int argc, char **argv);
int cmd_import_letta(int argc, char **argv);
int cmd_mirror(int argc, char **argv);
int cmd_purge(int argc, char **argv);
int cmd_rebuild(int argc, char **argv);
int cmd_repack(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_webhook(int argc, char **argv);

#endif
