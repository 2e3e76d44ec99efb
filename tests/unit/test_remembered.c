/*
 * How long an answer of a remote is believed (remembered.h): the refusal of a credential that is ours to
 * see until it changes, any other one for a while.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "client/remembered.h"

#include <stdlib.h>

#define NOW 1800000000

static int64_t believed_s(const char *secret, credential_source source, remote_answer answer,
                          int64_t retry_after_s)
{
    const remote_target t = {
        .url = { .text = (char[]){ "https://git.example/a.git" } },
        .cred = { .source = source, .secret = secret != NULL ? mem_strdup(secret) : NULL },
    };
    const probe_result heard = { .answer = answer, .retry_after_s = retry_after_s };
    remembered r;

    remembered_next(NULL, &t, &heard, NOW, &r);
    free(t.cred.secret);
    assert_true(remembered_holds(&r, NOW));
    assert_true(remembered_holds(&r, r.until_s - 1));
    assert_false(remembered_holds(&r, r.until_s));
    return r.until_s - NOW;
}

static void the_refusal_of_a_known_secret_is_believed_until_it_changes(void **state)
{
    (void)state;
    assert_int_equal(believed_s("tok", CREDENTIAL_SECRETS, REMOTE_UNAUTHORIZED, 0), 86400);
    assert_int_equal(believed_s("tok", CREDENTIAL_ENVIRONMENT, REMOTE_FORBIDDEN, 0), 86400);
}

/* The watcher was silent for a day after a key was added to the host, or a password to a helper. */
static void the_refusal_of_what_we_cannot_see_is_asked_about_again(void **state)
{
    (void)state;
    assert_int_equal(believed_s(NULL, CREDENTIAL_GIT_HELPERS, REMOTE_UNAUTHORIZED, 0), 900);
    assert_int_equal(believed_s(NULL, CREDENTIAL_NONE, REMOTE_FORBIDDEN, 0), 900);
    assert_int_equal(believed_s(NULL, CREDENTIAL_NONE, REMOTE_UNAUTHORIZED, 0), 900); /* ssh */
    /* a remote that names its own time is heard in any case */
    assert_int_equal(believed_s(NULL, CREDENTIAL_NONE, REMOTE_UNAUTHORIZED, 1800), 1800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_refusal_of_a_known_secret_is_believed_until_it_changes),
        cmocka_unit_test(the_refusal_of_what_we_cannot_see_is_asked_about_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
