/*
 * Pushes as the store sees them: real packs made by git, hostile ones made by hand.
 */
#include "store_support.h"

static void test_a_first_push_makes_the_repository(void **state)
{
    fixture *f = *state;
    memfs_oid tip;

    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "system/human.md", "hello\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    assert_ok(f, store_tip(f->s, AGENT, &tip, &f->err));
    memfs_oid head = git_id(f, f->work, "HEAD");
    assert_true(oid_equal(&tip, &head));
    assert_whole(f, AGENT);
}

static void test_many_pushes_follow_each_other(void **state)
{
    fixture *f = *state;

    work_clone(f, NULL, f->work);
    for (int i = 0; i < 5; i++) {
        char name[32];

        snprintf(name, sizeof(name), "folder/%d.md", i);
        work_commit(f, f->work, name, name);
        assert_ok(f, push_head(f, f->work, AGENT, NULL));
    }
    assert_int_equal(store_pack_count(f->s, AGENT), 5);
    assert_whole(f, AGENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_first_push_makes_the_repository, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_many_pushes_follow_each_other, fixture_setup,
                                        fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
