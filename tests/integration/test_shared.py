"""Shared repositories (http-api 8, client.md 8.2): names, files, preconditions, versions, links, and real git."""
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import uuid

import pytest

from lib import wire
from lib.authmatrix import Client, bearer
from lib.cluster import Cluster, wait_until
from lib.gitcli import GIT, git_env
from lib.server import AUTH, ORG, Server, new_agent
from lib.postgres import Postgres
from lib.summary import count
from lib.upstream import Upstream

GENESIS = wire.GENESIS
REPO = re.compile(r"repo-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Api:
    """The routes, as one caller."""

    def __init__(self, server, headers=None):
        self.server, self.headers = server, headers or {}

    def ask(self, method, target, body=None):
        data = None if body is None else json.dumps(body)
        return self.server.request(method, target, data, {"Content-Type": "application/json", **self.headers})

    def good(self, method, target, body=None):
        answer = self.ask(method, target, body)
        assert answer.status == 200, answer
        return answer.json()

    def bad(self, status, method, target, body=None):
        answer = self.ask(method, target, body)
        assert answer.status == status, answer
        if answer.json().get("detail", "").startswith("["):     # the contract's 422
            assert status == 422
            return answer.json()["detail"]
        assert answer.json()["message"] == answer.json()["detail"], answer
        assert (answer.headers.get("x-should-retry") == "false") == (status == 409), answer.headers
        return answer.json()["message"]

    def create(self, name=None):
        return self.good("POST", "/v1/repositories", {"name": name or f"r-{uuid.uuid4().hex[:12]}"})

    def put(self, repo, path, content):
        return self.good("POST", f"/v1/repositories/{repo}/files", {"path": path, "content": content})

    def change(self, repo, **body):
        return self.good("POST", f"/v1/repositories/{repo}/files/content", body)

    def read(self, repo, path, query=""):
        return self.good("GET", f"/v1/repositories/{repo}/files/content?path={path}{query}")

    def paths(self, repo, query=""):
        return [(f["path"], f["type"]) for f in self.good("GET", f"/v1/repositories/{repo}/files{query}")["files"]]

    def versions(self, repo, query=""):
        return self.good("GET", f"/v1/repositories/{repo}/versions{query}")

    def links(self, agent):
        return [link for link in self.good("GET", f"/v1/agents/{agent}/repositories")["repositories"]
                if not link["is_primary"]]

    def attach(self, agent, repo, permissions=None):
        body = {"repository_id": repo} if permissions is None else {"repository_id": repo, "permissions": permissions}
        return self.good("POST", f"/v1/agents/{agent}/repositories", body)


@pytest.fixture
def api(shared_server):
    return Api(shared_server())


@pytest.fixture
def repo(api):
    return api.create()["id"]


# -- 8.2: repositories -----------------------------------------------------------------------------

def test_8_2_create_get_and_list_in_pages(server):
    api = Api(server)
    assert api.good("GET", "/v1/repositories") == {"repositories": [], "has_next_page": False}
    made = [api.create(f"team-{i}") for i in range(5)]
    for one in made:
        assert list(one) == ["id", "name", "created_at", "updated_at"]
        assert REPO.fullmatch(one["id"]) and TIME.fullmatch(one["created_at"]), one
        assert api.good("GET", f"/v1/repositories/{one['id']}") == one
    assert api.good("GET", "/v1/repositories/")["repositories"] == made
    pages = [api.good("GET", f"/v1/repositories?limit=2&offset={at}") for at in (0, 2, 4, 6)]
    for bad in ("offset=-1", "limit=-1", "offset=x", "offset="):
        api.bad(422, "GET", f"/v1/repositories?{bad}")
    assert [[r["name"] for r in p["repositories"]] for p in pages] == [["team-0", "team-1"], ["team-2", "team-3"],
                                                                      ["team-4"], []]
    assert [p["has_next_page"] for p in pages] == [True, True, False, False]
    assert not api.good("GET", "/v1/repositories?limit=5")["has_next_page"]
    assert len(api.good("GET", "/v1/repositories?limit=0")["repositories"]) == 5
    assert server.get("/v1/repositories?limit=x").status == 422
    # no agents of theirs, and nothing on the disk before there is a commit
    api.put(made[0]["id"], "a.md", "x")
    assert server.get("/v1/agents/count").json() == 0 and server.get("/v1/agents/").json() == []
    assert os.listdir(os.path.join(server.home, "shared", ORG)) == [made[0]["id"]]
    assert not os.path.exists(os.path.join(server.home, "repository"))


@pytest.mark.parametrize("name", ["", "x" * 65, ".", "..", "memory", "MEMORY", "memory-worktrees", "memory-backup-1",
                                  "memory-git-clone-tmp", "memory.checkout", "a.git", "a.LOCK", " a", "a ", "a/b", "ä"])
def test_8_3_a_name_that_clients_cannot_use_is_refused(api, name):
    assert "the name" in api.bad(422, "POST", "/v1/repositories", {"name": name})


def test_8_3_a_name_is_unique_and_bodies_are_judged(api):
    one = api.create()
    for name in (one["name"], one["name"].upper()):
        assert "choose another name" in api.bad(409, "POST", "/v1/repositories", {"name": name})
    for body in ({}, {"name": 7}, {"name": None}, []):
        assert "'body'" in api.bad(422, "POST", "/v1/repositories", body)
    assert api.ask("POST", "/v1/repositories", None).status == 422


def test_8_2_delete_is_soft_and_restore_brings_back_files_and_links(api):
    one, agent = api.create(), new_agent()
    tip = api.put(one["id"], "a.md", "kept")["commit_sha"]
    api.attach(agent, one["id"], "read")
    assert api.good("DELETE", f"/v1/repositories/{one['id']}") == {"success": True}
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/files"), ("GET", "/files/content?path=a.md"),
                         ("GET", "/versions"), ("GET", f"/versions/{tip}?path=a.md")):
        assert api.bad(404, method, f"/v1/repositories/{one['id']}{rest}") == "Repository not found"
    assert api.bad(404, "POST", f"/v1/repositories/{one['id']}/files", {"path": "b", "content": ""})
    assert api.bad(404, "POST", f"/v1/agents/{agent}/repositories", {"repository_id": one["id"]})
    assert api.links(agent) == []
    assert api.server.get(f"/v1/git/{agent}/repositories/{one['name']}.git/info/refs?service=git-upload-pack").status == 404
    assert api.server.get(f"/v1/git/{one['id']}/state.git/info/refs?service=git-upload-pack").status == 404
    deleted = api.good("GET", "/v1/repositories?deleted=true&limit=0")["repositories"]
    (found,) = [r for r in deleted if r["id"] == one["id"]]
    assert found["name"] == one["name"] and found["updated_at"] > one["updated_at"]
    assert one["id"] not in [r["id"] for r in api.good("GET", "/v1/repositories?limit=0")["repositories"]]
    other = api.create(one["name"])     # the name is free meanwhile
    assert "delete that one" in api.bad(409, "POST", f"/v1/repositories/{one['id']}/restore")
    api.good("DELETE", f"/v1/repositories/{other['id']}")
    again = api.good("POST", f"/v1/repositories/{one['id']}/restore")
    assert (again["id"], again["name"], again["created_at"]) == (one["id"], one["name"], one["created_at"])
    assert api.read(one["id"], "a.md")["content"] == "kept"
    assert api.links(agent) == [{"id": one["id"], "name": one["name"], "is_primary": False, "permissions": "read"}]
    assert "not deleted" in api.bad(404, "POST", f"/v1/repositories/{one['id']}/restore")


def test_8_2_what_is_not_there_is_404(api):
    for bad in (f"repo-{uuid.uuid4()}", "repo-1", new_agent()):
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/files"), ("GET", "/versions")):
            assert api.bad(404, method, f"/v1/repositories/{bad}{rest}") == "Repository not found"
        assert api.bad(404, "POST", f"/v1/repositories/{bad}/restore")


# -- 8.2: files ------------------------------------------------------------------------------------

def test_8_2_files_are_created_read_changed_renamed_and_deleted(api, repo):
    text = "héllo ✓\n\t\"quoted\" \\ \r\n"
    made = api.put(repo, "docs/a b.md", text)
    assert list(made) == ["path", "content_sha256", "commit_sha"]
    assert made["content_sha256"] == sha(text)
    assert api.read(repo, "docs/a%20b.md") == {"path": "docs/a b.md", "content": text, "content_sha256": sha(text),
                                               "ref": made["commit_sha"]}
    changed = api.change(repo, path="docs/a b.md", content="")      # empty text is a value
    assert changed["content_sha256"] == sha("") and changed["path"] == "docs/a b.md"
    api.change(repo, path="docs/a b.md", content="two")
    moved = api.change(repo, path="docs/a b.md", new_path="b.md")
    assert moved["path"] == "b.md" and moved["content_sha256"] == sha("two")
    both = api.change(repo, path="b.md", new_path="c/d.md", content="three")
    assert both["path"] == "c/d.md" and both["content_sha256"] == sha("three")
    assert api.paths(repo) == [("c", "directory"), ("c/d.md", "file")]
    same = api.change(repo, path="c/d.md", content="three")         # nothing to change: no commit
    assert same["commit_sha"] == both["commit_sha"]
    assert api.change(repo, path="c/d.md", new_path="c/d.md")["commit_sha"] == both["commit_sha"]
    gone = api.good("DELETE", f"/v1/repositories/{repo}/files/content", {"path": "c/d.md"})
    assert list(gone) == ["success", "commit_sha"] and gone["success"] is True
    assert api.paths(repo) == []
    commits = api.versions(repo)["commits"]
    assert [c["message"] for c in commits] == [
        "Delete c/d.md", "Rename b.md to c/d.md", "Rename docs/a b.md to b.md", "Update docs/a b.md",
        "Update docs/a b.md", "Create docs/a b.md", "memfs: genesis"]
    assert commits[0]["sha"] == gone["commit_sha"] and commits[-1]["sha"] == GENESIS


def test_8_2_a_files_request_that_does_not_fit_changes_nothing(api, repo):
    files, content = f"/v1/repositories/{repo}/files", f"/v1/repositories/{repo}/files/content"
    tip = api.put(repo, "a.md", "one")["commit_sha"]
    api.put(repo, "b/c.md", "two")
    tip = api.versions(repo)["commits"][0]["sha"]
    cases = [
        (409, "POST", files, {"path": "a.md", "content": "x"}, "already"),
        (404, "POST", content, {"path": "no.md", "content": "x"}, "File not found"),
        (404, "POST", content, {"path": "b", "content": "x"}, "File not found"),
        (409, "POST", content, {"path": "a.md", "new_path": "b/c.md"}, "already"),
        (422, "POST", content, {"path": "a.md"}, "nothing is to be changed"),
        (404, "DELETE", content, {"path": "no.md"}, "File not found"),
        (404, "GET", content + "?path=no.md", None, "File not found"),
        (422, "GET", content, None, "path is needed"),
        (422, "POST", files, {"path": "n.md", "content": "a\0b"}, "NUL"),
        (422, "POST", files, {"path": "n.md"}, "content"),
        (422, "POST", files, {"content": "x"}, "path"),
        (422, "POST", files, {"path": "n.md", "content": None}, "content"),
        (422, "POST", files, {"path": "n.md", "content": ["x"]}, "content"),
        (422, "DELETE", content, {}, "path"),
        (422, "POST", content, {"path": "a.md", "content": "x", "precondition": {"type": "etag"}}, "precondition"),
        (422, "POST", content, {"path": "a.md", "content": "x", "precondition": "x"}, "precondition"),
    ]
    for bad in ("", "/a.md", "a/", "a//b", "../x", "a/../b", ".git/config", "a/.GIT/x", "x" * 300, "a\nb", ".gitmodules"):
        cases.append((422, "POST", files, {"path": bad, "content": "x"}, ""))
        if bad:
            cases.append((422, "POST", content, {"path": "a.md", "new_path": bad}, ""))
    for status, method, target, body, words in cases:
        assert words in api.bad(status, method, target, body), (method, target, body)
        count("shared", refused_requests=1)
    for whole in ("A.MD", "d/" * 70 + "x"):      # judged as a push is: a twin, and too deep
        assert api.ask("POST", files, {"path": whole, "content": "x"}).status == 403, whole
    assert api.ask("POST", files, {"path": "a.md/b", "content": "below a file"}).status == 422
    assert api.versions(repo)["commits"][0]["sha"] == tip
    assert api.paths(repo) == [("a.md", "file"), ("b", "directory"), ("b/c.md", "file")]


def test_H3_8_3_a_precondition_that_does_not_hold_overwrites_nothing(api, repo):
    api.put(repo, "a.md", "one")
    body = {"path": "a.md", "content": "two", "precondition": {"type": "content_sha256", "content_sha256": sha("zero")}}
    target = f"/v1/repositories/{repo}/files/content"
    words = api.bad(409, "POST", target, body)
    assert sha("one") in words and sha("zero") in words
    assert api.bad(409, "DELETE", target, {k: v for k, v in body.items() if k != "content"})
    assert api.read(repo, "a.md")["content"] == "one"
    body["precondition"]["content_sha256"] = sha("one")
    assert api.good("POST", target, body)["content_sha256"] == sha("two")
    assert api.read(repo, "a.md")["content"] == "two"


def test_H3_of_writers_at_once_with_one_precondition_one_wins(api, repo):
    api.put(repo, "n.md", "0")

    def add_one():
        for _ in range(40):
            now = api.read(repo, "n.md")
            answer = api.ask("POST", f"/v1/repositories/{repo}/files/content", {
                "path": "n.md", "content": str(int(now["content"]) + 1),
                "precondition": {"type": "content_sha256", "content_sha256": now["content_sha256"]}})
            if answer.status == 200:
                return
            assert answer.status == 409, answer
        raise AssertionError("never first")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(add_one) for _ in range(12)]:
            done.result()
    assert api.read(repo, "n.md")["content"] == "12"
    assert len(api.versions(repo, "?path=n.md&limit=0")["commits"]) == 13


def test_8_2_files_are_listed_below_a_prefix_and_to_a_depth(api, repo):
    old = api.put(repo, "a.md", "x")["commit_sha"]
    for path in ("docs/b.md", "docs/deep/er/c.md", "docs.md", "docsy/d.md"):
        api.put(repo, path, "x")
    assert api.paths(repo, "?depth=1") == [("a.md", "file"), ("docs.md", "file"), ("docs", "directory"),
                                           ("docsy", "directory")]
    below = [("docs/b.md", "file"), ("docs/deep", "directory"), ("docs/deep/er", "directory"),
             ("docs/deep/er/c.md", "file")]
    for prefix in ("docs", "docs/", "/docs"):
        assert api.paths(repo, f"?path_prefix={prefix}") == below
    assert api.paths(repo, "?path_prefix=docs&depth=2") == below[:3]
    assert api.paths(repo, "?path_prefix=docs/b.md") == [("docs/b.md", "file")]
    assert api.paths(repo, "?path_prefix=none") == []
    assert len(api.paths(repo)) == 5 + 4
    whole = api.good("GET", f"/v1/repositories/{repo}/files")
    assert whole["ref"] == api.versions(repo)["commits"][0]["sha"]
    for ref in (old, old[:12]):
        assert api.good("GET", f"/v1/repositories/{repo}/files?ref={ref}") == {
            "files": [{"path": "a.md", "type": "file"}], "ref": old}
    assert api.good("GET", f"/v1/repositories/{repo}/files?ref=main") == whole
    for ref in ("0" * 40, "zz", "HEAD~1", "../x", "refs/memfs/backup/x"):
        assert "There is no commit" in api.bad(404, "GET", f"/v1/repositories/{repo}/files?ref={ref}")
    assert "depth" in api.bad(422, "GET", f"/v1/repositories/{repo}/files?depth=0")
    assert api.server.get(f"/v1/repositories/{repo}/files?depth=x").status == 422


def test_8_2_versions_are_newest_first_and_give_old_text_back(api, repo):
    first = api.put(repo, "a.md", "one")["commit_sha"]
    api.put(repo, "b.md", "other")
    second = api.change(repo, path="a.md", content="two")["commit_sha"]
    gone = api.good("DELETE", f"/v1/repositories/{repo}/files/content", {"path": "a.md"})["commit_sha"]
    of_a = api.versions(repo, "?path=a.md")
    assert of_a["path"] == "a.md" and [c["sha"] for c in of_a["commits"]] == [gone, second, first]
    for c in of_a["commits"]:
        assert list(c) == ["sha", "message", "timestamp", "author_name"]
        assert TIME.fullmatch(c["timestamp"]) and c["author_name"]
    assert "path" not in api.versions(repo)
    assert len(api.versions(repo, "?limit=2")["commits"]) == 2 and len(api.versions(repo, "?limit=0")["commits"]) == 5
    assert api.versions(repo, "?path=never.md")["commits"] == []
    target = f"/v1/repositories/{repo}/versions/"
    assert api.good("GET", f"{target}{first}?path=a.md") == {"path": "a.md", "content": "one",
                                                            "content_sha256": sha("one"), "sha": first}
    assert api.good("GET", f"{target}{second}?path=a.md")["content"] == "two"
    assert api.bad(404, "GET", f"{target}{gone}?path=a.md") == "File not found"
    assert api.bad(404, "GET", f"{target}{'0' * 40}?path=a.md")
    assert api.bad(422, "GET", f"{target}{first}")
    assert api.read(repo, "a.md", f"&ref={second[:10]}")["content"] == "two"


def test_8_2_versions_default_to_twenty(api, repo):
    for i in range(21):
        api.put(repo, f"{i}.md", "x") if i == 0 else api.change(repo, path="0.md", content=str(i))
    assert len(api.versions(repo)["commits"]) == 20
    assert len(api.versions(repo, "?limit=100")["commits"]) == 22


def test_8_2_versions_are_never_more_than_a_thousand(api, folder):
    one, agent = api.create(), new_agent()
    api.attach(agent, one["id"])
    git([], ["clone", url_of(api.server, agent, one["name"]), "."], folder)
    stream = "".join(f"commit refs/heads/main\ncommitter a <a@example.com> {i} +0000\ndata 1\nm\n"
                     + ("from refs/heads/main^0\n" if i == 1 else "")
                     + f"M 100644 inline a.md\ndata <<.\n{i}\n.\n\n" for i in range(1, 1006))
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream.encode(), check=True)
    git([], ["push", "origin", "main"], folder)
    counts = [len(api.versions(one["id"], f"?limit={n}")["commits"]) for n in (0, 999, 1001, 10 ** 9)]
    assert counts == [1000, 999, 1000, 1000]


def test_8_2_the_reason_and_the_author_of_a_commit(server):
    token = server.token("admin")
    api = Api(server, {**bearer(token["token"]), "X-Memfs-Reason": "agreed \\o/ in the meeting" + "x" * 300})
    repo = api.create()["id"]
    api.put(repo, "a.md", "x")
    (commit, _) = api.versions(repo)["commits"]
    assert commit["author_name"] == f"token {token['id']}"
    subject, _, reason = commit["message"].partition("\n\n")
    assert subject == "Create a.md" and len(reason) <= 200
    assert reason.startswith("agreed \\\\o/ in the meetingxxx") and reason.endswith("...")


def test_8_3_ten_mebibytes_and_two_thousand_files(api, repo):
    most = "é\n" * ((10 << 20) // 3) + "x"
    assert len(most.encode()) == 10 << 20
    assert api.put(repo, "large.md", most)["content_sha256"] == sha(most)
    assert api.read(repo, "large.md")["content"] == most
    words = api.bad(413, "POST", f"/v1/repositories/{repo}/files", {"path": "over.md", "content": most + "x"})
    assert "over.md" in words
    assert api.bad(413, "POST", f"/v1/repositories/{repo}/files/content", {"path": "large.md", "content": most + "x"})
    many = api.create()["id"]
    objects = wire.Objects()
    blob = objects.blob(b"x")
    commit = objects.commit(objects.tree_of({f"f{i:04d}.md": blob for i in range(2000)}), [GENESIS])
    report = api.server.push_raw(many, [(GENESIS, commit, wire.MAIN)], objects.pack())
    assert report.acked, report
    assert "2000 are the most" in api.bad(409, "POST", f"/v1/repositories/{many}/files", {"path": "n.md", "content": ""})
    api.change(many, path="f0000.md", content="changed")
    api.good("DELETE", f"/v1/repositories/{many}/files/content", {"path": "f0001.md"})
    api.put(many, "n.md", "now there is room")


def test_8_2_what_is_no_text_is_not_shown(api, repo):
    objects = wire.Objects()
    files = {"bin": objects.blob(b"\xff\x00"), "a.md": objects.blob(b"text")}
    commit = objects.commit(objects.tree_of(files), [GENESIS])
    assert api.server.push_raw(repo, [(GENESIS, commit, wire.MAIN)], objects.pack()).acked
    assert "clone the repository" in api.bad(422, "GET", f"/v1/repositories/{repo}/files/content?path=bin")
    assert api.read(repo, "a.md")["content"] == "text"
    assert api.change(repo, path="bin", new_path="moved")["path"] == "moved"    # its bytes stay
    assert api.paths(repo) == [("a.md", "file"), ("moved", "file")]


# -- 8.2: links ------------------------------------------------------------------------------------

def test_8_2_links_are_attached_listed_and_detached_at_once(api):
    agent, other = new_agent(), new_agent()
    one, two = api.create(), api.create()
    own = api.good("GET", f"/v1/agents/{agent}/repositories")["repositories"]
    assert own == [{"id": own[0]["id"], "name": "memory", "is_primary": True, "permissions": "read_write"}]
    link = {"id": one["id"], "name": one["name"], "is_primary": False, "permissions": "read_write"}
    assert api.attach(agent, one["id"]) == {"success": True, "repository": link}
    assert api.links(agent) == [link] and api.links(other) == []
    read = {**link, "permissions": "read"}
    assert api.attach(agent, one["id"], "read")["repository"] == read
    assert api.attach(agent, one["id"])["repository"] == read       # what is not said stays
    api.attach(agent, two["id"], "read")
    assert [x["id"] for x in api.links(agent)] == [one["id"], two["id"]]
    assert api.good("DELETE", f"/v1/agents/{agent}/repositories/{one['id']}") == {"success": True}
    assert [x["id"] for x in api.links(agent)] == [two["id"]]
    for gone in (one["id"], f"repo-{uuid.uuid4()}", "x"):
        assert api.bad(404, "DELETE", f"/v1/agents/{agent}/repositories/{gone}") == "Repository link not found"
    target = f"/v1/agents/{agent}/repositories"
    assert api.bad(404, "POST", target, {"repository_id": f"repo-{uuid.uuid4()}"}) == "Repository not found"
    assert api.bad(404, "POST", target, {"repository_id": own[0]["id"]}) == "Repository not found"
    assert "permissions" in api.bad(422, "POST", target, {"repository_id": one["id"], "permissions": "write"})
    assert "repository_id" in api.bad(422, "POST", target, {})
    assert api.ask("POST", "/v1/agents/agent-1/repositories", {"repository_id": one["id"]}).status == 422


# -- 8.4: git --------------------------------------------------------------------------------------

def url_of(server, agent, name):
    return f"{server.url}/v1/git/{agent}/repositories/{name}.git"


def git(options, args, path, check=True, headers=AUTH):
    done = subprocess.run(
        [GIT, "-c", "http.extraHeader=Authorization: " + headers["Authorization"], "-c", "user.name=t",
         "-c", "user.email=t@example.com", *options, *args],
        cwd=path, env=git_env(path), capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, (args, done.stdout, done.stderr)
    return done


@pytest.mark.parametrize("version", [0, 2])
def test_8_4_real_git_clones_an_empty_one_pulls_and_pushes(api, folder, version):
    server, agent, other = api.server, new_agent(), new_agent()
    one = api.create()
    api.attach(agent, one["id"])
    api.attach(other, one["id"])
    v = ["-c", f"protocol.version={version}"]
    first, second = folder / "first", folder / "second"
    for path, who in ((first, agent), (second, other)):
        path.mkdir()
        git(v, ["clone", url_of(server, who, one["name"]), "."], path)      # as clients do
        assert git(v, ["pull", "--ff-only"], path).returncode == 0          # nothing new is no failure
        assert git(v, ["rev-parse", "HEAD"], path).stdout.strip() == GENESIS
        assert git(v, ["symbolic-ref", "HEAD"], path).stdout.strip() == "refs/heads/main"
    api.put(one["id"], "rest.md", "by REST")
    git(v, ["pull", "--ff-only"], first)
    assert (first / "rest.md").read_text() == "by REST"
    (first / "git.md").write_text("by git")
    git(v, ["add", "."], first)
    git(v, ["commit", "-qm", "from a checkout"], first)
    git(v, ["push"], first)
    git(v, ["pull", "--ff-only"], second)
    assert (second / "git.md").read_text() == "by git"
    assert api.read(one["id"], "git.md")["content"] == "by git"
    assert api.versions(one["id"])["commits"][0]["message"] == "from a checkout"
    (second / "late.md").write_text("x")        # a lost race is git's own refusal
    (first / "early.md").write_text("y")
    for path in (first, second):
        git(v, ["add", "."], path)
        git(v, ["commit", "-qm", "one more"], path)
    git(v, ["push"], first)
    lost = git(v, ["push"], second, check=False)
    assert lost.returncode == 1 and "failed to push some refs" in lost.stderr
    assert server.get("/v1/blocks?limit=0").json() == []       # nothing of it is a block


def test_8_4_a_link_for_reading_refuses_pushes_and_no_link_everything(api, folder):
    server, agent, stranger = api.server, new_agent(), new_agent()
    one = api.create()
    api.attach(agent, one["id"], "read")
    path = folder / "r"
    path.mkdir()
    git([], ["clone", url_of(server, agent, one["name"]), "."], path)
    (path / "a.md").write_text("x")
    git([], ["add", "."], path)
    git([], ["commit", "-qm", "x"], path)
    refused = git([], ["push"], path, check=False)
    assert refused.returncode != 0 and "403" in refused.stderr
    answer = server.get(f"/v1/git/{agent}/repositories/{one['name']}.git/info/refs?service=git-receive-pack")
    assert answer.status == 403 and "reading only" in answer.json()["message"]
    for name in (one["name"] + ".git", one["name"], "none.git", "memory.git", ".git"):
        answer = server.get(f"/v1/git/{stranger}/repositories/{name}/info/refs?service=git-upload-pack")
        assert answer.status == 404 and answer.json()["message"] == "Repository not found", name
    api.attach(agent, one["id"], "read_write")
    git([], ["push"], path)
    api.good("DELETE", f"/v1/agents/{agent}/repositories/{one['id']}")
    assert git([], ["pull"], path, check=False).returncode != 0
    assert api.read(one["id"], "a.md")["content"] == "x"


def test_8_4_the_body_of_a_push_is_refused_as_its_announcement_is(api):
    """A client that never asked for info/refs gets no further."""
    agent, one = new_agent(), api.create()
    objects = wire.Objects()
    commit = objects.commit(objects.tree_of({"a.md": objects.blob(b"x")}), [GENESIS])
    body = wire.push_body([(GENESIS, commit, wire.MAIN)], objects.pack(), wire.CAPS)
    head = {"Content-Type": "application/x-git-receive-pack-request"}
    target = f"/v1/git/{agent}/repositories/{one['name']}.git/git-receive-pack"
    assert api.server.request("POST", target, body, head).status == 404
    api.attach(agent, one["id"], "read")
    assert api.server.request("POST", target, body, head).status == 403
    assert api.versions(one["id"])["commits"][0]["sha"] == GENESIS
    api.attach(agent, one["id"], "read_write")
    assert b"ok refs/heads/main" in api.server.request("POST", target, body, head).body
    assert api.versions(one["id"])["commits"][0]["sha"] == commit


# -- who may (S1, S2) ------------------------------------------------------------------------------

class Rights:
    def __init__(self, server):
        self.server = server
        self.admin = Api(server, bearer(server.token("admin")["token"]))
        self.agent = new_agent()
        self.shared = {}
        for right in ("read", "read_write", None):
            one = self.admin.create(f"right-{right or 'none'}")
            self.admin.put(one["id"], "a.md", f"text of {right}")
            if right:
                self.admin.attach(self.agent, one["id"], right)
            self.shared[right] = one
        self.rw = Api(server, bearer(server.token(f"agent:{self.agent}:rw")["token"]))
        self.ro = Api(server, bearer(server.token(f"agent:{self.agent}:ro")["token"]))

    def of_repo(self, right, mode):
        return Api(self.server, bearer(self.server.token(f"repo:{self.shared[right]['id']}:{mode}")["token"]))


@pytest.fixture(scope="module")
def rights(memfs_bin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rights")
    folder.chmod(0o755)
    server = Server(memfs_bin, folder / "s").start()
    try:
        yield Rights(server)
        server.stop()
        server.check_clean()
    finally:
        server.kill()


READS = ["", "/files", "/files/content?path=a.md", "/versions", "/versions/{tip}?path=a.md"]


def read_all(api, one, admin):
    tip = admin.versions(one["id"])["commits"][0]["sha"]
    return [api.ask("GET", f"/v1/repositories/{one['id']}{r.format(tip=tip)}").status for r in READS]


def write_one(api, one):
    at = f"/v1/repositories/{one['id']}/files"
    name = uuid.uuid4().hex
    return [api.ask("POST", at, {"path": name, "content": "x"}).status,
            api.ask("POST", at + "/content", {"path": name, "content": "y"}).status,
            api.ask("DELETE", at + "/content", {"path": name}).status]


def test_S1_8_an_agents_token_may_what_its_links_say(rights):
    w = rights
    gone = w.admin.create("right-gone")
    w.admin.attach(w.agent, gone["id"])
    w.admin.good("DELETE", f"/v1/repositories/{gone['id']}")
    assert gone["id"] in json.dumps(w.admin.good("GET", "/v1/repositories?deleted=true&limit=1"))
    for api in (w.rw, w.ro):
        assert read_all(api, w.shared["read"], w.admin) == [200] * 5
        assert read_all(api, w.shared["read_write"], w.admin) == [200] * 5
        assert read_all(api, w.shared[None], w.admin) == [404] * 5
        assert [r["name"] for r in api.good("GET", "/v1/repositories")["repositories"]] == ["right-read", "right-read_write"]
        assert api.good("GET", "/v1/repositories?deleted=true") == {"repositories": [], "has_next_page": False}
        page = api.good("GET", "/v1/repositories?limit=1")
        assert len(page["repositories"]) == 1 and page["has_next_page"]
    assert write_one(w.rw, w.shared["read_write"]) == [200] * 3
    assert write_one(w.rw, w.shared["read"]) == [403] * 3
    assert write_one(w.rw, w.shared[None]) == [404] * 3
    for right in w.shared:
        assert write_one(w.ro, w.shared[right]) == [403] * 3
    for api in (w.rw, w.ro):
        for method, target, body in (
                ("POST", "/v1/repositories", {"name": "mine"}),
                ("DELETE", f"/v1/repositories/{w.shared['read_write']['id']}", None),
                ("POST", f"/v1/repositories/{w.shared['read_write']['id']}/restore", None),
                ("POST", f"/v1/agents/{w.agent}/repositories", {"repository_id": w.shared[None]["id"]}),
                ("DELETE", f"/v1/agents/{w.agent}/repositories/{w.shared['read']['id']}", None)):
            assert api.ask(method, target, body).status == 403, (method, target)
    author = w.admin.versions(w.shared["read_write"]["id"])["commits"][0]["author_name"]
    assert author.startswith("token ")


def test_S1_8_one_without_a_link_is_as_if_it_were_not_there(rights):
    w, unknown = rights, f"repo-{uuid.uuid4()}"
    there = w.shared[None]["id"]
    for api in (w.rw, w.ro, w.of_repo("read", "rw"), w.of_repo("read", "ro")):
        for method, rest, body in [("GET", r.format(tip=GENESIS), None) for r in READS] + [
                ("POST", "/files", {"path": "n", "content": "x"}),
                ("POST", "/files/content", {"path": "a.md", "content": "x"}),
                ("DELETE", "/files/content", {"path": "a.md"}), ("DELETE", "", None), ("POST", "/restore", None)]:
            seen = [api.ask(method, f"/v1/repositories/{r}{rest}", body) for r in (there, unknown)]
            heads = [{k: v for k, v in a.headers.items() if k not in ("date", "x-request-id")} for a in seen]
            assert (seen[0].status, heads[0], seen[0].body.replace(there.encode(), unknown.encode())) == (
                seen[1].status, heads[1], seen[1].body), (method, rest)
            count("shared", twins=1)


def test_S1_8_4_git_with_an_agents_token_goes_by_its_link(rights):
    w = rights
    for right, want in (("read", (200, 403)), ("read_write", (200, 200)), (None, (404, 404))):
        at = f"/v1/git/{w.agent}/repositories/right-{right or 'none'}.git/info/refs?service=git-"
        assert tuple(w.rw.ask("GET", at + s).status for s in ("upload-pack", "receive-pack")) == want
        assert [w.ro.ask("GET", at + s).status for s in ("upload-pack", "receive-pack")] == [want[0], 403]
        # a link is an agent's: also an admin, who asks as the agent, is held to it
        assert tuple(w.admin.ask("GET", at + s).status for s in ("upload-pack", "receive-pack")) == want
    at = f"/v1/git/{new_agent()}/repositories/right-read.git/info/refs?service=git-upload-pack"
    foreign = w.rw.ask("GET", at)
    assert foreign.status == 404 and "Agent with ID" in foreign.json()["detail"]
    none = Client(w.server).ask("GET", f"/v1/git/{w.agent}/repositories/right-read.git/info/refs?service=git-upload-pack")
    assert none[0] == 401 and none[1]["www-authenticate"].startswith("Basic ")


def test_S1_a_repositorys_token_opens_that_one_and_nothing_else(rights):
    w = rights
    rw, ro = w.of_repo("read", "rw"), w.of_repo("read", "ro")
    own = w.shared["read"]
    for api in (rw, ro):
        assert read_all(api, own, w.admin) == [200] * 5
        assert read_all(api, w.shared["read_write"], w.admin) == [404] * 5
        assert api.good("GET", "/v1/repositories")["repositories"] == [w.admin.good("GET", f"/v1/repositories/{own['id']}")]
        assert api.good("GET", "/v1/blocks") == [] and api.good("GET", "/v1/agents") == []
        assert api.good("GET", "/v1/agents/count") == 0
        assert api.ask("GET", f"/v1/agents/{w.agent}/repositories").status == 404
        assert api.ask("POST", "/v1/repositories", {"name": "x"}).status == 403
        git_at = "/v1/git/{}/state.git/info/refs?service=git-{}"
        assert api.ask("GET", git_at.format(own["id"], "upload-pack")).status == 200
        assert api.ask("GET", git_at.format(w.shared["read_write"]["id"], "upload-pack")).status == 404
        assert api.ask("GET", git_at.format(w.agent, "upload-pack")).status == 404
    assert write_one(rw, own) == [200] * 3 and write_one(ro, own) == [403] * 3
    assert rw.ask("GET", git_at.format(own["id"], "receive-pack")).status == 200
    assert ro.ask("GET", git_at.format(own["id"], "receive-pack")).status == 403
    assert w.admin.ask("GET", git_at.format(f"repo-{uuid.uuid4()}", "upload-pack")).status == 404
    scopes = w.server.cli("token", "create", "--scope", "repo:repo-1:rw", check=False)
    assert scopes.returncode != 0 and b"repo:ID:rw" in scopes.stderr


def test_read_only_files_hold_for_agents_tokens_here_too(rights):
    w, one = rights, rights.shared["read_write"]["id"]
    w.admin.put(one, "rules.md", "---\nread_only: true\n---\nnever\n")
    body = {"path": "rules.md", "content": "changed"}
    assert "read_only" in w.rw.bad(403, "POST", f"/v1/repositories/{one}/files/content", body)
    assert "read_only" in w.rw.bad(403, "DELETE", f"/v1/repositories/{one}/files/content", {"path": "rules.md"})
    w.admin.change(one, **body)


# -- the home's own care ---------------------------------------------------------------------------

def test_D5_K1_verify_rebuild_backup_and_purge_know_them(servers, folder):
    server = servers()
    api = Api(server)
    one, empty, gone = (api.create(n) for n in ("notes", "empty", "gone"))
    agent = new_agent()
    api.attach(agent, one["id"], "read")
    api.put(one["id"], "a.md", "public")
    api.put(one["id"], "s.md", "a secret that leaked")
    api.put(gone["id"], "x.md", "x")
    api.good("DELETE", f"/v1/repositories/{gone['id']}")
    for command in (["verify"], ["verify", "--agent", one["id"]], ["rebuild"], ["repack"]):
        server.cli(*command)
    server.stop()
    server.lose_blocks()
    server.start()
    server.cli("verify")
    assert api.read(one["id"], "a.md")["content"] == "public"
    server.cli("backup", folder / "b")
    server.rewrites_allowed = True
    server.cli("purge", "--agent", one["id"], "--secret-stdin", input=b"secret that leaked\n")
    assert api.read(one["id"], "s.md")["content"] == "a [purged]"
    assert api.ask("POST", f"/v1/repositories/{one['id']}/files", {"path": "t.md", "content": "a secret that leaked"}
                   ).status == 403
    assert api.read(one["id"], "a.md")["content"] == "public"
    back = servers("back", start=False)
    back.cli("restore", "--from", folder / "b")
    back.start()
    again = Api(back)
    assert [r["name"] for r in again.good("GET", "/v1/repositories")["repositories"]] == ["notes", "empty"]
    assert again.read(one["id"], "s.md")["content"] == "a secret that leaked"
    assert again.links(agent) == [{"id": one["id"], "name": "notes", "is_primary": False, "permissions": "read"}]
    again.good("POST", f"/v1/repositories/{gone['id']}/restore")
    assert again.read(gone["id"], "x.md")["content"] == "x"


def test_L2_D1_after_a_kill_everything_is_there(servers):
    server = servers()
    server.expected_codes = (0, -9)
    api = Api(server)
    one, agent = api.create("notes"), new_agent()
    api.attach(agent, one["id"], "read_write")
    for i in range(5):
        api.put(one["id"], f"{i}.md", str(i))
    tip = api.versions(one["id"])["commits"][0]["sha"]
    server.kill()
    server.start()
    assert api.versions(one["id"])["commits"][0]["sha"] == tip
    assert api.links(agent)[0]["permissions"] == "read_write"
    assert [p for p, _ in api.paths(one["id"])] == [f"{i}.md" for i in range(5)]


def test_H4_one_whose_folder_is_gone_is_503_and_never_begun_anew(servers):
    server = servers(watch=False)
    api = Api(server)
    one = api.create("notes")
    api.put(one["id"], "a.md", "x")
    folder = os.path.join(server.home, "shared", ORG, one["id"])
    server.stop()
    os.rename(folder, folder + ".away")
    server.start()
    for method, rest, body in (("GET", "/files", None), ("POST", "/files", {"path": "b.md", "content": "x"})):
        assert api.ask(method, f"/v1/repositories/{one['id']}{rest}", body).status == 503
    assert server.get(f"/v1/git/{one['id']}/state.git/info/refs?service=git-upload-pack").status == 503
    assert not os.path.exists(folder)
    server.stop()
    shutil.move(folder + ".away", folder)
    server.start()
    assert api.read(one["id"], "a.md")["content"] == "x"


# -- several servers, and a Letta server -----------------------------------------------------------

@pytest.mark.sqlite     # the suite over PostgreSQL has nothing to add to it
def test_8_several_servers_have_the_same_ones_at_once(memfs_bin, folder):
    """What one server did, the next request to another one sees: names, links, files, and what was taken away."""
    with Cluster(memfs_bin, folder, n=2) as c:
        first, second = (Api(s) for s in c.servers)
        one, agent = first.create("notes"), new_agent()
        assert second.good("GET", "/v1/repositories")["repositories"] == [one]
        second.attach(agent, one["id"], "read")
        assert first.links(agent)[0]["permissions"] == "read"
        at = f"/v1/git/{agent}/repositories/notes.git/info/refs?service=git-"
        assert [first.ask("GET", at + s).status for s in ("upload-pack", "receive-pack")] == [200, 403]
        for i in range(3):      # by turns, each on top of the other's
            (first, second)[i % 2].put(one["id"], f"{i}.md", str(i))
        for api in (first, second):
            assert [p for p, _ in api.paths(one["id"])] == ["0.md", "1.md", "2.md"]
            assert len(api.versions(one["id"])["commits"]) == 4
        assert second.bad(409, "POST", "/v1/repositories", {"name": "Notes"})
        first.good("DELETE", f"/v1/agents/{agent}/repositories/{one['id']}")
        assert second.ask("GET", at + "upload-pack").status == 404
        second.good("DELETE", f"/v1/repositories/{one['id']}")
        assert first.ask("GET", f"/v1/repositories/{one['id']}").status == 404
        first.good("POST", f"/v1/repositories/{one['id']}/restore")
        assert second.read(one["id"], "1.md")["content"] == "1"
        c.finish()


@pytest.mark.sqlite     # the suite over PostgreSQL has nothing to add to it
def test_8_in_front_of_a_letta_server_its_check_opens_them(servers):
    up = Upstream().start()
    try:
        up.password = "s3cret-" + uuid.uuid4().hex
        agent = new_agent()
        up.agents.add(agent)
        listing = "/v1/agents/"
        up.handlers[listing] = lambda c, r: (
            c.json(200, []) if r.all("Authorization") == ["Bearer " + up.password] else c.json(401, {}), True)[1]
        server = servers(args=["--upstream", up.url])
        server.secrets.append(up.password.encode())
        good, bad = Api(server, bearer(up.password)), Api(server, bearer("nope"))
        assert bad.ask("GET", "/v1/repositories").status == 401
        assert bad.ask("POST", "/v1/repositories", {"name": "notes"}).status == 401
        one = good.create("notes")
        assert good.good("GET", "/v1/repositories")["repositories"] == [one]
        good.attach(agent, one["id"], "read")
        assert bad.ask("DELETE", f"/v1/agents/{agent}/repositories/{one['id']}").status == 401
        good.put(one["id"], "a.md", "x")
        assert bad.ask("GET", f"/v1/repositories/{one['id']}/files").status == 401
        at = f"/v1/git/{agent}/repositories/notes.git/info/refs?service=git-"
        assert [good.ask("GET", at + s).status for s in ("upload-pack", "receive-pack")] == [200, 403]
        assert bad.ask("GET", at + "upload-pack").status == 401
        assert good.ask("GET", at.replace(agent, new_agent()) + "upload-pack").status == 404
        assert good.ask("GET", f"/v1/git/{one['id']}/state.git/info/refs?service=git-upload-pack").status == 200
        # another user of that server has an organization of his own
        other = Api(server, {**bearer(up.password), "user_id": f"user-{uuid.uuid4()}"})
        assert other.ask("GET", "/v1/repositories").status == 403
        default = {**bearer(up.password), "user_id": "user-00000000-0000-4000-8000-000000000000"}
        assert Api(server, default).ask("GET", "/v1/repositories").status == 200
        # memfs' own tokens beside it
        own = Api(server, bearer(server.token(f"agent:{agent}:rw")["token"]))
        assert own.good("GET", "/v1/repositories")["repositories"] == [one]
        assert own.ask("POST", f"/v1/repositories/{one['id']}/files", {"path": "b.md", "content": "x"}).status == 403
        # what says yes to everything is no Letta server, and one that is away is no yes
        up.handlers[listing] = lambda c, r: (c.json(200, {"ok": True}), True)[1]
        assert Api(server, bearer("fresh")).ask("GET", "/v1/repositories").status == 503
        assert not any(r.path.startswith("/v1/repositories") for r in up.requests)
        assert not any("memfs_" in v for r in up.requests for _, v in r.fields)
    finally:
        up.stop()
    assert not up.faults, up.faults


@pytest.fixture
def own_pg(folder):
    with Postgres(folder / "pg") as pg:
        yield pg


@pytest.mark.sqlite     # the suite over PostgreSQL has nothing to add to it
def test_F22_without_the_database_they_wait_and_are_never_not_there(own_pg, servers):
    """Links are in the database, so nobody is let in, or told that there is nothing, while it is away."""
    server = servers(env={"MEMFS_DATABASE": own_pg.database("memfs")})
    api, agent = Api(server), new_agent()
    one = api.create("notes")
    api.attach(agent, one["id"])
    api.put(one["id"], "a.md", "x")
    own_pg.crash()
    for target in ("/v1/repositories", f"/v1/repositories/{one['id']}", f"/v1/repositories/{one['id']}/files",
                   f"/v1/git/{agent}/repositories/notes.git/info/refs?service=git-upload-pack"):
        answer = server.get(target)
        assert answer.status == 503 and answer.headers["retry-after"], (target, answer)
    own_pg.start()
    wait_until(lambda: api.ask("GET", "/v1/repositories").status == 200, "the database is back")
    api.put(one["id"], "b.md", "y")
    assert [p for p, _ in api.paths(one["id"])] == ["a.md", "b.md"]
