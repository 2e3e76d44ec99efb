"""exec: the memory is ready, the command runs as if it were started directly, its work is synced."""
import os
import signal
import subprocess
import time

import pytest

from lib.client import Home
from lib.fake_remote import FakeRemote
from test_apply import letta_home, remote_tip, state_git


@pytest.fixture
def remote(folder):
    with FakeRemote(folder / "remotes") as r:
        yield r


@pytest.fixture
def home(memfs_bin, folder, remote):
    return letta_home(memfs_bin, folder, remote.say("501"))


def run(home, id, *command, code=0, **kw):
    return home.run("exec", "--agent", id, "--", *command, code=code, **kw)


def start(home, id, script):
    """Started, and the command has said that it is ready."""
    def listening():        # what a job in the background inherits as ignored, no shell can trap
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    p = home.popen("exec", "--agent", id, "--", "/bin/sh", "-c", script, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE, preexec_fn=listening)
    assert p.stdout.readline() == b"ready\n"
    return p


def test_the_commands_own_output_status_and_environment(home, agent):
    id = agent()
    done = run(home, id, "/bin/sh", "-c", 'echo "$MEMORY_DIR|$LETTA_MEMORY_DIR|$AGENT_ID|$LETTA_AGENT_ID";'
               'test -d "$MEMORY_DIR/.git" || exit 9; exit 42', code=42)
    memory = home.memory(id)
    assert done.stdout.decode() == f"{memory}|{memory}|{id}|{id}\n"
    assert b"local-only" in done.stderr
    done = run(home, id, "/bin/sh", "-c", 'echo "$MEMORY_DIR $LETTA_MEMORY_DIR $AGENT_ID"',
               env={"MEMORY_DIR": "/worktree", "LETTA_AGENT_ID": id})
    assert done.stdout.decode() == f"/worktree {memory} {id}\n"


def test_in_another_agents_shell_the_command_is_told_of_its_own_memory(home, agent):
    id, other = agent(), agent()
    done = run(home, id, "/bin/sh", "-c", 'echo "$MEMORY_DIR|$LETTA_MEMORY_DIR|$AGENT_ID|$LETTA_AGENT_ID"',
               env={"MEMORY_DIR": "/theirs", "LETTA_MEMORY_DIR": "/theirs", "AGENT_ID": other})
    assert done.stdout.decode() == f"{home.memory(id)}|{home.memory(id)}|{id}|{id}\n"


def test_what_the_command_commits_is_synced(home, remote, agent):
    id = agent()
    remote.mend()
    remote.repository(state_git(remote, id))
    run(home, id, "/bin/sh", "-c", 'cd "$MEMORY_DIR" && printf -- "---\\ndescription: d\\n---\\nx\\n" '
        '> system/a.md && git add -A && git commit -q -m turn && exit 3', code=3)
    assert remote_tip(remote, state_git(remote, id)) == home.checkout(id).head
    assert home.checkout(id).text("log", "-1", "--format=%s") == "turn"


def test_a_command_that_cannot_run(home, agent):
    id = agent()
    assert run(home, id, "no-such-command-here", code=127).stderr
    run(home, id, home.folder, code=126)
    home.run("exec", "--agent", id, code=2)
    home.run("exec", "--", "true", code=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(home, agent, number):
    p = start(home, agent(), f"trap 'echo got; exit 7' {number.name[3:]}; echo ready; "
              "while :; do sleep 0.05; done")
    p.send_signal(number)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 7 and out == b"got\n", err


def test_death_by_a_signal_is_128_and_its_number(home, remote, agent):
    p = start(home, agent(), "echo ready; while :; do sleep 0.05; done")
    n = len(remote.requests)
    p.send_signal(signal.SIGTERM)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 128 + signal.SIGTERM
    assert len(remote.requests) > n, err      # synced all the same


def test_the_command_may_use_its_stdin_and_ignore_signals(home, agent):
    id = agent()
    done = subprocess.run([home.memfs_bin, "exec", "--agent", id, "--", "cat"], input=b"through\n",
                          env=home.env, cwd=home.folder, capture_output=True, timeout=60)
    assert done.stdout == b"through\n" and done.returncode == 0
    done = run(home, id, "/bin/sh", "-c", "kill -TERM $$; echo not reached", code=128 + signal.SIGTERM)
    assert b"not reached" not in done.stdout


def test_memory_that_is_switched_off_is_left_alone(home, agent):
    id = agent()
    run(home, id, "/bin/sh", "-c", "exit 5", code=5, env={"LETTABOT_MEMFS": "false"})
    assert not os.path.exists(home.memory(id))


def test_a_memory_that_cannot_be_prepared_does_not_stop_the_command(home, agent):
    id = agent()
    os.makedirs(home.root(id))
    with open(home.memory(id), "w") as f:
        f.write("in the way\n")
    done = run(home, id, "/bin/sh", "-c", "echo runs")
    assert done.stdout == b"runs\n" and b"failed" in done.stderr
