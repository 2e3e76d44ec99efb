"""F01, F02, L2: the server or a git child is killed at any instant; nothing acknowledged is lost,
the next start needs no hand, the cache equals git.  CRASHES sets the number of random kills."""
import os
import random
import signal
import subprocess
import time

import pytest

from lib.server import descendants, new_agent
from lib.summary import count, most
from lib.trace import Trace
from lib.writer import Load, Memory


def kill_git_child(server, patience_s):
    """SIGKILL of one git process below the server; False when none showed up."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        kids = descendants(server.pid)
        if kids:
            try:
                os.kill(random.choice(kids), signal.SIGKILL)
                return True
            except ProcessLookupError:
                pass
    return False


def examine(server, load):
    """With the load at rest: every promise of L2 and D1."""
    for m in load.memories:
        if m.pending is not None:
            m.settle()
    assert load.lost() == []
    load.check_blocks()
    server.verify()
    server.fsck_all()
    server.wait_no_leftovers()


@pytest.mark.parametrize("victim", ["server", "git", "either"])
def test_F01_F02_L2_random_kills_under_load(server, scale, victim):
    kills = int(os.environ.get("CRASHES", scale(200, 5000))) // 3 + 1
    rnd = random.Random(victim)
    load = Load(server, 4).start()
    server_kills, git_kills, slowest = 0, 0, 0.0
    try:
        for i in range(kills):
            if rnd.random() < 0.5:      # the others come however slow the machine is
                load.wait_for_an_ack()
            time.sleep(rnd.uniform(0, 0.12))
            is_git = victim == "git" or (victim == "either" and rnd.random() < 0.5)
            if is_git and kill_git_child(server, 1.0):
                git_kills += 1
                assert server.running, server.log_tail()
            else:
                server.kill()
                server_kills += 1
                began = time.monotonic()
                server.start(timeout=15)
                slowest = max(slowest, time.monotonic() - began)
            assert not load.faults, load.faults[0]
            if i % 22 == 21:
                load.rest()
                examine(server, load)
                load.go.set()
        load.rest()
        load.stop()
        examine(server, load)
    finally:
        load.halt.set()
    count("crash", server_kills=server_kills, git_kills=git_kills, acked=load.n_acked, lost=0,
          broken_pushes=load.broken, refused_pushes=load.refused)
    most("crash", slowest_restart_s=slowest)
    assert load.n_acked > kills / 4 and server_kills + git_kills == kills


def ask_for_the_past(server, memory):
    answer = server.get(f"/v1/search?q=x&in=history&agent={memory.agent}")
    assert answer.status == 200, answer
    assert server.past(memory.agent) == (memory.tip, memory.tip)


def check_versions(server, memory):
    """None is missing and none too many: they are what a first question lists."""
    followed = server.versions(memory.agent)
    server.cli("rebuild", "--agent", memory.agent)
    assert server.versions(memory.agent) == []
    ask_for_the_past(server, memory)
    assert server.versions(memory.agent) == followed


@pytest.mark.parametrize("calls, limit, step", [
    ("rename,renameat,renameat2", 12, 1),
    ("fsync,fdatasync", 16, 1),
    ("unlink,unlinkat,rmdir", 8, 1),
    ("mkdir,mkdirat", 6, 1),
    ("pwrite64", 12, 2),
    ("write,writev,sendto,sendmsg", 24, 2),
    ("openat", 60, 6),
])
@pytest.mark.parametrize("is_first", [True, False], ids=["first-push", "next-push"])
def test_F01_killed_at_every_call(server, folder, scale, calls, limit, step, is_first):
    """SIGKILL as the N-th such call of any one thread or child begins, N = 1, 2, … until a push
    goes through untouched.  After each: start, nothing acknowledged lost, nothing half."""
    known = Memory(server, new_agent())
    known.must_push({"system/human.md": "known\n"})
    ask_for_the_past(server, known)
    hits = 0
    for n in range(1, scale(limit, 400) + 1, scale(step, 1)):
        memory = Memory(server, new_agent()) if is_first else known
        with Trace(server.pid, folder / "trace", "-e", "trace=" + calls, "-e",
                   f"inject={calls}:signal=KILL:when={n}") as trace:
            report = memory.push({"system/human.md": f"{n}\n", f"notes/{n}.md": "x\n"})
            memory.close()
        killed = [line for line in trace.lines() if "killed by SIGKILL" in line]
        if report.acked and not killed:
            break       # nothing was in its way: the end of the series
        hits += 1
        try:
            server.process.wait(5 if any(line.startswith(f"{server.pid} ") for line in killed)
                                else 0.2)
        except subprocess.TimeoutExpired:
            pass        # only a child of it was hit
        rows, versions = server.past(known.agent)
        assert versions == rows, "K1: versions are those of the rows, whatever was killed when"
        if not server.running:
            server.start(timeout=15)
        if memory.pending is not None:
            memory.settle()
        for m in {known, memory}:
            assert m.tip == server.tip(m.agent)
            if m.acked:
                shown = {k: v["value"] for k, v in server.blocks(m.agent).items()}
                assert shown == {p[:-3]: d.decode() for p, d in m.files.items()}
        memory.must_push({"system/human.md": f"after {n}\n"})
        assert server.value(memory.agent, "system/human") == f"after {n}\n"
        assert server.past(known.agent) == (known.tip, known.tip)
        memory.close()
        server.wait_no_leftovers()
    check_versions(server, known)
    known.close()
    count("crash", kills_at_calls=hits)


def test_F02_stale_lock_is_swept(server):
    """A dead git or server leaves main.lock; every later push would fail until a person came."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    path = server.repository(memory.agent)
    for lock in ("refs/heads/main.lock", "packed-refs.lock", "HEAD.lock", "config.lock"):
        with open(os.path.join(path, lock), "wb"):
            pass
    server.kill()
    server.start()
    memory.must_push({"system/human.md": "two\n"})
    assert server.value(memory.agent, "system/human") == "two\n"
    server.wait_no_leftovers()
    # and under a running server: who holds our own lock knows that git's is stale
    with open(os.path.join(path, "refs/heads/main.lock"), "wb"):
        pass
    memory.must_push({"system/human.md": "three\n"})
    memory.close()
    count("crash", stale_locks_swept=5)


def test_F02_incoming_folder_is_swept(server):
    """What a killed server left of half a pack is gone after the next start."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    stale = os.path.join(server.home, "tmp", "incoming-stale", "pack")
    os.makedirs(stale)
    with open(os.path.join(stale, "tmp_pack_x"), "wb") as f:
        f.write(b"PACK")
    server.kill()
    server.start()
    server.wait_no_leftovers()
    memory.close()


def test_L2_crash_between_ref_and_cache(server):
    """The ref moved, the cache did not hear of it: caught up at the first touch after the start."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    server.kill()
    commit, pack, files = memory.prepare({"system/human.md": "two\n", "system/new.md": "n\n"})
    server.git_dir(memory.agent, "unpack-objects", "-q", input=pack)
    server.git_dir(memory.agent, "update-ref", "-m", "push", "refs/heads/main", commit, memory.tip)
    memory._acknowledge(commit, files)
    server.start()
    assert server.value(memory.agent, "system/human") == "two\n"
    assert set(server.blocks(memory.agent)) == {"system/human", "system/new"}
    memory.close()


def test_L2_crash_between_folder_and_state(server, folder):
    """The repository of a new agent was renamed into place, the state does not know it yet."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    server.stop()
    stranger = new_agent()
    os.makedirs(os.path.dirname(server.repository(stranger)))
    subprocess.run(["cp", "-a", server.repository(memory.agent), server.repository(stranger)],
                   check=True, timeout=60)
    server.start()
    assert server.value(stranger, "system/human") == "one\n"
    assert stranger in [a["id"] for a in server.get("/v1/agents/?limit=0").json()]
    memory.close()
