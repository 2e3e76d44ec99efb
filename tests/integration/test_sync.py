"""sync: memories and remotes are brought together; mirrors, hubs and subagents' branches with them."""
import json
import os
import re
import subprocess
import threading

import pytest

from lib.client import GENESIS, Home
from lib.fake_remote import Answer, FakeRemote
from lib.gitcli import GIT
from lib.patience import wait
from test_apply import KEY, commit, elsewhere, git_home, letta_home, remote_tip, state_git


@pytest.fixture
def remote(folder):
    with FakeRemote(folder / "remotes") as r:
        yield r


def reports(home, *args, **kw):
    done = home.run("sync", "--json", *args, **kw)
    return json.loads(done.stdout)["agents"]


def test_all_memories_of_a_home_at_once(memfs_bin, folder, remote, agent):
    home = letta_home(memfs_bin, folder, remote)
    ids = sorted(agent() for _ in range(6))
    for id in ids:
        remote.repository(state_git(remote, id))
        home.run("init", "--agent", id)
        commit(home, id)
    os.makedirs(os.path.join(home.folder, ".letta", "agents", "not-an-agent", "memory"))
    got = reports(home)
    assert [r["agent_id"] for r in got] == ids
    for r in got:
        assert r["state"] == "synced" and r["was_pushed"], r
        assert remote_tip(remote, state_git(remote, r["agent_id"])) == home.checkout(r["agent_id"]).head
    lines = home.run("sync").stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ids and all("synced" in line for line in lines)


def test_agents_of_the_local_backend_belong_to_it(memfs_bin, folder, remote):
    import uuid
    id = f"agent-local-{uuid.uuid4()}"
    home = git_home(memfs_bin, folder, remote.url("{agentId}.git"))
    memory = os.path.join(home.folder, ".letta", "lc-local-backend", "memfs", id, "memory")
    home.git.run("init", "-q", "-b", "main", memory)
    c = type(home.checkout(id))(home.git, memory)
    c.run("config", "user.name", "Local")
    c.run("config", "user.email", "l@l")
    c.write("system/persona.md", "---\ndescription: d\n---\nI am\n")
    own_root = c.commit("chore: initialize local memory")
    elsewhere(home, folder, remote, id + ".git", {"system/theirs.md": "theirs\n"})
    [r] = reports(home)
    assert r["agent_id"] == id and r["state"] == "synced" and r["was_merged"], r
    c.run("merge-base", "--is-ancestor", own_root, "HEAD")
    assert c.read("system/theirs.md") == b"theirs\n" and c.text("status", "--porcelain") == ""
    assert c.text("config", "user.name") == "Local"


def test_L3_one_remote_that_hangs_holds_up_nobody_else(memfs_bin, folder, remote, agent):
    """The others' commits arrive while the first still waits: the hang ends only when they have."""
    stuck, ids = agent(), [agent() for _ in range(5)]
    home = letta_home(memfs_bin, folder, remote)
    for id in [stuck, *ids]:
        remote.repository(state_git(remote, id))
        home.run("init", "--agent", id)
        commit(home, id)
    with FakeRemote() as hole:
        hole.say("hang")
        home.checkout(stuck).run("config", "memfs.remote", hole.url("x.git"))
        running = home.popen("sync", "--json", "--wait", "60", stdout=subprocess.PIPE)
        wait(lambda: hole.requests and all(
            remote_tip(remote, state_git(remote, id)) == home.checkout(id).head for id in ids))
        assert running.poll() is None
    out, _ = running.communicate(timeout=60)
    by_id = {r["agent_id"]: r["state"] for r in json.loads(out)["agents"]}
    assert by_id.pop(stuck) == "local-only" and set(by_id.values()) == {"synced"}
    assert running.returncode == 3


def test_what_is_not_there_is_missing(memfs_bin, folder, agent):
    home = Home(memfs_bin, folder / "home")
    assert b"memfs apply" in home.run("sync").stderr
    r = json.loads(home.run("sync", "--json", "--agent", agent(), code=1).stdout)["agents"][0]
    assert r["state"] == "missing"
    home.run("sync", "--agent", "nonsense", code=2)
    home.run("sync", "--watch", "--queued", code=2)


def test_status_words_reach_the_exit_code(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    home.run("init", "--agent", id)
    for row, code in {"501": 3, "403": 4, "401": 4, "429": 3, "503": 3, "close": 3}.items():
        remote.say(row)
        assert home.sync(id, code=code)["exit"] == code


def test_F18_retry_after_is_kept(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    remote.say(Answer(429, headers={"Retry-After": "1234"}))
    r = home.apply(id)
    import datetime
    asked, again = (datetime.datetime.fromisoformat(r[k].replace("Z", "+00:00"))
                    for k in ("asked_at", "ask_again_at"))
    assert (again - asked).total_seconds() == 1234


def test_F17_races_are_merged_until_all_are_in(memfs_bin, folder, remote, agent):
    """Six homes of one agent push at the same time, again and again: nobody's commit is missing."""
    id = agent()
    remote.repository("shared.git")
    homes = []
    for i in range(6):
        h = Home(memfs_bin, folder / f"home{i}", LETTABOT_MEMFS_BACKEND="local",
                 LETTABOT_MEMFS_REMOTE=remote.url("shared.git"))
        h.apply(id, "--wait", "20")
        homes.append(h)
    tips, faults = [], []

    def work(i, h):
        try:
            for k in range(3):
                tips.append(commit(h, id, f"system/{i}.md", f"{i} {k}\n"))
                h.sync(id, code=None)
        except Exception as e:
            faults.append(e)

    threads = [threading.Thread(target=work, args=x) for x in enumerate(homes)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(240)
    assert not faults, faults[0]
    for h in homes + homes:
        assert h.sync(id)["state"] == "synced"
    heads = {h.checkout(id).head for h in homes}
    assert heads == {remote_tip(remote, "shared.git")}
    c = homes[0].check(id)
    for tip in tips:
        c.run("merge-base", "--is-ancestor", tip, "HEAD")


def test_F17_a_push_that_a_hook_refuses_is_told_with_its_words(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    path = remote.repository(state_git(remote, id))
    home.apply(id)
    hook = os.path.join(path, "hooks", "pre-receive")
    os.makedirs(os.path.dirname(hook), exist_ok=True)
    with open(hook, "w") as f:
        f.write("#!/bin/sh\necho main is protected >&2\nexit 1\n")
    os.chmod(hook, 0o755)
    head = commit(home, id)
    r = home.sync(id, code=5)
    assert r["answer"] == "rejected" and r["n_ahead"] == 1, r
    assert home.checkout(id).head == head
    os.unlink(hook)
    assert home.sync(id)["was_pushed"]


def test_a_token_that_may_only_read_is_told(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    path = remote.repository(state_git(remote, id))
    elsewhere(home, folder, remote, state_git(remote, id), {"system/a.md": "one\n"})
    home.apply(id, "--wait", "20")
    subprocess.run([GIT, "--git-dir", path, "config", "http.receivepack", "false"], check=True)
    commit(home, id)
    assert home.sync(id, code=4)["answer"] == "forbidden"


def test_pending_merges_of_subagents_are_taken_in(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    remote.repository(state_git(remote, id))
    home.apply(id)
    commit(home, id)
    c = home.checkout(id)
    c.run("checkout", "-q", "-b", "letta/reflection/1")
    tip = commit(home, id, "system/sub.md", "sub\n")
    c.run("checkout", "-q", "main")
    c.run("update-ref", "refs/memfs/pending/reflection-1", tip)
    c.run("branch", "-q", "-D", "letta/reflection/1")
    commit(home, id, "system/more.md")
    r = home.sync(id)
    assert r["state"] == "synced" and home.ref(id, "refs/memfs/pending/reflection-1") is None
    c.run("merge-base", "--is-ancestor", tip, remote_tip(remote, state_git(remote, id)))
    assert b"sub" in c.read("system/sub.md")


# -- the hub between (git-remote-memfs) ----------------------------------------------------------------

def make_hub(home, id):
    path = os.path.join(home.folder, ".memfs", "hub", id + ".git")
    home.git.run("init", "-q", "--bare", "-b", "main", path)
    return path


def test_a_hub_lies_between_checkout_and_remote(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    elsewhere(home, folder, remote, name, {"system/remote.md": "remote\n"})
    home.run("init", "--agent", id)
    commit(home, id, "system/ours.md")
    hub = make_hub(home, id)
    c = home.checkout(id)
    c.run("push", "-q", hub, "main:main")
    other = home.git.clone(hub, str(folder / "client"))
    other.run("config", "user.name", "C")
    other.run("config", "user.email", "c@c")
    other.write("system/client.md", "client\n")
    other.commit("by the client")
    other.run("push", "-q", "origin", "main")
    assert home.sync(id)["state"] == "synced"
    hub_tip = home.git.text("--git-dir", hub, "rev-parse", "main")
    assert c.head == hub_tip == remote_tip(remote, name)
    for f in ("remote", "client", "ours"):
        assert os.path.exists(os.path.join(c.path, f"system/{f}.md"))
    home.check(id)


def test_a_hub_without_a_checkout_is_carried_all_the_same(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    theirs = elsewhere(home, folder, remote, name, {"system/remote.md": "remote\n"})
    hub = make_hub(home, id)
    home.git.run("--git-dir", hub, "fetch", "-q", remote.repository(name), "main")
    tree = home.git.text("--git-dir", hub, "rev-parse", "FETCH_HEAD^{tree}")
    parent = home.git.text("--git-dir", hub, "rev-parse", "FETCH_HEAD~1")
    tip = home.git.text("--git-dir", hub, "-c", "user.name=c", "-c", "user.email=c@c", "commit-tree",
                        tree, "-p", parent, "-m", "turn")
    home.git.run("--git-dir", hub, "update-ref", "refs/heads/main", tip)
    [r] = reports(home)
    assert r["agent_id"] == id and r["state"] == "synced" and r["was_pushed"], r
    at = remote_tip(remote, name)
    for t in (tip, theirs):
        home.git.run("--git-dir", hub, "merge-base", "--is-ancestor", t, at)
    assert home.git.text("--git-dir", hub, "rev-parse", "main") == at


# -- the mirror ------------------------------------------------------------------------------------------

def mirrored(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("501"))
    home.apply(id)
    target = str(folder / "mirror.git")
    home.checkout(id).run("config", "letta.memoryRepository.url", target)
    return id, home, target


def mirror_tip(target):
    done = subprocess.run([GIT, "--git-dir", target, "rev-parse", "-q", "--verify", "main"],
                          capture_output=True)
    return done.stdout.decode().strip() or None


def queue(home, id):
    return os.path.join(home.git_dir(id), "memfs", "mirror-queue")


def enqueue(home, id):
    os.makedirs(os.path.dirname(queue(home, id)), exist_ok=True)
    with open(queue(home, id), "a") as f:
        f.write("1\n")


def test_L5_mirror_is_queued_durably_and_delivered_later(memfs_bin, folder, remote, agent):
    id, home, target = mirrored(memfs_bin, folder, remote, agent)
    head = commit(home, id)
    enqueue(home, id)                                       # as the hook does, should it be killed here
    home.run("sync", "--queued", code=None)                 # no such repository
    r = json.loads(home.run("sync", "--agent", id, "--json", code=3).stdout)["agents"][0]
    assert r["n_queued"] >= 1, r
    assert "could not push" in r["mirror_detail"] and r["mirror_detail"] in r["line"], r    # L5
    assert r["mirror_again_at"] > "2026", r
    assert re.search(r"could not push.*, tried again in \d+ s", r["line"]), r
    assert re.search(r"mirror: could not push.*, tried again in \d+ s\)",
                     home.run("status").stdout.decode())
    home.git.run("init", "-q", "--bare", "-b", "main", target)
    next_try = os.path.join(home.git_dir(id), "memfs", "mirror-next")
    assert os.path.exists(next_try)
    home.run("sync", "--queued", code=3)                    # its time has not come
    assert mirror_tip(target) is None
    os.unlink(next_try)
    home.run("sync", "--queued")
    assert mirror_tip(target) == head
    assert home.run("sync", "--agent", id, "--json", code=3) and not os.path.exists(queue(home, id))
    with open(os.path.join(home.git_dir(id), "memory-repository-push.log")) as f:
        log = f.read()
    assert f"{head[:7]} on main ---" in log and "exit=0" in log and "exit=1" in log


@pytest.mark.parametrize("is_named", [True, False])
def test_a_commit_in_another_agents_memory_reaches_its_mirror(memfs_bin, folder, remote, agent, is_named):
    """The environment says who commits, which need not be whose memory it is."""
    id, home, target = mirrored(memfs_bin, folder, remote, agent)
    home.git.run("init", "-q", "--bare", "-b", "main", target)
    if not is_named:
        home.checkout(id).run("config", "--unset", "letta.agentId")
    home.git.env["LETTA_AGENT_ID"] = home.git.env["AGENT_ID"] = agent()
    head = commit(home, id)
    wait(lambda: mirror_tip(target) == head)


def test_S3_the_mirror_never_gets_the_letta_key(memfs_bin, folder, remote, agent):
    id, home, _ = mirrored(memfs_bin, folder, remote, agent)
    with FakeRemote(folder / "mirrors", token="other") as m:
        m.repository("m.git")
        home.checkout(id).run("config", "letta.memoryRepository.url", m.url("m.git"))
        commit(home, id)
        enqueue(home, id)
        home.run("sync", "--queued", code=None)
        wait(lambda: m.requests)
        assert KEY not in repr([q.headers for q in m.requests])
        assert not [q for q in m.requests if "authorization" in q.headers]


def test_S3_the_mirror_never_gets_the_token_of_the_remote(memfs_bin, folder, remote, agent):
    """Whoever may write .git/config names the mirror; the token was given for another address."""
    id, home, _ = mirrored(memfs_bin, folder, remote, agent)
    given = folder / "credentials"
    given.mkdir()
    (given / "memfs-remote-token").write_text("the-remotes-token\n")
    (given / "memfs-remote-token").chmod(0o600)
    c = home.checkout(id)
    c.run("config", "--unset", "letta.memoryRepository.url")
    commit(home, id)                            # the hook has nothing to do: what follows is ours alone
    with FakeRemote(folder / "mirrors", token="other") as m:
        m.repository("m.git")
        c.run("config", "letta.memoryRepository.url", m.url("m.git"))
        enqueue(home, id)
        home.run("sync", "--queued", code=3, env={
            "CREDENTIALS_DIRECTORY": str(given), "MEMFS_REMOTE_TOKEN": "the-remotes-token"})
        assert m.requests and not [q for q in m.requests if "authorization" in q.headers]


def test_a_mirror_goes_on_when_doctor_took_the_token_out_of_its_address(memfs_bin, folder, remote, agent):
    id, home, _ = mirrored(memfs_bin, folder, remote, agent)
    with FakeRemote(folder / "mirrors", token="mirrors-token") as m:
        target = m.repository("m.git")
        c = home.checkout(id)
        c.run("config", "letta.memoryRepository.url",
              m.url("m.git").replace("://", "://letta:mirrors-token@"))
        home.run("doctor", "--fix", "--agent", id, code=None)
        assert home.config(id, "letta.memoryRepository.url") == [m.url("m.git")]
        head = commit(home, id)
        enqueue(home, id)
        wait(lambda: home.run("sync", "--queued", code=None).returncode == 0)
        assert mirror_tip(target) == head


def test_a_mirror_that_was_taken_away_leaves_no_queue(memfs_bin, folder, remote, agent):
    id, home, _ = mirrored(memfs_bin, folder, remote, agent)
    enqueue(home, id)
    home.checkout(id).run("config", "--unset", "letta.memoryRepository.url")
    home.run("sync", "--queued")
    assert not os.path.exists(queue(home, id))
