"""HTTP the easy way (requests with JSON) and the raw way (bytes on a socket)."""
import http.client
import json
import socket


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def detail(self):
        try:
            return self.json().get("detail", "")
        except (ValueError, AttributeError):
            return self.body.decode("utf-8", "replace")

    def __repr__(self):
        return f"<Response {self.status} {self.body[:300]!r}>"


def request(port, method, target, body=None, headers=None, timeout=60, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Response(answer.status, dict((k.lower(), v) for k, v in answer.getheaders()),
                        answer.read())
    finally:
        connection.close()


def connect(port, timeout=30, host="127.0.0.1"):
    return socket.create_connection((host, port), timeout=timeout)


def read_all(sock, limit=1 << 20):
    """Everything until the peer closes; a reset counts as an end."""
    out = bytearray()
    try:
        while len(out) < limit:
            got = sock.recv(65536)
            if not got:
                break
            out += got
    except ConnectionResetError:
        pass
    return bytes(out)


def raw(port, data, timeout=15):
    """Sends bytes as they are, reads to the end -> (status or None, bytes, was it closed)."""
    with connect(port, timeout) as sock:
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            out = read_all(sock)
            closed = True
        except socket.timeout:
            out, closed = b"", False
    return status_of(out), out, closed


def read_response(sock):
    """One whole answer with a Content-Length or chunks from a connection that stays open."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    body = answer.read()
    return Response(answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), body)


def status_of(data):
    if not data.startswith(b"HTTP/1."):
        return None
    return int(data[9:12])
