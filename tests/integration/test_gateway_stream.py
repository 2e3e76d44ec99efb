"""What flows through the gateway, in both directions: uploads, answers, streams (design 10; L1, D4).

Nothing here measures a time: a test sees what has come before the next thing is sent.
"""
import gzip
import hashlib
import os
import socket
import threading
import time

import pytest

from lib import http
from lib.gateway import HOST, WAIT, Client, echo, get, server, until, up  # noqa: F401
from lib.server import new_agent
from lib.summary import most
from lib.writer import Memory

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
    assert status == 431, out
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
