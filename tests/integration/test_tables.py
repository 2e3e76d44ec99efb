"""Tables mode: a Letta server's own tables and git as two keepers of one memory (design 9; H2, K1,
K3, K7, F22).

The tables are Letta's (tests/unit/letta_schema.sql) in a PostgreSQL server of the test's own, and
whoever writes them beside memfs keeps Letta's rules.  The real server is in test_letta_tables.py.
"""
import json
import os
import re
import threading
import time

import pytest

from lib import wire
from lib.lettatables import LettaTables, change
from lib.patience import wait
from lib.postgres import Postgres
from lib.server import new_agent
from lib.writer import Memory

GIT = ["git-memory-enabled"]


def eventually(what, seconds=90):
    return wait(what, seconds=seconds)


@pytest.fixture
def letta(folder):
    # a socket's path has 107 bytes at most
    with Postgres(folder / "pg") as pg:
        yield LettaTables(pg)


@pytest.fixture
def serving(letta, servers):
    def make(**kw):
        env = {"MEMFS_LETTA_DATABASE": letta.url, **kw.pop("env", {})}
        return servers(env=env, **kw)
    return make


def memory(server, agent):
    """A memory, with the tip and the files that the server has now."""
    m = Memory(server, agent, timeout=120)
    refresh(m)
    return m


def refresh(m):
    tip = m.server.tip(m.agent)
    if tip == m.tip:
        return
    names = m.server.git_dir(m.agent, "ls-tree", "-r", "-z", "--name-only", tip).stdout
    m.files = {path.decode(): m.server.git_dir(m.agent, "show", f"{tip}:{path.decode()}").stdout
               for path in names.split(b"\0") if path}
    m.tip = tip


def file_at(server, agent, path):
    done = server.git_dir(agent, "show", f"main:{path}", check=False)
    return done.stdout.decode() if done.returncode == 0 else None


def front(value, **fields):
    return "---\n" + "".join(f"{k}: {v}\n" for k, v in fields.items()) + "---\n" + value


def test_when_a_push_returns_the_rows_are_there(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"system/human.md": front("Ada", description="about her", limit=700),
                 "notes/a.md": "plain\n", "picture.png": b"\x89PNG\0"})
    rows = letta.rows(agent)
    assert set(rows) == {"system/human", "notes/a"}
    human = rows["system/human"]
    assert (human["value"], human["description"], human["limit"], human["version"]) == \
        ("Ada", "about her", 700, 1)
    assert rows["notes/a"]["limit"] == 100000
    assert re.fullmatch(r"block-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                        human["id"])
    assert human["id"] == m.server.value_id(agent, "system/human")
    assert letta.tip(agent) == m.tip


def test_K7_only_rows_of_changed_files_are_touched(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({f"b{i}.md": f"{i}\n" for i in range(20)})
    m.must_push({"b3.md": "changed\n", "new.md": "new\n", "b4.md": None})
    rows = letta.rows(agent)
    assert {label: row["version"] for label, row in rows.items() if row["version"] != 1} == {"b3": 2}
    assert rows["b3"]["value"] == "changed\n" and "b4" not in rows and "new" in rows
    before = letta.rows(agent)
    m.must_push({"no-block.txt": "x"})
    assert letta.rows(agent) == before and letta.tip(agent) == m.tip


def test_H2_an_edit_in_letta_becomes_a_commit(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"system/human.md": front("Ada\n", description="about her", custom="kept"),
                 "other.md": "untouched\n"})
    letta.edit(agent, "system/human", "Ada, Countess of Lovelace\n")
    assert eventually(lambda: m.server.tip(agent) != m.tip)
    assert file_at(m.server, agent, "system/human.md") == \
        front("Ada, Countess of Lovelace\n", description="about her", custom="kept")
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent))
    assert letta.rows(agent)["system/human"]["version"] == 2, "nothing had to be written back"
    assert m.server.value(agent, "system/human") == "Ada, Countess of Lovelace\n"
    log = m.server.git_dir(agent, "log", "-1", "--format=%an%n%s%n%b").stdout.decode()
    assert log.startswith("Letta\nTake in 1 block from Letta\n+ system/human")


def test_H2_what_letta_changes_while_a_push_writes_is_merged(serving, letta):
    """The row is changed in a transaction that is not over when the push has read it: the push waits
    at its lock, and then finds another version."""
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "one\n\ntwo\n\nthree\n"})
    session = letta.session()
    session.ask("BEGIN")
    assert change(session, agent, "a", lambda _: "one\n\ntwo\n\nTHREE by Letta\n")
    pushing = threading.Thread(target=m.must_push, args=({"a.md": "ONE by git\n\ntwo\n\nthree\n"},))
    pushing.start()
    assert eventually(lambda: letta.sql(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    session.ask("COMMIT")
    pushing.join(60)
    session.close()
    both = "ONE by git\n\ntwo\n\nTHREE by Letta\n"
    assert letta.values(agent)["a"] == both, "before the push was acknowledged"
    assert letta.tip(agent) == m.server.tip(agent) != m.tip
    assert file_at(m.server, agent, "a.md") == both
    assert letta.rows(agent)["a"]["version"] == 3


def test_sync_from_git_takes_in_what_letta_has_now(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "one\n"})
    letta.edit(agent, "a", "two\n")
    answer = m.server.request("POST", f"/v1/agents/{agent}/memory/sync-from-git")
    assert answer.status == 200 and answer.json()[0]["value"] == "two\n", answer


def test_attributes_that_no_file_names_stay_the_rows_own(serving, letta):
    agent = letta.agent()
    letta.block(agent, "human", "old\n", "block-0a1b2c3d-0000-4000-8000-000000000001",
                description="'kept'")
    m = memory(serving(), agent)
    m.must_push({"human.md": "old\n"})
    letta.sql("UPDATE block SET hidden = true, version = version + 1")
    m.must_push({"human.md": "new\n"})
    row = letta.rows(agent)["human"]
    assert (row["value"], row["limit"], row["description"], row["hidden"]) == \
        ("new\n", 5000, "kept", True)
    assert row["id"].endswith("1"), "adopted with its id"
    m.must_push({"human.md": front("new\n", description="by git", limit=9)})
    row = letta.rows(agent)["human"]
    assert (row["limit"], row["description"]) == (9, "by git")
    m.must_push({"human.md": "newer\n"})
    assert letta.rows(agent)["human"]["limit"] == 9


def test_what_only_letta_has_becomes_a_file_of_an_agent_with_git_memory(serving, letta):
    plain, with_git = letta.agent(), letta.agent(tags=GIT)
    s = serving()
    for n, agent in enumerate((plain, with_git)):
        letta.block(agent, "persona", "I am", f"block-0a1b2c3d-0000-4000-8000-00000000001{n}",
                    description="'who'")
        letta.block(agent, "no/../path", "", f"block-0a1b2c3d-0000-4000-8000-00000000002{n}")
        memory(s, agent).push({"system/human.md": "Ada"})
    assert eventually(lambda: file_at(s, with_git, "persona.md") is not None)
    assert file_at(s, with_git, "persona.md") == front("I am", description="who")
    assert eventually(lambda: letta.tip(with_git) == s.tip(with_git))
    assert file_at(s, plain, "persona.md") is None
    for agent in (plain, with_git):
        assert set(letta.rows(agent)) == {"persona", "no/../path", "system/human"}
    assert "letta_block_left" in s.log()


def test_first_contact_keeps_both_texts(serving, letta):
    agent = letta.agent()
    letta.block(agent, "a", "from Letta\n", "block-0a1b2c3d-0000-4000-8000-000000000001")
    m = memory(serving(), agent)
    m.push({"a.md": "from git\n"})
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent) != m.tip)
    text = file_at(m.server, agent, "a.md")
    assert "from Letta\n" in text and "from git\n" in text
    assert letta.values(agent)["a"] in text


def test_K3_a_shared_block(serving, letta):
    one, two = letta.agent(), letta.agent()
    s = serving()
    m1 = memory(s, one)
    m1.must_push({"shared.md": "v1\n", "own.md": "x\n"})
    id = letta.rows(one)["shared"]["id"]
    letta.sql(f"INSERT INTO blocks_agents VALUES('{two}', '{id}', 'shared')")
    m2 = memory(s, two)
    m2.must_push({"shared.md": "v1\n"})
    assert letta.rows(two)["shared"]["id"] == id, "adopted, not made anew"
    m1.must_push({"shared.md": "v2\n"})
    assert letta.values(two)["shared"] == "v2\n"
    assert eventually(lambda: file_at(s, two, "shared.md") == "v2\n"), "both memories have it"
    m1.must_push({"shared.md": None})
    assert "shared" not in letta.rows(one) and letta.values(two)["shared"] == "v2\n"
    assert file_at(s, two, "shared.md") == "v2\n"
    refresh(m2)
    m2.must_push({"shared.md": None})
    assert letta.sql("SELECT count(*) FROM block WHERE label = 'shared'") == [["0"]]


def test_a_rename_moves_the_attributes_and_not_the_id(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"old.md": "text\n"})
    old = letta.rows(agent)["old"]
    letta.sql("UPDATE block SET \"limit\" = 77, version = version + 1; INSERT INTO blocks_tags(block_id,"
              f" tag, organization_id) VALUES('{old['id']}', 't', '{old['organization_id']}')")
    m.must_push({"old.md": None, "new.md": "text\n"})
    rows = letta.rows(agent)
    assert set(rows) == {"new"} and rows["new"]["limit"] == 77 and rows["new"]["id"] != old["id"]
    assert letta.sql("SELECT block_id, tag FROM blocks_tags") == [[rows["new"]["id"], "t"]]


def test_a_block_that_is_detached_in_letta_goes_from_git_and_can_come_back(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "b.md": "b\n"})
    letta.sql("DELETE FROM blocks_agents WHERE block_label = 'a'")
    assert eventually(lambda: file_at(m.server, agent, "a.md") is None)
    refresh(m)
    m.must_push({"a.md": "again\n"})
    assert letta.values(agent) == {"a": "again\n", "b": "b\n"}


def test_rows_that_are_gone_all_at_once_come_back(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "b.md": "b\n"})
    letta.sql("DELETE FROM blocks_agents; DELETE FROM block")
    assert eventually(lambda: letta.values(agent) == {"a": "a\n", "b": "b\n"})
    assert m.server.tip(agent) == m.tip


def test_an_agent_that_letta_does_not_know_gets_its_rows_when_it_does(serving, letta):
    agent = new_agent()
    m = memory(serving(), agent)
    report = m.push({"a.md": "a\n"})
    assert report.acked and "does not know this agent" in report.talk
    assert m.server.value(agent, "a") == "a\n"
    letta.agent(id=agent)
    assert eventually(lambda: letta.values(agent) == {"a": "a\n"})


def test_8_shared_repositories_are_none_of_lettas(serving, letta):
    """Their files are no blocks, there or here; and they are committed without a word about Letta."""
    agent = letta.agent()
    server = serving()
    repo = server.request("POST", "/v1/repositories", b'{"name":"notes"}').json()["id"]
    before = letta.values(agent)
    for path in ("a.md", "system/human.md"):
        answer = server.request("POST", f"/v1/repositories/{repo}/files", json.dumps({"path": path, "content": path}))
        assert answer.status == 200, answer
    push = server.push_raw(repo, *wire_commit(server, repo, "b.md"))
    assert push.acked and "Letta" not in push.talk, push
    server.cli("verify")
    assert letta.values(agent) == before
    assert "letta_agent_unknown" not in server.log()


def wire_commit(server, repo, path):
    """One file in place of all that is there -> commands, pack."""
    tip = server.refs(repo)[wire.MAIN]
    objects = wire.Objects()
    commit = objects.commit(objects.tree_of({path: objects.blob(b"x")}), [tip])
    return [(tip, commit, wire.MAIN)], objects.pack()


def test_values_that_postgresql_does_not_take(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"nul.md": b"a\0b\n", "bytes.md": b"\xff\xfe\n", "crlf.md": b"a\r\nb\r\n"})
    assert letta.values(agent) == {"nul": "a\ufffdb\n", "bytes": "\ufffd\ufffd\n", "crlf": "a\nb\n"}
    other = letta.agent()
    n = memory(m.server, other)
    n.must_push({"a.md": "a\n"})
    letta.edit(other, "a", "b\n")
    assert eventually(lambda: m.server.tip(other) != n.tip), "a look came by"
    assert m.server.tip(agent) == m.tip, "and found nothing to take in"


def test_a_missing_repository_removes_no_rows(serving, letta, folder):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    m.server.stop()
    os.rename(m.server.repository(agent), folder / "aside")
    m.server.start()
    assert m.server.get(f"/v1/agents/{agent}/core-memory/blocks").status == 503
    m.server.request("POST", f"/v1/agents/{agent}/memory/sync-from-git")
    looked_at(letta, m.server)
    assert letta.values(agent) == {"a": "a\n"} and letta.tip(agent) == m.tip
    m.server.stop()
    os.rename(folder / "aside", m.server.repository(agent))
    m.server.start()


def test_T28_what_is_purged_goes_from_the_rows_and_does_not_come_back(serving, letta):
    agent = letta.agent(tags=GIT)
    m = memory(serving(), agent)
    m.server.rewrites_allowed = True
    m.must_push({"a.md": "the s3cret-word is\n", "whole.md": "s3cret-word\n", "b.md": "b\n"})
    m.must_push({"whole.md": None})
    m.server.cli("purge", "--agent", agent, "--secret-stdin", input=b"s3cret-word")
    assert "s3cret-word" not in str(letta.values(agent))
    assert set(letta.values(agent)) == {"a", "b"}
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent))
    assert m.server.git_dir(agent, "grep", "s3cret-word", "main", check=False).returncode == 1


def test_an_unknown_schema_is_refused_and_a_fitting_one_is_told(serving, letta):
    letta.sql("UPDATE alembic_version SET version_num = 'abcdef012345'")
    s = serving()
    assert eventually(lambda: "event=letta_revision" in s.log() and "abcdef012345" in s.log())
    s.stop()
    letta.sql("ALTER TABLE block DROP COLUMN version")
    with pytest.raises(AssertionError, match="did not start"):
        s.start()
    s.expected_codes = (s.process.returncode,)
    assert "revision 'abcdef012345': column block.version is missing" in s.log()


def test_F22_a_push_goes_on_while_letta_is_away(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    letta.pg.crash()
    report = m.push({"a.md": "b\n"})
    assert report.acked and "will follow" in report.talk, report
    assert m.server.value(agent, "a") == "b\n"
    letta.pg.start()
    assert eventually(lambda: letta.values(agent) == {"a": "b\n"})
    assert m.server.tip(agent) == m.tip


def test_the_next_start_settles_what_was_left_undone(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "b.md": "b\n"})
    letta.pg.crash()
    m.push({"a.md": "by git\n"})
    m.server.kill()
    letta.pg.start()
    letta.edit(agent, "b", "by Letta\n")
    m.server.start()
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent) != m.tip)
    assert letta.values(agent) == {"a": "by git\n", "b": "by Letta\n"}
    assert file_at(m.server, agent, "b.md") == "by Letta\n"


class Writers:
    """Eight that push, eight that write through Letta's rules: each its own lines, so that a line
    that was acknowledged and is nowhere in the end was lost."""

    def __init__(self, server, letta, agents):
        self.server, self.letta, self.agents = server, letta, agents
        self.said = {agent: set() for agent in agents}
        self.stopping = threading.Event()
        self.failures = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.guard, args=(fn, n)) for n in range(8)
                        for fn in (self.push, self.write)]
        for t in self.threads:
            t.start()

    def guard(self, fn, n):
        try:
            fn(n, self.agents[n % len(self.agents)])
        except Exception as e:          # noqa: BLE001 - told by stop()
            self.failures.append(e)

    def acked(self, agent, line):
        with self.lock:
            self.said[agent].add(line)

    def push(self, n, agent):
        m, i = Memory(self.server, agent, timeout=120), 0
        while not self.stopping.is_set():
            try:
                refresh(m)
                i += 1
                line = f"git {n} {i}"
                old = m.files.get("shared.md", b"").decode()
                if m.push({"shared.md": f"{old}{line}\n\n"}).acked:
                    self.acked(agent, line)
            except Exception:           # noqa: BLE001 - the server was killed just now
                m.close()
                time.sleep(0.05)

    def write(self, n, agent):
        session, i = None, 0
        while not self.stopping.is_set():
            try:
                session = session or self.letta.session()
                i += 1
                line = f"letta {n} {i}"
                if change(session, agent, "shared", lambda old: f"{old}{line}\n\n"):
                    self.acked(agent, line)
                time.sleep(0.05)
            except (AssertionError, OSError, ValueError):   # PostgreSQL was killed: unknown
                session = None
                time.sleep(0.1)

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(120)
        assert not self.failures, self.failures


def assert_nothing_lost(server, letta, agents, said):
    def settled(agent):
        return letta.tip(agent) == server.tip(agent) and \
            letta.values(agent)["shared"] == file_at(server, agent, "shared.md")

    for agent in agents:
        assert eventually(lambda a=agent: settled(a)), server.log_tail()
        history = server.git_dir(agent, "log", "-p", "--format=", "main").stdout.decode()
        ever = {line[1:] for line in history.splitlines() if line.startswith("+")}
        now = set(file_at(server, agent, "shared.md").split("\n"))
        assert said[agent] - now == set(), f"in history: {(said[agent] - now) & ever}"


def test_H2_sixteen_writers_of_both_sides_lose_nothing(serving, letta):
    agents = [letta.agent() for _ in range(4)]
    s = serving()
    for agent in agents:
        memory(s, agent).must_push({"shared.md": "begin\n\n"})
    w = Writers(s, letta, agents)
    time.sleep(15)
    w.stop()
    assert_nothing_lost(s, letta, agents, w.said)
    assert all(any(line.startswith(side) for line in lines) for lines in w.said.values()
               for side in ("git", "letta"))


def test_H2_kills_of_server_and_database_lose_nothing(serving, letta):
    agents = [letta.agent() for _ in range(4)]
    s = serving()
    for agent in agents:
        memory(s, agent).must_push({"shared.md": "begin\n\n"})
    w = Writers(s, letta, agents)
    for _ in range(3):
        time.sleep(2)
        s.kill()
        s.start()
        time.sleep(2)
        letta.pg.crash()
        time.sleep(0.5)
        letta.pg.start()
    w.stop()
    assert_nothing_lost(s, letta, agents, w.said)


def test_a_password_in_the_address_is_told_nowhere(memfs_bin, serving, letta):
    s = serving(env={"MEMFS_LETTA_DATABASE": ""}, args=[
        "--letta-database", letta.url.replace("postgresql:///", "postgresql://memfs:c4nary-pw@/")])
    line = open(f"/proc/{s.pid}/cmdline", "rb").read()
    assert b"c4nary-pw" not in line and b"c4nary-pw" not in s.log().encode()
    assert "MEMFS_LETTA_DATABASE" in s.log()


# -- what is found in rows and files that are not as they should be ----------------------------------


LARGE = "0123456789abcde\n" * 72000     # 1.1 MiB: a file, but more than a block


def looked_at(letta, server):
    """A look that began after this found what another agent's row has."""
    agent = letta.agent()
    m = memory(server, agent)
    m.must_push({"a.md": "a\n"})
    letta.edit(agent, "a", "b\n")
    assert eventually(lambda: server.tip(agent) != m.tip), server.log_tail()


def put(letta, agent, label, value):
    """letta.edit() of a value that is too long for a line of psql."""
    letta.sql(f"UPDATE block b SET value = {value}, version = version + 1 FROM blocks_agents l "
              f"WHERE l.block_id = b.id AND l.agent_id = '{agent}' AND b.label = '{label}'")


def test_H2_a_row_that_is_larger_than_a_block_is_left_as_it_is(serving, letta):
    agent = letta.agent(tags=GIT)
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "b.md": "b\n"})
    put(letta, agent, "a", "repeat('x', 1200000)")
    looked_at(letta, m.server)
    assert eventually(lambda: "letta_block_left" in m.server.log())
    m.must_push({"b.md": "c\n"})
    assert letta.values(agent) == {"a": "x" * 1200000, "b": "c\n"}
    assert file_at(m.server, agent, "a.md") == "a\n"


def test_H2_a_file_that_grows_beyond_a_block_empties_no_row(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "b.md": "b\n"})
    m.push({"a.md": LARGE, "b.md": "c\n", "new.md": LARGE})
    assert letta.values(agent) == {"a": "a\n", "b": "c\n"}
    letta.edit(agent, "a", "by Letta\n")
    looked_at(letta, m.server)
    assert file_at(m.server, agent, "a.md") == LARGE == file_at(m.server, agent, "new.md")
    assert letta.values(agent)["a"] == "by Letta\n"


def test_one_block_that_no_file_can_hold_stops_no_other(serving, letta):
    agent = letta.agent(tags=GIT)
    m = memory(serving(), agent)
    m.must_push({"a.md": front("a\n", metadata="{k: v}"), "b.md": "b\n"})
    for n, label in enumerate(["x", "x.md/y", "/".join("d" * 70), "Human", "human"]):
        letta.block(agent, label, label, f"block-0a1b2c3d-0000-4000-8000-00000000001{n}")
    letta.sql("UPDATE block b SET metadata_ = '{\"id\": 18446744073709551615}', value = 'A\n', "
              "version = version + 1 FROM blocks_agents l WHERE l.block_id = b.id AND "
              f"l.agent_id = '{agent}' AND b.label = 'a'")
    letta.edit(agent, "b", "c\n")
    assert eventually(lambda: file_at(m.server, agent, "b.md") == "c\n"), m.server.log_tail()
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent))
    assert file_at(m.server, agent, "a.md").endswith("A\n")
    names = m.server.git_dir(agent, "ls-tree", "-r", "--name-only", "main").stdout.decode().split()
    assert len([n for n in names if n.lower() == "human.md"]) == 1, "T11"
    assert len([n for n in names if n.startswith("x.md")]) == 1
    assert len(names) == 4
    assert len(letta.values(agent)) == 7 and letta.values(agent)["Human"] == "Human"
    assert "18446744073709551615" in str(letta.rows(agent)["a"]["metadata_"])
    refresh(m)
    m.must_push({"b.md": "by git\n"})
    assert letta.values(agent)["b"] == "by git\n"
    assert "letta_behind" not in m.server.log()


def test_K4_a_description_that_front_matter_cannot_hold_is_no_value(serving, letta):
    agent = letta.agent(tags=GIT)
    m = memory(serving(), agent)
    m.must_push({"b.md": "b\n"})
    letta.block(agent, "a", "the value\n", "block-0a1b2c3d-0000-4000-8000-000000000010",
                description="repeat('long ', 20000)")
    letta.edit(agent, "b", "c\n")
    assert eventually(lambda: file_at(m.server, agent, "a.md") is not None), m.server.log_tail()
    for value in ("another\n", "a third\n"):
        letta.edit(agent, "a", value)
        assert eventually(lambda: (file_at(m.server, agent, "a.md") or "").endswith(value))
        assert eventually(lambda: letta.tip(agent) == m.server.tip(agent))
        row = letta.rows(agent)["a"]
        assert row["value"] == value and row["description"] == "long " * 20000
        assert len(file_at(m.server, agent, "a.md")) < 100


def test_line_ends_of_letta_are_no_second_text(serving, letta):
    agent = letta.agent()
    letta.block(agent, "a", "one\r\ntwo\r\n", "block-0a1b2c3d-0000-4000-8000-000000000010")
    m = memory(serving(), agent)
    m.must_push({"a.md": "one\r\ntwo\r\n"})
    looked_at(letta, m.server)
    assert m.server.tip(agent) == m.tip, "nothing to take in"
    assert letta.values(agent)["a"] == "one\r\ntwo\r\n" and letta.tip(agent) == m.tip
    assert letta.rows(agent)["a"]["version"] == 1


def test_an_old_purge_says_nothing_of_rows_that_main_does_not_know(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.server.rewrites_allowed = True
    m.must_push({"a.md": "the s3cret-word is\n", "b.md": "b\n", "c.md": "c\n"})
    m.server.cli("purge", "--agent", agent, "--secret-stdin", input=b"s3cret-word")
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent))
    refresh(m)
    m.must_push({"c.md": None})
    m.server.stop()
    # as after a restore of the data folder: rows of a commit that is not here
    letta.sql("UPDATE memfs_letta.tips SET tip = decode(repeat('ab', 20), 'hex')")
    letta.block(agent, "c", "c again\n", "block-0a1b2c3d-0000-4000-8000-000000000010")
    letta.edit(agent, "b", "of today\n")
    m.server.start()
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent)), m.server.log_tail()
    assert "of today\n" in letta.values(agent)["b"]
    assert letta.values(agent)["c"] == "c again\n"


def test_T28_a_purge_without_a_server_reaches_the_rows(serving, letta):
    agent = letta.agent(tags=GIT)
    m = memory(serving(), agent)
    m.server.rewrites_allowed = True
    m.must_push({"a.md": "the s3cret-word is\n", "b.md": "b\n"})
    m.server.stop()
    env = {"MEMFS_LETTA_DATABASE": letta.url}
    m.server.cli("purge", "--agent", agent, "--secret-stdin", input=b"s3cret-word", env=env)
    assert "s3cret-word" not in str(letta.values(agent))
    m.server.start()


def test_F22_a_start_while_letta_is_away(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    m.server.stop()
    letta.pg.crash()
    m.server.start()
    assert eventually(lambda: "event=letta_away" in m.server.log())
    report = m.push({"a.md": "b\n"})
    assert report.acked and "will follow" in report.talk, report
    assert "port" not in report.talk and "socket" not in report.talk, "for the log only"
    letta.pg.start()
    assert eventually(lambda: letta.values(agent) == {"a": "b\n"}), m.server.log_tail()


def test_a_field_that_is_named_wrongly_hides_no_other(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.push({"a.md": front("a\n", description="about her", limit="'700'")})
    assert letta.rows(agent)["a"]["description"] == "about her"
    assert letta.rows(agent)["a"]["limit"] == 5000 or letta.rows(agent)["a"]["limit"] == 100000


def test_K4_an_empty_description_stays_empty(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": front("a\n", description="about her")})
    letta.sql("UPDATE block SET description = '', value = 'b\n', version = version + 1")
    assert eventually(lambda: (file_at(m.server, agent, "a.md") or "").endswith("b\n"))
    assert eventually(lambda: letta.tip(agent) == m.server.tip(agent))
    assert letta.rows(agent)["a"]["description"] == ""


def test_servers_that_share_a_database_refuse_tables_mode(serving, letta):
    s = serving(start=False)
    was = dict(s.extra_env)
    s.extra_env.update({"MEMFS_DATABASE": letta.pg.database("shared"),
                        "MEMFS_CLUSTER_URL": "http://127.0.0.1:1"})
    with pytest.raises(AssertionError, match="did not start"):
        s.start()
    assert "--letta-database needs a memfs that is alone" in s.log()
    s.extra_env = was
    s.start()           # nothing of it is remembered


def test_a_first_clone_shows_the_blocks_of_an_agent_that_letta_keeps_in_git(serving, letta, git, folder):
    s = serving()
    kept, plain = letta.agent(tags=GIT), letta.agent()
    letta.block(kept, "system/human", "Likes tea.\n", "block-1d4f0000-0000-4000-8000-000000000001",
                description="'who'", limit=700)
    letta.block(kept, "notes/a", "a\n", "block-1d4f0000-0000-4000-8000-000000000002")
    letta.block(plain, "human", "Likes milk.\n", "block-1d4f0000-0000-4000-8000-000000000003")
    before = letta.rows(kept)
    c = git.clone(s.git_url(kept), folder / "c")
    assert c.read("system/human.md").decode() == front("Likes tea.\n", description="who")
    assert c.read("notes/a.md").decode() == front("a\n", description="null")
    assert letta.rows(kept) == before and eventually(lambda: letta.tip(kept) == s.tip(kept))
    rows = s.blocks(kept)
    assert {label: rows[label]["id"] for label in rows} == {label: before[label]["id"] for label in before}
    c.save({"system/human.md": front("Likes coffee.\n", description="who")})
    human = letta.rows(kept)["system/human"]
    assert (human["value"], human["limit"], human["id"]) == \
        ("Likes coffee.\n", 700, before["system/human"]["id"])

    # without the tag its blocks are Letta's own; nobody else has a memory made here by asking for it
    git.clone(s.git_url(plain), folder / "p")
    git.clone(s.git_url(new_agent()), folder / "n")
    assert sorted(os.listdir(folder / "p")) == sorted(os.listdir(folder / "n")) == [".git"]
    assert s.request("POST", f"/v1/agents/{plain}/memory/sync-from-git").status == 404
    other = letta.agent(tags=GIT)
    letta.block(other, "a", "a\n", "block-1d4f0000-0000-4000-8000-000000000004")
    rows = s.request("POST", f"/v1/agents/{other}/memory/sync-from-git")
    assert rows.status == 200 and [r["value"] for r in rows.json()] == ["a\n"]
