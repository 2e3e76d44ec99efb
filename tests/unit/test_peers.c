/* Which addresses an option names (T03). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "server/peers.h"

static void test_T03_addresses_and_networks(void **state)
{
    static const struct {
        const char *list, *address;
        bool has;
    } rows[] = {
        { "10.1.2.3", "10.1.2.3", true },
        { "10.1.2.3", "10.1.2.4", false },
        { "10.1.2.3", "::ffff:10.1.2.3", true },
        { "::ffff:10.1.2.3", "10.1.2.3", true },
        { "172.16.0.0/12", "172.16.0.1", true },
        { "172.16.0.0/12", "172.31.255.255", true },
        { "172.16.0.0/12", "172.32.0.0", false },
        { "0.0.0.0/0", "203.0.113.9", true },
        { "0.0.0.0/0", "2001:db8::1", false },
        { "10.0.0.0/31", "10.0.0.1", true },
        { "10.0.0.0/31", "10.0.0.2", false },
        { "fd00::/8", "fd12::1", true },
        { "fd00::/8", "fe80::1", false },
        { "::1", "::1", true },
        { "::1", "127.0.0.1", false },
        { "10.9.8.7,127.0.0.1,::1", "::1", true },
        { "10.9.8.7,127.0.0.1,::1", "127.0.0.1", true },
        { "10.9.8.7,127.0.0.1,::1", "10.9.8.8", false },
        { "127.0.0.1", "", false },       /* the home's socket */
        { "127.0.0.1", "letta", false },
        { "::/0", "::ffff:10.1.2.3", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memfs_error err;
        peers *p = NULL;

        assert_int_equal(peers_parse(rows[i].list, &p, &err), MEMFS_OK);
        if (peers_have(p, rows[i].address) != rows[i].has)
            fail_msg("'%s' and '%s'", rows[i].list, rows[i].address);
        peers_free(p);
    }
}

static void test_what_is_no_address_is_named(void **state)
{
    static const char *const bad[] = { "", ",", "letta", "10.1.2", "10.1.2.3,", "10.1.2.3/33",
                                       "10.1.2.3/", "::1/129", "10.1.2.3/-1", "10.1.2.3 ", "10.1.2.3/8/8" };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memfs_error err;
        peers *p = NULL;

        if (peers_parse(bad[i], &p, &err) != MEMFS_EINVALID)
            fail_msg("'%s' was taken", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_T03_addresses_and_networks),
        cmocka_unit_test(test_what_is_no_address_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
