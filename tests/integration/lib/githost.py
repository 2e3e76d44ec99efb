"""Gitea, Forgejo, GitHub and GitLab: peers that serve real repositories, each with its own manners.

    with GitHost(folder, "gitea") as h:            # or "forgejo", "github" (as Enterprise Server), "gitlab"
        h.account("bot"); h.group("agents", bot="owner")      # an organisation; GitLab: a group, "a/b" too
        t = h.token("bot")                         # text of a token that may do everything memfs wants …
        t = h.token("bot", scopes=["read:repository"], expires="2027-01-31")       # … or just this
        r = h.repository("agents/agent-1")         # private, empty, on disk: r is its path
        url = h.url("agents/agent-1.git")
        h.hook("agents/agent-1", "http://127.0.0.1:8285/webhooks/gitea", secret="s")
        h.edit("agents/agent-1", {"system/a.md": "text"})     # the web editor: a commit, and its webhooks
        h.tip("agents/agent-1")                    # id of main, or None
        h.delete_branch("agents/agent-1"); h.set_main("agents/agent-1", id)  # what owners do; with webhooks
        h.rename("agents/agent-1", "agents/other") # the old name answers 301 (GitHub, GitLab; Gitea too)
        h.protect("agents/agent-1")                # pushes to main are refused in the host's own words
        h.protect("agents/agent-1", "secret")      # GitHub: GH013 secret scanning; None: free again
        h.forced()                                 # pushes that were no fast-forward, or deleted: []

Options of GitHost: tls=context (lib/tlsgit.py), host="127.0.0.1" (listens there), port=0, version="…",
push_create=True (Gitea's ENABLE_PUSH_CREATE_*; GitLab always), require_sign_in=True (Gitea), page=50 (most
rows of a page), prefix="/git" (Gitea below a folder), signing=True (GitLab 19: secrets "whsec_…" sign).

Scopes: Gitea's and GitLab's by name; GitHub's classic ones by name ("repo"), those of a fine-grained token
as "administration:write", "contents:read", "webhooks:write".

Faults, until h.mend(); `where` is "api", "git" (all of git), "refs", "fetch", "push" (both requests), "any":
    h.fault(status=503, headers={"Retry-After": "7"}, where="git", times=3)     # or seconds=2.5
    h.fault(status=403, echo=True)     # the error's body repeats the request's headers, token and all
    h.fault(html=True)                 # 200 with a web page
    h.fault(hang=True) / h.fault(drip=True) / h.fault(cut=100) / h.fault(reset=100)   # 100 bytes into the answer
    h.limit(0, reset_s=30)             # rate limit: so many API calls are left
    h.delay_s = 0.2                    # before every answer
    h.break_at(…), h.say(…)            # of lib/fake_remote.py work too

Webhooks are sent as the host sends them, once, and never again by themselves:
    h.deliveries                       # Delivery(event, url, headers, body, status, error), in order of sending
    h.redeliver(h.deliveries[0])       # by hand: GitHub with the same id, GitLab with the same Idempotency-Key
    h.hooks_lost = True                # none is sent;  h.hooks_delay_s = 1: later
    h.settle()                         # waits until all were sent
    h.requests                         # Request(method, target, headers, body) of what came

Killed and begun again, on the same port, with all its accounts and repositories (folder/host.json):
    h.stop(); h.start()
In a process of its own, in another network namespace:
    python3 -m lib.githost FOLDER [--listen 10.0.0.9] [--port 3000] [--cert PEM --key PEM]
(prepare it with GitHost(folder, kind, serve=False); it prints "ready PORT"; what came is in FOLDER/requests.log)
"""
import argparse
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time

from . import githost_api, githost_hooks
from .fake_remote import HTML, Answer, FakeRemote, Gone, Request
from .patience import wait

ZERO = "0" * 40
VERSIONS = {"gitea": "1.26.0", "forgejo": "13.0.2+gitea-1.22.0", "github": "3.17.2", "gitlab": "18.5.1-ee"}
TOKENS = {"gitea": lambda: secrets.token_hex(20), "forgejo": lambda: secrets.token_hex(20),
          "github": lambda: "ghp_" + secrets.token_hex(18), "gitlab": lambda: "glpat-" + secrets.token_hex(10)}
ALL_SCOPES = {"gitea": ["write:repository", "write:user", "write:organization"],
              "github": ["repo", "read:org"], "gitlab": ["api"]}
ALL_SCOPES["forgejo"] = ALL_SCOPES["gitea"]
LEVELS = {"read": 1, "write": 2, "owner": 3}
READ, WRITE, OWNER = 1, 2, 3


class GitHost(FakeRemote):
    def __init__(self, folder, kind="gitea", tls=None, host="127.0.0.1", port=0, serve=True, **options):
        self.folder, self.kind = os.path.abspath(str(folder)), kind
        self.root, self.tls, self.host = os.path.join(self.folder, "repositories"), tls, host
        self.token_wanted, self.create, self.map = None, False, None
        self.answer, self.fault_rows, self._fault = None, [], None
        self.requests, self.handshakes_failed = [], 0
        self.lock = threading.RLock()
        self.connections, self.children = set(), set()
        self.delay_s, self.hooks_lost, self.hooks_delay_s = 0, False, 0
        self.rate_left, self.rate_reset = None, 0
        self.deliveries, self.sending, self.deleted = [], [], []
        self.request_log = None
        os.makedirs(self.root, exist_ok=True)
        self._load(kind, options)
        self.port = port
        if serve:
            self.start()

    # -- who and what there is ------------------------------------------------------------------------

    def account(self, login):
        with self.changing() as s:
            s["accounts"].setdefault(login, {"id": self._id(), "email": login + "@example.com"})
        return login

    def group(self, path, members_create=False, **members):
        with self.changing() as s:
            g = s["groups"].setdefault(path, {"id": self._id(), "members": {}, "members_create": False})
            g["members_create"] = members_create
            g["members"].update({login: LEVELS[level] for login, level in members.items()})
        return path

    def token(self, login, scopes=None, expires=None, text=None, repositories=None, name="t"):
        """expires: "2027-01-31", or a time with which the token is refused already when it is past."""
        fine = scopes is not None and self.kind == "github" and any(":" in s and s.split(":")[1] in (
            "read", "write") for s in scopes)
        text = text or ("github_pat_" + secrets.token_hex(20) if fine else TOKENS[self.kind]())
        with self.changing() as s:
            s["tokens"][text] = {"login": self.account(login), "expires": expires, "active": True,
                                 "scopes": list(ALL_SCOPES[self.kind] if scopes is None else scopes),
                                 "repositories": repositories, "fine": fine, "name": name}
        return text

    def revoke(self, text):
        with self.changing() as s:
            s["tokens"][text]["active"] = False

    def repository(self, full, private=True, owner=None, format="sha1", **collaborators):
        """The path of the bare repository; made, empty, if it is not there."""
        full = self._strip(full)
        with self.lock:
            if full not in self.state["repos"]:
                self._make_bare(full, format)
                with self.changing() as s:
                    s["renamed"].pop(full, None)
                    s["repos"][full] = {"id": self._id(), "private": private, "hooks": [], "protect": None,
                                        "collaborators": {}, "description": ""}
            with self.changing() as s:
                s["repos"][full]["collaborators"].update(
                    {k: LEVELS[v] for k, v in collaborators.items()})
        return self.path(full)

    def remove(self, full):
        with self.changing() as s:
            s["repos"].pop(full)
            shutil.rmtree(self.path(full))

    def rename(self, old, new):
        with self.changing() as s:
            s["repos"][new] = s["repos"].pop(old)
            s["renamed"][old] = new
            os.makedirs(os.path.dirname(self.path(new)), exist_ok=True)
            os.rename(self.path(old), self.path(new))

    def hook(self, full, url, secret="", events=("push", "create", "delete"), **more):
        """more: form=True (Gitea, GitHub: urlencoded), branch_filter="main", authorization="Bearer x" (Gitea)."""
        with self.changing() as s:
            hook = {"id": self._id(), "url": url, "secret": secret, "events": list(events), "active": True,
                    "uuid": githost_hooks.new_id(), **more}
            s["repos"][full]["hooks"].append(hook)
        return hook["id"]

    def protect(self, full, why="protected"):
        with self.changing() as s:
            s["repos"][full]["protect"] = why
        self._write_pre_receive(full)

    def path(self, full):
        return os.path.join(self.root, self._strip(full) + ".git")

    def url(self, path="", host=None):
        prefix = self.state["options"].get("prefix", "")
        return super().url(prefix.lstrip("/") + "/" + path.lstrip("/"), host)

    # -- what people do there -------------------------------------------------------------------------

    def tip(self, full, ref="refs/heads/main"):
        got = self.git(full, "rev-parse", "-q", "--verify", ref, check=False).stdout.decode().strip()
        return got or None

    def edit(self, full, files, message="Edited on the web", login="bot", branch="main"):
        """files: path -> text, None deletes.  Returns the commit."""
        old = self.tip(full, "refs/heads/" + branch)
        index = os.path.join(self.folder, "index-%d" % threading.get_ident())
        env = {"GIT_INDEX_FILE": index, "GIT_AUTHOR_NAME": login, "GIT_AUTHOR_EMAIL": login + "@example.com",
               "GIT_COMMITTER_NAME": "web", "GIT_COMMITTER_EMAIL": "noreply@example.com"}
        self.git(full, "read-tree", *([old] if old else ["--empty"]), env=env)
        for path, text in files.items():
            if text is None:
                self.git(full, "update-index", "--force-remove", "--", path, env=env)
                continue
            data = text if isinstance(text, bytes) else text.encode()
            blob = self.git(full, "hash-object", "-w", "--stdin", input=data).stdout.decode().strip()
            self.git(full, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=env)
        tree = self.git(full, "write-tree", env=env).stdout.decode().strip()
        os.unlink(index)
        new = self.git(full, "commit-tree", tree, *(["-p", old] if old else []), "-m", message,
                       env=env).stdout.decode().strip()
        self._move(full, "refs/heads/" + branch, old, new, login)
        return new

    def set_main(self, full, new, login="bot"):
        """A force push of somebody else, or a push of a commit that is there already."""
        self._move(full, "refs/heads/main", self.tip(full), new, login)

    def delete_branch(self, full, branch="main", login="bot"):
        self._move(full, "refs/heads/" + branch, self.tip(full, "refs/heads/" + branch), None, login)

    def _move(self, full, ref, old, new, login):
        if new is None:
            self._keep_reflog(full, ref)
        self.git(full, "update-ref", "-m", "web", *(["-d", ref] if new is None else [ref, new]),
                 *([old] if old else [ZERO] if new else []))
        githost_hooks.pushed(self, full, [(old or ZERO, new or ZERO, ref)], login)

    def forced(self):
        """(repository, ref, old, new) of every move by a push that was no fast-forward, or a deletion.
        Reflogs tell, so a push whose host was killed is in it; what edit, set_main and delete_branch
        did is not."""
        found = []
        for full in list(self.state["repos"]):
            for ref, text in self._reflogs(full):
                rows = [line.partition("\t") for line in text.splitlines()]
                moves = [row[0].split(" ", 2)[:2] for row in rows if row[2] == "push"]
                found += [(full, ref, old, new) for old, new in moves if old != ZERO and (
                    new == ZERO or self.git(full, "merge-base", "--is-ancestor", old, new,
                                            check=False).returncode)]
        return found + [m for m in self.deleted if m[0] in self.state["repos"]]

    def _reflogs(self, full):
        """(ref, text); git removes a ref's log with the ref, delete_branch keeps it."""
        for kept in ("logs/refs", "logs-of-deleted/refs"):
            for at, _, names in os.walk(os.path.join(self.path(full), kept)):
                for name in names:
                    path = os.path.join(at, name)
                    with open(path) as f:
                        yield path[path.index("/refs/") + 1:], f.read()

    def _keep_reflog(self, full, ref):
        path, kept = (os.path.join(self.path(full), k, ref) for k in ("logs", "logs-of-deleted"))
        if os.path.exists(path):
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            with open(path) as f, open(kept, "a") as out:
                out.write(f.read())

    # -- faults ---------------------------------------------------------------------------------------

    def fault(self, where="any", times=None, seconds=None, **what):
        """what: status, headers, body, type; html, echo, hang, drip, cut, reset."""
        self.fault_rows.append({"where": where, "times": times, "what": what,
                                "until": time.monotonic() + seconds if seconds else None})
        return self

    def limit(self, left, reset_s=3600):
        self.rate_left, self.rate_reset = left, int(time.time()) + reset_s

    def mend(self):
        self.fault_rows, self.rate_left, self.delay_s, self.answer, self._fault = [], None, 0, None, None
        return self

    def break_at(self, kind, n, how="cut", times=1 << 30):
        self._fault = {"kind": kind, "at": n, "how": how, "times": times}
        return self

    def redeliver(self, delivery):
        githost_hooks.again(self, delivery)

    def settle(self, timeout=60):
        wait(lambda: not self.sending, "every webhook is sent", timeout)

    # -- life -----------------------------------------------------------------------------------------

    def start(self):
        import socket
        self.stopping = threading.Event()
        for i in range(100):
            try:
                self.listener = socket.create_server((self.host, self.port), backlog=256)
                break
            except OSError:
                if i == 99 or not self.port:
                    raise
                time.sleep(0.05)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()
        return self

    def stop(self):
        """As a kill: connections end in the middle, and so do the gits behind them."""
        self.close()
        with self.lock:
            children = list(self.children)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        for full in list(self.state["repos"]):     # as the host's own start would do
            for at, _, names in os.walk(self.path(full)):
                for name in names:
                    if name.endswith(".lock"):
                        os.unlink(os.path.join(at, name))

    def _load(self, kind, options):
        self.state_file = os.path.join(self.folder, "host.json")
        self.state = {"kind": kind, "next_id": 1, "accounts": {}, "groups": {}, "tokens": {}, "repos": {},
                      "renamed": {}, "options": options}
        if os.path.exists(self.state_file):
            with open(self.state_file) as f:
                self.state = json.load(f)
            self.state["options"].update(options)
        self.kind = self.state["kind"]
        self.version = self.state["options"].get("version") or VERSIONS[self.kind]

    @contextlib.contextmanager
    def changing(self):
        with self.lock:
            yield self.state
            with open(self.state_file + ".new", "w") as f:
                json.dump(self.state, f)
            os.rename(self.state_file + ".new", self.state_file)

    def _id(self):
        self.state["next_id"] += 1
        return self.state["next_id"]

    # -- rights ---------------------------------------------------------------------------------------

    def is_family(self):
        return self.kind in ("gitea", "forgejo")

    def seen(self, text):
        """The token of a text, or None: unknown, revoked, expired."""
        t = self.state["tokens"].get(text or "")
        if t is None or not t["active"] or self.expired(t):
            return None
        return t

    @staticmethod
    def expired(t):
        return bool(t["expires"]) and t["expires"] <= time.strftime("%Y-%m-%d")

    def level(self, login, full):
        """0: does not see it; READ, WRITE, OWNER."""
        r = self.state["repos"].get(full)
        if r is None:
            return 0
        owner = full.rpartition("/")[0]
        return max(0 if r["private"] else READ, r["collaborators"].get(login, 0),
                   OWNER if owner == login else self.group_level(login, owner))

    def group_level(self, login, path):
        parts = path.split("/")
        prefixes = ["/".join(parts[:i + 1]) for i in range(len(parts))]
        return max([self.state["groups"][p]["members"].get(login, 0) for p in prefixes
                    if p in self.state["groups"]] + [0])

    def may_create(self, login, owner):
        if owner in self.state["accounts"]:
            return owner == login
        group = self.state["groups"].get(owner)
        level = self.group_level(login, owner)
        return group is not None and (level == OWNER or (level >= WRITE and (
            group["members_create"] or self.kind == "gitlab")))

    def scope(self, t, wanted):
        """Has the token this scope?  A write scope of Gitea has the read scope in it."""
        if "all" in t["scopes"] or wanted in t["scopes"]:
            return True
        return wanted.startswith("read:") and "write:" + wanted[5:] in t["scopes"]

    def git_right(self, t, full):
        """What the token may do in the repository by git: the account's level, cut by the scopes."""
        level = self.level(t["login"], full)
        if t["repositories"] is not None and full not in t["repositories"]:
            return READ if level and not self.state["repos"][full]["private"] else 0
        if self.is_family():
            allowed = OWNER if self.scope(t, "write:repository") else READ if self.scope(
                t, "read:repository") else 0
        elif self.kind == "github" and t["fine"]:
            allowed = OWNER if "contents:write" in t["scopes"] else READ if "contents:read" in t["scopes"] else 0
        elif self.kind == "github":
            allowed = OWNER if "repo" in t["scopes"] else 0
        else:
            s = set(t["scopes"])
            allowed = OWNER if s & {"api", "write_repository"} else READ if s & {"read_repository"} else 0
        return min(level, allowed)

    # -- one request ----------------------------------------------------------------------------------

    def _exchange(self, c):
        rest = b""
        while not self.stopping.is_set():
            rq = self._read_request(c, rest)
            self.requests.append(rq)
            if self.request_log:
                print(rq.method, rq.target, file=self.request_log, flush=True)
            if self.delay_s:
                self.stopping.wait(self.delay_s)
            if self.answer is not None:
                self._send(c, self.answer.bytes(), self.answer.then)
                return
            where = self._where(rq)
            what = self._fault_of(where)
            if what is not None:
                self._misbehave(c, rq, where, what)
                return
            if where == "api":
                self._respond(c, *githost_api.answer(self, rq, self._inner(rq)))
            else:
                self._git_request(c, rq)

    def _read_request(self, c, rest):
        head, rest = self._read_head(c)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            key, _, value = line.partition(":")
            headers[key.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        fault = self._fault
        limit = fault["at"] if fault and fault["kind"] == "body" and method == "POST" and \
            target.endswith("git-receive-pack") else None
        body = self._read_body(c, headers, rest, limit)
        if limit is not None and len(body) >= limit:
            self.requests.append(Request(method, target, headers, body))
            self._break(c, fault["how"])
        return Request(method, target, headers, body)

    def _inner(self, rq):
        """The target below the prefix; None: outside."""
        prefix = self.state["options"].get("prefix", "")
        return rq.target[len(prefix):] if rq.target.startswith(prefix + "/") else None

    def _where(self, rq):
        inner = self._inner(rq) or "/"
        if inner.startswith("/api/"):
            return "api"
        return "push" if "git-receive-pack" in inner else "refs" if "/info/refs" in inner else "fetch"

    def _fault_of(self, where):
        with self.lock:
            for row in self.fault_rows:
                hit = row["where"] in (where, "any") or (row["where"] == "git" and where != "api") or \
                    (row["where"] == "fetch" and where == "refs")
                if not hit or (row["until"] and time.monotonic() > row["until"]) or row["times"] == 0:
                    continue
                if row["times"]:
                    row["times"] -= 1
                return row["what"]
        return None

    def _misbehave(self, c, rq, where, what):
        if what.get("hang"):
            self._break(c, "hang")
        headers, kind = dict(what.get("headers", {})), what.get("type")
        body = what.get("body", b'{"message":"no"}' if where == "api" else b"no\n")
        if what.get("html"):
            body, kind = HTML, "text/html; charset=utf-8"
        if what.get("echo"):
            lines = [f"{k}: {v}" for k, v in rq.headers.items()]
            said = "you sent: " + " | ".join(lines) if where == "api" else "\n".join(lines) + "\n"
            body = json.dumps({"message": said}).encode() if where == "api" else said.encode()
            headers.setdefault("X-Echo", " ".join(lines).encode("ascii", "replace").decode())
        if what.get("status") == 401:
            headers.setdefault("WWW-Authenticate", f'Basic realm="{self.kind}"')
        a = Answer(what.get("status", 200), body if isinstance(body, bytes) else body.encode(),
                   kind or ("application/json" if where == "api" else "text/plain"), headers)
        for how in ("cut", "reset"):
            if what.get(how) is not None:
                c.sendall(a.bytes()[:what[how]])
                self._break(c, how)
        self._send(c, a.bytes(), "drip" if what.get("drip") else "close")
        raise Gone

    def _respond(self, c, status, body, headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(data)), **headers}
        self._deliver_whole(c, f"HTTP/1.1 {status} X\r\n".encode() +
                            "".join(f"{k}: {v}\r\n" for k, v in head.items()).encode() + b"\r\n", data, "api")

    # -- git ------------------------------------------------------------------------------------------

    def git(self, full, *args, env=None, check=True, input=b""):
        return subprocess.run(["/usr/bin/git", "-C", self.path(full), *args], check=check, timeout=120,
                              env={**self._env(), **(env or {})}, input=input, capture_output=True)

    @staticmethod
    def _strip(path):
        path = path.strip("/")
        return path[:-4] if path.endswith(".git") else path

    def _make_bare(self, full, format="sha1"):
        path = self.path(full)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._git("init", "-q", "--bare", "-b", "main", "--object-format=" + format, "--template=", path)
        with open(os.path.join(path, "config"), "a") as f:
            f.write("[http]\n\treceivepack = true\n[core]\n\tlogAllRefUpdates = always\n\tfsync = none\n"
                    "[receive]\n\tautogc = false\n[gc]\n\tauto = 0\n")
        os.makedirs(os.path.join(path, "hooks"), exist_ok=True)
        if self.kind == "gitlab":
            self._write_pre_receive(full)

    def _write_pre_receive(self, full):
        why = self.state["repos"].get(full, {}).get("protect")
        said = REFUSALS[self.kind].get(why, REFUSALS[self.kind]["protected"])[0] if why else None
        force = "GitLab: You are not allowed to force push code to a protected branch on this project."
        text = "#!/bin/sh\nwhile read old new ref; do\n"
        if said:
            text += "cat >&2 <<'END'\n" + said.strip("\n") + "\nEND\nexit 1\n"
        elif self.kind == "gitlab":
            text += (f"[ $old = {ZERO} ] && continue\n"
                     f"[ $new != {ZERO} ] && git merge-base --is-ancestor $old $new && continue\n"
                     f"echo '{force}' >&2\nexit 1\n")
        else:
            text += ":\n"
        path = os.path.join(self.path(full), "hooks", "pre-receive")
        with open(path + ".new", "w") as f:
            f.write(text + "done\nexit 0\n")
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)

    def _basic(self, headers):
        """(user, password); (None, None) without."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() in ("bearer", "token"):
            return "", value
        try:
            user, _, password = base64.b64decode(value).decode().partition(":")
        except ValueError:
            user, password = "", ""
        return (user, password) if kind.lower() == "basic" else (None, None)

    def _git_token(self, headers):
        """The token that git showed, by the host's rules for user names; None."""
        user, password = self._basic(headers)
        if user is None:
            return None
        if self.kind == "gitlab":
            if user.strip() == "":
                return None
            t = self.seen(password)
            wanted = {"gldt-": t and t["name"], "glcbt-": "gitlab-ci-token", "gloas-": "oauth2"}
            prefix = password.split("-")[0] + "-"
            return t if prefix not in wanted or user == wanted[prefix] else None
        if password.startswith("ghs_") and user != "x-access-token":
            return None
        if password in ("", "x-oauth-basic"):
            return self.seen(user)
        return self.seen(password)

    def _git_request(self, c, rq):
        inner = self._inner(rq)
        path, _, query = (inner or "/").partition("?")
        full, service = path, ""
        for end in ("/info/refs", "/git-upload-pack", "/git-receive-pack"):
            if path.endswith(end):
                full, service = path[:-len(end)], end
        full = self._strip(full)
        push = "git-receive-pack" in path + query
        if inner is None or not service or ".." in full.split("/"):
            return self._refuse(c, 404, "Not found.")
        t = self._git_token(rq.headers)
        refusal = self._judge(full, t, push, "authorization" in rq.headers)
        if refusal is not None:
            return self._refuse(c, *refusal, inner=inner, full=full)
        if full not in self.state["repos"]:
            if service == "/info/refs" and self.kind != "gitlab":   # it is made by the push itself
                return self._backend(c, rq, self._nothing(), service, query, t, full, False)
            self.repository(full)
        return self._backend(c, rq, full, service, query, t, full, push and service != "/info/refs")

    def _nothing(self):
        if not os.path.isdir(self.path(".nothing")):
            with self.lock:
                self._make_bare(".nothing")
        return ".nothing"

    def _judge(self, full, t, push, had_credential):
        """None: go on; else status and words."""
        there = full in self.state["repos"]
        public = there and not self.state["repos"][full]["private"]
        if t is None and (had_credential or not public or push):
            return 401, WORDS[self.kind]["bad"]
        if full in self.state["renamed"] and not there:
            return 301, ""
        right = READ if t is None else self.git_right(t, full)
        if there:
            if right == 0 and self.is_family() and self.level(t["login"], full) > 0:
                return 403, "token does not have the scope that is needed\n"
            if right == 0:
                return 404, WORDS[self.kind]["missing"]
            return (403, WORDS[self.kind]["read-only"]) if push and right < WRITE else None
        return self._judge_missing(full, t, push)

    def _judge_missing(self, full, t, push):
        owner = full.rpartition("/")[0]
        is_group = owner in self.state["groups"]
        if push and self.kind == "gitlab" and self.may_create(t["login"], owner) and \
                set(t["scopes"]) & {"api", "write_repository"}:
            return None
        if push and self.is_family():
            if not self.state["options"].get("push_create"):
                return 403, f"Push to create is not enabled for {'organizations' if is_group else 'users'}."
            if self.may_create(t["login"], owner) and self.scope(t, "write:repository"):
                return None
            return 403, "User permission denied for writing.\n"
        return 404, WORDS[self.kind]["missing"]

    def _refuse(self, c, status, words, inner=None, full=None):
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if status == 401:
            headers["WWW-Authenticate"] = f'Basic realm="{WORDS[self.kind]["realm"]}"'
        if status == 301:
            new = self.state["renamed"][full]
            tail = inner[1 + len(full):]
            headers["Location"] = self.url(new + (tail if tail.startswith(".git") else ".git" + tail))
        self._respond(c, status, words.encode(), headers)

    def _backend(self, c, rq, full, service, query, t, name, is_push):
        env = {**self._env(), "GIT_PROJECT_ROOT": self.root, "GIT_HTTP_EXPORT_ALL": "1",
               "PATH_INFO": f"/{full}.git{service}", "QUERY_STRING": query, "REQUEST_METHOD": rq.method,
               "REMOTE_ADDR": "127.0.0.1", "REMOTE_USER": t["login"] if t else "",
               "CONTENT_TYPE": rq.headers.get("content-type", ""), "CONTENT_LENGTH": str(len(rq.body)),
               "GIT_PROTOCOL": rq.headers.get("git-protocol", "")}
        child = subprocess.Popen(["/usr/bin/git", "-c", "safe.directory=*", "http-backend"], env=env,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 start_new_session=True)
        with self.lock:
            self.children.add(child)
        try:
            out = child.communicate(rq.body)[0]
        finally:
            with self.lock:
                self.children.discard(child)
        if self.stopping.is_set():
            raise Gone
        head, _, answer = out.partition(b"\r\n\r\n")
        code, fields = b"200 OK", []
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"status:"):
                code = line.split(b":", 1)[1].strip()
            elif line:
                fields.append(line)
        if is_push:
            answer = self._finish_push(rq, name, answer, t)
        fields += [b"Content-Length: %d" % len(answer)]
        self._deliver_whole(c, b"HTTP/1.1 " + code + b"\r\n" + b"\r\n".join(fields) + b"\r\n\r\n", answer,
                            self._kind(rq.target, rq.body, answer))

    def _finish_push(self, rq, full, answer, t):
        commands = [m for m in commands_of(rq.body) if self._now(full, m[2]) == m[1]]
        self.deleted += [(full, m[2], m[0], ZERO) for m in commands if m[1] == ZERO]
        if commands:
            githost_hooks.pushed(self, full, commands, t["login"])
        why = self.state["repos"][full]["protect"]
        if why:
            reason = REFUSALS[self.kind].get(why, REFUSALS[self.kind]["protected"])[1]
            answer = reword(answer, b"pre-receive hook declined", reason.encode())
        return answer

    def _now(self, full, ref):
        """The loose ref, which a push has just written; a deleted one is zero."""
        try:
            with open(os.path.join(self.path(full), ref)) as f:
                return f.read().strip()
        except OSError:
            return self.tip(full, ref) or ZERO

    def _deliver_whole(self, c, head, answer, kind):
        fault = self._fault
        if fault and fault["times"] > 0 and fault["kind"] in (kind, "any", "head"):
            fault["times"] -= 1
            n = fault["at"] if fault["kind"] == "head" else len(head) + fault["at"]
            if n < len(head + answer):
                c.sendall((head + answer)[:n])
                self._break(c, fault["how"], (head + answer)[n:])
        c.sendall(head + answer)


WORDS = {
    "gitea": {"realm": "Gitea", "bad": "Unauthorized\n", "missing": "Repository not found\n",
              "read-only": "User permission denied for writing.\n"},
    "forgejo": {"realm": "Forgejo", "bad": "Unauthorized\n", "missing": "Repository not found\n",
                "read-only": "User permission denied for writing.\n"},
    "github": {"realm": "GitHub", "missing": "Repository not found.",
               "bad": "Invalid username or token. Password authentication is not supported for Git operations.",
               "read-only": "Write access to repository not granted."},
    "gitlab": {"realm": "GitLab",
               "bad": "HTTP Basic: Access denied. If a password was provided for Git authentication, the password "
                      "was incorrect or you're required to use a token instead of a password.",
               "missing": "The project you were looking for could not be found or you don't have permission to "
                          "view it.",
               "read-only": "You are not allowed to push code to this project."},
}

# what pre-receive says, and the reason in the report
_GITEA = {"protected": ("Gitea: Not allowed to push to protected branch main", "pre-receive hook declined")}
REFUSALS = {
    "gitea": _GITEA,
    "forgejo": {"protected": ("Forgejo: Not allowed to push to protected branch main",
                              "pre-receive hook declined")},
    "gitlab": {"protected": ("GitLab: You are not allowed to push code to protected branches on this project.",
                             "pre-receive hook declined")},
    "github": {
        "protected": ("error: GH006: Protected branch update failed for refs/heads/main.\n"
                      "error: Changes must be made through a pull request.", "protected branch hook declined"),
        "large": ("error: Trace: 4fb2\nerror: See https://gh.io/lfs for more information.\n"
                  "error: File big.bin is 101.00 MB; this exceeds GitHub's file size limit of 100.00 MB\n"
                  "error: GH001: Large files detected. You may want to try Git Large File Storage.",
                  "pre-receive hook declined"),
        "secret": ("error: GH013: Repository rule violations found for refs/heads/main.\n\n"
                   "- GITHUB PUSH PROTECTION\n  " + "\u2014" * 40 + "\n    Resolve the following violations before "
                   "pushing again\n\n    - Push cannot contain secrets\n\n     \u2014\u2014 GitHub Personal Access "
                   "Token \u2014\u2014\n      locations:\n        - commit: 8728dbe67\n          path: system/a.md:4\n",
                   "push declined due to repository rule violations"),
    },
}


def commands_of(body):
    """(old, new, ref) of a push's pkt-lines."""
    found, at = [], 0
    while at + 4 <= len(body):
        n = int(body[at:at + 4], 16)
        if n == 0:
            break
        line = body[at + 4:at + n].split(b"\0")[0].decode().strip()
        found.append(tuple(line.split(" ", 2)))
        at += n
    return [m for m in found if len(m) == 3]


def packets(data):
    at = 0
    while at + 4 <= len(data):
        n = int(data[at:at + 4], 16)
        yield data[at + 4:at + n] if n else None
        at += n or 4


def packet(payload):
    return b"0000" if payload is None else b"%04x" % (len(payload) + 4) + payload


def reword(answer, old, new):
    """The report of a push with another reason: lengths of both layers follow."""
    out = b""
    for p in packets(answer):
        if p is not None and p[:1] == b"\1" and old in p:
            p = b"\1" + b"".join(packet(q and q.replace(old, new)) for q in packets(p[1:]))
        out += packet(p)
    return out


def main():
    options = argparse.ArgumentParser()
    options.add_argument("folder")
    for name in ("listen", "cert", "key"):
        options.add_argument("--" + name)
    options.add_argument("--port", type=int, default=0)
    a = options.parse_args()
    tls = None
    if a.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(a.cert, a.key)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    h = GitHost(a.folder, tls=tls, host=a.listen or "127.0.0.1", port=a.port, serve=False)
    h.request_log = open(os.path.join(a.folder, "requests.log"), "a")
    h.start()
    print("ready", h.port, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    h.stop()


if __name__ == "__main__":
    main()
