"""What it takes from a push to the blocks: a stock Letta 0.16.7 server's own code beside memfs, which keeps the same
blocks in SQLite, in PostgreSQL, and in Letta's own tables.

All three databases are in one PostgreSQL server that syncs its writes.  The Letta server is the package from PyPI,
started as its users do (tests/letta-server/install puts it into .deps), with memfs as its memfs service; its figure is
what it says itself in its log.
"""
import contextlib
import os
import re
import time

from report import Row, median, number
from rigs import Memfs, note, spread
from lib import letta as real
from lib import wire
from lib.lettatables import LettaTables
from lib.modelapi import ModelApi
from lib.postgres import Postgres
from lib.server import new_agent

CHANGED = "system/note-0000.md"
# Files -> (whole memories, changes of one file in each).
SIZES = {50: (4, 4), 500: (3, 3), 2000: (2, 2)}
SAID = re.compile(rb"post-push sync timing: agent=(\S+) synced_blocks=(\d+) total_ms=([\d.]+)\s")


class Pusher:
    """One agent's files, pushed as git does it, without the start of a git client."""

    def __init__(self, side, n):
        self.side, self.agent = side, side.new_agent()
        self.tip = side.tip(self.agent) or wire.GENESIS
        self.objects, self.n, self.paths = wire.Objects(), 0, spread(n)
        self.files = {path: self.objects.blob(note(i)) for i, path in enumerate(self.paths)}

    def push(self):
        """Milliseconds until every block is as it was pushed."""
        known = set(self.objects.by_id) if self.n else set()
        text = note(0, self.n)
        self.files[CHANGED] = self.objects.blob(text)
        commit = self.objects.commit(self.objects.tree_of(self.files), [self.tip], "push %d\n" % self.n)
        pack = self.objects.pack([i for i in self.objects.by_id if i not in known])
        ms = self.side.push(self.agent, [(self.tip, commit, wire.MAIN)], pack, len(self.paths))
        assert self.side.count(self.agent) == len(self.paths), "a block is missing"
        value = self.side.value(self.agent, CHANGED[:-3])
        assert value and text.endswith(value), "the block is not the pushed one"
        self.tip, self.n = commit, self.n + 1
        return ms


def must_be_acked(report):
    if not report.acked or "will follow" in report.talk:
        raise RuntimeError("not taken: %r" % report)


class Ours(Memfs):
    """The push is acknowledged when its blocks are written: the clock runs around the request."""

    def __init__(self, folder, tables=None, **kw):
        super().__init__(folder, **kw)
        self.tables = tables

    def new_agent(self):
        return self.tables.agent(tags=[real.GIT_TAG]) if self.tables else new_agent()

    def push(self, agent, commands, pack, _):
        start = time.perf_counter()
        report = self.push_raw(agent, commands, pack)
        ms = (time.perf_counter() - start) * 1000
        must_be_acked(report)
        return ms

    def count(self, agent):
        return len(self.tables.rows(agent) if self.tables else self.blocks(agent))

    def value(self, agent, label):
        if self.tables:
            return self.tables.values(agent)[label]
        return super().value(agent, label)


class Stock:
    """The Letta server syncs after the answer to the push has ended: it says how long, that alone."""

    def __init__(self, server):
        self.server = server

    def new_agent(self):
        return self.server.create_agent(tags=[real.GIT_TAG])

    def tip(self, agent):
        answer = self.server.request("GET", "/v1/git/%s/state.git/info/refs?service=git-receive-pack" % agent)
        assert answer.status == 200, answer
        return wire.parse_refs(answer.body)[0].get(wire.MAIN)

    def push(self, agent, commands, pack, n):
        end = os.path.getsize(self.server.log_path)
        answer = self.server.request(
            "POST", "/v1/git/%s/state.git/git-receive-pack" % agent, wire.push_body(commands, pack),
            {"Content-Type": "application/x-git-receive-pack-request"}, timeout=600)
        must_be_acked(wire.Report(answer.status, answer.body))
        said = self._wait(end)
        assert said[0].decode() == agent and int(said[1]) == n, said
        return float(said[2])

    def _wait(self, offset, seconds=600):
        deadline = time.monotonic() + seconds
        with open(self.server.log_path, "rb") as log:
            log.seek(offset)
            rest = b""
            while time.monotonic() < deadline:
                rest = rest[-500:] + log.read()
                found = SAID.search(rest)
                if found:
                    return found.groups()
                time.sleep(0.1)     # seldom: it needs the processor more than we do
        raise RuntimeError("no end of a sync in\n" + self.server.log_tail())

    def count(self, agent):
        return int(self.server.sql("SELECT count(*) FROM blocks_agents WHERE agent_id = '%s'" % agent)[0][0])

    def value(self, agent, label):
        rows = self.server.sql("SELECT encode(convert_to(value, 'UTF8'), 'hex') FROM block b JOIN blocks_agents a ON"
                               " a.block_id = b.id WHERE agent_id = '%s' AND label = '%s'" % (agent, label))
        return bytes.fromhex(rows[0][0]).decode()


NAMES = {"stock": "Letta's own sync, alone", "sqlite": "memfs, SQLite", "postgres": "memfs, PostgreSQL",
         "tables": "memfs, Letta's tables"}


@contextlib.contextmanager
def sides(folder):
    """All four, started."""
    real.install()
    os.makedirs(folder)
    for path in (os.path.dirname(folder), folder):
        os.chmod(path, 0o755)       # PostgreSQL is another user
    with contextlib.ExitStack() as stack:
        pg = stack.enter_context(Postgres(os.path.join(folder, "pg")))
        api = stack.enter_context(ModelApi())
        letta = stack.enter_context(real.with_service(pg.url(), os.path.join(folder, "letta"), api))
        service = stack.enter_context(Memfs(os.path.join(folder, "service"), args=[
            "--letta-root", letta.memfs_root, "--letta-proxy", "127.0.0.1"]))
        letta.serve(service.port)
        tables = LettaTables(pg, "tables")
        yield {
            "stock": Stock(letta),
            "sqlite": stack.enter_context(Ours(os.path.join(folder, "sqlite"))),
            "postgres": stack.enter_context(Ours(os.path.join(folder, "postgres"),
                                                 env={"MEMFS_DATABASE": pg.database("memfs")})),
            "tables": stack.enter_context(Ours(os.path.join(folder, "tables"), tables=tables,
                                               env={"MEMFS_LETTA_DATABASE": tables.url})),
        }


def bench_letta(folder):
    row = Row("letta", "from a push to the blocks, beside a stock Letta server")
    took = {}
    with sides(os.path.join(folder, "letta")) as all_sides:
        for side in all_sides.values():     # what the first push warms up
            Pusher(side, 20).push()
        for n, (wholes, changes) in SIZES.items():
            for i in range(wholes):
                print("  %s files, memory %d of %d" % (f"{n:,}", i + 1, wholes), flush=True)
                pushers = {name: Pusher(side, n) for name, side in all_sides.items()}
                for name, pusher in pushers.items():
                    took.setdefault((n, "all new", name), []).append(pusher.push())
                for _ in range(changes):
                    for name, pusher in pushers.items():
                        took.setdefault((n, "one changed", name), []).append(pusher.push())
    row.remark("A memory of 50, 500 or 2,000 files of about 1 KiB is pushed whole into a new agent, then one file"
               " of it is changed and pushed, in turns. memfs: the whole push, from the request to its answer: git's"
               " part, everything synced, the blocks written. The stock server (`letta==0.16.7` of PyPI, with memfs as"
               " its memfs service): **only its sync**, which it begins after the push has been answered, as its own"
               " log says it; so the factors are too small. PostgreSQL syncs its writes and is the same for all three"
               " that use it. After each push the number of blocks and the text of the changed one are compared.")
    row.remark(matrix(took))
    for (n, what, name), values in took.items():
        row.figure("%s files, %s: %s" % (f"{n:,}", what, NAMES[name]), values, "ms")
    return row


def matrix(took):
    """The medians side by side, each with how many times Letta's own sync takes as long."""
    lines = ["| files | | %s |" % " | ".join(NAMES.values()), "|---" * (2 + len(NAMES)) + "|"]
    for n, what in dict.fromkeys(key[:2] for key in took):
        stock = median(took[n, what, "stock"])
        cells = ["%s ms" % number(stock)]
        for name in list(NAMES)[1:]:
            ms = median(took[n, what, name])
            cells.append("%s ms (%s ×)" % (number(ms), number(stock / ms)))
        lines.append("| %s | %s | %s |" % (f"{n:,}", what, " | ".join(cells)))
    return "\n".join(lines)
