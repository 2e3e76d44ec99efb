"""Sixteen writers by every door at once while the server is killed: git, REST by label and by id, several files in one
commit, reverts, shared repositories (F01, F27).  What was acknowledged stays (H1, H2), no text that was acknowledged
is missing from its history (H3), and at the end the blocks are what git has (K1).

MIXED_SECONDS (60; 600 with SOAK=1) is how long it goes on; MIXED_SEED repeats a course of events, as far as processes
let themselves be repeated.
"""
import faulthandler
import http.client
import json
import os
import random
import subprocess
import threading
import time

from lib import summary, wire
from lib.gitcli import GIT, git_env
from lib.patience import Late, wait
from lib.server import Server, is_ancestor, new_agent

SECONDS = int(os.environ.get("MIXED_SECONDS", "600" if os.environ.get("SOAK") == "1" else "60"))
N_WRITERS = 16
PAUSE_S = 0.05
PATIENCE = 300
BROKEN = (OSError, AssertionError, http.client.HTTPException)     # the server is down
BUSY = (502, 503, 409)                                            # nothing was done; asked again later


class Books:
    """What was acknowledged: commits by repository, and texts that must be in a repository's history."""

    def __init__(self):
        self.lock, self.commits, self.texts, self.counts = threading.Lock(), {}, {}, {}

    def commit(self, repository, sha):
        with self.lock:
            self.commits.setdefault(repository, []).append(sha)

    def text(self, repository, marker):
        with self.lock:
            self.texts.setdefault(repository, []).append(marker)

    def count(self, door):
        with self.lock:
            self.counts[door] = self.counts.get(door, 0) + 1


class Writer(threading.Thread):
    def __init__(self, world, me, rng):
        super().__init__(daemon=True)
        self.world, self.me, self.rng, self.n, self.fault = world, me, rng, 0, None
        self.doors = [self.push, self.patch, self.append, self.by_id, self.files, self.revert, self.shared]

    def run(self):
        try:
            while not self.world.halt.wait(PAUSE_S):
                self.n += 1
                door = self.rng.choice(self.doors)
                try:
                    if door():
                        self.world.books.count(door.__name__)
                except BROKEN as e:
                    if isinstance(e, AssertionError) and not self.world.is_breaking.is_set():
                        raise
                    self.world.halt.wait(0.1)
        except Exception as e:
            self.fault = e

    def marker(self):
        return f"<{self.me}.{self.n}>"

    def ask(self, method, target, body=None, headers=None):
        answer = self.world.server.request(method, target, None if body is None else json.dumps(body).encode(),
                                           {"Content-Type": "application/json", **(headers or {})})
        if answer.status in BUSY:
            return None
        assert answer.status == 200, (method, target, answer)
        return answer.json()

    # -- the doors: True when something was acknowledged ---------------------------------------------

    def push(self):
        agent = self.rng.choice(self.world.agents)
        tip = self.world.server.tip(agent)
        objects = wire.Objects()
        files = {path: text for path, text in self.world.read(agent, tip).items()}
        files[f"git/{self.me}.md"] = self.marker()
        commit = objects.commit(objects.tree_of(files), [tip], f"push {self.marker()}\n")
        report = self.world.server.push_raw(agent, [(tip, commit, wire.MAIN)], objects.pack())
        if report.acked:
            self.world.books.commit(agent, commit)
        return report.acked

    def patch(self):
        """Without a version: the newest text is replaced, the older one stays in the history."""
        agent, text = self.rng.choice(self.world.agents), self.marker()
        label = self.rng.choice(["system%2Fhuman", "system/persona"])
        if self.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/{label}", {"value": text}) is None:
            return False
        self.world.books.text(agent, text)
        return True

    def append(self):
        """With the version that was read: nobody's line is overwritten, neither in the history nor at the end."""
        agent, text = self.rng.choice(self.world.agents), self.marker()
        target = f"/v1/agents/{agent}/core-memory/blocks/log"
        answer = self.world.server.get(target)
        if answer.status != 200:
            return False
        value = answer.json()["value"]
        if self.ask("PATCH", target, {"value": value + text + "\n"},
                    {"If-Match": answer.headers["etag"]}) is None:
            return False
        self.world.books.text(agent, text)
        with self.world.books.lock:
            self.world.lines.setdefault(agent, []).append(text)
        return True

    def by_id(self):
        """A block that all agents share: one commit in each of their memories."""
        text = self.marker()
        if self.ask("PATCH", f"/v1/blocks/{self.world.shared_block}", {"value": text}) is None:
            return False
        for agent in self.world.agents:
            self.world.books.text(agent, text)
        return True

    def files(self):
        agent, text = self.rng.choice(self.world.agents), self.marker()
        done = self.ask("POST", f"/v1/agents/{agent}/memory/commit", {
            "message": f"two files {text}",
            "changes": [{"path": f"rest/{self.me}.md", "content": text}, {"path": f"rest/{self.me}.txt", "content": text}]})
        if done is None:
            return False
        self.world.books.text(agent, text)
        return True

    def revert(self):
        agent = self.rng.choice(self.world.agents)
        past = self.ask("GET", f"/v1/agents/{agent}/memory/history?limit=5&label=system/human")
        if not past:
            return False
        done = self.ask("POST", f"/v1/agents/{agent}/memory/revert",
                        {"commit": past[-1]["sha"], "label": "system/human"})
        if done is None:
            return False
        self.world.books.commit(agent, done["commit"]["sha"])
        return True

    def shared(self):
        text, path = self.marker(), f"notes/{self.me}-{self.n}.md"
        done = self.ask("POST", f"/v1/repositories/{self.world.repository}/files", {"path": path, "content": text})
        if done is None:
            return False
        self.world.books.commit(self.world.repository, done["commit_sha"])
        self.world.books.text(self.world.repository, text)
        return True


class World:
    def __init__(self, server, rng):
        self.server, self.books, self.lines = server, Books(), {}
        self.halt, self.is_breaking = threading.Event(), threading.Event()
        blocks = [{"label": "human", "value": "nobody"}, {"label": "persona", "value": "somebody"}]
        self.agents = [self.post("/v1/agents", {"name": f"Agent {i}", "memory_blocks": blocks,
                                                "tags": ["git-memory-enabled"]})["id"] for i in range(4)]
        for agent in self.agents:
            self.post(f"/v1/agents/{agent}/memory/commit",
                      {"message": "a log", "changes": [{"path": "log.md", "content": ""}]})
        self.shared_block = self.post("/v1/blocks", {"label": "common", "value": "nothing yet"})["id"]
        for agent in self.agents:
            self.server.request("PATCH", f"/v1/agents/{agent}/core-memory/blocks/attach/{self.shared_block}")
        self.repository = self.post("/v1/repositories", {"name": "team"})["id"]
        self.writers = [Writer(self, i, random.Random(rng.random())) for i in range(N_WRITERS)]
        self.files_of = {}

    def post(self, target, body):
        answer = self.server.request("POST", target, json.dumps(body).encode(), {"Content-Type": "application/json"})
        assert answer.status == 200, answer
        return answer.json()

    def git(self, repository, *args, input=None):
        done = subprocess.run([GIT, "--git-dir", self.path(repository), *args], input=input, capture_output=True,
                              timeout=120, cwd="/", env=git_env(self.server.folder))
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout

    def path(self, repository):
        kind = "repository" if repository.startswith("agent-") else "shared"
        return os.path.join(self.server.home, kind, "org-00000000-0000-4000-8000-000000000000", repository, "repo.git")

    def read(self, agent, tip):
        """Path -> text of a commit."""
        files = {}
        for line in self.git(agent, "ls-tree", "-rz", tip).decode().split("\0")[:-1]:
            blob, path = line.split("\t")[0].split()[2], line.split("\t")[1]
            if blob not in self.files_of:
                self.files_of[blob] = self.git(agent, "cat-file", "blob", blob).decode()
            files[path] = self.files_of[blob]
        return files

    def breaks(self, rng):
        self.is_breaking.set()
        self.server.kill()
        time.sleep(rng.random())
        self.server.start(PATIENCE)
        self.is_breaking.clear()

    def stop(self):
        self.halt.set()
        for w in self.writers:
            w.join(PATIENCE)
            if w.is_alive():
                raise Late("a write without end")
            if w.fault:
                raise w.fault

    def check(self):
        for repository, commits in self.books.commits.items():
            lost = [c for c in commits if not is_ancestor(self.path(repository), c, wire.MAIN)]
            assert not lost, f"{len(lost)} of {len(commits)} acknowledged commits of {repository} are lost"
        for repository, texts in self.books.texts.items():
            there = self.history_text(repository)
            lost = [t for t in texts if t not in there]
            assert not lost, f"{len(lost)} of {len(texts)} acknowledged texts of {repository} are lost: {lost[:5]}"
        for agent, lines in self.lines.items():
            log = self.server.value(agent, "log").splitlines()
            assert sorted(log) == sorted(set(log)), "a line was written twice"
            assert not set(lines) - set(log), "a line was overwritten"
        for agent in self.agents:
            files = self.read(agent, self.server.tip(agent))
            assert {f"{label}.md" for label in self.server.blocks(agent)} == {p for p in files if p.endswith(".md")}

    def history_text(self, repository):
        objects = self.git(repository, "rev-list", "--objects", wire.MAIN).split(b"\n")
        ids = b"\n".join(line.split(b" ")[0] for line in objects if line)
        return self.git(repository, "cat-file", "--batch", "--buffer", input=ids + b"\n").decode(errors="replace")


def test_F01_F27_H1_H2_H3_K1_sixteen_writers_by_every_door(memfs_bin, folder):
    seed = int(os.environ.get("MIXED_SEED", random.randrange(1 << 30)))
    print(f"MIXED_SEED={seed}")
    faulthandler.cancel_dump_traceback_later()
    rng, n_kills = random.Random(seed), 0
    server = Server(memfs_bin, folder / "memfs").start()
    try:
        world = World(server, rng)
        for w in world.writers:
            w.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(1 + 4 * rng.random())
            world.breaks(rng)
            n_kills += 1
        wait(lambda: len(world.books.counts) == 7 or any(w.fault for w in world.writers),
             lambda: f"each door was gone through: {world.books.counts}", PATIENCE)
        world.stop()
        world.check()
        server.stop()
        server.check_clean()
    finally:
        server.kill()
    summary.count("mixed writers", kills=n_kills, lost=0, **world.books.counts)


def test_H3_two_who_read_the_same_cannot_both_write(memfs_bin, folder):
    """The loser learns both ids, and its text is nowhere."""
    server = Server(memfs_bin, folder / "memfs").start()
    try:
        agent = new_agent()
        objects = wire.Objects()
        commit = objects.commit(objects.tree_of({"a.md": "one\n"}), [wire.GENESIS], "first\n")
        assert server.push_raw(agent, [(wire.GENESIS, commit, wire.MAIN)], objects.pack()).acked
        target = f"/v1/agents/{agent}/core-memory/blocks/a"
        tag = server.get(target).headers["etag"]
        both = [server.request("PATCH", target, json.dumps({"value": v}).encode(),
                               {"Content-Type": "application/json", "If-Match": tag}) for v in ("two\n", "three\n")]
        assert [answer.status for answer in both] == [200, 409], both
        assert server.value(agent, "a") == "two\n"
        assert commit in both[1].body.decode() and server.tip(agent) in both[1].body.decode()
        server.stop()
        server.check_clean()
    finally:
        server.kill()
