"""Tables mode by the rules of Letta's database (contract/postgres-schema: what is written, who waits for
whom, what is nobody's), and what becomes of both sides after renames, restores and moves by hand."""
import os
import subprocess
import threading
import time

import pytest

from lib import postgres
from lib.lettatables import SCHEMA, LettaTables, change
from lib.postgres import Postgres
from lib.server import ORG
from lib.writer import Memory

from test_tables import (GIT, LARGE, eventually, file_at, front, looked_at, memory, refresh)

OTHER_ORG = "org-11111111-1111-4111-8111-111111111111"
ID = "block-0a1b2c3d-0000-4000-8000-0000000000"


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


def settled(letta, m, tip=None):
    return letta.tip(m.agent) == m.server.tip(m.agent) != tip


def names(m):
    listed = m.server.git_dir(m.agent, "ls-tree", "-r", "--name-only", "main").stdout.decode()
    return set(listed.split())


def row_by_row(letta, table, key):
    """Which transaction wrote each row and where it is: a row that was written anew shows."""
    return {row[0]: row[1:] for row in letta.sql(f"SELECT {key}, xmin, ctid FROM {table}")}


# -- what is written -----------------------------------------------------------------------------------


UNTOUCHED = {"blocks_agents": "block_id", "blocks_tags": "block_id", "agents": "id", "users": "id",
             "agents_tags": "agent_id", "organizations": "id", "block_history": "id"}


def test_K7_no_row_but_that_of_the_changed_file_is_written(serving, letta):
    agent = letta.agent(tags=GIT)
    m = memory(serving(), agent)
    m.must_push({f"b{i}.md": f"{i}\n" for i in range(50)})
    ids = {label: row["id"] for label, row in letta.rows(agent).items()}
    letta.sql("INSERT INTO blocks_tags(block_id, tag, organization_id) SELECT id, 't', organization_id "
              "FROM block")
    looked_at(letta, m.server)
    blocks = row_by_row(letta, "block", "id")
    others = {table: row_by_row(letta, table, key) for table, key in UNTOUCHED.items()}
    m.must_push({"b3.md": "changed\n"})
    looked = letta.agent()      # what looked_at() makes is not in what is compared
    m2 = memory(m.server, looked)
    m2.must_push({"a.md": "a\n"})
    letta.edit(looked, "a", "b\n")
    assert eventually(lambda: settled(letta, m2, m2.tip)), m.server.log_tail()
    now = row_by_row(letta, "block", "id")
    assert {id for id in blocks if blocks[id] != now[id]} == {ids["b3"]}
    for table, key in UNTOUCHED.items():
        now = row_by_row(letta, table, key)
        assert {id: now.get(id) for id in others[table]} == others[table], table


def logged(letta, text, but=None):
    with open(os.path.join(letta.pg.data, "log"), encoding="utf-8") as f:
        return sum(text in line and (but is None or but not in line) for line in f)


def test_K7_a_push_costs_no_look_at_the_other_blocks(serving, letta):
    """The number that a look compares is one that memfs knows to come, as it wrote the rows itself."""
    letta.pg.sql("ALTER SYSTEM SET log_statement = 'all'")
    letta.pg.sql("SELECT pg_reload_conf()")
    agent = letta.agent()
    m = memory(serving(), agent)

    def looks():
        return logged(letta, "bit(60)")

    def whole():
        return logged(letta, "COALESCE(b.hidden, false)", but="= ANY($2)")

    def look_twice():
        n = looks()
        assert eventually(lambda: looks() >= n + 2), m.server.log_tail()

    m.must_push({"a.md": "a\n", "b.md": "b\n", "c.md": "c\n"})
    look_twice()
    before = whole()
    assert before > 0
    m.must_push({"a.md": "changed\n", "b.md": None, "new.md": "new\n"})
    look_twice()
    assert whole() == before
    letta.edit(agent, "a", "by Letta\n")
    assert eventually(lambda: file_at(m.server, agent, "a.md") == "by Letta\n")
    assert whole() > before


def test_a_row_of_ours_names_its_writer_and_keeps_its_maker(serving, letta):
    """updated_at and _last_updated_by_id move with each write, _created_by_id only if it was nobody."""
    agent = letta.agent()
    letta.block(agent, "a", "a\n", ID + "01")
    letta.sql("UPDATE block SET _created_by_id = 'user-11111111-1111-4111-8111-111111111111', "
              "updated_at = 'epoch'; UPDATE agents SET updated_at = 'epoch'")
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    row = letta.rows(agent)["a"]
    assert (row["version"], row["_last_updated_by_id"]) == (1, None) and row["updated_at"] < "1971"
    m.must_push({"a.md": "b\n"})
    row = letta.rows(agent)["a"]
    assert row["version"] == 2 and row["updated_at"] > "2020"
    assert row["_created_by_id"] == "user-11111111-1111-4111-8111-111111111111"
    assert row["_last_updated_by_id"] == "user-00000000-0000-4000-8000-000000000000"
    assert letta.sql("SELECT updated_at < '1971-01-01' FROM agents") == [["t"]], "nothing was attached"
    m.must_push({"a.md": None, "b.md": "b\n"})
    assert letta.sql("SELECT updated_at > '2020-01-01' FROM agents") == [["t"]]


def test_metadata_stays_an_object_whatever_the_file_says(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.push({"map.md": front("x", metadata="{k: [1, null]}"), "list.md": front("x", metadata="[1]"),
            "scalar.md": front("x", metadata="7"), "none.md": front("x", metadata="null")})
    rows = letta.rows(agent)
    assert rows["map"]["metadata_"] == {"k": [1, None]}
    assert [rows[label]["metadata_"] for label in ("list", "scalar", "none")] == [{}, {}, {}]


# -- locks ----------------------------------------------------------------------------------------------


def waits(letta):
    return eventually(lambda: letta.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


def test_K3_rows_are_locked_in_the_order_of_their_ids(serving, letta):
    """Two agents that share blocks under labels of another order cannot wait for one another."""
    agent = letta.agent()
    letta.block(agent, "z", "z\n", ID + "01")
    letta.block(agent, "a", "a\n", ID + "02")
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "z.md": "z\n"})
    first, second = letta.session(), letta.session()
    first.ask("BEGIN")
    first.ask(f"SELECT 1 FROM block WHERE id = '{ID}01' FOR UPDATE")
    pushing = threading.Thread(target=m.must_push, args=({"a.md": "A\n", "z.md": "Z\n"},))
    pushing.start()
    assert waits(letta)
    assert second.ask(f"SELECT 1 FROM block WHERE id = '{ID}02' FOR UPDATE NOWAIT") == [["1"]]
    first.ask("COMMIT")
    pushing.join(60)
    first.close()
    second.close()
    assert letta.values(agent) == {"a": "A\n", "z": "Z\n"}


def test_H2_a_block_that_letta_makes_under_the_same_label_meanwhile_is_merged(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"b.md": "b\n"})
    session = letta.session()
    session.ask("BEGIN")
    session.ask("INSERT INTO block(id, label, value, \"limit\", read_only, is_template, organization_id) "
                f"VALUES('{ID}01', 'a', E'by Letta\\n', 5000, false, false, '{ORG}'); "
                f"INSERT INTO blocks_agents VALUES('{agent}', '{ID}01', 'a')")
    pushing = threading.Thread(target=m.must_push, args=({"a.md": "by git\n"},))
    pushing.start()
    assert waits(letta)
    session.ask("COMMIT")
    pushing.join(60)
    session.close()
    row = letta.rows(agent)["a"]
    assert row["id"] == ID + "01" and "by git\n" in row["value"] and "by Letta\n" in row["value"]
    assert file_at(m.server, agent, "a.md").endswith("---\n" + row["value"])
    assert letta.sql("SELECT count(*) FROM block WHERE label = 'a'") == [["1"]]


def test_F22_a_row_that_letta_holds_locked_loses_no_push(serving, letta):
    agent, other = letta.agent(), letta.agent()
    s = serving()
    m, n = memory(s, agent), memory(s, other)
    m.must_push({"a.md": "a\n"})
    n.must_push({"a.md": "a\n"})
    session = letta.session()
    session.ask("BEGIN")
    assert change(session, agent, "a", lambda _: "never committed\n")
    report = m.push({"a.md": "b\n"})
    assert report.acked and "will follow" in report.talk, report
    assert s.value(agent, "a") == "b\n"
    n.must_push({"a.md": "b\n"})
    assert letta.values(other) == {"a": "b\n"}, "L3: nobody else waits"
    session.ask("ROLLBACK")
    session.close()
    assert eventually(lambda: letta.values(agent) == {"a": "b\n"}), s.log_tail()
    assert s.tip(agent) == m.tip


def test_F22_a_database_that_answers_nothing_loses_no_push(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    letta.pg.freeze()
    try:
        report = m.push({"a.md": "b\n"})
        assert report.acked and "will follow" in report.talk, report
        assert m.server.value(agent, "a") == "b\n"
    finally:
        letta.pg.thaw()
    assert eventually(lambda: letta.values(agent) == {"a": "b\n"}), m.server.log_tail()


def test_F22_a_migration_of_lettas_under_a_running_memfs(serving, letta):
    """Its columns get another type: what memfs has prepared on its connections is of no use any more."""
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    assert eventually(lambda: settled(letta, m))
    for column in ("value", "label", "description"):
        letta.sql(f"ALTER TABLE block ALTER COLUMN {column} TYPE text")
    report = m.push({"a.md": "b\n"})
    assert report.acked and "will follow" not in report.talk, report
    assert letta.values(agent) == {"a": "b\n"}
    letta.edit(agent, "a", "by Letta\n")
    assert eventually(lambda: file_at(m.server, agent, "a.md").endswith("by Letta\n")), m.server.log_tail()


def test_F22_the_schema_of_ours_may_be_dropped_under_a_running_memfs(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    assert eventually(lambda: settled(letta, m))
    letta.sql("DROP SCHEMA memfs_letta CASCADE")
    letta.edit(agent, "a", "by Letta\n")
    report = m.push({"b.md": "b\n"})
    assert report.acked, report
    assert eventually(lambda: letta.values(agent).get("b") == "b\n"), m.server.log_tail()
    assert eventually(lambda: "by Letta\n" in file_at(m.server, agent, "a.md")), m.server.log_tail()
    assert settled(letta, m)


# -- what is nobody's ------------------------------------------------------------------------------------


def other_organization(letta):
    letta.sql(f"INSERT INTO organizations(id, name, privileged_tools) VALUES('{OTHER_ORG}', 'x', false)")


def test_H2_a_block_of_another_organization_is_not_gone(serving, letta):
    """Letta's API does not show it, and the label is taken: neither is its file removed, nor is it made
    again, nor does its old text count as an edit when it is back."""
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n", "b.md": "b\n"})
    other_organization(letta)
    letta.sql(f"UPDATE block SET organization_id = '{OTHER_ORG}', version = version + 1 WHERE label = 'a'")
    looked_at(letta, m.server)
    assert names(m) == {"a.md", "b.md"}
    report = m.push({"a.md": "changed\n"})
    assert report.acked and "will follow" in report.talk, report
    assert "belongs to another organization" in m.server.log()
    assert letta.values(agent)["a"] == "a\n"
    letta.sql(f"UPDATE block SET organization_id = '{ORG}', version = version + 1 WHERE label = 'a'")
    assert eventually(lambda: letta.values(agent)["a"] == "changed\n"), m.server.log_tail()
    assert file_at(m.server, agent, "a.md") == "changed\n"


def test_T03_a_first_clone_shows_no_block_of_another_organization(serving, letta, git, folder):
    """As what comes later, all of the agent waits; an empty memory would be taken for its own."""
    agent = letta.agent(tags=GIT)
    letta.block(agent, "a", "a\n", ID + "01")
    letta.block(agent, "b", "not theirs\n", ID + "02")
    other_organization(letta)
    letta.sql(f"UPDATE block SET organization_id = '{OTHER_ORG}' WHERE label = 'b'")
    s = serving()
    assert git.run("clone", s.git_url(agent), folder / "c", check=False).returncode != 0
    for _ in range(3):
        answer = s.request("POST", f"/v1/agents/{agent}/memory/sync-from-git")
        assert answer.status == 503 and "not theirs" not in answer.detail, answer.detail
    told = [line for line in s.log().splitlines() if "event=letta_behind" in line]
    assert len(told) == 1 and "block 'b' belongs to another organization" in told[0], "L5: once a minute"
    letta.sql("DELETE FROM blocks_agents WHERE block_label = 'b'")
    assert git.clone(s.git_url(agent), folder / "d").read("a.md").decode().endswith("a\n")
    assert not (folder / "d" / "b.md").exists()


def test_H4_what_is_missing_here_is_no_word_of_letta_that_it_has_nothing(serving, letta, git, folder):
    """The folder in which its commit is built was removed: the agent has a memory all the same."""
    agent = letta.agent(tags=GIT)
    letta.block(agent, "a", "a\n", ID + "01")
    s = serving()
    tmp = os.path.join(s.home, "tmp")
    os.rename(tmp, tmp + ".away")
    refs = s.get(f"/v1/git/{agent}/state.git/info/refs?service=git-upload-pack")
    os.rename(tmp + ".away", tmp)
    assert refs.status == 503, refs.body
    assert git.clone(s.git_url(agent), folder / "c").read("a.md").decode().endswith("a\n")


def test_F22_while_letta_is_away_no_first_clone_is_empty(serving, letta, git, folder):
    """Nobody can tell then whether Letta has the agent, after a start without it neither."""
    agent, new = letta.agent(tags=GIT), letta.agent()
    letta.block(agent, "a", "a\n", ID + "01")
    letta.sql(f"INSERT INTO agents_tags VALUES('{agent}', 'team'); INSERT INTO blocks_tags(block_id, tag, "
              f"organization_id) VALUES('{ID}01', 'x', '{ORG}'), ('{ID}01', 'y', '{ORG}')")
    s = serving()
    letta.pg.crash()
    for is_started_without in (False, True):
        if is_started_without:
            s.stop()
            s.start()
        c = git.run("clone", s.git_url(agent), folder / "c", check=False)
        assert c.returncode != 0 and b"503" in c.stderr, c.stderr
        answer = s.request("POST", f"/v1/agents/{agent}/memory/sync-from-git")
        assert answer.status == 503 and answer.headers["retry-after"], answer.detail
        assert "socket" not in answer.detail and "psql" not in answer.detail, "for the log only"
        assert s.log().count("event=letta_behind") == 1 + is_started_without, "L5: once a minute, of a process"
    assert s.get(f"/v1/git/{new}/state.git/info/refs?service=git-receive-pack").status == 200
    m = Memory(s, new, timeout=120)
    report = m.push({"a.md": "a\n"})
    assert report.acked and "will follow" in report.talk, "a push goes on"
    letta.pg.start()
    assert eventually(lambda: s.request("POST", f"/v1/agents/{agent}/memory/sync-from-git").status == 200)
    assert git.clone(s.git_url(agent), folder / "d").read("a.md").decode().endswith("a\n")
    assert s.blocks(agent)["a"]["tags"] == ["x", "y"]
    assert eventually(lambda: letta.values(new) == {"a": "a\n"}), s.log_tail()


def test_L5_what_is_behind_is_told_with_the_time_of_the_next_try_and_no_flood(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    other_organization(letta)
    letta.sql(f"UPDATE block SET organization_id = '{OTHER_ORG}'")
    for i in range(5):
        m.push({"a.md": f"{i}\n"})
    lines = [line for line in m.server.log().splitlines() if "event=letta_behind" in line]
    assert len(lines) == 1 and "tried again in 2 s" in lines[0] and agent in lines[0]


def test_L5_a_block_that_is_left_is_told_once(serving, letta):
    agent = letta.agent(tags=GIT)
    letta.block(agent, "no/../path", "x", ID + "01")
    m = memory(serving(), agent)
    m.must_push({"b.md": "b\n"})
    for i in range(3):
        letta.edit(agent, "b", f"{i}\n")        # each is a look at everything
        assert eventually(lambda i=i: file_at(m.server, agent, "b.md") == f"{i}\n")
        assert eventually(lambda: settled(letta, m))
    assert m.server.log().count("event=letta_block_left") == 1
    letta.block(agent, "also/../no path", "x", ID + "02")
    assert eventually(lambda: "also/../no path" in m.server.log()), "a new one is told"


# -- files and rows that go, come and are renamed --------------------------------------------------------


def test_K2_the_last_block_can_be_deleted_in_letta(serving, letta):
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    letta.sql("DELETE FROM blocks_agents; DELETE FROM block")
    assert eventually(lambda: names(m) == set()), m.server.log_tail()
    assert eventually(lambda: settled(letta, m))
    assert letta.values(agent) == {} and "letta_rows_back" not in m.server.log()


def test_an_edit_in_letta_follows_a_file_that_was_renamed_in_git(serving, letta):
    agent = letta.agent()
    s = serving()
    m = memory(s, agent)
    m.must_push({"a.md": front("text\n", custom="kept"), "z.md": "z\n"})
    old = letta.rows(agent)["a"]
    letta.sql("UPDATE block SET \"limit\" = 77, hidden = true, version = version + 1 WHERE label = 'a'; "
              "INSERT INTO blocks_tags(block_id, tag, organization_id) "
              f"VALUES('{old['id']}', 't', '{ORG}')")
    looked_at(letta, s)
    letta.pg.crash()            # so that neither side learns of the other at once
    report = m.push({"a.md": None, "b.md": front("text\n", custom="kept")})
    assert report.acked
    s.stop()
    letta.pg.start()
    letta.edit(agent, "a", "edited\n")
    s.start()
    assert eventually(lambda: settled(letta, m, m.tip)), s.log_tail()
    assert names(m) == {"b.md", "z.md"}
    assert file_at(s, agent, "b.md") == front("edited\n", custom="kept")
    rows = letta.rows(agent)
    assert {label: row["value"] for label, row in rows.items()} == {"b": "edited\n", "z": "z\n"}
    assert (rows["b"]["limit"], rows["b"]["hidden"]) == (77, True), "its attributes go along"
    assert letta.sql("SELECT block_id, tag FROM blocks_tags") == [[rows["b"]["id"], "t"]]


def test_H2_a_block_that_is_renamed_in_letta_keeps_its_file(serving, letta):
    """Also of an agent without git memory, whose new blocks are Letta's own business."""
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": front("text\n", custom="kept"), "z.md": "z\n"})
    letta.sql("UPDATE block SET label = 'b', value = E'edited\\n', version = version + 1 "
              "WHERE label = 'a'")
    letta.block(agent, "own", "Letta's\n", ID + "01")
    assert eventually(lambda: settled(letta, m, m.tip)), m.server.log_tail()
    assert names(m) == {"b.md", "z.md"}
    assert file_at(m.server, agent, "b.md") == front("edited\n", custom="kept")
    assert letta.values(agent) == {"b": "edited\n", "z": "z\n", "own": "Letta's\n"}


def test_F14_main_that_was_moved_by_hand_reaches_the_rows(serving, letta):
    agent = letta.agent()
    s = serving()
    m = memory(s, agent)
    m.must_push({"a.md": "a\n"})
    looked_at(letta, s)
    blob = s.git_dir(agent, "hash-object", "-w", "--stdin", input=b"by hand\n").stdout.decode().strip()
    tree = s.git_dir(agent, "mktree", input=f"100644 blob {blob}\ta.md\n".encode())
    made = s.git_dir(agent, "commit-tree", tree.stdout.decode().strip(), "-p", m.tip, "-m", "by hand")
    s.git_dir(agent, "update-ref", "refs/heads/main", made.stdout.decode().strip(), m.tip)
    assert eventually(lambda: s.value(agent, "a") == "by hand\n")
    assert eventually(lambda: letta.values(agent) == {"a": "by hand\n"}), s.log_tail()


def test_H2_an_edit_in_letta_survives_that_main_is_moved_by_hand_while_it_is_taken_in(serving, letta):
    """Main is moved between the look at it and the commit of the edits: what was read then did not come in,
    and the next round may not take it for what main has."""
    agent = letta.agent()
    s = serving()
    m = memory(s, agent)
    m.must_push({"a.md": "one\n\ntwo\n\nthree\n", "b.md": "b\n"})
    blob = s.git_dir(agent, "hash-object", "-w", "--stdin", input=b"ONE by hand\n\ntwo\n\nthree\n")
    tree = s.git_dir(agent, "mktree", input=f"100644 blob {blob.stdout.decode().strip()}\ta.md\n".encode())
    made = s.git_dir(agent, "commit-tree", tree.stdout.decode().strip(), "-p", m.tip, "-m", "by hand")
    holder, session = letta.session(), letta.session()
    holder.ask("BEGIN")
    holder.ask("LOCK TABLE blocks_tags IN ACCESS EXCLUSIVE MODE")   # a look at marks needs no tags
    session.ask("BEGIN")
    assert change(session, agent, "a", lambda _: "one\n\ntwo\n\nTHREE by Letta\n")
    assert change(session, agent, "b", lambda _: "b by Letta\n")
    session.ask("COMMIT")
    assert waits(letta)     # a settling, which has seen main and the edits
    s.git_dir(agent, "update-ref", "refs/heads/main", made.stdout.decode().strip(), m.tip)
    holder.ask("COMMIT")
    holder.close()
    session.close()
    both = {"a": "ONE by hand\n\ntwo\n\nTHREE by Letta\n", "b": "b by Letta\n"}
    assert eventually(lambda: settled(letta, m, m.tip)), s.log_tail()
    assert letta.values(agent) == both
    assert {label: file_at(s, agent, f"{label}.md") for label in both} == both


def test_T28_a_purge_removes_no_block_that_was_lettas_own(serving, letta):
    """Its label was a file long ago.  The row that is written is changed while the purge waits for it, so
    that all rows are looked at with what the purge knows."""
    agent = letta.agent()
    m = memory(serving(), agent)
    m.server.rewrites_allowed = True
    m.must_push({"x.md": "long ago\n", "a.md": "the s3cret-word is\n", "gone.md": "s3cret-word\n"})
    m.must_push({"x.md": None, "gone.md": None})
    m.must_push({"gone.md": "s3cret-word\n"})
    letta.block(agent, "x", "Letta's own\n", ID + "01")
    session = letta.session()
    session.ask("BEGIN")
    assert change(session, agent, "a", lambda old: old + "more\n")
    purging = threading.Thread(target=m.server.cli, kwargs={"input": b"s3cret-word"},
                               args=("purge", "--agent", agent, "--secret-stdin"))
    purging.start()
    assert waits(letta)
    session.ask("COMMIT")
    purging.join(120)
    session.close()
    assert eventually(lambda: settled(letta, m)), m.server.log_tail()
    values = letta.values(agent)
    assert values["x"] == "Letta's own\n" and "s3cret-word" not in str(values)


# -- restores, and a server that comes later --------------------------------------------------------------


def dump(url, *options):
    out = subprocess.run(["pg_dump", "--clean", "--if-exists", *options, "-d", url], capture_output=True,
                         timeout=120, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    assert out.returncode == 0, out.stderr
    return out.stdout


def play_back(url, text):
    done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"], input=text,
                          capture_output=True, timeout=120,
                          env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("options", [(), ("-n", "public")], ids=["whole", "without_memfs_letta"])
def test_H2_a_restore_of_lettas_database_takes_nothing_out_of_git(serving, letta, options):
    agent = letta.agent(tags=GIT)
    s = serving()
    m = memory(s, agent)
    m.must_push({"a.md": "old a\n", "b.md": "b\n"})
    saved = dump(letta.url, *options)
    m.must_push({"a.md": "new a\n", "c.md": "c\n"})
    s.stop()
    play_back(letta.url, saved)
    assert letta.values(agent) == {"a": "old a\n", "b": "b\n"}
    s.start()
    assert eventually(lambda: "c" in letta.values(agent)), s.log_tail()
    assert eventually(lambda: file_at(s, agent, "a.md").endswith(letta.values(agent)["a"]))
    assert names(m) == {"a.md", "b.md", "c.md"} and "new a\n" in file_at(s, agent, "a.md")
    if not options:
        assert letta.values(agent)["a"] == "new a\n" and s.tip(agent) == m.tip, "the tip came back, too"
    else:
        assert "event=letta_restored" in s.log()
    refresh(m)
    m.must_push({"a.md": "newer a\n"})
    assert letta.values(agent) == {"a": "newer a\n", "b": "b\n", "c": "c\n"}


def test_F22_a_database_that_letta_has_not_filled_yet(letta, servers):
    url = letta.pg.database("late")
    s = servers(env={"MEMFS_LETTA_DATABASE": url})
    m = Memory(s, letta.agent(), timeout=120)
    report = m.push({"a.md": "a\n"})
    assert report.acked and "will follow" in report.talk, report
    assert "it has no tables of Letta" in s.log()
    postgres.sql(url, SCHEMA.read_text(encoding="utf-8"))
    postgres.sql(url, "INSERT INTO agents(id, organization_id, name, message_buffer_autoclear) "
                      f"VALUES('{m.agent}', '{ORG}', 'an agent', false)")
    assert eventually(lambda: postgres.sql(url, "SELECT value FROM block") == [["a"], [""]]), s.log_tail()


def test_a_file_larger_than_a_block_leaves_the_row_until_it_shrinks(serving, letta):
    """What both sides say then is kept: the row was never written from the large file."""
    agent = letta.agent()
    m = memory(serving(), agent)
    m.must_push({"a.md": "a\n"})
    m.push({"a.md": LARGE})
    letta.edit(agent, "a", "by Letta\n")
    looked_at(letta, m.server)
    assert letta.values(agent)["a"] == "by Letta\n"
    m.must_push({"a.md": "small again\n"})
    assert eventually(lambda: settled(letta, m))
    text = file_at(m.server, agent, "a.md")
    assert "by Letta\n" in text and "small again\n" in text
    assert text.endswith(letta.values(agent)["a"])
