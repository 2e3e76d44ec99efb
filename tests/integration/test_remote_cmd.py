"""`memfs remote`: set, show, check and unset; from the moment of set the Letta key stays at home."""
import base64
import json
import os
import re
import stat

import pytest

from lib.client import GENESIS, Home
from lib.fake_remote import FakeRemote, closed_port

CANARY = "canary-r3m0te-t0ken"
KEY = "canary-letta-key"


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def remote(folder):
    with FakeRemote(folder / "remote", token=CANARY) as r:
        yield r


def shown(home, agent, *args, **kw):
    return json.loads(home.run("remote", *args, "--agent", agent, "--json", **kw).stdout)


def files_with(folder, needle):
    found = []
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            if os.path.islink(path):
                continue
            with open(path, "rb") as f:
                if needle in f.read():
                    found.append(os.path.relpath(path, folder))
    return sorted(found)


def set_with_token(home, agent, url, token=CANARY, **kw):
    path = os.path.join(home.folder, "token")
    with open(path, "w") as f:
        f.write(token + "\n")
    os.chmod(path, 0o600)
    done = home.run("remote", "set", "--agent", agent, url, "--token-file", path, "--json", **kw)
    os.unlink(path)
    return done


def test_set_makes_the_memory_and_checks(home, remote, agent):
    a = agent()
    url = remote.url("mem.git")
    remote.repository("mem.git")
    told = json.loads(set_with_token(home, a, url).stdout)
    assert told["remote"] == url and told["why"] == "memfs.remote of the checkout"
    assert told["credential"] == "secrets" and told["backend"] == "auto"
    assert home.config(a, "memfs.remote") == [url]
    assert home.config(a, "remote.origin.url") == [url]
    home.check(a, origin=url)
    assert home.ref(a, "main") == GENESIS
    got = shown(home, a, "check")
    assert got["answer"] == "empty" and got["exit"] == 0 and got["http_status"] == 200


def test_S3_the_token_is_in_secrets_and_in_the_header_of_its_host_alone(home, remote, agent):
    a = agent()
    done = set_with_token(home, a, remote.url("mem.git"))
    assert CANARY.encode() not in done.stdout + done.stderr
    holders = files_with(home.folder, CANARY.encode())
    assert len(holders) == 1 and holders[0].startswith(".memfs/secrets/")
    path = os.path.join(home.folder, holders[0])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    # plain git in the checkout reaches the host, by the header that also stops the Letta key
    [header] = home.config(a, f"http.http://127.0.0.1:{remote.port}/.extraHeader")
    user_and_secret = base64.b64decode(header.removeprefix("Authorization: Basic ")).decode()
    assert user_and_secret.endswith(":" + CANARY)
    assert stat.S_IMODE(os.stat(home.git_dir(a) + "/config").st_mode) == 0o600


def test_S3_the_letta_key_does_not_reach_the_foreign_host(home, folder, agent):
    """The client puts its key on every git request (contract 7): -c http.extraHeader, unscoped."""
    a = agent()
    letta = "-c", "credential.helper=", "-c", "http.extraHeader=Authorization: Basic " + \
        base64.b64encode(f"letta:{KEY}".encode()).decode()
    home.env.update(LETTA_BASE_URL="http://127.0.0.1:9", LETTA_API_KEY=KEY)
    with FakeRemote(folder / "open") as r:      # takes anybody: what it is shown is the question
        r.repository("mem.git")
        home.run("remote", "set", "--agent", a, r.url("mem.git"))
        c = home.checkout(a)
        c.run(*letta, "push", "-q", "-u", "origin", "main")
        c.run(*letta, "fetch", "-q", "origin")
        c.run(*letta, "pull", "-q", "--ff-only")
        home.run("remote", "check", "--agent", a)
        home.run("sync", "--agent", a)
        assert len(r.requests) >= 4
        encoded = base64.b64encode(f"letta:{KEY}".encode()).decode()
        for request in r.requests:
            assert KEY not in str(request) and encoded not in str(request)
    assert files_with(home.folder, KEY.encode()) == []


@pytest.mark.parametrize("command", ["set", "clone"])
def test_S3_an_agent_that_moves_its_remote_gets_no_token_there(home, folder, remote, agent, command):
    """The operator names a host; `git config memfs.remote https://evil/` is the agent's, or its reader's."""
    a = agent()
    remote.repository("mem.git")
    token = folder / "token"
    token.write_text(CANARY + "\n")
    token.chmod(0o600)
    home.env["MEMFS_REMOTE_TOKEN_FILE"] = str(token)
    name = ("remote", "set") if command == "set" else ("clone",)
    home.run(*name, "--agent", a, remote.url("mem.git"))
    approved = os.path.join(home.folder, ".memfs", "remotes", a)
    assert home.sync(a)["state"] == "synced"        # the token went where it was meant for
    with FakeRemote(folder / "evil", token="another") as evil:
        evil.repository("mem.git")
        home.checkout(a).run("config", "memfs.remote", evil.url("mem.git"))
        report = home.sync(a, code=4)
        assert "memfs remote set --agent ID URL" in report["line"] + report["advice"]
        assert f"memfs remote set --agent {a}" in shown(home, a, "show")["warning"]
        shown(home, a, "check", code=None)
        assert evil.requests and not [q for q in evil.requests if "authorization" in q.headers]
        assert not [v for v in home.config(a, f"http.http://127.0.0.1:{evil.port}/.extraHeader") if v]
        home.run("remote", "set", "--agent", a, evil.url("mem.git"))      # now the operator says it
        home.sync(a, code=4)
        assert [q for q in evil.requests if "authorization" in q.headers]
    assert stat.S_IMODE(os.stat(approved).st_mode) == 0o600
    home.run("remote", "unset", "--agent", a)
    assert not os.path.exists(approved)


def test_T24_user_info_in_an_address_is_accepted_with_a_warning(home, remote, agent):
    a = agent()
    remote.repository("mem.git")
    url = remote.url("mem.git")
    done = home.run("remote", "set", "--agent", a, url.replace("://", f"://bob:{CANARY}@"))
    assert b"kept in secrets/" in done.stderr
    assert CANARY.encode() not in done.stdout + done.stderr
    assert home.config(a, "memfs.remote") == [url] and home.config(a, "remote.origin.url") == [url]
    assert [f.split("/")[1] for f in files_with(home.folder, CANARY.encode())] == ["secrets"]
    told = shown(home, a, "show")
    assert told["username"] == "bob" and told["remote"] == url and told["warning"] is None
    assert shown(home, a, "check")["exit"] == 0


def test_S3_a_token_in_argv_is_refused_and_not_repeated(home, agent):
    a = agent()
    for words in (("--token", CANARY), (f"--token={CANARY}",)):
        done = home.run("remote", "set", "--agent", a, "https://git.example/x.git", *words, code=2)
        assert b"--token-stdin" in done.stderr and CANARY.encode() not in done.stdout + done.stderr
    assert not os.path.exists(home.memory(a))


def test_a_token_from_stdin(home, remote, agent, memfs_bin):
    import subprocess
    a = agent()
    remote.repository("mem.git")
    done = subprocess.run([memfs_bin, "remote", "set", "--agent", a, remote.url("mem.git"),
                           "--token-stdin"], env=home.env, input=CANARY.encode() + b"\n",
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert shown(home, a, "check")["answer"] == "empty"
    for bad in (b"", b"\n", b"two\nlines\n", b"nul\0inside", b"x" * 10000):
        done = subprocess.run([memfs_bin, "remote", "set", "--agent", a, remote.url("mem.git"),
                               "--token-stdin"], env=home.env, input=bad, capture_output=True,
                              timeout=60)
        assert done.returncode in (1, 2) and b"token" in done.stderr, bad


def test_S4_a_token_file_that_others_may_read_is_refused(home, agent):
    path = os.path.join(home.folder, "token")
    with open(path, "w") as f:
        f.write(CANARY)
    os.chmod(path, 0o644)
    done = home.run("remote", "set", "--agent", agent(), "https://git.example/x.git",
                    "--token-file", path, code=6)
    assert b"chmod 600" in done.stderr and CANARY.encode() not in done.stderr
    assert files_with(os.path.join(home.folder, ".memfs"), CANARY.encode()) == []


@pytest.mark.parametrize("url, words", [
    ("ext::sh -c id", b"address"), ("git://host.example/x", b"address"), ("-oProxy=x", b"option"),
    ("https://host.example/\n", b"address"),
    ("http://far.example/x.git", b"allow-http far.example"),
    ("https://git.example/{agentId}/{agentId}.git", b"agentId"),
])
def test_T06_what_is_no_address_changes_nothing(home, agent, url, words):
    a = agent()
    done = home.run("remote", "set", "--agent", a, url, code=None)
    assert done.returncode in (2, 6) and words in done.stderr
    assert not os.path.exists(home.memory(a)) and not os.path.exists(home.folder + "/.memfs/config")


def test_an_address_for_all_agents(home, folder, agent):
    one, two = agent(), agent()
    done = home.run("remote", "set", "/srv/one.git", code=2)
    assert b"needs {agentId}" in done.stderr
    done = home.run("remote", "set", f"{folder}/all/{{agentId}}.git", "--json")
    assert json.loads(done.stdout) == [] and b"the address holds for every agent" in done.stderr
    assert home.run("config", "remote").stdout.decode().strip() == f"{folder}/all/{{agentId}}.git"
    for a in (one, two):
        home.run("init", "--agent", a)
        assert shown(home, a, "show")["remote"] == f"{folder}/all/{a}.git"
    told = json.loads(home.run("remote", "--json").stdout)
    assert sorted(row["agent_id"] for row in told) == sorted((one, two))
    own = f"{folder}/own.git"
    home.run("remote", "set", "--agent", one, own)
    assert shown(home, one, "show")["remote"] == own
    assert shown(home, two, "show")["remote"] == f"{folder}/all/{two}.git"
    done = home.run("remote", "unset", "--json")
    told = {row["agent_id"]: row["remote"] for row in json.loads(done.stdout)}
    assert told == {one: own, two: None} and b"no address for all agents any more" in done.stderr
    assert shown(home, two, "show")["remote"] is None
    assert shown(home, one, "show")["remote"] == own


def test_a_template_does_not_become_the_remote_of_the_agent_that_set_it(home, folder, agent):
    a, b = agent(), agent()
    home.env["LETTA_AGENT_ID"] = a          # as in an agent's own shell
    home.run("remote", "set", f"{folder}/all/{{agentId}}.git")
    assert shown(home, b, "show")["remote"] == f"{folder}/all/{b}.git"


def test_unset_takes_it_all_back(home, remote, agent):
    a = agent()
    home.env.update(LETTA_BASE_URL="http://127.0.0.1:9")
    remote.repository("mem.git")
    set_with_token(home, a, remote.url("mem.git"))
    home.run("sync", "--agent", a)
    told = shown(home, a, "unset")
    letta = f"http://127.0.0.1:9/v1/git/{a}/state.git"
    assert told["remote"] == letta
    assert home.config(a, "memfs.remote") == [] and home.config(a, "remote.origin.url") == [letta]
    assert files_with(home.folder, CANARY.encode()) == []
    assert not any("extraheader" in line.lower() and str(remote.port) in line
                   for line in open(home.git_dir(a) + "/config"))
    home.check(a, origin=letta)
    assert b"no remote was set" in home.run("remote", "unset", "--agent", a, code=1).stderr


ANSWERS = [("501", 3, "not-implemented"), ("404", 3, "not-found"), ("html", 3, "not-git"),
           ("401", 4, "unauthorized"), ("403", 4, "forbidden"), ("503", 3, "failing"),
           ("429", 3, "too-many")]


@pytest.mark.parametrize("status, code, _", ANSWERS, ids=[a[0] for a in ANSWERS])
def test_check_says_in_words_what_the_remote_says(home, folder, agent, status, code, _):
    from lib.fake_remote import Answer
    a = agent()
    with FakeRemote(folder / "r") as r:
        home.run("remote", "set", "--agent", a, r.url("mem.git"))
        r.say(Answer(200, b"<html>hotel wifi", "text/html") if status == "html"
              else Answer(int(status), b"no"))
        told = shown(home, a, "check", code=code)
        assert told["exit"] == code and told["words"] and told["answer"]
        done = home.run("remote", "check", "--agent", a, code=code)
        assert told["words"].rstrip(")").encode() in done.stdout      # a detail follows in the same brackets
        assert told["detail"].encode() in done.stdout
        if told["advice"]:
            assert told["advice"].encode() in done.stderr


def test_check_of_nobody_and_of_nothing(home, agent):
    a = agent()
    home.run("remote", "set", "--agent", a, f"http://127.0.0.1:{closed_port()}/x.git")
    assert shown(home, a, "check", code=3)["exit"] == 3
    home.env["MEMFS_BACKEND"] = "none"
    assert shown(home, a, "check")["why"].startswith("the backend is none")
    home.env["MEMFS_BACKEND"] = "auto"
    home.run("check", code=2)
    assert b"whose remote?" in home.run("remote", "check", code=2).stderr
    home.env["MEMFS_REMOTE"] = "ext::sh"
    assert shown(home, agent(), "check", code=2)["is_misconfigured"] is True


def test_set_says_when_the_backend_does_not_allow_it(home, folder, agent):
    home.env["MEMFS_BACKEND"] = "cloud"
    done = home.run("remote", "set", "--agent", agent(), f"{folder}/x.git")
    assert b"it is set but not used" in done.stderr


@pytest.mark.parametrize("args", [
    ("set",), ("show", "x"), ("frobnicate",), ("check", "--token-stdin"), ("--wait", "0", "check"),
    ("set", "https://x.example/y.git", "--token-stdin", "--token-file", "f"), ("set", "a", "b"),
])
def test_usage_errors(home, args):
    done = home.run("remote", *args, code=2)
    assert done.stdout == b"" and re.search(rb"^usage: memfs remote", done.stderr, re.M)
