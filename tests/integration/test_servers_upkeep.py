"""What an operator does where several servers share a database (design 13): rebuild, verify, purge."""
import os
import shutil
import threading

import pytest

from lib import wire
from lib.cluster import PATIENCE, cluster, push, restart_without  # noqa: F401
from lib.server import new_agent
from lib.writer import Memory

pytestmark = pytest.mark.sqlite     # it brings its own PostgreSQL


def test_K1_rebuild_and_verify_on_one_server_leave_the_others_agents_alone(cluster):
    one, two = cluster.servers
    memories = [Memory(s, new_agent()) for s in cluster.servers]
    for m in memories:
        m.must_push({"a.md": f"of {m.agent}\n"})
    rows = one.dump([m.agent for m in memories])
    one.cli("rebuild")
    one.cli("verify")
    assert two.dump([m.agent for m in memories]) == rows


def test_D5_all_rows_lost_come_back_on_whichever_server_is_asked(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n"})
    rows = one.dump([m.agent])
    cluster.sql("TRUNCATE blocks, tips")
    assert two.dump([m.agent]) == rows


def test_K1_a_push_that_waits_while_the_cache_is_emptied_leaves_no_block_out(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "1\n", "b.md": "1\n"})
    acked = []
    pushing = threading.Thread(target=lambda: acked.append(m.push({"a.md": "2\n"}).acked))
    with cluster.holding("TRUNCATE blocks; UPDATE tips SET is_empty = true"):
        pushing.start()
        cluster.wait_for_a_waiter()
    pushing.join(PATIENCE)
    assert acked == [True]
    assert (two.value(m.agent, "a"), two.value(m.agent, "b")) == ("2\n", "1\n")


def test_T28_what_was_purged_on_one_server_does_not_come_back_from_the_other(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "a SECRETTEXT\n", "b.md": "x\n"})
    m.must_push({"b.md": "y\n"})
    assert two.tip(m.agent) == m.tip
    one.rewrites_allowed = True
    one.cli("purge", "--agent", m.agent, "--secret-stdin", input=b"SECRETTEXT")
    new = one.tip(m.agent)
    assert new != m.tip and cluster.tip(m.agent) == new
    assert two.get(f"/v1/git/{m.agent}/state.git/info/refs?service=git-upload-pack").status == 503
    assert "event=agent_fenced" in two.log()
    restart_without(two, os.path.dirname(two.repository(m.agent)))
    assert two.tip(m.agent) == new


def purge(server, agent):
    server.rewrites_allowed = True
    server.cli("purge", "--agent", agent, "--secret-stdin", input=b"SECRETTEXT")


def test_H2_T28_what_another_server_takes_during_a_purge_is_in_what_is_purged(cluster):
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "a SECRETTEXT\n"})
    m.must_push({"a.md": "x\n"})
    assert two.tip(m.agent) == m.tip
    purging = threading.Thread(target=purge, args=(one, m.agent))
    with cluster.holding("LOCK TABLE banned IN EXCLUSIVE MODE"):
        purging.start()
        cluster.wait_for_a_waiter()
        assert push(m, two, {"b.md": "acknowledged\n"}).acked
    purging.join(PATIENCE)
    assert one.value(m.agent, "b") == "acknowledged\n" and one.value(m.agent, "a") == "x\n"
    assert one.tip(m.agent) == cluster.tip(m.agent) != m.tip
    restart_without(two, os.path.dirname(two.repository(m.agent)))
    assert two.tip(m.agent) == one.tip(m.agent)


def test_T28_D1_a_purge_killed_between_the_shared_tip_and_its_own_ref_is_finished(cluster, folder):
    """The state that such a kill leaves is made by hand: the old history is put back beside the new."""
    one, two = cluster.servers
    m = Memory(one, new_agent())
    m.must_push({"a.md": "a SECRETTEXT\n"})
    secret = m.tip
    m.must_push({"a.md": "x\n"})
    assert two.tip(m.agent) == m.tip
    two.kill()
    repository = one.repository(m.agent)
    shutil.copytree(os.path.join(repository, "objects"), folder / "old")
    purge(one, m.agent)
    new = one.tip(m.agent)
    one.watcher.stop()
    one.kill()
    shutil.copytree(folder / "old", os.path.join(repository, "objects"), dirs_exist_ok=True)
    with open(os.path.join(repository, wire.MAIN), "w", encoding="ascii") as f:
        f.write(m.tip + "\n")
    with open(os.path.join(os.path.dirname(repository), "purge"), "w", encoding="ascii") as f:
        f.write(f"{m.tip}\n{new}\n")
    one.watcher.last.clear()
    one.watcher.moves.clear()
    one.start()
    m.close()
    assert one.tip(m.agent) == cluster.tip(m.agent) == new
    assert not one.has_object(m.agent, secret) and "event=agent_fenced" not in one.log()
    assert not os.path.exists(os.path.join(os.path.dirname(repository), "purge"))
    two.start()
    restart_without(two, os.path.dirname(two.repository(m.agent)))
    assert two.tip(m.agent) == new


def test_D1_a_server_of_several_is_configured_by_its_file(cluster):
    """The keys of --cluster-url and --replicas, in the home of one that never was told otherwise."""
    one, two = cluster.servers
    three = cluster.add(start=False)
    url, three.args = three.args[1], []
    os.makedirs(three.home, mode=0o700)
    with open(os.path.join(three.home, "config"), "w", encoding="ascii") as f:
        f.write(f"[memfs]\n\tclusterUrl = {url}\n\treplicas = 2\n")
    three.start()
    m = Memory(three, new_agent())
    m.must_push({"a.md": "1\n"})
    assert cluster.tips(m.agent) == [m.tip] * 3
    one.kill()
    two.kill()
    report = push(m, three, {"a.md": "2\n"})
    assert not report.complete and not report.refs, report
    assert "event=too_few_copies" in three.log()
