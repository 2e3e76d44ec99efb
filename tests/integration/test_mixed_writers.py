"""Sixteen writers by every door at once while the server is killed and the disk fails: git, REST by label and by id,
several files in one commit, reverts, blocks that are renamed, attached and detached, agents' own fields, shared
repositories by REST and by git (F01, F05, F06, F27).  What was acknowledged stays (H1, H2), nobody's text is overwritten
by who had not read it (H3), and at the end blocks are what git has, with the ids and attributes that they had (K1 to K6).

MIXED_SECONDS (45, over PostgreSQL 20; 600 with SOAK=1) is how long it goes on; MIXED_SEED repeats a course of events, as
far as processes let themselves be repeated.
"""
import faulthandler
import hashlib
import http.client
import json
import os
import random
import re
import subprocess
import threading
import time

from lib import postgres, summary, wire
from lib.disk import fill, tmpfs
from lib.gitcli import GIT, git_env
from lib.patience import Late, wait
from lib.server import ORG, Server, new_agent
from lib.trace import Trace

SOAK = os.environ.get("SOAK") == "1"
SECONDS = int(os.environ.get("MIXED_SECONDS", "600" if SOAK else "20" if postgres.SHARED else "45"))
DISK_KIB = (2 << 20) if SOAK else (512 << 10)
N_WRITERS = 16
N_AGENTS = 4
PAUSE_S = 0.2
PATIENCE = 300
FIELDS = ("description", "system", "timezone", "model")
BROKEN = (OSError, http.client.HTTPException)   # the server is away
NOT_NOW = (503, 507, 409)                       # busy, fenced, full, or somebody else was first


class Books:
    """What was acknowledged: commits by repository, and texts that must be in a repository's history."""

    def __init__(self):
        self.lock, self.commits, self.texts, self.lines, self.counts = threading.Lock(), {}, {}, {}, {}

    def note(self, where, repository, what):
        with self.lock:
            where.setdefault(repository, set()).add(what)

    def count(self, what):
        """A door by its name, or the status of one that was shut."""
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def doors(self):
        with self.lock:
            return {what: n for what, n in self.counts.items() if isinstance(what, str)}

    def total(self):
        return sum(self.doors().values())


class Own:
    """A block, or a field, that one writer alone changes: which states it may be in.  What was asked for and never
    answered may have happened or not; what was acknowledged has."""

    def __init__(self, state):
        self.states = {state}

    def change(self, step, ask):
        """step: state → the one after it, None where it cannot be done; ask() → True, done; False, it cannot be done;
        None, nobody knows.  → was it done?"""
        before, after = self.states, {step(s) for s in self.states} - {None}
        self.states = before | after
        said = ask()
        if said is not None:
            self.states = after if said else {s for s in before if step(s) is None}
            assert self.states, f"what was answered to {before} cannot be: {said}"
        return bool(said)


class Writer(threading.Thread):
    def __init__(self, world, me, rng):
        super().__init__(daemon=True)
        self.world, self.me, self.rng, self.n, self.fault = world, me, rng, 0, None
        self.agent = world.agents[me % N_AGENTS]
        self.field, self.field_states = FIELDS[me // N_AGENTS], Own(None)
        self.block = world.make_block(f"own/{me}", "new")
        self.block_states = Own((f"own/{me}", "new", frozenset()))
        self.old_tags = []      # (agent, ETag) of what somebody has overwritten

    def run(self):
        try:
            while not self.world.halt.wait(PAUSE_S * 2 * self.rng.random()):
                self.n += 1
                door = self.rng.choice(DOORS)
                try:
                    if door(self):
                        self.world.books.count(door.__name__)
                except BROKEN:
                    self.world.halt.wait(0.1)
        except Exception as e:
            self.fault = e
            self.world.halt.set()

    def marker(self):
        return f"<{self.me}.{self.n}>"

    def any_agent(self):
        return self.rng.choice(self.world.agents)

    def ask(self, method, target, body=None, headers=None, fine=()):
        """→ the answer; None: not now, and it may even have been done."""
        answer = self.world.server.request(method, target, None if body is None else json.dumps(body).encode(),
                                           {"Content-Type": "application/json", **(headers or {})})
        if answer.status in NOT_NOW and answer.status not in fine:
            self.world.books.count(answer.status)
            return None
        assert answer.status in (200, *fine), (method, target, body, answer)
        return answer

    def note(self, repository, text=None, commit=None):
        if text:
            self.world.books.note(self.world.books.texts, repository, text)
        if commit:
            self.world.books.note(self.world.books.commits, repository, commit)
        return True

    # -- the doors: True when something was acknowledged ---------------------------------------------

    def push_on_top(self, repository, url, changes):
        answer = self.ask("GET", f"{url}/info/refs?service=git-receive-pack")
        if answer is None:
            return False
        tip = wire.parse_refs(answer.body)[0][wire.MAIN]
        objects = wire.Objects()
        files = {**self.world.files(repository, tip), **changes}
        tree = objects.tree_of({path: data for path, data in files.items() if data is not None})
        commit = objects.commit(tree, [tip], f"push {self.marker()}\n")
        answer = self.world.server.request(
            "POST", f"{url}/git-receive-pack", wire.push_body([(tip, commit, wire.MAIN)], objects.pack()),
            {"Content-Type": "application/x-git-receive-pack-request"})
        return wire.Report(answer.status, answer.body).acked and self.note(repository, commit=commit)

    def push(self):
        """Also bytes of all kinds (K5), a front matter that is none (K6), and files that go (K2)."""
        agent, mine = self.any_agent(), f"git/{self.me}"
        return self.push_on_top(agent, f"/v1/git/{agent}/state.git", self.rng.choice([
            {f"{mine}.md": self.marker().encode()}, {f"{mine}.md": b"---\n: [\n---\n" + self.marker().encode()},
            {f"{mine}.md": None}, {f"{mine}.md": self.rng.randbytes(40), f"{mine}.bin": self.rng.randbytes(40)}]))

    def patch(self):
        """Without a version: the newest text is replaced, the older one stays in the history."""
        agent, text = self.any_agent(), self.marker()
        label = self.rng.choice(["system%2Fhuman", "system/human"])
        return self.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/{label}",
                        {"value": text}) is not None and self.note(agent, text)

    def with_tags(self):
        """What is in git and what is not change in one step, and are seen so."""
        agent, text = self.any_agent(), self.marker()
        target = f"/v1/agents/{agent}/core-memory/blocks/system/persona"
        done, seen = self.ask("PATCH", target, {"value": text, "tags": [text]}), self.ask("GET", target)
        for answer in (done, seen):
            assert answer is None or answer.json()["tags"] == [answer.json()["value"]], f"two states in one: {answer}"
        return done is not None and self.note(agent, text)

    def append(self):
        """With the version that was read: nobody's line is overwritten, neither in the history nor at the end."""
        agent, line = self.any_agent(), self.marker()
        target = f"/v1/agents/{agent}/core-memory/blocks/log"
        answer = self.ask("GET", target)
        if answer is None:
            return False
        tag, value = answer.headers["etag"], answer.json()["value"]
        if self.ask("PATCH", target, {"value": value + line + "\n"}, {"If-Match": tag}) is None:
            return False
        self.old_tags.append((agent, tag))
        self.world.books.note(self.world.books.lines, agent, line)
        return self.note(agent, line)

    def stale(self):
        """Whoever has not read what is there overwrites nothing, however often the server began anew."""
        if not self.old_tags:
            return False
        agent, tag = self.rng.choice(self.old_tags)
        answer = self.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/log", {"value": "stale"}, {"If-Match": tag},
                          fine=(409,))
        assert answer is None or answer.status == 409, f"a stale write was taken: {answer}"
        return answer is not None and tag.strip('"').split("-")[0] in answer.detail

    def by_id(self):
        """A block that all agents share: one commit in each of their memories."""
        text = self.marker()
        return self.ask("PATCH", f"/v1/blocks/{self.world.common}", {"value": text}) is not None and all(
            self.note(agent, text) for agent in self.world.agents)

    def several(self):
        agent, text = self.any_agent(), self.marker()
        answer = self.ask("POST", f"/v1/agents/{agent}/memory/commit", {
            "message": f"two files {text}",
            "changes": [{"path": f"rest/{self.me}.{ext}", "content": text} for ext in ("md", "txt")]})
        return answer is not None and self.note(agent, text, answer.json()["sha"])

    def revert(self):
        agent = self.any_agent()
        past = self.ask("GET", f"/v1/agents/{agent}/memory/history?limit=5&label=system/human")
        if past is None:
            return False
        answer = self.ask("POST", f"/v1/agents/{agent}/memory/revert",
                          {"commit": past.json()[-1]["sha"], "label": "system/human"})
        return answer is not None and self.note(agent, commit=answer.json()["commit"]["sha"])

    def fields(self):
        """Sixteen fields, each of them one writer's: those that change at once are all kept."""
        text = self.marker()
        return self.field_states.change(lambda _: text, lambda: self.ask(
            "PATCH", f"/v1/agents/{self.agent}", {self.field: text}) is not None or None)

    def own(self):
        """One block that goes from agent to agent, under changing names."""
        agent, text, target = self.any_agent(), self.marker(), f"/v1/blocks/{self.block}"
        move = f"/v1/agents/{agent}/core-memory/blocks"

        def done(*request, fine=()):
            answer = self.ask(*request, fine=fine)
            return None if answer is None else answer.status == 200

        return self.block_states.change(*self.rng.choice([
            (lambda s: (s[0], text, s[2]), lambda: done("PATCH", target, {"value": text})),
            (lambda s: (f"own/{self.me}-{self.n}", *s[1:]),
             lambda: done("PATCH", target, {"label": f"own/{self.me}-{self.n}"})),
            (lambda s: (*s[:2], s[2] | {agent}), lambda: done("PATCH", f"{move}/attach/{self.block}")),
            (lambda s: (*s[:2], s[2] - {agent}) if agent in s[2] else None,
             lambda: done("PATCH", f"{move}/detach/{self.block}", fine=(404,)))]))

    def guest(self):
        """A block that all of them attach and detach: it is always somewhere."""
        how = self.rng.choice(["attach", "detach"])
        answer = self.ask("PATCH", f"/v1/agents/{self.any_agent()}/core-memory/blocks/{how}/{self.world.guest}",
                          fine=(404,) if how == "detach" else ())
        return answer is not None and answer.status == 200

    def shared(self):
        text, target = self.marker(), f"/v1/repositories/{self.world.repository}/files"
        answer = self.ask("POST", target, {"path": f"notes/{self.me}-{self.n}.md", "content": text})
        return answer is not None and self.note(self.world.repository, text, answer.json()["commit_sha"])

    def shared_append(self):
        """On the condition that the file is what was read."""
        line, target = self.marker(), f"/v1/repositories/{self.world.repository}/files/content"
        answer = self.ask("GET", f"{target}?path=log.md")
        if answer is None:
            return False
        content = answer.json()["content"]
        answer = self.ask("POST", target, {"path": "log.md", "content": content + line + "\n", "precondition": {
            "type": "content_sha256", "content_sha256": hashlib.sha256(content.encode()).hexdigest()}})
        if answer is None:
            return False
        self.world.books.note(self.world.books.lines, self.world.repository, line)
        return self.note(self.world.repository, line, answer.json()["commit_sha"])

    def shared_push(self):
        return self.push_on_top(self.world.repository, f"/v1/git/{self.any_agent()}/repositories/team.git",
                                {f"git/{self.me}.md": self.marker().encode()})


DOORS = [Writer.push, Writer.patch, Writer.with_tags, Writer.append, Writer.stale, Writer.by_id, Writer.several,
         Writer.revert, Writer.fields, Writer.own, Writer.guest, Writer.shared, Writer.shared_append,
         Writer.shared_push]


class World:
    def __init__(self, server, disk, rng):
        self.server, self.disk, self.books = server, disk, Books()
        self.halt = threading.Event()
        persona = {"label": "persona", "value": "first", "tags": ["first"], "limit": 777, "description": "Who"}
        self.agents = [self.post("/v1/agents", {
            "name": f"Agent {i}", "tags": ["git-memory-enabled"],
            "memory_blocks": [{"label": "human", "value": "nobody"}, persona]})["id"] for i in range(N_AGENTS)]
        for agent in self.agents:
            self.post(f"/v1/agents/{agent}/memory/commit",
                      {"message": "a log", "changes": [{"path": "log.md", "content": ""}]})
        self.common, self.guest = self.make_block("common", "nothing yet"), self.make_block("guest", "it")
        self.repository = self.post("/v1/repositories", {"name": "team"})["id"]
        self.post(f"/v1/repositories/{self.repository}/files", {"path": "log.md", "content": ""})
        for agent in self.agents:
            self.post(f"/v1/agents/{agent}/repositories", {"repository_id": self.repository})
            self.post(f"/v1/agents/{agent}/core-memory/blocks/attach/{self.common}", None, "PATCH")
        self.ids = {agent: {label: row["id"] for label, row in server.blocks(agent).items()} for agent in self.agents}
        self.writers = [Writer(self, i, random.Random(rng.random())) for i in range(N_WRITERS)]

    def post(self, target, body, method="POST"):
        answer = self.server.request(method, target, json.dumps(body).encode(), {"Content-Type": "application/json"})
        assert answer.status == 200, answer
        return answer.json()

    def make_block(self, label, value):
        return self.post("/v1/blocks", {"label": label, "value": value, "tags": ["kept"], "limit": 4321})["id"]

    # -- git, as it is on the disk ---------------------------------------------------------------------

    def path(self, repository):
        kind = "repository" if repository.startswith("agent-") else "shared"
        return os.path.join(self.server.home, kind, ORG, repository, "repo.git")

    def git(self, repository, *args, input=None):
        for patience in (0.2, 1, 0):    # a pack may be folded away under git's eyes (F13)
            done = subprocess.run([GIT, "--git-dir", self.path(repository), *args], input=input, capture_output=True,
                                  timeout=120, cwd="/", env=git_env(self.server.folder))
            if done.returncode == 0:
                return done.stdout
            time.sleep(patience)
        raise AssertionError((args, done.stderr))

    def files(self, repository, commit):
        """Path -> blob id."""
        lines = self.git(repository, "ls-tree", "-rz", commit).decode().split("\0")[:-1]
        return {path: entry.split()[2] for entry, path in (line.split("\t") for line in lines)}

    def history_words(self, repository):
        """Every marker that a file has had, and `stale` if one had it."""
        objects = self.git(repository, "rev-list", "--objects", "--filter=object:type=blob", wire.MAIN).split(b"\n")
        ids = b"\n".join(line.split(b" ")[0] for line in objects if line)
        text = self.git(repository, "cat-file", "--batch", "--buffer", input=ids + b"\n")
        return {word.decode() for word in re.findall(rb"<\d+\.\d+>|stale", text)}

    # -- what goes wrong: → how often it did --------------------------------------------------------------

    def kill(self, rng):
        self.server.kill()
        time.sleep(rng.random())
        self.server.start(PATIENCE)
        return 1

    def fail_fsync(self, rng, *only, when=30):
        """One fsync of any thread or child says EIO; what may not be on the disk is fenced until it was looked at."""
        with Trace(self.server.pid, os.path.join(self.server.folder, "trace"), *only, "-e", "trace=fsync,fdatasync", "-e",
                   f"inject=fsync,fdatasync:error=EIO:when={rng.randint(1, when)}") as trace:
            end = time.monotonic() + 3
            while not trace.injected and time.monotonic() < end:
                time.sleep(0.1)
        self.server.cli("verify", check=False)
        return len(trace.injected)

    def fail_state(self, rng):
        """The same of what is kept beside git, which goes on by itself."""
        return self.fail_fsync(rng, "-P", os.path.join(self.server.home, "state.db-wal"), when=2)

    def fill_disk(self, rng):
        ballast = os.path.join(self.disk.path, "ballast")
        fill(ballast, rng.randrange(0, 200))
        time.sleep(1)
        os.unlink(ballast)
        self.server.cli("verify", check=False)
        return 1

    def all_faults(self):
        return [self.kill] * 3 + [self.fail_fsync, self.fill_disk] + [self.fail_state] * (not self.server.database)

    def hurt(self, seconds, rng):
        """One fault after the other, each as often as it is in all_faults(), until the time is up and each has hurt; after
        each the writers go on.  → how often what happened"""
        counts, deck, end = {fault.__name__: 0 for fault in self.all_faults()}, [], time.monotonic() + seconds
        late = end + PATIENCE
        while time.monotonic() < end or not all(counts.values()):
            if time.monotonic() > late:
                raise Late(f"a fault did not come about: {counts}")
            deck = deck or rng.sample(self.all_faults(), len(self.all_faults()))
            fault = deck.pop()
            counts[fault.__name__] += fault(rng)
            before = self.books.total()
            wait(lambda: self.books.total() > before or self.halt.is_set(),
                 lambda: f"the writers go on after {fault.__name__}", PATIENCE)
            if self.halt.wait(1 + 3 * rng.random()):
                break
        return counts

    # -- the end ---------------------------------------------------------------------------------------

    def stop(self):
        self.halt.set()
        for w in self.writers:
            w.join(PATIENCE)
            if w.is_alive():
                raise Late("a write without end")
            if w.fault:
                raise w.fault

    def check_history(self):
        for repository in [*self.agents, self.repository]:
            known = set(self.git(repository, "rev-list", wire.MAIN).decode().split())
            lost = self.books.commits.get(repository, set()) - known
            assert not lost, f"H2: {len(lost)} acknowledged commits of {repository} are lost: {sorted(lost)[:3]}"
            words = self.history_words(repository)
            lost = self.books.texts.get(repository, set()) - words
            assert not lost, f"H2: {len(lost)} acknowledged texts of {repository} are lost: {sorted(lost)[:5]}"
            log = self.git(repository, "show", f"{wire.MAIN}:log.md").decode().splitlines()
            lost = self.books.lines.get(repository, set()) - set(log)
            assert not lost, f"H3: lines of {repository} were overwritten: {sorted(lost)[:5]}"
            assert len(log) == len(set(log)), "D4: a line was written twice"
            assert "stale" not in words, "H3: a stale write was taken"

    def check_blocks(self):
        for agent in self.agents:
            tip = self.server.tip(agent)
            files, rows = self.files(agent, tip), self.server.blocks(agent)
            assert {f"{label}.md" for label in rows} == {p for p in files if p.endswith(".md")}, "K1, K2"
            for label in ("system/human", "system/persona", "log", "common"):
                row = rows[label]
                assert row["id"] == self.ids[agent][label], f"K4: the id of {label}"
                text = self.git(agent, "cat-file", "blob", files[f"{label}.md"]).decode()
                assert text.endswith(row["value"]), f"K1: {label}"
            persona = rows["system/persona"]
            assert persona["tags"] == [persona["value"]], f"K4: {persona}"
            assert (persona["limit"], persona["description"]) == (777, "Who"), f"K4: {persona}"
            for me in range(N_WRITERS):
                assert files.get(f"rest/{me}.md") == files.get(f"rest/{me}.txt"), "D3: half of a commit"

    def copies(self, block):
        """Agents that have it, and how it is seen: by each of them, and by its id."""
        of = {agent: row for agent in self.agents for row in self.server.blocks(agent).values() if row["id"] == block}
        answer = self.server.get(f"/v1/blocks/{block}")
        assert answer.status == 200, f"K4: {answer}"
        seen = {json.dumps(row, sort_keys=True) for row in (*of.values(), answer.json())}
        assert len(seen) == 1, f"the agents of a block have different ones: {seen}"
        row = answer.json()
        assert (row["tags"], row["limit"], row["id"]) == (["kept"], 4321, block), f"K4: {row}"
        return row["label"], row["value"], frozenset(of)

    def check_own(self):
        for w in self.writers:
            state = self.copies(w.block)
            assert state in w.block_states.states, f"block {w.me} is {state}, not of {w.block_states.states}"
            field = self.server.get(f"/v1/agents/{w.agent}").json()[w.field] or None
            assert field in w.field_states.states, f"{w.field} is {field}, not of {w.field_states.states}"
        assert self.copies(self.common)[2] == set(self.agents)
        assert self.copies(self.guest)[:2] == ("guest", "it")


def check_all(world):
    world.check_history()
    world.check_blocks()
    world.check_own()


def test_F01_F05_F06_F27_H1_H2_H3_K1_K4_sixteen_writers_by_every_door(memfs_bin, folder):
    seed = int(os.environ.get("MIXED_SEED", random.randrange(1 << 30)))
    print(f"MIXED_SEED={seed}")
    faulthandler.cancel_dump_traceback_later()
    rng = random.Random(seed)
    with tmpfs(folder / "disk", DISK_KIB) as disk:
        server = Server(memfs_bin, folder / "memfs", home=os.path.join(disk.path, "home")).start()
        try:
            world = World(server, disk, rng)
            for w in world.writers:
                w.start()
            faults = world.hurt(SECONDS, rng)
            wait(lambda: len(world.books.doors()) == len(DOORS) or world.halt.is_set(),
                 lambda: f"each door was gone through: {world.books.counts}", PATIENCE)
            world.stop()
            server.kill()       # once more: what is left half done is ended by the start
            server.start(PATIENCE)
            check_all(world)
            server.stop()
            server.check_clean()
        finally:
            server.kill()
    # faults that were none, or doors that nobody went through, would show nothing
    assert all(faults.values()) and len(world.books.doors()) == len(DOORS), (faults, world.books.counts)
    summary.count("mixed writers", lost=0, acknowledged=world.books.total(), **faults,
                  **{str(what): n for what, n in sorted(world.books.counts.items(), key=str)})


def test_H3_two_who_read_the_same_cannot_both_write(memfs_bin, folder):
    """The loser learns both ids, and its text is nowhere."""
    server = Server(memfs_bin, folder / "memfs").start()
    try:
        agent = new_agent()
        objects = wire.Objects()
        commit = objects.commit(objects.tree_of({"a.md": b"one\n"}), [wire.GENESIS], "first\n")
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
