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
OF_AGENT, OF_REPOSITORY = ("rw", "ro", "new"), ("repo-rw", "repo-ro")
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
    """Agents A and B with memories, C without one, and a token of each kind; shared repositories that A has a link to
    (for writing: "own", for reading: "read"), and one that only B has."""

    def __init__(self, server):
        self.server = server
        self.own, self.other, self.third = new_agent(), new_agent(), new_agent()
        self.unknown, self.unknown_block = new_agent(), f"block-{uuid.uuid4()}"
        for agent in (self.own, self.other):
            m = Memory(server, agent)
            m.must_push({"system/human.md": f"of {agent}\n", "notes.md": "a note\n"})
            m.close()
            whose = "own" if agent == self.own else "other"
            self.tag(server, f"/v1/agents/{agent}", whose + "-agent-tag")
            self.tag(server, f"/v1/agents/{agent}/core-memory/blocks/notes", whose + "-block-tag")
        self.repos = {whose: self.make_repo(server, whose + "-notes") for whose in ("own", "read", "other")}
        self.link(server, self.own, self.repos["own"])
        self.link(server, self.own, self.repos["read"], "read")
        self.link(server, self.other, self.repos["other"])
        self.repos["unknown"] = f"repo-{uuid.uuid4()}"
        self.own_block = server.value_id(self.own, "system/human")
        self.other_block = server.value_id(self.other, "system/human")
        self.twins = {self.other: self.unknown, self.other_block: self.unknown_block,
                      self.repos["other"]: self.repos["unknown"]}
        self.made = {
            "admin": server.token("admin"),
            "rw": server.token(f"agent:{self.own}:rw"),
            "ro": server.token(f"agent:{self.own}:ro"),
            "new": server.token(f"agent:{self.third}:rw"),
            "repo-rw": server.token(f"repo:{self.repos['own']}:rw"),
            "repo-ro": server.token(f"repo:{self.repos['own']}:ro"),
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

    @staticmethod
    def make_repo(server, name):
        answer = server.request("POST", "/v1/repositories", json.dumps({"name": name}))
        assert answer.status == 200, answer
        return answer.json()["id"]

    @staticmethod
    def tag(server, target, tag):
        answer = server.request("PATCH", target, json.dumps({"tags": [tag]}))
        assert answer.status == 200, answer

    @staticmethod
    def link(server, agent, repo, permissions="read_write", headers=None):
        body = {"repository_id": repo, "permissions": permissions}
        answer = server.request("POST", f"/v1/agents/{agent}/repositories", json.dumps(body), headers)
        assert answer.status == 200, answer

    def foreign_to(self, who):
        """What a list must not tell of."""
        agents, repos = [self.own, self.own_block, "own-agent-tag", "own-block-tag"], self.repos
        foreign = [self.other, self.other_block, repos["other"], "other-notes", "other-agent-tag", "other-block-tag"]
        if who == "new" or who in OF_REPOSITORY:
            foreign += [*agents, repos["read"], "read-notes"]
        return foreign + ([repos["own"], "own-notes"] if who == "new" else [])

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
    principals = ["none", "bad", "revoked", "expired", "admin", *OF_AGENT, *OF_REPOSITORY]

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
        agents += [("repo " + whose, repo) for whose, repo in w.repos.items() if whose != "read"]
        blocks = [("own", w.own_block), ("other", w.other_block), ("unknown", w.unknown_block),
                  ("bad", "block-1")]
        own_repo = w.repos["own"]
        if "{agent}" in pattern:
            pattern = pattern.replace("{repository}", own_repo)
            ids = [(whose, name, pattern.replace("{agent}", name)) for whose, name in agents]
            if "{name}" in pattern:
                ids = [(f"{whose}, {link}", name, target.replace("{name}", link + "-notes.git"))
                       for whose, name, target in ids[:4] for link in w.repos]
        elif "{repository}" in pattern:
            pattern = pattern.replace("{id}", "0" * 40)
            repos = [*w.repos.items(), ("bad", "repo-1"), ("bad", own_repo + "0")]
            ids = [(whose, name, pattern.replace("{repository}", name)) for whose, name in repos]
        elif "{id}" in pattern:
            ids = [(whose, name, pattern.replace("{id}", name)) for whose, name in blocks]
        else:
            ids = [("", "", pattern)]
        for whose, name, target in ids:
            target = target.replace("{label...}", "system/human").replace("{kind}", "gitea")
            target = target.replace("{commit}", GENESIS)    # in the history of every memory
            if "/attach/" in target or "/detach/" in target:
                target = target.replace("{id}", w.own_block if "/attach/" in target else w.unknown_block)
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
        body = {"POST": b"", "PUT": b"", "PATCH": b"{}"}.get(method)
        if method in ("PATCH", "DELETE"):
            headers["If-Match"] = '"stale"'     # so what is there is found, and stays
        if last in TYPES and method == "POST":
            headers["Content-Type"] = TYPES[last]
            body = b"0000"      # git's own probe: nothing is fetched or pushed
        self.n += 1
        answer = self.client.ask(method, target, headers, body)
        if method == "DELETE" and answer[0] == 200:
            self.undo(target)
        return answer

    def undo(self, target):
        """What an admin deleted or detached is wanted again: the next request is about the same world."""
        server, admin, at = self.world.server, self.world.headers("admin"), target.rstrip("/").split("/")
        if len(at) == 4:
            answer = server.request("POST", "/".join(at) + "/restore", "", admin)
            assert answer.status == 200, answer
        else:
            self.world.link(server, at[3], at[5], headers=admin)

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
        is_refused = who in ("ro", "repo-ro") and self.is_writing(method, target)
        if access == "agent":
            mine = {"new": "third", "repo-rw": "repo own", "repo-ro": "repo own"}.get(who, "own")
            return 404 if whose.partition(",")[0] != mine else 403 if is_refused else None
        if access == "all":
            return 403 if is_refused or (who == "repo-rw" and self.is_writing(method, target)) else None
        if access != "shared":
            return 403
        if who in OF_REPOSITORY and whose != "own":
            return 404
        return 403 if is_refused else self.by_link(method, target, whose if who != "new" else "other")

    def by_link(self, method, target, link):
        """What a link decides; own: for writing, read: for reading, any other: there is none."""
        if link == "read" and self.is_writing(method, target):
            return 403
        return None if link in ("own", "read") else 404

    def wanted(self, access, method, target, whose, who):
        """(status or None, whether it is because of a link): git below an agent's id is held to its links, whoever asks."""
        want = self.verdict(access, method, target, whose, who)
        if want is not None or "," not in whose:
            return want, access == "shared"
        links = {"own, own": "own", "own, read": "read", "other, other": "own"}
        return self.by_link(method, target, links.get(whose)), True

    # -- all of them -----------------------------------------------------------------------------------

    def fault(self, method, target, who, text):
        self.faults.append(f"{method} {target} as {who}: {text}")

    def judge(self, access, method, pattern, whose, name, target, answers):
        w, admin = self.world, answers["admin"]
        for who, (status, headers, data) in answers.items():
            want, is_of_link = self.wanted(access, method, target, whose, who)
            if want is None:
                if status in (401, 403) and access != "hook":
                    self.fault(method, target, who, f"refused with {status}")
                if access == "all" and who != "admin" and whose != "other" and any(
                        foreign.encode() in data for foreign in w.foreign_to(who) if foreign not in target):
                    self.fault(method, target, who, "it tells of another")
                if access in ("agent", "shared") and (status, headers, data) != admin:
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
            words = {"detail": f"Agent with ID {name} not found"}
            if is_of_link:
                words = {"message": "Repository not found", "detail": "Repository not found"}
            if want == 404 and method != "HEAD" and whose != "bad" and json.loads(data) != words:
                self.fault(method, target, who, f"not the words of what is unknown: {data!r}")

    def compare(self, method, pattern, who, by_whose):
        """S1: the answer about somebody else's equals that about what nobody has."""
        for (whose, target), (name, status, headers, data) in by_whose.items():
            if "other" not in whose:
                continue
            unknown = self.world.twins.get(name, name)
            twin = target.replace(name, unknown).replace("/other-", "/unknown-")
            _, *rest = by_whose[whose.replace("other", "unknown"), twin]
            rest[2] = rest[2].replace(unknown.encode(), name.encode())
            if [status, headers, data] != rest:
                self.fault(method, target, who, f"there: {status} {headers} {data[:200]!r}, "
                                                f"not there: {rest[0]} {rest[1]} {rest[2][:200]!r}")

    def is_covered(self, pattern, method):
        """Does a variable of another route take this path's last word?"""
        base, _, last = pattern.rpartition("/")
        return "{" not in last and any(m == method and p.rpartition("/")[0] == base and
                                       p.rpartition("/")[2] in ("{agent}", "{id}")
                                       for m, p, _ in self.routes)

    def ask(self, only=("",)):
        """only: parts of the patterns that are asked."""
        patterns = {}
        for method, pattern, access in self.routes:
            patterns.setdefault(pattern, {})[method] = access
        for pattern, known in patterns.items():     # by other methods they are labels and ids like any
            wider = None
            if pattern.endswith(("/blocks/attach/{id}", "/blocks/detach/{id}")):
                wider = pattern.rsplit("/", 2)[0] + "/{label...}"
            elif pattern == "/v1/blocks/count":
                wider = "/v1/blocks/{id}"
            for method, access in patterns.get(wider, {}).items():
                known.setdefault(method, access)
        for pattern, known in patterns.items():
            for method in METHODS if any(part in pattern for part in only) else ():
                access = known.get("GET" if method == "HEAD" else method)
                if access is None and self.is_covered(pattern, method):
                    continue        # /v1/agents/count is an {agent} to other methods
                self.ask_pattern(pattern, method, access, set(known.values()) == {"owner"})
        return self

    def ask_pattern(self, pattern, method, access, is_owners):
        by_who = {who: {} for who in ("rw", "ro", *OF_REPOSITORY)}
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
        if any(name in pattern for name in ("{agent}", "{id}", "{repository}")):
            for who, by_whose in by_who.items():
                self.compare(method, pattern, who, by_whose)
