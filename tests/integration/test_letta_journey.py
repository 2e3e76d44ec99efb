"""One journey of a memory, in all ways in which memfs serves a real, unpatched Letta server: the
agent is created there with its own Python client; memory is pushed with real git, edited through
Letta's API and edited on one's own git host, and each is seen by the others; its prompt is made anew
when it is asked for (design 9; H2, K1).

    service            its memfs service, with a folder that both use
    gateway            in front of it; blocks and git are apart, each is answered by its owner
    gateway+service    both at once: one address, and the server's blocks follow
    tables             beside it, in its own database
    gateway+tables     both at once
"""
import os
import subprocess

import pytest

from lib.gitcli import GIT, Git, git_env
from lib.letta import GIT_TAG
from lib.modelapi import EMBEDDING, MODEL
from lib.patience import wait
from lib.server import CANARY

pytestmark = pytest.mark.lettaserver

WAYS = ["service", "gateway", "gateway+service", "tables", "gateway+tables"]


def front(value, description="d"):
    return f"---\ndescription: {description}\n---\n{value}"


def body(text):
    return text.split("---\n", 2)[-1] if text is not None else None


class World:
    """A Letta server with memfs in one of the ways, a mirror, an agent and its checkout."""

    def __init__(self, way, letta, memfs, folder):
        self.way, self.letta, self.memfs, self.folder = way, letta, memfs, folder
        self.is_gateway, self.is_service = "gateway" in way, "service" in way
        self.is_fed = way != "gateway"      # what is pushed becomes Letta's blocks
        self.api = memfs.url if self.is_gateway else letta.url
        self.git = Git(folder / "git", CANARY)

    def sdk(self, code):
        return self.letta.sdk(code, url=self.api)

    def create(self):
        """As a user does: created, and asked to keep its memory in git."""
        self.agent = self.sdk(f"""
block = {{"label": "human", "value": "Likes tea.", "description": "who", "limit": 4000}}
agent = client.agents.create(name="Ada", model="openai-proxy/{MODEL}", embedding="openai/{EMBEDDING}",
                             memory_blocks=[block], include_base_tools=False, tags=["{GIT_TAG}"])
client.agents.update(agent.id, tags=["{GIT_TAG}"])
answer(agent.id)""")
        url = self.letta.git_url(self.agent) if self.way == "service" else self.memfs.git_url(self.agent)
        if self.is_fed:         # what it had is in git before anybody pushes
            wait(lambda: self.in_git("system/human.md"), "its first block, in git")
        self.checkout = self.git.clone(url, self.folder / "checkout")

    def in_git(self, path):
        """What a clone shows, without one."""
        self.memfs.refs(self.agent)         # as git asks first; what Letta wrote comes in
        done = self.memfs.git_dir(self.agent, "show", f"main:{path}", check=False)
        return done.stdout.decode() if done.returncode == 0 else None

    def in_checkout(self, path):
        self.checkout.pull()
        return body(self.checkout.read(path).decode())

    def mirror(self):
        return self.folder / "mirror" / f"{self.agent}.git"

    def on_mirror(self, path):
        done = subprocess.run([GIT, "--git-dir", self.mirror(), "show", f"main:{path}"],
                              capture_output=True, timeout=60, env=git_env(self.folder))
        return body(done.stdout.decode()) if done.returncode == 0 else None

    def blocks(self):
        """Letta's, through its API."""
        rows = self.sdk(f"answer([b.model_dump(mode='json') for b in "
                        f"client.agents.blocks.list(agent_id={self.agent!r}, limit=100)])")
        assert len({row["label"] for row in rows}) == len(rows)
        return {row["label"]: row for row in rows}

    def values(self):
        return {label: row["value"] for label, row in self.blocks().items()}

    def sync(self, recompile):
        """(what came of the prompt, blocks by label) of memfs' answer."""
        answer = self.memfs.request(
            "POST", f"/v1/agents/{self.agent}/memory/sync-from-git?recompile={recompile}", timeout=120)
        assert answer.status == 200, answer
        assert answer.headers["x-memfs-remote"].startswith("ok; "), answer.headers
        return answer.headers.get("x-memfs-recompile"), {row["label"]: row for row in answer.json()}

    def must_recompile(self, recompile):
        """A slow Letta server has not read everything when its prompt is made; it is told, and made again."""
        for _ in range(9):      # of ten seconds each
            said, _ = self.sync(recompile)
            if said != "done; blocks=behind":
                break
        assert said == "done", said

    def prompt(self):
        """The system prompt that the model is shown next."""
        self.sdk(f"client.agents.messages.create({self.agent!r}, "
                 "messages=[{'role': 'user', 'content': 'hello'}])")
        return self.letta.model_api.prompts[-1].system


@pytest.fixture
def world(request, servers, folder):
    way = request.param
    letta = request.getfixturevalue("service_letta" if "service" in way else "plain_letta")
    args, env = ["--upstream", letta.url] if "gateway" in way else [], {}
    if "service" in way:
        args += ["--letta-root", letta.memfs_root, "--letta-proxy", "127.0.0.1"]
    if way in ("service", "gateway+service", "tables"):
        args += ["--letta-url", letta.url]
    if "tables" in way:
        env["MEMFS_LETTA_DATABASE"] = letta.database
    os.makedirs(folder / "mirror")
    s = servers(start=False, args=args, env=env)
    os.makedirs(s.home, mode=0o700)
    with open(s.home + "/config", "w", encoding="utf-8") as f:
        f.write(f'[mirror "origin"]\n\turl = {folder}/mirror/{{agentId}}.git\n\tpoll = 1\n')
    s.start()
    if "service" in way:
        letta.serve(s.port)
    w = World(way, letta, s, folder)
    w.create()
    yield w
    w.sdk(f"client.agents.delete({w.agent!r})")
    if "service" in way:
        letta.way.behave("refuse")


@pytest.mark.parametrize("world", WAYS, indirect=True)
def test_a_memory_is_the_same_to_git_to_letta_and_to_the_mirror(world):
    w, c = world, world.checkout

    # pushed with git, seen through Letta's API and on the mirror
    c.save({"system/human.md": front("Likes coffee.\n", "who"), "notes/one.md": front("First.\n", "one")})
    wait(lambda: w.on_mirror("notes/one.md") == "First.\n", "the push, on the mirror")
    if w.is_fed:
        wait(lambda: w.values() == {"system/human": "Likes coffee.\n", "notes/one": "First.\n"},
             "the push, through Letta's API")
    else:
        assert w.values() == {"system/human": "Likes tea."}
    assert w.blocks()["system/human"]["limit"] == 4000      # the file names none, so none is set

    # edited through Letta's API, seen in git and on the mirror
    human = w.blocks()["system/human"]["id"]
    w.sdk(f"client.blocks.update({human!r}, value='Likes cocoa.\\n')")
    assert w.values()["system/human"] == "Likes cocoa.\n"
    if w.is_fed:
        wait(lambda: body(w.in_git("system/human.md")) == "Likes cocoa.\n", "the edit, in git")
        assert w.in_checkout("system/human.md") == "Likes cocoa.\n"
        wait(lambda: w.on_mirror("system/human.md") == "Likes cocoa.\n", "the edit, on the mirror")

    # edited on the mirror, seen through Letta's API and in git
    host = w.git.clone(w.mirror(), w.folder / "host")
    host.save({"notes/one.md": front("Second.\n", "one"), "notes/two.md": front("Two.\n", "two")})
    if w.is_fed:
        wait(lambda: w.values() == {"system/human": "Likes cocoa.\n", "notes/one": "Second.\n",
                                    "notes/two": "Two.\n"}, "the host's edit, through Letta's API")
    wait(lambda: body(w.in_git("notes/two.md")) == "Two.\n", "the host's edit, in git")
    assert w.in_checkout("notes/one.md") == "Second.\n"

    # removed by git: no block of the agent any more
    c.run("rm", "-q", "notes/two.md")
    c.commit()
    c.push()
    if w.is_fed:
        wait(lambda: set(w.blocks()) == {"system/human", "notes/one"}, "its block is detached")

    # all say the same, and nothing else was touched
    _, rows = w.sync("false")
    want = {"system/human": "Likes cocoa.\n" if w.is_fed else "Likes coffee.\n", "notes/one": "Second.\n"}
    assert {label: row["value"] for label, row in rows.items()} == want
    if w.is_fed:
        assert w.values() == want
        assert w.blocks()["system/human"]["id"] == human
    assert w.blocks()["system/human"]["limit"] == 4000

    prompts(w)


def prompts(w):
    """The prompt is made when it is asked for; auto asks when system/ changed."""
    c = w.checkout
    w.must_recompile("true")
    assert "Likes cocoa." in w.prompt()
    c.save({"notes/one.md": front("Third.\n", "one")})
    assert w.sync("auto")[0] == "unchanged"
    c.save({"system/human.md": front("Likes water.\n", "who")})
    assert "Likes water." not in w.prompt()                 # Letta does not do it by itself
    assert w.sync("false")[0] is None
    assert "Likes water." not in w.prompt()
    w.must_recompile("auto")
    assert ("Likes water." in w.prompt()) == w.is_fed       # a gateway alone feeds no blocks
    assert w.sync("auto")[0] == "unchanged"
    # changed on the host: brought here, into Letta's blocks and into the prompt by the one call
    host = w.git.clone(w.mirror(), w.folder / "host2")
    host.save({"system/human.md": front("Likes juice.\n", "who")})
    w.must_recompile("auto")
    assert ("Likes juice." in w.prompt()) == w.is_fed
    assert w.blocks()["system/human"]["limit"] == 4000
