"""Who sees every name that appears or goes below a folder, in order: inotify, by ctypes.

    with Watched(path) as w:
        …
    w.events        [(what, path below the folder)]; what: "made", "came", "gone", "left"
"""
import ctypes
import os
import select
import struct
import threading

CREATE, DELETE, MOVED_FROM, MOVED_TO, ISDIR = 0x100, 0x200, 0x40, 0x80, 0x40000000
WORDS = {CREATE: "made", DELETE: "gone", MOVED_FROM: "left", MOVED_TO: "came"}
libc = ctypes.CDLL(None, use_errno=True)


class Watched:
    def __init__(self, path):
        self.path, self.events, self.folders = str(path), [], {}
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _add(self, path):
        n = libc.inotify_add_watch(self.fd, path.encode(), CREATE | DELETE | MOVED_FROM | MOVED_TO)
        if n >= 0:
            self.folders[n] = path
        for name in os.listdir(path) if os.path.isdir(path) else ():
            if os.path.isdir(os.path.join(path, name)):
                self._add(os.path.join(path, name))

    def __enter__(self):
        self._add(self.path)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self._drain()
        os.close(self.fd)

    def _drain(self):
        while True:
            try:
                data = os.read(self.fd, 1 << 20)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                watch, mask, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16:at + 16 + size].rstrip(b"\0").decode()
                at += 16 + size
                full = os.path.join(self.folders.get(watch, "?"), name)
                for bit, word in WORDS.items():
                    if mask & bit:
                        self.events.append((word, os.path.relpath(full, self.path)))
                if mask & ISDIR and mask & (CREATE | MOVED_TO):
                    self._add(full)

    def _run(self):
        while not self.stopping.is_set():
            if select.select([self.fd], [], [], 0.05)[0]:
                self._drain()
