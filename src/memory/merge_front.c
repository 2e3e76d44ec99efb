/*
 * Front matter into one, key by key, keeping the bytes of each key's lines.
 *
 *     ---⏎                 entry "<"
 *     # a comment⏎         with the key below it
 *     description: x⏎      entry "description"
 *     tags:⏎
 *     - a⏎                 entry "tags": lines that cannot begin a key belong to the one above
 *     ---⏎                 entry ">"
 *
 * Whether that cut is right is not guessed but checked: each entry, read alone, must be a mapping
 * with the one key, and all of them together must say what the whole says.  Front matter that fails
 * this (anchors, a flow mapping, text that runs on at the margin) is merged as one piece.  So is
 * what would not come out readable.
 *
 * As in merge_text.c, of two values the one stays whose own bytes have the lower git blob id: the
 * choice must not depend on the rest of the file, or a result merged again would choose otherwise.
 *
 * A key that is there twice in a row is one entry of all its lines, so the entries of a side, one
 * after the other, are always its text.
 */
#include "memory/merge_int.h"

#include "base/escape.h"
#include "base/mem.h"
#include "memory/block.h"

#include <stdlib.h>

#define MAX_ENTRIES 256
#define FENCE MEMFS_STR("---")

/* ---- lines as YAML sees them: they end in "\n", "\r\n" or "\r" ---- */

/* Takes a line with its end off the text; *ret_line is without it.  False: no line end is left. */
static bool next_line(memfs_str *text, memfs_str *ret_line)
{
    size_t n = 0;

    while (n < text->len && text->ptr[n] != '\n' && text->ptr[n] != '\r')
        n++;
    if (n == text->len)
        return false;
    *ret_line = str_make(text->ptr, n);
    if (text->ptr[n] == '\r' && n + 1 < text->len && text->ptr[n + 1] == '\n')
        n++;
    *text = str_from(*text, n + 1);
    return true;
}

static bool is_mapping(memfs_str text)
{
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(MERGE_MAX_TEXT_BYTES);
    _cleanup_(block_dispose) block b = BLOCK_INIT;
    size_t ignored;

    block_decode(text, &decoded, &ignored);
    block_parse(buf_str(&decoded), &b);
    return b.doc != NULL;
}

/* Where the line behind the closing "---" begins; 0: nothing is opened and closed. */
static size_t find_end(memfs_str text)
{
    memfs_str rest = text, line;
    bool is_first = true;

    if (!next_line(&rest, &line) || !str_equal(line, FENCE))
        return 0;
    while (next_line(&rest, &line)) {
        /* The reference looks for a line end before the closing line: the first line closes
         * nothing. */
        if (!is_first && str_equal(line, FENCE))
            return text.len - rest.len;
        is_first = false;
    }
    return 0;
}

void merge_split(memfs_str text, memfs_str *ret_front, memfs_str *ret_body)
{
    size_t end = find_end(text);

    if (end > 0 && !is_mapping(str_make(text.ptr, end)))
        end = 0;
    *ret_front = str_make(text.ptr, end);
    *ret_body = str_from(text, end);
}

/* ---- entries ---- */

typedef struct entry {
    char *key; /* "<", ">" and "" (what is above the first key) are no keys of YAML's */
    bool is_key;
    memfs_buf text;
} entry;

typedef struct front {
    memfs_str text;
    bool is_cut; /* into entries, and they say the same */
    entry *entries;
    size_t n;
} front;

static void front_dispose(front *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->entries[i].key);
        buf_dispose(&f->entries[i].text);
    }
    free(f->entries);
    *f = (front){ .entries = NULL };
}

static entry *find(const front *f, const char *key, bool is_key)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->entries[i].is_key == is_key && strcmp(f->entries[i].key, key) == 0)
            return &f->entries[i];
    return NULL;
}

/* Adds text to the last entry if that has the key, else a new one; false: it cannot be cut so. */
static bool add_entry(front *f, const char *key, bool is_key, memfs_str text)
{
    entry *e = find(f, key, is_key);

    if (e != NULL && e != &f->entries[f->n - 1])
        return false;
    if (e == NULL) {
        if (f->n == MAX_ENTRIES)
            return false;
        if (f->entries == NULL)
            f->entries = mem_realloc(NULL, MAX_ENTRIES, sizeof(*f->entries));
        e = &f->entries[f->n++];
        *e = (entry){ mem_strdup(key), is_key, MEMFS_BUF_INIT(MERGE_MAX_TEXT_BYTES) };
    }
    buf_add_str(&e->text, text);
    return true;
}

static memfs_code load(memfs_str text, yaml_doc *doc, yaml_value **ret)
{
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(MERGE_MAX_TEXT_BYTES);
    memfs_error err = MEMFS_ERROR_INIT;
    size_t ignored;

    block_decode(text, &decoded, &ignored);
    return yaml_load(buf_str(&decoded), doc, ret, NULL, &err);
}

/* Is text, read alone, a mapping of one text key?  The pair lives in doc. */
static bool load_pair(memfs_str text, yaml_doc *doc, const yaml_pair **ret)
{
    yaml_value *map;

    if (load(text, doc, &map) != MEMFS_OK || map->type != YAML_MAP || map->map.n != 1)
        return false;
    *ret = &map->map.pairs[0];
    return (*ret)->key->type == YAML_TEXT &&
           memchr((*ret)->key->text.ptr, '\0', (*ret)->key->text.len) == NULL;
}

/* Can a key begin here? */
static bool begins_key(memfs_str line)
{
    if (line.len == 0 || strchr(" \t#%}]", line.ptr[0]) != NULL || str_equal(line, FENCE))
        return false;
    return line.ptr[0] != '-' || (line.len > 1 && line.ptr[1] != ' ' && line.ptr[1] != '\t');
}

static bool add_key_lines(front *f, memfs_str text)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    _cleanup_(mem_freep) char *key = NULL;
    const yaml_pair *pair;

    if (!load_pair(text, doc, &pair))
        return false;
    key = mem_strndup(pair->key->text.ptr, pair->key->text.len);
    return add_entry(f, key, true, text);
}

/* What stands between the two "---" lines: [from, ...) is the entry being gathered. */
static bool cut_lines(front *f, memfs_str inner)
{
    memfs_str rest = inner, line;
    const char *from = inner.ptr, *comments = NULL;
    bool has_key = false;

    for (;;) {
        const char *at = rest.ptr;
        bool has_line = next_line(&rest, &line), is_key = has_line && begins_key(line);
        const char *to = comments != NULL && is_key ? comments : at;

        if (has_line && line.len > 0 && line.ptr[0] == '#') {
            comments = comments != NULL ? comments : at;
            continue;
        }
        comments = NULL;
        if (has_line && !is_key)
            continue;
        if (has_key && !add_key_lines(f, str_make(from, (size_t)(to - from))))
            return false;
        if (!has_key && to > from && !add_entry(f, "", false, str_make(from, (size_t)(to - from))))
            return false;
        if (!has_line)
            return true;
        has_key = true;
        from = to;
    }
}

/* Do the entries say together what the whole says? */
static bool says_the_same(const front *f, memfs_str inner)
{
    _cleanup_(yaml_doc_freep) yaml_doc *doc = yaml_doc_new();
    memfs_error err = MEMFS_ERROR_INIT;
    size_t n_keys = 0;
    yaml_value *map;

    if (load(inner, doc, &map) != MEMFS_OK || map->type != YAML_MAP)
        return false;
    for (size_t i = 0; i < f->n; i++) {
        const yaml_value *value = yaml_map_get(map, f->entries[i].key);
        const yaml_pair *pair;
        bool is_equal = false;

        if (!f->entries[i].is_key)
            continue;
        n_keys++;
        if (value == NULL || !load_pair(buf_str(&f->entries[i].text), doc, &pair) ||
            yaml_equal(value, pair->value, &is_equal, &err) != MEMFS_OK || !is_equal)
            return false;
    }
    return n_keys == map->map.n;
}

static bool cut_front(front *f)
{
    size_t end = str_ends_with(f->text, MEMFS_STR("\r\n")) ? 2 : 1;
    size_t closing = f->text.len - end - FENCE.len, opening;
    memfs_str rest = f->text, line, inner;

    next_line(&rest, &line);
    opening = f->text.len - rest.len;
    inner = str_make(rest.ptr, closing - opening);
    return add_entry(f, "<", false, str_make(f->text.ptr, opening)) && cut_lines(f, inner) &&
           add_entry(f, ">", false, str_from(f->text, closing)) && says_the_same(f, inner);
}

static front front_of(memfs_str text)
{
    front f = { .text = text };

    f.is_cut = text.len > 0 && cut_front(&f);
    return f;
}

/* ---- choosing ---- */

typedef struct merger {
    front base, a, b;
    merge_note_fn note;
    void *ctx;
    bool by_rule;
} merger;

/* Is it "<key>: ..." already? */
static bool begins_with_key(memfs_str text, memfs_str key)
{
    return str_starts_with(text, key) && str_starts_with(str_from(text, key.len), MEMFS_STR(":"));
}

static void say(merger *m, const char *key, memfs_str lost)
{
    _cleanup_(buf_dispose) memfs_buf detail = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    m->by_rule = true;
    if (m->note == NULL)
        return;
    while (lost.len > 0 && (lost.ptr[lost.len - 1] == '\n' || lost.ptr[lost.len - 1] == '\r'))
        lost.len--;
    if (!begins_with_key(lost, str_of(key))) {
        escape_add(&detail, str_of(key));
        buf_puts(&detail, ": ");
    }
    escape_add(&detail, lost);
    m->note(MERGE_RULE_KEY, buf_str(&detail), m->ctx);
}

static memfs_str text_of(const entry *e)
{
    return e != NULL ? buf_str(&e->text) : (memfs_str){ NULL, 0 };
}

static bool is_same(const entry *x, const entry *y)
{
    return (x == NULL) == (y == NULL) && str_equal(text_of(x), text_of(y));
}

/* Stands for a side that removed what the other changed. */
static char removed_text[] = "(removed)";
static const entry removed = { .key = removed_text,
                               .text = { removed_text, sizeof(removed_text) - 1, 0, 0, false } };

/* The entry that stays, NULL when none does; *ret_lost the one that both changed and loses. */
static const entry *choose(const merger *m, const entry *any, const entry **ret_lost)
{
    const entry *base = m->base.is_cut ? find(&m->base, any->key, any->is_key) : NULL;
    const entry *a = find(&m->a, any->key, any->is_key), *b = find(&m->b, any->key, any->is_key);

    *ret_lost = NULL;
    if (is_same(a, b) || is_same(b, base))
        return a;
    if (is_same(a, base))
        return b;
    *ret_lost = a == NULL || b == NULL ? &removed : b;
    if (b == NULL || (a != NULL && merge_order(text_of(a), text_of(b)) <= 0))
        return a;
    *ret_lost = a == NULL ? &removed : a;
    return b;
}

/* ---- in which order ---- */

typedef struct chosen {
    const entry *from[2 * MAX_ENTRIES];
    const entry *lost[2 * MAX_ENTRIES];
    size_t n;
} chosen;

static ptrdiff_t place_of(const chosen *c, const entry *e)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->from[i]->is_key == e->is_key && strcmp(c->from[i]->key, e->key) == 0)
            return (ptrdiff_t)i;
    return -1;
}

static void insert(chosen *c, size_t at, const entry *from, const entry *lost)
{
    memmove(&c->from[at + 1], &c->from[at], (c->n - at) * sizeof(c->from[0]));
    memmove(&c->lost[at + 1], &c->lost[at], (c->n - at) * sizeof(c->lost[0]));
    c->from[at] = from;
    c->lost[at] = lost;
    c->n++;
}

/* Adds what stays of a side's entries, each behind the one that it follows there. */
static void add_side(const merger *m, const front *side, chosen *c)
{
    ptrdiff_t before = -1;

    for (size_t i = 0; i < side->n; i++) {
        const entry *lost, *stays = choose(m, &side->entries[i], &lost);
        ptrdiff_t place = stays != NULL ? place_of(c, stays) : -1;

        if (stays != NULL && place < 0) {
            place = before + 1;
            insert(c, (size_t)place, stays, lost);
        }
        if (place >= 0)
            before = place;
    }
}

/* How many of a side's entries stay. */
static size_t count_staying(const merger *m, const front *side)
{
    const entry *lost;
    size_t n = 0;

    for (size_t i = 0; i < side->n; i++)
        n += choose(m, &side->entries[i], &lost) != NULL;
    return n;
}

/*
 * The side that has more of what stays gives the order; with as many, the one whose names come
 * first.  So a result, which has all of it, keeps its order when it is merged again, but for sides
 * that have all of it too: there the names decide as they did before.
 */
static const front *leading(const merger *m)
{
    _cleanup_(buf_dispose) memfs_buf a = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf b = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    size_t n_a = count_staying(m, &m->a), n_b = count_staying(m, &m->b);
    const entry *lost;

    if (n_a != n_b)
        return n_a > n_b ? &m->a : &m->b;
    for (size_t i = 0; i < m->a.n; i++)
        if (choose(m, &m->a.entries[i], &lost) != NULL)
            buf_printf(&a, "%s\n", m->a.entries[i].key);
    for (size_t i = 0; i < m->b.n; i++)
        if (choose(m, &m->b.entries[i], &lost) != NULL)
            buf_printf(&b, "%s\n", m->b.entries[i].key);
    return str_compare(buf_str(&a), buf_str(&b)) <= 0 ? &m->a : &m->b;
}

static bool is_as_chosen(const chosen *c, memfs_str text)
{
    _cleanup_(front_dispose) front f = front_of(text);

    if (find_end(text) != text.len || !is_mapping(text) || !f.is_cut || f.n != c->n)
        return false;
    for (size_t i = 0; i < f.n; i++)
        if (strcmp(f.entries[i].key, c->from[i]->key) != 0 || !is_same(&f.entries[i], c->from[i]))
            return false;
    return true;
}

static bool merge_keys(merger *m, memfs_buf *out)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(2 * MERGE_MAX_TEXT_BYTES);
    _cleanup_(mem_freep) chosen *c = mem_alloc(sizeof(*c));
    const front *lead = leading(m);

    add_side(m, lead, c);
    add_side(m, lead == &m->a ? &m->b : &m->a, c);
    for (size_t i = 0; i < c->n; i++)
        buf_add_str(&text, buf_str(&c->from[i]->text));
    if (!is_as_chosen(c, buf_str(&text)))
        return false;
    buf_add_str(out, buf_str(&text));
    for (size_t i = 0; i < c->n; i++)
        if (c->lost[i] != NULL && c->from[i]->is_key)
            say(m, c->from[i]->key, buf_str(&c->lost[i]->text));
        else if (c->lost[i] != NULL)
            say(m, "front matter", buf_str(&c->lost[i]->text));
    return true;
}

/* The first as a whole. */
static void merge_whole(merger *m, memfs_buf *out)
{
    bool is_a = merge_order(m->a.text, m->b.text) <= 0;

    buf_add_str(out, is_a ? m->a.text : m->b.text);
    say(m, "front matter", is_a ? m->b.text : m->a.text);
}

/* True when one side's front matter is the result as it is. */
static bool settle(merger *m, memfs_str base, memfs_str a, memfs_str b, memfs_buf *out)
{
    bool is_clean = str_equal(a, b) || str_equal(a, base) || str_equal(b, base);

    if (!is_clean && a.len > 0 && b.len > 0)
        return false;
    if (str_equal(a, b) || str_equal(b, base))
        buf_add_str(out, a);
    else if (str_equal(a, base) || a.len == 0)
        buf_add_str(out, b);
    else
        buf_add_str(out, a);
    if (!is_clean)
        say(m, "front matter", text_of(&removed));
    return true;
}

void merge_front(memfs_str base, memfs_str a, memfs_str b, memfs_buf *out, merge_note_fn note,
                 void *ctx, bool *ret_by_rule)
{
    merger m = { .note = note, .ctx = ctx };

    if (!settle(&m, base, a, b, out)) {
        m.base = front_of(base);
        m.a = front_of(a);
        m.b = front_of(b);
        if (!m.a.is_cut || !m.b.is_cut || !merge_keys(&m, out))
            merge_whole(&m, out);
    }
    *ret_by_rule = m.by_rule;
    front_dispose(&m.base);
    front_dispose(&m.a);
    front_dispose(&m.b);
}
