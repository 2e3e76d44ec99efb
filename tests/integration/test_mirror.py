"""The mirror as its operator has it in hand: `memfs mirror`, sync-from-git, rebuild, restore.

A server of ours, a Gitea of lib/githost.py (its API, its accounts, real repositories) or a plain path.  What a
remote can do to its main (rewrite it, delete it, lose it, begin another history, hold what the policy refuses) is
done to it here, and each time three things are asked: is nothing lost on either side, does the status say what
happened, and does the command that it names end it (H5, L4, L5).  What goes wrong on the way to a remote is
test_mirror_faults.py's.
"""
import base64
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from lib.fake_remote import FakeRemote, closed_port
from lib.gitcli import GIT, Git, git_env
from lib.githost import GitHost
from lib.patience import Late
from lib.server import CANARY, Server, new_agent

TABLE = ["AGENT", "REMOTE", "STATE", "AHEAD", "BEHIND", "PUSHED", "UNMIRRORED", "NEXT", "TRY"]
ROW_KEYS = {"agent", "remote", "address", "direction", "state", "is_trouble", "local_tip", "remote_tip", "ahead",
            "behind", "seen_at", "pushed_at", "pushed_s", "proof_at", "unmirrored_since", "unmirrored_s",
            "next_try_at", "next_try_s", "failures", "failure", "advice", "note", "note_text", "note_advice",
            "note_at"}


class Operated(Server):
    """A server and the commands that an operator gives it."""

    def mirror(self, *words, **kw):
        return self.cli("mirror", *words, **kw)

    def add(self, name, url, *options, token=None):
        more = ["--token-stdin"] if token else []
        if token:   # from now on no child may show it (lib/server.py's watcher)
            self.secrets += [token.encode(), base64.b64encode(b"memfs:" + token.encode())]
        return self.mirror("add", name, url, "--poll", "1", *options, *more,
                           input=token.encode() + b"\n" if token else None)

    def status(self, *words):
        return json.loads(self.mirror("status", "--json", *words, check=False).stdout)

    def row(self, agent, remote="origin"):
        rows = [r for r in self.status("--agent", agent)["rows"] if r["remote"] == remote]
        return rows[0] if rows else None

    def wait_row(self, agent, good, remote="origin", seconds=90):
        row = wait(lambda: self.row(agent, remote), good, seconds, self)
        return row

    def wait_mirrored(self, agent, remote="origin"):
        return self.wait_row(agent, lambda r: r and r["state"] == "mirrored"
                             and r["local_tip"] == r["remote_tip"], remote)

    def wait_note(self, agent, note, remote="origin"):
        return self.wait_row(agent, lambda r: r and r["note"] == note, remote)

    def sync(self, agent, **kw):
        return self.request("POST", f"/v1/agents/{agent}/memory/sync-from-git", **kw)

    def check_secrets(self):
        """A remote's token has one place where it may be."""
        tokens, self.secrets = self.secrets, []
        super().check_secrets()
        self.secrets = tokens
        if tokens:
            self.check_token(*(t.decode() for t in tokens))

    def check_token(self, *tokens):
        """S3: in secrets/ and nowhere else; no child has shown it."""
        patterns = [x for t in tokens for x in ("-e", t)]
        done = subprocess.run(["grep", "-rlaF", "--exclude-dir=secrets", *patterns, "--", self.home,
                               self.log_path], capture_output=True, timeout=300)
        assert done.stdout == b"", f"a token is at rest in {done.stdout.decode()}"


def wait(look, good, seconds=90, server=None):
    deadline = time.monotonic() + seconds
    while True:
        got = look()
        if good(got):
            return got
        if time.monotonic() > deadline:
            raise Late(f"it stays {got}\n{server.log_tail(30) if server else ''}")
        time.sleep(0.1)


@pytest.fixture
def operated(memfs_bin, folder):
    made = []

    def make(name="s", start=True, **kw):
        s = Operated(memfs_bin, folder / name, **kw)
        made.append(s)
        return s.start() if start else s

    yield make
    faults = []
    for s in made:
        try:
            s.stop()
            s.check_clean()
        except Exception as e:
            faults.append(e)
        finally:
            s.kill()
    if faults:
        raise faults[0]


@pytest.fixture
def host(folder):
    """Its repositories are watched: whatever happens, nothing of ours forces or deletes there (H5)."""
    with GitHost(folder / "host", "gitea") as h:
        h.account("bot")
        h.group("agents", bot="owner")
        yield h
        assert h.forced() == []


@pytest.fixture
def token(host):
    return host.token("bot")


@pytest.fixture
def s(operated, host, token):
    """A server whose agents are on the host; the token was given on stdin and is in secrets/."""
    server = operated(start=False)
    server.add("origin", host.url("agents/{agentId}.git"), token=token)
    yield server.start()
    server.check_token(token)


class Pen:
    """Writes an agent's memory as people do: on top of what the server has."""

    def __init__(self, server, agent):
        self.server, self.agent = server, agent
        self.path = os.path.join(server.folder, f"pen-{agent}")
        self.checkout = Git(server.folder + "/penhome", CANARY).clone(server.git_url(agent), self.path)
        self.tip = None

    def push(self, files):
        """Returns the commit, which the server has acknowledged."""
        for _ in range(20):
            self.checkout.run("remote", "set-url", "origin", self.server.git_url(self.agent))
            self.checkout.run("fetch", "-q", "origin", "main")
            self.checkout.run("reset", "-q", "--hard", "FETCH_HEAD")
            for file, text in files.items():
                self.checkout.write(file, text)
            self.tip = self.checkout.commit("a change")
            if self.checkout.push("-q", check=False).returncode == 0:
                return self.tip
        raise AssertionError("the push loses every race")


def first(server, agent, text="first\n"):
    pen = Pen(server, agent)
    pen.push({"system/human.md": text})
    return pen


def git_dir(path, *args, check=True, **kw):
    done = subprocess.run([GIT, "--git-dir", str(path), *args], capture_output=True, timeout=60,
                          env={**git_env("/nonexistent"), **kw})
    assert not check or done.returncode == 0, (args, done.stderr)
    return done.stdout.decode().strip()


def bare(path):
    subprocess.run([GIT, "init", "-q", "--bare", "-b", "main", str(path)], check=True, timeout=60,
                   env=git_env("/nonexistent"))
    return path


def tip_of(path):
    return git_dir(path, "rev-parse", "-q", "--verify", "refs/heads/main", check=False) or None


def reaches(path, old):
    """Is this commit in main there?"""
    return subprocess.run([GIT, "--git-dir", str(path), "merge-base", "--is-ancestor", old, "refs/heads/main"],
                          capture_output=True, timeout=60, env=git_env("/nonexistent")).returncode == 0


def full(agent):
    return f"agents/{agent}"


# ---- the remotes: add, list, remove, reload

def test_add_writes_the_file_and_the_secret_and_the_running_server_uses_it(operated, host, token, agent):
    server, a = operated(), agent()
    m = first(server, a)
    assert server.status()["remotes"] == 0
    server.add("origin", host.url("agents/{agentId}.git"), "--create", "--kind", "gitea", token=token)
    server.wait_mirrored(a)                       # no restart, no signal
    assert host.tip(full(a)) == m.tip
    with open(server.home + "/config") as f:
        text = f.read()
    assert '[mirror "origin"]' in text and "{agentId}" in text and token not in text
    kept = [os.path.join(server.home, "secrets", n) for n in os.listdir(server.home + "/secrets")]
    assert [p for p in kept if token in open(p).read()] and all(
        os.stat(p).st_mode & 0o77 == 0 for p in kept)
    listed = json.loads(server.mirror("list", "--json").stdout)
    assert [(r["name"], r["direction"], r["credential"], r["create"], r["kind"]) for r in listed] == [
        ("origin", "both", "secrets", True, "gitea")]
    assert b"origin" in server.mirror("list").stdout
    server.check_token(token)


def test_remove_forgets_the_remote_and_its_secret_and_touches_nothing_there(s, host, token, agent):
    a = agent()
    m = first(s, a)
    s.wait_mirrored(a)
    s.mirror("verify")
    assert s.mirror_rows("origin") == 1 and s.row(a)["proof_at"]
    s.mirror("remove", "origin")
    assert s.status()["remotes"] == 0 and s.status()["rows"] == []
    assert s.mirror_rows("origin") == 0     # nothing of another remote that gets this name is its own
    m.push({"x.md": "later"})
    assert subprocess.run(["grep", "-rqF", token, s.home]).returncode == 1, "the secret stayed"
    assert host.tip(full(a)) != m.tip and host.tip(full(a)) is not None
    again = s.mirror("remove", "origin", check=False)
    assert again.returncode == 1 and b"no remote 'origin'" in again.stderr


@pytest.mark.parametrize("words, code, said", [
    (("add", "origin", "https://h/one.git"), 2, b"{agentId}"),
    (("add", "Origin", "https://h/{agentId}.git"), 2, b"name"),
    (("add", "origin", "git.example.com/{agentId}.git"), 2, b"https://"),
    (("add", "origin", "ext::sh -c {agentId}"), 2, b"remote helper"),
    (("add", "origin", "http://git.example.com/{agentId}.git"), 2, b"http"),
    (("add", "origin", "https://h/{agentId}.git", "--direction", "up"), 2, b"direction"),
    (("add", "origin", "https://h/{agentId}.git", "--kind", "svn"), 2, b"kind"),
    (("add", "origin", "https://h/{agentId}.git", "--token=x"), 2, b"--token-stdin"),
    (("add", "origin", "https://h/{agentId}.git", "--agent", "me"), 2, b"id of an agent"),
    (("add", "origin"), 2, b"which name and address"),
    (("resolve", "--agent", new_agent()), 2, b"--accept"),
    (("resolve", "--accept"), 2, b"whose memory"),
    (("status", "--create"), 2, b"said to add"),
    (("check", "--no-create"), 2, b"said to add"),
    (("add", "origin", "https://h/{agentId}.git", "--create", "--no-create"), 2, b"--create or --no-create"),
    (("sync",), 2, b"whose memory"),
    (("retry", "--remote", "nobody"), 1, b"no remote 'nobody'"),
    (("nothing",), 2, b"say one of"),
])
def test_what_cannot_be_meant_is_said_and_changes_nothing(server, words, code, said):
    done = server.cli("mirror", *words, check=False)
    assert done.returncode == code and said in done.stderr, done
    with_config = os.path.join(server.home, "config")
    assert not os.path.exists(with_config) or "url" not in open(with_config).read()
    assert not os.path.exists(server.home + "/secrets") or os.listdir(server.home + "/secrets") == []


@pytest.mark.parametrize("serves", [False, True])
def test_many_that_add_at_once_wait_for_each_other(operated, folder, serves):
    server = operated(start=serves)
    done, threads = [], []
    for i in range(10):
        threads.append(threading.Thread(target=lambda i=i: done.append(
            server.mirror("add", f"r{i}", f"{folder}/r{i}/{{agentId}}.git", check=False))))
        threads[-1].start()
    for thread in threads:
        thread.join(120)
    assert [d.returncode for d in done] == [0] * 10, [d.stderr for d in done]
    if not serves:
        server.start()
    listed = json.loads(server.mirror("list", "--json").stdout)
    assert sorted(r["name"] for r in listed) == [f"r{i}" for i in range(10)]


def test_S3_T24_a_token_in_an_address_is_split_off_at_every_door(operated, host, token, agent):
    server, a = operated(start=False), agent()
    address = host.url("agents/{agentId}.git").replace("://", f"://bot:{token}@")
    done = server.add("origin", address)
    assert b"secret" in done.stderr and token.encode() not in done.stdout + done.stderr
    server.start()
    m = first(server, a)
    server.wait_mirrored(a)
    assert host.tip(full(a)) == m.tip
    server.stop()
    server.mirror("remove", "origin")
    with open(server.home + "/config", "a") as f:      # by hand, as people do
        f.write(f'[mirror "byhand"]\n\turl = {address}\n\tpoll = 1\n')
    server.start()
    m.push({"y.md": "y"})
    server.wait_mirrored(a, "byhand")
    server.check_token(token)
    server.stop()
    server.mirror("remove", "byhand")
    server.args = ["--remote", address]
    server.start()
    with open(f"/proc/{server.pid}/cmdline", "rb") as f:
        assert token.encode() not in f.read()
    m.push({"z.md": "z"})
    server.wait_mirrored(a)
    assert host.tip(full(a)) == m.tip
    server.check_token(token)
    for word in ("status", "list", "check"):
        done = server.mirror(word, check=False)
        assert token.encode() not in done.stdout + done.stderr


def test_the_environment_names_a_remote_and_the_start_says_which(operated, folder, agent):
    a = agent()
    bare(folder / f"{a}.git")
    server = operated(env={"LETTA_MEMFS_GIT_URL": f"{folder}/{{agentId}}.git"})
    m = first(server, a)
    server.wait_mirrored(a)
    assert tip_of(folder / f"{a}.git") == m.tip
    assert re.search(r"remote +origin, both ways: \S+\{agentId\}", server.log())


def test_F30_sighup_reads_the_remotes_anew_and_a_broken_file_leaves_the_old_ones(s, host, agent, folder):
    a, path = agent(), s.home + "/config"
    m = first(s, a)
    s.wait_mirrored(a)
    bare(folder / f"{a}.git")
    with open(path, "a") as f:
        f.write(f'[mirror "second"]\n\turl = {folder}/{{agentId}}.git\n\tpoll = 1\n')
    s.process.send_signal(signal.SIGHUP)
    s.wait_mirrored(a, "second")
    good = open(path).read()
    with open(path, "a") as f:
        f.write('[mirror "third"]\n\turl = https://h/without-a-place.git\n')
    s.process.send_signal(signal.SIGHUP)
    wait(s.log, lambda log: "event=reload_failed" in log, server=s)
    assert "third" in s.log_tail(10)
    assert s.status()["remotes"] == 2
    m.push({"x.md": "after the broken reload"})
    s.wait_mirrored(a)
    with open(path, "w") as f:
        f.write(good)


def test_a_config_that_is_broken_stops_a_start_but_no_command_about_blocks(operated, agent):
    server, a = operated(start=False), agent()
    server.start()
    first(server, a)
    server.stop()
    with open(server.home + "/config", "w") as f:
        f.write('[mirror "origin"]\n\turl = nowhere\n')
    done = server.cli("serve", "--listen", "127.0.0.1:0", check=False)
    assert done.returncode == 2 and b"origin" in done.stderr, done
    assert b"system/human" in server.cli("blocks", "list", "--agent", a).stdout
    done = server.mirror("status", check=False)
    assert done.returncode == 2 and b"origin" in done.stderr
    os.unlink(server.home + "/config")


# ---- the status

def test_status_as_a_table_and_as_json(s, host, agent):
    agents = sorted(agent() for _ in range(3))
    for a in agents:
        first(s, a)
    for a in agents:
        s.wait_mirrored(a)
    lines = s.mirror("status").stdout.decode().splitlines()
    assert lines[0].split() == TABLE
    assert [line.split()[:3] for line in lines[1:]] == [[a, "origin", "mirrored"] for a in agents]
    got = s.status()
    assert set(got) == {"remotes", "rows", "shown", "trouble", "notes", "states", "unmirrored_since",
                        "unmirrored_s"}
    assert (got["remotes"], got["shown"], got["trouble"], got["states"]["mirrored"]) == (1, 3, 0, 3)
    assert all(set(row) == ROW_KEYS for row in got["rows"])
    one = s.row(agents[0])
    assert (one["ahead"], one["behind"], one["unmirrored_s"], one["failure"]) == (0, 0, None, None)
    assert one["address"] == host.url(f"agents/{agents[0]}.git") and one["direction"] == "both"
    done = s.mirror("status", "--failing", check=False)
    assert done.returncode == 0 and done.stdout == b"" and b"well" in done.stderr
    assert s.status("--remote", "origin")["shown"] == 3
    unknown = s.mirror("status", "--agent", new_agent(), check=False)
    assert unknown.returncode == 1 and b"not known" in unknown.stderr


def test_L3_L5_a_host_that_is_away_is_told_and_everything_follows_when_it_is_back(s, host, agent):
    a = agent()
    m = first(s, a)
    s.wait_mirrored(a)
    known = host.tip(full(a))
    host.stop()
    for i in range(5):
        m.push({"system/human.md": f"while it is away {i}\n"})
    row = s.wait_row(a, lambda r: r["state"] == "failing" and r["ahead"] == 5)
    assert row["failure"] and "origin" not in row["local_tip"] and row["next_try_at"]
    assert row["remote_tip"] == known and row["behind"] == 0
    assert row["unmirrored_s"] is not None and row["unmirrored_since"].startswith("20")
    done = s.mirror("status", "--failing", check=False)
    assert done.returncode == 1 and a.encode() in done.stdout and b"failure" in done.stdout
    done = s.mirror("sync", "--agent", a, check=False)
    assert done.returncode == 3 and b"origin" in done.stderr
    answer = s.sync(a)
    assert answer.status == 200 and answer.headers["x-memfs-remote"] == "failed; remotes=1; failed=1"
    assert [b["value"] for b in answer.json()] == ["while it is away 4\n"]
    host.start()
    s.mirror("retry")                     # the backoff would have done it too, later
    s.wait_mirrored(a)
    assert host.tip(full(a)) == m.tip
    assert s.row(a)["unmirrored_s"] is None


def test_D1_a_kill_loses_nothing_of_what_is_to_be_mirrored(s, host, agent):
    agents = [agent() for _ in range(6)]
    pens = {a: first(s, a) for a in agents}
    for a in agents:
        s.wait_mirrored(a)
    host.fault(where="git", status=503, headers={"Retry-After": "1"})
    tips = {a: pens[a].push({"late.md": a}) for a in agents}
    before = {a: s.wait_row(a, lambda r: r["ahead"] == 1)["unmirrored_since"] for a in agents}
    s.kill()
    s.start()
    for a in agents:                      # the age is the commit's, not the process's
        row = s.row(a)
        assert row["ahead"] == 1 and row["unmirrored_since"] == before[a], row
    host.mend()
    for a in agents:
        s.wait_mirrored(a)
        assert host.tip(full(a)) == s.tip(a) == tips[a]


def test_F15_a_refused_token_is_told_and_its_file_is_read_anew(operated, host, folder, agent):
    server, a, secret = operated(start=False), agent(), folder / "token"
    secret.write_text("0" * 40)
    secret.chmod(0o600)
    server.add("origin", host.url("agents/{agentId}.git"), "--token-file", str(secret))
    server.start()
    m = first(server, a)
    row = server.wait_row(a, lambda r: r["state"] == "auth-failed")
    assert row["failure"] and "tokenFile" in row["advice"]
    assert server.mirror("sync", "--agent", a, check=False).returncode == 4
    good = host.token("bot")
    secret.write_text(good)
    server.wait_mirrored(a)               # nobody was told
    assert host.tip(full(a)) == m.tip
    server.check_token(good)
    secret.chmod(0o644)                   # others may read it now: not used, and said
    assert "others may read" in json.loads(server.mirror("list", "--json").stdout)[0]["fault"]


# ---- directions, several remotes, one agent's own

def test_a_push_only_remote_is_a_backup_that_is_never_read(operated, folder, agent, git):
    server, a = operated(), agent()
    path = bare(folder / f"{a}.git")
    server.add("backup", f"{folder}/{{agentId}}.git", "--direction", "push")
    m = first(server, a)
    server.wait_mirrored(a, "backup")
    other = git.clone(str(path), folder / "other")
    other.save({"theirs.md": "of somebody else"})
    theirs = tip_of(path)
    m.push({"ours.md": "ours"})
    row = server.wait_note(a, "diverged", "backup")
    assert row["state"] == "held" and row["is_trouble"] and row["note_advice"]
    assert tip_of(path) == theirs and "theirs" not in server.blocks(a)
    assert server.tip(a) == m.tip


def test_a_pull_only_remote_is_never_written(operated, folder, agent, git):
    server, a = operated(), agent()
    path = bare(folder / f"{a}.git")
    m = first(server, a)
    git.clone(server.git_url(a), folder / "seed").run("push", "-q", str(path), "main")
    server.add("upstream", f"{folder}/{{agentId}}.git", "--direction", "pull")
    other = git.clone(str(path), folder / "other")
    theirs = other.save({"theirs.md": "comes in"})
    wait(lambda: server.blocks(a), lambda b: "theirs" in b, server=server)
    m.push({"ours.md": "stays here"})
    server.mirror("sync", "--agent", a)
    assert tip_of(path) == theirs
    assert server.row(a, "upstream")["unmirrored_s"] is None


def test_several_remotes_of_one_agent_carry_what_one_of_them_gets(s, host, folder, agent, git):
    a = agent()
    path = bare(folder / f"{a}.git")
    s.add("second", f"{folder}/{{agentId}}.git")
    first(s, a)
    s.wait_mirrored(a)
    s.wait_mirrored(a, "second")
    host.edit(full(a), {"web.md": "from the web\n"})
    theirs = host.tip(full(a))
    wait(lambda: reaches(path, theirs) if tip_of(path) else False, bool, server=s)
    git.clone(str(path), folder / "c").save({"folder.md": "from the folder\n"})
    wait(lambda: s.blocks(a), lambda b: {"web", "folder"} <= set(b), server=s)
    s.wait_mirrored(a)
    s.wait_mirrored(a, "second")
    assert host.tip(full(a)) == tip_of(path) == s.tip(a)
    answer = s.sync(a)
    assert answer.headers["x-memfs-remote"] == "ok; remotes=2"
    host.stop()
    answer = s.sync(a)
    assert answer.status == 200 and answer.headers["x-memfs-remote"] == "failed; remotes=2; failed=1"
    host.start()


def test_a_remote_of_one_agent_alone(operated, folder, agent):
    server, a, b = operated(), agent(), agent()
    path = bare(folder / "one.git")
    server.add("own", str(path), "--agent", a)
    m = first(server, a)
    first(server, b)
    server.wait_mirrored(a, "own")
    assert tip_of(path) == m.tip
    assert [r["agent"] for r in server.status()["rows"]] == [a]
    done = server.mirror("sync", "--agent", b)
    assert b"no remote" in done.stderr
    assert "x-memfs-remote" not in server.sync(b).headers


# ---- what becomes of a remote's main: each outcome, its entry, and what ends it

def ended(server, agent, how="--accept", remote="origin"):
    """The note's own advice names the command; afterwards nothing is left to do."""
    row = server.row(agent, remote)
    assert row["note_at"] and row["note_text"] and row["note_advice"], row
    shown = server.mirror("status", "--agent", agent).stdout.decode()
    assert re.search(rf"note +{row['note']}: ", shown), shown
    server.mirror("resolve", "--agent", agent, "--remote", remote, how)
    return server.wait_row(agent, lambda r: r["note"] is None and r["state"] == "mirrored"
                           and r["local_tip"] == r["remote_tip"], remote)


def unrelated(path, files, folder, name="foreign"):
    """A history of its own, not begun by any memfs; returns its tip."""
    c = Git(folder / (name + "-home")).init(folder / name)
    for file, text in files.items():
        c.write(file, text)
    c.commit("another beginning")
    return c


def test_H5_unrelated_histories_are_joined_and_noted(s, host, folder, agent, token):
    a = agent()
    path = host.repository(full(a))
    foreign = unrelated(path, {"system/human.md": "theirs\n", "theirs.md": "only there\n"}, folder)
    foreign.run("push", "-q", path, "main")
    theirs = host.tip(full(a))
    host.fault(where="git", status=503)   # both have begun before they meet
    m = first(s, a, "ours\n")
    host.mend()
    s.mirror("retry")
    s.wait_note(a, "unrelated")
    s.wait_mirrored(a)
    tip = s.tip(a)
    assert reaches(path, theirs) and reaches(path, m.tip) and host.tip(full(a)) == tip
    blocks = s.blocks(a)
    assert "only there\n" == blocks["theirs"]["value"]
    assert "ours" in blocks["system/human"]["value"] and "theirs" in blocks["system/human"]["value"]
    ended(s, a)
    assert s.tip(a) == tip                # accepting moves nothing


@pytest.mark.parametrize("how, value", [("--keep-ours", "ours\n"), ("--keep-theirs", "theirs\n")])
def test_H5_resolving_by_hand_keeps_both_histories_and_one_sides_files(operated, folder, agent, how, value):
    """Where nothing is merged by itself, an operator says whose files stand."""
    server, a = operated(), agent()
    path = bare(folder / f"{a}.git")
    server.add("backup", f"{folder}/{{agentId}}.git", "--direction", "push")
    m = first(server, a, "first\n")
    server.wait_mirrored(a, "backup")
    theirs = Git(folder / "h").clone(str(path), folder / "c").save({"system/human.md": "theirs\n"})
    ours = m.push({"system/human.md": "ours\n"})
    server.wait_note(a, "diverged", "backup")
    assert tip_of(path) == theirs
    done = server.mirror("resolve", "--agent", a, how)
    assert b"resolved" in done.stdout, done
    server.wait_mirrored(a, "backup")
    assert server.value(a, "system/human") == value
    assert reaches(path, theirs) and reaches(path, ours) and server.row(a, "backup")["note"] is None
    again = server.mirror("resolve", "--agent", a, how)
    assert b"no note stands" in again.stdout


def test_H5_a_rewritten_remote_gets_back_what_it_dropped(s, host, folder, agent, token):
    a = agent()
    m = first(s, a)
    m.push({"two.md": "two\n"})
    s.wait_mirrored(a)
    path = host.path(full(a))
    old = host.tip(full(a))
    back = git_dir(path, "rev-parse", "main~1")
    c = Git(folder / "h").clone(path, folder / "c")
    c.run("reset", "-q", "--hard", back)
    c.write("other.md", "instead\n")
    new = c.commit("history as it should have been")
    c.run("push", "-q", "origin", "HEAD:refs/heads/side")
    host.set_main(full(a), new)
    row = s.wait_note(a, "rewritten")
    assert "purge" in row["note_advice"]
    s.wait_mirrored(a)
    assert reaches(path, old) and reaches(path, new)
    assert {"two", "other"} <= set(s.blocks(a))
    ended(s, a)


def test_H5_a_remote_that_lost_commits_gets_them_again(s, host, agent):
    a = agent()
    m = first(s, a)
    m.push({"two.md": "two\n"})
    s.wait_mirrored(a)
    path, old = host.path(full(a)), host.tip(full(a))
    host.set_main(full(a), git_dir(path, "rev-parse", "main~1"))      # a backup was put back
    s.wait_note(a, "lost")
    s.wait_mirrored(a)
    assert host.tip(full(a)) == old == s.tip(a)
    ended(s, a)


def test_H5_F16_a_main_that_was_deleted_there_comes_again(s, host, agent):
    a = agent()
    first(s, a)
    s.wait_mirrored(a)
    old = host.tip(full(a))
    host.delete_branch(full(a))
    s.wait_note(a, "deleted")
    s.wait_mirrored(a)
    assert host.tip(full(a)) == old and s.blocks(a)
    ended(s, a)


def test_a_default_branch_of_another_name_is_merged_and_main_is_pushed(s, host, folder, agent):
    a = agent()
    path = host.repository(full(a))
    foreign = unrelated(path, {"theirs.md": "on master\n"}, folder)
    foreign.run("push", "-q", path, "main:refs/heads/master")
    git_dir(path, "symbolic-ref", "HEAD", "refs/heads/master")
    m = first(s, a)
    row = s.wait_note(a, "branch")
    assert "default branch" in row["note_advice"]
    s.wait_mirrored(a)
    assert reaches(path, m.tip) and s.value(a, "theirs") == "on master\n"
    git_dir(path, "symbolic-ref", "HEAD", "refs/heads/main")
    ended(s, a)


def test_an_empty_remote_is_pushed_to_and_a_missing_one_is_made(s, host, agent):
    a, b = agent(), agent()
    host.repository(full(a))
    m, n = first(s, a), first(s, b)
    s.wait_mirrored(a)
    s.wait_mirrored(b)
    assert host.tip(full(a)) == m.tip and host.tip(full(b)) == n.tip
    assert host.state["repos"][full(b)]["private"] is True
    assert s.row(a)["note"] is None and s.row(b)["note"] is None


def test_F16_missing_repositories_are_made_in_a_folder(operated, folder, agent):
    """One setting, a folder: each agent's repository appears in it, whole and its owner's alone."""
    server, agents = operated(), [agent() for _ in range(4)]
    nas = folder / "nas"
    server.add("nas", f"{nas}/{{agentId}}.git", "--direction", "push")
    checked = server.mirror("check", "--json", check=False)
    kinds = {f["kind"]: f["text"] for f in json.loads(checked.stdout)["findings"]}
    assert checked.returncode == 1 and "is its disk mounted?" in kinds["no-create"]
    pens = {a: first(server, a) for a in agents}
    for a in agents:                     # its disk is not mounted: nothing is made
        row = server.wait_row(a, lambda r: r["state"] == "missing", "nas")
        assert "is its disk mounted?" in row["failure"] and row["advice"] and row["next_try_at"]
    assert not nas.exists()
    nas.mkdir()
    assert server.mirror("check").returncode == 0
    server.mirror("retry")
    for a in agents:
        server.wait_mirrored(a, "nas")
        path = nas / f"{a}.git"
        assert tip_of(path) == pens[a].tip and path.stat().st_mode & 0o7777 == 0o700
        assert git_dir(path, "symbolic-ref", "HEAD").strip() == "refs/heads/main"
        assert server.row(a, "nas")["note"] is None
    assert sorted(os.listdir(nas)) == sorted(f"{a}.git" for a in agents)


def test_F16_what_only_a_push_could_have_made_is_not_forgotten(operated, folder, agent):
    """A host without an API: it is pushed to, says that nothing is there, and what was known of it stays known."""
    with FakeRemote(root=folder / "remote", token="a-token-of-twenty-bytes", create=True) as r:
        server, a = operated(), agent()
        server.add("origin", r.url("{agentId}.git"), token="a-token-of-twenty-bytes")
        m = first(server, a)             # made by being asked for
        server.wait_mirrored(a)
        r.create = False
        os.rename(r.root + f"/{a}.git", folder / "away")
        m.push({"later.md": "later"})
        row = server.wait_row(a, lambda r: r["state"] == "missing" and r["failures"] >= 2)
        assert row["note"] is None and row["remote_tip"] not in (None, m.tip) and row["ahead"] == 1, row
        os.rename(folder / "away", r.root + f"/{a}.git")
        server.wait_mirrored(a)
        assert tip_of(r.root + f"/{a}.git") == m.tip and server.row(a)["note"] is None


def test_F16_a_missing_repository_that_nobody_may_make_is_told(operated, host, token, agent):
    server, a = operated(), agent()
    server.add("origin", host.url("agents/{agentId}.git"), "--no-create", token=token)
    assert json.loads(server.mirror("list", "--json").stdout)[0]["create"] is False
    assert b"creates no repositories" in server.mirror("list").stdout
    m = first(server, a)
    row = server.wait_row(a, lambda r: r["state"] == "missing")
    assert "create" in row["advice"] and row["is_trouble"]
    assert full(a) not in host.state["repos"]
    host.repository(full(a))
    done = server.mirror("retry", "--agent", a)
    server.wait_mirrored(a)
    assert host.tip(full(a)) == m.tip, done


def test_T11_what_the_policy_refuses_stays_there_and_is_named(s, host, agent):
    a = agent()
    m = first(s, a)
    s.wait_mirrored(a)
    path = host.path(full(a))
    blob = subprocess.run([GIT, "--git-dir", path, "hash-object", "-w", "--stdin"], input=b"/etc/passwd",
                          capture_output=True, check=True, env=git_env("/nonexistent")).stdout.decode().strip()
    env = {**git_env("/nonexistent"), "GIT_INDEX_FILE": path + "/odd"}
    for args in (["read-tree", "main"], ["update-index", "--add", "--cacheinfo", f"120000,{blob},link.md"]):
        subprocess.run([GIT, "--git-dir", path, *args], check=True, env=env, capture_output=True)
    tree = subprocess.run([GIT, "--git-dir", path, "write-tree"], check=True, env=env,
                          capture_output=True).stdout.decode().strip()
    os.unlink(path + "/odd")
    bad = git_dir(path, "commit-tree", tree, "-p", "main", "-m", "a link")
    host.set_main(full(a), bad)
    row = s.wait_note(a, "refused")
    assert row["state"] == "held" and "link.md" in row["note_text"]
    m.push({"ours.md": "work goes on\n"})
    assert s.tip(a) == m.tip and host.tip(full(a)) == bad
    s.mirror("resolve", "--agent", a, "--keep-ours")
    s.wait_mirrored(a)
    assert reaches(path, bad) and "link.md" not in git_dir(path, "ls-tree", "-r", "--name-only", "main")
    assert s.row(a)["note"] is None


def test_F17_a_protected_branch_is_told_and_retry_pushes_when_it_is_free(s, host, agent):
    a = agent()
    m = first(s, a)
    s.wait_mirrored(a)
    host.protect(full(a))
    m.push({"x.md": "not yet there\n"})
    row = s.wait_note(a, "rejected")
    assert row["state"] == "held" and "protected" in row["note_text"] + (row["failure"] or "")
    host.protect(full(a), None)
    s.mirror("retry", "--agent", a)
    s.wait_row(a, lambda r: r["state"] == "mirrored" and r["note"] is None)
    assert host.tip(full(a)) == m.tip


def test_L4_a_merge_that_was_decided_by_rule_is_noted(s, host, agent):
    a = agent()
    m = first(s, a, "one\ntwo\nthree\n")
    s.wait_mirrored(a)
    host.fault(where="git", status=503)
    m.push({"system/human.md": "one\nours\nthree\n"})
    host.edit(full(a), {"system/human.md": "one\ntheirs\nthree\n"})
    host.mend()
    s.mirror("sync", "--agent", a)
    s.wait_note(a, "by-rule")
    value = s.value(a, "system/human")
    assert "ours" in value and "theirs" in value
    assert s.status()["trouble"] == 0     # worth a look, no trouble
    ended(s, a)


# ---- sync-from-git, the first clone

def test_sync_from_git_fetches_merges_and_answers_the_blocks(s, host, agent):
    a = agent()
    first(s, a)
    s.wait_mirrored(a)
    host.edit(full(a), {"web.md": "from the web\n"})
    answer = s.sync(a)
    assert answer.status == 200 and answer.headers["x-memfs-remote"] == "ok; remotes=1"
    assert {b["label"]: b["value"] for b in answer.json()}["web"] == "from the web\n"
    recompiled = s.request("POST", f"/v1/agents/{a}/memory/sync-from-git?recompile=true")
    assert recompiled.status == 200
    assert s.request("POST", f"/v1/agents/{a}/memory/sync-from-git?recompile=maybe").status == 422


def test_sync_from_git_of_an_agent_that_only_the_remote_has(s, host, agent, folder):
    known, unknown = agent(), agent()
    foreign = unrelated(host.repository(full(known)), {"system/human.md": "from there\n"}, folder)
    foreign.run("push", "-q", host.path(full(known)), "main")
    answer = s.sync(known)
    assert answer.status == 200 and [b["value"] for b in answer.json()] == ["from there\n"]
    answer = s.sync(unknown)
    assert answer.status == 404, answer
    assert s.sync("me").status == 422
    host.fault(where="git", status=503)
    away = agent()
    answer = s.sync(away)
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert away not in [r["id"] for r in s.get("/v1/agents/?limit=0").json()]


def test_sync_from_git_calls_that_come_together_share_an_exchange(s, host, agent):
    a = agent()
    first(s, a)
    s.wait_mirrored(a)
    host.edit(full(a), {"web.md": "x\n"})
    host.delay_s = 0.3
    n_before = len(host.requests)
    answers, threads = [], []
    for _ in range(12):
        threads.append(threading.Thread(target=lambda: answers.append(s.sync(a).status)))
        threads[-1].start()
    for thread in threads:
        thread.join(120)
    host.delay_s = 0
    asked = [r for r in host.requests[n_before:] if "upload-pack" in r.target and r.method == "POST"]
    assert answers == [200] * 12
    assert len(asked) < 12 * 2, f"{len(asked)} fetches for 12 calls"


def test_T22_made_up_ids_do_not_reach_the_host_one_for_one(s, host, agent):
    def looks(name=""):
        return [r for r in host.requests if "upload-pack" in r.target and name in r.target]

    a, began = agent(), time.monotonic()
    for _ in range(5):
        assert s.sync(a).status == 404
    assert len(looks(a)) < 5 or time.monotonic() - began > 3
    n_before, began = len(looks()), time.monotonic()
    answers = [s.sync(agent()) for _ in range(60)]
    allowed = 12 + 5 * (time.monotonic() - began)
    assert len(looks()) - n_before <= allowed
    for answer in answers:
        assert answer.status in (404, 503) and (answer.status == 404 or answer.headers["retry-after"])
    assert len([x for x in answers if x.status == 404]) <= allowed


def test_the_first_clone_of_an_unknown_id_finds_the_remotes_memory(s, host, agent, folder, git):
    a, nobody = agent(), agent()
    foreign = unrelated(host.repository(full(a)), {"system/human.md": "met\n"}, folder)
    foreign.run("push", "-q", host.path(full(a)), "main")
    c = git.clone(s.git_url(a), folder / "c")
    assert c.read("system/human.md") == b"met\n"
    assert reaches(s.repository(a), host.tip(full(a)))
    fresh = git.clone(s.git_url(nobody), folder / "n")
    assert fresh.head == "56776245ff7b896622904bfc4d1c355a35e6cd81"


def test_L3_a_host_that_hangs_delays_no_first_clone_for_long(operated, agent, folder, git):
    server = operated()
    server.add("origin", f"http://127.0.0.1:{closed_port()}/{{agentId}}.git")
    fresh = git.clone(server.git_url(agent()), folder / "n")
    assert fresh.head == "56776245ff7b896622904bfc4d1c355a35e6cd81"


# ---- proof, rebuild, restore

def test_verify_proves_what_the_remote_has_and_dates_it(s, host, agent):
    a = agent()
    first(s, a)
    s.wait_mirrored(a)
    assert s.row(a)["proof_at"] is None
    done = s.mirror("verify", "--json")
    assert json.loads(done.stdout)["failed"] == 0
    assert s.row(a)["proof_at"] is not None
    host.stop()
    done = s.mirror("verify", "--agent", a, check=False)
    assert done.returncode != 0 and a.encode() in done.stdout + done.stderr
    host.start()


def test_rebuild_brings_every_memory_to_an_empty_machine(s, operated, host, token, agent):
    agents = [agent() for _ in range(5)]
    for i, a in enumerate(agents):
        m = first(s, a, f"memory {i}\n")
        m.push({"notes/x.md": f"note {i}\n"})
    for a in agents:
        s.wait_mirrored(a)
    before = s.dump(agents)
    created = {r["id"]: r["created_at"] for r in s.get("/v1/agents/?limit=0").json()}
    wait(lambda: [git_dir(host.path(full(a)), "rev-parse", "-q", "--verify", "refs/memfs/meta",
                          check=False) for a in agents], all, server=s)
    fresh = operated("fresh", start=False)
    fresh.add("origin", host.url("agents/{agentId}.git"), token=token)
    done = fresh.cli("rebuild", "--from-remote", "--json")
    assert json.loads(done.stdout)["agents"] == 5, done
    fresh.start()
    assert fresh.dump(agents) == before
    assert {r["id"]: r["created_at"] for r in fresh.get("/v1/agents/?limit=0").json()} == created
    again = fresh.cli("rebuild", "--from-remote")            # against the running server, nothing to do
    assert fresh.dump(agents) == before, again
    fresh.check_token(token)


def test_rebuild_of_the_agents_of_a_list(s, operated, host, token, agent, folder):
    agents = [agent() for _ in range(3)]
    for a in agents:
        first(s, a, a)
    for a in agents:
        s.wait_mirrored(a)
    fresh = operated("fresh")
    fresh.add("origin", host.url("agents/{agentId}.git"), token=token)
    names = f"# two of them\n\n{agents[0]}\n  {agents[1]}  # the second\n"
    fresh.cli("rebuild", "--from-remote", "--agents", "-", input=names.encode())
    assert fresh.value(agents[0], "system/human") == agents[0]
    assert {r["id"] for r in fresh.get("/v1/agents/?limit=0").json()} == set(agents[:2])
    for text in (b"", b"# nobody\n", b"all\n"):
        done = fresh.cli("rebuild", "--from-remote", "--agents", "-", input=text, check=False)
        assert done.returncode == 2, done
    assert {r["id"] for r in fresh.get("/v1/agents/?limit=0").json()} == set(agents[:2])


def test_restore_on_the_server_is_a_new_commit_that_is_mirrored_and_undone(s, host, agent):
    a = agent()
    m = first(s, a, "as it was\n")
    old = m.tip
    time.sleep(1.1)                       # a time names a second
    at = int(time.time())
    time.sleep(1.1)
    m.push({"system/human.md": "spoiled\n", "spoiled.md": "x\n"})
    spoiled = m.tip
    done = s.cli("restore", "--server", "--agent", a, "--at", f"@{at}")
    assert b"--at " + spoiled[:12].encode() in done.stderr
    assert s.value(a, "system/human") == "as it was\n" and "spoiled" not in s.blocks(a)
    tip = s.tip(a)
    assert s.is_reachable(a, spoiled) and s.is_reachable(a, old) and tip not in (old, spoiled)
    s.wait_mirrored(a)
    assert host.tip(full(a)) == tip
    same = s.cli("restore", "--server", "--agent", a, "--at", old[:10])
    assert b"nothing was changed" in same.stderr and s.tip(a) == tip
    s.cli("restore", "--agent", a, "--at", spoiled, "--json")   # no checkout here: the server's is meant
    assert s.value(a, "system/human") == "spoiled\n"
    for bad, code in ((("--at", "f" * 40), 1), (("--at", "@1"), 1), ((), 2)):
        done = s.cli("restore", "--server", "--agent", a, *bad, check=False)
        assert done.returncode == code, (bad, done)


# ---- two servers, one host

def test_two_servers_share_a_host_both_ways(s, operated, host, token, agent):
    a = agent()
    other = operated("other")
    other.add("origin", host.url("agents/{agentId}.git"), token=token)
    m = first(s, a)
    s.wait_mirrored(a)
    assert other.sync(a).status == 200
    assert other.value(a, "system/human") == "first\n"
    n = Pen(other, a)
    n.push({"other.md": "from the other\n"})
    m.push({"one.md": "from the one\n"})
    for server in (s, other):
        wait(lambda server=server: server.blocks(a), lambda b: {"other", "one"} <= set(b), server=server)
    wait(lambda: {s.tip(a), other.tip(a), host.tip(full(a))}, lambda tips: len(tips) == 1, server=s)
    assert reaches(host.path(full(a)), m.tip) and reaches(host.path(full(a)), n.tip)


# ---- secrets

def test_S3_T24_a_host_that_says_back_what_it_got(s, host, token, agent):
    a = agent()
    m = first(s, a)
    s.wait_mirrored(a)
    secrets = [token, base64.b64encode(b"memfs:" + token.encode()).decode()]
    for status in (401, 403, 404, 500):
        host.fault(status=status, echo=True)
        m.push({"x.md": str(status)})
        texts = [b"".join((done.stdout, done.stderr)) for done in (s.mirror(*words, check=False) for words in (
            ["retry"], ["sync", "--agent", a], ["status"], ["status", "--json"], ["check"], ["verify"],
            ["list", "--json"]))]
        answer = s.sync(a)
        assert answer.status == 200
        texts.append(json.dumps(answer.headers).encode() + answer.body)
        for text in texts:
            assert not any(secret.encode() in text for secret in secrets), text
        host.mend()
        s.mirror("retry", check=False)
    s.wait_mirrored(a)
    s.check_token(token)


# ---- agents that are deleted

def test_7_the_copies_of_a_deleted_agent_stay_as_they_are_and_go_on_when_it_is_back(s, host, agent):
    a, other = agent(), agent()
    first(s, a)
    first(s, other)
    s.wait_mirrored(a)
    known = host.tip(full(a))
    assert s.request("DELETE", f"/v1/agents/{a}").status == 200
    host.edit(full(a), {"system/human.md": "edited on the host\n"})
    edited = host.tip(full(a))
    s.mirror("retry", check=False)
    s.wait_mirrored(other)                        # the mirror goes on
    s.restart()
    s.wait_mirrored(other)
    assert s.get(f"/v1/agents/{a}").status == 404 and s.sync(a).status == 404
    assert s.get(f"/v1/git/{a}/state.git/info/refs?service=git-upload-pack").status == 404
    assert s.mirror("status", "--agent", a, check=False).returncode == 1
    assert host.tip(full(a)) == edited != known
    assert s.request("POST", f"/v1/agents/{a}/restore").status == 200
    wait(lambda: s.value(a, "system/human"), lambda text: text == "edited on the host\n", server=s)
    s.wait_mirrored(a)
