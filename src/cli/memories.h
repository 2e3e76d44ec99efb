/*
 * memories.h - what apply, init, clone, sync and exec share: the options that say which memory and
 * which remote, and how a report is told.
 */
#ifndef MEMFS_CLI_MEMORIES_H
#define MEMFS_CLI_MEMORIES_H

#include "cli/cli.h"
#include "client/converge.h"

typedef struct memory_options {
    const char *agent, *home, *backend, *remote, *wait;
    bool as_json;
} memory_options;
#define MEMORY_OPTIONS_INIT { .agent = NULL }

/* The rows of these options, for a command's table: `MEMORY_ROWS(o), MEMORY_WAIT_ROW(o, "…")`. */
#define MEMORY_ROWS(o)                                                                             \
    { "agent", CLI_TEXT, &(o).agent, "ID", "whose memory ($LETTA_AGENT_ID, $AGENT_ID)" },          \
        { "backend", CLI_TEXT, &(o).backend, "B", "cloud, local, auto or none" },                  \
        { "remote", CLI_TEXT, &(o).remote, "URL", "the remote; becomes the checkout's origin" },   \
        { "home", CLI_TEXT, &(o).home, "DIR", "memfs' own folder ($MEMFS_HOME, ~/.memfs)" },       \
        { "json", CLI_FLAG, &(o).as_json, NULL, "the report as an object" }
#define MEMORY_WAIT_ROW(o, text) { "wait", CLI_TEXT, &(o).wait, "SECONDS", text }

/* Settings with the options on top; says what is wrong.  Its warnings are talk. */
bool memory_settings(const memory_options *o, settings **ret, cli_exit *ret_exit);
/* The place of the agent that the options (or the environment) name. */
bool memory_place(const cli_usage *usage, const memory_options *o, const settings *s, place *ret,
                  cli_exit *ret_exit);
/* One report on stdout; notes are talk. */
void memory_tell(const client_report *r, bool as_json, bool with_agent);
/* The same as talk, for a command whose stdout belongs to another. */
void memory_talk(const client_report *r);
/* 0 whenever the checkout can be used, whatever the remote did. */
cli_exit memory_apply_exit(const client_report *r);

/* apply and init: one command but for the remote. */
int memory_apply_main(int argc, char **argv, const char *synopsis, const char *text,
                      bool is_only_local);

#endif
