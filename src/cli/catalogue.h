/*
 * catalogue.h - every command with its options, as data: what `memfs help --json` prints and what
 * the completions are made of.
 *
 * The commands of this program are asked in place (cli_gather_usage); those of memfs-server by one
 * start of it each. Without memfs-server its commands are listed without options.
 */
#ifndef MEMFS_CLI_CATALOGUE_H
#define MEMFS_CLI_CATALOGUE_H

#include "cli/cli.h"

/*
 * One JSON array, in the order of the table: {name, summary, group, usage}.  group is "memory",
 * "server" or "tool"; usage is what --help-json prints, or null.
 */
void catalogue_json(memfs_buf *out);

#endif
