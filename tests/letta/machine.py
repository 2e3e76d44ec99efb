"""A user's machine: a home, memfs and git-remote-memfs in PATH, and one version of letta-code.

    m = Machine(version, letta_folder, memfs_bin, folder, standin)
    m.memfs("apply", "--agent", id)             # its JSON report; the exit status is checked
    m.turn(keeps("Likes tea."), agent=id)       # one `letta -p`, whose shell runs the command
    with m.chat(agent=id) as chat: chat.say("hi") ...    # a session that stays (stream-json)
    m.git(id, "log")                            # in the agent's checkout

The stand-in is the base for everything, for all versions: what it answers on /v1/git (501, or what
the server behind it says) is what the client and memfs meet.
"""

import json
import os
import subprocess
import threading
import time

from standin import LINE

GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"


def keeps(text, path="system/human.md", where="$MEMORY_DIR", then=""):
    """The command by which an agent keeps a text."""
    return ("cd \"%(where)s\" && mkdir -p \"$(dirname '%(path)s')\" &&"
            " printf -- '---\\ndescription: About the user\\n---\\n%(text)s\\n' >'%(path)s' &&"
            " git add -A && git commit -q -m 'chore: keep %(text)s' && %(then)s echo all-went-well"
            % {"path": path, "text": text, "where": where, "then": then})


def client_env(letta_folder, home, *programs):
    """Of any client; what one start compiled the next ones find (NODE_COMPILE_CACHE), as there are hundreds."""
    return {"PATH": ":".join([*programs, os.path.join(letta_folder, "node", "bin"), "/usr/bin:/bin"]),
            "HOME": home, "NODE_COMPILE_CACHE": os.path.join(letta_folder, "compiled"),
            "LETTA_MEMFS_LOCAL": "1", "DISABLE_AUTOUPDATER": "1"}


class Machine:
    def __init__(self, version, letta_folder, memfs_bin, folder, standin, **env):
        self.version, self.standin, self.folder = version, standin, str(folder)
        self.number = tuple(int(n) for n in version.split("."))
        self.letta = os.path.join(letta_folder, version, "node_modules", ".bin", "letta")
        programs = os.path.join(self.folder, "bin")
        os.makedirs(programs)
        for name in ("memfs", "git-remote-memfs", "memfs-hook"):
            os.symlink(os.path.join(os.path.dirname(memfs_bin), name),
                       os.path.join(programs, name))
        os.symlink(self.letta, os.path.join(programs, "letta"))
        os.makedirs(os.path.join(self.folder, "tmp"))
        self.memfs_bin = os.path.join(programs, "memfs")
        self.env = {**client_env(letta_folder, self.folder, programs),
                    "TMPDIR": os.path.join(self.folder, "tmp"),
                    "LC_ALL": "C.UTF-8", "LETTA_BASE_URL": standin.url,
                    "LETTA_API_KEY": standin.key, "MEMFS_SYSTEM_CONFIG": "/dev/null", **env}
        if self.number >= (0, 25):
            self.env["LETTA_MEMFS_BASE_URL"] = standin.url
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    # -- what the versions can do (docs of the client's contract) ----------------------------------

    @property
    def pushes_by_itself(self):
        return self.number >= (0, 30)

    @property
    def recovers_by_reset(self):
        return self.number >= (0, 25)

    # -- memfs -------------------------------------------------------------------------------------

    def run(self, *command, code=0, input=None):
        done = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True,
                              timeout=120, input=input,
                              **({} if input is not None else {"stdin": subprocess.DEVNULL}))
        assert code is None or done.returncode == code, (command, done)
        return done

    def memfs(self, *args, code=0, **kw):
        return json.loads(self.run(self.memfs_bin, *args, "--json", code=code, **kw).stdout)

    def apply(self, agent):
        return self.memfs("apply", "--agent", agent)

    def sync(self, agent, code=0):
        return self.memfs("sync", "--agent", agent, code=code)["agents"][0]

    # -- where things are --------------------------------------------------------------------------

    def memory(self, agent):
        return os.path.join(self.folder, ".letta", "agents", agent, "memory")

    def hub(self, agent):
        return os.path.join(self.folder, ".memfs", "hub", agent + ".git")

    def git(self, agent, *args, check=True, where=None):
        done = subprocess.run(["/usr/bin/git", *args], cwd=where or self.memory(agent),
                              env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=60)
        assert not check or done.returncode == 0, (args, done)
        return done.stdout.decode().strip()

    def head(self, agent):
        return self.git(agent, "rev-parse", "HEAD")

    def read(self, agent, path="system/human.md"):
        with open(os.path.join(self.memory(agent), path)) as f:
            return f.read()

    def subjects(self, agent, tip="HEAD", where=None):
        return self.git(agent, "log", "--format=%s", tip, where=where).split("\n")

    def check(self, agent):
        """Whatever happened: on main, clean, whole, nothing half done, no stray file or lock."""
        assert self.git(agent, "symbolic-ref", "HEAD") == "refs/heads/main"
        assert self.git(agent, "status", "--porcelain", "--ignored") == ""
        self.git(agent, "fsck", "--full", "--strict")
        self.git(agent, "merge-base", "--is-ancestor", GENESIS, "HEAD")
        git_dir = os.path.join(self.memory(agent), ".git")
        for at, _, names in os.walk(git_dir):
            if os.path.basename(at) != "memfs":
                assert [n for n in names if n.endswith(".lock")] == [], at
        for name in ("MERGE_HEAD", "rebase-merge", "rebase-apply"):
            assert not os.path.exists(os.path.join(git_dir, name)), name

    # -- the client --------------------------------------------------------------------------------

    def letta_args(self, agent):
        return [*(["--agent", agent] if agent else ["--new-agent"]), "--memfs", "--yolo"]

    def turn(self, command=None, agent=None, prefix=(), env=None):
        """Starts the client for one turn, in which its shell runs the command; what it said.
        Without an agent: a new one."""
        before = len(self.standin.made)
        self.standin.command_for_made = None if agent else command
        if agent:
            self.standin.outputs.pop(agent, None)
            self.standin.waiting[agent] = command
        done = subprocess.run(
            [*prefix, self.letta if not prefix else "letta", "-p", "hi", *self.letta_args(agent)],
            env={**self.env, **(env or {})}, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180)
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said
        assert LINE in said, said
        if not agent:
            assert len(self.standin.made) == before + 1, said
        if command is not None:
            output = self.standin.outputs.get(agent or self.standin.made[-1])
            assert output is not None and "all-went-well" in output, (output, said)
        return said

    def chat(self, agent, *args):
        return Chat(self, agent, args)


class Chat:
    """A session that stays: messages in and out as lines of JSON."""

    def __init__(self, machine, agent, args):
        self.machine = machine
        command = [machine.letta, "-p", "--input-format", "stream-json", "--output-format",
                   "stream-json", *machine.letta_args(agent), *args]
        self.process = subprocess.Popen(command, env=machine.env, cwd=machine.folder,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.lines, self.results = [], 0
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.process.kill()
        self.process.stdin.close()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
        finally:
            self.reader.join(10)
            self.process.stdout.close()
        if kind is None:
            assert code == 0, self.said()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.decode(errors="replace"))
                try:
                    self.results += json.loads(line).get("type") == "result"
                except (ValueError, AttributeError):
                    pass
                self.changed.notify_all()

    def said(self):
        with self.changed:
            return "".join(self.lines)

    def say(self, text="hi"):
        """One turn, to its end."""
        n = self.results + 1
        message = {"type": "user", "message": {"role": "user", "content": text}}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        with self.changed:
            done = self.changed.wait_for(
                lambda: self.results >= n or self.process.poll() is not None, 120)
        assert done and self.results >= n, self.said()

    def wait_for(self, what, seconds=90):
        """Until what() is true; the session goes on meanwhile."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
