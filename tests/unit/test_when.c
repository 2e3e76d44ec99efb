/* Points in time as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "client/when.h"

#define NOW 1763820000 /* 2025-11-22T14:00:00Z */

static void times_are_read(void **state)
{
    static const struct {
        const char *text;
        int64_t expected; /* in a zone that is UTC+2 */
    } rows[] = {
        { "now", NOW },
        { "yesterday", NOW - 86400 },
        { "@0", 0 },
        { "@1763820000", NOW },
        { "2025-11-22T14:00:00Z", NOW },
        { "2025-11-22 14:00Z", NOW },
        { "2025-11-22 16:00", NOW },
        { "2025-11-22T16:00:30", NOW + 30 },
        { "2025-11-22T15:00:00+01:00", NOW },
        { "2025-11-22T10:30:00-0330", NOW },
        { "2025-11-22", NOW + 8 * 3600 - 1 },
        { "90 minutes ago", NOW - 5400 },
        { "1 hour ago", NOW - 3600 },
        { "3 days ago", NOW - 3 * 86400 },
        { "2 weeks ago", NOW - 14 * 86400 },
        { "0 seconds ago", NOW },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t got = -1;

        if (!when_parse(str_of(rows[i].text), NOW, &got) || got != rows[i].expected)
            fail_msg("'%s' gave %lld, expected %lld", rows[i].text, (long long)got,
                     (long long)rows[i].expected);
    }
}

static void what_may_be_a_commit_is_no_time(void **state)
{
    static const char *const rows[] = {
        "",          "main",      "HEAD",       "HEAD~2",      "2025",        "20251122",
        "120d",      "abcd",      "@",          "@{1}",        "2025-11",     "2025-13-01",
        "2025-02-31","2025-11-22 25:00", "2025-11-22 14", "2025-11-22Tx", "2025-11-22 14:00 ",
        "3 days",    "x days ago", "3 moons ago", "3  days ago", "2025-11-22+1",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t got;

        if (when_parse(str_of(rows[i]), NOW, &got))
            fail_msg("'%s' was taken for a time", rows[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(what_may_be_a_commit_is_no_time),
    };

    setenv("TZ", "XXX-2", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
