/*
 * webhook_read.c - what a proven delivery says: one pass over its JSON.
 *
 * A push of thousands of commits is 25 MB of JSON of which five short texts matter, so no tree is
 * built.  The reader knows strings, numbers and nesting, keeps the members below and passes over
 * everything else, whatever its depth:
 *
 *     ref  after  sha  ref_type  event_name
 *     repository | project . clone_url git_http_url http_url | ssh_url git_ssh_url | html_url web_url
 *
 * Text that is no JSON may pass where a check would not change what is read: the sender is proven,
 * and all of it is a hint.  A member that is given twice: its last.
 */
#include "remote/webhook_int.h"

#include <stdio.h>
#include <strings.h>

/* ---- the text ---- */

bool webhook_is_form(const webhook_delivery *d)
{
    static const char form[] = "application/x-www-form-urlencoded";
    const char *type = d->header("Content-Type", d->header_ctx);

    return type != NULL && strncasecmp(type, form, sizeof(form) - 1) == 0 &&
           strchr(" ;", type[sizeof(form) - 1]) != NULL; /* also its end */
}

bool webhook_text_open(const webhook_delivery *d, webhook_text *ret)
{
    static const memfs_str name = { "payload=", 8 };
    memfs_str field, rest = d->body;
    bool has_more;

    *ret = (webhook_text){ .raw = d->body, .is_form = webhook_is_form(d) };
    if (!ret->is_form)
        return true;
    do {
        has_more = str_split(rest, '&', &field, &rest);
        if (!has_more)
            field = rest;
        if (str_starts_with(field, name)) {
            ret->raw = str_from(field, name.len);
            return true;
        }
    } while (has_more);
    return false;
}

int webhook_text_next(webhook_text *t)
{
    int high, low;
    char c;

    if (t->at >= t->raw.len)
        return -1;
    c = t->raw.ptr[t->at++];
    if (!t->is_form || (c != '%' && c != '+'))
        return (unsigned char)c;
    if (c == '+')
        return ' ';
    high = t->raw.len - t->at >= 2 ? str_hex_digit(t->raw.ptr[t->at]) : -1;
    low = high >= 0 ? str_hex_digit(t->raw.ptr[t->at + 1]) : -1;
    if (low < 0) {
        t->is_bad = true;
        t->at = t->raw.len;
        return -1;
    }
    t->at += 2;
    return high << 4 | low;
}

/* ---- JSON ---- */

typedef struct reader {
    webhook_text text;
    int c; /* the byte at hand; -1: the end */
} reader;

static int step(reader *r)
{
    r->c = webhook_text_next(&r->text);
    return r->c;
}

static int skip_space(reader *r)
{
    while (r->c == ' ' || r->c == '\t' || r->c == '\n' || r->c == '\r')
        step(r);
    return r->c;
}

/* A text being read: cut off, and then empty, when it does not fit. */
typedef struct text_out {
    char *ptr; /* NULL: passed over */
    size_t size, len;
    bool is_bad;
} text_out;

static void put_byte(text_out *o, char c)
{
    if (o->ptr == NULL)
        return;
    if (c == '\0' || o->len + 1 >= o->size)
        o->is_bad = true;
    else
        o->ptr[o->len++] = c;
}

static bool read_hex4(reader *r, uint32_t *ret)
{
    *ret = 0;
    for (int i = 0; i < 4; i++) {
        int digit = step(r) >= 0 ? str_hex_digit((char)r->c) : -1;

        if (digit < 0)
            return false;
        *ret = *ret << 4 | (uint32_t)digit;
    }
    step(r);
    return true;
}

static bool read_escape(reader *r, text_out *o);

static void put_char(text_out *o, uint32_t cp)
{
    char bytes[4];
    size_t n = str_utf8_put(cp, bytes);

    for (size_t i = 0; i < n; i++)
        put_byte(o, bytes[i]);
}

/* At the 'u'.  Halves of a pair that stand alone become U+FFFD. */
static bool read_unicode(reader *r, text_out *o)
{
    uint32_t cp, low;

    if (!read_hex4(r, &cp))
        return false;
    if (cp >= 0xD800 && cp < 0xDC00 && r->c == '\\') {
        if (step(r) != 'u') {
            put_char(o, 0xFFFD);
            return read_escape(r, o);
        }
        if (!read_hex4(r, &low))
            return false;
        cp = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00)
                                           : 0xFFFD;
    }
    if (cp >= 0xD800 && cp < 0xE000)
        cp = 0xFFFD;
    put_char(o, cp);
    return true;
}

/* Behind the backslash. */
static bool read_escape(reader *r, text_out *o)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at;

    if (r->c == 'u')
        return read_unicode(r, o);
    at = r->c > 0 ? strchr(from, r->c) : NULL;
    if (at == NULL)
        return false;
    put_byte(o, to[at - from]);
    step(r);
    return true;
}

/* At the opening quote; afterwards behind the closing one. */
static bool read_string(reader *r, char *out, size_t size)
{
    text_out o = { out, size, 0, false };

    for (step(r); r->c != '"';) {
        if (r->c < 0)
            return false;
        if (r->c != '\\') {
            put_byte(&o, (char)r->c);
            step(r);
            continue;
        }
        step(r);
        if (!read_escape(r, &o))
            return false;
    }
    step(r);
    if (out != NULL)
        out[o.is_bad ? 0 : o.len] = '\0';
    return true;
}

/* A number or a name; nobody needs to know which. */
static bool skip_word(reader *r)
{
    size_t n = 0;

    while (r->c > 0x20 && strchr(",]}:\"[{", r->c) == NULL) {
        step(r);
        n++;
    }
    return n > 0;
}

static bool skip_value(reader *r)
{
    size_t depth = 0;

    do {
        skip_space(r);
        if (r->c == '{' || r->c == '[') {
            depth++;
            step(r);
        } else if (depth > 0 && (r->c == '}' || r->c == ']')) {
            depth--;
            step(r);
        } else if (depth > 0 && (r->c == ',' || r->c == ':')) {
            step(r);
        } else if (r->c == '"') {
            if (!read_string(r, NULL, 0))
                return false;
        } else if (r->c < 0 || !skip_word(r)) {
            return false;
        }
    } while (depth > 0);
    return true;
}

/* A member that somebody wants: its text, if it is one. */
static bool read_text(reader *r, char *out, size_t size)
{
    if (skip_space(r) == '"')
        return read_string(r, out, size);
    out[0] = '\0';
    return skip_value(r);
}

#define MAX_KEY 40
typedef bool (*member_fn)(reader *r, const char *key, void *ctx); /* reads its value */

static bool read_member(reader *r, member_fn fn, void *ctx)
{
    char key[MAX_KEY];

    if (skip_space(r) != '"' || !read_string(r, key, sizeof(key)) || skip_space(r) != ':')
        return false;
    step(r);
    return fn(r, key, ctx);
}

static bool read_object(reader *r, member_fn fn, void *ctx)
{
    if (skip_space(r) != '{')
        return false;
    step(r);
    if (skip_space(r) == '}') {
        step(r);
        return true;
    }
    while (read_member(r, fn, ctx)) {
        char end = (char)skip_space(r);

        if (end != ',' && end != '}')
            return false;
        step(r);
        if (end == '}')
            return true;
    }
    return false;
}

/* ---- the hint ---- */

typedef struct said {
    char ref[300], after[80], sha[80], ref_type[16], event_name[40];
    webhook_hint *hint;
} said;

/* The names of the three kinds of address, over all hosts. */
static const char *const ADDRESS_KEYS[3][4] = {
    { "clone_url", "git_http_url", "http_url", NULL },
    { "ssh_url", "git_ssh_url", NULL, NULL },
    { "html_url", "web_url", NULL, NULL },
};

static char *address_for(webhook_hint *hint, const char *key)
{
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; ADDRESS_KEYS[i][j] != NULL; j++)
            if (strcmp(key, ADDRESS_KEYS[i][j]) == 0)
                return hint->addresses[i];
    return NULL;
}

static bool read_address(reader *r, const char *key, void *ctx)
{
    webhook_hint *hint = ctx;
    char *into = address_for(hint, key);

    return into != NULL ? read_text(r, into, sizeof(hint->addresses[0])) : skip_value(r);
}

static bool read_top(reader *r, const char *key, void *ctx)
{
    said *s = ctx;
    const struct { const char *key; char *into; size_t size; } members[] = {
        { "ref", s->ref, sizeof(s->ref) },
        { "after", s->after, sizeof(s->after) },
        { "sha", s->sha, sizeof(s->sha) },
        { "ref_type", s->ref_type, sizeof(s->ref_type) },
        { "event_name", s->event_name, sizeof(s->event_name) },
    };

    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        if (strcmp(key, members[i].key) == 0)
            return read_text(r, members[i].into, members[i].size);
    if ((strcmp(key, "repository") == 0 || strcmp(key, "project") == 0) && skip_space(r) == '{')
        return read_object(r, read_address, s->hint);
    return skip_value(r);
}

/* "push", "create" or "delete", whatever the host calls it; "": none of them. */
static const char *change_of(const webhook_proof *proof, const said *s)
{
    if (proof->kind == HOST_GITLAB) {
        bool is_push = strcmp(proof->event, "Push Hook") == 0 ||
                       (strcmp(proof->event, "System Hook") == 0 &&
                        strcmp(s->event_name, "push") == 0);
        return is_push ? "push" : "";
    }
    if (strcmp(proof->event, "push") == 0)
        return "push";
    if (strcmp(s->ref_type, "branch") != 0)
        return "";
    return strcmp(proof->event, "create") == 0 || strcmp(proof->event, "delete") == 0 ? proof->event
                                                                                    : "";
}

static void conclude(const webhook_proof *proof, const said *s, webhook_hint *ret)
{
    static const char branches[] = "refs/heads/";
    const char *change = change_of(proof, s), *after = s->after;
    bool is_whole = strncmp(s->ref, branches, sizeof(branches) - 1) == 0;

    if (change[0] == '\0' || (!is_whole && change[0] == 'p'))
        return; /* a tag, or something else altogether */
    if (s->ref[is_whole ? sizeof(branches) - 1 : 0] == '\0')
        return; /* a branch without a name */
    if (change[0] != 'p')
        after = change[0] == 'c' ? s->sha : "";
    ret->is_change = true;
    snprintf(ret->ref, sizeof(ret->ref), "%s%s", is_whole ? "" : branches, s->ref);
    if (!oid_parse(str_of(after), &ret->after))
        ret->after = (memfs_oid){ { 0 } };
}

memfs_code webhook_read(const webhook_delivery *d, const webhook_proof *proof, webhook_hint *ret,
                        memfs_error *err)
{
    said s = { .hint = ret };
    reader r = { .c = -1 };

    memset(ret, 0, sizeof(*ret));
    if (!webhook_text_open(d, &r.text))
        return memfs_fail(err, MEMFS_EINVALID, "the form has no field 'payload'");
    step(&r);
    if (!read_object(&r, read_top, &s) || skip_space(&r) >= 0 || r.text.is_bad) {
        memset(ret, 0, sizeof(*ret));
        return memfs_fail(err, MEMFS_EINVALID, "the delivery's body is not a JSON object");
    }
    conclude(proof, &s, ret);
    return MEMFS_OK;
}
