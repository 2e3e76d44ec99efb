"""Fixtures of the integration tests: the real binary, a real git client, real HTTP, temp folders.

    MEMFS_BIN   the binary under test (default build/memfs of the checkout)
    SOAK=1      the long forms (before a release)
    MEMFS_TEST_DATABASE   a PostgreSQL server in which every memfs server gets a database of its own
                          (tests/with-postgres COMMAND sets it); else SQLite

Tests marked `lettaserver` run a real Letta server (lib/letta.py), which tests/letta-server/install
puts into .deps; they are `tests/run.py --only lettaserver`.

Every server that a test starts is stopped with SIGTERM, must exit with 0 and is then examined
(lib/server.py: D6, K1, S3, T20, H1).
"""
import os
import pathlib
import shutil
import signal
import tempfile

import pytest

pytest.register_assert_rewrite("lib.server", "lib.writer")

from lib import letta, postgres, summary
from lib.faultproxy import FaultProxy
from lib.gitcli import Git
from lib.modelapi import ModelApi
from lib.server import CANARY, Server, new_agent

signal.signal(signal.SIGHUP, signal.SIG_DFL)   # under nohup it would be ignored by all that is tested

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOAK = os.environ.get("SOAK") == "1"


def pytest_terminal_summary(terminalreporter):
    lines = summary.lines()
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line("measured: " + line)


def pytest_collection_modifyitems(config, items):
    """Tests that are nothing but long belong to SOAK=1, those about SQLite's files to SQLite; left
    out, not skipped: skips are counted."""
    unwanted = ([] if SOAK else ["soak"]) + (["sqlite"] if postgres.SHARED else [])
    out = [item for item in items if any(item.get_closest_marker(name) for name in unwanted)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, "rep_" + outcome.get_result().when, outcome.get_result())


@pytest.fixture(scope="session")
def memfs_bin():
    path = os.environ.get("MEMFS_BIN") or str(ROOT / "build" / "memfs")
    if not os.access(path, os.X_OK):
        pytest.exit(f"no binary at {path}: build it, or set MEMFS_BIN", returncode=2)
    return os.path.abspath(path)


@pytest.fixture
def folder(request):
    """A folder of the test's own; kept when the test failed and KEEP=1."""
    path = tempfile.mkdtemp(prefix="memfs-it-")
    os.chmod(path, 0o755)
    yield pathlib.Path(path)
    failed = getattr(getattr(request.node, "rep_call", None), "failed", False)
    if not (failed and os.environ.get("KEEP") == "1"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def servers(memfs_bin, folder, request):
    """Makes servers; stops and examines each of them at the end."""
    made = []

    def make(name="s", start=True, **kw):
        s = Server(memfs_bin, folder / name, **kw)
        made.append(s)
        return s.start() if start else s

    yield make
    failed = getattr(getattr(request.node, "rep_call", None), "failed", False)
    faults = []
    for s in made:
        try:
            s.stop()
            s.check_clean()
        except Exception as e:
            faults.append(e)
        finally:
            s.kill()
        if failed:
            print(f"--- log of {s.folder}\n{s.log_tail(60)}")
    if faults:
        raise faults[0]


@pytest.fixture
def server(servers):
    return servers()


@pytest.fixture(scope="module")
def shared_server(memfs_bin):
    """One server for a whole file of tests that each look after their own agent, examined at the
    end.  Call it for the server; one that died is a fault, and the next test has a live one."""
    path = tempfile.mkdtemp(prefix="memfs-it-")
    s = Server(memfs_bin, path)
    faults = []

    def get():
        if not s.running:
            if s.process is not None:
                faults.append(f"the shared server died with {s.process.returncode}:\n"
                              f"{s.log_tail()}")
            s.start()
        return s

    yield get
    try:
        s.stop()
        s.check_clean()
    finally:
        s.kill()
        shutil.rmtree(path, ignore_errors=True)
    assert not faults, faults[0]


@pytest.fixture(scope="session")
def letta_folder():
    letta.install()
    path = tempfile.mkdtemp(prefix="memfs-letta-")
    os.chmod(path, 0o755)
    yield pathlib.Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def letta_postgres(letta_folder):
    """The url of a PostgreSQL server for Letta's databases."""
    if postgres.SHARED:
        yield postgres.SHARED
    else:
        with postgres.Postgres(letta_folder / "pg") as pg:
            yield pg.url()


@pytest.fixture(scope="session")
def model_api():
    with ModelApi() as api:
        yield api


@pytest.fixture(scope="session")
def plain_letta(letta_folder, letta_postgres, model_api):
    """A Letta server without a memfs service.  A start takes long: one for the whole session."""
    server = letta.LettaServer(letta_postgres, letta_folder / "plain", model_api)
    try:
        yield server.start()
        server.stop()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def service_letta(letta_folder, letta_postgres, model_api):
    """A Letta server whose memfs service is whoever a test says: service_letta.serve(port).  Between
    the two is service_letta.way, a FaultProxy.  The folder they share is service_letta.memfs_root."""
    with FaultProxy("127.0.0.1", 9) as way:
        server = letta.LettaServer(letta_postgres, letta_folder / "service", model_api,
                                   memfs_url=f"http://127.0.0.1:{way.port}/")
        server.way = way
        try:
            yield server.start()
            server.stop()
        finally:
            server.kill()


@pytest.fixture
def agent():
    return new_agent


@pytest.fixture
def git(folder):
    return Git(folder / "githome", CANARY)


@pytest.fixture
def scale():
    """scale(ci, soak): the size of a test."""
    return lambda ci, soak: soak if SOAK else ci
