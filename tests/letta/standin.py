"""standin.py - what a Letta server does beside memory, as small as the real client allows.

The letta-code command line talks to two servers: one for git (memfs, the thing under test) and one
for everything else.  This is the second: agents, their tags, conversations, and a model that
always says the same line.  Before it says it, a turn may have the client run a command with its own
shell tool: that is how "the agent made a commit".  Agents that the client makes (--new-agent, and
what its subagents are) are kept in `made`, and `command_for_made` is what each is told to run.

Versions up to 0.22 know one base URL only.  For them the stand-in passes /v1/git on to memfs as a
gateway would: bodies stream in both directions, nothing is gathered, nothing is changed.  What
memfs answers besides git (secrets, repositories, blocks) is asked of memfs for every version.

Without a memfs (memfs_url None) it is a stock server with no memfs service: 501 on /v1/git, in
`refused`, and nothing that could be shared.  serve() may be called at any time: "then a server
answers", which need not be memfs; one that only has git is asked for nothing else.

It wants the key that it was given on every git request that it passes on, and challenges those
without, so that a checkout's credential helper gets its chance.

Every request is logged as (method, target, status), in order; what was passed on also in `passed`,
with the status that memfs gave.

Thread: one thread a connection; the log and the agents are guarded by a lock.
"""

import base64
import http.client
import json
import re
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LINE = "Noted."
HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te",
              "trailers", "transfer-encoding", "upgrade", "host"}
CHUNK = 64 * 1024
# Paths that memfs answers.
MEMFS_OWN = re.compile(r"^/v1/(git/|agents/[^/]+/(secrets|repositories|core-memory/))")


def agent_named(agent_id, name):
    return {
        "id": agent_id, "name": name, "agent_type": "letta_v1_agent", "tags": [],
        "system": "You remember things.", "model": "anthropic/one-line",
        "llm_config": {"model": "one-line", "model_endpoint_type": "anthropic",
                       "model_endpoint": "http://127.0.0.1:9", "context_window": 32000,
                       "provider_name": "anthropic", "handle": "anthropic/one-line"},
        "embedding_config": None, "tools": [], "blocks": [], "sources": [],
        "memory": {"blocks": []}, "message_ids": [], "metadata": {}, "description": None,
        "created_at": "2026-01-02T03:04:05Z", "secrets": [], "tool_rules": [],
        "identities": [], "managed_group": None, "message_buffer_autoclear": False,
    }


class StandIn:
    """The server; `with StandIn(agent_id, memfs_url) as s:` runs it on s.url."""

    def __init__(self, agent_id, memfs_url, key):
        self.agent = agent_named(agent_id, "Ada")
        self.agents = {agent_id: self.agent}
        self.conversations = {}  # id -> agent id
        self.made = []           # ids of agents that clients made, in order
        self.memfs_url, self.has_only_git, self.key = memfs_url, False, key
        self.basic = "Basic " + base64.b64encode(b"letta:" + key.encode()).decode()
        self.command = None  # the client's shell runs it in the next turn (a dict: that tool call)
        self.output = None   # and this is what it printed
        self.command_for_made = None  # the same for each agent that is made, in its first turn
        self.waiting = {}    # agent id -> its command
        self.outputs = {}    # agent id -> what its last tool call returned
        self.requests = []
        self.passed = []
        self.refused = []    # requests to /v1/git while there was no memfs
        self.lock = threading.Lock()
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.httpd.daemon_threads = True
        self.url = "http://127.0.0.1:%d" % self.httpd.server_address[1]

    def __enter__(self):
        self.thread = threading.Thread(target=self.httpd.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()

    def log(self, method, target, status):
        with self.lock:
            self.requests.append((method, target, status))

    def serve(self, url, has_only_git=False):
        """From now on there is somebody behind /v1/git; None: nobody."""
        self.memfs_url, self.has_only_git = url, has_only_git

    def asked(self, method, pattern):
        """The logged requests of a method whose target matches, in order."""
        with self.lock:
            return [r for r in self.requests if r[0] == method and re.search(pattern, r[1])]

    def make(self, wanted):
        """An agent as a client wants it."""
        agent_id = "agent-" + str(uuid.uuid4())
        agent = agent_named(agent_id, wanted.get("name") or "Eve")
        agent.update({k: wanted[k] for k in ("tags", "system", "model", "description")
                      if wanted.get(k)})
        with self.lock:
            self.agents[agent_id] = agent
            self.made.append(agent_id)
            if self.command_for_made:
                self.waiting[agent_id] = self.command_for_made
        return agent

    def turn(self, agent_id, body):
        """The events that answer one message.  A command is given to the client once."""
        with self.lock:
            for message in body.get("messages", []):
                for approval in message.get("approvals", []):
                    self.outputs[agent_id] = _text(approval)
                    if agent_id == self.agent["id"]:
                        self.output = self.outputs[agent_id]
            command = self.waiting.pop(agent_id, None)
            if command is None and agent_id == self.agent["id"]:
                command, self.command = self.command, None
        return tool_call_events(command) if command else line_events()


def _text(approval):
    """What a tool returned, or why it was not run, as older and newer clients send it."""
    tool_return = approval.get("tool_return", approval.get("reason"))
    if isinstance(tool_return, list):
        return "".join(part.get("text", "") for part in tool_return)
    return str(tool_return)


STAMP = {"date": "2026-01-02T03:04:05+00:00"}


def usage():
    return {"message_type": "usage_statistics", "completion_tokens": 1, "prompt_tokens": 1,
            "total_tokens": 2, "step_count": 1}


def line_events():
    """A turn that ends with the one line."""
    return [
        {"message_type": "assistant_message", "id": "message-00000000-0000-4000-8000-000000000001",
         "content": LINE, **STAMP},
        {"message_type": "stop_reason", "stop_reason": "end_turn"},
        usage(),
    ]


def tool_call_events(command):
    """A turn that wants the client to run a shell command first, or another tool of its own:
    {"name": tool, "arguments": {...}}."""
    if isinstance(command, str):
        command = {"name": "Bash",
                   "arguments": {"command": command, "description": "Keep the memory"}}
    call_id = "call-" + str(uuid.uuid4())
    return [
        {"message_type": "approval_request_message",
         "id": "message-00000000-0000-4000-8000-000000000002",
         "tool_call": {"name": command["name"], "arguments": json.dumps(command["arguments"]),
                       "tool_call_id": call_id}, **STAMP},
        {"message_type": "stop_reason", "stop_reason": "requires_approval"},
        usage(),
    ]


def _handler_of(standin):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        # -- answering ---------------------------------------------------------------------------

        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def answer_events(self, events):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            lines = ["data: " + json.dumps(e) + "\n\n" for e in events] + ["data: [DONE]\n\n"]
            for line in lines:
                self.write_chunk(line.encode())
            self.write_chunk(b"")

        def write_chunk(self, data):
            self.wfile.write(b"%x\r\n" % len(data) + data + b"\r\n")

        # -- the request body --------------------------------------------------------------------

        def body_parts(self):
            """The body piece by piece, whatever its framing."""
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                while True:
                    left = int(self.rfile.readline().split(b";")[0], 16)
                    while left > 0:
                        data = self.rfile.read(min(left, CHUNK))
                        left -= len(data)
                        yield data
                        if left == 0:
                            self.rfile.readline()
                            left = -1
                    if left == 0:
                        self.rfile.readline()
                        return
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0:
                data = self.rfile.read(min(left, CHUNK))
                if not data:
                    return
                left -= len(data)
                yield data

        def body_json(self):
            text = b"".join(self.body_parts())
            return json.loads(text) if text else None

        # -- the gateway -------------------------------------------------------------------------

        def challenge(self):
            for _ in self.body_parts():
                pass
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="letta"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def refuse(self):
            """As a stock server that has no memfs service."""
            for _ in self.body_parts():
                pass
            with standin.lock:
                standin.refused.append((self.command, self.path, dict(self.headers.items())))
            self.answer(501, {"detail": "git HTTP requires memfs service"})

        def forward(self):
            base = urllib.parse.urlsplit(standin.memfs_url)
            up = http.client.HTTPConnection(base.hostname, base.port, timeout=120)
            try:
                up.putrequest(self.command, self.path, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in HOP_BY_HOP and name.lower() != "expect":
                        up.putheader(name, value)
                chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
                if chunked:
                    up.putheader("Transfer-Encoding", "chunked")
                up.endheaders()
                for part in self.body_parts():
                    up.send(b"%x\r\n" % len(part) + part + b"\r\n" if chunked else part)
                if chunked:
                    up.send(b"0\r\n\r\n")
                got = up.getresponse()
                with standin.lock:
                    standin.passed.append((self.command, self.path, got.status))
                self.relay(got)
            finally:
                up.close()

        def relay(self, got):
            self.send_response(got.status)
            length = got.getheader("Content-Length")
            for name, value in got.getheaders():
                if name.lower() not in HOP_BY_HOP | {"server", "date"}:
                    self.send_header(name, value)
            if length is None:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                data = got.read1(CHUNK)
                if not data:
                    break
                if length is None:
                    self.write_chunk(data)
                else:
                    self.wfile.write(data)
            if length is None:
                self.write_chunk(b"")

        # -- the routes --------------------------------------------------------------------------

        def route(self):
            path = urllib.parse.urlsplit(self.path).path
            if standin.memfs_url is None and path.startswith("/v1/git/"):
                return self.refuse()
            if path.startswith("/v1/git/") and self.headers["Authorization"] != standin.basic:
                return self.challenge()
            if path.startswith("/v1/git/") or (MEMFS_OWN.match(path) and standin.memfs_url
                                               and not standin.has_only_git):
                return self.forward()
            for method, pattern, handler in ROUTES:
                found = re.fullmatch(pattern, path)
                if method == self.command and found:
                    return handler(self, *found.groups())
            self.body_json()
            return self.answer(404, {"detail": "Not Found"})

        def do(self):
            self.status = 0
            try:
                self.route()
            finally:
                standin.log(self.command, self.path, self.status)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do

        def send_response(self, code, message=None):
            self.status = code
            super().send_response(code, message)

        def log_message(self, *args):
            pass

    def health(rq):
        rq.answer(200, {"version": "0.16.8", "status": "ok"})

    def agents(rq):
        rq.answer(200, list(standin.agents.values()))

    def agent_new(rq):
        rq.answer(200, standin.make(rq.body_json()))

    def agent(rq, agent_id):
        if agent_id not in standin.agents:
            return rq.answer(404, {"detail": "Agent with ID %s not found" % agent_id})
        return rq.answer(200, standin.agents[agent_id])

    def agent_patch(rq, agent_id):
        change = rq.body_json()
        with standin.lock:
            known = standin.agents.get(agent_id, {})
            known.update({k: v for k, v in change.items() if k in known})
        agent(rq, agent_id)

    def recompile(rq, _):
        rq.body_json()
        rq.answer(200, standin.agent["system"])

    def conversation_of(rq, conversation_id, agent_id):
        rq.answer(200, {"id": conversation_id, "agent_id": agent_id, "in_context_message_ids": [],
                        "created_at": "2026-01-02T03:04:05Z"})

    def conversation_new(rq):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(rq.path).query)
        wanted = rq.body_json() or {}
        agent_id = asked.get("agent_id", [wanted.get("agent_id")])[0] or standin.agent["id"]
        conversation_id = "conv-" + str(uuid.uuid4())
        with standin.lock:
            standin.conversations[conversation_id] = agent_id
        conversation_of(rq, conversation_id, agent_id)

    def conversation(rq, conversation_id):
        rq.body_json()
        conversation_of(rq, conversation_id, standin.conversations.get(conversation_id))

    def messages_list(rq, *_):
        rq.answer(200, [])

    def message(rq, conversation_id):
        body = rq.body_json()
        rq.answer_events(standin.turn(standin.conversations.get(
            conversation_id, body.get("agent_id") or standin.agent["id"]), body))

    def message_to_agent(rq, agent_id):
        rq.answer_events(standin.turn(agent_id, rq.body_json()))

    def models(rq, *_):
        rq.answer(200, [dict(standin.agent["llm_config"], name="one-line")])

    def repositories(rq, *_):
        rq.answer(200, {"repositories": []})

    def nothing(rq, *_):
        rq.body_json()
        rq.answer(200, [])

    ROUTES = [
        ("GET", r"/v1/health/?", health),
        ("GET", r"/v1/agents/?", agents),
        ("POST", r"/v1/agents/?", agent_new),
        ("GET", r"/v1/agents/([^/]+)", agent),
        ("PATCH", r"/v1/agents/([^/]+)", agent_patch),
        ("POST", r"/v1/agents/([^/]+)/recompile", recompile),
        ("POST", r"/v1/conversations/?", conversation_new),
        ("GET", r"/v1/conversations/([^/]+)", conversation),
        ("PATCH", r"/v1/conversations/([^/]+)", conversation),
        ("POST", r"/v1/conversations/([^/]+)/recompile", recompile),
        ("GET", r"/v1/conversations/([^/]+)/messages", messages_list),
        ("POST", r"/v1/conversations/([^/]+)/messages", message),
        ("GET", r"/v1/agents/([^/]+)/messages", messages_list),
        ("POST", r"/v1/agents/([^/]+)/messages(?:/stream)?", message_to_agent),
        ("GET", r"/v1/agents/([^/]+)/secrets", nothing),
        ("GET", r"/v1/agents/([^/]+)/repositories", repositories),
        ("GET", r"/v1/models(?:/catalog)?/?", models),
        ("POST", r"/v1/tools/add-base-tools/?", nothing),
        ("GET", r"/v1/tools/?", nothing),
    ]
    return Handler
