"""A real Letta server, unpatched, with memfs as its memfs service and a mirror behind that.

That what is edited in one place is seen in the others is in test_letta_journey.py.
"""
import os

import pytest

from lib.gitcli import Git
from lib.letta import GIT_TAG
from lib.patience import wait
from lib.server import CANARY

pytestmark = pytest.mark.lettaserver


@pytest.fixture
def letta(service_letta, servers, folder):
    """The Letta server, with a memfs behind it that mirrors to folder/mirror."""
    os.makedirs(folder / "mirror")
    s = servers(start=False, args=[
        "--letta-root", service_letta.memfs_root, "--letta-proxy", "127.0.0.1",
        "--letta-url", service_letta.url])
    os.makedirs(s.home, mode=0o700)
    with open(s.home + "/config", "w", encoding="utf-8") as f:
        f.write(f'[mirror "origin"]\n\turl = {folder}/mirror/{{agentId}}.git\n\tpoll = 1\n')
    s.start()
    service_letta.serve(s.port)
    service_letta.memfs = s
    yield service_letta
    service_letta.way.behave("refuse")


@pytest.fixture
def ada(letta):
    agent = letta.create_agent({"human": "Likes tea.", "persona": "I am Ada."}, tags=[GIT_TAG])
    yield agent
    letta.delete_agent(agent)


@pytest.fixture
def client(folder):
    return Git(folder / "githome", CANARY)


def save(c, files):
    for path, text in files.items():
        if text is None:
            c.run("rm", "-q", path)
        else:
            c.write(path, text)
    c.run("add", "-A")
    c.run("commit", "-q", "-m", "by git")
    c.run("push", "-q", "origin", "HEAD:main")
    return c.text("rev-parse", "HEAD")


def body(text):
    """A file's text behind its front matter."""
    return text.split("---\n", 2)[-1]


def test_what_is_removed_by_git_is_detached(letta, ada, client, folder):
    c = client.clone(letta.git_url(ada), folder / "c")
    save(c, {"system/persona.md": None})
    wait(lambda: set(letta.values(ada)) == {"system/human"}, "its block is detached")


def test_a_push_beyond_a_mebibyte_begins_with_a_probe(letta, ada, client, folder):
    c = client.clone(letta.git_url(ada), folder / "c")
    files = {f"notes/{i}.md": os.urandom(20000).hex() + "\n" for i in range(40)}
    tip = save(c, files)
    assert letta.memfs.tip(ada) == tip
    wait(lambda: len(letta.values(ada)) == 42, "all blocks are there")


def test_H2_writes_through_both_doors_at_once_are_all_kept(letta, ada, client, folder):
    c = client.clone(letta.git_url(ada), folder / "c")
    blocks = letta.blocks(ada)
    for i in range(8):
        letta.request("PATCH", f"/v1/blocks/{blocks['system/human']['id']}",
                      {"value": f"Likes {i}."})
        c.write(f"notes/{i}.md", f"note {i}\n")
        c.run("add", "-A")
        c.run("commit", "-q", "-m", f"note {i}")
        while c.run("push", "-q", "origin", "HEAD:main", check=False).returncode != 0:
            c.run("pull", "-q", "--no-rebase", "origin", "main")
    c.run("pull", "-q", "--no-rebase", "origin", "main")
    assert sorted(os.listdir(c.path + "/notes")) == [f"{i}.md" for i in range(8)]
    assert body(open(c.path + "/system/human.md", encoding="utf-8").read()).strip() == "Likes 7."
    want = {"system/human", "system/persona", *(f"notes/{i}" for i in range(8))}
    wait(lambda: set(letta.values(ada)) == want, "all blocks are there")


def test_the_service_away_for_a_while_loses_nothing(letta, ada, client, folder):
    c = client.clone(letta.git_url(ada), folder / "c")
    s = letta.memfs
    s.stop()
    letta.patch_block(letta.blocks(ada)["system/human"]["id"], value="Written while it was away.")
    c.write("notes/a.md", "a\n")
    c.run("add", "-A")
    c.run("commit", "-q", "-m", "a")
    assert c.run("push", "-q", "origin", "HEAD:main", check=False).returncode != 0
    s.start()
    letta.serve(s.port)
    c.run("pull", "-q", "--no-rebase", "origin", "main")
    c.run("push", "-q", "origin", "HEAD:main")
    wait(lambda: letta.values(ada).get("notes/a", "").strip() == "a", "the push")
    assert letta.values(ada)["system/human"] == "Written while it was away."
