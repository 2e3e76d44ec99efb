"""Letta's TypeScript SDK, unmodified, against memfs alone: agents, blocks, tags, the prompt (http-api 5 to 7, 9)."""
import json
import os
import subprocess

from lib.server import CANARY

HERE = os.path.dirname(os.path.abspath(__file__))


def node(letta_folder, *args):
    done = subprocess.run([os.path.join(letta_folder, "node", "bin", "node"), *args], stdin=subprocess.DEVNULL,
                          env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(memfs, folder, agent, *args):
    at = os.path.join(str(folder), agent)
    if not os.path.isdir(at):
        subprocess.run(["git", "clone", "-q", f"{memfs.url}/v1/git/{agent}/state.git", at], check=True,
                       capture_output=True, timeout=60)
    return subprocess.run(["git", *args], cwd=at, check=True, capture_output=True, text=True, timeout=60).stdout


def test_5_6_7_9_a_journey_with_the_sdk(memfs, letta_folder, tmp_path):
    said = node(letta_folder, os.path.join(HERE, "sdk", "journey.mjs"), memfs.url, CANARY,
                os.path.join(letta_folder, "sdk"))
    ids = json.loads(said.strip().splitlines()[-1])
    agent = ids["agent"]
    files = git(memfs, tmp_path, agent, "ls-files").split()
    assert files == ["notes.md", "system/human.md", "system/persona.md"]
    persona = git(memfs, tmp_path, agent, "show", "HEAD:system/persona.md")
    assert persona.startswith("---\n") and "description: me\n" in persona and persona.endswith("I count.")
    assert git(memfs, tmp_path, agent, "show", "HEAD:notes.md").endswith("four")
    # every write is a commit, and says who and what
    log = git(memfs, tmp_path, agent, "log", "--format=%an%x09%s").splitlines()
    assert len(log) >= 8 and any("system/persona" in line for line in log) and any("notes" in line for line in log)
    # the deleted agent's memory is where it was
    assert subprocess.run(["git", "ls-remote", f"{memfs.url}/v1/git/{ids['deleted']}/state.git"],
                          capture_output=True, timeout=60).returncode != 0
    assert os.path.isdir(os.path.join(memfs.home, "repository")) and any(
        ids["deleted"] in path for path, _, _ in os.walk(os.path.join(memfs.home, "repository")))
