/*
 * merge_support.h - texts by chance, always the same for a seed, and what must hold of any merge.
 */
#ifndef MEMFS_TESTS_MERGE_SUPPORT_H
#define MEMFS_TESTS_MERGE_SUPPORT_H

#include "base/escape.h"
#include "base/mem.h"
#include "memory/block.h"
#include "memory/merge.h"

#include <stdio.h>
#include <stdlib.h>

#define SUPPORT_MAX (64u << 20)

/* ---- what must hold ---- */

typedef struct merge_said {
    memfs_buf notes; /* "rule detail\n" */
    merge_outcome outcome;
    memfs_buf text;
} merge_said;
#define MERGE_SAID_INIT                                                                            \
    {                                                                                              \
        MEMFS_BUF_INIT(SUPPORT_MAX), MERGE_CLEAN, MEMFS_BUF_INIT(SUPPORT_MAX)                      \
    }

static inline void merge_said_dispose(merge_said *s)
{
    buf_dispose(&s->notes);
    buf_dispose(&s->text);
}

static inline void merge_keep_note(merge_rule rule, memfs_str detail, void *ctx)
{
    merge_said *s = ctx;

    buf_printf(&s->notes, "%s ", merge_rule_name(rule));
    buf_add_str(&s->notes, detail);
    buf_putc(&s->notes, '\n');
}

static inline void merge_say(const memfs_str *base, memfs_str a, memfs_str b, merge_said *ret)
{
    buf_clear(&ret->notes);
    buf_clear(&ret->text);
    ret->outcome = merge_file(base, a, b, &ret->text, merge_keep_note, ret);
}

static inline bool merge_same(const merge_said *x, const merge_said *y)
{
    return x->outcome == y->outcome && str_equal(buf_str(&x->text), buf_str(&y->text)) &&
           str_equal(buf_str(&x->notes), buf_str(&y->notes));
}

/* The next line without its '\n'; false at the end. */
static inline bool merge_next_line(memfs_str *text, memfs_str *ret)
{
    memfs_str rest;

    if (text->len == 0)
        return false;
    if (!str_split(*text, '\n', ret, &rest)) {
        *ret = *text;
        rest = str_from(*text, text->len);
    }
    *text = rest;
    return true;
}

static inline size_t merge_count_line(memfs_str text, memfs_str line)
{
    memfs_str at;
    size_t n = 0;

    while (merge_next_line(&text, &at))
        n += str_equal(at, line);
    return n;
}

/* Is each line of `side` that the base lacks in the result, or in a note? */
static inline const char *merge_lost_line(memfs_str base, memfs_str side, const merge_said *s)
{
    static char said[400];
    memfs_str line;

    while (merge_next_line(&side, &line)) {
        _cleanup_(buf_dispose) memfs_buf escaped = MEMFS_BUF_INIT(SUPPORT_MAX);

        if (merge_count_line(base, line) > 0 || merge_count_line(buf_str(&s->text), line) > 0)
            continue;
        while (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--; /* a note has no line end */
        escape_add(&escaped, line);
        if (memmem(s->notes.ptr, s->notes.len, escaped.ptr, escaped.len) != NULL)
            continue;
        snprintf(said, sizeof(said), "lost: %.300s", escaped.ptr);
        return said;
    }
    return NULL;
}

/* Does it read as a mapping, or as no front matter at all?  *ret_has: there is some. */
static inline bool merge_parses(memfs_str text, bool *ret_has)
{
    _cleanup_(buf_dispose) memfs_buf decoded = MEMFS_BUF_INIT(SUPPORT_MAX);
    _cleanup_(block_dispose) block b = BLOCK_INIT;
    size_t bad_at;

    block_decode(text, &decoded, &bad_at);
    block_parse(buf_str(&decoded), &b);
    *ret_has = b.doc != NULL;
    return b.problem[0] == '\0';
}

/* A '\r' that ends no line is a line end to YAML and none to git. */
static inline bool merge_has_lone_cr(memfs_str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] == '\r' && (i + 1 == text.len || text.ptr[i + 1] != '\n'))
            return true;
    return false;
}

/* NULL, or the promise that is broken. */
static inline const char *merge_broken_promise(const memfs_str *base, memfs_str a, memfs_str b)
{
    _cleanup_(merge_said_dispose) merge_said ab = MERGE_SAID_INIT, other = MERGE_SAID_INIT;
    memfs_str o = base != NULL ? *base : MEMFS_STR(""), r;
    bool a_has, b_has, r_has, a_parses, b_parses;
    const char *lost;

    merge_say(base, a, b, &ab);
    merge_say(base, b, a, &other);
    if (!merge_same(&ab, &other))
        return "it depends on the order of the sides";
    merge_say(base, a, b, &other);
    if (!merge_same(&ab, &other))
        return "it is not deterministic";
    if (ab.outcome == MERGE_TWO_FILES)
        return ab.text.len > 0 ? "two files, and yet a text"
               : merge_is_text(a) && merge_is_text(b) && !merge_has_lone_cr(a) &&
                       !merge_has_lone_cr(b)
                   ? "two files of two texts"
                   : NULL;
    if ((ab.outcome == MERGE_CLEAN) != (ab.notes.len == 0))
        return "outcome and notes do not agree";
    r = buf_str(&ab.text);
    merge_say(base, r, a, &other);
    if (!str_equal(buf_str(&other.text), r))
        return "merged again with the first side it changes";
    merge_say(base, b, r, &other);
    if (!str_equal(buf_str(&other.text), r))
        return "merged again with the second side it changes";
    merge_say(&a, r, a, &other);
    if (!str_equal(buf_str(&other.text), r))
        return "merged over a side it changes";
    merge_say(&r, r, r, &other);
    if (!str_equal(buf_str(&other.text), r))
        return "merged with itself it changes";
    if (merge_is_text(a) && merge_is_text(b) && !merge_is_text(r))
        return "the result is no text";
    if (!merge_has_lone_cr(a) && !merge_has_lone_cr(b)) {
        lost = merge_lost_line(o, a, &ab);
        lost = lost != NULL ? lost : merge_lost_line(o, b, &ab);
        if (lost != NULL)
            return lost;
    }
    a_parses = merge_parses(a, &a_has);
    b_parses = merge_parses(b, &b_has);
    if (a_parses && b_parses) {
        if (!merge_parses(r, &r_has))
            return "both sides parse, the result does not";
        if (a_has && b_has && !r_has)
            return "both sides have front matter, the result has none";
    }
    return NULL;
}

#endif
