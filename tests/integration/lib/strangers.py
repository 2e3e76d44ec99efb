"""Servers that a database knows and that are none of ours: what they are asked, and what they answer."""
import hashlib
import http.server
import threading


class Stranger:
    """A row of `servers` whose address answers nothing before it is released, and then 500.

    with Stranger(cluster, seen="clock_timestamp()") as s:      s.asked      s.go.set()
    """

    NAME = "f" * 32
    PATIENCE = 120

    def __init__(self, cluster, seen="clock_timestamp() + interval '1 hour'"):
        self.cluster, self.seen, self.asked, self.go = cluster, seen, [], threading.Event()
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                stub.asked.append((self.command, self.path, self.headers.get("Authorization")))
                stub.go.wait(stub.PATIENCE)
                self.send_error(500)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        self.cluster.sql("INSERT INTO servers(name, url, token_hash, seen_at) VALUES "
                         f"('{self.NAME}', '{self.url}', decode(repeat('ab', 32), 'hex'), {self.seen})")
        return self

    def takes(self, agent):
        """It seems to have a commit that nobody else has."""
        self.cluster.sql("UPDATE tips SET tip = decode(repeat('ab', 20), 'hex'), generation = "
                         "nextval('generation'), holder = (SELECT server_no FROM servers WHERE name = "
                         f"'{self.NAME}') WHERE agent_id = '{agent}'")

    def gives_back(self, agent, tip):
        self.cluster.sql(f"UPDATE tips SET tip = '\\x{tip}', holder = NULL WHERE agent_id = '{agent}'")

    def __exit__(self, *_):
        self.go.set()
        self.cluster.sql(f"DELETE FROM servers WHERE name = '{self.NAME}'")
        self.http.shutdown()
        self.http.server_close()


def is_first_for(agent, name, others):
    """Is this server the first one to be asked for a copy, by the hash of agent and server?"""
    def weight(n):
        return int.from_bytes(hashlib.md5(f"{agent} {n}".encode()).digest()[:8], "little")
    return all(weight(name) > weight(other) for other in others)
