"""What an agent, or whoever else may write into a checkout, can put there against memfs: configuration that
names programs, authorities and addresses; and what a parent can take away from a process before it starts."""
import os
import signal
import subprocess
import sys
import uuid

import pytest

from lib.client import Home
from lib.fake_remote import FakeRemote
from lib.tlsgit import Authority
from test_remote import SHORT, Driver

BLOCK = "---\ndescription: a block\n---\ntext\n"


@pytest.fixture
def driver(memfs_bin, folder):
    return Driver(os.path.dirname(memfs_bin), folder)


@pytest.fixture
def agent():
    return f"agent-{uuid.uuid4()}"


@pytest.fixture
def home(memfs_bin, folder, agent):
    """A home whose one memory has a bare repository on a plain path as its remote."""
    bare = str(folder / "bare.git")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
    home = Home(memfs_bin, folder / "home", LETTABOT_MEMFS_BACKEND="local", LETTABOT_MEMFS_REMOTE=bare)
    home.bare = bare
    home.apply(agent)
    return home


def write(home, agent, name, text=BLOCK):
    path = os.path.join(home.memory(agent), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def commit(home, agent, name):
    write(home, agent, name)
    c = home.checkout(agent)
    c.run("add", "-A")
    c.run("commit", "-q", "-m", name)


def commit_elsewhere(home, folder, name="other"):
    work = str(folder / name)
    subprocess.run(["git", "clone", "-q", home.bare, work], check=True)
    with open(os.path.join(work, name + ".md"), "w") as f:
        f.write(BLOCK)
    who = ["-c", "user.name=o", "-c", "user.email=o@example.org"]
    for args in (["add", "-A"], [*who, "commit", "-q", "-m", name], ["push", "-q", "origin", "HEAD:main"]):
        subprocess.run(["git", "-C", work, *args], check=True)


# -- configuration of the checkout -----------------------------------------------------------------

def test_S6_no_program_that_the_checkout_names_is_run(home, agent, folder):
    """Each key that makes some git command start a program, while memfs fetches, merges, pushes and looks."""
    ran = folder / "ran"
    ran.mkdir()
    c = home.checkout(agent)
    alternate = str(folder / "alternate.git")
    subprocess.run(["git", "clone", "-q", "--bare", home.bare, alternate], check=True)
    with open(home.git_dir(agent) + "/objects/info/alternates", "w") as f:
        f.write(alternate + "/objects\n")       # or alternateRefsCommand is never asked
    commit(home, agent, "system/a.md")
    for key in ("core.alternateRefsCommand", "core.fsmonitor", "core.sshCommand", "core.gitProxy",
                "core.askPass", "core.editor", "core.pager", "diff.external", "diff.x.textconv",
                "diff.x.command", "filter.x.clean", "filter.x.smudge", "filter.x.process",
                "merge.x.driver", "merge.memfs.driver", "uploadpack.packObjectsHook",
                "remote.origin.uploadpack", "remote.origin.receivepack", "gpg.program"):
        c.run("config", key, f"touch {ran}/{key};")
    c.run("config", "credential.helper", f"!touch {ran}/helper;")
    with open(home.memory(agent) + "/.gitattributes", "w") as f:
        f.write("* filter=x diff=x merge=x\n")
    commit_elsewhere(home, folder)
    home.apply(agent)
    assert home.sync(agent)["state"] == "synced"
    assert os.path.exists(home.memory(agent) + "/other.md")     # fetched, merged, followed
    for args in (["status"], ["diff", "--agent", agent], ["log", "--agent", agent],
                 ["show", "--agent", agent], ["backup", "--agent", agent], ["doctor", "--agent", agent]):
        home.run(*args, code=None)
    assert os.listdir(ran) == []


def test_S6_F20_the_checkout_names_no_authority_and_no_address(driver, folder):
    """http.sslCAInfo or sslCAPath with http.curloptResolve would be a way to another host, and the token
    with it: the name is the right one, so the credential helper answers."""
    own, stranger = Authority(folder), Authority(folder / "x", "other CA")
    hashed = os.path.dirname(stranger.file)
    subprocess.run(["openssl", "rehash", hashed], check=True, capture_output=True)
    with FakeRemote(root=folder / "remote", tls=stranger.context(("localhost", "elsewhere.example",
                                                                  "127.0.0.1"))) as r:
        r.repository("a.git")
        url = r.url("a.git")
        elsewhere = url.replace("127.0.0.1", "elsewhere.example")
        for at in ("http.", f"http.{url}."):
            driver.git("-C", driver.work, "config", at + "sslCAInfo", stranger.file)
            driver.git("-C", driver.work, "config", at + "sslCAPath", hashed)
        for resolve in ("http.", f"http.{elsewhere}."):
            driver.git("-C", driver.work, "config", resolve + "curloptResolve",
                       f"elsewhere.example:{r.port}:127.0.0.1")
        assert driver.fetch(url)["answer"] == "tls"
        assert driver.fetch(url, DRIVER_CA=own.file)["answer"] == "tls"
        assert driver.push(url)["answer"] == "tls"
        assert driver.fetch(elsewhere, SHORT, DRIVER_CA=stranger.file)["answer"] == "no-name"
        assert driver.fetch(url, DRIVER_CA=stranger.file)["code"] == "ENOTFOUND"    # empty, and asked


# -- what a parent took away -----------------------------------------------------------------------

def started_by(program, *argv, env, folder):
    """argv as a child of a small program that puts itself into a state and execs."""
    return subprocess.run([sys.executable, "-c", program + "\nimport os, sys; os.execv(sys.argv[1], sys.argv[1:])",
                           *argv], env=env, cwd=folder, timeout=60)


def test_L4_sigchld_ignored_by_the_parent_hangs_nobody(home, agent):
    ignore = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    commit(home, agent, "system/a.md")
    done = started_by(ignore, home.memfs_bin, "exec", "--agent", agent, "--", "/bin/sh", "-c", "exit 7",
                      env=home.env, folder=home.folder)
    assert done.returncode == 7
    head = home.ref(agent, "HEAD")
    listed = subprocess.run(["git", "-C", home.bare, "rev-parse", "main"], capture_output=True, text=True)
    assert listed.stdout.strip() == head            # the children of git's were waited for, too


@pytest.mark.parametrize("closed", ["0", "1", "2", "0, 1", "1, 2", "0, 1, 2"])
def test_F31_nothing_is_printed_into_a_file_of_the_memory(home, agent, folder, closed):
    """A descriptor that the parent closed would be given to the first lock or index that is opened."""
    commit_elsewhere(home, folder)
    commit(home, agent, "system/a.md")
    done = started_by(f"import os\nfor n in ({closed},): os.close(n)", home.memfs_bin, "sync", "--agent", agent,
                      env=home.env, folder=home.folder)
    assert done.returncode == 0
    assert home.sync(agent)["state"] == "synced"
    home.check(agent)
    found = subprocess.run(["grep", "-rlaE", "synced with|pushed,", home.root(agent)], capture_output=True)
    assert found.stdout == b""


# -- oddities of a repository ----------------------------------------------------------------------

def put_pipe(home, agent, path):
    full = os.path.join(home.memory(agent), path)
    if os.path.lexists(full):
        os.unlink(full)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    os.mkfifo(full)


@pytest.mark.parametrize("path", [
    ".git/HEAD", ".git/config", ".git/index", ".git/packed-refs", ".git/refs/heads/main",
    ".git/refs/remotes/origin/main", ".git/info/exclude", ".git/info/attributes",
    ".git/objects/info/alternates", ".git/memfs/remote", ".git/memfs/updating",
    ".git/memfs/mirror-queue", ".git/memfs/merged.log"])
def test_L3_a_pipe_in_the_place_of_a_file_holds_up_nobody(home, agent, path):
    """Opened for reading, a pipe waits for a writer: one such memory would stop `sync --all` and the watch."""
    put_pipe(home, agent, path)
    for args in (["apply", "--agent", agent], ["sync", "--agent", agent], ["status"],
                 ["doctor", "--agent", agent]):
        home.run(*args, code=None, timeout=20)


def test_F31_a_link_that_an_agent_committed_is_no_change(home, agent, folder):
    """With core.symlinks=false, which memfs sets, git still takes a link on disk for what is committed."""
    os.symlink("a.md", home.memory(agent) + "/link")
    commit(home, agent, "a.md")
    assert home.checkout(agent).text("ls-files", "-s", "link").startswith("120000")
    commit_elsewhere(home, folder)
    assert home.sync(agent)["state"] == "synced"
    assert os.path.exists(home.memory(agent) + "/other.md")
    assert os.readlink(home.memory(agent) + "/link") == "a.md"
    home.check(agent)


def test_D6_a_branch_without_a_commit_gets_a_whole_genesis(memfs_bin, folder, agent):
    home = Home(memfs_bin, folder / "home", LETTABOT_MEMFS_BACKEND="none")
    os.makedirs(home.root(agent))
    home.git.run("init", "-q", "-b", "main", home.memory(agent))
    home.apply(agent)
    fsck = home.checkout(agent).run("fsck", "--full", "--strict", check=False)
    assert (fsck.returncode, fsck.stdout) == (0, b"")


def test_H5_a_shallow_clone_is_completed(memfs_bin, home, agent, folder):
    commit(home, agent, "a.md")
    commit(home, agent, "b.md")
    home.sync(agent)
    other = Home(memfs_bin, folder / "other-home", LETTABOT_MEMFS_BACKEND="local",
                 LETTABOT_MEMFS_REMOTE=home.bare)
    os.makedirs(other.root(agent))
    other.git.run("clone", "-q", "--depth", "1", "file://" + home.bare, other.memory(agent))
    for key in ("user.name", "user.email"):
        other.checkout(agent).run("config", key, "o@example.org")
    commit(other, agent, "c.md")
    commit_elsewhere(home, folder)
    assert other.apply(agent)["state"] == "synced"
    assert os.path.exists(other.memory(agent) + "/other.md")
    other.check(agent)


def test_L4_a_split_index_is_not_made_and_is_explained(home, agent, folder):
    with open(home.folder + "/.gitconfig", "w") as f:
        f.write("[core]\n\tsplitIndex = true\n")       # some set it for their large repositories
    commit(home, agent, "a.md")
    assert home.sync(agent)["state"] == "synced"
    home.checkout(agent).run("-c", "core.splitIndex=true", "update-index", "--split-index")
    shared = [name for name in os.listdir(home.git_dir(agent)) if name.startswith("sharedindex.")]
    assert shared
    commit_elsewhere(home, folder)
    said = home.run("sync", "--agent", agent, code=2)
    assert b"git update-index --no-split-index" in said.stdout + said.stderr
    home.checkout(agent).run("update-index", "--no-split-index")
    assert home.sync(agent)["state"] == "synced"


def test_F01_an_empty_git_folder_is_a_repository_to_be(memfs_bin, folder, agent):
    """What a client leaves that was killed between its first two calls."""
    home = Home(memfs_bin, folder / "home", LETTABOT_MEMFS_BACKEND="none")
    os.makedirs(home.git_dir(agent))
    write(home, agent, "system/a.md")
    os.utime(home.git_dir(agent), (1, 1))
    home.apply(agent)
    assert home.checkout(agent).text("log", "--format=%s", "-1") == "memfs: adopt the files that were here"


def test_F18_a_shallow_remote_is_told_and_fails_no_start(memfs_bin, home, agent, folder):
    commit(home, agent, "a.md")
    commit(home, agent, "b.md")
    home.sync(agent)
    shallow = str(folder / "shallow.git")
    subprocess.run(["git", "clone", "-q", "--bare", "--depth", "1", "file://" + home.bare, shallow], check=True)
    other = Home(memfs_bin, folder / "other-home", LETTABOT_MEMFS_BACKEND="local", LETTABOT_MEMFS_REMOTE=shallow)
    for _ in range(2):
        report = other.apply(agent, "--wait", "20")
        assert report["state"] == "local-only" and "shallow" in report["line"], report
        other.run("sync", "--agent", agent, code=3)
    other.check(agent)


def test_F10_what_a_killed_fetch_left_is_fetched_again(home, agent, folder):
    """git unpacks a small pack object by object, the commit first, and no ref names it yet."""
    commit_elsewhere(home, folder)
    tip = subprocess.run(["git", "-C", home.bare, "rev-parse", "main"], capture_output=True, text=True,
                         check=True).stdout.strip()
    raw = subprocess.run(["git", "-C", home.bare, "cat-file", "commit", tip], capture_output=True, check=True)
    subprocess.run(["git", "-C", home.memory(agent), "hash-object", "-w", "-t", "commit", "--stdin"],
                   input=raw.stdout, capture_output=True, check=True)
    assert home.sync(agent)["state"] == "synced"
    assert os.path.exists(home.memory(agent) + "/other.md")
    home.check(agent)


# -- files of others -------------------------------------------------------------------------------

@pytest.mark.parametrize("way", ["--bundle", "--tar"])
def test_F31_an_export_writes_over_nothing(home, agent, folder, way):
    commit(home, agent, "a.md")
    link = folder / "link"
    link.symlink_to(folder / "precious")
    (folder / "precious").write_text("precious")
    for at in (folder / "precious", link, home.git_dir(agent) + "/config"):
        with open(at, "rb") as f:
            before = f.read()
        assert b"there already" in home.run("export", "--agent", agent, way, at, code=None).stderr.replace(
            b"File exists", b"there already")
        with open(at, "rb") as f:
            assert f.read() == before
    assert link.is_symlink()


def test_S3_the_inside_of_a_repository_is_not_imported(home, agent):
    """The client writes the Letta key into .git/config; imported, it would be committed and pushed."""
    before = home.ref(agent, "main")
    for at in (home.git_dir(agent), home.bare):
        said = home.run("import", "--agent", agent, "--from", at, code=6)
        assert b"the inside of a git repository" in said.stderr
    assert home.ref(agent, "main") == before


def test_L4_a_worktree_is_added_beside_a_gc_that_tidies(home, agent):
    """git gc removes .git/worktrees whenever it is empty, also between two calls of ours."""
    tidy = subprocess.Popen(["sh", "-c", "while :; do rmdir worktrees 2>/dev/null; done"], cwd=home.git_dir(agent))
    try:
        for i in range(20):
            home.run("worktree", "add", "--agent", agent, f"w{i}")
            home.run("worktree", "remove", "--agent", agent, f"w{i}")
    finally:
        tidy.kill()
        tidy.wait()
    home.check(agent)
