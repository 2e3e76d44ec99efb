"""The git client, as a user has it but alone: own HOME, no system config, no prompt, a timeout."""
import base64
import os
import subprocess

GIT = "/usr/bin/git"


class GitFailed(AssertionError):
    def __init__(self, args, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        super().__init__(f"git {' '.join(map(str, args))} -> {done.returncode}\n"
                         f"{done.stderr.decode('utf-8', 'replace')}")


def git_env(home, canary=None):
    env = {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": str(home) + "/.gitconfig",
        "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false",
        "GIT_AUTHOR_NAME": "Tester", "GIT_AUTHOR_EMAIL": "tester@example.org",
        "GIT_COMMITTER_NAME": "Tester", "GIT_COMMITTER_EMAIL": "tester@example.org",
        "GIT_MERGE_AUTOEDIT": "no", "GIT_NO_REPLACE_OBJECTS": "1",
    }
    config = {"init.defaultBranch": "main", "advice.detachedHead": "false",
              "pull.rebase": "false", "core.autocrlf": "false", "gc.auto": "0", "maintenance.auto": "false",
              "core.quotePath": "false", "safe.directory": "*"}
    if canary:
        basic = base64.b64encode(b"letta:" + canary.encode()).decode()
        config["http.extraHeader"] = "Authorization: Basic " + basic
    env["GIT_CONFIG_COUNT"] = str(len(config))
    for i, (key, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{i}"], env[f"GIT_CONFIG_VALUE_{i}"] = key, value
    return env


class Git:
    def __init__(self, home, canary=None):
        self.home = str(home)
        os.makedirs(self.home, exist_ok=True)
        self.env = git_env(home, canary)

    def run(self, *args, cwd=None, check=True, timeout=120, input=None, env=None):
        done = subprocess.run([GIT, *map(str, args)], cwd=cwd or self.home, input=input,
                              capture_output=True, timeout=timeout, env={**self.env, **(env or {})})
        if check and done.returncode != 0:
            raise GitFailed(args, done)
        return done

    def text(self, *args, **kw):
        return self.run(*args, **kw).stdout.decode("utf-8", "replace").strip()

    def clone(self, url, to, *options, config=(), **kw):
        extra = [x for c in config for x in ("-c", c)]
        self.run(*extra, "clone", "-q", *options, url, to, **kw)
        return Checkout(self, to)

    def init(self, to):
        self.run("init", "-q", "-b", "main", to)
        return Checkout(self, to)


class Checkout:
    """A working copy and the things one does in it."""

    def __init__(self, git, path):
        self.git, self.path = git, str(path)

    def run(self, *args, **kw):
        return self.git.run(*args, cwd=self.path, **kw)

    def text(self, *args, **kw):
        return self.git.text(*args, cwd=self.path, **kw)

    def write(self, path, data):
        full = os.path.join(self.path, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())

    def read(self, path):
        with open(os.path.join(self.path, path), "rb") as f:
            return f.read()

    def commit(self, message="a change"):
        self.run("add", "-A")
        self.run("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self):
        return self.text("rev-parse", "HEAD")

    def push(self, *options, check=True, config=(), **kw):
        extra = [x for c in config for x in ("-c", c)]
        return self.run(*extra, "push", *options, "origin", "main", check=check, **kw)

    def save(self, files, message="a change", **kw):
        for path, data in files.items():
            self.write(path, data)
        head = self.commit(message)
        self.push(**kw)
        return head

    def pull(self, *options, check=True):
        return self.run("pull", "-q", *(options or ("--ff-only",)), "origin", "main", check=check)
