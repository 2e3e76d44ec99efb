"""Several servers over one PostgreSQL database, each with a home and a port of its own.

    with Cluster(binary, folder, n=2) as c:      c.servers[0]      c.pg.crash()      c.add()      …
"""
import contextlib
import os
import socket
import subprocess
import time

from . import wire
from .patience import Late
from .postgres import Postgres
from .server import Server


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(is_so, what, seconds=90):
    """A state that must come; a server that answers 503 on the way is asked again."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if is_so():
                return
        except (AssertionError, OSError, KeyError) as e:
            last = e
        time.sleep(0.1)
    raise Late(f"it never came that {what}: {last}")


class Cluster:
    def __init__(self, binary, folder, n=2, args=(), start=True):
        self.binary, self.folder, self.args = binary, str(folder), list(args)
        self.pg = Postgres(os.path.join(self.folder, "pg"))
        self.url = self.pg.database("memfs")
        self.servers = []
        for _ in range(n):
            self.add(start=start)

    def add(self, start=True, args=()):
        name, port = f"s{len(self.servers)}", free_port()
        s = Server(self.binary, os.path.join(self.folder, name),
                   env={"MEMFS_DATABASE": self.url}, watch=True,
                   args=["--cluster-url", f"http://127.0.0.1:{port}", *self.args, *args])
        s.listen = f"127.0.0.1:{port}"
        self.servers.append(s)
        return s.start() if start else s

    def sql(self, text):
        return self.pg.sql(f"SET search_path = memfs; {text}", "memfs")

    @contextlib.contextmanager
    def holding(self, statements):
        """A transaction that others wait for, until the block ends; then it is committed."""
        psql = subprocess.Popen(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        psql.stdin.write(f"SET search_path = memfs; BEGIN; {statements};\n\\echo held\n")
        assert psql.stdout.readline() == "held\n"
        try:
            yield
        finally:
            psql.stdin.write("COMMIT;\n")
            psql.stdin.close()
            assert psql.wait(60) == 0
            psql.stdout.close()

    def wait_for_a_waiter(self):
        wait_until(lambda: self.pg.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                       "AND datname = 'memfs'"), "a server waits for that lock")

    def tip(self, agent):
        """Main of all servers, as the database has it; None: no such agent."""
        rows = self.sql(f"SELECT encode(tip, 'hex') FROM tips WHERE agent_id = '{agent}'")
        return rows[0][0] if rows else None

    def tips(self, agent):
        """Main of each server, as it answers now."""
        return [s.refs(agent)[wire.MAIN] for s in self.servers]

    def close(self):
        for s in self.servers:
            if s.watcher:
                s.watcher.stop()
            s.kill()
        self.pg.close()

    def finish(self):
        """Stops and examines every server: D6, H1, K1, S3, T20; one after the other."""
        for s in self.servers:
            if not s.running:
                s.start()
        for s in self.servers:
            s.check_clean()
        for s in self.servers:
            s.stop()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()
