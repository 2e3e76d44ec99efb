/*
 * Values, the arena that they live in, and equality as Python has it.
 *
 * The arena hands out memory from blocks that double up to 64 KiB and frees all of them with the
 * document.  What it holds is bounded by whoever fills it: the reader by the length of the text and
 * its own budgets, a builder by its caller.
 */
#include "memory/yaml_int.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_MIN 1024
#define CHUNK_MAX (64 * 1024)
/* Comparisons of two values; past it they count as different (aliases make trees of any size). */
#define EQUAL_BUDGET 1000000

typedef struct chunk {
    struct chunk *next;
    size_t used, size;
    max_align_t bytes[];
} chunk;

struct yaml_doc {
    chunk *chunks;
    size_t next_size;
};

/* ---- arena ---- */

yaml_doc *yaml_doc_new(void)
{
    yaml_doc *doc = mem_alloc(sizeof(*doc));

    doc->next_size = CHUNK_MIN;
    return doc;
}

void yaml_doc_free(yaml_doc *doc)
{
    chunk *next;

    if (doc == NULL)
        return;
    for (chunk *c = doc->chunks; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(doc);
}

void yaml_doc_freep(yaml_doc **doc)
{
    yaml_doc_free(*doc);
    *doc = NULL;
}

static chunk *add_chunk(yaml_doc *doc, size_t size)
{
    size_t room = size > doc->next_size ? size : doc->next_size;
    chunk *c = mem_alloc(sizeof(*c) + room);

    c->size = room;
    c->next = doc->chunks;
    doc->chunks = c;
    if (doc->next_size < CHUNK_MAX)
        doc->next_size *= 2;
    return c;
}

void *yaml_alloc(yaml_doc *doc, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    chunk *c = doc->chunks;
    void *at;

    size = (size + align - 1) / align * align;
    if (c == NULL || size > c->size - c->used)
        c = add_chunk(doc, size);
    at = (char *)c->bytes + c->used;
    c->used += size;
    return at;
}

memfs_str yaml_copy(yaml_doc *doc, memfs_str s)
{
    char *copy = yaml_alloc(doc, s.len + 1);

    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return str_make(copy, s.len);
}

void *yaml_grow(yaml_doc *doc, void *array, size_t n, size_t *cap, size_t size)
{
    void *bigger;

    if (n < *cap)
        return array;
    *cap = *cap ? *cap * 2 : 4;
    bigger = yaml_alloc(doc, *cap * size);
    if (n > 0)
        memcpy(bigger, array, n * size);
    return bigger;
}

/* ---- building ---- */

static yaml_value *new_value(yaml_doc *doc, yaml_type type)
{
    yaml_value *v = yaml_alloc(doc, sizeof(*v));

    v->type = type;
    return v;
}

yaml_value *yaml_null(yaml_doc *doc)
{
    return new_value(doc, YAML_NULL);
}

yaml_value *yaml_bool(yaml_doc *doc, bool b)
{
    yaml_value *v = new_value(doc, YAML_BOOL);

    v->boolean = b;
    return v;
}

yaml_value *yaml_int(yaml_doc *doc, int64_t n)
{
    yaml_value *v = new_value(doc, YAML_INT);

    v->integer = n;
    return v;
}

yaml_value *yaml_float(yaml_doc *doc, double d)
{
    yaml_value *v = new_value(doc, YAML_FLOAT);

    v->real = d;
    return v;
}

static yaml_value *new_text(yaml_doc *doc, yaml_type type, memfs_str s)
{
    yaml_value *v = new_value(doc, type);

    v->text = yaml_copy(doc, s);
    return v;
}

yaml_value *yaml_text(yaml_doc *doc, memfs_str s)
{
    return new_text(doc, YAML_TEXT, s);
}

yaml_value *yaml_bytes(yaml_doc *doc, memfs_str s)
{
    return new_text(doc, YAML_BYTES, s);
}

yaml_value *yaml_integer(yaml_doc *doc, memfs_str decimal)
{
    bool is_negative = decimal.len > 0 && decimal.ptr[0] == '-';
    memfs_str digits = decimal;
    uint64_t magnitude;

    if (digits.len > 0 && (digits.ptr[0] == '-' || digits.ptr[0] == '+'))
        digits = str_from(digits, 1);
    while (digits.len > 1 && digits.ptr[0] == '0')
        digits = str_from(digits, 1);
    if (str_to_u64(digits, (uint64_t)INT64_MAX + is_negative, &magnitude))
        return yaml_int(doc, is_negative ? (int64_t)-magnitude : (int64_t)magnitude);
    if (!is_negative)
        return new_text(doc, YAML_BIGINT, digits);
    return new_text(doc, YAML_BIGINT, decimal);
}

yaml_value *yaml_moment(yaml_doc *doc, yaml_type type, const yaml_time *time)
{
    yaml_value *v = new_value(doc, type);

    v->time = *time;
    return v;
}

yaml_value *yaml_list(yaml_doc *doc, yaml_type type)
{
    return new_value(doc, type);
}

void yaml_list_add(yaml_doc *doc, yaml_value *list, yaml_value *item)
{
    list->list.items =
        yaml_grow(doc, list->list.items, list->list.n, &list->list.cap, sizeof(yaml_value *));
    list->list.items[list->list.n++] = item;
}

yaml_value *yaml_map(yaml_doc *doc)
{
    return new_value(doc, YAML_MAP);
}

void yaml_map_add(yaml_doc *doc, yaml_value *map, yaml_value *key, yaml_value *value)
{
    map->map.pairs = yaml_grow(doc, map->map.pairs, map->map.n, &map->map.cap, sizeof(yaml_pair));
    map->map.pairs[map->map.n++] = (yaml_pair){ key, value };
}

/* ---- reading ---- */

static yaml_pair *find_pair(const yaml_value *map, const char *key)
{
    memfs_str wanted = str_of(key);

    for (size_t i = 0; i < map->map.n; i++) {
        const yaml_value *k = map->map.pairs[i].key;

        if (k->type == YAML_TEXT && str_equal(k->text, wanted))
            return &map->map.pairs[i];
    }
    return NULL;
}

const yaml_value *yaml_map_get(const yaml_value *map, const char *key)
{
    const yaml_pair *pair;

    if (map == NULL || map->type != YAML_MAP)
        return NULL;
    pair = find_pair(map, key);
    return pair != NULL ? pair->value : NULL;
}

void yaml_map_set(yaml_doc *doc, yaml_value *map, const char *key, yaml_value *value)
{
    yaml_pair *pair = find_pair(map, key);

    if (pair != NULL)
        pair->value = value;
    else
        yaml_map_add(doc, map, yaml_text(doc, str_of(key)), value);
}

void yaml_map_remove(yaml_value *map, const char *key)
{
    yaml_pair *pair = find_pair(map, key), *end = map->map.pairs + map->map.n;

    if (pair == NULL)
        return;
    memmove(pair, pair + 1, (size_t)(end - pair - 1) * sizeof(*pair));
    map->map.n--;
}

bool yaml_is_container(const yaml_value *v)
{
    return v->type >= YAML_SEQ;
}

const char *yaml_type_name(yaml_type type)
{
    static const char *const names[] = {
        [YAML_NULL] = "null",      [YAML_BOOL] = "boolean", [YAML_INT] = "integer",
        [YAML_BIGINT] = "integer", [YAML_FLOAT] = "float",  [YAML_TEXT] = "text",
        [YAML_BYTES] = "bytes",    [YAML_DATE] = "date",    [YAML_DATETIME] = "timestamp",
        [YAML_SEQ] = "list",       [YAML_TUPLE] = "pair",   [YAML_SET] = "set",
        [YAML_MAP] = "mapping",
    };

    return names[type];
}

/* ---- equality of scalars ---- */

static bool is_number(const yaml_value *v)
{
    return v->type == YAML_BOOL || v->type == YAML_INT || v->type == YAML_BIGINT ||
           v->type == YAML_FLOAT;
}

static int64_t int_of(const yaml_value *v)
{
    return v->type == YAML_BOOL ? v->boolean : v->integer;
}

/* Is d a whole number in the range of int64_t? */
static bool is_int64(double d)
{
    return d >= -0x1p63 && d < 0x1p63 && d == floor(d);
}

/* Compared exactly: a double of that size is a whole number and has exact decimal digits. */
static bool bigint_equals_real(memfs_str digits, double d)
{
    char text[330];
    int n;

    if (!isfinite(d))
        return false;
    n = snprintf(text, sizeof(text), "%.0f", d);
    return n > 0 && str_equal(digits, str_make(text, (size_t)n));
}

static bool numbers_equal(const yaml_value *a, const yaml_value *b)
{
    if (a->type == YAML_FLOAT && b->type == YAML_FLOAT)
        return a->real == b->real;
    if (a->type == YAML_FLOAT)
        return numbers_equal(b, a);
    if (b->type == YAML_FLOAT && a->type == YAML_BIGINT)
        return bigint_equals_real(a->text, b->real);
    if (b->type == YAML_FLOAT)
        return is_int64(b->real) && (int64_t)b->real == int_of(a);
    if (a->type == YAML_BIGINT || b->type == YAML_BIGINT)
        return a->type == b->type && str_equal(a->text, b->text);
    return int_of(a) == int_of(b);
}

/* Microseconds since 0000-03-01, in UTC where the offset is known (days by Hinnant's formula). */
static int64_t instant(const yaml_time *t)
{
    int64_t y = t->year - (t->month <= 2);
    int64_t era_year = y % 400;
    int64_t month = (t->month + 9) % 12;
    int64_t days = y / 400 * 146097 + era_year * 365 + era_year / 4 - era_year / 100 +
                   (153 * month + 2) / 5 + t->day - 1;
    int64_t minutes = (days * 24 + t->hour) * 60 + t->minute - t->offset_min;

    return (minutes * 60 + t->second) * 1000000 + t->microsecond;
}

static bool times_equal(const yaml_value *a, const yaml_value *b)
{
    return a->time.has_offset == b->time.has_offset && instant(&a->time) == instant(&b->time);
}

bool yaml_scalar_equal(const yaml_value *a, const yaml_value *b)
{
    if (a == b)
        return true;
    if (is_number(a) && is_number(b))
        return numbers_equal(a, b);
    if (a->type != b->type || yaml_is_container(a))
        return false;
    switch (a->type) {
    case YAML_NULL: return true;
    case YAML_TEXT:
    case YAML_BYTES: return str_equal(a->text, b->text);
    default: return times_equal(a, b);
    }
}

uint64_t yaml_hash_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

uint64_t yaml_hash_bytes(memfs_str s)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < s.len; i++)
        h = (h ^ (unsigned char)s.ptr[i]) * 0x100000001b3ULL;
    return yaml_hash_mix(h);
}

static uint64_t hash_real(double d)
{
    uint64_t bits;

    if (is_int64(d))
        return yaml_hash_mix((uint64_t)(int64_t)d);
    memcpy(&bits, &d, sizeof(bits));
    return yaml_hash_mix(bits);
}

/* Values that are equal have the same hash: numbers go by their value, whatever their type. */
uint64_t yaml_hash_scalar(const yaml_value *v)
{
    switch (v->type) {
    case YAML_BOOL:
    case YAML_INT: return yaml_hash_mix((uint64_t)int_of(v));
    case YAML_FLOAT: return hash_real(v->real);
    case YAML_BIGINT: return hash_real(strtod(v->text.ptr, NULL));
    case YAML_TEXT: return yaml_hash_bytes(v->text);
    case YAML_BYTES: return yaml_hash_bytes(v->text) + 1;
    case YAML_DATE:
    case YAML_DATETIME: return yaml_hash_mix((uint64_t)instant(&v->time) + v->type);
    default: return 7;
    }
}

/* ---- equality of anything ---- */

typedef struct comparison {
    size_t budget;
    bool is_too_deep;
} comparison;

static bool values_equal(comparison *c, const yaml_value *a, const yaml_value *b, int depth);

static bool lists_equal(comparison *c, const yaml_value *a, const yaml_value *b, int depth)
{
    if (a->list.n != b->list.n)
        return false;
    for (size_t i = 0; i < a->list.n; i++)
        if (!values_equal(c, a->list.items[i], b->list.items[i], depth))
            return false;
    return true;
}

typedef struct key_search {
    const yaml_value *map; /* or a set */
    const yaml_value *key;
} key_search;

static bool is_pair_of(const void *ctx, uint32_t number)
{
    const key_search *search = ctx;

    return yaml_scalar_equal(search->map->map.pairs[number].key, search->key);
}

static bool is_member(const void *ctx, uint32_t number)
{
    const key_search *search = ctx;

    return yaml_scalar_equal(search->map->list.items[number], search->key);
}

static bool maps_equal(comparison *c, const yaml_value *a, const yaml_value *b, int depth)
{
    _cleanup_(yaml_index_dispose) yaml_index keys = { .n = 0 };

    if (a->map.n != b->map.n)
        return false;
    for (size_t i = 0; i < b->map.n; i++)
        yaml_index_add(&keys, yaml_hash_scalar(b->map.pairs[i].key));
    for (size_t i = 0; i < a->map.n; i++) {
        key_search search = { b, a->map.pairs[i].key };
        uint32_t at = yaml_index_find(&keys, yaml_hash_scalar(search.key), is_pair_of, &search);

        if (at == UINT32_MAX ||
            !values_equal(c, a->map.pairs[i].value, b->map.pairs[at].value, depth))
            return false;
    }
    return true;
}

static bool sets_equal(const yaml_value *a, const yaml_value *b)
{
    _cleanup_(yaml_index_dispose) yaml_index members = { .n = 0 };

    if (a->list.n != b->list.n)
        return false;
    for (size_t i = 0; i < b->list.n; i++)
        yaml_index_add(&members, yaml_hash_scalar(b->list.items[i]));
    for (size_t i = 0; i < a->list.n; i++) {
        key_search search = { b, a->list.items[i] };

        if (yaml_index_find(&members, yaml_hash_scalar(search.key), is_member, &search) ==
            UINT32_MAX)
            return false;
    }
    return true;
}

static bool values_equal(comparison *c, const yaml_value *a, const yaml_value *b, int depth)
{
    if (a == b)
        return true; /* as Python's containers: the same object is equal, a NaN too */
    if (a->type != b->type || !yaml_is_container(a))
        return yaml_scalar_equal(a, b);
    if (depth >= YAML_MAX_WALK_DEPTH)
        c->is_too_deep = true;
    if (c->is_too_deep || c->budget == 0)
        return false;
    c->budget--;
    switch (a->type) {
    case YAML_MAP: return maps_equal(c, a, b, depth + 1);
    case YAML_SET: return sets_equal(a, b);
    default: return lists_equal(c, a, b, depth + 1);
    }
}

memfs_code yaml_equal(const yaml_value *a, const yaml_value *b, bool *ret, memfs_error *err)
{
    comparison c = { .budget = EQUAL_BUDGET };
    bool is_equal = values_equal(&c, a, b, 0);

    if (c.is_too_deep)
        return memfs_fail(err, MEMFS_EINVALID, "values nest too deep to compare");
    *ret = is_equal;
    return MEMFS_OK;
}

/* ---- index ---- */

void yaml_index_dispose(yaml_index *ix)
{
    free(ix->hashes);
    free(ix->slots);
    *ix = (yaml_index){ .n = 0 };
}

static void place(yaml_index *ix, uint32_t number)
{
    size_t at = ix->hashes[number] & (ix->n_slots - 1);

    while (ix->slots[at] != 0)
        at = (at + 1) & (ix->n_slots - 1);
    ix->slots[at] = number + 1;
}

void yaml_index_add(yaml_index *ix, uint64_t hash)
{
    if (ix->n == ix->cap) {
        ix->cap = ix->cap ? ix->cap * 2 : 8;
        ix->hashes = mem_realloc(ix->hashes, ix->cap, sizeof(*ix->hashes));
    }
    ix->hashes[ix->n] = hash;
    if (ix->n_slots < 2 * (ix->n + 1)) {
        ix->n_slots = ix->n_slots ? ix->n_slots * 2 : 16;
        free(ix->slots);
        ix->slots = mem_alloc(ix->n_slots * sizeof(*ix->slots));
        for (size_t i = 0; i < ix->n; i++)
            place(ix, (uint32_t)i);
    }
    place(ix, (uint32_t)ix->n);
    ix->n++;
}

uint32_t yaml_index_find(const yaml_index *ix, uint64_t hash, yaml_index_eq eq, const void *ctx)
{
    size_t at;

    if (ix->n == 0)
        return UINT32_MAX;
    for (at = hash & (ix->n_slots - 1); ix->slots[at] != 0; at = (at + 1) & (ix->n_slots - 1)) {
        uint32_t number = ix->slots[at] - 1;

        if (ix->hashes[number] == hash && eq(ctx, number))
            return number;
    }
    return UINT32_MAX;
}

/* ---- odds and ends ---- */

bool yaml_fault_set(yaml_fault *f, memfs_code code, bool aborts, size_t line, const char *what)
{
    if (f->code == MEMFS_OK) {
        f->code = code;
        f->aborts = aborts;
        f->line = line;
        snprintf(f->what, sizeof(f->what), "%s", what);
    }
    return false;
}

uint32_t yaml_next_cp(memfs_str s, size_t *pos)
{
    const unsigned char *at = (const unsigned char *)s.ptr + *pos;
    uint32_t cp;

    if (s.len - *pos >= 3 && at[0] == 0xED && (at[1] & 0xE0) == 0xA0 && (at[2] & 0xC0) == 0x80) {
        *pos += 3; /* a surrogate, which str_utf8_next() refuses */
        return 0xD000u | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
    }
    return str_utf8_next(s, pos, &cp) ? cp : 0xFFFD;
}
