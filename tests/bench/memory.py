"""The memory API: reads and writes of blocks by many clients, search, lists, a file's history; each beside SQLite
that is asked the same directly (direct.c), without a server in between.

A memory is seeded by one push, so that what is measured costs its time and not the way there.
"""
import collections
import itertools
import os
import random
import shutil
import sqlite3
import time

from asking import load, request_file, run_json
from report import Row, median, number
from rigs import Clone, Memfs, git, note, program, registered, spread
from lib import wire
from lib.server import new_agent

CHANGED = "system/note-0000.md"
TEXT = "change ########\n" + 12 * (
    "memory note agent prefers tea over coffee and lives near the river since spring 0\n")


def push(server, agent, texts):
    """A new memory with these files, as one commit."""
    objects = wire.Objects()
    tree = objects.tree_of({path: objects.blob(text) for path, text in texts.items()})
    tip = objects.commit(tree, [wire.GENESIS], "fill\n")
    got = server.push_raw(agent, [(wire.GENESIS, tip, wire.MAIN)], objects.pack(), timeout=600)
    if not got.acked:
        raise RuntimeError("not taken: %r" % got)


def direct(mode, database, threads, ms, *args):
    return run_json(program("bench_direct"), mode, database, str(threads), str(ms), *args)[0]


def written(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


class Asked:
    """What came of the same work, round by round."""

    def __init__(self):
        self.rounds = []

    def add(self, got):
        self.rounds.append(got)

    def of(self, key):
        return [got[key] for got in self.rounds]

    def per_second(self):
        return median(self.of("per_second"))

    def p50_ms(self):
        return median(self.of("p50_us")) / 1000

    def p99_ms(self):
        return median(self.of("p99_us")) / 1000


def take_turns(rounds, works):
    """works: {name: function that returns a line of JSON} -> {name: Asked}; the first round only warms up."""
    asked = {name: Asked() for name in works}
    for i in range(rounds + 1):
        for name, work in works.items():
            got = work()
            if i > 0:
                asked[name].add(got)
    return asked


# ---- blocks

class Clients:
    """64 agents of 50 files; clients ask for, or change, a block of their own agent's or of one and the same."""

    N = 64

    def __init__(self, folder):
        os.makedirs(folder)
        self.folder = folder
        self.server = Memfs(os.path.join(folder, "memfs"))
        self.agents = [new_agent() for _ in range(self.N)]
        texts = {path: note(i) for i, path in enumerate(spread(50))}
        with self.server:
            for agent in self.agents:
                push(self.server, agent, texts)
        self.copy = os.path.join(folder, "copy")  # for what writes without the server
        shutil.copytree(self.server.home, self.copy, symlinks=True)
        target = "/v1/agents/%s/core-memory/blocks/" + CHANGED[:-3]
        body = ('{"value":"%s"}' % TEXT.replace("\n", "\\n")).encode()
        head = ("Content-Type: application/json",)
        self.gets = [request_file(folder, "get-" + a, "GET", target % a) for a in self.agents]
        self.patches = [request_file(folder, "patch-" + a, "PATCH", target % a, body, head) for a in self.agents]
        self.sql = written(folder, "one.sql", ONE_SQL)
        self.parameters = written(folder, "one.txt", "".join("%s\t%s\n" % (a, CHANGED[:-3]) for a in self.agents))

    def asks(self, files, n, ms):
        return lambda: load(self.server.port, ms, *files, connections=n, own=True)

    def reads(self, n, ms):
        return lambda: direct("query", os.path.join(self.copy, "cache.db"), n, ms, self.sql, self.parameters)

    def writes(self, agents, n, ms, has_git):
        repository = self.server.repository(agents[0]).replace(self.server.home, self.copy, 1)
        assert os.path.isdir(repository), repository
        names = [a + ("=" + self.server.repository(a).replace(self.server.home, self.copy, 1) if has_git else "")
                 for a in agents]
        return lambda: direct("write", os.path.join(self.copy, "cache.db"), n, ms, CHANGED, *names)


ONE_SQL = """SELECT b.label, b.path, b.id, b.description, b.char_limit, b.read_only, b.metadata, b.tags, b.hidden,
b.problem, b.blob, b.bytes, b.created_at, b.updated_at, b.value FROM blocks b
WHERE b.agent_no = (SELECT agent_no FROM agents WHERE agent_id = ?1) AND b.label = ?2"""


def clients_works(c, n, ms):
    one = c.agents[:1]
    return {
        "GET": {"memfs": c.asks(c.gets, n, ms), "SQLite": c.reads(n, ms)},
        "PATCH, an agent each": {"memfs": c.asks(c.patches, n, ms), "SQLite": c.writes(c.agents, n, ms, False),
                                 "git and SQLite": c.writes(c.agents, n, ms, True)},
        "PATCH, one agent": {"memfs": c.asks(c.patches[:1], n, ms), "SQLite": c.writes(one, n, ms, False),
                             "git and SQLite": c.writes(one, n, ms, True)},
    }


def rate(asked):
    return "%s/s, p99 %s ms" % (f"{asked.per_second():,.0f}", number(asked.p99_ms()))


def bench_clients(folder):
    row = Row("clients", "blocks read and written by 1, 8 and 64 clients")
    c = Clients(os.path.join(folder, "clients"))
    lines, ratios = [], []
    with c.server:
        for n in (1, 8, 64):
            for what, works in clients_works(c, n, 700).items():
                got = take_turns(3, works)
                ours, lite, git_too = got["memfs"], got["SQLite"], got.get("git and SQLite")
                lines.append((what, str(n), rate(ours), rate(lite), rate(git_too) if git_too else ""))
                ratios.append(("%s, %d at once: memfs beside %s" % (what, n, "git and SQLite" if git_too else "SQLite"),
                               ours.per_second() / (git_too or lite).per_second()))
        last = c.server.value(c.agents[0], CHANGED[:-3])
        assert last.startswith("change ") and last.endswith(TEXT[15:]), "the block is not a written one"
    row.remark("64 agents with 50 files of about 1 KiB each. Clients ask one after the other on kept connections, from one"
               " program (`load.c`) on the same cores: a block of an agent of their own, or all of one agent; each PATCH"
               " is a commit, everything synced, and its text is another one. Beside it in turns `direct.c`, as many"
               " threads in one process that has the database open: for GET memfs's own statement; for PATCH the rows"
               " that memfs changes, index of words included, in one transaction with `synchronous = FULL`; and the same"
               " after a commit by libgit2 on that agent's `main` with its fsyncs, then the rows unsynced, as git is the"
               " truth. Neither judges anything or speaks HTTP; what HTTP alone costs a GET is above, in `Read blocks over"
               " REST`. One agent's changes follow each other, whoever asks."
               " A change takes eleven fsyncs and most of its processor time in the kernel, with files and folders;"
               " memfs's own locks are 1 % of a worker's time. On an ext4 without a journal making files grows dearer"
               " with what was deleted in the minutes"
               " before, by whomever, as such a file system walks past those inodes for each new file: after 7,000 deletions"
               " a new file took 291 µs where it had taken 14 (with a journal: unchanged), and with 8 clients that walk was"
               " 43 % of memfs's processor time. Where an fsync takes 5 ms more, 20 changes at a time instead of 4 are 1.7 ×"
               " the changes a second with 8 clients, 3.1 × with 64.")
    row.table(("", "clients", "memfs", "SQLite directly", "git and SQLite directly"), lines)
    for what, ratio in ratios:
        row.figure(what, ratio, "× the requests/s")
    return row


# ---- search

AGENTS, FILES = 50, 2000
SEARCH_SQL = """SELECT a.agent_id, b.label, b.path, b.id, b.description, b.blob, b.created_at, b.updated_at, b.value
FROM block_words w CROSS JOIN blocks b ON b.block_no = w.rowid CROSS JOIN agents a ON a.agent_no = b.agent_no
WHERE block_words MATCH ?1 AND b.hidden = 0 ORDER BY w.rowid DESC LIMIT 1001"""
PLAIN_SQL = """SELECT a.agent_id, b.label, b.id, snippet(plain, 2, '', '', '', 24), bm25(plain, 3, 2, 1)
FROM plain CROSS JOIN blocks b ON b.block_no = plain.rowid CROSS JOIN agents a ON a.agent_no = b.agent_no
WHERE plain MATCH ?1 AND b.hidden = 0 ORDER BY bm25(plain, 3, 2, 1) LIMIT 20"""
PLAIN = """CREATE VIRTUAL TABLE plain USING fts5(label, description, value, content='blocks', content_rowid='block_no');
INSERT INTO plain(plain) VALUES('rebuild');"""


class Prose:
    """Texts of words as often as words are in language (Zipf), the same in each run."""

    def __init__(self, n_words=30000):
        self.random = random.Random(6)
        syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
        words = dict.fromkeys("".join(self.random.choices(syllables, k=self.random.randint(2, 4)))
                              for _ in range(n_words * 2))
        self.words = list(words)[:n_words]
        self.weights = list(itertools.accumulate(1 / (i + 10) for i in range(len(self.words))))
        self.in_texts = collections.Counter()  # word: how many texts have it
        self.pairs = []

    def text(self):
        words = self.random.choices(self.words, cum_weights=self.weights, k=60)
        self.in_texts.update(set(words))
        at = self.random.randrange(59)
        self.pairs.append((words[at], words[at + 1]))
        lines = [" ".join(words[i:i + 10]) + "\n" for i in range(0, 60, 10)]
        return "---\ndescription: About %s\n---\n%s" % (words[0], "".join(lines))

    def queries(self, n=32):
        """{what: [words]}, each with what it looks for."""
        few = [w for w, k in self.in_texts.items() if 5 <= k <= 20]
        many = [w for w, k in self.in_texts.items() if 700 <= k <= 1000]
        most = [w for w, k in self.in_texts.items() if k >= 5000]
        pick = self.random.sample
        return {
            "a word of 5 to 20 blocks": [[w] for w in pick(few, min(n, len(few)))],
            "a word of 700 to 1,000 blocks": [[w] for w in pick(many, min(n, len(many)))],
            "a word of more than 5,000 blocks": [[w] for w in pick(most, min(n, len(most)))],
            "a phrase of two words": [list(pair) for pair in pick(self.pairs, n)],
            "a prefix of four letters": [[w[:4] + "*"] for w in pick(few, min(n, len(few)))],
        }


def asked_of_memfs(words):
    text = " ".join(words)
    return "q=%s" % (text if len(words) == 1 else '"%s"' % text).replace(" ", "%20").replace('"', "%22")


def asked_of_index(words):
    """As memfs asks its index, which has no places of words."""
    return " AND ".join('"%s" *' % w[:-1] if w.endswith("*") else '"%s"' % w for w in words)


def asked_of_plain(words):
    text = " ".join(words)
    return '"%s" *' % text[:-1] if text.endswith("*") else '"%s"' % text


def search_works(server, folder, copy, what, queries, ms):
    name = what.replace(" ", "-").replace(",", "")
    files = [request_file(folder, "%s-%d" % (name, i), "GET", "/v1/search?" + asked_of_memfs(words))
             for i, words in enumerate(queries)]
    works = {"memfs": lambda: load(server.port, ms, *files, connections=1)}
    for key, sql, form in (("index", SEARCH_SQL, asked_of_index), ("plain", PLAIN_SQL, asked_of_plain)):
        lines = written(folder, "%s-%s.txt" % (name, key), "".join(form(words) + "\n" for words in queries))
        text = written(folder, key + ".sql", sql)
        works[key] = lambda text=text, lines=lines: direct("query", copy, 1, ms, text, lines)
    return works


def make_plain(copy):
    db = sqlite3.connect(copy)
    start = time.perf_counter()
    db.executescript(PLAIN)
    db.close()
    return time.perf_counter() - start


def bench_search(folder):
    row = Row("search", "search over 100,000 blocks")
    folder = os.path.join(folder, "search")
    server, prose, took = Memfs(folder), Prose(), []
    with server:
        for _ in range(AGENTS):
            texts = {"notes/%02d/note-%04d.md" % (i // 50, i): prose.text() for i in range(FILES)}
            agent, start = new_agent(), time.perf_counter()
            push(server, agent, texts)
            took.append((time.perf_counter() - start) * 1000)
    copy = os.path.join(folder, "plain.db")
    shutil.copyfile(os.path.join(server.home, "cache.db"), copy)
    plain_s = make_plain(copy)
    lines = []
    with server:
        for what, queries in prose.queries().items():
            got = take_turns(2, search_works(server, folder, copy, what, queries, 1000))
            ours, plain = got["memfs"], got["plain"]
            lines.append((what, *["p50 %s ms, p99 %s ms" % (number(a.p50_ms()), number(a.p99_ms()))
                                  for a in got.values()]))
            row.figure("%s: SQLite's ranked search / memfs, p50" % what, plain.p50_ms() / ours.p50_ms(), "×")
    row.remark("%d agents with %s blocks each of 60 words, of a vocabulary of 30,000 that is as uneven as language is; one"
               " client that asks 32 different questions in turn, of all agents: 20 results, the best first, with snippets"
               " and offsets. Beside it, in turns and without a server (`direct.c`): memfs's own statement, which is what"
               " its index costs (up to 1,000 texts are read, the latest first, and memfs then looks at each of them); and"
               " the same question as SQLite has it itself: an FTS5 table with places of words over label, description and"
               " value, `bm25()`, `snippet()`, 20 rows, which ranks all that match." % (AGENTS, f"{FILES:,}"))
    row.table(("", "memfs", "its statement directly", "SQLite's ranked search directly"), lines)
    row.figure("push of 2,000 new blocks, index included", took, "ms")
    row.figure("SQLite's ranked index made afterwards, of 2,000 blocks", plain_s * 1000 / AGENTS, "ms")
    return row


# ---- lists

LIST_SQL = """SELECT agent_id, org_id, name, tags, created_at, updated_at, hidden, deleted_at, version,
ifnull((SELECT fields FROM agent_fields f WHERE f.agent_id = agents.agent_id), '') FROM agents
WHERE deleted_at = 0 AND hidden = 0 AND agent_id NOT GLOB 'repo-*' %s ORDER BY created_at DESC, agent_id DESC LIMIT %d"""
AFTER = "AND (created_at, agent_id) < ((SELECT created_at FROM agents WHERE agent_id = ?1), ?1)"
SDK = ("X-Stainless-Package-Version: 1.12.1",)


def bench_list(folder):
    row = Row("list", "lists of 10,000 agents")
    server = registered(folder, 10000)
    folder = os.path.join(folder, "list")
    os.makedirs(folder)
    copy = os.path.join(folder, "state-copy.db")
    shutil.copyfile(os.path.join(server.home, "state.db"), copy)
    lines = []
    with server:
        ids = [a["id"] for a in server.get("/v1/agents?limit=0", headers=dict([SDK[0].split(": ")])).json()]
        assert len(ids) == 10000, len(ids)
        cases = (("the first 50", "?limit=50", "", 50, "", SDK),
                 ("50 after the 9,000th", "?limit=50&after=" + ids[8999], AFTER, 50, ids[8999], SDK),
                 ("1,000 after the 5,000th", "?limit=1000&after=" + ids[4999], AFTER, 1000, ids[4999], SDK),
                 ("the first 50, with blocks and tags", "?limit=50", "", 50, "", ()))
        for i, (what, query, where, n, cursor, headers) in enumerate(cases):
            asked = request_file(folder, "list-%d" % i, "GET", "/v1/agents" + query, headers=headers)
            sql = written(folder, "list-%d.sql" % i, LIST_SQL % (where, n))
            cursors = written(folder, "list-%d.txt" % i, (cursor or "-") + "\n")
            got = take_turns(3, {
                "memfs": lambda: load(server.port, 500, asked, connections=1),
                "SQLite": lambda: direct("query", copy, 1, 500, sql, cursors)})
            lines.append((what, *["p50 %s ms, p99 %s ms" % (number(a.p50_ms()), number(a.p99_ms()))
                                  for a in got.values()]))
            row.figure("%s: memfs beside SQLite, p50" % what, got["memfs"].p50_ms() / got["SQLite"].p50_ms(), "×")
    row.remark("10,000 agents, newest first, one client. An answer is whole AgentStates, some 2 KiB of JSON each"
               " that SQLite does not write; what it is asked directly is memfs's own statement over `state.db`, which for"
               " blocks is followed by one for each agent.")
    row.table(("", "memfs", "SQLite directly"), lines)
    return row


# ---- history

COMMITS = 100000
BUSY, SELDOM = "notes/busy.md", "notes/seldom.md"
OFTEN = ["notes/topic-%02d.md" % i for i in range(48)]
VERSIONS_SQL = """SELECT v.version_no, v.path, v.commit_id, v.blob FROM versions v WHERE v.agent_no =
(SELECT agent_no FROM agents WHERE agent_id = ?1) AND v.path = ?2 ORDER BY v.version_no DESC LIMIT 50"""


def stream_of_history():
    """Of git fast-import: one file in half of the commits, one in three of them, the others in turn."""
    seldom = {10: 1, COMMITS // 2: 2, COMMITS - 1000: 3}
    yield b"reset refs/heads/main\nfrom %s\n\n" % wire.GENESIS.encode()
    for i in range(COMMITS):
        path = SELDOM if i in seldom else BUSY if i % 2 else OFTEN[i // 2 % len(OFTEN)]
        text = b"Change %d\nof a line that stays\n" % i
        head = b"commit refs/heads/main\ncommitter Bench <bench@example.org> %d +0000\ndata 7\nchange\n\n"
        yield head % (1700000000 + i) + b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(text), text)


def seed_history(server, folder, agent):
    """Pushes of 10,000 commits, the most that one may have; seconds of each `git push`."""
    clone, took = Clone(os.path.join(folder, "clone"), server.git_url(agent)), []
    git("fast-import", "--quiet", "--force", cwd=clone.folder, input=b"".join(stream_of_history()))
    for left in range(COMMITS - 10000, -1, -10000):
        start = time.perf_counter()
        git("push", "-q", "origin", "main~%d:refs/heads/main" % left, cwd=clone.folder)
        took.append(time.perf_counter() - start)
    git("reset", "-q", "--hard", "main", cwd=clone.folder)
    return clone, took


def git_ms(repository, *args):
    start = time.perf_counter()
    git(*args, cwd=repository)
    return (time.perf_counter() - start) * 1000


def timed_get(server, target):
    start = time.perf_counter()
    answer = server.get(target)
    ms = (time.perf_counter() - start) * 1000
    assert answer.status == 200 and answer.json(), answer
    return ms, answer.json()


def history_cases(server, base, clone):
    """{what: (what memfs is asked, what git is)}"""
    def log(*args):
        return ("log", "-n", "50", "--format=%H", *args)

    busy, = git("log", "-n", "1", "--format=%H", "main~50000", "--", BUSY, cwd=clone).decode().split()
    old = git("rev-parse", "main~90000", cwd=clone).decode().strip()
    history = base + "/history?limit=50"
    return {
        "a file of 50,000 changes, the newest 50": (history + "&path=" + BUSY, log("main", "--", BUSY)),
        "that file, 50 after its 25,000th": (history + "&path=%s&before=%s" % (BUSY, busy), log(busy, "--", BUSY)),
        "a file of 3 changes": (history + "&path=" + SELDOM, log("main", "--", SELDOM)),
        "the memory, the newest 50": (history, log("main")),
        "the memory, 50 after the 90,000th": (history + "&before=" + old, log("--skip=90001", "main")),
        "its blocks 90,000 commits ago": (base + "/at/%s/blocks" % old, ("merge-base", "--is-ancestor", old, "main")),
    }


def bench_history(folder):
    row = Row("history", "the history of a file in 100,000 commits")
    folder = os.path.join(folder, "history")
    server, agent = Memfs(folder), new_agent()
    base = "/v1/agents/%s/memory" % agent
    lines, slowest = [], 0
    with server:
        clone, pushes_s = seed_history(server, folder, agent)
        first, _ = timed_get(server, base + "/history?path=" + SELDOM)
        for i, (what, (target, args)) in enumerate(history_cases(server, base, clone.folder).items()):
            asked = request_file(folder, "history-%d" % i, "GET", target)
            rounds, ms = (1, 4000) if "90,000" in what else (3, 500)
            got = take_turns(rounds, {"memfs": lambda: load(server.port, ms, asked, connections=1)})["memfs"]
            logs = [git_ms(server.repository(agent), *args) for _ in range(3)]
            lines.append((what, "p50 %s ms, p99 %s ms" % (number(got.p50_ms()), number(got.p99_ms())),
                          "%s ms" % number(median(logs))))
            if "file" in what:
                slowest = max(slowest, got.p99_ms())
        after_push = []
        for _ in range(10):
            clone.commit_one(BUSY)
            clone.push()
            ms, rows = timed_get(server, base + "/history?limit=50&path=" + BUSY)
            assert rows[0]["sha"] == git("rev-parse", "HEAD", cwd=clone.folder).decode().strip()
            after_push.append(ms)
    cache = os.path.join(server.home, "cache.db")
    bare = direct("query", cache, 1, 1000, written(folder, "versions.sql", VERSIONS_SQL),
                  written(folder, "versions.txt", "%s\t%s\n" % (agent, BUSY)))
    row.remark("100,000 commits of one file each (`git fast-import`, then ten `git push`): one file in every second, one in"
               " three of them all, 48 others in turn. One client asks `memory/history` for 50 commits, with who made"
               " them, their files and lines. git is a process in the same repository that is asked for the 50 ids alone"
               " (`git log`), or whether that commit is in `main` (`git merge-base --is-ancestor`). Old commits of the"
               " whole memory are walked to, by both; of a file memfs has an index.")
    row.table(("", "memfs", "git"), lines)
    row.figure("`git push` of 10,000 of the commits", pushes_s, "s")
    row.figure("the first question, which makes the index", first, "ms")
    after = row.figure("the first question after a push of one commit", after_push, "ms")
    row.figure("the index alone, 50 rows, SQLite directly", bare["p50_us"] / 1000, "ms")
    worst = max(slowest, after)
    row.budget("a file's history ≤ 100 ms after the first time, p99", worst, worst <= 100, "ms")
    return row
