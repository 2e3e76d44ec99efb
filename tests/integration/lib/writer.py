"""A fast writer of one agent's memory over raw git wire: a thousand small pushes where git's own
client manages fifty.  It behaves as a careful client does: after an unknown outcome it reads the
tip before it goes on (D4)."""
import http.client
import json
import threading
import time
from types import SimpleNamespace

from . import wire
from .patience import Late
from .server import AUTH, new_agent


class Lost(AssertionError):
    """The server's tip is not what an acknowledged history allows."""


class Memory:
    """One agent's files and tip, as the writer believes them."""

    def __init__(self, server, agent, timeout=30):
        self.server, self.agent, self.timeout = server, agent, timeout
        self.files = {}
        self.tip = wire.GENESIS
        self.acked = []         # (commit, files) in order
        self.pending = None     # (commit, files) of unknown outcome
        self.connection = None
        self.is_busy = False    # a thread of Load is at work on it
        self.n = 0

    # -- making ------------------------------------------------------------------------------------

    def prepare(self, changes, message=None):
        """changes: {path: bytes or None} -> (commit id, pack, files after it)."""
        files = dict(self.files)
        for path, data in changes.items():
            if data is None:
                files.pop(path, None)
            else:
                files[path] = data if isinstance(data, bytes) else data.encode()
        self.n += 1
        objects = wire.Objects()
        tree = objects.tree_of(files)
        commit = objects.commit(tree, [self.tip], message or f"change {self.n} of {self.agent}\n",
                                when=1767225600 + self.n)
        return commit, objects.pack(), files

    def push(self, changes, message=None):
        """One push -> Report.  Keeps the books on what was acknowledged."""
        commit, pack, files = self.prepare(changes, message)
        self.pending = (commit, files)
        report = self.send([(self.tip, commit, wire.MAIN)], pack)
        if report.acked:
            self._acknowledge(commit, files)
        elif report.complete:
            self.pending = None
        return report

    def must_push(self, changes, message=None):
        report = self.push(changes, message)
        assert report.acked, report
        return self.tip

    def _acknowledge(self, commit, files):
        self.tip, self.files, self.pending = commit, files, None
        self.acked.append((commit, files))

    # -- wire --------------------------------------------------------------------------------------

    def send(self, commands, pack):
        body = wire.push_body(commands, pack)
        head = {**AUTH, "Content-Type": "application/x-git-receive-pack-request"}
        try:
            if self.connection is None or self.connection.port != self.server.port:
                self.close()
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.server.port, timeout=self.timeout)
            self.connection.request(
                "POST", f"/v1/git/{self.agent}/state.git/git-receive-pack", body, head)
            answer = self.connection.getresponse()
            return wire.Report(answer.status, answer.read())
        except Exception as e:  # every broken connection is an unknown outcome
            self.close()
            return wire.Report(None, b"", e)

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def settle(self):
        """After an unknown outcome: the tip is the last acknowledged commit or the pending one."""
        tip = self.server.tip(self.agent) or wire.GENESIS
        if tip == self.tip:
            self.pending = None
            return
        if self.pending and tip == self.pending[0]:
            self._acknowledge(*self.pending)
            return
        raise Lost(f"{self.agent}: the tip is {tip}, the last acknowledged commit {self.tip}, "
                   f"the open one {self.pending and self.pending[0]}")


class RestMemory(Memory):
    """The same by POST memory/commit: the server makes the commit, and names it in its answer."""

    def push(self, changes, message=None):
        if self.tip == wire.GENESIS:    # nobody knows the agent yet
            return super().push(changes, message)
        self.n += 1
        body = {"changes": [{"path": path, "content": text} for path, text in changes.items()]}
        try:
            answer = self.server.request("POST", f"/v1/agents/{self.agent}/memory/commit", json.dumps(body),
                                         {"Content-Type": "application/json"}, self.timeout)
        except OSError:
            return SimpleNamespace(acked=False, complete=False)
        if answer.status == 200:
            self._acknowledge(answer.json()["sha"], {**self.files, **changes})
        return SimpleNamespace(acked=answer.status == 200, complete=True, status=answer.status)


class Load:
    """Threads that push without end until told; a failing server is met with patience."""

    def __init__(self, server, n, changes=None, on_ack=None, prefix="", kind=Memory):
        self.server, self.on_ack = server, on_ack
        self.changes = changes or (lambda memory: {
            "system/human.md": f"---\ndescription: d\n---\n{prefix}text {memory.n}\n",
            f"notes/{memory.n % 7}.md": f"note {memory.n}\n"})
        self.memories = [kind(server, new_agent()) for _ in range(n)]
        self.halt = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.faults = []
        self.refused = 0
        self.broken = 0
        self.threads = []

    def start(self):
        self.halt.clear()
        self.threads = [threading.Thread(target=self._run, args=(m,), daemon=True)
                        for m in self.memories]
        for t in self.threads:
            t.start()
        return self

    def _run(self, memory):
        try:
            while not self.halt.is_set():
                if not self.go.wait(0.05):
                    continue
                memory.is_busy = True
                if self.go.is_set():    # rest() may have come in between
                    self._step(memory)
                memory.is_busy = False
        except Exception as e:
            self.faults.append(e)
        finally:
            memory.is_busy = False
            memory.close()

    def _step(self, memory):
        if memory.pending is not None:
            try:
                memory.settle()
            except Lost:
                raise
            except Exception:
                self.halt.wait(0.02)    # the server is not there yet
            return
        report = memory.push(self.changes(memory))
        if report.acked:
            if self.on_ack:
                self.on_ack(memory)
        elif report.complete:
            self.refused += 1
            self.last_refusal = report
            self.halt.wait(0.02)
        else:
            self.broken += 1

    def rest(self, seconds=40):
        """No push under way, until go is set again."""
        self.go.clear()
        deadline = time.monotonic() + seconds
        while any(m.is_busy for m in self.memories):
            if time.monotonic() > deadline:
                raise Late("a push without end")
            time.sleep(0.002)

    def wait_for_an_ack(self, seconds=60):
        """Until one more push was acknowledged than now."""
        before = self.n_acked
        deadline = time.monotonic() + seconds
        while self.n_acked == before:
            assert not self.faults, self.faults[0]
            if time.monotonic() > deadline:
                raise Late("no push came through")
            time.sleep(0.002)

    def stop(self):
        self.halt.set()
        for t in self.threads:
            t.join(60)
        if self.faults:
            raise self.faults[0]

    @property
    def n_acked(self):
        return sum(len(m.acked) for m in self.memories)

    def lost(self, server=None, upto=None):
        """Acknowledged commits that are not reachable; upto: {agent: number that were acked}."""
        server = server or self.server
        missing = []
        for m in self.memories:
            acked = m.acked if upto is None else m.acked[:upto[m.agent]]
            if acked and not server.is_reachable(m.agent, acked[-1][0]):
                missing += [c for c, _ in acked if not server.is_reachable(m.agent, c)]
        return missing

    def check_blocks(self, server=None):
        """The API shows exactly the files of the tip (K1)."""
        server = server or self.server
        for m in self.memories:
            if m.tip == wire.GENESIS:
                continue
            shown = {label: row["value"] for label, row in server.blocks(m.agent).items()}
            assert shown == {p[:-3]: body_of(d) for p, d in m.files.items()}, m.agent


def body_of(data):
    """The value of a file whose front matter, if any, is well formed."""
    text = data.decode("utf-8")
    if text.startswith("---\n") and "\n---\n" in text[3:]:
        return text[text.index("\n---\n", 3) + 5:]
    return text
