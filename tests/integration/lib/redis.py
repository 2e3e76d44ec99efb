"""A Redis for a Letta server under test, whose clients want one (Letta's own image brings it)."""
import os
import subprocess
import time

from . import http


class Redis:
    """with Redis(folder, port) as redis: …; keeps nothing on disk."""

    def __init__(self, folder, port):
        self.folder, self.port, self.process = str(folder), port, None
        os.makedirs(self.folder, exist_ok=True)

    def __enter__(self):
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.process = subprocess.Popen(
                ["/usr/bin/redis-server", "--bind", "127.0.0.1", "--port", str(self.port),
                 "--save", "", "--dir", self.folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                http.connect(self.port, 5).close()
                return self
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        raise AssertionError("redis-server did not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(30)

    @property
    def env(self):
        return {"LETTA_REDIS_HOST": "127.0.0.1", "LETTA_REDIS_PORT": str(self.port)}
