#include "cache/pg_value.h"

#include <assert.h>
#include <endian.h>
#include <libpq-fe.h>
#include <stdlib.h>

/* ---- parameters ---- */

/* oids of arrays, from pg_type */
#define BOOL_ARRAY 1000
#define BYTES_ARRAY 1001
#define TEXT_ARRAY 1009
#define INT_ARRAY 1016

void pg_args_dispose(pg_args *a)
{
    for (int i = 0; i < a->n; i++)
        if (a->arrays[i].ptr != NULL)
            buf_dispose(&a->arrays[i]);
    a->n = 0;
}

static int add(pg_args *a, uint32_t type, const char *value, size_t n)
{
    int at = a->n++;

    assert(at < PG_MAX_ARGS && n <= INT32_MAX);
    a->types[at] = type;
    a->values[at] = value;
    a->lengths[at] = (int)n;
    a->arrays[at].ptr = NULL;
    return at;
}

/* NULL is what libpq takes for NULL, so empty text needs an address. */
static void add_str(pg_args *a, pg_type type, memfs_str s)
{
    add(a, type, s.len > 0 ? s.ptr : "", s.len);
}

/* What the text has before the first byte that PostgreSQL does not take. */
static size_t good_prefix(memfs_str s)
{
    size_t n = str_utf8_valid_prefix(s);
    const char *nul = memchr(s.ptr, '\0', n);

    return nul != NULL ? (size_t)(nul - s.ptr) : n;
}

void pg_arg_text(pg_args *a, memfs_str s)
{
    size_t n = s.len > 0 ? good_prefix(s) : 0;
    memfs_buf *own = &a->arrays[a->n];

    add_str(a, PG_TEXT, s);
    if (n == s.len)
        return;
    *own = (memfs_buf)MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    buf_add(own, s.ptr, n);
    buf_puts(own, s.ptr[n] == '\0' ? "\x01" : "\xef\xbf\xbd");
    a->values[a->n - 1] = own->ptr;
    a->lengths[a->n - 1] = (int)own->len;
}

void pg_arg_bytes(pg_args *a, memfs_str s)
{
    add_str(a, PG_BYTES, s);
}

void pg_arg_null(pg_args *a, pg_type type)
{
    add(a, type, NULL, 0);
}

void pg_arg_oid(pg_args *a, const memfs_oid *oid)
{
    add(a, PG_BYTES, (const char *)oid->id, sizeof(oid->id));
}

void pg_arg_int(pg_args *a, int64_t n)
{
    uint64_t net = htobe64((uint64_t)n);
    int at = add(a, PG_INT, NULL, sizeof(net));

    memcpy(a->numbers[at], &net, sizeof(net));
    a->values[at] = a->numbers[at];
}

void pg_arg_bool(pg_args *a, bool b)
{
    add(a, PG_BOOL, b ? "\1" : "\0", 1);
}

/* ---- arrays: dimensions, has-null, type of element, then length and bound of the dimension ---- */

static void put_u32(memfs_buf *b, uint32_t n)
{
    uint32_t net = htobe32(n);

    buf_add(b, &net, sizeof(net));
}

static void refer(pg_args *a, int at)
{
    assert(a->arrays[at].len <= INT32_MAX);
    a->values[at] = a->arrays[at].ptr; /* moves as the array grows */
    a->lengths[at] = (int)a->arrays[at].len;
}

int pg_arg_array(pg_args *a, pg_type type, size_t n)
{
    static const struct {
        pg_type element;
        uint32_t array;
    } types[] = { { PG_BOOL, BOOL_ARRAY }, { PG_BYTES, BYTES_ARRAY }, { PG_INT, INT_ARRAY },
                  { PG_TEXT, TEXT_ARRAY } };
    uint32_t array = 0;
    int at;

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        array = types[i].element == type ? types[i].array : array;
    at = add(a, array, NULL, 0);
    a->arrays[at] = (memfs_buf)MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    put_u32(&a->arrays[at], n > 0 ? 1 : 0);
    put_u32(&a->arrays[at], 1);
    put_u32(&a->arrays[at], type);
    if (n > 0) {
        put_u32(&a->arrays[at], (uint32_t)n);
        put_u32(&a->arrays[at], 1);
    }
    refer(a, at);
    return at;
}

static void add_element(pg_args *a, int at, const void *bytes, size_t n)
{
    put_u32(&a->arrays[at], (uint32_t)n);
    buf_add(&a->arrays[at], bytes, n);
    refer(a, at);
}

void pg_array_add_str(pg_args *a, int at, memfs_str s)
{
    add_element(a, at, s.ptr, s.len);
}

void pg_array_add_null(pg_args *a, int at)
{
    put_u32(&a->arrays[at], UINT32_MAX);
    refer(a, at);
}

void pg_array_add_oid(pg_args *a, int at, const memfs_oid *oid)
{
    add_element(a, at, oid->id, sizeof(oid->id));
}

void pg_array_add_int(pg_args *a, int at, int64_t n)
{
    uint64_t net = htobe64((uint64_t)n);

    add_element(a, at, &net, sizeof(net));
}

void pg_array_add_bool(pg_args *a, int at, bool b)
{
    add_element(a, at, b ? "\1" : "\0", 1);
}

void pg_put(memfs_buf *sql, const char *text, int number)
{
    buf_puts(sql, text);
    buf_printf(sql, "$%d", number);
}

size_t pg_args_size(const pg_args *a)
{
    size_t n = 0;

    for (int i = 0; i < a->n; i++)
        n += (size_t)a->lengths[i];
    return n;
}

/* ---- results ---- */

void pg_result_dispose(pg_result *r)
{
    PQclear(r->handle); /* NULL is fine */
    *r = (pg_result)PG_RESULT_INIT;
}

bool pg_col_is_null(const pg_result *r, int row, int col)
{
    return PQgetisnull(r->handle, row, col) != 0;
}

memfs_str pg_col_str(const pg_result *r, int row, int col)
{
    return str_make(PQgetvalue(r->handle, row, col), (size_t)PQgetlength(r->handle, row, col));
}

int64_t pg_col_int(const pg_result *r, int row, int col)
{
    memfs_str s = pg_col_str(r, row, col);
    uint64_t wide;
    uint32_t narrow;

    if (s.len == sizeof(wide)) {
        memcpy(&wide, s.ptr, sizeof(wide));
        return (int64_t)be64toh(wide);
    }
    if (s.len == sizeof(narrow)) {
        memcpy(&narrow, s.ptr, sizeof(narrow));
        return (int32_t)be32toh(narrow);
    }
    return s.len == 1 ? s.ptr[0] : 0;
}

memfs_code pg_col_oid(const pg_result *r, int row, int col, memfs_oid *ret, memfs_error *err)
{
    memfs_str s = pg_col_str(r, row, col);

    if (s.len != sizeof(ret->id))
        return memfs_fail(err, MEMFS_ECORRUPT, "the database holds an object id of %zu bytes",
                          s.len);
    memcpy(ret->id, s.ptr, s.len);
    return MEMFS_OK;
}
