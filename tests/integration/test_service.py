"""memfs as the memfs service behind a Letta server: the folder that both use, and what is between them.

The server is played by lib/lettafolder.py, which reads and writes the folder in its very steps, and by
git that says X-Organization-Id as its proxy does.  The real one is in test_letta_service.py.

The fifteen requirements of the contract (http-api §2.6), and the tests of each:

    1   a loose file below refs/            rule_01_main_is_loose_below_refs
    2   a file below objects/               rule_02_there_is_a_file_below_objects
    3   HEAD names main, which exists       rule_03_head_names_main_which_exists
    4   core.bare is not true               rule_04_never_bare_so_that_the_server_can_write
    5   no repository without a commit      rule_05_no_repository_without_a_commit
    6   nothing appears and vanishes        rule_06_nothing_appears_and_vanishes_and_a_reader_never_fails
                                            rule_06_there_is_a_moment_between_the_objects_and_the_ref
    7   superseded packs go minutes later   rule_07_superseded_packs_go_long_after
                                            H2_a_fold_replaces_no_pack_of_the_servers
    8   no lock files are left              rule_08_no_lock_files_not_even_after_a_kill
    9   objects, then the ref, by rename    rule_09_objects_come_before_the_ref_and_both_by_rename
    10  no alternates                       rule_10_no_alternates
    11  readable for the server, no links   rule_11_the_servers_user_can_read_and_write_all_of_it
                                            T01_owners_are_given_by_descriptor_and_children_first
                                            T01_a_link_in_the_folder_is_not_followed
    12  what the server made takes pushes   rule_12_a_repository_that_the_server_made_takes_pushes
    13  index, logs, COMMIT_EDITMSG         rule_13_what_the_server_leaves_beside_is_no_trouble
    14  half-written states                 rule_14_half_written_states_are_waited_out
                                            test_service_writes.py: what is written while we replace it
    15  SHA-1, loose refs, no extensions    rule_15_a_repository_that_any_git_reads
"""
import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from lib import wire
from lib.gitcli import GIT
from lib.graph import is_ancestor
from lib.inotify import Watched
from lib.lettafolder import LettaFolder, Vanished
from lib.patience import wait
from lib.server import ORG
from lib.service import (MAIN, checkout, client, in_folder, letta, letta_row, one, root,  # noqa: F401
                         save, served, settle)
from lib.trace import Trace


# -- the fifteen rules -----------------------------------------------------------------------------

def test_service_rule_01_main_is_loose_below_refs(one, root):
    s, a, c = one
    path = os.path.join(root.repository(a), MAIN)
    assert os.path.isfile(path)
    in_folder(root, a, "pack-refs", "--all")        # somebody's gc
    assert not os.path.exists(path)
    tip = save(c, {"b.md": "b\n"})
    assert open(path, encoding="ascii").read() == tip + "\n" and root.read(a)["b.md"] == "b\n"


def test_service_rule_02_there_is_a_file_below_objects(one, root):
    _, a, _ = one
    assert [name for _, _, names in os.walk(root.repository(a) + "/objects") for name in names]
    assert "system/human.md" in root.read(a)


def test_service_rule_03_head_names_main_which_exists(one, root):
    s, a, c = one
    head = os.path.join(root.repository(a), "HEAD")
    assert open(head, encoding="ascii").read() == "ref: refs/heads/main\n"
    with open(head, "w", encoding="ascii") as f:
        f.write("ref: refs/heads/master\n")
    save(c, {"b.md": "b\n"})
    assert open(head, encoding="ascii").read() == "ref: refs/heads/main\n"
    assert in_folder(root, a, "rev-parse", "HEAD") == c.text("rev-parse", "HEAD")


def test_service_rule_04_never_bare_so_that_the_server_can_write(one, root):
    s, a, c = one
    assert in_folder(root, a, "config", "core.bare") == "false"
    root.commit(a, {"system/human.md": "Likes coffee.\n"})      # begins with git reset --hard
    wait(lambda: "coffee" in s.blocks(a)["system/human"]["value"], "the server's write was taken in")


def test_service_rule_05_no_repository_without_a_commit(served, root, client, agent, folder):
    s, a = served(), agent()
    c = checkout(client, s, a, folder / "c")                    # vouched for, and nothing is there
    assert not os.path.exists(os.path.join(root.root, "repository"))
    os.makedirs(os.path.dirname(root.repository(a)))            # else it is watched too late
    with Watched(os.path.dirname(root.repository(a))) as seen:
        save(c, {"a.md": "a\n"})
    assert [what for what, path in seen.events if path == "repo.git"] == ["came"]
    assert root.read(a) == {"a.md": "a\n"}
    b = agent()                                                 # the folders above it are made, too
    save(checkout(client, s, b, folder / "d"), {"b.md": "b\n"})
    assert root.read(b) == {"b.md": "b\n"}


def check_names(events):
    """Nothing that appeared has gone but main, which another takes the place of in one step."""
    came = {path for what, path in events if what in ("made", "came")}
    went = [path for what, path in events if what in ("gone", "left")]
    assert set(went) <= {MAIN}, went
    assert [p for what, p in events if what == "gone"] == []
    assert not [path for path in came if path.endswith(".lock") or "tmp" in path], came
    return came


class Reader(threading.Thread):
    """The server's read, over and over, at full speed.  One that listed the files before a push and
    read main after it has a ref without its objects: it is repeated, as the server does."""

    def __init__(self, root, agent):
        super().__init__(daemon=True)
        self.root, self.agent, self.stopping = root, agent, threading.Event()
        self.seen, self.faults, self.n_repeated = [], [], 0

    def run(self):
        while not self.stopping.is_set():
            try:
                self.seen.append(self.root.read_once(self.agent))
            except subprocess.CalledProcessError:
                self.n_repeated += 1
            except (Vanished, OSError) as e:
                self.faults.append(repr(e))

    def rest(self):
        """Until one more read went well: nothing is pushed meanwhile, so the next must."""
        n = len(self.seen) + 1
        wait(lambda: len(self.seen) > n or self.faults, "a read while nobody pushes")

    def end(self):
        self.stopping.set()
        self.join(120)


def test_service_rule_06_nothing_appears_and_vanishes_and_a_reader_never_fails(one, root):
    s, a, c = one
    pushed = {root.tip(a): None}
    reader = Reader(root, a)
    with Watched(root.repository(a)) as seen:
        reader.start()
        for i in range(45):                                     # past one fold of packs
            tip = save(c, {"n.md": f"{i}\n", f"many/{i}.md": f"{i}\n"})
            pushed[tip] = i
            if i % 5 == 0:
                reader.rest()
        reader.rest()
        reader.end()
    assert reader.faults == [] and reader.n_repeated <= len(pushed)     # one read is at it when it moves
    assert {tip for tip, _ in reader.seen} <= set(pushed) and reader.seen[-1][0] == tip
    for tip, files in reader.seen:                              # what it read is whole
        if pushed[tip] is not None:
            assert files["n.md"] == f"{pushed[tip]}\n"
            assert len([path for path in files if path.startswith("many/")]) == pushed[tip] + 1
    check_names(seen.events)


def test_service_rule_06_there_is_a_moment_between_the_objects_and_the_ref(one, root, folder):
    """For a read that has listed the files already, as the server reads slower than a push moves."""
    s, a, c = one
    with Trace(s.pid, folder / "trace", "-e", "trace=renameat,renameat2,clock_nanosleep") as trace:
        save(c, {"b.md": "b\n"})
        wait(lambda: any(name == "renameat2" for _, name, _ in trace.calls()), "the swap is in the trace")
    calls = trace.calls()
    at = next(i for i, (_, name, text) in enumerate(calls) if name == "renameat2" and '"main"' in text)
    mine = [text for who, _, text in calls[:at] if who == calls[at][0]]
    assert ".pack" in mine[-3] and ".idx" in mine[-2] and "tv_nsec=25000000" in mine[-1], mine


def packs_of(root, agent):
    folder = root.repository(agent) + "/objects/pack"
    return sorted(name for name in os.listdir(folder) if name.endswith(".pack"))


def test_service_rule_07_superseded_packs_go_long_after(one, root):
    s, a, c = one
    old = os.path.join(os.path.dirname(root.repository(a)), ".memfs-old")
    with Watched(root.repository(a)) as seen:
        for i in range(40):
            save(c, {"n.md": f"{i}\n"})
            if os.path.exists(old):
                break
        names = open(old, encoding="ascii").read().split()
        assert len(names) > 30 and {n + ".pack" for n in names} <= set(packs_of(root, a))
        save(c, {"n.md": "after the fold\n"})
        assert {n + ".pack" for n in names} <= set(packs_of(root, a))
        check_names(seen.events)
    past = time.time() - 601
    os.utime(old, (past, past))
    tip = save(c, {"n.md": "long after\n"})
    assert not {n + ".pack" for n in names} & set(packs_of(root, a)) and not os.path.exists(old)
    assert len(packs_of(root, a)) <= 4 and root.tip(a) == tip
    assert root.read(a)["n.md"] == "long after\n"
    in_folder(root, a, "fsck", "--full", "--strict")


def test_H2_a_fold_replaces_no_pack_of_the_servers(one, root):
    """Its gc may pack a commit whose ref has not come back yet: nobody else has that pack."""
    s, a, c = one
    for i in range(3):
        theirs = root.commit(a, {"system/human.md": f"Likes {i}.\n"})
        c.run("pull", "-q", "--no-rebase", "origin", "main")
    in_folder(root, a, "repack", "-q", "-l")
    its = set(packs_of(root, a))
    old = os.path.join(os.path.dirname(root.repository(a)), ".memfs-old")
    save(c, {"n.md": "first\n"})
    its &= {name for name in packs_of(root, a)}
    own = open(os.path.dirname(old) + "/.memfs-own", encoding="ascii").read().split()
    its -= {name + ".pack" for name in own}
    assert its
    for i in range(40):
        save(c, {"n.md": f"{i}\n"})
        if os.path.exists(old):
            break
    assert not its & {name + ".pack" for name in open(old, encoding="ascii").read().split()}
    past = time.time() - 601
    os.utime(old, (past, past))
    save(c, {"n.md": "long after\n"})
    assert its <= set(packs_of(root, a)) and is_ancestor(root.repository(a), theirs, MAIN)
    in_folder(root, a, "fsck", "--full", "--strict")


def test_service_rule_08_no_lock_files_not_even_after_a_kill(one, root):
    s, a, c = one
    with Watched(root.repository(a)) as seen:
        for i in range(6):
            with contextlib.suppress(AssertionError):
                threading.Timer(0.02 * i, s.kill).start()
                save(c, {"n.md": f"{i}\n"})
            wait(lambda: not s.running, "the kill")
            s.start()
            c.run("remote", "set-url", "origin", s.git_url(a, "/git/{agent}/state.git"))
    assert not [path for _, path in seen.events if path.endswith(".lock")]
    check_names(seen.events)
    s.kill()
    theirs = root.commit(a, {"system/human.md": "Likes coffee.\n"})     # nothing is in the server's way
    s.start()
    wait(lambda: s.tip(a) == root.tip(a) and is_ancestor(root.repository(a), theirs, MAIN), "it was taken in")
    c.run("remote", "set-url", "origin", s.git_url(a, "/git/{agent}/state.git"))
    c.run("pull", "-q", "--no-rebase", "origin", "main")
    tip = save(c, {"n.md": "at last\n"})
    assert root.tip(a) == tip
    assert root.read(a) == {"system/human.md": "Likes coffee.\n", "n.md": "at last\n"}


def test_service_rule_09_objects_come_before_the_ref_and_both_by_rename(one, root):
    s, a, c = one
    with Watched(root.repository(a)) as seen:
        save(c, {"b.md": "b\n"})
    came = [path for what, path in seen.events if what == "came"]
    assert [what for what, _ in seen.events if what == "made"] == []
    assert [path.rsplit(".", 1)[-1] for path in came[:2]] == ["pack", "idx"]
    assert came[2:] == [MAIN]


def test_service_rule_10_no_alternates(one, root):
    _, a, c = one
    save(c, {"b.md": "b\n"})
    assert not os.path.exists(root.repository(a) + "/objects/info/alternates")


def test_service_rule_11_the_servers_user_can_read_and_write_all_of_it(servers, root, client, agent,
                                                                       folder):
    uid, gid = (1234, 1235) if os.getuid() == 0 else (os.getuid(), os.getgid())
    os.chown(root.root, uid, gid)
    os.chmod(root.root, 0o775)
    s, a = servers(args=["--letta-root", root.root, "--letta-proxy", "127.0.0.1"]), agent()
    c = checkout(client, s, a, folder / "c")
    save(c, {"a.md": "a\n"})
    save(c, {"b.md": "b\n"})
    for base, folders, files in os.walk(os.path.join(root.root, "repository")):
        for name in [*folders, *files]:
            path = os.path.join(base, name)
            st = os.lstat(path)
            if name.startswith(".memfs-"):          # beside the repository, and nobody else's business
                continue
            assert not os.path.islink(path) and (st.st_uid, st.st_gid) == (uid, gid), path
            assert st.st_mode & 0o777 == (0o775 if os.path.isdir(path) else 0o664), path
    if os.getuid() == 0:                            # what that user writes, we can take in
        tip = in_copy_as(uid, gid, root, a)
        wait(lambda: s.tip(a) == tip, "what the server's user wrote was taken in")


def test_T01_owners_are_given_by_descriptor_and_children_first(served, root, client, agent, folder):
    """Whoever a folder was given to may put a link into it; by then nothing in it is given away."""
    s, a = served(), agent()
    c = checkout(client, s, a, folder / "c")
    with Trace(s.pid, folder / "trace", "-y", "-e", "trace=chown,lchown,fchownat,chmod,fchmodat,fchown") as trace:
        save(c, {"a.md": "a\n"})
    calls = [(name, re.search(r"<(.*?)>", text).group(1)) for _, name, text in trace.calls()
             if root.root in text]
    assert calls and {name for name, _ in calls} == {"fchown"}
    made = [path for _, path in calls if "/repo.git" in path]
    for i, path in enumerate(made):
        assert not [later for later in made[i + 1:] if later.startswith(path + "/")], path
    assert made[-1].endswith("/repo.git")


def test_D1_the_folders_above_a_first_repository_are_synced(served, root, client, agent, folder):
    s, a = served(), agent()
    c = checkout(client, s, a, folder / "c")
    with Trace(s.pid, folder / "trace", "-y", "-e", "trace=fsync") as trace:
        save(c, {"a.md": "a\n"})
    synced = {re.search(r"<(.*?)>", text).group(1) for _, _, text in trace.calls()}
    at = os.path.dirname(root.repository(a))
    while at != os.path.dirname(root.root):
        assert at in synced, at
        at = os.path.dirname(at)


def in_copy_as(uid, gid, root, agent):
    """A commit by another user, straight into the folder; its id."""
    def become():
        os.setgid(gid)
        os.setuid(uid)

    def git(*args, **kw):
        return subprocess.run([GIT, "--git-dir", root.repository(agent), *args], check=True,
                              capture_output=True, preexec_fn=become, timeout=60, cwd="/", env={
                                  "PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
                                  **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER")
                                     for what in ("NAME", "EMAIL")}}, **kw).stdout.decode().strip()

    os.chmod(os.path.dirname(root.root), 0o755)
    tree = git("rev-parse", "main^{tree}")
    tip = git("commit-tree", tree, "-p", "main", "-m", "by the server's user")
    git("update-ref", MAIN, tip)
    return tip


def test_service_rule_12_a_repository_that_the_server_made_takes_pushes(served, root, client, agent,
                                                                        folder):
    s, a = served(), agent()
    first = root.create(a, {"system/human.md": "Likes tea.\n"})
    assert in_folder(root, a, "config", "core.bare") == "false"
    c = checkout(client, s, a, folder / "c")
    tip = save(c, {"b.md": "b\n"})
    assert root.tip(a) == tip and is_ancestor(root.repository(a), first, MAIN)
    assert root.read(a) == {"system/human.md": "Likes tea.\n", "b.md": "b\n"}


def test_service_rule_13_what_the_server_leaves_beside_is_no_trouble(one, root):
    s, a, c = one
    for i in range(3):
        root.commit(a, {"system/human.md": f"Likes {i}.\n"})
        c.run("pull", "-q", "--no-rebase", "origin", "main")
        save(c, {"b.md": f"{i}\n"})
    assert {"index", "COMMIT_EDITMSG", "logs"} <= set(os.listdir(root.repository(a)))
    assert root.read(a) == {"system/human.md": "Likes 2.\n", "b.md": "2\n"}


@pytest.mark.parametrize("order", ["ref first", "empty ref", "no tree"])
def test_service_rule_14_half_written_states_are_waited_out(one, root, order):
    s, a, c = one
    before = s.tip(a)
    tip, files = root.begin(a, {"system/human.md": "Likes coffee.\n"})
    ref = [(path, data) for path, data in files if path == MAIN]
    rest = [(path, data) for path, data in files if path != MAIN]
    assert ref and rest
    if order == "ref first":
        root.write_back(a, ref)
    elif order == "empty ref":
        root.write_back(a, [(MAIN, b"")])
    else:
        tree = in_copy_tree(files, tip)
        root.write_back(a, [(p, d[:7] if p == tree else d) for p, d in rest] + ref)
    n = s.log().count("mirror_failed")
    assert s.tip(a) == before                                   # what a client sees meanwhile
    assert c.text("ls-remote", "origin", MAIN).split()[0] == before
    wait(lambda: s.log().count("mirror_failed") > n, "it was met half-written")
    root.write_back(a, rest)
    root.write_back(a, ref)
    wait(lambda: s.tip(a) == tip, "it was taken in when it was whole")
    assert "coffee" in s.blocks(a)["system/human"]["value"]


def in_copy_tree(files, tip):
    """The path of an object that the commit needs, other than itself."""
    objects = [path for path, _ in files if path.startswith("objects/")]
    return next(path for path in objects if path != f"objects/{tip[:2]}/{tip[2:]}")


def test_service_rule_15_a_repository_that_any_git_reads(one, root):
    _, a, _ = one
    config = in_folder(root, a, "config", "--file", root.repository(a) + "/config", "--list")
    assert "core.repositoryformatversion=0" in config and "extensions." not in config
    assert in_folder(root, a, "rev-parse", "--show-object-format") == "sha1"
    assert not os.path.exists(root.repository(a) + "/packed-refs")
    in_folder(root, a, "fsck", "--full", "--strict")


# -- what a push and a write see of each other -----------------------------------------------------

def test_a_push_through_the_server_is_in_its_folder_when_it_returns(one, root):
    s, a, c = one
    for i in range(5):
        tip = save(c, {"n.md": f"{i}\n"})
        assert root.tip(a) == tip and root.read(a)["n.md"] == f"{i}\n"
    assert letta_row(s, a)["state"] == "mirrored"


def test_H2_what_the_server_wrote_is_told_with_the_next_refs(one, root):
    s, a, c = one
    tip = root.commit(a, {"system/human.md": "Likes coffee.\n"})
    assert c.text("ls-remote", "origin", MAIN).split()[0] == tip
    assert s.blocks(a)["system/human"]["value"] == "Likes coffee.\n"


def test_H2_what_the_server_wrote_is_taken_in_by_itself(one, root):
    s, a, _ = one
    tip = root.commit(a, {"system/human.md": "Likes coffee.\n"})
    wait(lambda: s.git_dir(a, "rev-parse", MAIN).stdout.decode().strip() == tip, "the sweep")
    assert s.value(a, "system/human") == "Likes coffee.\n"


def test_H2_a_write_that_began_before_a_push_is_merged(one, root):
    """The server copies out, we push, it writes its commit over ours: both are kept."""
    s, a, c = one
    theirs, files = root.begin(a, {"system/human.md": "Likes coffee.\n"})
    ours = save(c, {"b.md": "b\n"})
    root.write_back(a, files)
    assert root.tip(a) == theirs
    c.run("pull", "-q", "--ff-only", "origin", "main")
    assert is_ancestor(c.path + "/.git", theirs, "HEAD") and is_ancestor(c.path + "/.git", ours, "HEAD")
    wait(lambda: root.tip(a) == c.text("rev-parse", "HEAD"), "the merge is in the folder")
    assert root.read(a) == {"system/human.md": "Likes coffee.\n", "b.md": "b\n"}
    assert letta_row(s, a)["note"] in ("", None)


def test_H2_a_push_over_what_the_server_wrote_meanwhile_is_merged(one, root):
    """The client has fetched, the server writes, the client pushes: not refused, merged."""
    s, a, c = one
    c.write("b.md", "b\n")
    c.run("add", "-A")
    c.run("commit", "-q", "-m", "b")
    theirs = root.commit(a, {"system/human.md": "Likes coffee.\n"})
    done = c.run("push", "-q", "origin", "HEAD:main", check=False)
    if done.returncode != 0:                # its refs were told with the merge already
        c.run("pull", "-q", "--no-rebase", "origin", "main")
        c.run("push", "-q", "origin", "HEAD:main")
    assert is_ancestor(root.repository(a), theirs, MAIN)
    assert root.read(a) == {"system/human.md": "Likes coffee.\n", "b.md": "b\n"}


def test_H5_a_fresh_repository_over_the_old_one_is_joined(one, root):
    """What the server does when it takes a repository for missing (rule 6): nothing is lost."""
    s, a, c = one
    ours = save(c, {"b.md": "b\n"})
    theirs = root.create(a, {"system/new.md": "new\n"})
    assert root.tip(a) == theirs
    c.run("pull", "-q", "--ff-only", "origin", "main")
    for tip in (ours, theirs):
        assert is_ancestor(c.path + "/.git", tip, "HEAD")
    wait(lambda: root.tip(a) == c.text("rev-parse", "HEAD"), "the merge is in the folder")
    assert set(root.read(a)) == {"system/human.md", "b.md", "system/new.md"}
    assert letta_row(s, a)["note"] == "unrelated"


def test_H5_the_servers_first_commit_is_merged_with_the_genesis_before_it_is_told(served, root, client,
                                                                                  agent, folder):
    s, a = served(), agent()
    first = root.create(a, {"system/human.md": "Likes tea.\n"})
    c = checkout(client, s, a, folder / "c")
    for tip in (first, wire.GENESIS):
        assert is_ancestor(c.path + "/.git", tip, "HEAD")
    wait(lambda: root.tip(a) == c.text("rev-parse", "HEAD"), "the merge is in the folder")
    assert s.value(a, "system/human") == "Likes tea.\n"
    assert letta_row(s, a)["note"] in ("", None)


def test_agents_that_are_in_the_folder_already_come_by_themselves(served, root, agent):
    agents = [agent() for _ in range(30)]
    for a in agents:
        root.create(a, {"system/human.md": f"I am {a}.\n"})
    s = served()
    wait(lambda: len(s.get("/v1/agents?limit=100").json()) == 30, "all of them are here")
    for a in agents:
        wait(lambda a=a: s.blocks(a), "its blocks")
        assert s.value(a, "system/human") == f"I am {a}.\n"


def test_H2_where_a_filesystem_cannot_exchange_two_names(one, root, folder):
    """As NFS cannot: main is read once more and replaced."""
    s, a, c = one
    with Trace(s.pid, folder / "trace", "-e", "trace=renameat2", "-e",
               "inject=renameat2:error=EINVAL") as trace:
        tip = save(c, {"b.md": "b\n"})
        assert root.tip(a) == tip
        theirs = root.commit(a, {"system/human.md": "Likes coffee.\n"})
        c.run("pull", "-q", "--no-rebase", "origin", "main")
        assert c.text("rev-parse", "HEAD") == theirs
        tip = save(c, {"c.md": "c\n"})
        assert root.tip(a) == tip and trace.injected
    assert root.read(a) == {"system/human.md": "Likes coffee.\n", "b.md": "b\n", "c.md": "c\n"}


def test_H2_a_memory_that_cannot_be_taken_in_yet_is_not_told_as_an_empty_one(served, root, client, agent,
                                                                             folder):
    """Its first commit is half-written: who clones now would push an empty memory's successor."""
    a, b = agent(), agent()
    root.create(a, {"system/human.md": "Likes tea.\n"})
    objects = root.repository(a) + "/objects"
    os.rename(objects, objects + ".later")
    os.makedirs(objects + "/pack")
    s = served()
    head = {"X-Organization-Id": ORG}
    told = s.get(f"/git/{a}/state.git/info/refs?service=git-upload-pack", head)
    assert told.status == 503 and int(told.headers["retry-after"]) > 0 and b"taken in" in told.body
    assert s.get(f"/git/{b}/state.git/info/refs?service=git-upload-pack", head).status == 200
    os.rmdir(objects + "/pack")
    os.rmdir(objects)
    os.rename(objects + ".later", objects)
    c = checkout(client, s, a, folder / "c")
    assert open(c.path + "/system/human.md", encoding="utf-8").read() == "Likes tea.\n"


def test_T01_of_the_folder_git_reads_objects_and_nothing_else(one, root, folder):
    """Its config could name programs (CVE-2024-32004); one that no git reads shows that none did."""
    s, a, c = one
    theirs, files = root.begin(a, {"system/human.md": "Likes coffee.\n"})
    config = root.repository(a) + "/config"
    with open(config, encoding="ascii") as f:
        before = f.read()
    with open(config, "w", encoding="ascii") as f:
        f.write(f'{before}[remote "x"]\n\tpromisor = true\n\turl = {folder}/x\n'
                f'\tuploadpack = touch {folder}/ran; false\n[extensions]\n\tpartialClone = x\n[broken\n')
    root.write_back(a, files)
    wait(lambda: s.tip(a) == theirs, "it was taken in")
    assert not os.path.exists(folder / "ran")
    assert s.cli("mirror", "verify", "--agent", a, "--remote", "letta").returncode == 0
    with open(config, "w", encoding="ascii") as f:
        f.write(before)
    assert root.read(a) == {"system/human.md": "Likes coffee.\n"}


def test_an_agent_that_began_without_blocks(served, root, client, agent, folder):
    s, a = served(), agent()
    root.create(a)                                  # .letta/config.json is all that is in it
    c = checkout(client, s, a, folder / "c")
    save(c, {"system/human.md": "Likes tea.\n"})
    assert root.read(a) == {".letta/config.json": '{"version": 1}', "system/human.md": "Likes tea.\n"}
    assert set(s.blocks(a)) == {"system/human"}


def test_the_mirrors_commands_know_the_folder(one, root):
    s, a, _ = one
    assert letta_row(s, a)["address"] == root.repository(a)
    assert s.cli("mirror", "verify", "--agent", a).returncode == 0
    checked = s.cli("mirror", "check", "--remote", "letta", "--json", check=False)
    assert checked.returncode == 0, checked
    assert s.cli("mirror", "sync", "--agent", a).returncode == 0
    assert "letta" in s.cli("mirror", "list").stdout.decode()


# -- the server is made to re-read -----------------------------------------------------------------

def test_a_change_behind_the_servers_back_makes_it_re_read(one, root, letta, git, folder):
    s, a, c = one
    settle(s, letta)
    direct = git.clone(s.git_url(a), folder / "direct")
    tip = save(direct, {"system/human.md": "Likes coffee.\n"})
    path, body, headers = wait(lambda: letta.of(a), "the post")[0]
    assert (path, body) == (f"/v1/git/{a}/state.git/git-receive-pack", b"0000")
    assert headers["Content-Type"] == "application/x-git-receive-pack-request"
    assert root.tip(a) == tip                                   # and it was published first
    wait(lambda: os.listdir(s.home + "/letta") == [], "the mark is gone")


def test_L3_a_relayed_push_is_posted_too_as_nobody_tells_whether_the_server_reads(one, root, letta, folder):
    """Its report is in our pipe, and the server, or its client, may be gone before it is relayed."""
    s, a, c = one
    settle(s, letta)
    save(c, {"c.md": "c\n"})
    wait(lambda: letta.of(a), "the post")
    settle(s, letta)
    letta.status = 503                                          # it is being restarted
    tip = save(c, {"d.md": "d\n"})
    wait(lambda: letta.of(a), "a first post")
    s.kill()
    assert os.listdir(s.home + "/letta") == [a]
    letta.status, letta.posted[:] = 200, []
    s.start()
    wait(lambda: letta.of(a), "the post that was owed")
    wait(lambda: os.listdir(s.home + "/letta") == [], "the mark is gone")
    assert root.tip(a) == s.tip(a) == tip


def test_L3_a_server_that_is_away_is_told_later_even_after_a_kill(one, root, letta, git, folder):
    s, a, _ = one
    settle(s, letta)
    letta.status = 503
    direct = git.clone(s.git_url(a), folder / "direct")
    save(direct, {"n.md": "1\n"})
    wait(lambda: letta.of(a), "a first post")
    for i in range(3):
        save(direct, {"n.md": f"again {i}\n"})                  # nobody waits
    wait(lambda: "letta_server_away" in s.log(), "it is told")
    s.kill()
    assert os.listdir(s.home + "/letta") == [a]
    letta.status, letta.posted[:] = 200, []
    s.start()
    wait(lambda: letta.of(a), "the post that was owed")
    wait(lambda: os.listdir(s.home + "/letta") == [], "the mark is gone")


def test_L3_an_agent_that_the_server_cannot_read_keeps_no_other_waiting(served, root, letta, agent, git,
                                                                         folder):
    s, bad, good = served(), agent(), agent()
    for a in (bad, good):
        root.create(a, {"a.md": "a\n"})
    wait(lambda: len(letta.of(bad)) and len(letta.of(good)), "both joined, and re-read")
    wait(lambda: os.listdir(s.home + "/letta") == [], "the marks are gone")
    letta.broken, n_bad = bad, len(letta.of(bad))
    save(git.clone(s.git_url(bad), folder / "bad"), {"n.md": "1\n"})
    wait(lambda: "letta_reread_refused" in s.log(), "it is told")
    n = len(letta.of(good))
    wait(lambda: len(letta.of(bad)) >= n_bad + 4, "its waits are some seconds long")
    for i in range(6):
        n_bad = len(letta.of(bad))
        save(git.clone(s.git_url(good), folder / f"good{i}"), {"n.md": f"{i}\n"})
        wait(lambda i=i: len(letta.of(good)) > n + i, "the other has its turn")
        if len(letta.of(bad)) == n_bad:
            break                                   # and did not have to wait for its
    else:
        raise AssertionError("each time the one that is put off came first")
    assert "letta_server_away" not in s.log() and bad in os.listdir(s.home + "/letta")
    letta.broken = None
    wait(lambda: os.listdir(s.home + "/letta") == [], "it is asked again by itself")


def test_L6_a_mark_that_cannot_be_removed_is_one_post_and_no_storm(one, root, letta, git, folder):
    s, a, _ = one
    settle(s, letta)
    direct = git.clone(s.git_url(a), folder / "direct")
    with Trace(s.pid, folder / "trace", "-e", "trace=unlink,unlinkat", "-P", f"{s.home}/letta/{a}",
               "-e", "inject=unlink,unlinkat:error=EIO") as trace:
        save(direct, {"n.md": "1\n"})
        wait(lambda: "letta_mark_failed" in s.log(), "it is told")
        assert trace.injected
    n = len(letta.of(a))
    save(direct, {"n.md": "2\n"})                    # the next change is posted, and its mark goes
    wait(lambda: len(letta.of(a)) > n, "the post")
    wait(lambda: os.listdir(s.home + "/letta") == [], "the mark is gone")
    assert n == 1 and s.log().count("letta_mark_failed") == 1


def test_its_password_is_shown_to_the_server_and_to_nobody_else(served, root, client, letta, git, agent,
                                                               folder):
    secret = folder / "password"
    secret.write_text("letta-pw-canary\n")
    secret.chmod(0o600)
    s, a = served("--letta-token-file", str(secret)), agent()
    root.create(a, {"a.md": "a\n"})
    direct = git.clone(s.git_url(a), folder / "direct")
    save(direct, {"b.md": "b\n"})
    headers = wait(lambda: letta.of(a), "the post")[0][2]
    assert headers["Authorization"] == "Bearer letta-pw-canary"
    s.secrets.append(b"letta-pw-canary")                        # S3 looks for it


# -- who is believed (T03) -------------------------------------------------------------------------

def test_T03_an_organization_from_elsewhere_opens_nothing(servers, root, client, agent, folder):
    s, a = servers(args=["--letta-root", root.root, "--letta-proxy", "10.9.8.7,fd00::/8"]), agent()
    s.token("admin")
    head = {"X-Organization-Id": ORG, "Authorization": "Basic bGV0dGE6eA=="}
    for _ in range(3):
        assert s.get(f"/git/{a}/state.git/info/refs?service=git-receive-pack", head).status == 401
    assert s.log().count("event=organization_ignored") == 1
    assert client.run("clone", "-q", s.git_url(a, "/git/{agent}/state.git"), folder / "c",
                      check=False).returncode != 0
    assert not os.path.exists(root.root + "/repository")


def test_T03_without_tokens_an_organization_from_elsewhere_names_no_folder(servers, root, client, agent,
                                                                          folder):
    s, a = servers(args=["--letta-root", root.root, "--letta-proxy", "10.9.8.7"]), agent()
    save(checkout(client, s, a, folder / "c"), {"a.md": "a\n"})
    assert s.value(a, "a") == "a\n" and not os.path.exists(root.root + "/repository")


def test_T03_what_the_server_vouches_for_is_one_agent_and_git_alone(served, client, agent, folder):
    s, a, b = served(), agent(), agent()
    token = s.token(f"agent:{b}:ro")["token"]
    head = {"X-Organization-Id": ORG}
    save(checkout(client, s, a, folder / "c"), {"a.md": "a\n"})
    assert s.get(f"/v1/agents/{a}/core-memory/blocks", head).status == 401
    assert s.get("/v1/agents", head).status == 401
    assert s.get(f"/git/{a}/state.git/info/refs?service=git-receive-pack", head).status == 200
    # a token that is known here decides alone
    known = {**head, "Authorization": f"Bearer {token}"}
    assert s.get(f"/git/{b}/state.git/info/refs?service=git-upload-pack", known).status == 200
    assert s.get(f"/git/{b}/state.git/info/refs?service=git-receive-pack", known).status == 403
    assert s.get(f"/git/{a}/state.git/info/refs?service=git-upload-pack", known).status == 404


@pytest.mark.parametrize("org", ["../../../tmp/x", "org-1", "", "org-../..", ORG + "/.."])
def test_T01_an_organization_that_is_none_names_no_folder(served, root, agent, org):
    s, a = served(), agent()
    made = wire.Objects()
    tip = made.commit(made.tree_of({"a.md": b"a\n"}), [wire.GENESIS])
    report = s.push_raw(a, [(wire.GENESIS, tip, MAIN)], made.pack(),
                        headers={"X-Organization-Id": org})
    assert report.status == 200
    assert s.value(a, "a") == "a\n" and os.listdir(root.root) == []


FORMS = {"/v1/git/{agent}/state.git": False, "/v1/git/{agent}": False, "/git/{agent}": False,
         "/latest/git/{agent}/state.git": False, "/git/{agent}/state.git": True,
         "/git/./{agent}/state.git": False, "/git/{agent}/x/../state.git": False,
         "/git/{agent}/%73tate.git": False, "/git/{agent}%2Fstate.git": False,
         "//git/{agent}/state.git": False}


@pytest.mark.parametrize("header", [ORG, ""])
@pytest.mark.parametrize("near", [True, False])
def test_T03_only_what_the_server_asks_its_rules_for_is_vouched_for(servers, root, client, agent, folder,
                                                                   header, near):
    """Its proxy checks, and overwrites the header, for {agent}/state.git alone (http-api 2.3)."""
    s = servers(args=["--letta-root", root.root, "--letta-proxy", "127.0.0.1" if near else "10.9.8.7"])
    a = agent()
    root.create(a, {"system/human.md": "Likes tea.\n"})
    s.token("admin")
    head = {"X-Organization-Id": header} if header else {}
    for form, is_checked in FORMS.items():
        base = form.format(agent=a)
        codes = {s.get(f"{base}/info/refs?service={what}", head).status
                 for what in ("git-upload-pack", "git-receive-pack")}
        codes |= {s.request("POST", f"{base}/{what}", b"0000", {
            **head, "Content-Type": f"application/x-{what}-request"}).status
            for what in ("git-upload-pack", "git-receive-pack")}
        if is_checked and near and header:
            assert codes == {200}, form
        else:
            assert codes <= {400, 401, 404}, (form, codes)
    assert s.get(f"/git/{a}/state.git/info/refs/?service=git-upload-pack", head).status in (401, 404)


def here(s, agent):
    return s.git_dir(agent, "rev-parse", MAIN).stdout.decode().strip()


OTHER_ORG = "org-11111111-1111-4111-8111-111111111111"


def attempts(s, agent, org):
    """What a client of `org` gets of an agent: its statuses, a push among them."""
    head = {"X-Organization-Id": org}
    tip = wire.GENESIS
    made = wire.Objects()
    new = made.commit(made.tree_of({"evil.md": b"evil\n"}), [tip])
    read = s.get(f"/git/{agent}/state.git/info/refs?service=git-upload-pack", head).status
    fetch = s.request("POST", f"/git/{agent}/state.git/git-upload-pack", b"0014command=ls-refs\n0000", {
        **head, "Git-Protocol": "version=2", "Content-Type": "application/x-git-upload-pack-request"})
    push = s.request("POST", f"/git/{agent}/state.git/git-receive-pack",
                     wire.push_body([(tip, new, MAIN)], made.pack(), wire.CAPS),
                     {**head, "Content-Type": "application/x-git-receive-pack-request"})
    return [read, fetch.status, push.status]


def test_T03_the_organization_must_be_the_agents(served, root, agent):
    """Dot segments go before we see them, so the proxy may have checked another agent than this."""
    s, a = served(), agent()
    s.token("admin")
    root.create(a, {"system/human.md": "Likes tea.\n"})
    wait(lambda: os.path.isdir(s.repository(a)) and root.tip(a) == here(s, a), "it is here, and joined")
    tip = here(s, a)
    assert attempts(s, a, OTHER_ORG) == [404] * 3
    os.rename(root.root, root.root + ".away")           # whose it is was not seen in this process
    assert attempts(s, a, OTHER_ORG) == [503] * 3
    os.rename(root.root + ".away", root.root)
    assert here(s, a) == tip
    assert not os.path.exists(f"{root.root}/repository/{OTHER_ORG}")
    assert attempts(s, a, ORG)[0] == 200


def test_T03_an_agent_that_the_server_does_not_know_is_no_organizations(served, root, git, client, agent,
                                                                       folder):
    s, a, b = served(), agent(), agent()
    assert s.get(f"/git/{a}/state.git/info/refs?service=git-upload-pack",
                 {"X-Organization-Id": OTHER_ORG}).status == 200    # the genesis; that claims nothing
    tip = save(git.clone(s.git_url(a), folder / "direct"), {"a.md": "a\n"})
    token = s.token(f"agent:{a}:rw")["token"]
    assert attempts(s, a, OTHER_ORG) == [503] * 3                   # nothing says that it is mounted
    save(checkout(client, s, b, folder / "b"), {"b.md": "b\n"})
    assert attempts(s, a, OTHER_ORG) == [404] * 3
    known = {"X-Organization-Id": OTHER_ORG, "Authorization": f"Bearer {token}"}
    assert s.get(f"/git/{a}/state.git/info/refs?service=git-upload-pack", known).status == 200
    assert here(s, a) == tip and os.listdir(root.root + "/repository") == [ORG]


@pytest.mark.parametrize("where", ["agent", "repository", "packs", "heads"])
def test_T01_a_link_in_the_folder_is_not_followed(served, root, client, git, agent, folder, where):
    """Whoever writes the volume would reach our own repositories by it."""
    s, a, victim, b = served(), agent(), agent(), agent()
    secret = save(git.clone(s.git_url(victim), folder / "v"), {"secret.md": "s\n"})
    theirs = s.git_dir(victim, "rev-parse", "--absolute-git-dir").stdout.decode().strip()
    save(checkout(client, s, b, folder / "b"), {"b.md": "b\n"})      # the volume is there
    repo = root.repository(a)
    if where in ("packs", "heads"):
        c = checkout(client, s, a, folder / "c")
        save(c, {"a.md": "a\n"})
        at = repo + ("/objects/pack" if where == "packs" else "/refs/heads")
        os.rename(at, at + ".was")
        os.symlink(theirs + ("/objects/pack" if where == "packs" else "/refs/heads"), at)
    else:
        os.makedirs(os.path.dirname(os.path.dirname(repo)), exist_ok=True)
        if where == "agent":
            os.symlink(os.path.dirname(theirs), os.path.dirname(repo))
        else:
            os.makedirs(os.path.dirname(repo))
            os.symlink(theirs, repo)
    before = tree_of(theirs)
    if where in ("packs", "heads"):
        d = git.clone(s.git_url(a), folder / "d")
        assert not os.path.exists(d.path + "/secret.md")
        save(d, {"n.md": "n\n"})
    else:                                       # what its memory is cannot be seen, so none is told
        assert s.get(f"/v1/git/{a}/state.git/info/refs?service=git-upload-pack").status == 503
        made = wire.Objects()
        tip = made.commit(made.tree_of({"n.md": b"n\n"}), [wire.GENESIS])
        assert s.push_raw(a, [(wire.GENESIS, tip, MAIN)], made.pack()).status == 200
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta", check=False)
    assert tree_of(theirs) == before and s.tip(victim) == secret
    assert not s.git_dir(a, "cat-file", "-e", secret, check=False).returncode == 0


def tree_of(path):
    return sorted((os.path.join(base, name), os.lstat(os.path.join(base, name)).st_mtime_ns)
                  for base, _, names in os.walk(path) for name in names)


# -- what the proxy sends --------------------------------------------------------------------------

def chunked(s, target, body, headers):
    """As httpx sends what it relays: chunks, no length."""
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    pieces = [body[i:i + 1000] for i in range(0, len(body), 1000)]
    connection.request("POST", target, iter(pieces), headers, encode_chunked=True)
    answer = connection.getresponse()
    out = answer.status, answer.read()
    connection.close()
    return out


def test_K7_the_flush_packet_is_answered_by_the_routes_without_v1(one):
    s, a, _ = one
    head = {"Content-Type": "application/x-git-receive-pack-request", "Transfer-Encoding": "chunked",
            "X-Organization-Id": ORG}
    for expect in ({}, {"Expect": "100-continue"}):
        assert chunked(s, f"/git/{a}/state.git/git-receive-pack", b"0000",
                       {**head, **expect}) == (200, b"")


def test_chunked_and_gzipped_bodies_of_the_proxy(one):
    s, a, c = one
    tip = c.text("rev-parse", "HEAD")
    lines = [b"0011command=fetch", b"0001", b"0010no-progress\n", b"%04xwant %s\n" % (len(tip) + 10, tip.encode()),
             b"0009done\n", b"0000"]
    body = b"".join(lines)
    head = {"Content-Type": "application/x-git-upload-pack-request", "Git-Protocol": "version=2",
            "Transfer-Encoding": "chunked", "X-Organization-Id": ORG}
    for sent, more in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        code, answer = chunked(s, f"/git/{a}/state.git/git-upload-pack", sent, {**head, **more})
        assert code == 200 and b"PACK" in answer and answer.endswith(b"0000")
    made = wire.Objects()
    new = made.commit(made.tree_of({"z.md": os.urandom(3000).hex().encode()}), [tip])
    pushed = wire.push_body([(tip, new, MAIN)], made.pack(), wire.CAPS)
    code, answer = chunked(s, f"/git/{a}/state.git/git-receive-pack", pushed, {
        "Content-Type": "application/x-git-receive-pack-request", "Transfer-Encoding": "chunked",
        "X-Organization-Id": ORG})
    assert code == 200 and b"ok refs/heads/main" in answer and s.tip(a) == new


# -- a volume that is not there --------------------------------------------------------------------

def test_F16_a_folder_that_is_gone_is_not_made_up_again(one, root):
    s, a, c = one
    shutil.rmtree(os.path.join(root.root, "repository"))
    tip = save(c, {"b.md": "b\n"})                              # local work goes on
    assert s.tip(a) == tip and not os.path.exists(root.repository(a))
    assert letta_row(s, a)["state"] == "missing"
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    assert root.tip(a) == tip and set(root.read(a)) == {"system/human.md", "b.md"}


def test_F16_a_folder_that_was_there_is_remembered_over_a_restart_without_it(served, root, git, agent, folder):
    """Of another organization than one would guess: its address is not known while it is away."""
    s, a = served(), agent()
    other = LettaFolder(root.root, OTHER_ORG)
    other.create(a, {"a.md": "a\n"})
    wait(lambda: os.path.isdir(s.repository(a)) and other.tip(a) == here(s, a), "it is here, and joined")
    s.stop()
    os.rename(root.root, root.root + ".away")
    os.makedirs(root.root)                                      # a mount point
    s.start()
    tip = save(git.clone(s.git_url(a), folder / "direct"), {"b.md": "b\n"})
    wait(lambda: letta_row(s, a)["state"] == "missing", "it is missed")
    os.rmdir(root.root)                                         # nothing was made up in it
    os.rename(root.root + ".away", root.root)
    s.cli("mirror", "retry", "--agent", a, "--remote", "letta")
    assert other.tip(a) == tip == s.tip(a)


def test_F16_what_a_volume_that_is_away_may_have_is_not_told_as_an_empty_memory(served, root, client, agent,
                                                                               folder):
    s, a = served(), agent()
    os.rename(root.root, root.root + ".away")
    elsewhere = LettaFolder(root.root + ".away")
    elsewhere.create(a, {"system/human.md": "Likes tea.\n"})    # which memfs has not seen
    head = {"X-Organization-Id": ORG}
    told = s.get(f"/git/{a}/state.git/info/refs?service=git-upload-pack", head)
    assert told.status == 503 and b"volume mounted" in told.body
    os.rename(root.root + ".away", root.root)
    c = checkout(client, s, a, folder / "c")
    assert open(c.path + "/system/human.md", encoding="utf-8").read() == "Likes tea.\n"


def test_L3_pushes_go_on_without_the_folder(one, root):
    s, a, c = one
    os.rename(root.root, root.root + ".away")
    c.write("b.md", "b\n")
    c.run("add", "-A")
    c.run("commit", "-q", "-m", "b")
    said = c.run("push", "origin", "HEAD:main").stderr.decode()
    assert "the commit is safe; the Letta server's blocks will follow" in said
    os.rename(root.root + ".away", root.root)
    wait(lambda: root.tip(a) == c.text("rev-parse", "HEAD"), "it followed")


def test_L3_a_volume_that_hangs_holds_up_no_request_and_no_stop(served, root, client, git, agent, folder):
    """As a hard NFS mount does: a read of it returns when the volume does, and nothing ends it."""
    s = served(env={"ASAN_OPTIONS": "detect_leaks=0:log_path=stderr"})  # it cannot look at what is traced
    a, b = agent(), agent()
    c = checkout(client, s, a, folder / "c")
    save(c, {"a.md": "a\n"})
    save(git.clone(s.git_url(b), folder / "b"), {"b.md": "b\n"})
    with Trace(s.pid, folder / "trace", "-e", "trace=openat", "-P", root.root + "/repository",
               "-e", "inject=openat:delay_enter=600000000"):
        for _ in range(6):                          # more than look at it; main is told as it is here
            assert c.text("ls-remote", "origin", MAIN).split()[0] == s.tip(a)
        direct = git.clone(s.git_url(b), folder / "d")
        tip = save(direct, {"c.md": "c\n"})
        assert s.tip(b) == tip and s.value(b, "c") == "c\n"
        unseen = s.get(f"/git/{agent()}/state.git/info/refs?service=git-upload-pack",
                       {"X-Organization-Id": ORG})
        assert unseen.status == 503                 # it may have a memory there
        assert letta_row(s, a)["address"] == root.repository(a)     # the status looks at nothing
        c.write("n.md", "n\n")
        c.run("add", "-A")
        c.run("commit", "-q", "-m", "n")
        said = c.run("push", "origin", "HEAD:main").stderr.decode()
        assert "the commit is safe; the Letta server's blocks will follow" in said
        os.kill(s.pid, signal.SIGTERM)
        wait(lambda: "event=letta_volume_hangs" in s.log(), "the stop waits for it no longer")
    wait(lambda: not s.running, "strace kept it")
    s.start()
    wait(lambda: root.tip(a) == c.text("rev-parse", "HEAD"), "it followed")


def test_memories_that_the_server_does_not_know_are_no_trouble(served, root, git, agent, folder):
    s, a = served(), agent()
    save(git.clone(s.git_url(a), folder / "c"), {"a.md": "a\n"})
    assert not os.path.exists(root.root + "/repository")
    told = s.cli("mirror", "status", "--json", check=False)
    assert told.returncode == 0 and json.loads(told.stdout)["rows"] == []
    assert "mirror_failed" not in s.log()


# -- options ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("args, says", [
    (["--letta-root", "/x"], "--letta-root needs --letta-proxy"),
    (["--letta-proxy", "127.0.0.1"], "--letta-root"),
    (["--letta-url", "http://127.0.0.1:1"], "--letta-database or --upstream"),
    (["--upstream", "http://127.0.0.1:1", "--letta-token-file", "/t"], "--letta-url"),
    (["--letta-root", "x", "--letta-proxy", "127.0.0.1"], "absolute path"),
    (["--letta-root", "/x", "--letta-proxy", "letta"], "is no address"),
    (["--letta-root", "/x", "--letta-proxy", "10.0.0.0/33"], "is no address"),
    (["--letta-root", "/x", "--letta-proxy", "127.0.0.1", "--letta-url", "http://u:p@h"], "looks like"),
    (["--letta-root", "/x", "--letta-proxy", "127.0.0.1", "--letta-token-file", "/t"], "--letta-url"),
    (["--letta-root", "/x", "--letta-proxy", "127.0.0.1", "--behind-proxy"], "--behind-proxy"),
    (["--letta-root", "/x", "--letta-proxy", "127.0.0.1", "--cluster-url", "http://127.0.0.1:1"],
     "--cluster-url"),
])
def test_options_that_do_not_go_together_say_so(memfs_bin, folder, args, says):
    done = subprocess.run([memfs_bin, "serve", "--home", str(folder / "h"), "--listen", "127.0.0.1:0",
                           *args], capture_output=True, timeout=60, cwd="/",
                          env={"PATH": "/usr/bin:/bin", "HOME": str(folder)})
    assert done.returncode != 0 and says in done.stderr.decode(), done.stderr


def test_a_remote_of_that_name_is_refused(servers, root):
    s = servers(start=False, args=["--letta-root", root.root, "--letta-proxy", "127.0.0.1"])
    os.makedirs(s.home, mode=0o700)
    with open(s.home + "/config", "w", encoding="utf-8") as f:
        f.write('[mirror "letta"]\n\turl = https://h/{agentId}.git\n')
    with pytest.raises(AssertionError, match="give it another one"):
        s.start()
    s.expected_codes = (2,)


def test_settings_come_from_variables_and_from_the_config_file(servers, root, client, agent, folder):
    s = servers(start=False, env={"MEMFS_LETTA_PROXY": "127.0.0.1"})
    os.makedirs(s.home, mode=0o700)
    with open(s.home + "/config", "w", encoding="utf-8") as f:
        f.write(f"[memfs]\n\tlettaRoot = {root.root}\n\tlettaProxy = 10.9.8.7\n")
    s.start()
    a = agent()
    tip = save(checkout(client, s, a, folder / "c"), {"a.md": "a\n"})
    assert root.tip(a) == tip
    assert b"lettaRoot" not in s.cli("agents", "list").stderr
    s.stop()                                        # the folder is a remote for its commands, too
    assert letta_row(s, a)["state"] == "mirrored"
    assert s.cli("mirror", "retry", "--agent", a, "--remote", "letta").returncode == 0
    refused = s.cli("mirror", "remove", "letta", check=False)
    assert refused.returncode != 0 and letta_row(s, a)["state"] == "mirrored", refused
    assert b"letta" not in s.cli("agents", "list").stderr
    s.start()
