/*
 * yaml.h - YAML 1.1 as PyYAML's safe_load and dump have it (block-format 3, 4).
 *
 * A yaml_doc owns values; they live as long as it does, and hold on to nothing outside.  Values are
 * plain data that callers may read and must not change.  Mappings keep their order.  Containers may
 * be shared (a YAML alias gives the same pointer twice) and may contain themselves, so whoever
 * walks values needs a bound on depth and on work; the functions here have theirs.
 *
 *     _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
 *     rc = yaml_load(text, doc, &value, &aborts, err);
 *
 * Text is UTF-8 in which a lone surrogate, as the escape "\uD83D" makes it, is three bytes (WTF-8).
 *
 * Thread: any; a document belongs to one thread at a time.
 */
#ifndef MEMFS_MEMORY_YAML_H
#define MEMFS_MEMORY_YAML_H

#include "base/buf.h"

/* How deep collections may nest when they are read, and when they are written or compared. */
#define YAML_MAX_DEPTH 480
#define YAML_MAX_WALK_DEPTH 900
/* What comes as JSON nests less, so that stock servers can write it too. */
#define YAML_MAX_JSON_DEPTH 300
/* The most decimal digits of an integer, as CPython has it. */
#define YAML_MAX_DIGITS 4300

typedef enum yaml_type {
    YAML_NULL,
    YAML_BOOL,
    YAML_INT,    /* in the range of int64_t */
    YAML_BIGINT, /* outside of it: text holds the decimal digits, perhaps after a '-' */
    YAML_FLOAT,
    YAML_TEXT,
    YAML_BYTES, /* text holds them */
    YAML_DATE,
    YAML_DATETIME,
    YAML_SEQ,
    YAML_TUPLE, /* a pair of !!omap or !!pairs */
    YAML_SET,
    YAML_MAP,
} yaml_type;

typedef struct yaml_time {
    int16_t year; /* 1 to 9999 */
    uint8_t month, day, hour, minute, second;
    bool has_offset;
    int16_t offset_min; /* east of UTC */
    uint32_t microsecond;
} yaml_time;

typedef struct yaml_value yaml_value;
typedef struct yaml_pair {
    yaml_value *key;
    yaml_value *value;
} yaml_pair;

struct yaml_value {
    yaml_type type;
    union {
        bool boolean;
        int64_t integer;
        double real;
        memfs_str text; /* TEXT, BYTES, BIGINT */
        yaml_time time; /* DATE, DATETIME */
        struct {
            yaml_value **items;
            size_t n, cap;
        } list; /* SEQ, TUPLE, SET */
        struct {
            yaml_pair *pairs;
            size_t n, cap;
        } map;
    };
};

typedef struct yaml_doc yaml_doc;

/* life cycle */
yaml_doc *yaml_doc_new(void);
void yaml_doc_free(yaml_doc *doc);
void yaml_doc_freep(yaml_doc **doc); /* for _cleanup_ */

/*
 * Loads one document into doc; an empty text is a null.  EINVALID says why the text is not YAML as
 * safe_load would have it, ELIMIT which bound it passes.  *ret_aborts (may be NULL): PyYAML would
 * not have raised a YAMLError here but something that the reference does not catch, as for
 * 2024-02-30.
 */
MEMFS_CHECK memfs_code yaml_load(memfs_str text, yaml_doc *doc, yaml_value **ret, bool *ret_aborts,
                                 memfs_error *err);

/* building: values are returned owned by doc; text is copied */
yaml_value *yaml_null(yaml_doc *doc);
yaml_value *yaml_bool(yaml_doc *doc, bool b);
yaml_value *yaml_int(yaml_doc *doc, int64_t n);
yaml_value *yaml_float(yaml_doc *doc, double d);
yaml_value *yaml_text(yaml_doc *doc, memfs_str s);
yaml_value *yaml_bytes(yaml_doc *doc, memfs_str s);
/* Decimal digits, perhaps after a sign; the result is a YAML_INT when it fits. */
yaml_value *yaml_integer(yaml_doc *doc, memfs_str decimal);
yaml_value *yaml_moment(yaml_doc *doc, yaml_type type, const yaml_time *time);
yaml_value *yaml_list(yaml_doc *doc, yaml_type type);
void yaml_list_add(yaml_doc *doc, yaml_value *list, yaml_value *item);
yaml_value *yaml_map(yaml_doc *doc);
/* Adds at the end, without looking for the key. */
void yaml_map_add(yaml_doc *doc, yaml_value *map, yaml_value *key, yaml_value *value);
/* The same, but a text key that is there keeps its place and takes the new value. */
void yaml_map_set(yaml_doc *doc, yaml_value *map, const char *key, yaml_value *value);
void yaml_map_remove(yaml_value *map, const char *key);
/* JSON text as a value; NaN and the like do not exist there.  EINVALID, or ELIMIT for its depth. */
MEMFS_CHECK memfs_code yaml_of_json(memfs_str json, yaml_doc *doc, const yaml_value **ret,
                                    memfs_error *err);

/* reading */
/* The value of a text key; NULL when it is absent. */
const yaml_value *yaml_map_get(const yaml_value *map, const char *key);
bool yaml_is_container(const yaml_value *v);
/* "text", "mapping", for messages */
const char *yaml_type_name(yaml_type type);
/*
 * Equal as in Python: 1, 1.0 and true are, a list and a tuple are not, mappings are in any order.
 * EINVALID when the values are too deep to tell, as two cycles are.
 */
MEMFS_CHECK memfs_code yaml_equal(const yaml_value *a, const yaml_value *b, bool *ret,
                                  memfs_error *err);
/* The same for values that can be keys; containers are equal only to themselves. */
bool yaml_scalar_equal(const yaml_value *a, const yaml_value *b);

/* writing */
/*
 * Block style, insertion order, width 80, ending in a newline (block-format 4); `map` is a mapping
 * that is not empty.  A collection met again becomes an alias.  ELIMIT: nested too deep.
 */
MEMFS_CHECK memfs_code yaml_emit(const yaml_value *map, memfs_buf *out, memfs_error *err);
/*
 * JSON text, with keys that are not text written as Python's json does.  EINVALID: it holds what
 * JSON cannot (dates, bytes, sets, NaN, lone surrogates, cycles); ELIMIT: too deep, or out is full.
 */
MEMFS_CHECK memfs_code yaml_to_json(const yaml_value *v, memfs_buf *out, memfs_error *err);
/* Python's repr of a double: the shortest text that reads back the same; "inf", "-inf", "nan". */
#define YAML_REAL_LEN 48
void yaml_real_text(double d, char out[YAML_REAL_LEN]);
/* isoformat(), with `between` (' ' or 'T') before the time of a datetime. */
#define YAML_TIME_LEN 64
void yaml_time_text(const yaml_value *v, char between, char out[YAML_TIME_LEN]);

#endif
