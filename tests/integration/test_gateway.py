"""memfs in front of a Letta server: `memfs serve --upstream` (design 9, 10; T02, T03, T19, L1, L3, S1, S3).

The server behind is one that a test holds by the hand (lib/upstream.py).  Nothing here measures a time: a test sees
what has come before the next thing is sent.
"""
import base64
import gzip
import hashlib
import json
import os
import re
import socket
import ssl
import threading
import time

import pytest

from lib import http
from lib.patience import wait
from lib.server import CANARY, new_agent
from lib.summary import most
from lib.tlsgit import Authority
from lib.upstream import Upstream
from lib.writer import Memory

HOST = b"Host: memfs.test:1234\r\n"
WAIT = 60


@pytest.fixture
def up():
    upstream = Upstream().start()
    yield upstream
    upstream.stop()
    assert not upstream.faults, upstream.faults


@pytest.fixture
def server(servers, up):
    return servers(args=["--upstream", up.url])


def until(condition, what, timeout=WAIT):
    wait(condition, what, timeout)


def get(target, extra=b"", method=b"GET", host=HOST):
    return method + b" " + target.encode() + b" HTTP/1.1\r\n" + host + extra + b"\r\n"


class Client:
    """One connection, read as far as a test expects bytes on it."""

    def __init__(self, server, timeout=WAIT):
        self.sock, self.rest = http.connect(server.port, timeout), b""

    def send(self, data):
        self.sock.sendall(data)

    def until(self, mark):
        while mark not in self.rest:
            got = self.sock.recv(65536)
            assert got, (mark, self.rest)
            self.rest += got
        head, self.rest = self.rest.split(mark, 1)
        return head

    def head(self):
        return self.until(b"\r\n\r\n").decode("latin-1")

    def chunk(self):
        size = int(self.until(b"\r\n"), 16)
        while len(self.rest) < size + 2:
            got = self.sock.recv(65536)
            assert got, self.rest
            self.rest += got
        out, self.rest = self.rest[:size], self.rest[size + 2:]
        return out

    def ends_broken(self):
        """True: the connection ended without the end of the chunks."""
        rest = self.rest
        try:
            while True:
                got = self.sock.recv(65536)
                if not got:
                    break
                rest += got
        except ConnectionResetError:
            return True
        return not rest.endswith(b"0\r\n\r\n")

    def close(self):
        self.sock.close()


def echo(answer):
    assert answer.status == 200, answer
    return answer.json()


# -- whose is what ---------------------------------------------------------------------------------

THEIRS = ["/v1/agents", "/v1/agents/", "/v1/agents/{a}", "/v1/agents/{a}/core-memory", "/v1/agents/count",
          "/v1/agents/{a}/core-memory/blocks", "/v1/agents/{a}/core-memory/blocks/system%2Fhuman",
          "/v1/agents/{a}/messages", "/v1/blocks", "/v1/blocks/", "/v1/blocks/count", "/v1/blocks/block-1",
          "/v1/blocks/block-1/agents", "/latest/agents/{a}", "/openapi.json", "/", "/a/b/c/", "/v2/what",
          "/v1/providers/", "/v1/agents/{a}/memory", "/v1/gitty"]
OURS = ["/v1/git/{a}/what", "/v1/git", "/git/{a}/x/y", "/latest/git/{a}/what", "/v1/repositories",
        "/v1/repositories/repo-1/files", "/owner/verify", "/webhooks/gitea/x", "/peer", "/peer/what/{a}",
        # and what a server that decodes before it cuts would take for one of them
        "/v1%2Fgit/{a}/state.git/info/refs", "/v1/git%2F{a}/state.git/info/refs", "/latest%2fgit/{a}",
        "/v1/agents/{a}%2Fsecrets", "/v1%2Fagents%2F{a}%2Frepositories", "/owner%2Fverify", "/peer%2Fgit"]


def test_T02_all_else_is_the_servers_by_any_method(server, up):
    agent = new_agent()
    for path in THEIRS:
        target = path.format(a=agent)
        up.handlers[target] = lambda c, r: (c.read_body(r), c.json(299, {"is": "upstream"}), True)[2]
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = server.request(method, target, b"{}" if method in ("POST", "PUT", "PATCH") else None)
            assert (answer.status, answer.json()) == (299, {"is": "upstream"}), (method, target, answer)
        assert server.request("HEAD", target).status == 299


def test_T02_a_path_of_ours_is_never_passed_on(server, up):
    agent = new_agent()
    up.agents.add(agent)
    for path in OURS:
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            answer = server.request(method, path.format(a=agent), b"" if method == "POST" else None)
            assert answer.status in (404, 405), (method, path, answer)
    info = f"/v1/git/{agent}/state.git/info/refs"
    for method in ("POST", "PUT", "OPTIONS", "DELETE", "PATCH"):
        assert server.request(method, info).status == 405
    assert server.request("DELETE", f"/v1/agents/{agent}/repositories").status == 405
    assert server.request("GET", f"/v1/agents/{agent}/memory/sync-from-git").status == 405
    for method in ("TRACE", "CONNECT", "PROPFIND", "get"):
        status, out, _ = http.raw(server.port, get("/v1/agents", b"Connection: close\r\n", method.encode()))
        assert status in (400, 405), (method, out)
    assert [r for r in up.requests if r.path.startswith(("/v1/git", "/git", "/v1/repo", "/owner"))] == []
    assert {r.path for r in up.requests} <= {f"/v1/agents/{agent}"}


def test_T02_what_memfs_answers_itself(server, up):
    agent = new_agent()
    up.agents.add(agent)
    assert server.get(f"/v1/agents/{agent}/secrets").json() == []
    (own,) = server.get(f"/v1/agents/{agent}/repositories").json()["repositories"]
    assert own["is_primary"] is True
    m = Memory(server, agent)
    m.must_push({"system/human.md": "from git\n"})
    m.close()
    rows = server.request("POST", f"/v1/agents/{agent}/memory/sync-from-git").json()
    assert [(r["label"], r["value"]) for r in rows] == [("system/human", "from git\n")]
    # its own rows are seen by the owner's commands, over the home's socket
    assert b"system/human" in server.cli("blocks", "list", "--agent", agent).stdout
    # and clients see the server's
    assert server.get(f"/v1/agents/{agent}").json()["name"] == "from upstream"


# -- the head that goes on -------------------------------------------------------------------------

def test_T03_T19_the_head_is_written_anew(server, up):
    c = Client(server)
    c.send(get("/echo", b"Connection: keep-alive, X-Mine , authorization-x\r\nX-Mine: secret\r\nKeep-Alive: 5\r\n"
                        b"TE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nProxy-Authorization: Basic x\r\n"
                        b"Proxy-Connection: close\r\nTrailer: X-T\r\nX-Organization-Id: org-1\r\n"
                        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: https\r\n"
                        b"Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nuser_id: user-1\r\nX-CaSe: Kept\r\n"
                        b"X-Empty:\r\nX-Twice: 1\r\nx-twice: 2\r\nAuthorization: Bearer their-own\r\n"
                        b"Accept-Encoding: br\r\nUser-Agent: letta-client/1.12\r\n"))
    c.head()
    (seen,) = up.seen("/echo")
    names = [n for n, _ in seen.fields]
    assert names == ["Host", "user_id", "X-CaSe", "X-Empty", "X-Twice", "x-twice", "Authorization",
                     "Accept-Encoding", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto",
                     "X-Forwarded-Host", "Via"], seen.fields
    assert seen.one("Host") == f"127.0.0.1:{up.port}"
    assert seen.one("X-CaSe") == "Kept" and seen.all("X-Twice") == ["1", "2"] and seen.one("X-Empty") == ""
    assert seen.one("Authorization") == "Bearer their-own"
    assert (seen.one("X-Forwarded-For"), seen.one("X-Forwarded-Proto"), seen.one("X-Forwarded-Host")) == (
        "127.0.0.1", "http", "memfs.test:1234")
    assert re.fullmatch(r"1\.1 memfs-[0-9a-f]{8}", seen.one("Via"))
    c.close()


def test_T03_a_proxy_in_front_is_believed_when_it_is_said_to_be_there(servers, up):
    server = servers(args=["--upstream", up.url, "--behind-proxy"])
    c = Client(server)
    up.answers["/go"] = (b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:%d/v1/agents/?a=b\r\nContent-Length: 0\r\n\r\n"
                         % up.port)
    c.send(get("/go", b"X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\n"
                      b"X-Forwarded-Host: letta.example.com\r\n"))
    assert "Location: https://letta.example.com/v1/agents/?a=b\r\n" in c.head() + "\r\n"
    (seen,) = up.seen("/go")
    assert (seen.one("X-Forwarded-For"), seen.one("X-Forwarded-Proto"), seen.one("X-Forwarded-Host")) == (
        "10.1.2.3, 127.0.0.1", "https", "letta.example.com")
    c.close()


def test_T02_the_target_goes_on_as_it_was_parsed(server, up):
    for sent, came in [
            ("/echo/a%20b/%C3%A9?q=1&q=2&x=%2F+y&z", "/echo/a%20b/%C3%A9?q=1&q=2&x=%2F+y&z"),
            ("/echo/%41%2d%7E/", "/echo/A-~/"), ("/echo/a%2Fb", "/echo/a%2Fb"), ("/echo/%252e%252e", "/echo/%252e%252e"),
            ("/echo?", "/echo?"), ("/echo?a=%22\"'<>", "/echo?a=%22%22'%3C%3E"), ("/echo/a:b@c;d=e,f", "/echo/a:b@c;d=e,f"),
            ("/echo?a[]=1&b=x/y?z", "/echo?a[]=1&b=x/y?z")]:
        assert echo(http.request(server.port, "GET", sent))["line"] == f"GET {came} HTTP/1.1", sent
    n = len(up.requests)
    for bad in ("/echo/../x", "/echo/%2e%2e/x", "/echo//x", "/echo/a%00", "/echo/a%5Cb", "/echo/a\\b", "/echo/%zz",
                "/echo/%0d%0aX:1", "/echo?a=%00", "/echo?a=%zz", "http://evil/echo", "*", "/echo#x"):
        status, out, _ = http.raw(server.port, get(bad))
        assert status == 400, (bad, out)
    assert len(up.requests) == n


# -- bodies that go up -----------------------------------------------------------------------------

def put_chunks(server, target, pieces):
    with http.connect(server.port, WAIT) as sock:
        sock.sendall(get(target, b"Transfer-Encoding: chunked\r\n", b"PUT"))
        for piece in pieces:
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        return http.read_response(sock)


def test_uploads_of_both_framings_arrive_whole(server, up):
    rest = os.urandom(3 << 20)
    for n in (0, 1, 4096, 256 << 10, (256 << 10) + 1, 3 << 20):
        body = rest[:n]
        came = echo(http.request(server.port, "POST", "/echo", body))
        assert (came["bytes"], came["sha256"]) == (n, hashlib.sha256(body).hexdigest())
        assert [v for k, v in came["fields"] if k == "Content-Length"] == [str(n)]
        came = echo(put_chunks(server, "/echo", [body[i:i + 70000] for i in range(0, n, 70000)]))
        assert (came["bytes"], came["sha256"]) == (n, hashlib.sha256(body).hexdigest())
        framing = [k for k, v in came["fields"] if k in ("Content-Length", "Transfer-Encoding")]
        assert len(framing) == 1
    # gzip stays gzip, and is not looked into; so does what memfs does not know
    packed = gzip.compress(b"x" * 5000)
    for coding in ("gzip", "br", "zstd"):
        came = echo(http.request(server.port, "POST", "/echo", packed, {"Content-Encoding": coding}))
        assert came["sha256"] == hashlib.sha256(packed).hexdigest()
        assert ["Content-Encoding", coding] in came["fields"]
    # a GET may have one as well
    assert echo(http.request(server.port, "GET", "/echo", b"abc"))["bytes"] == 3


def test_L1_an_upload_waits_for_a_slow_server_outside_of_memory(server, up):
    """64 MiB: while the server does not read, memfs takes a little and then no more."""
    total, go_on = 64 << 20, threading.Event()

    def slow(connection, request):
        assert go_on.wait(WAIT)
        connection.read_body(request)
        connection.json(200, {"bytes": request.body_bytes, "sha256": request.digest.hexdigest()})
        return True

    up.handlers["/slow"] = slow
    sock = http.connect(server.port, WAIT)
    before = server.rss_kib()
    sock.sendall(b"POST /slow HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % total)
    piece, sent, digest = b"0123456789abcdef" * 4096, 0, hashlib.sha256()
    sock.setblocking(False)
    quiet = 0
    while quiet < 20:       # it takes no more: the kernel's buffers and the pipe are full
        try:
            n = sock.send(piece[:total - sent])
            digest.update(piece[:n])
            piece = piece[n:] + piece[:n]
            sent, quiet = sent + n, 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.05)
    assert sent < total * 3 // 4, "all of it went somewhere, and the server has read nothing"
    assert server.rss_kib() - before < 32 << 10
    assert echo(http.request(server.port, "GET", "/echo"))["bytes"] == 0    # others are served meanwhile
    sock.setblocking(True)
    go_on.set()
    while sent < total:
        n = sock.send(piece[:total - sent])
        digest.update(piece[:n])
        piece = piece[n:] + piece[:n]
        sent += n
    answer = http.read_response(sock)
    assert answer.json() == {"bytes": total, "sha256": digest.hexdigest()}
    assert server.rss_kib() - before < 32 << 10
    sock.close()


def test_expect_100_continue_is_answered_here(server, up):
    c = Client(server)
    c.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert c.head().startswith("HTTP/1.1 100")
    c.send(b"12345")
    assert c.head().startswith("HTTP/1.1 200")
    (seen,) = up.seen("/echo")
    assert not seen.all("Expect") and seen.body_bytes == 5
    c.close()


def test_a_client_that_leaves_within_its_upload_breaks_the_servers(server, up):
    gone = threading.Event()

    def reads(connection, request):
        try:
            connection.read_body(request)
        except (EOFError, OSError):
            gone.set()
        return False

    up.handlers["/up"] = reads
    for framing in (b"Content-Length: 9000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        gone.clear()
        sock = http.connect(server.port)
        sock.sendall(b"POST /up HTTP/1.1\r\n" + HOST + framing)
        chunk = b"x" * 65536 if b"Length" in framing else b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(16):
            sock.sendall(chunk)
        up.wait(lambda: up.seen("/up"), what="the upload")
        sock.close()
        assert gone.wait(WAIT)
        up.requests.clear()


def test_an_early_answer_to_an_upload_arrives(server, up):
    """413 while the client still sends: it is told, as soon as it has sent what memfs reads for it."""
    def refuse(connection, request):
        connection.answer(413, b'{"detail":"too large"}')
        connection.wait_closed()
        return False

    up.handlers["/early"] = refuse
    answer = http.request(server.port, "POST", "/early", b"x" * (8 << 20))
    assert (answer.status, answer.json()) == (413, {"detail": "too large"})


def test_L1_a_body_past_the_bound_is_refused(server, up):
    status, out, _ = http.raw(server.port, b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1073741825\r\n\r\n")
    assert status == 413, out
    status, out, _ = http.raw(server.port, get("/echo", b"X-Big: " + b"x" * 20000 + b"\r\n"))
    assert status in (400, 413, 431), out
    status, out, _ = http.raw(server.port, get("/echo", b"".join(b"X-%d: 1\r\n" % i for i in range(101))))
    assert status == 400, out
    assert not up.seen("/echo")


# -- answers that come down ------------------------------------------------------------------------

def test_answers_come_as_they_are(server, up):
    packed = gzip.compress(b"hello " * 1000)
    up.answers.update({
        "/gzip": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(packed) + packed,
        "/close": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
        "/cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-MiXed: Case\r\nServer: other\r\n"
                    b"ETag: \"x\"\r\nX-Request-Id: theirs\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                    b"Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\nX-Tab: a\tb\r\nContent-Length: 2\r\n\r\nok",
        "/204": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
        "/304": b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n",
        "/1xx": b"HTTP/1.1 100 Continue\r\nX-No: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                b"HTTP/1.1 200 OK\r\nX-Yes: 1\r\nContent-Length: 2\r\n\r\nok",
        "/trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2;ext=1\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
        "/odd": b"HTTP/1.1 299 Whatever\r\nContent-Type: application/x-odd; a=" + b"b" * 100 + b"\r\nContent-Length: 0\r\n\r\n",
        "/empty-chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    })

    def ask(path, method="GET"):
        sock = http.connect(server.port)
        sock.sendall(get(path, method=method.encode()))
        c = Client.__new__(Client)
        c.sock, c.rest = sock, b""
        head = c.head()
        fields = [tuple(line.split(": ", 1)) for line in head.split("\r\n")[1:]]
        body = b""
        length = dict((k.lower(), v) for k, v in fields).get("content-length")
        status = int(head.split(" ")[1])
        if method != "HEAD" and status not in (204, 304):
            if length is None:
                while piece := c.chunk():
                    body += piece
            else:
                while len(c.rest) < int(length):
                    c.rest += sock.recv(65536)
                body, c.rest = c.rest[:int(length)], c.rest[int(length):]
        if ("Connection", "close") in fields:
            assert method == "HEAD" and length is None
            sock.close()
            return status, fields, body
        # the connection is good for another request: nothing of the answer was left on it
        assert c.rest == b""
        sock.sendall(get("/healthz"))
        assert c.head().startswith("HTTP/1.1 200")
        sock.close()
        return status, fields, body

    status, fields, body = ask("/gzip")
    assert status == 200 and body == packed and ("Content-Encoding", "gzip") in fields
    assert ("Vary", "Accept-Encoding") in fields and ("Content-Length", str(len(packed))) in fields
    assert ask("/close")[2] == b"until the end"
    status, fields, body = ask("/cookies")
    assert [v for k, v in fields if k == "Set-Cookie"] == ["a=1", "b=2"]
    assert ("X-MiXed", "Case") in fields and ("Server", "other") in fields and ("ETag", '"x"') in fields
    assert [v for k, v in fields if k == "X-Request-Id"] == ["theirs"]
    assert [v for k, v in fields if k == "Date"] == ["Sun, 06 Nov 1994 08:49:37 GMT"]
    assert not [k for k, v in fields if k in ("X-Hop", "Keep-Alive")] and ("X-Tab", "a b") in fields
    status, fields, body = ask("/204")
    assert status == 204 and ("X-A", "b") in fields
    assert not [k for k, v in fields if k in ("Transfer-Encoding", "Content-Length")]
    assert ask("/304")[0] == 304
    status, fields, body = ask("/1xx")
    assert (status, body) == (200, b"ok") and ("X-Yes", "1") in fields
    assert not [k for k, v in fields if k in ("X-No", "Link")]
    assert ask("/trailers")[2] == b"ok"
    status, fields, body = ask("/odd")
    assert status == 299 and dict(fields)["Content-Type"].endswith("b" * 100)
    assert ask("/empty-chunked")[2] == b""
    status, fields, body = ask("/gzip", "HEAD")
    assert status == 200 and ("Content-Length", str(len(packed))) in fields
    assert ask("/trailers", "HEAD")[0] == 200


def test_large_heads_pass_whole_and_larger_ones_not_at_all(server, up):
    """Each side's bound is its own: nothing is cut."""
    asked = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 140) for i in range(95))
    for size, status in ((4 << 10, 200), (20 << 10, 200), (30 << 10, 502), (60 << 10, 502)):
        fields = b"".join(b"X-%d: %s\r\n" % (i, b"w" * (size // 40)) for i in range(40))
        up.answers["/head"] = b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok"
        with http.connect(server.port) as sock:
            sock.sendall(get("/head", asked))
            answer = http.read_response(sock)
        assert answer.status == status, (size, answer)
        assert status == 502 or answer.headers["x-39"] == "w" * (size // 40)
    assert len(up.seen("/head")[-1].all("X-94")[0]) == 140


def test_redirects_lead_back_here(server, up):
    own = f"http://127.0.0.1:{up.port}"
    for location, expected in [
            (f"{own}/v1/agents/?x=1", "http://memfs.test:1234/v1/agents/?x=1"),
            (f"https://127.0.0.1:{up.port}/x", "http://memfs.test:1234/x"), (own, "http://memfs.test:1234/"),
            (f"{own}?x", "http://memfs.test:1234/?x"), (f"{own}//evil.test/x", "http://memfs.test:1234//evil.test/x"),
            ("/v1/agents/", "/v1/agents/"), ("http://elsewhere.test/x", "http://elsewhere.test/x"),
            (f"http://127.0.0.1:{up.port}.evil.test/", f"http://127.0.0.1:{up.port}.evil.test/"),
            (f"http://user@127.0.0.1:{up.port}/", f"http://user@127.0.0.1:{up.port}/"),
            ("//127.0.0.1/x", "//127.0.0.1/x")]:
        up.answers["/go"] = (f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                             .encode())
        c = Client(server)
        c.send(get("/go"))
        head = c.head() + "\r\n"
        assert head.startswith("HTTP/1.1 307") and f"\r\nLocation: {expected}\r\n" in head, (location, head)
        c.close()
    # a name that is none: a path alone says the same
    up.answers["/go"] = f"HTTP/1.1 307 X\r\nLocation: {own}//evil.test/x\r\nContent-Length: 0\r\n\r\n".encode()
    c = Client(server)
    c.send(get("/go", host=b"Host: a/b\"<>\r\n"))
    assert "\r\nLocation: /.//evil.test/x\r\n" in c.head() + "\r\n"
    c.close()


def test_L1_a_slow_reader_holds_the_server_and_no_memory(server, up):
    """64 MiB to a client that does not read: the server behind is stopped, memfs keeps its pipe's worth."""
    total, sent, digest = 64 << 20, [0], hashlib.sha256()

    def big(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        piece = os.urandom(65536)
        while sent[0] < total:
            connection.send(piece)
            digest.update(piece)
            sent[0] += len(piece)
        return True

    up.handlers["/big"] = big
    before = server.rss_kib()
    c = Client(server)
    c.send(get("/big"))
    c.head()
    last, quiet = -1, 0
    while quiet < 10:
        quiet = quiet + 1 if sent[0] == last else 0
        last = sent[0]
        time.sleep(0.05)
    assert sent[0] < total * 3 // 4 and server.rss_kib() - before < 32 << 10
    got, n = hashlib.sha256(c.rest), len(c.rest)
    while n < total:
        piece = c.sock.recv(1 << 20)
        assert piece
        got.update(piece)
        n += len(piece)
    assert n == total and got.digest() == digest.digest()
    assert server.rss_kib() - before < 32 << 10
    c.close()


# -- streams ---------------------------------------------------------------------------------------

def test_each_event_of_a_stream_leaves_at_once(server, up):
    """The next is only sent when the last was seen, comments too: nothing is held back for more."""
    c = Client(server)
    c.send(get("/sse", b"Accept: text/event-stream\r\n"))
    head = c.head()
    assert "HTTP/1.1 200" in head and "Content-Type: text/event-stream" in head
    up.wait_streams(1)
    (stream,) = up.streams
    for i in range(50):
        event = b": keepalive\n\n" if i % 5 == 0 else b"data: {\"n\": %d}\n\n" % i
        stream.send(event)
        assert c.chunk() == event
    stream.send(b"x" * 200000)
    got = b""
    while len(got) < 200000:
        got += c.chunk()
    stream.end()
    assert c.chunk() == b""
    c.send(get("/healthz"))     # whole, so the connection lives on
    assert c.head().startswith("HTTP/1.1 200")
    c.close()


def test_L1_three_hundred_idle_streams_cost_no_thread(server, up):
    """They wait, others are answered: the server's, memfs' own, a push.  Then each still gets its event."""
    agent = new_agent()
    up.agents.add(agent)
    n_threads = len(os.listdir(f"/proc/{server.pid}/task"))
    clients = []
    before = server.rss_kib()
    for i in range(300):
        c = Client(server)
        c.send(get(f"/sse?n={i}"))
        clients.append(c)
    for c in clients:
        assert "HTTP/1.1 200" in c.head()
    up.wait_streams(300)
    grown = server.rss_kib() - before
    assert len(os.listdir(f"/proc/{server.pid}/task")) <= n_threads + 2
    most("gateway", kib_an_idle_stream=grown / 300)
    assert grown < 300 * 1024, f"{grown} KiB for 300 streams"     # sanitizers take their part
    m = Memory(server, agent)
    for i in range(5):
        m.must_push({"system/human.md": f"{i}\n"})
        assert echo(server.get("/echo"))["bytes"] == 0
        assert server.get("/v1/health").status == 200
    m.close()
    by_n = {s.request.target.split("=")[1]: s for s in up.streams}
    for i, c in enumerate(clients):
        by_n[str(i)].send(b"data: %d\n\n" % i)
        assert c.chunk() == b"data: %d\n\n" % i
    for c in clients[:150]:
        c.close()               # half of them leave, half are ended
    for i in range(150):
        assert by_n[str(i)].connection.wait_closed(WAIT), "a client left, and the server's stream goes on"
        by_n[str(i)].over.set()
    for i in range(150, 300):
        by_n[str(i)].end()
        assert clients[i].chunk() == b""
        clients[i].close()


@pytest.mark.soak
def test_T18_an_idle_stream_outlives_the_librarys_clock(server, up):
    """That one is 60 s and cannot be shortened; tests/unit/test_relay.c has the others."""
    c = Client(server, timeout=180)
    c.send(get("/sse"))
    c.head()
    up.wait_streams(1)
    time.sleep(66)
    up.streams[0].send(b"data: late\n\n")
    assert c.chunk() == b"data: late\n\n"
    up.streams[0].end()
    assert c.chunk() == b""
    c.close()


def test_a_client_that_leaves_ends_the_servers_work(server, up):
    """Before the head came, and within a silent stream; by a close and by a reset."""
    waiting, ended = threading.Event(), threading.Event()

    def hold(connection, request):
        connection.read_body(request)
        waiting.set()
        assert connection.wait_closed(WAIT)
        ended.set()
        return False

    up.handlers["/hold"] = hold
    for is_reset in (False, True):
        for target in ("/hold", "/sse"):
            waiting.clear(), ended.clear()
            n = len(up.streams)
            sock = http.connect(server.port)
            sock.sendall(get(target, b"Content-Length: 2\r\n", b"POST") + b"{}")
            if target == "/sse":
                up.wait_streams(n + 1)
                sock.recv(10)
            else:
                assert waiting.wait(WAIT)
            if is_reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            if target == "/sse":
                assert up.streams[-1].connection.wait_closed(WAIT)
                up.streams[-1].over.set()
            else:
                assert ended.wait(WAIT)
    assert "upstream_failed" not in server.log()        # it is nobody's failure


def test_a_client_that_is_gone_without_a_word_is_asked_after(server, up):
    """The kernel's own clock for that is two hours; the one here is seen in its table of connections."""
    c = Client(server)
    c.send(get("/sse"))
    c.head()
    up.wait_streams(1)
    pair = f"0100007F:{server.port:04X} 0100007F:{c.sock.getsockname()[1]:04X}"

    def timer():
        with open("/proc/net/tcp") as f:
            (row,) = [line.split() for line in f if pair in line]
        return row[5].split(":")

    until(lambda: timer()[0] == "02", "no keep-alive")         # 2: keep-alive; in ticks, 100 a second
    assert int(timer()[1], 16) <= 30 * 100
    up.streams[0].end()
    c.close()


def test_D4_an_answer_that_breaks_off_is_seen_to_be_broken(server, up):
    up.answers.update({
        "/short": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
        "/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "/half-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\nhello",
        "/bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    })
    for path in ("/short", "/chunk", "/half-chunk", "/bad-chunk"):
        status, out, closed = http.raw(server.port, get(path), timeout=WAIT)
        assert closed and status in (200, 502, None), (path, out)
        body = out.split(b"\r\n\r\n", 1)[-1] if status == 200 else b""
        assert not body.endswith(b"0\r\n\r\n") and len(body) < 1000, (path, out)
    c = Client(server)
    c.send(get("/sse"))
    c.head()
    up.wait_streams(1)
    up.streams[0].send(b"data: 1\n\n")
    assert c.chunk() == b"data: 1\n\n"
    up.streams[0].cut()
    assert c.ends_broken()
    c.close()


# -- TLS, on both sides ----------------------------------------------------------------------------

def test_streams_over_tls_are_the_same(servers, up, folder):
    ca = Authority(folder)
    cert, key = ca.certificate()
    os.chmod(key, 0o600)
    server = servers(args=["--upstream", up.url, "--tls-cert", cert, "--tls-key", key])
    c = Client(server)
    c.sock = ssl.create_default_context(cafile=ca.file).wrap_socket(c.sock, server_hostname="localhost")
    up.answers["/go"] = f"HTTP/1.1 307 X\r\nLocation: {up.url}/x\r\nContent-Length: 0\r\n\r\n".encode()
    c.send(get("/go"))
    assert "Location: https://memfs.test:1234/x" in c.head()
    assert up.seen("/go")[0].one("X-Forwarded-Proto") == "https"
    c.send(get("/sse"))
    c.head()
    up.wait_streams(1)
    (stream,) = up.streams
    for i in range(10):
        stream.send(b"data: %d\n\n" % i)
        assert c.chunk() == b"data: %d\n\n" % i
    c.close()
    assert stream.connection.wait_closed(WAIT)
    stream.over.set()


def test_F20_a_server_with_a_certificate_of_nobody_is_not_spoken_to(servers, folder):
    """No credential is sent before the certificate is good; git's own routes say 503, never a yes."""
    listener, seen = socket.create_server(("127.0.0.1", 0)), []
    context = Authority(folder).context()

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
                seen.append(context.wrap_socket(sock, server_side=True).recv(100))
            except ssl.SSLError:
                seen.append(None)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    server = servers(args=["--upstream", f"https://localhost:{listener.getsockname()[1]}"])
    answer = server.get("/v1/agents/")
    assert answer.status == 502 and answer.detail.endswith("its certificate or TLS is no good")
    assert server.get(f"/v1/agents/{new_agent()}/secrets").status == 503
    until(lambda: len(seen) >= 2, "the handshakes")
    assert not any(seen), seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


# -- T19: smuggling --------------------------------------------------------------------------------

SMUGGLED = b"GET /v1/agents/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
BAD_FRAMES = {
    "two-lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "same-length-twice": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "length-list": b"Content-Length: 0, 0\r\n\r\n" + SMUGGLED,
    "length-and-chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-and-length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked-identity": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "gzip-chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "xchunked": b"Transfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
    "chunked-tab": b"Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "blank-before-colon": b"Content-Length : 5\r\n\r\n" + SMUGGLED,
    "coding-blank-before-colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "folded": b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "bare-lf": b"X: a\nContent-Length: 40\r\n\r\n" + SMUGGLED,
    "nul": b"X: a\0b\r\n\r\n" + SMUGGLED,
    "plus-length": b"Content-Length: +5\r\n\r\n" + SMUGGLED,
    "hex-length": b"Content-Length: 0x5\r\n\r\n" + SMUGGLED,
    "negative-length": b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "two-hosts": b"Host: other\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("name", sorted(BAD_FRAMES))
def test_T19_what_two_servers_could_read_in_two_ways_reaches_none(server, up, name):
    status, out, closed = http.raw(server.port, b"POST /echo HTTP/1.1\r\n" + HOST + BAD_FRAMES[name])
    assert status == 400 and closed, out
    assert up.requests == [], [r.head for r in up.requests]


def test_T19_chunks_are_cut_anew(server, up):
    """Extensions, trailers and odd sizes end here: the server sees chunks that memfs made, or a length."""
    body = (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            b"00003;a=b\r\nabc\r\n1;\"x\"\r\nd\r\n0\r\nContent-Length: 99\r\nX-Trailer: GET /v1/agents/smuggled\r\n\r\n")
    with http.connect(server.port) as sock:
        sock.sendall(body + get("/echo/next"))
        assert http.read_response(sock).json()["bytes"] == 4
    up.wait(lambda: up.seen("/echo/next"), what="the next request")
    assert [r.line for r in up.requests] == ["POST /echo HTTP/1.1", "GET /echo/next HTTP/1.1"]
    assert up.requests[0].one("Content-Length") == "4" and not up.requests[0].all("X-Trailer")


BAD_ANSWERS = {
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nok",
    "no-http": b"hello there\r\n\r\n",
    "length-no-number": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
    "status-0": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c-without-a-colon\r\nContent-Length: 2\r\n\r\nok",
    "no-colon": b"HTTP/1.1 200 OK\r\nwhat is this\r\nContent-Length: 2\r\n\r\nok",
    "huge-head": b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"x" * 90000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "many-fields": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"Content-Length: 2\r\n\r\nok",
    "nothing": b"", "head-cut": b"HTTP/1.1 200 OK\r\nContent-Len",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nxxxx",
}


@pytest.mark.parametrize("name", sorted(BAD_ANSWERS))
def test_T19_an_answer_that_is_none_becomes_502(server, up, name):
    up.answers["/bad"] = BAD_ANSWERS[name]
    answer = http.request(server.port, "POST", "/bad", b"{}")
    assert answer.status == 502, answer
    assert answer.json()["detail"].startswith("The Letta server did not answer: ")
    assert answer.headers["x-should-retry"] == "false"      # it may have done what it was asked
    assert str(up.port) not in answer.detail


def test_T20_fields_of_the_server_cannot_make_others(server, up):
    up.answers["/inject"] = (b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: x=1\r\nX B: 1\r\nX-\x01: 1\r\nX-C: \x1b[31m\r\n"
                             b"X-Good: yes\r\nContent-Length: 2\r\n\r\nok")
    c = Client(server)
    c.send(get("/inject"))
    head = c.head()
    if head.startswith("HTTP/1.1 200"):
        assert "Set-Cookie" not in head and "\x1b" not in head and "\r" not in head.replace("\r\n", "")
        assert "X-Good: yes" in head
    else:
        assert head.startswith("HTTP/1.1 502")
    c.close()


def test_websockets_are_refused_and_other_upgrades_ignored(server, up):
    status, out, _ = http.raw(server.port, get("/ws", b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n"
                                                      b"Sec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n"))
    assert status == 501 and b"websockets are not passed on" in out
    assert up.requests == []


def test_a_gateway_to_itself_is_told(server, up):
    """A request that comes back has memfs' own name in Via; others' names go on."""
    server.get("/echo")
    own = up.requests[-1].one("Via")
    answer = server.get("/v1/agents/", {"Via": "1.0 fred, " + own})
    assert answer.status == 508 and "--upstream names this memfs itself" in answer.detail
    assert len(up.requests) == 1
    came = echo(server.get("/echo", {"Via": "1.0 fred, 1.1 memfs-00000000"}))
    assert [v for n, v in came["fields"] if n == "Via"] == ["1.0 fred, 1.1 memfs-00000000", own]


# -- L3: the server is away ------------------------------------------------------------------------

def test_L3_memfs_goes_on_without_the_server(server, up):
    """Relays are 503 and say so; a credential that was good a moment ago, and memfs' own tokens, still open git."""
    agent = new_agent()
    up.agents.add(agent)
    m = Memory(server, agent)
    m.must_push({"system/human.md": "one\n"})
    up.stop()
    m.must_push({"system/human.md": "two\n"})        # within the 30 s that a yes holds
    answer = server.get("/v1/agents/")
    assert answer.status == 503 and answer.detail == "The Letta server did not answer: it cannot be reached"
    assert answer.headers["retry-after"]
    other = new_agent()
    refused = server.get(f"/v1/git/{other}/state.git/info/refs?service=git-upload-pack")
    assert refused.status == 503 and "cannot be asked now" in refused.detail and refused.headers["retry-after"]
    token = server.token("admin")["token"]
    opened = http.request(server.port, "GET", f"/v1/git/{other}/state.git/info/refs?service=git-upload-pack",
                          headers={"Authorization": "Bearer " + token})
    assert opened.status == 200
    health = http.request(server.port, "GET", "/v1/health")
    assert health.status == 200 and health.json()["status"] == "ok"
    assert health.json()["upstream"] == {"status": "unavailable", "reason": "it cannot be reached"}
    assert http.request(server.port, "GET", "/v1/ready").status == 200
    up.start()          # and back, on the same port
    until(lambda: http.request(server.port, "GET", "/v1/health").json()["upstream"].get("version") == "0.16.7",
          "the server is not seen to be back")
    assert server.get(f"/v1/git/{other}/state.git/info/refs?service=git-upload-pack").status == 404
    m.close()


def test_L3_a_server_that_hangs_holds_nobody_up(servers, up):
    """Its routes wait; memfs' own do not, nor do other agents, however many wait."""
    release = threading.Event()
    slow, quick = new_agent(), new_agent()
    up.agents.update((slow, quick))

    def hang(connection, request):
        connection.read_body(request)
        release.wait(WAIT)
        connection.json(200, {"id": slow})
        return False

    up.handlers[f"/v1/agents/{slow}"] = hang
    server = servers(args=["--upstream", up.url])
    waiting = []
    for i in range(64):         # more than there are workers, each a credential of its own
        c = Client(server)
        c.send(get(f"/v1/git/{slow}/state.git/info/refs?service=git-upload-pack",
                   b"Authorization: Bearer %d\r\n" % i))
        waiting.append(c)
    up.wait(lambda: len(up.seen(f"/v1/agents/{slow}")) >= 64, what="the questions")
    m = Memory(server, quick)
    m.must_push({"system/human.md": "quick\n"})
    m.close()
    release.set()
    for c in waiting:           # 503: the push took longer than a question may
        assert c.head().startswith(("HTTP/1.1 200", "HTTP/1.1 503"))
        c.close()


def test_L3_a_server_that_takes_no_connection_was_asked_nothing(servers):
    """Its machine drops what is sent to it: 503, also for a POST, which may be tried again."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fill = [socket.socket() for _ in range(8)]      # its queue is full, so nobody is answered any more
    for s in fill:
        s.setblocking(False)
        s.connect_ex(listener.getsockname())
    server = servers(args=["--upstream", "http://127.0.0.1:%d" % listener.getsockname()[1]])
    answer = server.request("POST", "/v1/agents/", b"{}")
    assert answer.status == 503 and answer.detail.endswith("it does not answer in time"), answer
    assert answer.headers["retry-after"] and "x-should-retry" not in answer.headers
    for s in fill + [listener]:
        s.close()


def test_S2_a_push_waits_for_the_servers_word_before_it_counts(servers, up):
    """The body comes at once, the verdict late: nothing is done before, and nothing after a no."""
    release, verdicts = threading.Event(), []
    agent = new_agent()

    def late(connection, request):
        connection.read_body(request)
        release.wait(WAIT)
        connection.json(*verdicts.pop(0))
        return False

    up.handlers[f"/v1/agents/{agent}"] = late
    server = servers(args=["--upstream", up.url])
    for status, value, expected in [(401, {}, 401), (403, {}, 403), (404, {}, 404), (500, {}, 503), (200, {}, 503),
                                    (200, {"id": new_agent()}, 503), (200, {"id": agent}, 200)]:
        release.clear()
        verdicts[:] = [(status, value)]
        n = len(up.requests)
        sock = http.connect(server.port)
        body = b"x" * 300000 if expected != 200 else b"0000"
        sock.sendall(b"POST /v1/git/%s/state.git/git-receive-pack HTTP/1.1\r\n" % agent.encode() + HOST +
                     b"Authorization: Bearer %d\r\n" % n +
                     b"Content-Type: application/x-git-receive-pack-request\r\nContent-Length: %d\r\n\r\n" % len(body))
        sock.sendall(body)
        up.wait(lambda: len(up.requests) > n, what="the question")
        assert not os.path.exists(server.repository(agent))
        release.set()
        answer = http.read_response(sock)
        assert answer.status == expected, (status, value, answer)
        sock.close()


# -- whose credential ------------------------------------------------------------------------------

def test_S1_the_servers_check_opens_own_routes(server, up, git):
    """A secure server: Bearer, and Basic as git sends it; nothing else, and each agent for itself."""
    agent, other = new_agent(), new_agent()
    up.agents.add(agent)
    up.password = "s3cret-" + os.urandom(6).hex()
    server.secrets.append(up.password.encode())
    basic = base64.b64encode(b"letta:" + up.password.encode()).decode()
    server.secrets.append(basic.encode())
    info = f"/v1/git/{agent}/state.git/info/refs?service=git-receive-pack"

    def ask(target, credential=None, method="GET"):
        return http.request(server.port, method, target, headers={"Authorization": credential} if credential else {})

    for good in ("Bearer " + up.password, "Basic " + basic):
        for target, method in ((info, "GET"), (f"/v1/agents/{agent}/secrets", "GET"),
                               (f"/v1/agents/{agent}/repositories", "GET")):
            assert ask(target, good, method).status == 200, (target, good[:6])
        assert ask(info.replace(agent, other), good).status == 404
    for bad in (None, "Bearer nope", "Basic " + base64.b64encode(b"letta:nope").decode(), "Basic !!!!",
                "Basic " + base64.b64encode(b"no-colon").decode(), "Digest x", "Bearer memfs_" + "x" * 43,
                "Basic " + base64.b64encode(b"letta:a\r\nX-Evil: 1").decode()):
        answer = ask(info, bad)
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Basic realm="), (bad, answer)
        assert ask(f"/v1/agents/{agent}/secrets", bad).status == 401
        assert ask(info.replace(agent, other), bad).status == 401
    assert not any("evil" in n.lower() for r in up.requests for n, _ in r.fields)
    # what begins as memfs' own tokens do is never shown to the server
    assert not any("memfs_" in v for r in up.requests for _, v in r.fields)
    # 403 and odd ids
    up.handlers[f"/v1/agents/{other}"] = lambda c, r: (c.json(403, {}), True)[1]
    up.wait(lambda: True)
    assert ask(info.replace(agent, other), "Bearer other").status == 403
    for odd in ("agent-1", "agent-%2e%2e", "x", "agent-local-1"):
        assert ask(info.replace(agent, odd), "Bearer " + up.password).status == 404


def test_S1_a_verdict_is_kept_for_the_one_who_asked(server, up):
    """By agent, credential, X-BARE-PASSWORD and user_id; one question for many that ask at once."""
    agent, second = new_agent(), new_agent()
    up.agents.update((agent, second))

    def ask(agent, **head):
        target = f"/v1/agents/{agent}/secrets"
        return http.request(server.port, "GET", target, headers={k.replace("_", "-"): v for k, v in head.items()})

    def questions():
        return len([r for r in up.requests if r.path.startswith("/v1/agents/")])

    for _ in range(5):
        assert ask(agent, Authorization="Bearer a").status == 200
    assert questions() == 1
    up.password = "b"
    assert ask(agent, Authorization="Bearer a").status == 200       # a yes holds for 30 s
    assert ask(second, Authorization="Bearer a").status == 401
    assert ask(agent, Authorization="Bearer x").status == 401
    assert ask(agent).status == 401
    assert ask(agent, Authorization="Bearer b").status == 200
    assert questions() == 5
    assert ask(agent, Authorization="Bearer a", X_BARE_PASSWORD="password a").status == 401
    assert questions() == 6 and up.requests[-1].one("X-BARE-PASSWORD") == "password a"
    gate, n = threading.Event(), 40

    def slow(connection, request):
        connection.read_body(request)
        gate.wait(WAIT)
        connection.json(200, {"id": third})
        return True

    third = new_agent()
    up.handlers[f"/v1/agents/{third}"] = slow
    clients = [Client(server) for _ in range(n)]
    for c in clients:
        c.send(get(f"/v1/agents/{third}/secrets"))
    up.wait(lambda: up.seen(f"/v1/agents/{third}"), what="the question")
    gate.set()
    for c in clients:
        assert c.head().startswith("HTTP/1.1 200")
        c.close()
    assert len(up.seen(f"/v1/agents/{third}")) <= 2     # those who came while it ran shared it


def test_memfs_tokens_decide_for_themselves_and_stay_here(server, up):
    agent, other = new_agent(), new_agent()
    up.agents.update((agent, other))
    up.password = "p"
    own = server.token(f"agent:{agent}:rw")["token"]
    read = server.token(f"agent:{agent}:ro")["token"]

    def ask(target, token):
        return http.request(server.port, "GET", target, headers={"Authorization": "Bearer " + token}).status

    push = "/v1/git/{}/state.git/info/refs?service=git-receive-pack"
    assert ask(push.format(agent), own) == 200 and ask(push.format(other), own) == 404
    assert ask(push.format(agent), read) == 403 and ask(push.format(agent), "p") == 200
    n = len(up.requests)
    assert ask("/echo", own) == 200
    assert not up.requests[n].all("Authorization")          # it is nothing to the server
    server.cli("token", "revoke", json.loads(server.cli("token", "list", "--json").stdout)[0]["id"])
    assert sorted((ask(push.format(agent), own), ask(push.format(agent), read))) in ([200, 401], [401, 403])


def test_beyond_loopback_the_server_decides_and_an_open_one_is_told_of(servers, up):
    """No token of memfs' is needed there; that nobody needs any is said once."""
    agent = new_agent()
    up.agents.add(agent)
    server = servers(start=False, args=["--upstream", up.url])
    server.listen = "0.0.0.0:0"
    server.start()
    for _ in range(3):
        assert http.request(server.port, "GET", f"/v1/agents/{agent}/secrets").status == 200
    assert server.log().count("event=upstream_open ") == 1
    up.password = "p"
    assert http.request(server.port, "GET", f"/v1/agents/{new_agent()}/secrets").status == 401


def test_webhooks_health_and_status_pages_stay_open(server, up):
    up.password = "p"
    for path in ("/healthz", "/readyz", "/v1/health", "/v1/ready", "/v1/health/"):
        assert http.request(server.port, "GET", path).status == 200
    health = http.request(server.port, "GET", "/v1/health/").json()
    assert list(health) == ["version", "status", "upstream"]
    assert health["upstream"] == {"version": "0.16.7", "status": "ok"}


# -- a whole life ----------------------------------------------------------------------------------

def test_F30_stopping_cuts_streams_and_lets_the_rest_end(servers, up):
    server = servers(args=["--upstream", up.url])
    clients = [Client(server) for _ in range(20)]
    for c in clients:
        c.send(get("/sse"))
        c.head()
    up.wait_streams(20)
    server.terminate()
    for c in clients:
        assert c.ends_broken()
        c.close()
    for s in up.streams:
        s.over.set()
    assert server.wait() == 0


def test_F30_what_the_server_may_have_done_is_not_asked_again_after_a_stop(servers, up):
    """It works on a POST when memfs ends: no client may send that once more on its own.  A GET may be."""
    def hold(connection, request):
        connection.read_body(request)
        connection.wait_closed(WAIT)
        return False

    up.handlers["/hold"] = hold
    server = servers(args=["--upstream", up.url])
    clients = {method: Client(server) for method in (b"POST", b"GET")}
    clients[b"GET"].send(get("/hold"))
    clients[b"POST"].send(get("/hold", b"Content-Length: 2\r\n", b"POST") + b"{}")
    up.wait(lambda: len(up.seen("/hold")) == 2, what="both")
    server.terminate()
    head = clients[b"POST"].head().lower()
    assert head.startswith("http/1.1 502") and "x-should-retry: false" in head, head
    head = clients[b"GET"].head().lower()
    assert head.startswith("http/1.1 503") and "retry-after: " in head and "x-should-retry" not in head, head
    for c in clients.values():
        c.close()
    assert server.wait() == 0


def test_option_environment_and_config_name_the_server(servers, up, folder):
    by_environment = servers("env", env={"MEMFS_UPSTREAM": up.url})
    assert echo(by_environment.get("/echo"))
    by_config = servers("config", start=False)
    os.makedirs(by_config.home, mode=0o700)
    with open(os.path.join(by_config.home, "config"), "w") as f:
        f.write(f"[memfs]\n\tupstream = {up.url}/\n")
    by_config.start()
    assert echo(by_config.get("/echo"))
    for bad in ("letta:8283", "ftp://x", "http://", "http://u:pw0rd@h:1", "http://h/path", "http://h:0", "http://h:x",
                "http://h?q", "http://a b", "http://-x"):
        done = by_config.cli("serve", "--listen", "127.0.0.1:0", "--upstream", bad, check=False,
                             home=False, env={"MEMFS_HOME": str(folder / "none")})
        assert done.returncode != 0 and b"the upstream's address must" in done.stderr, (bad, done.stderr)
        assert b"pw0rd" not in done.stderr


def test_S3_no_credential_in_the_log(server, up):
    agent = new_agent()
    up.password = CANARY
    for target in ("/echo", f"/v1/agents/{agent}/secrets", f"/v1/agents/{agent}"):
        server.get(target)
        http.request(server.port, "GET", target, headers={"X-BARE-PASSWORD": "password " + CANARY})
    up.stop()
    server.get("/echo")
    server.get(f"/v1/agents/{new_agent()}/secrets")
    assert CANARY not in server.log()       # and check_clean looks everywhere, for all tests
