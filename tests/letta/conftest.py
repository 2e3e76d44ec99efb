"""The real letta-code against the real memfs: where both come from.

    MEMFS_BIN   the binary under test (default build/memfs of the checkout)

The server under test, and what must hold after each test (fsck, verify, no secret at rest, refs only
forward), are the integration suite's own.
"""
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

from lib.server import Server  # noqa: E402  (found by the line above)


@pytest.fixture(scope="session")
def memfs_bin():
    return os.path.abspath(os.environ.get("MEMFS_BIN") or os.path.join(ROOT, "build", "memfs"))


@pytest.fixture
def memfs(memfs_bin, tmp_path):
    server = Server(memfs_bin, tmp_path / "memfs").start()
    try:
        yield server
        server.stop()
        server.check_clean()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def letta_folder():
    """Where the pinned clients are; installs what is missing."""
    done = subprocess.run([os.path.join(HERE, "install.sh")], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1200)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return os.path.join(ROOT, ".deps", "letta")
