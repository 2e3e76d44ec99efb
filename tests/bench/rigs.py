"""The servers that are compared, each started by us, on loopback, with its own folder, ended by pid.

    Memfs        the release build, as a user starts it
    HttpBackend  nginx + fcgiwrap + git http-backend, with a configuration of its own
    Bare         a bare libmicrohttpd handler (bare.c)
"""
import os
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, "build-release")
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

from lib.server import Server  # noqa: E402  (found by the line above)

GIT = "/usr/bin/git"
GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"
GIT_ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C", "TZ": "UTC",
           "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
           "GIT_TERMINAL_PROMPT": "0",
           "GIT_AUTHOR_NAME": "Bench", "GIT_AUTHOR_EMAIL": "bench@example.org",
           "GIT_COMMITTER_NAME": "Bench", "GIT_COMMITTER_EMAIL": "bench@example.org"}


def build():
    flags = ["-Dbuildtype=release", "-Dtests=false", "-Dbench=true"]
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        subprocess.run(["meson", "setup", BUILD, *flags], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
    subprocess.run(["meson", "configure", BUILD, *flags], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", BUILD, "--quiet"], check=True)


def program(name):
    return os.path.join(BUILD, "tests", "bench", name)


def git(*args, cwd=None, input=None, env=None):
    done = subprocess.run([GIT, *args], cwd=cwd, input=input, env={**GIT_ENV, **(env or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise RuntimeError("git %s: %s" % (" ".join(args), done.stderr.decode()))
    return done.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nothing listens on port %d" % port)
            time.sleep(0.01)


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def processor_s(pids):
    """Processor time of these processes and of their ended children, so far."""
    ticks = 0
    for pid in pids:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Memfs(Server):
    """memfs on a home of its own; nothing watches it while it is measured."""

    def __init__(self, folder, **kw):
        super().__init__(os.path.join(BUILD, "memfs"), folder, watch=False, **kw)

    def __enter__(self):
        return self.start()

    def pids(self):
        return [self.process.pid]

    def __exit__(self, *exc):
        try:
            self.stop()
        finally:
            self.kill()


def registered(folder, n):
    """memfs, not started, with n agents and a repository each; made once, as it takes ten fsyncs each."""
    server = Memfs(os.path.join(folder, "registered-%d" % n))
    if not os.path.exists(server.home):
        with server:
            pass
        subprocess.run([program("bench_rooms"), "register", server.home, str(n)], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return server


NGINX_CONF = """
daemon off;
user root;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/v1/git(/.*)$ {{
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
            fastcgi_param GIT_PROJECT_ROOT {folder}/repos;
            fastcgi_param GIT_HTTP_EXPORT_ALL "";
            fastcgi_param GIT_CONFIG_NOSYSTEM 1;
            fastcgi_param GIT_PROTOCOL $http_git_protocol;
            fastcgi_param REMOTE_USER bench;
            fastcgi_param PATH_INFO $1;
            fastcgi_pass unix:{folder}/fcgi.sock;
        }}
    }}
}}
"""


class HttpBackend:
    """nginx, fcgiwrap with a few prefork children, git http-backend; repositories in folder/repos."""

    def __init__(self, folder, children=4):
        self.folder, self.children = folder, children
        os.makedirs(os.path.join(folder, "repos"))
        self.port = free_port()

    def __enter__(self):
        conf = os.path.join(self.folder, "nginx.conf")
        with open(conf, "w") as f:
            f.write(NGINX_CONF.format(folder=self.folder, port=self.port))
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
                 "stderr": subprocess.DEVNULL, "env": {"PATH": "/usr/bin:/bin"}}
        self.wrap = subprocess.Popen(
            [shutil.which("fcgiwrap", path="/usr/sbin:/usr/bin"), "-c", str(self.children),
             "-s", "unix:" + os.path.join(self.folder, "fcgi.sock")], **quiet)
        self.nginx = subprocess.Popen(
            [shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-p", self.folder, "-c", conf],
            **quiet)
        wait_port(self.port, self.nginx)
        return self

    def __exit__(self, *exc):
        end(self.nginx)
        # fcgiwrap's prefork children do not end with it: they are its process group's, by pid.
        kids = children_of(self.wrap.pid)
        end(self.wrap)
        for pid in kids:
            try:
                os.kill(pid, 15)
            except ProcessLookupError:
                pass

    def pids(self):
        return [p for main in (self.nginx.pid, self.wrap.pid) for p in [main, *children_of(main)]]

    def git_url(self, agent):
        return "http://127.0.0.1:%d/v1/git/%s/state.git" % (self.port, agent)

    def repository(self, agent):
        return os.path.join(self.folder, "repos", agent, "state.git")

    def create(self, agent, fsync):
        make_bare(self.repository(agent), fsync)


def children_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(x) for x in f.read().split()]


class Bare:
    """The bare libmicrohttpd handler over a cache.db."""

    def __init__(self, database, agent):
        self.args = [program("bench_bare"), database, agent]

    def __enter__(self):
        self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        return self

    def pids(self):
        return [self.process.pid]

    def __exit__(self, *exc):
        end(self.process)


def make_bare(path, fsync):
    """A bare repository that begins with the genesis; durable writes if asked for."""
    git("init", "-q", "--bare", "-b", "main", path)
    git("config", "http.receivepack", "true", cwd=path)
    git("config", "gc.auto", "0", cwd=path)
    if fsync:
        git("config", "core.fsync", "all", cwd=path)
        git("config", "core.fsyncMethod", "fsync", cwd=path)
    tree = git("hash-object", "-w", "-t", "tree", "/dev/null", cwd=path).decode().strip()
    who = {"NAME": "memfs", "EMAIL": "memfs@localhost", "DATE": "@0 +0000"}
    env = {"GIT_%s_%s" % (role, key): value
           for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
    commit = git("commit-tree", tree, "-m", "memfs: genesis", cwd=path, env=env).decode().strip()
    assert commit == GENESIS, commit
    git("update-ref", "refs/heads/main", commit, cwd=path)


# ---- memories and clones

def note(i, version=0, bytes_=1000):
    """A memory file of about the size that agents keep."""
    words = "memory note agent prefers tea over coffee and lives near the river since spring "
    body = ("%s %d %d\n" % (words, i, version)) * (bytes_ // len(words))
    return "---\ndescription: Note %d of the bench\n---\n%s" % (i, body)


def spread(n):
    """n paths over folders, some fifty to a folder."""
    paths = ["system/note-%04d.md" % i for i in range(min(n, 10))]
    return paths + ["reference/topic-%02d/note-%04d.md" % (i // 50, i) for i in range(10, n)]


def flat(n):
    return ["system/note-%04d.md" % i for i in range(n)]


class Clone:
    """A work tree whose pushes are timed."""

    def __init__(self, folder, url):
        self.folder, self.n = folder, 0
        git("clone", "-q", url, folder)
        git("config", "gc.auto", "0", cwd=folder)

    def commit_fill(self, paths):
        """A commit with these files; not pushed yet."""
        for i, path in enumerate(paths):
            full = os.path.join(self.folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w") as f:
                f.write(note(i))
        git("add", "-A", cwd=self.folder)
        git("commit", "-q", "-m", "fill", cwd=self.folder)

    def commit_one(self, path):
        """One changed file, one commit; not pushed yet."""
        self.n += 1
        with open(os.path.join(self.folder, path), "w") as f:
            f.write(note(0, self.n))
        git("commit", "-q", "-am", "change %d" % self.n, cwd=self.folder)

    def push(self):
        """Milliseconds of one `git push`."""
        start = time.perf_counter()
        git("push", "-q", "origin", "main", cwd=self.folder)
        return (time.perf_counter() - start) * 1000


def sync_folders(repository, since_ns):
    """What git leaves undone even with core.fsync=all: fsync of the folders that a push changed."""
    top = [repository, os.path.join(repository, "refs"), os.path.join(repository, "refs", "heads")]
    objects = os.path.join(repository, "objects")
    for entry in os.scandir(objects):
        if entry.is_dir() and entry.stat().st_mtime_ns >= since_ns:
            top.append(entry.path)
    for path in top + [objects]:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
