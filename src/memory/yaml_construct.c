/*
 * From nodes to values, in the order of PyYAML's constructor.
 *
 * The order matters where a text is wrong in two ways: the first fault decides between "not YAML"
 * and "the reference stops".  So, as there: a scalar is made where it is met, a collection is made
 * empty and queued, and the queue is worked off first in, first out.  That also settles cycles,
 * since a collection exists before its members are looked at, and needs no recursion.
 *
 * Merge keys are flattened in the nodes, when the mapping that holds them has its turn: what is
 * merged in comes first.  Merging can double with each level, so there is a budget for it (T27).
 */
#include "memory/yaml_int.h"

#include "memory/base64.h"

#include <math.h>
#include <stdlib.h>

#define MERGE_BUDGET 200000

typedef struct job {
    yaml_node *node;
    yaml_value *value;
} job;

typedef struct builder {
    yaml_doc *doc;
    yaml_fault *fault;
    job *jobs; /* a queue: next .. n */
    size_t next, n, cap;
    size_t merge_budget;
    yaml_value *nan; /* every ".nan" is one object in the reference, hence one key */
} builder;

static bool fail(builder *b, const yaml_node *node, const char *what)
{
    return yaml_fault_set(b->fault, MEMFS_EINVALID, false, node->line, what);
}

/* What Python raises here is not a YAMLError, and the reference does not catch it. */
static bool abort_here(builder *b, const yaml_node *node, const char *what)
{
    return yaml_fault_set(b->fault, MEMFS_EINVALID, true, node->line, what);
}

/* ---- scalars ---- */

/* The text of a scalar, or of the "=" member of a mapping that stands for one. */
static bool scalar_text(builder *b, const yaml_node *node, memfs_str *ret)
{
    for (int depth = 0; node->kind == NODE_MAP; depth++) {
        const yaml_node *found = NULL;

        for (size_t i = 0; i < node->n && found == NULL; i++)
            if (node->pairs[i].key->tag == TAG_VALUE)
                found = node->pairs[i].value;
        if (found == NULL)
            break;
        if (depth > YAML_MAX_DEPTH)
            return abort_here(b, node, "a '=' that leads back to itself");
        node = found;
    }
    if (node->kind != NODE_SCALAR)
        return fail(b, node, "expected a scalar");
    *ret = node->text;
    return true;
}

static bool make_bool(builder *b, const yaml_node *node, memfs_str text, yaml_value **ret)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = { { "yes", true },    { "no", false }, { "true", true },
                  { "false", false }, { "on", true },  { "off", false } };

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (text.len == strlen(words[i].word) &&
            strncasecmp(text.ptr, words[i].word, text.len) == 0) {
            *ret = yaml_bool(b->doc, words[i].value);
            return true;
        }
    }
    return abort_here(b, node, "a !!bool that is none");
}

static bool make_float(builder *b, const yaml_node *node, memfs_str text, yaml_value **ret)
{
    bool is_form =
        memchr(text.ptr, '.', text.len) != NULL && memchr(text.ptr, ':', text.len) == NULL;
    double d;

    if (!yaml_read_float(text, &d))
        return abort_here(b, node, "a float that is none");
    if (!isnan(d) || !is_form) {
        *ret = yaml_float(b->doc, d);
        return true;
    }
    if (b->nan == NULL)
        b->nan = yaml_float(b->doc, d);
    *ret = b->nan;
    return true;
}

static bool make_time(builder *b, const yaml_node *node, yaml_value **ret)
{
    /* The reference looks at the node itself here, not at what "=" in it says. */
    if (node->kind != NODE_SCALAR || !yaml_read_time(node->text, b->doc, ret))
        return abort_here(b, node, "a date that does not exist");
    return true;
}

static bool make_bytes(builder *b, const yaml_node *node, memfs_str text, yaml_value **ret)
{
    _cleanup_(buf_dispose) memfs_buf bytes = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (!base64_read(text, &bytes))
        return fail(b, node, "a !!binary that is not base64");
    *ret = yaml_bytes(b->doc, buf_str(&bytes));
    return true;
}

static bool make_scalar(builder *b, const yaml_node *node, yaml_value **ret)
{
    memfs_str text;

    if (!scalar_text(b, node, &text))
        return false;
    switch (node->tag) {
    case TAG_NULL: *ret = yaml_null(b->doc); return true;
    case TAG_BOOL: return make_bool(b, node, text, ret);
    case TAG_INT:
        return yaml_read_int(text, b->doc, ret) || abort_here(b, node, "an integer that is none");
    case TAG_FLOAT: return make_float(b, node, text, ret);
    case TAG_BINARY: return make_bytes(b, node, text, ret);
    case TAG_TIMESTAMP: return make_time(b, node, ret);
    default: *ret = yaml_text(b->doc, text); return true;
    }
}

/* ---- any node ---- */

static bool make_container(builder *b, yaml_node *node, yaml_type type, yaml_value **ret)
{
    *ret = type == YAML_MAP ? yaml_map(b->doc) : yaml_list(b->doc, type);
    b->jobs = yaml_grow(b->doc, b->jobs, b->n, &b->cap, sizeof(*b->jobs));
    b->jobs[b->n++] = (job){ node, *ret };
    return true;
}

static bool make(builder *b, yaml_node *node, yaml_value **ret)
{
    bool is_good;

    if (node->value != NULL) {
        *ret = node->value;
        return true;
    }
    switch (node->tag) {
    case TAG_MAP: is_good = make_container(b, node, YAML_MAP, ret); break;
    case TAG_SET: is_good = make_container(b, node, YAML_SET, ret); break;
    case TAG_SEQ:
    case TAG_OMAP:
    case TAG_PAIRS: is_good = make_container(b, node, YAML_SEQ, ret); break;
    case TAG_MERGE: return fail(b, node, "'<<' as a value (quote it?)");
    case TAG_VALUE: return fail(b, node, "'=' as a value (quote it?)");
    case TAG_UNKNOWN: return fail(b, node, "an unknown tag");
    default: is_good = make_scalar(b, node, ret); break;
    }
    if (is_good)
        node->value = *ret;
    return is_good;
}

/* ---- merge keys ---- */

static bool add_pairs(builder *b, yaml_node *into, const yaml_node *from)
{
    if (from->n >= b->merge_budget)
        return yaml_fault_set(b->fault, MEMFS_ELIMIT, true, from->line,
                              "merge keys expand too far");
    b->merge_budget -= from->n + 1; /* merging nothing is work too */
    for (size_t i = 0; i < from->n; i++) {
        into->pairs = yaml_grow(b->doc, into->pairs, into->n, &into->cap, sizeof(*into->pairs));
        into->pairs[into->n++] = from->pairs[i];
    }
    return true;
}

static bool flatten(builder *b, yaml_node *node, int depth);

/*
 * A list of mappings is merged from its last to its first, after all have been flattened.  What
 * each then holds is noted first: flattening a later one can change an earlier one.
 */
static bool merge_list(builder *b, yaml_node *into, const yaml_node *list, int depth)
{
    yaml_node *snapshots = yaml_alloc(b->doc, (list->n + 1) * sizeof(*snapshots));

    for (size_t i = 0; i < list->n; i++) {
        yaml_node *item = list->items[i];

        if (item->kind != NODE_MAP)
            return fail(b, list, "expected mappings to merge");
        if (!flatten(b, item, depth + 1))
            return false;
        snapshots[i] = *item;
    }
    for (size_t i = list->n; i-- > 0;)
        if (!add_pairs(b, into, &snapshots[i]))
            return false;
    return true;
}

static bool merge_one(builder *b, yaml_node *into, yaml_node *value, int depth)
{
    if (value->kind == NODE_SEQ)
        return merge_list(b, into, value, depth);
    if (value->kind != NODE_MAP)
        return fail(b, value, "expected a mapping or a list of them to merge");
    return flatten(b, value, depth + 1) && add_pairs(b, into, value);
}

static void remove_pair(yaml_node *node, size_t at)
{
    node->n--;
    memmove(node->pairs + at, node->pairs + at + 1, (node->n - at) * sizeof(*node->pairs));
}

/* Every "<<" of a mapping gives way to what it names, before the mapping's own pairs. */
static bool flatten(builder *b, yaml_node *node, int depth)
{
    yaml_node merged = { .kind = NODE_MAP, .line = node->line };

    if (depth > YAML_MAX_DEPTH)
        return yaml_fault_set(b->fault, MEMFS_ELIMIT, true, node->line, "merge keys nest too deep");
    for (size_t i = 0; i < node->n;) {
        yaml_node_pair pair = node->pairs[i];

        if (pair.key->tag == TAG_MERGE) {
            remove_pair(node, i);
            if (!merge_one(b, &merged, pair.value, depth))
                return false;
            continue;
        }
        if (pair.key->tag == TAG_VALUE)
            pair.key->tag = TAG_STR;
        i++;
    }
    if (merged.n == 0)
        return true;
    if (!add_pairs(b, &merged, node))
        return false;
    node->pairs = merged.pairs;
    node->n = merged.n;
    node->cap = merged.cap;
    return true;
}

/* ---- containers ---- */

typedef struct key_search {
    const yaml_value *into;
    const yaml_value *key;
} key_search;

static bool is_same_key(const void *ctx, uint32_t number)
{
    const key_search *search = ctx;
    const yaml_value *into = search->into;

    return yaml_scalar_equal(into->type == YAML_MAP ? into->map.pairs[number].key
                                                    : into->list.items[number],
                             search->key);
}

/* A key that is there already keeps its place and spelling, and takes the new value. */
static void put_pair(builder *b, yaml_index *keys, yaml_value *into, yaml_value *key,
                     yaml_value *value)
{
    uint64_t hash = yaml_hash_scalar(key);
    key_search search = { into, key };
    uint32_t at = yaml_index_find(keys, hash, is_same_key, &search);

    if (at == UINT32_MAX) {
        yaml_index_add(keys, hash);
        if (into->type == YAML_MAP)
            yaml_map_add(b->doc, into, key, value);
        else
            yaml_list_add(b->doc, into, key);
    } else if (into->type == YAML_MAP) {
        into->map.pairs[at].value = value;
    }
}

static bool fill_map(builder *b, yaml_node *node, yaml_value *into)
{
    _cleanup_(yaml_index_dispose) yaml_index keys = { .n = 0 };

    if (node->kind != NODE_MAP)
        return fail(b, node, "expected a mapping");
    if (!flatten(b, node, 0))
        return false;
    for (size_t i = 0; i < node->n; i++) {
        yaml_value *key, *value;

        if (!make(b, node->pairs[i].key, &key))
            return false;
        if (yaml_is_container(key))
            return fail(b, node->pairs[i].key, "a list or mapping as a key");
        if (!make(b, node->pairs[i].value, &value))
            return false;
        put_pair(b, &keys, into, key, value);
    }
    return true;
}

static bool fill_seq(builder *b, yaml_node *node, yaml_value *into)
{
    if (node->kind != NODE_SEQ)
        return fail(b, node, "expected a list");
    for (size_t i = 0; i < node->n; i++) {
        yaml_value *item;

        if (!make(b, node->items[i], &item))
            return false;
        yaml_list_add(b->doc, into, item);
    }
    return true;
}

/* !!omap and !!pairs: a list of mappings of one pair each becomes a list of tuples. */
static bool fill_pairs(builder *b, yaml_node *node, yaml_value *into)
{
    if (node->kind != NODE_SEQ)
        return fail(b, node, "expected a list of pairs");
    for (size_t i = 0; i < node->n; i++) {
        const yaml_node *item = node->items[i];
        yaml_value *key, *value, *tuple;

        if (item->kind != NODE_MAP || item->n != 1)
            return fail(b, item, "expected a mapping of one pair");
        if (!make(b, item->pairs[0].key, &key) || !make(b, item->pairs[0].value, &value))
            return false;
        tuple = yaml_list(b->doc, YAML_TUPLE);
        yaml_list_add(b->doc, tuple, key);
        yaml_list_add(b->doc, tuple, value);
        yaml_list_add(b->doc, into, tuple);
    }
    return true;
}

static bool fill(builder *b, const job *todo)
{
    switch (todo->node->tag) {
    case TAG_SEQ: return fill_seq(b, todo->node, todo->value);
    case TAG_OMAP:
    case TAG_PAIRS: return fill_pairs(b, todo->node, todo->value);
    default: return fill_map(b, todo->node, todo->value);
    }
}

bool yaml_construct(yaml_node *root, yaml_doc *doc, yaml_fault *fault, yaml_value **ret)
{
    builder b = { .doc = doc, .fault = fault, .merge_budget = MERGE_BUDGET };
    yaml_value *value;

    if (!make(&b, root, &value))
        return false;
    while (b.next < b.n) {
        job todo = b.jobs[b.next++];

        if (!fill(&b, &todo))
            return false;
    }
    *ret = value;
    return true;
}
