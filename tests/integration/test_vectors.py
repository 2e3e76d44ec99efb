"""The compatibility vectors: what the reference gave, byte for byte.

Every file of tests/vectors is piped through `memfs debug vectors SET` and compared by the rules of the
vectors' README: all fields of "out" and no others, types count (1, 1.0, true and "1" differ), the order
inside nested mappings counts, members of a $set come in any order, any error stands for an error.

Cases with a "quirk" are accidents of the reference's plumbing and counted apart; where the plain rules
say something else ("plain"), that is what we answer.  A case may be listed in tests/vectors/skip.txt,
"SET NAME REASON", at most 1 % of a set.
"""
import collections
import json
import math
import pathlib
import select
import subprocess

import pytest

from lib import summary

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors"
SETS = ["parse", "serialize", "merge", "path_to_label", "block_id", "precommit"]


def load(name):
    """The cases of a set; splitlines() would also split at U+2028 and the like."""
    text = (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def skipped(name):
    path = VECTORS / "skip.txt"
    rows = [line.split(None, 2) for line in path.read_text().split("\n")
            if line and not line.startswith("#")] if path.exists() else []
    for row in rows:
        assert len(row) == 3 and row[0] in SETS, f"skip.txt: {row} lacks a set, a name or a reason"
    return {row[1] for row in rows if row[0] == name}


def answers(memfs_bin, name, cases):
    """What the program answers, by case; the file is piped in as it is, extra fields and all."""
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    run = subprocess.run([memfs_bin, "debug", "vectors", name], input=lines.encode(),
                         capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    given = {}
    for line in run.stdout.decode("utf-8").split("\n"):
        if line:
            answer = json.loads(line)
            assert set(answer) == {"name", "out"} and answer["name"] not in given
            given[answer["name"]] = answer["out"]
    return given


def is_equal(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        if list(a) == ["$set"] == list(b):
            return sorted(map(json.dumps, a["$set"])) == sorted(map(json.dumps, b["$set"]))
        return list(a) == list(b) and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(is_equal, a, b))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return a == b


def is_answer(expected, given):
    if given is None:
        return False
    if "error" in expected:
        return "error" in given
    return set(expected) == set(given) and all(is_equal(expected[k], given[k]) for k in expected)


def expected_of(case):
    return case.get("plain", case["out"]) if "quirk" in case else case["out"]


@pytest.mark.parametrize("name", SETS)
def test_K1_vectors(memfs_bin, name):
    cases = load(name)
    assert len({case["name"] for case in cases}) == len(cases)
    left_out = skipped(name)
    assert left_out <= {case["name"] for case in cases}, "skip.txt names cases that are not there"
    assert len(left_out) <= len(cases) / 100, "more than 1 % of the set is left out"
    given = answers(memfs_bin, name, cases)
    assert len(given) == len(cases)
    wrong = [case for case in cases if case["name"] not in left_out
             and ("quirk" not in case or "plain" in case)
             and not is_answer(expected_of(case), given[case["name"]])]
    quirks = collections.Counter(case["quirk"] for case in cases if "quirk" in case)
    summary.count(f"vectors {name}", cases=len(cases) - sum(quirks.values()),
                  quirks=sum(quirks.values()), wrong=len(wrong), left_out=len(left_out))
    assert not wrong, "\n".join(
        f"{case['name']}\n  in       {json.dumps(case['in'])[:600]}\n"
        f"  expected {json.dumps(expected_of(case))[:600]}\n"
        f"  given    {json.dumps(given[case['name']])[:600]}" for case in wrong[:10])


def test_the_comparison_can_fail():
    assert not is_answer({"value": 1}, {"value": 1.0})
    assert not is_answer({"value": True}, {"value": 1})
    assert not is_answer({"value": {"a": 1, "b": 2}}, {"value": {"b": 2, "a": 1}})
    assert not is_answer({"value": ""}, {"value": "", "limit": None})
    assert not is_answer({"value": -0.0}, {"value": 0.0})
    assert not is_answer({"value": ""}, {"error": "x"})
    assert is_answer({"error": "x"}, {"error": "y"})
    assert is_answer({"a": {"$set": [1, 2]}}, {"a": {"$set": [2, 1]}})


def test_lines_are_answered_while_more_are_to_come(memfs_bin):
    """The answer to a line of 200 kB is there before the next line is written."""
    child = subprocess.Popen([memfs_bin, "debug", "vectors", "parse"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    try:
        content = "---\ndescription: d\n---\n" + "x\u2028é\u0000" * 40000
        for name in ("one", "two"):
            child.stdin.write(json.dumps({"name": name, "in": {"content": content}}).encode() + b"\n")
            child.stdin.flush()
            assert select.select([child.stdout], [], [], 20)[0], "no answer before the next line"
            answer = json.loads(child.stdout.readline())
            assert answer["name"] == name
            assert answer["out"] == {"value": content[23:], "description": "d"}
        child.stdin.close()
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("arguments, stdin", [
    (["vectors", "nonsense"], ""),
    (["vectors"], ""),
    (["nonsense", "parse"], ""),
    (["vectors", "parse"], "not json\n"),
    (["vectors", "parse"], '{"name": "x"}\n'),
])
def test_wrong_usage_exits_with_2(memfs_bin, arguments, stdin):
    run = subprocess.run([memfs_bin, "debug", *arguments], input=stdin.encode(), capture_output=True,
                         timeout=20)
    assert run.returncode == 2
    assert run.stdout == b""
    assert run.stderr
