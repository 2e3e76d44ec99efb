"""The real letta-code command line, unmodified, against a running memfs.

Three versions stand for three behaviours (client.md 6):
  0.19.5   one base URL for all; the client only clones and pulls, the agent pushes with plain git
  0.30.28  git goes to LETTA_MEMFS_BASE_URL; the client pushes after the turn
  0.32.18  the same, with staged clones, secrets and the repositories list
The rest of Letta's API is standin.py.  A turn is a tool call: the client's own shell, with the
environment that the client gives it, runs git in the checkout.
"""

import json
import os
import subprocess
import urllib.error
import urllib.request
import uuid

import pytest

from lib.server import CANARY, Server
from lib.wire import GENESIS
from machine import client_env
from standin import LINE, StandIn

VERSIONS = ("0.19.5", "0.30.28", "0.32.18")
LABEL = "system/human"
PUSHES_BY_ITSELF = ("0.30.28", "0.32.18")


class Home:
    """One machine of one user: a home folder with its own client state and checkouts."""

    def __init__(self, world, folder):
        self.world, self.folder = world, str(folder)
        os.makedirs(self.folder)
        with open(os.path.join(self.folder, ".gitconfig"), "w") as f:
            f.write("[user]\n\tname = Somebody\n\temail = somebody@example.org\n")
        self.checkout = os.path.join(self.folder, ".letta", "agents", world.agent_id, "memory")

    def env(self):
        env = {**client_env(self.world.letta_folder, self.folder),
               "LETTA_BASE_URL": self.world.base_url, "LETTA_API_KEY": self.world.key}
        if self.world.version in PUSHES_BY_ITSELF:
            env["LETTA_MEMFS_BASE_URL"] = self.world.memfs_url
        return env

    def session(self, command=None):
        """Starts the client for one turn, in which its shell runs the command."""
        self.world.standin.command = command
        self.world.standin.output = None
        letta = os.path.join(self.world.letta_folder, self.world.version, "node_modules", ".bin",
                             "letta")
        done = subprocess.run(
            [letta, "-p", "hi", "--agent", self.world.agent_id, "--memfs", "--yolo"],
            env=self.env(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120)
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said
        assert LINE in said, said
        if command is not None:
            assert self.world.standin.output is not None, said
            assert "all-went-well" in self.world.standin.output, self.world.standin.output
        return said

    def git(self, *args):
        return subprocess.run(["git", *args], cwd=self.checkout, env=self.env(), check=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout.decode()

    def read(self, path):
        with open(os.path.join(self.checkout, path)) as f:
            return f.read()


class World:
    """One agent, its stand-in, and the machines it is used from."""

    def __init__(self, version, memfs_url, letta_folder, folder):
        self.version, self.memfs_url, self.letta_folder = version, memfs_url, letta_folder
        self.agent_id = "agent-" + str(uuid.uuid4())
        self.key = CANARY  # what must be found nowhere on the server afterwards (S3)
        self.folder = folder
        self.standin = StandIn(self.agent_id, memfs_url, self.key)
        self.base_url = self.standin.url

    def home(self, name):
        return Home(self, self.folder / name)

    def block(self, label):
        """The block's value by memfs's REST API, or None; asked once, no waiting."""
        url = "%s/v1/agents/%s/core-memory/blocks/%s" % (self.memfs_url, self.agent_id, label)
        try:
            with urllib.request.urlopen(url, timeout=10) as got:
                return json.load(got)["value"]
        except urllib.error.HTTPError as e:
            assert e.code == 404, e.read()
            return None

    def tip(self):
        """What git says main is on the server."""
        url = "%s/v1/git/%s/state.git" % (self.memfs_url, self.agent_id)
        line = subprocess.run(["git", "ls-remote", url, "refs/heads/main"], check=True,
                              stdout=subprocess.PIPE, timeout=60).stdout.decode()
        return line.split("\t")[0]

    def agent_writes(self, text, path=LABEL + ".md", more=""):
        """The command by which the agent keeps a text; old clients leave the push to it."""
        push = "git push -q && " if self.version not in PUSHES_BY_ITSELF else ""
        return ("cd \"$MEMORY_DIR\" && mkdir -p \"$(dirname '%(path)s')\" &&"
                " printf -- '---\\ndescription: About the user\\n---\\n%(text)s\\n' >'%(path)s' &&"
                " git add -A && git commit -q -m 'chore: keep' && %(push)s%(more)s"
                " echo all-went-well" % {"path": path, "text": text, "push": push, "more": more})


@pytest.fixture(params=VERSIONS)
def behind(request, memfs_bin, letta_folder, tmp_path):
    """The same world with memfs in front of the stand-in: one address, and the stand-in has no git."""
    w = World(request.param, None, letta_folder, tmp_path)
    with w.standin:
        w.server = Server(memfs_bin, tmp_path / "memfs", args=["--upstream", w.standin.url]).start()
        w.memfs_url = w.base_url = w.server.url
        try:
            yield w
            w.server.stop()
            w.server.check_clean()
        finally:
            w.server.kill()


@pytest.fixture(params=VERSIONS)
def world(request, memfs, letta_folder, tmp_path):
    w = World(request.param, memfs.url, letta_folder, tmp_path)
    with w.standin:
        yield w


def test_first_start_clones_the_genesis(world):
    home = world.home("first")
    home.session()
    assert home.git("rev-parse", "HEAD").strip() == GENESIS
    assert home.git("symbolic-ref", "--short", "HEAD").strip() == "main"
    assert home.git("rev-parse", "origin/main").strip() == GENESIS


def test_a_commit_of_the_turn_is_pushed_and_its_block_is_there_at_once(world):
    home = world.home("first")
    if world.version in PUSHES_BY_ITSELF:
        # The client pushes when the turn is over: nothing is on the server while the agent talks.
        home.session(world.agent_writes("Likes tea.", more="git rev-parse HEAD@{1} && "))
        assert GENESIS in world.standin.output
    else:
        # The agent pushes: the block is asked for by the very command that pushed.
        ask = ("curl -sSf '%s/v1/agents/%s/core-memory/blocks/%s' && "
               % (world.memfs_url, world.agent_id, LABEL))
        home.session(world.agent_writes("Likes tea.", more=ask))
        assert '"value":"Likes tea.' in world.standin.output
    assert world.block(LABEL).strip() == "Likes tea."
    assert world.tip() == home.git("rev-parse", "HEAD").strip() != GENESIS


def test_a_second_home_pulls_what_the_first_wrote(world):
    first, second = world.home("first"), world.home("second")
    second.session()
    first.session(world.agent_writes("Likes tea."))
    second.session()
    assert second.read(LABEL + ".md").endswith("Likes tea.\n")
    assert second.git("rev-parse", "HEAD") == first.git("rev-parse", "HEAD")


def test_a_home_made_later_clones_the_whole_memory(world):
    world.home("first").session(world.agent_writes("Likes tea."))
    late = world.home("late")
    late.session()
    assert late.read(LABEL + ".md").endswith("Likes tea.\n")
    assert late.git("log", "--format=%H").split()[-1] == GENESIS


def test_an_edit_and_a_delete_by_the_agent_reach_the_blocks(world):
    home = world.home("first")
    home.session(world.agent_writes("Likes tea."))
    home.session(world.agent_writes("Likes coffee."))
    assert world.block(LABEL).strip() == "Likes coffee."
    push = "git push -q &&" if world.version not in PUSHES_BY_ITSELF else ""
    home.session("cd \"$MEMORY_DIR\" && git rm -q '%s.md' && git commit -q -m 'chore: forget' && %s"
                 " echo all-went-well" % (LABEL, push))
    assert world.block(LABEL) is None


@pytest.mark.parametrize("world", PUSHES_BY_ITSELF, indirect=True)
def test_H2_a_push_that_lost_the_race_is_rebased_and_both_texts_stay(world):
    """Another machine pushes in the middle of the turn.  What git prints for memfs's refusal is what
    the client reads: it rebases and pushes once more (client.md 4, 8.4)."""
    home = world.home("first")
    url = "%s/v1/git/%s/state.git" % (world.memfs_url, world.agent_id)
    other = ("git clone -q '%s' ~/other && (cd ~/other && mkdir system && echo Lives in Turin."
             " >system/place.md && git add -A && git commit -q -m other && git push -q) && " % url)
    home.session(world.agent_writes("Likes tea.", more=other))
    assert world.block(LABEL).strip() == "Likes tea."
    assert world.block("system/place").strip() == "Lives in Turin."
    assert home.git("status", "--porcelain") == ""
    assert world.tip() == home.git("rev-parse", "HEAD").strip()
    assert home.git("log", "--format=%s").split("\n")[:2] == ["chore: keep", "other"]


def test_the_checkout_can_push_by_its_own_credential_helper(world):
    """What an agent's plain `git push` uses where the server challenges (client.md 6.2, 8.4)."""
    home = world.home("first")
    home.session()
    base = world.memfs_url if world.version in PUSHES_BY_ITSELF else world.standin.url
    host = base.split("//")[1]
    got = subprocess.run(["git", "credential", "fill"], cwd=home.checkout, env=home.env(),
                         input=("protocol=http\nhost=%s\n\n" % host).encode(), check=True,
                         stdout=subprocess.PIPE).stdout.decode()
    assert "username=letta\n" in got and "password=" + world.key + "\n" in got


@pytest.mark.parametrize("world", ["0.19.5"], indirect=True)
def test_behind_a_gateway_that_challenges_plain_git_pushes_with_the_key(world):
    home = world.home("first")
    home.session(world.agent_writes("Likes tea."))
    asked = [r[2] for r in world.standin.asked("GET", "service=git-receive-pack")]
    assert asked == [401, 200]
    assert [r[2] for r in world.standin.asked("POST", "git-receive-pack$")] == [200]


@pytest.mark.parametrize("world", ["0.32.18"], indirect=True)
def test_what_newer_clients_ask_besides_git_is_answered_by_memfs(world):
    """Secrets must be 200, or the process ends with 1 (client.md 8.2, row 5)."""
    home = world.home("first")
    home.session(world.agent_writes("Likes tea."))
    del world.standin.passed[:]
    home.session()
    passed = [(p[1].rpartition("/")[2], p[2]) for p in world.standin.passed]
    assert ("secrets", 200) in passed and ("repositories", 200) in passed, passed


def test_with_memfs_as_the_gateway_one_address_serves_all(behind):
    """Agents, the turn's events and git come by memfs; what the agent commits is there when a turn has ended."""
    home = behind.home("first")
    home.session(behind.agent_writes("Likes tea."))
    assert behind.tip() == home.git("rev-parse", "HEAD").strip() != GENESIS
    rows = behind.server.request("POST", f"/v1/agents/{behind.agent_id}/memory/sync-from-git").json()
    assert [(r["label"], r["value"].strip()) for r in rows] == [(LABEL, "Likes tea.")]
    second = behind.home("second")
    second.session()
    assert "Likes tea." in second.read(LABEL + ".md")
    assert behind.standin.refused == [] and behind.standin.passed == []
    assert behind.standin.asked("POST", "/messages")
