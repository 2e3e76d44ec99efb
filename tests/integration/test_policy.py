"""What may not be pushed (T10, T11, T13 to T16, H1), sent as raw bytes: git's client would not.

All along another agent keeps pushing: it must be served as if nothing happened (L1).
"""
import hashlib
import os
import struct
import threading
import time
import zlib

import pytest

from lib import wire
from lib.server import new_agent
from lib.summary import count, most
from lib.wire import EXEC, FILE, FOLDER, GENESIS, GITLINK, LINK, MAIN, ZERO, Objects
from lib.writer import Memory



@pytest.fixture
def server(shared_server):
    return shared_server()


class Neighbour:
    """Another agent, pushing; remembers how long each push took."""

    def __init__(self, server):
        self.memory = Memory(server, new_agent())
        self.times, self.faults = [], []
        self.halt = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.halt.is_set():
                began = time.monotonic()
                self.memory.must_push({"system/human.md": f"{self.memory.n}\n"})
                self.times.append(time.monotonic() - began)
                self.halt.wait(0.05)
        except Exception as e:
            self.faults.append(e)

    def stop(self):
        self.halt.set()
        self.thread.join(60)
        if self.faults:
            raise self.faults[0]
        return max(self.times, default=0.0)


@pytest.fixture
def victim(server):
    """An agent with one good commit; whatever happens, its state must not change."""
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "good\n"})
    neighbour = Neighbour(server)
    before = server.state_of(memory.agent)
    yield memory
    slowest = neighbour.stop()
    assert slowest < 10, f"the neighbour waited {slowest:.1f} s"
    most("policy", neighbour_slowest_s=slowest)
    if not getattr(memory, "accepted", False):
        assert server.state_of(memory.agent) == before
        server.wait_no_leftovers()
    assert memory.push({"system/human.md": "still good\n"}).acked
    assert server.value(memory.agent, "system/human") == "still good\n"


def refused(server, memory, objects, tip, *words, pack=None, old=None, ref=MAIN, timeout=60):
    """One push that must end in a `ng` (or `unpack` error) whose text has the words."""
    report = server.push_raw(memory.agent, [(old or memory.tip, tip, ref)],
                             objects.pack() if pack is None else pack, timeout=timeout)
    count("policy", refused=1)
    assert report.status == 200 and report.complete, report
    assert not report.acked and report.refs.get(ref, "ng") != "ok", report
    said = (report.why + " " + report.talk).lower()
    for word in words:
        assert any(w in said for w in word.lower().split("|")), f"no {word!r} in {report!r}"
    for char in report.why + report.talk.replace("\n", "").replace("\r", ""):
        assert ord(char) >= 32 and ord(char) != 127 and char not in "\u202e\u2066", \
            f"a raw control byte in {report!r}"
    return report


# -- T10: refs -------------------------------------------------------------------------------------

@pytest.mark.parametrize("ref", [
    "refs/replace/" + GENESIS, "refs/notes/commits", "refs/heads/other", "refs/tags/v1", "HEAD",
    "refs/memfs/backup/x", "refs/heads/main/x", "refs/heads/../../x", "refs/heads/main.lock",
    "refs/hidden/x", "main", "refs/heads/", "refs/heads/MAIN", "refs/heads/ma\x01in", "-x",
    "refs/heads/" + "a" * 3000])
def test_T10_other_refs(server, victim, ref):
    objects = Objects()
    tip = objects.commit(objects.tree_of({"system/human.md": b"good\n"}), [victim.tip])
    report = server.push_raw(victim.agent, [(ZERO, tip, ref)], objects.pack())
    assert not any(v == "ok" for v in report.refs.values()), report
    if report.status == 200:
        assert report.complete, report
    else:
        assert report.status in (400, 403, 413, 422), report
    names = server.git_dir(victim.agent, "for-each-ref", "--format=%(refname)").stdout.decode()
    assert names.split() == [MAIN]


def test_T10_main_beside_a_refused_ref(server, victim):
    """Two commands, one of them refused: with `atomic` nothing moves, without it main may."""
    objects = Objects()
    tip = objects.commit(objects.tree_of({"system/human.md": b"good\n"}), [victim.tip])
    commands = [(victim.tip, tip, MAIN), (ZERO, tip, "refs/heads/other")]
    report = server.push_raw(victim.agent, commands, objects.pack(), wire.CAPS + " atomic")
    assert report.refs.get(MAIN) != "ok" and report.refs.get("refs/heads/other") != "ok", report
    assert server.tip(victim.agent) == victim.tip


def test_T10_replace_ref_attack(server, victim):
    """The way around denyNonFastForwards: replace the old tip by a parent of the new one."""
    objects = Objects()
    evil_root = objects.commit(objects.tree_of({"system/human.md": b"evil\n"}), [GENESIS])
    evil = objects.commit(objects.tree_of({"system/human.md": b"evil 2\n"}), [evil_root])
    first = server.push_raw(victim.agent, [(ZERO, evil_root, "refs/replace/" + victim.tip)],
                            objects.pack())
    assert "ok" not in first.refs.values()
    refused(server, victim, objects, evil, "non-fast-forward|fetch first")
    # and with the replace ref planted on disk by hand
    path = server.repository(victim.agent)
    server.git_dir(victim.agent, "unpack-objects", "-q", input=objects.pack())
    os.makedirs(path + "/refs/replace", exist_ok=True)
    planted = path + "/refs/replace/" + victim.tip
    with open(planted, "w", encoding="ascii") as f:
        f.write(evil + "\n")
    refused(server, victim, objects, evil, "non-fast-forward|fetch first")
    os.unlink(planted)
    victim.accepted = True      # objects were planted: the state is not the one from before


def test_T10_many_refs(server, victim):
    """Past 16 commands a push is refused in one piece; 50,000 neither take time nor make files."""
    tip = victim.tip
    for n in (17, 50_000):
        began = time.monotonic()
        report = server.push_raw(
            victim.agent, [(ZERO, tip, f"refs/heads/r{i}") for i in range(n)], b"")
        assert "ok" not in report.refs.values(), report
        assert time.monotonic() - began < 30
    assert server.git_dir(victim.agent, "for-each-ref").stdout.count(b"\n") == 1


def test_H1_delete_is_refused(server, victim):
    report = server.push_raw(victim.agent, [(victim.tip, ZERO, MAIN)], b"")
    assert report.refs.get(MAIN, "").lower() not in ("ok", ""), report
    assert "delet" in report.why.lower()
    assert server.tip(victim.agent) == victim.tip


def test_H1_non_fast_forward(server, victim):
    """The old id matches, the new one is no descendant; also a whole new root, also the genesis."""
    objects = Objects()
    tree = objects.tree_of({"system/human.md": b"rewritten\n"})
    beside = objects.commit(tree, [GENESIS], "beside\n")
    root = objects.commit(tree, [], "a new root\n")
    refused(server, victim, objects, beside, "non-fast-forward")
    refused(server, victim, objects, root, "non-fast-forward|root|unrelated")
    report = server.push_raw(victim.agent, [(victim.tip, GENESIS, MAIN)], Objects().pack())
    assert report.refs.get(MAIN) != "ok", report


def test_H1_lost_race_reads_as_git_says(server, victim, git, folder):
    """The client knows a lost race by 'failed to push some refs' and 'non-fast-forward' or
    'fetch first'."""
    c = git.clone(server.git_url(victim.agent), folder / "late")
    victim.must_push({"system/human.md": "first\n"})
    victim.accepted = True
    c.write("system/human.md", "late\n")
    c.commit()
    done = c.push(check=False)
    assert done.returncode == 1
    text = done.stderr.decode()
    assert "failed to push some refs" in text and ("fetch first" in text or "non-fast" in text)
    # raw: the old id was true when the client asked
    objects = Objects()
    tip = objects.commit(objects.tree_of({"a.md": b"x"}), [GENESIS])
    refused(server, victim, objects, tip, "non-fast-forward|fetch first|stale|changed", old=GENESIS)
    forced = c.run("push", "--force", "origin", "main", check=False)
    assert forced.returncode == 1


def test_H1_new_root_of_a_new_agent(server, victim):
    """A memory that does not begin with the genesis is refused: nothing makes another root."""
    a = new_agent()
    objects = Objects()
    root = objects.commit(objects.tree_of({"a.md": b"x\n"}), [], "my own root\n")
    for old in (GENESIS, ZERO):
        report = server.push_raw(a, [(old, root, MAIN)], objects.pack())
        assert report.refs.get(MAIN) != "ok", report
    assert not os.path.exists(server.repository(a)) or server.tip(a) == GENESIS


# -- T11: trees ------------------------------------------------------------------------------------

def hostile_trees():
    def entry(name, mode=FILE):
        return lambda o: [(mode, name, o.blob(b"x\n"))]

    def link(target):
        return lambda o: [(LINK, b"link.md", o.blob(target))]

    def below(mode, name):
        return lambda o: [(FOLDER, b"system", o.tree([(mode, name, o.blob(b"x\n"))]))]

    cases = {
        "symlink-absolute": (link(b"/etc/passwd"), "link.md", "symlink|symbolic|mode"),
        "symlink-up": (link(b"../../x"), "link.md", "symlink|symbolic|mode"),
        "symlink-into-git": (link(b".git/config"), "link.md", "symlink|symbolic|mode"),
        "gitlink": (lambda o: [(GITLINK, b"sub", GENESIS)], "sub", "submodule|mode"),
        "mode-100777": (entry(b"a.md", b"100777"), "a.md|unpack|mode", "mode"),
        "mode-100664": (entry(b"a.md", b"100664"), "a.md|mode", "mode"),
        "mode-zero-padded": (entry(b"a.md", b"0100644"), "mode|unpack|tree", "mode|zero|unpack"),
        "attributes-link": (lambda o: [(LINK, b".gitattributes", o.blob(b"x"))],
                            ".gitattributes|unpack", "symlink|symbolic|mode|unpack"),
        "latin1": (entry(b"caf\xe9.md"), "caf", "utf-8"),
        "newline": (entry(b"a\nb.md"), "a", "control"),
        "escape": (entry(b"a\x1b[31m.md"), "a", "control"),
        "carriage-return": (entry(b"a\rb.md"), "a", "control"),
        "delete-char": (entry(b"a\x7fb.md"), "a", "control"),
        "c1-control": (entry("a\u0085b.md".encode()), "a", "control"),
        "bidi": (entry("a\u202egnp.md".encode()), "a", "bidi|direction|control"),
        "backslash": (entry(b"a\\b.md"), "a", "backslash|\\"),
        "leading-dash": (entry(b"-rf.md"), "rf.md", "dash|'-'|hyphen"),
        "leading-dash-below": (below(FILE, b"--help"), "system/", "dash|'-'|hyphen"),
        "case-twins": (lambda o: [(FILE, b"A.md", o.blob(b"1")), (FILE, b"a.md", o.blob(b"2"))],
                       "a.md", "case"),
        "case-twins-unicode": (lambda o: [(FILE, "É.md".encode(), o.blob(b"1")),
                                          (FILE, "é.md".encode(), o.blob(b"2"))], ".md", "case"),
        "not-nfc": (entry("e\u0301.md".encode()), ".md", "nfc|normal|form"),
        "name-too-long": (entry(b"n" * 300 + b".md"), "nnn", "255|long"),
        "name-5000": (entry(b"n" * 5000), "nnn", "255|long"),
        "path-too-long": (lambda o: nested(o, [b"d" * 200] * 6), "ddd", "1024|1,024|long|path"),
        "dot-git": (entry(b".git"), ".git|unpack", ""),
        "dot-GIT": (entry(b".GIT"), ".git|unpack", ""),
        "git~1": (entry(b"git~1"), "git~1|unpack", ""),
        "hfs-git": (entry(".g\u200cit".encode()), "", ""),
        "dot": (entry(b"."), "", ""),
        "dot-dot": (entry(b".."), "", ""),
        "slash-in-name": (entry(b"a/b.md"), "", ""),
        "empty-name": (entry(b""), "", ""),
    }
    return cases


def nested(objects, names, leaf=b"a.md"):
    entries = [(FILE, leaf, objects.blob(b"x\n"))]
    for name in names:
        entries = [(FOLDER, name, objects.tree(entries))]
    return entries


@pytest.mark.parametrize("kind", list(hostile_trees()))
def test_T11_hostile_tree(server, victim, kind):
    make, path, rule = hostile_trees()[kind]
    objects = Objects()
    entries = make(objects)
    tip = objects.commit(objects.tree(entries), [victim.tip])
    refused(server, victim, objects, tip, *(w for w in (path, rule) if w))


def test_T11_duplicate_and_unsorted_entries(server, victim):
    objects = Objects()
    blob = objects.blob(b"x\n")
    for entries in ([(FILE, b"a.md", blob), (FILE, b"a.md", blob)],
                    [(FILE, b"b.md", blob), (FILE, b"a.md", blob)]):
        tip = objects.commit(objects.tree(entries, sort=False), [victim.tip])
        refused(server, victim, objects, tip)


def test_T11_hidden_in_the_middle_of_history(server, victim):
    """The tip is clean, a commit below it is not; every new commit is vetted."""
    objects = Objects()
    bad = objects.commit(objects.tree([(LINK, b"l.md", objects.blob(b"/etc/passwd"))]),
                         [victim.tip])
    good = objects.commit(objects.tree_of({"system/human.md": b"clean\n"}), [bad])
    refused(server, victim, objects, good, "l.md", "symlink|symbolic|mode")


def test_T11_hidden_in_a_merged_side(server, victim):
    objects = Objects()
    bad = objects.commit(objects.tree([(LINK, b"l.md", objects.blob(b"/etc/passwd"))]), [GENESIS])
    tip = objects.commit(objects.tree_of({"system/human.md": b"clean\n"}), [victim.tip, bad])
    refused(server, victim, objects, tip, "l.md")


@pytest.mark.parametrize("when", [-1, 4102444801, 131961 * 31556952, 1 << 62])
def test_T11_dates(server, victim, when):
    objects = Objects()
    tree = objects.tree_of({"a.md": b"x\n"})
    tip = objects.commit(tree, [victim.tip], when=when)
    refused(server, victim, objects, tip)
    tip = objects.commit(tree, [victim.tip], committed=when)
    refused(server, victim, objects, tip)


def test_T11_beside_an_old_symlink(servers, folder):
    """A repository that held a symlink before the rule can still be pushed to."""
    server = servers("lenient", args=["--lenient"])
    memory = Memory(server, new_agent())
    objects = Objects()
    old = [(LINK, b"old.md", objects.blob(b"target.md"))]
    tip = objects.commit(objects.tree(old), [GENESIS])
    report = server.push_raw(memory.agent, [(GENESIS, tip, MAIN)], objects.pack())
    assert report.acked, report
    assert server.blocks(memory.agent) == {}    # stored, and no block
    server.stop()
    server.args = []
    server.start()
    objects = Objects()
    beside = objects.commit(objects.tree(
        [(LINK, b"old.md", objects.blob(b"target.md")), (FILE, b"new.md", objects.blob(b"n\n"))]),
        [tip])
    report = server.push_raw(memory.agent, [(tip, beside, MAIN)], objects.pack())
    assert report.acked, report
    assert set(server.blocks(memory.agent)) == {"new"}
    changed = objects.commit(objects.tree(
        [(LINK, b"old.md", objects.blob(b"/etc/passwd"))]), [beside])
    report = server.push_raw(memory.agent, [(beside, changed, MAIN)], objects.pack())
    assert report.refs.get(MAIN) != "ok", report


def test_T11_what_is_allowed(server, victim):
    """The strict policy does not refuse ordinary oddities."""
    victim.accepted = True
    objects = Objects()
    entries = [(EXEC, b"run.sh", objects.blob(b"#!/bin/sh\n")),
               (FILE, "größe & co.md".encode(), objects.blob(b"x\n")),
               (FILE, b".hidden", objects.blob(b"")),
               (FILE, b"a-b_c.d", objects.blob(b"x")),
               (FILE, b".gitattributes", objects.blob(b"* text\n")),
               (FILE, b".gitignore", objects.blob(b"x\n")),
               (FILE, b"n" * 255, objects.blob(b"x")),
               (FOLDER, b"d", objects.tree(nested(objects, [b"%d" % i for i in range(50)])))]
    tip = objects.commit(objects.tree(entries), [victim.tip], when=0, zone="+1400")
    report = server.push_raw(victim.agent, [(victim.tip, tip, MAIN)], objects.pack())
    assert report.acked, report
    victim.tip = tip


# -- T13 to T16: bombs -----------------------------------------------------------------------------

def tree_peak_kib(server, halt, peak):
    while not halt.is_set():
        total = 0
        for pid in [server.pid, *server.children()]:
            try:
                with open(f"/proc/{pid}/statm", encoding="ascii") as f:
                    total += int(f.read().split()[1]) * 4
            except OSError:
                continue
        peak[0] = max(peak[0], total)
        time.sleep(0.005)


@pytest.fixture
def peak(server):
    """Resident memory of the server and its children above where it began, in MiB."""
    class Peak:
        mib = 0.0
    base, seen, halt = server.rss_kib(), [0], threading.Event()
    thread = threading.Thread(target=tree_peak_kib, args=(server, halt, seen), daemon=True)
    thread.start()

    def read():
        return (seen[0] - base) / 1024
    yield read
    halt.set()
    thread.join()


@pytest.mark.parametrize("times", [0x400, 0x8000, 0x20000])
def test_T13_delta_bomb(server, victim, peak, times):
    """1.3 KB that unfold to 64 MiB, 2 GiB, 8 GiB."""
    base = b"\0" * 0x10000
    base_id = wire.object_id("blob", base)
    delta = wire.doubling_delta(len(base), times)
    objects = Objects()
    big = hashlib.sha1(b"blob %d\0" % (len(base) * times))
    for _ in range(min(times, 0x400)):      # past 64 MiB nobody gets as far as the id
        big.update(base)
    tree = objects.tree([(FILE, b"bomb.md", big.hexdigest())])
    tip = objects.commit(tree, [victim.tip])
    pack = wire.pack_of([(3, base), (7, delta, base_id)] +
                        [(wire.TYPES[k], d) for k, d in objects.by_id.values()])
    began = time.monotonic()
    refused(server, victim, objects, tip, pack=pack)
    took = time.monotonic() - began
    most("policy", delta_bomb_s=took, delta_bomb_peak_MiB=peak())
    assert took < 60 and peak() < 1300, (took, peak())


def test_T14_zip_bomb(server, victim, peak):
    """One blob of 1 GiB zeros in a few MB."""
    size = 1 << 30
    deflate = zlib.compressobj(1)
    squeezed, sha = bytearray(), hashlib.sha1(b"blob %d\0" % size)
    chunk = b"\0" * (1 << 22)
    for _ in range(size >> 22):
        squeezed += deflate.compress(chunk)
        sha.update(chunk)
    squeezed += deflate.flush()
    objects = Objects()
    tip = objects.commit(objects.tree([(FILE, b"bomb.md", sha.hexdigest())]), [victim.tip])
    body = bytearray(b"PACK" + struct.pack(">II", 2, 3) + wire.pack_entry_head(3, size) + squeezed)
    for kind, data in objects.by_id.values():
        body += wire.pack_entry_head(wire.TYPES[kind], len(data)) + zlib.compress(data)
    pack = bytes(body) + hashlib.sha1(body).digest()
    began = time.monotonic()
    refused(server, victim, objects, tip, pack=pack, timeout=120)
    took = time.monotonic() - began
    most("policy", zip_bomb_s=took, zip_bomb_peak_MiB=peak())
    assert took < 60 and peak() < 1300


def test_T14_gzip_body_bomb(server, victim, peak):
    """A gzipped request body that unfolds without end is cut at its bound."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(deflate.compress(b"\0" * (1 << 22)) for _ in range(256)) + deflate.flush()
    head = {"Content-Encoding": "gzip"}
    for service in ("receive-pack", "upload-pack"):
        began = time.monotonic()
        try:
            answer = server.request(
                "POST", f"/v1/git/{victim.agent}/state.git/git-{service}", bomb,
                {**head, "Content-Type": f"application/x-git-{service}-request"}, timeout=60)
            assert answer.status in (200, 400, 413), answer
            assert b"ok refs/heads/main" not in answer.body
        except (ConnectionError, OSError):
            pass
        assert time.monotonic() - began < 60
    assert peak() < 256, peak()


def test_T14_file_and_tree_sizes(server, victim):
    """10 MiB a file, 256 MiB a tree counted with repeats; the refusal names the file."""
    objects = Objects()
    big = objects.blob(b"0" * ((10 << 20) + 1))
    tip = objects.commit(objects.tree([(FILE, b"too-big.bin", big)]), [victim.tip])
    refused(server, victim, objects, tip, "too-big.bin", "10")
    objects = Objects()
    ten = objects.blob(b"0" * (10 << 20))
    tip = objects.commit(objects.tree([(FILE, b"f%d" % i, ten) for i in range(27)]), [victim.tip])
    refused(server, victim, objects, tip, "256|268435456")


@pytest.mark.parametrize("levels", [5, 10])
def test_T15_tree_bomb(server, victim, peak, levels):
    """Each folder holds ten times the next: 10^10 paths in under a kilobyte."""
    objects = Objects()
    entries = [(FILE, b"f.md", objects.blob(b"x\n"))]
    for _ in range(levels):
        inner = objects.tree(entries)
        entries = [(FOLDER, b"%d" % i, inner) for i in range(10)]
    tip = objects.commit(objects.tree(entries), [victim.tip])
    began = time.monotonic()
    refused(server, victim, objects, tip, "100,000|100000|entries|files|too many")
    took = time.monotonic() - began
    most("policy", tree_bomb_s=took)
    assert took < 30 and peak() < 512, (took, peak())


@pytest.mark.parametrize("depth", [65, 20_000])
def test_T16_depth_bomb(server, victim, peak, depth):
    objects = Objects()
    tree = objects.tree([(FILE, b"f.md", objects.blob(b"x\n"))])
    for _ in range(depth):
        tree = objects.tree([(FOLDER, b"d", tree)])
    tip = objects.commit(tree, [victim.tip])
    began = time.monotonic()
    refused(server, victim, objects, tip, "64|deep|depth")
    took = time.monotonic() - began
    most("policy", depth_bomb_s=took)
    assert took < 60 and peak() < 512


def test_T16_depth_64_is_fine(server, victim):
    victim.accepted = True
    objects = Objects()
    tree = objects.tree([(FILE, b"f.md", objects.blob(b"x\n"))])
    for _ in range(60):
        tree = objects.tree([(FOLDER, b"d", tree)])
    tip = objects.commit(tree, [victim.tip])
    report = server.push_raw(victim.agent, [(victim.tip, tip, MAIN)], objects.pack())
    assert report.acked, report
    victim.tip = tip


def test_T13_pack_over_the_limit(server, victim):
    """72 MiB of body at most; the answer is a refusal or a clean 413, and nothing stays."""
    rnd = os.urandom(1 << 20)
    objects = Objects()
    ids = [objects.blob(struct.pack(">I", i) + rnd[:-4] + b"%d" % i) for i in range(80)]
    tip = objects.commit(objects.tree([(FILE, b"f%d" % i, x) for i, x in enumerate(ids)]),
                         [victim.tip])
    pack = bytearray(b"PACK" + struct.pack(">II", 2, len(objects.by_id)))
    for kind, data in objects.by_id.values():
        pack += wire.pack_entry_head(wire.TYPES[kind], len(data)) + zlib.compress(data, 0)
    pack = bytes(pack) + hashlib.sha1(pack).digest()
    report = server.push_raw(victim.agent, [(victim.tip, tip, MAIN)], pack, timeout=120)
    assert not report.acked, report
    assert report.status in (200, 413, None), report


# -- things that are not what they say -------------------------------------------------------------

def test_D3_tip_is_no_commit(server, victim):
    objects = Objects()
    blob = objects.blob(b"x")
    tree = objects.tree([(FILE, b"a", blob)])
    tag = objects.add("tag", f"object {victim.tip}\ntype commit\ntag t\n"
                             "tagger T <t@example.org> 0 +0000\n\nx\n".encode())
    for tip in (blob, tree, tag):
        refused(server, victim, objects, tip)
    refused(server, victim, objects, "1" * 40)      # an object that is nowhere


def test_D3_missing_objects(server, victim):
    """The commit is there, its tree (or the tree's blob, or a parent) is not."""
    for missing in ("blob", "tree", "commit"):
        objects = Objects()
        parent = objects.commit(objects.tree_of({"p.md": b"parent\n"}), [victim.tip])
        tip = objects.commit(objects.tree_of({"deep/a.md": b"unique %s\n" % missing.encode()}),
                             [parent])
        keep = [i for i, (kind, data) in objects.by_id.items()
                if kind != missing or i == tip or (missing == "tree" and b"parent" in data)]
        if missing == "commit":
            assert parent not in keep
        refused(server, victim, objects, tip, pack=objects.pack(keep))


def test_D4_the_same_push_again(server, victim):
    """The client that never read its answer sends the same bytes once more: same state, and ok."""
    victim.accepted = True
    commit, pack, _ = victim.prepare({"system/human.md": "once\n"})
    command = [(victim.tip, commit, MAIN)]
    assert server.push_raw(victim.agent, command, pack).acked
    again = server.push_raw(victim.agent, command, pack)
    assert again.acked, again
    assert server.tip(victim.agent) == commit
    victim.tip = commit
    assert int(server.git_dir(victim.agent, "rev-list", "--count", "main").stdout) == 3


@pytest.mark.parametrize("body", [
    b"", b"00", b"0003", b"0004", b"zzzz", b"fff1", b"0008abcd", b"0000PACK", b"0032" + b"x" * 46,
    wire.pkt(f"{ZERO} {'g' * 40} {MAIN}\0 report-status") + b"0000",
    wire.pkt(f"{ZERO} {ZERO} {MAIN}\0 report-status") + b"0000",
    wire.pkt(f"{ZERO} {'1' * 40} \0 report-status") + b"0000",
    wire.pkt(f"{ZERO} {'1' * 40}") + b"0000",
    wire.pkt("push-cert\0 report-status\n") + b"0000",
    wire.pkt(f"shallow {'1' * 40}") + wire.pkt(f"{ZERO} {'1' * 40} {MAIN}\0 report-status")
    + b"0000",
    wire.pkt(f"{ZERO} {'1' * 40} {MAIN}\0 report-status push-options") + b"0000" + wire.pkt(b"a;b")
    + b"0000",
    wire.pkt(f"{ZERO} {'1' * 40} {MAIN}\0 report-status object-format=sha256") + b"0000",
], ids=lambda b: b[:12].decode("latin-1") + str(len(b)))
def test_T21_malformed_bodies(server, victim, body):
    """Whatever comes instead of commands: a clean answer, no crash, nothing changed."""
    answer = server.request(
        "POST", f"/v1/git/{victim.agent}/state.git/git-receive-pack", body,
        {"Content-Type": "application/x-git-receive-pack-request"}, timeout=20)
    assert answer.status in (200, 400, 422), answer
    assert b"ok refs/heads/main" not in answer.body


def test_messages_reach_a_person(server, victim, git, folder):
    """What git shows: exit 1, `! [remote rejected]`, and the path."""
    c = git.clone(server.git_url(victim.agent), folder / "w")
    os.symlink("/etc/passwd", folder / "w" / "evil.md")
    c.commit()
    done = c.push(check=False)
    text = done.stderr.decode()
    assert done.returncode == 1 and "[remote rejected]" in text and "evil.md" in text
