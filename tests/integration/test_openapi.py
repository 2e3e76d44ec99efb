"""The API's documentation, held against a running server: /openapi.json is valid, every route and
parameter in it is real, and what is answered is what it says, no field more and none less; the page
docs/http-api.md is made of the same rows.
"""
import json
import pathlib
import re
import subprocess
import sys
from urllib.parse import quote

import pytest

from lib import openapi
from lib.authmatrix import owner_post
from lib.openapi import Samples, answers_of, json_routes
from lib.restmem import CURL, error_list, mem  # noqa: F401
from lib.server import new_agent

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def document(mem):
    return mem.json("/openapi.json")


def documents(server):
    """What the program itself prints: with the routes of the socket and of other servers."""
    return json.loads(server.cli("debug", "openapi", home=False).stdout)


# -- the document ----------------------------------------------------------------------------------

def test_openapi_is_valid(mem, document):
    assert openapi.faults(document) == []
    assert openapi.faults(documents(mem.server)) == []


def test_openapi_invalid_ones_are_found(document):
    """Were the judge content with these, it would prove nothing."""
    def spoilt(spoil):
        copy = json.loads(json.dumps(document))
        spoil(copy)
        return openapi.faults(copy)

    agent = "/v1/agents/{agent}"
    assert spoilt(lambda d: d["paths"][agent]["get"]["parameters"].pop(0))
    assert spoilt(lambda d: d["paths"][agent]["get"]["parameters"][0].pop("required"))
    assert spoilt(lambda d: d["paths"][agent]["get"].update(operationId="get_v1_agents"))
    assert spoilt(lambda d: d["paths"][agent]["get"]["responses"].clear())
    assert spoilt(lambda d: d["components"]["schemas"].pop("Block"))
    assert spoilt(lambda d: d["components"]["schemas"]["Block"]["required"].append("x"))
    assert spoilt(lambda d: d["components"]["schemas"]["Block"]["properties"]["id"].update(type="text"))
    assert spoilt(lambda d: d["paths"].update({"/v1/agents/{other}": d["paths"][agent]}))


def test_openapi_has_every_route_and_nothing_else(mem, document):
    rows = [line.split("\t") for line in
            mem.server.cli("debug", "routes", home=False).stdout.decode().splitlines()]
    table = {(method, pattern.replace("...}", "}")): access for method, pattern, access, _ in rows}
    assert {(m, p): o["x-memfs-access"] for m, p, o in openapi.operations(documents(mem.server))} == table
    assert {(m, p) for m, p, _ in openapi.operations(document)} == {
        key for key, access in table.items() if access not in ("owner", "peer")}


def test_openapi_needs_no_token_and_is_not_sent_twice(mem, document):
    first = mem.get("/openapi.json")
    again = mem.get("/openapi.json", **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert document["info"]["version"] == mem.json("/v1/health")["version"]
    assert document["paths"]["/openapi.json"]["get"]["security"] == []


def test_docs_the_page_is_made_of_the_same_rows(memfs_bin):
    done = subprocess.run([sys.executable, ROOT / "scripts" / "http-api-doc", "--check", memfs_bin],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- answers ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def samples(mem):
    return Samples(mem, mem.ada)


def test_openapi_every_get_answers_what_it_says(mem, document, samples):
    seen = []
    for path, operation in json_routes(document, "GET"):
        schema, status = answers_of(operation)
        answer = mem.get(samples.url(path, operation), **CURL)
        assert answer.status == status, (path, answer)
        faults = list(openapi.mismatches(document, schema, answer.json(), f"GET {path}"))
        assert not faults, faults[:10]
        assert ("304" in operation["responses"]) == ("etag" in answer.headers), path
        if "304" in operation["responses"]:
            again = mem.get(samples.url(path, operation), **{**CURL, "If-None-Match": answer.headers["etag"]})
            assert again.status == 304, path
        seen.append(path)
    assert len(seen) > 10


def test_openapi_the_judge_of_answers_is_strict(mem, document):
    block = mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/system/human")
    schema = {"$ref": "#/components/schemas/Block"}
    assert not list(openapi.mismatches(document, schema, block))
    for spoilt in ({**block, "more": 1}, {k: v for k, v in block.items() if k != "tags"}, {**block, "limit": "5"},
                   {**block, "limit": True}, {**block, "tags": [1]}, {**block, "value": None}, {**block, "id": "block-1"}):
        assert list(openapi.mismatches(document, schema, spoilt)), spoilt


# What is not a GET, in an order in which each can be done: method, path, its JSON body, and which variables of later
# targets are which keys of its answer.
STEPS = [
    ("POST", "/v1/agents/{agent}/memory/sync-from-git", None, {}),
    ("POST", "/v1/agents/{agent}/memory/commit", {"changes": [{"path": "c.md", "content": "x"}]}, {}),
    ("PATCH", "/v1/agents/{agent}/core-memory/blocks/{label}", {"value": "z"}, {}),
    ("POST", "/v1/blocks", {"label": "loose", "value": "x"}, {"id": "id"}),
    ("PATCH", "/v1/blocks/{id}", {"value": "y", "tags": ["a"], "metadata": {"a": 1}, "nobody-knows-it": 1}, {}),
    ("PATCH", "/v1/agents/{agent}/core-memory/blocks/attach/{id}", None, {}),
    ("PATCH", "/v1/agents/{agent}/core-memory/blocks/detach/{id}", None, {}),
    ("DELETE", "/v1/blocks/{id}", None, {}),
    ("POST", "/v1/repositories", {"name": "steps"}, {"repository": "id"}),
    ("POST", "/v1/repositories/{repository}/files", {"path": "a.md", "content": "x"}, {"sha": "content_sha256"}),
    ("POST", "/v1/repositories/{repository}/files/content", {
        "path": "a.md", "content": "y", "new_path": "b.md",
        "precondition": {"type": "content_sha256", "content_sha256": "{sha}"}}, {}),
    ("DELETE", "/v1/repositories/{repository}/files/content", {"path": "b.md"}, {}),
    ("POST", "/v1/agents/{agent}/repositories", {"repository_id": "{repository}", "permissions": "read"}, {}),
    ("DELETE", "/v1/agents/{agent}/repositories/{repository}", None, {}),
    ("DELETE", "/v1/repositories/{repository}", None, {}),
    ("POST", "/v1/repositories/{repository}/restore", None, {}),
    ("DELETE", "/v1/repositories/{repository}", None, {}),
    ("POST", "/v1/agents/{agent}/memory/revert", {"commit": "{commit}"}, {}),
    ("POST", "/v1/agents", {"name": "made", "memory_blocks": [{"label": "system/human", "value": "x", "tags": ["t"]}],
                            "metadata": {"a": 1}, "hidden": False}, {"agent": "id"}),
    ("PATCH", "/v1/agents/{agent}", {"description": "changed", "tags": ["a"], "nobody-knows-it": 1}, {}),
    ("POST", "/v1/agents/{agent}/recompile", None, {}),
    ("POST", "/v1/agents/{agent}/system-prompt/recompile", None, {}),
    ("DELETE", "/v1/agents/{agent}", None, {}),
    ("POST", "/v1/agents/{agent}/restore", None, {}),
    ("DELETE", "/v1/agents/{agent}", None, {}),
]


def test_openapi_whatever_else_is_asked_answers_what_it_says(mem, document):
    steps, asked = Samples(mem, mem.ada), set()
    known = {(m, p): o for m, p, o in openapi.operations(document)}
    for method, path, body, kept in STEPS:
        schema, status = answers_of(known[method, path])
        answer = mem.server.request(method, steps.target(path), None if body is None else steps.body(body))
        assert answer.status == status, (method, path, answer)
        faults = list(openapi.mismatches(document, schema, answer.json(), f"{method} {path}"))
        assert not faults, faults[:10]
        steps.values.update({variable: answer.json()[key] for variable, key in kept.items()})
        asked.add((method, path))
    assert asked == {(m, p) for m in ("POST", "PUT", "PATCH", "DELETE") for p, _ in json_routes(document, m)}, \
        "each needs a step, and each step a route"


def test_openapi_refusals_are_what_it_says(mem, document):
    error, invalid = ({"$ref": f"#/components/schemas/{name}"} for name in ("Error", "ValidationError"))
    for answer, schema in ((mem.get(f"/v1/agents/{new_agent()}"), error), (mem.get("/v1/agents/x"), invalid),
                           (mem.get("/v1/blocks/?limit=x"), invalid), (mem.get("/v1/blocks?limit=1&limit=1"), error)):
        assert answer.status in (400, 404, 422)
        assert not list(openapi.mismatches(document, schema, answer.json()))


def optional_fields(document):
    """(schema, field) of all that an answer may lack; those of bodies are no answers."""
    for name, schema in document["components"]["schemas"].items():
        if name not in ("CreateBlock", "FileChange"):
            yield from ((name, field) for field in set(schema.get("properties", {})) - set(schema.get("required", [])))


def test_openapi_what_may_be_missing_is_answered_somewhere(mem, document, samples):
    """Each field that is not in every answer of its kind, by a request that has it."""
    repository = f"/v1/repositories/{samples.values['repository']}"
    asked = {("Error", "message"): f"{repository}/files/content?path=no.md", ("ValidationError", "examples"): "/v1/agents/x",
             ("Versions", "path"): f"{repository}/versions?path=a/b.md"}
    for (schema, field), target in asked.items():
        answer = mem.get(target).json()
        assert field in answer, target
        assert not list(openapi.mismatches(document, {"$ref": f"#/components/schemas/{schema}"}, answer)), target
    by_a_gateway = {("Health", "upstream"), ("UpstreamHealth", "reason"), ("UpstreamHealth", "version")}  # test_gateway.py
    assert set(optional_fields(document)) == set(asked) | by_a_gateway


# -- what is read ----------------------------------------------------------------------------------

def bad_value(schema):
    """A value that it is not, as a query's text; None: any text is good."""
    item = schema.get("items", schema)
    if "enum" in item or item.get("type") in ("integer", "boolean"):
        return "no-such-thing"
    return None


def is_many(schema):
    return schema.get("type") == "array"


def test_openapi_every_query_parameter_is_read(mem, document, samples):
    """By what is said of it when it is bad, or comes twice."""
    n = 0
    for method in ("GET", "POST"):
        for path, operation in json_routes(document, method):
            for p in operation["parameters"]:
                if p["in"] != "query":
                    continue
                name, target = p["name"], samples.target(path)
                bad = bad_value(p["schema"])
                if bad is not None:
                    errors = error_list(mem.server.request(method, f"{target}?{name}={bad}"))
                    assert errors[0]["loc"][:2] == ("query", name), (path, name)
                if not is_many(p["schema"]):
                    twice = mem.server.request(method, f"{target}?{name}=1&{name}=1")
                    assert twice.status == 400 and name in twice.detail, (path, name, twice)
                n += bad is not None or not is_many(p["schema"])
    assert n > 60


def test_openapi_defaults_are_those_that_count(mem, document, samples):
    """To say a default changes nothing."""
    for path, operation in json_routes(document, "GET"):
        target = samples.url(path, operation)
        given = "&".join(f"{p['name']}={quote(json.dumps(p['schema']['default']).strip(chr(34)))}"
                         for p in operation["parameters"] if "default" in p["schema"])
        if given:
            mark = "&" if "?" in target else "?"
            assert mem.get(target + mark + given, **CURL).body == mem.get(target, **CURL).body, path


def wrong_value(document, schema):
    """A value of a body's field that it is not; None: anything will do."""
    schema = openapi.resolve(document, schema)
    if "type" not in schema:
        return None
    return [] if schema["type"] == "object" else {"no": "such"}


def test_openapi_every_field_of_a_body_is_read(mem, document, samples):
    """By the refusal of one that has the wrong type; those that are needed, by their absence."""
    n = 0
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path, operation in json_routes(document, method):
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = content.get("schema", {"properties": {}})
            body = {name: wrong_value(document, s) for name, s in schema["properties"].items()}
            body = {name: value for name, value in body.items() if value is not None}
            if not body:
                continue
            errors = error_list(mem.server.request(method, samples.target(path), json.dumps(body)))
            told = {e["loc"][1] for e in errors if e["loc"][0] == "body"}
            assert told == set(body), (method, path, told ^ set(body))
            if needed := schema.get("required"):
                errors = error_list(mem.server.request(method, samples.target(path), "{}"))
                assert {e["loc"][1] for e in errors if e["type"] == "missing"} == set(needed), (method, path)
            n += len(body)
    assert n > 40


READS = re.compile(r"\b(?:params|body|teller)_(?:text|int|ints|bool|ruled|id|texts|choice|choices|given|flag|list|map)"
                   r"\(\s*&?\w+,\s*\"([\w-]+)\"")


def test_openapi_whatever_a_handler_reads_is_documented(mem):
    """From the source: a key that it asks for, of a query or a body."""
    source = "\n".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "src" / "server").glob("*.c")))
    read, whole = set(READS.findall(source)), json.dumps(documents(mem.server))
    assert len(read) > 40
    missing = {name for name in read if f'"name": "{name}"' not in whole and f'"{name}": {{' not in whole}
    assert not missing, "give these a place in route_doc.c"


# -- the socket ------------------------------------------------------------------------------------

SAMPLE_FIELDS = {"agent": new_agent(), "to": "relative", "at": "@0", "keep": "ours", "url": "ftp://x", "scope": "none",
                 "id": "00000000"}


def test_openapi_every_field_of_the_socket_is_read(mem):
    """By the refusal when it is of a type that it never has."""
    n = 0
    for method, path, operation in openapi.operations(documents(mem.server)):
        if operation["x-memfs-access"] != "owner" or "requestBody" not in operation:
            continue
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        needed = {name: SAMPLE_FIELDS[name] for name in schema.get("required", [])}
        for name in schema["properties"]:
            wrong = {"no": "such"}
            last = owner_post(mem.server, path, {**needed, name: wrong})[-1]
            assert last.get("error", {}).get("code") == "EINVALID", (path, name, last)
            n += 1
    assert n > 25
