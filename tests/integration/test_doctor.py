"""`memfs doctor`: each fault is made in a real repository, found, mended (or not, where that is not
safe), and git works there afterwards.  What had to go is kept in .git/memfs/doctor/."""
import json
import os
import stat
import subprocess
import time

import pytest

from lib.client import Home, working_tree
from lib.fake_remote import FakeRemote

CANARY = "canary-d0ct0r-t0ken"
FRONT = "---\ndescription: d\n---\n"


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def memory(home, agent):
    """An agent with a prepared memory and one commit of its own."""
    a = agent()
    home.run("init", "--agent", a)
    write(home, a, "system/a.md", FRONT + "one\n")
    git(home, a, "add", "-A")
    git(home, a, "commit", "-q", "-m", "first")
    assert doctor(home, a) == []
    return a


def write(home, agent, name, text):
    path = os.path.join(home.memory(agent), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(text.encode() if isinstance(text, str) else text)
    return path


def git(home, agent, *args, **kw):
    return home.checkout(agent).run(*args, **kw)


def doctor(home, agent, *args):
    """The findings; the exit status must fit them."""
    done = home.run("doctor", "--json", "--agent", agent, *args, code=None)
    told = json.loads(done.stdout)
    left = [f for f in told["findings"]
            if f["level"] in ("warning", "problem") and not f["was_mended"]]
    assert told["n_left"] == len(left) and done.returncode == (1 if left else 0)
    for f in told["findings"]:
        assert set(f) == {"check", "level", "agent_id", "what", "advice", "can_mend", "was_mended"}
    return told["findings"]


def found(home, agent, check, *args):
    return [f for f in doctor(home, agent, *args) if f["check"] == check]


def kept(home, agent):
    folder = home.git_dir(agent) + "/memfs/doctor"
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def git_works(home, agent):
    """An agent edits, commits, and git finds the repository whole."""
    write(home, agent, "system/after.md", FRONT + f"{time.time_ns()}\n")
    git(home, agent, "add", "-A")
    git(home, agent, "commit", "-q", "-m", "after")
    git(home, agent, "fsck", "--full", "--strict", "--no-dangling")
    assert git(home, agent, "status", "--porcelain").stdout == b""


def found_and_mended(home, agent, check, n=1):
    """Found without --fix and left alone; mended with it; gone after; and git works."""
    before = found(home, agent, check)
    assert len(before) == n and all(f["can_mend"] for f in before), before
    assert [f["what"] for f in found(home, agent, check)] == [f["what"] for f in before]
    mended = found(home, agent, check, "--fix")
    assert len(mended) == n and all(f["was_mended"] for f in mended), mended
    assert found(home, agent, check) == []
    git_works(home, agent)
    return before


def old(path, seconds=3600):
    t = time.time() - seconds
    os.utime(path, (t, t), follow_symlinks=False)


# ---- nothing is wrong ----

def test_a_healthy_memory_has_no_findings(home, memory):
    done = home.run("doctor", "--agent", memory)
    assert done.stdout == b"" and done.stderr == b"memfs: all is well\n"
    before = working_tree(home.memory(memory))
    assert doctor(home, memory, "--fix") == []
    assert working_tree(home.memory(memory)) == before and kept(home, memory) == []
    git_works(home, memory)


def test_lines_for_people_name_the_next_step(home, memory):
    old(write(home, memory, ".git/index.lock", ""))
    done = home.run("doctor", code=1)
    line, advice = done.stdout.decode().splitlines()
    assert line.startswith(f"{memory}  problem  stale-lock  'index.lock' is 60 min old")
    assert advice.startswith("    'memfs doctor --fix'")
    assert b"1 left to look at; 'memfs doctor --fix' mends some of it" in done.stderr
    done = home.run("doctor", "--fix")
    assert done.stdout.decode().startswith(f"{memory}  mended  stale-lock  ")


# ---- locks ----

LOCKS = ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock",
         "refs/remotes/origin/main.lock"]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_stale_lock_is_moved_away(home, memory, lock):
    """A git that was killed leaves it, and every git (and the Letta client's start) stops at it."""
    old(write(home, memory, ".git/" + lock, "half an index"))
    found_and_mended(home, memory, "stale-lock")
    [name] = kept(home, memory)
    assert name.endswith(os.path.basename(lock))
    assert open(f"{home.git_dir(memory)}/memfs/doctor/{name}").read() == "half an index"


def test_the_lock_of_a_worktree(home, memory):
    tree = home.root(memory) + "/w"
    git(home, memory, "worktree", "add", "-q", tree, "-b", "w")
    old(write(home, memory, ".git/worktrees/w/index.lock", ""))
    found_and_mended(home, memory, "stale-lock")


def test_a_young_lock_is_waited_for(home, memory):
    write(home, memory, ".git/index.lock", "")
    [f] = found(home, memory, "stale-lock", "--fix")
    assert f["level"] == "warning" and not f["can_mend"] and not f["was_mended"]
    assert os.path.exists(home.git_dir(memory) + "/index.lock")


def test_a_lock_that_somebody_holds_is_not_touched(home, memory):
    """git commit with an editor open: index.lock is old, its owner alive."""
    path = write(home, memory, ".git/index.lock", "")
    old(path)
    with open(path):                        # a file of the git dir is open
        [f] = found(home, memory, "stale-lock", "--fix")
        assert f["level"] == "note" and f"process {os.getpid()} is at work" in f["what"]
    holder = subprocess.Popen(["/usr/bin/git", "cat-file", "--batch"], cwd=home.memory(memory),
                              env=home.git.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        [f] = found(home, memory, "stale-lock", "--fix")
        assert f["level"] == "note" and f"process {holder.pid} " in f["what"]
    finally:
        holder.communicate()
    found_and_mended(home, memory, "stale-lock")


def test_an_agents_shell_in_the_memory_is_no_holder(home, memory):
    old(write(home, memory, ".git/index.lock", ""))
    home.run("doctor", "--fix", "--agent", memory, cwd=home.memory(memory))
    git_works(home, memory)


def test_the_clients_own_lock_is_left_to_it(home, memory):
    old(write(home, memory, ".git/letta-memory-operation.lock", ""))
    assert doctor(home, memory, "--fix") == []


# ---- half-finished merges and rebases ----

def conflict(home, agent, how):
    git(home, agent, "config", "merge.memfs.driver", "false")       # as before memfs was there
    git(home, agent, "branch", "side")
    write(home, agent, "system/a.md", FRONT + "ours\n")
    git(home, agent, "commit", "-qam", "ours")
    git(home, agent, "switch", "-q", "side")
    write(home, agent, "system/a.md", FRONT + "theirs\n")
    write(home, agent, "system/new.md", FRONT + "new\n")
    git(home, agent, "add", "-A")
    git(home, agent, "commit", "-qam", "theirs")
    write(home, agent, "system/b.md", FRONT + "b\n")
    git(home, agent, "add", "-A")
    git(home, agent, "commit", "-qam", "b")
    git(home, agent, "switch", "-q", "main")
    assert git(home, agent, *how, check=False).returncode != 0
    write(home, agent, "system/a.md", FRONT + "half resolved\n")


@pytest.mark.parametrize("how, mark", [(("merge", "side"), "MERGE_HEAD"),
                                       (("rebase", "side"), "rebase-merge")])
def test_what_rests_half_finished_is_taken_back_and_kept(home, memory, how, mark):
    conflict(home, memory, how)
    tip = git(home, memory, "rev-parse", "main").stdout
    git_dir = home.git_dir(memory)
    [f] = found(home, memory, "half-finished", "--fix")     # somebody may be at it right now
    assert f["level"] == "note" and not f["was_mended"] and os.path.exists(f"{git_dir}/{mark}")
    for name in (mark, "index"):
        old(f"{git_dir}/{name}")
    [f] = found(home, memory, "half-finished")
    assert f["level"] == "warning" and f["can_mend"]
    for name in (mark, "index"):
        old(f"{git_dir}/{name}")
    [f] = found(home, memory, "half-finished", "--fix")
    assert f["was_mended"], f
    assert not os.path.exists(f"{git_dir}/{mark}")
    assert git(home, memory, "rev-parse", "main").stdout == tip
    assert git(home, memory, "symbolic-ref", "HEAD").stdout == b"refs/heads/main\n"
    texts = [open(f"{git_dir}/memfs/doctor/{n}").read() for n in kept(home, memory)]
    assert FRONT + "half resolved\n" in texts               # not one byte of the work is gone
    git_works(home, memory)


def test_a_bisect_is_somebodys_business(home, memory):
    git(home, memory, "bisect", "start")
    old(home.git_dir(memory) + "/BISECT_LOG")
    old(home.git_dir(memory) + "/index")
    [f] = found(home, memory, "half-finished", "--fix")
    assert not f["can_mend"] and os.path.exists(home.git_dir(memory) + "/BISECT_LOG")


# ---- origin ----

def test_an_origin_of_another_agent_is_put_right(home, memory, agent):
    """A copied folder: the client would push this agent's memory into the other's."""
    other = agent()
    home.env["LETTA_BASE_URL"] = "http://127.0.0.1:9"
    git(home, memory, "config", "remote.origin.url", f"http://127.0.0.1:9/v1/git/{other}/state.git")
    [f] = found_and_mended(home, memory, "wrong-origin")
    assert other in f["what"] and f["level"] == "problem"
    assert home.config(memory, "remote.origin.url") == [
        f"http://127.0.0.1:9/v1/git/{memory}/state.git"]
    git(home, memory, "rev-parse", "@{u}")


def test_an_origin_that_somebody_chose_is_told(home, memory, folder):
    git(home, memory, "config", "remote.origin.url", "/srv/mine.git")
    home.env["MEMFS_REMOTE"] = f"{folder}/theirs.git"
    [f] = found(home, memory, "wrong-origin", "--fix")
    assert f["level"] == "warning" and not f["was_mended"] and "/srv/mine.git" in f["what"]
    assert home.config(memory, "remote.origin.url") == ["/srv/mine.git"]


def test_an_origin_that_lags_behind_the_settings_follows(home, memory, folder):
    home.env["MEMFS_REMOTE"] = f"{folder}/{{agentId}}.git"
    found_and_mended(home, memory, "wrong-origin")
    assert home.config(memory, "remote.origin.url") == [f"{folder}/{memory}.git"]


# ---- secrets ----

def everywhere(home, needle):
    out = []
    for at, _, names in os.walk(home.folder):
        for name in names:
            path = os.path.join(at, name)
            if not os.path.islink(path) and needle.encode() in open(path, "rb").read():
                out.append(os.path.relpath(path, home.folder))
    return out


def test_S3_a_token_in_an_address_moves_to_secrets(home, memory, folder):
    """What patched clients left behind: LETTA_MEMFS_GIT_URL=https://token@host/…"""
    with FakeRemote(folder / "r", token=CANARY) as r:
        r.repository("mem.git")
        r.repository("mirror.git")          # of its own: the hook of a commit pushes there meanwhile
        url, mirror = r.url("mem.git"), r.url("mirror.git")
        git(home, memory, "config", "remote.origin.url", url.replace("://", f"://x:{CANARY}@"))
        git(home, memory, "config", "letta.memoryRepository.url",
            mirror.replace("://", f"://x:{CANARY}@"))
        done = home.run("doctor", "--agent", memory, "--json", code=1)
        assert CANARY not in done.stdout.decode() + done.stderr.decode()
        before = found(home, memory, "token-in-url")
        assert len(before) == 2
        mended = found(home, memory, "token-in-url", "--fix")
        assert all(f["was_mended"] for f in mended) and len(mended) == 2
        assert home.config(memory, "remote.origin.url") == [url]
        assert home.config(memory, "letta.memoryRepository.url") == [mirror]
        assert [p.split("/")[1] for p in everywhere(home, CANARY)] == ["secrets"]
        git_works(home, memory)
        git(home, memory, "push", "-q", "-u", "origin", "main")     # plain git still gets in
        assert home.sync(memory)["state"] == "synced"


def test_of_two_tokens_for_one_host_neither_is_lost(home, memory):
    """secrets/ has one place for host and agent: the second token was written over the first."""
    one, two = f"https://x:{CANARY}-one@git.example/a.git", f"https://x:{CANARY}-two@git.example/b.git"
    git(home, memory, "config", "remote.one.url", one)
    git(home, memory, "config", "remote.two.url", two)
    git(home, memory, "config", "--add", "remote.two.url", "https://git.example/plain.git")
    for was_mended in (True, False):        # once more: what is kept counts as much as what was seen
        faults = {f["what"].split("'")[1]: f for f in found(home, memory, "token-in-url", "--fix")}
        assert ("remote.one.url" in faults) == was_mended
        if was_mended:
            assert faults["remote.one.url"]["was_mended"]
        rival = faults["remote.two.url"]
        assert not rival["can_mend"] and not rival["was_mended"] and "already" in rival["what"]
        assert CANARY not in json.dumps(rival)
        assert home.config(memory, "remote.one.url") == ["https://git.example/a.git"]
        assert home.config(memory, "remote.two.url") == [two, "https://git.example/plain.git"]
        [kept] = [p for p in everywhere(home, CANARY + "-one")]
        assert kept.startswith(".memfs/secrets/")


def test_of_two_tokens_in_one_key_neither_is_lost(home, memory):
    one, two = f"https://x:{CANARY}-one@git.example/a.git", f"https://x:{CANARY}-two@git.example/b.git"
    git(home, memory, "config", "remote.more.url", one)
    git(home, memory, "config", "--add", "remote.more.url", two)
    faults = found(home, memory, "token-in-url", "--fix")
    assert sorted(f["was_mended"] for f in faults) == [False, True]
    assert home.config(memory, "remote.more.url") == ["https://git.example/a.git", two]
    assert [p.split("/")[1] for p in everywhere(home, CANARY + "-one")] == ["secrets"]


def test_a_token_in_a_key_is_told(home, memory):
    git(home, memory, "config", f"url.https://x:{CANARY}@git.example/.insteadOf", "https://g/")
    [f] = found(home, memory, "token-in-url", "--fix")
    assert not f["can_mend"] and CANARY not in json.dumps(f) and "git.example" in f["what"]


HELPER = "!f() { echo username=letta; echo password=%s; }; f" % CANARY


def test_a_helper_that_answers_every_host_is_taken_out(home, memory):
    git(home, memory, "config", "credential.helper", HELPER)
    os.chmod(home.git_dir(memory) + "/config", 0o600)
    [f] = found_and_mended(home, memory, "inherited-helper")
    assert CANARY not in json.dumps(f) and "every host" in f["what"]
    [name] = kept(home, memory)
    path = f"{home.git_dir(memory)}/memfs/doctor/{name}"
    assert HELPER in open(path).read() and stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_helper_for_a_foreign_host_is_taken_out_and_the_clients_own_stays(home, memory):
    home.env["LETTA_BASE_URL"] = "http://127.0.0.1:9"
    git(home, memory, "config", "credential.https://git.example.helper", HELPER)
    git(home, memory, "config", "credential.http://127.0.0.1:9.helper", HELPER)
    git(home, memory, "config", "credential.https://ok.example.helper", "store")
    os.chmod(home.git_dir(memory) + "/config", 0o600)
    [f] = found_and_mended(home, memory, "inherited-helper")
    assert "git.example" in f["what"]
    assert home.config(memory, "credential.http://127.0.0.1:9.helper") == [HELPER]
    assert home.config(memory, "credential.https://ok.example.helper") == ["store"]


def test_the_clients_key_in_a_config_that_others_may_read(home, memory):
    home.env["LETTA_BASE_URL"] = "http://127.0.0.1:9"
    git(home, memory, "config", "credential.http://127.0.0.1:9.helper", HELPER)
    os.chmod(home.git_dir(memory) + "/config", 0o644)
    [f] = found(home, memory, "key-in-config")
    assert f["level"] == "warning" and f["can_mend"] and CANARY not in json.dumps(f)
    told = found(home, memory, "key-in-config", "--fix")
    assert sorted((f["level"], f["was_mended"]) for f in told) == [("note", False),
                                                                   ("warning", True)]
    assert stat.S_IMODE(os.stat(home.git_dir(memory) + "/config").st_mode) == 0o600
    [f] = found(home, memory, "key-in-config")
    assert f["level"] == "note"                             # its own doing; exit status 0
    git_works(home, memory)


def test_S3_a_foreign_origin_without_the_header_is_a_problem(home, memory):
    git(home, memory, "config", "remote.origin.url", "https://git.example/mine.git")
    [f] = found_and_mended(home, memory, "letta-key")
    assert f["level"] == "problem" and "https://git.example" in f["what"]
    assert home.config(memory, "http.https://git.example/.extraHeader") == [""]


def test_S3_another_base_than_lettas_cloud_without_the_clouds_header(home, memory):
    """prepare sets it: the client shows a self-hosted server's key to its default host, too."""
    cloud = "http.https://api.letta.com/.extraHeader"
    assert found(home, memory, "letta-key") == [] and home.config(memory, cloud) == []
    home.env["LETTA_BASE_URL"] = "http://127.0.0.1:9"
    [f] = found_and_mended(home, memory, "letta-key")
    assert f["level"] == "warning" and "https://api.letta.com" in f["what"]
    assert home.config(memory, cloud) == [""]


# ---- hooks and what a checkout needs ----

def test_missing_hooks_path(home, memory):
    git(home, memory, "config", "--unset", "core.hooksPath")
    found_and_mended(home, memory, "hooks")
    assert home.config(memory, "core.hooksPath") == [home.folder + "/.memfs/hooks"]


def test_a_hooks_path_that_is_gone(home, memory):
    git(home, memory, "config", "core.hooksPath", home.folder + "/gone")
    found_and_mended(home, memory, "hooks")


def test_foreign_hooks_stay_and_are_told(home, memory):
    theirs = home.folder + "/theirs"
    os.makedirs(theirs)
    git(home, memory, "config", "core.hooksPath", theirs)
    [f] = found(home, memory, "hooks", "--fix")
    assert f["level"] == "warning" and not f["was_mended"] and ".git/hooks" in f["advice"]
    assert home.config(memory, "core.hooksPath") == [theirs]


def test_hooks_that_were_overwritten(home, memory):
    folder = home.folder + "/.memfs/hooks/"
    os.unlink(folder + "pre-commit")
    os.unlink(folder + "reference-transaction")
    os.symlink("/nonexistent/memfs-hook", folder + "reference-transaction")
    found_and_mended(home, memory, "programs", n=2)
    os.unlink(folder + "post-commit")
    with open(folder + "post-commit", "w") as f:
        f.write("#!/bin/sh\n")
    [f] = found(home, memory, "programs", "--fix")
    assert not f["can_mend"] and open(folder + "post-commit").read() == "#!/bin/sh\n"


@pytest.mark.parametrize("spoil, words", [
    (lambda h, a: git(h, a, "config", "--unset", "merge.memfs.driver"), "the merge driver"),
    (lambda h, a: os.unlink(h.git_dir(a) + "/info/attributes"), ".git/info/attributes"),
    (lambda h, a: git(h, a, "update-ref", "-d", "refs/remotes/origin/main"),
     "refs/remotes/origin/main"),
    (lambda h, a: git(h, a, "config", "--unset", "branch.main.merge"), "the upstream of main"),
    (lambda h, a: git(h, a, "config", "letta.agentId", "somebody"), "letta.agentId"),
    (lambda h, a: git(h, a, "config", "--unset", "user.email"), "an identity"),
], ids=["driver", "attributes", "tracking", "upstream", "agent-id", "identity"])
def test_what_a_prepared_checkout_lost_comes_back(home, memory, spoil, words):
    spoil(home, memory)
    [f] = found_and_mended(home, memory, "prepared")
    assert f["what"] == "missing in the checkout: " + words
    home.check(memory)


def test_a_folder_without_a_repository_is_adopted(home, memory, agent):
    a = agent()
    write(home, a, "system/mine.md", FRONT + "mine\n")
    found_and_mended(home, a, "repository")
    assert git(home, a, "show", "main:system/mine.md").stdout == (FRONT + "mine\n").encode()


def test_what_cannot_be_opened_is_told(home, memory, agent):
    with open(home.git_dir(memory) + "/config", "w") as f:
        f.write("[core\n")
    [f] = found(home, memory, "repository", "--fix")
    assert f["level"] == "problem" and not f["can_mend"]
    a = agent()
    os.makedirs(home.memory(a))
    with open(home.git_dir(a), "w") as f:
        f.write("gitdir: /nonexistent\n")
    [f] = found(home, a, "repository", "--fix")
    assert f["level"] == "problem" and "is a file" in f["what"]


# ---- histories ----

def plumb(home, agent, *args, **kw):
    return git(home, agent, *args, **kw).stdout.decode().strip()


def test_a_history_with_another_beginning_is_a_note(home, agent):
    a = agent()
    os.makedirs(home.memory(a))
    git(home, a, "init", "-q", "-b", "main")
    git(home, a, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty",
        "-m", "root")
    home.run("init", "--agent", a)
    [f] = doctor(home, a)
    assert f["check"] == "genesis" and f["level"] == "note"


def test_unrelated_histories_are_told(home, memory):
    tree = plumb(home, memory, "write-tree")
    other = plumb(home, memory, "commit-tree", tree, "-m", "another root")
    git(home, memory, "update-ref", "refs/remotes/origin/main", other)
    [f] = found(home, memory, "unrelated", "--fix")
    assert f["level"] == "warning" and "reset" in f["what"] and "memfs sync" in f["advice"]


# ---- files ----

def test_files_that_their_owner_cannot_write(home, memory):
    os.chmod(home.git_dir(memory) + "/refs/heads", 0o500)
    os.chmod(home.memory(memory) + "/system/a.md", 0o400)
    os.chmod(home.git_dir(memory) + "/objects", 0o500)
    [f] = found_and_mended(home, memory, "permissions")
    assert "3 files or folders" in f["what"]
    assert stat.S_IMODE(os.stat(home.git_dir(memory) + "/refs/heads").st_mode) & 0o700 == 0o700


def test_a_repository_that_others_may_change(home, memory):
    """Who can write a hook or config runs programs as the agent's user."""
    os.makedirs(home.git_dir(memory) + "/hooks", exist_ok=True)
    os.chmod(home.git_dir(memory) + "/hooks", 0o777)
    os.chmod(home.git_dir(memory) + "/config", 0o666)
    [f] = found_and_mended(home, memory, "permissions")
    assert "2 files or folders" in f["what"]
    assert stat.S_IMODE(os.stat(home.git_dir(memory) + "/config").st_mode) == 0o644


def test_a_group_that_is_the_user_alone_may_write(home, memory):
    """umask 002, where each user has a group of their own: git writes nothing else."""
    if os.getuid() != os.getgid():
        pytest.fail("this test needs a group with the user's own number")
    path = home.git_dir(memory) + "/config"
    os.chmod(path, 0o664)
    assert found(home, memory, "permissions") == []
    os.chown(path, -1, 12345)
    [f] = found(home, memory, "permissions")
    assert "1 files or folders" in f["what"]


def test_files_of_another_user_are_told(home, memory):
    if os.geteuid() != 0:
        pytest.fail("this test gives a file away and must run as root")
    os.chown(home.git_dir(memory) + "/HEAD", 12345, 12345)
    [f] = found(home, memory, "permissions", "--fix")
    assert f["level"] == "problem" and "12345" in f["what"] and "chown" in f["advice"]


def test_the_data_folder_and_its_secrets(home, memory):
    secrets = home.folder + "/.memfs/secrets"
    os.makedirs(secrets, exist_ok=True)
    with open(secrets + "/git.example", "w") as f:
        f.write("password=x\n")
    os.chmod(secrets, 0o755)
    os.chmod(secrets + "/git.example", 0o644)
    os.chmod(home.folder + "/.memfs", 0o777)
    found_and_mended(home, memory, "home-permissions", n=3)
    assert stat.S_IMODE(os.stat(secrets + "/git.example").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(secrets).st_mode) == 0o700


TEXT = FRONT + "na\u00efve \U0001f600\n"


@pytest.mark.parametrize("raw", [
    TEXT.encode("utf-16"), TEXT.encode("utf-16-le"), TEXT.encode("utf-16-be"),
    b"\xfe\xff" + TEXT.encode("utf-16-be"), TEXT.replace("\n", "\r\n").encode("utf-16"),
    b"\xef\xbb\xbf" + TEXT.encode(),
], ids=["le-bom", "le", "be", "be-bom", "crlf", "utf8-bom"])
def test_text_in_another_encoding_becomes_utf8(home, memory, raw):
    path = write(home, memory, "system/w.md", raw)
    os.chmod(path, 0o640)
    found_and_mended(home, memory, "encoding")
    assert open(path, "rb").read() == TEXT.encode() and stat.S_IMODE(os.stat(path).st_mode) == 0o640
    [name] = kept(home, memory)
    assert open(f"{home.git_dir(memory)}/memfs/doctor/{name}", "rb").read() == raw


@pytest.mark.parametrize("raw", [
    b"\xff\xfe-\0-\0-", b"\xff\xfe\x00\xd8a\0", b"\xef\xbb\xbf\xff\xff",
], ids=["odd", "half-pair", "no-utf8"])
def test_text_that_cannot_be_converted_without_loss_stays(home, memory, raw):
    path = write(home, memory, "system/w.md", raw)
    [f] = found(home, memory, "encoding", "--fix")
    assert not f["can_mend"] and open(path, "rb").read() == raw


def test_good_text_is_left_alone(home, memory):
    for i, text in enumerate((b"", b"\xff", b"-", b"---", "\u00e9".encode(), b"\0" * 10)):
        write(home, memory, f"system/{i}.md", text)
    write(home, memory, "data.bin", TEXT.encode("utf-16"))
    write(home, memory, ".git/x.md", TEXT.encode("utf-16"))
    assert found(home, memory, "encoding") == []


# ---- the machine ----

def test_F25_a_clock_that_is_wrong(home, memory):
    path = home.git_dir(memory) + "/index"
    t = time.time() + 10 * 24 * 3600
    os.utime(path, (t, t))
    [f] = found(home, memory, "file-times", "--fix")
    assert f["level"] == "warning" and "from the future" in f["what"]
    os.utime(path)
    assert found(home, memory, "file-times") == []


def test_settings_that_do_not_count_are_told(home, memory):
    with open(home.folder + "/.memfs/config", "w") as f:
        f.write("[memfs]\n\tapi-key = " + CANARY + "\n")
    [f] = found(home, memory, "settings")
    assert "is a secret" in f["what"] and CANARY not in f["what"]


def test_setup_git_half_installed(home, memory):
    """The line without the program: every clone of the client would stop."""
    home.env["LETTA_BASE_URL"] = "http://127.0.0.1:9"
    with open(home.folder + "/.gitconfig", "w") as f:
        f.write('[url "memfs::"]\n\tinsteadOf = http://127.0.0.1:9/v1/git/\n')
    [f] = found(home, memory, "setup-git", "--fix")
    assert f["level"] == "problem" and not f["was_mended"] and "PATH" in f["what"] + f["advice"]
    # with the program in PATH it is whole
    home.env["PATH"] = os.path.dirname(home.memfs_bin) + ":" + home.env["PATH"]
    assert found(home, memory, "setup-git") == []
    # and a line for another base is mended
    with open(home.folder + "/.gitconfig", "w") as f:
        f.write('[url "memfs::"]\n\tinsteadOf = http://127.0.0.1:8/v1/git/\n')
    [f] = found(home, memory, "setup-git", "--fix")
    assert f["was_mended"] and "127.0.0.1:9" in open(home.folder + "/.gitconfig").read()


def test_a_git_that_is_too_old(home, memory, folder):
    """git is found in fixed places first: another root shows it an old one."""
    old_git = folder / "git"
    old_git.write_text("#!/bin/sh\necho git version 2.30.1\n")
    old_git.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", 'mount --bind "$1" /usr/bin/git && '
         'exec "$2" doctor --json --agent "$3"', "sh", str(old_git), home.memfs_bin, memory], env=home.env,
        capture_output=True, timeout=60)
    found_here = [f for f in json.loads(done.stdout)["findings"] if f["check"] == "git-version"]
    assert done.returncode == 1 and len(found_here) == 1
    assert "2.30" in found_here[0]["what"] and "2.36" in found_here[0]["advice"]


# ---- all of them ----

def test_one_sick_memory_among_many(home, agent):
    ids = sorted(agent() for _ in range(4))
    for a in ids:
        home.run("init", "--agent", a)
    old(write(home, ids[2], ".git/index.lock", ""))
    with open(home.git_dir(ids[1]) + "/config", "w") as f:
        f.write("[core\n")
    told = json.loads(home.run("doctor", "--fix", "--json", code=1).stdout)
    assert [(f["agent_id"], f["check"], f["was_mended"]) for f in told["findings"]] == [
        (ids[1], "repository", False), (ids[2], "stale-lock", True)]
    assert told["n_left"] == 1 and told["n_mended"] == 1


def test_an_unknown_agent_and_usage(home, agent):
    assert b"has no memory here" in home.run("doctor", "--agent", agent(), code=1).stderr
    for args in (("x",), ("--agent", "a", "--all"), ("--bogus",)):
        assert home.run("doctor", *args, code=2).stdout == b""
