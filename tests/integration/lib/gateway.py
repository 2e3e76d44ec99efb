"""memfs as a gateway, for the tests of it: a server that a test holds by the hand behind it (lib/upstream.py), and
connections that are read as far as a test expects bytes on them."""
import pytest

from . import http
from .patience import wait
from .upstream import Upstream

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
