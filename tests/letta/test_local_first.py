"""The real letta-code, unmodified, where the git endpoint answers 501: memory is local first.

Four versions stand for the behaviours that differ (docs/client.md):
  0.19.5   one base URL for all; clones and pulls, no push, no reset
  0.25.9   its own base URL for git; resets a checkout that has nothing in common with the remote
  0.30.28  pushes after the turn; background reflection in a worktree
  0.32.18  fetches before it merges what a subagent wrote, and throws it away when that fails
The base of all is standin.py: 501 on /v1/git, until a test lets somebody answer.
"""

import base64
import os
import subprocess
import uuid

import pytest

from lib.fake_remote import Answer, FakeRemote
from lib.gitcli import Git
from lib.server import CANARY, SECRETS
from machine import GENESIS, Machine, keeps
from standin import StandIn

ALL = ("0.19.5", "0.25.9", "0.30.28", "0.32.18")
TOKEN = "foreign-token-of-the-git-host"
# The second turn starts one; a third does not start another.
REFLECTION = ("--reflection-trigger", "step-count", "--reflection-step-count", "2")


@pytest.fixture
def agent():
    return "agent-" + str(uuid.uuid4())


@pytest.fixture
def standin(agent):
    with StandIn(agent, None, CANARY) as s:
        yield s


@pytest.fixture
def machine_of(standin, letta_folder, memfs_bin, tmp_path):
    """machine_of(version): a home of its own; at the end no secret may lie where memfs writes."""
    made = []

    def make(version):
        m = Machine(version, letta_folder, memfs_bin, tmp_path / ("home-" + version), standin)
        made.append(m)
        return m

    yield make
    for m in made:
        check_no_key_below(os.path.join(m.folder, ".memfs"))


def check_no_key_below(folder):
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    data = f.read()
                assert not any(s in data for s in SECRETS), path


def git_dir(path, *args):
    done = subprocess.run(["/usr/bin/git", "--git-dir", str(path), *args], check=True,
                          capture_output=True, timeout=60)
    return done.stdout.decode().strip()


class Empty:
    """A server that has git and nothing else, and nothing in it."""

    def __init__(self, standin, agent, folder):
        self.remote = FakeRemote(folder / "remote")
        self.path = self.remote.repository("v1/git/%s/state.git" % agent)
        standin.serve(self.remote.url("").rstrip("/"), has_only_git=True)

    def tip(self, agent):
        return git_dir(self.path, "rev-parse", "main")

    def text(self, agent, path):
        return git_dir(self.path, "show", "main:" + path)

    def close(self):
        self.remote.close()


class Memfs:
    """A real memfs, at the genesis, or ahead: others have written there, in the same file too."""

    def __init__(self, standin, agent, folder, server, is_ahead):
        self.server = server
        if is_ahead:
            other = Git(folder / "other").clone(server.git_url(agent), folder / "other" / "c")
            self.others = other.save({
                "system/human.md": "---\ndescription: About the user\n---\nLikes coffee.\n",
                "system/place.md": "---\ndescription: Where\n---\nLives in Turin.\n"})
        standin.serve(server.url)

    def tip(self, agent):
        return self.server.tip(agent)

    def text(self, agent, path):
        return self.server.value(agent, path[:-len(".md")])

    def close(self):
        pass


@pytest.fixture
def server_of(standin, agent, tmp_path, request):
    """server_of(kind): from now on there is a server behind the stand-in."""
    made = []

    def make(kind):
        if kind == "empty":
            made.append(Empty(standin, agent, tmp_path))
        else:
            made.append(Memfs(standin, agent, tmp_path, request.getfixturevalue("memfs"),
                              kind == "ahead"))
        return made[-1]

    yield make
    for server in made:
        server.close()


# -- a home that `memfs apply` prepared ------------------------------------------------------------

@pytest.mark.parametrize("version, kind, delivers", [
    ("0.19.5", "empty", "sync"), ("0.19.5", "ahead", "client sync"),
    ("0.25.9", "genesis", "sync"), ("0.25.9", "ahead", "client sync"),
    ("0.30.28", "empty", "client"), ("0.30.28", "genesis", "client"),
    ("0.30.28", "ahead", "client"),
    ("0.32.18", "empty", "client"), ("0.32.18", "genesis", "client"),
    ("0.32.18", "ahead", "client"), ("0.32.18", "ahead", "sync"),
])
def test_what_was_written_under_501_reaches_the_server_that_answers_later(
        machine_of, standin, server_of, agent, version, kind, delivers):
    m = machine_of(version)
    report = m.apply(agent)
    assert report["was_created"] and report["answer"] == "not-implemented"
    m.turn(keeps("Likes tea."), agent=agent)
    ours = m.head(agent)
    m.check(agent)
    assert m.subjects(agent) == ["chore: keep Likes tea.", "memfs: genesis"]
    assert len(standin.refused) >= 2, "the client never asked"

    server = server_of(kind)
    if "client" in delivers:
        m.turn(agent=agent)
    if "sync" in delivers:
        assert m.sync(agent)["state"] == "synced"
    m.check(agent)
    assert server.tip(agent) == m.head(agent)
    for text in (m.read(agent), server.text(agent, "system/human.md")):
        assert "Likes tea." in text
        assert ("Likes coffee." in text) == (kind == "ahead"), text
        assert "<<<<" not in text
    if kind == "ahead":
        assert "Lives in Turin." in server.text(agent, "system/place.md")
        m.git(agent, "merge-base", "--is-ancestor", server.others, "HEAD")
    else:
        assert m.head(agent) == ours
    assert "chore: keep Likes tea." in m.subjects(agent)
    assert m.git(agent, "for-each-ref", "refs/letta-backup") == "", "the client has reset"


@pytest.mark.parametrize("version", ["0.19.5", "0.32.18"])
def test_without_memfs_a_501_ends_the_start(machine_of, standin, agent, version):
    """What all this is for; once the client learns to live with it, these tests prove nothing."""
    m = machine_of(version)
    done = m.run(m.letta, "-p", "hi", *m.letta_args(agent), code=1)
    assert b"501" in done.stdout + done.stderr
    assert standin.refused and not os.path.exists(m.memory(agent) + "/.git")


# -- setup git: ids that nobody knew ---------------------------------------------------------------

def check_shows_nothing(m, standin, agent, where=None):
    """What the client looks at and prints is as without memfs."""
    url = "%s/v1/git/%s/state.git" % (standin.url, agent)
    assert m.git(agent, "config", "--get-all", "remote.origin.url", where=where) == url
    assert m.git(agent, "config", "--get-all", "remote.origin.pushurl", check=False,
                 where=where) == ""
    assert m.git(agent, "status", "--porcelain", "--ignored", where=where) == ""
    assert sorted(os.listdir(where or m.memory(agent))) == sorted(
        {".git", *(p.split("/")[0] for p in
                   m.git(agent, "ls-files", where=where).split("\n") if p)})


def agents_push(m):
    """Clients that do not push leave it to the agent."""
    return "" if m.pushes_by_itself else "git push -q && "


@pytest.mark.parametrize("version", ALL)
def test_with_setup_git_a_new_agent_starts_under_501(machine_of, standin, memfs, version):
    m = machine_of(version)
    assert m.memfs("setup", "git")["is_on"]
    m.turn(keeps("Likes tea.", then=agents_push(m)))
    (new,) = standin.made
    m.check(new)
    check_shows_nothing(m, standin, new)
    assert git_dir(m.hub(new), "rev-parse", "main") == m.head(new)
    # a commit that never left the checkout is carried as well
    m.turn(keeps("Lives in Turin.", "system/place.md"), agent=new)
    standin.serve(memfs.url)
    reports = m.memfs("sync")["agents"]
    assert [(r["agent_id"], r["state"]) for r in reports] == [(new, "synced")]
    assert memfs.value(new, "system/human").strip() == "Likes tea."
    assert memfs.value(new, "system/place").strip() == "Lives in Turin."
    assert memfs.tip(new) == m.head(new) == git_dir(m.hub(new), "rev-parse", "main")
    assert m.subjects(new) == ["chore: keep Lives in Turin.", "chore: keep Likes tea.",
                               "memfs: genesis"]
    m.check(new)


@pytest.mark.parametrize("version", ["0.19.5", "0.32.18"])
def test_with_setup_git_a_server_that_is_ahead_is_merged_beside_the_client(
        machine_of, server_of, agent, version):
    """The client only ever meets this machine's own repository; what others wrote comes by sync."""
    m = machine_of(version)
    m.memfs("setup", "git")
    m.turn(keeps("Likes tea.", then=agents_push(m)), agent=agent)
    server = server_of("ahead")
    assert m.sync(agent)["state"] == "synced"
    for text in (m.read(agent), server.text(agent, "system/human.md")):
        assert "Likes tea." in text and "Likes coffee." in text and "<<<<" not in text
    m.git(agent, "merge-base", "--is-ancestor", server.others, "HEAD")
    assert server.tip(agent) == git_dir(m.hub(agent), "rev-parse", "main") == m.head(agent)
    m.turn(keeps("Reads.", "system/more.md", then=agents_push(m)), agent=agent)
    m.check(agent)
    assert git_dir(m.hub(agent), "rev-parse", "main") == m.head(agent) != server.tip(agent)
    assert m.sync(agent)["state"] == "synced" and server.tip(agent) == m.head(agent)


@pytest.mark.parametrize("version", ["0.19.5", "0.25.9"])
def test_with_setup_git_a_background_subagent_of_another_agent_starts_under_501(
        machine_of, standin, memfs, agent, version):
    """The Task tool in the background, deployed to an agent whose memory was never here: clones."""
    m = machine_of(version)
    m.memfs("setup", "git")
    other = standin.make({"name": "Bob", "tags": ["git-memory-enabled", "origin:letta-code"]})["id"]
    standin.waiting[other] = keeps("Reflected.", "system/notes.md", then=agents_push(m))
    with m.chat(agent) as chat:
        standin.command = {"name": "Task", "arguments": {
            "subagent_type": "general-purpose", "description": "Look", "prompt": "Look.",
            "run_in_background": True, "agent_id": other}}
        chat.say()
        chat.wait_for(lambda: other in standin.outputs)
        assert "all-went-well" in standin.outputs[other], standin.outputs
        assert "background" in standin.outputs[agent], standin.outputs
    for a in (agent, other):
        m.check(a)
        check_shows_nothing(m, standin, a)
        assert git_dir(m.hub(a), "rev-parse", "main") == m.head(a)
    standin.serve(memfs.url)
    assert {r["agent_id"]: r["state"] for r in m.memfs("sync")["agents"]} == {
        agent: "synced", other: "synced"}
    assert memfs.value(other, "system/notes").strip() == "Reflected."
    assert memfs.tip(other) == m.head(other) != GENESIS


def reflect(m, standin, agent, command):
    """One session with one background reflection, which runs the command in its worktree, and a
    turn after it: that is when the client pushes what was merged."""
    def is_over():
        return (standin.outputs.get(standin.made[0]) and
                m.git(agent, "branch", "--list", "letta/*") == "")

    standin.command_for_made = command
    with m.chat(agent, *REFLECTION) as chat:
        chat.say()
        chat.say()
        chat.wait_for(lambda: standin.made)
        chat.wait_for(is_over)
        chat.say()
    assert len(standin.made) == 1
    assert "all-went-well" in standin.outputs[standin.made[0]], standin.outputs
    return standin.agents[standin.made[0]]


@pytest.mark.parametrize("version", ["0.30.28", "0.32.18"])
def test_with_setup_git_a_background_reflection_commits_and_is_merged_under_501(
        machine_of, standin, memfs, agent, version):
    m = machine_of(version)
    m.memfs("setup", "git")
    look = ("git branch --show-current && git config remote.origin.url &&"
            " test -z \"$(git status --porcelain --ignored)\" && ")
    subagent = reflect(m, standin, agent, keeps("Reflected.", "system/notes.md", then=look))
    assert "type:reflection" in subagent["tags"]
    said = standin.outputs[subagent["id"]]
    assert "letta/reflection/" in said, said              # its worktree, not the parent's checkout
    assert "%s/v1/git/%s/state.git" % (standin.url, agent) in said
    m.check(agent)
    check_shows_nothing(m, standin, agent)
    assert m.read(agent, "system/notes.md").endswith("Reflected.\n")
    assert os.listdir(os.path.join(os.path.dirname(m.memory(agent)), "memory-worktrees")) == []
    assert m.git(agent, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert git_dir(m.hub(agent), "rev-parse", "main") == m.head(agent) != GENESIS
    assert m.memfs("undo", "--agent", agent, "--list")["can_undo"] == []
    standin.serve(memfs.url)
    assert m.sync(agent)["state"] == "synced"
    assert memfs.value(agent, "system/notes").strip() == "Reflected."
    assert memfs.tip(agent) == m.head(agent)


# -- a git host of the user's own ------------------------------------------------------------------

def check_key_never_shown(remote, token):
    """Every header of every request, and what Basic hides."""
    assert remote.requests
    for rq in remote.requests:
        shown = [rq.target, *rq.headers, *rq.headers.values()]
        kind, _, value = rq.headers.get("authorization", "").partition(" ")
        if kind:
            assert kind.lower() == "basic" and token, rq.headers
            user, _, secret = base64.b64decode(value).decode().partition(":")
            assert secret == token, (user, rq.method, rq.target)
        for text in shown:
            assert not any(s.decode() in text for s in SECRETS), (rq.method, rq.target, text)
        assert not any(s in rq.body for s in SECRETS)


@pytest.mark.parametrize("version, token", [*((v, TOKEN) for v in ALL), ("0.19.5", None),
                                            ("0.32.18", None)])
def test_S3_a_foreign_host_gets_the_commits_and_never_the_letta_key(
        machine_of, standin, agent, tmp_path, version, token):
    m = machine_of(version)
    with FakeRemote(tmp_path / "host", token=token) as host:
        path = host.repository("mine.git")
        m.memfs("remote", "set", "--agent", agent, host.url("mine.git"),
                *(["--token-stdin"] if token else []),
                **({"input": token.encode() + b"\n"} if token else {}))
        # a host without a token asks for nothing, so git offers nothing; memfs says so in a line
        m.turn(keeps("Likes tea."), agent=agent)
        if not m.pushes_by_itself:
            assert m.sync(agent)["state"] == "synced"
        assert m.sync(agent)["state"] == "synced"
        m.turn(keeps("Likes coffee.", then=agents_push(m)), agent=agent)
        if m.pushes_by_itself:
            m.turn(agent=agent)
        assert git_dir(path, "rev-parse", "main") == m.head(agent)
        assert m.subjects(agent)[:2] == ["chore: keep Likes coffee.", "chore: keep Likes tea."]
        m.check(agent)
        # the host refuses from now on: nobody looks for another key to show
        host.say("401")
        m.turn(keeps("Likes water."), agent=agent)
        m.sync(agent, code=4)
        assert len([r for r in host.requests if "info/refs" in r.target]) > 4
        check_key_never_shown(host, token)
    assert standin.asked("GET", "^/v1/git/") == standin.asked("POST", "^/v1/git/") == []


@pytest.mark.parametrize("version", ["0.19.5", "0.32.18"])
def test_S3_new_agents_of_a_general_address_reach_their_host_without_the_key(
        machine_of, standin, tmp_path, version):
    """setup git and one address for all: the first clone is answered here, and never goes to
    Letta's endpoint; a host that sends everybody elsewhere does not learn the key for others."""
    m = machine_of(version)
    with FakeRemote(tmp_path / "host", token=TOKEN, create=True) as host, \
            FakeRemote(tmp_path / "elsewhere", create=True) as elsewhere:
        m.memfs("setup", "git")
        m.memfs("remote", "set", host.url("memory/{agentId}.git"), "--token-stdin",
                input=TOKEN.encode())
        m.turn(keeps("Likes tea.", then=agents_push(m)))
        (new,) = standin.made
        m.check(new)
        assert m.sync(new)["state"] == "synced"
        path = os.path.join(host.root, "memory", new + ".git")
        assert git_dir(path, "rev-parse", "main") == m.head(new) != GENESIS
        host.say(Answer(307, headers={
            "Location": elsewhere.url("a.git/info/refs?service=git-upload-pack")}))
        m.turn(keeps("Likes coffee."), agent=new)
        m.sync(new, code=3)
        m.check(new)
        check_key_never_shown(host, TOKEN)
        for rq in elsewhere.requests:
            assert not any(s.decode() in text for s in SECRETS for text in rq.headers.values())
    assert standin.refused == []


def test_S3_a_subagents_fetch_from_a_foreign_host_shows_no_key(machine_of, standin, agent,
                                                               tmp_path):
    """The parent is brought up to date before the merge; newer clients do that by themselves."""
    m = machine_of("0.32.18")
    with FakeRemote(tmp_path / "host", token=TOKEN) as host:
        path = host.repository("mine.git")
        m.memfs("remote", "set", "--agent", agent, host.url("mine.git"), "--token-stdin",
                input=TOKEN.encode())
        m.sync(agent)
        reflect(m, standin, agent, keeps("Reflected.", "system/notes.md"))
        assert git_dir(path, "rev-parse", "main") == m.head(agent) != GENESIS
        check_key_never_shown(host, TOKEN)


# -- what the client throws away -------------------------------------------------------------------

def only_rescue(m, agent):
    """One tip is told by status, and by the list of what can be undone."""
    assert m.memfs("status", "--agent", agent)["agents"][0]["n_rescued"] == 1
    (row,) = m.memfs("undo", "--agent", agent, "--list")["can_undo"]
    return row


def check_brought_back(m, agent, lost):
    m.memfs("undo", "--agent", agent)
    m.git(agent, "merge-base", "--is-ancestor", lost, "HEAD")
    assert m.memfs("status", "--agent", agent)["agents"][0]["n_rescued"] == 0
    m.check(agent)


def put_another_root(m, path, folder):
    """A history that has nothing in common with any memory of memfs."""
    c = Git(folder / "stranger").init(folder / "stranger" / "c")
    c.write("system/other.md", "---\ndescription: Else\n---\nAnother root.\n")
    c.commit("another root")
    c.run("push", "-q", path, "main")


@pytest.mark.parametrize("version", ["0.25.9", "0.32.18"])
def test_a_reset_to_an_unrelated_remote_is_told_and_undone(machine_of, standin, server_of, agent,
                                                           tmp_path, version):
    m = machine_of(version)
    m.apply(agent)
    m.turn(keeps("Likes tea."), agent=agent)
    lost = m.head(agent)
    server = server_of("empty")
    put_another_root(m, server.path, tmp_path)
    m.turn(agent=agent)
    assert m.subjects(agent) == ["another root"], "the client did not reset: prove it otherwise"
    assert m.git(agent, "for-each-ref", "--format=%(objectname)", "refs/letta-backup") == lost
    row = only_rescue(m, agent)
    assert row["id"] == lost and row["branch"] == "main"
    check_brought_back(m, agent, lost)
    assert m.sync(agent)["state"] == "synced" and server.tip(agent) == m.head(agent)
    assert "Likes tea." in server.text(agent, "system/human.md")
    assert "Another root." in server.text(agent, "system/other.md")
    # the client's own ref stays, and is no longer told
    assert m.git(agent, "for-each-ref", "refs/letta-backup") != ""
    assert m.memfs("status", "--agent", agent)["agents"][0]["n_rescued"] == 0
    # and the next session resets nothing
    m.turn(agent=agent)
    assert m.head(agent) == server.tip(agent)


def test_a_reset_for_a_missing_upstream_is_told_and_undone(machine_of, standin, server_of, agent):
    """0.30: without branch.main.merge unpushed commits are in the backup ref alone."""
    m = machine_of("0.30.28")
    m.apply(agent)
    m.turn(keeps("Likes tea."), agent=agent)
    lost = m.head(agent)
    server_of("ahead")
    m.git(agent, "config", "--unset-all", "branch.main.merge")
    m.turn(agent=agent)
    assert m.subjects(agent)[0] == "a change" and lost not in m.git(agent, "log", "--format=%H")
    assert only_rescue(m, agent)["id"] == lost
    check_brought_back(m, agent, lost)
    assert "Likes tea." in m.read(agent) and "Likes coffee." in m.read(agent)
    assert m.sync(agent)["state"] == "synced"


def test_an_old_clients_rebase_onto_another_root_loses_nothing(machine_of, standin, server_of,
                                                               agent, tmp_path):
    m = machine_of("0.19.5")
    m.apply(agent)
    m.turn(keeps("Likes tea."), agent=agent)
    server = server_of("empty")
    put_another_root(m, server.path, tmp_path)
    m.turn(agent=agent)
    report = m.sync(agent)
    assert (report["state"], report["n_rescued"]) == ("synced", 0)
    assert "Likes tea." in server.text(agent, "system/human.md")
    assert "Another root." in server.text(agent, "system/other.md")
    assert server.tip(agent) == m.head(agent)
    assert m.memfs("undo", "--agent", agent, "--list")["can_undo"] == []


def test_what_a_subagent_wrote_and_the_client_discarded_is_told_and_undone(machine_of, standin,
                                                                           agent):
    """In a prepared home without setup git: the fetch before the merge fails with 501."""
    m = machine_of("0.32.18")
    m.apply(agent)
    m.turn(keeps("Likes tea."), agent=agent)
    reflect(m, standin, agent, keeps("Reflected.", "system/notes.md"))
    assert not os.path.exists(os.path.join(m.memory(agent), "system", "notes.md")), \
        "the client did not discard: prove it otherwise"
    row = only_rescue(m, agent)
    assert row["branch"].startswith("letta/reflection/") and "Reflected." in row["subject"]
    check_brought_back(m, agent, row["id"])
    assert m.read(agent, "system/notes.md").endswith("Reflected.\n")
    assert m.read(agent).endswith("Likes tea.\n")


# -- exec ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["0.19.5", "0.32.18"])
def test_exec_prepares_runs_the_client_and_syncs(machine_of, standin, memfs, agent, version):
    m = machine_of(version)
    recipe = [m.memfs_bin, "exec", "--agent", agent, "--"]
    said = m.turn(keeps("Likes tea."), agent=agent, prefix=recipe)     # 501
    assert "memfs:" in said and "local-only" in said
    m.check(agent)
    assert m.subjects(agent) == ["chore: keep Likes tea.", "memfs: genesis"]
    standin.serve(memfs.url)
    m.turn(keeps("Lives in Turin.", "system/place.md"), agent=agent, prefix=recipe)
    assert memfs.tip(agent) == m.head(agent)
    assert memfs.value(agent, "system/human").strip() == "Likes tea."
    assert memfs.value(agent, "system/place").strip() == "Lives in Turin."
    # the exit status is the client's own
    done = m.run(*recipe, "letta", "-p", "hi", "--agent", "agent-" + str(uuid.uuid4()), code=1)
    assert b"not found" in done.stdout + done.stderr
