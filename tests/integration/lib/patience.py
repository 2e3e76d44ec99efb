"""Waiting for states, never for times: a slow machine makes a test slow, not red."""
import os
import shutil
import time


class Late(AssertionError):
    """A state did not come before its deadline: something hangs, or the machine had too much else to do.

    The runner tells which: it runs such a test once more, with nothing beside it (tests/run.py)."""


def wait(good, what="it", seconds=90):
    """Until good() → what it said.  what: words, or a call for them, for when it is too late."""
    deadline = time.monotonic() + seconds
    while True:
        found = good()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Late(f"{what() if callable(what) else what}: not in {seconds} s")
        time.sleep(0.05)


def settled(read, quiet_s=2.0, seconds=90):
    """What read() returns once it has stayed the same for quiet_s."""
    deadline = time.monotonic() + seconds
    value, since = read(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        if time.monotonic() > deadline:
            raise Late(f"it does not come to rest: {value}")
        time.sleep(0.05)
        now = read()
        if now != value:
            value, since = now, time.monotonic()
    return value


def remove_tree(path, seconds=30):
    """rm -rf of a folder in which others may be at work meanwhile."""
    deadline = time.monotonic() + seconds
    while os.path.lexists(path):
        if time.monotonic() > deadline:
            raise Late(f"{path} comes back")
        shutil.rmtree(path, ignore_errors=True)
