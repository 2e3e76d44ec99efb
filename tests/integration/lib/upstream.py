"""A server behind the gateway that a test holds by the hand: it sees every byte of a request, and says what it is
told to, when it is told to.

    up = Upstream().start()
    up.requests                     what came, as Request, in order
    up.agents.add(id); up.password  who is known, and with which Bearer (None: everybody is let in)
    up.answers["/x"] = b"HTTP/1.1 200 OK\\r\\n..."      bytes as they are; the connection closes behind them
    up.handlers["/y"] = f           f(connection, request): anything

Paths that it knows by itself: /echo (the head and a digest of the body, as JSON), /sse (a stream that lives until
the test ends it), /v1/health/, /v1/agents/{id}.  No Letta server, but one that can be as bad as any.
"""
import hashlib
import json
import socket
import threading
import time

from .patience import Late


class Request:
    def __init__(self, head, connection):
        self.head = head
        self.connection = connection
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.method, self.target, self.version = lines[0].split(" ")
        self.fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if line]
        self.body_bytes, self.digest, self.is_whole = 0, hashlib.sha256(), False

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def one(self, name):
        found = self.all(name)
        assert len(found) == 1, (name, self.fields)
        return found[0]

    @property
    def path(self):
        return self.target.split("?")[0]


class Connection:
    """One socket; reads requests off it, in bytes."""

    def __init__(self, sock):
        self.sock, self.rest, self.closed = sock, b"", threading.Event()

    def _more(self):
        got = self.sock.recv(1 << 16)
        if not got:
            raise EOFError
        self.rest += got

    def line(self):
        while b"\r\n" not in self.rest:
            self._more()
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line

    def take(self, n):
        while len(self.rest) < n:
            self._more()
        out, self.rest = self.rest[:n], self.rest[n:]
        return out

    def request(self):
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        return Request(head, self)

    def pieces(self, request):
        """The body, by its framing, as it comes; chunk sizes are checked to the byte."""
        if request.all("Transfer-Encoding"):
            assert request.one("Transfer-Encoding") == "chunked" and not request.all("Content-Length")
            while True:
                size = int(self.line(), 16)
                if size == 0:
                    assert self.line() == b""
                    return
                yield from self._slices(size)
                assert self.take(2) == b"\r\n"
        for length in request.all("Content-Length"):
            yield from self._slices(int(length))

    def _slices(self, left):
        while left:
            if not self.rest:
                self._more()
            piece, self.rest = self.rest[:left], self.rest[left:]
            left -= len(piece)
            yield piece

    def read_body(self, request):
        for piece in self.pieces(request):
            request.body_bytes += len(piece)
            request.digest.update(piece)
        request.is_whole = True

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, status, body=b"", head=(), kind="application/json"):
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *head]
        if kind:
            lines.append(f"Content-Type: {kind}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def json(self, status, value):
        self.answer(status, json.dumps(value).encode())

    def wait_closed(self, timeout=60):
        """True when the peer ends the connection."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        except socket.timeout:
            return False
        return True


class Stream:
    """An answer that is open: the test sends events, or ends it in one way or another."""

    def __init__(self, connection, request):
        self.connection, self.request, self.over = connection, request, threading.Event()

    def send(self, data):
        self.connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self):
        self.connection.send(b"0\r\n\r\n")
        self.over.set()

    def cut(self):
        self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.over.set()


class Upstream:
    def __init__(self, port=0):
        self.requests, self.answers, self.handlers = [], {}, {}
        self.agents, self.password, self.status = set(), None, 200
        self.version = "0.16.7"
        self.streams, self.changed = [], threading.Condition()
        self.connections, self.faults = [], []
        self.wanted_port = port

    # -- life --------------------------------------------------------------------------------------

    def start(self):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bind(time.monotonic() + 60)
        self.sock.listen(1024)
        self.port = self.wanted_port = self.sock.getsockname()[1]
        self.stopping = False
        threading.Thread(target=self._accept, args=(self.sock,), daemon=True).start()
        return self

    def _bind(self, deadline):
        """Back on its port, which somebody may have for a moment."""
        while True:
            try:
                return self.sock.bind(("127.0.0.1", self.wanted_port))
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self):
        if self.stopping:
            return
        self.stopping = True
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        with self.changed:
            connections, self.connections = self.connections, []
        for c in connections:
            try:
                c.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            with self.changed:
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while self._serve_one(connection):
                pass
        except (EOFError, OSError):
            pass
        except Exception as e:  # noqa: BLE001 - told to the test
            self.faults.append(repr(e))
        finally:
            connection.closed.set()
            connection.sock.close()

    def _serve_one(self, connection):
        request = connection.request()
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        if request.path in self.handlers:
            return self.handlers[request.path](connection, request)
        connection.read_body(request)
        if request.path in self.answers:
            connection.send(self.answers[request.path])
            return False
        return self._known(connection, request)

    def _known(self, connection, request):
        if request.path.startswith("/echo"):
            connection.json(self.status, {"line": request.line, "fields": request.fields,
                                          "bytes": request.body_bytes, "sha256": request.digest.hexdigest()})
        elif request.path == "/sse":
            self._stream(connection, request)
            return False
        elif request.path == "/v1/health/":
            connection.json(200, {"version": self.version, "status": "ok"})
        elif request.path.startswith("/v1/agents/"):
            self._agent(connection, request)
        else:
            connection.json(404, {"detail": "Not Found (upstream)"})
        return True

    def _agent(self, connection, request):
        agent = request.path.split("/")[3]
        if self.password is not None and request.all("Authorization") != ["Bearer " + self.password]:
            connection.json(401, {"detail": "Unauthorized"})
        elif agent not in self.agents:
            connection.json(404, {"detail": f"Agent with ID {agent} not found"})
        else:
            connection.json(200, {"created_at": None, "id": agent, "name": "from upstream"})

    def _stream(self, connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")
        stream = Stream(connection, request)
        with self.changed:
            self.streams.append(stream)
            self.changed.notify_all()
        stream.over.wait()

    # -- what a test waits for ---------------------------------------------------------------------

    def wait(self, condition, timeout=60, what="it"):
        deadline = time.monotonic() + timeout
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Late(f"{what} did not come: {[r.line for r in self.requests[-5:]]} {self.faults}")
                self.changed.wait(min(left, 0.2))

    def wait_streams(self, n):
        self.wait(lambda: len(self.streams) >= n, what=f"stream {n} (of {len(self.streams)})")

    def seen(self, path):
        return [r for r in self.requests if r.path == path]
