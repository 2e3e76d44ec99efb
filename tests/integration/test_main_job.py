"""The main job: a pushed memory is readable as blocks the moment `git push` returns.

Real git against the running server, in every shape that clients use it.
"""
import base64
import gzip
import hashlib
import os
import random
import re
import subprocess
import threading
import time

import pytest

from lib import http, wire
from lib.graph import Graph
from lib.server import AUTH, BEARER, SECRETS, new_agent, sanitizer_library
from lib.summary import count, most
from lib.writer import Load, Memory, body_of

HUMAN = "---\ndescription: About the user\n---\nLikes tea.\n"


def block_id(agent, label):
    raw = bytearray(hashlib.md5(f"{agent}:{label}".encode()).digest())
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    h = raw.hex()
    return f"block-{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@pytest.fixture
def checkout(server, git, folder, agent):
    """A clone of a new agent's memory, with its id."""
    def make(name="work", agent_id=None):
        agent_id = agent_id or agent()
        c = git.clone(server.git_url(agent_id), folder / name)
        c.agent = agent_id
        return c
    return make


# -- the flow of the README ------------------------------------------------------------------------

def test_clone_write_push_read(server, checkout):
    c = checkout()
    assert c.head == wire.GENESIS
    assert c.text("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert c.text("cat-file", "-p", "HEAD") == (
        f"tree {wire.EMPTY_TREE}\nauthor memfs <memfs@localhost> 0 +0000\n"
        "committer memfs <memfs@localhost> 0 +0000\n\nmemfs: genesis")

    c.save({"system/human.md": HUMAN})

    answer = server.block(c.agent, "system/human")
    assert answer.status == 200
    row = answer.json()
    assert row["value"] == "Likes tea.\n"
    assert row["description"] == "About the user"
    assert row["limit"] == 100000 and row["read_only"] is False and row["metadata"] == {}
    assert row["id"] == block_id(c.agent, "system/human")
    assert list(row) == [
        "value", "limit", "project_id", "template_name", "is_template", "template_id",
        "base_template_id", "deployment_id", "entity_id", "preserve_on_migration", "label",
        "read_only", "description", "metadata", "hidden", "id", "created_by_id",
        "last_updated_by_id", "tags"]
    encoded = server.get(f"/v1/agents/{c.agent}/core-memory/blocks/system%2Fhuman")
    assert encoded.json() == row
    assert server.get(f"/v1/blocks/{row['id']}").json() == row
    assert server.get(f"/latest/agents/{c.agent}/core-memory/blocks/system/human").json() == row
    assert c.agent in [a["id"] for a in server.get("/v1/agents/").json()]


def test_first_clone_leaves_no_trace(server, checkout, agent):
    """An id that was only ever cloned has no folder; its API answers 404."""
    c = checkout()
    assert server.repositories() == []
    assert server.get(f"/v1/agents/{c.agent}").status == 404
    assert server.get(f"/v1/agents/{c.agent}/core-memory/blocks").status == 404


def test_block_is_there_when_push_returns_every_time(server, checkout, scale):
    """Conviction 5, many times: the answer of the very next request is the pushed text."""
    memory = Memory(server, new_agent())
    for i in range(scale(150, 2000)):
        memory.must_push({"system/human.md": f"text {i}\n"})
        assert server.value(memory.agent, "system/human") == f"text {i}\n"
    count("main_job", pushes_read_at_once=len(memory.acked))


def test_second_home_pulls(server, checkout):
    one = checkout("one")
    one.save({"system/human.md": HUMAN})
    two = checkout("two", one.agent)
    assert two.read("system/human.md").decode() == HUMAN
    head = two.save({"system/persona.md": "I am two.\n"})
    one.pull()
    assert one.head == head and one.read("system/persona.md") == b"I am two.\n"
    assert server.value(one.agent, "system/persona") == "I am two.\n"


def test_K2_rename_delete_and_delete_all(server, checkout):
    c = checkout()
    c.save({"system/a.md": "A\n", "system/b.md": "B\n", "deep/er/c.md": "C\n"})
    assert set(server.blocks(c.agent)) == {"system/a", "system/b", "deep/er/c"}
    old = server.blocks(c.agent)

    c.run("mv", "system/a.md", "system/renamed.md")
    c.commit("rename")
    c.push()
    assert set(server.blocks(c.agent)) == {"system/renamed", "system/b", "deep/er/c"}
    assert server.value(c.agent, "system/renamed") == "A\n"
    assert server.blocks(c.agent)["system/b"] == old["system/b"]

    c.run("rm", "-q", "deep/er/c.md")
    c.commit("delete")
    c.push()
    assert set(server.blocks(c.agent)) == {"system/renamed", "system/b"}
    assert server.block(c.agent, "deep/er/c").status == 404

    c.run("rm", "-q", "-r", ".")
    c.commit("delete all")
    c.push()
    assert server.blocks(c.agent) == {}
    assert server.get(f"/v1/agents/{c.agent}").status == 200

    c.save({"system/a.md": "A again\n"})
    assert server.blocks(c.agent)["system/a"]["id"] == old["system/a"]["id"]


def test_K3_same_label_of_two_agents(server, checkout):
    one, two = checkout("one"), checkout("two")
    one.save({"system/human.md": "one\n"})
    two.save({"system/human.md": "two\n"})
    one.run("rm", "-q", "system/human.md")
    one.commit("gone")
    one.push()
    assert server.blocks(one.agent) == {}
    assert server.value(two.agent, "system/human") == "two\n"


def test_2000_files(server, checkout, git, folder):
    c = checkout()
    files = {f"notes/{i % 40}/n{i}.md": f"---\ndescription: note {i}\n---\nbody {i}\n"
             for i in range(2000)}
    began = time.monotonic()
    c.save(files)
    count("main_job", push_2000_s=time.monotonic() - began)
    shown = server.blocks(c.agent)
    assert {k: v["value"] for k, v in shown.items()} == \
        {p[:-3]: body_of(d.encode()) for p, d in files.items()}

    began = time.monotonic()
    c.save({"notes/7/n7.md": "changed\n"})
    count("main_job", push_1_of_2000_s=time.monotonic() - began)
    assert server.value(c.agent, "notes/7/n7") == "changed\n"
    again = git.clone(server.git_url(c.agent), folder / "again")
    assert again.text("rev-parse", "HEAD^{tree}") == c.text("rev-parse", "HEAD^{tree}")

    seen, after = [], ""
    while True:     # the SDK's way: until an empty page
        page = server.get(f"/v1/agents/{c.agent}/core-memory/blocks?limit=300{after}").json()
        if not page:
            break
        seen += [row["id"] for row in page]
        after = "&after=" + page[-1]["id"]
    assert len(seen) == 2000 and seen == sorted(seen, reverse=True)


# -- any bytes are legal ---------------------------------------------------------------------------

def test_large_file_is_stored_and_marked(server, checkout, git, folder):
    """9 MiB is stored and cloned whole; past 1 MiB it is no ordinary block."""
    c = checkout()
    big = random.Random(1).randbytes(6 << 20)
    text = base64.b64encode(big)[:9 << 20].ljust(9 << 20, b"x")
    c.save({"reference/big.md": text, "system/human.md": HUMAN}, timeout=120)
    again = git.clone(server.git_url(c.agent), folder / "again")
    assert again.read("reference/big.md") == text
    shown = server.blocks(c.agent)
    assert shown["system/human"]["value"] == "Likes tea.\n"
    if "reference/big" in shown:    # marked: never the text itself
        assert len(shown["reference/big"]["value"]) < 1 << 20


BYTES = {
    "empty.md": b"",
    "nul.md": b"a\0b\n",
    "latin1.md": b"caf\xe9\n",
    "overlong.md": b"\xc0\xaf\xed\xa0\x80",
    "bom.md": b"\xef\xbb\xbf---\ndescription: d\n---\nx\n",
    "crlf.md": b"---\r\ndescription: with crlf\r\n---\r\nline\r\nline\r\n",
    "no-newline.md": b"---\ndescription: d\n---\nx",
    "unclosed.md": b"---\ndescription: d\nx\n",
    "bad-yaml.md": b"---\ndescription: a: b\n---\nB\n",
    "impossible-date.md": b"---\ndescription: d\nx: 2024-13-45\n---\nB\n",
    "alias-bomb.md": b"---\na: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9))
        for i in range(9)) + b"description: d\n---\nB\n",
    "wrong-types.md": b"---\ndescription: [1, 2]\nlimit: lots\nread_only: maybe\n---\nB\n",
    "deep.md": b"---\nx: " + b"[" * 2000 + b"]" * 2000 + b"\n---\nB\n",
    "binary.md": bytes(range(256)) * 16,
    "all.bin": bytes(range(256)),
    "good.md": HUMAN.encode(),
}


def test_K5_K6_any_bytes(server, checkout, git, folder):
    c = checkout()
    c.save(BYTES)
    again = git.clone(server.git_url(c.agent), folder / "again")
    for path, data in BYTES.items():
        assert again.read(path) == data, path
    shown = server.blocks(c.agent)
    assert set(shown) == {p[:-3] for p in BYTES if p.endswith(".md")}
    assert shown["good"]["value"] == "Likes tea.\n"
    assert shown["empty"]["value"] == ""
    assert shown["crlf"] == {**shown["crlf"], "value": "line\nline\n", "description": "with crlf"}
    assert shown["bom"]["value"].endswith("---\nx\n") and shown["bom"]["value"].startswith("\ufeff")
    assert shown["no-newline"]["value"] == "x"
    for name in ("unclosed", "bad-yaml", "impossible-date"):
        assert shown[name]["value"] == BYTES[name + ".md"].decode()
    assert "\ufffd" in shown["latin1"]["value"]
    assert server.block(c.agent, "nul").status == 200
    for label in shown:     # one by one: every row has an answer
        assert server.block(c.agent, label).status == 200
    count("main_job", odd_files=len(BYTES))


def test_non_ascii_paths(server, checkout, git, folder):
    c = checkout()
    files = {"system/grüße.md": "de\n", "日本/語.md": "ja\n", "notes/a b.md": "blank\n",
             "notes/it's \"q\".md": "quotes\n", "emoji/😀.md": "e\n", "skills/写/SKILL.md": "s\n",
             "notes/per%20cent.md": "per cent\n", "notes/plus+&?#.md": "url\n"}
    c.save(files)
    shown = {k: v["value"] for k, v in server.blocks(c.agent).items()}
    assert shown == {("skills/写" if p.startswith("skills/") else p[:-3]): d
                     for p, d in files.items()}
    assert server.value(c.agent, "system/gr%C3%BC%C3%9Fe") == "de\n"
    assert server.value(c.agent, "notes/per%2520cent") == "per cent\n"
    assert server.value(c.agent, "notes%2Fplus%2B%26%3F%23") == "url\n"
    again = git.clone(server.git_url(c.agent), folder / "again")
    assert again.text("rev-parse", "HEAD^{tree}") == c.text("rev-parse", "HEAD^{tree}")


# -- the wire in its variants ----------------------------------------------------------------------

@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_protocol_versions(server, git, folder, agent, version):
    a, config = agent(), [f"protocol.version={version}"]
    c = git.clone(server.git_url(a), folder / "one", config=config)
    assert c.head == wire.GENESIS
    c.write("system/human.md", HUMAN)
    head = c.commit()
    c.push(config=config)
    again = git.clone(server.git_url(a), folder / "two", config=config)
    assert again.head == head
    c.save({"system/human.md": "next\n"}, config=config)
    again.run("-c", config[0], "pull", "-q", "--ff-only")
    assert again.read("system/human.md") == b"next\n"
    again.run("-c", config[0], "fetch", "origin", "main")      # nothing new
    assert git.text("-c", config[0], "ls-remote", server.git_url(a)).split() == [
        c.head, "HEAD", c.head, "refs/heads/main"]


def test_shallow_clone_and_deepen(server, checkout, git, folder):
    c = checkout()
    for i in range(5):
        c.save({"system/human.md": f"{i}\n"})
    s = git.clone(server.git_url(c.agent), folder / "shallow", "--depth", "1")
    assert s.text("rev-list", "--count", "HEAD") == "1"
    s.run("fetch", "-q", "--deepen=2")
    assert s.text("rev-list", "--count", "HEAD") == "3"
    s.run("fetch", "-q", "--unshallow")
    assert s.text("rev-list", "--count", "HEAD") == "6"
    s2 = git.clone(server.git_url(c.agent), folder / "shallow2", "--depth", "1")
    s2.save({"system/human.md": "from a shallow clone\n"})
    assert server.value(c.agent, "system/human") == "from a shallow clone\n"


@pytest.mark.parametrize("form", ["/v1/git/{agent}/state.git", "/v1/git/{agent}",
                                  "/git/{agent}/state.git", "/latest/git/{agent}/state.git"])
def test_paths_of_the_remote(server, git, folder, agent, form):
    """state.git, the legacy remote without it, the service form, and the twin under /latest."""
    a = agent()
    c = git.clone(server.git_url(a, form), folder / "one")
    c.save({"system/human.md": HUMAN})
    assert server.value(a, "system/human") == "Likes tea.\n"
    c.pull()


def test_gzip_bodies(server, checkout):
    """Git gzips fetch requests past 1 KiB; a push body may come gzipped as well."""
    memory = Memory(server, new_agent())
    for i in range(3):
        memory.must_push({"system/human.md": f"{i}\n"})
    want = wire.pkt(f"want {memory.tip} side-band-64k ofs-delta no-progress\n")
    haves = b"".join(wire.pkt(f"have {hashlib.sha1(b'%d' % i).hexdigest()}\n") for i in range(200))
    body = gzip.compress(want + wire.FLUSH + haves + wire.pkt("done\n"))
    head = {"Content-Type": "application/x-git-upload-pack-request", "Content-Encoding": "gzip"}
    answer = server.request("POST", f"/v1/git/{memory.agent}/state.git/git-upload-pack", body, head)
    assert answer.status == 200 and b"PACK" in answer.body

    commit, pack, _ = memory.prepare({"system/human.md": "gzipped\n"})
    body = gzip.compress(wire.push_body([(memory.tip, commit, wire.MAIN)], pack))
    head = {"Content-Type": "application/x-git-receive-pack-request", "Content-Encoding": "gzip"}
    target = f"/v1/git/{memory.agent}/state.git/git-receive-pack"
    answer = server.request("POST", target, body, head)
    assert wire.Report(answer.status, answer.body).acked
    assert server.value(memory.agent, "system/human") == "gzipped\n"


def test_K7_probe_and_chunked_push(server, checkout):
    """A push past http.postBuffer: the 0000 probe, then chunks.  The probe alone moves nothing."""
    c = checkout()
    c.save({"system/human.md": HUMAN})
    before = server.get(f"/v1/agents/{c.agent}/core-memory/blocks")
    for body in (b"0000", gzip.compress(b"0000")):
        head = {"Content-Type": "application/x-git-receive-pack-request"}
        if body != b"0000":
            head["Content-Encoding"] = "gzip"
        probe = server.request("POST", f"/v1/git/{c.agent}/state.git/git-receive-pack", body, head)
        assert (probe.status, probe.body) == (200, b"")
        assert probe.headers["content-type"] == "application/x-git-receive-pack-result"
    after = server.get(f"/v1/agents/{c.agent}/core-memory/blocks")
    assert after.headers["etag"] == before.headers["etag"] and after.body == before.body

    c.write("notes/large.txt", random.Random(2).randbytes(300_000))
    c.commit()
    done = c.push(config=["http.postBuffer=65536"], env={"GIT_CURL_VERBOSE": "1"})
    talk = done.stderr.decode("utf-8", "replace")
    assert talk.lower().count("transfer-encoding: chunked") >= 1
    assert talk.count("POST ") >= 2
    same = server.get(f"/v1/agents/{c.agent}/core-memory/blocks")
    assert same.json() == before.json()


def test_probe_of_an_unknown_agent(server, agent):
    a = agent()
    head = {"Content-Type": "application/x-git-receive-pack-request"}
    probe = server.request("POST", f"/v1/git/{a}/state.git/git-receive-pack", b"0000", head)
    assert (probe.status, probe.body) == (200, b"")
    assert server.repositories() == []


def test_first_push_of_an_unknown_agent_may_be_large(server, checkout):
    c = checkout()
    c.write("notes/large.txt", random.Random(3).randbytes(3 << 20))
    c.write("system/human.md", HUMAN)
    c.commit()
    c.push(config=["http.postBuffer=65536"])
    assert server.value(c.agent, "system/human") == "Likes tea.\n"


def test_expect_100_continue(server):
    """The client waits for 100 before it sends its body, and is asked for it."""
    memory = Memory(server, new_agent())
    commit, pack, _ = memory.prepare({"system/human.md": "after 100\n"})
    body = wire.push_body([(memory.tip, commit, wire.MAIN)], pack)
    with http.connect(server.port) as s:
        s.sendall(f"POST /v1/git/{memory.agent}/state.git/git-receive-pack HTTP/1.1\r\n"
                  f"Host: x\r\nAuthorization: {AUTH['Authorization']}\r\n"
                  "Content-Type: application/x-git-receive-pack-request\r\n"
                  f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        s.settimeout(5)
        assert s.recv(1024).startswith(b"HTTP/1.1 100")
        s.sendall(body)
        answer = http.read_response(s)
    assert wire.Report(answer.status, answer.body).acked
    assert server.value(memory.agent, "system/human") == "after 100\n"


def test_expect_100_continue_is_not_answered_to_the_refused(server, agent):
    """No such route, too long a body: the final answer comes at once, the body is never asked for."""
    for target, length in (("/v1/no/such/route", 100_000),
                           (f"/v1/git/{agent()}/state.git/git-receive-pack", 200 << 20)):
        with http.connect(server.port) as s:
            s.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
                      "Expect: 100-continue\r\n\r\n".encode())
            s.settimeout(5)
            assert s.recv(4096).startswith(b"HTTP/1.1 4"), target


def test_bearer_basic_and_no_key(server, agent):
    """Until tokens exist any key is accepted, and none."""
    target = f"/v1/git/{agent()}/state.git/info/refs?service=git-upload-pack"
    for head in (AUTH, BEARER, {}):
        answer = http.request(server.port, "GET", target, headers=head)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/x-git-upload-pack-advertisement"
        assert answer.headers["cache-control"].startswith("no-cache")
        refs, caps = wire.parse_refs(answer.body)
        assert refs == {"HEAD": wire.GENESIS, wire.MAIN: wire.GENESIS}
        assert "symref=HEAD:refs/heads/main" in caps.split()


def test_advertised_to_pushers(server):
    memory = Memory(server, new_agent())
    memory.must_push({"a.md": "x\n"})
    answer = server.get(f"/v1/git/{memory.agent}/state.git/info/refs?service=git-receive-pack")
    refs, caps = wire.parse_refs(answer.body)
    assert refs == {wire.MAIN: memory.tip}
    words = caps.split()
    for word in ("report-status", "side-band-64k", "ofs-delta", "atomic", "object-format=sha1"):
        assert word in words, word
    assert "delete-refs" not in words and "push-options" not in words


# -- size and numbers ------------------------------------------------------------------------------

def test_60_MiB_pack_never_sits_in_memory(servers, git, folder, memfs_bin):
    """Both ways, with the server's resident memory sampled all along."""
    server = servers(env={"ASAN_OPTIONS": "quarantine_size_mb=1:"})
    a = new_agent()
    c = git.clone(server.git_url(a), folder / "one", config=["core.compression=0"])
    rnd = random.Random(4)
    for i in range(7):
        c.write(f"blobs/{i}.bin", rnd.randbytes(60 * (1 << 20) // 7))
    c.run("-c", "core.compression=0", "add", "-A")
    c.run("commit", "-q", "-m", "60 MiB")
    server.get("/v1/health/")
    base, peak, halt = server.rss_kib(), [0], threading.Event()

    def sample():
        while not halt.is_set():
            peak[0] = max(peak[0], server.rss_kib())
            time.sleep(0.01)
    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        began = time.monotonic()
        c.push(config=["core.compression=0", "pack.compression=0"], timeout=180)
        pushed = time.monotonic() - began
        began = time.monotonic()
        again = git.clone(server.git_url(a), folder / "two", timeout=180)
        cloned = time.monotonic() - began
    finally:
        halt.set()
        sampler.join()
    assert again.head == c.head
    grown = (peak[0] - base) / 1024
    count("main_job", push_60MiB_s=pushed, clone_60MiB_s=cloned)
    most("main_job", rss_growth_MiB=grown)
    # the sanitizer's shadow and redzones are not the program's
    assert grown < (64 if not sanitizer_library(memfs_bin) else 110), f"{grown:.0f} MiB"


def test_32_clients_at_once(server, checkout, git, folder):
    c = checkout()
    c.save({f"notes/{i}.md": f"note {i}\n" * 50 for i in range(100)})
    others = [Memory(server, new_agent()) for _ in range(3)]
    for m in others:
        m.must_push({"system/human.md": "other\n"})
    done, faults = [], []

    def client(i):
        try:
            a = c.agent if i % 2 == 0 else others[i % 3].agent
            work = git.clone(server.git_url(a), folder / f"c{i}", timeout=60)
            done.append((a, work.head))
        except Exception as e:
            faults.append(e)
    threads = [threading.Thread(target=client, args=(i,)) for i in range(32)]
    began = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults, faults[0]
    tips = {m.agent: m.tip for m in others} | {c.agent: c.head}
    assert len(done) == 32 and all(tips[a] == head for a, head in done)
    count("main_job", clones_at_once=32, clones_32_s=time.monotonic() - began)


def test_H2_16_git_writers_on_one_agent(server, git, folder, agent, scale):
    """Each commits, pulls with --rebase and pushes until it is through.  Nothing acked is lost."""
    a, n_writers, n_commits = agent(), 16, scale(3, 200)
    first = git.clone(server.git_url(a), folder / "w0")
    first.save({"system/shared.md": "".join(f"line {i}\n" for i in range(n_writers * 3))})
    acked, faults, retries = [], [], [0]
    lock = threading.Lock()

    def writer(w):
        try:
            c = first if w == 0 else git.clone(server.git_url(a), folder / f"w{w}")
            rnd = random.Random(w)
            for i in range(n_commits):
                c.write(f"notes/w{w}/{i}.md", f"writer {w} note {i}\n")
                c.commit(f"writer {w} commit {i}")
                for attempt in range(400):
                    if c.push(check=False).returncode == 0:
                        break
                    with lock:
                        retries[0] += 1
                    time.sleep(rnd.uniform(0, 0.05 * min(attempt + 1, 10)))
                    c.pull("--rebase")
                else:
                    raise AssertionError(f"writer {w} never got through")
                with lock:
                    acked.append(c.head)
        except Exception as e:
            faults.append(e)
    threads = [threading.Thread(target=writer, args=(w,)) for w in range(n_writers)]
    began = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults, faults[0]
    kept = Graph(server.repository(a), [wire.MAIN]).parents
    lost = [x for x in acked if x not in kept]
    count("main_job", writers=n_writers, acked=len(acked), lost=len(lost), lost_races=retries[0],
          writers_s=time.monotonic() - began)
    assert len(acked) == n_writers * n_commits and lost == []
    assert len(server.blocks(a)) == 1 + n_writers * n_commits


def test_H2_16_raw_writers_race(server, scale):
    """The same with raw pushes that rebuild on the tip they find: many lost races, no loss."""
    a = new_agent()
    seed = Memory(server, a)
    seed.must_push({"seed.md": "seed\n"})
    acked, races, faults, lock = [], [0], [], threading.Lock()
    until = time.monotonic() + scale(4, 120)

    def writer(w):
        m = Memory(server, a)
        try:
            i = 0
            while time.monotonic() < until:
                # no merge here: one file each, on top of whatever the tip holds
                tip = server.tip(a)
                objects = wire.Objects()
                tree = objects.tree_of({"seed.md": b"seed\n", f"w{w}.md": b"%d\n" % i})
                commit = objects.commit(tree, [tip], f"writer {w} {i}\n")
                report = m.send([(tip, commit, wire.MAIN)], objects.pack())
                assert report.complete, report
                with lock:
                    if report.acked:
                        acked.append(commit)
                    else:
                        races[0] += 1
                i += 1
        except Exception as e:
            faults.append(e)
        finally:
            m.close()
    threads = [threading.Thread(target=writer, args=(w,)) for w in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults, faults[0]
    history = set(server.git_dir(a, "rev-list", "main").stdout.decode().split())
    lost = [x for x in acked if x not in history]
    count("main_job", raw_acked=len(acked), raw_races=races[0], raw_lost=len(lost))
    assert acked and lost == []
    assert len(history) == len(acked) + 2


def test_H1_refs_only_move_forward_under_many_writers(server, scale):
    """The watcher of every test is on; here it gets much to look at."""
    load = Load(server, 8).start()
    time.sleep(scale(3, 60))
    load.stop()
    server.watcher.stop()
    moves = len(server.watcher.moves)
    count("main_job", ref_moves_seen=moves, pushes_8_agents=load.n_acked)
    assert moves > 0 and load.n_acked > 0 and load.lost() == []
    load.check_blocks()


def test_many_small_packs_are_folded(server, scale):
    """Hundreds of one-pack pushes: the packs stay few, the last push is no slower."""
    memory = Memory(server, new_agent())
    times = []
    for i in range(scale(150, 3000)):
        began = time.monotonic()
        memory.must_push({"system/human.md": f"text {i}\n"})
        times.append(time.monotonic() - began)
    # a folded pack stays for readers that hold it, without its index, until nobody can
    folder = server.repository(memory.agent) + "/objects/pack"
    deadline = time.monotonic() + 15
    while True:
        packs = [n for n in os.listdir(folder) if n.endswith(".idx")]
        if len(packs) <= 40 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    early, late = sorted(times[5:35])[15], sorted(times[-30:])[15]
    count("main_job", packs_after_pushes=len(packs), push_early_ms=early * 1000,
          push_late_ms=late * 1000)
    assert len(packs) <= 40, len(packs)
    assert late < 3 * early + 0.02


# -- the reading side after a push -----------------------------------------------------------------

def test_etag_follows_the_tip(server):
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": "one\n"})
    target = f"/v1/agents/{memory.agent}/core-memory/blocks"
    first = server.get(target)
    again = server.get(target, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    memory.must_push({"system/human.md": "two\n"})
    after = server.get(target, headers={"If-None-Match": first.headers["etag"]})
    assert after.status == 200 and after.headers["etag"] != first.headers["etag"]


def test_front_matter_warning_on_the_side_band(server, checkout):
    """A fault in the front matter does not stop an agent; git shows it a line about it."""
    c = checkout()
    c.write("system/human.md", "---\ndescription: a: b\n---\nB\n")
    c.commit()
    done = c.push()
    assert re.search(r"remote: .*system/human\.md", done.stderr.decode("utf-8", "replace"))
    assert server.block(c.agent, "system/human").status == 200


def test_sync_from_git_answers_the_blocks(server):
    memory = Memory(server, new_agent())
    memory.must_push({"system/b.md": "B\n", "system/a.md": "A\n"})
    answer = server.request("POST", f"/v1/agents/{memory.agent}/memory/sync-from-git")
    assert answer.status == 200
    assert [row["label"] for row in answer.json()] == ["system/a", "system/b"]
    missing = server.request("POST", f"/v1/agents/{new_agent()}/memory/sync-from-git")
    assert missing.status == 404


def test_path_prefixes(servers):
    server = servers(env={"LETTA_MEMFS_BLOCK_PATH_PREFIXES": "system/, persona"})
    memory = Memory(server, new_agent())
    memory.must_push({"system/a.md": "A\n", "persona-x.md": "P\n", "notes/n.md": "N\n",
                      "skills/s/SKILL.md": "S\n"})
    assert set(server.blocks(memory.agent)) == {"system/a", "persona-x", "skills/s"}


def test_S3_canaries_are_really_sent(server, checkout):
    """The check of every test would see a leak: planted here, it is found."""
    c = checkout()
    c.save({"system/human.md": HUMAN})
    planted = os.path.join(server.home, "planted")
    with open(planted, "wb") as f:
        f.write(b"x" + SECRETS[0])
    with pytest.raises(AssertionError, match="canary"):
        server.check_secrets()
    os.unlink(planted)


def test_version_and_blocks_of_the_command_line(server):
    memory = Memory(server, new_agent())
    memory.must_push({"system/human.md": HUMAN})
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    with open(os.path.join(root, "VERSION"), encoding="ascii") as f:
        assert f.read().strip() in server.cli("version", home=False).stdout.decode()
    for running in (True, False):   # through the owner's socket, then in its own process
        out = server.cli("blocks", "list", "--agent", memory.agent, "--json").stdout.decode()
        assert "Likes tea." in out and "system/human" in out
        out = server.cli("agents", "list", "--json").stdout.decode()
        assert memory.agent in out
        if running:
            server.stop()
    bad = server.cli("blocks", "list", "--agent", "nonsense", check=False)
    assert bad.returncode != 0 and bad.stdout == b""
    assert subprocess.run([server.binary, "no-such-command"], capture_output=True,
                          timeout=30).returncode == 2
