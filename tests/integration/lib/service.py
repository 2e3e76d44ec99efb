"""memfs behind a Letta server that lib/lettafolder.py plays: fixtures and helpers of its tests.

A test file takes them with `from lib.service import *`; what the fixtures need is conftest.py's.
"""
import http.server
import json
import os
import subprocess
import threading

import pytest

from .gitcli import GIT, Git
from .lettafolder import LettaFolder
from .patience import wait
from .server import CANARY, ORG

ORG_HEADER = f"http.extraHeader=X-Organization-Id: {ORG}"
MAIN = "refs/heads/main"


class LettaAddress:
    """Where a Letta server would listen: keeps what is posted, answers what it is told to."""

    def __init__(self):
        outer, self.posted, self.status, self.broken = self, [], 200, None

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posted.append((self.path, body, dict(self.headers)))
                self.send_response(500 if outer.broken and outer.broken in self.path else outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, agent):
        return [p for p in self.posted if agent in p[0]]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def letta():
    address = LettaAddress()
    yield address
    address.close()


@pytest.fixture
def root(folder):
    return LettaFolder(folder / "letta")


@pytest.fixture
def served(servers, root, letta):
    """A memfs server behind `letta`, whose folder is `root`."""
    def make(*args, **kw):
        return servers(args=["--letta-root", root.root, "--letta-proxy", "127.0.0.1,::1",
                             "--letta-url", letta.url, *args], **kw)
    return make


@pytest.fixture
def client(folder):
    """git as it comes through the server's proxy."""
    g = Git(folder / "clienthome", CANARY)
    at = int(g.env["GIT_CONFIG_COUNT"])
    key, value = ORG_HEADER.split("=", 1)
    g.env.update({f"GIT_CONFIG_KEY_{at}": key, f"GIT_CONFIG_VALUE_{at}": value,
                  "GIT_CONFIG_COUNT": str(at + 1)})
    return g


def checkout(client, s, agent, to, form="/git/{agent}/state.git"):
    return client.clone(s.git_url(agent, form), to)


def save(c, files, message="a change"):
    for path, text in files.items():
        c.write(path, text)
    c.run("add", "-A")
    c.run("commit", "-q", "-m", message)
    c.run("push", "-q", "origin", "HEAD:main")
    return c.text("rev-parse", "HEAD")


def settle(s, letta):
    """Whatever the server is to be made to re-read was posted; what is posted from now on is new."""
    wait(lambda: os.listdir(s.home + "/letta") == [], "no post is owed")
    del letta.posted[:]


def in_folder(root, agent, *args):
    done = subprocess.run([GIT, "-c", "safe.directory=*", "--git-dir", root.repository(agent), *args],
                          capture_output=True, timeout=60, check=True, cwd="/",
                          env={"PATH": "/usr/bin:/bin", "HOME": root.root})
    return done.stdout.decode().strip()


def letta_row(s, agent):
    told = s.cli("mirror", "status", "--agent", agent, "--json", check=False).stdout
    return next(r for r in json.loads(told)["rows"] if r["remote"] == "letta")


@pytest.fixture
def one(served, client, root, agent, folder):
    """A server, an agent, its checkout, with one file pushed through the server's proxy."""
    s, a = served(), agent()
    c = checkout(client, s, a, folder / "c")
    save(c, {"system/human.md": "---\ndescription: who\n---\nLikes tea.\n"})
    return s, a, c
