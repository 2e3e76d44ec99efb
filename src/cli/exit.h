/*
 * exit.h - what memfs says with its exit status, and the one table from codes to it.
 */
#ifndef MEMFS_CLI_EXIT_H
#define MEMFS_CLI_EXIT_H

#include "base/error.h"

typedef enum cli_exit {
    EXIT_GOOD = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_REMOTE_UNAVAILABLE = 3,
    EXIT_CREDENTIALS_REFUSED = 4,
    EXIT_CONFLICT_RECORDED = 5,
    EXIT_REFUSED_BY_POLICY = 6,
    EXIT_BUSY = 7,
} cli_exit;

cli_exit exit_of_code(memfs_code code);

#endif
