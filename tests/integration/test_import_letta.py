"""`memfs import --letta` and `--letta-url`: the agents of a Letta server become repositories here.

Over a real PostgreSQL with Letta's tables (tests/unit/letta_schema.sql), and over a stand-in that
answers the few requests that are made of the server as the contract has them.
"""
import http.server
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.parse
import uuid

import pytest

from lib import postgres
from lib.gitcli import Git
from lib.postgres import Postgres
from lib.server import Server

ORG = "org-00000000-0000-4000-8000-000000000000"
SCHEMA = pathlib.Path(__file__).resolve().parents[1] / "unit" / "letta_schema.sql"
TABLES = ("organizations", "users", "agents", "agents_tags", "block", "block_history",
          "blocks_agents", "blocks_tags", "alembic_version")


def quoted(text):
    return "NULL" if text is None else "'" + str(text).replace("'", "''") + "'"


class Letta:
    """Letta's tables, written as its own writers do."""

    def __init__(self, pg, name="letta"):
        self.pg, self.url = pg, pg.database(name)
        self.run(SCHEMA.read_text(encoding="utf-8"))

    def run(self, text):
        done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-f", "-"],
                              input=text, capture_output=True, text=True, timeout=300,
                              env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr

    def organization(self):
        org = f"org-{uuid.uuid4()}"
        self.run(f"INSERT INTO organizations(id, name, privileged_tools) VALUES('{org}', 'x', false)")
        return org

    def agent(self, name, tags=(), org=ORG, hidden=None):
        agent = f"agent-{uuid.uuid4()}"
        self.run(f"INSERT INTO agents(id, organization_id, name, message_buffer_autoclear, hidden) "
                 f"VALUES('{agent}', '{org}', {quoted(name)}, false, {hidden or 'NULL'});"
                 + "".join(f"INSERT INTO agents_tags VALUES('{agent}', {quoted(t)});" for t in tags))
        return agent

    def block(self, agents, label, value, tags=(), org=ORG, **fields):
        block = f"block-{uuid.uuid4()}"
        row = {"description": None, "limit": 100000, "read_only": False, "hidden": None,
               "metadata_": "{}", **fields}
        names = ", ".join(f'"{name}"' for name in row)
        values = ", ".join(str(v) if isinstance(v, (bool, int)) else quoted(v)
                           for v in row.values())
        self.run(f"INSERT INTO block(id, label, value, is_template, organization_id, {names}) "
                 f"VALUES('{block}', {quoted(label)}, {quoted(value)}, false, '{org}', {values});"
                 + "".join(f"INSERT INTO blocks_agents VALUES('{a}', '{block}', {quoted(label)});"
                           for a in agents)
                 + "".join(f"INSERT INTO blocks_tags(block_id, tag, organization_id) "
                           f"VALUES('{block}', {quoted(t)}, '{org}');" for t in tags))
        return block

    def change(self, block, value):
        self.run(f"UPDATE block SET value = {quoted(value)}, version = version + 1, "
                 f"updated_at = now() WHERE id = '{block}'")

    def dump(self):
        """All of it, and which transaction wrote each row: a row that was written anew shows."""
        rows = [postgres.sql(self.url, f"SELECT xmin, ctid, t::text FROM {table} t "
                                       "ORDER BY t::text") for table in TABLES]
        done = subprocess.run(["pg_dump", "-d", self.url], capture_output=True, timeout=120,
                              env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr
        return rows, re.sub(rb"\n\\(un)?restrict .*", b"", done.stdout)

    # -- the same, as the wire has it ----------------------------------------------------------------

    def wire_agents(self):
        rows = postgres.sql(self.url, "SELECT json_build_object('id', id, 'name', name, 'tags', "
                            "(SELECT coalesce(json_agg(tag), '[]') FROM agents_tags t WHERE "
                            "t.agent_id = a.id), 'hidden', hidden, 'created_at', to_char(created_at "
                            "AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')) FROM agents a "
                            "ORDER BY created_at, id")
        return [json.loads(row[0]) for row in rows]

    def wire_blocks(self, where):
        # aligned output would end a row at each newline of a value: json has none
        rows = postgres.sql(self.url, "SELECT json_build_object('id', id, 'label', label, 'value', "
                            "value, 'limit', \"limit\", 'description', description, 'read_only', "
                            "read_only, 'hidden', hidden, 'metadata', metadata_, 'tags', (SELECT "
                            "coalesce(json_agg(tag), '[]') FROM blocks_tags t WHERE t.block_id = "
                            f"b.id)) FROM block b WHERE {where} ORDER BY id")
        return [json.loads(row[0]) for row in rows]


class Wire(http.server.ThreadingHTTPServer):
    """The part of a Letta server that an import asks for; `page` objects at most at once."""
    daemon_threads = True

    def __init__(self, letta, page=2, password=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.letta, self.page, self.password = letta, page, password
        self.asked, self.status = [], None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, what, kind="application/json"):
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pages(self, rows, query, show):
        assert query["order"] == "asc" and int(query["limit"]) >= self.server.page
        rows = [row for row in rows if query.get(show) == "true" or not row["hidden"]]
        ids = [row["id"] for row in rows]
        at = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        self.answer(200, rows[at:at + self.server.page])

    def do_GET(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        letta, parts = self.server.letta, path.strip("/").split("/")
        self.server.asked.append(self.path)
        if self.server.status:
            return self.answer(self.server.status, b"<html>", "text/html")
        if self.server.password and \
                self.headers.get("Authorization") != "Bearer " + self.server.password:
            return self.answer(401, {"detail": "Unauthorized"})
        agents = letta.wire_agents()
        if path == "/v1/agents/count":
            return self.answer(200, len(agents))
        if path.startswith("/v1/agents/") and query.get("include") != "agent.tags":
            agents = [{**a, "tags": []} for a in agents]
        if path == "/v1/agents/":
            return self.pages(agents, query, "show_hidden_agents")
        if path == "/v1/blocks/":
            assert query["connected_to_agents_count_gt"] == "1"
            return self.pages(letta.wire_blocks("(SELECT count(*) FROM blocks_agents l WHERE "
                                                "l.block_id = b.id) > 1"), query, "show_hidden_blocks")
        one = [a for a in agents if a["id"] == parts[2]]
        if not one:
            return self.answer(404, {"detail": "Agent not found"})
        if len(parts) == 3:
            return self.answer(200, one[0])
        assert parts[3:] == ["core-memory", "blocks"]
        return self.pages(letta.wire_blocks(f"id IN (SELECT block_id FROM blocks_agents WHERE "
                                            f"agent_id = '{parts[2]}')"),
                          {**query, "show": "true"}, "show")


@pytest.fixture
def pg(folder):
    with Postgres(folder / "pg") as server:
        yield server


@pytest.fixture
def letta(pg):
    return Letta(pg)


def run(server, *args, env=None, timeout=300):
    """(exit status, the JSON object, stderr)"""
    done = server.cli("import", *args, "--json", check=False, env=env, timeout=timeout)
    out = json.loads(done.stdout) if done.stdout.strip() else None
    return done.returncode, out, done.stderr.decode()


def must(server, *args, **kw):
    code, out, said = run(server, *args, **kw)
    assert code == 0, (code, out, said)
    return out


def kinds(out):
    return sorted((f["kind"], f["what"]) for f in out["findings"])


def tree(server, agent):
    return server.git_dir(agent, "rev-parse", "main^{tree}").stdout.decode().strip()


def n_commits(server, agent):
    return int(server.git_dir(agent, "rev-list", "--count", "main").stdout)


def filled(letta):
    """Two agents that share a block, with about everything that a block can have."""
    a, b = letta.agent("Ada", ["team", "a b"]), letta.agent("Bob's", hidden="true")
    letta.block([a], "human", "Likes tea.\n\nAnd \"cake\".", ["x", "a,b"], limit=5000,
                description="about: you", metadata_='{"k": [1, null], "r": 0.1}')
    letta.block([a], "persona", "", read_only=True)
    letta.block([a], "skills/tea", "how to\r\nmake it", description="tea")
    letta.block([b], "system/hidden", "é 日本", hidden=True)
    letta.block([b], "../up", "odd")
    letta.block([a, b], "team", "shared")
    letta.agent("No blocks")
    return a, b


# -- there and back ----------------------------------------------------------------------------------


def test_K4_both_ways_bring_the_same_and_again_nothing(letta, servers):
    a, b = filled(letta)
    before = letta.dump()
    tables = servers(name="tables")                 # a server that runs
    wire = servers(name="wire", start=False)        # a data folder that nobody serves
    with Wire(letta) as upstream:
        ways = ((tables, ("--letta", letta.url)), (wire, ("--letta-url", upstream.url + "/")))
        for server, way in ways:
            out = must(server, *way)
            assert (out["agents"], out["made"], out["blocks"]) == (3, 3, 7), out
            assert kinds(out) == [("renamed", "../up"), ("shared", "team"), ("shared", "team")]
        wire.start()
        for agent in (a, b):
            assert tree(tables, agent) == tree(wire, agent)
        rows = [{agent: {label: {**row, "created_at": None} for label, row in s.blocks(agent).items()}
                 for agent in (a, b)} for s in (tables, wire)]
        assert rows[0] == rows[1]
        human = tables.blocks(a)["human"]
        assert human["value"] == "Likes tea.\n\nAnd \"cake\"." and human["limit"] == 5000
        assert human["description"] == "about: you"
        for server in (tables, wire):
            assert ours_tags(server, a) == {"human": ["a,b", "x"], "persona": [], "skills/tea": [],
                                            "team": []}
        assert human["metadata"] == {"k": [1, None], "r": 0.1}
        assert tables.blocks(a)["team"]["id"] != tables.blocks(b)["team"]["id"]
        found = [row["name"] for row in tables.get("/v1/agents/?order=asc").json()]
        assert found == ["Ada", "Bob's", "No blocks"]
        assert sorted(tables.get(f"/v1/agents/{a}?include=agent.tags").json()["tags"]) == \
            ["a b", "git-memory-enabled", "team"]

        tips = [s.tip(agent) for s in (tables, wire) for agent in (a, b)]
        for server, way in ((tables, ways[1][1]), (wire, ways[0][1]), *ways):   # crosswise, too
            out = must(server, *way)
            assert (out["unchanged"], out["made"], out["changed"]) == (3, 0, 0), out
        assert tips == [s.tip(agent) for s in (tables, wire) for agent in (a, b)]
        assert n_commits(tables, a) == 2
        tables.cli("rebuild")
        assert tables.blocks(a)["human"] == human, "attributes outlive a rebuild"
        assert ours_tags(tables, a)["human"] == ["a,b", "x"]
    assert letta.dump() == before, "something changed in Letta's database"


def test_what_changed_there_follows_and_what_changed_on_both_sides_is_merged(letta, servers, git,
                                                                           folder):
    server, agent = servers(), letta.agent("Ada")
    one = letta.block([agent], "one", "1\n2\n3\n4\n5\n")
    letta.block([agent], "two", "two\n")
    must(server, "--letta", letta.url)
    letta.change(one, "1 there\n2\n3\n4\n5\n")
    out = must(server, "--letta", letta.url)
    assert (out["changed"], n_commits(server, agent)) == (1, 3)
    work = git.clone(server.git_url(agent), folder / "work")
    head = "---\ndescription: null\n---\n"
    assert work.read("one.md").decode() == head + "1 there\n2\n3\n4\n5\n"
    work.save({"one.md": head + "1 there\n2\n3\n4\n5 here\n", "two.md": head + "here\n"})
    assert must(server, "--letta", letta.url)["unchanged"] == 1, "Letta has no news"
    letta.change(one, "1 there again\n2\n3\n4\n5\n")
    out = must(server, "--letta", letta.url)
    assert out["merged"] == 1
    assert server.value(agent, "one") == "1 there again\n2\n3\n4\n5 here\n"
    assert server.value(agent, "two") == "here\n"
    work.pull()     # a client goes on: main only went forward


def test_a_dry_run_shows_what_would_come_and_writes_nothing(letta, servers):
    a, _ = filled(letta)
    server = servers()
    before = letta.dump()
    out = must(server, "--letta", letta.url, "--dry-run")
    assert out["dry_run"] and out["made"] == 3
    assert ("would-write", "human.md") in kinds(out)
    assert server.repositories() == [] and server.get("/v1/agents/").json() == []
    must(server, "--letta", letta.url)
    assert letta.dump() == before
    letta.run("DELETE FROM blocks_agents WHERE block_label = 'persona'")
    out = must(server, "--letta", letta.url, "--dry-run", "--agent", a)
    assert kinds(out) == [("shared", "team"), ("would-remove", "persona.md")]
    assert "persona" in server.blocks(a)


def test_only_the_agents_that_are_named(letta, servers):
    agents = [letta.agent(f"agent {i}") for i in range(3)]
    server = servers(start=False)
    with Wire(letta) as upstream:
        for way in (("--letta", letta.url), ("--letta-url", upstream.url)):
            must(server, *way, "--agent", agents[0], "--agent", agents[2])
            stranger = f"agent-{uuid.uuid4()}"
            code, _, said = run(server, *way, "--agent", stranger)
            assert code == 1 and stranger in said
            assert run(server, *way, "--agent", "agent-1")[0] == 2
    server.start()
    assert sorted(row["id"] for row in server.get("/v1/agents/").json()) == \
        sorted([agents[0], agents[2]])


def test_agents_whose_memory_is_in_git_already_are_left_to_git(letta, servers):
    agent = letta.agent("Ada", ["git-memory-enabled"])
    letta.block([agent], "system/human", "x")
    server = servers()
    with Wire(letta) as upstream:
        for way in (("--letta", letta.url), ("--letta-url", upstream.url)):
            out = must(server, *way)
            assert out["skipped"] == 1 and kinds(out) == [("skipped", "")]
            assert "--with-git" in out["findings"][0]["text"]
    assert server.get("/v1/agents/").json() == []
    assert must(server, "--letta", letta.url, "--with-git")["made"] == 1
    assert server.value(agent, "system/human") == "x"


def test_agents_of_every_organization_come_over(letta, servers):
    org = letta.organization()
    agent = letta.agent("Elsewhere", org=org)
    letta.block([agent], "human", "x", ["t"], org=org)
    server = servers()
    must(server, "--letta", letta.url)
    assert server.value(agent, "human") == "x"


def test_H2_blocks_of_another_organization_are_not_gone(letta, servers):
    """An agent that was moved to another one, and its blocks were not: Letta shows it none of them."""
    agent, other = letta.agent("Ada"), letta.agent("Bob")
    for owner in (agent, other):
        letta.block([owner], "human", "tea")
        letta.block([owner], "persona", "I am")
    server = servers()
    must(server, "--letta", letta.url)
    tip, org = server.tip(agent), letta.organization()
    letta.run(f"UPDATE agents SET organization_id = '{org}' WHERE id = '{agent}'")
    for dry in ((), ("--dry-run",)):
        code, out, said = run(server, "--letta", letta.url, *dry)
        assert code == 1 and (out["failed"], out["unchanged"]) == (1, 1), (out, said)
        assert "2 of its blocks belong to another organization" in out["findings"][0]["text"]
    assert server.tip(agent) == tip and set(server.blocks(agent)) == {"human", "persona"}
    letta.run(f"UPDATE block SET organization_id = '{org}' WHERE id IN (SELECT block_id FROM "
              f"blocks_agents WHERE agent_id = '{agent}')")
    assert must(server, "--letta", letta.url)["unchanged"] == 2


def test_what_tables_mode_keeps_the_same_is_left_to_it(letta, servers):
    agent = letta.agent("Ada")
    block = letta.block([agent], "human", "tea", ["t"], limit=5000)
    letta.block([agent], "../up", "stays there")
    letta.block([agent], "skills/a/b", "there, too")
    before = postgres.sql(letta.url, "SELECT xmin, ctid, b::text FROM block b")
    server = servers(env={"MEMFS_LETTA_DATABASE": letta.url})
    out = must(server, "--letta", "configured", env={"MEMFS_LETTA_DATABASE": letta.url})
    assert out["made"] == 1 and out["left_out"] == 0
    assert {("left-alone", "../up"), ("left-alone", "skills/a/b")} <= set(kinds(out))
    assert server.value(agent, "human") == "tea"
    assert postgres.sql(letta.url, "SELECT xmin, ctid, b::text FROM block b") == before
    out = must(server, "--letta", letta.url)
    assert out["skipped"] == 1 and "--letta-database" in out["findings"][0]["text"]
    letta.change(block, "coffee")
    deadline = time.monotonic() + 120
    while server.value(agent, "human") != "coffee":
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.2)


# -- troubles ----------------------------------------------------------------------------------------


def test_F01_an_import_that_was_killed_is_finished_by_the_next(letta, servers):
    server = servers(watch=False)
    agents = [letta.agent(f"agent {i}") for i in range(12)]
    for agent in agents:
        letta.block([agent], "human", agent)
    for n in (2, 6):        # the owner dies, the command learns of it
        running = subprocess.Popen(
            [server.binary, "import", "--letta", letta.url, "--home", server.home],
            env=server.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while len(server.repositories()) < n:
            assert running.poll() is None, running.stdout.read()
            time.sleep(0.002)
        server.kill()
        assert running.wait(60) != 0
        running.stdout.close()
        server.start()
    out = must(server, "--letta", letta.url)
    assert out["agents"] == 12 and out["failed"] == 0
    for agent in agents:
        assert n_commits(server, agent) == 2, "twice the same"
        assert server.value(agent, "human") == agent
        assert server.get(f"/v1/agents/{agent}").json()["name"].startswith("agent ")


def test_one_agent_that_cannot_be_taken_stops_no_other(letta, servers):
    bad, good = letta.agent("Bad"), letta.agent("Good")
    for agent in (bad, good):
        letta.block([agent], "human", "x")
    letta.run("INSERT INTO agents(id, organization_id, name, message_buffer_autoclear) "
              f"VALUES('agent-odd', '{ORG}', 'Odd', false)")
    letta.block([good], "huge", "x" * (10 * 1024 * 1024))
    server = servers()
    server.damaged.add(bad)
    must(server, "--letta", letta.url, "--agent", bad)
    os.rename(server.repository(bad), server.folder + "/away")
    server.restart()
    code, out, said = run(server, "--letta", letta.url)
    assert code == 1 and out["failed"] == 2 and out["left_out"] == 1, (out, said)
    assert ("left-out", "huge") in kinds(out)
    assert server.value(good, "human") == "x"
    os.rename(server.folder + "/away", server.repository(bad))


def test_what_is_no_letta_database_is_told(letta, pg, servers):
    server = servers()
    pg.database("empty")
    letta.run("ALTER TABLE block DROP COLUMN read_only")
    for url, code, word in (
            (pg.url("empty"), 2, "Letta"), (letta.url, 2, "read_only"),
            (pg.url("absent"), 3, "absent"),
            ("postgresql://memfs@127.0.0.1:1/letta", 3, "127.0.0.1"),
            ("mysql://x/y", 2, "postgresql://")):
        got, _, said = run(server, "--letta", url)
        assert got == code and word in said, (url, got, said)
    assert server.get("/v1/agents/").json() == []


def test_what_is_no_letta_server_is_told(letta, servers, folder):
    server = servers()
    token = folder / "token"
    token.write_text("the-password\n")
    token.chmod(0o600)
    with Wire(letta, password="the-password") as upstream:
        code, _, said = run(server, "--letta-url", upstream.url)
        assert code == 4 and "--token-file" in said
        must(server, "--letta-url", upstream.url, "--token-file", token)
        token.chmod(0o644)
        assert run(server, "--letta-url", upstream.url, "--token-file", token)[0] != 0
        token.chmod(0o600)
        for status, expected in ((404, 2), (301, 2), (500, 3), (503, 3)):
            upstream.status = status
            code, _, said = run(server, "--letta-url", upstream.url, "--token-file", token)
            assert code == expected, (status, code, said)
            assert "the-password" not in said
        gone = upstream.url
    assert run(server, "--letta-url", gone)[0] == 3
    code, _, said = run(server, "--letta-url", gone.replace("//", "//user:hunter2@"))
    assert code == 2 and "hunter2" not in said
    assert run(server, "--letta-url", gone, "--letta", letta.url)[0] == 2
    assert run(server, "--letta", letta.url, "--token-file", token)[0] == 2
    assert "the-password" not in server.log()


PASSWORD = "Canary-hunter2"


def argvs_while(command, env):
    """Runs it; what any process had in its argv meanwhile."""
    seen = set()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        while p.poll() is None:
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as f:
                        seen.add(f.read())
                except OSError:
                    pass
        return p.returncode, p.stdout.read().decode(), b"\0".join(seen)


def test_S3_a_password_is_in_no_argv_log_or_error(pg, letta, servers):
    letta.agent("Ada")
    pg.sql(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    letta.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    with open(os.path.join(pg.data, "pg_hba.conf"), "w", encoding="ascii") as f:
        f.write("local all memfs trust\nlocal all all scram-sha-256\n")
    pg.sql("SELECT pg_reload_conf()")
    server = servers()
    url = letta.url.replace("user=memfs", f"user=reader&password={PASSWORD}")
    command = [server.binary, "import", "--home", server.home, "--letta", "configured"]
    code, said, argv = argvs_while(command, {**server.environment(), "MEMFS_LETTA_DATABASE": url})
    assert code == 0, said      # a role that may only read is enough
    assert PASSWORD.encode() not in argv and PASSWORD not in said
    with open(os.path.join(server.home, "config"), "a", encoding="ascii") as f:
        f.write(f'[memfs]\n\tlettaDatabase = "{url}"\n')
    os.chmod(os.path.join(server.home, "config"), 0o600)
    assert must(server, "--letta", "configured")["unchanged"] == 1
    code, out, said = run(server, "--letta", url)
    assert code == 0 and "could be seen by others" in said and PASSWORD not in said
    wrong = url.replace(PASSWORD, "wrong-" + PASSWORD)
    code, _, said = run(server, "--letta", "configured", env={"MEMFS_LETTA_DATABASE": wrong})
    assert code == 4 and "password authentication failed" in said and PASSWORD not in said
    assert PASSWORD not in server.log()


def test_nothing_is_configured(servers):
    code, _, said = run(servers(), "--letta", "configured")
    assert code == 2 and "MEMFS_LETTA_DATABASE" in said


def test_options_that_belong_to_the_other_kind_of_import(memfs_bin, folder):
    for args in (["--from", str(folder), "--with-git"], ["--token-file", "x"], ["--home", "x"]):
        done = subprocess.run([memfs_bin, "import", *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "--letta" in done.stderr, done


# -- many ---------------------------------------------------------------------------------------------


def test_L1_ten_thousand_agents_are_gone_through_in_bounded_memory(letta, servers):
    letta.run(f"""
        INSERT INTO agents(id, organization_id, name, message_buffer_autoclear)
            SELECT 'agent-' || to_char(n, 'FM00000000') || '-1111-4111-8111-111111111111', '{ORG}',
                   'n' || n, false FROM generate_series(1, 10000) n;
        INSERT INTO block(id, label, value, "limit", read_only, is_template, organization_id)
            SELECT 'block-' || to_char(n, 'FM00000000') || '-1111-4111-8111-111111111111', 'human',
                   repeat('x', 40000), 100000, false, false, '{ORG}'
            FROM generate_series(1, 10000) n;
        INSERT INTO blocks_agents SELECT 'agent' || substr(id, 6), id, label FROM block;
        ANALYZE""")
    server = servers(watch=False)
    must(server, "--letta", letta.url, "--dry-run", "--agent",
         "agent-00000001-1111-4111-8111-111111111111")

    def peak():
        with open(f"/proc/{server.pid}/status", encoding="ascii", errors="replace") as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))

    before = peak()
    out = must(server, "--letta", letta.url, "--dry-run", timeout=900)
    assert out["agents"] == out["made"] == out["blocks"] == 10000
    # 400 MB of values went through
    assert peak() - before < 100 * 1024, f"{before} -> {peak()} KiB"


# -- a real Letta server ------------------------------------------------------------------------------


@pytest.fixture
def real(plain_letta):
    """(the server, two agents made through its API that share a block)"""
    blocks = {"human": {"value": "Likes tea.", "description": "about: you", "limit": 5000,
                        "tags": ["x", "a,b"], "metadata": {"k": [1, None], "r": 0.1}},
              "persona": {"value": "I am Ada.", "read_only": True}}
    agents = [plain_letta.create_agent(blocks, ["team", "a b"], name="Ada"),
              plain_letta.create_agent({"human": "x"}, name="Bob", hidden=True)]
    shared = plain_letta.create_block("team", "all of us", agents[0], tags=["t"])
    plain_letta.ask("PATCH", f"/v1/agents/{agents[1]}/core-memory/blocks/attach/{shared}")
    for n in range(120):    # more than a page
        plain_letta.create_block(f"many/{n}", str(n), agents[1])
    yield plain_letta, agents
    for agent in agents:
        plain_letta.delete_agent(agent)


@pytest.mark.lettaserver
def test_a_real_servers_agents_come_over_alike_both_ways(real, servers):
    letta, (a, b) = real
    named = ("--agent", a, "--agent", b)
    before = [letta.sql(f"SELECT xmin, ctid, t::text FROM {t} t ORDER BY t::text") for t in TABLES]
    tables, wire = servers(name="tables"), servers(name="wire")
    for server, way in ((tables, ("--letta", letta.database)), (wire, ("--letta-url", letta.url))):
        out = must(server, *way, *named)
        assert (out["made"], out["blocks"]) == (2, 125), out
        assert kinds(out) == [("shared", "team"), ("shared", "team")]
        for agent in (a, b):
            theirs, ours = letta.blocks(agent), server.blocks(agent)
            assert {label: row["value"] for label, row in ours.items()} == \
                {label: row["value"] for label, row in theirs.items()}
            for label, row in theirs.items():
                same = ("limit", "read_only", "hidden", "metadata", *(["id"] if label != "team" else []))
                assert {k: ours[label][k] or None for k in same} == {k: row[k] or None for k in same}
        assert ours_tags(server, a) == {"human": ["a,b", "x"], "persona": [], "team": ["t"]}
        agent = server.get(f"/v1/agents/{a}?include=agent.tags").json()
        assert agent["name"] == "Ada" and {"team", "a b"} <= set(agent["tags"])
    for agent in (a, b):
        assert tree(tables, agent) == tree(wire, agent)
    for server, way in ((wire, ("--letta", letta.database)), (tables, ("--letta-url", letta.url))):
        assert must(server, *way, *named)["unchanged"] == 2, "crosswise"
    everybody = must(wire, "--letta-url", letta.url, "--dry-run")
    assert everybody["unchanged"] == 2 and everybody["agents"] == \
        must(wire, "--letta", letta.database, "--dry-run")["agents"]
    after = [letta.sql(f"SELECT xmin, ctid, t::text FROM {t} t ORDER BY t::text") for t in TABLES]
    assert before == after, "something changed in Letta's database"
    letta.patch_block(letta.blocks(a)["human"]["id"], value="Likes coffee.")
    assert must(tables, "--letta-url", letta.url, "--agent", a)["changed"] == 1
    assert tables.value(a, "human") == "Likes coffee."


def ours_tags(server, agent):
    """Tags by label, from the one list that shows them."""
    rows = server.get("/v1/blocks/?limit=1000").json()
    ids = {row["id"] for row in server.blocks(agent).values()}
    return {row["label"]: sorted(row["tags"]) for row in rows if row["id"] in ids}
