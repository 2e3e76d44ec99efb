/*
 * The type of a plain scalar by its form, as YAML 1.1 has it in PyYAML (block-format 3).
 *
 * Each form is a small matcher that moves a cursor, so the whole costs one pass.  As Python's `$`
 * matches before a final newline too, so do these; only a bare "!" tag on quoted text can bring
 * one.
 */
#include "memory/yaml_int.h"

typedef struct cursor {
    const char *at, *end;
} cursor;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool at_end(const cursor *c)
{
    return c->at == c->end || (c->end - c->at == 1 && *c->at == '\n');
}

static bool take(cursor *c, char wanted)
{
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static void take_sign(cursor *c)
{
    if (!take(c, '-'))
        take(c, '+');
}

static size_t take_set(cursor *c, const char *set)
{
    const char *start = c->at;

    while (c->at < c->end && *c->at != '\0' && strchr(set, *c->at) != NULL)
        c->at++;
    return (size_t)(c->at - start);
}

#define DIGITS "0123456789"

/* (:[0-5]?[0-9])+ */
static bool take_sixties(cursor *c)
{
    size_t n = 0;

    for (; take(c, ':'); n++) {
        const char *start = c->at;
        size_t digits = take_set(c, DIGITS);

        if (digits < 1 || digits > 2 || (digits == 2 && *start > '5'))
            return false;
    }
    return n > 0;
}

static bool is_integer(cursor c)
{
    cursor start;

    take_sign(&c);
    start = c;
    if (take(&c, '0')) {
        if (at_end(&c))
            return true;
        if (take(&c, 'b'))
            return take_set(&c, "01_") > 0 && at_end(&c);
        if (take(&c, 'x'))
            return take_set(&c, DIGITS "abcdefABCDEF_") > 0 && at_end(&c);
        return take_set(&c, "01234567_") > 0 && at_end(&c);
    }
    c = start;
    if (c.at == c.end || !is_digit(*c.at))
        return false;
    take_set(&c, DIGITS "_");
    return at_end(&c) || (take_sixties(&c) && at_end(&c));
}

/* ([eE][-+][0-9]+)? */
static bool take_exponent(cursor *c)
{
    if (!take(c, 'e') && !take(c, 'E'))
        return true;
    if (!take(c, '-') && !take(c, '+'))
        return false;
    return take_set(c, DIGITS) > 0;
}

static bool is_word(cursor c, const char *const *words)
{
    size_t len = (size_t)(c.end - c.at);

    for (; *words != NULL; words++) {
        size_t n = strlen(*words);

        if ((len == n || (len == n + 1 && c.at[n] == '\n')) && memcmp(c.at, *words, n) == 0)
            return true;
    }
    return false;
}

static bool is_special_real(cursor c)
{
    static const char *const nans[] = { ".nan", ".NaN", ".NAN", NULL };
    static const char *const infinities[] = { ".inf", ".Inf", ".INF", NULL };

    if (is_word(c, nans))
        return true;
    take_sign(&c);
    return is_word(c, infinities);
}

static bool is_real(cursor c)
{
    cursor start = c;

    if (is_special_real(c))
        return true;
    if (take(&c, '.'))
        return c.at < c.end && is_digit(*c.at) && take_set(&c, DIGITS "_") > 0 &&
               take_exponent(&c) && at_end(&c);
    c = start;
    take_sign(&c);
    if (c.at == c.end || !is_digit(*c.at))
        return false;
    take_set(&c, DIGITS "_");
    start = c;
    if (take(&c, '.')) {
        take_set(&c, DIGITS "_");
        return take_exponent(&c) && at_end(&c);
    }
    c = start;
    if (!take_sixties(&c) || !take(&c, '.'))
        return false;
    take_set(&c, DIGITS "_");
    return at_end(&c);
}

/* ---- dates ---- */

static bool take_digits(cursor *c, size_t least, size_t most, memfs_str *ret)
{
    const char *start = c->at;

    while (c->at < c->end && is_digit(*c->at) && (size_t)(c->at - start) < most)
        c->at++;
    *ret = str_make(start, (size_t)(c->at - start));
    return ret->len >= least;
}

static bool take_zone(cursor *c, yaml_time_parts *t)
{
    cursor start = *c;

    take_set(c, " \t");
    if (take(c, 'Z')) {
        t->zone = 'Z';
        return true;
    }
    if (c->at < c->end && (*c->at == '+' || *c->at == '-')) {
        t->zone = *c->at++;
        if (!take_digits(c, 1, 2, &t->zone_hour))
            return false;
        return !take(c, ':') || take_digits(c, 2, 2, &t->zone_minute);
    }
    *c = start;
    return true;
}

static bool take_clock(cursor *c, yaml_time_parts *t)
{
    if (!take(c, 'T') && !take(c, 't') && take_set(c, " \t") == 0)
        return false;
    if (!take_digits(c, 1, 2, &t->hour) || !take(c, ':') || !take_digits(c, 2, 2, &t->minute) ||
        !take(c, ':') || !take_digits(c, 2, 2, &t->second))
        return false;
    if (take(c, '.') && !take_digits(c, 0, SIZE_MAX, &t->fraction))
        return false;
    return take_zone(c, t);
}

/* is_strict: a date alone needs two digits for month and day, as a plain scalar does. */
bool yaml_match_time(memfs_str s, bool is_strict, yaml_time_parts *ret)
{
    cursor c = { s.ptr, s.ptr + s.len };

    *ret = (yaml_time_parts){ .zone = 0 };
    if (!take_digits(&c, 4, 4, &ret->year) || !take(&c, '-') ||
        !take_digits(&c, 1, 2, &ret->month) || !take(&c, '-') || !take_digits(&c, 1, 2, &ret->day))
        return false;
    if (at_end(&c))
        return !is_strict || (ret->month.len == 2 && ret->day.len == 2);
    return take_clock(&c, ret) && at_end(&c);
}

/* ---- all of them ---- */

yaml_tag yaml_resolve(memfs_str plain)
{
    static const char *const bools[] = {
        "yes",   "Yes",   "YES", "no", "No", "NO",  "true", "True", "TRUE", "false",
        "False", "FALSE", "on",  "On", "ON", "off", "Off",  "OFF",  NULL,
    };
    static const char *const nulls[] = { "~", "null", "Null", "NULL", NULL };
    static const char *const merge[] = { "<<", NULL };
    static const char *const value[] = { "=", NULL };
    cursor c = { plain.ptr, plain.ptr + plain.len };
    yaml_time_parts parts;

    if (plain.len == 0 || is_word(c, nulls))
        return TAG_NULL;
    if (is_word(c, bools))
        return TAG_BOOL;
    if (is_word(c, merge))
        return TAG_MERGE;
    if (is_word(c, value))
        return TAG_VALUE;
    if (strchr("-+." DIGITS, plain.ptr[0]) == NULL || plain.ptr[0] == '\0')
        return TAG_STR;
    if (is_real(c))
        return TAG_FLOAT;
    if (is_integer(c))
        return TAG_INT;
    return yaml_match_time(plain, true, &parts) ? TAG_TIMESTAMP : TAG_STR;
}
