/*
 * A Letta server's folder, between two steps: what the server wrote is never written over, and
 * nothing is made where it does not belong.  The rules of the folder are tests/integration/
 * test_service.py.
 */
#include "store_support.h"

#include "base/clock.h"
#include "letta/folder.h"
#include "letta/reread.h"
#include "letta/sweep.h"
#include "memory/ids.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define ADA "agent-11111111-1111-4111-8111-111111111111"
#define ORG "org-22222222-2222-4222-8222-222222222222"
#define WAIT_MS 60000

static const memfs_oid NONE;

typedef struct folders {
    fixture *f;
    letta_folder *folder;
    char root[100], repo[300];
    memfs_oid first, second; /* commits of AGENT, one after the other */
} folders;

static void begin(folders *k, fixture *f)
{
    *k = (folders){ .f = f };
    snprintf(k->root, sizeof(k->root), "%s/letta", f->root);
    snprintf(k->repo, sizeof(k->repo), "%s/repository/" ORG "/" ADA "/repo.git", k->root);
    assert_int_equal(mkdir(k->root, 0755), 0);
    k->folder = letta_folder_new(k->root);
    work_clone(f, NULL, f->work);
    work_commit(f, f->work, "a.md", "one\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    k->first = tip_of(f, AGENT);
    work_commit(f, f->work, "a.md", "two\n");
    assert_ok(f, push_head(f, f->work, AGENT, NULL));
    k->second = tip_of(f, AGENT);
}

static void end(folders *k)
{
    letta_folder_free(k->folder);
}

static memfs_code publish(folders *k, const memfs_oid *expected, const memfs_oid *tip)
{
    bool is_moved;
    memfs_code rc =
        letta_folder_publish(k->folder, k->f->s, AGENT, ADA, expected, tip, &is_moved, &k->f->err);

    assert_int_equal(is_moved, rc == MEMFS_OK);
    return rc;
}

static void assert_main(folders *k, const memfs_oid *want)
{
    letta_place place;
    memfs_oid tip;

    assert_ok(k->f, letta_folder_tip(k->folder, ADA, &place, &tip, &k->f->err));
    assert_int_equal(place, LETTA_THERE);
    assert_true(oid_equal(&tip, want));
}

static void test_made_where_the_server_said_and_moved_from_there(void **state)
{
    letta_place place;
    folders k;
    memfs_oid tip;

    begin(&k, *state);
    assert_code(k.f, MEMFS_ENOTFOUND, letta_folder_tip(k.folder, ADA, &place, &tip, &k.f->err));
    assert_int_equal(place, LETTA_UNKNOWN);
    assert_true(letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG)));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    assert_main(&k, &k.first);
    assert_ok(k.f, publish(&k, &k.first, &k.second));
    assert_main(&k, &k.second);
    git(k.f, k.repo, "--git-dir", k.repo, "fsck", "--full", "--strict");
    end(&k);
}

static void test_T01_what_is_no_organization_names_no_folder(void **state)
{
    static const char *const bad[] = { "",
                                       "org-1",
                                       "../x",
                                       ORG "/..",
                                       "agent-11111111-1111-4111-8111-"
                                       "111111111111",
                                       "ORG-22222222-2222-4222-8222-222222222222" };
    folders k;

    begin(&k, *state);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(letta_folder_told(k.folder, MEMFS_STR(ADA), str_of(bad[i])));
    assert_false(letta_folder_told(k.folder, MEMFS_STR("../x"), MEMFS_STR(ORG)));
    end(&k);
}

/* The look was a moment ago: what came since stays, and is there to be taken in. */
static void test_H2_what_the_server_wrote_since_the_look_is_not_written_over(void **state)
{
    _cleanup_(mem_freep) char *main_path = NULL;
    struct stat before, after;
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    main_path = mem_printf("%s/refs/heads/main", k.repo);
    assert_int_equal(stat(main_path, &before), 0);
    assert_code(k.f, MEMFS_ECONFLICT, publish(&k, &k.second, &k.second));
    assert_main(&k, &k.first);
    assert_int_equal(stat(main_path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino); /* what the server has open is what returned */
    assert_ok(k.f, publish(&k, &k.first, &k.second));
    assert_main(&k, &k.second);
    end(&k);
}

static void test_H2_a_repository_that_the_server_makes_first_stays(void **state)
{
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    assert_code(k.f, MEMFS_ECONFLICT, publish(&k, &NONE, &k.second));
    assert_main(&k, &k.first);
    end(&k);
}

static void test_F16_what_is_gone_is_not_made_up(void **state)
{
    _cleanup_(mem_freep) char *orgs = NULL;
    letta_place place;
    folders k;
    memfs_oid tip;

    begin(&k, *state);
    orgs = mem_printf("%s/repository", k.root);
    assert_code(k.f, MEMFS_ECONFLICT, publish(&k, &k.first, &k.second));
    assert_false(fs_exists(orgs));
    assert_ok(k.f, fs_remove_tree(k.root, &k.f->err));
    assert_code(k.f, MEMFS_EUNAVAIL, letta_folder_tip(k.folder, ADA, &place, &tip, &k.f->err));
    assert_code(k.f, MEMFS_EUNAVAIL, publish(&k, &NONE, &k.first));
    assert_false(fs_exists(k.root));
    end(&k);
}

/* root's rights to read all, too, of this thread: what cannot be read then is mode 0. */
static void set_reads_all(bool reads_all)
{
    const uint32_t bits = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct caps[2];

    assert_int_equal(syscall(SYS_capget, &head, caps), 0);
    caps[0].effective =
        reads_all ? caps[0].effective | (caps[0].permitted & bits) : caps[0].effective & ~bits;
    assert_int_equal(syscall(SYS_capset, &head, caps), 0);
}

static memfs_code tip_unread(folders *k, const char *path)
{
    letta_place place;
    memfs_code rc;
    memfs_oid tip;

    assert_int_equal(chmod(path, 0), 0);
    set_reads_all(false);
    rc = letta_folder_tip(k->folder, ADA, &place, &tip, &k->f->err);
    set_reads_all(true);
    assert_int_equal(chmod(path, 0700), 0);
    return rc;
}

static void test_F16_what_cannot_be_looked_at_is_not_taken_for_nothing(void **state)
{
    _cleanup_(mem_freep) char *orgs = NULL, *agent = NULL;
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    orgs = mem_printf("%s/repository", k.root);
    agent = mem_printf("%s/" ORG "/" ADA, orgs);
    assert_code(k.f, MEMFS_EUNAVAIL, tip_unread(&k, orgs));
    assert_code(k.f, MEMFS_ECORRUPT, tip_unread(&k, agent));
    assert_main(&k, &k.first);
    letta_folder_free(k.folder); /* a new one was told nothing */
    k.folder = letta_folder_new(k.root);
    assert_int_equal(chmod(orgs, 0), 0);
    set_reads_all(false);
    assert_code(k.f, MEMFS_EUNAVAIL,
                letta_folder_admits(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG), true, &k.f->err));
    set_reads_all(true);
    assert_int_equal(chmod(orgs, 0700), 0);
    end(&k);
}

typedef struct lefts {
    memfs_oid seen[4];
    size_t n;
    bool is_taken;
} lefts;

static bool on_left(const memfs_oid *id, int64_t age_s, const char *stage, void *ctx)
{
    lefts *l = ctx;

    assert_true(fs_exists(stage));
    assert_true(age_s < WAIT_MS / 1000);
    if (l->n < ARRAY_LEN(l->seen))
        l->seen[l->n++] = *id;
    return l->is_taken;
}

static void leave(folders *k, const char *stage, const char *name, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", stage, name);

    if (!fs_exists(stage))
        assert_int_equal(mkdir(stage, 0700), 0);
    assert_ok(k->f, fs_write_atomic(path, str_of(text), 0644, &k->f->err));
}

static void test_H2_what_a_kill_left_stays_until_it_is_taken(void **state)
{
    _cleanup_(mem_freep) char *stage = NULL, *line = NULL;
    char hex[MEMFS_OID_HEX + 1];
    lefts l = { .n = 0 };
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    assert_false(letta_folder_has_left(k.folder, ADA));
    stage = mem_printf("%s/repository/" ORG "/" ADA "/.memfs-0123456789ab", k.root);
    oid_hex(&k.second, hex);
    line = mem_printf("%s\n", hex);
    leave(&k, stage, "before", line);
    leave(&k, stage, "main", "");
    assert_true(letta_folder_has_left(k.folder, ADA));
    letta_folder_each_left(k.folder, ADA, on_left, &l);
    assert_int_equal(l.n, 2);
    assert_true(oid_is_zero(&l.seen[0]) && oid_equal(&l.seen[1], &k.second));
    assert_true(fs_exists(stage));
    assert_ok(k.f, publish(&k, &k.first, &k.second)); /* not by a publish, either */
    assert_true(fs_exists(stage));
    l.is_taken = true;
    letta_folder_each_left(k.folder, ADA, on_left, &l);
    assert_false(fs_exists(stage));
    assert_int_equal(mkdir(stage, 0700), 0); /* it had come no further: nothing can be lost */
    assert_true(letta_folder_has_left(k.folder, ADA));
    assert_true(fs_exists(stage)); /* as a publish may be at it */
    letta_folder_each_left(k.folder, ADA, on_left, &l);
    assert_false(fs_exists(stage));
    end(&k);
}

/* An error of the volume's is no proof that nothing was written: it may name a commit. */
static void test_H2_what_was_left_and_cannot_be_read_is_not_removed(void **state)
{
    _cleanup_(mem_freep) char *stage = NULL, *path = NULL;
    lefts l = { .is_taken = true };
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    stage = mem_printf("%s/repository/" ORG "/" ADA "/.memfs-0123456789ab", k.root);
    path = mem_printf("%s/main", stage);
    leave(&k, stage, "main", "x\n");
    assert_int_equal(chmod(path, 0), 0);
    set_reads_all(false);
    letta_folder_each_left(k.folder, ADA, on_left, &l);
    set_reads_all(true);
    assert_int_equal(l.n, 1);
    assert_true(fs_exists(path));
    assert_int_equal(chmod(path, 0600), 0);
    letta_folder_each_left(k.folder, ADA, on_left, &l);
    assert_false(fs_exists(stage)); /* it was read now, and is nothing */
    end(&k);
}

/* It would be read, and removed, in the place of what somebody else chose. */
static void test_T01_a_link_beside_the_repository_is_nothing_left(void **state)
{
    _cleanup_(mem_freep) char *stage = NULL, *elsewhere = NULL, *kept = NULL;
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    stage = mem_printf("%s/repository/" ORG "/" ADA "/.memfs-0123456789ab", k.root);
    elsewhere = mem_printf("%s/elsewhere", k.f->home);
    kept = mem_printf("%s/main", elsewhere);
    leave(&k, elsewhere, "main", "x\n");
    assert_int_equal(symlink(elsewhere, stage), 0);
    assert_false(letta_folder_has_left(k.folder, ADA));
    assert_true(fs_exists(kept));
    end(&k);
}

/* ---- sweep ---- */

typedef struct told_of {
    atomic_uint n_first, n_changed;
} told_of;

static void on_written(const char *agent_id, bool is_first, void *ctx)
{
    told_of *t = ctx;

    assert_string_equal(agent_id, ADA);
    atomic_fetch_add(is_first ? &t->n_first : &t->n_changed, 1);
}

static void wait_for(atomic_uint *n, unsigned want)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;

    while (atomic_load(n) < want && clock_mono_ms() < until_ms)
        clock_sleep_ms(5);
    assert_true(atomic_load(n) >= want);
}

static void test_the_sweep_tells_of_what_is_new_and_what_changed(void **state)
{
    told_of t = { 0 };
    sweep *s = NULL;
    folders k;

    begin(&k, *state);
    letta_folder_told(k.folder, MEMFS_STR(ADA), MEMFS_STR(ORG));
    assert_ok(k.f, sweep_start(k.folder, on_written, &t, &s, &k.f->err));
    assert_ok(k.f, publish(&k, &NONE, &k.first));
    wait_for(&t.n_first, 1);
    assert_int_equal(atomic_load(&t.n_changed), 0);
    assert_ok(k.f, publish(&k, &k.first, &k.second));
    wait_for(&t.n_changed, 1);
    sweep_stop(s);
    assert_int_equal(atomic_load(&t.n_first), 1);
    end(&k);
}

/* ---- re-reads ---- */

static void test_S3_an_address_holds_no_password_and_is_one(void **state)
{
    static const char *const good[] = { "http://letta:8283", "https://letta.example.com/",
                                        "http://[::1]:8283" };
    static const char *const bad[] = {
        "letta:8283",     "http://u:p@letta", "http://", "ftp://letta",
        "http://letta?x", "http://a b",       ""
    };
    memfs_error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(reread_check_url(good[i], &err), MEMFS_OK);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(reread_check_url(bad[i], &err), MEMFS_EINVALID);
}

static void wait_gone(const char *path)
{
    int64_t until_ms = clock_mono_ms() + WAIT_MS;

    while (fs_exists(path) && clock_mono_ms() < until_ms)
        clock_sleep_ms(5);
    assert_false(fs_exists(path));
}

/* Nobody listens, so all that is owed stays written down; a stop does not wait for the network. */
static void test_L3_marks_stay_until_they_are_posted(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *mark = mem_printf("%s/letta/" ADA, f->home);
    const reread_options o = { .home = f->home, .url = "http://127.0.0.1:9" };
    reread *r = NULL;

    assert_ok(f, reread_start(&o, &r, &f->err));
    reread_mark(r, ADA);
    assert_true(fs_exists(mark)); /* before anything is published */
    reread_stays(r, ADA);
    assert_false(fs_exists(mark)); /* nothing was */
    reread_mark(r, ADA);
    reread_due(r, ADA);
    reread_mark(r, ADA);
    reread_stays(r, ADA);
    assert_true(fs_exists(mark)); /* that does not take away what is owed */
    reread_stop(r);
    assert_true(fs_exists(mark));
    assert_ok(f, reread_start(&o, &r, &f->err));
    reread_stop(r);
    assert_true(fs_exists(mark));
    reread_mark(NULL, ADA);
    reread_due(NULL, ADA);
    reread_stays(NULL, ADA);
}

static void on_event(const char *event, const char *agent_id, const char *text, void *ctx)
{
    atomic_uint *n_away = ctx;

    (void)text;
    assert_string_equal(agent_id, ADA);
    assert_string_equal(event, "letta_server_away");
    atomic_fetch_add(n_away, 1);
}

/* A report that was handed over says nothing of whether the server reads after it (D1). */
static void test_L3_marks_of_a_relayed_push_stay_until_they_are_posted(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *mark = mem_printf("%s/letta/" ADA, f->home);
    atomic_uint n_away = 0;
    const reread_options o = {
        .home = f->home, .url = "http://127.0.0.1:9", .event = on_event, .event_ctx = &n_away
    };
    reread *r = NULL;

    assert_ok(f, reread_start(&o, &r, &f->err));
    reread_relay_begin(r, MEMFS_STR(ADA));
    reread_mark(r, ADA);
    reread_due(r, ADA);
    reread_relay_end(r, MEMFS_STR(ADA));
    assert_true(fs_exists(mark));
    reread_relay_told(r, MEMFS_STR(ADA), true);
    wait_for(&n_away, 1); /* it was tried */
    reread_stop(r);
    assert_true(fs_exists(mark));
    assert_ok(f, fs_remove_tree(mark, &f->err));

    assert_ok(f, reread_start(&o, &r, &f->err));
    reread_relay_begin(r, MEMFS_STR(ADA)); /* refused: nothing moves, and nothing is owed */
    reread_mark(r, ADA);
    reread_stays(r, ADA);
    reread_relay_end(r, MEMFS_STR(ADA));
    reread_relay_told(r, MEMFS_STR(ADA), true);
    wait_gone(mark);
    reread_stop(r);
    assert_int_equal(atomic_load(&n_away), 1);

    assert_ok(f, reread_start(&o, &r, &f->err));
    reread_relay_begin(r, MEMFS_STR(ADA));
    reread_mark(r, ADA);
    reread_due(r, ADA);
    reread_relay_end(r, MEMFS_STR(ADA));
    reread_relay_told(r, MEMFS_STR(ADA), false); /* it waits for nothing any more */
    reread_relay_begin(r, MEMFS_STR(ADA));
    reread_relay_end(r, MEMFS_STR(ADA));
    reread_relay_told(r, MEMFS_STR(ADA), true);
    reread_stop(r);
    assert_true(fs_exists(mark));
    assert_ok(f, fs_remove_tree(mark, &f->err));

    assert_ok(f, reread_start(&o, &r, &f->err));
    reread_relay_begin(r, MEMFS_STR(ADA));
    reread_mark(r, ADA);
    reread_relay_end(r, MEMFS_STR(ADA)); /* it reports, and only then is main there */
    reread_relay_told(r, MEMFS_STR(ADA), true);
    reread_due(r, ADA);
    reread_stop(r);
    assert_true(fs_exists(mark));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_made_where_the_server_said_and_moved_from_there),
        TEST(test_T01_what_is_no_organization_names_no_folder),
        TEST(test_H2_what_the_server_wrote_since_the_look_is_not_written_over),
        TEST(test_H2_a_repository_that_the_server_makes_first_stays),
        TEST(test_F16_what_is_gone_is_not_made_up),
        TEST(test_F16_what_cannot_be_looked_at_is_not_taken_for_nothing),
        TEST(test_H2_what_a_kill_left_stays_until_it_is_taken),
        TEST(test_H2_what_was_left_and_cannot_be_read_is_not_removed),
        TEST(test_T01_a_link_beside_the_repository_is_nothing_left),
        TEST(test_the_sweep_tells_of_what_is_new_and_what_changed),
        TEST(test_S3_an_address_holds_no_password_and_is_one),
        TEST(test_L3_marks_stay_until_they_are_posted),
        TEST(test_L3_marks_of_a_relayed_push_stay_until_they_are_posted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
