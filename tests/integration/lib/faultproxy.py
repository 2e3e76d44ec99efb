"""A TCP proxy that treats connections as bad networks do.

    with FaultProxy("127.0.0.1", port) as p:     # host= and on= where it listens
        url = p.url(server_url)                  # the same address, through the proxy
        p.behave("pass")                         # as if it were not there
        p.behave("delay", 0.2)                   # every piece 0.2 s later, both ways
        p.behave("refuse")                       # nobody listens
        p.behave("silent")                       # accepts, swallows, never says a byte (black hole)
        p.behave("cut", 1000)                    # both ends close after 1000 bytes of the answer
        p.behave("reset", 1000)                  # likewise, with a RST
        p.behave("half-open", 1000)              # from then on nothing is delivered, nothing is closed
        p.behave("garbage", 1000)                # from then on the answer is noise
        p.behave("flip", 97)                     # every 97th byte of the answer has a bit flipped
        p.behave("drip", 1)                      # the answer comes at 1 byte a second
        p.behave("cut", 1000, side="up")         # counts what the client sends instead
        p.behave("cut", 1000, times=2)           # the next two connections, then pass
        p.drop_all()                             # every open connection is reset now
        p.connections, p.n_bad                   # how many there were; how many met a fault

A behaviour holds for connections that begin after it was set.
"""
import select
import socket
import struct
import threading
import time
from urllib.parse import urlsplit, urlunsplit

from .fake_remote import stop_listening

KINDS = ("pass", "delay", "refuse", "silent", "cut", "reset", "half-open", "garbage", "flip", "drip")


class Fault:
    def __init__(self, kind, n=0, side="down", times=1 << 30):
        assert kind in KINDS and side in ("up", "down"), (kind, side)
        self.kind, self.n, self.side, self.times = kind, n, side, times


class Ended(Exception):
    """The connection ends here; is_reset: not politely."""

    def __init__(self, is_reset=False):
        self.is_reset = is_reset


class FaultProxy:
    def __init__(self, to_host, to_port, host="127.0.0.1", on=0):
        self.to, self.host = (to_host, to_port), host
        self.fault = Fault("pass")
        self.lock = threading.Lock()
        self.open, self.connections, self.n_bad = set(), 0, 0
        self.stopping = threading.Event()
        self.listener = None
        self.port = on
        self._listen()

    # -- what a test calls ---------------------------------------------------------------------------

    def url(self, url):
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    def behave(self, kind, n=0, side="down", times=1 << 30):
        with self.lock:
            self.fault = Fault(kind, n, side, times)
        if kind == "refuse":
            self._deafen()
        elif self.listener is None:
            self._listen()
        return self

    def mend(self):
        return self.behave("pass")

    def drop_all(self):
        with self.lock:
            held = list(self.open)
        for s in held:
            reset(s)

    def close(self):
        self.stopping.set()
        self._deafen()
        self.drop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- connections ---------------------------------------------------------------------------------

    def _listen(self):
        self.listener = socket.create_server((self.host, self.port), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, args=(self.listener,), daemon=True)
        self.thread.start()

    def _deafen(self):
        listener, self.listener = self.listener, None
        if listener is not None:
            stop_listening(listener, self.thread)

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _take(self):
        """The behaviour of a connection that begins now."""
        with self.lock:
            self.connections += 1
            fault = self.fault
            if fault.times <= 0:
                return Fault("pass")
            fault.times -= 1
            if fault.kind != "pass":
                self.n_bad += 1
            return fault

    def _serve(self, client):
        fault = self._take()
        server = None
        with self.lock:
            self.open.add(client)
        try:
            if fault.kind == "silent":
                self._swallow(client)
                return
            server = socket.create_connection(self.to, timeout=20)
            server.settimeout(None)
            with self.lock:
                self.open.add(server)
            self._carry(client, server, fault)
        except Ended as e:
            if e.is_reset:
                reset(client)
        except OSError:
            pass
        finally:
            for s in (client, server):
                if s is not None:
                    with self.lock:
                        self.open.discard(s)
                    s.close()

    def _swallow(self, client):
        while not self.stopping.is_set() and client.recv(65536):
            pass

    def _carry(self, client, server, fault):
        other = {client: server, server: client}
        side = {client: "up", server: "down"}
        seen = {"up": 0, "down": 0}
        reading = [client, server]
        while reading and not self.stopping.is_set():
            ready, _, _ = select.select(reading, [], [], 1)
            for s in ready:
                data = s.recv(65536)
                if not data:
                    reading.remove(s)
                    other[s].shutdown(socket.SHUT_WR)
                    continue
                way = side[s]
                self._pass_on(other[s], data, fault, fault.side == way, seen[way])
                seen[way] += len(data)

    def _pass_on(self, to, data, fault, is_its_side, before):
        if fault.kind == "delay":
            time.sleep(fault.n)
        elif fault.kind == "drip" and is_its_side:
            return self._drip(to, data, fault.n)
        elif fault.kind == "flip" and is_its_side:
            data = flipped(data, fault.n, before)
        elif fault.kind in ("cut", "reset", "half-open", "garbage") and is_its_side and \
                before + len(data) > fault.n:
            good = max(0, fault.n - before)
            to.sendall(data[:good])
            data = self._spoil(fault, len(data) - good)
        to.sendall(data)

    def _spoil(self, fault, n):
        if fault.kind == "cut":
            raise Ended()
        if fault.kind == "reset":
            raise Ended(is_reset=True)
        if fault.kind == "half-open":
            self.stopping.wait(600)
            raise Ended()
        return bytes((i * 197 + 13) & 255 for i in range(n))

    def _drip(self, to, data, per_s):
        for i in range(len(data)):
            to.sendall(data[i:i + 1])
            if self.stopping.wait(1 / per_s):
                raise Ended()


def flipped(data, every, before):
    out = bytearray(data)
    for i in range(-before % every, len(out), every):
        out[i] ^= 0x10
    return bytes(out)


def reset(s):
    """Closes with a RST."""
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.shutdown(socket.SHUT_RD)
        s.close()
    except OSError:
        pass
