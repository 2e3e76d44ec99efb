"""`memfs backup` and `memfs restore` of one memory: a copy that the memory really was, and ways back that are commits.

Both names belong to the server's commands as well; which one is meant is told by the arguments.
"""
import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from lib.client import Home, snapshot, working_tree
from lib.gitcli import Checkout
from lib.server import new_agent


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def agent(home):
    a = new_agent()
    home.run("init", "--agent", a)
    return a


def commit(c, files, message="x"):
    for path, data in files.items():
        if data is None:
            os.unlink(os.path.join(c.path, path))
        else:
            c.write(path, data)
    c.run("add", "-A")
    c.run("commit", "-q", "--no-verify", "--allow-empty", "-m", message)
    return c.head


def backup(home, agent, *args, **kw):
    return json.loads(home.run("backup", "--agent", agent, "--json", *args, **kw).stdout)


def restore(home, agent, *args, **kw):
    return json.loads(home.run("restore", "--agent", agent, "--json", *args, **kw).stdout)


# backup

def test_a_backup_is_the_memory_with_all_that_was_there(home, agent):
    c = home.checkout(agent)
    head = commit(c, {"system/a.md": "a\n"})
    c.write("system/a.md", "edited\n")
    c.write("new.md", "new\n")
    c.run("add", "new.md")
    os.symlink("a.md", c.path + "/link")
    before = snapshot(c.path, with_times=True)
    b = backup(home, agent)
    assert snapshot(c.path, with_times=True) == before
    assert b["head"] == head and os.path.dirname(b["path"]) == home.root(agent)
    assert b["name"].startswith("memory-backup-") and len(b["name"]) == len("memory-backup-20261122-140359")
    assert working_tree(b["path"]).keys() == working_tree(c.path).keys()
    copy = Checkout(home.git, b["path"])
    assert copy.read("system/a.md") == b"edited\n" and os.readlink(b["path"] + "/link") == "a.md"
    assert copy.text("status", "--porcelain") == c.text("status", "--porcelain")
    copy.run("fsck", "--full", "--strict")
    assert set(os.listdir(home.root(agent))) <= {"memory", b["name"], "memory.memfs.lock"}


def test_backups_are_listed_newest_first_and_never_collide(home, agent):
    c = home.checkout(agent)
    made = []
    for i in range(3):
        commit(c, {"n.md": str(i)})
        made.append(backup(home, agent))
    assert len({b["name"] for b in made}) == 3
    assert backup(home, agent, "--list") == made[::-1]
    shutil.copytree(made[0]["path"], os.path.join(home.root(agent), "memory-backup-old"))
    names = [b["name"] for b in backup(home, agent, "--list")]
    assert sorted(names) == sorted([b["name"] for b in made] + ["memory-backup-old"])
    text = home.run("backup", "--agent", agent, "--list").stdout.decode()
    assert all(b["name"] in text for b in made)


def test_locks_and_unfinished_files_stay_behind(home, agent):
    """A copy of git's lock would lock the copy for ever."""
    c = home.checkout(agent)
    for name in ("index.lock", "refs/heads/main.lock", "objects/tmp_obj_x"):
        with open(os.path.join(c.path, ".git", name), "w") as f:
            f.write("x")
    b = backup(home, agent)
    for name in ("index.lock", "refs/heads/main.lock", "objects/tmp_obj_x"):
        assert not os.path.exists(os.path.join(b["path"], ".git", name))


def test_a_backup_under_writing_is_one_state(home, agent, scale):
    """An agent commits all the time: in the copy, files, index and HEAD belong together, and nothing is missing."""
    c = home.checkout(agent)
    commit(c, {f"system/{i}.md": "0\n" for i in range(20)}, "first")
    stop = threading.Event()
    new = os.path.join(home.folder, "new")

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            for i in range(20):     # by renames: a file that is being written is copied as it is
                with open(new, "w") as f:
                    f.write(f"{n}\n")
                os.replace(new, os.path.join(c.path, f"system/{i}.md"))
            commit(c, {}, f"{n}")
            time.sleep(0.15)
            if n % 10 == 0:
                c.run("repack", "-q", "-a", "-d")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(scale(8, 100)):
            b = backup(home, agent)
            copy = Checkout(home.git, b["path"])
            copy.run("fsck", "--full", "--strict")
            n = int(copy.text("log", "-1", "--format=%s").replace("first", "0"))
            texts = {int(copy.read(f"system/{i}.md")) for i in range(20)}
            assert texts <= {n, n + 1}          # it may be in the middle of its next commit
            staged = {int(copy.text("show", f":system/{i}.md")) for i in (0, 10, 19)}
            assert staged in ({n}, {n + 1}) and (n + 1 not in staged or texts == {n + 1})
            shutil.rmtree(b["path"])
    finally:
        stop.set()
        thread.join()


def test_what_a_killed_backup_left_is_swept(home, agent):
    left = os.path.join(home.root(agent), ".memfs-backup-abcdef")
    os.makedirs(left + "/.git/objects")
    os.utime(left, (1, 1))
    young = os.path.join(home.root(agent), ".memfs-backup-ghijkl")
    os.makedirs(young)
    backup(home, agent)
    assert not os.path.exists(left) and os.path.exists(young)


def test_no_memory_no_backup(home):
    done = home.run("backup", "--agent", new_agent(), code=1)
    assert b"memfs apply" in done.stderr


# restore

def test_files_as_they_were_are_a_new_commit(home, agent):
    c = home.checkout(agent)
    one = commit(c, {"system/a.md": "1\n", "system/b.md": "1\n", "keep.md": "k\n"})
    two = commit(c, {"system/a.md": "2\n", "system/b.md": None, "c.md": "c\n"})
    done = restore(home, agent, "--at", one, "system/a.md")
    assert c.head == done["head"] != two and c.text("rev-parse", "HEAD~1") == two
    assert done["files"] == [{"status": "M", "path": "system/a.md"}] and done["written"] == 1
    assert c.read("system/a.md") == b"1\n" and not os.path.exists(c.path + "/system/b.md")
    done = restore(home, agent, "--at", "HEAD~2", "system/")
    assert c.read("system/b.md") == b"1\n" and [f["status"] for f in done["files"]] == ["A"]
    done = restore(home, agent, "--at", one)
    assert c.text("rev-parse", "HEAD^{tree}") == c.text("rev-parse", one + "^{tree}")
    assert not os.path.exists(c.path + "/c.md") and c.text("status", "--porcelain") == ""
    assert restore(home, agent, "--at", one)["head"] == c.head          # all is as it was: no commit
    assert c.text("log", "-1", "--format=%an <%ae>").endswith(f"<{agent}@letta.com>")
    home.check(agent)


def test_by_time_and_dry_run(home, agent):
    c = home.checkout(agent)
    c.write("a.md", "then\n")
    c.run("add", "-A")
    c.run("commit", "-q", "--no-verify", "-m", "x", env={"GIT_COMMITTER_DATE": "2025-11-22T12:00:00Z",
                                                       "GIT_AUTHOR_DATE": "2025-11-22T12:00:00Z"})
    head = commit(c, {"a.md": "now\n"})
    done = restore(home, agent, "--at", "2025-11-22 13:00", "--dry-run")
    assert done["files"] == [{"status": "M", "path": "a.md"}] and done["dry_run"] and c.head == head
    restore(home, agent, "--at", "2025-11-22 13:00")
    assert c.read("a.md") == b"then\n"


def test_a_path_that_never_was_is_refused(home, agent):
    c = home.checkout(agent)
    head = commit(c, {"a.md": "1\n"})
    done = home.run("restore", "--agent", agent, "--at", "HEAD", "nothing.md", code=1)
    assert b"neither then nor now" in done.stderr and c.head == head


def test_F31_what_is_not_committed_is_never_touched(home, agent):
    c = home.checkout(agent)
    commit(c, {"a.md": "1\n"})
    head = commit(c, {"a.md": "2\n"})
    c.write("a.md", "edited\n")
    c.write("new.md", "new\n")
    before = snapshot(c.path)
    done = home.run("restore", "--agent", agent, "--at", "HEAD~1", code=5)
    assert b"a.md" in done.stderr and b"nothing was restored" in done.stderr
    assert {k: v for k, v in snapshot(c.path).items() if not k.startswith(".git")} == \
        {k: v for k, v in before.items() if not k.startswith(".git")}
    assert c.head == head


def test_a_backup_comes_back_with_what_was_not_committed(home, agent):
    c = home.checkout(agent)
    commit(c, {"system/a.md": "a\n", "gone.md": "g\n", "renamed.md": "some text\n" * 5})
    c.write("system/a.md", "edited\n")
    c.write("new.md", "new\n")
    os.unlink(c.path + "/gone.md")
    os.rename(c.path + "/renamed.md", c.path + "/other.md")
    wanted = working_tree(c.path)
    b = backup(home, agent)
    c.run("checkout", "-q", "--", ".")
    c.run("clean", "-qfd")
    head = commit(c, {"system/a.md": "later\n", "later.md": "l\n"})
    only = restore(home, agent, "--from", b["name"], "--committed", "--dry-run")
    assert {f["path"] for f in only["files"]} == {"system/a.md", "later.md"} and only["uncommitted"] == 0
    done = restore(home, agent, "--from", b["name"])
    assert done["uncommitted"] == 5 and c.text("rev-parse", "HEAD~1") == head
    assert working_tree(c.path) == wanted and c.text("status", "--porcelain") == ""
    assert b["name"] in c.text("log", "-1", "--format=%s")


def test_a_backup_of_a_lost_history_comes_back(home, agent):
    """The memory was cloned anew: what the backup has is not among its objects."""
    c = home.checkout(agent)
    commit(c, {"a.md": "from before\n"})
    b = backup(home, agent)
    shutil.rmtree(home.memory(agent))
    home.run("init", "--agent", agent)
    restore(home, agent, "--from", b["path"], "a.md")
    assert home.checkout(agent).read("a.md") == b"from before\n"
    home.check(agent)


def test_a_link_in_a_backup_is_not_read_through(home, agent, folder):
    """A link to a secret, not committed, would bring the secret into the history."""
    (folder / "secret").write_text("secret\n")
    c = home.checkout(agent)
    commit(c, {"a.md": "a\n"})
    b = backup(home, agent)
    os.symlink(folder / "secret", b["path"] + "/stolen.md")
    restore(home, agent, "--from", b["name"])
    assert not os.path.exists(c.path + "/stolen.md")


# the server's commands of the same names

def test_with_a_folder_they_are_the_servers(home, folder):
    data = folder / "data"
    done = home.run("backup", folder / "copy", "--home", data, code=None)
    assert b"agent" not in done.stderr or done.returncode == 0
    subprocess.run([home.memfs_bin, "rebuild", "--home", data], env=home.env, capture_output=True)
    os.makedirs(data, exist_ok=True)
    home.run("backup", folder / "copy", "--home", data)
    home.run("restore", "--from", folder / "copy", "--home", folder / "again")
    assert (folder / "copy").is_dir() and (folder / "again").is_dir()


def test_the_help_of_both_explains_both(home):
    for name in ("backup", "restore"):
        text = home.run(name, "--help").stdout.decode()
        assert "--agent" in text and "FOLDER" in text and "data folder" in text


@pytest.mark.parametrize("args,words", [
    (["backup", "--agent", "A", "/x"], b"beside it"),
    (["restore", "--agent", "A"], b"--at or --from"),
    (["restore", "--agent", "A", "--at", "HEAD", "--from", "x"], b"--at or --from"),
    (["restore", "--agent", "A", "--at", "HEAD", "--home", "/x"], b"--home"),
    (["backup"], b"which agent?"),
])
def test_what_makes_no_sense_is_wrong_usage(home, agent, args, words):
    done = home.run(*[agent if a == "A" else a for a in args], code=2)
    assert words in done.stderr
