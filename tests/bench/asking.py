"""Requests a second and how long each took: of a server by load.c, of a database by direct.c."""
import http.client
import json
import os
import socket
import subprocess

from rigs import processor_s, program

CONNECTIONS = 8


def run_json(*argv):
    """A bench program's lines of JSON."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise RuntimeError("%s -> %d" % (" ".join(argv), done.returncode))
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def request_file(folder, name, method, target, body=b"", headers=()):
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: 127.0.0.1", *headers]
    if body:
        lines.append("Content-Length: %d" % len(body))
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return path


def load(port, ms, *files, connections=CONNECTIONS, own=False):
    """own: each connection asks one of them only."""
    return run_json(program("bench_load"), *(["--own"] if own else []), str(port), str(connections),
                    str(ms), *files)[0]


def in_turns(rounds, ms, targets):
    """
    targets: {name: (server, files)} -> {name: ([answers a second], [processor us an answer])}; warmed up,
    taking turns.  The processor time holds on a machine that others use too.  (fcgiwrap does not wait
    for its children, so theirs is lost and its own means nothing.)
    """
    found = {name: ([], []) for name in targets}
    for server, files in targets.values():
        load(server.port, 300, *files)
    for _ in range(rounds):  # many: how connections fall on a server's threads is chance
        for name, (server, files) in targets.items():
            before = processor_s(server.pids())
            got = load(server.port, ms, *files)
            found[name][0].append(got["per_second"])
            found[name][1].append((processor_s(server.pids()) - before) * 1e6 / got["answers"])
    return found


def body_of(port, file):
    """The body that a server answers to a raw request."""
    with open(file, "rb") as f, socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(f.read())
        answer = http.client.HTTPResponse(s)
        answer.begin()
        return answer.read()
