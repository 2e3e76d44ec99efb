"""D1, D2: an acknowledged commit survives a power cut at any instant after the acknowledgement.

A power cut is a copy of a loop-mounted disk image, taken while every process of the server is
stopped: the image holds exactly what had reached the device, nothing of the page cache
(reliability, part 4).  POWER_CUTS sets their number.
"""
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from lib import wire
from lib.disk import Image
from lib.server import Server, descendants, new_agent, sanitizer_library
from lib.summary import count, most
from lib.trace import Trace
from lib.writer import Load, Memory, RestMemory

HERE = os.path.dirname(os.path.abspath(__file__))


def n_cuts(scale):
    return int(os.environ.get("POWER_CUTS", scale(50, 1000)))


class Cutter:
    """Stops the whole server in the very thread that has just read an acknowledgement."""

    def __init__(self, server):
        self.server = server
        self.armed, self.stopped = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.pids, self.upto, self.load = [], {}, None

    def on_ack(self, _memory):
        with self.lock:
            if not self.armed.is_set():
                return
            self.armed.clear()
            self._freeze()
        # what other threads read until now was sent before the server stood still
        self.upto = {m.agent: len(m.acked) for m in self.load.memories}
        self.stopped.set()

    def _freeze(self):
        self.pids = []
        while True:
            fresh = [p for p in [self.server.pid, *descendants(self.server.pid)]
                     if p not in self.pids]
            if not fresh:
                return
            for pid in fresh:
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:
                    pass
                self.pids.append(pid)

    def cut(self, image, name):
        """-> (image as the cut leaves it, {agent: number of acknowledged commits})"""
        self.stopped.clear()
        self.armed.set()
        assert self.stopped.wait(60), f"no acknowledgement in 60 s\n{self.server.log_tail()}"
        try:
            return image.cut(name), self.upto
        finally:
            for pid in reversed(self.pids):
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass


def run_cuts(memfs_bin, folder, fs, cuts, n_writers, changes=None, env=None, examine=True,
             kind=Memory):
    """-> (acked in all, lost) over so many cuts of one load."""
    image = Image(fs)
    lost, acked = [], 0
    try:
        with image.mount(folder / "disk") as disk:
            server = Server(memfs_bin, folder / "s", home=disk.path + "/home", env=env, watch=False)
            server.start()
            cutter = Cutter(server)
            load = cutter.load = Load(server, n_writers, changes, on_ack=cutter.on_ack, kind=kind)
            for m in load.memories:     # not from nothing: the folders of the agents are old
                m.must_push({"system/human.md": "first\n"})
            load.start()
            try:
                for i in range(cuts):
                    # at another phase each time, after some acknowledgements
                    time.sleep(0.01 + 0.013 * (i % 9))
                    copy, upto = cutter.cut(image, f"cut{i}")
                    load.rest()         # while the copy is examined
                    acked = sum(upto.values())
                    lost += after_the_cut(memfs_bin, folder, copy, load, upto, examine)
                    copy.drop()
                    load.go.set()
                load.stop()
                server.stop()
            finally:
                load.halt.set()
                server.kill()
        return acked, lost
    finally:
        image.remove()


def after_the_cut(memfs_bin, folder, copy, load, upto, examine):
    """The machine comes back: mount, start, look for every acknowledged commit."""
    with copy.mount(folder / "after") as disk:
        if not examine:     # sabotaged on purpose: only look whether the commits are there
            there = Server(memfs_bin, folder / "t", home=disk.path + "/home", watch=False)
            return load.lost(there, upto)
        server = Server(memfs_bin, folder / "t", home=disk.path + "/home", watch=False)
        began = time.monotonic()
        server.start()
        try:
            for m in load.memories:
                if upto[m.agent]:
                    assert server.block(m.agent, "system/human").status == 200
            most("durability", slowest_start_after_cut_s=time.monotonic() - began)
            missing = load.lost(server, upto)
            server.fsck_all()
            server.verify()
            server.wait_no_leftovers()
            server.stop()
            return missing
        finally:
            server.kill()


@pytest.mark.sqlite     # the state is on the disk that is cut
@pytest.mark.parametrize("fs, share", [("ext4", 4), ("xfs", 1)])
def test_D1_power_cuts(memfs_bin, folder, scale, fs, share):
    cuts = max(1, n_cuts(scale) * share // 5)
    acked, lost = run_cuts(memfs_bin, folder, fs, cuts, n_writers=3)
    count("durability", **{f"cuts_{fs}": cuts, f"acked_{fs}": acked, f"lost_{fs}": len(lost)})
    assert acked >= cuts and lost == []


@pytest.mark.sqlite     # the state is on the disk that is cut
def test_D1_power_cuts_of_commits_over_rest(memfs_bin, folder, scale):
    """Objects that the server writes itself, one file each, and not a pack that git wrote."""
    cuts = scale(6, 200)
    acked, lost = run_cuts(memfs_bin, folder, "ext4", cuts, n_writers=3, kind=RestMemory)
    count("durability", cuts_rest=cuts, acked_rest=acked, lost_rest=len(lost))
    assert acked >= cuts and lost == []


def build_shim(folder, memfs_bin):
    shim = str(folder / "nodirsync.so")
    done = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim,
                           os.path.join(HERE, "lib", "nodirsync.c"), "-ldl"],
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    asan = sanitizer_library(memfs_bin)     # must come first among the preloads
    return {"LD_PRELOAD": f"{asan} {shim}" if asan else shim}


def test_D1_sabotage_without_folder_fsync_loses(memfs_bin, folder):
    """The check of the check: with fsync of folders taken out, the same cuts lose acked commits."""
    env = build_shim(folder, memfs_bin)

    def one_file(memory):
        return {"system/human.md": f"text {memory.n}\n"}
    acked, lost = run_cuts(memfs_bin, folder, "ext4", 12, 1, one_file, env, examine=False)
    count("durability", sabotaged_cuts=12, sabotaged_lost=len(lost))
    assert acked >= 12 and len(lost) > 0


@pytest.mark.sqlite
def test_D1_first_push_of_an_agent(memfs_bin, folder, scale):
    """The commit, the repository, its folder, and that the agent is known: all from one ack."""
    image = Image("ext4")
    cuts, lost = scale(6, 100), []
    try:
        with image.mount(folder / "disk") as disk:
            server = Server(memfs_bin, folder / "s", home=disk.path + "/home", watch=False).start()
            try:
                for i in range(cuts):
                    cutter = Cutter(server)
                    load = cutter.load = Load(server, 1, on_ack=cutter.on_ack)
                    load.start()
                    copy, upto = cutter.cut(image, f"cut{i}")
                    load.stop()
                    lost += after_the_cut(memfs_bin, folder, copy, load, upto, True)
                    with copy.mount(folder / "after2") as again:
                        agents = Server(memfs_bin, folder / "u", home=again.path + "/home",
                                        watch=False).cli("agents", "list", "--json").stdout.decode()
                    assert load.memories[0].agent in agents
                    copy.drop()
                server.stop()
            finally:
                server.kill()
    finally:
        image.remove()
    count("durability", first_push_cuts=cuts, first_push_lost=len(lost))
    assert lost == []


def test_D2_order_of_system_calls(server, folder):
    """Before the first byte of the report: the ref's file was synced and renamed, its folder
    synced, the pack and its folder too."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    with Trace(server.pid, folder / "trace", "-y", "-s", "200", "-e",
               "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat,"
               "write,writev,sendto,sendmsg,sendfile") as trace:
        memory.must_push({"system/human.md": "two\n"})
    calls = trace.calls()
    report = first(calls, lambda n, t: n in ("write", "writev", "sendto", "sendmsg")
                   and "unpack ok" in t and ("TCP" in t or "socket" in t))
    before = calls[:report]
    moved = last(before, lambda n, t: n.startswith("rename") and re.search(r"heads/main\"", t))
    synced = last(before, lambda n, t: n in ("fsync", "fdatasync", "syncfs")
                  and re.search(r"refs/heads>\)\s*= 0", t))
    assert moved is not None and synced is not None and moved < synced, "refs/heads was not synced"
    lock = [t for _, n, t in before[:moved]
            if n in ("fsync", "fdatasync") and "refs/heads/main" in t]
    assert lock, "the new ref's bytes were not synced before the rename"
    pack = last(before[:moved], lambda n, t: n.startswith(("rename", "link"))
                and "objects/pack/" in t)
    folder_sync = last(before[:moved], lambda n, t: n in ("fsync", "fdatasync")
                       and re.search(r"objects/pack>\)\s*= 0", t))
    assert pack is not None and folder_sync is not None and pack < folder_sync
    failed = [t for _, n, t in before if "sync" in n and not re.search(r"= 0$", t.strip())]
    assert not failed, failed
    count("durability", syncs_a_push=sum(1 for _, n, _t in before if "sync" in n))


def test_D2_order_of_system_calls_of_a_change_over_rest(server, folder):
    """Before the ref moves each new object is synced, and then the folder that its name is in; once, not
    for each of them, the folder of those folders. Nothing is synced twice: each costs the disk a flush."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    with Trace(server.pid, folder / "trace", "-y", "-s", "300", "-e",
               "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat") as trace:
        answer = server.request("PATCH", f"/v1/agents/{memory.agent}/core-memory/blocks/system/human",
                                json.dumps({"value": "two\n"}), {"Content-Type": "application/json"})
    assert answer.status == 200 and server.value(memory.agent, "system/human") == "two\n"
    calls = trace.calls()
    moved = first(calls, lambda n, t: n.startswith("rename") and re.search(r"heads/main\"", t))
    assert last(calls, lambda n, t: "sync" in n and "refs/heads>" in t) > moved
    before = [(n, t) for _, n, t in calls[:moved]]
    made = [(i, m.group(1)) for i, (n, t) in enumerate(before) if n.startswith("link")
            and (m := re.search(r"objects/([0-9a-f]{2})/[0-9a-f]{38}\"", t))]
    assert len(made) == 4, "a text, two folders, a commit"
    for i, fan in made:
        assert any("sync" in n and re.search(rf"objects/{fan}>\)\s*= 0", t) for n, t in before[i:]), fan
    top = [i for i, (n, t) in enumerate(before) if "sync" in n and re.search(r"/objects>\)\s*= 0", t)]
    assert len(top) == 1 and top[0] > made[-1][0]
    n_syncs = sum(1 for _, n, t in calls if "sync" in n and ".git/" in t)
    count("durability", syncs_a_change=n_syncs)
    assert n_syncs == 11, "four objects and their folders, the folder above, the ref and its folder"


def first(calls, match):
    for i, (_, name, text) in enumerate(calls):
        if match(name, text):
            return i
    raise AssertionError("no such call among " + str(len(calls)))


def last(calls, match):
    found = [i for i, (_, name, text) in enumerate(calls) if match(name, text)]
    return found[-1] if found else None


def test_D2_wire_order(server):
    """The report is one piece at the end, behind all progress; a cut answer is never ok."""
    memory = Memory(server, new_agent())
    report = memory.push({"system/human.md": "x\n"})
    kinds = [p[0] for p in wire.pkts(report.body) if p]
    assert report.acked and kinds == sorted(kinds, reverse=True), "band 1 before the last of band 2"
    for n in range(0, len(report.body), 5):
        assert not wire.Report(200, report.body[:n]).acked
