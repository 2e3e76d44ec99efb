"""Proves that no ref of the host's repositories ever moved other than to a descendant (H1, H5).

    watch = RefWatch(root)      # every bare repository (*.git) below root, also those made later
    watch.start()
    …
    watch.stop()
    watch.check()               # AssertionError with every forced update and every deletion

Two witnesses.  The refs are read from the files every few milliseconds; and each repository keeps a
reflog of every ref (core.logAllRefUpdates=always, set here as soon as one is seen), which misses nothing
between two looks.  Ancestry is git's, with replace refs off (graph.py).  The host itself must
allow forced pushes, else there would be nothing to see: `allows_force(path)` is what a test asserts.
"""
import os
import subprocess
import threading
import time

from .gitcli import GIT, git_env
from .graph import forced
from .server import read_refs

ZERO = "0" * 40


def repositories(root):
    found = []
    for at, folders, _ in os.walk(root):
        for name in list(folders):
            if name.endswith(".git"):
                folders.remove(name)
                if os.path.exists(os.path.join(at, name, "HEAD")):
                    found.append(os.path.join(at, name))
    return sorted(found)


def git_dir(path, *args, check=True):
    return subprocess.run([GIT, "--git-dir", path, *args], capture_output=True, check=check,
                          timeout=120, stdin=subprocess.DEVNULL, env=git_env("/nonexistent"))


def allows_force(path):
    """Would this repository take a forced push?"""
    done = git_dir(path, "config", "--get", "--type=bool", "receive.denyNonFastForwards", check=False)
    return done.stdout.strip() != b"true"


class RefWatch:
    def __init__(self, root, every_s=0.05):
        self.root, self.every_s = str(root), every_s
        self.last, self.moves, self.n_looks = {}, set(), 0
        self.logged = set()
        self.halt, self.thread = threading.Event(), None
        self.fault = None

    def start(self):
        self.halt.clear()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def stop(self):
        if self.thread is not None:
            self.halt.set()
            self.thread.join(30)
            self.thread = None
            self._look()

    def _run(self):
        try:
            while not self.halt.is_set():
                began = time.monotonic()
                self._look()
                spent = time.monotonic() - began
                self.halt.wait(max(self.every_s, spent * 10))   # at most a tenth of one core
        except Exception as e:
            self.fault = e

    def _look(self):
        self.n_looks += 1
        for path in repositories(self.root):
            if path not in self.logged and git_dir(     # one that is just being made: next time
                    path, "config", "core.logAllRefUpdates", "always", check=False).returncode == 0:
                self.logged.add(path)
            refs = read_refs(path)
            for name, value in refs.items():
                old = self.last.get((path, name))
                if old is not None and old != value:
                    self.moves.add((path, name, old, value))
                self.last[path, name] = value

    # -- the proof -----------------------------------------------------------------------------------

    def logged_moves(self):
        for path in sorted(self.logged):
            top = os.path.join(path, "logs", "refs")
            for at, _, names in os.walk(top):
                for name in names:
                    full = os.path.join(at, name)
                    ref = "refs/" + os.path.relpath(full, top)
                    with open(full, encoding="utf-8", errors="replace") as f:
                        for line in f:
                            old, new = line.split(" ", 2)[:2]
                            yield path, ref, old, new

    def bad_moves(self):
        moves = self.moves | set(self.logged_moves())
        bad = []
        by_repository = {}
        for path, ref, old, new in sorted(moves):
            if new == ZERO:
                bad.append(f"{ref} of {path} was deleted at {old}")
            elif old not in (ZERO, new):
                by_repository.setdefault(path, {})[old, new] = ref
        for path, names in by_repository.items():
            bad += [f"{names[old, new]} of {path} was forced {old} -> {new}" for old, new in forced(path, names)]
        for path, ref in self.last:
            if ref not in read_refs(path):
                bad.append(f"{ref} of {path} is gone")
        return bad

    def check(self):
        assert self.fault is None, self.fault
        assert self.thread is None, "stop it first"
        bad = self.bad_moves()
        assert not bad, "\n".join(bad)
        return len(self.moves)
