"""Several memfs servers and one git host, on machines of their own, with all that goes wrong there.

Must hold at the end, whatever happened: one tip everywhere, every acknowledged commit in it, blocks equal to
git, no ref on the host that was ever forced, no storm of merges (H1, H2, H5, H7, F27, F28, K1).

FLEET_SECONDS (60; 600 with SOAK=1) is how long it goes wrong; FLEET_SEED repeats a course of events, as far
as processes and networks let themselves be repeated.
"""
import os
import random
import secrets
import threading
import time

import pytest

from lib.fleet import FleetServer, Writer, events, history, n_criss_cross
from lib.gitolite import Gitolite
from lib.machines import Network
from lib.patience import Late
from lib.refwatch import RefWatch, allows_force
from lib.server import new_agent
from lib.summary import count, most

CLOCKS = {"past": "-3y", "present": None, "future": "+7y"}
N_WRITERS = 5
TRIED_S = 10  # a busy machine may be that long at its first try


class Chaos:
    """Troubles of one machine, one after the other, each undone again."""

    def __init__(self, name, seed, troubles, stop):
        self.rng, self.troubles, self.stop = random.Random(f"{seed}/{name}"), troubles, stop
        self.name, self.counts, self.fault = name, {}, None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stop.wait(self.rng.uniform(1, 6)):
                what = self.rng.choice(sorted(self.troubles))
                begin, end = self.troubles[what]
                self.counts[what] = self.counts.get(what, 0) + 1
                begin()
                self.stop.wait(self.rng.uniform(0.2, 5))
                end()
        except BaseException as e:
            self.fault = e

    def join(self):
        self.thread.join(120)
        assert not self.thread.is_alive(), f"the trouble of {self.name} does not end"
        if self.fault:
            raise self.fault


class Fleet:
    def __init__(self, memfs_bin, folder, net, n_agents=2):
        self.net, self.agents = net, [new_agent() for _ in range(n_agents)]
        machines = {name: net.machine(name) for name in CLOCKS}
        self.host = Gitolite(folder, machine=net.machine("host"))
        self.servers = {name: FleetServer(memfs_bin, folder / name, m, self.host, CLOCKS[name])
                        for name, m in machines.items()}
        self.watch = RefWatch(self.host.root).start()
        for s in self.servers.values():
            s.start()
            self.host.webhook(s.hook_url, s.secret)

    def path(self, agent):
        return f"agents/{agent}.git"

    def close(self):
        self.watch.stop()
        self.host.close()
        for s in self.servers.values():
            s.close()

    def chaos(self, seed, stop):
        out = []
        for name, s in self.servers.items():
            out.append(Chaos(name, seed, {
                "cut": (s.machine.cut, s.machine.heal),
                "deaf": (lambda m=s.machine: m.lose("host"), s.machine.heal),
                "kill": (s.kill, s.start),
            }, stop))
        m = self.host.machine
        out.append(Chaos("host", seed, {"cut": (m.cut, m.heal),
                                        "kill": (self.host.kill, self.host.start)}, stop))
        return out

    def tips(self, agent):
        return {name: s.tip(agent) for name, s in self.servers.items()} | {
            "host": self.host.tip(self.path(agent))}

    def is_settled(self, agents):
        return all(len(set(self.tips(a).values())) == 1 for a in agents)

    def wait_settled(self, seconds, *agents):
        """Everywhere the same; every agent must have been written to."""
        agents = agents or self.agents
        deadline = time.monotonic() + seconds
        while not self.is_settled(agents):
            if time.monotonic() > deadline:
                raise Late("\n".join(
                    [f"{a}: {self.tips(a)}" for a in agents] +
                    [f"-- {n}\n{s.mirror()}\n{s.log_tail(20)}" for n, s in self.servers.items()]))
            time.sleep(0.3)


@pytest.fixture
def fleet(memfs_bin, folder):
    with Network() as net:
        f = Fleet(memfs_bin, folder, net)
        try:
            yield f
        finally:
            f.close()


def test_H1_H2_H5_H7_F27_F28_three_servers_one_host_everything_breaks(fleet, folder, scale):
    seconds = float(os.environ.get("FLEET_SECONDS", scale(60, 600)))
    seed = os.environ.get("FLEET_SEED") or secrets.token_hex(4)
    print("FLEET_SEED=" + seed)
    writers = [Writer(s, fleet.agents[i % len(fleet.agents)], f"{name}{i}", seed, folder).start()
               for name, s in fleet.servers.items() for i in range(N_WRITERS)]
    stop = threading.Event()
    chaos = fleet.chaos(seed, stop)
    time.sleep(seconds)
    stop.set()
    for c in chaos:
        c.join()
    for w in writers:
        w.halt()
    for w in writers:
        w.join()
    fleet.net.heal()
    fleet.wait_settled(180)
    before = {a: fleet.tips(a) for a in fleet.agents}
    time.sleep(7)               # three polls: who has nothing to say is silent (F28)
    assert {a: fleet.tips(a) for a in fleet.agents} == before
    fleet.watch.stop()
    n_moves = fleet.watch.check()

    total = {"acked": 0, "merges": 0, "criss_cross": 0}
    for agent in fleet.agents:
        repository = fleet.host.repository(fleet.path(agent))
        assert allows_force(repository)
        commits, merges = history(repository)
        acked = [c for w in writers if w.agent == agent for c in w.acked]
        lost = [c for c in acked if c not in commits]
        assert not lost, f"{len(lost)} of {len(acked)} acknowledged commits of {agent}: {lost[:5]}"
        assert len(merges) <= len(commits) - len(merges), "more merges than commits: a storm"
        total["acked"] += len(acked)
        total["merges"] += len(merges)
        total["criss_cross"] += n_criss_cross(repository, merges)
    for name, s in fleet.servers.items():
        mine = [w for w in writers if w.server is s]
        assert all(sum(len(w.acked) for w in mine if w.agent == a) > 0 for a in fleet.agents), name
        s.stop()
        s.check_clean()         # fsck, verify, canaries, its own refs
        s.check_no_host_token()
    ops = {}
    for w in writers:
        for op, n in w.ops.items():
            ops[op] = ops.get(op, 0) + n
    assert {"line", "delete", "rename"} <= set(ops), ops
    troubles = {}
    for c in chaos:
        for what, n in c.counts.items():
            troubles[what] = troubles.get(what, 0) + n
    assert total["merges"] > 0 and troubles.get("kill", 0) > 0, (total, troubles)
    count("fleet", seconds=seconds, seed=seed, **total, moves=n_moves, **ops,
          **{"n_" + k: v for k, v in troubles.items()})


def test_H7_F28_two_servers_that_merge_the_same_make_the_same_commit(fleet, folder):
    """Both sides of a cut merge the same two tips, each by itself: one commit, so nothing to settle."""
    agent = fleet.agents[0]
    past, future = fleet.servers["past"], fleet.servers["future"]
    one, two = (Writer(s, agent, n, 1, folder) for s, n in ((past, "one"), (future, "two")))
    with past.inside():
        one._round()
    fleet.wait_settled(60, agent)
    for m in (past.machine, future.machine):
        m.cut()
    for w in (one, two):
        with w.server.inside():
            n = len(w.acked)
            while len(w.acked) < n + 3:
                w._round()
    for m in (past.machine, future.machine):
        m.heal()
    fleet.wait_settled(120, agent)
    commits, merges = history(fleet.host.repository(fleet.path(agent)))
    assert set(one.acked + two.acked) <= commits
    assert len(merges) <= 2, merges
    fleet.watch.stop()
    fleet.watch.check()
    for s in fleet.servers.values():
        s.stop()
        s.check_clean()


def test_H2_H5_criss_cross(fleet, folder):
    """Two people join the same two sides, each in their own way, on servers that see nothing of each other:
    what meets afterwards has two common ancestors, neither the better one."""
    agent = fleet.agents[0]
    ends = [fleet.servers[n] for n in ("past", "future")]
    people = [Writer(s, agent, n, 2, folder) for s, n in zip(ends, ("one", "two"))]
    with ends[0].inside():
        people[0]._round()
    fleet.wait_settled(60, agent)
    for _ in range(2):
        for s in ends:
            s.machine.cut()
        for w in people:
            with w.server.inside():
                n = len(w.acked)
                while len(w.acked) == n:
                    w._round()
        sides = [w._do("rev-parse", "HEAD").stdout.decode().strip() for w in people]
        for w, other, theirs in ((people[0], people[1], sides[1]), (people[1], people[0], sides[0])):
            with w.server.inside():
                w._do("fetch", "-q", other.path, "main")
                w._do("merge", "-q", "-s", "ours", "-m", f"{w.name} joined them", theirs)
                w._do("push", "-q", "origin", "main")
                w.acked.append(w._do("rev-parse", "HEAD").stdout.decode().strip())
        for s in ends:
            s.machine.heal()
        fleet.wait_settled(120, agent)
    repository = fleet.host.repository(fleet.path(agent))
    commits, merges = history(repository)
    assert set(people[0].acked + people[1].acked) <= commits
    assert n_criss_cross(repository, merges) >= 2, merges
    fleet.watch.stop()
    fleet.watch.check()
    for s in fleet.servers.values():
        s.stop()
        s.check_clean()


# ---- the host is away

class Pusher(Writer):
    """Remembers when the oldest commit arrived that the host lacks, by the test's own clock."""

    oldest = None

    def _round(self):
        n = len(self.acked)
        began = time.time()
        super()._round()
        if len(self.acked) > n and self.oldest is None:
            self.oldest = (began, time.time())


def test_L3_L5_host_away_until_the_end(memfs_bin, folder, scale):
    seconds = float(os.environ.get("FLEET_AWAY_SECONDS", scale(40, 600)))
    agents = [new_agent() for _ in range(6)]
    with Gitolite(folder) as host:
        host.kill()
        s = FleetServer(memfs_bin, folder / "s", host=host, poll_s=2)
        try:
            s.start()
            writers = [Pusher(s, a, f"w{i}", 7, folder).start() for i, a in enumerate(agents)]
            n_looks, worst = away(s, writers, seconds)
            for w in writers:
                w.halt()
            for w in writers:
                w.join()
            assert all(w.acked for w in writers)
            assert sum(w.n_broken for w in writers) <= 2 * len(writers), "pushes failed, host or not"
            host.start()
            for w in writers:
                row = s.wait_row(w.agent, lambda r: r["state"] == "mirrored", 120)
                assert row["unmirrored_s"] is None, row
                assert host.tip(f"agents/{w.agent}.git") == s.tip(w.agent) == row["remote_tip"]
                commits, _ = history(host.repository(f"agents/{w.agent}.git"))
                assert set(w.acked) <= commits
            s.stop()
            s.check_clean()
            s.check_no_host_token()
            count("away", pushes=sum(len(w.acked) for w in writers), looks=n_looks)
            most("away", worst_age_error_s=round(worst, 2))
        finally:
            s.close()


def away(s, writers, seconds):
    """Looks at the status all along, over two kills of the server → (looks, worst error in s)."""
    began, n, worst, kills = time.monotonic(), 0, 0.0, [0.3, 0.7]
    started = time.time()
    while time.monotonic() - began < seconds:
        if kills and time.monotonic() - began > seconds * kills[0]:
            kills.pop(0)
            s.kill()
            s.start()
            started = time.time()       # what it had found out it finds out again
        asked = time.time()
        # before the status is asked for: what is pushed meanwhile may or may not be in it
        oldest = {w.agent: w.oldest for w in writers}
        rows = {r["agent"]: r for r in s.mirror()}
        told = time.time()
        for agent, when in oldest.items():
            if when is None:
                continue
            row = rows.get(agent)
            assert row is not None and row["unmirrored_s"] is not None, (agent, row)
            least, most_s = asked - when[1], told - when[0]
            off = max(least - 1 - row["unmirrored_s"], row["unmirrored_s"] - most_s - 1, 0)
            worst = max(worst, off)
            assert off <= 1, f"age {row['unmirrored_s']}, not {least:.1f} to {most_s:.1f}"
            assert row["state"] != "mirrored", row
            assert row["failure"] or told - max(when[1], started) < TRIED_S, row
        n += 1
        time.sleep(1)
    return n, worst
