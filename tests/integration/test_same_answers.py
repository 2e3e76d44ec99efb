"""Two servers side by side, one over SQLite and one over PostgreSQL: the same pushes, then the same
questions, must bring the same bytes; only times, traces and tags (ETag) may differ.

The questions are every GET route of the route table, with fixed odd ones and random ones from a
seed that is printed (MEMFS_SEED=… asks them again).
"""
import json
import os
import random
import re
import subprocess
import urllib.parse

import pytest

from lib import postgres
from lib.server import Server, new_agent
from lib.writer import Memory

TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
TRACE = re.compile(rb'"trace_id":"[0-9a-f]{32}"')
OWN = ("date", "etag", "x-request-id")     # of one server: that they are there is compared

LONG = "long line ✓ of a large block\n" * 30000        # 900 KiB
WORDS = ["", "a", "tea", "TEA", "Tea", "%", "_", "100%", "1_0", "\\", "\\%", "\\_", "'", '"', ";--", "*",
         "?", "[a]", "é", "É", "e\u0301", "ß", "SS", "İ", "i\u0307", "ı", "Σ", "ς", "日本", "✓", "🙂", "\U00010400",
         "\U00010428", "\u00a0", " ", "\t", "\r", "\n", "\ufffd", "\ufeff", "\x7f", "x" * 300, b"\x00", b"a\x00b",
         b"\xff", b"\xc3", b"\xed\xa0\x80", b"caf\xe9", "system/", "human", "system/human", "notes/100%",
         "line", "block", "None", "null", "true", "0"]
NUMBERS = ["0", "1", "2", "3", "7", "50", "100", "1000", "-1", "-9223372036854775808",
           "9223372036854775807", "9223372036854775808", "1.0", "1e3", "", "x", " 1", "+1", "٣"]
BOOLS = ["true", "false", "True", "1", "0", "yes", "off", "", "maybe"]
TAGS = ["git-memory-enabled", "one", "two", "three", "Größe", "a,b", "", "%", "one\x00", "One"]


def histories():
    """What is pushed, one agent after the other: lists of changes, one a push."""
    text = "---\ndescription: {0}\nlimit: {1}\n---\n{0} likes tea.\n".format
    yield [  # front matter of all kinds
        {"system/human.md": text("Ada", 5000), "system/persona.md": "---\ndescription: \"é ✓ \\\\ \\\"\"\n---\nI.\n",
         "ro.md": "---\nread_only: true\n---\nlocked", "hidden.md": "---\nhidden: true\ntags: [one, two]\n---\nh",
         "meta.md": "---\nmetadata:\n  z: [1, 2.5, null, {a: ü}]\n  a: 12345678901234567890\n---\nm",
         "bad.md": "---\n: [\n---\nv", "open.md": "---\nnever closed", "scalar.md": "---\njust\n---\nx",
         "yes.md": "---\nread_only: yes\nlimit: 1:30\ndescription: 7\n---\n", "dup.md": "---\na: 1\na: 2\n---\nd",
         "limits.md": "---\nlimit: -5\n---\n", "huge.md": "---\nlimit: 99999999999999999999\n---\n"},
        {"system/human.md": text("Ada Lovelace", 1), "ro.md": None},
        {"ro.md": "again", "notes/ro.md": "moved"}]
    yield [  # bytes of all kinds
        {"nul.md": b"a\x00b", "nuls.md": b"\x00" * 50, "latin.md": b"caf\xe9", "half.md": b"\xe2\x9c",
         "surrogate.md": b"\xed\xa0\x80", "bom.md": b"\xef\xbb\xbf---\ndescription: x\n---\n", "crlf.md": "a\r\nb\r\n",
         "cr.md": "a\rb", "empty.md": "", "newline.md": "\n", "quote.md": "' \" \\ \\x00 \\u0000 $1 :a ?",
         "control.md": bytes(range(1, 32)), "del.md": "\x7f\u0080\u2028\u2029", "emoji.md": "🙂" * 40,
         "meta-nul.md": b"---\ndescription: \"\\0x\"\nmetadata: {\"k\\0\": \"\\0\"}\n---\n\x00"},
        {"latin.md": "now well\n", "nul.md": b"\x00", "picture.bin": b"\x00\x01"},
        {"nuls.md": None, "empty.md": None, "crlf.md": None}]
    yield [  # names of all kinds
        {"notes/100%.md": "percent", "notes/1_0.md": "underline", "Größe/ß.md": "sharp", "日本/語.md": "x",
         "İ.md": "dotted", "Σς.md": "sigma", "🙂.md": "smile", "\U00010400.md": "deseret",
         "a b/c d.md": "blank", "a'b.md": "quote", 'a"b.md': "quotes", "a;b.md": "semi", "a&b=c?d#e.md": "url",
         "skills/brew/SKILL.md": "---\nname: brew\ndescription: How\n---\nBoil.", "skills/brew/x.md": "none",
         "deep/" * 20 + "x.md": "deep", "l" * 200 + ".md": "long name", ".md": "no name", "x.MD": "not one"},
        {"notes/100%.md": None, "notes/200%.md": "percent", "x y.md": "z"},
        {"notes/100%.md": "it is back"}]
    yield [  # sizes
        {"long.md": LONG, "limit.md": "x" * (1 << 20), "over.md": "y" * ((1 << 20) + 1),
         "system/human.md": text("Bob", 100)},
        {"long.md": LONG + "more\n", "over.md": "small now"}]
    yield [{f"n/{i:03d}.md": text(f"note {i}", i) for i in range(130)},      # many
           {f"n/{i:03d}.md": None for i in range(0, 130, 3)},
           {f"n/{i:03d}.md": f"again {i}" for i in range(0, 130, 6)}]
    yield [{"only.md": "x"}, {"only.md": None}]                               # none left
    yield []                                                                  # never pushed


class Pair:
    def __init__(self, lite, pg):
        self.both = (lite, pg)
        self.agents, self.known = [], []
        self.seen = {}

    def push_all(self):
        for history in histories():
            agent = new_agent()
            self.agents.append(agent)
            for server in self.both:
                memory = Memory(server, agent)
                for changes in history:
                    memory.must_push(changes)
                memory.close()

    def name_all(self):
        """Names and tags, which no push can say."""
        for server in self.both:
            server.stop()
            for i, agent in enumerate(self.agents[:5]):
                server.name_agent(agent, ["Ada", "ada 100%", "Bob_1", "Größe", "日本"][i],
                                  [["one", "two"], ["two"], [], ["Größe", "one", "three"], ["a,b"]][i])
            server.start()
            for i, tags in enumerate((["block tag", "ÄRGER"], ["one", "日本", "block tag"])):
                block = f"/v1/agents/{self.agents[0]}/core-memory/blocks/{['hidden', 'meta'][i]}"
                assert server.request("PATCH", block, json.dumps({"tags": tags})).status == 200

    def ask(self, target, method="GET", headers=None):
        """The answer, after both were found to be the same."""
        lite, pg = (s.request(method, target, headers=headers) for s in self.both)
        assert (lite.status, heads(lite)) == (pg.status, heads(pg)), (target, lite, pg)
        a, b = plain(lite.body), plain(pg.body)
        assert a == b, (target, first_difference(a, b))
        self.seen[target] = lite.status
        return lite

    def close(self):
        for server in self.both:
            server.stop()
            server.check_clean()


def heads(answer):
    return sorted((k, "" if k in OWN else v) for k, v in answer.headers.items())


def plain(body):
    return TRACE.sub(b'"trace_id":""', TIME.sub(b"TIME", body))


def first_difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return at, a[max(0, at - 200):at + 200], b[max(0, at - 200):at + 200]


def quote(value):
    return urllib.parse.quote(value if isinstance(value, bytes) else value.encode("utf-8"), safe="")


def target_of(path, query):
    return path + ("?" + "&".join(f"{k}={quote(v)}" for k, v in query) if query else "")


@pytest.fixture(scope="module")
def pair(memfs_bin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    folder.chmod(0o755)
    for parent in folder.parents[:2]:       # the database's user must reach its folder
        parent.chmod(0o755)
    own = None if postgres.SHARED else postgres.Postgres(folder / "pg")
    lite = Server(memfs_bin, folder / "lite", env={"MEMFS_DATABASE": ""})
    pg = Server(memfs_bin, folder / "postgres",
                env={"MEMFS_DATABASE": own.database("same")} if own else {})
    try:
        p = Pair(lite.start(), pg.start())
        p.push_all()
        p.name_all()
        rows = p.ask("/v1/blocks/?limit=0&show_hidden_blocks=true").json()
        assert len(rows) > 150
        p.known = rows
        yield p
        p.close()
    finally:
        lite.kill()
        pg.kill()
        if own:
            own.close()


# -- searches --------------------------------------------------------------------------------------

SEARCHES = [*(w for w in WORDS if w), "ada", "tea ada", '"likes tea"', '"tea likes"', "no*", "note*", "n* again",
            "größe", "GROSSE", "日", "語", "locked", "moved again", "x", "back*", "nothinglikethis", "1 2 3", "_1"]


@pytest.mark.parametrize("where", ["current", "history"])
def test_searches_find_the_same_in_the_same_order(pair, where):
    n_found = 0
    for text in SEARCHES:
        for more in ("", f"&agent={pair.agents[0]}", f"&agent={pair.agents[2]}&show_hidden_blocks=true",
                     "&path=notes&limit=3"):
            answer = pair.ask(f"/v1/search?in={where}&limit=100&q={quote(text)}".replace(
                "limit=100&", "" if "limit" in more else "limit=100&") + more)
            if answer.status == 200:
                n_found += len(answer.json()["results"])
    assert n_found > (200 if where == "current" else 20), n_found


# -- fixed questions -------------------------------------------------------------------------------

def test_every_get_route_with_its_plain_form(pair, memfs_bin):
    table = subprocess.run([memfs_bin, "debug", "routes"], capture_output=True, text=True, check=True).stdout
    patterns = [line.split("\t")[1] for line in table.splitlines() if line.startswith("GET\t")]
    assert len(patterns) > 12
    git = "?service=git-upload-pack"
    for pattern in patterns:
        for agent in [*pair.agents, new_agent(), "agent-7", "x"]:
            labels = [r["label"] for r in pair.known[:6]] if "{label...}" in pattern else [""]
            ids = [r["id"] for r in pair.known[:6]] + ["block-7"] if "{id}" in pattern else [""]
            for label in labels:
                for block in ids:
                    path = pattern.replace("{agent}", agent).replace("{label...}", quote(label)).replace(
                        "{id}", block)
                    pair.ask(path + (git if path.endswith("/info/refs") else ""))
            if "{agent}" not in pattern:
                break


def test_every_block_by_label_and_by_id(pair):
    for agent in pair.agents[:6]:
        for row in pair.ask(f"/v1/agents/{agent}/core-memory/blocks?limit=0").json():
            one = pair.ask(f"/v1/agents/{agent}/core-memory/blocks/{quote(row['label'])}")
            assert one.status == 200 and one.json() == row
            assert pair.ask(f"/v1/blocks/{row['id']}").json() == row
    for row in pair.known[::10]:
        assert len(pair.ask(f"/v1/blocks/{row['id']}/agents").json()) == 1


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 7, 50])
def test_paging_through_all_of_it(pair, order, limit):
    rooms = ["/v1/blocks/?show_hidden_blocks=true&", "/v1/agents/?",
             "/v1/blocks/?connected_to_agents_count_gt=0&show_hidden_blocks=true&",
             f"/v1/agents/{pair.agents[4]}/core-memory/blocks?"]
    for room in rooms:
        whole = [r["id"] for r in pair.ask(f"{room}order={order}&limit=0").json()]
        seen, after = [], ""
        while True:
            page = pair.ask(f"{room}order={order}&limit={limit}&after={after}").json()
            seen += [r["id"] for r in page]
            if not page:
                break
            after = page[-1]["id"]
        assert seen == whole and len(whole) > 5, room
        for cursor in whole[::9]:
            pair.ask(f"{room}order={order}&limit={limit}&before={cursor}")


@pytest.mark.parametrize("key", ["label", "label_search", "description_search", "value_search", "name", "tags",
                                 "before", "after", "project_id"])
def test_every_word_in_every_filter_of_blocks(pair, key):
    met = set()
    for word in WORDS:
        for more in ("", "&show_hidden_blocks=true&order=desc"):
            answer = pair.ask(target_of("/v1/blocks/", [(key, word)]) + more)
            met.add(len(answer.json()) if answer.status == 200 else None)
        pair.ask(target_of("/v1/blocks/count", [(key, word)]))
    assert len(met) > 1 or key in ("name", "project_id", "tags"), met


@pytest.mark.parametrize("key", ["name", "query_text", "tags", "before", "after"])
def test_every_word_in_every_filter_of_agents(pair, key):
    for word in WORDS + TAGS + ["Ada", "ada", "ADA", "GRÖSSE", "größe", "Größe", "bob_", "Bob_1", "日"]:
        for path in ("/v1/agents/", "/v1/agents/count"):
            pair.ask(target_of(path, [(key, word)]))


def test_tags_of_agents_any_and_all(pair):
    counts = set()
    for one in TAGS:
        for two in TAGS:
            for match in BOOLS[:2]:
                query = [("tags", one), ("tags", two), ("match_all_tags", match)]
                answer = pair.ask(target_of("/v1/agents/count", query))
                counts.add(answer.body)
                pair.ask(target_of("/v1/agents/", query + [("include", "agent.tags")]))
    assert {b"0", b"1", b"2"} <= counts


@pytest.mark.parametrize("key", ["name", "query_text", "before", "after"])
def test_every_word_in_every_filter_of_the_tags(pair, key):
    met = set()
    for text in WORDS + TAGS:
        for more in ("", "&order=desc", "&limit=2", "&limit=0&order=desc&name=e"):
            answer = pair.ask(target_of("/v1/tags", [(key, text)]) + more)
            met.add(answer.body if answer.status == 200 else None)
    assert len(met) > 4, met


def test_paging_through_all_tags(pair):
    whole = pair.ask("/v1/tags/?limit=0").json()
    assert whole == sorted(whole) == sorted({*whole}) and {"git-memory-enabled", "Größe", "one", "block tag"} <= {*whole}
    for order in ("asc", "desc"):
        seen, page = [], pair.ask(f"/v1/tags/?limit=2&order={order}").json()
        while page:
            seen += page
            page = pair.ask(target_of("/v1/tags/", [("limit", "2"), ("order", order), ("after", page[-1])])).json()
        assert seen == (whole if order == "asc" else whole[::-1])


def test_sync_from_git(pair):
    for agent in [*pair.agents, new_agent()]:
        pair.ask(f"/v1/agents/{agent}/memory/sync-from-git", "POST")
        pair.ask(f"/v1/agents/{agent}/memory/sync-from-git?recompile=auto", "POST")


def test_the_past_of_a_memory(pair):
    *pushed, never = pair.agents
    assert pair.ask(f"/v1/agents/{never}/memory/history").status == 404
    for agent in pushed:
        base = f"/v1/agents/{agent}/memory"
        rows = pair.ask(f"{base}/history?limit=0").json()
        assert len(rows) > 1
        for row in rows[:4]:
            for path in row["files_changed"][:4]:
                pair.ask(target_of(f"{base}/history", [("path", path)]))
            pair.ask(f"{base}/diff?to={row['sha']}")
            pair.ask(f"{base}/at/{row['sha']}/blocks")


# -- random questions ------------------------------------------------------------------------------

def some(rng, rows):
    return [(k, rng.choice(values)) for k, values in rows if rng.random() < 0.25]


def random_question(rng, pair):
    ids = [r["id"] for r in pair.known] + ["", "a", "z", "block-0", "block-" + "f" * 36]
    labels = [r["label"] for r in pair.known]
    agents = [*pair.agents, new_agent(), "agent-7", ""]
    orders = ["asc", "desc", "", "up"]
    page = [("limit", NUMBERS), ("order", orders), ("order_by", ["created_at", "updated_at", "id", ""])]
    blocks = [("label", WORDS + labels), ("label_search", WORDS), ("description_search", WORDS),
              ("value_search", WORDS), ("tags", TAGS), ("tags", TAGS), ("match_all_tags", BOOLS),
              ("templates_only", BOOLS), ("name", WORDS), ("project_id", WORDS), ("identity_id", WORDS),
              ("connected_to_agents_count_gt", NUMBERS), ("connected_to_agents_count_lt", NUMBERS),
              ("connected_to_agents_count_eq", NUMBERS), ("show_hidden_blocks", BOOLS)]
    many = [("name", WORDS + ["Ada", "Größe"]), ("query_text", WORDS), ("tags", TAGS), ("tags", TAGS),
            ("match_all_tags", BOOLS), ("include", ["agent.blocks", "agent.tags", "agent.x"]),
            ("include_relationships", ["memory", "tags", ""]), ("show_hidden_agents", BOOLS),
            ("identity_id", WORDS), ("project_id", WORDS)]
    agent = rng.choice(agents)
    path, keys = rng.choice([
        ("/v1/blocks/", blocks + page + [("before", ids), ("after", ids)]),
        ("/v1/blocks/count", blocks), ("/v1/agents/count", many),
        ("/v1/tags", [("name", WORDS), ("query_text", WORDS), ("before", TAGS), ("after", TAGS)] + page),
        ("/v1/agents/", many + page + [("before", agents), ("after", agents)]),
        (f"/v1/agents/{agent}", many),
        (f"/v1/agents/{agent}/core-memory", page),
        (f"/v1/agents/{agent}/core-memory/blocks", page + [("before", ids), ("after", ids)]),
        (f"/v1/agents/{agent}/core-memory/blocks/{quote(rng.choice(WORDS + labels))}", []),
        (f"/v1/blocks/{quote(rng.choice(ids))}", []),
        (f"/v1/blocks/{quote(rng.choice(ids))}/agents", many[5:7] + page)])
    return target_of(path, some(rng, keys))


def test_random_questions(pair, scale):
    seed = int(os.environ.get("MEMFS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"MEMFS_SEED={seed}")
    rng = random.Random(seed)
    sdk = [{}, {"User-Agent": "curl/8.0"}, {"User-Agent": "letta-client/1.0"}]
    statuses = [pair.ask(random_question(rng, pair), headers=rng.choice(sdk)).status
                for _ in range(scale(1500, 50000))]
    assert {200, 404, 422} <= set(statuses) and statuses.count(200) > len(statuses) / 5
    assert not {500, 501, 502, 503} & set(statuses), statuses
