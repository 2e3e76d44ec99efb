"""Tables mode with a real, unpatched Letta server (0.16.7) on its own database: what is pushed is
seen through its API, what its API changes is seen in git, and its own writers meet ours."""
import threading
import time

import pytest

from lib import letta as real
from lib import postgres
from lib.lettatables import SCHEMA, LettaTables
from lib.writer import Memory

from test_tables import eventually, file_at, front, memory, refresh

pytestmark = pytest.mark.lettaserver


@pytest.fixture
def letta(plain_letta):
    return plain_letta


@pytest.fixture
def serving(letta, servers):
    return servers(env={"MEMFS_LETTA_DATABASE": letta.database})


def git_agent(letta, blocks=()):
    """An agent with the tag.  A server whose own git mode is off drops it at creation."""
    agent = letta.create_agent(dict(blocks))
    letta.enable_git(agent)
    return agent


def tip_of(letta, agent):
    found = letta.sql(f"SELECT encode(tip, 'hex') FROM memfs_letta.tips WHERE agent_id = '{agent}'")
    return found[0][0] if found else None


TABLES = ("organizations", "users", "agents", "agents_tags", "block", "block_history", "blocks_agents",
          "blocks_tags")


def shape(url):
    """Columns and constraints of the tables that memfs meets."""
    names = ", ".join(f"'{t}'" for t in TABLES)
    columns = postgres.sql(url, "SELECT table_name, column_name, data_type, is_nullable, column_default"
                                f" FROM information_schema.columns WHERE table_schema = 'public' AND "
                                f"table_name IN ({names}) ORDER BY 1, 2")
    keys = postgres.sql(url, "SELECT c.relname, pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN "
                             "pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = "
                             f"c.relnamespace WHERE n.nspname = 'public' AND c.relname IN ({names}) "
                             "ORDER BY 1, 2")
    return columns, keys


class Beside:
    """Makes databases in the PostgreSQL server of this Letta server."""

    def __init__(self, letta):
        self.letta = letta

    def database(self, name):
        self.letta.sql(f"DROP DATABASE IF EXISTS {name}")
        self.letta.sql(f"CREATE DATABASE {name}")
        return real.other_database(self.letta.database, name)


def test_the_schema_of_the_other_tests_is_that_of_the_real_one(letta):
    ours, theirs = shape(LettaTables(Beside(letta), "shape").url), shape(letta.database)
    assert ours == theirs


def test_a_push_is_seen_through_lettas_api_and_its_edit_in_git(letta, serving):
    agent = git_agent(letta, {"human": {"value": "Likes tea.", "limit": 4000}})
    had = set(letta.blocks(agent))
    m = memory(serving, agent)
    m.push({"system/persona.md": front("I am Ada.\n", description="Who I am"), "notes/a.md": "a\n"})
    rows = letta.blocks(agent)
    assert {"system/persona", "notes/a"} <= set(rows) and had <= set(rows)
    assert (rows["system/persona"]["value"], rows["system/persona"]["description"]) == \
        ("I am Ada.\n", "Who I am")
    assert rows["system/persona"]["id"] == serving.value_id(agent, "system/persona")

    # what only Letta had is a file by now, as the agent has git memory on
    (human,) = had
    assert eventually(lambda: file_at(serving, agent, human + ".md") is not None)
    assert "Likes tea." in file_at(serving, agent, human + ".md")
    assert letta.blocks(agent)[human]["limit"] == rows[human]["limit"]

    letta.patch_block(rows["system/persona"]["id"], value="I am Ada, edited.\n")
    assert eventually(lambda: file_at(serving, agent, "system/persona.md") ==
                      front("I am Ada, edited.\n", description="Who I am"))
    assert eventually(lambda: tip_of(letta, agent) == serving.tip(agent))

    refresh(m)
    m.must_push({"system/persona.md": None, "notes/a.md": None, "notes/b.md": "a\n"})
    assert set(letta.blocks(agent)) == {human, "notes/b"}


def test_a_new_block_and_a_detached_one_through_lettas_api(letta, serving):
    agent = git_agent(letta)
    m = memory(serving, agent)
    m.push({"a.md": "a\n", "b.md": "b\n"})
    made = letta.create_block("from/letta", "made there\n", agent, description="by the API")
    assert eventually(lambda: file_at(serving, agent, "from/letta.md") ==
                      front("made there\n", description="by the API"))
    gone = letta.blocks(agent)["a"]["id"]
    letta.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/detach/{gone}")
    assert eventually(lambda: file_at(serving, agent, "a.md") is None)
    assert eventually(lambda: tip_of(letta, agent) == serving.tip(agent))
    assert letta.blocks(agent)["from/letta"]["id"] == made


def test_a_shared_block_is_one_row_and_two_files(letta, serving):
    one, two = git_agent(letta), git_agent(letta)
    m1, m2 = memory(serving, one), memory(serving, two)
    m1.push({"shared.md": "v1\n"})
    m2.push({"own.md": "x\n"})
    shared = letta.blocks(one)["shared"]["id"]
    letta.ask("PATCH", f"/v1/agents/{two}/core-memory/blocks/attach/{shared}")
    assert eventually(lambda: "v1\n" in (file_at(serving, two, "shared.md") or ""))
    letta.patch_block(shared, value="v2 by the API\n")
    assert eventually(lambda: all("v2 by the API\n" in file_at(serving, a, "shared.md")
                                  for a in (one, two)))
    refresh(m1)
    m1.push({"shared.md": None})
    assert "shared" not in letta.blocks(one)
    assert letta.values(two)["shared"] == "v2 by the API\n"


def test_H2_lettas_own_writers_and_pushes_lose_nothing(letta, serving):
    """Four that push one block and four that PATCH one each, which is answered 200, or 409 when we
    were first.  The API has no condition of its own, so each has a block for itself."""
    agent = letta.create_agent({})
    memory(serving, agent).push({"shared.md": "begin\n\n",
                                 **{f"own-{n}.md": "begin\n" for n in range(4)}})
    ids = {label: row["id"] for label, row in letta.blocks(agent).items()}
    stopping, said, last, failures = threading.Event(), set(), {}, []

    def push(n):
        m, i = Memory(serving, agent, timeout=120), 0
        while not stopping.is_set():
            refresh(m)
            i += 1
            line = f"git {n} {i}"
            own = f"own-{n}.md"         # its front matter, while Letta changes its value
            files = {"shared.md": m.files["shared.md"].decode() + line + "\n\n",
                     own: front(m.files[own].decode().split("---\n")[-1], description=line)}
            if m.push(files).acked:
                said.add(line)

    def patch(n):
        i = 0
        while not stopping.is_set():
            i += 1
            value = f"Letta's {i}\n"
            answer = letta.request("PATCH", f"/v1/blocks/{ids[f'own-{n}']}", {"value": value})
            assert answer.status in (200, 409), answer
            if answer.status == 200:
                last[n] = value
            time.sleep(0.2)

    def guard(fn, n):
        try:
            fn(n)
        except Exception as e:          # noqa: BLE001 - told below
            failures.append(e)

    threads = [threading.Thread(target=guard, args=(fn, n)) for n in range(4) for fn in (push, patch)]
    for t in threads:
        t.start()
    time.sleep(10)
    stopping.set()
    for t in threads:
        t.join(120)
    assert not failures, failures
    assert eventually(lambda: tip_of(letta, agent) == serving.tip(agent) and
                      all(value == body(file_at(serving, agent, label + ".md"))
                          for label, value in letta.values(agent).items()))
    assert said <= set(file_at(serving, agent, "shared.md").split("\n"))
    assert len(last) == 4
    for n, value in last.items():
        assert value in file_at(serving, agent, f"own-{n}.md"), (n, value)


def body(text):
    return text.split("---\n")[-1]
