/*
 * pg_schema.h - the tables of memfs in PostgreSQL, as steps.
 *
 * Step n brings the schema `memfs` from version n-1 to n.  Steps are append-only, run in one
 * transaction each under an advisory lock, and may hold several statements.
 */
#ifndef MEMFS_CACHE_PG_SCHEMA_H
#define MEMFS_CACHE_PG_SCHEMA_H

extern const char *const PG_MIGRATIONS[]; /* ends with NULL */

#endif
