"""A real Letta server, unpatched, as the tests of its modes use it: that it works here at all, and
the facts about it on which memfs as its service rests (contract http-api §2)."""
import pytest

pytestmark = pytest.mark.lettaserver


@pytest.fixture
def ada(plain_letta):
    agent = plain_letta.create_agent({"human": "Likes tea.", "persona": "I am Ada."}, tags=["t"])
    yield agent
    plain_letta.delete_agent(agent)


def test_its_migrations_ended_where_we_know_them(plain_letta):
    assert plain_letta.sql("SELECT version_num FROM alembic_version") == [["1c28e167b74f"]]


def test_an_agent_with_blocks(plain_letta, ada):
    assert plain_letta.values(ada) == {"human": "Likes tea.", "persona": "I am Ada."}
    plain_letta.patch_block(plain_letta.blocks(ada)["human"]["id"], value="Likes coffee.")
    assert plain_letta.values(ada)["human"] == "Likes coffee."


def test_messages_stream(plain_letta, ada, model_api):
    events = list(plain_letta.stream(ada, "hello"))
    said = [e["content"] for e in events[:-1] if e["message_type"] == "assistant_message"]
    assert said == ["I ", "will ", "remember ", "that."]
    assert events[-1] == "[DONE]"
    assert "Likes tea." in model_api.prompts[-1].system
