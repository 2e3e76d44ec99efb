#include "memory/merge.h"

#include "base/hash.h"
#include "base/mem.h"
#include "memory/merge_int.h"

#include <stdio.h>

#define MAX_NAME 255
#define SHORT_ID 7

const char *merge_rule_name(merge_rule rule)
{
    static const char *const names[] = {
        [MERGE_RULE_LINES] = "lines",
        [MERGE_RULE_KEY] = "key",
        [MERGE_RULE_ADDED_TWICE] = "added-twice",
        [MERGE_RULE_BINARY] = "binary",
        [MERGE_RULE_KEPT_CHANGED] = "kept-changed",
        [MERGE_RULE_FOLLOWED] = "followed",
        [MERGE_RULE_RENAMED_TWICE] = "renamed-twice",
        [MERGE_RULE_BESIDE] = "beside",
    };

    return names[rule];
}

bool merge_is_text(memfs_str bytes)
{
    return bytes.len == 0 || (memchr(bytes.ptr, '\0', bytes.len) == NULL &&
                              str_utf8_valid_prefix(bytes) == bytes.len);
}

int merge_order(memfs_str a, memfs_str b)
{
    memfs_oid a_id, b_id;
    int order;

    hash_git_blob(a, &a_id);
    hash_git_blob(b, &b_id);
    order = memcmp(a_id.id, b_id.id, sizeof(a_id.id));
    return (order > 0) - (order < 0);
}

/* ---- a name beside another ---- */

/* The longest start of s of at most max bytes that cuts no UTF-8 sequence. */
static memfs_str cut_name(memfs_str s, size_t max)
{
    if (s.len <= max)
        return s;
    s.len = max;
    while (s.len > 0 && ((unsigned char)s.ptr[s.len] & 0xC0) == 0x80)
        s.len--;
    return s;
}

char *merge_second_name(memfs_str path, const memfs_oid *blob)
{
    const char *slash = path.len > 0 ? memrchr(path.ptr, '/', path.len) : NULL;
    size_t folder = slash != NULL ? (size_t)(slash - path.ptr) + 1 : 0;
    memfs_str name = str_from(path, folder), ext = MEMFS_STR("");
    const char *dot = name.len > 1 ? memrchr(name.ptr + 1, '.', name.len - 1) : NULL;
    char hex[MEMFS_OID_HEX + 1];

    if (dot != NULL && name.len - (size_t)(dot - name.ptr) <= MAX_NAME / 2) {
        ext = str_from(name, (size_t)(dot - name.ptr));
        name.len -= ext.len;
    }
    name = cut_name(name, MAX_NAME - 1 - SHORT_ID - ext.len);
    oid_hex(blob, hex);
    return mem_printf("%.*s%.*s.%.*s%.*s", (int)folder, path.ptr, (int)name.len, name.ptr, SHORT_ID,
                      hex, (int)ext.len, ext.ptr);
}

/* ---- one file ---- */

typedef struct text {
    memfs_str all, front, body;
    lines body_lines;
} text;

typedef struct file_merge {
    line_table *table;
    text base, a, b;
    memfs_buf *out;
    memfs_buf front; /* of the result */
    bool ends_in_newline;
    bool by_rule;
    bool is_added_twice;
    merge_note_fn note;
    void *ctx;
} file_merge;

static void text_of(line_table *table, memfs_str all, text *ret)
{
    ret->all = all;
    merge_split(all, &ret->front, &ret->body);
    lines_read(table, ret->body, false, &ret->body_lines);
}

/*
 * A last line without '\n' is the same line all the same; whether the result ends in one is a
 * matter of its own, merged like anything else.  An empty text says nothing about it.
 */
static bool ends_in_newline(memfs_str body, bool otherwise)
{
    return body.len > 0 ? body.ptr[body.len - 1] == '\n' : otherwise;
}

static bool merge_newline(const file_merge *m)
{
    bool base = ends_in_newline(m->base.body, true);
    bool a = ends_in_newline(m->a.body, base), b = ends_in_newline(m->b.body, base);

    return a == b ? a : !base;
}

/* A last line that is empty must end in '\n', or it would not be there when it is read again. */
static void put_body(const file_merge *m, lines l, memfs_buf *out)
{
    for (size_t i = 0; i < l.n; i++) {
        memfs_str line = line_table_text(m->table, l.ids[i]);

        buf_add_str(out, line);
        if (i + 1 < l.n || m->ends_in_newline || line.len == 0)
            buf_putc(out, '\n');
    }
}

static bool opens(memfs_str text)
{
    return str_starts_with(text, MEMFS_STR("---\n")) || str_starts_with(text, MEMFS_STR("---\r"));
}

/* Could a side's text without front matter be taken for the start of some? */
static bool opens_unclosed(const text *side)
{
    return side->front.len == 0 && opens(side->all);
}

/*
 * Where the result has no front matter, its lines must not read as such: not closed at all, and
 * opened only if a side was already.
 */
static bool accept_lines(lines result, void *ctx)
{
    const file_merge *m = ctx;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str front, body;

    if (m->front.len > 0 || result.n == 0 ||
        !str_starts_with(line_table_text(m->table, result.ids[0]), MEMFS_STR("---")))
        return true;
    put_body(m, result, &text);
    if (!opens(buf_str(&text)))
        return true;
    merge_split(buf_str(&text), &front, &body);
    return front.len == 0 && (opens_unclosed(&m->a) || opens_unclosed(&m->b));
}

static void note_lines(file_merge *m, const merged_lines *merged)
{
    size_t above = 1;
    memfs_str rest = buf_str(&m->front), line;

    m->by_rule |= merged->n_met > 0;
    if (m->note == NULL || m->is_added_twice)
        return;
    while (str_split(rest, '\n', &line, &rest))
        above++;
    for (size_t i = 0; i < merged->n_met; i++) {
        char digits[STR_U64_LEN];
        size_t n = str_put_u64(merged->met[i] + above, digits);

        m->note(MERGE_RULE_LINES, str_make(digits, n), m->ctx);
    }
}

static void merge_parts(file_merge *m)
{
    _cleanup_(merged_lines_dispose) merged_lines merged = MERGED_LINES_INIT;
    merge_lines in = { .table = m->table,
                       .base = m->base.body_lines,
                       .a = m->a.body_lines,
                       .b = m->b.body_lines,
                       .accept = accept_lines,
                       .ctx = m };

    merge_front(m->base.front, m->a.front, m->b.front, &m->front, m->note, m->ctx, &m->by_rule);
    m->ends_in_newline = merge_newline(m);
    merge_text(&in, &merged);
    note_lines(m, &merged);
    buf_add_str(m->out, buf_str(&m->front));
    put_body(m, merged.result, m->out);
}

/*
 * Front matter with line ends of the old Macintosh: a '\r' that closes it and a body that begins
 * with
 * '\n' would run into one line end.
 */
static bool has_bare_cr_front(memfs_str side)
{
    memfs_str front, body;

    merge_split(side, &front, &body);
    for (size_t i = 0; i < front.len; i++)
        if (front.ptr[i] == '\r' && (i + 1 == front.len || front.ptr[i + 1] != '\n'))
            return true;
    return false;
}

static bool can_be_one_text(memfs_str side)
{
    return side.len <= MERGE_MAX_TEXT_BYTES && merge_is_text(side) &&
           lines_count(side) <= MERGE_MAX_TEXT_LINES && !has_bare_cr_front(side);
}

static merge_outcome merge_both_changed(file_merge *m, memfs_str base, memfs_str a, memfs_str b)
{
    if (!can_be_one_text(a) || !can_be_one_text(b))
        return MERGE_TWO_FILES;
    if (!can_be_one_text(base))
        m->is_added_twice = true; /* nothing to tell them apart by */
    m->table = line_table_new();
    text_of(m->table, m->is_added_twice ? MEMFS_STR("") : base, &m->base);
    text_of(m->table, a, &m->a);
    text_of(m->table, b, &m->b);
    if (m->is_added_twice && m->note != NULL)
        m->note(MERGE_RULE_ADDED_TWICE, MEMFS_STR(""), m->ctx);
    merge_parts(m);
    lines_dispose(&m->base.body_lines);
    lines_dispose(&m->a.body_lines);
    lines_dispose(&m->b.body_lines);
    line_table_freep(&m->table);
    return m->by_rule || m->is_added_twice ? MERGE_BY_RULE : MERGE_CLEAN;
}

merge_outcome merge_file(const memfs_str *base, memfs_str a, memfs_str b, memfs_buf *out,
                         merge_note_fn note, void *ctx)
{
    file_merge m = { .out = out,
                     .front = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED),
                     .note = note,
                     .ctx = ctx,
                     .is_added_twice = base == NULL };
    merge_outcome outcome = MERGE_CLEAN;

    if (str_equal(a, b) || (base != NULL && str_equal(b, *base)))
        buf_add_str(out, a);
    else if (base != NULL && str_equal(a, *base))
        buf_add_str(out, b);
    else
        outcome = merge_both_changed(&m, base != NULL ? *base : MEMFS_STR(""), a, b);
    buf_dispose(&m.front);
    return outcome;
}
