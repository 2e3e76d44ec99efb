"""`memfs worktree`: many writers of one memory at once, each with a branch and folder; all of it comes back by rule.

The layout is the Letta client's, so both sides find each other's worktrees (client 1, 6.3).
"""
import json
import os
import re
import shutil
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


def worktree(home, agent, *args, **kw):
    done = home.run("worktree", *args, "--agent", agent, "--json", **kw)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.decode()


def commit(c, files, message="x"):
    for path, data in files.items():
        c.write(path, data)
    c.run("add", "-A")
    c.run("commit", "-q", "-m", message)
    return c.head


def nothing_is_left(home, agent):
    """No folder, branch, registration or lock of a writer that is done."""
    c = home.checkout(agent)
    assert c.text("for-each-ref", "--format=%(refname)", "refs/heads") == "refs/heads/main"
    assert c.text("for-each-ref", "--format=%(refname)", "refs/memfs/pending") == ""
    assert len(c.text("worktree", "list").splitlines()) == 1
    assert c.run("worktree", "prune", "-v").stdout == b""
    trees = os.path.join(home.root(agent), "memory-worktrees")
    assert not os.path.exists(trees) or os.listdir(trees) == []
    assert os.listdir(c.path + "/.git/worktrees") == [] if os.path.exists(c.path + "/.git/worktrees") \
        else True
    home.check(agent)


def test_add_has_the_clients_layout(home, agent):
    c = home.checkout(agent)
    head = commit(c, {"a.md": "a\n"})
    w = worktree(home, agent, "add", "reflection")
    stamp = re.fullmatch(r"reflection-(\d{14}-[0-9a-f]{8})", w["name"]).group(1)
    assert w["path"] == os.path.join(home.root(agent), "memory-worktrees", w["name"])
    assert w["branch"] == f"letta/reflection/{stamp}"
    tree = Checkout(home.git, w["path"])
    assert tree.head == head and tree.text("symbolic-ref", "HEAD") == "refs/heads/" + w["branch"]
    assert tree.text("status", "--porcelain") == "" and tree.read("a.md") == b"a\n"
    listed = [line for line in c.text("worktree", "list", "--porcelain").split("\n\n") if w["path"] in line]
    assert len(listed) == 1 and "prunable" not in listed[0]
    assert home.run("worktree", "add", "x", "--agent", agent).stdout.decode().strip().startswith(
        os.path.join(home.root(agent), "memory-worktrees", "x-"))


def test_a_commit_in_a_worktree_meets_the_hook(home, agent):
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    tree.write("system/x.md", "no frontmatter\n")
    tree.run("add", "-A")
    assert tree.run("commit", "-q", "-m", "x", check=False).returncode == 1


def test_list_says_how_far_each_is(home, agent):
    assert worktree(home, agent, "list") == []
    a, b = worktree(home, agent, "add", "a"), worktree(home, agent, "add", "b")
    tree = Checkout(home.git, a["path"])
    commit(tree, {"n.md": "1\n"})
    commit(tree, {"n.md": "2\n"})
    Checkout(home.git, b["path"]).write("new.md", "new\n")
    rows = worktree(home, agent, "list")
    assert [(r["name"], r["ahead"], r["changes"], r["gone"]) for r in rows] == [
        (a["name"], 2, False, False), (b["name"], 0, True, False)]
    shutil.rmtree(b["path"])
    assert [r["gone"] for r in worktree(home, agent, "list")] == [False, True]


def test_merge_brings_commits_and_uncommitted_work(home, agent):
    c = home.checkout(agent)
    commit(c, {"notes.md": "one\ntwo\nthree\n"})
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    commit(tree, {"theirs.md": "t\n"})
    tree.write("notes.md", "one\ntwo\nthree\nfour\n")
    tree.write("new.md", "new\n")
    ours = commit(c, {"ours.md": "o\n", "notes.md": "zero\none\ntwo\nthree\n"})
    done = worktree(home, agent, "merge", "w")
    assert done["state"] == "merged" and done["commits"] == 2 and done["main"] == c.head
    assert ours in c.text("log", "-1", "--format=%P") and c.text("status", "--porcelain") == ""
    assert c.read("notes.md") == b"zero\none\ntwo\nthree\nfour\n"
    assert {"ours.md", "theirs.md", "new.md"} <= set(os.listdir(c.path))
    nothing_is_left(home, agent)


def test_a_fast_forward_needs_no_merge_commit(home, agent):
    w = worktree(home, agent, "add", "w")
    tip = commit(Checkout(home.git, w["path"]), {"n.md": "1\n"})
    assert worktree(home, agent, "merge", w["name"])["main"] == tip == home.checkout(agent).head
    nothing_is_left(home, agent)


def test_nothing_to_merge(home, agent):
    head = home.checkout(agent).head
    w = worktree(home, agent, "add", "w")
    done = worktree(home, agent, "merge", w["branch"])
    assert done["state"] == "no-changes" and home.checkout(agent).head == head
    nothing_is_left(home, agent)


def test_the_same_lines_are_merged_by_rule_and_told(home, agent):
    c = home.checkout(agent)
    commit(c, {"notes.md": "a\nb\nc\n"})
    w = worktree(home, agent, "add", "w")
    commit(Checkout(home.git, w["path"]), {"notes.md": "a\ntheirs\nc\n"})
    commit(c, {"notes.md": "a\nours\nc\n"})
    done = worktree(home, agent, "merge", "w")
    assert done["by_rule"] == 1 and "memfs undo" in done["notes"]
    assert set(c.read("notes.md").split()) == {b"a", b"ours", b"theirs", b"c"}
    nothing_is_left(home, agent)


def test_16_writers_at_once(home, agent, scale):
    """Every line that any of them committed, or only wrote, is in main at the end; nothing else stays."""
    c = home.checkout(agent)
    commit(c, {"shared.md": "start\n"})
    n, rounds = 16, scale(2, 20)
    faults, wanted = [], set()
    lock = threading.Lock()

    def write(i):
        try:
            for r in range(rounds):
                w = worktree(home, agent, "add", f"writer{i}")
                tree = Checkout(home.git, w["path"])
                mine = [f"writer {i} round {r} line {k}" for k in range(3)]
                tree.write("shared.md", tree.read("shared.md") + (mine[0] + "\n").encode())
                tree.write(f"own/{i}.md", mine[1] + "\n")
                tree.run("add", "-A")
                tree.run("commit", "-q", "-m", f"{i} {r}")
                tree.write(f"own/{i}-{r}.md", mine[2] + "\n")       # not committed
                done = worktree(home, agent, "merge", w["name"])
                assert done["state"] == "merged", done
                with lock:
                    wanted.update([mine[0], mine[2]])
                    if r == rounds - 1:
                        wanted.add(mine[1])
        except Exception as e:
            faults.append(e)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults, faults[0]
    text = "\n".join(c.read(p).decode() for p in c.text("ls-files").splitlines())
    lines = text.splitlines()
    assert wanted <= set(lines) and "start" in lines
    assert all(lines.count(line) == 1 for line in wanted)
    assert c.text("status", "--porcelain") == "" and "<<<<" not in text
    nothing_is_left(home, agent)


def test_F31_while_the_parent_is_edited_the_merge_waits(home, agent):
    c = home.checkout(agent)
    commit(c, {"notes.md": "one\n"})
    one, two = worktree(home, agent, "add", "one"), worktree(home, agent, "add", "two")
    commit(Checkout(home.git, one["path"]), {"one.md": "1\n"})
    commit(Checkout(home.git, two["path"]), {"two.md": "2\n"})
    c.write("notes.md", "being edited\n")
    before = working_tree(c.path)
    head = c.head
    done = worktree(home, agent, "merge", "one")
    assert done["state"] == "pending" and "memfs sync" in done["notes"] and c.head == head
    assert working_tree(c.path) == before and not os.path.exists(one["path"])
    assert c.text("for-each-ref", "--format=%(refname)", "refs/memfs/pending") == \
        "refs/memfs/pending/" + one["name"]
    [r] = json.loads(home.run("status", "--agent", agent, "--json").stdout)["agents"]
    assert r["n_pending"] == 1 and "1 worktree's merge waits" in r["line"]
    commit(c, {"notes.md": "edited\n"})
    done = worktree(home, agent, "merge", "two")
    assert done["state"] == "merged" and done["pending_taken"] == 1
    assert c.read("one.md") == b"1\n" and c.read("two.md") == b"2\n" and c.read("notes.md") == b"edited\n"
    nothing_is_left(home, agent)


def test_F31_a_rebase_in_the_parent_makes_it_wait_too(home, agent):
    c = home.checkout(agent)
    base = commit(c, {"notes.md": "one\n"})
    w = worktree(home, agent, "add", "w")
    commit(Checkout(home.git, w["path"]), {"w.md": "w\n"})
    c.run("checkout", "-q", "-b", "other", base)
    commit(c, {"notes.md": "theirs\n"})
    c.run("checkout", "-q", "main")
    commit(c, {"notes.md": "ours\n"})
    c.run("-c", "merge.memfs.driver=false", "-c", "core.attributesFile=/dev/null", "rebase", "other",
          check=False)
    if os.path.isdir(c.path + "/.git/rebase-merge"):
        assert worktree(home, agent, "merge", "w")["state"] == "pending"
        c.run("rebase", "--abort")
        c.run("branch", "-q", "-D", "other")
        done = worktree(home, agent, "merge", worktree(home, agent, "add", "x")["name"])
        assert done["pending_taken"] == 1 and c.read("w.md") == b"w\n"
        nothing_is_left(home, agent)
    else:
        pytest.fail("the rebase did not stop")


def test_a_worktree_that_is_rebasing_is_left_alone(home, agent):
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    commit(tree, {"n.md": "1\n"})
    tree.run("checkout", "-q", "--detach")
    text = worktree(home, agent, "merge", "w", code=5)
    assert "is not on its branch" in text and os.path.isdir(w["path"])


def test_what_cannot_be_committed_keeps_its_folder(home, agent):
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    tree.write("good.md", "good\n")
    os.symlink("/etc/passwd", w["path"] + "/link.md")
    done = worktree(home, agent, "merge", "w")
    assert done["folder_kept"] and "link.md" in done["notes"] and os.path.islink(w["path"] + "/link.md")
    assert home.checkout(agent).read("good.md") == b"good\n"
    os.unlink(w["path"] + "/link.md")
    worktree(home, agent, "merge", "w")
    nothing_is_left(home, agent)


def test_remove_refuses_to_lose_work(home, agent):
    c = home.checkout(agent)
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    tip = commit(tree, {"n.md": "1\n"})
    text = worktree(home, agent, "remove", "w", code=5)
    assert "1 commit that main lacks" in text and os.path.isdir(w["path"])
    tree.write("dirty.md", "dirty\n")
    worktree(home, agent, "remove", "w", "--force")
    assert not os.path.exists(w["path"])
    kept = c.text("for-each-ref", "--format=%(objectname)", "refs/memfs/rescue").split()
    assert any(c.run("merge-base", "--is-ancestor", tip, k, check=False).returncode == 0 and
               c.run("cat-file", "-e", k + ":dirty.md", check=False).returncode == 0 for k in kept)
    nothing_is_left(home, agent)


def test_F31_force_does_not_delete_what_no_commit_can_hold(home, agent):
    """A link, a pipe and a file with a name or size that is refused: named, and all of it stays."""
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    tree.write("good.md", "good\n")
    tree.write("huge.bin", "")
    os.truncate(w["path"] + "/huge.bin", 1 << 40)   # sparse
    os.symlink("/etc/passwd", w["path"] + "/link.md")
    text = worktree(home, agent, "remove", "w", "--force", code=5)
    assert "link.md" in text and "huge.bin" in text and "2 files would be lost" in text, text
    assert w["path"] in text
    assert os.path.islink(w["path"] + "/link.md") and os.path.exists(w["path"] + "/huge.bin")
    assert tree.text("show", w["branch"] + ":good.md") == "good"    # that one is safe on its branch
    os.unlink(w["path"] + "/link.md")
    text = worktree(home, agent, "remove", "w", "--force", code=5)
    assert "1 file would be lost" in text and "link.md" not in text
    os.unlink(w["path"] + "/huge.bin")
    worktree(home, agent, "remove", "w", "--force")
    kept = home.checkout(agent).text("for-each-ref", "--format=%(objectname)", "refs/memfs/rescue").split()
    assert any(home.checkout(agent).text("show", k + ":good.md") == "good" for k in kept)
    nothing_is_left(home, agent)


def test_force_takes_a_dirty_one_whose_branch_is_gone(home, agent):
    c = home.checkout(agent)
    w = worktree(home, agent, "add", "w")
    Checkout(home.git, w["path"]).write("dirty.md", "dirty\n")
    c.run("update-ref", "-d", "refs/heads/" + w["branch"])
    worktree(home, agent, "remove", w["name"], "--force")
    kept = c.text("for-each-ref", "--format=%(objectname)", "refs/memfs/rescue").split()
    assert any(c.run("cat-file", "-e", k + ":dirty.md", check=False).returncode == 0 for k in kept)
    nothing_is_left(home, agent)


def test_L5_a_folder_that_git_has_locked_stays_and_is_told(home, agent):
    """What it holds is in main; a merge that could not clean up never says that all is well."""
    w = worktree(home, agent, "add", "w")
    commit(Checkout(home.git, w["path"]), {"notes.md": "w\n"})
    home.checkout(agent).run("worktree", "lock", w["path"])
    text = worktree(home, agent, "merge", "w", code=5)
    assert "git worktree unlock" in text, text
    assert home.checkout(agent).text("show", "main:notes.md") == "w"
    home.checkout(agent).run("worktree", "unlock", w["path"])
    worktree(home, agent, "merge", "w")
    nothing_is_left(home, agent)


def test_an_agent_without_a_memory_is_named(home, agent):
    other = new_agent()
    for args in (["list"], ["add", "w"], ["merge", "w"], ["remove", "w"]):
        text = worktree(home, other, *args, code=1)
        assert other in text and "memfs apply" in text


def test_remove_takes_an_empty_one(home, agent):
    w = worktree(home, agent, "add", "w")
    worktree(home, agent, "remove", "w")
    assert not os.path.exists(w["path"])
    nothing_is_left(home, agent)


def test_a_folder_that_somebody_deleted(home, agent):
    """rm -rf of a worktree leaves branch and registration; its commits are merged all the same."""
    w = worktree(home, agent, "add", "w")
    commit(Checkout(home.git, w["path"]), {"n.md": "1\n"})
    shutil.rmtree(w["path"])
    assert worktree(home, agent, "merge", "w")["state"] == "merged"
    assert home.checkout(agent).read("n.md") == b"1\n"
    nothing_is_left(home, agent)


def test_the_clients_own_worktree_is_taken(home, agent):
    c = home.checkout(agent)
    stamp = "20261122140359-0a1b2c3d"
    path = os.path.join(home.root(agent), "memory-worktrees", "reflection-" + stamp)
    c.run("worktree", "add", "-q", path, "-b", "letta/reflection/" + stamp, "HEAD")
    commit(Checkout(home.git, path), {"n.md": "1\n"})
    assert [w["name"] for w in worktree(home, agent, "list")] == ["reflection-" + stamp]
    worktree(home, agent, "merge", "reflection")
    assert c.read("n.md") == b"1\n"
    nothing_is_left(home, agent)


def test_a_writer_that_goes_on_is_not_cut_off(home, agent):
    """Commits that come in while the merge works are merged too, or keep their branch."""
    c = home.checkout(agent)
    w = worktree(home, agent, "add", "w")
    tree = Checkout(home.git, w["path"])
    said, stop = [], threading.Event()

    def write():
        n = 0
        while not stop.is_set() and os.path.isdir(w["path"]):
            try:
                commit(tree, {f"n{n}.md": f"{n}\n"}, f"{n}")
            except (AssertionError, OSError):
                break                               # its folder has gone
            said.append(n)
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    while len(said) < 3:
        time.sleep(0.01)
    home.run("worktree", "merge", "w", "--agent", agent, code=None)
    stop.set()
    thread.join()
    if os.path.isdir(w["path"]):
        worktree(home, agent, "merge", "w")
    for n in said:
        assert c.read(f"n{n}.md") == f"{n}\n".encode()


@pytest.mark.parametrize("args,words", [
    (["add"], "which worktree"), (["merge"], "which worktree"), (["list", "x"], "unexpected"),
    (["dance"], "unexpected"), (["add", "../x"], "no name"), (["add", "-x"], "unknown option"),
    (["add", "x.lock"], "no name"), (["add", "x" * 65], "no name")])
def test_wrong_usage(home, agent, args, words):
    assert words in worktree(home, agent, *args, code=2)


def test_a_name_that_several_have(home, agent):
    a, b = worktree(home, agent, "add", "w"), worktree(home, agent, "add", "w")
    assert "name one in full" in worktree(home, agent, "merge", "w", code=2)
    worktree(home, agent, "merge", a["name"])
    worktree(home, agent, "merge", "w")
    assert "no worktree" in worktree(home, agent, "merge", b["name"], code=1)
    nothing_is_left(home, agent)


def test_agents_do_not_see_each_others(home, agent):
    other = new_agent()
    home.run("init", "--agent", other)
    before = snapshot(home.root(other))
    worktree(home, agent, "add", "w")
    assert worktree(home, other, "list") == [] and snapshot(home.root(other)) == before


def test_a_folder_that_is_no_worktree_any_more_hides_none_of_the_others(home, agent):
    broken, good = worktree(home, agent, "add", "broken"), worktree(home, agent, "add", "good")
    commit(Checkout(home.git, broken["path"]), {"mine.md": "mine\n"})
    commit(Checkout(home.git, good["path"]), {"a.md": "a\n"})
    os.unlink(broken["path"] + "/.git")
    assert {w["name"] for w in worktree(home, agent, "list")} == {broken["name"], good["name"]}
    assert worktree(home, agent, "merge", "good")["state"] == "merged"
    for how in (["merge", "broken"], ["remove", "broken"], ["remove", "broken", "--force"]):
        assert broken["path"] in worktree(home, agent, *how, code=5) or how == ["remove", "broken"]
        assert os.path.exists(broken["path"] + "/mine.md")
    shutil.rmtree(broken["path"])
    assert worktree(home, agent, "merge", "broken")["state"] == "merged"
    assert home.checkout(agent).read("mine.md") == b"mine\n"
    nothing_is_left(home, agent)
