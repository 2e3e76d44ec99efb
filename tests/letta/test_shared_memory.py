"""`letta shared-memory`, `memory`, `blocks` and `agents` of the real letta-code against memfs alone (http-api 5, 7, 8; client 8.2)."""
import json
import os
import subprocess
import urllib.request

import pytest

from lib.server import CANARY
from machine import client_env

VERSIONS = ("0.30.28", "0.32.18")
PLAN = "---\nname: plan\ndescription: what we do\n---\nwe begin on Monday\n"     # the client's own hook wants front matter


class User:
    """A machine with the client, its agent, and nothing of any other's."""

    def __init__(self, memfs, letta_folder, version, folder, agent):
        self.memfs, self.folder, self.agent = memfs, str(folder), agent
        os.makedirs(self.folder)
        with open(os.path.join(self.folder, ".gitconfig"), "w") as f:
            f.write("[user]\n\tname = Somebody\n\temail = somebody@example.org\n")
        self.letta = os.path.join(letta_folder, version, "node_modules", ".bin", "letta")
        self.env = {**client_env(letta_folder, self.folder),
                    "LETTA_BASE_URL": memfs.url, "LETTA_MEMFS_BASE_URL": memfs.url, "LETTA_API_KEY": CANARY,
                    "AGENT_ID": agent, "LETTA_AGENT_ID": agent}

    def run(self, *args, code=0):
        done = subprocess.run([self.letta, *args], env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout

    def shared(self, *args):
        return json.loads(self.run("shared-memory", *args))

    def mount(self, name):
        return os.path.join(self.folder, ".letta", "agents", self.agent, name)

    def git(self, name, *args):
        done = subprocess.run(["git", *args], cwd=self.mount(name), env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout


def ask(memfs, method, path, body=None):
    request = urllib.request.Request(memfs.url + path, method=method, headers={"Content-Type": "application/json"},
                                     data=None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("version", VERSIONS)
def test_8_two_agents_share_notes(memfs, letta_folder, tmp_path, version):
    agents = [ask(memfs, "POST", "/v1/agents", {"name": name})["id"] for name in ("Anna", "Bert")]
    anna, bert = (User(memfs, letta_folder, version, tmp_path / name, agent)
                  for name, agent in zip(("anna", "bert"), agents))
    anna.shared("create", "--name", "team-notes")
    assert "team-notes" in json.dumps(anna.shared("list"))
    for user in (anna, bert):
        user.shared("attach", "team-notes")
        assert os.path.isdir(os.path.join(user.mount("team-notes"), ".git"))
    with open(os.path.join(anna.mount("team-notes"), "plan.md"), "w") as f:
        f.write(PLAN)
    anna.git("team-notes", "add", "plan.md")
    anna.git("team-notes", "commit", "-qm", "the plan")
    anna.git("team-notes", "push", "-q")
    bert.shared("sync")
    with open(os.path.join(bert.mount("team-notes"), "plan.md")) as f:
        assert f.read() == PLAN
    commits = json.dumps(bert.shared("history", "team-notes", "--path", "plan.md", "--limit", "1"))
    assert "the plan" in commits and "Anna" in commits and "genesis" not in commits
    repo = [r for r in ask(memfs, "GET", "/v1/repositories")["repositories"] if r["name"] == "team-notes"][0]
    there = ask(memfs, "GET", f"/v1/repositories/{repo['id']}/files/content?path=plan.md")
    assert there["content"] == PLAN
    bert.shared("detach", "team-notes")
    links = ask(memfs, "GET", f"/v1/agents/{bert.agent}/repositories")["repositories"]
    assert [link["name"] for link in links if not link["is_primary"]] == []
    assert "team-notes" in json.dumps(ask(memfs, "GET", f"/v1/agents/{anna.agent}/repositories"))
    assert os.path.isdir(bert.mount("team-notes")), "the mount stays (client 8.2)"
    refused = subprocess.run(["git", "pull"], cwd=bert.mount("team-notes"), env=bert.env, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0, "and is nobody's any more"


def read(*parts):
    with open(os.path.join(*parts)) as f:
        return f.read()


@pytest.mark.parametrize("version", ("0.19.5", *VERSIONS))
def test_8_memory_commands_of_the_client(memfs, letta_folder, tmp_path, version):
    """`letta memory` (0.19.5: `letta memfs`) on a memory that was cloned from memfs."""
    agent = ask(memfs, "POST", "/v1/agents", {"name": "Anna", "tags": ["git-memory-enabled"], "memory_blocks": [
        {"label": "persona", "value": "I am Anna."}]})["id"]
    anna = User(memfs, letta_folder, version, tmp_path / "anna", agent)
    memory, word = anna.mount("memory"), "memfs" if version == "0.19.5" else "memory"
    os.makedirs(os.path.dirname(memory))
    subprocess.run(["git", "clone", "-q", f"{memfs.url}/v1/git/{agent}/state.git", memory],
                   env=anna.env, check=True, capture_output=True, timeout=60)
    assert json.loads(anna.run(word, "status"))["summary"] == "clean"
    made = json.loads(anna.run(word, "backup"))["backupName"]
    ask(memfs, "PATCH", f"/v1/agents/{agent}/core-memory/blocks/system%2Fpersona", {"value": "I am Anna II."})
    if version == "0.30.28":    # its pull says "Settings not initialized" (client 11)
        anna.run(word, "pull", code=1)
        anna.git("memory", "pull", "-q")
    else:
        assert json.loads(anna.run(word, "pull"))["updated"] is True
    assert read(memory, "system", "persona.md").endswith("I am Anna II.")
    with open(os.path.join(memory, "system", "persona.md"), "a") as f:
        f.write(" And more.")
    assert "+I am Anna II. And more." in anna.run(word, "diff", code=2)
    if word == "memory":
        tokens = json.loads(anna.run(word, "tokens", "--format", "json", "--memory-dir", memory))
        assert [f["path"] for f in tokens["files"]] == ["system/persona.md"]
    assert [b["name"] for b in json.loads(anna.run(word, "backups"))["backups"]] == [made]
    anna.run(word, "restore", "--from", made, "--force")
    assert read(memory, "system", "persona.md").endswith("I am Anna.")
    anna.run(word, "export", "--agent", agent, "--out", str(tmp_path / "out"))
    assert read(tmp_path, "out", "system", "persona.md").endswith("I am Anna.")


def test_5_7_blocks_and_agents_commands_of_an_old_client(memfs, letta_folder, tmp_path):
    """0.19.5 has no `shared-memory`, and `letta blocks`, which newer ones have not; `letta agents list` has every one."""
    anna, bert = (ask(memfs, "POST", "/v1/agents", {"name": name, "tags": [name], "memory_blocks": [
        {"label": name.lower(), "value": "text"}]})["id"] for name in ("Anna", "Bert"))
    user = User(memfs, letta_folder, "0.19.5", tmp_path / "anna", anna)

    def bodies(*args):
        return json.loads(user.run(*args))["body"]

    (found,) = bodies("agents", "list", "--tags", "Bert,nobody", "--include-blocks")
    assert (found["id"], [b["label"] for b in found["blocks"]]) == (bert, ["bert"])
    block = found["blocks"][0]["id"]
    user.run("blocks", "attach", "--block-id", block, "--agent", anna)
    user.run("blocks", "copy", "--block-id", block, "--agent", anna, "--label", "copied")
    mine = {b["label"]: b for b in bodies("blocks", "list", "--agent", anna)}
    assert set(mine) == {"anna", "bert", "copied"} and mine["bert"]["id"] == block != mine["copied"]["id"]
    assert mine["copied"]["value"] == "text"
