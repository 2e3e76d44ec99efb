"""Several servers over one PostgreSQL database (design 13): main is where they all agreed, whichever
of them is asked, killed, or away."""
import concurrent.futures
import hashlib
import http.server
import json
import os
import shutil
import threading
import time

import pytest

from lib import wire
from lib.cluster import Cluster, PATIENCE, cluster, push, restart_without, wait_until  # noqa: F401
from lib.server import Server, new_agent
from lib.writer import Memory
from lib.writes import Writes

pytestmark = pytest.mark.sqlite     # it brings its own PostgreSQL


# -- what one takes the others have -----------------------------------------------------------------

def test_H1_K1_a_push_to_one_server_is_main_of_all(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    for i in range(6):
        server = cluster.servers[i % 2]
        assert push(m, server, {"system/human.md": f"text {i}\n"}).acked
        assert cluster.tips(m.agent) == [m.tip, m.tip]
        assert [s.value(m.agent, "system/human") for s in (one, two)] == [f"text {i}\n"] * 2
    assert cluster.tip(m.agent) == m.tip


def test_H3_K1_a_write_over_rest_to_any_server_is_everybodys(cluster):
    one, two = (Writes(server) for server in cluster.servers)
    agent = one.agent({"a.md": "0", "b.md": "0"})
    for i in range(4):
        assert (one, two)[i % 2].patch(agent, "a", {"value": str(i), "tags": [str(i)]}).status == 200
        assert one.block(agent, "a") == two.block(agent, "a")
        assert (one.block(agent, "a")["value"], one.block(agent, "a")["tags"]) == (str(i), [str(i)])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = pool.map(lambda n: (one, two)[n % 2].patch(agent, "ab"[n // 2 % 2], {"value": f"text {n}"}).status,
                         range(12))
        assert set(asked) == {200}
    assert one.server.tip(agent) == two.server.tip(agent)
    assert one.block(agent, "a") == two.block(agent, "a")
    written = one.server.git_dir(agent, "log", "-p", "main").stdout.decode()
    assert all(f"+text {n}\n" in written for n in range(12)), "each text is in the history"
    tag = one.ask("GET", f"/v1/agents/{agent}/core-memory/blocks/a").headers["etag"]
    assert two.patch(agent, "a", {"value": "x"}, If_Match=tag).status == 200
    assert one.patch(agent, "a", {"value": "y"}, If_Match=tag).status == 409


def test_K4_a_block_of_no_agent_is_made_on_one_server_and_attached_on_the_other(cluster):
    one, two = (Writes(server) for server in cluster.servers)
    agent = one.agent()
    block = one.ok("POST", "/v1/blocks", {"label": "team", "value": "v", "description": "d", "tags": ["t"]})
    assert two.ok("GET", f"/v1/blocks/{block['id']}") == block
    after = two.ok("PATCH", f"/v1/blocks/{block['id']}", {"value": "w"})
    assert two.move("attach", agent, block["id"]).status == 200
    assert one.block(agent, "team") == two.block(agent, "team") == after
    assert one.move("detach", agent, block["id"]).status == 200
    assert two.ok("GET", f"/v1/blocks/{block['id']}") == after
    assert two.ask("DELETE", f"/v1/blocks/{block['id']}").status == 200
    assert one.ask("GET", f"/v1/blocks/{block['id']}").status == 404


def shared_block(one, n_agents):
    agents = [one.agent() for _ in range(n_agents)]
    block = one.ok("POST", "/v1/blocks", {"label": "team", "value": "v"})["id"]
    for agent in agents:
        assert one.move("attach", agent, block).status == 200
    return agents, block


def test_K3_H3_a_server_waits_for_anothers_turn_at_a_block_and_for_no_other_block(cluster):
    one, two = (Writes(server) for server in cluster.servers)
    (agent, _), block = shared_block(one, 2)
    other = one.ok("POST", "/v1/blocks", {"label": "other", "value": "v"})["id"]
    lock = int.from_bytes(hashlib.sha256(block.encode()).digest()[:8], "little", signed=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with cluster.holding(f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({lock}); END $$"):      # as a third server would
            waiting = [pool.submit(w.ask, "PATCH", f"/v1/blocks/{block}", {"value": "later"}) for w in (one, two)]
            for n in range(10):
                for w in (one, two):
                    assert w.ask("PATCH", f"/v1/blocks/{other}", {"value": str(n)}).status == 200
            assert not any(w.done() for w in waiting)
            assert two.block(agent, "team")["value"] == "v"
        assert [w.result().status for w in waiting] == [200, 200]


def test_K4_the_last_two_that_detach_a_block_by_two_servers_at_once_leave_it_to_nobody(cluster):
    both = [Writes(server) for server in cluster.servers]
    agents, block = shared_block(both[0], 2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for how in ("detach", "attach", "detach", "attach", "detach"):
            done = pool.map(lambda w, agent: w.move(how, agent, block).status, both, agents)
            assert set(done) == {200}, how
            assert [w.ok("GET", f"/v1/blocks/{block}")["value"] for w in both] == ["v", "v"]


def test_K3_D1_what_a_killed_server_left_of_a_change_is_done_before_the_next_change_by_another(cluster):
    one, two = (Writes(server) for server in cluster.servers)
    agents, block = shared_block(one, 3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # who has it longest is changed last
        with cluster.holding(f"UPDATE tips SET holder = holder WHERE agent_id = '{agents[0]}'"):
            asked = pool.submit(one.ask, "PATCH", f"/v1/blocks/{block}", {"value": "later"})
            cluster.wait_for_a_waiter()
            one.server.kill()
            cluster.pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        assert asked.exception()
    assert cluster.sql("SELECT count(*) FROM docs WHERE kind = 'edit'") != [["0"]]
    one.server.start()          # the commits that it made it has
    wait_until(lambda: two.ask("PATCH", f"/v1/blocks/{block}", {"description": "next"}).status == 200,
               "it knows that the other one is back")
    shown = [two.block(agent, "team") for agent in agents]
    assert {(b["value"], b["description"]) for b in shown} == {("later", "next")}


def test_a_client_clones_from_a_server_that_never_heard_of_the_agent(cluster, git, folder):
    one, two = cluster.servers
    agent = new_agent()
    first = git.clone(one.git_url(agent), folder / "a")
    first.save({"system/human.md": "from one\n"})
    second = git.clone(two.git_url(agent), folder / "b")
    assert second.read("system/human.md") == b"from one\n"
    second.save({"system/human.md": "from two\n"})
    first.pull()
    assert first.read("system/human.md") == b"from two\n"


def test_blocks_are_read_where_no_repository_is(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"system/human.md": "text\n"})
    three = cluster.add()
    assert three.value(m.agent, "system/human") == "text\n"
    assert three.tip(m.agent) == m.tip and os.path.isdir(three.repository(m.agent))


def test_K1_each_server_finds_what_any_took_and_what_it_took_away(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())

    def paths(server, q, where):
        answer = server.get(f"/v1/search?agent={m.agent}&q={q}&in={where}")
        assert answer.status == 200, answer
        return [hit["path"] for hit in answer.json()["results"]]

    for i in range(6):
        server, other = cluster.servers[i % 2], cluster.servers[1 - i % 2]
        assert push(m, server, {"system/human.md": f"word{i}\n"}).acked
        for s in (other, server):
            assert paths(s, f"word{i}", "current") == ["system/human.md"]
            assert paths(s, f"word{i}", "history") == []
            assert [paths(s, f"word{k}", "history") for k in range(i)] == [["system/human.md"]] * i
    three = cluster.add()       # where no repository is
    assert paths(three, "word4", "history") == ["system/human.md"]
    assert paths(three, "word5", "current") == ["system/human.md"]


def test_K1_the_index_of_history_goes_on_whichever_server_takes_a_push(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())

    def past():
        return cluster.sql("SELECT encode(tip, 'hex'), encode(past, 'hex') FROM tips "
                           f"WHERE agent_id = '{m.agent}'")

    assert push(m, one, {"a.md": "word0\n"}).acked and push(m, two, {"a.md": "word1\n"}).acked
    assert past() == [[m.tip, ""]], "nobody asked for it"
    assert one.get(f"/v1/search?agent={m.agent}&q=word0&in=history").json()["results"]
    for i in range(2, 6):
        assert push(m, cluster.servers[i % 2], {"a.md": f"word{i}\n"}).acked
        assert past() == [[m.tip, m.tip]]
    body = json.dumps({"value": "word6\n"}).encode()
    assert two.request("PATCH", f"/v1/agents/{m.agent}/core-memory/blocks/a", body).status == 200
    main = cluster.tip(m.agent)
    assert main != m.tip and past() == [[main, main]]
    assert cluster.sql("SELECT count(*) FROM versions") == [["7"]]


def test_H2_of_two_pushes_from_one_commit_one_wins_and_the_other_is_told_to_fetch(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    other = Memory(two, m.agent)
    other.tip, other.files = m.tip, dict(m.files)
    assert push(m, one, {"a.md": "2\n"}).acked
    report = other.push({"b.md": "2\n"})
    assert not report.acked and report.refs[wire.MAIN] == "fetch first", report
    assert cluster.tips(m.agent) == [m.tip, m.tip]


def test_H1_a_first_push_to_each_server_at_once_makes_one_memory(cluster):
    agent = new_agent()
    sides = [Memory(s, agent) for s in cluster.servers]
    reports = [side.push({f"{i}.md": "x\n"}) for i, side in enumerate(sides)]
    assert [r.acked for r in reports] == [True, False], reports
    assert cluster.tips(agent) == [sides[0].tip] * 2


# -- a server that dies in the middle ---------------------------------------------------------------

def test_D1_killed_between_the_shared_tip_and_its_own_ref_it_moves_up_at_the_first_touch(cluster):
    """The state that such a kill leaves is made by hand: the ref is put back while it is down."""
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    before = m.tip
    m.must_push({"a.md": "2\n"})
    one.watcher.stop()
    one.kill()
    with open(os.path.join(one.repository(m.agent), wire.MAIN), "w", encoding="ascii") as f:
        f.write(before + "\n")
    one.watcher.last.clear()
    one.watcher.moves.clear()
    one.start()
    m.close()
    # asked first: it gets the commit that no ref names over there
    wait_until(lambda: two.tip(m.agent) == m.tip, "it is asked for again")
    assert one.tip(m.agent) == m.tip
    m.must_push({"a.md": "3\n"})


def test_H4_a_commit_on_a_dead_server_alone_is_waited_for_and_nothing_is_made_up(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    assert two.tip(m.agent) == m.tip
    two.kill()
    m.must_push({"a.md": "2\n"})
    one.kill()
    two.start()
    answer = two.get(f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack")
    assert answer.status == 503 and answer.headers.get("retry-after"), answer
    assert two.value(m.agent, "a") == "2\n"     # rows are the database's
    one.start()
    wait_until(lambda: two.get(f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack"
                               ).status == 200, "the first server is asked again")
    assert cluster.tips(m.agent) == [m.tip, m.tip]
    assert "event=tip_out_of_reach" in two.log() and "folder_missing" not in two.log()


def test_D1_a_server_whose_disk_is_lost_gets_it_back_from_the_other(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    assert two.tip(m.agent) == m.tip
    restart_without(one, os.path.join(one.home, "repository"))
    m.close()
    assert one.tip(m.agent) == m.tip
    m.must_push({"a.md": "2\n"})
    assert two.tip(m.agent) == m.tip
    assert "folder_missing" not in one.log()


def test_a_server_that_an_operator_gives_up_keeps_nobody_waiting(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    kept = m.tip
    assert two.tip(m.agent) == kept
    two.kill()
    m.must_push({"a.md": "2\n"})
    one.kill()
    two.start()
    cluster.sql(f"DELETE FROM servers WHERE url = '\\x{one.args[1].encode().hex()}'")
    wait_until(lambda: two.get(f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack"
                               ).status == 200, "it goes on")
    assert two.tip(m.agent) == kept == cluster.tip(m.agent) and two.value(m.agent, "a") == "1\n"
    one.start()     # it does return: what it had is joined
    wait_until(lambda: one.tip(m.agent) == m.tip, "its commit descends from what the other has")
    assert cluster.tips(m.agent) == [m.tip, m.tip]


def test_H1_one_that_is_given_up_rolls_nothing_back_while_another_does_not_answer(cluster):
    one, two = cluster.servers
    three = cluster.add()
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    assert cluster.tips(m.agent) == [m.tip] * 3
    two.kill()
    m.must_push({"a.md": "2\n"})
    assert three.tip(m.agent) == m.tip
    for s in (one, three):
        s.kill()
    cluster.sql(f"DELETE FROM servers WHERE url = '\\x{one.args[1].encode().hex()}'")
    two.start()
    for _ in range(3):
        refs = two.get(f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack")
        assert refs.status == 503 and cluster.tip(m.agent) == m.tip, refs
    three.start()
    wait_until(lambda: two.tip(m.agent) == m.tip, "it is fetched from the one that has it")


# -- the database is away (F22) -----------------------------------------------------------------------

def test_F22_H2_pushes_to_both_servers_without_the_database_are_joined_when_it_is_back(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    other = Memory(two, m.agent)
    assert two.tip(m.agent) == m.tip
    other.tip, other.files = m.tip, dict(m.files)
    cluster.pg.crash()
    assert push(m, one, {"a.md": "of one\n"}).acked
    assert other.push({"b.md": "of two\n"}).acked
    cluster.pg.start()
    wait_until(lambda: len({*cluster.tips(m.agent), cluster.tip(m.agent)}) == 1, "both agree")
    for s in cluster.servers:
        s.tip(m.agent)      # it fetches what it lacks
        assert s.is_reachable(m.agent, m.tip) and s.is_reachable(m.agent, other.tip)
        assert (s.value(m.agent, "a"), s.value(m.agent, "b")) == ("of one\n", "of two\n")


def test_F22_a_push_without_the_database_is_everybodys_when_it_is_back(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    cluster.pg.crash()
    report = push(m, one, {"a.md": "2\n"})
    assert report.acked and "blocks will follow" in report.talk, report
    cluster.pg.start()
    wait_until(lambda: cluster.tip(m.agent) == m.tip, "the shared tip moves up")
    wait_until(lambda: two.tip(m.agent) == m.tip, "the other server follows")
    assert two.value(m.agent, "a") == "2\n"


# -- who may -------------------------------------------------------------------------------------------

def test_S1_the_servers_own_routes_open_to_servers_only(cluster):
    one, _ = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    admin = one.token("admin")
    with open(os.path.join(one.home, "secrets", "server"), encoding="ascii") as f:
        secret = f.read()
    one.secrets.append(b"Bearer " + secret.encode())
    target = f"/peer/git/{m.agent}/state.git/info/refs?service=git-upload-pack"
    for key, status in ((None, 401), (admin["token"], 401), ("0" * 64, 401), (secret, 200)):
        head = {"Authorization": f"Bearer {key}" if key else ""}
        assert one.get(target, headers=head).status == status, key
    head = {"Authorization": f"Bearer {secret}"}
    assert one.get(f"/v1/agents/{m.agent}", headers=head).status == 401
    assert one.get(target.replace("upload", "receive"), headers=head).status == 403
    assert one.get(target.replace(m.agent, new_agent()), headers=head).status == 404
    assert os.stat(os.path.join(one.home, "secrets", "server")).st_mode & 0o77 == 0


def test_L6_a_server_that_shares_nothing_and_servers_that_share_refuse_each_other(cluster, memfs_bin,
                                                                                   folder):
    alone = Server(memfs_bin, folder / "alone", env={"MEMFS_DATABASE": cluster.url}, watch=False)
    with pytest.raises(AssertionError, match="in use by another memfs.*--cluster-url"):
        alone.start()


def test_a_home_that_shared_shares_until_its_file_is_removed(cluster):
    one, _ = cluster.servers
    one.stop()
    listed = one.cli("verify", "--json")    # a command of that home, beside the other server
    assert listed.returncode == 0
    one.args = []
    one.start()
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    assert cluster.tips(m.agent) == [m.tip] * 2


# -- what is done by one, and what all hear of ---------------------------------------------------------

def test_S5_a_token_that_one_server_revokes_opens_none(cluster):
    one, two = cluster.servers
    admin, other = one.token("admin"), one.token("admin")
    two.secrets += one.secrets
    head = {"Authorization": f"Bearer {other['token']}"}
    for s in (one, two):
        wait_until(lambda: s.get("/v1/agents/count", headers=head).status == 200, "it is known to all")
    two.cli("token", "revoke", other["id"])
    for s in (one, two):
        wait_until(lambda: s.get("/v1/agents/count", headers=head).status == 401, "and ended for all")
    assert one.get("/v1/agents/count", headers={"Authorization": f"Bearer {admin['token']}"}
                   ).status == 200


class Hanging:
    """A server that the database knows, which answers nothing before it is released; and then 500."""

    def __init__(self, cluster):
        self.cluster, self.n, self.go = cluster, 0, threading.Event()
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                stub.n += 1
                stub.go.wait(PATIENCE)
                self.send_error(500)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        self.cluster.sql("INSERT INTO servers(name, url, token_hash, seen_at) VALUES "
                         f"(repeat('f', 32), '{self.url}', decode(repeat('ab', 32), 'hex'), "
                         "clock_timestamp() + interval '1 hour')")
        return self

    def takes(self, agents):
        """It seems to have a commit of each that nobody else has."""
        self.cluster.sql("UPDATE tips SET tip = decode(repeat('ab', 20), 'hex'), generation = "
                         "nextval('generation'), holder = (SELECT server_no FROM servers WHERE name = "
                         f"repeat('f', 32)) WHERE agent_id IN ({', '.join(repr(a) for a in agents)})")

    def gives_back(self, memories):
        for m in memories:
            self.cluster.sql(f"UPDATE tips SET tip = '\\x{m.tip}', holder = NULL "
                             f"WHERE agent_id = '{m.agent}'")

    def __exit__(self, *_):
        self.go.set()
        self.cluster.sql("DELETE FROM servers WHERE name = repeat('f', 32)")
        self.http.shutdown()
        self.http.server_close()


def test_S5_a_revoked_token_opens_no_server_that_waits_for_another_one(cluster):
    """Each of the moves that it follows costs it the time of a fetch."""
    one, two = cluster.servers
    memories = [Memory(one, new_agent()) for _ in range(10)]
    for m in memories:
        m.must_push({"a.md": "1\n"})
        assert two.tip(m.agent) == m.tip
    other = (one.token("admin"), one.token("admin"))[1]
    two.secrets += one.secrets
    head = {"Authorization": f"Bearer {other['token']}"}
    wait_until(lambda: two.get("/v1/agents/count", headers=head).status == 200, "it is known")
    with Hanging(cluster) as stub:
        stub.takes([m.agent for m in memories])
        wait_until(lambda: stub.n > 0, "a fetch hangs")
        one.cli("token", "revoke", other["id"])
        wait_until(lambda: two.get("/v1/agents/count", headers=head).status == 401, "it is ended")
        assert stub.n < 2 * len(memories) and not stub.go.is_set()
        stub.gives_back(memories)


def test_L3_who_waits_for_an_agent_out_of_reach_does_not_ask_for_it_again(cluster):
    one, two = cluster.servers
    two.kill()
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    path, answers = f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack", []
    with Hanging(cluster) as stub:
        stub.takes([m.agent])
        asking = [threading.Thread(target=lambda: answers.append(one.get(path).status))
                  for _ in range(12)]
        for t in asking:
            t.start()
        wait_until(lambda: stub.n > 0, "one of them asks")
        time.sleep(1)       # the others come to wait behind it
        stub.go.set()
        for t in asking:
            t.join(PATIENCE)
        assert answers == [503] * 12 and stub.n < 12, (answers, stub.n)
        stub.gives_back([m])


def test_a_commit_comes_to_the_other_server_before_anybody_asks_for_it(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    path = os.path.join(two.repository(m.agent), wire.MAIN)
    wait_until(lambda: open(path, encoding="ascii").read().strip() == m.tip, "it is fetched")
    m.must_push({"a.md": "2\n"})
    wait_until(lambda: open(path, encoding="ascii").read().strip() == m.tip, "and the next one, too")


def test_L5_one_server_mirrors_for_all_and_the_next_does_when_it_dies(memfs_bin, folder, git):
    """Both have the remote; what is pushed to either comes there once, and does after the kill."""
    args = ["--remote", f"{folder}/remote/{{agentId}}.git"]
    os.makedirs(folder / "remote")
    with Cluster(memfs_bin, folder, args=args) as c:
        holders = lambda: c.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                                " AND objsubid = 1 AND ((classid::int8 << 32) | objid::int8) ="
                                " 7813577600197001218")
        for n, s in enumerate((*c.servers, c.servers[0])):
            if n == 2:
                c.servers[1].kill()
            m = Memory(s, new_agent())
            m.must_push({"a.md": f"{n}\n"})
            there = folder / "remote" / f"{m.agent}.git"
            wait_until(lambda: git.text("--git-dir", there, "rev-parse", "main") == m.tip,
                       f"push {n} is mirrored")
            wait_until(lambda: holders() == [["1"]], "one server has the lease")


def test_D1_what_the_servers_lost_comes_back_from_the_remote(memfs_bin, folder, git):
    os.makedirs(folder / "remote")
    with Cluster(memfs_bin, folder, args=["--remote", f"{folder}/remote/{{agentId}}.git"]) as c:
        one, two = c.servers
        two.stop()
        m = Memory(one, new_agent())
        m.must_push({"a.md": "1\n"})
        there = folder / "remote" / f"{m.agent}.git"
        wait_until(lambda: git.text("--git-dir", there, "rev-parse", "main") == m.tip, "it is mirrored")
        one.watcher.stop()
        one.kill()
        shutil.rmtree(one.home)
        two.start()
        wait_until(lambda: two.tip(m.agent) == m.tip, "the other server has it from there")
        assert two.value(m.agent, "a") == "1\n"
        one.watcher.last.clear()
        one.watcher.moves.clear()


# -- copies (--replicas) -------------------------------------------------------------------------------

def test_D1_with_replicas_a_disk_that_is_lost_right_after_the_ack_loses_nothing(memfs_bin, folder):
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        m = Memory(one, new_agent())
        for i in range(3):
            m.must_push({"a.md": f"{i}\n"})
        one.watcher.stop()
        one.kill()
        shutil.rmtree(one.home)
        assert two.tip(m.agent) == m.tip and two.value(m.agent, "a") == "2\n"
        one.watcher.last.clear()
        one.watcher.moves.clear()
        one.start()                 # an empty home: another server, of the same place
        m.close()
        m.must_push({"a.md": "3\n"})
        assert c.tips(m.agent) == [m.tip] * 2


def test_D2_D4_with_too_few_servers_a_push_has_no_report_and_is_acknowledged_when_there_are(memfs_bin,
                                                                                           folder):
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        m = Memory(one, new_agent())
        m.must_push({"a.md": "1\n"})
        two.kill()
        commit, pack, files = m.prepare({"a.md": "2\n"})
        body = [(m.tip, commit, wire.MAIN)], pack
        report = one.push_raw(m.agent, *body)
        assert not report.complete and not report.refs, report
        assert "event=too_few_copies" in one.log()
        two.start()
        wait_until(lambda: one.push_raw(m.agent, *body).acked, "the same push is acknowledged")
        assert two.has_object(m.agent, commit) and c.tips(m.agent) == [commit] * 2


def test_D1_with_replicas_a_write_over_rest_is_kept_by_two_or_is_503(memfs_bin, folder):
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        w, there = Writes(one), Writes(two)
        agents = [w.agent({"a.md": "0\n"}) for _ in range(3)]
        repo = w.ok("POST", "/v1/repositories", {"name": "team"})["id"]
        born = new_agent()
        writes = [("PATCH", f"/v1/agents/{agents[0]}/core-memory/blocks/a", {"value": "1"}),
                  ("POST", f"/v1/agents/{agents[1]}/memory/commit",
                   {"changes": [{"path": "a.md", "content": "1\n"}]}),
                  ("POST", f"/v1/agents/{agents[2]}/memory/revert", {"commit": wire.GENESIS}),
                  ("POST", f"/v1/repositories/{repo}/files", {"path": "a.md", "content": "1\n"}),
                  ("POST", "/v1/agents", {"id": born, "memory_blocks": [{"label": "a", "value": "1"}]})]
        two.kill()
        with concurrent.futures.ThreadPoolExecutor(len(writes)) as pool:    # each waits for a copy
            told = list(pool.map(lambda write: w.ask(*write), writes))
        assert [(a.status, b"is not known" in a.body) for a in told] == [(503, True)] * len(writes)
        two.start()
        for write in writes[:3]:                        # the same again changes nothing, and needs a copy too
            wait_until(lambda: w.ask(*write).status == 200, "a write that two have is acknowledged")
        assert there.block(agents[0], "a")["value"] == "1"
        assert two.tip(agents[0]) == w.main(agents[0]) == there.main(agents[0])
        assert w.ok("POST", f"/v1/repositories/{repo}/files", {"path": "b.md", "content": "1\n"})
        assert there.block(born, "a")["value"] == "1"


def test_D1_a_server_is_no_copy_of_itself_after_its_disk_was_lost(memfs_bin, folder):
    """Its old row has the same address, and seems to be another server."""
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        one.watcher.stop()
        one.kill()
        shutil.rmtree(one.home)
        one.watcher.last.clear()
        one.watcher.moves.clear()
        one.start()
        two.kill()
        assert len(c.sql("SELECT 1 FROM servers")) == 3
        for _ in range(3):
            report = Memory(one, new_agent(), timeout=60).push({"a.md": "1\n"})
            assert not report.complete and not report.refs, report
        assert "event=too_few_copies" in one.log()
        two.start()
        wait_until(lambda: Memory(one, new_agent(), timeout=60).push({"a.md": "1\n"}).acked,
                   "a copy is made by the other server")


def test_D1_a_remote_that_is_only_read_is_no_copy(memfs_bin, folder, git):
    os.makedirs(folder / "remote")
    with Cluster(memfs_bin, folder, n=1, args=["--replicas", "2"]) as c:
        one = c.servers[0]
        m = Memory(one, new_agent(), timeout=60)
        m.push({"a.md": "1\n"})        # kept, and not acknowledged
        there = folder / "remote" / f"{m.agent}.git"
        git.run("init", "-q", "--bare", there)
        git.clone(one.git_url(m.agent), folder / "seed").run("push", "-q", there, "main")
        one.cli("mirror", "add", "origin", f"{folder}/remote/{{agentId}}.git", "--direction", "pull")
        m.settle()
        report = m.push({"a.md": "2\n"})
        assert not report.complete and not report.refs, report
        assert "event=too_few_copies" in one.log()


def test_D1_a_remote_counts_as_copies(memfs_bin, folder, git):
    os.makedirs(folder / "remote")
    with Cluster(memfs_bin, folder, n=1, args=["--replicas", "2", "--remote",
                                              f"{folder}/remote/{{agentId}}.git"]) as c:
        m = Memory(c.servers[0], new_agent())
        m.must_push({"a.md": "1\n"})
        there = folder / "remote" / f"{m.agent}.git"
        assert git.text("--git-dir", there, "rev-parse", "main") == m.tip


def test_a_server_that_is_told_to_stop_ends_its_push_and_the_other_goes_on(cluster):
    """A rolling restart: a push that is under way at SIGTERM is acknowledged or never was."""
    one, two = cluster.servers
    agent = new_agent()
    m = Memory(one, agent)
    m.must_push({"a.md": "0\n"})
    for server, other in ((one, two), (two, one)):
        done = []
        m.close()
        m.server = server
        pushing = threading.Thread(target=lambda: done.append(m.push({"a.md": f"{server.port}\n"})))
        pushing.start()
        server.restart()
        pushing.join(PATIENCE)
        assert done, "the push never ended"
        wait_until(lambda: len({*cluster.tips(agent), cluster.tip(agent)}) == 1, "both agree")
        assert other.tip(agent) == (m.tip if done[0].acked else cluster.tip(agent))
        if not done[0].acked:
            m.settle()


# -- agents that change -----------------------------------------------------------------------------

def ask(server, method, agent, below="", body=None):
    return server.request(method, f"/v1/agents/{agent}{below}", None if body is None else json.dumps(body))


def test_7_an_agent_that_one_server_deleted_is_gone_from_all_and_comes_back_whole(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"system/human.md": "kept\n"})
    assert two.value(m.agent, "system/human") == "kept\n"     # it is ready there
    assert ask(one, "DELETE", m.agent).status == 200
    assert one.get(f"/v1/agents/{m.agent}").status == 404
    wait_until(lambda: two.get(f"/v1/agents/{m.agent}").status == 404, "it follows")
    wait_until(lambda: two.get(f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack").status == 404, "it follows")
    assert not push(m, two, {"late.md": "x\n"}).acked
    for s in cluster.servers:
        assert m.agent not in s.get("/v1/agents/?limit=0").body.decode()
        assert "kept" not in s.get("/v1/blocks/?limit=0").body.decode()
    two.restart()
    assert two.get(f"/v1/agents/{m.agent}").status == 404
    assert ask(two, "POST", m.agent, "/restore").status == 200
    assert two.value(m.agent, "system/human") == "kept\n"
    wait_until(lambda: one.get(f"/v1/agents/{m.agent}").status == 200, "it follows")
    assert cluster.tips(m.agent) == [m.tip, m.tip]
    assert [s.value(m.agent, "system/human") for s in cluster.servers] == ["kept\n"] * 2


def test_7_a_push_to_one_server_while_another_deletes_leaves_no_rows_behind(cluster):
    """Acknowledged, it is there when the agent is back; its rows are in no list meanwhile."""
    one, two = cluster.servers
    for i in range(3):
        m = Memory(two, new_agent())
        m.must_push({"a.md": f"round {i}\n"})
        got = []
        pushing = threading.Thread(target=lambda m=m: got.append(m.push({"b.md": "x\n"})))
        pushing.start()
        assert ask(one, "DELETE", m.agent).status == 200
        pushing.join()
        wait_until(lambda m=m: two.get(f"/v1/agents/{m.agent}").status == 404, "it follows")
        wait_until(lambda m=m, i=i: f"round {i}" not in two.get("/v1/blocks/?limit=0").body.decode(), "it follows")
        assert ask(one, "POST", m.agent, "/restore").status == 200
        assert ("b" in one.blocks(m.agent)) == got[0].acked
        wait_until(lambda m=m: two.get(f"/v1/agents/{m.agent}").status == 200, "it follows")
        assert two.blocks(m.agent) == one.blocks(m.agent)


def test_H3_changes_of_one_agent_by_two_servers_at_once_are_all_kept(cluster):
    agent = json.loads(cluster.servers[0].request("POST", "/v1/agents", b'{"name":"both"}').body)["id"]
    faults = []

    def change(server, key):
        for i in range(10):
            answer = ask(server, "PATCH", agent, body={key: f"{key} {i}"})
            if answer.status != 200:
                faults.append(answer)

    threads = [threading.Thread(target=change, args=pair)
               for pair in zip(cluster.servers, ("system", "description"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults
    shown = [s.get(f"/v1/agents/{agent}", {"User-Agent": "curl"}).json() for s in cluster.servers]
    assert shown[0] == shown[1]
    assert (shown[0]["system"], shown[0]["description"], shown[0]["name"]) == ("system 9", "description 9", "both")
