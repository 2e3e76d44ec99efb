"""`memfs config`: where each setting comes from, and what may be written where."""
import json
import os
import stat

import pytest

from lib.client import Home

CANARY = "canary-c0nf1g/+=\"'"


@pytest.fixture
def home(memfs_bin, folder):
    return Home(memfs_bin, folder / "home")


def show(home, *args, **kw):
    return json.loads(home.run("config", "--json", *args, **kw).stdout)


def value(home, name, *args, **kw):
    row = show(home, name, *args, **kw)
    return row["value"], row["origin"]


def config_file(home):
    return os.path.join(home.folder, ".memfs", "config")


def test_every_row_has_the_same_keys_and_its_default(home):
    told = show(home)
    assert set(told) == {"settings", "warnings"} and told["warnings"] == []
    for row in told["settings"]:
        assert set(row) == {"name", "value", "origin", "is_set", "is_secret", "variables", "key", "help"}
        assert row["origin"] in ("default", "not set") and not row["is_set"]
    names = [row["name"] for row in told["settings"]]
    assert len(names) == len(set(names)) and {"backend", "remote", "api-key", "wait"} <= set(names)


def test_the_chain_of_origins(home, agent):
    """command line > environment > checkout > home > system > settings.json > default"""
    a = agent()
    home.run("init", "--agent", a)
    system = os.path.join(home.folder, "system-config")
    home.env["MEMFS_SYSTEM_CONFIG"] = system
    assert value(home, "base-url") == (None, "not set")
    os.makedirs(home.folder + "/.letta", exist_ok=True)
    letta = home.folder + "/.letta/settings.json"
    with open(letta, "w") as f:
        json.dump({"env": {"LETTA_BASE_URL": "http://letta.example"}, "agents": []}, f)
    assert value(home, "LETTA_BASE_URL") == ("http://letta.example", "file " + letta)
    with open(system, "w") as f:
        f.write("[memfs]\n\tbase-url = http://system.example\n\twait = 3\n")
    assert value(home, "base-url") == ("http://system.example", "file " + system)
    home.run("config", "set", "base-url", "http://home.example")
    home.run("config", "set", "wait", "4")
    assert value(home, "base-url") == ("http://home.example", "file " + config_file(home))
    home.run("config", "set", "wait", "5", "--agent", a)
    assert value(home, "wait") == ("4", "file " + config_file(home))
    assert value(home, "wait", "--agent", a) == ("5", f"file {home.git_dir(a)}/config")
    home.env["MEMFS_WAIT"] = "6"
    home.env["LETTA_BASE_URL"] = "http://env.example"
    assert value(home, "wait", "--agent", a) == ("6", "environment MEMFS_WAIT")
    assert value(home, "base-url") == ("http://env.example", "environment LETTA_BASE_URL")
    other = home.folder + "/other"
    assert value(home, "home", "--home", other) == (other, "command line")


def test_lines_for_people_and_one_value(home):
    home.env["LETTA_API_KEY"] = CANARY
    home.env["MEMFS_REMOTE"] = f"https://bob:{CANARY.split('/')[0]}@git.example/x.git"
    done = home.run("config", "--show-origin")
    assert b"backend             auto  # default\n" in done.stdout
    assert b"api-key             (set)  # environment LETTA_API_KEY\n" in done.stdout
    assert home.run("config", "backend").stdout == b"auto\n"
    assert home.run("config", "ca-file", code=1).stdout == b""   # nothing, as git config has it
    # S3: in no form, no secret
    for args in ((), ("--show-origin",), ("--json",), ("api-key",), ("remote",),
                 ("remote", "--json")):
        done = home.run("config", *args)
        assert b"canary" not in done.stdout + done.stderr, args
    assert b"git.example/x.git" in home.run("config", "remote").stdout


@pytest.mark.parametrize("name, bad", [
    ("backend", "Cloud"), ("enabled", "yes"), ("wait", "soon"), ("poll", "0"),
    ("ca-file", "ca.pem"),
    ("remote", "ext::sh -c id"), ("remote", "not an address"), ("git-url", "-oProxyCommand=x"),
    ("base-url", ""),
])
def test_values_of_a_wrong_form_are_not_written(home, name, bad):
    done = home.run("config", "set", name, bad, code=2)
    assert done.stdout == b"" and done.stderr.startswith(b"memfs: ")
    assert not os.path.exists(config_file(home))


def test_S3_secrets_are_kept_in_no_config_file(home, agent):
    a = agent()
    home.run("init", "--agent", a)
    for name in ("api-key", "remote-token", "LETTA_API_KEY"):
        for where in ((), ("--agent", a)):
            done = home.run("config", "set", name, "canary-value", *where, code=6)
            assert b"memfs remote set --token-stdin" in done.stderr
            assert b"canary" not in done.stderr
    done = home.run("config", "set", "remote", "https://bob:canary-value@git.example/x.git", code=6)
    assert b"memfs remote set" in done.stderr and b"canary" not in done.stderr
    for at, _, files in os.walk(home.folder):
        for name in files:
            with open(os.path.join(at, name), "rb") as f:
                assert b"canary" not in f.read(), name


def test_what_does_not_count_in_a_checkout_is_not_written_there(home, agent):
    a = agent()
    home.run("init", "--agent", a)
    before = open(home.git_dir(a) + "/config").read()
    for name in ("memfs-base-url", "base-url", "allow-http", "letta-dir", "home"):
        done = home.run("config", "set", name, "http://evil.example", "--agent", a, code=None)
        assert done.returncode in (2, 6)
    assert open(home.git_dir(a) + "/config").read() == before


def test_set_and_unset_leave_the_rest_of_the_file_alone(home):
    os.makedirs(home.folder + "/.memfs", mode=0o700)
    text = "# mine\n[user]\n\tname = Bob ; him\n[memfs]\n\tbackend = none\n\tpoll = 5 # often\n"
    with open(config_file(home), "w") as f:
        f.write(text)
    home.run("config", "set", "backend", "local")
    now = open(config_file(home)).read()
    assert sorted(now.split("\n")) == sorted(text.replace("= none", "= local").split("\n"))
    home.run("config", "unset", "backend")
    assert "backend" not in open(config_file(home)).read()
    assert "# mine\n[user]\n\tname = Bob ; him\n" in open(config_file(home)).read()
    assert value(home, "poll") == ("5", "file " + config_file(home))
    assert value(home, "backend") == ("auto", "default")
    home.run("config", "unset", "backend")          # once more is fine


def test_a_wrong_value_can_be_put_right(home):
    os.makedirs(home.folder + "/.memfs", mode=0o700)
    with open(config_file(home), "w") as f:
        f.write("[memfs]\n\tbackend = nonsense\n\tpoll = 5\n")
    done = home.run("config", code=2)
    assert b"'nonsense'" in done.stderr and config_file(home).encode() in done.stderr
    home.run("config", "set", "backend", "none")
    assert value(home, "backend") == ("none", "file " + config_file(home))
    with open(config_file(home), "w") as f:
        f.write("[memfs]\n\tbackend = nonsense\n")
    home.run("config", "unset", "backend")
    assert value(home, "backend") == ("auto", "default")


def test_who_wins_is_told_when_it_is_not_what_was_written(home):
    home.env["MEMFS_BACKEND"] = "none"
    done = home.run("config", "set", "backend", "local")
    assert b"environment MEMFS_BACKEND, which wins" in done.stderr


def test_a_broken_settings_json_of_the_client_is_a_warning(home, agent):
    os.makedirs(home.folder + "/.letta")
    with open(home.folder + "/.letta/settings.json", "w") as f:
        f.write('{"env": {')
    assert "is no JSON, ignoring" in show(home)["warnings"][0]
    home.run("init", "--agent", agent())            # and keeps no agent from starting


@pytest.mark.parametrize("args", [("set",), ("set", "backend"), ("unset",), ("a", "b"),
                                  ("set", "colour", "red"), ("colour",), ("--bogus",)])
def test_usage_errors(home, args):
    done = home.run("config", *args, code=2)
    assert done.stdout == b"" and b"memfs: " in done.stderr


def test_a_new_home_is_closed_to_others(home):
    home.run("config", "set", "backend", "local")
    assert stat.S_IMODE(os.stat(home.folder + "/.memfs").st_mode) == 0o700


@pytest.fixture
def of_serve(home):
    """The rows of `memfs config` that are options of `memfs serve`, too, and say so with their variable."""
    rows = {row["name"]: row for row in show(home)["settings"]}
    commands = json.loads(home.run("help", "--json").stdout)
    options = {o["name"]: o for c in commands if c["name"] == "serve" for o in c["usage"]["options"]}
    return {name: (rows[name], options[name]) for name in options
            if name in rows and rows[name]["variables"][0] in options[name]["help"]}


def test_settings_of_serve_have_three_names_and_an_origin_each(home, of_serve):
    assert {"listen", "database", "cluster-url", "replicas", "upstream", "letta-root"} <= set(of_serve)
    os.makedirs(home.folder + "/.memfs", mode=0o700)
    for name, (row, option) in of_serve.items():
        assert row["help"] == option["help"]
        section, key = row["key"].split(".")
        with open(config_file(home), "w") as f:
            f.write(f"[{section}]\n\t{key} = http://of.config/\n")
        shown = [r["value"] for r in (show(home, form) for form in (name, row["variables"][0], row["key"]))]
        assert shown == ["http://of.config/"] * 3
        assert value(home, name)[1] == "file " + config_file(home) and show(home)["warnings"] == []
        home.env[row["variables"][0]] = "http://of.env/"
        assert value(home, name)[1] == "environment " + row["variables"][0]
        del home.env[row["variables"][0]]
        home.run("config", "set", name, "x", code=2)
        home.run("config", "unset", name, code=2)


def test_a_setting_of_serve_that_is_no_good_is_told_with_who_said_it(home):
    os.makedirs(home.folder + "/.memfs", mode=0o700)
    home.env["MEMFS_REPLICAS"] = "many"
    done = home.run("serve", "--listen", "127.0.0.1:0", code=2)
    assert done.stderr == b"memfs: $MEMFS_REPLICAS: --replicas needs a number from 1 to 16, not 'many'\n"
    done = home.run("serve", "--listen", "127.0.0.1:0", "--replicas", "17", code=2)
    assert done.stderr == b"memfs: --replicas needs a number from 1 to 16, not '17'\n"
    with open(config_file(home), "w") as f:
        f.write("[memfs]\n\tlisten = nowhere\n")
    done = home.run("serve", code=2)
    assert done.stderr == (b"memfs: memfs.listen in the data folder's config: --listen needs ADDR:PORT, "
                           b"not 'nowhere'\n")


def test_settings_of_serve_stand_in_the_operators_table(of_serve):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(root, "docs", "operations.md"), encoding="utf-8") as f:
        lines = [line for line in f if line.startswith("| `--")]
    for name, (row, _) in of_serve.items():
        names = f"| `--{name}`, `{row['variables'][0]}`, `{row['key']}` |"
        assert [line for line in lines if line.startswith(names)], names


def test_S3_no_password_of_a_database_is_shown(home):
    for url in ("postgresql://u:canary@h/db", "postgresql://h/db?password=canary", "u:canary@h", "host=h password=canary"):
        home.env["MEMFS_DATABASE"] = home.env["MEMFS_LETTA_DATABASE"] = url
        for args in ((), ("--show-origin",), ("--json",), ("database",), ("letta-database", "--json")):
            done = home.run("config", *args)
            assert b"canary" not in done.stdout + done.stderr, (url, args)
