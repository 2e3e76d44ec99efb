"""The mirror and what goes wrong between it and its remotes: faults F10 to F28, each by its name.

Every remote here is a listener on a real socket that serves real git: gitolite behind nginx (lib/gitolite.py),
git http-backend behind a server that breaks on demand (lib/fake_remote.py, lib/tlsgit.py), sshd, and a proxy that
treats connections as bad networks do (lib/faultproxy.py).  Where many troubles take long to be sure of, one server
has a remote for each of them, so that they are waited for together.

F10 and F11 for a client that pushes here are test_faults.py's (test_F10_…, test_F04_F11_damaged_packs), F12, F13 and
F14 without a mirror too; F15 to F18 with each host's own API are test_hosts.py's.
"""
import os
import re
import shutil
import subprocess
import threading
import time

import pytest

from lib.disk import fill, tmpfs
from lib.fake_remote import Answer, BlackHole, FakeRemote, closed_port
from lib.faultproxy import FaultProxy
from lib.fleet import FleetServer, Writer, history
from lib.gitcli import GIT, Git, git_env
from lib.gitolite import Gitolite
from lib.machines import Machine, Network
from lib.patience import remove_tree, settled, wait
from lib.refwatch import RefWatch
from lib.server import CANARY, new_agent
from lib.sshd import Sshd
from lib.tlsgit import Authority, HandshakeCut, TlsGit
from lib.writer import Memory

TOKEN = "mirror-token-0123456789abcdef"


@pytest.fixture
def host(folder):
    with Gitolite(folder) as h:
        yield h


@pytest.fixture
def remote(folder):
    with FakeRemote(root=folder / "remote", token=TOKEN, create=True) as r:
        yield r


@pytest.fixture
def make(memfs_bin, folder):
    """make(name, host=…): a server; at the end each is stopped and examined."""
    made = []

    def one(name="s", start=True, **kw):
        s = FleetServer(memfs_bin, folder / name, **kw)
        made.append(s)
        return s.start() if start else s

    yield one
    faults = []
    for s in made:
        try:
            s.stop()
            s.check_clean()
            s.check_no_host_token(TOKEN, *(s.host.tokens.values() if s.host else ()))
        except Exception as e:
            faults.append(e)
        finally:
            s.close()
    if faults:
        raise faults[0]


@pytest.fixture
def token_file(folder):
    path = folder / "remote-token"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write(TOKEN + "\n")
    return str(path)


@pytest.fixture
def plain(folder):
    """A git client that shows no key of its own: for the hosts."""
    return Git(folder / "plainhome")


def serve_from(make, remote, token_file, poll=2, **more):
    s = make(start=False)
    s.configure(origin={"url": remote.url("{agentId}.git"), "tokenFile": token_file, "poll": poll, **more})
    return s.start()


def first_push(s, agent, text="first\n"):
    m = Memory(s, agent)
    m.must_push({"system/human.md": text})
    return m


def own(host, path, account="anna"):
    return host.url(path).replace("://", f"://{account}:{host.token(account)}@")


def tip_of(path):
    done = subprocess.run([GIT, "--git-dir", str(path), "rev-parse", "-q", "--verify", "refs/heads/main"],
                          capture_output=True, timeout=60, env=git_env("/nonexistent"))
    return done.stdout.decode().strip() or None


def wait_tip(path, tip):
    wait(lambda: tip_of(path) == tip, lambda: f"{path} at {tip}, it is at {tip_of(path)}")


def mirrored(row):
    return row["state"] == "mirrored" and row["local_tip"] == row["remote_tip"]


NO_ROOM = "disk of the server is full|No space left|no room on the disk|could not be written here"


# ---- F06, F09: this side's own troubles are not told as the remote's

def test_F06_a_disk_that_is_full_here_is_not_the_remotes_fault(memfs_bin, folder, remote, token_file, plain):
    agent = new_agent()
    with tmpfs(folder / "small", 16 << 10) as disk:
        s = FleetServer(memfs_bin, folder / "s", home=disk.path + "/home")
        ballast = disk.path + "/ballast"
        s.configure(origin={"url": remote.url("{agentId}.git"), "tokenFile": token_file, "poll": 600})
        try:
            s.start()
            first_push(s, agent)
            s.wait_row(agent, mirrored)
            c = plain.clone(os.path.join(remote.root, agent + ".git"), folder / "other")
            was = c.head
            new = c.save({"notes/big.md": os.urandom(200_000).hex()})
            for room in (32, 64, 128, 240, 260):
                fill(ballast, room)
                done = s.cli("mirror", "sync", "--agent", agent, check=False)
                os.unlink(ballast)
                if done.returncode == 0:
                    break
                words = done.stderr.decode() + (s.row(agent)["failure"] or "")
                assert re.search(NO_ROOM, words), words
                assert "the remote failed" not in words and s.home not in words, words
                assert s.tip(agent) == was
            s.cli("mirror", "sync", "--agent", agent)
            s.wait_row(agent, mirrored)
            assert s.tip(agent) == new and "notes/big" in s.blocks(agent)
            s.wait_no_leftovers()
            s.stop()
            s.check_clean()
        finally:
            s.close()


def test_F06_a_rebuild_gives_up_when_the_disk_is_full(memfs_bin, folder, remote, token_file, plain):
    ids = [new_agent() for _ in range(24)]
    first = remote.repository(ids[0] + ".git")
    c = plain.clone(first, folder / "other")
    c.save({"notes/big.md": os.urandom(400_000).hex()})
    for other in ids[1:]:
        shutil.copytree(first, os.path.join(remote.root, other + ".git"))
    missing = ids[1:]       # one that is here already would interrupt the row of failures
    (folder / "ids").write_text("\n".join(missing) + "\n")
    with tmpfs(folder / "small", 64 << 10) as disk:
        s = FleetServer(memfs_bin, folder / "s", home=disk.path + "/home")
        s.configure(origin={"url": remote.url("{agentId}.git"), "tokenFile": token_file})
        try:
            s.cli("rebuild", "--from-remote", "--agent", ids[0])
            fill(disk.path + "/ballast", 300)
            command = ["rebuild", "--from-remote", "--agents", folder / "ids"]
            done = s.cli(*command, check=False)
            said = (done.stdout + done.stderr).decode()
            assert done.returncode == 1 and "the remote failed" not in said, said
            assert re.search(f"given up after .* of 23 agents: .*({NO_ROOM})", said), said
            assert s.leftovers() == []
            os.unlink(disk.path + "/ballast")
            done = s.cli(*command, check=False)
            assert done.returncode == 0, done.stdout
            s.start()
            for agent in ids:
                s.wait_row(agent, mirrored)
                assert s.has_object(agent, c.head)
            s.stop()
            s.check_clean()
        finally:
            s.close()


def test_F09_a_credential_that_could_not_be_handed_over_was_not_refused(memfs_bin, folder, remote, token_file):
    """The helper that git asks is killed, as one without memory is: nobody refused a token."""
    agent = new_agent()
    (folder / "bin").mkdir()
    for name in ("memfs", "memfs-server", "memfs-hook"):
        shutil.copy(os.path.join(os.path.dirname(memfs_bin), name), folder / "bin")
    hook = str(folder / "bin" / "memfs-hook")
    s = FleetServer(folder / "bin" / "memfs", folder / "s")
    s.configure(origin={"url": remote.url("{agentId}.git"), "tokenFile": token_file, "poll": 600})
    try:
        s.start()
        m = first_push(s, agent)
        s.wait_row(agent, mirrored)
        os.rename(hook, hook + ".kept")
        with open(os.open(hook, os.O_WRONLY | os.O_CREAT, 0o755), "w") as f:
            f.write("#!/bin/sh\nkill -9 $$\n")
        m.must_push({"system/human.md": "without a helper\n"})
        row = s.wait_row(agent, lambda r: r["failure"])
        assert row["state"] == "failing" and "refused" not in row["failure"], row
        assert row["next_try_s"] is not None, row
        os.rename(hook + ".kept", hook)
        s.wait_row(agent, mirrored, 60)     # by itself
        assert tip_of(os.path.join(remote.root, agent + ".git")) == m.tip
        s.stop()
        s.check_clean()
    finally:
        s.close()


# ---- F10, F11: what comes from a remote is cut, damaged, or another repository's

def test_F10_F11_T23_a_broken_fetch_changes_nothing(make, remote, token_file, plain, folder):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    first_push(s, agent)
    path = os.path.join(remote.root, agent + ".git")
    s.wait_row(agent, mirrored)
    before = s.state_of(agent)
    c = plain.clone(path, folder / "other")
    c.write("notes/big.md", "".join(f"line {i} {os.urandom(20).hex()}\n" for i in range(2000)))
    new = c.commit()
    size = 40000    # the pack has that much at least
    for how, at in (("cut", 0), ("cut", 1), ("cut", 100), ("reset", 3000), ("cut", size)):
        remote.break_at("pack", at, how)
        if at == 0:
            c.push()
        n = len(remote.requests)
        s.cli("mirror", "retry", "--agent", agent, check=False)
        wait(lambda: len(remote.requests) > n)
        assert s.state_of(agent) == before, (how, at)
        row = s.row(agent)
        assert row["failure"] or row["state"] == "behind", row
    remote.mend()
    s.cli("mirror", "retry", "--agent", agent)
    s.wait_row(agent, mirrored)
    assert s.tip(agent) == new


def test_F11_T23_a_damaged_repository_there_does_not_come_here(make, remote, token_file, plain, folder):
    """Objects of the remote with flipped bytes: refused, with words; mended by its owner: taken."""
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    first_push(s, agent)
    path = os.path.join(remote.root, agent + ".git")
    s.wait_row(agent, mirrored)
    c = plain.clone(path, folder / "other")
    new = c.save({"notes/a.md": "a text that compresses\n" * 50})
    blob = c.text("rev-parse", "HEAD:notes/a.md")
    loose = os.path.join(path, "objects", blob[:2], blob[2:])
    if not os.path.exists(loose):
        pytest.fail("the push was not unpacked: this test needs it loose")
    s.kill()                            # it may have fetched the good one already
    kept = open(loose, "rb").read()
    home = s.home
    shutil.rmtree(home + "-2", ignore_errors=True)
    os.chmod(loose, 0o644)
    with open(loose, "wb") as f:
        f.write(kept[:10] + bytes([kept[10] ^ 0x55]) + kept[11:])
    other = make("fresh", start=False)
    other.configure(origin={"url": remote.url("{agentId}.git"), "tokenFile": token_file, "poll": 1})
    other.start()
    m = Memory(other, agent)
    m.must_push({"system/persona.md": "written here meanwhile\n"})
    row = other.wait_row(agent, lambda r: r["failure"])
    assert row["state"] == "failing" and tip_of(path) == new, row
    assert other.tip(agent) == m.tip
    with open(loose, "wb") as f:
        f.write(kept)
    other.cli("mirror", "retry", "--agent", agent, check=False)
    other.wait_row(agent, mirrored)
    commits, _ = history(other.repository(agent))
    assert {new, m.tip} <= commits
    s.start()
    s.wait_row(agent, lambda r: mirrored(r) and r["remote_tip"] == tip_of(path))


# ---- F14: somebody's own hands in the data folder

def test_F14_H1_a_commit_made_by_hand_is_mirrored_and_a_rewind_comes_back(make, remote, token_file):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    m = first_push(s, agent)
    path = os.path.join(remote.root, agent + ".git")
    s.wait_row(agent, mirrored)
    tree = s.git_dir(agent, "rev-parse", "main^{tree}").stdout.decode().strip()
    made = s.git_dir(agent, "commit-tree", tree, "-p", "main", "-m", "by hand").stdout.decode().strip()
    s.git_dir(agent, "update-ref", "refs/heads/main", made)
    wait_tip(path, made)
    s.rewrites_allowed = True       # the watcher is right about what comes now: it is the test's doing
    s.git_dir(agent, "update-ref", "refs/heads/main", m.tip)
    s.cli("mirror", "retry", "--agent", agent, check=False)
    wait(lambda: s.tip(agent) == made)
    assert tip_of(path) == made


# ---- F15: 401, 403

def test_F15_a_refused_token_stops_the_asking_until_it_changes(make, host, folder):
    agent = new_agent()
    s = make(host=host, poll_s=1)
    first_push(s, agent)
    s.wait_row(agent, mirrored)
    host.revoke("memfs")
    m = Memory(s, agent)
    m.tip, m.files = s.tip(agent), {}
    m.must_push({"system/human.md": "second\n"})
    row = s.wait_row(agent, lambda r: r["state"] == "auth-failed")
    assert row["failure"] and row["advice"], row
    n = settled(lambda: refusals(host))
    time.sleep(4)           # four polls
    assert refusals(host) <= n + 1, "a refused token is shown again and again"
    host.restore("memfs", "glt" + "0" * 40)     # the host gives out another one …
    time.sleep(1)
    assert s.row(agent)["state"] == "auth-failed"
    with open(s.token_file, "w") as f:
        f.write(host.token("memfs") + "\n")     # … and the operator puts it here: nothing else to do
    s.wait_row(agent, mirrored)
    assert host.tip(f"agents/{agent}.git") == m.tip


def refusals(host):
    with open(os.path.join(host.folder, "access.log")) as f:
        return sum('" 401 ' in line and " - - " not in line for line in f)


def test_F15_a_right_that_is_missing_is_told(make, host):
    """The account may read and not write: what the host says is shown, local work goes on."""
    agent = new_agent()
    s = make(start=False, host=host)
    s.configure(origin={"url": host.template, "username": "outsider", "allowHttp": "true", "poll": 1,
                        "tokenFile": s._secret_file("token", host.token("outsider"))})
    s.start()
    m = first_push(s, agent)
    row = s.wait_row(agent, lambda r: r["failure"])
    assert "DENIED" in row["failure"] or "refused" in row["failure"], row
    m.must_push({"system/human.md": "local work goes on\n"})
    assert host.tip(f"agents/{agent}.git") is None


def sync_from_git(s, agent, timeout=90):
    return s.request("POST", f"/v1/agents/{agent}/memory/sync-from-git", b"", timeout=timeout)


def test_F15_F18_an_agent_cannot_make_the_host_be_asked_what_it_refused(make, remote, token_file):
    """Its token may ask for a sync as often as it likes; accounts are locked by less."""
    agent = new_agent()
    remote.token = "another"
    s = serve_from(make, remote, token_file, poll=3600)
    first_push(s, agent)
    s.wait_row(agent, lambda r: r["state"] == "auth-failed")
    for state, said in (("auth-failed", None), ("failing", Answer(429, headers={"Retry-After": "3000"}))):
        if said is not None:
            remote.token, remote.answer = TOKEN, said
            s.cli("mirror", "retry", check=False)
        s.wait_row(agent, lambda r: r["state"] == state)
        n = len(remote.requests)
        for _ in range(10):
            answer = sync_from_git(s, agent)
            assert answer.status == 200 and answer.headers["x-memfs-remote"].startswith("failed"), answer
        assert len(remote.requests) == n, "the host is asked again and again"
    remote.mend()
    s.cli("mirror", "retry")        # the operator may
    s.wait_row(agent, mirrored)
    assert sync_from_git(s, agent).headers["x-memfs-remote"].startswith("ok")


def test_L3_T17_whoever_waits_for_a_host_that_hangs_holds_nobody_up(make, remote, token_file):
    s = serve_from(make, remote, token_file, poll=3600)
    agents = [new_agent() for _ in range(40)]       # more than there are places
    for agent in agents:
        first_push(s, agent)
    for agent in agents:
        s.wait_row(agent, mirrored)
    remote.say("hang")
    n, answers = len(remote.requests), []
    threads = [threading.Thread(target=lambda a=a: answers.append(sync_from_git(s, a)))
               for a in agents]
    for t in threads:
        t.start()
    wait(lambda: len(remote.requests) > n, "the host is asked")
    time.sleep(1)                       # the others wait for their turn
    assert s.get("/v1/agents/count").status == 200 and answers == [], "it waited, too"
    remote.close()
    for t in threads:
        t.join(90)
    assert len(answers) == 40 and {a.status for a in answers} <= {200, 503}, answers
    told = {a.headers["x-memfs-remote"].split(";")[0] for a in answers if a.status == 200}
    assert told <= {"failed"}, answers


def test_F30_a_stop_does_not_wait_for_a_host_that_hangs(make, remote, token_file):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=3600)
    remote.say("hang")
    first_push(s, agent)
    wait(lambda: len(remote.requests) > 0, "the host is asked")
    s.stop()
    assert "answer in time" not in s.log(), "the question's whole time was waited for"
    remote.mend()
    s.start()
    s.wait_row(agent, mirrored)         # what it was at is done again


# ---- F16: missing, moved, unborn, deleted

def test_F16_a_missing_repository_is_no_empty_one(make, folder, token_file):
    with FakeRemote(root=folder / "remote", token=TOKEN) as r:
        agent = new_agent()
        s = serve_from(make, r, token_file, poll=1)
        m = first_push(s, agent)
        row = s.wait_row(agent, lambda r: r["state"] == "missing")
        assert row["advice"] and s.tip(agent) == m.tip, row
        r.repository(agent + ".git")            # somebody makes it: unborn, so it gets what we have
        s.cli("mirror", "retry", "--agent", agent, check=False)
        s.wait_row(agent, mirrored)
        path = os.path.join(r.root, agent + ".git")
        assert tip_of(path) == m.tip
        remove_tree(path)                       # gone again: nothing here is deleted
        time.sleep(2)
        m.must_push({"system/human.md": "still here\n"})
        s.wait_row(agent, lambda r: r["state"] == "missing")
        assert s.tip(agent) == m.tip


def test_F16_a_host_that_redirects_is_not_followed(make, remote, token_file):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    remote.say("redirect")
    m = first_push(s, agent)
    row = s.wait_row(agent, lambda r: r["failure"])
    assert "elsewhere.invalid" in row["failure"] or "redirect" in row["failure"], row
    assert s.tip(agent) == m.tip
    remote.mend()
    s.cli("mirror", "retry", "--agent", agent, check=False)
    s.wait_row(agent, mirrored)


def test_F16_H5_a_branch_that_was_deleted_there_is_pushed_again(make, remote, token_file):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    m = first_push(s, agent)
    path = os.path.join(remote.root, agent + ".git")
    s.wait_row(agent, mirrored)
    subprocess.run([GIT, "--git-dir", path, "update-ref", "-d", "refs/heads/main"], check=True, timeout=60)
    wait_tip(path, m.tip)
    row = s.wait_row(agent, lambda r: r["note"] == "deleted")
    assert row["note_advice"], row
    assert s.tip(agent) == m.tip and s.value(agent, "system/human") == "first\n"


def test_F16_a_repository_that_vanished_is_missing_until_it_is_filled_again(make, remote, token_file):
    """Where a push makes repositories, one that is gone may not pass for one that has everything."""
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1, create="true")
    m = first_push(s, agent)
    path = os.path.join(remote.root, agent + ".git")
    meta = os.path.join(path, "refs/memfs/meta")
    s.wait_row(agent, mirrored)
    wait(lambda: os.path.exists(meta), "the sidecar")
    remote.create = False
    os.rename(path, path + ".away")
    s.wait_row(agent, lambda r: r["state"] == "missing")
    remote.create = True
    wait_tip(path, m.tip)
    s.wait_row(agent, mirrored)
    wait(lambda: os.path.exists(meta), "the sidecar again")


# ---- F17: not a fast-forward, protected, a hook says no

def test_F17_a_lost_race_is_merged_and_pushed_again(make, host, plain, folder):
    agent = new_agent()
    s = make(host=host, poll_s=30)      # polls play no part
    first_push(s, agent)
    s.wait_row(agent, mirrored)
    path = f"agents/{agent}.git"
    watch = RefWatch(host.root).start()
    c = plain.clone(own(host, path), folder / "other")
    for i in range(5):
        c.run("pull", "-q", "--no-rebase", "origin", "main")
        theirs = c.save({f"notes/there-{i}.md": f"there {i}\n"})
        g = Git(folder / f"gh{i}", CANARY).clone(s.git_url(agent), folder / f"here-{i}")
        ours = g.save({f"notes/here-{i}.md": f"here {i}\n"})
        s.wait_row(agent, mirrored)
        commits, _ = history(host.repository(path))
        assert {ours, theirs} <= commits
        assert s.value(agent, f"notes/there-{i}") == f"there {i}\n"
    watch.stop()
    watch.check()


def test_F17_T20_a_protected_branch_is_told_in_the_hosts_words(make, host):
    agent = new_agent()
    s = make(start=False, host=host)
    s.configure(origin={"url": host.url("locked/{agentId}.git"), "username": "memfs", "allowHttp": "true",
                        "poll": 1, "tokenFile": s.token_file})
    s.start()
    m = first_push(s, agent)
    row = s.wait_row(agent, lambda r: r["note"] == "rejected" or r["failure"])
    words = (row["note_text"] or "") + (row["failure"] or "")
    assert "hook declined" in words or "DENIED" in words, row
    assert not re.search(r"[\x00-\x1f\x7f]", words), words
    assert s.tip(agent) == m.tip
    host.configure("repo locked/..*\n    C = memfs\n    RW+ = memfs\n")
    s.cli("mirror", "retry", "--agent", agent, check=False)
    s.wait_row(agent, mirrored)
    assert host.tip(f"locked/{agent}.git") == m.tip


# ---- T28: what was purged here is still there

def test_T28_what_was_purged_does_not_come_back(make, remote, token_file):
    """The remote has it for good: nothing is forced there, and it is told how that ends."""
    secret = b"sk-live-TheLeakedSecretOfThisTest-0123456789"
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    s.rewrites_allowed = True
    m = first_push(s, agent)
    leaked = m.must_push({"notes/leak.md": b"key: " + secret + b"\n"})
    old = m.must_push({"notes/leak.md": None})
    s.wait_row(agent, mirrored)
    done = s.cli("purge", "--agent", agent, "--secret-stdin", input=secret + b"\n")
    assert b"Remotes hold it" in done.stderr, done.stderr
    row = s.wait_row(agent, lambda r: r["note"] == "refused")
    assert row["state"] == "held" and "purged" in row["note_text"] and "purged" in row["note_advice"], row
    for how in ("--keep-ours", "--keep-theirs"):
        assert s.cli("mirror", "resolve", "--agent", agent, how, check=False).returncode == 5
    def fetches():
        return sum(b"command=fetch" in r.body for r in remote.requests)
    n = settled(fetches)
    time.sleep(3)
    assert fetches() == n, "fetched again and again"
    path = os.path.join(remote.root, agent + ".git")
    assert tip_of(path) == old and not s.has_object(agent, leaked)
    subprocess.run([GIT, "--git-dir", path, "update-ref", "-d", "refs/heads/main"], check=True,
                   env=git_env("/nonexistent"), timeout=60)
    s.cli("mirror", "retry", "--agent", agent)
    s.wait_row(agent, mirrored)
    assert tip_of(path) == s.tip(agent) and not s.has_object(agent, leaked)


# ---- F18: a server that answers, but not with git

@pytest.mark.parametrize("answer, words", [
    ("429", "too many"), ("500", "fails"), ("501", "not implemented"), ("502", "fails"), ("503", "fails"),
    ("html", "not a git server"), ("captive", "not a git server"), ("garbage", ""), ("empty-body", ""),
    ("endless-head", "")])
def test_F18_answers_that_are_no_git(make, remote, token_file, answer, words):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    remote.say(answer)
    m = first_push(s, agent)
    row = s.wait_row(agent, lambda r: r["failure"])
    assert words in row["failure"], row
    assert row["state"] in ("failing", "waiting") and row["failures"] >= 1, row
    assert row["next_try_s"] is not None, row
    assert s.tip(agent) == m.tip
    m.must_push({"system/human.md": "local first\n"})
    remote.mend()
    s.cli("mirror", "retry", "--agent", agent, check=False)
    s.wait_row(agent, mirrored)
    assert tip_of(os.path.join(remote.root, agent + ".git")) == m.tip


def test_F18_retry_after_is_honoured_and_a_backoff_grows(make, remote, token_file):
    agent = new_agent()
    s = serve_from(make, remote, token_file, poll=1)
    remote.say(Answer(503, headers={"Retry-After": "14"}))
    m = first_push(s, agent)
    row = s.wait_row(agent, lambda r: r["failure"])
    assert 5 <= row["next_try_s"] <= 15, row
    n = len(remote.requests)
    time.sleep(3)
    assert len(remote.requests) == n, "asked before the time that the host said"
    remote.mend()
    s.wait_row(agent, mirrored, 60)     # by itself
    assert tip_of(os.path.join(remote.root, agent + ".git")) == m.tip


# ---- F19: the network

def test_F19_every_way_a_connection_can_fail(make, folder, token_file):
    """A remote for each way, all of one agent's; meanwhile pushes here go on as ever."""
    agent = new_agent()
    with FakeRemote(root=folder / "remote", token=TOKEN, create=True) as r, BlackHole() as hole:
        ways = {"reset0": ("reset", 0), "reset200": ("reset", 200), "cut50": ("cut", 50),
                "halfopen": ("half-open", 60), "garbage": ("garbage", 40), "drip": ("drip", 1),
                "silent": ("silent", 0), "upcut": ("cut", 100)}
        proxies = {name: FaultProxy("127.0.0.1", r.port).behave(
            *how, side="up" if name == "upcut" else "down") for name, how in ways.items()}
        config = {name: {"url": p.url(r.url(name + "/{agentId}.git"))} for name, p in proxies.items()}
        config["refused"] = {"url": f"http://127.0.0.1:{closed_port()}/{{agentId}}.git"}
        config["noname"] = {"url": "https://nowhere.invalid/{agentId}.git"}
        config["hole"] = {"url": f"http://127.0.0.1:{hole.port}/{{agentId}}.git"}
        config["good"] = {"url": r.url("good/{agentId}.git")}
        for c in config.values():
            c.update(tokenFile=token_file, poll=600)
        s = make(start=False)
        s.configure(**config)
        s.start()
        m = first_push(s, agent)
        s.wait_row(agent, mirrored, 120, "good")
        for name in config:
            if name != "good":
                row = s.wait_row(agent, lambda r: r["failure"], 180, name)
                assert row["state"] in ("failing", "waiting"), row
                assert row["unmirrored_s"] is not None, row
        m.must_push({"system/human.md": "meanwhile\n"})
        s.kill()                        # what is still to be done is found again after a kill …
        s.start()
        for p in proxies.values():
            p.mend()
        s.cli("mirror", "retry", "--agent", agent, check=False, timeout=300)
        for name in proxies:            # … and done when the network is there again
            s.wait_row(agent, mirrored, 180, name)
            assert tip_of(os.path.join(r.root, name, agent + ".git")) == m.tip
        for p in proxies.values():
            p.close()


def test_F19_a_host_that_vanishes_from_the_network(memfs_bin, folder):
    """The cable is pulled in the middle of the work; the machine itself notices nothing."""
    agent = new_agent()
    with Network() as net:
        machine, there = net.machine("here"), net.machine("there")
        host = Gitolite(folder, machine=there)
        s = FleetServer(memfs_bin, folder / "s", machine, host, poll_s=1)
        try:
            s.start()
            w = Writer(s, agent, "w", 1, folder)
            with machine.inside():
                while len(w.acked) < 3:
                    w._round()
            s.wait_row(agent, mirrored)
            there.cut()
            with machine.inside():
                while len(w.acked) < 8:
                    w._round()
            row = s.wait_row(agent, lambda r: r["failure"], 60)
            assert row["unmirrored_s"] is not None, row
            there.heal()
            s.wait_row(agent, mirrored, 120)     # by itself
            commits, _ = history(host.repository(f"agents/{agent}.git"))
            assert set(w.acked) <= commits
            s.stop()
            s.check_clean()
        finally:
            s.close()
            host.close()


# ---- F20: TLS

def test_F20_tls_that_cannot_be_trusted(make, folder, token_file):
    ca = Authority(folder / "ca")
    cases = {   # name → (context, what must be said)
        "expired": (ca.context(expired=True), "expired"),
        "wrongname": (ca.context(names=["other.example"]), "name"),
        "unknown": (Authority(folder / "stranger").context(), "issuer|self-signed|unable to get|unknown"),
        "old": (ca.context(max_version=__import__("ssl").TLSVersion.TLSv1_1), "version|protocol|TLS"),
        "good": (ca.context(), None)}
    agent = new_agent()
    servers = {n: TlsGit(folder / n, token=TOKEN, context=c, create=True) for n, (c, _) in cases.items()}
    with HandshakeCut() as cut:
        config = {n: {"url": r.url("{agentId}.git")} for n, r in servers.items()}
        config["cut"] = {"url": f"https://127.0.0.1:{cut.port}/{{agentId}}.git"}
        for c in config.values():
            c.update(tokenFile=token_file, caFile=ca.file, poll=600)
        s = make(start=False)
        s.configure(**config)
        s.start()
        m = first_push(s, agent)
        s.wait_row(agent, mirrored, 60, "good")
        assert tip_of(os.path.join(servers["good"].root, agent + ".git")) == m.tip
        for name, row in ((n, s.wait_row(agent, lambda r: r["failure"], 120, n)) for n in config
                          if n != "good"):
            wanted = cases[name][1] if name in cases else "TLS|SSL|cut|handshake"
            assert re.search(wanted, row["failure"], re.I), (name, row)
            assert row["state"] in ("failing", "waiting"), row
            if name in servers:
                assert not [q for q in servers[name].requests if "authorization" in q.headers], name
    for r in servers.values():
        r.close()


# ---- F21: ssh

def test_F21_ssh_keys_that_do_not_fit(make, folder):
    path = folder / "ssh-remote"
    agent = new_agent()
    with Sshd(folder / "a") as good, Sshd(folder / "b") as changed:
        changed.change_host_key()
        for name in ("good", "nokey", "unknown", "changed"):
            subprocess.run([GIT, "init", "-q", "--bare", "-b", "main", str(path / name / (agent + ".git"))],
                           check=True, timeout=60)

        def at(sshd, name, key, known):
            return {"url": sshd.url(f"{path}/{name}/{{agentId}}.git"), "sshKey": key, "sshKnownHosts": known,
                    "poll": 600}

        s = make(start=False)
        s.configure(good=at(good, "good", good.key, good.known_hosts),
                    nokey=at(good, "nokey", good.stranger, good.known_hosts),
                    unknown=at(good, "unknown", good.key, good.no_known_hosts),
                    changed=at(changed, "changed", changed.key, changed.known_hosts))
        s.start()
        m = first_push(s, agent)
        s.wait_row(agent, mirrored, 60, "good")
        assert tip_of(path / "good" / (agent + ".git")) == m.tip
        row = s.wait_row(agent, lambda r: r["failure"], 60, "nokey")
        assert row["state"] == "auth-failed", row
        for name, sshd in (("unknown", good), ("changed", changed)):
            row = s.wait_row(agent, lambda r: r["failure"], 60, name)
            assert re.search("host key", row["failure"], re.I), row
            assert tip_of(path / name / (agent + ".git")) is None
            assert open(sshd.known_hosts if name == "changed" else sshd.no_known_hosts).read() == \
                ("" if name == "unknown" else open(changed.known_hosts).read()), "a key was taken silently"


# ---- F25: the clock

def test_F25_a_clock_that_went_back_makes_no_wait_longer(make, remote, token_file, memfs_bin):
    agent = new_agent()
    s = make(start=False, env=Machine.clock("+30y", memfs_bin))
    s.configure(origin={"url": remote.url("{agentId}.git"), "tokenFile": token_file, "poll": 600})
    s.start()
    remote.say("503")                   # with Retry-After: 3
    m = first_push(s, agent)
    s.wait_row(agent, lambda r: r["failure"])
    s.stop()
    s.extra_env["FAKETIME"] = "+0"
    remote.mend()
    s.start()
    s.wait_row(agent, mirrored, 20)     # by itself
    assert tip_of(os.path.join(remote.root, agent + ".git")) == m.tip


# ---- F26: webhooks that come twice, too early, in disorder, or never

def fetches(host):
    """Fetches that the host served: POSTs of upload-pack with a pack's worth of answer."""
    with open(os.path.join(host.folder, "access.log")) as f:
        return sum("git-upload-pack HTTP" in line and '"POST' in line for line in f)


def asked(host):
    with open(os.path.join(host.folder, "access.log")) as f:
        return sum(1 for _ in f)


def test_F26_webhooks_twice_early_disordered_and_missing(make, host, plain, folder, scale):
    agent = new_agent()
    path = f"agents/{agent}.git"
    s = make(host=host, poll_s=3600)
    first_push(s, agent)
    s.wait_row(agent, mirrored)
    c = plain.clone(own(host, path), folder / "other")

    def deliver(old, new):
        return host._post(s.hook_url, s.secret, old, new, "refs/heads/main", f"agents/{agent}")

    old = c.head
    c.write("notes/early.md", "early\n")
    early = c.commit()
    assert deliver(old, early) == 202           # it is told before it is there
    time.sleep(0.5)
    c.push()
    later = c.save({"notes/later.md": "later\n"})
    assert deliver(early, later) == 202
    wait(lambda: s.tip(agent) == later, "the early one and the next")
    one = c.save({"notes/one.md": "1\n"})
    two = c.save({"notes/two.md": "2\n"})
    assert deliver(one, two) == deliver(later, one) == 202      # in disorder
    wait(lambda: s.tip(agent) == two, "the disordered ones")
    s.wait_row(agent, mirrored)
    before = settled(lambda: asked(host))
    n = scale(300, 10000)
    answers = [deliver(one, two) for _ in range(n)]             # a storm of what is known already
    assert set(answers) <= {202, 429, 503} and answers[0] == 202, set(answers)
    time.sleep(1)
    assert asked(host) - before <= 2, f"{asked(host) - before} questions for {n} replays"
    s.stop()
    text = open(os.path.join(s.home, "config")).read().replace("poll = 3600", "poll = 2")
    with open(os.path.join(s.home, "config"), "w") as f:
        f.write(text)
    s.start()
    missed = c.save({"notes/missed.md": "never told\n"})
    wait(lambda: s.tip(agent) == missed, "what no webhook told")


def test_F26_T22_a_forged_webhook_is_worth_nothing(make, host):
    agent = new_agent()
    s = make(host=host, poll_s=3600)
    first_push(s, agent)
    s.wait_row(agent, mirrored)
    before = settled(lambda: asked(host))
    for secret in ("wrong", s.secret + "x", " "):
        assert host._post(s.hook_url, secret, "1" * 40, "2" * 40, "refs/heads/main",
                          f"agents/{agent}") in (401, 403)
    time.sleep(1)
    assert asked(host) == before


# ---- F27: everything at the same instant

def test_F27_H1_H2_K1_everything_at_once(make, host, plain, folder, scale):
    agent = new_agent()
    path = f"agents/{agent}.git"
    s = make(host=host, poll_s=1)
    first_push(s, agent)
    s.wait_row(agent, mirrored)
    host.webhook(s.hook_url, s.secret)
    watch = RefWatch(host.root).start()
    here = Writer(s, agent, "here", 3, folder)
    there = plain.clone(own(host, path), folder / "there")
    acked, faults = [], []
    n_rounds = scale(12, 2000)

    def push_there(i):
        there.run("fetch", "-q", "origin")
        there.run("checkout", "-q", "-f", "-B", "main", "origin/main")
        there.write(f"notes/{'abcdefgh'[i % 8]}.md", f"there {i}\n")
        head = there.commit(f"there {i}")
        if there.push(check=False).returncode == 0:
            acked.append(head)

    jobs = {
        "push here": lambda i: here._round(),
        "push there": push_there,
        "sync": lambda i: s.request("POST", f"/v1/agents/{agent}/memory/sync-from-git"),
        "repack": lambda i: s.cli("repack", "--agent", agent, check=False),
        "backup": lambda i: s.cli("backup", "--out", folder / f"backup-{i}", check=False),
        "verify": lambda i: s.cli("mirror", "verify", "--agent", agent, check=False),
    }
    barrier = threading.Barrier(len(jobs))

    def worker(job):
        try:
            for i in range(n_rounds):
                barrier.wait(120)
                job(i)
        except BaseException as e:
            faults.append(e)
            barrier.abort()

    threads = [threading.Thread(target=worker, args=(job,)) for job in jobs.values()]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults, faults
    s.wait_row(agent, lambda r: mirrored(r) and r["remote_tip"] == host.tip(path), 60)
    watch.stop()
    watch.check()
    commits, _ = history(host.repository(path))
    assert here.acked and acked and set(here.acked + acked) <= commits


# ---- F28: what one pushed comes back to it, and to the other

def test_F28_own_pushes_come_back_and_two_servers_are_quiet(make, host, plain, folder):
    agent = new_agent()
    path = f"agents/{agent}.git"
    one, two = (make(n, host=host, poll_s=1) for n in ("one", "two"))
    for s in (one, two):
        host.webhook(s.hook_url, s.secret)
    m = first_push(one, agent)
    wait(lambda: two.tip(agent) == m.tip or two.cli("mirror", "retry", "--agent", agent, check=False) and False,
         lambda: f"the other server has it\n{one.log_tail(30)}\n--\n{two.log_tail(30)}")
    for i in range(5):
        m.must_push({"system/human.md": f"round {i}\n"})
        wait(lambda: two.tip(agent) == m.tip)
    time.sleep(4)       # polls and webhooks of what everybody knows
    assert one.tip(agent) == two.tip(agent) == host.tip(path) == m.tip
    commits, merges = history(host.repository(path))
    assert not merges, "a merge of nothing"
    with open(os.path.join(host.repository(path), "logs", "refs", "heads", "main")) as f:
        assert sum(1 for _ in f) <= 6, "the host's main moved more often than anybody wrote"
    assert two.value(agent, "system/human") == "round 4\n"
