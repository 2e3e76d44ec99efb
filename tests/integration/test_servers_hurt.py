"""Several servers over one database, and what is done to them: they hang, are cut off, lose their clock
or their disk, are of another version, while others go on."""
import os
import shutil
import signal
import threading
import time

import pytest

from lib import wire
from lib.cluster import PATIENCE, Cluster, cluster, wait_until  # noqa: F401
from lib.server import new_agent
from lib.strangers import Stranger, is_first_for
from lib.trace import Trace
from lib.writer import Memory

pytestmark = pytest.mark.sqlite     # it brings its own PostgreSQL
REFS = "/v1/git/{}/state.git/info/refs?service=git-upload-pack"


def own_tip(server, agent):
    try:
        with open(os.path.join(server.repository(agent), wire.MAIN), encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return None


def secret_of(server):
    with open(os.path.join(server.home, "secrets", "server"), encoding="ascii") as f:
        return f"Bearer {f.read()}"


def asked_for(stub, server, what="/peer/git/"):
    """The agents for which this server asked that one."""
    secret = secret_of(server)
    return {path.split("/")[3 if what == "/peer/git/" else 4] for _, path, shown in list(stub.asked)
            if what in path and shown == secret}


# -- a server that hangs -------------------------------------------------------------------------------

def test_L3_a_server_that_hangs_holds_up_no_commit_of_others_more_than_once(cluster):
    """Three agents seem to have moved there, before one that moved elsewhere."""
    one, two = cluster.servers
    memories = [Memory(one, new_agent()) for _ in range(4)]
    for m in memories:
        m.must_push({"a.md": "1\n"})
        assert two.tip(m.agent) == m.tip
    held, moved = memories[:3], memories[3]
    with Stranger(cluster) as stub:
        time.sleep(2)           # both have read the list
        for m in held:
            stub.takes(m.agent)
        wait_until(lambda: asked_for(stub, two), "it follows")
        moved.must_push({"a.md": "2\n"})
        wait_until(lambda: own_tip(two, moved.agent) == moved.tip, "the other commit is fetched")
        assert len(asked_for(stub, two)) == 1, stub.asked
        for m in held:
            stub.gives_back(m.agent, m.tip)
    for m in memories:
        wait_until(lambda: cluster.tips(m.agent) == [m.tip] * 2, "all is as it was")


def test_L3_of_a_server_that_hangs_only_the_first_who_asks_waits_for_long(cluster):
    """Nine agents seem to be there; ten seconds for each of them would be more than a minute."""
    one, two = cluster.servers
    memories = [Memory(one, new_agent()) for _ in range(9)]
    for m in memories:
        m.must_push({"a.md": "1\n"})
    with Stranger(cluster) as stub:
        time.sleep(2)           # both have read the list
        for m in memories:
            stub.takes(m.agent)
        answers = []
        asking = threading.Thread(target=lambda: [answers.append(
            two.get(REFS.format(m.agent), timeout=PATIENCE).status) for m in memories])
        asking.start()
        wait_until(lambda: len(answers) == 9, "all are answered", 60)
        asking.join()
        assert answers == [503] * 9
        for m in memories:
            stub.gives_back(m.agent, m.tip)


def test_L3_rows_that_are_late_are_written_while_a_server_hangs(cluster):
    """Two agents that were pushed to without the database have moved at the other one meanwhile."""
    one, two = cluster.servers
    two.stop()
    held, good = [Memory(one, new_agent()) for _ in range(2)], Memory(one, new_agent())
    for m in (good, *held):
        m.must_push({"a.md": "1\n"})
    with Stranger(cluster) as stub:
        time.sleep(2)           # it has read the list
        cluster.pg.crash()
        for m in (good, *held):
            m.must_push({"a.md": "2\n"})
        os.kill(one.pid, signal.SIGSTOP)
        cluster.pg.start()
        for m in held:
            stub.takes(m.agent)
        os.kill(one.pid, signal.SIGCONT)
        wait_until(lambda: one.value(good.agent, "a") == "2\n", "the rows of who waits for nobody")
        assert len(asked_for(stub, one)) <= 1, stub.asked
        for m in held:
            stub.gives_back(m.agent, m.acked[0][0])
    for m in held:
        wait_until(lambda: one.value(m.agent, "a") == "2\n", "the others'")
    two.start()


def test_D1_F22_a_copy_without_the_database_is_fetched_from_who_asks(memfs_bin, folder):
    """Whoever else would be asked for it before, and hangs, is asked for none."""
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        names = [row[0] for row in c.sql("SELECT name FROM servers")]
        agent = next(a for a in iter(new_agent, None) if is_first_for(a, Stranger.NAME, names))
        m = Memory(one, agent, timeout=60)
        m.must_push({"a.md": "1\n"})
        with Stranger(c) as stub:
            time.sleep(3)       # both have read the list
            c.pg.crash()
            commit, pack, _ = m.prepare({"a.md": "2\n"})
            wait_until(lambda: one.push_raw(agent, [(m.tip, commit, wire.MAIN)], pack).acked, "a copy counts")
            assert own_tip(two, agent) == commit
            assert agent in asked_for(stub, one, "/peer/keep/") and not asked_for(stub, two), stub.asked
            c.pg.start()
        wait_until(lambda: c.tip(agent) == commit, "it is everybody's")
        wait_until(lambda: [s.value(agent, "a") for s in c.servers] == ["2\n"] * 2, "so are its rows")


# -- a disk that fails ---------------------------------------------------------------------------------

def test_F05_D1_a_copy_whose_fsync_failed_is_never_vouched_for(memfs_bin, folder):
    """The second fsync of what failed to be written says that all is well, and it may not be."""
    with Cluster(memfs_bin, folder, args=["--replicas", "2"]) as c:
        one, two = c.servers
        m = Memory(one, new_agent(), timeout=60)
        m.must_push({"a.md": "1\n"})
        for n in range(1, 20):
            with Trace(two.pid, folder / "trace", "-y", "-e", "trace=fsync,fdatasync",
                       "-e", f"inject=fsync,fdatasync:error=EIO:when={n}") as trace:
                report = m.push({"a.md": f"{n}\n"})
                m.close()
            assert trace.injected, "no fsync of the repository was met"
            if any("/repository/" in line for line in trace.injected):
                break
            if not report.acked:        # thrown away, and fetched once more: on a slow machine too late to be told
                m.settle()
        assert not report.acked and not report.complete, (report, trace.injected)
        assert two.get(REFS.format(m.agent)).status == 503
        assert "event=agent_fenced" in two.log()
        two.cli("verify", "--agent", m.agent, check=False)      # it is whole after all
        m.settle()
        m.must_push({"a.md": "after\n"})
        assert c.tips(m.agent) == [m.tip] * 2


# -- a database that is not the one of before ------------------------------------------------------------

def test_D1_H2_after_a_failover_to_a_database_that_lagged_all_is_as_it_was(cluster):
    """It knows an older main, and gives numbers again that were seen, so all seems old to who looks for news."""
    one, two = cluster.servers
    memories = [Memory(one, new_agent()) for _ in range(3)]
    for m in memories:
        m.must_push({"a.md": "1\n"})
        m.must_push({"a.md": "2\n"})
        wait_until(lambda: own_tip(two, m.agent) == m.tip, "it is fetched")
    older = " ".join(f"WHEN '{m.agent}' THEN '\\x{m.acked[0][0]}'::bytea" for m in memories)
    cluster.sql("SELECT setval('generation', 1); UPDATE tips SET generation = nextval('generation'), "
                f"tip = CASE agent_id {older} END")
    for m in memories:
        wait_until(lambda: cluster.tip(m.agent) == m.tip, "main is again where it was")
    for m in memories:
        m.must_push({"a.md": "3\n"})
        wait_until(lambda: own_tip(two, m.agent) == m.tip, "and again, before anybody asks for it")


# -- a home that was copied -----------------------------------------------------------------------------

def test_a_copy_of_a_running_servers_home_or_address_is_told_of(cluster, memfs_bin, folder):
    """As from an image of its machine: both would take the other one for themselves."""
    one, two = cluster.servers
    three = cluster.add(start=False)
    os.makedirs(three.home, mode=0o700)
    for name in ("server", "database"):
        shutil.copy(os.path.join(one.home, name), three.home)
    shutil.copytree(os.path.join(one.home, "secrets"), os.path.join(three.home, "secrets"))
    three.start()
    for s in (one, three):
        wait_until(lambda: "event=server_twin" in s.log(), "it is told of")
    assert "event=server_twin" not in two.log()
    three.stop()
    own = three.args[1]
    os.remove(os.path.join(three.home, "server"))
    os.remove(os.path.join(three.home, "secrets", "server"))
    three.args[1] = two.args[1]
    three.start()
    wait_until(lambda: "event=server_twin" in two.log(), "so are two of one address")
    three.stop()
    three.args[1] = own
    three.start()
    m = Memory(three, new_agent())
    m.must_push({"a.md": "1\n"})
    wait_until(lambda: cluster.tips(m.agent) == [m.tip] * 3, "all know where it is by now")
