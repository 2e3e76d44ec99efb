"""Repositories as `memfs apply` prepares them, for tests of the hooks alone: core.hooksPath leads to links to
memfs-hook.  No `memfs` is needed for what the static program does by itself."""
import os
import pathlib
import subprocess

from lib.gitcli import GIT, Checkout, Git

# every hook that git may call
NAMES = ("applypatch-msg commit-msg post-applypatch post-checkout post-commit post-merge post-rewrite "
         "pre-applypatch pre-auto-gc pre-commit pre-merge-commit pre-push pre-rebase prepare-commit-msg "
         "reference-transaction").split()

# a leak check cannot work under ptrace
TRACEABLE = {"ASAN_OPTIONS": "detect_leaks=0"}

LETTA_PRE_COMMIT = """#!/usr/bin/env bash
# Validate frontmatter in staged memory .md files
# Installed by Letta Code CLI

echo letta >> "$LETTA_RAN"; exit 1
"""


def beside(memfs_bin, name):
    return str(pathlib.Path(memfs_bin).resolve().parent / name)


class HookedRepository(Checkout):
    def __init__(self, memfs_bin, folder, name="memory"):
        git = Git(folder / "home")
        self.hooks = folder / "memfs" / "hooks"
        self.hooks.mkdir(parents=True, exist_ok=True)
        for hook in NAMES:
            if not (self.hooks / hook).is_symlink():
                (self.hooks / hook).symlink_to(beside(memfs_bin, "memfs-hook"))
        git.env["MEMFS_HOME"] = str(folder / "memfs")
        git.run("init", "-q", "-b", "main", folder / name)
        super().__init__(git, folder / name)
        self.run("config", "core.hooksPath", self.hooks)
        self.commit("a.md", "a\n")

    def commit(self, path, text, *options):
        self.write(path, text)
        self.run("add", "-A")
        # no pre-commit: what it says is another test's
        self.run("commit", "-q", "--no-verify", "-m", f"{path}: {text[:20]!r}", *options)
        return self.text("rev-parse", "HEAD")

    def kept(self):
        """{(branch, id)} of refs/memfs/rescue/."""
        lines = self.text("for-each-ref", "--format=%(refname)", "refs/memfs/rescue/").split()
        return {tuple(x[len("refs/memfs/rescue/"):].rsplit("/", 1)) for x in lines}

    def user_hook(self, name, text):
        path = pathlib.Path(self.path) / ".git" / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def log_lines(self):
        path = pathlib.Path(self.path) / ".git" / "memfs" / "rescue.log"
        return path.read_text().splitlines() if path.exists() else []

    def check_whole(self):
        done = self.run("fsck", "--full", "--strict")
        assert b"error" not in done.stderr and b"missing" not in done.stdout, done
        left = [p for p in os.listdir(os.path.join(self.path, ".git", "memfs"))
                if p.startswith("rescue-")] if os.path.isdir(
                    os.path.join(self.path, ".git", "memfs")) else []
        assert not left, left


def straced(repository, inject, *args, timeout=60):
    """git, with a fault injected into memfs-hook alone; (exit status, did it hit)."""
    log = os.path.join(repository.path, ".git", "strace.log")
    if os.path.exists(log):
        os.unlink(log)
    wrapper = os.path.join(repository.path, ".git", "wrapped")
    done = subprocess.run([wrapper_script(repository, wrapper, inject, log), *args], cwd=repository.path,
                          capture_output=True, timeout=timeout, env={**repository.git.env, **TRACEABLE})
    said = open(log, errors="replace").read() if os.path.exists(log) else ""
    return done, "INJECTED" in said or "killed by SIGKILL" in said


def wrapper_script(repository, path, inject, log):
    """A git whose hooks folder holds one script that starts the real hook under strace."""
    hook = os.path.realpath(repository.hooks / "reference-transaction")
    folder = path + "-hooks"
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "reference-transaction"), "w") as f:
        f.write(f"#!/bin/bash\nexec strace -qq -o {log}.$$ -e trace={inject[0]} -e inject={inject[0]}:"
                f"{inject[1]} {hook} reference-transaction \"$@\"\n")
    os.chmod(os.path.join(folder, "reference-transaction"), 0o755)
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\n{GIT} -c core.hooksPath={folder} \"$@\"; s=$?\n"
                f"cat {log}.* > {log} 2>/dev/null; rm -f {log}.*\nexit $s\n")
    os.chmod(path, 0o755)
    return path
