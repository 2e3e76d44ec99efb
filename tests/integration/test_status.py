"""`memfs status`: where each memory stands, from what is known here; nobody is asked."""
import json
import os
import re

import pytest

from lib.client import Home
from lib.fake_remote import FakeRemote

KEYS = {"agent_id", "memory", "state", "line", "exit", "was_created", "was_adopted", "was_updated",
        "was_merged", "was_pushed", "checkout", "backend", "remote", "answer", "detail", "advice",
        "is_misconfigured", "asked_at", "ask_again_at", "remote_main", "n_ahead", "n_behind",
        "oldest_unpushed_at", "held_back", "n_by_rule", "n_rescued", "n_queued",
        "n_pending", "mirror_again_at", "mirror_detail", "notes", "error"}


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


def status(home, *args, **kw):
    return json.loads(home.run("status", "--json", *args, **kw).stdout)


def one(home, agent):
    told = status(home, "--agent", agent)
    assert len(told["agents"]) == 1 and told["hubs"] == []
    return told["agents"][0]


def commit(home, agent, name, text):
    path = os.path.join(home.memory(agent), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write("---\ndescription: d\n---\n" + text)
    c = home.checkout(agent)
    c.run("add", name)
    c.run("commit", "-q", "-m", "t")


def test_nothing_is_here_yet(home):
    assert status(home) == {"agents": [], "hubs": []}
    done = home.run("status")
    assert done.stdout == b"" and b"memfs apply --agent ID" in done.stderr


def test_an_agent_that_is_not_here_is_missing_and_no_error(home, agent):
    a = agent()
    told = one(home, a)
    assert set(told) == KEYS and told["state"] == "missing" and told["checkout"] is None
    assert b"missing: " in home.run("status", "--agent", a).stdout
    assert not os.path.exists(home.root(a))         # looking makes nothing
    assert b"no id of an agent" in home.run("status", "--agent", "x", code=2).stderr


def test_all_memories_are_there_sorted_and_whole(home, agent):
    ids = sorted(agent() for _ in range(5))
    for a in ids[::-1]:
        home.run("init", "--agent", a)
    os.makedirs(home.folder + "/.letta/agents/not-an-id/memory")
    told = status(home)
    assert [r["agent_id"] for r in told["agents"]] == ids
    for r in told["agents"]:
        assert set(r) == KEYS and r["state"] == "no-remote" and r["error"] is None
        assert r["checkout"]["branch"] == "main" and r["checkout"]["operation"] == "none"
        assert r["checkout"]["n_changed"] == 0
    lines = home.run("status").stdout.decode().splitlines()
    assert lines[0].split() == ["AGENT", "STATE", "AHEAD", "BEHIND", "CHANGED", "RESCUED", "BY-RULE",
                                "PENDING", "QUEUED", "REMOTE"]
    assert [line.split()[0] for line in lines[1:]] == ids
    home.env["LETTA_AGENT_ID"] = ids[0]             # in an agent's shell: itself
    assert [r["agent_id"] for r in status(home)["agents"]] == ids[:1]
    assert len(status(home, "--all")["agents"]) == 5


def test_what_is_not_committed_is_counted(home, agent):
    a = agent()
    home.run("init", "--agent", a)
    commit(home, a, "system/a.md", "one\n")
    with open(home.memory(a) + "/system/a.md", "a") as f:
        f.write("two\n")
    with open(home.memory(a) + "/system/b.md", "w") as f:
        f.write("new\n")
    told = one(home, a)["checkout"]
    assert (told["n_changed"], told["n_untracked"]) == (1, 1)
    assert told["first_changed"] == "system/a.md"
    home.checkout(a).run("checkout", "-q", "--detach")
    told = one(home, a)["checkout"]
    assert told["is_detached"] and told["branch"] is None


def test_it_asks_nobody_and_remembers_what_was_said(home, folder, agent):
    a = agent()
    with FakeRemote(folder / "r") as r:
        r.repository("mem.git")
        home.run("remote", "set", "--agent", a, r.url("mem.git"))
        told = one(home, a)
        assert told["state"] == "local-only" and told["answer"] == "unasked"
        assert r.requests == []
        r.say("501")
        home.run("sync", "--agent", a, code=3)
        n = len(r.requests)
        told = one(home, a)
        assert told["state"] == "local-only" and told["answer"] == "not-implemented"
        assert told["exit"] == 3 and told["asked_at"] is not None
        r.mend()
        home.run("sync", "--agent", a)
        n = len(r.requests)
        told = one(home, a)
        assert told["state"] == "synced" and told["remote"] == r.url("mem.git")
        assert told["remote_main"] == home.ref(a, "main")
        commit(home, a, "system/a.md", "x\n")
        told = one(home, a)
        assert told["state"] == "ahead" and told["n_ahead"] == 1
        assert told["oldest_unpushed_at"] is not None
        assert len(r.requests) == n                 # four looks, no request


def test_a_memory_that_cannot_be_read_is_a_line_of_its_own(home, agent):
    good, bad = agent(), agent()
    for a in (good, bad):
        home.run("init", "--agent", a)
    with open(home.git_dir(bad) + "/config", "w") as f:
        f.write("[core\n")
    told = {r["agent_id"]: r for r in status(home)["agents"]}
    assert told[good]["state"] == "no-remote"
    assert told[bad]["state"] == "failed" and told[bad]["error"]["message"]
    assert told[bad]["exit"] != 0


def test_what_waits_and_what_was_decided_by_rule_is_in_the_table(home, agent):
    a = agent()
    home.run("init", "--agent", a)
    commit(home, a, "system/a.md", "one\n")
    made = json.loads(home.run("worktree", "add", "w", "--agent", a, "--json").stdout)
    with open(made["path"] + "/system/a.md", "a") as f:
        f.write("theirs\n")
    with open(home.memory(a) + "/system/a.md", "a") as f:
        f.write("ours\n")
    home.run("worktree", "merge", "w", "--agent", a)

    def row():
        head, line = home.run("status").stdout.decode().splitlines()
        return dict(zip(head.split()[:-1], line.split()))
    assert (row()["PENDING"], row()["BY-RULE"]) == ("1", "0")
    assert b"1 worktree's merge waits" in home.run("status", "--agent", a).stdout
    home.checkout(a).run("commit", "-q", "-a", "-m", "t")
    home.run("sync", "--agent", a)
    told = one(home, a)
    assert told["n_by_rule"] > 0 and told["n_pending"] == 0
    assert (row()["PENDING"], row()["BY-RULE"]) == ("0", str(told["n_by_rule"]))
    assert b"by rule" in home.run("status", "--agent", a).stdout


def test_L5_the_next_try_is_told(home, folder, agent):
    a = agent()
    with FakeRemote(folder / "r") as r:
        r.repository("mem.git")
        home.run("remote", "set", "--agent", a, r.url("mem.git"))
        r.say("503")
        home.run("sync", "--agent", a, code=3)
        assert re.search(rb"tried again in \d+ (s|min)", home.run("status", "--agent", a).stdout)
        assert re.search(rb"tried again in \d+ (s|min)\)$", home.run("status").stdout.strip())


def test_hubs_without_a_checkout_are_listed(home, agent):
    a, b = agent(), agent()
    home.run("init", "--agent", a)
    for x in (a, b):
        path = f"{home.folder}/.memfs/hub/{x}.git"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        home.git.run("init", "-q", "--bare", "-b", "main", path)
    told = status(home)
    assert [h["agent_id"] for h in told["hubs"]] == [b]
    assert told["hubs"][0]["path"] == f"{home.folder}/.memfs/hub/{b}.git"
    assert f"{b}  hub only: ".encode() in home.run("status").stdout


def test_F31_looking_changes_nothing(home, agent):
    from lib.client import snapshot
    a = agent()
    home.run("init", "--agent", a)
    commit(home, a, "system/a.md", "x\n")
    with open(home.memory(a) + "/system/a.md", "a") as f:
        f.write("dirty\n")
    one(home, a)
    before = snapshot(home.folder, with_times=True)
    one(home, a)
    home.run("status")
    assert snapshot(home.folder, with_times=True) == before


def test_it_works_in_a_folder_that_is_gone_and_with_stdin_closed(home, agent, memfs_bin):
    import subprocess
    a = agent()
    home.run("init", "--agent", a)
    gone = home.folder + "/gone"
    os.makedirs(gone)
    script = 'cd "$1" && rmdir "$1" && exec "$2" status --agent "$3" <&-'
    done = subprocess.run(["/bin/sh", "-c", script, "sh", gone, memfs_bin, a], env=home.env,
                          capture_output=True, timeout=60)
    assert done.returncode == 0 and a.encode() in done.stdout


@pytest.mark.parametrize("args", [("x",), ("--agent", "a", "--all"), ("--bogus",)])
def test_usage_errors(home, args):
    assert home.run("status", *args, code=2).stdout == b""
