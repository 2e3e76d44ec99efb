"""The pre-commit hook under real `git commit`: core.hooksPath, memfs-hook, `memfs hook pre-commit`.

The verdicts are those of tests/vectors/precommit.jsonl: what the Letta client's own bash hook said.  Cases with a
"quirk" are accidents of bash (unquoted file names, "echo -e", NUL bytes) that nobody wants back.
"""
import base64
import json
import os
import pathlib
import shutil
import tempfile

import pytest

from lib.client import Home
from lib.server import new_agent

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors" / "precommit.jsonl"
CASES = [case for case in map(json.loads, VECTORS.read_text(encoding="utf-8").split("\n")[:-1])
         if "quirk" not in case]

# what each rule says to an agent
WORDS = {
    "skill-path": "skills are folders",
    "missing-frontmatter": "missing frontmatter",
    "unclosed-frontmatter": "never closed",
    "read-only-file": "is read_only and cannot be modified",
    "unknown-key": "only 'description' may stand",
    "protected-set": "'read_only' is not the agent's to set",
    "protected-changed": "'read_only' is not the agent's to change",
    "description-empty": "'description' must not be empty",
    "missing-description": "lacks 'description'",
    "protected-removed": "'read_only' is not the agent's to remove",
}

GOOD = "---\ndescription: d\n---\nbody\n"
NAMED = "---\nname: n\ndescription: d\n---\nbody\n"


class Memory:
    """A memory made by memfs, in which each case is committed on a branch of its own."""

    def __init__(self, memfs_bin, folder):
        self.home = Home(memfs_bin, folder)
        self.agent = new_agent()
        self.home.run("init", "--agent", self.agent)
        self.git = self.home.checkout(self.agent)
        self.n = 0

    def blob(self, data):
        return self.git.run("hash-object", "-w", "--stdin", input=data).stdout.decode().strip()

    def stage(self, path, data, mode="100644"):
        """path: str or bytes; data None takes it out."""
        if data is None:
            self.git.run("update-index", "--force-remove", "--", path)
        else:
            data = data if isinstance(data, bytes) else data.encode()
            line = f"{mode} {self.blob(data)} 0\t".encode()
            path = path if isinstance(path, bytes) else path.encode()
            self.git.run("update-index", "-z", "--index-info", input=line + path + b"\0")

    def start(self, files, unborn=False):
        """A new branch whose only commit has these files; nothing else is in the index."""
        self.n += 1
        self.git.run("read-tree", "--empty")
        self.git.run("symbolic-ref", "HEAD", f"refs/heads/case-{self.n}")
        for path, data in files.items():
            self.stage(path, data)
        if not unborn:
            tree = self.git.text("write-tree")
            self.git.run("update-ref", "HEAD", self.git.text("commit-tree", tree, "-m", "base"))

    def commit(self, **env):
        return self.git.run("commit", "-q", "--allow-empty", "-m", "x", check=False, env=env)

    def policy(self, text):
        path = os.path.join(self.git.path, ".git", "letta-memory-layout-policy")
        if text is None:
            if os.path.exists(path):
                os.unlink(path)
        else:
            pathlib.Path(path).write_text(text + "\n")


@pytest.fixture(scope="module")
def memory(memfs_bin):
    folder = tempfile.mkdtemp(prefix="memfs-it-")
    yield Memory(memfs_bin, folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def first_layout(memory):
    memory.policy(None)


def field(case, name):
    if name + "_b64" in case:
        return base64.b64decode(case[name + "_b64"])
    value = case.get(name)
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def rules_said(text):
    return sorted(rule for line in text.split("\n") if line.startswith("  ")
                  for rule, words in WORDS.items() if words in line)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_vectors_under_real_git(memory, case):
    told, expected = case["in"], case["out"]
    path, head, staged = (field(told, name) for name in ("path", "head", "staged"))
    old_path = told.get("head_path", path)
    memory.start({} if head is None else {old_path: head}, told.get("unborn", False))
    if head is not None and old_path != path:
        memory.stage(old_path, None)
    if staged is not None:
        memory.stage(path, staged, told.get("mode", "100644"))
    elif head is not None:
        memory.stage(path, None)
    done = memory.commit()
    said = done.stderr.decode("utf-8", "replace")
    assert ("reject" if done.returncode else "accept") == expected["verdict"], said
    assert rules_said(said) == sorted(expected["rules"]), said


def test_an_offence_names_path_rule_and_example(memory):
    memory.start({})
    memory.stage("system/human.md", "no frontmatter\n")
    memory.stage("reference/api.md", "---\ndescription: d\ncolour: red\n---\n")
    done = memory.commit()
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "system/human.md: missing frontmatter: the first line must be exactly ---" in said
    assert "reference/api.md: only 'description' may stand in the frontmatter; remove the key 'colour'" in said
    assert "\n  ---\n  description: What this file is about" in said      # an example to copy
    assert "2 rules are broken" in said


def test_names_of_files_act_on_no_terminal(memory):
    """An agent's file name travels into a person's terminal (T20)."""
    memory.start({})
    memory.stage("system/\x1b[31mred.md", "plain\n")
    said = memory.commit().stderr
    assert b"\x1b" not in said and b"\\x1B[31mred.md" in said


def test_a_commit_of_some_paths_is_judged_by_its_own_index(memory):
    """`git commit PATH` has an index of its own ($GIT_INDEX_FILE)."""
    memory.start({"system/a.md": GOOD, "system/b.md": GOOD})
    memory.git.run("reset", "-q", "--hard")
    memory.git.write("system/a.md", GOOD + "more\n")
    memory.git.write("system/b.md", "broken\n")
    memory.git.run("add", "-A")
    assert memory.git.run("commit", "-q", "-m", "x", "system/a.md", check=False).returncode == 0
    assert memory.git.run("commit", "-q", "-m", "x", "system/b.md", check=False).returncode == 1
    memory.git.run("reset", "-q", "--hard")


def test_a_worktree_is_judged_too(memory, folder):
    memory.start({"system/a.md": GOOD})
    memory.git.run("reset", "-q", "--hard")
    memory.git.run("worktree", "add", "-q", folder / "w", "-b", f"w-{memory.n}")
    tree = type(memory.git)(memory.git.git, folder / "w")
    tree.write("system/a.md", "broken\n")
    assert tree.run("commit", "-q", "-a", "-m", "x", check=False).returncode == 1
    tree.write("system/a.md", GOOD + "more\n")
    assert tree.run("commit", "-q", "-a", "-m", "x", check=False).returncode == 0


def test_the_configuration_is_the_owners(memory):
    for policy in (None, "legacy-only", "root-marker", "shared-memory"):
        memory.policy(policy)
        memory.start({})
        memory.stage(".memfs.config.json", '{"version": 1}\n')
        done = memory.commit()
        assert done.returncode == 1 and b"LETTA_MEMORY_CONSTRAINTS_UPDATE=1" in done.stderr
        assert memory.commit(LETTA_MEMORY_CONSTRAINTS_UPDATE="1").returncode == 0


def test_limits_of_a_configuration_hold_in_the_first_layout_too(memory):
    memory.start({".memfs.config.json": '{"version": 1, "maxFileCharacters": 100}\n'})
    memory.stage("system/x.md", GOOD + "x" * 200)
    done = memory.commit()
    assert done.returncode == 1 and b"system/x.md: " in done.stderr
    memory.stage("system/x.md", GOOD)
    assert memory.commit().returncode == 0


def test_a_configuration_adds_to_the_rules_of_the_first_layout(memory):
    """Both kinds of rule are told in one go; only the configuration's own limits are added, and only for memory."""
    config = '{"version": 1, "fileCharacterLimits": [{"pattern": "system/short*.md", "maxCharacters": 60}]}\n'
    before = {".memfs.config.json": config, "system/a.md": GOOD, "skills/old.md": "flat, from earlier\n",
              "system/short-old.md": GOOD + "x" * 100}
    memory.start(before)
    memory.stage("system/b.md", "plain\n")
    said = memory.commit().stderr.decode()
    assert "system/b.md: missing frontmatter" in said
    assert "system/short-old.md: " in said                  # as the client: all that is tracked is measured
    assert "skills/old.md" not in said                      # a rule of the second layout, and nobody touched it
    memory.stage("system/b.md", GOOD + "x" * 30000)         # no limit of this configuration
    memory.stage("system/short-old.md", GOOD)
    memory.stage("notes/short.md", "x" * 100)               # no memory in this layout
    done = memory.commit()
    assert done.returncode == 0, done.stderr
    memory.start({k: v for k, v in before.items() if k != ".memfs.config.json"})
    memory.stage("system/c.md", GOOD)
    assert memory.commit().returncode == 0                  # no configuration: no limits


# the second layout

SECOND = [
    # files in HEAD, what is staged, accepted
    ("a marker without front matter", {}, {"MEMORY.md": "# Memory\n"}, True),
    ("a marker with front matter", {}, {"MEMORY.md": NAMED}, False),
    ("a named file", {"MEMORY.md": "#\n"}, {"people.md": NAMED}, True),
    ("no front matter", {"MEMORY.md": "#\n"}, {"people.md": "plain\n"}, False),
    ("never closed", {"MEMORY.md": "#\n"}, {"people.md": "---\nname: n\n"}, False),
    ("no name", {"MEMORY.md": "#\n"}, {"people.md": GOOD}, False),
    ("an unknown key", {"MEMORY.md": "#\n"}, {"people.md": NAMED.replace("body", "b").replace(
        "name: n", "name: n\nlimit: 3")}, False),
    ("a key twice", {"MEMORY.md": "#\n"}, {"people.md": "---\nname: n\nname: n\ndescription: d\n---\n"},
     False),
    ("an empty value", {"MEMORY.md": "#\n"}, {"people.md": "---\nname: \"\"\ndescription: d\n---\n"}, False),
    ("a flat skill", {"MEMORY.md": "#\n"}, {"skills/x.md": NAMED}, False),
    ("a flat skill that was there before", {"MEMORY.md": "#\n", "skills/x.md": NAMED}, {"people.md": NAMED},
     True),
    ("a flat skill that was there and is changed", {"MEMORY.md": "#\n", "skills/x.md": NAMED},
     {"skills/x.md": NAMED + "more\n"}, False),
    ("a skill in its folder", {"MEMORY.md": "#\n"}, {"skills/x/SKILL.md": "anything\n"}, True),
    ("another kind of file", {"MEMORY.md": "#\n"}, {"data.json": "{}\n"}, True),
    ("what was wrong before stops every commit", {"MEMORY.md": "#\n", "bad.md": "plain\n"},
     {"good.md": NAMED}, False),
    ("a folder with its own marker", {"MEMORY.md": "#\n"},
     {"people/MEMORY.md": "#\n", "people/ann.md": NAMED}, True),
    ("a file past 20,000 characters", {"MEMORY.md": "#\n"}, {"big.md": NAMED + "x" * 20001}, False),
]


@pytest.mark.parametrize("name,head,staged,accepted", SECOND, ids=[row[0] for row in SECOND])
def test_the_second_layout(memory, name, head, staged, accepted):
    memory.policy("root-marker")
    memory.start(head)
    for path, data in staged.items():
        memory.stage(path, data)
    done = memory.commit()
    assert (done.returncode == 0) == accepted, done.stderr.decode()
    if not accepted:
        assert b".md: " in done.stderr


def test_the_second_layout_needs_its_marker(memory):
    """Policy root-marker without MEMORY.md, and no policy at all, are the first layout."""
    for policy in ("root-marker", "legacy-only", None):
        memory.policy(policy)
        memory.start({})
        memory.stage("people.md", "plain\n")
        assert memory.commit().returncode == 0
        memory.stage("system/x.md", "plain\n")
        assert memory.commit().returncode == 1


def test_a_shared_memory_needs_no_marker(memory):
    memory.policy("shared-memory")
    memory.start({})
    memory.stage("people.md", "plain\n")
    assert memory.commit().returncode == 1
    memory.stage("people.md", NAMED)
    assert memory.commit().returncode == 0
