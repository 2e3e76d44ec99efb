"""A server over PostgreSQL whose database crashes, freezes, refuses writes, is full or is another's
(F22, L3), and what becomes of a password in its address (S3, S4).

Each test has a database server of its own, with fsync on.
"""
import os
import re
import subprocess
import time

import pytest

from lib import postgres
from lib.gitcli import Git
from lib.patience import wait
from lib.postgres import Postgres
from lib.server import Server, new_agent
from lib.writer import Load, Memory

LATER = "its blocks will follow"


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def pg(folder):
    # a socket's path has 107 bytes at most
    with Postgres(folder / "pg") as server:
        yield server


@pytest.fixture
def over(pg, servers):
    """Makes servers over the test's own database server, which goes after them."""
    def make(url=None, name="s", **kw):
        env = {"MEMFS_DATABASE": url or pg.url("memfs"), **kw.pop("env", {})}
        return servers(name=name, start=False, env=env, **kw)
    pg.database("memfs")
    return make


def eventually(what, seconds=90):
    return wait(what, seconds=seconds)


def assert_tells_why(answer):
    assert answer.status == 503, answer
    assert int(answer.headers["retry-after"]) >= 1, answer.headers
    assert "database" in answer.json()["detail"], answer
    assert "/pg/" not in answer.json()["detail"], "where it is is no client's business"


def rows_at(server, memory):
    """Do the rows of a memory, as the database has them, stand at its tip?  Asks no server."""
    found = postgres.sql(server.database, "SELECT encode(tip, 'hex') FROM memfs.tips "
                                          f"WHERE agent_id = '{memory.agent}'")
    return found == [[memory.tip]]


def filled(server, n=3):
    memories = [Memory(server, new_agent(), timeout=120) for _ in range(n)]
    for m in memories:
        m.must_push({"system/persona.md": "before"})
    return memories


def assert_git_goes_on(server, memories, folder):
    """Pushes are acknowledged with the word about blocks, clones have them, reads say why not."""
    git = Git(folder / f"git{time.monotonic_ns()}")
    for m in memories:
        report = m.push({"system/persona.md": f"during {m.n}"})
        assert report.acked, report
        assert LATER in report.talk, report.talk
        assert_tells_why(server.block(m.agent, "system/persona"))
    to = folder / f"clone{time.monotonic_ns()}"
    checkout = git.clone(server.git_url(memories[0].agent), to)
    assert checkout.head == memories[0].tip
    memories[0].push({"system/persona.md": "fetched"})
    checkout.pull()
    assert checkout.head == memories[0].tip


def assert_caught_up(server, memories):
    assert eventually(lambda: all(rows_at(server, m) for m in memories)), server.log_tail()
    for m in memories:
        text = m.files["system/persona.md"].decode()
        assert server.value(m.agent, "system/persona") == text


# -- the database goes and comes ---------------------------------------------------------------------


def test_crashes_under_load_lose_nothing(over, pg):
    s = over().start()
    load = Load(s, 8)
    load.start()
    for _ in range(3):
        seen = load.n_acked
        assert eventually(lambda: load.n_acked > seen + 20)
        pg.crash()
        seen = load.n_acked
        assert eventually(lambda: load.n_acked > seen + 20), s.log_tail()
        pg.start()
    seen = load.n_acked
    assert eventually(lambda: load.n_acked > seen + 20)
    load.stop()
    assert load.lost() == []
    assert eventually(lambda: all(rows_at(s, m) for m in load.memories)), s.log_tail()
    load.check_blocks()


def test_away_touched_and_untouched(over, pg, folder):
    s = over().start()
    memories = filled(s)
    pg.crash()
    assert_git_goes_on(s, memories, folder)
    # an id that nobody knows could be one whose repository was lost (H4): not now
    late = Memory(s, new_agent())
    report = late.push({"system/persona.md": "new"})
    assert report.status == 503 and not report.acked, report
    assert s.log().count("event=database_away") == 1 and "event=database_back" not in s.log()
    pg.start()
    assert_caught_up(s, memories)
    assert s.log().count("event=database_back") == 1
    late.must_push({"system/persona.md": "new"})
    assert s.value(late.agent, "system/persona") == "new"


def test_away_since_the_start(over, pg, folder):
    """The database goes before anybody, the recovery too, has touched an agent's rows."""
    s = over().start()
    memories = filled(s, 4)
    s.stop()
    # who is deleted is told at the start, and no more from then on, as by a crash in that very moment
    holder = subprocess.Popen(
        ["psql", "-X", "-q", "-d", pg.url("memfs"), "-c",
         "BEGIN; LOCK memfs.tips IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: pg.sql(
            "SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
            "WHERE relname = 'tips' AND mode = 'AccessExclusiveLock' AND granted", "memfs"))
        s.start()
    finally:
        pg.crash()
        holder.wait(30)
    assert_git_goes_on(s, memories, folder)
    pg.start()
    assert_caught_up(s, memories)
    assert "agent_adopted" not in s.log()


def test_purged_does_not_come_back_while_it_is_away(over, pg):
    s = over().start()
    s.rewrites_allowed = True
    memory = filled(s, 1)[0]
    memory.must_push({"system/secret.md": "the password is swordfish"})
    secret = memory.files["system/secret.md"]
    s.cli("purge", "--agent", memory.agent, "--secret-stdin", input=b"swordfish")
    again = Memory(s, memory.agent)
    again.tip = s.tip(memory.agent)
    pg.crash()
    report = again.push({"system/notes.md": "nothing secret"})
    assert report.acked, report
    back = again.push({"system/again.md": secret})
    assert not back.acked and "purged" in back.why, back
    pg.start()
    assert eventually(lambda: rows_at(s, again))


def test_a_frozen_database_holds_nobody(over, pg, folder):
    s = over().start()
    memories = filled(s)
    pg.freeze()
    try:
        assert_git_goes_on(s, memories, folder)
    finally:
        pg.thaw()
    assert_caught_up(s, memories)


def test_frozen_under_load(over, pg):
    s = over().start()
    load = Load(s, 8)
    load.start()
    assert eventually(lambda: load.n_acked > 20)
    pg.freeze()
    try:
        seen = load.n_acked
        assert eventually(lambda: load.n_acked > seen + 20), s.log_tail()
    finally:
        pg.thaw()
    load.stop()
    assert load.lost() == []
    assert eventually(lambda: all(rows_at(s, m) for m in load.memories)), s.log_tail()
    load.check_blocks()


def test_read_only_and_back(over, pg, folder):
    """What a failover leaves behind: it answers, and takes no writes."""
    s = over().start()
    memories = filled(s)
    pg.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    pg.sql("SELECT pg_reload_conf()")
    assert eventually(lambda: pg.sql("SHOW default_transaction_read_only") == [["on"]])
    for m in memories:
        report = m.push({"system/persona.md": "during"})
        assert report.acked and LATER in report.talk, (report, report.talk)
        answer = s.block(m.agent, "system/persona")
        assert_tells_why(answer)
    pg.sql("ALTER SYSTEM RESET default_transaction_read_only")
    pg.sql("SELECT pg_reload_conf()")
    assert_caught_up(s, memories)


def test_connections_ended_one_by_one(over, pg):
    s = over().start()
    load = Load(s, 8)
    load.start()
    for _ in range(20):
        pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
               "WHERE datname = 'memfs' ORDER BY random() LIMIT 2")
        seen = load.n_acked
        assert eventually(lambda: load.n_acked > seen + 4), s.log_tail()
    load.stop()
    assert load.lost() == []
    assert eventually(lambda: all(rows_at(s, m) for m in load.memories)), s.log_tail()
    load.check_blocks()


def test_few_connections(over, pg):
    pg.sql("CREATE ROLE few LOGIN CONNECTION LIMIT 4")
    pg.sql("GRANT CREATE ON DATABASE memfs TO few")
    url = pg.url("memfs").replace("user=memfs", "user=few")
    s = over(url).start()
    load = Load(s, 8)
    load.start()
    assert eventually(lambda: load.n_acked > 200), s.log_tail()
    load.stop()
    assert load.lost() == []
    load.check_blocks()
    assert "cache_behind" not in s.log(), s.log_tail()


# -- starting -----------------------------------------------------------------------------------------


def refused_start(s):
    s.spawn()
    code = s.wait()
    s.expected_codes = (code,)
    return code, s.log()


def test_away_at_the_start(over, pg):
    s = over()
    pg.crash()
    code, log = refused_start(s)
    assert code == 7 and re.search(r"memfs: .*database.*", log), (code, log)
    pg.start()
    s.expected_codes = (0,)
    s.start()


@pytest.mark.parametrize("user, words", [("nobody_here", "nobody_here"), ("weak", "permission")])
def test_users_without_rights(memfs_bin, pg, folder, user, words):
    pg.sql("CREATE ROLE weak LOGIN")
    url = pg.url().replace("user=memfs", f"user={user}")
    s = Server(memfs_bin, folder / "s", env={"MEMFS_DATABASE": url})
    code, log = refused_start(s)
    assert code == 6 and words in log, (code, log)


def test_one_server_a_database(over, pg):
    first, second = over(name="one"), over(name="two")
    first.start()
    second.damaged.add("all that it does not have")
    agent = filled(first, 1)[0]
    code, log = refused_start(second)
    assert code == 7, log
    assert f"pid {first.pid})" in log and "in use by another memfs" in log, log
    # the database goes and comes: it is still the first one's
    pg.crash()
    pg.start()
    agent.must_push({"system/persona.md": "again"})
    assert eventually(lambda: rows_at(first, agent))
    code, log = refused_start(second)
    assert code == 7, log
    # it dies: free at once
    first.kill()
    first.expected_codes = (-9,)
    second.expected_codes = (0,)
    second.start()
    # each memory of the other's folder is known here and not there (H4)
    assert second.block(agent.agent, "system/persona").status == 503
    assert second.get(f"/v1/git/{agent.agent}/state.git/info/refs?service=git-upload-pack",
                      ).status == 503
    second.stop()
    first.process, first.expected_codes = None, (0,)
    first.start()
    assert first.value(agent.agent, "system/persona") == "again"


# -- passwords ----------------------------------------------------------------------------------------

PASSWORD = "pw0rd-canary?:x"
ENCODED = "pw0rd-canary%3F%3Ax"


@pytest.fixture
def guarded(folder):
    port = free_port()
    with Postgres(folder / "pg", port=port) as server:
        server.sql(f"CREATE ROLE agentic LOGIN PASSWORD '{PASSWORD}'")
        server.sql("CREATE DATABASE memfs OWNER agentic")
        path = os.path.join(server.data, "pg_hba.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write("local all memfs trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.sql("SELECT pg_reload_conf()")
        yield server


def ways(way, port, home, folder):
    """(arguments, environment) of a server that is told the password in this way."""
    bare = f"postgresql://agentic@127.0.0.1:{port}/memfs"
    full = f"postgresql://agentic:{ENCODED}@127.0.0.1:{port}/memfs"
    passfile = folder / "pass"
    if way == "option":
        return ["--database", full], {}
    if way == "parameter":
        return [f"--database={bare}?password={ENCODED}"], {}
    if way == "environment":
        return [], {"MEMFS_DATABASE": full}
    if way == "config":
        os.makedirs(home, mode=0o700)
        with open(os.path.join(home, "config"), "w", encoding="ascii",
                  opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(f'[memfs]\n\tdatabase = "{full}"\n')
        return [], {}
    passfile.write_text(f"127.0.0.1:{port}:memfs:agentic:{PASSWORD.replace(':', chr(92) + ':')}\n")
    passfile.chmod(0o600)
    return ["--database", bare], {"PGPASSFILE": str(passfile)}


@pytest.mark.parametrize("way", ["option", "parameter", "environment", "config", "passfile"])
def test_a_password_is_nowhere(memfs_bin, guarded, folder, way):
    home = str(folder / "s" / "home")
    args, env = ways(way, guarded.port, home, folder)
    s = Server(memfs_bin, folder / "s", args=args, env=env)
    if postgres.SHARED and "MEMFS_DATABASE" not in env:
        s.extra_env.pop("MEMFS_DATABASE")
    s.start()
    try:
        memory = filled(s, 1)[0]
        for pid in [s.pid, *s.children()]:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                assert b"pw0rd-canary" not in f.read()
        told = [s.get(path).body for path in ("/v1/health/", "/readyz", "/metrics")]
        told += [s.cli(*words, check=False).stdout for words in (["status"], ["doctor"])]
        guarded.crash()
        told.append(s.block(memory.agent, "system/persona").body)
        guarded.start()
        assert all(b"pw0rd-canary" not in text for text in told), told
        with open(os.path.join(home, "database"), "rb") as f:
            assert f.read() == b"postgresql://agentic@127.0.0.1:%d/memfs\n" % guarded.port
        memory.must_push({"system/persona.md": "after"})
        assert eventually(lambda: guarded.sql("SELECT count(*) FROM memfs.blocks", "memfs") == [["1"]])
    finally:
        s.stop()
    log = s.log()
    assert "pw0rd-canary" not in log
    assert ("could be seen by others" in log) == (way in ("option", "parameter")), log
    # only where the person put it themselves
    found = subprocess.run(["grep", "-rlaF", "pw0rd-canary", home], capture_output=True, text=True)
    assert found.stdout.split() == ([os.path.join(home, "config")] if way == "config" else [])


def test_a_password_that_is_refused_later_stops_no_push(memfs_bin, guarded, folder):
    url = f"postgresql://agentic:{ENCODED}@127.0.0.1:{guarded.port}/memfs"
    s = Server(memfs_bin, folder / "s", env={"MEMFS_DATABASE": url}).start()
    try:
        memories = filled(s)
        guarded.sql("ALTER ROLE agentic PASSWORD 'another'")
        guarded.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'agentic'")
        assert_git_goes_on(s, memories, folder)
        guarded.sql(f"ALTER ROLE agentic PASSWORD '{PASSWORD}'")
        assert eventually(lambda: all(s.block(m.agent, "system/persona").status == 200
                                      for m in memories)), s.log_tail()
    finally:
        s.stop()


def test_a_wrong_password_is_told_without_it(memfs_bin, guarded, folder):
    url = f"postgresql://agentic:{ENCODED}wrong@127.0.0.1:{guarded.port}/memfs"
    s = Server(memfs_bin, folder / "s", env={"MEMFS_DATABASE": url})
    code, log = refused_start(s)
    assert code == 6 and "password authentication failed" in log, log
    assert "pw0rd-canary" not in log


# -- commands, and moving -----------------------------------------------------------------------------


def test_commands_without_a_server(over, pg, folder):
    s = over().start()
    memory = filled(s, 1)[0]
    s.stop()
    for words in (["verify"], ["rebuild"], ["repack"], ["mirror", "status"], ["token", "list"]):
        s.cli(*words)
    assert memory.agent in s.cli("agents", "list").stdout.decode()
    assert b"system/persona" in s.cli("blocks", "list", "--agent", memory.agent).stdout
    s.cli("purge", "--agent", memory.agent, "--secret-stdin", input=b"before")
    s.rewrites_allowed = True
    assert pg.sql("SELECT count(*) FROM memfs.block_text WHERE value LIKE '%before%'",
                  "memfs") == [["0"]]
    # a token counts at the next start, and only its hash is there
    made = s.token()
    assert made["token"] not in postgres.dump(pg.url("memfs")).decode()
    s.expected_codes = (0,)
    bare = s.cli("agents", "list", check=False, env={"MEMFS_DATABASE": ""})
    assert bare.returncode != 0 and b"--database" in bare.stderr, bare.stderr


def test_backup_is_a_home_of_its_own_and_moves_in(over, servers, pg, folder):
    s = over().start()
    memories = filled(s)
    created = {m.agent: s.block(m.agent, "system/persona").json() for m in memories}
    s.cli("backup", folder / "copy")
    s.stop()
    restored = Server(s.binary, folder / "r", env={"MEMFS_DATABASE": ""})
    done = restored.cli("restore", "--from", folder / "copy")
    assert os.path.exists(os.path.join(restored.home, "state.db")), done.stdout
    assert not os.path.exists(os.path.join(restored.home, "database"))
    restored.start()
    try:
        for m in memories:
            assert restored.value(m.agent, "system/persona") == "before"
    finally:
        restored.stop()
    # and into another database
    restored.extra_env["MEMFS_DATABASE"] = pg.database("second")
    restored.start()
    try:
        for m in memories:
            assert restored.block(m.agent, "system/persona").json() == created[m.agent]
        assert not os.path.exists(os.path.join(restored.home, "state.db"))
        restored.verify()
    finally:
        restored.stop()


def test_the_client_leaves_the_servers_setting_alone(memfs_bin, folder):
    """Both read $MEMFS_HOME/config."""
    s = Server(memfs_bin, folder / "s", env={"MEMFS_HOME": str(folder / "s" / "home")})
    ways("config", 5432, s.home, folder)
    done = s.cli("config", home=False)
    assert b"memfs.database" not in done.stderr and b"pw0rd-canary" not in done.stdout + done.stderr
