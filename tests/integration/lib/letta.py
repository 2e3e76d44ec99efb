"""A real, unpatched Letta server under test, over a real PostgreSQL and a model API on loopback.

    install()                                   once a session: what tests/letta-server/install puts
    with ModelApi() as api:
        letta = LettaServer(pg.url(), folder, api, memfs_url="http://127.0.0.1:…").start()
        agent = letta.create_agent({"human": "Likes tea."}, tags=[GIT_TAG])
        letta.blocks(agent)      …      letta.stop()

Its home is a folder of the test's own, so what it shares with a memfs server is `letta.memfs_root`
(`<folder>/home/.letta/memfs`).  Each server gets a database of its own, copied from one that
Letta's own migrations made.  It cannot reach beyond loopback: all else goes to a proxy that is not
there.
"""
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time
import uuid

from . import http as requests
from . import postgres
from .faultproxy import FaultProxy
from .modelapi import EMBEDDING, MODEL
from .patience import Late

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
DEPS = os.path.join(ROOT, ".deps", "letta-server")
VERSION = "0.16.7"
REVISION = "1c28e167b74f"       # where its migrations end
GIT_TAG = "git-memory-enabled"
ORG = "org-00000000-0000-4000-8000-000000000000"
USER = "user-00000000-0000-4000-8000-000000000000"
NOWHERE = "http://127.0.0.1:9"


def install():
    """What is missing of the server; the folder."""
    done = subprocess.run([os.path.join(ROOT, "tests", "letta-server", "install")], timeout=1800,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return DEPS


def other_database(url, name):
    """The url of another database of the same server."""
    return re.sub(r"^(postgresql://[^/]*/)[^?]*", lambda m: m.group(1) + name, url)


def new_database(url):
    """An empty Letta database in the server at url, as its migrations leave it; its url."""
    template = "letta_template"
    if not postgres.sql(url, f"SELECT 1 FROM pg_database WHERE datname = '{template}'"):
        making = template + "_new"
        postgres.sql(url, f"DROP DATABASE IF EXISTS {making}")
        postgres.sql(url, f"CREATE DATABASE {making}")
        done = subprocess.run(
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", other_database(url, making),
             "-f", os.path.join(DEPS, "schema.sql")], capture_output=True, timeout=300,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr
        postgres.sql(url, f"ALTER DATABASE {making} RENAME TO {template}")
    name = "letta_" + uuid.uuid4().hex[:16]
    postgres.sql(url, f"CREATE DATABASE {name} TEMPLATE {template}")
    return other_database(url, name)


def letta_url(url):
    """A libpq url as Letta wants it: a host in the authority, whatever the query says; ssl said."""
    database, query = re.fullmatch(r"postgresql://[^/]*/([^?]*)\??(.*)", url).groups()
    words = [word for word in query.split("&") if word and not word.startswith("user=")]
    return f"postgresql://memfs@localhost/{database}?" + "&".join([*words, "ssl=disable"])


def free_port():
    """One that nobody is given by chance in the seconds until the server listens."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        lowest = int(f.read().split()[0])
    while True:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class LettaServer:
    """url: of a PostgreSQL server (lib/postgres.py), in which it makes a database, unless
    `database` is the url of one.  memfs_url: LETTA_MEMFS_SERVICE_URL; None: git memory is off."""

    def __init__(self, url, folder, model_api, memfs_url=None, env=None, database=None):
        self.folder = str(folder)
        self.home = os.path.join(self.folder, "home")
        self.memfs_root = os.path.join(self.home, ".letta", "memfs")
        self.log_path = os.path.join(self.folder, "letta.log")
        os.makedirs(self.home, exist_ok=True)
        self.database = database or new_database(url)
        self.model_api, self.memfs_url, self.extra_env = model_api, memfs_url, dict(env or {})
        self.process, self.port, self.started_in = None, None, None
        self.way = None     # a FaultProxy at memfs_url, if there is one
        self.client = None

    # -- life --------------------------------------------------------------------------------------

    def environment(self):
        env = {"PATH": "/usr/bin:/bin", "HOME": self.home, "LC_ALL": "C.UTF-8", "TZ": "UTC",
               "LETTA_PG_URI": letta_url(self.database),
               "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": self.model_api.url,
               "LETTA_DISABLE_TRACING": "true", "DO_NOT_TRACK": "1", "DD_TRACE_ENABLED": "false",
               "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "PYTHONDONTWRITEBYTECODE": "1",
               "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost"}
        if self.memfs_url:
            env["LETTA_MEMFS_SERVICE_URL"] = self.memfs_url
        return {**env, **self.extra_env}

    def start(self, timeout=300):
        began = time.monotonic()
        self.port = self.port or free_port()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(DEPS, "bin", "python"), os.path.join(DEPS, "bin", "letta"), "server",
                 "--host", "127.0.0.1", "--port", str(self.port)], cwd=self.folder,
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        while time.monotonic() < began + timeout and self.process.poll() is None:
            try:
                if self.request("GET", "/v1/health/").status == 200:
                    self.started_in = time.monotonic() - began
                    return self
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        code = self.process.poll()
        self.kill()
        self.port = None
        raise AssertionError(f"the Letta server did not start (exit {code}):\n{self.log_tail()}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout=120):
        """SIGTERM; one that ended before by itself is a fault."""
        self._end_client()
        if self.process is None:
            return
        assert self.running, f"the Letta server had ended:\n{self.log_tail()}"
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout)
            self.process = None
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the Letta server did not end:\n{self.log_tail()}")

    def _end_client(self):
        if self.client is not None:
            self.client.close()
            self.client = None

    def kill(self):
        self._end_client()
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def restart(self, memfs_url=None, **env):
        """On the same port, with the same database and home."""
        self.stop()
        self.memfs_url = memfs_url or self.memfs_url
        self.extra_env.update(env)
        return self.start()

    def serve(self, port):
        """From now on a memfs server at this port is the service; None: nobody is."""
        self.way.to = ("127.0.0.1", port or 9)
        self.way.mend()

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def log(self):
        with open(self.log_path, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def log_tail(self, n=80):
        return "\n".join(self.log().splitlines()[-n:])

    def wait_log(self, pattern, since=0, timeout=60):
        """Waits for a match in the log from `since` on; Letta says there when a sync has ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log()[since:])
            if found:
                return found
            time.sleep(0.05)
        raise Late(f"no {pattern!r} in Letta's log:\n{self.log_tail()}")

    def sql(self, text):
        return postgres.sql(self.database, text)

    # -- asking ------------------------------------------------------------------------------------

    def request(self, method, target, body=None, headers=None, timeout=60):
        """body: bytes as they are, all else as JSON."""
        head = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            head.setdefault("Content-Type", "application/json")
        return requests.request(self.port, method, target, body, head, timeout)

    def ask(self, method, target, body=None, **kw):
        """As request, but the answer must be 200; its JSON."""
        answer = self.request(method, target, body, **kw)
        assert answer.status == 200, f"{method} {target}: {answer}\n{self.log_tail()}"
        return answer.json()

    def create_agent(self, blocks=None, tags=(), **fields):
        """blocks: label -> value, or label -> fields of a block; the agent's id."""
        rows = [{"label": label, **(b if isinstance(b, dict) else {"value": b})}
                for label, b in (blocks or {}).items()]
        return self.ask("POST", "/v1/agents/", {
            "name": "Ada", "model": "openai-proxy/" + MODEL, "embedding": "openai/" + EMBEDDING,
            "memory_blocks": rows, "tags": list(tags), "include_base_tools": False, **fields})["id"]

    def agent(self, agent):
        return self.ask("GET", f"/v1/agents/{agent}?include=agent.blocks&include=agent.tags")

    def enable_git(self, agent):
        """Puts the tag on an agent: its blocks become a repository's first commit."""
        return self.ask("PATCH", f"/v1/agents/{agent}",
                        {"tags": sorted({*self.agent(agent)["tags"], GIT_TAG})})

    def delete_agent(self, agent):
        return self.ask("DELETE", f"/v1/agents/{agent}")

    def blocks(self, agent):
        """The agent's blocks by label."""
        rows = self.ask("GET", f"/v1/agents/{agent}/core-memory/blocks?limit=1000")
        assert len({row["label"] for row in rows}) == len(rows), "two rows with one label"
        return {row["label"]: row for row in rows}

    def values(self, agent):
        return {label: row["value"] for label, row in self.blocks(agent).items()}

    def patch_block(self, block, **fields):
        """block: its id (a label with / cannot be named in a path of this server)."""
        return self.ask("PATCH", f"/v1/blocks/{block}", fields)

    def create_block(self, label, value, agent=None, **fields):
        """A block, attached to an agent; its id."""
        made = self.ask("POST", "/v1/blocks/", {"label": label, "value": value, **fields})["id"]
        if agent:
            self.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/attach/{made}")
        return made

    def delete_block(self, block):
        return self.ask("DELETE", f"/v1/blocks/{block}")

    def recompile(self, agent, dry_run=False):
        """Compiles the system prompt.  The answer of a dry run is the new one, else it is the one
        that was just replaced (a fault of this server)."""
        return self.ask("POST", f"/v1/agents/{agent}/recompile?dry_run={str(dry_run).lower()}")

    def message(self, agent, text):
        """The messages that answer one."""
        return self.ask("POST", f"/v1/agents/{agent}/messages", _message(text))["messages"]

    def stream(self, agent, text, port=None, headers=None):
        """The events of a streamed answer as they come, at last "[DONE]".  port: of a gateway."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=60)
        try:
            connection.request(
                "POST", f"/v1/agents/{agent}/messages/stream",
                json.dumps({**_message(text), "stream_tokens": True}).encode(),
                {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            assert answer.status == 200, (answer.status, answer.read())
            for line in answer:
                if line.startswith(b"data: "):
                    data = line[6:].strip().decode()
                    yield data if data == "[DONE]" else json.loads(data)
        finally:
            connection.close()

    def git_url(self, agent):
        return f"{self.url}/v1/git/{agent}/state.git"

    def flush(self, agent):
        """A push of nothing: makes the server read the agent's repository again."""
        return self.request("POST", f"/v1/git/{agent}/state.git/git-receive-pack", b"0000", {
            "Content-Type": "application/x-git-receive-pack-request"})

    def repository(self, agent):
        """Where server and memfs service share an agent's repository."""
        return pathlib.Path(self.memfs_root, "repository", ORG, agent, "repo.git")

    def sdk(self, code, url=None):
        """Runs code beside letta-client, the server's own Python client: `client` is one, and what
        is given to `answer` comes back.  url: of a gateway."""
        if self.client is None:
            self.client = Client(self.folder, self.environment())
        return self.client.run(code, url or self.url)


CLIENT = """
import json, sys, traceback
from letta_client import Letta
out, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    said, (url, code) = [None], json.loads(line)
    try:
        exec(code, {"client": Letta(base_url=url, api_key="none"), "answer": said.append})
        said = [True, said[-1]]
    except Exception:
        said = [False, traceback.format_exc()]
    print(json.dumps(said), file=out, flush=True)
"""


class Client:
    """A process with letta-client, whose import takes seconds."""

    def __init__(self, folder, env):
        self.process = subprocess.Popen(
            [os.path.join(DEPS, "bin", "python"), "-c", CLIENT], cwd=folder, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, code, url):
        self.process.stdin.write(json.dumps([url, code]) + "\n")
        self.process.stdin.flush()
        is_good, said = json.loads(self.process.stdout.readline())
        assert is_good, said
        return said

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def _message(text):
    return {"messages": [{"role": "user", "content": text}]}


@contextlib.contextmanager
def with_service(url, folder, model_api, env=None):
    """A started server; its memfs service is whoever serve() says, through the FaultProxy `way`."""
    with FaultProxy("127.0.0.1", 9) as way:
        server = LettaServer(url, folder, model_api, f"http://127.0.0.1:{way.port}/", env)
        server.way = way
        try:
            yield server.start()
            server.stop()
        finally:
            server.kill()
