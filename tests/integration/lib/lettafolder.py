"""What a Letta server 0.16.7 does with its folder of repositories, step by step (contract http-api
§2.6), without the server: fast, at any speed, and stoppable between any two steps.

    f = LettaFolder(root)
    f.create(agent, {"system/human.md": "…"})       its `Initial commit`
    f.commit(agent, {"system/human.md": "…"})       one write through its API; None deletes
    f.read(agent)                                   what it reads after a push: {path: text}

It lists every file of repo.git, reads them one by one, and works in a copy; it writes what is new in
the copy back by truncating and writing, file by file.  A file that is listed and gone when it is read
raises Vanished: the server takes that for "no repository", and makes a fresh one over it.
"""
import os
import pathlib
import shutil
import subprocess
import tempfile

from .gitcli import GIT
from .server import ORG


class Vanished(AssertionError):
    """What the server takes for a repository that is missing."""


class LettaFolder:
    def __init__(self, root, org=ORG):
        self.root, self.org = str(root), org
        os.makedirs(self.root, exist_ok=True)

    def repository(self, agent):
        return os.path.join(self.root, "repository", self.org, agent, "repo.git")

    def git(self, cwd, *args, check=True):
        done = subprocess.run([GIT, *args], cwd=cwd, capture_output=True, timeout=60,
                              env={"PATH": "/usr/bin:/bin", "HOME": self.root, "LC_ALL": "C.UTF-8",
                                   "GIT_CONFIG_NOSYSTEM": "1"})
        if check and done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, args, done.stdout, done.stderr)
        return done.stdout

    def tip(self, agent):
        with open(os.path.join(self.repository(agent), "refs/heads/main"), encoding="ascii") as f:
            return f.read().strip()

    # -- its steps ---------------------------------------------------------------------------------

    def copy_out(self, agent):
        """The folder of a copy, with `.git` and nothing else in it; the caller removes it."""
        base = pathlib.Path(self.repository(agent))
        files = [path for path in base.rglob("*") if path.is_file()] if base.exists() else []
        if not files:
            raise Vanished(f"no repository of {agent}")
        to = tempfile.mkdtemp(prefix="letta-memrepo-")
        for path in files:
            target = os.path.join(to, ".git", path.relative_to(base))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                data = path.read_bytes()
            except FileNotFoundError as e:
                shutil.rmtree(to)
                raise Vanished(str(path)) from e
            with open(target, "wb") as f:
                f.write(data)
        return to

    def snapshot(self, copy):
        return {path: os.stat(path).st_mtime_ns
                for root, _, names in os.walk(os.path.join(copy, ".git"))
                for path in (os.path.join(root, name) for name in names)}

    def changed(self, copy, before):
        """(path below repo.git, bytes) of what is to be written back, in the order of the walk."""
        for path, mtime in self.snapshot(copy).items():
            if before.get(path) != mtime:
                yield os.path.relpath(path, os.path.join(copy, ".git")), pathlib.Path(path).read_bytes()

    def write_back(self, agent, files):
        for path, data in files:
            full = os.path.join(self.repository(agent), path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as f:
                f.write(data)

    def edit(self, copy, changes, message):
        for key, value in (("user.name", "User user-1"), ("user.email", "user-1@letta.ai")):
            self.git(copy, "config", key, value)
        for path, text in changes.items():
            full = os.path.join(copy, path)
            if text is None:
                self.git(copy, "rm", "-q", path)
                continue
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
            self.git(copy, "add", path)
        self.git(copy, "commit", "-q", "-m", message)
        return self.git(copy, "rev-parse", "HEAD").decode().strip()

    # -- what it does ------------------------------------------------------------------------------

    def create(self, agent, files=None):
        copy = tempfile.mkdtemp(prefix="letta-memrepo-")
        try:
            self.git(copy, "init", "-q", "-b", "main")
            tip = self.edit(copy, files or {".letta/config.json": '{"version": 1}'}, "Initial commit")
            self.write_back(agent, self.changed(copy, {}))
            return tip
        finally:
            shutil.rmtree(copy)

    def begin(self, agent, changes, message="Update block"):
        """A commit in a copy: its id, and what is to be written back."""
        copy = self.copy_out(agent)
        try:
            before = self.snapshot(copy)
            self.git(copy, "reset", "-q", "--hard")
            tip = self.edit(copy, changes, message)
            return tip, list(self.changed(copy, before))
        finally:
            shutil.rmtree(copy)

    def commit(self, agent, changes, message="Update block"):
        tip, files = self.begin(agent, changes, message)
        self.write_back(agent, files)
        return tip

    def read_once(self, agent):
        copy = self.copy_out(agent)
        try:
            head = self.git(copy, "rev-parse", "HEAD").decode().strip()
            names = self.git(copy, "ls-tree", "-r", "--name-only", "HEAD").decode().splitlines()
            return head, {name: self.git(copy, "show", f"HEAD:{name}").decode() for name in names}
        finally:
            shutil.rmtree(copy)

    def read(self, agent):
        return self.read_once(agent)[1]
