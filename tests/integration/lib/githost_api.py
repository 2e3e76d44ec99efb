"""The REST routes of lib/githost.py: status codes, bodies, scopes and pages as each host has them.

    answer(host, request, target)  ->  status, body, headers      # target: without the host's prefix
"""
import base64
import json
import re
import time
from urllib.parse import parse_qs, unquote


class Refused(Exception):
    def __init__(self, status, body, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


class Call:
    """One request: who asks, with what."""

    def __init__(self, host, rq, target):
        self.host, self.rq = host, rq
        self.path, _, query = target.partition("?")
        self.query = {k: v[-1] for k, v in parse_qs(query).items()}
        self.text, self.token, self.headers = None, None, {}
        try:
            self.json = json.loads(rq.body) if rq.body else {}
        except ValueError:
            self.json = None

    @property
    def login(self):
        return self.token["login"]


def answer(host, rq, target):
    c = Call(host, rq, target or "/")
    frame = {"github": GitHub, "gitlab": GitLab}.get(host.kind, Gitea)(c)
    try:
        if c.path.startswith(frame.base + "/"):
            frame.enter()
            found = frame.find()
            status, body = found() if isinstance(found, Route) else found
        else:
            status, body = frame.elsewhere()
    except Refused as r:
        c.headers.update(r.headers)
        status, body = r.status, r.body
    if isinstance(body, str):
        c.headers.setdefault("Content-Type", "text/html" if body.startswith("<") else "text/plain")
        body = body.encode()
    return status, body, c.headers


class Route:
    def __init__(self, fn, args):
        self.fn, self.args = fn, args

    def __call__(self):
        return self.fn(*self.args)


class Frame:
    def __init__(self, c):
        self.c, self.h, self.s = c, c.host, c.host.state

    def find(self):
        tail = self.c.path[len(self.base):]
        for method, pattern, name in self.routes:
            m = re.fullmatch(pattern, tail)
            if m and method == self.c.rq.method:
                return Route(getattr(self, name), [unquote(g) for g in m.groups()])
        return self.unknown()

    def elsewhere(self):
        return 404, "<!doctype html><title>Page Not Found</title>"

    def page(self, rows, size_key):
        """A page of the rows; Link and the totals as headers."""
        most = self.s["options"].get("page", 50 if self.h.is_family() else 100)
        size = max(1, min(most, int(self.c.query.get(size_key, 30))))
        n, last = max(1, int(self.c.query.get("page", 1))), max(1, -(-len(rows) // size))
        self.links(n, last, size, size_key, len(rows))
        return rows[(n - 1) * size:n * size]

    def links(self, n, last, size, size_key, total):
        scheme = "https" if self.h.tls else "http"
        def to(k):
            return f"{scheme}://{self.c.rq.headers.get('host')}{self.c.rq.target.partition('?')[0]}" \
                   f"?page={k}&{size_key}={size}"
        rels = [(n + 1, "next"), (last, "last")] if n < last else []
        rels += [(1, "first"), (n - 1, "prev")] if n > 1 else []
        if rels:
            self.c.headers["Link"] = ", ".join(f'<{to(k)}>; rel="{rel}"' for k, rel in rels)
        self.totals(total, n, last, size)

    def totals(self, total, n, last, size):
        pass

    def owned(self, owner):
        """Names of all repositories of an owner that the asking one sees."""
        return [full for full in sorted(self.s["repos"]) if full.rpartition("/")[0] == owner
                and self.sees(full)]

    def sees(self, full):
        t = self.c.token
        if full not in self.s["repos"]:
            return False
        if t is None:
            return not self.s["repos"][full]["private"]
        if t["repositories"] is not None and full not in t["repositories"]:
            return not self.s["repos"][full]["private"]
        return self.h.level(t["login"], full) > 0

    def new(self, owner, name, body):
        self.h.repository(owner + "/" + name, private=bool(body))
        return owner + "/" + name

    def spend(self):
        """One call of the rate limit; Refused when there is none left."""
        if self.h.rate_left is None:
            return 5000, int(time.time()) + 3600
        with self.h.lock:
            if time.time() >= self.h.rate_reset:
                self.h.rate_left, self.h.rate_reset = 5000, int(time.time()) + 3600
            left = self.h.rate_left
            self.h.rate_left = max(0, left - 1)
        if left <= 0:
            self.too_many()
        return left - 1, self.h.rate_reset


# ---- Gitea and Forgejo ----

class Gitea(Frame):
    base = "/api/v1"
    routes = [
        ("GET", r"/version", "version"), ("GET", r"/user", "user"), ("POST", r"/user/repos", "create_own"),
        ("GET", r"/user/repos", "list_own"), ("GET", r"/users/([^/]+)/repos", "list_of"),
        ("GET", r"/users/([^/]+)/orgs/([^/]+)/permissions", "member"),
        ("GET", r"/orgs/([^/]+)", "org"), ("GET", r"/orgs/([^/]+)/repos", "list_org"),
        ("POST", r"/orgs?/([^/]+)/repos", "create_org"), ("GET", r"/repos/([^/]+)/([^/]+)", "repo"),
        ("GET", r"/repos/([^/]+)/([^/]+)/hooks", "hooks"), ("POST", r"/repos/([^/]+)/([^/]+)/hooks", "add_hook"),
    ]

    def fail(self, status, message):
        raise Refused(status, {"message": message, "url": self.h.url("api/swagger")})

    def too_many(self):
        raise Refused(429, "Too Many Requests\n",
                      {"Retry-After": str(max(1, self.h.rate_reset - int(time.time())))})

    def enter(self):
        self.spend()
        kind, _, value = self.c.rq.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            user, _, password = base64.b64decode(value).decode().partition(":")
            value = user if password in ("", "x-oauth-basic") else password
        self.c.token = self.h.seen(value) if kind else None
        if kind and self.c.token is None:
            self.fail(401, "invalid username, password or token")
        if not kind and self.s["options"].get("require_sign_in"):
            self.fail(403, "Only signed in user is allowed to call APIs.")

    def need(self, *scopes):
        if self.c.token is None:
            self.fail(401, "token is required")
        for scope in scopes:
            if not self.h.scope(self.c.token, scope):
                self.fail(403, "token does not have at least one of required scope(s), "
                               f"required=[{scope}], token scope={','.join(self.c.token['scopes'])}")

    def unknown(self):
        return 404, "Not found.\n"

    def totals(self, total, n, last, size):
        self.c.headers["X-Total-Count"] = str(total)
        self.c.headers["Access-Control-Expose-Headers"] = "X-Total-Count"

    def version(self):
        return 200, {"version": self.h.version}

    def user(self):
        self.need("read:user")
        a = self.s["accounts"][self.c.login]
        return 200, {"id": a["id"], "login": self.c.login, "full_name": "", "email": a["email"],
                     "is_admin": False, "active": True, "visibility": "public"}

    def shape(self, full):
        owner, _, name = full.rpartition("/")
        r, level = self.s["repos"][full], self.h.level(self.c.login, full) if self.c.token else 1
        return {"id": r["id"], "owner": {"login": owner, "username": owner}, "name": name, "full_name": full,
                "description": r["description"], "empty": self.h.tip(full) is None, "private": r["private"],
                "html_url": self.h.url(full), "clone_url": self.h.url(full + ".git"),
                "ssh_url": f"git@{self.h.host}:{full}.git", "default_branch": "main",
                "permissions": {"admin": level >= 3, "push": level >= 2, "pull": level >= 1},
                "object_format_name": "sha1"}

    def repo(self, owner, name):
        self.need("read:repository")
        full = owner + "/" + name
        if full in self.s["renamed"] and full not in self.s["repos"]:
            new = self.s["renamed"][full]
            raise Refused(307, b"", {"Location": self.h.url(f"api/v1/repos/{new}")})
        if not self.sees(full):
            self.fail(404, "The target couldn't be found.")
        return 200, self.shape(full)

    def create(self, owner):
        name = (self.c.json or {}).get("name", "")
        full = owner + "/" + name
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            self.fail(422, "[Name]: AlphaDashDot")      # the form is read before rights are looked at
        if not self.h.may_create(self.c.login, owner):
            self.fail(403, "Given user is not allowed to create repository in organization.")
        if full.lower() in (k.lower() for k in self.s["repos"]):
            self.fail(409, "The repository with the same name already exists.")
        if len(self.owned(owner)) >= self.s["options"].get("quota", 1 << 30):
            self.fail(403, f"user has reached maximum limit of repositories [limit: "
                           f"{self.s['options']['quota']}]")
        assert not self.c.json.get("auto_init")
        self.new(owner, name, self.c.json.get("private"))
        self.s["repos"][full]["description"] = self.c.json.get("description", "")
        return 201, self.shape(full)

    def create_own(self):
        self.need("write:user", "write:repository")
        return self.create(self.c.login)

    def create_org(self, org):
        self.need("write:organization", "write:repository")
        if org not in self.s["groups"]:
            self.fail(404, "The target couldn't be found.")
        return self.create(org)

    def org(self, org):
        self.need("read:organization")
        if org not in self.s["groups"]:
            self.fail(404, "The target couldn't be found.")
        return 200, {"id": self.s["groups"][org]["id"], "name": org, "username": org}

    def member(self, login, org):
        self.need("read:user", "read:organization")
        if org not in self.s["groups"]:
            self.fail(404, "The target couldn't be found.")
        level = self.h.group_level(login, org)
        return 200, {"is_owner": level >= 3, "is_admin": level >= 3, "can_write": level >= 2,
                     "can_read": level >= 1, "can_create_repository": self.h.may_create(login, org)}

    def list_of(self, owner):
        self.need("read:user", "read:repository")
        if owner not in self.s["accounts"] and owner not in self.s["groups"]:
            self.fail(404, "The target couldn't be found.")
        return 200, [self.shape(f) for f in self.page(self.owned(owner), "limit")]

    def list_org(self, org):
        self.need("read:organization", "read:repository")
        if org not in self.s["groups"]:
            self.fail(404, "The target couldn't be found.")
        return 200, [self.shape(f) for f in self.page(self.owned(org), "limit")]

    def list_own(self):
        self.need("read:user", "read:repository")
        rows = [f for f in sorted(self.s["repos"]) if self.sees(f) and self.h.level(self.c.login, f) >= 2]
        return 200, [self.shape(f) for f in self.page(rows, "limit")]

    def of_owner(self, owner, name, scope):
        self.need(scope)
        full = owner + "/" + name
        if not self.sees(full):
            self.fail(404, "The target couldn't be found.")
        if self.h.level(self.c.login, full) < 3:
            self.fail(403, "user should be an owner or a collaborator with admin write of a repository")
        return full

    @staticmethod
    def hook_shape(k):
        return {"id": k["id"], "type": "gitea", "active": True, "events": k["events"],
                "config": {"content_type": "form" if k.get("form") else "json", "url": k["url"]}}

    def hooks(self, owner, name):
        full = self.of_owner(owner, name, "read:repository")
        return 200, [self.hook_shape(k) for k in self.page(self.s["repos"][full]["hooks"], "limit")]

    def add_hook(self, owner, name):
        full, body = self.of_owner(owner, name, "write:repository"), self.c.json or {}
        config = body.get("config", {})
        if body.get("type") not in ("gitea", "forgejo", "slack") or (
                body["type"] == "forgejo" and self.h.kind != "forgejo"):
            self.fail(422, "Invalid hook type")
        if not config.get("url", "").startswith("http") or config.get("content_type") not in ("json", "form"):
            self.fail(422, "Missing config option: url")
        self.h.hook(full, config["url"], config.get("secret", ""), body.get("events", ["push"]),
                    branch_filter=body.get("branch_filter", "*"), form=config["content_type"] == "form")
        return 201, self.hook_shape(self.s["repos"][full]["hooks"][-1])


# ---- GitHub Enterprise Server ----

class GitHub(Frame):
    base = "/api/v3"
    routes = [
        ("GET", r"/meta", "meta"), ("GET", r"/user", "user"), ("POST", r"/user/repos", "create_own"),
        ("GET", r"/user/repos", "list_own"), ("GET", r"/users/([^/]+)/repos", "list_of"),
        ("GET", r"/orgs/([^/]+)", "org"), ("GET", r"/orgs/([^/]+)/repos", "list_org"),
        ("POST", r"/orgs/([^/]+)/repos", "create_org"), ("GET", r"/repos/([^/]+)/([^/]+)", "repo"),
        ("GET", r"/repositories/(\d+)", "repo_by_id"),
        ("GET", r"/repos/([^/]+)/([^/]+)/hooks", "hooks"), ("POST", r"/repos/([^/]+)/([^/]+)/hooks", "add_hook"),
    ]

    def fail(self, status, message, headers=None, **more):
        raise Refused(status, {"message": message, **more, "status": str(status),
                               "documentation_url": "https://docs.github.com/rest"}, headers)

    def too_many(self):
        headers = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0",
                   "x-ratelimit-reset": str(self.h.rate_reset)}
        self.fail(403, "API rate limit exceeded for user ID 1.", headers)

    def elsewhere(self):
        return 404, "<!DOCTYPE html><title>Not Found</title>"

    def unknown(self):
        self.fail(404, "Not Found")

    def enter(self):
        c = self.c
        if not c.rq.headers.get("user-agent"):
            raise Refused(403, "Request forbidden by administrative rules. Please make sure your request has a "
                               "User-Agent header.\n")
        left, reset = self.spend()
        kind, _, value = c.rq.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            value = base64.b64decode(value).decode().partition(":")[2]
        c.token = self.h.seen(value) if kind else None
        if kind and c.token is None:
            self.fail(401, "Bad credentials")
        c.headers.update({"X-GitHub-Media-Type": "github.v3; format=json", "x-ratelimit-limit": "5000",
                          "x-ratelimit-remaining": str(left), "x-ratelimit-reset": str(reset),
                          "X-GitHub-Enterprise-Version": self.h.version})
        if c.token is not None:
            if not c.token["fine"]:
                c.headers["X-OAuth-Scopes"] = ", ".join(c.token["scopes"])
                c.headers["X-Accepted-OAuth-Scopes"] = "repo"
            if c.token["expires"]:
                c.headers["github-authentication-token-expiration"] = c.token["expires"] + " 00:00:00 UTC"

    def need(self, permission=None, classic="repo", missing=404):
        """permission: of fine-grained tokens."""
        t = self.c.token
        if t is None:
            self.fail(401, "Requires authentication")
        if t["fine"] and permission:
            name, level = permission.split(":")
            if permission not in t["scopes"] and not (level == "read" and name + ":write" in t["scopes"]):
                self.fail(403, "Resource not accessible by personal access token",
                          {"X-Accepted-GitHub-Permissions": f"{name}={level}"})
        elif not t["fine"] and classic and classic not in t["scopes"]:
            self.fail(missing, "Not Found" if missing == 404 else "Forbidden")

    def meta(self):
        return 200, {"verifiable_password_authentication": True, "installed_version": self.h.version}

    def user(self):
        self.need(None, None)
        if self.c.rq.headers["authorization"].split(" ")[1].startswith("ghs_"):
            self.fail(403, "Resource not accessible by integration")
        return 200, {"login": self.c.login, "id": self.s["accounts"][self.c.login]["id"], "type": "User"}

    def shape(self, full):
        owner, _, name = full.rpartition("/")
        r, level = self.s["repos"][full], self.h.level(self.c.login, full) if self.c.token else 1
        return {"id": r["id"], "name": name, "full_name": full, "private": r["private"],
                "owner": {"login": owner}, "html_url": self.h.url(full), "clone_url": self.h.url(full + ".git"),
                "default_branch": "main", "size": 0,
                "permissions": {"admin": level >= 3, "maintain": level >= 3, "push": level >= 2,
                                "triage": level >= 2, "pull": level >= 1}}

    def may_see(self, full):
        t = self.c.token
        if t is not None and not t["fine"] and "repo" not in t["scopes"]:
            return full in self.s["repos"] and not self.s["repos"][full]["private"]
        return self.sees(full)

    def repo(self, owner, name):
        full = owner + "/" + name
        if full in self.s["renamed"] and full not in self.s["repos"]:
            to = self.h.url(f"api/v3/repositories/{self.s['repos'][self.s['renamed'][full]]['id']}")
            self.fail(301, "Moved Permanently", {"Location": to}, url=to)
        if not self.may_see(full):
            self.fail(404, "Not Found")
        return 200, self.shape(full)

    def repo_by_id(self, number):
        for full, r in self.s["repos"].items():
            if str(r["id"]) == number and self.may_see(full):
                return 200, self.shape(full)
        self.fail(404, "Not Found")

    def create(self, owner):
        name = (self.c.json or {}).get("name", "")
        full = owner + "/" + name
        def invalid(field, message):
            self.fail(422, "Repository creation failed.", errors=[
                {"resource": "Repository", "code": "custom", "field": field, "message": message}])
        if not name:
            self.fail(422, "Invalid request.\n\n\"name\" wasn't supplied.")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            invalid("name", "name can only contain ASCII letters, digits, and the characters ., -, and _")
        if full.lower() in (k.lower() for k in self.s["repos"]):
            invalid("name", "name already exists on this account")
        assert not self.c.json.get("auto_init")
        self.new(owner, name, self.c.json.get("private"))
        return 201, self.shape(full)

    def create_own(self):
        self.need("administration:write")
        return self.create(self.c.login)

    def create_org(self, org):
        self.need("administration:write")
        if org not in self.s["groups"] or not self.h.group_level(self.c.login, org):
            self.fail(404, "Not Found")
        if not self.h.may_create(self.c.login, org):
            self.fail(403, "You need admin access to the organization before adding a repository to it.")
        return self.create(org)

    def org(self, org):
        if org not in self.s["groups"]:
            self.fail(404, "Not Found")
        return 200, {"login": org, "id": self.s["groups"][org]["id"], "type": "Organization"}

    def list_of(self, owner):
        if owner not in self.s["accounts"] and owner not in self.s["groups"]:
            self.fail(404, "Not Found")
        rows = [f for f in sorted(self.s["repos"]) if f.rpartition("/")[0] == owner
                and not self.s["repos"][f]["private"]]      # public ones alone, whoever asks
        return 200, [self.shape(f) for f in self.page(rows, "per_page")]

    def list_org(self, org):
        if org not in self.s["groups"]:
            self.fail(404, "Not Found")
        rows = [f for f in self.owned(org) if self.may_see(f)]
        return 200, [self.shape(f) for f in self.page(rows, "per_page")]

    def list_own(self):
        self.need(None, None)
        own = self.c.query.get("affiliation") == "owner"
        rows = [f for f in sorted(self.s["repos"]) if self.may_see(f) and (
            f.rpartition("/")[0] == self.c.login if own else self.h.level(self.c.login, f) > 1)]
        return 200, [self.shape(f) for f in self.page(rows, "per_page")]

    def of_owner(self, owner, name, level):
        full = owner + "/" + name
        if not self.may_see(full):
            self.fail(404, "Not Found")
        self.need("webhooks:" + level)
        if self.h.level(self.c.login, full) < 3:
            self.fail(404, "Not Found")
        return full

    @staticmethod
    def hook_shape(k):
        return {"type": "Repository", "id": k["id"], "name": "web", "active": True, "events": k["events"],
                "config": {"content_type": "json", "insecure_ssl": "0", "url": k["url"],
                           **({"secret": "********"} if k["secret"] else {})}}

    def hooks(self, owner, name):
        full = self.of_owner(owner, name, "read")
        return 200, [self.hook_shape(k) for k in self.page(self.s["repos"][full]["hooks"], "per_page")]

    def add_hook(self, owner, name):
        from . import githost_hooks
        full, body = self.of_owner(owner, name, "write"), self.c.json or {}
        config = body.get("config", {})
        if not config.get("url", "").startswith("http"):
            self.fail(422, "Validation Failed", errors=[{"resource": "Hook", "code": "custom",
                                                         "message": "url is missing"}])
        if any(k["url"] == config["url"] for k in self.s["repos"][full]["hooks"]):
            self.fail(422, "Validation Failed", errors=[{"resource": "Hook", "code": "custom",
                                                         "message": "Hook already exists on this repository"}])
        self.h.hook(full, config["url"], config.get("secret", ""), body.get("events", ["push"]),
                    form=config.get("content_type", "form") == "form")
        hook = self.s["repos"][full]["hooks"][-1]
        githost_hooks.ping(self.h, full, hook)
        return 201, self.hook_shape(hook)


# ---- GitLab ----

class GitLab(Frame):
    base = "/api/v4"
    LEVELS = {1: 20, 2: 40, 3: 50}
    routes = [
        ("GET", r"/version", "version"), ("GET", r"/user", "user"),
        ("GET", r"/personal_access_tokens/self", "self_token"), ("GET", r"/namespaces/([^/]+)", "namespace"),
        ("GET", r"/groups/([^/]+)", "group"), ("GET", r"/groups/(\d+)/members/all/(\d+)", "member"),
        ("GET", r"/groups/([^/]+)/projects", "list_group"),
        ("GET", r"/users/([^/]+)/projects", "list_user"), ("POST", r"/projects", "create"),
        ("GET", r"/projects/([^/]+)", "project"), ("GET", r"/projects/([^/]+)/hooks", "hooks"),
        ("POST", r"/projects/([^/]+)/hooks", "add_hook"),
    ]

    def fail(self, status, body):
        raise Refused(status, body if isinstance(body, dict) else {"message": body})

    def too_many(self):
        wait = max(1, self.h.rate_reset - int(time.time()))
        raise Refused(429, "Retry later\n", {"Retry-After": str(wait), "RateLimit-Remaining": "0",
                                             "RateLimit-Reset": str(self.h.rate_reset)})

    def elsewhere(self):
        raise Refused(302, b"<html><body>You are being redirected.</body></html>",
                      {"Location": self.h.url("users/sign_in"), "Content-Type": "text/html; charset=utf-8"})

    def unknown(self):
        return 404, {"error": "404 Not Found"}

    def enter(self):
        self.spend()
        kind, _, value = self.c.rq.headers.get("authorization", "").partition(" ")
        text = self.c.rq.headers.get("private-token") or (value if kind.lower() == "bearer" else None)
        t = self.s["tokens"].get(text or "")
        if t is not None and not t["active"]:
            self.fail(401, {"error": "invalid_token", "error_description":
                            "Token was revoked. You have to re-authorize from the user."})
        if t is not None and self.h.expired(t):
            self.fail(401, {"error": "invalid_token", "error_description":
                            "Token is expired. You can either do re-authorization or token refresh."})
        self.c.token = self.h.seen(text)
        if text and self.c.token is None:
            self.fail(401, "401 Unauthorized")

    def need(self, *any_of):
        if self.c.token is None:
            self.fail(401, "401 Unauthorized")
        if any_of and not set(any_of) & set(self.c.token["scopes"]):
            self.fail(403, {"error": "insufficient_scope", "error_description":
                            "The request requires higher privileges than provided by the access token.",
                            "scope": " ".join(any_of)})

    def totals(self, total, n, last, size):
        self.c.headers.update({"X-Total": str(total), "X-Page": str(n), "X-Per-Page": str(size),
                               "X-Total-Pages": str(last), "X-Next-Page": str(n + 1) if n < last else "",
                               "X-Prev-Page": str(n - 1) if n > 1 else ""})

    def version(self):
        self.need("api", "read_api", "read_user")
        return 200, {"version": self.h.version, "revision": "8d0f0e9b4ff"}

    def user(self):
        self.need("api", "read_api", "read_user")
        return 200, {"id": self.s["accounts"][self.c.login]["id"], "username": self.c.login, "state": "active",
                     "can_create_project": len(self.owned(self.c.login)) < self.s["options"].get("quota", 1 << 30)}

    def self_token(self):
        self.need()
        t = self.c.token
        return 200, {"id": 1, "name": t["name"], "revoked": False, "scopes": t["scopes"], "active": True,
                     "expires_at": t["expires"], "user_id": self.s["accounts"][t["login"]]["id"]}

    def namespace(self, path):
        self.need("api", "read_api")
        for kind, where in (("group", "groups"), ("user", "accounts")):
            if path in self.s[where]:
                seen = self.h.group_level(self.c.login, path) if kind == "group" else path == self.c.login
                if seen:
                    number = self.s[where][path]["id"] + (0 if kind == "group" else 100000)
                    return 200, {"id": number, "path": path.rpartition("/")[2], "kind": kind,
                                 "full_path": path}
        self.fail(404, "404 Namespace Not Found")

    def group(self, path):
        self.need("api", "read_api")
        if path not in self.s["groups"] or not self.h.group_level(self.c.login, path):
            self.fail(404, "404 Group Not Found")
        return 200, {"id": self.s["groups"][path]["id"], "full_path": path}

    def shape(self, full):
        owner, _, name = full.rpartition("/")
        r, level = self.s["repos"][full], self.LEVELS.get(self.h.level(self.c.login, full), 0)
        access = {"access_level": level, "notification_level": 3} if level else None
        is_group = owner in self.s["groups"]
        return {"id": r["id"], "name": name, "path": name, "path_with_namespace": full, "default_branch": "main",
                "visibility": "private" if r["private"] else "public", "http_url_to_repo": self.h.url(full + ".git"),
                "empty_repo": self.h.tip(full) is None,
                "permissions": {"project_access": None if is_group else access,
                                "group_access": access if is_group else None}}

    def of(self, key):
        """The full path of a project by path or number; 404."""
        for full, r in self.s["repos"].items():
            if key in (full, str(r["id"])) and self.sees(full):
                return full
        new = self.s["renamed"].get(key)
        if new and self.sees(new):
            raise Refused(301, {"message": "Moved"}, {"Location": self.h.url(
                "api/v4/projects/" + str(self.s["repos"][new]["id"]))})
        self.fail(404, "404 Project Not Found")

    def project(self, key):
        self.need("api", "read_api")
        return 200, self.shape(self.of(key))

    def create(self):
        self.need("api")
        body = self.c.json or {}
        if not body.get("name") and not body.get("path"):
            self.fail(400, {"error": "name, path are missing, at least one parameter must be provided"})
        owner, path = self.c.login, body.get("path") or body.get("name", "")
        if body.get("namespace_id") is not None:
            wanted = body["namespace_id"]
            owner = next((p for where, more in (("groups", 0), ("accounts", 100000))
                          for p, v in self.s[where].items() if v["id"] + more == wanted), None)
        if owner is None or not self.h.may_create(self.c.login, owner):
            if owner is not None and self.h.group_level(self.c.login, owner):
                self.fail(403, "403 Forbidden")
            self.fail(400, {"message": {"namespace": ["is not valid"]}})
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}", path) or path.endswith((".git", ".atom")):
            self.fail(400, {"message": {"path": [
                "can contain only letters, digits, '_', '-' and '.'. Cannot start with '-', end in '.git' or end "
                "in '.atom'"]}})
        full = owner + "/" + path
        if full.lower() in (k.lower() for k in self.s["repos"]):
            self.fail(400, {"message": {"project_namespace.name": ["has already been taken"],
                                        "name": ["has already been taken"], "path": ["has already been taken"]}})
        assert not body.get("initialize_with_readme")
        self.new(owner, path, body.get("visibility", "private") == "private")
        return 201, self.shape(full)

    def listing(self, owner):
        return 200, [self.shape(f) for f in self.page(self.owned(owner), "per_page")]

    def member(self, group, number):
        self.need("api", "read_api")
        path = next((p for p, g in self.s["groups"].items() if str(g["id"]) == group), None)
        login = next((a for a, v in self.s["accounts"].items() if str(v["id"]) == number), None)
        level = self.h.group_level(login, path) if path and login else 0
        if not level:
            self.fail(404, "404 Not found")
        return 200, {"id": int(number), "username": login, "access_level": self.LEVELS[level]}

    def list_group(self, key):
        self.need("api", "read_api")
        for path, g in self.s["groups"].items():
            if key in (path, str(g["id"])) and self.h.group_level(self.c.login, path):
                return self.listing(path)
        self.fail(404, "404 Group Not Found")

    def list_user(self, key):
        self.need("api", "read_api")
        for login, a in self.s["accounts"].items():
            if key in (login, str(a["id"])):
                return self.listing(login)
        self.fail(404, "404 User Not Found")

    def of_maintainer(self, key):
        self.need("api")
        full = self.of(key)
        if self.h.level(self.c.login, full) < 2:
            self.fail(403, "403 Forbidden")
        return full

    def hook_shape(self, k):
        return {"id": k["id"], "url": k["url"], "push_events": "push" in k["events"],
                "push_events_branch_filter": k.get("branch_filter", ""), "enable_ssl_verification": True,
                "alert_status": "executable"}

    def hooks(self, key):
        full = self.of_maintainer(key)
        return 200, [self.hook_shape(k) for k in self.page(self.s["repos"][full]["hooks"], "per_page")]

    def add_hook(self, key):
        full, body = self.of_maintainer(key), self.c.json or {}
        if not str(body.get("url", "")).startswith("http"):
            self.fail(422, "Invalid url given")
        signing = body.get("signing_token")
        if signing is not None and not self.s["options"].get("signing"):
            signing = None      # an older server does not know the field
        self.h.hook(full, body["url"], signing or body.get("token", ""),
                    ["push"] if body.get("push_events", True) else [],
                    branch_filter=body.get("push_events_branch_filter", ""))
        return 201, self.hook_shape(self.s["repos"][full]["hooks"][-1])
