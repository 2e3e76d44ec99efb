"""Rules that hold for every route (wire contract http-api 1), asked of every route that there is, by the server's own
documentation of them; what is special to one is in test_rest*.py.
"""
import base64
import json
import re
import uuid

import pytest

from lib import http, openapi
from lib.restmem import CURL, error_list, mem  # noqa: F401
from lib.server import new_agent

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z"


@pytest.fixture(scope="module")
def reads(mem):
    """(path, target) of every GET that answers JSON to whoever may ask, and needs no parameter; the targets are real."""
    samples = openapi.Samples(mem, mem.bob)
    routes = [(path, samples.url(path, o)) for path, o in openapi.json_routes(mem.json("/openapi.json"), "GET")]
    found = [(path, target) for path, target in routes if "?" not in target]
    assert len(found) > 12
    return found


def of_v1(reads):
    return [(path, target) for path, target in reads if path.startswith("/v1/")]


# -- 1.1: prefixes, slashes, encoding --------------------------------------------------------------

def test_1_1_a_trailing_slash_is_free_on_every_route_and_nothing_redirects(mem, reads):
    for path, target in reads:
        if path.endswith("/{label}"):
            continue    # there it is a part of the label
        plain, slashed = mem.get(target), mem.get(target + "/")
        assert plain.status == slashed.status == 200, target
        assert plain.body == slashed.body, target
    for method in ("POST", "PUT", "PATCH", "DELETE"):   # no 307 for writing either
        for path, target in reads:
            if not path.endswith("/{label}") and path != "/openapi.json":
                bad = re.sub(r"[a-z]+-[0-9a-f-]{36}", "x", target)
                one, two = (mem.server.request(method, t, body=b"") for t in (bad, bad + "/"))
                assert (one.status, one.body) == (two.status, two.body), (method, path)
                assert one.status >= 400, (method, path)


def test_1_1_latest_is_v1_on_every_route(mem, reads):
    for path, target in of_v1(reads):
        assert mem.get("/latest" + target.removeprefix("/v1")).body == mem.get(target).body, target


def test_1_1_every_answer_is_compact_json_in_utf8(mem, reads):
    for path, target in reads:
        answer = mem.get(target)
        assert answer.headers["content-type"].split(";")[0] == "application/json", target
        assert answer.body == json.dumps(answer.json(), ensure_ascii=False, separators=(",", ":")).encode(), target


def test_1_1_unknown_query_parameters_are_ignored_on_every_route(mem, reads):
    for path, target in reads:
        assert mem.get(target + "?no-such=1&no-such=2").body == mem.get(target).body, target


def test_1_1_times_are_iso_8601_in_utc(mem):
    for agent in mem.json("/v1/agents", **CURL):
        assert re.fullmatch(TIME, agent["created_at"]) and re.fullmatch(TIME, agent["updated_at"]), agent


def test_1_1_arrays_repeat_their_key_and_commas_are_text(mem):
    git, other = "tags=git-memory-enabled", "tags=other"
    assert mem.json(f"/v1/agents/count?{git}&{other}") == 3
    assert mem.json(f"/v1/agents/count?{git}&{other}&match_all_tags=true") == 0
    assert mem.json("/v1/agents/count?tags=git-memory-enabled,other") == 0
    assert mem.json("/v1/agents/count?tags[]=other") == 3     # another key


def test_1_1_another_method_is_405_with_what_there_is(mem, reads):
    for path, target in reads:
        answer = mem.server.request("OPTIONS", target)
        assert (answer.status, answer.body) == (405, b'{"detail":"Method Not Allowed"}'), target
        assert "GET" in answer.headers["allow"].split(", "), target


def test_1_1_head_is_get_without_a_body_on_every_route(mem, reads):
    for path, target in reads:
        head, get = mem.server.request("HEAD", target), mem.get(target)
        assert (head.status, head.body) == (200, b""), target
        assert head.headers["content-length"] == str(len(get.body)), target


# -- 1.3: actor and headers ------------------------------------------------------------------------

def test_1_3_a_malformed_user_is_400_and_any_other_is_the_one_that_there_is(mem, reads):
    asked = 0
    for path, target in reads:
        if "{" not in path and path not in ("/v1/agents", "/v1/blocks"):
            continue
        plain = mem.get(target)
        for user in ("user-00000000-0000-4000-8000-000000000000", f"user-{uuid.uuid4()}"):
            assert mem.get(target, user_id=user).body == plain.body, target
        for user in ("root", f"USER-{uuid.uuid4()}", "user-11111111-1111-1111-8111-111111111111"):
            bad = mem.get(target, user_id=user)
            assert bad.status == 400, (target, bad)
            assert bad.detail == f"INVALID_ARGUMENT: Invalid user ID format: {user}. Expected format: 'user-<uuid4>'"
        asked += 1
    assert asked > 8


@pytest.mark.parametrize("headers", [
    {"X-Project-Id": "p", "X-Project": "p"}, {"X-Letta-Source": "letta-code"},
    {"X-Billing-Plan": "x", "X-Experimental-A": "x"}, {"X-Stainless-Lang": "js", "X-Stainless-Retry-Count": "2"},
    {"x-letta-memfs-backend": "hosted"}, {"X-Organization-Id": "org-11111111-1111-4111-8111-111111111111"},
], ids=lambda headers: next(iter(headers)))
def test_1_3_headers_of_clients_are_accepted_and_change_nothing(mem, reads, headers):
    for path, target in reads:
        plain, told = mem.get(target, **CURL), mem.get(target, **CURL, **headers)
        assert (plain.status, plain.body) == (told.status, told.body), target


@pytest.mark.parametrize("headers,is_sdk", [
    ({"User-Agent": "letta-client/1.12.1"}, True), ({"User-Agent": "@letta-ai/letta-client/1.0.0"}, True),
    ({"User-Agent": "curl/8", "X-Stainless-Package-Version": "1.12.1"}, True), ({"User-Agent": "curl/8"}, False),
    ({"User-Agent": "git/2.39"}, False), ({"User-Agent": "letta-client/0.9"}, False),
])
def test_1_3_the_sdk_is_shown_relations_only_when_it_asks(mem, headers, is_sdk):
    for target in (f"/v1/agents/{mem.bob}", "/v1/agents"):
        answer = mem.get(target, **headers).json()
        agent = answer if isinstance(answer, dict) else next(a for a in answer if a["id"] == mem.bob)
        assert (agent["blocks"] == []) == is_sdk and (agent["tags"] == []) == is_sdk


# -- 1.5: errors -----------------------------------------------------------------------------------

def test_1_5_every_bad_id_is_a_422_with_a_text_and_an_example(mem, reads):
    for path, target in reads:
        for name in re.findall(r"{(agent|id)}", path):
            bad = re.sub(r"(agent|block)-[0-9a-f-]{36}", "x", target, count=1)
            if bad == target:
                continue    # a commit
            answer = mem.get(bad)
            (error,) = error_list(answer)
            assert error["loc"][0] == "path" and list(answer.json()) == ["trace_id", "detail", "examples"], bad


def test_1_5_every_unknown_thing_is_a_404_with_a_detail(mem, reads):
    unknown = f"block-{uuid.uuid4()}"
    for path, target in reads:
        bad = re.sub(r"block-[0-9a-f-]{36}", unknown, target.replace(mem.bob, new_agent()))
        bad = re.sub(r"repo-[0-9a-f-]{36}", f"repo-{uuid.uuid4()}", bad)
        answer = mem.get(bad)
        if bad == target or path.endswith(("/secrets", "/repositories", "/v1/blocks/{id}/agents")):
            assert answer.status == 200, bad    # clients ask before the first push; nobody's block has no agents
            continue
        of_repositories = path.startswith("/v1/repositories")
        keys = ["message", "detail"] if of_repositories else ["detail"]
        assert answer.status == 404 and list(answer.json()) == keys, bad
        assert of_repositories or re.search(r"(agent|block)-[0-9a-f-]{36}", answer.detail), answer


# -- 1.6: pages ------------------------------------------------------------------------------------

LISTS = ["/v1/agents", "/v1/blocks", "/v1/agents/{agent}/core-memory/blocks"]


def ids_of(mem, target):
    answer = mem.json(target)
    assert isinstance(answer, list), "a bare array"
    return [row["id"] for row in answer]


def auto_page(mem, target, cursor, pick):
    """As the SDK does it: with the last (or first) id, until an empty array comes back."""
    pages, at = [], ""
    while True:
        page = ids_of(mem, f"{target}&{cursor}={at}")
        if not page:
            return pages
        pages.append(page)
        at = page[pick]
        assert len(pages) < 100, "it never ends"


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_1_6_the_sdk_pages_both_ways_to_an_empty_array(mem, path, order):
    target = f"{path.format(agent=mem.ada)}?order={order}"
    whole = ids_of(mem, f"{target}&limit=0")
    assert len(whole) >= 3
    forwards = auto_page(mem, f"{target}&limit=2", "after", -1)
    assert sum(forwards, []) == whole and all(len(page) <= 2 for page in forwards)
    assert ids_of(mem, f"{target}&before={whole[-1]}") == whole[:-1]
    assert ids_of(mem, f"{target}&before={whole[0]}") == []
    assert ids_of(mem, f"{target}&after={whole[0]}&before={whole[-1]}") == whole[1:-1]


@pytest.mark.parametrize("path", LISTS)
def test_1_6_the_orders_are_each_others_reverse_and_after_is_relative_to_them(mem, path):
    target = path.format(agent=mem.ada)
    up, down = (ids_of(mem, f"{target}?order={o}&limit=0") for o in ("asc", "desc"))
    assert up == down[::-1]
    for order, whole in (("asc", up), ("desc", down)):
        assert ids_of(mem, f"{target}?order={order}&after={whole[1]}") == whole[2:]
        assert ids_of(mem, f"{target}?order={order}&before={whole[1]}") == whole[:1]


@pytest.mark.parametrize("path", LISTS[:2])
def test_1_6_an_unknown_cursor_is_ignored_and_is_no_error(mem, path):
    whole = ids_of(mem, f"{path}?limit=0")
    for cursor in ("x", f"agent-{uuid.uuid4()}", f"block-{uuid.uuid4()}"):
        assert ids_of(mem, f"{path}?limit=0&after={cursor}") == whole
        assert ids_of(mem, f"{path}?limit=0&before={cursor}") == whole


@pytest.mark.parametrize("path", LISTS)
def test_1_6_limit_zero_is_no_limit(mem, path):
    target = path.format(agent=mem.ada)
    assert ids_of(mem, f"{target}?limit=0") == ids_of(mem, f"{target}?limit=1000")
    assert len(ids_of(mem, f"{target}?limit=1")) == 1


# -- 1.2: authentication (the last test here: from the first token on, the server wants one) --------

def test_1_2_bearer_and_basic_with_any_user_and_what_git_needs(mem):
    token = mem.server.token("admin")["token"]

    def ask(target, header=None):
        return http.request(mem.server.port, "GET", target, headers={"Authorization": header} if header else {})

    letta = base64.b64encode(f"letta:{token}".encode()).decode()
    refs = f"/v1/git/{mem.bob}/state.git/info/refs?service=git-upload-pack"
    for target in (f"/v1/agents/{mem.bob}", refs):
        for good in (f"Bearer {token}", f"Basic {letta}", f"bearer {token}"):
            assert ask(target, good).status == 200, (target, good.split()[0])
        for bad in (None, "Bearer x", f"Token {token}", "Basic " + base64.b64encode(b"letta:x").decode()):
            refused = ask(target, bad)
            assert refused.status == 401 and list(refused.json()) == ["detail"]
    assert ask(refs).headers["www-authenticate"].startswith('Basic realm="'), "git asks its helper only then"
    for base in ("/v1", "/latest"):
        for path in ("/health", "/health/", "/ready", "/ready/"):
            assert ask(base + path).status in (200, 503), path
