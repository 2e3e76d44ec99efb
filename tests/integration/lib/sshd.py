"""An sshd of the test's own: free port, own host key, one client key, nothing of the machine's.

    with Sshd(folder) as s:
        s.url("/srv/a.git")     ssh://USER@127.0.0.1:PORT/srv/a.git
        s.key                   the client's private key (file); s.stranger: a key nobody allowed
        s.known_hosts           file that knows the host key; s.no_known_hosts: an empty one
        s.change_host_key()     the server comes back with another key: as a man in the middle has it
        s.log()                 what sshd said
    Sshd(folder, host=…, inside=machine.inside, authorized_keys=…, config="…")    elsewhere, with other rules
    env = s.home_env(home)      puts key and known_hosts where ssh finds them: $HOME/.ssh

Runs as the user of the test (root in CI); Debian's openssh-server.  git-upload-pack and git-receive-pack are
found by the login shell's default PATH.
"""
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import nullcontext

SSHD = "/usr/sbin/sshd"


class Sshd:
    def __init__(self, folder, host="127.0.0.1", inside=nullcontext, start=True,
                 authorized_keys=None, config=""):
        self.folder = os.path.join(str(folder), "sshd")
        self.host, self.inside, self.extra = host, inside, config
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if os.getuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # privilege separation wants it
        self.user = getpass.getuser()
        self.process = None
        self.key = self._make_key("client")
        self.stranger = self._make_key("stranger")
        self.host_key = self._make_key("host")
        self.known_hosts = os.path.join(self.folder, "known_hosts")
        self.no_known_hosts = os.path.join(self.folder, "no_known_hosts")
        open(self.no_known_hosts, "w").close()
        with inside(), socket.create_server((host, 0)) as s:
            self.port = s.getsockname()[1]
        self.authorized_keys = authorized_keys or os.path.join(self.folder, "authorized_keys")
        if authorized_keys is None:
            shutil.copy(self.key + ".pub", self.authorized_keys)
        self._write_known_hosts()
        if start:
            self.start()

    def _make_key(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path],
                           check=True, timeout=60)
        return path

    def _write_known_hosts(self):
        with open(self.host_key + ".pub") as f:
            kind, key = f.read().split()[:2]
        with open(self.known_hosts, "w") as f:
            f.write(f"[{self.host}]:{self.port} {kind} {key}\n")

    def start(self):
        config = os.path.join(self.folder, "config")
        with open(config, "w") as f:
            f.write(f"Port {self.port}\nListenAddress {self.host}\nHostKey {self.host_key}\n"
                    f"AuthorizedKeysFile {self.authorized_keys}\nPidFile none\n"
                    "StrictModes no\nUsePAM no\nPasswordAuthentication no\n"
                    "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
                    "PrintMotd no\nMaxStartups 100\nLogLevel VERBOSE\n" + self.extra)
        with open(os.path.join(self.folder, "log"), "ab") as log, self.inside():
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        with self.inside():
            while time.monotonic() < deadline:
                try:
                    socket.create_connection((self.host, self.port), timeout=1).close()
                    return self
                except OSError:
                    if self.process.poll() is not None:
                        break
                    time.sleep(0.02)
        raise AssertionError("sshd did not start:\n" + self.log())

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.process = None

    def change_host_key(self):
        self.stop()
        self.host_key = self._make_key("host-" + str(time.monotonic_ns()))
        return self.start()

    def url(self, path, user=None):
        return f"ssh://{user or self.user}@{self.host}:{self.port}{path}"

    def log(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            return f.read()

    def home_env(self, home):
        ssh = os.path.join(str(home), ".ssh")
        os.makedirs(ssh, mode=0o700, exist_ok=True)
        shutil.copy(self.key, os.path.join(ssh, "id_ed25519"))
        os.chmod(os.path.join(ssh, "id_ed25519"), 0o600)
        shutil.copy(self.known_hosts, os.path.join(ssh, "known_hosts"))
        return {"HOME": str(home)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
