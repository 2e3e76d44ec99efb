"""Faults of the machine, of git, of clients and of people with shell access (reliability, part 3).

Each test names its row.  What holds after every one of them: nothing acknowledged is lost, nothing
is half there, reads go on where they can, and the next start needs no hand.
"""
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from lib import http, wire
from lib.disk import fill, need_mounts, tmpfs
from lib.server import AUTH, Server, new_agent
from lib.summary import count, most
from lib.trace import Trace
from lib.writer import Load, Memory


def values(server, agent):
    return {label: row["value"] for label, row in server.blocks(agent).items()}


@pytest.fixture
def memory(server):
    m = Memory(server, new_agent())
    m.must_push({"system/human.md": "good\n", "notes/a.md": "A\n"})
    yield m
    m.close()


# -- F03: git itself misbehaves --------------------------------------------------------------------

WRAPPER = """#!/bin/sh
# stands in for git: behaves until told otherwise by a word in a file
mode=$(cat {flag} 2>/dev/null)
case "$*" in
*index-pack*|*upload-pack*) ;;
*) mode= ;;
esac
case "$mode" in
hang) exec sleep 1000 ;;
flood) yes 'a very long line of complaint' >&2 ;;
close) exec >&- 2>&-; sleep 1000 ;;
lie) cat >/dev/null; echo pack; exit 0 ;;
fail) echo 'fatal: of no use today' >&2; exit 128 ;;
esac
exec {real} "$@"
"""


@pytest.fixture
def wrapped(servers, folder):
    """A server whose git is a script of ours: bound over /usr/bin/git in a mount namespace."""
    need_mounts()
    real, script, flag = folder / "real-git", folder / "wrapper", folder / "mode"
    shutil.copy2("/usr/bin/git", real)
    script.write_text(WRAPPER.format(real=real, flag=flag))
    script.chmod(0o755)
    prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c",
              f'mount --bind {script} /usr/bin/git && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, timeout=30).returncode != 0:
        pytest.skip("no mount namespace")
    server = servers("wrapped", prefix=prefix)
    server.mode = lambda word: flag.write_text(word)
    return server


def is_process(pid):
    return os.path.exists(f"/proc/{pid}")


def wait_no_children(server, seconds):
    deadline = time.monotonic() + seconds
    while server.running and server.children() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not server.running or not server.children()


@pytest.mark.parametrize("mode", ["lie", "fail"])
def test_F03_F04_git_lies_or_fails(wrapped, mode):
    """Success is what the objects and the ref say, never an exit code."""
    server = wrapped
    m = Memory(server, new_agent())
    m.must_push({"system/human.md": "good\n"})
    before = server.state_of(m.agent)
    server.mode(mode)
    began = time.monotonic()
    commit, pack, _ = m.prepare({"system/human.md": "bad\n"})
    report = server.push_raw(m.agent, [(m.tip, commit, wire.MAIN)], pack)
    assert not report.acked and time.monotonic() - began < 60, report
    server.mode("")
    assert server.state_of(m.agent) == before
    m.must_push({"system/human.md": "well again\n"})
    assert server.value(m.agent, "system/human") == "well again\n"
    server.wait_no_leftovers()
    assert wait_no_children(server, 5)


def test_F03_git_hangs_floods_or_closes(wrapped, folder):
    """Three agents whose git never ends, in three ways.  Others are served meanwhile, in bounded
    memory, and SIGTERM ends server and children within its 25 s."""
    server = wrapped
    victims = {mode: Memory(server, new_agent()) for mode in ("hang", "flood", "close")}
    other = Memory(server, new_agent())
    for m in (*victims.values(), other):
        m.must_push({"system/human.md": "good\n"})
    before = {mode: server.state_of(m.agent) for mode, m in victims.items()}
    reports, stuck = {}, []

    def push(mode, m):
        commit, pack, _ = m.prepare({"system/human.md": "bad\n"})
        reports[mode] = server.push_raw(m.agent, [(m.tip, commit, wire.MAIN)], pack, timeout=60)
    for mode, m in victims.items():
        server.mode(mode)
        stuck.append(threading.Thread(target=push, args=(mode, m)))
        stuck[-1].start()
        time.sleep(0.4)     # its child has read the mode by now
    server.mode("")
    children = server.children()
    assert len(children) >= 3
    for i in range(3):
        began = time.monotonic()
        other.must_push({"system/human.md": f"served {i}\n"})
        assert server.value(victims["hang"].agent, "system/human") == "good\n"
        assert time.monotonic() - began < 30    # what hangs is given 120 s
    assert server.rss_kib() < 1 << 20
    server.terminate()
    assert server.wait(35) == 0, server.log_tail()
    for t in stuck:
        t.join(60)
    assert not any(r.acked for r in reports.values()), reports
    deadline = time.monotonic() + 30
    while any(map(is_process, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    orphans = [pid for pid in children if is_process(pid)]
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    assert not orphans, "the server has ended, what it started has not"
    server.start()
    for mode, m in victims.items():
        assert server.state_of(m.agent) == before[mode]
        m.must_push({"system/human.md": "after\n"})
        m.close()
    server.wait_no_leftovers()


@pytest.mark.soak       # waits out the deadline of a push
def test_F03_the_deadline_of_a_push(wrapped):
    server = wrapped
    m = Memory(server, new_agent())
    m.must_push({"system/human.md": "good\n"})
    server.mode("hang")
    commit, pack, _ = m.prepare({"system/human.md": "bad\n"})
    began = time.monotonic()
    report = server.push_raw(m.agent, [(m.tip, commit, wire.MAIN)], pack, timeout=200)
    assert not report.acked and 100 < time.monotonic() - began < 160, report
    server.mode("")
    assert wait_no_children(server, 5)
    m.must_push({"system/human.md": "after\n"})


# -- F04, F11: packs that are not whole ------------------------------------------------------------

def bad_packs(pack, step):
    for at in range(0, len(pack), step):
        yield f"cut at {at}", pack[:at]
        flipped = bytearray(pack)
        flipped[at] ^= 0x40
        yield f"flipped at {at}", bytes(flipped)


def test_F04_F11_damaged_packs(server, memory, scale):
    before = server.state_of(memory.agent)
    rnd = random.Random(5)
    commit, pack, _ = memory.prepare({"system/human.md": "bad\n",
                                      "notes/r.txt": rnd.randbytes(1500)})
    n = 0
    for what, data in bad_packs(pack, scale(97, 7)):
        report = server.push_raw(memory.agent, [(memory.tip, commit, wire.MAIN)], data, timeout=30)
        assert not report.acked, (what, report)
        assert report.status in (200, 400) and (report.status != 200 or report.complete), \
            (what, report)
        n += 1
    count("faults", damaged_packs=n)
    assert server.state_of(memory.agent) == before
    server.wait_no_leftovers()
    # trailing bytes behind a whole pack
    report = server.push_raw(memory.agent, [(memory.tip, commit, wire.MAIN)], pack + b"more")
    if not report.acked:
        assert server.state_of(memory.agent) == before


# -- F05: the disk does not take it ----------------------------------------------------------------

def test_F05_fsync_fails(server, memory, folder, scale):
    """EIO from the N-th fsync of any thread or child: no ack for what may not be on disk; the agent
    is fenced until it was found whole, and nothing is half."""
    failures, fenced = 0, 0
    for n in range(1, scale(14, 40)):
        with Trace(server.pid, folder / "trace", "-y", "-e", "trace=fsync,fdatasync", "-e",
                   f"inject=fsync,fdatasync:error=EIO:when={n}") as trace:
            report = memory.push({"system/human.md": f"text {n}\n"})
            memory.close()
        hit = [line for line in trace.injected if ".db" not in line]
        if not trace.injected:
            assert report.acked, report
            break
        failures += 1
        if hit:
            assert not report.acked, (report, hit)
        assert server.running, server.log_tail()
        if not report.acked:
            probe = server.get(f"/v1/git/{memory.agent}/state.git/info/refs"
                               "?service=git-receive-pack")
            if probe.status != 200:
                assert probe.status == 503, probe
                fenced += 1
                server.cli("verify", "--agent", memory.agent, check=False)
            memory.pending = memory.pending or (None, None)
            memory.settle()
        memory.must_push({"system/human.md": f"after {n}\n"})
        assert server.value(memory.agent, "system/human") == f"after {n}\n"
        server.wait_no_leftovers()
    count("faults", fsync_failures=failures, fenced=fenced)
    assert failures >= 3


def test_F05_fsync_fails_of_a_change_over_rest(server, memory, folder):
    """Asked again, it would find its objects there, and nothing to sync: fenced, until verify."""
    memory.must_push({"system/human.md": "text\n"})
    block = f"/v1/agents/{memory.agent}/core-memory/blocks/system/human"
    n_fenced = 0
    for n in range(1, 40):
        body = json.dumps({"value": f"text {n}\n"}).encode()
        with Trace(server.pid, folder / "trace", "-y", "-e", "trace=fsync,fdatasync", "-e",
                   f"inject=fsync,fdatasync:error=EIO:when={n}") as trace:
            answer = server.request("PATCH", block, body)
        if not trace.injected:
            assert answer.status == 200, answer
            break
        if any("repo.git" in line for line in trace.injected):
            assert answer.status == 503, (answer, trace.injected)
            assert server.request("PATCH", block, body).status == 503, trace.injected
            n_fenced += 1
            server.cli("verify", "--agent", memory.agent, check=False)
        answer = server.request("PATCH", block, body)
        assert answer.status == 200 and server.value(memory.agent, "system/human") == f"text {n}\n", answer
    assert n_fenced > 5
    memory.tip = server.tip(memory.agent)


def test_F05_fsync_fails_of_a_new_agent(server, folder):
    """Nothing is there that could be fenced: 503, whatever it was that the disk did not take, and the next one is made."""
    failures = 0
    for n in range(1, 60, 3):
        body = json.dumps({"name": f"n{n}", "memory_blocks": [{"label": "human", "value": "who"}]}).encode()
        with Trace(server.pid, folder / "trace", "-y", "-e", "trace=fsync,fdatasync", "-e",
                   f"inject=fsync,fdatasync:error=EIO:when={n}") as trace:
            answer = server.request("POST", "/v1/agents", body)
        if not trace.injected:
            break
        assert answer.status in (200, 503), (answer, trace.injected)
        failures += answer.status == 503
        assert server.request("POST", "/v1/agents", body).status == 200, trace.injected
        server.cli("verify", check=False)
    assert failures > 3


@pytest.mark.sqlite
def test_F05_fsync_fails_of_the_state(server, folder):
    """Not acknowledged; then the state's log begins anew, and nobody has to start the server again."""
    def ask(method, target, **body):
        return server.request(method, target, json.dumps(body).encode())

    agent = ask("POST", "/v1/agents", name="a").json()["id"]
    block = ask("POST", "/v1/blocks", label="b", value="v").json()["id"]
    for i, (method, target, key) in enumerate([
            ("PATCH", f"/v1/agents/{agent}", "description"), ("PATCH", f"/v1/blocks/{block}", "value"),
            ("POST", "/v1/repositories", "name")]):
        with Trace(server.pid, folder / "trace", "-P", f"{server.home}/state.db-wal", "-e", "trace=fdatasync", "-e",
                   "inject=fdatasync:error=EIO:when=1") as trace:
            answer = ask(method, target, **{key: f"lost-{i}"})
        assert trace.injected and answer.status == 503 and "is not known" in answer.detail, answer
        assert server.log().count("event=state_unsynced") == i + 1
        answer = ask(method, target, **{key: f"kept-{i}"})
        assert answer.status == 200 and answer.json()[key] == f"kept-{i}", answer
    server.kill()
    server.start()
    assert server.get(f"/v1/agents/{agent}").json()["description"] == "kept-0"
    assert server.get(f"/v1/blocks/{block}").json()["value"] == "kept-1"
    assert [row["name"] for row in server.get("/v1/repositories").json()["repositories"]] == ["kept-2"]


def test_F05_after_a_failed_fsync_of_the_ref_nothing_is_reported(server, memory, folder):
    """The answer ends without a report, so that no client takes it for a yes or a no."""
    for n in range(1, 14):
        with Trace(server.pid, folder / "trace", "-y", "-e", "trace=fsync,fdatasync", "-e",
                   f"inject=fsync,fdatasync:error=EIO:when={n}") as trace:
            report = memory.push({"system/human.md": f"{n}\n"})
            memory.close()
        if any("refs/heads>" in line for line in trace.injected):
            assert not report.complete and not report.refs, report
            assert [line for line in server.log().splitlines() if memory.agent in line
                    and ("level=warn" in line or "level=error" in line)], server.log_tail()
            server.cli("verify", "--agent", memory.agent, check=False)
            memory.settle()
            memory.must_push({"system/human.md": "after\n"})
            return
        if not trace.injected:
            break
        server.cli("verify", "--agent", memory.agent, check=False)
        memory.pending = memory.pending or (None, None)
        memory.settle()
    raise AssertionError("no fsync of refs/heads was met")


# -- F06: no space ---------------------------------------------------------------------------------

def test_F06_disk_full(memfs_bin, folder, scale):
    """A small disk with little room: refused or done, never half; reads go on; it recovers."""
    outcomes = {"ok": 0, "refused": 0, "http": 0, "behind": 0}
    with tmpfs(folder / "small", 24 << 10) as disk:
        server = Server(memfs_bin, folder / "s", home=disk.path + "/home").start()
        try:
            memory = Memory(server, new_agent(), timeout=20)
            memory.must_push({"system/human.md": "good\n"})
            ballast = disk.path + "/ballast"
            for room in range(0, scale(480, 2000), scale(20, 4)):
                fill(ballast, room)
                text = random.Random(room).randbytes(40_000).hex()
                before = values(server, memory.agent)
                report = memory.push({"system/human.md": f"{room}\n", "notes/big.md": text})
                if memory.pending is not None:
                    memory.settle()
                if report.acked:
                    outcomes["ok"] += 1
                else:
                    outcomes["refused" if report.status == 200 else "http"] += 1
                    assert report.status in (200, 503, 507, None), report
                    assert report.complete or report.status != 200 or not report.refs, report
                assert server.running, server.log_tail()
                # Reads go on, from one commit: the new one, or the one before while its rows must wait.
                new = {p[:-3]: d.decode() for p, d in memory.files.items()}
                shown = values(server, memory.agent)
                assert shown in (before, new)
                if report.acked and shown != new:
                    assert report.talk, report      # the push has said so
                    outcomes["behind"] += 1
                os.unlink(ballast)
                if not report.acked:
                    probe = server.get(f"/v1/git/{memory.agent}/state.git/info/refs"
                                       "?service=git-receive-pack")
                    if probe.status == 503:
                        server.cli("verify", check=False)
                memory.must_push({"system/human.md": f"room again {room}\n", "notes/big.md": None})
                assert values(server, memory.agent) == {
                    p[:-3]: d.decode() for p, d in memory.files.items()}
                if room % 100 == 0:
                    server.cli("repack", check=False)
            server.wait_no_leftovers()
            server.stop()
            server.check_clean()
        finally:
            memory.close()
            server.kill()
    count("faults", full_disk_ok=outcomes["ok"], full_disk_blocks_later=outcomes["behind"],
          full_disk_refused=outcomes["refused"] + outcomes["http"])
    assert outcomes["refused"] + outcomes["http"] > 0 and outcomes["ok"] > 0


def test_F07_few_descriptors(servers):
    """Without descriptors to spare: 503 or a refusal, the listener lives, and it ends."""
    server = servers("few", prefix=["prlimit", "--nofile=64:64", "--"])
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "good\n"})
    idle = []
    try:
        for _ in range(80):
            try:
                idle.append(http.connect(server.port, timeout=2))
            except OSError:
                break
        time.sleep(0.3)
        assert server.running
    finally:
        for s in idle:
            s.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if memory.push({"system/human.md": "again\n"}).acked:
            break
        if memory.pending:
            try:
                memory.settle()
            except Exception:
                time.sleep(0.1)
        time.sleep(0.1)
    assert server.value(memory.agent, "system/human") == "again\n"
    memory.close()


# -- F10: clients that leave -----------------------------------------------------------------------

def test_F10_client_leaves_in_the_body(server, memory, scale):
    before = server.state_of(memory.agent)
    commit, pack, _ = memory.prepare({"notes/r.txt": random.Random(6).randbytes(60_000)})
    body = wire.push_body([(memory.tip, commit, wire.MAIN)], pack)
    head = (f"POST /v1/git/{memory.agent}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {AUTH['Authorization']}\r\n"
            "Content-Type: application/x-git-receive-pack-request\r\n")
    offsets = [0, 1, 4, 60, 150, 200, 1000, 30_000, len(body) - 21, len(body) - 1]
    for at in offsets:
        for framing in (f"Content-Length: {len(body)}\r\n\r\n".encode(), None):
            with http.connect(server.port) as s:
                if framing:
                    s.sendall(head.encode() + framing + body[:at])
                else:
                    s.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" +
                              (b"%x\r\n" % max(at, 1)) + body[:at])
    count("faults", clients_left=2 * len(offsets))
    server.wait_no_leftovers(10)
    assert wait_no_children(server, 10)
    assert server.state_of(memory.agent) == before
    memory.must_push({"system/human.md": "still\n"})


def test_D4_F10_client_leaves_before_the_report(server, memory):
    """The whole body was sent, the answer never read: the commit stands or not; asking tells."""
    for delay in (0, 0.001, 0.01, 0.03, 0.1, 0.3):
        commit, pack, files = memory.prepare({"system/human.md": f"{delay}\n"})
        body = wire.push_body([(memory.tip, commit, wire.MAIN)], pack)
        with http.connect(server.port) as s:
            s.sendall(f"POST /v1/git/{memory.agent}/state.git/git-receive-pack HTTP/1.1\r\n"
                      f"Host: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(delay)
        again = server.push_raw(memory.agent, [(memory.tip, commit, wire.MAIN)], pack)
        assert again.acked, again       # the same request again ends in the same state
        memory._acknowledge(commit, files)
        assert server.value(memory.agent, "system/human") == f"{delay}\n"
    n = int(server.git_dir(memory.agent, "rev-list", "--count", "main").stdout)
    assert n == 2 + 6


def test_F10_slow_reader_of_a_clone(server, memory):
    """A client that asks for a pack and does not read: bounded memory, no child stays."""
    memory.must_push({"blob.bin": random.Random(7).randbytes(9 << 20)})
    base = server.rss_kib()
    body = wire.pkt(f"want {memory.tip} side-band-64k\n") + wire.FLUSH + wire.pkt("done\n")
    stuck = []
    for _ in range(3):
        s = http.connect(server.port)
        s.sendall(f"POST /v1/git/{memory.agent}/state.git/git-upload-pack HTTP/1.1\r\nHost: x\r\n"
                  "Content-Type: application/x-git-upload-pack-request\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        stuck.append(s)
    time.sleep(1.0)
    grown = (server.rss_kib() - base) / 1024
    memory.must_push({"system/human.md": "not in the way\n"})
    for s in stuck:
        s.close()
    assert grown < 40, grown
    assert wait_no_children(server, 35)


# -- F12, F14: the repository on disk --------------------------------------------------------------

def packs_of(server, agent, suffix=".pack"):
    return sorted(glob.glob(server.repository(agent) + "/objects/pack/*" + suffix))


def damage(path, at):
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 0xFF]))


@pytest.mark.parametrize("kind", ["flipped", "pack-gone", "ref-empty", "ref-to-nothing"])
def test_F12_damage_at_rest(server, memory, kind):
    """Found by verify and at read, fenced with 503, never mended by deleting; others are served."""
    other = Memory(server, new_agent())
    other.must_push({"system/human.md": "other\n"})
    server.stop()
    server.damaged.add(memory.agent)
    victim = packs_of(server, memory.agent)[0]
    ref = server.repository(memory.agent) + "/refs/heads/main"
    if kind == "flipped":
        damage(victim, os.path.getsize(victim) // 2)
    elif kind == "pack-gone":
        os.rename(victim, server.folder + "/gone.pack")
        os.rename(victim[:-5] + ".idx", server.folder + "/gone.idx")
    else:
        with open(ref, "w", encoding="ascii") as f:
            f.write("" if kind == "ref-empty" else "1" * 40 + "\n")
    found = server.verify()
    assert found.returncode != 0 and memory.agent in found.stdout.decode(), found
    assert other.agent not in found.stdout.decode()
    server.start()
    assert server.value(other.agent, "system/human") == "other\n"
    other.must_push({"system/human.md": "served\n"})
    report = memory.push({"system/human.md": "onto damage\n", "fresh.md": "x\n"})
    if kind != "flipped":       # a push need not touch the flipped byte
        assert not report.acked, report
        refs = server.get(f"/v1/git/{memory.agent}/state.git/info/refs?service=git-upload-pack")
        assert refs.status == 503, refs
    found = server.cli("verify", "--json", check=False)
    assert found.returncode != 0 and memory.agent in found.stdout.decode()
    assert len(packs_of(server, memory.agent)) >= (0 if kind == "pack-gone" else 1)
    if kind == "pack-gone":     # a person brings it back: verify lifts the fence
        os.rename(server.folder + "/gone.pack", victim)
        os.rename(server.folder + "/gone.idx", victim[:-5] + ".idx")
        server.damaged.clear()
        server.cli("verify", "--agent", memory.agent)
        memory.pending = memory.pending or (None, None)
        memory.settle()
        memory.must_push({"system/human.md": "mended\n"})
        assert server.value(memory.agent, "system/human") == "mended\n"
    other.close()


def test_F14_somebody_moves_the_ref_by_hand(server, memory):
    """A descendant: the blocks follow.  Something else: an alarm, and they follow too (K1)."""
    commit, pack, files = memory.prepare({"system/human.md": "by hand\n"})
    server.git_dir(memory.agent, "unpack-objects", "-q", input=pack)
    server.git_dir(memory.agent, "update-ref", "-m", "by hand", wire.MAIN, commit)
    memory._acknowledge(commit, files)
    refs = server.tip(memory.agent)     # the first to look
    assert refs == commit
    assert server.request("POST", f"/v1/agents/{memory.agent}/memory/sync-from-git").status == 200
    assert server.value(memory.agent, "system/human") == "by hand\n"
    assert wait_value(server, memory.agent, "system/human", "by hand\n")

    server.rewrites_allowed = True      # the person does it, memfs tells
    server.git_dir(memory.agent, "update-ref", "-m", "rewound", wire.MAIN, commit + "~1")
    server.request("POST", f"/v1/agents/{memory.agent}/memory/sync-from-git")
    assert wait_value(server, memory.agent, "system/human", "good\n")
    assert [line for line in server.log().splitlines() if memory.agent in line
            and ("level=warn" in line or "level=error" in line)], server.log_tail()
    found = server.cli("verify", "--agent", memory.agent, "--json", check=False)
    assert found.returncode in (0, 1)


def wait_value(server, agent, label, value, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = server.block(agent, label)
        if answer.status == 200 and answer.json()["value"] == value:
            return True
        time.sleep(0.05)
    return False


def test_F13_repack_during_pushes_and_clones(server, git, folder, scale):
    """Only memfs maintains, under its own lock: no push and no clone fails beside it."""
    load = Load(server, 3).start()
    clones, faults = [0], []
    halt = threading.Event()

    def cloner():
        try:
            while not halt.is_set():
                m = load.memories[clones[0] % 3]
                if m.acked:
                    git.clone(server.git_url(m.agent), folder / f"c{clones[0]}")
                    clones[0] += 1
        except Exception as e:
            faults.append(e)
    thread = threading.Thread(target=cloner)
    thread.start()
    until = time.monotonic() + scale(6, 120)
    repacks = 0

    def is_enough():
        return load.n_acked > 10 and clones[0] > 3 and repacks > 1 or faults or load.faults
    while time.monotonic() < until or not is_enough():
        assert time.monotonic() < until + 120, (load.n_acked, clones, repacks)
        server.cli("repack")
        repacks += 1
    halt.set()
    thread.join(60)
    load.stop()
    count("faults", repacks=repacks, pushes_beside=load.n_acked, clones_beside=clones[0])
    assert not faults, faults[0]
    assert load.refused == 0 and load.broken == 0 and load.lost() == []
    load.check_blocks()


# -- F23, D5: the cache ----------------------------------------------------------------------------

def fixed_agents(server):
    agents = []
    for i in range(3):
        m = Memory(server, new_agent())
        m.must_push({"system/human.md": f"---\ndescription: d{i}\nlimit: 5{i}\n---\ntext {i}\n",
                     "notes/bad.md": b"\xff\xfe", "skills/s/SKILL.md": "skill\n"})
        m.must_push({"notes/more.md": f"{i}\n"})
        m.close()
        agents.append(m.agent)
    return agents


def cache_files(server):
    return glob.glob(os.path.join(server.home, "cache.db*"))


@pytest.mark.sqlite
@pytest.mark.parametrize("how", ["deleted", "emptied", "garbage", "flipped", "header", "wal-gone",
                                 "folder-in-its-place"])
def test_D5_F23_cache_damaged_while_stopped(server, how):
    agents = fixed_agents(server)
    before, lists = server.dump(agents), server.get("/v1/blocks/?limit=0").json()
    server.stop()
    main = os.path.join(server.home, "cache.db")
    if how in ("deleted", "folder-in-its-place"):
        for f in cache_files(server):
            os.unlink(f)
        if how == "folder-in-its-place":
            os.mkdir(main)
    elif how == "emptied":
        os.truncate(main, 0)
    elif how == "garbage":
        with open(main, "wb") as f:
            f.write(os.urandom(200_000))
    elif how == "header":
        damage(main, 3)
    elif how == "flipped":
        for at in range(4096 + 7, os.path.getsize(main), 997):
            damage(main, at)
    elif how == "wal-gone":
        for f in cache_files(server):
            if f.endswith(("-wal", "-shm")):
                os.unlink(f)
    if how == "folder-in-its-place":
        try:
            server.start()
        except AssertionError:      # it may also say what is wrong and end
            assert "cache" in server.log_tail()
            os.rmdir(main)
            server.expected_codes = (0, 1)
            server.start()
    else:
        server.start()
    if how == "flipped":    # SQLite has no checksums: who suspects the disk asks verify
        if server.cli("verify", check=False).returncode != 0:
            server.cli("rebuild")
        server.cli("verify")
    for _ in range(50):
        if all(server.get(f"/v1/agents/{a}/core-memory/blocks").status == 200 for a in agents):
            break
        time.sleep(0.1)
    assert server.dump(agents) == before
    after = server.get("/v1/blocks/?limit=0").json()
    assert sorted(r["id"] for r in after) == sorted(r["id"] for r in lists)
    count("faults", caches_broken=1)


@pytest.mark.sqlite
@pytest.mark.parametrize("how", ["deleted", "emptied", "garbage", "flipped"])
def test_D5_F23_cache_damaged_while_running(server, how):
    """Never a wrong text with a 200; within seconds the same bytes again; pushes go on."""
    agents = fixed_agents(server)
    before = server.dump(agents)
    main = os.path.join(server.home, "cache.db")
    if how == "deleted":
        for f in cache_files(server):
            os.unlink(f)
    elif how == "emptied":
        os.truncate(main, 0)
    else:
        size = max(os.path.getsize(main), 65536)
        with open(main, "r+b") as f:
            if how == "garbage":
                f.write(os.urandom(size))
            else:
                for at in range(200, size, 611):
                    f.seek(at)
                    f.write(b"\x5a")
    one_ok = 0
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and one_ok < 3:
        try:
            assert server.dump(agents) == before
            one_ok += 1
        except AssertionError as e:
            assert "<Response 5" in str(e), e       # unavailable for a moment, never wrong
            time.sleep(0.1)
    assert one_ok == 3, server.log_tail()
    extra = Memory(server, agents[0])
    extra.tip = server.tip(agents[0])
    extra.must_push({"system/human.md": "after the damage\n"})
    extra.close()
    assert wait_value(server, agents[0], "system/human", "after the damage\n")
    server.restart()
    assert server.value(agents[0], "system/human") == "after the damage\n"
    kept = {a: rows for a, rows in json.loads(before).items() if a in agents[1:]}
    assert json.loads(server.dump(agents[1:])) == kept
    count("faults", caches_broken=1)


def test_D5_rebuild_gives_the_same(server):
    agents = fixed_agents(server)
    before = server.dump(agents)
    server.cli("rebuild", "--agent", agents[0])
    server.cli("rebuild")
    assert server.dump(agents) == before
    server.stop()
    server.cli("rebuild")       # with nobody running
    server.start()
    assert server.dump(agents) == before


def test_K1_verify_finds_what_somebody_changed(server):
    """A row changed and a row removed behind our back: found, and rebuild mends it."""
    agents = fixed_agents(server)
    before = server.dump(agents)
    server.stop()
    for agent, change in ((agents[0], "UPDATE blocks SET value = 'forged'"),
                          (agents[1], "DELETE FROM blocks")):
        assert server.change_block(agent, "system/human", change) == 1
    found = server.cli("verify", "--json", check=False)
    text = found.stdout.decode()
    assert found.returncode != 0 and agents[0] in text and agents[1] in text
    assert agents[2] not in text
    server.cli("rebuild")
    server.cli("verify")
    server.start()
    assert server.dump(agents) == before


@pytest.mark.sqlite
def test_F23_state_is_never_begun_anew(server, memory):
    """A broken state stops the server with a word on what to do."""
    server.stop()
    path = os.path.join(server.home, "state.db")
    with open(path, "rb") as f:
        good = f.read()
    for name in glob.glob(path + "-*"):
        os.unlink(name)
    with open(path, "wb") as f:
        f.write(os.urandom(len(good)))
    with pytest.raises(AssertionError, match="did not start"):
        server.start()
    assert "state" in server.log_tail(5)
    with open(path, "rb") as f:
        assert f.read() != good     # and it did not put another in its place
    with open(path, "wb") as f:
        f.write(good)
    server.start()
    assert server.value(memory.agent, "system/human") == "good\n"


# -- F30, L6 ---------------------------------------------------------------------------------------

def test_F30_sigterm_under_load(server, scale):
    load = Load(server, 6).start()
    rounds = scale(3, 50)
    for i in range(rounds):
        time.sleep(0.4)
        began = time.monotonic()
        server.terminate()
        assert server.wait(30) == 0, server.log_tail()
        most("faults", slowest_stop_s=time.monotonic() - began)
        load.go.clear()
        server.start()
        load.go.set()
    time.sleep(0.3)
    load.stop()
    assert load.lost() == []
    load.check_blocks()
    count("faults", sigterms=rounds, sigterm_acked=load.n_acked)
    server.wait_no_leftovers()


def test_F30_sigterm_with_idle_and_half_open_connections(server, memory):
    """Idle keep-alive connections and half a head do not keep it from ending."""
    idle = [http.connect(server.port) for _ in range(20)]
    for s in idle[:10]:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        http.read_response(s)
    idle[15].sendall(b"GET /heal")
    began = time.monotonic()
    server.terminate()
    assert server.wait(30) == 0
    assert time.monotonic() - began < 20    # a stop that waits for clients takes 25 s
    for s in idle:
        s.close()


def test_L6_second_server_is_refused(servers, server, memory):
    began = time.monotonic()
    command = [server.binary, "serve", "--home", server.home, "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, timeout=30, env=server.environment())
    assert done.returncode not in (0, -9) and time.monotonic() - began < 25
    assert b"listening" not in done.stderr and done.stderr.strip()
    memory.must_push({"system/human.md": "the first goes on\n"})
    server.kill()
    server.start()      # the lock went with the process


def test_loopback_only_until_there_are_tokens(server):
    for listen in ("0.0.0.0:0", "192.0.2.1:0", "[::]:0"):
        done = subprocess.run([server.binary, "serve", "--home", server.folder + "/other",
                               "--listen", listen],
                              capture_output=True, timeout=30, env=server.environment())
        assert done.returncode not in (0, -9) and b"listening" not in done.stderr, listen


# -- H4: the folder is gone ------------------------------------------------------------------------

def test_H4_folder_removed(server, memory):
    """Known, but gone: 503 and an alarm wherever git is meant, and never a new repository."""
    agent, repository = memory.agent, server.repository(memory.agent)
    server.damaged.add(agent)
    shutil.move(repository, server.folder + "/aside")

    def poke():
        git = f"/v1/git/{agent}/state.git"
        head = {"Content-Type": "application/x-git-receive-pack-request"}
        commit, pack, _ = memory.prepare({"system/human.md": "new\n"})
        for old in (memory.tip, wire.GENESIS, wire.ZERO):
            body = wire.push_body([(old, commit, wire.MAIN)], pack)
            answer = server.request("POST", git + "/git-receive-pack", body, head)
            assert answer.status == 503, answer
        for service in ("git-upload-pack", "git-receive-pack"):
            answer = server.get(f"{git}/info/refs?service={service}")
            assert answer.status == 503, answer
            assert "retry-after" in answer.headers
        body = wire.pkt(f"want {memory.tip}\n") + wire.FLUSH + wire.pkt("done\n")
        assert server.request("POST", git + "/git-upload-pack", body, {
            "Content-Type": "application/x-git-upload-pack-request"}).status == 503
        assert server.request("POST", f"/v1/agents/{agent}/memory/sync-from-git").status == 503
        for target in (f"/v1/agents/{agent}", f"/v1/agents/{agent}/core-memory/blocks",
                       f"/v1/agents/{agent}/core-memory/blocks/system/human", "/v1/blocks/",
                       f"/v1/agents/{agent}/core-memory", "/v1/agents/"):
            answer = server.get(target)     # what the cache holds may be shown, nothing else
            assert answer.status in (200, 503), (target, answer)
            if target.endswith("system/human") and answer.status == 200:
                assert answer.json()["value"] == "good\n"
        assert not os.path.exists(repository)
    poke()
    alarm = [line for line in server.log().splitlines()
             if agent in line and ("level=error" in line or "level=warn" in line)]
    assert alarm, server.log_tail()
    assert server.cli("verify", "--json", check=False).returncode != 0
    server.cli("rebuild", check=False)
    assert not os.path.exists(repository)
    server.restart()
    poke()
    other = Memory(server, new_agent())
    other.must_push({"system/human.md": "others are served\n"})
    other.close()
    shutil.move(server.folder + "/aside", repository)
    server.damaged.clear()
    memory.pending = (None, None)
    memory.settle()
    memory.must_push({"system/human.md": "back\n"})
    assert server.value(agent, "system/human") == "back\n"


# -- D7: backup and restore ------------------------------------------------------------------------

def test_D7_backup_under_load(servers, server, folder, scale):
    """What is restored is a state that some instant had, with all acked before it began."""
    load = Load(server, 4).start()
    time.sleep(0.5)
    for i in range(scale(2, 30)):
        sure = {m.agent: len(m.acked) for m in load.memories}
        to = folder / f"backup{i}"
        server.cli("backup", to)
        backed = {m.agent: [c for c, _ in m.acked] + [m.pending[0] if m.pending else None]
                  for m in load.memories}
        home = folder / f"restored{i}"
        restored = servers(f"r{i}", start=False, home=home)
        restored.cli("restore", "--from", to, "--home", home, home=False)
        restored.start()
        for m in load.memories:
            tip = restored.tip(m.agent)
            history = restored.git_dir(m.agent, "rev-list", "main").stdout.decode().split()
            for commit, _ in m.acked[:sure[m.agent]]:
                assert commit in history, "acked before the backup began, and not in it"
            assert tip in backed[m.agent], "a tip that never was"
            files = dict(m.acked).get(tip)
            if files is not None:
                assert set(values(restored, m.agent)) == {p[:-3] for p in files}
        restored.fsck_all()
        restored.verify()
        extra = Memory(restored, new_agent())       # and it is a home like any other
        extra.must_push({"system/human.md": "x\n"})
        extra.close()
        restored.stop()
    load.stop()
    count("faults", backups=scale(2, 30), backup_acked=load.n_acked)
    assert server.cli("backup", folder / "backup0", check=False).returncode != 0     # is there
    assert load.lost() == []


def test_D7_damaged_backup_is_not_restored(server, memory, folder):
    server.cli("backup", folder / "b")
    victim = next(p for p in glob.glob(str(folder / "b") + "/**/*.pack", recursive=True))
    damage(victim, os.path.getsize(victim) // 2)
    done = server.cli("restore", "--from", folder / "b", "--home", folder / "n", check=False,
                      home=False)
    assert done.returncode != 0
    assert not os.path.exists(folder / "n" / "state.db")


def test_D7_restore_never_overwrites(server, memory, folder):
    server.cli("backup", folder / "b")
    server.stop()
    before = sorted(os.listdir(server.home))
    done = server.cli("restore", "--from", folder / "b", check=False)
    assert done.returncode != 0 and sorted(os.listdir(server.home)) == before


# -- T28: purge ------------------------------------------------------------------------------------

SECRET = b"sk-live-TheLeakedSecretOfThisTest-0123456789"


def all_objects_hold(server, agent, needle):
    """Does any object on disk, reachable or not, hold the bytes?"""
    done = server.git_dir(agent, "cat-file", "--batch-all-objects", "--batch", "--unordered")
    return needle in done.stdout


def fetch_by_id(server, agent, oid):
    """Protocol v2 gives any object by id, reachable or not."""
    body = (wire.pkt("command=fetch") + wire.pkt("object-format=sha1") + b"0001" +
            wire.pkt(f"want {oid}\n") + wire.pkt("done\n") + wire.FLUSH)
    answer = server.request("POST", f"/v1/git/{agent}/state.git/git-upload-pack", body, {
        "Content-Type": "application/x-git-upload-pack-request", "Git-Protocol": "version=2"})
    return answer.status == 200 and b"PACK" in answer.body


@pytest.mark.parametrize("by", ["blob", "secret"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_T28_purge(server, by, running):
    memory, other = Memory(server, new_agent()), Memory(server, new_agent())
    other.must_push({"system/human.md": "other\n"})
    memory.must_push({"system/human.md": "fine\n"})
    leaked = b"key: " + SECRET + b"\n"
    bad = memory.must_push({"notes/leak.md": leaked})
    memory.must_push({"notes/leak.md": leaked + b"and more\n"}, "told: " + SECRET.decode() + "\n"
                     if by == "secret" else None)
    memory.must_push({"notes/leak.md": None, "notes/keep.md": "kept\n"})
    blobs = [wire.object_id("blob", leaked), wire.object_id("blob", leaked + b"and more\n")]
    assert all(fetch_by_id(server, memory.agent, b) for b in blobs)     # the threat is real
    server.rewrites_allowed = True
    if not running:
        server.stop()
    if by == "blob":
        for blob in blobs:
            server.cli("purge", "--agent", memory.agent, "--blob", blob)
    else:
        server.cli("purge", "--agent", memory.agent, "--secret-stdin", input=SECRET + b"\n")
    if not running:
        server.start()
    for blob in blobs:
        assert not server.has_object(memory.agent, blob)
        assert not fetch_by_id(server, memory.agent, blob)
    assert not server.has_object(memory.agent, bad)
    assert not all_objects_hold(server, memory.agent, SECRET)
    done = subprocess.run(["grep", "-rlaF", SECRET.decode(), server.home, server.log_path],
                          capture_output=True, timeout=60)
    assert done.stdout == b"", done.stdout
    assert values(server, memory.agent) == {"system/human": "fine\n", "notes/keep": "kept\n"}
    assert values(server, other.agent) == {"system/human": "other\n"}
    assert int(server.git_dir(memory.agent, "rev-list", "--count", "main").stdout) == 5
    # an old checkout pushes it back: refused, its history is another one; and so is the blob alone
    objects = wire.Objects()
    tip = server.tip(memory.agent)
    commit = objects.commit(objects.tree_of({"notes/leak.md": leaked}), [tip])
    report = server.push_raw(memory.agent, [(tip, commit, wire.MAIN)], objects.pack())
    assert not report.acked, report
    fresh = Memory(server, memory.agent)
    fresh.tip = tip
    fresh.must_push({"system/human.md": "life goes on\n"})
    for m in (memory, other, fresh):
        m.close()
    count("faults", purged=len(blobs))


def test_T28_dry_run_changes_nothing(server, memory):
    before = server.state_of(memory.agent)
    blob = wire.object_id("blob", b"A\n")
    server.cli("purge", "--agent", memory.agent, "--blob", blob, "--dry-run")
    assert server.state_of(memory.agent) == before and server.has_object(memory.agent, blob)


# -- L2: many repositories -------------------------------------------------------------------------

def test_L2_start_with_1000_repositories(server, memory, scale):
    """Serving within 10 s a thousand, all of them unknown to the state and to the cache."""
    server.stop()
    n = scale(1000, 10_000)
    agents = [new_agent() for _ in range(n)]
    source = server.repository(memory.agent)
    files = [(os.path.relpath(os.path.join(root, f), source))
             for root, _, names in os.walk(source) for f in names]
    folders = [os.path.relpath(root, source) for root, _, _ in os.walk(source)]
    for a in agents:
        to = server.repository(a)
        for f in folders:
            os.makedirs(os.path.join(to, f), exist_ok=True)
        for f in files:
            shutil.copyfile(os.path.join(source, f), os.path.join(to, f))
    server.watcher = None       # its look at every ref is not what is measured
    began = time.monotonic()
    server.start()
    listening = time.monotonic() - began
    assert server.value(agents[n // 2], "system/human") == "good\n"
    first_answer = time.monotonic() - began
    assert server.get("/readyz").status in (200, 503)
    deadline = began + 10 * n / 1000 * (3 if "asan" in server.binary else 1) + 5
    seen = 0
    while time.monotonic() < deadline:
        seen = server.get("/v1/agents/count").json()
        if seen >= n + 1 and server.get("/readyz").status == 200:
            break
        time.sleep(0.1)
    all_known = time.monotonic() - began
    most("faults", listening_with_1000_s=listening, first_block_with_1000_s=first_answer,
         all_1000_recovered_s=all_known)
    assert seen == n + 1
    assert listening < 10 and first_answer < 10
    for a in random.Random(8).sample(agents, 20):
        assert server.value(a, "notes/a") == "A\n"
    # fsck of a thousand copies of one repository at the end tells nothing new
    server.sample = agents[:3]
    server.damaged.update(agents[3:])
