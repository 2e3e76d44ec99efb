"""Smart HTTP on the wire (contract http-api, part 2): what memfs says itself is what git would say.

The workflows of real clients are in test_main_job.py, refusals in test_policy.py, faults in
test_faults.py; here are the bytes.
"""
import gzip
import http.client
import os
import subprocess
import threading
import time

import pytest

from lib import http as raw
from lib import wire
from lib.gitcli import GIT, git_env
from lib.server import AUTH, new_agent
from lib.writer import Memory

UPLOAD = "application/x-git-upload-pack-request"
RECEIVE = "application/x-git-receive-pack-request"
V2 = {"Git-Protocol": "version=2"}


@pytest.fixture
def server(shared_server):
    return shared_server()


@pytest.fixture
def memory(server):
    m = Memory(server, new_agent())
    m.must_push({"system/human.md": "good\n"})
    yield m
    m.close()


def post(server, agent, service, body, headers=None):
    kind = UPLOAD if service == "git-upload-pack" else RECEIVE
    return server.request("POST", f"/v1/git/{agent}/state.git/{service}", body,
                          {"Content-Type": kind, **(headers or {})})


def ls_refs(*arguments):
    return (wire.pkt("command=ls-refs\n") + wire.pkt("agent=git/2.39.5") +
            wire.pkt("object-format=sha1") + b"0001" +
            b"".join(wire.pkt(a + "\n") for a in arguments) + wire.FLUSH)


def git_says(server, agent, command, body, protocol, *arguments):
    """What git itself answers to the same bytes, on the same repository."""
    env = {**git_env(server.folder), "GIT_PROTOCOL": protocol}
    done = subprocess.run([GIT, "-c", "safe.directory=*", command, "--stateless-rpc", *arguments,
                           server.repository(agent)], input=body, capture_output=True, timeout=30,
                          env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- what git would say ----------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", [
    (), ("peel", "symrefs"), ("symrefs", "unborn", "ref-prefix HEAD"),
    ("ref-prefix refs/heads/", "ref-prefix refs/tags/"), ("symrefs", "ref-prefix refs/heads/mai"),
    ("ref-prefix refs/tags/",), ("ref-prefix main",), ("ref-prefix ",)], ids=str)
def test_ls_refs_is_byte_for_byte_what_git_answers(server, memory, arguments):
    ours = post(server, memory.agent, "git-upload-pack", ls_refs(*arguments), V2)
    assert ours.status == 200
    assert ours.headers["content-type"] == "application/x-git-upload-pack-result"
    assert ours.headers["cache-control"] == "no-cache"
    assert ours.body == git_says(server, memory.agent, "upload-pack", ls_refs(*arguments),
                                 "version=2")


def test_v2_capabilities_are_a_part_of_what_git_can_do(server, memory):
    ours = server.get(f"/v1/git/{memory.agent}/state.git/info/refs?service=git-upload-pack", V2)
    theirs = git_says(server, memory.agent, "upload-pack", b"", "version=2",
                      "--http-backend-info-refs")
    ours = [x.rstrip(b"\n") for x in wire.pkts(ours.body) if x is not None]
    theirs = {x.rstrip(b"\n").split(b"=")[0]: x.rstrip(b"\n") for x in wire.pkts(theirs) if x}
    assert ours[0] == b"version 2"
    for line in ours[1:]:
        key, _, values = line.partition(b"=")
        assert key in theirs
        if key in (b"ls-refs", b"fetch"):
            assert set(values.split()) <= set(theirs[key].partition(b"=")[2].split())


@pytest.mark.parametrize("service,command", [("git-upload-pack", "upload-pack"),
                                             ("git-receive-pack", "receive-pack")])
def test_v0_refs_are_what_git_advertises(server, memory, service, command):
    ours = server.get(f"/v1/git/{memory.agent}/state.git/info/refs?service={service}")
    assert ours.headers["content-type"] == f"application/x-{service}-advertisement"
    assert ours.headers["cache-control"] == "no-cache"
    assert ours.body.startswith(wire.pkt(f"# service={service}\n") + wire.FLUSH)
    theirs = git_says(server, memory.agent, command, b"", "", "--http-backend-info-refs")
    refs, caps = wire.parse_refs(ours.body)
    git_refs, git_caps = wire.parse_refs(theirs)
    assert refs == git_refs
    assert {c.split("=")[0] for c in caps.split()} <= {c.split("=")[0] for c in git_caps.split()}
    assert not {"delete-refs", "push-options", "push-cert", "filter"} & set(caps.split())
    if command == "upload-pack":
        assert "symref=HEAD:refs/heads/main" in caps.split()


def test_an_unknown_agent_shows_the_genesis_and_gets_no_folder(server):
    agent = new_agent()
    refs, _ = wire.parse_refs(
        server.get(f"/v1/git/{agent}/state.git/info/refs?service=git-upload-pack").body)
    assert refs == {"HEAD": wire.GENESIS, wire.MAIN: wire.GENESIS}
    fetch = (wire.pkt("command=fetch") + b"0001" + wire.pkt(f"want {wire.GENESIS}\n") +
             wire.pkt("done\n") + wire.FLUSH)
    answer = post(server, agent, "git-upload-pack", fetch, V2)
    assert answer.status == 200 and b"PACK" in answer.body
    assert not os.path.exists(server.repository(agent))


def test_refs_over_one_connection(server, memory):
    """info/refs, ls-refs and a fetch on one keep-alive connection, as git does it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    base = f"/v1/git/{memory.agent}/state.git"
    head = {**AUTH, **V2, "Content-Type": UPLOAD}
    fetch = (wire.pkt("command=fetch") + b"0001" + wire.pkt(f"want {memory.tip}\n") +
             wire.pkt("done\n") + wire.FLUSH)
    sockets = set()
    for method, target, body in [("GET", "/info/refs?service=git-upload-pack", None),
                                 ("POST", "/git-upload-pack", ls_refs()),
                                 ("POST", "/git-upload-pack", fetch)] * 3:
        connection.request(method, base + target, body, head)
        sockets.add(connection.sock.getsockname())
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
    connection.close()
    assert len(sockets) == 1


# -- requests --------------------------------------------------------------------------------------

def test_dumb_and_foreign_services_are_403(server, memory):
    base = f"/v1/git/{memory.agent}/state.git/info/refs"
    for query in ("", "?service=git-upload-archive", "?service=", "?x=git-upload-pack"):
        answer = server.get(base + query)
        assert answer.status == 403 and answer.detail, (query, answer)


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", UPLOAD + "; charset=x",
                                  "application/x-www-form-urlencoded", "other"])
def test_T02_the_type_of_a_request_is_checked(server, memory, service, kind):
    kind = kind if kind != "other" else (RECEIVE if service == "git-upload-pack" else UPLOAD)
    answer = post(server, memory.agent, service, b"0000", {"Content-Type": kind})
    assert answer.status == 415 and answer.json()["detail"]


def test_gzip_as_the_stock_proxy_passes_it_on(server, memory):
    """Chunked, and still compressed: Content-Length is dropped, Content-Encoding is not."""
    body = wire.pkt(f"want {memory.tip} side-band-64k ofs-delta\n") + wire.FLUSH + b"".join(
        wire.pkt(f"have {i:040x}\n") for i in range(300)) + wire.pkt("done\n")
    packed = gzip.compress(body)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(packed[i:i + 100]), packed[i:i + 100])
                      for i in range(0, len(packed), 100)) + b"0\r\n\r\n"
    head = (f"POST /git/{memory.agent}/state.git/git-upload-pack HTTP/1.1\r\nHost: memfs\r\n"
            f"content-type: {UPLOAD}\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n"
            f"X-Organization-Id: org-00000000-0000-4000-8000-000000000000\r\n"
            "connection: close\r\n\r\n").encode()
    with raw.connect(server.port) as s:
        s.sendall(head + chunks)
        out = raw.read_all(s)
    assert out.startswith(b"HTTP/1.1 200") and b"PACK" in out


@pytest.mark.parametrize("body,headers", [
    (b"", {}), (b"garbage", {}), (b"0005", {}), (b"fffe" + b"x" * 100, {}),
    (wire.pkt("want nothing\n") + wire.FLUSH + wire.pkt("done\n"), {}),
    (b"", V2), (b"garbage", V2), (wire.pkt("command=ls-refs\n"), V2),
    (wire.pkt("command=fetch") + wire.pkt("command=ls-refs") + wire.FLUSH, V2),
    (wire.pkt("command=fetch") + b"0001" + wire.pkt("want x\n") + wire.FLUSH, V2),
    (wire.pkt("command=fetch") + b"0001" + wire.pkt("nonsense\n") + wire.FLUSH, V2),
    (wire.pkt("command=fetch") + wire.pkt("object-format=sha256") + b"0001" + wire.FLUSH, V2),
    (wire.pkt("command=object-info") + b"0001" + wire.FLUSH, V2),
    (gzip.compress(b"0000")[:-5], {"Content-Encoding": "gzip"}),
    (b"not gzip", {"Content-Encoding": "gzip"}), (b"0000", {"Content-Encoding": "br"}),
], ids=lambda x: repr(x)[:40])
def test_malformed_fetches_are_refused_and_nothing_is_served(server, memory, body, headers):
    answer = post(server, memory.agent, "git-upload-pack", body, headers)
    assert answer.status in (200, 400, 415), answer
    assert b"PACK" not in answer.body
    if answer.status == 200:
        assert answer.body == b"" or b"ERR " in answer.body, answer
    assert server.get("/healthz").status == 200


def test_what_is_no_tip_and_no_object_is_told_in_git_s_words(server, memory):
    fetch = (wire.pkt("command=fetch") + b"0001" + wire.pkt(f"want {'12' * 20}\n") +
             wire.pkt("done\n") + wire.FLUSH)
    answer = post(server, memory.agent, "git-upload-pack", fetch, V2)
    assert answer.status == 200 and b"ERR upload-pack: not our ref" in answer.body


# -- reports ---------------------------------------------------------------------------------------

def send(server, memory, commands, caps, pack=None):
    body = wire.push_body(commands, wire.pack_of([]) if pack is None else pack, caps)
    return post(server, memory.agent, "git-receive-pack", body)


def test_a_report_without_a_side_band(server, memory):
    commit, pack, _ = memory.prepare({"a.md": "1\n"})
    answer = send(server, memory, [(memory.tip, commit, wire.MAIN)], "report-status", pack)
    assert answer.body == wire.pkt("unpack ok\n") + wire.pkt(f"ok {wire.MAIN}\n") + wire.FLUSH
    assert answer.headers["content-type"] == "application/x-git-receive-pack-result"


def test_no_report_if_none_is_wanted(server, memory):
    commit, pack, _ = memory.prepare({"a.md": "1\n"})
    assert send(server, memory, [(memory.tip, commit, wire.MAIN)], "ofs-delta", pack).body == b""
    assert server.tip(memory.agent) == commit


def test_D2_the_report_is_one_band_1_packet_behind_all_talk(server, memory):
    commit, pack, _ = memory.prepare({"bad.md": "---\nlimit: [\n---\n"})
    answer = send(server, memory, [(memory.tip, commit, wire.MAIN)],
                  "report-status-v2 side-band-64k", pack)
    packets = list(wire.pkts(answer.body))
    assert packets[-1] is None and packets[-2][0] == 1
    assert [p[0] for p in packets[:-2]] == [2] * (len(packets) - 2) and len(packets) > 2
    assert all(p.endswith(b"\n") for p in packets[:-2])
    inner = list(wire.pkts(packets[-2][1:]))
    assert inner == [b"unpack ok\n", b"ok refs/heads/main\n", None]


def test_quiet_pushes_have_no_progress(server, memory):
    commit, pack, _ = memory.prepare({f"n/{i}.md": f"{i}\n" for i in range(50)})
    answer = send(server, memory, [(memory.tip, commit, wire.MAIN)],
                  "report-status side-band-64k quiet", pack)
    assert [p[0] for p in wire.pkts(answer.body) if p] == [1]


def test_other_refs_are_refused_one_by_one_and_main_is_not(server, memory):
    commit, pack, _ = memory.prepare({"a.md": "1\n"})
    commands = [(wire.ZERO, commit, "refs/heads/x"), (memory.tip, commit, wire.MAIN),
                (wire.ZERO, commit, "refs/tags/v1")]
    report = server.push_raw(memory.agent, commands, pack)
    assert report.complete and report.refs[wire.MAIN] == "ok"
    assert "main" in report.refs["refs/heads/x"] and "main" in report.refs["refs/tags/v1"]
    assert server.tip(memory.agent) == commit


def test_D3_an_atomic_push_with_another_ref_changes_nothing(server, memory):
    commit, pack, _ = memory.prepare({"a.md": "1\n"})
    before = server.state_of(memory.agent)
    commands = [(memory.tip, commit, wire.MAIN), (wire.ZERO, commit, "refs/heads/x")]
    report = server.push_raw(memory.agent, commands, pack,
                             caps="report-status side-band-64k atomic object-format=sha1")
    assert report.complete and not report.acked and len(report.refs) == 2
    assert "atomic" in report.refs[wire.MAIN]
    assert server.state_of(memory.agent) == before


@pytest.mark.parametrize("body", [
    b"", b"0", b"zzzz", b"0003", wire.pkt("hello") + wire.FLUSH,
    wire.push_body([(wire.ZERO, "12" * 20, wire.MAIN)], b"", "push-options"),
    wire.push_body([(wire.ZERO, "12" * 20, wire.MAIN)], b"", "object-format=sha256"),
    wire.push_body([(wire.ZERO, "12" * 20, wire.MAIN)] * 2, b""),
    wire.push_body([(wire.ZERO, "12" * 20, f"refs/heads/{i}") for i in range(17)], b""),
    wire.pkt("push-cert\0 report-status\n") + wire.FLUSH,
    wire.push_body([(wire.ZERO, "12" * 20, wire.MAIN)], b"")[:-4],
    wire.pkt(b"x" * 60000) * 2], ids=lambda b: repr(b[:30]))
def test_malformed_pushes_change_nothing(server, memory, body):
    before = server.state_of(memory.agent)
    answer = post(server, memory.agent, "git-receive-pack", body)
    assert answer.status in (400, 413) and answer.json()["detail"], answer
    assert server.state_of(memory.agent) == before


def test_a_refused_push_leaves_the_connection_usable(server, memory):
    """The pack of a push that was refused at its commands is drained, not reset."""
    commit, pack, _ = memory.prepare({"big.bin": os.urandom(3 << 20)})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    target = f"/v1/git/{memory.agent}/state.git/git-receive-pack"
    body = wire.push_body([(memory.tip, commit, "refs/heads/x")], pack)
    for _ in range(3):
        connection.request("POST", target, body, {**AUTH, "Content-Type": RECEIVE})
        sock = connection.sock
        report = wire.Report(200, connection.getresponse().read())
        assert report.complete and not report.acked
        assert connection.sock is sock, "the connection was closed"
    connection.close()


# -- many at once ----------------------------------------------------------------------------------

def test_L1_slow_clients_do_not_hold_up_others(server, memory):
    """More half-sent pushes than there are workers, each past its pipe: others are served."""
    _, pack, _ = memory.prepare({"big.bin": os.urandom(2 << 20)})
    slow = []
    for _ in range(24):
        agent = new_agent()
        body = wire.push_body([(wire.GENESIS, "12" * 20, wire.MAIN)], pack)
        s = raw.connect(server.port)
        s.sendall((f"POST /v1/git/{agent}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                   f"Content-Type: {RECEIVE}\r\nContent-Length: {len(body)}\r\n\r\n").encode() +
                  body[:600_000])
        slow.append(s)
    time.sleep(0.5)
    began = time.monotonic()
    try:
        for i in range(5):
            memory.must_push({"a.md": f"{i}\n"})
            assert post(server, memory.agent, "git-upload-pack", ls_refs(), V2).status == 200
    finally:
        took = time.monotonic() - began
        for s in slow:
            s.close()
    assert took < 25, took      # the slow ones are given 30 s
    server.wait_no_leftovers(10)


def test_readers_beside_a_writer_see_whole_states(server, memory):
    halt, faults, n = threading.Event(), [], [0]
    tips = {memory.tip}

    def read():
        while not halt.is_set():
            body = post(server, memory.agent, "git-upload-pack", ls_refs("symrefs"), V2).body
            lines = [x.decode().split() for x in wire.pkts(body) if x]
            seen = {line[0] for line in lines}
            n[0] += 1
            if len(lines) != 2 or len(seen) != 1:
                faults.append(body)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        for i in range(30):
            tips.add(memory.must_push({"a.md": f"{i}\n"}))
    finally:
        halt.set()
        for t in threads:
            t.join()
    assert not faults and n[0] > 3
