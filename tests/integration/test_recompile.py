"""sync-from-git?recompile=true|false|auto: when a Letta server is asked for a new system prompt, as
whom, and what is said of it (contract http-api §3, design 9).

The server is one that a test holds by the hand (lib/upstream.py); what the real one makes of it is in
test_letta_journey.py.
"""
import base64
import shutil

import pytest

from lib.letta import USER
from lib.lettafolder import LettaFolder
from lib.server import new_agent
from lib.upstream import Upstream
from lib.writer import Memory


class Letta(Upstream):
    """Counts its recompiles by agent; `status` is its answer to them."""

    def expect(self, agent, blocks=None):
        """blocks: a function that gives label: value, as the server has them at that moment."""
        self.agents.add(agent)
        self.handlers[f"/v1/agents/{agent}/recompile"] = self._recompile
        self.handlers[f"/v1/agents/{agent}/core-memory/blocks"] = \
            lambda c, r: self._blocks(c, r, blocks() if blocks else {})

    def _recompile(self, connection, request):
        connection.read_body(request)
        is_known = self.password in (None, *(v[7:] for v in request.all("Authorization")))
        connection.json(self.status if is_known else 401, "the old prompt")
        return True

    def _blocks(self, connection, request, blocks):
        connection.read_body(request)
        rows = [] if "after=" in request.target else [
            {"id": f"block-{n:03}", "label": label, "value": value}
            for n, (label, value) in enumerate(sorted(blocks.items()))]
        connection.json(200, rows)
        return True

    def recompiles(self, agent):
        found = self.seen(f"/v1/agents/{agent}/recompile")
        assert all(r.method == "POST" for r in found)
        return found


@pytest.fixture
def letta():
    server = Letta().start()
    yield server
    server.stop()
    assert not server.faults, server.faults


def sync(s, agent, recompile, headers=None):
    """What is said of the prompt; None: nothing.  The blocks are answered whatever came of it."""
    answer = s.request("POST", f"/v1/agents/{agent}/memory/sync-from-git?recompile={recompile}",
                       headers=headers)
    assert answer.status == 200 and isinstance(answer.json(), list), answer
    return answer.headers.get("x-memfs-recompile")


@pytest.mark.parametrize("recompile, said", [("true", "none"), ("auto", "none"), ("false", None)])
def test_without_a_letta_server_it_says_so(server, recompile, said):
    m = Memory(server, new_agent())
    m.must_push({"system/human.md": "Likes tea.\n"})
    assert sync(server, m.agent, recompile) == said


def test_auto_asks_only_when_system_changed_since(servers, letta):
    s, agent = servers(args=["--upstream", letta.url]), new_agent()
    letta.expect(agent)
    m = Memory(s, agent)

    def said(recompile="auto"):
        before = len(letta.recompiles(agent))
        told = sync(s, agent, recompile)
        asked = len(letta.recompiles(agent)) - before
        assert asked == {"done": 1, "unchanged": 0, None: 0}[told]
        return told

    m.must_push({"notes/a.md": "a\n"})
    assert said() == "unchanged"                    # nothing is in the prompt yet
    m.must_push({"system/human.md": "Likes tea.\n"})
    assert said("false") is None
    assert said() == "done"
    assert said() == "unchanged"
    m.must_push({"notes/a.md": "b\n", "system.md": "not below it\n", "system/picture.png": b"\0"})
    assert said() == "unchanged"
    s.restart()
    assert said() == "unchanged"                    # kept over a restart
    assert said("true") == "done"
    m.must_push({"system/human.md": "---\ndescription: who\n---\nLikes tea.\n"})
    assert said() == "done"                         # an attribute is part of a block
    m.must_push({"system/deep/er.md": "new\n"})
    assert said() == "done"
    m.must_push({"system/human.md": None, "system/deep/er.md": None})
    assert said() == "done"
    assert said() == "unchanged"


def test_auto_asks_again_after_a_failure_and_the_blocks_are_answered(servers, letta):
    s, agent = servers(args=["--upstream", letta.url]), new_agent()
    letta.expect(agent)
    m = Memory(s, agent)
    m.must_push({"system/human.md": "Likes tea.\n"})
    letta.status = 500
    assert sync(s, agent, "auto") == "failed; the Letta server does not answer"
    assert "recompile_failed" in s.log()
    letta.status = 404
    assert sync(s, agent, "auto") == "failed; the Letta server has no such agent"
    letta.status = 200
    assert sync(s, agent, "auto") == "done"


def test_S3_the_server_is_asked_as_who_asks_us_and_never_with_a_token_of_ours(servers, letta, folder):
    agent, password = new_agent(), "letta-pw-canary"
    letta.expect(agent)
    (folder / "secret").write_text(password + "\n")
    s = servers(args=["--upstream", letta.url])
    s.secrets.append(password.encode())
    Memory(s, agent).must_push({"system/human.md": "Likes tea.\n"})
    token = {"Authorization": "Bearer " + s.token()["token"]}
    letta.password = password
    basic = "Basic " + base64.b64encode(b"letta:" + password.encode()).decode()
    assert sync(s, agent, "true", {"Authorization": basic, "user_id": USER}) == "done"
    asked = letta.recompiles(agent)[-1]
    assert asked.one("Authorization") == "Bearer " + password and asked.one("user_id") == USER

    # a token that only memfs knows opens our own door; the server is asked as nobody
    assert sync(s, agent, "true", token) == "failed; the Letta server refuses the credential"
    assert letta.recompiles(agent)[-1].all("Authorization") == []
    s.args += ["--letta-url", letta.url, "--letta-token-file", str(folder / "secret")]
    s.restart()
    assert sync(s, agent, "true", token) == "done"
    assert letta.recompiles(agent)[-1].one("Authorization") == "Bearer " + password


@pytest.fixture
def behind(servers, letta, folder):
    """memfs as the memfs service of `letta`."""
    root = LettaFolder(folder / "letta")
    return servers(args=["--letta-root", root.root, "--letta-proxy", "127.0.0.1",
                         "--letta-url", letta.url])


def test_a_server_that_reads_the_folder_is_asked_when_its_blocks_are_ours(behind, letta):
    """It reads after it has answered (contract §2.4), so a prompt that is made at once is the old one."""
    agent, theirs, seen = new_agent(), {}, []

    def blocks():
        seen.append(dict(theirs))
        if len(seen) == 3:              # CR is a line end to it; what is not below system/ is no matter
            theirs.update({"system/human": "Likes\ntea.\n", "notes/a": "older"})
        if len(seen) == 5:
            theirs.pop("system/gone")
        return theirs

    theirs.update({"system/human": "old", "system/gone": "old"})
    letta.expect(agent, blocks)
    m = Memory(behind, agent)
    m.must_push({"system/human.md": "Likes\r\ntea.\r\n", "notes/a.md": "a\n"})
    for _ in range(9):                  # one that is too slow for five looks in ten seconds goes on
        said = sync(behind, agent, "auto")
        if said != "done; blocks=behind":
            break
    assert said == "done"
    assert theirs == {"system/human": "Likes\ntea.\n", "notes/a": "older"}
    assert sync(behind, agent, "auto") == "unchanged"


def test_a_prompt_of_older_blocks_is_told_and_auto_makes_it_again(behind, letta):
    agent, theirs = new_agent(), {"system/human": "older"}
    letta.expect(agent, lambda: theirs)
    m = Memory(behind, agent)
    m.must_push({"system/human.md": "Likes tea.\n"})
    assert sync(behind, agent, "auto") == "done; blocks=behind"
    theirs["system/human"] = "Likes tea.\n"
    assert sync(behind, agent, "auto") == "done"
    assert sync(behind, agent, "auto") == "unchanged"


def test_H1_a_missing_repository_is_503_and_nobody_is_asked_for_anything(behind, letta):
    agent = new_agent()
    letta.expect(agent, lambda: {"system/human": "Likes tea.\n"})
    m = Memory(behind, agent)
    m.must_push({"system/human.md": "Likes tea.\n"})
    behind.stop()
    shutil.move(behind.repository(agent), behind.folder + "/away")
    behind.start()
    answer = behind.request("POST", f"/v1/agents/{agent}/memory/sync-from-git?recompile=true")
    assert answer.status == 503 and letta.recompiles(agent) == [], answer
    behind.stop()
    shutil.move(behind.folder + "/away", behind.repository(agent))
    behind.start()
    assert sync(behind, agent, "true") == "done"
