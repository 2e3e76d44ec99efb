"""memfs servers on machines of their own, with a remote; what the fleet's tests and the bench share.

    s = FleetServer(memfs_bin, folder, machine, host, clock="+3y", poll_s=2)   # machine may be None
    s.start()                 # its config: remote "origin" is host.template, with the account memfs
    s.hook_url                # where the host delivers webhooks: a relay before the server's loopback
    s.mirror(agent)           # the rows of `memfs mirror status --json`, of one agent or all
    s.check_no_host_token()   # S3

    w = Writer(server, agent, name, seed, folder)      # an agent's own git clone, on that machine
    w.start(); w.halt(); w.acked                       # commits that git push reported as taken
"""
import json
import os
import random
import re
import secrets
import subprocess
import threading
import time
from contextlib import nullcontext

from .faultproxy import FaultProxy
from .gitcli import GIT, GitFailed, Git, git_env
from .patience import Late
from .server import CANARY, Server

PORT, RELAY = 8285, 8286


class FleetServer(Server):
    def __init__(self, binary, folder, machine=None, host=None, clock=None, poll_s=2, remote=None,
                 env=None, **kw):
        self.machine, self.host, self.relay = machine, host, None
        env = dict(env or {})
        if clock:
            env.update(machine.clock(clock, binary))
        super().__init__(binary, folder, env=env, **kw)
        self.secret = secrets.token_hex(16)
        self.token_file = self._secret_file("token", host.token("memfs") if host else None)
        self.secret_file = self._secret_file("webhook", self.secret)
        if host:
            self.configure(origin={"url": remote or host.template, "username": "memfs",
                                   "allowHttp": "true", "poll": poll_s, "tokenFile": self.token_file,
                                   "webhookSecretFile": self.secret_file})

    def _secret_file(self, name, text):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write(text + "\n")
        return path

    def configure(self, **remotes):
        """The remotes of the home's config file: name → {key: value}; None leaves a key out."""
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        text = ""
        for name, values in remotes.items():
            text += f'[mirror "{name}"]\n' + "".join(
                f"\t{k} = {v}\n" for k, v in values.items() if v is not None)
        path = os.path.join(self.home, "config")
        with open(path + ".new", "w") as f:
            f.write(text)
        os.chmod(path + ".new", 0o600)
        os.rename(path + ".new", path)

    def inside(self):
        return self.machine.inside() if self.machine else nullcontext()

    def spawn(self, listen="127.0.0.1:0"):
        """After a kill on the same port again: clones know it."""
        port = PORT if self.machine else self.port
        with self.inside():
            return super().spawn(f"127.0.0.1:{port}" if port else listen)

    def start(self, timeout=60):
        super().start(timeout)
        if self.relay is None:
            address = self.machine.address if self.machine else "127.0.0.1"
            with self.inside():
                self.relay = FaultProxy("127.0.0.1", self.port, host=address,
                                        on=RELAY if self.machine else 0)
        self.relay.to = ("127.0.0.1", self.port)
        return self

    @property
    def hook_url(self):
        return f"http://{self.relay.host}:{self.relay.port}/webhooks/gitea"

    def close(self):
        if self.relay:
            self.relay.close()
        self.kill()

    def request(self, *args, **kw):
        with self.inside():
            return super().request(*args, **kw)

    # -- the mirror ----------------------------------------------------------------------------------

    def mirror(self, agent=None, count=False):
        only = ["--agent", agent] if agent else []
        done = self.cli("mirror", "status", "--json", *only, check=False)
        assert done.returncode in (0, 1), (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)["rows"]

    def row(self, agent, remote="origin"):
        rows = [r for r in self.mirror(agent) if r["remote"] == remote]
        return rows[0] if rows else None

    def wait_row(self, agent, good, seconds=60, remote="origin"):
        """Waits until the agent's row is as wanted → row."""
        deadline = time.monotonic() + seconds
        while True:
            row = self.row(agent, remote)
            if row is not None and good(row):
                return row
            if time.monotonic() > deadline:
                raise Late(f"the row stays {row}\n{self.log_tail(30)}")
            time.sleep(0.1)

    def check_no_host_token(self, *tokens):
        tokens = tokens or (self.host.token("memfs"), self.secret)
        patterns = [x for t in tokens for x in ("-e", t)]
        done = subprocess.run(["grep", "-rlaF", *patterns, "--", self.home, self.log_path],
                              capture_output=True, timeout=300)
        assert done.stdout == b"", f"a secret is at rest in {done.stdout.decode()}"


# ---- writers

FILES = [f"notes/{n}.md" for n in "abcdefgh"] + ["system/human.md", "system/persona.md"]


class Writer:
    """One of several that write an agent's memory: fetch, one change, push; begins anew when refused."""

    def __init__(self, server, agent, name, seed, folder):
        self.server, self.agent, self.name = server, agent, name
        self.rng = random.Random(f"{seed}/{name}")
        self.git = Git(os.path.join(str(folder), "githome-" + name), CANARY)
        self.path = os.path.join(str(folder), "clone-" + name)
        self.acked, self.times = [], []
        self.n, self.n_refused, self.n_broken, self.ops = 0, 0, 0, {}
        self.stopping, self.thread, self.fault = threading.Event(), None, None

    def start(self):
        self.thread = self.server.machine.thread(self._run) if self.server.machine else \
            threading.Thread(target=self._run, daemon=True)
        if not self.server.machine:
            self.thread.start()
        return self

    def halt(self):
        self.stopping.set()

    def join(self, seconds=90):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"{self.name} does not end"
        if self.fault:
            raise self.fault

    # -- its days ------------------------------------------------------------------------------------

    def _run(self):
        try:
            while not self.stopping.is_set():
                try:
                    self._round()
                except (GitFailed, subprocess.TimeoutExpired):
                    self.n_broken += 1              # the server is not there; unknown outcomes count as lost
                    self.stopping.wait(self.rng.uniform(0.2, 0.6))
                self.stopping.wait(self.rng.uniform(0.05, 0.4))
        except BaseException as e:
            self.fault = e

    def _do(self, *args, check=True):
        return self.git.run(*args, cwd=self.path, check=check, timeout=60)

    def _round(self):
        if not os.path.isdir(os.path.join(self.path, ".git")):
            self.git.run("clone", "-q", self.server.git_url(self.agent), self.path, timeout=60)
        self._do("fetch", "-q", "origin")
        self._do("checkout", "-q", "-f", "-B", "main", "origin/main")
        self._do("clean", "-q", "-fd")
        op = self.rng.choices(
            ("line", "append", "delete", "rename", "new", "whole", "binary"),
            (40, 20, 8, 10, 12, 6, 4))[0]
        self.n += 1
        if not getattr(self, "_" + op)():
            return
        self._do("add", "-A")
        if self._do("diff", "--cached", "--quiet", check=False).returncode == 0:
            return
        self._do("commit", "-q", "-m", f"{self.name} {self.n}: {op}")
        head = self._do("rev-parse", "HEAD").stdout.decode().strip()
        began = time.monotonic()
        done = self._do("push", "-q", "origin", "main", check=False)
        if done.returncode == 0:
            self.acked.append(head)
            self.times.append(time.monotonic() - began)
            self.ops[op] = self.ops.get(op, 0) + 1
        else:
            self.n_refused += 1

    def _existing(self):
        out = self._do("ls-files", "-z").stdout.decode().split("\0")
        return [p for p in out if p.endswith(".md")]

    def _write(self, path, text, binary=None):
        full = os.path.join(self.path, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(binary if binary is not None else text.encode())
        return True

    def _read(self, path):
        try:
            with open(os.path.join(self.path, path), encoding="utf-8") as f:
                return f.read()
        except (OSError, ValueError):
            return None

    def _line(self):
        """The same line that the others change."""
        path = self.rng.choice(FILES)
        text = self._read(path)
        lines = text.splitlines(True) if text else [f"line {i}\n" for i in range(6)]
        lines[min(2, len(lines) - 1)] = f"line of {self.name}, {self.n}\n"
        return self._write(path, "".join(lines))

    def _append(self):
        path = self.rng.choice(FILES)
        return self._write(path, (self._read(path) or "# list\n") + f"- {self.name} {self.n}\n")

    def _delete(self):
        paths = self._existing()
        if len(paths) < 3:
            return False
        os.unlink(os.path.join(self.path, self.rng.choice(paths)))
        return True

    def _rename(self):
        paths = self._existing()
        if not paths:
            return False
        old = self.rng.choice(paths)
        self._write(f"moved/{self.name}-{self.n}.md", None,
                    open(os.path.join(self.path, old), "rb").read())
        os.unlink(os.path.join(self.path, old))
        return True

    def _new(self):
        """Sometimes a name that another writer makes at the same time."""
        return self._write(f"new/{self.rng.randrange(30)}.md", f"---\ndescription: by {self.name}\n---\n"
                                                             f"text {self.n}\n")

    def _whole(self):
        return self._write(self.rng.choice(FILES), "".join(
            f"{self.name} {self.n} {i}\n" for i in range(self.rng.randrange(1, 9))))

    def _binary(self):
        return self._write("pictures/shared.bin", None, self.rng.randbytes(300))


# ---- what a history says

def git_out(repository, *args):
    done = subprocess.run([GIT, "--git-dir", repository, *args], capture_output=True, timeout=300,
                          stdin=subprocess.DEVNULL, env=git_env("/nonexistent"))
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout.decode()


def history(repository, tip="refs/heads/main"):
    """→ (set of all commits, {merge: its parents})"""
    commits, merges = set(), {}
    for line in git_out(repository, "rev-list", "--parents", tip).splitlines():
        ids = line.split()
        commits.add(ids[0])
        if len(ids) > 2:
            merges[ids[0]] = ids[1:]
    return commits, merges


def n_criss_cross(repository, merges):
    """Merges of parents that have more than one best common ancestor."""
    return sum(len(git_out(repository, "merge-base", "--all", *parents[:2]).split()) > 1
               for parents in merges.values())


def events(log, name):
    return len(re.findall(rf"event={name}\b", log))
