"""A real Letta server, unpatched, behind memfs as its gateway: its own Python client and plain git, one address."""
import os

import pytest

from lib import letta
from lib.gitcli import Git
from lib.server import new_agent

pytestmark = pytest.mark.lettaserver


@pytest.fixture
def gateway(servers, plain_letta):
    return servers(args=["--upstream", plain_letta.url])


def test_an_agent_is_made_asked_and_remembered_through_one_address(gateway, plain_letta, folder):
    """By letta-client: create, list, read, edit, message, stream, delete; beside it git, all at memfs' port."""
    made = plain_letta.sdk(f"""
agent = client.agents.create(name="Ada", model="openai-proxy/{letta.MODEL}", embedding="openai/{letta.EMBEDDING}",
                             memory_blocks=[{{"label": "human", "value": "Likes tea."}}], include_base_tools=False,
                             tags=["t"])
block = client.agents.blocks.retrieve("human", agent_id=agent.id)
client.blocks.update(block.id, value="Likes coffee.")
said = client.agents.messages.create(agent.id, messages=[{{"role": "user", "content": "hello"}}])
streamed = [c.model_dump(mode="json") for c in client.agents.messages.stream(
    agent.id, messages=[{{"role": "user", "content": "again"}}], stream_tokens=True)]
answer({{"id": agent.id, "value": client.agents.blocks.retrieve("human", agent_id=agent.id).value,
        "listed": [a.id for a in client.agents.list(tags=["t"])],
        "said": [m.content for m in said.messages if m.message_type == "assistant_message"],
        "streamed": [c["content"] for c in streamed if c.get("message_type") == "assistant_message"]}})
""", url=gateway.url)
    agent = made["id"]
    assert made["value"] == "Likes coffee." and agent in made["listed"]
    assert made["said"] == ["I will remember that."]
    assert made["streamed"] == ["I ", "will ", "remember ", "that."]
    assert plain_letta.values(agent)["human"] == "Likes coffee."

    # git is memfs', for this agent and no invented one
    git = Git(folder / "git")
    checkout = git.clone(gateway.git_url(agent), folder / "memory")
    checkout.save({"system/human.md": "Likes git.\n"})
    checkout.push()
    assert gateway.tip(agent) == checkout.head
    rows = gateway.request("POST", f"/v1/agents/{agent}/memory/sync-from-git").json()
    assert [r["value"] for r in rows] == ["Likes git.\n"]
    assert gateway.get(f"/v1/git/{new_agent()}/state.git/info/refs?service=git-upload-pack").status == 404
    assert gateway.get("/v1/health").json()["upstream"] == {"version": letta.VERSION, "status": "ok"}

    # the other spelling: Letta sends its 307 to where the client called
    for path in ("/v1/agents", "/v1/blocks"):
        answer = gateway.get(path)
        assert answer.status in (200, 307)
        if answer.status == 307:
            assert answer.headers["location"] == f"{gateway.url}{path}/"
    assert plain_letta.sdk(f"client.agents.delete({agent!r})\nanswer(True)", url=gateway.url)
    assert plain_letta.request("GET", f"/v1/agents/{agent}").status == 404
    assert gateway.has_object(agent, checkout.head)     # what was pushed stays


def test_each_token_comes_as_it_is_made(gateway, plain_letta, model_api):
    """The events of a streamed answer are read one by one through the gateway."""
    agent = plain_letta.create_agent({"human": "Likes tea."})
    events = list(plain_letta.stream(agent, "hello", port=gateway.port))
    said = [e["content"] for e in events[:-1] if e["message_type"] == "assistant_message"]
    assert said == ["I ", "will ", "remember ", "that."] and events[-1] == "[DONE]"
    plain_letta.delete_agent(agent)


def test_a_secure_server_decides_who_may_push(servers, letta_folder, letta_postgres, model_api, folder):
    """LETTA_SERVER_SECURE: the password opens git too, as git sends it; another does not (design 10)."""
    password = "pw-" + os.urandom(8).hex()
    secure = letta.LettaServer(letta_postgres, letta_folder / "secure", model_api,
                               env={"LETTA_SERVER_SECURE": "true", "LETTA_SERVER_PASSWORD": password})
    try:
        secure.start()
        bearer = {"Authorization": "Bearer " + password}
        server = servers(args=["--upstream", secure.url])
        server.secrets.append(password.encode())
        made = server.request("POST", "/v1/agents/", (
            b'{"name":"Ada","model":"openai-proxy/%s","embedding":"openai/%s","include_base_tools":false}'
            % (letta.MODEL.encode(), letta.EMBEDDING.encode())), {**bearer, "Content-Type": "application/json"})
        assert made.status == 200, made
        agent = made.json()["id"]
        good, bad = Git(folder / "good", password), Git(folder / "bad", "wrong")
        checkout = good.clone(server.git_url(agent), folder / "memory")
        checkout.save({"system/human.md": "one\n"})
        checkout.push()
        for stranger in (bad, Git(folder / "nobody")):
            done = stranger.run("ls-remote", server.git_url(agent), check=False)
            assert done.returncode != 0 and b"Authentication failed" in done.stderr or b"could not read" in done.stderr
        assert server.get("/v1/agents/").status == 401
        assert server.request("GET", "/v1/agents/", headers=bearer).status == 200
        secure.stop()
    finally:
        secure.kill()
