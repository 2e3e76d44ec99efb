"""A memfs server under test: its own home and port, and the promises that hold after every test.

    s = Server(binary, folder)      s.start()      …      s.stop()      s.check_clean()

Every request carries a canary token in its Authorization header; check_clean greps the whole data
folder and the log for it (S3), runs `git fsck --full --strict` on every repository (D6), `memfs
verify` on the home (K1), reads every log line (T20), and asks the watcher whether a ref ever moved
other than to a descendant (H1).
"""
import base64
import contextlib
import glob
import hashlib
import json
import os
import pathlib
import re
import secrets
import signal
import sqlite3
import subprocess
import threading
import time
import uuid

from . import http, postgres, wire
from .gitcli import GIT, git_env
from .graph import forced, is_ancestor
from .patience import Late

ORG = "org-00000000-0000-4000-8000-000000000000"
CANARY = "mfcanary" + secrets.token_hex(12)
BASIC = base64.b64encode(b"letta:" + CANARY.encode()).decode()
AUTH = {"Authorization": "Basic " + BASIC}
BEARER = {"Authorization": "Bearer " + CANARY}
SECRETS = (CANARY.encode(), BASIC.encode(), BASIC.rstrip("=").encode())

LOG_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z level=(debug|info|warn|error) event=[a-z0-9_]+"
    r"( [a-z0-9_]+=([A-Za-z0-9._:/@+-]*|\"([^\"\\\x00-\x1f\x7f]|\\.)*\"))*")


def new_agent():
    return f"agent-{uuid.uuid4()}"


def sanitizer_library(binary):
    """The ASan run-time that the binary wants first among preloads, or None."""
    out = subprocess.run(["ldd", binary], capture_output=True, text=True, timeout=30).stdout
    found = re.search(r"libasan\S* => (\S+)", out)
    return found.group(1) if found else None


class Server:
    def __init__(self, binary, folder, home=None, env=None, args=(), watch=True, prefix=()):
        self.binary = str(binary)
        self.folder = str(folder)
        self.home = str(home or os.path.join(self.folder, "home"))
        self.log_path = os.path.join(self.folder, "server.log")
        self.extra_env, self.args, self.prefix = dict(env or {}), list(args), list(prefix)
        if postgres.SHARED:             # the suite runs over PostgreSQL
            self.extra_env.setdefault("MEMFS_DATABASE", postgres.database_for(self.home))
        self.process, self.port = None, None
        self.rewrites_allowed = False   # purge is the one who may
        self.expected_codes = (0,)
        self.damaged = set()            # agents whose repository a test broke on purpose
        self.listen = "127.0.0.1:0"
        self.scheme = "http"            # told by the server when it starts
        self.secrets = []               # of this server's own tokens, for S3 and S4
        self.sample = None              # only these agents are verified, where there are thousands
        self.watcher = Watcher(self) if watch else None
        os.makedirs(self.folder, exist_ok=True)

    # -- life --------------------------------------------------------------------------------------

    def environment(self):
        asan = os.environ.get("ASAN_OPTIONS", "")
        # halt at the first finding, and let a leak show in the exit code
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": self.folder, "LC_ALL": "C.UTF-8",
                "TZ": "UTC", "ASAN_OPTIONS": "quarantine_size_mb=16:" + asan,
                "UBSAN_OPTIONS": os.environ.get(
                    "UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1"),
                "TSAN_OPTIONS": os.environ.get(
                    "TSAN_OPTIONS", "halt_on_error=1:second_deadlock_stack=1"),
                **self.extra_env}

    def spawn(self, listen=None):
        with open(self.log_path, "ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen(
                [*self.prefix, self.binary, "serve", "--home", self.home, "--listen",
                 listen or self.listen, *self.args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(),
                cwd="/", start_new_session=True)
        return offset

    def start(self, timeout=60):
        offset = self.spawn()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with open(self.log_path, "rb") as log:
                log.seek(offset)
                found = re.search(rb"listening on (https?)://\S+:(\d+)\s", log.read())
            if found:
                self.scheme, self.port = found.group(1).decode(), int(found.group(2))
                if self.watcher:
                    self.watcher.start()
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        code = self.process.poll()
        if code is None:
            self.kill()
        how = AssertionError if code is not None else Late
        raise how(f"the server did not start (exit {code}):\n{self.log_tail()}")

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=40):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Late(f"the server did not end in {timeout} s:\n{self.log_tail()}")

    def stop(self, timeout=40):
        """SIGTERM; the exit code must be 0 (also: no leak, no sanitizer report)."""
        if self.watcher:
            self.watcher.stop()
        if not self.running:
            if self.process is not None and self.process.returncode not in self.expected_codes:
                raise AssertionError(f"the server had ended with {self.process.returncode}:\n"
                                     f"{self.log_tail()}")
            return
        self.terminate()
        code = self.wait(timeout)
        if code not in self.expected_codes:
            raise AssertionError(f"the server ended with {code}:\n{self.log_tail()}")

    def kill(self):
        """SIGKILL, no goodbye; its git children are left to themselves, as after a real crash."""
        if self.running:
            self.process.kill()
            self.process.wait(10)

    def restart(self):
        self.stop()
        return self.start()

    def log(self):
        with open(self.log_path, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def log_tail(self, n=40):
        return "\n".join(self.log().splitlines()[-n:])

    def children(self):
        """Process ids below the server, at this moment."""
        return descendants(self.pid)

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    # -- asking ------------------------------------------------------------------------------------

    def request(self, method, target, body=None, headers=None, timeout=60):
        return http.request(self.port, method, target, body, {**AUTH, **(headers or {})}, timeout)

    def get(self, target, headers=None, timeout=60):
        return self.request("GET", target, headers=headers, timeout=timeout)

    def block(self, agent, label):
        return self.get(f"/v1/agents/{agent}/core-memory/blocks/{label}")

    def value(self, agent, label):
        answer = self.block(agent, label)
        assert answer.status == 200, answer
        return answer.json()["value"]

    def value_id(self, agent, label):
        answer = self.block(agent, label)
        assert answer.status == 200, answer
        return answer.json()["id"]

    def blocks(self, agent):
        """All blocks of an agent by label."""
        answer = self.get(f"/v1/agents/{agent}/core-memory/blocks?limit=0")
        assert answer.status == 200, answer
        rows = answer.json()
        by_label = {row["label"]: row for row in rows}
        assert len(by_label) == len(rows), "two rows with one label"
        return by_label

    def dump(self, agents):
        """What the API says of these agents, as one comparable text (D5)."""
        return json.dumps({a: sorted(self.blocks(a).items()) for a in sorted(agents)},
                          sort_keys=True)

    def git_url(self, agent, form="/v1/git/{agent}/state.git"):
        return self.url + form.format(agent=agent)

    # -- raw git -----------------------------------------------------------------------------------

    def refs(self, agent, service="git-upload-pack"):
        answer = self.get(f"/v1/git/{agent}/state.git/info/refs?service={service}")
        assert answer.status == 200, answer
        return wire.parse_refs(answer.body)[0]

    def tip(self, agent):
        return self.refs(agent).get(wire.MAIN)

    def push_raw(self, agent, commands, pack, caps=wire.CAPS, timeout=60, headers=None):
        """Commands and pack as they are; a broken connection is a Report with an error."""
        body = wire.push_body(commands, pack, caps)
        head = {"Content-Type": "application/x-git-receive-pack-request",
                "Accept": "application/x-git-receive-pack-result", **(headers or {})}
        try:
            answer = self.request("POST", f"/v1/git/{agent}/state.git/git-receive-pack", body,
                                  head, timeout)
        except Exception as e:
            return wire.Report(None, b"", e)
        return wire.Report(answer.status, answer.body)

    # -- the command line --------------------------------------------------------------------------

    def cli(self, *args, check=True, input=None, timeout=120, home=True, env=None):
        command = [self.binary, *map(str, args)]
        if home:
            command += ["--home", self.home]
        done = subprocess.run(command, input=input, capture_output=True, timeout=timeout, cwd="/",
                              env={**self.environment(), **(env or {})})
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} -> {done.returncode}\n"
                                 f"{done.stdout.decode('utf-8', 'replace')[-4000:]}\n"
                                 f"{done.stderr.decode('utf-8', 'replace')[-4000:]}")
        return done

    def token(self, scope="admin", *options):
        """A new token; from then on the canary opens nothing, and the token is one more canary."""
        made = json.loads(self.cli("token", "create", "--scope", scope, "--json", *options).stdout)
        basic = base64.b64encode(b"letta:" + made["token"].encode())
        self.secrets += [made["token"].encode(), basic, basic.rstrip(b"=")]
        return made

    # -- the data folder ---------------------------------------------------------------------------

    def repository(self, agent):
        return os.path.join(self.home, "repository", ORG, agent, "repo.git")

    def repositories(self):
        return sorted(path for kind in ("repository", "shared")
                      for path in glob.glob(os.path.join(self.home, kind, "*", "*", "repo.git")))

    def git_dir(self, agent, *args, check=True, input=None, timeout=120):
        """git in the repository on the server's disk."""
        done = subprocess.run([GIT, "--git-dir", self.repository(agent), *map(str, args)],
                              input=input, capture_output=True, timeout=timeout, cwd="/",
                              env=git_env(self.folder))
        if check and done.returncode != 0:
            raise AssertionError(f"git {args} -> {done.returncode} {done.stderr!r}")
        return done

    def has_object(self, agent, oid):
        return self.git_dir(agent, "cat-file", "-e", oid, check=False).returncode == 0

    def is_reachable(self, agent, oid):
        return is_ancestor(self.repository(agent), oid, wire.MAIN)

    def state_of(self, agent):
        """Refs, packs and rows of one agent: equal before and after what changes nothing (D3)."""
        if not os.path.isdir(self.repository(agent)):
            return None
        refs = self.git_dir(agent, "for-each-ref").stdout
        packs = sorted(os.path.basename(p)
                       for p in glob.glob(self.repository(agent) + "/objects/pack/*"))
        return (refs, packs, self.dump([agent]))

    def state_of_repository(self, agent):
        """Refs and packs on disk, without asking the server."""
        packs = glob.glob(self.repository(agent) + "/objects/pack/*")
        return self.git_dir(agent, "for-each-ref").stdout, sorted(map(os.path.basename, packs))

    def leftovers(self):
        """What a crash or a refused push may leave for a moment, never for good."""
        found = []
        for root, folders, files in os.walk(self.home):
            for name in folders + files:
                if name.endswith(".lock") or name.startswith(("tmp_", "incoming-")):
                    found.append(os.path.join(root, name))
        scratch = os.path.join(self.home, "tmp")
        if os.path.isdir(scratch):
            found += [os.path.join(scratch, n) for n in os.listdir(scratch)
                      if n not in ("genesis.git", "empty", "ready")]
        return sorted(set(found))

    def wait_no_leftovers(self, seconds=5):
        deadline = time.monotonic() + seconds
        while self.leftovers() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.leftovers() == []

    # -- rows behind the server's back --------------------------------------------------------------

    @property
    def database(self):
        """The url of the PostgreSQL database, None over SQLite."""
        return self.extra_env.get("MEMFS_DATABASE")

    def lose_blocks(self):
        """All blocks, as a lost disk would; the server may run."""
        if self.database:
            postgres.sql(self.database, "TRUNCATE memfs.blocks, memfs.tips")
        for path in glob.glob(os.path.join(self.home, "cache.db*")):
            os.unlink(path)

    def past(self, agent):
        """The commits that an agent's rows are of, and that its versions go up to (None: no versions),
        as the database says it; nobody is asked."""
        if self.database:
            ((tip, past),) = postgres.sql(
                self.database, "SELECT encode(tip, 'hex'), encode(past, 'hex') FROM memfs.tips "
                f"WHERE agent_id = '{agent}'")
            return tip, past or None
        with contextlib.closing(sqlite3.connect(os.path.join(self.home, "cache.db"))) as db:
            ((tip, past),) = db.execute("SELECT lower(hex(tip)), lower(hex(past)) FROM agents "
                                        "WHERE agent_id = ?", (agent,)).fetchall()
            return tip, past or None

    def versions(self, agent):
        """[path, commit, blob, words] of each version, in their order."""
        if self.database:
            rows = postgres.sql(
                self.database, "SELECT convert_from(path, 'UTF8'), encode(commit_id, 'hex'), "
                "encode(blob, 'hex'), array_to_string(tsvector_to_array(words), ' ') FROM memfs.versions "
                "WHERE agent_no = (SELECT agent_no FROM memfs.tips "
                f"WHERE agent_id = '{agent}') ORDER BY version_no")
        else:
            with contextlib.closing(sqlite3.connect(os.path.join(self.home, "cache.db"))) as db:
                rows = db.execute(
                    "SELECT CAST(path AS TEXT), lower(hex(commit_id)), lower(hex(blob)), CAST(words AS TEXT) "
                    "FROM versions WHERE agent_no = (SELECT agent_no FROM agents WHERE agent_id = ?) "
                    "ORDER BY version_no", (agent,)).fetchall()
        return [[path, commit, blob, sorted(w for w in words.split() if not w.startswith("_"))]
                for path, commit, blob, words in rows]

    def state_holds(self, what):
        """Are these bytes anywhere in what is kept beside git?"""
        if self.database:
            return any(form in postgres.dump(self.database) for form in (what, what.hex().encode()))
        files = glob.glob(os.path.join(self.home, "state.db*"))
        return any(what in pathlib.Path(path).read_bytes() for path in files)

    def change_rows(self, name, lite, pg):
        """One statement, in the words of either; returns how many rows it met."""
        if self.database:
            return len(postgres.sql(self.database, f"SET search_path = memfs; {pg} RETURNING 1"))
        with contextlib.closing(sqlite3.connect(os.path.join(self.home, name))) as db, db:
            return db.execute(lite).rowcount

    def change_block(self, agent, label, change):
        """change: UPDATE blocks SET …, or DELETE FROM blocks."""
        return self.change_rows(
            "cache.db", f"{change} WHERE label = '{label}' AND agent_no ="
            f" (SELECT agent_no FROM agents WHERE agent_id = '{agent}')",
            f"{change} WHERE label = '{label}' AND agent_no ="
            f" (SELECT agent_no FROM tips WHERE agent_id = '{agent}')")

    def name_agent(self, agent, name, tags):
        """As an API of names would; only while the server is stopped."""
        values = (name, json.dumps(tags, ensure_ascii=False))
        lite, pg = (f"UPDATE agents SET name = {form}, tags = {form}" for form in (
            "CAST(X'%s' AS TEXT)", "'\\x%s'"))
        hexed = tuple(text.encode().hex() for text in values)
        listed = ", ".join(f"'\\x{tag.encode().hex()}'" for tag in tags)
        where = f"WHERE agent_id = '{agent}'"
        met = self.change_rows("state.db", f"{lite % hexed} {where}",
                               f"{pg % hexed}, tag_list = ARRAY[{listed}]::bytea[] {where}")
        assert met == 1, met

    def mirror_rows(self, remote):
        """How many agents the state knows something of, at this remote."""
        count = f"SELECT count(*) FROM %s WHERE remote = '{remote}'"
        if self.database:
            return int(postgres.sql(self.database, count % "memfs.mirrors")[0][0])
        path = f"file:{self.home}/state.db?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as db:
            return db.execute(count % "mirrors").fetchone()[0]

    # -- the promises ------------------------------------------------------------------------------

    def fsck_all(self):
        """D6.  Beside a running server git may list a pack whose index a fold retires the next moment
        (F13); what is damage is still there a second later."""
        for path in self.repositories():
            if os.path.basename(os.path.dirname(path)) in self.damaged:
                continue
            for patience in (1, 2, 0) if self.running else (0,):
                done = subprocess.run([GIT, "--git-dir", path, "fsck", "--full", "--strict"],
                                      capture_output=True, timeout=300, env=git_env(self.folder))
                if done.returncode == 0:
                    break
                time.sleep(patience)
            assert done.returncode == 0, f"fsck of {path}: {done.stdout!r} {done.stderr!r}"

    def verify(self):
        for agent in self.sample or [None]:
            only = ["--agent", agent] if agent else []
            done = self.cli("verify", "--json", *only, check=False, timeout=300)
            if not self.damaged or self.sample:
                assert done.returncode == 0, \
                    f"verify: {done.stdout[-4000:]!r} {done.stderr[-2000:]!r}"
        return done

    def check_secrets(self):
        """S3: nothing that a client showed as its key is anywhere at rest or in the log."""
        patterns = [x for s in (*SECRETS, *self.secrets) for x in ("-e", s.decode())]
        done = subprocess.run(["grep", "-rlaF", *patterns, "--", self.home, self.log_path],
                              capture_output=True, timeout=300)
        assert done.stdout == b"", f"the canary token is at rest in {done.stdout.decode()}"
        if self.database and postgres.answers(self.database):
            rows = postgres.dump(self.database)
            for secret in (*SECRETS, *self.secrets):
                assert secret not in rows and secret.hex().encode() not in rows, \
                    "the canary token is in the database"

    def check_log(self):
        """T20: after the talk of the start every line is one whole event."""
        for line in self.log().split("\n"):
            if line[:4].isdigit():
                assert LOG_LINE.fullmatch(line), f"a log line that cannot be read: {line!r}"
            else:
                assert "Sanitizer" not in line and "runtime error" not in line, self.log_tail(80)
                assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line), repr(line)

    def check_clean(self):
        self.check_log()
        self.check_secrets()
        self.fsck_all()
        if os.path.isdir(self.home):
            self.verify()
        if self.watcher:
            self.watcher.check()


def descendants(pid):
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        for task in glob.glob(f"/proc/{parent}/task/*/children"):
            try:
                with open(task, encoding="ascii") as f:
                    kids = [int(x) for x in f.read().split()]
            except OSError:
                continue
            found += kids
            queue += kids
    return found


class Watcher:
    """Looks at every ref and every child's command line all the time (H1, S3)."""

    def __init__(self, server):
        self.server = server
        self.moves, self.last, self.faults = [], {}, []
        self.thread, self.halt = None, threading.Event()
        self.seen_commands = set()

    def start(self):
        if self.thread is None:
            self.halt.clear()
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()

    def stop(self):
        if self.thread is not None:
            self.halt.set()
            self.thread.join(30)
            self.thread = None
            self._look()

    def _run(self):
        while not self.halt.is_set():
            began = time.monotonic()
            self._look()
            self._commands()
            spent = time.monotonic() - began
            self.halt.wait(max(0.02, spent * 10))  # at most a tenth of one core

    def _look(self):
        for path in self.server.repositories():
            for name, value in read_refs(path).items():
                key = (path, name)
                old = self.last.get(key)
                if old != value:
                    if old is not None:
                        self.moves.append((path, name, old, value))
                    self.last[key] = value

    def _commands(self):
        if not self.server.running:
            return
        for pid in [self.server.pid, *self.server.children()]:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    line = f.read()
            except OSError:
                continue
            if any(s in line for s in (*SECRETS, *self.server.secrets)):
                self.faults.append(f"a token in the command line of {pid}")
            digest = hashlib.sha1(line).digest()
            self.seen_commands.add(digest)

    def check(self):
        assert not self.faults, self.faults
        if self.server.rewrites_allowed:
            return
        by_repository = {}
        for path, name, old, new in self.moves:
            if os.path.basename(os.path.dirname(path)) not in self.server.damaged:
                by_repository.setdefault(path, {})[old, new] = name
        for path, names in by_repository.items():
            bad = [(names[move], *move) for move in forced(path, names)]
            assert not bad, f"H1: {path} has refs that moved other than to a descendant: {bad[:5]}"


def read_refs(path):
    """Refs straight from the files, without asking git; a half-seen state is left for next time."""
    refs = {}
    try:
        with open(path + "/packed-refs", encoding="ascii") as f:
            for line in f:
                if line[:1] not in "#^":
                    oid, name = line.split()
                    refs[name] = oid
    except (OSError, ValueError):
        pass
    for root, _, files in os.walk(path + "/refs"):
        for name in files:
            if name.endswith(".lock"):
                continue
            full = os.path.join(root, name)
            try:
                with open(full, encoding="ascii") as f:
                    value = f.read(41).strip()
            except (OSError, ValueError):
                continue
            if len(value) == 40:
                refs[os.path.relpath(full, path)] = value
    return refs
