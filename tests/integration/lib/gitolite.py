"""A real Git host of the test's own: gitolite behind nginx and sshd.

    with Gitolite(folder) as host:              # machine=…: in that network namespace (lib/machines.py)
        host.url("agents/agent-….git")          # http://ADDRESS:PORT/agents/agent-….git
        host.template                           # http://ADDRESS:PORT/agents/{agentId}.git
        host.token("memfs")                     # account → access token (HTTP Basic: account, token)
        host.ssh_url("agents/agent-….git")      # ssh=True: ssh://git-user@ADDRESS:PORT/agents/…
        host.key("memfs"), host.known_hosts     # ssh key of an account, a file that knows the host's key
        host.repository("agents/agent-….git")   # the folder on the host's disk
        host.webhook(url, secret)               # every push to any branch is delivered there, Gitea's way
        host.deliveries                         # [(url, event, status or None)] so far
        host.kill(); host.start()               # SIGKILL to all of it; the same addresses again
        host.revoke("memfs"); host.restore("memfs")

What is on it (CONF below): below agents/ the accounts memfs and anna make private repositories by using them
and may do everything in them, forced pushes too: what nobody prevents, a watcher can see (lib/refwatch.py);
reader reads.  Below locked/ main is protected.  Below sealed/ nobody can make a repository.  outsider has an
account and no rights.  tls=(certificate, key): https.

Deliveries are made one after the other, signed with HMAC-SHA256, 5 s at most each, never repeated, as Gitea
does it (docs/hosts.md).
"""
import base64
import glob
import hashlib
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from contextlib import nullcontext

from .sshd import Sshd

SHELL = "/usr/share/gitolite3/gitolite-shell"
ACCOUNTS = ("memfs", "anna", "reader", "outsider")
PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

CONF = """
repo gitolite-admin
    RW+ = admin

repo agents/..*
    C = memfs anna
    RW+ = memfs anna
    R = reader

repo locked/..*
    C = memfs
    - refs/heads/main = memfs
    RW+ = memfs
    RW+ = anna

repo sealed/..*
    RW+ = memfs
"""

RC = """%RC = (
    UMASK => 0077,
    GIT_CONFIG_KEYS => '.*',
    LOG_DEST => '',
    ROLES => { READERS => 1, WRITERS => 1 },
    ENABLE => [ 'ssh-authkeys', 'git-config' ],
);
1;
"""

# One file a ref and push, whole from the start: the queue of deliveries.
HOOK = """#!/bin/sh
while read -r old new ref; do
    spool={spool}
    name=$(date +%s%N)-$$
    printf '%s %s %s %s\\n' "$old" "$new" "$ref" "$GL_REPO" >"$spool/tmp-$name"
    mv "$spool/tmp-$name" "$spool/new-$name"
done
"""

NGINX = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address}:{port}{tls};
        location / {{
            auth_basic "gitolite";
            auth_basic_user_file {folder}/tokens;
            include /etc/nginx/fastcgi_params;
            fastcgi_read_timeout 120;
            fastcgi_param SCRIPT_FILENAME {shell};
            fastcgi_param GITOLITE_HTTP_HOME {home};
            fastcgi_param GIT_PROJECT_ROOT {home}/repositories;
            fastcgi_param GIT_HTTP_EXPORT_ALL "";
            fastcgi_param GIT_PROTOCOL $http_git_protocol;
            fastcgi_param REMOTE_USER $remote_user;
            fastcgi_param PATH_INFO $uri;
            fastcgi_pass unix:{folder}/fcgi.sock;
        }}
    }}
}}
"""


def free_port(address="127.0.0.1"):
    with socket.create_server((address, 0)) as s:
        return s.getsockname()[1]


class Gitolite:
    def __init__(self, folder, machine=None, tls=None, ssh=False, children=4):
        self.folder = os.path.join(str(folder), "gitolite")
        self.home = os.path.join(self.folder, "home")
        self.machine, self.tls, self.children = machine, tls, children
        self.address = machine.address if machine else "127.0.0.1"
        with self._inside():
            self.port = free_port(self.address)
        self.tokens = {name: "glt" + secrets.token_hex(20) for name in ACCOUNTS}
        self.processes, self.hooks, self.deliveries = [], [], []
        self.halt, self.courier, self.sshd = threading.Event(), None, None
        self.spool = os.path.join(self.folder, "spool")
        os.makedirs(self.spool)
        os.makedirs(self.home, mode=0o700)
        self._set_up()
        if ssh:
            self.sshd = Sshd(self.folder, host=self.address, inside=self._inside, start=False,
                             authorized_keys=os.path.join(self.home, ".ssh", "authorized_keys"),
                             config=f"SetEnv HOME={self.home}\n")
        self.start()

    def _inside(self):
        return self.machine.inside() if self.machine else nullcontext()

    # -- set-up --------------------------------------------------------------------------------------

    def env(self):
        return {"PATH": PATH, "HOME": self.home, "LC_ALL": "C", "TZ": "UTC",
                "USER": "git", "GIT_CONFIG_NOSYSTEM": "1"}

    def gitolite(self, *args):
        done = subprocess.run(["/usr/bin/gitolite", *args], env=self.env(), cwd=self.home,
                              capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout.decode()

    def _set_up(self):
        keys = os.path.join(self.folder, "keys")
        os.makedirs(keys, mode=0o700)
        for name in ("admin", *ACCOUNTS):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f",
                            os.path.join(keys, name)], check=True, timeout=60)
        with open(os.path.join(self.home, ".gitolite.rc"), "w") as f:
            f.write(RC)
        with open(os.path.join(self.home, ".gitconfig"), "w") as f:
            f.write("[init]\n\tdefaultBranch = main\n[http]\n\treceivepack = true\n[gc]\n\tauto = 0\n"
                    "[receive]\n\tautogc = false\n[safe]\n\tdirectory = *\n"
                    "[core]\n\tlogAllRefUpdates = always\n")
        self.gitolite("setup", "-pk", os.path.join(keys, "admin.pub"))
        hooks = os.path.join(self.home, ".gitolite", "hooks", "common")
        with open(os.path.join(hooks, "post-receive"), "w") as f:
            f.write(HOOK.format(spool=self.spool))
        os.chmod(os.path.join(hooks, "post-receive"), 0o755)
        keydir = os.path.join(self.home, ".gitolite", "keydir")
        os.makedirs(keydir, exist_ok=True)
        for name in ACCOUNTS:
            shutil.copy(os.path.join(keys, name + ".pub"), keydir)
        self.configure(CONF)
        self.gitolite("setup", "--hooks-only")
        self._write_tokens()

    def configure(self, text):
        """Other rules from now on (the language of gitolite.conf)."""
        with open(os.path.join(self.home, ".gitolite", "conf", "gitolite.conf"), "w") as f:
            f.write(text)
        self.gitolite("compile")
        self.gitolite("trigger", "POST_COMPILE")

    def _write_tokens(self, without=()):
        path = os.path.join(self.folder, "tokens")
        with open(path + ".new", "w") as f:
            for name, token in self.tokens.items():
                if name not in without:
                    digest = base64.b64encode(hashlib.sha1(token.encode()).digest()).decode()
                    f.write(f"{name}:{{SHA}}{digest}\n")
        os.rename(path + ".new", path)

    # -- life ----------------------------------------------------------------------------------------

    def start(self):
        if self.processes:
            return self
        conf = os.path.join(self.folder, "nginx.conf")
        tls = ""
        if self.tls:
            tls = f" ssl;\n        ssl_certificate {self.tls[0]};\n" \
                  f"        ssl_certificate_key {self.tls[1]}"
        with open(conf, "w") as f:
            f.write(NGINX.format(folder=self.folder, home=self.home, address=self.address, tls=tls,
                                 port=self.port, shell=SHELL))
        sock = os.path.join(self.folder, "fcgi.sock")
        if os.path.exists(sock):
            os.unlink(sock)
        with open(os.path.join(self.folder, "fcgi.log"), "ab") as log, self._inside():
            quiet = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": "/",
                     "start_new_session": True, "env": {"PATH": PATH}}
            self.processes = [
                subprocess.Popen([shutil.which("fcgiwrap", path=PATH), "-c", str(self.children),
                                  "-s", "unix:" + sock], **quiet),
                subprocess.Popen([shutil.which("nginx", path=PATH), "-p", self.folder, "-c", conf],
                                 **quiet)]
            self._wait_port()
        if self.sshd:
            self.sshd.start()
        if self.courier is None:
            self.halt.clear()
            self.courier = (self.machine.thread(self._deliver) if self.machine else
                            threading.Thread(target=self._deliver, daemon=True))
            if not self.machine:
                self.courier.start()
        return self

    def _wait_port(self):
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.processes[1].poll() is not None:
                    raise AssertionError("the host did not start:\n" + self.log())
                time.sleep(0.02)

    def kill(self):
        """SIGKILL to nginx, fcgiwrap, sshd and whatever git they have running."""
        for p in self.processes:
            try:
                os.killpg(p.pid, signal.SIGKILL)    # the groups are ours: start_new_session
            except ProcessLookupError:
                pass
            p.wait(20)
        self.processes = []
        if self.sshd:
            self.sshd.stop()
        for lock in glob.glob(self.home + "/repositories/**/*.lock", recursive=True):
            os.unlink(lock)     # what an operator does with a host that crashed

    @property
    def running(self):
        return bool(self.processes)

    def close(self):
        self.halt.set()
        if self.courier:
            self.courier.join(20)
            self.courier = None
        self.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def log(self):
        out = ""
        for name in ("nginx.log", "fcgi.log", "access.log"):
            path = os.path.join(self.folder, name)
            if os.path.exists(path):
                with open(path, errors="replace") as f:
                    out += f"-- {name}\n" + "".join(f.readlines()[-40:])
        return out

    # -- addresses, accounts -------------------------------------------------------------------------

    @property
    def base(self):
        return f"{'https' if self.tls else 'http'}://{self.address}:{self.port}"

    def url(self, path):
        return f"{self.base}/{path}"

    @property
    def template(self):
        return self.url("agents/{agentId}.git")

    def ssh_url(self, path):
        return self.sshd.url("/" + path)

    def repository(self, path):
        return os.path.join(self.home, "repositories", path)

    @property
    def root(self):
        return os.path.join(self.home, "repositories")

    def token(self, account):
        return self.tokens[account]

    def key(self, account):
        return os.path.join(self.folder, "keys", account)

    @property
    def known_hosts(self):
        return self.sshd.known_hosts

    def revoke(self, account):
        self._write_tokens(without=(account,))

    def restore(self, account, token=None):
        self.tokens[account] = token or self.tokens[account]
        self._write_tokens()

    def tip(self, path, ref="refs/heads/main"):
        done = subprocess.run(["/usr/bin/git", "--git-dir", self.repository(path), "rev-parse", "-q",
                               "--verify", ref], capture_output=True, timeout=60, env=self.env())
        return done.stdout.decode().strip() or None

    # -- webhooks ------------------------------------------------------------------------------------

    def webhook(self, url, secret):
        self.hooks.append((url, secret))

    def _deliver(self):
        while not self.halt.is_set():
            waiting = sorted(n for n in os.listdir(self.spool) if n.startswith("new-"))
            for name in waiting:
                path = os.path.join(self.spool, name)
                with open(path) as f:
                    old, new, ref, repo = f.read().split()
                os.unlink(path)
                for url, secret in list(self.hooks):
                    self.deliveries.append((url, new, self._post(url, secret, old, new, ref, repo)))
            if not waiting:
                self.halt.wait(0.004)

    def payload(self, old, new, ref, repo):
        owner, _, name = repo.rpartition("/")
        repository = {"id": 1, "owner": {"login": owner}, "name": name, "full_name": repo,
                      "private": True, "html_url": self.url(repo), "clone_url": self.url(repo + ".git"),
                      "ssh_url": self.ssh_url(repo + ".git") if self.sshd else "",
                      "default_branch": "main", "object_format_name": "sha1"}
        return {"ref": ref, "before": old, "after": new, "compare_url": "", "commits": [],
                "total_commits": 0, "head_commit": None, "repository": repository,
                "pusher": {"login": "memfs"}, "sender": {"login": "memfs"}}

    def _post(self, url, secret, old, new, ref, repo):
        body = json.dumps(self.payload(old, new, ref, repo)).encode()
        sign = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        delivery = str(uuid.uuid4())
        head = {"Content-Type": "application/json", "X-Gitea-Event": "push",
                "X-Gitea-Event-Type": "push", "X-GitHub-Event": "push", "X-Gogs-Event": "push",
                "X-Gitea-Delivery": delivery, "X-GitHub-Delivery": delivery,
                "X-Gitea-Signature": sign, "X-Hub-Signature-256": "sha256=" + sign}
        try:
            request = urllib.request.Request(url, body, head, method="POST")
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return None
