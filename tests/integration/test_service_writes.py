"""What the Letta server writes at the very moment at which memfs puts its own main in its place.

The server truncates and writes `main` with no lock, so its write may land in the file that memfs is
just replacing.  strace holds memfs there; `held` is the file as the server has opened it.
"""
import hashlib
import os
import shutil
import signal
import subprocess
import threading

import pytest

from lib.gitcli import GIT
from lib.graph import is_ancestor
from lib.machines import Machine
from lib.patience import wait
from lib.service import (MAIN, checkout, client, in_folder, letta, letta_row, one, root,  # noqa: F401
                         save, served, settle)
from lib.trace import Trace

from test_service import tree_of

NO_EXCHANGE = "inject=renameat2:error=EINVAL"       # as on NFS


class Replacing:
    """memfs is stopped right after it put its main in the server's place."""

    def __init__(self, s, root, agent, folder, *inject):
        self.s, self.root, self.agent = s, root, agent
        self.heads = os.path.join(root.repository(agent), "refs/heads")
        self.held = str(folder / "held")
        os.link(self.heads + "/main", self.held)
        call = "renameat" if inject else "renameat2"
        options = [o for name in inject for o in ("-e", name)]
        self.trace = Trace(s.pid, folder / "trace", "-e", "trace=renameat,renameat2", "-P", self.heads,
                           *options, "-e", f"inject={call}:signal=SIGSTOP")

    def wait(self):
        wait(lambda: any("stopped by SIGSTOP" in line for line in self.trace.lines()), "memfs stands still")
        assert open(self.held, "rb").read() != open(self.heads + "/main", "rb").read()

    def write(self, commit):
        with open(self.held, "r+", encoding="ascii") as f:
            f.truncate()
            f.write(commit + "\n")

    def go_on(self):
        self.trace.detach()
        os.kill(self.s.pid, signal.SIGCONT)


def begin_write(root, agent, changes):
    """The server's commit, all of it in the folder but for the ref."""
    tip, files = root.begin(agent, changes)
    root.write_back(agent, [(path, data) for path, data in files if path != MAIN])
    return tip


def push_beside(c, path, text):
    c.write(path, text)
    c.run("add", "-A")
    c.run("commit", "-q", "-m", path)
    return c.text("rev-parse", "HEAD"), subprocess.Popen(
        [GIT, "push", "-q", "origin", "HEAD:main"], cwd=c.path, env=c.git.env, stderr=subprocess.DEVNULL)


def stages(root, agent):
    beside = os.path.dirname(root.repository(agent))
    return [name for name in os.listdir(beside)
            if name.startswith(".memfs-") and os.path.isdir(os.path.join(beside, name))]


def wait_joined(s, root, agent, *commits):
    repo = root.repository(agent)
    wait(lambda: all(is_ancestor(repo, commit, MAIN) for commit in commits), "all of it is in main there")
    wait(lambda: s.tip(agent) == root.tip(agent), "and here")
    wait(lambda: stages(root, agent) == [], "nothing is left beside it")
    in_folder(root, agent, "fsck", "--full", "--strict")


@pytest.mark.parametrize("inject", [(), (NO_EXCHANGE,)], ids=["exchanged", "linked"])
def test_H2_what_the_server_writes_into_the_main_that_is_replaced_is_taken_in(one, root, folder, inject):
    s, a, c = one
    theirs = begin_write(root, a, {"system/human.md": "Likes coffee.\n"})
    at = Replacing(s, root, a, folder, *inject)
    ours, push = push_beside(c, "b.md", "b\n")
    at.wait()
    at.write(theirs)
    at.go_on()
    assert push.wait(120) == 0
    wait_joined(s, root, a, ours, theirs)
    assert root.read(a) == {"system/human.md": "Likes coffee.\n", "b.md": "b\n"}


@pytest.mark.parametrize("inject", [(), (NO_EXCHANGE,)], ids=["exchanged", "linked"])
def test_H2_two_writes_of_the_server_around_a_swap_are_both_kept(one, root, folder, inject):
    """One into the file that was replaced, the next into ours: nothing may be put back over it."""
    s, a, c = one
    first = begin_write(root, a, {"system/human.md": "Likes coffee.\n"})
    at = Replacing(s, root, a, folder, *inject)
    ours, push = push_beside(c, "b.md", "b\n")
    at.wait()
    at.write(first)
    second = root.commit(a, {"system/more.md": "more\n"})
    at.go_on()
    assert push.wait(120) == 0
    wait_joined(s, root, a, ours, first, second)
    assert root.read(a) == {"system/human.md": "Likes coffee.\n", "b.md": "b\n", "system/more.md": "more\n"}


def test_H2_a_write_that_has_just_begun_is_waited_for(one, root, folder):
    """The file that was replaced is empty at first, and memfs goes on; its commit comes later."""
    s, a, c = one
    theirs = begin_write(root, a, {"system/human.md": "Likes coffee.\n"})
    at = Replacing(s, root, a, folder)
    ours, push = push_beside(c, "b.md", "b\n")
    at.wait()
    open(at.held, "w", encoding="ascii").close()
    at.go_on()
    wait(lambda: "half-written" in (letta_row(s, a)["failure"] or ""), "it was met empty")
    at.write(theirs)
    assert push.wait(120) == 0
    wait_joined(s, root, a, ours, theirs)


@pytest.mark.parametrize("inject", [(), (NO_EXCHANGE,)], ids=["exchanged", "linked"])
def test_D1_a_kill_right_after_the_swap_loses_no_write(one, root, folder, inject):
    s, a, c = one
    theirs = begin_write(root, a, {"system/human.md": "Likes coffee.\n"})
    at = Replacing(s, root, a, folder, *inject)
    ours, push = push_beside(c, "b.md", "b\n")
    at.wait()
    s.kill()
    at.trace.detach()
    assert push.wait(120) != 0 and root.tip(a) == ours
    at.write(theirs)                                # the server's API answers 200
    assert stages(root, a)
    s.start()
    wait_joined(s, root, a, ours, theirs)           # nobody asks for it, nobody pushes


def test_L3_a_write_that_is_refused_stays_and_keeps_main_from_nothing(one, root, folder):
    """It was met when main was replaced, and its link is attack enough not to be taken in."""
    s, a, c = one
    copy = root.copy_out(a)
    before = root.snapshot(copy)
    root.git(copy, "reset", "-q", "--hard")
    os.symlink("/etc/passwd", copy + "/system/evil.md")
    root.git(copy, "add", "-A")
    theirs = root.edit(copy, {"x.md": "x\n"}, "evil")
    root.write_back(a, [(path, data) for path, data in root.changed(copy, before) if path != MAIN])
    stage = os.path.join(os.path.dirname(root.repository(a)), ".memfs-0123456789ab")
    os.mkdir(stage)
    with open(stage + "/main", "w", encoding="ascii") as f:
        f.write(theirs + "\n")
    written = root.commit(a, {"system/human.md": "Likes coffee.\n"})
    wait(lambda: s.tip(a) == written, "main is taken in all the same")
    row = letta_row(s, a)
    assert row["note"] == "refused" and stage in row["note_text"] and theirs[:10] in row["note_text"]
    c.run("pull", "-q", "origin", "main")
    tip = save(c, {"b.md": "b\n"})
    assert root.tip(a) == tip and stages(root, a) == [".memfs-0123456789ab"]
    assert stage in letta_row(s, a)["note_text"]
    shutil.rmtree(stage)
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    assert letta_row(s, a)["note"] is None and root.tip(a) == s.tip(a) == tip


def test_L3_a_kill_before_the_report_of_a_relayed_push_makes_the_server_re_read(one, root, letta, folder):
    """It would have read by itself once it had relayed the report, which nobody gets now."""
    s, a, c = one
    settle(s, letta)
    at = Replacing(s, root, a, folder)
    ours, push = push_beside(c, "b.md", "b\n")
    at.wait()
    assert os.listdir(s.home + "/letta") == [a]
    s.kill()
    at.trace.detach()
    assert push.wait(120) != 0 and letta.of(a) == []
    s.start()
    wait(lambda: letta.of(a), "the post")
    wait(lambda: os.listdir(s.home + "/letta") == [], "the mark is gone")
    assert root.tip(a) == ours == s.tip(a)


def test_L6_a_volume_that_takes_no_writes_costs_the_server_no_reads(one, root, letta, git, folder):
    s, a, _ = one
    settle(s, letta)
    direct = git.clone(s.git_url(a), folder / "direct")
    n = s.log().count("event=mirror_failed")
    with Trace(s.pid, folder / "trace", "-e", "trace=renameat", "-P",
               root.repository(a) + "/objects/pack", "-e", "inject=renameat:error=EROFS") as trace:
        tip = save(direct, {"b.md": "b\n"})
        wait(lambda: s.log().count("event=mirror_failed") > n and len(trace.injected) > 2, "some attempts")
        assert letta.of(a) == []
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    wait(lambda: letta.of(a), "the post")
    assert root.tip(a) == tip


def test_H2_where_nothing_can_be_kept_nothing_is_replaced(one, root, folder):
    """A filesystem that can neither exchange two files nor link one: said, and not risked."""
    s, a, c = one
    before = root.tip(a)
    with Trace(s.pid, folder / "trace", "-e", "trace=renameat2,linkat", "-e", NO_EXCHANGE,
               "-e", "inject=linkat:error=EPERM"):
        ours, push = push_beside(c, "b.md", "b\n")
        assert push.wait(120) == 0
        assert "hard links" in (letta_row(s, a)["failure"] or "")
        assert root.tip(a) == before
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    wait_joined(s, root, a, ours)


class Swapping(threading.Thread):
    """The volume's writer: as soon as memfs has made a folder beside the repository, a link stands in its place."""

    def __init__(self, beside, target):
        super().__init__(daemon=True)
        self.beside, self.target, self.swapped, self.is_over = beside, target, None, False

    def run(self):
        while not self.is_over and self.swapped is None:
            for name in os.listdir(self.beside):
                path = os.path.join(self.beside, name)
                if name.startswith(".memfs-") and os.path.isdir(path):
                    os.rename(path, os.path.join(self.beside, "was"))
                    os.symlink(self.target, path)
                    self.swapped = path


def test_T01_a_link_in_the_place_of_what_is_being_made_leads_nowhere(one, git, agent, root, folder):
    """memfs writes main beside the repository before it renames it in; by such a link it would write into, and move
    the main of, another agent's repository of its own."""
    s, a, c = one
    victim = agent()
    secret = save(git.clone(s.git_url(victim), folder / "v"), {"secret.md": "s\n"})
    theirs = s.git_dir(victim, "rev-parse", "--absolute-git-dir").stdout.decode().strip()
    before = tree_of(theirs)
    swapping = Swapping(os.path.dirname(root.repository(a)), theirs + "/refs/heads")
    with Trace(s.pid, folder / "trace", "-e", "trace=fsync", "-e", "inject=fsync:delay_exit=50000"):
        swapping.start()
        tip = save(c, {"a.md": "a\n"})
        wait(lambda: swapping.swapped, "it was swapped")
        s.cli("mirror", "retry", "--agent", a, "--remote", "letta", check=False)
    swapping.is_over = True
    assert tree_of(theirs) == before and s.tip(victim) == secret
    assert not os.path.lexists(swapping.swapped) or os.path.islink(swapping.swapped)
    wait(lambda: root.tip(a) == tip, "what was made is in place all the same")


def test_F25_a_write_that_has_just_begun_is_waited_for_by_whatever_clock(served, client, root, agent, folder):
    """A clock two hours before the volume's: by what its files say, their writer would be long dead."""
    s, a = served(start=False), agent()
    s.extra_env.update(Machine.clock("+2h", s.binary), NO_FAKE_STAT="1")
    s.start()
    c = checkout(client, s, a, folder / "c")
    save(c, {"system/human.md": "Likes tea.\n"})
    theirs = begin_write(root, a, {"system/human.md": "Likes coffee.\n"})
    stage = os.path.join(os.path.dirname(root.repository(a)), ".memfs-0123456789ab")
    os.mkdir(stage)
    with open(stage + "/main", "w", encoding="ascii") as held:      # truncated; its commit comes now
        s.cli("mirror", "retry", "--agent", a, "--remote", "letta", check=False)
        assert os.path.exists(stage + "/main")
        held.write(theirs + "\n")
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    wait_joined(s, root, a, theirs)


def test_L3_a_pipe_in_the_place_of_a_list_holds_nobody(one, root):
    """Opened to be written, it would wait for a reader, with the agent and one of four that work for all remotes."""
    s, a, c = one
    own = os.path.join(os.path.dirname(root.repository(a)), ".memfs-own")
    os.unlink(own)
    os.mkfifo(own)
    c.write("b.md", "b\n")
    c.run("add", "-A")
    c.run("commit", "-q", "-m", "b")
    said = c.run("push", "origin", "HEAD:main").stderr.decode()
    assert "could not write '.memfs-own'" in said
    os.unlink(own)
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    assert root.tip(a) == s.tip(a) == c.text("rev-parse", "HEAD")


def test_H2_what_git_derived_of_the_objects_is_not_believed(one, root):
    """A commit-graph that says of a commit that it has no parent, as one of before a rewrite, or one that was cut,
    may: a fetch that believes it lacks the rest at every try."""
    s, a, _ = one
    repo = root.repository(a)
    tree = in_folder(root, a, "rev-parse", "main^{tree}")
    tip = in_folder(root, a, "rev-parse", "main")
    who = ["-c", "user.name=x", "-c", "user.email=x@y"]
    for i in range(3):
        tip = in_folder(root, a, *who, "commit-tree", tree, "-p", tip, "-m", str(i))
    in_folder(root, a, "update-ref", "refs/memfs-test", tip)
    in_folder(root, a, "commit-graph", "write", "--reachable")
    path = repo + "/objects/info/commit-graph"
    with open(path, "rb") as f:
        graph = bytearray(f.read())
    at = graph.find(bytes.fromhex(tree))
    while at >= 0:                                  # tree, first parent, second parent, dates
        graph[at + 20:at + 24] = b"\x70\0\0\0"
        at = graph.find(bytes.fromhex(tree), at + 1)
    graph[-20:] = hashlib.sha1(graph[:-20]).digest()
    os.unlink(path)
    with open(path, "wb") as f:
        f.write(graph)
    with open(repo + "/" + MAIN, "w", encoding="ascii") as f:
        f.write(tip + "\n")
    wait(lambda: s.tip(a) == tip, "what the server wrote is taken in")
