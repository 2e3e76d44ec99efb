"""The webhooks of lib/githost.py: events, payloads, headers and proofs as each host sends them, once."""
import base64
import fnmatch
import hashlib
import hmac
import http.client
import json
import socket
import threading
import time
import uuid
from urllib.parse import quote, urlsplit

ZERO = "0" * 40


class Delivery:
    def __init__(self, event, url, headers, body, full, hook):
        self.event, self.url, self.headers, self.body = event, url, headers, body
        self.repository, self.hook = full, hook
        self.status, self.error, self.answer = None, None, b""

    def __repr__(self):
        return f"<{self.event} to {self.url}: {self.status or self.error}>"


def new_id():
    return str(uuid.uuid4())


def hexmac(secret, body, digest="sha256"):
    return hmac.new(secret.encode(), body, digest).hexdigest()


# ---- what is sent ----

def pushed(host, full, moves, login):
    """moves: (old, new, ref) that happened in one push."""
    if not host.state["repos"].get(full, {}).get("hooks"):
        return
    branches = [m for m in moves if m[2].startswith("refs/heads/")]
    tags = [m for m in moves if m[2].startswith("refs/tags/")]
    if host.kind == "gitlab":      # a push that touches more than three of a kind fires nothing
        moves = (branches if len(branches) <= 3 else []) + (tags if len(tags) <= 3 else [])
    elif host.kind == "github":
        moves = (branches if len(branches) <= 5000 else []) + (tags if len(tags) <= 3 else [])
    for old, new, ref in moves:
        for event, payload in EVENTS[host.kind](host, full, old, new, ref, login):
            for hook in list(host.state["repos"][full]["hooks"]):
                if wants(hook, event, ref):
                    send(host, make(host, full, hook, event, payload))


def wants(hook, event, ref):
    name = "push" if event in ("Push Hook", "Tag Push Hook") else event
    pattern = hook.get("branch_filter") or "*"
    branch = ref.split("/", 2)[-1]
    return hook["active"] and name in hook["events"] and fnmatch.fnmatch(branch, pattern)


def ping(host, full, hook):
    payload = {"zen": "Keep it logically awesome.", "hook_id": hook["id"], "hook": {"type": "Repository"},
               "repository": github_repository(host, full), "sender": {"login": "bot"}}
    send(host, make(host, full, hook, "ping", payload))


def commits_of(host, full, old, new, most):
    if new == ZERO:
        return []
    span = new if old == ZERO else f"{old}..{new}"
    out = host.git(full, "log", "-z", f"-{most}", "--format=%H%x01%an%x01%ae%x01%aI%x01%B", span,
                   check=False).stdout.decode("utf-8", "replace")
    rows = [r.split("\x01", 4) for r in out.split("\0") if r.count("\x01") == 4]
    return [{"id": i, "message": m, "url": host.url(f"{full}/commit/{i}"), "timestamp": at,
             "author": {"name": n, "email": e, "username": n}, "committer": {"name": n, "email": e, "username": n},
             "added": [], "removed": [], "modified": []} for i, n, e, at, m in rows]


def gitea_repository(host, full):
    owner, _, name = full.rpartition("/")
    return {"id": host.state["repos"][full]["id"], "owner": {"login": owner, "username": owner}, "name": name,
            "full_name": full, "private": host.state["repos"][full]["private"], "html_url": host.url(full),
            "clone_url": host.url(full + ".git"), "ssh_url": f"git@{host.host}:{full}.git",
            "default_branch": "main", "object_format_name": "sha1"}


def gitea_events(host, full, old, new, ref, login):
    repository, who = gitea_repository(host, full), {"login": login, "username": login}
    short, kind = ref.split("/", 2)[2], "branch" if ref.startswith("refs/heads/") else "tag"
    if new == ZERO:
        yield "delete", {"ref": short, "ref_type": kind, "pusher_type": "user", "repository": repository,
                         "sender": who}
        return
    if old == ZERO:
        yield "create", {"sha": new, "ref": short, "ref_type": kind, "default_branch": "main",
                         "repository": repository, "sender": who}
    commits = commits_of(host, full, old, new, 30)
    yield "push", {"ref": ref, "before": old, "after": new, "compare_url": host.url(full), "commits": commits,
                   "total_commits": len(commits), "head_commit": commits[0] if commits else None,
                   "repository": repository, "pusher": who, "sender": who}


def github_repository(host, full):
    owner, _, name = full.rpartition("/")
    return {"id": host.state["repos"][full]["id"], "name": name, "full_name": full, "owner": {"login": owner},
            "private": host.state["repos"][full]["private"], "html_url": host.url(full),
            "clone_url": host.url(full + ".git"), "ssh_url": f"git@{host.host}:{full}.git",
            "git_url": f"git://{host.host}/{full}.git", "default_branch": "main"}


def github_events(host, full, old, new, ref, login):
    commits = commits_of(host, full, old, new, 2048)
    repository = github_repository(host, full)
    yield "push", {"ref": ref, "before": old, "after": new, "created": old == ZERO, "deleted": new == ZERO,
                   "forced": is_forced(host, full, old, new), "base_ref": None, "compare": host.url(full),
                   "commits": commits[::-1], "head_commit": commits[0] if commits else None,
                   "repository": repository, "pusher": {"name": login, "email": login + "@example.com"},
                   "sender": {"login": login}}
    kind = {"ref": ref.split("/", 2)[2], "ref_type": "branch" if ref.startswith("refs/heads/") else "tag",
            "repository": repository, "sender": {"login": login}}
    if old == ZERO:
        yield "create", {**kind, "master_branch": "main"}
    if new == ZERO:
        yield "delete", kind


def is_forced(host, full, old, new):
    return ZERO not in (old, new) and \
        host.git(full, "merge-base", "--is-ancestor", old, new, check=False).returncode != 0


def gitlab_events(host, full, old, new, ref, login):
    commits = commits_of(host, full, old, new, 1 << 16)
    number, http_url, ssh = host.state["repos"][full]["id"], host.url(full + ".git"), f"git@{host.host}:{full}.git"
    kind = "push" if ref.startswith("refs/heads/") else "tag_push"
    yield "Push Hook" if kind == "push" else "Tag Push Hook", {
        "object_kind": kind, "event_name": kind, "before": old, "after": new, "ref": ref,
        "checkout_sha": None if new == ZERO else new, "user_username": login, "project_id": number,
        "project": {"id": number, "path_with_namespace": full, "default_branch": "main", "web_url": host.url(full),
                    "git_http_url": http_url, "git_ssh_url": ssh},
        "repository": {"name": full.rpartition("/")[2], "git_http_url": http_url, "git_ssh_url": ssh},
        "commits": commits[:20][::-1], "total_commits_count": len(commits)}


EVENTS = {"gitea": gitea_events, "forgejo": gitea_events, "github": github_events, "gitlab": gitlab_events}


# ---- how it is sent ----

def make(host, full, hook, event, payload):
    if host.is_family():
        text = json.dumps(payload, indent=2, ensure_ascii=False).encode()
    else:
        text = json.dumps(payload, separators=(",", ":")).encode()
    delivery = Delivery(event, hook["url"], {}, text, full, hook)
    if hook.get("form") and host.kind != "gitlab":
        delivery.body = b"payload=" + quote(text.decode(), safe="").encode()
    delivery.headers = HEADERS[host.kind](host, hook, event, text, delivery.body)
    delivery.headers["Content-Type"] = "application/x-www-form-urlencoded" if delivery.body is not text \
        else "application/json"
    return delivery


def gitea_headers(host, hook, event, text, body):
    signature = hexmac(hook["secret"], text) if hook["secret"] else ""
    delivery, out = new_id(), {"User-Agent": "Go-http-client/1.1"}
    brands = ["Gitea", "Gogs"] + (["Forgejo"] if host.kind == "forgejo" else [])
    for brand in brands:
        out.update({f"X-{brand}-Event": event, f"X-{brand}-Event-Type": event, f"X-{brand}-Delivery": delivery,
                    f"X-{brand}-Signature": signature})
    out.update({"X-GitHub-Event": event, "X-GitHub-Event-Type": event, "X-GitHub-Delivery": delivery,
                "X-Hub-Signature": "sha1=" + (hexmac(hook["secret"], text, "sha1") if signature else ""),
                "X-Hub-Signature-256": "sha256=" + signature})
    if hook.get("authorization"):
        out["Authorization"] = hook["authorization"]
    return out


def github_headers(host, hook, event, text, body):
    out = {"User-Agent": "GitHub-Hookshot/a1b2c3d", "Accept": "*/*", "X-GitHub-Event": event,
           "X-GitHub-Delivery": new_id(), "X-GitHub-Hook-ID": str(hook["id"]),
           "X-GitHub-Hook-Installation-Target-Type": "repository",
           "X-GitHub-Hook-Installation-Target-ID": "1", "X-GitHub-Enterprise-Version": host.version}
    if hook["secret"]:
        out["X-Hub-Signature"] = "sha1=" + hexmac(hook["secret"], body, "sha1")
        out["X-Hub-Signature-256"] = "sha256=" + hexmac(hook["secret"], body)
    return out


def gitlab_headers(host, hook, event, text, body):
    out = {"User-Agent": "GitLab/" + host.version, "X-Gitlab-Event": event, "X-Gitlab-Event-UUID": new_id(),
           "X-Gitlab-Webhook-UUID": hook["uuid"], "Idempotency-Key": new_id(), "X-Gitlab-Instance": host.url()[:-1]}
    if hook["secret"].startswith("whsec_"):
        sign(out, hook["secret"], body)
    elif hook["secret"]:
        out["X-Gitlab-Token"] = hook["secret"]
    return out


def sign(headers, secret, body, at=None):
    """GitLab's signing token (Standard Webhooks)."""
    stamp, key = str(int(time.time() if at is None else at)), base64.b64decode(secret[len("whsec_"):])
    text = f"{headers['Idempotency-Key']}.{stamp}.".encode() + body
    headers.update({"webhook-id": headers["Idempotency-Key"], "webhook-timestamp": stamp, "webhook-signature":
                    "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()})


HEADERS = {"gitea": gitea_headers, "forgejo": gitea_headers, "github": github_headers, "gitlab": gitlab_headers}
WAITS = {"gitea": 5, "forgejo": 5, "github": 10, "gitlab": 10}


def send(host, delivery):
    if host.hooks_lost:
        return
    host.deliveries.append(delivery)
    thread = threading.Thread(target=_post, args=(host, delivery), daemon=True)
    host.sending.append(thread)
    thread.start()


def _post(host, delivery):
    try:
        if host.hooks_delay_s:
            host.stopping.wait(host.hooks_delay_s)
        post(delivery, WAITS[host.kind], getattr(host, "hooks_tls", None))
    finally:
        host.sending.remove(threading.current_thread())


def post(delivery, timeout, tls=None):
    """One try; status or error tell how it went.  Redirects are not followed."""
    to = urlsplit(delivery.url)
    kind = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = kind(to.hostname, to.port, timeout=timeout, **({"context": tls} if tls and
                                                                to.scheme == "https" else {}))
    try:
        connection.request("POST", to.path + ("?" + to.query if to.query else ""), delivery.body,
                           delivery.headers)
        answer = connection.getresponse()
        delivery.answer, delivery.status = answer.read(65536), answer.status
    except (OSError, http.client.HTTPException, socket.timeout) as e:
        delivery.error = f"{type(e).__name__}: {e}"
    finally:
        connection.close()


def again(host, old):
    """By hand, from the hook's page."""
    new = Delivery(old.event, old.url, dict(old.headers), old.body, old.repository, old.hook)
    if host.is_family():        # a new delivery with the same body
        new.headers.update({k: new_id() for k in new.headers if k.endswith("-Delivery")})
    if "webhook-signature" in new.headers:
        sign(new.headers, old.hook["secret"], new.body)
    send(host, new)
    return new
