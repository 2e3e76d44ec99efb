"""Blocks written over REST, named after the sections of the wire contract (http-api 4 to 6, 11)."""
import concurrent.futures
import re

import pytest

from lib.restmem import AGENT_KEYS, BLOCK_KEYS, UUID4, only_error
from lib.server import new_agent
from lib.writes import srv  # noqa: F401

LETTA_USER = "User user-00000000-0000-4000-8000-000000000000"


# ---- 5.2, 6.4, 11: PATCH -------------------------------------------------------------------------

def test_5_2_patch_by_label_is_a_commit_and_answers_the_block(srv):
    agent = srv.agent()
    answer = srv.patch(agent, "system/human", {"value": "Likes coffee."},
                       X_Memfs_Reason="he said \\so")
    assert answer.status == 200
    block = answer.json()
    assert list(block) == BLOCK_KEYS
    assert block["value"] == "Likes coffee."
    assert block == srv.block(agent, "system/human")
    assert srv.file(agent, "system/human.md") == b"---\ndescription: About\n---\nLikes coffee."
    assert srv.log(agent)[0] == "Update system/human block"
    assert srv.log(agent, "%b")[0] == "he said \\\\so"
    assert srv.log(agent, "%an <%ae>")[0] == f"{LETTA_USER} <{LETTA_USER[5:]}@letta.ai>"


@pytest.mark.parametrize("form", ["system/human", "system%2Fhuman"])
def test_5_1_patch_takes_labels_with_slashes(srv, form):
    agent = srv.agent()
    assert srv.patch(agent, form, {"value": form}).json()["label"] == "system/human"
    assert srv.server.value(agent, "system/human") == form


def test_6_4_patch_by_id(srv):
    agent = srv.agent()
    before = srv.block(agent, "system/human")
    after = srv.ok("PATCH", f"/v1/blocks/{before['id']}", {"value": "x", "description": "d"})
    assert after == {**before, "value": "x", "description": "d"}
    assert srv.ask("PATCH", "/v1/blocks/" + before["id"][:-1] + "z", {"value": "x"}).status == 422
    gone = "block-123e4567-e89b-42d3-8456-426614174000"
    answer = srv.ask("PATCH", f"/v1/blocks/{gone}", {"value": "x"})
    assert (answer.status, answer.json()) == (404, {"detail": f"Block with id '{gone}' not found"})


def test_5_2_patch_of_what_is_not_there_is_404(srv):
    agent = srv.agent()
    answer = srv.patch(agent, "nope", {"value": "x"})
    assert answer.status == 404
    assert answer.json()["detail"] == f"No block with label 'nope' found for agent '{agent}'"
    unknown = new_agent()
    assert srv.patch(unknown, "system/human", {"value": "x"}).json() == {
        "detail": f"Agent with ID {unknown} not found"}


def test_11_a_patch_that_changes_nothing_is_no_commit_and_no_500_D4(srv):
    agent = srv.agent()
    main = srv.main(agent)
    for body in ({}, {"value": "Likes tea."}, {"label": "system/human"}, {"description": None}):
        assert srv.patch(agent, "system/human", body).status == 200, body
    assert srv.main(agent) == main


def test_11_an_empty_value_is_a_value_K4(srv):
    agent = srv.agent()
    assert srv.patch(agent, "system/human", {"value": ""}).json()["value"] == ""
    assert srv.file(agent, "system/human.md") == b"---\ndescription: About\n---\n"


def test_11_front_matter_stays_byte_for_byte(srv):
    front = b"---\nname: brew   # mine\ndescription: 'How to'\nread_only: yes\nlimit: 77\nmetadata: {a: [1]}\n---\n"
    agent = srv.agent({"skills/brew/SKILL.md": front + b"Boil.\r\n", "crlf.md": b"---\r\nname: x\r\n---\r\nold"})
    assert srv.patch(agent, "skills/brew", {"value": "Steep."}).status == 200
    assert srv.file(agent, "skills/brew/SKILL.md") == front + b"Steep."
    assert srv.files(agent) == {"skills/brew/SKILL.md", "crlf.md"}, "a skill has its real file"
    assert srv.patch(agent, "crlf", {"value": "new"}).status == 200
    assert srv.file(agent, "crlf.md") == b"---\r\nname: x\r\n---\r\nnew"


def test_11_a_changed_key_keeps_the_others_and_the_value(srv):
    agent = srv.agent({"a.md": b"---\nname: s\ndescription: x\nextra: [1]\nlimit: 9\n---\nline\r\nend"})
    block = srv.patch(agent, "a", {"description": "d: new", "metadata": {"k": 1}}).json()
    assert (block["description"], block["metadata"], block["limit"]) == ("d: new", {"k": 1}, 9)
    assert srv.file(agent, "a.md") == (
        b"---\nname: s\ndescription: 'd: new'\nextra:\n- 1\nlimit: 9\nmetadata:\n  k: 1\n---\nline\r\nend")
    block = srv.patch(agent, "a", {"metadata": {}, "read_only": True}).json()
    assert (block["metadata"], block["read_only"]) == ({}, True)
    assert srv.patch(agent, "a", {"read_only": False}).json()["read_only"] is False
    assert b"read_only" not in srv.file(agent, "a.md")


def test_11_a_value_that_looks_like_front_matter_comes_back_as_it_was(srv):
    agent = srv.agent({"a.md": "plain"})
    value = "---\ndescription: not mine\n---\nrest"
    assert srv.patch(agent, "a", {"value": value}).json()["value"] == value
    assert srv.server.value(agent, "a") == value


def test_4_nul_is_taken_out_of_values(srv):
    agent = srv.agent()
    assert srv.patch(agent, "system/human", {"value": "a\0b"}).json()["value"] == "ab"


def test_6_4_tags_limit_and_hidden_survive_a_rebuild_K4(srv):
    agent = srv.agent({"a.md": "---\nlimit: 5\n---\nx", "b.md": "b"})
    main = srv.main(agent)
    block = srv.patch(agent, "b", {"tags": ["t", "u", "t"], "limit": 300, "hidden": True}).json()
    assert (sorted(block["tags"]), block["limit"], block["hidden"]) == (["t", "u"], 300, True)
    assert srv.main(agent) == main, "nothing of it is in git"
    assert srv.patch(agent, "a", {"limit": 6, "value": "y"}).json()["limit"] == 6
    assert b"limit" not in srv.file(agent, "a.md")
    before = srv.server.dump([agent])
    srv.server.cli("rebuild", "--agent", agent)
    assert srv.server.dump([agent]) == before
    srv.push(agent, {"b.md": "by git"})
    assert srv.block(agent, "b")["limit"] == 300
    assert srv.ok("GET", "/v1/blocks?tags=u&show_hidden_blocks=true")[0]["id"] == block["id"]
    assert srv.patch(agent, "b", {"tags": []}).json()["tags"] == []


def test_11_a_label_renames_the_file_and_keeps_id_and_attributes_K4(srv):
    agent = srv.agent({"notes.md": "---\ndescription: d\n---\nn", "other.md": "o"})
    before = srv.patch(agent, "notes", {"tags": ["keep"], "limit": 42}).json()
    after = srv.patch(agent, "notes", {"label": "skills/notes"}).json()
    assert after == {**before, "label": "skills/notes"}
    assert srv.files(agent) == {"skills/notes/SKILL.md", "other.md"}
    assert srv.ok("GET", f"/v1/blocks/{before['id']}") == after
    srv.server.cli("rebuild", "--agent", agent)
    assert srv.block(agent, "skills/notes") == after
    srv.push(agent, {"notes.md": "another"})
    assert srv.block(agent, "notes")["id"] != before["id"], "an id is never two blocks'"
    answer = srv.patch(agent, "other", {"label": "notes"})
    assert answer.status == 409 and answer.headers["x-should-retry"] == "false"
    assert srv.patch(agent, "other", {"label": "../up"}).status in (400, 403)
    assert srv.patch(agent, "other", {"label": ""}).status == 422


@pytest.mark.parametrize("body, kind", [
    (b"", "missing"), (b"[]", "model_attributes_type"), ({"value": 5}, "string_type"),
    ({"limit": "x"}, "int_parsing"), ({"read_only": None}, "bool_type"), ({"tags": "a"}, "list_type"),
    ({"metadata": []}, "dict_type"), (b"{", "json_invalid"), ({"is_template": None}, "bool_type")])
def test_1_5_wrong_bodies_are_422(srv, body, kind):
    agent = srv.agent()
    assert only_error(srv.patch(agent, "system/human", body))["type"] == kind


def test_1_1_unknown_fields_are_ignored_and_large_bodies_refused(srv):
    agent = srv.agent()
    assert srv.patch(agent, "system/human", {"value": "v", "project_id": "p", "x": 1}).status == 200
    assert srv.patch(agent, "system/human", {"value": "x" * (1 << 20)}).status == 413


# ---- versions ------------------------------------------------------------------------------------

def test_H3_a_stale_version_is_409_with_both_ids(srv):
    agent = srv.agent({"a.md": "1", "b.md": "1"})
    target = f"/v1/agents/{agent}/core-memory/blocks/a"
    tag = srv.ask("GET", target).headers["etag"]
    main = srv.main(agent)
    assert srv.patch(agent, "a", {"value": "2"}, If_Match=tag).status == 200
    answer = srv.patch(agent, "a", {"value": "3"}, If_Match=tag)
    assert answer.status == 409 and answer.headers["x-should-retry"] == "false"
    assert main in answer.json()["detail"] and srv.main(agent) in answer.json()["detail"]
    answer = srv.patch(agent, "a", {"value": "3", "expected_version": main})
    assert answer.status == 409 and main in answer.json()["detail"]
    assert srv.server.value(agent, "a") == "2"


def test_H3_a_commit_or_the_blob_itself_may_be_expected(srv):
    agent = srv.agent({"a.md": "1", "b.md": "1"})
    main = srv.main(agent)
    assert srv.patch(agent, "b", {"value": "2"}).status == 200
    assert srv.patch(agent, "a", {"value": "2", "expected_version": main}).status == 200, \
        "another block changed, not this one"
    blob = srv.server.git_dir(agent, "rev-parse", "main:a.md").stdout.decode().strip()
    assert srv.patch(agent, "a", {"value": "3", "expected_version": blob}).status == 200
    assert srv.patch(agent, "a", {"value": "4", "expected_version": blob}).status == 409
    assert srv.patch(agent, "a", {"value": "4", "expected_version": "no"}).status == 400


def test_H3_tags_count_as_a_version_of_the_tag(srv):
    agent = srv.agent({"a.md": "1"})
    tag = srv.ask("GET", f"/v1/agents/{agent}/core-memory/blocks/a").headers["etag"]
    assert srv.patch(agent, "a", {"tags": ["x"]}, If_Match=tag).status == 200
    assert srv.patch(agent, "a", {"tags": ["y"]}, If_Match=tag).status == 409


def test_H2_writers_without_a_version_follow_each_other(srv):
    agent = srv.agent({f"b{i}.md": "0" for i in range(4)})

    def write(n):
        return srv.patch(agent, f"b{n % 4}", {"value": f"text {n}"}).status

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(16))) == {200}
    written = srv.server.git_dir(agent, "log", "-p", "main").stdout.decode()
    assert all(f"+text {n}\n" in written for n in range(16)), "each text is in the history"


# ---- read-only, tokens ---------------------------------------------------------------------------

def test_read_only_is_enforced_for_an_agents_token(memfs_bin, tmp_path):
    from lib.server import Server
    from lib.writes import Writes
    server = Server(memfs_bin, tmp_path / "s")
    server.start()
    try:
        srv = Writes(server)
        mine = srv.agent({"system/a.md": "---\nread_only: true\n---\nlocked", "b.md": "open"})
        other = srv.agent({"c.md": "theirs"})
        admin = server.token("admin")["token"]
        rw, ro = (server.token(f"agent:{mine}:{kind}")["token"] for kind in ("rw", "ro"))
        id_of = {label: srv.ok("GET", f"/v1/agents/{agent}/core-memory/blocks/{label}", token=admin)["id"]
                 for agent, label in ((mine, "system/a"), (mine, "b"), (other, "c"))}
        for body in ({"value": "x"}, {"description": "d"}, {"tags": ["t"]}, {"limit": 5}, {"label": "z"},
                     {"read_only": False}):
            for target in (f"/v1/agents/{mine}/core-memory/blocks/system%2Fa", f"/v1/blocks/{id_of['system/a']}"):
                assert srv.ask("PATCH", target, body, token=rw).status == 403, (target, body)
        assert srv.ask("DELETE", f"/v1/blocks/{id_of['system/a']}", token=rw).status == 403
        assert srv.move("detach", mine, id_of["system/a"], token=rw).status == 403
        assert srv.ask("PATCH", f"/v1/agents/{mine}", {"block_ids": [id_of["b"]]}, token=rw).status == 403
        assert srv.commit(mine, {"changes": [{"path": "system/a.md", "content": "x"}]}, token=rw).status == 403
        assert srv.patch(mine, "system/a", {"value": "by admin"}, token=admin).status == 200
        assert srv.patch(mine, "b", {"value": "x"}, token=ro).status == 403
        assert srv.patch(mine, "b", {"value": "mine"}, token=rw).status == 200
        assert srv.log(mine, "%an <%ae>")[0].endswith(f" <{mine}@letta.com>")
        assert re.fullmatch(r"token [0-9a-f]{8} <token-[0-9a-f]{8}@memfs.localhost>",
                            srv.log(mine, "%an <%ae>")[1])
        # S1: a foreign block is as one that nobody has
        unknown = "block-123e4567-e89b-42d3-8456-426614174000"
        for ask in (lambda i: srv.ask("PATCH", f"/v1/blocks/{i}", {"value": "x"}, token=rw),
                    lambda i: srv.ask("DELETE", f"/v1/blocks/{i}", token=rw),
                    lambda i: srv.move("attach", mine, i, token=rw),
                    lambda i: srv.ask("PATCH", f"/v1/agents/{mine}", {"block_ids": [i]}, token=rw),
                    lambda i: srv.move("detach", mine, i, token=rw)):
            there, nowhere = ask(id_of["c"]), ask(unknown)
            assert there.status == 404
            assert there.body.replace(id_of["c"].encode(), unknown.encode()) == nowhere.body
        assert srv.ask("POST", "/v1/blocks", {"label": "x"}, token=rw).status == 403
        assert srv.ok("POST", "/v1/blocks", {"label": "x"}, token=admin)["label"] == "x"
        # K3: of a shared block an agent's token changes its own copy
        assert srv.move("attach", other, id_of["b"], token=admin).status == 200
        assert srv.ok("PATCH", f"/v1/blocks/{id_of['b']}", {"value": "only here"}, token=rw)["value"] == "only here"
        assert srv.ok("GET", f"/v1/agents/{other}/core-memory/blocks/b", token=admin)["value"] == "mine"
        server.stop()
        server.check_clean()
    finally:
        server.kill()


# ---- 6.3, 6.5: made, removed ---------------------------------------------------------------------

def test_6_3_post_makes_an_unattached_block(srv):
    block = srv.ok("POST", "/v1/blocks/", {"label": "persona", "tags": ["new"], "metadata": {"a": 1}})
    assert list(block) == BLOCK_KEYS and re.fullmatch("block-" + UUID4, block["id"])
    assert (block["value"], block["limit"], block["description"], block["read_only"], block["hidden"],
            block["tags"], block["metadata"]) == ("", 100000, None, False, None, ["new"], {"a": 1})
    assert srv.ok("GET", f"/v1/blocks/{block['id']}") == block
    assert block["id"] in [b["id"] for b in srv.ok("GET", "/v1/blocks?limit=0")]
    assert srv.ok("GET", "/v1/blocks?tags=new") == [block]
    assert srv.ok("GET", f"/v1/blocks/{block['id']}/agents") == []
    assert only_error(srv.ask("POST", "/v1/blocks", {"value": "x"}))["loc"] == ("body", "label")


def test_6_4_an_unattached_block_is_changed_and_removed_K4(srv):
    block = srv.ok("POST", "/v1/blocks", {"label": "l", "value": "1", "description": "d"})
    target = f"/v1/blocks/{block['id']}"
    tag = srv.ask("GET", target).headers["etag"]
    after = srv.ok("PATCH", target, {"value": "", "limit": 7, "label": "m/n"}, If_Match=tag)
    assert after == {**block, "value": "", "limit": 7, "label": "m/n"}
    assert srv.ask("PATCH", target, {"value": "2"}, If_Match=tag).status == 409
    srv.server.restart()
    assert srv.ok("GET", target) == after
    answer = srv.ask("DELETE", target)
    assert (answer.status, answer.body) == (200, b"null")
    assert srv.ask("GET", target).status == srv.ask("DELETE", target).status == 404


def test_D5_unattached_blocks_come_back_with_a_new_cache(srv):
    block = srv.ok("POST", "/v1/blocks", {"label": "kept", "value": "v", "tags": ["a"]})
    srv.server.stop()
    srv.server.lose_blocks()
    srv.server.start()
    assert srv.ok("GET", f"/v1/blocks/{block['id']}") == block


def test_6_5_delete_removes_the_file_and_nobody_elses_K3(srv):
    agent, other = srv.agent({"a.md": "1", "b.md": "2"}), srv.agent({"a.md": "1"})
    block = srv.patch(agent, "a", {"tags": ["t"]}).json()
    assert srv.ask("DELETE", f"/v1/blocks/{block['id']}").status == 200
    assert srv.files(agent) == {"b.md"} and srv.files(other) == {"a.md"}
    assert srv.log(agent)[0] == "Delete a block"
    assert srv.ask("GET", f"/v1/blocks/{block['id']}").status == 404
    assert srv.patch(agent, "a", {"value": "x"}).status == 404


# ---- 5.2: attach, detach -------------------------------------------------------------------------

def test_5_2_attach_makes_a_file_and_keeps_the_id_K4(srv):
    agent = srv.agent()
    block = srv.ok("POST", "/v1/blocks", {"label": "skills/x", "value": "v", "description": "d: e",
                                          "tags": ["t"], "limit": 9, "metadata": {"a": 1}})
    answer = srv.move("attach", agent, block["id"])
    assert answer.status == 200 and list(answer.json()) == AGENT_KEYS
    assert "skills/x" in [b["label"] for b in answer.json()["blocks"]]
    assert srv.block(agent, "skills/x") == block == srv.ok("GET", f"/v1/blocks/{block['id']}")
    assert srv.file(agent, "skills/x/SKILL.md") == b"---\ndescription: 'd: e'\nmetadata:\n  a: 1\n---\nv"
    main = srv.main(agent)
    assert srv.move("attach", agent, block["id"]).status == 200, "idempotent"
    assert srv.main(agent) == main
    before = srv.server.dump([agent])
    srv.server.cli("rebuild", "--agent", agent)
    assert srv.server.dump([agent]) == before
    assert [b["id"] for b in srv.ok("GET", "/v1/blocks?limit=0")].count(block["id"]) == 1


def test_5_2_attach_where_the_label_is_taken_is_409_D3(srv):
    agent = srv.agent({"a.md": "mine"})
    block = srv.ok("POST", "/v1/blocks", {"label": "a", "value": "v"})
    main = srv.main(agent)
    assert srv.move("attach", agent, block["id"]).status == 409
    assert srv.main(agent) == main and srv.server.value(agent, "a") == "mine"
    assert srv.ok("GET", f"/v1/blocks/{block['id']}") == block
    odd = srv.ok("POST", "/v1/blocks", {"label": "../up", "value": "v"})
    assert srv.move("attach", agent, odd["id"]).status == 400
    assert srv.ok("GET", f"/v1/blocks/{odd['id']}") == odd


def test_5_2_detach_takes_the_file_and_keeps_the_block_K4(srv):
    agent, next_one = srv.agent({"a.md": "---\ndescription: d\n---\ntext", "b.md": ""}), srv.agent()
    block = srv.patch(agent, "a", {"tags": ["t"], "limit": 8}).json()
    answer = srv.move("detach", agent, block["id"])
    assert answer.status == 200 and [b["label"] for b in answer.json()["blocks"]] == ["b"]
    assert srv.files(agent) == {"b.md"}
    assert srv.ok("GET", f"/v1/blocks/{block['id']}") == block
    assert srv.move("detach", agent, block["id"]).status == 404
    srv.push(agent, {"a.md": "again"})
    assert srv.block(agent, "a")["id"] != block["id"], "an id is never two blocks'"
    assert srv.move("attach", next_one, block["id"]).status == 200
    assert srv.block(next_one, "a") == block


def test_K3_a_shared_block_is_changed_for_all_and_removed_from_one(srv):
    one, two, three = srv.agent({"x.md": "1"}), srv.agent(), srv.agent()
    block = srv.ok("POST", "/v1/blocks", {"label": "team", "value": "v"})
    for agent in (one, two, three):
        assert srv.move("attach", agent, block["id"]).status == 200
    assert srv.ok("PATCH", f"/v1/blocks/{block['id']}", {"value": "w", "limit": 5})["value"] == "w"
    assert srv.patch(two, "team", {"description": "of the team"}).status == 200
    for agent in (one, two, three):
        assert srv.block(agent, "team") == {**block, "value": "w", "limit": 5, "description": "of the team"}
        assert srv.log(agent)[:2] == ["Update team block"] * 2
    assert [b["id"] for b in srv.ok("GET", "/v1/blocks?limit=0")].count(block["id"]) == 1
    agents = f"/v1/blocks/{block['id']}/agents"
    assert [a["id"] for a in srv.ok("GET", agents + "?order=asc")] == [one, two, three]
    assert [a["id"] for a in srv.ok("GET", agents + "?limit=2")] == [three, two]
    assert [a["id"] for a in srv.ok("GET", agents + f"?after={two}")] == [one]
    assert srv.ok("GET", agents + f"?after={one}") == []
    assert srv.move("detach", one, block["id"]).status == 200
    assert srv.block(two, "team")["value"] == srv.block(three, "team")["value"] == "w"
    assert srv.ask("GET", f"/v1/agents/{one}/core-memory/blocks/team").status == 404
    assert srv.move("detach", two, block["id"]).status == srv.move("detach", three, block["id"]).status == 200
    assert srv.ok("GET", f"/v1/blocks/{block['id']}")["value"] == "w", "the last one leaves it to nobody"


def test_K3_H3_changes_of_a_shared_block_that_come_at_once_end_with_one_text(srv):
    agents = [srv.agent() for _ in range(3)]
    block = srv.ok("POST", "/v1/blocks", {"label": "team", "value": "v"})["id"]
    for agent in agents:
        assert srv.move("attach", agent, block).status == 200

    def write(n):
        return srv.ask("PATCH", f"/v1/blocks/{block}", {"value": f"text {n}"}).status

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for turn in range(8):
            assert set(pool.map(write, range(4 * turn, 4 * turn + 4))) == {200}
            assert len({srv.block(agent, "team")["value"] for agent in agents}) == 1


def test_5_2_K4_the_last_two_that_detach_a_block_at_once_leave_it_to_nobody(srv):
    one, two = srv.agent(), srv.agent()
    block = srv.ok("POST", "/v1/blocks", {"label": "team", "value": "v"})["id"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(8):
            for how in ("attach", "detach"):
                done = pool.map(lambda agent: srv.move(how, agent, block).status, (one, two))
                assert set(done) == {200}, how
                assert srv.ok("GET", f"/v1/blocks/{block}")["value"] == "v"


# ---- memory/commit -------------------------------------------------------------------------------

def test_10_several_files_are_one_commit(srv):
    agent = srv.agent({"a.md": "1", "old.md": "x"})
    main = srv.main(agent)
    made = srv.ok("POST", f"/v1/agents/{agent}/memory/commit", {"message": "tidy up", "changes": [
        {"path": "a.md", "content": "22"}, {"path": "docs/b.txt", "content": "b"},
        {"path": "old.md", "content": None}, {"path": "never.md", "change_type": "delete"}]})
    assert made["sha"] == srv.main(agent) and made["parent_sha"] == main
    assert list(made) == ["sha", "parent_sha", "message", "author_type", "author_id", "author_name",
                          "timestamp", "files_changed", "additions", "deletions"]
    assert (made["author_type"], made["author_id"], made["author_name"]) == ("user", agent, LETTA_USER)
    assert (made["additions"], made["deletions"], made["message"]) == (3, 2, "tidy up")
    assert srv.files(agent) == {"a.md", "docs/b.txt"} and srv.log(agent)[0] == "tidy up"
    assert srv.server.value(agent, "a") == "22"


def test_D3_one_bad_change_refuses_all(srv):
    agent = srv.agent({"a.md": "1"})
    main = srv.main(agent)
    good = {"path": "b.md", "content": "b"}
    for bad, status in (({"path": "../x", "content": ""}, 403), ({"path": "/x", "content": ""}, 400),
                        ({"path": "", "content": ""}, 422), ({"path": ".git/config", "content": ""}, 403),
                        ({"path": "a.md", "content": "2", "change_type": "add"}, 409),
                        ({"path": "a.md", "content": 5}, 422), ({"content": "x"}, 422),
                        ({"path": "a.md", "content": "x", "change_type": "move"}, 422),
                        ({"path": "big.md", "content": "x" * (11 << 20)}, 413)):
        assert srv.commit(agent, {"changes": [good, bad]}).status == status, bad["path"] if "path" in bad else bad
    assert srv.commit(agent, {"changes": [good], "expected_version": "0" * 40}).status == 409
    assert srv.main(agent) == main


def test_D4_the_same_commit_again_is_none(srv):
    agent = srv.agent({"a.md": "1"})
    body = {"changes": [{"path": "b.md", "content": "b", "change_type": "add"}, {"path": "a.md", "content": None}]}
    first = srv.ok("POST", f"/v1/agents/{agent}/memory/commit", body)
    again = srv.ok("POST", f"/v1/agents/{agent}/memory/commit", body)
    assert first["sha"] == again["sha"] and again["files_changed"] == []
    assert srv.commit(new_agent(), body).status == 404


@pytest.mark.parametrize("message,subject", [("\n\n", "Change 1 file"), (" \r\n\t", "Change 1 file"),
                                             ("\n\n tidy up\n\nand more\n", "tidy up")])
def test_10_a_commit_always_has_a_subject(srv, message, subject):
    agent = srv.agent({"a.md": "1"})
    made = srv.ok("POST", f"/v1/agents/{agent}/memory/commit",
                  {"message": message, "changes": [{"path": "a.md", "content": "2"}]})
    assert made["message"].split("\n")[0] == subject and srv.log(agent)[0] == subject
