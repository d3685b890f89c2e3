"""An agent API on a real socket whose answers a test gives, call by call."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.relay.fake_control_plane import Received

# Takes a call, returns status and JSON.
Answer = Callable[[Received], tuple[int, Any]]


@dataclass(slots=True)
class ScriptedGateway:
    """Keeps what it receives."""

    url: str
    answer: Answer
    received: list[Received] = field(default_factory=list)

    def paths(self) -> list[str]:
        """Return the paths of the calls, without their queries."""
        return [urlsplit(call.path).path for call in self.received]


@contextmanager
def scripted_gateway(answer: Answer) -> Iterator[ScriptedGateway]:
    """Listen as long as the block lasts."""
    gateway = ScriptedGateway("", answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _take(self) -> None:
            call = Received(
                method=self.command,
                path=self.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            )
            gateway.received.append(call)
            status, content = gateway.answer(call)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # whoever asked may be gone by now
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = _take  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
