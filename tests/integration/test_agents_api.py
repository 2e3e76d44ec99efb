"""Agents are made, changed, deleted and brought back over REST, named after the sections of the wire
contract (http-api 7, 7.1; client 8.2 to 8.4)."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest

from lib.gitcli import Git
from lib.restmem import AGENT_KEYS, BLOCK_KEYS, CURL, error_list
from lib.server import Server, new_agent
from lib.wire import GENESIS
from lib.writer import Memory

GIT = "git-memory-enabled"
SDK = {"User-Agent": "letta-client/1.12.1"}


class World:
    def __init__(self, server, git):
        self.server, self.git = server, git

    def ask(self, method, target, body=None, **headers):
        data = None if body is None else json.dumps(body)
        return self.server.request(method, target, data, {**CURL, **headers})

    def ok(self, method, target, body=None, **headers):
        answer = self.ask(method, target, body, **headers)
        assert answer.status == 200, (method, target, answer)
        return answer.json()

    def make(self, **body):
        return self.ok("POST", "/v1/agents/", body)

    def get(self, agent, query=""):
        return self.ok("GET", f"/v1/agents/{agent}{query}")

    def files(self, agent):
        out = self.server.git_dir(agent, "ls-tree", "-r", "--name-only", "main").stdout.decode()
        return set(out.split())

    def commits(self, agent):
        return self.server.git_dir(agent, "rev-list", "main").stdout.decode().split()

    def ids(self, query=""):
        return [a["id"] for a in self.ok("GET", f"/v1/agents/?limit=0&{query}")]


@pytest.fixture(scope="module")
def world(memfs_bin):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="memfs-it-"))
    server = Server(memfs_bin, folder / "server").start()
    yield World(server, Git(folder / "git"))
    server.stop()
    server.check_clean()
    shutil.rmtree(folder, ignore_errors=True)


# ---- POST ----------------------------------------------------------------------------------------

def test_7_create_answers_the_whole_agent_and_makes_one_commit(world):
    blocks = [{"label": "persona", "value": "I am Ada.\n", "description": "Who I am"},
              {"label": "human", "value": "", "limit": 77, "tags": ["x", "y"]},
              {"label": "locked", "value": "v", "read_only": True, "metadata": {"a": [1, "x"]},
               "hidden": True}]
    made = world.make(name="Ada's own", tags=["b", GIT, "a", "b"], memory_blocks=blocks,
                      description="tests", metadata={"k": 1}, system="Be kind.", model="m/1",
                      llm_config={"model": "m", "context_window": 9}, timezone="Europe/Berlin",
                      agent_type="letta_v1_agent", nonsense=1)
    assert list(made) == AGENT_KEYS
    assert made["name"] == "Ada's own" and made["tags"] == ["b", GIT, "a"]
    assert made["description"] == "tests" and made["metadata"] == {"k": 1}
    assert made["system"] == "Be kind." and made["model"] == "m/1"
    assert made["llm_config"] == {"model": "m", "context_window": 9}
    assert made["timezone"] == "Europe/Berlin"
    rows = world.server.blocks(made["id"])
    assert set(rows) == {"system/persona", "system/human", "system/locked"}
    assert rows["system/persona"]["value"] == "I am Ada.\n"
    assert rows["system/persona"]["description"] == "Who I am"
    assert list(rows["system/human"]) == BLOCK_KEYS
    assert (rows["system/human"]["value"], rows["system/human"]["limit"]) == ("", 77)
    assert rows["system/human"]["tags"] == ["x", "y"]
    assert rows["system/locked"]["read_only"] and rows["system/locked"]["hidden"]
    assert rows["system/locked"]["metadata"] == {"a": [1, "x"]}
    assert world.files(made["id"]) == {f"{label}.md" for label in rows}
    assert len(world.commits(made["id"])) == 2 and world.commits(made["id"])[-1] == GENESIS
    assert world.get(made["id"]) == made


def test_7_create_without_the_git_tag_keeps_the_labels(world):
    made = world.make(memory_blocks=[{"label": "human", "value": "x"}, {"label": "skills/brew", "value": "y"}])
    assert world.files(made["id"]) == {"human.md", "skills/brew/SKILL.md"}
    assert made["name"] == made["id"] and made["tags"] == [GIT]


def test_7_create_minimal_can_be_cloned_at_once(world, folder):
    """Client 8.2: a new agent's repository is there when its clone comes; 8.4: with the genesis."""
    made = world.make(name="bare")
    assert made["id"].startswith("agent-") and made["blocks"] == []
    world.git.run("clone", world.server.git_url(made["id"]), str(folder / "c"))
    assert world.git.text("rev-parse", "HEAD", cwd=str(folder / "c")) == GENESIS


def test_8_2_create_as_the_letta_client_does(world):
    made = world.make(name="Letta Code", tags=["origin:letta-code", GIT], model="letta/auto", block_ids=[],
                      memory_blocks=[{"label": "MEMORY", "value": "m"}, {"label": "persona", "value": "p"},
                                     {"label": "human", "value": "h"}],
                      include_base_tools=False, tools=[], parallel_tool_calls=True)
    assert world.files(made["id"]) == {"system/MEMORY.md", "system/persona.md", "system/human.md"}


def test_7_create_with_an_id_is_done_once(world):
    agent = new_agent()
    assert world.make(id=agent, name="first")["id"] == agent
    again = world.ask("POST", "/v1/agents", {"id": agent, "name": "second"})
    assert again.status == 409 and agent in again.json()["detail"]
    assert world.get(agent)["name"] == "first"


@pytest.mark.parametrize("body,loc,kind", [
    ({"name": 7}, ("body", "name"), "string_type"),
    ({"name": "a/b"}, ("body", "name"), "value_error"),
    ({"name": ""}, ("body", "name"), "value_error"),
    ({"id": "agent-1"}, ("body", "id"), "value_error"),
    ({"tags": "x"}, ("body", "tags"), "list_type"),
    ({"tags": [1]}, ("body", "tags", 0), "string_type"),
    ({"metadata": []}, ("body", "metadata"), "dict_type"),
    ({"system": {}}, ("body", "system"), "string_type"),
    ({"block_ids": "block"}, ("body", "block_ids"), "list_type"),
    ({"block_ids": [7]}, ("body", "block_ids", 0), "string_type"),
    ({"block_ids": ["block-1"]}, ("body", "block_ids"), "value_error"),
    ({"memory_blocks": {}}, ("body", "memory_blocks"), "list_type"),
    ({"memory_blocks": [{"value": "x"}]}, ("body", "memory_blocks", 0, "label"), "missing"),
    ({"memory_blocks": [{"label": "a", "value": 1}]}, ("body", "memory_blocks", 0, "value"), "string_type"),
    ({"memory_blocks": [{"label": "a", "limit": 0}]}, ("body", "memory_blocks", 0, "limit"), "value_error"),
    ({"memory_blocks": [{"label": "a", "limit": 1 << 31}]}, ("body", "memory_blocks", 0, "limit"), "value_error"),
    # a row would show it as empty
    ({"memory_blocks": [{"label": "a", "value": "x" * (1 << 20)}]}, ("body", "memory_blocks", 0, "value"),
     "value_error"),
    *[({"memory_blocks": [{"label": "a"}, {"label": label}]}, ("body", "memory_blocks", 1, "label"), "value_error")
      for label in ("", "a//b", "/a", "a/", "../a", "a\0b", "a\nb", "x/.git/y", "b" * 300, "/".join("x" * 70))],
])
def test_7_create_refuses_wrong_fields_by_their_place(world, body, loc, kind):
    n = world.ok("GET", "/v1/agents/count")
    answer = world.ask("POST", "/v1/agents", body)
    assert answer.status == 422, answer
    assert (loc, kind) in [(e["loc"], e["type"]) for e in error_list(answer)], answer.body
    assert world.ok("GET", "/v1/agents/count") == n


@pytest.mark.parametrize("body,status", [
    ({"memory_blocks": [{"label": "a", "value": "1"}, {"label": "a", "value": "2"}]}, 409),
    ({"memory_blocks": [{"label": "A", "value": "1"}, {"label": "a", "value": "2"}]}, 409),
    ({"memory_blocks": [{"label": "human"}, {"label": "system/human"}], "tags": [GIT]}, 409),
    ({"memory_blocks": [{"label": "x.md/y"}, {"label": "x-y"}, {"label": "x"}]}, 409),
    ({"block_ids": ["block-5d1c2f3a-0b1e-4c7d-9a2b-6f0e1d2c3b4a"], "memory_blocks": [{"label": "a"}]}, 404),
])
def test_D3_an_agent_that_is_refused_is_not_made(world, body, status):
    agent = new_agent()
    answer = world.ask("POST", "/v1/agents", {"id": agent, "name": "half", **body})
    assert answer.status == status, answer
    assert world.ask("GET", f"/v1/agents/{agent}").status == 404
    assert world.make(id=agent)["name"] == agent, "the id is free"


@pytest.mark.parametrize("key,field", [("description", "d" * 70_000), ("metadata", {"a": "m" * 70_000}),
                                       ("metadata", {f"k{i}": i for i in range(8_000)})],
                         ids=("description", "metadata", "many keys"))
def test_K5_D3_a_first_block_that_could_not_be_read_back_is_refused(world, key, field):
    """It was made, and its front matter stood in its value."""
    agent = new_agent()
    refused = world.ask("POST", "/v1/agents", {"id": agent, "memory_blocks": [{"label": "a", key: field}]})
    assert [e["loc"] for e in error_list(refused)] == [("body", "memory_blocks", 0, key)]
    assert world.ask("GET", f"/v1/agents/{agent}").status == 404


def test_D3_an_agent_whose_attached_block_has_no_room_is_not_made(world):
    """Only the plan of its commit finds that out; the agent was there, empty, beside the refusal."""
    block = world.ok("POST", "/v1/blocks", {"label": "large", "description": "d" * 70_000})["id"]
    agent, n = new_agent(), world.ok("GET", "/v1/agents/count")
    assert world.ask("POST", "/v1/agents", {"id": agent, "block_ids": [block]}).status == 413
    assert world.ask("GET", f"/v1/agents/{agent}").status == 404 and world.ok("GET", "/v1/agents/count") == n
    assert not os.path.exists(os.path.dirname(world.server.repository(agent))), "nothing of it is on the disk"
    assert world.make(id=agent)["id"] == agent, "the id is free"


def test_7_create_attaches_block_ids_in_the_one_commit_and_K4_they_keep_their_ids(world):
    loose = world.ok("POST", "/v1/blocks", {"label": "team", "value": "t", "description": "d", "limit": 9,
                                              "tags": ["x"]})
    first = world.make(block_ids=[loose["id"], loose["id"]], memory_blocks=[{"label": "human", "value": "h"}])
    assert world.files(first["id"]) == {"human.md", "team.md"} and len(world.commits(first["id"])) == 2
    assert world.server.blocks(first["id"])["team"] == loose
    second = world.make(block_ids=[loose["id"]], tags=[GIT])
    assert world.files(second["id"]) == {"system/team.md"}, "with the git tag, as of memory_blocks"
    assert world.server.blocks(second["id"])["system/team"] == {**loose, "label": "system/team"}
    assert world.server.blocks(first["id"])["team"] == loose, "nothing of another agent is renamed"
    agents = world.ok("GET", f"/v1/blocks/{loose['id']}/agents?order=asc")
    assert [a["id"] for a in agents] == [first["id"], second["id"]]


def test_7_D3_block_ids_whose_labels_collide_make_nothing(world):
    one, two, odd = (world.ok("POST", "/v1/blocks", {"label": label, "value": "v"})
                     for label in ("same", "Same", "../up"))
    agent = new_agent()
    for body, status in (({"block_ids": [one["id"], two["id"]]}, 409), ({"block_ids": [odd["id"]]}, 400),
                         ({"block_ids": [one["id"]], "memory_blocks": [{"label": "same"}]}, 409)):
        assert world.ask("POST", "/v1/agents", {"id": agent, **body}).status == status, body
        assert world.ask("GET", f"/v1/agents/{agent}").status == 404
    for block in (one, two, odd):
        assert world.ok("GET", f"/v1/blocks/{block['id']}") == block
    assert world.make(id=agent, block_ids=[one["id"]])["id"] == agent, "the id and the block are free"


def test_7_the_author_is_who_asks_and_the_reason_is_told(world):
    made = world.ok("POST", "/v1/agents", {"memory_blocks": [{"label": "a", "value": "1"}]},
                    **{"X-Memfs-Reason": "for\tthe test"})
    text = world.server.git_dir(made["id"], "log", "-1", "--format=%an|%B", "main").stdout.decode()
    assert text.startswith("User user-") and "Begin with 1 block" in text and "for" in text
    assert "\t" not in text


# ---- PATCH ---------------------------------------------------------------------------------------

def test_7_patch_sets_what_it_names_and_leaves_the_rest(world):
    agent = world.make(name="one", description="d", system="s")["id"]
    changed = world.ok("PATCH", f"/v1/agents/{agent}",
                       {"name": "two (dev)", "metadata": {"a": None}, "description": None, "unknown": 1})
    assert (changed["name"], changed["metadata"], changed["description"], changed["system"]) == (
        "two (dev)", {"a": None}, "d", "s")
    assert list(changed) == AGENT_KEYS and changed == world.get(agent)
    assert len(world.commits(agent)) == 1, "no commit is made of an agent's own fields"


def test_7_patch_tags_replaces_all_without_repeats_and_echoes(world):
    agent = world.make(tags=["x"])["id"]
    assert world.ok("PATCH", f"/v1/agents/{agent}", {"tags": ["b", GIT, "b", "a"]})["tags"] == ["b", GIT, "a"]
    assert world.ok("PATCH", f"/v1/agents/{agent}", {"tags": []})["tags"] == [GIT]
    assert agent not in world.ids("tags=x") and agent in world.ids(f"tags={GIT}")


def test_8_3_the_lost_tag_does_no_harm(world):
    """The client's two PATCHes from one copy: the git tag is taken away again by the second."""
    agent = world.make(name="lost", memory_blocks=[{"label": "human", "value": "h"}])["id"]
    before = world.commits(agent), world.server.dump([agent])
    old = world.get(agent, "?include=agent.tags")["tags"]
    world.ok("PATCH", f"/v1/agents/{agent}", {"tags": [*old, GIT]})
    world.ok("PATCH", f"/v1/agents/{agent}", {"tags": ["origin:letta-code"]})
    tags = world.get(agent, "?include=agent.tags")["tags"]
    assert set(tags) == {GIT, "origin:letta-code"}
    assert (world.commits(agent), world.server.dump([agent])) == before


def test_7_1_enabling_renames_and_backfills_nothing(world):
    agent = new_agent()
    m = Memory(world.server, agent)
    tip = m.must_push({"human.md": "h\n", "skills/x/SKILL.md": "---\nname: x\n---\nbody\n"})
    m.close()
    for _ in range(2):
        world.ok("PATCH", f"/v1/agents/{agent}", {"tags": [GIT]})
    assert world.server.tip(agent) == tip and world.files(agent) == {"human.md", "skills/x/SKILL.md"}


def test_7_patch_that_changes_nothing_writes_nothing(world):
    agent = world.make(name="same", system="s", tags=["t"])["id"]
    etag = world.ask("GET", f"/v1/agents/{agent}").headers["etag"]
    world.ok("PATCH", f"/v1/agents/{agent}", {"name": "same", "system": "s", "tags": ["t"]})
    world.ok("PATCH", f"/v1/agents/{agent}", {})
    assert world.ask("GET", f"/v1/agents/{agent}").headers["etag"] == etag
    world.ok("PATCH", f"/v1/agents/{agent}", {"system": "other"})
    assert world.ask("GET", f"/v1/agents/{agent}").headers["etag"] != etag


def test_7_a_list_is_told_anew_when_an_agent_changed(world):
    agent = world.make(name="listed")["id"]
    first = world.ask("GET", "/v1/agents/?limit=2").headers["etag"]
    assert world.ask("GET", "/v1/agents/?limit=2", **{"If-None-Match": first}).status == 304
    world.ok("PATCH", f"/v1/agents/{agent}", {"name": "renamed"})
    answer = world.ask("GET", "/v1/agents/?limit=2", **{"If-None-Match": first})
    assert answer.status == 200 and answer.json()[0]["name"] == "renamed"
    assert [a["name"] for a in world.ok("GET", "/v1/agents/?query_text=RENAM")] == ["renamed"]


def test_H3_patches_of_different_fields_at_once_are_all_kept(world):
    agent = world.make(name="busy")["id"]
    keys = ["description", "system", "model", "timezone", "embedding", "project_id"]
    faults = []

    def change(key):
        for i in range(8):
            answer = world.ask("PATCH", f"/v1/agents/{agent}", {key: f"{key} {i}"})
            if answer.status != 200:
                faults.append(answer)

    threads = [threading.Thread(target=change, args=(key,)) for key in keys]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults
    assert {key: world.get(agent)[key] for key in keys} == {key: f"{key} 7" for key in keys}


@pytest.mark.parametrize("method,below", [("PATCH", ""), ("DELETE", ""), ("POST", "/restore"),
                                          ("POST", "/recompile"), ("POST", "/system-prompt/recompile")])
def test_7_an_unknown_agent_is_404_and_a_bad_id_422(world, method, below):
    agent = new_agent()
    answer = world.ask(method, f"/v1/agents/{agent}{below}", {})
    assert (answer.status, answer.json()) == (404, {"detail": f"Agent with ID {agent} not found"})
    assert world.ask(method, f"/v1/agents/agent-1{below}", {}).status == 422


# ---- lists ---------------------------------------------------------------------------------------

def test_7_order_by_updated_at_and_its_cursors(world):
    a, b, c = (world.make(name=f"o{i}", tags=["ordered"])["id"] for i in range(3))
    world.ok("PATCH", f"/v1/agents/{a}", {"description": "newest"})
    by = "tags=ordered&order_by=updated_at"
    assert world.ids(by) == [a, c, b] and world.ids(by + "&order=asc") == [b, c, a]
    assert world.ids(f"{by}&after={c}") == [b] and world.ids(f"{by}&before={c}") == [a]
    assert world.ids("tags=ordered") == [c, b, a]


def test_7_hidden_agents_are_shown_to_those_who_ask(world):
    agent = world.make(name="hidden one", hidden=True)["id"]
    assert world.get(agent)["hidden"] is True
    assert agent not in world.ids() and agent in world.ids("show_hidden_agents=true")
    world.ok("PATCH", f"/v1/agents/{agent}", {"hidden": False})
    assert agent in world.ids()


def test_7_sdk_callers_see_no_relations_of_what_they_made_unless_they_ask(world):
    agent = world.make(tags=["r"], memory_blocks=[{"label": "a", "value": "1"}])["id"]
    shown = world.ok("GET", f"/v1/agents/{agent}", **SDK)
    assert shown["tags"] == [] and shown["blocks"] == []
    assert world.ok("GET", f"/v1/agents/{agent}?include=agent.tags", **SDK)["tags"] == [GIT, "r"]


# ---- DELETE and back -----------------------------------------------------------------------------

def test_7_delete_shuts_every_door_and_keeps_the_memory(world):
    made = world.make(name="going", tags=["t"], memory_blocks=[{"label": "human", "value": "h", "limit": 5}])
    agent, block = made["id"], made["blocks"][0]["id"]
    tip, n = world.server.tip(agent), world.ok("GET", "/v1/agents/count")
    answer = world.ok("DELETE", f"/v1/agents/{agent}")
    assert answer == {"message": f"Agent id={agent} successfully deleted"}
    gone = {"detail": f"Agent with ID {agent} not found"}
    for method, target in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/core-memory"),
                           ("GET", "/core-memory/blocks"), ("GET", "/core-memory/blocks/human"),
                           ("GET", "/secrets"), ("GET", "/repositories"), ("POST", "/recompile"),
                           ("POST", "/memory/sync-from-git")]:
        answer = world.ask(method, f"/v1/agents/{agent}{target}", {} if method != "GET" else None)
        assert (answer.status, answer.json()) == (404, gone), (method, target)
    for service in ("git-upload-pack", "git-receive-pack"):
        answer = world.ask("GET", f"/v1/git/{agent}/state.git/info/refs?service={service}")
        assert (answer.status, answer.json()) == (404, gone)
    m = Memory(world.server, agent)
    m.tip = tip
    assert m.push({"new.md": "x\n"}).status == 404
    m.close()
    assert world.ok("GET", "/v1/agents/count") == n - 1 and agent not in world.ids()
    assert world.ask("GET", f"/v1/blocks/{block}").status == 404
    assert world.ok("GET", f"/v1/blocks/{block}/agents") == []
    assert block not in [b["id"] for b in world.ok("GET", "/v1/blocks/?limit=0")]
    assert world.ids("deleted=true").count(agent) == 1
    taken = world.ask("POST", "/v1/agents", {"id": agent, "name": "again"})
    assert taken.status == 409 and "restore it" in taken.json()["detail"]

    back = world.ok("POST", f"/v1/agents/{agent}/restore")
    assert {**back, "updated_at": 0} == {**made, "updated_at": 0}
    assert world.server.tip(agent) == tip and back["blocks"][0]["id"] == block
    assert world.ok("GET", f"/v1/blocks/{block}")["limit"] == 5
    assert world.ok("POST", f"/v1/agents/{agent}/restore") == back, "it is there already"
    m.tip = tip
    assert m.push({"new.md": "x\n"}).acked
    m.close()


def test_7_a_deleted_agent_stays_so_over_a_restart_verify_rebuild_and_backup(world, folder):
    s, agent = world.server, world.make(name="kept", memory_blocks=[{"label": "a", "value": "kept text"}])["id"]
    before = s.dump([agent])
    s.cli("agents", "delete", agent)
    s.restart()
    assert world.ask("GET", f"/v1/agents/{agent}").status == 404
    told = json.loads(s.cli("verify", "--json").stdout)
    assert {f["kind"] for f in told["findings"]} == {"deleted"} and told["failed"] == 0, told
    s.cli("rebuild")
    assert world.ask("GET", f"/v1/agents/{agent}").status == 404
    assert "kept text" not in world.ask("GET", "/v1/blocks/?limit=0").body.decode()
    s.restart()
    s.cli("backup", str(folder / "b"))
    assert "kept text" not in world.ask("GET", "/v1/blocks/?limit=0").body.decode()
    manifest = json.loads((folder / "b" / "manifest.json").read_text())
    assert agent in [a["id"] for a in manifest["agents"]] and manifest["left_out"] == []
    s.cli("restore", "--from", str(folder / "b"), "--home", str(folder / "r"), home=False)

    def there(*words):      # a home of its own, in files, whatever this server's database is
        return s.cli(*words, "--home", str(folder / "r"), home=False, env={"MEMFS_DATABASE": ""}).stdout.decode()

    assert agent in there("agents", "list", "--deleted") and agent not in there("agents", "list")
    there("agents", "restore", agent)
    assert "a" in there("blocks", "list", "--agent", agent).split()
    s.cli("agents", "restore", agent)
    assert s.dump([agent]) == before


def test_H1_a_push_that_waits_while_its_agent_is_deleted_is_refused_or_kept(world):
    """Whatever comes first: an acknowledged commit is there when the agent is back, another is not."""
    for _ in range(5):
        agent = world.make(memory_blocks=[{"label": "a", "value": "1"}])["id"]
        m = Memory(world.server, agent)
        m.tip = world.server.tip(agent)
        got = []
        t = threading.Thread(target=lambda: got.append(m.push({"b.md": "2\n"})))
        t.start()
        world.ok("DELETE", f"/v1/agents/{agent}")
        t.join()
        m.close()
        assert world.ask("GET", f"/v1/agents/{agent}").status == 404
        assert agent not in world.ok("GET", "/v1/blocks/?limit=0").__repr__()
        world.ok("POST", f"/v1/agents/{agent}/restore")
        assert ("b" in world.server.blocks(agent)) == got[0].acked


# ---- recompile -----------------------------------------------------------------------------------

def test_7_recompile_is_the_system_text_with_the_memory_in_it(world):
    agent = world.make(name="c", tags=[GIT], system="Be kind.\n{CORE_MEMORY}\nEnd.",
                       memory_blocks=[{"label": "persona", "value": "I am Ada.\n\n"},
                                      {"label": "human", "value": "Likes tea.", "description": " About "},
                                      {"label": "notes/deep", "value": ""}])["id"]
    m = Memory(world.server, agent)
    m.tip = world.server.tip(agent)
    m.files = {}
    text = world.ok("POST", f"/v1/agents/{agent}/recompile")
    assert text.startswith("Be kind.\n\n\nReminder: <projection> contains the local path of the memory file "
                           "projection.\n\n<self>\n<projection>$MEMORY_DIR/system/persona.md</projection>\n"
                           "I am Ada.\n</self>\n\n<memory>\n<human>\n"
                           "  <projection>$MEMORY_DIR/system/human.md</projection>\n"
                           "  <description>About</description>\n  Likes tea.\n</human>\n<notes>\n  <deep>\n"
                           "    <projection>$MEMORY_DIR/system/notes/deep.md</projection>\n")
    assert text.endswith("</memory_metadata>\nEnd.") and f"- AGENT_ID: {agent}\n" in text
    assert world.ok("POST", f"/v1/agents/{agent}/recompile?update_timestamp=false&dry_run=true", {}) == text
    assert world.ok("POST", f"/v1/agents/{agent}/system-prompt/recompile") == text
    m.close()


# ---- who may -------------------------------------------------------------------------------------

def test_S1_an_agents_token_changes_its_own_agent_and_makes_or_deletes_none(servers):
    s = servers()
    world = World(s, None)
    mine, other = world.make(name="mine")["id"], world.make(name="other")["id"]
    rw = {"Authorization": "Bearer " + s.token(f"agent:{mine}:rw")["token"]}
    ro = {"Authorization": "Bearer " + s.token(f"agent:{mine}:ro")["token"]}
    assert world.ok("PATCH", f"/v1/agents/{mine}", {"name": "still mine"}, **rw)["name"] == "still mine"
    assert world.ask("PATCH", f"/v1/agents/{mine}", {"name": "x"}, **ro).status == 403
    assert world.ask("POST", f"/v1/agents/{mine}/recompile", {}, **ro).status == 403
    foreign, nobody = (world.ask("PATCH", f"/v1/agents/{a}", {"name": "x"}, **rw) for a in (other, new_agent()))
    assert foreign.status == nobody.status == 404
    for method, target in (("POST", "/v1/agents"), ("DELETE", f"/v1/agents/{mine}"),
                           ("POST", f"/v1/agents/{mine}/restore")):
        assert world.ask(method, target, {"name": "x"}, **rw).status == 403
        assert world.ask(method, target, {"name": "x"}, Authorization="Bearer x").status == 401
    assert world.ask("GET", f"/v1/agents/{other}", **rw).status == 404
    first = world.ask("GET", "/v1/agents/", **rw)
    assert [a["id"] for a in first.json()] == [mine]
    world.ok("PATCH", f"/v1/agents/{mine}", {"name": "again"}, **rw)
    again = world.ask("GET", "/v1/agents/", **{**rw, "If-None-Match": first.headers["etag"]})
    assert again.status == 200 and again.json()[0]["name"] == "again"


# ---- the command ---------------------------------------------------------------------------------

def test_agents_command_makes_lists_deletes_and_restores(world):
    s, chosen = world.server, new_agent()
    assert s.cli("agents", "create", chosen, "--name", "by hand", "--tag", "a", "--tag", "b").stdout.decode() == \
        chosen + "\n"
    assert world.get(chosen)["name"] == "by hand" and set(world.get(chosen)["tags"]) == {GIT, "a", "b"}
    made = json.loads(s.cli("agents", "create", "--json").stdout)
    assert list(made) == AGENT_KEYS
    assert f"{chosen}  " in s.cli("agents", "list").stdout.decode()
    assert json.loads(s.cli("agents", "delete", chosen, "--json").stdout)["message"].startswith("Agent id=")
    assert chosen not in s.cli("agents").stdout.decode()
    assert chosen in s.cli("agents", "list", "--deleted").stdout.decode()
    assert s.cli("agents", "delete", chosen, check=False).returncode == 1
    assert json.loads(s.cli("agents", "restore", chosen, "--json").stdout)["id"] == chosen
    for wrong in (["delete"], ["restore", "agent-1"], ["list", "--name", "x"], ["delete", chosen, "--deleted"],
                  ["nonsense"]):
        assert s.cli("agents", *wrong, check=False).returncode == 2, wrong


def test_agents_command_makes_the_data_folder_of_a_first_agent(folder, memfs_bin):
    home, chosen = folder / "new" / "home", new_agent()
    made = subprocess.run([memfs_bin, "agents", "create", chosen, "--home", home], capture_output=True, timeout=60)
    assert made.stdout.decode() == chosen + "\n" and made.returncode == 0, made
    listed = subprocess.run([memfs_bin, "agents", "--home", home], capture_output=True, timeout=60)
    assert listed.stdout.decode().startswith(chosen + "  ")


def test_agents_command_says_in_words_what_the_server_refuses(world):
    for name, words in (("", b"memfs: name: a name has 1 to 256 bytes\n"),
                        ("a/b", b"memfs: name: a name has letters, digits, blanks, _, - and ' only\n")):
        refused = world.server.cli("agents", "create", "--name", name, check=False)
        assert refused.stdout == b"" and refused.stderr.startswith(words), refused
