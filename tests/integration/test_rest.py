"""The reading API over real pushes, named after the sections of the wire contract (http-api).

One server with three agents serves the whole file; tests that change something have one of their own.
"""
import ast
import hashlib
import http.client
import json
import pathlib
import re
import shutil
import socket
import tempfile
import uuid

import pytest

from lib import http as lib_http
from lib.gitcli import Git
from lib.server import CANARY, Server, new_agent

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


# ---- 1: rules common to all ---------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/v1/agents", "/v1/blocks", "/v1/health"])
def test_1_1_collections_answer_with_and_without_a_slash(mem, path):
    with_slash, without = mem.get(path + "/"), mem.get(path)
    assert with_slash.status == without.status == 200
    assert with_slash.body == without.body


def test_1_1_latest_is_v1(mem):
    for path in (f"/agents/{mem.ada}/core-memory/blocks", "/blocks/?limit=3", "/agents/count",
                 f"/agents/{mem.ada}/core-memory/blocks/system%2Fhuman", "/health/"):
        assert mem.get("/latest" + path).body == mem.get("/v1" + path).body


def test_1_1_answers_are_compact_json_with_utf8_as_it_is(mem):
    answer = mem.get(f"/v1/agents/{mem.ada}/core-memory/blocks/system/persona")
    assert answer.headers["content-type"].split(";")[0] == "application/json"
    assert "✓".encode() in answer.body
    assert answer.body == json.dumps(answer.json(), ensure_ascii=False,
                                     separators=(",", ":")).encode()


def test_1_1_unknown_query_parameters_are_ignored(mem):
    assert mem.json("/v1/blocks/?limit=1&nonsense=1&nonsense=2") == mem.json("/v1/blocks/?limit=1")


def test_1_1_unknown_routes_are_404_not_found(mem):
    for path in ("/", "/v1", "/v2/agents", "/v1/agents/x/y/z", f"/v1/agents/{mem.ada}/nothing"):
        answer = mem.get(path)
        assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}'), path


def test_1_1_writes_are_405_with_allow(mem):
    block = mem.json(f"/v1/agents/{mem.bob}/core-memory/blocks")[0]["id"]
    for method, path in [("PATCH", f"/v1/blocks/{block}"), ("DELETE", f"/v1/blocks/{block}"),
                         ("POST", "/v1/blocks/"), ("POST", "/v1/agents/"),
                         ("PATCH", f"/v1/agents/{mem.bob}"), ("DELETE", f"/v1/agents/{mem.bob}"),
                         ("PATCH", f"/v1/agents/{mem.bob}/core-memory/blocks/system/human"),
                         ("PATCH", f"/v1/agents/{mem.bob}/core-memory/blocks/attach/{block}")]:
        answer = mem.server.request(method, path, body=b'{"value":"x"}',
                                    headers={"Content-Type": "application/json"})
        assert (answer.status, answer.body) == (405, b'{"detail":"Method Not Allowed"}'), path
        assert "GET" in answer.headers["allow"]
    assert mem.server.value(mem.bob, "system/human") == "Bob's own"


def test_1_3_user_id_is_checked_for_its_form_and_changes_nothing(mem):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks"
    known = "user-00000000-0000-4000-8000-000000000000"
    assert mem.get(path, user_id=known).body == mem.get(path).body
    assert mem.get(path, user_id=f"user-{uuid.uuid4()}").body == mem.get(path).body
    bad = mem.get(path, user_id="root")
    assert bad.status == 400
    assert bad.detail == ("INVALID_ARGUMENT: Invalid user ID format: root. Expected format: "
                          "'user-<uuid4>'")


def test_T03_trust_headers_of_strangers_change_nothing(mem):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks"
    forged = {"X-Organization-Id": "org-11111111-1111-4111-8111-111111111111",
              "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil.example"}
    assert mem.get(path, **forged).body == mem.get(path).body


@pytest.mark.parametrize("prefix,paths", [
    ("agent", ["/v1/agents/{}", "/v1/agents/{}/core-memory", "/v1/agents/{}/core-memory/blocks",
               "/v1/agents/{}/core-memory/blocks/x", "/v1/agents/{}/secrets",
               "/v1/agents/{}/repositories"]),
    ("block", ["/v1/blocks/{}", "/v1/blocks/{}/agents"]),
])
def test_1_4_bad_path_ids_are_422_with_an_example(mem, prefix, paths):
    name = prefix + "_id"
    for bad in (f"{prefix}-1", f"{prefix.upper()}-{uuid.uuid4()}", f"user-{uuid.uuid4()}", "it's",
                f"{prefix}-11111111-1111-1111-8111-111111111111", f"{prefix}-{uuid.uuid4()}x"):
        for path in paths:
            answer = mem.get(path.format(bad))
            error = only_error(answer)
            pattern = f"^{prefix}-{UUID4_PATTERN}"
            assert error == {"type": "string_pattern_mismatch", "loc": ("path", name),
                             "msg": f"String should match pattern '{pattern}'", "input": bad,
                             "ctx": {"pattern": pattern}}
            assert answer.json()["examples"] == [f"{prefix}-123e4567-e89b-42d3-8456-426614174000"]


def test_1_4_sync_checks_its_id_too(mem):
    answer = mem.server.request("POST", "/v1/agents/agent-1/memory/sync-from-git")
    assert only_error(answer)["loc"] == ("path", "agent_id")


def test_1_4_agent_local_ids_are_agents(mem):
    assert mem.json(f"/v1/agents/{mem.local}")["id"] == mem.local
    assert mem.server.value(mem.local, "x") == "local"


def test_1_5_unknown_things_are_404_with_the_texts_of_letta(mem):
    agent, block = new_agent(), f"block-{uuid.uuid4()}"
    for path in (f"/v1/agents/{agent}", f"/v1/agents/{agent}/core-memory",
                 f"/v1/agents/{agent}/core-memory/blocks", f"/v1/agents/{agent}/secrets",
                 f"/v1/agents/{agent}/core-memory/blocks/x", f"/v1/agents/{agent}/repositories"):
        answer = mem.get(path)
        assert (answer.status, answer.detail) == (404, f"Agent with ID {agent} not found"), path
    answer = mem.get(f"/v1/blocks/{block}")
    assert (answer.status, answer.detail) == (404, f"Block with id '{block}' not found")
    answer = mem.get(f"/v1/agents/{mem.ada}/core-memory/blocks/system/nobody")
    assert (answer.status, answer.detail) == (
        404, f"No block with label 'system/nobody' found for agent '{mem.ada}'")


@pytest.mark.parametrize("query,kind,loc,shown", [
    ("limit=abc", "int_parsing", ("query", "limit"), "abc"),
    ("limit=", "int_parsing", ("query", "limit"), ""),
    ("limit=1.5", "int_parsing", ("query", "limit"), "1.5"),
    ("limit=%22it's", "int_parsing", ("query", "limit"), "\"it's"),
    ("limit=-1", "greater_than_equal", ("query", "limit"), "-1"),
    ("order=up", "literal_error", ("query", "order"), "up"),
    ("order_by=label", "literal_error", ("query", "order_by"), "label"),
])
def test_1_5_bad_query_values_are_422(mem, query, kind, loc, shown):
    for path in (f"/v1/agents/{mem.ada}/core-memory/blocks", "/v1/blocks/", "/v1/agents/"):
        answer = mem.get(f"{path}?{query}")
        error = only_error(answer)
        assert (error["type"], error["loc"], error["input"]) == (kind, loc, shown)
        assert "examples" not in answer.json()


def test_1_5_all_errors_stand_in_one_answer(mem):
    errors = error_list(mem.get("/v1/blocks/?limit=x&order=y&templates_only=z&label=a.b"))
    assert {e["loc"][1] for e in errors} == {"limit", "order", "templates_only", "label"}


def test_T02_a_parameter_given_twice_is_400(mem):
    answer = mem.get(f"/v1/agents/{mem.ada}/core-memory/blocks?limit=1&limit=2")
    assert answer.status == 400
    assert "limit" in answer.detail


@pytest.mark.parametrize("query", ["limit=%201", "limit=%2B1", "limit=1.0", "limit=0_1"])
def test_1_5_numbers_are_read_as_letta_reads_them(mem, query):
    assert len(mem.json(f"/v1/blocks/?{query}")) == 1


# ---- 3: sync-from-git ----------------------------------------------------------------------------

def test_3_sync_from_git_answers_the_blocks_in_tree_order(mem):
    answer = mem.server.request("POST", f"/v1/agents/{mem.ada}/memory/sync-from-git")
    assert answer.status == 200
    tree = mem.server.git_dir(mem.ada, "ls-tree", "-r", "-z", "--name-only", "HEAD").stdout
    paths = [p for p in tree.decode().split("\0") if p.endswith(".md")]
    labels = [p[:-3].removesuffix("/SKILL") for p in paths]
    assert [b["label"] for b in answer.json()] == labels
    assert all(list(b) == BLOCK_KEYS for b in answer.json())


@pytest.mark.parametrize("recompile", ["true", "false", "auto", "1"])
def test_3_sync_from_git_accepts_recompile(mem, recompile):
    path = f"/v1/agents/{mem.bob}/memory/sync-from-git/?recompile={recompile}"
    assert mem.server.request("POST", path).status == 200


def test_3_sync_from_git_checks_recompile_and_the_agent(mem):
    path = "/v1/agents/{}/memory/sync-from-git"
    bad = mem.server.request("POST", path.format(mem.bob) + "?recompile=maybe")
    assert only_error(bad)["type"] == "bool_parsing"
    assert mem.server.request("POST", path.format(new_agent())).status == 404
    assert mem.server.request("GET", path.format(mem.bob)).status == 405


def test_3_sync_from_git_sees_what_was_done_to_the_folder_by_hand_F14(server, git, folder, agent):
    a = agent()
    checkout = git.clone(server.git_url(a), folder / "c")
    first = checkout.save({"x.md": "first"})
    checkout.save({"x.md": "second"})
    ids = {label: b["id"] for label, b in server.blocks(a).items()}
    tree = server.git_dir(a, "rev-parse", f"{first}^{{tree}}").stdout.decode().strip()
    done = server.git_dir(a, "-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", "-p",
                          "refs/heads/main", "-m", "by hand", tree)
    server.git_dir(a, "update-ref", "refs/heads/main", done.stdout.decode().strip())
    answer = server.request("POST", f"/v1/agents/{a}/memory/sync-from-git")
    assert [b["value"] for b in answer.json()] == ["first"]
    assert {b["label"]: b["id"] for b in answer.json()} == ids


def test_3_a_known_agent_without_its_folder_is_503_H4(server, git, folder, agent):
    a = agent()
    git.clone(server.git_url(a), folder / "c").save({"x.md": "v"})
    server.stop()
    repository = pathlib.Path(server.repository(a))
    aside = folder / "aside"
    repository.rename(aside)
    server.start()
    for method, path in [("POST", f"/v1/agents/{a}/memory/sync-from-git"),
                         ("GET", f"/v1/agents/{a}/core-memory/blocks"),
                         ("GET", f"/v1/agents/{a}/core-memory/blocks/x"),
                         ("GET", f"/v1/agents/{a}")]:
        answer = server.request(method, path)
        assert answer.status == 503, (path, answer)
        assert "retry-after" in answer.headers
    assert not repository.exists(), "nothing was made in its place"
    server.stop()
    aside.rename(repository)
    server.start()
    assert server.value(a, "x") == "v"


# ---- 4: the Block --------------------------------------------------------------------------------

def test_4_a_block_has_every_field_in_order(mem):
    block = mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/system/human")
    assert list(block) == BLOCK_KEYS
    assert re.fullmatch(r"block-" + UUID4, block["id"])
    assert block == {
        "value": "Likes tea.", "limit": 5000, "project_id": None, "template_name": None,
        "is_template": False, "template_id": None, "base_template_id": None,
        "deployment_id": None, "entity_id": None, "preserve_on_migration": False,
        "label": "system/human", "read_only": True, "description": "About the user",
        "metadata": {"a": [1, "x"]}, "hidden": None, "id": block["id"], "created_by_id": None,
        "last_updated_by_id": None, "tags": []}


def test_4_defaults_of_a_file_without_front_matter(mem):
    block = mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/notes/100%25")
    assert block["value"] == FILES["notes/100%.md"]
    assert (block["limit"], block["read_only"], block["metadata"]) == (100000, False, {})


def test_4_an_empty_file_is_an_empty_value_K4(mem):
    assert mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/empty")["value"] == ""


def test_4_the_id_is_made_of_agent_and_label(mem):
    block = mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/system/human")
    digest = bytearray(hashlib.md5(f"{mem.ada}:system/human".encode()).digest())
    digest[6], digest[8] = digest[6] & 0x0F | 0x40, digest[8] & 0x3F | 0x80
    assert block["id"] == f"block-{uuid.UUID(bytes=bytes(digest))}"


# ---- 5: an agent's blocks ------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["system/human", "system%2Fhuman", "system%2fhuman",
                                  "%73ystem/human"])
def test_5_1_labels_with_slashes_raw_and_encoded(mem, form):
    answer = mem.get(f"/v1/agents/{mem.ada}/core-memory/blocks/{form}")
    assert answer.status == 200
    assert answer.json()["label"] == "system/human"


def test_5_1_labels_are_decoded_once_T01(mem):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks/"
    assert mem.get(path + "system%252Fhuman").status == 404
    assert mem.get(path + "notes/100%25").status == 200
    for bad in ("..%2f..%2fetc", "a/%2e%2e/b", "a%5Cb", "a%00b", "a%01b", "%ff"):
        assert mem.get(path + bad).status == 400, bad


def test_5_1_slashes_of_other_path_parts_are_not_decoded_T01(mem):
    assert mem.get(f"/v1/agents%2F{mem.ada}").status in (400, 404)
    assert mem.get(f"/v1/agents/{mem.ada}%2Fcore-memory").status in (400, 404, 422)


def test_5_2_labels_match_exactly(mem):
    for label in ("System/human", "system/huma", "system/human.md", "skills/brew/SKILL"):
        answer = mem.get(f"/v1/agents/{mem.ada}/core-memory/blocks/{label}")
        assert answer.status == 404, label
    assert mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/skills/brew")["label"] == "skills/brew"


def test_5_2_the_list_has_the_agents_blocks_and_no_others(mem):
    assert {b["label"] for b in mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks")} == LABELS
    mine = mem.json(f"/v1/agents/{mem.bob}/core-memory/blocks")
    assert {b["label"]: b["value"] for b in mine} == {"system/human": "Bob's own", "b": "one",
                                                      "a": "two"}


def test_5_2_list_orders_by_id(mem):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks"
    ids = [b["id"] for b in mem.json(path)]
    assert ids == sorted(ids, reverse=True), "desc is the default"
    assert [b["id"] for b in mem.json(path + "?order=asc")] == sorted(ids)
    assert [b["id"] for b in mem.json(path + "?order=desc&order_by=created_at")] == ids


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_5_2_cursors_are_id_strings_and_need_not_exist(mem, order):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks?order={order}"
    ids = [b["id"] for b in mem.json(path)]
    for cursor in [*ids, "block-7", "a", "z"]:
        later = [b["id"] for b in mem.json(f"{path}&after={cursor}")]
        sooner = [b["id"] for b in mem.json(f"{path}&before={cursor}")]
        if order == "asc":
            assert later == [i for i in ids if i > cursor]
            assert sooner == [i for i in ids if i < cursor]
        else:
            assert later == [i for i in ids if i < cursor]
            assert sooner == [i for i in ids if i > cursor]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_1_6_paging_forwards_to_an_empty_array_sees_each_once(mem, order, limit):
    for path in (f"/v1/agents/{mem.ada}/core-memory/blocks", "/v1/blocks/"):
        whole = [b["id"] for b in mem.json(f"{path}?order={order}&limit=0")]
        seen, after = [], ""
        while True:
            page = mem.json(f"{path}?order={order}&limit={limit}" +
                            (f"&after={after}" if after else ""))
            if not page:
                break
            assert len(page) <= limit
            seen += [b["id"] for b in page]
            after = page[-1]["id"]
        assert seen == whole
        assert len(set(seen)) == len(seen)


def test_1_6_limit_zero_is_no_limit_and_an_empty_cursor_is_none(mem):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks"
    assert len(mem.json(path + "?limit=0")) == len(LABELS)
    assert mem.json(path + "?after=&before=") == mem.json(path)


def test_9_core_memory_is_the_memory_object(mem):
    memory = mem.json(f"/v1/agents/{mem.ada}/core-memory")
    assert list(memory) == ["agent_type", "git_enabled", "blocks", "file_blocks", "prompt_template"]
    assert memory["git_enabled"] is True
    assert (memory["file_blocks"], memory["prompt_template"]) == ([], "")
    assert {b["label"] for b in memory["blocks"]} == LABELS
    assert all(list(b) == BLOCK_KEYS and b["tags"] == [] for b in memory["blocks"])


# ---- 6: /v1/blocks -------------------------------------------------------------------------------

def test_6_1_lists_blocks_of_all_agents_by_creation(mem):
    rows = mem.json("/v1/blocks/?limit=0")
    assert len(rows) == len(LABELS) + 3 + 1
    owners = [{"Bob's own": "bob", "one": "bob", "two": "bob", "local": "local"}.get(
        r["value"], "ada") for r in rows]
    assert owners == sorted(owners, key=["ada", "bob", "local"].index), "asc is the default"
    assert mem.json("/v1/blocks/?limit=0&order=desc") == rows[::-1]


def test_6_1_the_default_limit_is_50(server, git, folder, agent):
    a = agent()
    files = {f"n/{i:03d}.md": str(i) for i in range(120)}
    git.clone(server.git_url(a), folder / "c").save(files)
    assert len(server.get("/v1/blocks/").json()) == 50
    assert len(server.get(f"/v1/agents/{a}/core-memory/blocks").json()) == 100
    assert server.get("/v1/blocks/count").body == b"120"


@pytest.mark.parametrize("query,labels", [
    ("label=system/human", ["system/human", "system/human"]),
    ("label=nothing", []),
    ("label_search=HUMAN", ["system/human", "system/human"]),
    ("label_search=kills/b", ["skills/brew"]),
    ("label=b&label_search=system", ["b"]),
    ("description_search=about%20THE", ["system/human"]),
    ("value_search=likes%20tea", ["system/human"]),
    ("value_search=L%25tea", ["system/human"]),
    ("value_search=L_kes", ["system/human"]),
    ("value_search=%E2%9C%93", ["system/persona"]),
    ("value_search=nowhere", []),
    ("value_search=Boil&label_search=brew", ["skills/brew"]),
    ("tags=none", []),
    ("templates_only=true", []),
    ("templates_only=false&label=b", ["b"]),
    ("name=My%20Template", []),
    ("project_id=p", []),
    ("identity_id=identity-11111111-1111-4111-8111-111111111111", []),
    ("identifier_keys=k", []),
    ("label=b&connected_to_agents_count_gt=0", ["b"]),
    ("label=b&connected_to_agents_count_gt=1", []),
    ("label=b&connected_to_agents_count_lt=2", ["b"]),
    ("label=b&connected_to_agents_count_lt=1", []),
    ("label=b&connected_to_agents_count_eq=3&connected_to_agents_count_eq=1", ["b"]),
    ("label=b&connected_to_agents_count_eq=0", []),
    ("label=b&show_hidden_blocks=true", ["b"]),
])
def test_6_1_filters(mem, query, labels):
    assert sorted(b["label"] for b in mem.json(f"/v1/blocks/?limit=0&{query}")) == labels


def test_6_1_with_a_count_filter_the_order_is_by_id(mem):
    ids = [b["id"] for b in mem.json("/v1/blocks/?limit=0&connected_to_agents_count_gt=0")]
    assert ids == sorted(ids)
    assert len(ids) == len(mem.json("/v1/blocks/?limit=0"))


@pytest.mark.parametrize("query,kind,key", [
    ("label=a.b", "string_pattern_mismatch", "label"),
    ("label=", "string_too_short", "label"),
    ("label=" + "x" * 51, "string_too_long", "label"),
    ("label_search=%25", "string_pattern_mismatch", "label_search"),
    ("name=a/b", "string_pattern_mismatch", "name"),
    ("name=" + "x" * 101, "string_too_long", "name"),
    ("value_search=", "string_too_short", "value_search"),
    ("value_search=" + "x" * 201, "string_too_long", "value_search"),
    ("description_search=" + "x" * 201, "string_too_long", "description_search"),
    ("identity_id=identity-1", "string_pattern_mismatch", "identity_id"),
    ("match_all_tags=perhaps", "bool_parsing", "match_all_tags"),
    ("show_hidden_blocks=2", "bool_parsing", "show_hidden_blocks"),
    ("connected_to_agents_count_gt=x", "int_parsing", "connected_to_agents_count_gt"),
])
def test_6_1_filters_are_checked(mem, query, kind, key):
    error = only_error(mem.get(f"/v1/blocks/?{query}"))
    assert (error["type"], error["loc"]) == (kind, ("query", key))


def test_6_1_an_error_in_a_list_names_its_place(mem):
    error = only_error(mem.get("/v1/blocks/?connected_to_agents_count_eq=1"
                               "&connected_to_agents_count_eq=x"))
    assert error["loc"] == ("query", "connected_to_agents_count_eq", 1)


def test_6_1_an_unknown_cursor_is_ignored(mem):
    whole = mem.json("/v1/blocks/?limit=0")
    assert mem.json(f"/v1/blocks/?limit=0&after=block-{uuid.uuid4()}") == whole
    assert mem.json("/v1/blocks/?limit=0&before=nonsense") == whole


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_6_1_before_and_after_are_relative_to_the_order(mem, order):
    whole = mem.json(f"/v1/blocks/?limit=0&order={order}")
    middle = whole[4]["id"]
    assert mem.json(f"/v1/blocks/?limit=0&order={order}&after={middle}") == whole[5:]
    assert mem.json(f"/v1/blocks/?limit=0&order={order}&before={middle}") == whole[:4]


def test_6_2_count(mem):
    assert mem.get("/v1/blocks/count").body == str(len(LABELS) + 4).encode()
    assert mem.json("/v1/blocks/count?label=system/human") == 2
    assert mem.json("/v1/blocks/count?templates_only=true") == 0
    assert mem.json("/v1/blocks/count?templates_only=false") == len(LABELS) + 4
    assert mem.json("/v1/blocks/count?tags=none") == 0
    assert only_error(mem.get("/v1/blocks/count?label=a.b"))["loc"] == ("query", "label")


def test_6_5_one_block_by_id_is_the_same_as_by_label(mem):
    by_label = mem.get(f"/v1/agents/{mem.ada}/core-memory/blocks/system/human")
    by_id = mem.get(f"/v1/blocks/{by_label.json()['id']}")
    assert by_id.body == by_label.body
    assert by_id.headers["etag"] == by_label.headers["etag"]


def test_6_5_agents_of_a_block(mem):
    block = mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/system/human")["id"]
    agents = mem.json(f"/v1/blocks/{block}/agents", **CURL)
    assert [a["id"] for a in agents] == [mem.ada]
    assert list(agents[0]) == AGENT_KEYS
    assert {b["label"] for b in agents[0]["blocks"]} == LABELS
    assert mem.json(f"/v1/blocks/{block}/agents?after={mem.ada}") == []
    assert mem.json(f"/v1/blocks/{block}/agents?include_relationships=tags")[0]["id"] == mem.ada
    assert mem.get(f"/v1/blocks/block-{uuid.uuid4()}/agents").body == b"[]"


# ---- 7: agents -----------------------------------------------------------------------------------

def test_7_agent_state_has_every_key_in_order(mem):
    agent = mem.json(f"/v1/agents/{mem.ada}", **CURL)
    assert list(agent) == AGENT_KEYS
    assert agent["id"] == mem.ada
    assert isinstance(agent["name"], str) and agent["name"]
    assert agent["agent_type"] == "letta_v1_agent"
    assert "git-memory-enabled" in agent["tags"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", agent["created_at"])
    assert agent["memory"]["blocks"] == agent["blocks"]
    assert {b["label"] for b in agent["blocks"]} == LABELS
    for key in ("tools", "sources", "message_ids", "tool_rules", "identities", "secrets"):
        assert agent[key] == [], key


@pytest.mark.parametrize("headers,query,has_blocks,has_tags", [
    (CURL, "", True, True),
    ({"User-Agent": "letta-code/0.32.18"}, "", True, True),
    ({"User-Agent": "letta-client/1.12.1"}, "", False, False),
    ({"User-Agent": "@letta-ai/letta-client/1.0"}, "", False, False),
    ({"User-Agent": "letta-client/0.9"}, "", True, True),
    ({**CURL, "X-Stainless-Package-Version": "1.12.1"}, "", False, False),
    (CURL, "include=agent.tags", False, True),
    (CURL, "include=agent.blocks", True, True),
    (CURL, "include=agent.tools&include=agent.tags", False, True),
    (CURL, "include=agent.tools", False, False),
    ({"User-Agent": "letta-client/1.12.1"}, "include=agent.tags", False, True),
    (CURL, "include_relationships=memory", True, False),
    (CURL, "include_relationships=tags", False, True),
    (CURL, "include_relationships=tools", False, False),
])
def test_7_relations_are_shown_to_those_who_ask(mem, headers, query, has_blocks, has_tags):
    answer = mem.server.get(f"/v1/agents/{mem.ada}?{query}", headers=headers)
    agent = answer.json()
    assert list(agent) == AGENT_KEYS
    assert bool(agent["blocks"]) == bool(agent["memory"]["blocks"]) == has_blocks
    assert bool(agent["tags"]) == has_tags


def test_1_3_no_user_agent_at_all_is_the_sdk(mem):
    connection = http.client.HTTPConnection("127.0.0.1", mem.server.port, timeout=20)
    connection.putrequest("GET", f"/v1/agents/{mem.ada}", skip_accept_encoding=True)
    connection.endheaders()
    assert json.loads(connection.getresponse().read())["blocks"] == []
    connection.close()


def test_7_include_is_checked(mem):
    error = only_error(mem.get(f"/v1/agents/{mem.ada}?include=agent.tags&include=agent.foo"))
    assert (error["type"], error["loc"], error["input"]) == (
        "literal_error", ("query", "include", 1), "agent.foo")
    assert error["ctx"]["expected"].startswith("'agent.blocks', 'agent.identities', ")
    assert error["ctx"]["expected"].endswith("'agent.tags' or 'agent.tools'")


def test_7_agents_newest_first(mem):
    order = [mem.local, mem.bob, mem.ada]
    assert [a["id"] for a in mem.json("/v1/agents/")] == order
    assert [a["id"] for a in mem.json("/v1/agents/?order=asc")] == order[::-1]
    assert [a["id"] for a in mem.json("/v1/agents?limit=1")] == order[:1]
    assert [a["id"] for a in mem.json(f"/v1/agents/?after={mem.bob}")] == [mem.ada]
    assert [a["id"] for a in mem.json(f"/v1/agents/?before={mem.bob}")] == [mem.local]
    assert [a["id"] for a in mem.json("/v1/agents/?after=agent-x")] == order
    for by in ("updated_at", "last_run_completion"):
        assert [a["id"] for a in mem.json(f"/v1/agents/?order_by={by}")] == order


def test_7_agents_show_their_blocks_in_lists(mem):
    by_id = {a["id"]: a for a in mem.json("/v1/agents/", **CURL)}
    assert {b["label"] for b in by_id[mem.ada]["blocks"]} == LABELS
    assert {b["label"] for b in by_id[mem.local]["blocks"]} == {"x"}


@pytest.mark.parametrize("query,n", [
    ("", 3), ("tags=git-memory-enabled", 3), ("tags=other", 0),
    ("tags=git-memory-enabled&tags=other", 3),
    ("tags=git-memory-enabled&tags=other&match_all_tags=true", 0),
    ("tags=git-memory-enabled&match_all_tags=true", 3), ("name=nobody", 0),
    ("query_text=AGENT-local", 1), ("project_id=p", 0), ("created_by_id=u", 0),
    ("show_hidden_agents=true", 3), ("ascending=true&sort_by=anything", 3),
])
def test_7_agent_filters_and_count(mem, query, n):
    assert len(mem.json(f"/v1/agents/?{query}")) == n
    assert mem.json(f"/v1/agents/count?{query}") == n


def test_7_health(mem):
    answer = mem.get("/v1/health/")
    assert answer.status == 200
    assert list(answer.json()) == ["version", "status"]
    assert answer.json()["status"] == "ok"
    assert mem.get("/healthz").status == 200


def test_7_ready_comes_after_the_start(mem):
    for path in ("/readyz", "/v1/ready/"):
        answer = mem.get(path)
        assert answer.status in (200, 503)
        assert answer.json()["status"] == ("ok" if answer.status == 200 else "starting")


def test_8_2_secrets_and_repositories(mem):
    assert mem.get(f"/v1/agents/{mem.ada}/secrets").body == b"[]"
    answer = mem.json(f"/v1/agents/{mem.ada}/repositories")
    assert list(answer) == ["repositories"]
    (own,) = answer["repositories"]
    assert list(own) == ["id", "name", "is_primary", "permissions"]
    assert own["id"].startswith("repo-")
    assert (own["name"], own["is_primary"], own["permissions"]) == ("memory", True, "read_write")
    assert mem.json(f"/v1/agents/{mem.ada}/repositories/") == answer
    assert mem.json(f"/v1/agents/{mem.bob}/repositories")["repositories"][0]["id"] != own["id"]


# ---- ETags ---------------------------------------------------------------------------------------

def tagged_paths(agent, block):
    return [f"/v1/agents/{agent}/core-memory/blocks", f"/v1/agents/{agent}/core-memory/blocks/x",
            f"/v1/agents/{agent}/core-memory", f"/v1/agents/{agent}",
            f"/v1/agents/{agent}?include=agent.tags", f"/v1/blocks/{block}",
            f"/v1/blocks/{block}/agents", "/v1/blocks/", "/v1/agents/"]


def test_etag_is_honoured_and_changes_with_the_tip(server, git, folder, agent):
    a = agent()
    checkout = git.clone(server.git_url(a), folder / "c")
    tip = checkout.save({"x.md": "1"})
    block = server.block(a, "x").json()["id"]
    tags = {}
    for path in tagged_paths(a, block):
        first = server.get(path)
        tag = tags[path] = first.headers["etag"]
        assert re.fullmatch(r'(W/)?"[^"]+"', tag)
        for asked in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again = server.get(path, headers={"If-None-Match": asked})
            assert (again.status, again.body) == (304, b""), (path, asked)
            assert again.headers["etag"] == tag
        other = server.get(path, headers={"If-None-Match": '"other"'})
        assert (other.status, other.body) == (200, first.body)
    assert tip in tags[f"/v1/agents/{a}/core-memory/blocks"]
    checkout.save({"x.md": "2"})
    for path, tag in tags.items():
        changed = server.get(path, headers={"If-None-Match": tag})
        assert changed.status == 200, path
        assert changed.headers["etag"] != tag


def test_etag_of_relations_differ(mem):
    tags = {mem.get(f"/v1/agents/{mem.ada}?include={i}").headers["etag"]
            for i in ("agent.tags", "agent.blocks", "agent.tools")}
    assert len(tags) == 3


def test_etag_is_there_once(mem):
    for path in (f"/v1/agents/{mem.ada}/core-memory/blocks", f"/v1/agents/{mem.ada}"):
        status, data, _ = lib_http.raw(mem.server.port, (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"no\"\r\n"
            "Connection: close\r\n\r\n").encode())
        assert status == 200
        head = data.split(b"\r\n\r\n")[0].lower()
        assert head.count(b"\r\netag:") == 1


def test_head_is_get_without_a_body(mem):
    path = f"/v1/agents/{mem.ada}/core-memory/blocks/system/human"
    head, get = mem.server.request("HEAD", path), mem.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["etag"] == get.headers["etag"]
    assert head.headers["content-length"] == str(len(get.body))


# ---- what a push does to the API -----------------------------------------------------------------

def test_K2_deletes_renames_and_the_last_file_follow_at_once(server, git, folder, agent):
    a = agent()
    checkout = git.clone(server.git_url(a), folder / "c")
    checkout.save({"x.md": "1", "y.md": "2"})
    checkout.run("mv", "x.md", "z.md")
    checkout.commit()
    checkout.push()
    assert set(server.blocks(a)) == {"y", "z"}
    checkout.run("rm", "-q", "y.md", "z.md")
    checkout.commit()
    checkout.push()
    assert server.blocks(a) == {}
    assert server.get(f"/v1/agents/{a}/core-memory").json()["blocks"] == []
    assert server.get(f"/v1/agents/{a}").status == 200
    assert server.get("/v1/blocks/count").body == b"0"


def test_K4_ids_and_answers_survive_a_lost_cache(server, git, folder, agent):
    a = agent()
    git.clone(server.git_url(a), folder / "c").save({"x.md": "1", "d/y.md": "2"})
    before = server.dump([a])
    server.stop()
    for path in pathlib.Path(server.home).glob("cache.db*"):
        path.unlink()
    server.start()
    assert server.dump([a]) == before
    block = server.block(a, "x").json()["id"]
    assert server.get(f"/v1/blocks/{block}").json()["value"] == "1"


def test_K5_K6_bad_files_are_rows_too_and_spoil_nothing(server, git, folder, agent):
    a = agent()
    git.clone(server.git_url(a), folder / "c").save({
        "good.md": "---\ndescription: d\n---\nv", "bad.md": "---\n: [\n---\nv",
        "latin.md": b"caf\xe9", "nul.md": b"a\x00b", "crlf.md": "a\r\nb"})
    blocks = server.blocks(a)
    assert set(blocks) == {"good", "bad", "latin", "nul", "crlf"}
    assert (blocks["good"]["value"], blocks["good"]["description"]) == ("v", "d")
    assert blocks["bad"]["value"] == "---\n: [\n---\nv"
    assert blocks["crlf"]["value"] == "a\nb"
    assert blocks["nul"]["value"] == "a\x00b"
    assert blocks["latin"]["value"] == "caf\ufffd"


def test_S1_reading_an_unknown_agent_makes_nothing(server, agent):
    a = agent()
    for path in (f"/v1/agents/{a}", f"/v1/agents/{a}/core-memory/blocks"):
        assert server.get(path).status == 404
    assert server.request("POST", f"/v1/agents/{a}/memory/sync-from-git").status == 404
    assert server.get("/v1/agents/").json() == []
    assert server.repositories() == []


# ---- the route table -----------------------------------------------------------------------------

def routes(server):
    done = server.cli("debug", "routes", home=False)
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert rows and all(len(r) == 4 for r in rows)
    return rows


def test_every_route_is_in_the_docs_and_nothing_else(mem):
    page = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `([^`]+)` \|", page, re.M))
    assert described == {(method, path) for method, path, _, _ in routes(mem.server)}


def test_S2_owner_routes_do_not_exist_over_tcp(mem):
    owner = [(m, p) for m, p, access, _ in routes(mem.server) if access == "owner"]
    assert len(owner) >= 5
    for method, path in owner:
        answer = mem.server.request(method, path, body=b"{}")
        assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}'), path
        assert mem.get(path).status == 404


def test_S2_every_route_answers_without_a_server_error(mem):
    block = mem.json("/v1/blocks/?limit=1")[0]["id"]
    for method, pattern, access, _ in routes(mem.server):
        if access == "owner":
            continue
        path = (pattern.replace("{agent}", mem.ada).replace("{id}", block)
                .replace("{label...}", "system/human"))
        answer = mem.server.request(method, path, body=b"" if method == "POST" else None)
        assert answer.status < 500 and answer.status != 404, (method, path, answer)


# ---- upkeep over the socket ----------------------------------------------------------------------

class SocketConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def owner_post(server, path, body):
    connection = SocketConnection(server.home + "/socket")
    connection.request("POST", path, body=body if isinstance(body, bytes) else json.dumps(body),
                       headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def owner_lines(server, path, body):
    answer, text = owner_post(server, path, body)
    assert answer.status == 200, text
    assert answer.headers["Content-Type"].split(";")[0] == "application/x-ndjson"
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("work", ["verify", "rebuild", "repack"])
def test_owner_work_is_told_line_by_line(server, git, folder, agent, work):
    agents = sorted(agent() for _ in range(3))
    for a in agents:
        git.clone(server.git_url(a), folder / a).save({"x.md": a})
    lines = owner_lines(server, f"/owner/{work}", {})
    assert list(lines[-1]) == ["result"]
    assert lines[-1]["result"]["agents"] == 3
    assert lines[-1]["result"]["failed"] == 0
    progress = [line["progress"] for line in lines if "progress" in line]
    assert progress and all(set(p) == {"done", "total", "agent"} for p in progress)
    assert progress[-1]["total"] == 3
    one = owner_lines(server, f"/owner/{work}", {"agent": agents[0]})
    assert one[-1]["result"]["agents"] == 1
    for a in agents:
        assert server.value(a, "x") == a


def test_owner_errors_are_the_last_line(server):
    lines = owner_lines(server, "/owner/verify", {"agent": new_agent()})
    assert lines[-1]["error"]["code"] == "ENOTFOUND"
    assert lines[-1]["error"]["message"]
    lines = owner_lines(server, "/owner/verify", {"agent": "../x"})
    assert lines[-1]["error"]["code"] == "EINVALID"
    lines = owner_lines(server, "/owner/backup", {"to": "relative"})
    assert lines[-1]["error"]["code"] == "EINVALID"
    lines = owner_lines(server, "/owner/purge", {"agent": new_agent()})
    assert lines[-1]["error"]["code"] == "EINVALID"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\"x\"", b"{\"agent\":1,\"agent\":2}", b"\xff"])
def test_owner_requests_that_are_not_json_objects_are_400(server, body):
    answer, text = owner_post(server, "/owner/verify", body)
    assert answer.status == 400, text
    assert "detail" in json.loads(text)


def test_owner_backup_over_the_socket(server, git, folder, agent):
    a = agent()
    git.clone(server.git_url(a), folder / "c").save({"x.md": "kept"})
    target = str(folder / "backup")
    lines = owner_lines(server, "/owner/backup", {"to": target})
    assert lines[-1]["result"]["agents"] == 1
    assert pathlib.Path(target).is_dir()
    again = owner_lines(server, "/owner/backup", {"to": target})
    assert again[-1]["error"]["code"] == "EEXISTS"


def test_T28_purge_over_the_socket_keeps_the_secret_out_of_the_log(server, git, folder, agent):
    a, secret = agent(), "hunter2-" + uuid.uuid4().hex
    checkout = git.clone(server.git_url(a), folder / "c")
    checkout.save({"x.md": f"the key is {secret}"})
    checkout.save({"x.md": "gone", "y.md": "kept"})
    server.rewrites_allowed = True
    lines = owner_lines(server, "/owner/purge", {"agent": a, "secret": secret})
    result = lines[-1]["result"]
    assert result["blobs"] >= 1 and result["commits"] >= 2
    assert re.fullmatch(r"[0-9a-f]{40}", result["new_tip"]) and result["new_tip"] == server.tip(a)
    assert server.value(a, "y") == "kept"
    assert secret not in server.log()
    assert secret not in server.git_dir(a, "log", "-p", "--all").stdout.decode()
