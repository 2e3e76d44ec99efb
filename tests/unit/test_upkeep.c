/*
 * Verify finds what was broken on purpose; rebuild mends it; a backup is a home again; a purge leaves
 * nothing.
 */
#include "sync_fixture.h"

#include <dirent.h>
#include <sqlite3.h>

/* ---- what a round told ---- */

typedef struct told {
    memfs_buf text; /* "<kind> <what>" lines */
    size_t n_progress, stop_after;
} told;

static bool on_progress(size_t done, size_t total, const char *id, void *ctx)
{
    told *t = ctx;

    (void)id;
    assert_true(done <= total);
    return ++t->n_progress != t->stop_after;
}

static void on_finding(const char *id, const char *kind, const char *what, const char *text,
                       void *ctx)
{
    told *t = ctx;

    (void)id;
    (void)text;
    buf_printf(&t->text, "%s %s\n", kind, what);
}

static void told_dispose(told *t)
{
    buf_dispose(&t->text);
}

#define TOLD_INIT                                                                                  \
    {                                                                                              \
        .text = MEMFS_BUF_INIT(1u << 20)                                                           \
    }
#define WATCH(t) (&(upkeep_watcher){ on_progress, on_finding, (t) })

static void verify_says(fixture *f, memfs_str id, const char *want)
{
    _cleanup_(told_dispose) told t = TOLD_INIT;
    upkeep_result result;

    OK(upkeep_verify(f->h, id, WATCH(&t), &result, &err));
    assert_string_equal(t.text.ptr, want);
    assert_int_equal(result.n_failed, 0);
}

static void sql(fixture *f, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/cache.db", f->path);
    char *why = NULL;
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", text, why);
    sqlite3_close(db);
}

static void fill(fixture *f)
{
    put_file(f->work, "a.md", MEMFS_STR("---\ndescription: d\n---\none\n"));
    put_file(f->work, "system/b.md", MEMFS_STR("two\n"));
    put_file(f->work, "c.txt", MEMFS_STR("no block\n"));
    push_work(f, ID_A);
}

/* ---- verify ---- */

static void test_K1_verify_finds_nothing_in_a_healthy_home(void **state)
{
    fixture *f = *state;

    fill(f);
    push_work(f, ID_B);
    verify_says(f, MEMFS_STR(""), "");
    verify_says(f, ID_A, "");
    reopen_home(f);
    verify_says(f, MEMFS_STR(""), "");
}

static void test_verify_finds_rows_that_were_tampered_with(void **state)
{
    fixture *f = *state;
    upkeep_result result;

    fill(f);
    sql(f, "UPDATE blocks SET value = 'forged' WHERE path = 'a.md'");
    verify_says(f, ID_A, "row-differs a.md\n");
    sql(f, "UPDATE blocks SET description = 'forged' WHERE path = 'system/b.md'");
    verify_says(f, ID_A, "row-differs a.md\nrow-differs system/b.md\n");
    OK(upkeep_rebuild(f->h, MEMFS_STR(""), NULL, &result, &err));
    assert_int_equal(result.n_agents, 1);
    assert_int_equal(result.n_failed, 0);
    verify_says(f, MEMFS_STR(""), "");
}

static void test_verify_looks_both_ways(void **state)
{
    fixture *f = *state;
    upkeep_result result;

    fill(f);
    sql(f, "UPDATE blocks SET path = 'zz.md', label = 'zz', id = 'block-00000000-0000-4000-8000-"
           "000000000000' WHERE path = 'a.md'");
    verify_says(f, ID_A, "row-missing a.md\nrow-extra zz.md\n");
    OK(upkeep_rebuild(f->h, ID_A, NULL, &result, &err));
    verify_says(f, ID_A, "");
}

static void test_verify_finds_a_tip_that_is_not_main(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);

    fill(f);
    put_file(f->work, "a.md", MEMFS_STR("changed\n"));
    push_work(f, ID_A);
    close_home(f);
    git(path, "update-ref", "refs/heads/main", "main~1");
    open_home(f); /* verify is the first to come: nobody has caught up */
    verify_says(f, ID_A, "row-differs a.md\ntip-differs \n");
    verify_says(f, ID_A, "row-differs a.md\ntip-differs \n"); /* it changes nothing */
}

static void test_F14_verify_finds_a_ref_that_its_log_does_not_know(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *ref = mem_printf("%s/refs/heads/main", path);
    upkeep_result result;
    agent *a;

    fill(f);
    put_file(f->work, "a.md", MEMFS_STR("2\n"));
    push_work(f, ID_A);
    put_file(f->work, "a.md", MEMFS_STR("3\n"));
    push_work(f, ID_A);
    verify_says(f, ID_A, "");
    OK(fs_write_atomic(ref, MEMFS_STR("56776245ff7b896622904bfc4d1c355a35e6cd81\n"), 0600, &err));
    OK(home_agent(f->h, ID_A, &a, &err));
    assert_int_equal(n_alarms(f, "history_rewritten"), 1);
    verify_says(f, ID_A, "ref-moved refs/heads/main\n");
    OK(upkeep_rebuild(f->h, ID_A, NULL, &result, &err));
    verify_says(f, ID_A, "ref-moved refs/heads/main\n");
}

static void test_F12_verify_finds_a_flipped_byte(void **state)
{
    fixture *f = *state;
    _cleanup_(told_dispose) told t = TOLD_INIT;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *flip =
        mem_printf("p=$(ls %s/objects/pack/*.pack | head -1); chmod u+w $p; "
                   "printf '\\245' | dd of=$p bs=1 seek=40 conv=notrunc 2>/dev/null",
                   path);
    const char *argv[] = { "/bin/sh", "-c", flip, NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", NULL };
    process_spec spec = { .argv = argv, .env = env };
    upkeep_result result;
    agent *a;

    fill(f);
    OK(process_run(&spec, MEMFS_STR(""), &t.text, NULL, 10000, &err));
    OK(upkeep_verify(f->h, ID_A, WATCH(&t), &result, &err));
    assert_string_equal(t.text.ptr, "repository-damaged \n");
    FAILS(MEMFS_ECORRUPT, home_agent(f->h, ID_A, &a, &err)); /* fenced */
    f->is_broken = true;
}

static void test_verify_finds_folders_and_rows_of_nobody(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(mem_freep) char *aside = mem_printf("%s/aside", f->root);
    upkeep_result result;

    fill(f);
    OK(store_create(home_store(f->h), "repository/some/where/repo.git", &err));
    OK(store_create(home_store(f->h),
                    "repository/org-00000000-0000-4000-8000-000000000000/" AGENT_B "/repo.git",
                    &err));
    verify_says(f, MEMFS_STR(""), "folder-unknown \nno-rows-yet \nfolder-unknown some/where\n");
    OK(fs_rename(path, aside, &err));
    verify_says(f, ID_A, "folder-missing \n");
    OK(fs_rename(aside, path, &err));
    sql(f, "INSERT INTO agents(agent_no, agent_id, tip, generation) VALUES(77, "
           "'agent-44444444-4444-4444-8444-444444444444', zeroblob(20), 1);"
           "INSERT INTO blocks SELECT 777, 77, hidden, read_only, char_limit, bytes, created_at, "
           "updated_at, blob, 'block-0', label, path, metadata, tags, problem, description, value, "
           "'_77' || substr(words, instr(words, ' ')) FROM blocks WHERE path = 'a.md'");
    verify_says(f, MEMFS_STR(""),
                "folder-unknown \nno-rows-yet \nfolder-unknown some/where\nrow-of-nobody \n");
    OK(upkeep_rebuild(f->h, MEMFS_STR(""), NULL, &result, &err));
    assert_int_equal(result.n_agents, 2);
    verify_says(f, MEMFS_STR(""), "folder-unknown some/where\n");
}

static void test_F23_a_rebuild_of_a_cache_that_breaks_midway_ends_with_all_rows(void **state)
{
    fixture *f = *state;
    upkeep_result result;

    fill(f);
    push_work(f, ID_B);
    sql(f, "UPDATE agents SET tip = x'00' WHERE agent_id = '" AGENT_B "'"); /* no tip at all */
    OK(upkeep_rebuild(f->h, MEMFS_STR(""), NULL, &result, &err));
    assert_int_equal(result.n_agents, 2);
    assert_int_equal(result.n_failed, 0);
    verify_says(f, MEMFS_STR(""), "");
}

static void test_a_round_can_be_stopped_and_names_what_it_cannot_find(void **state)
{
    fixture *f = *state;
    _cleanup_(told_dispose) told t = TOLD_INIT;
    upkeep_result result;

    push_work(f, ID_A);
    push_work(f, ID_B);
    t.stop_after = 1;
    OK(upkeep_verify(f->h, MEMFS_STR(""), WATCH(&t), &result, &err));
    assert_int_equal(result.n_agents, 1);
    FAILS(MEMFS_ENOTFOUND,
          upkeep_verify(f->h, MEMFS_STR("agent-55555555-5555-4555-8555-555555555555"), NULL,
                        &result, &err));
}

/* ---- backup and restore ---- */

static const state_token TOKEN = { .id = MEMFS_STR("0a1b2c3d"),
                                   .name = MEMFS_STR("laptop"),
                                   .scope = MEMFS_STR("admin"),
                                   .hash = { 1, 2, 3 },
                                   .created_at_us = 7 };

/* What git does not carry, and a backup therefore must. */
static void fill_state(fixture *f)
{
    state_mirror m = { .agent_id = ID_A, .remote = MEMFS_STR("origin"), .pushed_at_us = 8 };
    state_agent named = { .id = ID_A, .name = MEMFS_STR("Ada") };

    m.remote_tip = tip_of(f, ID_A);
    OK(state_token_add(home_state(f->h), &TOKEN, &err));
    OK(state_mirror_put(home_state(f->h), &m, &err));
    OK(state_agent_merge(home_state(f->h), &named, NULL, 0, &err));
}

static memfs_code check_token(const state_token *token, void *ctx, memfs_error *err)
{
    (void)err;
    *(int *)ctx += 1;
    assert_true(str_equal(token->id, TOKEN.id) && str_equal(token->scope, TOKEN.scope));
    assert_memory_equal(token->hash, TOKEN.hash, sizeof(TOKEN.hash));
    return MEMFS_OK;
}

static memfs_code check_mirror(const state_mirror *m, void *ctx, memfs_error *err)
{
    (void)err;
    *(int *)ctx += 1;
    assert_int_equal(m->pushed_at_us, 8);
    assert_false(oid_is_zero(&m->remote_tip));
    return MEMFS_OK;
}

static memfs_code check_name(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    *(int *)ctx += 1;
    assert_true(str_equal(agent->name, MEMFS_STR("Ada")));
    return MEMFS_OK;
}

static void assert_state_is_there(fixture *f)
{
    agent_query one = { .id = ID_A };
    int n = 0;

    OK(state_tokens(home_state(f->h), check_token, &n, &err));
    OK(state_mirrors(home_state(f->h), ID_A, MEMFS_STR("origin"), check_mirror, &n, &err));
    OK(state_agents(home_state(f->h), &one, check_name, &n, &err));
    assert_int_equal(n, 3);
}

static void test_D7_a_backup_is_a_home_again(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *to = mem_printf("%s/backup", f->root);
    _cleanup_(mem_freep) char *again = mem_printf("%s/again", f->root);
    _cleanup_(mem_freep) char *first_path __attribute__((unused)) = f->path; /* freed at the end */
    _cleanup_(buf_dispose) memfs_buf before = MEMFS_BUF_INIT(1u << 20);
    _cleanup_(buf_dispose) memfs_buf after = MEMFS_BUF_INIT(1u << 20);
    upkeep_result result;
    agent *a;

    fill(f);
    push_work(f, ID_B);
    fill_state(f);
    dump(f, ID_A, &before);
    OK(upkeep_backup(f->h, to, NULL, &result, &err));
    assert_int_equal(result.n_agents, 2);
    assert_int_equal(result.n_failed, 0);
    FAILS(MEMFS_EEXISTS, upkeep_backup(f->h, to, NULL, &result, &err));
    FAILS(MEMFS_EEXISTS, upkeep_restore(to, f->path, NULL, &result, &err));
    put_file(f->work, "a.md", MEMFS_STR("after the backup\n"));
    push_work(f, ID_A);
    close_home(f);

    OK(upkeep_restore(to, again, NULL, &result, &err));
    assert_int_equal(result.n_agents, 2);
    f->path = mem_strdup(again);
    f->options.path = f->path;
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    dump(f, ID_A, &after);
    assert_string_equal(before.ptr, after.ptr); /* births too */
    assert_state_is_there(f);
    OK(home_agent(f->h, ID_B, &a, &err));
    verify_says(f, MEMFS_STR(""), "");
    assert_int_equal(f->alarms.len, 0);
}

#define SETTING                                                                                    \
    "[mirror \"nas\"]\n\turl = ssh://git@nas.example/{agentId}.git\n\ttokenFile = /run/secrets/x\n"

static void put_setting(const char *root, const char *name, const char *text)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", root, name);

    OK(fs_write_atomic(path, str_of(text), 0600, &err));
}

static void assert_setting(const char *root, const char *name, const char *want)
{
    _cleanup_(mem_freep) char *path = mem_printf("%s/%s", root, name);
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);

    if (want == NULL) {
        assert_false(fs_exists(path));
        return;
    }
    OK(fs_read(path, &text, &err));
    assert_string_equal(text.ptr, want);
}

static void test_D7_S3_a_backup_has_the_configuration_and_no_secret(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *secrets = mem_printf("%s/secrets", f->path);
    _cleanup_(mem_freep) char *to = mem_printf("%s/backup", f->root);
    _cleanup_(mem_freep) char *kept = mem_printf("%s/config", to);
    _cleanup_(mem_freep) char *poor = mem_printf("%s/poor", f->root);
    _cleanup_(mem_freep) char *again = mem_printf("%s/again", f->root);
    _cleanup_(told_dispose) told t = TOLD_INIT;
    upkeep_result result;

    fill(f);
    put_setting(f->path, "config", SETTING);
    put_setting(f->path, "known_hosts", "nas.example ssh-ed25519 AAAA\n");
    OK(fs_mkdirs(secrets, &err));
    put_setting(secrets, "nas.example", "canary-of-the-remote");
    OK(upkeep_backup(f->h, to, WATCH(&t), &result, &err));
    assert_int_equal(result.n_findings, 0);
    OK(upkeep_restore(to, again, NULL, &result, &err));
    assert_setting(again, "config", SETTING);
    assert_setting(again, "known_hosts", "nas.example ssh-ed25519 AAAA\n");
    assert_setting(to, "secrets", NULL);
    assert_setting(again, "secrets", NULL);

    put_setting(f->path, "config", "[mirror \"o\"]\n\turl = https://u:p4ss@h/{agentId}\n");
    OK(upkeep_backup(f->h, poor, WATCH(&t), &result, &err));
    assert_int_equal(result.n_findings, 1);
    assert_string_equal(t.text.ptr, "left-out config\n");
    assert_setting(poor, "config", NULL);
    assert_setting(poor, "known_hosts", "nas.example ssh-ed25519 AAAA\n");
    OK(fs_remove_tree(again, &err));
    OK(fs_remove_tree(kept, &err)); /* a backup that lost a part of it */
    FAILS(MEMFS_ENOTFOUND, upkeep_restore(to, again, NULL, &result, &err));
    assert_false(fs_exists(again));
}

typedef struct pusher {
    fixture *f;
    _Atomic bool stop;
    size_t n;
} pusher;

static void *push_on(void *arg)
{
    pusher *p = arg;
    char text[32];

    while (!p->stop) {
        snprintf(text, sizeof(text), "%zu\n", p->n++);
        put_file(p->f->work, "count.md", str_of(text));
        push_work(p->f, ID_A);
    }
    return NULL;
}

static void test_D7_a_backup_under_load_is_whole(void **state)
{
    fixture *f = *state;
    pusher p = { .f = f };
    upkeep_result result;
    pthread_t thread;

    fill(f);
    pthread_create(&thread, NULL, push_on, &p);
    for (int i = 0; i < 5; i++) {
        _cleanup_(mem_freep) char *to = mem_printf("%s/backup-%d", f->root, i);
        _cleanup_(mem_freep) char *again = mem_printf("%s/again-%d", f->root, i);

        OK(upkeep_backup(f->h, to, NULL, &result, &err));
        assert_int_equal(result.n_failed, 0);
        OK(upkeep_restore(to, again, NULL, &result, &err)); /* compares tips and runs fsck */
    }
    p.stop = true;
    pthread_join(thread, NULL);
    assert_true(p.n > 0);
}

/* Is there anything beside the home that was begun and not ended? */
static bool has_partial(fixture *f)
{
    DIR *dir = opendir(f->root);
    bool found = false;
    struct dirent *e;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL)
        found = found || strstr(e->d_name, ".partial-") != NULL;
    closedir(dir);
    return found;
}

static void test_a_restore_refuses_what_is_not_whole(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *to = mem_printf("%s/backup", f->root);
    _cleanup_(mem_freep) char *again = mem_printf("%s/again", f->root);
    _cleanup_(mem_freep) char *ref = mem_printf("%s/%s/refs/heads/main", to, REPO_A);
    _cleanup_(mem_freep) char *packs = mem_printf("%s/%s/objects/pack", to, REPO_A);
    upkeep_result result;

    fill(f);
    OK(upkeep_backup(f->h, to, NULL, &result, &err));
    FAILS(MEMFS_ENOTFOUND, upkeep_restore(f->root, again, NULL, &result, &err));
    OK(fs_write_atomic(ref, MEMFS_STR("56776245ff7b896622904bfc4d1c355a35e6cd81\n"), 0600, &err));
    FAILS(MEMFS_ECORRUPT, upkeep_restore(to, again, NULL, &result, &err));
    assert_int_equal(result.n_failed, 1);
    OK(fs_remove_tree(to, &err));
    OK(upkeep_backup(f->h, to, NULL, &result, &err));
    OK(fs_remove_tree(packs, &err));
    FAILS(MEMFS_ECORRUPT, upkeep_restore(to, again, NULL, &result, &err));
    assert_false(fs_exists(again));
    assert_false(has_partial(f));
}

/* Stops a backup after its first agent. */
static bool stop_at_once(size_t done, size_t total, const char *id, void *ctx)
{
    (void)done;
    (void)total;
    (void)id;
    (void)ctx;
    return false;
}

typedef struct rival {
    fixture *f;
    const char *to;
    bool is_stopped;
    memfs_code rc; /* of the second backup */
} rival;

/* Begins the same backup in the middle of the first one. */
static bool begin_the_same(size_t done, size_t total, const char *id, void *ctx)
{
    upkeep_watcher stop = { stop_at_once, NULL, NULL };
    rival *r = ctx;
    upkeep_result result;
    memfs_error err;

    (void)total;
    (void)id;
    if (done == 1)
        r->rc = upkeep_backup(r->f->h, r->to, r->is_stopped ? &stop : NULL, &result, &err);
    return true;
}

static void test_D7_two_backups_to_one_place_leave_each_other_alone(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *to = mem_printf("%s/backup", f->root);
    _cleanup_(mem_freep) char *again = mem_printf("%s/again", f->root);
    rival r = { f, to, true, MEMFS_OK };
    upkeep_watcher watcher = { begin_the_same, NULL, &r };
    upkeep_result result;

    fill(f);
    push_work(f, ID_B);
    OK(upkeep_backup(f->h, to, &watcher, &result, &err));
    assert_int_equal(r.rc, MEMFS_EUNAVAIL);
    OK(upkeep_restore(to, again, NULL, &result, &err));
    assert_int_equal(result.n_agents, 2);

    OK(fs_remove_tree(to, &err));
    OK(fs_remove_tree(again, &err));
    r.is_stopped = false;
    FAILS(MEMFS_EEXISTS, upkeep_backup(f->h, to, &watcher, &result, &err));
    assert_int_equal(r.rc, MEMFS_OK);
    OK(upkeep_restore(to, again, NULL, &result, &err));
    assert_int_equal(result.n_agents, 2);
    assert_false(has_partial(f));
}

static void test_a_backup_leaves_a_damaged_agent_out_and_says_so(void **state)
{
    fixture *f = *state;
    _cleanup_(mem_freep) char *to = mem_printf("%s/backup", f->root);
    _cleanup_(mem_freep) char *again = mem_printf("%s/again", f->root);
    _cleanup_(mem_freep) char *first_path __attribute__((unused)) = f->path; /* freed at the end */
    _cleanup_(told_dispose) told t = TOLD_INIT;
    upkeep_result result;
    agent *a;

    fill(f);
    push_work(f, ID_B);
    OK(home_agent(f->h, ID_B, &a, &err));
    agent_fence(f->h, a, "for the test");
    OK(upkeep_backup(f->h, to, WATCH(&t), &result, &err));
    assert_int_equal(result.n_failed, 1);
    assert_string_equal(t.text.ptr, "failed \n");
    close_home(f);
    OK(upkeep_restore(to, again, NULL, &result, &err));
    f->path = mem_strdup(again);
    f->options.path = f->path;
    open_home(f);
    OK(home_agent(f->h, ID_A, &a, &err));
    FAILS(MEMFS_EUNAVAIL, home_agent(f->h, ID_B, &a, &err)); /* known, and missing (H4) */
}

/* ---- purge ---- */

static bool disk_has(fixture *f, const char *text)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    const char *argv[] = { "/bin/grep", "-r", "-l", "-a", "-F", text, f->path, NULL };
    const char *env[] = { NULL };
    process_spec spec = { .argv = argv, .env = env };
    memfs_error err;

    return process_run(&spec, MEMFS_STR(""), &out, NULL, 10000, &err) == MEMFS_OK;
}

static bool store_holds(fixture *f, const memfs_oid *id)
{
    _cleanup_(mem_freep) char *path = store_path(home_store(f->h), REPO_A);
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1u << 20);
    char hex[MEMFS_OID_HEX + 1];
    const char *args[] = { "cat-file", "-t", hex, NULL };

    oid_hex(id, hex);
    return git_in(path, MEMFS_STR(""), &out, args) == MEMFS_OK;
}

/* Three commits: the secret comes in, is changed around, and is in a message. */
static void fill_secret(fixture *f, memfs_oid *ret_blob)
{
    fill(f);
    put_file(f->work, "s.md", MEMFS_STR("key: hunter2-hunter2\n"));
    push_work(f, ID_A);
    *ret_blob = git_id(f->work, "HEAD:s.md");
    put_file(f->work, "deep/er/s.md", MEMFS_STR("x hunter2-hunter2 y hunter2-hunter2\n"));
    commit_all(f->work, "note hunter2-hunter2 in a message");
    push_work(f, ID_A);
    drop_file(f->work, "s.md");
    push_work(f, ID_A);
}

static void test_T28_a_purge_by_text_leaves_nothing(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A, .needle = MEMFS_STR("hunter2-hunter2") };
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    _cleanup_(mem_freep) char *path = NULL;
    memfs_oid blob, before, after;
    purge_result r;
    push_verdict v;

    fill_secret(f, &blob);
    before = tip_of(f, ID_A);
    q.dry_run = true;
    OK(upkeep_purge(f->h, &q, NULL, &r, &err));
    assert_int_equal(r.n_blobs, 2);
    after = tip_of(f, ID_A);
    assert_true(oid_equal(&before, &after));
    assert_true(store_holds(f, &blob));

    q.dry_run = false;
    OK(upkeep_purge(f->h, &q, NULL, &r, &err));
    assert_int_equal(r.n_blobs, 2);
    assert_int_equal(r.n_commits, 4);
    after = tip_of(f, ID_A);
    assert_true(oid_equal(&r.new_tip, &after));
    assert_false(store_holds(f, &blob));
    assert_false(store_holds(f, &before));
    assert_false(disk_has(f, "hunter2-hunter2"));
    assert_string_equal(value_of(f, ID_A, "deep/er/s", &text), "x [purged] y [purged]\n");
    assert_string_equal(value_of(f, ID_A, "a", &text), "one\n");
    verify_says(f, MEMFS_STR(""), "");
    assert_int_equal(n_alarms(f, "history_rewritten"), 0);

    OK(upkeep_purge(f->h, &q, NULL, &r, &err)); /* again: nothing left to do */
    assert_int_equal(r.n_blobs, 0);
    assert_true(oid_equal(&r.new_tip, &after));

    path = store_path(home_store(f->h), REPO_A); /* a clone that still has it tries a merge */
    git(f->work, "fetch", "-q", path, "main");
    git(f->work, "merge", "-q", "-s", "ours", "-m", "merge", "FETCH_HEAD");
    v = try_push(f, ID_A, after, git_id(f->work, "HEAD"));
    assert_false(v.moved);
    assert_int_equal(v.code, MEMFS_EDENIED);
    assert_false(store_holds(f, &blob));
}

static void test_T28_a_purge_by_id_replaces_the_file_whole(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A, .n_blobs = 1 };
    memfs_oid blob, nowhere = { { 9, 9, 9 } }, tree;
    _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(65536);
    purge_result r;

    fill_secret(f, &blob);
    q.blobs = &nowhere;
    FAILS(MEMFS_ENOTFOUND, upkeep_purge(f->h, &q, NULL, &r, &err));
    tree = git_id(f->work, "HEAD^{tree}");
    q.blobs = &tree;
    FAILS(MEMFS_EINVALID, upkeep_purge(f->h, &q, NULL, &r, &err));
    q.blobs = &blob;
    OK(upkeep_purge(f->h, &q, NULL, &r, &err));
    assert_int_equal(r.n_blobs, 1);
    assert_false(store_holds(f, &blob));
    assert_string_equal(value_of(f, ID_A, "deep/er/s", &text),
                        "x hunter2-hunter2 y hunter2-hunter2\n");
    verify_says(f, MEMFS_STR(""), "");
}

static void test_a_purge_refuses_what_would_do_harm(void **state)
{
    fixture *f = *state;
    purge_request q = { .agent_id = ID_A };
    purge_result r;

    fill(f);
    FAILS(MEMFS_EINVALID, upkeep_purge(f->h, &q, NULL, &r, &err));
    q.needle = MEMFS_STR("abc");
    FAILS(MEMFS_EINVALID, upkeep_purge(f->h, &q, NULL, &r, &err));
    q.needle = MEMFS_STR("purged");
    FAILS(MEMFS_EINVALID, upkeep_purge(f->h, &q, NULL, &r, &err));
    q.needle = MEMFS_STR("genesis"); /* in the genesis' message, which is nobody's secret */
    OK(upkeep_purge(f->h, &q, NULL, &r, &err));
    assert_int_equal(r.n_commits, 0);
    q.agent_id = ID_B;
    FAILS(MEMFS_ENOTFOUND, upkeep_purge(f->h, &q, NULL, &r, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_K1_verify_finds_nothing_in_a_healthy_home),
        SYNC_TEST(test_verify_finds_rows_that_were_tampered_with),
        SYNC_TEST(test_verify_looks_both_ways),
        SYNC_TEST(test_verify_finds_a_tip_that_is_not_main),
        SYNC_TEST(test_F14_verify_finds_a_ref_that_its_log_does_not_know),
        SYNC_TEST(test_F12_verify_finds_a_flipped_byte),
        SYNC_TEST(test_verify_finds_folders_and_rows_of_nobody),
        SYNC_TEST(test_F23_a_rebuild_of_a_cache_that_breaks_midway_ends_with_all_rows),
        SYNC_TEST(test_a_round_can_be_stopped_and_names_what_it_cannot_find),
        SYNC_TEST(test_D7_a_backup_is_a_home_again),
        SYNC_TEST(test_D7_a_backup_under_load_is_whole),
        SYNC_TEST(test_D7_S3_a_backup_has_the_configuration_and_no_secret),
        SYNC_TEST(test_a_restore_refuses_what_is_not_whole),
        SYNC_TEST(test_D7_two_backups_to_one_place_leave_each_other_alone),
        SYNC_TEST(test_a_backup_leaves_a_damaged_agent_out_and_says_so),
        SYNC_TEST(test_T28_a_purge_by_text_leaves_nothing),
        SYNC_TEST(test_T28_a_purge_by_id_replaces_the_file_whole),
        SYNC_TEST(test_a_purge_refuses_what_would_do_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
