"""Two and three servers over one PostgreSQL while servers and database are killed at random (F01, F22): what was
acknowledged stays (H1, H2), what is read is what git has (K1), and how soon everybody is served again.

CHAOS_SECONDS (40; 600 with SOAK=1) is how long each of the two goes on; CHAOS_SEED repeats a course of events, as
far as processes let themselves be repeated.  Times are printed; they are judged only in the long run of a build
without sanitizers, on a machine that has nothing else to do.
"""
import faulthandler
import http.client
import math
import os
import random
import threading
import time

import pytest

from lib import summary, wire
from lib.cluster import Cluster, wait_until
from lib.patience import Late
from lib.server import new_agent, sanitizer_library

pytestmark = pytest.mark.sqlite     # it brings its own PostgreSQL

SOAK = os.environ.get("SOAK") == "1"
SECONDS = int(os.environ.get("CHAOS_SECONDS", "600" if SOAK else "40"))
N_WRITERS = 16
PAUSE_S = 0 if SOAK else 0.3    # of a writer: what else CI runs needs the processor too
P99_S = 10
PATIENCE = 300      # a deadline for what must come, not a measure: CI's machine is slow
BROKEN = (OSError, AssertionError, http.client.HTTPException)     # the server is down, or not sure of main


class Recovery:
    """How long each writer waited after a kill for its next acknowledged push, and for its next block."""

    KINDS = ("push", "read")

    def __init__(self, n):
        self.n, self.lock = n, threading.Lock()
        self.since, self.from_, self.waiting = 0.0, 0.0, set()
        self.seconds = {kind: [] for kind in self.KINDS}

    def broken(self, kill):
        """The clock runs from before the kill; what was asked before its end shows nothing."""
        since = time.monotonic()
        kill()
        with self.lock:
            self.since, self.from_ = since, time.monotonic()
            self.waiting = {(kind, i) for kind in self.KINDS for i in range(self.n)}

    def served(self, kind, writer, began):
        with self.lock:
            if began >= self.from_ and (kind, writer) in self.waiting:
                self.waiting.remove((kind, writer))
                self.seconds[kind].append(time.monotonic() - self.since)

    def percentile(self, kind, p):
        values = sorted(self.seconds[kind])
        return values[math.ceil(len(values) * p / 100) - 1]


class Writers:
    """Each goes to a server of chance, as a balancer sends it; in turns to a memory of its own, and to one that
    all share, on top of what that server shows.  The books hold what was acknowledged, and by whom."""

    def __init__(self, cluster, rng):
        self.cluster, self.halt = cluster, threading.Event()
        self.own = [new_agent() for _ in range(N_WRITERS)]
        self.shared = [new_agent() for _ in range(4)]
        self.acked = {agent: [] for agent in self.own + self.shared}
        self.by = [0] * len(cluster.servers)
        self.recovery = Recovery(N_WRITERS)
        self.lock, self.faults = threading.Lock(), []
        self.threads = [threading.Thread(target=self._run, args=(i, random.Random(rng.random())),
                                         daemon=True) for i in range(N_WRITERS)]
        for t in self.threads:
            t.start()

    def _run(self, me, rng):
        n = 0
        try:
            while not self.halt.is_set():
                n += 1
                self.halt.wait(PAUSE_S)
                agent = self.own[me] if n % 2 else rng.choice(self.shared)
                self._push(me, rng, agent, {f"writer-{me}.md": f"{n} of {me}\n",
                                            "common.md": f"{n} of {me}\n"})
                if self.acked[self.own[me]]:
                    self._read(me, rng, self.own[me])
        except Exception as e:
            self.faults.append(e)

    def _push(self, me, rng, agent, files):
        began, at = time.monotonic(), rng.randrange(len(self.cluster.servers))
        server = self.cluster.servers[at]
        try:
            tip = server.tip(agent) or wire.GENESIS
        except BROKEN:
            self.halt.wait(0.1)
            return
        objects = wire.Objects()
        commit = objects.commit(objects.tree_of(files), [tip], f"push {rng.random()} of {me}\n")
        report = server.push_raw(agent, [(tip, commit, wire.MAIN)], objects.pack())
        if report.acked:
            self.recovery.served("push", me, began)
            with self.lock:
                self.acked[agent].append(commit)
                self.by[at] += 1
        elif not report.complete:
            self.halt.wait(0.05)

    def _read(self, me, rng, agent):
        began = time.monotonic()
        try:
            answer = rng.choice(self.cluster.servers).block(agent, "common")
        except BROKEN:
            self.halt.wait(0.1)
            return
        if answer.status == 200:
            self.recovery.served("read", me, began)
            return
        assert answer.status == 503, f"a block that is there is told to be none: {answer}"
        self.halt.wait(0.1)

    def wait_until_all_are_served(self, what):
        """Every server acknowledges something new, and every writer was served since the kill."""
        before = list(self.by)
        wait_until(lambda: self.faults or (not self.recovery.waiting and
                                           all(now > then for now, then in zip(self.by, before))),
                   f"all are served after {what}", PATIENCE)
        assert not self.faults, self.faults[0]

    def stop(self):
        self.halt.set()
        for t in self.threads:
            t.join(PATIENCE)
            if t.is_alive():
                raise Late("a push without end")
        assert not self.faults, self.faults[0]


def something_breaks(cluster, recovery, rng):
    """One, two or all of the servers, or the database, or both at once; each is away for up to 2 s."""
    pg = rng.random() < 0.35
    n = 0 if pg and rng.random() < 0.6 else rng.choice([1, 1, min(2, len(cluster.servers))])
    killed = rng.sample(cluster.servers, n)

    def kill():
        for s in killed:
            s.kill()
        if pg:
            cluster.pg.crash()

    recovery.broken(kill)
    time.sleep(rng.random() * 2)
    if pg:
        cluster.pg.start()
    for s in killed:
        s.start(PATIENCE)
    return f"{n} servers{' and the database' if pg else ''} were killed", n, pg


def files_at(server, agent, commit):
    """Path -> text, as git has it on that server's disk."""
    paths = server.git_dir(agent, "ls-tree", "-r", "--name-only", commit).stdout.decode().splitlines()
    return {path: server.git_dir(agent, "show", f"{commit}:{path}").stdout.decode() for path in paths}


def check_all(cluster, writers):
    """One main everywhere (H1), everything acknowledged in it (H2), and its files are the blocks (K1)."""
    for agent, acked in writers.acked.items():
        wait_until(lambda: len({*cluster.tips(agent), cluster.tip(agent)}) == 1, f"all agree on {agent}", PATIENCE)
        tip = cluster.tip(agent)
        for s in cluster.servers:
            there = set(s.git_dir(agent, "rev-list", tip).stdout.decode().split())
            lost = [x for x in acked if x not in there]
            assert not lost, f"{len(lost)} of {len(acked)} acknowledged are lost: {lost[:3]}"
            blocks = {label: row["value"] for label, row in s.blocks(agent).items()}
            assert blocks == {p[:-3]: text for p, text in files_at(s, agent, tip).items()}, agent


@pytest.mark.parametrize("n_servers", [2, 3], ids=["two", "three"])
def test_F01_F22_H1_H2_K1_servers_and_database_killed_at_random_lose_nothing(memfs_bin, folder, n_servers):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1 << 30)))
    print(f"CHAOS_SEED={seed}")
    faulthandler.cancel_dump_traceback_later()  # of pytest, after five minutes: Python may crash in it while threads run
    rng = random.Random(seed)
    n_kills = n_crashes = 0
    with Cluster(memfs_bin, folder, n=n_servers) as c:
        writers = Writers(c, rng)
        recovery = writers.recovery
        recovery.broken(lambda: None)
        writers.wait_until_all_are_served("the start")
        recovery.seconds = {kind: [] for kind in recovery.KINDS}
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or n_kills < 2 or n_crashes < 1:
            what, n, pg = something_breaks(c, recovery, rng)
            n_kills, n_crashes = n_kills + n, n_crashes + pg
            writers.wait_until_all_are_served(what)
        writers.stop()
        check_all(c, writers)
    figures = {f"{kind}_p{p}_s": recovery.percentile(kind, p) for kind in recovery.KINDS for p in (50, 99, 100)}
    summary.count(f"chaos, {n_servers} servers", servers_killed=n_kills, database_crashed=n_crashes,
                  acknowledged=sum(map(len, writers.acked.values())), lost=0,
                  waits=len(recovery.seconds["push"]), **figures)
    if SOAK and not sanitizer_library(memfs_bin):
        for kind in recovery.KINDS:
            assert recovery.percentile(kind, 99) <= P99_S, f"{kind}: p99 {recovery.percentile(kind, 99):.1f} s"
