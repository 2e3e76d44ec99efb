"""strace on a running server: to see the order of its calls, to make them fail or kill."""
import os
import re
import shutil
import signal
import subprocess
import time

import pytest


class Trace:
    """with Trace(pid, out, "-e", "trace=fsync"): …    all threads and later children"""

    def __init__(self, pid, out, *options):
        if shutil.which("strace") is None:
            pytest.skip("no strace")
        self.pid, self.out = pid, str(out)
        self.process = subprocess.Popen(
            ["strace", "-f", "-p", str(pid), "-o", self.out, *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._wait_attached()

    def _wait_attached(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.skip(f"strace cannot attach: {self.process.stderr.read().decode()}")
            try:
                traced = [_tracer(self.pid, t) for t in os.listdir(f"/proc/{self.pid}/task")]
            except OSError:
                return
            if traced and all(traced):
                return
            time.sleep(0.005)
        raise AssertionError("strace did not attach")

    def detach(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            # strace waits for a killed tracee until its own parent has reaped it: that is us
            deadline = time.monotonic() + (10 if _is_alive(self.pid) else 0.1)
            while self.process.poll() is None and time.monotonic() < deadline:
                if not _is_alive(self.pid):
                    deadline = min(deadline, time.monotonic() + 0.1)
                time.sleep(0.005)
            self.process.kill()
            self.process.wait(10)
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.detach()

    def lines(self):
        try:
            with open(self.out, encoding="utf-8", errors="replace") as f:
                return f.read().splitlines()
        except OSError:
            return []

    @property
    def injected(self):
        """Lines whose call was made to fail."""
        return [line for line in self.lines() if "(INJECTED)" in line]

    def calls(self):
        """(pid, name, text) in order of completion; cut calls are put together again."""
        open_calls, out = {}, []
        for line in self.lines():
            found = re.match(r"(\d+)\s+(.*)", line)
            if not found:
                continue
            pid, text = found.groups()
            if text.endswith("<unfinished ...>"):
                open_calls[pid] = text[:-len("<unfinished ...>")]
                continue
            resumed = re.match(r"<\.\.\. (\w+) resumed>(.*)", text)
            if resumed:
                text = open_calls.pop(pid, resumed.group(1) + "(") + resumed.group(2)
            name = re.match(r"(\w+)\(", text)
            if name:
                out.append((pid, name.group(1), text))
        return out


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _tracer(pid, task):
    with open(f"/proc/{pid}/task/{task}/status", encoding="ascii", errors="replace") as f:
        return int(re.search(r"TracerPid:\s+(\d+)", f.read()).group(1))
