"""PostgreSQL servers for tests: real ones, each in a folder of its own, on a socket in it.

    with Postgres(folder) as pg:      pg.url("name")      pg.crash()      pg.start()      …

It refuses to run as root, so root lends it to the user `postgres`.  `database_for` gives every home
of a test a database of its own in the server that tests/with-postgres started.
"""
import atexit
import functools
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile

SHARED = os.environ.get("MEMFS_TEST_DATABASE")


def programs():
    return sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))[-1]


def sql(url, text):
    """Runs statements; the rows as lists of text."""
    out = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", url,
                          "-c", text], capture_output=True, text=True, timeout=60,
                         env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    assert out.returncode == 0, out.stderr
    return [line.split("\t") for line in out.stdout.splitlines()]


def dump(url):
    """Schema memfs as pg_dump writes it: bytea as hexadecimal digits."""
    out = subprocess.run(["pg_dump", "-n", "memfs", "-d", url], capture_output=True, timeout=120,
                         env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    assert out.returncode == 0, out.stderr
    return out.stdout


def answers(url):
    return subprocess.run([os.path.join(programs(), "pg_isready"), "-q", "-t", "1", "-d", url],
                          timeout=30).returncode == 0


def database_for(home):
    """The url of this home's database in the shared server; made at the first call."""
    name = "it_" + hashlib.md5(str(home).encode()).hexdigest()[:20]
    if not sql(SHARED, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        sql(SHARED, f"CREATE DATABASE {name}")
    return SHARED.replace("/postgres?", f"/{name}?")


def as_postgres(*argv):
    return ["runuser", "-u", "postgres", "--", *argv] if os.geteuid() == 0 else list(argv)


def run(folder, program, *args):
    out = subprocess.run(as_postgres(os.path.join(programs(), program), *args), cwd=folder,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=120)
    assert out.returncode == 0, out.stdout


def lend(folder):
    os.makedirs(folder, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")


@functools.lru_cache
def fresh():
    """What initdb makes, for the others to copy: it takes a second, and a copy none."""
    folder = tempfile.mkdtemp(prefix="memfs-pg-fresh-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    lend(folder)
    data = os.path.join(folder, "data")
    run(folder, "initdb", "-D", data, "-U", "memfs", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    return data


class Postgres:
    """fsync is on, unlike in tests/with-postgres: these are ended without a goodbye."""

    def __init__(self, folder, port=None):
        self.folder = str(folder)
        self.data = os.path.join(self.folder, "data")
        self.frozen = []
        self.port = port
        lend(self.folder)
        subprocess.run(["cp", "-a", fresh(), self.data], check=True)
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as f:
            f.write(f"unix_socket_directories = '{self.folder}'\nmax_connections = 100\n"
                    f"listen_addresses = '{'127.0.0.1' if port else ''}'\nport = {port or 5432}\n")
        self.start()

    def _run(self, program, *args):
        run(self.folder, program, *args)

    def start(self):
        self._run("pg_ctl", "-D", self.data, "-l", os.path.join(self.data, "log"), "-w", "start")
        return self

    def stop(self, mode="fast"):
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def crash(self):
        """-m immediate: no checkpoint, no goodbye; the next start recovers."""
        self.stop("immediate")

    @property
    def pid(self):
        with open(os.path.join(self.data, "postmaster.pid"), encoding="ascii") as f:
            return int(f.readline())

    @property
    def running(self):
        return os.path.exists(os.path.join(self.data, "postmaster.pid"))

    def all_pids(self):
        out = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True)
        return [self.pid, *map(int, out.stdout.split())]

    def freeze(self):
        """SIGSTOP: its kernel still answers, it does not."""
        self.frozen = self.all_pids()
        for pid in self.frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in reversed(self.frozen):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def url(self, name="postgres"):
        return f"postgresql:///{name}?host={self.folder}&port={self.port or 5432}&user=memfs"

    def database(self, name):
        sql(self.url(), f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, text, name="postgres"):
        return sql(self.url(name), text)

    def close(self):
        if self.running:
            self.crash()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
