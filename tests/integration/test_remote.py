"""The remote room against real listeners (tests/drivers/remote_driver.c is the door): every row of the table of
answers, TLS, ssh, faults in the middle, credentials that nobody sees, and what a fetch and a push leave alone."""
import base64
import glob
import json
import os
import pathlib
import re
import secrets
import socket
import ssl
import subprocess
import threading
import time

import pytest

from lib.fake_remote import ANSWERS, Answer, BlackHole, FakeRemote, closed_port
from lib.sshd import Sshd
from lib.tlsgit import Authority, HandshakeCut, TlsGit

GIT = "/usr/bin/git"
INCOMING = "refs/memfs/incoming/origin"
BUDGET = 20000          # ms: plenty for an answer that comes
SHORT = 1500            # ms: for answers that never come
GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"


class Driver:
    """The driver with a HOME of its own, and a repository with one commit."""

    def __init__(self, build, folder):
        self.folder = str(folder)
        self.program = os.path.join(build, "tests", "drivers", "remote-driver")
        self.hook = os.path.join(build, "memfs-hook")
        self.home = os.path.join(self.folder, "home")
        os.makedirs(self.home, exist_ok=True)
        self.env = {"PATH": "/usr/bin:/bin", "HOME": self.home, "LC_ALL": "C.UTF-8",
                    "DRIVER_HOOK": self.hook,
                    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
        self.work = os.path.join(self.folder, "work")
        self.git_dir = self.work + "/.git"
        self.git("init", "-q", "-b", "main", self.work)
        self.head = self.commit("first")

    def git(self, *args, check=True, cwd=None):
        env = {**self.env, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
               "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
               "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org"}
        done = subprocess.run([GIT, *map(str, args)], env=env, cwd=cwd or self.folder, text=True,
                              capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, (args, done.stderr)
        return done.stdout.strip()

    def commit(self, message, text=None, work=None):
        work = work or self.work
        with open(os.path.join(work, "a.md"), "a") as f:
            f.write((text or message) + "\n")
        self.git("-C", work, "add", "-A")
        self.git("-C", work, "commit", "-q", "-m", message)
        return self.git("-C", work, "rev-parse", "HEAD")

    def start(self, *args, **env):
        return subprocess.Popen([self.program, *map(str, args)], env={**self.env, **env},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd="/")

    def __call__(self, *args, **env):
        p = self.start(*args, **env)
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0 and err == "", (p.returncode, err)
        self.said = out
        return json.loads(out)

    def probe(self, url, budget=BUDGET, **env):
        return self("probe", url, budget, **env)

    def fetch(self, url, budget=BUDGET, **env):
        return self("fetch", url, budget, self.git_dir, INCOMING, **env)

    def push(self, url, commit=None, budget=BUDGET, **env):
        return self("push", url, budget, self.git_dir, commit or self.head, **env)

    def secret(self, text, name="secret"):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o600)
        return path


@pytest.fixture
def driver(memfs_bin, folder):
    return Driver(os.path.dirname(memfs_bin), folder)


@pytest.fixture
def remote(folder):
    with FakeRemote(root=folder / "remote") as r:
        yield r


# -- the table of design 5: every answer by name ---------------------------------------------------

ROWS = {
    "501": "not-implemented", "404": "not-found", "410": "not-found", "405": "not-allowed",
    "html": "not-git", "captive": "not-git", "redirect": "not-git", "511": "not-git",
    "garbage": "not-git", "dumb": "not-git", "empty-body": "not-git",
    "401": "unauthorized", "401-bare": "unauthorized", "403": "forbidden",
    "429": "too-many-requests", "500": "failing", "502": "failing", "503": "failing",
    "504": "failing", "close": "cut", "reset": "cut", "hang": "timeout", "drip": "timeout",
    "huge": "refs", "endless-head": "cut",
}


def test_every_answer_of_the_fake_remote_is_a_row():
    assert set(ROWS) == set(ANSWERS)


@pytest.mark.parametrize("row", sorted(ROWS))
def test_F16_F18_F19_probe_names_what_it_met(driver, remote, row):
    remote.say(row)
    slow = row in ("hang", "drip")
    got = driver.probe(remote.url("a.git"), SHORT if slow else BUDGET)
    assert got["answer"] == ROWS[row], got
    assert got["is_credentials"] == (row in ("401", "401-bare", "403"))
    assert len(remote.requests) == 1, "one request tells"
    head = remote.requests[0]
    assert head.target == "/a.git/info/refs?service=git-upload-pack"
    assert "git-protocol" not in head.headers and "authorization" not in head.headers
    if slow:
        assert SHORT - 100 <= got["ms"], "it gave up before its time"


@pytest.mark.parametrize("row", sorted(set(ROWS) - {"huge", "dumb", "empty-body", "endless-head"}))
def test_F18_a_fetch_and_a_push_say_the_same_word_as_the_probe(driver, remote, row):
    remote.say(row)
    budget = SHORT if row in ("hang", "drip") else BUDGET
    for got in (driver.fetch(remote.url("a.git"), budget), driver.push(remote.url("a.git"),
                                                                       budget=budget)):
        assert got["code"] == "EUNAVAIL" and got["answer"] == ROWS[row], got
        assert not got["rejected"]
    assert driver.git("-C", driver.work, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_F18_retry_after_is_told_and_bounded(driver, remote):
    remote.say("429")
    assert driver.probe(remote.url("a"))["retry_after"] == 7
    remote.say(Answer(503, headers={"Retry-After": "86400"}))
    assert driver.probe(remote.url("a"))["retry_after"] == 3600


def test_T09_a_redirect_is_not_followed_and_its_host_is_named(driver, remote, folder):
    with FakeRemote(root=folder / "other") as other:
        remote.say(Answer(302, b"moved", headers={"Location": other.url("a.git/x?token=abc")}))
        got = driver.probe(remote.url("a.git"))
        assert got["answer"] == "not-git" and f"127.0.0.1:{other.port}" in got["detail"]
        assert "abc" not in driver.said
        assert driver.fetch(remote.url("a.git"))["answer"] == "not-git"
        assert other.requests == []


def test_probe_refused_no_name_and_black_hole(driver):
    assert driver.probe(f"http://127.0.0.1:{closed_port()}/a")["answer"] == "refused"
    assert driver.probe("http://nobody.invalid/a")["answer"] == "no-name"
    with BlackHole() as hole:
        got = driver.probe(f"http://127.0.0.1:{hole.port}/a", SHORT)
        assert got["answer"] == "timeout"
        assert driver.push(f"http://127.0.0.1:{hole.port}/a", budget=SHORT)["answer"] == "timeout"


def test_F19_a_name_server_that_hangs_does_not_stretch_the_budget(driver, folder):
    """The resolver waits 5 s a try; the probe has 1.5 s in all, and ends then, thread or no thread."""
    resolv = folder / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.53\noptions timeout:20 attempts:2\n")
    nss = folder / "nsswitch.conf"
    nss.write_text("hosts: dns\n")
    script = (f"mount --bind {resolv} /etc/resolv.conf && mount --bind {nss} /etc/nsswitch.conf && "
              "ip link set lo up && exec /usr/bin/python3 -c '"
              "import socket,subprocess,sys\n"
              "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
              "s.bind((\"127.0.0.53\",53))\n"
              f"out=subprocess.run([\"{driver.program}\",\"probe\",\"https://slow.example/a.git\",\"1500\"],"
              "capture_output=True,text=True,timeout=60)\n"
              "s.settimeout(1)\n"
              "assert s.recv(512)\n"
              "sys.stdout.write(out.stdout)'")
    done = subprocess.run(["unshare", "-n", "-m", "sh", "-c", script], env=driver.env, text=True,
                          capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["answer"] == "timeout", got
    assert got["ms"] < 15000, "it waited for the resolver (a try of it takes 20 s)"


# -- real git at the other end ---------------------------------------------------------------------

def test_probe_sees_an_empty_repository_then_main(driver, remote):
    remote.repository("a.git")
    url = remote.url("a.git")
    assert driver.probe(url)["answer"] == "empty"
    assert driver.fetch(url)["empty"] is True
    assert driver.push(url)["code"] == "OK"
    got = driver.probe(url)
    assert (got["answer"], got["main"]) == ("refs", driver.head)
    assert driver.probe(url + "/")["main"] == driver.head
    assert driver("ls", url, BUDGET)["main"] == driver.head


def test_probe_a_repository_without_main_is_empty(driver, remote):
    path = remote.repository("a.git")
    driver.git("-C", driver.work, "push", "-q", path, "main:refs/heads/main2", "main:refs/foo/refs/heads/main")
    assert driver.probe(remote.url("a.git"))["answer"] == "empty"
    assert driver("ls", remote.url("a.git"), BUDGET)["empty"] is True


def test_probe_of_memfs_itself(driver, server, agent):
    url = f"{server.url}/v1/git/{agent()}/state.git"
    assert driver.probe(url)["main"] == GENESIS
    assert driver.fetch(url)["code"] == "OK"


FORMS = {
    # a service line or none, HEAD first or not, "version 1", refs of other kinds before and behind
    "gitea": ["# service=git-upload-pack", None, "{id} HEAD\0multi_ack symref=HEAD:refs/heads/main",
              "{id} refs/heads/main", "{id} refs/pull/1/head", None],
    "github": ["# service=git-upload-pack", None, "{id} HEAD\0multi_ack agent=git/github",
               "{no} refs/heads/feature", "{id} refs/heads/main", "{no} refs/tags/v1", None],
    "version 1": ["# service=git-upload-pack", None, "version 1",
                  "{id} refs/heads/main\0multi_ack", None],
    "no service line": ["{id} refs/heads/main\0ofs-delta", None],
}


def packets(lines, **ids):
    out = b""
    for line in lines:
        data = b"" if line is None else line.format(**ids).encode() + b"\n"
        out += b"0000" if line is None else b"%04x" % (len(data) + 4) + data
    return out


def listing(body):
    return Answer(200, body, "application/x-git-upload-pack-advertisement")


@pytest.mark.parametrize("form", sorted(FORMS))
def test_probe_reads_the_forms_of_the_hosts(driver, remote, form):
    ids = {"id": "1" * 40, "no": "2" * 40}
    remote.say(listing(packets(FORMS[form], **ids)))
    got = driver.probe(remote.url("a.git"))
    assert (got["answer"], got["main"]) == ("refs", ids["id"])


@pytest.mark.parametrize("words,answer", [
    ("ERR Repository not found", "not-found"), ("ERR access denied or repository not exported: /a",
                                                "not-found"),
    ("ERR permission denied", "forbidden"), ("ERR out of order", "other")])
def test_probe_reads_a_refusal_in_words(driver, remote, words, answer):
    remote.say(listing(packets([words])))
    got = driver.probe(remote.url("a.git"))
    assert got["answer"] == answer and got["detail"] == words[4:]


def test_probe_empty_forms(driver, remote):
    for lines in (["# service=git-upload-pack", None, None], ["# service=git-upload-pack", None],
                  ["# service=git-upload-pack", None, "0" * 40 + " capabilities^{{}}\0ofs-delta", None]):
        remote.say(listing(packets(lines)))
        assert driver.probe(remote.url("a.git"))["answer"] == "empty", lines


def test_probe_a_server_of_version_2_is_asked_once_more(driver, remote):
    """It ignores that no version was asked for; git asks again and understands it."""
    path = remote.repository("a.git")
    driver.git("-C", driver.work, "push", "-q", path, "main")
    real = remote._real_git

    def always_v2(c, method, target, headers, body):
        real(c, method, target, {**headers, "git-protocol": "version=2"}, body)

    remote._real_git = always_v2
    got = driver.probe(remote.url("a.git"))
    assert (got["answer"], got["main"]) == ("refs", driver.head)
    assert len(remote.requests) == 3


def test_probe_cut_in_the_list_at_every_byte(driver, remote):
    whole = packets(FORMS["github"], id="1" * 40, no="2" * 40)
    behind_main = whole.index(b"refs/heads/main") + len(b"refs/heads/main\n")
    # each class of bytes: lengths, the service line, flushes, ids, names
    for n in [1, 3, 4, 5, 20, 29, 30, 32, 34, 35, 38, 50, 80, 95, behind_main - 20, behind_main - 1]:
        remote.say(Answer(raw=listing(whole).bytes()[:-len(whole) + n]))
        got = driver.probe(remote.url("a.git"))
        assert got["answer"] == "cut", (n, got)
    remote.say(Answer(raw=listing(whole).bytes()[:40]))
    assert driver.probe(remote.url("a.git"))["answer"] == "cut", "in the head"
    remote.say(Answer(raw=listing(whole).bytes()[:40], then="hang"))
    assert driver.probe(remote.url("a.git"), SHORT)["answer"] == "timeout", "in the head"


# -- what a fetch and a push do, and leave alone ---------------------------------------------------

def snapshot(git_dir):
    out = {}
    for path in pathlib.Path(git_dir).rglob("*"):
        name = str(path.relative_to(git_dir))
        if path.is_file() and not name.startswith("objects/"):
            out[name] = path.read_bytes()
    return out


def test_fetch_changes_one_ref_and_nothing_else(driver, remote):
    path = remote.repository("a.git")
    other = driver.folder + "/other"
    driver.git("clone", "-q", driver.work, other)
    tip = driver.commit("theirs", work=other)
    driver.git("-C", other, "tag", "v1")
    driver.git("-C", other, "push", "-q", path, "main", "v1", "main:refs/heads/side")
    driver.git("-C", driver.work, "remote", "add", "origin", remote.url("a.git"))
    before = snapshot(driver.git_dir)
    assert driver.fetch(remote.url("a.git"))["code"] == "OK"
    after = snapshot(driver.git_dir)
    assert after.pop(INCOMING) == tip.encode() + b"\n"
    assert after == before
    assert driver.git("-C", driver.work, "cat-file", "-t", tip) == "commit"
    assert driver.git("-C", driver.work, "fsck", "--strict") == ""


def test_H5_an_incoming_ref_follows_a_remote_that_was_rewound(driver, remote):
    path = remote.repository("a.git")
    driver.push(remote.url("a.git"))
    second = driver.commit("second")
    driver.push(remote.url("a.git"), second)
    driver.fetch(remote.url("a.git"))
    driver.git("-C", path, "update-ref", "refs/heads/main", driver.head)
    assert driver.fetch(remote.url("a.git"))["code"] == "OK"
    assert driver.git("-C", driver.work, "rev-parse", INCOMING) == driver.head
    assert driver.git("-C", driver.work, "rev-parse", "main") == second


def test_fetch_refuses_a_ref_that_is_not_incoming(driver, remote):
    remote.repository("a.git")
    got = driver("fetch", remote.url("a.git"), BUDGET, driver.git_dir, "refs/heads/main")
    assert got["code"] == "EINVALID" and remote.requests == []


def test_F17_a_lost_race_and_a_refusal_are_told_apart(driver, remote):
    path = remote.repository("a.git")
    other = driver.folder + "/other"
    driver.git("clone", "-q", driver.work, other)
    driver.push(remote.url("a.git"))
    driver.git("-C", other, "push", "-q", path, driver.commit("theirs", work=other) + ":refs/heads/main")
    mine = driver.commit("mine")
    got = driver.push(remote.url("a.git"), mine)
    assert (got["code"], got["rejected"], got["moved"]) == ("ECONFLICT", True, True), got
    hook = os.path.join(path, "hooks", "pre-receive")
    with open(hook, "w") as f:
        f.write("#!/bin/sh\necho 'main is protected here: \033[31mask\033[0m' >&2\nexit 1\n")
    os.chmod(hook, 0o755)
    driver.git("-C", driver.work, "fetch", "-q", path, "main")
    driver.git("-C", driver.work, "reset", "-q", "--hard", "FETCH_HEAD")
    got = driver.push(remote.url("a.git"), driver.commit("again"))
    assert (got["code"], got["rejected"], got["moved"]) == ("ECONFLICT", True, False), got
    assert got["answer"] == "rejected" and "pre-receive hook declined" in got["said"]
    assert "main is protected here" in got["said"] and "\033" not in got["said"]


def test_H5_a_push_never_forces(driver, remote):
    path = remote.repository("a.git")
    first = driver.head
    second = driver.commit("second")
    driver.push(remote.url("a.git"), second)
    assert driver.push(remote.url("a.git"), first)["moved"] is True
    driver.git("-C", driver.work, "config", "push.default", "matching")
    driver.git("-C", driver.work, "config", "remote.pushDefault", "nowhere")
    assert driver.push(remote.url("a.git"), second)["code"] == "OK", "up to date is a success"
    assert driver.git("-C", path, "rev-parse", "main") == second
    assert driver.git("-C", path, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_F11_a_pack_with_a_bad_object_is_refused(driver, remote):
    """fsckObjects: a tree with an entry '.git' would be a hook on somebody's machine."""
    path = remote.repository("a.git")
    blob = driver.git("-C", driver.work, "hash-object", "-w", driver.work + "/a.md")
    raw = b"100644 .git\0" + bytes.fromhex(blob)
    tree = subprocess.run([GIT, "-C", driver.work, "hash-object", "-t", "tree", "-w", "--stdin",
                           "--literally"], input=raw, capture_output=True, timeout=30,
                          check=True).stdout.decode().strip()
    commit = driver.git("-C", driver.work, "commit-tree", "-m", "evil", tree)
    driver.git("-C", driver.work, "push", "-q", path, commit + ":refs/heads/main")
    victim = Driver(os.path.dirname(driver.hook), pathlib.Path(driver.folder) / "victim")
    got = victim.fetch(remote.url("a.git"))
    assert got["code"] == "EUNAVAIL" and not got["empty"], got
    assert victim.git("-C", victim.work, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


@pytest.mark.parametrize("how", ["cut", "reset", "hang"])
@pytest.mark.parametrize("kind,sizes", [("head", (0, 12, 60)), ("refs", (0, 10, 80)),
                                        ("ls", (0, 3, 30)), ("pack", (0, 5, 60, 200))])
def test_F19_a_remote_that_dies_in_a_fetch_changes_nothing(driver, remote, kind, sizes, how):
    path = remote.repository("a.git")
    other = driver.folder + "/other"
    driver.git("clone", "-q", driver.work, other)
    tip = driver.commit("theirs", secrets.token_hex(4000), work=other)
    driver.git("-C", other, "push", "-q", path, "main")
    before = driver.git("-C", driver.work, "for-each-ref")
    for n in sizes if how != "hang" else sizes[1:2]:
        remote.break_at(kind, n, how)
        got = driver.fetch(remote.url("a.git"), SHORT if how == "hang" else BUDGET)
        # git takes an answer that ends in its head for the empty list of a dumb server
        assert got["code"] == "EUNAVAIL" or (kind == "head" and got["empty"]), (n, got)
        assert got["answer"] in (("timeout",) if how == "hang" else
                                 ("cut", "other", "not-git", "empty")), got
        assert driver.git("-C", driver.work, "for-each-ref") == before
    remote.mend()
    assert driver.fetch(remote.url("a.git"))["code"] == "OK"
    assert driver.git("-C", driver.work, "rev-parse", INCOMING) == tip


@pytest.mark.parametrize("how", ["cut", "reset", "hang"])
@pytest.mark.parametrize("kind,sizes", [("refs", (0, 10, 80)), ("body", (0, 4, 100, 2000)),
                                        ("push", (0, 3, 20))])
def test_F10_a_remote_that_dies_in_a_push_leaves_it_repeatable(driver, remote, kind, sizes, how):
    """D4: after the cut nobody knows; the same push again ends in the same state."""
    path = remote.repository("a.git")
    for n in sizes if how != "hang" else sizes[1:2]:
        commit = driver.commit("a change", secrets.token_hex(4000))
        remote.break_at(kind, n, how)
        got = driver.push(remote.url("a.git"), commit, SHORT if how == "hang" else BUDGET)
        assert got["code"] == "EUNAVAIL" and not got["rejected"], (n, got)
        remote.mend()
        assert driver.push(remote.url("a.git"), commit)["code"] == "OK"
        assert driver.git("-C", path, "rev-parse", "main") == commit


# -- paths and ssh ---------------------------------------------------------------------------------

def test_a_plain_path(driver, remote):
    path = remote.repository("with blank.git")
    assert driver.probe(path)["answer"] == "empty"
    assert driver.push(path)["code"] == "OK"
    assert driver.probe("file://" + path.replace(" ", "%20"))["main"] == driver.head
    assert driver.probe(path)["main"] == driver.head
    assert driver.fetch(path)["code"] == "OK"
    assert driver.probe(path + "-gone")["answer"] == "not-found"
    assert driver.probe(driver.home)["answer"] == "not-found"


def test_F21_ssh_keys_known_and_unknown(driver, remote, folder):
    path = remote.repository("a.git")
    with Sshd(folder) as s:
        env = {"DRIVER_SSH_KEY": s.key, "DRIVER_KNOWN_HOSTS": s.known_hosts}
        assert driver.push(s.url(path), **env)["code"] == "OK"
        assert driver.probe(s.url(path), **env)["main"] == driver.head
        assert driver.fetch(s.url(path), **env)["code"] == "OK"
        assert driver.probe(s.url(path + "x"), **env)["answer"] == "not-found"
        stranger = driver.probe(s.url(path), **{**env, "DRIVER_SSH_KEY": s.stranger})
        assert stranger["answer"] == "unauthorized" and stranger["is_credentials"]
        unknown = driver.probe(s.url(path), **{**env, "DRIVER_KNOWN_HOSTS": s.no_known_hosts})
        assert unknown["answer"] == "host-key"
        assert pathlib.Path(s.no_known_hosts).read_text() == "", "nothing is accepted silently"
        s.change_host_key()
        for got in (driver.probe(s.url(path), **env), driver.push(s.url(path), **env)):
            assert got["answer"] == "host-key", got
    assert driver.probe(s.url(path), **env)["answer"] == "refused"


def test_F21_ssh_with_the_keys_of_the_users_home(driver, remote, folder):
    path = remote.repository("a.git")
    with Sshd(folder) as s:
        env = s.home_env(driver.home)
        with open(driver.home + "/.ssh/config", "w") as f:
            f.write("Host *\n  ProxyCommand touch " + driver.home + "/ran\n")
        assert driver.push(s.url(path), **env)["code"] == "OK"
        assert not os.path.exists(driver.home + "/ran"), "the user's ssh configuration is not read"


# -- TLS -------------------------------------------------------------------------------------------

def test_F20_tls_faults_are_named(driver, folder):
    ca = Authority(folder)
    contexts = {"expired": ca.context(expired=True), "host name|match": ca.context(names=["other.example"]),
                "local issuer|self-signed|self signed": Authority(folder / "x", "other CA").context(),
                "": ca.context(max_version=ssl.TLSVersion.TLSv1_1)}
    for words, context in contexts.items():
        with FakeRemote(root=folder / "remote", tls=context) as r:
            r.repository("a.git")
            got = driver.probe(r.url("a.git"), DRIVER_CA=ca.file)
            assert got["answer"] == "tls" and re.search(words, got["detail"], re.I), (words, got)
            for other in (driver.fetch(r.url("a.git"), DRIVER_CA=ca.file),
                          driver.push(r.url("a.git"), DRIVER_CA=ca.file)):
                assert other["answer"] == "tls", (words, other)
            assert r.requests == []


def test_F20_tls_cut_and_hanging_handshakes(driver):
    with HandshakeCut() as h:
        assert driver.probe(f"https://127.0.0.1:{h.port}/a")["answer"] == "tls"
    with HandshakeCut("hang") as h:
        assert driver.probe(f"https://127.0.0.1:{h.port}/a", SHORT)["answer"] == "timeout"
        assert driver.fetch(f"https://127.0.0.1:{h.port}/a", SHORT)["answer"] == "timeout"


def test_F20_the_repositorys_own_config_cannot_switch_verification_off(driver, folder):
    ca = Authority(folder)
    stranger = Authority(folder / "x", "other CA")
    with FakeRemote(root=folder / "remote", tls=stranger.context()) as r:
        r.repository("a.git")
        for key in ("http.sslVerify", f"http.{r.url('')}.sslVerify", f"http.{r.url('a.git')}.sslVerify"):
            driver.git("-C", driver.work, "config", key, "false")
        assert driver.fetch(r.url("a.git"), DRIVER_CA=ca.file)["answer"] == "tls"


# -- configuration of others -----------------------------------------------------------------------

def test_T31_no_configuration_of_others_touches_the_address(driver, remote, folder):
    """insteadOf in the user's and in the repository's own configuration: `memfs setup git` itself installs
    one, and it must not bend the address that sync asks."""
    remote.repository("a.git")
    with FakeRemote(root=folder / "trap") as trap:
        trap.repository("a.git")
        url = remote.url("a.git")
        with open(driver.home + "/.gitconfig", "w") as f:
            f.write(f'[url "memfs::"]\n insteadOf = {remote.url("")}\n'
                    f'[http]\n extraHeader = X-Trap: global\n proxy = http://127.0.0.1:{trap.port}\n')
        for key in (trap.url("a.git"), trap.url("")):
            driver.git("-C", driver.work, "config", "--add", f"url.{key}.insteadOf", url)
            driver.git("-C", driver.work, "config", "--add", f"url.{key}.pushInsteadOf", url)
        driver.git("-C", driver.work, "config", "http.extraHeader", "Authorization: Basic bGV0dGE6a2V5")
        driver.git("-C", driver.work, "config", f"http.{url}.extraHeader", "X-Trap: local")
        driver.git("-C", driver.work, "config", f"http.{url}.proxy", trap.url(""))
        driver.git("-C", driver.work, "config", "core.hooksPath", "/nonexistent")
        for got in (driver.push(url), driver.fetch(url), driver("ls", url, BUDGET)):
            assert got["code"] == "OK", got
        assert got["main"] == driver.head
        assert trap.requests == []
        for request in remote.requests:
            assert "authorization" not in request.headers and "x-trap" not in request.headers


def test_T06_what_is_no_address_never_reaches_git(driver, folder):
    ran = folder / "ran"
    for url in (f"ext::sh -c touch% {ran}", "-oProxyCommand=x", "git://127.0.0.1/a", "memfs::x",
                "ssh://-oProxyCommand=x/a", "http://127.0.0.1/a%0ab", "a.git"):
        assert driver("parse", url)["code"] == "EINVALID", url
    assert not ran.exists()


def test_http_only_where_it_is_allowed(driver, remote):
    remote.repository("a.git")
    for got in (driver.probe(remote.url("a.git"), DRIVER_HTTP="0"),
                driver.fetch(remote.url("a.git"), DRIVER_HTTP="0")):
        assert "not encrypted" in got.get("detail", "") + got["error"]
    assert remote.requests == []


# -- credentials -----------------------------------------------------------------------------------

def odd_secret():
    return "mfcanary" + secrets.token_hex(8) + "%:@/'\"$\\& é+="


def shapes(secret, user="agent"):
    from urllib.parse import quote
    pair = f"{user}:{secret}".encode()
    return [secret.encode(), base64.b64encode(pair), base64.b64encode(pair).rstrip(b"="),
            quote(secret, safe="").encode()]


class Sampler(threading.Thread):
    """argv and environ of every process of the machine, as often as it can."""

    def __init__(self, needles):
        super().__init__(daemon=True)
        self.needles, self.found, self.seen, self.over = needles, set(), set(), False

    def run(self):
        while not self.over:
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                for name in (path, path.replace("cmdline", "environ")):
                    try:
                        with open(name, "rb") as f:
                            data = f.read()
                    except OSError:
                        continue
                    if b"memfs-" in data and name.endswith("cmdline"):
                        self.seen.add(data.split(b"\0")[1:2][0] if b"\0" in data else data)
                    if any(n in data for n in self.needles):
                        self.found.add((name, data[:200]))


def test_S3_the_token_is_nowhere_but_on_the_wire(driver, folder):
    token = odd_secret()
    env = {"DRIVER_SECRET_FILE": driver.secret(token, "../secret-of-the-driver"), "DRIVER_USER": "agent"}
    with TlsGit(folder / "r", token=token) as r:
        env["DRIVER_CA"] = r.ca.file
        r.repository("a.git")
        needles = shapes(token)
        sampler = Sampler([n for n in needles])
        sampler.start()
        said = b""
        for i in range(3):
            head = driver.commit("a change", secrets.token_hex(2000))
            for got in (driver.push(r.url("a.git"), head, **env), driver.fetch(r.url("a.git"), **env),
                        driver.probe(r.url("a.git"), **env)):
                assert got["code"] == "OK", got
                said += driver.said.encode()
        # a server that says back what it was sent, in an error, and one that refuses it
        r.say(Answer(500, ("<pre>" + token + "</pre>").encode(), "text/html"))
        said += json.dumps(driver.fetch(r.url("a.git"), **env)).encode()
        r.say(listing(packets(["ERR you sent " + token.replace("{", "{{")])))
        said += json.dumps(driver.probe(r.url("a.git"), **env)).encode()
        said += json.dumps(driver.fetch(r.url("a.git"), **env)).encode()
        r.say("403")
        assert driver.push(r.url("a.git"), **env)["answer"] == "forbidden"
        said += driver.said.encode()
        sampler.over = True
        sampler.join()
        assert sampler.seen, "the sampler saw none of the programs: the test proves nothing"
        assert sampler.found == set()
        authorized = [q for q in r.requests if "authorization" in q.headers]
        assert len(authorized) > 9, "the server saw the token: it did travel"
        assert not any(n in said for n in needles)
    os.unlink(env["DRIVER_SECRET_FILE"])
    for path in pathlib.Path(driver.folder).rglob("*"):
        if path.is_file() and "tlsgit" not in path.parts:
            data = path.read_bytes()
            assert not any(n in data for n in needles), path


def test_T24_a_hook_that_echoes_the_token_is_redacted(driver, folder):
    token = "tok" + secrets.token_hex(16)
    env = {"DRIVER_SECRET_FILE": driver.secret(token)}
    with TlsGit(folder / "r", token=token) as r:
        path = r.repository("a.git")
        hook = os.path.join(path, "hooks", "pre-receive")
        with open(hook, "w") as f:
            f.write(f"#!/bin/sh\necho 'seen: {token} and https://u:{token}@h/' >&2\nexit 1\n")
        os.chmod(hook, 0o755)
        got = driver.push(r.url("a.git"), DRIVER_CA=r.ca.file, **env)
        assert got["rejected"] and "seen: <redacted>" in got["said"]
        assert token not in driver.said


def test_F15_a_wrong_token_is_refused_not_asked_for(driver, folder):
    env = {"DRIVER_SECRET_FILE": driver.secret("wrong-token-of-mine")}
    with TlsGit(folder / "r", token="right") as r:
        env["DRIVER_CA"] = r.ca.file
        r.repository("a.git")
        for got in (driver.probe(r.url("a.git"), **env), driver.fetch(r.url("a.git"), **env),
                    driver.push(r.url("a.git"), **env)):
            assert got["answer"] == "unauthorized" and got["is_credentials"], got


def test_the_users_own_helpers_are_asked_when_allowed(driver, folder):
    token = "tok" + secrets.token_hex(16)
    stored = driver.home + "/.git-credentials"
    with TlsGit(folder / "r", token=token) as r:
        env = {"DRIVER_CA": r.ca.file}
        r.repository("a.git")
        line = f"https://someone:{token}@127.0.0.1%3a{r.port}\n"
        pathlib.Path(stored).write_text(line)
        with open(driver.home + "/.gitconfig", "w") as f:
            f.write("[credential]\n\thelper = store\n")
        assert driver.probe(r.url("a.git"), **env)["answer"] == "unauthorized"
        env["DRIVER_ASK"] = "1"
        assert driver.probe(r.url("a.git"), **env)["answer"] == "empty"
        assert driver.push(r.url("a.git"), **env)["code"] == "OK"
        assert driver.fetch(r.url("a.git"), **env)["code"] == "OK"
        r.token = "changed"
        assert driver.fetch(r.url("a.git"), **env)["answer"] == "unauthorized"
        assert pathlib.Path(stored).read_text() == line, "nothing is approved or erased there"


def test_T29_a_helper_that_has_nothing_is_no_prompt(driver, folder):
    with TlsGit(folder / "r", token="x") as r:
        r.repository("a.git")
        env = {"DRIVER_CA": r.ca.file, "DRIVER_ASK": "1", "DISPLAY": ":0", "SSH_ASKPASS": "/bin/cat"}
        assert driver.probe(r.url("a.git"), **env)["answer"] == "unauthorized"
        assert driver.fetch(r.url("a.git"), **env)["answer"] == "unauthorized"


def ask_helper(driver, question, handed, action="get", fd=True):
    """memfs-hook credential, by hand: what git does."""
    read, write = os.pipe()
    os.close(write)
    memory = os.memfd_create("handed")
    os.write(memory, handed)
    try:
        return subprocess.run([driver.hook, "credential", action], input=question, timeout=30,
                              capture_output=True, pass_fds=(memory,),
                              env={"MEMFS_CREDENTIAL_FD": str(memory)} if fd else {})
    finally:
        os.close(memory)
        os.close(read)


def fields(*values):
    return b"".join(b"%04x" % len(v) + v for v in values)


def test_T25_the_helper_answers_for_its_host_alone(driver):
    handed = fields(b"https", b"git.example:8443", b"me", b"s3cret")
    yes = b"username=me\npassword=s3cret\n"
    for question, answer in [
            (b"protocol=https\nhost=git.example:8443\npath=a.git\n\n", yes),
            (b"capability[]=authtype\nprotocol=https\nhost=git.example:8443\n\n", yes),
            (b"protocol=https\nhost=git.example\n\n", b""),
            (b"protocol=http\nhost=git.example:8443\n\n", b""),
            (b"protocol=https\nhost=evil.example\n\n", b""),
            (b"protocol=https\nhost=git.example:8443\nhost=evil.example\n\n", b""),
            (b"protocol=https\nhost=evil.example\n\nhost=git.example:8443\n", b""),
            (b"host=git.example:8443\n\n", b""), (b"", b"")]:
        assert ask_helper(driver, question, handed).stdout == answer, question
    for action in ("store", "erase", "fill"):
        done = ask_helper(driver, b"protocol=https\nhost=git.example:8443\n\n", handed, action)
        assert (done.returncode, done.stdout) == (0, b"")
    ask = b"protocol=https\nhost=git.example:8443\n\n"
    for damaged in (b"", handed[:-1], handed + b"x", b"zzzz" + handed[4:],
                    fields(b"https", b"git.example:8443", b"me", b"s3\ncret")):
        done = ask_helper(driver, ask, damaged)
        assert done.returncode == 1 and done.stdout == b"", damaged
    assert ask_helper(driver, ask, handed, fd=False).returncode == 1
