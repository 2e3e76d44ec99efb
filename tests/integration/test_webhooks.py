"""POST /webhooks (T22, F26): hosts that say that something moved, and strangers who say so too.

The senders are lib/githost.py's peers: payloads, headers and proofs as Gitea, Forgejo, GitHub and GitLab send
them.  The remote is polled once an hour here, so whatever arrives, arrives by a webhook; and every look at the
remote is a request that the host counts.
"""
import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import threading
import time

import pytest

from lib.fleet import FleetServer
from lib.githost import GitHost
from lib.http import connect, request
from lib.patience import wait
from lib.server import new_agent
from lib.writer import Memory

SIGNING = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Place:
    """A host with a group `agents`, a server whose remote it is, and one agent that both have."""

    def __init__(self, make, folder, kind, secret="a webhook's secret", poll=3600, **options):
        self.host = GitHost(folder / ("host-" + kind), kind, **options)
        self.host.account("bot")
        self.host.group("agents", bot="owner")
        self.token, self.kind, self.secret = self.host.token("bot"), kind, secret
        self.s = make(start=False)
        self.token_file = self.s._secret_file("token", self.token)
        self.secret_file = self.s._secret_file("webhook", secret) if secret else None
        self.settings = {"url": self.host.url("agents/{agentId}.git"), "kind": kind, "create": "true",
                         "poll": poll, "tokenFile": self.token_file, "webhookSecretFile": self.secret_file}
        self.s.configure(origin=self.settings)
        self.s.start()
        self.agent = new_agent()
        self.memory = Memory(self.s, self.agent)
        self.memory.must_push({"system/human.md": "first\n"})
        self.full = "agents/" + self.agent
        wait(lambda: self.full in self.host.state["repos"] and self.host.tip(self.full) == self.memory.tip,
             "the first push is on the host")
        self.quiet()

    def hook(self, path="/webhooks", full=None, secret=None, **more):
        self.host.hook(full or self.full, self.s.url + path, secret or self.secret or "x", **more)

    def looks(self):
        """How often the host was asked what is there, or sent something, by git."""
        return sum("/info/refs" in r.target for r in list(self.host.requests))

    def quiet(self, seconds=0.5):
        """The number of looks, once it has stayed the same for a while."""
        seen, since = self.looks(), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.05)
            if self.looks() != seen:
                seen, since = self.looks(), time.monotonic()
        return seen

    def has(self, text, label="human"):
        answer = self.s.block(self.agent, "system/" + label)
        return answer.status == 200 and answer.json()["value"].strip() == text

    def delivery(self, text="by hook"):
        """An edit on the host whose webhook is caught instead of sent: (headers, body)."""
        caught = []
        sender = self.host.hooks_lost
        self.host.hooks_lost = True
        from lib import githost_hooks
        make = githost_hooks.make
        githost_hooks.make = lambda *a: caught.append(make(*a)) or caught[-1]
        try:
            self.hook()
            self.host.edit(self.full, {"system/human.md": text + "\n"})
        finally:
            githost_hooks.make = make
            self.host.hooks_lost = sender
            with self.host.changing() as state:
                state["repos"][self.full]["hooks"].clear()
        pushes = [d for d in caught if d.event in ("push", "Push Hook")]
        return dict(pushes[-1].headers), pushes[-1].body

    def send(self, headers, body, path="/webhooks"):
        return request(self.s.port, "POST", path, body, headers)


@pytest.fixture
def place(memfs_bin, folder):
    made, hosts = [], []

    def server(name="s", start=True, **kw):
        made.append(FleetServer(memfs_bin, folder / f"{name}{len(made)}", **kw))
        return made[-1].start() if start else made[-1]

    def make(kind="gitea", **options):
        p = Place(server, folder, kind, **options)
        hosts.append(p.host)
        return p

    yield make
    faults = []
    for s in made:
        try:
            s.stop()
            s.check_clean()
        except Exception as e:
            faults.append(e)
        finally:
            s.close()
    for h in hosts:
        h.stop()
    if faults:
        raise faults[0]


def signed(p, body, event="push", **more):
    """The head of a GitHub delivery."""
    mac = hmac.new(p.secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-GitHub-Event": event, "X-Hub-Signature-256": "sha256=" + mac,
            "Content-Type": "application/json", **more}


def push_body(p, full=None, after="9" * 40, clone=None, ref="refs/heads/main"):
    clone = clone or p.host.url((full or p.full) + ".git")
    return json.dumps({"ref": ref, "before": "0" * 40, "after": after,
                       "repository": {"clone_url": clone, "full_name": full or p.full}}).encode()


# ---- heard

@pytest.mark.parametrize("kind,secret,how", [
    ("gitea", "s3cret of gitea", {}), ("gitea", "s3cret of gitea", {"form": True}),
    ("forgejo", "s3cret of forgejo", {}), ("github", "s3cret of github", {}),
    ("github", "s3cret of github", {"form": True}), ("gitlab", "s3cret of gitlab", {}),
    ("gitlab", SIGNING, {}),
])
def test_T22_every_host_is_heard(place, kind, secret, how):
    p = place(kind, secret=secret)
    p.hook("/webhooks/" + kind, **how)
    p.hook("/webhooks", **how)
    p.host.edit(p.full, {"system/human.md": "edited there\n"})
    wait(lambda: p.has("edited there"), "the edit is a block")
    p.host.settle()
    assert p.host.deliveries and {d.status for d in p.host.deliveries} == {202}, p.host.deliveries
    assert {bytes(d.answer) for d in p.host.deliveries} == {b'{"accepted":true}'}
    # and a branch that is deleted there comes back, as nothing here is lost by it
    p.host.delete_branch(p.full)
    wait(lambda: p.host.tip(p.full) == p.s.tip(p.agent), "main is back on the host")


def test_F26_own_pushes_that_come_back_ask_nothing(place):
    p = place()
    p.hook()
    p.memory.must_push({"system/human.md": "pushed here\n"})
    wait(lambda: p.host.tip(p.full) == p.memory.tip, "the push is mirrored")
    p.host.settle()
    looks = p.quiet()
    delivery = [d for d in p.host.deliveries if d.event == "push"][-1]
    assert delivery.status == 202
    p.host.redeliver(delivery)
    p.host.settle()
    assert p.quiet() == looks


def test_F26_ten_thousand_replays_cause_one_fetch(place):
    """Replayed with the id they came with, and with new ids, which are not signed."""
    p = place()
    headers, body = p.delivery("once")
    before = p.quiet()
    asked = len(p.host.requests)
    statuses, lock = {}, threading.Lock()

    def replay(n, begin):
        connection = http.client.HTTPConnection("127.0.0.1", p.s.port, timeout=60)
        for i in range(n):
            head = dict(headers)
            if i % 2:
                head["X-Gitea-Delivery"] = f"{begin}-{i}"
            connection.request("POST", "/webhooks/gitea", body, head)
            answer = connection.getresponse()
            answer.read()
            with lock:
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
        connection.close()

    threads = [threading.Thread(target=replay, args=(2500, k)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert statuses == {202: 10000}
    wait(lambda: p.has("once"), "the edit is a block")
    p.quiet()
    came = list(p.host.requests)[asked:]
    assert sum(b"command=fetch" in r.body for r in came) == 1, [(r.method, r.target) for r in came]
    # one look of memfs, and what a git child asks before it fetches: with and without its credential
    assert p.looks() - before <= 5, [(r.method, r.target) for r in came]
    settled = len(p.host.requests)
    assert p.send(headers, body).status == 202
    p.quiet()
    assert len(p.host.requests) == settled


def test_F26_early_late_and_missing_hooks_end_in_the_same_state(place):
    p = place(poll=2)
    p.hook()
    p.host.hooks_lost = True
    p.host.edit(p.full, {"system/human.md": "not told\n"})
    wait(lambda: p.has("not told"), "the poll finds what no webhook told")
    p.host.hooks_lost, p.host.hooks_delay_s = False, 1
    p.host.edit(p.full, {"system/human.md": "told late\n"})
    p.host.edit(p.full, {"system/human.md": "told later\n"})
    wait(lambda: p.has("told later"), "the newest wins")
    p.host.settle()
    p.quiet()
    assert p.has("told later") and p.host.tip(p.full) == p.s.tip(p.agent)


# ---- not heard

def test_T22_forgeries_are_refused_alike_and_cost_nothing(place):
    p = place("github")
    body = push_body(p)
    good = signed(p, body)
    mac = good["X-Hub-Signature-256"]
    bad = {
        "no signature": {k: v for k, v in good.items() if k != "X-Hub-Signature-256"},
        "empty": {**good, "X-Hub-Signature-256": ""},
        "wrong digest": {**good, "X-Hub-Signature-256": mac[:-1] + ("0" if mac[-1] != "0" else "1")},
        "short": {**good, "X-Hub-Signature-256": mac[:-2]},
        "sha1 only": {**good, "X-Hub-Signature-256": "", "X-Hub-Signature": "sha1=" + "0" * 40},
        "upper case prefix": {**good, "X-Hub-Signature-256": "SHA256=" + mac[7:]},
        "secret of nobody": {**good, "X-Hub-Signature-256": "sha256=" + hmac.new(
            b"guess", body, hashlib.sha256).hexdigest()},
        "as gitlab's token": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "guess"},
        "as gitlab, no token": {"X-Gitlab-Event": "Push Hook"},
        "gitea": {"X-Gitea-Event": "push", "X-Gitea-Signature": "0" * 64},
    }
    before, requests = p.quiet(), len(p.host.requests)
    seen = set()
    for name, head in bad.items():
        answer = p.send(head, body)
        assert answer.status == 401, (name, answer)
        seen.add((answer.body, answer.headers.get("content-type")))
    altered = p.send(good, body.replace(b"main", b"mean"))
    seen.add((altered.body, altered.headers.get("content-type")))
    assert altered.status == 401 and len(seen) == 1, seen
    assert p.quiet() == before and len(p.host.requests) == requests
    assert p.send(good, body).status == 202
    wait(lambda: len(p.host.requests) > requests, "the true one is heard")


def test_T22_a_signed_delivery_is_too_old_after_five_minutes(place):
    p = place("gitlab", secret=SIGNING)
    body = json.dumps({"object_kind": "push", "event_name": "push", "ref": "refs/heads/main",
                       "project": {"git_http_url": p.host.url(p.full + ".git")}}).encode()

    def head(at, key=bytes(range(32)), token=None):
        stamp = str(int(at))
        mac = hmac.new(key, f"id-{stamp}.{stamp}.".encode() + body, hashlib.sha256).digest()
        found = {"X-Gitlab-Event": "Push Hook", "webhook-id": "id-" + stamp, "webhook-timestamp": stamp,
                 "webhook-signature": "v1,xxxx v1," + base64.b64encode(mac).decode()}
        return {**found, "X-Gitlab-Token": token} if token else found

    now = time.time()
    assert p.send(head(now - 400), body).status == 401
    assert p.send(head(now + 400), body).status == 401
    assert p.send(head(now, key=b"x" * 32), body).status == 401
    assert p.send(head(now - 400, token=SIGNING), body).status == 401, "never the token then"
    assert p.send(head(now - 200), body).status == 202


def test_T22_other_hosts_and_unknown_repositories_look_alike_and_cause_nothing(place):
    p = place("github")
    known = push_body(p)
    first = p.send(signed(p, known), known)
    p.quiet()
    before = len(p.host.requests)
    port = p.host.port
    for name, body in {
        "wrong host": push_body(p, clone=f"https://evil.example.com/agents/{p.agent}.git"),
        "wrong port": push_body(p, clone=f"http://127.0.0.1:{port + 1}/agents/{p.agent}.git"),
        "other group": push_body(p, full="others/" + p.agent),
        "no agent": push_body(p, full="agents/readme"),
        "path tricks": push_body(p, full="agents/../agents/x"),
        "a tag": push_body(p, ref="refs/tags/v1"),
        "nothing": b"{}",
    }.items():
        answer = p.send(signed(p, body), body)
        assert (answer.status, answer.body) == (first.status, first.body) == (202, b'{"accepted":true}'), name
    ping = json.dumps({"zen": "z", "hook_id": 1, "hook": {}, "repository": {
        "clone_url": p.host.url(p.full + ".git")}}).encode()
    assert p.send(signed(p, ping, "ping"), ping).status == 202
    p.quiet()
    assert len(p.host.requests) == before


def test_T22_what_cannot_be_read_is_said_only_to_who_has_the_secret(place):
    p = place("github")
    for body in (b"", b"[]", b'{"ref":', b"\xff\x00{}", b'{"a":1}x'):
        assert p.send(signed(p, body), body).status == 400, body
        assert p.send({**signed(p, body), "X-Hub-Signature-256": "sha256=" + "0" * 64}, body).status == 401
    assert p.send({"Content-Type": "application/json"}, b"{}").status == 400   # nobody knows who sends
    form = b"other=1"
    head = {**signed(p, form), "Content-Type": "application/x-www-form-urlencoded"}
    assert p.send(head, form).status == 400
    for kind in ("bitbucket", "plain", "unknown", "gitea%2Fx"):
        assert p.send(signed(p, b"{}"), b"{}", "/webhooks/" + kind).status in (400, 404)
    assert p.send(signed(p, b"{}"), b"{}", "/webhooks/bitbucket").status == 404
    assert p.send(signed(p, b"{}"), b"{}", "/webhooks/gitlab").status == 400   # GitHub's heads there
    assert request(p.s.port, "GET", "/webhooks").status == 405


# ---- secrets

def test_T22_without_a_secret_webhooks_are_off_and_say_how_to_switch_them_on(place):
    p = place("github", secret=None)
    p.secret = "any"
    answer = p.send(signed(p, b"{}"), b"{}")
    assert answer.status == 403 and "MEMFS_WEBHOOK_SECRET_FILE" in answer.detail
    path = os.path.join(p.s.home, "secrets", "webhook")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write("first\nany\r\n")       # two: one that goes, one that comes
    assert p.send(signed(p, b"{}"), b"{}").status == 202      # at once, without a restart
    p.secret = "first"
    assert p.send(signed(p, b"{}"), b"{}").status == 202
    with open(path, "w") as f:
        f.write("another\n")
    assert p.send(signed(p, b"{}"), b"{}").status == 401
    os.chmod(path, 0o644)
    p.secret = "another"
    assert p.send(signed(p, b"{}"), b"{}").status == 403
    lines = [x for x in p.s.log().splitlines() if "event=webhook_secret_unusable" in x]
    assert len(lines) == 1 and "0644" in lines[0] and "another" not in lines[0]


def test_T22_the_secret_of_one_remote_speaks_for_that_remote_alone(place, folder):
    p = place("github")
    other = GitHost(folder / "second", "github")
    try:
        other.account("bot")
        other.group("agents", bot="owner")
        p.s.configure(origin=p.settings, second={
            **p.settings, "url": other.url("agents/{agentId}.git"),
            "tokenFile": p.s._secret_file("token2", other.token("bot")),
            "webhookSecretFile": p.s._secret_file("webhook2", "of the second")})
        p.s.restart()
        wait(lambda: p.full in other.state["repos"] and other.tip(p.full) == p.memory.tip, "a second copy")
        p.quiet()
        time.sleep(0.5)
        body = push_body(p, clone=other.url(p.full + ".git"))
        asked, before = len(other.requests), p.quiet()
        assert p.send(signed(p, body), body).status == 202          # signed by the first one's secret
        assert p.quiet() == before and len(other.requests) == asked
        p.secret = "of the second"
        assert p.send(signed(p, body), body).status == 202
        wait(lambda: len(other.requests) > asked, "the second host is asked")
    finally:
        other.stop()


# ---- sizes

def test_T22_a_large_delivery_is_taken_and_a_larger_one_is_not(place):
    p = place("github")
    filler = json.dumps([{"id": "0" * 40, "message": "m" * 1000}] * 20000)
    p.host.edit(p.full, {"system/human.md": "many commits\n"})
    body = (b'{"commits":' + filler.encode() + b"," + push_body(p)[1:])
    assert 20 << 20 < len(body) < 26 << 20
    assert p.send(signed(p, body), body).status == 202
    wait(lambda: p.has("many commits"), "the edit is a block")
    with connect(p.s.port) as c:      # its head is enough
        c.sendall((f"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: {(26 << 20) + 1}\r\n" + "".join(
            f"{k}: {v}\r\n" for k, v in signed(p, b"").items()) + "\r\n").encode())
        assert c.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_T22_large_deliveries_that_drip_hold_no_more_than_their_places(place):
    """Two may be held; a third is told to come back, a small one goes through (L1)."""
    p = place("github")
    held = []
    size = 8 << 20
    try:
        for _ in range(2):
            c = http.client.HTTPConnection("127.0.0.1", p.s.port, timeout=60)
            c.putrequest("POST", "/webhooks/github")
            for k, v in {**signed(p, b"x"), "Content-Length": str(size)}.items():
                c.putheader(k, v)
            c.endheaders()
            c.send(b" " * (size - 1024))
            held.append(c)
        time.sleep(1)
        body = b" " * size
        third = p.send(signed(p, body), body)
        assert third.status == 503 and int(third.headers["retry-after"]) > 0, third
        small = push_body(p)
        assert p.send(signed(p, small), small).status == 202
    finally:
        for c in held:
            c.close()
    wait(lambda: p.send(signed(p, body), body).status == 400, "the places are free again")


# ---- the operator

@pytest.mark.parametrize("kind", ["gitea", "forgejo", "github", "gitlab"])
def test_webhook_add_makes_a_hook_once_and_it_works(place, kind):
    p = place(kind, secret=None)
    url = p.s.url + "/webhooks"
    done = p.s.cli("webhook", "add", "--agent", p.agent, "--url", url, "--json")
    kinds = [f["kind"] for f in json.loads(done.stdout)["findings"]]
    assert kinds == ["secret-made", "hook-added"], done.stdout
    path = os.path.join(p.s.home, "secrets", "webhook")
    assert os.stat(path).st_mode & 0o777 == 0o600
    secret = open(path, encoding="ascii").read().strip()
    assert re.fullmatch("[0-9a-f]{64}", secret) and secret.encode() not in done.stdout + done.stderr
    again = json.loads(p.s.cli("webhook", "add", "--all", "--url", url, "--json").stdout)
    assert [f["kind"] for f in again["findings"]] == ["hook-there"], again
    assert len(p.host.state["repos"][p.full]["hooks"]) == 1
    assert p.host.state["repos"][p.full]["hooks"][0]["secret"] == secret
    p.host.edit(p.full, {"system/human.md": "by its own hook\n"})
    wait(lambda: p.has("by its own hook"), "the edit is a block")
    assert secret not in p.s.log()


def test_webhook_add_says_what_is_wrong(place):
    p = place("gitea")
    url = p.s.url + "/webhooks"
    weak = p.host.token("weak", scopes=["read:repository"])
    p.host.repository(p.full, weak="read")
    p.s._secret_file("token", weak)
    done = p.s.cli("webhook", "add", "--agent", p.agent, "--url", url, "--json", check=False)
    assert done.returncode == 1
    finding = json.loads(done.stdout)["findings"][0]
    assert finding["kind"] == "hook-failed" and finding["what"] == "origin" and finding["text"]
    assert weak.encode() not in done.stdout + done.stderr
    for args in (["--url", url], ["--agent", p.agent], ["--agent", "x", "--url", url],
                 ["--all", "--agent", p.agent, "--url", url]):
        assert p.s.cli("webhook", "add", *args, check=False).returncode == 2, args
    bad = p.s.cli("webhook", "add", "--all", "--url", "ftp://x/y", check=False)
    assert bad.returncode == 2 and b"https" in bad.stderr
    gone = p.s.cli("webhook", "add", "--all", "--url", url, "--remote", "nobody", check=False)
    assert gone.returncode == 1 and b"nobody" in gone.stderr
    p.s.cli("mirror", "remove", "origin")
    none = p.s.cli("webhook", "add", "--all", "--url", url, check=False)
    assert none.returncode == 1 and b"no remote is read here" in none.stderr


def test_webhook_test_shows_that_the_configuration_works(place):
    p = place("gitea")
    for url in ([], ["--url", p.s.url + "/webhooks"], ["--url", p.s.url + "/webhooks/gitlab"]):
        done = json.loads(p.s.cli("webhook", "test", "--json", *url).stdout)
        assert [f["kind"] for f in done["findings"]] == ["accepted"] and done["failed"] == 0, done
    bad = p.s.cli("webhook", "test", "--json", "--url", p.host.url("webhooks"), check=False)
    assert bad.returncode == 1 and b"not-accepted" in bad.stdout
    p.s.stop()      # also without a server: the command is its own
    assert json.loads(p.s.cli("webhook", "test", "--json").stdout)["findings"][0]["kind"] == "accepted"
    os.unlink(p.secret_file)
    none = p.s.cli("webhook", "test", check=False)
    assert none.returncode == 1 and b"no webhook secret" in none.stderr
