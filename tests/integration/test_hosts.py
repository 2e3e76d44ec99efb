"""What memfs asks of Gitea, Forgejo, GitHub and GitLab (tests/drivers/remote_driver.c is the door, lib/githost.py are
the hosts): which kind it is, repositories made and listed, rights told, webhooks added, every refusal in words that
name what is missing, and tokens that nobody but the host ever sees."""
import base64
import json
import os
import re
import subprocess
import threading
import time

import pytest

from lib.client import Home
from lib.fake_remote import FakeRemote, closed_port
from lib.gitcli import Checkout, Git
from lib.githost import GitHost
from lib.tlsgit import Authority

KINDS = ["gitea", "forgejo", "github", "gitlab"]
API = {"gitea": "/api/v1", "forgejo": "/api/v1", "github": "/api/v3", "gitlab": "/api/v4"}
A1 = "agents/agent-0f3d2c1b-8a4e-4c61-9d2f-0123456789ab"
FAMILY = ("gitea", "forgejo")
BUDGET = 20000


class Driver:
    def __init__(self, build, folder):
        self.program = os.path.join(build, "tests", "drivers", "remote-driver")
        self.folder = str(folder)
        self.env = {"PATH": "/usr/bin:/bin", "HOME": self.folder, "LC_ALL": "C.UTF-8",
                    "DRIVER_HOOK": os.path.join(build, "memfs-hook"),
                    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
        self.said = []

    def __call__(self, job, url, token, kind="unknown", *more, budget=BUDGET, **env):
        env = {**self.env, **env}
        if token is not None:
            env["DRIVER_SECRET_FILE"] = os.path.join(self.folder, "secret-%d" % threading.get_ident())
            with open(env["DRIVER_SECRET_FILE"], "w") as f:
                f.write(token)
        done = subprocess.run([self.program, "host-" + job, url, str(budget), kind, *more], env=env, text=True,
                              capture_output=True, timeout=120, stdin=subprocess.DEVNULL, cwd="/")
        assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stderr)
        self.said.append(done.stdout)
        got = json.loads(done.stdout)
        assert got["code"] == "OK" or got["words"] == got["error"], "one refusal, one wording"
        return got

    def rows(self, url, token, **kw):
        return {r["kind"]: (r["bad"], r["text"]) for r in self("report", url, token, **kw)["rows"]}


@pytest.fixture
def driver(memfs_bin, folder):
    """Whatever is done: no token is ever said (S3)."""
    d = Driver(os.path.dirname(memfs_bin), folder)
    d.tokens = []
    yield d
    for said in d.said:
        for token in d.tokens:
            assert token not in said


@pytest.fixture
def hosts(folder, driver):
    made = []

    def make(kind, **options):
        h = GitHost(folder / f"host{len(made)}", kind, **options)
        made.append(h)
        h.group("agents", bot="owner")
        return h

    yield make
    for h in made:
        driver.tokens += [t for t in h.state["tokens"] if len(t) > 8]
        h.close()


@pytest.fixture(params=KINDS)
def host(request, hosts):
    return hosts(request.param)


# -- which kind ----------------------------------------------------------------------------------------------

def test_the_kind_is_found_without_showing_the_token(driver, host):
    token = host.token("bot")
    got = driver("find", host.url(A1 + ".git"), token)
    assert got["kind"] == host.kind and got["api"] == host.url(API[host.kind])
    assert got["owner"] + "/" + got["name"] == A1
    assert got["words"] == "" and not got["is_credentials"]
    assert got["version"] == ("" if host.kind == "gitlab" else host.version)
    assert all("authorization" not in rq.headers and "private-token" not in rq.headers for rq in host.requests)
    assert all(rq.headers["user-agent"].startswith("memfs/") for rq in host.requests)


def test_a_kind_that_is_said_asks_nobody(driver, host):
    got = driver("find", host.url(A1), None, host.kind)
    assert got["kind"] == host.kind and host.requests == []


def test_gitea_below_a_prefix(driver, hosts):
    h = hosts("gitea", prefix="/git")
    t = h.token("bot")
    got = driver("create", h.url(A1 + ".git"), t)
    assert got["api"] == h.url("api/v1") and got["owner"] == "agents" and got["code"] == "OK"
    assert A1 in h.state["repos"]


def test_groups_in_groups_of_gitlab(driver, hosts):
    h = hosts("gitlab")
    h.group("agents/staging/eu")
    t = h.token("bot")
    got = driver("create", h.url("agents/staging/eu/agent-1.git"), t)
    assert got["code"] == "OK" and got["owner"] == "agents/staging/eu"
    assert "agents/staging/eu/agent-1" in h.state["repos"]
    got = driver("list", h.url("agents/staging/eu/x"), t)
    assert got["names"] == ["agent-1"]
    assert driver("list", h.url("agents/x"), t)["names"] == []


def test_gitea_that_wants_people_to_sign_in_is_known(driver, hosts):
    h = hosts("gitea", require_sign_in=True)
    got = driver("create", h.url(A1), h.token("bot"))
    assert got["kind"] == "gitea" and got["code"] == "OK"


@pytest.mark.parametrize("answer", [None, "404", "html", "captive", "401", "dumb"])
def test_whoever_is_none_of_them_is_plain(driver, folder, answer):
    with FakeRemote(folder / "plain") as r:
        r.say(answer)
        got = driver("find", r.url("o/r.git"), "canary-plain-token")
        assert got["kind"] == "plain" and got["code"] == "OK"
        assert "authorization" not in str([rq.headers for rq in r.requests]).lower()
        refused = driver("create", r.url("o/r.git"), None)
        assert refused["code"] == "EINVALID" and "no API that memfs knows" in refused["words"]


# -- create --------------------------------------------------------------------------------------------------

def test_a_repository_is_made_private_and_empty(driver, host):
    t = host.token("bot")
    got = driver("create", host.url(A1 + ".git"), t)
    assert got["code"] == "OK" and got["status"] == 201
    made = host.state["repos"][A1]
    assert made["private"] and host.tip(A1) is None
    assert host.git(A1, "symbolic-ref", "HEAD").stdout.strip() == b"refs/heads/main"


def test_in_the_tokens_own_account(driver, host):
    t = host.token("bot")
    assert driver("create", host.url("bot/agent-1.git"), t)["code"] == "OK"
    assert "bot/agent-1" in host.state["repos"]


def test_D4_one_that_is_there_is_as_good(driver, host):
    t = host.token("bot")
    host.repository(A1)
    tip = host.edit(A1, {"a.md": "x"})
    got = driver("create", host.url(A1), t)
    assert got["code"] == "OK" and got["status"] in (400, 409, 422)
    assert host.tip(A1) == tip


SCOPES = [
    ("gitea", ["write:repository", "read:user"], "write:organization", A1),
    ("forgejo", ["write:organization", "read:user"], "write:repository", A1),
    ("gitea", ["write:repository", "read:user"], "write:user", "bot/a"),
    ("gitea", ["write:repository", "write:organization"], None, A1),    # whose it is need not be known
    ("github", [], "the scope repo", "bot/a"),
    ("github", ["contents:write", "metadata:read"], "the permission administration=write", A1),
    ("gitlab", ["read_api", "write_repository"], "the scope api", A1),
    ("gitlab", ["read_repository", "write_repository"], "the scope api", A1),
]


@pytest.mark.parametrize("kind,scopes,lacks,path", SCOPES)
def test_F15_the_right_that_is_missing_is_named(driver, hosts, kind, scopes, lacks, path):
    h = hosts(kind)
    got = driver("create", h.url(path), h.token("bot", scopes=scopes))
    if lacks is None:
        assert got["code"] == "OK"
        return
    assert got["code"] in ("EDENIED", "ENOTFOUND") and got["is_credentials"]
    assert f"the token lacks {lacks}" in got["words"] and path not in h.state["repos"]


@pytest.mark.parametrize("kind", KINDS)
def test_F15_owners_that_are_not_there_or_not_open(driver, hosts, kind):
    h = hosts(kind)
    h.group("closed", boss="owner", bot="read")
    t = h.token("bot")
    closed = driver("create", h.url("closed/a.git"), t)
    assert closed["code"] == "EDENIED" and closed["is_credentials"], closed
    assert "'closed/a'" in closed["words"] or "closed" in closed["words"]
    nowhere = driver("create", h.url("nowhere/a.git"), t)
    assert nowhere["code"] == "ENOTFOUND" and nowhere["is_missing"], nowhere
    assert "nowhere" in nowhere["words"]
    assert list(h.state["repos"]) == []


@pytest.mark.parametrize("kind", FAMILY)
def test_a_quota_is_told(driver, hosts, kind):
    h = hosts(kind, quota=0)
    got = driver("create", h.url("bot/a"), h.token("bot"))
    assert got["code"] == "EDENIED" and "maximum limit" in got["words"]


def test_a_name_that_the_host_refuses(driver, host):
    got = driver("create", host.url("agents/a%20b.git"), host.token("bot"))
    assert got["code"] == "EINVALID" and "refuses it (HTTP 4" in got["words"]


# -- tokens and hosts that fail ------------------------------------------------------------------------------

JOBS = [("create",), ("check",), ("list",), ("hook", "https://memfs.example/webhooks/x", "hook-secret-1")]


@pytest.mark.parametrize("job", JOBS, ids=lambda j: j[0])
def test_F15_a_token_that_is_wrong_expired_or_revoked(driver, host, job):
    host.repository(A1)
    expired, revoked = host.token("bot", expires="2020-01-01"), host.token("bot")
    host.revoke(revoked)
    for token in (expired, revoked, "0123456789" * 4):
        driver.tokens.append(token)
        got = driver(job[0], host.url(A1), token, host.kind, *job[1:])
        assert got["code"] == "EDENIED" and got["is_credentials"] and got["status"] == 401
        assert "the host refuses the token" in got["words"] and "HTTP 401" in got["words"]


def test_without_a_token(driver, host):
    got = driver("create", host.url(A1), None, host.kind)
    assert got["code"] == "EDENIED" and "no token is known for '127.0.0.1'" in got["words"]


@pytest.mark.parametrize("job", JOBS, ids=lambda j: j[0])
def test_F18_too_many_calls_tell_how_long_to_wait(driver, host, job):
    t = host.token("bot")
    host.limit(0, reset_s=90)
    got = driver(job[0], host.url(A1), t, host.kind, *job[1:])
    assert got["code"] == "EUNAVAIL" and not got["is_credentials"]
    assert 60 <= got["retry_after"] <= 90 and "too many calls" in got["words"]
    assert len(host.requests) == 1, "it is not asked again"


def test_F18_a_403_with_retry_after_is_no_refusal_of_the_token(driver, host):
    t = host.token("bot")
    host.fault(status=403, where="api", headers={"Retry-After": "7"})
    got = driver("create", host.url(A1), t, host.kind)
    assert got["code"] == "EUNAVAIL" and got["retry_after"] == 7


@pytest.mark.parametrize("what,words", [
    ({"status": 503, "headers": {"Retry-After": "5"}}, "fails (HTTP 503"), ({"status": 500}, "fails (HTTP 500"),
    ({"html": True}, "a web page came"), ({"status": 200, "body": b"[1,", "type": "application/json"}, "no JSON"),
    ({"cut": 40}, "unreachable"), ({"reset": 10}, "unreachable"),
], ids=["503", "500", "html", "broken", "cut", "reset"])
@pytest.mark.parametrize("job", JOBS[:2], ids=lambda j: j[0])
def test_F18_F19_a_host_that_fails(driver, hosts, what, words, job):
    h = hosts("gitea")
    h.fault(where="api", **what)
    got = driver(job[0], h.url(A1), h.token("bot"), "gitea", *job[1:])
    assert got["code"] == "EUNAVAIL" and words in got["words"] and not got["is_credentials"]
    assert got["retry_after"] == (5 if what.get("status") == 503 else 0)


@pytest.mark.parametrize("what", [{"hang": True}, {"drip": True}], ids=["hang", "drip"])
def test_F19_the_deadline_holds(driver, hosts, what):
    h = hosts("github")
    h.fault(where="api", **what)
    got = driver("create", h.url(A1), h.token("bot"), "github", budget=1500)
    assert got["code"] == "EUNAVAIL" and got["ms"] >= 1000, got


def test_F19_nobody_listens(driver):
    got = driver("check", f"http://127.0.0.1:{closed_port()}/o/r", "canary-token-1")
    assert got["code"] == "EUNAVAIL" and "connection refused" in got["words"]


def test_F20_tls_is_verified(driver, hosts, folder):
    ours, other = Authority(folder / "ours"), Authority(folder / "other")
    h = hosts("gitea", tls=ours.context())
    t = h.token("bot")
    got = driver("create", h.url(A1), t, "gitea", DRIVER_CA=other.file)
    assert got["code"] == "EUNAVAIL" and "certificate" in got["words"].lower()
    assert h.requests == []
    assert driver("create", h.url(A1), t, "gitea", DRIVER_CA=ours.file)["code"] == "OK"


def test_http_is_not_used_unless_it_may_be(driver, hosts):
    h = hosts("gitea")
    got = driver("create", h.url(A1), h.token("bot"), "gitea", DRIVER_HTTP="0")
    assert got["code"] == "EDENIED" and "not encrypted" in got["words"] and h.requests == []


def test_T09_a_token_never_follows_a_redirect(driver, host, folder):
    t = host.token("bot")
    with FakeRemote(folder / "elsewhere") as elsewhere:
        for status in (301, 302, 307, 308):
            host.mend()
            host.fault(status=status, where="api", headers={"Location": elsewhere.url("user")})
            for job in JOBS:
                got = driver(job[0], host.url(A1), t, host.kind, *job[1:])
                assert got["code"] == "EINVALID" or (got["code"] == "OK" and job[0] == "list"), got
        assert elsewhere.requests == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_S3_T24_hosts_that_say_back_what_they_got(driver, host, status):
    """The body and a header of the answer repeat the whole request, token and webhook secret."""
    token = host.token("bot", text="canary-" + host.kind + "-0123456789abcdef")
    driver.tokens += [token, "hook-secret-1"]
    host.fault(status=status, where="api", echo=True)
    for job in JOBS:
        n = len(host.requests)
        got = driver(job[0], host.url(A1), token, host.kind, *job[1:])
        assert token not in json.dumps(got) and len(host.requests) > n
        assert got["code"] != "OK" or status == 409, got


def test_T20_words_of_a_host_are_escaped_and_bounded(driver, hosts):
    h = hosts("github")
    body = json.dumps({"message": "\x1b[2J\r\nfake: line \u202e" + "x" * 5000}).encode()
    h.fault(status=422, where="api", body=body)
    got = driver("create", h.url(A1), h.token("bot"), "github")
    assert got["code"] == "EINVALID"
    assert len(got["words"]) < 300 and all(" " <= c and c != "\u202e" for c in got["words"])


def test_L1_an_answer_without_end_is_bounded(driver, hosts):
    h = hosts("gitea")
    h.fault(status=200, where="api", type="application/json", body=b"[" + b"0," * (5 << 20))
    got = driver("create", h.url(A1), h.token("bot"), "gitea")
    assert got["code"] == "EUNAVAIL" and "larger than 8 MiB" in got["words"]


# -- check ---------------------------------------------------------------------------------------------------

def test_check_of_a_token_that_may_everything(driver, host):
    host.repository(A1)
    got = driver("check", host.url(A1), host.token("bot", expires="2099-01-31"))
    assert got["code"] == "OK" and got["login"] == "bot"
    assert got["is_known"] and got["can_read"] and got["can_push"] and got["is_private"]
    assert got["may_create"] == 1 and got["create_words"] == ""
    assert got["scopes"] == {"github": "repo, read:org", "gitlab": "api"}.get(host.kind, "")
    if host.kind in ("github", "gitlab"):
        assert got["expires_at"] == 4073500800
    assert list(host.state["repos"]) == [A1], "asking changes nothing"


def test_check_of_a_missing_repository_makes_none(driver, host):
    """GitLab makes one for whoever asks for the refs of a push."""
    t = host.token("bot")
    got = driver("check", host.url(A1), t)
    assert got["code"] == "ENOTFOUND" and got["is_missing"] and got["may_create"] == 1
    rows = driver.rows(host.url(A1 + ".git"), t)
    assert rows["missing"][0] is False and rows["can-create"][0] is False and "can-push" not in rows
    assert host.state["repos"] == {}


def test_check_of_a_repository_that_may_only_be_read(driver, host):
    host.repository("boss/a", owner="boss", bot="read")
    host.account("boss")
    got = driver("check", host.url("boss/a"), host.token("bot"))
    assert got["is_known"] and got["can_read"] and not got["can_push"] and got["may_create"] == 0
    assert got["create_words"]
    rows = driver.rows(host.url("boss/a.git"), host.token("bot"))
    assert rows["can-read"][0] is False and rows["no-push"][0] is True and rows["no-create"][0] is True


READ_ONLY = {"gitea": ["read:repository", "read:user", "read:organization"],
             "forgejo": ["read:repository", "read:user", "read:organization"],
             "github": ["contents:read", "metadata:read"], "gitlab": ["read_api", "read_repository"]}


def test_the_account_may_push_but_the_token_may_not(driver, host):
    """The API tells the account's right; git is asked for the token's."""
    host.repository(A1)
    t = host.token("bot", scopes=READ_ONLY[host.kind])
    api = driver("check", host.url(A1), t)
    assert api["can_push"], "what the API says"
    rows = driver.rows(host.url(A1 + ".git"), t)
    assert rows["can-read"][0] is False
    assert rows["no-push"][0] is True and "403" in rows["no-push"][1]
    assert rows["no-create"][0] is True and "lacks" in rows["no-create"][1]


def test_what_a_token_of_gitlab_may_without_its_api(driver, hosts):
    h = hosts("gitlab")
    h.repository(A1)
    rows = driver.rows(h.url(A1 + ".git"), h.token("bot", scopes=["read_repository", "write_repository"]))
    assert rows["can-read"][0] is False and rows["can-push"][0] is False
    assert "read_repository, write_repository" in rows["token"][1]
    assert "lacks the scope" in rows["api-refused"][1] and rows["api-refused"][0] is False


def test_members_that_may_not_create(driver, host):
    host.group("closed", boss="owner", bot="read")
    t = host.token("bot")
    rows = driver.rows(host.url("closed/a.git"), t)
    assert rows["no-create"][0] is True and "'bot' may not create" in rows["no-create"][1] or \
        host.kind == "github", rows
    assert rows["missing"][0] is True


def days(n):
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + n * 86400))


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_the_end_of_a_token_is_told_ahead(driver, hosts, kind):
    h = hosts(kind)
    h.repository(A1)
    bad, text = driver.rows(h.url(A1), h.token("bot", expires=days(12)))["expires"]
    assert bad and days(12) in text and "make a new one before" in text
    bad, text = driver.rows(h.url(A1), h.token("bot", expires=days(300)))["expires"]
    assert not bad and days(300) in text
    assert "expires" not in driver.rows(h.url(A1), h.token("bot"))


@pytest.mark.parametrize("kind", ["github", "gitlab", "gitea"])
def test_F16_a_renamed_repository_is_told_not_followed(driver, hosts, kind):
    h = hosts(kind)
    h.repository("agents/old")
    h.rename("agents/old", "agents/new")
    t = h.token("bot")
    got = driver("check", h.url("agents/old"), t)
    assert got["code"] == "EINVALID"
    if kind == "github":
        assert "renamed to 'agents/new'" in got["words"] and got["status"] == 301
        assert driver.rows(h.url("agents/old.git"), t)["renamed"][0] is True
    else:
        assert "redirects elsewhere" in got["words"]


def test_a_repository_that_everybody_can_read_is_told(driver, host):
    host.repository(A1, private=False)
    bad, text = driver.rows(host.url(A1), host.token("bot"))["public"]
    assert bad and "not private" in text


def test_checking_with_a_bad_token_asks_little(driver, host):
    """Accounts are locked by who tries too often."""
    host.repository(A1)
    driver.rows(host.url(A1), "0123456789" * 4)
    wrong = [rq for rq in host.requests if "authorization" in rq.headers]
    assert len(wrong) <= 2, [rq.target for rq in wrong]


# -- list ----------------------------------------------------------------------------------------------------

def names(n, owner="agents"):
    return [f"agent-{i:03}" for i in range(n)]


def test_all_pages_are_read(driver, host):
    for name in names(23):
        host.repository("agents/" + name)
    host.repository("bot/own")
    host.account("other")
    host.repository("other/hidden")
    with host.changing() as s:
        s["options"]["page"] = 5
    t = host.token("bot")
    got = driver("list", host.url("agents/x"), t)
    assert got["code"] == "OK" and sorted(got["names"]) == names(23)
    assert driver("list", host.url("bot/x"), t)["names"] == ["own"]
    others = driver("list", host.url("other/x"), t)
    assert others["names"] == [], others


def test_pages_without_a_word_about_more(driver, hosts, monkeypatch):
    """A proxy in between that takes Link and X-Total-Count away."""
    from lib import githost_api
    monkeypatch.setattr(githost_api.Frame, "links", lambda self, *a: None)
    h = hosts("gitea", page=5)
    for name in names(12):
        h.repository("agents/" + name)
    assert sorted(driver("list", h.url("agents/x"), h.token("bot"))["names"]) == names(12)


def test_what_hinders_a_list_is_named(driver, hosts):
    for kind, scopes, lacks in [("gitea", ["read:repository"], "read:"), ("gitlab", ["read_repository"], "scope"),
                                ("forgejo", ["read:organization"], "read:")]:
        h = hosts(kind)
        h.repository(A1)
        got = driver("list", h.url("agents/x"), h.token("bot", scopes=scopes))
        assert got["code"] == "EDENIED" and "lacks" in got["words"] and lacks in got["words"]
    h = hosts("github")
    got = driver("list", h.url("nowhere/x"), h.token("bot"))
    assert got["code"] == "ENOTFOUND" and got["is_missing"]


def test_F18_a_list_that_ends_in_the_middle_is_no_list(driver, hosts):
    h = hosts("gitea", page=5)
    for name in names(12):
        h.repository("agents/" + name)
    t = h.token("bot")
    h.limit(2)
    got = driver("list", h.url("agents/x"), t, "gitea")
    assert got["code"] == "EUNAVAIL" and len(got["names"]) == 10


# -- webhooks ------------------------------------------------------------------------------------------------

HOOK = "http://127.0.0.1:9/webhooks/x"


def test_a_webhook_is_added_once(driver, host):
    host.repository(A1)
    t = host.token("bot")
    driver.tokens.append("hook-canary-4711")
    first = driver("hook", host.url(A1), t, "unknown", HOOK, "hook-canary-4711")
    again = driver("hook", host.url(A1), t, "unknown", HOOK, "hook-canary-4711")
    assert first["code"] == again["code"] == "OK" and first["made"] and not again["made"]
    [hook] = host.state["repos"][A1]["hooks"]
    assert hook["url"] == HOOK and hook["secret"] == "hook-canary-4711" and "push" in hook["events"]
    assert not hook.get("form"), "JSON is what is read"
    host.settle()


def test_a_webhook_among_many_is_found(driver, hosts):
    h = hosts("github", page=4)
    h.repository(A1)
    for i in range(9):
        h.hook(A1, f"http://127.0.0.1:9/{i}")
    h.hook(A1, HOOK)
    got = driver("hook", h.url(A1), h.token("bot"), "github", HOOK, "s")
    assert got["code"] == "OK" and not got["made"] and len(h.state["repos"][A1]["hooks"]) == 10


def test_gitlab_gets_a_signing_token_as_what_it_is(driver, hosts):
    h = hosts("gitlab", signing=True)
    h.repository(A1)
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
    driver.tokens.append(secret)
    assert driver("hook", h.url(A1), h.token("bot"), "gitlab", HOOK, secret)["made"]
    sent = json.loads([rq for rq in h.requests if rq.method == "POST"][-1].body)
    assert sent["signing_token"] == secret and "token" not in sent


def test_rights_for_webhooks_are_named(driver, hosts):
    cases = [("gitea", ["read:repository", "read:user"], "write:repository"),
             ("github", ["contents:write", "metadata:read"], "webhooks="),
             ("gitlab", ["read_api", "write_repository"], "the scope api")]
    for kind, scopes, lacks in cases:
        h = hosts(kind)
        h.repository(A1)
        got = driver("hook", h.url(A1), h.token("bot", scopes=scopes), "unknown", HOOK, "s")
        assert got["code"] == "EDENIED" and lacks in got["words"], got
        assert h.state["repos"][A1]["hooks"] == []
    h = hosts("gitea")
    h.account("boss")
    h.repository("boss/a", bot="write")
    got = driver("hook", h.url("boss/a"), h.token("bot"), "unknown", HOOK, "s")
    assert got["code"] == "EDENIED" and "admin" in got["words"]


# -- memfs remote check --------------------------------------------------------------------------------------

@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


def remote_check(home, agent, host, token, code, *args):
    path = os.path.join(home.folder, "token")
    with open(path, "w") as f:
        f.write(token)
    os.chmod(path, 0o600)
    home.run("remote", "set", "--agent", agent, host.url(f"agents/{agent}.git"), "--token-file", path)
    done = home.run("remote", "check", "--agent", agent, *args, code=code)
    text = (done.stdout + done.stderr).decode()
    assert token not in text
    return json.loads(done.stdout) if "--json" in args else text


def test_remote_check_tells_what_a_token_can(home, host, agent):
    a = agent()
    host.repository("agents/" + a)
    got = remote_check(home, a, host, host.token("bot", expires="2099-01-31"), 0, "--json")
    assert got["answer"] == "empty" and got["host"] == host.kind and got["token_of"] == "bot"
    assert got["can_read"] is True and got["can_push"] is True and got["can_create"] is True
    assert got["is_private"] is True and got["findings"] == [] and got["exit"] == 0
    if host.kind in ("github", "gitlab"):
        assert got["token_expires_at"] == "2099-01-31T00:00:00Z"
    text = remote_check(home, a, host, host.token("bot"), 0)
    assert re.search(r"- can-push +git lets a push in", text)


def test_remote_check_of_a_token_that_may_not_push(home, host, agent):
    a = agent()
    host.repository("agents/" + a)
    got = remote_check(home, a, host, host.token("bot", scopes=READ_ONLY[host.kind]), 4, "--json")
    assert got["can_read"] is True and got["can_push"] is False and got["exit"] == 4
    assert "no-push" in [f["kind"] for f in got["findings"]]


def test_remote_check_of_what_is_missing_or_refused(home, host, agent):
    a = agent()
    got = remote_check(home, a, host, host.token("bot"), 3, "--json")
    assert got["answer"] == "not-found" and got["can_create"] is True and got["can_push"] is None
    assert [f["kind"] for f in got["findings"]] == ["missing"]
    got = remote_check(home, a, host, "canary-0123456789-bad-token", 4, "--json")
    assert got["can_read"] is False and got["exit"] == 4
    assert "agents/" + a not in host.state["repos"]


def test_S3_remote_check_of_a_host_that_says_back_what_it_got(home, host, agent):
    a = agent()
    host.fault(status=403, echo=True)
    got = remote_check(home, a, host, "canary-0123456789-echo-token", 4, "--json")
    assert got["can_read"] is False


# -- memfs mirror check --------------------------------------------------------------------------------------

def write_config(server, *sections):
    os.makedirs(server.home, exist_ok=True)
    with open(os.path.join(server.home, "config"), "w") as f:
        f.write("".join(sections))


def section(server, host, name, token, **more):
    path = os.path.join(server.folder, name + ".token")
    with open(path, "w") as f:
        f.write(token)
    os.chmod(path, 0o600)
    server.secrets.append(token.encode())   # in no log, command line, config or database (S3)
    server.secrets += [base64.b64encode(f"{user}:{token}".encode()).rstrip(b"=")
                       for user in ("memfs", "oauth2", "x-access-token")]
    keys = {"url": host.url("agents/{agentId}.git"), "tokenFile": path, **more}
    return f'[mirror "{name}"]\n' + "".join(f"    {k} = {v}\n" for k, v in keys.items())


def checked(server, *args, code):
    done = server.cli("mirror", "check", *args, "--json", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    got = json.loads(done.stdout)
    return got, {(f["what"], f["kind"]): f["text"] for f in got["findings"]}


def test_mirror_check_tells_each_remotes_rights(servers, hosts):
    """Before there is any agent: what the tokens may is known, and nothing need be there."""
    s, good, poor = servers(start=False), hosts("gitea"), hosts("gitlab")
    write_config(s, section(s, good, "good", good.token("bot"), create="true"),
                 section(s, poor, "poor", poor.token("bot", scopes=["read_api", "read_repository"],
                                                      expires=days(9)), create="true"))
    s.start()
    got, rows = checked(s, code=1)
    assert got["findings"] and got["agents"] == 2
    assert "gitea" in rows["good", "host"] and ("good", "can-create") in rows and ("good", "missing") in rows
    assert "lacks the scope api" in rows["poor", "no-create"] and days(9) in rows["poor", "expires"]
    assert good.state["repos"] == {} and poor.state["repos"] == {}
    _, rows = checked(s, "good", code=0)
    assert {name for name, _ in rows} == {"good"}


def test_mirror_check_of_one_agent_and_of_a_remote_that_is_away(servers, hosts, agent):
    s, h = servers(start=False), hosts("forgejo")
    a = agent()
    h.repository("agents/" + a)
    readers = h.token("bot", scopes=READ_ONLY["forgejo"])
    write_config(s, section(s, h, "backup", readers), section(s, h, "in", readers, direction="pull"),
                 f'[mirror "gone"]\n    url = http://127.0.0.1:{closed_port()}/{{agentId}}.git\n')
    s.start()
    _, rows = checked(s, "backup", "--agent", a, code=4)
    assert "403" in rows["backup", "no-push"] and ("backup", "can-read") in rows
    _, rows = checked(s, "in", "--agent", a, code=0)
    assert ("in", "no-push") in rows, "told, but nobody wants to push there"
    _, rows = checked(s, "gone", code=3)
    assert "connection refused" in rows["gone", "no-read"]
    got, _ = checked(s, "--agent", a, code=4)   # of all that is wrong, what needs a person first
    assert (got["refused"], got["away"]) == (1, 1)
    with open(os.path.join(s.folder, "backup.token"), "w") as f:
        f.write("wrong-" + readers)
    _, rows = checked(s, "backup", "--agent", a, code=4)
    assert "401" in rows["backup", "no-read"] and "tokenFile" in rows["backup", "no-read"]
    assert "memfs remote" not in str(rows), "a client's command sets nothing of the server's"
    assert s.cli("mirror", "check", "nobody", check=False).returncode != 0


# -- memories on each of them --------------------------------------------------------------------------------

def until(what, timeout=60):
    end = time.monotonic() + timeout
    while True:
        got = what()
        if got or time.monotonic() > end:
            return got
        time.sleep(0.05)


def put_block(server, agent, label, value):
    """A push, as an agent's client does it; the commit's id."""
    git, work = Git(os.path.join(server.folder, "githome")), os.path.join(server.folder, "work-" + agent)
    c = Checkout(git, work) if os.path.isdir(work) else git.clone(server.git_url(agent), work)
    return c.save({f"system/{label}.md": value})


def test_F16_a_missing_repository_is_made_and_the_memory_pushed(servers, host, agent):
    """One setting: an address.  Nobody said that repositories should be made."""
    s, a = servers(start=False), agent()
    write_config(s, section(s, host, "origin", host.token("bot")))
    s.start()
    head = put_block(s, a, "human", "likes tea\n")
    assert until(lambda: "agents/" + a in host.state["repos"] and host.tip("agents/" + a) == head)
    assert host.state["repos"]["agents/" + a]["private"]
    assert host.forced() == []


@pytest.mark.parametrize("kind, scopes, lacks", [
    ("gitea", ["write:repository"], "write:organization"),
    ("github", ["contents:write", "metadata:read"], "administration=write"),
])
def test_F15_F16_a_token_that_may_not_create_is_told_and_another_hand_makes_it(servers, hosts, agent, kind, scopes,
                                                                              lacks):
    """The status says which right is missing; the API is not asked again and again; a repository that somebody
    makes is found, though the token is the same."""
    s, h, a = servers(start=False), hosts(kind), agent()
    write_config(s, section(s, h, "origin", h.token("bot", scopes=scopes), kind=kind, poll="1"))
    s.start()
    head = put_block(s, a, "human", "likes tea\n")

    def row():
        return json.loads(s.cli("mirror", "status", "--agent", a, "--json", check=False).stdout)["rows"][0]

    assert until(lambda: row()["failures"] >= 3), row()
    r = row()
    assert r["state"] == "missing" and lacks in r["failure"] and r["advice"] and r["next_try_at"], r
    asked = [rq.target for rq in h.requests if rq.method == "POST" and "git-" not in rq.target]
    assert len(asked) == 1, asked
    h.repository("agents/" + a)
    assert until(lambda: h.tip("agents/" + a) == head and row()["state"] == "mirrored"), row()
    assert row()["note"] is None


def test_F16_gitlab_makes_a_project_by_the_push_of_a_token_for_git_alone(servers, hosts, agent):
    s, h, a = servers(start=False), hosts("gitlab"), agent()
    t = h.token("bot", scopes=["read_repository", "write_repository"])
    write_config(s, section(s, h, "origin", t, create="true"))
    s.start()
    head = put_block(s, a, "human", "likes tea\n")
    assert until(lambda: "agents/" + a in h.state["repos"] and h.tip("agents/" + a) == head)


def test_S3_T24_a_mirror_with_a_host_that_says_back_what_it_got(servers, host, agent):
    """git's errors and the API's repeat the token: it is in no log, status, state or command line."""
    s, a = servers(start=False), agent()
    write_config(s, section(s, host, "origin", host.token("bot"), create="true"))
    host.fault(status=403, echo=True)
    s.start()
    put_block(s, a, "human", "likes tea\n")
    assert until(lambda: len(host.requests) > 0)
    s.cli("mirror", "retry", "--agent", a, check=False)
    said = b"".join(done.stdout + done.stderr for done in (
        s.cli("mirror", "status", "--agent", a, "--json", check=False), s.cli("mirror", "status", check=False),
        s.cli("mirror", "check", "--json", check=False)))
    assert all(secret not in said for secret in s.secrets)


def test_F17_a_protected_branch_is_told_in_the_hosts_words(servers, host, agent):
    s, a = servers(start=False), agent()
    write_config(s, section(s, host, "origin", host.token("bot"), create="true"))
    host.repository("agents/" + a)
    host.protect("agents/" + a, "secret")
    s.start()
    head = put_block(s, a, "human", "likes tea\n")

    def note():
        rows = json.loads(s.cli("mirror", "status", "--agent", a, "--json", check=False).stdout or b"{}")
        text = json.dumps(rows)
        return "rejected" in text and text
    told = until(note)
    assert told and host.tip("agents/" + a) is None
    if host.kind == "github":
        assert "GH013" in told or "rule violations" in told, told
    host.protect("agents/" + a, None)
    s.cli("mirror", "retry", "--agent", a)
    assert until(lambda: host.tip("agents/" + a) == head)
