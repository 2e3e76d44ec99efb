"""The real letta-code against the real Letta server, and memfs as the memfs service behind that:
all that a user's set-up has, with nothing in anybody's place but the model."""
import os
import subprocess

import pytest

from lib import letta
from lib.modelapi import LINE
from lib.redis import Redis
from lib.server import CANARY

pytestmark = pytest.mark.lettaserver

# The last one before clients ask a server for an agent's secrets at start; stock 0.16.7 has no such
# route, and 0.32.18 ends without a word when it is told so.
VERSION = "0.30.28"


@pytest.fixture(scope="module")
def letta_code():
    done = subprocess.run([os.path.join(letta.ROOT, "tests", "letta", "install.sh"), VERSION],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=1200)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return os.path.join(letta.ROOT, ".deps", "letta")


@pytest.fixture(scope="module")
def whole_letta(letta_folder, letta_postgres, model_api):
    """With a Redis: this server streams to letta-code only through one."""
    folder = letta_folder / "whole"
    with Redis(folder / "redis", letta.free_port()) as redis, letta.with_service(
            letta_postgres, folder, model_api, redis.env) as server:
        yield server


class Home:
    """A machine of a user who has letta-code."""

    def __init__(self, server, folder, programs):
        self.server, self.folder, self.programs = server, folder, programs
        folder.mkdir()
        (folder / ".gitconfig").write_text("[user]\n\tname = Somebody\n\temail = s@example.org\n")

    def turn(self, agent):
        done = subprocess.run(
            [os.path.join(self.programs, VERSION, "node_modules", ".bin", "letta"), "-p", "hi",
             "--agent", agent, "--memfs", "--yolo"], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
            env={"PATH": os.path.join(self.programs, "node", "bin") + ":/usr/bin:/bin",
                 "HOME": str(self.folder), "LETTA_BASE_URL": self.server.url,
                 "LETTA_MEMFS_BASE_URL": self.server.url, "LETTA_API_KEY": CANARY,
                 "LETTA_MEMFS_LOCAL": "1", "DISABLE_AUTOUPDATER": "1"})
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0 and LINE in said, said + self.server.log_tail()

    def memory(self, agent):
        return self.folder / ".letta" / "agents" / agent / "memory"


def test_what_an_agent_of_it_keeps_is_in_memfs_and_on_the_next_machine(
        whole_letta, server, letta_code, model_api, folder):
    whole_letta.serve(server.port)
    agent = whole_letta.create_agent()
    model_api.say(tool="Bash", description="keep it", command=(
        "cd \"$MEMORY_DIR\" && mkdir -p system &&"
        " printf -- '---\\ndescription: who\\n---\\nLikes milk.\\n' >system/human.md &&"
        " git add -A && git commit -q -m keep && echo all-went-well"))
    Home(whole_letta, folder / "one", letta_code).turn(agent)
    told = [m["content"] for m in model_api.prompts[-1].messages if m["role"] == "tool"]
    assert [text.strip() for text in told] == ["all-went-well"]
    assert server.value(agent, "system/human") == "Likes milk.\n"
    other = Home(whole_letta, folder / "other", letta_code)
    other.turn(agent)
    assert (other.memory(agent) / "system" / "human.md").read_text().endswith("Likes milk.\n")
