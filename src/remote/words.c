#include "remote/probe.h"

#include "base/escape.h"

#include <ctype.h>
#include <strings.h>

/*
 * An answer in one phrase.  The class has words of its own, some with the cause in brackets behind
 * them, and the detail is what curl, git or a stranger's server said: often the same once more.
 *
 *   "unreachable (TLS)"                 "certificate has expired"       both: (TLS: certificate ...)
 *   "unreachable (connection refused)"  "connection refused"            the detail alone, in brackets
 *   "repository not found"              "repository not found"          the class alone
 *   "endpoint not implemented"          "HTTP 501"                      both, the detail in brackets
 *
 * A cause gives way to a detail that has a word of it: the detail is the more precise one.  A
 * detail gives way to what the class calls the thing, when two neighbouring words stand in both:
 * that is what the documentation has a row for.
 */

static bool is_of_word(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80 || c == '\'';
}

/* Short words, articles and their like join what has meaning and have none. */
static bool has_meaning(memfs_str word)
{
    static const char *const JOINTS[] = { "the", "and", "for", "that", "this", "was", "has" };

    for (size_t i = 0; i < ARRAY_LEN(JOINTS); i++)
        if (word.len == strlen(JOINTS[i]) && strncasecmp(word.ptr, JOINTS[i], word.len) == 0)
            return false;
    return word.len >= 3;
}

static bool next_word(memfs_str *rest, memfs_str *ret)
{
    size_t n = 0;

    while (rest->len > 0 && !is_of_word(rest->ptr[0]))
        *rest = str_from(*rest, 1);
    while (n < rest->len && is_of_word(rest->ptr[n]))
        n++;
    *ret = str_make(rest->ptr, n);
    *rest = str_from(*rest, n);
    return n > 0;
}

static bool same_word(memfs_str a, memfs_str b)
{
    return a.len == b.len && strncasecmp(a.ptr, b.ptr, a.len) == 0;
}

/* first: what stands before the word; empty: whatever. */
static bool has_words(memfs_str text, memfs_str first, memfs_str word)
{
    memfs_str before = MEMFS_STR(""), at;

    for (; next_word(&text, &at); before = at)
        if (same_word(at, word) && (first.len == 0 || same_word(before, first)))
            return true;
    return false;
}

static bool shares_word(memfs_str a, memfs_str b)
{
    memfs_str word;

    while (next_word(&a, &word))
        if (has_meaning(word) && has_words(b, MEMFS_STR(""), word))
            return true;
    return false;
}

static bool shares_pair(memfs_str a, memfs_str b)
{
    memfs_str before = MEMFS_STR(""), word;

    for (; next_word(&a, &word); before = word)
        if (has_meaning(before) && has_meaning(word) && has_words(b, before, word))
            return true;
    return false;
}

/* "unreachable (cause)": what stands before the bracket, and what stands in it. */
static bool split_cause(memfs_str words, memfs_str *ret_what, memfs_str *ret_cause)
{
    memfs_str what, cause;

    if (!str_ends_with(words, MEMFS_STR(")")) || !str_split(words, '(', &what, &cause))
        return false;
    what.len--; /* the blank */
    cause.len--;
    *ret_what = what;
    *ret_cause = cause;
    return true;
}

void remote_answer_say(memfs_buf *out, remote_answer answer, memfs_str detail)
{
    memfs_str what = str_of(remote_class_of(answer)->words), cause = MEMFS_STR("");
    bool has_cause = split_cause(what, &what, &cause);

    if (has_cause && shares_word(cause, detail))
        cause = MEMFS_STR("");
    else if (!has_cause && shares_pair(what, detail))
        detail = MEMFS_STR("");
    buf_add_str(out, what);
    if (cause.len == 0 && detail.len == 0)
        return;
    buf_puts(out, " (");
    buf_add_str(out, cause);
    buf_puts(out, cause.len > 0 && detail.len > 0 ? ": " : "");
    escape_add(out, detail);
    buf_putc(out, ')');
}
