"""Agents over REST, named after the sections of the wire contract (http-api 1.3, 7, 8.2)."""
import http.client
import json
import re

import pytest

from lib.restmem import AGENT_KEYS, CURL, LABELS, only_error, mem  # noqa: F401
from lib.server import new_agent


# ---- 7: agents -----------------------------------------------------------------------------------

def test_7_agent_state_has_every_key_in_order(mem):
    agent = mem.json(f"/v1/agents/{mem.ada}", **CURL)
    assert list(agent) == AGENT_KEYS
    assert agent["id"] == mem.ada
    assert isinstance(agent["name"], str) and agent["name"]
    assert agent["agent_type"] == "letta_v1_agent"
    assert "git-memory-enabled" in agent["tags"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", agent["created_at"])
    assert agent["memory"]["blocks"] == agent["blocks"]
    assert {b["label"] for b in agent["blocks"]} == LABELS
    for key in ("tools", "sources", "message_ids", "tool_rules", "identities", "secrets"):
        assert agent[key] == [], key


@pytest.mark.parametrize("headers,query,has_blocks,has_tags", [
    (CURL, "", True, True),
    ({"User-Agent": "letta-code/0.32.18"}, "", True, True),
    ({"User-Agent": "letta-client/1.12.1"}, "", False, False),
    ({"User-Agent": "@letta-ai/letta-client/1.0"}, "", False, False),
    ({"User-Agent": "letta-client/0.9"}, "", True, True),
    ({**CURL, "X-Stainless-Package-Version": "1.12.1"}, "", False, False),
    (CURL, "include=agent.tags", False, True),
    (CURL, "include=agent.blocks", True, True),
    (CURL, "include=agent.tools&include=agent.tags", False, True),
    (CURL, "include=agent.tools", False, False),
    ({"User-Agent": "letta-client/1.12.1"}, "include=agent.tags", False, True),
    (CURL, "include_relationships=memory", True, False),
    (CURL, "include_relationships=tags", False, True),
    (CURL, "include_relationships=tools", False, False),
])
def test_7_relations_are_shown_to_those_who_ask(mem, headers, query, has_blocks, has_tags):
    answer = mem.server.get(f"/v1/agents/{mem.ada}?{query}", headers=headers)
    agent = answer.json()
    assert list(agent) == AGENT_KEYS
    assert bool(agent["blocks"]) == bool(agent["memory"]["blocks"]) == has_blocks
    assert bool(agent["tags"]) == has_tags


def test_1_3_no_user_agent_at_all_is_the_sdk(mem):
    connection = http.client.HTTPConnection("127.0.0.1", mem.server.port, timeout=20)
    connection.putrequest("GET", f"/v1/agents/{mem.ada}", skip_accept_encoding=True)
    connection.endheaders()
    assert json.loads(connection.getresponse().read())["blocks"] == []
    connection.close()


def test_7_include_is_checked(mem):
    error = only_error(mem.get(f"/v1/agents/{mem.ada}?include=agent.tags&include=agent.foo"))
    assert (error["type"], error["loc"], error["input"]) == (
        "literal_error", ("query", "include", 1), "agent.foo")
    assert error["ctx"]["expected"].startswith("'agent.blocks', 'agent.identities', ")
    assert error["ctx"]["expected"].endswith("'agent.tags' or 'agent.tools'")


def test_7_agents_newest_first(mem):
    order = [mem.local, mem.bob, mem.ada]
    assert [a["id"] for a in mem.json("/v1/agents/")] == order
    assert [a["id"] for a in mem.json("/v1/agents/?order=asc")] == order[::-1]
    assert [a["id"] for a in mem.json("/v1/agents?limit=1")] == order[:1]
    assert [a["id"] for a in mem.json(f"/v1/agents/?after={mem.bob}")] == [mem.ada]
    assert [a["id"] for a in mem.json(f"/v1/agents/?before={mem.bob}")] == [mem.local]
    assert [a["id"] for a in mem.json("/v1/agents/?after=agent-x")] == order
    for by in ("updated_at", "last_run_completion"):
        assert [a["id"] for a in mem.json(f"/v1/agents/?order_by={by}")] == order


def test_7_agents_show_their_blocks_in_lists(mem):
    by_id = {a["id"]: a for a in mem.json("/v1/agents/", **CURL)}
    assert {b["label"] for b in by_id[mem.ada]["blocks"]} == LABELS
    assert {b["label"] for b in by_id[mem.local]["blocks"]} == {"x"}


@pytest.mark.parametrize("query,n", [
    ("", 3), ("tags=git-memory-enabled", 3), ("tags=other", 0),
    ("tags=git-memory-enabled&tags=other", 3),
    ("tags=git-memory-enabled&tags=other&match_all_tags=true", 0),
    ("tags=git-memory-enabled&match_all_tags=true", 3), ("name=nobody", 0),
    ("query_text=AGENT-local", 1), ("project_id=p", 0), ("created_by_id=u", 0),
    ("show_hidden_agents=true", 3), ("ascending=true&sort_by=anything", 3),
])
def test_7_agent_filters_and_count(mem, query, n):
    assert len(mem.json(f"/v1/agents/?{query}")) == n
    assert mem.json(f"/v1/agents/count?{query}") == n


def test_7_health(mem):
    answer = mem.get("/v1/health/")
    assert answer.status == 200
    assert list(answer.json()) == ["version", "status"]
    assert answer.json()["status"] == "ok"
    assert mem.get("/healthz").status == 200


def test_7_ready_comes_after_the_start(mem):
    for path in ("/readyz", "/v1/ready/"):
        answer = mem.get(path)
        assert answer.status in (200, 503)
        assert answer.json()["status"] == ("ok" if answer.status == 200 else "starting")


def test_8_2_a_new_agent_has_no_secrets_and_its_own_memory(mem):
    """Clients of 0.32 ask both before the first push, and end on anything but 200."""
    agent = new_agent()
    assert mem.get(f"/v1/agents/{agent}/secrets").body == b"[]"
    (own,) = mem.json(f"/v1/agents/{agent}/repositories")["repositories"]
    assert own["name"] == "memory" and own["is_primary"] is True
    assert mem.get(f"/v1/agents/{agent}").status == 404  # asking makes nothing


def test_8_2_secrets_and_repositories(mem):
    assert mem.get(f"/v1/agents/{mem.ada}/secrets").body == b"[]"
    answer = mem.json(f"/v1/agents/{mem.ada}/repositories")
    assert list(answer) == ["repositories"]
    (own,) = answer["repositories"]
    assert list(own) == ["id", "name", "is_primary", "permissions"]
    assert own["id"].startswith("repo-")
    assert (own["name"], own["is_primary"], own["permissions"]) == ("memory", True, "read_write")
    assert mem.json(f"/v1/agents/{mem.ada}/repositories/") == answer
    assert mem.json(f"/v1/agents/{mem.bob}/repositories")["repositories"][0]["id"] != own["id"]
