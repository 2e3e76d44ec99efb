"""A server whose blocks a file of tests writes over REST, a new agent for each test.

    from lib.writes import srv  # noqa: F401  (a fixture)
"""
import json
import pathlib
import shutil
import tempfile
import uuid

import pytest

from lib.gitcli import Git
from lib.server import CANARY, Server, new_agent
from lib.writer import Memory


class Writes:
    def __init__(self, server, git=None, folder=None):
        self.server, self.git, self.folder = server, git, folder

    def agent(self, files=None):
        agent = new_agent()
        m = Memory(self.server, agent)
        m.must_push(files or {"system/human.md": "---\ndescription: About\n---\nLikes tea."})
        m.close()
        return agent

    def push(self, agent, files):
        """By git, on top of what is there."""
        self.git.clone(self.server.git_url(agent), self.folder / uuid.uuid4().hex).save(files)

    def ask(self, method, target, body=None, token=None, **headers):
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if token:
            headers["Authorization"] = "Bearer " + token
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.server.request(method, target, body, headers)

    def ok(self, *args, **kw):
        answer = self.ask(*args, **kw)
        assert answer.status == 200, answer
        return answer.json()

    def patch(self, agent, label, body, **kw):
        return self.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/{label}", body, **kw)

    def block(self, agent, label):
        return self.ok("GET", f"/v1/agents/{agent}/core-memory/blocks/{label}")

    def move(self, how, agent, block, **kw):
        return self.ask("PATCH", f"/v1/agents/{agent}/core-memory/blocks/{how}/{block}", b"", **kw)

    def commit(self, agent, body, **kw):
        return self.ask("POST", f"/v1/agents/{agent}/memory/commit", body, **kw)

    def file(self, agent, path):
        return self.server.git_dir(agent, "show", f"main:{path}").stdout

    def files(self, agent):
        return set(self.server.git_dir(agent, "ls-tree", "-r", "--name-only", "-z", "main")
                   .stdout.decode().split("\0")) - {""}

    def log(self, agent, form="%s"):
        return self.server.git_dir(agent, "log", f"--format={form}", "main").stdout.decode().splitlines()

    def main(self, agent):
        return self.log(agent, "%H")[0]


@pytest.fixture(scope="module")
def srv(memfs_bin):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="memfs-writes-"))
    folder.chmod(0o755)
    server = Server(memfs_bin, folder / "s")
    try:
        server.start()
        yield Writes(server, Git(folder / "githome", CANARY), folder)
        server.stop()
        server.check_clean()
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
