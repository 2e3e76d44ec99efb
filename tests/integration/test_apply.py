"""apply: an agent always starts with its memory, whatever its remote does, and nothing that is there
is overwritten (design 5, contract client 12.1)."""
import base64
import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

from lib.client import GENESIS, Home, snapshot, working_tree
from lib.fake_remote import Answer, BlackHole, FakeRemote, closed_port
from lib.gitcli import GIT
from lib.server import new_agent
from lib.tlsgit import Authority, TlsGit

KEY = "letta-key-canary-5d1c"
BASIC = base64.b64encode(b"letta:" + KEY.encode()).decode()

# what the server says -> name of the answer, exit of sync
TABLE = {
    "501": ("not-implemented", 3), "404": ("not-found", 3), "410": ("not-found", 3),
    "405": ("not-allowed", 3), "html": ("not-git", 3), "captive": ("not-git", 3),
    "redirect": ("not-git", 3), "dumb": ("not-git", 3), "empty-body": ("not-git", 3),
    "garbage": (None, None), "401": ("unauthorized", 4), "401-bare": ("unauthorized", 4),
    "403": ("forbidden", 4), "429": ("too-many-requests", 3), "500": ("failing", 3), "502": ("failing", 3),
    "503": ("failing", 3), "504": ("failing", 3), "511": (None, None), "close": ("cut", 3),
    "reset": ("cut", 3), "hang": ("timeout", 3), "drip": ("timeout", 3), "huge": (None, None),
    "endless-head": (None, None),
}


@pytest.fixture
def remote(folder):
    with FakeRemote(folder / "remotes") as r:
        yield r


def letta_home(memfs_bin, folder, remote, **env):
    """A home whose Letta endpoint is the fake remote."""
    return Home(memfs_bin, folder / "home", LETTA_MEMFS_BASE_URL=remote.url("").rstrip("/"),
                LETTA_API_KEY=KEY, **env)


def git_home(memfs_bin, folder, url, **env):
    """A home with a git host of its own."""
    return Home(memfs_bin, folder / "home", LETTABOT_MEMFS_BACKEND="local",
                LETTABOT_MEMFS_REMOTE=str(url), **env)


def state_git(remote, agent):
    return f"v1/git/{agent}/state.git"


def commit(home, agent, path="system/human.md", text="likes tea\n", message="learn"):
    c = home.checkout(agent)
    c.write(path, f"---\ndescription: d\n---\n{text}" if path.endswith(".md") else text)
    return c.commit(message)


def remote_tip(remote, name):
    done = subprocess.run([GIT, "--git-dir", remote.repository(name), "rev-parse", "-q", "--verify",
                           "main"], capture_output=True)
    return done.stdout.decode().strip() or None


def elsewhere(home, folder, remote, name, files=None, base=True, message="from elsewhere"):
    """Commits that another machine pushed; base: it began with what the remote has, or the genesis."""
    path = os.path.join(str(folder), "elsewhere-" + os.urandom(3).hex())
    git = home.git
    env = {"GIT_AUTHOR_NAME": "E", "GIT_AUTHOR_EMAIL": "e@e", "GIT_COMMITTER_NAME": "E",
           "GIT_COMMITTER_EMAIL": "e@e"}
    git.env.update(env)
    c = git.init(path)
    if base and remote_tip(remote, name):
        c.run("pull", "-q", remote.repository(name), "main")
    elif base:
        make_genesis(c)
    for file, text in (files or {}).items():
        if text is None:
            c.run("rm", "-q", file)
        else:
            c.write(file, text)
    tip = c.commit(message)
    c.run("push", "-q", "-f", remote.repository(name), "main:main")
    for key in env:
        del git.env[key]
    return tip


def make_genesis(c):
    tree = c.text("hash-object", "-t", "tree", "-w", "--stdin", input=b"")
    done = c.run("commit-tree", tree, input=b"memfs: genesis\n", env={
        "GIT_AUTHOR_NAME": "memfs", "GIT_AUTHOR_EMAIL": "memfs@localhost", "GIT_AUTHOR_DATE": "@0 +0000",
        "GIT_COMMITTER_NAME": "memfs", "GIT_COMMITTER_EMAIL": "memfs@localhost",
        "GIT_COMMITTER_DATE": "@0 +0000"})
    assert done.stdout.decode().strip() == GENESIS
    c.run("update-ref", "refs/heads/main", GENESIS)


# -- a fresh home ------------------------------------------------------------------------------------

def test_fresh_home_under_501_is_what_an_unmodified_client_needs(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("501"))
    r = home.apply(id)
    assert r["was_created"] and r["state"] == "local-only" and r["answer"] == "not-implemented"
    c = home.check(id, origin=remote.url(state_git(remote, id)))
    assert c.head == GENESIS and home.ref(id, "refs/remotes/origin/main") == GENESIS
    assert os.path.isdir(os.path.join(home.memory(id), "system"))
    assert home.config(id, "user.email") == [f"{id}@letta.com"]
    assert home.config(id, "commit.gpgsign") == ["false"]
    with open(os.path.join(home.git_dir(id), "info", "attributes")) as f:
        assert "* merge=memfs\n" in f.readlines()
    assert home.config(id, "http.https://api.letta.com/.extraheader") == [""]
    hooks = home.config(id, "core.hooksPath")[0]
    for name in ("pre-commit", "post-commit", "reference-transaction", "pre-push", "commit-msg"):
        assert os.access(os.path.join(hooks, name), os.X_OK), name
    head = commit(home, id)     # the hooks let an ordinary commit pass, with the agent's identity
    assert c.text("log", "-1", "--format=%ae") == f"{id}@letta.com" and c.head == head
    line = home.run("apply", "--agent", id).stdout.decode()
    assert "501" in line or "not implemented" in line


def test_a_subagent_in_a_worktree_commits_while_the_endpoint_says_501(memfs_bin, folder, remote,
                                                                       agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("501"))
    home.apply(id)
    c = home.checkout(id)
    commit(home, id)
    path = os.path.join(home.root(id), "memory-worktrees", "reflection-1")
    c.run("worktree", "add", "-q", path, "-b", "letta/reflection/1", "HEAD")
    w = type(c)(c.git, path)
    w.write("system/more.md", "---\ndescription: d\n---\nmore\n")
    w.commit("reflect")
    c.run("merge", "-q", "letta/reflection/1", "-m", "merge(reflection): more")
    c.run("worktree", "remove", path)
    c.run("branch", "-d", "letta/reflection/1")
    remote.mend()
    remote.repository(state_git(remote, id))
    assert home.sync(id)["was_pushed"] and remote_tip(remote, state_git(remote, id)) == c.head


def test_twice_is_once_and_writes_nothing(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("501"))
    home.apply(id)
    commit(home, id)
    home.apply(id)
    before = snapshot(home.folder, with_times=True)
    home.apply(id)
    assert snapshot(home.folder, with_times=True) == before


def test_init_asks_nobody(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    r = json.loads(home.run("init", "--agent", id, "--json").stdout)
    assert r["was_created"] and remote.requests == []
    home.check(id, origin=remote.url(state_git(remote, id)))


def test_no_agent_and_wrong_ids_are_explained(memfs_bin, folder):
    home = Home(memfs_bin, folder / "home")
    assert b"--agent" in home.run("apply", code=2).stderr
    for bad in ("../x", "agent-1", "", "-v", "agent-" + "a" * 400):
        assert home.run("apply", "--agent", bad, code=None).returncode == 2
    assert not os.path.exists(os.path.join(home.folder, ".letta"))


def test_memory_that_is_switched_off_is_left_alone(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote, LETTABOT_MEMFS="false")
    assert home.apply(id)["state"] == "off" and remote.requests == []
    assert not os.path.exists(home.memory(id))


# -- the failure table -------------------------------------------------------------------------------

def check_survived(home, remote, id, name):
    """After any failure: git works, a commit is kept, and it is delivered once the remote is well."""
    head = commit(home, id)
    home.check(id)
    remote.mend()
    remote.repository(name)
    r = home.sync(id)
    assert r["state"] == "synced" and r["was_pushed"], r
    assert remote_tip(remote, name) == head == home.checkout(id).head
    home.check(id)


@pytest.mark.parametrize("row", sorted(TABLE))
def test_F15_F16_F18_F19_each_answer_leaves_a_usable_memory(memfs_bin, folder, remote, agent, row):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say(row))
    name, code = TABLE[row]
    wait_s = "1" if name in (None, "timeout") else "15"     # who answers is waited for
    r = home.apply(id, "--wait", wait_s, timeout=60)
    assert r["was_created"] and r["state"] == "local-only", r
    assert name is None or r["answer"] == name, r
    home.check(id)
    if code is not None:
        assert home.sync(id, "--wait", wait_s, code=code, timeout=60)["answer"] == r["answer"]
    check_survived(home, remote, id, state_git(remote, id))


def test_F19_nobody_listens(memfs_bin, folder, remote, agent):
    id = agent()
    home = Home(memfs_bin, folder / "home", LETTA_MEMFS_BASE_URL=f"http://127.0.0.1:{closed_port()}",
                LETTA_API_KEY=KEY)
    assert home.apply(id)["answer"] == "refused"
    home.sync(id, code=3)
    home.env["LETTA_MEMFS_BASE_URL"] = remote.url("").rstrip("/")
    home.git.env.update(home.env)
    home.apply(id)
    check_survived(home, remote, id, state_git(remote, id))


def test_F19_a_port_that_never_speaks_costs_the_budget_and_no_more(memfs_bin, folder, agent):
    id = agent()
    with BlackHole() as hole:
        home = Home(memfs_bin, folder / "home", LETTA_API_KEY=KEY,
                    LETTA_MEMFS_BASE_URL=f"http://127.0.0.1:{hole.port}")
        assert home.apply(id, "--wait", "3", timeout=60)["answer"] == "timeout"
    home.check(id)


def test_F19_a_name_that_does_not_exist(memfs_bin, folder, agent):
    id = agent()
    home = git_home(memfs_bin, folder, "https://no-such-host.invalid/a.git")
    assert home.apply(id)["answer"] in ("no-name", "timeout")
    home.check(id)


@pytest.mark.parametrize("fault", ["unknown-ca", "expired", "wrong-name"])
def test_F20_tls_is_refused_with_its_reason(memfs_bin, folder, agent, fault):
    ca = Authority(folder / "ours")
    context = {"unknown-ca": lambda: Authority(folder / "theirs").context(),
               "expired": lambda: ca.context(expired=True),
               "wrong-name": lambda: ca.context(names=["other.example"])}[fault]()
    id = agent()
    with FakeRemote(folder / "remotes", tls=context) as r:
        r.repository("a.git")
        home = git_home(memfs_bin, folder, r.url("a.git"), MEMFS_CA_FILE=ca.file)
        report = home.apply(id, "--wait", "10")
        assert report["answer"] == "tls" and report["detail"], report
        assert [q for q in r.requests] == []
    home.check(id)


def test_a_path_that_is_not_there(memfs_bin, folder, agent):
    id, home = agent(), git_home(memfs_bin, folder, folder / "nowhere.git")
    assert home.apply(id)["answer"] == "not-found"
    home.check(id)


def test_an_answer_is_remembered_until_it_expires_or_the_key_changes(memfs_bin, folder, remote,
                                                                     agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("401"))
    assert home.apply(id)["answer"] == "unauthorized"
    n = len(remote.requests)
    assert home.apply(id)["answer"] == "unauthorized" and len(remote.requests) == n
    home.sync(id, code=4)
    assert len(remote.requests) == n + 1                       # sync asks anew
    home.apply(id, env={"LETTA_API_KEY": "another"})
    assert len(remote.requests) == n + 2                       # so does a new key
    note = os.path.join(home.git_dir(id), "memfs", "remote")
    with open(note) as f:
        lines = f.read().splitlines()
    for lie in ("until 1", "asked 99999999999"):               # expired; from the future (F25)
        key = lie.split()[0] + " "
        with open(note, "w") as f:
            f.write("".join((lie if x.startswith(key) else x) + "\n" for x in lines))
        n = len(remote.requests)
        home.apply(id)
        assert len(remote.requests) == n + 1, lie
    assert KEY not in "\n".join(lines) and BASIC not in "\n".join(lines)


def test_up_to_date_costs_one_request_and_no_child(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    remote.repository(state_git(remote, id))
    home.apply(id, "--wait", "10")
    commit(home, id)
    home.sync(id)
    n = len(remote.requests)
    r = home.sync(id)
    assert r["state"] == "synced" and not r["was_pushed"] and len(remote.requests) == n + 1


# -- what the remote has ------------------------------------------------------------------------------

def test_empty_remote_gets_the_memory(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    remote.repository(state_git(remote, id))
    r = home.apply(id, "--wait", "10")
    assert r["was_pushed"] and r["state"] == "synced"
    assert remote_tip(remote, state_git(remote, id)) == GENESIS
    home.check(id)


def test_clone_fast_forward_and_push(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    first = elsewhere(home, folder, remote, name, {"system/a.md": "one\n"})
    r = home.apply(id, "--wait", "10")
    c = home.check(id)
    assert r["was_created"] and r["was_updated"] and c.head == first and c.read("system/a.md") == b"one\n"
    second = elsewhere(home, folder, remote, name, {"system/a.md": "two\n", "notes/b.txt": "b\n"})
    assert home.apply(id, "--wait", "10")["was_updated"] or home.sync(id)["was_updated"]
    assert c.head == second == home.ref(id, "origin/main")
    third = commit(home, id)
    assert home.sync(id)["was_pushed"] and remote_tip(remote, name) == third


@pytest.mark.parametrize("is_unrelated", [False, True], ids=["diverged", "unrelated"])
def test_H5_both_sides_are_kept(memfs_bin, folder, remote, agent, is_unrelated):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    home.apply(id)
    ours = commit(home, id, "system/ours.md", "ours\n")
    theirs = elsewhere(home, folder, remote, name, {"system/theirs.md": "theirs\n"},
                       base=not is_unrelated)
    r = home.sync(id)
    c = home.check(id)
    assert r["was_merged"] and r["was_pushed"] and r["state"] == "synced", r
    assert c.read("system/theirs.md") == b"theirs\n" and b"ours" in c.read("system/ours.md")
    for tip in (ours, theirs):
        c.run("merge-base", "--is-ancestor", tip, "HEAD")
    assert remote_tip(remote, name) == c.head == home.ref(id, "origin/main")


def test_remote_that_lost_commits_gets_them_again(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    remote.repository(name)
    home.apply(id)
    commit(home, id, text="1\n")
    head = commit(home, id, text="2\n")
    home.sync(id)
    subprocess.run([GIT, "--git-dir", remote.repository(name), "update-ref", "refs/heads/main", GENESIS],
                   check=True)
    assert home.sync(id)["was_pushed"] and remote_tip(remote, name) == head
    subprocess.run([GIT, "--git-dir", remote.repository(name), "update-ref", "-d", "refs/heads/main"],
                   check=True)
    assert home.sync(id)["was_pushed"] and remote_tip(remote, name) == head


def test_clone_command_keeps_the_address_and_no_secret(memfs_bin, folder, agent):
    id = agent()
    with FakeRemote(folder / "remotes", token="tok-canary-77") as r:
        home = Home(memfs_bin, folder / "home")
        first = elsewhere(home, folder, r, "a.git", {"system/a.md": "one\n"})
        url = r.url("a.git").replace("http://", "http://someone:tok-canary-77@")
        done = home.run("clone", url, "--agent", id, "--json")
        assert json.loads(done.stdout)["state"] == "synced"
        assert home.check(id, origin=r.url("a.git")).head == first
        assert home.config(id, "memfs.remote") == [r.url("a.git")]
        commit(home, id)
        assert home.sync(id)["was_pushed"]
        assert b"tok-canary" not in done.stdout + done.stderr
        with open(os.path.join(home.git_dir(id), "config")) as f:
            assert "tok-canary" not in f.read()
        secrets = os.path.join(home.folder, ".memfs", "secrets")
        for name in os.listdir(secrets):
            assert os.stat(os.path.join(secrets, name)).st_mode & 0o077 == 0


@pytest.mark.parametrize("state", ["unknown", "genesis", "ahead", "diverged", "unrelated"])
def test_memfs_serve_as_the_remote(memfs_bin, folder, servers, git, agent, state):
    server, id = servers(), agent()
    home = Home(memfs_bin, folder / "home", LETTA_MEMFS_BASE_URL=server.url, LETTA_API_KEY=KEY)
    url = f"{server.url}/v1/git/{id}/state.git"
    if state in ("diverged", "unrelated"):
        home.run("init", "--agent", id)
        commit(home, id, "system/ours.md", "ours\n")
    if state != "unknown":
        other = git.clone(url, str(folder / "other"))
        files = {} if state == "genesis" else {"system/theirs.md": "---\ndescription: d\n---\ntheirs\n"}
        other.save(files)
    if state == "unrelated":    # a memory with a root of its own, as the local backend makes them
        c = home.checkout(id)
        c.run("checkout", "-q", "--orphan", "fresh")
        c.run("commit", "-q", "-m", "chore: initialize local memory")
        c.run("branch", "-M", "fresh", "main")
    r = home.apply(id, "--wait", "20")
    assert r["state"] == "synced", r
    c = home.check(id, origin=url)
    if state not in ("unknown", "genesis"):
        assert os.path.exists(os.path.join(c.path, "system/theirs.md"))
    commit(home, id, "system/after.md", "after\n")
    assert home.sync(id)["state"] == "synced"
    assert server.tip(id) == c.head and server.value(id, "system/after") == "after\n"


# -- a remote that dies in the middle -----------------------------------------------------------------

BYTES = [("head", 0), ("head", 9), ("head", 60), ("refs", 0), ("refs", 20), ("refs", 60), ("ls", 3),
         ("ls", 40), ("pack", 0), ("pack", 30), ("pack", 300), ("push", 0), ("push", 12)]


@pytest.mark.parametrize("how", ["cut", "reset", "hang"])
@pytest.mark.parametrize("kind, at", BYTES)
def test_F10_F11_F19_it_dies_in_clone_and_fetch_and_push(memfs_bin, folder, remote, agent, kind, at,
                                                        how):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    first = elsewhere(home, folder, remote, name, {f"system/{i}.md": os.urandom(300).hex()
                                                   for i in range(4)})
    remote.break_at(kind, at, how)
    home.apply(id, "--wait", "1", timeout=60)                           # clone
    home.check(id)
    remote.mend()
    home.sync(id)
    assert home.checkout(id).head == first
    ours = commit(home, id, "system/ours.md")
    theirs = elsewhere(home, folder, remote, name, {"system/theirs.md": os.urandom(300).hex()})
    remote.break_at(kind, at, how)
    home.sync(id, "--wait", "1", code=None, timeout=60)                 # fetch and push
    home.check(id)
    remote.mend()
    assert home.sync(id)["state"] == "synced"
    c = home.check(id)
    for tip in (first, ours, theirs):
        c.run("merge-base", "--is-ancestor", tip, "HEAD")
    assert remote_tip(remote, name) == c.head


# -- concurrency and kills -----------------------------------------------------------------------------

@pytest.mark.parametrize("what", ["fresh", "clone", "adopt"])
def test_L6_32_at_once_end_in_one_good_repository(memfs_bin, folder, remote, agent, what):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name, first = state_git(remote, id), None
    if what == "clone":
        first = elsewhere(home, folder, remote, name, {"system/a.md": "one\n"})
    else:
        remote.say("501")
    if what == "adopt":
        os.makedirs(os.path.join(home.memory(id), "system"))
        with open(os.path.join(home.memory(id), "system", "a.md"), "w") as f:
            f.write("here before\n")
    running = [home.popen("apply", "--agent", id, "--json", "--wait", "20", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) for _ in range(32)]
    reports = []
    for p in running:
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0, out + err
        reports.append(json.loads(out))
    assert sum(r["was_created"] for r in reports) == 1
    c = home.check(id)
    if what == "clone":
        assert c.head == first
    elif what == "adopt":
        assert c.text("rev-list", "--count", "HEAD") == "2" and c.read("system/a.md") == b"here before\n"
    else:
        assert c.head == GENESIS
    assert not [n for n in os.listdir(home.root(id)) if n not in ("memory", "memory.memfs.lock")]


CALLS = ["openat", "rename,renameat,renameat2", "unlink,unlinkat,rmdir", "mkdir,mkdirat",
         "write,pwrite64", "fsync,fdatasync", "link,linkat,symlink,symlinkat", "ftruncate,fchmod,chmod",
         "flock,fcntl"]


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("what", ["fresh", "adopt", "clone"])
def test_F01_killed_at_every_call_the_next_apply_finishes(memfs_bin, folder, remote, agent, scale,
                                                         calls, what):
    """SIGKILL as the N-th such call begins, N = 1, 2, … until an apply goes through untouched."""
    step = {"openat": scale(14, 1)}.get(calls, scale(4, 1))
    kills, n = 0, 1
    while n < 2000:
        id, home = agent(), letta_home(memfs_bin, folder, remote)
        if what == "clone":
            tip = elsewhere(home, folder, remote, state_git(remote, id), {"system/a.md": "one\n"})
        else:
            remote.say("501")
        before = {}
        if what == "adopt":
            os.makedirs(os.path.join(home.memory(id), "system"))
            with open(os.path.join(home.memory(id), "system", "a.md"), "w") as f:
                f.write("here before\n")
            before = working_tree(home.memory(id))
        done = subprocess.run(
            ["strace", "-f", "-o", "/dev/null", "-e", "trace=" + calls, "-e",
             f"inject={calls}:signal=KILL:when={n}", home.memfs_bin, "apply", "--agent", id, "--json",
             "--wait", "20"],
            env={**home.env, "ASAN_OPTIONS": home.env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"},
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120, cwd=home.folder)
        if os.path.isdir(home.memory(id)):
            now = working_tree(home.memory(id))
            assert {k: now.get(k) for k in before} == before
        home.apply(id, "--wait", "20")
        c = home.check(id)
        if what == "adopt":
            assert c.text("ls-files") == "system/a.md" and c.text("rev-list", "--count", "HEAD") == "2"
        elif what == "clone":
            assert c.head == tip or home.sync(id)["state"] == "synced" and c.head == tip
        else:
            assert c.head == GENESIS
        assert not [x for x in os.listdir(home.root(id)) if ".memfs-" in x]
        if done.returncode == 0:
            break
        kills, n = kills + 1, n + step
        remote.mend()
    assert kills > 0 and n < 2000


# -- adoption -------------------------------------------------------------------------------------------

def test_a_folder_without_git_is_adopted_and_nothing_overwritten(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    elsewhere(home, folder, remote, state_git(remote, id), {"system/a.md": "theirs\n",
                                                            "system/new.md": "new\n"})
    memory = home.memory(id)
    os.makedirs(os.path.join(memory, "system", "deep"))
    for path, data in {"system/a.md": b"ours\n", "system/deep/b.md": b"b\n", "blob.bin": bytes(range(256)),
                       ".hidden": b"h\n"}.items():
        with open(os.path.join(memory, path), "wb") as f:
            f.write(data)
    os.symlink("/etc/passwd", os.path.join(memory, "link"))
    os.mkfifo(os.path.join(memory, "pipe"))
    before = working_tree(memory)
    r = home.apply(id, "--wait", "20")
    assert r["was_created"] and r["was_adopted"], r
    assert any("link" in n for n in r["notes"]), r["notes"]
    c = home.checkout(id)
    after = working_tree(memory)
    merged = {"system/a.md"}
    assert {k: v for k, v in after.items() if k in before and k not in merged} == \
        {k: v for k, v in before.items() if k not in merged}
    assert sorted(c.read("system/a.md").splitlines()) == [b"ours", b"theirs"]
    assert c.read("system/new.md") == b"new\n"
    assert c.text("ls-files").split("\n") == [".hidden", "blob.bin", "system/a.md", "system/deep/b.md",
                                              "system/new.md"]
    assert "?? link" in c.text("status", "--porcelain")
    assert c.text("log", "--format=%s").count("memfs: adopt the files that were here") == 1


def test_a_git_file_or_a_plain_file_in_the_place_is_refused(memfs_bin, folder, agent):
    id, home = agent(), Home(memfs_bin, folder / "home")
    os.makedirs(home.memory(id))
    with open(home.git_dir(id), "w") as f:
        f.write("gitdir: /elsewhere\n")
    before = snapshot(home.memory(id))
    assert b".git" in home.run("apply", "--agent", id, code=2).stdout
    assert snapshot(home.memory(id)) == before
    other = agent()
    os.makedirs(home.root(other))
    with open(home.memory(other), "w") as f:
        f.write("a file\n")
    home.run("apply", "--agent", other, code=2)


# -- F31: uncommitted work -------------------------------------------------------------------------------

def dirty(c):
    c.write("system/human.md", "---\ndescription: d\n---\nnot committed\n")


def staged(c):
    dirty(c)
    c.run("add", "-A")


def staged_and_changed(c):
    staged(c)
    c.write("system/human.md", "---\ndescription: d\n---\nnot staged\n")


def deleted(c):
    os.unlink(os.path.join(c.path, "system/human.md"))


def merging(c):
    c.run("checkout", "-q", "-b", "side")
    c.write("f.bin", b"\0one")
    c.commit("one")
    c.run("checkout", "-q", "main")
    c.write("f.bin", b"\0two")
    c.commit("two")
    assert c.run("-c", "merge.memfs.driver=false", "merge", "-q", "side", check=False).returncode != 0


def rebasing(c):
    c.run("checkout", "-q", "-b", "side")
    c.write("f.bin", b"\0one")
    c.commit("one")
    c.run("checkout", "-q", "main")
    c.write("f.bin", b"\0two")
    c.commit("two")
    assert c.run("-c", "merge.memfs.driver=false", "rebase", "side", check=False).returncode != 0


def detached(c):
    c.run("checkout", "-q", "--detach")


def branch(c):
    c.run("checkout", "-q", "-b", "mine")


def picking(c):
    rebasing(c)
    c.run("rebase", "--abort")
    assert c.run("-c", "merge.memfs.driver=false", "cherry-pick", "side", check=False).returncode != 0


def in_the_way(c):
    c.write("system/theirs.md", "mine, and not committed\n")


def locked(c):
    open(os.path.join(c.path, ".git", "index.lock"), "w").close()


@pytest.mark.parametrize("make", [dirty, staged, staged_and_changed, deleted, merging, rebasing,
                                  picking, detached, branch, in_the_way, locked],
                         ids=lambda f: f.__name__)
def test_F31_uncommitted_work_is_never_touched(memfs_bin, folder, remote, agent, make):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    remote.repository(name)
    home.apply(id)
    commit(home, id)
    home.sync(id)
    c = home.checkout(id)
    make(c)
    theirs = elsewhere(home, folder, remote, name, {"system/theirs.md": "theirs\n"})
    tree, status = working_tree(home.memory(id)), c.text("status", "--porcelain=v2", "--branch")
    head, main = c.head, home.ref(id, "main")
    r = home.apply(id, "--wait", "20")
    r = home.sync(id)
    assert r["state"] == "held-back" and r["held_back"], r
    assert working_tree(home.memory(id)) == tree
    assert c.head == head and home.ref(id, "main") == main
    assert [x for x in c.text("status", "--porcelain=v2", "--branch").split("\n") if x[0] != "#"] == \
        [x for x in status.split("\n") if x[0] != "#"]
    tip = remote_tip(remote, name)          # all the same the commits travelled
    c.run("merge-base", "--is-ancestor", theirs, tip)
    c.run("merge-base", "--is-ancestor", main, tip)
    # the work is done: the checkout follows
    if make is locked:
        os.unlink(os.path.join(c.path, ".git", "index.lock"))
    elif make is in_the_way:
        os.unlink(os.path.join(c.path, "system/theirs.md"))
    elif make in (merging, rebasing, picking):
        {merging: lambda: c.run("merge", "--abort"), rebasing: lambda: c.run("rebase", "--abort"),
         picking: lambda: c.run("cherry-pick", "--abort")}[make]()
    elif make in (detached, branch):
        c.run("checkout", "-q", "main")
    else:
        c.run("reset", "-q", "--hard")
    r = home.sync(id)
    assert r["state"] == "synced" and r["was_updated"], r
    assert home.check(id).read("system/theirs.md") == b"theirs\n"
    assert c.head == remote_tip(remote, name) and home.ref(id, "refs/memfs/synced") is None


def test_F31_work_that_is_committed_while_held_back_is_merged(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    remote.repository(name)
    home.apply(id)
    commit(home, id)
    home.sync(id)
    c = home.checkout(id)
    dirty(c)
    elsewhere(home, folder, remote, name, {"system/theirs.md": "theirs\n"})
    assert home.sync(id)["state"] == "held-back"
    ours = c.commit("now it is")
    assert home.sync(id)["state"] == "synced"
    c.run("merge-base", "--is-ancestor", ours, "HEAD")
    assert home.check(id).read("system/theirs.md") == b"theirs\n"
    assert b"not committed" in c.read("system/human.md")


def test_F31_branch_without_a_commit_gets_the_genesis(memfs_bin, folder, remote, agent):
    """What a client's clone of an empty remote leaves: nothing it ever commits would be pushed."""
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    url = remote.url(name)
    os.makedirs(home.root(id))
    remote.repository(name)
    home.git.run("clone", "-q", url, home.memory(id))
    c = home.checkout(id)
    c.write("system/staged.md", "staged\n")
    c.run("add", "-A")
    home.apply(id, "--wait", "20")
    assert c.head == GENESIS and c.text("status", "--porcelain") == "A  system/staged.md"
    c.run("commit", "-q", "--no-verify", "-m", "first")
    assert home.sync(id)["was_pushed"] and remote_tip(remote, name) == c.head


def test_F31_an_update_that_another_command_was_killed_in_is_finished(memfs_bin, folder, agent):
    """A memory without a remote has nothing to ask, but the agent must not start with half an undo."""
    id, home = agent(), Home(memfs_bin, folder / "home")
    home.run("init", "--agent", id)
    commit(home, id)
    journal, was_left = os.path.join(home.git_dir(id), "memfs", "updating"), 0
    for call in range(1, 9):
        subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2",
                        "-e", f"inject=rename,renameat,renameat2:signal=SIGKILL:when={call}",
                        home.memfs_bin, "undo", "HEAD", "--agent", id],
                       env=home.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        was_left += os.path.exists(journal)
        home.run("apply", "--agent", id)
        assert not os.path.exists(journal), call
        assert home.checkout(id).text("status", "--porcelain") == "", call
        home.check(id)
    assert was_left > 0


def test_F31_deleted_working_directory(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("501"))
    gone = folder / "gone"
    gone.mkdir()
    done = subprocess.run(["/bin/sh", "-c", 'rmdir "$PWD" && exec "$0" apply --agent "$1" --json',
                           home.memfs_bin, id], cwd=str(gone), env=home.env, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    home.check(id)


# -- what others decided ----------------------------------------------------------------------------------

def test_the_users_own_settings_stay_and_are_told(memfs_bin, folder, remote, agent):
    id, home = agent(), letta_home(memfs_bin, folder, remote.say("501"), LETTABOT_MEMFS_BACKEND="cloud")
    home.run("init", "--agent", id)
    c = home.checkout(id)
    for key, value in {"core.hooksPath": "/my/hooks", "user.name": "Me", "commit.gpgsign": "true",
                       "remote.origin.url": "https://git.example.org/mine.git"}.items():
        c.run("config", key, value)
    os.makedirs(folder / "my-hooks")
    c.run("config", "core.hooksPath", str(folder / "my-hooks"))
    r = home.apply(id)
    assert home.config(id, "core.hooksPath") == [str(folder / "my-hooks")]
    assert home.config(id, "user.name") == ["Me"] and home.config(id, "commit.gpgsign") == ["true"]
    assert home.config(id, "remote.origin.url") == ["https://git.example.org/mine.git"]
    assert home.config(id, "http.https://git.example.org/.extraheader") == [""]
    text = "\n".join(r["notes"])
    assert "my-hooks" in text and "git.example.org" in text


# where a user may have said core.hooksPath for all repositories: file, text, environment
GENERAL = {
    "home": (".gitconfig", "[core]\n\thooksPath = {folder}/husky\n", {}),
    "xdg": (".config/git/config", "[core]\n\thooksPath = {folder}/husky\n", {}),
    "own xdg": ("x/git/config", "[core]\n\thooksPath = {folder}/husky\n", {"XDG_CONFIG_HOME": "{home}/x"}),
    "named file": ("named", "[core]\n\thooksPath = {folder}/husky\n", {"GIT_CONFIG_GLOBAL": "{home}/named"}),
    "system": ("system", "[core]\n\thooksPath = {folder}/husky\n", {"GIT_CONFIG_SYSTEM": "{home}/system"}),
    "tilde": (".gitconfig", "[core]\n\thooksPath = ~/../husky\n", {}),
    "included": (".gitconfig", "[include]\n\tpath = parts/hooks\n[core]\n\tbare = false\n", {}),
    "seen from the hook": (".gitconfig", "[core]\n\thooksPath = ../{levels}husky\n", {}),
    "odd name": (".gitconfig", "[core]\n\thooksPath = \"{folder}/a # \\\"odd\\\" \\\\ ; name \"\n", {}),
}


def general_hooks(folder, home, how):
    """Hooks that write down how they are called, in the place that `how` leads to."""
    name, text, env = GENERAL[how]
    at = folder / ("a # \"odd\" \\ ; name " if how == "odd name" else "husky")
    at.mkdir(exist_ok=True)
    for hook in ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "post-checkout",
                 "reference-transaction"):
        (at / hook).write_text(f"#!/bin/sh\necho \"{hook} $*\" >> \"$RAN\"\n")
        (at / hook).chmod(0o755)
    config = os.path.join(home.folder, name)
    os.makedirs(os.path.dirname(config), exist_ok=True)
    levels = "../" * len(pathlib.Path(home.memory("agent-x")).relative_to(folder).parts[1:])
    with open(config, "w") as f:
        f.write(text.format(folder=folder, levels=levels))
    if how == "included":
        os.makedirs(os.path.join(home.folder, "parts"))
        with open(os.path.join(home.folder, "parts", "hooks"), "w") as f:
            f.write(f"[core]\n\thooksPath = {at}\n")
    home.git.env["RAN"] = "/dev/null"
    for key, value in env.items():
        home.env[key] = home.git.env[key] = value.format(home=home.folder)
    if how == "system":
        home.git.env.pop("GIT_CONFIG_NOSYSTEM", None)
    return config


def called(checkout, ran):
    """Which hooks a commit and a new branch call, and how."""
    checkout.git.env["RAN"] = str(ran)
    checkout.write("notes.txt", "n\n")
    checkout.run("add", "-A")
    checkout.run("commit", "-q", "-m", "n")
    checkout.run("checkout", "-q", "-b", "side")
    oid = re.compile(r"\b[0-9a-f]{40}\b")
    return [oid.sub("ID", line) for line in ran.read_text().splitlines()] if ran.exists() else []


@pytest.mark.parametrize("how", GENERAL)
def test_the_users_general_hooks_run_as_git_would_have_run_them(memfs_bin, folder, agent, how):
    """Ours is the checkout's core.hooksPath and comes before theirs; a plain repository is the measure."""
    id, home = agent(), Home(memfs_bin, folder / "home")
    general_hooks(folder, home, how)
    assert home.apply(id)["notes"] == []
    assert home.config(id, "core.hooksPath") == [home.folder + "/.memfs/hooks"]
    memory = home.checkout(id)
    plain = home.git.init(os.path.join(home.root(id), "plain"))     # as deep as the memory
    plain.run("config", "user.name", "p")
    plain.run("config", "user.email", "p@b")
    plain.run("commit", "-q", "--no-verify", "--allow-empty", "-m", "first")
    for c in (plain, memory):                                       # git looks into one folder only
        own = pathlib.Path(c.path, ".git/hooks/commit-msg")
        own.parent.mkdir(exist_ok=True)
        own.write_text("#!/bin/sh\nexit 1\n")
        own.chmod(0o755)
    expected = called(plain, folder / "plain-ran")
    assert "pre-commit " in expected and any("reference-transaction" in x for x in expected)
    assert called(memory, folder / "memory-ran") == expected
    memory.run("checkout", "-q", "main")
    memory.write("system/x.md", "no front matter\n")                # ours is asked as well
    memory.run("add", "-A")
    done = memory.run("commit", "-q", "-m", "x", check=False)
    assert done.returncode != 0 and b"system/x.md" in done.stderr


def test_general_hooks_that_are_gone_again_are_forgotten(memfs_bin, folder, agent):
    id, home = agent(), Home(memfs_bin, folder / "home")
    config = general_hooks(folder, home, "home")
    home.apply(id)
    assert home.config(id, "memfs-checkout.hooksPath") == [f"{folder}/husky"]
    os.unlink(config)
    home.apply(id)
    assert home.config(id, "memfs-checkout.hooksPath") == []
    own = pathlib.Path(home.git_dir(id), "hooks", "commit-msg")     # now this is where git would look
    own.parent.mkdir(exist_ok=True)
    own.write_text("#!/bin/sh\nexit 1\n")
    own.chmod(0o755)
    memory = home.checkout(id)
    memory.write("notes.txt", "n\n")
    memory.run("add", "-A")
    assert memory.run("commit", "-q", "-m", "n", check=False).returncode != 0
    # hooks switched off for all repositories, and our own folder as the general one
    for value, expected, code in (("/dev/null", ["/dev/null"], 0), (home.folder + "/.memfs/hooks", [], 1)):
        home.git.run("config", "--global", "core.hooksPath", value)
        home.apply(id)
        assert home.config(id, "memfs-checkout.hooksPath") == expected
        done = memory.run("commit", "-q", "--allow-empty", "-m", "n", check=False, timeout=20)
        assert done.returncode == code


def test_a_moved_home_of_memfs_takes_its_hooks_along(memfs_bin, folder, agent):
    id = agent()
    home = Home(memfs_bin, folder / "home", MEMFS_HOME=str(folder / "one"))
    home.apply(id)
    home.env["MEMFS_HOME"] = str(folder / "two")
    assert home.apply(id)["notes"] == []
    assert home.config(id, "core.hooksPath") == [str(folder / "two" / "hooks")]


# -- the key stays with its host (contract client 7) ---------------------------------------------------

@pytest.mark.parametrize("has_token", [False, True], ids=["open", "token"])
def test_S3_a_foreign_host_never_sees_the_letta_key(memfs_bin, folder, agent, has_token):
    """Not from memfs, and not from an unmodified client, which puts it on every git request."""
    id = agent()
    with FakeRemote(folder / "remotes", token="host-token" if has_token else None) as r:
        r.repository("mine.git")
        env = {"MEMFS_REMOTE_TOKEN": "host-token"} if has_token else {}
        home = Home(memfs_bin, folder / "home", LETTABOT_MEMFS_REMOTE=r.url("mine.git"),
                    LETTA_API_KEY=KEY, LETTA_BASE_URL="http://127.0.0.1:1", **env)
        home.apply(id, "--wait", "20")
        c = home.check(id, origin=r.url("mine.git"))
        commit(home, id)
        client = ["-c", "credential.helper=", "-c", "core.askPass=", "-c",
                  f"http.extraHeader=Authorization: Basic {BASIC}"]
        c.run(*client, "pull", "-q", "--ff-only")
        c.run(*client, "push", "-q", "-u", "origin", "main")
        assert remote_tip(r, "mine.git") == c.head
        assert home.sync(id)["state"] == "synced"
        assert r.requests
        for q in r.requests:
            text = repr(q.headers)
            assert BASIC not in text and KEY not in text, q
        if has_token:
            assert os.stat(os.path.join(home.git_dir(id), "config")).st_mode & 0o077 == 0


# -- T12, T23: a hostile remote ------------------------------------------------------------------------

def hostile(remote, name, mode, path, data):
    """A commit that `git push` would refuse to make: one entry of any mode and name, on the genesis."""
    where = remote.repository(name)
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_DIR": where,
           "GIT_AUTHOR_NAME": "E", "GIT_AUTHOR_EMAIL": "e@e", "GIT_COMMITTER_NAME": "E",
           "GIT_COMMITTER_EMAIL": "e@e"}

    def git(*args, input=b""):
        return subprocess.run([GIT, *args], env=env, input=input, check=True,
                              capture_output=True).stdout.decode().strip()

    blob = git("hash-object", "-w", "--stdin", input=data)
    raw = mode + b" " + path + b"\0" + bytes.fromhex(blob)
    tree = git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", input=raw)
    parent = git("rev-parse", "main")
    tip = git("commit-tree", tree, "-p", parent, "-m", "hostile")
    git("update-ref", "refs/heads/main", tip)
    return tip


@pytest.mark.parametrize("mode, path, data", [
    (b"120000", b"link", b"/etc/passwd"), (b"120000", b"system", b"../../.."),
    (b"100644", b".git", b"x"), (b"100644", b".GIT", b"x"), (b"100644", b"git~1", b"x"),
    (b"100644", b"a\\b", b"x"), (b"100644", b"new\nline.md", b"x"), (b"100644", "‮evil.md".encode(), b"x"),
    (b"160000", b"module", b"x"), (b"100644", b"..", b"x"),
], ids=["link", "folder-link", "dot-git", "dot-GIT", "short-name", "backslash", "newline", "bidi",
        "submodule", "dot-dot"])
def test_T11_T12_T23_what_must_not_be_checked_out_is_not(memfs_bin, folder, remote, agent, mode, path,
                                                        data):
    id, home = agent(), letta_home(memfs_bin, folder, remote)
    name = state_git(remote, id)
    remote.repository(name)
    home.apply(id)
    head = commit(home, id)
    home.sync(id)
    hostile(remote, name, mode, path, data)
    outside, tree = snapshot(folder / "remotes"), working_tree(home.memory(id))
    r = home.sync(id, code=None)
    assert r["exit"] in (3, 6), r           # refused by git's own fsck, or by the policy
    assert working_tree(home.memory(id)) == tree and home.checkout(id).head == head
    assert snapshot(folder / "remotes") == outside
    home.apply(id)                          # and the agent starts all the same
    more = commit(home, id, text="goes on\n")
    home.sync(id, code=None)
    assert home.checkout(id).head == more
    subprocess.run([GIT, "--git-dir", remote.repository(name), "update-ref", "refs/heads/main", head],
                   check=True)              # somebody mends the remote
    assert home.sync(id)["state"] == "synced" and remote_tip(remote, name) == more
    home.check(id)
