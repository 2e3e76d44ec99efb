"""memfs in front of a Letta server: `memfs serve --upstream` (design 9, 10; T02, T03, T19, L1, L3, S1, S3).

The server behind is one that a test holds by the hand (lib/upstream.py).  Nothing here measures a time: a test sees
what has come before the next thing is sent.
"""
import base64
import json
import os
import re
import socket
import ssl
import threading

import pytest

from lib import http
from lib.gateway import HOST, WAIT, Client, echo, get, server, until, up  # noqa: F401
from lib.server import CANARY, new_agent
from lib.tlsgit import Authority
from lib.writer import Memory

# -- whose is what ---------------------------------------------------------------------------------

THEIRS = ["/v1/agents", "/v1/agents/", "/v1/agents/{a}", "/v1/agents/{a}/core-memory", "/v1/agents/count",
          "/v1/agents/{a}/core-memory/blocks", "/v1/agents/{a}/core-memory/blocks/system%2Fhuman",
          "/v1/agents/{a}/messages", "/v1/blocks", "/v1/blocks/", "/v1/blocks/count", "/v1/blocks/block-1",
          "/v1/blocks/block-1/agents", "/v1/tags", "/v1/tags/", "/latest/agents/{a}", "/openapi.json", "/", "/a/b/c/", "/v2/what",
          "/v1/providers/", "/v1/agents/{a}/memory", "/v1/gitty"]
OURS = ["/v1/git/{a}/what", "/v1/git", "/git/{a}/x/y", "/latest/git/{a}/what",
        "/v1/repositories/repo-1/what", "/owner/verify", "/webhooks/gitea/x", "/peer", "/peer/what/{a}",
        # and what a server that decodes before it cuts would take for one of them
        "/v1%2Fgit/{a}/state.git/info/refs", "/v1/git%2F{a}/state.git/info/refs", "/latest%2fgit/{a}",
        "/v1/agents/{a}%2Fsecrets", "/v1/agents/{a}/memory%2Fhistory", "/v1%2Fagents%2F{a}%2Frepositories", "/owner%2Fverify", "/peer%2Fgit"]


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
    assert server.request("PUT", "/v1/repositories").status == 405
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
    first, genesis = server.get(f"/v1/agents/{agent}/memory/history").json()
    assert first["files_changed"] == ["system/human.md"]
    assert server.get(f"/v1/agents/{agent}/memory/diff").json()["to"] == first["sha"]
    assert server.get(f"/v1/agents/{agent}/memory/at/{first['sha']}/blocks").json()[0]["value"] == "from git\n"
    body = json.dumps({"commit": genesis["sha"]}).encode()
    assert server.request("POST", f"/v1/agents/{agent}/memory/revert", body).json()["changed"] is True
    assert server.request("POST", f"/v1/agents/{agent}/memory/sync-from-git").json() == []
    back = json.dumps({"commit": first["sha"]}).encode()
    assert server.request("POST", f"/v1/agents/{agent}/memory/revert", back).json()["changed"] is True
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


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n"],
                         ids=["length", "no-content"])
def test_T19_what_comes_behind_an_answer_answers_nobody(server, up, first):
    """Whoever makes the server say more than its answer would say it to the next who asks, and to memfs' own
    question whose agent that is."""
    agent, answered, said = new_agent(), threading.Event(), threading.Event()
    theirs = b'{"id": "%s"}' % agent.encode()

    def more(connection, request):
        connection.read_body(request)
        connection.send(first)
        answered.wait(WAIT)                         # the client has it, and the connection is idle
        try:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                            % (len(theirs), theirs))
        except OSError:
            pass                                    # nobody hears it
        said.set()
        return not connection.wait_closed()

    up.handlers["/more"] = more
    assert server.get("/more").status in (200, 204)
    answered.set()
    assert said.wait(WAIT)
    assert server.get(f"/v1/agents/{agent}/secrets").status == 404
    assert echo(server.get("/echo"))["line"] == "GET /echo HTTP/1.1"


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


def test_S1_a_search_of_all_agents_is_for_memfs_tokens(server, up):
    """Letta's word is about one agent; an open Letta server must not open a search of every memory."""
    agent = new_agent()
    up.agents.add(agent)
    m = Memory(server, agent)
    m.must_push({"system/human.md": "a needle\n"})
    m.close()
    assert server.get("/v1/search?q=needle").status == 401
    assert server.get(f"/v1/search?q=needle&agent={agent}").status == 401
    assert b"system/human.md" in server.cli("search", "needle").stdout
    for scope in ("admin", f"agent:{agent}:ro"):
        bearer = {"Authorization": "Bearer " + server.token(scope)["token"]}
        (hit,) = server.get("/v1/search?q=needle", headers=bearer).json()["results"]
        assert hit["agent_id"] == agent
    assert not [r for r in up.requests if "search" in r.path]


def test_T04_guessing_the_servers_password_costs_time_too(server, up):
    """The refusal waits once more, after the server was asked; who has the password does not wait."""
    agent = new_agent()
    up.agents.add(agent)
    up.password = "p"
    secrets, refs = f"/v1/agents/{agent}/secrets", f"/v1/git/{agent}/state.git/info/refs?service=git-upload-pack"

    def ask(target, password):
        return http.request(server.port, "GET", target, headers={"Authorization": "Bearer " + password})

    assert {ask(secrets, f"guess-{i}").status for i in range(20)} == {401}
    late = ask(secrets, "guess-20")
    assert (late.status, late.headers.get("retry-after")) == (429, "1"), late
    assert ask(refs, "guess-21").headers["www-authenticate"].startswith("Basic realm=")
    assert ask(secrets, "guess-20").status == 401, "the same again is no guess"
    assert ask(secrets, "p").status == 200 and ask(refs, "p").status == 200
    assert len([r for r in up.requests if "guess-21" in r.one("Authorization")]) == 1


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
    until(lambda: http.request(server.port, "GET", "/readyz").status == 200, "it never gets ready")
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
