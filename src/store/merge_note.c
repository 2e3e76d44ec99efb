#include "store/merge_int.h"

#include "base/escape.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

/*
 * What was decided by rule, in the message of the merge commit, so that whoever has the commit has
 * the notes:
 *
 *     memfs: merge 1234567 and 89abcde
 *
 *     Memfs-Merge: lines "system/human.md" 12
 *     Memfs-Merge: beside "notes/Plan.md" notes/Plan.0a1b2c3.md
 *     Memfs-Merge: and 7 more
 *
 * The path is escaped as in escape.h, and a quote in it is \x22; the detail runs to the end of the
 * line.  Both the number and the length are bounded: a message is no place for a memory.
 */

#define MAX_NOTES 100
#define MAX_DETAIL_BYTES 300
#define MERGE_SUBJECT "memfs: merge "
#define TRAILER "Memfs-Merge: "

static void note_dispose(merge_note *n)
{
    free(n->path);
    free(n->detail);
}

void merge_notes_cut(merge_result *m, size_t n)
{
    while (m->n_notes > n)
        note_dispose(&m->notes[--m->n_notes]);
}

void merge_result_dispose(merge_result *m)
{
    merge_notes_cut(m, 0);
    free(m->notes);
    *m = (merge_result)MERGE_RESULT_INIT;
}

static memfs_str cut_detail(memfs_str detail)
{
    if (detail.len <= MAX_DETAIL_BYTES)
        return detail;
    detail.len = MAX_DETAIL_BYTES;
    detail.len = str_utf8_valid_prefix(detail);
    return detail;
}

void merge_note_add(merge_result *m, merge_rule rule, memfs_str path, memfs_str detail)
{
    memfs_str shown = cut_detail(detail);

    assert(memchr(shown.ptr, '\n', shown.len) == NULL); /* it is escaped */
    if ((m->n_notes & (m->n_notes - 1)) == 0) /* 0 and powers of two: full */
        m->notes = mem_realloc(m->notes, m->n_notes == 0 ? 1 : m->n_notes * 2, sizeof(*m->notes));
    m->notes[m->n_notes++] =
        (merge_note){ rule, mem_strndup(path.ptr, path.len),
                      mem_printf("%.*s%s", (int)shown.len, shown.ptr,
                                 shown.len < detail.len ? "..." : "") };
}

void merge_note_add_path(merge_result *m, merge_rule rule, memfs_str path, memfs_str other)
{
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    escape_add(&shown, other);
    merge_note_add(m, rule, path, buf_str(&shown));
}

static int compare_notes(const void *a, const void *b)
{
    const merge_note *x = a, *y = b;
    int order = strcmp(x->path, y->path);

    if (order == 0)
        order = (x->rule > y->rule) - (x->rule < y->rule);
    return order != 0 ? order : strcmp(x->detail, y->detail);
}

void merge_notes_sort(merge_result *m)
{
    if (m->n_notes > 1)
        qsort(m->notes, m->n_notes, sizeof(*m->notes), compare_notes);
}

/* ---- the message ---- */

static void write_note(const merge_note *n, memfs_buf *out)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    escape_add(&path, str_of(n->path));
    buf_printf(out, TRAILER "%s \"", merge_rule_name(n->rule));
    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] == '"')
            buf_puts(out, "\\x22");
        else
            buf_putc(out, path.ptr[i]);
    }
    buf_printf(out, "\"%s%s\n", n->detail[0] != '\0' ? " " : "", n->detail);
}

void merge_message(const memfs_oid *first, const memfs_oid *second, const merge_result *m,
                   memfs_buf *out)
{
    size_t n = m->n_notes < MAX_NOTES ? m->n_notes : MAX_NOTES;
    char a[MEMFS_OID_HEX + 1], b[MEMFS_OID_HEX + 1];

    oid_hex(first, a);
    oid_hex(second, b);
    buf_printf(out, MERGE_SUBJECT "%.7s and %.7s\n", a, b);
    if (n > 0)
        buf_putc(out, '\n');
    for (size_t i = 0; i < n; i++)
        write_note(&m->notes[i], out);
    if (n < m->n_notes)
        buf_printf(out, TRAILER "and %zu more\n", m->n_notes - n);
}

/* ---- and back ---- */

static void unescape(memfs_str text, memfs_buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        bool is_escape = text.ptr[i] == '\\';
        int high, low;

        if (is_escape && i + 1 < text.len && text.ptr[i + 1] == '\\') {
            buf_putc(out, '\\');
            i++;
            continue;
        }
        high = is_escape && i + 3 < text.len && text.ptr[i + 1] == 'x'
                   ? str_hex_digit(text.ptr[i + 2])
                   : -1;
        low = high >= 0 ? str_hex_digit(text.ptr[i + 3]) : -1;
        buf_putc(out, low >= 0 ? (char)(high << 4 | low) : text.ptr[i]);
        i += low >= 0 ? 3 : 0;
    }
}

static bool rule_of(memfs_str name, merge_rule *ret)
{
    for (merge_rule rule = MERGE_RULE_LINES; rule <= MERGE_RULE_BESIDE; rule++)
        if (str_equal(name, str_of(merge_rule_name(rule)))) {
            *ret = rule;
            return true;
        }
    return false;
}

static void read_note(memfs_str line, merge_result *ret)
{
    _cleanup_(buf_dispose) memfs_buf path = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str name, quoted, shown, detail;
    merge_rule rule;

    if (!str_split(line, ' ', &name, &quoted) || !rule_of(name, &rule) || quoted.len == 0 ||
        quoted.ptr[0] != '"' || !str_split(str_from(quoted, 1), '"', &shown, &detail))
        return;
    if (detail.len > 0 && detail.ptr[0] == ' ')
        detail = str_from(detail, 1);
    unescape(shown, &path);
    merge_note_add(ret, rule, buf_str(&path), detail);
}

void merge_message_read(memfs_str message, merge_result *ret)
{
    memfs_str line, rest;

    if (!str_starts_with(message, MEMFS_STR(MERGE_SUBJECT)))
        return;
    ret->is_merge = true;
    for (rest = message; str_split(rest, '\n', &line, &rest);)
        if (str_starts_with(line, MEMFS_STR(TRAILER)))
            read_note(str_from(line, sizeof(TRAILER) - 1), ret);
}
