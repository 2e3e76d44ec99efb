"""https git servers with a CA of the test's own.

    ca = Authority(folder)
    ca.file                            PEM file, for --ca-file / http.sslCAInfo
    ctx = ca.context()                 server side for localhost and 127.0.0.1
    ctx = ca.context(names=["other.example"])           wrong name
    ctx = ca.context(expired=True)                      ended yesterday
    ctx = Authority(elsewhere).context()                unknown CA
    ctx = ca.context(max_version=ssl.TLSVersion.TLSv1_1)  an old server

    with TlsGit(folder, token="…") as r:   a FakeRemote (lib/fake_remote.py: faults, answers, requests) over
        r.url("a.git"), r.ca.file          TLS that serves real git and wants the token

    with HandshakeCut() as h: h.port       closes in the middle of the handshake
    with HandshakeCut("hang") as h:        never answers the first flight
"""
import os
import socket
import ssl
import subprocess
import threading

from .fake_remote import FakeRemote, stop_listening


def _openssl(*args):
    subprocess.run(["/usr/bin/openssl", *args], check=True, capture_output=True, timeout=60)


class Authority:
    def __init__(self, folder, name="memfs test CA"):
        self.folder = os.path.join(str(folder), "ca")
        os.makedirs(self.folder, exist_ok=True)
        self.key, self.file = self._path("ca.key"), self._path("ca.pem")
        self.n = 0
        if not os.path.exists(self.file):
            self._new_key(self.key)
            _openssl("req", "-x509", "-new", "-key", self.key, "-subj", "/CN=" + name, "-days",
                     "3650", "-out", self.file, "-addext", "basicConstraints=critical,CA:TRUE",
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def _path(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def _new_key(path):
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)

    def certificate(self, names=("localhost", "127.0.0.1"), expired=False):
        """Paths of a chain and its key."""
        self.n += 1
        key, request, out, extra = (self._path(f"{self.n}.{e}") for e in ("key", "csr", "pem", "ext"))
        self._new_key(key)
        kinds = ["IP:" + n if n.replace(".", "").isdigit() else "DNS:" + n for n in names]
        with open(extra, "w") as f:
            f.write("subjectAltName=" + ",".join(kinds) + "\nextendedKeyUsage=serverAuth\n"
                    "basicConstraints=CA:FALSE\n")
        _openssl("req", "-new", "-key", key, "-subj", "/CN=" + names[0], "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key,
                 "-set_serial", str(1000 + self.n), "-days", "-1" if expired else "30",
                 "-extfile", extra, "-out", out)
        return out, key

    def context(self, names=("localhost", "127.0.0.1"), expired=False, max_version=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if max_version is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = max_version
        context.load_cert_chain(*self.certificate(names, expired))
        return context


class TlsGit(FakeRemote):
    def __init__(self, folder, token=None, context=None, **kw):
        self.ca = Authority(folder)
        super().__init__(root=os.path.join(str(folder), "tlsgit"), token=token,
                         tls=context or self.ca.context(), **kw)


class HandshakeCut:
    def __init__(self, how="cut"):
        self.how = how
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.kept = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            if self.how == "hang":
                self.kept.append(c)
                continue
            try:
                c.recv(5)
                c.sendall(b"\x16\x03\x03")  # the first bytes of a record that never comes
            except OSError:
                pass
            c.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop_listening(self.listener, self.thread)
        for c in self.kept:
            c.close()
