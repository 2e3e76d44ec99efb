"""Upkeep over the home's own socket: verify, rebuild, repack, backup, purge, told line by line."""
import http.client
import json
import os
import pathlib
import re
import socket
import stat
import subprocess
import uuid

import pytest

from lib.server import new_agent


class SocketConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def owner_post(server, path, body):
    connection = SocketConnection(server.home + "/socket")
    connection.request("POST", path, body=body if isinstance(body, bytes) else json.dumps(body),
                       headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def owner_lines(server, path, body):
    answer, text = owner_post(server, path, body)
    assert answer.status == 200, text
    assert answer.headers["Content-Type"].split(";")[0] == "application/x-ndjson"
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("work", ["verify", "rebuild", "repack"])
def test_owner_work_is_told_line_by_line(server, git, folder, agent, work):
    agents = sorted(agent() for _ in range(3))
    for a in agents:
        git.clone(server.git_url(a), folder / a).save({"x.md": a})
    lines = owner_lines(server, f"/owner/{work}", {})
    assert list(lines[-1]) == ["result"]
    assert lines[-1]["result"]["agents"] == 3
    assert lines[-1]["result"]["failed"] == 0
    progress = [line["progress"] for line in lines if "progress" in line]
    assert progress and all(set(p) == {"done", "total", "agent"} for p in progress)
    assert progress[-1]["total"] == 3
    one = owner_lines(server, f"/owner/{work}", {"agent": agents[0]})
    assert one[-1]["result"]["agents"] == 1
    for a in agents:
        assert server.value(a, "x") == a


def test_owner_errors_are_the_last_line(server):
    lines = owner_lines(server, "/owner/verify", {"agent": new_agent()})
    assert lines[-1]["error"]["code"] == "ENOTFOUND"
    assert lines[-1]["error"]["message"]
    lines = owner_lines(server, "/owner/verify", {"agent": "../x"})
    assert lines[-1]["error"]["code"] == "EINVALID"
    lines = owner_lines(server, "/owner/backup", {"to": "relative"})
    assert lines[-1]["error"]["code"] == "EINVALID"
    lines = owner_lines(server, "/owner/purge", {"agent": new_agent()})
    assert lines[-1]["error"]["code"] == "EINVALID"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\"x\"", b"{\"agent\":1,\"agent\":2}", b"\xff"])
def test_owner_requests_that_are_not_json_objects_are_400(server, body):
    answer, text = owner_post(server, "/owner/verify", body)
    assert answer.status == 400, text
    assert "detail" in json.loads(text)


def test_owner_backup_over_the_socket(server, git, folder, agent):
    a = agent()
    git.clone(server.git_url(a), folder / "c").save({"x.md": "kept"})
    target = str(folder / "backup")
    lines = owner_lines(server, "/owner/backup", {"to": target})
    assert lines[-1]["result"]["agents"] == 1
    assert pathlib.Path(target).is_dir()
    again = owner_lines(server, "/owner/backup", {"to": target})
    assert again[-1]["error"]["code"] == "EEXISTS"


def test_T28_purge_over_the_socket_keeps_the_secret_out_of_the_log(server, git, folder, agent):
    a, secret = agent(), "hunter2-" + uuid.uuid4().hex
    checkout = git.clone(server.git_url(a), folder / "c")
    checkout.save({"x.md": f"the key is {secret}"})
    checkout.save({"x.md": "gone", "y.md": "kept"})
    server.rewrites_allowed = True
    lines = owner_lines(server, "/owner/purge", {"agent": a, "secret": secret})
    result = lines[-1]["result"]
    assert result["blobs"] >= 1 and result["commits"] >= 2
    assert re.fullmatch(r"[0-9a-f]{40}", result["new_tip"]) and result["new_tip"] == server.tip(a)
    assert server.value(a, "y") == "kept"
    assert secret not in server.log()
    assert secret not in server.git_dir(a, "log", "-p", "--all").stdout.decode()


def test_T30_the_socket_is_the_owners_alone(server):
    mode = os.stat(server.home + "/socket").st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(os.stat(server.home).st_mode) == 0o700


def test_the_api_answers_over_the_socket_too(server, git, folder, agent):
    a = agent()
    git.clone(server.git_url(a), folder / "c").save({"x.md": "v"})
    connection = SocketConnection(server.home + "/socket")
    connection.request("GET", f"/v1/agents/{a}/core-memory/blocks/x")
    answer = connection.getresponse()
    assert json.loads(answer.read())["value"] == "v"
    connection.close()


@pytest.mark.parametrize("named", ["agent-\udcff", "", "all"],
                         ids=["bytes", "nothing", "word"])
@pytest.mark.parametrize("work", ["verify", "rebuild", "repack"])
def test_a_name_that_is_no_agent_never_means_all(server, work, named):
    done = server.cli(work, "--agent", named, check=False)
    assert done.returncode == 2, done
    assert b"needs the id of an agent" in done.stderr


def test_a_restore_into_a_relative_folder(server, git, folder, agent):
    one = agent()
    git.clone(server.git_url(one), folder / "m").save({"x.md": "kept"})
    server.cli("backup", folder / "copy")
    done = subprocess.run([server.binary, "restore", "--from", "copy", "--home", "again"],
                          cwd=folder, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run([server.binary, "blocks", "get", "x", "--agent", one, "--home", "again"],
                           cwd=folder, capture_output=True, timeout=60, check=False)
    assert shown.stdout == b"kept", shown
