"""Attacks that once worked.  Each test tells its story first: what was done, and what came of it."""
import contextlib
import glob
import os
import threading
import time
import zlib

from lib import http, wire
from lib.patience import wait
from lib.server import ORG
from lib.trace import Trace


def commit_of(files, parent=wire.GENESIS, message="a change\n"):
    objects = wire.Objects()
    tip = objects.commit(objects.tree_of(files), [parent], message)
    return tip, objects.pack()


def push(server, agent, files, parent=wire.GENESIS, timeout=60):
    """-> (new tip, report)"""
    tip, pack = commit_of(files, parent)
    return tip, server.push_raw(agent, [(parent, tip, wire.MAIN)], pack, timeout=timeout)


def slow_upload(server, agent, stop):
    """A push of one huge file that comes at some 70 KiB/s: fast enough for every clock."""
    deflate = zlib.compressobj(0)

    def piece(n):
        return deflate.compress(os.urandom(n)) + deflate.flush(zlib.Z_SYNC_FLUSH)

    head = (f"POST /v1/git/{agent}/state.git/git-receive-pack HTTP/1.1\r\nHost: memfs\r\n"
            "Content-Type: application/x-git-receive-pack-request\r\n"
            f"Content-Length: {60 << 20}\r\n\r\n").encode()
    body = wire.push_body([(wire.GENESIS, "a" * 40, wire.MAIN)], b"PACK\0\0\0\2\0\0\0\1")
    with http.connect(server.port) as sock, contextlib.suppress(OSError):
        sock.sendall(head + body + wire.pack_entry_head(3, 50 << 20) + piece(512 << 10))
        while not stop.wait(0.1):
            sock.sendall(piece(7 << 10))


def slow_fetch(server, agent, tip, stop):
    """A clone of some MiB that nobody reads at more than 40 KiB/s."""
    body = wire.pkt(f"want {tip} side-band-64k ofs-delta\n") + b"0000" + wire.pkt("done\n")
    head = (f"POST /v1/git/{agent}/state.git/git-upload-pack HTTP/1.1\r\nHost: memfs\r\n"
            "Content-Type: application/x-git-upload-pack-request\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    with http.connect(server.port) as sock, contextlib.suppress(OSError):
        sock.setsockopt(1, 8, 4096)  # SO_RCVBUF: what is not read stays with the server
        sock.sendall(head + body)
        while not stop.wait(0.1):
            sock.recv(4096)


def test_T18_slow_uploads_and_fetches_do_not_take_all_workers(server, agent):
    """A worker serves a push from its 257th KiB on and a fetch to its last byte, at the client's
    pace.  There are twice as many as cores: four clients that dawdled within the rate that is
    allowed made everybody else's push and fetch wait for up to 40 minutes."""
    victim = agent()
    tip, report = push(server, victim, {"system/human.md": "one"})
    assert report.acked, report
    stop = threading.Event()
    slow = []
    for _ in range(8):
        other = agent()
        big, report = push(server, other, {"big.bin": os.urandom(6 << 20)})
        assert report.acked, report
        slow += [threading.Thread(target=slow_fetch, args=(server, other, big, stop)),
                 threading.Thread(target=slow_upload, args=(server, agent(), stop))]
    for thread in slow:
        thread.start()
    try:
        time.sleep(2)
        began = time.monotonic()
        tip, report = push(server, victim, {"system/human.md": "two"}, tip, timeout=20)
        assert report.acked, report
        assert server.value(victim, "system/human") == "two"
        assert time.monotonic() - began < 20
    finally:
        stop.set()
        for thread in slow:
            thread.join()


def test_D1_a_push_repeated_after_a_crash_is_synced_before_its_ack(server, agent, folder):
    """SIGKILL between the rename of the ref and the fsync of its folder; the client tries again, main
    is where it wants it, and it is told so.  That ack came without any fsync of the repository: a
    power cut later took the acknowledged commit away."""
    known = agent()
    tip, pack = commit_of({"system/human.md": "one"})
    command = [(wire.GENESIS, tip, wire.MAIN)]
    assert server.push_raw(known, command, pack).acked
    server.kill()
    server.start()
    with Trace(server.pid, folder / "trace", "-y", "-e", "trace=fsync,fdatasync") as trace:
        report = server.push_raw(known, command, pack)
    assert report.acked, report
    synced = " ".join(text for _, _, text in trace.calls())
    for place in ("refs/heads/main", "refs/heads", "objects/pack", known, ORG, "repository"):
        assert f"/{place}>)" in synced, (place, synced)


def health_latencies(server, work):
    """How long /healthz took, again and again on new connections, while work() ran."""
    thread, times = threading.Thread(target=work), []
    thread.start()
    while thread.is_alive():
        began = time.monotonic()
        assert server.get("/healthz").status == 200
        times.append(time.monotonic() - began)
        time.sleep(0.005)
    thread.join()
    return times


def test_L1_the_first_read_of_a_large_memory_stops_nobody_else(server, agent):
    """GET of one block ran on an event thread whatever state its agent was in. After a start, or a
    lost cache, that thread recovered the repository and made its 20,000 rows first, and the half of
    all connections that were its own stood still for seconds; a list of 60 MiB did the same."""
    large = agent()
    tip, report = push(server, large, {f"f{i % 100}/{i}.md": f"---\ndescription: {i}\n---\n"
                                       + f"line {i}\n" * 20 for i in range(20000)})
    assert report.acked, report
    server.lose_blocks()
    time.sleep(1.1)  # how long a good look holds
    took = []

    def read():
        began = time.monotonic()
        assert server.block(large, "f7/7").status == 200
        took.append(time.monotonic() - began)

    times = health_latencies(server, read)
    assert took[0] > 0.1, "too quick to show anything"
    assert max(times) < took[0] * 0.8, (took, max(times))   # who is stuck waits for all of it
    rows = server.blocks(large)  # far past what an event thread may answer
    assert len(rows) == 20000
    answer = server.get(f"/v1/agents/{large}/core-memory/blocks?limit=0")
    again = server.get(f"/v1/agents/{large}/core-memory/blocks?limit=0",
                       headers={"If-None-Match": answer.headers["etag"]})
    assert (answer.status, again.status) == (200, 304)


def test_F14_a_commit_made_by_hand_during_verify_fences_nobody(server, agent, folder):
    """git fsck lists the objects first and reads the reflog last. A commit made by hand in between
    looked like damage ("invalid reflog entry"), and a healthy repository was fenced: 503 to all."""
    known = agent()
    tip, report = push(server, known, {f"{i}.md": f"text {i}" * 50 for i in range(1500)})
    assert report.acked, report
    done = threading.Event()
    moved = 0
    began = time.monotonic()
    server.cli("verify")
    pause_s = max(0.4, 2 * (time.monotonic() - began))

    def verify():
        until = time.monotonic() + 6 * pause_s / 0.4
        while time.monotonic() < until:
            server.cli("verify", check=False)
        done.set()

    thread = threading.Thread(target=verify)
    thread.start()
    while not done.wait(pause_s):  # longer than one fsck takes: nobody promises more than that
        tree = server.git_dir(known, "rev-parse", "main^{tree}").stdout.decode().strip()
        made = server.git_dir(known, "commit-tree", tree, "-p", tip, "-m", f"by hand {moved}")
        next_tip = made.stdout.decode().strip()
        server.git_dir(known, "update-ref", "refs/heads/main", next_tip, tip)
        tip, moved = next_tip, moved + 1
    thread.join()
    assert moved > 0
    assert "agent_fenced" not in server.log()
    assert server.value(known, "7") == "text 7" * 50
    assert server.tip(known) == tip


def test_F07_the_descriptor_limit_of_a_login_is_raised(servers, agent):
    """1,024 descriptors are what a login or a service begins with. A thousand idle connections used
    them up; the event threads then span on accept(), and pushes found no pipe for git."""
    server = servers(prefix=("prlimit", "--nofile=1024:4096"))
    with open(f"/proc/{server.pid}/limits", encoding="ascii") as f:
        soft = next(line.split()[3] for line in f if line.startswith("Max open files"))
    assert int(soft) == 4096
    idle = []
    with contextlib.suppress(OSError):
        for _ in range(990):
            idle.append(http.connect(server.port))
    try:
        tip, report = push(server, agent(), {"system/human.md": "hello"}, timeout=20)
        assert report.acked, report
    finally:
        for sock in idle:
            sock.close()


def test_F10_clients_that_give_up_leave_at_once(server, agent):
    """A close that arrived together with the last bytes of half a request went unnoticed, and the
    connection was kept for the 10 to 30 s of the clocks: 40 such clients a second filled the table of
    1,000. One that only closes its own side after a whole request still gets its answer."""
    known = agent()
    tip, pack = commit_of({"system/human.md": "one"})
    body = wire.push_body([(wire.GENESIS, tip, wire.MAIN)], pack)
    head = (f"POST /v1/git/{known}/state.git/git-receive-pack HTTP/1.1\r\nHost: memfs\r\n"
            "Content-Type: application/x-git-receive-pack-request\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    whole = head + body

    def n_sockets():
        names = glob.glob(f"/proc/{server.pid}/fd/*")
        found = 0
        for name in names:
            with contextlib.suppress(OSError):
                found += os.readlink(name).startswith("socket:")
        return found

    assert server.get("/healthz").status == 200
    time.sleep(0.5)
    before = n_sockets()
    for i in range(100):
        sock = http.connect(server.port)
        sock.sendall(whole[:1 + i * (len(whole) - 2) // 100])
        sock.close()
    assert server.get("/healthz").status == 200     # it was accepted after all of them
    wait(lambda: n_sockets() <= before + 5, lambda: f"{n_sockets()} sockets are {before} again", 30)
    assert server.tip(known) == wire.GENESIS
    with http.connect(server.port) as sock:
        sock.sendall(whole[:-20])
        time.sleep(1.5)
        sock.sendall(whole[-20:])
        sock.shutdown(1)
        assert http.read_response(sock).status == 200
    assert server.tip(known) == tip


def test_F12_a_fifo_in_the_place_of_a_ref_is_an_answer(server, agent):
    """open() of a FIFO waits for a writer: whoever asked for that agent, and the worker, hung."""
    known = agent()
    tip, report = push(server, known, {"system/human.md": "one"})
    assert report.acked, report
    ref = server.repository(known) + "/refs/heads/main"
    os.rename(ref, ref + ".kept")
    os.mkfifo(ref)
    try:
        time.sleep(1.1)  # how long a good look holds
        refs = f"/v1/git/{known}/state.git/info/refs?service=git-upload-pack"
        assert server.get(refs, timeout=10).status == 503
        assert server.block(known, "system/human").status == 503
    finally:
        os.unlink(ref)
        os.rename(ref + ".kept", ref)
    server.verify()  # lifts the fence
    assert server.tip(known) == tip
