#include "state_fixture.h"

#include <pthread.h>

/*
 * What state.h promises of every backend: this runs over SQLite and over PostgreSQL.  What is about
 * SQLite's files is in test_state_file.c.
 */

/* ---- agents ---- */

static memfs_code check_agent(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)err;
    *(int *)ctx += 1;
    assert_true(str_equal(agent->id, MEMFS_STR("agent-a")));
    assert_true(str_equal(agent->org_id, MEMFS_STR("org-1")));
    assert_true(str_equal(agent->name, MEMFS_STR("agent-a"))); /* until it is given one */
    assert_true(str_equal(agent->tags_json, MEMFS_STR("[]")));
    assert_int_equal(agent->created_at_us, 5);
    assert_int_equal(agent->updated_at_us, 5);
    return MEMFS_OK;
}

static void test_K4_an_agent_is_made_known_once_and_stays_as_it_is(void **at)
{
    fixture *f = *at;
    agent_query q = { .id = MEMFS_STR("agent-a") };
    bool is_known = true;
    int64_t n = 99;
    int n_seen = 0;

    assert_ok(state_agent_known(s, q.id, &is_known, &f->err));
    assert_false(is_known);
    add(f, "agent-a", 5);
    assert_ok(state_agent_add(s, q.id, MEMFS_STR("org-2"), 9, &f->err));
    assert_ok(state_agent_known(s, q.id, &is_known, &f->err));
    assert_true(is_known);
    for (int i = 0; i < 2; i++) {
        assert_ok(state_agents(s, &q, check_agent, &n_seen, &f->err));
        assert_int_equal(n_seen, i + 1);
        close_state();
        open_state(f);
    }
    assert_ok(state_agent_count(s, &n, &f->err));
    assert_int_equal(n, 1);
}

static void test_agents_are_listed_by_creation_then_id_in_pages(void **at)
{
    fixture *f = *at;
    agent_query q = { .limit = 2 };

    add(f, "agent-c", 10);
    add(f, "agent-d", 5);
    add(f, "agent-a", 10);
    add(f, "agent-b", 20);
    assert_agents(&q, "agent-d agent-a");
    q.after = MEMFS_STR("agent-a");
    assert_agents(&q, "agent-c agent-b");
    q.after = MEMFS_STR("agent-b");
    assert_agents(&q, "");
    q.after = MEMFS_STR("agent-unknown");
    assert_agents(&q, "agent-d agent-a");
    q = (agent_query){ .descending = true };
    assert_agents(&q, "agent-b agent-c agent-a agent-d");
    q.after = MEMFS_STR("agent-c"); /* older than c */
    assert_agents(&q, "agent-a agent-d");
    q.before = MEMFS_STR("agent-d");
    assert_agents(&q, "agent-a");
    q.after = MEMFS_STR("");
    assert_agents(&q, "agent-b agent-c agent-a");
    q.descending = false;
    q.before = MEMFS_STR("agent-c");
    assert_agents(&q, "agent-d agent-a");
}

static void describe(fixture *f, const char *id, const char *name, const char *tags_json)
{
    state_agent agent = { .id = str_of(id), .name = str_of(name), .tags_json = str_of(tags_json) };

    assert_ok(state_agent_merge(s, &agent, NULL, 0, &f->err));
}

static void test_agents_are_filtered(void **at)
{
    fixture *f = *at;
    memfs_str tags[] = { MEMFS_STR("red"), MEMFS_STR("blue") };
    memfs_str twice[] = { MEMFS_STR("red"), MEMFS_STR("red") };
    const struct {
        const char *ids;
        agent_query q;
    } cases[] = {
        { "agent-a agent-b agent-c", { .limit = 0 } },
        { "agent-b", { .id = MEMFS_STR("agent-b") } },
        { "", { .id = MEMFS_STR("' OR 1=1 --") } },
        { "agent-a", { .name = MEMFS_STR("Ärger") } },
        { "", { .name = MEMFS_STR("ärger") } },
        { "agent-a", { .query_text = MEMFS_STR("ärg") } },
        { "agent-b", { .query_text = MEMFS_STR("THE%T") } },
        { "agent-a agent-b", { .tags = tags, .n_tags = 2 } },
        { "agent-b", { .tags = tags, .n_tags = 2, .match_all_tags = true } },
        { "", { .tags = twice, .n_tags = 2, .match_all_tags = true } },
        { "agent-b", { .tags = tags, .n_tags = 2, .descending = true, .limit = 1 } },
    };

    add(f, "agent-a", 1);
    add(f, "agent-b", 2);
    add(f, "agent-c", 3);
    describe(f, "agent-a", "Ärger", "[\"red\"]");
    describe(f, "agent-b", "the test", "[\"x\",\"red\",\"blue\"]");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_agents(&cases[i].q, cases[i].ids);
}

/* What a client asks for may be anything: nobody has that name, which is an answer. */
static void test_names_of_any_bytes_are_nobodys(void **at)
{
    fixture *f = *at;
    memfs_str odd[] = { MEMFS_STR("\xff"), MEMFS_STR("a\0b"), MEMFS_STR("\xed\xa0\x80") };
    bool is_known = true;

    add(f, "agent-a", 1);
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        agent_query by_id = { .id = odd[i] }, by_name = { .name = odd[i] };
        agent_query pages = { .before = odd[i], .after = odd[i] };
        agent_query by_tag = { .tags = &odd[i], .n_tags = 1 }, by_text = { .query_text = odd[i] };

        assert_agents(&by_id, "");
        assert_agents(&by_name, "");
        assert_agents(&by_tag, "");
        assert_agents(&by_text, "");
        assert_agents(&pages, "agent-a");
        assert_ok(state_agent_known(s, odd[i], &is_known, &f->err));
        assert_false(is_known);
        assert_births(f, "agent-a", odd[i].ptr, "");
        assert_code(state_token_revoke(s, odd[i], 1, &f->err), ENOTFOUND);
    }
}

static memfs_code refuse(const state_agent *agent, void *ctx, memfs_error *err)
{
    (void)agent;
    (void)ctx;
    return memfs_fail(err, MEMFS_EDENIED, "enough");
}

static void test_a_refusing_row_function_ends_the_reading(void **at)
{
    fixture *f = *at;
    agent_query q = { .limit = 0 };

    add(f, "agent-a", 1);
    add(f, "agent-b", 2);
    assert_code(state_agents(s, &q, refuse, NULL, &f->err), EDENIED);
    assert_agents(&q, "agent-a agent-b");
}

/* ---- births ---- */

static void test_K4_a_birth_is_the_first_time_and_stays(void **at)
{
    fixture *f = *at;
    memfs_str first[] = { MEMFS_STR("b"), MEMFS_STR("a"), MEMFS_STR("b") };
    memfs_str second[] = { MEMFS_STR("c"), MEMFS_STR("b") };

    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), first, 3, 10, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), second, 2, 20, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-b"), second, 1, 30, &f->err));
    assert_births(f, "agent-a", "", "a=10 b=10 c=20 ");
    assert_births(f, "agent-a", "b", "b=10 ");
    assert_births(f, "agent-a", "absent", "");
    assert_births(f, "agent-b", "", "c=30 ");
    close_state();
    open_state(f);
    assert_births(f, "agent-a", "", "a=10 b=10 c=20 ");
}

static void test_K7_what_is_known_already_costs_no_write(void **at)
{
    fixture *f = *at;
    memfs_str labels[] = { MEMFS_STR("a"), MEMFS_STR("b") };
    memfs_oid oid = oid_of(1);
    int64_t trace;

    add(f, "agent-a", 1);
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), labels, 2, 10, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), &oid, 1, &f->err));
    trace = trace_of_state(f);
    add(f, "agent-a", 2);
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), labels, 2, 20, &f->err));
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), NULL, 0, 20, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), NULL, 0, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), &oid, 1, &f->err));
    assert_int_equal(trace_of_state(f), trace);
    labels[0] = MEMFS_STR("c"); /* one that is new does */
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), labels, 2, 20, &f->err));
    assert_int_not_equal(trace_of_state(f), trace);
}

/* ---- banned objects ---- */

static void test_T28_banned_objects_come_back_sorted_and_once(void **at)
{
    fixture *f = *at;
    memfs_oid ids[] = { oid_of(3), oid_of(1), oid_of(2), oid_of(1) };
    memfs_oid *list = NULL;
    size_t n = 99;

    assert_ok(state_banned(s, MEMFS_STR("agent-a"), &list, &n, &f->err));
    assert_int_equal(n, 0);
    free(list);
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), ids, 4, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), ids, 2, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-b"), ids, 1, &f->err));
    assert_ok(state_banned(s, MEMFS_STR("agent-a"), &list, &n, &f->err));
    assert_int_equal(n, 3);
    for (unsigned i = 0; i < 3; i++) {
        memfs_oid want = oid_of(i + 1);

        assert_true(oid_equal(&list[i], &want));
    }
    free(list);
}

/* ---- attributes that came from elsewhere ---- */

static void test_K4_attributes_from_elsewhere_keep_the_earlier_times(void **at)
{
    fixture *f = *at;
    state_birth births[] = { { MEMFS_STR("a"), 7 }, { MEMFS_STR("b"), 90 }, { MEMFS_STR("n"), 3 } };
    memfs_str here[] = { MEMFS_STR("a"), MEMFS_STR("b") };
    state_agent agent = { .id = MEMFS_STR("agent-a"),
                          .name = MEMFS_STR("Ada"),
                          .tags_json = MEMFS_STR("[\"x\"]"),
                          .created_at_us = 20,
                          .updated_at_us = 60 };
    int64_t trace;

    add(f, "agent-a", 50);
    assert_ok(state_births_add(s, agent.id, here, 2, 50, &f->err));
    assert_ok(state_agent_merge(s, &agent, births, 3, &f->err));
    assert_attributes(f, "agent-a", "agent-a Ada [\"x\"] 20 60");
    assert_births(f, "agent-a", "", "a=7 b=50 n=3 ");
    agent.created_at_us = 30; /* later than what is here */
    agent.updated_at_us = 10;
    trace = trace_of_state(f);
    assert_ok(state_agent_merge(s, &agent, births, 3, &f->err));
    agent = (state_agent){ .id = agent.id }; /* says nothing */
    assert_ok(state_agent_merge(s, &agent, NULL, 0, &f->err));
    assert_int_equal(trace_of_state(f), trace);
    assert_attributes(f, "agent-a", "agent-a Ada [\"x\"] 20 60");
}

static memfs_code join_adopted(const state_birth *b, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s=%lld,%.*s,%.*s,%lld,%d ", (int)b->label.len, b->label.ptr,
               (long long)b->created_at_us, (int)b->tags_json.len, b->tags_json.ptr,
               (int)b->block_id.len, b->block_id.ptr, (long long)b->limit, b->hidden);
    return MEMFS_OK;
}

static void assert_adopted(fixture *f, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf got = MEMFS_BUF_INIT(4096);

    assert_ok(state_births(s, MEMFS_STR("agent-a"), MEMFS_STR(""), join_adopted, &got, &f->err));
    assert_string_equal(got.ptr, expected);
}

static void test_K4_what_blocks_bring_along_stays_and_the_first_id_counts(void **at)
{
    fixture *f = *at;
    state_birth births[] = {
        { .label = MEMFS_STR("a"), .created_at_us = 7, .tags_json = MEMFS_STR("[\"x\"]"),
          .block_id = MEMFS_STR("block-1"), .limit = 5000, .hidden = true },
        { .label = MEMFS_STR("b"), .created_at_us = 9 },
    };
    memfs_str here[] = { MEMFS_STR("a"), MEMFS_STR("b"), MEMFS_STR("c") };
    state_agent agent = { .id = MEMFS_STR("agent-a") };
    int64_t trace;

    add(f, "agent-a", 50);
    assert_ok(state_births_add(s, agent.id, here, 3, 50, &f->err));
    assert_ok(state_agent_merge(s, &agent, births, 2, &f->err));
    assert_adopted(f, "a=7,[\"x\"],block-1,5000,1 b=9,,,0,0 c=50,,,0,0 ");
    trace = trace_of_state(f);
    assert_ok(state_agent_merge(s, &agent, births, 2, &f->err)); /* the same again */
    births[0] = (state_birth){ .label = MEMFS_STR("a"), .created_at_us = 8 }; /* says nothing */
    assert_ok(state_agent_merge(s, &agent, births, 1, &f->err));
    assert_int_equal(trace_of_state(f), trace);
    births[0] = (state_birth){ .label = MEMFS_STR("a"), .created_at_us = 8,
                               .tags_json = MEMFS_STR("[]"), .block_id = MEMFS_STR("block-2") };
    assert_ok(state_agent_merge(s, &agent, births, 1, &f->err));
    births[0] = (state_birth){ .label = MEMFS_STR("c"), .created_at_us = 60,
                               .block_id = MEMFS_STR("block-3") };
    assert_ok(state_agent_merge(s, &agent, births, 1, &f->err));
    for (int i = 0; i < 2; i++) {
        assert_adopted(f, "a=7,[],block-1,0,0 b=9,,,0,0 c=50,,block-3,0,0 ");
        close_state();
        open_state(f);
    }
}

static void test_H4_attributes_make_nobody_known_and_their_births_wait(void **at)
{
    fixture *f = *at;
    state_birth birth = { MEMFS_STR("a"), 7 };
    memfs_str label = MEMFS_STR("a");
    state_agent agent = { .id = MEMFS_STR("agent-new"), .name = MEMFS_STR("New") };
    bool is_known;

    assert_ok(state_agent_merge(s, &agent, &birth, 1, &f->err));
    assert_ok(state_agent_known(s, agent.id, &is_known, &f->err));
    assert_false(is_known);
    assert_ok(state_births_add(s, agent.id, &label, 1, 50, &f->err));
    assert_births(f, "agent-new", "", "a=7 ");
}

static void test_tags_from_elsewhere_that_are_no_list_are_refused(void **at)
{
    static const char *const bad[] = { "{}", "[", "x", "\"a\"", "[1" };
    fixture *f = *at;
    state_agent agent = { .id = MEMFS_STR("agent-a"), .name = MEMFS_STR("Ada") };
    memfs_str red = MEMFS_STR("red");
    agent_query q = { .tags = &red, .n_tags = 1 };

    add(f, "agent-a", 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        agent.tags_json = str_of(bad[i]);
        assert_code(state_agent_merge(s, &agent, NULL, 0, &f->err), EINVALID);
    }
    assert_attributes(f, "agent-a", "agent-a agent-a [] 1 1");
    assert_agents(&q, ""); /* the list of all agents still reads */
}

/* ---- tokens ---- */

static void test_S4_tokens_are_kept_by_hash_and_a_revoked_one_keeps_its_row(void **at)
{
    fixture *f = *at;
    state_token first = token_of("00000001", 1, 20), second = token_of("00000002", 2, 10);
    state_token same_hash = token_of("00000003", 1, 30), same_id = token_of("00000001", 3, 30);

    second.name = MEMFS_STR("");
    second.scope = MEMFS_STR("admin");
    second.expires_at_us = 99;
    assert_tokens(f, "");
    assert_ok(state_token_add(s, &first, &f->err));
    assert_ok(state_token_add(s, &second, &f->err));
    assert_code(state_token_add(s, &same_hash, &f->err), EEXISTS);
    assert_code(state_token_add(s, &same_id, &f->err), EEXISTS);
    assert_ok(state_token_revoke(s, first.id, 50, &f->err));
    assert_ok(state_token_revoke(s, first.id, 60, &f->err)); /* stays as it is */
    assert_code(state_token_revoke(s, MEMFS_STR("0000000a"), 60, &f->err), ENOTFOUND);
    for (int i = 0; i < 2; i++) {
        assert_tokens(f, "00000002,,admin,2,10,99,0 "
                         "00000001,laptop,agent:agent-a:rw,1,20,0,50 ");
        close_state();
        open_state(f);
    }
}

static memfs_code refuse_token(const state_token *token, void *ctx, memfs_error *err)
{
    (void)token;
    (void)ctx;
    return memfs_fail(err, MEMFS_EDENIED, "enough");
}

static void test_a_refusing_token_function_ends_the_reading(void **at)
{
    fixture *f = *at;
    state_token token = token_of("00000001", 1, 20);

    assert_ok(state_token_add(s, &token, &f->err));
    assert_code(state_tokens(s, refuse_token, NULL, &f->err), EDENIED);
}

/* ---- mirrors ---- */

static void test_what_is_known_of_remotes_is_asked_for_by_agent_and_by_remote(void **at)
{
    static const char *const rows[][2] = { { "agent-b", "origin" },
                                           { "agent-a", "origin" },
                                           { "agent-a", "backup" } };
    fixture *f = *at;

    for (unsigned i = 0; i < 3; i++) {
        state_mirror m = mirror_of(rows[i][0], rows[i][1], i + 1);

        assert_ok(state_mirror_put(s, &m, &f->err));
    }
    assert_mirrors(f, "", "",
                   "agent-a/backup@00000003 agent-a/origin@00000002 agent-b/origin@00000001 ");
    assert_mirrors(f, "agent-a", "", "agent-a/backup@00000003 agent-a/origin@00000002 ");
    assert_mirrors(f, "", "origin", "agent-a/origin@00000002 agent-b/origin@00000001 ");
    assert_mirrors(f, "agent-b", "origin", "agent-b/origin@00000001 ");
    assert_mirrors(f, "agent-b", "backup", "");
    assert_ok(state_mirror_forget(s, MEMFS_STR("origin"), &f->err));
    assert_mirrors(f, "", "", "agent-a/backup@00000003 ");
}

static memfs_code check_mirror(const state_mirror *m, void *ctx, memfs_error *err)
{
    const state_mirror *want = ctx;

    (void)err;
    assert_true(str_equal(m->agent_id, want->agent_id) && str_equal(m->remote, want->remote));
    assert_true(str_equal(m->mark, want->mark) && str_equal(m->answer, want->answer));
    assert_true(str_equal(m->detail, want->detail) && str_equal(m->note, want->note));
    assert_true(str_equal(m->note_text, want->note_text));
    assert_true(oid_equal(&m->remote_tip, &want->remote_tip));
    assert_true(oid_equal(&m->meta_tip, &want->meta_tip));
    assert_true(oid_equal(&m->proof_tree, &want->proof_tree));
    assert_int_equal(m->seen_at_us, want->seen_at_us);
    assert_int_equal(m->pushed_at_us, want->pushed_at_us);
    assert_int_equal(m->proof_at_us, want->proof_at_us);
    assert_int_equal(m->n_failures, want->n_failures);
    assert_int_equal(m->failed_at_us, want->failed_at_us);
    assert_int_equal(m->next_try_us, want->next_try_us);
    assert_int_equal(m->note_at_us, want->note_at_us);
    return MEMFS_EEXISTS;
}

static void
test_K7_a_mirrors_row_comes_back_whole_and_one_that_says_nothing_new_costs_no_write(void **at)
{
    fixture *f = *at;
    state_mirror m = mirror_of("agent-a", "origin", 1);
    int64_t trace;

    assert_ok(state_mirror_put(s, &m, &f->err));
    m.meta_tip = oid_of(5);
    m.detail = MEMFS_STR("");
    m.note = MEMFS_STR("");
    m.n_failures = 0;
    trace = trace_of_state(f);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_int_not_equal(trace_of_state(f), trace);
    trace = trace_of_state(f);
    assert_ok(state_mirror_put(s, &m, &f->err));
    assert_ok(state_mirror_forget(s, MEMFS_STR("nobody"), &f->err));
    assert_int_equal(trace_of_state(f), trace);
    close_state();
    open_state(f);
    assert_code(state_mirrors(s, m.agent_id, m.remote, check_mirror, &m, &f->err), EEXISTS);
}

/* ---- copies (D7) ---- */

static void fill(fixture *f)
{
    memfs_str label = MEMFS_STR("human");
    state_mirror m = mirror_of("agent-a", "origin", 1);
    state_token token = token_of("00000001", 1, 20);
    memfs_oid oid = oid_of(3);

    add(f, "agent-a", 5);
    describe(f, "agent-a", "Ada", "[\"red\"]");
    assert_ok(state_births_add(s, MEMFS_STR("agent-a"), &label, 1, 4, &f->err));
    assert_ok(state_banned_add(s, MEMFS_STR("agent-a"), &oid, 1, &f->err));
    assert_ok(state_token_add(s, &token, &f->err));
    assert_ok(state_token_revoke(s, token.id, 50, &f->err));
    assert_ok(state_mirror_put(s, &m, &f->err));
}

/* `s` is the copy for a while. */
static void assert_filled(fixture *f, state *copy)
{
    state *own = s;
    memfs_oid *banned = NULL, want = oid_of(3);
    size_t n = 0;

    s = copy;
    assert_attributes(f, "agent-a", "agent-a Ada [\"red\"] 5 5");
    assert_births(f, "agent-a", "", "human=4 ");
    assert_ok(state_banned(s, MEMFS_STR("agent-a"), &banned, &n, &f->err));
    assert_int_equal(n, 1);
    assert_true(oid_equal(&banned[0], &want));
    free(banned);
    assert_tokens(f, "00000001,laptop,agent:agent-a:rw,1,20,0,50 ");
    assert_mirrors(f, "", "", "agent-a/origin@00000001 ");
    assert_ok(state_check(s, &f->err));
    s = own;
}

static void test_D7_a_copy_is_a_file_that_holds_all_of_it(void **at)
{
    fixture *f = *at;
    struct stat st;
    state *copy;

    fill(f);
    assert_ok(fs_mkdirs(in_root(f, "copy"), &f->err));
    assert_ok(state_copy(s, in_root(f, "copy/state.db"), &f->err));
    assert_int_equal(stat(in_root(f, "copy/state.db"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_false(fs_exists(in_root(f, "copy/state.db-wal"))); /* the file by itself is enough */
    assert_ok(state_open_sqlite(in_root(f, "copy"), &copy, &f->err));
    assert_filled(f, copy);
    state_close(copy);
    assert_code(state_copy(s, in_root(f, "copy/state.db"), &f->err), EEXISTS);
    assert_code(state_copy(s, in_root(f, "absent/state.db"), &f->err), ENOTFOUND);
}

/* ---- threads ---- */

enum { N_PUTTERS = 4, N_PUTS = 60 };

static void *put_many(void *ctx)
{
    unsigned *number = ctx;
    char agent[32], id[16];
    memfs_error err;

    for (unsigned i = 0; i < N_PUTS; i++) {
        snprintf(agent, sizeof(agent), "agent-%u", i % 7);
        snprintf(id, sizeof(id), "%04x%04x", *number, i);
        state_mirror m = mirror_of(agent, "origin", i + 1);
        state_token token = token_of(id, (uint8_t)(*number * N_PUTS + i), i);
        state_birth birth = { str_of(agent), 1000 - i };
        state_agent attributes = { .id = str_of(agent), .name = str_of(id) };

        token.hash[1] = (uint8_t)*number;
        if (state_mirror_put(s, &m, &err) < 0 ||
            state_agent_add(s, str_of(agent), MEMFS_STR("org"), 1, &err) < 0 ||
            state_agent_merge(s, &attributes, &birth, 1, &err) < 0 ||
            state_token_add(s, &token, &err) < 0 || state_token_revoke(s, token.id, 1, &err) < 0)
            abort();
    }
    return NULL;
}

static memfs_code count_tokens(const state_token *token, void *ctx, memfs_error *err)
{
    (void)err;
    *(unsigned *)ctx += token->revoked_at_us == 1;
    return MEMFS_OK;
}

static void test_many_threads_write_and_read_all_tables(void **at)
{
    unsigned numbers[N_PUTTERS], n_revoked = 0;
    pthread_t threads[N_PUTTERS];
    fixture *f = *at;

    for (unsigned i = 0; i < N_PUTTERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < 50; i++) {
        _cleanup_(buf_dispose) memfs_buf text = MEMFS_BUF_INIT(1 << 20);
        unsigned n = 0;

        assert_ok(state_mirrors(s, MEMFS_STR(""), MEMFS_STR(""), join_mirrors, &text, &f->err));
        assert_ok(state_tokens(s, count_tokens, &n, &f->err));
    }
    for (unsigned i = 0; i < N_PUTTERS; i++)
        pthread_join(threads[i], NULL);
    assert_ok(state_tokens(s, count_tokens, &n_revoked, &f->err));
    assert_int_equal(n_revoked, N_PUTTERS * N_PUTS);
    assert_births(f, "agent-0", "", "agent-0=944 "); /* 1000 less the last i with i % 7 == 0 */
    assert_ok(state_check(s, &f->err));
}

/* ---- changes ---- */

static memfs_code show_birth(const state_birth *b, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %lld %.*s %.*s %lld %d;", (int)b->label.len, b->label.ptr,
               (long long)b->created_at_us, (int)b->tags_json.len, b->tags_json.ptr,
               (int)b->block_id.len, b->block_id.ptr, (long long)b->limit, b->hidden);
    return MEMFS_OK;
}

static memfs_code show_doc(const state_doc *d, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s %.*s %lld;", (int)d->id.len, d->id.ptr, (int)d->body.len, d->body.ptr,
               (long long)d->changed);
    return MEMFS_OK;
}

static void assert_docs(fixture *f, const char *kind, int64_t after, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(4096);

    assert_ok(state_docs(s, str_of(kind), MEMFS_STR(""), after, show_doc, &shown, &f->err));
    assert_string_equal(shown.ptr, expected);
}

static void test_K4_a_birth_is_set_as_it_is_given_and_goes(void **at)
{
    fixture *f = *at;
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(4096);
    state_birth b = { .label = MEMFS_STR("a"),
                      .created_at_us = 5,
                      .tags_json = MEMFS_STR("[]"),
                      .block_id = MEMFS_STR("one"),
                      .limit = 7,
                      .hidden = true };
    state_change change = { .agent_id = MEMFS_STR("agent-1"), .births = &b, .n_births = 1 };

    assert_ok(state_change_apply(s, &change, &f->err));
    b = (state_birth){ .label = MEMFS_STR("a"),
                       .created_at_us = 9,
                       .tags_json = MEMFS_STR("[1]"),
                       .block_id = MEMFS_STR("two") };
    assert_ok(state_change_apply(s, &change, &f->err));
    assert_ok(state_births(s, change.agent_id, MEMFS_STR(""), show_birth, &shown, &f->err));
    assert_string_equal(shown.ptr, "a 9 [1] two 0 0;");
    b.created_at_us = 0;
    assert_ok(state_change_apply(s, &change, &f->err));
    buf_clear(&shown);
    assert_ok(state_births(s, change.agent_id, MEMFS_STR(""), show_birth, &shown, &f->err));
    assert_string_equal(shown.ptr, "");
}

static void test_documents_have_the_mark_of_their_kind(void **at)
{
    fixture *f = *at;
    state_doc docs[2] = { { MEMFS_STR("loose"), MEMFS_STR("b"), MEMFS_STR("1"), 0 },
                          { MEMFS_STR("loose"), MEMFS_STR("a"), MEMFS_STR("2"), 0 } };
    state_change change = { .docs = docs, .n_docs = 2 };
    int64_t mark;

    assert_ok(state_docs_mark(s, MEMFS_STR("loose"), &mark, &f->err));
    assert_int_equal(mark, 0);
    assert_ok(state_change_apply(s, &change, &f->err));
    assert_docs(f, "loose", 0, "a 2 2;b 1 1;");
    assert_docs(f, "loose", 1, "a 2 2;");
    assert_docs(f, "edit", 0, "");
    docs[0].body = MEMFS_STR("");
    change.n_docs = 1;
    assert_ok(state_change_apply(s, &change, &f->err));
    assert_docs(f, "loose", 0, "a 2 2;");
    assert_ok(state_docs_mark(s, MEMFS_STR("loose"), &mark, &f->err));
    assert_int_equal(mark, 3);
}

static void test_H3_a_document_that_changed_meanwhile_changes_nothing(void **at)
{
    fixture *f = *at;
    state_birth b = { .label = MEMFS_STR("l"), .created_at_us = 1 };
    state_doc doc = { MEMFS_STR("loose"), MEMFS_STR("a"), MEMFS_STR("1"), 0 };
    state_change change = { .docs = &doc, .n_docs = 1 };
    _cleanup_(buf_dispose) memfs_buf shown = MEMFS_BUF_INIT(4096);

    assert_ok(state_change_apply(s, &change, &f->err));
    doc.body = MEMFS_STR("2");
    doc.changed = 1;
    assert_ok(state_change_apply(s, &change, &f->err));
    doc.body = MEMFS_STR("3");
    change.agent_id = MEMFS_STR("agent-1");
    change.births = &b;
    change.n_births = 1;
    assert_int_equal(state_change_apply(s, &change, &f->err), MEMFS_ECONFLICT);
    assert_docs(f, "loose", 0, "a 2 2;");
    assert_ok(state_births(s, change.agent_id, MEMFS_STR(""), show_birth, &shown, &f->err));
    assert_string_equal(shown.ptr, ""); /* all of it or nothing */
}

static void test_D7_a_copy_has_the_documents_and_keeps_its_own(void **at)
{
    fixture *f = *at;
    char path[160], folder[128];
    state_doc doc = { MEMFS_STR("loose"), MEMFS_STR("a"), MEMFS_STR("mine"), 0 };
    const state_change change = { .docs = &doc, .n_docs = 1 };
    state *copy, *kept;

    snprintf(folder, sizeof(folder), "%s/copy", f->root);
    assert_int_equal(mkdir(folder, 0700), 0);
    snprintf(path, sizeof(path), "%s/state.db", folder);
    assert_ok(state_change_apply(s, &change, &f->err));
    assert_ok(state_copy(s, path, &f->err));
    doc.body = MEMFS_STR("newer");
    assert_ok(state_change_apply(s, &change, &f->err));
    assert_ok(state_open_sqlite(folder, &copy, &f->err));
    assert_ok(state_copy_into(s, copy, &f->err));
    kept = s;
    s = copy;
    assert_docs(f, "loose", 0, "a mine 1;");
    s = kept;
    state_close(copy);
}

int main(void)
{
#define ON_STATE(test) cmocka_unit_test_setup_teardown(test, setup_state, teardown_state)
    const struct CMUnitTest tests[] = {
        ON_STATE(test_K4_an_agent_is_made_known_once_and_stays_as_it_is),
        ON_STATE(test_agents_are_listed_by_creation_then_id_in_pages),
        ON_STATE(test_agents_are_filtered),
        ON_STATE(test_names_of_any_bytes_are_nobodys),
        ON_STATE(test_a_refusing_row_function_ends_the_reading),
        ON_STATE(test_K4_a_birth_is_the_first_time_and_stays),
        ON_STATE(test_K7_what_is_known_already_costs_no_write),
        ON_STATE(test_T28_banned_objects_come_back_sorted_and_once),
        ON_STATE(test_K4_attributes_from_elsewhere_keep_the_earlier_times),
        ON_STATE(test_K4_what_blocks_bring_along_stays_and_the_first_id_counts),
        ON_STATE(test_H4_attributes_make_nobody_known_and_their_births_wait),
        ON_STATE(test_tags_from_elsewhere_that_are_no_list_are_refused),
        ON_STATE(test_S4_tokens_are_kept_by_hash_and_a_revoked_one_keeps_its_row),
        ON_STATE(test_a_refusing_token_function_ends_the_reading),
        ON_STATE(test_what_is_known_of_remotes_is_asked_for_by_agent_and_by_remote),
        ON_STATE(
            test_K7_a_mirrors_row_comes_back_whole_and_one_that_says_nothing_new_costs_no_write),
        ON_STATE(test_D7_a_copy_is_a_file_that_holds_all_of_it),
        ON_STATE(test_K4_a_birth_is_set_as_it_is_given_and_goes),
        ON_STATE(test_documents_have_the_mark_of_their_kind),
        ON_STATE(test_H3_a_document_that_changed_meanwhile_changes_nothing),
        ON_STATE(test_D7_a_copy_has_the_documents_and_keeps_its_own),
        ON_STATE(test_many_threads_write_and_read_all_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
