"""The reading API over real pushes, named after the sections of the wire contract (http-api): what
holds for all routes, sync-from-git, tags, and what a push does to the answers.
"""
import json
import pathlib
import re
import uuid

import pytest

from lib import http as lib_http
from lib.restmem import BLOCK_KEYS, UUID4_PATTERN, error_list, only_error, mem  # noqa: F401
from lib.server import new_agent

ROOT = pathlib.Path(__file__).resolve().parents[2]


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


def test_1_1_methods_that_a_path_does_not_have_are_405_with_allow(mem):
    block = mem.json(f"/v1/agents/{mem.bob}/core-memory/blocks")[0]["id"]
    for method, path in [("POST", f"/v1/blocks/{block}"), ("PUT", f"/v1/blocks/{block}"),
                         ("PATCH", "/v1/blocks/"), ("PATCH", f"/v1/blocks/{block}/agents"),
                         ("DELETE", f"/v1/agents/{mem.bob}/core-memory/blocks"),
                         ("PUT", f"/v1/agents/{mem.bob}/core-memory/blocks/system/human"),
                         ("DELETE", f"/v1/agents/{mem.bob}/core-memory/blocks/attach/{block}")]:
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
                 f"/v1/agents/{agent}/core-memory/blocks",
                 f"/v1/agents/{agent}/core-memory/blocks/x"):
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
    server.lose_blocks()
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
    made = mem.server.request("POST", "/v1/repositories", b'{"name":"every-route"}').json()["id"]
    links = f"/v1/agents/{mem.ada}/repositories"
    assert mem.server.request("POST", links, json.dumps({"repository_id": made})).status == 200
    no_body = {"/v1/repositories/{repository}/restore", "/v1/repositories/{repository}/versions/{id}",
               "/v1/repositories/{repository}/files/content"}     # asks for what is not there, or for more
    for method, pattern, access, _ in sorted(routes(mem.server), key=lambda row: row[0] == "DELETE"):
        if access == "owner":
            continue
        path = (pattern.replace("{agent}", mem.ada).replace("{id}", block)
                .replace("{label...}", "system/human").replace("{kind}", "gitea")
                .replace("{repository}", made).replace("{name}", "every-route.git"))
        body = b"0000" if "/git-" in path else b""
        answer = mem.server.request(method, path, body=body if method == "POST" else None)
        assert answer.status < 500, (method, path, answer)
        assert answer.status != 404 or pattern in no_body, (method, path, answer)
        if method == "DELETE" and answer.status == 200 and "{id}" not in pattern:
            again = links if pattern.startswith("/v1/agents/{agent}/") else f"{path}/restore"
            assert mem.server.request("POST", again, json.dumps({"repository_id": made})).status == 200
