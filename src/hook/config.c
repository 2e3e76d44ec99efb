#include "base/fs.h"
#include "base/mem.h"
#include "hook/hook.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

/*
 * One value out of a file in git's configuration syntax (git-config(1), "Syntax"), because a hook
 * has neither libgit2 nor the time to ask git:
 *
 *     [section]   [section "sub"]        names in any case of letters; a value may follow in the line
 *     key = value  ; comment             \\ \" \n \t \b, "quoted parts", a line ends in \ to go on
 *
 * Sections with a subsection are passed over: nothing that a hook asks for has one.  A line that
 * git would complain about is passed over too.
 */

#define MAX_CONFIG (1u << 20)

static memfs_str skip_line(memfs_str s)
{
    memfs_str line, rest;

    return str_split(s, '\n', &line, &rest) ? rest : str_from(s, s.len);
}

static memfs_str skip_blanks(memfs_str s, const char *blanks)
{
    while (s.len > 0 && s.ptr[0] != '\0' && strchr(blanks, s.ptr[0]) != NULL)
        s = str_from(s, 1);
    return s;
}

/* Behind "[": is it this section?  Moves behind the "]". */
static bool read_section(memfs_str *s, const char *section)
{
    memfs_str name = *s;
    size_t n = 0;
    bool is_quoted = false;

    while (n < s->len && s->ptr[n] != '\n' && (is_quoted || s->ptr[n] != ']')) {
        is_quoted = is_quoted != (s->ptr[n] == '"');
        n += is_quoted && s->ptr[n] == '\\' && n + 1 < s->len ? 2 : 1;
    }
    n = n < s->len ? n : s->len;
    name.len = n;
    *s = str_from(*s, n < s->len && s->ptr[n] == ']' ? n + 1 : n);
    return name.len == strlen(section) && strncasecmp(name.ptr, section, name.len) == 0;
}

static bool read_key(memfs_str *s, const char *key)
{
    memfs_str name = *s;
    size_t n = 0;

    while (n < s->len && (isalnum((unsigned char)s->ptr[n]) || s->ptr[n] == '-'))
        n++;
    *s = str_from(*s, n);
    return n == strlen(key) && strncasecmp(name.ptr, key, n) == 0;
}

static char unescaped(char c)
{
    return c == 'n' ? '\n' : c == 't' ? '\t' : c == 'b' ? '\b' : c;
}

/* Behind "=": the value, up to the end of its last line.  Moves behind it. */
static void read_value(memfs_str *s, memfs_buf *out)
{
    bool is_quoted = false, is_comment = false;
    size_t kept = 0; /* blanks at the end do not count, but quoted ones do */

    *s = skip_blanks(*s, " \t\r");
    for (; s->len > 0 && s->ptr[0] != '\n'; *s = str_from(*s, 1)) {
        char c = s->ptr[0];

        if (is_comment || (c == '\r' && s->len > 1 && s->ptr[1] == '\n'))
            continue;
        if (c == '"') {
            is_quoted = !is_quoted;
            kept = out->len;
        } else if (!is_quoted && (c == '#' || c == ';')) {
            is_comment = true;
        } else if (c == '\\' && s->len > 1) {
            *s = str_from(*s, 1);
            if (s->ptr[0] != '\n')
                buf_putc(out, unescaped(s->ptr[0]));
            kept = out->len;
        } else {
            buf_putc(out, c);
            kept = is_quoted || (c != ' ' && c != '\t') ? out->len : kept;
        }
    }
    buf_truncate(out, kept);
}

/* "key = value", or a key alone; value, where it is wanted, is what the key has now. */
static void read_entry(memfs_str *s, bool is_wanted, memfs_buf *value)
{
    _cleanup_(buf_dispose) memfs_buf unwanted = MEMFS_BUF_INIT(64 * 1024);

    *s = skip_blanks(*s, " \t");
    if (is_wanted)
        buf_clear(value); /* the last one counts */
    if (s->len == 0 || s->ptr[0] != '=') {
        *s = skip_line(*s);
        return;
    }
    *s = str_from(*s, 1);
    read_value(s, is_wanted ? value : &unwanted);
}

char *config_find(memfs_str text, const char *section, const char *key)
{
    _cleanup_(buf_dispose) memfs_buf value = MEMFS_BUF_INIT(64 * 1024);
    bool is_here = false, was_found = false;

    while ((text = skip_blanks(text, " \t\r\n")).len > 0) {
        if (text.ptr[0] == '[') {
            text = str_from(text, 1);
            is_here = read_section(&text, section);
        } else if (isalpha((unsigned char)text.ptr[0])) {
            bool is_wanted = read_key(&text, key) && is_here;

            read_entry(&text, is_wanted, &value);
            was_found = was_found || is_wanted;
        } else {
            text = skip_line(text);
        }
    }
    return was_found && !value.too_big ? mem_strndup(value.ptr, value.len) : NULL;
}

char *hook_config(const hook_repo *r, const char *section, const char *key)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MAX_CONFIG);
    _cleanup_(mem_freep) char *path = mem_printf("%s/config", r->common);
    memfs_error e = MEMFS_ERROR_INIT;

    if (fs_read(path, &text, &e) < 0)
        return NULL;
    return config_find(buf_str(&text), section, key);
}
