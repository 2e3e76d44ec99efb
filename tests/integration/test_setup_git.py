"""`memfs setup git` and git-remote-memfs: every id, known or not, is answered from this machine.

The base is an address where nobody listens, or a listener that writes down what it hears: whatever works here
works while the endpoint answers 501, and nothing of the key leaves the machine.
"""
import base64
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid

import pytest

from lib.fake_remote import FakeRemote
from lib.gitcli import GIT, Checkout, Git
from lib.hooks import TRACEABLE, beside

GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"
CANARY = "sk-let-cAnArY/+==%41'\""


def new_id(local=False):
    return f"agent-{'local-' if local else ''}{uuid.uuid4()}"


class Home:
    """A user's home: its own HOME, a PATH with git-remote-memfs, a base where nobody listens."""

    def __init__(self, memfs_bin, folder, base="http://127.0.0.1:1", **env):
        self.memfs, self.folder = memfs_bin, folder
        self.bin = folder / "bin"
        self.bin.mkdir(exist_ok=True)
        for program in ("git-remote-memfs", "memfs"):
            if not (self.bin / program).is_symlink():
                (self.bin / program).symlink_to(beside(memfs_bin, program))
        self.base = base
        self.git = Git(folder / "home")
        # what a client of Letta has; nothing of the tester's own
        self.git.env = {"HOME": self.git.home, "PATH": f"{self.bin}:/usr/bin:/bin", "LC_ALL": "C.UTF-8",
                        "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
                        "MEMFS_HOME": str(folder / "memfs"), "LETTA_MEMFS_BASE_URL": base, **env}
        self.config = pathlib.Path(self.git.home) / ".gitconfig"

    def run(self, *args, check=True, env=None, **kw):
        done = subprocess.run([self.memfs, *map(str, args)], env={**self.git.env, **(env or {})},
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60, cwd=self.git.home, **kw)
        if check:
            assert done.returncode == 0, done
        return done

    def json(self, *args, **kw):
        return json.loads(self.run(*args, "--json", **kw).stdout)

    def url(self, agent, tail="state.git"):
        return f"{self.base}/v1/git/{agent}/{tail}"

    def hub(self, agent):
        return self.folder / "memfs" / "hub" / f"{agent}.git"

    def clone(self, agent, name, tail="state.git"):
        to = self.folder / name
        to.mkdir()
        # as the client: clone into the folder, the key on every command
        key = base64.b64encode(f"letta:{CANARY}".encode()).decode()
        self.git.run("-c", "credential.helper=", "-c", "core.askPass=", "-c",
                     f"http.extraHeader=Authorization: Basic {key}", "clone", "-q",
                     self.url(agent, tail), ".", cwd=to)
        return Checkout(self.git, to)


@pytest.fixture
def home(memfs_bin, folder):
    h = Home(memfs_bin, folder)
    yield h
    for hub in (folder / "memfs" / "hub").glob("**/*.git"):
        done = subprocess.run([GIT, "-C", hub, "fsck", "--full", "--strict"], capture_output=True,
                              env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, done


def commit(checkout, name, text="text\n"):
    checkout.write(name, text)
    checkout.run("add", "-A")
    checkout.run("commit", "-q", "-m", name)
    return checkout.text("rev-parse", "HEAD")


# the line in the git config

def test_setup_git_writes_one_line_and_takes_it_away(home):
    home.config.write_text("[user]\n\tname = Someone # and a comment\n")
    before = home.config.read_text()
    assert home.json("setup")["is_on"] is False
    said = home.json("setup", "git")
    assert said == {"is_on": True, "rewrites": home.base + "/v1/git/", "git_config": str(home.config),
                    "problem": None}
    assert home.git.text("config", "--global", "--get-all", "url.memfs::.insteadOf") == home.base + "/v1/git/"
    written = home.config.read_text()
    assert written.startswith(before)
    home.run("setup", "git")                                       # again: nothing is written
    assert home.config.read_text() == written
    assert home.json("setup")["is_on"] is True
    assert home.json("setup", "git", "--undo")["is_on"] is False
    assert home.git.run("config", "--global", "--get-all", "url.memfs::.insteadOf", check=False).returncode == 1
    assert home.git.text("config", "--global", "user.name") == "Someone"
    home.run("setup", "git", "--undo")


def test_setup_git_needs_the_program_and_else_changes_nothing(home):
    done = home.run("setup", "git", check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert b"git-remote-memfs" in done.stderr and b"ln -s " in done.stderr
    assert not home.config.exists()
    # installed, and then the program goes: told, and undo still works
    home.run("setup", "git")
    done = home.run("setup", check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1 and b"git-remote-memfs" in done.stderr
    home.run("setup", "git", "--undo", env={"PATH": "/usr/bin:/bin"})


def test_setup_git_knows_where_the_global_config_is(home, folder):
    xdg = pathlib.Path(home.git.home) / ".config" / "git" / "config"
    xdg.parent.mkdir(parents=True)
    xdg.write_text("[a]\n\tb = c\n")
    assert home.json("setup", "git")["git_config"] == str(xdg)          # no ~/.gitconfig: as git does
    assert home.git.text("config", "--global", "url.memfs::.insteadOf") == home.base + "/v1/git/"
    home.config.write_text("")
    assert home.json("setup", "git", "--undo")["is_on"] is False      # looked for in both
    assert "memfs" not in xdg.read_text().replace('[url "memfs::"]', "")
    other = folder / "dotfiles" / "gitconfig"
    other.parent.mkdir()
    other.write_text("[x]\n\ty = z\n")
    home.config.unlink()
    home.config.symlink_to(other)
    home.run("setup", "git")
    assert home.config.is_symlink() and "insteadOf" in other.read_text()
    home.run("setup", "git", "--undo")
    own = folder / "own"
    home.run("setup", "git", env={"GIT_CONFIG_GLOBAL": str(own)})
    assert "insteadOf" in own.read_text() and "insteadOf" not in other.read_text()
    assert home.run("setup", "git", check=False, env={"GIT_CONFIG_GLOBAL": "/dev/null"}).returncode != 0


def test_setup_git_rewrites_what_old_and_new_clients_use(home):
    """Up to 0.22 LETTA_BASE_URL makes git addresses, from 0.25 LETTA_MEMFS_BASE_URL."""
    env = {"LETTA_BASE_URL": "http://127.0.0.1:2/", "LETTA_MEMFS_BASE_URL": "http://127.0.0.1:3/prefix//"}
    home.run("setup", "git", env=env)
    lines = home.git.text("config", "--global", "--get-all", "url.memfs::.insteadOf").split()
    assert lines == ["http://127.0.0.1:3/prefix/v1/git/", "http://127.0.0.1:2/v1/git/"]
    # another base since then: told, and mended by setup
    env["LETTA_MEMFS_BASE_URL"] = "http://127.0.0.1:4"
    done = home.run("setup", check=False, env=env)
    assert done.returncode == 1 and b"setup git" in done.stderr
    home.run("setup", "git", env=env)
    lines = home.git.text("config", "--global", "--get-all", "url.memfs::.insteadOf").split()
    assert lines == ["http://127.0.0.1:4/v1/git/", "http://127.0.0.1:2/v1/git/"]
    env["LETTA_MEMFS_BASE_URL"] = ""
    home.run("setup", "git", env=env)
    assert home.git.text("config", "--global", "--get-all",
                         "url.memfs::.insteadOf") == "http://127.0.0.1:2/v1/git/"


# clone, fetch, push

def test_setup_git_new_agents_start_and_their_commits_stay(home):
    home.run("setup", "git")
    for agent in (new_id(), new_id(local=True)):
        c = home.clone(agent, agent)
        assert c.text("rev-parse", "HEAD") == c.text("rev-parse", "origin/main") == GENESIS
        assert c.text("config", "remote.origin.url") == home.url(agent)         # nothing shows it
        assert c.text("branch", "--show-current") == "main"
        tip = commit(c, "notes.txt")
        c.run("push", "-q", "-u", "origin", "main")
        assert c.text("--git-dir", home.hub(agent), "rev-parse", "main") == tip
        other = home.clone(agent, agent + "-2")
        assert other.text("rev-parse", "HEAD") == tip
        tip = commit(other, "more.txt")
        other.run("push", "-q")
        c.run("pull", "-q", "--ff-only")
        assert c.text("rev-parse", "HEAD") == tip


def test_setup_git_adopts_the_checkout_and_disturbs_no_clone(home):
    home.run("setup", "git")
    agent = new_id()
    c = home.clone(agent, "memory")
    hooks = str(home.folder / "memfs" / "hooks")
    assert c.text("config", "core.hooksPath") == hooks
    assert os.readlink(hooks + "/pre-commit") == beside(home.memfs, "memfs-hook")
    assert c.text("config", "letta.agentId") == agent
    assert c.text("config", "user.email") == f"{agent}@letta.com"
    keys = c.text("config", "--local", "--name-only", "--list").split("\n")
    assert len(keys) == len(set(keys)), keys                       # clone adds to what it finds
    assert CANARY not in pathlib.Path(c.path, ".git/config").read_text()
    # the client's staged clone is renamed to its place, hooks still work there
    os.rename(c.path, home.folder / "moved")
    moved = Checkout(home.git, home.folder / "moved")
    commit(moved, "a.txt")
    lost = commit(moved, "b.txt")
    moved.run("reset", "-q", "--hard", "HEAD~1")
    assert lost in moved.text("for-each-ref", "refs/memfs/rescue/")
    # settings that the user changed afterwards stay
    moved.run("config", "user.name", "Mine")
    moved.run("fetch", "-q")
    assert moved.text("config", "user.name") == "Mine"


def test_setup_git_other_repositories_that_talk_to_a_memory_are_let_be(home):
    home.run("setup", "git")
    agent = new_id()
    project = home.git.init(home.folder / "project")
    before = (home.folder / "project/.git/config").read_text()
    assert project.text("ls-remote", home.url(agent)).split() == [GENESIS, "HEAD", GENESIS, "refs/heads/main"]
    project.run("fetch", "-q", home.url(agent), "main")
    assert (home.folder / "project/.git/config").read_text() == before
    project.run("remote", "add", "memory", home.url(agent))
    before = (home.folder / "project/.git/config").read_text()
    project.run("fetch", "-q", "memory")
    assert (home.folder / "project/.git/config").read_text() == before
    # somebody's own hooks folder stays
    theirs = home.clone(agent, "theirs")
    theirs.run("config", "core.hooksPath", "/my/hooks")
    theirs.run("fetch", "-q")
    assert theirs.text("config", "core.hooksPath") == "/my/hooks"


def test_H1_setup_git_hub_takes_nothing_but_fast_forwards_of_main(home):
    home.run("setup", "git")
    agent = new_id()
    one, two = home.clone(agent, "one"), home.clone(agent, "two")
    first = commit(one, "one.txt")
    one.run("push", "-q")
    commit(two, "two.txt")
    refused = two.run("push", "-q", "origin", "main", check=False)
    assert refused.returncode != 0 and b"failed to push some refs" in refused.stderr  # the client waits for it
    for args in (["--force", "origin", "main"], ["origin", ":main"], ["origin", "main:other"],
                 ["origin", "main:refs/tags/x"], ["origin", "main:refs/memfs/rescue/x/y"],
                 ["--force", "origin", "HEAD:refs/heads/main"]):
        assert two.run("push", "-q", *args, check=False).returncode != 0, args
    two.run("pull", "-q", "--rebase")
    two.run("push", "-q")
    hub = home.hub(agent)
    assert two.text("--git-dir", hub, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert two.run("--git-dir", hub, "merge-base", "--is-ancestor", first, "main").returncode == 0


def test_setup_git_32_clones_of_one_new_agent(home):
    home.run("setup", "git")
    agent, failures = new_id(), []

    def work(n):
        try:
            assert home.clone(agent, f"c{n}").text("rev-parse", "HEAD") == GENESIS
        except AssertionError as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]
    left = sorted(p.name for p in home.hub(agent).parent.iterdir())
    assert left == [f"{agent}.git", f"{agent}.git.lock"]


def test_setup_git_mounts_of_shared_repositories(home):
    home.run("setup", "git")
    agent = new_id()
    c = home.clone(agent, "team", "repositories/team-1.git")
    assert c.text("rev-parse", "HEAD") == GENESIS
    assert c.text("config", "core.hooksPath") == str(home.folder / "memfs" / "hooks")
    assert c.run("config", "letta.agentId", check=False).returncode == 1        # it is nobody's own
    assert (home.folder / "memfs/hub" / agent / "repositories/team-1.git").is_dir()
    assert not home.hub(agent).exists()


def test_setup_git_mounts_follow_their_server(memfs_bin, folder):
    """Nothing else would carry a shared repository: its hub meets the server at each fetch and push."""
    agent = new_id()
    path = f"v1/git/{agent}/repositories/team.git"
    with FakeRemote(root=folder / "server") as server:
        there = server.repository(path)
        h = Home(memfs_bin, folder, base=server.url("").rstrip("/"))
        h.run("setup", "git")
        author = h.git.init(folder / "author")
        author.run("config", "user.email", "a@b")
        author.run("config", "user.name", "a")
        first = commit(author, "README.txt")
        author.run("push", "-q", there, "main")
        mount = h.clone(agent, "team", "repositories/team.git")
        mount.run("config", "user.email", "m@b")
        mount.run("config", "user.name", "m")
        assert mount.text("rev-parse", "HEAD") == first
        # theirs and ours at once
        commit(author, "theirs.txt")
        author.run("push", "-q", there, "main")
        tip = commit(mount, "ours.txt")
        server.say("501")
        mount.run("push", "-q", "origin", "HEAD:main")                # the hub takes it
        hub = folder / "memfs/hub" / agent / "repositories/team.git"
        wait_for(lambda: remembered(hub, "answer") == "not-implemented" and is_calm(hub))
        mount.run("pull", "-q", "--rebase", "origin", "main")
        assert mount.text("rev-parse", "HEAD") == tip
        server.say(None)
        mount.run("pull", "-q", "--rebase", "origin", "main")
        assert (folder / "team" / "theirs.txt").exists()
        assert author.text("--git-dir", there, "rev-parse", "main") == mount.text("rev-parse", "HEAD")
        assert author.run("--git-dir", there, "merge-base", "--is-ancestor", tip, "main").returncode == 0
        # and a push needs no later fetch to be there
        (hub / "memfs" / "remote").unlink()
        tip = commit(mount, "more.txt")
        mount.run("push", "-q", "origin", "HEAD:main")
        wait_for(lambda: main_of(h.git, there) == tip)
        wait_for(lambda: is_calm(hub))
        keys = [v for r in server.requests for k, v in r.headers.items() if k.lower() == "authorization"]
        assert all(CANARY not in base64.b64decode(v.split()[-1]).decode("utf-8", "replace") for v in keys)


# what a client pushed travels on by itself

def wait_for(what, seconds=30):
    """Work that nobody waits for: looked at until it is there (or the test fails)."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def main_of(git, repository):
    done = git.run("--git-dir", repository, "rev-parse", "-q", "--verify", "main", check=False)
    return done.stdout.decode().strip()


def remembered(hub, key):
    try:
        lines = (hub / "memfs" / "remote").read_text().splitlines()
    except FileNotFoundError:
        return None
    return dict(line.split(" ", 1) for line in lines).get(key)


def n_pushing(agent):
    n = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue                                        # it has ended meanwhile
        n += b"push-hub" in words and agent.encode() in words
    return n


def is_calm(hub):
    """What a push has started is over."""
    return n_pushing(re.search("agent-(local-)?[0-9a-f-]{36}", str(hub)).group()) == 0


@pytest.fixture
def served(memfs_bin, folder):
    """A home whose base is a server that makes a repository of each id that it is asked for."""
    with FakeRemote(root=folder / "server", create=True) as server:
        h = Home(memfs_bin, folder, base=server.url("").rstrip("/"), LETTA_API_KEY=CANARY)
        h.server = server
        h.there = lambda agent: folder / "server" / "v1" / "git" / agent / "state.git"
        h.run("setup", "git")
        yield h
        for hub in (folder / "memfs" / "hub").glob("**/*.git"):
            wait_for(lambda: is_calm(hub))
            h.git.run("--git-dir", hub, "fsck", "--full", "--strict")


def test_setup_git_a_pushed_commit_reaches_the_remote_beside_a_client_at_work(served, folder):
    """No `memfs sync`, and the checkout is let be: there is an index.lock and work that is not committed."""
    agent = new_id()
    there, hub = served.there(agent), served.hub(agent)
    # where the Letta client has it, so a sync would find the checkout
    memory = pathlib.Path(served.git.home) / ".letta" / "agents" / agent / "memory"
    memory.parent.mkdir(parents=True)
    c = served.clone(agent, memory)
    tip = commit(c, "notes.txt")
    c.write("half.txt", "half\n")
    lock = memory / ".git" / "index.lock"
    lock.write_bytes(b"")
    index = (memory / ".git" / "index").read_bytes()
    c.run("push", "-q", "origin", "main")
    wait_for(lambda: main_of(served.git, there) == tip and is_calm(hub))
    assert lock.exists() and (memory / ".git" / "index").read_bytes() == index
    assert not (memory / ".git" / "memfs").exists() or os.listdir(memory / ".git" / "memfs") == []
    lock.unlink()
    # somebody else's commit is merged in the hub, and travels back with the client's own pull
    other = served.git.clone(there, folder / "other")
    other.run("config", "user.email", "o@b")
    other.run("config", "user.name", "o")
    theirs = commit(other, "theirs.txt")
    other.run("push", "-q")
    mine = commit(c, "mine.txt")
    c.run("push", "-q", "origin", "main")
    for id in (theirs, mine):
        wait_for(lambda: c.run("--git-dir", there, "merge-base", "--is-ancestor", id, "main",
                               check=False).returncode == 0)
    assert c.text("rev-parse", "HEAD") == mine and not (memory / "theirs.txt").exists()
    wait_for(lambda: is_calm(hub))
    c.run("pull", "-q", "--rebase", "origin", "main")
    assert c.text("rev-parse", "HEAD") == main_of(served.git, there)
    assert (memory / "theirs.txt").exists() and (memory / "half.txt").read_text() == "half\n"


def test_setup_git_a_501_is_not_asked_again_at_each_push(served):
    """A commit reaches the remote as soon as there is one, and an endpoint that says no is left in peace."""
    agent = new_id()
    server, there, hub = served.server.say("501"), served.there(agent), served.hub(agent)
    c = served.clone(agent, "memory")
    n_before = len(server.requests)                         # the clone has tried a fetch
    for i in range(5):
        tip = commit(c, f"{i}.txt")
        c.run("push", "-q", "origin", "main")
        wait_for(lambda: remembered(hub, "answer") == "not-implemented" and is_calm(hub))
    assert len(server.requests) == n_before + 1
    server.say(None)                                        # there is one now, and the answer expires
    known = (hub / "memfs" / "remote").read_text()
    (hub / "memfs" / "remote").write_text(re.sub("(?m)^until .*", "until 1", known))
    tip = commit(c, "last.txt")
    c.run("push", "-q", "origin", "main")
    wait_for(lambda: there.is_dir() and main_of(served.git, there) == tip and is_calm(hub))
    # a remote that answers hears of each push at once
    tip = commit(c, "more.txt")
    c.run("push", "-q", "origin", "main")
    wait_for(lambda: main_of(served.git, there) == tip)


def test_setup_git_pushes_at_once_are_one_at_work_and_one_waiting(served):
    """Many pushes while one exchange takes long: no crowd of processes, and in the end everything is there."""
    agent = new_id()
    there, hub = served.there(agent), served.hub(agent)
    c = served.clone(agent, "memory")
    (hub / "memfs").mkdir(exist_ok=True)
    with open(hub / "memfs" / "push.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)                    # somebody is at work, for long
        for i in range(8):
            tip = commit(c, f"{i}.txt")
            c.run("push", "-q", "origin", "main")
        wait_for(lambda: n_pushing(agent) == 1)
        assert main_of(served.git, there) == ""
    wait_for(lambda: main_of(served.git, there) == tip)


def test_setup_git_a_helper_whose_parents_ignore_their_children_still_tells_how_it_went(served):
    """The helper itself, spoken to as git does: an ignored SIGCHLD is inherited, and then nothing can be waited for."""
    agent = new_id()
    served.run("hook", "prepare-hub", "--agent", agent)
    done = subprocess.run([served.bin / "git-remote-memfs", "origin", f"{agent}/state.git"],
                          input=b"connect git-receive-pack\n0000", capture_output=True, timeout=60, env=served.git.env,
                          cwd=served.git.home, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert done.returncode == 0 and b"refs/heads/main" in done.stdout, done


def test_setup_git_push_hub_by_hand_and_without_a_remote(home, folder):
    home.run("setup", "git")
    agent = new_id()
    done = home.run("hook", "push-hub", "--agent", agent, check=False, env={"LETTABOT_MEMFS_BACKEND": "none"})
    assert done.returncode == 1 and b"no hub" in done.stderr
    home.run("hook", "prepare-hub", "--agent", agent, env={"LETTABOT_MEMFS_BACKEND": "none"})
    done = home.run("hook", "push-hub", "--agent", agent, env={"LETTABOT_MEMFS_BACKEND": "none"})
    assert done.stdout == done.stderr == b""
    done = home.run("hook", "push-hub", "--agent", agent, check=False)      # nobody listens at the base
    assert done.returncode in (0, 3) and done.stdout == done.stderr == b""
    assert home.run("hook", "push-hub", check=False).returncode == 2


def test_T01_setup_git_refuses_what_is_no_memory(home):
    home.run("setup", "git")
    good = new_id()
    for tail in ("agent-1/state.git", "../../etc/passwd", f"{good}/../../x/state.git", f"{good.upper()}/state.git",
                 f"{good}/repositories/..%2f..%2fx.git", f"{good}/repositories/memory.git",
                 f"--upload-pack=touch/state.git", f"{good}/state.git/../../../x"):
        done = home.git.run("ls-remote", f"{home.base}/v1/git/{tail}", check=False)
        assert done.returncode != 0, tail
    assert not (home.folder / "memfs").exists()


# the key, and the checkout's own environment

def test_S3_setup_git_the_key_goes_nowhere(home, folder, memfs_bin):
    """A listener in the base's place hears nothing; the hub's git inherits neither key nor GIT_DIR."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def listen():
            while not done.is_set():
                try:
                    peer, _ = server.accept()
                    peer.settimeout(1)
                    heard.append(peer.recv(65536))
                    peer.sendall(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    peer.close()
                except OSError:
                    pass

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            h = Home(memfs_bin, folder, base=f"http://127.0.0.1:{server.getsockname()[1]}")
            h.git.env["LETTABOT_MEMFS_BACKEND"] = "none"
            h.run("setup", "git")
            agent = new_id()
            c = h.clone(agent, "memory")
            commit(c, "a.txt")
            key = base64.b64encode(f"letta:{CANARY}".encode()).decode()
            trace = folder / "trace"
            subprocess.run(["strace", "-f", "-v", "-s", "4096", "-e", "trace=execve", "-o", trace, GIT, "-c",
                            f"http.extraHeader=Authorization: Basic {key}", "push", "-q", "origin", "main"],
                           cwd=c.path, env={**h.git.env, **TRACEABLE}, check=True, capture_output=True, timeout=60)
        finally:
            done.set()
            thread.join()
    assert heard == []
    lines = [x for x in trace.read_text().split("\n") if '"receive-pack"' in x and "= 0" in x]
    assert len(lines) == 1
    assert key not in lines[0] and CANARY not in lines[0]
    for variable in ("GIT_DIR=", "GIT_CONFIG_PARAMETERS", "GIT_WORK_TREE", "GIT_INDEX_FILE", "LETTA_API_KEY"):
        assert f'"{variable}' not in lines[0], variable
    for setting in ("core.fsync", "receive.denyNonFastForwards", "receive.denyDeletes", "receive.fsckObjects"):
        assert setting in lines[0], setting


def test_setup_git_unknown_agents_take_what_a_remote_has(home, folder):
    home.run("setup", "git")
    agent = new_id()
    there = home.git.init(folder / "there")
    there.run("config", "user.email", "a@b")
    there.run("config", "user.name", "a")
    tip = commit(there, "notes.txt")
    home.git.env["LETTABOT_MEMFS_REMOTE"] = str(folder / "there")
    c = home.clone(agent, "memory")
    assert c.text("rev-parse", "HEAD") == tip
    assert c.text("--git-dir", home.hub(agent), "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    # a remote that is not there: the genesis
    home.git.env["LETTABOT_MEMFS_REMOTE"] = str(folder / "nowhere")
    assert home.clone(new_id(), "other").text("rev-parse", "HEAD") == GENESIS


def test_F19_setup_git_a_remote_that_hangs_costs_its_budget_and_no_more(home, folder):
    home.run("setup", "git")
    with socket.create_server(("127.0.0.1", 0)) as silent:          # accepts, never answers
        home.git.env["LETTABOT_MEMFS_REMOTE"] = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        assert home.clone(new_id(), "memory").text("rev-parse", "HEAD") == GENESIS


# half an installation, and a crash

def test_setup_git_without_memfs_known_agents_are_still_answered(home, folder, memfs_bin):
    home.run("setup", "git")
    agent = new_id()
    home.clone(agent, "memory")
    alone = folder / "alone"
    alone.mkdir()
    shutil.copy(beside(memfs_bin, "git-remote-memfs"), alone / "git-remote-memfs")
    home.git.env["PATH"] = f"{alone}:/usr/bin:/bin"
    assert home.clone(agent, "again").text("rev-parse", "HEAD") == GENESIS
    done = home.git.run("ls-remote", home.url(new_id()), check=False)
    assert done.returncode != 0 and b"not whole" in done.stderr


def test_F01_setup_git_a_killed_hub_is_made_again(home, folder):
    home.run("setup", "git")
    agent = new_id()
    n_hits = 0
    for n in range(1, 60):
        log = folder / "strace.log"
        done = subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", "trace=rename,fsync,mkdir", "-e",
                               f"inject=rename,fsync,mkdir:signal=KILL:when={n}", home.memfs, "hook",
                               "prepare-hub", "--agent", agent], env={**home.git.env, **TRACEABLE}, capture_output=True,
                              timeout=60)
        if done.returncode == 0:
            break
        n_hits += 1
        home.run("hook", "prepare-hub", "--agent", agent)
        assert home.git.text("--git-dir", home.hub(agent), "rev-parse", "main") == GENESIS
        assert not (home.hub(agent).parent / f"{agent}.git.making").exists()
        shutil.rmtree(home.hub(agent))
    assert n_hits >= 3
