"""Ready-made set-ups: units, the protocols of a service manager, health, the image, compose files.

What runs here runs for real: sockets handed down by systemd-socket-activate, notifications, a server
that is process 1.  Units, compose files and the Dockerfile are read by the tools that are made for
that, and held against what the program says of itself.
"""
import glob
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import yaml

from lib import http as web
from lib import wire
from lib.patience import wait
from lib.server import AUTH, Server, new_agent

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PATIENCE = 60
# systemd-analyze counts from 0 (nothing can go wrong) to 100.
MOST_EXPOSED = 20


def until(said, what, timeout=PATIENCE):
    return wait(what, said, timeout)


# ---- systemd: the units

@pytest.fixture
def units(memfs_bin, folder):
    """The units as they are installed, but for the program's place."""
    built = pathlib.Path(memfs_bin).parent / "deploy"
    made = folder / "units"
    made.mkdir()
    for path in [*built.glob("*.service"), DEPLOY / "systemd" / "memfs.socket"]:
        text = re.sub(r"(?m)^ExecStart=\S+/memfs ", f"ExecStart={memfs_bin} ", path.read_text())
        assert not re.search(r"@[a-z]+@", text), f"{path}: something was not filled in"
        (made / path.name).write_text(text)
    assert sorted(p.name for p in made.iterdir()) == [
        "memfs-sync.service", "memfs.service", "memfs.socket", "memfs@.service"]
    return made


def analyze(folder, *args):
    done = subprocess.run(["systemd-analyze", "--no-pager", *map(str, args)], capture_output=True, text=True,
                          timeout=PATIENCE, env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder),
                                                 "HOME": str(folder), "LC_ALL": "C.UTF-8"})
    return done.returncode, done.stdout + done.stderr


def test_systemd_finds_no_fault_in_the_units(units):
    for scope, names in (("--system", ("memfs.service", "memfs@.service", "memfs.socket")),
                         ("--user", ("memfs-sync.service",))):
        assert analyze(units, "verify", "--man=no", scope, *(units / n for n in names)) == (0, "")


def test_systemd_analyze_sees_what_is_wrong(units):
    path = units / "memfs.service"
    path.write_text(path.read_text().replace("ProtectSystem=strict", "ProtectSystem=strictly"))
    assert "strictly" in analyze(units, "verify", "--man=no", path)[1]


def test_T30_the_services_are_exposed_to_little(units):
    for name in ("memfs.service", "memfs@.service"):
        code, text = analyze(units, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", units / name)
        assert code == 0, text


def test_what_the_sandbox_leaves_open_is_what_a_server_needs(units):
    code, text = analyze(units, "security", "--offline=yes", "--json=short", units / "memfs.service")
    assert code == 0, text
    unset = {row["json_field"] for row in json.loads(text) if row["set"] is False}
    assert unset <= {"DeviceAllow", "IPAddressDeny", "PrivateMounts", "PrivateNetwork", "PrivateUsers",
                     "RestrictAddressFamilies_AF_INET_INET6", "RestrictAddressFamilies_AF_UNIX",
                     "RootDirectoryOrRootImage", "SystemCallFilter_resources"}, unset


def test_units_manual_and_completion_go_where_distributions_look(memfs_bin):
    build = pathlib.Path(memfs_bin).parent
    done = subprocess.run(["meson", "introspect", "--installed", str(build)], capture_output=True, text=True,
                          timeout=PATIENCE, check=True)
    prefix = json.loads(subprocess.run(["meson", "introspect", "--buildoptions", str(build)], capture_output=True,
                                       text=True, timeout=PATIENCE, check=True).stdout)
    prefix = next(o["value"] for o in prefix if o["name"] == "prefix")
    places = {os.path.relpath(p, prefix) for p in json.loads(done.stdout).values()}
    assert {"bin/memfs", "bin/git-remote-memfs", "libexec/memfs/memfs-server", "libexec/memfs/memfs-hook",
            "libexec/memfs/memfs-postgresql.so", "share/man/man1/memfs.1",
            "lib/systemd/system/memfs.service", "lib/systemd/system/memfs@.service",
            "lib/systemd/system/memfs.socket", "lib/systemd/user/memfs-sync.service",
            "lib/sysusers.d/memfs.conf", "lib/tmpfiles.d/memfs.conf",
            "share/bash-completion/completions/memfs", "share/zsh/site-functions/_memfs",
            "share/fish/vendor_completions.d/memfs.fish"} <= places


def test_systemd_makes_the_user_and_the_folder_that_the_units_name(units, folder):
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    shutil.copy("/etc/group", root / "etc/group")
    conf = DEPLOY / "systemd"
    subprocess.run(["systemd-sysusers", f"--root={root}", str(conf / "memfs.sysusers")], check=True,
                   capture_output=True, timeout=PATIENCE)
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", str(conf / "memfs.tmpfiles")], check=True,
                   capture_output=True, timeout=PATIENCE)
    user = re.search(r"(?m)^User=(.+)$", (units / "memfs.service").read_text()).group(1)
    line = next(l for l in (root / "etc/passwd").read_text().splitlines() if l.startswith(user + ":"))
    assert line.split(":")[5:] == ["/var/lib/memfs", "/usr/sbin/nologin"]
    assert (root / "etc/memfs").is_dir()


# ---- a service manager's two protocols

class Manager:
    """Holds a listening socket and hears what a server tells; starts it as systemd would."""

    STARTER = ("import os, sys\n"
               "for i, fd in enumerate(map(int, sys.argv[1].split(','))): os.dup2(fd, 100 + i)\n"
               "n = i + 1\n"
               "for i in range(n): os.dup2(100 + i, 3 + i, inheritable=True)\n"
               "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(n), LISTEN_FDNAMES='x')\n"
               "os.execv(sys.argv[2], sys.argv[2:])\n")

    def __init__(self, folder, sockets):
        self.sockets = sockets
        self.path = str(folder / "notify")
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard.bind(self.path)
        self.heard.settimeout(PATIENCE)

    def start(self, server, *args):
        """What Server.start does, with the sockets in place of --listen."""
        fds = [s.fileno() for s in self.sockets]
        with open(server.log_path, "ab") as log:
            server.process = subprocess.Popen(
                [sys.executable, "-c", self.STARTER, ",".join(map(str, fds)), server.binary, "serve", "--home",
                 server.home, *args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", pass_fds=fds, start_new_session=True,
                env={**server.environment(), "NOTIFY_SOCKET": self.path})
        server.port = self.sockets[0].getsockname()[1]
        return server

    def next(self):
        return dict(line.split("=", 1) for line in self.heard.recv(4096).decode().splitlines())

    def close(self):
        for s in (*self.sockets, self.heard):
            s.close()


def listening(address="127.0.0.1", family=socket.AF_INET):
    s = socket.socket(family)
    s.bind((address, 0))
    s.listen(64)
    return s


@pytest.fixture
def manager(folder):
    m = Manager(folder, [listening()])
    yield m
    m.close()


def ask(port, target="/healthz", host="127.0.0.1"):
    """Connects and asks; the answer is read by whoever wants it."""
    s = socket.create_connection((host, port), timeout=PATIENCE)
    s.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return s


def begin_push(server, agent, n_bytes):
    """A push whose head was read; its body is still to come."""
    head = {**AUTH, "Host": "x", "Content-Type": "application/x-git-receive-pack-request",
            "Content-Length": str(n_bytes), "Expect": "100-continue"}
    s = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    s.sendall(f"POST /v1/git/{agent}/state.git/git-receive-pack HTTP/1.1\r\n".encode()
              + "".join(f"{k}: {v}\r\n" for k, v in head.items()).encode() + b"\r\n")
    said = b""
    while b"\r\n\r\n" not in said:
        said += s.recv(1)
    assert said.startswith(b"HTTP/1.1 100 "), said
    return s


def status_of(asked):
    return int(web.read_all(asked).split(b" ")[1])


def test_F30_a_manager_hears_when_it_is_ready_reloads_and_stops(servers, manager):
    s = manager.start(servers(start=False))
    told = manager.next()
    assert told == {"READY": "1", "STATUS": f"serving on port {s.port}"}
    assert status_of(ask(s.port)) == 200
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    s.process.send_signal(signal.SIGHUP)
    told = manager.next()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.next()["READY"] == "1"
    s.terminate()
    assert manager.next()["STOPPING"] == "1"
    assert s.wait() == 0


def test_F30_who_connects_during_a_restart_is_answered_by_the_next_process(servers, manager):
    """Also while the old one still has a push to end."""
    s = manager.start(servers(start=False))
    manager.next()
    body = b"0000"
    held = begin_push(s, new_agent(), len(body))
    mine = os.readlink(f"/proc/{s.pid}/fd/3")
    s.terminate()
    assert manager.next()["STOPPING"] == "1"
    until("it does not let go of the socket", lambda: os.readlink(f"/proc/{s.pid}/fd/3") != mine)
    waiting = [ask(s.port)]
    assert s.running, "it does not wait for the push"
    held.sendall(body)
    assert status_of(held) in (200, 400)
    assert s.wait() == 0
    assert "path=/healthz" not in s.log()
    waiting.append(ask(s.port))
    manager.start(s)
    assert manager.next()["READY"] == "1"
    assert [status_of(w) for w in waiting] == [200, 200]


def test_several_sockets_are_served_and_listen_is_left_alone(servers, folder):
    m = Manager(folder, [listening(), listening(), listening("::1", socket.AF_INET6)])
    try:
        s = m.start(servers(start=False), "--listen", "127.0.0.1:1")
        assert m.next()["READY"] == "1"
        for sock in m.sockets:
            host, port = sock.getsockname()[:2]
            assert status_of(ask(port, host=host)) == 200
        assert "--listen" in s.log()
        s.terminate()
        assert s.wait() == 0
    finally:
        m.close()


def test_a_socket_that_others_reach_needs_a_token_whoever_made_it(servers, folder):
    """A unit says 127.0.0.1 and a drop-in 0.0.0.0: the socket itself is asked."""
    m = Manager(folder, [listening(), listening("0.0.0.0")])
    try:
        s = servers(start=False)
        m.start(s, "--listen", "127.0.0.1:0")
        assert s.wait() == 6
        assert "'0.0.0.0' is reachable from other machines" in s.log()
        s.token()
        m.start(s)
        assert m.next()["READY"] == "1"
        assert web.request(s.port, "GET", "/v1/agents/").status == 401
    finally:
        m.close()


@pytest.fixture
def idle(memfs_bin, folder):
    """A server that is never started: a home, an environment, a command line."""
    return Server(memfs_bin, folder / "idle", watch=False)


@pytest.mark.parametrize("kind", ["unix", "udp", "connected"])
def test_only_listening_tcp_sockets_are_taken(idle, folder, kind):
    if kind == "unix":
        odd = socket.socket(socket.AF_UNIX)
        odd.bind(str(folder / "sock"))
        odd.listen()
    elif kind == "udp":
        odd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        odd.bind(("127.0.0.1", 0))
    else:
        with listening() as other:
            odd = socket.create_connection(other.getsockname())
    with odd:
        done = subprocess.run([sys.executable, "-c", Manager.STARTER, str(odd.fileno()), idle.binary, "serve",
                               "--home", idle.home], capture_output=True, text=True, timeout=PATIENCE,
                              pass_fds=[odd.fileno()], env=idle.environment(), cwd="/")
    assert done.returncode == 2 and "ListenStream=" in done.stderr, done.stderr


def test_a_server_is_started_by_the_first_who_connects(servers):
    """With systemd's own tool."""
    s = servers(start=False)
    while not s.running:                        # it cannot choose a port, and a free one may be taken
        with listening() as free:
            s.port = port = free.getsockname()[1]
        with open(s.log_path, "ab") as log:
            s.process = subprocess.Popen(       # which becomes the server
                ["systemd-socket-activate", "-l", f"127.0.0.1:{port}",
                 *(f"--setenv={k}={v}" for k, v in s.environment().items()), s.binary, "serve", "--home", s.home],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until("nobody listens", lambda: f"Listening on 127.0.0.1:{port}" in s.log() or not s.running)
    assert "memfs: listening" not in s.log()
    assert status_of(ask(port)) == 200
    until("it does not say where", lambda: f"memfs: listening on http://127.0.0.1:{port}" in s.log())


# ---- process 1 of a container

def children_of(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path, encoding="ascii") as f:
            found += map(int, f.read().split())
    return found


def state_and_name(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
        return rest.split()[0], name
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_F03_as_process_1_it_reaps_orphans_and_ends_when_it_is_told(servers):
    s = servers(start=False, watch=False,
                prefix=["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"])
    s.start()
    server = until("unshare starts nothing", lambda: children_of(s.pid))[0]
    # an orphan: its parent, in the same pid namespace, ends first
    subprocess.run(["nsenter", f"--pid=/proc/{server}/ns/pid", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &"],
                   check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    orphan = until("the orphan is not the server's", lambda: [
        pid for pid in children_of(server) if (state_and_name(pid) or "  ")[1] == "sleep"])[0]
    os.kill(orphan, signal.SIGKILL)
    until("the orphan is never reaped", lambda: state_and_name(orphan) is None)
    agent = new_agent()
    assert s.tip(agent) == wire.GENESIS, "its own children are still waited for"
    os.kill(server, signal.SIGTERM)
    assert s.wait() == 0


# ---- health

def health(s, *args):
    done = s.cli("health", "--json", *args, check=False, home=not args or "--url" not in args)
    return done.returncode, json.loads(done.stdout)


def test_health_is_the_servers_own_word(servers):
    s = servers(start=False)
    code, told = health(s)
    assert code == 1 and told["status"] == "down" and "memfs serve" in told["reason"]
    assert not os.path.exists(s.home), "asking made a data folder"
    s.start()
    until("it never gets ready", lambda: health(s, "--ready")[0] == 0)
    for args in ((), ("--url", s.url), ("--url", s.url + "/")):
        code, told = health(s, *args)
        assert (code, told["status"], told["is_healthy"], told["reason"]) == (0, "ok", True, None), told
        assert told["version"] == (ROOT / "VERSION").read_text().strip()
    s.token()
    assert health(s, "--url", s.url)[0] == 0, "a health check needs no token"
    port = s.port
    s.stop()
    assert health(s)[0] == 1
    code, told = health(s, "--url", f"http://127.0.0.1:{port}")
    assert code == 1 and "refused" in told["reason"]


def test_health_of_a_server_that_was_killed(servers):
    s = servers()
    s.kill()
    s.expected_codes = (-9,)
    assert os.path.exists(os.path.join(s.home, "socket"))
    code, told = health(s)
    assert code == 1 and told["reason"]


@pytest.mark.parametrize("status,body,lenient,strict", [
    (200, b'{"version":"9","status":"ok"}', 0, 0),
    (503, b'{"version":"9","status":"starting"}', 0, 1),
    (503, b'{"detail":"no backend"}', 1, 1),
    (200, b"<html>a captive portal</html>", 1, 1),
    (302, b"", 1, 1),
    (200, b"[" * 5000, 1, 1),
], ids=["ok", "starting", "no-backend", "portal", "redirect", "deep"])
def test_health_by_http_judges_what_comes(idle, status, body, lenient, strict):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/v1/ready/"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{fake.server_port}"
        assert health(idle, "--url", url)[0] == lenient
        assert health(idle, "--ready", "--url", url)[0] == strict
        fake.shutdown()


def test_health_names_its_mistakes(idle):
    for args in (("--url", "127.0.0.1:8285"), ("--url", "http://x", "--home", "y"), ("now",)):
        assert idle.cli("health", *args, check=False, home=False).returncode == 2


# ---- what the set-ups say, held against what the program says

@pytest.fixture(scope="module")
def serve_options(memfs_bin):
    done = subprocess.run([memfs_bin, "serve", "--help-json"], capture_output=True, check=True, timeout=PATIENCE)
    return {"--" + o["name"] for o in json.loads(done.stdout)["options"]}


def known_variables():
    """Those that the manual has, and the two of the help of serve."""
    page = (ROOT / "man" / "memfs.1").read_text()
    return set(re.findall(r"\b(?:LETTA_|LETTABOT_)?MEMFS_[A-Z_]+\b", page))


def compose_sets():
    """Each set-up by its files: one that begins with compose.yml's service extends it."""
    files = sorted(DEPLOY.glob("compose*.yml"))
    assert DEPLOY / "compose.yml" in files and len(files) >= 2
    for path in files:
        base = "-f deploy/compose.yml -f" in path.read_text()
        yield path.name, [DEPLOY / "compose.yml", path] if base else [path]


SETS = list(compose_sets())
each_set = pytest.mark.parametrize("files", [files for _, files in SETS], ids=[name for name, _ in SETS])


@each_set
def test_compose_files_are_what_compose_takes(files, folder):
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text())["services"], dict)
    done = subprocess.run(["docker-compose", *(a for f in files for a in ("-f", str(f))), "config"],
                          capture_output=True, text=True, timeout=PATIENCE,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "COMPOSE_PROJECT_NAME": "memfs",
                               **{v: "x" for f in files for v in re.findall(r"\$\{([A-Z_]+)", f.read_text())}})
    assert done.returncode == 0, done.stderr
    assert not re.search(r"(?i)warn|unsupported", done.stderr), done.stderr
    for service in yaml.safe_load(done.stdout)["services"].values():
        for volume in service.get("volumes", []):
            source = str(volume).split(":")[0]
            assert not source.startswith("/") or os.path.exists(source), volume


@each_set
def test_every_name_in_a_compose_file_is_known_to_the_program(files, serve_options):
    known = known_variables()
    for path in files:
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            if not name.startswith("memfs"):
                continue
            for variable in service.get("environment", {}):
                assert variable in known, (path.name, variable)
            if "image" in service:
                words = service.get("command", ["serve"])
                assert isinstance(words, list) and words[0] == "serve", words
                options = {w for w in words if w.startswith("--")}
                assert options <= serve_options, (path.name, options - serve_options)
                assert service["image"] == "memfs:" + (ROOT / "VERSION").read_text().strip()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def balancer(folder, listen, ports):
    """nginx' arguments, for the configuration with these two servers behind it."""
    text = (DEPLOY / "nginx.conf").read_text()
    names = set(yaml.safe_load((DEPLOY / "compose.postgres.yml").read_text())["services"])
    assert set(re.findall(r"server (\w+):8285 ", text)) < names
    for port in ports:
        text, n = re.subn(r"server \w+:8285 ", f"server 127.0.0.1:{port} ", text, count=1)
        assert n == 1
    text = text.replace("listen 8285;", f"listen 127.0.0.1:{listen};")
    (folder / "nginx.conf").write_text(f"pid {folder}/pid; error_log stderr;\n" + text)
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], {
        "env": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, "stderr": subprocess.PIPE}


def test_nginx_takes_the_balancers_configuration(folder):
    args, more = balancer(folder, 8285, [8285, 8285])
    done = subprocess.run([*args, "-t", "-q"], timeout=PATIENCE, **more)
    assert (done.returncode, done.stderr) == (0, b"")


class OneAgentsTrouble(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/cut":             # a push that too few servers have
            self.close_connection = True
            return
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def test_F22_the_balancer_leaves_no_server_out_for_one_agents_trouble(folder):
    """Also when the other one is away: who runs is asked by everybody."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OneAgentsTrouble) as only:
        threading.Thread(target=only.serve_forever, daemon=True).start()
        port = free_port()
        args, more = balancer(folder, port, [free_port(), only.server_port])
        nginx = subprocess.Popen([*args, "-g", "daemon off;"], **more)
        try:
            def asked(path):
                try:
                    return web.request(port, "GET", path).status
                except ConnectionRefusedError:
                    return None
            until("the balancer", lambda: asked("/") == 200)
            # of a 503 and a server that is away the balancer tells what it met last
            for path, told in [("/busy", {502, 503}), ("/", {200}), ("/cut", {502}), ("/", {200}), ("/", {200})]:
                assert asked(path) in told, path
        finally:
            nginx.terminate()
            nginx.communicate(timeout=PATIENCE)
            only.shutdown()


def stages():
    """The Dockerfile's instructions by stage, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text())
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if word and found:
            found[-1].append((word, " ".join(rest.split())))
    return found


def test_the_image_has_what_the_programs_need_and_nothing_that_builds(memfs_bin):
    last = stages()[-1]
    installed = set(re.search(r"apt-get install ((?:\S+ )*?)&&", next(
        rest for word, rest in last if word == "RUN")).group(1).split()) - {"-y", "--no-install-recommends"}
    build = pathlib.Path(memfs_bin).parent
    needed = {"libcurl.so.4"}                   # opened by name (base/httpc.c)
    for program in ("memfs", "memfs-server", "memfs-postgresql.so"):
        out = subprocess.run(["objdump", "-p", str(build / program)], capture_output=True, text=True, check=True)
        needed |= set(re.findall(r"NEEDED\s+(\S+)", out.stdout))
    owners = set()
    for library in needed:
        if re.match(r"lib(asan|ubsan|tsan|c|m|gcc_s|dl|pthread)\.so|ld-linux", library):
            continue
        path = next(p for p in glob.glob(f"/usr/lib/*-linux-gnu/{library}") + glob.glob(f"/lib/*-linux-gnu/{library}"))
        # dpkg knows a file by one of the two names of a merged /usr
        names = {path, os.path.realpath(path)}
        names |= {n[4:] if n.startswith("/usr/") else "/usr" + n for n in names}
        out = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True).stdout
        owners.add(out.split(":")[0])
    assert "" not in owners and owners <= installed, owners - installed
    assert {"git", "openssh-client", "ca-certificates"} <= installed
    assert not [p for p in installed if p.endswith("-dev") or p in ("gcc", "make", "meson", "ninja-build")]
    assert installed <= owners | {"git", "openssh-client", "ca-certificates"}, "more than is needed"


def test_the_image_is_run_by_nobody_in_particular_and_checks_itself(memfs_bin):
    last = dict(stages()[-1])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert json.loads(last["ENTRYPOINT"]) == ["memfs"] and json.loads(last["CMD"]) == ["serve"]
    check = json.loads(last["HEALTHCHECK"].split("CMD ", 1)[1])
    assert check[0] == "memfs"
    shown = subprocess.run([memfs_bin, check[1], "--help"], capture_output=True, timeout=PATIENCE)
    assert shown.returncode == 0 and shown.stdout.startswith(b"usage: memfs health")
    assert "VERSION=" + (ROOT / "VERSION").read_text().strip() in [
        rest for word, rest in stages()[-1] if word == "ARG"]
    for variable in re.findall(r"(\w+)=", last["ENV"]):
        assert variable in known_variables(), variable
    assert last["VOLUME"] == "/var/lib/memfs" and last["STOPSIGNAL"] == "SIGTERM"
