/*
 * The client's hook reads a file as lines, not as YAML, and reads HEAD and the index in two
 * different ways.  Both ways are kept, since they decide what passes:
 *
 *   new text    first line "---", then lines up to the next "---".  Key: what stands before the
 *               first ':', all spaces removed.  Value: the rest, spaces trimmed.  A line without
 *               ':' is its own key and value.  Empty lines and lines that begin with a blank are
 *               skipped.
 *   read_only   of HEAD, and of the new text when its removal is looked for: every line up to "---"
 *               that begins with "read_only:" (the first line is skipped unseen), the values joined
 *               by newlines and trailing newlines dropped.  So two "read_only: true" lines lock
 *               nothing.
 *
 * All trailing newlines of a text are dropped first, and a text that is then empty counts as none.
 */
#include "memory/precommit.h"

#define DELIMITER MEMFS_STR("---")
#define READ_ONLY MEMFS_STR("read_only:")

typedef struct check {
    const precommit_file *file;
    memfs_str head, staged; /* without trailing newlines */
    memfs_buf *head_read_only;
    precommit_fn fn;
    void *ctx;
    size_t n_violations;
} check;

static void report(check *c, precommit_rule rule, memfs_str detail)
{
    c->n_violations++;
    if (c->fn != NULL)
        c->fn(rule, detail, c->ctx);
}

static memfs_str drop_trailing_newlines(memfs_str s)
{
    while (s.len > 0 && s.ptr[s.len - 1] == '\n')
        s.len--;
    return s;
}

/* Takes the next line off *text; false at the end. */
static bool next_line(memfs_str *text, bool *is_done, memfs_str *ret)
{
    memfs_str rest;

    if (*is_done)
        return false;
    if (str_split(*text, '\n', ret, &rest)) {
        *text = rest;
    } else {
        *ret = *text;
        *is_done = true;
    }
    return true;
}

static memfs_str trim_spaces(memfs_str s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = str_from(s, 1);
    while (s.len > 0 && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

/* "system/x.md" or "memory/reference/a/b.md"; no name with a newline is looked at. */
static bool is_checked_path(memfs_str path)
{
    if (str_starts_with(path, MEMFS_STR("memory/")))
        path = str_from(path, 7);
    return (str_starts_with(path, MEMFS_STR("system/")) ||
            str_starts_with(path, MEMFS_STR("reference/"))) &&
           str_ends_with(path, MEMFS_STR(".md")) && memchr(path.ptr, '\n', path.len) == NULL;
}

/* "skills/x.md": at least one character before ".md", and no folder in between. */
static bool is_flat_skill(memfs_str path)
{
    if (str_starts_with(path, MEMFS_STR("memory/")))
        path = str_from(path, 7);
    if (!str_starts_with(path, MEMFS_STR("skills/")) || !str_ends_with(path, MEMFS_STR(".md")))
        return false;
    path = str_from(path, 7);
    return path.len > 3 && memchr(path.ptr, '/', path.len) == NULL;
}

static void read_only_of(memfs_str text, memfs_buf *out)
{
    bool is_done = false;
    memfs_str line;

    if (text.len == 0 || !next_line(&text, &is_done, &line))
        return;
    while (next_line(&text, &is_done, &line) && !str_equal(line, DELIMITER)) {
        if (!str_starts_with(line, READ_ONLY))
            continue;
        buf_add_str(out, trim_spaces(str_from(line, READ_ONLY.len)));
        buf_putc(out, '\n');
    }
    buf_truncate(out, drop_trailing_newlines(buf_str(out)).len);
}

bool precommit_is_read_only(memfs_str head)
{
    _cleanup_(buf_dispose) memfs_buf said = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str text = drop_trailing_newlines(head), first, rest;

    if (!str_split(text, '\n', &first, &rest) || !str_equal(first, DELIMITER))
        return false; /* the hook would have refused to let it in without front matter */
    read_only_of(text, &said);
    return str_equal(buf_str(&said), MEMFS_STR("true"));
}

static bool is_closed(memfs_str text)
{
    bool is_done = false;
    memfs_str line;

    next_line(&text, &is_done, &line);
    while (next_line(&text, &is_done, &line))
        if (str_equal(line, DELIMITER))
            return true;
    return false;
}

static void key_of(memfs_str line, memfs_buf *key, memfs_str *ret_value)
{
    memfs_str before, after;

    if (!str_split(line, ':', &before, &after))
        before = after = line;
    buf_clear(key);
    for (size_t i = 0; i < before.len; i++)
        if (before.ptr[i] != ' ')
            buf_putc(key, before.ptr[i]);
    *ret_value = trim_spaces(after);
}

static void check_read_only_line(check *c, memfs_str value)
{
    if (c->head.len == 0)
        report(c, PRECOMMIT_PROTECTED_SET, value);
    else if (!str_equal(value, buf_str(c->head_read_only)))
        report(c, PRECOMMIT_PROTECTED_CHANGED, value);
}

static void check_lines(check *c)
{
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str text = c->staged;
    bool has_description = false, is_done = false;
    memfs_str line, value;

    next_line(&text, &is_done, &line);
    while (next_line(&text, &is_done, &line) && !str_equal(line, DELIMITER)) {
        if (line.len == 0 || line.ptr[0] == ' ' || line.ptr[0] == '\t')
            continue;
        key_of(line, &key, &value);
        if (str_equal(buf_str(&key), MEMFS_STR("description"))) {
            has_description = true;
            if (value.len == 0)
                report(c, PRECOMMIT_DESCRIPTION_EMPTY, value);
        } else if (str_equal(buf_str(&key), MEMFS_STR("read_only"))) {
            check_read_only_line(c, value);
        } else if (!str_equal(buf_str(&key), MEMFS_STR("limit"))) {
            report(c, PRECOMMIT_UNKNOWN_KEY, buf_str(&key));
        }
    }
    if (!has_description)
        report(c, PRECOMMIT_MISSING_DESCRIPTION, MEMFS_STR(""));
}

static void check_removed(check *c)
{
    _cleanup_(buf_dispose) memfs_buf now = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

    if (c->head_read_only->len == 0)
        return;
    read_only_of(c->staged, &now);
    if (now.len == 0)
        report(c, PRECOMMIT_PROTECTED_REMOVED, MEMFS_STR(""));
}

static void check_front_matter(check *c)
{
    memfs_str text = c->staged, first;
    bool is_done = false;

    next_line(&text, &is_done, &first);
    read_only_of(c->head, c->head_read_only);
    if (!str_equal(first, DELIMITER)) {
        report(c, PRECOMMIT_MISSING_FRONTMATTER, MEMFS_STR(""));
    } else if (!is_closed(c->staged)) {
        report(c, PRECOMMIT_UNCLOSED_FRONTMATTER, MEMFS_STR(""));
    } else if (str_equal(buf_str(c->head_read_only), MEMFS_STR("true"))) {
        report(c, PRECOMMIT_READ_ONLY_FILE, MEMFS_STR(""));
    } else {
        check_lines(c);
        check_removed(c);
    }
}

static bool is_unchanged(const precommit_file *file)
{
    return file->has_head && file->head_mode == file->staged_mode &&
           str_equal(file->head, file->staged);
}

size_t precommit_check(const precommit_file *file, precommit_fn fn, void *ctx)
{
    _cleanup_(buf_dispose) memfs_buf head_read_only = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    check c = { .file = file, .head_read_only = &head_read_only, .fn = fn, .ctx = ctx };

    if (!file->has_staged || (is_unchanged(file) && !file->is_rename))
        return 0;
    if (is_flat_skill(file->path))
        report(&c, PRECOMMIT_SKILL_PATH, MEMFS_STR(""));
    if (file->is_rename || !is_checked_path(file->path))
        return c.n_violations;
    c.head = file->has_head ? drop_trailing_newlines(file->head) : MEMFS_STR("");
    c.staged = drop_trailing_newlines(file->staged);
    check_front_matter(&c);
    return c.n_violations;
}

const char *precommit_rule_name(precommit_rule rule)
{
    static const char *const names[] = {
        [PRECOMMIT_SKILL_PATH] = "skill-path",
        [PRECOMMIT_MISSING_FRONTMATTER] = "missing-frontmatter",
        [PRECOMMIT_UNCLOSED_FRONTMATTER] = "unclosed-frontmatter",
        [PRECOMMIT_READ_ONLY_FILE] = "read-only-file",
        [PRECOMMIT_UNKNOWN_KEY] = "unknown-key",
        [PRECOMMIT_PROTECTED_SET] = "protected-set",
        [PRECOMMIT_PROTECTED_CHANGED] = "protected-changed",
        [PRECOMMIT_DESCRIPTION_EMPTY] = "description-empty",
        [PRECOMMIT_MISSING_DESCRIPTION] = "missing-description",
        [PRECOMMIT_PROTECTED_REMOVED] = "protected-removed",
    };

    return names[rule];
}
