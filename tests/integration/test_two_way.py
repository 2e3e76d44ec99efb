"""Two homes, one bare repository between them, edits on both sides: nothing is lost, nobody is asked.

Each round commits at random in one or both homes with plain git (the hooks that memfs installed run), then syncs
one, both or neither.  At the end both homes and the remote are on one tip; every line that was ever
committed is in it, or was deleted by a commit; no conflict marker is anywhere; git finds no fault.
"""
import os
import random
import uuid

import pytest

from lib import summary
from lib.twoway import Machine, TRANSPORTS

MARKERS = ("<<<<<<<", ">>>>>>>", "=======", "|||||||")


class Lines:
    """What was committed and what commits deleted; a line's text is unique for ever."""

    def __init__(self):
        self.written, self.deleted, self.counter = set(), set(), 0

    def new(self, who):
        self.counter += 1
        line = "%s says %d %s" % (who, self.counter, uuid.uuid4().hex[:8])
        self.written.add(line)
        return line


def files_of(memory):
    found = []
    for root, folders, names in os.walk(memory):
        folders[:] = [f for f in folders if f != ".git"]
        found += [os.path.relpath(os.path.join(root, n), memory) for n in names if n.endswith(".md")]
    return sorted(found)


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return f.read().split("\n")


def write_lines(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(lines))


def body_start(lines):
    return lines.index("---", 1) + 1 if lines[:1] == ["---"] and "---" in lines[1:] else 0


def edit(rng, machine, lines):
    """One random edit of one file, committed."""
    memory = machine.memory
    names = files_of(memory)
    kind = rng.choice(["append", "insert", "insert", "delete-line", "describe", "new", "remove", "rename"])
    if not names or (kind == "new" and len(names) < 12):
        path = "system/%s-%d.md" % (machine.name, lines.counter)
        write_lines(os.path.join(memory, path),
                    ["---", "description: of %s" % machine.name, "---", lines.new(machine.name), ""])
    else:
        path = rng.choice(names)
        full = os.path.join(memory, path)
        text = read_lines(full)
        start = body_start(text)
        if kind == "append" or kind == "new":
            text[len(text) - (text[-1] == ""):] = [lines.new(machine.name), ""]
            write_lines(full, text)
        elif kind == "insert":
            text.insert(rng.randint(start, max(start, len(text) - 1)), lines.new(machine.name))
            write_lines(full, text)
        elif kind == "delete-line" and len(text) - start > 3:
            at = rng.randint(start, len(text) - 2)
            lines.deleted.add(text.pop(at))
            write_lines(full, text)
        elif kind == "describe" and start >= 3:
            text[1:start - 1] = ["description: %s" % lines.new(machine.name)]
            lines.deleted |= {text[1][len("description: "):]}  # a key has one value; the other is in the log
            write_lines(full, text)
        elif kind == "remove" and len(names) > 4:
            lines.deleted |= set(text)
            os.unlink(full)
        elif kind == "rename":
            to = "system/moved-%d.md" % lines.counter
            lines.counter += 1
            os.rename(full, os.path.join(memory, to))
    machine.git("add", "-A")
    if machine.git("status", "--porcelain"):
        machine.git("commit", "-q", "-m", "%s: %s" % (machine.name, kind))


def settle(a, b):
    """Until nobody has anything new; a handful of rounds at most, or there is ping-pong (F28)."""
    for _ in range(4):
        a.sync()
        b.sync()
        if a.tip() == b.tip() == a.remote_tip():
            return
    raise AssertionError("the homes do not settle: %s %s" % (a.tip(), b.tip()))


def check_nothing_lost(machine, lines):
    there = set()
    for path in files_of(machine.memory):
        text = read_lines(os.path.join(machine.memory, path))
        assert not [t for t in text if t.startswith(MARKERS)], path
        there |= set(text)
    lost = lines.written - lines.deleted - there
    assert not lost, sorted(lost)[:5]


@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
def test_H2_F28_two_homes_lose_no_line(transport, memfs_bin, folder, scale):
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 30))
    print("SEED=%d" % seed)
    rng = random.Random(seed)
    rounds = scale({"path": 24, "ssh": 12, "https": 12}[transport], 1000)
    lines = Lines()
    agent = "agent-%s" % uuid.UUID(int=rng.getrandbits(128), version=4)
    with TRANSPORTS[transport](folder) as remote:
        a, b = (Machine(memfs_bin, folder / name, name, agent, remote) for name in ("anna", "bert"))
        for machine in (a, b):
            machine.apply()
        for i in range(rounds):
            for machine in rng.choice([(a,), (b,), (a, b), (b, a)]):
                for _ in range(rng.choice([1, 1, 2])):
                    edit(rng, machine, lines)
            for machine in rng.choice([(a,), (b,), (a, b), (b, a), ()]):
                machine.sync()
            if i % 50 == 49:
                settle(a, b)
                check_nothing_lost(a, lines)
        settle(a, b)
        for machine in (a, b):
            assert machine.git("status", "--porcelain") == ""
            machine.git("fsck", "--full", "--strict")
            check_nothing_lost(machine, lines)
            machine.check_no_secret()
        merges = a.git("rev-list", "--merges", "--count", "main").strip()
        summary.count("two_way", **{"%s_rounds" % transport: rounds,
                                    "%s_merges" % transport: int(merges),
                                    "%s_lines" % transport: len(lines.written)})
