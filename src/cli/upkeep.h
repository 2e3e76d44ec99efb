/*
 * upkeep.h - what verify, rebuild, repack, backup and purge share: the owner does the work and
 * tells of it line by line, the command shows it.
 */
#ifndef MEMFS_CLI_UPKEEP_H
#define MEMFS_CLI_UPKEEP_H

#include "cli/cli.h"

#include <jansson.h>

typedef struct upkeep_job {
    const char *home;  /* --home, or NULL */
    const char *what;  /* "verify": for the progress line */
    const char *route; /* "/owner/verify" */
    json_t *body;      /* given: released by upkeep_run */
    bool as_json;      /* one JSON object on stdout at the end: the result, with its findings */
    /* One line for people about the result; may be NULL. */
    void (*summary)(const json_t *result, size_t n_findings);
    /* The exit status of work that was done; NULL: good, whatever was found. */
    cli_exit (*exit_of)(const json_t *result, size_t n_findings);
    const char *on_failure; /* the next step to name when it fails; may be NULL */
    bool is_remote; /* what is away, or refuses, is a git host: exit status 3 and 4 */
} upkeep_job;

/*
 * *ret_n_findings may be NULL; it counts what is amiss, not the notes of what was done.  Both are
 * lines on stdout: "agent kind what: text".
 */
cli_exit upkeep_run(const upkeep_job *job, size_t *ret_n_findings);

/*
 * A whole subcommand that works through one agent or all: the options --agent, --home and --json,
 * the job, and exit status 1 when something was found.
 */
typedef struct upkeep_command {
    const char *synopsis, *text; /* for the help */
    const char *what, *route;
    void (*summary)(const json_t *result, size_t n_findings);
} upkeep_command;
int upkeep_main(int argc, char **argv, const upkeep_command *command);

#endif
