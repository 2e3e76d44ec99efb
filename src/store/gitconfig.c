#include "store/gitconfig.h"

#include "base/fs.h"
#include "base/mem.h"
#include "store/gitlock.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The syntax, as git reads it:
 *
 *     [section]  [section "sub\"section"]  [section.sub]     names without case, "sub" with case
 *     key = value                          key alone is true; key and section: letters, digits, '-'
 *     value: blanks around it are dropped; "…" keeps them; \n \t \b \\ \" ; a backslash at the end
 *     of a line continues it; # and ; begin a comment outside quotes; no NUL anywhere
 *
 * A file is parsed into entries that remember which bytes they came from.  Changing means cutting
 * those bytes out and putting a line in, so that comments and the order of everything else stay.
 *
 * libgit2's parser is not used: it follows include.path, and rewrites the file once a key.
 */

#define CONFIG_MAX_BYTES (4u << 20)
#define LOCK_WAIT_MS 775 /* git's own clients: 25 ms doubling, 5 tries */

typedef struct entry {
    char *key; /* section and name in lower case */
    char *value;
    size_t begin, end; /* the bytes of the line, with its end; continued lines too */
} entry;

typedef struct section {
    char *name; /* "section" or "section.sub" */
    size_t end; /* where a line added to it goes */
} section;

struct gitconfig {
    memfs_buf text;
    entry *entries;
    size_t n_entries;
    section *sections;
    size_t n_sections;
};

/* life cycle */

static void forget_entries(gitconfig *c)
{
    for (size_t i = 0; i < c->n_entries; i++) {
        free(c->entries[i].key);
        free(c->entries[i].value);
    }
    for (size_t i = 0; i < c->n_sections; i++)
        free(c->sections[i].name);
    free(c->entries);
    free(c->sections);
    c->entries = NULL;
    c->sections = NULL;
    c->n_entries = c->n_sections = 0;
}

void gitconfig_close(gitconfig *c)
{
    if (c == NULL)
        return;
    forget_entries(c);
    buf_dispose(&c->text);
    free(c);
}

void gitconfig_closep(gitconfig **c)
{
    gitconfig_close(*c);
    *c = NULL;
}

/* parsing */

typedef struct parser {
    gitconfig *c;
    const char *at, *end;
    size_t line;
    memfs_buf section;
} parser;

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t' || ch == '\r';
}

static bool is_key_char(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
           ch == '-';
}

static char lower(char ch)
{
    return ch >= 'A' && ch <= 'Z' ? (char)(ch + 32) : ch;
}

static memfs_code bad_line(const parser *p, const char *what, memfs_error *err)
{
    return memfs_fail(err, MEMFS_EINVALID, "line %zu of the configuration: %s", p->line, what);
}

static bool more(const parser *p)
{
    return p->at < p->end;
}

static void skip_line(parser *p)
{
    while (more(p) && *p->at != '\n')
        p->at++;
}

static memfs_code parse_subsection(parser *p, memfs_error *err)
{
    buf_putc(&p->section, '.');
    p->at++; /* the quote */
    while (more(p) && *p->at != '"' && *p->at != '\n') {
        if (*p->at == '\\' && p->at + 1 < p->end)
            p->at++;
        if (*p->at == '\n')
            break;
        buf_putc(&p->section, *p->at++);
    }
    if (!more(p) || *p->at != '"')
        return bad_line(p, "a '\"' is missing", err);
    p->at++;
    return MEMFS_OK;
}

static memfs_code parse_section(parser *p, memfs_error *err)
{
    memfs_code rc = MEMFS_OK;

    buf_clear(&p->section);
    p->at++; /* the bracket */
    while (more(p) && (is_key_char(*p->at) || *p->at == '.'))
        buf_putc(&p->section, lower(*p->at++));
    if (p->section.len == 0)
        return bad_line(p, "a section without a name", err);
    while (more(p) && is_blank(*p->at))
        p->at++;
    if (more(p) && *p->at == '"')
        rc = parse_subsection(p, err);
    if (rc < 0)
        return rc;
    if (!more(p) || *p->at != ']')
        return bad_line(p, "a ']' is missing", err);
    p->at++;
    p->c->sections = mem_realloc(p->c->sections, p->c->n_sections + 1, sizeof(*p->c->sections));
    p->c->sections[p->c->n_sections++] =
        (section){ mem_strndup(p->section.ptr, p->section.len), (size_t)(p->at - p->c->text.ptr) };
    return MEMFS_OK;
}

static memfs_code parse_escape(parser *p, memfs_buf *value, memfs_error *err)
{
    static const char from[] = "ntb\\\"", to[] = "\n\t\b\\\"";
    const char *which;

    p->at++;
    if (more(p) && *p->at == '\r' && p->at + 1 < p->end && p->at[1] == '\n')
        p->at++;
    if (!more(p))
        return bad_line(p, "a backslash at the end", err);
    if (*p->at == '\n') {
        p->line++;
        p->at++;
        return MEMFS_OK;
    }
    which = strchr(from, *p->at);
    if (which == NULL || *which == '\0')
        return bad_line(p, "an unknown escape after a backslash", err);
    buf_putc(value, to[which - from]);
    p->at++;
    return MEMFS_OK;
}

/* Up to the end of the line; trailing blanks outside quotes do not count. */
static memfs_code parse_value(parser *p, memfs_buf *value, memfs_error *err)
{
    bool is_quoted = false;
    size_t keep = 0;
    memfs_code rc;

    while (more(p) && is_blank(*p->at))
        p->at++;
    while (more(p) && *p->at != '\n') {
        char ch = *p->at;

        if (!is_quoted && (ch == '#' || ch == ';')) {
            skip_line(p);
            break;
        }
        if (ch == '\\') {
            rc = parse_escape(p, value, err);
            if (rc < 0)
                return rc;
            keep = value->len;
            continue;
        }
        p->at++;
        if (ch == '"')
            is_quoted = !is_quoted;
        else
            buf_putc(value, ch);
        if (is_quoted || !is_blank(ch))
            keep = value->len;
    }
    if (is_quoted)
        return bad_line(p, "a '\"' is missing", err);
    buf_truncate(value, keep);
    return MEMFS_OK;
}

static void add_entry(parser *p, memfs_str name, const memfs_buf *value, const char *begin)
{
    gitconfig *c = p->c;
    _cleanup_(buf_dispose) memfs_buf key = MEMFS_BUF_INIT(CONFIG_MAX_BYTES);
    size_t end = (size_t)(p->at - c->text.ptr);

    if (end < c->text.len)
        end++; /* the end of the line */
    buf_add_str(&key, buf_str(&p->section));
    buf_putc(&key, '.');
    for (size_t i = 0; i < name.len; i++)
        buf_putc(&key, lower(name.ptr[i]));
    if ((c->n_entries & (c->n_entries - 1)) == 0)
        c->entries =
            mem_realloc(c->entries, c->n_entries == 0 ? 1 : c->n_entries * 2, sizeof(*c->entries));
    c->entries[c->n_entries++] = (entry){ buf_take(&key, NULL), mem_strndup(value->ptr, value->len),
                                          (size_t)(begin - c->text.ptr), end };
    c->sections[c->n_sections - 1].end = end;
}

static memfs_code parse_entry(parser *p, const char *begin, memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(CONFIG_MAX_BYTES);
    const char *name = p->at;
    memfs_str key;
    memfs_code rc = MEMFS_OK;

    if (p->c->n_sections == 0)
        return bad_line(p, "a key before the first section", err);
    while (more(p) && is_key_char(*p->at))
        p->at++;
    key = str_make(name, (size_t)(p->at - name));
    if (key.len == 0 || key.ptr[0] == '-' || (key.ptr[0] >= '0' && key.ptr[0] <= '9'))
        return bad_line(p, "neither a section nor a key", err);
    while (more(p) && is_blank(*p->at))
        p->at++;
    if (!more(p) || *p->at == '\n' || *p->at == '#' || *p->at == ';') {
        skip_line(p);
        buf_puts(&value, "true");
    } else if (*p->at != '=') {
        return bad_line(p, "a '=' is missing", err);
    } else {
        p->at++;
        rc = parse_value(p, &value, err);
    }
    if (rc == MEMFS_OK)
        add_entry(p, key, &value, begin);
    return rc;
}

static memfs_code parse_lines(parser *p, memfs_error *err)
{
    const char *begin = p->at;
    memfs_code rc = MEMFS_OK;

    while (rc == MEMFS_OK && more(p)) {
        char ch = *p->at;

        if (ch == '\n') {
            p->line++;
            begin = ++p->at;
        } else if (is_blank(ch)) {
            p->at++;
        } else if (ch == '#' || ch == ';') {
            skip_line(p);
        } else if (ch == '[') {
            rc = parse_section(p, err);
            begin = p->at; /* a key may follow on the same line */
        } else {
            rc = parse_entry(p, begin, err);
            begin = p->at;
        }
    }
    return rc;
}

/* Keys and values are handed out as C strings: what stands behind a NUL would be lost unseen. */
static memfs_code check_nul(const parser *p, memfs_error *err)
{
    const char *nul = memchr(p->at, '\0', (size_t)(p->end - p->at));
    parser at_nul = { .line = p->line };

    if (nul == NULL)
        return MEMFS_OK;
    for (const char *c = p->at; c < nul; c++)
        at_nul.line += *c == '\n';
    return bad_line(&at_nul, "it holds a NUL byte", err);
}

static memfs_code parse(gitconfig *c, memfs_error *err)
{
    parser p = { .c = c,
                 .at = c->text.ptr,
                 .end = c->text.ptr + c->text.len,
                 .line = 1,
                 .section = MEMFS_BUF_INIT(CONFIG_MAX_BYTES) };
    memfs_code rc;

    if (c->text.len >= 3 && memcmp(c->text.ptr, "\xef\xbb\xbf", 3) == 0)
        p.at += 3;
    rc = check_nul(&p, err);
    if (rc == MEMFS_OK)
        rc = parse_lines(&p, err);
    buf_dispose(&p.section);
    return rc;
}

memfs_code gitconfig_open(const char *path, gitconfig **ret, memfs_error *err)
{
    _cleanup_(gitconfig_closep) gitconfig *c = mem_alloc(sizeof(*c));
    memfs_code rc;

    c->text = (memfs_buf)MEMFS_BUF_INIT(CONFIG_MAX_BYTES);
    rc = fs_read(path, &c->text, err);
    if (rc < 0 && rc != MEMFS_ENOTFOUND)
        return rc;
    rc = parse(c, err);
    if (rc == MEMFS_OK)
        *ret = TAKE_PTR(c);
    return rc;
}

/* reading */

/* Section and name without case, what is between them with it. */
static char *canonical(const char *key)
{
    char *copy = mem_strdup(key), *first = strchr(copy, '.'), *last = strrchr(copy, '.');

    for (char *at = copy; *at != '\0'; at++)
        if (first == NULL || at < first || at > last)
            *at = lower(*at);
    return copy;
}

const char *gitconfig_get(gitconfig *c, const char *key)
{
    _cleanup_(mem_freep) char *wanted = canonical(key);

    for (size_t i = c->n_entries; i > 0; i--)
        if (strcmp(c->entries[i - 1].key, wanted) == 0)
            return c->entries[i - 1].value;
    return NULL;
}

void gitconfig_each(gitconfig *c, gitconfig_fn fn, void *ctx)
{
    for (size_t i = 0; i < c->n_entries; i++)
        if (!fn(c->entries[i].key, c->entries[i].value, ctx))
            return;
}

/* changing */

static bool has_key(const gitconfig_change *changes, size_t n, const char *canonical_key)
{
    for (size_t i = 0; i < n; i++) {
        _cleanup_(mem_freep) char *key = canonical(changes[i].key);

        if (strcmp(key, canonical_key) == 0)
            return true;
    }
    return false;
}

/* Are the values of this key in the file those that are wanted, in their order? */
static bool is_as_wanted(const gitconfig *c, const char *key, const gitconfig_change *changes,
                         size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        _cleanup_(mem_freep) char *other = canonical(changes[i].key);

        if (strcmp(other, key) != 0 || changes[i].value == NULL)
            continue;
        while (at < c->n_entries && strcmp(c->entries[at].key, key) != 0)
            at++;
        if (at == c->n_entries || strcmp(c->entries[at].value, changes[i].value) != 0)
            return false;
        at++;
    }
    while (at < c->n_entries && strcmp(c->entries[at].key, key) != 0)
        at++;
    return at == c->n_entries;
}

static void add_quoted(memfs_buf *out, const char *value)
{
    size_t len = strlen(value);
    bool needs_quotes = len > 0 && (is_blank(value[0]) || is_blank(value[len - 1]));

    needs_quotes = needs_quotes || strpbrk(value, "#;\r") != NULL;
    if (needs_quotes)
        buf_putc(out, '"');
    for (const char *at = value; *at != '\0'; at++) {
        switch (*at) {
        case '\n': buf_puts(out, "\\n"); break;
        case '\t': buf_puts(out, "\\t"); break;
        case '\b': buf_puts(out, "\\b"); break;
        case '"': buf_puts(out, "\\\""); break;
        case '\\': buf_puts(out, "\\\\"); break;
        default: buf_putc(out, *at);
        }
    }
    if (needs_quotes)
        buf_putc(out, '"');
}

static void add_line(memfs_buf *out, const char *key, const char *value)
{
    buf_printf(out, "\t%s = ", strrchr(key, '.') + 1);
    add_quoted(out, value);
    buf_putc(out, '\n');
}

static void add_header(memfs_buf *out, const char *section_name)
{
    const char *sub = strchr(section_name, '.');

    if (sub == NULL) {
        buf_printf(out, "[%s]\n", section_name);
        return;
    }
    buf_printf(out, "[%.*s \"", (int)(sub - section_name), section_name);
    for (const char *at = sub + 1; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\')
            buf_putc(out, '\\');
        buf_putc(out, *at);
    }
    buf_puts(out, "\"]\n");
}

static void end_line(memfs_buf *out)
{
    if (out->len > 0 && out->ptr[out->len - 1] != '\n')
        buf_putc(out, '\n');
}

/* Is this a wanted line of the section that is not written yet? */
static bool is_pending(const gitconfig_change *change, bool is_done, const char *section_name)
{
    _cleanup_(mem_freep) char *key = canonical(change->key);

    *strrchr(key, '.') = '\0';
    return !is_done && change->value != NULL && strcmp(key, section_name) == 0;
}

/* What the section still lacks, at the end of it. */
static void add_pending(memfs_buf *out, const char *section_name, bool is_new,
                        const gitconfig_change *changes, size_t n, bool *is_done)
{
    for (size_t i = 0; i < n; i++) {
        if (!is_pending(&changes[i], is_done[i], section_name))
            continue;
        end_line(out);
        if (is_new)
            add_header(out, section_name);
        is_new = false;
        add_line(out, changes[i].key, changes[i].value);
        is_done[i] = true;
    }
}

/* The last section of that name in the file; n_sections: there is none. */
static size_t find_section(const gitconfig *c, const char *name)
{
    for (size_t i = c->n_sections; i > 0; i--)
        if (strcmp(c->sections[i - 1].name, name) == 0)
            return i - 1;
    return c->n_sections;
}

/* The bytes between two places, without the lines of keys that are written anew. */
static void copy_kept(const gitconfig *c, size_t from, size_t to, const gitconfig_change *changes,
                      size_t n, memfs_buf *out)
{
    for (size_t i = 0; i < c->n_entries; i++) {
        const entry *e = &c->entries[i];

        if (e->end <= from || e->begin >= to || !has_key(changes, n, e->key))
            continue;
        buf_add(out, c->text.ptr + from, e->begin - from);
        if (e->end > e->begin && e->begin > 0 && c->text.ptr[e->begin - 1] != '\n')
            end_line(out); /* it stood on the line of its section */
        from = e->end;
    }
    buf_add(out, c->text.ptr + from, to - from);
}

/* changes: only those that are not as wanted. */
static void rewrite(const gitconfig *c, const gitconfig_change *changes, size_t n, memfs_buf *out)
{
    bool *is_done = mem_alloc((n + 1) * sizeof(*is_done));
    size_t from = 0;

    for (size_t i = 0; i < c->n_sections; i++) {
        copy_kept(c, from, c->sections[i].end, changes, n, out);
        from = c->sections[i].end;
        if (find_section(c, c->sections[i].name) != i)
            continue;
        if (from < c->text.len && c->text.ptr[from] == '\n' && c->text.ptr[from - 1] == ']')
            buf_putc(out, c->text.ptr[from++]);
        add_pending(out, c->sections[i].name, false, changes, n, is_done);
    }
    copy_kept(c, from, c->text.len, changes, n, out);
    for (size_t i = 0; i < n; i++) {
        _cleanup_(mem_freep) char *name = canonical(changes[i].key);

        *strrchr(name, '.') = '\0';
        add_pending(out, name, true, changes, n, is_done);
    }
    free(is_done);
}

static bool key_is_sane(const char *key)
{
    const char *first = strchr(key, '.'), *last = strrchr(key, '.');

    if (first == NULL || first == key || strpbrk(key, "\n\r") != NULL ||
        !((last[1] >= 'a' && last[1] <= 'z') || (last[1] >= 'A' && last[1] <= 'Z')))
        return false;
    for (const char *at = key; at < first; at++)
        if (!is_key_char(*at))
            return false;
    for (const char *at = last + 1; *at != '\0'; at++)
        if (!is_key_char(*at))
            return false;
    return true;
}

/* Those that the file does not have as they are wanted; caller frees. */
static gitconfig_change *pick_needed(const gitconfig *c, const gitconfig_change *changes, size_t n,
                                     size_t *ret_n)
{
    gitconfig_change *needed = mem_alloc((n + 1) * sizeof(*needed));

    *ret_n = 0;
    for (size_t i = 0; i < n; i++) {
        _cleanup_(mem_freep) char *key = canonical(changes[i].key);

        if (!is_as_wanted(c, key, changes, n))
            needed[(*ret_n)++] = changes[i];
    }
    return needed;
}

/* Reads the file and writes what it should be to out.  False: it is that already. */
static memfs_code plan(const char *path, const gitconfig_change *changes, size_t n, memfs_buf *out,
                       bool *ret_is_needed, memfs_error *err)
{
    _cleanup_(gitconfig_closep) gitconfig *c = NULL;
    _cleanup_(mem_freep) gitconfig_change *needed = NULL;
    memfs_code rc = gitconfig_open(path, &c, err);
    size_t n_needed;

    if (rc < 0)
        return rc;
    needed = pick_needed(c, changes, n, &n_needed);
    *ret_is_needed = n_needed > 0;
    if (n_needed > 0)
        rewrite(c, needed, n_needed, out);
    return buf_check(out, "the configuration", err);
}

static memfs_code write_all(int fd, memfs_str bytes, memfs_error *err)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);

        if (n < 0)
            return memfs_fail_errno(err, "could not write the configuration");
        bytes = str_from(bytes, (size_t)n);
    }
    return MEMFS_OK;
}

/* Who could read the file before can after, and nobody else. */
static memfs_code keep_mode(const char *path, int fd, memfs_error *err)
{
    struct stat st;

    if (stat(path, &st) == 0 && fchmod(fd, st.st_mode & 0777) < 0)
        return memfs_fail_errno(err, "could not keep the mode of the configuration");
    return MEMFS_OK;
}

static memfs_code apply_locked(const char *path, const gitconfig_change *changes, size_t n,
                               memfs_error *err)
{
    _cleanup_(mem_freep) char *twins = mem_printf("%s.memfs-", path);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(CONFIG_MAX_BYTES);
    _cleanup_(gitlock_dispose) gitlock lock = GITLOCK_INIT;
    bool is_needed;
    memfs_code rc;

    gitlock_sweep(twins);
    rc = gitlock_take(path, twins, LOCK_WAIT_MS, &lock, err);
    if (rc == MEMFS_OK)
        rc = plan(path, changes, n, &out, &is_needed, err); /* again: it may have changed */
    if (rc < 0 || !is_needed)
        return rc;
    rc = keep_mode(path, lock.fd, err);
    if (rc == MEMFS_OK)
        rc = write_all(lock.fd, buf_str(&out), err);
    if (rc == MEMFS_OK)
        rc = gitlock_commit(&lock, err);
    return rc;
}

memfs_code gitconfig_apply(const char *path, const gitconfig_change *changes, size_t n,
                           memfs_error *err)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(CONFIG_MAX_BYTES);
    _cleanup_(mem_freep) char *real = realpath(path, NULL); /* people link ~/.gitconfig */
    const char *file = real != NULL ? real : path;
    bool is_needed;
    memfs_code rc;

    for (size_t i = 0; i < n; i++)
        if (!key_is_sane(changes[i].key))
            return memfs_fail(err, MEMFS_EINVALID, "'%s' is no name of a setting", changes[i].key);
    rc = plan(file, changes, n, &out, &is_needed, err);
    if (rc < 0 || !is_needed)
        return rc;
    return apply_locked(file, changes, n, err);
}
