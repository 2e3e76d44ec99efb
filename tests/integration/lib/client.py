"""A user's home and the memfs client in it; nothing of the machine's own is inherited.

    home = Home(memfs_bin, folder / "home", LETTA_MEMFS_BASE_URL=remote.url(""), …)
    r = home.apply(agent)             # the report of `memfs apply --json`, exit status checked
    home.sync(agent, code=3)          # likewise
    c = home.checkout(agent)          # lib/gitcli.Checkout of the memory
    home.check(agent)                 # git works there: status, fsck, what client 12.1 wants
"""
import hashlib
import json
import os
import subprocess

from .gitcli import Checkout, Git

GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"


class Home:
    def __init__(self, memfs_bin, folder, **env):
        self.memfs_bin, self.folder = str(memfs_bin), str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.git = Git(self.folder)
        del self.git.env["GIT_CONFIG_GLOBAL"]   # the user's own ~/.gitconfig
        for name in list(self.git.env):         # … and identity: what memfs set counts
            if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER")):
                del self.git.env[name]
        self.env = {"PATH": "/usr/bin:/bin", "HOME": self.folder, "LC_ALL": "C.UTF-8", "TZ": "UTC",
                    "MEMFS_SYSTEM_CONFIG": "/dev/null", **env}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.git.env.update(self.env)

    def root(self, agent):
        return os.path.join(self.folder, ".letta", "agents", agent)

    def memory(self, agent):
        return os.path.join(self.root(agent), "memory")

    def git_dir(self, agent):
        return os.path.join(self.memory(agent), ".git")

    def checkout(self, agent):
        return Checkout(self.git, self.memory(agent))

    def popen(self, *args, env=None, **kw):
        return subprocess.Popen([self.memfs_bin, *map(str, args)], env={**self.env, **(env or {})},
                                stdin=subprocess.DEVNULL, **{"cwd": self.folder, **kw})

    def run(self, *args, env=None, code=0, timeout=120, **kw):
        done = subprocess.run([self.memfs_bin, *map(str, args)], env={**self.env, **(env or {})},
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                              **{"cwd": self.folder, **kw})
        assert code is None or done.returncode == code, \
            f"memfs {' '.join(map(str, args))} -> {done.returncode}, not {code}\n" \
            f"{done.stdout.decode('utf-8', 'replace')}{done.stderr.decode('utf-8', 'replace')}"
        return done

    def apply(self, agent, *args, **kw):
        return json.loads(self.run("apply", "--agent", agent, "--json", *args, **kw).stdout)

    def sync(self, agent, *args, **kw):
        done = self.run("sync", "--agent", agent, "--json", *args, **kw)
        reports = json.loads(done.stdout)["agents"]
        assert len(reports) == 1
        return reports[0]

    def config(self, agent, key):
        done = self.checkout(agent).run("config", "--local", "--get-all", key, check=False)
        return done.stdout.decode().split("\n")[:-1]

    def ref(self, agent, name):
        done = self.checkout(agent).run("rev-parse", "-q", "--verify", name + "^{commit}", check=False)
        return done.stdout.decode().strip() or None

    def check(self, agent, is_clean=True, origin=None):
        """What an unmodified Letta client and plain git need of a prepared checkout."""
        c = self.checkout(agent)
        assert os.path.isdir(self.git_dir(agent)) and not os.path.islink(self.git_dir(agent))
        assert c.text("symbolic-ref", "HEAD") == "refs/heads/main"
        if is_clean:
            assert c.text("status", "--porcelain") == ""
        faults = c.run("fsck", "--full", "--strict", "--no-dangling").stderr
        assert b"error" not in faults and b"missing" not in faults, faults
        assert self.config(agent, "branch.main.remote") == ["origin"]
        assert self.config(agent, "branch.main.merge") == ["refs/heads/main"]
        assert self.config(agent, "letta.agentId") == [agent]
        assert self.config(agent, "core.hooksPath") == [
            os.path.join(self.env.get("MEMFS_HOME", self.folder + "/.memfs"), "hooks")]
        if origin:
            assert self.config(agent, "remote.origin.url") == [origin]
            c.run("rev-parse", "@{u}")      # or ≥ 0.30 never push (client 0, fact 2)
        locks = [os.path.join(at, name) for at, _, names in os.walk(self.git_dir(agent))
                 for name in names if name.endswith(".lock")
                 and os.path.basename(at) != "memfs"]   # ours stay, and are flocked
        assert locks == [], locks
        return c


def snapshot(folder, with_times=False):
    """Everything below a folder: path -> kind, mode, content (and time of change)."""
    out = {}
    for at, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(at, name)
            st = os.lstat(path)
            if os.path.islink(path):
                what = "link " + os.readlink(path)
            elif os.path.isdir(path):
                what = "folder"
            elif not os.path.isfile(path):
                what = "special"    # opening a pipe would wait for ever
            else:
                with open(path, "rb") as f:
                    what = hashlib.sha256(f.read()).hexdigest()
            out[os.path.relpath(path, folder)] = (what, st.st_mode) + (
                (st.st_mtime_ns, st.st_ino) if with_times else ())
    return out


def working_tree(folder):
    """The same without .git."""
    return {k: v for k, v in snapshot(folder).items() if k != ".git" and not k.startswith(".git/")}
