"""An empty machine from the host, and the proof that the host could do it (issue: rebuild anywhere; H5, D5, K4).

What one server has mirrored, another one brings back with `memfs rebuild --from-remote`: repositories byte for
byte, blocks with their ids and dates, names and tags.  `memfs mirror verify` proves it beforehand.
"""
import json
import os
import shutil
import subprocess
import time

import pytest

from lib.fleet import FleetServer
from lib.gitcli import GIT, git_env
from lib.githost import GitHost
from lib.patience import wait
from lib.server import new_agent
from lib.writer import Memory


@pytest.fixture
def make(memfs_bin, folder):
    made = []

    def server(name="s", start=True, **kw):
        made.append(FleetServer(memfs_bin, folder / f"{name}{len(made)}", **kw))
        return made[-1].start() if start else made[-1]

    yield server
    faults = []
    for s in made:
        if s.process is None:
            continue    # it was only ever a folder
        try:
            s.stop()
            s.check_clean()
        except Exception as e:
            faults.append(e)
        finally:
            s.close()
    if faults:
        raise faults[0]


class Place:
    """Where memories are: a folder, or a host with an API."""

    def __init__(self, folder, kind):
        self.kind, self.host, self.root = kind, None, str(folder / "hosted")
        if kind == "path":
            os.makedirs(self.root)
            self.url = self.root + "/{agentId}.git"
        else:
            self.host = GitHost(folder / "host", kind, page=7)
            self.host.account("bot")
            self.host.group("agents", bot="owner")
            self.url = self.host.url("agents/{agentId}.git")

    def settings(self, s, **more):
        out = {"url": self.url, "poll": 3600, **more}
        if self.host:
            out.update(kind=self.kind, create="true", tokenFile=s._secret_file("token", self.host.token("bot")))
        return out

    def repository(self, agent):
        path = self.host.path("agents/" + agent) if self.host else os.path.join(self.root, agent + ".git")
        if not self.host and not os.path.isdir(path):
            subprocess.run([GIT, "init", "-q", "--bare", "-b", "main", path], check=True, env=git_env("/nonexistent"))
        return path

    def git(self, agent, *args, check=True):
        done = subprocess.run([GIT, "--git-dir", self.repository(agent), *args], capture_output=True, timeout=60,
                              env=git_env("/nonexistent"))
        assert not check or done.returncode == 0, (args, done.stderr)
        return done.stdout.decode().strip()

    def tip(self, agent, ref="refs/heads/main"):
        return self.git(agent, "rev-parse", "-q", "--verify", ref, check=False) or None

    def close(self):
        if self.host:
            self.host.stop()


@pytest.fixture
def place(folder):
    made = []

    def one(kind):
        made.append(Place(folder, kind))
        return made[-1]

    yield one
    for p in made:
        p.close()


def fill(s, p, n, files=3):
    """n agents with some history, mirrored with their sidecars."""
    agents = sorted(new_agent() for _ in range(n))
    for k, agent in enumerate(agents):
        p.repository(agent) if p.kind == "path" else None
        m = Memory(s, agent)
        m.must_push({f"system/b{i}.md": f"text {i} of {k}\n" for i in range(files)})
        m.must_push({"system/b0.md": None, "system/human.md": f"---\ndescription: who {k}\n---\nAda {k}\n",
                     "skills/x/SKILL.md": "---\nname: x\ndescription: y\n---\nskill\n"})
    for agent in agents:
        wait(lambda: p.tip(agent) == s.tip(agent), f"{agent} is mirrored")
        wait(lambda: p.tip(agent, "refs/memfs/meta"), f"{agent} has its sidecar there")
    return agents


def set_name(s, agent, name, tags):
    """As an API of names would: the state alone; then main moves and the sidecar goes along."""
    s.stop()
    s.name_agent(agent, name, tags)
    s.start()


def dump(s, agents):
    """Blocks with ids and dates, and the agents themselves, as the API says them."""
    rows = {a: s.get(f"/v1/agents/{a}").json() for a in agents}
    return s.dump(agents), {a: (r["name"], r.get("tags"), r["created_at"]) for a, r in rows.items()}


@pytest.mark.parametrize("kind", ["path", "gitea", "github", "gitlab"])
def test_D5_K4_an_empty_machine_gets_everything_back(make, place, kind):
    p = place(kind)
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    agents = fill(a, p, 9)
    set_name(a, agents[0], "Ada Lovelace", ["x", "y"])
    Memory_again(a, agents[0]).must_push({"system/more.md": "more\n"})
    wait(lambda: "Ada Lovelace" in p.git(agents[0], "show", "refs/memfs/meta:agent.json", check=False),
         "the name is on the remote")
    wait(lambda: p.tip(agents[0]) == a.tip(agents[0]), "mirrored")
    if p.host:      # what else lies about there is no memory
        p.host.repository("agents/readme")
        p.host.repository("agents/agent-1")
    else:
        os.makedirs(os.path.join(p.root, "lost+found"))
    time.sleep(1.1)         # another second: dates that are made anew would show
    before, tips = dump(a, agents), {x: a.tip(x) for x in agents}
    a.stop()

    b = make(start=False)
    b.configure(origin=p.settings(b))
    done = json.loads(b.cli("rebuild", "--from-remote", "--json", timeout=300).stdout)
    assert done["agents"] == 9 and done["failed"] == 0, done
    assert sorted(f["agent"] for f in done["findings"] if f["kind"] == "brought") == agents
    assert {f["agent"]: f["text"] for f in done["findings"]} == {x: "main is at " + tips[x][:10] for x in agents}
    b.start()
    assert {x: b.tip(x) for x in agents} == tips
    assert dump(b, agents) == before
    # nothing changed on the host by it, and once more costs nothing
    assert {x: p.tip(x) for x in agents} == tips
    meta = {x: p.tip(x, "refs/memfs/meta") for x in agents}
    again = json.loads(b.cli("rebuild", "--from-remote", "--json", timeout=300).stdout)
    assert again["agents"] == 9 and again["findings"] in ([], 0), again
    assert {x: p.tip(x, "refs/memfs/meta") for x in agents} == meta


def Memory_again(s, agent):
    """The writer's books of an agent that is there."""
    m = Memory(s, agent)
    m.tip = s.tip(agent)
    done = s.git_dir(agent, "ls-tree", "-r", "--name-only", "-z", "refs/heads/main").stdout
    m.files = {name.decode(): s.git_dir(agent, "show", "refs/heads/main:" + name.decode()).stdout
               for name in done.split(b"\0") if name}
    return m


def test_a_rebuild_that_is_killed_goes_on_where_it_was(make, place, memfs_bin):
    p = place("path")
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    agents = fill(a, p, 30, files=2)
    before = dump(a, agents)
    a.stop()
    b = make(start=False)
    b.configure(origin=p.settings(b))
    kills = 0
    for n in (3, 11, 20):
        child = subprocess.Popen([b.binary, "rebuild", "--from-remote", "--home", b.home], env=b.environment(),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 cwd="/")
        deadline = time.monotonic() + 90
        while len(b.repositories()) < n and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if child.poll() is None:
            child.kill()
            kills += 1
        child.wait(30)
    assert kills >= 2
    here = len(b.repositories())
    assert 11 <= here <= 30
    done = json.loads(b.cli("rebuild", "--from-remote", "--json", timeout=300).stdout)
    assert done["agents"] == 30 and done["failed"] == 0, done
    b.start()
    assert dump(b, agents) == before
    assert {x: b.tip(x) for x in agents} == {x: p.tip(x) for x in agents}


def test_H5_what_is_here_already_is_merged_never_overwritten(make, place):
    p = place("path")
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    one, two = fill(a, p, 2)
    b = make(start=False)
    b.start()
    Memory(b, one).must_push({"system/only-here.md": "kept\n"})
    b.stop()
    b.configure(origin=p.settings(b))
    done = json.loads(b.cli("rebuild", "--from-remote", "--json").stdout)
    assert done["agents"] == 2 and done["failed"] == 0, done
    b.start()
    blocks = b.blocks(one)
    assert {"system/only-here", "system/human", "system/b1"} <= set(blocks), sorted(blocks)
    assert b.tip(two) == a.tip(two)


@pytest.mark.parametrize("running", [False, True])
def test_H4_a_lost_folder_begins_again_only_for_who_is_named(make, place, folder, running):
    """Without a name it stays 503: what the remote has may be older than what was lost."""
    p = place("path")
    a = make(start=False, watch=False)     # the watcher would see main begin again
    a.configure(origin=p.settings(a))
    a.start()
    lost, other, never = fill(a, p, 3)
    set_name(a, lost, "Ada Lovelace", ["x"])
    Memory_again(a, lost).must_push({"system/more.md": "more\n"})
    wait(lambda: "Ada Lovelace" in p.git(lost, "show", "refs/memfs/meta:agent.json", check=False), "the name is there")
    wait(lambda: p.tip(lost) == a.tip(lost), "mirrored")
    before, tip, meta = dump(a, [lost]), a.tip(lost), p.tip(lost, "refs/memfs/meta")
    a.stop()
    for agent in (lost, other):
        shutil.rmtree(os.path.dirname(a.repository(agent)))
    a.damaged.add(other)    # it stays lost
    shutil.rmtree(p.repository(other))      # this one is nowhere any more
    if running:
        a.start()
        assert a.get(f"/v1/agents/{lost}/core-memory/blocks").status == 503
    everybody = a.cli("rebuild", "--from-remote", "--json", check=False)
    assert everybody.returncode == 1 and not os.path.exists(a.repository(lost)), everybody.stdout
    told = {f["agent"]: f for f in json.loads(everybody.stdout)["findings"]}
    assert told[lost]["kind"] == "lost" and "--agent" in told[lost]["text"], told
    done = json.loads(a.cli("rebuild", "--from-remote", "--agent", lost, "--json").stdout)
    assert not running or "could not take over its dates" not in a.log()
    assert [(f["agent"], f["kind"], f["text"]) for f in done["findings"]] == [
        (lost, "revived", "its folder was gone; it begins again, main is at " + tip[:10])], done
    ids = folder / "ids"
    ids.write_text(f"{lost}\n{other}\n")
    again = a.cli("rebuild", "--from-remote", "--agents", ids, "--json", check=False)
    findings = json.loads(again.stdout)["findings"]
    assert again.returncode == 1 and [f["agent"] for f in findings] == [other], again.stdout
    assert not os.path.exists(a.repository(other))
    if not running:
        a.start()
    assert a.tip(lost) == tip and dump(a, [lost]) == before
    assert p.tip(lost) == tip and p.tip(lost, "refs/memfs/meta") == meta
    Memory_again(a, lost).must_push({"system/more.md": "and more\n"})
    wait(lambda: p.tip(lost) == a.tip(lost), "mirrored again")


def test_single_troubles_are_findings_and_stop_no_other(make, place):
    p = place("path")
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    agents = fill(a, p, 6)
    a.stop()
    broken, empty = agents[0], new_agent()
    pack = max((os.path.join(r, f) for r, _, fs in os.walk(p.repository(broken) + "/objects") for f in fs),
               key=os.path.getsize)
    os.chmod(pack, 0o600)
    with open(pack, "r+b") as f:
        f.truncate(os.path.getsize(pack) // 2)
    p.repository(empty)
    b = make(start=False)
    b.configure(origin=p.settings(b))
    run = b.cli("rebuild", "--from-remote", "--json", check=False)
    done = json.loads(run.stdout)
    found = {f["agent"]: f for f in done["findings"]}
    assert run.returncode == 1 and done["agents"] == 5 and done["failed"] == 1, done
    assert found[broken]["kind"] == "failed" and found[broken]["text"]
    assert found[empty]["kind"] == "not-there"
    assert sorted(a for a, f in found.items() if f["kind"] == "brought") == agents[1:]
    b.start()
    assert b.get(f"/v1/agents/{empty}").status == 404


def test_a_remote_that_is_away_is_said_and_not_asked_a_thousand_times(make, place, folder):
    p = place("gitea")
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    fill(a, p, 2)
    a.stop()
    b = make(start=False)
    b.configure(origin=p.settings(b))
    p.host.fault(status=503, where="git")
    ids = folder / "ids"
    ids.write_text("".join(new_agent() + "\n" for _ in range(300)))
    asked = len(p.host.requests)
    run = b.cli("rebuild", "--from-remote", "--agents", ids, check=False, timeout=300)
    assert run.returncode == 3 and b"run it again" in run.stderr, (run.returncode, run.stderr)
    assert len(p.host.requests) - asked < 100
    p.host.mend()
    with open(os.path.join(b.folder, "token"), encoding="ascii") as f:
        p.host.revoke(f.read().strip())
    refused = b.cli("rebuild", "--from-remote", check=False, timeout=300)
    assert refused.returncode == 4 and refused.stderr, refused
    assert b.repositories() == []


def test_ids_are_asked_for_where_a_remote_lists_nothing(make, place, folder):
    p = place("path")
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    agents = fill(a, p, 2)
    b = make(start=False)
    b.configure(origin={"url": "ssh://git@127.0.0.1:1/{agentId}.git", "sshKey": "/nonexistent",
                        "sshKnownHosts": "/nonexistent"})
    run = b.cli("rebuild", "--from-remote", check=False)
    assert run.returncode == 2 and b"--agents FILE" in run.stderr, run
    c = make(start=False)
    c.configure(origin=p.settings(c), other=p.settings(c, direction="push"))
    stranger = new_agent()
    run = c.cli("rebuild", "--from-remote", "--agents", "-", "--json", check=False,
                input=f"{agents[1]}\n# a word\n{stranger}\n".encode())
    done = json.loads(run.stdout)
    found = {f["agent"]: f["kind"] for f in done["findings"]}
    assert found == {agents[1]: "brought", stranger: "not-there"} and run.returncode == 1
    push_only = c.cli("rebuild", "--from-remote", "--remote", "other", check=False)
    assert push_only.returncode == 2 and b"push-only" in push_only.stderr
    unknown = b.cli("rebuild", "--from-remote", "--remote", "nobody", check=False)
    assert unknown.returncode == 1 and b"no remote 'nobody'" in unknown.stderr
    nowhere = make("nowhere", start=False).cli("rebuild", "--from-remote", check=False)
    assert nowhere.returncode == 1 and b"no remote is configured to rebuild from" in nowhere.stderr


# ---- the sidecar

def test_a_host_that_takes_no_such_ref_is_left_alone(make, place):
    p = place("path")
    a = make(start=False)
    a.configure(origin=p.settings(a, poll=1))
    agent = new_agent()
    hook = os.path.join(p.repository(agent), "hooks", "pre-receive")
    log = os.path.join(p.root, "..", "pushes")
    os.makedirs(os.path.dirname(hook), exist_ok=True)
    with open(hook, "w") as f:
        f.write(f"#!/bin/sh\nwhile read old new ref; do echo $ref >> {log}\n"
                "case $ref in refs/heads/*) ;; *) echo 'only branches here' >&2; exit 1;; esac; done\n")
    os.chmod(hook, 0o755)
    a.start()
    m = Memory(a, agent)
    m.must_push({"system/human.md": "first\n"})
    wait(lambda: p.tip(agent) == m.tip, "mirrored")
    wait(lambda: "event=mirror_meta_refused" in a.log(), "the refusal is told")
    for n in range(3):
        m.must_push({f"system/new{n}.md": "a new label\n"})
        wait(lambda: p.tip(agent) == m.tip, "mirrored")
    with open(log, encoding="ascii") as f:
        refs = f.read().split()
    assert refs.count("refs/memfs/meta") == 1 and refs.count("refs/heads/main") >= 2, refs
    assert a.row(agent)["state"] == "mirrored" and not a.row(agent)["failure"]
    assert a.log().count("event=mirror_meta_refused") == 1


def test_F28_two_servers_settle_on_one_sidecar(make, place):
    p = place("path")
    a, b = make(start=False), make(start=False)
    for s in (a, b):
        s.configure(origin=p.settings(s, poll=1))
        s.start()
    agent = new_agent()
    p.repository(agent)
    m = Memory(a, agent)
    m.must_push({"system/human.md": "first\n"})
    wait(lambda: p.tip(agent) == m.tip, "mirrored")
    for n in range(4):
        for s in (a, b):
            wait(lambda: s.tip(agent) == p.tip(agent), "in step")
            w = Memory_again(s, agent)
            w.must_push({f"system/{n}-of-{'a' if s is a else 'b'}.md": "x\n"})
            wait(lambda: p.tip(agent) == w.tip, "mirrored")

    def settled():
        return a.tip(agent) == b.tip(agent) == p.tip(agent)

    wait(settled, "all in step")
    time.sleep(3)
    meta, count = p.tip(agent, "refs/memfs/meta"), p.git(agent, "rev-list", "--count", "refs/memfs/meta")
    time.sleep(3)
    assert p.tip(agent, "refs/memfs/meta") == meta and int(count) <= 20, count
    births = json.loads(p.git(agent, "show", "refs/memfs/meta:agent.json"))["births"]
    assert {f"system/{n}-of-{s}" for n in range(4) for s in "ab"} | {"system/human"} <= set(births)


# ---- the proof

def verify(s, *args):
    run = s.cli("mirror", "verify", "--json", *args, check=False)
    done = json.loads(run.stdout)
    return run.returncode, {f["agent"]: (f["kind"], f["text"]) for f in done["findings"]}, done


@pytest.mark.parametrize("kind", ["path", "gitea"])
def test_a_proof_is_dated_and_finds_what_the_host_lacks(make, place, kind):
    p = place(kind)
    a = make(start=False)
    a.configure(origin=p.settings(a))
    a.start()
    whole, damaged, behind, gone, other = fill(a, p, 5)
    assert a.row(whole)["proof_at"] is None
    code, found, done = verify(a)
    assert code == 0 and {k for k, _ in found.values()} == {"proven"} and done["agents"] == 5, done
    first = a.row(whole)["proof_at"]
    assert first is not None

    # an object that nobody has noticed to be missing: main is still what it was
    tip = p.tip(damaged)
    blob = p.git(damaged, "rev-parse", tip + ":system/human.md")
    repository = p.repository(damaged)
    packs = os.path.join(repository, "objects", "pack")
    for name in os.listdir(packs):
        if name.endswith(".pack"):
            shutil.move(os.path.join(packs, name), os.path.join(repository, name))
            os.chmod(os.path.join(repository, name), 0o600)
            with open(os.path.join(repository, name), "rb") as f:
                subprocess.run([GIT, "--git-dir", repository, "unpack-objects", "-q"], stdin=f, check=True,
                               env=git_env("/nonexistent"))
    for name in os.listdir(packs):
        os.unlink(os.path.join(packs, name))
    loose = os.path.join(repository, "objects", blob[:2], blob[2:])
    os.chmod(loose, 0o600)
    os.unlink(loose)
    p.git(behind, "update-ref", "refs/heads/main", p.git(behind, "rev-parse", "refs/heads/main~1"))
    p.git(gone, "update-ref", "-d", "refs/heads/main")
    tree = p.git(other, "rev-parse", "refs/heads/main~1^{tree}")
    stranger = subprocess.run([GIT, "--git-dir", p.repository(other), "commit-tree", "-m", "x", tree],
                              capture_output=True, check=True,
                              env={**git_env("/nonexistent"), "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@x",
                                   "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@x"}).stdout.decode().strip()
    p.git(other, "update-ref", "refs/heads/main", stranger)
    dates = {x: a.row(x)["proof_at"] for x in (damaged, behind, gone, other)}
    time.sleep(1.1)
    code, found, done = verify(a)
    assert code == 1, done
    assert {x: found[x][0] for x in found} == {
        whole: "proven", damaged: "proof-failed", behind: "proof-behind", gone: "proof-failed",
        other: "proof-differs"}, found
    assert a.row(whole)["proof_at"] > first
    assert {x: a.row(x)["proof_at"] for x in dates} == dates, "what was not proven is not dated"
    only = verify(a, "--agent", whole)
    assert only[0] == 0 and set(only[1]) == {whole}
    assert a.cli("mirror", "verify", "--agent", new_agent(), check=False).returncode == 1
