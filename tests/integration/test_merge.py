"""Two commits into one (design 7), made by `memfs merge-file --commits` and looked at by git; and the same merge
as git's driver in a checkout.

Histories are random but seeded: edits, renames, deletes, file against folder, case twins, binary files,
criss-cross, unrelated roots, clocks that jump.  Every line is written once in a history, so a line can be followed
whatever happens to its file.
"""
import json
import os
import random
import subprocess
import unicodedata

import pytest

from lib.summary import count

GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"
RULES = {"lines", "added-twice", "binary", "kept-changed", "followed", "renamed-twice", "beside"} # "key" is a file's
COMMON = ["", "- item", "# Heading", "text"]


# ---- trees as {path: bytes}

class Tree(dict):
    """Files of one side.  Never holds what the push policy would refuse."""

    def folders(self):
        return {p[:i] for p in self for i in range(len(p)) if p[i] == "/"}

    def can_add(self, path):
        """No twin of another name, no file where a folder is needed or the reverse."""
        if path in self or path in self.folders():
            return False
        folded = {}
        for known in list(self) + [path]:
            parts = known.split("/")
            for n in range(1, len(parts) + 1):
                name = "/".join(parts[:n])
                if folded.setdefault(name.casefold(), name) != name:
                    return False
        return not any(path.startswith(f + "/") for f in self)

    def copy(self):
        return Tree(self)


class Writer:
    """Random changes of a tree; every line of text is new in the world."""

    def __init__(self, rng):
        self.rng, self.n = rng, 0

    def line(self):
        self.n += 1
        return f"token-{self.n:06d}"

    def text(self):
        lines = [self.line() if self.rng.random() < 0.8 else self.rng.choice(COMMON)
                 for _ in range(self.rng.randint(1, 14))]
        return ("\n".join(lines) + ("\n" if self.rng.random() < 0.9 else "")).encode()

    def binary(self):
        return b"\0\xff" + self.line().encode() + bytes(self.rng.randbytes(8))

    def path(self):
        folder = self.rng.choice(["", "", "system/", "notes/", "notes/deep/", "Notes2/", "a b/"])
        name = self.rng.choice(["plan", "Plan", "human", "persona", "x", "\u00e4rger", "log"])
        return folder + name + self.rng.choice([".md", ".md", ".txt", "", f"-{self.rng.randint(0, 3)}.md"])

    def base(self):
        tree = Tree()
        for _ in range(self.rng.randint(0, 14)):
            self.add(tree)
        return tree

    def add(self, tree):
        path = self.path()
        if tree.can_add(path):
            tree[path] = self.binary() if self.rng.random() < 0.15 else self.text()

    def pick(self, tree):
        return self.rng.choice(sorted(tree)) if tree else None

    def edit(self, tree):
        path = self.pick(tree)
        if path is None:
            return
        if b"\0" in tree[path]:
            tree[path] = self.binary()
            return
        lines = tree[path].decode().split("\n")
        for _ in range(self.rng.randint(1, 3)):
            at = self.rng.randint(0, len(lines))
            what = self.rng.random()
            if what < 0.5:
                lines.insert(at, self.line())
            elif at < len(lines) and what < 0.75:
                lines[at] = self.line()
            elif at < len(lines):
                del lines[at]
        tree[path] = "\n".join(lines).encode()

    def delete(self, tree):
        path = self.pick(tree)
        if path:
            del tree[path]

    def rename(self, tree):
        path = self.pick(tree)
        if path is None:
            return
        data = tree.pop(path)
        new = self.path()
        tree[new if tree.can_add(new) else path] = data

    def rename_folder(self, tree):
        folders = sorted(tree.folders())
        if not folders:
            return
        old, new = self.rng.choice(folders), self.rng.choice(["moved", "Moved2", "notes/inner"])
        if (new + "/").startswith(old + "/"):
            return
        after = Tree()
        for path in sorted(tree):
            to = new + path[len(old):] if path.startswith(old + "/") else path
            if not after.can_add(to):
                return
            after[to] = tree[path]
        tree.clear()
        tree.update(after)

    def file_to_folder(self, tree):
        path = self.pick(tree)
        if path is None:
            return
        data = tree.pop(path)
        inner = path + "/index"
        if tree.can_add(inner):
            tree[inner] = data if self.rng.random() < 0.5 else self.text()
        else:
            tree[path] = data

    def folder_to_file(self, tree):
        folders = sorted(tree.folders())
        if not folders:
            return
        folder = self.rng.choice(folders)
        for path in [p for p in tree if p.startswith(folder + "/")]:
            del tree[path]
        if tree.can_add(folder):
            tree[folder] = self.text()

    def change(self, tree):
        kinds = [(self.edit, 10), (self.add, 4), (self.delete, 2), (self.rename, 3), (self.rename_folder, 1),
                 (self.file_to_folder, 1), (self.folder_to_file, 1)]
        for _ in range(self.rng.randint(1, 5)):
            self.rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0](tree)


# ---- a repository that is written by fast-import

class Repository:
    def __init__(self, git, memfs_bin, path):
        self.git, self.bin, self.path, self.n = git, memfs_bin, str(path), 0
        git.run("init", "-q", "--bare", "-b", "main", self.path)

    def text(self, *args, **kw):
        return self.git.text(*args, cwd=self.path, **kw)

    def genesis(self):
        tree = self.text("mktree", input=b"")
        who = {f"GIT_{r}_{k}": v for r in ("AUTHOR", "COMMITTER") for k, v in
               (("NAME", "memfs"), ("EMAIL", "memfs@localhost"), ("DATE", "@0 +0000"))}
        got = self.text("commit-tree", "-m", "memfs: genesis", tree, env=who)
        assert got == GENESIS
        return got

    def commit(self, tree, *parents, time=1700000000, branch=None):
        self.n += 1
        branch = branch or f"t{self.n}"
        out = [f"reset refs/heads/{branch}\n\ncommit refs/heads/{branch}\n"
               f"committer A <a@b> {time} +0100\ndata 4\ntest\n".encode()]
        for i, parent in enumerate(parents):
            out.append(f"{'merge' if i else 'from'} {parent}\n".encode())
        out.append(b"deleteall\n")
        for path, data in sorted(tree.items()):
            out.append(b'M 100644 inline "%s"\ndata %d\n%s\n' % (path.encode(), len(data), data))
        self.git.run("fast-import", "--quiet", "--force", cwd=self.path, input=b"".join(out))
        return self.text("rev-parse", branch)

    def merge(self, a, b):
        done = subprocess.run([self.bin, "merge-file", "--commits", "--json", "--repo", self.path, a, b],
                              capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
                              env={"PATH": "/usr/bin:/bin", "HOME": self.git.home})
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def tree(self, commit):
        listed = self.git.run("ls-tree", "-r", "-z", commit, cwd=self.path).stdout
        rows = [row.split(b"\t", 1) for row in listed.split(b"\0") if row]
        ids = [head.split()[2] for head, _ in rows]
        out = self.git.run("cat-file", "--batch", cwd=self.path, input=b"\n".join(ids) + b"\n").stdout \
            if ids else b""
        tree, at = Tree(), 0
        for head, path in rows:
            end = out.index(b"\n", at)
            size = int(out[at:end].split()[2])
            assert head.split()[0] in (b"100644", b"100755"), head
            tree[path.decode()] = out[end + 1:end + 1 + size]
            at = end + 1 + size + 1
        return tree

    def is_ancestor(self, a, b):
        return self.git.run("merge-base", "--is-ancestor", a, b, cwd=self.path, check=False).returncode == 0

    def fsck(self):
        done = self.git.run("fsck", "--strict", "--no-dangling", "--no-progress", cwd=self.path, check=False)
        said = [line for line in done.stderr.decode().splitlines() if "unborn branch" not in line]
        assert done.returncode == 0 and not said, said


def texts(tree):
    """The lines that can be followed, of all files."""
    return {line for data in tree.values() if b"\0" not in data for line in data.split(b"\n")
            if line.startswith(b"token-")}


def binaries(tree):
    return {data for data in tree.values() if b"\0" in data}


def check_policy(tree):
    names = {}
    for path in tree:
        assert len(path.encode()) <= 1024
        parts = path.split("/")
        for n in range(1, len(parts) + 1):
            assert len(parts[n - 1].encode()) <= 255
            whole = "/".join(parts[:n])
            key = "/".join(unicodedata.normalize("NFC", p.casefold()) for p in parts[:n])
            assert names.setdefault(key, whole) == whole, f"'{whole}' and '{names[key]}' are twins"


def check_survival(merged, a, b, common, parted_from=None):
    """What is on one side and was in no common ancestor is there; so is what is on both, unless it stood in two
    files of the tree that they parted from: then each side may have deleted one of them."""
    for kind in (texts, binaries):
        of_a, of_b, old, new = kind(a), kind(b), kind(common), kind(merged)
        files = [kind({path: data}) for path, data in (parted_from or {}).items()]
        twice = {line for n, one in enumerate(files) for other in files[:n] for line in one & other}
        missing = (((of_a & of_b) - twice) | (of_a - old) | (of_b - old)) - new
        assert not missing, f"lost: {sorted(missing)[:5]}"
        invented = new - of_a - of_b
        assert not invented, f"invented: {sorted(invented)[:5]}"
    assert not any(line.startswith((b"<<<<<<<", b">>>>>>>", b"=======")) for data in merged.values()
                   for line in data.split(b"\n"))


def merged_both_ways(repo, a, b):
    one, two = repo.merge(a, b), repo.merge(b, a)
    assert one == two, (a, b)
    if repo.is_ancestor(a, b) or repo.is_ancestor(b, a):
        assert not one["is_merge"] and one["commit"] == (b if repo.is_ancestor(a, b) else a)
        return one
    assert one["is_merge"]
    assert repo.text("log", "-1", "--format=%P", one["commit"]).split() == sorted([a, b])
    return one


class History:
    """Random histories in one repository."""

    def __init__(self, repo, seed):
        self.repo, self.rng = repo, random.Random(seed)
        self.writer = Writer(self.rng)

    def time(self):
        """A clock that nobody may trust (H7)."""
        return self.rng.choice([1700000000, 1700000000 + self.rng.randint(-10**8, 10**8), 1])

    def grow(self, tree, tip):
        tree = tree.copy()
        for _ in range(self.rng.randint(1, 4)):
            self.writer.change(tree)
            tip = self.repo.commit(tree, tip, time=self.time())
        return tree, tip

    def fork(self):
        base = self.writer.base()
        tip = self.repo.commit(base, time=self.time())
        a, b = self.grow(base, tip), self.grow(base, tip)
        if self.rng.random() < 0.5: # the same new name on both sides
            for side in (a, b):
                if side[0].can_add("both/new.md"):
                    side[0]["both/new.md"] = self.writer.text()
            a = a[0], self.repo.commit(a[0], a[1], time=self.time())
            b = b[0], self.repo.commit(b[0], b[1], time=self.time())
        return base, a, b


@pytest.fixture
def repo(git, memfs_bin, folder):
    return Repository(git, memfs_bin, folder / "r.git")


def test_H5_F28_two_commits_merge_to_one_in_either_order_and_nothing_is_lost(repo, scale):
    rules = set()
    for seed in range(scale(60, 1500)):
        base, (ta, a), (tb, b) = History(repo, seed).fork()
        got = merged_both_ways(repo, a, b)
        merged = repo.tree(got["commit"])
        check_survival(merged, ta, tb, base)
        check_policy(merged)
        again = repo.merge(got["commit"], a)
        assert again["commit"] == got["commit"] and not again["is_merge"]
        assert repo.text("log", "-1", "--format=%B", got["commit"]).count("Memfs-Merge: ") == \
            min(len(got["notes"]), 101)
        rules |= {note["rule"] for note in got["notes"]}
        count("merge", random_merges=1, notes=len(got["notes"]))
    repo.fsck()
    assert rules == RULES # every row of the table was met


def test_H5_unrelated_roots_are_both_kept(repo, scale):
    for seed in range(scale(15, 500)):
        h = History(repo, f"unrelated {seed}")
        ta, tb = h.writer.base(), h.writer.base()
        a, b = repo.commit(ta, time=h.time()), repo.commit(tb, time=h.time())
        got = merged_both_ways(repo, a, b)
        assert got["is_merge"] == got["is_unrelated"] == (a != b)
        merged = repo.tree(got["commit"])
        check_survival(merged, ta, tb, Tree())
        check_policy(merged)
    repo.fsck()


def test_H5_criss_cross_merges_settle(repo, scale):
    for seed in range(scale(20, 1000)):
        h = History(repo, f"criss {seed}")
        _, (ta, a), (tb, b) = h.fork()
        common = Tree({**{"a/" + p: d for p, d in ta.items()}, **{"b/" + p: d for p, d in tb.items()}})
        left = repo.merge(a, b)["commit"]
        if not repo.text("log", "-1", "--format=%P", left).count(" "):
            continue
        tree = repo.tree(left)
        right = repo.commit(tree, b, a, time=h.time()) # another's merge of the same two
        (tl, left), (tr, right) = h.grow(tree, left), h.grow(tree, right)
        bases = repo.text("merge-base", "--all", left, right).split()
        assert sorted(bases) == sorted([a, b])
        got = merged_both_ways(repo, left, right)
        merged = repo.tree(got["commit"])
        check_survival(merged, tl, tr, common, parted_from=tree)
        check_policy(merged)
        count("merge", criss_cross=1)
    repo.fsck()


def test_F28_three_machines_that_exchange_tips_come_to_rest(repo, scale):
    """Each merges what it has with what another has, in an order of its own; at the end all are at one tip, and
    from then on no commit is made."""
    for seed in range(scale(6, 200)):
        h = History(repo, f"three {seed}")
        base = h.writer.base()
        root = repo.commit(base, time=h.time())
        sides = [h.grow(base, root) for _ in range(3)]
        tips, rounds = [tip for _, tip in sides], 0
        while len(set(tips)) > 1:
            rounds += 1
            assert rounds <= 12, tips
            i, j = h.rng.sample(range(3), 2) if rounds > 3 else (rounds % 3, (rounds + 1) % 3)
            tips[i] = repo.merge(tips[i], tips[j])["commit"]
            if rounds > 3: # a hub hands the newest around
                tips[j] = repo.merge(tips[j], tips[i])["commit"]
        merged = repo.tree(tips[0])
        for tree, _ in sides:
            missing = texts(tree) - texts(base) - texts(merged)
            assert not missing, sorted(missing)[:5]
        for i in range(3):
            assert repo.merge(tips[i], tips[(i + 1) % 3])["commit"] == tips[0]
    repo.fsck()


def test_another_machine_makes_the_same_commit(repo, git, memfs_bin, folder):
    _, (_, a), (_, b) = History(repo, "elsewhere").fork()
    got = repo.merge(a, b)
    other = Repository(git, memfs_bin, folder / "other.git")
    other.text("fetch", "-q", repo.path, "+refs/heads/*:refs/heads/*")
    other.text("repack", "-adq") # packed there, loose here
    assert other.merge(b, a) == got


def test_T11_the_server_takes_every_merge(repo, shared_server, agent, git, scale):
    """The push policy of the real server has the last word on names, twins and sizes."""
    server = shared_server()
    genesis = repo.genesis()
    for seed in range(scale(8, 200)):
        h = History(repo, f"policy {seed}")
        (ta, a), (tb, b) = h.grow(h.writer.base(), genesis), h.grow(h.writer.base(), genesis)
        got = repo.merge(a, b)
        url = f"{server.url}/v1/git/{agent()}/state.git"
        repo.text("push", "-q", url, f"{a}:refs/heads/main")
        repo.text("push", "-q", url, f"{got['commit']}:refs/heads/main")
        assert repo.text("ls-remote", url, "refs/heads/main").split()[0] == got["commit"]


# ---- git's merge driver

@pytest.fixture
def checkouts(git, memfs_bin, folder):
    """A hub and two checkouts whose driver is ours, as the head of cmd_merge_file.c says."""
    hub = folder / "hub with 'quote'.git"
    git.run("init", "-q", "--bare", "-b", "main", hub)
    made = []
    for name in ("one", "two"):
        c = git.clone(hub, folder / name)
        c.run("config", "merge.memfs.name", "memfs")
        c.run("config", "merge.memfs.driver", f"'{memfs_bin}' merge-file --driver %O %A %B %P %L")
        os.makedirs(os.path.join(c.path, ".git", "info"), exist_ok=True)
        with open(os.path.join(c.path, ".git", "info", "attributes"), "w") as f:
            f.write("* merge=memfs\n")
        made.append(c)
    return made


NAMES = ["plain.md", "with blank.md", "it's.md", "d/\u00e4\"q.md", "-dash.md", "$(touch pwned).md"]


def publish(one, two, files):
    for path, data in files.items():
        one.write(path, data)
    one.commit("base")
    one.push()
    two.run("pull", "-q", "--ff-only", "origin", "main")


def no_markers(checkout):
    done = checkout.run("grep", "-I", "-n", "-E", "^(<<<<<<<|>>>>>>>|=======)", check=False)
    assert done.returncode == 1, done.stdout.decode()


@pytest.mark.parametrize("how", [("pull", "--rebase"), ("pull", "--no-rebase"), ("merge",), ("cherry-pick",)])
def test_L4_plain_git_never_asks_about_text(checkouts, how, scale):
    one, two = checkouts
    for seed in range(scale(4, 100)):
        rng = random.Random(f"{how} {seed}")
        w = Writer(rng)
        w.n = seed * 10000
        files = {name: w.text() for name in NAMES}
        publish(one, two, files)
        written = []
        for c in (one, two):
            for _ in range(rng.randint(1, 3)):
                tree = Tree({name: c.read(name) for name in NAMES})
                w.edit(tree)
                for name in NAMES:
                    c.write(name, tree[name])
                if rng.random() < 0.5:
                    c.write("new.md", w.text())
                c.commit("edits")
            written.append({name: c.read(name) for name in NAMES})
        one.push()
        two.run("fetch", "-q", "origin")
        if how[0] == "cherry-pick":
            two.run("cherry-pick", "--allow-empty", "--keep-redundant-commits", "HEAD..origin/main")
        elif how[0] == "merge":
            two.run("merge", "-q", "-m", "merged", "origin/main")
        else:
            two.run(*how, "-q", "origin", "main")
        assert two.text("status", "--porcelain") == ""
        no_markers(two)
        now = texts({name: two.read(name) for name in NAMES})
        old = texts(files)
        for side in written:
            missing = texts(side) - old - now
            assert not missing, sorted(missing)[:5]
        two.run("push", "-q", "--force", "origin", "HEAD:main")
        one.run("fetch", "-q", "origin")
        one.run("reset", "-q", "--hard", "origin/main")
    assert not os.path.exists(os.path.join(two.path, "pwned"))


def test_L4_binary_files_are_both_kept_and_git_goes_on(checkouts):
    one, two = checkouts
    publish(one, two, {"d/p i.png": b"\0base", "x": b"x\n"})
    one.save({"d/p i.png": b"\0one"})
    two.write("d/p i.png", b"\0two")
    two.commit("two")
    two.run("pull", "-q", "--rebase", "origin", "main")
    beside = two.text("status", "--porcelain", "-z", "-uall").rstrip("\0")
    assert beside.startswith("?? d/p i.") and beside.endswith(".png"), beside
    assert {two.read("d/p i.png"), two.read(beside[3:])} == {b"\0one", b"\0two"}
    two.commit("both")
    two.push()
    one.run("pull", "-q", "origin", "main")
    assert {one.read("d/p i.png"), one.read(beside[3:])} == {b"\0one", b"\0two"}


def test_binary_files_are_a_conflict_where_nothing_can_stand_beside(checkouts):
    one, two = checkouts
    publish(one, two, {"p.png": b"\0base", "x": b"x\n"})
    one.save({"p.png": b"\0one"})
    two.write("p.png", b"\0two")
    two.commit("two")
    for data in (b"\0one", b"\0two"): # whichever would be the second: its name is taken
        short = two.git.text("hash-object", "--stdin", input=data)[:7]
        two.write(f"p.{short}.png", b"something else")
    done = two.run("pull", "-q", "--no-rebase", "origin", "main", check=False)
    assert done.returncode != 0
    assert two.run("show", ":2:p.png").stdout == b"\0two" and two.run("show", ":3:p.png").stdout == b"\0one"


def test_nothing_stray_appears_when_git_merges_merge_bases(checkouts):
    """Criss-cross with a binary file: git calls the driver for the bases too, with longer markers."""
    one, _ = checkouts
    one.write("p.png", b"\0base")
    base = one.commit("base")
    for name, data in (("a", b"\0a"), ("b", b"\0b")):
        one.run("checkout", "-q", "-b", name, base)
        one.write("p.png", data)
        one.commit(name)
    tips = {}
    for name, first, second in (("ab", "a", "b"), ("ba", "b", "a")):
        tree = one.text("rev-parse", "a^{tree}") # both settle on a's
        tips[name] = one.text("commit-tree", "-m", name, "-p", first, "-p", second, tree)
    one.run("checkout", "-q", "-b", "left", tips["ab"])
    one.write("left", "l\n")
    one.commit("left")
    one.run("checkout", "-q", "-b", "right", tips["ba"])
    one.write("right", "r\n")
    one.commit("right")
    one.run("merge", "-q", "-m", "merged", "left")
    assert one.text("status", "--porcelain", "-uall") == ""
    assert one.read("p.png") == b"\0a"


def test_a_driver_that_cannot_work_says_so_and_git_stops(memfs_bin, folder):
    for args in (["o", "a", "b", "p"], ["o"], ["o", "a", "b", "p", "x"], []):
        done = subprocess.run([memfs_bin, "merge-file", "--driver", *args], cwd=folder, capture_output=True)
        assert done.returncode >= 129 and done.stderr.startswith(b"memfs: "), (args, done)


# ---- by hand

def by_hand(memfs_bin, folder, base, a, b, *options):
    for name, data in (("o", base), ("a", a), ("b", b)):
        (folder / name).write_bytes(data)
    return subprocess.run([memfs_bin, "merge-file", *options, "o", "a", "b"], cwd=folder, capture_output=True,
                          stdin=subprocess.DEVNULL)


def test_merge_file_prints_the_text_and_what_was_decided(memfs_bin, folder):
    done = by_hand(memfs_bin, folder, b"1\n2\n3\n", b"1a\n2\n3\n", b"1\n2\n3b\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1a\n2\n3b\n", b"")
    done = by_hand(memfs_bin, folder, b"1\n2\n3\n", b"1\na\n3\n", b"1\nb\n3\n", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["outcome"] == "by-rule"
    assert sorted(answer["text"].split()) == ["1", "3", "a", "b"]
    assert [n["rule"] for n in answer["notes"]] == ["lines"]
    done = by_hand(memfs_bin, folder, b"", b"\0a", b"\0b", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout) == {"outcome": "two-files", "text": None, "notes": []}


@pytest.mark.parametrize("args", [["one"], ["a", "b", "c", "d"], ["--commits", "a"], ["--nonsense"],
                                  ["a", "b", "c", "--driver"]])
def test_merge_file_explains_its_use(memfs_bin, folder, args):
    done = subprocess.run([memfs_bin, "merge-file", *args], cwd=folder, capture_output=True)
    assert done.returncode == 2 and done.stdout == b"" and done.stderr


def test_commits_that_are_not_there_are_an_error(repo, memfs_bin, folder):
    a = repo.commit(Tree({"x": b"x"}), branch="main")
    for args in (["main", "nowhere"], ["main", "0" * 40], [a, "1" * 40]):
        done = subprocess.run([memfs_bin, "merge-file", "--commits", "--repo", repo.path, *args],
                              capture_output=True)
        assert done.returncode == 1 and done.stdout == b"" and done.stderr, args
    done = subprocess.run([memfs_bin, "merge-file", "--commits", "--repo", str(folder), "a", "b"],
                          capture_output=True)
    assert done.returncode == 1 and done.stderr
