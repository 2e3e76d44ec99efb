"""`memfs log`, `diff`, `show`: what people and programs see of a memory, and what never runs while they look."""
import json
import os
import pty
import subprocess

import pytest

from lib.client import GENESIS, Home, snapshot
from lib.server import new_agent


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def agent(home):
    a = new_agent()
    home.run("init", "--agent", a)
    return a


@pytest.fixture
def memory(home, agent):
    """genesis, one, two; a merge of a side branch; each at its own minute."""
    c = home.checkout(agent)
    home.clock = 1763820000

    def commit(files, message):
        home.clock += 60
        for path, data in files.items():
            c.write(path, data)
        c.run("add", "-A")
        c.run("commit", "-q", "--no-verify", "--allow-empty", "-m", message,
              env={"GIT_AUTHOR_DATE": f"{home.clock} +0000", "GIT_COMMITTER_DATE": f"{home.clock} +0000"})
        return c.head

    c.save_at = commit
    c.one = commit({"system/human.md": "one\n", "notes.md": "n\n"}, "one\n\nwith a body")
    c.run("branch", "side")
    c.two = commit({"system/human.md": "one\ntwo\n"}, "two")
    c.run("checkout", "-q", "side")
    c.side = commit({"side.md": "s\n"}, "side")
    c.run("checkout", "-q", "main")
    home.clock += 60
    c.run("merge", "-q", "side", "-m", "merged", env={"GIT_COMMITTER_DATE": f"{home.clock} +0000"})
    c.merge = c.head
    return c


def log(home, agent, *args):
    return json.loads(home.run("log", "--agent", agent, "--json", *args).stdout)


def test_log_has_every_commit_with_its_paths(home, agent, memory):
    rows = log(home, agent)
    assert [r["id"] for r in rows][0] == memory.merge and [r["id"] for r in rows][-1] == GENESIS
    assert {r["id"] for r in rows} == set(memory.text("rev-list", "HEAD").split())
    one = next(r for r in rows if r["id"] == memory.one)
    assert list(one) == ["id", "parents", "author", "email", "time", "subject", "message", "paths"]
    assert one["subject"] == "one" and one["message"] == "one\n\nwith a body\n"
    assert one["paths"] == ["notes.md", "system/human.md"] and one["parents"] == [GENESIS]
    assert one["time"] == "2025-11-22T14:01:00Z"
    merge = rows[0]
    assert merge["paths"] == [] and sorted(merge["parents"]) == sorted([memory.two, memory.side])


def test_log_of_a_path_and_with_a_limit(home, agent, memory):
    assert [r["id"] for r in log(home, agent, "system/human.md")] == [memory.two, memory.one]
    assert [r["id"] for r in log(home, agent, "system")] == [memory.two, memory.one]
    assert [r["id"] for r in log(home, agent, "system/human.md", "--limit", "1")] == [memory.two]
    assert [r["id"] for r in log(home, agent, "--from", memory.one)] == [memory.one, GENESIS]
    for n in range(30):
        memory.save_at({"n.md": str(n)}, f"n{n}")
    assert len(log(home, agent)) == 20 and len(log(home, agent, "--limit", "0")) == 35


def test_log_from_inside_the_memory(home, agent, memory):
    """No agent is named: the memory that one stands in, and paths from there."""
    done = home.run("log", "--json", "human.md", cwd=os.path.join(memory.path, "system"))
    assert [r["id"] for r in json.loads(done.stdout)] == [memory.two, memory.one]
    done = home.run("log", "--json", code=2)
    assert b"which agent?" in done.stderr


def test_log_as_text(home, agent, memory):
    text = home.run("log", "--agent", agent).stdout.decode()
    assert f"commit {memory.two}\n" in text and "    system/human.md\n" in text
    lines = home.run("log", "--agent", agent, "--oneline").stdout.decode().splitlines()
    assert len(lines) == 5 and lines[-1].endswith("memfs: genesis")


def test_show_a_commit_a_file_a_folder(home, agent, memory):
    shown = json.loads(home.run("show", memory.two, "--agent", agent, "--json").stdout)
    assert shown["id"] == memory.two
    assert [(c["status"], c["path"], c["added"], c["removed"]) for c in shown["changes"]] == [
        ("M", "system/human.md", 1, 0)]
    assert "+two\n" in shown["changes"][0]["patch"]
    assert home.run("show", f"{memory.one}:system/human.md", "--agent", agent).stdout == b"one\n"
    assert home.run("show", "HEAD~1:", "--agent", agent).stdout.split() == [
        b"notes.md", b"system/human.md"]
    assert json.loads(home.run("show", "main:system/human.md", "--agent", agent, "--json").stdout) == {
        "id": memory.merge, "path": "system/human.md", "bytes": 8, "text": "one\ntwo\n"}
    assert home.run("show", "HEAD:nothing", "--agent", agent, code=1).stdout == b""


def test_show_by_time(home, agent, memory):
    """As it was then: the newest commit of that time."""
    at = "2025-11-22 14:01:30"
    assert home.run("show", at + ":system/human.md", "--agent", agent).stdout == b"one\n"
    assert home.run("show", "2025-11-22:system/human.md", "--agent", agent).stdout == b"one\ntwo\n"
    assert json.loads(home.run("show", at, "--agent", agent, "--json").stdout)["id"] == memory.one


def test_what_a_merge_decided_is_what_it_changed(home, agent, memory):
    memory.run("checkout", "-q", "-b", "other", memory.one)
    memory.save_at({"system/human.md": "zero\none\n"}, "other")
    memory.run("checkout", "-q", "main")
    memory.run("merge", "-q", "--no-edit", "-s", "ours", "other")
    memory.write("system/human.md", "settled\n")
    memory.run("commit", "-q", "--no-verify", "-a", "--amend", "--no-edit")
    shown = json.loads(home.run("show", "--agent", agent, "--json").stdout)
    assert shown["paths"] == ["system/human.md"]
    assert [c["path"] for c in shown["changes"]] == ["system/human.md"]


def test_diff_of_what_is_not_committed_and_not_pushed(home, agent, memory):
    memory.run("update-ref", "refs/remotes/origin/main", memory.one)
    memory.write("system/human.md", "one\ntwo\nthree\n")
    memory.write("new.md", "new\n")
    memory.write(".gitignore", "*.tmp\n")
    memory.write("x.tmp", "ignored\n")
    os.unlink(os.path.join(memory.path, "notes.md"))
    memory.write("staged.md", "staged\n")
    memory.run("add", "staged.md")
    before = snapshot(memory.path, with_times=True)
    diff = json.loads(home.run("diff", "--agent", agent, "--json").stdout)
    assert snapshot(memory.path, with_times=True) == before     # not even the index was written
    assert {(c["status"], c["path"]) for c in diff["changes"]} == {
        ("M", "system/human.md"), ("?", "new.md"), ("?", ".gitignore"), ("D", "notes.md"),
        ("A", "staged.md")}
    assert {c["id"] for c in diff["unpushed"]} == {memory.two, memory.side, memory.merge}
    diff = json.loads(home.run("diff", "--agent", agent, "--json", "system").stdout)
    assert [c["path"] for c in diff["changes"]] == ["system/human.md"]
    assert [c["id"] for c in diff["unpushed"]] == [memory.two]


def test_diff_between_commits(home, agent, memory):
    def names(*args):
        done = home.run("diff", *args, "--agent", agent, "--json", "--names")
        return [(c["status"], c["path"]) for c in json.loads(done.stdout)["changes"]]

    assert names(memory.one, memory.two) == [("M", "system/human.md")]
    assert names(memory.two, memory.one, "notes.md") == []
    assert names(GENESIS, memory.one) == [("A", "notes.md"), ("A", "system/human.md")]
    assert names(memory.two) == [("A", "side.md")]
    memory.run("mv", "notes.md", "renamed.md")
    memory.write("renamed.md", "n\n")
    done = json.loads(home.run("diff", "--agent", agent, "--json", "HEAD").stdout)
    assert [(c["status"], c["old_path"], c["path"]) for c in done["changes"]] == [
        ("R", "notes.md", "renamed.md")]


def test_diff_tells_by_its_exit_status_when_asked(home, agent, memory):
    home.run("diff", "--agent", agent, "--exit-code", code=1)    # nothing is pushed yet
    memory.run("update-ref", "refs/remotes/origin/main", "main")
    home.run("diff", "--agent", agent, "--exit-code")
    memory.write("new.md", "new\n")
    home.run("diff", "--agent", agent, "--exit-code", code=1)
    home.run("diff", "--agent", agent, code=0)
    home.run("diff", "no-such-thing", "--agent", agent, code=1)


def test_T05_nothing_of_anybodys_configuration_runs(home, agent, memory, folder):
    """A pager, an alias, an external diff, a text converter or a filter in some config would run with the rights
    of whoever looks at a memory."""
    trap = folder / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {folder}/sprung\n")
    trap.chmod(0o755)
    for scope in ("--global", "--local"):
        for key in ("core.pager", "pager.log", "pager.diff", "diff.external", "diff.t.textconv",
                    "diff.t.command", "filter.t.clean", "filter.t.smudge", "core.fsmonitor",
                    "alias.log", "core.sshCommand"):
            memory.run("config", scope, key, ("!" if key.startswith("alias") else "") + str(trap))
    memory.run("config", "--local", "core.fsmonitor", str(trap))
    os.makedirs(memory.path + "/.git/info", exist_ok=True)
    with open(memory.path + "/.git/info/attributes", "w") as f:
        f.write("*.md diff=t filter=t\n")
    memory.write("system/human.md", "changed\n")
    env = {"PAGER": str(trap), "GIT_PAGER": str(trap), "GIT_EXTERNAL_DIFF": str(trap)}
    for args in (["log"], ["log", "system/human.md"], ["diff"], ["diff", memory.one], ["show"],
                 ["show", "HEAD:system/human.md"]):
        home.run(*args, "--agent", agent, env=env)
    assert not (folder / "sprung").exists()


def test_T20_a_terminal_acts_on_nothing(home, agent, memory):
    """Text of a memory that moves the cursor, or sets the title, of whoever looks at it."""
    memory.save_at({"evil.md": "a\x1b]0;title\x07b\n"}, "evil \x1b[2J subject")
    for args in (["log", "--oneline"], ["show"], ["show", "HEAD:evil.md"]):
        ours, theirs = pty.openpty()
        done = subprocess.Popen([home.memfs_bin, *args, "--agent", agent], env=home.env, cwd="/",
                                stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        out = b""
        try:
            while chunk := os.read(ours, 65536):
                out += chunk
        except OSError:
            pass                        # the end, as a terminal has it
        os.close(ours)
        assert done.wait(30) == 0
        assert b"\x1b" not in out and b"\x07" not in out and b"\\x1B" in out
    assert b"\x1b]0;title" in home.run("show", "HEAD:evil.md", "--agent", agent).stdout  # a pipe: as it is


def test_what_is_not_there_is_said_with_a_next_step(home):
    done = home.run("log", "--agent", new_agent(), code=1)
    assert b"memfs apply" in done.stderr
    done = home.run("log", "--agent", "agent-x", code=2)
    assert b"no id of an agent" in done.stderr
