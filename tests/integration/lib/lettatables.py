"""The tables of a Letta server without the server: its schema, agents, and writers that keep its
rules (optimistic locking by version), each in a session of its own.

    with Postgres(folder) as pg:
        letta = LettaTables(pg)
        agent = letta.agent(tags=["git-memory-enabled"])
        letta.rows(agent)           letta.edit(agent, "system/human", "new value")
"""
import json
import os
import pathlib
import subprocess

from . import postgres
from .server import ORG, new_agent

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "unit" / "letta_schema.sql"
USER = "user-00000000-0000-4000-8000-000000000000"


def quote(text):
    return "'" + text.replace("'", "''") + "'"


class Session:
    """One psql, asked one statement after the other."""

    def __init__(self, url):
        self.psql = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-d", url],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True,
                                     env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})

    def ask(self, sql):
        """The rows; a line that begins with ERROR fails."""
        self.psql.stdin.write(sql + "\n;\n\\echo ---end---\n")
        self.psql.stdin.flush()
        lines = []
        for line in self.psql.stdout:
            if line == "---end---\n":
                return [line.split("\t") for line in lines]
            assert "ERROR:" not in line and "FATAL:" not in line, line
            lines.append(line.rstrip("\n"))
        raise AssertionError("psql ended")

    def close(self):
        self.psql.stdin.close()
        self.psql.wait(30)
        self.psql.stdout.close()


class LettaTables:
    def __init__(self, pg, name="letta"):
        self.pg, self.name = pg, name
        self.url = pg.database(name)
        postgres.sql(self.url, SCHEMA.read_text())

    def sql(self, text):
        return postgres.sql(self.url, text)

    def session(self):
        return Session(self.url)

    def agent(self, id=None, tags=()):
        id = id or new_agent()
        self.sql("INSERT INTO agents(id, organization_id, name, message_buffer_autoclear) "
                 f"VALUES('{id}', '{ORG}', 'an agent', false)")
        for tag in tags:
            self.sql(f"INSERT INTO agents_tags VALUES('{id}', '{tag}')")
        return id

    def block(self, agent, label, value, id, **columns):
        columns = {"limit": 5000, "description": "NULL", **columns}
        self.sql("INSERT INTO block(id, label, value, \"limit\", description, metadata_, read_only, "
                 f"is_template, organization_id) VALUES('{id}', {quote(label)}, {quote(value)}, "
                 f"{columns['limit']}, {columns['description']}, '{{}}', false, false, '{ORG}'); "
                 f"INSERT INTO blocks_agents VALUES('{agent}', '{id}', {quote(label)})")
        return id

    def rows(self, agent):
        """Rows of an agent by label, as dicts."""
        found = self.sql("SELECT to_json(b) FROM block b JOIN blocks_agents l ON l.block_id = b.id "
                         f"WHERE l.agent_id = '{agent}'")
        rows = [json.loads(row[0]) for row in found]
        return {row["label"]: row for row in rows}

    def values(self, agent):
        return {label: row["value"] for label, row in self.rows(agent).items()}

    def edit(self, agent, label, value):
        """As PATCH of a block: read, then write on the condition of the version."""
        session = self.session()
        try:
            assert change(session, agent, label, lambda _: value)
        finally:
            session.close()

    def tip(self, agent):
        found = self.sql(f"SELECT encode(tip, 'hex') FROM memfs_letta.tips WHERE agent_id = '{agent}'")
        return found[0][0] if found else None


def change(session, agent, label, fn):
    """What Letta's ORM does, once; False: somebody else was first (409)."""
    found = session.ask("SELECT b.id, b.version, to_json(b.value) FROM block b JOIN blocks_agents l "
                        f"ON l.block_id = b.id WHERE l.agent_id = '{agent}' AND b.label = "
                        f"{quote(label)}")
    if not found:
        return False
    id, version, value = found[0]
    return session.ask(
        f"UPDATE block SET value = {quote(fn(json.loads(value)))}, updated_at = now(), "
        f"_last_updated_by_id = '{USER}', version = {int(version) + 1} WHERE id = '{id}' AND "
        f"version = {version} RETURNING 1") == [["1"]]
