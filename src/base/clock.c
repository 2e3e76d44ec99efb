#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

/* Digits at the end of the n bytes at out, zeros before them. */
static void put_digits(char *out, size_t n, unsigned value)
{
    while (n-- > 0) {
        out[n] = (char)('0' + value % 10);
        value /= 10;
    }
}

/*
 * "YYYY-MM-DDTHH:MM:SS"; 0: the year needs more than four digits, or is before our count.
 *
 * Each line of the log has a time in it, and the C library's functions take a lock for the time
 * zone, even for UTC.  Days are counted from 0000-03-01, so that the odd day of leap years comes
 * last, in eras of 400 years (146,097 days).
 */
static size_t put_seconds(int64_t seconds, char out[CLOCK_ISO_LEN])
{
    const int64_t least = -INT64_C(62162035200), most = INT64_C(253402300799);
    unsigned days, era, year, month, rest;

    if (seconds < least || seconds > most)
        return 0;
    days = (unsigned)((seconds - least) / 86400);
    rest = (unsigned)((seconds - least) % 86400);
    era = days / 146097;
    days %= 146097;
    year = (days - days / 1460 + days / 36524 - days / 146096) / 365;
    days -= 365 * year + year / 4 - year / 100;
    month = (5 * days + 2) / 153; /* 0: March */
    memcpy(out, "0000-00-00T00:00:00", 20);
    put_digits(out, 4, era * 400 + year + (month >= 10));
    put_digits(out + 5, 2, month < 10 ? month + 3 : month - 9);
    put_digits(out + 8, 2, days - (153 * month + 2) / 5 + 1);
    put_digits(out + 11, 2, rest / 3600);
    put_digits(out + 14, 2, rest / 60 % 60);
    put_digits(out + 17, 2, rest % 60);
    return 19;
}

static size_t put_far_seconds(int64_t seconds, char out[CLOCK_ISO_LEN])
{
    time_t at = (time_t)seconds;
    struct tm tm;

    gmtime_r(&at, &tm);
    return strftime(out, CLOCK_ISO_LEN, "%Y-%m-%dT%H:%M:%S", &tm);
}

void clock_iso(int64_t wall_us, char out[CLOCK_ISO_LEN])
{
    int64_t micros = wall_us % 1000000, seconds = wall_us / 1000000;
    size_t n;

    if (micros < 0) {
        micros += 1000000;
        seconds--;
    }
    n = put_seconds(seconds, out);
    if (n == 0)
        n = put_far_seconds(seconds, out);
    if (micros != 0) {
        out[n] = '.';
        put_digits(out + n + 1, 6, (unsigned)micros);
        n += 7;
    }
    memcpy(out + n, "Z", 2);
}

static bool read_digits(const char **at, size_t n, int *ret)
{
    *ret = 0;
    for (size_t i = 0; i < n; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *ret = *ret * 10 + (**at - '0');
    }
    return true;
}

static bool read_char(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

bool clock_of_iso(const char *text, int64_t *ret_us)
{
    struct tm when = { .tm_isdst = 0 };
    int micros = 0;
    char again[CLOCK_ISO_LEN];
    const char *at = text;

    if (!read_digits(&at, 4, &when.tm_year) || !read_char(&at, '-') ||
        !read_digits(&at, 2, &when.tm_mon) || !read_char(&at, '-') ||
        !read_digits(&at, 2, &when.tm_mday) || !read_char(&at, 'T') ||
        !read_digits(&at, 2, &when.tm_hour) || !read_char(&at, ':') ||
        !read_digits(&at, 2, &when.tm_min) || !read_char(&at, ':') ||
        !read_digits(&at, 2, &when.tm_sec))
        return false;
    if (*at == '.' && (at++, !read_digits(&at, 6, &micros)))
        return false;
    if (!read_char(&at, 'Z') || *at != '\0' || when.tm_year < 1970 || when.tm_year > 2100)
        return false;
    when.tm_year -= 1900;
    when.tm_mon--;
    *ret_us = (int64_t)timegm(&when) * 1000000 + micros;
    clock_iso(*ret_us, again);
    return strcmp(again, text) == 0; /* no 31st of February */
}

void clock_sleep_ms(int64_t ms)
{
    struct timespec left = { ms / 1000, (ms % 1000) * 1000000 };

    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

void clock_cond_init(pthread_cond_t *ret)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(ret, &attr);
    pthread_condattr_destroy(&attr);
}

struct timespec clock_at(int64_t mono_ms)
{
    return (struct timespec){ .tv_sec = (time_t)(mono_ms / 1000),
                              .tv_nsec = (long)(mono_ms % 1000) * 1000000 };
}
