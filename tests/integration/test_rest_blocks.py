"""Blocks over REST, named after the sections of the wire contract (http-api 4 to 6, 9)."""
import hashlib
import re
import uuid

import pytest

from lib.restmem import AGENT_KEYS, BLOCK_KEYS, CURL, FILES, LABELS, UUID4, only_error, mem  # noqa: F401


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
    brew = mem.json(f"/v1/agents/{mem.ada}/core-memory/blocks/skills/brew")
    assert brew["label"] == "skills/brew"


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
