"""memfs-hook under real git: what is kept, what is not, what runs after it, and what happens when it is killed.

The story behind it: the Letta client resets a memory to the remote's tip and deletes a subagent's branch with
its commits, without a word.
"""
import os
import pathlib
import shutil
import subprocess
import threading

import pytest

from lib.hooks import LETTA_PRE_COMMIT, HookedRepository, beside, straced


@pytest.fixture
def memory(memfs_bin, folder):
    r = HookedRepository(memfs_bin, folder)
    yield r
    r.run("config", "--unset", "core.hooksPath", check=False)
    r.check_whole()


# what is kept

def test_rescue_reset_hard_keeps_the_old_tip(memory):
    memory.commit("b.md", "b\n")
    lost = memory.commit("c.md", "c\n")
    memory.run("reset", "-q", "--hard", "HEAD~2")
    assert memory.kept() == {("main", lost)}
    time, old, new, ref = memory.log_lines()[0].split()
    assert (old, new, ref) == (lost, memory.text("rev-parse", "main"), "refs/heads/main")
    assert abs(int(time) / 1000 - os.stat(memory.path).st_mtime) < 3600


def test_rescue_a_deleted_branch_loose(memory):
    memory.run("checkout", "-q", "-b", "letta/reflection/x")
    lost = memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("branch", "-q", "-D", "letta/reflection/x")
    assert memory.kept() == {("letta/reflection/x", lost)}
    assert len(memory.log_lines()) == 1


def test_rescue_a_deleted_branch_packed(memory):
    memory.run("checkout", "-q", "-b", "side")
    lost = memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("pack-refs", "--all")
    assert memory.kept() == set()
    memory.run("branch", "-q", "-D", "side")
    assert memory.kept() == {("side", lost)}


def test_rescue_a_deleted_branch_packed_and_newer_loose(memory):
    memory.run("checkout", "-q", "-b", "side")
    memory.commit("b.md", "b\n")
    memory.run("pack-refs", "--all")
    lost = memory.commit("c.md", "c\n")
    memory.run("checkout", "-q", "main")
    memory.run("branch", "-q", "-D", "side")
    assert ("side", lost) in memory.kept()


def test_rescue_a_removed_worktree_and_its_branch(memory, folder):
    """As the client discards a subagent's work (client fact 11)."""
    path = folder / "memory-worktrees" / "reflection-1"
    memory.run("worktree", "add", "-q", path, "-b", "letta/reflection/1", "HEAD")
    (path / "b.md").write_text("b\n")
    memory.run("-C", path, "add", "-A")
    memory.run("-C", path, "commit", "-q", "--no-verify", "-m", "b")
    lost = memory.text("-C", path, "rev-parse", "HEAD")
    memory.run("worktree", "remove", "--force", path)
    memory.run("branch", "-D", "letta/reflection/1")
    assert memory.kept() == {("letta/reflection/1", lost)}


def test_rescue_a_reset_inside_a_worktree(memory, folder):
    """GIT_DIR is then .git/worktrees/NAME; what is kept lies in the common folder."""
    path = folder / "w"
    memory.run("worktree", "add", "-q", path, "-b", "side", "HEAD")
    (path / "b.md").write_text("b\n")
    memory.run("-C", path, "add", "-A")
    memory.run("-C", path, "commit", "-q", "--no-verify", "-m", "b")
    lost = memory.text("-C", path, "rev-parse", "HEAD")
    memory.run("-C", path, "reset", "-q", "--hard", "HEAD~1")
    assert memory.kept() == {("side", lost)}


def test_rescue_amend_checkout_B_and_update_ref(memory):
    one = memory.commit("b.md", "b\n")
    two = memory.commit("b.md", "c\n", "--amend")
    memory.run("checkout", "-q", "-B", "main", "HEAD~1")
    three = memory.commit("d.md", "d\n")
    memory.run("update-ref", "refs/heads/main", "HEAD~1")
    memory.run("checkout", "-q", "-f")
    assert memory.kept() == {("main", one), ("main", two), ("main", three)}


def test_rescue_update_ref_stdin_deletes(memory):
    memory.run("branch", "side")
    memory.run("checkout", "-q", "side")
    lost = memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("update-ref", "--stdin", input=b"delete refs/heads/side\n")
    assert memory.kept() == {("side", lost)}


def test_rescue_rebase_keeps_the_tip_before(memory):
    memory.run("checkout", "-q", "-b", "other")
    memory.commit("o.md", "o\n")
    memory.run("checkout", "-q", "main")
    lost = memory.commit("b.md", "b\n")
    memory.run("rebase", "-q", "other")
    assert memory.kept() == {("main", lost)}


def test_rescue_a_forced_fetch_into_a_branch(memory, folder):
    memory.run("branch", "side")
    memory.run("checkout", "-q", "side")
    lost = memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("fetch", "-q", ".", "+main:side")
    assert memory.kept() == {("side", lost)}


def test_rescue_branch_names_that_collide_with_a_kept_id(memory):
    memory.run("checkout", "-q", "-b", "x")
    lost = memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("branch", "-q", "-D", "x")
    memory.run("checkout", "-q", "-b", f"x/{lost}")
    odd = memory.commit("c.md", "c\n")
    memory.run("checkout", "-q", "main")
    memory.run("branch", "-q", "-D", f"x/{lost}")
    assert memory.kept() == {("x", lost), ("@", odd)}


# what is not kept: nothing would be lost

def test_rescue_nothing_is_kept_in_daily_work(memory, folder):
    memory.commit("b.md", "b\n")
    memory.run("branch", "side")
    memory.run("checkout", "-q", "side")
    for i in range(5):
        memory.commit("s.md", f"{i}\n")
    memory.run("checkout", "-q", "main")
    memory.run("merge", "-q", "--no-edit", "side")          # a fast-forward
    memory.run("branch", "-q", "-d", "side")
    memory.run("checkout", "-q", "-b", "side2")
    memory.commit("t.md", "t\n")
    memory.run("checkout", "-q", "main")
    memory.commit("u.md", "u\n")
    memory.run("merge", "-q", "--no-edit", "side2")         # a real merge
    memory.run("branch", "-q", "-D", "side2")
    memory.run("tag", "t1")
    memory.run("tag", "-d", "t1")
    memory.run("branch", "renamed-later")
    memory.run("branch", "-m", "renamed-later", "renamed")
    assert memory.kept() == set()
    assert memory.log_lines() == []


def test_rescue_pack_refs_and_gc_are_no_loss(memory):
    memory.run("checkout", "-q", "-b", "side")
    memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("pack-refs", "--all", "--prune")
    assert memory.kept() == set()
    memory.commit("c.md", "c\n")
    memory.run("gc", "-q", "--prune=now")
    assert memory.kept() == set()
    memory.run("pack-refs", "--all")
    assert memory.kept() == set()


def test_rescue_what_is_kept_survives_gc(memory):
    lost = memory.commit("b.md", "b\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    memory.run("reflog", "expire", "--expire=now", "--all")
    memory.run("gc", "-q", "--prune=now")
    assert memory.text("show", f"{lost}:b.md") == "b"
    assert memory.kept() == {("main", lost)}


# many at once

def test_rescue_twenty_writers_at_once(memory, memfs_bin):
    """Each makes a branch, commits on it without a working tree, and deletes it: everything is kept."""
    tree = memory.text("rev-parse", "HEAD^{tree}")
    lost, failures = set(), []
    for key in ("packedRefsTimeout", "filesRefLockTimeout"):        # git's own patience is one second
        memory.run("config", f"core.{key}", 30000)

    def work(n):
        for i in range(5):
            try:
                tip = memory.text("commit-tree", tree, "-p", "HEAD", "-m", f"{n}.{i}")
                memory.run("update-ref", f"refs/heads/w{n}", tip)
                memory.run("update-ref", "-d", f"refs/heads/w{n}")
                lost.add((f"w{n}", tip))
            except AssertionError as e:
                failures.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]
    assert len(lost) == 100
    assert memory.kept() == lost
    assert len(memory.log_lines()) == 100


# killed, or out of space

TRACED = "openat,write,fsync,rename,mkdir,flock"


@pytest.mark.parametrize("what", ["reset", "delete"])
def test_F01_rescue_killed_at_each_syscall(memory, what, scale):
    """A hook that dies makes git give up the transaction: the branch stays, or it is kept.  The next try works."""
    memory.run("checkout", "-q", "-b", "side")
    n_hits = 0
    for name in TRACED.split(","):
        for n in range(1, scale(40, 200)):
            lost = memory.commit("b.md", f"{name} {n}\n")
            if what == "reset":
                args = ["reset", "-q", "--hard", "HEAD~1"]
            else:
                memory.run("checkout", "-q", "main")
                args = ["branch", "-q", "-D", "side"]
            _, hit = straced(memory, (name, f"signal=KILL:when={n}"), *args)
            tip = memory.text("rev-parse", "-q", "--verify", "refs/heads/side", check=False)
            assert tip == lost or lost in {i for _, i in memory.kept()}, (name, n)
            if tip == lost:
                memory.run(*args)                           # no lock is left in the way
            assert lost in {i for _, i in memory.kept()}, (name, n)
            if what == "delete":
                memory.run("checkout", "-q", "-b", "side")
            n_hits += hit
            if not hit:
                break
    assert n_hits > 10
    notes = pathlib.Path(memory.path) / ".git" / "memfs"
    for left in notes.glob("rescue-*"):                     # `memfs sync` sweeps them after an hour
        left.unlink()


@pytest.mark.parametrize("error", ["ENOSPC", "EROFS", "EIO"])
def test_F06_rescue_that_cannot_write_lets_git_go_on(memory, error):
    memory.commit("b.md", "b\n")
    done, hit = straced(memory, ("mkdir,rename,fsync", f"error={error}"), "reset", "-q", "--hard", "HEAD~1")
    assert hit and done.returncode == 0, done
    assert b"could not keep the old tip" in done.stderr
    assert memory.text("log", "--format=%s").count("\n") == 0


# chaining

def test_hooks_of_the_user_run_with_their_arguments_and_stdin(memory, folder):
    out = folder / "ran"
    for name in ("reference-transaction", "post-checkout", "commit-msg", "post-rewrite"):
        memory.user_hook(name, f"#!/bin/sh\n{{ echo \"== {name} $*\"; [ {name} = commit-msg ] || cat; }} >> {out}\n")
    memory.commit("b.md", "b\n")
    tip = memory.text("rev-parse", "HEAD")
    memory.commit("b.md", "c\n", "--amend")
    new = memory.text("rev-parse", "HEAD")
    memory.run("checkout", "-q", "-b", "other")
    said = out.read_text()
    assert "== reference-transaction prepared\n" in said
    assert "== reference-transaction committed\n" in said
    assert f" {tip} refs/heads/main\n" in said              # stdin, in "prepared" too
    prepared = said.split("== reference-transaction prepared\n")[1].split("==")[0]
    assert "refs/heads/main" in prepared
    assert f"== post-rewrite amend\n{tip} {new}\n" in said
    assert f"== post-checkout {new} {new} 1" in said


def test_hooks_of_the_user_may_refuse(memory):
    memory.user_hook("reference-transaction", "#!/bin/sh\ncat > /dev/null\n[ $1 != prepared ]\n")
    memory.write("b.md", "b\n")
    memory.run("add", "-A")
    assert memory.run("commit", "-q", "--no-verify", "-m", "b", check=False).returncode != 0
    os.unlink(os.path.join(memory.path, ".git/hooks/reference-transaction"))
    memory.run("commit", "-q", "--no-verify", "-m", "b")


def test_hooks_pre_push_gets_its_lines(memory, folder):
    out = folder / "ran"
    memory.user_hook("pre-push", f"#!/bin/sh\n{{ echo \"$1\"; cat; }} > {out}\n")
    memory.git.run("init", "-q", "--bare", "-b", "main", folder / "remote.git")
    memory.run("remote", "add", "origin", folder / "remote.git")
    memory.run("push", "-q", "origin", "main")
    tip = memory.text("rev-parse", "main")
    assert out.read_text() == f"origin\nrefs/heads/main {tip} refs/heads/main {'0' * 40}\n"
    memory.user_hook("pre-push", "#!/bin/sh\nexit 3\n")
    memory.commit("b.md", "b\n")
    assert memory.run("push", "-q", "origin", "main", check=False).returncode != 0


def test_hooks_without_a_first_line_and_odd_files(memory, folder):
    out = folder / "ran"
    memory.user_hook("post-checkout", f"echo ran >> {out}\n")       # no "#!": git gives it to sh
    memory.run("checkout", "-q", "-b", "x")
    assert out.read_text() == "ran\n"
    memory.user_hook("post-checkout", f"#!/bin/sh\necho ran >> {out}\n").chmod(0o644)
    memory.run("checkout", "-q", "main")
    assert out.read_text() == "ran\n"                               # git does not run those either
    link = pathlib.Path(memory.path) / ".git/hooks/post-merge"
    link.symlink_to(memory.hooks / "post-merge")                    # leads back to us: no endless round
    memory.run("checkout", "-q", "x")
    memory.commit("b.md", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("merge", "-q", "x", timeout=20)


def test_hooks_of_letta_are_left_out_and_ones_own_run_after_ours(memory, memfs_bin, folder):
    """Letta's pre-commit would refuse everything here (and needs bash); the user's own decides."""
    ran = folder / "letta-ran"
    memory.git.env["LETTA_RAN"] = str(ran)
    memory.user_hook("pre-commit", LETTA_PRE_COMMIT)
    memory.write("notes.txt", "n\n")
    memory.run("add", "-A")
    memory.run("commit", "-q", "-m", "n")
    assert not ran.exists()
    own = folder / "own-ran"
    memory.user_hook("pre-commit", f"#!/bin/sh\necho \"$GIT_INDEX_FILE\" >> {own}; exit 7\n")
    memory.write("notes.txt", "m\n")
    assert memory.run("commit", "-q", "-a", "-m", "m", check=False).returncode != 0
    assert "index" in own.read_text()
    memory.user_hook("pre-commit", f"#!/bin/sh\necho again >> {own}\n")
    memory.run("commit", "-q", "-a", "-m", "m")
    assert own.read_text().endswith("again\n")


def test_hooks_pre_commit_says_what_to_change(memory):
    memory.write("system/human.md", "no front matter\n")
    memory.run("add", "-A")
    done = memory.run("commit", "-q", "-m", "x", check=False)
    assert done.returncode != 0
    assert b"system/human.md" in done.stderr
    assert memory.text("status", "--porcelain") == "A  system/human.md"
    memory.write("system/human.md", "---\ndescription: who they are\n---\ntext\n")
    memory.run("add", "-A")
    memory.run("commit", "-q", "-m", "x")


# memfs is gone, or half of it

def test_hooks_folder_that_is_gone_does_not_break_git(memory, folder):
    for link in memory.hooks.iterdir():
        link.unlink()
        link.symlink_to("/nowhere/memfs-hook")
    memory.commit("b.md", "b\n")
    memory.write("b.md", "c\n")
    memory.run("commit", "-q", "-a", "-m", "c")
    shutil.rmtree(memory.hooks)
    memory.commit("c.md", "c\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")


def test_hooks_without_memfs_do_nothing_and_go_on(memory, memfs_bin, folder):
    """Only the static program is left: commits work, one's own hooks run, tips are kept."""
    alone = folder / "alone" / "memfs-hook"
    alone.parent.mkdir()
    shutil.copy(beside(memfs_bin, "memfs-hook"), alone)
    for link in memory.hooks.iterdir():
        link.unlink()
        link.symlink_to(alone)
    ran = folder / "ran"
    memory.user_hook("pre-commit", f"#!/bin/sh\necho pre >> {ran}\n")
    memory.user_hook("post-commit", f"#!/bin/sh\necho post >> {ran}\n")
    memory.write("system/human.md", "no front matter\n")
    memory.run("add", "-A")
    memory.run("commit", "-q", "-m", "x")
    assert ran.read_text() == "pre\npost\n"
    lost = memory.text("rev-parse", "HEAD")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    assert memory.kept() == {("main", lost)}


def test_hooks_stdin_closed_and_called_by_hand(memfs_bin, folder):
    hook = beside(memfs_bin, "memfs-hook")
    for args in ([hook], [hook, "../x"], [hook, ""]):
        done = subprocess.run(args, capture_output=True, stdin=subprocess.DEVNULL, cwd=folder, timeout=10, env={})
        assert done.returncode == 2, (args, done)
    for args in ([hook, "reference-transaction", "prepared"], [hook, "reference-transaction"],
                 [hook, "pre-commit"], [hook, "post-merge"]):
        done = subprocess.run(args, capture_output=True, stdin=subprocess.DEVNULL, cwd=folder, timeout=10, env={})
        assert done.returncode == 0 and not done.stderr, (args, done)


def test_hooks_lines_that_are_no_lines(memory, memfs_bin):
    """Whatever comes in on stdin, nothing is written outside refs/memfs/rescue/."""
    tip = memory.text("rev-parse", "HEAD")
    zero = "0" * 40
    lines = [f"{tip} {zero} refs/heads/../../x", f"{tip} {zero} refs/tags/x", f"{tip} {zero} HEAD",
             f"{'f' * 39} {zero} refs/heads/main", f"{tip} {zero}", "", "\0\0", f"{tip}  refs/heads/x",
             f"ref:refs/heads/x {zero} refs/heads/main", "a" * 100000]
    before = sorted(str(p) for p in pathlib.Path(memory.path).rglob("*"))
    for line in lines:
        done = subprocess.run([beside(memfs_bin, "memfs-hook"), "reference-transaction", "prepared"],
                              input=(line + "\n").encode(), cwd=memory.path, env=memory.git.env,
                              capture_output=True, timeout=10)
        assert done.returncode == 0, (line[:60], done)
    after = sorted(str(p) for p in pathlib.Path(memory.path).rglob("*") if "/memfs/" not in str(p) + "/")
    assert [p for p in after if p not in before] == []
