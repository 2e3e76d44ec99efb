"""A git remote over HTTP that can be told what to answer, and where to break.

    with FakeRemote(root=folder) as r:         # root: bare repositories below it, served by real git
        path = r.repository("a.git")           # `git init --bare` with main; returns its path
        url = r.url("a.git")                   # http://127.0.0.1:PORT/a.git
        url = r.url("v1/git/agent-…/state.git")
        r.say("501")                           # every request gets this row of ANSWERS (below) …
        r.say(Answer(429, headers={"Retry-After": "7"}))   # … or an answer of the test's own
        r.say(None)                            # real git again
        r.break_at("pack", 100, "cut")         # the next answers of a class end after 100 bytes of body
        r.mend()
        r.requests                             # what came: Request(method, target, headers, body)

    token="…"      HTTP Basic or Bearer with this token is wanted (any user name), else 401
    tls=context    an ssl.SSLContext (lib/tlsgit.py makes them)
    create=True    a repository that is asked for and missing is made (bare, empty)
    map=callable   target path -> path below root (default: as it is)

Classes of answers for break_at: "head" (counts from the first byte of the status line), "refs"
(info/refs of both services), "ls" (ls-refs of protocol v2), "pack" (the answer of upload-pack that
holds a pack), "push" (the report of receive-pack), "body" (the request's body of a push: the server
goes away after N bytes were read), "any".
Ways to break: "cut" (closes), "reset" (RST), "hang" (says nothing more), "drip" (a byte a second).

Rows of ANSWERS: "501" "404" "405" "410" "html" "captive" "redirect" "401" "401-bare" "403" "429" "500"
"502" "503" "504" "511" "hang" "reset" "close" "garbage" "drip" "empty-body" "dumb" "huge" "endless-head".
"""
import base64
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import namedtuple

Request = namedtuple("Request", "method target headers body")

ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
HTML = b"<!doctype html><html><head><title>Sign in</title></head><body>Welcome</body></html>\n"


class Answer:
    """status, headers, body; raw: bytes instead of all that; then: what happens after the body
    ("close", "reset", "hang", "drip")."""

    def __init__(self, status=200, body=b"", type="text/plain", headers=None, raw=None,
                 then="close"):
        self.status, self.body, self.type = status, body, type
        self.headers, self.raw, self.then = dict(headers or {}), raw, then

    def bytes(self):
        if self.raw is not None:
            return self.raw
        head = {"Content-Type": self.type, "Content-Length": str(len(self.body)),
                "Connection": "close", **self.headers}
        lines = [f"HTTP/1.1 {self.status} X"] + [f"{k}: {v}" for k, v in head.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def status(code, **headers):
    return Answer(code, b'{"detail":"no"}', "application/json",
                  {k.replace("_", "-"): v for k, v in headers.items()})


ANSWERS = {
    "501": Answer(501, b'{"detail":"git HTTP requires memfs service"}', "application/json"),
    "404": status(404), "405": status(405), "410": status(410), "403": status(403),
    "401": status(401, WWW_Authenticate='Basic realm="git"'), "401-bare": status(401),
    "429": status(429, Retry_After="7"), "500": status(500), "504": status(504),
    "502": Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", "text/html"),
    "503": status(503, Retry_After="3"), "511": Answer(511, HTML, "text/html"),
    "html": Answer(200, HTML, "text/html; charset=utf-8"),
    "captive": Answer(302, HTML, "text/html", {"Location": "http://portal.invalid/login?next=x"}),
    "redirect": Answer(301, b"", "text/html", {"Location": "https://elsewhere.invalid/a.git"}),
    "hang": Answer(raw=b"", then="hang"),
    "close": Answer(raw=b"", then="close"),
    "reset": Answer(raw=b"", then="reset"),
    "garbage": Answer(raw=b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\x00\xff\x00" * 20),
    "drip": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Type: " + ADVERTISEMENT.encode() +
                   b"\r\n\r\n001e# service=git-upload-pack\n" + b"0000" * 1000, then="drip"),
    "empty-body": Answer(200, b"", ADVERTISEMENT),
    "dumb": Answer(200, b"56776245ff7b896622904bfc4d1c355a35e6cd81\trefs/heads/main\n"),
    "huge": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Type: " + ADVERTISEMENT.encode() +
                   b"\r\n\r\n001e# service=git-upload-pack\n0000" + b"".join(
                       b"%04x%040x refs/changes/%06d\n" % (4 + 41 + 20, i, i)
                       for i in range(150000)) + b"0000"),
    "endless-head": Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"a" * 8000 + b"\r\n" +
                           b"X-More: b\r\n" * 200000),
}


def stop_listening(listener, thread):
    """Closes a listener when the thread that accepts on it has ended.  An accept() that still waits
    may be begun anew, by the number of its descriptor, and then takes a connection of whatever
    listens under that number by then: of another test."""
    try:
        listener.shutdown(socket.SHUT_RDWR)     # wakes it
    except OSError:
        pass
    thread.join(60)
    assert not thread.is_alive(), "a listener of the tests does not end"
    listener.close()


class Gone(Exception):
    """The connection was broken, as asked."""


class FakeRemote:
    def __init__(self, root=None, token=None, tls=None, create=False, map=None, host="127.0.0.1"):
        self.root = str(root) if root else None
        self.token, self.tls, self.create, self.map, self.host = token, tls, create, map, host
        self.answer, self.fault = None, None
        self.requests = []
        self.handshakes_failed = 0
        self.stopping = threading.Event()
        self.listener = socket.create_server((host, 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.connections = set()
        if self.root:
            os.makedirs(self.root, exist_ok=True)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    # -- what a test calls ---------------------------------------------------------------------------

    def url(self, path, host=None):
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host or self.host}:{self.port}/{path.lstrip('/')}"

    def say(self, answer):
        self.answer = ANSWERS[answer] if isinstance(answer, str) else answer
        return self

    def break_at(self, kind, n, how="cut", times=1 << 30):
        self.fault = {"kind": kind, "at": n, "how": how, "times": times}
        return self

    def mend(self):
        self.answer = self.fault = None
        return self

    def repository(self, name):
        path = os.path.join(self.root, name)
        if not os.path.isdir(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._git("init", "-q", "--bare", "-b", "main", path)
            self._git("-C", path, "config", "http.receivepack", "true")
        return path

    def close(self):
        self.stopping.set()
        stop_listening(self.listener, self.thread)
        with self.lock:
            for c in list(self.connections):
                try:
                    c.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- connections ---------------------------------------------------------------------------------

    def _git(self, *args):
        subprocess.run(["/usr/bin/git", *args], check=True, env=self._env(), timeout=60,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def _env(self):
        return {"PATH": "/usr/bin:/bin", "HOME": self.root, "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}

    def _accept(self):
        while not self.stopping.is_set():
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        with self.lock:
            self.connections.add(c)
        plain = c
        try:
            c.settimeout(60)
            if self.tls:
                c = self.tls.wrap_socket(c, server_side=True)
                with self.lock:
                    self.connections.discard(plain)
                    self.connections.add(c)
            self._exchange(c)
        except (ssl.SSLError, ConnectionError) as e:
            if c is plain and self.tls:
                self.handshakes_failed += 1
        except (OSError, Gone, ValueError):
            pass
        finally:
            with self.lock:
                self.connections.discard(c)
            try:
                c.close()
            except OSError:
                pass

    def _exchange(self, c):
        head, rest = self._read_head(c)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            key, _, value = line.partition(":")
            headers[key.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        fault = self.fault
        limit = fault["at"] if fault and fault["kind"] == "body" and method == "POST" and \
            target.endswith("git-receive-pack") else None
        body = self._read_body(c, headers, rest, limit)
        self.requests.append(Request(method, target, headers, body))
        if limit is not None and len(body) >= limit:
            self._break(c, fault["how"])
        if self.answer is not None:
            answer = self.answer
            self._send(c, answer.bytes(), answer.then)
            return
        if not self._may(headers):
            self._send(c, ANSWERS["401"].bytes(), "close")
            return
        self._real_git(c, method, target, headers, body)

    def _read_head(self, c):
        data = b""
        while b"\r\n\r\n" not in data:
            got = c.recv(65536)
            if not got or len(data) > 1 << 20:
                raise Gone
            data += got
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _read_body(self, c, headers, data, limit):
        def more():
            nonlocal data
            got = c.recv(65536)
            if not got:
                raise Gone
            data += got

        if headers.get("transfer-encoding") == "chunked":
            out = b""
            while True:
                while b"\r\n" not in data:
                    more()
                size, _, data = data.partition(b"\r\n")
                n = int(size, 16)
                while len(data) < n + 2:
                    if limit is not None and len(out) + len(data) >= limit:
                        return out + data
                    more()
                out, data = out + data[:n], data[n + 2:]
                if n == 0:
                    break
        else:
            n = int(headers.get("content-length", 0))
            while len(data) < n and (limit is None or len(data) < limit):
                more()
            out = data
        if headers.get("content-encoding") == "gzip" and limit is None:
            import gzip
            out = gzip.decompress(out)
        return out

    def _may(self, headers):
        if not self.token:
            return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return value == self.token
        if kind.lower() != "basic":
            return False
        try:
            return base64.b64decode(value).decode().partition(":")[2] == self.token
        except ValueError:
            return False

    # -- real git ------------------------------------------------------------------------------------

    def _real_git(self, c, method, target, headers, body):
        path, _, query = target.partition("?")
        inside = self.map(path) if self.map else path
        repository = inside
        for end in ("/info/refs", "/git-upload-pack", "/git-receive-pack"):
            if repository.endswith(end):
                repository = repository[:-len(end)]
        if not self.root or ".." in inside.split("/"):
            self._send(c, ANSWERS["404"].bytes(), "close")
            return
        if not os.path.isdir(os.path.join(self.root, repository.lstrip("/"))):
            if not self.create:
                self._send(c, ANSWERS["404"].bytes(), "close")
                return
            with self.lock:
                self.repository(repository.lstrip("/"))
        env = {**self._env(), "GIT_PROJECT_ROOT": self.root, "GIT_HTTP_EXPORT_ALL": "1",
               "PATH_INFO": "/" + inside.lstrip("/"), "QUERY_STRING": query,
               "REQUEST_METHOD": method, "REMOTE_ADDR": "127.0.0.1", "REMOTE_USER": "tester",
               "CONTENT_TYPE": headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body)),
               "GIT_PROTOCOL": headers.get("git-protocol", "")}
        done = subprocess.run(["/usr/bin/git", "-c", "safe.directory=*", "http-backend"], env=env,
                              input=body, capture_output=True, timeout=120)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        code, fields = b"200 OK", []
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"status:"):
                code = line.split(b":", 1)[1].strip()
            elif line:
                fields.append(line)
        fields += [b"Content-Length: %d" % len(answer), b"Connection: close"]
        self._deliver(c, b"HTTP/1.1 " + code + b"\r\n" + b"\r\n".join(fields) + b"\r\n\r\n",
                      answer, self._kind(target, body, answer))

    @staticmethod
    def _kind(target, body, answer):
        if "/info/refs" in target:
            return "refs"
        if target.endswith("git-receive-pack"):
            return "push"
        return "ls" if b"command=ls-refs" in body else "pack" if b"PACK" in answer else "fetch"

    def _deliver(self, c, head, answer, kind):
        fault = self.fault
        if fault and fault["times"] > 0 and fault["kind"] in (kind, "any", "head"):
            fault["times"] -= 1
            n = fault["at"] if fault["kind"] == "head" else len(head) + fault["at"]
            whole = head + answer
            if n < len(whole):
                c.sendall(whole[:n])
                self._break(c, fault["how"], whole[n:])
        c.sendall(head + answer)
        self._linger(c)

    def _send(self, c, data, then):
        if then == "drip":
            self._break(c, "drip", data)
        c.sendall(data)
        if then in ("hang", "reset"):
            self._break(c, then)
        self._linger(c)

    @staticmethod
    def _linger(c):
        """The answer must arrive even where bytes of the request were left unread."""
        try:
            c.shutdown(socket.SHUT_WR)
            c.settimeout(2)
            while c.recv(65536):
                pass
        except OSError:
            pass

    def _break(self, c, how, rest=b""):
        if how == "hang":
            self.stopping.wait(600)
        elif how == "drip":
            for i in range(len(rest)):
                c.sendall(rest[i:i + 1])
                if self.stopping.wait(1):
                    break
        elif how == "reset":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone


def closed_port():
    """A port of the loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class BlackHole:
    """A port that takes connections (the kernel does) and never says a byte; never even accepts."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self.listener.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
