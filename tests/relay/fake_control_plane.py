"""A control plane on a real socket that can be stopped, restarted on its port, and told to fail."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from hpc_agent.relay.documents import calls

_KEPT_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as the test wants it; ``cut``: the connection ends before the announced end.

    ``hold``: the answer waits for this event. ``content`` None: what was asked for is done.
    """

    status: int = 200
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hold: threading.Event | None = None


def done(body: bytes) -> bytes:
    """Return the answer to a GraphQL request, or to any other, that says: it is done."""
    try:
        wanted = calls(json.loads(body)["query"])
    except (LookupError, TypeError, ValueError):
        return b"{}"
    data: dict[str, Any] = {}
    for call in wanted:
        within = data
        for name in call.result[:-1]:
            within = within.setdefault(name, {})
        within[call.result[-1]] = {"ok": True}
    return json.dumps({"data": data}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedLog:
    """A compute log as it was uploaded; ``end`` is the last of it."""

    name: str
    io_type: str
    is_partial: bool
    size: int
    digest: str
    end: str

    @classmethod
    def of(cls, path: str, size: int, digest: str, end: bytes) -> UploadedLog:
        """Take the address, which says what was asked for."""
        query = parse_qs(path.partition("?")[2])
        return cls(
            name="/".join(query.get("log_key", [])),
            io_type=query.get("io_type", [""])[0],
            is_partial=query.get("partial") == ["True"],
            size=size,
            digest=digest,
            end=end.decode("utf-8", "replace"),
        )


@dataclass(slots=True)
class FakeControlPlane:
    """Answers every GraphQL request and counts event writes once per idempotency key.

    ``answer`` None says of each call of a document that it is done.
    ``script`` may answer a request in its own way; such an answer stores nothing.
    """

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    stored: dict[str, Received] = field(default_factory=dict)
    uploads: list[tuple[int, str]] = field(default_factory=list)
    logs: list[UploadedLog] = field(default_factory=list)
    upload_status: int = 200
    status: int = 200
    answer: dict[str, Any] | None = None
    script: Callable[[Received], Reply | None] | None = None
    server: ThreadingHTTPServer | None = None
    connections: set[socket.socket] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the port of the last start if there was one."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer.connections.add(self.connection)

            def do_POST(self) -> None:
                presigned = {"url": f"{outer.url}/bucket/state", "fields": {"policy": "p"}}
                if self.path.startswith("/bucket/"):
                    self._upload()
                elif self.path.startswith("/gen_artifact"):
                    self._take(presigned)
                else:
                    self._take()

            def do_PUT(self) -> None:
                if self.path.startswith("/bucket/"):
                    self._upload()
                else:
                    self._take()

            def do_GET(self) -> None:
                query = self.path.partition("?")[2]
                if self.path.startswith("/gen_logs_url"):
                    self._take({"url": f"{outer.url}/bucket/logs?X-Signature=secret&{query}"})
                elif self.path.startswith("/bucket/"):
                    self._send(200, b"state")
                else:
                    self._take()

            def _take(self, answer: dict[str, Any] | None = None) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(method=self.command, path=self.path, headers=headers, body=body)
                outer.requests.append(received)
                if outer.script is not None and (reply := outer.script(received)) is not None:
                    self._act(reply, done(body) if reply.content is None else reply.content)
                    return
                if outer.status == 200 and "idempotency-key" in headers:
                    outer.stored.setdefault(headers["idempotency-key"], received)
                given = outer.answer if answer is None else answer
                self._send(
                    outer.status, done(body) if given is None else json.dumps(given).encode()
                )

            def _upload(self) -> None:
                left = int(self.headers["Content-Length"])
                digest, size, end = hashlib.sha256(), left, b""
                while left:
                    data = self.rfile.read(min(left, 1 << 16))
                    if not data:
                        return
                    digest.update(data)
                    left -= len(data)
                    end = (end + data)[-_KEPT_BYTES:]
                if outer.upload_status == 200:
                    outer.uploads.append((size, digest.hexdigest()))
                    outer.logs.append(UploadedLog.of(self.path, size, digest.hexdigest(), end))
                self._send(outer.upload_status, b"{}")

            def _act(self, reply: Reply, content: bytes) -> None:
                if reply.hold is not None:
                    reply.hold.wait(timeout=60)
                self.send_response(reply.status)
                length = len(content) + (100 if reply.cut else 0)
                headers = {"Content-Type": "application/json", "Content-Length": str(length)}
                for name, value in (headers | reply.headers).items():
                    self.send_header(name, value)
                with contextlib.suppress(ConnectionError):  # whoever asked may be gone by now
                    self.end_headers()
                    self.wfile.write(content)
                self.close_connection = reply.cut

            def _send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients may go away."""

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        """Stop listening and cut the connections there are; new ones are refused from now on."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        while self.connections:
            with contextlib.suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)
