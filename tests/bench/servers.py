"""What several servers over one PostgreSQL cost on one machine: pushes and reads a second from 1 to 4
servers, transactions of the database a push, and what an agent takes there.

    tests/bench/servers.py [MEMFS] [--seconds S] [--writers W]

Two ways to spread the load, as a balancer would: `placed`, an agent always goes to the same server
(by hash); `any`, each push to a server of chance, which so fetches the one before from another.
Figures are of one run on one machine, where servers, database, git and clients share its cores: they
show what each step costs beside the others, not what a machine can do.
"""
import argparse
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from lib.cluster import Cluster
from lib.server import new_agent
from lib.writer import Memory


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
        spent = time.monotonic() - began
        used = transactions(self.cluster) - before - idle * (spent + 2)
        in_threads(len(self.memories), self.read)
        return self.pushes / self.seconds, self.reads / self.seconds, used / max(1, self.pushes), idle


def sizes(cluster):
    for table in ("tips", "blocks", "agents", "births"):
        n, size = cluster.sql(f"SELECT count(*), pg_total_relation_size('{table}') FROM {table}")[0]
        print(f"  {table:8} {int(n):6} rows, {int(size) / max(1, int(n)):8.0f} bytes a row with indexes")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("memfs", nargs="?", default=str(ROOT / "build" / "memfs"))
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--writers", type=int, default=16)
    p.add_argument("--rows", type=int, default=20000, help="rows made for the sizes")
    a = p.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {a.writers} writers, {a.seconds:g} s each")
    print("servers  spread   pushes/s  reads/s  transactions a push  idle transactions/s")
    for n in (1, 2, 3, 4):
        for is_placed in (True,) if n == 1 else (True, False):
            folder = tempfile.mkdtemp(prefix="memfs-bench-servers-")
            os.chmod(folder, 0o755)     # PostgreSQL is another user
            cluster = Cluster(os.path.abspath(a.memfs), folder, n=n)
            try:
                for s in cluster.servers:
                    s.watcher.stop()
                pushes, reads, each, idle = Round(cluster, a.writers, a.seconds, is_placed).run()
                print(f"{n:7}  {'placed' if is_placed else 'any':6}  {pushes:8.1f} {reads:8.1f}  "
                      f"{each:19.1f}  {idle:19.1f}", flush=True)
                if n == 4 and is_placed:
                    make_rows(cluster, a.rows)
                    sizes(cluster)
            finally:
                cluster.close()
                shutil.rmtree(folder, ignore_errors=True)


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


if __name__ == "__main__":
    main()
