"""A server on loopback that speaks enough of OpenAI's API to test what asks it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[str, str], str]  # system and user message -> what the model says
# Request -> the assistant's message; {} for a reply without one, None where it fails.
Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


def serving(reply: Reply) -> AbstractContextManager[str]:
    """The base URL, while it serves."""
    return answering(lambda asked: {"role": "assistant", "content": reply(*(one["content"] for one in asked["messages"][:2]))})


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The same, for what depends on the whole request or is more than words."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if message is None:
                self.send_error(401)
                return
            choices = [{"index": 0, "finish_reason": "stop", "message": message}] if message else []
            body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
