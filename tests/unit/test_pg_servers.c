/*
 * servers.h over PostgreSQL: the tip that servers share, who is there, and what one does for all.
 */
#include "cache_fixture.h"

#include "base/clock.h"
#include "cache/pg_state.h"

#include <string.h>

#define A MEMFS_STR("agent-11111111-1111-4111-8111-111111111111")
#define ORG MEMFS_STR("org-00000000-0000-4000-8000-000000000000")

static memfs_oid commit(uint8_t n)
{
    memfs_oid id = { { 0 } };

    memset(id.id, n, sizeof(id.id));
    return id;
}

/* From `from` (0: none) to `to`, with one row, by server `holder`. */
static memfs_code move(fixture *f, uint8_t from, uint8_t to, int64_t holder)
{
    block_row row = { .agent_id = A, .label = MEMFS_STR("l"), .path = MEMFS_STR("l.md"),
                      .id = MEMFS_STR("block-1"), .value = MEMFS_STR("v"), .created_at_us = 1,
                      .updated_at_us = 1 };
    cache_change change = { row.path, &row };
    memfs_oid from_id = commit(from);
    cache_update u = { .agent_id = A, .from = from > 0 ? &from_id : NULL, .to = commit(to),
                       .changes = &change, .n_changes = 1, .holder = holder, .org = ORG,
                       .now_us = 7 };

    row.blob = commit(to);
    return cache_apply(f->cache, &u, &f->err);
}

static void assert_head(fixture *f, uint8_t tip, int64_t holder, bool is_empty)
{
    memfs_oid expected = commit(tip);
    cache_head head;

    assert_ok(cache_head_get(f->cache, A, &head, &f->err));
    assert_true(oid_equal(&head.tip, &expected));
    assert_int_equal(head.holder, holder);
    assert_int_equal(head.is_empty, is_empty);
}

/* ---- the tip ---- */

static void test_H2_of_two_moves_from_one_tip_one_wins(void **at)
{
    fixture *f = *at;
    cache_head head;

    assert_code(cache_head_get(f->cache, A, &head, &f->err), ENOTFOUND);
    assert_ok(move(f, 0, 1, 1));
    assert_head(f, 1, 1, false);
    assert_code(move(f, 0, 9, 2), ECONFLICT);
    assert_ok(move(f, 1, 2, 2));
    assert_code(move(f, 1, 9, 1), ECONFLICT);
    assert_head(f, 2, 2, false);
}

static void test_H4_with_its_first_tip_an_agent_is_known(void **at)
{
    fixture *f = *at;
    state *s = pg_state_new(pg_open(f));
    bool is_known = true;

    assert_ok(state_agent_known(s, A, &is_known, &f->err));
    assert_false(is_known);
    assert_ok(move(f, 0, 1, 1));
    assert_ok(state_agent_known(s, A, &is_known, &f->err));
    assert_true(is_known);
    state_close(s);
}

static void test_D5_a_tip_outlives_its_rows(void **at)
{
    fixture *f = *at;
    memfs_oid tip = commit(1);
    cache_update anew = { .agent_id = A, .from = &tip, .to = tip, .replace_all = true, .holder = 1 };
    cache_tip rows;

    assert_ok(move(f, 0, 1, 1));
    assert_ok(cache_reset(f->cache, &f->err));
    assert_head(f, 1, 1, true);
    assert_code(cache_tip_get(f->cache, A, &rows, &f->err), ENOTFOUND);
    assert_code(move(f, 0, 9, 2), ECONFLICT); /* its commit is not forgotten */
    assert_code(move(f, 1, 2, 1), ECONFLICT); /* all rows but the changed ones would be missing */
    assert_head(f, 1, 1, true);
    assert_ok(cache_apply(f->cache, &anew, &f->err));
    assert_head(f, 1, 1, false);
    assert_ok(cache_tip_get(f->cache, A, &rows, &f->err));
}

/* A server that goes by the rule of before, in a rolling restart. */
static void test_K1_rows_of_another_rule_than_the_databases_are_not_written(void **at)
{
    fixture *f = *at;
    cache *late = pg_cache_new(pg_open(f)), *mine = f->cache;
    memfs_oid tip = commit(1);
    cache_update anew = { .agent_id = A, .from = &tip, .to = tip, .replace_all = true, .holder = 1 };
    cache_tip rows;
    bool has_changed;

    assert_ok(cache_rule(mine, MEMFS_STR("f=1"), &has_changed, &f->err));
    assert_ok(move(f, 0, 1, 1));
    assert_ok(cache_rule(late, MEMFS_STR("f=2"), &has_changed, &f->err));
    assert_true(has_changed);
    assert_code(cache_apply(mine, &anew, &f->err), EUNAVAIL);
    assert_head(f, 1, 1, true);
    f->cache = late;
    assert_ok(cache_apply(late, &anew, &f->err));
    assert_ok(move(f, 1, 2, 2));
    f->cache = mine;
    assert_code(move(f, 1, 9, 1), ECONFLICT);
    assert_code(move(f, 2, 3, 1), EUNAVAIL); /* main moves, its rows are for who has the rule */
    assert_head(f, 3, 1, true);
    assert_code(cache_tip_get(mine, A, &rows, &f->err), ENOTFOUND);
    cache_close(late);
}

/* A command, or one whose start failed after all: those that run go on. */
static void test_L3_who_only_says_its_own_rule_empties_nothing(void **at)
{
    fixture *f = *at;
    cache *guest = pg_cache_new(pg_open(f)), *mine = f->cache;
    bool is_other = true, has_changed;

    assert_ok(cache_own_rule(mine, MEMFS_STR("f=1"), &is_other, &f->err));
    assert_false(is_other); /* nobody had set one */
    assert_ok(move(f, 0, 1, 1));
    assert_ok(cache_own_rule(guest, MEMFS_STR("f=2"), &is_other, &f->err));
    assert_true(is_other);
    assert_head(f, 1, 1, false);
    assert_ok(move(f, 1, 2, 1));
    assert_head(f, 2, 1, false);
    f->cache = guest;
    assert_code(move(f, 2, 3, 2), EUNAVAIL);
    assert_head(f, 3, 2, true);
    assert_ok(cache_rule(guest, MEMFS_STR("f=2"), &has_changed, &f->err));
    assert_true(has_changed);
    f->cache = mine;
    cache_close(guest);
}

static void test_H4_a_first_tip_without_rows_makes_the_agent_known(void **at)
{
    fixture *f = *at;
    cache *late = pg_cache_new(pg_open(f));
    state *s = pg_state_new(pg_open(f));
    bool has_changed, is_known = false;

    assert_ok(cache_rule(f->cache, MEMFS_STR("f=1"), &has_changed, &f->err));
    assert_ok(cache_rule(late, MEMFS_STR("f=2"), &has_changed, &f->err));
    assert_code(move(f, 0, 1, 1), EUNAVAIL);
    assert_head(f, 1, 1, true);
    assert_ok(state_agent_known(s, A, &is_known, &f->err));
    assert_true(is_known);
    assert_code(move(f, 0, 9, 2), ECONFLICT);
    state_close(s);
    cache_close(late);
}

static memfs_code last_move(const cache_move *m, void *ctx, memfs_error *err)
{
    (void)err;
    *(cache_move *)ctx = *m;
    ((cache_move *)ctx)->agent_id = str_equal(m->agent_id, A) ? A : MEMFS_STR("");
    return MEMFS_OK;
}

static void test_moves_are_seen_by_those_that_ask_from_where_they_were(void **at)
{
    fixture *f = *at;
    cache_move first = { .holder = 0 }, second = { .holder = 0 }, none = { .holder = -1 };

    assert_ok(cache_moves(f->cache, -1, 10, last_move, &none, &f->err));
    assert_int_equal(none.holder, -1);
    assert_ok(move(f, 0, 1, 1));
    assert_ok(cache_moves(f->cache, -1, 10, last_move, &first, &f->err));
    assert_ok(move(f, 1, 2, 2));
    assert_ok(cache_moves(f->cache, first.generation, 10, last_move, &second, &f->err));
    assert_int_equal(second.holder, 2);
    assert_true(second.generation > first.generation && str_equal(second.agent_id, A));
    assert_ok(cache_moves(f->cache, second.generation, 10, last_move, &none, &f->err));
    assert_int_equal(none.holder, -1);
}

/* ---- word of moves ---- */

static memfs_code end_listening(pg_conn *c, void *ctx, memfs_error *err)
{
    _cleanup_(pg_result_dispose) pg_result r = PG_RESULT_INIT;

    (void)ctx;
    return pg_exec(c, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                      "application_name = 'memfs listen' AND datname = current_database()", &r, err);
}

/* A second is what the others take without word; none of these waits is as short. */
static void test_a_move_is_told_to_the_other_servers(void **at)
{
    fixture *f = *at;
    pg_db *db = pg_open(f);
    state *s = pg_state_new(db);

    assert_false(state_moves_wait(s, 2, 0)); /* it listens now */
    assert_ok(move(f, 0, 1, 1));
    assert_true(state_moves_wait(s, 2, 60000));
    assert_ok(move(f, 1, 2, 2));
    assert_false(state_moves_wait(s, 2, 1000)); /* by itself */
    assert_code(move(f, 1, 9, 1), ECONFLICT);
    assert_false(state_moves_wait(s, 2, 1000)); /* nothing moved */
    state_close(s);
}

static void test_F22_a_session_that_was_lost_listens_again(void **at)
{
    fixture *f = *at;
    pg_db *db = pg_open(f);
    state *s = pg_state_new(db);
    int64_t until_ms = clock_mono_ms() + 120000;
    bool is_told = false;

    assert_false(state_moves_wait(s, 2, 0));
    assert_ok(pg_work(pg_state_db(s), PG_ONE, end_listening, NULL, &f->err));
    for (uint8_t n = 0; !is_told; n++) {
        assert_true(clock_mono_ms() < until_ms);
        assert_ok(move(f, n, n + 1, 1));
        is_told = state_moves_wait(s, 2, 1000);
    }
    state_close(s);
}

/* ---- servers ---- */

struct seen {
    int64_t nos[4];
    size_t n;
};

static memfs_code see(const state_server *s, void *ctx, memfs_error *err)
{
    struct seen *x = ctx;

    (void)err;
    assert_true(s->age_ms >= 0 && s->token_hash[0] == 7);
    x->nos[x->n++] = s->no;
    return MEMFS_OK;
}

static void test_a_server_keeps_its_number(void **at)
{
    fixture *f = *at;
    state *s = pg_state_new(pg_open(f));
    state_server one = { .name = MEMFS_STR("one"), .url = MEMFS_STR("http://one"), .token_hash = { 7 } };
    state_server two = { .name = MEMFS_STR("two"), .url = MEMFS_STR("http://two"), .token_hash = { 7 } };
    struct seen seen = { .n = 0 };
    int64_t no, again, other;

    assert_ok(state_server_join(s, &one, &no, &f->err));
    assert_ok(state_server_join(s, &two, &other, &f->err));
    one.url = MEMFS_STR("http://elsewhere");
    assert_ok(state_server_join(s, &one, &again, &f->err));
    assert_true(no == again && no != other);
    assert_ok(state_servers(s, see, &seen, &f->err));
    assert_int_equal(seen.n, 2);
    state_close(s);
}

static void test_L6_servers_that_share_a_database_and_one_that_does_not_refuse_each_other(void **at)
{
    fixture *f = *at;
    pg_db *one, *two, *alone;

    assert_ok(pg_db_open_serving(pg_url(), true, &one, &f->err));
    assert_ok(pg_db_open_serving(pg_url(), true, &two, &f->err));
    assert_code(pg_db_open_serving(pg_url(), false, &alone, &f->err), EUNAVAIL);
    assert_non_null(strstr(f->err.msg, "--cluster-url"));
    pg_db_close(one);
    pg_db_close(two);
    assert_ok(pg_db_open_serving(pg_url(), false, &alone, &f->err));
    assert_code(pg_db_open_serving(pg_url(), true, &one, &f->err), EUNAVAIL);
    pg_db_close(alone);
}

/* The end of a session is the end of its lease, as soon as the database has noticed. */
static void wait_for_lease(fixture *f, state *s)
{
    int64_t until_ms = clock_mono_ms() + 60000;
    bool has_it = false;

    while (!has_it) {
        assert_true(clock_mono_ms() < until_ms);
        assert_ok(state_lease(s, &has_it, &f->err));
    }
}

static void test_one_server_has_the_lease_and_the_next_when_it_ends(void **at)
{
    fixture *f = *at;
    state *one = pg_state_new(pg_open(f)), *two = pg_state_new(pg_open(f));
    bool has_it = true;

    wait_for_lease(f, one);
    assert_ok(state_lease(two, &has_it, &f->err));
    assert_false(has_it);
    assert_ok(state_lease(one, &has_it, &f->err));
    assert_true(has_it);
    state_close(one);
    wait_for_lease(f, two);
    state_close(two);
}

static void test_K3_a_turn_is_one_servers_until_it_gives_it_back_or_ends(void **at)
{
    fixture *f = *at;
    state *one = pg_state_new(pg_open(f)), *two = pg_state_new(pg_open(f));
    const memfs_str a = MEMFS_STR("block-a"), b = MEMFS_STR("block-b");
    int64_t until_ms = clock_mono_ms() + 60000;
    bool has_it = false;

    assert_ok(state_turn_take(one, a, 0, &has_it, &f->err));
    assert_true(has_it);
    assert_ok(state_turn_take(two, a, 0, &has_it, &f->err));
    assert_false(has_it);
    assert_ok(state_turn_take(two, b, 0, &has_it, &f->err));
    assert_true(has_it);
    state_turn_end(one, a);
    assert_ok(state_turn_take(two, a, 0, &has_it, &f->err));
    assert_true(has_it);
    state_close(two); /* seen as soon as the database has noticed */
    for (has_it = false; !has_it;) {
        assert_true(clock_mono_ms() < until_ms);
        assert_ok(state_turn_take(one, a, 0, &has_it, &f->err));
    }
    state_close(one);
}

static void test_L3_who_reads_the_shared_tip_sees_that_somebody_has_the_turn(void **at)
{
    fixture *f = *at;
    state *s = pg_state_new(pg_open(f));
    bool has_it;
    cache_head head;

    assert_ok(move(f, 0, 1, 1));
    assert_ok(cache_head_get(f->cache, A, &head, &f->err));
    assert_false(head.has_turn);
    assert_ok(state_turn_take(s, A, 0, &has_it, &f->err));
    assert_true(has_it);
    assert_ok(cache_head_get(f->cache, A, &head, &f->err));
    assert_true(head.has_turn);
    state_turn_end(s, A);
    assert_ok(cache_head_get(f->cache, A, &head, &f->err)); /* and reading it took nothing */
    assert_false(head.has_turn);
    assert_ok(state_turn_take(s, A, 0, &has_it, &f->err));
    assert_true(has_it);
    state_close(s);
}

static void test_S5_a_token_that_is_made_or_revoked_is_seen_by_all(void **at)
{
    fixture *f = *at;
    state *s = pg_state_new(pg_open(f));
    state_token t = { .id = MEMFS_STR("11111111"), .scope = MEMFS_STR("admin"), .created_at_us = 1 };
    int64_t before, made, revoked;

    assert_ok(state_tokens_mark(s, &before, &f->err));
    assert_ok(state_token_add(s, &t, &f->err));
    assert_ok(state_tokens_mark(s, &made, &f->err));
    assert_ok(state_token_revoke(s, t.id, 2, &f->err));
    assert_ok(state_tokens_mark(s, &revoked, &f->err));
    assert_true(before != made && made != revoked && before != revoked);
    state_close(s);
}

int main(void)
{
#define OVER(test) cmocka_unit_test_setup_teardown(test, setup_cache, teardown)
    const struct CMUnitTest tests[] = {
        OVER(test_H2_of_two_moves_from_one_tip_one_wins),
        OVER(test_H4_with_its_first_tip_an_agent_is_known),
        OVER(test_D5_a_tip_outlives_its_rows),
        OVER(test_K1_rows_of_another_rule_than_the_databases_are_not_written),
        OVER(test_L3_who_only_says_its_own_rule_empties_nothing),
        OVER(test_H4_a_first_tip_without_rows_makes_the_agent_known),
        OVER(test_moves_are_seen_by_those_that_ask_from_where_they_were),
        OVER(test_a_move_is_told_to_the_other_servers),
        OVER(test_F22_a_session_that_was_lost_listens_again),
        OVER(test_a_server_keeps_its_number),
        OVER(test_L6_servers_that_share_a_database_and_one_that_does_not_refuse_each_other),
        OVER(test_one_server_has_the_lease_and_the_next_when_it_ends),
        OVER(test_K3_a_turn_is_one_servers_until_it_gives_it_back_or_ends),
        OVER(test_L3_who_reads_the_shared_tip_sees_that_somebody_has_the_turn),
        OVER(test_S5_a_token_that_is_made_or_revoked_is_seen_by_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
