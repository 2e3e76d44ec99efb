/*
 * pg_value.h - what goes into a query of PostgreSQL and what comes out, in binary form.
 *
 * Text that may hold any bytes (paths, labels, values) is bytea in the tables: both backends give
 * back the same bytes and sort alike, whatever the locale of the database.  Numbers and times are
 * int8, object ids bytea of 20 bytes.
 *
 *     _cleanup_(pg_args_dispose) pg_args a = PG_ARGS_INIT;
 *     pg_arg_text(&a, agent_id);  pg_arg_int(&a, 7);      $1, $2
 *
 * Thread: any one thread a value.
 */
#ifndef MEMFS_CACHE_PG_VALUE_H
#define MEMFS_CACHE_PG_VALUE_H

#include "base/buf.h"
#include "base/oid.h"

#define PG_MAX_ARGS 28

typedef enum pg_type { /* their numbers in pg_type */
    PG_BOOL = 16,
    PG_BYTES = 17,
    PG_INT = 20,
    PG_TEXT = 25,
} pg_type;

/* Parameters.  Strings are borrowed until the query has run. */
typedef struct pg_args {
    int n;
    uint32_t types[PG_MAX_ARGS];
    const char *values[PG_MAX_ARGS]; /* NULL: NULL */
    int lengths[PG_MAX_ARGS];
    char numbers[PG_MAX_ARGS][8]; /* values[] may point here; so args do not move */
    memfs_buf arrays[PG_MAX_ARGS];
} pg_args;
#define PG_ARGS_INIT { .n = 0 }
void pg_args_dispose(pg_args *a);

/* Each call adds the next parameter. */
/*
 * An id: printable ASCII where it is one of ours.  From a client it may be any bytes; what
 * PostgreSQL does not take for text (a NUL, no UTF-8) becomes text that equals no id and sorts
 * among them as the bytes would.
 */
void pg_arg_text(pg_args *a, memfs_str s);
void pg_arg_bytes(pg_args *a, memfs_str s); /* any */
void pg_arg_null(pg_args *a, pg_type type);
void pg_arg_oid(pg_args *a, const memfs_oid *oid);
void pg_arg_int(pg_args *a, int64_t n);
void pg_arg_bool(pg_args *a, bool b);
/* An array of n elements for unnest() or ANY(), which are then added; at: what it returned. */
int pg_arg_array(pg_args *a, pg_type type, size_t n);
void pg_array_add_str(pg_args *a, int at, memfs_str s);
void pg_array_add_null(pg_args *a, int at);
void pg_array_add_oid(pg_args *a, int at, const memfs_oid *oid);
void pg_array_add_int(pg_args *a, int at, int64_t n);
void pg_array_add_bool(pg_args *a, int at, bool b);
/*
 * Text of ours, and behind it the sign of parameter `number` ("$3"): the one way in which the text of
 * a query is put together (T26).
 */
void pg_put(memfs_buf *sql, const char *text, int number);
/* How many bytes the parameters have so far: the server takes 1 GiB at most. */
size_t pg_args_size(const pg_args *a);

/* Results.  Columns are slices into it. */
typedef struct pg_result {
    void *handle; /* PGresult; NULL: none */
    int n_rows;
    int64_t n_changed; /* rows that an INSERT, UPDATE or DELETE touched */
} pg_result;
#define PG_RESULT_INIT { NULL, 0, 0 }
void pg_result_dispose(pg_result *r); /* harmless twice */

bool pg_col_is_null(const pg_result *r, int row, int col);
memfs_str pg_col_str(const pg_result *r, int row, int col); /* text or bytea; ptr is never NULL */
int64_t pg_col_int(const pg_result *r, int row, int col);   /* int8, int4, bool */
/* ECORRUPT when it is not 20 bytes. */
MEMFS_CHECK memfs_code pg_col_oid(const pg_result *r, int row, int col, memfs_oid *ret,
                                  memfs_error *err);

#endif
