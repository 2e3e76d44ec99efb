"""Search over REST and on the command line: what is there, and what was deleted (docs/http-api.md)."""
import json
import urllib.parse

import pytest

from lib.server import Server, new_agent
from lib.writer import Memory


@pytest.fixture(scope="module")
def world(memfs_bin, tmp_path_factory):
    """One server for all: Ada's memory, and Bob's."""
    server = Server(memfs_bin, tmp_path_factory.mktemp("search")).start()
    w = World(server)
    yield w
    w.ada_memory.close()
    w.bob_memory.close()
    server.rewrites_allowed = True      # the purge
    server.stop()
    server.check_clean()


class World:
    def __init__(self, server):
        self.server, self.ada, self.bob = server, new_agent(), new_agent()
        self.ada_memory, self.bob_memory = Memory(server, self.ada), Memory(server, self.bob)
        self.ada_memory.must_push({
            "system/human.md": "---\ndescription: About the user\n---\nLikes green tea.\nLives in Größenau.\n",
            "notes/tea.md": "Tea, tea and tea.\n", "notes/deep/milk.md": "Milk goes with tea.\n",
            "other.md": "x\n" * 50 + "A teapot stands here; it is green.\n"})
        self.bob_memory.must_push({"system/human.md": "Likes coffee, not tea.\n",
                                   "hidden.md": "---\nhidden: true\n---\nhidden tea\n"})

    def ask(self, q, status=200, headers=None, **more):
        query = urllib.parse.urlencode({"q": q, **more})
        answer = self.server.get(f"/v1/search?{query}", headers=headers)
        assert answer.status == status, answer
        return answer.json()

    def hits(self, q, **more):
        return self.ask(q, **more)["results"]

    def paths(self, q, **more):
        return [hit["path"] for hit in self.hits(q, **more)]


def test_words_are_found_the_best_first(world):
    # label and many times; once in a short text; once in a longer one
    assert world.paths("tea", agent=world.ada) == ["notes/tea.md", "notes/deep/milk.md",
                                                   "system/human.md"]
    assert sorted(world.paths("TEA green", agent=world.ada)) == ["system/human.md"]
    assert world.paths("grossenau") == ["system/human.md"]
    assert world.paths("tea nothinglikethis") == []
    scores = [hit["score"] for hit in world.hits("tea")]
    assert scores == sorted(scores, reverse=True) and len(scores) >= 4


def test_phrases_and_beginnings(world):
    assert world.paths('"green tea"') == ["system/human.md"]
    assert world.paths('"tea green"') == []
    assert world.paths("teap*") == ["other.md"]
    assert "other.md" in world.paths("tea*", agent=world.ada)
    assert world.paths("about user", agent=world.ada) == ["system/human.md"]        # the description


def test_a_hit_has_every_field_and_its_bytes(world):
    (hit,) = world.hits("teapot green", agent=world.ada)
    block = world.server.blocks(world.ada)["other"]
    assert list(hit) == ["agent_id", "path", "label", "block_id", "score", "field", "snippet", "snippet_start",
                         "matches", "blob", "commit", "gone_by", "created_at"]
    assert (hit["agent_id"], hit["path"], hit["label"]) == (world.ada, "other.md", "other")
    assert hit["block_id"] == block["id"] and hit["field"] == "value"
    assert hit["commit"] is None and hit["gone_by"] is None
    value = block["value"].encode()
    start = hit["snippet_start"]
    assert value[start:start + len(hit["snippet"].encode())] == hit["snippet"].encode()
    assert [value[m["start"]:m["end"]] for m in hit["matches"]] == [b"teapot", b"green"]
    assert len(hit["snippet"]) < 250


def test_a_path_is_a_file_or_a_folder_and_limits_hold(world):
    assert world.paths("tea", path="notes") == ["notes/tea.md", "notes/deep/milk.md"]
    assert world.paths("tea", path="/notes/deep/") == ["notes/deep/milk.md"]
    assert world.paths("tea", path="notes/tea.md") == ["notes/tea.md"]
    assert world.paths("tea", path="note") == []
    assert len(world.hits("tea", limit=1)) == 1
    assert world.ask("tea")["is_partial"] is False


def test_hidden_blocks_are_found_when_asked_for(world):
    world.server.stop()
    met = world.server.change_rows(
        "cache.db", "UPDATE blocks SET hidden = 1 WHERE label = 'hidden'",
        "UPDATE blocks SET hidden = true WHERE label = 'hidden'")
    world.server.start()
    assert met == 1
    try:
        assert world.paths("hidden") == []
        assert world.paths("hidden", show_hidden_blocks="true") == ["hidden.md"]
    finally:
        world.server.cli("rebuild", "--agent", world.bob)


@pytest.mark.parametrize("q", ['"', "*", "tea AND", "NEAR(tea", "tea' & 'x':*", "'; DROP TABLE blocks; --",
                               "\\", "tea | !x", "a:b", "(tea", "\x01tea", "é\u0301", "tea" * 300])
def test_T26_no_text_is_an_error_of_syntax(world, q):
    answer = world.server.get("/v1/search?" + urllib.parse.urlencode({"q": q}))
    assert answer.status == 200 or "no word" in answer.json()["detail"], (q, answer)
    assert answer.status in (200, 400)


def test_bad_parameters_are_named(world):
    assert "no word" in world.server.get("/v1/search").json()["detail"]
    assert world.server.get("/v1/search").status == 400
    assert "at most 32" in world.ask("a " * 33, status=400)["detail"]
    for bad in ({"agent": "agent-1"}, {"limit": "-1"}, {"in": "future"}, {"show_hidden_blocks": "maybe"}):
        assert world.ask("tea", status=422, **bad)["detail"].startswith("[{")
    unknown = new_agent()
    for where in ("current", "history"):
        assert world.ask("tea", status=404, agent=unknown, **{"in": where}) == {
            "detail": f"Agent with ID {unknown} not found"}


def test_5th_conviction_a_push_is_found_when_it_returns(world):
    for i in range(5):
        world.bob_memory.must_push({"system/human.md": f"Likes drink{i}.\n"})
        assert world.paths(f"drink{i}") == ["system/human.md"]
        assert world.paths("drink*") == ["system/human.md"]


def test_deleted_text_is_found_with_who_had_it_and_who_took_it(world):
    memory = world.ada_memory
    before = memory.tip
    memory.must_push({"diary.md": "# Diary\nMet Zebedee in Rome.\nAte well.\n"})
    had = memory.tip
    assert world.paths("zebedee", **{"in": "history"}) == []      # it is there still
    memory.must_push({"notes/tea.md": "Tea and more.\n"})
    memory.must_push({"diary.md": "# Diary\nAte well.\n"})
    gone = memory.tip
    (hit,) = world.hits('"zebedee in rome"', **{"in": "history"})
    assert (hit["agent_id"], hit["path"], hit["field"]) == (world.ada, "diary.md", "file")
    assert (hit["commit"], hit["gone_by"]) == (had, gone) and had != before
    assert hit["label"] is None and hit["block_id"] is None and hit["created_at"] is None
    text = world.server.git_dir(world.ada, "cat-file", "blob", hit["blob"]).stdout
    assert [text[m["start"]:m["end"]].lower() for m in hit["matches"]] == [b"zebedee in rome"]
    assert hit["snippet"] == "Met Zebedee in Rome.\n"
    assert world.paths("ate well", **{"in": "history"}) == []     # those lines stayed
    assert world.paths("zebedee") == []
    memory.must_push({"diary.md": None})
    assert world.paths("ate well", agent=world.ada, path="diary.md", **{"in": "history"}) == ["diary.md"]
    assert world.paths("ate well", agent=world.bob, **{"in": "history"}) == []
    memory.must_push({"diary.md": "Ate well.\n"})                  # it came back: not gone
    assert world.paths("ate well", **{"in": "history"}) == []
    assert world.paths("zebe*", **{"in": "history"}) == ["diary.md"]


def test_K1_the_index_of_history_goes_on_with_the_blocks(world):
    server = world.server
    memory = Memory(server, new_agent())
    memory.must_push({"a.md": "one\n", "b.md": "x\n"})
    first = memory.must_push({"a.md": "two\n"})
    agent, other = memory.agent, Memory(server, new_agent())
    assert server.past(agent) == (first, None), "nobody asked for it"
    assert world.paths("one", agent=agent, **{"in": "history"}) == ["a.md"]
    assert server.past(agent) == (first, first)

    def ask(method, below, body):
        answer = server.request(method, f"/v1/agents/{agent}/{below}", json.dumps(body).encode())
        assert answer.status == 200, answer

    def push():
        memory.must_push({"a.md": "three\n", "new.md": "new\n"})

    for change in (
            push,
            lambda: ask("PATCH", "core-memory/blocks/a", {"value": "four\n"}),
            lambda: ask("POST", "memory/commit", {"changes": [{"path": "a.md", "content": "five\n"},
                                                              {"path": "b.md", "content": None}]}),
            lambda: ask("POST", "memory/revert", {"commit": first})):
        change()
        main = server.tip(agent)
        assert server.past(agent) == (main, main)
    assert [v[0] for v in server.versions(agent)] == ["a.md", "b.md", "a.md", "a.md", "new.md", "a.md",
                                                      "a.md", "b.md", "a.md", "b.md", "new.md"]
    before = server.versions(agent)
    assert world.paths("five", agent=agent, **{"in": "history"}) == ["a.md"]
    server.stop()
    server.start()
    assert server.versions(agent) == before
    memory.tip, memory.files = server.tip(agent), {"a.md": b"two\n", "b.md": b"x\n"}
    main = memory.must_push({"a.md": "six\n"})
    assert server.past(agent) == (main, main)

    other.must_push({"a.md": "one\n"})
    other.must_push({"a.md": "two\n"})
    assert server.past(other.agent) == (other.tip, None) and server.versions(other.agent) == []
    server.cli("rebuild", "--agent", agent)     # rows made anew: nobody has asked yet
    assert server.past(agent) == (main, None) and server.versions(agent) == []
    memory.close()
    other.close()


def test_D5_a_cache_that_was_lost_finds_the_same(world):
    questions = [{"q": "tea"}, {"q": "tea*", "agent": world.ada}, {"q": "zebedee", "in": "history"},
                 {"q": "drink1", "in": "history"}]
    before = [world.ask(**q) for q in questions]
    world.server.stop()
    world.server.lose_blocks()
    world.server.start()
    world.server.cli("rebuild")
    assert [world.ask(**q) for q in questions] == before
    assert before[2]["results"] and before[3]["results"]


def test_T28_a_purge_takes_a_secret_out_of_both(world):
    secret = "Xsecretx77"
    memory = Memory(world.server, new_agent())
    memory.must_push({"a.md": f"the key is {secret}\n", "b.md": f"{secret} too\n"})
    memory.must_push({"b.md": "nothing\n"})
    assert sorted(world.paths(secret, agent=memory.agent)) == ["a.md"]
    assert world.paths(secret, **{"in": "history"}) == ["b.md"]
    world.server.rewrites_allowed = True
    world.server.cli("purge", "--agent", memory.agent, "--secret-stdin", input=secret.encode() + b"\n")
    assert world.paths(secret) == [] and world.paths(secret, **{"in": "history"}) == []
    for name in ("cache.db", "cache.db-wal"):
        try:
            with open(f"{world.server.home}/{name}", "rb") as f:
                assert secret.lower().encode() not in f.read().lower()
        except FileNotFoundError:
            pass
    memory.close()


def test_the_command_line_says_the_same(world):
    answer = json.loads(world.server.cli("search", "--json", "green", "tea").stdout)
    assert answer == world.ask("green tea")
    text = world.server.cli("search", '"green tea"').stdout.decode()
    assert f"{world.ada}  system/human.md\n    Likes green tea. Lives in Größenau.\n" in text
    text = world.server.cli("search", "--history", "zebedee", "--agent", world.ada).stdout.decode()
    assert "until" in text and "gone with" in text and "Met Zebedee in Rome." in text
    nothing = world.server.cli("search", "nothinglikethis")
    assert nothing.stdout == b"" and b"nothing was found" in nothing.stderr
    assert world.server.cli("search", check=False).returncode == 2
    assert world.server.cli("search", "***", check=False).stderr == \
        b"memfs: there is no word to search for: give letters or digits\n"
    assert world.server.cli("search", "tea", "--agent", new_agent(), check=False).returncode == 1
    for command in (["search", "tea"], ["blocks", "list"]):
        for bad in ("", "ada", "agent-1"):
            answer = world.server.cli(*command, "--agent", bad, check=False)
            assert answer.returncode == 2, answer
            assert b"--agent needs the id of an agent" in answer.stderr or bad == "", answer


def test_a_block_of_nobody_is_found_and_names_no_agent(world):
    block = json.loads(world.server.request("POST", "/v1/blocks", body=json.dumps(
        {"label": "notes/whale", "value": "A drifting whale."}).encode()).body)
    (hit,) = world.hits("whale")
    assert (hit["agent_id"], hit["path"], hit["block_id"], hit["label"]) == (
        None, None, block["id"], "notes/whale")
    text = world.server.cli("search", "whale").stdout.decode()
    assert text.startswith(f"{block['id']}  notes/whale  attached to nobody\n")


# The last one: from here on requests need tokens.

def test_S1_a_token_of_an_agent_searches_its_own_memory(world):
    server = world.server
    admin = {"Authorization": "Bearer " + server.token("admin")["token"]}
    ada = {"Authorization": "Bearer " + server.token(f"agent:{world.ada}:ro")["token"]}
    empty = new_agent()
    new = {"Authorization": "Bearer " + server.token(f"agent:{empty}:rw")["token"]}
    everything = world.hits("tea*", headers=admin, limit=0)
    assert {hit["agent_id"] for hit in world.hits("likes", headers=admin)} == {world.ada, world.bob}
    assert {hit["agent_id"] for hit in world.hits("likes", headers=ada)} == {world.ada}
    assert [h for h in everything if h["agent_id"] == world.ada] == world.hits("tea*", headers=ada)
    assert world.hits("drink1", headers=ada, **{"in": "history"}) == []
    assert world.hits("tea", headers=new) == [] == world.hits("tea", headers=new, **{"in": "history"})
    for where in ("current", "history"):
        for foreign in (world.bob, empty):
            assert world.ask("tea", status=404, headers=ada, agent=foreign, **{"in": where}) == {
                "detail": f"Agent with ID {foreign} not found"}
    assert server.get("/v1/search?q=tea").status == 401
