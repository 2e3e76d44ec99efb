"""The mirror's figures: how soon a push is on the host, how soon a push to the host is a block here, what a host
that is away costs, and a machine that is rebuilt from the host.

The host is gitolite behind nginx (tests/integration/lib/gitolite.py), with accounts, tokens and webhooks; for the
rebuild, where a host's own work would hide ours, nginx + http-backend without accounts.
"""
import os
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from report import Row
from rigs import BUILD, Clone, HttpBackend, git, make_bare, note, spread
from lib.fleet import FleetServer
from lib.gitolite import Gitolite

CHANGED = "system/note-0000.md"
MEMFS = os.path.join(BUILD, "memfs")


def new_agent():
    return "agent-%s" % uuid.uuid4()


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def lag(row, what, values):
    """p50 and p99 of one lag; returns the p50."""
    p50 = row.figure("%s, p50" % what, values, "ms")
    row.figures.append(("%s, p99" % what, percentile(values, 99), "ms", "", len(values)))
    return p50


class Served(FleetServer):
    """A release server with a remote; nothing watches it while it is measured."""

    def __init__(self, folder, **kw):
        super().__init__(MEMFS, folder, watch=False, **kw)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.close()


def read_ref(path):
    try:
        with open(path) as f:
            return f.read(40)
    except OSError:
        return None


def until(good, seconds=30):
    """Milliseconds until it is so."""
    start = time.perf_counter()
    while not good():
        if time.perf_counter() - start > seconds:
            raise RuntimeError("not in %d s" % seconds)
        time.sleep(0.0005)
    return (time.perf_counter() - start) * 1000


def head_of(clone):
    return git("rev-parse", "HEAD", cwd=clone.folder).decode().strip()


def bench_mirror(folder, n=200):
    row = Row("mirror", "a push is on the host, a push to the host is a block")
    files, agent = spread(50), new_agent()
    with Gitolite(os.path.join(folder, "mirror-host")) as host, \
            Served(os.path.join(folder, "mirror"), host=host, poll_s=60) as server:
        host.webhook(server.hook_url, server.secret)
        here = Clone(os.path.join(folder, "mirror-here"), server.git_url(agent))
        here.commit_fill(files)
        here.push()
        ref = os.path.join(host.repository("agents/%s.git" % agent), "refs/heads/main")
        until(lambda: read_ref(ref) == head_of(here))
        url = host.url("agents/%s.git" % agent).replace("://", "://anna:%s@" % host.token("anna"))
        there = Clone(os.path.join(folder, "mirror-there"), url)
        alone = Clone(os.path.join(folder, "mirror-alone"), url.replace(agent, "of-nobody"))
        alone.commit_fill(files)
        alone.push()
        out, back, own, pushed = [], [], [], []
        for i in range(n + 5):
            here.commit_one(CHANGED)
            tip, start = head_of(here), time.perf_counter()
            push_ms = here.push()
            until(lambda: read_ref(ref) == tip)
            took = (time.perf_counter() - start) * 1000
            git("pull", "-q", "--ff-only", cwd=there.folder)
            there.n = here.n
            there.commit_one(CHANGED)
            label, text = CHANGED[:-3], note(0, there.n)
            start = time.perf_counter()
            there.push()
            until(lambda: text.endswith(server.value(agent, label)))
            round_ms = (time.perf_counter() - start) * 1000
            git("pull", "-q", "--ff-only", cwd=here.folder)
            here.n = there.n
            alone.commit_one(CHANGED)
            alone_ms = alone.push()
            if i >= 5:
                out.append(took)
                back.append(round_ms)
                own.append(alone_ms)
                pushed.append(push_ms)
    row.remark("Clocks run from the start of `git push` to the moment when the other side shows it: the host's ref,"
               " read from its disk, or the block, asked over REST. The host is gitolite (nginx, fcgiwrap, git"
               " http-backend, access checks in Perl) on the same machine, with an access token; its webhook is"
               " sent as soon as its post-receive hook has run. Beside it, in turns, a `git push` of the same size"
               " straight to the host, into a repository that memfs does not mirror.")
    a = lag(row, "push to memfs → visible on the host", out)
    b = lag(row, "push to the host → visible as a block here", back)
    c = lag(row, "the host's own push", own)
    d = lag(row, "of these: the push to memfs returns", pushed)
    row.figure("push to memfs and mirroring, beside both pushes made by hand", a / (c + d), "×")
    row.figure("push to the host and the block, beside the host's own push", b / c, "×")
    row.budget("a push to memfs is on the host within a second, p99", percentile(out, 99),
               percentile(out, 99) <= 1000, "ms")
    row.budget("a push to the host is a block within a second, p99", percentile(back, 99),
               percentile(back, 99) <= 1000, "ms")
    return row


def bench_away(folder, n=100):
    row = Row("away", "a push while the host is away")
    files = spread(50)
    with Gitolite(os.path.join(folder, "away-host")) as host:
        servers = {"none": Served(os.path.join(folder, "away-none")),
                   "away": Served(os.path.join(folder, "away-away"), host=host),
                   "there": Served(os.path.join(folder, "away-there"), host=host)}
        servers["away"].configure(origin={
            "url": "http://127.0.0.1:9/agents/{agentId}.git", "username": "memfs",
            "tokenFile": servers["away"].token_file})
        with servers["none"], servers["away"], servers["there"]:
            clones = {}
            for name, s in servers.items():
                clones[name] = Clone(os.path.join(folder, "away-clone-" + name), s.git_url(new_agent()))
                clones[name].commit_fill(files)
                clones[name].push()
            took = {name: [] for name in servers}
            for i in range(n + 5):
                for name, clone in clones.items():
                    clone.commit_one(CHANGED)
                    ms = clone.push()
                    time.sleep(0.15)    # what one server does afterwards is not in the next one's way
                    if i >= 5:
                        took[name].append(ms)
    row.remark("`git push` of one changed file, in turns: to a server without remotes, to one whose host refuses"
               " connections, and to one whose host is there. Each push is given 0.15 s before the next.")
    none = row.figure("no remote configured", took["none"], "ms")
    away = row.figure("the host is away", took["away"], "ms")
    row.figure("the host is there", took["there"], "ms")
    row.budget("≤ 1.1 × a push without remotes, host away", away / none, away / none <= 1.1)
    return row


def bench_from_remote(folder, n=1000):
    row = Row("from-remote", "an empty machine: 1,000 agents rebuilt from the host")
    with HttpBackend(os.path.join(folder, "from-nginx")) as nginx:
        agents = [new_agent() for _ in range(n)]
        seed_agents(folder, nginx, agents)
        took = {"memfs": [], "one": [], "four": []}
        for turn in range(3):
            took["memfs"].append(rebuild_s(folder, nginx, agents, turn))
            took["one"].append(clone_s(folder, nginx, agents, 1))
            took["four"].append(clone_s(folder, nginx, agents, 4))
    row.remark("1,000 repositories of 20 files and 5 commits behind nginx + http-backend without accounts. memfs:"
               " `memfs rebuild --from-remote` into an empty home: every repository fetched, judged as a push is,"
               " made durable, its 20 blocks written. Beside it `git clone --bare` of the same, one after the"
               " other and four at a time (memfs uses two workers for one host), which syncs nothing and checks"
               " nothing.")
    a = row.figure("memfs rebuild --from-remote", took["memfs"], "s")
    b = row.figure("git clone --bare, one after the other", took["one"], "s")
    c = row.figure("git clone --bare, four at a time", took["four"], "s")
    row.figure("beside git clone one after the other", a / b, "×")
    row.figure("beside git clone four at a time", a / c, "×")
    return row


def seed_agents(folder, nginx, agents):
    """One history, made once; each repository gets a copy and a commit of its own on top."""
    first = nginx.repository("seed")
    make_bare(first, fsync=False)
    clone = Clone(os.path.join(folder, "seed-clone"), first)
    clone.commit_fill(spread(20))
    for _ in range(4):
        clone.commit_one(CHANGED)
    clone.push()
    git("gc", "-q", cwd=first)
    tip = git("rev-parse", "refs/heads/main", cwd=first).decode().strip()
    tree = git("rev-parse", "refs/heads/main^{tree}", cwd=first).decode().strip()
    for agent in agents:
        path = nginx.repository(agent)
        os.makedirs(os.path.dirname(path))
        subprocess.run(["cp", "-r", first, path], check=True)
        mine = git("commit-tree", tree, "-p", tip, "-m", "begin " + agent, cwd=path).decode().strip()
        git("update-ref", "refs/heads/main", mine, cwd=path)


def rebuild_s(folder, nginx, agents, turn):
    s = Served(os.path.join(folder, "from-%d" % turn))
    s.configure(origin={"url": nginx.git_url("{agentId}")})
    ids = os.path.join(folder, "from-ids")
    with open(ids, "w") as f:
        f.write("\n".join(agents) + "\n")
    start = time.perf_counter()
    s.cli("rebuild", "--from-remote", "--agents", ids, timeout=1800)
    took = time.perf_counter() - start
    with s:
        count = int(s.get("/v1/agents/count").body)
        assert count == len(agents), count
        assert len(s.blocks(agents[-1])) == 20
    return took


def clone_s(folder, nginx, agents, at_once):
    to = os.path.join(folder, "from-clones")
    os.makedirs(to)

    def one(agent):
        git("clone", "-q", "--bare", nginx.git_url(agent), os.path.join(to, agent))

    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, agents))
    took = time.perf_counter() - start
    subprocess.run(["rm", "-rf", to], check=True)
    return took
