"""Help as data, and the completions made of it: every command, every option, in three shells."""
import json
import shutil
import subprocess

import pytest

from lib.client import Home
from lib.server import new_agent


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


@pytest.fixture
def commands(home):
    return json.loads(home.run("help", "--json").stdout)


def test_help_as_data_has_every_command_with_its_options(home, commands):
    text = home.run("help").stdout.decode()
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    names = [c["name"] for c in commands]
    assert sorted(names) == sorted(n for n in listed if n in names) and len(names) == len(set(names))
    assert {"log", "worktree", "serve", "verify", "hook", "help"} <= set(names)
    for c in commands:
        assert list(c) == ["name", "summary", "group", "usage"]
        assert c["group"] in ("memory", "server", "tool") and c["usage"] is not None, c["name"]
        shown = home.run(c["name"], "--help").stdout.decode()
        for option in c["usage"]["options"]:
            assert "--" + option["name"] in shown, (c["name"], option)
            assert option["kind"] in ("flag", "text", "number")
            assert (option["arg"] is None) == (option["kind"] == "flag")


def test_the_help_is_in_groups(home):
    text = home.run("--help").stdout.decode()
    memory, server, tools = (text.index(t) for t in ("an agent's memory", "the server", "set-up and tools"))
    assert memory < text.index("  worktree ") < server < text.index("  verify ") < tools
    assert text.index("  completion ") > tools


def complete(home, script, line, words):
    """What bash would offer at the end of the line."""
    shell = f"""
        PATH={home.memfs_bin.rsplit('/', 1)[0]}:$PATH
        source {script}
        COMP_WORDS=({' '.join(words)} '{line}'); COMP_CWORD={len(words)}
        _memfs
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", shell], env=home.env, cwd=home.folder,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    return done.stdout.decode().split()


def test_bash_completes(home, commands, folder):
    script = folder / "memfs.bash"
    script.write_bytes(home.run("completion", "bash").stdout)
    assert complete(home, script, "work", ["memfs"]) == ["worktree"]
    assert sorted(complete(home, script, "", ["memfs"])) == sorted(c["name"] for c in commands)
    for c in commands:
        offered = complete(home, script, "--", ["memfs", c["name"]])
        assert sorted(offered) == sorted(
            ["--help"] + ["--" + o["name"] for o in c["usage"]["options"]]), c["name"]
    assert complete(home, script, "m", ["memfs", "worktree"]) == ["merge"]
    assert complete(home, script, "", ["memfs", "log", "--limit"]) == []
    (folder / "home" / "some-file").write_text("")
    assert complete(home, script, "some-", ["memfs", "import", "--from"]) == ["some-file"]


def test_agents_are_completed_from_this_machine(home, folder):
    agents = sorted(new_agent() for _ in range(3))
    for agent in agents:
        home.run("init", "--agent", agent)
    assert home.run("completion", "agents").stdout.decode().split() == agents
    script = folder / "memfs.bash"
    script.write_bytes(home.run("completion", "bash").stdout)
    assert complete(home, script, agents[1], ["memfs", "log", "--agent"]) == [agents[1]]
    assert sorted(complete(home, script, "", ["memfs", "log", "--agent"])) == agents


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(home, commands, folder, shell):
    assert shutil.which(shell), f"{shell} is not installed (scripts/deps test)"
    script = folder / f"memfs.{shell}"
    script.write_bytes(home.run("completion", shell).stdout)
    done = subprocess.run([shell, "-n", script], env=home.env, capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    text = script.read_text()
    for c in commands:
        assert c["name"] in text
        for o in c["usage"]["options"]:
            assert ("--" if shell == "zsh" else "-l ") + o["name"] in text


def test_fish_completes(home, folder):
    script = folder / "memfs.fish"
    script.write_bytes(home.run("completion", "fish").stdout)
    done = subprocess.run(["fish", "-c", f"source {script}; complete -C 'memfs worktree --fo'"],
                          env=home.env, capture_output=True, timeout=60)
    assert done.stdout.startswith(b"--force"), done


def test_zsh_loads_it(home, folder):
    script = folder / "_memfs"
    script.write_bytes(home.run("completion", "zsh").stdout)
    done = subprocess.run(["zsh", "-f", "-c", f"autoload -U compinit; compinit -u -D; source {script}; "
                                              "print $_comps[memfs]"],
                          env=home.env, capture_output=True, timeout=60)
    assert done.stdout.strip() == b"_memfs" and done.stderr == b"", done


def test_an_unknown_shell_is_wrong_usage(home):
    assert b"bash, zsh or fish" in home.run("completion", "tcsh", code=2).stderr
