"""A server with three agents that a whole file of REST tests reads from; and what answers look like.

    from lib.restmem import mem  # noqa: F401  (a fixture)
"""
import ast
import pathlib
import re
import shutil
import tempfile
import uuid

import pytest

from lib.gitcli import Git
from lib.server import CANARY, Server, new_agent

BLOCK_KEYS = ["value", "limit", "project_id", "template_name", "is_template", "template_id",
              "base_template_id", "deployment_id", "entity_id", "preserve_on_migration", "label",
              "read_only", "description", "metadata", "hidden", "id", "created_by_id",
              "last_updated_by_id", "tags"]
AGENT_KEYS = ["created_by_id", "last_updated_by_id", "created_at", "updated_at", "id", "name",
              "tool_rules", "message_ids", "system", "agent_type", "llm_config", "embedding_config",
              "model", "embedding", "model_settings", "compaction_settings", "response_format",
              "description", "metadata", "memory", "blocks", "tools", "sources", "tags",
              "tool_exec_environment_variables", "secrets", "project_id", "template_id",
              "base_template_id", "deployment_id", "entity_id", "identity_ids", "identities",
              "pending_approval", "message_buffer_autoclear", "enable_sleeptime",
              "multi_agent_group", "managed_group", "last_run_completion", "last_run_duration_ms",
              "last_stop_reason", "timezone", "max_files_open", "per_file_view_window_char_limit",
              "hidden"]
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
UUID4_PATTERN = UUID4 + "$"
CURL = {"User-Agent": "curl/8.0"}

FILES = {
    "system/human.md": "---\ndescription: About the user\nlimit: 5000\nread_only: true\n"
                       "metadata:\n  a: [1, x]\n---\nLikes tea.",
    "system/persona.md": "---\ndescription: Who I am\n---\nI am Ada ✓ \"quoted\" \\ and\ttabbed.\n",
    "notes/100%.md": "plain text without front matter\n",
    "skills/brew/SKILL.md": "---\nname: brew\ndescription: How to brew\n---\nBoil water.\n",
    "empty.md": "",
    "docs/picture.bin": b"\x00\x01\x02",
}
LABELS = {"system/human", "system/persona", "notes/100%", "skills/brew", "empty"}


class Memory:
    """A server and the agents that were pushed to it."""

    def __init__(self, server, git, folder):
        self.server, self.git, self.folder = server, git, folder
        self.ada, self.bob, self.local = new_agent(), new_agent(), f"agent-local-{uuid.uuid4()}"

    def get(self, target, **headers):
        return self.server.get(target, headers=headers)

    def json(self, target, **headers):
        answer = self.server.get(target, headers={k.replace("_", "-"): v
                                                  for k, v in headers.items()})
        assert answer.status == 200, (target, answer)
        return answer.json()

    def clone(self, agent):
        return self.git.clone(self.server.git_url(agent), self.folder / uuid.uuid4().hex)


@pytest.fixture(scope="module")
def mem(memfs_bin):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="memfs-rest-"))
    folder.chmod(0o755)
    server = Server(memfs_bin, folder / "s")
    try:
        server.start()
        m = Memory(server, Git(folder / "githome", CANARY), folder)
        m.clone(m.ada).save(FILES)
        m.clone(m.bob).save({"system/human.md": "Bob's own", "b.md": "one", "a.md": "two"})
        m.clone(m.local).save({"x.md": "local"})
        yield m
        server.stop()
        server.check_clean()
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def error_list(answer):
    """The errors of a 422: its detail is a text, and that text is Python."""
    assert answer.status == 422, answer
    body = answer.json()
    assert list(body)[:2] == ["trace_id", "detail"], body
    assert re.fullmatch(r"|[0-9a-f]{32}", body["trace_id"])
    assert isinstance(body["detail"], str)
    errors = ast.literal_eval(body["detail"])
    assert body["detail"] == repr(errors), "it is the repr of the list, byte for byte"
    return errors


def only_error(answer):
    errors = error_list(answer)
    assert len(errors) == 1, errors
    return errors[0]
