"""`memfs undo`: what was reset, deleted or decided by rule comes back, always by a commit on top."""
import json
import os
import pathlib
import subprocess
import threading
import uuid

import pytest

from lib.gitcli import Checkout, Git


class Memory(Checkout):
    def __init__(self, memfs_bin, folder):
        self.memfs = memfs_bin
        self.agent = f"agent-{uuid.uuid4()}"
        git = Git(folder / "home")
        git.env = {"HOME": git.home, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
                   "GIT_MERGE_AUTOEDIT": "no", "MEMFS_HOME": str(folder / "memfs"),
                   "LETTABOT_MEMFS_BACKEND": "none"}
        super().__init__(git, pathlib.Path(git.home) / ".letta" / "agents" / self.agent / "memory")
        self.call("init")

    def call(self, command, *args, check=True, **kw):
        done = subprocess.run([self.memfs, command, "--agent", self.agent, *map(str, args)],
                              env=self.git.env, capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
                              cwd=self.git.home, **kw)
        if check:
            assert done.returncode == 0, done
        return done

    def undo(self, *args, **kw):
        return self.call("undo", *args, **kw)

    def can_undo(self):
        return json.loads(self.undo("--list", "--json").stdout)["can_undo"]

    def n_rescued(self):
        return json.loads(self.call("status", "--json").stdout)["agents"][0]["n_rescued"]

    def commit(self, path, text, *options):
        self.write(path, text)
        self.run("add", "-A")
        self.run("commit", "-q", "-m", f"write {path}", *options)
        return self.text("rev-parse", "HEAD")

    def read(self, path):
        return pathlib.Path(self.path, path).read_text()

    def tidy(self):
        """As every sync does."""
        self.call("sync", check=False)

    def refs(self):
        return self.text("for-each-ref", "--format=%(refname)", "refs/memfs/rescue/", "refs/memfs/rescued").split()


@pytest.fixture
def memory(memfs_bin, folder):
    m = Memory(memfs_bin, folder)
    yield m
    m.run("fsck", "--full", "--strict")
    assert m.run("merge-base", "--is-ancestor", "56776245ff7b896622904bfc4d1c355a35e6cd81", "main").returncode == 0


def is_on_top(memory, before):
    return memory.run("merge-base", "--is-ancestor", before, "main", check=False).returncode == 0


# tips

def test_undo_a_reset(memory):
    memory.commit("notes/a.txt", "a\n")
    lost = memory.commit("notes/b.txt", "b\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    (row,) = memory.can_undo()
    assert row["id"] == lost and row["kind"] == "kept" and row["branch"] == "main" and row["n_commits"] == 1
    assert row["subject"] == "write notes/b.txt" and row["time"].endswith("Z")
    assert lost[:7].encode() in memory.undo("--list").stdout
    said = memory.undo("--dry-run").stdout
    assert b"would be" in said and memory.text("rev-parse", "HEAD") != lost
    assert json.loads(memory.undo("--json").stdout)["main"] == lost          # main had nothing of its own
    assert memory.read("notes/b.txt") == "b\n" and memory.text("status", "--porcelain") == ""
    assert memory.can_undo() == [] and memory.refs() == []
    done = memory.undo(check=False)
    assert done.returncode != 0 and b"nothing to undo" in done.stderr


def test_undo_a_reset_that_was_built_upon(memory):
    """As after the client's recover: other commits came in between. Both are there."""
    memory.commit("notes/a.txt", "a\n")
    lost = memory.commit("notes/b.txt", "b\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    newer = memory.commit("notes/c.txt", "c\n")
    memory.undo(lost[:8])
    assert memory.read("notes/b.txt") == "b\n" and memory.read("notes/c.txt") == "c\n"
    assert is_on_top(memory, newer) and is_on_top(memory, lost)
    assert memory.text("status", "--porcelain") == ""


def test_undo_where_we_are(memory):
    """Without --agent: the memory, or the worktree of it, that it is started in."""
    lost = memory.commit("notes/b.txt", "b\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    path = memory.call("worktree", "add", "w").stdout.decode().strip()

    def undo(*args, at):
        return subprocess.run([memory.memfs, "undo", *args], cwd=at, env=memory.git.env,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    for at in (memory.path, path):
        told = json.loads(undo("--list", "--json", at=at).stdout)
        assert told["agent_id"] == memory.agent and [r["id"] for r in told["can_undo"]] == [lost]
    none = undo("--list", at=memory.git.home)
    assert none.returncode == 2 and b"--agent" in none.stderr
    assert undo(at=path).returncode == 0
    assert memory.read("notes/b.txt") == "b\n" and memory.text("rev-parse", "main") == lost
    assert not os.path.exists(path + "/notes/b.txt")        # the worktree is let be


def test_undo_a_discarded_subagent_branch(memory, folder):
    path = folder / "w"
    memory.run("worktree", "add", "-q", path, "-b", "letta/reflection/1", "HEAD")
    worktree = Checkout(memory.git, path)
    worktree.write("notes/r.txt", "reflected\n")
    worktree.run("add", "-A")
    worktree.run("commit", "-q", "-m", "reflect")
    memory.run("worktree", "remove", "--force", path)
    memory.run("branch", "-q", "-D", "letta/reflection/1")
    (row,) = memory.can_undo()
    assert row["branch"] == "letta/reflection/1" and row["subject"] == "reflect"
    memory.undo()
    assert memory.read("notes/r.txt") == "reflected\n"


def test_undo_lettas_own_backup(memory):
    memory.commit("notes/a.txt", "a\n")
    memory.run("update-ref", "refs/letta-backup/pre-sync-1700000000000", "HEAD")
    memory.run("-c", "core.hooksPath=/nowhere", "reset", "-q", "--hard", "HEAD~1")
    (row,) = memory.can_undo()
    assert row["kind"] == "letta-backup" and row["time"].startswith("2023-11-14T22:13:20")
    assert memory.n_rescued() == 1
    memory.undo()
    assert memory.read("notes/a.txt") == "a\n"
    assert memory.n_rescued() == 0                                     # nor is it told for ever
    memory.tidy()
    assert memory.text("for-each-ref", "refs/letta-backup/") != ""     # it is the client's


def test_lettas_backup_of_what_a_branch_keeps_is_no_rescue(memory):
    """Pulled and rebased since, by whoever: the next sync sees that nothing of it is lost."""
    tip = memory.commit("notes/a.txt", "a\n")
    memory.run("update-ref", "refs/letta-backup/pre-sync-1700000000000", tip)
    memory.run("-c", "core.hooksPath=/nowhere", "reset", "-q", "--hard", "HEAD~1")
    memory.tidy()
    assert memory.n_rescued() == 1 and len(memory.can_undo()) == 1
    memory.run("merge", "-q", "--ff-only", tip)
    memory.tidy()
    assert memory.n_rescued() == 0 and memory.can_undo() == []
    # and if it is lost once more, the list is not deceived by what was noted
    memory.run("-c", "core.hooksPath=/nowhere", "reset", "-q", "--hard", "HEAD~1")
    assert len(memory.can_undo()) == 1


def test_undo_newest_first(memory):
    tips = []
    for name in "ab":
        memory.run("checkout", "-q", "-b", name)
        tips.append(memory.commit(f"notes/{name}.txt", name))
        memory.run("checkout", "-q", "main")
        memory.run("branch", "-q", "-D", name)
    log = pathlib.Path(memory.path, ".git/memfs/rescue.log")
    lines = log.read_text().split("\n")
    log.write_text("\n".join([lines[0].replace(lines[0].split()[0], "1700000000000"), *lines[1:]]))
    assert [r["id"] for r in memory.can_undo()] == [tips[1], tips[0]]
    memory.undo()
    assert memory.read("notes/b.txt") == "b" and not os.path.exists(memory.path + "/notes/a.txt")


def test_undo_of_tips_that_contain_each_other_the_newest_is_told(memory):
    """Reset, then reset further: bringing back the last tip that holds both brings back both."""
    memory.run("checkout", "-q", "-b", "x")
    memory.commit("notes/a.txt", "a\n")
    memory.run("checkout", "-q", "-b", "y")
    both = memory.commit("notes/b.txt", "b\n")
    memory.run("checkout", "-q", "main")
    memory.run("branch", "-q", "-D", "x")
    memory.run("branch", "-q", "-D", "y")
    (row,) = memory.can_undo()
    assert row["id"] == both and row["n_commits"] == 2
    memory.tidy()
    assert len(memory.refs()) == 1
    memory.undo()
    assert memory.read("notes/a.txt") == "a\n" and memory.read("notes/b.txt") == "b\n"


# what is no rescue

def test_rescue_a_rebase_with_equal_changes_leaves_nothing(memory, folder):
    memory.run("checkout", "-q", "-b", "other")
    memory.commit("notes/o.txt", "o\n")
    memory.run("checkout", "-q", "main")
    memory.commit("notes/a.txt", "a\n")
    memory.commit("notes/b.txt", "b\n")
    memory.run("rebase", "-q", "other")
    assert len(memory.refs()) == 1                       # the hook cannot know
    assert memory.can_undo() == []
    memory.tidy()
    assert memory.refs() == []


def test_rescue_a_reworded_commit_is_no_loss_an_amended_one_is(memory):
    memory.commit("notes/a.txt", "a\n")
    memory.run("commit", "-q", "--amend", "-m", "in other words")
    assert memory.can_undo() == []
    lost = memory.text("rev-parse", "HEAD")
    memory.commit("notes/a.txt", "other\n", "--amend")
    assert [r["id"] for r in memory.can_undo()] == [lost]
    memory.tidy()
    assert [r["id"] for r in memory.can_undo()] == [lost]


def test_rescue_a_merge_that_was_rebased_away_leaves_nothing(memory):
    """`pull --rebase` after the client merged a subagent's branch: the merge itself said nothing of its own."""
    memory.run("checkout", "-q", "-b", "other")
    memory.commit("notes/o.txt", "o\n")
    memory.run("checkout", "-q", "-b", "sub", "main")
    memory.commit("notes/s.txt", "s\n")
    memory.run("checkout", "-q", "main")
    memory.commit("notes/a.txt", "a\n")
    memory.run("merge", "-q", "--no-edit", "sub")
    memory.run("branch", "-q", "-d", "sub")
    memory.run("rebase", "-q", "other")
    assert memory.text("log", "--merges", "--format=%h") == ""
    assert memory.can_undo() == []


def test_rescue_tips_come_and_go_with_the_branch_that_holds_them(memory):
    lost = memory.commit("notes/a.txt", "a\n")
    memory.run("branch", "holds")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    assert memory.can_undo() == []
    memory.tidy()
    assert memory.refs() == []
    memory.run("branch", "-q", "-D", "holds")
    assert [r["id"] for r in memory.can_undo()] == [lost]


def test_rescue_many_tips_are_folded_into_one_ref(memory):
    tips = set()
    for i in range(20):
        memory.run("checkout", "-q", "-b", f"b/{i}")
        tips.add(memory.commit(f"notes/{i}.txt", f"{i}\n"))
        memory.run("checkout", "-q", "main")
        memory.run("branch", "-q", "-D", f"b/{i}")
    before = memory.can_undo()
    memory.tidy()
    assert memory.refs() == ["refs/memfs/rescued"]
    assert memory.can_undo() == before and {r["id"] for r in before} == tips
    memory.run("reflog", "expire", "--expire=now", "--all")
    memory.run("gc", "-q", "--prune=now")
    tip = next(iter(tips))
    memory.undo(tip)
    assert tip not in {r["id"] for r in memory.can_undo()} and len(memory.can_undo()) == 19
    # the folded ones go with what holds them
    for row in memory.can_undo():
        memory.undo(row["id"])
    assert memory.refs() == [] and memory.can_undo() == []


def test_rescue_tidy_drops_nothing_while_a_branch_is_locked(memory):
    memory.commit("notes/a.txt", "a\n")
    memory.run("branch", "holds")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    lock = pathlib.Path(memory.path, ".git/refs/heads/holds.lock")
    lock.write_text("")
    memory.tidy()
    assert len(memory.refs()) == 1
    lock.unlink()
    memory.tidy()
    assert memory.refs() == []


def test_rescue_tidy_beside_writers_loses_nothing(memory, scale):
    """Branches come, hold each other's tips and go, while syncs tidy: at the end each tip is held by something."""
    tree, tips, failures = memory.text("rev-parse", "HEAD^{tree}"), [], []
    blob = memory.run("hash-object", "-w", "--stdin", input=b"x").stdout.decode().strip()
    for key in ("packedRefsTimeout", "filesRefLockTimeout"):        # git's own patience is one second
        memory.run("config", f"core.{key}", 30000)
    done = threading.Event()

    def write(n):
        try:
            for i in range(scale(15, 200)):
                t = memory.run("mktree", input=f"100644 blob {blob}\tw{n}-{i}\n".encode()).stdout.decode().strip()
                tip = memory.text("commit-tree", t, "-p", "main", "-m", f"{n}.{i}")
                memory.run("update-ref", f"refs/heads/w{n}", tip)
                memory.run("update-ref", f"refs/heads/v{n}", tip)        # now held twice
                memory.run("update-ref", "-d", f"refs/heads/w{n}")
                memory.run("update-ref", "-d", f"refs/heads/v{n}")
                tips.append(tip)
        except AssertionError as e:
            failures.append(e)

    def tidy():
        while not done.is_set():
            memory.tidy()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    tidier = threading.Thread(target=tidy)
    for t in (*writers, tidier):
        t.start()
    for t in writers:
        t.join()
    done.set()
    tidier.join()
    assert not failures, failures[0]
    reachable = set(memory.text("rev-list", "--all").split())
    assert tree and set(tips) <= reachable
    assert {r["id"] for r in memory.can_undo()} == set(tips)


# commits and merges

def test_undo_a_commit_in_the_middle(memory):
    memory.commit("notes/a.txt", "one\ntwo\nthree\nfour\n")
    bad = memory.commit("notes/a.txt", "one\nTWO\nthree\nfour\n")
    tip = memory.commit("notes/b.txt", "b\n")
    memory.undo(bad[:10])
    assert memory.read("notes/a.txt") == "one\ntwo\nthree\nfour\n" and memory.read("notes/b.txt") == "b\n"
    assert is_on_top(memory, tip)
    message = memory.text("log", "-1", "--format=%B")
    assert message.startswith(f"memfs: undo commit {bad[:7]}") and f"Memfs-Undoes: {bad}" in message
    again = memory.undo(bad)
    assert b"nothing changes" in again.stdout
    memory.undo("HEAD")                                     # the undoing is undone
    assert memory.read("notes/a.txt") == "one\nTWO\nthree\nfour\n"


def test_undo_a_merge_decided_by_rule_puts_this_machines_files_back(memory, folder, memfs_bin):
    there = memory.git.run("init", "-q", "--bare", "-b", "main", folder / "there.git")
    memory.git.env["LETTABOT_MEMFS_BACKEND"] = "local"
    memory.git.env["LETTABOT_MEMFS_REMOTE"] = str(folder / "there.git")
    memory.commit("notes/a.txt", "one\ntwo\nthree\n")
    memory.call("sync")
    other = Checkout(memory.git, folder / "other")
    memory.git.run("clone", "-q", folder / "there.git", other.path)
    for c in (other,):
        c.run("config", "user.email", "o@o")
        c.run("config", "user.name", "o")
    other.write("notes/a.txt", "one\ntheirs\nthree\n")
    other.write("notes/other.txt", "clean\n")
    other.run("add", "-A")
    other.run("commit", "-q", "-m", "theirs")
    other.run("push", "-q")
    memory.commit("notes/a.txt", "one\nours\nthree\n")
    memory.call("sync")
    assert "theirs" in memory.read("notes/a.txt") and "ours" in memory.read("notes/a.txt")
    (row,) = memory.can_undo()
    assert row["kind"] == "merge" and row["n_decisions"] == 1 and there.returncode == 0
    tip = memory.text("rev-parse", "HEAD")
    memory.undo()
    assert memory.read("notes/a.txt") == "one\nours\nthree\n"      # as it was here
    assert memory.read("notes/other.txt") == "clean\n"             # the rest of the merge stays
    assert is_on_top(memory, tip) and memory.can_undo() == []
    memory.call("sync")                                            # and it travels as any commit
    assert memory.text("--git-dir", folder / "there.git", "rev-parse", "main") == memory.text("rev-parse", "HEAD")


def test_undo_merges_that_were_looked_at_are_not_listed_again(memory):
    merge = memory.commit("notes/a.txt", "a\n")
    notes = pathlib.Path(memory.path, ".git/memfs")
    notes.mkdir(exist_ok=True)
    (notes / "merged.log").write_text(f"1700000000 {merge} 2\nnot a line\n")
    (row,) = memory.can_undo()
    assert row["kind"] == "merge" and row["n_decisions"] == 2
    assert merge[:7].encode() in memory.undo("--list", "--seen").stdout
    assert memory.can_undo() == []


# F31: what is not committed is never touched

@pytest.mark.parametrize("state", ["dirty", "staged", "in the way", "other branch", "detached", "rebasing"])
def test_F31_undo_never_touches_what_is_not_committed(memory, state):
    memory.commit("notes/a.txt", "a\n")
    lost = memory.commit("notes/b.txt", "b\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    expected = {
        "dirty": lambda: memory.write("notes/a.txt", "edited\n"),
        "staged": lambda: (memory.write("notes/new.txt", "n\n"), memory.run("add", "-A")),
        "in the way": lambda: memory.write("notes/b.txt", "mine\n"),
        "other branch": lambda: memory.run("checkout", "-q", "-b", "x"),
        "detached": lambda: memory.run("checkout", "-q", "--detach"),
        "rebasing": lambda: make_rebase(memory),
    }
    expected[state]()
    before = snapshot(memory)
    done = memory.undo(lost, check=False)
    assert done.returncode == 5, done
    assert b"undo again" in done.stderr
    assert snapshot(memory) == before
    assert lost in {r["id"] for r in memory.can_undo()}


def make_rebase(memory):
    memory.run("checkout", "-q", "-b", "x")
    memory.commit("notes/a.txt", "x\n")
    memory.run("checkout", "-q", "main")
    memory.run("-c", "merge.default=text", "commit", "-q", "--allow-empty", "-m", "e")
    memory.run("-c", "sequence.editor=echo break >", "rebase", "-q", "-i", "x", check=False)


def snapshot(memory):
    files = {str(p): p.read_bytes() for p in pathlib.Path(memory.path).rglob("*")
             if p.is_file() and ".git" not in p.parts}
    return files, memory.text("status", "--porcelain"), memory.text("rev-parse", "HEAD", "main")


def test_undo_says_what_it_cannot_find(memory):
    for what in ("deadbeef", "nothing", "-x"):
        done = memory.undo(what, check=False)
        assert done.returncode in (1, 2), done
        assert done.stderr
    done = memory.undo("HEAD", check=False)                 # the genesis
    assert done.returncode != 0 and b"first commit" in done.stderr


def test_undo_status_shows_what_was_rescued(memory):
    memory.commit("notes/a.txt", "a\n")
    memory.run("reset", "-q", "--hard", "HEAD~1")
    status = json.loads(memory.call("status", "--json").stdout)
    assert '"n_rescued": 1' in json.dumps(status), status
