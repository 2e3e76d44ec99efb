"""A real Letta server, unpatched, as the tests of its modes use it: that it works here at all, and
the facts about it on which memfs as its service rests (contract http-api §2.2-2.4, postgres-schema)."""
import gzip
import os
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib import http, summary
from lib.gitcli import Git
from lib.letta import GIT_TAG, ORG, REVISION, VERSION

pytestmark = pytest.mark.lettaserver

RECEIVE = "application/x-git-receive-pack-request"


class Request:
    def __init__(self, handler):
        self.method, self.target = handler.command, handler.path
        self.headers = [(k.lower(), v) for k, v in handler.headers.items()]
        head = dict(self.headers)
        if head.get("transfer-encoding") == "chunked":
            self.body = b"".join(iter(lambda: _chunk(handler.rfile), b""))
        else:
            self.body = handler.rfile.read(int(head.get("content-length", 0)))

    def all(self, name):
        return [v for k, v in self.headers if k == name]


def _chunk(stream):
    data = stream.read(int(stream.readline(), 16))
    stream.readline()
    return data


class Service:
    """A memfs service that says 200 and nothing more, and keeps what it was asked."""

    def __init__(self):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                asked.append(Request(self))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service(service_letta):
    s = Service()
    service_letta.serve(s.port)
    yield s
    service_letta.serve(None)
    s.close()


@pytest.fixture
def ada(plain_letta):
    agent = plain_letta.create_agent({"human": "Likes tea.", "persona": "I am Ada."}, tags=["t"])
    yield agent
    plain_letta.delete_agent(agent)


@pytest.fixture
def eve(service_letta):
    agent = service_letta.create_agent({"human": "Likes tea."})
    yield agent
    service_letta.delete_agent(agent)


# ---- the server itself

def test_it_is_the_version_that_we_say_and_its_migrations_end_where_we_know_them(plain_letta):
    assert plain_letta.ask("GET", "/v1/health/") == {"version": VERSION, "status": "ok"}
    assert plain_letta.sql("SELECT version_num FROM alembic_version") == [[REVISION]]
    summary.most("a Letta server", start_s=plain_letta.started_in,
                 rss_mib=plain_letta.rss_kib() // 1024)


def test_an_agent_with_blocks(plain_letta, ada):
    assert plain_letta.values(ada) == {"human": "Likes tea.", "persona": "I am Ada."}
    plain_letta.patch_block(plain_letta.blocks(ada)["human"]["id"], value="Likes coffee.")
    assert plain_letta.values(ada)["human"] == "Likes coffee."


def test_a_message_streams_as_the_model_speaks(plain_letta, ada, model_api):
    model_api.gate.clear()
    events = plain_letta.stream(ada, "hello")
    said = []
    try:
        for event in events:
            if event != "[DONE]" and event["message_type"] == "assistant_message":
                said.append(event["content"])
                model_api.gate.set()    # the rest is not made before the first piece was here
    finally:
        model_api.gate.set()
    assert said == ["I ", "will ", "remember ", "that."]
    assert event == "[DONE]"


def test_a_prompt_is_compiled_when_it_is_told_to(plain_letta, ada, model_api):
    assert [m["content"] for m in plain_letta.message(ada, "hello")] == ["I will remember that."]
    assert "Likes tea." in model_api.prompts[-1].system
    # As an outside writer changes a row: seen in the blocks at once, in the prompt only when compiled.
    plain_letta.sql("UPDATE block SET value = 'Likes milk.', version = version + 1 WHERE id ="
                    f" '{plain_letta.blocks(ada)['human']['id']}'")
    assert plain_letta.values(ada)["human"] == "Likes milk."
    plain_letta.message(ada, "again")
    assert "Likes milk." not in model_api.prompts[-1].system
    assert "Likes milk." in plain_letta.recompile(ada, dry_run=True)
    plain_letta.message(ada, "again")
    assert "Likes milk." not in model_api.prompts[-1].system
    assert "Likes milk." not in plain_letta.recompile(ada), "its answer is the prompt as it was"
    plain_letta.message(ada, "again")
    assert "Likes milk." in model_api.prompts[-1].system


def test_its_own_python_client(plain_letta, ada):
    labels = plain_letta.sdk(
        f"answer(sorted(b.label for b in client.agents.blocks.list(agent_id={ada!r})))")
    assert labels == ["human", "persona"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_without_a_service_git_is_501(plain_letta, ada, method):
    answer = plain_letta.request(method, f"/v1/git/{ada}/state.git/info/refs")
    assert (answer.status, answer.body) == (501, (
        b'{"detail":"git HTTP requires memfs service (LETTA_MEMFS_SERVICE_URL not configured)"}'))


def test_without_a_service_the_tag_has_no_effect(plain_letta, ada):
    plain_letta.enable_git(ada)
    assert sorted(plain_letta.agent(ada)["tags"]) == [GIT_TAG, "t"]
    plain_letta.patch_block(plain_letta.blocks(ada)["human"]["id"], value="Likes coffee.")
    assert not plain_letta.repository(ada).exists()


def test_without_a_service_the_tag_of_a_new_agent_is_lost_its_labels_are_not_as_asked(plain_letta):
    agent = plain_letta.create_agent({"human": "Likes tea."}, tags=[GIT_TAG, "t"])
    assert plain_letta.agent(agent)["tags"] == ["t"]
    assert plain_letta.values(agent) == {"system/human": "Likes tea."}
    plain_letta.delete_agent(agent)


# ---- what it sends to its service

def test_a_body_comes_in_chunks_with_the_organization_beside_it(service_letta, service, eve):
    body = gzip.compress(b"0000" * 500)
    answer = service_letta.request(
        "POST", f"/v1/git/{eve}/state.git/git-upload-pack?x=1&y=%20", body,
        {"Content-Type": "application/x-git-upload-pack-request", "Content-Encoding": "gzip",
         "Git-Protocol": "version=2", "Authorization": "Basic bGV0dGE6a2V5", "TE": "trailers",
         "X-Organization-Id": "org-" + str(uuid.uuid4())})
    assert (answer.status, answer.body) == (200, b"")
    asked, = service.asked
    assert asked.target.partition("?")[0] == f"/git/{eve}/state.git/git-upload-pack"
    assert asked.body == body
    assert asked.all("x-organization-id") == [ORG], "the client's own must not come through"
    for name, value in (("transfer-encoding", "chunked"), ("content-encoding", "gzip"),
                        ("git-protocol", "version=2"), ("authorization", "Basic bGV0dGE6a2V5")):
        assert asked.all(name) == [value]
    assert asked.all("content-length") == asked.all("te") == []


@pytest.mark.parametrize("form", ["{}/repositories/notes.git", "{}"])
def test_beyond_state_git_a_clients_organization_is_passed_on(service_letta, service, form):
    """Nobody is asked who this is, so a memfs service must not believe it (T24)."""
    stranger = "agent-" + str(uuid.uuid4())
    path = form.format(stranger) + "/info/refs"
    answer = service_letta.request("GET", f"/v1/git/{path}?service=git-upload-pack",
                                   headers={"X-Organization-Id": "org-mine"})
    assert answer.status == 200
    asked, = service.asked
    assert asked.target == f"/git/{path}?service=git-upload-pack"
    assert asked.all("x-organization-id") == ["org-mine"]


@pytest.mark.parametrize("agent, status", [("agent-" + str(uuid.uuid4()), 404), ("agent-1", 400)])
def test_who_is_no_agent_is_not_passed_on(service_letta, service, agent, status):
    answer = service_letta.request("GET", f"/v1/git/{agent}/state.git/info/refs")
    assert answer.status == status, answer
    assert service.asked == []


def test_a_service_that_is_away_is_500(service_letta, eve):
    service_letta.serve(None)
    answer = service_letta.request("GET", f"/v1/git/{eve}/state.git/info/refs")
    assert (answer.status, answer.body) == (500, b'{"detail":"An unknown error occurred"}')


# ---- what it does with the folder that it shares with its service

def put(letta, folder, agent, files):
    """Makes these the files of the agent's repository, as a service does that moves main.  The ref is
    loose and core.bare is false: Letta could not read it otherwise (rules 1 and 4 of the folder)."""
    git = Git(folder / "githome")
    bare, staged, work = letta.repository(agent), folder / "bare", git.init(folder / "work")
    for path, text in files.items():
        work.write(path, text)
    head = work.commit()
    git.run("init", "-q", "--bare", "-b", "main", staged)
    work.run("push", "-q", staged, "main")
    git.run("--git-dir", staged, "config", "core.bare", "false")
    bare.parent.mkdir(parents=True)
    staged.rename(bare)
    return head


def flush(letta, agent):
    """A push of nothing, and the wait until the server has taken in what is there."""
    since = len(letta.log())
    assert letta.flush(agent).status == 200
    letta.wait_log(r"git push->sync timing: agent=" + agent, since)


def test_a_flush_packet_makes_it_read_the_repository(service_letta, service, eve, folder):
    put(service_letta, folder, eve, {
        "system/human.md": "---\ndescription: who\nlimit: 900\n---\nLikes milk.",
        "notes.md": "---\ndescription: n\n---\nA note.",
        "skills/fly/SKILL.md": "---\nname: fly\ndescription: d\n---\nFlap.",
        "skills/fly/more.md": "More.", "data.json": "{}"})
    flush(service_letta, eve)
    assert [(r.method, r.body) for r in service.asked] == [("POST", b"0000")]
    blocks = service_letta.blocks(eve)
    assert {label: b["value"] for label, b in blocks.items()} == {
        "system/human": "Likes milk.", "notes": "A note.", "skills/fly": "Flap."}
    assert (blocks["system/human"]["description"], blocks["system/human"]["limit"]) == ("who", 900)
    assert blocks["notes"]["limit"] == 100000


def test_every_read_bumps_every_row_and_detaches_what_is_not_in_git(
        service_letta, service, eve, folder):
    rows = ("SELECT b.label, b.version FROM block b JOIN blocks_agents a ON a.block_id = b.id"
            f" WHERE a.agent_id = '{eve}' ORDER BY 1")
    put(service_letta, folder, eve, {"a.md": "---\ndescription: a\n---\nA",
                                     "b.md": "---\ndescription: b\n---\nB"})
    flush(service_letta, eve)
    human = "SELECT count(*) FROM block WHERE value = 'Likes tea.' AND label = 'human'"
    before, n_human = dict(service_letta.sql(rows)), service_letta.sql(human)
    flush(service_letta, eve)
    after = dict(service_letta.sql(rows))
    assert set(before) == set(after) == {"a", "b"}, "the block of its making is detached"
    assert all(int(after[label]) == int(before[label]) + 1 for label in before)
    assert service_letta.sql(human) == n_human, "its row survives"


def test_with_nothing_to_read_nothing_is_detached(service_letta, service, eve, folder):
    put(service_letta, folder, eve, {"data.json": "{}"})
    flush(service_letta, eve)
    assert service_letta.values(eve) == {"human": "Likes tea."}


def test_the_tag_makes_a_repository_of_the_blocks_and_its_writes_are_commits(service_letta, folder):
    agent = service_letta.create_agent({"human": "Likes tea."}, tags=["t"])
    service_letta.enable_git(agent)
    assert service_letta.values(agent) == {"system/human": "Likes tea."}, "labels are moved, too"
    git = Git(folder / "githome")

    def show(path):
        return git.text("--git-dir", service_letta.repository(agent), "show", "HEAD:" + path)

    assert show("system/human.md").endswith("---\nLikes tea.")
    service_letta.patch_block(service_letta.blocks(agent)["system/human"]["id"],
                              value="Likes coffee.")
    assert show("system/human.md").endswith("---\nLikes coffee.")
    log = git.text("--git-dir", service_letta.repository(agent), "log", "--format=%an %s")
    assert len(log.splitlines()) == 2
    service_letta.delete_agent(agent)
    assert service_letta.repository(agent).exists(), "the repository outlives its agent"


# ---- and memfs as that service

def test_git_through_it_reaches_memfs(service_letta, server, eve, git, folder):
    service_letta.serve(server.port)
    checkout = git.clone(service_letta.git_url(eve), folder / "a")
    checkout.write("system/human.md", "---\ndescription: who\n---\nLikes milk.\n")
    checkout.write("big.bin", os.urandom(3 << 20))     # more than git sends in one piece
    head = checkout.commit()
    checkout.run("push", "-q", "origin", "HEAD:main")
    assert server.tip(eve) == head
    assert server.value(eve, "system/human") == "Likes milk.\n"
    again = git.clone(service_letta.git_url(eve), folder / "b")
    assert again.head == head
    direct = http.request(server.port, "GET", f"/git/{eve}/state.git/info/refs?service=git-upload-pack")
    assert direct.status == 200
