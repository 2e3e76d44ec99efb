"""Every route x method x principal x id, asked of a server and judged by rules of its own (S1, S2).

    world = World(server)        two agents with memories, a third that has none, tokens of all kinds
    m = Matrix(world); m.ask()   the real route table, `memfs debug routes`
    m.faults                     what is not as it must be; empty on a good server
    m.n                          how many requests

The rules are written here a second time, from docs/http-api.md, so that a mistake in the server's
table shows.  What a request with an agent's token is answered is compared with what the same
request says of an id that nobody has, byte by byte.
"""
import base64
import http.client
import json
import socket
import time
import uuid

from .server import new_agent
from .wire import GENESIS
from .writer import Memory

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
DULL = ("date", "x-request-id")
BASIC, BEARER = 'Basic realm="memfs", charset="UTF-8"', 'Bearer realm="memfs"'
TYPES = {"git-upload-pack": "application/x-git-upload-pack-request",
         "git-receive-pack": "application/x-git-receive-pack-request"}


def owner_post(server, path, body):
    """A route of the home's own socket -> its lines."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(60)
    connection.sock.connect(server.home + "/socket")
    connection.request("POST", path, body=json.dumps(body))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    return [json.loads(line) for line in text.splitlines()]


def bearer(token):
    return {"Authorization": "Bearer " + token}


def basic(token, user="letta"):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}


class Client:
    """One connection that is kept, as programs do it."""

    def __init__(self, server):
        self.server, self.connection = server, None

    def ask(self, method, target, headers=None, body=None):
        for again in (True, False):
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port,
                                                             timeout=60)
            try:
                self.connection.request(method, target, body=body, headers=headers or {})
                answer = self.connection.getresponse()
                data = answer.read()
            except (http.client.BadStatusLine, ConnectionError):
                self.connection.close()     # it was closed behind the answer before
                self.connection = None
                if not again:
                    raise
                continue
            if answer.will_close:
                self.connection.close()
                self.connection = None
            kept = {k.lower(): v for k, v in answer.getheaders() if k.lower() not in DULL}
            return answer.status, kept, data


class World:
    """Agents A and B with memories, C without one, and a token of each kind."""

    def __init__(self, server):
        self.server = server
        self.own, self.other, self.third = new_agent(), new_agent(), new_agent()
        self.unknown, self.unknown_block = new_agent(), f"block-{uuid.uuid4()}"
        for agent in (self.own, self.other):
            m = Memory(server, agent)
            m.must_push({"system/human.md": f"of {agent}\n", "notes.md": "a note\n"})
            m.close()
        self.own_block = server.value_id(self.own, "system/human")
        self.other_block = server.value_id(self.other, "system/human")
        self.made = {
            "admin": server.token("admin"),
            "rw": server.token(f"agent:{self.own}:rw"),
            "ro": server.token(f"agent:{self.own}:ro"),
            "new": server.token(f"agent:{self.third}:rw"),
            "revoked": server.token("admin"),
        }
        server.cli("token", "revoke", self.made["revoked"]["id"])
        self.made["expired"] = owner_post(server, "/owner/token/create",
                                          {"scope": "admin", "expires_in_s": 1})[-1]["result"]
        server.secrets.append(self.made["expired"]["token"].encode())
        client = Client(server)
        deadline = time.monotonic() + 30
        while client.ask("GET", "/v1/agents/count", self.headers("expired"))[0] != 401:
            assert time.monotonic() < deadline, "the token does not expire"
            time.sleep(0.1)

    def headers(self, who):
        if who == "none":
            return {}
        if who == "bad":
            return bearer("memfs_" + "0" * 43)
        return bearer(self.made[who]["token"])


def read_routes(server):
    """[(method, pattern, access)] as the program prints them."""
    rows = [line.split("\t") for line in
            server.cli("debug", "routes", home=False).stdout.decode().splitlines()]
    assert len(rows) > 30 and all(len(row) == 4 for row in rows)
    return [tuple(row[:3]) for row in rows]


def is_git(pattern):
    return pattern.rsplit("/", 1)[-1] in ("refs", "git-upload-pack", "git-receive-pack")


class Matrix:
    principals = ["none", "bad", "revoked", "expired", "admin", "rw", "ro", "new"]

    def __init__(self, world):
        self.world, self.client = world, Client(world.server)
        self.routes = read_routes(world.server)
        self.faults, self.n = [], 0

    # -- one request ---------------------------------------------------------------------------------

    def targets(self, pattern):
        """(whose, id, target) for each id that a pattern may be asked with."""
        w = self.world
        agents = [("own", w.own), ("other", w.other), ("third", w.third), ("unknown", w.unknown),
                  ("bad", "agent-1"), ("bad", w.own + "0"), ("bad", "%2E%2E")]
        blocks = [("own", w.own_block), ("other", w.other_block), ("unknown", w.unknown_block),
                  ("bad", "block-1")]
        if "{agent}" in pattern:
            ids = [(whose, name, pattern.replace("{agent}", name)) for whose, name in agents]
        elif "{id}" in pattern:
            ids = [(whose, name, pattern.replace("{id}", name)) for whose, name in blocks]
        else:
            ids = [("", "", pattern)]
        for whose, name, target in ids:
            target = target.replace("{label...}", "system/human").replace("{kind}", "gitea")
            target = target.replace("{commit}", GENESIS)    # in the history of every memory
            if pattern.endswith("/info/refs"):
                for service in ("git-upload-pack", "git-receive-pack"):
                    yield whose, name, f"{target}?service={service}"
            elif pattern == "/v1/search":
                for where in ("current", "history"):    # every memory has these words
                    yield whose, name, f"{target}?q=of+agent&in={where}"
            else:
                yield whose, name, target

    def ask_one(self, method, target, who):
        last = target.rsplit("/", 1)[-1]
        headers = dict(self.world.headers(who))
        body = b"" if method in ("POST", "PUT", "PATCH") else None
        if last in TYPES and method == "POST":
            headers["Content-Type"] = TYPES[last]
            body = b"0000"      # git's own probe: nothing is fetched or pushed
        self.n += 1
        return self.client.ask(method, target, headers, body)

    # -- the rules -------------------------------------------------------------------------------------

    @staticmethod
    def is_writing(method, target):
        if "/info/refs?" in target:
            return target.endswith("git-receive-pack")
        return method not in ("GET", "HEAD") and not target.endswith("/git-upload-pack")

    def verdict(self, access, method, target, whose, who):
        if access in ("open", "hook"):
            return None
        if access == "peer" or who in ("none", "bad", "revoked", "expired"):
            return 401
        if who == "admin":
            return None
        mine = "third" if who == "new" else "own"
        if access == "agent" and whose != mine:
            return 404
        if access not in ("agent", "all"):
            return 403
        return 403 if who == "ro" and self.is_writing(method, target) else None

    # -- all of them -----------------------------------------------------------------------------------

    def fault(self, method, target, who, text):
        self.faults.append(f"{method} {target} as {who}: {text}")

    def judge(self, access, method, pattern, whose, name, target, answers):
        w, admin = self.world, answers["admin"]
        for who, (status, headers, data) in answers.items():
            want = self.verdict(access, method, target, whose, who)
            if want is None:
                if status in (401, 403) and access != "hook":
                    self.fault(method, target, who, f"refused with {status}")
                if access == "all" and who in ("rw", "ro", "new") and whose != "other" and any(
                        foreign.encode() in data for foreign in (w.other, w.other_block)):
                    self.fault(method, target, who, "it tells of another agent")
                if access == "agent" and (status, headers, data) != admin:
                    self.fault(method, target, who, f"{status} is not what an admin gets")
                continue
            if status != want:
                self.fault(method, target, who, f"{status}, not {want}: {data[:100]!r}")
                continue
            if want == 401 and (headers.get("www-authenticate") !=
                                (BASIC if is_git(pattern) else BEARER)):
                self.fault(method, target, who, "another WWW-Authenticate")
            if want == 401 and (status, headers, data) != answers["none"]:
                self.fault(method, target, who, "not the bytes of a request without a token")
            if want == 404 and method != "HEAD" and whose != "bad" and json.loads(data) != {
                    "detail": f"Agent with ID {name} not found"}:
                self.fault(method, target, who, f"not the words of an unknown agent: {data!r}")

    def compare(self, method, pattern, who, by_whose):
        """S1: the answer about somebody else's equals that about what nobody has."""
        for (whose, target), (name, status, headers, data) in by_whose.items():
            if whose != "other":
                continue
            twin = [v for (other, t), v in by_whose.items()
                    if other == "unknown" and t.replace(v[0], name) == target]
            (unknown, *rest), = twin
            rest[2] = rest[2].replace(unknown.encode(), name.encode())
            if [status, headers, data] != rest:
                self.fault(method, target, who, f"there: {status} {headers} {data[:200]!r}, "
                                                f"not there: {rest[0]} {rest[1]} {rest[2][:200]!r}")

    def ask(self):
        patterns = {}
        for method, pattern, access in self.routes:
            patterns.setdefault(pattern, {})[method] = access
        for pattern, known in patterns.items():
            for method in METHODS:
                access = known.get("GET" if method == "HEAD" else method)
                self.ask_pattern(pattern, method, access, set(known.values()) == {"owner"})
        return self

    def ask_pattern(self, pattern, method, access, is_owners):
        by_who = {who: {} for who in ("rw", "ro")}
        for whose, name, target in self.targets(pattern):
            answers = {who: self.ask_one(method, target, who) for who in self.principals}
            for who in by_who:
                by_who[who][whose, target] = (name, *answers[who])
            if "%2E" in target:     # no id at all: refused before anybody is asked who he is
                if any(a[0] != 400 for a in answers.values()):
                    self.fault(method, target, "anybody", "a dot segment was not refused")
            elif is_owners or access is None:
                want = 404 if is_owners else 405
                for who, answer in answers.items():
                    if answer[0] != want or answer != answers["none"]:
                        self.fault(method, target, who, f"{answer[0]}, not {want} as for anybody")
            else:
                self.judge(access, method, pattern, whose, name, target, answers)
        if "{agent}" in pattern or "{id}" in pattern:
            for who, by_whose in by_who.items():
                self.compare(method, pattern, who, by_whose)
