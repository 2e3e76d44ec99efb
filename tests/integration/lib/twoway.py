"""Machines that share one agent's memory over a bare repository, by path, ssh or https.

    with TRANSPORTS["ssh"](folder) as remote:      remote.path: the bare repository
        m = Machine(memfs_bin, folder / "anna", "anna", agent, remote)
        m.apply(); m.git("commit", …); m.sync(); m.tip(); m.remote_tip(); m.check_no_secret()
"""
import os
import subprocess
from contextlib import contextmanager

from .server import CANARY
from .sshd import Sshd
from .tlsgit import TlsGit

GIT = "/usr/bin/git"


class Remote:
    """Where the bare repository is, its address, and what a machine must know to reach it."""

    def __init__(self, path, url, prepare):
        self.path, self.url, self.prepare = str(path), url, prepare


def bare(path):
    subprocess.run([GIT, "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    return path


@contextmanager
def by_path(folder):
    path = bare(folder / "remote.git")
    yield Remote(path, str(path), lambda home: {})


@contextmanager
def by_ssh(folder):
    path = bare(folder / "remote.git")
    with Sshd(folder) as sshd:
        yield Remote(path, sshd.url(str(path)), lambda home: {
            "MEMFS_SSH_KEY": sshd.key, "MEMFS_SSH_KNOWN_HOSTS": sshd.known_hosts})


@contextmanager
def by_https(folder):
    with TlsGit(folder, token=CANARY) as server:
        path = server.repository("remote.git")

        def prepare(home):
            token = os.path.join(home, "token")
            with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write(CANARY + "\n")
            return {"MEMFS_CA_FILE": server.ca.file, "MEMFS_REMOTE_TOKEN_FILE": token}

        yield Remote(path, server.url("remote.git"), prepare)


TRANSPORTS = {"path": by_path, "ssh": by_ssh, "https": by_https}


class Machine:
    """One home folder with the agent's checkout in it."""

    def __init__(self, memfs, folder, name, agent, remote):
        self.memfs_bin, self.home, self.name = memfs, str(folder), name
        self.agent, self.remote = agent, remote
        os.makedirs(self.home)
        self.memory = os.path.join(self.home, ".letta", "agents", agent, "memory")
        self.env = {"PATH": "/usr/bin:/bin", "HOME": self.home, "LC_ALL": "C.UTF-8", "TZ": "UTC",
                    "LETTABOT_MEMFS_BACKEND": "local", "LETTABOT_MEMFS_REMOTE": remote.url,
                    **remote.prepare(self.home)}
        self.said = b""

    def memfs(self, *args, expect=0):
        done = subprocess.run([self.memfs_bin, *args], env=self.env, cwd=self.home, timeout=300,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        self.said += done.stdout + done.stderr
        assert done.returncode == expect, (args, done.returncode, done.stdout, done.stderr)
        return done.stdout.decode()

    def apply(self):
        return self.memfs("apply", "--agent", self.agent, "--wait", "60")

    def sync(self):
        return self.memfs("sync", "--agent", self.agent)

    def git(self, *args):
        done = subprocess.run([GIT, *args], env=self.env, cwd=self.memory, timeout=120,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout.decode()

    def tip(self):
        return self.git("rev-parse", "main").strip()

    def remote_tip(self):
        return subprocess.run([GIT, "--git-dir", self.remote.path, "rev-parse", "main"], check=True,
                              stdout=subprocess.PIPE).stdout.decode().strip()

    def check_no_secret(self):
        """S3: what memfs said, and every file of the home but the one that holds the token."""
        assert CANARY.encode() not in self.said
        for root, _, names in os.walk(self.home):
            for name in names:
                path = os.path.join(root, name)
                if name == "token" or os.path.islink(path):
                    continue
                with open(path, "rb") as f:
                    assert CANARY.encode() not in f.read(), path
