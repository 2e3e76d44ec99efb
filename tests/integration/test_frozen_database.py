"""A database that was stopped in its tracks, and requests for blocks that wait for it: on workers, so
that event threads answer what needs no database, and modestly, so that git has workers too (L3).
"""
import threading
import time

import pytest

from lib.gitcli import Git
from lib.patience import wait
from lib.postgres import Postgres
from lib.server import new_agent
from lib.writer import Memory

# All that HTTP_FAST rows of the route table ask the database for, and lists beside them.
ROUTES = ["/v1/agents/{agent}", "/v1/agents/{agent}/core-memory", "/v1/agents/{agent}/core-memory/blocks",
          "/v1/agents/{agent}/core-memory/blocks/system/human", "/v1/blocks/{block}",
          "/v1/blocks/{block}/agents", "/v1/agents/", "/v1/agents/count", "/v1/blocks/", "/v1/blocks/count",
          "/v1/tags/"]
TAGGED = ROUTES[1:4]
TIMEOUT = 90     # a work with the database ends in 60 s at the latest (PG_WORK_MS)


@pytest.fixture
def pg(folder):
    with Postgres(folder / "pg") as made:
        yield made
        made.thaw()


@pytest.fixture
def server(pg, servers):
    return servers(env={"MEMFS_DATABASE": pg.database("memfs")})


class Question(threading.Thread):
    """One request on a connection of its own."""

    def __init__(self, server, target, headers=None):
        super().__init__(daemon=True)
        self.server, self.target, self.headers = server, target, headers
        self.answer = None

    def run(self):
        try:
            self.answer = self.server.get(self.target, headers=self.headers, timeout=TIMEOUT)
        except Exception as problem:
            self.answer = problem


def questions(server, memories):
    """Each route for each agent, more than there are workers; those with tags also as a client asks
    that has an answer already."""
    made = []
    for m in memories:
        for route in ROUTES:
            target = route.format(agent=m.agent, block=m.block)
            made.append(Question(server, target))
            if route in TAGGED:
                made.append(Question(server, target, {"If-None-Match": '"another"'}))
    return made


def fill(server, n):
    memories = [Memory(server, new_agent()) for _ in range(n)]
    for m in memories:
        m.must_push({"system/human.md": "text\n"})
        m.block = server.value_id(m.agent, "system/human")
        m.close()
    return memories


def touch(server, memories):
    """A look at an agent holds for a second, in which its routes are tried on the event thread."""
    for m in memories:
        assert server.block(m.agent, "system/human").status == 200


def waiting(asked):
    return [q for q in asked if q.answer is None]


def one_round(server, pg, git, memories, other, to):
    """Freezes, asks all, and asks what needs no database; were others still waiting then?"""
    touch(server, memories)
    pg.freeze()
    try:
        asked = questions(server, memories)
        for q in asked:
            q.start()
        for _ in range(30):         # new connections, so on every event thread
            assert server.get("/healthz", timeout=TIMEOUT).status == 200
        time.sleep(1.1)             # how long a look at an agent holds: this clone needs workers
        assert git.clone(server.git_url(other.agent), to, timeout=TIMEOUT).head == other.tip
        was_first = len(waiting(asked)) == len(asked)
        for q in asked:
            q.join(TIMEOUT)
            assert getattr(q.answer, "status", None) == 503, (q.target, q.answer)
            assert int(q.answer.headers["retry-after"]) >= 1, q.answer.headers
    finally:
        pg.thaw()
    wait(lambda: all(server.block(m.agent, "system/human").status == 200 for m in memories),
         "a thawed database serves again")
    return was_first


def test_L3_who_waits_for_the_database_keeps_nobody_from_an_answer(server, pg, folder):
    """The order is what is asked for: all that needs no database is answered before the first that
    does.  On a machine that is too busy for that the round is repeated."""
    memories, other = fill(server, 4), fill(server, 1)[0]
    git = Git(folder / "git")
    assert any(one_round(server, pg, git, memories, other, folder / f"clone{i}") for i in range(5))


def test_L3_agents_at_hand_are_answered_without_the_database(server, pg):
    """A route that shows nothing of the database, and refs: no thread at all waits for them."""
    memories = fill(server, 2)
    touch(server, memories)
    pg.freeze()
    try:
        for m in memories:
            assert server.get(f"/v1/agents/{m.agent}/secrets", timeout=TIMEOUT).body == b"[]"
            assert server.tip(m.agent) == m.tip
    finally:
        pg.thaw()
