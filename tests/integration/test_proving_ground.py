"""The tests' own instruments: each must be able to show what it is there to show."""
import contextlib
import http.client
import http.server
import itertools
import os
import random
import socket
import threading
import time

import pytest

from lib.faultproxy import FaultProxy
from lib.gitcli import Git
from lib.gitolite import Gitolite
from lib.graph import Graph, forced, is_ancestor
from lib.machines import Machine, Network
from lib.refwatch import RefWatch, allows_force

PATH = "agents/agent-1.git"


@pytest.fixture
def net():
    with Network() as n:
        yield n


@pytest.fixture
def host(folder):
    with Gitolite(folder, ssh=True) as h:
        yield h


def remote(host, path=PATH, account="memfs", token=None):
    return host.url(path).replace("://", f"://{account}:{token or host.token(account)}@")


@pytest.fixture
def clone(folder):
    c = Git(folder / "githome").init(folder / "clone")
    c.write("a.md", "1")
    c.commit()
    return c


@contextlib.contextmanager
def echo_server(machine=None, answer=b"x" * 5000):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with machine.inside() if machine else contextlib.nullcontext():
        server = http.server.ThreadingHTTPServer((machine.address if machine else "127.0.0.1", 0), Handler)
    t = machine.thread(server.serve_forever) if machine else threading.Thread(target=server.serve_forever)
    if not machine:
        t.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def get(port, host="127.0.0.1", timeout=5):
    c = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        c.request("GET", "/")
        return c.getresponse().read()
    finally:
        c.close()


# ---- machines

def test_machines_reach_each_other_until_a_cable_is_cut(net):
    anna, bert = net.machine("anna"), net.machine("bert")
    with echo_server(bert) as port:
        with anna.inside():
            assert get(port, bert.address) == b"x" * 5000
        with pytest.raises(OSError):
            get(port, bert.address, 1)      # not from this machine's own network
        bert.cut()
        with anna.inside(), pytest.raises(OSError):
            get(port, bert.address, 1)
        with bert.inside():                 # inside, nobody notices
            assert get(port, bert.address) == b"x" * 5000
        bert.heal()
        with anna.inside():
            assert get(port, bert.address) == b"x" * 5000


def test_machines_lose_packets_one_way(net):
    anna, bert = net.machine("anna"), net.machine("bert")
    with echo_server(bert) as port:
        anna.lose("bert")
        with anna.inside(), pytest.raises(OSError):
            get(port, bert.address, 1)
        anna.heal()
        with anna.inside():
            assert get(port, bert.address) == b"x" * 5000


def test_machines_processes_die_with_them():
    with Network() as net:
        child = net.machine("anna").popen(["sleep", "600"])
        switch = net.switch
        assert os.path.exists("/run/netns/" + switch)
    assert child.wait(10) == -9
    assert not os.path.exists("/run/netns/" + switch)


def test_machines_clock_years_away(net):
    anna = net.machine("anna")
    year = int(anna.run(["date", "+%Y"], env=Machine.clock("+7y")).stdout)
    assert year in (time.gmtime().tm_year + 7, time.gmtime().tm_year + 6)


# ---- the proxy

@pytest.mark.parametrize("kind, n, got", [
    ("pass", 0, 5000), ("delay", 0.05, 5000), ("refuse", 0, None), ("silent", 0, None),
    ("cut", 1000, None), ("reset", 1000, None), ("half-open", 1000, None), ("garbage", 1000, 5000),
    ("flip", 97, None), ("drip", 0.5, None)])
def test_proxy_behaves_as_told(kind, n, got):
    with echo_server() as port, FaultProxy("127.0.0.1", port) as proxy:
        proxy.behave(kind, n)
        try:
            answer = get(proxy.port, timeout=15 if got else 1.5)
        except (OSError, http.client.HTTPException):
            answer = None
        assert (answer is None) == (got is None), answer
        if got:
            assert len(answer) == got and (answer == b"x" * 5000) == (kind != "garbage")
        proxy.mend()
        assert get(proxy.port) == b"x" * 5000


def test_proxy_counts_and_heals_by_itself():
    with echo_server() as port, FaultProxy("127.0.0.1", port) as proxy:
        proxy.behave("reset", 0, times=2)
        for _ in range(2):
            with pytest.raises((OSError, http.client.HTTPException)):
                get(proxy.port)
        assert get(proxy.port) == b"x" * 5000
        assert (proxy.connections, proxy.n_bad) == (3, 2)


def test_proxy_drops_what_is_open():
    with echo_server() as port, FaultProxy("127.0.0.1", port) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), 5) as s:
            while not proxy.open:
                time.sleep(0.01)
            proxy.drop_all()
            with contextlib.suppress(ConnectionResetError):
                assert s.recv(1) == b""


# ---- the host and its watcher

def test_host_knows_its_accounts(host, clone):
    assert b"Authentication failed" in clone.run("push", remote(host, token="no"), "main",
                                                 check=False).stderr
    clone.run("push", remote(host), "main")
    assert host.tip(PATH) == clone.head
    clone.run("ls-remote", remote(host, account="reader"))
    for account, what in (("reader", "push"), ("outsider", "push")):
        done = clone.run(what, remote(host, account=account), "main:other", check=False)
        assert done.returncode != 0 and b"DENIED" in done.stderr, (account, done.stderr)
    assert b"DENIED" in clone.run("ls-remote", remote(host, account="outsider"), check=False).stderr
    assert b"DENIED" in clone.run("push", remote(host, "sealed/a.git"), "main", check=False).stderr
    clone.run("push", remote(host, "locked/a.git"), "main:other")
    assert b"hook declined" in clone.run("push", remote(host, "locked/a.git"), "main",
                                         check=False).stderr
    host.revoke("memfs")
    assert clone.run("ls-remote", remote(host), check=False).returncode != 0
    host.restore("memfs")
    clone.run("ls-remote", remote(host))


def test_host_speaks_ssh_and_comes_back_after_a_kill(host, clone):
    ssh = {"GIT_SSH_COMMAND": "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o "
           f"UserKnownHostsFile={host.known_hosts} -i {host.key('memfs')}"}
    clone.run("push", host.ssh_url(PATH), "main", env=ssh)
    assert host.tip(PATH) == clone.head
    host.kill()
    assert clone.run("ls-remote", remote(host), check=False).returncode != 0
    assert clone.run("ls-remote", host.ssh_url(PATH), check=False, env=ssh).returncode != 0
    host.start()
    clone.run("ls-remote", remote(host))
    clone.run("ls-remote", host.ssh_url(PATH), env=ssh)


def test_watcher_sees_a_forced_push_and_a_deletion(host, clone):
    watch = RefWatch(host.root).start()
    clone.run("push", remote(host), "main", "main:side")
    assert allows_force(host.repository(PATH))
    clone.write("a.md", "2")
    clone.commit()
    clone.run("push", remote(host), "main")
    watch.stop()
    watch.check()
    watch.start()
    time.sleep(0.3)     # it has seen the repository: from now on the reflog is kept, too
    clone.run("commit", "-q", "--amend", "-m", "another past")
    clone.run("push", "--force", remote(host), "main")
    clone.run("push", remote(host), ":side")
    watch.stop()
    with pytest.raises(AssertionError) as caught:
        watch.check()
    assert "was forced" in str(caught.value) and "is gone" in str(caught.value)


def test_graph_says_of_each_pair_what_git_says(folder):
    git, rng = Git(folder / "githome").init(folder / "repo"), random.Random(7)
    tree, commits = git.text("mktree", input=b""), []
    for i in range(14):     # of several roots, with merges, all with one date
        parents = rng.sample(commits, min(len(commits), rng.choice([0, 1, 1, 1, 2, 3])))
        commits.append(git.text("commit-tree", "-m", str(i), *(x for p in parents for x in ("-p", p)), tree))
    git.run("update-ref", "refs/heads/main", commits[-1])
    git.run("tag", "-a", "-m", "tagged", "t", commits[0])
    path, tag, gone = os.path.join(git.path, ".git"), git.text("rev-parse", "t"), "f" * 40
    pairs = list(itertools.permutations([*commits, tag, gone], 2))
    bad = [pair for pair in pairs if not is_ancestor(path, *pair)]
    assert forced(path, pairs) == bad and 0 < len(bad) < len(pairs)
    graph = Graph(path, [*commits, gone])
    assert [(a, b) for a in commits for b in commits if graph.comes_from(b, a)] == [
        (a, b) for a in commits for b in commits if is_ancestor(path, a, b)]
    assert set(Graph(path, ["refs/heads/main"]).parents) == set(git.text("rev-list", "main").split())
