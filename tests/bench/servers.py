"""What several servers over one PostgreSQL cost on one machine, and what follows for many, on paper.

    tests/bench/servers.py                prints
    tests/bench/servers.py --update       puts it between the marks of docs/scaling.md

Pushes and reads a second from 1 to 4 servers, transactions of the database a push, connections, and what an agent
takes in the database and in a server that starts.  Two ways to spread the load, as a balancer would: `placed`, an
agent always goes to the same server; `any`, each push to a server of chance, which so fetches the one before from
another.  Servers, database, git and clients share the machine's cores: what a machine can do is not shown, only what
each step costs beside the others.
"""
import argparse
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from rigs import BUILD, ROOT, build
from lib.cluster import Cluster
from lib.patience import settled, wait
from lib.server import new_agent
from lib.writer import Memory

PAGE = pathlib.Path(ROOT, "docs", "scaling.md")
TABLES = ("tips", "blocks", "agents", "births")


def in_threads(n, work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def transactions(cluster):
    """Committed ones; backends tell theirs when they have been idle for a second."""
    time.sleep(2)
    return int(cluster.pg.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = 'memfs'")[0][0])


def connections(cluster):
    return int(cluster.pg.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'memfs' AND pid <> "
                              "pg_backend_pid()")[0][0])


def idle_rate(cluster, seconds=5):
    before = transactions(cluster)
    time.sleep(seconds)
    return (transactions(cluster) - before) / (seconds + 2)


class Round:
    def __init__(self, cluster, writers, seconds, is_placed):
        self.cluster, self.seconds, self.is_placed = cluster, seconds, is_placed
        self.memories = [Memory(cluster.servers[i % len(cluster.servers)], new_agent())
                         for i in range(writers)]
        for m in self.memories:
            m.must_push({"system/human.md": "---\ndescription: d\n---\nbegin\n"})
        self.pushes = self.reads = 0
        self.lock = threading.Lock()

    def push(self, i):
        m, end, n = self.memories[i], time.monotonic() + self.seconds, 0
        while time.monotonic() < end:
            if not self.is_placed:
                m.server = random.choice(self.cluster.servers)
            m.must_push({"system/human.md": f"---\ndescription: d\n---\ntext {n}\n"})
            n += 1
        with self.lock:
            self.pushes += n
        m.close()

    def read(self, i):
        end, n, server = time.monotonic() + self.seconds, 0, self.memories[i].server
        while time.monotonic() < end:
            if not self.is_placed:
                server = random.choice(self.cluster.servers)
            server.value(self.memories[i].agent, "system/human")
            n += 1
        with self.lock:
            self.reads += n

    def run(self):
        idle = idle_rate(self.cluster)
        before, began = transactions(self.cluster), time.monotonic()
        in_threads(len(self.memories), self.push)
        spent, n_connections = time.monotonic() - began, connections(self.cluster)
        used = transactions(self.cluster) - before - idle * (spent + 2)
        in_threads(len(self.memories), self.read)
        return {"pushes": self.pushes / self.seconds, "reads": self.reads / self.seconds,
                "each": used / max(1, self.pushes), "idle": idle, "connections": n_connections}


def make_rows(cluster, n):
    """Agents as they are, with a block each, for the sizes alone."""
    cluster.sql(f"""
        WITH a AS (INSERT INTO tips(agent_id, tip, generation, holder)
            SELECT 'agent-' || gen_random_uuid(), decode(md5(i::text) || 'aabbccdd', 'hex'),
                   nextval('generation'), 1 FROM generate_series(1, {n}) i RETURNING agent_no, agent_id),
        g AS (INSERT INTO agents SELECT agent_id, 'org-00000000-0000-4000-8000-000000000000',
              agent_id::bytea, '[]', '{{}}', 1, 1 FROM a),
        b AS (INSERT INTO births SELECT agent_id, 'system/human', 1 FROM a)
        INSERT INTO blocks(agent_no, path, label, id, description, char_limit, read_only, metadata, tags,
                           hidden, problem, blob, bytes, created_at, updated_at, value)
        SELECT agent_no, 'system/human.md', 'system/human', 'block-' || gen_random_uuid(), 'about the human',
               100000, false, '{{}}', '[]', false, '', decode(md5(agent_id) || 'aabbccdd', 'hex'), 400, 1, 1,
               convert_to(repeat(md5(agent_id), 12), 'UTF8') FROM a""")
    cluster.pg.sql("VACUUM", "memfs")


def bytes_a_row(cluster):
    found = {}
    for table in TABLES:
        n, size = cluster.sql(f"SELECT count(*), pg_total_relation_size('{table}') FROM {table}")[0]
        found[table] = int(size) / int(n)
    return found


def tip_on_disk(server, agent):
    try:
        return pathlib.Path(server.repository(agent), "refs", "heads", "main").read_text(encoding="ascii").strip()
    except OSError:
        return None


def fetches_a_second(cluster, n=150):
    """Of one server that follows another one's pushes to n agents; each of them fetched once before."""
    one, two = cluster.servers[:2]
    memories = [Memory(one, new_agent(), timeout=120) for _ in range(n)]

    def behind():
        return sum(tip_on_disk(two, m.agent) != m.tip for m in memories)

    for i in range(2):
        lots = [memories[k::8] for k in range(8)]
        in_threads(8, lambda k: [m.must_push({"a.md": f"{i}\n"}) for m in lots[k]])
        began, left = time.monotonic(), behind()
        wait(lambda: not behind(), "the other server follows", 600)
        spent = time.monotonic() - began
    for m in memories:
        m.close()
    return left / spent


def peak_kib(server):
    with open(f"/proc/{server.pid}/status", encoding="ascii", errors="replace") as f:
        return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))


def bytes_an_agent(cluster, n):
    """Of memory, at most, in a server that starts beside n agents more than it had; it reads the list of all."""
    server = cluster.servers[0]
    peaks = []
    for rows in (0, n):
        if rows:
            make_rows(cluster, rows)
        server.kill()
        server.start(120)
        peaks.append(settled(lambda: peak_kib(server), quiet_s=5))
    return (peaks[1] - peaks[0]) * 1024 / n


def measure(memfs, args):
    rows, one = {}, {}
    for n, spread in ((1, "placed"), *((n, spread) for n in (2, 3, 4) for spread in ("placed", "any"))):
        folder = tempfile.mkdtemp(prefix="memfs-bench-servers-", dir=args.folder)
        os.chmod(folder, 0o755)     # PostgreSQL is another user
        cluster = Cluster(memfs, folder, n=n)
        try:
            for s in cluster.servers:
                s.watcher.stop()
                s.watcher = None
            rows[n, spread] = Round(cluster, args.writers, args.seconds, spread == "placed").run()
            print(n, spread, {k: round(v, 1) for k, v in rows[n, spread].items()}, flush=True)
            if (n, spread) == (1, "placed"):
                one["start"] = bytes_an_agent(cluster, args.rows)
                one.update(bytes_a_row(cluster))
            if (n, spread) == (2, "placed"):
                one["fetches"] = fetches_a_second(cluster)
        finally:
            cluster.close()
            shutil.rmtree(folder, ignore_errors=True)
    return rows, one


def measured(rows, one, args):
    yield ("%d cores, load average %.1f when it began, %s; %d writers with an agent each, %g s of pushes, then of"
           " reads, a row.\n" % (os.cpu_count(), args.busy, time.strftime("%Y-%m-%d", time.gmtime()),
                                 args.writers, args.seconds))
    yield "| servers | spread | pushes/s | block reads/s | transactions a push | idle transactions/s | connections |"
    yield "|---|---|---|---|---|---|---|"
    for (n, spread), r in rows.items():
        yield "| %d | %s | %.0f | %s | %.1f | %.0f | %d |" % (
            n, spread if n > 1 else "", r["pushes"], f"{r['reads']:,.0f}", r["each"], r["idle"], r["connections"])
    yield ""
    yield "| one by one | |"
    yield "|---|---|"
    for table, what in (("tips", "an agent"), ("agents", "an agent"), ("births", "a label"),
                        ("blocks", "a block of 400 bytes")):
        yield "| a row of `%s` with its indexes, %s | %.0f bytes |" % (table, what, one[table])
    yield "| memory, at most, of a server that starts, for each agent in the database | %.0f bytes |" % one["start"]
    yield "| agents that one server fetches from another after pushes there | %.0f a second |" % one["fetches"]


N_SERVERS, N_AGENTS, N_BLOCKS, GIT_BYTES, PUSHES_A_DAY = 100, 10_000_000, 20, 1_000_000, 50
COPIES = 3              # where the balancer's choice is not one of the two, as mostly with many servers
MOVES_ROUNDS = 4        # as in src/sync/cluster.c


def size(n_bytes):
    return "%.1f TB" % (n_bytes / 1e12) if n_bytes >= 1e12 else "%.1f GB" % (n_bytes / 1e9)


def paper(rows, one):
    """Products of the figures above; the assumptions are N_SERVERS and those beside it."""
    most = max(n for n, _ in rows)
    idle = rows[most, "placed"]["idle"] / most
    each = max(r["each"] for (_, spread), r in rows.items() if spread == "placed") + 1   # info/refs, by git
    pushes = N_AGENTS * PUSHES_A_DAY / 86400
    blocks = N_AGENTS * N_BLOCKS
    yield (f"{N_SERVERS} servers, {N_AGENTS:,} agents of {N_BLOCKS} blocks and {GIT_BYTES // 10**6} MB of git, each"
           f" pushing {PUSHES_A_DAY} times a day:\n")
    yield "| what | how much | follows from |"
    yield "|---|---|---|"
    yield f"| pushes/s, all and a server | {pushes:,.0f}, {pushes / N_SERVERS:.0f} | agents × pushes a day / 86,400 |"
    yield (f"| repositories, all and a server | {size(COPIES * N_AGENTS * GIT_BYTES)},"
           f" {size(COPIES * N_AGENTS * GIT_BYTES / N_SERVERS)} | {COPIES} copies: the two that keep it, and where the"
           " balancer places it |")
    yield (f"| fetches/s between servers, all and a server | {(COPIES - 1) * pushes:,.0f},"
           f" {(COPIES - 1) * pushes / N_SERVERS:.0f} | each push, by those that keep it; a server can"
           f" {one['fetches']:.0f} |")
    yield (f"| `tips`, `agents` | {size(one['tips'] * N_AGENTS)}, {size(one['agents'] * N_AGENTS)}"
           " | bytes a row × agents |")
    yield (f"| `births`, `blocks` | {size(one['births'] * blocks)}, {size(one['blocks'] * blocks)}"
           f" | bytes a row × {blocks:,} |")
    yield (f"| transactions/s for pushes | {pushes * each:,.0f}, of which {pushes:,.0f} write |"
           f" {each:.1f} a push, one of them for `info/refs` |")
    yield f"| idle transactions/s | {idle * N_SERVERS:,.0f} | {idle:.1f} a server |"
    yield f"| connections, at most | {19 * N_SERVERS:,} | 16, made when needed, 2 for locks and 1 to listen, a server |"
    yield f"| memory of a start | {size(one['start'] * N_AGENTS)} a server | bytes an agent × agents |"
    yield (f"| rows of moves read a second | {N_SERVERS * pushes * MOVES_ROUNDS / 1e6:.1f} million |"
           f" servers × pushes/s × {MOVES_ROUNDS} readings of each |")


def update(page, mark, lines):
    begin, end = f"<!-- {mark}: written by tests/bench/servers.py -->\n", f"<!-- end of {mark} -->"
    before, rest = page.split(begin)
    return before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("memfs", nargs="?", help="another release build")
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--writers", type=int, default=16)
    p.add_argument("--rows", type=int, default=100000, help="agents made for the sizes")
    p.add_argument("--folder", default="/var/tmp")
    p.add_argument("--update", action="store_true", help="write docs/scaling.md")
    args = p.parse_args()
    args.busy = os.getloadavg()[1]
    if not args.memfs:
        build()
    found = measure(os.path.abspath(args.memfs or os.path.join(BUILD, "memfs")), args)
    parts = {"measured": list(measured(*found, args)), "on paper": list(paper(*found))}
    for mark, lines in parts.items():
        print("\n%s\n\n%s" % (mark, "\n".join(lines)))
    if args.update:
        page = PAGE.read_text(encoding="utf-8")
        for mark, lines in parts.items():
            page = update(page, mark, lines)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
