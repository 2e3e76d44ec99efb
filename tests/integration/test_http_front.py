"""The HTTP front by raw sockets (reliability, part 7; T01, T02, T18, T19, T20).

libmicrohttpd forgives much; what two parties could read in two ways is answered with 400 and the
connection closed, before a byte reaches git.
"""
import json
import os
import re
import socket
import threading
import time

import pytest

from lib import http, wire
from lib.patience import wait
from lib.server import AUTH, LOG_LINE, new_agent
from lib.summary import count, most
from lib.trace import Trace
from lib.writer import Memory

HOST = b"Host: memfs.internal\r\n"


@pytest.fixture
def server(shared_server):
    return shared_server()


@pytest.fixture
def memory(server):
    m = Memory(server, new_agent())
    m.must_push({"system/human.md": "good\n"})
    yield m
    m.close()


def get(target, extra=b"", method=b"GET", version=b"HTTP/1.1", host=HOST):
    target = target if isinstance(target, bytes) else target.encode()
    return method + b" " + target + b" " + version + b"\r\n" + host + extra + b"\r\n"


SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
WELL = b'"ok"'      # what the smuggled request would be answered with


# -- heads that must end in 400 and a closed connection --------------------------------------------

BAD_HEADS = {
    "two-content-lengths": b"Content-Length: 4\r\nContent-Length: 4\r\n",
    "two-content-lengths-differ": b"Content-Length: 4\r\nContent-Length: 40\r\n",
    "content-length-list": b"Content-Length: 4, 4\r\n",
    "content-length-plus": b"Content-Length: +4\r\n",
    "content-length-minus": b"Content-Length: -4\r\n",
    "content-length-hex": b"Content-Length: 0x4\r\n",
    "content-length-blank-inside": b"Content-Length: 4 4\r\n",
    "content-length-huge": b"Content-Length: 99999999999999999999999\r\n",
    "content-length-empty": b"Content-Length: \r\n",
    "length-and-chunked": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "chunked-and-length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "two-codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "coding-list": b"Transfer-Encoding: gzip, chunked\r\n",
    "coding-identity": b"Transfer-Encoding: identity\r\n",
    "coding-unknown": b"Transfer-Encoding: xchunked\r\n",
    "coding-tab": b"Transfer-Encoding:\x0bchunked\r\n",
    "two-hosts": b"Host: other\r\n",
    "two-authorizations": b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    "two-content-types": b"Content-Type: text/plain\r\nContent-Type: application/json\r\n",
    "space-before-colon": b"Content-Length : 4\r\n",
    "tab-before-colon": b"Content-Length\t: 4\r\n",
    "folded": b"X-A: b\r\n c\r\n",
    "folded-tab": b"X-A: b\r\n\tc\r\n",
    "nul-in-value": b"X-A: a\0b\r\n",
    "cr-in-value": b"X-A: a\rb\r\n",
    "bare-lf": b"X-A: a\nX-B: b\r\n",
    "bare-lf-length": b"X-A: a\nContent-Length: 4\r\n",
    "no-colon": b"nonsense\r\n",
    "empty-name": b": value\r\n",
    "blank-in-name": b"X A: b\r\n",
    "nul-in-name": b"X\0A: b\r\n",
    "control-in-name": b"X\x01A: b\r\n",
}


@pytest.mark.parametrize("name", list(BAD_HEADS))
def test_T19_heads_that_can_be_read_two_ways(server, name):
    data = get("/v1/health/", BAD_HEADS[name], method=b"POST" if "coding" in name else b"GET")
    status, out, closed = http.raw(server.port, data + b"abcd" + SMUGGLED)
    assert status in (400, 413) and closed, out[:200]
    assert WELL not in out, "a second request was read behind the first"
    count("http_front", bad_heads=1)


@pytest.mark.parametrize("data", [
    b"GET /healthz HTTP/1.1\r\n\r\n",                                      # no Host
    b"GET http://memfs.test/healthz HTTP/1.1\r\n" + HOST + b"\r\n",        # absolute
    b"GET healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"CONNECT memfs.test:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /healthz HTTP/1.1 \r\n" + HOST + b"\r\n",
    b"GET  /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET\t/healthz\tHTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
    b"GET /healthz HTTP/1.1\n" + b"Host: x\n\n",
    b"GET /heal\0thz HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /healthz\r\n\r\n",
    b"POST /v1/health/ HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
], ids=lambda d: re.sub(r"[^A-Za-z0-9 /.]", "?", d[:40].decode("latin-1")))
def test_T19_bad_request_lines(server, data):
    status, out, closed = http.raw(server.port, data, timeout=13)
    assert closed and status in (None, 400, 404, 405, 501, 505), out[:200]
    assert not out.startswith(b"HTTP/1.1 200") and WELL not in out, out[:300]
    assert server.get("/healthz").status == 200
    count("http_front", bad_lines=1)


@pytest.mark.parametrize("body", [
    b"zz\r\nabcd\r\n0\r\n\r\n", b"4\r\nabcdef\r\n0\r\n\r\n", b"-4\r\nabcd\r\n0\r\n\r\n",
    b"0x4\r\nabcd\r\n0\r\n\r\n", b"fffffffffffffffff\r\nabcd\r\n0\r\n\r\n"],
    ids=lambda b: re.sub(r"[^A-Za-z0-9]", "_", b[:18].decode()))
def test_T19_bad_chunks(server, memory, body):
    head = (f"POST /v1/git/{memory.agent}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
            "Content-Type: application/x-git-receive-pack-request\r\n"
            "Transfer-Encoding: chunked\r\n\r\n").encode()
    status, out, closed = http.raw(server.port, head + body + SMUGGLED, timeout=13)
    assert closed and WELL not in out and status in (None, 400, 413), out[:300]
    assert server.tip(memory.agent) == memory.tip


def test_T19_pipelined_requests_are_answered_in_order(server):
    """Two honest requests in one packet are two answers."""
    with http.connect(server.port) as s:
        s.sendall(get("/healthz") + get("/no/such/route", b"Connection: close\r\n"))
        out = http.read_all(s)
    assert re.findall(rb"HTTP/1\.1 (\d+)", out) == [b"200", b"404"]


# -- T01: paths ------------------------------------------------------------------------------------

BAD_PATHS = [
    "/v1/agents/../state.db", "/v1/agents/./x", "/v1/agents/%2e%2e/x", "/v1/agents/%2E%2e",
    "/v1/agents/..%2f..%2fetc%2fpasswd", "/v1/agents/agent%2Fx", "/v1/git/%2e%2e/info/refs",
    "/v1/git/..%2f..%2f/info/refs", "/v1/git/a%00b/info/refs", "/v1/agents/a%5Cb",
    "/v1/agents/a\\b", "/v1/git/%252e%252e/info/refs", "/v1/git/%c0%ae%c0%ae/info/refs",
    "/v1/git/..;/info/refs", "/v1/git/-x/info/refs", "/v1/git/.git/info/refs",
    "/v1//agents/", "//v1/agents/", "/v1/agents//x", "/v1/git//info/refs", "/..",
    "/../../etc/passwd",
    "/v1/agents/%", "/v1/agents/%4", "/v1/agents/%zz", "/v1/agents/a%0d%0ab", "/v1/agents/a%1bb",
    "/v1/git/" + "a" * 200 + "/info/refs", "/v1/git/agent-x/state.git/../../info/refs",
    "/v1/git/agent-x/state.git/objects/info/packs", "/v1/git/agent-x/state.git/HEAD",
    "/v1/git/agent-x/state.git/config", "/v1/git/agent-x/hooks/post-update",
    "/state.db", "/repository/", "/v1/agents/AGENT-11111111-1111-4111-8111-111111111111",
    "/v1/agents/agent-11111111-1111-1111-8111-111111111111",
    "/v1/agents/agent-11111111-1111-4111-8111-11111111111",
    "/v1/blocks/block-x", "/v1/blocks/..",
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda p: p[:50])
def test_T01_path_tricks(server, memory, path):
    """A clean 4xx; no such name ever becomes a path."""
    for query in ("", "?service=git-upload-pack"):
        status, out, _ = http.raw(server.port, get(path + query, b"Connection: close\r\n"))
        assert status in (400, 403, 404, 405, 414, 422), out[:200]
        body = out.split(b"\r\n\r\n", 1)[1]
        assert b"root:" not in body and server.home.encode() not in body
    count("http_front", bad_paths=1)


@pytest.mark.parametrize("label", [
    "..", "../human", "system/../human", "system/./human", "%2e%2e%2fhuman", "a%00b", "a%5Cb",
    "a\\b", "a%0ab", "%", "system//human", "", "-x", "a" * 3000])
def test_T01_labels(server, memory, label):
    """The trailing label may hold slashes; what it may not hold finds nothing."""
    target = f"/v1/agents/{memory.agent}/core-memory/blocks/{label}"
    status, out, _ = http.raw(server.port, get(target, b"Connection: close\r\n"))
    assert status in (400, 404, 414, 422) or (label == "" and status == 200), out[:200]


def test_T01_no_open_outside_the_home(server, memory, folder):
    """strace of the server while all the tricks are played: nothing outside is opened by a name
    that came from a request."""

    with Trace(server.pid, folder / "trace", "-s", "300", "-e", "trace=open,openat,openat2,stat,"
               "lstat,newfstatat,access,faccessat,faccessat2,readlink") as trace:
        for path in BAD_PATHS:
            http.raw(server.port, get(path, b"Connection: close\r\n"))
            http.raw(server.port, get(path.replace("/v1/agents", f"/v1/agents/{memory.agent}"),
                                      b"Connection: close\r\n"))
    for line in trace.lines():
        name = re.search(r'"((?:[^"\\]|\\.)*)"', line)
        if name:
            assert ".." not in name.group(1) and "/etc/passwd" not in name.group(1), line


def test_T02_duplicate_query_keys(server, memory):
    base = f"/v1/git/{memory.agent}/state.git/info/refs?service=git-upload-pack"
    for query in ("&service=git-receive-pack", "&service=git-upload-pack"):
        assert server.get(base + query).status == 400
    for target in (base.replace("git-upload-pack", "git-upload-archive"), base.split("?", 1)[0]):
        assert server.get(target).status in (400, 403, 404), target
    answer = server.request("POST", f"/v1/git/{memory.agent}/state.git/git-upload-pack"
                            "?service=git-receive-pack", b"0000", {
                                "Content-Type": "application/x-git-upload-pack-request"})
    assert answer.headers.get("content-type") != "application/x-git-receive-pack-result"


def test_T02_method_override_is_ignored(server, memory):
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = server.get(f"/v1/agents/{memory.agent}", {name: "DELETE"})
        assert answer.status == 200 and answer.json()["id"] == memory.agent


def test_T03_forged_trust_headers(server, memory):
    plain = server.get(f"/v1/agents/{memory.agent}/core-memory/blocks")
    forged = server.get(f"/v1/agents/{memory.agent}/core-memory/blocks", {
        "X-Organization-Id": "org-11111111-1111-4111-8111-111111111111",
        "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil", "X-Forwarded-Proto": "https",
        "user_id": "user-11111111-1111-4111-8111-111111111111"})
    assert (forged.status, forged.body) == (plain.status, plain.body)


# -- bounds and clocks -----------------------------------------------------------------------------

def test_head_flood(server):
    """16 KiB of head, 100 headers; past it 431 and closed, without reading on for ever."""
    many = b"".join(b"X-%d: y\r\n" % i for i in range(150))
    status, out, closed = http.raw(server.port, get("/healthz", many))
    assert status == 431 and b'"there are more than 100 headers"' in out and closed, out[:100]
    for request in (get("/healthz", b"X: " + b"y" * 20_000 + b"\r\n"), get("/" + "y" * 20_000)):
        status, out, closed = http.raw(server.port, request)
        assert status == 431 and b'"the head is larger than 16 KiB"' in out and closed, out[:300]
    ninety = b"".join(b"X-%d: y\r\n" % i for i in range(90))
    status, out, _ = http.raw(server.port, get("/healthz", ninety + b"Connection: close\r\n"))
    assert status == 200

    with http.connect(server.port, timeout=20) as s:      # an endless head
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        sent = 0
        try:
            while sent < 4 << 20:
                sent += s.send(b"X-A: " + b"y" * 1000 + b"\r\n")
        except OSError:
            pass
        assert sent < 4 << 20


def test_body_bounds(server, memory):
    """Too long a body is refused from its announced length, before it is sent."""
    cases = [(f"/v1/git/{memory.agent}/state.git/git-upload-pack", (10 << 20) + 1),
             (f"/v1/git/{memory.agent}/state.git/git-receive-pack", (73 << 20)),
             (f"/v1/agents/{memory.agent}/memory/sync-from-git", (3 << 20))]
    for target, length in cases:
        head = get(target, b"Content-Length: %d\r\n" % length, method=b"POST")
        status, out, closed = http.raw(server.port, head, timeout=8)
        assert status == 413 and closed, (target, out[:200])


def drip(server, data, piece, pause, patience):
    """Sends piece by piece -> (seconds until the server ended it or None, what it said)."""
    with http.connect(server.port) as s:
        began, at = time.monotonic(), 0
        while time.monotonic() - began < patience:
            try:
                if at < len(data):
                    s.sendall(data[at:at + piece])
                    at += piece
                s.settimeout(pause)
                return time.monotonic() - began, s.recv(4096)
            except socket.timeout:
                continue
            except OSError:
                return time.monotonic() - began, b""
    return None, b""


def test_T18_clocks(server, memory):
    """The head has 10 s in all; a body needs 1 KiB a second over any 30 s; and while the slow are
    waited for nobody else waits."""
    commit, pack, _ = memory.prepare({"notes/r.bin": os.urandom(50_000)})
    body = wire.push_body([(memory.tip, commit, wire.MAIN)], pack)
    slow_body = (f"POST /v1/git/{memory.agent}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    cases = {   # what is sent, bytes at a time, pause; when it must be over
        "slow head": (get("/healthz", b"X-Slow: " + b"z" * 200), 1, 0.5, 5, 30),
        "silent": (b"", 1, 0.5, 5, 35),
        "half a line": (b"GET /heal", 9, 0.5, 5, 30),
        "TLS by mistake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11, 0.5, 0, 30),
        "NULs": (b"\0\0\0\0\r\n\r\n", 8, 0.5, 0, 30),
        "slow body": (slow_body, 24, 0.5, 20, 110),
    }
    seen = {}

    def run(name, data, piece, pause, _least, most_s):
        seen[name] = drip(server, data, piece, pause, most_s + 5)
    threads = [threading.Thread(target=run, args=(name, *case)) for name, case in cases.items()]
    for t in threads:
        t.start()
    time.sleep(3)
    for i in range(5):      # also: the lock is not held while a slow client uploads
        began = time.monotonic()
        memory.must_push({"system/human.md": f"not in the way {i}\n"})
        assert time.monotonic() - began < 15    # "slow body" lasts longer
    for t in threads:
        t.join()
    for name, (_, _, _, least, most_s) in cases.items():
        took, said = seen[name]
        assert took is not None and least < took < most_s, (name, seen[name])
        assert WELL not in said and b"ok refs/heads/main" not in said, (name, said)
        count("http_front", **{name.replace(" ", "_") + "_s": took})
    server.wait_no_leftovers(5)
    assert server.tip(memory.agent) == memory.tip


def idle_from(server, n, source):
    """n idle connections from one address of the loopback net."""
    out = []
    for _ in range(n):
        s = socket.socket()
        s.settimeout(2)
        s.bind((source, 0))
        try:
            s.connect(("127.0.0.1", server.port))
        except OSError:
            s.close()
            continue
        out.append(s)
    return out


def still_open(sockets):
    n = 0
    for s in sockets:
        s.setblocking(False)
        try:
            s.recv(1)
        except BlockingIOError:
            n += 1
        except OSError:
            pass
    return n


def test_T18_1000_idle_sockets(server, memory):
    """950 idle connections from 19 addresses: pushes and reads go on as if they were not there."""
    idle = [s for i in range(19) for s in idle_from(server, 50, f"127.0.0.{10 + i}")]
    times = []
    try:
        time.sleep(0.1)
        before = still_open(idle)
        memory.close()
        for i in range(20):
            began_one = time.monotonic()
            memory.must_push({"system/human.md": f"{i}\n"})
            assert server.value(memory.agent, "system/human") == f"{i}\n"
            times.append(time.monotonic() - began_one)
    finally:
        for s in idle:
            s.close()
    count("http_front", idle_sockets=len(idle))
    most("http_front", slowest_beside_idle_ms=max(times) * 1000)
    assert len(idle) == 950 and before == 950
    assert max(times) < 9       # the idle ones last 10 s


def test_T18_64_connections_a_source(server, memory):
    """One address gets 64 and no more; others do not notice; the places come back."""
    idle = idle_from(server, 120, "127.0.0.99")
    try:
        time.sleep(0.3)
        alive = still_open(idle)
        assert 32 <= alive <= 64, alive
        assert server.value(memory.agent, "system/human") == "good\n"
    finally:
        for s in idle:
            s.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        again = idle_from(server, 1, "127.0.0.99")
        time.sleep(0.1)
        n = still_open(again)
        for s in again:
            s.close()
        if n:
            return
    raise AssertionError("the places did not come back")


def test_connections_past_the_bound_are_closed_not_queued(server, memory):
    """1,000 in all: the 1,001st is closed at once, and the server is well afterwards."""
    idle = [s for i in range(22) for s in idle_from(server, 50, f"127.0.0.{130 + i}")]
    try:
        time.sleep(0.3)
        assert still_open(idle) <= 1000
    finally:
        for s in idle:
            s.close()
    deadline = time.monotonic() + 30
    while True:
        try:
            assert server.get("/healthz", timeout=2).status == 200
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_T18_many_slow_heads_beside_normal_load(server, memory):
    """Fifty slow-loris connections, while pushes and reads go on."""
    slow = [http.connect(server.port) for _ in range(50)]
    halt = threading.Event()

    def keep_dripping():
        while not halt.is_set():
            for s in slow:
                try:
                    s.sendall(b"G")
                except OSError:
                    pass
            halt.wait(0.5)
    thread = threading.Thread(target=keep_dripping)
    thread.start()
    try:
        times = []
        for i in range(30):
            began = time.monotonic()
            memory.must_push({"system/human.md": f"{i}\n"})
            assert server.value(memory.agent, "system/human") == f"{i}\n"
            times.append(time.monotonic() - began)
    finally:
        halt.set()
        thread.join()
        for s in slow:
            s.close()
    assert sorted(times)[len(times) // 2] < 5     # a slow head lasts 10 s


def test_T17_endless_wants_and_haves(server, memory):
    """Wants of objects that are nowhere, 100,000 haves, a filter: answered, bounded."""
    target = f"/v1/git/{memory.agent}/state.git/git-upload-pack"
    head = {"Content-Type": "application/x-git-upload-pack-request"}
    wants = b"".join(wire.pkt(f"want {i:040x}\n") for i in range(1, 2000))
    began = time.monotonic()
    answer = server.request("POST", target, wants + wire.FLUSH + wire.pkt("done\n"), head)
    assert answer.status in (200, 400, 403, 404) and b"PACK" not in answer.body
    haves = b"".join(wire.pkt(f"have {i:040x}\n") for i in range(1, 100_000))
    answer = server.request("POST", target, wire.pkt(f"want {memory.tip} side-band-64k\n") +
                            wire.FLUSH + haves + wire.pkt("done\n"), head)
    assert answer.status == 200 and b"PACK" in answer.body
    assert time.monotonic() - began < 60
    filtered = (wire.pkt("command=fetch") + b"0001" + wire.pkt(f"want {memory.tip}\n") +
                wire.pkt("filter tree:0\n") + wire.pkt("done\n") + wire.FLUSH)
    answer = server.request("POST", target, filtered, {**head, "Git-Protocol": "version=2"})
    assert answer.status in (200, 400)


@pytest.mark.parametrize("value", ["version=2:version=9", "version=2\tx", "x" * 2000, "version=3",
                                   "version=2;id", "version=2 -c"])
def test_T05_git_protocol_header(server, memory, value):
    """Only version=0, 1, 2 gets to git; the rest is as if it were not there."""
    answer = server.get(f"/v1/git/{memory.agent}/state.git/info/refs?service=git-upload-pack",
                        {"Git-Protocol": value})
    assert answer.status in (200, 400), answer
    if answer.status == 200 and b"version 2" not in answer.body:
        assert wire.parse_refs(answer.body)[0][wire.MAIN] == memory.tip


# -- shapes of answers -----------------------------------------------------------------------------

def test_404_and_405_shapes(server, memory):
    for target in ("/", "/nothing", "/v1", "/v1/nothing", "/v1/agents/x/y/z", "/v2/agents"):
        answer = server.get(target)
        assert answer.status in (404, 422) or target == "/", (target, answer)
        if answer.status == 404:
            assert answer.json() == {"detail": "Not Found"}
            assert answer.headers["content-type"] == "application/json"
    for method, target in (("DELETE", "/healthz"), ("PUT", "/v1/agents/"),
                           ("POST", "/v1/blocks/count"),
                           ("DELETE", f"/v1/git/{memory.agent}/state.git/info/refs"),
                           ("GET", f"/v1/git/{memory.agent}/state.git/git-receive-pack")):
        answer = server.request(method, target)
        assert answer.status == 405, (method, target, answer)
        assert answer.json() == {"detail": "Method Not Allowed"}
        assert answer.headers["allow"]
    odd = server.request("BREW", "/healthz")
    assert odd.status in (400, 405, 501)


def test_head_requests(server, memory):
    target = f"/v1/agents/{memory.agent}/core-memory/blocks/system/human"
    full = server.get(target)
    with http.connect(server.port) as s:
        s.sendall(get(target, b"Connection: close\r\n", method=b"HEAD"))
        head, _, body = http.read_all(s).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and body == b""
    assert b"content-length: %d" % len(full.body) in head.lower()


def test_malformed_and_unknown_ids(server):
    bad = server.get("/v1/agents/agent-1")
    assert bad.status == 422
    answer = bad.json()
    assert isinstance(answer["detail"], str) and "string_pattern_mismatch" in answer["detail"]
    assert answer["trace_id"] is not None and answer["examples"]
    unknown = new_agent()
    for target in (f"/v1/agents/{unknown}", f"/v1/agents/{unknown}/core-memory/blocks",
                   f"/v1/agents/{unknown}/core-memory/blocks/x"):
        answer = server.get(target)
        assert answer.status == 404 and isinstance(answer.json()["detail"], str)
    assert server.get("/v1/blocks/block-11111111-1111-4111-8111-111111111111").status == 404
    git = server.get("/v1/git/agent-1/state.git/info/refs?service=git-upload-pack")
    assert git.status == 400 and "INVALID_ARGUMENT" in git.json()["detail"]


@pytest.mark.parametrize("query", [
    "limit=-1", "limit=x", "limit=99999999999999999999", "order=up", "order_by=secret;drop",
    "after=%00", "before=" + "x" * 5000, "label=a.b", "label_search=%25%27--", "tags=a&tags=b",
    "match_all_tags=maybe", "connected_to_agents_count_gt=x", "%", "=", "&&&", "a=%ff"])
def test_T26_odd_queries(server, memory, query):
    """A 422 or an answer; never a 500, never more than was asked for."""
    for base in ("/v1/blocks/", "/v1/agents/", f"/v1/agents/{memory.agent}/core-memory/blocks"):
        answer = server.get(base + "?" + query)
        assert answer.status in (200, 400, 414, 422), (base, answer)
        json.loads(answer.body)


def test_errors_tell_nothing_of_the_inside(server, memory):
    for target in ("/v1/agents/agent-1", f"/v1/agents/{new_agent()}", "/nothing",
                   "/v1/git/x/state.git/info/refs?service=git-upload-pack", "/v1/blocks/?limit=x"):
        answer = server.get(target)
        text = answer.body.decode() + str(answer.headers)
        for inside in (server.home, "SELECT", "sqlite", ".c:", "/usr/", "libmicrohttpd", "errno"):
            assert inside not in text, (target, text)


def test_no_redirects(server, memory):
    wait(lambda: server.get("/readyz").status == 200, "it gets ready")
    for target in ("/v1/agents", "/v1/agents/", "/v1/blocks", "/v1/blocks/", "/v1/health",
                   "/v1/health/", f"/v1/agents/{memory.agent}/", "/healthz/", "/readyz",
                   f"/v1/agents/{memory.agent}/core-memory/blocks/", "/latest/health/"):
        assert server.get(target).status == 200, target


# -- T20: what a stranger writes into the log ------------------------------------------------------

def test_T20_log_injection(server, memory):
    """Names, headers, refs and paths full of control bytes: one event a line, all of it escaped."""
    evil = "x\x1b[2J\u202egnp"
    forged = "2026-01-01T00:00:00.000000Z level=error event=forged"
    for extra in (f"User-Agent: {evil}\r\n", f"User-Agent: a\" event=forged b=\"{forged}\r\n",
                  "User-Agent: \\\" \\\\\" \r\n", f"Referer: {evil}\r\n",
                  "X-Request-Id: \" level=error event=forged\r\n", "User-Agent: caf\xe9\r\n",
                  "User-Agent: " + "u" * 8000 + "\r\n"):
        http.raw(server.port, get("/v1/agents/agent-1", extra.encode("utf-8", "replace") +
                                  b"Connection: close\r\n"))
    for path in ("/v1/agents/a%0a2026-01-01T00:00:00.000000Z%20level=error%20event=forged",
                 "/v1/agents/%22%20event=forged", "/%1b%5b2J", "/%e2%80%ae", "/x\"y", "/caf\xe9"):
        http.raw(server.port, get(path.encode("utf-8"), b"Connection: close\r\n"))
    objects = wire.Objects()
    tip = objects.commit(objects.tree([(wire.FILE, f"a\n{forged}\u202e.md".encode(),
                                        objects.blob(b"x"))]), [memory.tip],
                         message=f"m\n{forged}\n", who=f"E\x1bvil {forged} <e@x>")
    server.push_raw(memory.agent, [(memory.tip, tip, f"refs/heads/ma\x1bin\n{forged}")],
                    objects.pack())
    server.push_raw(memory.agent, [(memory.tip, tip, wire.MAIN)], objects.pack(),
                    caps=wire.CAPS + " agent=" + evil)
    server.get("/healthz")
    time.sleep(0.2)
    n = 0
    for line in server.log().split("\n"):
        assert "event=forged" not in re.sub(r'"([^"\\]|\\.)*"', '""', line), line
        for char in line:
            assert ord(char) >= 32 and ord(char) not in range(0x7F, 0xA0) \
                and char not in "\u202e\u2066\u2028", repr(line)
        if line[:4].isdigit():
            assert LOG_LINE.fullmatch(line), line
            n += 1
    assert n > 10
    count("http_front", log_lines_checked=n)


def test_request_ids_are_in_the_answer_and_in_the_log(server):
    answer = server.get("/v1/agents/agent-1", {"X-Request-Id": "stranger"})
    found = [v for k, v in answer.headers.items() if "request-id" in k]
    assert found and found[0] != "stranger"
    deadline = time.monotonic() + 30
    while found[0] not in server.log() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found[0] in server.log()


def test_T30_modes_of_the_data_folder(server, memory):
    """0700 for the folder, nothing in it for others, the socket 0600."""
    assert os.stat(server.home).st_mode & 0o777 == 0o700
    for root, folders, files in os.walk(server.home):
        for name in folders + files:
            mode = os.lstat(os.path.join(root, name)).st_mode
            assert mode & 0o077 == 0 or os.path.realpath(root) != os.path.realpath(server.home), \
                (root, name, oct(mode))
    sockets = [n for n in os.listdir(server.home)
               if os.lstat(os.path.join(server.home, n)).st_mode & 0o170000 == 0o140000]
    assert sockets and all(os.lstat(os.path.join(server.home, n)).st_mode & 0o777 == 0o600
                           for n in sockets)


def test_T30_children_have_no_stray_descriptors(server, memory):
    """What a git child holds open: three pipes and what it opened itself, nothing of ours."""
    commit, pack, _ = memory.prepare({"a.bin": os.urandom(600_000)})
    body = wire.push_body([(memory.tip, commit, wire.MAIN)], pack)
    with http.connect(server.port) as s:
        s.sendall((f"POST /v1/git/{memory.agent}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                   f"Authorization: {AUTH['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
                   ).encode() + body[:-1000])
        deadline = time.monotonic() + 30
        while not server.children() and time.monotonic() < deadline:
            time.sleep(0.01)
        kids = server.children()
        assert kids
        time.sleep(0.1)
        for pid in kids:
            links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
            assert not [x for x in links if x.startswith("socket:") or ".db" in x
                        or x.endswith("/lock") or "eventpoll" in x], links
            with open(f"/proc/{pid}/environ", "rb") as f:
                names = {x.split(b"=")[0].decode() for x in f.read().split(b"\0") if x}
            assert {"GIT_NO_REPLACE_OBJECTS", "GIT_CONFIG_NOSYSTEM", "GIT_TERMINAL_PROMPT"} <= names
            assert not [n for n in names if n.startswith(("ASAN", "LETTA", "MEMFS", "LD_"))], names
    server.wait_no_leftovers(10)
