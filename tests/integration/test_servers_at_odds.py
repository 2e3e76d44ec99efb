"""Several servers over one database that disagree, hang, are gone for good, or have much to send."""
import hashlib
import os
import pathlib
import random
import shutil
import threading
import time

import pytest

from lib import wire
from lib.cluster import Cluster, free_port, wait_until
from lib.faultproxy import FaultProxy
from lib.server import Server, new_agent
from lib.strangers import Stranger, is_first_for
from lib.writer import Memory
from lib.writes import Writes

pytestmark = pytest.mark.sqlite     # it brings its own PostgreSQL
REFS = "/v1/git/{}/state.git/info/refs?service=git-upload-pack"


@pytest.fixture
def cluster(memfs_bin, folder):
    with Cluster(memfs_bin, folder) as c:
        yield c


def forget_moves(server):
    """What a test takes away on purpose is no ref that moved back."""
    server.watcher.stop()
    server.watcher.last.clear()
    server.watcher.moves.clear()


# -- another rule ------------------------------------------------------------------------------------

def rows(cluster, memory):
    """Paths of its rows; None: main moved without them."""
    if cluster.sql(f"SELECT is_empty FROM tips WHERE agent_id = '{memory.agent}'") != [["f"]]:
        return None
    return [row[0] for row in cluster.sql("SELECT convert_from(path, 'UTF8') FROM blocks JOIN tips "
                                          f"USING(agent_no) WHERE agent_id = '{memory.agent}' ORDER BY 1")]


def test_L3_K1_neither_a_command_nor_a_start_that_fails_changes_the_rule_of_the_servers_that_run(memfs_bin,
                                                                                               folder):
    """They go by a shell that was told something else, in a home whose server is down."""
    with Cluster(memfs_bin, folder, start=False) as cluster:
        one, two = cluster.servers
        for s in cluster.servers:
            s.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "system/"
            s.start()
        m = Memory(two, new_agent())
        m.must_push({"system/a.md": "1\n", "notes/n.md": "1\n"})
        assert one.tip(m.agent) == m.tip
        wait_until(lambda: os.path.isdir(one.repository(m.agent)), "it is there, too")
        one.stop()
        told = one.cli("verify", "--json", env={"LETTA_MEMFS_BLOCK_PATH_PREFIXES": ""})
        assert b"rows-not-compared" in told.stdout, told
        one.cli("backup", folder / "copy", env={"LETTA_MEMFS_BLOCK_PATH_PREFIXES": ""})
        assert rows(cluster, m) == ["system/a.md"]
        port, one.listen = one.listen, two.listen
        one.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "notes/"
        with pytest.raises(AssertionError, match="is taken"):
            one.start()
        assert rows(cluster, m) == ["system/a.md"]
        m.must_push({"system/b.md": "2\n"})
        assert set(two.blocks(m.agent)) == {"system/a", "system/b"}
        assert "event=cache_rule_differs" not in two.log()
        one.process, one.listen = None, port
        one.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "system/"
        one.start()


def test_D3_a_push_whose_ref_fails_after_main_moved_without_its_rows_is_not_refused(cluster):
    """The database has the commit as main of all; a reflog that cannot be written keeps its own ref back."""
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    two.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "system/"
    two.restart()
    reflog = os.path.join(one.repository(m.agent), "logs", wire.MAIN)
    os.rename(reflog, reflog + ".aside")
    os.mkdir(reflog)
    report = m.push({"a.md": "2\n"})
    assert not report.complete and not report.refs, report
    assert cluster.tip(m.agent) == m.pending[0], report
    os.rmdir(reflog)
    os.rename(reflog + ".aside", reflog)
    m.settle()
    assert len(m.acked) == 2
    one.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "system/"
    one.restart()
    m.close()
    wait_until(lambda: cluster.tips(m.agent) == [m.tip] * 2, "it is main of both")


def test_K1_a_rolling_restart_with_another_rule_leaves_no_row_of_the_old_one(cluster):
    """The second server begins to make blocks of system/ only, while the first goes on as before."""
    one, two = cluster.servers
    files = {"system/a.md": "1\n", "notes/n.md": "1\n"}
    memories = [Memory(one, new_agent()) for _ in range(3)]
    for m in memories:
        m.must_push(files)
    two.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "system/"
    two.restart()
    old, first = memories[0], Memory(one, new_agent())
    report = old.push({"system/a.md": "2\n"})       # its rows were emptied
    assert report.acked and "another rule" in report.talk, report
    assert first.push(files).acked                  # it had none
    assert set(two.blocks(memories[1].agent)) == {"system/a"}
    assert memories[1].push({"notes/m.md": "3\n"}).acked    # and these the other one had made
    for m in (old, first):
        wait_until(lambda: rows(cluster, m) == ["system/a.md"], "nobody need ask that server for them")
    for m in (*memories, first):
        wait_until(lambda: set(two.blocks(m.agent)) == {"system/a"}, "only what the new rule gives")
        assert cluster.tips(m.agent) == [m.tip] * 2
    assert two.value(old.agent, "system/a") == "2\n"
    assert "event=cache_rule_differs" in one.log()
    told = one.cli("verify", "--json").stdout       # it runs, and was overruled since it began
    assert b"rows-not-compared" in told and b"row-" not in told.replace(b"rows-not", b""), told
    one.extra_env["LETTA_MEMFS_BLOCK_PATH_PREFIXES"] = "system/"
    for m in (*memories, first):
        m.close()
    one.restart()
    for m in (*memories, first):
        assert set(one.blocks(m.agent)) == {"system/a"}
    assert old.push({"system/a.md": "3\n"}).acked and two.value(old.agent, "system/a") == "3\n"


# -- copies --------------------------------------------------------------------------------------------

def test_D1_F22_with_replicas_a_push_without_the_database_survives_its_servers_disk(memfs_bin, folder):
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        m = Memory(one, new_agent(), timeout=60)
        m.must_push({"a.md": "1\n"})
        c.pg.crash()
        m.must_push({"a.md": "2\n"})
        forget_moves(one)
        one.kill()
        shutil.rmtree(one.home)
        assert two.tip(m.agent) == m.tip
        c.pg.start()
        wait_until(lambda: c.tip(m.agent) == m.tip, "it becomes main of all")
        wait_until(lambda: two.value(m.agent, "a") == "2\n", "and its rows are written")
        one.start()


def test_L3_one_server_that_hangs_does_not_use_up_the_time_for_copies(memfs_bin, folder):
    """Agents for whom it comes first; each first asked when it is no longer shunned for the one before."""
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one = c.servers[0]
        with Stranger(c) as stub:
            names = [row[0] for row in c.sql(f"SELECT name FROM servers WHERE name <> '{stub.NAME}'")]

            def pushed_anew():
                time.sleep(3)
                agent = next(a for a in iter(new_agent, None) if is_first_for(a, stub.NAME, names))
                return Memory(one, agent, timeout=60).push({"a.md": "1\n"}).acked
            wait_until(pushed_anew, "the copy that the other server makes counts", 120)
            assert stub.asked and not stub.go.is_set()


def test_S3_a_server_that_was_not_seen_for_long_is_shown_no_secret(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    assert two.tip(m.agent) == m.tip
    with Stranger(cluster, "clock_timestamp() - interval '11 minutes'") as stub:
        stub.go.set()
        time.sleep(3)           # both have read the list
        stub.takes(m.agent)
        for s in cluster.servers:
            assert s.get(REFS.format(m.agent)).status == 503    # it may have what nobody else has
        assert not stub.asked, stub.asked
        stub.gives_back(m.agent, m.tip)
    wait_until(lambda: cluster.tips(m.agent) == [m.tip] * 2, "it goes on")


def test_replicas_without_anybody_who_could_keep_a_copy_is_refused(memfs_bin, folder):
    alone = Server(memfs_bin, folder / "alone", args=["--replicas", "2"], watch=False)
    with pytest.raises(AssertionError, match="--cluster-url and --database, or a remote"):
        alone.start()
    with open(os.path.join(alone.home, "config"), "w", encoding="ascii") as f:
        f.write("[memfs]\n\treplicas = 2\n")
    alone.args = []
    with pytest.raises(AssertionError, match="--replicas 2 needs somebody"):
        alone.start()
    alone.args = ["--remote", f"{folder}/remote/{{agentId}}.git"]
    alone.start()
    assert b"replicas" not in alone.cli("agents", "list").stderr    # the client knows whose it is
    alone.stop()


# -- long transfers --------------------------------------------------------------------------------------

@pytest.fixture
def slow(memfs_bin, folder):
    """Two servers; what the first one sends to the other may be slowed down."""
    with Cluster(memfs_bin, folder, start=False) as c:
        one, two = c.servers
        port = int(one.listen.rpartition(":")[2])
        with FaultProxy("127.0.0.1", port) as proxy:
            one.args[1] = f"http://127.0.0.1:{proxy.port}"
            one.start()
            two.start()
            yield c, proxy
            proxy.mend()


def noise(n):
    return random.Random(n).randbytes(n)


def own_tip(server, agent):
    with open(os.path.join(server.repository(agent), wire.MAIN), encoding="ascii") as f:
        return f.read().strip()


def test_D1_a_history_that_travels_for_long_reaches_the_other_server(slow):
    """It is sent in pieces of 64 KiB at most, one a second: some thirty seconds."""
    c, proxy = slow
    one, two = c.servers
    proxy.behave("delay", 1)
    m = Memory(one, new_agent(), timeout=60)
    m.must_push({"big.bin": noise(1500000)})
    wait_until(lambda: own_tip(two, m.agent) == m.tip, "it is there whole", 200)


def test_L3_F30_a_long_transfer_holds_up_no_request_and_ends_with_its_server(slow):
    """Two minutes and more, if it were waited for."""
    c, proxy = slow
    one, two = c.servers
    quick = Memory(one, new_agent())
    quick.must_push({"a.md": "1\n"})
    assert two.tip(quick.agent) == quick.tip
    proxy.behave("delay", 1)
    m = Memory(one, new_agent(), timeout=60)
    m.must_push({"big.bin": noise(9000000)})
    wait_until(lambda: two.children(), "git fetches it")
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(
        two.get(REFS.format(m.agent), timeout=60).status)) for _ in range(12)]
    for t in asking:
        t.start()
    assert two.tip(quick.agent) == quick.tip
    for t in asking:
        t.join(120)
    assert answers == [503] * 12, answers
    assert two.children(), "it is fetched still"
    two.stop()      # within the 40 s that a service manager gives it, too
    proxy.mend()
    two.start()
    wait_until(lambda: two.tip(m.agent) == m.tip, "the next start fetches it")


# -- turns ---------------------------------------------------------------------------------------------

def test_L3_a_server_that_hears_late_of_every_move_comes_to_its_turn(slow):
    """It would always be too late: what the other one writes without a pause takes half a second to get here."""
    c, proxy = slow
    one, two = (Writes(server) for server in c.servers)
    agent = one.agent({"a.md": "0", "b.md": "0"})
    assert two.patch(agent, "b", {"value": "1"}).status == 200
    proxy.behave("delay", 0.05)
    stop, answers = threading.Event(), []

    def hurry(label):
        n = 0
        while not stop.is_set():
            n += 1
            answers.append(one.patch(agent, label, {"value": f"{label} {n}"}).status)

    hurrying = [threading.Thread(target=hurry, args=(label,)) for label in ("a", "a")]
    for t in hurrying:
        t.start()
    late = []
    for n in range(3):
        so_far = len(answers)
        wait_until(lambda: len(answers) > so_far + 5, "the other one is first again")
        late.append(two.patch(agent, "b", {"value": f"late {n}"}))
    stop.set()
    for t in hurrying:
        t.join(120)
    proxy.mend()
    assert set(c.tips(agent)) == {c.tip(agent)}
    assert ([a.status for a in late], set(answers)) == ([200] * 3, {200}), late
    written = one.server.git_dir(agent, "log", "-p", "main").stdout.decode()
    assert all(f"+late {n}\n" in written for n in range(3)), "each is in the history"


def test_L3_a_turn_that_is_not_given_back_holds_up_nobody_for_long(cluster):
    one, two = (Writes(server) for server in cluster.servers)
    agent = one.agent({"a.md": "0"})
    lock = int.from_bytes(hashlib.sha256(agent.encode()).digest()[:8], "little", signed=True)
    with cluster.holding(f"DO $$ BEGIN PERFORM pg_advisory_lock({lock}); END $$"):
        for n in range(8):
            assert (one, two)[n % 2].patch(agent, "a", {"value": str(n)}).status == 200
    assert one.block(agent, "a") == two.block(agent, "a")


def test_F05_D3_a_change_whose_ref_was_moved_by_hand_meanwhile_is_not_made_twice(cluster):
    """Between the commit of the database and the move of the ref: nobody knows, and nobody tries again."""
    one = Writes(cluster.servers[0])
    agent = one.agent({"a.md": "0"})
    git = one.server.git_dir
    tip = one.server.tip(agent)
    by_hand = git(agent, "commit-tree", "-p", tip, "-m", "by hand", tip + "^{tree}").stdout.decode().strip()
    ref = os.path.join(one.server.repository(agent), wire.MAIN)
    for folder in [ref, *pathlib.Path(ref).parents]:
        if str(folder).startswith(one.server.folder):
            os.chmod(folder, 0o777)
    cluster.pg.sql(f"""
        CREATE FUNCTION memfs.by_hand() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            COPY (SELECT '{by_hand}') TO PROGRAM 'cat > {ref}'; RETURN NULL; END $$;
        CREATE TRIGGER by_hand AFTER UPDATE OF tip ON memfs.tips FOR EACH ROW EXECUTE FUNCTION memfs.by_hand()""", "memfs")
    tag = one.ask("GET", f"/v1/agents/{agent}/core-memory/blocks/a").headers["etag"]
    assert one.patch(agent, "a", {"value": "1"}, If_Match=tag).status == 503
    cluster.sql("DROP TRIGGER by_hand ON tips")
    wait_until(lambda: set(cluster.tips(agent)) == {cluster.tip(agent)}, "both are joined")
    assert one.block(agent, "a")["value"] == "1"
    assert git(agent, "log", "--format=%s", "main").stdout.decode().count("by hand") == 1
    written = git(agent, "log", "-p", "--no-merges", "main").stdout.decode()
    assert written.count("+1\n") == 1, written


# -- word of moves -----------------------------------------------------------------------------------------

def test_F22_each_server_listens_for_the_others_also_after_the_database_crashed(cluster):
    one, two = cluster.servers
    listening = lambda: cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                                    "'memfs listen' AND wait_event = 'ClientRead'") == [["2"]]
    wait_until(listening, "both listen")
    cluster.pg.crash()
    cluster.pg.start()
    wait_until(listening, "and again")
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    assert cluster.tips(m.agent) == [m.tip] * 2


# -- what fails again and again ----------------------------------------------------------------------------

def test_L5_rows_that_cannot_be_written_are_tried_more_and_more_rarely(cluster):
    """The tries are counted by a sequence, which no ROLLBACK takes back; five of them need 15 s of pauses."""
    one, two = cluster.servers
    two.stop()
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    cluster.sql("CREATE SEQUENCE tries; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM nextval('memfs.tries'); RAISE EXCEPTION 'no'; END $$; "
                "CREATE TRIGGER refuse BEFORE INSERT ON blocks FOR EACH ROW "
                "WHEN (NEW.value = 'refused') EXECUTE FUNCTION refuse()")
    tries = lambda: int(cluster.sql("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tries")[0][0])
    report = m.push({"a.md": "refused"})
    assert report.acked and "blocks will follow" in report.talk, report
    before, began = tries(), time.monotonic()
    wait_until(lambda: tries() >= before + 5, "it is tried again", 180)
    assert time.monotonic() - began > 10, "five tries in a row"
    cluster.sql("DROP TRIGGER refuse ON blocks")
    wait_until(lambda: one.value(m.agent, "a") == "refused", "and it is written", 180)
    two.start()
