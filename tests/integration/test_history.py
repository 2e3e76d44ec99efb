"""A memory's past over REST: history, diff, the blocks of a commit, and revert (contract http-api 10).

One server for all of it; each test reads one memory, or makes one of its own where it writes.  What git
itself says of the same repository is what the answers are compared with.
"""
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from concurrent import futures

import pytest

from lib import wire
from lib.authmatrix import Client, bearer
from lib.server import new_agent
from lib.writer import Memory

KEYS = ["sha", "parent_sha", "message", "author_type", "author_id", "author_name", "timestamp",
        "files_changed", "additions", "deletions"]
FILE_KEYS = ["status", "path", "old_path", "blob", "old_blob", "binary", "additions", "deletions",
             "patch", "truncated"]
LONG = "".join(f"line {n} of a text that is long enough\n" for n in range(30))
STEPS = [
    {"system/human.md": "---\ndescription: who\n---\nLikes tea.\n", "notes/plan.md": LONG},
    {"system/human.md": "---\ndescription: who\n---\nLikes tea and bread.\n"},
    {"skills/brew/SKILL.md": "---\nname: brew\ndescription: how\n---\nBoil water.\n",
     "raw.bin": b"\x00\x01\x02", "empty.md": ""},
    {"notes/plan.md": None, "notes/idea.md": LONG.replace("line 7 ", "line seven ")},
    {"raw.bin": b"\x00\x03", "größe/näme.md": "ümläut \"quoted\" \\ back\n",
     'so "called".md': "no newline at its end"},
    {"system/human.md": None},
    {"system/human.md": "again\n", "no-end.md": "no newline at its end"},
]


class Past:
    """A memory of some commits, and what the API said of it after each."""

    def __init__(self, server, steps=STEPS):
        self.server, self.agent = server, new_agent()
        self.memory = Memory(server, self.agent)
        self.blocks = {}
        for changes in steps:
            self.push(changes)

    def push(self, changes, **kw):
        sha = self.memory.must_push(changes, **kw)
        self.blocks[sha] = by_label(self.get("core-memory/blocks?limit=0"))
        return sha

    @property
    def shas(self):
        return [sha for sha, _ in self.memory.acked]

    def ask(self, target, **kw):
        return self.server.get(f"/v1/agents/{self.agent}/{target}", **kw)

    def get(self, target):
        answer = self.ask(target)
        assert answer.status == 200, (target, answer)
        return answer.json()

    def history(self, query=""):
        return self.get("memory/history" + query)

    def revert(self, body, headers=None, method="POST"):
        return self.server.request(method, f"/v1/agents/{self.agent}/memory/revert",
                                   json.dumps(body).encode(), headers or {})

    def reverted(self, body, **kw):
        answer = self.revert(body, **kw)
        assert answer.status == 200, answer
        return answer.json()

    def git(self, *args):
        return self.server.git_dir(self.agent, *args).stdout.decode()

    def files(self, commit="main"):
        names = self.server.git_dir(self.agent, "ls-tree", "-rz", "--name-only", commit).stdout
        return {n.decode(): self.server.git_dir(self.agent, "show", f"{commit}:{n.decode()}").stdout
                for n in names.split(b"\0") if n}


def by_label(blocks):
    return {b["label"]: b for b in blocks}


@pytest.fixture(scope="module")
def past(shared_server):
    p = Past(shared_server())
    yield p
    p.memory.close()


@pytest.fixture
def own(shared_server):
    p = Past(shared_server(), STEPS[:2])
    yield p
    p.memory.close()


# ---- history -------------------------------------------------------------------------------------

def test_10_history_has_the_fields_of_the_contract_newest_first(past):
    rows = past.history()
    assert [r["sha"] for r in rows] == past.git("rev-list", "main").split()
    assert all(list(r) == KEYS for r in rows)
    for row, older in zip(rows, rows[1:]):
        assert row["parent_sha"] == older["sha"]
    assert (rows[-1]["sha"], rows[-1]["parent_sha"], rows[-1]["files_changed"]) == (
        wire.GENESIS, None, [])
    assert rows[0]["message"] == f"change {len(STEPS)} of {past.agent}"
    assert rows[0]["timestamp"] == "2026-01-01T00:00:07Z"


def test_10_files_and_lines_are_those_of_git(past):
    for row in past.history():
        stat = past.git("show", "--format=", "--no-renames", "--numstat", "-z", row["sha"])
        lines = [line.split("\t") for line in stat.split("\0") if line]
        assert row["files_changed"] == sorted((name for _, _, name in lines), key=str.encode)
        assert row["additions"] == sum(int(n) for n, _, _ in lines if n != "-")
        assert row["deletions"] == sum(int(n) for _, n, _ in lines if n != "-")


def test_10_pages_by_before_and_limit_are_the_whole(past):
    whole, pages, before = past.history("?limit=0"), [], ""
    while True:
        page = past.history(f"?limit=3{before}")
        pages += page
        if len(page) < 3:
            break
        before = "&before=" + page[-1]["sha"]
    assert pages == whole
    assert past.history("?limit=2&before=" + whole[1]["sha"][:9]) == whole[2:4]


@pytest.mark.parametrize("query,path", [
    ("?label=system/human", "system/human.md"), ("?label=system%2Fhuman", "system/human.md"),
    ("?label=skills/brew", "skills/brew/SKILL.md"), ("?path=raw.bin", "raw.bin"),
    ("?path=notes/plan.md", "notes/plan.md"), ("?path=gr%C3%B6%C3%9Fe/n%C3%A4me.md", "größe/näme.md"),
])
def test_10_history_of_a_file_has_the_commits_that_changed_it(past, query, path):
    rows = past.history(query)
    assert [r["sha"] for r in rows] == past.git("log", "--format=%H", "main", "--", path).split()
    assert rows and all(path in r["files_changed"] for r in rows)
    assert past.history(f"{query}&limit=1") == rows[:1]
    assert past.history(f"{query}&before={rows[0]['sha']}") == rows[1:]


def test_10_a_file_list_goes_on_after_any_commit(past):
    rows = past.history("?path=raw.bin")
    for n, sha in enumerate(past.shas):
        older = [r for r in rows if r["sha"] in past.shas[:n]]
        assert past.history(f"?path=raw.bin&before={sha}") == older


def test_D5_history_of_a_file_outlives_the_cache(own):
    own.push({"notes/plan.md": "other\n"})
    before = own.history("?label=system/human")
    assert [r["sha"] for r in before] == own.shas[1::-1]
    own.server.cli("rebuild", "--agent", own.agent)
    assert own.history("?label=system/human") == before
    own.push({"system/human.md": "newer\n"})
    assert own.history("?label=system/human")[1:] == before


def test_history_of_a_file_does_not_walk_what_lies_between(server):
    """Once asked for, a file's history costs its own commits: those between may even be unreadable."""
    p = Past(server, [{"a.md": "one\n"}])
    packs = pathlib.Path(server.repository(p.agent), "objects", "pack")
    before = set(packs.glob("*.pack"))
    p.push({"b.md": "two\n"})
    (pack,) = set(packs.glob("*.pack")) - before
    p.push({"b.md": "three\n"})
    rows = p.history("?path=a.md")
    assert [r["sha"] for r in rows] == p.shas[:1]
    server.damaged.add(p.agent)
    for part in (pack, pack.with_suffix(".idx")):
        part.rename(part.with_suffix(part.suffix + ".away"))
    assert p.history("?path=a.md") == rows
    assert p.ask("memory/history").status == 503
    assert p.ask("core-memory/blocks").status == 503       # F12: fenced until it is whole again
    for part in (pack, pack.with_suffix(".idx")):
        part.with_suffix(part.suffix + ".away").rename(part)
    server.damaged.clear()
    server.cli("verify")
    assert len(p.history()) == 4
    p.memory.close()


def test_10_what_never_was_has_no_history(past):
    assert past.history("?label=system/nobody") == [] == past.history("?path=system")


def test_10_history_says_who_wrote_a_commit(shared_server):
    p = Past(shared_server(), [])
    user = "user-00000000-0000-4000-8000-000000000000"
    wanted = [("agent", p.agent, f"Ada <{p.agent}@letta.com>"), ("user", user, f"U <{user}@letta.ai>"),
              ("user", "", "Agent Smith <agent@example.org>"), ("system", "", "memfs <memfs@localhost>"),
              ("user", "1a2b3c4d", "token 1a2b3c4d <token-1a2b3c4d@memfs.localhost>")]
    for n, (_, _, who) in enumerate(wanted):
        objects = wire.Objects()
        tree = objects.tree_of({"a.md": f"{n}\n"})
        commit = objects.commit(tree, [p.memory.tip], who=who)
        assert p.memory.send([(p.memory.tip, commit, wire.MAIN)], objects.pack()).acked
        p.memory.tip = commit
    rows = p.history()[::-1][1:]
    assert [(r["author_type"], r["author_id"]) for r in rows] == [w[:2] for w in wanted]
    assert [r["author_name"] for r in rows] == [w[2].rsplit(" <", 1)[0] for w in wanted]
    p.memory.close()


def test_10_a_merge_changed_what_it_decided_itself(shared_server):
    """Both sides of a merge are in the history, whatever their dates (H7), and pages lose none."""
    p = Past(shared_server(), [{"a.md": "base\n", "b.md": "base\n"}])
    objects = wire.Objects()
    base = p.memory.tip
    left = objects.commit(objects.tree_of({"a.md": "left\n", "b.md": "base\n"}), [base], "left\n",
                          when=4000000000)
    right = objects.commit(objects.tree_of({"a.md": "base\n", "b.md": "right\n"}), [base], "right\n",
                           when=1000)
    merge = objects.commit(objects.tree_of({"a.md": "left\n", "b.md": "right\n", "c.md": "both\n"}),
                           [left, right], "merge\n", when=2000)
    assert p.memory.send([(base, merge, wire.MAIN)], objects.pack()).acked
    rows = p.history()
    assert {r["sha"] for r in rows} == {merge, left, right, base, wire.GENESIS}
    assert rows[0]["files_changed"] == ["c.md"] and rows[0]["parent_sha"] == left
    assert (rows[0]["additions"], rows[0]["deletions"]) == (1, 0)
    assert p.history("?limit=2") + p.history(f"?before={rows[1]['sha']}") == rows
    assert [r["sha"] for r in p.history("?path=b.md")] == [right, base]
    p.memory.close()


def test_10_history_is_not_sent_again_while_main_stays(own):
    first = own.ask("memory/history")
    again = own.ask("memory/history", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    own.push({"new.md": "x\n"})
    later = own.ask("memory/history", headers={"If-None-Match": first.headers["etag"]})
    assert later.status == 200 and len(later.json()) == len(first.json()) + 1


# ---- diff ----------------------------------------------------------------------------------------

STATUS = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed"}


def status_by_git(past, old, new):
    words = past.git("diff", "--name-status", "-M", "-z", old, new).split("\0")[:-1]
    rows = []
    while words:
        status = words.pop(0)[0]
        old_path = words.pop(0) if status == "R" else None
        rows.append((STATUS[status], old_path, words.pop(0)))
    return sorted(rows, key=lambda r: r[2].encode())


def test_diff_names_the_files_as_git_does(past):
    shas = [wire.GENESIS] + past.shas
    for old, new in [*zip(shas, shas[1:]), (shas[0], shas[-1]), (shas[-1], shas[1])]:
        answer = past.get(f"memory/diff?from={old}&to={new}")
        assert list(answer) == ["from", "to", "files", "additions", "deletions", "truncated"]
        assert all(list(f) == FILE_KEYS for f in answer["files"])
        got = [(f["status"], f["old_path"], f["path"]) for f in answer["files"]]
        assert got == status_by_git(past, old, new)
        assert (answer["from"], answer["to"], answer["truncated"]) == (old, new, False)
        stat = past.git("diff", "--shortstat", "-M", old, new)
        for word, key in (("insertion", "additions"), ("deletion", "deletions")):
            n = re.search(rf"(\d+) {word}", stat)
            assert answer[key] == (int(n.group(1)) if n else 0) == sum(f[key] for f in answer["files"])
        for f in answer["files"]:
            for at, key, path in ((old, "old_blob", f["old_path"] or f["path"]),
                                  (new, "blob", f["path"])):
                known = past.git("ls-tree", at, path).split()
                assert f[key] == (known[2] if known else None)


def test_diff_makes_patches_that_git_applies(past):
    """The patches together turn the files of one commit into those of the other, back and forth."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="memfs-it-"))
    try:
        for n, (old, new) in enumerate([(past.shas[0], past.shas[-1]), (past.shas[-1], past.shas[1])]):
            work = folder / str(n)
            for path, data in past.files(old).items():
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                (work / path).write_bytes(data)
            files = past.get(f"memory/diff?from={old}&to={new}")["files"]
            patch = "".join(f["patch"] for f in files if not f["binary"])
            subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=work, check=True)
            binary = {f["path"] for f in files if f["binary"]}
            got = {str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file()}
            for name in binary:
                got.pop(name, None)
            assert got == {k: v for k, v in past.files(new).items() if k not in binary}
    finally:
        shutil.rmtree(folder)


def test_diff_without_from_is_what_the_commit_changed(past):
    for sha, parent in zip(past.shas, [wire.GENESIS] + past.shas):
        assert past.get(f"memory/diff?to={sha}") == past.get(f"memory/diff?from={parent}&to={sha}")
    assert past.get("memory/diff") == past.get(f"memory/diff?to={past.shas[-1]}")
    genesis = past.get(f"memory/diff?to={wire.GENESIS}")
    assert (genesis["from"], genesis["files"]) == (None, [])


@pytest.mark.parametrize("query,paths", [
    ("label=system/human", ["system/human.md"]), ("path=notes/idea.md", ["notes/idea.md"]),
    ("path=notes/plan.md", ["notes/idea.md"]), ("path=notes", ["notes/idea.md"]),
    ("path=skills/", ["skills/brew/SKILL.md"]), ("path=note", []), ("label=nothing", []),
])
def test_diff_of_one_file_or_folder(past, query, paths):
    answer = past.get(f"memory/diff?from={past.shas[0]}&{query}")
    assert [f["path"] for f in answer["files"]] == paths


def test_diff_without_patches_counts_all_the_same(past):
    whole = past.get(f"memory/diff?from={past.shas[0]}")
    bare = past.get(f"memory/diff?from={past.shas[0]}&patch=false")
    for f in whole["files"]:
        f["patch"] = None
    assert bare == whole


def test_diff_is_bounded(shared_server):
    """T14: files beyond the bound are named, without lines; the answer says that it is cut."""
    big = "".join(f"{n} some words to fill a line\n" for n in range(30000))
    p = Past(shared_server(), [{f"{n}.md": big for n in range(4)} | {"huge.bin": "x" * (2 << 20)}])
    answer = p.get("memory/diff")
    assert answer["truncated"] is True and len(answer["files"]) == 5
    cut = [f["path"] for f in answer["files"] if f["truncated"]]
    assert "huge.bin" in cut and 1 < len(cut) < 5
    assert all((f["patch"] is None) == f["truncated"] for f in answer["files"])
    p.memory.close()


# ---- the blocks of a commit ----------------------------------------------------------------------

def test_K1_the_blocks_of_a_commit_are_those_that_the_api_showed_then(past):
    for sha, blocks in past.blocks.items():
        rows = past.get(f"memory/at/{sha}/blocks")
        assert by_label(rows) == blocks and len(rows) == len(blocks)
        assert [r["label"] for r in rows] == [r["label"] for r in past.get(f"memory/at/{sha[:12]}/blocks")]
    assert past.get(f"memory/at/{wire.GENESIS}/blocks") == []


def test_the_blocks_of_a_commit_may_be_asked_by_label(past):
    sha = past.shas[1]
    (row,) = past.get(f"memory/at/{sha}/blocks?label=system/human")
    assert row == past.blocks[sha]["system/human"]
    assert past.get(f"memory/at/{past.shas[5]}/blocks?label=system/human") == []


# ---- what may be named ---------------------------------------------------------------------------

def ways(commit):
    return [f"memory/history?before={commit}", f"memory/diff?from={commit}", f"memory/diff?to={commit}",
            f"memory/at/{commit}/blocks"]


def test_T28_H6_only_commits_of_mains_history_are_there(own):
    """A commit that lies in the repository and that main does not lead to (a backup, a refused push)
    is as unknown as one that nobody ever made."""
    tree = own.git("rev-parse", "main^{tree}").strip()
    beside = own.git("-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", tree, "-m", "x").strip()
    own.git("update-ref", "refs/memfs/backup/x", beside)
    blob = own.git("rev-parse", "main:system/human.md").strip()
    for sha in (beside, blob, tree, "1" * 40, beside[:10]):
        said = f"there is no commit '{sha}' in main's history"
        for way in ways(sha):
            answer = own.ask(way)
            assert answer.status == 404 and answer.detail == said, (way, answer)
        answer = own.revert({"commit": sha})
        assert answer.status == 404 and answer.detail == said
    own.git("update-ref", "-d", "refs/memfs/backup/x")


@pytest.mark.parametrize("bad", ["abc", "main", "HEAD~1", "-x" * 5, "5" * 41, "g" * 40, "G" * 12])
def test_a_commit_is_named_by_hexadecimal_digits(own, bad):
    for way in ways(bad):
        assert own.ask(way).status == 400, way
    assert own.revert({"commit": bad}).status == 400


def test_T28_what_was_purged_is_in_no_history(server):
    own = Past(server, STEPS[:2])
    server.rewrites_allowed = True
    secret = "hunter2-is-the-word"
    leaked = own.push({"notes/secret.md": f"{secret}\n", "kept.md": "kept\n"})
    own.server.cli("purge", "--agent", own.agent, "--secret-stdin", input=secret.encode() + b"\n")
    for way in ways(leaked):
        assert own.ask(way).status == 404
    assert own.revert({"commit": leaked}).status == 404
    rows = own.history()
    assert secret not in json.dumps([own.get(f"memory/diff?to={r['sha']}") for r in rows])
    assert [r["sha"] for r in rows] == own.git("rev-list", "main").split()
    own.memory.close()


# ---- revert --------------------------------------------------------------------------------------

def test_revert_brings_a_block_back_as_a_new_commit(own):
    first, second = own.shas
    own.push({"notes/plan.md": "other\n"})
    before = own.memory.tip
    answer = own.reverted({"commit": first, "label": "system/human"},
                          headers={"X-Memfs-Reason": "tea\tonly"})
    commit = answer["commit"]
    assert (answer["changed"], answer["previous_sha"]) == (True, before)
    assert (commit["parent_sha"], commit["files_changed"]) == (before, ["system/human.md"])
    assert commit["message"] == f"Revert block 'system/human' to {first[:12]}\n\ntea\\x09only"
    assert commit["author_type"] == "user" and commit == own.history("?limit=1")[0]
    assert own.files()["system/human.md"] == own.files(first)["system/human.md"]
    assert own.files()["notes/plan.md"] == b"other\n"
    assert own.server.value(own.agent, "system/human") == "Likes tea.\n"
    assert own.server.value_id(own.agent, "system/human") == own.blocks[second]["system/human"]["id"]


def test_revert_brings_the_whole_memory_back(own):
    own.push({"system/human.md": None, "a/b.md": "new\n", "raw.bin": b"\x00\xff"})
    for back in (own.shas[0], wire.GENESIS, own.shas[2]):
        answer = own.reverted({"commit": back})
        assert answer["changed"] is True
        assert answer["commit"]["message"] == f"Revert the memory to {back[:12]}"
        assert own.files() == own.files(back)
        assert by_label(own.get("core-memory/blocks?limit=0")) == own.blocks.get(back, {})
    assert own.git("rev-list", "--count", "main").strip() == "7"


def test_revert_takes_away_what_was_not_there_then(own):
    own.push({"late.md": "late\n"})
    answer = own.reverted({"commit": own.shas[0], "path": "late.md"})
    assert answer["commit"]["message"] == f"Revert 'late.md' to {own.shas[0][:12]}"
    assert "late.md" not in own.files()
    back = own.reverted({"commit": own.shas[2], "path": "late.md"})
    assert back["changed"] is True and own.files()["late.md"] == b"late\n"


def test_D4_K7_a_revert_to_what_is_there_makes_no_commit(own):
    first = own.reverted({"commit": own.shas[0]})
    for body in ({"commit": own.shas[0]}, {"commit": own.shas[0], "label": "system/human"},
                 {"commit": own.shas[0][:10], "path": "notes/plan.md"}):
        again = own.reverted(body)
        assert (again["changed"], again["commit"]) == (False, first["commit"])
        assert again["previous_sha"] == first["commit"]["sha"]
    assert own.server.tip(own.agent) == first["commit"]["sha"]


def test_H3_a_revert_of_a_stale_version_is_409_with_both_ids(own):
    stale, current = own.shas
    blob = own.git("rev-parse", f"{current}:system/human.md").strip()
    old_blob = own.git("rev-parse", f"{stale}:system/human.md").strip()
    for expected, path in ((stale, None), (old_blob, "system/human.md"), ("x", None)):
        answer = own.revert({"commit": stale, "path": path, "expected_version": expected})
        assert answer.status == 409
        assert expected in answer.detail and current in answer.detail
    assert own.server.tip(own.agent) == current
    assert own.reverted({"commit": stale, "path": "system/human.md", "expected_version": blob})["changed"]
    tip = own.server.tip(own.agent)
    assert own.reverted({"commit": current, "expected_version": tip})["changed"]


def test_H3_a_revert_may_be_held_to_a_tag(own):
    tags = [own.ask(t).headers["etag"] for t in ("memory/history", "core-memory/blocks/system/human")]
    own.push({"other.md": "x\n"})
    for tag in tags:
        answer = own.revert({"commit": own.shas[0]}, headers={"If-Match": tag})
        assert answer.status == 409 and own.shas[1] in answer.detail and own.shas[2] in answer.detail
    assert own.server.tip(own.agent) == own.shas[2]
    for target, back in (("memory/history", 0), ("core-memory/blocks/system/human", 1)):
        tag = own.ask(target).headers["etag"]
        assert own.reverted({"commit": own.shas[back]}, headers={"If-Match": tag})["changed"]
    assert own.reverted({"commit": own.shas[0]}, headers={"If-Match": "*"})["changed"]


def test_revert_tells_what_came_of_the_prompt(own):
    path = f"/v1/agents/{own.agent}/memory/revert?recompile="
    body = json.dumps({"commit": own.shas[0]}).encode()
    answer = own.server.request("POST", path + "true", body)
    assert (answer.status, answer.headers["x-memfs-recompile"]) == (200, "none")
    assert own.server.request("POST", path + "maybe", body).status == 422


def test_H2_reverts_that_come_at_once_all_hold(shared_server):
    names = [f"{n}.md" for n in range(8)]
    p = Past(shared_server(), [{name: "old\n" for name in names}, {name: "new\n" for name in names}])
    first, second = p.shas
    with futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: p.reverted({"commit": first, "path": name}), names))
    assert all(a["changed"] and a["commit"]["files_changed"] for a in answers)
    assert p.files() == p.files(first)
    assert len(p.git("rev-list", f"{second}..main").split()) == len(names)
    p.memory.close()


def test_revert_is_a_fast_forward_for_clones(own):
    """H1: what was there before is an ancestor; a client pulls it like any other change."""
    before = own.memory.tip
    after = own.reverted({"commit": own.shas[0]})["commit"]["sha"]
    own.git("merge-base", "--is-ancestor", before, after)
    own.memory.tip, own.memory.files = after, {k: v for k, v in own.files().items()}
    own.push({"next.md": "on top\n"})
    assert own.files()["next.md"] == b"on top\n"


def test_revert_of_what_never_was_is_404(own):
    for body in ({"label": "nobody"}, {"path": "system"}, {"path": "a//b"}, {"path": "../x"}):
        answer = own.revert({"commit": own.shas[0], **body})
        assert answer.status == 404, (body, answer)
    assert own.server.tip(own.agent) == own.shas[1]


@pytest.mark.parametrize("body,status", [
    ({}, 422), ({"commit": None}, 422), ({"commit": 7}, 422), ({"commit": "a" * 12, "label": 1}, 422),
    ({"commit": "a" * 12, "label": "x", "path": "y"}, 400), ([], 422),
    ({"commit": "5677624", "more": "is ignored", "path": None}, 200),
])
def test_1_5_bodies_of_revert(own, body, status):
    assert own.revert(body).status == status


def test_1_5_parameters_of_the_past(past):
    assert past.ask("memory/history?limit=-1").status == 422
    assert past.ask("memory/history?limit=x").status == 422
    assert past.ask("memory/history?label=a&path=b").status == 400
    assert past.ask("memory/diff?label=a&path=b").status == 400
    assert past.ask("memory/diff?patch=maybe").status == 422
    assert past.ask("memory/history?path=a&path=b").status == 400
    agent = new_agent()
    for way in [*ways("5677624"), "memory/history"]:
        answer = past.server.get(f"/v1/agents/{agent}/{way}")
        assert (answer.status, answer.detail) == (404, f"Agent with ID {agent} not found")
    assert past.server.get("/v1/agents/agent-1/memory/history").status == 422
    assert past.revert({"commit": "5677624"}, method="PUT").status == 405


# ---- who may -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def guarded(memfs_bin):
    from lib.server import Server
    path = tempfile.mkdtemp(prefix="memfs-it-")
    s = Server(memfs_bin, path)
    try:
        s.start()
        p = Past(s, STEPS[:1])
        p.push({"locked.md": "---\nread_only: true\n---\nold\n"})
        p.push({"locked.md": "---\nread_only: true\n---\nnew\n", "free.md": "new\n"})
        p.memory.close()
        p.tokens = {"admin": s.token("admin"), "rw": s.token(f"agent:{p.agent}:rw"),
                    "ro": s.token(f"agent:{p.agent}:ro")}
        yield p
        s.stop()
        s.check_clean()
    finally:
        s.kill()
        shutil.rmtree(path, ignore_errors=True)


def as_who(p, who):
    return bearer(p.tokens[who]["token"])


def test_revert_leaves_read_only_files_to_admins(guarded):
    p, old = guarded, guarded.shas[1]
    tip = p.server.git_dir(p.agent, "rev-parse", "main").stdout
    for body in ({"commit": old, "label": "locked"}, {"commit": old}, {"commit": p.shas[0]}):
        answer = p.revert(body, headers=as_who(p, "rw"))
        assert answer.status == 403 and "'locked.md' is read_only" in answer.detail
    assert p.server.git_dir(p.agent, "rev-parse", "main").stdout == tip
    mine = p.reverted({"commit": old, "path": "free.md"}, headers=as_who(p, "rw"))
    assert (mine["commit"]["author_type"], mine["commit"]["author_id"]) == ("agent", p.agent)
    assert mine["commit"]["author_name"] == f"token {p.tokens['rw']['id']}"
    theirs = p.reverted({"commit": old, "label": "locked"}, headers=as_who(p, "admin"))
    assert theirs["commit"]["files_changed"] == ["locked.md"]
    assert (theirs["commit"]["author_type"], theirs["commit"]["author_id"]) == (
        "user", p.tokens["admin"]["id"])


def test_S1_a_reading_token_reads_the_past_and_changes_nothing(guarded):
    p, client = guarded, Client(guarded.server)
    for way in [*ways(p.shas[0]), "memory/history"]:
        assert client.ask("GET", f"/v1/agents/{p.agent}/{way}", as_who(p, "ro"))[0] == 200
        assert client.ask("GET", f"/v1/agents/{p.agent}/{way}")[0] == 401
        assert client.ask("GET", f"/v1/agents/{new_agent()}/{way}", as_who(p, "ro"))[0] == 404
    assert p.revert({"commit": p.shas[0]}, headers=as_who(p, "ro")).status == 403
