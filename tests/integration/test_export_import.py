"""`memfs export` and `memfs import`: out as files, tar or bundle; in by rule, as a commit on top."""
import io
import json
import os
import subprocess
import tarfile

import pytest

from lib.client import GENESIS, Home, snapshot
from lib.server import new_agent


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def agent(home):
    a = new_agent()
    home.run("init", "--agent", a)
    return a


LONG = "system/" + "/".join(["a-folder-with-a-rather-long-name"] * 5) + "/file.md"
FILES = {"system/human.md": b"---\ndescription: d\n---\nhello\n", "notes.md": b"n\n", "empty.md": b"",
         "data.bin": bytes(range(256)), LONG: b"deep\n", "system/caf\u00e9.md": b"coffee\n"}


def fill(folder, files):
    for path, data in files.items():
        full = os.path.join(folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)


def commit(c, files):
    for path, data in files.items():
        c.write(path, data)
    c.run("add", "-A")
    c.run("commit", "-q", "--no-verify", "-m", "x")
    return c.head


def files_of(folder):
    out = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f != ".git"]
        for name in names:
            with open(os.path.join(at, name), "rb") as f:
                out[os.path.relpath(os.path.join(at, name), folder)] = f.read()
    return out


def imported(home, agent, source, *args, **kw):
    done = home.run("import", "--agent", agent, "--from", source, "--json", *args, **kw)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


# out

def test_a_folder_has_the_committed_files(home, agent, folder):
    c = home.checkout(agent)
    head = commit(c, FILES)
    c.write("notes.md", "not committed\n")
    done = json.loads(home.run("export", "--agent", agent, "--out", folder / "out", "--json").stdout)
    assert files_of(folder / "out") == FILES and done["head"] == head and done["files"] == len(FILES)
    assert done["bytes"] == sum(map(len, FILES.values())) and done["left_out"] == 0
    home.run("export", "--agent", agent, "--out", folder / "out", code=1)    # never into what is there
    assert files_of(folder / "out") == FILES
    commit(c, {"notes.md": "two\n"})
    home.run("export", "--agent", agent, "--out", folder / "old", "--at", head)
    assert files_of(folder / "old") == FILES


def test_a_tar_is_read_by_tar_and_is_always_the_same(home, agent, folder):
    commit(home.checkout(agent), FILES)
    first = home.run("export", "--agent", agent, "--tar", "-").stdout
    assert first == home.run("export", "--agent", agent, "--tar", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == FILES
        assert {(m.uid, m.gid, m.mode) for m in tar} == {(0, 0, 0o644)}
    os.makedirs(folder / "untar")
    subprocess.run(["tar", "-x", "-C", folder / "untar"], input=first, check=True)
    assert files_of(folder / "untar") == FILES
    home.run("export", "--agent", agent, "--tar", folder / "m.tar")
    assert (folder / "m.tar").read_bytes() == first
    home.run("export", "--agent", agent, "--tar", folder / "m.tar", code=1)


def test_a_bundle_is_cloned_by_git(home, agent, folder):
    head = commit(home.checkout(agent), FILES)
    home.run("export", "--agent", agent, "--bundle", folder / "m.bundle")
    home.git.run("bundle", "verify", folder / "m.bundle", cwd=home.memory(agent))
    clone = home.git.clone(folder / "m.bundle", folder / "clone")
    assert clone.head == head and files_of(folder / "clone") == FILES
    assert clone.text("rev-list", "--max-parents=0", "HEAD") == GENESIS


def test_links_in_a_history_are_left_out(home, agent, folder):
    """A link that some other program committed would be written outside of the folder through."""
    c = home.checkout(agent)
    blob = c.run("hash-object", "-w", "--stdin", input=b"/etc").stdout.decode().strip()
    c.run("update-index", "--add", "--cacheinfo", f"120000,{blob},link")
    c.run("commit", "-q", "--no-verify", "-m", "link")
    done = home.run("export", "--agent", agent, "--out", folder / "out", "--json")
    assert json.loads(done.stdout)["left_out"] == 1 and b"link: it is a link" in done.stderr
    assert files_of(folder / "out") == {}


def test_a_target_is_needed(home, agent, folder):
    home.run("export", "--agent", agent, code=2)
    home.run("export", "--agent", agent, "--out", folder / "a", "--bundle", folder / "b", code=2)


# in

def test_a_folder_becomes_one_commit_on_top(home, agent, folder):
    c = home.checkout(agent)
    head = commit(c, {"mine.md": "mine\n"})
    fill(folder / "in", FILES)
    dry = imported(home, agent, folder / "in", "--dry-run")
    assert dry["dry_run"] and dry["changed"] and c.head == head and len(dry["files"]) == len(FILES)
    done = imported(home, agent, folder / "in")
    assert c.text("rev-parse", "HEAD~1") == head and done["head"] == c.head and done["by_rule"] == 0
    assert sorted(f["path"] for f in done["files"]) == sorted(FILES)
    assert files_of(c.path) == {**FILES, "mine.md": b"mine\n"}
    again = imported(home, agent, folder / "in")
    assert not again["changed"] and again["head"] == c.head and again["files"] == []
    home.check(agent)


def test_what_both_have_is_merged(home, agent, folder):
    c = home.checkout(agent)
    commit(c, {"notes.md": "one\nours\n", "same.md": "same\n"})
    fill(folder / "in", {"notes.md": b"one\ntheirs\n", "same.md": b"same\n"})
    done = imported(home, agent, folder / "in")
    assert done["by_rule"] >= 1 and [f["path"] for f in done["files"]] == ["notes.md"]
    assert set(c.read("notes.md").split()) == {b"one", b"ours", b"theirs"}
    assert b"<<<<" not in c.read("notes.md")


def test_replace_takes_the_imported_file(home, agent, folder):
    c = home.checkout(agent)
    commit(c, {"notes.md": "ours\n", "mine.md": "mine\n"})
    fill(folder / "in", {"notes.md": b"theirs\n"})
    imported(home, agent, folder / "in", "--replace")
    assert c.read("notes.md") == b"theirs\n" and c.read("mine.md") == b"mine\n"
    assert not imported(home, agent, folder / "in", "--replace")["changed"]


def test_a_checkout_of_somebody_is_imported_without_its_history(home, agent, folder):
    other = home.git.init(folder / "in")
    other.write("a.md", "a\n")
    imported(home, agent, folder / "in")
    assert files_of(home.memory(agent)) == {"a.md": b"a\n"}


def test_T11_what_no_memory_may_hold_is_named(home, agent, folder):
    """A link to a secret, a name that a terminal acts on, a file that is too large: nothing is imported."""
    c = home.checkout(agent)
    head = c.head
    fill(folder / "in", {"good.md": b"good\n", "big.bin": b"x" * ((10 << 20) + 1),
                         "sub/.git/config": b"evil\n"})
    os.symlink("/etc/passwd", folder / "in" / "link.md")
    done = home.run("import", "--agent", agent, "--from", folder / "in", "--json", code=6)
    for name in (b"big.bin", b"link.md", b"sub/.git"):
        assert name in done.stderr, done.stderr
    assert b"--skip-refused" in done.stderr and c.head == head and files_of(c.path) == {}
    done = imported(home, agent, folder / "in", "--skip-refused")
    assert len(done["refused"]) == 3 and files_of(c.path) == {"good.md": b"good\n"}


def test_F31_what_is_not_committed_stops_an_import(home, agent, folder):
    c = home.checkout(agent)
    commit(c, {"notes.md": "one\n"})
    c.write("notes.md", "edited\n")
    fill(folder / "in", {"notes.md": b"theirs\n", "x.md": b"x\n"})
    before = snapshot(c.path)
    done = home.run("import", "--agent", agent, "--from", folder / "in", code=5)
    assert b"notes.md" in done.stderr and b"nothing was imported" in done.stderr
    assert {k: v for k, v in snapshot(c.path).items() if not k.startswith(".git")} == \
        {k: v for k, v in before.items() if not k.startswith(".git")}


def test_a_bundle_of_another_machine_is_merged(home, agent, folder, memfs_bin):
    other = Home(memfs_bin, folder / "other")
    other.run("init", "--agent", agent)
    theirs = commit(other.checkout(agent), {"theirs.md": "t\n"})
    other.run("export", "--agent", agent, "--bundle", folder / "m.bundle")
    c = home.checkout(agent)
    ours = commit(c, {"ours.md": "o\n"})
    dry = imported(home, agent, folder / "m.bundle", "--dry-run")
    assert dry["commits"] == 1 and c.head == ours
    done = imported(home, agent, folder / "m.bundle")
    assert sorted(c.text("log", "-1", "--format=%P").split()) == sorted([ours, theirs])
    assert files_of(c.path) == {"ours.md": b"o\n", "theirs.md": b"t\n"} and done["commits"] == 1
    assert not imported(home, agent, folder / "m.bundle")["changed"]
    # and back: a fast-forward
    home.run("export", "--agent", agent, "--bundle", folder / "back.bundle")
    imported(other, agent, folder / "back.bundle")
    assert other.checkout(agent).head == c.head
    home.check(agent)


def test_a_bundle_with_what_the_policy_refuses(home, agent, folder):
    evil = home.git.init(folder / "evil")
    os.symlink("/etc/passwd", folder / "evil" / "link.md")
    evil.run("-c", "user.name=x", "-c", "user.email=x@x", "-c", "core.symlinks=true", "add", "-A")
    evil.run("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x")
    evil.run("bundle", "create", "-q", folder / "evil.bundle", "main")
    head = home.checkout(agent).head
    done = home.run("import", "--agent", agent, "--from", folder / "evil.bundle", code=6)
    assert b"link.md" in done.stderr and home.checkout(agent).head == head


def test_bundles_that_are_none(home, agent, folder):
    """Damaged, cut, of another kind, built on what is not here: a line each, and nothing changes."""
    c = home.checkout(agent)
    commit(c, {"a.md": "a\n"})
    commit(c, {"a.md": "b\n"})
    home.run("export", "--agent", agent, "--bundle", folder / "m.bundle")
    whole = (folder / "m.bundle").read_bytes()
    c.run("bundle", "create", "-q", folder / "thin.bundle", "HEAD~1..main")
    other = new_agent()
    home.run("init", "--agent", other)
    middle = len(whole) - 60
    for name, data, words in [
            ("text", b"hello\n", b"no git bundle"), ("empty", b"", b"no git bundle"),
            ("cut-head", whole[:40], b"ends in its head"), ("cut", whole[:-30], b"git does not take"),
            ("flipped", whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:],
             b"git does not take"),
            ("thin", (folder / "thin.bundle").read_bytes(), b"does not have")]:
        (folder / name).write_bytes(data)
        done = home.run("import", "--agent", other, "--from", folder / name, code=None)
        assert done.returncode != 0 and words in done.stderr, (name, done.stderr)
        assert home.checkout(other).head == GENESIS
    home.run("import", "--agent", other, "--from", folder / "none", code=1)
    home.run("import", "--agent", other, code=2)
