"""Waiting for states, never for times: a slow machine makes a test slow, not red."""
import os
import shutil
import time


def settled(read, quiet_s=2.0, seconds=90):
    """What read() returns once it has stayed the same for quiet_s."""
    deadline = time.monotonic() + seconds
    value, since = read(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < deadline, f"it does not come to rest: {value}"
        time.sleep(0.05)
        now = read()
        if now != value:
            value, since = now, time.monotonic()
    return value


def remove_tree(path, seconds=30):
    """rm -rf of a folder in which others may be at work meanwhile."""
    deadline = time.monotonic() + seconds
    while os.path.lexists(path):
        assert time.monotonic() < deadline, f"{path} comes back"
        shutil.rmtree(path, ignore_errors=True)
