"""`memfs tokens` answers as `letta memory tokens` does: directory, files, rounding, order, exit codes."""
import json
import os

import pytest

from lib.client import Home
from lib.server import new_agent


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def memory(folder):
    return folder / "memory"


def fill(memory, files):
    for path, data in files.items():
        full = os.path.join(memory, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)


def count(home, *args, code=0, **kw):
    return json.loads(home.run("tokens", "--format", "json", *args, code=code, **kw).stdout)


def test_files_and_rounding(home, memory):
    fill(memory, {
        "system/a.md": b"12345", "system/b/c.md": b"", "system/b/d.md": b"1234",
        "system/notes.txt": b"no", "system/.hidden.md": b"no", "system/.git/x.md": b"no",
        "other/x.md": b"no", "top.md": b"no",
    })
    os.symlink("a.md", memory / "system" / "link.md")
    os.symlink("b", memory / "system" / "linked")
    assert count(home, "--memory-dir", memory) == {"total_tokens": 3, "files": [
        {"path": "system/a.md", "tokens": 2}, {"path": "system/b/c.md", "tokens": 0},
        {"path": "system/b/d.md", "tokens": 1}]}


def test_invalid_bytes_count_as_three(home, memory):
    """U+FFFD in UTF-8, as the client reads it."""
    fill(memory, {"system/a.md": b"\xff\xff\xff", "system/b.md": "é".encode() * 2})
    assert [f["tokens"] for f in count(home, "--memory-dir", memory)["files"]] == [3, 1]


def test_order_is_by_utf16_code_units(home, memory):
    """JavaScript compares halves of surrogate pairs: U+1F600 comes before U+FF5E."""
    names = ["a.md", "b-c.md", "b/c.md", "\uff5e.md", "\U0001f600.md"]
    fill(memory, {"system/" + name: b"x" for name in names})
    got = [f["path"] for f in count(home, "--memory-dir", memory)["files"]]
    assert got == sorted(["system/" + n for n in names], key=lambda n: n.encode("utf-16-be"))
    assert got.index("system/\U0001f600.md") < got.index("system/\uff5e.md")


def test_the_second_layout_counts_the_top(home, memory):
    fill(memory, {"MEMORY.md": b"1234", "people.md": b"12345678", "system/a.md": b"x" * 400,
                  "deep/x.md": b"x" * 400})
    assert count(home, "--memory-dir", memory) == {"total_tokens": 3, "files": [
        {"path": "MEMORY.md", "tokens": 1}, {"path": "people.md", "tokens": 2}]}
    local = {"LETTA_LOCAL_BACKEND_EXPERIMENTAL": "1"}
    assert count(home, "--memory-dir", memory, env=local)["total_tokens"] == 100


def test_the_json_is_indented_by_two(home, memory):
    fill(memory, {"system/a.md": b"1234"})
    assert home.run("tokens", "--format", "json", "--memory-dir", memory).stdout == (
        b'{\n  "total_tokens": 1,\n  "files": [\n    {\n      "path": "system/a.md",\n'
        b'      "tokens": 1\n    }\n  ]\n}\n')
    assert home.run("tokens", "--format", "json", "--memory-dir", memory / "none").stdout == (
        b'{\n  "total_tokens": 0,\n  "files": []\n}\n')


def test_text_shows_the_largest_first(home, memory):
    fill(memory, {f"system/{i:02}.md": b"x" * 4 * (i + 1) for i in range(25)})
    fill(memory, {"system/big.md": b"x" * 4 * 12345})
    lines = home.run("tokens", "--memory-dir", memory).stdout.decode().splitlines()
    files = [line.split() for line in lines if line.startswith("  ")]
    assert "Total: 12,670" in lines
    assert files[0] == ["12,345", "system/big.md"] and files[1] == ["25", "system/24.md"]
    assert len(files) == 20
    assert len(home.run("tokens", "--memory-dir", memory, "--top", "3").stdout.splitlines()) == 6
    for quiet in (["--top", "0"], ["--quiet"]):
        out = home.run("tokens", "--memory-dir", memory, *quiet).stdout
        assert b"12,670" in out and b"system/" not in out


def test_which_folder(home, folder):
    a, b = new_agent(), new_agent()
    fill(folder / "given", {"system/a.md": b"x"})
    fill(folder / "env", {"system/a.md": b"x" * 8})
    fill(home.memory(a), {"system/a.md": b"x" * 12})
    fill(home.memory(b), {"system/a.md": b"x" * 16})
    env = {"MEMORY_DIR": str(folder / "env"), "LETTA_AGENT_ID": a}
    assert count(home, "--memory-dir", folder / "given", "--agent", b, env=env)["total_tokens"] == 1
    assert count(home, "--agent", b, env=env)["total_tokens"] == 2
    env = {"LETTA_AGENT_ID": a}
    assert count(home, env=env)["total_tokens"] == 3
    assert count(home, "--agent", b, env=env)["total_tokens"] == 4
    assert count(home, "--agent-id", b, env=env)["total_tokens"] == 4


@pytest.mark.parametrize("args", [[], ["--format", "xml"], ["--top", "x"], ["--top", "-1"],
                                  ["--no-such-option"], ["--agent", "agent-x"]])
def test_wrong_usage_is_64(home, memory, args):
    extra = ["--memory-dir", memory] if args and args[0] != "--agent" else []
    assert home.run("tokens", *args, *extra, code=64).stdout == b""


def test_what_cannot_be_read_is_65(home, memory):
    """As root nothing is unreadable, but a loop of folders' names is."""
    deep = memory / "system"
    for _ in range(70):
        deep = deep / "d"
    os.makedirs(deep)
    home.run("tokens", "--memory-dir", memory, code=65)
