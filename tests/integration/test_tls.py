"""TLS at the server's own door: git's journeys, the clocks, certificates that change."""
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import warnings

import pytest

from lib import wire
from lib.authmatrix import basic, bearer
from lib.gitcli import Git
from lib.patience import wait
from lib.server import new_agent
from lib.summary import count
from lib.tlsgit import Authority


@pytest.fixture
def ca(folder):
    return Authority(folder)


def install(ca, folder, **kw):
    """A new pair under the names that the server was told; the key is its owner's."""
    cert, key = ca.certificate(**kw)
    os.chmod(key, 0o600)
    for path, name in ((cert, "cert.pem"), (key, "key.pem")):
        shutil.copy2(path, folder / (name + ".new"))
        os.rename(folder / (name + ".new"), folder / name)
    return [str(folder / "cert.pem"), str(folder / "key.pem")]


def tls_args(pair):
    return ["--tls-cert", pair[0], "--tls-key", pair[1]]


@pytest.fixture
def server(servers, ca, folder):
    s = servers(start=False, args=tls_args(install(ca, folder)))
    s.made = s.token()
    return s.start()


@pytest.fixture
def git(folder, server, ca):
    g = Git(folder / "githome")
    g.env["GIT_SSL_CAINFO"] = ca.file
    n = int(g.env["GIT_CONFIG_COUNT"])
    g.env["GIT_CONFIG_COUNT"] = str(n + 1)
    g.env[f"GIT_CONFIG_KEY_{n}"] = "http.extraHeader"
    g.env[f"GIT_CONFIG_VALUE_{n}"] = "Authorization: Bearer " + server.made["token"]
    return g


def context(ca, **kw):
    c = ssl.create_default_context(cafile=ca.file)
    for name, value in kw.items():
        setattr(c, name, value)
    return c


def dial(server, ca, **kw):
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    return context(ca, **kw).wrap_socket(raw, server_hostname="localhost")


def serial(sock):
    return sock.getpeercert()["serialNumber"]


def ask(sock, target="/healthz", headers=None):
    head = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.status, answer.read()


# -- git and curl ----------------------------------------------------------------------------------

def test_gits_journeys_over_tls(server, git, folder, agent):
    """Clone of the genesis, small pushes, forty MiB in and out, fetch, pull, a refused push."""
    a = agent()
    c = git.clone(server.git_url(a), folder / "one")
    c.save({"system/human.md": "hello\n"})
    big = {f"big/{i}.bin": os.urandom(8 << 20) for i in range(5)}
    c.save(big)
    other = git.clone(server.git_url(a), folder / "two")
    assert all(other.read(p) == data for p, data in big.items())
    other.save({"system/human.md": "hello again\n"})
    c.write("late.md", "late\n")
    c.commit()
    assert c.push(check=False).returncode != 0      # not a fast-forward
    c.run("pull", "-q", "--rebase", "origin", "main")
    c.push()
    other.pull()
    assert other.head == c.head and other.read("late.md") == b"late\n"
    shallow = git.clone(server.git_url(a), folder / "three", "--depth=1")
    assert shallow.head == c.head
    git.run("-c", "protocol.version=0", "clone", "-q", server.git_url(a), folder / "four")
    count("tls", journeys=1, mib_each_way=40)


def test_curl_over_tls(server, ca, folder, agent):
    def curl(*args):
        return subprocess.run(["/usr/bin/curl", "-sS", "--cacert", ca.file, *args],
                              capture_output=True, timeout=120, env={"PATH": "/usr/bin:/bin"})
    token = server.made["token"]
    assert curl(server.url + "/healthz").stdout == b'{"status":"ok"}'
    assert curl("-u", "letta:" + token, server.url + "/v1/agents/").stdout == b"[]"
    assert b"401" in curl("-o", "/dev/null", "-w", "%{http_code}", server.url + "/v1/agents/").stdout
    untrusted = subprocess.run(["/usr/bin/curl", "-sS", server.url + "/healthz"],
                               capture_output=True, timeout=60, env={"PATH": "/usr/bin:/bin"})
    assert untrusted.returncode == 60 and untrusted.stdout == b""
    plain = curl(server.url.replace("https", "http") + "/healthz")
    assert plain.returncode != 0 and b"ok" not in plain.stdout
    # a body of 100 MB is refused at its head, over TLS too
    refused = curl("-X", "POST", "-H", "Authorization: Bearer " + token, "-H",
                   "Content-Type: application/x-git-receive-pack-request", "-H", "Expect: 100-continue",
                   "-H", "Content-Length: 100000000", "-o", "/dev/null", "-w", "%{http_code}",
                   f"{server.url}/v1/git/{agent()}/state.git/git-receive-pack")
    assert refused.stdout == b"413", refused


def test_many_requests_on_one_connection_and_pipelined(server, ca):
    headers = bearer(server.made["token"])
    with dial(server, ca) as sock:
        for _ in range(200):
            assert ask(sock, "/v1/agents/", headers)[0] == 200
        one = f"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        sock.sendall(one * 50)      # one record may hold many requests
        got = b""
        while got.count(b"HTTP/1.1 200 ") < 50 or not got.endswith(b"}"):
            got += sock.recv(65536)
        # a request in one-byte records
        for byte in one:
            sock.sendall(bytes([byte]))
        assert b"200 OK" in sock.recv(65536)


def test_T19_heads_are_guarded_over_tls_too(server, ca):
    bad = [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\nX-B: b\r\n\r\n",
           b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
           b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
           b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
           b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"]
    for head in bad:
        with dial(server, ca) as sock:
            sock.sendall(head)
            got = b""
            try:
                while (piece := sock.recv(65536)):
                    got += piece
            except (ConnectionResetError, ssl.SSLError):
                pass
            assert got.startswith(b"HTTP/1.1 400 "), (head, got)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_F10_F11_a_push_that_breaks_over_tls_changes_nothing(server, ca, agent, how):
    a, objects = agent(), wire.Objects()
    tree = objects.tree_of({"big.bin": os.urandom(3 << 20)})
    commit = objects.commit(tree, [wire.GENESIS])
    body = bytearray(wire.push_body([(wire.GENESIS, commit, wire.MAIN)], objects.pack()))
    if how == "flipped":
        body[len(body) // 2] ^= 0xFF
    head = (f"POST /v1/git/{a}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {server.made['token']}\r\n"
            f"Content-Type: application/x-git-receive-pack-request\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode()
    sock = dial(server, ca)
    sock.sendall(head + (body if how == "flipped" else body[:len(body) // 2]))
    if how == "flipped":
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        report = wire.Report(answer.status, answer.read())
        assert not report.acked and report.complete, report
    sock.close()
    wait(lambda: f"{a}/state.git/git-receive-pack" in server.log(), "the push ends")
    assert not os.path.isdir(server.repository(a)) or not server.has_object(a, commit)
    server.wait_no_leftovers()


# -- the clocks (T18) ------------------------------------------------------------------------------

def closed_by(sock):
    """Reads to the end of what the server sends; True when it closed."""
    sock.settimeout(90)
    try:
        while sock.recv(65536):
            pass
    except (ConnectionResetError, ssl.SSLError):
        pass
    except socket.timeout:
        return False
    return True


def test_T18_slow_clients_over_tls_are_ended(server, ca, agent):
    """No handshake, half of one, half a head, a body that stops, an answer that nobody reads; all
    at once, while others are served."""
    def silent():
        return socket.create_connection(("127.0.0.1", server.port), timeout=60)

    def half_handshake():
        s = silent()
        s.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        return s

    def half_head():
        s = dial(server, ca)
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ")
        return s

    def half_second_head():
        s = dial(server, ca)
        assert ask(s)[0] == 200
        s.sendall(b"GET /hea")
        return s

    def half_body():
        s = dial(server, ca)
        s.sendall((f"POST /v1/git/{agent()}/state.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                   f"Authorization: Bearer {server.made['token']}\r\n"
                   "Content-Type: application/x-git-receive-pack-request\r\n"
                   "Content-Length: 100000\r\n\r\n00").encode())
        return s

    ended = {}

    def hold(make):
        ended[make.__name__] = closed_by(make())

    ways = [silent, half_handshake, half_head, half_second_head, half_body]
    threads = [threading.Thread(target=hold, args=(w,), daemon=True) for w in ways * 4]
    for t in threads:
        t.start()
    with dial(server, ca) as sock:
        while any(t.is_alive() for t in threads):
            assert ask(sock)[0] == 200
            time.sleep(0.05)
    for t in threads:
        t.join()
    assert ended == {w.__name__: True for w in ways}
    count("tls", slow_clients_ended=len(threads))


def test_a_clone_that_is_read_slowly_over_tls_arrives_whole(server, ca, git, folder, agent):
    """Back-pressure through suspend and resume, with records in between (8 MiB, read in sips)."""
    a = agent()
    c = git.clone(server.git_url(a), folder / "one")
    c.save({"big.bin": os.urandom(8 << 20)})
    want = wire.pkt(f"want {c.head} side-band-64k no-progress\n") + wire.FLUSH + wire.pkt("done\n")
    with dial(server, ca) as sock:
        sock.sendall((f"POST /v1/git/{a}/state.git/git-upload-pack HTTP/1.1\r\nHost: x\r\n"
                      f"Authorization: Bearer {server.made['token']}\r\n"
                      "Content-Type: application/x-git-upload-pack-request\r\n"
                      f"Content-Length: {len(want)}\r\n\r\n").encode() + want)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        data, n = bytearray(), 0
        while (piece := answer.read(100000)):
            data += piece
            n += 1
            if n % 10 == 0:
                time.sleep(0.1)
    pack = b"".join(p[1:] for p in wire.pkts(bytes(data)) if p and p[:1] == b"\x01")
    unpacked = folder / "bare.git"
    git.run("init", "-q", "--bare", unpacked)
    git.run("--git-dir", unpacked, "index-pack", "--stdin", "--strict", input=pack)
    assert git.run("--git-dir", unpacked, "cat-file", "-e", c.head).returncode == 0


# -- versions and certificates ---------------------------------------------------------------------

def test_versions(server, ca):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with dial(server, ca, minimum_version=version, maximum_version=version) as sock:
            assert ask(sock)[0] == 200
    old = context(ca)
    warnings.simplefilter("ignore", DeprecationWarning)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(raw, server_hostname="localhost")
    raw.close()


@pytest.mark.parametrize("how", ["file", "SIGHUP"])
def test_a_new_certificate_is_shown_and_connections_stay(server, ca, folder, how):
    with dial(server, ca) as sock:
        first = serial(sock)
        assert ask(sock)[0] == 200
        install(ca, folder)
        if how == "SIGHUP":
            server.process.send_signal(signal.SIGHUP)

        def is_new():
            with dial(server, ca) as other:
                return serial(other) != first
        wait(is_new, "the new certificate")
        assert ask(sock)[0] == 200 and serial(sock) == first
    count("tls", reloads=1)


def test_a_broken_pair_is_logged_and_the_old_one_stays(server, ca, folder):
    def current():
        with dial(server, ca) as sock:
            assert ask(sock)[0] == 200
            return serial(sock)

    first, key = current(), (folder / "key.pem").read_bytes()
    other_key = open(ca.certificate()[1], "rb").read()

    def put(name, data, mode=0o600):
        (folder / "new").write_bytes(data)
        os.chmod(folder / "new", mode)
        os.rename(folder / "new", folder / name)

    for n, (name, data, mode, words) in enumerate([
            ("key.pem", other_key, 0o600, "is not the one of the certificate"),
            ("key.pem", b"no key\n", 0o600, "holds no private key"),
            ("key.pem", key, 0o644, "is open to others"),
            ("cert.pem", b"", 0o644, "holds no certificate")]):
        put(name, data, mode)
        if n % 2:
            server.process.send_signal(signal.SIGHUP)
        wait(lambda: words in server.log(), words)
        assert current() == first
    assert "event=tls_certificate_refused" in server.log()
    install(ca, folder)
    wait(lambda: current() != first, "the good pair")


@pytest.mark.parametrize("what, words", [
    ("open key", "is open to others"), ("group may write", "is open to others"),
    ("other key", "is not the one of the certificate"), ("no key", "could not read the private key"),
    ("no certificate", "could not read the certificate"), ("folder", "is not a file"),
    ("key alone", "go together"), ("swapped", "holds no certificate"),
])
def test_what_a_server_does_not_start_with(memfs_bin, ca, folder, what, words):
    cert, key = install(ca, folder)
    args = tls_args((cert, key))
    if what == "open key":
        os.chmod(key, 0o604)
    elif what == "group may write":
        os.chmod(key, 0o660)
    elif what == "other key":
        shutil.copy2(ca.certificate()[1], key)
        os.chmod(key, 0o600)
    elif what == "no key":
        os.unlink(key)
    elif what == "no certificate":
        os.unlink(cert)
    elif what == "folder":
        args = tls_args((str(folder), key))
    elif what == "key alone":
        args = args[2:]
    elif what == "swapped":
        os.chmod(cert, 0o600)
        args = tls_args((key, cert))
    done = subprocess.run([memfs_bin, "serve", "--home", folder / "h", "--listen", "127.0.0.1:0",
                           *args], capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(folder)})
    assert done.returncode not in (0, -9) and words.encode() in done.stderr, done
    assert b"listening" not in done.stderr and b"BEGIN" not in done.stderr


def test_a_key_that_the_group_may_read_will_do(servers, ca, folder):
    """As Debian's ssl-cert group has it."""
    pair = install(ca, folder)
    os.chmod(pair[1], 0o640)
    s = servers(start=False, args=tls_args(pair)).start()
    with dial(s, ca) as sock:
        assert ask(sock)[0] == 200


def test_an_expired_certificate_is_told(servers, ca, folder):
    s = servers(start=False, args=tls_args(install(ca, folder, expired=True))).start()
    assert "event=tls_certificate_expired" in s.log()


def test_beyond_loopback_with_tls_nobody_is_warned(servers, ca, folder):
    s = servers(start=False, args=tls_args(install(ca, folder)))
    s.listen = "0.0.0.0:0"
    made = s.token()
    s.start()
    assert "event=clear_text" not in s.log()
    with dial(s, ca) as sock:
        assert ask(sock, "/v1/agents/")[0] == 401
        assert ask(sock, "/v1/agents/", basic(made["token"]))[0] == 200
        assert ask(sock, "/v1/agents/", bearer(made["token"]))[1] == b"[]"


def test_S3_the_private_key_is_nowhere_but_in_its_file(server, ca, folder):
    with dial(server, ca) as sock:
        ask(sock)
    lines = (folder / "key.pem").read_text().splitlines()
    body = max(lines, key=len)
    assert body not in server.log()
    found = subprocess.run(["grep", "-rlaF", body, server.home], capture_output=True)
    assert found.stdout == b""
    with open(f"/proc/{server.pid}/cmdline", "rb") as f:
        assert b"PRIVATE" not in f.read()
    assert re.search(r"event=tls_certificate until=", server.log())
