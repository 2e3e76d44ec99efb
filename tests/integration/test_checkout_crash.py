"""Checkouts of the client, killed at every system call (tests/drivers/checkout_driver.c is the door).

After a kill one recovery and one retry must end in the right state: no byte that nobody committed is lost
(F31), git sees a clean tree and no lock is left (F02, L2).  Real git is the judge.
"""
import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GIT = shutil.which("git")
GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"
ZERO = "0" * 40
SOAK = os.environ.get("SOAK") == "1"

# Each kind of call is counted by itself.  The second number is the step without SOAK=1: a call that is made
# often and changes nothing need not be hit every single time.
CALLS = [("openat", 9), ("openat2", 1), ("mkdir", 1), ("mkdirat", 1), ("write", 1), ("pwrite64", 1),
         ("fsync", 3), ("syncfs", 1), ("rename", 1), ("renameat2", 1), ("link", 1), ("linkat", 1),
         ("unlink", 1), ("unlinkat", 3), ("rmdir", 1), ("ftruncate", 1), ("flock", 1), ("fcntl", 5),
         ("close", 25), ("newfstatat", 19), ("read", 13)]


@pytest.fixture(scope="session")
def driver(memfs_bin):
    program = os.environ.get("MEMFS_CHECKOUT_DRIVER") or os.path.join(
        os.path.dirname(memfs_bin), "tests", "drivers", "checkout-driver")
    if not os.access(program, os.X_OK):
        pytest.exit(f"no program at {program}: build with -Dtests=true", returncode=2)
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    return program


class Work:
    """A folder, git in it, and the driver with or without strace."""

    def __init__(self, program, folder):
        self.program, self.folder = program, str(folder)
        self.tree = os.path.join(self.folder, "tree")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.folder, "LC_ALL": "C",
                    "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0",
                    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
                    "GIT_COMMITTER_EMAIL": "a@b", "ASAN_OPTIONS": "detect_leaks=0"}

    def git(self, *args, cwd=None, check=True):
        done = subprocess.run([GIT, *args], cwd=cwd or self.tree, env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=60)
        assert not check or done.returncode == 0, (args, done.stderr)
        return done.stdout.strip("\n")

    def drive(self, *args, inject=()):
        strace = []
        if inject:
            calls = ",".join(sorted({i.split(":")[0] for i in inject}))
            strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls]
            for i in inject:
                strace += ["-e", "inject=" + i]
        return subprocess.run([*strace, self.program, *args], env=self.env, cwd="/",
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    def ok(self, *args, inject=()):
        done = self.drive(*args, inject=inject)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout.strip()

    def write(self, name, text, tree=None):
        path = os.path.join(tree or self.tree, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def commit(self, message, tree=None):
        self.git("add", "-A", cwd=tree)
        self.git("commit", "-q", "--allow-empty", "-m", message, cwd=tree)
        return self.git("rev-parse", "HEAD", cwd=tree)

    def check(self, head, tree=None, untracked=""):
        """Git is content, and nothing of ours is left."""
        tree = tree or self.tree
        assert self.git("rev-parse", "HEAD", cwd=tree) == head
        assert self.git("status", "--porcelain", "-uall", cwd=tree) == untracked
        self.git("fsck", "--full", "--strict", "--no-dangling", cwd=tree)
        left = [os.path.join(at, name) for at, folders, names in os.walk(self.folder)
                for name in folders + names
                if name.endswith(".lock") and name != "update.lock" or ".memfs-" in name
                or name.startswith(("stage-", "updating", "index-", "lock-"))]
        assert left == [], left


def kills(work_of, program, folder, *, inject=(), every=1):
    """For each call and each N: a fresh Work, killed as the N-th such call begins; until one goes through.
    work_of(work) makes the start and gives the arguments of the driver; without SOAK=1 only every so-many-th
    call is hit."""
    n_kills = 0
    for call, step in CALLS:
        n = 1
        while True:
            at = os.path.join(str(folder), f"{call}-{n}")
            os.makedirs(at)
            work = Work(program, at)
            args = work_of(work)
            others = [i for i in inject if not i.startswith(call + ":")]
            if len(others) != len(inject):
                break  # that call is spoilt in another way here
            done = work.drive(*args, inject=[f"{call}:signal=KILL:when={n}", *others])
            was_killed = done.returncode not in (0, 1)
            assert was_killed or done.returncode == 0, (call, n, done.stdout, done.stderr)
            yield work, was_killed, f"{call} {n}"
            shutil.rmtree(at)
            if not was_killed:
                break
            n_kills += 1
            n += 1 if SOAK else step * every
    assert n_kills > 10, n_kills


# -- making ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", ["create", "bare"])
def test_F01_a_new_repository_is_there_whole_or_not_at_all(driver, folder, command):
    def start(work):
        if command == "create":
            work.write("mine.md", "mine\n")
        return [command, work.tree]

    for work, _, where in kills(start, driver, folder):
        marker = os.path.join(work.tree, ".git" if command == "create" else "")
        if os.path.exists(os.path.join(marker, "HEAD")):
            assert work.git("rev-parse", "main") == GENESIS, where
        done = work.drive(command, work.tree)
        assert done.returncode == 0 or done.stdout.startswith("EEXISTS"), (where, done.stdout)
        if command == "create":
            work.check(GENESIS, untracked="?? mine.md")
        else:
            assert work.git("rev-parse", "main") == GENESIS
            work.git("fsck", "--full", "--strict")
            assert os.listdir(work.folder) == ["tree"], where


# -- following ------------------------------------------------------------------------------------------

def template(work):
    """A checkout at `from`, and `to` in its objects: changed, new, removed, a folder for a file and the
    reverse."""
    work.ok("create", work.tree)
    for name in ("a.md", "gone.md", "deep/gone.md", "turns", "folder/x.md", "same.md"):
        work.write(name, f"first version of {name}\n")
    work.commit("from")
    other = os.path.join(work.folder, "other")
    work.git("clone", "-q", work.tree, other, cwd=work.folder)
    work.git("rm", "-q", "gone.md", "deep/gone.md", "turns", "folder/x.md", cwd=other)
    work.write("a.md", "second version of a.md\n", other)
    work.write("new/b.md", "second version of b.md\n", other)
    work.write("turns/x.md", "a folder now\n", other)
    work.write("folder", "a file now\n", other)
    to = work.commit("to", other)
    work.git("fetch", "-q", other, "main")
    shutil.rmtree(other)
    return work.git("rev-parse", "HEAD"), to


@pytest.fixture(scope="session")
def prepared(driver, tmp_path_factory):
    work = Work(driver, tmp_path_factory.mktemp("template"))
    return work, *template(work)


def copy_of(prepared, work):
    shutil.copytree(prepared[0].tree, work.tree, symlinks=True)
    work.git("update-index", "-q", "--refresh")


def everything_in(work):
    """All bytes of the working tree and of what was rescued."""
    text = ""
    for at, folders, names in os.walk(work.tree):
        folders[:] = [f for f in folders if f != ".git"]
        for name in names:
            with open(os.path.join(at, name), encoding="utf-8", errors="replace") as f:
                text += f.read()
    return text + work.git("log", "-p", "--glob=refs/memfs/rescue")


@pytest.mark.parametrize("inject", [(), ("renameat2:error=EINVAL",)],
                         ids=["exchange", "without renameat2"])
def test_F01_an_update_is_finished_or_taken_back(driver, folder, prepared, inject):
    def start(work):
        copy_of(prepared, work)
        return ["update", work.tree, prepared[1], prepared[2]]

    for work, was_killed, where in kills(start, driver, folder, inject=inject):
        work.ok("recover", work.tree, inject=inject)
        head = work.git("rev-parse", "HEAD")
        work.check(head)
        assert head in prepared[1:], where
        if head == prepared[1]:
            assert was_killed
            work.ok("update", work.tree, prepared[1], prepared[2], inject=inject)
        work.check(prepared[2])
        assert work.git("for-each-ref", "refs/memfs") == "", where


def test_F31_what_is_written_after_a_kill_is_not_lost(driver, folder, prepared):
    """The agent goes on in the half-changed tree before memfs comes back: every file gets a line, and a
    new one appears."""
    def start(work):
        copy_of(prepared, work)
        return ["update", work.tree, prepared[1], prepared[2]]

    for work, was_killed, where in kills(start, driver, folder):
        if not was_killed:
            continue
        lines = []
        for at, folders, names in os.walk(work.tree):
            folders[:] = sorted(f for f in folders if f != ".git")
            for name in sorted(names):
                lines.append(f"written after the kill: {len(lines)} in {name}\n")
                with open(os.path.join(at, name), "a", encoding="utf-8") as f:
                    f.write(lines[-1])
        lines.append("a file of the agent\n")
        work.write("agent.md", lines[-1])
        work.ok("recover", work.tree)
        kept = everything_in(work)
        assert [line for line in lines if line not in kept] == [], where
        work.git("fsck", "--full", "--strict", "--no-dangling")
        assert not os.path.exists(os.path.join(work.tree, ".git", "memfs", "updating")), where
        # and the same once the agent has committed and its work is in the way no more
        work.git("add", "-A")
        work.git("commit", "-q", "-m", "the agent's", check=False)
        work.ok("inspect", work.tree)


def test_F31_a_kill_between_the_exchange_and_the_look_keeps_the_edit(driver, folder, prepared):
    """The worst instant: an edit was displaced by the exchange, and memfs died before it looked."""
    work = Work(driver, folder)
    copy_of(prepared, work)
    # the kill comes with the fcntl that asks for the lease of the first displaced file, after its exchange
    n = 1
    while True:
        shutil.rmtree(work.tree)
        copy_of(prepared, work)
        done = work.drive("update", work.tree, prepared[1], prepared[2],
                          inject=[f"fcntl:signal=KILL:when={n}"])
        notes = os.path.join(work.tree, ".git", "memfs")
        stages = [s for s in os.listdir(notes) if s.startswith("stage-")]
        assert done.returncode not in (0, 1), "no such instant was met"
        found = [os.path.join(notes, s, name) for s in stages
                 for name in os.listdir(os.path.join(notes, s)) if name.endswith(".new")]
        displaced = [f for f in found if open(f).read() == "first version of a.md\n"]
        if displaced:
            break
        n += 1
    with open(displaced[0], "a", encoding="utf-8") as f:  # an editor that had it open
        f.write("typed in that instant\n")
    work.ok("recover", work.tree)
    with open(os.path.join(work.tree, "a.md"), encoding="utf-8") as f:
        assert f.read() == "first version of a.md\ntyped in that instant\n"
    assert work.git("status", "--porcelain", "-uall") == " M a.md"
    done = work.drive("update", work.tree, prepared[1], prepared[2])
    assert done.stdout.startswith("ECONFLICT 'a.md' has changes"), done.stdout


def test_L2_a_recovery_that_is_killed_is_recovered_from(driver, folder, prepared):
    """Half an update, killed at the last exchange; then the recovery itself is killed at every call."""
    half = Work(driver, os.path.join(str(folder), "half"))
    os.makedirs(half.folder)
    copy_of(prepared, half)
    n = 1
    while half.drive("update", half.tree, prepared[1], prepared[2],
                     inject=[f"renameat2:signal=KILL:when={n}"]).returncode not in (0, 1):
        shutil.rmtree(half.tree)
        copy_of(prepared, half)
        n += 1
    shutil.rmtree(half.tree)
    copy_of(prepared, half)
    half.drive("update", half.tree, prepared[1], prepared[2],
               inject=[f"renameat2:signal=KILL:when={n - 1}"])
    assert half.git("status", "--porcelain") != ""

    def start(work):
        subprocess.run(["cp", "-a", half.tree, work.tree], check=True)  # locks keep their twins
        return ["recover", work.tree]

    for work, _, where in kills(start, driver, os.path.join(str(folder), "again")):
        work.ok("recover", work.tree)
        assert work.git("status", "--porcelain", "-uall") == "", where
        work.ok("update", work.tree, prepared[1], prepared[2])
        work.check(prepared[2])


# -- the rest -------------------------------------------------------------------------------------------

def test_F01_a_commit_that_is_killed_leaves_the_files_and_no_lock(driver, folder, prepared):
    def start(work):
        copy_of(prepared, work)
        work.write("system/new.md", "not committed yet\n")
        work.write("a.md", "changed\n")
        os.unlink(os.path.join(work.tree, "gone.md"))
        return ["commit", work.tree, "everything"]

    for work, _, where in kills(start, driver, folder, every=2):
        work.ok("recover", work.tree)
        work.ok("commit", work.tree, "everything")
        work.check(work.git("rev-parse", "main"))
        assert work.git("rev-list", "--count", f"{prepared[1]}..main") == "1", where
        tracked = work.git("ls-files").split("\n")
        assert "system/new.md" in tracked and "gone.md" not in tracked


def test_F01_a_ref_that_is_killed_on_its_way_moves_or_does_not(driver, folder, prepared):
    ref = "refs/memfs/rescue/main/x"

    def start(work):
        copy_of(prepared, work)
        return ["move", work.tree, ref, ZERO, prepared[1]]

    for work, _, where in kills(start, driver, folder):
        there = work.git("for-each-ref", "--format=%(objectname)", ref)
        assert there in ("", prepared[1]), where
        if not there:
            work.ok("move", work.tree, ref, ZERO, prepared[1])
        work.git("update-ref", ref, GENESIS)  # git can lock it
        work.git("update-ref", "-d", ref)
        work.ok("recover", work.tree)
        work.check(prepared[1])


def test_F01_a_configuration_is_never_half_and_never_locked(driver, folder, prepared):
    """A stale config.lock would stop every session of the Letta client."""
    def start(work):
        copy_of(prepared, work)
        return ["config", os.path.join(work.tree, ".git", "config"), "letta.agentId", "agent-1"]

    for work, _, where in kills(start, driver, folder):
        assert work.git("config", "core.bare") == "false", where
        work.ok("config", os.path.join(work.tree, ".git", "config"), "letta.agentId", "agent-1")
        work.ok("recover", work.tree)
        work.git("config", "user.name", "git can write")
        assert work.git("config", "letta.agentId") == "agent-1"
        work.check(prepared[1])


def test_F01_a_working_tree_is_linked_whole_or_not_at_all(driver, folder, prepared):
    def start(work):
        copy_of(prepared, work)
        return ["add", work.tree, os.path.join(work.folder, "trees", "one"), "letta/one", prepared[1]]

    for work, _, where in kills(start, driver, folder, every=3):
        one, two = (os.path.join(work.folder, "trees", n) for n in ("one", "two"))
        if os.path.exists(one):
            assert work.git("status", "--porcelain", "-uall", cwd=one) == "", where
        work.ok("add", work.tree, two, "letta/two", prepared[1])
        work.ok("recover", work.tree)
        work.check(prepared[1])
        assert work.git("status", "--porcelain", "-uall", cwd=two) == ""
        assert "prunable" not in work.git("worktree", "list", "--porcelain"), where
