#include "client/when.h"

#include <time.h>

#define MINUTE 60
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

/* Exactly n digits at the front. */
static bool take_digits(memfs_str *s, size_t n, int *ret)
{
    uint64_t value;

    if (s->len < n || !str_to_u64(str_make(s->ptr, n), 9999, &value))
        return false;
    *ret = (int)value;
    *s = str_from(*s, n);
    return true;
}

static bool take(memfs_str *s, char c)
{
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    *s = str_from(*s, 1);
    return true;
}

static bool parse_clock(memfs_str *s, struct tm *tm)
{
    if (!take_digits(s, 2, &tm->tm_hour) || !take(s, ':') || !take_digits(s, 2, &tm->tm_min))
        return false;
    tm->tm_sec = 0;
    if (take(s, ':') && !take_digits(s, 2, &tm->tm_sec))
        return false;
    return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec <= 60;
}

/* "", "Z", "+02:00", "-0330"; *ret_is_utc says if one was there. */
static bool parse_zone(memfs_str *s, bool *ret_is_utc, int64_t *ret_offset_s)
{
    bool is_east = take(s, '+');
    int hours, minutes;

    *ret_offset_s = 0;
    *ret_is_utc = is_east;
    if (!is_east && take(s, 'Z')) {
        *ret_is_utc = true;
        return s->len == 0;
    }
    if (!is_east && !take(s, '-'))
        return s->len == 0;
    *ret_is_utc = true;
    if (!take_digits(s, 2, &hours))
        return false;
    take(s, ':');
    if (!take_digits(s, 2, &minutes) || hours > 14 || minutes > 59)
        return false;
    *ret_offset_s = (is_east ? 1 : -1) * (hours * (int64_t)HOUR + minutes * MINUTE);
    return s->len == 0;
}

static bool parse_date(memfs_str s, int64_t *ret_s)
{
    struct tm tm = { .tm_hour = 23, .tm_min = 59, .tm_sec = 59, .tm_isdst = -1 };
    int year, month;
    int64_t offset_s;
    bool is_utc;
    time_t t;

    if (!take_digits(&s, 4, &year) || !take(&s, '-') || !take_digits(&s, 2, &month) ||
        !take(&s, '-') || !take_digits(&s, 2, &tm.tm_mday))
        return false;
    if (year < 1970 || month < 1 || month > 12 || tm.tm_mday < 1 || tm.tm_mday > 31)
        return false;
    if ((take(&s, ' ') || take(&s, 'T')) && !parse_clock(&s, &tm))
        return false;
    if (!parse_zone(&s, &is_utc, &offset_s))
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    t = is_utc ? timegm(&tm) : mktime(&tm);
    *ret_s = (int64_t)t - offset_s;
    return tm.tm_mon == month - 1; /* the 31st of a short month has moved on */
}

static bool parse_ago(memfs_str s, int64_t now_s, int64_t *ret_s)
{
    static const struct {
        memfs_str name;
        int64_t seconds;
    } units[] = {
        { MEMFS_STR("second"), 1 }, { MEMFS_STR("minute"), MINUTE }, { MEMFS_STR("hour"), HOUR },
        { MEMFS_STR("day"), DAY },  { MEMFS_STR("week"), 7 * DAY },
    };
    memfs_str count, rest, unit, ago;
    uint64_t n;

    if (!str_split(s, ' ', &count, &rest) || !str_split(rest, ' ', &unit, &ago) ||
        !str_equal(ago, MEMFS_STR("ago")) || !str_to_u64(count, 100000, &n))
        return false;
    if (unit.len > 0 && unit.ptr[unit.len - 1] == 's')
        unit.len--;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (!str_equal(unit, units[i].name))
            continue;
        *ret_s = now_s - (int64_t)n * units[i].seconds;
        return true;
    }
    return false;
}

bool when_parse(memfs_str text, int64_t now_s, int64_t *ret_s)
{
    uint64_t seconds;

    if (str_equal(text, MEMFS_STR("now")) || str_equal(text, MEMFS_STR("yesterday"))) {
        *ret_s = text.ptr[0] == 'n' ? now_s : now_s - DAY;
        return true;
    }
    if (text.len > 1 && text.ptr[0] == '@') {
        if (!str_to_u64(str_from(text, 1), INT64_MAX, &seconds))
            return false;
        *ret_s = (int64_t)seconds;
        return true;
    }
    return parse_date(text, ret_s) || parse_ago(text, now_s, ret_s);
}
