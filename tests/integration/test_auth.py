"""Being reachable: tokens, who may what, and what a refusal gives away (S1 to S5, T03, T04).

The matrix over the route table is in lib/authmatrix.py; TLS has test_tls.py.
"""
import base64
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import threading
import uuid
from http.client import HTTPConnection

import pytest

from lib import http, wire
from lib.authmatrix import BASIC, Client, Matrix, World, basic, bearer, owner_post
from lib.patience import wait
from lib.server import new_agent
from lib.summary import count


@pytest.fixture(scope="module")
def world(shared_server):
    return World(shared_server())


def answer_of(world, method, target, who, **kw):
    headers = {**world.headers(who), **kw.pop("headers", {})}
    return http.request(world.server.port, method, target, headers=headers, **kw)


# -- the matrix ------------------------------------------------------------------------------------

def test_S1_S2_every_route_with_every_token_and_every_id(world):
    before = [world.server.state_of_repository(a) for a in (world.own, world.other)]
    m = Matrix(world).ask()
    assert not m.faults, f"{len(m.faults)} of {m.n}:\n" + "\n".join(m.faults[:40])
    assert [world.server.state_of_repository(a) for a in (world.own, world.other)] == before
    assert not os.path.exists(world.server.repository(world.third))
    count("auth", matrix_requests=m.n)


def test_S1_sabotaged_the_matrix_fails(memfs_bin, folder, servers):
    """The same program without the comparison of agents, and without links (MEMFS_SABOTAGE_AUTH): were the
    matrix content with one of the two, it would prove nothing."""
    built = pathlib.Path(memfs_bin).parent
    program = built / "tests" / "memfs-server-open"
    assert program.exists(), "the build has no tests/memfs-server-open (meson -Dtests=true)"
    program = shutil.copy(program, folder)      # it looks for the module beside itself
    shutil.copy(built / "memfs-postgresql.so", folder)
    server = servers(start=False)
    door, server.binary = server.binary, str(program)
    server.start()
    server.binary = door
    m = Matrix(World(server)).ask(only=("core-memory", "/v1/git/{agent}/state.git/", "/v1/repositories/"))
    foreign = [f for f in m.faults if "not 404" in f]
    assert len(foreign) > 20, m.faults[:20]
    assert any("core-memory" in f for f in foreign) and any("info/refs" in f for f in foreign)
    of_repositories = [f for f in m.faults if " /v1/repositories/repo-" in f]
    assert any(" as repo-rw: " in f and "not 404" in f for f in of_repositories), "a repository's token opens others"
    assert any(" as rw: " in f and "not 404" in f for f in of_repositories), "no link is needed"
    assert any(" as rw: " in f and "not 403" in f for f in of_repositories), "a link for reading writes"
    count("auth", sabotaged_matrix_faults=len(m.faults))


def test_S1_lists_show_an_agents_token_its_own_part(world):
    """Also nothing of others by way of filters, cursors, counts and tags."""
    for who, agents, blocks in (("admin", 2, 4), ("rw", 1, 2), ("ro", 1, 2), ("new", 0, 0)):
        assert answer_of(world, "GET", "/v1/agents/count", who).json() == agents
        assert answer_of(world, "GET", "/v1/blocks/count", who).json() == blocks
        assert len(answer_of(world, "GET", "/v1/agents/?limit=0", who).json()) == agents
        assert len(answer_of(world, "GET", "/v1/blocks/?limit=0", who).json()) == blocks


def test_S1_an_agents_token_is_told_the_tags_of_its_agent_and_of_its_blocks(world):
    own, other = ["own-agent-tag", "own-block-tag"], ["other-agent-tag", "other-block-tag"]
    for who, tags in (("admin", ["git-memory-enabled", *other, *own]), ("rw", ["git-memory-enabled", *own]),
                      ("ro", ["git-memory-enabled", *own]), ("new", []), ("repo-rw", []), ("repo-ro", [])):
        assert answer_of(world, "GET", "/v1/tags", who).json() == tags, who
        for query in ("?name=OTHER", "?query_text=other", "?after=other-agent-tag&limit=1", "?before=own"):
            found = answer_of(world, "GET", f"/v1/tags{query}", who).json()
            assert set(found) <= set(tags), (who, query)
    assert answer_of(world, "GET", "/v1/tags", "none").status == 401


@pytest.mark.parametrize("target", [
    "/v1/agents/?name={other}", "/v1/agents/?query_text={other}", "/v1/agents/count?name={other}",
    "/v1/agents/?after={other}", "/v1/agents/?before={other}", "/v1/agents/?after={other}&order=asc",
    "/v1/agents/?before={other}&order=asc",
    "/v1/blocks/?after={block}", "/v1/blocks/?before={block}",
    "/v1/blocks/?after={block}&order=desc", "/v1/blocks/?before={block}&order=desc",
    "/v1/blocks/?value_search={other}", "/v1/blocks/{block}", "/v1/blocks/{block}/agents",
    "/v1/blocks/{block}/agents?after={other}", "/v1/agents/{other}?include=agent.blocks",
])
def test_S1_what_is_anothers_is_as_if_it_were_not_there(world, target):
    for who in ("rw", "ro", "new"):
        seen = []
        for agent, block in ((world.other, world.other_block), (world.unknown, world.unknown_block)):
            a = answer_of(world, "GET", target.format(other=agent, block=block), who)
            text = a.body.replace(agent.encode(), b"AGENT").replace(block.encode(), b"BLOCK")
            seen.append((a.status, text, {k: v for k, v in a.headers.items()
                                          if k not in ("date", "x-request-id")}))
        assert seen[0] == seen[1], who
        count("auth", twins=1)


def test_S1_the_tag_of_a_list_does_not_tell_that_others_write(world):
    """The tag of an admin's list changes with every push; an agent's token must not learn of it."""
    def tags():
        return [answer_of(world, "GET", t, "rw").headers["etag"]
                for t in ("/v1/blocks", "/v1/agents", "/v1/tags")]

    before, whole = tags(), answer_of(world, "GET", "/v1/blocks", "admin").headers["etag"]
    push_as(world, world.other, "admin", {"news.md": "secret\n"})
    try:
        assert answer_of(world, "GET", "/v1/blocks", "admin").headers["etag"] != whole
        assert tags() == before
        again = answer_of(world, "GET", "/v1/blocks", "rw", headers={"If-None-Match": before[0]})
        assert again.status == 304
    finally:
        push_as(world, world.other, "admin", {"news.md": None})


def push_as(world, agent, who, changes):
    """One commit on top of what is there -> the report."""
    tip, commit, pack = packed(world.server, agent, changes)
    return world.server.push_raw(agent, [(tip, commit, wire.MAIN)], pack,
                                 headers=world.headers(who))


def main_of(server, agent):
    return server.git_dir(agent, "rev-parse", "main").stdout.decode().strip()


def packed(server, agent, changes):
    """One commit on top of what is there -> the tip, its id, its pack."""
    tip = main_of(server, agent)
    files = {}
    for line in server.git_dir(agent, "ls-tree", "-r", tip).stdout.decode().splitlines():
        meta, path = line.split("\t")
        files[path] = meta.split()[2]
    objects = wire.Objects()
    for path, data in changes.items():
        files.pop(path, None)
        if data is not None:
            files[path] = objects.blob(data)
    known = {v for v in files.values()}
    commit = objects.commit(objects.tree_of(files), [tip])
    pack = objects.pack([i for i in objects.by_id if i in known or objects.by_id[i][0] != "blob"])
    return tip, commit, pack


# -- a token's life --------------------------------------------------------------------------------

def test_the_first_token_turns_authentication_on_at_once(server, agent):
    assert server.get("/v1/agents/").status == 200      # the canary opens, as anything does
    made = server.token("admin", "--name", "Ann's laptop", "--expires", "90d")
    assert made["is_first"] and made["scope"] == "admin" and made["expires_at"]
    assert re.fullmatch(r"memfs_[0-9A-Za-z]{43}", made["token"])
    assert server.get("/v1/agents/").status == 401
    assert server.get("/healthz").status == 200
    for headers in (bearer(made["token"]), basic(made["token"]), basic(made["token"], "")):
        assert server.get("/v1/agents/", headers).status == 200
    second = server.token(f"agent:{agent()}:ro")
    assert not second["is_first"]
    server.cli("token", "revoke", made["id"])
    assert server.get("/v1/agents/", bearer(made["token"])).status == 401
    server.cli("token", "revoke", second["id"])
    assert server.get("/v1/agents/").status == 401, "revoking the last token opened the server"
    server.restart()
    assert server.get("/v1/agents/").status == 401


def test_a_revoked_token_ends_on_the_connection_that_uses_it(server):
    made, client = server.token(), Client(server)
    assert client.ask("GET", "/v1/agents/", bearer(made["token"]))[0] == 200
    server.cli("token", "revoke", made["id"])
    assert client.ask("GET", "/v1/agents/", bearer(made["token"]))[0] == 401


def test_tokens_survive_a_restart_and_a_crash(server):
    made = server.token()
    server.kill()
    server.start()
    assert server.get("/v1/agents/", bearer(made["token"])).status == 200
    assert server.get("/v1/agents/").status == 401


def test_S4_a_token_is_stored_as_its_hash_only(server, folder):
    """check_clean greps home and log for it; here the backup, and that the hash is what is there."""
    import hashlib
    made = server.token()
    server.get("/v1/agents/", bearer(made["token"]))
    server.get("/v1/agents/", basic(made["token"]))
    server.cli("backup", folder / "backup")
    found = subprocess.run(["grep", "-rlaF", made["token"], folder], capture_output=True)
    assert found.stdout == b""
    digest = hashlib.sha256(made["token"].encode()).digest()
    assert server.state_holds(digest)
    assert not server.state_holds(made["token"].encode())


@pytest.mark.sqlite
def test_S4_the_tokens_file_is_its_owners_alone(server):
    server.token()
    assert os.stat(os.path.join(server.home, "state.db")).st_mode & 0o077 == 0


def test_the_command_prints_the_token_alone_on_stdout(server):
    done = server.cli("token", "create", "--name", "x")
    token = done.stdout.decode().strip()
    server.secrets.append(token.encode())
    assert re.fullmatch(r"memfs_[0-9A-Za-z]{43}", token)
    assert token.encode() not in done.stderr and b"only this once" in done.stderr
    listed = server.cli("token", "list")
    rows = json.loads(server.cli("token", "list", "--json").stdout)
    assert token.encode() not in listed.stdout and len(rows) == 1
    assert set(rows[0]) == {"id", "name", "scope", "created_at", "expires_at", "revoked_at", "state"}
    assert rows[0]["state"] == "good" and rows[0]["name"] == "x"
    server.cli("token", "revoke", rows[0]["id"], "--json")
    assert json.loads(server.cli("token", "list", "--json").stdout)[0]["state"] == "revoked"


@pytest.mark.parametrize("args, code, words", [
    (["create", "--scope", "root"], 2, b"is not a scope"),
    (["create", "--scope", "agent:x:rw"], 2, b"is not a scope"),
    (["create", "--scope", f"repo:{uuid.UUID(int=0)}:rw"], 2, b"is not a scope"),
    (["create", "--expires", "soon"], 2, b"--expires needs"),
    (["create", "--expires", "0d"], 2, b"--expires needs"),
    (["create", "--name", "x" * 101], 2, b"at most 100 bytes"),
    (["create", "--name", "a\nb"], 2, b"no control bytes"),
    (["revoke", "00000000"], 1, b"no token '00000000'"),
    (["revoke"], 2, b"expected create"), ([], 2, b"expected create"), (["delete"], 2, b"expected"),
])
def test_what_the_command_refuses(server, args, code, words):
    done = server.cli("token", *args, check=False)
    assert done.returncode == code and words in done.stderr and done.stdout == b"", done


def test_a_token_can_be_made_before_the_first_start(memfs_bin, servers, folder):
    """Beyond loopback a server needs one to start at all; the refusal names the command."""
    server = servers(start=False)
    server.listen = "0.0.0.0:0"
    refused = subprocess.run([memfs_bin, "serve", "--home", server.home, "--listen", server.listen],
                             capture_output=True, timeout=30, env=server.environment())
    assert refused.returncode == 6
    assert b"memfs token create --scope admin" in refused.stderr
    made = server.token()
    server.start()
    assert server.get("/v1/agents/").status == 401
    assert server.get("/v1/agents/", bearer(made["token"])).status == 200
    assert "event=clear_text" in server.log()
    server.args = ["--behind-proxy"]
    server.stop()
    mark = len(server.log())
    server.start()
    assert "event=clear_text" not in server.log()[mark:]


def test_owner_routes_do_not_exist_over_tcp_whatever_the_token(world):
    for target in ("/owner/token/list", "/owner/token/create", "/owner/token/revoke"):
        for who in ("none", "admin", "rw"):
            a = answer_of(world, "POST", target, who, body=b"{}")
            assert (a.status, a.detail) == (404, "Not Found")


# -- git -------------------------------------------------------------------------------------------

def helper(token):
    """A credential helper as people have them."""
    return ("credential.helper=!f() { test \"$1\" = get && echo username=letta && "
            f"echo password={token}; }}; f")


@pytest.fixture
def plain_git(folder):
    """git without the canary header of the other tests."""
    from lib.gitcli import Git
    return Git(folder / "githome")


def credential_ways(token):
    coded = base64.b64encode(f"letta:{token}".encode()).decode()
    return {"helper": helper(token),
            "letta header": "http.extraHeader=Authorization: Basic " + coded,
            "bearer header": "http.extraHeader=Authorization: Bearer " + token}


@pytest.mark.parametrize("way", ["helper", "letta header", "bearer header"])
def test_real_git_with_a_token(server, plain_git, folder, agent, way):
    a = agent()
    made = server.token(f"agent:{a}:rw")
    config = [credential_ways(made["token"])[way]]
    c = plain_git.clone(server.git_url(a), folder / "one", config=config)
    c.write("system/human.md", "hello\n")
    c.commit()
    c.push(config=config)
    big = {f"big/{i}.bin": os.urandom(1 << 20) for i in range(3)}   # chunked: git probes first
    c.save(big, config=config)
    again = plain_git.clone(server.git_url(a), folder / "two", config=config)
    assert again.head == c.head and again.read("big/2.bin") == big["big/2.bin"]
    again.run("-c", config[0], "pull", "-q", "--ff-only", "origin", "main")
    reflog = pathlib.Path(server.repository(a), "logs/refs/heads/main").read_text()
    assert f"token {made['id']} <{a}@letta.com>" in reflog
    if way == "helper":     # git asks without, is told how, asks the helper
        assert "status=401" in server.log()
    assert f"token={made['id']}" in server.log()
    count("auth", git_ways=1)


def test_real_git_without_a_token_or_for_another_agent(server, plain_git, folder, agent):
    a, b = agent(), agent()
    rw, ro = server.token(f"agent:{a}:rw"), server.token(f"agent:{a}:ro")
    c = plain_git.clone(server.git_url(a), folder / "a", config=[helper(rw["token"])])
    c.write("x.md", "x\n")
    c.commit()
    c.push(config=[helper(rw["token"])])

    none = plain_git.run("clone", server.git_url(a), folder / "n", check=False)
    assert none.returncode == 128 and b"could not read Username" in none.stderr
    wrong = plain_git.run("-c", helper("memfs_wrong"), "clone", server.git_url(a), folder / "w",
                          check=False)
    assert wrong.returncode == 128 and b"Authentication failed" in wrong.stderr
    for url in (server.git_url(b), server.git_url(agent())):
        foreign = plain_git.run("-c", helper(rw["token"]), "clone", url, folder / "f", check=False)
        assert foreign.returncode == 128 and b"not found" in foreign.stderr

    read = plain_git.clone(server.git_url(a), folder / "ro", config=[helper(ro["token"])])
    assert read.read("x.md") == b"x\n"
    read.write("y.md", "y\n")
    read.commit()
    pushed = read.push(config=[helper(ro["token"])], check=False)
    assert pushed.returncode != 0 and b"403" in pushed.stderr
    assert server.git_dir(a, "rev-parse", "main").stdout.decode().strip() == c.head


# -- what is read_only -----------------------------------------------------------------------------

LOCKED = "---\ndescription: who you are\nread_only: true\n---\nKind.\n"
CRUEL = LOCKED.replace("Kind", "Cruel")


def push_over_the_socket(server, agent, changes):
    tip, commit, pack = packed(server, agent, changes)
    connection = HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(server.home + "/socket")
    connection.request("POST", f"/v1/git/{agent}/state.git/git-receive-pack",
                       body=wire.push_body([(tip, commit, wire.MAIN)], pack),
                       headers={"Content-Type": "application/x-git-receive-pack-request"})
    answer = connection.getresponse()
    report = wire.Report(answer.status, answer.read())
    connection.close()
    return report


def test_read_only_files_are_not_an_agents_to_change(server, plain_git, folder, agent):
    """Refused with what to do, which does; a person may, by an admin's token or at the socket."""
    a = agent()
    rw, admin = server.token(f"agent:{a}:rw"), server.token("admin")
    rw, admin = [helper(rw["token"])], [helper(admin["token"])]
    c = plain_git.clone(server.git_url(a), folder / "one", config=rw)
    tip = c.save({"system/persona.md": LOCKED, "system/human.md": "tea\n"}, config=rw)
    c.write("system/persona.md", CRUEL)
    c.write("system/human.md", "coffee\n")
    c.commit()
    refused = c.push(config=rw, check=False)
    said = refused.stderr.decode()
    assert refused.returncode == 1 and main_of(server, a) == tip
    assert "remote: 'system/persona.md' is read_only and was changed" in said
    hint = re.search(r"! \[remote rejected\] main -> main \('system/persona.md' is read_only: put it "
                     r"back with 'git (checkout \w{10} -- )FILE', commit, and push again", said)
    assert hint, said

    c.run(*hint.group(1).split(), "system/persona.md")
    c.commit()
    c.push(config=rw)
    tip = c.head
    assert main_of(server, a) == tip and server.git_dir(
        a, "show", "main:system/persona.md").stdout.decode() == LOCKED

    c.run("rm", "-q", "system/persona.md")
    c.commit()
    assert b"was deleted" in c.push(config=rw, check=False).stderr and main_of(server, a) == tip
    assert b"read_only" not in c.push(config=admin).stderr
    assert main_of(server, a) == c.head
    for text in (LOCKED, CRUEL):
        report = push_over_the_socket(server, a, {"system/persona.md": text})
        assert report.acked and "read_only" not in report.talk, report


def test_read_only_files_are_warned_of_where_there_are_no_tokens(server, plain_git, folder, agent):
    c = plain_git.clone(server.git_url(agent()), folder / "one")
    c.save({"system/persona.md": LOCKED})
    c.write("system/persona.md", CRUEL)
    c.commit()
    said = c.push().stderr.decode()
    assert ("remote: warning: 'system/persona.md' is read_only and was changed; an agent's token "
            "may not do that") in said


def test_S1_a_token_that_may_read_cannot_push_by_hand(world):
    tip = world.server.git_dir(world.own, "rev-parse", "main").stdout
    for agent, who, status in ((world.own, "ro", 403), (world.other, "rw", 404),
                               (world.own, "none", 401), (world.own, "revoked", 401),
                               (world.own, "expired", 401)):
        report = push_as(world, agent, who, {"system/evil.md": "evil\n"})
        assert report.status == status, (who, report)
    assert world.server.git_dir(world.own, "rev-parse", "main").stdout == tip
    assert push_as(world, world.own, "rw", {"system/good.md": "good\n"}).acked
    assert push_as(world, world.own, "rw", {"system/good.md": None}).acked


def test_a_refused_push_is_not_told_to_send_its_body(world):
    with http.connect(world.server.port) as sock:
        sock.sendall((f"POST /v1/git/{world.own}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                      "Content-Type: application/x-git-receive-pack-request\r\n"
                      "Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n").encode())
        out = http.read_all(sock)
    assert out.startswith(b"HTTP/1.1 401 ") and b"100 Continue" not in out


# -- attacks ---------------------------------------------------------------------------------------

FORGED = {
    "X-Forwarded-For": "127.0.0.1", "X-Forwarded-User": "admin", "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1", "X-Organization-Id": "org-1", "X-BARE-PASSWORD": "password admin",
    "user_id": "user-00000000-0000-4000-8000-000000000000", "X-Api-Key": "memfs_admin",
    "Cookie": "token=admin", "X-HTTP-Method-Override": "GET", "X-Original-URL": "/healthz",
    "Proxy-Authorization": "Bearer admin", "Host": "localhost",
}


def test_T03_forged_headers_change_nothing(world):
    targets = [f"/v1/agents/{world.other}", "/v1/agents/", f"/v1/git/{world.other}/state.git/info/refs"
               "?service=git-upload-pack", f"/v1/blocks/{world.other_block}"]
    for who in ("none", "bad", "rw"):
        for target in targets:
            plain = answer_of(world, "GET", target, who)
            for name, value in FORGED.items():
                forged = answer_of(world, "GET", target, who, headers={name: value})
                assert (forged.status, forged.body) == (plain.status, plain.body), (who, name)
                count("auth", forged=1)


def test_T02_two_credentials_are_refused(world):
    good = world.made["admin"]["token"]
    for pair in (f"Authorization: Bearer {good}\r\nAuthorization: Bearer x\r\n",
                 f"Authorization: Bearer x\r\nAuthorization: Bearer {good}\r\n"):
        status, out, closed = http.raw(world.server.port, (
            f"GET /v1/agents/ HTTP/1.1\r\nHost: x\r\n{pair}\r\n").encode())
        assert status == 400 and closed


# A page in the browser of somebody who runs memfs without a token: it says so itself, or it came by a
# name that its owner lets point to 127.0.0.1 for a moment.
STRANGE = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost.evil.example"},
           {"Origin": "http://192.0.2.7"}, {"Origin": "http://127.0.0.1.evil.example:8285"}, {"Origin": ""},
           {"Host": "evil.example"}, {"Host": "evil.example:8285"}, {"Host": "127.0.0.1.evil.example"},
           {"Host": "LOCALHOST.evil.example"}]
OWN = [{}, {"Origin": "http://localhost:3000"}, {"Origin": "http://127.0.0.1"}, {"Origin": "http://[::1]:8285"},
       {"Host": "localhost"}, {"Host": "localhost:8285"}, {"Host": "memfs.localhost"}, {"Host": "[::1]:8285"},
       {"Host": "192.0.2.7:8285"}, {"Host": "memfs"}, {"Host": "host.docker.internal:8285"}, {"Host": "box.local"}]


def test_T32_without_tokens_a_web_page_neither_reads_nor_writes(server):
    agent, body = new_agent(), json.dumps({"name": "planted"})
    server.cli("agents", "create", agent)
    files = f"/v1/agents/{agent}/memory/commit"
    change = json.dumps({"changes": [{"path": "a.md", "content": "planted"}]})
    for page in STRANGE:
        plain = {"Content-Type": "text/plain", **page}       # what a page may send without asking first
        for method, target, data in (("GET", "/v1/agents", None), ("POST", "/v1/agents", body), ("POST", files, change),
                                     ("GET", f"/v1/git/{agent}/state.git/info/refs?service=git-upload-pack", None)):
            refused = server.request(method, target, data, plain)
            assert refused.status == 403 and "As long as there is no token" in refused.json()["detail"], (page, refused)
        assert server.request("GET", "/v1/health", None, page).status == 200, "it says nothing of anybody"
    assert server.request("GET", "/v1/agents/count").json() == 1 and server.tip(agent) == wire.GENESIS
    for own in OWN:
        assert server.request("GET", "/v1/agents/count", None, own).status == 200, own


def test_T32_with_tokens_it_is_the_token_that_counts(server):
    token = server.token()["token"]
    for page in STRANGE[:1] + STRANGE[6:7]:
        assert server.request("GET", "/v1/agents", None, page).status == 401
        assert server.request("GET", "/v1/agents", None, {"Authorization": f"Bearer {token}", **page}).status == 200


def test_T04_ten_thousand_failures(server, scale):
    """Of clients that are set up wrongly: uniform bytes, no lock-out of who comes from the same address, a log that
    stays short, and nobody waits, as they send the same few tokens again and again."""
    made = server.token()
    n, seen, client = scale(10000, 100000), set(), Client(server)
    lines_before = server.log().count("event=auth_failed")
    with http.connect(server.port) as sock:
        reader = sock.makefile("rb")
        for first in range(0, n, 100):
            sock.sendall(b"".join(
                b"GET /v1/agents/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer memfs_%043d\r\n\r\n"
                % (i % 15) for i in range(first, first + 100)))
            for _ in range(100):
                seen.add(read_one(reader))
            if first % 1000 == 0:
                assert client.ask("GET", "/v1/agents/", bearer(made["token"]))[0] == 200
    assert len(seen) == 1 and next(iter(seen))[0] == b"HTTP/1.1 401 Unauthorized", seen
    told = server.log().count("event=auth_failed") - lines_before
    assert 1 <= told <= 10, told
    assert "source=127.0.0.1" in server.log()
    count("auth", failures=n)


class Guesser:
    """A connection that asks with a token that nobody sent before."""
    n = 0

    def __init__(self, server, target="/v1/agents/"):
        Guesser.n += 1
        self.token = "memfs_%043d" % (10 ** 9 + Guesser.n)
        self.sock = http.connect(server.port)
        self.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode())

    def is_waiting(self):
        return not select.select([self.sock], [], [], 0)[0]

    def answer(self):
        with self.sock:
            return http.read_response(self.sock)


def test_T04_who_guesses_waits_and_a_good_token_does_not(server, agent):
    good, refs = bearer(server.token()["token"]), f"/v1/git/{agent()}/info/refs?service=git-upload-pack"
    free = [Guesser(server).answer() for _ in range(20)]
    assert {a.status for a in free} == {401}
    late = Guesser(server)
    answer = late.answer()
    assert (answer.status, answer.headers["retry-after"]) == (429, "1"), answer
    assert answer.json() == {"detail": "Too many tokens that are no good came from this address"}
    assert "www-authenticate" not in answer.headers
    again = server.get("/v1/agents/", bearer(late.token))
    assert (again.status, again.body) == (401, free[0].body), "the same token again is no guess"
    for _ in range(60):
        Guesser(server).sock.close()        # from here on each of them waits as long as there is

    def is_served_meanwhile():
        guessers = Guesser(server), Guesser(server, refs)
        assert server.get("/v1/agents/", good).status == 200
        assert http.request(server.port, "GET", "/v1/agents/").status == 401    # git asks so first: no guess
        return guessers if all(g.is_waiting() for g in guessers) else None

    rest, git = wait(is_served_meanwhile, "a good token is served while a guess waits")
    stopping = threading.Thread(target=server.stop)     # nobody waits longer than the server runs
    stopping.start()
    answer = git.answer()
    assert answer.status == 401 and answer.headers["www-authenticate"] == BASIC, "git gives up on a 429"
    assert rest.answer().status == 429
    stopping.join()


def read_one(reader):
    """One answer without what differs from request to request."""
    line, headers, length = reader.readline().strip(), [], 0
    while (header := reader.readline().strip()):
        name, _, value = header.partition(b": ")
        if name.lower() == b"content-length":
            length = int(value)
        if name.lower() not in (b"date", b"x-request-id"):
            headers.append(header)
    return line, tuple(headers), reader.read(length)


def test_T04_bearers_of_all_shapes(world):
    """What is no token is answered as what is none, and nothing else happens."""
    shapes = ["", " ", "Basic", "Bearer", "Basic !!", "Basic " + "A" * 8000, "Bearer " + "x" * 9000,
              "Digest username=x", "Basic " + base64.b64encode(b"\0\0:\0").decode(), "bearer",
              "Basic " + base64.b64encode(b"letta:").decode(), "Bearer ' OR 1=1 --"]
    none = answer_of(world, "GET", "/v1/agents/", "none")
    for shape in shapes:
        a = http.request(world.server.port, "GET", "/v1/agents/", headers={"Authorization": shape})
        assert (a.status, a.body) == (none.status, none.body), shape


def test_S3_a_token_in_a_target_is_nobodys(world):
    """Tokens in URLs end in logs: one there opens nothing, and the log has no query."""
    token = world.made["admin"]["token"]
    for target in (f"/v1/agents/?token={token}", f"/v1/agents/?access_token={token}"):
        assert http.request(world.server.port, "GET", target).status == 401
    assert token not in world.server.log()


def test_the_socket_needs_no_token(server, agent):
    server.token()
    lines = owner_post(server, "/owner/token/list", {})
    assert lines[-1] == {"result": {"tokens": 1}}
    assert server.cli("agents", "list").returncode == 0
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.home + "/socket")
    connection.sendall(b"GET /v1/agents/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert http.read_all(connection).startswith(b"HTTP/1.1 200 ")
    connection.close()
