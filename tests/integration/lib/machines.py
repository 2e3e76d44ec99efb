"""Several machines on one Linux: network namespaces with addresses of their own on one switch.

    with Network() as net:
        anna = net.machine("anna")          # 10.77.0.11
        host = net.machine("host")          # 10.77.0.12
        anna.popen([...], stdout=…)         # a process that lives there
        anna.run([...])                     # likewise, to its end; check=True
        with anna.inside():                 # this thread's new sockets and children are anna's
            http.request(port, "GET", "/")
        anna.thread(work, 1, 2)             # a thread that lives there
        anna.cut(); anna.heal()             # its cable; what was under way hangs, as in life
        anna.lose("host")                   # packets from anna to host vanish, one way only
        anna.clock("+3y")                   # environment for a process whose wall clock is off

The switch is in a namespace too, so nothing of the machine's own network changes.  A namespace's loopback
is its own: every machine can have the same port.  A machine that is cut off keeps its processes, and what
runs inside reaches them over loopback as before.

At the end the processes inside are killed (all that live in these namespaces were started here) and the
namespaces removed; those that a killed test run left behind are removed when the next one begins.
Needs root and Debian's iproute2; clocks need faketime, one-way loss nftables.
"""
import ctypes
import glob
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

from .server import sanitizer_library

PREFIX = "mft"
SUBNET = "10.77.0."
CLONE_NEWNET = 0x40000000
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"

libc = ctypes.CDLL(None, use_errno=True)


def ip(*args, check=True):
    done = subprocess.run(["ip", *args], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise AssertionError(f"ip {' '.join(args)}: {done.stderr.decode()}")
    return done.stdout.decode()


def enter(path):
    """This thread, and no other, changes into a namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns " + path)
    finally:
        os.close(fd)


class Machine:
    def __init__(self, network, name, number):
        self.network, self.name = network, name
        self.netns = network.space(name)
        self.path = "/run/netns/" + self.netns
        self.address = SUBNET + str(10 + number)
        self.port = f"p{number}"    # of the switch
        self.is_cut = False
        ip("netns", "add", self.netns)
        ip("-n", self.netns, "link", "set", "lo", "up")
        ip("-n", network.switch, "link", "add", self.port, "type", "veth", "peer", "name", "eth0",
           "netns", self.netns)
        ip("-n", network.switch, "link", "set", self.port, "master", "br0", "up")
        ip("-n", self.netns, "address", "add", self.address + "/24", "dev", "eth0")
        ip("-n", self.netns, "link", "set", "eth0", "up")

    # -- work ------------------------------------------------------------------------------------

    @contextmanager
    def inside(self):
        here = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        fd = os.open(here, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self.path)
            yield self
        finally:
            if libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")
            os.close(fd)

    def thread(self, function, *args, **kw):
        def work():
            enter(self.path)
            function(*args, **kw)

        t = threading.Thread(target=work, daemon=True, name=self.name)
        t.start()
        return t

    def popen(self, argv, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        with self.inside():
            return subprocess.Popen(argv, **kw)

    def run(self, argv, **kw):
        kw = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 120, "check": True, **kw}
        with self.inside():
            return subprocess.run(argv, **kw)

    def pids(self):
        """Processes that live here, threads of this one apart."""
        out = ip("netns", "pids", self.netns, check=False).split()
        return [int(pid) for pid in out if int(pid) != os.getpid()]

    @staticmethod
    def clock(offset, binary=None):
        """
        The environment of a process whose wall clock is years off ("+3y", "-2y"); its monotonic clock is
        true, and so are its children's clocks unless they inherit this.  (Without the last variable its
        waits until a time of that clock end at once, and it spins.)  binary: the program, whose
        sanitizer wants to be the first among preloads.
        """
        found = glob.glob(FAKETIME)
        if not found:
            raise AssertionError("libfaketime is missing: scripts/deps test")
        first = sanitizer_library(binary) if binary else None
        return {"LD_PRELOAD": ":".join(x for x in (first, found[0]) if x), "FAKETIME": offset,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "0",
                "FAKETIME_DISABLE_SHM": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}

    # -- the cable -------------------------------------------------------------------------------

    def cut(self):
        self.is_cut = True
        ip("-n", self.network.switch, "link", "set", self.port, "down")

    def heal(self):
        ip("-n", self.network.switch, "link", "set", self.port, "up")
        self.is_cut = False
        self._nft("delete table inet lost", check=False)

    def lose(self, other):
        """Packets from here to the other vanish; what it sends arrives.  Until heal()."""
        self._nft("add table inet lost; "
                  "add chain inet lost out { type filter hook output priority 0; }; "
                  f"add rule inet lost out ip daddr {self.network.machines[other].address} drop")

    def _nft(self, rules, check=True):
        done = subprocess.run(["/usr/sbin/ip", "netns", "exec", self.netns, "/usr/sbin/nft", rules],
                              capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, done.stderr


class Network:
    def __init__(self):
        self.machines = {}
        self.switch = self.space("switch")

    @staticmethod
    def space(name):
        return f"{PREFIX}-{os.getpid()}-{threading.get_native_id()}-{name}"

    def __enter__(self):
        sweep()
        ip("netns", "add", self.switch)
        try:
            ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0",
               "stp_state", "0")
            ip("-n", self.switch, "link", "set", "br0", "up")
        except BaseException:
            remove(self.switch)
            raise
        return self

    def __exit__(self, *_):
        for m in self.machines.values():
            remove(m.netns)
        remove(self.switch)

    def machine(self, name):
        assert name not in self.machines and re.fullmatch(r"[a-z0-9]{1,20}", name), name
        m = Machine.__new__(Machine)
        try:
            m.__init__(self, name, len(self.machines) + 1)
        except BaseException:
            remove(self.space(name))
            raise
        self.machines[name] = m
        return m

    def __getitem__(self, name):
        return self.machines[name]

    def heal(self):
        for m in self.machines.values():
            m.heal()


def remove(netns):
    """The processes in a namespace, by pid, then the namespace."""
    for _ in range(50):
        pids = [int(p) for p in ip("netns", "pids", netns, check=False).split()
                if int(p) != os.getpid()]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    ip("netns", "delete", netns, check=False)


def sweep():
    """What a test run that was killed left behind."""
    for line in ip("netns", "list", check=False).splitlines():
        found = re.match(PREFIX + r"-(\d+)-\d+-", line)
        if found and not os.path.exists("/proc/" + found.group(1)):
            remove(line.split()[0])
