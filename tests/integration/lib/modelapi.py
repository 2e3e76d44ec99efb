"""The model API that a Letta server under test asks, on loopback: OpenAI's, as much as Letta uses.

    with ModelApi() as api:     LettaServer(…, model_api=api)     …     api.prompts[-1].system

It always says LINE, in as many pieces as it has words.  What it was sent is kept in `prompts`, so
that a recompiled system prompt can be seen.  `say` queues other answers, a text or a tool call;
while `gate` is cleared, a streamed answer stops after its first piece.

Thread: one a connection; `prompts` only grows.
"""
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "gpt-4o-mini"       # a name that Letta knows the size of
EMBEDDING = "text-embedding-3-small"
LINE = "I will remember that."


class Prompt:
    """One request for a completion."""

    def __init__(self, body):
        self.body = body
        self.messages = body["messages"]

    @property
    def system(self):
        return "\n".join(m["content"] for m in self.messages if m["role"] in ("system", "developer"))

    @property
    def tools(self):
        return sorted(t["function"]["name"] for t in self.body.get("tools") or [])


class ModelApi:
    def __init__(self):
        self.prompts = []
        self.queue = []
        self.gate = threading.Event()
        self.gate.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.server.daemon_threads = True
        self.url = "http://127.0.0.1:%d/v1" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def say(self, text=None, tool=None, **arguments):
        """The next answer is this text, or a call of this tool."""
        self.queue.append((text, tool, arguments))

    def pieces(self):
        """The deltas of the next answer, and why it ends."""
        text, tool, arguments = self.queue.pop(0) if self.queue else (LINE, None, None)
        if tool is None:
            return [{"content": w + " "} for w in text.split()[:-1]] + [
                {"content": text.split()[-1]}], "stop"
        call = {"index": 0, "id": "call_%d" % len(self.prompts), "type": "function",
                "function": {"name": tool, "arguments": json.dumps(arguments)}}
        return [{"tool_calls": [call]}], "tool_calls"


def _whole(pieces):
    """The message that streamed pieces add up to."""
    message = {"role": "assistant",
               "content": "".join(p.get("content", "") for p in pieces) or None}
    calls = [{k: v for k, v in call.items() if k != "index"}
             for p in pieces for call in p.get("tool_calls", [])]
    return {**message, "tool_calls": calls} if calls else message


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _handler_of(api):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, body):
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.answer({"object": "list", "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": "test"}
                for name in (MODEL, EMBEDDING)]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/embeddings"):
                wanted = body["input"] if isinstance(body["input"], list) else [body["input"]]
                self.answer({"object": "list", "model": body["model"], "usage": USAGE, "data": [
                    {"object": "embedding", "index": i, "embedding": [0.5] * 1536}
                    for i in range(len(wanted))]})
                return
            api.prompts.append(Prompt(body))
            pieces, reason = api.pieces()
            if body.get("stream"):
                self.stream(pieces, reason, body)
            else:
                self.answer(self.completion("chat.completion", body, choices=[
                    {"index": 0, "message": _whole(pieces), "finish_reason": reason}], usage=USAGE))

        def completion(self, kind, body, **rest):
            return {"id": "chatcmpl-%d" % len(api.prompts), "object": kind, "created": 0,
                    "model": body["model"], **rest}

        def stream(self, pieces, reason, body):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            kind = "chat.completion.chunk"
            for n, piece in enumerate(pieces):
                if n == 1:
                    api.gate.wait(60)
                self.event(self.completion(kind, body, choices=[
                    {"index": 0, "delta": {"role": "assistant", **piece}, "finish_reason": None}]))
            self.event(self.completion(kind, body, choices=[
                {"index": 0, "delta": {}, "finish_reason": reason}]))
            self.event(self.completion(kind, body, choices=[], usage=USAGE))
            self.wfile.write(b"data: [DONE]\n\n")

        def event(self, body):
            self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
            self.wfile.flush()

    return Handler
