#include "state_fixture.h"

#include "cache/cache_int.h"

/*
 * Agents as they are made, changed, deleted and brought back, over SQLite and over PostgreSQL.
 */

static state_agent ada(int64_t version)
{
    return (state_agent){ .id = MEMFS_STR("agent-a"),
                          .org_id = MEMFS_STR("org-1"),
                          .name = MEMFS_STR("Ada"),
                          .tags_json = MEMFS_STR("[\"x\",\"y\"]"),
                          .fields_json = MEMFS_STR("{\"system\":\"Be kind.\"}"),
                          .created_at_us = 7,
                          .updated_at_us = 9,
                          .version = version };
}

static memfs_code show(const state_agent *a, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s|%.*s|%.*s|%d|%lld|%lld|%lld ", (int)a->name.len, a->name.ptr,
               (int)a->tags_json.len, a->tags_json.ptr, (int)a->fields_json.len, a->fields_json.ptr,
               a->is_hidden, (long long)a->created_at_us, (long long)a->updated_at_us,
               (long long)a->deleted_at_us);
    return MEMFS_OK;
}

static void assert_shown(fixture *f, agent_query q, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);

    q.with_fields = true;
    assert_ok(state_agents(s, &q, show, &out, &f->err));
    assert_string_equal(out.len > 0 ? out.ptr : "", expected);
}

static memfs_code show_id(const state_agent *a, void *ctx, memfs_error *err)
{
    (void)err;
    buf_printf(ctx, "%.*s ", (int)a->id.len, a->id.ptr);
    return MEMFS_OK;
}

static void assert_ids(fixture *f, agent_query q, const char *expected)
{
    _cleanup_(buf_dispose) memfs_buf out = MEMFS_BUF_INIT(1 << 16);

    assert_ok(state_agents(s, &q, show_id, &out, &f->err));
    assert_string_equal(out.len > 0 ? out.ptr : "", expected);
}

/* On one connection, one after the other: no question is taken for another. */
static void test_each_question_for_agents_has_its_own_answer(void **at)
{
    fixture *f = *at;
    int64_t n = -1;

    add(f, "agent-a", 5);
    add(f, "agent-b", 6);
    assert_ids(f, (agent_query){ .id = MEMFS_STR("agent-b") }, "agent-b ");
    assert_ids(f, (agent_query){ .after = MEMFS_STR("agent-a") }, "agent-b ");
    assert_ids(f, (agent_query){ .limit = 0 }, "agent-a agent-b ");
    for (int bits = 0; bits < 16; bits++)
        assert_ids(f,
                   (agent_query){ .descending = bits & 1,
                                  .by_updated = bits & 2,
                                  .with_shared = bits & 4,
                                  .limit = bits & 8 ? 2 : 0 },
                   bits & 1 ? "agent-b agent-a " : "agent-a agent-b ");
    assert_ok(state_agent_count(s, &n, &f->err));
    assert_int_equal(n, 2);
}

static int64_t version_of_all(fixture *f)
{
    int64_t version = -1;

    assert_ok(state_agents_version(s, &version, &f->err));
    return version;
}

static void test_D3_an_agent_is_seen_with_its_name_or_not_at_all(void **at)
{
    fixture *f = *at;
    state_agent agent = ada(0);
    bool is_known = true;
    int64_t n = -1;

    assert_ok(state_agent_announce(s, &agent, &f->err));
    for (agent_which which = AGENTS_LIVING; which <= AGENTS_ALL; which++)
        assert_shown(f, (agent_query){ .which = which }, "");
    assert_ok(state_agent_known(s, agent.id, &is_known, &f->err));
    assert_false(is_known);
    assert_ok(state_agent_count(s, &n, &f->err));
    assert_int_equal(n, 0);
    assert_code(state_agent_put(s, &agent, &f->err), ENOTFOUND);
    agent.name = MEMFS_STR("Ada the second"); /* what came before it came to nothing */
    assert_ok(state_agent_announce(s, &agent, &f->err));
    add(f, "agent-a", 5);
    assert_shown(f, (agent_query){ .limit = 0 },
                 "Ada the second|[\"x\",\"y\"]|{\"system\":\"Be kind.\"}|0|7|7|0 ");
    assert_code(state_agent_announce(s, &agent, &f->err), EEXISTS);
    agent.tags_json = MEMFS_STR("{}");
    agent.id = MEMFS_STR("agent-b");
    assert_code(state_agent_announce(s, &agent, &f->err), EINVALID);
}

static void test_H3_a_change_is_written_on_the_version_it_was_made_of(void **at)
{
    fixture *f = *at;
    state_agent agent = ada(0);
    int64_t before;

    add(f, "agent-a", 5);
    before = version_of_all(f);
    assert_ok(state_agent_put(s, &agent, &f->err));
    assert_shown(f, (agent_query){ .limit = 0 },
                 "Ada|[\"x\",\"y\"]|{\"system\":\"Be kind.\"}|0|5|9|0 ");
    assert_true(version_of_all(f) > before);
    assert_code(state_agent_put(s, &agent, &f->err), ECONFLICT);
    agent = ada(1);
    agent.fields_json = MEMFS_STR("");
    agent.is_hidden = true;
    agent.updated_at_us = 3; /* a clock that went back: still later than before (H7) */
    assert_ok(state_agent_put(s, &agent, &f->err));
    assert_shown(f, (agent_query){ .limit = 0 }, "Ada|[\"x\",\"y\"]||1|5|10|0 ");
    assert_shown(f, (agent_query){ .without_hidden = true }, "");
    agent.id = MEMFS_STR("agent-b");
    assert_code(state_agent_put(s, &agent, &f->err), ENOTFOUND);
    agent = ada(2);
    agent.tags_json = MEMFS_STR("7");
    assert_code(state_agent_put(s, &agent, &f->err), EINVALID);
}

static void test_7_a_deleted_agent_is_in_no_list_but_of_those(void **at)
{
    fixture *f = *at;
    bool has_changed = false, is_known = false;
    int64_t n = -1, before;
    agent_query gone = { .which = AGENTS_DELETED };
    agent_query all = { .which = AGENTS_ALL };
    agent_query living = { .limit = 0 };

    add(f, "agent-a", 5);
    add(f, "agent-b", 6);
    before = version_of_all(f);
    assert_ok(state_agent_set_deleted(s, MEMFS_STR("agent-a"), 50, 50, &has_changed, &f->err));
    assert_true(has_changed);
    assert_ok(state_agent_set_deleted(s, MEMFS_STR("agent-a"), 60, 60, &has_changed, &f->err));
    assert_false(has_changed);
    assert_shown(f, gone, "agent-a|[]||0|5|50|50 ");
    assert_agents(&living, "agent-b");
    assert_agents(&all, "agent-a agent-b");
    assert_ok(state_agent_count(s, &n, &f->err));
    assert_int_equal(n, 1);
    assert_true(version_of_all(f) > before);
    assert_ok(state_agent_known(s, MEMFS_STR("agent-a"), &is_known, &f->err));
    assert_true(is_known); /* its folder is no stranger's */
    add(f, "agent-a", 70); /* and nothing makes it anew */
    assert_agents(&living, "agent-b");
    assert_code(state_agent_put(s,
                                &(state_agent){ .id = MEMFS_STR("agent-a"),
                                                .version = 1,
                                                .tags_json = MEMFS_STR("[]") },
                                &f->err),
                ENOTFOUND);
    assert_ok(state_agent_set_deleted(s, MEMFS_STR("agent-a"), 0, 80, &has_changed, &f->err));
    assert_true(has_changed);
    assert_shown(f, (agent_query){ .id = MEMFS_STR("agent-a") }, "agent-a|[]||0|5|80|0 ");
    assert_code(state_agent_set_deleted(s, MEMFS_STR("agent-c"), 1, 1, &has_changed, &f->err),
                ENOTFOUND);
}

static void assert_tag_lists(fixture *f, unsigned n, const char *one, const char *other)
{
    tag_lists lists = { MEMFS_BUF_INIT(1 << 16), 0 };

    assert_ok(state_tag_lists(s, join_tag_list, &lists, &f->err));
    assert_int_equal(lists.n, n);
    assert_true(n < 1 || tag_lists_have(&lists, one));
    assert_true(n < 2 || tag_lists_have(&lists, other));
    buf_dispose(&lists.text);
}

static void put_tags(fixture *f, const char *id, const char *tags, bool is_hidden)
{
    state_agent agent = ada(0);

    add(f, id, 5);
    agent.id = str_of(id);
    agent.tags_json = str_of(tags);
    agent.is_hidden = is_hidden;
    assert_ok(state_agent_put(s, &agent, &f->err));
}

static void test_9_each_list_of_tags_of_agents_that_are_there_is_told_once(void **at)
{
    fixture *f = *at;
    state_agent announced = ada(0);
    bool has_changed;

    assert_tag_lists(f, 0, "", "");
    announced.tags_json = MEMFS_STR("[\"announced\"]");
    announced.id = MEMFS_STR("agent-z");
    assert_ok(state_agent_announce(s, &announced, &f->err));
    add(f, "agent-a", 5);
    assert_tag_lists(f, 0, "", "");
    put_tags(f, "agent-b", "[\"x\",\"y\"]", false);
    put_tags(f, "agent-c", "[\"x\",\"y\"]", true);
    assert_tag_lists(f, 1, "[\"x\",\"y\"] ", "");
    put_tags(f, "agent-d", "[\"y\"]", true);
    assert_tag_lists(f, 2, "[\"x\",\"y\"] ", "[\"y\"] ");
    assert_ok(state_agent_set_deleted(s, MEMFS_STR("agent-d"), 50, 50, &has_changed, &f->err));
    assert_tag_lists(f, 1, "[\"x\",\"y\"] ", "");
    assert_ok(state_agent_set_deleted(s, MEMFS_STR("agent-d"), 0, 60, &has_changed, &f->err));
    assert_tag_lists(f, 2, "[\"x\",\"y\"] ", "[\"y\"] ");
}

/* As large as agents may have them: PostgreSQL's indexes hold 2,700 bytes. */
static void test_9_a_long_list_of_tags_is_told_too(void **at)
{
    _cleanup_(buf_dispose) memfs_buf tags = MEMFS_BUF_INIT(1 << 20);
    fixture *f = *at;

    buf_puts(&tags, "[\"first\"");
    for (unsigned i = 0; i < 1000; i++) /* no two alike, so that nothing packs them */
        buf_printf(&tags, ",\"%08x%08x%08x%08x\"", i * 2654435761u, i * 40503u, i * i * 69069u,
                   i * 1664525u);
    buf_puts(&tags, "]");
    put_tags(f, "agent-a", tags.ptr, false);
    assert_tag_lists(f, 1, "[\"first\",\"00000000", "");
}

static void test_7_agents_by_their_last_change_in_pages(void **at)
{
    fixture *f = *at;
    agent_query q = { .by_updated = true };
    state_agent agent = ada(0);

    add(f, "agent-a", 5);
    add(f, "agent-b", 6);
    add(f, "agent-c", 7);
    assert_ok(state_agent_put(s, &agent, &f->err)); /* at 9 */
    assert_agents(&q, "agent-b agent-c agent-a");
    q.after = MEMFS_STR("agent-c");
    assert_agents(&q, "agent-a");
    q.descending = true;
    assert_agents(&q, "agent-b");
    q = (agent_query){ .by_updated = true, .descending = true, .before = MEMFS_STR("agent-c") };
    assert_agents(&q, "agent-a");
    q.limit = 1;
    q.before = MEMFS_STR("");
    assert_agents(&q, "agent-a");
}

static void test_D7_a_copy_has_fields_and_deleted_agents(void **at)
{
    fixture *f = *at;
    _cleanup_(mem_freep) char *folder = mem_printf("%s/copy", f->root);
    _cleanup_(mem_freep) char *file = mem_printf("%s/state.db", folder);
    state_agent agent = ada(0);
    state *own = s;
    bool has_changed;

    add(f, "agent-a", 5);
    add(f, "agent-b", 6);
    agent.is_hidden = true;
    assert_ok(state_agent_put(s, &agent, &f->err));
    assert_ok(state_agent_set_deleted(s, MEMFS_STR("agent-b"), 60, 60, &has_changed, &f->err));
    assert_ok(fs_mkdirs(folder, &f->err));
    assert_ok(state_copy_rows(s, file, &f->err));
    assert_ok(state_open_sqlite(folder, &s, &f->err));
    assert_shown(f, (agent_query){ .which = AGENTS_ALL },
                 "Ada|[\"x\",\"y\"]|{\"system\":\"Be kind.\"}|1|5|10|0 agent-b|[]||0|6|61|60 ");
    assert_ok(state_copy_into(own, s, &f->err)); /* once more changes nothing */
    assert_shown(f, (agent_query){ .which = AGENTS_ALL },
                 "Ada|[\"x\",\"y\"]|{\"system\":\"Be kind.\"}|1|5|10|0 agent-b|[]||0|6|61|60 ");
    state_close(s);
    s = own;
}

int main(void)
{
#define ON_STATE(test) cmocka_unit_test_setup_teardown(test, setup_state, teardown_state)
    const struct CMUnitTest tests[] = {
        ON_STATE(test_each_question_for_agents_has_its_own_answer),
        ON_STATE(test_D3_an_agent_is_seen_with_its_name_or_not_at_all),
        ON_STATE(test_H3_a_change_is_written_on_the_version_it_was_made_of),
        ON_STATE(test_7_a_deleted_agent_is_in_no_list_but_of_those),
        ON_STATE(test_7_agents_by_their_last_change_in_pages),
        ON_STATE(test_9_each_list_of_tags_of_agents_that_are_there_is_told_once),
        ON_STATE(test_9_a_long_list_of_tags_is_told_too),
        ON_STATE(test_D7_a_copy_has_fields_and_deleted_agents),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
