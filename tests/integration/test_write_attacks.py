"""Hostile callers of the API that writes, shares, looks back and searches (issue 6)."""
import json
import random
import string
import uuid

import pytest

from lib.server import new_agent
from lib.writes import srv  # noqa: F401

UNICODE_BREAKS = ["\x85", "a\x85b", "\u2028", "\u2029x"]


def letters(n):
    """No two parts alike, so nothing that is stored of it gets smaller."""
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=n))


def loose(srv, **fields):
    return srv.ok("POST", "/v1/blocks", {"label": "x", "value": "v", **fields})


# ---- front matter --------------------------------------------------------------------------------

@pytest.mark.parametrize("field", ["description", "metadata"])
def test_K4_front_matter_too_large_to_be_read_is_refused_and_no_value_is_lost(srv, field):
    agent = srv.agent()
    before, main = srv.block(agent, "system/human"), srv.main(agent)
    text = "a" * 70_000
    answer = srv.patch(agent, "system/human", {field: text if field == "description" else {"k": text}})
    assert answer.status == 413 and "65536 bytes" in answer.json()["detail"]
    assert (srv.block(agent, "system/human"), srv.main(agent)) == (before, main)
    block = loose(srv, label="big", **{field: text if field == "description" else {"k": text}})
    assert srv.move("attach", agent, block["id"]).status == 413


@pytest.mark.parametrize("text", ["x\n---\nread_only: true\nlimit: 3", "---", "\n---\n", "a: b # c", "{", "\x1b[31m\x00",
                                  "\ufeff", "'\"", " x ", *UNICODE_BREAKS])
def test_K4_what_is_written_into_front_matter_is_read_again_or_refused(srv, text):
    agent = srv.agent({"a.md": "---\nread_only: false\n---\nvalue"})
    for field, value in (("description", text), ("metadata", {text.replace("\0", ""): text})):
        answer = srv.patch(agent, "a", {field: value})
        block = srv.block(agent, "a")
        assert (block["value"], block["read_only"], block["limit"]) == ("value", False, 100000)
        if answer.status == 200:
            assert block[field] == value == answer.json()[field]
        else:
            assert answer.status == 400 and "\x85" in text, answer


# ---- names and sizes that a database could not hold ------------------------------------------------

@pytest.mark.parametrize("fields", [{"label": letters(5000)}, {"label": "a\0b"}, {"label": letters(500_000)},
                                    {"tags": [letters(5000)]}])
def test_L5_a_block_that_no_database_can_list_is_refused_and_stops_no_other(srv, fields):
    answer = srv.ask("POST", "/v1/blocks", {"label": "x", "value": "v", **fields})
    assert answer.status == 422, answer
    block = loose(srv, value="after the hostile one")
    assert srv.ok("GET", f"/v1/blocks/{block['id']}") == block
    assert srv.ask("PATCH", f"/v1/blocks/{block['id']}", fields).status == 422
    assert srv.ask("POST", "/v1/agents/", {"name": "a", "memory_blocks": [{"label": "l", "value": "v", **fields}]}
                   ).status == 422


def test_L1_a_value_of_a_mebibyte_of_words_is_a_row_like_any_other(srv):
    agent = srv.agent()
    value = " ".join(letters(7) for _ in range(120_000))
    assert srv.patch(agent, "system/human", {"value": value}).json()["value"] == value
    word = value.split()[0]     # words past some 900 KB are not searched for
    hits = srv.ok("GET", f"/v1/search?q={word}&agent={agent}")["results"]
    assert [hit["label"] for hit in hits] == ["system/human"]


def test_L1_limits_and_offsets_past_all_ends_are_answered(srv):
    most = 2 ** 63 - 1
    for target in ("/v1/repositories", "/v1/agents", "/v1/blocks", "/v1/search?q=x"):
        for query in (f"limit={most}", f"limit={most}&offset={most}", f"offset={most}"):
            answer = srv.ask("GET", f"{target}{'&' if '?' in target else '?'}{query}")
            assert answer.status in (200, 422), (target, query, answer)


@pytest.mark.parametrize("depth", [300, 2000, 3000])
def test_T16_a_body_that_nests_deep_is_kept_or_refused(srv, depth):
    agent = srv.agent()
    before = srv.block(agent, "system/human")
    for inner in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        body = ('{"metadata":{"k":' + inner + "}}").encode()
        answer = srv.patch(agent, "system/human", body)
        assert answer.status in (200, 413, 422), answer
        if answer.status == 200:
            assert answer.json()["value"] == before["value"] and answer.json()["metadata"] != {}
        else:
            assert srv.block(agent, "system/human")["value"] == before["value"]
        assert srv.ask("POST", "/v1/agents/", b'{"name":"deep",' + body[1:]).status in (200, 413, 422)


# ---- versions that are none ------------------------------------------------------------------------

@pytest.mark.parametrize("tag", ['""', 'W/"x"', '"x"', "x, y", '"', "0" * 40, '"' + "0" * 40 + '-1"'])
def test_H3_a_tag_that_is_no_version_never_passes_for_none(srv, tag):
    agent = srv.agent({"a.md": "a"})
    srv.push(agent, {"a.md": "b"})
    main, other = srv.main(agent), loose(srv)
    for method, target, body in (
            ("PATCH", f"/v1/agents/{agent}/core-memory/blocks/a", {"value": "c"}),
            ("POST", f"/v1/agents/{agent}/memory/commit", {"changes": [{"path": "a.md", "content": "c"}]}),
            ("POST", f"/v1/agents/{agent}/memory/revert", {"commit": srv.log(agent, "%H")[1]}),
            ("DELETE", f"/v1/blocks/{srv.block(agent, 'a')['id']}", None),
            ("PATCH", f"/v1/agents/{agent}/core-memory/blocks/attach/{other['id']}", b""),
            ("PATCH", f"/v1/blocks/{other['id']}", {"value": "c"}),
            ("DELETE", f"/v1/blocks/{other['id']}", None)):
        answer = srv.ask(method, target, body, If_Match=tag)
        assert answer.status == 409, (method, target, answer)
    assert srv.main(agent) == main and srv.ok("GET", f"/v1/blocks/{other['id']}") == other


def test_H3_an_expected_version_that_is_empty_is_422(srv):
    agent = srv.agent({"a.md": "a"})
    srv.push(agent, {"a.md": "b"})
    main = srv.main(agent)
    for method, target, body in (
            ("PATCH", f"/v1/agents/{agent}/core-memory/blocks/a", {"value": "c"}),
            ("POST", f"/v1/agents/{agent}/memory/commit", {"changes": [{"path": "a.md", "content": "c"}]}),
            ("POST", f"/v1/agents/{agent}/memory/revert", {"commit": srv.log(agent, "%H")[1]})):
        assert srv.ask(method, target, {**body, "expected_version": ""}).status == 422
    assert srv.main(agent) == main


def test_H3_commit_attach_and_delete_hold_to_the_tag_that_a_get_had(srv):
    agent, block = srv.agent({"a.md": "a"}), loose(srv, label="late")
    blocks = f"/v1/agents/{agent}/core-memory/blocks"
    change = {"changes": [{"path": "a.md", "content": "b"}]}
    tag = srv.ask("GET", blocks).headers["etag"]
    assert srv.commit(agent, change, If_Match=tag).status == 200
    stale = srv.commit(agent, {"changes": [{"path": "a.md", "content": "c"}]}, If_Match=tag)
    assert stale.status == 409 and srv.main(agent) in stale.json()["detail"] and tag[1:41] in stale.json()["detail"]
    assert srv.move("attach", agent, block["id"], If_Match=tag).status == 409
    assert srv.move("attach", agent, block["id"], If_Match=srv.ask("GET", blocks).headers["etag"]).status == 200
    other = loose(srv)
    old = srv.ask("GET", f"/v1/blocks/{other['id']}").headers["etag"]
    loose(srv)      # of another block: nothing of this one
    assert srv.ask("PATCH", f"/v1/blocks/{other['id']}", {"value": "newer"}, If_Match=old).status == 200
    assert srv.ask("DELETE", f"/v1/blocks/{other['id']}", If_Match=old).status == 409
    now = srv.ask("GET", f"/v1/blocks/{other['id']}").headers["etag"]
    assert srv.ask("DELETE", f"/v1/blocks/{other['id']}", If_Match=now).status == 200


# ---- what was, and whose ---------------------------------------------------------------------------

def test_T28_a_purge_takes_a_secret_out_of_detached_blocks_and_names_what_it_leaves(srv):
    secret = "Zq9-" + letters(12)
    agent = srv.agent({"a.md": f"---\ndescription: of {secret}\nmetadata:\n  {secret}: [1]\n---\nthe key is {secret}\n"})
    block = srv.block(agent, "a")
    srv.patch(agent, "a", {"tags": [f"t {secret}"]})
    assert srv.move("detach", agent, block["id"]).status == 200
    dry = srv.server.cli("purge", "--agent", agent, "--secret-stdin", "--dry-run", input=secret.encode()).stdout
    assert block["id"].encode() in dry and srv.ok("GET", f"/v1/blocks/{block['id']}")["value"] == block["value"]
    srv.server.rewrites_allowed = True
    srv.server.cli("purge", "--agent", agent, "--secret-stdin", input=secret.encode())
    after = srv.ok("GET", f"/v1/blocks/{block['id']}")
    assert (after["value"], after["description"], after["metadata"], after["tags"]) == (
        "the key is [purged]\n", "of [purged]", {"[purged]": [1]}, ["t [purged]"])
    for past in ("current", "history"):
        assert srv.ok("GET", f"/v1/search?q=%22{secret}%22&in={past}")["results"] == []
    srv.ok("PATCH", f"/v1/agents/{agent}", {"description": f"knows {secret}"})
    said = srv.server.cli("purge", "--agent", agent, "--secret-stdin", input=secret.encode(), check=False)
    assert b"fields-kept" in said.stdout


def test_a_block_of_nobody_leaves_the_history_search_whole(srv):
    loose(srv, value="nobody has this")
    agent = srv.agent({"a.md": "gonewordone"})
    srv.push(agent, {"a.md": "x"})
    found = srv.ok("GET", "/v1/search?q=gonewordone&in=history")
    assert [hit["agent_id"] for hit in found["results"]] == [agent] and not found["is_partial"]
    mine = srv.ok("GET", "/v1/search?q=%22nobody+has+this%22")["results"]
    assert [hit["agent_id"] for hit in mine] == [None], "no agent has it"


def test_S1_history_search_of_all_agents_shows_no_shared_repository_nor_a_deleted_one(srv):
    word = letters(14)
    repo = srv.ok("POST", "/v1/repositories", {"name": f"r-{uuid.uuid4().hex[:8]}"})["id"]
    files = f"/v1/repositories/{repo}/files"
    srv.ok("POST", files, {"path": "a.md", "content": f"{word} one\n"})
    srv.ok("POST", f"{files}/content", {"path": "a.md", "content": "nothing\n"})
    srv.ok("GET", f"/v1/repositories/{repo}/versions?path=a.md")
    for _ in range(2):
        found = srv.ok("GET", f"/v1/search?q={word}&in=history")
        assert found == {"results": [], "is_partial": False}
        srv.ask("DELETE", f"/v1/repositories/{repo}")


def test_S1_a_deleted_agents_memory_is_found_nowhere_until_it_is_back(srv):
    word = letters(14)
    agent = srv.agent({"a.md": word})
    srv.push(agent, {"a.md": "now"})
    assert srv.ok("GET", f"/v1/search?q={word}&in=history")["results"]
    srv.ok("DELETE", f"/v1/agents/{agent}")
    assert srv.ok("GET", f"/v1/search?q={word}&in=history")["results"] == []
    unknown = new_agent()
    for tail in ("", "/memory/history", "/memory/diff", f"/memory/at/{'0' * 40}/blocks", "/core-memory/blocks",
                 "/core-memory"):
        gone, never = (srv.ask("GET", f"/v1/agents/{a}{tail}") for a in (agent, unknown))
        assert (gone.status, gone.body.replace(agent.encode(), unknown.encode())) == (404, never.body), tail
    srv.ok("POST", f"/v1/agents/{agent}/restore")
    assert srv.ok("GET", f"/v1/search?q={word}&in=history")["results"]


# ---- bodies ----------------------------------------------------------------------------------------

def test_T10_two_thousand_paths_that_collide_change_nothing(srv):
    agent = srv.agent()
    main = srv.main(agent)
    changes = [{"path": f"c/{'xX'[i % 2]}{i // 2}.md", "content": "x"} for i in range(2000)]
    answer = srv.commit(agent, {"changes": changes})
    assert answer.status == 403 and "differs only in case" in answer.json()["detail"]
    for path in ("../x.md", ".git/config", "a/.git/x", ".gitmodules", ".gitattributes", "a\nb.md", "-x.md", "e\u0301.md",
                 "q" * 4096, "a/" * 70 + "x.md", "x.md/", "/x.md", "a//b.md", "\u202e.md", "a\\b.md", ""):
        answer = srv.commit(agent, {"changes": [{"path": "ok.md", "content": "x"}, {"path": path, "content": "x"}]})
        assert answer.status in (400, 403, 413, 422), (path, answer)
    assert srv.main(agent) == main and srv.files(agent) == {"system/human.md"}


@pytest.mark.parametrize("message", ["subject\nauthor evil <e@e> 0 +0000\ncommitter evil <e@e> 0 +0000", "\n\nMemfs-Edit: edit-x"])
def test_T20_a_message_is_no_head_of_a_commit(srv, message):
    agent = srv.agent()
    who = srv.log(agent, "%an")[0]
    assert srv.commit(agent, {"changes": [{"path": "m.md", "content": letters(8)}], "message": message}).status == 200
    assert "evil" not in "".join(srv.log(agent, "%an %ae %cn %ce")) and who
    assert srv.patch(agent, "system/human", {"value": "x", "tags": ["t"]}).status == 200


# The last one: from here on requests need tokens.

def test_S1_8_a_deleted_agents_token_opens_no_shared_repository(srv):
    agent = srv.agent()
    repo = srv.ok("POST", "/v1/repositories", {"name": f"r-{uuid.uuid4().hex[:8]}"})
    files = f"/v1/repositories/{repo['id']}/files"
    srv.ok("POST", files, {"path": "f.md", "content": "x"})
    srv.ok("POST", f"/v1/agents/{agent}/repositories", {"repository_id": repo["id"], "permissions": "read_write"})
    admin, own = srv.server.token("admin")["token"], srv.server.token(f"agent:{agent}:rw")["token"]
    asked = [("GET", f"/v1/repositories/{repo['id']}", None), ("GET", f"{files}/content?path=f.md", None),
             ("POST", files, {"path": f"{letters(5)}.md", "content": "x"}),
             *(("GET", f"/v1/git/{agent}/repositories/{repo['name']}.git/info/refs?service=git-{s}", None)
               for s in ("upload-pack", "receive-pack"))]
    for method, target, body in asked:
        assert srv.ask(method, target, body, token=own).status == 200, target
    srv.ok("DELETE", f"/v1/agents/{agent}", token=admin)
    for method, target, body in asked:
        assert srv.ask(method, target, body, token=own).status == 404, target
    assert srv.ok("GET", "/v1/repositories", token=own)["repositories"] == []
    srv.ok("POST", f"/v1/agents/{agent}/restore", token=admin)
    assert srv.ask("GET", f"{files}/content?path=f.md", token=own).status == 200
    assert json.dumps(srv.ok("GET", "/v1/repositories", token=own)).count(repo["id"]) == 1
