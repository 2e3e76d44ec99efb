"""Rows of the wire contract that no other file asks for, named after its sections (http-api 1, 4 to 11).

What is written in one request is read by others; each test has agents and blocks of its own.
"""
import concurrent.futures
import json
import time
import uuid
from urllib.parse import quote

import pytest

from lib.restmem import AGENT_KEYS, CURL, only_error
from lib.server import new_agent
from lib.writes import srv  # noqa: F401

NOBODY = "block-123e4567-e89b-42d3-8456-426614174000"
DEFAULT_USER = "user-00000000-0000-4000-8000-000000000000"


def word():
    return "w" + uuid.uuid4().hex[:12]


def make(srv, **body):
    return srv.ok("POST", "/v1/blocks", {"label": "made", **body})


def labels(srv, query):
    return sorted(b["label"] for b in srv.ok("GET", f"/v1/blocks/?limit=0&{query}"))


def ids(rows):
    return [row["id"] for row in rows]


# ---- 1: common rules -----------------------------------------------------------------------------

def writes(srv):
    """(method, target) of every route that is no GET, of things that nobody has: so nothing is done."""
    values = {"agent": new_agent(), "id": NOBODY, "repository": f"repo-{uuid.uuid4()}", "label...": "system/human"}
    for line in srv.server.cli("debug", "routes", home=False).stdout.decode().splitlines():
        method, pattern, access, _ = line.split("\t")
        if method == "GET" or access in ("owner", "peer", "hook") or "/git" in pattern:
            continue
        for name, value in values.items():
            pattern = pattern.replace("{" + name + "}", value)
        yield method, pattern


def told(answer):
    return answer.status, answer.body, answer.headers.get("x-should-retry")


def test_1_1_writes_answer_with_and_without_a_slash_and_under_latest(srv):
    n = 0
    for method, target in writes(srv):
        plain = srv.ask(method, target, b"[]")
        assert plain.status in (404, 422), (method, target, plain)
        assert plain.json()["detail"] != "Not Found", (method, target)
        for other in (target + "/", target.replace("/v1/", "/latest/", 1)):
            answer = srv.ask(method, other, b"[]")
            assert told(answer) == told(plain) and "location" not in answer.headers, (method, other, answer)
            n += 1
    assert n > 40


def test_1_1_fields_and_parameters_that_nobody_knows_are_ignored_in_writes(srv):
    agent, extra = srv.agent(), {"nobody_knows": [1, {"a": None}]}
    block = srv.ok("POST", "/v1/blocks?x=1&x=2", {"label": "l", **extra})
    repo = srv.ok("POST", "/v1/repositories?x=1", {"name": word(), **extra})["id"]
    for method, target, body in (
            ("PATCH", f"/v1/blocks/{block['id']}", {"value": "v"}),
            ("PATCH", f"/v1/agents/{agent}", {"description": "d"}),
            ("POST", f"/v1/agents/{agent}/memory/commit", {"changes": [{"path": "a.md", "content": "x", **extra}]}),
            ("POST", f"/v1/agents/{agent}/memory/revert", {"commit": srv.main(agent)}),
            ("POST", f"/v1/agents/{agent}/recompile", {}),
            ("POST", f"/v1/agents/{agent}/repositories", {"repository_id": repo}),
            ("POST", f"/v1/repositories/{repo}/files", {"path": "a.md", "content": "x"}),
            ("POST", f"/v1/repositories/{repo}/files/content", {"path": "a.md", "content": "y"}),
            ("DELETE", f"/v1/repositories/{repo}/files/content", {"path": "a.md"})):
        srv.ok(method, target + "?x=1", {**body, **extra})


def test_1_3_the_acting_user_of_a_write(srv):
    agent = srv.agent()
    main = srv.main(agent)
    for bad in ("user-1", "", "nobody"):
        refused = srv.server.request("PATCH", f"/v1/agents/{agent}/core-memory/blocks/system/human",
                                     json.dumps({"value": "x"}), {"user_id": bad})
        assert refused.status == 400 if bad else refused.status in (200, 400), (bad, refused)
    assert srv.file(agent, "system/human.md").endswith(b"Likes tea.") or srv.main(agent) != main
    srv.server.request("PATCH", f"/v1/agents/{agent}/core-memory/blocks/system/human", json.dumps({"value": "y"}),
                       {"user_id": f"user-{uuid.uuid4()}"})
    assert srv.server.value(agent, "system/human") == "y"
    assert srv.log(agent, "%an")[0] == f"User {DEFAULT_USER}", "an unknown one is the default user"


def test_1_4_ids_of_git_are_400_and_ids_of_queries_422_but_cursors_are_any_text(srv):
    for bad in ("agent-1", new_agent().upper(), new_agent()[:-1], f"block-{uuid.uuid4()}",
                "agent-11111111-1111-1111-8111-111111111111"):
        for target in (f"/v1/git/{bad}/state.git/info/refs?service=git-upload-pack",
                       f"/git/{bad}/state.git/info/refs?service=git-receive-pack"):
            answer = srv.ask("GET", target)
            assert answer.status == 400, (target, answer)
            assert answer.json()["detail"] == (
                f"INVALID_ARGUMENT: Invalid agent ID format: {bad}. Expected format: 'agent-<uuid4>'")
    assert only_error(srv.ask("GET", "/v1/blocks/?identity_id=agent-1"))["loc"] == ("query", "identity_id")
    for path in ("/v1/blocks/", "/v1/agents/", "/v1/tags/"):
        for cursor in ("agent-1", "%FF", "x" * 300):
            assert srv.ask("GET", f"{path}?limit=1&before={cursor}&after=").status == 200, (path, cursor)


def test_1_5_a_permanent_409_is_not_to_be_tried_again(srv):
    """SDKs send a 409 twice more by themselves, unless they are told not to."""
    agent = srv.agent({"a.md": "1", "b.md": "2"})
    block, other = make(srv, label="a"), srv.block(agent, "a")["id"]
    target, zero = f"/v1/agents/{agent}", "0" * 40
    repo = srv.ok("POST", "/v1/repositories", {"name": word()})
    for method, at, body in (
            ("PATCH", f"{target}/core-memory/blocks/b", {"label": "a"}),
            ("PATCH", f"{target}/core-memory/blocks/b", {"value": "x", "expected_version": zero}),
            ("PATCH", f"/v1/blocks/{other}", {"value": "x", "expected_version": zero}),
            ("PATCH", f"{target}/core-memory/blocks/attach/{block['id']}", None),
            ("POST", f"{target}/memory/commit", {"changes": [], "expected_version": zero}),
            ("POST", f"{target}/memory/commit", {"changes": [{"path": "a.md", "content": "x", "change_type": "add"}]}),
            ("POST", f"{target}/memory/revert", {"commit": srv.main(agent), "expected_version": zero}),
            ("POST", "/v1/agents", {"id": agent}),
            ("POST", "/v1/agents", {"memory_blocks": [{"label": "x"}, {"label": "x"}]}),
            ("POST", "/v1/repositories", {"name": repo["name"]})):
        answer = srv.ask(method, at, body)
        assert answer.status == 409 and isinstance(answer.detail, str), (at, body, answer)
        assert answer.headers.get("x-should-retry") == "false", (at, body)


# ---- 4: the block object -------------------------------------------------------------------------

def test_4_tags_are_never_shown_inside_an_agent(srv):
    agent = srv.agent({"a.md": "1"})
    assert srv.patch(agent, "a", {"tags": ["t"]}).json()["tags"] == ["t"]
    shown = srv.server.get(f"/v1/agents/{agent}", headers=CURL).json()
    assert [b["tags"] for b in shown["blocks"]] == [b["tags"] for b in shown["memory"]["blocks"]] == [[]]
    assert [b["tags"] for b in srv.ok("GET", f"/v1/agents/{agent}/core-memory")["blocks"]] == [[]]
    assert [b["tags"] for b in srv.ok("GET", f"/v1/agents/{agent}/core-memory/blocks")] == [["t"]]


def test_4_the_limit_is_told_and_not_enforced(srv):
    agent = srv.agent({"a.md": "---\nlimit: 3\n---\nlonger than that"})
    block = srv.patch(agent, "a", {"value": "longer still", "limit": 2}).json()
    assert (block["value"], block["limit"]) == ("longer still", 2)
    assert make(srv, value="longer", limit=1)["value"] == "longer"


def test_4_nul_is_taken_out_wherever_a_value_comes_in(srv):
    assert make(srv, value="a\0b\0")["value"] == "ab"
    made = srv.ok("POST", "/v1/agents", {"memory_blocks": [{"label": "x", "value": "\0a\0b"}]})
    assert srv.server.value(made["id"], "x") == "ab"


def test_4_who_made_it_is_always_null(srv):
    agent = srv.agent({"a.md": "1"})
    for block in (make(srv), srv.patch(agent, "a", {"value": "2"}).json(), srv.block(agent, "a")):
        assert block["created_by_id"] is block["last_updated_by_id"] is None


# ---- 5: an agent's blocks ------------------------------------------------------------------------

def test_5_1_attach_and_detach_take_their_word_before_labels(srv):
    agent = srv.agent({"attach/x.md": "a label like any", "detach.md": "too"})
    assert srv.block(agent, "attach/x")["value"] == "a label like any"
    assert srv.patch(agent, "detach", {"value": "changed"}).json()["value"] == "changed"
    assert only_error(srv.patch(agent, "attach/x", {"value": "y"}))["loc"] == ("path", "block_id")
    by_id = srv.ok("PATCH", f"/v1/blocks/{srv.block(agent, 'attach/x')['id']}", {"value": "by its id"})
    assert by_id["value"] == srv.server.value(agent, "attach/x") == "by its id"


def test_5_2_patch_matches_labels_exactly(srv):
    agent = srv.agent({"system/human.md": "1"})
    for label in ("system/Human", "human", "system/human.md", "system/human%20", "system"):
        assert srv.patch(agent, label, {"value": "x"}).status == 404, label
    assert srv.server.value(agent, "system/human") == "1"


@pytest.mark.parametrize("how", ["attach", "detach"])
def test_5_2_attach_and_detach_of_what_is_not_there_are_404(srv, how):
    agent, block = srv.agent(), make(srv)["id"]
    unknown = new_agent()
    answer = srv.move(how, unknown, block)
    assert (answer.status, answer.detail) == (404, f"Agent with ID {unknown} not found")
    answer = srv.move(how, agent, NOBODY)
    assert (answer.status, answer.detail) == (404, f"Block with id '{NOBODY}' not found")
    if how == "detach":
        assert srv.move(how, agent, block).status == 404, "it is there, and not attached to this one"
    assert srv.ask("GET", f"/v1/agents/{unknown}").status == 404, "and nothing was made"


def test_5_2_detach_answers_the_agent_with_all_it_has(srv):
    agent = srv.agent({"a.md": "1", "b.md": "2"})
    answer = srv.move("detach", agent, srv.block(agent, "a")["id"], User_Agent="letta-client/1.12.1")
    state = answer.json()
    assert list(state) == AGENT_KEYS and state["id"] == agent
    assert [b["label"] for b in state["blocks"]] == ["b"] and state["tags"], "also for an SDK"


def test_5_2_a_block_of_the_api_outlives_the_next_push(srv):
    """Stock: what was attached by the API is detached by the next push, as no file has it."""
    agent, block = srv.agent(), make(srv, label="kept", value="v")
    assert srv.move("attach", agent, block["id"]).status == 200
    srv.push(agent, {"other.md": "o"})
    after = srv.block(agent, "kept")
    assert after == {**block, "description": "kept block"}, "which every file has that says none (block-format 2.1)"


# ---- 6: blocks -----------------------------------------------------------------------------------

def test_5_2_a_list_is_asked_for_by_its_parameters(srv):
    agent = srv.agent({f"{i}.md": str(i) for i in range(3)})
    target = f"/v1/agents/{agent}/core-memory/blocks"
    whole = sorted(ids(srv.ok("GET", target)), reverse=True)
    assert ids(srv.ok("GET", target)) == ids(srv.ok("GET", f"{target}?order_by=created_at&order=desc")) == whole
    assert ids(srv.ok("GET", f"{target}?order=asc&limit=2")) == whole[::-1][:2]
    for query, where in (("order_by=label", "order_by"), ("order=up", "order"), ("limit=-1", "limit")):
        assert only_error(srv.ask("GET", f"{target}?{query}"))["loc"] == ("query", where), query


def test_5_2_attaching_twice_is_once_and_any_caller_gets_the_whole_agent(srv):
    agent, block = srv.agent(), make(srv, label="team", tags=["t"])["id"]
    sdk = {"User_Agent": "letta-client/1.12.1"}
    first = srv.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/attach/{block}", b"", **sdk).json()
    main = srv.main(agent)
    assert list(first) == AGENT_KEYS and {b["label"] for b in first["blocks"]} == {"system/human", "team"} and first["tags"]
    again = srv.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/attach/{block}", b"", **sdk)
    assert (again.status, again.json()["blocks"]) == (200, first["blocks"]) and srv.main(agent) == main
    left = srv.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/detach/{block}", b"", **sdk).json()
    assert [b["label"] for b in left["blocks"]] == ["system/human"] and left["tags"]


def test_6_1_tags_any_all_and_the_same_twice(srv):
    a, b = word(), word()
    make(srv, label="one", tags=[a])
    make(srv, label="both", tags=[a, b])
    make(srv, label="none")
    assert labels(srv, f"tags={a}") == ["both", "one"] and labels(srv, f"tags={b}") == ["both"]
    assert labels(srv, f"tags={a}&tags={b}") == ["both", "one"]
    assert labels(srv, f"tags={a}&tags={b}&match_all_tags=true") == ["both"]
    assert labels(srv, f"tags={a}&tags={a}") == ["both", "one"]
    assert labels(srv, f"tags={a}&tags={a}&match_all_tags=true") == [], "it counts the tags that were given"
    assert labels(srv, f"tags={a},{b}") == []


def test_6_1_blocks_of_nobody_are_counted_where_none_is_asked_for(srv):
    tag = word()
    block, shared = make(srv, label="loose", tags=[tag]), make(srv, label="shared", tags=[tag])
    for agent in (srv.agent(), srv.agent()):
        assert srv.move("attach", agent, shared["id"]).status == 200
    for query, want in (("", ["loose", "shared"]), ("&connected_to_agents_count_gt=0", ["shared"]),
                        ("&connected_to_agents_count_gt=1", ["shared"]), ("&connected_to_agents_count_gt=2", []),
                        ("&connected_to_agents_count_lt=1", ["loose"]), ("&connected_to_agents_count_eq=0", ["loose"]),
                        ("&connected_to_agents_count_lt=3", ["loose", "shared"]),
                        ("&connected_to_agents_count_eq=0&connected_to_agents_count_eq=2", ["loose", "shared"]),
                        ("&connected_to_agents_count_gt=1&connected_to_agents_count_lt=2", []),
                        ("&connected_to_agents_count_gt=0&connected_to_agents_count_eq=0", [])):
        assert labels(srv, f"tags={tag}{query}") == want, query
    assert srv.ok("GET", f"/v1/blocks/count?tags={tag}") == 2, "the two copies are one block"
    assert block["id"] != shared["id"]


def test_6_1_6_2_hidden_blocks_are_left_out_of_lists_and_counted(srv):
    tag, before = word(), srv.ok("GET", "/v1/blocks/count")
    make(srv, label="seen", tags=[tag])
    make(srv, label="hidden", tags=[tag], hidden=True)
    assert labels(srv, f"tags={tag}") == ["seen"]
    assert labels(srv, f"tags={tag}&show_hidden_blocks=true") == ["hidden", "seen"]
    assert srv.ok("GET", f"/v1/blocks/count?tags={tag}") == 2
    assert srv.ok("GET", f"/v1/blocks/count?tags={tag}&templates_only=true") == 0
    assert srv.ok("GET", f"/v1/blocks/count?tags={tag}&tags={word()}&match_all_tags=true") == 0
    assert srv.ok("GET", "/v1/blocks/count") == before + 2


def test_6_1_searches_are_ilike_with_its_wildcards(srv):
    a = word()
    make(srv, label="one", value=f"{a} 100% Sure_thing", description=f"{a} About")
    make(srv, label="two", value=f"{a} 100 percent", description=f"{a} else")
    for query, want in ((f"value_search={a.upper()}", ["one", "two"]), (f"value_search={a}%20100_%25sure", ["one"]),
                        (f"value_search={a}%25PERCENT", ["two"]), (f"description_search={a}%20about", ["one"]),
                        (f"description_search={a}%25e", ["two"]), (f"label_search=ON&value_search={a}", ["one"]),
                        (f"label=two&label_search=one&value_search={a}", ["two"])):
        assert labels(srv, query) == want, query


def test_6_3_what_is_missing_or_null_is_its_default(srv):
    block = srv.ok("POST", "/v1/blocks/", {"label": "l"})
    nulls = srv.ok("POST", "/v1/blocks", {"label": "l", "value": None, "limit": None, "description": None, "metadata": None,
                                          "tags": None, "hidden": None})
    assert {**nulls, "id": ""} == {**block, "id": ""} and nulls["id"] != block["id"]
    assert (block["value"], block["limit"], block["is_template"], block["metadata"]) == ("", 100000, False, {})
    for label in ("human", "persona", "system/human", "system/persona"):
        assert make(srv, label=label)["description"] is None, "nobody wrote one"
    for bad in ({"label": None}, {"label": 1}, {"label": "l", "is_template": None}, {"label": "l", "read_only": None},
                {"label": "l", "tags": [1]}):
        assert srv.ask("POST", "/v1/blocks", bad).status == 422, bad


def test_6_4_null_leaves_what_there_is(srv):
    agent = srv.agent({"a.md": "---\ndescription: d\nmetadata: {k: 1}\n---\nv"})
    before = srv.patch(agent, "a", {"tags": ["t"], "limit": 9, "hidden": True}).json()
    attached, loose = srv.block(agent, "a")["id"], make(srv, label="l", value="v", tags=["t"], description="d")
    for block, was in ((attached, before), (loose["id"], loose)):
        for key in ("value", "description", "limit", "metadata", "tags", "label", "hidden"):
            assert srv.ok("PATCH", f"/v1/blocks/{block}", {key: None}) == was, key
        for key in ("read_only", "is_template"):
            assert only_error(srv.ask("PATCH", f"/v1/blocks/{block}", {key: None}))["loc"] == ("body", key)


def test_6_4_the_same_again_writes_nothing(srv):
    agent = srv.agent({"a.md": "---\ndescription: d\n---\nv"})
    same = {"value": "v", "description": "d", "limit": 7, "tags": ["b", "a"], "metadata": {"k": [1]}, "label": "a"}
    loose = make(srv, label="a", **{k: v for k, v in same.items() if k != "label"})["id"]
    srv.patch(agent, "a", same)
    for target in (f"/v1/agents/{agent}/core-memory/blocks/a", f"/v1/blocks/{loose}"):
        etag = srv.ask("GET", target).headers["etag"]
        assert srv.ask("PATCH", target, same).headers["etag"] == etag, target
        assert srv.ask("PATCH", target, {**same, "tags": ["a", "b", "a"]}).headers["etag"] == etag, "a set of tags"
        assert srv.ask("GET", target).headers["etag"] == etag, target


def test_6_4_a_label_by_id_collides_with_409(srv):
    agent = srv.agent({"a.md": "1", "b.md": "2"})
    main, block = srv.main(agent), srv.block(agent, "b")["id"]
    answer = srv.ask("PATCH", f"/v1/blocks/{block}", {"label": "a", "value": "x"})
    assert answer.status == 409 and srv.main(agent) == main
    assert srv.ok("PATCH", f"/v1/blocks/{block}", {"label": "c"})["label"] == "c"
    assert srv.block(agent, "c")["id"] == block


def test_6_5_delete_of_a_shared_block_takes_it_from_all_and_the_tags_go(srv):
    tag, agents = word(), [srv.agent(), srv.agent()]
    block = make(srv, label="team", value="v", tags=[tag])["id"]
    for agent in agents:
        assert srv.move("attach", agent, block).status == 200
    answer = srv.ask("DELETE", f"/v1/blocks/{block}")
    assert (answer.status, answer.body) == (200, b"null")
    assert all("team.md" not in srv.files(agent) for agent in agents)
    assert srv.ask("DELETE", f"/v1/blocks/{block}").status == 404
    assert srv.ok("GET", f"/v1/blocks/count?tags={tag}") == 0 and srv.ok("GET", f"/v1/blocks/{block}/agents") == []
    srv.push(agents[0], {"team.md": "another"})
    assert srv.block(agents[0], "team")["id"] != block and srv.block(agents[0], "team")["tags"] == []


def test_6_5_agents_of_a_block_are_whole_or_as_asked_for(srv):
    agent = srv.agent({"a.md": "1"})
    target = f"/v1/blocks/{srv.block(agent, 'a')['id']}/agents"
    for query, has_blocks, has_tags in (("", True, True), ("?include=agent.tags", False, True),
                                        ("?include=agent.blocks", True, True), ("?include=agent.tools", False, False),
                                        ("?include_relationships=memory", True, True)):
        (state,) = srv.server.get(target + query, headers=CURL).json()
        assert (bool(state["blocks"]), bool(state["tags"])) == (has_blocks, has_tags), query
    assert srv.ask("GET", "/v1/blocks/block-1/agents").status == 422


def test_6_2_count_by_what_nobody_has_and_by_any_or_all_tags(srv):
    a, b = word(), word()
    make(srv, label="one", tags=[a])
    make(srv, label="both", tags=[a, b])
    for query, want in ((f"tags={a}&tags={b}", 2), (f"tags={a}&tags={b}&match_all_tags=true", 1), (f"tags={a}&label=one", 1),
                        (f"tags={a}&name=n", 0), (f"tags={a}&project_id=p", 0), (f"tags={a}&templates_only=false", 2),
                        (f"tags={a}&limit=1&after={NOBODY}&show_hidden_blocks=false", 2)):
        assert srv.ok("GET", f"/v1/blocks/count?{query}") == want, query
    assert only_error(srv.ask("GET", "/v1/blocks/count?name=a/b"))["loc"] == ("query", "name")


def test_6_3_6_4_fields_of_templates_are_accepted_and_kept_by_nobody(srv):
    fields = {"project_id": "p", "template_name": "t", "template_id": "i", "base_template_id": "b", "deployment_id": "d",
              "entity_id": "e", "preserve_on_migration": True, "is_template": False, "id": NOBODY, "created_by_id": "user-1"}
    block = make(srv, value="v", **fields)
    assert block["id"] != NOBODY, "the id is generated"
    changed = srv.ok("PATCH", f"/v1/blocks/{block['id']}", {"value": "w", **fields})
    assert changed == {**block, "value": "w"}
    for key in ("project_id", "template_name", "template_id", "base_template_id", "deployment_id", "entity_id"):
        assert block[key] is None, key
    assert (block["is_template"], block["preserve_on_migration"]) == (False, False)


def test_6_4_tags_are_the_whole_set_and_an_empty_one_clears(srv):
    agent = srv.agent({"a.md": "v"})
    for block in (srv.block(agent, "a")["id"], make(srv)["id"]):
        for tags in (["x", "y"], ["z"], []):
            assert sorted(srv.ok("PATCH", f"/v1/blocks/{block}", {"tags": tags})["tags"]) == tags
            assert sorted(srv.ok("GET", f"/v1/blocks/{block}")["tags"]) == tags


def test_6_5_agents_of_a_block_come_in_pages_newest_first(srv):
    block, agents = make(srv)["id"], [srv.agent() for _ in range(3)]
    for agent in agents[::-1]:
        assert srv.move("attach", agent, block).status == 200
    a, b, c = agents
    for query, want in (("", [c, b, a]), ("order=asc", [a, b, c]), ("limit=2", [c, b]), ("limit=0", [c, b, a]),
                        (f"after={b}", [a]), (f"before={b}", [c]), (f"order=asc&after={a}&limit=1", [b]),
                        (f"order=asc&before={b}", [a]), (f"after={new_agent()}", [c, b, a]), ("order_by=created_at", [c, b, a])):
        assert ids(srv.ok("GET", f"/v1/blocks/{block}/agents?{query}")) == want, query
    assert only_error(srv.ask("GET", f"/v1/blocks/{block}/agents?order_by=name"))["loc"] == ("query", "order_by")


# ---- 7: agents -----------------------------------------------------------------------------------

RELATIONS = ["agent.blocks", "agent.identities", "agent.managed_group", "agent.pending_approval", "agent.secrets",
             "agent.sources", "agent.tags", "agent.tools"]


@pytest.mark.parametrize("target", ["/v1/agents/{agent}", "/v1/agents"])
def test_7_each_relation_may_be_asked_for(srv, target):
    agent = srv.agent()
    for relation in RELATIONS:
        answer = srv.server.get(target.format(agent=agent) + f"?include={relation}", headers=CURL).json()
        state = answer if isinstance(answer, dict) else next(a for a in answer if a["id"] == agent)
        assert list(state) == AGENT_KEYS
        assert bool(state["blocks"]) == (relation == "agent.blocks"), relation
        assert bool(state["tags"]) == (relation in ("agent.blocks", "agent.tags")), relation


def test_7_names_are_words_of_any_script(srv):
    for name in ("Zoë O'Neil-2", "日本 語", "Ада_1"):
        made = srv.ok("POST", "/v1/agents/", {"name": name})
        assert made["name"] == name
        assert made["id"] in ids(srv.ok("GET", "/v1/agents/?limit=0&name=" + quote(name)))


def test_7_every_field_that_is_kept_is_told_again(srv):
    told = {"description": "d", "metadata": {"a": [1]}, "system": "s", "agent_type": "letta_v1_agent", "model": "m/1",
            "embedding": "e/1", "llm_config": {"model": "m"}, "embedding_config": {"embedding_dim": 3},
            "model_settings": {"a": 1}, "compaction_settings": {"a": 1}, "response_format": {"type": "text"},
            "tool_rules": [{"type": "run_first"}], "project_id": "p", "template_id": "t", "base_template_id": "b",
            "message_buffer_autoclear": True, "enable_sleeptime": True, "timezone": "Europe/Berlin", "max_files_open": 3,
            "per_file_view_window_char_limit": 9, "hidden": False}
    made = srv.ok("POST", "/v1/agents", {"name": "whole", **told})
    assert {k: made[k] for k in told} == told
    bare = srv.ok("POST", "/v1/agents", {})["id"]
    changed = srv.ok("PATCH", f"/v1/agents/{bare}", told)
    assert {k: changed[k] for k in told} == told
    assert srv.ok("PATCH", f"/v1/agents/{bare}", dict.fromkeys(told)) == changed, "null leaves it"
    srv.server.restart()
    assert {k: srv.ok("GET", f"/v1/agents/{bare}")[k] for k in told} == told


def test_7_the_count_is_of_what_the_list_has(srv):
    tag = word()
    made = [srv.ok("POST", "/v1/agents", {"name": f"{tag} {i}", "tags": [tag, f"{tag}{i}"]})["id"] for i in range(3)]
    for query, n in ((f"tags={tag}", 3), (f"tags={tag}0&tags={tag}1", 2), (f"tags={tag}&tags={tag}1&match_all_tags=true", 1),
                     (f"name={tag}%201", 1), (f"query_text={tag.upper()}", 3), (f"query_text={tag}%25_", 3)):
        assert len(srv.ok("GET", f"/v1/agents/?{query}")) == srv.ok("GET", f"/v1/agents/count?{query}") == n, query
    assert ids(srv.ok("GET", f"/v1/agents/?tags={tag}")) == made[::-1]


def test_7_agents_come_by_fifty_unless_more_are_asked_for(srv):
    tag = word()
    made = [srv.ok("POST", "/v1/agents", {"name": f"n{i}", "tags": [tag]})["id"] for i in range(53)][::-1]
    first = ids(srv.ok("GET", f"/v1/agents/?tags={tag}"))
    assert first == made[:50]
    assert ids(srv.ok("GET", f"/v1/agents/?tags={tag}&after={first[-1]}")) == made[50:]
    assert ids(srv.ok("GET", f"/v1/agents/?tags={tag}&limit=0")) == made
    assert ids(srv.ok("GET", f"/v1/agents/?tags={tag}&limit=2&before={made[2]}&order=desc")) == made[:2]


def test_7_filters_by_what_no_agent_here_has_match_none(srv):
    tag = word()
    srv.ok("POST", "/v1/agents", {"tags": [tag], "project_id": "p"})
    for key in ("project_id", "template_id", "base_template_id", "identity_id", "identifier_keys", "created_by_id",
                "last_stop_reason"):
        for path, none in (("/v1/agents/", []), ("/v1/agents/count", 0)):
            assert srv.ok("GET", f"{path}?tags={tag}&{key}=p") == none, key
    assert srv.ok("GET", f"/v1/agents/count?tags={tag}") == 1
    for query, where in (("order_by=name", "order_by"), ("order=up", "order"), ("limit=-1", "limit"),
                         ("match_all_tags=perhaps", "match_all_tags")):
        assert only_error(srv.ask("GET", f"/v1/agents/?{query}"))["loc"] == ("query", where), query


def test_7_recompile_dates_the_prompt_when_it_is_asked_to(srv):
    agent = srv.agent({"system/human.md": "Likes tea."})

    def prompt(query="", path="recompile"):
        lines = srv.ok("POST", f"/v1/agents/{agent}/{path}{query}", {}).splitlines()
        return [line for line in lines if "UTC" not in line], [line for line in lines if "UTC" in line]

    plain = prompt()
    assert plain == prompt() and any("Likes tea." in line for line in plain[0]) and len(plain[1]) == 1
    for path in ("recompile", "system-prompt/recompile"):
        deadline = time.monotonic() + 30
        while prompt("?update_timestamp=true", path)[1] == plain[1]:
            assert time.monotonic() < deadline, "it is dated by the newest block still"
            time.sleep(0.1)
        assert prompt("?update_timestamp=true&dry_run=true", path)[0] == plain[0]
    assert prompt() == plain
    assert only_error(srv.ask("POST", f"/v1/agents/{agent}/recompile?dry_run=perhaps", {}))["loc"] == ("query", "dry_run")
    answer = srv.ask("POST", f"/v1/agents/{new_agent()}/recompile", {})
    assert answer.status == 404 and list(answer.json()) == ["detail"]


# ---- 8: shared repositories ----------------------------------------------------------------------

def test_8_2_a_file_is_changed_by_post_and_not_by_patch_or_put(srv):
    repo = srv.ok("POST", "/v1/repositories", {"name": word()})["id"]
    for method in ("PATCH", "PUT"):
        answer = srv.ask(method, f"/v1/repositories/{repo}/files/content", {"path": "a.md", "content": "x"})
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST, DELETE"), method


def test_8_1_a_repository_has_its_four_texts_and_a_link_its_four_fields(srv):
    name, agent = word(), srv.agent()
    repo = srv.ok("POST", "/v1/repositories", {"name": name})
    assert repo == srv.ok("GET", f"/v1/repositories/{repo['id']}") and repo["name"] == name
    assert list(repo) == ["id", "name", "created_at", "updated_at"] and all(isinstance(v, str) for v in repo.values())
    assert repo["id"].startswith("repo-") and repo["created_at"].endswith("Z") and repo["updated_at"].endswith("Z")
    for body, may in (({}, "read_write"), ({"permissions": "read"}, "read"), ({"permissions": "read_write"}, "read_write")):
        answer = srv.ok("POST", f"/v1/agents/{agent}/repositories", {"repository_id": repo["id"], **body})
        assert answer == {"success": True, "repository": {"id": repo["id"], "name": name, "is_primary": False, "permissions": may}}
    answer = srv.ask("POST", f"/v1/agents/{agent}/repositories", {"repository_id": repo["id"], "permissions": "all"})
    assert only_error(answer)["loc"] == ("body", "permissions")


def test_8_2_the_error_of_a_repository_is_a_message_and_a_detail(srv):
    agent, nobody = new_agent(), f"repo-{uuid.uuid4()}"
    for method, target, text in (("GET", f"/v1/repositories/{nobody}", "Repository not found"),
                                 ("DELETE", f"/v1/repositories/{nobody}", "Repository not found"),
                                 ("DELETE", f"/v1/agents/{agent}/repositories/{nobody}", "Repository link not found")):
        answer = srv.ask(method, target)
        assert (answer.status, answer.json()) == (404, {"message": text, "detail": text})


def test_8_4_the_name_in_gits_address_may_be_percent_encoded(srv):
    agent, name = srv.agent(), f"a.b-{word()}"
    repo = srv.ok("POST", "/v1/repositories", {"name": name})["id"]
    srv.ok("POST", f"/v1/agents/{agent}/repositories", {"repository_id": repo})
    encoded = "".join(f"%{ord(c):02X}" for c in name)
    for spelling in (name + ".git", encoded + ".git", encoded + "%2Egit"):
        answer = srv.ask("GET", f"/v1/git/{agent}/repositories/{spelling}/info/refs?service=git-upload-pack")
        assert answer.status == 200 and b"refs/heads/main" in answer.body, spelling


# ---- 10: history ---------------------------------------------------------------------------------

def test_10_history_is_of_fifty_unless_more_are_asked_for(srv):
    agent = srv.agent({"a.md": "0"})
    for i in range(52):
        assert srv.patch(agent, "a", {"value": str(i + 1)}).status == 200
    target = f"/v1/agents/{agent}/memory/history"
    assert len(srv.ok("GET", target)) == len(srv.ok("GET", target + "?label=a")) == 50
    assert len(srv.ok("GET", target + "?limit=0")) == 54, "and the genesis"
    assert [c["sha"] for c in srv.ok("GET", target + "?limit=0")] == srv.log(agent, "%H")


# ---- 11: what stock servers get wrong ------------------------------------------------------------

@pytest.mark.parametrize("body", [{"value": "v"}, {"tags": ["x"]}, {"label": "a"}, {"hidden": True}, {"limit": 5}])
def test_11_what_leaves_the_file_as_it_is_is_stored_and_no_500(srv, body):
    agent = srv.agent({"a.md": "---\nname: n\n---\nv"})
    main = srv.main(agent)
    answer = srv.patch(agent, "a", body)
    assert answer.status == 200 and {k: answer.json()[k] for k in body} == body
    assert srv.main(agent) == main and {k: srv.block(agent, "a")[k] for k in body} == body


def test_11_read_only_and_metadata_are_in_git_and_in_the_row_and_stay_there(srv):
    agent = srv.agent({"a.md": "v"})
    after = srv.patch(agent, "a", {"read_only": True, "metadata": {"k": "x"}}).json()
    assert (after["read_only"], after["metadata"]) == (True, {"k": "x"})
    for body in ({"value": "w"}, {"description": "d"}, {"tags": ["t"]}, {"label": "b"}, {"value": ""}):
        after = srv.patch(agent, after["label"], body).json()
        assert (after["read_only"], after["metadata"]) == (True, {"k": "x"}), body
        text = srv.file(agent, after["label"] + ".md").decode()
        assert "read_only: true\n" in text and "metadata:\n  k: x\n" in text, body


def test_11_a_block_that_was_made_by_the_api_is_in_git_at_once(srv):
    """Stock: a row and an attachment, and no commit."""
    made = srv.ok("POST", "/v1/agents", {"memory_blocks": [{"label": "a", "value": "1"}]})
    assert srv.file(made["id"], "a.md").endswith(b"---\n1")
    block = make(srv, label="b", value="2")
    main = srv.main(made["id"])
    assert srv.move("attach", made["id"], block["id"]).status == 200
    assert srv.log(made["id"], "%P")[0] == main and srv.file(made["id"], "b.md") == b"2"


# ---- 7: block_ids --------------------------------------------------------------------------------

def set_blocks(srv, agent, block_ids, **kw):
    return srv.ask("PATCH", f"/v1/agents/{agent}", {"block_ids": block_ids}, **kw)


def test_7_patch_block_ids_is_the_whole_set_in_one_commit(srv):
    agent, other = srv.agent({"stays.md": "s", "goes.md": "g"}), srv.agent({"shared.md": "both"})
    stays, goes, shared = srv.block(agent, "stays"), srv.block(agent, "goes"), srv.block(other, "shared")
    comes, main = make(srv, label="comes", value="c", description="d", tags=["t"], limit=7), srv.main(agent)
    answer = srv.ok("PATCH", f"/v1/agents/{agent}",
                    {"block_ids": [comes["id"], stays["id"], shared["id"], comes["id"]], "name": "set"},
                    X_Memfs_Reason="tidy")
    assert answer["name"] == "set" and sorted(ids(answer["blocks"])) == sorted(ids([comes, stays, shared]))
    assert srv.files(agent) == {"stays.md", "comes.md", "shared.md"}
    assert srv.log(agent, "%P")[0] == main and srv.log(agent)[0] == "Set attached blocks: 2 more, 1 less"
    assert "tidy" in srv.log(agent, "%b")
    assert srv.block(agent, "comes") == comes and srv.block(agent, "stays") == stays
    assert srv.ok("GET", f"/v1/blocks/{goes['id']}") == goes, "nobody's, with all it was"
    main = srv.main(agent)
    for same in ([shared["id"], stays["id"], comes["id"]], None):
        assert set_blocks(srv, agent, same).status == 200
    assert srv.main(agent) == main, "the same set again, and null, are no commit"
    assert set_blocks(srv, agent, []).json()["blocks"] == [] and srv.files(agent) == set()
    assert srv.log(agent, "%P")[0] == main
    assert srv.block(other, "shared") == shared and srv.ok("GET", f"/v1/blocks/{comes['id']}") == comes
    srv.push(agent, {"stays.md": "again"})
    assert srv.block(agent, "stays")["id"] != stays["id"], "K4: an id is never two blocks'"


def test_7_K4_patch_block_ids_hands_a_label_on_from_one_block_to_another(srv):
    agent = srv.agent({"a.md": "old"})
    old, new = srv.block(agent, "a"), make(srv, label="a", value="new", description="d", tags=["n"], limit=5)
    same_text = make(srv, label="a", value="new", description="d")
    for was, now in ((old, new), (new, same_text), (same_text, old)):
        assert set_blocks(srv, agent, [now["id"]]).status == 200
        assert srv.block(agent, "a") == now and srv.ok("GET", f"/v1/blocks/{was['id']}") == was
        assert [b["id"] for b in srv.ok("GET", "/v1/blocks?limit=0")].count(was["id"]) == 1
    before = srv.server.dump([agent])
    srv.server.cli("rebuild", "--agent", agent)
    assert srv.server.dump([agent]) == before


def test_7_D3_patch_block_ids_that_cannot_be_change_nothing(srv):
    agent = srv.agent({"a.md": "1"})
    own, twin = srv.block(agent, "a"), make(srv, label="a", value="2")
    odd, main = make(srv, label="../up", value="v"), srv.main(agent)
    unknown = "block-123e4567-e89b-42d3-8456-426614174000"
    for block_ids, status in (([unknown], 404), ([own["id"], twin["id"]], 409), ([odd["id"]], 400),
                              ([7], 422)):
        answer = srv.ask("PATCH", f"/v1/agents/{agent}", {"block_ids": block_ids, "name": "never"})
        assert answer.status == status, answer
        assert status != 404 or answer.json() == {"detail": f"Block with id '{unknown}' not found"}
    assert srv.main(agent) == main and srv.ok("GET", f"/v1/agents/{agent}")["name"] != "never"
    for block in (own, twin, odd):
        assert srv.ok("GET", f"/v1/blocks/{block['id']}") == block


def test_7_K3_agents_that_set_the_same_block_ids_at_once_end_with_all_or_none(srv):
    agents, blocks = [srv.agent({}) for _ in range(2)], [make(srv, label=f"b{n}", value="v", description="d") for n in range(3)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for turn in range(4):
            orders = (ids(blocks), ids(blocks)[::-1])
            for wanted in (orders, ([], [])):
                assert set(pool.map(lambda a, w: set_blocks(srv, a, w).status, agents, wanted)) == {200}
                assert all(len(srv.files(a)) == len(wanted[0]) for a in agents)
                assert [srv.ok("GET", f"/v1/blocks/{b['id']}") for b in blocks] == blocks


# ---- 9: tags -------------------------------------------------------------------------------------

def test_9_tags_of_agents_and_blocks_are_one_list_by_name(srv):
    a = word()
    agent = srv.agent({"notes.md": "n"})
    srv.ok("PATCH", f"/v1/agents/{agent}", {"tags": [a + "-B", a + "-both"]})
    srv.patch(agent, "notes", {"tags": [a + "-both", a + "-é"]})
    make(srv, tags=[a + "-a", a + "-both"], hidden=True)
    want = [a + "-B", a + "-a", a + "-both", a + "-é"]
    for target in ("/v1/tags", "/v1/tags/", "/latest/tags/"):
        assert srv.ok("GET", f"{target}?name={a}") == want, "of nobody's and hidden ones too, each once, by code points"
    assert srv.ok("GET", f"/v1/tags?name={a}&order=desc&order_by=name") == want[::-1]
    everything = srv.ok("GET", "/v1/tags?limit=0")
    assert everything == sorted({*everything}) and {*want, "git-memory-enabled"} <= {*everything}
    assert srv.ok("GET", "/v1/tags") == everything[:50], "50 of them, from A to Z"


def test_9_tags_in_pages_relative_to_the_order(srv):
    a = word()
    make(srv, tags=[f"{a}-{i}" for i in range(5)])
    for query, want in (("limit=2", "01"), ("limit=2&after={a}-1", "23"), ("limit=9&after={a}-4", ""),
                        ("before={a}-2", "01"), ("after={a}-0&before={a}-3", "12"), ("limit=2&order=desc", "43"),
                        ("order=desc&after={a}-2", "10"), ("order=desc&before={a}-2", "43"),
                        ("after={a}-2x", "34"), ("limit=1&before={a}-3", "0"), ("limit=0", "01234"), ("after=", "01234")):
        found = srv.ok("GET", f"/v1/tags?name={a}&" + query.format(a=a))
        assert found == [f"{a}-{i}" for i in want], query


def test_9_tags_are_found_by_a_part_of_them(srv):
    a = word()
    make(srv, tags=[f"{a} Green", f"{a} GRÜN", f"{a}_x"])
    for query, want in ((f"name={a.upper()}%20gr", ["GRÜN", "Green"]), (f"query_text={a}%20gr%C3%BCn", ["GRÜN"]),
                        (f"name={a}%20green&query_text=nothing", ["Green"]), (f"name={a}%25n", ["GRÜN", "Green"]),
                        (f"name={a}_gre", ["Green"]), (f"name=&query_text={a}%20GREEN", ["Green"]),
                        (f"name={a}%20g&name_search=x", ["GRÜN", "Green"])):
        assert [tag.split()[1] for tag in srv.ok("GET", f"/v1/tags?{query}")] == want, query
    assert srv.ok("GET", f"/v1/tags?name={word()}") == []


def test_9_tags_go_with_the_last_that_has_them(srv):
    a, agents = word(), [srv.agent({"notes.md": "n"}), srv.agent({"notes.md": "n"})]
    for agent in agents:
        srv.ok("PATCH", f"/v1/agents/{agent}", {"tags": [a + "-agent"]})
        srv.patch(agent, "notes", {"tags": [a + "-block"]})

    def tags():
        return [tag.split("-")[1] for tag in srv.ok("GET", f"/v1/tags?name={a}")]

    assert tags() == ["agent", "block"]
    srv.ok("DELETE", f"/v1/agents/{agents[0]}")
    assert tags() == ["agent", "block"]
    srv.ok("DELETE", f"/v1/agents/{agents[1]}")
    assert tags() == [], "those of deleted agents are in no list"
    srv.ok("POST", f"/v1/agents/{agents[0]}/restore")
    assert tags() == ["agent", "block"]
    srv.ok("PATCH", f"/v1/agents/{agents[0]}", {"tags": []})
    assert tags() == ["block"]
    srv.ok("POST", f"/v1/agents/{agents[0]}/memory/commit", {"changes": [{"path": "notes.md", "content": None}]})
    assert tags() == []


def test_9_what_is_asked_of_tags_is_judged(srv):
    for query, where in (("order=up", "order"), ("order_by=created_at", "order_by"), ("limit=x", "limit"),
                         ("limit=-1", "limit")):
        assert only_error(srv.ask("GET", f"/v1/tags?{query}"))["loc"] == ("query", where), query
    assert srv.ask("GET", "/v1/tags?name=" + "x" * 1025).status == 413
    answer = srv.ask("POST", "/v1/tags", {})
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_9_H7_a_list_of_tags_that_a_client_has_is_304_until_something_changes(srv):
    agent = srv.agent({"notes.md": "n"})
    etag = srv.ask("GET", "/v1/tags").headers["etag"]
    assert srv.server.get("/v1/tags", headers={"If-None-Match": etag}).status == 304
    for change in (lambda: srv.ok("PATCH", f"/v1/agents/{agent}", {"tags": [word()]}),
                   lambda: srv.patch(agent, "notes", {"tags": [word()]}), lambda: make(srv, tags=[word()])):
        change()
        assert srv.server.get("/v1/tags", headers={"If-None-Match": etag}).status == 200
        etag = srv.ask("GET", "/v1/tags").headers["etag"]
