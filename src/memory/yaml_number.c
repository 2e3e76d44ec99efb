/*
 * Numbers and dates as text, read and written as Python does it.
 *
 * Explicit tags bring any text to Python's int() and float(): blanks around it, digits of any
 * script, a second sign after the one that YAML took.  So both are done here in full, over text in
 * which Python's white space and digits have been turned into ASCII first.
 *
 * Integers of up to YAML_MAX_DIGITS decimal digits are exact.
 */
#include "memory/yaml_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- big integers: sign and magnitude, just enough for reading ---- */

/* 10^4300 < 2^14285 */
#define MAX_LIMBS 448

typedef struct big {
    uint32_t limbs[MAX_LIMBS]; /* least first */
    size_t n;
    bool is_negative;
} big;

/* b = b * factor + add, on the magnitude.  False: it does not fit. */
static bool big_mul_add(big *b, uint32_t factor, uint32_t add)
{
    uint64_t carry = add;

    for (size_t i = 0; i < b->n; i++) {
        carry += (uint64_t)b->limbs[i] * factor;
        b->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry == 0)
        return true;
    if (b->n == MAX_LIMBS)
        return false;
    b->limbs[b->n++] = (uint32_t)carry;
    return true;
}

static int big_compare_magnitude(const big *a, const big *b)
{
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    for (size_t i = a->n; i-- > 0;)
        if (a->limbs[i] != b->limbs[i])
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
    return 0;
}

static bool big_add_magnitude(big *a, const big *b)
{
    uint64_t carry = 0;

    for (size_t i = 0; i < b->n || carry != 0; i++) {
        if (i == MAX_LIMBS)
            return false;
        if (i == a->n)
            a->limbs[a->n++] = 0;
        carry += (uint64_t)a->limbs[i] + (i < b->n ? b->limbs[i] : 0);
        a->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return true;
}

/* a = larger - smaller, where both may be a. */
static void big_subtract_magnitude(big *a, const big *larger, const big *smaller)
{
    int64_t borrow = 0;
    size_t n = larger->n;

    for (size_t i = 0; i < n; i++) {
        int64_t d = (int64_t)larger->limbs[i] - (i < smaller->n ? smaller->limbs[i] : 0) + borrow;

        a->limbs[i] = (uint32_t)d;
        borrow = d < 0 ? -1 : 0;
    }
    while (n > 0 && a->limbs[n - 1] == 0)
        n--;
    a->n = n;
}

static bool big_add(big *a, const big *b)
{
    if (a->is_negative == b->is_negative)
        return big_add_magnitude(a, b);
    if (big_compare_magnitude(a, b) >= 0) {
        big_subtract_magnitude(a, a, b);
    } else {
        big_subtract_magnitude(a, b, a);
        a->is_negative = b->is_negative;
    }
    return true;
}

/* The decimal digits, with a sign; consumes b. */
static void big_text(big *b, memfs_buf *out)
{
    uint32_t groups[MAX_LIMBS * 2];
    size_t n = 0;

    while (b->n > 0) {
        uint64_t rest = 0;

        for (size_t i = b->n; i-- > 0;) {
            rest = rest << 32 | b->limbs[i];
            b->limbs[i] = (uint32_t)(rest / 1000000000);
            rest %= 1000000000;
        }
        groups[n++] = (uint32_t)rest;
        while (b->n > 0 && b->limbs[b->n - 1] == 0)
            b->n--;
    }
    if (b->is_negative && n > 0)
        buf_putc(out, '-');
    buf_printf(out, "%u", n > 0 ? groups[n - 1] : 0);
    for (size_t i = n; i-- > 1;)
        buf_printf(out, "%09u", groups[i - 1]);
}

/* ---- text as Python's int() and float() see it ---- */

static const uint32_t DIGIT_ZEROS[] = {
    0x0030,  0x0660,  0x06F0,  0x07C0,  0x0966,  0x09E6,  0x0A66,  0x0AE6,  0x0B66,  0x0BE6,
    0x0C66,  0x0CE6,  0x0D66,  0x0DE6,  0x0E50,  0x0ED0,  0x0F20,  0x1040,  0x1090,  0x17E0,
    0x1810,  0x1946,  0x19D0,  0x1A80,  0x1A90,  0x1B50,  0x1BB0,  0x1C40,  0x1C50,  0xA620,
    0xA8D0,  0xA900,  0xA9D0,  0xA9F0,  0xAA50,  0xABF0,  0xFF10,  0x104A0, 0x10D30, 0x11066,
    0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0,
    0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2,
    0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
};

static bool is_python_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static char as_ascii(uint32_t cp)
{
    if (cp < 0x80 && !is_python_space(cp))
        return cp == 0 ? '?' : (char)cp;
    if (is_python_space(cp))
        return ' ';
    for (size_t i = 0; i < ARRAY_LEN(DIGIT_ZEROS); i++)
        if (cp >= DIGIT_ZEROS[i] && cp - DIGIT_ZEROS[i] < 10)
            return (char)('0' + (cp - DIGIT_ZEROS[i]));
    return '?';
}

/* Digits and blanks as ASCII, underscores dropped, anything else that is not ASCII as '?'. */
static void simplify(memfs_str s, memfs_buf *out)
{
    size_t pos = 0;

    while (pos < s.len) {
        uint32_t cp = yaml_next_cp(s, &pos);

        if (cp != '_')
            buf_putc(out, as_ascii(cp));
    }
}

static memfs_str strip(memfs_str s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = str_from(s, 1);
    while (s.len > 0 && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

static bool take_sign(memfs_str *s)
{
    bool is_negative = s->len > 0 && s->ptr[0] == '-';

    if (s->len > 0 && (s->ptr[0] == '-' || s->ptr[0] == '+'))
        *s = str_from(*s, 1);
    return is_negative;
}

static unsigned digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A') + 10;
    return 99;
}

/* ---- integers ---- */

/* int(s, base), which passes a prefix of its own base. */
static bool python_int(memfs_str s, unsigned base, big *ret)
{
    char mark = base == 2 ? 'b' : base == 8 ? 'o' : base == 16 ? 'x' : 0;

    ret->n = 0;
    s = strip(s);
    ret->is_negative = take_sign(&s);
    if (mark && s.len >= 2 && s.ptr[0] == '0' && (s.ptr[1] | 0x20) == mark)
        s = str_from(s, 2);
    if (s.len == 0 || (base == 10 && s.len > YAML_MAX_DIGITS))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = digit_of(s.ptr[i]);

        if (digit >= base || !big_mul_add(ret, base, digit))
            return false;
    }
    return true;
}

/* "1:30:00" in base 60, each part an int() of its own. */
static bool read_sixties(memfs_str s, big *ret)
{
    bool is_last = false;

    ret->n = 0;
    ret->is_negative = false;
    while (!is_last) {
        memfs_str part, rest;
        big digit;

        is_last = !str_split(s, ':', &part, &rest);
        if (is_last)
            part = s;
        if (!python_int(part, 10, &digit) || !big_mul_add(ret, 60, 0) || !big_add(ret, &digit))
            return false;
        if (!is_last)
            s = rest;
    }
    return true;
}

static bool read_by_form(memfs_str s, big *ret)
{
    if (str_starts_with(s, MEMFS_STR("0b")))
        return python_int(str_from(s, 2), 2, ret);
    if (str_starts_with(s, MEMFS_STR("0x")))
        return python_int(str_from(s, 2), 16, ret);
    if (s.ptr[0] == '0' && s.len > 1)
        return python_int(s, 8, ret);
    if (memchr(s.ptr, ':', s.len) != NULL)
        return read_sixties(s, ret);
    return python_int(s, 10, ret);
}

bool yaml_read_int(memfs_str s, yaml_doc *doc, yaml_value **ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    _cleanup_(buf_dispose) memfs_buf digits = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str rest;
    bool is_negative;
    big value;

    simplify(s, &text);
    rest = buf_str(&text);
    is_negative = take_sign(&rest);
    if (rest.len == 0 || !read_by_form(rest, &value))
        return false;
    value.is_negative = value.is_negative != is_negative;
    big_text(&value, &digits);
    if (digits.len - value.is_negative > YAML_MAX_DIGITS)
        return false;
    *ret = yaml_integer(doc, buf_str(&digits));
    return true;
}

/* ---- reals ---- */

static size_t count_digits(memfs_str s, size_t from)
{
    size_t n = 0;

    while (from + n < s.len && s.ptr[from + n] >= '0' && s.ptr[from + n] <= '9')
        n++;
    return n;
}

/* digits [. digits] [e [sign] digits], with a digit somewhere before the e */
static bool is_decimal(memfs_str s)
{
    size_t at = count_digits(s, 0), n = at;

    if (at < s.len && s.ptr[at] == '.') {
        size_t more = count_digits(s, at + 1);

        n += more;
        at += 1 + more;
    }
    if (n == 0)
        return false;
    if (at < s.len && s.ptr[at] == 'e') {
        at++;
        if (at < s.len && (s.ptr[at] == '+' || s.ptr[at] == '-'))
            at++;
        n = count_digits(s, at);
        if (n == 0)
            return false;
        at += n;
    }
    return at == s.len;
}

/* float(s), of text that is in lower case */
static bool python_float(memfs_str s, double *ret)
{
    bool is_negative;
    double d;

    s = strip(s);
    is_negative = take_sign(&s);
    if (str_equal(s, MEMFS_STR("inf")) || str_equal(s, MEMFS_STR("infinity"))) {
        d = INFINITY;
    } else if (str_equal(s, MEMFS_STR("nan"))) {
        d = NAN;
    } else if (is_decimal(s)) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);

        buf_add_str(&text, s);
        d = strtod(text.ptr, NULL);
    } else {
        return false;
    }
    *ret = is_negative ? -d : d;
    return true;
}

/* 60^k as Python makes an int of it a double: rounded once.  False: it is beyond all doubles. */
static bool power_of_60(const big *power, double *ret)
{
    _cleanup_(buf_dispose) memfs_buf digits = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    big copy = *power;

    big_text(&copy, &digits);
    *ret = strtod(digits.ptr, NULL);
    return isfinite(*ret);
}

/* Takes the part after the last ':' off s. */
static memfs_str last_part(memfs_str *s, bool *ret_is_first)
{
    size_t at = s->len;
    memfs_str part;

    while (at > 0 && s->ptr[at - 1] != ':')
        at--;
    part = str_from(*s, at);
    *ret_is_first = at == 0;
    s->len = at > 0 ? at - 1 : 0;
    return part;
}

static bool all_parts_are_floats(memfs_str s)
{
    bool is_first = false;
    double d;

    while (!is_first)
        if (!python_float(last_part(&s, &is_first), &d))
            return false;
    return true;
}

/* From the last part to the first, as the sum is rounded in that order. */
static bool read_sixties_real(memfs_str s, double *ret)
{
    big power = { .limbs = { 1 }, .n = 1 };
    bool is_first = false;
    double sum = 0;

    if (!all_parts_are_floats(s))
        return false;
    while (!is_first) {
        double digit, base;

        if (!python_float(last_part(&s, &is_first), &digit) || !power_of_60(&power, &base))
            return false;
        sum += digit * base;
        if (!is_first && !big_mul_add(&power, 60, 0))
            return false;
    }
    *ret = sum;
    return true;
}

bool yaml_read_float(memfs_str s, double *ret)
{
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(MEMFS_BUF_UNLIMITED);
    memfs_str rest;
    bool is_negative;

    simplify(s, &text);
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] >= 'A' && text.ptr[i] <= 'Z')
            text.ptr[i] |= 0x20;
    rest = buf_str(&text);
    is_negative = take_sign(&rest);
    if (rest.len == 0)
        return false;
    if (str_equal(rest, MEMFS_STR(".nan"))) {
        *ret = NAN;
        return true;
    }
    if (str_equal(rest, MEMFS_STR(".inf")))
        *ret = INFINITY;
    else if (memchr(rest.ptr, ':', rest.len) != NULL ? !read_sixties_real(rest, ret)
                                                     : !python_float(rest, ret))
        return false;
    if (is_negative)
        *ret = -*ret;
    return true;
}

/* Adds one to the last digit of "1.234e+05"; false when that would carry out of the first. */
static bool next_decimal(char *scientific)
{
    char *at = strchr(scientific, 'e');

    while (at-- > scientific) {
        if (*at == '.')
            continue;
        if (*at != '9') {
            ++*at;
            return true;
        }
        *at = '0';
    }
    return false;
}

static bool reads_back(const char *scientific, double d)
{
    return strtod(scientific, NULL) == d;
}

/*
 * The fewest digits that read back as d (finite, not negative), most first; returns the exponent.
 * The nearest decimal of each length is tried; for a power of two, whose neighbour below is twice
 * as near as the one above, also the next decimal up, which may read back where the nearest does
 * not.
 */
static int shortest_digits(double d, char digits[YAML_REAL_LEN])
{
    char scientific[YAML_REAL_LEN];
    size_t n = 0;
    int ignored;
    bool is_power = frexp(d, &ignored) == 0.5;

    for (int precision = 0; precision < 17; precision++) {
        snprintf(scientific, sizeof(scientific), "%.*e", precision, d);
        if (reads_back(scientific, d) ||
            (is_power && next_decimal(scientific) && reads_back(scientific, d)))
            break;
    }
    for (const char *at = scientific; *at != 'e'; at++)
        if (*at != '.')
            digits[n++] = *at;
    digits[n] = '\0';
    return (int)strtol(strchr(scientific, 'e') + 1, NULL, 10);
}

/* Laid out as Python's repr does it: with an exponent below -4 and from 16 on. */
void yaml_real_text(double d, char out[YAML_REAL_LEN])
{
    const char *sign = signbit(d) ? "-" : "", *zeros = "0000000000000000";
    char digits[YAML_REAL_LEN];
    int exponent, n;

    if (!isfinite(d)) {
        snprintf(out, YAML_REAL_LEN, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    exponent = shortest_digits(fabs(d), digits);
    n = (int)strlen(digits);
    if (exponent < -4 || exponent >= 16)
        snprintf(out, YAML_REAL_LEN, "%s%c%s%.17se%+03d", sign, digits[0], n > 1 ? "." : "",
                 digits + 1, exponent);
    else if (exponent < 0)
        snprintf(out, YAML_REAL_LEN, "%s0.%.*s%.17s", sign, -exponent - 1, zeros, digits);
    else if (n <= exponent + 1)
        snprintf(out, YAML_REAL_LEN, "%s%.17s%.*s.0", sign, digits, exponent + 1 - n, zeros);
    else
        snprintf(out, YAML_REAL_LEN, "%s%.*s.%.17s", sign, exponent + 1, digits,
                 digits + exponent + 1);
}

/* ---- dates ---- */

static int number(memfs_str digits)
{
    int n = 0;

    for (size_t i = 0; i < digits.len; i++)
        n = n * 10 + (digits.ptr[i] - '0');
    return n;
}

static int days_in(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && is_leap);
}

static uint32_t microseconds(memfs_str fraction)
{
    uint32_t n = 0;

    for (size_t i = 0; i < 6; i++)
        n = n * 10 + (i < fraction.len ? (uint32_t)(fraction.ptr[i] - '0') : 0);
    return n;
}

static bool set_zone(const yaml_time_parts *parts, yaml_time *t)
{
    int minutes = number(parts->zone_hour) * 60 + number(parts->zone_minute);

    t->has_offset = parts->zone != 0;
    if (minutes >= 24 * 60)
        return false;
    t->offset_min = (int16_t)(parts->zone == '-' ? -minutes : minutes);
    return true;
}

bool yaml_read_time(memfs_str s, yaml_doc *doc, yaml_value **ret)
{
    yaml_time_parts parts;
    yaml_time t = { .year = 0 };
    int month, day, hour, minute, second;

    if (!yaml_match_time(s, false, &parts))
        return false;
    t.year = (int16_t)number(parts.year);
    month = number(parts.month);
    day = number(parts.day);
    hour = number(parts.hour);
    minute = number(parts.minute);
    second = number(parts.second);
    if (t.year < 1 || month < 1 || month > 12 || day < 1 || day > days_in(t.year, month) ||
        hour > 23 || minute > 59 || second > 59 || !set_zone(&parts, &t))
        return false;
    t.month = (uint8_t)month;
    t.day = (uint8_t)day;
    t.hour = (uint8_t)hour;
    t.minute = (uint8_t)minute;
    t.second = (uint8_t)second;
    t.microsecond = microseconds(parts.fraction);
    *ret = yaml_moment(doc, parts.hour.len > 0 ? YAML_DATETIME : YAML_DATE, &t);
    return true;
}

void yaml_time_text(const yaml_value *v, char between, char out[YAML_TIME_LEN])
{
    const yaml_time *t = &v->time;
    int offset = t->offset_min < 0 ? -t->offset_min : t->offset_min;
    char fraction[16] = "", zone[16] = "";

    if (v->type == YAML_DATE) {
        snprintf(out, YAML_TIME_LEN, "%04d-%02u-%02u", t->year, t->month, t->day);
        return;
    }
    if (t->microsecond > 0)
        snprintf(fraction, sizeof(fraction), ".%06u", t->microsecond);
    if (t->has_offset)
        snprintf(zone, sizeof(zone), "%c%02d:%02d", t->offset_min < 0 ? '-' : '+', offset / 60,
                 offset % 60);
    snprintf(out, YAML_TIME_LEN, "%04d-%02u-%02u%c%02u:%02u:%02u%s%s", t->year, t->month, t->day,
             between, t->hour, t->minute, t->second, fraction, zone);
}
