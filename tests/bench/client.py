"""The client's budgets: apply, the hooks, status.  Each command is a process, from start to end.

What is compared runs in turns: the git commands that letta-code 0.32.18 itself runs when a session
starts over an existing checkout (recorded with GIT_TRACE; its fetch goes to a plain path here, which
is the cheapest remote there is), and the bash pre-commit hook that letta-code 0.30.28 installs, taken out of
the published package.
"""
import os
import re
import subprocess
import time
import uuid

from report import Row
from rigs import BUILD, GIT, GIT_ENV, ROOT, git

MEMFS = os.path.join(BUILD, "memfs")
LETTA = os.path.join(ROOT, ".deps", "letta", "0.30.28", "node_modules", "@letta-ai", "letta-code",
                     "letta.js")
FILE = "---\ndescription: Note %d\n---\nLikes tea, and %d other things.\n"


class Home:
    """A home folder with memories that memfs made ready."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder)
        self.env = dict(GIT_ENV, HOME=folder, MEMFS_BACKEND="none")
        del self.env["GIT_CONFIG_GLOBAL"]

    def memfs(self, *args):
        done = subprocess.run([MEMFS, *args], env=self.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def new_agent(self):
        agent = "agent-%s" % uuid.uuid4()
        self.memfs("apply", "--agent", agent)
        return agent

    def memory(self, agent):
        return os.path.join(self.folder, ".letta", "agents", agent, "memory")


def timed_ms(argv, **kw):
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, **kw)
    ms = (time.perf_counter() - start) * 1000
    assert done.returncode == 0, done.stderr.decode()
    return ms


def in_turns(n, *works):
    """Runs each work n times, alternating; the medians' raw values, in the order of the works."""
    took = [[] for _ in works]
    for i in range(n + 2):
        for values, work in zip(took, works):
            ms = work()
            if i >= 2:
                values.append(ms)
    return took


def session_start(memory, remote):
    """What letta-code runs before a session (client side of a start over an existing checkout)."""
    helper = '!f() { echo "username=letta"; echo "password=x"; }; f'
    key = "credential.http://127.0.0.1:1.helper"
    config = ("config", "--local")
    commands = [
        ("remote", "get-url", "origin"), (*config, "--get-all", "remote.origin.pushurl"),
        (*config, "--replace-all", key, ""), (*config, "--add", key, helper),
        (*config, "--get", "letta.agentId"),
        (*config, "--replace-all", "branch.main.remote", "origin"),
        (*config, "--replace-all", "branch.main.merge", "refs/heads/main"),
        (*config, "--get", "user.email"), (*config, "--get", "user.name"),
        (*config, "--get", "commit.gpgsign"),
        ("-c", "remote.origin.url=" + remote, "pull", "--ff-only", "-q"),
        ("rev-parse", "--git-dir"), ("status", "--porcelain"),
    ]
    start = time.perf_counter()
    for command in commands:
        subprocess.run([GIT, *command], cwd=memory, env=GIT_ENV, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def bench_apply(folder):
    row = Row("apply", "`memfs apply` when all is up to date, no network")
    home = Home(os.path.join(folder, "apply"))
    agent = home.new_agent()
    memory = home.memory(agent)
    remote = os.path.join(folder, "apply-remote.git")
    git("clone", "-q", "--bare", memory, remote)
    fresh = []
    for _ in range(10):
        one = "agent-%s" % uuid.uuid4()
        fresh.append(timed_ms([MEMFS, "apply", "--agent", one], env=home.env))
    ours, theirs = in_turns(
        40, lambda: timed_ms([MEMFS, "apply", "--agent", agent], env=home.env),
        lambda: session_start(memory, remote))
    row.remark("Backend `none`; the whole process. The other side is the sequence of git commands that letta-code"
               " 0.32.18 runs at the start of a session, with a plain path as remote.")
    a = row.figure("memfs apply, up to date", ours, "ms")
    row.figure("the client's own git commands", theirs, "ms")
    row.figure("memfs apply of a new agent (repository made, fsynced)", fresh, "ms")
    row.budget("≤ 10 ms", a, a <= 10, "ms")
    return row


def letta_hook(folder):
    """The pre-commit hook of letta-code 0.30.28 as a file, or None where the client is not installed."""
    try:
        with open(LETTA, encoding="utf-8") as f:
            found = re.search(r"\bPRE_COMMIT_HOOK_SCRIPT = `((?:[^`\\]|\\.)*)`", f.read(), re.S)
    except OSError:
        return None
    path = os.path.join(folder, "letta-pre-commit")
    with open(path, "w", encoding="utf-8") as f:
        f.write(re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m.group(1), m.group(1)),
                       found.group(1), flags=re.S))
    os.chmod(path, 0o755)
    return path


def bench_hook(folder):
    row = Row("hook", "`pre-commit` on 50 staged files, `reference-transaction`")
    home = Home(os.path.join(folder, "hook"))
    memory = home.memory(home.new_agent())
    os.makedirs(os.path.join(memory, "system"), exist_ok=True)
    for i in range(50):
        with open(os.path.join(memory, "system", "note-%02d.md" % i), "w") as f:
            f.write(FILE % (i, i))
    git("add", "-A", cwd=memory)
    hooks = os.path.join(home.folder, ".memfs", "hooks")
    bash = letta_hook(home.folder)
    env = dict(home.env, GIT_INDEX_FILE=".git/index")
    works = [lambda: timed_ms([MEMFS, "hook", "pre-commit"], cwd=memory, env=env),
             lambda: timed_ms([os.path.join(hooks, "pre-commit")], cwd=memory, env=env)]
    if bash:
        works.append(lambda: timed_ms([bash], cwd=memory, env=env))
    took = in_turns(20, *works)
    row.remark("50 new files, all accepted. The bash hook is letta-code 0.30.28's own.")
    a = row.figure("memfs hook pre-commit", took[0], "ms")
    row.figure("as git starts it (memfs-hook, then memfs)", took[1], "ms")
    if bash:
        row.figure("the client's bash hook", took[2], "ms")
    row.budget("pre-commit ≤ 10 ms", a, a <= 10, "ms")

    tip = git("rev-parse", "HEAD", cwd=memory).decode().strip()
    line = ("%s %s refs/heads/other\n" % (tip, tip)).encode()
    reftx = os.path.join(hooks, "reference-transaction")

    def transaction():
        start = time.perf_counter()
        subprocess.run([reftx, "prepared"], input=line, cwd=memory, env=home.env, check=True)
        return (time.perf_counter() - start) * 1000

    def nothing():
        start = time.perf_counter()
        subprocess.run(["/bin/true"], input=line, cwd=memory, env=home.env, check=True)
        return (time.perf_counter() - start) * 1000

    hook_ms, true_ms = in_turns(100, transaction, nothing)
    b = row.figure("reference-transaction, one ref", hook_ms, "ms")
    c = row.figure("/bin/true, started the same way", true_ms, "ms")
    row.budget("reference-transaction ≤ 1 ms more than /bin/true", b - c, b - c <= 1, "ms")
    return row


def bench_status(folder):
    row = Row("status", "`memfs status` over 200 agents")
    home = Home(os.path.join(folder, "status"))
    for i in range(200):
        memory = home.memory(home.new_agent())
        os.makedirs(os.path.join(memory, "system"), exist_ok=True)
        with open(os.path.join(memory, "system", "human.md"), "w") as f:
            f.write(FILE % (i, i))
        git("add", "-A", cwd=memory)
        git("commit", "-qm", "one", cwd=memory)
    took, = in_turns(15, lambda: timed_ms([MEMFS, "status", "--json"], env=home.env))
    row.remark("200 memories with one file and one commit each.")
    a = row.figure("memfs status --json", took, "ms")
    row.budget("≤ 200 ms", a, a <= 200, "ms")
    return row
